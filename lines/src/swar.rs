//! Searches and copies JSON strings eight bytes at a time.
//!
//! A string that contains an event has an escape every few bytes. To call a vectorised search for
//! each escape costs more than the search itself. The functions here compare a word of eight bytes
//! at once, without a call. No state.
//!
//! Invariant: each function returns what a loop over the bytes would return. Tests compare the two.

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = LOW << 7;

/// Returns a word whose lowest set bit is in the first byte of `word` that equals `byte`; 0 if none
/// does. Bits above the lowest set one mean nothing.
#[inline(always)]
const fn equal(word: u64, byte: u8) -> u64 {
    let other = word ^ (LOW * byte as u64);
    other.wrapping_sub(LOW) & !other & HIGH
}

/// Like [`equal`], for the bytes below U+0020.
#[inline(always)]
const fn control(word: u64) -> u64 {
    word.wrapping_sub(LOW * 0x20) & !word & HIGH
}

#[inline(always)]
fn word(text: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*text.get(at..)?.first_chunk()?))
}

/// Returns the position of the first quote or backslash at or after `at`.
#[inline(always)]
pub fn quote_or_backslash(text: &[u8], mut at: usize) -> Option<usize> {
    while let Some(word) = word(text, at) {
        let found = equal(word, b'"') | equal(word, b'\\');
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = text.get(at..)?;
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|found| at + found)
}

/// Returns the position after the closing quote of the string whose opening quote is at `start`.
/// `None` if there is no whole string.
#[inline]
pub fn string_end(text: &[u8], start: usize) -> Option<usize> {
    if text.get(start) != Some(&b'"') {
        return None;
    }
    let mut at = start + 1;
    loop {
        at = quote_or_backslash(text, at)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Appends bytes of `text` from `at` on, up to the first quote, backslash or byte below U+0020, and
/// returns the position of that byte.
#[inline(always)]
pub fn copy_plain(text: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    while let Some(word) = word(text, at) {
        let found = equal(word, b'"') | equal(word, b'\\') | control(word);
        if found != 0 {
            let length = found.trailing_zeros() as usize / 8;
            out.extend_from_slice(&text[at..at + length]);
            return Some(at + length);
        }
        out.extend_from_slice(&word.to_le_bytes());
        at += 8;
    }
    let rest = text.get(at..)?;
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
    let length = rest.iter().position(is_special);
    out.extend_from_slice(&rest[..length.unwrap_or(rest.len())]);
    length.map(|length| at + length)
}

/// Returns the text of `literal`, which has its quotes, without the escapes. `None` if `literal` is
/// not a JSON string.
pub fn unescaped(literal: &[u8]) -> Option<String> {
    let content = literal.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(content.len());
    let mut at = 0;
    while let Some(found) = copy_plain(content, at, &mut text) {
        if content[found] != b'\\' {
            return None;
        }
        at = found + 2;
        text.push(match content.get(found + 1)? {
            byte @ (b'"' | b'\\' | b'/') => *byte,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 0x08,
            b'f' => 0x0c,
            b'u' => {
                let mut code = 0;
                for digit in content.get(at..at + 4)? {
                    code = code << 4 | char::from(*digit).to_digit(16)?;
                }
                let Some(character) = char::from_u32(code) else {
                    // A surrogate, perhaps one of a pair.
                    return serde_json::from_slice(literal).ok();
                };
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += 4;
                continue;
            }
            _ => return None,
        });
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(b'"'),
            Just(b'\\'),
            proptest::sample::select(b"abfnrtu/0dDcC8".to_vec()),
            Just(0x1f),
            Just(0x20),
            Just(0x7f),
            any::<u8>(),
        ];
        proptest::collection::vec(byte, 0..40)
    }

    proptest! {
        #[test]
        fn searches_find_what_a_loop_finds(text in texts(), at in 0_usize..44) {
            let is_mark = |byte: &u8| matches!(byte, b'"' | b'\\');
            let from = text.get(at..);
            let expected = from.and_then(|from| from.iter().position(is_mark)).map(|found| at + found);
            prop_assert_eq!(quote_or_backslash(&text, at), expected);

            let is_special = |byte: &u8| is_mark(byte) || *byte < 0x20;
            let expected = from.and_then(|from| from.iter().position(is_special)).map(|found| at + found);
            let mut copied = Vec::new();
            prop_assert_eq!(copy_plain(&text, at, &mut copied), expected);
            prop_assert_eq!(copied.as_slice(), &text[at.min(text.len())..expected.unwrap_or(text.len()).max(at.min(text.len()))]);
        }

        #[test]
        fn strings_end_at_their_first_quote_that_is_not_escaped(text in texts()) {
            let text = [b"\"", text.as_slice()].concat();
            let mut at = 1;
            let expected = loop {
                match text.get(at) {
                    None => break None,
                    Some(b'"') => break Some(at + 1),
                    Some(b'\\') => at += 2,
                    Some(_) => at += 1,
                }
            };
            prop_assert_eq!(string_end(&text, 0), expected);
            prop_assert_eq!(string_end(&text, 1), string_end(&text[1..], 0).map(|end| end + 1));
        }

        /// [`unescaped`] accepts the same literals as serde_json, and returns the same texts.
        #[test]
        fn strings_have_the_text_that_serde_reads(text in texts()) {
            let literal = [b"\"", text.as_slice(), b"\""].concat();
            prop_assert_eq!(unescaped(&literal), serde_json::from_slice::<String>(&literal).ok());
            let escaped = serde_json::to_string(&String::from_utf8_lossy(&text)).expect("a string");
            prop_assert_eq!(unescaped(escaped.as_bytes()), serde_json::from_str::<String>(&escaped).ok());
        }
    }
}
