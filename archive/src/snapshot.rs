//! What a table holds at one moment: the files its commits name.

use std::path::PathBuf;

use chrono::NaiveDate;
use strongroom_schemas::Table;

/// A table's files over all volumes, as of one version of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub table: Table,
    /// The volumes read, oldest first.
    pub volumes: Vec<Volume>,
    /// In order of volume, date, first offset.
    pub files: Vec<FileEntry>,
}

/// One Delta table: the commits of one UTC calendar year.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub year: i32,
    /// Folder of the Delta table.
    pub path: PathBuf,
    /// Version of the Delta table that was read.
    pub version: u64,
}

/// A sealed Parquet file, as its commit describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Absolute path.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    pub rows: u64,
    /// Value of the partition column `date`.
    pub date: NaiveDate,
    /// Volume that the file lies in: year of commit.
    pub year: i32,
    /// Least event time (`stage_timestamp`, `received_timestamp` or `time`) in microseconds; `None` when no row has one.
    pub time_min_us: Option<i64>,
    pub time_max_us: Option<i64>,
    /// Least `source_offset`, over all sources in the file.
    pub offset_min: Option<i64>,
    pub offset_max: Option<i64>,
    /// Least and greatest `source`.
    pub source_min: Option<String>,
    pub source_max: Option<String>,
}

impl Snapshot {
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}
