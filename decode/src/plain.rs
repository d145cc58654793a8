//! A second decoder, slow and simple: `serde_json`, one struct per event.
//!
//! It judges the fast decoder in property tests and fuzzing. It also decodes the few lines that the
//! fast decoder does not handle (those with a key written with escapes). Where the two parsers
//! disagree about a document, the parser used here is right.
//!
//! Invariant: nothing here uses code of the decoder that it judges. Nothing here knows of wrappers
//! either; [`crate::decode_alone`] handles those. No state.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{Array as _, RecordBatch};
use serde_json::value::RawValue;
use strongroom_schemas::events::index;
use strongroom_schemas::{Level, Stage};

use crate::json::{
    Members, WHITE, bounded_depth, code, field, first_value, json_object, member, object, string, strings,
    timestamp,
};
use crate::reject::{Reason, Refusal};

/// The columns that the bytes of an event determine, named as in [`strongroom_schemas::events`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlainEvent {
    pub audit_id: Option<String>,
    pub stage: Option<String>,
    pub level: Option<String>,
    pub verb: Option<String>,
    pub request_uri: Option<String>,
    pub user_name: Option<String>,
    pub user_uid: Option<String>,
    pub user_groups: Option<Vec<String>>,
    pub user_extra: Option<String>,
    pub impersonated_user_name: Option<String>,
    pub impersonated_user_groups: Option<Vec<String>>,
    pub impersonated_user_extra: Option<String>,
    pub source_ips: Option<Vec<String>>,
    pub user_agent: Option<String>,
    pub resource: Option<String>,
    pub subresource: Option<String>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub api_group: Option<String>,
    pub api_version: Option<String>,
    pub object_uid: Option<String>,
    pub resource_version: Option<String>,
    pub response_code: Option<i32>,
    pub response_status: Option<String>,
    pub response_reason: Option<String>,
    pub response_message: Option<String>,
    pub response_details: Option<String>,
    pub request_object: Option<String>,
    pub response_object: Option<String>,
    pub annotations: Option<String>,
    pub authz_decision: Option<String>,
    pub authz_reason: Option<String>,
    pub request_received_timestamp: Option<i64>,
    pub stage_timestamp: Option<i64>,
}

/// Decodes one event without a wrapper, or returns why the bytes are not one.
///
/// # Errors
/// The [`Refusal`] that the line is rejected with.
pub fn decode(bytes: &[u8], depth_max: usize) -> Result<PlainEvent, Refusal> {
    event(&members(bytes, depth_max)?)
}

/// Parses `bytes` as a JSON object, and returns its members.
pub(crate) fn members(bytes: &[u8], depth_max: usize) -> Result<Members<'_>, Refusal> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let reason = if bytes.contains(&0) { Reason::NulByte } else { Reason::InvalidUtf8 };
            return Err(Refusal::new(reason, format!("not UTF-8 at byte {}", error.valid_up_to())));
        }
    };
    if let Some(at) = memchr::memchr(0, bytes) {
        return Err(Refusal::new(Reason::NulByte, format!("NUL at byte {at}")));
    }
    // Depth is checked first, so that no recursive parser ever reads a hostile document.
    bounded_depth(bytes, depth_max)?;
    if text.trim_matches(WHITE).is_empty() {
        return Err(Refusal::new(Reason::BlankLine, "only white space"));
    }
    let document: &RawValue = serde_json::from_str(text).map_err(|error| broken(text, &error))?;
    if !document.get().trim_start().starts_with('{') {
        return Err(Refusal::new(Reason::NotAnAuditEvent, "not a JSON object"));
    }
    serde_json::from_str(document.get()).map_err(|error| broken(text, &error))
}

/// Returns the refusal of text that is not JSON. The refusal says what the text is instead, if that
/// is known.
fn broken(text: &str, error: &serde_json::Error) -> Refusal {
    if text.trim_end().ends_with("[Truncated...]") {
        return truncated(text);
    }
    // A line in the legacy format begins with its time. If the same text is inside JSON, a client
    // may have sent it.
    if !text.trim_start().starts_with('{') && text.contains(" AUDIT: id=\"") {
        return Refusal::new(Reason::LegacyFormat, "the text of --audit-log-format=legacy; set it to json");
    }
    // serde_json's message names the tokens it expected, never the input; its column counts bytes.
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or("not JSON").to_owned();
    Refusal::new(Reason::BrokenJson, format!("{what} at byte {}", error.column()))
}

/// Returns the refusal of an event that a cloud's log service truncated.
pub(crate) fn truncated(text: &str) -> Refusal {
    let detail = match cut_audit_id(text) {
        Some(id) => format!("ends in [Truncated...]; auditID {id}"),
        None => "ends in [Truncated...]".to_owned(),
    };
    Refusal::new(Reason::TruncatedByCloud, detail)
}

