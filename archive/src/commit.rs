//! The Delta log of one volume: opening, creating and extending it.
//!
//! Terms. A *volume* is one Delta table: the commits of one calendar year. A commit is a JSON file of
//! actions: `add` names a sealed file, `txn` records a position.
//!
//! Invariants. A commit holds the rows of a seal and the positions they lead to, or neither. A commit is
//! one durable, conditional write; when another wrote that version first, it fails, and the writer decides
//! whether it may follow. No commit or checkpoint is ever removed
//! (`enableExpiredLogCleanup` is off in the table and overridden here), no file is ever removed from the
//! table (`appendOnly`).
//!
//! A position is four or five `txn` actions, because the version of a `txn` is one 64-bit number: appId
//! `<partition>` has the next offset, `<partition>#records` the number of records, `<partition>#blake3.hi`
//! and `<partition>#blake3.lo` the halves of the hash, big-endian, as signed numbers. All four are always
//! written together, and for a partition of a broker `<partition>#broker`, its own number of the next message.
//! Partition names cannot hold a `#`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_schema::DataType as ArrowType;
use chrono::{DateTime, SecondsFormat, Utc};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, Add, ArrayType, DataType, StructField, Transaction};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use strongroom_schemas::Table;
use strongroom_schemas::record::Sha256Hash;
use strongroom_schemas::table::DATE;
use url::Url;

use crate::durable;
use crate::encode::time_column;
use crate::error::{ArchiveError, Result};
use crate::layout;
use crate::position::Position;
use crate::store::Store;
use crate::writer::SealedFile;

/// Commits between checkpoints. A checkpoint repeats the whole volume, so their sum grows with the square
/// of the commits; a reader without one reads every commit.
const CHECKPOINT_INTERVAL: &str = "100";

/// Commits read at once where each is a request.
const COMMITS_AT_ONCE: usize = 16;

/// Columns that commits carry statistics of.
pub(crate) const STATISTICS_SOURCE: &str = "source";
pub(crate) const STATISTICS_OFFSET: &str = "source_offset";

/// Tags of an `add`, see `docs/proof.md`. In a bucket: the version of the object that its lock protects.
pub(crate) const TAG_VERSION: &str = "version_id";
/// Hash of the file's bytes.
pub(crate) const TAG_SHA256: &str = "sha256";
/// Root over the records in the order of rows.
pub(crate) const TAG_RECORD_ROOT: &str = "record_root";
pub(crate) const TAG_ROWS: &str = "rows";
/// Source partition to least and greatest offset and number of rows, as JSON.
pub(crate) const TAG_OFFSETS: &str = "offsets";

const RECORDS: &str = "#records";
const HASH_HIGH: &str = "#blake3.hi";
const HASH_LOW: &str = "#blake3.lo";
const BROKER: &str = "#broker";
/// Longest partition name; it is written up to five times in every commit.
const PARTITION_BYTES_MAX: usize = 512;

/// What one commit adds to a volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addition {
    pub(crate) files: Vec<FileFacts>,
    pub(crate) positions: Vec<(String, Position)>,
    /// More fields of `commitInfo`.
    pub(crate) metadata: Map<String, Value>,
}

/// A sealed file and what its commit says of it.
#[derive(Clone, Debug)]
pub(crate) struct FileFacts {
    pub(crate) file: SealedFile,
    pub(crate) times: Option<(i64, i64)>,
    pub(crate) offsets: Option<(i64, i64)>,
    pub(crate) sources: Option<(String, String)>,
    /// Of each source partition the least and greatest offset, and the number of rows.
    pub(crate) spans: BTreeMap<String, (i64, i64, u64)>,
    pub(crate) sha256: Sha256Hash,
    /// Root over the records, unless their hashes were not given.
    pub(crate) record_root: Option<Sha256Hash>,
    /// In a bucket with versions: the one that the lock protects.
    pub(crate) version: Option<String>,
}

/// What a commit became.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) version: u64,
    /// Why the checkpoint that was due is missing. The commit holds all the same.
    pub(crate) checkpoint_failed: Option<String>,
}

/// An open volume.
#[derive(Debug)]
pub(crate) struct VolumeLog {
    table: Table,
    path: PathBuf,
    delta: DeltaTable,
}

