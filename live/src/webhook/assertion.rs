//! Checks who sends a Pub/Sub push: the signed token (an OIDC identity token, a JWT) in its
//! `Authorization` header.
//!
//! Invariants:
//! - A token is accepted only if a configured key has signed it with RS256, it names the configured
//!   issuer, audience and account, and it is valid now. A token cannot choose another algorithm.
//! - Keys come only from a file (JWKS). The file is read again when it changes. If the new content
//!   cannot be used, the keys in use stay, and the failure is reported.
//! - No error contains a part of a token.
//!
//! A crash loses nothing: the file is read at the start.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use strongroom_journal::lock;
use thiserror::Error;

/// The issuers of Google's identity tokens.
pub const GOOGLE: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];

/// Longest file of keys.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Maximum number of keys in that file.
const KEYS_MAX: usize = 64;
/// Maximum difference between the issuer's clock and ours, in seconds.
const SKEW_S: i64 = 60;

/// The issuer, audience and account of accepted tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionOptions {
    /// The issuer's keys, as a JSON Web Key Set.
    pub jwks_file: PathBuf,
    /// Accepted values of `iss`.
    pub issuers: Vec<String>,
    /// The value of `aud`: the audience that is configured in the subscription.
    pub audience: String,
    /// The account as which the subscription sends. The issuer must have verified it.
    pub email: String,
}

#[derive(Debug, Error)]
pub enum KeysError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("{} is not a JSON Web Key Set with 1 to {KEYS_MAX} RSA keys", path.display())]
    Keys { path: PathBuf },
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AssertionError {
    #[error("a signed token is required")]
    Missing,
    #[error("the token is not a JWT")]
    Malformed,
    #[error("the token is not signed with RS256")]
    Algorithm,
    #[error("jwks_file does not have the key that the token names; is it out of date?")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token is not from the configured issuer")]
    Issuer,
    #[error("the token is not for the configured audience")]
    Audience,
    #[error("the token is not of the configured account")]
    Email,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet; is a clock wrong?")]
    Early,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// A public key of the issuer.
struct Rsa {
    id: Option<String>,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    email: Option<String>,
    email_verified: Option<bool>,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
}

/// Checks tokens against the configured options and keys.
pub struct Assertions {
    options: AssertionOptions,
    /// The hash of the file as last read, and the keys of the last file that could be used.
    keys: Mutex<(blake3::Hash, Arc<Vec<Rsa>>)>,
}

impl Assertions {
    /// Reads the keys of the issuer from the file in `options`.
    ///
    /// # Errors
    /// If the file cannot be read, or has no usable key.
    pub fn load(options: AssertionOptions) -> Result<Assertions, KeysError> {
        let bytes = read(&options)?;
        let keys = Mutex::new((blake3::hash(&bytes), Arc::new(parse(&options, &bytes)?)));
        Ok(Assertions { options, keys })
    }

    /// Reads the file again. Returns `true` if its content has changed and is used from now on.
    pub fn reload(&self) -> Result<bool, KeysError> {
        let bytes = read(&self.options)?;
        let hash = blake3::hash(&bytes);
        if lock(&self.keys).0 == hash {
            return Ok(false);
        }
        let keys = parse(&self.options, &bytes)?;
        *lock(&self.keys) = (hash, Arc::new(keys));
        Ok(true)
    }

    /// Checks a token at a time, in seconds since 1970.
    pub fn check(&self, token: &[u8], now_s: i64) -> Result<(), AssertionError> {
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AssertionError::Malformed);
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        let header: Header = part(header)?;
        if header.alg != "RS256" {
            return Err(AssertionError::Algorithm);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AssertionError::Malformed)?;
        let keys = Arc::clone(&lock(&self.keys).1);
        let named = |key: &&Rsa| header.kid.is_none() || key.id == header.kid;
        let mut candidates = keys.iter().filter(named).peekable();
        if candidates.peek().is_none() {
            return Err(AssertionError::UnknownKey);
        }
        let has_signed = |key: &Rsa| {
            let public = RsaPublicKeyComponents { n: &key.modulus, e: &key.exponent };
            public.verify(&RSA_PKCS1_2048_8192_SHA256, signed, &signature).is_ok()
        };
        if !candidates.any(has_signed) {
            return Err(AssertionError::Signature);
        }
        // The claims are used only after the signature was verified.
        let claims: Claims = part(claims)?;
        if !self.options.issuers.contains(&claims.iss) {
            return Err(AssertionError::Issuer);
        }
        if claims.aud != self.options.audience {
            return Err(AssertionError::Audience);
        }
        if claims.email_verified != Some(true) || claims.email.as_ref() != Some(&self.options.email) {
            return Err(AssertionError::Email);
        }
        if claims.exp.saturating_add(SKEW_S) <= now_s {
            return Err(AssertionError::Expired);
        }
        if claims.iat.max(claims.nbf.unwrap_or(i64::MIN)) > now_s.saturating_add(SKEW_S) {
            return Err(AssertionError::Early);
        }
        Ok(())
    }
}

