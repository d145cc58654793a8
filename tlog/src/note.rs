//! Signed notes of C2SP with Ed25519 keys, and the text forms of the keys.
//!
//! Invariant: a text counts as signed only after its signature has been checked, together with the
//! name under which the signature was made. The seed of a private key appears in no message, in no
//! `Debug` output, and in no file except the key's own.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use strongroom_schemas::record::Sha256Hash;

use super::error::TlogError;

/// Signature type of Ed25519 in key ids and key texts.
const ED25519_TYPE: u8 = 1;
/// The dash before a signature.
const DASH: &str = "\u{2014} ";
/// Prefix of a private key's text.
const PRIVATE: &str = "PRIVATE+KEY+";
/// Maximum size of a note. A note with sixteen signatures fits, even if the signatures of witnesses
/// are long.
const NOTE_BYTES_MAX: usize = 1 << 20;
/// Maximum number of signatures of a note.
const SIGNATURES_MAX: usize = 100;
/// Default name of a key.
pub const NAME_DEFAULT: &str = "strongroom";

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// The id of a key: the first four bytes of a hash over the name under which it signs, the type of
/// its signatures, and the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for PublicKey {
    /// The bare base64 form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl PublicKey {
    /// Returns the id of the key for signatures as `name`.
    pub fn id(&self, name: &str) -> KeyId {
        self.id_as(name, ED25519_TYPE)
    }

    /// Returns the id of the key for signatures of type `kind`.
    pub fn id_as(&self, name: &str, kind: u8) -> KeyId {
        let mut text = name.as_bytes().to_vec();
        text.extend([b'\n', kind]);
        text.extend(self.0);
        let Sha256Hash(hash) = Sha256Hash::of(&text);
        KeyId([hash[0], hash[1], hash[2], hash[3]])
    }

    /// Returns the *vkey* of this key and a name: the form in which tools for signed notes expect a
    /// key.
    pub fn vkey(&self, name: &str) -> String {
        self.vkey_as(name, ED25519_TYPE)
    }

    /// Returns the vkey for a name and a type of signature.
    pub fn vkey_as(&self, name: &str, kind: u8) -> String {
        let mut data = vec![kind];
        data.extend(self.0);
        format!("{name}+{}+{}", self.id_as(name, kind), BASE64.encode(data))
    }

    /// Returns the name and key from a vkey of type `kind`.
    pub fn parse_vkey(text: &str, kind: u8) -> Option<(&str, PublicKey)> {
        let (name, id, data) = parts(text)?;
        let data = BASE64.decode(data).ok()?;
        let (found, key) = data.split_first()?;
        let key = PublicKey(key.try_into().ok()?);
        (*found == kind && key.id_as(name, kind).to_string() == id).then_some((name, key))
    }

    /// Reads a vkey, or the bare base64 of 32 bytes.
    ///
    /// # Errors
    /// [`TlogError::PublicKey`] for any other text, including a vkey that has the id of another
    /// key.
    pub fn parse(text: &str) -> Result<PublicKey, TlogError> {
        let text = text.trim();
        let bare = |text: &str| BASE64.decode(text).ok()?.try_into().ok().map(PublicKey);
        let key = bare(text).or_else(|| Some(PublicKey::parse_vkey(text, ED25519_TYPE)?.1));
        key.ok_or(TlogError::PublicKey)
    }

    /// Whether `signature` is a valid signature of `text` by this key.
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(text, signature).is_ok()
    }
}

/// Splits the text of a key into name, id and data. The data may contain a plus.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once('+')?;
    let (id, data) = rest.split_once('+')?;
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some((name, id, data))
}

/// A private key in memory.
pub struct PrivateKey {
    name: String,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public().to_string()).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// Returns a new key from the system's random generator.
    ///
    /// # Errors
    /// [`TlogError::KeyName`] for a name that is not allowed in a note,
    /// [`TlogError::Randomness`].
    pub fn generate(name: &str) -> Result<PrivateKey, TlogError> {
        use aws_lc_rs::rand::SecureRandom as _;
        if name.is_empty() || name.contains('+') || name.contains(char::is_whitespace) {
            return Err(TlogError::KeyName);
        }
        let mut seed = [0; 32];
        aws_lc_rs::rand::SystemRandom::new().fill(&mut seed).map_err(|_| TlogError::Randomness)?;
        PrivateKey::of(name, seed)
    }

    fn of(name: &str, seed: [u8; 32]) -> Result<PrivateKey, TlogError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| TlogError::PrivateKey)?;
        Ok(PrivateKey { name: name.to_owned(), seed, pair })
    }

    /// Reads the line that [`PrivateKey::to_text`] returns.
    ///
    /// # Errors
    /// [`TlogError::PrivateKey`], which never contains the text.
    pub fn parse(text: &str) -> Result<PrivateKey, TlogError> {
        let read = || {
            let (name, id, data) = parts(text.trim().strip_prefix(PRIVATE)?)?;
            let data = BASE64.decode(data).ok()?;
            let (kind, seed) = data.split_first()?;
            let key = PrivateKey::of(name, seed.try_into().ok()?).ok()?;
            (*kind == ED25519_TYPE && key.public().id(name).to_string() == id).then_some(key)
        };
        read().ok_or(TlogError::PrivateKey)
    }

    /// Returns the line for the key's file. The line contains the secret.
    pub fn to_text(&self) -> String {
        let mut data = vec![ED25519_TYPE];
        data.extend(self.seed);
        format!("{PRIVATE}{}+{}+{}\n", self.name, self.public().id(&self.name), BASE64.encode(data))
    }

    /// Returns the name that the key was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the public key that belongs to this private key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"))
    }

    /// Signs a text.
    pub fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.pair.sign(text).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// A note, split into text and signatures. The signatures are not checked yet.
