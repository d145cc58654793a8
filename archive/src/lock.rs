//! One writer at a time, over all processes.
//!
//! Invariant: whoever holds a [`Lock`] is the only writer. The lock belongs to the open file, so the
//! system releases it when the process dies, however it dies; the file itself stays and means nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{ArchiveError, Result};
use crate::layout;

#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock; calls `on_wait` first if another holds it.
    pub(crate) fn acquire(root: &Path, on_wait: impl FnOnce()) -> Result<Lock> {
        let path = root.join(layout::LOCK);
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                on_wait();
                file.lock().map_err(|source| ArchiveError::Lock { path, source })?;
            }
            Err(TryLockError::Error(source)) => return Err(ArchiveError::Lock { path, source }),
        }
        Ok(Lock { _file: file })
    }

    /// `None` when another holds it.
    pub(crate) fn try_acquire(root: &Path) -> Result<Option<Lock>> {
        let path = root.join(layout::LOCK);
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(ArchiveError::Lock { path, source }),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|source| ArchiveError::Lock { path: path.to_owned(), source })
}
