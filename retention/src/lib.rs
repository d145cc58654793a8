//! How long things are kept: the promise in years, legal holds that outlast it, what expires,
//! dropping a volume, and what is said of commits that a wrong clock dated. `docs/proof.md` has the
//! formats of the records.
//!
//! Invariants:
//! 1. The promised years only grow. An object's retain-until date is never replaced with an earlier
//!    date, which the store would also refuse.
//! 2. Every action is recorded before it is done, under a name that is written once: a policy, a
//!    hold with the list of its objects, a drop. After a crash at any moment, the same command
//!    finishes the action.
//! 3. Only the volume that a drop record names is removed, and only if the archive's key signed the
//!    record after every object of the volume was past its retention and under no hold. In a bucket
//!    the store itself enforces retention and holds.
//! 4. Readers leave out a volume with a valid drop record, even if some of the volume remains. A
//!    forged record hides nothing.

mod drop;
mod explain;
mod extend;
mod hold;
mod matching;
mod objects;
mod status;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use strongroom_archive::Archive;
use strongroom_archive::error::{ArchiveError, LogError, RecordError};
use strongroom_archive::fail::{FailPoints, Step};
pub use strongroom_archive::record_fault::RecordFault;
pub use strongroom_archive::records::clock::{ClockRecord, Made};
pub use strongroom_archive::records::policy::Policy;
pub use strongroom_archive::records::text::{DropRecord, HeldObject, PolicyRecord, Scope, TEXT_BYTES_MAX};
use strongroom_archive::records::{keys, text};
use strongroom_archive::site::Site;
use strongroom_store::background;
use strongroom_store::error::StoreError;
use strongroom_store::options::RETENTION_YEARS_MAX;
use strongroom_store::s3_error::S3Error;
use strongroom_tlog::error::TlogError;
use strongroom_tlog::keys::Keys;
use thiserror::Error;

pub use self::drop::{ClockTrust, DropOutcome, DropRequest, drop_volume};
pub use self::explain::{ClockRequest, explain_clock, made_text};
pub use self::extend::{Extended, extend, policy};
pub use self::hold::{Covered, HoldState, holds, place_hold, refresh_holds, release_hold};
pub use self::status::{Issue, IssueKind, Status, VolumeStatus, status};

/// Number of requests about single objects that are sent at the same time.
const OBJECTS_AT_ONCE: usize = 16;
/// Maximum number of objects that a failure names.
const NAMES_MAX: usize = 10;

/// What can go wrong with retention, holds and drops.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RetentionError {
    #[error("{asked} years were requested; a retention has 1 to {} years", RETENTION_YEARS_MAX)]
    Years { asked: u32 },
    #[error("the archive promises {promised} years; a retention cannot be shortened to {asked}")]
    Shorter { asked: u32, promised: u32 },
    #[error("the {what} is not one line of plain text of at most {TEXT_BYTES_MAX} bytes")]
    Text { what: &'static str },
    #[error("the end of the hold's period is before its start")]
    Span,
    #[error("the period in which the commits were made ends before it begins, or in the future")]
    Made,
    #[error("{volume} has no commits {first} to {last}, but {there} commits, from 0 on")]
    NoCommits { volume: String, first: u64, last: u64, there: u64 },
    #[error("hold \"{name}\" was placed with another scope")]
    HoldDiffers { name: String },
    #[error("hold \"{name}\" was released; a name can be used only once")]
    HoldReleased { name: String },
    #[error("the archive has no hold \"{name}\"")]
    HoldUnknown { name: String },
    #[error("this archive is signed; a signing key is required")]
    KeyNeeded,
    #[error("volume {volume} does not exist")]
    NoVolume { volume: String },
    #[error("{volume} cannot be dropped: {}", reasons.join("; "))]
    NotDropped { volume: String, reasons: Vec<String> },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("{failed} of {all} objects could not be {deed}: {}", list(first, *failed))]
    Objects { deed: &'static str, failed: usize, all: usize, first: Vec<(String, String)> },
    #[error("cannot list the versions of objects below {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: S3Error,
    },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read rows of file {}: {detail}", path.display())]
    Rows { path: PathBuf, detail: String },
    #[error(transparent)]
    Log(LogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] Box<ArchiveError>),
}

impl From<LogError> for RetentionError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Record(error) => error.into(),
            LogError::Store(error) => error.into(),
            error => RetentionError::Log(error),
        }
    }
}

impl From<TlogError> for RetentionError {
    fn from(error: TlogError) -> Self {
        RetentionError::Log(error.into())
    }
}

impl From<ArchiveError> for RetentionError {
    fn from(error: ArchiveError) -> Self {
        RetentionError::Archive(Box::new(error))
    }
}

