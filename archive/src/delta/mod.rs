//! The part of the Delta Lake protocol that an archive uses: reader version 1, writer version 2,
//! append-only.
//!
//! Terms. The *log* of a Delta table is the folder `_delta_log`: commit *n* is a file of JSON
//! actions, one per line. A *checkpoint* of version *n* is a Parquet file that repeats the content
//! of commits 0 … *n*, so that a reader need not read them. The *state* is the sum of checkpoint
//! and commits: files, positions, the table's metadata.
//!
//! Invariants. A state includes every commit: the commits after the checkpoint are read one by one,
//! and if a commit is missing although a later commit exists, that is an error and the gap is not
//! skipped. Anything that this program does not understand (a newer reader version, a deletion
//! vector) is also an error, because ignoring it could show rows that were removed, or hide rows
//! that exist.
//!
//! A Delta library is not used: it would add as many crates as a second query engine, and it writes
//! through its own object store interface, which can neither lock an object nor sync a folder. This
//! module implements the part of the protocol that an append-only table needs. Seven other readers
//! of Delta check what it writes (`tests/it/outsiders.rs`).

pub(crate) mod checkpoint;
pub mod commit;
pub mod facts;
pub(crate) mod snapshot;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use arrow_schema::DataType;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use strongroom_schemas::Table;
use strongroom_schemas::table::DATE;
use strongroom_store::{Store, layout};

use crate::error::DeltaError;

/// Newest version of the protocol that this program reads.
const READER_VERSION: u32 = 1;
/// Lowest version that supports `delta.appendOnly`.
const WRITER_VERSION: u32 = 2;
/// Maximum number of commits that are read at the same time. In a bucket, each is a request.
const COMMITS_AT_ONCE: usize = 16;
/// The name in `commitInfo` of the program that wrote a commit.
const ENGINE: &str = concat!("strongroom/", env!("CARGO_PKG_VERSION"));

/// A file of the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Add {
    /// Relative to the table's folder.
    pub(crate) path: String,
    pub(crate) partition_values: BTreeMap<String, Option<String>>,
    /// Bytes.
    pub(crate) size: i64,
    /// Milliseconds since 1970.
    pub(crate) modification_time: i64,
    pub(crate) data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stats: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<BTreeMap<String, Option<String>>>,
    /// Never written. It is read so that a table that has deletion vectors can be refused.
    #[serde(skip_serializing)]
    pub(crate) deletion_vector: Option<serde::de::IgnoredAny>,
}

/// A `txn` action: in Delta, it records the progress of an application. An archive uses it for the
/// positions of its sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub(crate) app_id: String,
    pub(crate) version: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub(crate) min_reader_version: u32,
    pub(crate) min_writer_version: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) provider: String,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    pub(crate) format: Format,
    pub(crate) schema_string: String,
    pub(crate) partition_columns: Vec<String>,
    #[serde(default)]
    pub(crate) configuration: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created_time: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Removed {
    path: String,
}

/// The fields of a commit line that a reader needs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    pub(crate) add: Option<Add>,
    remove: Option<Removed>,
    pub(crate) txn: Option<Txn>,
    protocol: Option<Protocol>,
    meta_data: Option<Metadata>,
    pub(crate) commit_info: Option<Map<String, Value>>,
}

/// The state of a table at one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) version: u64,
    /// In the order of their commits.
    pub(crate) files: Vec<Add>,
    /// The newest version of each `txn`.
    pub(crate) txns: BTreeMap<String, i64>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) metadata: Option<Metadata>,
    /// Version of the newest checkpoint found when the log was listed, or written since.
    pub(crate) checkpoint: Option<u64>,
}

/// The names in a table's log, grouped by kind.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Versions of the checkpoints that are one file with a classic name, in ascending order.
    pub(crate) checkpoints: Vec<u64>,
    /// Versions of the commits, in ascending order.
    pub(crate) commits: Vec<u64>,
}

/// Whether a name in the folder of a log is that of a commit or a checkpoint of an archive.
pub(crate) fn is_of_log(name: &str) -> bool {
    layout::commit_version(name).is_some() || layout::checkpoint_version(name).is_some()
}

impl Listing {
    pub(crate) fn of(names: &[String]) -> Listing {
        let mut listing = Listing {
            checkpoints: names.iter().filter_map(|name| layout::checkpoint_version(name)).collect(),
            commits: names.iter().filter_map(|name| layout::commit_version(name)).collect(),
        };
        listing.checkpoints.sort_unstable();
        listing.commits.sort_unstable();
        listing
    }
}

