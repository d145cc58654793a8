//! Finds the events of JSON documents that have many lines, or many events in an array.
//!
//! A *page* is a part of such a document that contains one event. A page begins with its event,
//! except the first page, which begins where the document begins. A page ends where the next event
//! begins, or at the document's end. The following are documents: an array of objects; an object
//! over several lines; `{"events":[…]}` and `{"kind":"EventList",…,"items":[…]}` over several
//! lines. Invariants:
//! - The pages of a document contain all its bytes. Between the elements of an array there may be
//!   only commas and white space, so no text that could be a record is taken for a part of the
//!   frame. Before a document there may also be a byte order mark and empty arrays, and between two
//!   documents a comma.
//! - People edit documents, and programs may stop while they write them. So a surplus or missing
//!   comma between two elements, a missing bracket at the end, or other text after an element never
//!   causes a whole element to be lost. None of these can be inside JSON, so they do not help a
//!   client to get text out of the event that contains the text.
//! - An element that is not an object (a list, a string, a number, or a word such as `null`) is a
//!   page too. A list is refused. The others are judged like events, because a string may contain
//!   an event.
//! - To continue at the end of a page, only the kind of the document must be known: see [`Within`].
//! - The bytes of the stream alone decide where a page begins and ends. A text that is not a page
//!   ([`Page::Broken`]) ends the document, and the stream is read as lines from there on.
//! - A stream that begins with an event on one line is never read as documents, so streams of such
//!   lines cost nothing. After a document, an event on one line is a document too, if it ends on
//!   that line. JSON has no line feed in a string. So if a writer stopped inside a string, its
//!   document ends at the next line feed, and the lines after that are not taken for text of the
//!   string.
//! - If a file was cut, a stream may begin inside a list that a client wrote. So if the first
//!   object of an array does not belong to a log, its other objects are not taken for events: see
//!   [`Within::Foreign`]. A stream whose first object is indented more deeply than the first object
//!   of a whole document is not read as documents either.
//! - Nothing recurses, and a page has at most as many bytes as a line.

use crate::limits::BOM;
use crate::wrapper;

/// Where in a document a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// Before the first document.
    Nothing,
    /// After a document.
    After,
    /// In an array, before one of its objects.
    Array,
    /// In an array whose first object does not belong to a log, before a later object.
    Foreign,
    /// In an array that is a member of an object, before one of its objects.
    List,
}

/// The page at the beginning of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// A page of `length` bytes, with its event at `event.0..event.1`.
    Whole { length: usize, event: (usize, usize), then: Within },
    /// White space up to the end.
    Blank,
    /// Only bytes that are not here yet can show whether this is a page, or where it ends.
    Open,
    /// Not a page.
    Broken,
}

/// Longest text of a list before its first item, and after its last one.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// Longest number, or word such as `null`, that may be an element.
const WORD_BYTES_MAX: usize = 1 << 10;

/// Returns whether a stream that begins with `text` begins with a document; `None` if that depends
/// on bytes after `text`.
pub(crate) fn begins(text: &[u8]) -> Option<bool> {
    begins_within(text, Within::Nothing)
}

/// Like [`begins`], for a text at the beginning of a stream or after a document, as `within` says.
pub(crate) fn begins_within(text: &[u8], within: Within) -> Option<bool> {
    let start = between(text, within);
    match text.get(start) {
        _ if start > FRAME_BYTES_MAX => Some(false),
        None => None,
        Some(_) if BOM.starts_with(&text[start..]) => None,
        Some(b'[') => {
            let first = separated(text, start + 1);
            match text.get(first) {
                None if first - start > FRAME_BYTES_MAX => Some(false),
                None => None,
                Some(b'{') => Some(true),
                Some(next) => {
                    Some((is_scalar(*next) || *next == b'[') && text[start..first].contains(&b'\n'))
                }
            }
        }
        Some(b'{') if within == Within::After => Some(true),
        Some(b',') if within == Within::After => {
            let next = blank(text, start + 1);
            if next == text.len() && next - start <= FRAME_BYTES_MAX { None } else { Some(false) }
        }
        Some(b'{') => {
            let end = spaces(text, start + 1);
            text.get(end).map(|next| *next == b'\n')
        }
        Some(_) => Some(false),
    }
}

