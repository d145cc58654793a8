//! Encrypts the texts of the write-ahead log, under a redaction policy.
//!
//! Invariant: under a policy no text reaches the disk in clear. A log can be read with the key that
//! it was written under, current or old; without it the log is refused with an explanation, and
//! nothing of it is skipped. No state.

use std::borrow::Cow;
use std::sync::Arc;

use strongroom_redact::{CipherError, Redactor};

/// What is encrypted as a text of the log is bound to this use.
const CONTEXT: &[u8] = b"wal";

/// The key of a log, if it has one.
#[derive(Clone, Debug, Default)]
pub struct TextCipher {
    redactor: Option<Arc<Redactor>>,
    /// Bytes by which an encrypted text is longer.
    overhead: u64,
}

impl TextCipher {
    pub fn new(redactor: Option<Arc<Redactor>>) -> Result<TextCipher, CipherError> {
        let overhead = match &redactor {
            Some(redactor) => redactor.encrypt(&[], CONTEXT)?.len() as u64,
            None => 0,
        };
        Ok(TextCipher { redactor, overhead })
    }

    /// Whether texts are encrypted from now on.
    pub fn is_on(&self) -> bool {
        self.redactor.is_some()
    }

    /// Bytes that a text takes on disk beyond its own.
    pub fn overhead(&self) -> u64 {
        self.overhead
    }

    /// Returns a text as it is written.
    pub fn written<'t>(&self, text: &'t [u8]) -> Result<Cow<'t, [u8]>, CipherError> {
        match &self.redactor {
            Some(redactor) => redactor.encrypt(text, CONTEXT).map(Cow::Owned),
            None => Ok(Cow::Borrowed(text)),
        }
    }

    /// Returns an encrypted text in clear; `None` if there is no key at all.
    pub fn read(&self, written: &[u8]) -> Option<Result<Vec<u8>, CipherError>> {
        Some(self.redactor.as_ref()?.decrypt(written, CONTEXT))
    }

    /// Returns the length in clear of a text that takes `written` bytes on disk.
    pub fn clear_bytes(&self, is_encrypted: bool, written: u32) -> u64 {
        u64::from(written).saturating_sub(if is_encrypted { self.overhead } else { 0 })
    }
}
