//! The Delta log of one volume: opening, creating and extending it.
//!
//! Terms. A *volume* is one Delta table: the commits of one calendar year, or of a part of it. A
//! commit is a JSON file of actions: `add` names a sealed file, `txn` records a position. A volume
//! is *closed* by a commit with the appId `#closed`. No commit may follow the closing commit, so
//! all writers that read the log agree on the volume that comes next.
//!
//! Invariants. The rows that a seal adds to a table and the positions that they lead to are in one
//! commit. A commit is one durable, conditional write. The write fails if another writer has
//! written this version first; the caller then decides whether its own commit may follow that of
//! the other writer. No commit or Delta checkpoint is ever removed (`enableExpiredLogCleanup` is
//! off, so that no other program removes one either), and no file is ever removed from the table
//! (`appendOnly`).
//!
//! A position consists of four or five `txn` actions, because the version of a `txn` is one 64-bit
//! number. AppId `<partition>` has the next offset, `<partition>#records` has the number of
//! records, and `<partition>#blake3.hi` and `<partition>#blake3.lo` have the halves of the
//! fingerprint, big-endian, as signed numbers. These four are always written together. A partition
//! of a broker has a fifth one, `<partition>#broker`, which is the number that the broker gives to
//! the next message. Partition names cannot contain a `#`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parquet::arrow::ProjectionMask;
use serde_json::{Map, Value, json};
use strongroom_schemas::record::Sha256Hash;
use strongroom_schemas::table::DATE;
use strongroom_schemas::{Table, VolumeId};
use strongroom_store::id::random_id;
use strongroom_store::layout;
use strongroom_store::{Store, durable};

use super::facts::{
    CLOSED, STATISTICS_OFFSET, STATISTICS_SOURCE, TAG_OFFSETS, TAG_RECORD_ROOT, TAG_ROWS, TAG_SHA256,
    TAG_VERSION, timestamp,
};
use super::{Add, DeltaError, Line, Listing, State, Txn, checkpoint, is_of_log};
use crate::delta;
use crate::error::{ArchiveError, Result, with_causes};
use crate::position::Position;
use strongroom_parquet::Batches;

/// Number of commits between Delta checkpoints. More checkpoints cost space: each checkpoint
/// repeats the state of the whole volume, so the sum of their sizes grows with the square of the
/// number of commits. Fewer checkpoints cost time: a reader makes one request for every commit
/// after the newest checkpoint.
pub const CHECKPOINT_INTERVAL: u64 = 160;

/// Maximum number of commits that are read at the same time. In a bucket, each read is a request.
const COMMITS_AT_ONCE: usize = 16;

/// On a local disk: the file that names the newest checkpoint, as a hint for readers.
const LAST_CHECKPOINT: &str = "_last_checkpoint";
/// In a bucket: a field of `commitInfo` with a random value, so that no two commits have the same
/// bytes.
pub(crate) const COMMIT_ID: &str = "strongroomCommit";

const RECORDS: &str = "#records";
const HASH_HIGH: &str = "#blake3.hi";
const HASH_LOW: &str = "#blake3.lo";
const BROKER: &str = "#broker";
/// Maximum length of a partition name. The name is written up to five times in every commit.
const PARTITION_BYTES_MAX: usize = 512;

/// A file that a seal made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedFile {
    pub table: Table,
    pub path: PathBuf,
    pub date: NaiveDate,
    pub rows: u64,
    pub bytes: u64,
}

/// What one commit adds to a volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addition {
    pub(crate) files: Vec<FileFacts>,
    pub(crate) positions: Vec<(String, Position)>,
    /// Additional fields of `commitInfo`.
    pub(crate) metadata: Map<String, Value>,
}

/// A sealed file and what its commit states about it.
#[derive(Clone, Debug)]
pub(crate) struct FileFacts {
    pub(crate) file: SealedFile,
    pub(crate) times: Option<(i64, i64)>,
    pub(crate) offsets: Option<(i64, i64)>,
    pub(crate) sources: Option<(String, String)>,
    /// The least offset, the greatest offset and the number of rows of each source partition.
    pub(crate) spans: BTreeMap<String, (i64, i64, u64)>,
    pub(crate) sha256: Sha256Hash,
    /// Merkle root over the records; `None` if their hashes were not given.
    pub(crate) record_root: Option<Sha256Hash>,
    /// In a bucket with versions: the version of the object that the lock protects.
    pub(crate) version: Option<String>,
}

