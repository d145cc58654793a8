//! Finds copies of replaced values in the rest of an event: in messages, in annotations, and in
//! members that a collector added beside the event's own.
//!
//! An API server's message may quote what a client sent (`Invalid value: "…"`), and so may a
//! message of a webhook. So a message is kept only if it has one of the few known forms that name
//! only objects and users. An annotation is dropped if it is JSON that the policy applies to, if it
//! is of a kind that quotes the body, or if it contains a value that was replaced. All other
//! annotations are kept.
//!
//! Invariant: a text is kept only if it was understood or searched. No state.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use memchr::memmem;
use regex::bytes::{Regex, RegexSet};

use crate::detect::from_base64;
use crate::json;

/// A value with fewer bytes than this is not searched for, because almost every text would contain
/// it.
pub(crate) const ECHO_BYTES_MIN: usize = 6;
/// A value may be quoted in many ways. If a value contains bytes that quoting may change, its
/// longest part of letters, digits, dashes, underscores and dots is also searched for, provided
/// that the part has at least this many bytes.
const PART_BYTES_MIN: usize = 16;
/// Maximum number of replaced texts that are searched for in one event. If there are more, every
/// text that might repeat one of them is dropped without a search.
pub(crate) const ECHOES_MAX: usize = 1024;

/// Maximum amount of search in one event: the number of replaced texts, multiplied by the number of
/// bytes in which they are searched for. A client chooses both.
const SEARCH_BYTES_MAX: usize = 4 << 20;

/// Forms of the API server's messages that name objects and users, and quote nothing else.
static PLAIN_MESSAGES: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new([
        r#"(?-u)^[a-z0-9./-]+ "[A-Za-z0-9:._-]+" (?:not found|already exists)$"#,
        r#"(?-u)^[a-z0-9./-]+(?: "[A-Za-z0-9:._-]+")? is forbidden: User "[^"]*" cannot [a-z]+ resource "[a-z0-9./-]+" in API group "[a-z0-9.-]*"(?: in the namespace "[a-z0-9-]+"| at the cluster scope)$"#,
        r#"(?-u)^Operation cannot be fulfilled on [a-z0-9.-]+ "[A-Za-z0-9:._-]+": the object has been modified; please apply your changes to the latest version and try again$"#,
        r"(?-u)^(?:the server could not find the requested resource|Unauthorized|context canceled|context deadline exceeded)$",
        r"(?-u)^Timeout: request did not complete within requested timeout - context deadline exceeded$",
    ])
    .expect("a test compiles the patterns")
});

/// Returns true if a message has a form that quotes no value.
pub(crate) fn is_plain_message(text: &[u8]) -> bool {
    text.is_empty() || PLAIN_MESSAGES.is_match(text)
}

/// The reasons and states of a `Status` that the API server itself uses. An admission webhook may
/// put any text in their place.
const PLAIN_REASONS: [&str; 23] = [
    "",
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Failure",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "StorageReadError",
    "Success",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "Unknown",
    "UnsupportedMediaType",
];

/// Returns true if a reason is one of the API server's own, so it quotes no value.
pub(crate) fn is_plain_reason(text: &[u8]) -> bool {
    PLAIN_REASONS.iter().any(|reason| reason.as_bytes() == text)
}

/// What an annotation of the event may contain, according to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The decision of the authorizer.
    Decision,
    /// The patch of an admission webhook, a JSON text.
    WebhookPatch,
    /// A message that may quote the body.
    Quoting,
    Other,
}

/// The annotation with the decision of the API server's authorizer.
const DECISION: &str = "authorization.k8s.io/decision";
/// The annotation with the reason of that decision.
const REASON: &str = "authorization.k8s.io/reason";
const OF_PATCHES: &str = "patch.webhook.admission.k8s.io/";
const OF_POLICIES: &str = "validation.policy.admission.k8s.io/";