/// The Delta table in `path`, not loaded yet. The library is given a store that begins at the volume, so
/// the path itself, with whatever characters it has, never becomes a URL.
fn delta_table(store: &Store, path: &Path) -> Result<DeltaTable> {
    let failed = |source| ArchiveError::OpenVolume { path: path.to_owned(), source: Box::new(source) };
    if let Store::Local = store {
        let root = path.parent().and_then(Path::parent).unwrap_or(path);
        durable::create_folder_in(root, path)?;
    }
    let store = store.delta(path).map_err(|source| failed(source.into()))?;
    let url = Url::parse("file:///").expect("a URL");
    DeltaTableBuilder::from_url(url.clone())
        .map_err(failed)?
        .with_storage_backend(store, url)
        .build()
        .map_err(failed)
}

/// Whether a volume has a commit. A folder without one is what a killed run left.
pub(crate) async fn exists(store: &Store, path: &Path) -> Result<bool> {
    match store {
        Store::Local => {
            let names = store.names(&layout::delta_log(path)).await?;
            Ok(names.iter().any(|name| layout::commit_version(name).is_some()))
        }
        // Commits are never removed, so the first one tells, without a list of all.
        Store::S3(_) => {
            let first = layout::commit(path, 0);
            store.exists(&first).await.map_err(|source| ArchiveError::ReadCommit { path: first, source })
        }
    }
}

/// Loads the newest version of a volume; `None` when it has no commit.
pub(crate) async fn load(store: &Store, path: &Path) -> Result<Option<DeltaTable>> {
    if !exists(store, path).await? {
        return Ok(None);
    }
    let mut delta = delta_table(store, path)?;
    delta
        .load()
        .await
        .map_err(|source| ArchiveError::OpenVolume { path: path.to_owned(), source: Box::new(source) })?;
    Ok(Some(delta))
}

impl VolumeLog {
    pub(crate) async fn open_or_create(store: &Store, table: Table, path: PathBuf) -> Result<VolumeLog> {
        let delta = match load(store, &path).await? {
            Some(delta) => delta,
            None => match create(store, table, &path).await {
                Ok(delta) => delta,
                // Another writer may have made it meanwhile; else the error holds.
                Err(error) => load(store, &path).await?.ok_or(error)?,
            },
        };
        Ok(VolumeLog { table, path, delta })
    }

    /// Version that the next commit follows.
    pub(crate) fn version(&self) -> Option<u64> {
        self.delta.version()
    }

    /// Takes in what other writers have committed.
    pub(crate) async fn reload(&mut self) -> Result<()> {
        self.delta
            .load()
            .await
            .map_err(|source| ArchiveError::OpenVolume { path: self.path.clone(), source: Box::new(source) })
    }

    /// Writes one commit. When this returns, it is durable.
    ///
    /// # Errors
    /// [`ArchiveError::CommitConflict`] when another writer has made a commit that this volume has not loaded.
    pub(crate) async fn commit(&mut self, addition: Addition, time: DateTime<Utc>) -> Result<Committed> {
        let failed = |source| match source {
            // No retries are allowed to the library: this is what it calls a version that exists.
            DeltaTableError::Transaction { source: TransactionError::MaxCommitAttempts(_) }
            | DeltaTableError::VersionAlreadyExists(_) => {
                ArchiveError::CommitConflict { path: self.path.clone() }
            }
            source => ArchiveError::Commit { path: self.path.clone(), source: Box::new(source) },
        };
        let actions = addition.files.iter().map(|facts| Action::Add(add(self.table, facts, time))).collect();
        let transactions =
            addition.positions.iter().flat_map(|(partition, position)| transactions(partition, position));
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(true)
            .with_cleanup_expired_logs(Some(false))
            .with_metadata(addition.metadata)
            .with_application_transactions(transactions.collect());
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec![DATE.to_owned()]),
            predicate: None,
        };
        let state = self.delta.snapshot().map_err(failed)?.clone();
        let prepared = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(&state), self.delta.log_store(), operation)
            .into_prepared_commit_future()
            .await
            .map_err(failed)?;
        let committed = prepared.await.map_err(failed)?;
        let version = committed.version;
        // From here on the commit exists, whatever becomes of the checkpoint.
        let checkpoint_failed = committed.await.err().map(|error| error.to_string());
        self.reload().await?;
        Ok(Committed { version, checkpoint_failed })
    }
}

