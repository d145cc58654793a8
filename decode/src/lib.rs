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
//!   [`stream`] writes all bytes back.
//! - On every input, the fast decoder gives the same result as [`strongroom_lines::decode_alone`],
//!   which is slow and simple.
//! - The crate does no IO, and keeps nothing but buffers between blocks. It depends on
//!   `strongroom-lines`, `strongroom-schemas`, the Arrow arrays that it fills, and simd-json.
//!
//! The path of an event: `strongroom-lines` cuts blocks into lines. `decoder` reads a line with
//! `canonical`, with `members`, or with the plain reader of `strongroom-lines`, which also unwraps
//! what clouds, shippers and loggers put around events. `rows` and `rejects` build the columns, and
//! `learn` makes forms for records that the columns alone do not give. In the other direction,
//! [`render`] turns a row into its record, and [`stream`] turns rows into their stream. [`meaning`]
//! checks sealed rows against their records.

mod canonical;
mod changed;
mod columns;
mod decoder;
mod document;
mod formats;
mod learn;
pub mod meaning;
mod members;
mod plain_row;
mod rejects;
pub mod render;
mod rows;
pub mod stream;
mod tape;

pub use changed::{EventText, RecordDecoder};
pub use decoder::{DecodedBlock, Decoder, DecoderConfig, Share, decode_bytes};
pub use plain_row::plain_row;
pub use rejects::reject_batch;
pub use rows::{DecodedRow, HashedLater};