impl RetentionError {
    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            RetentionError::KeyNeeded => {
                Some("give it with --key FILE, STRONGROOM_KEY_FILE or --signer COMMAND")
            }
            RetentionError::HoldDiffers { .. } | RetentionError::HoldReleased { .. } => {
                Some("choose another name; strongroom hold list shows the names that are taken")
            }
            RetentionError::HoldUnknown { .. } => Some("strongroom hold list shows all holds"),
            RetentionError::Objects { .. } => Some(
                "check permissions and the store, and run the same command again; it continues where it stopped",
            ),
            RetentionError::NotDropped { .. } => {
                Some("strongroom retention status shows how long each volume is kept")
            }
            RetentionError::Record(_) => Some("strongroom verify reports what is wrong"),
            RetentionError::List { source, .. } => source.hint(),
            RetentionError::Log(error) => error.hint(),
            RetentionError::Store(error) => error.hint(),
            RetentionError::Archive(error) => error.hint(),
            _ => None,
        }
    }

    /// True if the error is in the request of the user; false if the archive or the store failed.
    pub fn is_input(&self) -> bool {
        match self {
            RetentionError::Store(error) => error.is_location(),
            RetentionError::Archive(error) => error.is_location(),
            RetentionError::Years { .. }
            | RetentionError::Shorter { .. }
            | RetentionError::Text { .. }
            | RetentionError::Span
            | RetentionError::Made
            | RetentionError::NoCommits { .. }
            | RetentionError::HoldDiffers { .. }
            | RetentionError::HoldReleased { .. }
            | RetentionError::HoldUnknown { .. }
            | RetentionError::KeyNeeded
            | RetentionError::NoVolume { .. }
            | RetentionError::NotDropped { .. } => true,
            _ => false,
        }
    }
}

fn list(first: &[(String, String)], failed: usize) -> String {
    let named: Vec<String> = first.iter().map(|(path, why)| format!("{path} ({why})")).collect();
    let more = failed.saturating_sub(named.len());
    named.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

/// Receives the number of objects that are done and the total number. May be called from any
/// thread.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// One command on an archive's retention: the archive, and where its progress is reported.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) site: Site,
    pub(crate) fail_points: FailPoints,
    pub(crate) progress: Progress,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("root", &self.site.root).finish_non_exhaustive()
    }
}

impl Work {
    pub(crate) fn of(archive: &Archive, progress: Progress) -> Work {
        Work { site: archive.site().clone(), fail_points: FailPoints::default(), progress }
    }

    /// Runs a future that reads and writes the store on the store's threads.
    pub(crate) fn run<T: Send + 'static, F>(
        self,
        work: impl FnOnce(Work) -> F + Send + 'static,
    ) -> Result<T, RetentionError>
    where
        F: Future<Output = Result<T, RetentionError>> + Send + 'static,
    {
        background::wait(async move { work(self).await })
    }

    pub(crate) async fn keys(&self) -> Result<Keys, LogError> {
        keys::load(&self.site).await
    }

    fn pass(&self, path: &Path) -> Result<(), RetentionError> {
        let failed = |source| RetentionError::Write { path: path.to_owned(), source };
        self.fail_points.pass(Step::Retention).map_err(failed)
    }

    /// Returns the bytes of a statement, signed if there is a signer. Returns an error if the
    /// signer's key is not the archive's current key.
    fn signed(&self, text: &str, signed_as: &str, keys: &Keys) -> Result<Bytes, RetentionError> {
        match (&self.site.signer, keys.current()) {
            (Some(signer), Some(current)) if signer.public() == current => {
                Ok(format!("{text}\n{}", signer.sign(signed_as, text)?).into())
            }
            (Some(_), Some(current)) => Err(LogError::KeyNotCurrent { current }.into()),
            (Some(_), None) => Err(LogError::NoKey.into()),
            (None, _) => Ok(text.to_owned().into()),
        }
    }

    /// Writes a file, but never replaces one. Returns `true` if the file has `bytes` as its content
    /// now, `false` if it has other content.
    async fn put(&self, path: &Path, bytes: Bytes) -> Result<bool, RetentionError> {
        self.pass(path)?;
        let put = self.site.store.put_proof(path, bytes.clone()).await;
        if put.map_err(|source| RetentionError::Write { path: path.to_owned(), source })? {
            return Ok(true);
        }
        Ok(self.site.read(path).await?.as_ref() == Some(&bytes))
    }
}

/// Collects the failures, object by object.
#[derive(Default)]
struct Failures {
    all: usize,
    failed: usize,
    first: Vec<(String, String)>,
}

impl Failures {
    fn take<T>(&mut self, path: &str, outcome: Result<T, String>) -> Option<T> {
        self.all += 1;
        match outcome {
            Ok(done) => Some(done),
            Err(why) => {
                self.failed += 1;
                if self.first.len() < NAMES_MAX {
                    self.first.push((path.to_owned(), why));
                }
                None
            }
        }
    }

    fn end(self, deed: &'static str) -> Result<(), RetentionError> {
        let Failures { all, failed, first } = self;
        if failed == 0 { Ok(()) } else { Err(RetentionError::Objects { deed, failed, all, first }) }
    }
}

fn text_of(what: &'static str, line: &str) -> Result<(), RetentionError> {
    if text::is_line(line) { Ok(()) } else { Err(RetentionError::Text { what }) }
}
