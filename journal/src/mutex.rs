//! Mutexes whose content is consistent after every statement.
//!
//! Invariant: callers never leave the content half changed between two statements that may panic,
//! so a poisoned mutex can still be used. No state on disk.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also after a panic of another thread that held it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