fn part<T: DeserializeOwned>(text: &[u8]) -> Result<T, AssertionError> {
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| AssertionError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| AssertionError::Malformed)
}

fn read(options: &AssertionOptions) -> Result<Vec<u8>, KeysError> {
    let path = &options.jwks_file;
    let cannot = |source| KeysError::Read { path: path.clone(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(KeysError::TooLong { path: path.clone() });
    }
    Ok(bytes)
}

/// Returns the RSA keys of a set; keys of other types are ignored.
fn parse(options: &AssertionOptions, bytes: &[u8]) -> Result<Vec<Rsa>, KeysError> {
    let unusable = || KeysError::Keys { path: options.jwks_file.clone() };
    let set: KeySet = serde_json::from_slice(bytes).map_err(|_| unusable())?;
    let number = |text: Option<String>| {
        let bytes = URL_SAFE_NO_PAD.decode(text?.trim_end_matches('=')).ok()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes[zeros..].to_vec()).filter(|number| !number.is_empty())
    };
    let mut keys = Vec::new();
    for key in set.keys.into_iter().filter(|key| key.kty == "RSA") {
        let (Some(modulus), Some(exponent)) = (number(key.n), number(key.e)) else { return Err(unusable()) };
        keys.push(Rsa { id: key.kid, modulus, exponent });
    }
    if keys.is_empty() || keys.len() > KEYS_MAX { Err(unusable()) } else { Ok(keys) }
}

#[cfg(test)]
pub mod tests {
    use std::path::Path;

    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
    use serde_json::{Value, json};

    use super::*;
    use crate::webhook::tls::value;

    const NOW: i64 = 1_800_000_000;
    pub const AUDIENCE: &str = "https://hook.example/gke";
    pub const EMAIL: &str = "pusher@project.iam.gserviceaccount.com";

    /// An issuer of tokens.
    pub struct Issuer {
        key: KeyPair,
        id: &'static str,
    }

    impl Issuer {
        pub fn new(id: &'static str) -> Issuer {
            Issuer { key: KeyPair::generate(KeySize::Rsa2048).expect("a key"), id }
        }

        fn jwk(&self) -> Value {
            // SEQUENCE { INTEGER modulus, INTEGER exponent }
            let (_, public, _) = value(self.key.public_key().as_ref()).expect("DER");
            let (_, modulus, rest) = value(public).expect("DER");
            let (_, exponent, _) = value(rest).expect("DER");
            let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            json!({
                "kty": "RSA", "kid": self.id, "use": "sig", "alg": "RS256",
                "n": text(modulus), "e": text(exponent),
            })
        }

        pub fn token(&self, header: &Value, claims: &Value) -> String {
            let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", text(header), text(claims));
            let mut signature = vec![0; self.key.public_modulus_len()];
            self.key
                .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
                .expect("signs");
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }

        /// Makes a token that is valid for ten minutes.
        pub fn valid(&self, now_s: i64) -> String {
            self.token(&self.header(), &claims(now_s))
        }

        fn header(&self) -> Value {
            json!({"alg": "RS256", "kid": self.id, "typ": "JWT"})
        }
    }

    fn claims(now_s: i64) -> Value {
        json!({
            "iss": "https://accounts.google.com", "aud": AUDIENCE, "azp": "1", "sub": "2", "email": EMAIL,
            "email_verified": true, "iat": now_s, "exp": now_s + 600,
        })
    }

    pub fn write_keys(path: &Path, issuers: &[&Issuer]) {
        let keys: Vec<Value> = issuers
            .iter()
            .map(|issuer| issuer.jwk())
            .chain([json!({"kty": "EC", "kid": "other", "crv": "P-256", "x": "", "y": ""})])
            .collect();
        std::fs::write(path, json!({"keys": keys}).to_string()).expect("written");
    }

