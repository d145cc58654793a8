//! Fail points: named moments of a seal at which a test can make a run fail or die. Only tests arm
//! fail points, so in production a run passes all of them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_schemas::Table;

/// A moment of a seal. A crash after it leaves a different state on disk than a crash before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Before bytes of a file are written.
    Write,
    /// A file is complete and synced, under its staging name.
    FileWritten,
    /// The file has its final name, but no commit names it yet.
    FilePublished,
    /// Before a tile or a checkpoint is written.
    Proof,
    /// Before a retention record is written, before an object's lock is extended, and before an
    /// object is held, released or removed.
    Retention,
    /// A table's commit was made.
    Committed(Table),
}

/// The failure that a test has armed.
#[derive(Clone, Debug, Default)]
pub struct FailPoints {
    armed: Arc<Mutex<Option<(Step, usize, io::ErrorKind)>>>,
}

impl FailPoints {
    /// Fails with an error of `kind` when `step` is passed for the `nth` time, counted from zero.
    pub fn arm(&self, step: Step, nth: usize, kind: io::ErrorKind) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((step, nth, kind));
    }

    /// Called when a run reaches `step`. Returns `Ok` unless a failure is due now.
    ///
    /// # Errors
    /// The error that is armed for `step`, if it is due now.
    pub fn pass(&self, step: Step) -> io::Result<()> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *armed {
            Some((at, nth, kind)) if *at == step => {
                if *nth == 0 {
                    return Err(io::Error::new(*kind, "injected"));
                }
                *nth -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
