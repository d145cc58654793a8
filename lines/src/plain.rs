//! A second decoder, which is slow and simple: it reads with `serde_json` and `tolerant`, and makes
//! one struct per event.
//!
//! Property tests and fuzzing compare the fast decoder with it. It also decodes lines that the fast
//! decoder does not handle: lines with an escape in a key, lines with a part that cannot be read,
//! and very long lines. Where two parsers disagree about a document, the parsers used here decide.
//!
//! Invariant: this module uses no code of the fast decoder, which is compared with it. A text that
//! is JSON is read with `serde_json` alone, and `crate::tolerant` would read the same from it. The
//! module does not know wrappers; [`crate::decode_alone`] opens them. No state.

use serde_json::value::RawValue;
use strongroom_schemas::format::EVENTS_FORMAT;
use strongroom_schemas::marks::{Unread, fault_text};
use strongroom_schemas::{Level, Stage};

use crate::json::{Members, WHITE, bounded_depth, first_value};
use crate::limits::LINE_BYTES_MAX;
use crate::reject::{Reason, Refusal, SAID_ID};
use crate::spread::{self, IMPERSONATED_MEMBERS, OBJECT_MEMBERS, STATUS_MEMBERS, USER_MEMBERS};
use crate::tolerant::{self, EVENT, Faults, Object, Text};

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
    pub faults: Option<Vec<String>>,
}

impl PlainEvent {
    /// Returns true if the event's text ends, or is not JSON, before the event's end.
    pub fn is_cut(&self) -> bool {
        let is_cut = |fault: &String| {
            [Unread::NotJson, Unread::TooLong].iter().any(|cut| *fault == fault_text(EVENT, *cut))
        };
        self.faults.iter().flatten().any(is_cut)
    }
}

/// Members of an event that have a column, or are objects whose members have columns.
const MEMBERS: [&str; 16] = [
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "impersonatedUser",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "responseStatus",
    "requestObject",
    "responseObject",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "annotations",
];
/// Members in which some collectors put the event's level, because they use `level` for a level of
/// their own. The first of these members that is present counts.
pub const LEVELS_OF_COLLECTORS: [&str; 2] = ["k8s_audit_level", "openshift_audit_level"];

/// The first `eventsFormat` in which a part that cannot be read is a fault, and its event is still
/// a row.
pub const FORMAT_OF_FAULTS: u32 = 2;

/// Decodes one event without a wrapper, or returns why the bytes are not one.
///
/// # Errors
/// The [`Refusal`] that the line is rejected with.
pub fn decode(bytes: &[u8], depth_max: usize) -> Result<PlainEvent, Refusal> {
    read(bytes, depth_max, EVENTS_FORMAT, &|_, _| None).map_err(|refused| refused.refusal)
}

/// Judges a member beside the event's own members, by its name and its text. Returns a refusal if
/// the member says that something other than an API server wrote the event.
pub(crate) type Beside<'j> = &'j dyn Fn(&str, Option<&str>) -> Option<Refusal>;

/// Bytes that are not an event.
pub(crate) struct Refused<'t> {
    pub(crate) refusal: Refusal,
    /// The members of the object, if the bytes are an object that can be read.
    pub(crate) members: Option<Members<'t>>,
}

/// Decodes one event, whose text may be cut, by the rules of an `eventsFormat`.
pub(crate) fn read<'t>(
    bytes: &'t [u8],
    depth_max: usize,
    format: u32,
    beside: Beside<'_>,
) -> Result<PlainEvent, Refused<'t>> {
    let (text, members, refusal) = match members(bytes, depth_max) {
        Ok(members) => (Some(Text::strict(&members)), Some(members), None),
        Err(refusal) => {
            (tolerant::read(bytes, depth_max, |name| MEMBERS.contains(&name)), None, Some(refusal))
        }
    };
    let Some(text) = text else {
        let refusal = refusal.unwrap_or_else(|| Refusal::new(Reason::NotAnAuditEvent, "not a JSON object"));
        return Err(Refused { refusal, members });
    };
    let other = if format >= FORMAT_OF_FAULTS { text.object.judge_others(is_of_event, beside) } else { None };
    match (event(text, bytes.len(), format), other) {
        (Ok(event), None) => Ok(event),
        (Ok(_), Some(other)) => Err(Refused { refusal: other, members: None }),
        (Err(why), _) => Err(Refused { refusal: refusal.unwrap_or(why), members }),
    }
}

