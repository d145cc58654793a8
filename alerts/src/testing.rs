//! Audit events for tests: from JSON lines to the batch that the decoder would make.
//!
//! Invariant: lines are read with plain serde_json, without regard to speed, so a test of a rule
//! depends only on this file and the matcher. Columns marked *json* contain the exact text of the
//! line, as in the archive. A request body that is nested too deeply is a fault, as in the decoder.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, StringDictionaryBuilder,
    StringViewBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use chrono::DateTime;
use serde::Deserialize;
use serde_json::value::RawValue;
use strongroom_schemas::{Table, events};

/// Name of the cluster of every test event.
pub(crate) const CLUSTER: &str = "test";
/// Source partition of every test event.
pub(crate) const SOURCE: &str = "test/lines";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct User {
    username: Option<String>,
    uid: Option<String>,
    groups: Option<Vec<String>>,
    extra: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectReference {
    resource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    api_group: Option<String>,
    api_version: Option<String>,
    resource_version: Option<String>,
    subresource: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    code: Option<i32>,
    status: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    details: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Event {
    #[serde(rename = "auditID")]
    audit_id: Option<String>,
    stage: Option<String>,
    level: Option<String>,
    verb: Option<String>,
    #[serde(rename = "requestURI")]
    request_uri: Option<String>,
    user: Option<User>,
    impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs")]
    source_ips: Option<Vec<String>>,
    user_agent: Option<String>,
    object_ref: Option<ObjectReference>,
    response_status: Option<Status>,
    request_object: Option<Box<RawValue>>,
    response_object: Option<Box<RawValue>>,
    annotations: Option<Box<RawValue>>,
    request_received_timestamp: Option<String>,
    stage_timestamp: Option<String>,
}

enum Cell {
    Text(Option<String>),
    List(Option<Vec<String>>),
    Int(Option<i64>),
}

fn json(value: Option<Box<RawValue>>) -> Cell {
    Cell::Text(value.map(|v| v.get().to_owned()).filter(|text| text != "null"))
}

fn micros(value: Option<String>) -> Cell {
    Cell::Int(value.map(|text| {
        DateTime::parse_from_rfc3339(&text)
            .unwrap_or_else(|error| panic!("{text} is not a time: {error}"))
            .timestamp_micros()
    }))
}

/// Maximum depth of a body in an event whose depth is 128.
const BODY_DEPTH_MAX: usize = 127;

/// Returns the depth of a JSON text. Its strings must not contain brackets.
fn depth(json: &str) -> usize {
    let depths = json.bytes().scan(0, |depth: &mut usize, byte| {
        match byte {
            b'{' | b'[' => *depth += 1,
            b'}' | b']' => *depth -= 1,
            _ => {}
        }
        Some(*depth)
    });
    depths.max().unwrap_or_default()
}

fn row_of(line: &str, offset: i64) -> Vec<Cell> {
    let mut event: Event =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("test event {line}: {error}"));
    let user = event.user.unwrap_or_default();
    let impersonated = event.impersonated_user.unwrap_or_default();
    let object = event.object_ref.unwrap_or_default();
    let status = event.response_status.unwrap_or_default();
    let annotation = |key: &str| {
        let annotations: serde_json::Value =
            serde_json::from_str(event.annotations.as_ref()?.get()).expect("a part of a parsed line");
        annotations.get(key)?.as_str().map(str::to_owned)
    };
    let (decision, reason) =
        (annotation("authorization.k8s.io/decision"), annotation("authorization.k8s.io/reason"));
    let is_deep = event.request_object.as_ref().is_some_and(|body| depth(body.get()) > BODY_DEPTH_MAX);
    let faults = is_deep.then(|| {
        event.request_object = None;
        vec!["/requestObject: too_deep".to_owned()]
    });
    use Cell::{Int, List, Text};
    vec![
        Text(event.audit_id),
        Text(event.stage),
        Text(event.level),
        Text(event.verb),
        Text(event.request_uri),
        Text(user.username),
        Text(user.uid),
        List(user.groups),
        json(user.extra),
        Text(impersonated.username),
        List(impersonated.groups),
        json(impersonated.extra),
        List(event.source_ips),
        Text(event.user_agent),
        Text(object.resource),
        Text(object.subresource),
        Text(object.namespace),
        Text(object.name),
        Text(object.api_group),
        Text(object.api_version),
        Text(object.uid),
        Text(object.resource_version),
        Int(status.code.map(i64::from)),
        Text(status.status),
        Text(status.reason),
        Text(status.message),
        json(status.details),
        json(event.request_object),
        json(event.response_object),
        json(event.annotations),
        Text(decision),
        Text(reason),
        micros(event.request_received_timestamp),
        micros(event.stage_timestamp),
        Text(Some(CLUSTER.into())),
        Text(Some(SOURCE.into())),
        Int(Some(offset)),
        Text(None),
        Text(None),
        Text(None),
        Text(None),
        Text(None),
        List(None),
        Text(None),
        List(faults),
    ]
}

fn array_of(field: &Field, cells: Vec<&Cell>) -> ArrayRef {
    let text = |cell: &&Cell| match cell {
        Cell::Text(value) => value.clone(),
        _ => panic!("{} is not text", field.name()),
    };
    let list = |cell: &&Cell| match cell {
        Cell::List(value) => value.clone().map(|items| items.into_iter().map(Some).collect::<Vec<_>>()),
        _ => panic!("{} is not a list", field.name()),
    };
    let int = |cell: &&Cell| match cell {
        Cell::Int(value) => *value,
        _ => panic!("{} is not a number", field.name()),
    };
    macro_rules! built {
        ($builder:expr, $of:expr) => {{
            let mut builder = $builder;
            cells.iter().map($of).for_each(|value| builder.append_option(value));
            Arc::new(builder.finish())
        }};
    }
    match field.data_type() {
        DataType::Utf8 => built!(StringBuilder::new(), text),
        DataType::Utf8View => built!(StringViewBuilder::new(), text),
        DataType::Binary => built!(BinaryBuilder::new(), text),
        DataType::Dictionary(..) => built!(StringDictionaryBuilder::<Int32Type>::new(), text),
        DataType::Int32 => {
            built!(Int32Builder::new(), |c| int(c).map(|n| i32::try_from(n).expect("a status code")))
        }
        DataType::Int64 => built!(Int64Builder::new(), int),
        DataType::Timestamp(..) => {
            built!(TimestampMicrosecondBuilder::new().with_timezone("UTC"), int)
        }
        DataType::List(item) => match item.data_type() {
            DataType::Utf8 => built!(ListBuilder::new(StringBuilder::new()), list),
            DataType::Utf8View => built!(ListBuilder::new(StringViewBuilder::new()), list),
            _ => built!(ListBuilder::new(StringDictionaryBuilder::<Int32Type>::new()), list),
        },
        other => panic!("no test column of type {other}"),
    }
}

fn batch_with(schema: SchemaRef, lines: &[&str]) -> RecordBatch {
    let mut offset = 0;
    let rows: Vec<Vec<Cell>> = lines
        .iter()
        .map(|line| {
            let row = row_of(line, offset);
            offset += line.len() as i64 + 1;
            row
        })
        .collect();
    assert!(rows.iter().all(|row| row.len() == events::index::COUNT), "a cell for each column of events");
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(at, field)| array_of(field, rows.iter().map(|row| &row[at]).collect()))
        .collect();
    RecordBatch::try_new(schema, columns).expect("columns built from the schema")
}

