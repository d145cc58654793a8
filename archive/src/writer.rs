//! The writer of an archive: collects row groups in files, and seals files with commits.
//!
//! On disk, data passes through these states (called states 1 to 3 below):
//! 1. `_staging/<n>.parquet`: an open file, one for each table and date, to which whole row groups
//!    are appended.
//! 2. The complete file: synced, read-only, and linked as `date=…/<hash>.parquet` in a folder that
//!    was then synced.
//! 3. The commit that names the file and states the positions of its sources.
//!
//! Invariants. A commit names only files in state 2. The positions in `events` decide how far a
//! source has been stored. A seal commits `rejects` and `alerts` before `events`, so these two
//! tables never lack a row from before the position in `events`. If a run dies between the commits,
//! the two tables are ahead of `events`. The next run then reads the source from the position in
//! `events` and leaves out the rows that the two tables already have: rejects that are stored
//! according to [`Writer::position`], and alerts whose ids are stored. [`Writer::seal`] refuses an
//! event or a reject that is already stored, and a source that does not continue where it ended.
//!
//! A seal commits to `rejects` and `alerts` only if it has rows for them, so an ordinary seal needs
//! only one commit. Their positions may then be behind that of `events`, but no row is missing:
//! each of the two tables has all of its rows from before the position in `events`.
//!
//! `activity` has its own sources. Their positions are only in the commits of `activity`, and these
//! commits have no positions of the sources of `events`. A seal may move the positions in
//! `activity`, those in `events`, or both. `activity` is committed first, so that the commit of
//! `events` that follows records how many commits `activity` has.
//!
//! In a bucket, state 1 is an unnamed file on a local disk, and state 2 is an object, put once and
//! locked. There may be several writers, because the store refuses to put a commit whose name is
//! taken. If the name of a writer's next commit is taken, the writer reads the commit that has this
//! name. If that commit does not mention the writer's sources, the writer commits after it. If it
//! does, another process writes the same source, and this writer stops with
//! [`ArchiveError::PositionAhead`]. Newer volumes are checked in the same way before each commit.
//!
//! After a crash at any moment, files in state 1 and uncommitted files in state 2 are invisible to
//! readers. On a disk, the next writer removes them. In a bucket, uncommitted objects stay, because
//! nothing is removed there. After an error, a writer refuses further work; a new writer starts
//! from what is stored.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use parquet::errors::ParquetError;
use parquet::file::properties::{BloomFilterPosition, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_schemas::format::EVENTS_FORMAT;
use strongroom_schemas::record::Sha256Hash;
use strongroom_schemas::volume::YEARS;
use strongroom_schemas::{Period, Table, VolumeId};
use strongroom_store::durable::{self, read_only};
use strongroom_store::error::StoreError;
use strongroom_store::id::random_id;
use strongroom_store::options::variables;
use strongroom_store::s3::Content;
use strongroom_store::s3_error::pause;
use strongroom_store::{Bucket, Store, background, layout};
use strongroom_tlog::tree::CompactRange;

use crate::activity_record::is_activity;
use crate::clock::{self, ClockSeen, Evidence};
use crate::delta::commit::{
    self, Addition, CHECKPOINT_INTERVAL, COMMIT_ID, FileFacts, SealedFile, Transactions, VolumeLog,
    check_partition,
};
use crate::delta::facts::METADATA;
use crate::delta::snapshot;
use crate::encode::{EncodedRowGroup, Span, parquet_schema};
use crate::error::{ArchiveError, LogError, Result, with_causes};
use crate::fail::{FailPoints, Step};
use crate::lock::WriterGuard;
use crate::log::LogSigner;
use crate::position::{Counts, Position, SourcePosition};
use crate::records::{drops, policy};
use crate::site::Site;

/// Order of the commits of a seal. `events` comes last, because its positions decide how far a
/// source has been stored.
const COMMIT_ORDER: [Table; 4] = [Table::Activity, Table::Rejects, Table::Alerts, Table::Events];
/// Parquet readers refuse files with more row groups than this.
const ROW_GROUPS_MAX: usize = 1 << 14;
/// Maximum number of objects that are put at the same time. Appending waits while this many are
/// being put.
const UPLOADS_MAX: usize = 4;
/// Maximum number of tries of a commit whose name other writers keep taking.
const COMMIT_TRIES_MAX: u32 = 50;
/// Number of commits of a volume before the next volume starts. More commits cost space: the total
/// size of a volume's Delta checkpoints grows with the square of its commits. Fewer commits cost
/// time: there are more volumes, and a reader of an archive opens every volume. `docs/format.md`
/// has both costs.
pub const VOLUME_COMMITS_MAX: u64 = 8_000;
/// Number of names in one page of a store's listing.
const LIST_NAMES_MAX: u64 = 1_000;
// A reader opens a volume with at most 200 requests: the listing of the log, the ranges of a
// checkpoint, and the commits after it.
const _: () = assert!(CHECKPOINT_INTERVAL + VOLUME_COMMITS_MAX / LIST_NAMES_MAX + 20 <= 200);

/// Settings of a writer; production uses [`WriterOptions::default`].
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// A file that has at least this many bytes is closed.
    pub file_bytes_max: u64,
    /// Maximum number of open files. When another file is needed, the file that was not used for
    /// longest is closed.
    pub open_files_max: usize,
    /// Maximum number of commits of a volume. After them, the next part of the year begins as a new
    /// volume.
    pub volume_commits_max: u64,
    /// The clock that dates commits and so chooses the volume.
    pub clock: fn() -> DateTime<Utc>,
    /// True if an operator has confirmed that the clock is right. The clock is then not doubted.
    pub clock_is_right: bool,
    /// What the clock said when an earlier writer of this process sealed last.
    pub clock_seen: Option<ClockSeen>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions {
            file_bytes_max: 128 << 20,
            open_files_max: 32,
            volume_commits_max: VOLUME_COMMITS_MAX,
            clock: Utc::now,
            clock_is_right: false,
            clock_seen: None,
        }
    }
}

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
    /// Failures that lose no data. For example, a Delta checkpoint that could not be written only
    /// makes reading slower.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub volume: VolumeId,
    pub version: u64,
}

