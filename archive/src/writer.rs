//! The one writer of an archive.

use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, Utc};
use strongroom_schemas::Table;

use crate::encode::EncodedRowGroup;
use crate::error::Result;
use crate::position::{Counts, Position, SourcePosition};

/// How a writer works; [`WriterOptions::default`] is what production uses.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// A file is closed when it has at least this many bytes.
    pub file_bytes_max: u64,
    /// Files open at once; the one unused for longest is closed when another is needed.
    pub open_files_max: usize,
    /// The time of commits, which chooses the volume.
    pub clock: fn() -> DateTime<Utc>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions { file_bytes_max: 128 << 20, open_files_max: 32, clock: Utc::now }
    }
}

/// The exclusive writer of an archive.
pub struct Writer {}

/// What one [`Writer::seal`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealReport {
    pub files: Vec<SealedFile>,
    /// In the order in which they were made.
    pub commits: Vec<Commit>,
    /// Rows committed, over all tables.
    pub rows: u64,
    /// Bytes of Parquet committed, over all tables.
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedFile {
    pub table: Table,
    pub path: PathBuf,
    pub date: NaiveDate,
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub table: Table,
    pub year: i32,
    pub version: u64,
}

impl Writer {
    /// How far `partition` is stored in `table`; `None` when it never was.
    pub fn position(&mut self, _table: Table, _partition: &str) -> Result<Option<Position>> {
        unimplemented!()
    }

    /// Adds a row group to the open file of its table and date.
    pub fn append(&mut self, _row_group: EncodedRowGroup) -> Result<()> {
        unimplemented!()
    }

    /// Bytes appended and not yet sealed.
    pub fn pending_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Bytes appended and not yet sealed, and rows.
    pub fn pending_rows(&self) -> u64 {
        unimplemented!()
    }

    /// Commits everything appended since the last seal, together with where each source has got to.
    pub fn seal(&mut self, _positions: &[SourcePosition], _counts: Counts) -> Result<SealReport> {
        unimplemented!()
    }
}
