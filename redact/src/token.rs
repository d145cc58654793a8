//! Tokens: keyed digests that stand for values.

/// `rt1:<key id, 8 hex>:<32 hex>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token(String);

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TokenError { Format, UnknownKey, NotJson }

impl Token {
    pub fn parse(text: &str) -> Result<Token, TokenError>;
    pub fn as_str(&self) -> &str;
    pub fn key_id(&self) -> KeyId;
}
impl Key { pub fn token(&self, value: &Value) -> Token; pub fn token_of_str(&self, text: &str) -> Token; pub fn token_of_json(&self, text: &str) -> Token }
impl Keys {
    /// Whether a value is the one that a token stands for, under the key whose id the token has.
    pub fn reveals(&self, token: &Token, value: &Value) -> Result<bool, TokenError>;
}
