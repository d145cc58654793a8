//! Compares rows of alerts with their findings. A *finding* is an alert in the OCSF format, as it
//! was sent.
//!
//! Invariant: only columns that the finding determines are compared; an absent value is never taken
//! for a match.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array as _, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::DataType;
use serde_json::value::RawValue;
use strongroom_lines::DEPTH_MAX;
use strongroom_lines::json::{self, Members};
use strongroom_schemas::{Severity, alerts, ocsf};

use super::{Difference, MeaningError, RECORD_BYTES_MAX};
use crate::render::WrongColumn;

/// The values of a finding, looked up by path. A value that is absent or has another type is not
/// found.
struct Said<'a> {
    root: Members<'a>,
}

/// A step of a path: a name in an object, or the first item of a list.
#[derive(Clone, Copy)]
enum Step {
    Name(&'static str),
    First,
}

use Step::{First, Name};

impl<'a> Said<'a> {
    fn of(text: &'a str) -> Option<Said<'a>> {
        let is_bounded =
            memchr::memchr(0, text.as_bytes()).is_none() && json::depth(text.as_bytes()) <= DEPTH_MAX;
        let root = is_bounded.then(|| serde_json::from_str(text).ok()).flatten()?;
        Some(Said { root })
    }

    fn at(&self, path: &[Step]) -> Option<&'a RawValue> {
        let [Name(first), rest @ ..] = path else { return None };
        within(json::member(&self.root, first)?, rest)
    }

    fn text(&self, path: &[Step]) -> Option<String> {
        text(self.at(path)?)
    }

    fn number(&self, path: &[Step]) -> Option<i64> {
        number(self.at(path)?)
    }

    fn list(&self, path: &[Step]) -> Option<Vec<&'a RawValue>> {
        serde_json::from_str(self.at(path)?.get()).ok()
    }

    /// Returns the strings of the list at a path. `None` if there is no list, or if an item is not
    /// a string.
    fn texts(&self, path: &[Step]) -> Option<Vec<Option<String>>> {
        self.list(path)?.into_iter().map(|item| text(item).map(Some)).collect()
    }

    fn has_resource(&self) -> bool {
        self.at(&[Name("resources"), First]).is_some()
    }

    /// Calls `of` with each attack of the finding. Returns the values that `of` returns, except
    /// `None`.
    fn attacks(&self, of: fn(&'a RawValue) -> Option<Option<String>>) -> Option<Vec<Option<String>>> {
        let list = self.list(&[Name("finding_info"), Name("attacks")]).unwrap_or_default();
        Some(list.into_iter().filter_map(of).collect())
    }
}

/// Returns the value at a path below `value`. `None` if there is none, if it is null, or if it is
/// an object whose names are not Unicode.
fn within<'a>(value: &'a RawValue, path: &[Step]) -> Option<&'a RawValue> {
    let mut value = value;
    for step in path {
        value = match step {
            Name(name) => json::member(&serde_json::from_str(value.get()).ok()?, name)?,
            First => *serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?.first()?,
        };
    }
    let is_readable =
        !value.get().starts_with('{') || serde_json::from_str::<Members<'_>>(value.get()).is_ok();
    (value.get() != "null" && is_readable).then_some(value)
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn number(value: &RawValue) -> Option<i64> {
    match value.get() {
        "-0" => Some(0),
        text => serde_json::from_str(text).ok(),
    }
}

fn tactic(attack: &RawValue) -> Option<Option<String>> {
    let tactic = within(attack, &[Name("tactic")])?;
    let of = |name| within(tactic, &[Name(name)]).and_then(text);
    Some(match (of("name"), of("uid")) {
        (name, None) => name,
        (name, Some(uid)) => ocsf::tactic_tag(&name.unwrap_or_default(), &uid).map(str::to_owned),
    })
}

fn technique(attack: &RawValue) -> Option<Option<String>> {
    let technique = within(attack, &[Name("technique")])?;
    let named = within(attack, &[Name("sub_technique")]).unwrap_or(technique);
    Some(within(named, &[Name("uid")]).and_then(text))
}

/// The value that a finding gives a column.
enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    /// A time, in whole milliseconds.
    Milliseconds(Option<i64>),
    List(Option<Vec<Option<String>>>),
    /// The column has this text, or is null, which means the same.
    TextOrNull(&'static str),
    /// The finding does not determine the column.
    Unsaid,
}

