//! SQL over the sealed files of an archive.
//!
//! Invariants:
//! 1. Nothing here writes: files are opened for reading, a statement that would change anything is
//!    refused before it is planned, and the object stores known to a session hold the archive alone.
//! 2. Leaving out a file, a row group or a page never leaves out a row that the question asks for.
//! 3. A question sees each table as one commit left it.
//! 4. Memory is bounded by the session's limit; what does not fit spills to disk or fails by name.

// A scan awaits the archive's snapshot, whose futures lie deep within each other.
#![recursion_limit = "256"]

mod complete;
mod date_trunc;
mod dialect;
mod error;
mod functions;
mod gate;
mod implied;
mod json;
mod listings;
mod output;
mod prune;
mod reader;
mod session;
mod snapshots;
mod table;
mod views;

pub use complete::{Catalog, Relation, complete};
pub use error::{QueryError, Result};
pub use gate::{split_statements, statement_is_complete};
pub use output::{Expanded, Format, Layout, Written, write_answer};
pub use session::{Answer, MEMORY_LIMIT_DEFAULT, QueryStats, Session, SessionOptions};
pub use table::ScanSummary;