/// A writer of an archive: the only one on a local disk, one of several in a bucket. Dropping it
/// releases the archive; rows that were not sealed are lost.
#[derive(Debug)]
pub struct Writer {
    site: Site,
    /// Extends the signed logs after the commits. Without it, another process must sign them.
    log_signer: Option<LogSigner>,
    /// Warnings for the next report.
    warnings: Vec<String>,
    options: WriterOptions,
    /// Newest position of every source in each table, over all volumes.
    positions: HashMap<Table, HashMap<String, Position>>,
    /// The last commit of each volume that `positions` covers.
    seen: HashMap<VolumeId, u64>,
    /// For each volume in which no commit is missing: its number of commits. Commits of `events`
    /// state these numbers.
    lengths: HashMap<VolumeId, u64>,
    /// The current volume of `events`, and those of `lengths` that this writer has stated in
    /// commits to it.
    said: (Option<VolumeId>, HashMap<VolumeId, u64>),
    /// The last commit of each volume of `alerts` whose alerts the caller knows; `None` if the caller
    /// does not say.
    alerts_known: Option<BTreeMap<Period, u64>>,
    /// Volumes that no commit may be added to.
    closed: HashSet<VolumeId>,
    /// Year of the newest volume of any table. New rows are never put into a volume of an earlier
    /// year, even if the clock is set back.
    year_min: Option<i32>,
    /// Time of the newest commit of `events`, which every commit must follow.
    newest: Option<DateTime<Utc>>,
    /// Time of the newest event since the last seal.
    newest_event: Option<DateTime<Utc>>,
    /// Year of the volumes that get the rows appended since the last seal. `current` has these
    /// volumes.
    year: Option<i32>,
    current: HashMap<Table, VolumeId>,
    volumes: HashMap<VolumeId, VolumeLog>,
    open: HashMap<(Table, NaiveDate), OpenFile>,
    /// Files between state 1 and state 2, oldest first.
    uploads: VecDeque<(FileFacts, background::Task<Option<String>, ArchiveError>)>,
    /// Files in state 2.
    finished: Vec<FileFacts>,
    /// Offsets appended since the last seal.
    spans: BTreeMap<(Table, String), (i64, i64)>,
    pending_bytes: u64,
    pending_rows: u64,
    staged: u64,
    uses: u64,
    failed: Option<&'static str>,
    /// For tests.
    pub fail_points: FailPoints,
    guard: WriterGuard,
}

