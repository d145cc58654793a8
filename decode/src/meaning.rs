//! Checks whether the columns of a row say what its record says.
//!
//! Invariants:
//! - What an event's record says is what the decoder reads from these bytes alone: the columns of a
//!   row that was decoded and sealed are the ones found here.
//! - What an alert's record says is what the finding says that was sent. Columns that the finding
//!   does not determine are not compared.
//! - No record is trusted: it may contain anything, of any size up to [`RECORD_BYTES_MAX`]. Its
//!   values are never repeated.
//!
//! Nothing is kept here, and nothing is written.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array as _, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{ArrowError, DataType};
use serde_json::value::RawValue;
use strongroom_schemas::events::{self, index};
use strongroom_schemas::{Severity, Table, alerts, ocsf};
use thiserror::Error;

use crate::decoder::{DEPTH_MAX, Decoder, DecoderConfig};
use crate::json::{self, Members};
use crate::members;
use crate::render::{Lists, Renderer, Strings, WrongColumn};
use crate::wrapper::SHAPE_GOOGLE;

/// Longest record that is read, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Bytes of records that are decoded before their rows are compared.
const CHUNK_BYTES: usize = 64 << 20;

/// Why rows cannot be compared.
#[derive(Debug, Error)]
pub enum MeaningError {
    #[error(transparent)]
    Column(#[from] WrongColumn),
    #[error("cannot turn the records into columns")]
    Columns(#[from] ArrowError),
}

/// How the columns of a row differ from what its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The record does not belong to its table, so nothing follows from it.
    NoRecord,
    /// The form of the row does not give a record; the text is the class of the fault.
    Form(&'static str),
    /// What the row says of its record beside its columns is not well formed.
    Mark(&'static str),
    /// These columns say something else, in order.
    Columns(Vec<&'static str>),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::NoRecord => f.write_str("its record is not one of the table"),
            Difference::Form(fault) => write!(f, "its form does not give a record: {fault}"),
            Difference::Mark(detail) => f.write_str(detail),
            Difference::Columns(names) => write!(f, "not what its record says: {}", names.join(", ")),
        }
    }
}

/// Columns of events that the record determines, in the order in which they are named.
const COMPARED: &[usize] = &[
    index::LEVEL,
    index::AUDIT_ID,
    index::STAGE,
    index::REQUEST_URI,
    index::VERB,
    index::USER_AGENT,
    index::USER_NAME,
    index::USER_UID,
    index::USER_GROUPS,
    index::USER_EXTRA,
    index::IMPERSONATED_USER_NAME,
    index::IMPERSONATED_USER_GROUPS,
    index::IMPERSONATED_USER_EXTRA,
    index::RESOURCE,
    index::NAMESPACE,
    index::NAME,
    index::OBJECT_UID,
    index::API_GROUP,
    index::API_VERSION,
    index::RESOURCE_VERSION,
    index::SUBRESOURCE,
    index::RESPONSE_STATUS,
    index::RESPONSE_MESSAGE,
    index::RESPONSE_REASON,
    index::RESPONSE_DETAILS,
    index::RESPONSE_CODE,
    index::SOURCE_IPS,
    index::REQUEST_OBJECT,
    index::RESPONSE_OBJECT,
    index::ANNOTATIONS,
    index::AUTHZ_DECISION,
    index::AUTHZ_REASON,
    index::REQUEST_RECEIVED_TIMESTAMP,
    index::STAGE_TIMESTAMP,
];

/// Compares the rows of `events` with their records. Calls `each` with the record of every row, in
/// order, and with no bytes where the form gives none; then calls `differs`, in order, with every
/// row whose columns differ from its record, or whose form or marks are wrong. Of a row with a form
/// only the event is read: the bytes around it belong to the form.
///
/// # Errors
/// [`MeaningError::Column`] if the batch is not one of the `events` table.
pub fn compare_events(
    events: &RecordBatch,
    each: &mut dyn FnMut(&[u8]),
    differs: &mut dyn FnMut(usize, Difference),
) -> Result<(), MeaningError> {
    let rows = EventRows::of(events)?;
    let mut decoder = Decoder::new(DecoderConfig::default());
    let (mut record, mut decoded, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut event = Vec::new();
    let mut found = Vec::new();
    decoder.begin_records();
    for row in 0..events.num_rows() {
        record.clear();
        let fault = rows.renderer.record(row, &mut record).err();
        if fault.is_some() {
            record.clear();
        }
        each(&record);
        found.extend(rows.renderer.wrong_marks(row).map(|detail| (row, Difference::Mark(detail))));
        if let Some(fault) = fault {
            found.push((row, Difference::Form(fault.as_str())));
            continue;
        }
        event.clear();
        let is_of_form = rows.renderer.event_of_form(row, &mut event) == Ok(true);
        let said = if is_of_form { &event } else { &record };
        let is_rendered = is_of_form || !rows.renderer.keeps_format(row);
        if record.len() <= RECORD_BYTES_MAX && decoder.record_alone(said, is_rendered).is_ok() {
            decoded.push(row);
        } else {
            found.push((row, Difference::NoRecord));
        }
        bytes += record.len();
        if bytes >= CHUNK_BYTES {
            rows.compare(&mut decoder, &decoded, &mut found)?;
            decoded.clear();
            bytes = 0;
        }
    }
    rows.compare(&mut decoder, &decoded, &mut found)?;
    found.sort_by_key(|(row, _)| *row);
    for (row, difference) in found {
        differs(row, difference);
    }
    Ok(())
}

/// A batch of events to compare.
struct EventRows<'a> {
    batch: &'a RecordBatch,
    renderer: Renderer<'a>,
}

impl<'a> EventRows<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, WrongColumn> {
        Ok(EventRows { batch, renderer: Renderer::new(batch)? })
    }

