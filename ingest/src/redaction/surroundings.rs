//! Judges the text around an event in which nothing is replaced. This text may contain something
//! that a policy would replace.
//!
//! A record can be more than its event. It may be the line of a collector, with members beside the
//! event, or several lines of a container, with lines of standard error between the parts of an
//! event. The members of a list before and after its items are in the frame. None of this belongs
//! to the event, and a policy does not read it. It is kept only if it is known to repeat the event
//! or to contain no body. Otherwise the record becomes the event alone, and a mark without a path
//! says so.
//!
//! Method: names that occur only in events and their bodies are counted. The text around an event
//! must contain none of them, except in copies of the event itself. If that cannot be shown, the
//! text is not kept. A form says which text of a record is around its event; of a record without a
//! form, all is searched. No state but scratch buffers is kept between rows.

use serde_json::Value;
use strongroom_decode::render::Renderer;
use strongroom_lines::wrapper::text_of_parts;
use strongroom_redact::{Counts, Redacted, Redactor, Unreadable};
use strongroom_schemas::marked;
use strongroom_schemas::marks::Redaction;

/// Names of members that only events and log entries have: those of bodies, ids and payloads. Case
/// is ignored.
const NAMES: [&[u8]; 7] = [
    b"requestobject",
    b"responseobject",
    b"request_object",
    b"response_object",
    b"auditid",
    b"audit_id",
    b"protopayload",
];
/// For each of [`NAMES`], whether a record that is only an event without bodies has it once, or
/// never.
const ONCE: [bool; 7] = [false, false, false, false, true, true, true];
/// The first bytes of every event that an API server writes. A record that begins with them has
/// nothing around the event.
const HEAD: &[u8] = b"{\"kind\":\"Event\",";
/// Maximum depth of texts inside texts that are searched for copies of the event.
const TEXTS_MAX: usize = 4;
/// The kinds that a list of events may have.
const KINDS: [&str; 2] = ["EventList", "List"];
/// The API versions that a list of events may have.
const VERSIONS: [&str; 4] = ["audit.k8s.io/v1", "audit.k8s.io/v1beta1", "audit.k8s.io/v1alpha1", "v1"];
/// Longest count or version of a list, in digits. A longer number may be a value of an item.
const COUNT_DIGITS_MAX: usize = 8;
/// Members of the metadata of a list.
const LIST_METADATA: [&str; 4] = ["resourceVersion", "continue", "remainingItemCount", "selfLink"];

/// Judges the surroundings of records, one record after the other.
#[derive(Default)]
pub struct Surroundings {
    record: Vec<u8>,
    lower: Vec<u8>,
}

impl Surroundings {
    /// Whether the text around the event may contain something that a policy would replace. The
    /// event itself is not read for this.
    pub fn may_have_more(&mut self, rows: &Renderer<'_>, row: usize) -> bool {
        self.has_frame(rows, row) || self.may_hold_more(rows, row)
    }

    /// Returns the final outcome for an event, given the `outcome` of redacting the event itself.
    /// If nothing in the event is replaced, but the text around it may contain something that a
    /// policy would replace, the event is written alone.
    ///
    /// # Errors
    /// [`Unreadable`] if the event cannot be a record of its own.
    pub fn judged(
        &mut self,
        outcome: Result<Option<Redacted>, Unreadable>,
        redactor: &Redactor,
        rows: &Renderer<'_>,
        row: usize,
        event: &[u8],
    ) -> Result<Option<Redacted>, Unreadable> {
        match outcome {
            Ok(None) if self.has_more(rows, row, event) => alone(redactor.id(), event).map(Some),
            outcome => outcome,
        }
    }

    fn has_more(&mut self, rows: &Renderer<'_>, row: usize, event: &[u8]) -> bool {
        self.has_frame(rows, row) || (self.may_hold_more(rows, row) && !is_alone(&self.record, event))
    }

