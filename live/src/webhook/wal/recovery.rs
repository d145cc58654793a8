//! Reads what a folder has after a crash: its id, its segments, and the keys of its batches.
//!
//! Invariants:
//! - Only the group that was being written is cut off, and none of it was acknowledged. Damage
//!   anywhere else is an error, or is left for the reader to report.
//! - If a segment cannot be decrypted, an error is returned before anything is cut off.
//!
//! After a crash in this code, the next process does the same again, with the same result.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom_journal::{
    Found, JournalError, Reader, cannot_read, checksum, end_at, find, now_ms, numbered, scan, write_whole,
};

use super::stored::{StoredBatch, check_key, clear_text, for_each_head, read_at};
use super::{KEY_BYTES, KEYS_MAGIC, Segment, State, WalError, after_text};
use crate::webhook::cipher::TextCipher;
use crate::webhook::recent::Recent;
use crate::webhook::record::{End, SEGMENT_HEAD_BYTES_MAX, SegmentHead};

/// Adds one segment, in order. Returns `false` if the segment has neither a head nor a record.
pub fn recover(
    state: &mut State,
    recent: &mut Recent,
    start: u64,
    path: &Path,
    id: &[u8; 16],
    cipher: &TextCipher,
) -> Result<bool, WalError> {
    let file = File::open(path).map_err(cannot_read(path))?;
    let length = file.metadata().map_err(cannot_read(path))?.len();
    let head = read_at(&file, 0, SEGMENT_HEAD_BYTES_MAX.min(length as usize)).map_err(cannot_read(path))?;
    let damaged = |byte, what| WalError::Damaged { path: path.to_owned(), byte, what };
    let Some((head, head_bytes)) = SegmentHead::parse(&head) else {
        let any = find(&mut Reader::new(file, length), 0, |_: &StoredBatch| true);
        if any.map_err(cannot_read(path))?.is_some() {
            return Err(damaged(0, "its head is not valid, but records follow"));
        }
        return Ok(false);
    };
    if head.id != *id {
        return Err(damaged(0, "it belongs to another log"));
    }
    if head.start != start || state.segments.back().is_some_and(|before| before.start >= start) {
        return Err(damaged(0, "its name is not the offset of its first record"));
    }
    if head.is_encrypted {
        check_key(&file, path, head_bytes as u64, length, cipher)?;
    }
    // The durable bytes of the previous segment end where this segment begins.
    if let Some(before) = state.segments.back() {
        close(state.bytes, before, start, recent).map(|bytes| state.bytes = bytes)?;
    }
    let begins: BTreeMap<String, End> = head.partitions.into_iter().collect();
    state.clusters = begins.clone();
    state.end = start;
    state.segments.push_back(Segment {
        path: path.to_owned(),
        start,
        head_bytes: head_bytes as u64,
        is_encrypted: head.is_encrypted,
        begins: Arc::new(begins),
    });
    Ok(true)
}

/// Remembers the keys of a segment that is not the last one. Damage in the segment is reported by
/// the reader.
fn close(bytes: u64, segment: &Segment, end: u64, recent: &mut Recent) -> Result<u64, WalError> {
    let file = File::open(&segment.path).map_err(cannot_read(&segment.path))?;
    let length = file.metadata().map_err(cannot_read(&segment.path))?.len();
    let now = now_ms();
    for_each_head(&file, segment.head_bytes, segment.byte(end).min(length), |head| {
        if recent.remembers(head.received, now) {
            recent.remember(head.key, head.received);
        }
    })
    .map_err(cannot_read(&segment.path))?;
    Ok(bytes + length)
}

