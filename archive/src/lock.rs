//! The permission to write to an archive. On a local disk there is one writer at a time, over all
//! processes. In a bucket there may be several writers, if the store refuses to replace objects.
//!
//! Invariant: the holder of a [`Lock`] is the only writer. The lock belongs to the open file, so
//! the system releases it however the process ends. The file itself stays in the archive, and its
//! existence has no meaning.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use strongroom_store::{Bucket, background, layout};

use crate::error::{ArchiveError, Result};

/// What permits a writer to write.
#[derive(Debug)]
pub(crate) enum WriterGuard {
    /// On a local disk: no one else writes.
    LockFile(#[expect(dead_code, reason = "it is held, never read")] Lock),
    /// In a bucket: other processes may write too, because a test has shown that the store refuses
    /// a second object with the same name.
    Fenced,
    /// In a bucket whose store does not refuse a second object: the operator has promised that no
    /// other process writes.
    SingleWriter,
}

impl WriterGuard {
    /// Tests the store of a bucket by putting an object that has no meaning, and returns what
    /// permits writing there.
    pub(crate) fn of_bucket(bucket: &Bucket) -> Result<WriterGuard> {
        let bucket = bucket.clone();
        background::wait(async move {
            if bucket.s3.is_conditional(bucket.retention.now().mode).await? {
                Ok(WriterGuard::Fenced)
            } else if bucket.s3.single_writer() {
                Ok(WriterGuard::SingleWriter)
            } else {
                Err(ArchiveError::NotConditional { root: bucket.s3.root().to_owned() })
            }
        })
    }
}

#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock; calls `on_wait` first if another process has it.
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

    /// Takes the lock without waiting; `None` if another process has it.
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
