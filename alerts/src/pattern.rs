//! Tests one value: the comparison of a Sigma field line, after its modifiers.
//!
//! Invariant: a [`Test`] is a pure function of one value, so its result may be remembered for each
//! distinct value of a column. Text is compared without regard to case unless the rule has `cased`:
//! both sides are mapped to lower case, each character by its own Unicode mapping. Regular
//! expressions and base64 text are case-sensitive, as in Sigma. Every value is compared as text (a
//! JSON `true` is `true`, 403 is `403`). A number in a rule equals every way of writing that number
//! (`1`, `1.0`). No state.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::net::IpAddr;

use aho_corasick::AhoCorasick;
use ipnet::IpNet;
use memchr::memmem;
use regex::Regex;
use serde_json::Value;

/// Minimum number of `contains` strings in one test for which an automaton is built.
const AUTOMATON_FROM: usize = 4;

/// One element of a string with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(String),
    /// `*`: any number of characters.
    Many,
    /// `?`: one character.
    One,
}

/// Splits a Sigma string at its wildcards. A backslash before `*`, `?` or a backslash makes that
/// character literal. Before any other character, the backslash is literal itself.
pub(crate) fn parts_of(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next_if(|next| matches!(next, '*' | '?' | '\\')) {
                Some(escaped) => literal.push(escaped),
                None => literal.push('\\'),
            },
            '*' | '?' => {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                let part = if c == '*' { Part::Many } else { Part::One };
                if part == Part::One || parts.last() != Some(&Part::Many) {
                    parts.push(part);
                }
            }
            _ => literal.push(c),
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    parts
}

/// A comparison of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ordering {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Ordering {
    pub(crate) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Ordering::Equal => left == right,
            Ordering::Greater => left > right,
            Ordering::GreaterOrEqual => left >= right,
            Ordering::Less => left < right,
            Ordering::LessOrEqual => left <= right,
        }
    }
}

/// One comparison of a value, as the parser of rules makes it.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    /// Text with wildcards.
    Text {
        parts: Vec<Part>,
        cased: bool,
    },
    /// The expression's text includes its flags, so expressions with equal texts are equal.
    Regex(Regex),
    Network(IpNet),
    Number(Ordering, f64),
    Null,
    Exists(bool),
}

/// A test that passes if any of several checks of one value passes.
#[derive(Clone)]
pub(crate) struct Test {
    /// Identifies the test: tests with equal keys have equal results.
    key: String,
    /// Texts that are compared without regard to case.
    folded: Texts,
    cased: Texts,
    regexes: Vec<Regex>,
    networks: Vec<IpNet>,
    numbers: Vec<(Ordering, f64)>,
    null: bool,
    present: bool,
}

/// Writes only the key, so that equal tests have equal texts.
impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

impl Test {
    /// Returns the texts without wildcards.
    pub(crate) fn exact(&self) -> impl Iterator<Item = &str> {
        self.folded.exact.iter().chain(&self.cased.exact).map(String::as_str)
    }

    pub(crate) fn any_of(checks: Vec<Check>) -> Test {
        let mut test = Test {
            key: String::new(),
            folded: Texts::default(),
            cased: Texts::default(),
            regexes: Vec::new(),
            networks: Vec::new(),
            numbers: Vec::new(),
            null: false,
            present: false,
        };
        let mut keys: Vec<String> = checks.iter().map(|check| format!("{check:?}")).collect();
        keys.sort_unstable();
        keys.dedup();
        test.key = keys.join("\u{1}");
        for check in checks {
            match check {
                Check::Text { parts, cased: true } => test.cased.add(parts),
                Check::Text { parts, cased: false } => test.folded.add(
                    parts
                        .into_iter()
                        .map(|part| match part {
                            Part::Literal(text) => Part::Literal(fold(&text)),
                            other => other,
                        })
                        .collect(),
                ),
                Check::Regex(regex) => test.regexes.push(regex),
                Check::Network(network) => test.networks.push(network),
                Check::Number(ordering, number) => test.numbers.push((ordering, number)),
                Check::Null | Check::Exists(false) => test.null = true,
                Check::Exists(true) => test.present = true,
            }
        }
        test.folded.finish();
        test.cased.finish();
        test
    }

