//! Tells the reader how far the coordinator has appended each stream.
//!
//! Invariant: only the reader waits here, and only for blocks that it has sent; these are finished
//! without the reader. A panic or an error elsewhere closes the [`Reached`], which ends the wait.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::source::place::End;

#[derive(Default)]
pub(super) struct Reached {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: u64,
    ends: HashMap<String, End>,
    is_closed: bool,
}

impl Reached {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one statement, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Notes that the blocks of one more job were appended. `ends` has the partition of each of
    /// their streams with its new end, or with `None` if nothing of the stream was taken.
    pub(super) fn appended(&self, ends: &[(&str, Option<End>)]) {
        self.change(|state| {
            state.jobs += 1;
            for (partition, end) in ends {
                if let Some(end) = end {
                    state.ends.insert((*partition).to_owned(), *end);
                }
            }
        });
    }

    /// Forgets the ends, after everything was sealed.
    pub(super) fn clear(&self) {
        self.change(|state| state.ends.clear());
    }

    /// Waits until the blocks of the first `jobs` jobs were appended, and returns where the streams
    /// of these partitions end. `None` if the run fails before.
    pub(super) fn wait(&self, jobs: u64, partitions: &[String]) -> Option<Vec<Option<End>>> {
        let mut state = self.state();
        while !state.is_closed && state.jobs < jobs {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let end = |partition: &String| state.ends.get(partition).copied();
        (!state.is_closed).then(|| partitions.iter().map(end).collect())
    }
}

/// Closes a [`Reached`] when it is dropped.
pub(super) struct ClosesReached(pub(super) Arc<Reached>);

impl Drop for ClosesReached {
    fn drop(&mut self) {
        self.0.change(|state| state.is_closed = true);
    }
}
