//! Scans JSON text without building a tree: where a value ends, and what a string contains.
//!
//! The scanner accepts exactly what RFC 8259 accepts; tests compare it with `serde_json`. It is
//! this strict so that no other reader can find a structure in an event that the editor did not
//! find.
//!
//! Invariant: no function recurses deeper than [`DEPTH_MAX`]. No state.

use std::borrow::Cow;

use memchr::memchr2;
use strongroom_lines::DEPTH_MAX;

/// Number of bytes of a string that are scanned one by one, before a search that is fast on long
/// strings.
const SHORT_BYTES: usize = 24;

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    NotJson,
    TooDeep,
    /// Members of the record itself are repeated, so a mark could not tell them apart.
    Ambiguous,
}

/// Returns the position of the next byte that is not white space.
pub(crate) fn skip_white(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Returns a text without the characters at its start and end that print nothing: white space of
/// any kind, control characters, and byte order marks.
pub(crate) fn bare(text: &[u8]) -> &[u8] {
    let is_ascii = |byte: &u8| byte.is_ascii() && !byte.is_ascii_control() && *byte != b' ';
    if text.first().is_none_or(is_ascii) && text.last().is_none_or(is_ascii) {
        return text;
    }
    let is_nothing = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut start = 0;
    for chunk in text.utf8_chunks() {
        let left = chunk.valid().trim_start_matches(is_nothing).len();
        start += chunk.valid().len() - left;
        if left > 0 || !chunk.invalid().is_empty() {
            break;
        }
    }
    let text = &text[start..];
    // At the end, such characters can be found only if all of the text is UTF-8.
    std::str::from_utf8(text)
        .map_or(text.trim_ascii_end(), |text| text.trim_end_matches(is_nothing).as_bytes())
}

/// Checks that the byte at `at` is `byte`, and returns the position after it.
pub(crate) fn expect(text: &[u8], at: usize, byte: u8) -> Result<usize, Broken> {
    if text.get(at) == Some(&byte) { Ok(at + 1) } else { Err(Broken::NotJson) }
}

/// Returns the position after the closing quote of the string that begins at `at`.
pub(crate) fn string_end(text: &[u8], at: usize) -> Result<usize, Broken> {
    let mut at = expect(text, at, b'"')?;
    // Most strings are short, and for them these steps cost less than a call of the search.
    for byte in text.get(at..).unwrap_or_default().iter().take(SHORT_BYTES) {
        match byte {
            b'"' => return Ok(at + 1),
            b'\\' => break,
            0..0x20 => return Err(Broken::NotJson),
            _ => at += 1,
        }
    }
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(found) = memchr2(b'"', b'\\', rest) else { return Err(Broken::NotJson) };
        if rest[..found].iter().any(|byte| *byte < 0x20) {
            return Err(Broken::NotJson);
        }
        at += found + 1;
        if rest[found] == b'"' {
            return Ok(at);
        }
        match text.get(at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 1,
            Some(b'u') => {
                unit(text, at + 1).ok_or(Broken::NotJson)?;
                at += 5;
            }
            _ => return Err(Broken::NotJson),
        }
    }
}

/// Returns the position after the value that begins at `at`. `depth` is the number of containers
/// around the value.
pub(crate) fn value_end(text: &[u8], at: usize, depth: usize) -> Result<usize, Broken> {
    match text.get(at) {
        Some(b'"') => string_end(text, at),
        Some(b'{') => {
            each_member(text, at, depth, |_, at, depth| value_end(text, at, depth)).map(|(_, end)| end)
        }
        Some(b'[') => each_element(text, at, depth, |at, depth| value_end(text, at, depth)),
        _ => scalar_end(text, at),
    }
}

