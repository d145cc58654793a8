//! Finds an audit event in an object that is not a known wrapper, so that the object's reject can
//! name the setting with which the event would be read. For a row of a table (CSV), and for a line
//! with labels before its event, the reject says how to make lines of JSON from such a file.
//!
//! Whoever sends an object chooses its names, and perhaps the event in it. Invariants:
//! - Nothing here becomes an event: only a person who knows the source decides that.
//! - A reject names a path only if the path leads to an event that would be taken. The path's names
//!   have letters, digits, `_` and `-`, and the path has at most [`SAID_BYTES_MAX`] bytes.
//! - At most [`VALUES_MAX`] values are examined, and at most [`TRIES_MAX`] of them are read as
//!   events. So the work is linear in the text, and the stack is bounded by [`PATH_NAMES_MAX`].

use serde_json::value::RawValue;

use super::path::{EventPath, PATH_NAMES_MAX};
use super::writers::Writers;
use super::{bare_event, layers};
use crate::json::{self, Members};
use crate::reject::{Reason, Refusal, SAID_PLACE};

/// Maximum length of a path that a reject names, in bytes.
const SAID_BYTES_MAX: usize = 120;
/// Maximum number of members and items that are examined.
const VALUES_MAX: usize = 1024;
/// Maximum number of items that are examined in one list.
const ITEMS_MAX: usize = 8;
/// Maximum number of values that are tried as events.
const TRIES_MAX: usize = 4;

/// Adds the place of an audit event in `text` to the refusal of `text`, if a member that is not
/// opened contains one.
pub fn with_place(text: &[u8], refusal: Refusal, depth_max: usize, writers: &Writers) -> Refusal {
    // A text without this name has no event, so it is not searched.
    if memchr::memmem::find(text, b"auditID").is_none() {
        return refusal;
    }
    let text = json::trim(text);
    match refusal.reason {
        Reason::NotAnAuditEvent => {}
        Reason::BrokenJson | Reason::TornLine => {
            return match in_a_row(text, depth_max) {
                Some(said) => Refusal::new(refusal.reason, format!("{}; {said}", refusal.detail)),
                None => refusal,
            };
        }
        _ => return refusal,
    }
    let Ok(members) = serde_json::from_slice::<Members<'_>>(text) else { return refusal };
    let mut search = Search {
        text,
        refusal: &refusal,
        depth_max,
        writers,
        values_left: VALUES_MAX,
        tries_left: TRIES_MAX,
    };
    let Some(said) = search.object(&members, "", 1) else { return refusal };
    Refusal::new(refusal.reason, format!("{}{SAID_PLACE}{said}", refusal.detail))
}

/// Returns the advice for a line that is not JSON and has a whole event in a cell of a table, or
/// after labels.
fn in_a_row(line: &[u8], depth_max: usize) -> Option<&'static str> {
    const CELL: &[u8] = b"\"{\"\"";
    const LABELS_END: &[u8] = b"\"} {\"";
    if let Some(at) = memchr::memmem::find(line, CELL) {
        let mut cell = Vec::new();
        let mut rest = line[at + 1..].iter().copied().peekable();
        while let Some(byte) = rest.next() {
            // In a cell a quote is written twice.
            if byte == b'"' && rest.next_if_eq(&b'"').is_none() {
                break;
            }
            cell.push(byte);
        }
        return bare_event(&cell, depth_max, &Writers::UNJUDGED).is_ok().then_some(
            "an audit event is in a cell of a table (CSV): write its rows as JSON lines, for example with \
             `mlr --icsv --ojsonl cat`",
        );
    }
    let at = memchr::memmem::find(line, LABELS_END)?;
    bare_event(&line[at + LABELS_END.len() - 2..], depth_max, &Writers::UNJUDGED).is_ok().then_some(
        "an audit event is after labels in braces: print lines without them, for example with \
         `logcli query --output=raw`",
    )
}

struct Search<'t> {
    text: &'t [u8],
    refusal: &'t Refusal,
    depth_max: usize,
    writers: &'t Writers,
    values_left: usize,
    tries_left: usize,
}

impl Search<'_> {
    fn object(&mut self, members: &Members<'_>, path: &str, level: usize) -> Option<String> {
        members.0.iter().find_map(|(name, value)| {
            let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            (is_plain(name) && path.len() <= SAID_BYTES_MAX).then(|| self.value(value, &path, level))?
        })
    }

    fn value(&mut self, value: &RawValue, path: &str, level: usize) -> Option<String> {
        self.values_left = self.values_left.checked_sub(1)?;
        let text = value.get();
        match text.as_bytes().first()? {
            b'{' => {
                let members: Members<'_> = serde_json::from_str(text).ok()?;
                let says = ["auditID", "verb"].iter().any(|name| json::member(&members, name).is_some());
                if says && let Some(said) = self.tried(value, path) {
                    return Some(said);
                }
                if level == PATH_NAMES_MAX { None } else { self.object(&members, path, level + 1) }
            }
            b'[' if level < PATH_NAMES_MAX => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                let path = format!("{path}[]");
                items.into_iter().take(ITEMS_MAX).find_map(|item| self.value(item, &path, level + 1))
            }
            b'"' if memchr::memmem::find(text.as_bytes(), b"auditID").is_some() => self.tried(value, path),
            _ => None,
        }
    }

    /// Returns what to say about a path, if its value is an event that would be accepted.
    fn tried(&mut self, value: &RawValue, path: &str) -> Option<String> {
        self.tries_left = self.tries_left.checked_sub(1)?;
        let depth_max = self.depth_max;
        if path.contains("[]") {
            let text = value.get();
            let is_event = match text.starts_with('"') {
                true => {
                    let text: String = serde_json::from_str(text).ok()?;
                    bare_event(text.as_bytes(), depth_max, self.writers).is_ok()
                }
                false => bare_event(text.as_bytes(), depth_max, self.writers).is_ok(),
            };
            return is_event
                .then(|| format!("in a list, at .{path}: write its elements as lines, with `jq -c`"));
        }
        let at = EventPath::parse(path).ok()?;
        let mut judge = |text: &[u8], _| bare_event(text, depth_max, self.writers);
        layers::open_at(self.text, self.refusal, &at, self.writers, &mut judge).ok()?;
        Some(format!(
            "at {path}: if only an API server chooses what is there, read it with \
             --unwrap {path} (`unwrap` in a configuration)"
        ))
    }
}

