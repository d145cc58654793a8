//! Finds the codecs of a form that write a value exactly as a record has it.
//!
//! Invariant: a codec is in a set only if it writes every escape, decimal and space of the text
//! that the set was made from. The set does not show that the value itself is right: the caller
//! compares what the form gives with the record. No state.

use memchr::memmem;
use strongroom_lines::swar::string_end;
use strongroom_lines::time;
use strongroom_schemas::form::{Codec, Decimals, Kind, LIST_INDENT_MAX, Layout, Style, Zone};

use crate::formats;

/// All styles, in order of preference: where a text allows several, the first of them is used.
const STYLES: [Style; 13] = [
    Style::Go,
    Style::Json,
    Style::GoPlain,
    Style::Ascii,
    Style::JsonSlash,
    Style::JsonUpper,
    Style::JsonDelete,
    Style::GoOld,
    Style::GoPlainOld,
    Style::AsciiUpper,
    Style::AsciiSlash,
    Style::JsonSlashUpper,
    Style::JsonSlashDelete,
];
const STYLES_ALL: u64 = (1 << STYLES.len()) - 1;
// The first ones are those of a record that the columns alone give, without a form.
const _: () =
    assert!(matches!((STYLES[0], DECIMALS[0], Zone::ALL[0]), (Style::Go, Decimals::Fixed(6), Zone::Letter)));

/// All numbers of decimals, in order of preference.
const DECIMALS: [Decimals; 13] = [
    Decimals::Fixed(6),
    Decimals::Fixed(3),
    Decimals::Fixed(0),
    Decimals::Fixed(9),
    Decimals::Trimmed,
    Decimals::Threes,
    Decimals::Sixes,
    Decimals::Fixed(1),
    Decimals::Fixed(2),
    Decimals::Fixed(4),
    Decimals::Fixed(5),
    Decimals::Fixed(7),
    Decimals::Fixed(8),
];
/// Position of the first bit of times that are numbers. The bits of all times with a zone come
/// before it.
const NUMBERS: usize = Zone::ALL.len() * DECIMALS.len();
const SECONDS: u64 = 1 << NUMBERS;
const MILLISECONDS: u64 = SECONDS << 1;
/// Position of the first bit of seconds with decimals.
const DECIMAL_SECONDS: usize = NUMBERS + 2;
/// A whole number with at least this many digits is milliseconds since 1970; a shorter one is
/// seconds.
const MILLISECONDS_DIGITS_MIN: usize = 12;

#[derive(Clone, Copy)]
enum Trait {
    Html,
    LineSeparators,
    Slash,
    Delete,
    NonAscii,
    Short,
    Upper,
}

/// Returns the styles that have the trait.
const fn with(wanted: Trait) -> u64 {
    let (mut set, mut at) = (0, 0);
    while at < STYLES.len() {
        let escapes = STYLES[at].escapes();
        let has = match wanted {
            Trait::Html => escapes.html,
            Trait::LineSeparators => escapes.line_separators,
            Trait::Slash => escapes.slash,
            Trait::Delete => escapes.delete,
            Trait::NonAscii => escapes.non_ascii,
            Trait::Short => escapes.short,
            Trait::Upper => escapes.upper,
        };
        if has {
            set |= 1 << at;
        }
        at += 1;
    }
    set
}

/// For each byte outside of escapes in a string, the styles that write the byte as it is.
static BARE: [u16; 256] = bare();

const fn bare() -> [u16; 256] {
    let (mut sets, mut byte) = ([0; 256], 0_usize);
    while byte < sets.len() {
        let styles = match byte as u8 {
            ..b' ' | b'"' | b'\\' => 0,
            b'<' | b'>' | b'&' => !with(Trait::Html),
            b'/' => !with(Trait::Slash),
            0x7f => !with(Trait::Delete),
            0x80.. => !with(Trait::NonAscii),
            _ => STYLES_ALL,
        };
        sets[byte] = (styles & STYLES_ALL) as u16;
        byte += 1;
    }
    sets
}