/// Returns what an annotation of the event with this name may contain.
pub(crate) fn origin(name: &[u8]) -> Origin {
    let is = |head: &str| name.starts_with(head.as_bytes());
    if is(OF_PATCHES) {
        Origin::WebhookPatch
    } else if is(OF_POLICIES) {
        Origin::Quoting
    } else if name == DECISION.as_bytes() {
        Origin::Decision
    } else {
        Origin::Other
    }
}

/// Returns true if a text is one of the decisions that authorizers give.
pub(crate) fn is_decision(text: &[u8]) -> bool {
    matches!(text, b"" | b"allow" | b"forbid")
}

/// The reason that Kubernetes' own authorizer gives. A webhook that authorizes may give any text as
/// its reason.
static PLAIN_AUTHORIZATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?-u)^RBAC: allowed by (?:Cluster)?RoleBinding "[^"]+" of (?:Cluster)?Role "[^"]+" to (?:User|Group|ServiceAccount) "[^"]+"$"#,
    )
    .expect("a test compiles the pattern")
});

/// Returns true if an annotation is the API server's own and contains only the decision, or the
/// role binding that led to it.
pub fn is_plain_authorization(name: &str, text: &str) -> bool {
    match name {
        DECISION => is_decision(text.as_bytes()),
        REASON => text.is_empty() || PLAIN_AUTHORIZATION.is_match(text.as_bytes()),
        _ => false,
    }
}

/// The strings that are kept unless they repeat a replaced text, as far as it takes to know that most
/// replaced texts are in none of them.
pub(crate) struct Kept {
    /// Which pairs of bytes there are; several pairs share a bit.
    pairs: [u64; PAIR_BITS / 64],
    /// The longest string. A longer text is in none.
    longest: usize,
    /// The longest stretch that may be base64. A longer text in base64 is in none.
    longest_base64: usize,
}

const PAIR_BITS: usize = 4096;

