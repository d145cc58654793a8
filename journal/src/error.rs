//! Why a folder or a file of a log cannot be used.
//!
//! Invariant: every error names its file or folder. No state.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

#[derive(Debug, Error)]
pub enum JournalError {
    #[error("cannot create the folder {}", path.display())]
    CreateFolder {
        path: PathBuf,
        #[source]
        source: io::Error,
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
    #[error("{} is used by another process", path.display())]
    InUse { path: PathBuf },
}

/// Returns a function that turns an I/O error into [`JournalError::Read`] of `path`.
pub fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::Read { path, source }
}

/// Returns a function that turns an I/O error into [`JournalError::Write`] of `path`.
pub fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::Write { path, source }
}
