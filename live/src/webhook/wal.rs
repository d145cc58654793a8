//! The write-ahead log, in which every acknowledged batch is durable, and from which it is read
//! once, in order.
//!
//! Terms: a *batch* is the content of one request; it becomes one *record* of a *segment*, which is
//! a file. Batches that arrive while the disk is busy form a *group*: they are written together,
//! synced once, and acknowledged together. An *offset of the log* counts bytes of records over all
//! segments, from the start of the log. A segment is named after the offset of its first record.
//! Each cluster has its own stream (a partition): the texts of its records, one after the other.
//!
//! What is stored where:
//! - `lock`: held by the process that uses the folder.
//! - `id`: chosen at random when the folder is created. The names of the log's partitions contain
//!   it, so a new folder has new streams, and never continues the positions that an archive has
//!   from an older folder.
//! - `<20 digits>.log`: a segment, as in [`super::record`].
//! - `<20 digits>.keys`: the keys of the acknowledged batches of a deleted segment, while these
//!   batches are remembered.
//!
//! Why it is hard: a process can be killed, and a machine can stop, between any two writes; a disk
//! can fill and be emptied, or fail a sync and then report success; and one damaged byte must
//! neither pass as the end of the log nor hide what follows it. The design that this forces:
//! - One group is written at a time, and the next one is written only after the sync of the first.
//!   So if the log ends in broken bytes, they belong to the last group, which was being written. No
//!   batch of that group was acknowledged, and the broken bytes are cut off. If a record of a
//!   *later* group follows the broken bytes, they were durable once. They are then damage: the
//!   reader reports it with file and byte, and all bytes are kept.
//! - After a failed write or sync, the end of the file is unknown. So the segment is closed, and it
//!   ends where the group began. The next group starts a new segment, named after the last durable
//!   offset. Bytes of the old segment after that offset are cut off if the disk allows it, and are
//!   never read in any case. The senders of the group get an error, and send their batches again.
//! - Under a redaction policy the texts of new segments are encrypted. All texts of a segment are
//!   encrypted, or none. An encrypted segment can be read only with its key.
//! - The head of a segment has the position of each stream at the segment's beginning, so deleting
//!   earlier segments loses no position. The newest segment is never deleted.
//!
//! Crashes: before the sync returns, the group may be whole, partial or missing; it was not
//! acknowledged. A whole group is kept and remembered, so that sending it again does not store it
//! twice. Between the creation of a segment and its first durable group, the file has at most a
//! head, and is overwritten. Between writing a `.keys` file and deleting its segment, both exist
//! and have the same keys.

mod recovery;
mod stored;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Receiver;
use strongroom_archive::fingerprint::{Fingerprint, LineChain};
use strongroom_journal::{
    Folder, JournalError, cannot_read, cannot_write, checksum, create, lock, now_ms, numbered, sync_folder,
    write_whole,
};
use strongroom_redact::CipherError;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, watch};

use self::recovery::{finish_recovery, hex, load_keys, read_or_make_id, recover};
use self::stored::{clear_text, for_each_head};
pub use self::stored::{read_head, read_text};
use super::cipher::TextCipher;
use super::counters::WebhookCounters;
use super::recent::{Outcome, Recent};
use super::record::{End, Key, PARTITIONS_MAX, RECORD_HEAD_BYTES, RecordHead, SegmentHead};
use super::refused::Refused;

/// A segment is full at this length, or at an eighth of the log's maximum size if that is less.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Maximum number of batches in one group.
const GROUP_BATCHES_MAX: usize = 256;
/// Size at which a group takes no further batch.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// Maximum number of keys in a `.keys` file. A segment has fewer batches, unless they are tiny.
const KEYS_MAX: usize = 1 << 20;
const KEYS_MAGIC: &[u8; 8] = b"SRKEYS\0\x01";
const KEY_BYTES: usize = 40;

