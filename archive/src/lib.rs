//! The sealed archive: Parquet files that are written once, and the Delta log that names them.
//!
//! ```
//! use strongroom_archive::Archive;
//! use strongroom_schemas::Table;
//!
//! # let folder = tempfile::tempdir()?;
//! # let location = folder.path().join("archive").display().to_string();
//! let archive = Archive::open_or_create(&location)?;
//! let events = archive.snapshot(Table::Events)?;
//! assert_eq!((events.files.len(), events.rows()), (0, 0));
//! assert_eq!(Archive::open(&location)?.id(), archive.id());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants, in order of importance:
//! 1. Everything that a commit names exists: files are complete, synced and read-only before the
//!    commit is written, and the commit is synced before [`Writer::seal`] returns.
//! 2. A row is committed exactly once: each commit contains the position of each source whose rows
//!    it adds, and is refused unless each source continues at the position that its last commit
//!    stated.
//! 3. Nothing that a commit names is changed. Only whole volumes past their retention are removed,
//!    by an explicit command that leaves a signed record. Files that no commit names (left by a
//!    killed run) are removed by the next writer, under the writer lock.
//! 4. Any reader of Parquet and Delta can read an archive without this crate.
//!
//! On a disk, one process writes at a time. Readers need no lock, and see each commit whole or not
//! at all.

/// Lets the tests here call this crate `strongroom_archive`: the tests of other crates include the
/// same file `tests/rows.rs`, which uses that name.
#[cfg(test)]
extern crate self as strongroom_archive;

pub mod activity;
pub mod activity_record;
mod archive;
mod check;
mod clock;
mod clock_doubt;
mod column;
pub mod delta;
pub mod encode;
pub mod error;
pub mod fail;
pub mod fingerprint;
mod lock;
pub mod log;
mod position;
mod read;
pub mod record_fault;
pub mod records;
mod render;
pub mod sealed_rows;
pub mod site;
mod strict_json;
#[cfg(test)]
mod tests;
mod writer;

pub use strongroom_store::error::StoreError;
pub use strongroom_store::layout::FILE_BYTES_MAX;
pub use strongroom_store::options::{
    LockMode, RETENTION_YEARS_DEFAULT, RETENTION_YEARS_MAX, Retention, S3Options, StoreOptions, variables,
};
pub use strongroom_store::s3_error::S3Error;
pub use strongroom_store::{Contents, Fetched};

pub use archive::{Archive, MANIFEST, is_of_archive};
pub use check::{Finding, Init, Policies, Verdict, check, init};
pub use clock::ClockSeen;
pub use clock_doubt::ClockDoubt;
pub use delta::commit::{CHECKPOINT_INTERVAL, SealedFile};
pub use delta::snapshot::{FileEntry, Snapshot, Volume};
pub use encode::{EncodedRowGroup, Layout, RowOrder, encode, encode_records, encode_with};
pub use error::{ArchiveError, DeltaError, LogError, RecordError, Result};
pub use position::{Counts, Position, Source, SourcePosition};
pub use read::{Choose, EventSelection, Rows};
pub use render::Records;
pub use writer::{Commit, SealReport, VOLUME_COMMITS_MAX, Writer, WriterOptions};