/// Returns the page at the beginning of `text`.
pub(crate) fn page(text: &[u8], within: Within, bytes_max: usize) -> Page {
    page_of(text, within, Bounds { bytes_max, is_end: false })
}

/// Like [`page`], for a text after which nothing comes.
pub(crate) fn last_page(text: &[u8], within: Within, bytes_max: usize) -> Page {
    page_of(text, within, Bounds { bytes_max, is_end: true })
}

/// The bounds of a page.
#[derive(Clone, Copy)]
struct Bounds {
    /// Longest element.
    bytes_max: usize,
    /// Whether nothing comes after the text, so that brackets which are still open are never
    /// closed.
    is_end: bool,
}

fn page_of(text: &[u8], within: Within, bounds: Bounds) -> Page {
    let found = match within {
        Within::Nothing | Within::After => first_page(text, within, bounds),
        Within::Array | Within::Foreign | Within::List => page_at(text, 0, within, None, bounds),
    };
    let bytes_max = bounds.bytes_max;
    match found {
        Ok(page) => page,
        Err(Stop::End) if text.len() > bytes_max.saturating_add(FRAME_BYTES_MAX) => Page::Broken,
        Err(Stop::End) => Page::Open,
        Err(Stop::Broken) => Page::Broken,
    }
}

enum Stop {
    End,
    Broken,
}

fn first_page(text: &[u8], within: Within, bounds: Bounds) -> Result<Page, Stop> {
    let start = between(text, within);
    if start == text.len() {
        return Ok(Page::Blank);
    }
    match begins_within(text, within) {
        None => return Err(Stop::End),
        Some(false) => return Err(Stop::Broken),
        Some(true) => {}
    }
    let levels = |levels| (within == Within::Nothing).then_some(levels);
    if text[start] == b'[' {
        let page = page_at(text, separated(text, start + 1), Within::Array, levels(1), bounds)?;
        return Ok(match page {
            Page::Whole { length, event, then: Within::Array }
                if !wrapper::is_element_of_log(&text[event.0..event.1]) =>
            {
                Page::Whole { length, event, then: Within::Foreign }
            }
            page => page,
        });
    }
    if byte(text, spaces(text, start + 1))? != b'\n' {
        return one_line(text, start, bounds);
    }
    match list_head(text, start)? {
        Some(first) => page_at(text, first, Within::List, levels(2), bounds),
        None => page_at(text, start, Within::Nothing, levels(0), bounds),
    }
}

/// Whether the object `text` is indented more deeply than an object that is inside `levels` objects
/// and lists. The beginning of its document is then missing, and the object may be a part of a
/// client's body that is printed over many lines.
fn is_deeper(text: &[u8], levels: usize) -> bool {
    let indent = |line: &[u8]| line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let lines = |at: Option<usize>| at.map(|newline| &text[newline + 1..]);
    let (Some(first), Some(last)) = (lines(memchr::memchr(b'\n', text)), lines(memchr::memrchr(b'\n', text)))
    else {
        return false;
    };
    let (inner, own) = (indent(first), indent(last));
    // The indentation of the closing brace is that of the object only if the brace is alone on its
    // line.
    own + 1 == last.len() && own > levels * inner.saturating_sub(own)
}

/// Returns the page of an object that must end on the line on which it begins.
fn one_line(text: &[u8], start: usize, bounds: Bounds) -> Result<Page, Stop> {
    let rest = text.get(start..).unwrap_or_default();
    let line_end = start + memchr::memchr(b'\n', rest).ok_or(Stop::End)?;
    match page_at(&text[..line_end], start, Within::Nothing, None, bounds) {
        Ok(Page::Whole { length, event, then })
            if matches!(text[length..line_end].trim_ascii(), b"" | b",") =>
        {
            Ok(Page::Whole { length, event, then })
        }
        _ => Err(Stop::Broken),
    }
}

/// Skips the text that may be before a document, and returns the position after that text.
pub(crate) fn between(text: &[u8], within: Within) -> usize {
    let (mut at, mut comma) = (0, within == Within::After);
    loop {
        at = blank(text, at);
        let rest = text.get(at..).unwrap_or_default();
        if rest.starts_with(BOM) {
            at += BOM.len();
            continue;
        }
        let next = blank(text, at + 1);
        match (rest.first(), text.get(next)) {
            (Some(b'['), Some(b']')) if next - at <= FRAME_BYTES_MAX => at = next + 1,
            (Some(b','), Some(b'{' | b'[')) if std::mem::take(&mut comma) => at += 1,
            _ => return at,
        }
    }
}