/// Longest auditID that a refusal repeats; the API server's have 36 bytes.
const AUDIT_ID_BYTES_MAX: usize = 64;
/// Maximum number of members before the auditID; the API server writes three.
const MEMBERS_BEFORE_AUDIT_ID_MAX: usize = 8;

/// Returns the auditID of an event that was cut off somewhere after it. `None` if a message must
/// not repeat the auditID. An auditID is not secret, but a client may have chosen it. Only the
/// event's own member counts, because a body may contain the same text.
fn cut_audit_id(text: &str) -> Option<&str> {
    let mut rest = text.trim_start_matches(WHITE).strip_prefix('{')?;
    for _ in 0..=MEMBERS_BEFORE_AUDIT_ID_MAX {
        let (key, after) = first_value(rest)?;
        let (value, after) = first_value(after.trim_start_matches(WHITE).strip_prefix(':')?)?;
        if key == "\"auditID\"" {
            let id = value.strip_prefix('"')?.strip_suffix('"')?;
            let visible = id.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
            return (visible && (1..=AUDIT_ID_BYTES_MAX).contains(&id.len())).then_some(id);
        }
        rest = after.trim_start_matches(WHITE).strip_prefix(',')?;
    }
    None
}

/// Refuses what is not an audit event, judged by the members that identify one.
pub(crate) fn require_event(
    kind: Option<&str>,
    api_version: Option<&str>,
    has_audit_id: bool,
) -> Result<(), Refusal> {
    let is_event = kind.is_none_or(|kind| kind == "Event");
    let is_audit = api_version.is_none_or(|version| version.starts_with("audit.k8s.io/"));
    if is_event && is_audit && (has_audit_id || (kind.is_some() && api_version.is_some())) {
        return Ok(());
    }
    let detail = if !is_event {
        "kind is not Event"
    } else if !is_audit {
        "apiVersion is not of audit.k8s.io"
    } else {
        "neither auditID nor the kind and apiVersion of an audit event"
    };
    Err(Refusal::new(Reason::NotAnAuditEvent, detail))
}

/// Returns the event that has these members, or why they are not one.
pub(crate) fn event(members: &Members<'_>) -> Result<PlainEvent, Refusal> {
    let last = |name: &str| members.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value);
    let string_of = |name: &'static str| match last(name) {
        Some(value) => string(name, value),
        None => Ok(None),
    };
    let text_if_string =
        |name: &str| last(name).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    let (kind, api_version) = (last("kind"), text_if_string("apiVersion"));
    // No audit event has a kind that is not a string.
    let kind = kind
        .filter(|value| value.get() != "null")
        .map(|value| serde_json::from_str::<String>(value.get()).unwrap_or_default());
    let has_audit_id = text_if_string("auditID").is_some();
    require_event(kind.as_deref(), api_version.as_deref(), has_audit_id)?;

    let mut event = PlainEvent {
        audit_id: string_of("auditID")?,
        stage: string_of("stage")?,
        level: string_of("level")?,
        verb: string_of("verb")?,
        request_uri: string_of("requestURI")?,
        user_agent: string_of("userAgent")?,
        ..PlainEvent::default()
    };
    if let Some(stage) = &event.stage {
        stage
            .parse::<Stage>()
            .map_err(|error| Refusal::field("stage", &format!("one of {}", error.expected)))?;
    }
    if let Some(level) = &event.level {
        level
            .parse::<Level>()
            .map_err(|error| Refusal::field("level", &format!("one of {}", error.expected)))?;
    }
    if let Some(user) = object("user", last("user"))? {
        event.user_name = field("user.username", &user, "username")?;
        event.user_uid = field("user.uid", &user, "uid")?;
        event.user_groups = strings("user.groups", member(&user, "groups"))?;
        event.user_extra = json_object("user.extra", member(&user, "extra"))?;
    }
    if let Some(user) = object("impersonatedUser", last("impersonatedUser"))? {
        event.impersonated_user_name = field("impersonatedUser.username", &user, "username")?;
        event.impersonated_user_groups = strings("impersonatedUser.groups", member(&user, "groups"))?;
        event.impersonated_user_extra = json_object("impersonatedUser.extra", member(&user, "extra"))?;
    }
    event.source_ips = strings("sourceIPs", last("sourceIPs"))?;
    if let Some(reference) = object("objectRef", last("objectRef"))? {
        event.resource = field("objectRef.resource", &reference, "resource")?;
        event.namespace = field("objectRef.namespace", &reference, "namespace")?;
        event.name = field("objectRef.name", &reference, "name")?;
        event.object_uid = field("objectRef.uid", &reference, "uid")?;
        event.api_group = field("objectRef.apiGroup", &reference, "apiGroup")?;
        event.api_version = field("objectRef.apiVersion", &reference, "apiVersion")?;
        event.resource_version = field("objectRef.resourceVersion", &reference, "resourceVersion")?;
        event.subresource = field("objectRef.subresource", &reference, "subresource")?;
    }
    if let Some(status) = object("responseStatus", last("responseStatus"))? {
        event.response_status = field("responseStatus.status", &status, "status")?;
        event.response_message = field("responseStatus.message", &status, "message")?;
        event.response_reason = field("responseStatus.reason", &status, "reason")?;
        event.response_details = json_object("responseStatus.details", member(&status, "details"))?;
        event.response_code = code("responseStatus.code", member(&status, "code"))?;
    }
    let body =
        |name: &str| last(name).filter(|value| value.get() != "null").map(|value| value.get().to_owned());
    event.request_object = body("requestObject");
    event.response_object = body("responseObject");
    event.request_received_timestamp =
        timestamp("requestReceivedTimestamp", last("requestReceivedTimestamp"))?;
    event.stage_timestamp = timestamp("stageTimestamp", last("stageTimestamp"))?;
    event.annotations = json_object("annotations", last("annotations"))?;
    if let Some(annotations) = object("annotations", last("annotations"))? {
        event.authz_decision = field(AUTHZ_DECISION_FIELD, &annotations, AUTHZ_DECISION)?;
        event.authz_reason = field(AUTHZ_REASON_FIELD, &annotations, AUTHZ_REASON)?;
    }
    Ok(event)
}

