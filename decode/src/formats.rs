//! Writes values in the formats that forms name. A *form* is a template that says how the record of
//! a row is written from its columns.
//!
//! Invariant: a value is written whole or not at all. A time whose digits do not fit is a fault,
//! and is never cut. The closed sets of formats are in [`strongroom_schemas::form`];
//! `docs/format.md`, *Forms*, says what each format writes. Nothing is kept here.

use strongroom_lines::time;
use strongroom_schemas::form::{Decimals, Layout, Style, Zone};

/// The years 1 to 9999, which every reader of times supports.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// Position of the decimal point in what [`time::render`] writes.
const POINT: usize = 19;

/// Appends `text` as the content of a string, without quotes.
pub(crate) fn escape(style: Style, text: &str, out: &mut Vec<u8>) {
    let rules = style.escapes();
    let mut from = 0;
    for (at, character) in text.char_indices() {
        let short = match character {
            '"' => b'"',
            '\\' => b'\\',
            '\n' => b'n',
            '\r' => b'r',
            '\t' => b't',
            '\u{8}' if rules.short => b'b',
            '\u{c}' if rules.short => b'f',
            '/' if rules.slash => b'/',
            ..' ' => 0,
            '<' | '>' | '&' if rules.html => 0,
            '\u{7f}' if rules.delete => 0,
            '\u{2028}' | '\u{2029}' if rules.line_separators => 0,
            '\u{80}'.. if rules.non_ascii => 0,
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[from..at]);
        from = at + character.len_utf8();
        if short != 0 {
            out.extend_from_slice(&[b'\\', short]);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            out.extend_from_slice(b"\\u");
            let digits: &[u8; 16] = if rules.upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
            out.extend((0..4).rev().map(|place| digits[usize::from(*unit >> (4 * place) & 15)]));
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

/// Appends a time with its quotes; `None` if it has digits that the format has no room for, or its
/// year does not have four digits.
pub(crate) fn time(decimals: Decimals, zone: Zone, micros: i64, out: &mut Vec<u8>) -> Option<()> {
    if !TIMES.contains(&micros) {
        return None;
    }
    let mut whole = Vec::with_capacity(time::CANONICAL_BYTES);
    time::render(micros, &mut whole);
    let digits = whole.get(POINT + 1..POINT + 7)?;
    let needed = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    let width = match decimals {
        Decimals::Fixed(width) => usize::from(width),
        Decimals::Trimmed => needed,
        Decimals::Threes => needed.next_multiple_of(3),
        Decimals::Sixes => needed.next_multiple_of(6),
    };
    if needed > width {
        return None;
    }
    out.push(b'"');
    out.extend_from_slice(&whole[..POINT]);
    if width > 0 {
        out.push(b'.');
        out.extend_from_slice(&digits[..width.min(6)]);
        out.extend(std::iter::repeat_n(b'0', width.saturating_sub(6)));
    }
    out.extend_from_slice(zone.as_str().as_bytes());
    out.push(b'"');
    Some(())
}

/// Appends the time as a whole number of `unit` microseconds since 1970. `None` if that is not a
/// whole number, or if the year does not have four digits.
pub(crate) fn epoch(unit: i64, micros: i64, out: &mut Vec<u8>) -> Option<()> {
    if !TIMES.contains(&micros) || micros % unit != 0 {
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
                    match time(decimals, zone, micros, &mut out) {
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
    }
}
