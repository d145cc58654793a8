//! Checks Delta checkpoints against the commits.
//!
//! Delta checkpoints are not leaves of the signed log, because they only repeat the commits. But
//! every reader of Delta starts from a checkpoint. So a changed checkpoint would show readers
//! another content of the archive, even if every commit is as it was signed.
//!
//! Invariant: if a checkpoint states other files or positions than the commits up to its version,
//! there is a finding.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, StructArray};
use arrow_schema::{DataType, Fields};
use bytes::Bytes;
use serde_json::{Map, Value};
use strongroom_archive::delta::facts::{ADD_MEMBERS, CommitFacts, TAG_VERSION};
use strongroom_archive::site::Site;
use strongroom_parquet::{Batches, Fault, quietly};
use strongroom_schemas::VolumeId;
use strongroom_store::{durable, layout};

use super::{FindingKind, ProofError, Report};

const KIND: FindingKind = FindingKind::DeltaCheckpoint;
/// The file that names the newest Delta checkpoint, for readers that do not list the folder.
const LAST: &str = "_last_checkpoint";
/// Maximum number of differences reported for one checkpoint.
const TOLD_MAX: usize = 20;

/// What a checkpoint records about a data file.
#[derive(Debug, PartialEq)]
struct File {
    size: i64,
    date: Option<String>,
    version: Option<String>,
    rows: Option<u64>,
    least: Map<String, Value>,
    greatest: Map<String, Value>,
}

