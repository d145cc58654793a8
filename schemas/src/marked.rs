//! Compares a redacted record with its redaction mark.
//!
//! Only the writer knows what was in a record before it was redacted. But the mark can be compared
//! with the record that is left: [`compare`] finds a member that is there although the mark says
//! that it was dropped, and a member that has no token although the mark says that it was
//! tokenised.
//!
//! Invariants:
//! - Each value is read once, whatever the number of pointers into it. No error repeats a value.
//! - A record is not trusted: it may have any bytes. No state.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::marks::Redaction;

/// Maximum number of brackets that are open at once in a record with a mark.
pub const DEPTH_MAX: usize = 128;
/// Start of a token.
pub const TOKEN_PREFIX: &str = "rt1:";
/// Number of hex digits of the id of a token's key.
pub const TOKEN_KEY_DIGITS: usize = 8;
/// Number of hex digits of a token's digest.
pub const TOKEN_DIGEST_DIGITS: usize = 32;
/// The step of a pointer that means: in one or more items of this list.
pub const SOME_ITEMS: &str = "-";
const TOKEN_BYTES: usize = TOKEN_PREFIX.len() + TOKEN_KEY_DIGITS + 1 + TOKEN_DIGEST_DIGITS;

/// How a record differs from its mark.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MarkDiffers {
    #[error("its record is not the JSON object that a redacted record is")]
    Unreadable,
    #[error("its redaction says that a member was dropped, but the member is there")]
    NotDropped,
    #[error("its redaction says that a member was tokenised, but it has no token")]
    NotTokenised,
}

/// Returns the first token in a text, if there is one.
pub fn token_in(text: &str) -> Option<&str> {
    let is_hex = |text: &[u8]| text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.match_indices(TOKEN_PREFIX).find_map(|(at, prefix)| {
        let token = text.get(at..at + TOKEN_BYTES)?;
        let rest = &token.as_bytes()[prefix.len()..];
        let (key, digest) = rest.split_at(TOKEN_KEY_DIGITS);
        let digest = digest.strip_prefix(b":")?;
        (is_hex(key) && is_hex(digest)).then_some(token)
    })
}