impl State {
    /// Returns the newest state of the table in `volume`; `None` if its log has neither a commit
    /// nor a checkpoint.
    pub(crate) async fn load(store: &Store, volume: &Path) -> Result<Option<State>, DeltaError> {
        let folder = layout::delta_log(volume);
        let names = store.names_unchanged(&folder, is_of_log).await;
        let names = names.map_err(|source| DeltaError::List(Box::new(source)))?;
        let listing = Listing::of(&names);
        let mut state = State::default();
        let mut next = 0;
        if let Some(version) = listing.checkpoints.last().copied() {
            let name = layout::checkpoint_name(version);
            let bytes = read(store, &folder, &name).await?;
            state = checkpoint::read(bytes, version)?;
            next = version + 1;
        }
        let commits: Vec<u64> = listing.commits.iter().copied().filter(|version| *version >= next).collect();
        let whole = commits.iter().zip(next..).take_while(|(version, wanted)| *version == wanted).count();
        if whole < commits.len() {
            return Err(DeltaError::Gap { missing: next + whole as u64 });
        }
        if commits.is_empty() && next == 0 {
            return Ok(None);
        }
        let texts = commits.into_iter().map(|version| {
            let (store, folder) = (store.clone(), folder.clone());
            async move {
                let bytes = read(&store, &folder, &layout::commit_name(version)).await?;
                Ok::<_, DeltaError>((version, bytes))
            }
        });
        let mut texts = stream::iter(texts).buffered(COMMITS_AT_ONCE);
        while let Some((version, bytes)) = texts.try_next().await? {
            state.take(version, &bytes)?;
        }
        state.check()?;
        Ok(Some(state))
    }

    /// Applies the commits that were written since this state was loaded, and returns their number.
    pub(crate) async fn follow(&mut self, store: &Store, volume: &Path) -> Result<u64, DeltaError> {
        let before = self.version;
        loop {
            let version = self.version + 1;
            let path = layout::commit(volume, version);
            let name = layout::commit_name(version);
            match store.read(&path).await.map_err(|source| DeltaError::Read { name, source })? {
                Some(bytes) => self.take(version, &bytes)?,
                None => return self.check().map(|()| self.version - before),
            }
        }
    }

    /// Applies the commit that follows this state.
    pub(crate) fn take(&mut self, version: u64, text: &[u8]) -> Result<(), DeltaError> {
        let mut removed = HashSet::new();
        let mut added = Vec::new();
        for line in actions(text) {
            let line = line.map_err(|(line, source)| DeltaError::Action { version, line, source })?;
            added.extend(line.add);
            removed.extend(line.remove.map(|removed| removed.path));
            if let Some(Txn { app_id, version }) = line.txn {
                self.txns.insert(app_id, version);
            }
            self.protocol = line.protocol.or(self.protocol.take());
            self.metadata = line.meta_data.or(self.metadata.take());
        }
        // Our commits never remove a file. A removal by another program is applied, as every reader
        // of Delta applies it.
        if !removed.is_empty() {
            self.files.retain(|file| !removed.contains(&file.path));
        }
        self.files.append(&mut added);
        self.version = version;
        Ok(())
    }

    /// Returns an error for a table that this program would misread.
    fn check(&self) -> Result<(), DeltaError> {
        let protocol = self.protocol.as_ref().ok_or(DeltaError::Incomplete { what: "protocol" })?;
        if protocol.min_reader_version > READER_VERSION {
            return Err(DeltaError::ReaderVersion {
                version: protocol.min_reader_version,
                known: READER_VERSION,
            });
        }
        if self.metadata.is_none() {
            return Err(DeltaError::Incomplete { what: "metaData" });
        }
        match self.files.iter().find(|file| file.deletion_vector.is_some()) {
            Some(file) => Err(DeltaError::DeletionVector { path: file.path.clone() }),
            None => Ok(()),
        }
    }
}

/// Returns the actions of a commit, for readers of the table. A line that is not an action is
/// returned as an error with the number of the line, counted from 1.
pub(crate) fn actions(commit: &[u8]) -> impl Iterator<Item = Result<Line, (usize, serde_json::Error)>> + '_ {
    let lines = commit.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines.map(|(number, line)| serde_json::from_slice(line).map_err(|source| (number + 1, source)))
}

async fn read(store: &Store, folder: &Path, name: &str) -> Result<bytes::Bytes, DeltaError> {
    let read = store.read_present(&folder.join(name)).await;
    read.map_err(|source| DeltaError::Read { name: name.to_owned(), source })
}

/// Returns the text of a commit that appends files.
pub(crate) fn append_text(files: &[Add], txns: &[Txn], info: Map<String, Value>, time_ms: i64) -> Vec<u8> {
    let parameters = json!({ "mode": "Append", "partitionBy": json!([DATE]).to_string() });
    let mut lines = vec![commit_info("WRITE", parameters, info, time_ms)];
    lines.extend(txns.iter().map(|txn| json!({ "txn": txn })));
    lines.extend(files.iter().map(|file| json!({ "add": file })));
    text_of(&lines)
}

/// Returns the text of the commit that creates a table.
pub(crate) fn create_text(
    table: Table,
    id: String,
    configuration: &[(&str, &str)],
    info: Map<String, Value>,
    time_ms: i64,
) -> Vec<u8> {
    let schema = table.file_schema();
    let columns = schema.fields().iter().map(|field| column(field.name(), delta_type(field.data_type())));
    let columns: Vec<Value> = columns.chain([column(DATE, "date".into())]).collect();
    let metadata = Metadata {
        id,
        name: Some(table.name().to_owned()),
        description: None,
        format: Format { provider: "parquet".to_owned(), options: BTreeMap::new() },
        schema_string: json!({ "type": "struct", "fields": columns }).to_string(),
        partition_columns: vec![DATE.to_owned()],
        configuration: configuration.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        created_time: Some(time_ms),
    };
    let protocol = Protocol { min_reader_version: READER_VERSION, min_writer_version: WRITER_VERSION };
    let parameters = json!({ "mode": "ErrorIfExists" });
    text_of(&[
        commit_info("CREATE TABLE", parameters, info, time_ms),
        json!({ "protocol": protocol }),
        json!({ "metaData": metadata }),
    ])
}