/// Returns the styles that write `content`, the text between the quotes of a string.
pub(super) fn styles(content: &[u8]) -> u64 {
    let met = Met::of(content);
    if met.escapes_other {
        return styles_of_each(content);
    }
    let mut set = STYLES_ALL;
    for (is_met, styles) in [
        (met.html, !with(Trait::Html)),
        (met.slash, !with(Trait::Slash)),
        (met.delete, !with(Trait::Delete)),
        (met.non_ascii, !with(Trait::NonAscii)),
        (met.unwritable, 0),
    ] {
        if is_met {
            set &= styles;
        }
    }
    if met.non_ascii && LINE_SEPARATORS.iter().any(|text| memmem::find(content, text).is_some()) {
        set &= !with(Trait::LineSeparators);
    }
    if met.escapes_code {
        for at in memmem::find_iter(content, b"\\u") {
            // After an odd number of backslashes, this backslash is itself escaped.
            let before = content[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
            if before % 2 == 0 {
                set &= escape(&content[at..]).0;
            }
        }
    }
    set
}

/// U+2028 and U+2029.
const LINE_SEPARATORS: [&[u8]; 2] = [b"\xe2\x80\xa8", b"\xe2\x80\xa9"];

/// Which kinds of characters there are in a text, bare or in escapes.
struct Met {
    html: bool,
    slash: bool,
    delete: bool,
    non_ascii: bool,
    /// Bare characters that every style escapes.
    unwritable: bool,
    /// A backslash before a `u`.
    escapes_code: bool,
    /// A backslash before a character that only some styles write after a backslash.
    escapes_other: bool,
}

impl Met {
    /// Finds out which kinds there are. The loops have no early exit, so that they are vectorised.
    fn of(content: &[u8]) -> Met {
        let (mut html, mut slash, mut delete, mut non_ascii, mut backslash) = (0, 0, 0, 0, 0);
        let (mut control, mut quote) = (0, 0);
        for byte in content {
            html |= u8::from(*byte == b'<') | u8::from(*byte == b'>') | u8::from(*byte == b'&');
            slash |= u8::from(*byte == b'/');
            delete |= u8::from(*byte == 0x7f);
            non_ascii |= *byte & 0x80;
            backslash |= u8::from(*byte == b'\\');
            control |= u8::from(*byte < b' ');
            quote |= u8::from(*byte == b'"');
        }
        let (mut code, mut other, mut bare_quote) = (0, 0, quote);
        if backslash != 0 {
            bare_quote = u8::from(content.first() == Some(&b'"'));
            other = u8::from(content.last() == Some(&b'\\') && !content.ends_with(b"\\\\"));
            for (first, second) in content.iter().zip(&content[1..]) {
                let is_escape = u8::from(*first == b'\\');
                let is_simple = u8::from(*second == b'"')
                    | u8::from(*second == b'\\')
                    | u8::from(*second == b'n')
                    | u8::from(*second == b'r')
                    | u8::from(*second == b't');
                let is_code = u8::from(*second == b'u');
                code |= is_escape & is_code;
                other |= is_escape & !(is_simple | is_code);
                bare_quote |= (1 - is_escape) & u8::from(*second == b'"');
            }
        }
        Met {
            html: html != 0,
            slash: slash != 0,
            delete: delete != 0,
            non_ascii: non_ascii != 0,
            unwritable: control | bare_quote != 0,
            escapes_code: code != 0,
            escapes_other: other & 1 != 0,
        }
    }
}

/// Like [`styles`], byte by byte.
fn styles_of_each(content: &[u8]) -> u64 {
    let (mut set, mut at) = (STYLES_ALL, 0);
    while let Some(byte) = content.get(at) {
        if *byte == b'\\' {
            let (styles, length) = escape(&content[at..]);
            set &= styles;
            at += length;
            continue;
        }
        set &= u64::from(BARE[usize::from(*byte)]);
        if *byte == 0xe2 && matches!(content.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) {
            set &= !with(Trait::LineSeparators);
        }
        at += 1;
    }
    set
}

/// Returns the styles that write the escape at the start of `text`, and its length.
fn escape(text: &[u8]) -> (u64, usize) {
    match text.get(1) {
        Some(b'"' | b'\\' | b'n' | b'r' | b't') => (STYLES_ALL, 2),
        Some(b'b' | b'f') => (with(Trait::Short), 2),
        Some(b'/') => (with(Trait::Slash), 2),
        Some(b'u') => {
            let Some(digits) = text.get(2..6) else { return (0, text.len()) };
            let code = digits
                .iter()
                .try_fold(0, |code, digit| char::from(*digit).to_digit(16).map(|digit| code << 4 | digit));
            let mut set = match code {
                None | Some(0x09 | 0x0a | 0x0d | 0x22 | 0x2f | 0x5c) => 0,
                Some(0x08 | 0x0c) => !with(Trait::Short),
                Some(..0x20) => STYLES_ALL,
                Some(0x3c | 0x3e | 0x26) => with(Trait::Html),
                Some(0x7f) => with(Trait::Delete),
                Some(0x2028 | 0x2029) => with(Trait::LineSeparators) | with(Trait::NonAscii),
                Some(0x80..) => with(Trait::NonAscii),
                Some(_) => 0,
            };
            if digits.iter().any(u8::is_ascii_lowercase) {
                set &= !with(Trait::Upper);
            }
            if digits.iter().any(u8::is_ascii_uppercase) {
                set &= with(Trait::Upper);
            }
            (set & STYLES_ALL, 6)
        }
        _ => (0, 2),
    }
}

/// Returns the codecs that write a time: a string with its quotes, or a number.
pub(super) fn times(value: &[u8]) -> u64 {
    let Some((text, digits, zone)) = parts_of_time(value) else {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        return match (is_number, value.len() >= MILLISECONDS_DIGITS_MIN) {
            (false, _) => 0,
            (true, false) => SECONDS,
            (true, true) => MILLISECONDS,
        };
    };
    let needed = needed(digits);
    if text.get(10) != Some(&b'T') || needed > DIGITS_MAX {
        return 0;
    }
    widths(digits.len(), needed) << (zone * DECIMALS.len())
}

/// Maximum number of decimals of a time in a column.
const DIGITS_MAX: usize = 6;

/// Returns the formats, as bits, that write `width` decimals of a time that needs `needed` of them.
fn widths(width: usize, needed: usize) -> u64 {
    let writes = |decimals: &Decimals| formats::decimals_written(*decimals, needed) == width;
    DECIMALS.iter().enumerate().fold(0, |set, (at, decimals)| set | u64::from(writes(decimals)) << at)
}

fn needed(digits: &[u8]) -> usize {
    digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1)
}