#[derive(Debug, Error)]
pub enum WalError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is missing or is not 32 hexadecimal digits, but its folder contains segments", path.display())]
    Id { path: PathBuf },
    #[error("{} is damaged at byte {byte}: {what}", path.display())]
    Damaged { path: PathBuf, byte: u64, what: &'static str },
    #[error("{} is encrypted, and no redaction policy gives its key", path.display())]
    NoKey { path: PathBuf },
    #[error("{} cannot be decrypted at byte {byte}", path.display())]
    Decrypt {
        path: PathBuf,
        byte: u64,
        #[source]
        source: CipherError,
    },
    #[error("a batch for {} cannot be encrypted", path.display())]
    Encrypt {
        path: PathBuf,
        #[source]
        source: CipherError,
    },
    #[error("the write-ahead log in {} has more than {PARTITIONS_MAX} clusters", path.display())]
    TooManyClusters { path: PathBuf },
}

/// The lines of one request, to be written to the log.
#[derive(Debug)]
pub struct Batch {
    pub cluster: Arc<str>,
    pub key: Key,
    pub text: Vec<u8>,
    pub text_checksum: Fingerprint,
    pub lines: u32,
    pub received: u64,
    pub outcome: watch::Sender<Outcome>,
    /// The batch's permit for memory, until the batch is dropped.
    pub _room: Option<OwnedSemaphorePermit>,
}

impl Batch {
    fn record_bytes(&self) -> u64 {
        (RECORD_HEAD_BYTES + self.cluster.len() + self.text.len()) as u64
    }
}

#[derive(Clone, Debug)]
pub struct WalOptions {
    pub folder: PathBuf,
    /// Maximum size of all segments together, in bytes.
    pub bytes_max: u64,
    /// Bytes to leave free on the disk.
    pub disk_free_bytes_min: u64,
    pub remembered_max: usize,
    pub remembered_for: Duration,
    /// Encrypts the texts.
    pub cipher: TextCipher,
}

/// A file of the log, at least one of whose records is durable.
#[derive(Clone, Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub start: u64,
    pub head_bytes: u64,
    /// Whether its texts are encrypted.
    pub is_encrypted: bool,
    /// The positions of the streams at the segment's beginning.
    pub begins: Arc<BTreeMap<String, End>>,
}

impl Segment {
    /// Returns the position in the file of an offset of the log.
    pub fn byte(&self, offset: u64) -> u64 {
        self.head_bytes + (offset - self.start)
    }

    pub fn begin_of(&self, cluster: &str) -> u64 {
        self.begins.get(cluster).map_or(0, |end| end.offset)
    }
}

#[derive(Debug)]
struct State {
    segments: VecDeque<Segment>,
    /// The offset up to which the log is durable.
    end: u64,
    clusters: BTreeMap<String, End>,
    /// Number of bytes that the log has on disk.
    bytes: u64,
    trouble: Option<String>,
    is_full: bool,
}

/// The state that the writer, the reader and the listener share.
#[derive(Debug)]
pub struct Wal {
    pub id: String,
    id_bytes: [u8; 16],
    options: WalOptions,
    state: Mutex<State>,
    grown: Condvar,
    pub recent: Mutex<Recent>,
    /// The `.keys` files, each with the time of its newest key.
    key_files: Mutex<VecDeque<(PathBuf, u64)>>,
    pub counters: Arc<WebhookCounters>,
    folder: Folder,
}

impl Wal {
    /// Opens a folder, or creates it; cuts off the group that was being written when the last
    /// process ended.
    pub fn open(options: WalOptions, counters: Arc<WebhookCounters>) -> Result<(Arc<Wal>, Writer), WalError> {
        let folder = Folder::open(&options.folder)?;
        let files = numbered(folder.path(), "log")?;
        let id_bytes = read_or_make_id(folder.path(), files.is_empty())?;

        let mut recent = Recent::new(options.remembered_max, options.remembered_for);
        let key_files = load_keys(folder.path(), &mut recent)?;
        let mut state = State {
            segments: VecDeque::new(),
            end: 0,
            clusters: BTreeMap::new(),
            bytes: 0,
            trouble: None,
            is_full: false,
        };
        let mut unfinished = None;
        for (at, (start, path)) in files.iter().enumerate() {
            if !recover(&mut state, &mut recent, *start, path, &id_bytes, &options.cipher)? {
                // A segment without a head was being created, so it must be the newest.
                if at + 1 < files.len() {
                    return Err(WalError::Damaged {
                        path: path.clone(),
                        byte: 0,
                        what: "its head is not valid",
                    });
                }
                unfinished = Some(*start);
            }
        }
        finish_recovery(&mut state, &mut recent, unfinished.unwrap_or(0), &options.cipher)?;
        if let (Some(_), Some((_, path))) = (unfinished, files.last()) {
            std::fs::remove_file(path).map_err(cannot_write(path))?;
        }
        counters.wal_bytes.store(state.bytes, Ordering::Relaxed);
        counters.wal_segments.store(state.segments.len() as u64, Ordering::Relaxed);
        let wal = Arc::new(Wal {
            id: hex(&id_bytes),
            id_bytes,
            options,
            state: Mutex::new(state),
            grown: Condvar::new(),
            recent: Mutex::new(recent),
            key_files: Mutex::new(key_files),
            counters,
            folder,
        });
        Ok((Arc::clone(&wal), Writer { wal, open: None }))
    }