/// The outcome of a commit.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) version: u64,
    /// Why a Delta checkpoint that was due could not be written. The commit is valid without the
    /// checkpoint.
    pub(crate) checkpoint_failed: Option<String>,
}

impl Committed {
    /// Returns the warning for the report of a seal.
    pub(crate) fn warning(&self, volume: VolumeId) -> Option<String> {
        let reason = self.checkpoint_failed.as_ref()?;
        Some(format!("checkpoint of {} version {}: {reason}", volume.name(), self.version))
    }
}

/// An open volume.
#[derive(Debug)]
pub(crate) struct VolumeLog {
    table: Table,
    path: PathBuf,
    store: Store,
    state: State,
    /// True if a Delta checkpoint that was due was missing when the volume was opened, and none was
    /// written since.
    is_uncovered: bool,
}

/// Whether a volume has a commit. A folder without a commit was left by a killed run.
pub(crate) async fn exists(store: &Store, path: &Path) -> Result<bool> {
    match store {
        Store::Local => {
            let names = store.names(&layout::delta_log(path)).await?;
            Ok(names.iter().any(|name| layout::commit_version(name).is_some()))
        }
        // Commits are never removed, so a request for the first commit is enough, and the log is
        // not listed.
        Store::S3(_) => {
            let first = layout::commit(path, 0);
            store.exists(&first).await.map_err(|source| ArchiveError::ReadCommit { path: first, source })
        }
    }
}

/// Loads the newest version of a volume; `None` if it has no commit.
pub(crate) async fn load(store: &Store, path: &Path) -> Result<Option<State>> {
    // In a bucket, the listing of the log shows whether there is a commit, and also whether
    // something hides a commit.
    if let Store::Local = store
        && !exists(store, path).await?
    {
        return Ok(None);
    }
    let loaded = State::load(store, path).await;
    loaded.map_err(|source| ArchiveError::OpenVolume { path: path.to_owned(), source: Box::new(source) })
}

impl VolumeLog {
    pub(crate) async fn open_or_create(
        store: &Store,
        table: Table,
        path: PathBuf,
        time: DateTime<Utc>,
    ) -> Result<VolumeLog> {
        if let Some(state) = load(store, &path).await? {
            return Ok(VolumeLog::of(store, table, path, state));
        }
        create(store, table, &path, time).await?;
        // Another writer may have created the table in the meantime, and may have committed to it.
        VolumeLog::open(store, table, path).await
    }

    fn of(store: &Store, table: Table, path: PathBuf, state: State) -> VolumeLog {
        let due = (state.version + 1) / CHECKPOINT_INTERVAL * CHECKPOINT_INTERVAL;
        let covered = state.checkpoint.map_or(0, |version| version + 1);
        VolumeLog { table, path, store: store.clone(), state, is_uncovered: covered < due }
    }

    /// Opens a volume that has a commit.
    pub(crate) async fn open(store: &Store, table: Table, path: PathBuf) -> Result<VolumeLog> {
        let state = State::load(store, &path)
            .await
            .and_then(|state| state.ok_or(DeltaError::Incomplete { what: "commit" }));
        let state = state
            .map_err(|source| ArchiveError::OpenVolume { path: path.clone(), source: Box::new(source) })?;
        Ok(VolumeLog::of(store, table, path, state))
    }

    /// Returns the version that the next commit follows.
    pub(crate) fn version(&self) -> u64 {
        self.state.version
    }

    /// Whether the volume is closed, so that no commit may follow.
    pub(crate) fn is_closed(&self) -> bool {
        is_closed(&self.state)
    }

    /// Writes the last commit of the volume, and its Delta checkpoint, which is all that a later
    /// reader of the volume needs.
    ///
    /// # Errors
    /// Those of [`VolumeLog::commit`].
    pub(crate) async fn close(
        &mut self,
        metadata: Map<String, Value>,
        time: DateTime<Utc>,
    ) -> Result<Committed> {
        let txns = [Txn { app_id: CLOSED.to_owned(), version: 1 }];
        self.write(&[], &txns, metadata, time).await
    }