/// Splits a quoted time into the text up to its seconds, its decimals, and the position of its zone
/// in [`Zone::ALL`].
fn parts_of_time(value: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let text = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let (text, rest) = text.split_at_checked(formats::POINT)?;
    let mut zones = Zone::ALL.iter().enumerate();
    let (zone, decimals) =
        zones.find_map(|(at, zone)| Some((at, rest.strip_suffix(zone.as_str().as_bytes())?)))?;
    match decimals.split_first() {
        None => Some((text, decimals, zone)),
        Some((b'.', digits)) if !digits.is_empty() => Some((text, digits, zone)),
        Some(_) => None,
    }
}

/// Whether `value` may be a time as a codec writes it. It is a quick check.
pub(super) fn is_like_time(value: &[u8]) -> bool {
    match value.first() {
        Some(b'"') => value.get(11) == Some(&b'T') && value.get(14) == Some(&b':'),
        Some(b'1'..=b'9') => value.len() >= 10,
        _ => false,
    }
}

/// Returns the codecs that write a copy of the time `micros` as `value`.
pub(super) fn copies(value: &[u8], micros: i64) -> u64 {
    if !formats::TIMES.contains(&micros) {
        return 0;
    }
    let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let mut canonical = Vec::with_capacity(time::CANONICAL_BYTES);
    time::render(micros, &mut canonical);
    let (until_seconds, decimals) = canonical.split_at(formats::POINT);
    let Some(decimals) = decimals.get(1..=DIGITS_MAX) else { return 0 };
    let begin = |digits: &[u8]| {
        let zeros = std::iter::repeat(&b'0');
        digits.iter().eq(decimals.iter().chain(zeros).take(digits.len()))
    };
    if let Some((text, digits, zone)) = parts_of_time(value) {
        let is_copy = text == until_seconds && begin(digits);
        return if is_copy { widths(digits.len(), needed(decimals)) << (zone * DECIMALS.len()) } else { 0 };
    }
    if seconds < 0 {
        return 0;
    }
    let (mut whole, mut digits) = (itoa::Buffer::new(), itoa::Buffer::new());
    let Some(after) = value.strip_prefix(whole.format(seconds).as_bytes()) else { return 0 };
    match after.split_first() {
        None => SECONDS | widths(0, needed(decimals)) << DECIMAL_SECONDS,
        Some((b'.', digits)) if !digits.is_empty() && begin(digits) => {
            widths(digits.len(), needed(decimals)) << DECIMAL_SECONDS
        }
        Some(_) if value == digits.format(seconds * 1_000 + rest / 1_000).as_bytes() => MILLISECONDS,
        Some(_) => 0,
    }
}