async fn create(store: &Store, table: Table, path: &Path) -> Result<DeltaTable> {
    let failed = |source| ArchiveError::CreateVolume { path: path.to_owned(), source: Box::new(source) };
    let statistics = [time_column(table), STATISTICS_OFFSET, STATISTICS_SOURCE].join(",");
    let configuration = [
        ("delta.appendOnly", "true"),
        ("delta.enableExpiredLogCleanup", "false"),
        ("delta.checkpointInterval", CHECKPOINT_INTERVAL),
        // By default only the first 32 columns have statistics, and time is not among them.
        ("delta.dataSkippingStatsColumns", statistics.as_str()),
    ];
    let schema = table.file_schema();
    let columns = schema
        .fields()
        .iter()
        .map(|field| StructField::new(field.name(), delta_type(field.data_type()), true));
    CreateBuilder::new()
        .with_log_store(delta_table(store, path)?.log_store())
        .with_table_name(table.name())
        .with_columns(columns.chain([StructField::new(DATE, DataType::DATE, true)]))
        .with_partition_columns([DATE])
        .with_configuration(configuration.map(|(key, value)| (key, Some(value))))
        // With retries a table that another writer has just made would get its metadata a second time.
        .with_commit_properties(
            CommitProperties::default().with_max_retries(0).with_cleanup_expired_logs(Some(false)),
        )
        .await
        .map_err(failed)
}