    fn has_frame(&mut self, rows: &Renderer<'_>, row: usize) -> bool {
        if !rows.has_frame(row) {
            return false;
        }
        let (before, after) = rows.frame(row);
        let has_name = [before, after].into_iter().any(|frame| {
            lower_into(frame, &mut self.lower);
            has_letter_escape(&self.lower) || NAMES.iter().any(|name| count(&self.lower, name) > 0)
        });
        has_name || !is_list_head(before) || !is_list_tail(after)
    }

    /// Whether a row's form has nothing around the event that only an event has, on one line.
    fn is_bare(&mut self, rows: &Renderer<'_>, row: usize) -> bool {
        self.record.clear();
        if !rows.around_event(row, &mut self.record) || memchr::memchr(b'\n', &self.record).is_some() {
            return false;
        }
        lower_into(&self.record, &mut self.lower);
        !has_letter_escape(&self.lower) && NAMES.iter().all(|name| count(&self.lower, name) == 0)
    }

    /// Reads the record of a row. Returns whether there may be more in it than an event.
    fn may_hold_more(&mut self, rows: &Renderer<'_>, row: usize) -> bool {
        if !rows.keeps_format(row) || self.is_bare(rows, row) {
            return false;
        }
        self.record.clear();
        // Does not fail, because a row that was just decoded gives its record.
        if rows.record(row, &mut self.record).is_err() {
            return true;
        }
        if self.record.starts_with(HEAD) {
            return false;
        }
        lower_into(&self.record, &mut self.lower);
        memchr::memchr(b'\n', &self.record).is_some()
            || has_letter_escape(&self.lower)
            || NAMES.iter().zip(ONCE).any(|(name, once)| count(&self.lower, name) > usize::from(once))
    }
}

/// Returns the event of a row in the form in which it is written without the text around it.
fn alone(policy: u64, event: &[u8]) -> Result<Redacted, Unreadable> {
    let event = event.trim_ascii();
    let mark = Redaction::new(policy, Vec::new(), Vec::new()).map_err(|_| Unreadable::Mark)?;
    marked::compare(&mark, event).map_err(|_| Unreadable::NotJson)?;
    Ok(Redacted { event: event.to_owned(), mark, counts: Counts::default() })
}

/// Whether a record has the [`NAMES`] only in the event and in copies of it.
fn is_alone(record: &[u8], event: &[u8]) -> bool {
    let event = event.trim_ascii();
    if record.trim_ascii() == event {
        return true;
    }
    // The lines of parts have no line feed but those between them.
    let joined;
    let text = match serde_json::from_slice::<serde::de::IgnoredAny>(record) {
        Err(_) if memchr::memchr(b'\n', record).is_some() => match text_of_parts(record) {
            Some(text) => {
                joined = text;
                joined.as_slice()
            }
            None => return false,
        },
        _ => record,
    };
    let mut lower = Vec::new();
    lower_into(text, &mut lower);
    let Ok(value) = serde_json::from_slice::<Value>(event) else { return false };
    let copies = copies_in(text, event, &value, TEXTS_MAX);
    if has_letter_escape(&lower) && text.trim_ascii() != event {
        return false;
    }
    let mut own = Vec::new();
    lower_into(event, &mut own);
    copies > 0 && NAMES.iter().all(|name| count(&lower, name) == copies * count(&own, name))
}

/// Counts the copies of an event in a text. The text may be the event, have the event after a
/// prefix, or contain it in an object.
fn copies_in(text: &[u8], event: &[u8], value: &Value, texts_left: usize) -> usize {
    let text = text.trim_ascii();
    if text == event {
        return 1;
    }
    let Some(start) = text.iter().position(|byte| matches!(byte, b'{' | b'"')) else { return 0 };
    match serde_json::from_slice::<Value>(&text[start..]) {
        Ok(found) => copies_of(&found, event, value, texts_left),
        Err(_) => 0,
    }
}

fn copies_of(found: &Value, event: &[u8], value: &Value, texts_left: usize) -> usize {
    match found {
        _ if found == value => 1,
        Value::String(text) if texts_left > 0 => copies_in(text.as_bytes(), event, value, texts_left - 1),
        Value::Object(members) => {
            members.values().map(|member| copies_of(member, event, value, texts_left)).sum()
        }
        Value::Array(items) => items.iter().map(|item| copies_of(item, event, value, texts_left)).sum(),
        _ => 0,
    }
}

