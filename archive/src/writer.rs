//! The one writer of an archive: row groups to files, files to commits.
//!
//! What lies where, in the order in which it comes to be:
//! 1. `_staging/<n>.parquet`: an open file, one for each table and date, growing by whole row groups.
//! 2. The same file complete: synced, read-only, linked to `date=…/<hash>.parquet`, that folder synced.
//! 3. The commit that names it, together with the positions of its sources.
//!
//! Invariants. A commit names only files of state 2. Positions of `events` are the truth about a source:
//! `rejects` and `alerts` are committed before `events`, so they are never behind it, and when a run dies
//! between the commits they are ahead. The next run then reads the source from the position in `events`
//! and leaves out what the other tables have: rejects that [`Writer::position`] says are stored, and alerts
//! whose ids are. [`Writer::seal`] refuses an event or a reject that is stored already, and a source that
//! does not go on where it ended.
//!
//! `rejects` and `alerts` are committed only by seals that have rows for them. That loses nothing, for a
//! table that is not ahead of `events` is, for every offset before the position in `events`, complete;
//! and it keeps an ordinary seal at one commit.
//!
//! Crash at any moment: state 1 and uncommitted files of state 2 are invisible to readers, and the next
//! writer removes them. After an error of its own, a writer refuses further work; a new one starts from
//! what is on disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use parquet::errors::ParquetError;
use parquet::file::properties::{BloomFilterPosition, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use serde_json::{Map, Value, json};
use strongroom_schemas::Table;
use strongroom_schemas::format::EVENTS_FORMAT;

use crate::archive::read_only;
use crate::background;
use crate::commit::{self, Addition, FileFacts, VolumeLog, check_partition};
use crate::durable;
use crate::encode::{EncodedRowGroup, Span, parquet_schema};
use crate::error::{ArchiveError, Result};
use crate::fail::{FailPoints, Step};
use crate::layout;
use crate::lock::Lock;
use crate::position::{Counts, Position, SourcePosition};
use crate::snapshot;

/// Order of commits: the table whose positions count comes last.
const COMMIT_ORDER: [Table; 3] = [Table::Rejects, Table::Alerts, Table::Events];
/// Parquet readers refuse files with more row groups than this.
const ROW_GROUPS_MAX: usize = 1 << 14;
/// Our field of `commitInfo`.
pub(crate) const METADATA: &str = "strongroom";

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
    /// What went wrong without loss: a checkpoint that could not be written only makes reading slower.
    pub warnings: Vec<String>,
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

/// The exclusive writer of an archive. Dropping it releases the archive; what was not sealed is gone.
#[derive(Debug)]
pub struct Writer {
    root: PathBuf,
    options: WriterOptions,
    /// Newest position of every source in each table, over all volumes.
    positions: HashMap<Table, HashMap<String, Position>>,
    /// Newest volume of any table: a clock that goes back does not reopen an older one.
    year_min: Option<i32>,
    /// Volume of the rows appended since the last seal.
    year: Option<i32>,
    volumes: HashMap<(Table, i32), VolumeLog>,
    open: HashMap<(Table, NaiveDate), OpenFile>,
    /// Files of state 2.
    finished: Vec<FileFacts>,
    /// Offsets appended since the last seal.
    spans: BTreeMap<(Table, String), (i64, i64)>,
    pending_bytes: u64,
    pending_rows: u64,
    staged: u64,
    uses: u64,
    failed: Option<&'static str>,
    pub(crate) fail_points: FailPoints,
    _lock: Lock,
}

/// A file of state 1.
struct OpenFile {
    staging: PathBuf,
    parquet: SerializedFileWriter<HashedFile>,
    date: NaiveDate,
    table: Table,
    rows: u64,
    row_groups: usize,
    times: Option<(i64, i64)>,
    offsets: Option<(i64, i64)>,
    sources: Option<(String, String)>,
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

/// A file that knows the hash of what was written to it.
struct HashedFile {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
    fail_points: FailPoints,
}

impl Write for HashedFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.fail_points.pass(Step::Write)?;
        let written = self.file.write(buffer)?;
        self.hasher.update(&buffer[..written]);
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
    pub(crate) fn open(root: &Path, options: WriterOptions, lock: Lock) -> Result<Writer> {
        let mut positions: HashMap<Table, HashMap<String, Position>> = HashMap::new();
        let mut year_min = None;
        for table in Table::ALL {
            let known = positions.entry(table).or_default();
            let years = layout::years(root, table)?;
            for year in &years {
                let volume = layout::volume(root, table, *year);
                // Later years overwrite earlier ones.
                known.extend(commit::positions(&volume, &commit::transactions_of(&volume)?)?);
            }
            year_min = year_min.max(years.last().copied());
        }
        remove_leftovers(root)?;
        Ok(Writer {
            root: root.to_owned(),
            options,
            positions,
            year_min,
            year: None,
            volumes: HashMap::new(),
            open: HashMap::new(),
            finished: Vec::new(),
            spans: BTreeMap::new(),
            pending_bytes: 0,
            pending_rows: 0,
            staged: 0,
            uses: 0,
            failed: None,
            fail_points: FailPoints::default(),
            _lock: lock,
        })
    }

    /// How far `partition` is stored in `table`; `None` when it never was.
    ///
    /// A run reads its source from the position in `events`, and leaves out rows of another table that
    /// lie before that table's position.
    pub fn position(&mut self, table: Table, partition: &str) -> Result<Option<Position>> {
        self.check_usable()?;
        Ok(self.positions[&table].get(partition).copied())
    }

    /// How far each partition is stored in `table`.
    pub fn positions(&self, table: Table) -> impl Iterator<Item = (&str, Position)> {
        self.positions[&table].iter().map(|(partition, position)| (partition.as_str(), *position))
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

    /// Bytes appended and not yet sealed.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Rows appended and not yet sealed.
    pub fn pending_rows(&self) -> u64 {
        self.pending_rows
    }

    /// Commits everything appended since the last seal, together with where each source has got to. When
    /// it returns, all of it is on disk and visible to readers. A seal that brings neither rows nor a new
    /// position makes no commit.
    ///
    /// # Errors
    /// [`ArchiveError::PositionAhead`], [`ArchiveError::PositionBehind`] and [`ArchiveError::PositionDiffers`]
    /// when a source does not go on where it ended, [`ArchiveError::RowsRepeated`],
    /// [`ArchiveError::RowsBeyondPosition`] and [`ArchiveError::RowsWithoutPosition`] when the rows do not
    /// fit the positions; nothing is committed then. After an error of a file or a commit some tables may
    /// have been committed; a new writer's positions say which.
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
        let year = self.current_year()?;
        if !self.open.contains_key(&(table, date)) {
            while self.open.len() >= self.options.open_files_max.max(1) {
                let oldest = self.open.iter().min_by_key(|(_, file)| file.last_use).map(|(key, _)| *key);
                let oldest = self.open.remove(&oldest.expect("there is one: the count is not zero"));
                self.finish(oldest.expect("the key was just found"))?;
            }
            let file = self.create(table, date, year)?;
            self.open.insert((table, date), file);
        }
        self.uses += 1;
        let file = self.open.get_mut(&(table, date)).expect("it was there or was just inserted");
        file.last_use = self.uses;
        self.pending_bytes += row_group.bytes();
        self.pending_rows += row_group.rows;
        for Span { partition, first, last } in &row_group.spans {
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

    /// Volume of what is appended now. It holds until the seal, so that a batch lies in one volume.
    fn current_year(&mut self) -> Result<i32> {
        let year = match self.year {
            Some(year) => year,
            None => {
                let clock = (self.options.clock)();
                let year = self.year_min.unwrap_or(i32::MIN).max(clock.year());
                if !layout::YEARS.contains(&year) {
                    return Err(ArchiveError::Clock { clock });
                }
                year
            }
        };
        (self.year, self.year_min) = (Some(year), Some(year));
        Ok(year)
    }

    fn create(&mut self, table: Table, date: NaiveDate, year: i32) -> Result<OpenFile> {
        let folder = layout::volume(&self.root, table, year).join(layout::STAGING);
        durable::create_folder(&folder)?;
        self.staged += 1;
        let staging = folder.join(layout::staging_name(self.staged));
        let created = File::options().write(true).create_new(true).open(&staging);
        let file = created.map_err(|source| ArchiveError::CreateFile { path: staging.clone(), source })?;
        let hashed = HashedFile {
            file,
            hasher: blake3::Hasher::new(),
            bytes: 0,
            fail_points: self.fail_points.clone(),
        };
        let parquet =
            SerializedFileWriter::new(hashed, parquet_schema(table).root_schema_ptr(), properties())
                .map_err(|source| ArchiveError::WriteFile { path: staging.clone(), source })?;
        Ok(OpenFile {
            staging,
            parquet,
            date,
            table,
            rows: 0,
            row_groups: 0,
            times: None,
            offsets: None,
            sources: None,
            last_use: 0,
        })
    }

    /// Brings a file from state 1 to state 2.
    fn finish(&mut self, file: OpenFile) -> Result<()> {
        let OpenFile { staging, parquet, date, table, rows, times, offsets, sources, .. } = file;
        let written = |source: ParquetError| ArchiveError::WriteFile { path: staging.clone(), source };
        let hashed = parquet.into_inner().map_err(written)?;
        hashed.file.sync_all().map_err(|source| ArchiveError::SyncFile { path: staging.clone(), source })?;
        self.step(Step::FileWritten, &staging)?;

        let volume = staging.parent().and_then(Path::parent).expect("a staged file lies two folders down");
        let folder = volume.join(layout::date_folder(date));
        durable::create_folder(&folder)?;
        let path = folder.join(layout::file_name(&hashed.hasher.finalize()));
        let protect = |source| ArchiveError::ProtectFile { path: staging.clone(), source };
        read_only(&staging).map_err(protect)?;
        // The new permission lies in the inode; it must not be younger on disk than the name.
        hashed.file.sync_all().map_err(protect)?;
        // A link does not replace: an equal file that is committed already would be a bug of ours.
        let published = std::fs::hard_link(&staging, &path).and_then(|()| std::fs::remove_file(&staging));
        published.map_err(|source| ArchiveError::PublishFile { path: path.clone(), source })?;
        durable::sync_folder(&folder)?;
        self.step(Step::FilePublished, &path)?;
        let file = SealedFile { table, path, date, rows, bytes: hashed.bytes };
        self.finished.push(FileFacts { file, times, offsets, sources });
        Ok(())
    }

    /// Refuses positions and rows that do not continue what is stored.
    fn check_positions(&self, positions: &[SourcePosition]) -> Result<()> {
        let mut seen = HashSet::new();
        for SourcePosition { partition, previous, .. } in positions {
            check_partition(partition)?;
            if !seen.insert(partition.as_str()) {
                return Err(ArchiveError::PartitionTwice { partition: partition.clone() });
            }
            let table = Table::Events;
            let (partition, expected) = (partition.clone(), *previous);
            match (expected, self.positions[&table].get(&partition).copied()) {
                (expected, found) if expected == found => {}
                (Some(expected), Some(found)) if expected.next_offset == found.next_offset => {
                    return Err(ArchiveError::PositionDiffers { table, partition, expected, found });
                }
                (expected, Some(found))
                    if expected.is_none_or(|expected| expected.next_offset < found.next_offset) =>
                {
                    return Err(ArchiveError::PositionAhead { table, partition, expected, found });
                }
                (expected, found) => {
                    return Err(ArchiveError::PositionBehind { table, partition, expected, found });
                }
            }
        }
        for ((table, partition), (first, last)) in &self.spans {
            let (table, partition, first, last) = (*table, partition.clone(), *first, *last);
            let Some(given) = positions.iter().find(|given| given.partition == partition) else {
                return Err(ArchiveError::RowsWithoutPosition { table, partition });
            };
            if last >= given.position.next_offset {
                let next_offset = given.position.next_offset;
                return Err(ArchiveError::RowsBeyondPosition { table, partition, last, next_offset });
            }
            // An alert may complete on an event that was sealed long ago: the end of a window shows that too
            // little happened in it. What tells alerts apart is their id, and their producer's to keep.
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

    fn seal_inner(&mut self, positions: &[SourcePosition], counts: Counts) -> Result<SealReport> {
        let year = self.current_year()?;
        let mut open: Vec<OpenFile> = self.open.drain().map(|(_, file)| file).collect();
        open.sort_by_key(|file| (file.table, file.date));
        for file in open {
            self.finish(file)?;
        }
        let mut finished = std::mem::take(&mut self.finished);
        let mut report = SealReport::default();
        let time = (self.options.clock)();
        for table in COMMIT_ORDER {
            let files: Vec<FileFacts> = finished.extract_if(.., |facts| facts.file.table == table).collect();
            let moved = positions.iter().any(|given| Some(given.position) != given.previous);
            if files.is_empty() && (table != Table::Events || !moved) {
                continue;
            }
            let stored = &self.positions[&table];
            // After a crash between tables this table may be further than this seal gets; it stays there.
            let not_ahead = |given: &&SourcePosition| {
                stored
                    .get(&given.partition)
                    .is_none_or(|stored| stored.next_offset <= given.position.next_offset)
            };
            let reached: Vec<&SourcePosition> = positions.iter().filter(not_ahead).collect();
            let positions: Vec<_> =
                reached.iter().map(|given| (given.partition.clone(), given.position)).collect();
            let addition = Addition {
                metadata: metadata(table, &reached, counts),
                positions: positions.clone(),
                files: files.clone(),
            };
            let committed = self.commit(table, year, addition, time)?;
            self.positions.entry(table).or_default().extend(positions);
            report.commits.push(Commit { table, year, version: committed.version });
            if let Some(reason) = committed.checkpoint_failed {
                report.warnings.push(format!(
                    "checkpoint of {} {year} version {}: {reason}",
                    table.name(),
                    committed.version
                ));
            }
            report.files.extend(files.into_iter().map(|facts| facts.file));
            self.step(Step::Committed(table), &self.root.clone())?;
        }
        report.rows = report.files.iter().map(|file| file.rows).sum();
        report.bytes = report.files.iter().map(|file| file.bytes).sum();
        self.year = None;
        self.spans.clear();
        (self.pending_bytes, self.pending_rows) = (0, 0);
        Ok(report)
    }

    fn commit(
        &mut self,
        table: Table,
        year: i32,
        addition: Addition,
        time: DateTime<Utc>,
    ) -> Result<commit::Committed> {
        let path = layout::volume(&self.root, table, year);
        let volume = self.volumes.remove(&(table, year));
        let (volume, committed) = background::wait(async move {
            let mut volume = match volume {
                Some(volume) => volume,
                None => VolumeLog::open_or_create(table, path).await?,
            };
            let committed = volume.commit(addition, time).await?;
            Ok((volume, committed))
        })?;
        self.volumes.insert((table, year), volume);
        Ok(committed)
    }

    fn step(&self, step: Step, path: &Path) -> Result<()> {
        self.fail_points.pass(step).map_err(|source| ArchiveError::WriteFile {
            path: path.to_owned(),
            source: ParquetError::from(source),
        })
    }
}

/// What a commit says beside its files and positions.
fn metadata(table: Table, reached: &[&SourcePosition], counts: Counts) -> Map<String, Value> {
    let mut metadata = Map::new();
    if table == Table::Events {
        let labels: Map<String, Value> =
            reached.iter().map(|given| (given.partition.clone(), given.label.clone().into())).collect();
        let Counts { received, events, rejects, duplicates } = counts;
        metadata.insert(
            METADATA.to_owned(),
            json!({
                "eventsFormat": EVENTS_FORMAT,
                "counts": { "received": received, "events": events, "rejects": rejects, "duplicates": duplicates },
                "labels": labels,
            }),
        );
    }
    metadata
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
        for Span { partition, first, last } in row_group.spans {
            widen(&mut self.offsets, first, last);
            widen(&mut self.sources, partition.clone(), partition);
        }
        Ok(())
    }
}

/// Removes what killed runs left: everything being written, and sealed files that no commit names.
///
/// Only the newest volume of a table can hold such files, for a writer never goes back to an older one.
/// Called with the lock held.
fn remove_leftovers(root: &Path) -> Result<()> {
    for name in layout::names(root)? {
        if name.to_str().is_some_and(|name| name.starts_with(&format!(".{}.", layout::MANIFEST))) {
            remove(&root.join(name))?;
        }
    }
    for table in Table::ALL {
        let Some(year) = layout::years(root, table)?.last().copied() else { continue };
        let volume = layout::volume(root, table, year);
        let staging = volume.join(layout::STAGING);
        for name in layout::names(&staging)? {
            remove(&staging.join(name))?;
        }
        let log = layout::delta_log(&volume);
        for name in layout::names(&log)? {
            if name.to_str().is_some_and(durable::is_staging) {
                remove(&log.join(name))?;
            }
        }
        remove_unnamed(root, table, &volume)?;
    }
    Ok(())
}

fn remove_unnamed(root: &Path, table: Table, volume: &Path) -> Result<()> {
    let mut unnamed = HashSet::new();
    for folder in layout::names(volume)? {
        let Some(folder) = folder.to_str().filter(|name| layout::date_of_folder(name).is_some()) else {
            continue;
        };
        for name in layout::names(&volume.join(folder))? {
            if let Some(name) = name.to_str().filter(|name| layout::is_file_name(name)) {
                unnamed.insert(format!("{folder}/{name}"));
            }
        }
    }
    if unnamed.is_empty() {
        return Ok(());
    }
    let snapshot = background::wait(snapshot::load(root.to_owned(), table))?;
    for file in &snapshot.files {
        if let Ok(relative) = file.path.strip_prefix(volume) {
            unnamed.remove(&*relative.to_string_lossy());
        }
    }
    // A snapshot leaves out files that another program has replaced since. Whatever any commit has ever
    // named stays, so before a file is removed every commit is read.
    if !unnamed.is_empty() {
        for path in commit::commits(volume)? {
            for line in commit::read_commit(&path)? {
                if let Some(add) = line.add {
                    unnamed.remove(&add.path);
                }
            }
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
