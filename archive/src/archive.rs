//! An archive's root: what makes a folder an archive, and the way to its writer and its tables.

use std::path::{Path, PathBuf};

use strongroom_schemas::Table;

use crate::error::Result;
use crate::position::Source;
use crate::read::Rows;
use crate::snapshot::Snapshot;
use crate::writer::{Writer, WriterOptions};

/// An archive on a local disk.
#[derive(Clone, Debug)]
pub struct Archive {
    root: PathBuf,
}

impl Archive {
    /// Opens the archive at `location` (a path or a `file://` URL), or makes a new one there.
    pub fn open_or_create(_location: &str) -> Result<Archive> {
        unimplemented!()
    }

    /// Opens the archive at `location`; it must exist.
    pub fn open(_location: &str) -> Result<Archive> {
        unimplemented!()
    }

    /// Absolute path of the archive's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Identity given when the archive was made, a UUID.
    pub fn id(&self) -> &str {
        unimplemented!()
    }

    /// The one writer, waiting for as long as another process (or thread) holds it.
    pub fn writer(&self) -> Result<Writer> {
        unimplemented!()
    }

    /// The one writer; calls `on_wait` once if another process holds it, then waits.
    pub fn writer_with(&self, _options: WriterOptions, _on_wait: impl FnOnce()) -> Result<Writer> {
        unimplemented!()
    }

    /// The one writer, or `None` when another process holds it.
    pub fn try_writer(&self, _options: WriterOptions) -> Result<Option<Writer>> {
        unimplemented!()
    }

    /// What `table` holds now. Blocks; may be called from any thread, also inside an async runtime.
    pub fn snapshot(&self, _table: Table) -> Result<Snapshot> {
        unimplemented!()
    }

    /// As [`Archive::snapshot`], for async callers.
    pub async fn snapshot_async(&self, _table: Table) -> Result<Snapshot> {
        unimplemented!()
    }

    /// Source partitions in the order of their first commit.
    pub fn sources(&self) -> Result<Vec<Source>> {
        unimplemented!()
    }

    /// Rows of one partition in `source_offset` order, as batches in `table.file_schema()`.
    pub fn read_rows(&self, _table: Table, _partition: &str) -> Result<Rows> {
        unimplemented!()
    }

    /// Events with `stage_timestamp >= time_us`, in `Table::Events.file_schema()`: partitions in the order
    /// of their first commit, each in `source_offset` order.
    pub fn events_since(&self, _time_us: i64) -> Result<Rows> {
        unimplemented!()
    }
}
