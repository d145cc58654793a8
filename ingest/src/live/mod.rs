//! Sources that never end: what they have in common, and the driver that seals what they bring.
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
//!   broker that keeps its messages, or a write-ahead log. So a failure anywhere costs only the
//!   work since the last seal.
//! - A source learns of a seal when, and only when, it is durable.
//! - The text under way, from a source to its encoding, never exceeds a bound. A source that brings
//!   more waits; nothing else waits.
//! - Alerts are raised from text as it arrives, before sealing and independently of it.

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

pub use driver::{
    DRAIN, Drained, LIVE_BLOCK_BYTES, LiveObserver, LiveOptions, LiveRules, Run, TEXT_BYTES_MAX,
};
pub use feed::{Chunk, Feed, Source, SourceCounters, SourceError, Stopped, StreamName};
pub use history::{ArchiveHistory, mark_of};
pub use metrics::{BUCKETS, Histogram, Metrics};
pub use serve::serve;
pub use strongroom_schemas::Secret;
pub use tail::{Tail, TailOptions};