/// Calls `read` for each member of the object at `at`, with the start and end of the name's
/// literal, the position of the value, and the depth inside the object. `read` returns the position
/// after the value. Returns the number of members, and the position after the object.
pub(crate) fn each_member(
    text: &[u8],
    at: usize,
    depth: usize,
    mut read: impl FnMut((usize, usize), usize, usize) -> Result<usize, Broken>,
) -> Result<(usize, usize), Broken> {
    if depth >= DEPTH_MAX {
        return Err(Broken::TooDeep);
    }
    let mut at = skip_white(text, expect(text, at, b'{')?);
    if text.get(at) == Some(&b'}') {
        return Ok((0, at + 1));
    }
    let mut count = 0;
    loop {
        let name_end = string_end(text, at)?;
        let value_at = skip_white(text, expect(text, skip_white(text, name_end), b':')?);
        at = skip_white(text, read((at, name_end), value_at, depth + 1)?);
        count += 1;
        match text.get(at) {
            Some(b',') => at = skip_white(text, at + 1),
            Some(b'}') => return Ok((count, at + 1)),
            _ => return Err(Broken::NotJson),
        }
    }
}

/// Calls `read` for each element of the array at `at`. Returns the position after the array.
pub(crate) fn each_element(
    text: &[u8],
    at: usize,
    depth: usize,
    mut read: impl FnMut(usize, usize) -> Result<usize, Broken>,
) -> Result<usize, Broken> {
    if depth >= DEPTH_MAX {
        return Err(Broken::TooDeep);
    }
    let mut at = skip_white(text, expect(text, at, b'[')?);
    if text.get(at) == Some(&b']') {
        return Ok(at + 1);
    }
    loop {
        at = skip_white(text, read(at, depth + 1)?);
        match text.get(at) {
            Some(b',') => at = skip_white(text, at + 1),
            Some(b']') => return Ok(at + 1),
            _ => return Err(Broken::NotJson),
        }
    }
}

/// Returns the position after a literal (`true`, `false`, `null`) or a number.
pub(crate) fn scalar_end(text: &[u8], at: usize) -> Result<usize, Broken> {
    let rest = text.get(at..).unwrap_or_default();
    for literal in [&b"true"[..], b"false", b"null"] {
        if rest.starts_with(literal) {
            return Ok(at + literal.len());
        }
    }
    let digits = |at: usize| {
        let end = text[at..].iter().position(|byte| !byte.is_ascii_digit()).map_or(text.len(), |n| at + n);
        if end > at { Ok(end) } else { Err(Broken::NotJson) }
    };
    let mut end = at + usize::from(rest.first() == Some(&b'-'));
    end = match text.get(end) {
        Some(b'0') => end + 1,
        Some(b'1'..=b'9') => digits(end)?,
        _ => return Err(Broken::NotJson),
    };
    if text.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        end = digits(end + 1 + usize::from(matches!(text.get(end + 1), Some(b'+' | b'-'))))?;
    }
    Ok(end)
}