/// Returns the events of `lines`, one JSON object each, in `Table::Events.batch_schema()`.
///
/// `cluster` is [`CLUSTER`], `source` is [`SOURCE`], and `source_offset` is the line's byte offset
/// in a text where each line ends with a newline. Panics on a line that is not an audit event.
pub(crate) fn batch_of(lines: &[&str]) -> RecordBatch {
    batch_with(Table::Events.batch_schema(), lines)
}

/// Returns the events of `lines` as the archive returns them, without dictionaries.
pub(crate) fn file_batch_of(lines: &[&str]) -> RecordBatch {
    batch_with(Table::Events.file_schema(), lines)
}

/// Returns the events of `lines` with string views, as DataFusion reads them.
pub(crate) fn view_batch_of(lines: &[&str]) -> RecordBatch {
    let plain = Table::Events.file_schema();
    let fields = plain.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Utf8 => DataType::Utf8View,
            DataType::List(_) => DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true))),
            other => other.clone(),
        };
        Field::new(field.name(), data_type, true)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    batch_with(schema, lines)
}

#[test]
fn a_line_becomes_a_row() {
    let line = r#"{"kind":"Event","auditID":"a-1","stage":"ResponseComplete","verb":"get","user":{"username":"alice","groups":["dev"]},"sourceIPs":["1.1.1.1","10.0.0.7"],"objectRef":{"resource":"secrets"},"responseStatus":{"metadata":{},"code":200},"requestObject":{"a": 1},"stageTimestamp":"2026-03-02T10:00:00.000001Z","annotations":{"authorization.k8s.io/decision":"allow"}}"#;
    for batch in [batch_of(&[line]), file_batch_of(&[line]), view_batch_of(&[line])] {
        assert_eq!(batch.num_rows(), 1);
        assert_eq!(batch.num_columns(), events::index::COUNT);
        assert_eq!(batch.column(events::index::AUTHZ_DECISION).null_count(), 0);
        assert_eq!(batch.column(events::index::NAMESPACE).null_count(), 1);
    }
}
