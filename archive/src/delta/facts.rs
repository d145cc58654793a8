//! Parses what a commit of an archive says about its files and positions. All checks of commits use
//! this parser. Readers of the table use `delta::actions` instead, because they also accept commits
//! by other programs.
//!
//! Invariant: every line of a commit is parsed strictly before anything in the line is used. A line
//! with a fault is reported next to the facts, and parsing continues. So everything readable in a
//! damaged commit is still returned.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, NaiveDate, SecondsFormat};
use serde_json::{Map, Value};
use strongroom_schemas::record::{Sha256Hash as Hash, leaf_hash};
use strongroom_schemas::{Table, VolumeId};
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
/// Maximum number of digits of the tag `rows`.
const ROWS_DIGITS_MAX: usize = 19;
/// The first time whose year has five digits.
const TIME_MS_END: i64 = 253_402_300_800_000;
/// Actions that only the first commit has.
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
    /// Whether `commitInfo` has our part.
    pub is_ours: bool,
    /// Other volumes, each with the minimum number of commits that it had when this commit was
    /// made.
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
    /// Whether something in it is wrong. What could not be read is absent.
    pub is_faulty: bool,
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

/// The facts that can be read of a commit; its faults are left out, and files with faults.
pub fn parse_commit(bytes: &[u8]) -> CommitFacts {
    let mut commit = parse(bytes, true, None).0;
    commit.adds.retain(|add| !add.is_faulty);
    commit
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

/// Returns what a commit of `table` says, and what is wrong with it. A part that cannot be read
/// becomes a fault, and the rest is used. `first` is true for the first commit of a volume, the only
/// one that may describe the table.
pub fn parse(bytes: &[u8], first: bool, table: Option<Table>) -> (CommitFacts, Vec<CommitFault>) {
    let mut faults = Vec::new();
    let mut commit = CommitFacts {
        leaf: leaf_hash(bytes),
        time_ms: None,
        adds: Vec::new(),
        txns: BTreeMap::new(),
        counts: None,
        is_ours: false,
        volumes: BTreeMap::new(),
        events_format: None,
        table: Map::new(),
    };
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty())
    {
        let mut fault = |kind, detail: String| {
            faults.push(CommitFault { kind, line: Some(number + 1), detail });
        };
        let action = match serde_json::from_slice(line) {
            Ok(Strict(Value::Object(line))) if line.len() == 1 => line.into_iter().next(),
            Ok(_) => None,
            Err(_) => {
                fault(FaultKind::Malformed, "not JSON, or it repeats a name".to_owned());
                continue;
            }
        };
        let Some((action, value @ Value::Object(_))) = action else {
            fault(FaultKind::Malformed, "not an object of exactly one action".to_owned());
            continue;
        };
        match action.as_str() {
            "add" => match add(&value, table, &mut fault) {
                Ok(add) => commit.adds.push(add),
                Err(detail) => fault(FaultKind::Malformed, detail),
            },
            "txn" => match (value["appId"].as_str(), value["version"].as_i64()) {
                (Some(app_id), Some(version)) if !commit.txns.contains_key(app_id) => {
                    commit.txns.insert(app_id.to_owned(), version);
                }
                _ => fault(FaultKind::Malformed, "a txn without appId or version, or twice".to_owned()),
            },
            "commitInfo" => {
                if let Err(detail) = info(&value, &mut commit) {
                    fault(FaultKind::Malformed, detail.to_owned());
                }
            }
            name if FIRST_ACTIONS.contains(&name) => {
                if commit.table.insert(name.to_owned(), value).is_some() {
                    fault(FaultKind::Malformed, format!("a second {name}"));
                } else if !first {
                    fault(FaultKind::NotAppendOnly, format!("a {name} that is not in the first commit"));
                }
            }
            name => {
                let detail = format!("an action that an archive never has: {:.40}", name);
                fault(FaultKind::NotAppendOnly, detail);
            }
        }
    }
    if commit.time_ms.is_none() {
        let detail = "its time is missing".to_owned();
        faults.push(CommitFault { kind: FaultKind::Malformed, line: None, detail });
    }
    (commit, faults)
}

/// Takes what `commitInfo` says, or returns what is wrong with it.
fn info(value: &Value, commit: &mut CommitFacts) -> Result<(), &'static str> {
    let time = value["timestamp"].as_i64().filter(|time| (0..TIME_MS_END).contains(time));
    if commit.time_ms.is_some() {
        return Err("a second commitInfo");
    }
    commit.time_ms = Some(time.ok_or("a commitInfo without a time")?);
    let ours = &value[METADATA];
    commit.is_ours = !ours.is_null();
    commit.events_format = ours["eventsFormat"].as_i64();
    let count = |name: &str| ours["counts"][name].as_u64();
    commit.counts = count("received")
        .zip(count("events"))
        .zip(count("rejects").zip(count("duplicates")))
        .map(|((received, events), (rejects, duplicates))| [received, events, rejects, duplicates]);
    commit.volumes = volumes(&ours["volumes"]).ok_or("`volumes` does not map volumes to sizes")?;
    Ok(())
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