    /// Brings the state up to date by reading the commits that other writers have made since.
    pub(crate) async fn reload(&mut self) -> Result<()> {
        let followed = self.state.follow(&self.store, &self.path).await;
        followed
            .map(drop)
            .map_err(|source| ArchiveError::OpenVolume { path: self.path.clone(), source: Box::new(source) })
    }

    /// Writes one commit. It is durable when this returns.
    ///
    /// # Errors
    /// [`ArchiveError::CommitConflict`] if another writer has made a commit that this volume has
    /// not loaded.
    pub(crate) async fn commit(&mut self, addition: Addition, time: DateTime<Utc>) -> Result<Committed> {
        let files: Vec<Add> = addition.files.iter().map(|facts| add(self.table, facts, time)).collect();
        let txns: Vec<Txn> = addition
            .positions
            .iter()
            .flat_map(|(partition, position)| transactions(partition, position))
            .collect();
        self.write(&files, &txns, addition.metadata, time).await
    }

    async fn write(
        &mut self,
        files: &[Add],
        txns: &[Txn],
        metadata: Map<String, Value>,
        time: DateTime<Utc>,
    ) -> Result<Committed> {
        let failed = |source| ArchiveError::Commit { path: self.path.clone(), source: Box::new(source) };
        let text = delta::append_text(files, txns, metadata, time.timestamp_millis());
        let version = self.state.version + 1;
        if !put(&self.store, &self.path, &layout::commit_name(version), text.clone()).await.map_err(failed)? {
            return Err(ArchiveError::CommitConflict { path: self.path.clone() });
        }
        self.state.take(version, &text).map_err(|source| ArchiveError::OpenVolume {
            path: self.path.clone(),
            source: Box::new(source),
        })?;
        // The commit exists, whether or not its checkpoint does.
        let checkpoint_failed = match self.is_checkpoint_due() {
            true => self.checkpoint().await.err().map(|error| with_causes(&error)),
            false => None,
        };
        Ok(Committed { version, checkpoint_failed })
    }

    /// True if a checkpoint of this version is due, or if an earlier one is missing because a
    /// writer died between a commit and its checkpoint.
    fn is_checkpoint_due(&self) -> bool {
        let commits = self.state.version + 1;
        self.is_closed() || commits.is_multiple_of(CHECKPOINT_INTERVAL) || self.is_uncovered
    }

    async fn checkpoint(&mut self) -> Result<(), DeltaError> {
        let version = self.state.version;
        let bytes = checkpoint::encode(&self.state)?;
        let size = bytes.len();
        // An existing checkpoint of this version has the same content.
        put(&self.store, &self.path, &layout::checkpoint_name(version), bytes).await?;
        (self.state.checkpoint, self.is_uncovered) = (Some(version), false);
        let hint = json!({
            "version": version,
            "size": checkpoint::actions(&self.state),
            "sizeInBytes": size,
            "numOfAddFiles": self.state.files.len(),
        });
        let Store::Local = self.store else { return Ok(()) };
        // This file is a hint for readers that do not list the folder. In a bucket it is not
        // written, because the lock would keep every version of it. Also, readers expect this file
        // to change, so anyone who may put objects could write a version that points to another
        // checkpoint.
        let path = layout::delta_log(&self.path).join(LAST_CHECKPOINT);
        durable::replace_file(&path, &durable::staging_of(&path), &[hint.to_string().as_bytes()])
            .map_err(|source| DeltaError::Write { name: LAST_CHECKPOINT.to_owned(), source })
    }
}

/// Whether a volume has its closing commit.
pub(crate) fn is_closed(state: &State) -> bool {
    state.txns.contains_key(CLOSED)
}

/// Writes a file of a log, whole and durably. Returns `false` if its name is taken.
async fn put(store: &Store, volume: &Path, name: &str, bytes: Vec<u8>) -> Result<bool, DeltaError> {
    let path = layout::delta_log(volume).join(name);
    let failed = |source| DeltaError::Write { name: name.to_owned(), source };
    match store {
        Store::Local => match durable::create_file(&path, &durable::staging_of(&path), &[&bytes]) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed(error)),
        },
        Store::S3(_) => store.put_once(&path, Bytes::from(bytes)).await.map_err(failed),
    }
}

