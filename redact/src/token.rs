//! Tokens: keyed digests that stand for values.
//!
//! A token is `rt1:<key id, 8 hex>:<32 hex>`: the first 16 bytes of HMAC-SHA-256 over a byte for the
//! kind of the value and the value's canonical text. Equal values have equal tokens for the life of
//! a key, however they are spelled: a string's text is what it says, not its escapes; a number that
//! can be exact is its shortest form; the members of an object are sorted. A string and a number of
//! the same text have different tokens.
//!
//! Invariant: a token depends on the value and the key alone.

use std::fmt;

use aws_lc_rs::hmac;
use serde_json::Value;
use thiserror::Error;

use crate::json;
use crate::keys::{Key, KeyId, Keys, TOKEN_PREFIX, hex};

/// Length of a token's text.
pub const TOKEN_BYTES: usize = TOKEN_PREFIX.len() + 8 + 1 + 32;
const DIGEST_BYTES: usize = 16;
/// Every integer below this is exact in a double.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Numbers of up to this many digits are different doubles if they are different.
const EXACT_DIGITS: usize = 15;

/// Why a text is not a token, or a token cannot be judged.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("a token is rt1:, 8 hex digits, a colon and 32 hex digits")]
    Format,
    #[error("the token is of the key {0}, which is not given")]
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

    /// The id of the key that the token was made with.
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

/// What is hashed: kinds of values never share a digest.
#[derive(Clone, Copy)]
enum Kind {
    String = b's' as isize,
    Other = b'j' as isize,
}

impl Key {
    /// The token of a string.
    pub fn token_of_str(&self, text: &str) -> Token {
        self.token_of_bytes(text.as_bytes())
    }

    /// The token of a string that may have lone surrogates.
    pub(crate) fn token_of_bytes(&self, text: &[u8]) -> Token {
        self.digest(Kind::String, text)
    }

    /// The token of a JSON value.
    pub fn token(&self, value: &Value) -> Token {
        match value {
            Value::String(text) => self.token_of_str(text),
            // A value always has a text.
            value => self.token_of_valid(value.to_string().as_bytes()),
        }
    }

    /// The token of a JSON text.
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

    /// The token of a text that is known to be one JSON value.
    pub(crate) fn token_of_valid(&self, text: &[u8]) -> Token {
        match text.first() {
            Some(b'"') => self.token_of_bytes(&json::unescape(text)),
            Some(b'{' | b'[') => match serde_json::from_slice::<Value>(text) {
                // The members of a value are sorted, and the last of two with one name counts.
                Ok(value) => self.digest(Kind::Other, value.to_string().as_bytes()),
                // A lone surrogate, or a number beyond a double: equal texts still have equal tokens.
                Err(_) => self.digest(Kind::Other, text),
            },
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

/// Returns one text for all spellings of a number that a double holds exactly enough to tell; any
/// other number, and a literal, is its own text.
fn canonical_number(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).into_owned();
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return text;
    }
    let is_integer = !text.contains(['.', 'e', 'E']);
    if is_integer {
        return if text == "-0" { "0".to_owned() } else { text };
    }
    let significand = text.split(['e', 'E']).next().unwrap_or_default();
    let digits = significand.bytes().filter(u8::is_ascii_digit).count();
    if significand.bytes().all(|byte| !(b'1'..=b'9').contains(&byte)) {
        return "0".to_owned();
    }
    match text.parse::<f64>() {
        Ok(number) if digits <= EXACT_DIGITS && number.is_normal() => {
            if number.fract() == 0.0 && number.abs() < EXACT_MAX {
                format!("{number:.0}")
            } else {
                format!("{number:e}")
            }
        }
        _ => text,
    }
}

impl Keys {
    /// Whether a value is the one that a token stands for.
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
        ];
        let tokens: std::collections::HashSet<String> = different.iter().map(|text| token(text)).collect();
        assert_eq!(tokens.len(), different.len());
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
        // Archives of earlier releases have such tokens.
        assert_eq!(
            key().token_of_str("123-45-6789").as_str(),
            "rt1:b773176c:a10c5dbe807a2c36a67b13aeeca1f78f"
        );
    }
}