/// The content of a checkpoint.
#[derive(Debug, Default)]
struct Checkpoint {
    files: Vec<(String, File)>,
    txns: BTreeMap<String, i64>,
    removed: usize,
    /// `protocol` and `metaData` in the form of a commit, once for each occurrence.
    table: Vec<(&'static str, Value)>,
    /// Names of columns that have values in this checkpoint, although an archive never has values
    /// for them.
    strange: BTreeSet<String>,
}

/// The fields of `protocol` that decide what readers see.
const PROTOCOL: [&str; 4] = ["minReaderVersion", "minWriterVersion", "readerFeatures", "writerFeatures"];
/// The fields of `metaData` that decide what readers see. The other fields are names and times.
const METADATA: [&str; 5] = ["id", "format", "schemaString", "partitionColumns", "configuration"];
/// Columns of a checkpoint that may have values.
const ACTIONS: [&str; 5] = ["add", "remove", "txn", "protocol", "metaData"];

/// Checks every file in a volume's `_delta_log` that is not a commit. `names` were listed before
/// the commits were read.
pub(super) async fn check(
    site: &Site,
    log: VolumeId,
    names: Vec<String>,
    commits: &[CommitFacts],
    report: &mut Report,
) -> Result<(), ProofError> {
    let volume = site.volume(log);
    let folder = layout::delta_log(&volume);
    for name in names {
        let place = format!("{}/_delta_log/{name}", log.name());
        if layout::commit_version(&name).is_some() || durable::is_staging(&name) {
            continue;
        }
        let path = folder.join(&name);
        let version = layout::checkpoint_version(&name);
        if version.is_none() && name != LAST {
            report.find(KIND, place, "it is neither a commit nor a checkpoint, and readers may follow it");
            continue;
        }
        let bytes = super::read(site, &path).await?;
        let Some(version) = version else {
            let last = serde_json::from_slice::<Value>(&bytes).ok();
            let version = last.and_then(|last| last["version"].as_u64());
            // Other readers of Delta read the checkpoint that this file names, and fail if it does
            // not exist.
            let is_there = match version {
                Some(version) => {
                    !super::read(site, &folder.join(layout::checkpoint_name(version))).await?.is_empty()
                        && (version < commits.len() as u64
                            // A writer may have continued since the commits were read.
                            || !super::read(site, &layout::commit(&volume, version)).await?.is_empty())
                }
                None => false,
            };
            if !is_there {
                report.find(KIND, place, "it does not name an existing checkpoint of an existing commit");
            }
            continue;
        };
        let Some(commits) = usize::try_from(version).ok().and_then(|version| commits.get(..=version)) else {
            report.find(KIND, place, "its commit does not exist");
            continue;
        };
        match quietly(|| read_checkpoint(bytes)).unwrap_or_else(|| Err(Fault::Panicked.to_string())) {
            Ok(checkpoint) => compare(&checkpoint, commits, &place, report),
            Err(detail) => report.find(KIND, place, detail),
        }
    }
    Ok(())
}

fn compare(checkpoint: &Checkpoint, commits: &[CommitFacts], place: &str, report: &mut Report) {
    let mut told = 0;
    let mut find = |detail: String| {
        told += 1;
        if told <= TOLD_MAX {
            report.find(KIND, place, detail);
        }
    };
    if checkpoint.removed > 0 {
        find(format!("it removes {} files", checkpoint.removed));
    }
    for strange in &checkpoint.strange {
        find(format!("it has {strange:.80}, which commits of an archive never have"));
    }
    for (name, members) in [("protocol", &PROTOCOL[..]), ("metaData", &METADATA[..])] {
        let said: Vec<&Value> =
            checkpoint.table.iter().filter(|(action, _)| *action == name).map(|(_, said)| said).collect();
        let first = commits.first().and_then(|commit| commit.table.get(name));
        let same = |said: &&Value| members.iter().all(|member| said[*member] == plain(first, member));
        if said.len() != 1 || !said.iter().all(same) {
            find(format!("its {name} differs from the first commit"));
        }
    }
    let mut wanted = BTreeMap::new();
    let mut txns = BTreeMap::new();
    for commit in commits {
        for add in &commit.adds {
            let file = File {
                size: i64::try_from(add.size).unwrap_or(i64::MAX),
                date: add.date.map(|date| date.to_string()),
                version: add.version.clone(),
                rows: add.rows,
                least: add.least.clone(),
                greatest: add.greatest.clone(),
            };
            wanted.insert(add.path.as_str(), file);
        }
        txns.extend(commit.txns.iter().map(|(app_id, version)| (app_id.as_str(), *version)));
    }
    for (path, file) in &checkpoint.files {
        match wanted.remove(path.as_str()) {
            None => find(format!("it names {path:.200} twice, or no commit names that file")),
            Some(wanted) if wanted != *file => {
                find(format!("size, date, statistics or version of {path} differ from its commit"));
            }
            Some(_) => {}
        }
    }
    for path in wanted.keys() {
        find(format!("it omits {path}"));
    }
    let same = checkpoint.txns.iter().map(|(app_id, version)| (app_id.as_str(), *version)).eq(txns);
    if !same {
        find("its source positions differ from the commits".to_owned());
    }
}

/// Returns a member of an action, or null if it is absent or empty. For `format` this is the
/// provider.
fn plain(action: Option<&Value>, member: &str) -> Value {
    let mut value = action.map_or(Value::Null, |action| action[member].clone());
    if member == "format" {
        value = value["provider"].clone();
    }
    let is_empty =
        value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
    if is_empty { Value::Null } else { value }
}

fn read_checkpoint(bytes: Bytes) -> Result<Checkpoint, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("it cannot be read: {error:.200}");
    let batches = Batches::of_checkpoint(bytes).map_err(|error| wrong(&error))?;
    let mut checkpoint = Checkpoint::default();
    for batch in batches {
        let batch = batch.map_err(|error| wrong(&error))?;
        if let Some(name) = repeated(batch.schema().fields()) {
            return Err(format!("it has {name:.80} twice, and readers may take either"));
        }
        let action =
            |name: &str| batch.column_by_name(name).and_then(|column| column.as_struct_opt()).cloned();
        if let Some(removed) = batch.column_by_name("remove") {
            checkpoint.removed += removed.len() - removed.null_count();
        }
        if let Some(txns) = action("txn") {
            let (app_ids, versions) = (strings(&txns, "appId"), numbers(&txns, "version"));
            for row in (0..txns.len()).filter(|row| txns.is_valid(*row)) {
                let (Some(app_id), Some(version)) = (text(&app_ids, row), number(&versions, row)) else {
                    return Err("a txn without appId or version".to_owned());
                };
                if checkpoint.txns.insert(app_id, version).is_some() {
                    return Err("it has the position of a source twice".to_owned());
                }
            }
        }
        for (name, column) in batch.schema().fields().iter().map(|field| field.name()).zip(batch.columns()) {
            if !ACTIONS.contains(&name.as_str()) && column.null_count() < column.len() {
                checkpoint.strange.insert(name.clone());
            }
        }
        if let Some(protocol) = action("protocol") {
            let versions =
                ["minReaderVersion", "minWriterVersion"].map(|name| (name, numbers(&protocol, name)));
            for row in (0..protocol.len()).filter(|row| protocol.is_valid(*row)) {
                let mut said = Map::new();
                for (name, column) in &versions {
                    said.insert((*name).to_owned(), number(column, row).into());
                }
                for name in ["readerFeatures", "writerFeatures"] {
                    said.insert(name.to_owned(), list(&protocol, name, row));
                }
                checkpoint.table.push(("protocol", Value::Object(said)));
            }
        }
        if let Some(metadata) = action("metaData") {
            let texts = ["id", "schemaString"].map(|name| (name, strings(&metadata, name)));
            let format = metadata.column_by_name("format").and_then(|column| column.as_struct_opt());
            let provider = format.and_then(|format| strings(format, "provider"));
            for row in (0..metadata.len()).filter(|row| metadata.is_valid(*row)) {
                let mut said = Map::new();
                for (name, column) in &texts {
                    said.insert((*name).to_owned(), text(column, row).into());
                }
                said.insert("format".to_owned(), text(&provider, row).into());
                said.insert("partitionColumns".to_owned(), list(&metadata, "partitionColumns", row));
                let configuration: Map<String, Value> = map(&metadata, "configuration", row)
                    .into_iter()
                    .map(|(key, value)| (key, value.into()))
                    .collect();
                let configuration = if configuration.is_empty() { Value::Null } else { configuration.into() };
                said.insert("configuration".to_owned(), configuration);
                checkpoint.table.push(("metaData", Value::Object(said)));
            }
        }
        let Some(adds) = action("add") else { return Err("it has no column of files".to_owned()) };
        let (paths, sizes, stats) = (strings(&adds, "path"), numbers(&adds, "size"), strings(&adds, "stats"));
        for (name, column) in adds.column_names().into_iter().zip(adds.columns()) {
            let says = |row: &usize| adds.is_valid(*row) && column.is_valid(*row);
            if !ADD_MEMBERS.contains(&name) && (0..adds.len()).any(|row| says(&row)) {
                checkpoint.strange.insert(format!("{name} of a file"));
            }
        }
        for row in (0..adds.len()).filter(|row| adds.is_valid(*row)) {
            let (Some(path), Some(size)) = (text(&paths, row), number(&sizes, row)) else {
                return Err("a file without path or size".to_owned());
            };
            let stats = text(&stats, row).and_then(|stats| serde_json::from_str::<Value>(&stats).ok());
            let stats = stats.unwrap_or_default();
            let bounds = |name: &str| stats[name].as_object().cloned().unwrap_or_default();
            let file = File {
                size,
                date: of_map(&adds, "partitionValues", "date", row),
                version: of_map(&adds, "tags", TAG_VERSION, row),
                rows: stats["numRecords"].as_u64(),
                least: bounds("minValues"),
                greatest: bounds("maxValues"),
            };
            checkpoint.files.push((path, file));
        }
    }
    Ok(checkpoint)
}