fn commit_info(operation: &str, parameters: Value, info: Map<String, Value>, time_ms: i64) -> Value {
    let mut said = info;
    said.insert("timestamp".to_owned(), time_ms.into());
    said.insert("operation".to_owned(), operation.into());
    said.insert("operationParameters".to_owned(), parameters);
    said.insert("engineInfo".to_owned(), ENGINE.into());
    json!({ "commitInfo": said })
}

fn text_of(lines: &[Value]) -> Vec<u8> {
    lines.iter().flat_map(|line| (line.to_string() + "\n").into_bytes()).collect()
}

fn column(name: &str, of: Value) -> Value {
    json!({ "name": name, "type": of, "nullable": true, "metadata": {} })
}

fn delta_type(arrow: &DataType) -> Value {
    match arrow {
        DataType::Utf8 => "string".into(),
        DataType::Binary => "binary".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "long".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::List(item) => {
            json!({ "type": "array", "elementType": delta_type(item.data_type()), "containsNull": true })
        }
        // The Delta type of a new column type must be added here; the test that creates every table
        // checks this.
        other => unreachable!("no column of our schemas has type {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Add {
        Add {
            path: format!("date=2026-03-02/{name}.parquet"),
            partition_values: BTreeMap::from([(DATE.to_owned(), Some("2026-03-02".to_owned()))]),
            size: 4711,
            modification_time: 1_772_452_800_000,
            data_change: true,
            stats: Some(r#"{"numRecords":3}"#.to_owned()),
            tags: Some(BTreeMap::from([
                ("sha256".to_owned(), Some("00".repeat(32))),
                ("version_id".to_owned(), None),
            ])),
            ..Add::default()
        }
    }

    fn txn(app_id: &str, version: i64) -> Txn {
        Txn { app_id: app_id.to_owned(), version }
    }

    fn state(commits: u64) -> State {
        let mut state = State::default();
        let text =
            create_text(Table::Events, "an-id".to_owned(), &[("delta.appendOnly", "true")], Map::new(), 1);
        state.take(0, &text).expect("a commit");
        for version in 1..commits {
            let files = [file(&format!("a{version}")), file(&format!("b{version}"))];
            let txns = [txn("file/x", version as i64 * 10), txn("file/x#records", version as i64)];
            state.take(version, &append_text(&files, &txns, Map::new(), 2)).expect("a commit");
        }
        state
    }

    #[test]
    fn a_checkpoint_says_what_the_commits_say() {
        for commits in [1, 2, 40] {
            let wanted = state(commits);
            let bytes = checkpoint::encode(&wanted).expect("encodes");
            let mut found = checkpoint::read(bytes.into(), wanted.version).expect("decodes");
            assert_eq!(found.checkpoint.take(), Some(commits - 1));
            assert_eq!(found, wanted);
            found.check().expect("readable");
            assert_eq!(found.files.len() as u64, 2 * (commits - 1));
        }
    }

    #[test]
    fn what_would_be_misread_is_refused() {
        let mut newer = state(2);
        newer.take(2, br#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7}}"#).expect("a commit");
        assert!(matches!(newer.check(), Err(DeltaError::ReaderVersion { version: 3, .. })));
        let mut hidden = state(2);
        let vector = r#"{"storageType":"u","pathOrInlineDv":"x","sizeInBytes":1,"cardinality":1}"#;
        let line = format!(
            r#"{{"add":{{"path":"p","partitionValues":{{}},"size":1,"modificationTime":1,"dataChange":true,"deletionVector":{vector}}}}}"#
        );
        hidden.take(2, line.as_bytes()).expect("a commit");
        assert!(matches!(hidden.check(), Err(DeltaError::DeletionVector { .. })));
        let broken = state(2).take(2, b"{\"add\":").expect_err("not JSON");
        assert!(matches!(broken, DeltaError::Action { version: 2, line: 1, .. }));
        assert!(State::default().check().is_err());
        for bytes in [&b""[..], b"PAR1", &[0; 100]] {
            let read = checkpoint::read(bytes::Bytes::copy_from_slice(bytes), 1);
            assert!(matches!(read, Err(DeltaError::Checkpoint { version: 1, .. })));
        }
    }

    #[test]
    fn a_removed_file_is_gone_until_it_is_added_again() {
        let mut state = state(3);
        let path = state.files[0].path.clone();
        let remove = json!({ "remove": { "path": path, "dataChange": true } });
        state.take(3, &text_of(&[remove])).expect("a commit");
        assert!(state.files.iter().all(|file| file.path != path));
        assert_eq!(state.files.len(), 3);
    }
}