/// Creates the table, unless another writer is faster.
async fn create(store: &Store, table: Table, path: &Path, time: DateTime<Utc>) -> Result<()> {
    let failed = |source| ArchiveError::CreateVolume { path: path.to_owned(), source: Box::new(source) };
    if let Store::Local = store {
        let root = path.parent().and_then(Path::parent).unwrap_or(path);
        durable::create_folder_in(root, &layout::delta_log(path))?;
    }
    let statistics = [table.time_column(), STATISTICS_OFFSET, STATISTICS_SOURCE].join(",");
    let interval = CHECKPOINT_INTERVAL.to_string();
    let configuration = [
        ("delta.appendOnly", "true"),
        ("delta.enableExpiredLogCleanup", "false"),
        ("delta.checkpointInterval", interval.as_str()),
        // By default, Delta has statistics only for the first 32 columns, and the column of the
        // time comes later.
        ("delta.dataSkippingStatsColumns", statistics.as_str()),
    ];
    let mut info = Map::new();
    if let Store::S3(_) = store {
        info.insert(COMMIT_ID.to_owned(), random_id()?.into());
    }
    let text = delta::create_text(table, random_id()?, &configuration, info, time.timestamp_millis());
    put(store, path, &layout::commit_name(0), text).await.map(drop).map_err(failed)
}

fn add(table: Table, facts: &FileFacts, time: DateTime<Utc>) -> Add {
    let file = &facts.file;
    let folder = layout::date_folder(file.date);
    let name = file.path.file_name().and_then(|name| name.to_str()).expect("we named the file");
    let (mut least, mut greatest) = (Map::new(), Map::new());
    let mut bounds = |column: &str, bounds: Option<(Value, Value)>| {
        if let Some((min, max)) = bounds {
            least.insert(column.to_owned(), min);
            greatest.insert(column.to_owned(), max);
        }
    };
    bounds(
        table.time_column(),
        facts.times.and_then(|(min, max)| Some((timestamp(min)?.into(), timestamp(max)?.into()))),
    );
    bounds(STATISTICS_OFFSET, facts.offsets.map(|(min, max)| (min.into(), max.into())));
    bounds(STATISTICS_SOURCE, facts.sources.clone().map(|(min, max)| (min.into(), max.into())));
    let statistics = json!({ "numRecords": file.rows, "minValues": least, "maxValues": greatest });
    Add {
        path: format!("{folder}/{name}"),
        partition_values: BTreeMap::from([(DATE.to_owned(), Some(file.date.format("%Y-%m-%d").to_string()))]),
        size: file.bytes as i64,
        modification_time: time.timestamp_millis(),
        data_change: true,
        stats: Some(statistics.to_string()),
        tags: Some(tags(facts)),
        ..Add::default()
    }
}

/// Returns the tags of a file. Other programs can check the file with them.
fn tags(facts: &FileFacts) -> BTreeMap<String, Option<String>> {
    let offsets: Map<String, Value> = facts
        .spans
        .iter()
        .map(|(partition, (first, last, rows))| (partition.clone(), json!([first, last, rows])))
        .collect();
    let always = [
        (TAG_SHA256, facts.sha256.to_string()),
        (TAG_ROWS, facts.file.rows.to_string()),
        (TAG_OFFSETS, Value::Object(offsets).to_string()),
    ];
    let root = facts.record_root.map(|root| (TAG_RECORD_ROOT, root.to_string()));
    let version = facts.version.clone().map(|version| (TAG_VERSION, version));
    let tags = always.into_iter().chain(root).chain(version);
    tags.map(|(name, value)| (name.to_owned(), Some(value))).collect()
}

/// Refuses a partition name that would make positions ambiguous or commits unreadable.
pub(crate) fn check_partition(partition: &str) -> Result<()> {
    let refuse =
        |reason| Err(ArchiveError::PartitionName { partition: partition.chars().take(64).collect(), reason });
    if partition.is_empty() {
        return refuse("it is empty");
    }
    if partition.len() > PARTITION_BYTES_MAX {
        return refuse("it is longer than 512 bytes");
    }
    if partition.contains('#') {
        return refuse("it contains a #");
    }
    if partition.chars().any(char::is_control) {
        return refuse("it contains a control character");
    }
    Ok(())
}

