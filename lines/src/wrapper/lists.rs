//! Lists of events of other services: Loki, the CLI of CloudWatch Logs, OpenTelemetry, and JSON
//! arrays.
//!
//! - Loki pushes `{"streams":[{"stream":{…},"values":[["<time>","<line>"],…]},…]}`; a query returns
//!   such streams one by one.
//! - `aws logs filter-log-events` and `get-log-events` print
//!   `{"events":[{"timestamp":…,"message":"<event>","ingestionTime":…},…]}`.
//! - OpenTelemetry's JSON is
//!   `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"<event>"}}]}]}]}`.
//! - `gcloud logging read` and many tools print an array of entries or events. The CLI of AWS, with
//!   `--query 'events[].message'`, prints an array of strings that contain events.
//!
//! Invariants:
//! - Only the values at these places become events. A value is refused if its metadata names a
//!   container other than an API server, and a CLI message is refused if it is from another log
//!   stream: these services keep the output of workloads beside the audit log.
//! - Each list is parsed once, and its depth is fixed, so nothing here recurses.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::origin::Origin;
use super::writers::Writers;
use super::{Content, Record, event, items, parts, refused_for, short_items};
use crate::dialect::Dialect;
use crate::json::{self, Members};
use crate::reject::{Reason, Refusal};

pub(super) fn loki<'d>(members: &Members<'d>, writers: &Writers) -> Result<Vec<Record<'d>>, Refusal> {
    let mut records = Vec::new();
    if json::member(members, "streams").is_none() {
        stream(members, writers, &mut records)?;
    }
    for item in items("streams", members)? {
        stream(&object("streams", item)?, writers, &mut records)?;
    }
    bounded(records)
}

fn stream<'d>(
    members: &Members<'d>,
    writers: &Writers,
    records: &mut Vec<Record<'d>>,
) -> Result<(), Refusal> {
    let labels = json::object("stream", json::member(members, "stream"))?.unwrap_or(Members(Vec::new()));
    let origin = Origin::of_labels(&labels, &[]);
    let is_part = is_part(&labels);
    for value in items("values", members)? {
        let content = match serde_json::from_str::<Vec<&'d RawValue>>(value.get()) {
            // The third element is structured metadata, which has labels too.
            Ok(parts) => match of_line(&origin, parts.get(2).copied()).other(writers) {
                Some(other) => Content::Refused(refused_for(&other, parts.get(1).copied())),
                None if is_part || parts.get(2).is_some_and(|labels| is_part_of(labels)) => {
                    Content::Refused(parts::refusal())
                }
                None => event("values", parts.get(1).copied()),
            },
            Err(_) => Content::Refused(Refusal::field("values", "an array of arrays")),
        };
        records.push(Record { item: value.get(), content, dialect: Dialect::Loki });
    }
    Ok(())
}

/// Returns the origin of a line, from the labels of its stream and its own labels.
fn of_line<'o>(stream: &'o Origin, labels: Option<&RawValue>) -> Cow<'o, Origin> {
    match labels {
        None => Cow::Borrowed(stream),
        Some(labels) => {
            let mut origin = stream.clone();
            origin.add_labels_of(Some(labels));
            Cow::Owned(origin)
        }
    }
}

/// Whether labels say that a line is a part.
fn is_part(labels: &Members<'_>) -> bool {
    labels.0.iter().any(|(name, value)| {
        let value = json::string(name, value).ok().flatten();
        value.is_some_and(|value| parts::is_tag_of_part(name, &value))
    })
}

fn is_part_of(labels: &RawValue) -> bool {
    serde_json::from_str::<Members<'_>>(labels.get()).is_ok_and(|labels| is_part(&labels))
}

