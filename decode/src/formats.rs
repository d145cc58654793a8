//! Writes values in the formats that forms name. A *form* is a template that says how the record of
//! a row is written from its columns.
//!
//! Invariant: a value is written whole or not at all. A time whose digits do not fit is a fault,
//! and is never cut. Only a copy of a time may be cut, because a column has the whole time. The
//! closed sets of formats are in [`strongroom_schemas::form`]; `docs/format.md`, *Forms*, says what
//! each format writes. No state.

use strongroom_lines::{swar, time};
use strongroom_schemas::form::{Codec, Decimals, Escapes, Layout, Style, Zone};

/// The years 1 to 9999, which every reader of times supports.
pub(crate) const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// Position of the decimal point in what [`time::render`] writes.
pub(crate) const POINT: usize = 19;

/// Appends `text` as the content of a string, without quotes.
pub(crate) fn escape(style: Style, text: &str, out: &mut Vec<u8>) {
    let rules = style.escapes();
    let bytes = text.as_bytes();
    match met(&rules, bytes) {
        Met::Nothing => out.extend_from_slice(bytes),
        Met::Common => {
            let mut at = 0;
            while let Some(found) = swar::copy_plain(bytes, at, out) {
                put_escape(&rules, char::from(bytes[found]), out);
                at = found + 1;
            }
        }
        Met::Other => escape_each(&rules, text, out),
    }
}

/// The kind of characters in a text that need escapes.
enum Met {
    Nothing,
    /// Quotes, backslashes, and characters below U+0020.
    Common,
    Other,
}

/// Returns which kind of characters in `text` need escapes. The loop has no early exit, so that it
/// is vectorised.
fn met(rules: &Escapes, text: &[u8]) -> Met {
    let mask = |is_escaped: bool| if is_escaped { 0xff } else { 0 };
    let (html, slash, delete) = (mask(rules.html), mask(rules.slash), mask(rules.delete));
    let non_ascii = mask(rules.non_ascii | rules.line_separators) & 0x80;
    let (mut common, mut other) = (0, 0);
    for byte in text {
        common |= u8::from(*byte == b'"') | u8::from(*byte == b'\\') | u8::from(*byte < b' ');
        other |= (u8::from(*byte == b'<') | u8::from(*byte == b'>') | u8::from(*byte == b'&')) & html;
        other |= (u8::from(*byte == b'/') & slash) | (u8::from(*byte == 0x7f) & delete);
        other |= *byte & non_ascii;
    }
    match (common, other) {
        (0, 0) => Met::Nothing,
        (_, 0) => Met::Common,
        _ => Met::Other,
    }
}

/// Appends a character as an escape.
fn put_escape(rules: &Escapes, character: char, out: &mut Vec<u8>) {
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{8}' if rules.short => b'b',
        '\u{c}' if rules.short => b'f',
        '/' => b'/',
        _ => 0,
    };
    if short != 0 {
        out.extend_from_slice(&[b'\\', short]);
        return;
    }
    for unit in character.encode_utf16(&mut [0; 2]) {
        out.extend_from_slice(b"\\u");
        let digits: &[u8; 16] = if rules.upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
        out.extend((0..4).rev().map(|place| digits[usize::from(*unit >> (4 * place) & 15)]));
    }
}

/// Like [`escape`], character by character.
fn escape_each(rules: &Escapes, text: &str, out: &mut Vec<u8>) {
    let mut from = 0;
    for (at, character) in text.char_indices() {
        let is_escaped = match character {
            '"' | '\\' | ..' ' => true,
            '/' => rules.slash,
            '<' | '>' | '&' => rules.html,
            '\u{7f}' => rules.delete,
            '\u{2028}' | '\u{2029}' if rules.line_separators => true,
            '\u{80}'.. => rules.non_ascii,
            _ => false,
        };
        if is_escaped {
            out.extend_from_slice(&text.as_bytes()[from..at]);
            from = at + character.len_utf8();
            put_escape(rules, character, out);
        }
    }
    out.extend_from_slice(&text.as_bytes()[from..]);
}

