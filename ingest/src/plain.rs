//! A second decoder, slow and simple: `serde_json`, one struct for each event.
//!
//! It judges the fast decoder in property tests and fuzzing, and it takes the few lines whose form the
//! fast one does not follow (a key written with escapes). What it accepts is what is accepted: where
//! the two parsers disagree about a document, this one's view holds.

use std::borrow::Cow;
use std::fmt;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{Array as _, RecordBatch};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use strongroom_schemas::events::index;
use strongroom_schemas::{Level, Stage};

use crate::reject::{Reason, Refusal};
use crate::time;
use crate::wrapper;

/// The columns that an event's own bytes decide, in the words of [`strongroom_schemas::events`].
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

/// Members of a JSON object in order, keys unescaped, values as text.
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(key), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Nesting depth of a JSON text: how many containers are open at the deepest point.
pub fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    deepest
}

/// Refuses what is nested deeper than `depth_max`.
pub(crate) fn bounded_depth(text: &[u8], depth_max: usize) -> Result<(), Refusal> {
    let deepest = depth(text);
    if deepest > depth_max {
        return Err(Refusal::new(
            Reason::TooDeep,
            format!("nested {deepest} deep, at most {depth_max} is read"),
        ));
    }
    Ok(())
}

/// Decodes one event, bare or alone in a cloud's wrapper, or says why the bytes are none.
pub fn decode(bytes: &[u8], depth_max: usize) -> Result<PlainEvent, Refusal> {
    decode_event(bytes, depth_max).or_else(|refusal| wrapper::only_event(bytes, refusal, depth_max))
}

/// Decodes one event that nothing is wrapped around.
pub(crate) fn decode_event(bytes: &[u8], depth_max: usize) -> Result<PlainEvent, Refusal> {
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
    // The depth is judged first: it keeps a hostile document from any recursive parser.
    bounded_depth(bytes, depth_max)?;
    if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
        return Err(Refusal::new(Reason::BlankLine, "white space alone"));
    }
    let document: &RawValue = serde_json::from_str(text).map_err(|error| broken(text, &error))?;
    if !document.get().trim_start().starts_with('{') {
        return Err(Refusal::new(Reason::NotAnAuditEvent, "not a JSON object"));
    }
    let members: Members<'_> = serde_json::from_str(document.get()).map_err(|error| broken(text, &error))?;
    event(&members)
}

/// A refusal for text that is not JSON, naming what it is when that can be told.
pub(crate) fn broken(text: &str, error: &serde_json::Error) -> Refusal {
    if text.trim_end().ends_with("[Truncated...]") {
        let detail = match cut_audit_id(text) {
            Some(id) => format!("ends in [Truncated...]; auditID {id}"),
            None => "ends in [Truncated...]".to_owned(),
        };
        return Refusal::new(Reason::TruncatedByCloud, detail);
    }
    // A legacy line begins with its time. Inside of JSON the same text is what some client sent.
    if !text.trim_start().starts_with('{') && text.contains(" AUDIT: id=\"") {
        return Refusal::new(Reason::LegacyFormat, "the text of --audit-log-format=legacy; set it to json");
    }
    // The message of serde_json names tokens it expected, never the input; its column counts bytes.
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or("not JSON").to_owned();
    Refusal::new(Reason::BrokenJson, format!("{what} at byte {}", error.column()))
}

/// Longest auditID that a refusal repeats; the API server's own have 36 bytes.
const AUDIT_ID_BYTES_MAX: usize = 64;
/// Members that may stand before it; the API server writes three.
const MEMBERS_BEFORE_AUDIT_ID_MAX: usize = 8;

/// The auditID of an event that is cut behind it, when it can be repeated: it is not secret, but a client may
/// choose it. Only the event's own member is it; in a body the same text may stand.
fn cut_audit_id(text: &str) -> Option<&str> {
    const WHITE: [char; 4] = [' ', '\t', '\r', '\n'];
    let head = wrapper::export_head(text.as_bytes()).and_then(Result::ok).unwrap_or(0);
    let mut rest = text.get(head..)?.trim_start_matches(WHITE).strip_prefix('{')?;
    for _ in 0..=MEMBERS_BEFORE_AUDIT_ID_MAX {
        let (key, behind) = first_value(rest)?;
        let (value, behind) = first_value(behind.trim_start_matches(WHITE).strip_prefix(':')?)?;
        if key == "\"auditID\"" {
            let id = value.strip_prefix('"')?.strip_suffix('"')?;
            let visible = id.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
            return (visible && (1..=AUDIT_ID_BYTES_MAX).contains(&id.len())).then_some(id);
        }
        rest = behind.trim_start_matches(WHITE).strip_prefix(',')?;
    }
    None
}

