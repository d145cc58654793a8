//! Reads TOML as typed values, and reports every mistake with its line.
//!
//! Invariant: every key of the file is either read or reported; nothing is skipped in silence.
//! Reading continues after a mistake with a placeholder that no one will use, so that one pass
//! finds all of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::term;

/// A mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Number of the line, from 1; 0 for a mistake of the file as a whole.
    pub line: usize,
    /// Path of the key, as `kafka[2].topics`.
    pub key: String,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.key.as_str()) {
            (0, "") => write!(f, "{}", self.what),
            (0, key) => write!(f, "{key}: {}", self.what),
            (line, "") => write!(f, "line {line}: {}", self.what),
            (line, key) => write!(f, "line {line}: {key}: {}", self.what),
        }
    }
}

/// All mistakes of a file, collected while it is read.
#[derive(Debug, Default)]
pub struct Mistakes {
    starts: Vec<usize>,
    found: RefCell<Vec<Mistake>>,
}

impl Mistakes {
    pub fn of(text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Mistakes { starts: std::iter::once(0).chain(starts).collect(), found: RefCell::default() }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.starts.partition_point(|start| *start <= span.start)
    }

    fn count(&self) -> usize {
        self.found.borrow().len()
    }

    pub fn add(&self, line: usize, key: impl Into<String>, what: impl Into<String>) {
        self.found.borrow_mut().push(Mistake { line, key: key.into(), what: what.into() });
    }

    pub fn into_sorted(self) -> Vec<Mistake> {
        let mut found = self.found.into_inner();
        found.sort();
        found.dedup();
        found
    }
}

/// Parses `text`. Returns `None` after a syntax mistake, and then no other mistake can be found.
pub fn parse<'t>(text: &'t str, mistakes: &Mistakes) -> Option<DeTable<'t>> {
    match DeTable::parse(text) {
        Ok(table) => Some(table.into_inner()),
        Err(error) => {
            let line = error.span().map_or(0, |span| mistakes.line(&span));
            mistakes.add(line, "", error.message().trim().to_owned());
            None
        }
    }
}

/// A table of the file. An absent table is read like an empty one.
pub struct Section<'s> {
    mistakes: &'s Mistakes,
    path: String,
    line: usize,
    table: Option<&'s DeTable<'s>>,
    known: RefCell<BTreeSet<&'static str>>,
}

/// A value and its position.
pub struct Found<'s> {
    value: &'s DeValue<'s>,
    pub line: usize,
    pub key: String,
}