/// Compares a record with the mark of its row.
///
/// # Errors
/// [`MarkDiffers`], for the first pointer that is not true of the record. Pointers to dropped
/// members are compared before pointers to tokenised ones.
pub fn compare(mark: &Redaction, record: &[u8]) -> Result<(), MarkDiffers> {
    let text = std::str::from_utf8(record).map_err(|_| MarkDiffers::Unreadable)?;
    if !text.starts_with('{') || !text.ends_with('}') || depth(record) > DEPTH_MAX {
        return Err(MarkDiffers::Unreadable);
    }
    let value: &RawValue = serde_json::from_str(text).map_err(|_| MarkDiffers::Unreadable)?;
    let mut tree = Node::default();
    mark.dropped().iter().for_each(|pointer| tree.at(pointer).said = Some(Said::Dropped));
    mark.tokenised().iter().for_each(|pointer| tree.at(pointer).said = Some(Said::Tokenised));
    tree.judge(Place::default(), Some(value.get()))?;
    match (tree.differs(Said::Dropped), tree.differs(Said::Tokenised)) {
        (true, _) => Err(MarkDiffers::NotDropped),
        (false, true) => Err(MarkDiffers::NotTokenised),
        (false, false) => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Dropped,
    Tokenised,
}

/// A place in a record: what the pointers of the mark say about it, and what was found there.
#[derive(Default)]
struct Node {
    said: Option<Said>,
    /// Whether some value at the place is as the mark says, and whether some value is not.
    holds: bool,
    fails: bool,
    /// Whether the pointer is about some items of a list, and not about one place.
    is_folded: bool,
    inside: BTreeMap<String, Node>,
}

impl Node {
    fn at(&mut self, pointer: &str) -> &mut Node {
        pointer.split('/').skip(1).fold(self, |node, step| {
            node.inside.entry(step.replace("~1", "/").replace("~0", "~")).or_default()
        })
    }

    /// Judges a value and everything in it. `None` stands for a missing value. If a member is
    /// repeated, all its values are judged.
    fn judge(&mut self, place: Place, value: Option<&str>) -> Result<(), MarkDiffers> {
        let unreadable = |_| MarkDiffers::Unreadable;
        let string = value.filter(|value| value.starts_with('"')).map(serde_json::from_str::<Text<'_>>);
        let string = string.transpose().map_err(unreadable)?;
        // An item that was removed is null, so that those after it keep their places.
        let is_gone = value.is_none_or(|value| place.is_item && value == "null");
        let is_so = match self.said {
            Some(Said::Dropped) => Some(is_gone),
            // A missing or null value has no token, but does not count against another value at
            // this place that has one.
            Some(Said::Tokenised) if value.is_none_or(|value| value == "null") => None,
            Some(Said::Tokenised) => {
                Some(string.is_some_and(|Text(text)| token_in(&String::from_utf8_lossy(&text)).is_some()))
            }
            None => None,
        };
        self.holds |= is_so == Some(true);
        self.fails |= is_so == Some(false);
        self.is_folded |= place.is_folded;
        if self.inside.is_empty() {
            return Ok(());
        }
        match value {
            Some(value) if value.starts_with('{') => {
                let Members(members) = serde_json::from_str(value).map_err(unreadable)?;
                let place = Place { is_item: false, ..place };
                for (step, node) in &mut self.inside {
                    let mut values = members.iter().filter(|(name, _)| **name == *step.as_bytes()).peekable();
                    if values.peek().is_none() {
                        node.judge(place, None)?;
                    }
                    values.try_for_each(|(_, value)| node.judge(place, Some(value.get())))?;
                }
            }
            Some(value) if value.starts_with('[') => {
                let items: Vec<&RawValue> = serde_json::from_str(value).map_err(unreadable)?;
                for (step, node) in &mut self.inside {
                    if step == SOME_ITEMS {
                        let place = Place { is_item: true, is_folded: true };
                        items.iter().try_for_each(|item| node.judge(place, Some(item.get())))?;
                        continue;
                    }
                    let index = step.parse::<usize>().ok().filter(|index| index.to_string() == *step);
                    let item = index.and_then(|index| items.get(index));
                    node.judge(Place { is_item: true, ..place }, item.map(|item| item.get()))?;
                }
            }
            _ => self.inside.values_mut().try_for_each(|node| node.judge(place, None))?,
        }
        Ok(())
    }

    /// Whether a pointer that says `said`, to this place or to one inside it, is not true of the
    /// record. A pointer to some items of a list is not true if the list has no items.
    fn differs(&self, said: Said) -> bool {
        let holds = match self.is_folded {
            true => self.holds,
            false => !self.fails && (self.holds || said == Said::Dropped),
        };
        (self.said == Some(said) && !holds) || self.inside.values().any(|node| node.differs(said))
    }
}

/// Where a value is.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Whether the value is an item of a list.
    is_item: bool,
    /// Whether the value is in one of several items that the pointer is about.
    is_folded: bool,
}

/// Returns how many brackets are open at once at the deepest point of a JSON text.
pub fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Members of an object in order, names unescaped, values as text.
struct Members<'a>(Vec<(Cow<'a, [u8]>, &'a RawValue)>);

/// The content of a string, as bytes, because a `str` cannot contain a lone surrogate, which a
/// client may send.
struct Text<'a>(Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_bytes<E>(self, text: &'de [u8]) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_bytes<E>(self, text: &[u8]) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_bytes(TextVisitor)
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
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases that the second verifier has as well.
    #[test]
    fn records_are_compared_with_their_marks() {
        let cases: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../tests/data/marked.json")).expect("a list");
        assert!(cases.len() > 20);
        for case in &cases {
            let text = |name: &str| case[name].as_str().unwrap_or_else(|| panic!("{case}")).to_owned();
            let paths = |name: &str| -> Vec<String> {
                let paths = case[name].as_array().into_iter().flatten();
                paths.map(|path| path.as_str().expect("a path").to_owned()).collect()
            };
            let mark = Redaction::new(1, paths("dropped"), paths("tokenised")).expect("a mark");
            let found = compare(&mark, text("record").as_bytes()).err().map(|differs| differs.to_string());
            assert_eq!(found.as_deref(), case["finding"].as_str(), "{case}");
        }
    }

    #[test]
    fn a_record_cut_anywhere_is_a_finding() {
        let token = format!("rt1:0123abcd:{}", "5".repeat(TOKEN_DIGEST_DIGITS));
        let record = format!(r#"{{"a":{{"b":["{token}",{{"c":1}}]}},"d":"x\u00e9y"}}"#);
        let mark = Redaction::new(1, vec!["/a/x".to_owned()], vec!["/a/b/0".to_owned()]).expect("a mark");
        assert_eq!(compare(&mark, record.as_bytes()), Ok(()));
        for end in 0..record.len() {
            assert_eq!(compare(&mark, &record.as_bytes()[..end]), Err(MarkDiffers::Unreadable), "{end}");
        }
        for at in record.find(&token).expect("the token")..record.find("\",{").expect("the end of the object")
        {
            let mut changed = record.clone().into_bytes();
            changed[at] = b'x';
            assert_eq!(compare(&mark, &changed), Err(MarkDiffers::NotTokenised), "{at}");
        }
        let with = |at: usize, byte: u8| {
            let mut changed = record.clone().into_bytes();
            changed[at] = byte;
            changed
        };
        let not_utf8 = with(record.len() - 4, 0xff);
        assert_eq!(compare(&mark, &not_utf8), Err(MarkDiffers::Unreadable));
    }

    #[test]
    fn tokens_are_found_in_text() {
        let token = "rt1:0123abcd:00112233445566778899aabbccddeeff";
        assert_eq!(token.len(), TOKEN_BYTES);
        assert_eq!(token_in(token), Some(token));
        assert_eq!(token_in(&format!("rt1:rt1:/a?b={token}f")), Some(token));
        for text in ["", "rt1:", &token[1..], &token[..TOKEN_BYTES - 1], &token.to_uppercase(), "rt1:é"] {
            assert_eq!(token_in(text), None, "{text}");
        }
        assert_eq!(token_in(&token.replace("abcd:", "abcd-")), None);
    }

    #[test]
    fn deep_records_are_refused_and_not_recursed_into() {
        let mark = Redaction::new(1, vec!["/a/0/0/0".to_owned()], Vec::new()).expect("a mark");
        let deep = |lists: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(lists), "]".repeat(lists));
        assert_eq!(compare(&mark, deep(DEPTH_MAX - 1).as_bytes()), Err(MarkDiffers::NotDropped));
        assert_eq!(compare(&mark, deep(DEPTH_MAX).as_bytes()), Err(MarkDiffers::Unreadable));
        assert_eq!(compare(&mark, deep(1 << 20).as_bytes()), Err(MarkDiffers::Unreadable));
    }
}
