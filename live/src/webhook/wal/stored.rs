//! Reads records of the log back from a segment.
//!
//! Invariants:
//! - A text is returned only if it is undamaged.
//! - The texts of an encrypted segment are returned only in clear. If their key is missing, or if
//!   they are not authentic, an error is returned, and no text is skipped.
//!
//! This module writes nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use strongroom_journal::{Reader, Record, cannot_read, checksum};

use super::WalError;
use crate::webhook::cipher::TextCipher;
use crate::webhook::record::{NAME_BYTES_MAX, RECORD_HEAD_BYTES, RECORD_MAGIC, RecordHead};

pub fn read_at(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Returns the head of the record at `at`, if the record ends before `limit`.
pub fn read_head(file: &File, at: u64, limit: u64) -> io::Result<Option<RecordHead>> {
    let left = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
    let bytes = read_at(file, at, left.min(RECORD_HEAD_BYTES + NAME_BYTES_MAX))?;
    Ok(RecordHead::parse(&bytes).filter(|head| at + head.record_bytes() <= limit))
}

/// Returns the text of a record, if it is undamaged.
pub fn read_text(file: &File, at: u64, head: &RecordHead) -> io::Result<Option<Vec<u8>>> {
    let text = read_at(file, at + head.text_at(), head.text_bytes as usize)?;
    Ok((checksum(&[&text]) == head.text_checksum).then_some(text))
}

/// A record of the log: one batch, whole and undamaged.
pub struct StoredBatch {
    pub head: RecordHead,
    pub text: Vec<u8>,
}

impl Record for StoredBatch {
    const MAGIC: &'static [u8] = RECORD_MAGIC;

    fn read(reader: &mut Reader, at: u64) -> io::Result<Option<(StoredBatch, u64)>> {
        // Texts are long, so they are read directly, not in the reader's blocks.
        let Some(head) = read_head(reader.file(), at, reader.limit())? else { return Ok(None) };
        let text = read_text(reader.file(), at, &head)?;
        Ok(text.map(|text| {
            let bytes = head.record_bytes();
            (StoredBatch { head, text }, bytes)
        }))
    }
}

/// Reads heads in order, up to `limit` or the first byte that is not a head.
pub fn for_each_head(
    file: &File,
    mut at: u64,
    limit: u64,
    mut each: impl FnMut(&RecordHead),
) -> io::Result<()> {
    while at < limit {
        let Some(head) = read_head(file, at, limit)? else { break };
        each(&head);
        at += head.record_bytes();
    }
    Ok(())
}

/// Checks, with the first record of an encrypted segment, that its texts can be decrypted. Damage
/// of the record is reported by the reader.
pub fn check_key(
    file: &File,
    path: &Path,
    at: u64,
    length: u64,
    cipher: &TextCipher,
) -> Result<(), WalError> {
    if !cipher.is_on() {
        return Err(WalError::NoKey { path: path.to_owned() });
    }
    let Some(head) = read_head(file, at, length).map_err(cannot_read(path))? else { return Ok(()) };
    let Some(written) = read_text(file, at, &head).map_err(cannot_read(path))? else { return Ok(()) };
    clear_text(cipher, true, written, path, at + head.text_at()).map(drop)
}

/// Returns the clear text of a text that was read.
pub fn clear_text(
    cipher: &TextCipher,
    is_encrypted: bool,
    written: Vec<u8>,
    path: &Path,
    byte: u64,
) -> Result<Vec<u8>, WalError> {
    if !is_encrypted {
        return Ok(written);
    }
    let clear = cipher.read(&written).ok_or_else(|| WalError::NoKey { path: path.to_owned() })?;
    clear.map_err(|source| WalError::Decrypt { path: path.to_owned(), byte, source })
}