fn transactions(partition: &str, position: &Position) -> impl Iterator<Item = Txn> {
    let half = |at: usize| {
        i64::from_be_bytes(
            position.prefix_blake3[at..at + 8].try_into().expect("half of sixteen bytes is eight"),
        )
    };
    let transaction = |suffix: &str, version| Txn { app_id: format!("{partition}{suffix}"), version };
    let always = [
        transaction("", position.next_offset),
        transaction(RECORDS, position.records),
        transaction(HASH_HIGH, half(0)),
        transaction(HASH_LOW, half(8)),
    ];
    always.into_iter().chain(position.broker_offset.map(|next| transaction(BROKER, next)))
}

/// Assembles positions from `txn` versions, which are given by appId.
pub(crate) fn positions(
    path: &Path,
    transactions: &HashMap<String, i64>,
) -> Result<HashMap<String, Position>> {
    let mut positions = HashMap::new();
    for (partition, next_offset) in transactions.iter().filter(|(app_id, _)| !app_id.contains('#')) {
        let part = |suffix: &str| transactions.get(&format!("{partition}{suffix}")).copied();
        let (Some(records), Some(high), Some(low)) = (part(RECORDS), part(HASH_HIGH), part(HASH_LOW)) else {
            return Err(ArchiveError::PositionIncomplete {
                path: path.to_owned(),
                partition: partition.clone(),
            });
        };
        let mut prefix_blake3 = [0; 16];
        prefix_blake3[..8].copy_from_slice(&high.to_be_bytes());
        prefix_blake3[8..].copy_from_slice(&low.to_be_bytes());
        let broker_offset = part(BROKER);
        let position = Position { next_offset: *next_offset, records, prefix_blake3, broker_offset };
        positions.insert(partition.clone(), position);
    }
    Ok(positions)
}

/// The `txn` actions of a volume's log.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// The newest `txn` version of every appId, from the newest checkpoint and the commits after
    /// it.
    pub(crate) newest: HashMap<String, i64>,
    /// Version of the last commit.
    pub(crate) last: Option<u64>,
    /// The number of commits; `None` if a commit before the last one is missing.
    pub(crate) length: Option<u64>,
}

impl Transactions {
    pub(crate) fn is_closed(&self) -> bool {
        self.newest.contains_key(CLOSED)
    }
}

/// Reads the `txn` actions in a volume's newest checkpoint and in the commits after it. Unlike
/// [`State::load`], it does not keep the files.
pub(crate) async fn transactions_of(store: &Store, volume: &Path) -> Result<Transactions> {
    let folder = layout::delta_log(volume);
    let names = store.names_unchanged(&folder, is_of_log).await?;
    let Listing { checkpoints, mut commits } = Listing::of(&names);
    let mut transactions = HashMap::new();
    let mut last = checkpoints.last().copied();
    if let Some(version) = last {
        let path = folder.join(layout::checkpoint_name(version));
        checkpoint_transactions(store, &path, &mut transactions).await?;
    }
    let is_whole = commits.iter().enumerate().all(|(at, version)| at as u64 == *version);
    let length = is_whole.then_some(commits.len() as u64);
    commits.retain(|version| last.is_none_or(|after| *version > after));
    last = commits.last().copied().or(last);
    let paths = commits.into_iter().map(|version| layout::commit(volume, version)).collect();
    for (_, lines) in read_commits(store, paths).await? {
        transactions.extend(transactions_in(lines));
    }
    Ok(Transactions { newest: transactions, last, length })
}

/// Returns the time of a commit of a volume; `None` if the commit does not state one.
pub(crate) async fn time_of(store: &Store, volume: &Path, version: u64) -> Result<Option<DateTime<Utc>>> {
    let path = layout::commit(volume, version);
    let text = store.read(&path).await;
    let Some(text) = text.map_err(|source| ArchiveError::ReadCommit { path: path.clone(), source })? else {
        return Ok(None);
    };
    let lines = parse_commit(&path, &text)?;
    let info = lines.iter().find_map(|line| line.commit_info.as_ref());
    let time = info.and_then(|info| info.get("timestamp")?.as_i64());
    Ok(time.and_then(DateTime::from_timestamp_millis))
}