/// What an `add` says. Without a path, a size or members that only our files have, there is nothing
/// to use; other faults are reported to `fault`, and what they are about is absent.
fn add(
    value: &Value,
    table: Option<Table>,
    fault: &mut dyn FnMut(FaultKind, String),
) -> Result<AddFacts, String> {
    let path = value["path"].as_str().ok_or("an add without a path")?;
    let members = value.as_object().into_iter().flatten();
    let strange = members.filter(|(name, value)| !value.is_null() && !ADD_MEMBERS.contains(&name.as_str()));
    if let Some((name, _)) = strange.into_iter().next() {
        return Err(format!("an add has {name:.40}, which no file of an archive has"));
    }
    let split =
        layout::split_data_path(path).filter(|(date, name)| date.year() >= 1 && layout::is_file_name(name));
    let (date, _) = split.ok_or("an add whose path is not that of a sealed file")?;
    let size = value["size"].as_u64().ok_or("an add without a size")?;
    let tags = &value["tags"];
    let version = tags[TAG_VERSION].as_str();
    let is_version =
        |text: &str| text.len() <= VERSION_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !version.is_none_or(is_version) {
        return Err("an add whose version_id is not valid".to_owned());
    }
    let mut facts = AddFacts {
        path: path.to_owned(),
        date: Some(date),
        size,
        version: version.filter(|version| !version.is_empty()).map(str::to_owned),
        ..AddFacts::default()
    };
    let mut wrong = |facts: &mut AddFacts, kind, detail: &str| {
        facts.is_faulty = true;
        fault(kind, format!("{path}: {detail}"));
    };
    if value["partitionValues"]["date"].as_str() != Some(&date.to_string()) {
        wrong(&mut facts, FaultKind::Statistics, "partitionValues has another date");
    }
    match statistics(&value["stats"]) {
        Some((rows, least, greatest)) => {
            (facts.rows, facts.least, facts.greatest) = (Some(rows), least, greatest);
        }
        None => wrong(&mut facts, FaultKind::Statistics, "its statistics cannot be read"),
    }
    if let Err(detail) = take_tags(tags, table, &mut facts) {
        wrong(&mut facts, FaultKind::Tags, detail);
    }
    Ok(facts)
}

/// Values of columns, by their names.
type Values = Map<String, Value>;

/// Returns the number of rows, and the least and the greatest values, in a text of statistics.
fn statistics(text: &Value) -> Option<(u64, Values, Values)> {
    let Strict(stats) = serde_json::from_str(text.as_str()?).ok()?;
    let bounds = |name: &str| match stats.get(name) {
        None => Some(Map::new()),
        Some(bounds) => bounds.as_object().cloned(),
    };
    Some((stats.as_object()?.get("numRecords")?.as_u64()?, bounds("minValues")?, bounds("maxValues")?))
}

/// Takes what the tags of a file say. A file that is older than our tags has none of them.
fn take_tags(tags: &Value, table: Option<Table>, facts: &mut AddFacts) -> Result<(), &'static str> {
    let none = Map::new();
    let tags = match tags {
        Value::Null => &none,
        Value::Object(tags) => tags,
        _ => return Err("its tags are not texts"),
    };
    if !tags.values().all(Value::is_string) {
        return Err("its tags are not texts");
    }
    let tag = |name: &str| tags.get(name).and_then(Value::as_str);
    let hash = |name| tag(name).map(|text| Hash::parse(text).ok_or("a tag is not a hash")).transpose();
    facts.sha256 = hash(TAG_SHA256)?;
    let ours = [TAG_RECORD_ROOT, TAG_ROWS, TAG_OFFSETS];
    if ours.iter().all(|name| tag(name).is_none()) {
        return Ok(());
    }
    let missing = "some of its tags are missing";
    let (Some(_), Some(rows), Some(offsets)) = (facts.sha256, tag(TAG_ROWS), tag(TAG_OFFSETS)) else {
        return Err(missing);
    };
    let root = hash(TAG_RECORD_ROOT)?.ok_or(missing)?;
    let is_decimal = rows.len() <= ROWS_DIGITS_MAX
        && rows.bytes().all(|byte| byte.is_ascii_digit())
        && (rows == "0" || !rows.starts_with('0'));
    let said: u64 = rows.parse().ok().filter(|_| is_decimal).ok_or("the tag rows is not a number")?;
    let stated = facts.rows.replace(said);
    facts.record_root = Some(root);
    let unreadable = "offsets cannot be read";
    let Ok(Strict(Value::Object(offsets))) = serde_json::from_str(offsets) else { return Err(unreadable) };
    let spans = offsets.into_iter().map(|(partition, span)| {
        let span = span.as_array().filter(|span| span.len() == 3)?;
        let number = |at: usize| span.get(at)?.as_i64().filter(|number| *number >= 0);
        let (first, last, rows) = (number(0)?, number(1)?, number(2)?);
        let rows = u64::try_from(rows).ok().filter(|rows| *rows > 0 && first <= last)?;
        Some((partition, (first, last, rows)))
    });
    let offsets: BTreeMap<String, (i64, i64, u64)> = spans.collect::<Option<_>>().ok_or(unreadable)?;
    let rows = offsets.values().fold(0u64, |sum, (.., rows)| sum.saturating_add(*rows));
    // An alert may lack a source.
    let may_lack = table.is_none_or(|table| table == Table::Alerts);
    if rows > said || (rows < said && !may_lack) {
        return Err("offsets and rows contradict each other");
    }
    if stated.is_some_and(|stated| stated != said) {
        return Err("the tag rows differs from numRecords");
    }
    facts.offsets = Some(offsets);
    Ok(())
}

/// A time in the format of Delta statistics; `None` if its year does not have four digits. The file
/// then has no bounds for its times, and readers never skip it by time.
pub fn timestamp(micros: i64) -> Option<String> {
    let time = DateTime::from_timestamp_micros(micros)?;
    let text = time.to_rfc3339_opts(SecondsFormat::Micros, true);
    text.as_bytes().first()?.is_ascii_digit().then_some(text)
}

/// Inverse of [`timestamp`].
pub fn micros(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}
