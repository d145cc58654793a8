//! Turns the body of a webhook request into lines: one per item of its `EventList`, each with a
//! newline.
//!
//! Invariants:
//! - A line has the item's bytes exactly as they were received. The item is never serialised again,
//!   because the archive gives back what the API server sent. An item with a line break between its
//!   tokens therefore cannot become a line, and its body is refused. The API server writes no such
//!   JSON.
//! - The text around the items (`kind`, `metadata`, commas) is not a record. A body that is a
//!   single event has that event as its only item.
//! - A body that is neither a list nor an event also becomes one line, unless it is too long or has
//!   a line break. The API server gives up on a batch after some tries, so a refused body is lost.
//!   A body that becomes a line is stored in `rejects`, where somebody can find it.
//! - All or nothing: a refused body leaves no line.
//! - The memory that a list of many tiny items takes is bounded by the body's length.
//!
//! No state. If a crash kept a body from being stored, the API server sends the body again.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::wrapper::{ITEM_BYTES_MIN, SHORT_ITEMS_MAX};

/// Why a body cannot be turned into lines. The message contains none of the body's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    #[error("the body is empty")]
    Empty,
    #[error("an item has a line break between its tokens: items must be compact JSON")]
    LineBreak,
    #[error("the body is neither an EventList nor an Event of audit.k8s.io, and has more than one line")]
    NoEvents,
    #[error(
        "the body is neither an EventList nor an Event of audit.k8s.io, and is longer than a line may be"
    )]
    TooLong,
}

/// The result of [`into_lines`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    pub count: u32,
    /// Whether the body was neither a list nor an event.
    pub is_odd: bool,
}

/// Replaces the body with its items, each followed by a newline.
pub fn into_lines(body: &mut Vec<u8>, line_bytes_max: usize) -> Result<Lines, BodyError> {
    let (items, is_odd) = match list_items(body) {
        Some(items) => (items, false),
        None => {
            let (line, is_odd) = only_line(body, line_bytes_max)?;
            (vec![line], is_odd)
        }
    };
    if items.iter().any(|item| memchr::memchr(b'\n', &body[item.clone()]).is_some()) {
        return Err(BodyError::LineBreak);
    }
    // There is at least one byte before the first item of a list, and between two items. So each
    // item moves to the left with its newline, and overwrites no item that is still to be moved.
    let mut end = 0;
    for item in &items {
        let length = item.len();
        body.copy_within(item.clone(), end);
        end += length;
        if end == body.len() {
            body.push(b'\n');
        } else {
            body[end] = b'\n';
        }
        end += 1;
    }
    body.truncate(end);
    let count = u32::try_from(items.len()).map_err(|_| BodyError::TooLong)?;
    Ok(Lines { count, is_odd })
}

/// Returns the extent of the content of a body that is not a list, without the white space around
/// it, and whether the content is something other than an event.
fn only_line(body: &[u8], line_bytes_max: usize) -> Result<(Range<usize>, bool), BodyError> {
    let white = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let Some(start) = body.iter().position(|byte| !white(byte)) else {
        return Err(BodyError::Empty);
    };
    let end = body.iter().rposition(|byte| !white(byte)).map_or(start, |last| last + 1);
    let line = &body[start..end];
    let broken = memchr::memchr(b'\n', line).is_some();
    let is_event = kind_and_items(body).is_some_and(|(kind, _)| kind.as_deref() == Some("Event"));
    match (is_event, broken) {
        // An event longer than the bound is still taken as an event; it becomes a reject, as it
        // would in a list.
        (true, false) => Ok((start..end, false)),
        (true, true) => Err(BodyError::LineBreak),
        (false, true) => Err(BodyError::NoEvents),
        (false, false) if line.len() > line_bytes_max => Err(BodyError::TooLong),
        (false, false) => Ok((start..end, true)),
    }
}

/// Returns where each item of a list begins and ends. `None` if the body is not a list of events.
fn list_items(body: &[u8]) -> Option<Vec<Range<usize>>> {
    let (kind, items) = kind_and_items(body)?;
    if kind.as_deref() != Some("EventList") {
        return None;
    }
    let base = body.as_ptr() as usize;
    let range = |item: &RawValue| {
        let start = item.get().as_ptr() as usize - base;
        start..start + item.get().len()
    };
    Some(items?.into_iter().map(range).collect())
}

type KindAndItems<'b> = (Option<Cow<'b, str>>, Option<Vec<&'b RawValue>>);

/// Returns the members `kind` and `items` of a body. `None` if the body is not one JSON object, has
/// one of the two more than once, or has too many items.
fn kind_and_items(body: &[u8]) -> Option<KindAndItems<'_>> {
    let items_max = SHORT_ITEMS_MAX + body.len() / ITEM_BYTES_MIN;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let found = deserializer.deserialize_map(List { items_max }).ok()?;
    deserializer.end().ok()?;
    Some(found)
}

struct List {
    items_max: usize,
}