/// Appends a string with its quotes.
pub(crate) fn string(style: Style, text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape(style, text, out);
    out.push(b'"');
}

/// Appends a list of strings; `None` if one of them is null.
pub(crate) fn list<'a>(
    style: Style,
    layout: Layout,
    items: impl ExactSizeIterator<Item = Option<&'a str>>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let count = items.len();
    let line = |width: u8, out: &mut Vec<u8>| {
        if let Layout::Lines { fill, .. } = layout {
            out.push(b'\n');
            out.extend(std::iter::repeat_n(fill, usize::from(width)));
        }
    };
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        match layout {
            Layout::Spaced if at > 0 => out.push(b' '),
            Layout::Padded => out.push(b' '),
            Layout::Lines { items, .. } => line(items, out),
            Layout::Compact | Layout::Spaced => {}
        }
        string(style, item?, out);
    }
    match layout {
        Layout::Padded => out.push(b' '),
        Layout::Lines { close, .. } if count > 0 => line(close, out),
        _ => {}
    }
    out.push(b']');
    Some(())
}

/// Appends a time in the format of `codec`. `None` if the time has digits that the codec has no
/// room for, if its year does not have four digits, or if the codec is not one of a time.
pub(crate) fn time(codec: Codec, micros: i64, out: &mut Vec<u8>) -> Option<()> {
    if !TIMES.contains(&micros) {
        return None;
    }
    match codec {
        Codec::Time(decimals, zone) => string_of_time(decimals, zone, micros, out),
        Codec::Seconds => whole_units(1_000_000, micros, out),
        Codec::Milliseconds => whole_units(1_000, micros, out),
        Codec::DecimalSeconds(decimals) => {
            let digits = six_digits(micros.unsigned_abs() % 1_000_000);
            let width = width(decimals, &digits)?;
            if micros < 0 {
                out.push(b'-');
            }
            out.extend_from_slice(itoa::Buffer::new().format(micros.unsigned_abs() / 1_000_000).as_bytes());
            put_decimals(&digits, width, out);
            Some(())
        }
        Codec::Text(_) | Codec::List(..) | Codec::Integer | Codec::Json => None,
    }
}

/// Appends a copy of a time: the digits that its codec has no room for are left out.
pub(crate) fn copy(codec: Codec, micros: i64, out: &mut Vec<u8>) -> Option<()> {
    if !TIMES.contains(&micros) {
        return None;
    }
    let unit = match codec {
        Codec::Time(Decimals::Fixed(digits), _) | Codec::DecimalSeconds(Decimals::Fixed(digits)) => {
            10_i64.pow(6_u32.saturating_sub(digits.into()))
        }
        Codec::Seconds => 1_000_000,
        Codec::Milliseconds => 1_000,
        _ => 1,
    };
    time(codec, micros - micros.rem_euclid(unit), out)
}