impl<'s> Section<'s> {
    pub fn root(mistakes: &'s Mistakes, table: &'s DeTable<'s>) -> Self {
        Section { mistakes, path: String::new(), line: 0, table: Some(table), known: RefCell::default() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports a mistake at `key`, or, if `key` is empty, of the section as a whole.
    pub fn mistake(&self, key: &str, what: impl Into<String>) {
        let line = self.find(key).map_or(self.line, |found| found.line);
        let path = if key.is_empty() { self.path.clone() } else { self.path_of(key) };
        self.mistakes.add(line, path, what);
    }

    /// Returns true if no mistake was found in this section so far.
    pub fn is_sound(&self) -> bool {
        !self.mistakes.found.borrow().iter().any(|mistake| mistake.key.starts_with(&self.path))
    }

    fn find(&self, key: &str) -> Option<Found<'s>> {
        let (_, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        let line = self.mistakes.line(&value.span());
        Some(Found { value: value.get_ref(), line, key: self.path_of(key) })
    }

    /// Records that `key` is allowed here, and returns its value if it is set.
    fn take(&self, key: &'static str) -> Option<Found<'s>> {
        self.known.borrow_mut().insert(key);
        self.find(key)
    }

    fn wrong(&self, found: &Found<'_>, what: impl Into<String>) {
        self.mistakes.add(found.line, found.key.clone(), what);
    }

    /// Whether the file has the section.
    pub fn is_there(&self) -> bool {
        self.table.is_some()
    }

    pub fn is_set(&self, key: &'static str) -> bool {
        self.take(key).is_some()
    }

    pub fn string(&self, key: &'static str) -> Option<String> {
        let found = self.take(key)?;
        match found.value {
            DeValue::String(text) if has_credentials(text) => {
                self.wrong(&found, CREDENTIALS_IN_URL);
                None
            }
            DeValue::String(text) => Some(text.to_string()),
            other => {
                self.wrong(&found, format!("must be a string in quotes, found {}", kind(other)));
                None
            }
        }
    }

    /// Returns a string that must be set and must not be empty. `why` says what it is for.
    pub fn required(&self, key: &'static str, why: &str) -> String {
        if !self.is_set(key) {
            self.mistake(key, format!("is missing: {why}"));
            return String::new();
        }
        let before = self.mistakes.count();
        let text = self.string(key).unwrap_or_default();
        if text.is_empty() && self.mistakes.count() == before {
            self.mistake(key, "is empty");
        }
        text
    }

    pub fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.string(key).map(PathBuf::from)
    }

    pub fn bool(&self, key: &'static str, default: bool) -> bool {
        let Some(found) = self.take(key) else { return default };
        match found.value {
            DeValue::Boolean(value) => *value,
            other => {
                self.wrong(&found, format!("must be true or false, found {}", kind(other)));
                default
            }
        }
    }

    pub fn integer(&self, key: &'static str, default: u64, range: std::ops::RangeInclusive<u64>) -> u64 {
        let Some(found) = self.take(key) else { return default };
        let DeValue::Integer(integer) = found.value else {
            self.wrong(&found, format!("must be a number, found {}", kind(found.value)));
            return default;
        };
        match u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()) {
            Ok(number) if range.contains(&number) => number,
            _ => {
                self.wrong(&found, format!("must be a number from {} to {}", range.start(), range.end()));
                default
            }
        }
    }

    /// Returns a size in bytes: `"128MiB"`.
    pub fn bytes(&self, key: &'static str, default: u64, range: std::ops::RangeInclusive<u64>) -> u64 {
        let Some(text) = self.string(key) else { return default };
        match term::byte_size(&text) {
            Ok(bytes) if range.contains(&bytes) => bytes,
            Ok(_) => {
                let (least, most) = (term::bytes(*range.start()), term::bytes(*range.end()));
                self.mistake(key, format!("must be a size from {least} to {most}"));
                default
            }
            Err(error) => {
                self.mistake(key, error);
                default
            }
        }
    }

    /// Returns a length of time: `"200ms"`, `"30s"`, `"5m"`, `"1h"`.
    pub fn duration(
        &self,
        key: &'static str,
        default: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        let Some(text) = self.string(key) else { return default };
        match duration(&text) {
            Some(found) if range.contains(&found) => found,
            Some(_) => {
                let (least, most) = (duration_text(*range.start()), duration_text(*range.end()));
                self.mistake(key, format!("must be a duration from {least} to {most}"));
                default
            }
            None => {
                self.mistake(key, "must be a duration such as \"200ms\", \"30s\", \"5m\" or \"1h\"");
                default
            }
        }
    }

    pub fn strings(&self, key: &'static str) -> Vec<String> {
        let Some(found) = self.take(key) else { return Vec::new() };
        let texts = match found.value {
            DeValue::Array(items) => items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            }),
            other => {
                self.wrong(&found, format!("must be a list of strings, found {}", kind(other)));
                return Vec::new();
            }
        };
        match texts.collect::<Option<Vec<_>>>() {
            Some(texts) if texts.iter().any(|text| has_credentials(text)) => {
                self.wrong(&found, CREDENTIALS_IN_URL);
                Vec::new()
            }
            Some(texts) => texts,
            None => {
                self.wrong(&found, "must be a list of strings and nothing else");
                Vec::new()
            }
        }
    }

    /// Returns the value that `values` has for the name given in the file.
    pub fn one_of<T: Copy>(&self, key: &'static str, default: T, values: &[(&str, T)]) -> T {
        let Some(text) = self.string(key) else { return default };
        match values.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => *value,
            None => {
                let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
                self.mistake(key, format!("must be one of {}", names.join(", ")));
                default
            }
        }
    }

    /// Returns a string that a function parses; its error becomes the mistake.
    pub fn parsed<T, E: fmt::Display>(
        &self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.string(key)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(key, error.to_string());
                None
            }
        }
    }

    /// Returns a table below this one; an empty one if it is absent.
    pub fn section(&self, key: &'static str) -> Section<'s> {
        let none = |line| Section {
            mistakes: self.mistakes,
            path: self.path_of(key),
            line,
            table: None,
            known: RefCell::default(),
        };
        let Some(found) = self.take(key) else { return none(self.line) };
        match found.value {
            DeValue::Table(table) => Section { table: Some(table), ..none(found.line) },
            other => {
                self.wrong(&found, format!("must be a section, found {}", kind(other)));
                none(found.line)
            }
        }
    }

    /// Tables that may occur several times: `[[key]]`.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'s>> {
        let Some(found) = self.take(key) else { return Vec::new() };
        let DeValue::Array(items) = found.value else {
            self.wrong(&found, format!("may occur several times; write [[{}]]", found.key));
            return Vec::new();
        };
        let section = |(number, item): (usize, &'s Spanned<DeValue<'s>>)| {
            let line = self.mistakes.line(&item.span());
            match item.get_ref() {
                DeValue::Table(table) => Some(Section {
                    mistakes: self.mistakes,
                    path: format!("{}[{}]", self.path_of(key), number + 1),
                    line,
                    table: Some(table),
                    known: RefCell::default(),
                }),
                other => {
                    self.mistakes.add(
                        line,
                        found.key.clone(),
                        format!("must be sections, found {}", kind(other)),
                    );
                    None
                }
            }
        };
        items.iter().enumerate().filter_map(section).collect()
    }

    /// Returns a secret, read from the file that the key `file` names, or from the environment
    /// variable that the key `env` names. `None` when neither key is set.
    pub fn secret(&self, file: &'static str, env: &'static str) -> Option<String> {
        let text = match (self.path(file), self.string(env)) {
            (Some(_), Some(_)) => {
                self.mistake(env, format!("and {file} are both set; set one"));
                return Some(String::new());
            }
            (Some(path), None) if is_open_to_others(&path) => {
                let path = path.display();
                self.mistake(file, format!("{path} can be read by every user; chmod o-rwx it"));
                return Some(String::new());
            }
            (Some(path), None) => match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) => {
                    self.mistake(file, format!("cannot read {}: {error}", path.display()));
                    return Some(String::new());
                }
            },
            (None, Some(name)) => match std::env::var(&name) {
                Ok(text) => text,
                Err(_) => {
                    self.mistake(env, format!("the environment has no variable {name}"));
                    return Some(String::new());
                }
            },
            (None, None) => return None,
        };
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        if text.is_empty() {
            self.mistake(if self.is_set(file) { file } else { env }, "the secret is empty");
        }
        Some(text)
    }

    /// Like [`Section::secret`], for a token that clients of this program must show. The token must
    /// be as hard to guess as [`TOKEN_BITS_MIN`] random bits.
    pub fn token(&self, file: &'static str, env: &'static str) -> Option<String> {
        let before = self.mistakes.count();
        let token = self.secret(file, env)?;
        if self.mistakes.count() == before && !is_hard_to_guess(&token) {
            self.mistake(
                if self.is_set(file) { file } else { env },
                "is easy to guess: use at least 16 random bytes, such as the 32 digits of openssl rand -hex 16",
            );
        }
        Some(token)
    }

    /// Reports the keys that were not read. Called last.
    pub fn finish(&self) {
        let known = self.known.borrow();
        for (name, _) in self.table.into_iter().flat_map(DeTable::iter) {
            let text: &str = name.get_ref();
            if !known.contains(text) {
                let line = self.mistakes.line(&name.span());
                let keys: Vec<&str> = known.iter().copied().collect();
                self.mistakes.add(
                    line,
                    self.path_of(&term::printable(text)),
                    format!("is not a key here; the keys are {}", keys.join(", ")),
                );
            }
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// Minimum strength of a token, in bits: that of 16 random bytes.
const TOKEN_BITS_MIN: f64 = 128.0;
/// Minimum number of different characters in a token. Sixteen random bytes have more, in hex and in
/// base64, except in one case in millions.
const TOKEN_CHARS_MIN: usize = 8;

const CREDENTIALS_IN_URL: &str =
    "has a user, a key or a password in its URL, which is shown in logs and lists of processes; leave it out";

/// Returns true if a token is long enough for [`TOKEN_BITS_MIN`] random bits. How many bits a
/// character counts for depends on the alphabet that the token uses: 4 for hex digits, for example.
fn is_hard_to_guess(token: &str) -> bool {
    let has = |is: fn(&char) -> bool| token.chars().any(|c| is(&c));
    let alphabet = if token.chars().all(|c| c.is_ascii_digit()) {
        10
    } else if token.chars().all(|c| c.is_ascii_hexdigit()) {
        16
    } else {
        let sizes = [
            (26, has(char::is_ascii_lowercase)),
            (26, has(char::is_ascii_uppercase)),
            (10, has(char::is_ascii_digit)),
            (33, has(|c| !c.is_ascii_alphanumeric())),
        ];
        sizes.into_iter().filter(|(_, is_used)| *is_used).map(|(size, _)| size).sum()
    };
    let different: BTreeSet<char> = token.chars().collect();
    let bits = f64::from(alphabet).log2() * token.chars().count() as f64;
    different.len() >= TOKEN_CHARS_MIN && bits >= TOKEN_BITS_MIN
}

/// Returns true if users other than the owner and the group of a file have any permission for it.
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o007 != 0)
}