    pub fn options(path: &Path) -> AssertionOptions {
        AssertionOptions {
            jwks_file: path.to_owned(),
            issuers: GOOGLE.map(str::to_owned).to_vec(),
            audience: AUDIENCE.to_owned(),
            email: EMAIL.to_owned(),
        }
    }

    #[test]
    fn only_a_valid_token_of_the_configured_sender_is_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jwks.json");
        let (issuer, stranger) = (Issuer::new("one"), Issuer::new("one"));
        write_keys(&path, &[&issuer]);
        let assertions = Assertions::load(options(&path)).expect("keys");
        let check = |token: &str| assertions.check(token.as_bytes(), NOW);
        let good = issuer.valid(NOW);
        assert_eq!(check(&good), Ok(()));
        assert_eq!(
            check(&issuer.token(&json!({"alg": "RS256"}), &claims(NOW))),
            Ok(()),
            "without a key's name"
        );
        assert_eq!(check(&stranger.valid(NOW)), Err(AssertionError::Signature));

        let with = |name: &str, value: Value| {
            let mut changed = claims(NOW);
            changed[name] = value;
            check(&issuer.token(&issuer.header(), &changed))
        };
        assert_eq!(with("iss", json!("accounts.google.com")), Ok(()));
        assert_eq!(with("iss", json!("https://accounts.google.com.example")), Err(AssertionError::Issuer));
        assert_eq!(with("aud", json!("https://hook.example/gk")), Err(AssertionError::Audience));
        assert_eq!(with("aud", json!([AUDIENCE])), Err(AssertionError::Malformed));
        assert_eq!(
            with("email", json!("another@project.iam.gserviceaccount.com")),
            Err(AssertionError::Email)
        );
        assert_eq!(with("email", Value::Null), Err(AssertionError::Email));
        assert_eq!(with("email_verified", json!(false)), Err(AssertionError::Email));
        assert_eq!(with("email_verified", Value::Null), Err(AssertionError::Email));
        assert_eq!(with("exp", json!(NOW - 59)), Ok(()));
        assert_eq!(with("exp", json!(NOW - 60)), Err(AssertionError::Expired));
        assert_eq!(with("iat", json!(NOW + 60)), Ok(()));
        assert_eq!(with("iat", json!(NOW + 61)), Err(AssertionError::Early));
        assert_eq!(with("nbf", json!(NOW + 61)), Err(AssertionError::Early));

        // The token cannot choose how it is checked.
        for alg in ["none", "HS256", "RS512", "rs256", ""] {
            let token = issuer.token(&json!({"alg": alg, "kid": "one"}), &claims(NOW));
            assert_eq!(check(&token), Err(AssertionError::Algorithm), "{alg}");
        }
        let unknown = issuer.token(&json!({"alg": "RS256", "kid": "two"}), &claims(NOW));
        assert_eq!(check(&unknown), Err(AssertionError::UnknownKey));
        // Claims that were changed after signing.
        let parts: Vec<&str> = good.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(claims(NOW + 1).to_string());
        assert_eq!(check(&format!("{}.{forged}.{}", parts[0], parts[2])), Err(AssertionError::Signature));
        let unsigned = format!("{}.{}.", parts[0], parts[1]);
        assert_eq!(check(&unsigned), Err(AssertionError::Signature));
        for broken in ["", ".", "..", "a.b", "a.b.c", &format!("{good}.x"), &good[1..], &format!("{good}=")] {
            assert!(check(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn keys_that_change_are_used_and_broken_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jwks.json");
        let (old, new) = (Issuer::new("old"), Issuer::new("new"));
        write_keys(&path, &[&old]);
        let assertions = Assertions::load(options(&path)).expect("keys");
        let check = |issuer: &Issuer| assertions.check(issuer.valid(NOW).as_bytes(), NOW);
        assert_eq!((check(&old), check(&new)), (Ok(()), Err(AssertionError::UnknownKey)));
        assert!(!assertions.reload().expect("the keys are the same"));
        write_keys(&path, &[&old, &new]);
        assert!(assertions.reload().expect("changed"));
        assert_eq!((check(&old), check(&new)), (Ok(()), Ok(())));
        for broken in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"RSA","kid":"a","n":"","e":"AQAB"}]}"#]
        {
            std::fs::write(&path, broken).expect("written");
            assert!(matches!(assertions.reload(), Err(KeysError::Keys { .. })), "{broken}");
        }
        assert_eq!(check(&new), Ok(()), "the keys in use stay");
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(assertions.reload(), Err(KeysError::Read { .. })));
    }
}