/// Whether a string, a number or a word of JSON may begin with this byte.
fn is_scalar(first: u8) -> bool {
    matches!(first, b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
}

/// Returns the position after the string, number or word of JSON that begins at `start`.
fn scalar_end(text: &[u8], start: usize, bytes_max: usize) -> Result<usize, Stop> {
    let end = match byte(text, start)? {
        b'"' => string_end(text, start)?,
        first if is_scalar(first) => {
            let is_end = |byte: &u8| matches!(byte, b',' | b']' | b' ' | b'\t' | b'\r' | b'\n');
            let rest = text[start..].iter().take(WORD_BYTES_MAX);
            match rest.clone().position(is_end) {
                Some(length) => start + length,
                None if rest.len() == WORD_BYTES_MAX => return Err(Stop::Broken),
                None => return Err(Stop::End),
            }
        }
        _ => return Err(Stop::Broken),
    };
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&text[start..end]).is_ok();
    if is_json && end - start <= bytes_max { Ok(end) } else { Err(Stop::Broken) }
}

/// Returns the page with the element at `start`. For the first element of a stream, `levels` is the
/// number of objects and lists around the element.
fn page_at(
    text: &[u8],
    start: usize,
    within: Within,
    levels: Option<usize>,
    bounds: Bounds,
) -> Result<Page, Stop> {
    let end = match byte(text, start)? {
        b'{' | b'[' => object_end(text, start, start.saturating_add(bounds.bytes_max))?,
        _ => scalar_end(text, start, bounds.bytes_max)?,
    };
    let event = (start, end);
    if let Some(levels) = levels
        && is_deeper(&text[start..end], levels)
    {
        return Err(Stop::Broken);
    }
    let closed = |end: usize| Page::Whole { length: spaces(text, end), event, then: Within::After };
    if within == Within::Nothing {
        return Ok(closed(end));
    }
    let next = separated(text, end);
    if next - end > FRAME_BYTES_MAX {
        return Ok(closed(end));
    }
    let has_comma = text[end..next].contains(&b',');
    match text.get(next) {
        // The rest of the list is missing because its line was cut, and a stream of lines follows.
        Some(b'{') if within == Within::Foreign && text[end..next].contains(&b'\n') && !has_comma => {
            Ok(Page::Whole { length: next, event, then: Within::After })
        }
        Some(b'{') => Ok(Page::Whole { length: next, event, then: within }),
        Some(begins) if has_comma && (*begins == b'[' || is_scalar(*begins)) => {
            Ok(Page::Whole { length: next, event, then: within })
        }
        Some(b']') if within != Within::List => Ok(closed(next + 1)),
        Some(b']') => match tail_end(text, next + 1) {
            Ok(end) => Ok(closed(end)),
            Err(Stop::End) if !bounds.is_end => Err(Stop::End),
            Err(_) => Ok(closed(next + 1)),
        },
        // The text that follows does not belong to the list.
        Some(_) => Ok(Page::Whole { length: next, event, then: Within::After }),
        None if bounds.is_end => Ok(closed(next)),
        None => Err(Stop::End),
    }
}

/// Returns the end of the members after a list, with the closing brace of its object.
fn tail_end(text: &[u8], from: usize) -> Result<usize, Stop> {
    Brackets { open: 1, bytes_max: from.saturating_add(FRAME_BYTES_MAX) }.end(text, from)
}

/// Returns where the first item of a list begins, if the object at `start` is a list of events.
fn list_head(text: &[u8], start: usize) -> Result<Option<usize>, Stop> {
    let (mut at, mut is_event_list) = (start + 1, false);
    loop {
        if at - start > FRAME_BYTES_MAX {
            return Ok(None);
        }
        at = blank(text, at);
        if byte(text, at)? != b'"' {
            return Ok(None);
        }
        let name_end = string_end(text, at)?;
        let name = &text[at + 1..name_end - 1];
        let colon = blank(text, name_end);
        if byte(text, colon)? != b':' {
            return Ok(None);
        }
        let value = blank(text, colon + 1);
        let is_list = match name {
            b"events" => at == blank(text, start + 1),
            b"items" => is_event_list,
            b"kind" | b"apiVersion" | b"metadata" => false,
            _ => return Ok(None),
        };
        let value_end = match byte(text, value)? {
            b'[' if is_list => {
                let first = separated(text, value + 1);
                return Ok((byte(text, first)? == b'{').then_some(first));
            }
            b'"' => string_end(text, value)?,
            b'{' if name == b"metadata" => object_end(text, value, value + FRAME_BYTES_MAX)?,
            _ => return Ok(None),
        };
        if name == b"kind" {
            is_event_list = &text[value..value_end] == b"\"EventList\"";
            if !is_event_list {
                return Ok(None);
            }
        }
        let comma = blank(text, value_end);
        if byte(text, comma)? != b',' {
            return Ok(None);
        }
        at = comma + 1;
    }
}