    /// Returns true if a value passes; `None` is null or absent.
    pub(crate) fn matches(&self, value: Option<&str>) -> bool {
        let Some(value) = value else { return self.null };
        self.present
            || self.cased.matches(value)
            || (!self.folded.is_empty() && self.folded.matches_folded(value))
            || self.regexes.iter().any(|regex| regex.is_match(value))
            || self.matches_network(value)
            || (!self.numbers.is_empty()
                && value.parse::<f64>().is_ok_and(|number| self.matches_number(number)))
    }

    /// Returns true if a JSON value passes. An object or an array passes only `exists: true`,
    /// because its content is tested with a longer path.
    pub(crate) fn matches_json(&self, value: Option<&Value>) -> bool {
        match value {
            None | Some(Value::Null) => self.null,
            Some(Value::String(text)) => self.matches(Some(text)),
            Some(Value::Bool(true)) => self.matches(Some("true")),
            Some(Value::Bool(false)) => self.matches(Some("false")),
            Some(Value::Number(number)) => self.matches(Some(&number.to_string())),
            Some(Value::Object(_) | Value::Array(_)) => self.present,
        }
    }

    fn matches_number(&self, value: f64) -> bool {
        self.numbers.iter().any(|(ordering, number)| ordering.holds(value, *number))
    }

    fn matches_network(&self, value: &str) -> bool {
        if self.networks.is_empty() {
            return false;
        }
        let Ok(address) = value.trim().parse::<IpAddr>() else { return false };
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// Returns a text with each character in lower case, so that texts that differ only in case become
/// equal.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    fold_into(text, &mut folded);
    folded
}

fn fold_into(text: &str, folded: &mut String) {
    if text.is_ascii() {
        folded.push_str(text);
        folded.make_ascii_lowercase();
    } else {
        folded.extend(text.chars().flat_map(char::to_lowercase));
    }
}

/// Texts to find, sorted by the kind of search.
#[derive(Clone, Debug, Default)]
struct Texts {
    /// True if one of the texts is `*` alone.
    anything: bool,
    exact: HashSet<String>,
    prefixes: Vec<String>,
    suffixes: Vec<String>,
    contained: Vec<String>,
    automaton: Option<AhoCorasick>,
    globs: Vec<Vec<Part>>,
}

impl Texts {
    fn add(&mut self, mut parts: Vec<Part>) {
        use Part::{Literal, Many};
        match parts.as_mut_slice() {
            [] => drop(self.exact.insert(String::new())),
            [Many] => self.anything = true,
            [Literal(text)] => drop(self.exact.insert(std::mem::take(text))),
            [Literal(text), Many] => self.prefixes.push(std::mem::take(text)),
            [Many, Literal(text)] => self.suffixes.push(std::mem::take(text)),
            [Many, Literal(text), Many] => self.contained.push(std::mem::take(text)),
            _ => self.globs.push(parts),
        }
    }

    fn finish(&mut self) {
        if self.contained.len() >= AUTOMATON_FROM {
            // If the automaton cannot be built (too many states), the plain search is used.
            self.automaton = AhoCorasick::new(&self.contained).ok();
        }
    }

    fn is_empty(&self) -> bool {
        !self.anything
            && self.exact.is_empty()
            && self.prefixes.is_empty()
            && self.suffixes.is_empty()
            && self.contained.is_empty()
            && self.globs.is_empty()
    }

    fn matches_folded(&self, value: &str) -> bool {
        if self.anything {
            return true;
        }
        // Most values are lower case already, so they need not be copied.
        if value.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
            self.matches(value)
        } else {
            self.matches(&fold(value))
        }
    }

    fn matches(&self, value: &str) -> bool {
        self.anything
            || (!self.exact.is_empty() && self.exact.contains(value))
            || self.prefixes.iter().any(|prefix| value.starts_with(prefix.as_str()))
            || self.suffixes.iter().any(|suffix| value.ends_with(suffix.as_str()))
            || self.contains(value)
            || self.globs.iter().any(|glob| glob_matches(glob, value))
    }

    fn contains(&self, value: &str) -> bool {
        match &self.automaton {
            Some(automaton) => automaton.is_match(value),
            None => {
                self.contained.iter().any(|text| memmem::find(value.as_bytes(), text.as_bytes()).is_some())
            }
        }
    }
}

