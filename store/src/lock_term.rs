//! The term for which new objects are locked: their mode and their number of years.
//!
//! Invariant: a term only grows, and all its clones share one value. So when one clone has been
//! raised to the years of a policy record, every writer that has another clone locks its new
//! objects for that number of years.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::options::{LockMode, Retention};

/// The lock of new objects. Raising one clone raises all of them.
#[derive(Clone, Debug)]
pub struct LockTerm {
    mode: LockMode,
    years: Arc<AtomicU32>,
    /// Number of policy records that it includes.
    records: Arc<AtomicU64>,
}

impl LockTerm {
    /// A term that starts with `retention` and includes no policy record.
    pub fn new(retention: Retention) -> Self {
        LockTerm { mode: retention.mode, years: Arc::new(retention.years.into()), records: Arc::default() }
    }

    /// Returns the retention that an object put now is locked with.
    pub fn now(&self) -> Retention {
        Retention { mode: self.mode, years: self.years.load(Ordering::Relaxed) }
    }

    /// Returns the number of policy records that the term includes.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Raises the term to `years`, which the first `records` policy records promise.
    pub fn raise(&self, years: u32, records: u64) {
        self.years.fetch_max(years, Ordering::Relaxed);
        self.records.fetch_max(records, Ordering::Relaxed);
    }
}
