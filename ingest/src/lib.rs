//! Ingests audit logs: finds files, decodes, matches and seals their events, and exports sealed
//! streams.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use strongroom_alerts::RuleSet;
//! use strongroom_archive::Archive;
//! use strongroom_ingest::{IngestOptions, Observer, ingest, source};
//!
//! /// Ignores what happens during a run.
//! struct Quiet;
//!
//! impl Observer for Quiet {}
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let archive = Archive::open_or_create("./archive")?;
//! let inputs = source::expand(&["/var/log/kubernetes/audit".to_owned()], &[])?.inputs;
//! let rules = Arc::new(RuleSet::builtin()?);
//! let report = ingest(&archive, &rules, &IngestOptions::new("prod", inputs), &mut Quiet)?;
//! println!("{} events, {} rejects", report.counts.events, report.counts.rejects);
//! # Ok(())
//! # }
//! ```
//!
//! Invariants of this crate:
//! - **Conservation.** Every byte of a stream is in exactly one event, one reject, or the frame
//!   around them. `received = events + rejects + duplicates` after every block.
//! - **Nothing is acknowledged before it is durable.** A position advances only in the commit that
//!   carries the rows before it.
//! - **Order.** Rows keep the order of their stream, whatever the number of workers.
//!
//! The path of an event: [`source`] finds files and undoes compression, `strongroom-decode` turns
//! lines into rows, and [`pipeline`] runs workers and seals. [`pipeline`] is the driver for files,
//! and `strongroom-live` has the driver for sources that never end; the two share [`seal`].
//! [`replay`] runs rules over sealed events, and [`export`] writes sealed streams back.

pub mod alike;
pub mod disclose;
mod error;
pub mod export;
pub mod faults;
pub mod kinds;
mod passed_over;
pub mod pipeline;
pub mod preview;
pub mod redaction;
pub mod replay;
pub mod seal;
pub mod source;
pub mod stored_alerts;

pub use error::{IngestError, PipelineThread};
pub use faults::FaultCounts;
pub use kinds::KindCounts;
pub use pipeline::{IngestOptions, Observer, Progress, Report, ingest};
pub use redaction::RedactionCounts;
pub use seal::{Limits, SEAL_BYTES, SEAL_INTERVAL};
pub use source::FileError;