fn six_digits(micros: u64) -> [u8; 6] {
    let mut rest = micros;
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

/// Returns how many decimals are written of a time whose six decimals are `digits`. `None` if a
/// digit would be lost.
fn width(decimals: Decimals, digits: &[u8]) -> Option<usize> {
    let needed = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    let width = decimals_written(decimals, needed);
    (needed <= width).then_some(width)
}

/// Returns how many decimals are written of a time that needs `needed` of them.
pub(crate) fn decimals_written(decimals: Decimals, needed: usize) -> usize {
    match decimals {
        Decimals::Fixed(width) => usize::from(width),
        Decimals::Trimmed => needed,
        Decimals::Threes => needed.next_multiple_of(3),
        Decimals::Sixes => needed.next_multiple_of(6),
    }
}

fn put_decimals(digits: &[u8], width: usize, out: &mut Vec<u8>) {
    if width > 0 {
        out.push(b'.');
        out.extend_from_slice(&digits[..width.min(6)]);
        out.extend(std::iter::repeat_n(b'0', width.saturating_sub(6)));
    }
}

fn string_of_time(decimals: Decimals, zone: Zone, micros: i64, out: &mut Vec<u8>) -> Option<()> {
    let mut whole = Vec::with_capacity(time::CANONICAL_BYTES);
    time::render(micros, &mut whole);
    let digits = whole.get(POINT + 1..POINT + 7)?;
    let width = width(decimals, digits)?;
    out.push(b'"');
    out.extend_from_slice(&whole[..POINT]);
    put_decimals(digits, width, out);
    out.extend_from_slice(zone.as_str().as_bytes());
    out.push(b'"');
    Some(())
}

/// Appends the time as a whole number of `unit` microseconds since 1970. `None` if that is not a
/// whole number.
fn whole_units(unit: i64, micros: i64, out: &mut Vec<u8>) -> Option<()> {
    if micros % unit != 0 {
        return None;
    }
    out.extend_from_slice(itoa::Buffer::new().format(micros / unit).as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::render::go_string;

    fn written(style: Style, text: &str) -> String {
        let mut out = Vec::new();
        string(style, text, &mut out);
        String::from_utf8(out).expect("escaping keeps UTF-8")
    }

    proptest! {
        #[test]
        fn styles_agree_with_go_and_serde_and_mean_the_text(text in any::<String>()) {
            let mut go = Vec::new();
            go_string(&text, &mut go);
            prop_assert_eq!(written(Style::Go, &text).into_bytes(), go);
            prop_assert_eq!(written(Style::Json, &text), serde_json::to_string(&text).expect("text"));
            for style in Style::ALL {
                let back: String = serde_json::from_str(&written(style, &text)).expect("a string");
                prop_assert_eq!(&back, &text);
            }
        }

        #[test]
        fn times_that_are_written_mean_the_same(micros in TIMES, cut in 0_u32..=6, width in 0_u8..=9) {
            let unit = 10_i64.pow(cut);
            let micros = (micros.div_euclid(unit) * unit).clamp(*TIMES.start(), *TIMES.end());
            for decimals in [Decimals::Fixed(width), Decimals::Trimmed, Decimals::Threes, Decimals::Sixes] {
                for zone in [Zone::Letter, Zone::Colon] {
                    let mut out = Vec::new();
                    match time(Codec::Time(decimals, zone), micros, &mut out) {
                        Some(()) => {
                            let text: String = serde_json::from_slice(&out).expect("a string");
                            prop_assert_eq!(time::parse(&text), Some(micros));
                        }
                        None => {
                            let Decimals::Fixed(width) = decimals else { panic!("{decimals:?} fits all") };
                            prop_assert!(micros % 10_i64.pow(6 - u32::from(width)) != 0);
                        }
                    }
                }
            }
        }

        /// If a codec can write a whole time, the copy of the time is the same text.
        #[test]
        fn copies_are_times_without_their_last_digits(micros in TIMES, width in 0_u8..=9, cut in 0_u32..=6) {
            let unit = 10_i64.pow(cut);
            let micros = (micros - micros.rem_euclid(unit)).clamp(*TIMES.start(), *TIMES.end());
            let decimals = [Decimals::Fixed(width), Decimals::Trimmed, Decimals::Threes, Decimals::Sixes];
            let seconds = decimals.map(Codec::DecimalSeconds);
            let texts = decimals.map(|decimals| Codec::Time(decimals, Zone::Letter));
            for codec in seconds.into_iter().chain(texts).chain([Codec::Seconds, Codec::Milliseconds]) {
                let (mut copied, mut written) = (Vec::new(), Vec::new());
                prop_assert_eq!(copy(codec, micros, &mut copied), Some(()));
                match time(codec, micros, &mut written) {
                    Some(()) => prop_assert_eq!(&copied, &written),
                    None => prop_assert!(written.is_empty()),
                }
                if let Codec::DecimalSeconds(Decimals::Trimmed) = codec {
                    let number: f64 = String::from_utf8(copied).expect("digits").parse().expect("a number");
                    prop_assert!((number * 1e6 - micros as f64).abs() < 64.0);
                }
            }
        }
    }
}
