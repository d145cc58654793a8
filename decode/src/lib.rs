//! Turns the lines of Kubernetes audit logs into columns, and rows back into lines.
//!
//! ```
//! use strongroom_decode::decode_bytes;
//! use strongroom_decode::render::Renderer;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let log = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"7f1a","verb":"get"}
//! not JSON
//! "#;
//! let decoded = decode_bytes(log, "prod", "file/example")?;
//! assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (1, 1));
//!
//! let mut record = Vec::new();
//! Renderer::new(&decoded.events)?.record(0, &mut record)?;
//! assert!(log.starts_with(&record));
//! # Ok(())
//! # }
//! ```
//!
//! Invariants of this crate:
//! - Every byte of a stream is in exactly one event, one reject, or the frame around them, and
//!   [`stream`] writes all of them back.
//! - On every input, the fast decoder gives the same result as [`decode_alone`], which is slow and
//!   simple.
//! - The crate does no IO, and keeps no state between blocks but buffers. It depends on
//!   `strongroom-schemas`, the Arrow arrays that it fills, and the two JSON parsers.
//!
//! The path of an event: [`frame`] cuts blocks into lines. `decoder` reads a line with `canonical`,
//! with `members`, or with [`plain`], which reads damaged events with `tolerant`. `wrapper` unwraps
//! what clouds, shippers and loggers put around events. `rows` and `rejects` build the columns, and
//! `learn` makes forms for records that the columns alone do not give. The way back: [`render`] turns
//! a row into its record, and [`stream`] turns rows into their stream. Beside that path, [`meaning`]
//! checks sealed rows against their records, and [`body`] turns a webhook's request body into lines.

pub mod body;
mod canonical;
mod changed;
mod columns;
mod decoder;
mod dialect;
mod document;
mod formats;
pub mod frame;
mod json;
mod learn;
mod limits;
pub mod meaning;
mod members;
mod pages;
pub mod plain;
mod reject;
mod rejects;
pub mod render;
mod rows;
pub mod stream;
mod tape;
pub mod time;
mod tolerant;
mod wrapper;

pub use changed::{EventText, RecordDecoder};
pub use decoder::{DecodedBlock, Decoder, DecoderConfig, decode_bytes};
pub use dialect::{Dialect, DialectCounts};
pub use frame::Block;
pub use limits::{DEPTH_MAX, LINE_BYTES_MAX};
pub use reject::{Reason, Refusal};
pub use rejects::reject_batch;
pub use wrapper::{
    EventPath, ITEM_BYTES_MIN, PATH_BYTES_MAX, PATH_NAMES_MAX, PathError, SHAPE_GOOGLE, SHAPE_UNWRAP,
    SHORT_ITEMS_MAX, decode_alone,
};