type Says = fn(&Said<'_>) -> Value;

const SEVERITY: &[Step] = &[Name("severity")];
const RESOURCE_TYPE: &[Step] = &[Name("resources"), First, Name("type")];
const RESOURCE_NAME: &[Step] = &[Name("resources"), First, Name("name")];

fn severity(said: &Said<'_>) -> Option<String> {
    let name = said.text(SEVERITY)?;
    let severity = Severity::ALL.into_iter().find(|severity| ocsf::severity_name(*severity) == name)?;
    Some(severity.as_str().to_owned())
}

fn source_ip(said: &Said<'_>) -> Option<String> {
    let of = |name| said.text(&[Name("evidences"), First, Name("src_endpoint"), Name(name)]);
    of("ip").or_else(|| of("name"))
}

/// Columns of alerts that the finding determines, in the order in which they are named. `name` and
/// `subresource` are one entry, because the finding has both in one text.
const ALERT_COLUMNS: &[(&str, Says)] = &[
    ("alert_id", |said| Value::Text(said.text(&[Name("finding_info"), Name("uid")]))),
    ("rule_id", |said| Value::Text(said.text(&[Name("finding_info"), Name("analytic"), Name("uid")]))),
    ("rule_name", |said| Value::Text(said.text(&[Name("finding_info"), Name("analytic"), Name("name")]))),
    ("title", |said| Value::Text(said.text(&[Name("finding_info"), Name("title")]))),
    ("severity", |said| Value::Text(severity(said))),
    ("time", |said| Value::Milliseconds(said.number(&[Name("time")]))),
    ("window_start", |said| Value::Milliseconds(said.number(&[Name("start_time")]))),
    ("window_end", |said| Value::Milliseconds(said.number(&[Name("end_time")]))),
    ("cluster", |said| Value::Text(said.text(&[Name("unmapped"), Name("cluster")]))),
    ("actor", |said| {
        let authenticated = [Name("evidences"), First, Name("actor"), Name("user"), Name("name")];
        let impersonated = said.text(&[Name("unmapped"), Name("impersonated_user")]);
        Value::Text(impersonated.or_else(|| said.text(&authenticated)))
    }),
    ("source_ip", |said| Value::Text(source_ip(said))),
    ("verb", |said| match said.text(&[Name("evidences"), First, Name("api"), Name("operation")]) {
        Some(verb) if verb == ocsf::VERB_UNKNOWN => Value::TextOrNull(ocsf::VERB_UNKNOWN),
        verb => Value::Text(verb),
    }),
    ("resource", |said| Value::Text(said.text(RESOURCE_TYPE))),
    (NAME_AND_SUBRESOURCE, |_| Value::Unsaid),
    ("namespace", |said| {
        if said.has_resource() {
            Value::Text(said.text(&[Name("resources"), First, Name("namespace")]))
        } else {
            Value::Unsaid
        }
    }),
    ("group_key", |said| {
        Value::Text(Some(said.text(&[Name("unmapped"), Name("group_key")]).unwrap_or_default()))
    }),
    ("event_count", |said| Value::Number(said.number(&[Name("count")]))),
    ("audit_ids", |said| Value::List(said.texts(&[Name("unmapped"), Name("audit_ids")]))),
    ("tactics", |said| Value::List(said.attacks(tactic))),
    ("techniques", |said| Value::List(said.attacks(technique))),
    ("message", |said| Value::Text(said.text(&[Name("message")]))),
    ("next_steps", |said| {
        Value::Text(Some(said.text(&[Name("remediation"), Name("desc")]).unwrap_or_default()))
    }),
    ("source", |said| Value::Text(said.text(&[Name("unmapped"), Name("source")]))),
    ("source_offset", |said| Value::Number(said.number(&[Name("unmapped"), Name("source_offset")]))),
    ("namespaces", |said| Value::List(said.texts(&[Name("unmapped"), Name("namespaces")]))),
    ("actors", |said| Value::List(said.texts(&[Name("unmapped"), Name("actors")]))),
    ("clusters", |said| Value::List(said.texts(&[Name("unmapped"), Name("clusters")]))),
    ("event_ranges", |said| Value::Text(event_ranges(said))),
];

/// Returns the names of the compared columns of alerts, in order. `name` and `subresource`, which
/// the finding has in one text, are one entry.
pub fn compared_alert_columns() -> impl Iterator<Item = &'static str> {
    ALERT_COLUMNS.iter().map(|(name, _)| *name)
}

/// Returns the ranges of an alert's events, in the format of the column.
fn event_ranges(said: &Said<'_>) -> Option<String> {
    let ranges = said.list(&[Name("unmapped"), Name("event_ranges")])?;
    let range = |range: &RawValue| {
        let bound = |name| within(range, &[Name(name)]).and_then(number);
        Some((within(range, &[Name("source")]).and_then(text)?, bound("first")?, bound("last")?))
    };
    serde_json::to_string(&ranges.into_iter().map(range).collect::<Option<Vec<_>>>()?).ok()
}