#[derive(Clone, Debug)]
pub struct Note<'n> {
    /// Includes its last newline.
    pub text: &'n str,
    signatures: Vec<(&'n str, KeyId, Vec<u8>)>,
}

impl<'n> Note<'n> {
    /// Splits a note; `None` if the bytes do not have the form of a note.
    pub fn parse(note: &'n [u8]) -> Option<Note<'n>> {
        let note = std::str::from_utf8(note).ok().filter(|note| note.len() <= NOTE_BYTES_MAX)?;
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return None;
        }
        let at = note.rfind("\n\n")?;
        let (text, rest) = (&note[..=at], &note[at + 2..]);
        let mut signatures = Vec::new();
        for line in rest.strip_suffix('\n')?.split('\n') {
            let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
            if name.is_empty() || name.contains('+') {
                return None;
            }
            let signature = BASE64.decode(signature).ok()?;
            let (id, signature) = signature.split_first_chunk::<4>()?;
            if signatures.len() == SIGNATURES_MAX {
                return None;
            }
            signatures.push((name, KeyId(*id), signature.to_vec()));
        }
        Some(Note { text, signatures })
    }

    /// True if `key` has signed the text as `name`: there is a signature with this name and the
    /// key's id, and every such signature is valid.
    pub fn is_signed(&self, name: &str, key: &PublicKey) -> bool {
        let id = key.id(name);
        let mut ours = self.signatures.iter().filter(|(by, known, _)| *by == name && *known == id).peekable();
        ours.peek().is_some() && ours.all(|(.., signature)| key.verifies(self.text.as_bytes(), signature))
    }

    /// Returns the signatures under a name and an id, unchecked.
    pub fn signatures_of(&self, name: &str, id: KeyId) -> impl Iterator<Item = &[u8]> {
        let named = self.signatures.iter().filter(move |(by, known, _)| *by == name && *known == id);
        named.map(|(.., signature)| signature.as_slice())
    }

    /// Returns the names and ids of all signatures, in their order.
    pub fn signers(&self) -> impl Iterator<Item = (&'n str, KeyId)> {
        self.signatures.iter().map(|(name, id, _)| (*name, *id))
    }

    /// Returns the index in `keys` of the last key that has signed the text as `name`.
    pub fn signer(&self, name: &str, keys: &[PublicKey]) -> Option<usize> {
        keys.iter().rposition(|key| self.is_signed(name, key))
    }
}

/// Formats a signature by `key` as a line of a note.
pub fn signature_line(name: &str, key: &PublicKey, signature: &[u8; 64]) -> String {
    line(name, key.id(name), signature)
}

/// Formats a signature of any type as a line of a note.
pub fn line(name: &str, id: KeyId, signature: &[u8]) -> String {
    let mut data = id.0.to_vec();
    data.extend(signature);
    format!("{DASH}{name} {}\n", BASE64.encode(data))
}

/// Returns the base64 of bytes, in the variant that notes and proofs use.
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Decodes base64; `None` if the text is not valid.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Go's `golang.org/x/mod/sumdb/note`, which C2SP signed-note follows.
    #[test]
    fn notes_and_keys_of_the_reference_are_read() {
        let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let note = "If you think cryptography is the answer to your problem,\n\
            then you don't know what your problem is.\n\n\
            \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let key = PublicKey::parse(vkey).expect("the reference's key");
        assert_eq!(key.vkey("PeterNeumann"), vkey);
        let read = Note::parse(note.as_bytes()).expect("the reference's note");
        assert!(read.is_signed("PeterNeumann", &key));
        assert!(!read.is_signed("Another", &key));
        let changed = note.replace("answer", "anwser");
        assert!(!Note::parse(changed.as_bytes()).expect("still a note").is_signed("PeterNeumann", &key));
        let secret = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        let private = PrivateKey::parse(secret).expect("the reference's private key");
        assert_eq!(private.public(), key);
        let signature = private.sign(read.text.as_bytes());
        assert!(note.ends_with(&signature_line("PeterNeumann", &key, &signature)));
        assert_eq!(private.to_text().trim(), secret);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        for wrong in [
            "",
            "x",
            "PRIVATE+KEY+a+00000000+AAAA",
            "a+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        ] {
            assert!(PublicKey::parse(wrong).is_err(), "{wrong}");
            let error = PrivateKey::parse(wrong).expect_err("no key").to_string();
            assert!(wrong.is_empty() || wrong == "x" || !error.contains(wrong), "{error}");
        }
        let key = PrivateKey::generate("example.com/a").expect("randomness");
        assert!(!format!("{key:?}").contains(key.to_text().trim()));
        assert_eq!(PrivateKey::parse(&key.to_text()).expect("its own text").public(), key.public());
        assert_eq!(PublicKey::parse(&key.public().to_string()).expect("bare"), key.public());
        assert!(PrivateKey::generate("a b").is_err());
    }

    #[test]
    fn damaged_notes_are_none() {
        for wrong in [
            "",
            "a\n",
            "a\n\n",
            "a\n\nb\n",
            "a\n\n\u{2014} n !!\n",
            "a\n\n\u{2014} n AAAA",
            "a\x01\n\n\u{2014} n AAAAAA==\n",
        ] {
            assert!(Note::parse(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
    }
}
