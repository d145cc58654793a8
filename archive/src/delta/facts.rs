//! Parses what a commit of an archive says about its files and positions. All checks of commits use
//! this parser. Readers of the table use `delta::actions` instead, because they also accept commits
//! by other programs.
//!
//! Invariant: every line of a commit is parsed strictly before anything in the line is used. A line
//! with a fault is reported next to the facts, and parsing continues. So everything readable in a
//! damaged commit is still returned.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, SecondsFormat};
use serde_json::{Map, Value};
use strongroom_schemas::VolumeId;
use strongroom_schemas::record::{Sha256Hash as Hash, leaf_hash};
use strongroom_store::layout;

use crate::strict_json::Strict;

/// The column of the source. Commits state its bounds for each file.
pub const STATISTICS_SOURCE: &str = "source";
/// The column of the offset in the source. Commits state its bounds for each file.
pub const STATISTICS_OFFSET: &str = "source_offset";

/// Tag of an `add`, in a bucket: the version of the object that the lock protects. `docs/proof.md`
/// describes all five tags.
pub const TAG_VERSION: &str = "version_id";
/// Tag of an `add`: the hash of the file's bytes.
pub const TAG_SHA256: &str = "sha256";
/// Tag of an `add`: the Merkle root over the records in the order of rows.
pub const TAG_RECORD_ROOT: &str = "record_root";
/// Tag of an `add`: the number of rows.
pub const TAG_ROWS: &str = "rows";
/// Tag of an `add`: a map from source partition to least offset, greatest offset and number of
/// rows, as JSON.
pub const TAG_OFFSETS: &str = "offsets";

/// AppId of the only `txn` in a commit that closes its volume.
pub const CLOSED: &str = "#closed";
/// Name of the field of `commitInfo` that contains what an archive adds to it.
pub const METADATA: &str = "strongroom";
/// All members that an `add` of an archive may have. Other members that Delta defines, such as a
/// deletion vector, could change which rows of a file readers see.
pub const ADD_MEMBERS: [&str; 7] =
    ["path", "partitionValues", "size", "modificationTime", "dataChange", "stats", "tags"];
/// Maximum length of the id of an object's version.
const VERSION_BYTES_MAX: usize = 1024;
/// Actions that only the first commit of a volume may have.
const FIRST_ACTIONS: [&str; 2] = ["protocol", "metaData"];

/// The checked facts of a commit.
#[derive(Clone, Debug)]
pub struct CommitFacts {
    pub leaf: Hash,
    pub time_ms: Option<i64>,
    pub adds: Vec<AddFacts>,
    pub txns: BTreeMap<String, i64>,
    /// The `counts` in [`METADATA`]: received, events, rejects, duplicates.
    pub counts: Option<[u64; 4]>,
    /// Other volumes, each with a number of commits that it had when this commit was made. The
    /// volume must have at least that many.
    pub volumes: BTreeMap<VolumeId, u64>,
    /// Version of the columns of the commit's files, if stated.
    pub events_format: Option<i64>,
    /// `protocol` and `metaData`, which the first commit has.
    pub table: Map<String, Value>,
}

/// A file as its commit describes it.
#[derive(Clone, Debug, Default)]
pub struct AddFacts {
    /// Path relative to the folder of the volume.
    pub path: String,
    pub date: Option<NaiveDate>,
    pub size: u64,
    pub rows: Option<u64>,
    pub least: Map<String, Value>,
    pub greatest: Map<String, Value>,
    pub sha256: Option<Hash>,
    pub record_root: Option<Hash>,
    /// Map from partition to least offset, greatest offset and number of rows; `None` for a file
    /// that was written before this tag was introduced.
    pub offsets: Option<BTreeMap<String, (i64, i64, u64)>>,
    pub version: Option<String>,
}

/// What is wrong with a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitFault {
    pub kind: FaultKind,
    /// Line of the commit, counted from 1; `None` if the fault is in the commit as a whole.
    pub line: Option<usize>,
    pub detail: String,
}

/// In which way a commit is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A line is not JSON of the form that commits have.
    Malformed,
    /// The commit has an action that an append-only table never has.
    NotAppendOnly,
    /// The statistics of a file contradict its path.
    Statistics,
    /// The tags of a file are incomplete, or contradict it.
    Tags,
}