    /// Returns the clear text of a record that was read from `segment`.
    pub fn clear_text(&self, segment: &Segment, written: Vec<u8>, byte: u64) -> Result<Vec<u8>, WalError> {
        clear_text(&self.options.cipher, segment.is_encrypted, written, &segment.path, byte)
    }

    /// Returns the positions of the clusters' streams.
    pub fn clusters(&self) -> BTreeMap<String, End> {
        lock(&self.state).clusters.clone()
    }

    /// Returns why batches are refused now, if they are.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.state).trouble.clone()
    }

    /// Waits until the durable end is beyond `offset`, for at most `wait`. Returns the durable end.
    pub fn wait_beyond(&self, offset: u64, wait: Duration) -> u64 {
        let state = lock(&self.state);
        let waited = self.grown.wait_timeout_while(state, wait, |state| state.end <= offset);
        waited.unwrap_or_else(PoisonError::into_inner).0.end
    }

    /// Returns the segments and the durable end.
    pub fn segments(&self) -> (Vec<Segment>, u64) {
        let state = lock(&self.state);
        (state.segments.iter().cloned().collect(), state.end)
    }

    /// Returns the segment with the record at `offset`, and the end of its durable records.
    pub fn segment_at(&self, offset: u64) -> Option<(Segment, u64)> {
        let state = lock(&self.state);
        let after = state.segments.partition_point(|segment| segment.start <= offset);
        let segment = state.segments.get(after.checked_sub(1)?)?.clone();
        let end = state.segments.get(after).map_or(state.end, |next| next.start);
        (offset < end).then_some((segment, end))
    }

    /// Deletes the oldest segments whose text is sealed. `sealed(cluster)` returns the offset up to
    /// which the cluster's text is sealed.
    pub fn trim(&self, sealed: impl Fn(&str) -> Option<u64>) -> Result<(), WalError> {
        loop {
            let (first, next) = {
                let state = lock(&self.state);
                let (Some(first), Some(next)) = (state.segments.front(), state.segments.get(1)) else {
                    break;
                };
                (first.clone(), next.clone())
            };
            let needed = next.begins.iter().any(|(cluster, end)| {
                end.offset > first.begin_of(cluster) && sealed(cluster).is_none_or(|to| to < end.offset)
            });
            if needed {
                break;
            }
            self.keep_keys(&first, next.start)?;
            let bytes = std::fs::metadata(&first.path).map_or(0, |metadata| metadata.len());
            std::fs::remove_file(&first.path).map_err(cannot_write(&first.path))?;
            let mut state = lock(&self.state);
            state.segments.pop_front();
            state.bytes = state.bytes.saturating_sub(bytes);
            if state.is_full {
                state.is_full = false;
                state.trouble = None;
            }
            self.counters.wal_bytes.store(state.bytes, Ordering::Relaxed);
            self.counters.wal_segments.store(state.segments.len() as u64, Ordering::Relaxed);
        }
        let now = now_ms();
        let mut files = lock(&self.key_files);
        while let Some((path, newest)) = files.front() {
            if lock(&self.recent).remembers(*newest, now) {
                break;
            }
            std::fs::remove_file(path).map_err(cannot_write(path))?;
            files.pop_front();
        }
        Ok(())
    }

    /// Stores the keys of the batches acknowledged in a segment, before it is deleted.
    fn keep_keys(&self, segment: &Segment, end: u64) -> Result<(), WalError> {
        let (now, mut newest) = (now_ms(), 0);
        let mut out = KEYS_MAGIC.to_vec();
        let file = File::open(&segment.path).map_err(cannot_read(&segment.path))?;
        // If the machine stopped just after the deletion of this segment, the segment may have come
        // back without its end.
        let length = file.metadata().map_err(cannot_read(&segment.path))?.len();
        for_each_head(&file, segment.head_bytes, segment.byte(end).min(length), |head| {
            if out.len() < KEYS_MAX * KEY_BYTES && lock(&self.recent).remembers(head.received, now) {
                out.extend_from_slice(&head.key);
                out.extend_from_slice(&head.received.to_le_bytes());
                newest = newest.max(head.received);
            }
        })
        .map_err(cannot_read(&segment.path))?;
        if newest == 0 {
            return Ok(());
        }
        let sum = checksum(&[&out]);
        out.extend_from_slice(&sum);
        let path = segment.path.with_extension("keys");
        write_whole(&path, &out)?;
        lock(&self.key_files).push_back((path, newest));
        Ok(())
    }

    fn fail(&self, trouble: String, is_full: bool) {
        let mut state = lock(&self.state);
        if state.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(%trouble, "the webhook's write-ahead log is not accepting writes");
            state.trouble = Some(trouble);
        }
        state.is_full = is_full;
    }

    fn recovered(&self) {
        let mut state = lock(&self.state);
        if state.trouble.take().is_some() {
            tracing::info!("the webhook's write-ahead log is accepting writes again");
        }
        state.is_full = false;
    }

    /// Returns why the log has no room for `bytes` more bytes; `None` if it has room.
    fn no_room(&self, bytes: u64) -> Option<String> {
        let (held, max, folder) =
            (lock(&self.state).bytes, self.options.bytes_max, self.options.folder.display());
        if held + bytes > max {
            return Some(format!("the write-ahead log {folder} is full: its bound is {max} bytes"));
        }
        // If the disk does not report its free space, a full disk shows as a failed write.
        let disk = rustix::fs::statvfs(&self.options.folder).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let low = free < self.options.disk_free_bytes_min.saturating_add(bytes);
        low.then(|| format!("the disk of {folder} is almost full"))
    }
}

