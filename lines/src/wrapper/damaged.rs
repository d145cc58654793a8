//! Reads damaged lists of events, so that each element is judged on its own.
//!
//! A list is damaged if its document is not UTF-8, ends too early, or contains text that is not
//! JSON. This module makes a JSON text from such a document. Every element that is read has the
//! same offset in the text as in the document:
//! - Each byte that is not UTF-8 is replaced by a character that no name in `LISTS` contains.
//! - A surplus comma in a list becomes a space.
//! - If the result is still not JSON, it is cut after the last whole element before the first
//!   error, and the brackets that are open there are closed. Bytes after the cut are not used,
//!   because nothing says how they belong together.
//!
//! Invariants:
//! - Only the structure is read from the new text. The caller judges the original bytes of each
//!   element.
//! - A list is cut only if the text before it says what kind of list it is and, for the kinds that
//!   name a source, who wrote the elements. Text after a document's end is never a part of the
//!   document.
//! - The work is linear in the document, and nothing recurses. No state outlives a document.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::writers::Writers;
use super::{Content, Record};
use crate::dialect::Dialect;
use crate::swar;
use crate::tolerant::{self, value_end};

/// Stands for a byte that is not UTF-8. It is not white space, and JSON allows it only in strings.
const REPLACED: u8 = 0x7f;

/// A damaged list that can be read.
pub struct Damaged {
    text: String,
    /// Length of the part of `text` whose offsets match the document; only closing brackets follow.
    kept: usize,
}

impl Damaged {
    /// Returns the list in `document`; `None` if the document is not damaged, or if its beginning
    /// does not show that it is a list.
    pub fn of(document: &[u8]) -> Option<Damaged> {
        let (mut bytes, mut is_changed) = replaced(document);
        let mut kept = bytes.len();
        let is_whole = is_json(&bytes) || {
            is_changed |= without_surplus_commas(&mut bytes);
            is_changed && is_json(&bytes)
        };
        if !is_whole {
            let (end, closers) = last_element(&bytes)?;
            // A surplus comma may come before the end of the list. But if other text follows the
            // end, the document is not a damaged list, because that text is not a part of the list.
            let rest = bytes.get(end..)?.trim_ascii_start();
            let rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
            if rest.starts_with(b"]") && !is_frame(rest) {
                return None;
            }
            bytes.truncate(end);
            bytes.extend(closers.iter().rev());
            kept = end;
        } else if !is_changed {
            return None;
        }
        Some(Damaged { text: String::from_utf8(bytes).ok()?, kept })
    }

    /// Returns the number of bytes at the start of the document that were read. No element extends
    /// beyond them.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Returns the elements; `None` if there are none, too many short ones, or only one that
    /// cannot be an event.
    pub fn records(&self, depth_max: usize, writers: &Writers) -> Option<Vec<Record<'_>>> {
        let records = match tolerant::list_items(self.text.as_bytes()) {
            Some(items) => {
                super::short_items(items.iter().map(|item| item.len())).ok()?;
                let beside = super::Beside::of_items(self.text.as_bytes(), writers);
                let items =
                    items.into_iter().filter_map(|item| std::str::from_utf8(item).ok()).map(list_item);
                match beside {
                    None => items.collect(),
                    Some(beside) => items.map(|item| item.refused(&beside)).collect(),
                }
            }
            None => super::records(&self.text, depth_max, writers).ok()?,
        };
        match records.as_slice() {
            [] => None,
            [Record { content: Content::Mapped(_) | Content::Foreign | Content::Refused(_), .. }] => None,
            _ => Some(records),
        }
    }

    /// Returns where in the document `part`, which is a slice of the text, begins and ends.
    pub fn extent_of(&self, part: &str) -> (usize, usize) {
        let start = part.as_ptr() as usize - self.text.as_ptr() as usize;
        (start.min(self.kept), (start + part.len()).min(self.kept))
    }
}

fn list_item(item: &str) -> Record<'_> {
    Record { item, content: Content::Event(item), dialect: Dialect::EventList }
}

/// Whether `text` has only what may follow the last element of a list.
pub fn is_frame(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}'))
}

/// Returns `text` with each byte that is not UTF-8 replaced.
pub(super) fn readable(text: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(text) {
        Ok(_) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(replaced(text).0),
    }
}

/// Returns `document` with each byte that is not UTF-8 replaced, and whether there was one.
fn replaced(document: &[u8]) -> (Vec<u8>, bool) {
    let mut bytes = document.to_vec();
    let mut at = 0;
    for chunk in document.utf8_chunks() {
        at += chunk.valid().len();
        let end = at + chunk.invalid().len();
        bytes[at..end].fill(REPLACED);
        at = end;
    }
    let is_changed = bytes != document;
    (bytes, is_changed)
}