/// A file in state 1.
struct OpenFile {
    /// In a bucket: the folder that contains the unnamed file.
    staging: PathBuf,
    volume: PathBuf,
    parquet: SerializedFileWriter<HashedFile>,
    date: NaiveDate,
    table: Table,
    rows: u64,
    row_groups: usize,
    times: Option<(i64, i64)>,
    spans: BTreeMap<String, (i64, i64, u64)>,
    /// Merkle tree over the records so far; `None` after a row group without hashes of its records
    /// was appended.
    records: Option<CompactRange>,
    last_use: u64,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile")
            .field("staging", &self.staging)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// A file that hashes what is written to it.
struct HashedFile {
    file: File,
    /// Its hash becomes the file's name.
    hasher: blake3::Hasher,
    /// The hash with which other programs check the bytes of the file, and with which a store
    /// checks an upload.
    sha256: Sha256,
    bytes: u64,
    fail_points: FailPoints,
}

impl Write for HashedFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.fail_points.pass(Step::Write)?;
        let written = self.file.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.sha256.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn properties() -> WriterPropertiesPtr {
    Arc::new(
        WriterProperties::builder()
            .set_created_by(concat!("strongroom version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_bloom_filter_position(BloomFilterPosition::End)
            .build(),
    )
}

fn widen<T: Ord>(range: &mut Option<(T, T)>, low: T, high: T) {
    *range = Some(match range.take() {
        None => (low, high),
        Some((least, greatest)) => (least.min(low), greatest.max(high)),
    });
}

impl Writer {
    pub(crate) fn open(site: &Site, options: WriterOptions, guard: WriterGuard) -> Result<Writer> {
        let Known { positions, seen, lengths, closed, year_min, newest } = Known::load(site)?;
        if let Store::Local = site.store {
            remove_leftovers(site)?;
        }
        let mut warnings = Vec::new();
        let log_signer = site.signer.clone().map(|signer| LogSigner::of(site.clone(), signer));
        if let Some(log_signer) = log_signer.clone() {
            // Sign what an earlier run committed but did not sign before it died.
            let caught_up = background::wait(async move { Ok::<_, ArchiveError>(log_signer.all().await) })?;
            warnings.extend(caught_up.err().map(unproven).transpose()?);
        }
        Ok(Writer {
            site: site.clone(),
            log_signer,
            warnings,
            options,
            positions,
            seen,
            lengths,
            said: (None, HashMap::new()),
            alerts_known: None,
            closed,
            year_min,
            newest,
            newest_event: None,
            year: None,
            current: HashMap::new(),
            volumes: HashMap::new(),
            open: HashMap::new(),
            uploads: VecDeque::new(),
            finished: Vec::new(),
            spans: BTreeMap::new(),
            pending_bytes: 0,
            pending_rows: 0,
            staged: 0,
            uses: 0,
            failed: None,
            fail_points: FailPoints::default(),
            guard,
        })
    }

    /// Returns how far `partition` is stored in `table`; `None` if `table` has no position of it.
    ///
    /// A run reads its source from the position in `events`. It leaves out rows for another table
    /// that are before the position in that table.
    pub fn position(&mut self, table: Table, partition: &str) -> Result<Option<Position>> {
        self.check_usable()?;
        Ok(self.positions[&table].get(partition).copied())
    }

    /// Returns all partitions in `table` with their positions, as returned by [`Writer::position`].
    pub fn positions(&self, table: Table) -> impl Iterator<Item = (&str, Position)> {
        let positions = self.positions.get(&table).into_iter().flatten();
        positions.map(|(partition, position)| (partition.as_str(), *position))
    }

    /// Reads the positions again, because other writers may have moved them. Appended rows are
    /// kept. The next seal is refused if they no longer continue where their sources end.
    ///
    /// # Errors
    /// If the archive cannot be read; the writer can still be used.
    pub fn refresh(&mut self) -> Result<()> {
        self.check_usable()?;
        let known = Known::load(&self.site)?;
        (self.positions, self.seen, self.lengths) = (known.positions, known.seen, known.lengths);
        self.closed = known.closed;
        self.year_min = self.year_min.max(known.year_min);
        self.newest = known.newest;
        self.volumes.clear();
        Ok(())
    }

    /// Returns what the clock said at the last seal, for the next writer of this process.
    pub fn clock_seen(&self) -> Option<ClockSeen> {
        self.options.clock_seen
    }

    /// Checks that commits can be dated now. `event` is the time of the newest event that waits to
    /// be appended.
    ///
    /// # Errors
    /// [`ArchiveError::ClockDoubted`] if the clock cannot be right, unless an operator has confirmed
    /// that it is.
    pub fn check_clock(&mut self, event: Option<DateTime<Utc>>) -> Result<()> {
        self.newest_event = self.newest_event.max(event);
        self.time().map(drop)
    }

    /// Whether several processes may write to the archive at once.
    pub fn is_shared(&self) -> bool {
        matches!(self.guard, WriterGuard::Fenced)
    }

    /// Says up to which commits the caller has looked for alerts that are stored already, as returned
    /// by [`Archive::ends`](crate::Archive::ends). From then on a seal with alerts fails with
    /// [`ArchiveError::AlertsUnknown`] if another writer has committed alerts since, because they may
    /// be the same.
    pub fn knows_alerts(&mut self, ends: BTreeMap<Period, u64>) {
        self.alerts_known = Some(ends);
    }

    /// Up to which commits the caller knows the stored alerts, with the commits of this writer.
    pub fn alerts_known(&self) -> Option<&BTreeMap<Period, u64>> {
        self.alerts_known.as_ref()
    }

    /// Adds a row group to the open file of its table and date. The row group is on disk only after
    /// [`Writer::seal`].
    pub fn append(&mut self, row_group: EncodedRowGroup) -> Result<()> {
        self.check_usable()?;
        self.failed = Some("append");
        self.append_inner(row_group)?;
        self.failed = None;
        Ok(())
    }

    /// Returns the number of bytes that are appended and not yet sealed.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Returns the number of rows that are appended and not yet sealed.
    pub fn pending_rows(&self) -> u64 {
        self.pending_rows
    }

    /// Commits everything appended since the last seal, together with the new position of each
    /// source. When this returns, the rows and positions are on disk and visible to readers. A seal
    /// with neither rows nor a new position makes no commit.
    ///
    /// # Errors
    /// [`ArchiveError::PositionAhead`], [`ArchiveError::PositionBehind`] and
    /// [`ArchiveError::PositionDiffers`] if a source does not continue where it ended;
    /// [`ArchiveError::RowsRepeated`], [`ArchiveError::RowsBeyondPosition`] and
    /// [`ArchiveError::RowsWithoutPosition`] if the rows do not fit the positions. In these cases
    /// nothing is committed. After an error of a file or a commit, the rows of some tables may have
    /// been committed; the positions that a new writer returns show which.
    pub fn seal(&mut self, positions: &[SourcePosition], counts: Counts) -> Result<SealReport> {
        self.check_usable()?;
        self.failed = Some("seal");
        self.check_positions(positions)?;
        let report = self.seal_inner(positions, counts)?;
        self.failed = None;
        Ok(report)
    }

    fn check_usable(&self) -> Result<()> {
        match self.failed {
            Some(operation) => Err(ArchiveError::WriterFailed { operation }),
            None => Ok(()),
        }
    }

    fn append_inner(&mut self, row_group: EncodedRowGroup) -> Result<()> {
        let (table, date) = (row_group.table, row_group.date);
        if table == Table::Events {
            let newest = row_group.times.and_then(|(_, newest)| DateTime::from_timestamp_micros(newest));
            self.newest_event = self.newest_event.max(newest);
        }
        let volume = self.current_volume(table)?;
        if !self.open.contains_key(&(table, date)) {
            while self.open.len() >= self.options.open_files_max.max(1) {
                let oldest = self.open.iter().min_by_key(|(_, file)| file.last_use).map(|(key, _)| *key);
                let oldest = self.open.remove(&oldest.expect("there is one: the count is not zero"));
                self.finish(oldest.expect("the key was just found"))?;
            }
            let file = self.create(volume, date)?;
            self.open.insert((table, date), file);
        }
        self.uses += 1;
        let file = self.open.get_mut(&(table, date)).expect("it was there or was just inserted");
        file.last_use = self.uses;
        self.pending_bytes += row_group.bytes();
        self.pending_rows += row_group.rows;
        for Span { partition, first, last, .. } in &row_group.spans {
            let span = self.spans.entry((table, partition.clone())).or_insert((*first, *last));
            *span = (span.0.min(*first), span.1.max(*last));
        }
        file.append(row_group)
            .map_err(|source| ArchiveError::WriteFile { path: file.staging.clone(), source })?;
        if file.parquet.bytes_written() as u64 >= self.options.file_bytes_max
            || file.row_groups >= ROW_GROUPS_MAX
        {
            let full = self.open.remove(&(table, date)).expect("it was just used");
            self.finish(full)?;
        }
        Ok(())
    }

    /// Returns the volume for new rows of `table`. The choice does not change before the next seal,
    /// so that all rows of a table in one seal are in one volume.
    fn current_volume(&mut self, table: Table) -> Result<VolumeId> {
        if let Some(volume) = self.current.get(&table) {
            return Ok(*volume);
        }
        let year = self.current_year()?;
        let of_year = |volume: &&VolumeId| volume.table == table && volume.period.year == year;
        let newest = self.seen.keys().filter(of_year).max().copied();
        let volume = match newest {
            Some(newest) if self.closed.contains(&newest) || self.is_full(newest) => {
                let period = newest.period.next_part();
                VolumeId { table, period: period.ok_or(ArchiveError::PartsExhausted { year })? }
            }
            Some(newest) => newest,
            None => VolumeId { table, period: Period::of_year(year) },
        };
        self.current.insert(table, volume);
        Ok(volume)
    }

    fn is_full(&self, volume: VolumeId) -> bool {
        self.seen.get(&volume).is_some_and(|last| last + 1 >= self.options.volume_commits_max)
    }

    /// Returns the year of new rows.
    fn current_year(&mut self) -> Result<i32> {
        let year = match self.year {
            Some(year) => year,
            None => {
                let clock = self.time()?;
                let year = self.year_min.unwrap_or(i32::MIN).max(clock.year());
                if !YEARS.contains(&year) {
                    return Err(ArchiveError::Clock { clock });
                }
                year
            }
        };
        (self.year, self.year_min) = (Some(year), Some(year));
        Ok(year)
    }

    /// Returns the time of the next commits.
    ///
    /// # Errors
    /// [`ArchiveError::ClockDoubted`] if the clock cannot be right, unless an operator has confirmed
    /// that it is.
    fn time(&self) -> Result<DateTime<Utc>> {
        let now = (self.options.clock)();
        if self.options.clock_is_right {
            return Ok(now);
        }
        let evidence =
            Evidence { newest: self.newest, seen: self.options.clock_seen, event: self.newest_event };
        match evidence.doubt(now, || clock::of_store(&self.site.store, &self.site.root, now))? {
            Some(doubt) => Err(ArchiveError::ClockDoubted { clock: now, doubt }),
            None => Ok(now),
        }
    }

    fn create(&mut self, volume: VolumeId, date: NaiveDate) -> Result<OpenFile> {
        let (table, volume) = (volume.table, self.site.volume(volume));
        let (staging, file) = match &self.site.store {
            Store::Local => {
                let folder = volume.join(layout::STAGING);
                durable::create_folder_in(&self.site.root, &folder)?;
                self.staged += 1;
                let staging = folder.join(layout::staging_name(self.staged));
                let created = File::options().write(true).create_new(true).open(&staging);
                (staging, created)
            }
            Store::S3(bucket) => {
                let staging = staging_folder(bucket);
                let made = std::fs::create_dir_all(&staging);
                // An unnamed file disappears with this process, however it ends.
                let created = made.and_then(|()| tempfile::tempfile_in(&staging));
                (staging, created)
            }
        };
        let file = file.map_err(|source| ArchiveError::CreateFile { path: staging.clone(), source })?;
        let hashed = HashedFile {
            file,
            hasher: blake3::Hasher::new(),
            sha256: Sha256::new(),
            bytes: 0,
            fail_points: self.fail_points.clone(),
        };
        let parquet =
            SerializedFileWriter::new(hashed, parquet_schema(table).root_schema_ptr(), properties())
                .map_err(|source| ArchiveError::WriteFile { path: staging.clone(), source })?;
        Ok(OpenFile {
            staging,
            volume,
            parquet,
            date,
            table,
            rows: 0,
            row_groups: 0,
            times: None,
            spans: BTreeMap::new(),
            records: Some(CompactRange::default()),
            last_use: 0,
        })
    }

    /// Moves a file from state 1 to state 2, or starts its upload.
    fn finish(&mut self, file: OpenFile) -> Result<()> {
        let OpenFile { staging, volume, parquet, date, table, rows, times, spans, records, .. } = file;
        let written = |source: ParquetError| ArchiveError::WriteFile { path: staging.clone(), source };
        let hashed = parquet.into_inner().map_err(written)?;
        let folder = volume.join(layout::date_folder(date));
        let path = folder.join(layout::file_name(&hashed.hasher.finalize()));
        let file = SealedFile { table, path: path.clone(), date, rows, bytes: hashed.bytes };
        let first = spans.values().map(|(first, ..)| *first).min();
        let last = spans.values().map(|(_, last, _)| *last).max();
        let names = spans.first_key_value().zip(spans.last_key_value());
        let facts = FileFacts {
            file,
            times,
            offsets: first.zip(last),
            sources: names.map(|((least, _), (greatest, _))| (least.clone(), greatest.clone())),
            spans,
            sha256: Sha256Hash(hashed.sha256.finalize().into()),
            record_root: records.map(|records| records.root()),
            version: None,
        };
        match &self.site.store {
            Store::Local => {
                self.publish(&hashed.file, &staging, &folder, &path)?;
                self.finished.push(facts);
                Ok(())
            }
            Store::S3(bucket) => {
                self.step(Step::FileWritten, &staging)?;
                let Sha256Hash(sha256) = facts.sha256;
                let (bucket, file, bytes) = (bucket.clone(), Arc::new(hashed.file), hashed.bytes);
                let upload = background::start(async move {
                    let Bucket { s3, retention } = bucket;
                    let put = async {
                        let content = Content::File { file, bytes, sha256 };
                        s3.put_named_by_content(&path, &content, s3.locked(retention.now())?).await
                    };
                    put.await.map_err(|source| ArchiveError::PutFile { path: path.clone(), source })
                })?;
                self.uploads.push_back((facts, upload));
                self.land(UPLOADS_MAX)
            }
        }
    }

    /// Waits until at most `uploads_max` uploads are running.
    fn land(&mut self, uploads_max: usize) -> Result<()> {
        while self.uploads.len() > uploads_max {
            let Some((mut facts, upload)) = self.uploads.pop_front() else { return Ok(()) };
            facts.version = background::join(upload)?;
            self.step(Step::FilePublished, &facts.file.path)?;
            self.finished.push(facts);
        }
        Ok(())
    }

    /// Gives a complete file on a local disk its final name.
    fn publish(&self, file: &File, staging: &Path, folder: &Path, path: &Path) -> Result<()> {
        file.sync_all().map_err(|source| ArchiveError::SyncFile { path: staging.to_owned(), source })?;
        self.step(Step::FileWritten, staging)?;
        durable::create_folder_in(&self.site.root, folder)?;
        let protect = |source| ArchiveError::ProtectFile { path: staging.to_owned(), source };
        read_only(staging).map_err(protect)?;
        // The new permission is in the inode, which must be on disk before the name is.
        file.sync_all().map_err(protect)?;
        // A link does not replace an existing file, so this fails if a file with the same content
        // is already committed. That can only be the result of a bug in this program.
        let published = std::fs::hard_link(staging, path).and_then(|()| std::fs::remove_file(staging));
        published.map_err(|source| ArchiveError::PublishFile { path: path.to_owned(), source })?;
        durable::sync_folder(folder)?;
        self.step(Step::FilePublished, path)
    }

    /// Returns an error if the positions and the rows do not continue what is stored.
    fn check_positions(&self, positions: &[SourcePosition]) -> Result<()> {
        let mut seen = HashSet::new();
        for SourcePosition { partition, previous, .. } in positions {
            check_partition(partition)?;
            if !seen.insert(partition.as_str()) {
                return Err(ArchiveError::PartitionTwice { partition: partition.clone() });
            }
            let table = truth_of(partition);
            let (partition, expected) = (partition.clone(), *previous);
            match (expected, self.positions[&table].get(&partition).copied()) {
                (expected, found) if expected == found => {}
                (Some(expected), Some(found)) if expected.next_offset == found.next_offset => {
                    let (expected, found) = (expected.into(), found.into());
                    return Err(ArchiveError::PositionDiffers { table, partition, expected, found });
                }
                (expected, Some(found))
                    if expected.is_none_or(|expected| expected.next_offset < found.next_offset) =>
                {
                    let (expected, found) = (expected.map(Box::new), found.into());
                    return Err(ArchiveError::PositionAhead { table, partition, expected, found });
                }
                (expected, found) => {
                    let (expected, found) = (expected.map(Box::new), found.map(Box::new));
                    return Err(ArchiveError::PositionBehind { table, partition, expected, found });
                }
            }
        }
        for ((table, partition), (first, last)) in &self.spans {
            let (table, partition, first, last) = (*table, partition.clone(), *first, *last);
            if is_activity(&partition) != (table == Table::Activity) {
                let reason = "table activity has its own sources";
                return Err(ArchiveError::PartitionName { partition, reason });
            }
            let Some(given) = positions.iter().find(|given| given.partition == partition) else {
                return Err(ArchiveError::RowsWithoutPosition { table, partition });
            };
            if last >= given.position.next_offset {
                let next_offset = given.position.next_offset;
                return Err(ArchiveError::RowsBeyondPosition { table, partition, last, next_offset });
            }
            // An alert may be raised for an event that was sealed long ago. For example, a rule for
            // too few events in a window can raise its alert only when the window ends. So an
            // offset does not show whether an alert is repeated. Its id does, and the producer of
            // alerts keeps ids unique.
            if table == Table::Alerts {
                continue;
            }
            if let Some(stored) =
                self.positions[&table].get(&partition).filter(|stored| first < stored.next_offset)
            {
                return Err(ArchiveError::RowsRepeated {
                    table,
                    partition,
                    first,
                    stored: stored.next_offset,
                });
            }
        }
        Ok(())
    }

    fn seal_inner(&mut self, all: &[SourcePosition], counts: Counts) -> Result<SealReport> {
        // Before any file gets its name.
        let time = self.time()?;
        policy::refresh_blocking(&self.site)?;
        let mut open: Vec<OpenFile> = self.open.drain().map(|(_, file)| file).collect();
        open.sort_by_key(|file| (file.table, file.date));
        for file in open {
            self.finish(file)?;
        }
        self.land(0)?;
        let mut finished = std::mem::take(&mut self.finished);
        let mut report = SealReport::default();
        for table in COMMIT_ORDER {
            let files: Vec<FileFacts> = finished.extract_if(.., |facts| facts.file.table == table).collect();
            let own: Vec<&SourcePosition> = all
                .iter()
                .filter(|given| is_activity(&given.partition) == (table == Table::Activity))
                .collect();
            let moved = own.iter().any(|given| Some(given.position) != given.previous);
            let is_truth = matches!(table, Table::Events | Table::Activity);
            if files.is_empty() && !(is_truth && moved) {
                continue;
            }
            let stored = &self.positions[&table];
            // After a crash between the commits of a seal, the stored position of this table may be
            // ahead of the position of this seal. It is not moved back.
            let not_ahead = |given: &&SourcePosition| {
                stored
                    .get(&given.partition)
                    .is_none_or(|stored| stored.next_offset <= given.position.next_offset)
            };
            let reached: Vec<&SourcePosition> = own.iter().copied().filter(not_ahead).collect();
            let positions: Vec<_> =
                reached.iter().map(|given| (given.partition.clone(), given.position)).collect();
            let mut metadata = self.commit_id()?;
            if table == Table::Events {
                let volume = self.current_volume(table)?;
                metadata.extend(self.metadata(volume, &reached, counts));
            }
            let addition = Addition { metadata, positions: positions.clone(), files: files.clone() };
            let partitions = own.iter().map(|given| given.partition.as_str());
            let (volume, committed) =
                self.commit(table, addition, time, &partitions.collect(), &mut report)?;
            self.positions.entry(table).or_default().extend(positions);
            report.commits.push(Commit { volume, version: committed.version });
            report.warnings.extend(committed.warning(volume));
            report.files.extend(files.into_iter().map(|facts| facts.file));
            self.step(Step::Committed(table), &self.site.root.clone())?;
        }
        self.prove(&mut report)?;
        report.rows = report.files.iter().map(|file| file.rows).sum();
        report.bytes = report.files.iter().map(|file| file.bytes).sum();
        if report.commits.iter().any(|commit| commit.volume.table == Table::Events) {
            self.newest = Some(time);
        }
        self.options.clock_seen = Some(ClockSeen::now(time));
        self.newest_event = None;
        self.year = None;
        self.current.clear();
        self.spans.clear();
        (self.pending_bytes, self.pending_rows) = (0, 0);
        Ok(report)
    }

    /// Returns the fields of a commit of `events` other than its files and positions.
    fn metadata(
        &mut self,
        volume: VolumeId,
        reached: &[&SourcePosition],
        counts: Counts,
    ) -> Map<String, Value> {
        // Skip a source whose position did not move: its caller may not know its label.
        let moved = reached.iter().filter(|given| Some(given.position) != given.previous);
        let labels: Map<String, Value> =
            moved.map(|given| (given.partition.clone(), given.label.clone().into())).collect();
        let Counts { received, events, rejects, duplicates } = counts;
        // State the numbers of commits of the other volumes. So if another volume disappears or
        // loses commits, this volume shows it. A number that an earlier commit of this volume has
        // stated is not repeated: there may be hundreds of volumes, and nearly all of them are
        // closed.
        if self.said.0 != Some(volume) {
            self.said = (Some(volume), HashMap::new());
        }
        let said = &mut self.said.1;
        let others = self.lengths.iter().filter(|(other, _)| **other != volume);
        let volumes: BTreeMap<String, u64> = others
            .filter(|(other, length)| said.insert(**other, **length) != Some(**length))
            .map(|(other, length)| (other.name(), *length))
            .collect();
        let said = json!({
            "eventsFormat": EVENTS_FORMAT,
            "counts": { "received": received, "events": events, "rejects": rejects, "duplicates": duplicates },
            "labels": labels,
            "volumes": volumes,
        });
        Map::from_iter([(METADATA.to_owned(), said)])
    }

    /// Extends the signed logs after the commits of a seal. The commits are durable already, so a
    /// failure to sign becomes a warning, and the next seal or another holder of the key signs
    /// these commits.
    fn prove(&mut self, report: &mut SealReport) -> Result<()> {
        report.warnings.append(&mut self.warnings);
        let Some(log_signer) = self.log_signer.clone() else { return Ok(()) };
        let mut logs: Vec<VolumeId> = report.commits.iter().map(|commit| commit.volume).collect();
        logs.dedup();
        let fail_points = self.fail_points.clone();
        let proven = background::wait(async move {
            let signed = async {
                let keys = log_signer.keys().await?;
                for log in logs {
                    log_signer.one(log, &keys, &fail_points).await?;
                }
                Ok(())
            };
            Ok::<_, ArchiveError>(signed.await)
        })?;
        report.warnings.extend(proven.err().map(unproven).transpose()?);
        Ok(())
    }

    /// In a bucket, returns a field with a random value, so that no two commits are equal; on a
    /// disk, returns no field.
    fn commit_id(&self) -> Result<Map<String, Value>> {
        match self.site.store {
            Store::Local => Ok(Map::new()),
            Store::S3(_) => Ok(Map::from_iter([(COMMIT_ID.to_owned(), random_id()?.into())])),
        }
    }

    /// Makes one commit. If other writers have committed in the meantime, the new commit follows
    /// theirs. Fails if one of their commits has moved a position of `partitions`, which are the
    /// sources of this writer.
    fn commit(
        &mut self,
        table: Table,
        addition: Addition,
        time: DateTime<Utc>,
        partitions: &HashSet<&str>,
        report: &mut SealReport,
    ) -> Result<(VolumeId, commit::Committed)> {
        let mut tries = 0;
        loop {
            let id = self.current_volume(table)?;
            let path = self.site.volume(id);
            let volume = match self.volumes.remove(&id) {
                Some(volume) => volume,
                None => {
                    if !self.seen.contains_key(&id) {
                        self.close_before(id, time, partitions, report)?;
                    }
                    let (store, path) = (self.site.store.clone(), path.clone());
                    background::wait(
                        async move { VolumeLog::open_or_create(&store, table, path, time).await },
                    )?
                }
            };
            if let Store::S3(_) = self.site.store {
                self.follow(id, volume.version(), partitions)?;
            }
            if table == Table::Alerts && self.has_unknown_alerts() {
                return Err(ArchiveError::AlertsUnknown { path });
            }
            if volume.is_closed() {
                self.closed.insert(id);
                self.seen.entry(id).or_insert(volume.version());
                if !addition.files.is_empty() {
                    // A commit names only files of its own volume, and the files of this seal are
                    // in the closed volume.
                    return Err(ArchiveError::VolumeClosed { path });
                }
                self.current.remove(&table);
                continue;
            }
            let addition = addition.clone();
            let (volume, outcome) = background::wait(async move {
                let mut volume = volume;
                let mut outcome = volume.commit(addition, time).await;
                if let Err(ArchiveError::CommitConflict { .. }) = outcome
                    && let Err(error) = volume.reload().await
                {
                    outcome = Err(error);
                }
                Ok::<_, ArchiveError>((volume, outcome))
            })?;
            match outcome {
                Ok(committed) => {
                    self.committed(id, committed.version);
                    self.volumes.insert(id, volume);
                    return Ok((id, committed));
                }
                Err(ArchiveError::CommitConflict { .. }) if self.is_shared() => {
                    tries += 1;
                    if tries >= COMMIT_TRIES_MAX {
                        return Err(ArchiveError::CommitContended { path, attempts: tries });
                    }
                    self.volumes.insert(id, volume);
                    std::thread::sleep(pause(tries));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether another writer has committed alerts that the caller has not looked at. The first
    /// commit of a volume has no rows.
    fn has_unknown_alerts(&self) -> bool {
        let Some(known) = &self.alerts_known else { return false };
        let mut of_alerts = self.seen.iter().filter(|(volume, _)| volume.table == Table::Alerts);
        of_alerts.any(|(volume, last)| known.get(&volume.period).copied().unwrap_or(0) < *last)
    }

    /// Records a commit of this writer.
    fn committed(&mut self, volume: VolumeId, version: u64) {
        self.seen.insert(volume, version);
        if let Some(known) = self.alerts_known.as_mut().filter(|_| volume.table == Table::Alerts) {
            let known = known.entry(volume.period).or_insert(0);
            *known = if *known + 1 == version { version } else { *known };
        }
        // The first commit of a volume created its table.
        let length = self.lengths.remove(&volume).unwrap_or(1);
        if length == version {
            self.lengths.insert(volume, length + 1);
        }
    }

    /// Called before `volume` is created. Closes the volume of the table that precedes it, unless
    /// another writer has done so. No writer commits to a closed volume, so the positions in the
    /// new volume are the newest. A disk has no other writer, so there the last volume of a year is
    /// not closed when the next year begins.
    fn close_before(
        &mut self,
        volume: VolumeId,
        time: DateTime<Utc>,
        partitions: &HashSet<&str>,
        report: &mut SealReport,
    ) -> Result<()> {
        let site = self.site.clone();
        let before = background::wait(async move {
            let mut before = drops::periods(&site, volume.table).await?;
            before.retain(|period| *period < volume.period);
            while let Some(period) = before.pop() {
                let id = VolumeId { period, ..volume };
                let path = site.volume(id);
                // A folder without a commit was left by a killed run.
                if commit::exists(&site.store, &path).await? {
                    return Ok::<_, ArchiveError>(Some((
                        id,
                        VolumeLog::open(&site.store, id.table, path).await?,
                    )));
                }
            }
            Ok(None)
        })?;
        let Some((id, mut log)) = before else { return Ok(()) };
        if matches!(self.site.store, Store::Local) && id.period.year != volume.period.year {
            return Ok(());
        }
        for tries in 0..COMMIT_TRIES_MAX {
            if let Store::S3(_) = self.site.store {
                self.follow(id, log.version(), partitions)?;
            }
            if log.is_closed() {
                self.closed.insert(id);
                return Ok(());
            }
            let metadata = self.commit_id()?;
            let (returned, outcome) = background::wait(async move {
                let mut outcome = log.close(metadata, time).await;
                if let Err(ArchiveError::CommitConflict { .. }) = outcome
                    && let Err(error) = log.reload().await
                {
                    outcome = Err(error);
                }
                Ok::<_, ArchiveError>((log, outcome))
            })?;
            log = returned;
            match outcome {
                Ok(committed) => {
                    self.committed(id, committed.version);
                    self.closed.insert(id);
                    report.commits.push(Commit { volume: id, version: committed.version });
                    report.warnings.extend(committed.warning(id));
                    return Ok(());
                }
                Err(ArchiveError::CommitConflict { .. }) if self.is_shared() => {
                    std::thread::sleep(pause(tries));
                }
                Err(error) => return Err(error),
            }
        }
        let path = self.site.volume(id);
        Err(ArchiveError::CommitContended { path, attempts: COMMIT_TRIES_MAX })
    }

    /// Reads what other writers have committed to `volume` up to `version`, and to newer volumes.
    /// Fails if they have moved the positions of `partitions`.
    fn follow(&mut self, volume: VolumeId, version: u64, partitions: &HashSet<&str>) -> Result<()> {
        let table = volume.table;
        let after = self.seen.get(&volume).copied();
        let length = self.lengths.get(&volume).copied();
        let site = self.site.clone();
        let found = background::wait(async move {
            let mut found = Vec::new();
            if after.is_none_or(|after| after < version) {
                let path = site.volume(volume);
                let transactions = commit::transactions_between(&site.store, &path, after, version).await?;
                // `transactions_between` fails if a commit is missing, so the volume is whole up to
                // `version` if it was whole before.
                let was_whole = after.is_none_or(|after| length == Some(after + 1));
                let length = was_whole.then_some(version + 1);
                found.push((volume, Some(version), length, commit::positions(&path, &transactions)?));
            }
            for period in
                drops::periods(&site, table).await?.into_iter().filter(|newer| *newer > volume.period)
            {
                let newer = VolumeId { table, period };
                let path = site.volume(newer);
                let Transactions { newest, last, length } =
                    commit::transactions_of(&site.store, &path).await?;
                found.push((newer, last, length, commit::positions(&path, &newest)?));
            }
            Ok::<_, ArchiveError>(found)
        })?;
        for (volume, last, length, positions) in found {
            let known = self.positions.entry(table).or_default();
            for (partition, found) in positions {
                let expected = known.get(&partition).copied();
                if partitions.contains(partition.as_str()) && expected != Some(found) {
                    let (expected, found) = (expected.map(Box::new), found.into());
                    return Err(ArchiveError::PositionAhead { table, partition, expected, found });
                }
                known.insert(partition, found);
            }
            if let Some(last) = last {
                self.seen.insert(volume, last);
                match length {
                    Some(length) => _ = self.lengths.insert(volume, length),
                    None => _ = self.lengths.remove(&volume),
                }
            }
        }
        Ok(())
    }

    fn step(&self, step: Step, path: &Path) -> Result<()> {
        self.fail_points.pass(step).map_err(|source| ArchiveError::WriteFile {
            path: path.to_owned(),
            source: ParquetError::from(source),
        })
    }
}

/// Returns the table whose positions decide how far `partition` has been stored.
fn truth_of(partition: &str) -> Table {
    if is_activity(partition) { Table::Activity } else { Table::Events }
}

/// Returns the warning for commits that are durable, but could not be signed.
///
/// # Errors
/// [`ArchiveError::HistoryChanged`] if the archive no longer has the commits that were signed: a
/// writer does not add to such an archive.
fn unproven(error: LogError) -> Result<String> {
    match error {
        LogError::Forked { .. } | LogError::Store(StoreError::Changed { .. }) => {
            Err(ArchiveError::HistoryChanged { source: Box::new(error) })
        }
        error => Ok(format!("the proof log is behind: {}", with_causes(&error))),
    }
}

/// What the commits and the drop records of an archive say about its sources and volumes.
struct Known {
    positions: HashMap<Table, HashMap<String, Position>>,
    seen: HashMap<VolumeId, u64>,
    lengths: HashMap<VolumeId, u64>,
    closed: HashSet<VolumeId>,
    year_min: Option<i32>,
    newest: Option<DateTime<Utc>>,
}

impl Known {
    fn load(site: &Site) -> Result<Known> {
        let site = site.clone();
        background::wait(async move {
            let mut known = Known {
                positions: HashMap::new(),
                seen: HashMap::new(),
                lengths: HashMap::new(),
                closed: HashSet::new(),
                year_min: None,
                newest: None,
            };
            for table in Table::ALL {
                let positions = known.positions.entry(table).or_default();
                let mut dropped = drops::of_table(&site, table).await?;
                let periods = drops::periods(&site, table).await?;
                // Later volumes overwrite earlier ones. The final positions of a dropped volume are
                // stored with its drop record.
                let all: BTreeSet<Period> = periods.into_iter().chain(dropped.keys().copied()).collect();
                for period in &all {
                    let volume = VolumeId { table, period: *period };
                    let path = site.volume(volume);
                    let is_dropped = dropped.contains_key(period);
                    let transactions = match dropped.remove(period) {
                        Some(state) => Transactions {
                            newest: state.txns.into_iter().collect(),
                            ..Transactions::default()
                        },
                        None => commit::transactions_of(&site.store, &path).await?,
                    };
                    if transactions.is_closed() {
                        known.closed.insert(volume);
                    }
                    let Transactions { newest, last, length } = transactions;
                    if is_dropped || last.is_some() {
                        known.year_min = known.year_min.max(Some(period.year));
                    }
                    positions.extend(commit::positions(&path, &newest)?);
                    known.seen.extend(last.map(|last| (volume, last)));
                    known.lengths.extend(length.filter(|length| *length > 0).map(|length| (volume, length)));
                }
            }
            // The newest commit is the one that was made last, even if an earlier commit has a
            // later time: if the clock was wrong once, the commits made since then show the right
            // time.
            let of_events = known.seen.iter().filter(|(volume, _)| volume.table == Table::Events);
            if let Some((volume, version)) = of_events.max() {
                known.newest = commit::time_of(&site.store, &site.volume(*volume), *version).await?;
            }
            Ok(known)
        })
    }
}

/// Returns the folder in which files are written before they are put.
fn staging_folder(bucket: &Bucket) -> PathBuf {
    let named = || std::env::var_os(variables::STAGING).filter(|path| !path.is_empty()).map(PathBuf::from);
    bucket.s3.staging().map(Path::to_owned).or_else(named).unwrap_or_else(std::env::temp_dir)
}

impl OpenFile {
    fn append(&mut self, row_group: EncodedRowGroup) -> Result<(), ParquetError> {
        let mut writer = self.parquet.next_row_group()?;
        for column in row_group.columns {
            writer.append_column(&column.bytes, column.close)?;
        }
        writer.close()?;
        self.rows += row_group.rows;
        self.row_groups += 1;
        if let Some((least, greatest)) = row_group.times {
            widen(&mut self.times, least, greatest);
        }
        for Span { partition, first, last, rows } in row_group.spans {
            let span = self.spans.entry(partition).or_insert((first, last, 0));
            *span = (span.0.min(first), span.1.max(last), span.2 + rows);
        }
        match (&mut self.records, row_group.record_hashes) {
            (Some(records), Some(hashes)) => records.extend(hashes),
            (records, _) => *records = None,
        }
        Ok(())
    }
}

/// Removes what killed runs left: files being written, and sealed files that no commit names.
///
/// Such files can be only in the newest volume of a table that has a commit and in folders of newer
/// volumes, because a writer never returns to an older volume. Called under the writer lock.
fn remove_leftovers(site: &Site) -> Result<()> {
    let root = &site.root;
    for name in durable::names(root)? {
        if name.to_str().is_some_and(|name| name.starts_with(&format!(".{}.", layout::MANIFEST))) {
            remove(&root.join(name))?;
        }
    }
    for table in Table::ALL {
        for period in periods_on_disk(root, table)?.into_iter().rev() {
            let volume = layout::volume(root, VolumeId { table, period });
            let staging = volume.join(layout::STAGING);
            for name in durable::names(&staging)? {
                remove(&staging.join(name))?;
            }
            let log = layout::delta_log(&volume);
            let names = durable::names(&log)?;
            for name in names.iter().filter(|name| name.to_str().is_some_and(durable::is_staging)) {
                remove(&log.join(name))?;
            }
            remove_unnamed(site, table, &volume)?;
            let is_commit =
                |name: &OsString| name.to_str().is_some_and(|name| layout::commit_version(name).is_some());
            if names.iter().any(is_commit) {
                break;
            }
        }
    }
    Ok(())
}

/// Returns the periods for which a table has a folder on a local disk, oldest first.
fn periods_on_disk(root: &Path, table: Table) -> Result<Vec<Period>> {
    let names = durable::names(&layout::table(root, table))?;
    let names: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
    Ok(layout::periods_among(&names))
}

fn remove_unnamed(site: &Site, table: Table, volume: &Path) -> Result<()> {
    let mut unnamed = HashSet::new();
    for folder in durable::names(volume)? {
        let Some(folder) = folder.to_str().filter(|name| layout::date_of_folder(name).is_some()) else {
            continue;
        };
        for name in durable::names(&volume.join(folder))? {
            if let Some(name) = name.to_str().filter(|name| layout::is_file_name(name)) {
                unnamed.insert(format!("{folder}/{name}"));
            }
        }
    }
    if unnamed.is_empty() {
        return Ok(());
    }
    let snapshot = background::wait(snapshot::load(site.clone(), table))?;
    for file in &snapshot.files {
        if let Ok(relative) = file.path.strip_prefix(volume) {
            unnamed.remove(&*relative.to_string_lossy());
        }
    }
    // A snapshot does not include files that another program has removed from the table since. A
    // file that any commit ever named must stay, so every commit is read before a file is removed.
    if !unnamed.is_empty() {
        let volume = volume.to_owned();
        let commits = background::wait(async move {
            let paths = commit::commits(&Store::Local, &volume).await?;
            commit::read_commits(&Store::Local, paths).await
        })?;
        for add in commits.into_iter().flat_map(|(_, lines)| lines).filter_map(|line| line.add) {
            unnamed.remove(&add.path);
        }
    }
    for name in unnamed {
        remove(&volume.join(name))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path)
        .map_err(|source| ArchiveError::RemoveLeftover { path: path.to_owned(), source })
}