fn delta_type(arrow: &ArrowType) -> DataType {
    match arrow {
        ArrowType::Utf8 => DataType::STRING,
        ArrowType::Binary => DataType::BINARY,
        ArrowType::Int32 => DataType::INTEGER,
        ArrowType::Int64 => DataType::LONG,
        ArrowType::Timestamp(..) => DataType::TIMESTAMP,
        ArrowType::List(item) => ArrayType::new(delta_type(item.data_type()), true).into(),
        // A new type of column has to be given its Delta type here; the test that creates every table sees to it.
        other => unreachable!("no column of ours is {other}"),
    }
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
        time_column(table),
        facts.times.and_then(|(min, max)| Some((timestamp(min)?.into(), timestamp(max)?.into()))),
    );
    bounds(STATISTICS_OFFSET, facts.offsets.map(|(min, max)| (min.into(), max.into())));
    bounds(STATISTICS_SOURCE, facts.sources.clone().map(|(min, max)| (min.into(), max.into())));
    let statistics = json!({ "numRecords": file.rows, "minValues": least, "maxValues": greatest });
    Add {
        path: format!("{folder}/{name}"),
        partition_values: HashMap::from([(DATE.to_owned(), Some(file.date.format("%Y-%m-%d").to_string()))]),
        size: file.bytes as i64,
        modification_time: time.timestamp_millis(),
        data_change: true,
        stats: Some(statistics.to_string()),
        tags: Some(tags(facts)),
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

/// What a commit lets others check of a file.
fn tags(facts: &FileFacts) -> HashMap<String, Option<String>> {
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

/// Time as Delta statistics have it; `None` for one that four digits of year cannot express. A file
/// without bounds is never pruned.
pub(crate) fn timestamp(micros: i64) -> Option<String> {
    let time = DateTime::from_timestamp_micros(micros)?;
    let text = time.to_rfc3339_opts(SecondsFormat::Micros, true);
    text.as_bytes().first()?.is_ascii_digit().then_some(text)
}

/// Inverse of [`timestamp`].
pub(crate) fn micros(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
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

fn transactions(partition: &str, position: &Position) -> impl Iterator<Item = Transaction> {
    let half = |at: usize| {
        i64::from_be_bytes(
            position.prefix_blake3[at..at + 8].try_into().expect("half of sixteen bytes is eight"),
        )
    };
    let transaction = |suffix: &str, version| Transaction::new(format!("{partition}{suffix}"), version);
    let always = [
        transaction("", position.next_offset),
        transaction(RECORDS, position.records),
        transaction(HASH_HIGH, half(0)),
        transaction(HASH_LOW, half(8)),
    ];
    always.into_iter().chain(position.broker_offset.map(|next| transaction(BROKER, next)))
}

/// Positions out of `txn` versions by appId.
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

/// What the log of a volume says of appIds.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// The newest `txn` version of every appId: that of the newest checkpoint and the commits after it.
    pub(crate) newest: HashMap<String, i64>,
    /// Version of the last commit.
    pub(crate) last: Option<u64>,
    /// How many commits there are, when none before the last one is missing.
    pub(crate) length: Option<u64>,
}

/// What a volume's newest checkpoint and the commits after it say.
///
/// Read here because the Delta library finds one appId at a time, each with a walk over the log; an
/// ingest of a thousand files would walk it four thousand times.
pub(crate) async fn transactions_of(store: &Store, volume: &Path) -> Result<Transactions> {
    let folder = layout::delta_log(volume);
    let names = store.names(&folder).await?;
    let mut transactions = HashMap::new();
    let checkpoint = names.iter().filter_map(|name| Some((layout::checkpoint_version(name)?, name))).max();
    if let Some((_, name)) = checkpoint {
        checkpoint_transactions(store, &folder.join(name), &mut transactions).await?;
    }
    let mut last = checkpoint.map(|(version, _)| version);
    let mut commits: Vec<(u64, &String)> =
        names.iter().filter_map(|name| Some((layout::commit_version(name)?, name))).collect();
    commits.sort_unstable();
    let is_whole = commits.iter().enumerate().all(|(at, (version, _))| at as u64 == *version);
    let length = is_whole.then_some(commits.len() as u64);
    commits.retain(|(version, _)| last.is_none_or(|after| *version > after));
    last = commits.last().map(|(version, _)| *version).or(last);
    let paths = commits.into_iter().map(|(_, name)| folder.join(name)).collect();
    for (_, lines) in read_commits(store, paths).await? {
        transactions.extend(transactions_in(lines));
    }
    Ok(Transactions { newest: transactions, last, length })
}

/// What the commits of a volume behind `after`, up to `last`, say of appIds.
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

fn transactions_in(lines: Vec<CommitLine>) -> impl Iterator<Item = (String, i64)> {
    lines.into_iter().filter_map(|line| line.txn).map(|txn| (txn.app_id, txn.version))
}

/// A line of a commit, as far as we read it ourselves.
#[derive(Debug, Deserialize)]
pub(crate) struct CommitLine {
    pub(crate) txn: Option<TxnLine>,
    pub(crate) add: Option<AddLine>,
    #[serde(rename = "commitInfo")]
    pub(crate) info: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TxnLine {
    pub(crate) app_id: String,
    pub(crate) version: i64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AddLine {
    pub(crate) path: String,
}

/// Commits of a volume, oldest first.
pub(crate) async fn commits(store: &Store, volume: &Path) -> Result<Vec<PathBuf>> {
    let folder = layout::delta_log(volume);
    let mut commits: Vec<(u64, PathBuf)> = store
        .names(&folder)
        .await?
        .iter()
        .filter_map(|name| Some((layout::commit_version(name)?, folder.join(name))))
        .collect();
    commits.sort_unstable();
    Ok(commits.into_iter().map(|(_, path)| path).collect())
}

/// Reads commits, some at once, and gives them in the order asked for.
pub(crate) async fn read_commits(
    store: &Store,
    paths: Vec<PathBuf>,
) -> Result<Vec<(PathBuf, Vec<CommitLine>)>> {
    let read = paths.into_iter().map(|path| {
        let store = store.clone();
        async move { read_commit(&store, &path).await.map(|lines| (path, lines)) }
    });
    stream::iter(read).buffered(COMMITS_AT_ONCE).try_collect().await
}

async fn read_commit(store: &Store, path: &Path) -> Result<Vec<CommitLine>> {
    let text = store.read_present(path).await;
    let text = text.map_err(|source| ArchiveError::ReadCommit { path: path.to_owned(), source })?;
    let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_slice(line).map_err(|source| ArchiveError::ParseCommit {
                path: path.to_owned(),
                line: number + 1,
                source,
            })
        })
        .collect()
}

async fn checkpoint_transactions(
    store: &Store,
    path: &Path,
    transactions: &mut HashMap<String, i64>,
) -> Result<()> {
    let undecodable = |source| ArchiveError::DecodeFile { path: path.to_owned(), source };
    let file = store.read_present(path).await;
    let file = file.map_err(|source| ArchiveError::ReadFile { path: path.to_owned(), source })?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(undecodable)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["txn.appId", "txn.version"]);
    for batch in builder.with_projection(mask).build().map_err(undecodable)? {
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
