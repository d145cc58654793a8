//! The content of a table at one moment: the files that its commits name.
//!
//! Invariant: a snapshot consists of whole commits, and names only files below its own table.
//! Reading a snapshot needs no lock. Sealed files never change, so a snapshot stays valid as long
//! as it is used.

use std::path::PathBuf;

use chrono::NaiveDate;
use serde::Deserialize;
use serde_json::{Map, Value};
use strongroom_schemas::{Period, Table, VolumeId};
use strongroom_store::{Store, layout};

use super::commit;
use super::facts::{STATISTICS_OFFSET, STATISTICS_SOURCE, TAG_VERSION, micros};
use crate::error::{ArchiveError, Result};
use crate::records::drops;
use crate::site::Site;

/// The files of a table over all volumes, as of one version of each volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub table: Table,
    /// The volumes that were read, oldest first.
    pub volumes: Vec<Volume>,
    /// In order of volume, date, first offset.
    pub files: Vec<FileEntry>,
}

/// One Delta table: the commits of a UTC year, or of a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub period: Period,
    /// Folder of the Delta table.
    pub path: PathBuf,
    /// Version of the Delta table that was read.
    pub version: u64,
    /// True if the volume is closed, so that no commit can follow.
    pub is_closed: bool,
}

/// A sealed Parquet file, as its commit describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Absolute path; in a bucket `s3://bucket/` and the key.
    pub path: PathBuf,
    /// In a bucket: the version of the object that its commit names. A newer version is not part of
    /// the archive.
    pub version: Option<String>,
    /// Bytes.
    pub size: u64,
    pub rows: u64,
    /// Value of the partition column `date`.
    pub date: NaiveDate,
    /// Volume of the file and of the commit that names it.
    pub period: Period,
    /// Minimum event time (`stage_timestamp`, `received_timestamp` or `time`) in microseconds;
    /// `None` if unknown.
    pub time_min_us: Option<i64>,
    pub time_max_us: Option<i64>,
    /// Minimum `source_offset`, over all sources in the file.
    pub offset_min: Option<i64>,
    pub offset_max: Option<i64>,
    /// Minimum and maximum `source`.
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

/// True if nothing was committed after `snapshot` was taken. Versions have no gaps, so it is enough
/// to check for one name in each volume. Returns false if the folders cannot be listed: the caller
/// then reads the table again, and the error of that read says why.
pub(crate) async fn is_current(site: &Site, snapshot: &Snapshot) -> bool {
    let Ok(periods) = drops::periods(site, snapshot.table).await else { return false };
    let next = |period| {
        let read = snapshot.volumes.iter().find(|volume| volume.period == period);
        let version = read.map_or(0, |volume| volume.version + 1);
        layout::commit(&site.volume(VolumeId { table: snapshot.table, period }), version)
    };
    if !snapshot.volumes.iter().all(|volume| periods.contains(&volume.period)) {
        return false;
    }
    let is_closed =
        |period| snapshot.volumes.iter().any(|volume| volume.period == period && volume.is_closed);
    for period in periods.into_iter().filter(|period| !is_closed(*period)) {
        if !matches!(site.store.exists(&next(period)).await, Ok(false)) {
            return false;
        }
    }
    true
}

impl FileEntry {
    /// Whether the file may contain rows of `source`.
    pub fn may_hold_source(&self, source: &str) -> bool {
        self.source_min.as_deref().is_none_or(|least| least <= source)
            && self.source_max.as_deref().is_none_or(|greatest| source <= greatest)
    }
}

/// The statistics in an `add`, in the form in which an archive writes them.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Statistics {
    num_records: u64,
    min_values: Map<String, Value>,
    max_values: Map<String, Value>,
}

pub(crate) async fn load(site: Site, table: Table) -> Result<Snapshot> {
    let mut snapshot = Snapshot { table, volumes: Vec::new(), files: Vec::new() };
    for period in drops::periods(&site, table).await? {
        let path = site.volume(VolumeId { table, period });
        let Some(state) = commit::load(&site.store, &path).await? else { continue };
        for add in &state.files {
            let bad = || ArchiveError::FileEntry { path: path.clone(), name: add.path.clone() };
            let (date, _) = layout::split_data_path(&add.path).ok_or_else(bad)?;
            let statistics: Statistics = match &add.stats {
                Some(text) => serde_json::from_str(text).map_err(|_| bad())?,
                None => Statistics::default(),
            };
            let mut entry = entry(table, path.join(&add.path), add.size, date, period, &statistics);
            if let Store::S3(_) = site.store {
                entry.version = add.tags.as_ref().and_then(|tags| tags.get(TAG_VERSION)?.clone());
            }
            snapshot.files.push(entry);
        }
        snapshot.volumes.push(Volume {
            period,
            path,
            version: state.version,
            is_closed: commit::is_closed(&state),
        });
    }
    snapshot.files.sort_by(|a, b| {
        (a.period, a.date, a.offset_min, &a.path).cmp(&(b.period, b.date, b.offset_min, &b.path))
    });
    Ok(snapshot)
}

fn entry(
    table: Table,
    path: PathBuf,
    size: i64,
    date: NaiveDate,
    period: Period,
    statistics: &Statistics,
) -> FileEntry {
    let (least, greatest) = (&statistics.min_values, &statistics.max_values);
    let time = |values: &Map<String, Value>| {
        values.get(table.time_column()).and_then(Value::as_str).and_then(micros)
    };
    let offset = |values: &Map<String, Value>| values.get(STATISTICS_OFFSET).and_then(Value::as_i64);
    let source = |values: &Map<String, Value>| {
        values.get(STATISTICS_SOURCE).and_then(Value::as_str).map(str::to_owned)
    };
    FileEntry {
        path,
        version: None,
        size: size.max(0) as u64,
        rows: statistics.num_records,
        date,
        period,
        time_min_us: time(least),
        time_max_us: time(greatest),
        offset_min: offset(least),
        offset_max: offset(greatest),
        source_min: source(least),
        source_max: source(greatest),
    }
}
