//! Counters of the driver since the process started, for metrics pages and health checks.
//!
//! Invariant: whenever nothing is under way, `received = sealed events + sealed rejects +
//! duplicates + given up`. Records given up were not acknowledged and will be read again. While
//! records are under way, they are counted as `unsealed`. The driver computes the sum, because it
//! does the counting; [`Metrics::conserved`] returns whether the sum held when it was last
//! computed. Counters start at zero after a crash.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use strongroom_ingest::FaultCounts;
use strongroom_ingest::redaction::RedactionCounts;
use strongroom_lines::DialectCounts;
use strongroom_schemas::Severity;

use crate::SourceCounters;

/// Upper bounds of the buckets of a [`Histogram`], in seconds; the last bucket has none.
pub const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

/// Durations, counted by size.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Returns, for each bound in [`BUCKETS`], how many durations were not longer, and then the
    /// number of all durations.
    pub fn cumulative(&self) -> [u64; BUCKETS.len() + 1] {
        let mut sum = 0;
        std::array::from_fn(|bucket| {
            sum += self.buckets[bucket].load(Ordering::Relaxed);
            sum
        })
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// Everything a driver counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Records that were decoded, plus records that were left out as duplicates.
    pub received: AtomicU64,
    pub sealed_events: AtomicU64,
    pub sealed_rejects: AtomicU64,
    pub duplicates: AtomicU64,
    /// Records that were decoded but not sealed when the pipeline restarted; they are read again.
    pub given_up: AtomicU64,
    /// Records decoded and not sealed yet.
    pub unsealed: AtomicU64,
    /// The id of the redaction policy, if there is one.
    pub redaction_policy: OnceLock<u64>,
    /// Sealed events that were redacted.
    pub redacted_events: AtomicU64,
    /// Values in these events that were dropped.
    pub dropped_values: AtomicU64,
    /// Values in these events that were replaced by tokens.
    pub tokenised_values: AtomicU64,
    /// Bytes of text under way.
    pub text_bytes: AtomicU64,
    pub text_bytes_max: AtomicU64,
    /// Bytes of Parquet that wait for a seal.
    pub encoded_bytes: AtomicU64,
    pub seals: AtomicU64,
    pub seal_failures: AtomicU64,
    pub sealed_bytes: AtomicU64,
    pub sealed_files: AtomicU64,
    /// Time from the start of a seal to its end.
    pub seal_seconds: Histogram,
    /// Time from the arrival of an event to its alert.
    pub alert_seconds: Histogram,
    /// Number of restarts of the pipeline after a failure.
    pub restarts: AtomicU64,
    /// Rules in use.
    pub rules: AtomicU64,
    /// How often the rules were replaced while the pipeline ran.
    pub rule_reloads: AtomicU64,
    /// How often a replacement of the rules was refused, because a file is broken.
    pub rule_reloads_refused: AtomicU64,
    /// How often the conservation sum did not hold.
    pub conservation_failures: AtomicU64,
    /// Whether the pipeline has opened the archive and takes text from sources.
    pub running: AtomicBool,
    /// Whether nothing is sealed because this machine's clock contradicts other evidence.
    pub clock_doubted: AtomicBool,
    broken: AtomicBool,
    alerts: Mutex<BTreeMap<Severity, u64>>,
    rejects: Mutex<BTreeMap<String, u64>>,
    dialects: Mutex<DialectCounts>,
    faults: Mutex<FaultCounts>,
    /// When the oldest record that is not sealed arrived.
    oldest: Mutex<Option<Instant>>,
    /// Why sealing is held up, in words.
    trouble: Mutex<Option<String>>,
    sources: Mutex<BTreeMap<String, Arc<SourceCounters>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The values are whole after each statement, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// Whether the conservation sum held when it was last computed.
    pub fn conserved(&self) -> bool {
        !self.broken.load(Ordering::Relaxed)
    }

    /// Computes the sum. Only the thread that counts may call it: others may see half of a step.
    pub(crate) fn draw_up(&self) -> bool {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let sum = get(&self.sealed_events)
            + get(&self.sealed_rejects)
            + get(&self.duplicates)
            + get(&self.given_up)
            + get(&self.unsealed);
        self.broken.store(get(&self.received) != sum, Ordering::Relaxed);
        get(&self.received) == sum
    }

    pub fn alerts(&self) -> BTreeMap<Severity, u64> {
        lock(&self.alerts).clone()
    }

    pub(crate) fn alert(&self, severity: Severity) {
        *lock(&self.alerts).entry(severity).or_insert(0) += 1;
    }

    /// Sealed rejects by reason.
    pub fn rejects(&self) -> BTreeMap<String, u64> {
        lock(&self.rejects).clone()
    }

    pub(crate) fn reject(&self, reason: &str, count: u64) {
        *lock(&self.rejects).entry(reason.to_owned()).or_insert(0) += count;
    }

    /// Sealed events by the wrapper that they came in.
    pub fn dialects(&self) -> DialectCounts {
        lock(&self.dialects).clone()
    }

    pub(crate) fn sealed_in(&self, dialects: &DialectCounts) {
        lock(&self.dialects).add_all(dialects);
    }

    /// Sealed events of which something could not be read.
    pub fn faults(&self) -> FaultCounts {
        lock(&self.faults).clone()
    }

    pub(crate) fn faulty(&self, counts: &FaultCounts) {
        lock(&self.faults).add_all(counts);
    }

    pub(crate) fn redacted(&self, counts: RedactionCounts) {
        self.redacted_events.fetch_add(counts.events, Ordering::Relaxed);
        self.dropped_values.fetch_add(counts.dropped, Ordering::Relaxed);
        self.tokenised_values.fetch_add(counts.tokenised, Ordering::Relaxed);
    }

    /// Returns how long ago the oldest record that is not sealed arrived.
    pub fn oldest_unsealed(&self) -> Option<Duration> {
        lock(&self.oldest).map(|arrived| arrived.elapsed())
    }

    pub(crate) fn set_oldest(&self, arrived: Option<Instant>) {
        *lock(&self.oldest) = arrived;
    }

    /// Returns why sealing is held up; `None` if it is not.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }

    /// Returns the counters of a source, which live as long as the process.
    pub fn source(&self, name: &str) -> Arc<SourceCounters> {
        Arc::clone(lock(&self.sources).entry(name.to_owned()).or_default())
    }

    pub fn sources(&self) -> Vec<(String, Arc<SourceCounters>)> {
        lock(&self.sources).iter().map(|(name, counters)| (name.clone(), Arc::clone(counters))).collect()
    }
}