/// Whether a member of this name is one of an audit event.
pub(crate) fn is_of_event(name: &str) -> bool {
    MEMBERS.contains(&name)
        || ["kind", "apiVersion", "metadata", "authenticationMetadata"].contains(&name)
        || spread::is_spread(name)
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
        Some(id) => format!("ends in [Truncated...]{SAID_ID}{id}"),
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

/// Checks the members that identify an audit event.
///
/// # Errors
/// A [`Refusal`], if the members are not those of an audit event.
pub fn require_event(
    kind: Option<&str>,
    api_version: Option<&str>,
    is_identified: bool,
) -> Result<(), Refusal> {
    let is_event = kind.is_none_or(|kind| kind == "Event");
    let is_audit = api_version.is_none_or(|version| version.starts_with("audit.k8s.io/"));
    if is_event && is_audit && (is_identified || (kind.is_some() && api_version.is_some())) {
        return Ok(());
    }
    let detail = if !is_event {
        "kind is not Event"
    } else if !is_audit {
        "apiVersion is not of audit.k8s.io"
    } else {
        "neither auditID, nor the kind and apiVersion of an audit event, nor a request and its user"
    };
    Err(Refusal::new(Reason::NotAnAuditEvent, detail))
}

/// Returns the event that was read from a text of `text_bytes` bytes, or why the text is not an
/// event.
fn event(text: Text<'_>, text_bytes: usize, format: u32) -> Result<PlainEvent, Refusal> {
    let Text { object, mut faults, is_cut } = text;
    let put_together =
        if format >= FORMAT_OF_FAULTS { spread::nested(&object, &mut faults) } else { Vec::new() };
    let members = object.with(&put_together);
    let user = members.object("user", &mut faults);
    let is_request = ["method", "requestURI"].iter().all(|name| members.has(name))
        && !["verb", "stage", "level"].iter().any(|name| members.has(name));
    let has_other_user = user.as_ref().is_some_and(|user| user.has("name") && !user.has("username"));
    if !members.has("kind") && (is_request || has_other_user) && format >= FORMAT_OF_FAULTS {
        let other = "a record of Rancher's API audit log, not of a Kubernetes API server";
        return Err(Refusal::new(Reason::NotAnAuditEvent, other));
    }
    // The kind of an audit event is a string, so a kind of another type counts as one that is not
    // `Event`.
    let kind = members.has("kind").then(|| members.plain_string("kind").unwrap_or_default());
    let names_request =
        user.is_some() && ["verb", "requestURI", "stage"].iter().all(|name| members.is_string(name));
    let is_identified = members.is_string("auditID") || names_request;
    require_event(kind.as_deref(), members.plain_string("apiVersion").as_deref(), is_identified)?;
    if is_cut && !(user.is_some() && ["verb", "requestURI"].iter().any(|name| members.is_string(name))) {
        return Err(Refusal::new(Reason::BrokenJson, "cut before the request and its user"));
    }

    members.duplicates(|name| MEMBERS.contains(&name), &mut faults);
    let mut event = PlainEvent {
        audit_id: members.string("auditID", &mut faults),
        stage: members.string("stage", &mut faults),
        level: level(&members, format, &mut faults),
        verb: members.string("verb", &mut faults),
        request_uri: members.string("requestURI", &mut faults),
        user_agent: members.string("userAgent", &mut faults),
        source_ips: members.strings("sourceIPs", &mut faults),
        request_object: members.any("requestObject"),
        response_object: members.any("responseObject"),
        request_received_timestamp: members.time("requestReceivedTimestamp", &mut faults),
        stage_timestamp: members.time("stageTimestamp", &mut faults),
        annotations: members.json_object("annotations", &mut faults),
        ..PlainEvent::default()
    };
    if event.stage.as_ref().is_some_and(|stage| stage.parse::<Stage>().is_err()) {
        faults.add("/stage", Unread::UnknownStage);
    }
    if let Some(user) = user {
        user.duplicates(|name| USER_MEMBERS.contains(&name), &mut faults);
        event.user_name = user.string("username", &mut faults);
        event.user_uid = user.string("uid", &mut faults);
        event.user_groups = user.strings("groups", &mut faults);
        event.user_extra = user.json_object("extra", &mut faults);
    }
    if let Some(user) = members.object("impersonatedUser", &mut faults) {
        user.duplicates(|name| IMPERSONATED_MEMBERS.contains(&name), &mut faults);
        event.impersonated_user_name = user.string("username", &mut faults);
        event.impersonated_user_groups = user.strings("groups", &mut faults);
        event.impersonated_user_extra = user.json_object("extra", &mut faults);
    }
    if let Some(reference) = members.object("objectRef", &mut faults) {
        reference.duplicates(|name| OBJECT_MEMBERS.contains(&name), &mut faults);
        event.resource = reference.string("resource", &mut faults);
        event.namespace = reference.string("namespace", &mut faults);
        event.name = reference.string("name", &mut faults);
        event.object_uid = reference.string("uid", &mut faults);
        event.api_group = reference.string("apiGroup", &mut faults);
        event.api_version = reference.string("apiVersion", &mut faults);
        event.resource_version = reference.string("resourceVersion", &mut faults);
        event.subresource = reference.string("subresource", &mut faults);
    }
    if let Some(status) = members.object("responseStatus", &mut faults) {
        status.duplicates(|name| STATUS_MEMBERS.contains(&name), &mut faults);
        response(&status, &mut event, &mut faults);
    }
    if event.annotations.is_some()
        && let Some(annotations) = members.object("annotations", &mut faults)
    {
        annotations.duplicates(|name| [AUTHZ_DECISION, AUTHZ_REASON].contains(&name), &mut faults);
        event.authz_decision = annotations.string(AUTHZ_DECISION, &mut faults);
        event.authz_reason = annotations.string(AUTHZ_REASON, &mut faults);
    }
    if is_cut && text_bytes >= LINE_BYTES_MAX {
        faults.replace(Unread::NotJson, Unread::TooLong);
    }
    event.faults = faults.into_texts();
    Ok(event)
}

/// Returns the event's level. If `level` is absent, or is a string that is not a level of the audit
/// API, a collector may have put its own level there, and the event's level into another member.
fn level(members: &Object<'_>, format: u32, faults: &mut Faults) -> Option<String> {
    let is_level = |level: &String| level.parse::<Level>().is_ok();
    let level = members.string("level", faults);
    if level.as_ref().is_some_and(is_level) || (level.is_none() && members.has("level")) {
        return level;
    }
    let of_collector = LEVELS_OF_COLLECTORS.into_iter().find(|name| members.has(name));
    let of_collector = of_collector.filter(|_| format >= FORMAT_OF_FAULTS);
    if let Some(found) = of_collector.and_then(|name| members.plain_string(name)).filter(is_level) {
        return Some(found);
    }
    if level.is_some() {
        faults.add("/level", Unread::UnknownLevel);
    }
    level
}

/// Fills the columns of a response from the members of its status.
pub(crate) fn response(status: &Object<'_>, event: &mut PlainEvent, faults: &mut Faults) {
    event.response_status = status.string("status", faults);
    event.response_message = status.string("message", faults);
    event.response_reason = status.string("reason", faults);
    event.response_details = status.json_object("details", faults);
    event.response_code = status.code("code", faults);
}

/// The annotation with the decision of the authorizer.
pub const AUTHZ_DECISION: &str = "authorization.k8s.io/decision";
/// The annotation with the reason of that decision.
pub const AUTHZ_REASON: &str = "authorization.k8s.io/reason";
/// How a refusal names the annotation with the decision.
pub const AUTHZ_DECISION_FIELD: &str = "annotations[authorization.k8s.io/decision]";
/// How a refusal names the annotation with the reason.
pub const AUTHZ_REASON_FIELD: &str = "annotations[authorization.k8s.io/reason]";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DEPTH_MAX;

    /// `tolerant`, which reads texts that are not JSON, reads the same from JSON as `serde_json`.
    #[test]
    fn both_readers_of_json_agree() {
        let cases: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../tests/data/records/records.json")).expect("a list");
        let mut seen = 0;
        for record in cases.iter().filter_map(|case| case["record"].as_str()) {
            let Ok(strict) = members(record.as_bytes(), DEPTH_MAX) else { continue };
            let strict = event(Text::strict(&strict), record.len(), EVENTS_FORMAT);
            let has_pointer = |name: &str| MEMBERS.contains(&name);
            let text = tolerant::read(record.as_bytes(), DEPTH_MAX, has_pointer).expect("an object");
            let tolerant = event(text, record.len(), EVENTS_FORMAT);
            assert_eq!(strict, tolerant, "{record}");
            seen += usize::from(strict.is_ok());
        }
        assert!(seen > 150, "{seen}");
    }

    #[test]
    fn a_cut_event_of_the_longest_line_is_too_long() {
        let mut text = br#"{"auditID":"a","user":{},"verb":"get","x":""#.to_vec();
        let fault = |text: &[u8]| decode(text, DEPTH_MAX).expect("an event").faults;
        assert_eq!(fault(&text), Some(vec![": not_json".to_owned()]));
        text.resize(LINE_BYTES_MAX - 1, b'<');
        assert_eq!(fault(&text), Some(vec![": not_json".to_owned()]));
        text.push(b'<');
        assert_eq!(fault(&text), Some(vec![": too_long".to_owned()]));
        text.truncate(LINE_BYTES_MAX - 2);
        text.extend_from_slice(b"\"}");
        assert_eq!(fault(&text), None);
    }
}