impl<'b> Visitor<'b> for List {
    type Value = KindAndItems<'b>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut kind, mut items) = (None, None);
        while let Some(key) = map.next_key::<Text<'b>>()? {
            match key.0.as_ref() {
                // If an object has two members with the same name, JSON readers differ in which of
                // the two they take. So such a body is not recognised.
                "kind" if kind.is_some() => return Err(A::Error::duplicate_field("kind")),
                "items" if items.is_some() => return Err(A::Error::duplicate_field("items")),
                "kind" => kind = Some(map.next_value::<Text<'b>>()?.0),
                "items" => items = Some(map.next_value_seed(Items { items_max: self.items_max })?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok((kind, items))
    }
}

/// A string, borrowed if it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'b>(#[serde(borrow)] Cow<'b, str>);

struct Items {
    items_max: usize,
}

impl<'b> DeserializeSeed<'b> for Items {
    type Value = Vec<&'b RawValue>;

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'b> Visitor<'b> for Items {
    type Value = Vec<&'b RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    /// Go writes a list that was never created as `null`.
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<&RawValue>()? {
            if items.len() == self.items_max {
                return Err(A::Error::custom("more items than the body's length allows"));
            }
            items.push(item);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const LINE_BYTES_MAX: usize = 1 << 10;

    fn lines(body: &str) -> Result<Vec<String>, BodyError> {
        let mut bytes = body.as_bytes().to_vec();
        let items = into_lines(&mut bytes, LINE_BYTES_MAX)?;
        let text = String::from_utf8(bytes).expect("the bodies here are text");
        assert_eq!(text.matches('\n').count(), items.count as usize);
        assert!(text.is_empty() || text.ends_with('\n'));
        Ok(text.lines().map(str::to_owned).collect())
    }

    #[test]
    fn items_keep_their_bytes() {
        let body =
            "{\"kind\":\"EventList\",\n \"items\":[{\"b\": 1.50,\"a\":\"\\u003c\"}, {} ,\n{\"n\":1e3}]}\n";
        assert_eq!(lines(body).expect("a list"), ["{\"b\": 1.50,\"a\":\"\\u003c\"}", "{}", "{\"n\":1e3}"]);
        assert_eq!(lines(r#"{"items":[1,{}],"kind":"EventList"}"#).expect("a list"), ["1", "{}"]);
        assert_eq!(lines(r#"{"items":[{}],"k\u0069nd":"Event\u004cist"}"#).expect("a list"), ["{}"]);
    }

    #[test]
    fn a_list_without_items_has_no_lines() {
        for body in [r#"{"kind":"EventList","items":null}"#, r#"{"kind":"EventList","items":[]}"#] {
            assert_eq!(lines(body).expect("a list"), Vec::<String>::new());
        }
    }

    #[test]
    fn what_is_no_list_is_one_line_or_refused() {
        let event = r#"{"kind":"Event","auditID":"a"}"#;
        assert_eq!(lines(&format!(" {event}\r\n")).expect("an event"), [event]);
        assert_eq!(lines("no JSON at all").expect("a line"), ["no JSON at all"]);
        assert_eq!(lines(r#"{"kind":"EventList"}"#).expect("a line"), [r#"{"kind":"EventList"}"#]);
        let twice = r#"{"kind":"EventList","items":[{"a":1}],"items":[{"b":1}]}"#;
        assert_eq!(lines(twice).expect("a line"), [twice]);
        assert_eq!(lines(" \n"), Err(BodyError::Empty));
        assert_eq!(lines("two\nlines"), Err(BodyError::NoEvents));
        assert_eq!(lines(&"x".repeat(LINE_BYTES_MAX + 1)), Err(BodyError::TooLong));
        let long = format!(r#"{{"kind":"Event","x":"{}"}}"#, "x".repeat(LINE_BYTES_MAX));
        assert_eq!(lines(&long).expect("an event"), [long]);
        assert_eq!(lines("{\"kind\":\"Event\",\n\"a\":1}"), Err(BodyError::LineBreak));
        assert_eq!(lines("{\"kind\":\"EventList\",\"items\":[{},{\n}]}"), Err(BodyError::LineBreak));
    }

    #[test]
    fn tiny_items_do_not_multiply() {
        let body = format!(r#"{{"kind":"EventList","items":[{}1]}}"#, "1,".repeat(4 << 10));
        assert_eq!(lines(&body), Err(BodyError::TooLong));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\n\"\\\\é]{0,9}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(("[a-z]{1,4}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn lines_are_what_serde_sees(items in proptest::collection::vec(value(), 0..9), cut in 0_usize..400) {
            let body = serde_json::json!({"kind": "EventList", "metadata": {}, "items": items}).to_string();
            let split = lines(&body).expect("a list");
            let seen: Vec<Value> =
                split.iter().map(|line| serde_json::from_str(line).expect("an item")).collect();
            prop_assert_eq!(&seen, &items);
            for line in &split {
                prop_assert!(body.contains(line.as_str()));
            }

            // A truncated body is kept whole, as received, or not at all.
            let cut = cut.min(body.len() - 1);
            let mut bytes = body.as_bytes()[..cut].to_vec();
            if into_lines(&mut bytes, LINE_BYTES_MAX).is_ok() {
                let line = bytes.strip_suffix(b"\n").expect("a newline");
                prop_assert_eq!(line, body.as_bytes()[..cut].trim_ascii());
            }
        }

        #[test]
        fn any_bytes_are_tolerated(mut body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let lines = into_lines(&mut body, LINE_BYTES_MAX);
            prop_assert!(lines.is_ok_and(|lines| lines.count <= 1) || lines.is_err());
        }
    }
}