/// Replaces each comma that lacks an element before or after it in its list by a space. Returns
/// whether there was such a comma.
fn without_surplus_commas(text: &mut [u8]) -> bool {
    // The last comma, if nothing has followed it so far, and whether a comma may stand at `at`.
    let (mut comma, mut may_follow, mut at) = (None, false, 0);
    let mut is_changed = false;
    while let Some(byte) = text.get(at).copied() {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b',' if !may_follow => (text[at], is_changed) = (b' ', true),
            b',' => (comma, may_follow) = (Some(at), false),
            b']' => {
                if let Some(comma) = comma.take() {
                    (text[comma], is_changed) = (b' ', true);
                }
                may_follow = true;
            }
            b'[' => (comma, may_follow) = (None, false),
            b'"' => {
                let Some(end) = swar::string_end(text, at) else { return is_changed };
                (comma, may_follow, at) = (None, true, end - 1);
            }
            _ => (comma, may_follow) = (None, true),
        }
        at += 1;
    }
    is_changed
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Returns the end of the last whole element before the first text that is not JSON, and the
/// closing brackets that are missing at that point, the outermost first.
fn last_element(text: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut at = white(text, 0);
    let mut closers = Vec::new();
    let (mut path, mut found) = (Vec::new(), None);
    loop {
        let bracket = *text.get(at)?;
        at += 1;
        closers.push(if bracket == b'[' { b']' } else { b'}' });
        let stopped_at = match bracket {
            b'[' => {
                let (end, broken) = elements(text, at);
                found = end.map(|end| (end, closers.clone())).or(found);
                if closers.len() == 1 && broken.is_none() && has(text, end?, b']') {
                    return None;
                }
                // An element that is not whole may contain a list itself.
                broken.filter(|at| closers.len() > 1 && text.get(*at) == Some(&b'{'))
            }
            b'{' => {
                let members = members(text, at, &path);
                if closers.len() == 1 && members.is_closed {
                    return None;
                }
                found = members.end.map(|end| (end, closers.clone())).or(found);
                members.list.map(|(name, list)| {
                    path.push(name);
                    list
                })
            }
            _ => None,
        };
        match stopped_at {
            Some(next) => at = next,
            None => return found,
        }
    }
}

fn has(text: &[u8], at: usize, byte: u8) -> bool {
    text.get(white(text, at)) == Some(&byte)
}

/// Returns the end of the last whole element of the list whose content begins at `at`, and the
/// start of the first element that is not whole.
fn elements(text: &[u8], mut at: usize) -> (Option<usize>, Option<usize>) {
    let mut last = None;
    loop {
        at = white(text, at);
        let Some(end) = whole_value(text, at) else { return (last, Some(at)) };
        last = Some(end);
        at = white(text, end);
        if text.get(at) != Some(&b',') {
            return (last, None);
        }
        at += 1;
    }
}

/// The result of reading an object that may not be whole.
struct Read {
    /// The end of the last whole member, if that member or an earlier one is a list of events.
    end: Option<usize>,
    /// The name and the start of the list in which reading stopped.
    list: Option<(&'static str, usize)>,
    is_closed: bool,
}

/// Reads the members of an object from `at` on. `path` has the names of the lists around it.
fn members(text: &[u8], mut at: usize, path: &[&str]) -> Read {
    let mut read = Read { end: None, list: None, is_closed: false };
    let (mut has_list, mut says_source) = (false, false);
    loop {
        at = white(text, at);
        if text.get(at) == Some(&b'}') {
            read.is_closed = true;
            return read;
        }
        let Some(name_end) = whole_value(text, at).filter(|_| text.get(at) == Some(&b'"')) else {
            return read;
        };
        let name = text.get(at + 1..name_end - 1).unwrap_or_default();
        let colon = white(text, name_end);
        if text.get(colon) != Some(&b':') {
            return read;
        }
        let value = white(text, colon + 1);
        let list = LISTS.iter().find(|list| list.name.as_bytes() == name && list.within == path);
        let Some(end) = whole_value(text, value) else {
            let list = list.filter(|list| says_source || list.source.is_none());
            read.list = list.filter(|_| text.get(value) == Some(&b'[')).map(|list| (list.name, value));
            return read;
        };
        says_source |= LISTS
            .iter()
            .any(|list| list.within == path && list.source.is_some_and(|source| source.as_bytes() == name));
        has_list |= list.is_some_and(|list| says_source || list.source.is_none());
        read.end = has_list.then_some(end);
        at = white(text, end);
        if text.get(at) == Some(&b',') {
            at += 1;
        } else if text.get(at) != Some(&b'}') {
            return read;
        }
    }
}

/// A list of a wrapper.
struct List {
    name: &'static str,
    /// The names of the lists around it.
    within: &'static [&'static str],
    /// The member of its object that says who wrote the elements. This member must come before the
    /// list.
    source: Option<&'static str>,
}

const LISTS: [List; 10] = [
    List { name: "records", within: &[], source: None },
    List { name: "logEvents", within: &[], source: Some("logStream") },
    List { name: "events", within: &[], source: None },
    List { name: "items", within: &[], source: Some("kind") },
    List { name: "values", within: &[], source: Some("stream") },
    List { name: "streams", within: &[], source: None },
    List { name: "values", within: &["streams"], source: Some("stream") },
    List { name: "resourceLogs", within: &[], source: None },
    List { name: "scopeLogs", within: &["resourceLogs"], source: Some("resource") },
    List { name: "logRecords", within: &["resourceLogs", "scopeLogs"], source: None },
];

/// Returns the end of the value that begins at `at`, if the value is JSON.
fn whole_value(text: &[u8], at: usize) -> Option<usize> {
    let (end, _) = value_end(text, at)?;
    is_json(text.get(at..end)?).then_some(end)
}

fn white(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
}
