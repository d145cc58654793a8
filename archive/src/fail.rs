//! Named moments of a seal at which tests make a run fail or die. Outside tests this does nothing.

use std::io;

use strongroom_schemas::Table;

/// A moment after which a crash leaves a different state on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Before bytes of a file are written.
    Write,
    /// A file is complete and synced, under its staging name.
    FileWritten,
    /// It has its final name; no commit names it.
    FilePublished,
    /// Before a tile or a checkpoint is written.
    Proof,
    /// Before a retention record is written, or an object is extended, held, released or removed.
    Retention,
    /// A table's commit was made.
    Committed(Table),
}

/// The failure that a test has armed.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailPoints {
    #[cfg(test)]
    armed: std::sync::Arc<std::sync::Mutex<Option<(Step, usize, io::ErrorKind)>>>,
}

impl FailPoints {
    /// Fails with an error of `kind` when `step` is passed for the `nth` time, counted from zero.
    #[cfg(test)]
    pub(crate) fn arm(&self, step: Step, nth: usize, kind: io::ErrorKind) {
        *self.armed.lock().expect("no test panics while it arms") = Some((step, nth, kind));
    }

    #[cfg(test)]
    pub(crate) fn pass(&self, step: Step) -> io::Result<()> {
        let mut armed = self.armed.lock().expect("no test panics while it arms");
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

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the signature tests have")]
    pub(crate) fn pass(&self, _step: Step) -> io::Result<()> {
        Ok(())
    }
}