/// Returns the facts that can be read of a commit; its faults are left out.
pub fn parse_commit(bytes: &[u8]) -> CommitFacts {
    parse(bytes, true).0
}

/// Like [`parse_commit`], but a file with a fault is listed too, with the facts that could be read.
pub fn parse_with_all_files(bytes: &[u8]) -> CommitFacts {
    let mut commit = parse_commit(bytes);
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Value>(line) else { continue };
        let add = &line["add"];
        let Some(path) = add["path"].as_str() else { continue };
        let Some((date, _)) = layout::split_data_path(path) else { continue };
        if commit.adds.iter().any(|known| known.path == path) {
            continue;
        }
        commit.adds.push(AddFacts {
            path: path.to_owned(),
            date: Some(date),
            size: add["size"].as_u64().unwrap_or(0),
            version: add["tags"][TAG_VERSION].as_str().map(str::to_owned),
            ..AddFacts::default()
        });
    }
    commit
}

/// Returns the facts of a commit and its faults. A part that cannot be read becomes a fault, and
/// the rest is used. `first` is true for the first commit of a volume, the only commit that may
/// describe the table.
pub fn parse(bytes: &[u8], first: bool) -> (CommitFacts, Vec<CommitFault>) {
    let mut faults = Vec::new();
    let mut commit = CommitFacts {
        leaf: leaf_hash(bytes),
        time_ms: None,
        adds: Vec::new(),
        txns: BTreeMap::new(),
        counts: None,
        volumes: BTreeMap::new(),
        events_format: None,
        table: Map::new(),
    };
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty())
    {
        let mut fault = |kind, detail: String| {
            faults.push(CommitFault { kind, line: Some(number + 1), detail });
        };
        let Ok(Strict(Value::Object(line))) = serde_json::from_slice(line) else {
            fault(FaultKind::Malformed, "not a JSON object, or it repeats a name".to_owned());
            continue;
        };
        if line.len() != 1 {
            fault(FaultKind::Malformed, "not exactly one action".to_owned());
        }
        for (action, value) in &line {
            match action.as_str() {
                "add" => match add(value) {
                    Ok(add) => commit.adds.push(add),
                    Err((kind, detail)) => fault(kind, detail),
                },
                "txn" => match (value["appId"].as_str(), value["version"].as_i64()) {
                    (Some(app_id), Some(version)) => _ = commit.txns.insert(app_id.to_owned(), version),
                    _ => fault(FaultKind::Malformed, "a txn without appId or version".to_owned()),
                },
                "commitInfo" => {
                    commit.time_ms = value["timestamp"].as_i64();
                    commit.events_format = value[METADATA]["eventsFormat"].as_i64();
                    let counts = &value[METADATA]["counts"];
                    let count = |name: &str| counts[name].as_u64();
                    if let (Some(received), Some(events), Some(rejects), Some(duplicates)) =
                        (count("received"), count("events"), count("rejects"), count("duplicates"))
                    {
                        commit.counts = Some([received, events, rejects, duplicates]);
                    }
                    match volumes(&value[METADATA]["volumes"]) {
                        Some(volumes) => commit.volumes = volumes,
                        None => {
                            fault(FaultKind::Malformed, "`volumes` does not map volumes to sizes".to_owned())
                        }
                    }
                }
                name if first && FIRST_ACTIONS.contains(&name) => {
                    if commit.table.insert(name.to_owned(), value.clone()).is_some() {
                        fault(FaultKind::Malformed, format!("a second {name}"));
                    }
                }
                name => {
                    let detail = format!("an action that an archive never has: {:.40}", name);
                    fault(FaultKind::NotAppendOnly, detail);
                }
            }
        }
    }
    if commit.time_ms.is_none() {
        let detail = "its time is missing".to_owned();
        faults.push(CommitFault { kind: FaultKind::Malformed, line: None, detail });
    }
    (commit, faults)
}

