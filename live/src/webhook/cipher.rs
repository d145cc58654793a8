//! Encrypts the texts of the write-ahead log, under a redaction policy.
//!
//! Invariant: under a policy no text reaches the disk in clear. A log can be read with the key that
//! it was written under, current or old; without it the log is refused with an explanation, and
//! nothing of it is skipped. No state.

use std::borrow::Cow;
use std::sync::Arc;

use strongroom_redact::{CONTEXT_WAL, CipherError, ENCRYPTED_OVERHEAD, Redactor};

/// The key of a log, if it has one.
#[derive(Clone, Debug, Default)]
pub struct TextCipher(pub Option<Arc<Redactor>>);

impl TextCipher {
    /// Whether texts are encrypted from now on.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Bytes that a text takes on disk beyond its own.
    pub fn overhead(&self) -> u64 {
        if self.is_on() { ENCRYPTED_OVERHEAD as u64 } else { 0 }
    }

    /// Returns a text as it is written.
    pub fn written<'t>(&self, text: &'t [u8]) -> Result<Cow<'t, [u8]>, CipherError> {
        match &self.0 {
            Some(redactor) => redactor.encrypt(text, CONTEXT_WAL).map(Cow::Owned),
            None => Ok(Cow::Borrowed(text)),
        }
    }

    /// Returns an encrypted text in clear; `None` if there is no key at all.
    pub fn read(&self, written: &[u8]) -> Option<Result<Vec<u8>, CipherError>> {
        Some(self.0.as_ref()?.decrypt(written, CONTEXT_WAL))
    }
}

/// Returns the length in clear of a text that takes `written` bytes on disk.
pub fn clear_bytes(is_encrypted: bool, written: u32) -> u64 {
    let overhead = if is_encrypted { ENCRYPTED_OVERHEAD as u64 } else { 0 };
    u64::from(written).saturating_sub(overhead)
}
