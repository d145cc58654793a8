//! Encrypts rejects, and records of the write-ahead log, which cannot be edited and must not be
//! lost. The cipher is AES-256-GCM.
//!
//! ```text
//! encrypted = "strongroom-encrypted-1\n" key-id[4] salt[16] nonce[12] ciphertext tag[16]
//! ```
//!
//! Each text has its own key: HMAC-SHA-256 of its random salt under the encryption key. So no two
//! texts share a key and a nonce, whatever the number of texts. The text, the bytes before the
//! ciphertext and the caller's context are authenticated.
//!
//! Invariant: a text is returned only if each of its bytes, and its context, are authentic.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;

use crate::keys::{Key, KeyId, Keys};

/// The bytes that every encrypted text begins with.
pub const ENCRYPTED_MAGIC: &[u8] = b"strongroom-encrypted-1\n";
const KEY_ID_BYTES: usize = 4;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = ENCRYPTED_MAGIC.len() + KEY_ID_BYTES + SALT_BYTES + NONCE_LEN;
/// Number of bytes that encryption adds to a text.
pub const ENCRYPTED_OVERHEAD: usize = HEAD_BYTES + TAG_BYTES;

/// Why bytes were not encrypted or decrypted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CipherError {
    #[error("the bytes are not an encrypted text")]
    NotEncrypted,
    #[error("the bytes are encrypted under the key {0}, which is not one of the policy's keys")]
    UnknownKey(KeyId),
    #[error("the bytes were changed, or were encrypted with another context")]
    Forged,
    #[error("the system has no random numbers")]
    Randomness,
    #[error("the text is too long to be encrypted")]
    TooLong,
}

/// Returns true if bytes begin like an encrypted text.
pub fn is_encrypted(bytes: &[u8]) -> bool {
    bytes.starts_with(ENCRYPTED_MAGIC)
}

/// Returns the id of the key under which bytes are encrypted.
pub fn key_id_of(bytes: &[u8]) -> Option<KeyId> {
    let rest = bytes.strip_prefix(ENCRYPTED_MAGIC)?;
    rest.first_chunk::<KEY_ID_BYTES>().map(|id| KeyId(*id))
}

impl Keys {
    /// Encrypts a text under the current key. The same `context` must be given to decrypt.
    ///
    /// # Errors
    /// [`CipherError::Randomness`] and [`CipherError::TooLong`].
    pub fn encrypt(&self, clear: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError> {
        let key = self.current();
        let mut random = [0; SALT_BYTES + NONCE_LEN];
        SystemRandom::new().fill(&mut random).map_err(|_| CipherError::Randomness)?;
        let mut out = Vec::with_capacity(clear.len() + ENCRYPTED_OVERHEAD);
        out.extend_from_slice(ENCRYPTED_MAGIC);
        out.extend_from_slice(&key.id().0);
        out.extend_from_slice(&random);
        let (cipher, nonce) = opened(key, &random).ok_or(CipherError::NotEncrypted)?;
        let aad = Aad::from([out.as_slice(), context].concat());
        out.extend_from_slice(clear);
        let tag = cipher
            .seal_in_place_separate_tag(nonce, aad, &mut out[HEAD_BYTES..])
            .map_err(|_| CipherError::TooLong)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Returns the text that was encrypted, under any of the keys.
    ///
    /// # Errors
    /// [`CipherError`] if the bytes are not a text that was encrypted with this context.
    pub fn decrypt(&self, encrypted: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError> {
        let id = key_id_of(encrypted).ok_or(CipherError::NotEncrypted)?;
        if encrypted.len() < ENCRYPTED_OVERHEAD {
            return Err(CipherError::NotEncrypted);
        }
        let key = self.find(id).ok_or(CipherError::UnknownKey(id))?;
        let (head, sealed) = encrypted.split_at(HEAD_BYTES);
        let random = &head[ENCRYPTED_MAGIC.len() + KEY_ID_BYTES..];
        let (cipher, nonce) = opened(key, random).ok_or(CipherError::NotEncrypted)?;
        let mut text = sealed.to_vec();
        let clear = cipher
            .open_in_place(nonce, Aad::from([head, context].concat()), &mut text)
            .map_err(|_| CipherError::Forged)?
            .len();
        text.truncate(clear);
        Ok(text)
    }
}

/// Returns the key that belongs to the salt of one text, and its nonce.
fn opened(key: &Key, random: &[u8]) -> Option<(LessSafeKey, Nonce)> {
    let (salt, nonce) = random.split_at_checked(SALT_BYTES)?;
    let derived = hmac::sign(&key.encryption, salt);
    let cipher = UnboundKey::new(&AES_256_GCM, derived.as_ref()).ok()?;
    Some((LessSafeKey::new(cipher), Nonce::try_assume_unique_for_key(nonce).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(Key::generate().expect("a key"), Vec::new()).expect("keys")
    }

    #[test]
    fn what_is_encrypted_comes_back() {
        let keys = keys();
        for text in [&b""[..], b"a", &[0; 70_000]] {
            let sealed = keys.encrypt(text, b"reject").expect("encrypted");
            assert_eq!(sealed.len(), text.len() + ENCRYPTED_OVERHEAD);
            assert!(is_encrypted(&sealed));
            assert_eq!(key_id_of(&sealed), Some(keys.current().id()));
            assert_eq!(keys.decrypt(&sealed, b"reject").expect("decrypted"), text);
            assert_eq!(keys.decrypt(&sealed, b"log"), Err(CipherError::Forged));
            assert_ne!(keys.encrypt(text, b"reject").expect("encrypted"), sealed);
        }
    }

    #[test]
    fn a_rotated_key_still_decrypts() {
        let old = keys();
        let sealed = old.encrypt(b"text", b"").expect("encrypted");
        let new = Key::generate().expect("a key");
        let with_old = Keys::new(new.clone(), vec![old.current().clone()]).expect("keys");
        assert_eq!(with_old.decrypt(&sealed, b"").expect("decrypted"), b"text");
        let without = Keys::new(new, Vec::new()).expect("keys");
        assert_eq!(without.decrypt(&sealed, b""), Err(CipherError::UnknownKey(old.current().id())));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_found() {
        let keys = keys();
        let sealed = keys.encrypt(b"the clear text", b"reject").expect("encrypted");
        for at in 0..sealed.len() {
            assert!(keys.decrypt(&sealed[..at], b"reject").is_err(), "cut at {at}");
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(keys.decrypt(&changed, b"reject").is_err(), "changed at {at}");
        }
        assert!(keys.decrypt(&[&sealed[..], b"x"].concat(), b"reject").is_err());
    }
}