    /// Takes the decoded rows of `rows` and compares them with the stored ones, column by column.
    fn compare(
        &self,
        decoder: &mut Decoder,
        rows: &[usize],
        found: &mut Vec<(usize, Difference)>,
    ) -> Result<(), MeaningError> {
        let said = decoder.take_records()?;
        // A bit for each compared column of a row, and one for its shape.
        let mut differing = vec![0_u64; rows.len()];
        for (bit, column) in COMPARED.iter().enumerate() {
            let (stored, said) = (self.batch.column(*column), said.column(*column));
            let mut mark = |at: usize| differing[at] |= 1 << bit;
            match said.data_type() {
                DataType::List(_) => {
                    let (stored, said) = (Lists::of(stored)?, Lists::of(said)?);
                    (0..rows.len()).filter(|at| !stored.is_same(rows[*at], &said, *at)).for_each(&mut mark);
                }
                DataType::Int32 => {
                    let wrong = || WrongColumn::of(stored);
                    let stored = stored.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
                    let said = said.as_primitive::<Int32Type>();
                    let of = |array: &Int32Array, at| array.is_valid(at).then(|| array.value(at));
                    (0..rows.len()).filter(|at| of(stored, rows[*at]) != of(said, *at)).for_each(&mut mark);
                }
                DataType::Timestamp(..) => {
                    let wrong = || WrongColumn::of(stored);
                    let stored = stored.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong)?;
                    let said = said.as_primitive::<TimestampMicrosecondType>();
                    let of =
                        |array: &TimestampMicrosecondArray, at| array.is_valid(at).then(|| array.value(at));
                    (0..rows.len()).filter(|at| of(stored, rows[*at]) != of(said, *at)).for_each(&mut mark);
                }
                _ => {
                    let (stored, said) = (Strings::of(stored)?, Strings::of(said)?);
                    (0..rows.len()).filter(|at| stored.get(rows[*at]) != said.get(*at)).for_each(&mut mark);
                }
            }
        }
        let (stored, shapes) =
            (Strings::of(self.batch.column(index::SHAPE))?, Strings::of(said.column(index::SHAPE))?);
        let raws = said.column(index::RAW).as_binary::<i32>();
        for (at, row) in rows.iter().enumerate() {
            let said = if self.renderer.has_form(*row) {
                None
            } else if self.renderer.keeps_format(*row) {
                // An event that is kept as received has no shape; an entry of Google's has its
                // mark.
                shapes.get(at).filter(|shape| *shape == SHAPE_GOOGLE)
            } else if raws.is_valid(at) {
                // It was rendered, although the decoder would have kept it.
                std::str::from_utf8(raws.value(at)).ok().and_then(shape_of)
            } else {
                shapes.get(at)
            };
            if stored.get(*row) != said {
                differing[at] |= 1 << COMPARED.len();
            }
        }
        let schema = Table::Events.file_schema();
        let names: Vec<&'static str> = COMPARED
            .iter()
            .chain([&index::SHAPE])
            .map(|column| {
                let name = schema.field(*column).name();
                events::COLUMNS.iter().copied().find(|known| known == name).unwrap_or_default()
            })
            .collect();
        for (bits, row) in differing.iter().zip(rows).filter(|(bits, _)| **bits != 0) {
            let columns = names.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
            found.push((*row, Difference::Columns(columns.map(|(_, name)| *name).collect())));
        }
        Ok(())
    }
}

