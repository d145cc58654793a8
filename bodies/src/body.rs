//! Request and response bodies as rules see them.
//!
//! Invariant: a rule sees the object that a request creates, whatever the form of the request: a
//! JSON patch is read as the object that it builds (see the module `patch`). A lone surrogate is
//! read as U+FFFD, as the API server reads it, and a number that is too large as its text.
//! Recursion is bounded by the depth of the text, which the parser limits to 127, and memory by the
//! number of values. The text of a body is not limited. No state.

use std::cell::{Cell, OnceCell};

use memchr::memmem;
use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::patch;
use crate::removed::removed_in;

/// Maximum number of values in a body that is examined, including those inside objects and arrays.
/// Each value takes at most about 100 bytes of memory. Every request body that the API server
/// accepts has fewer values, because it has at most 3 MiB. Escapes may make it longer in the log,
/// but add no values.
pub const VALUES_MAX: usize = 1 << 21;

/// Returns true if a body may have more than [`VALUES_MAX`] values. A value takes at least two
/// bytes, with the comma after it.
pub fn may_be_too_large(text: &str) -> bool {
    text.len() >= 2 * VALUES_MAX
}

/// A body as rules see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Examined {
    pub value: Value,
    /// False if the request also sets a value that is not in its body: a JSON patch copies it from
    /// the stored object.
    pub is_whole: bool,
    /// JSON pointers to what the request removes, at most [`REMOVED_MAX`](crate::REMOVED_MAX). For
    /// a JSON patch they are known at once; for any other body they are found when they are first
    /// asked for.
    removed: OnceCell<Vec<String>>,
}

impl Examined {
    fn new(value: Value, is_whole: bool) -> Examined {
        Examined { value, is_whole, removed: OnceCell::new() }
    }

    /// Returns the places that the request removes.
    pub fn removes(&self) -> &[String] {
        self.removed.get_or_init(|| removed_in(&self.value))
    }
}

/// Parses a body for rules, and turns a JSON patch into the object that it builds. Returns `None`
/// if the text is not JSON, is nested too deeply, or has too many values.
///
/// Of several members with one name, the last counts, as for the API server.
pub fn examine(text: &str) -> Option<Examined> {
    let value = readable(text, |text| {
        if !may_be_too_large(text) {
            return serde_json::from_str(text).ok();
        }
        let left = Cell::new(VALUES_MAX);
        let mut json = serde_json::Deserializer::from_str(text);
        let value = Counted { left: &left }.deserialize(&mut json).ok()?;
        json.end().ok()?;
        Some(value)
    })?;
    let patched = match value {
        Value::Array(operations) if patch::is_patch(&operations) => {
            patch::patched(operations, PARSED_DEPTH_MAX)
        }
        Value::Object(object) => match patch::listed(&object) {
            Some(operations) => patch::patched(operations.clone(), PARSED_DEPTH_MAX),
            None => return Some(Examined::new(Value::Object(object), true)),
        },
        // If a body is a JSON string, the event does not have the object that the API server read.
        value => {
            let is_whole = !value.is_string();
            return Some(Examined::new(value, is_whole));
        }
    };
    Some(Examined { value: patched.value, is_whole: patched.is_whole, removed: patched.removed.into() })
}

/// Returns true if [`examine`] will certainly read the body as whole. Does not build the body's
/// values in memory. If the result is false, `examine` may still read the body.
pub fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    // An array may be a JSON patch, and so may an object with a member `@type`.
    text.trim_ascii_start().starts_with('{')
        && memchr::memchr(b'@', bytes).is_none()
        && memmem::find(bytes, b"\\u").is_none()
        && !may_be_too_large(text)
        && bytes.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() <= PARSED_DEPTH_MAX
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Maximum depth of a text that the parser reads.
const PARSED_DEPTH_MAX: usize = 127;

/// Parses a JSON value of an event that is not a body.
pub fn value(text: &str) -> Option<Value> {
    readable(text, |text| serde_json::from_str(text).ok())
}

/// Parses a text. If that fails because of lone surrogates or numbers that are too large, parses
/// the text again without them.
fn readable<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    parse(text).or_else(|| parse(&rewritten(text)?))
}

/// Returns a JSON text in which each lone surrogate is U+FFFD and each number that cannot be read
/// is a string; `None` if there is nothing of either kind.
fn rewritten(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut at, mut copied, mut in_string) = (0, 0, false);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                in_string = !in_string;
                at += 1;
            }
            b'\\' if in_string => match escaped_unit(bytes, at) {
                None => at += 2,
                Some(0xD800..=0xDBFF) if matches!(escaped_unit(bytes, at + 6), Some(0xDC00..=0xDFFF)) => {
                    at += 12;
                }
                Some(0xD800..=0xDFFF) => {
                    out.push_str(text.get(copied..at)?);
                    out.push('\u{FFFD}');
                    at += 6;
                    copied = at;
                }
                Some(_) => at += 6,
            },
            b'-' | b'0'..=b'9' if !in_string => {
                let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let end = at + bytes.iter().skip(at).take_while(is_part).count();
                let number = text.get(at..end)?;
                if serde_json::from_str::<Value>(number).is_err()
                    && serde_json::from_str::<&RawValue>(number).is_ok()
                {
                    out.extend([text.get(copied..at)?, "\"", number, "\""]);
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return None;
    }
    out.push_str(text.get(copied..)?);
    Some(out)
}

/// Returns the UTF-16 code unit of an escape `\uXXXX` at a position.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

/// Reads a JSON value as `serde_json` does, but fails if it contains too many values.
#[derive(Clone, Copy)]
struct Counted<'c> {
    /// Number of values that may still be read.
    left: &'c Cell<usize>,
}