/// Returns true if the whole text matches the parts. The time is at most proportional to the length
/// of the text multiplied by the length of the parts.
fn glob_matches(parts: &[Part], text: &str) -> bool {
    let (mut at, mut rest) = (0, text);
    // The part after the last `*`, and the text where it was tried last. If it fails there, it is
    // tried again one character later.
    let mut retry: Option<(usize, &str)> = None;
    loop {
        let step = match parts.get(at) {
            None if rest.is_empty() => return true,
            None => None,
            Some(Part::Many) => {
                if at + 1 == parts.len() {
                    return true;
                }
                retry = Some((at + 1, rest));
                Some(rest)
            }
            Some(Part::One) => {
                let mut chars = rest.chars();
                chars.next().map(|_| chars.as_str())
            }
            Some(Part::Literal(literal)) => rest.strip_prefix(literal.as_str()),
        };
        match step {
            Some(next) => (at, rest) = (at + 1, next),
            None => {
                let Some((part, from)) = retry else { return false };
                let mut chars = from.chars();
                if chars.next().is_none() {
                    return false;
                }
                retry = Some((part, chars.as_str()));
                (at, rest) = (part, chars.as_str());
            }
        }
    }
}

/// Returns the text, and variants of it: at the start of each word, `-` or `/` is replaced by each
/// character that Windows tools accept as a dash.
pub(crate) fn windash(text: &str) -> Vec<String> {
    const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];
    let mut variants = vec![text.to_owned()];
    for dash in DASHES {
        let mut word_starts = true;
        let variant: String = text
            .chars()
            .map(|c| {
                let replaced = if word_starts && matches!(c, '-' | '/') { dash } else { c };
                word_starts = c.is_whitespace();
                replaced
            })
            .collect();
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    variants
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes bytes as standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) & 63;
            text.push(if at <= chunk.len() { char::from(BASE64[sextet as usize]) } else { '=' });
        }
    }
    text
}

/// Returns the three forms that `bytes` can have inside the base64 text of longer bytes, one for
/// each start offset modulo 3. Characters that depend on the neighbouring bytes are left out.
pub(crate) fn base64_offsets(bytes: &[u8]) -> Vec<String> {
    const DROP_START: [usize; 3] = [0, 2, 3];
    const DROP_END: [usize; 3] = [0, 3, 2];
    (0..3)
        .map(|offset| {
            let mut padded = vec![b' '; offset];
            padded.extend_from_slice(bytes);
            let text = base64(&padded);
            let end = text.len() - DROP_END[padded.len() % 3];
            text.get(DROP_START[offset]..end).unwrap_or_default().to_owned()
        })
        .collect()
}

/// Byte order of the UTF-16 modifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Utf16 {
    LittleEndian,
    BigEndian,
    /// Little endian after a byte order mark.
    Marked,
}

pub(crate) fn utf16(text: &str, order: Utf16) -> Vec<u8> {
    let mark = (order == Utf16::Marked).then_some(0xFEFF);
    mark.into_iter()
        .chain(text.encode_utf16())
        .flat_map(|unit| match order {
            Utf16::BigEndian => unit.to_be_bytes(),
            Utf16::LittleEndian | Utf16::Marked => unit.to_le_bytes(),
        })
        .collect()
}

