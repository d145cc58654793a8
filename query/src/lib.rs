//! SQL over the sealed files of an archive.
//!
//! ```
//! use strongroom_archive::Archive;
//! use strongroom_query::{Expanded, Format, Layout, Session, SessionOptions, write_answer};
//!
//! # let folder = std::env::temp_dir().join(format!("strongroom-query-{}", std::process::id()));
//! # let location = folder.join("archive");
//! let archive = Archive::open_or_create(&location.to_string_lossy())?;
//! let session = Session::open(archive, &SessionOptions::default())?;
//! let layout = Layout { width: None, truncate: false, expanded: Expanded::Never };
//! let mut out = Vec::new();
//! let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! runtime.block_on(async {
//!     let answer = session.ask("SELECT count(*) AS events FROM events").await?;
//!     write_answer(answer, Format::Csv, &layout, &mut out).await
//! })?;
//! assert_eq!(out, b"events\n0\n");
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants:
//! 1. Nothing here writes: files are opened for reading, a statement that would change anything is
//!    refused before it is planned, and the object stores known to a session hold only the archive.
//! 2. Skipping a file, a row group or a page never skips a row that the query asks for.
//! 3. A query sees each table as one commit left it.
//! 4. Memory is bounded by the session's limit; what does not fit spills to disk, or the query fails
//!    and names the limit.
//! 5. An error never repeats a value of a row.

// A scan awaits the archive's snapshot, whose futures are deeply nested.
#![recursion_limit = "256"]

mod bounded;
mod complete;
mod concatenate;
mod date_trunc;
mod dialect;
mod error;
mod functions;
mod gate;
mod guarded;
mod implied;
mod json;
mod listings;
mod marked;
mod outcome;
mod output;
mod policies;
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
