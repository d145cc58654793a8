//! Tokens: keyed digests that stand for values.
//!
//! A token is `rt1:<key id, 8 hex>:<32 hex>`. The second part is the first 16 bytes of HMAC-SHA-256
//! over a byte for the kind of the value and the value's canonical text. Under one key, equal
//! values have equal tokens, however they are spelled: the text of a string is its content without
//! escapes, a number is its exact decimal value, and the members of an object are sorted, at any
//! depth. A string and a number with the same text have different tokens.
//!
//! Invariant: a token depends on the value and the key alone.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac;
use serde_json::Value;
use thiserror::Error;

use crate::json::{self, Broken};
use crate::keys::{Key, KeyId, Keys, TOKEN_PREFIX, hex};

/// Length of a token's text.
pub const TOKEN_BYTES: usize = TOKEN_PREFIX.len() + 8 + 1 + 32;
const DIGEST_BYTES: usize = 16;
/// Integers with at most this many digits are written with all their digits. No double has more.
const INTEGER_DIGITS_MAX: usize = 309;

/// Why a text is not a token, or why a token cannot be compared with a value.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("a token is rt1:, 8 hex digits, a colon and 32 hex digits")]
    Format,
    #[error("the token was made with the key {0}, which is not one of the policy's keys")]
    UnknownKey(KeyId),
    #[error("the value is not JSON")]
    NotJson,
}

/// The text of a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token(String);

