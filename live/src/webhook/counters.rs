//! Counters of the listener since the process started, for the metrics page.
//!
//! Invariant: each counter is correct, but they are not read at the same moment, so their sums need
//! not agree. They start at zero after a crash.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::refusal_kind::RefusalKind;

/// Statuses that requests are answered with.
pub const STATUSES: [u16; 12] = [200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 503];
/// Upper bounds of the buckets of acknowledgement latency, in milliseconds; the last bucket has
/// none.
pub const LATENCY_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/// Counters and gauges of one listener.
#[derive(Debug, Default)]
pub struct WebhookCounters {
    statuses: [AtomicU64; STATUSES.len()],
    refusals: [AtomicU64; RefusalKind::ALL.len()],
    latency: [AtomicU64; LATENCY_MS.len() + 1],
    latency_micros: AtomicU64,
    /// Batches stored.
    pub batches: AtomicU64,
    /// Items stored.
    pub items: AtomicU64,
    /// Bytes of bodies stored.
    pub bytes: AtomicU64,
    /// Batches that were received again, and acknowledged without being stored.
    pub duplicate_batches: AtomicU64,
    /// Batches that were neither a list nor an event, and were stored as one line.
    pub odd_bodies: AtomicU64,
    /// Handshakes that failed: without a certificate of the right authority, without TLS, or too
    /// slow.
    pub handshakes_failed: AtomicU64,
    /// Certificates on disk that could not be used; the previous ones stay in use.
    pub certificates_refused: AtomicU64,
    /// Connections now open.
    pub connections: AtomicU64,
    /// Bytes of the write-ahead log now on disk.
    pub wal_bytes: AtomicU64,
    /// Segments of the write-ahead log now on disk.
    pub wal_segments: AtomicU64,
    /// Groups of batches that were made durable with one sync.
    pub wal_syncs: AtomicU64,
}

impl WebhookCounters {
    /// Requests answered so far, by status.
    pub fn requests(&self) -> impl Iterator<Item = (u16, u64)> {
        STATUSES.into_iter().zip(self.statuses.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Returns the latencies of the acknowledgements of stored batches, each measured from the head
    /// of the request. The list has the upper bound of each bucket (`None`: no bound) with its own
    /// count; beside it is the sum of the latencies.
    pub fn latency(&self) -> (Vec<(Option<Duration>, u64)>, Duration) {
        let bounds = LATENCY_MS.into_iter().map(|bound| Some(Duration::from_millis(bound))).chain([None]);
        let counts = self.latency.iter().map(|count| count.load(Ordering::Relaxed));
        (bounds.zip(counts).collect(), Duration::from_micros(self.latency_micros.load(Ordering::Relaxed)))
    }

    /// Requests and connections refused so far, by the name of the kind.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.refusals.iter().map(|count| count.load(Ordering::Relaxed));
        RefusalKind::ALL.iter().map(|kind| kind.as_str()).zip(counts)
    }

    pub(super) fn refused(&self, kind: RefusalKind) {
        if let Some(at) = RefusalKind::ALL.iter().position(|known| *known == kind) {
            self.refusals[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn answered(&self, status: u16) {
        if let Some(at) = STATUSES.iter().position(|known| *known == status) {
            self.statuses[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn acknowledged(&self, took: Duration) {
        let at = LATENCY_MS.iter().position(|bound| took <= Duration::from_millis(*bound));
        self.latency[at.unwrap_or(LATENCY_MS.len())].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency_micros.fetch_add(micros, Ordering::Relaxed);
    }
}
