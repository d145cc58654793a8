//! Lists of events of other services: Loki, the CLI of CloudWatch Logs, OpenTelemetry, and JSON
//! arrays.
//!
//! - Loki pushes `{"streams":[{"stream":{…},"values":[["<time>","<line>"],…]},…]}`; a query returns
//!   such streams one by one.
//! - `aws logs filter-log-events` and `get-log-events` print
//!   `{"events":[{"timestamp":…,"message":"<event>","ingestionTime":…},…]}`.
//! - OpenTelemetry's JSON is
//!   `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"<event>"}}]}]}]}`.
//! - `gcloud logging read` and many tools print an array of entries or events.
//!
//! Invariants:
//! - Only the values at these places become events. Streams and resources that name a container
//!   other than an API server, and CLI messages of other log streams, are refused: what workloads
//!   write is beside the audit log there.
//! - Each list is parsed once, and its depth is fixed, so nothing here recurses.

use serde_json::value::RawValue;

use super::{Content, Record, eks, event, items, layers, short_items};
use crate::dialect::Dialect;
use crate::json::{self, Members};
use crate::reject::{Reason, Refusal};

pub(super) fn loki<'d>(members: &Members<'d>) -> Result<Vec<Record<'d>>, Refusal> {
    let mut records = Vec::new();
    if json::member(members, "streams").is_none() {
        stream(members, &mut records)?;
    }
    for item in items("streams", members)? {
        stream(&object("streams", item)?, &mut records)?;
    }
    bounded(records)
}

fn stream<'d>(members: &Members<'d>, records: &mut Vec<Record<'d>>) -> Result<(), Refusal> {
    let labels = json::object("stream", json::member(members, "stream"))?.unwrap_or(Members(Vec::new()));
    let label = |name| json::field(name, &labels, name).ok().flatten();
    let is_other = ["container", "container_name"]
        .iter()
        .filter_map(|name| label(name))
        .any(|name| !layers::writes_events(&name))
        || ["namespace", "namespace_name"]
            .iter()
            .filter_map(|name| label(name))
            .any(|name| !layers::is_of_system(&name));
    for value in items("values", members)? {
        let content = match serde_json::from_str::<Vec<&'d RawValue>>(value.get()) {
            Ok(_) if is_other => Content::Refused(layers::other_container()),
            Ok(parts) => event("values", parts.get(1).copied()),
            Err(_) => Content::Refused(Refusal::field("values", "an array of arrays")),
        };
        records.push(Record { item: value.get(), content, dialect: Dialect::Loki });
    }
    Ok(())
}

pub(super) fn cloud_watch_cli<'d>(members: &Members<'d>) -> Result<Vec<Record<'d>>, Refusal> {
    let record = |item: &'d RawValue| {
        let content = match object("events", item) {
            Ok(members) => cli_message(&members),
            Err(refusal) => Content::Refused(refusal),
        };
        Record { item: item.get(), content, dialect: Dialect::CloudWatchCli }
    };
    Ok(items("events", members)?.into_iter().map(record).collect())
}

fn cli_message<'d>(members: &Members<'d>) -> Content<'d> {
    let has = |name| json::member(members, name).is_some();
    if !has("logStreamName") && !has("ingestionTime") && !has("timestamp") {
        return Content::Refused(Refusal::new(Reason::NotAnAuditEvent, "not a message of CloudWatch Logs"));
    }
    match json::field("logStreamName", members, "logStreamName") {
        Ok(Some(name)) if !name.starts_with(eks::AUDIT_STREAM) => Content::Refused(eks::other_stream()),
        Ok(_) => event("events.message", json::member(members, "message")),
        Err(refusal) => Content::Refused(refusal),
    }
}

pub(super) fn open_telemetry<'d>(members: &Members<'d>) -> Result<Vec<Record<'d>>, Refusal> {
    let mut records = Vec::new();
    for resource in items("resourceLogs", members)? {
        let resource = object("resourceLogs", resource)?;
        let is_other = is_other_resource(&resource)?;
        for scope in items("scopeLogs", &resource)? {
            for item in items("logRecords", &object("scopeLogs", scope)?)? {
                let content = if is_other { Content::Refused(layers::other_container()) } else { body(item) };
                records.push(Record { item: item.get(), content, dialect: Dialect::OpenTelemetry });
            }
        }
    }
    bounded(records)
}

fn body(record: &RawValue) -> Content<'_> {
    let body =
        object("logRecords", record).and_then(|record| json::object("body", json::member(&record, "body")));
    match body {
        Ok(body) => event("body.stringValue", body.and_then(|body| json::member(&body, "stringValue"))),
        Err(refusal) => Content::Refused(refusal),
    }
}

/// Whether the attributes of a resource name a container other than an API server.
fn is_other_resource(resource: &Members<'_>) -> Result<bool, Refusal> {
    let Some(resource) = json::object("resource", json::member(resource, "resource"))? else {
        return Ok(false);
    };
    for attribute in items("attributes", &resource)? {
        let attribute = object("attributes", attribute)?;
        let Some(value) = json::object("attributes", json::member(&attribute, "value"))? else { continue };
        let Some(value) = json::field("attributes", &value, "stringValue")? else { continue };
        let is_other = match json::field("attributes", &attribute, "key")?.as_deref() {
            Some("k8s.container.name") => !layers::writes_events(&value),
            Some("k8s.namespace.name") => !layers::is_of_system(&value),
            _ => false,
        };
        if is_other {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the elements of a JSON array with an object in it. The elements of a wrapper in it are
/// those of the array.
pub(super) fn array(document: &str, depth_max: usize) -> Result<Vec<Record<'_>>, Refusal> {
    let elements: Vec<&RawValue> = serde_json::from_str(document)
        .map_err(|_| Refusal::new(Reason::NotAnAuditEvent, "an array that is not JSON"))?;
    if !elements.iter().any(|element| element.get().starts_with('{')) {
        return Err(Refusal::new(Reason::NotAnAuditEvent, "an array without an object"));
    }
    short_items(elements.iter().map(|element| element.get().len()))?;
    let mut records = Vec::new();
    for element in elements {
        let item = element.get();
        match super::records_of_object(item, depth_max) {
            Ok(inner) => records.extend(inner),
            Err(_) => {
                records.push(Record { item, content: element_content(item), dialect: Dialect::Document })
            }
        }
    }
    bounded(records)
}

fn element_content(item: &str) -> Content<'_> {
    match item.starts_with('{') {
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