/// Whether `value` is an integer as forms write one.
pub(super) fn is_integer(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    digits.iter().all(u8::is_ascii_digit)
        && match digits.first() {
            None => false,
            Some(b'0') => value == b"0",
            Some(_) => true,
        }
}

const COMPACT: u8 = 1;
const SPACED: u8 = 2;
const PADDED: u8 = 4;
const LINES: u8 = 8;
const LAYOUTS_ALL: u8 = 15;

/// A set of codecs, each of which writes all the values that the set was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Codecs {
    /// A bit for each style, or for each codec of a time.
    formats: u64,
    /// A bit for each layout of a list.
    layouts: u8,
    /// The fill and the widths of [`LINES`], if a value determined them.
    lines: Option<(u8, u8, u8)>,
}

impl Codecs {
    /// All codecs of any column.
    pub(super) const ALL: Codecs = Codecs { formats: u64::MAX, layouts: LAYOUTS_ALL, lines: None };

    /// The codecs of a text that the columns alone render to: the first ones of each list.
    pub(super) const CANONICAL: Codecs = Codecs { formats: 1, layouts: COMPACT, lines: None };

    pub(super) fn of(formats: u64) -> Codecs {
        Codecs { formats, ..Codecs::ALL }
    }

    /// Returns the codecs that write a list of strings, and the length of its text. `text` begins
    /// with the opening bracket. `None` if it is not such a list.
    pub(super) fn of_list(text: &[u8]) -> Option<(Codecs, usize)> {
        let mut codecs = Codecs { formats: STYLES_ALL, ..Codecs::ALL };
        let mut at = skip_white(text, 1);
        let first = text.get(1..at)?;
        if text.get(at) == Some(&b']') {
            codecs.layouts = match first {
                b"" => COMPACT | SPACED | LINES,
                b" " => PADDED,
                _ => 0,
            };
            return Some((codecs, at + 1));
        }
        let mut before = first;
        let mut is_first = true;
        loop {
            let end = string_end(text, at)?;
            codecs.formats &= styles(text.get(at + 1..end - 1)?);
            if !is_first {
                codecs.layouts &= match before {
                    b"" => COMPACT,
                    b" " => SPACED | PADDED,
                    _ => LINES,
                };
                if before != first {
                    codecs.layouts &= !(PADDED | LINES);
                }
            }
            is_first = false;
            at = skip_white(text, end);
            match text.get(at)? {
                b',' if at == end => {}
                b']' => {
                    codecs.end_of_list(first, &text[end..at]);
                    return Some((codecs, at + 1));
                }
                _ => return None,
            }
            let comma = at + 1;
            at = skip_white(text, comma);
            before = &text[comma..at];
        }
    }

    /// Takes into account the white space before the first item of a list and after its last one.
    fn end_of_list(&mut self, first: &[u8], last: &[u8]) {
        self.layouts &= match (first, last) {
            (b"", b"") => COMPACT | SPACED,
            (b" ", b" ") => PADDED,
            _ => LINES,
        };
        if self.layouts == LINES {
            self.lines = lines(first, last);
            self.layouts = if self.lines.is_some() { LINES } else { 0 };
        }
    }

    /// Returns the styles of a list, without its layouts, as codecs of strings.
    pub(super) fn of_strings(&self) -> Codecs {
        Codecs::of(self.formats)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.formats == 0 || self.layouts == 0
    }

    /// Returns the codecs that are in both sets.
    pub(super) fn and(&self, other: &Codecs) -> Codecs {
        let mut layouts = self.layouts & other.layouts;
        if self.lines.zip(other.lines).is_some_and(|(one, other)| one != other) {
            layouts &= !LINES;
        }
        Codecs { formats: self.formats & other.formats, layouts, lines: self.lines.or(other.lines) }
    }

    /// Returns the first style of the set, preferably one that is in `usual`, too.
    pub(super) fn style(&self, usual: &Codecs) -> Style {
        STYLES[Self::first(self.formats, usual.formats).min(STYLES.len() - 1)]
    }

    fn first(set: u64, usual: u64) -> usize {
        let both = if set & usual == 0 { set } else { set & usual };
        both.trailing_zeros() as usize
    }