/// A name that occurs twice among the fields, or among those in one of them.
fn repeated(fields: &Fields) -> Option<String> {
    let mut names = BTreeSet::new();
    fields.iter().find_map(|field| {
        let inner = match field.data_type() {
            DataType::Struct(fields) => repeated(fields),
            _ => None,
        };
        inner.or_else(|| (!names.insert(field.name())).then(|| field.name().clone()))
    })
}

fn cast(column: &ArrayRef, to: &DataType) -> Option<ArrayRef> {
    arrow_cast::cast(column, to).ok()
}

fn strings(actions: &StructArray, name: &str) -> Option<ArrayRef> {
    cast(actions.column_by_name(name)?, &DataType::Utf8)
}

fn numbers(actions: &StructArray, name: &str) -> Option<ArrayRef> {
    cast(actions.column_by_name(name)?, &DataType::Int64)
}

fn text(column: &Option<ArrayRef>, row: usize) -> Option<String> {
    let column = column.as_ref()?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn number(column: &Option<ArrayRef>, row: usize) -> Option<i64> {
    let column = column.as_ref()?.as_primitive_opt::<Int64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

/// Returns a row of the column `name`, whose rows are lists of strings, or null if it is absent or
/// empty.
fn list(actions: &StructArray, name: &str, row: usize) -> Value {
    let column = actions.column_by_name(name).and_then(|column| column.as_list_opt::<i32>());
    let Some(column) = column.filter(|column| column.is_valid(row)) else { return Value::Null };
    let values = cast(&column.value(row), &DataType::Utf8);
    let values: Vec<Value> = (0..column.value(row).len()).map(|at| text(&values, at).into()).collect();
    if values.is_empty() { Value::Null } else { values.into() }
}

/// Returns the entries in a row of the column `name`, whose rows are maps of strings.
fn map(actions: &StructArray, name: &str, row: usize) -> Vec<(String, Option<String>)> {
    let column = actions.column_by_name(name).and_then(|column| column.as_map_opt());
    let Some(column) = column.filter(|column| column.is_valid(row)) else { return Vec::new() };
    let entries = column.value(row);
    let (keys, values) = (cast(entries.column(0), &DataType::Utf8), cast(entries.column(1), &DataType::Utf8));
    (0..entries.len()).filter_map(|at| Some((text(&keys, at)?, text(&values, at)))).collect()
}

/// Returns the value of `key` in a row of the column `name`, whose rows are maps of strings.
fn of_map(actions: &StructArray, name: &str, key: &str, row: usize) -> Option<String> {
    map(actions, name, row).into_iter().find(|(known, _)| known == key)?.1
}