pub(crate) const AUTHZ_DECISION: &str = "authorization.k8s.io/decision";
pub(crate) const AUTHZ_REASON: &str = "authorization.k8s.io/reason";
pub(crate) const AUTHZ_DECISION_FIELD: &str = "annotations[authorization.k8s.io/decision]";
pub(crate) const AUTHZ_REASON_FIELD: &str = "annotations[authorization.k8s.io/reason]";

/// Reads a row of an `events` batch back into a [`PlainEvent`], for comparison.
///
/// # Panics
/// If the batch does not have the columns of `Table::Events.batch_schema()`.
pub fn row(batch: &RecordBatch, row: usize) -> PlainEvent {
    let dictionary = |at: usize| {
        let column = batch.column(at).as_dictionary::<Int32Type>();
        column
            .is_valid(row)
            .then(|| column.values().as_string::<i32>().value(column.keys().value(row) as usize).to_owned())
    };
    let plain = |at: usize| {
        let column = batch.column(at).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let list = |at: usize| {
        let column = batch.column(at).as_list::<i32>();
        column.is_valid(row).then(|| {
            let items = column.value(row);
            let items = items.as_dictionary::<Int32Type>();
            let values = items.values().as_string::<i32>();
            items.keys().iter().map(|key| values.value(key.unwrap_or(0) as usize).to_owned()).collect()
        })
    };
    let timestamp = |at: usize| {
        let column = batch.column(at).as_primitive::<TimestampMicrosecondType>();
        column.is_valid(row).then(|| column.value(row))
    };
    let code = batch.column(index::RESPONSE_CODE).as_primitive::<Int32Type>();
    PlainEvent {
        audit_id: plain(index::AUDIT_ID),
        stage: dictionary(index::STAGE),
        level: dictionary(index::LEVEL),
        verb: dictionary(index::VERB),
        request_uri: dictionary(index::REQUEST_URI),
        user_name: dictionary(index::USER_NAME),
        user_uid: dictionary(index::USER_UID),
        user_groups: list(index::USER_GROUPS),
        user_extra: dictionary(index::USER_EXTRA),
        impersonated_user_name: dictionary(index::IMPERSONATED_USER_NAME),
        impersonated_user_groups: list(index::IMPERSONATED_USER_GROUPS),
        impersonated_user_extra: dictionary(index::IMPERSONATED_USER_EXTRA),
        source_ips: list(index::SOURCE_IPS),
        user_agent: dictionary(index::USER_AGENT),
        resource: dictionary(index::RESOURCE),
        subresource: dictionary(index::SUBRESOURCE),
        namespace: dictionary(index::NAMESPACE),
        name: dictionary(index::NAME),
        api_group: dictionary(index::API_GROUP),
        api_version: dictionary(index::API_VERSION),
        object_uid: dictionary(index::OBJECT_UID),
        resource_version: plain(index::RESOURCE_VERSION),
        response_code: code.is_valid(row).then(|| code.value(row)),
        response_status: dictionary(index::RESPONSE_STATUS),
        response_reason: dictionary(index::RESPONSE_REASON),
        response_message: dictionary(index::RESPONSE_MESSAGE),
        response_details: dictionary(index::RESPONSE_DETAILS),
        request_object: plain(index::REQUEST_OBJECT),
        response_object: plain(index::RESPONSE_OBJECT),
        annotations: dictionary(index::ANNOTATIONS),
        authz_decision: dictionary(index::AUTHZ_DECISION),
        authz_reason: dictionary(index::AUTHZ_REASON),
        request_received_timestamp: timestamp(index::REQUEST_RECEIVED_TIMESTAMP),
        stage_timestamp: timestamp(index::STAGE_TIMESTAMP),
    }
}