fn volumes(value: &Value) -> Option<BTreeMap<VolumeId, u64>> {
    match value {
        Value::Null => Some(BTreeMap::new()),
        Value::Object(volumes) => {
            let sizes = volumes
                .iter()
                .map(|(name, size)| Some((VolumeId::parse(name)?, size.as_u64().filter(|size| *size > 0)?)));
            sizes.collect()
        }
        _ => None,
    }
}

fn add(value: &Value) -> Result<AddFacts, (FaultKind, String)> {
    let malformed = |detail: &str| (FaultKind::Malformed, detail.to_owned());
    let path = value["path"].as_str().ok_or_else(|| malformed("an add without a path"))?;
    let members = value.as_object().into_iter().flatten();
    let strange = members.filter(|(name, value)| !value.is_null() && !ADD_MEMBERS.contains(&name.as_str()));
    if let Some((name, _)) = strange.into_iter().next() {
        return Err(malformed(&format!("an add has {name:.40}, which no file of an archive has")));
    }
    let (date, _) = layout::split_data_path(path)
        .ok_or_else(|| malformed("an add whose path is not that of a sealed file"))?;
    if value["partitionValues"]["date"].as_str() != Some(&date.to_string()) {
        return Err((FaultKind::Statistics, format!("{path}: partitionValues has another date")));
    }
    let size = value["size"].as_u64().ok_or_else(|| malformed("an add without a size"))?;
    let stats = value["stats"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let stats = stats.unwrap_or_default();
    let bounds = |name: &str| stats[name].as_object().cloned().unwrap_or_default();
    let tags = &value["tags"];
    let tag = |name: &str| tags[name].as_str();
    let is_version =
        |text: &str| text.len() <= VERSION_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !tag(TAG_VERSION).is_none_or(is_version) {
        return Err(malformed("an add whose version_id is not valid"));
    }
    let mut facts = AddFacts {
        path: path.to_owned(),
        date: Some(date),
        size,
        rows: stats["numRecords"].as_u64(),
        least: bounds("minValues"),
        greatest: bounds("maxValues"),
        version: tag(TAG_VERSION).map(str::to_owned),
        ..AddFacts::default()
    };
    let wrong = |detail: &str| (FaultKind::Tags, format!("{path}: {detail}"));
    let hash = |name: &str| match tag(name) {
        Some(text) => Hash::parse(text).map(Some).ok_or_else(|| wrong(&format!("{name} is not a hash"))),
        None => Ok(None),
    };
    (facts.sha256, facts.record_root) = (hash(TAG_SHA256)?, hash(TAG_RECORD_ROOT)?);
    // A file that was written before these tags were introduced has none of them.
    let ours = [TAG_RECORD_ROOT, TAG_ROWS, TAG_OFFSETS];
    if ours.iter().any(|name| !tags[*name].is_null())
        && ours.iter().chain([&TAG_SHA256]).any(|name| tag(name).is_none())
    {
        return Err(wrong("some of its tags are missing"));
    }
    if let Some(rows) = tag(TAG_ROWS)
        && facts.rows.map(|rows| rows.to_string()).as_deref() != Some(rows)
    {
        return Err(wrong("the tag rows differs from numRecords"));
    }
    if let Some(text) = tag(TAG_OFFSETS) {
        let offsets: BTreeMap<String, (i64, i64, u64)> =
            serde_json::from_str(text).map_err(|_| wrong("offsets cannot be read"))?;
        if offsets.values().any(|(first, last, rows)| first > last || *rows == 0)
            || offsets.values().map(|(.., rows)| rows).sum::<u64>() > facts.rows.unwrap_or(0)
        {
            return Err(wrong("offsets contradict each other or rows"));
        }
        facts.offsets = Some(offsets);
    }
    Ok(facts)
}

/// Returns a time in the format of Delta statistics; `None` if its year does not have four digits.
/// A file with such a time has no bounds for its times, so readers never skip the file because of
/// its times.
pub fn timestamp(micros: i64) -> Option<String> {
    let time = DateTime::from_timestamp_micros(micros)?;
    let text = time.to_rfc3339_opts(SecondsFormat::Micros, true);
    text.as_bytes().first()?.is_ascii_digit().then_some(text)
}

/// Inverse of [`timestamp`].
pub fn micros(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}