const NAME_AND_SUBRESOURCE: &str = "name, subresource";

/// A column of alerts as stored in a file.
enum Column<'a> {
    Texts(&'a StringArray),
    Numbers(&'a Int64Array),
    Times(&'a TimestampMicrosecondArray),
    Lists(&'a ListArray, &'a StringArray),
    /// The file is older than the column.
    Absent,
}

impl<'a> Column<'a> {
    fn of(batch: &'a RecordBatch, name: &str) -> Result<Column<'a>, WrongColumn> {
        let Some(array) = batch.column_by_name(name) else { return Ok(Column::Absent) };
        let wrong = || WrongColumn::of(array);
        Ok(match array.data_type() {
            DataType::Utf8 => Column::Texts(array.as_string::<i32>()),
            DataType::Int64 => Column::Numbers(array.as_primitive::<Int64Type>()),
            DataType::Timestamp(..) => {
                Column::Times(array.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong)?)
            }
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                Column::Lists(lists, lists.values().as_string_opt::<i32>().ok_or_else(wrong)?)
            }
            _ => return Err(wrong()),
        })
    }

    fn text(&self, row: usize) -> Option<&'a str> {
        match self {
            Column::Texts(texts) => texts.is_valid(row).then(|| texts.value(row)),
            _ => None,
        }
    }

    fn number(&self, row: usize) -> Option<i64> {
        match self {
            Column::Numbers(numbers) => numbers.is_valid(row).then(|| numbers.value(row)),
            Column::Times(times) => times.is_valid(row).then(|| times.value(row)),
            _ => None,
        }
    }

    fn list(&self, row: usize) -> Option<Vec<Option<&'a str>>> {
        let Column::Lists(lists, items) = self else { return None };
        let offsets = lists.value_offsets();
        let item = |at: i32| items.is_valid(at as usize).then(|| items.value(at as usize));
        lists.is_valid(row).then(|| (offsets[row]..offsets[row + 1]).map(item).collect())
    }

    fn is(&self, row: usize, said: &Value) -> bool {
        match said {
            Value::Text(text) => self.text(row) == text.as_deref(),
            Value::TextOrNull(text) => self.text(row).is_none_or(|found| found == *text),
            Value::Number(number) => self.number(row) == *number,
            Value::Milliseconds(time) => self.number(row).map(|us| us.div_euclid(1000)) == *time,
            Value::List(list) => {
                let said = list.as_ref().map(|list| list.iter().map(Option::as_deref).collect::<Vec<_>>());
                self.list(row) == said
            }
            Value::Unsaid => true,
        }
    }
}

/// Calls `differs`, in order, with every row of `rows` whose columns differ from the finding in its
/// column `ocsf`, or that has no readable finding.
///
/// # Errors
/// [`MeaningError::Column`] if a column has a type that the table does not have.
pub fn compare_alerts(
    rows: &RecordBatch,
    differs: &mut dyn FnMut(usize, Difference),
) -> Result<(), MeaningError> {
    let columns: Vec<Column<'_>> =
        ALERT_COLUMNS.iter().map(|(name, _)| Column::of(rows, name)).collect::<Result<_, _>>()?;
    let (findings, name, subresource) =
        (Column::of(rows, alerts::OCSF)?, Column::of(rows, "name")?, Column::of(rows, "subresource")?);
    for row in 0..rows.num_rows() {
        let finding = findings.text(row).unwrap_or_default();
        let Some(said) = Some(finding).filter(|finding| finding.len() <= RECORD_BYTES_MAX).and_then(Said::of)
        else {
            differs(row, Difference::NoRecord);
            continue;
        };
        let is_named = || {
            let kind = said.text(RESOURCE_TYPE);
            let mut named = name.text(row).or(kind.as_deref()).unwrap_or_default().to_owned();
            if let Some(subresource) = subresource.text(row) {
                named.push('/');
                named.push_str(subresource);
            }
            !said.has_resource() || said.text(RESOURCE_NAME).as_deref() == Some(&named)
        };
        let holds = |known: &str, says: Says, column: &Column<'_>| match known {
            NAME_AND_SUBRESOURCE => is_named(),
            _ => column.is(row, &says(&said)),
        };
        let wrong: Vec<&'static str> = ALERT_COLUMNS
            .iter()
            .zip(&columns)
            .filter(|((known, says), column)| !holds(known, *says, column))
            .map(|((known, _), _)| *known)
            .collect();
        if !wrong.is_empty() {
            differs(row, Difference::Columns(wrong));
        }
    }
    Ok(())
}