fn byte(text: &[u8], at: usize) -> Result<u8, Stop> {
    text.get(at).copied().ok_or(Stop::End)
}

fn object_end(text: &[u8], start: usize, bytes_max: usize) -> Result<usize, Stop> {
    Brackets { open: 1, bytes_max }.end(text, start + 1)
}

/// Counts the brackets that are open in a text.
struct Brackets {
    open: usize,
    bytes_max: usize,
}

impl Brackets {
    /// Returns the position after the bracket that closes the last open one.
    fn end(mut self, text: &[u8], from: usize) -> Result<usize, Stop> {
        let mut at = from;
        while self.open > 0 {
            if at > self.bytes_max {
                return Err(Stop::Broken);
            }
            match byte(text, at)? {
                b'"' => {
                    at = string_end(text, at)?;
                    continue;
                }
                b'{' | b'[' => self.open += 1,
                b'}' | b']' => self.open -= 1,
                _ => {}
            }
            at += 1;
        }
        Ok(at)
    }
}

/// Returns the position after the string that begins at `quote`.
fn string_end(text: &[u8], quote: usize) -> Result<usize, Stop> {
    let mut at = quote + 1;
    loop {
        let rest = text.get(at..).ok_or(Stop::End)?;
        at += memchr::memchr3(b'"', b'\\', b'\n', rest).ok_or(Stop::End)?;
        match text[at] {
            b'"' => return Ok(at + 1),
            b'\n' => return Err(Stop::Broken),
            _ => at += 2,
        }
    }
}

/// Returns the position of the first byte from `from` on that is not white space.
fn blank(text: &[u8], from: usize) -> usize {
    from + text
        .get(from..)
        .map_or(0, |rest| rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count())
}

/// Like [`blank`], but also skips commas, because documents that people edited may have surplus
/// ones.
fn separated(text: &[u8], from: usize) -> usize {
    let is_between = |byte: &&u8| matches!(**byte, b',' | b' ' | b'\t' | b'\r' | b'\n');
    from + text.get(from..).map_or(0, |rest| rest.iter().take_while(is_between).count())
}