/// Whether the members before a list's items are the members that a list of events has there. Text
/// that does not end at an item belongs to no list.
fn is_list_head(frame: &[u8]) -> bool {
    let text = frame.strip_prefix(strongroom_lines::BOM).unwrap_or(frame).trim_ascii();
    let Some(head) = text.strip_suffix(b"[") else { return true };
    let Some(start) = head.iter().position(|byte| *byte == b'{') else { return true };
    let mut object = head[start..].to_vec();
    object.extend_from_slice(b"[]}");
    is_list(&object)
}

/// Whether the members after a list's items are the members that a list of events has there.
fn is_list_tail(frame: &[u8]) -> bool {
    let Some(tail) = frame.trim_ascii_start().strip_prefix(b"]") else { return true };
    let Some(members) = tail.trim_ascii_start().strip_prefix(b",") else { return true };
    let mut object = b"{".to_vec();
    object.extend_from_slice(members);
    is_list(object.trim_ascii_end())
}

fn is_list(object: &[u8]) -> bool {
    let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(object) else { return false };
    // If a name occurs twice, one of its values is not read here. The number of quotation marks
    // shows this.
    let quotes = memchr::memchr_iter(b'"', object).count();
    let mut expected = 0;
    for (name, value) in &members {
        expected += 2 + if value.is_string() { 2 } else { 0 };
        let is_known = match value {
            Value::Array(items) => name == "items" && items.is_empty(),
            Value::Object(metadata) => {
                let names = metadata.iter();
                expected += names.map(|(_, value)| if value.is_string() { 4 } else { 2 }).sum::<usize>();
                name == "metadata"
                    && metadata
                        .iter()
                        .all(|(name, value)| LIST_METADATA.contains(&name.as_str()) && says_nothing(value))
            }
            Value::Null => ["metadata", "kind", "apiVersion"].contains(&name.as_str()),
            Value::String(text) => match name.as_str() {
                "kind" => KINDS.contains(&text.as_str()),
                "apiVersion" => VERSIONS.contains(&text.as_str()),
                _ => false,
            },
            _ => false,
        };
        if !is_known {
            return false;
        }
    }
    quotes == expected
}

/// Whether a value in a list's metadata says nothing about the items: it is null or a short number.
/// The items may be in other blocks, so their values cannot be compared with it.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => {
            text.len() <= COUNT_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit())
        }
        value => value.as_u64().is_some_and(|count| count < 10_u64.pow(COUNT_DIGITS_MAX as u32)),
    }
}

fn lower_into(text: &[u8], lower: &mut Vec<u8>) {
    lower.clear();
    lower.extend_from_slice(text);
    lower.make_ascii_lowercase();
}

fn count(text: &[u8], name: &[u8]) -> usize {
    memchr::memmem::find_iter(text, name).count()
}