/// Adds the text of a JSON scalar to `out`, as [`Test`] compares it. Returns false for null,
/// objects and arrays, which have no such text.
pub(crate) fn scalar_text(value: &Value, out: &mut String) -> bool {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => write!(out, "{number}").expect("writing to a String"),
        Value::Null | Value::Object(_) | Value::Array(_) => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(pattern: &str) -> Test {
        Test::any_of(vec![Check::Text { parts: parts_of(pattern), cased: false }])
    }

    #[test]
    fn wildcards_and_their_escapes() {
        let hits = [
            ("*", ""),
            ("a*", "A"),
            ("*b", "AB"),
            ("a?c", "abc"),
            ("a?c", "aßC"),
            ("*b*c", "abxbc"),
            (r"\*", "*"),
            (r"a\?", "a?"),
            (r"\\*", r"\x"),
            (r"C:\dir", r"c:\dir"),
            ("", ""),
            ("/API/*/Secrets", "/api/v1/namespaces/secrets"),
            ("ÄB*", "äbc"),
            ("**a", "a"),
        ];
        for (pattern, value) in hits {
            assert!(text(pattern).matches(Some(value)), "{pattern} {value}");
        }
        let misses = [
            ("a?c", "ac"),
            ("*b", "bc"),
            (r"\*", "x"),
            (r"\\*", "x"),
            ("", "a"),
            ("a*c", "acd"),
            ("a?", "a"),
            ("??", "ä"),
        ];
        for (pattern, value) in misses {
            assert!(!text(pattern).matches(Some(value)), "{pattern} {value}");
        }
        assert!(!text("*").matches(None));
    }

    #[test]
    fn cased_text_keeps_its_case() {
        let test = Test::any_of(vec![Check::Text { parts: parts_of("Get*"), cased: true }]);
        assert!(test.matches(Some("Gets")));
        assert!(!test.matches(Some("gets")));
    }

    #[test]
    fn many_contained_strings_use_the_automaton() {
        let words = ["nc -e", "/etc/shadow", "curl", "Wget"];
        let checks = words.iter().map(|word| Check::Text {
            parts: vec![Part::Many, Part::Literal((*word).into()), Part::Many],
            cased: false,
        });
        let test = Test::any_of(checks.collect());
        assert!(test.folded.automaton.is_some());
        assert!(test.matches(Some("x WGET y")));
        assert!(!test.matches(Some("shadow")));
    }

    #[test]
    fn json_scalars_are_compared_as_text_and_numbers() {
        assert!(text("true").matches_json(Some(&json!(true))));
        let one = Test::any_of(vec![Check::Number(Ordering::Equal, 1.0)]);
        assert!(one.matches_json(Some(&json!(1))));
        assert!(one.matches_json(Some(&json!(1.0))));
        assert!(one.matches_json(Some(&json!("1"))));
        assert!(!one.matches_json(Some(&json!([1]))));
        assert!(!one.matches_json(None));
        let exists = Test::any_of(vec![Check::Exists(true)]);
        assert!(exists.matches_json(Some(&json!({}))));
        assert!(!exists.matches_json(Some(&Value::Null)));
    }

    #[test]
    fn networks_match_both_address_families() {
        let test = Test::any_of(vec![
            Check::Network("10.0.0.0/8".parse().unwrap()),
            Check::Network("fd00::/8".parse().unwrap()),
        ]);
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1"] {
            assert!(test.matches(Some(inside)), "{inside}");
        }
        for outside in ["11.0.0.1", "fe80::1", "10.0.0", ""] {
            assert!(!test.matches(Some(outside)), "{outside}");
        }
    }

    #[test]
    fn base64_as_the_standard_says() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn windash_leaves_dashes_inside_words() {
        let variants = windash("x -a /b c-d");
        assert_eq!(variants.len(), 6);
        assert!(variants.contains(&"x /a /b c-d".to_owned()));
        assert!(variants.contains(&"x -a -b c-d".to_owned()));
    }

    proptest! {
        /// If a text is inside a longer text, one of the text's three forms is in the base64 of the
        /// longer text.
        #[test]
        fn base64_offsets_find_the_text(before in proptest::collection::vec(any::<u8>(), 0..7),
                                        text in proptest::collection::vec(any::<u8>(), 1..12),
                                        after in proptest::collection::vec(any::<u8>(), 0..7)) {
            let whole: Vec<u8> = [before.as_slice(), &text, &after].concat();
            let coded = base64(&whole);
            let offsets = base64_offsets(&text);
            prop_assert!(coded.contains(&offsets[before.len() % 3]), "{coded} {offsets:?}");
        }

        /// The glob agrees with a regular expression made from the same parts.
        #[test]
        fn globs_agree_with_regexes(pattern in r"[ab*?\\é]{0,8}", value in r"[abé*\\]{0,8}") {
            let parts = parts_of(&pattern);
            let mut expression = String::from(r"(?s)\A");
            for part in &parts {
                match part {
                    Part::Literal(text) => expression.push_str(&regex::escape(text)),
                    Part::Many => expression.push_str(".*"),
                    Part::One => expression.push('.'),
                }
            }
            expression.push_str(r"\z");
            let expected = Regex::new(&expression).unwrap().is_match(&value);
            prop_assert_eq!(glob_matches(&parts, &value), expected);
            let test = Test::any_of(vec![Check::Text { parts, cased: true }]);
            prop_assert_eq!(test.matches(Some(&value)), expected);
        }
    }
}