pub(super) fn cloud_watch_cli<'d>(
    members: &Members<'d>,
    writers: &Writers,
) -> Result<Vec<Record<'d>>, Refusal> {
    // The streams that the command searched. They count for messages that do not name their stream.
    let searched = json::member(members, "searchedLogStreams").map(|streams| {
        let streams: Members<'_> = Members(vec![("".into(), streams)]);
        Origin::of(&streams, &[])
    });
    let record = |item: &'d RawValue| {
        let content = match object("events", item) {
            Ok(members) => cli_message(&members, searched.as_ref(), writers),
            Err(refusal) => Content::Refused(refusal),
        };
        Record { item: item.get(), content, dialect: Dialect::CloudWatchCli }
    };
    Ok(items("events", members)?.into_iter().map(record).collect())
}

fn cli_message<'d>(members: &Members<'d>, searched: Option<&Origin>, writers: &Writers) -> Content<'d> {
    let has = |name| json::member(members, name).is_some();
    if !has("logStreamName") && !has("ingestionTime") && !has("timestamp") {
        return Content::Refused(Refusal::new(Reason::NotAnAuditEvent, "not a message of CloudWatch Logs"));
    }
    let message = json::member(members, "message");
    let searched = searched.filter(|_| !has("logStreamName"));
    let other = Origin::of(members, message.as_slice()).other(writers);
    match other.or_else(|| searched.and_then(|searched| searched.other(writers))) {
        Some(other) => Content::Refused(refused_for(&other, message)),
        None => event("events.message", message),
    }
}

pub(super) fn open_telemetry<'d>(
    members: &Members<'d>,
    writers: &Writers,
) -> Result<Vec<Record<'d>>, Refusal> {
    let mut records = Vec::new();
    for resource in items("resourceLogs", members)? {
        let resource = object("resourceLogs", resource)?;
        let of_resource = Origin::of_labels(&resource, json::member(&resource, "scopeLogs").as_slice());
        for scope in items("scopeLogs", &resource)? {
            let scope = object("scopeLogs", scope)?;
            let mut of_scope = of_resource.clone();
            of_scope.add_labels(&scope, json::member(&scope, "logRecords").as_slice());
            for item in items("logRecords", &scope)? {
                let content = body(item, of_scope.clone(), writers);
                records.push(Record { item: item.get(), content, dialect: Dialect::OpenTelemetry });
            }
        }
    }
    bounded(records)
}

fn body<'d>(record: &'d RawValue, mut origin: Origin, writers: &Writers) -> Content<'d> {
    let content = object("logRecords", record).and_then(|record| {
        let body = json::member(&record, "body");
        origin.add_labels(&record, body.as_slice());
        if let Some(other) = origin.other(writers) {
            return Err(refused_for(&other, body));
        }
        if is_part_by(items("attributes", &record).unwrap_or_default()) {
            return Err(parts::refusal());
        }
        let body = json::object("body", body)?;
        if let Some(members) = body.as_ref().and_then(|body| json::member(body, "kvlistValue")) {
            return member_of_body(members, writers);
        }
        Ok(event("body.stringValue", body.and_then(|body| json::member(&body, "stringValue"))))
    });
    content.unwrap_or_else(Content::Refused)
}

/// Takes the text of a line out of a body that is a list of members. A receiver that reads records
/// of journald, or of JSON, makes such bodies.
fn member_of_body<'d>(members: &'d RawValue, writers: &Writers) -> Result<Content<'d>, Refusal> {
    const TEXTS: [&str; 3] = ["MESSAGE", "message", "log"];
    let list = object("body.kvlistValue", members)?;
    if is_part_by(items("values", &list)?) {
        return Err(parts::refusal());
    }
    let mut text = None;
    for member in items("values", &list)? {
        let member = object("body.kvlistValue.values", member)?;
        let key = json::field("key", &member, "key")?;
        // A client writes the text in an object of Kubernetes, such as the message of a core event.
        if key.as_deref().is_some_and(|key| ["apiVersion", "auditID", "metadata"].contains(&key)) {
            let of_kubernetes = "the text of an object of Kubernetes";
            return Err(Refusal::new(Reason::NotAnAuditEvent, of_kubernetes));
        }
        if key.is_some_and(|key| TEXTS.contains(&key.as_str())) {
            let value = json::object("value", json::member(&member, "value"))?;
            text = value.and_then(|value| json::member(&value, "stringValue")).or(text);
        }
    }
    if let Some(other) = Origin::of_labels(&list, text.as_slice()).other(writers) {
        return Err(refused_for(&other, text));
    }
    let parsed = "body.kvlistValue is an event that a collector has parsed: keep its text as the body, without \
                  json_parser, or export with the body as a string";
    match text {
        Some(text) => Ok(Content::Event(text.get())),
        None => Err(Refusal::new(Reason::Wrapped, parsed)),
    }
}