/// The text between `{` and the first member of a rendered event that has a column, or `}`; `None`
/// if it is the default shape.
fn shape_of(record: &str) -> Option<&str> {
    let Members(list) = serde_json::from_str(record).ok()?;
    let open = record.find('{')? + 1;
    let mut end = open;
    for (name, value) in &list {
        // Between two members there are white space and a comma.
        let quote = end + record.get(end..)?.find('"')?;
        if members::has_column(name.as_bytes()) {
            return Some(&record[open..quote]).filter(|shape| *shape != events::SHAPE_DEFAULT);
        }
        let text = value.get();
        end = (text.as_ptr() as usize - record.as_ptr() as usize) + text.len();
    }
    record.get(open..record.rfind('}')?)
}

/// The values of a finding, by path. An absent value and one of another type are not said.
struct Said<'a> {
    root: Members<'a>,
}

/// A name in an object, or the first item of a list.
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

    /// `None` if an item is not a string.
    fn texts(&self, path: &[Step]) -> Option<Vec<Option<String>>> {
        self.list(path)?.into_iter().map(|item| text(item).map(Some)).collect()
    }

    fn has_resource(&self) -> bool {
        self.at(&[Name("resources"), First]).is_some()
    }

    /// What `of` returns for each attack of the finding.
    fn attacks(&self, of: fn(&'a RawValue) -> Option<Option<String>>) -> Option<Vec<Option<String>>> {
        let list = self.list(&[Name("finding_info"), Name("attacks")]).unwrap_or_default();
        Some(list.into_iter().filter_map(of).collect())
    }
}

/// The value at a path below `value`; `None` if it is null, or an object whose names are not
/// Unicode.
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

/// What a finding says of a column.
enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    /// A time, in whole milliseconds.
    Milliseconds(Option<i64>),
    List(Option<Vec<Option<String>>>),
    /// A null in the column means the same as this text.
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
        Value::Text(said.text(&[Name("evidences"), First, Name("actor"), Name("user"), Name("name")]))
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

/// Names of the compared columns of alerts, in order. `name` and `subresource`, which the finding
/// has in one text, are one entry.
pub fn compared_alert_columns() -> impl Iterator<Item = &'static str> {
    ALERT_COLUMNS.iter().map(|(name, _)| *name)
}

/// The ranges of an alert's events, as the column has them.
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

