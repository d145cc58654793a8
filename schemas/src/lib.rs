//! What the other crates agree on: the names, types and versions of everything that is stored.
//!
//! Invariant: a table has exactly one schema, and it is written here. The archive writes it, the
//! decoder fills it, the matcher and SQL read it; none of them spells a column name of its own.
//! This crate does no IO, spawns nothing and holds no state, so nothing here can fail at run time
//! apart from parsing a value that came from outside.
//!
//! Two spellings of each schema exist. The *file* schema is plain: strings, timestamps, lists; it is
//! what Parquet readers and SQL clients see. The *batch* schema is how the same columns travel in
//! memory between decoder, matcher and writer: columns with few distinct values are
//! `Dictionary(Int32, Utf8)`, so a predicate or an encoder looks at each distinct value once.

pub mod alert;
mod error;
pub mod event;
pub mod form;
pub mod format;
pub mod marks;
pub mod ocsf;
pub mod record;
mod secret;
pub mod table;
pub mod touched;
pub mod volume;

pub use alert::{Alert, AlertEvent, Severity};
pub use error::error_chain;
pub use event::{Level, Stage, UnknownValue};
pub use secret::Secret;
pub use table::{Table, activity, alerts, events, rejects};
pub use touched::{Touch, Touched};
pub use volume::{Period, VolumeId};