/// Returns the content of a string literal, without its quotes and escapes. A lone surrogate
/// becomes the three bytes that UTF-8 would have for it, so different strings stay different.
/// [`string_end`] must have accepted `literal`.
pub(crate) fn unescape(literal: &[u8]) -> Cow<'_, [u8]> {
    let inner = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    let Some(first) = memchr::memchr(b'\\', inner) else { return Cow::Borrowed(inner) };
    let mut out = Vec::with_capacity(inner.len());
    out.extend_from_slice(&inner[..first]);
    let mut at = first;
    while let Some(byte) = inner.get(at) {
        if *byte != b'\\' {
            let end = memchr::memchr(b'\\', &inner[at..]).map_or(inner.len(), |found| at + found);
            out.extend_from_slice(&inner[at..end]);
            at = end;
            continue;
        }
        let escape = inner.get(at + 1).copied().unwrap_or(b'\\');
        at += 2;
        match escape {
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let high = unit(inner, at).unwrap_or(0xfffd);
                at += 4;
                let low =
                    if (0xd800..0xdc00).contains(&high) && inner[at.min(inner.len())..].starts_with(b"\\u") {
                        unit(inner, at + 2).filter(|low| (0xdc00..0xe000).contains(low))
                    } else {
                        None
                    };
                match low {
                    Some(low) => {
                        at += 6;
                        push_code(&mut out, 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                    }
                    None => push_code(&mut out, high),
                }
            }
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// Returns the value of the four hex digits at `at`.
fn unit(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..at + 4)?.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

fn push_code(out: &mut Vec<u8>, code: u32) {
    match char::from_u32(code) {
        Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        // A lone surrogate is encoded as if it were a character.
        None => out.extend([
            0xe0 | (code >> 12) as u8,
            0x80 | (code >> 6 & 0x3f) as u8,
            0x80 | (code & 0x3f) as u8,
        ]),
    }
}

/// Writes a string literal for `text`, with the escapes of Go's `encoding/json`.
pub(crate) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend(b"\\\""),
                '\\' => out.extend(b"\\\\"),
                '\n' => out.extend(b"\\n"),
                '\r' => out.extend(b"\\r"),
                '\t' => out.extend(b"\\t"),
                '\u{8}' => out.extend(b"\\b"),
                '\u{c}' => out.extend(b"\\f"),
                '<' | '>' | '&' | '\0'..='\u{1f}' => {
                    let byte = character as u8;
                    out.extend([
                        b'\\',
                        b'u',
                        b'0',
                        b'0',
                        HEX[usize::from(byte >> 4)],
                        HEX[usize::from(byte & 15)],
                    ]);
                }
                '\u{2028}' => out.extend(b"\\u2028"),
                '\u{2029}' => out.extend(b"\\u2029"),
                _ => out.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        // The text comes from `unescape`, so bytes that are not UTF-8 are part of a lone surrogate.
        if !chunk.invalid().is_empty() {
            out.extend("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        let at = skip_white(text.as_bytes(), 0);
        value_end(text.as_bytes(), at, 0).is_ok_and(|end| skip_white(text.as_bytes(), end) == text.len())
    }

    #[test]
    fn strings_are_unescaped() {
        let text = |literal: &str| unescape(literal.as_bytes()).into_owned();
        assert_eq!(text(r#""d\u0061ta""#), b"data");
        assert_eq!(text(r#""\ud83d\ude00\/\"\\\n""#), "😀/\"\\\n".as_bytes());
        assert_eq!(text(r#""a\ud800b""#), b"a\xed\xa0\x80b");
        assert_eq!(text(r#""\ud800\u0041""#), b"\xed\xa0\x80A");
        assert_eq!(text(r#""\udc00\ud800""#), b"\xed\xb0\x80\xed\xa0\x80");
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            "-",
            "+1",
            "1e",
            ".5",
            "nul",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"a",
            "\"a\nb\"",
            "[1 2]",
            "{\"a\":1 \"b\":2}",
            "[1}",
            "tru",
            "NaN",
            "{,}",
        ] {
            assert!(!accepts(text), "{text}");
            assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_err(), "{text}");
        }
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(accepts(&deep(DEPTH_MAX)));
        assert_eq!(value_end(deep(DEPTH_MAX + 1).as_bytes(), 0, 0), Err(Broken::TooDeep));
    }

    proptest! {
        #[test]
        fn the_same_texts_are_accepted_as_by_serde(text in "[{}\\[\\]\",:\\\\u0-9a-f.eE+ -]{0,12}|[ -~\n\\\\\"]{0,12}") {
            let serde = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(accepts(&text), serde);
        }

        #[test]
        fn strings_are_what_serde_sees(text in any::<String>()) {
            let literal = serde_json::to_string(&text).expect("a literal");
            prop_assert_eq!(unescape(literal.as_bytes()), text.as_bytes());
            let mut written = Vec::new();
            write_string(text.as_bytes(), &mut written);
            prop_assert_eq!(serde_json::from_slice::<String>(&written).expect("a literal"), text);
        }
    }
}
