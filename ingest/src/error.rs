//! The errors that end a run.
//!
//! Invariant: a line that cannot be decoded is not an error: it is a row of `rejects`. Every
//! variant names one operation and its object. Its text does not repeat that of its source.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

use strongroom_archive::ArchiveError;
use thiserror::Error;

use crate::passed_over::PassedOver;

#[derive(Debug, Error)]
pub enum IngestError {
    #[error("no such file: {}", path.display())]
    NoSuchFile { path: PathBuf },
    #[error("no file matches the pattern \"{pattern}\"")]
    NoMatch { pattern: String },
    #[error("the pattern \"{pattern}\" is not valid")]
    Pattern {
        pattern: String,
        #[source]
        source: glob::PatternError,
    },
    #[error("cannot list {}", path.display())]
    ListDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is more than {depth_max} folders deep", path.display())]
    TooDeep { path: PathBuf, depth_max: usize },
    #[error("{} contains no log files", path.display())]
    NoLogFiles { path: PathBuf, passed_over: Box<PassedOver> },
    #[error("standard input is named more than once")]
    StdinTwice,
    #[error("the archive failed")]
    Archive(#[from] ArchiveError),
    #[error("alerts cannot be kept, so the events that they are about are not committed")]
    KeepAlerts(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the rules cannot be applied to a block")]
    Match(#[from] strongroom_alerts::MatchError),
    #[error("cannot turn a block of {label} at byte {offset} into columns")]
    Columns {
        label: String,
        offset: i64,
        #[source]
        source: arrow_schema::ArrowError,
    },
    #[error("column alert_id of the stored alerts is not a string")]
    AlertIds,
    #[error("rows that are stored cannot be left out of a block")]
    LeaveOut(#[source] arrow_schema::ArrowError),
    #[error("a part of {label} cannot be encrypted")]
    Encrypt {
        label: String,
        #[source]
        source: strongroom_redact::CipherError,
    },
    #[error("the last run ended between the commits of rejects and events, and had another redaction policy")]
    OtherPolicy,
    #[error("decoding a block of {label} at byte {offset} ended in a panic, which is a bug")]
    WorkerPanicked { label: String, offset: i64 },
    #[error("{label} continues at byte {found}, but stopped at byte {expected}")]
    ChunkGap { label: String, expected: i64, found: i64 },
    #[error("{thread} ended in a panic, which is a bug")]
    ThreadEnded { thread: PipelineThread },
}

/// A thread whose answers a driver needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineThread {
    Reader,
    /// The last of the workers.
    Workers,
    Sealer,
}

impl fmt::Display for PipelineThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PipelineThread::Reader => "the reader thread",
            PipelineThread::Workers => "the last worker thread",
            PipelineThread::Sealer => "the sealer thread",
        })
    }
}

impl IngestError {
    /// Returns what the user can do about the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            IngestError::NoSuchFile { .. } | IngestError::NoMatch { .. } => {
                Some("name log files, directories of log files, quoted patterns, or - for standard input".to_owned())
            }
            IngestError::TooDeep { .. } => Some("name the deep folder as well".to_owned()),
            IngestError::NoLogFiles { passed_over, .. } => Some(no_log_files(passed_over)),
            IngestError::Archive(error) if has_kind(error, ErrorKind::StorageFull) => {
                Some("what was sealed stays; free some space and run the same command again, which continues from there".to_owned())
            }
            IngestError::Archive(error) if has_kind(error, ErrorKind::FileTooLarge) => {
                Some("files may not be longer than ulimit -f says; raise the limit, or seal smaller files with --seal-bytes; what was sealed stays, and the same command continues from there".to_owned())
            }
            IngestError::KeepAlerts(_) => {
                Some("what was sealed stays; run the same command again, which raises the alerts again".to_owned())
            }
            IngestError::Archive(error) => error.hint().map(str::to_owned),
            IngestError::OtherPolicy => {
                Some("nothing is lost; run once with the previous policy until something is sealed, then change it".to_owned())
            }
            IngestError::WorkerPanicked { .. } | IngestError::ThreadEnded { .. } => {
                Some("what was sealed before is intact; please report this message, without the log itself".to_owned())
            }
            _ => None,
        }
    }

    /// Whether the request is at fault, and not a disk or the archive.
    pub fn is_input(&self) -> bool {
        match self {
            IngestError::NoSuchFile { .. }
            | IngestError::NoMatch { .. }
            | IngestError::Pattern { .. }
            | IngestError::TooDeep { .. }
            | IngestError::NoLogFiles { .. }
            | IngestError::StdinTwice => true,
            IngestError::Archive(error) => error.is_location(),
            _ => false,
        }
    }
}

/// Maximum number of names in a hint.
const HINT_NAMES_MAX: usize = 3;
/// Maximum number of characters of a name in a hint.
const HINT_NAME_CHARS_MAX: usize = 200;

fn no_log_files(passed_over: &PassedOver) -> String {
    let named: Vec<String> = passed_over
        .examples
        .iter()
        .take(HINT_NAMES_MAX)
        .map(|(path, why)| {
            let name: String = path.display().to_string().chars().take(HINT_NAME_CHARS_MAX).collect();
            format!("{} ({why})", name.escape_debug())
        })
        .collect();
    if named.is_empty() {
        return "there is no file in it; name log files, or folders that contain some".to_owned();
    }
    let more = passed_over.total() - named.len() as u64;
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!(
        "it was searched, and nothing in it may be a log: {}{more}; name a file to read it all the same",
        named.join(", ")
    )
}

fn has_kind(error: &ArchiveError, kind: ErrorKind) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source()).any(|error| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == kind)
    })
}