impl Counted<'_> {
    fn count<E: serde::de::Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| E::custom("too many values"))?;
        self.left.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            object.insert(key, members.next_value_seed(self)?);
        }
        Ok(Value::Object(object))
    }
}

/// Returns `metadata.name` of an object, without reading the rest into memory.
pub fn object_name(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Option<Metadata>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: Option<String>,
    }
    let object: Object = readable(text, |text| serde_json::from_str(text).ok())?;
    object.metadata?.name.filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Option<Value> {
        examine(text).map(|examined| examined.value)
    }

    #[test]
    fn lone_surrogates_and_large_numbers_are_read() {
        for (text, expected) in [
            (r#""\ud800""#, json!("\u{FFFD}")),
            (r#""a\uDFFFb\\ud800""#, json!("a\u{FFFD}b\\ud800")),
            (r#""\ud800\ud83d\ude00\ud83d""#, json!("\u{FFFD}😀\u{FFFD}")),
            (r#""\ud83d\u0041""#, json!("\u{FFFD}A")),
            (r#"{"\udc00":1,"é":"-1e999","p":true}"#, json!({"\u{FFFD}": 1, "é": "-1e999", "p": true})),
            (
                r#"{"a":[1e999,-1E+999 ,0e999,-1.5],"p":true}"#,
                json!({"a": ["1e999", "-1E+999", 0.0, -1.5], "p": true}),
            ),
        ] {
            assert_eq!(parse(text), Some(expected.clone()), "{text}");
            assert_eq!(value(text), Some(expected), "{text}");
        }
        let digits = "9".repeat(400);
        assert_eq!(parse(&format!("[{digits},-{digits}]")), Some(json!([digits, format!("-{digits}")])));
        assert_eq!(parse(r#"[{"op":"add","path":"/a","value":1e999}]"#), Some(json!({"a": "1e999"})));
        let named = r#"{"metadata":{"name":"web","\ud800":1}}"#;
        assert_eq!(object_name(named).as_deref(), Some("web"));
        // What is not JSON is not made JSON.
        for other in [
            r#"["\ud80"]"#,
            r#"["\ud800]"#,
            "[1e999",
            "[1e999-1]",
            "[01e999]",
            "[-]",
            r#""\x""#,
            "1e999e9",
            r#"["\ud800",1-1]"#,
            "\"\\",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
        let many = format!(r#"["\ud800",{}"#, "1e999,".repeat(VALUES_MAX));
        assert_eq!(parse(&format!("{many}0]")), None, "too many values");
    }

    #[test]
    fn plain_bodies_are_read_whole() {
        for (body, expected) in [
            (r#" {"a":[1e999,{"b":"x"}]}"#, true),
            ("{}", true),
            (r#"{"a":"\ud800"}"#, false),
            (r#"{"a":1"#, false),
            (r#"[{"op":"move","from":"/x","path":"/y"}]"#, false),
            (r#"{"@type":"k8s.io/Patch","value":[{"op":"move","from":"/x","path":"/y"}]}"#, false),
            (r#"{"\u0040type":"k8s.io/Patch","value":[{"op":"move","from":"/x","path":"/y"}]}"#, false),
        ] {
            assert_eq!(is_plain(body), expected, "{body}");
            assert!(!expected || examine(body).is_some_and(|examined| examined.is_whole), "{body}");
        }
        let deep = |depth: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(is_plain(&deep(126)) && examine(&deep(126)).is_some());
        assert!(!is_plain(&deep(127)) && examine(&deep(127)).is_none());
    }

    #[test]
    fn the_last_of_several_members_counts() {
        let body = r#"{"spec":{"hostPID":false},"spec":{"hostPID":true},"a":1,"\u0061":2}"#;
        assert_eq!(parse(body), Some(json!({"spec": {"hostPID": true}, "a": 2})));
    }

    #[test]
    fn long_bodies_are_read_and_the_number_of_values_is_bounded() {
        let escaped = |count: usize| "\\u003c".repeat(count);
        let padded =
            format!(r#"{{"spec":{{"hostPID":true,"n":[1,-1,1.5,null,false]}},"a":"{}"}}"#, escaped(4 << 20));
        assert!(padded.len() > 24 << 20 && may_be_too_large(&padded));
        let parsed = parse(&padded).expect("few values");
        assert_eq!(parsed["spec"], json!({"hostPID": true, "n": [1, -1, 1.5, null, false]}));
        assert_eq!(parsed["a"].as_str().map(str::len), Some(4 << 20));
        let values = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
        assert!(parse(&values(VALUES_MAX)).is_some());
        assert!(parse(&values(VALUES_MAX + 1)).is_none());
        assert!(parse(&format!("{padded} 1")).is_none(), "only one value is parsed");
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&deep(127)).is_some(), "an event of depth 128 has bodies of depth 127");
        assert!(parse(&deep(4096)).is_none());
        let deep = |depth: usize| format!(r#"["{}",{}]"#, escaped(1 << 20), deep(depth));
        assert!(parse(&deep(126)).is_some());
        assert!(parse(&deep(1 << 20)).is_none());
    }

    #[test]
    fn the_name_of_an_object() {
        assert_eq!(
            object_name(r#"{"kind":"Pod","metadata":{"uid":"u","name":"web-1"},"x":[]}"#).as_deref(),
            Some("web-1")
        );
        for other in [
            "{}",
            r#"{"metadata":null}"#,
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"name":""}}"#,
            "[1]",
            "{",
            r#"{"metadata":{"name":1}}"#,
        ] {
            assert_eq!(object_name(other), None, "{other}");
        }
    }
}
