//! What can go wrong with what an archive has signed: its keys, its logs, and the records beside them.
//!
//! Invariant: an error names the path of what is wrong, and wraps no error of the layers above.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::store::error::StoreError;
use crate::tlog::error::TlogError;
use crate::tlog::note::PublicKey;

/// A record that does not hold.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}: {fault}", path.display())]
pub struct RecordError {
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: String,
}

/// A signed log, a key record or another signed record that cannot be read, extended or believed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    #[error("not the archive's current key, which is {current}")]
    KeyNotCurrent { current: PublicKey },
    #[error("the archive has used the new key before")]
    KeyUsed,
    #[error("the archive has no key yet")]
    NoKey,
    #[error("key record {}: {detail}", path.display())]
    KeyRecord { path: PathBuf, detail: String },
    #[error("checkpoint {}: {detail}", path.display())]
    Checkpoint { path: PathBuf, detail: String },
    #[error("the commits of {log} do not match the checkpoint signed at size {size}; refusing to sign more")]
    Forked { log: String, size: u64 },
    #[error("{} exists with other content", path.display())]
    Differs { path: PathBuf },
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
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Tlog(#[from] TlogError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LogError {
    /// What the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            LogError::KeyNotCurrent { .. } => {
                Some("sign with the current key, or change to this one with strongroom key rotate")
            }
            LogError::Forked { .. } | LogError::Differs { .. } => {
                Some("run strongroom verify to find what was changed; keep the archive as it is")
            }
            LogError::NoKey => Some("run strongroom seal-log with a key"),
            LogError::Record(_) => Some("strongroom verify says what is wrong"),
            LogError::Tlog(error) => error.hint(),
            LogError::Store(error) => error.hint(),
            _ => None,
        }
    }
}