/// Whether a text is a URL with a user, a password or a key in it.
pub fn has_credentials(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let is_scheme =
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    // A secret key may contain slashes, so the `@` after it is searched for up to the query, and
    // not only up to the first slash.
    let before_query = rest.split(['?', '#']).next().unwrap_or(rest);
    is_scheme && !rest.starts_with('/') && before_query.contains('@')
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let seconds = |unit: u64| number.checked_mul(unit).map(Duration::from_secs);
    match text[digits..].trim_start() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => None,
    }
}

fn duration_text(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_as_hard_to_guess_as_sixteen_random_bytes() {
        for good in [
            "0123456789abcdef0123456789abcdee",
            "bWFrZSBpdCBsb25nIGVub3",
            "correct-horse-battery-staple-and-more",
            "271828182845904523536028747135266249775",
        ] {
            assert!(is_hard_to_guess(good), "{good}");
        }
        let long = "ab".repeat(100);
        for weak in ["", "x", "hunter2", "0123456789abcdef", "0123456789abcdef0123456789abcde", &long] {
            assert!(!is_hard_to_guess(weak), "{weak}");
        }
    }

    #[test]
    fn credentials_in_urls_are_seen_wherever_they_are() {
        for url in [
            "s3://AKIA:SECRET@bucket/prefix",
            "s3://AKIA:SEC/RET@bucket",
            "https://user@store.example",
            "https://user:password@store.example:8333/x?y",
            "S3://KEY:SECRET@b",
        ] {
            assert!(has_credentials(url), "{url}");
        }
        for plain in
            ["s3://bucket/prefix", "https://x.example/?mail=a@b", "a@b", "/var/log/a@b", "file:///a@b"]
        {
            assert!(!has_credentials(plain), "{plain}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("200ms"), Some(Duration::from_millis(200)));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("1h").map(duration_text).as_deref(), Some("1h"));
        for text in ["5", "m", "", "-5s", "5 parsecs", "99999999999999999999s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_with_their_lines() {
        let text = "a = 1\nb = \"x\"\n\n[s]\nc = true\nd = 3\n[[t]]\ne = 5\n";
        let mistakes = Mistakes::of(text);
        let table = parse(text, &mistakes).expect("TOML");
        let root = Section::root(&mistakes, &table);
        assert_eq!(root.string("a"), None);
        let section = root.section("s");
        assert!(section.bool("c", false));
        section.finish();
        for section in root.sections("t") {
            section.finish();
        }
        root.finish();
        let reported: Vec<String> = mistakes.into_sorted().iter().map(ToString::to_string).collect();
        assert_eq!(
            reported,
            [
                "line 1: a: must be a string in quotes, found a number",
                "line 2: b: is not a key here; the keys are a, s, t",
                "line 6: s.d: is not a key here; the keys are c",
                "line 8: t[1].e: is not a key here; the keys are ",
            ]
        );
    }
}
