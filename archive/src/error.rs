//! What can go wrong with an archive: one variant for each operation, with the object it failed on.
//!
//! Invariant: a message contains only names, paths, positions and counts, and never bytes of a
//! record, because a record may contain Secrets. [`ArchiveError::hint`] says what to do, if the
//! user can do something.

use std::io;
use std::path::PathBuf;

use arrow_schema::ArrowError;
use chrono::{DateTime, Utc};
use parquet::errors::ParquetError;
use strongroom_schemas::Table;
use strongroom_store::error::StoreError;
use strongroom_store::s3_error::S3Error;
use strongroom_tlog::checkpoint::CheckpointFault;
use strongroom_tlog::error::TlogError;
use strongroom_tlog::keys::KeyFault;
use strongroom_tlog::note::PublicKey;
use thiserror::Error;

use crate::activity_record::ActivityError;
use crate::clock_doubt::ClockDoubt;
use crate::position::Position;
use crate::record_fault::RecordFault;

/// The result of an operation on an archive.
pub type Result<T, E = ArchiveError> = std::result::Result<T, E>;

/// Why an operation on an archive failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("archive location \"{location}\" is not a path, file:// or s3:// URL")]
    LocationScheme { location: String },
    #[error("{} is not an archive: {} is missing", root.display(), strongroom_store::layout::MANIFEST)]
    NotAnArchive { root: PathBuf },
    #[error("{} is an archive, but its {} has a delete marker", root.display(), strongroom_store::layout::MANIFEST)]
    ManifestHidden { root: PathBuf },
    #[error("{} is not empty and is not an archive", root.display())]
    NotEmpty { root: PathBuf },
    #[error("another process is writing to {}", root.display())]
    Held { root: PathBuf },
    #[error("cannot write {}", path.display())]
    WriteManifest {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {}", path.display())]
    ReadManifest {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged", path.display())]
    ParseManifest {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} has format {found}; this program reads format {known}", path.display())]
    FormatUnknown { path: PathBuf, found: u32, known: u32 },
    #[error("cannot lock {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot remove {}, which an earlier run left", path.display())]
    RemoveLeftover {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("rows for table {} have the wrong columns: {detail}", table.name())]
    EncodeSchema { table: Table, detail: String },
    #[error("cannot encode column {column} of table {}", table.name())]
    EncodeColumn {
        table: Table,
        column: String,
        #[source]
        source: ParquetError,
    },
    #[error("cannot sort rows of table {}", table.name())]
    EncodeRows {
        table: Table,
        #[source]
        source: ArrowError,
    },

    #[error("cannot create file {}", path.display())]
    CreateFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write file {}", path.display())]
    WriteFile {
        path: PathBuf,
        #[source]
        source: ParquetError,
    },
    #[error("cannot sync file {}", path.display())]
    SyncFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make file {} read-only", path.display())]
    ProtectFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot give file {} its final name", path.display())]
    PublishFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the archive's writer failed earlier ({operation}); open a new one")]
    WriterFailed { operation: &'static str },

    #[error("cannot put {}", path.display())]
    PutFile {
        path: PathBuf,
        #[source]
        source: S3Error,
    },
    #[error("the store of {} replaces existing objects although it was asked not to", root.display())]
    NotConditional { root: PathBuf },
    #[error("bucket {bucket} cannot hold an archive: {reason}")]
    BucketUnfit { bucket: String, reason: String },
    #[error("other writers were faster {attempts} times in a row at {}", path.display())]
    CommitContended { path: PathBuf, attempts: u32 },
    #[error("another process has committed alerts to {} meanwhile, which may be the same", path.display())]
    AlertsUnknown { path: PathBuf },
    #[error("another writer has committed to {} in the meantime", path.display())]
    CommitConflict { path: PathBuf },

    #[error("cannot create Delta table {}", path.display())]
    CreateVolume {
        path: PathBuf,
        #[source]
        source: Box<DeltaError>,
    },
    #[error("cannot open Delta table {}", path.display())]
    OpenVolume {
        path: PathBuf,
        #[source]
        source: Box<DeltaError>,
    },
    #[error("cannot commit to Delta table {}", path.display())]
    Commit {
        path: PathBuf,
        #[source]
        source: Box<DeltaError>,
    },
    #[error("cannot read commit {}", path.display())]
    ReadCommit {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}:{line}: commit is damaged", path.display())]
    ParseCommit {
        path: PathBuf,
        line: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("commit names file \"{name}\" in {}, which is not the name of an archive file", path.display())]
    FileEntry { path: PathBuf, name: String },
    #[error("position of source {partition} in {} is incomplete", path.display())]
    PositionIncomplete { path: PathBuf, partition: String },

    #[error("source {partition}: table {} already has everything up to offset {}, but this run started at {}", table.name(), found.next_offset, offset_of(expected))]
    PositionAhead { table: Table, partition: String, expected: Option<Box<Position>>, found: Box<Position> },
    #[error("source {partition}: table {} ends at offset {}, but this run started at {}; the bytes between were never stored", table.name(), offset_of(found), offset_of(expected))]
    PositionBehind {
        table: Table,
        partition: String,
        expected: Option<Box<Position>>,
        found: Option<Box<Position>>,
    },
    #[error("source {partition}: table {} has other content before offset {} than this run's source", table.name(), found.next_offset)]
    PositionDiffers { table: Table, partition: String, expected: Box<Position>, found: Box<Position> },
    #[error("the system clock is at {}", clock.format("%Y-%m-%d"))]
    Clock { clock: DateTime<Utc> },
    #[error("the system clock is at {}, but {doubt}", clock.format("%Y-%m-%dT%H:%M:%SZ"))]
    ClockDoubted { clock: DateTime<Utc>, doubt: ClockDoubt },
    #[error("cannot ask the store for its clock")]
    StoreClock { source: S3Error },
    #[error("source {partition}: rows for table {} start at offset {first}, but everything up to {stored} is already stored", table.name())]
    RowsRepeated { table: Table, partition: String, first: i64, stored: i64 },
    #[error("source {partition}: rows for table {} reach offset {last}, which is beyond the commit's position {next_offset}", table.name())]
    RowsBeyondPosition { table: Table, partition: String, last: i64, next_offset: i64 },
    #[error("source {partition}: rows for table {} have no position in the commit", table.name())]
    RowsWithoutPosition { table: Table, partition: String },
    #[error("source {partition} occurs twice in one commit")]
    PartitionTwice { partition: String },
    #[error("source name \"{partition}\" cannot be used: {reason}")]
    PartitionName { partition: String, reason: &'static str },

    #[error("cannot keep activity records")]
    Activity {
        #[source]
        source: ActivityError,
    },

    #[error("cannot read file {}", path.display())]
    ReadFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot decode file {}", path.display())]
    DecodeFile {
        path: PathBuf,
        #[source]
        source: ParquetError,
    },
    #[error("file {} has no statistics of column {column} in row group {row_group}", path.display())]
    RowGroupStatistics { path: PathBuf, column: &'static str, row_group: usize },
    #[error("rows of file {} cannot be put in source order", path.display())]
    OrderRows {
        path: PathBuf,
        #[source]
        source: ArrowError,
    },
    #[error("cannot read the retention of the archive")]
    Records {
        #[source]
        source: Box<LogError>,
    },
    #[error("the history of the archive was changed, so nothing is added to it")]
    HistoryChanged {
        #[source]
        source: Box<LogError>,
    },
    #[error("{} is closed: another writer has started the next volume", path.display())]
    VolumeClosed { path: PathBuf },
    #[error("the year {year} has reached its maximum number of volumes")]
    PartsExhausted { year: i32 },
}

/// What can be wrong with the log of a Delta table. The caller adds the path.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeltaError {
    #[error("cannot list the log")]
    List(#[source] Box<StoreError>),
    #[error("cannot read {name}")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {name}")]
    Write {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("commit {missing} is missing, but newer ones exist")]
    Gap { missing: u64 },
    #[error("commit {version}, line {line} is not a Delta action")]
    Action {
        version: u64,
        line: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("checkpoint {version} cannot be decoded: {detail}")]
    Checkpoint { version: u64, detail: String },
    #[error("the table has no {what}")]
    Incomplete { what: &'static str },
    #[error("the table requires reader version {version}; this program has version {known}")]
    ReaderVersion { version: u32, known: u32 },
    #[error("file {path} has a deletion vector")]
    DeletionVector { path: String },
}

/// A column of a sealed file that is missing or does not have the type that its reader needs.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ColumnError {
    #[error("column {column} is missing")]
    Missing { column: String },
    #[error("column {column} does not have the type of an archive column")]
    Mistyped { column: String },
}

impl From<ColumnError> for ArrowError {
    fn from(error: ColumnError) -> Self {
        ArrowError::SchemaError(error.to_string())
    }
}

/// Rows of a sealed file that cannot be read. The caller names the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RowsError {
    #[error(transparent)]
    File(#[from] ParquetError),
    #[error(transparent)]
    Batch(#[from] ArrowError),
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// The renderer's description of a batch that it cannot read.
    #[error("{detail}")]
    Records { detail: String },
}

/// An invalid record.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}: {fault}", path.display())]
pub struct RecordError {
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: RecordFault,
}

/// A signed log, a key record or another signed record that cannot be read, extended or accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    #[error("not the archive's current key, which is {current}")]
    KeyNotCurrent { current: PublicKey },
    #[error("the archive has used the new key before")]
    KeyUsed,
    #[error("the archive has no key yet")]
    NoKey,
    #[error("key record {}: {fault}", path.display())]
    KeyRecord { path: PathBuf, fault: KeyFault },
    #[error("checkpoint {}: {fault}", path.display())]
    Checkpoint { path: PathBuf, fault: CheckpointFault },
    #[error("the commits of {log} do not match the checkpoint signed at size {size}; refusing to sign more")]
    Forked { log: String, size: u64 },
    #[error("{} exists with other content", path.display())]
    Differs { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Tlog(#[from] TlogError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LogError {
    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            LogError::KeyNotCurrent { .. } => {
                Some("sign with the current key, or change to this one with strongroom key rotate")
            }
            LogError::Forked { .. } | LogError::Differs { .. } => {
                Some("run strongroom verify to find what was changed; keep the archive as it is")
            }
            LogError::NoKey => Some("run strongroom sign-log with a key"),
            LogError::Record(_) => Some("strongroom verify reports what is wrong"),
            LogError::Tlog(error) => error.hint(),
            LogError::Store(error) => error.hint(),
            _ => None,
        }
    }
}

impl From<LogError> for ArchiveError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Store(error) => error.into(),
            error => ArchiveError::Records { source: Box::new(error) },
        }
    }
}

/// Returns the text of an error and of its causes in one line, for warnings, which are stored as
/// text.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Returns the offset of a position, or 0 if there is no position. Errors contain positions in
/// boxes, because every `Result` is as large as its largest error.
fn offset_of(position: &Option<Box<Position>>) -> i64 {
    position.as_ref().map_or(0, |position| position.next_offset)
}

impl ArchiveError {
    /// True if the error is in the location that the user gave; false if a disk or an archive
    /// failed.
    pub fn is_location(&self) -> bool {
        match self {
            ArchiveError::Store(error) => error.is_location(),
            ArchiveError::LocationScheme { .. }
            | ArchiveError::NotAnArchive { .. }
            | ArchiveError::NotEmpty { .. }
            | ArchiveError::BucketUnfit { .. } => true,
            _ => false,
        }
    }

    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ArchiveError::LocationScheme { .. } => {
                Some("give a folder on a local disk or s3://bucket/prefix")
            }
            ArchiveError::Store(error) => error.hint(),
            ArchiveError::OpenVolume { source, .. } => match &**source {
                DeltaError::List(source) => source.hint(),
                _ => None,
            },
            ArchiveError::HistoryChanged { source } => source.hint(),
            ArchiveError::ManifestHidden { .. } => Some(
                "somebody has deleted it; remove the delete marker, which `strongroom verify` names: what was written \
                 is below it",
            ),
            ArchiveError::NotAnArchive { .. } => Some("`strongroom ingest` creates an archive"),
            ArchiveError::Records { source } => source.hint(),
            ArchiveError::Clock { .. } => Some("the system clock is outside 2000-9999; set it"),
            ArchiveError::ClockDoubted { .. } => Some(
                "what is sealed keeps its time for good: set the clock and run again; if the clock is right, and \
                 the other time is wrong, `strongroom ingest --clock-is-right` says so",
            ),
            ArchiveError::StoreClock { source } => source.hint(),
            ArchiveError::NotConditional { .. } => Some(
                "use a store that honours If-None-Match; or set STRONGROOM_S3_SINGLE_WRITER=true and make sure that \
                 only one writer runs",
            ),
            ArchiveError::ReadManifest { source, .. } | ArchiveError::WriteManifest { source, .. } => {
                S3Error::within(source)?.hint()
            }
            ArchiveError::PutFile { source, .. } => source.hint(),
            ArchiveError::BucketUnfit { .. } => Some(
                "object lock can only be set when a bucket is created: choose a new name, and `archive init` creates it",
            ),
            ArchiveError::VolumeClosed { .. }
            | ArchiveError::CommitContended { .. }
            | ArchiveError::AlertsUnknown { .. } => Some("nothing was lost; run again"),
            ArchiveError::Held { .. } => {
                Some("on a local disk, only one process writes at a time; stop the other one")
            }
            ArchiveError::NotEmpty { .. } => Some("choose an empty or a new folder"),
            ArchiveError::FormatUnknown { .. } => {
                Some("use the version of strongroom that wrote the archive, or a newer one")
            }
            ArchiveError::PositionAhead { .. } => Some("another run has stored these rows; run again"),
            ArchiveError::PositionBehind { .. } => Some(
                "a volume of the archive is missing or was replaced by an older copy; restore it before ingesting",
            ),
            _ => None,
        }
    }
}