    /// Returns the codec of a column. `usual` has the codecs of most values of such columns.
    pub(super) fn codec(&self, kind: Kind, usual: &Codecs) -> Codec {
        match kind {
            Kind::Text => Codec::Text(self.style(usual)),
            Kind::Integer => Codec::Integer,
            Kind::Json => Codec::Json,
            Kind::List => {
                let both = self.and(usual);
                let layouts = if both.layouts == 0 { self } else { &both };
                let layout = match (layouts.layouts, layouts.lines) {
                    (set, _) if set & COMPACT != 0 => Layout::Compact,
                    (set, _) if set & SPACED != 0 => Layout::Spaced,
                    (set, _) if set & PADDED != 0 => Layout::Padded,
                    (_, Some((fill, items, close))) => Layout::Lines { fill, items, close },
                    (_, None) => Layout::Compact,
                };
                Codec::List(self.style(usual), layout)
            }
            Kind::Time => {
                let at = Self::first(self.formats, usual.formats);
                match (Zone::ALL.get(at / DECIMALS.len()), 1_u64.checked_shl(at as u32)) {
                    (Some(zone), _) => Codec::Time(DECIMALS[at % DECIMALS.len()], *zone),
                    (None, Some(SECONDS)) => Codec::Seconds,
                    (None, Some(MILLISECONDS)) => Codec::Milliseconds,
                    (None, _) => match DECIMALS.get(at.saturating_sub(DECIMAL_SECONDS)) {
                        Some(decimals) => Codec::DecimalSeconds(*decimals),
                        None => Codec::Seconds,
                    },
                }
            }
        }
    }
}

/// Returns the fill and the widths of a list with each item on its own line.
fn lines(first: &[u8], last: &[u8]) -> Option<(u8, u8, u8)> {
    let (items, close) = (first.strip_prefix(b"\n")?, last.strip_prefix(b"\n")?);
    let fill = items.first().or(close.first()).copied().unwrap_or(b' ');
    let width = |text: &[u8]| u8::try_from(text.len()).ok().filter(|width| *width <= LIST_INDENT_MAX);
    let is_filled = matches!(fill, b' ' | b'\t') && items.iter().chain(close).all(|byte| *byte == fill);
    if is_filled { Some((fill, width(items)?, width(close)?)) } else { None }
}

