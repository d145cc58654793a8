//! Names, types and versions of everything that is stored, shared by the other crates.
//!
//! ```
//! use strongroom_schemas::{Table, events};
//!
//! let schema = Table::Events.file_schema();
//! assert_eq!(schema.field(events::index::VERB).name(), events::VERB);
//! assert_eq!(events::VERB, "verb");
//! ```
//!
//! Invariant: a table has exactly one schema, and it is written here. The archive writes it, the
//! decoder fills it, the matcher and SQL read it; no other crate writes a column name as a literal.
//! This crate does no IO, spawns nothing and has no state, so a crash changes nothing. Only its
//! functions that parse values from outside can fail.
//!
//! Each schema has two forms. The *file* schema is plain: strings, timestamps, lists. Parquet
//! readers and SQL clients see this form. The *batch* schema is the form in memory, between
//! decoder, matcher and writer: columns with few distinct values are `Dictionary(Int32, Utf8)`, so
//! a predicate or an encoder handles each distinct value once.

mod active;
pub mod alert;
mod error;
pub mod event;
pub mod form;
pub mod format;
pub mod marked;
pub mod marks;
pub mod ocsf;
pub mod outcome;
pub mod record;
mod secret;
pub mod table;
pub mod touched;
pub mod uri;
pub mod volume;

pub use active::is_active;
pub use alert::{Alert, AlertEvent, Severity};
pub use error::error_chain;
pub use event::{Level, Stage, UnknownValue};
pub use outcome::Outcome;
pub use secret::Secret;
pub use table::{Table, activity, alerts, events, rejects};
pub use touched::{Touch, Touched};
pub use volume::{Period, VolumeId};