/// Calls `differs` with every row of `alerts` whose columns differ from the finding in `ocsf`, in
/// order.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::types::ArrowPrimitiveType;
    use arrow_array::{ArrayRef, BinaryArray, PrimitiveArray};
    use serde_json::{Map, Value as Json, json};

    use super::*;

    /// A record, whether it is rendered, and what it says according to `docs/format.md`; the second
    /// verifier has the same list.
    struct Case {
        what: String,
        record: Vec<u8>,
        is_rendered: bool,
        says: Option<Map<String, Json>>,
    }

    fn cases() -> Vec<Case> {
        let text = include_str!("../../tests/data/records/records.json");
        let cases: Vec<Json> = serde_json::from_str(text).expect("a list");
        let case = |case: &Json| Case {
            what: case["what"].as_str().expect("words").to_owned(),
            record: match case["base64"].as_str() {
                Some(base64) => bytes_of(base64),
                None => case["record"].as_str().expect("a record").as_bytes().to_vec(),
            },
            is_rendered: case["rendered"] == true,
            says: case["says"].as_object().cloned(),
        };
        cases.iter().map(case).collect()
    }

    fn bytes_of(base64: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
        for digit in base64.bytes().filter(|digit| *digit != b'=') {
            let value = ALPHABET.iter().position(|known| *known == digit).expect("base64");
            (bits, held) = (bits << 6 | u32::try_from(value).expect("six bits"), held + 6);
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held & 0xff) as u8);
            }
        }
        bytes
    }

    /// A row with these columns, and this `raw`.
    fn row(says: &Map<String, Json>, raw: Option<&[u8]>) -> RecordBatch {
        fn number<T: ArrowPrimitiveType>(value: Option<T::Native>) -> PrimitiveArray<T> {
            [value].into_iter().collect()
        }
        let schema = Table::Events.file_schema();
        let column = |name: &String, data_type: &DataType| -> ArrayRef {
            let value = says.get(name).filter(|value| !value.is_null());
            match data_type {
                DataType::Utf8 => {
                    Arc::new(StringArray::from(vec![value.map(|text| text.as_str().expect("text"))]))
                }
                DataType::Int32 => {
                    let code =
                        value.map(|code| i32::try_from(code.as_i64().expect("a number")).expect("a code"));
                    Arc::new(number::<Int32Type>(code))
                }
                DataType::Int64 => Arc::new(number::<Int64Type>(value.and_then(Json::as_i64))),
                DataType::Timestamp(..) => Arc::new(
                    number::<TimestampMicrosecondType>(value.map(|time| time.as_i64().expect("a time")))
                        .with_timezone("UTC"),
                ),
                DataType::List(_) => {
                    let mut list = ListBuilder::new(StringBuilder::new());
                    for item in value.iter().flat_map(|list| list.as_array().expect("a list")) {
                        list.values().append_option(item.as_str());
                    }
                    list.append(value.is_some());
                    Arc::new(list.finish())
                }
                _ => Arc::new(BinaryArray::from(vec![raw.filter(|_| name == events::RAW)])),
            }
        };
        let columns = schema.fields().iter().map(|field| column(field.name(), field.data_type()));
        RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("a row")
    }

    fn differences(batch: &RecordBatch) -> Vec<(usize, Difference)> {
        let (mut found, mut records) = (Vec::new(), 0);
        compare_events(batch, &mut |_| records += 1, &mut |row, how| found.push((row, how))).expect("events");
        assert_eq!(records, batch.num_rows());
        found
    }

    fn other(value: &Json) -> Json {
        match value {
            Json::Number(number) => json!(number.as_i64().expect("whole") ^ 1),
            Json::Array(items) => items.iter().cloned().rev().chain([json!("x")]).collect(),
            Json::String(text) => json!(format!("{text}x")),
            _ => json!("x"),
        }
    }

    #[test]
    fn records_say_what_the_format_says() {
        let cases = cases();
        let mut decoder = Decoder::new(DecoderConfig::default());
        decoder.begin_records();
        for Case { what, record, is_rendered, says } in &cases {
            assert_eq!(decoder.record_alone(record, *is_rendered).is_ok(), says.is_some(), "{what}");
            let decoded = decoder.take_records().expect("columns");
            assert_eq!(decoded.num_rows(), usize::from(says.is_some()), "{what}");
            let Some(says) = says else {
                let found = (!is_rendered).then(|| differences(&row(&Map::new(), Some(record))));
                assert!(found.is_none_or(|found| found == [(0, Difference::NoRecord)]), "{what}");
                continue;
            };
            let stored = row(says, (!is_rendered).then_some(record));
            let rows = EventRows::of(&stored).expect("a row");
            decoder.record_alone(record, *is_rendered).expect("it was one");
            let mut found = Vec::new();
            rows.compare(&mut decoder, &[0], &mut found).expect("columns");
            assert_eq!(found, [], "{what}");
        }
        assert!(cases.len() > 250);
    }

    #[test]
    fn each_column_is_compared() {
        let mut seen = std::collections::BTreeSet::new();
        for Case { what, record, is_rendered, says } in cases() {
            let Some(says) = says.filter(|_| !is_rendered) else { continue };
            for name in says.keys() {
                for changed in [other(&says[name]), Json::Null] {
                    if changed == says[name] {
                        continue;
                    }
                    let mut row_says = says.clone();
                    row_says.insert(name.clone(), changed);
                    let found = differences(&row(&row_says, Some(&record)));
                    let [(0, Difference::Columns(names))] = found.as_slice() else {
                        panic!("{what}: {found:?}")
                    };
                    assert_eq!(names, &[name.as_str()], "{what}");
                    seen.insert(name.clone());
                }
            }
        }
        assert_eq!(seen.len(), COMPARED.len() + 1);
    }

    #[test]
    fn rows_are_named_in_order() {
        let says = json!({ "audit_id": "a", "verb": "get" });
        let says = says.as_object().expect("an object");
        let good = row(says, Some(br#"{"auditID":"a","verb":"get"}"#));
        let other = row(says, Some(br#"{"auditID":"a","verb":"list"}"#));
        let broken = row(says, Some(b"x"));
        let rows = [&good, &broken, &other, &good, &broken];
        let batch = arrow_select::concat::concat_batches(&good.schema(), rows).expect("one schema");
        let found = differences(&batch);
        let expected =
            [(1, Difference::NoRecord), (2, Difference::Columns(vec!["verb"])), (4, Difference::NoRecord)];
        assert_eq!(found, expected);
        assert_eq!(found[1].1.to_string(), "not what its record says: verb");
    }

    #[test]
    fn what_is_spliced_into_a_rendered_record_is_read() {
        let good = json!({
            "level": "Metadata", "audit_id": "a", "user_groups": ["", "g"], "user_extra": "{\"k\":1}", "request_object": "[1, 2]",
            "stage_timestamp": 0, "annotations": "{\"authorization.k8s.io/decision\":\"allow\"}", "authz_decision": "allow",
        });
        let found = |name: &str, value: Json| {
            let mut says = good.as_object().expect("an object").clone();
            says.insert(name.to_owned(), value);
            match differences(&row(&says, None)).pop() {
                None => String::new(),
                Some((_, difference)) => difference.to_string().replace("not what its record says: ", ""),
            }
        };
        let no_record = Difference::NoRecord.to_string();
        assert_eq!(found("name", json!("n")), "");
        assert_eq!(found("shape", json!("")), "");
        assert_eq!(found("shape", json!("\"x\": {\"level\": 1} ,")), "");
        assert_eq!(found("shape", json!(format!("\"x\":\"{}\",", "y".repeat(1000)))), "");
        assert_eq!(found("shape", json!(events::SHAPE_DEFAULT)), "shape");
        assert_eq!(found("shape", json!("\"stage\":\"Panic\",")), "stage, shape");
        assert_eq!(found("shape", json!("\"\\u0073tage\":\"Panic\",")), "stage, shape");
        assert_eq!(found("shape", json!("\"kind\":\"Pod\",")), no_record);
        assert_eq!(found("authz_decision", json!("forbid")), "authz_decision");
        assert_eq!(found("authz_decision", Json::Null), "authz_decision");
        assert_eq!(found("authz_reason", json!("r")), "authz_reason");
        assert_eq!(found("user_groups", json!(["a", null])), "user_groups");
        assert_eq!(found("user_extra", json!(" {}")), "user_extra");
        assert_eq!(found("user_extra", json!("{}}")), no_record);
        assert_eq!(
            found("user_extra", json!("{}},\"verb\":\"x\",\"objectRef\":{\"name\":\"m\"},\"y\":{\"z\":1")),
            "verb, user_extra, name"
        );
        assert_eq!(found("request_object", json!("null")), "request_object");
        assert_eq!(
            found("request_object", json!("1,\"responseObject\":2")),
            "request_object, response_object"
        );
        assert_eq!(found("stage_timestamp", json!(253_402_300_800_000_000_i64)), "stage_timestamp");
        assert_eq!(found("stage_timestamp", json!(i64::MIN)), "stage_timestamp");
        assert_eq!(found("request_received_timestamp", json!(i64::MAX)), "request_received_timestamp");
    }
}
