//! Sources that never end, and the driver that seals the text that they bring.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::sync::atomic::AtomicBool;
//!
//! use strongroom_alerts::RuleSet;
//! use strongroom_archive::Archive;
//! use strongroom_live::{LiveObserver, LiveOptions, LiveRules, Metrics, Run, serve};
//! use strongroom_live::{Source, Tail, TailOptions};
//! use strongroom_schemas::Alert;
//!
//! /// Counts alerts.
//! struct Count(u64);
//!
//! impl LiveObserver for Count {
//!     fn alert(&mut self, _alert: &Alert) {
//!         self.0 += 1;
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let paths = vec!["/var/log/kubernetes/audit".to_owned()];
//! let sources: Vec<Box<dyn Source>> =
//!     vec![Box::new(Tail::new(TailOptions::new("audit", "prod", paths)))];
//! // Set it from elsewhere to end the run in order.
//! let stop = AtomicBool::new(false);
//! let run = Run {
//!     rules: &LiveRules::new(Arc::new(RuleSet::builtin()?)),
//!     options: &LiveOptions::default(),
//!     metrics: &Metrics::default(),
//!     stop: &stop,
//! };
//! let mut count = Count(0);
//! serve(&|| Archive::open_or_create("./archive"), &run, sources, &mut count)?;
//! println!("{} alerts", count.0);
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  source ──Chunk──▶ workers: decode, match ──▶ driver ──▶ alerts leave
//!  (a thread each,                               │ text of each partition is kept
//!   waits when the                               ▼ until there is enough of it
//!   pipeline is full)  workers: decode, encode ──▶ batch ──▶ sealer ──▶ archive
//! ```
//!
//! Invariants:
//! - A source can restart at any sealed position, because it is a file that can be read again, a
//!   broker that keeps its messages, or a write-ahead log. So a failure anywhere loses only the
//!   work since the last seal.
//! - A source learns of a seal when, and only when, it is durable.
//! - The text under way, from a source to its encoding, never exceeds a bound. A source that brings
//!   more waits; nothing else waits.
//! - Alerts are raised from text as it arrives, before sealing and independently of it.
//!
//! `driver` seals what [`Source`]s hand to a [`Feed`], and [`serve`] runs it again after a failure.
//! The sources are [`tail`], [`kafka`] and [`webhook`]; the sink for Kafka is beside its source,
//! because they share the settings of librdkafka. [`ArchiveHistory`] gives the sinks the alerts of
//! an archive. `strongroom-ingest` has the driver for files, and what the two drivers share.

mod door;
mod driver;
mod feed;
mod history;
pub mod kafka;
mod metrics;
mod sealer;
mod serve;
pub mod tail;
#[doc(hidden)]
pub mod testing;
mod unread;
pub mod webhook;
mod worker;

pub use door::{Door, Stranger};
pub use driver::{
    DRAIN, Drained, LIVE_BLOCK_BYTES, LiveObserver, LiveOptions, LiveRules, Run, TEXT_BYTES_MAX,
};
pub use feed::{Assigned, Chunk, Feed, Source, SourceCounters, SourceError, Stopped, StreamName};
pub use history::{ArchiveHistory, mark_of};
pub use metrics::{BUCKETS, Histogram, Metrics};
pub use serve::serve;
pub use strongroom_schemas::Secret;
pub use tail::{Tail, TailOptions};
