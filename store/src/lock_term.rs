//! For how long new objects are locked.
//!
//! Invariant: a term only grows. All clones of it grow together, so a policy that one reader of an
//! archive has seen is what every writer of that archive puts objects with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::options::{LockMode, Retention};

/// The lock of new objects. Clones see it grow.
#[derive(Clone, Debug)]
pub struct LockTerm {
    mode: LockMode,
    years: Arc<AtomicU32>,
    /// Number of policy records that it includes.
    records: Arc<AtomicU64>,
}

impl LockTerm {
    /// The term of a store that is asked for `retention`.
    pub fn new(retention: Retention) -> Self {
        LockTerm { mode: retention.mode, years: Arc::new(retention.years.into()), records: Arc::default() }
    }

    /// The retention that an object put now is locked with.
    pub fn now(&self) -> Retention {
        Retention { mode: self.mode, years: self.years.load(Ordering::Relaxed) }
    }

    /// How many records of policy are in it.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Raises it to what the first `records` records of policy promise.
    pub fn raise(&self, years: u32, records: u64) {
        self.years.fetch_max(years, Ordering::Relaxed);
        self.records.fetch_max(records, Ordering::Relaxed);
    }
}