/// Like [`blank`], but stays on the line.
fn spaces(text: &[u8], from: usize) -> usize {
    from + text
        .get(from..)
        .map_or(0, |rest| rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the events of all pages, and whether the text ended with a page.
    fn events(text: &str) -> (Vec<&str>, Page) {
        let (mut at, mut within, mut events) = (0, Within::Nothing, Vec::new());
        loop {
            match page(&text.as_bytes()[at..], within, 1 << 20) {
                Page::Whole { length, event: (start, end), then } => {
                    events.push(&text[at + start..at + end]);
                    at += length;
                    within = then;
                }
                other => return (events, other),
            }
        }
    }

    #[test]
    fn pages_of_documents() {
        for (text, expected) in [
            ("[{\"a\":1},{\"b\":2}]", vec!["{\"a\":1}", "{\"b\":2}"]),
            ("[\n  {\n    \"a\": \"]},{\"\n  }\n]\n", vec!["{\n    \"a\": \"]},{\"\n  }"]),
            ("{\n \"a\": [{}]\n}\n\n{\n \"b\": 1\n}\n", vec!["{\n \"a\": [{}]\n}", "{\n \"b\": 1\n}"]),
            (
                "{\n \"events\": [\n {\"message\":\"m\"},\n {\"message\":\"n\"}\n ],\n \"x\": [{}]\n}\n",
                vec!["{\"message\":\"m\"}", "{\"message\":\"n\"}"],
            ),
            (
                "{\n \"kind\": \"EventList\",\n \"metadata\": {},\n \"items\": [ {\"a\":1} ]\n}\n",
                vec!["{\"a\":1}"],
            ),
            (
                "{\n \"kind\": \"Event\",\n \"items\": [{}]\n}\n",
                vec!["{\n \"kind\": \"Event\",\n \"items\": [{}]\n}"],
            ),
            (
                "\u{feff}[\n{},\nnull, -1.5e3 ,\n\"],{\",true\n]\n",
                vec!["{}", "null", "-1.5e3", "\"],{\"", "true"],
            ),
            ("[\nnull,{}]\n", vec!["null", "{}"]),
            ("[\n[1, {\"]\":[]}],\n{},[{}]]\n", vec!["[1, {\"]\":[]}]", "{}", "[{}]"]),
            ("[]\n[ \n]\n{\n}\n[]\n\u{feff}[{}]\n[]\n", vec!["{\n}", "{}"]),
            ("{\n}\n{\"a\":1}\n{\n}\n{\"b\":1} \r\n", vec!["{\n}", "{\"a\":1}", "{\n}", "{\"b\":1}"]),
            ("{\n},\n{\n}\n,{\"a\":1},\n[{}]\n", vec!["{\n}", "{\n}", "{\"a\":1}", "{}"]),
            ("[{\"a\":\"\\\\\"}]\n[{}]", vec!["{\"a\":\"\\\\\"}", "{}"]),
            // Surplus and missing commas, and closing brackets that are missing before another
            // document.
            ("[\n{},\n{\"a\":1},\n]\n", vec!["{}", "{\"a\":1}"]),
            ("[\r\n,{},,\r\n{\"a\":1} , , ]\r\n", vec!["{}", "{\"a\":1}"]),
            ("[{}\n{\"a\":1}{\"b\":2}]\n", vec!["{}", "{\"a\":1}", "{\"b\":2}"]),
            ("{\n\"events\": [,{}, ],\n\"x\": 1\n}\n", vec!["{}"]),
            ("[{}\n[{\"a\":1}\n\u{feff}[{\"b\":2}]", vec!["{}", "{\"a\":1}", "{\"b\":2}"]),
        ] {
            assert_eq!(events(text), (expected, Page::Blank), "{text}");
            for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                assert!(matches!(events(&text[..cut]).1, Page::Blank | Page::Open), "{}", &text[..cut]);
            }
        }
    }

    #[test]
    fn what_is_not_a_document_is_one_of_lines() {
        for text in [
            "{\"a\":1}\n{\"b\":2}\n",
            "x\n",
            "[1,2]",
            "[[1]]",
            "[\nabc]",
            "[info] {\n",
            "{\n \"a\": \"cut\n{\"b\":2}\n",
        ] {
            assert_eq!(events(text), (vec![], Page::Broken), "{text}");
        }
        // Documents whose beginning is missing.
        let object = "{\n      \"kind\": \"Event\"\n    }";
        for (head, deepest) in [("", 0), ("[\n    ", 1), ("{\n  \"events\": [\n    ", 2)] {
            for levels in 0..5 {
                let indented = object.replace("\n    ", &format!("\n{}", "  ".repeat(levels)));
                let pages = events(&format!("{head}{indented}")).1;
                let is_broken = pages == Page::Broken;
                assert_eq!(is_broken, levels > deepest, "{head}{indented}");
            }
        }
        // Something other than a comma between two events.
        assert_eq!(events("[{\"a\":1};{\"b\":2}]"), (vec!["{\"a\":1}"], Page::Broken));
        assert_eq!(events("[{\"a\":1},7a,{\"b\":2}]"), (vec!["{\"a\":1}"], Page::Broken));
        // A document on one line that is followed by more text, or is cut.
        for next in ["{\"b\":1}]\n", "{\"b\":1} {}\n", "{\"b\":1},{}\n", "{\"b\":\n1}\n", "x\n", ",,\n"] {
            let text = format!("{{\n\"a\":1}}\n{next}");
            assert_eq!(events(&text), (vec!["{\n\"a\":1}"], Page::Broken), "{next}");
        }
        assert_eq!(events("[{\"a\":1},{\"b\":2} \"c\"]"), (vec!["{\"a\":1}", "{\"b\":2}"], Page::Broken));
        let long = format!("[{{\"a\":\"{}\"}}]", "x".repeat(1 << 20));
        assert_eq!(events(&long), (vec![], Page::Broken));
    }
}
