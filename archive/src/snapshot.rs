//! What a table holds at one moment: the files its commits name.
//!
//! Invariant: a snapshot is made of whole commits, and names only files below its own table. It is read
//! without a lock: sealed files never change, so it stays valid for as long as someone uses it.

use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use serde::Deserialize;
use serde_json::{Map, Value};
use strongroom_schemas::Table;

use crate::commit::{self, STATISTICS_OFFSET, STATISTICS_SOURCE};
use crate::encode::time_column;
use crate::error::{ArchiveError, Result};
use crate::layout;

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
    /// Least event time (`stage_timestamp`, `received_timestamp` or `time`) in microseconds; `None` when unknown.
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

/// Whether no commit follows `snapshot`: versions have no gaps, so one name for each volume tells. Where the
/// folders cannot be looked at it is no, and the reading that follows says why.
pub(crate) fn is_current(root: &Path, snapshot: &Snapshot) -> bool {
    let Ok(years) = layout::years(root, snapshot.table) else { return false };
    let next = |year| {
        let read = snapshot.volumes.iter().find(|volume| volume.year == year);
        let version = read.map_or(0, |volume| volume.version + 1);
        layout::commit(&layout::volume(root, snapshot.table, year), version)
    };
    snapshot.volumes.iter().all(|volume| years.contains(&volume.year))
        && years.into_iter().all(|year| matches!(next(year).try_exists(), Ok(false)))
}

impl FileEntry {
    /// Whether the file may hold rows of `source`.
    pub fn may_hold_source(&self, source: &str) -> bool {
        self.source_min.as_deref().is_none_or(|least| least <= source)
            && self.source_max.as_deref().is_none_or(|greatest| source <= greatest)
    }
}

/// Statistics of a commit's `add`, as far as they are ours.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Statistics {
    num_records: u64,
    min_values: Map<String, Value>,
    max_values: Map<String, Value>,
}

pub(crate) async fn load(root: PathBuf, table: Table) -> Result<Snapshot> {
    let mut snapshot = Snapshot { table, volumes: Vec::new(), files: Vec::new() };
    for year in layout::years(&root, table)? {
        let path = layout::volume(&root, table, year);
        let Some(delta) = commit::load(&path).await? else { continue };
        let state = delta
            .snapshot()
            .map_err(|source| ArchiveError::OpenVolume { path: path.clone(), source: Box::new(source) })?;
        for view in state.log_data().iter() {
            let name = view.path();
            let bad = || ArchiveError::FileEntry { path: path.clone(), name: name.to_string() };
            let (date, _) = layout::split_data_path(&name).ok_or_else(bad)?;
            let statistics: Statistics = match view.stats() {
                Some(text) => serde_json::from_str(&text).map_err(|_| bad())?,
                None => Statistics::default(),
            };
            snapshot.files.push(entry(table, path.join(&*name), view.size(), date, year, &statistics));
        }
        snapshot.volumes.push(Volume { year, path, version: state.version() });
    }
    snapshot.files.sort_by(|a, b| {
        (a.year, a.date, a.offset_min, &a.path).cmp(&(b.year, b.date, b.offset_min, &b.path))
    });
    Ok(snapshot)
}

fn entry(
    table: Table,
    path: PathBuf,
    size: i64,
    date: NaiveDate,
    year: i32,
    statistics: &Statistics,
) -> FileEntry {
    let (least, greatest) = (&statistics.min_values, &statistics.max_values);
    let time = |values: &Map<String, Value>| {
        values.get(time_column(table)).and_then(Value::as_str).and_then(commit::micros)
    };
    let offset = |values: &Map<String, Value>| values.get(STATISTICS_OFFSET).and_then(Value::as_i64);
    let source = |values: &Map<String, Value>| {
        values.get(STATISTICS_SOURCE).and_then(Value::as_str).map(str::to_owned)
    };
    FileEntry {
        path,
        size: size.max(0) as u64,
        rows: statistics.num_records,
        date,
        year,
        time_min_us: time(least),
        time_max_us: time(greatest),
        offset_min: offset(least),
        offset_max: offset(greatest),
        source_min: source(least),
        source_max: source(greatest),
    }
}
