//! Encrypts the texts of the write-ahead log if there is a redaction policy.
//!
//! Invariant: under a policy no text reaches the disk in clear. A log can be read with the key
//! under which it was written, whether that key is current or old. Without the key the whole log is
//! refused with an explanation; no part of it is skipped. No state.

use std::borrow::Cow;
use std::sync::Arc;

use strongroom_redact::{CONTEXT_WAL, CipherError, ENCRYPTED_OVERHEAD, Redactor};

/// The redactor whose key encrypts the texts of a log; `None` if they are written in clear.
#[derive(Clone, Debug, Default)]
pub struct TextCipher(pub Option<Arc<Redactor>>);

impl TextCipher {
    /// Whether new texts are encrypted.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the number of bytes by which a text grows when it is written to disk.
    pub fn overhead(&self) -> u64 {
        if self.is_on() { ENCRYPTED_OVERHEAD as u64 } else { 0 }
    }

    /// Returns a text in the form in which it is written to disk.
    pub fn written<'t>(&self, text: &'t [u8]) -> Result<Cow<'t, [u8]>, CipherError> {
        match &self.0 {
            Some(redactor) => redactor.encrypt(text, CONTEXT_WAL).map(Cow::Owned),
            None => Ok(Cow::Borrowed(text)),
        }
    }

    /// Decrypts a text from the disk. Returns `None` if there is no key at all.
    pub fn read(&self, written: &[u8]) -> Option<Result<Vec<u8>, CipherError>> {
        Some(self.0.as_ref()?.decrypt(written, CONTEXT_WAL))
    }
}

/// Returns the length of the clear text that takes `written` bytes on disk.
pub fn clear_bytes(is_encrypted: bool, written: u32) -> u64 {
    let overhead = if is_encrypted { ENCRYPTED_OVERHEAD as u64 } else { 0 };
    u64::from(written).saturating_sub(overhead)
}