/// Whether attributes of a record say that its body is a part.
fn is_part_by(attributes: Vec<&RawValue>) -> bool {
    let says = |attribute: &RawValue| {
        let attribute = serde_json::from_str::<Members<'_>>(attribute.get()).ok()?;
        let key = json::field("key", &attribute, "key").ok()??;
        let value = json::object("value", json::member(&attribute, "value")).ok()??;
        let text = json::field("value", &value, "stringValue").ok()?;
        let is_true = json::member(&value, "boolValue").is_some_and(|value| value.get() == "true");
        let text = if is_true { Some("true".to_owned()) } else { text };
        Some(parts::is_tag_of_part(&key, &text?))
    };
    attributes.into_iter().any(|attribute| says(attribute).unwrap_or(false))
}

/// Returns the records of a JSON array that contains an object, or whose first element is a string
/// with an event in it. If an element is a wrapper, the elements of that wrapper take its place.
pub(super) fn array<'d>(
    document: &'d str,
    depth_max: usize,
    writers: &Writers,
) -> Result<Vec<Record<'d>>, Refusal> {
    let elements: Vec<&RawValue> = serde_json::from_str(document)
        .map_err(|_| Refusal::new(Reason::NotAnAuditEvent, "an array that is not JSON"))?;
    let first = elements.first().map_or("", |first| first.get());
    let is_foreign = !super::is_element_of_log(first.as_bytes());
    let is_of_strings = first.starts_with('"') && !is_foreign;
    if !is_of_strings && !elements.iter().any(|element| element.get().starts_with('{')) {
        return Err(Refusal::new(Reason::NotAnAuditEvent, "an array without an object"));
    }
    short_items(elements.iter().map(|element| element.get().len()))?;
    let mut records = Vec::new();
    for (at, element) in elements.into_iter().enumerate() {
        let item = element.get();
        if is_foreign && at > 0 {
            records.push(Record { item, content: Content::Foreign, dialect: Dialect::Document });
            continue;
        }
        match super::records_of_object(item, depth_max, writers) {
            Ok(inner) => records.extend(inner),
            Err(_) => {
                records.push(Record { item, content: element_content(item), dialect: Dialect::Document })
            }
        }
    }
    bounded(records)
}

fn element_content(item: &str) -> Content<'_> {
    let is_text_of_one = || {
        let text = item.starts_with('"').then(|| serde_json::from_str::<String>(item));
        text.is_some_and(|text| text.is_ok_and(|text| text.trim_ascii_start().starts_with('{')))
    };
    match item.starts_with('{') || is_text_of_one() {
        true => Content::Event(item),
        false => Content::Refused(Refusal::new(Reason::NotAnAuditEvent, "not a JSON object")),
    }
}

fn object<'d>(name: &'static str, value: &'d RawValue) -> Result<Members<'d>, Refusal> {
    serde_json::from_str(value.get()).map_err(|_| Refusal::field(name, "an array of objects"))
}

fn bounded(records: Vec<Record<'_>>) -> Result<Vec<Record<'_>>, Refusal> {
    short_items(records.iter().map(|record| record.item.len()))?;
    Ok(records)
}
