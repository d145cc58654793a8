//! Bytes in, sealed rows out: sources, framing, the decoder, and the driver that acknowledges.
//!
//! Invariants of this crate:
//! - **Conservation.** Every byte of a stream lands in exactly one place: an event, a reject, or the
//!   frame around them. `received = events + rejects + duplicates` holds after every block.
//! - **Nothing is acknowledged before it is durable.** A position advances only in the commit that
//!   carries the rows before it.
//! - **Order.** Rows keep the order of their stream, whatever the number of workers.
//!
//! The way of an event: [`source`] finds files and undoes compression, [`frame`] cuts blocks into
//! lines, [`decode`] turns lines into the columns of [`strongroom_schemas::events`] or a reject,
//! [`pipeline`] runs workers and seals. [`render`] is the way back. [`plain`] is a second decoder,
//! slow and simple, that judges the first. [`meaning`] holds what the columns of a sealed row say
//! against its record. [`live`] is the driver for sources that never end. `wrapper` takes off what managed clouds put around events.

mod error;
pub mod export;
mod fingerprint;
pub mod live;
pub mod pipeline;
pub mod replay;
mod seal;
pub mod source;

pub use error::{IngestError, PipelineThread};
pub use fingerprint::{Fingerprint, LineChain};
pub use pipeline::{IngestOptions, Observer, Progress, Report, ingest};
pub use seal::{Limits, SEAL_BYTES, SEAL_INTERVAL};
pub use source::FileError;