pub(super) fn skip_white(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strongroom_lines::time;

    use super::*;
    use crate::formats;

    #[test]
    fn every_style_and_number_of_decimals_is_known() {
        assert!(Style::ALL.iter().all(|style| STYLES.contains(style)));
        assert!((0..10).all(|width| DECIMALS.contains(&Decimals::Fixed(width))));
    }

    fn strings() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop_oneof![
                any::<char>(),
                proptest::sample::select(
                    "\"\\/<>&\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}\u{2028}\u{2029}é\u{1f600}{}$ a"
                        .chars()
                        .collect::<Vec<_>>()
                ),
            ],
            0..12,
        )
        .prop_map(|characters| characters.into_iter().collect())
    }

    proptest! {
        /// The set has exactly the styles that write the text.
        #[test]
        fn styles_are_those_that_write_it(value in strings(), by in proptest::sample::select(&STYLES[..])) {
            let mut text = Vec::new();
            formats::escape(by, &value, &mut text);
            let set = styles(&text);
            for (at, style) in STYLES.iter().enumerate() {
                let mut written = Vec::new();
                formats::escape(*style, &value, &mut written);
                prop_assert_eq!(set >> at & 1 == 1, written == text, "{:?}", style);
            }
        }

        #[test]
        fn odd_escapes_have_no_style(value in any::<char>(), upper in any::<bool>()) {
            let mut unit = [0; 2];
            let units = value.encode_utf16(&mut unit);
            let text: String = units.iter().map(|unit| {
                if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") }
            }).collect();
            let set = styles(text.as_bytes());
            for (at, style) in STYLES.iter().enumerate() {
                let mut written = Vec::new();
                formats::escape(*style, &value.to_string(), &mut written);
                prop_assert_eq!(set >> at & 1 == 1, written == text.as_bytes(), "{:?}", style);
            }
        }

        #[test]
        fn times_are_those_that_write_it(
            micros in 0_i64..4_000_000_000_000_000,
            cut in 0_u32..=6,
            by in 0_usize..DECIMALS.len(),
            zone in 0_usize..Zone::ALL.len(),
        ) {
            let unit = 10_i64.pow(cut);
            let micros = micros / unit * unit;
            let mut text = Vec::new();
            prop_assume!(formats::time(Codec::Time(DECIMALS[by], Zone::ALL[zone]), micros, &mut text).is_some());
            let set = times(&text);
            for at in 0..Zone::ALL.len() * DECIMALS.len() {
                let mut written = Vec::new();
                let (decimals, zone) = (DECIMALS[at % DECIMALS.len()], Zone::ALL[at / DECIMALS.len()]);
                let done = formats::time(Codec::Time(decimals, zone), micros, &mut written);
                prop_assert_eq!(set >> at & 1 == 1, done.is_some() && written == text);
            }
        }

        /// The set has exactly the codecs whose copy of the time is the value.
        #[test]
        fn copies_are_those_that_write_it(
            micros in -4_000_000_000_000_000_i64..4_000_000_000_000_000,
            cut in 0_u32..=6,
            by in 0_usize..DECIMAL_SECONDS + DECIMALS.len(),
            later in prop_oneof![Just(0), 0_i64..2_000_000],
        ) {
            let micros = micros.abs() / 10_i64.pow(cut) * 10_i64.pow(cut);
            let codec_at = |at: usize| Codecs::of(1 << at).codec(Kind::Time, &Codecs::ALL);
            let mut value = Vec::new();
            formats::copy(codec_at(by), micros + later, &mut value).expect("a year of four digits");
            let set = copies(&value, micros);
            for at in 0..DECIMAL_SECONDS + DECIMALS.len() {
                let mut written = Vec::new();
                formats::copy(codec_at(at), micros, &mut written).expect("a year of four digits");
                prop_assert_eq!(set >> at & 1 == 1, written == value, "{:?}", codec_at(at));
            }
            prop_assert!(micros < 1_000_000_000_000_000 || is_like_time(&value));
        }

        #[test]
        fn lists_are_read_as_they_were_written(
            items in proptest::collection::vec(strings(), 0..4),
            by in proptest::sample::select(&STYLES[..]),
            layout in proptest::sample::select(vec![
                Layout::Compact,
                Layout::Spaced,
                Layout::Padded,
                Layout::Lines { fill: b' ', items: 4, close: 2 },
                Layout::Lines { fill: b'\t', items: 1, close: 0 },
                Layout::Lines { fill: b' ', items: 0, close: 0 },
            ]),
        ) {
            let write = |style, layout| {
                let mut text = Vec::new();
                formats::list(style, layout, items.iter().map(|item| Some(item.as_str())), &mut text).expect("no null");
                text
            };
            let text = write(by, layout);
            let (codecs, length) = Codecs::of_list(&text).expect("a list");
            prop_assert_eq!(length, text.len());
            prop_assert!(!codecs.is_empty());
            let Codec::List(style, layout) = codecs.codec(Kind::List, &Codecs::ALL) else { panic!("a list") };
            prop_assert_eq!(write(style, layout), text);
        }
    }

    #[test]
    fn lists_that_no_layout_writes() {
        for text in ["[\"a\" ,\"b\"]", "[\"a\",1]", "[\"a\"", "[", "[1]", "[null]"] {
            assert_eq!(Codecs::of_list(text.as_bytes()), None, "{text}");
        }
        for text in ["[\"a\", \"b\",\"c\"]", "[ \"a\"]", "[\t]", "[\n  \"a\",\n\t\"b\"\n]", "[\r\n\"a\"\r\n]"]
        {
            assert!(Codecs::of_list(text.as_bytes()).is_some_and(|(codecs, _)| codecs.is_empty()), "{text}");
        }
    }

    #[test]
    fn numbers() {
        for text in ["0", "7", "-7", "200"] {
            assert!(is_integer(text.as_bytes()), "{text}");
        }
        for text in ["", "-", "-0", "007", "1.0", "1e2", "+1"] {
            assert!(!is_integer(text.as_bytes()), "{text}");
        }
        assert_eq!((times(b"1772445600"), times(b"1772445600123")), (SECONDS, MILLISECONDS));
        for text in [
            "\"2026-03-02 10:00:00Z\"",
            "\"2026-03-02T10:00:00.Z\"",
            "\"2026-03-02T10:00:00\"",
            "1.5",
            "\"\"",
        ] {
            assert_eq!(times(text.as_bytes()), 0, "{text}");
        }
        assert_eq!(times(b"\"2026-03-02T10:00:00.0000001Z\""), 0);
        assert!(time::parse("2026-03-02T10:00:00.1234560Z").is_some());
        assert!(times(b"\"2026-03-02T10:00:00.1234560Z\"") != 0);
    }
}