impl Token {
    /// # Errors
    /// [`TokenError::Format`].
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        let (id, digest) = text
            .strip_prefix(TOKEN_PREFIX)
            .and_then(|rest| rest.split_once(':'))
            .ok_or(TokenError::Format)?;
        if hex::<4>(id).is_none() || hex::<DIGEST_BYTES>(digest).is_none() {
            return Err(TokenError::Format);
        }
        Ok(Token(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the id of the key that made the token.
    pub fn key_id(&self) -> KeyId {
        let id = self.0.get(TOKEN_PREFIX.len()..TOKEN_PREFIX.len() + 8).and_then(hex).unwrap_or_default();
        KeyId(id)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kind of a value. It is hashed with the value, so values of different kinds have different
/// tokens.
#[derive(Clone, Copy)]
enum Kind {
    String = b's' as isize,
    Other = b'j' as isize,
}

impl Key {
    /// Returns the token of a string.
    pub fn token_of_str(&self, text: &str) -> Token {
        self.token_of_bytes(text.as_bytes())
    }

    /// Returns the token of a string that may contain lone surrogates.
    pub(crate) fn token_of_bytes(&self, text: &[u8]) -> Token {
        self.digest(Kind::String, text)
    }

    /// Returns the token of a JSON value.
    pub fn token(&self, value: &Value) -> Token {
        match value {
            Value::String(text) => self.token_of_str(text),
            // Every `Value` can be written as JSON.
            value => self.token_of_valid(value.to_string().as_bytes()),
        }
    }

    /// Returns the token of a JSON text.
    ///
    /// # Errors
    /// [`TokenError::NotJson`].
    pub fn token_of_json(&self, text: &str) -> Result<Token, TokenError> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']).as_bytes();
        match json::value_end(text, 0, 0) {
            Ok(end) if end == text.len() => Ok(self.token_of_valid(text)),
            _ => Err(TokenError::NotJson),
        }
    }

    /// Returns the token of a text that is known to be one JSON value.
    pub(crate) fn token_of_valid(&self, text: &[u8]) -> Token {
        match text.first() {
            Some(b'"') => self.token_of_bytes(&json::unescape(text)),
            Some(b'{' | b'[') => {
                let mut canonical = Vec::with_capacity(text.len());
                // The text is known to be JSON, so this succeeds.
                match write_canonical(text, 0, 0, &mut canonical) {
                    Ok(_) => self.digest(Kind::Other, &canonical),
                    Err(_) => self.digest(Kind::Other, text),
                }
            }
            _ => self.digest(Kind::Other, canonical_number(text).as_bytes()),
        }
    }

    fn digest(&self, kind: Kind, text: &[u8]) -> Token {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut context = hmac::Context::with_key(&self.tokens);
        context.update(&[kind as u8]);
        context.update(text);
        let tag = context.sign();
        let mut out = String::with_capacity(TOKEN_BYTES);
        out.push_str(&self.head);
        for byte in &tag.as_ref()[..DIGEST_BYTES] {
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
        Token(out)
    }
}

/// Writes the canonical text of the value that begins at `at`, which is the same for all spellings:
/// without white space, with the members sorted by their unescaped names. Of two members with one
/// name, the last is kept. Returns the position after the value.
fn write_canonical(text: &[u8], at: usize, depth: usize, out: &mut Vec<u8>) -> Result<usize, Broken> {
    match text.get(at) {
        Some(b'{') => {
            let mut members: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let (_, end) = json::each_member(text, at, depth, |(start, end), at, depth| {
                let mut value = Vec::new();
                let value_end = write_canonical(text, at, depth, &mut value)?;
                members.insert(json::unescape(&text[start..end]).into_owned(), value);
                Ok(value_end)
            })?;
            for (at, (name, value)) in members.iter().enumerate() {
                out.push(if at == 0 { b'{' } else { b',' });
                write_canonical_string(name, out);
                out.push(b':');
                out.extend_from_slice(value);
            }
            out.extend_from_slice(if members.is_empty() { b"{}" } else { b"}" });
            Ok(end)
        }
        Some(b'[') => {
            let mut separator = b'[';
            let end = json::each_element(text, at, depth, |at, depth| {
                out.push(separator);
                separator = b',';
                write_canonical(text, at, depth, out)
            })?;
            out.extend_from_slice(if separator == b'[' { b"[]" } else { b"]" });
            Ok(end)
        }
        Some(b'"') => {
            let end = json::string_end(text, at)?;
            write_canonical_string(&json::unescape(&text[at..end]), out);
            Ok(end)
        }
        _ => {
            let end = json::scalar_end(text, at)?;
            out.extend_from_slice(canonical_number(&text[at..end]).as_bytes());
            Ok(end)
        }
    }
}

/// Writes a string as a literal. A string with a lone surrogate is not UTF-8; the only requirement
/// on its text is that it differs from that of every other string.
fn write_canonical_string(text: &[u8], out: &mut Vec<u8>) {
    let literal = std::str::from_utf8(text).ok().and_then(|text| serde_json::to_string(text).ok());
    match literal {
        Some(literal) => out.extend_from_slice(literal.as_bytes()),
        None => {
            out.push(b'"');
            for byte in text {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out.push(b'"');
        }
    }
}

/// Returns a text that is the same for all spellings of a number: all digits of an integer, or
/// digits and a power of ten for every other number. The text is exact, even where a double is not.
/// A literal (`true`, `false`, `null`) is returned unchanged.
fn canonical_number(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).into_owned();
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return text;
    }
    let (significand, exponent) = text.split_once(['e', 'E']).unwrap_or((text.as_str(), "0"));
    let (sign, significand) = significand.strip_prefix('-').map_or(("", significand), |rest| ("-", rest));
    let (whole, fraction) = significand.split_once('.').unwrap_or((significand, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    if digits.is_empty() {
        return "0".to_owned();
    }
    // The number is 0.DIGITS times ten to the power of `point`.
    let point = exponent.parse::<i64>().ok().and_then(|exponent| {
        let before = i64::try_from(whole.len() + digits.len()).ok()? - i64::try_from(all.len()).ok()?;
        exponent.checked_add(before)
    });
    let digits = digits.trim_end_matches('0');
    let Some(point) = point else { return text };
    match usize::try_from(point) {
        Ok(length) if digits.len() <= length && length <= INTEGER_DIGITS_MAX => {
            format!("{sign}{digits:0<length$}")
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            match point.checked_sub(1) {
                Some(exponent) => format!("{sign}{first}{dot}{rest}e{exponent}"),
                None => text,
            }
        }
    }
}

impl Keys {
    /// Returns true if a token stands for this value.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] if none of the keys made the token.
    pub fn reveals(&self, token: &Token, value: &Value) -> Result<bool, TokenError> {
        let id = token.key_id();
        let key = self.find(id).ok_or(TokenError::UnknownKey(id))?;
        let own = key.token(value);
        Ok(aws_lc_rs::constant_time::verify_slices_are_equal(own.0.as_bytes(), token.0.as_bytes()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> Key {
        Key::parse(&"0123456789abcdef".repeat(4)).expect("a key")
    }

    #[test]
    fn equal_values_have_equal_tokens() {
        let token = |text: &str| key().token_of_json(text).expect(text).to_string();
        for (one, other) in [
            (r#""data""#, r#""d\u0061ta""#),
            (r#""\/""#, r#""/""#),
            ("1", "1.0"),
            ("1000", "1e3"),
            ("0", "-0"),
            ("0", "0.0e7"),
            ("0.5", "5e-1"),
            (r#"{"a":1,"b":[true,null]}"#, r#" {"b" : [true, null], "a": 1} "#),
            (r#"{"a":0,"a":1}"#, r#"{"a":1}"#),
            ("1e999", "1e999"),
            ("1e20", "100000000000000000000"),
            ("1e400", "10e399"),
            ("1E+400", "0.01e402"),
            ("9007199254740993", "9007199254740993.0"),
            ("-12.5e-3", "-0.01250"),
            ("5e-400", "0.5e-399"),
            (r#"{"a":1,"b":2}"#, r#"{"b":2.0,"a":1e0}"#),
            ("[1,2]", "[ 1.0, 20e-1 ]"),
            (r#"{"a":[{"b":1e400}]}"#, r#"{"\u0061":[{"b":10e399}]}"#),
            (r#"{"a":"\ud800","b":1}"#, r#"{"b":1.0,"a":"\ud800"}"#),
            (r#"["\ud800"]"#, r#"["\ud800"]"#),
        ] {
            assert_eq!(token(one), token(other), "{one} {other}");
        }
        let different = [
            "1",
            "\"1\"",
            "true",
            "\"true\"",
            "null",
            "\"\"",
            "\"null\"",
            "[]",
            "{}",
            "\"{}\"",
            "2",
            "-1",
            "0.1",
            "12345678901234567890123",
            "12345678901234567890124",
            "1e999",
            "1e998",
            "1e-999",
            "0",
            "0.30000000000000004",
            "0.3",
            r#""\ud800""#,
            r#""\ud801""#,
            "9007199254740993",
            "9007199254740992",
            "9007199254740992.5",
            "1e99999999999999999999",
            "[1]",
            "[1.1]",
            "[\"1\"]",
            "[12]",
            "[1,2]",
            "[[1,2]]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\ud801"}"#,
            r#"{"a":"\ufffd"}"#,
        ];
        let tokens: std::collections::HashSet<String> = different.iter().map(|text| token(text)).collect();
        assert_eq!(tokens.len(), different.len());
    }

    #[test]
    fn numbers_are_exact_decimals() {
        for (text, canonical) in [
            ("0", "0"),
            ("-0.00e5", "0"),
            ("1", "1"),
            ("1200", "1200"),
            ("12e2", "1200"),
            ("0.5", "5e-1"),
            ("1.5", "1.5e0"),
            ("-120.50", "-1.205e2"),
            ("1e308", &format!("1{}", "0".repeat(308))),
            ("1e309", "1e309"),
            ("1e-9223372036854775808", "1e-9223372036854775808"),
            ("true", "true"),
        ] {
            assert_eq!(canonical_number(text.as_bytes()), canonical, "{text}");
        }
    }

    #[test]
    fn a_token_is_of_one_key() {
        let (value, other) = (json!({"ssn": "123-45-6789"}), json!("123-45-6789"));
        let token = key().token(&value);
        assert_eq!(token.as_str().len(), TOKEN_BYTES);
        assert_eq!(Token::parse(token.as_str()).expect("a token"), token);
        assert_eq!(token.key_id(), key().id());
        let keys = Keys::new(Key::generate().expect("a key"), vec![key()]).expect("keys");
        assert_eq!(keys.reveals(&token, &value), Ok(true));
        assert_eq!(keys.reveals(&token, &other), Ok(false));
        assert_ne!(keys.current().token(&value), token);
        let alone = Keys::new(Key::generate().expect("a key"), Vec::new()).expect("keys");
        assert_eq!(alone.reveals(&token, &value), Err(TokenError::UnknownKey(key().id())));
        for text in
            ["", "rt1:", "rt2:00000000:00000000000000000000000000000000", &token.as_str().to_uppercase()]
        {
            assert_eq!(Token::parse(text), Err(TokenError::Format), "{text}");
        }
    }

    #[test]
    fn the_token_of_a_known_value_never_changes() {
        // Archives contain such tokens, so the text must not change.
        assert_eq!(
            key().token_of_str("123-45-6789").as_str(),
            "rt1:b773176c:a10c5dbe807a2c36a67b13aeeca1f78f"
        );
    }
}
