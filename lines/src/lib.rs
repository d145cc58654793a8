//! Finds the events in the bytes of an audit log: cuts the log into lines, and opens the wrappers
//! that clouds, shippers and loggers put around events.
//!
//! ```
//! use std::sync::Arc;
//!
//! use strongroom_lines::frame::{self, Edge, Origin};
//! use strongroom_lines::{Block, DEPTH_MAX, LINE_BYTES_MAX, Reason, decode_alone};
//!
//! // A line of docker's log with an event in it, and a line that is not JSON.
//! let log = br#"{"log":"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"7f1a\",\"verb\":\"get\"}\n","stream":"stdout","time":"2026-03-02T10:00:00Z"}
//! not JSON
//! "#;
//! let origin = Origin { partition: "file/example".to_owned(), cluster: "prod".to_owned(), reading: Default::default() };
//! let block = Block {
//!     origin: Arc::new(origin),
//!     offset: 0,
//!     first_line: 1,
//!     bytes: log.to_vec(),
//!     begins: Edge::Line,
//!     ends: Edge::Line,
//!     open_ended: false,
//! };
//! let lines = frame::lines(&block, LINE_BYTES_MAX);
//! let read: Vec<_> = lines.map(|line| decode_alone(line.bytes, DEPTH_MAX)).collect();
//! assert_eq!(read[0].as_ref().expect("an event").verb.as_deref(), Some("get"));
//! assert_eq!(read[1].as_ref().expect_err("a reject").reason, Reason::BrokenJson);
//! ```
//!
//! Invariants of this crate:
//! - It knows no columns: `strongroom-decode` makes rows of the events that are found here.
//! - Every byte of a stream, except the newlines between lines, is in exactly one line or page.
//!   Each line or page is an event, a wrapper with events in it, or refused with a [`Reason`].
//! - A wrapper is recognised around an audit event, never inside one, because a client of the
//!   cluster may have written the text inside an event.
//! - The crate does no IO, keeps no state, and its work is linear in the text.
//!
//! [`frame`] cuts a stream into blocks and lines, and `pages` cuts documents of many lines.
//! [`wrapper`] opens the wrappers around events. [`plain`] reads one event, slowly and simply. It
//! uses [`json`], [`time`], `tolerant` (which reads damaged events) and `spread` (which restores
//! objects that shippers took apart). [`body`] turns a webhook's request body into lines. [`swar`]
//! has fast searches in strings, which other crates use too.

pub mod body;
mod dialect;
pub mod frame;
pub mod json;
mod limits;
mod pages;
pub mod plain;
mod reject;
mod spread;
pub mod swar;
pub mod time;
mod tolerant;
pub mod wrapper;

pub use dialect::{Dialect, DialectCounts};
pub use frame::Block;
pub use limits::{BOM, DEPTH_MAX, LINE_BYTES_MAX};
pub use reject::{Reason, Refusal, without_input};
pub use spread::{is_spread, may_hold_nested};
pub use tolerant::list_items;
pub use wrapper::{
    EventPath, PATH_BYTES_MAX, PATH_NAMES_MAX, PathError, Reading, WRITER_BYTES_MAX, WRITERS_MAX, Writer,
    WriterError, Writers, decode_alone, decode_alone_of, decode_record,
};