/// Reads the last segment to its end, and cuts off the group that was being written. The segment
/// must have records up to `end_min`, because the next segment was started there.
pub fn finish_recovery(
    state: &mut State,
    recent: &mut Recent,
    end_min: u64,
    cipher: &TextCipher,
) -> Result<(), WalError> {
    let Some(segment) = state.segments.back().cloned() else { return Ok(()) };
    let path = &segment.path;
    let mut reader = Reader::open(path).map_err(cannot_read(path))?;
    let now = now_ms();
    let offset = |at: u64| segment.start + (at - segment.head_bytes);
    // A record of a later group proves that the bytes before it were durable.
    let proves = |at: u64, later: &StoredBatch| later.head.group > offset(at);
    let mut unread = None;
    let at = scan(&mut reader, segment.head_bytes, proves, |found| match found {
        Found::Damage { at, .. } => {
            tracing::error!(file = %path.display(), byte = at, "the write-ahead log is damaged");
        }
        Found::Record(StoredBatch { head, text }) => {
            let text = match clear_text(cipher, segment.is_encrypted, text, path, 0) {
                Ok(text) => text,
                Err(error) => {
                    unread.get_or_insert(error);
                    return;
                }
            };
            state.clusters.insert(head.name.clone(), after_text(head.begins, &text, head.lines));
            if recent.remembers(head.received, now) {
                recent.remember(head.key, head.received);
            }
        }
    })
    .map_err(cannot_read(path))?;
    if let Some(error) = unread {
        return Err(error);
    }
    let length = reader.limit();
    if offset(at) < end_min {
        let what = "no record, but another segment was started after it";
        return Err(WalError::Damaged { path: path.clone(), byte: at, what });
    }
    if at < length {
        tracing::info!(file = %path.display(), bytes = length - at, "cut off bytes that were not acknowledged");
    }
    // Records that the last process wrote but did not sync are kept, so they are made durable now.
    end_at(path, at)?;
    state.end = offset(at);
    state.bytes += at;
    if state.end == segment.start {
        // A segment without a record is overwritten by the next group; the positions in its head
        // are in `clusters`.
        state.segments.pop_back();
        state.bytes -= at;
    }
    Ok(())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn read_or_make_id(folder: &Path, may_make: bool) -> Result<[u8; 16], WalError> {
    let path = folder.join("id");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_make => {
            let mut id = [0; 16];
            getrandom::fill(&mut id)
                .map_err(|error| JournalError::Write { path: path.clone(), source: error.into() })?;
            write_whole(&path, format!("{}\n", hex(&id)).as_bytes())?;
            return Ok(id);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(WalError::Id { path }),
        Err(source) => return Err(WalError::Read { path, source }),
    };
    let digits = text.trim_end();
    let sound = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match u128::from_str_radix(digits, 16) {
        Ok(number) if sound => Ok(number.to_be_bytes()),
        _ => Err(WalError::Id { path }),
    }
}

/// Remembers the batches that earlier processes acknowledged. A damaged file is skipped; then
/// batches of that file may be stored twice, but nothing is lost.
pub fn load_keys(folder: &Path, recent: &mut Recent) -> Result<VecDeque<(PathBuf, u64)>, WalError> {
    let mut files = VecDeque::new();
    let now = now_ms();
    for (_, path) in numbered(folder, "keys")? {
        let bytes = std::fs::read(&path).map_err(cannot_read(&path))?;
        let keys = bytes
            .split_last_chunk::<16>()
            .filter(|(content, sum)| checksum(&[content]) == **sum)
            .and_then(|(content, _)| content.strip_prefix(KEYS_MAGIC));
        let Some(keys) = keys else {
            tracing::warn!(file = %path.display(), "damaged: batches that are sent again may be stored twice");
            files.push_back((path, 0));
            continue;
        };
        let mut newest = 0;
        for entry in keys.chunks_exact(KEY_BYTES) {
            if let (Some(key), Some(received)) = (entry.first_chunk(), entry.last_chunk()) {
                let received = u64::from_le_bytes(*received);
                newest = newest.max(received);
                if recent.remembers(received, now) {
                    recent.remember(*key, received);
                }
            }
        }
        files.push_back((path, newest));
    }
    Ok(files)
}
