//! For how long new objects are locked.
//!
//! Invariant: a term only grows, and all its clones grow together. So once one clone includes a
//! policy of the archive, every writer that has another clone locks its new objects accordingly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::options::{LockMode, Retention};

/// The lock of new objects. When one clone is raised, all are.
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

    /// The retention that an object put now is locked with.
    pub fn now(&self) -> Retention {
        Retention { mode: self.mode, years: self.years.load(Ordering::Relaxed) }
    }

    /// Number of policy records that the term includes.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Raises the term to `years`, which the first `records` policy records promise.
    pub fn raise(&self, years: u32, records: u64) {
        self.years.fetch_max(years, Ordering::Relaxed);
        self.records.fetch_max(records, Ordering::Relaxed);
    }
}