/// Makes batches durable. A log has one writer.
#[derive(Debug)]
pub struct Writer {
    wal: Arc<Wal>,
    open: Option<OpenSegment>,
}

#[derive(Debug)]
struct OpenSegment {
    file: File,
    path: PathBuf,
    /// Number of durable bytes in the file.
    bytes: u64,
    /// The segment, until its first group is durable and it is added to the log's segments.
    new: Option<Segment>,
}

impl Writer {
    /// Writes batches until all senders are gone.
    pub fn run(mut self, batches: &Receiver<Batch>) {
        while let Ok(first) = batches.recv() {
            let mut group = vec![first];
            let mut bytes = group[0].text.len();
            while group.len() < GROUP_BATCHES_MAX && bytes < GROUP_BYTES_MAX {
                let Ok(batch) = batches.try_recv() else { break };
                bytes += batch.text.len();
                group.push(batch);
            }
            self.take(group);
        }
    }

    /// Stores the batches of a group that have room, and reports the outcome to the sender of each
    /// batch.
    fn take(&mut self, group: Vec<Batch>) {
        let (mut bytes, mut no_room) = (0, None);
        let (group, refused): (Vec<Batch>, Vec<Batch>) = group.into_iter().partition(|batch| {
            let with = bytes + batch.record_bytes() + self.wal.options.cipher.overhead();
            match self.wal.no_room(with) {
                None => bytes = with,
                why => no_room = why,
            }
            bytes == with
        });
        let settle = |batch: Batch, outcome: Result<(), Refused>| {
            lock(&self.wal.recent).settle(batch.key, outcome.is_ok(), batch.received);
            batch.outcome.send_replace(Some(outcome));
        };
        let written = match group.is_empty() {
            true => Ok(()),
            false => write_group(&self.wal, &mut self.open, &group),
        };
        let outcome = match written {
            Ok(()) => {
                match no_room {
                    Some(why) => self.wal.fail(why, true),
                    None => self.wal.recovered(),
                }
                Ok(())
            }
            Err(error) => {
                // The bytes after the durable end are unknown. They are never read, and are cut off
                // if possible.
                if let Some(open) = self.open.take() {
                    let _ = open.file.set_len(open.bytes);
                }
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                self.wal.fail(format!("{error}{}", cause.unwrap_or_default()), false);
                Err(Refused::Failed)
            }
        };
        for batch in refused {
            settle(batch, Err(Refused::Full));
        }
        for batch in group {
            settle(batch, outcome);
        }
    }
}