/// Returns the newest `txn` version of every appId in the commits of a volume after `after`, up to
/// `last`.
pub(crate) async fn transactions_between(
    store: &Store,
    volume: &Path,
    after: Option<u64>,
    last: u64,
) -> Result<HashMap<String, i64>> {
    let first = after.map_or(0, |after| after + 1);
    let paths = (first..=last).map(|version| layout::commit(volume, version)).collect();
    let commits = read_commits(store, paths).await?;
    Ok(commits.into_iter().flat_map(|(_, lines)| transactions_in(lines)).collect())
}

fn transactions_in(lines: Vec<Line>) -> impl Iterator<Item = (String, i64)> {
    lines.into_iter().filter_map(|line| line.txn).map(|txn| (txn.app_id, txn.version))
}

/// Returns the commits of a volume, oldest first.
///
/// # Errors
/// If the log cannot be listed, or a commit is hidden or was replaced in a bucket.
pub async fn commits(store: &Store, volume: &Path) -> Result<Vec<PathBuf>> {
    let folder = layout::delta_log(volume);
    let mut commits: Vec<(u64, PathBuf)> = store
        .names_unchanged(&folder, is_of_log)
        .await?
        .iter()
        .filter_map(|name| Some((layout::commit_version(name)?, folder.join(name))))
        .collect();
    commits.sort_unstable();
    Ok(commits.into_iter().map(|(_, path)| path).collect())
}

/// Reads commits, several at once, and returns them in the order of `paths`.
pub(crate) async fn read_commits(store: &Store, paths: Vec<PathBuf>) -> Result<Vec<(PathBuf, Vec<Line>)>> {
    let read = paths.into_iter().map(|path| {
        let store = store.clone();
        async move { read_commit(&store, &path).await.map(|lines| (path, lines)) }
    });
    stream::iter(read).buffered(COMMITS_AT_ONCE).try_collect().await
}

async fn read_commit(store: &Store, path: &Path) -> Result<Vec<Line>> {
    let text = store.read_present(path).await;
    let text = text.map_err(|source| ArchiveError::ReadCommit { path: path.to_owned(), source })?;
    parse_commit(path, &text)
}

fn parse_commit(path: &Path, text: &[u8]) -> Result<Vec<Line>> {
    let parsed = delta::actions(text).map(|line| {
        line.map_err(|(line, source)| ArchiveError::ParseCommit { path: path.to_owned(), line, source })
    });
    parsed.collect()
}

async fn checkpoint_transactions(
    store: &Store,
    path: &Path,
    transactions: &mut HashMap<String, i64>,
) -> Result<()> {
    let undecodable = |source| ArchiveError::DecodeFile { path: path.to_owned(), source };
    let file = store.read_present(path).await;
    let file = file.map_err(|source| ArchiveError::ReadFile { path: path.to_owned(), source })?;
    let batches = Batches::of_checkpoint(file).map_err(undecodable)?;
    let positions = |schema: &_| ProjectionMask::columns(schema, ["txn.appId", "txn.version"]);
    for batch in batches.with_columns(positions) {
        let batch = batch.map_err(|source| ArchiveError::OrderRows { path: path.to_owned(), source })?;
        let Some(txn) = batch.column_by_name("txn").and_then(|column| column.as_struct_opt()) else {
            continue;
        };
        let (Some(app_ids), Some(versions)) = (txn.column_by_name("appId"), txn.column_by_name("version"))
        else {
            continue;
        };
        let (Some(app_ids), Some(versions)) =
            (app_ids.as_string_opt::<i32>(), versions.as_primitive_opt::<Int64Type>())
        else {
            continue;
        };
        for row in (0..txn.len())
            .filter(|row| txn.is_valid(*row) && app_ids.is_valid(*row) && versions.is_valid(*row))
        {
            transactions.insert(app_ids.value(row).to_owned(), versions.value(row));
        }
    }
    Ok(())
}