/// Whether a name can be shown and copied as it is, because it has no character with a meaning for
/// a terminal or a shell.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !name.starts_with('-') && !name.is_empty() && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DEPTH_MAX;
    use crate::wrapper::{Reading, decode_alone, decode_alone_of};

    const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","verb":"get"}"#;

    fn said(object: &str) -> Option<String> {
        let refusal = decode_alone(object.as_bytes(), DEPTH_MAX).expect_err(object);
        let detail = with_place(object.as_bytes(), refusal.clone(), DEPTH_MAX, &Writers::SERVERS).detail;
        detail.strip_prefix(refusal.detail.as_str()).expect("more").strip_prefix("; ").map(str::to_owned)
    }

    fn quoted(text: &str) -> String {
        serde_json::Value::from(text).to_string()
    }

    #[test]
    fn a_path_that_is_said_leads_to_an_event() {
        let text = quoted(EVENT);
        for (object, path) in [
            (format!(r#"{{"detail":{{"audit":{EVENT}}}}}"#), "detail.audit"),
            (format!(r#"{{"a":1,"detail":{{"x":{{}},"audit":{text}}}}}"#), "detail.audit"),
            (format!(r#"{{"record_1":{text}}}"#), "record_1"),
            (
                format!(r#"{{"a":{{"b":{{"c":{{"d":{{"e":{{"f":{{"g":{{"h":{text}}}}}}}}}}}}}}}}}"#),
                "a.b.c.d.e.f.g.h",
            ),
            (
                format!(r#"{{"x":{{"y":{}}}}}"#, quoted(&format!("2026-03-02T10:00:00Z stdout F {EVENT}"))),
                "x.y",
            ),
        ] {
            let said = said(&object).expect(&object);
            assert!(said.contains(&format!("--unwrap {path} ")), "{object}: {said}");
            let unwrap = Some(EventPath::parse(path).expect(path));
            let reading = Reading { unwrap, ..Reading::default() };
            assert!(decode_alone_of(object.as_bytes(), &reading, DEPTH_MAX).is_ok(), "{object}");
        }
        let in_list = said(&format!(r#"{{"messages":[{{"n":1}},{{"message":{{"x":{text}}}}}]}}"#));
        assert!(in_list.is_some_and(|said| said.contains("at .messages[].message.x: ")));
    }

    #[test]
    fn a_row_with_an_event_says_what_makes_lines_of_it() {
        let cell = |text: &str| format!("1,\"{}\",x", text.replace('"', "\"\""));
        let labelled = |text: &str| format!("2026-03-02T10:00:00Z {{job=\"audit\"}} {text}");
        let other = r#"{"auditID":1}"#;
        for (line, expected) in [
            (cell(EVENT), Some("`mlr --icsv --ojsonl cat`")),
            (labelled(EVENT), Some("`logcli query --output=raw`")),
            (cell(other), None),
            (labelled(other), None),
            (format!("{EVENT}{EVENT} torn"), None),
        ] {
            for reason in [Reason::BrokenJson, Reason::TornLine] {
                let refusal = Refusal::new(reason, "refused");
                let detail = with_place(line.as_bytes(), refusal, DEPTH_MAX, &Writers::SERVERS).detail;
                match expected {
                    Some(expected) => assert!(detail.ends_with(expected), "{line}: {detail}"),
                    None => assert_eq!(detail, "refused", "{line}"),
                }
            }
        }
    }

    #[test]
    fn no_path_is_said_that_would_not_be_taken_or_is_not_plain() {
        let text = quoted(EVENT);
        for object in [
            r#"{"a":{"auditID":1}}"#.to_owned(),
            format!(r#"{{"a\u001b[31m":{text}}}"#),
            format!(r#"{{"a b":{text}}}"#),
            format!(r#"{{"$(x)":{text}}}"#),
            format!(r#"{{"":{text}}}"#),
            format!(r#"{{"-v":{text}}}"#),
            format!(r#"{{"{}":{text}}}"#, "a".repeat(SAID_BYTES_MAX + 1)),
            format!(r#"{{"a":{{"b":{{"c":{{"d":{{"e":{{"f":{{"g":{{"h":{{"i":{text}}}}}}}}}}}}}}}}}}}"#),
            // What clients choose, and what is refused.
            format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","data":{{"x":{text}}}}}"#),
            format!(r#"{{"requestObject":{{"x":{text}}}}}"#),
            format!(r#"{{"x":{text},"kubernetes":{{"container_name":"app"}}}}"#),
            format!(r#"{{"x":{text},"stream":"stderr"}}"#),
            format!(r#"{{"x":{text},"logtag":"P"}}"#),
            format!(r#"{{"x":{}}}"#, quoted(&format!("I0302 10:00:00.000001       1 a.go:1] {EVENT}"))),
        ] {
            assert_eq!(said(&object), None, "{object}");
        }
    }
}
