//! Reads members of JSON objects, and their values, with `serde_json`.
//!
//! Invariants: if an object has several members of one name, the last one counts. A refusal never
//! contains a value. [`crate::plain`] and [`crate::wrapper`] both read with these functions. They
//! use no code of the fast decoder, because the plain decoder is compared with it. No state.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
pub use strongroom_schemas::marked::depth;

use crate::reject::{Reason, Refusal};

/// White space of JSON.
pub(crate) const WHITE: [char; 4] = [' ', '\t', '\r', '\n'];

fn is_white(byte: u8) -> bool {
    WHITE.contains(&char::from(byte))
}

pub(crate) fn trim_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_white(*byte));
    &text[start.unwrap_or(text.len())..]
}

pub(crate) fn trim_end(text: &[u8]) -> &[u8] {
    let last = text.iter().rposition(|byte| !is_white(*byte));
    &text[..last.map_or(0, |last| last + 1)]
}

/// Returns `text` without the white space around it.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

/// Returns the text of a string literal; `None` if the literal is not JSON. Bytes that are not
/// UTF-8 stay in the text. A lone surrogate becomes three such bytes.
pub(crate) fn unescaped(literal: &[u8]) -> Option<Vec<u8>> {
    struct BytesVisitor;
    impl Visitor<'_> for BytesVisitor {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
    if !literal.starts_with(b"\"") {
        return None;
    }
    // Reading bytes does not refuse control characters, so the literal is first checked as JSON.
    serde_json::from_slice::<IgnoredAny>(literal).ok()?;
    serde_json::Deserializer::from_slice(literal).deserialize_bytes(BytesVisitor).ok()
}

/// The members of a JSON object in their order, with unescaped keys, and with values as text.
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

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

/// Returns the value of the last member of this name.
pub fn member<'a>(members: &Members<'a>, name: &str) -> Option<&'a RawValue> {
    members.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
}

pub(crate) fn string(name: &str, value: &RawValue) -> Result<Option<String>, Refusal> {
    serde_json::from_str::<Option<String>>(value.get()).map_err(|_| Refusal::field(name, "a string"))
}

pub(crate) fn field(name: &str, members: &Members<'_>, key: &str) -> Result<Option<String>, Refusal> {
    member(members, key).map_or(Ok(None), |value| string(name, value))
}

pub(crate) fn object<'a>(name: &str, value: Option<&'a RawValue>) -> Result<Option<Members<'a>>, Refusal> {
    let Some(value) = value.filter(|value| value.get() != "null") else { return Ok(None) };
    serde_json::from_str(value.get()).map(Some).map_err(|_| Refusal::field(name, "an object"))
}

/// Returns the JSON value at the start of `text`, and the text after the value.
pub(crate) fn first_value(text: &str) -> Option<(&str, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next()?.ok()?;
    Some((value.get(), &text[values.byte_offset()..]))
}

/// Refuses text that is nested deeper than `depth_max`.
pub(crate) fn bounded_depth(text: &[u8], depth_max: usize) -> Result<(), Refusal> {
    let deepest = depth(text);
    if deepest > depth_max {
        return Err(Refusal::new(
            Reason::TooDeep,
            format!("nested {deepest} levels deep, at most {depth_max} are decoded"),
        ));
    }
    Ok(())
}