/// Whether a letter is written as an escape, so that a name may be hidden. `text` is in lower case.
fn has_letter_escape(text: &[u8]) -> bool {
    memchr::memmem::find_iter(text, b"\\u00").any(|at| matches!(text.get(at + 4), Some(b'4'..=b'7')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"kind":"Event","auditID":"a","verb":"get","requestObject":{"kind":"Pod"}}"#;

    #[test]
    fn a_record_of_an_event_and_its_copies_is_alone() {
        let string = |text: &str| serde_json::to_string(text).expect("a literal");
        let spaced = EVENT.replace(':', ": ");
        for record in [
            EVENT.to_owned(),
            format!("2026-03-02T10:00:00Z stdout F {EVENT}"),
            string(EVENT),
            string(&format!("{EVENT}\n")),
            format!(r#"{{"log":{},"stream":"stdout","time":"t"}}"#, string(EVENT)),
            format!(r#"{{"message":{},"event":{{"original":{}}},"n":1}}"#, string(&spaced), string(EVENT)),
            format!(r#"{{"json":{spaced},"host":{{"name":"n"}}}}"#),
            format!(r#"{{"log":{}}}"#, string(&format!(r#"{{"log":{},"tag":"x"}}"#, string(EVENT)))),
            format!("T stdout P {}\n", &EVENT[..20]).replace('T', "2026-03-02T10:00:00Z")
                + &format!("2026-03-02T10:00:00Z stdout F {}", &EVENT[20..]),
        ] {
            assert!(is_alone(record.as_bytes(), EVENT.as_bytes()), "{record}");
        }
    }

    #[test]
    fn a_record_with_a_body_beside_its_event_is_not() {
        let string = |text: &str| serde_json::to_string(text).expect("a literal");
        let other = EVENT.replace("Pod", "Secret");
        for beside in [
            r#""copy":{"requestObject":{"a":1}}"#.to_owned(),
            r#""copy":{"RequestObject":{"a":1}}"#.to_owned(),
            r#""copy":{"r\u0065questObject":{"a":1}}"#.to_owned(),
            r#""copy":"x responseObject: y""#.to_owned(),
            r#""request_object":1,"n":1"#.to_owned(),
            format!(r#""log_processed":{other}"#),
            format!(r#""log_processed":{}"#, string(&other)),
            format!(r#""again":{},"again":{EVENT}"#, EVENT.replace("Pod", "Secret")),
            r#""copy":{"requestObject":{"kind":"Secret","requestObject":1},"auditID":"b"}"#.to_owned(),
        ] {
            for record in [
                format!(r#"{{"log":{},{beside}}}"#, string(EVENT)),
                format!(r#"{{{beside},"json":{EVENT}}}"#),
            ] {
                assert!(!is_alone(record.as_bytes(), EVENT.as_bytes()), "{record}");
            }
        }
        let part = |text: &str, head: &str| format!("2026-03-02T10:00:00Z {head} {text}");
        let lines = [
            part(&EVENT[..20], "stdout P"),
            part("I0302 Request Body", "stderr F"),
            part(&EVENT[20..], "stdout F"),
        ];
        assert!(!is_alone(lines.join("\n").as_bytes(), EVENT.as_bytes()));
    }

    #[test]
    fn a_list_of_events_has_known_members() {
        for head in [
            "",
            "[",
            " [ ",
            r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#,
            r#"{"items":["#,
            "\u{feff}{ \"metadata\" : { \"resourceVersion\":\"1\", \"remainingItemCount\":2 },\n \"items\" : [\n",
            r#"{"messageType":"DATA_MESSAGE","logEvents":[{"id":"1","message":"#,
        ] {
            assert!(is_list_head(head.as_bytes()), "{head}");
        }
        for head in [
            r#"{"kind":"EventList","metadata":{"x":"y"},"items":["#,
            r#"{"metadata":{"resourceVersion":{"a":1}},"items":["#,
            r#"{"metadata":{"resourceVersion":"x","resourceVersion":"1"},"items":["#,
            r#"{"metadata":{"x":1},"metadata":{},"items":["#,
            r#"{"note":"x","items":["#,
            r#"{"items":[1],"items":["#,
            r#"{"kind":["x"],"items":["#,
            r#"{"kind":"x","items":["#,
            r#"{"apiVersion":"audit.k8s.io/x","items":["#,
            r#"{"metadata":{"continue":"x"},"items":["#,
            r#"{"metadata":{"resourceVersion":"123456789"},"items":["#,
            r#"{"metadata":{"remainingItemCount":123456789},"items":["#,
        ] {
            assert!(!is_list_head(head.as_bytes()), "{head}");
        }
        for tail in ["", "\n", "]", "]}", "]}]}", r#"],"kind":"EventList","metadata":{}}"#, r#""}]}"#] {
            assert!(is_list_tail(tail.as_bytes()), "{tail}");
        }
        for tail in [
            r#"],"metadata":{"selfLink":"x"}}"#,
            r#"],"note":"x"}"#,
            r#"],"metadata":{"x":1}}"#,
            r#"],"kind":1}"#,
        ] {
            assert!(!is_list_tail(tail.as_bytes()), "{tail}");
        }
    }
}