/// Writes and syncs a group. If this fails, the segment must not be used again.
fn write_group(wal: &Wal, open: &mut Option<OpenSegment>, group: &[Batch]) -> Result<(), WalError> {
    let segment_bytes = SEGMENT_BYTES.min(wal.options.bytes_max / 8);
    if open.as_ref().is_some_and(|open| open.bytes >= segment_bytes) {
        *open = None;
    }
    let (group_at, clusters) = {
        let state = lock(&wal.state);
        (state.end, state.clusters.clone())
    };
    let open = match open {
        Some(open) => open,
        None => open.insert(begin_segment(wal, group_at, clusters.clone())?),
    };
    let mut ends: HashMap<&str, End> = HashMap::new();
    let mut bytes = 0;
    for batch in group {
        let begins = ends
            .entry(&batch.cluster)
            .or_insert_with(|| clusters.get(batch.cluster.as_ref()).copied().unwrap_or_default());
        let cipher = &wal.options.cipher;
        let written = cipher
            .written(&batch.text)
            .map_err(|source| WalError::Encrypt { path: open.path.clone(), source })?;
        let text_checksum = if cipher.is_on() { checksum(&[&written]) } else { batch.text_checksum };
        let head = RecordHead {
            text_bytes: u32::try_from(written.len()).unwrap_or(u32::MAX),
            lines: batch.lines,
            group: group_at,
            received: batch.received,
            begins: *begins,
            key: batch.key,
            text_checksum,
            name: batch.cluster.to_string(),
        };
        open.file
            .write_all(&head.to_bytes())
            .and_then(|()| open.file.write_all(&written))
            .map_err(cannot_write(&open.path))?;
        bytes += head.record_bytes();
        *begins = after_text(*begins, &batch.text, batch.lines);
    }
    open.file.sync_data().map_err(cannot_write(&open.path))?;
    if open.new.is_some() {
        sync_folder(wal.folder.path())?;
    }

    let mut state = lock(&wal.state);
    if let Some(segment) = open.new.take() {
        state.bytes += segment.head_bytes;
        state.segments.push_back(segment);
    }
    open.bytes += bytes;
    state.bytes += bytes;
    state.end += bytes;
    for (cluster, end) in ends {
        state.clusters.insert(cluster.to_owned(), end);
    }
    wal.counters.wal_bytes.store(state.bytes, Ordering::Relaxed);
    wal.counters.wal_segments.store(state.segments.len() as u64, Ordering::Relaxed);
    wal.counters.wal_syncs.fetch_add(1, Ordering::Relaxed);
    drop(state);
    wal.grown.notify_all();
    Ok(())
}

fn begin_segment(wal: &Wal, start: u64, clusters: BTreeMap<String, End>) -> Result<OpenSegment, WalError> {
    let path = wal.folder.file(start, "log");
    let is_encrypted = wal.options.cipher.is_on();
    let partitions = clusters.clone().into_iter().collect();
    let head = SegmentHead { is_encrypted, id: wal.id_bytes, start, partitions };
    let bytes = head.to_bytes();
    let mut file = create(&path).map_err(cannot_write(&path))?;
    file.write_all(&bytes).map_err(cannot_write(&path))?;
    let head_bytes = bytes.len() as u64;
    let new = Segment { path: path.clone(), start, head_bytes, is_encrypted, begins: Arc::new(clusters) };
    Ok(OpenSegment { file, path, bytes: head_bytes, new: Some(new) })
}

/// Returns the position of a stream after a text that begins at `begins`.
fn after_text(begins: End, text: &[u8], lines: u32) -> End {
    let mut chain = LineChain::from(begins.chain);
    chain.update(text);
    End {
        offset: begins.offset + text.len() as u64,
        lines: begins.lines + u64::from(lines),
        // A text ends with a newline.
        chain: chain.value().unwrap_or_default(),
    }
}