/// The JSON value that `text` begins with, and what is behind it.
fn first_value(text: &str) -> Option<(&str, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next()?.ok()?;
    Some((value.get(), &text[values.byte_offset()..]))
}

/// Names the wrapper that has these members.
pub(crate) fn wrapper(keys: &[&str]) -> Option<&'static str> {
    wrapper::Kind::of(keys).map(wrapper::Kind::name)
}

/// Refuses what is no audit event, from the members that say so.
pub(crate) fn require_event(
    kind: Option<&str>,
    api_version: Option<&str>,
    has_audit_id: bool,
    keys: impl Fn() -> Option<&'static str>,
) -> Result<(), Refusal> {
    let is_event = kind.is_none_or(|kind| kind == "Event");
    let is_audit = api_version.is_none_or(|version| version.starts_with("audit.k8s.io/"));
    if is_event && is_audit && (has_audit_id || (kind.is_some() && api_version.is_some())) {
        return Ok(());
    }
    if let Some(wrapper) = keys() {
        return Err(Refusal::new(Reason::Wrapped, wrapper));
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

fn event(members: &Members<'_>) -> Result<PlainEvent, Refusal> {
    let last = |name: &str| members.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value);
    let string_of = |name: &'static str| match last(name) {
        Some(value) => string(name, value),
        None => Ok(None),
    };
    let text_if_string =
        |name: &str| last(name).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    let (kind, api_version) = (last("kind"), text_if_string("apiVersion"));
    // A kind that is no string is none that an audit event has.
    let kind = kind
        .filter(|value| value.get() != "null")
        .map(|value| serde_json::from_str::<String>(value.get()).unwrap_or_default());
    let has_audit_id = text_if_string("auditID").is_some();
    require_event(kind.as_deref(), api_version.as_deref(), has_audit_id, || {
        let keys: Vec<&str> = members.0.iter().map(|(key, _)| key.as_ref()).collect();
        wrapper(&keys)
    })?;

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

pub(crate) fn member<'a>(members: &Members<'a>, name: &str) -> Option<&'a RawValue> {
    members.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
}

fn string(name: &str, value: &RawValue) -> Result<Option<String>, Refusal> {
    serde_json::from_str::<Option<String>>(value.get()).map_err(|_| Refusal::field(name, "a string"))
}

pub(crate) fn field(name: &str, members: &Members<'_>, key: &str) -> Result<Option<String>, Refusal> {
    member(members, key).map_or(Ok(None), |value| string(name, value))
}

pub(crate) fn object<'a>(name: &str, value: Option<&'a RawValue>) -> Result<Option<Members<'a>>, Refusal> {
    let Some(value) = value.filter(|value| value.get() != "null") else { return Ok(None) };
    serde_json::from_str(value.get()).map(Some).map_err(|_| Refusal::field(name, "an object"))
}

pub(crate) fn code(name: &str, value: Option<&RawValue>) -> Result<Option<i32>, Refusal> {
    match value.map(RawValue::get).filter(|value| *value != "null") {
        // JSON's -0 is an integer to Go, a float to serde_json.
        Some("-0") => Ok(Some(0)),
        Some(code) => {
            serde_json::from_str(code).map(Some).map_err(|_| Refusal::field(name, "a 32-bit integer"))
        }
        None => Ok(None),
    }
}

pub(crate) fn json_object(name: &str, value: Option<&RawValue>) -> Result<Option<String>, Refusal> {
    match value.filter(|value| value.get() != "null") {
        None => Ok(None),
        Some(value) if value.get().starts_with('{') => Ok(Some(value.get().to_owned())),
        Some(_) => Err(Refusal::field(name, "an object")),
    }
}

fn strings(name: &str, value: Option<&RawValue>) -> Result<Option<Vec<String>>, Refusal> {
    value.map_or(Ok(None), |value| {
        serde_json::from_str::<Option<Vec<String>>>(value.get())
            .map_err(|_| Refusal::field(name, "an array of strings"))
    })
}

pub(crate) fn timestamp(name: &str, value: Option<&RawValue>) -> Result<Option<i64>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    match string(name, value)? {
        None => Ok(None),
        Some(text) => {
            time::parse(&text).map(Some).ok_or_else(|| Refusal::field(name, "an RFC 3339 timestamp"))
        }
    }
}

/// Reads a row of an `events` batch back into a [`PlainEvent`], for comparison.
///
/// # Panics
/// When the batch does not have the columns of `Table::Events.batch_schema()`.
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