impl Kept {
    pub(crate) fn of<'t>(strings: impl Iterator<Item = &'t [u8]>) -> Kept {
        let mut kept = Kept { pairs: [0; PAIR_BITS / 64], longest: 0, longest_base64: 0 };
        for string in strings {
            kept.add(string);
            if let Some(decoded) = from_base64(string) {
                kept.add(&decoded);
            }
        }
        kept
    }

    fn add(&mut self, string: &[u8]) {
        self.longest = self.longest.max(string.len());
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        let stretches = string.split(|byte| !is_base64(byte)).map(<[u8]>::len);
        self.longest_base64 = self.longest_base64.max(stretches.max().unwrap_or_default());
        for bit in pairs(string) {
            self.pairs[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Whether a text may be in one of the strings.
    fn may_have(&self, text: &[u8]) -> bool {
        text.len() <= self.longest && pairs(text).all(|bit| self.pairs[bit / 64] & 1 << (bit % 64) != 0)
    }
}

/// The bits of the pairs of bytes in a text.
fn pairs(text: &[u8]) -> impl Iterator<Item = usize> {
    text.iter()
        .zip(text.iter().skip(1))
        .map(|(one, next)| (usize::from(*one) << 5 ^ usize::from(*next)) % PAIR_BITS)
}

/// Texts that were replaced, to be searched for in what is left.
pub(crate) struct Echoes<'k> {
    texts: Vec<Vec<u8>>,
    is_full: bool,
    /// How much may still be searched, see [`SEARCH_BYTES_MAX`].
    left: usize,
    /// Something was not searched, because there was too much of it.
    is_cut_short: bool,
    /// The strings in which they are searched for.
    kept: &'k Kept,
}

impl<'k> Echoes<'k> {
    /// Collects the strings and numbers of the values that were replaced, what the strings are the
    /// base64 of, and their own base64. They begin at `starts`, and are known to be JSON. What is in
    /// none of `kept` is left out.
    pub(crate) fn of(text: &[u8], starts: impl Iterator<Item = usize>, kept: &'k Kept) -> Echoes<'k> {
        let (left, is_cut_short) = (SEARCH_BYTES_MAX, false);
        let mut echoes = Echoes { texts: Vec::new(), is_full: false, left, is_cut_short, kept };
        for start in starts {
            // The values were parsed before, so this cannot fail.
            let _ = echoes.collect(text, start, 0);
            if echoes.is_full {
                break;
            }
        }
        echoes.texts.sort_unstable();
        echoes.texts.dedup();
        echoes
    }

    fn collect(&mut self, text: &[u8], at: usize, depth: usize) -> Result<usize, json::Broken> {
        match text.get(at) {
            Some(b'"') => {
                let end = json::string_end(text, at)?;
                let string = json::unescape(&text[at..end]);
                if let Some(decoded) = from_base64(&string) {
                    self.push_text(decoded.trim_ascii());
                }
                self.push_text(string.trim_ascii());
                Ok(end)
            }
            Some(b'{') => json::each_member(text, at, depth, |_, at, depth| self.collect(text, at, depth))
                .map(|(_, end)| end),
            Some(b'[') => json::each_element(text, at, depth, |at, depth| self.collect(text, at, depth)),
            _ => {
                let end = json::scalar_end(text, at)?;
                self.push(&text[at..end]);
                Ok(end)
            }
        }
    }

    fn push_text(&mut self, text: &[u8]) {
        self.push(text);
        if text.len() >= ECHO_BYTES_MIN && text.len() / 3 * 4 <= self.kept.longest_base64 {
            // The end depends on what follows, also without padding.
            let encoded = STANDARD_NO_PAD.encode(&text[..text.len() - text.len() % 3]);
            self.push(encoded.as_bytes());
        }
        if text.len() <= self.kept.longest && !text.iter().all(is_written_as_it_is) {
            for quoted in quoted(text) {
                self.push(&quoted);
            }
        }
        // Every quoting and encoding leaves these bytes unchanged.
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if !text.iter().all(|byte| is_plain(byte) || *byte == b' ') {
            let longest = text.split(|byte| !is_plain(byte)).max_by_key(|part| part.len());
            self.push(longest.filter(|part| part.len() >= PART_BYTES_MIN).unwrap_or_default());
        }
    }

    fn push(&mut self, text: &[u8]) {
        if text.len() < ECHO_BYTES_MIN || !self.kept.may_have(text) {
            return;
        }
        if self.texts.len() == ECHOES_MAX {
            self.is_full = true;
        } else {
            self.texts.push(text.to_vec());
        }
    }

    /// Whether a text was taken to contain a replaced one without a search.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    /// Whether a text may contain a replaced one.
    pub(crate) fn may_be_in(&mut self, text: &[u8]) -> bool {
        if text.len() < ECHO_BYTES_MIN || self.texts.is_empty() {
            return self.is_full;
        }
        let Some(left) = self.left.checked_sub(self.texts.len().saturating_mul(text.len())) else {
            self.is_cut_short = true;
            return true;
        };
        self.left = left;
        let is_in = |text: &[u8]| self.texts.iter().any(|echo| memmem::find(text, echo).is_some());
        self.is_full || is_in(text) || from_base64(text).is_some_and(|decoded| is_in(&decoded))
    }
}

/// Returns how a text is written within quotes: in JSON, in JSON as Go writes it, and with Go's
/// verb `%q`, which the API server uses for names of users. Forms that equal the text itself are
/// left out.
pub(crate) fn quoted(text: &[u8]) -> Vec<Vec<u8>> {
    let (mut json, mut html, mut go) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut plain = [0; 4];
            let plain = c.encode_utf8(&mut plain).as_bytes();
            let short = match c {
                '"' => Some('"'),
                '\\' => Some('\\'),
                '\u{8}' => Some('b'),
                '\u{c}' => Some('f'),
                '\n' => Some('n'),
                '\r' => Some('r'),
                '\t' => Some('t'),
                _ => None,
            };
            let of_go = match c {
                '\u{7}' => Some('a'),
                '\u{b}' => Some('v'),
                _ => short,
            };
            let code = u32::from(c);
            match short {
                Some(letter) => json.extend_from_slice(format!("\\{letter}").as_bytes()),
                None if code < 0x20 => json.extend_from_slice(format!("\\u{code:04x}").as_bytes()),
                None => json.extend_from_slice(plain),
            }
            match (short, c) {
                (Some(letter @ ('"' | '\\' | 'n' | 'r' | 't')), _) => {
                    html.extend_from_slice(format!("\\{letter}").as_bytes());
                }
                (_, '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}') => {
                    html.extend_from_slice(format!("\\u{code:04x}").as_bytes());
                }
                _ => html.extend_from_slice(plain),
            }
            match of_go {
                Some(letter) => go.extend_from_slice(format!("\\{letter}").as_bytes()),
                None if is_printed(c) => go.extend_from_slice(plain),
                None if code < 0x80 => go.extend_from_slice(format!("\\x{code:02x}").as_bytes()),
                None if code < 0x1_0000 => go.extend_from_slice(format!("\\u{code:04x}").as_bytes()),
                None => go.extend_from_slice(format!("\\U{code:08x}").as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            json.push(*byte);
            html.extend_from_slice(b"\\ufffd");
            go.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
    let mut spellings = vec![json, html, go];
    spellings.sort_unstable_by_key(|spelling| std::cmp::Reverse(spelling.len()));
    spellings.dedup();
    spellings.retain(|spelling| spelling != text);
    spellings
}

/// Returns true if every kind of quoting leaves a byte unchanged.
fn is_written_as_it_is(byte: &u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

/// Returns true if Go's `%q` writes a character unchanged.
fn is_printed(c: char) -> bool {
    let is_format = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}'
        | '\u{e0000}'..='\u{e007f}' | '\u{f0000}'..='\u{10ffff}');
    c == ' ' || !(c.is_control() || c.is_whitespace() || is_format)
}

/// Replaces each occurrence of `name` in `text` that is not a part of a longer word. Returns `None`
/// if there is none.
pub(crate) fn replace_word(text: &[u8], name: &[u8], with: &[u8]) -> Option<Vec<u8>> {
    if name.is_empty() {
        return None;
    }
    let is_letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let (mut out, mut at, mut found) = (Vec::new(), 0, false);
    for start in memmem::find_iter(text, name) {
        let end = start + name.len();
        let is_part = start < at
            || (is_letter(name.first())
                && is_letter(start.checked_sub(1).and_then(|before| text.get(before))))
            || (is_letter(name.last()) && is_letter(text.get(end)));
        if is_part {
            continue;
        }
        out.extend_from_slice(&text[at..start]);
        out.extend_from_slice(with);
        (at, found) = (end, true);
    }
    out.extend_from_slice(&text[at..]);
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_quote_are_not_plain() {
        for text in [
            "",
            r#"secrets "db" not found"#,
            r#"patients.example.org "p-1" already exists"#,
            r#"secrets is forbidden: User "system:serviceaccount:a:b" cannot list resource "secrets" in API group "" in the namespace "phi""#,
            r#"nodes "n" is forbidden: User "jane@example.org" cannot get resource "nodes" in API group "" at the cluster scope"#,
            r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#,
        ] {
            assert!(is_plain_message(text.as_bytes()), "{text}");
        }
        for text in [
            r#"Secret "db" is invalid: data[p]: Invalid value: "hunter2": no"#,
            r#"admission webhook "w" denied the request: ssn 123-45-6789"#,
            "illegal base64 data at input byte 4",
            r#"secrets "db" not found: hunter2"#,
            "secrets \"db\" not found\nhunter2",
            r#"secrets "hunter two" not found"#,
            r#"pods "p" is forbidden: violates PodSecurity "restricted""#,
        ] {
            assert!(!is_plain_message(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn reasons_are_known_or_may_be_anything() {
        for text in ["", "Invalid", "Failure"] {
            assert!(is_plain_reason(text.as_bytes()), "{text}");
        }
        for text in ["hunter2", "invalid", "Invalid: hunter2"] {
            assert!(!is_plain_reason(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn annotations_are_told_apart_by_name() {
        for (name, expected) in [
            ("authorization.k8s.io/decision", Origin::Decision),
            ("authorization.k8s.io/reason", Origin::Other),
            ("patch.webhook.admission.k8s.io/round_0_index_1", Origin::WebhookPatch),
            ("validation.policy.admission.k8s.io/validation_failure", Origin::Quoting),
            ("my.webhook/finding", Origin::Other),
            ("", Origin::Other),
        ] {
            assert_eq!(origin(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn replaced_texts_are_found_again() {
        let text = br#"{"a":["hunter\u0032","aHVudGVyMw==","a \"0123456789abcdef\"\n"],"n":1234567,"s":"x"}"#;
        let may_be_in = |found: &str| {
            let kept = Kept::of(std::iter::once(found.as_bytes()));
            Echoes::of(text, std::iter::once(0), &kept).may_be_in(found.as_bytes())
        };
        for found in [
            "is hunter2.",
            "hunter3",
            "aHVudGVyMw==",
            "aHVudGVyMg==",
            "n=1234567",
            "basic(aHVudGVyMg==)",
            r#"a \\\"0123456789abcdef\\\"\n"#,
            "a+%220123456789abcdef%22",
        ] {
            assert!(may_be_in(found), "{found}");
        }
        for other in ["", "x", "hunter", "hunter4"] {
            assert!(!may_be_in(other), "{other}");
        }
        let many = format!(
            "[{}]",
            (0..=ECHOES_MAX).map(|at| (1_000_000 + at).to_string()).collect::<Vec<_>>().join(",")
        );
        let kept = Kept::of([many.as_bytes(), b"anything"].into_iter());
        assert!(Echoes::of(many.as_bytes(), std::iter::once(0), &kept).may_be_in(b"anything"));
        // What is too much to be searched counts as found.
        let long = vec![b' '; SEARCH_BYTES_MAX / 2];
        let kept = Kept::of([long.as_slice(), b"hunter2hunter3hunter4"].into_iter());
        let mut few = Echoes::of(b"\"hunter2\"", std::iter::once(0), &kept);
        assert!(!few.may_be_in(&long) && !few.is_cut_short());
        let mut more = Echoes::of(b"[\"hunter2\",\"hunter3\",\"hunter4\"]", std::iter::once(0), &kept);
        assert!(more.may_be_in(&long) && more.is_cut_short());
    }

    #[test]
    fn texts_are_found_however_they_are_quoted() {
        let all = |text: &str| {
            quoted(text.as_bytes())
                .into_iter()
                .map(|quoted| String::from_utf8(quoted).expect("text"))
                .collect::<Vec<_>>()
        };
        assert_eq!(all("CORP\\alice"), [r"CORP\\alice"]);
        assert_eq!(all("jane@example.org é"), [""; 0]);
        assert_eq!(all("a\u{1}\u{200b}"), ["a\\x01\\u200b", "a\\u0001\u{200b}"]);
        assert_eq!(all("<\"\n>"), ["\\u003c\\\"\\n\\u003e", "<\\\"\\n>"]);
        let found = br#"{"key":"one line\nand another"}"#;
        let kept = Kept::of(std::iter::once(&found[..]));
        assert!(Echoes::of(b"\"one line\\nand another\"", std::iter::once(0), &kept).may_be_in(found));
    }

    #[test]
    fn names_are_replaced_as_words() {
        let replaced = |text: &str| {
            replace_word(text.as_bytes(), b"jane", b"T").map(|out| String::from_utf8(out).expect("text"))
        };
        assert_eq!(replaced(r#"User "jane" of jane"#).as_deref(), Some(r#"User "T" of T"#));
        assert_eq!(replaced("janet and mary-jane").as_deref(), Some("janet and mary-T"));
        assert_eq!(replaced("janet"), None);
        assert_eq!(replace_word(b"abc", b"", b"T"), None);
    }
}
