//! The write-ahead log: what is acknowledged is durable, and is read once, in order.
//!
//! Terms: a *batch* is what one request brought; it becomes one *record* of a *segment*, a file. Batches
//! that come while the disk is busy are a *group*: written together, synced once, acknowledged together. An
//! *offset of the log* counts bytes of records over all segments, from the folder's beginning; a segment is
//! named after the offset of its first record. Each cluster has a stream of its own (a partition), which is
//! its records' texts one behind the other.
//!
//! What is stored where:
//! - `lock`: held by the process that uses the folder.
//! - `id`: made with the folder, at random. It is part of the partitions' names, so a new folder has new streams,
//!   and never goes on with what an archive knows of an older one.
//! - `<20 digits>.log`: a segment, as in [`super::record`].
//! - `<20 digits>.keys`: what was acknowledged in a segment that is gone, as long as it is remembered.
//!
//! Why it is hard: a process can be killed, and a machine can stop, between any two writes; a disk can fill and
//! be emptied, or fail a sync and then claim that all is well; and one damaged byte must neither pass as the
//! end of the log nor take what follows with it. The design that this forces:
//! - One group is under way at a time, and the next is written only after its sync. So of what is broken at
//!   the end, at most the last group was under way, and none of it was acknowledged: it is cut off. If a
//!   record of a *later* group is found behind what is broken, that was durable once: it is damage, which the
//!   reader reports with file and byte, and no byte of it is thrown away.
//! - After a failed write or sync nothing is known of the file's end, so the segment is given up as it was
//!   before the group, and the next group begins a new one, named after the last durable offset. What lies in
//!   the old one behind that offset is cut off if the disk lets us, and is never read either way. Who sent
//!   the group is told so, and sends it again.
//! - A segment's head says where each stream stood at its begin, so that nothing is lost with the segments
//!   before it. The newest segment is never deleted.
//!
//! Crashes: before the sync returns, the group may be whole, partly there or gone; it was not acknowledged. If
//! it is whole it is kept, and remembered, so that sending it again stores it no second time. Between making a
//! segment and its first group, the file is a head or less, and is overwritten. Between writing a
//! `.keys` file and deleting its segment, both are there and say the same.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::counters::WebhookCounters;
use super::recent::{Outcome, Recent};
use super::record::{
    End, Key, NAME_BYTES_MAX, PARTITIONS_MAX, RECORD_HEAD_BYTES, RECORD_MAGIC, RecordHead,
    SEGMENT_HEAD_BYTES_MAX, SegmentHead, checksum,
};
use super::refused::Refused;
use crate::fingerprint::Fingerprint;
use crate::fingerprint::LineChain;

/// A segment is not added to when it is this long, or an eighth of the log's bound.
const SEGMENT_BYTES: u64 = 64 << 20;
/// What is synced at once.
const GROUP_BATCHES_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 16 << 20;
/// Acknowledged batches of a segment that a `.keys` file holds; a segment has fewer, unless they are tiny.
const KEYS_MAX: usize = 1 << 20;
const KEYS_MAGIC: &[u8; 8] = b"SRKEYS\0\x01";
const KEY_BYTES: usize = 40;
/// How much is searched for a record at once.
const SEARCH_BYTES: usize = 1 << 20;

#[derive(Debug, Error)]
pub enum WalError {
    #[error("cannot make the folder {}", path.display())]
    MakeFolder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is used by another process", path.display())]
    InUse { path: PathBuf },
    #[error("{} is missing or is not 32 hexadecimal digits, though there are segments beside it", path.display())]
    Id { path: PathBuf },
    #[error("{} is damaged at byte {byte}: {what}", path.display())]
    Damaged { path: PathBuf, byte: u64, what: &'static str },
    #[error("the write-ahead log in {} knows more than {PARTITIONS_MAX} clusters", path.display())]
    TooManyClusters { path: PathBuf },
}

/// A request's lines, on their way to the disk.
#[derive(Debug)]
pub struct Batch {
    pub cluster: Arc<str>,
    pub key: Key,
    pub text: Vec<u8>,
    pub text_checksum: Fingerprint,
    pub lines: u32,
    pub received: u64,
    pub outcome: watch::Sender<Outcome>,
    /// Room in memory, held until the batch is gone.
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
    /// Bytes of all segments.
    pub bytes_max: u64,
    /// What is left free on the disk, for others.
    pub disk_free_bytes_min: u64,
    pub remembered_max: usize,
    pub remembered_for: Duration,
}

/// A file of the log, at least one of whose records is durable.
#[derive(Clone, Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub start: u64,
    pub head_bytes: u64,
    /// Where the streams stood at its begin.
    pub begins: Arc<BTreeMap<String, End>>,
}

impl Segment {
    /// Where the log's offset is in the file.
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
    /// Durable up to here.
    end: u64,
    clusters: BTreeMap<String, End>,
    /// Bytes on disk.
    bytes: u64,
    trouble: Option<String>,
    is_full: bool,
}

/// What the writer, the reader and the listener share.
#[derive(Debug)]
pub struct Wal {
    pub id: String,
    id_bytes: [u8; 16],
    options: WalOptions,
    state: Mutex<State>,
    grown: Condvar,
    pub recent: Mutex<Recent>,
    /// Files of keys, with the time of the newest in each.
    key_files: Mutex<VecDeque<(PathBuf, u64)>>,
    pub counters: Arc<WebhookCounters>,
    _lock: File,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is whole after each statement, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> WalError + use<> {
    let path = path.to_owned();
    move |source| WalError::Read { path, source }
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> WalError + use<> {
    let path = path.to_owned();
    move |source| WalError::Write { path, source }
}

impl Wal {
    /// Opens a folder, or makes it; cuts off what was being written when the last process ended.
    pub fn open(options: WalOptions, counters: Arc<WebhookCounters>) -> Result<(Arc<Wal>, Writer), WalError> {
        let folder = &options.folder;
        make_folder(folder)?;
        let lock_path = folder.join("lock");
        let lock = create(&lock_path, false).map_err(cannot_write(&lock_path))?;
        lock.try_lock().map_err(|_| WalError::InUse { path: folder.clone() })?;
        let files = numbered(folder, "log").map_err(cannot_read(folder))?;
        let id_bytes = read_or_make_id(folder, files.is_empty())?;

        let mut recent = Recent::new(options.remembered_max, options.remembered_for);
        let key_files = load_keys(folder, &mut recent)?;
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
            if !recover(&mut state, &mut recent, *start, path, &id_bytes)? {
                // Cut off while it was made, so it is the newest.
                if at + 1 < files.len() {
                    return Err(WalError::Damaged {
                        path: path.clone(),
                        byte: 0,
                        what: "the head is no head",
                    });
                }
                unfinished = Some(*start);
            }
        }
        finish_recovery(&mut state, &mut recent, unfinished.unwrap_or(0))?;
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
            _lock: lock,
        });
        Ok((Arc::clone(&wal), Writer { wal, open: None }))
    }

    /// Where the clusters' streams stand.
    pub fn clusters(&self) -> BTreeMap<String, End> {
        lock(&self.state).clusters.clone()
    }

    /// What is wrong now.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.state).trouble.clone()
    }

    /// The durable end, once it is beyond `offset` or `wait` is over.
    pub fn wait_beyond(&self, offset: u64, wait: Duration) -> u64 {
        let state = lock(&self.state);
        let waited = self.grown.wait_timeout_while(state, wait, |state| state.end <= offset);
        waited.unwrap_or_else(PoisonError::into_inner).0.end
    }

    /// The segments, and the durable end.
    pub fn segments(&self) -> (Vec<Segment>, u64) {
        let state = lock(&self.state);
        (state.segments.iter().cloned().collect(), state.end)
    }

    /// The segment with the record at `offset`, and where its durable records end.
    pub fn segment_at(&self, offset: u64) -> Option<(Segment, u64)> {
        let state = lock(&self.state);
        let after = state.segments.partition_point(|segment| segment.start <= offset);
        let segment = state.segments.get(after.checked_sub(1)?)?.clone();
        let end = state.segments.get(after).map_or(state.end, |next| next.start);
        (offset < end).then_some((segment, end))
    }

    /// Deletes the oldest segments all of whose text is sealed, as `sealed` says of a cluster.
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
        let now = now();
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

    /// Writes down what was acknowledged in a segment that is going to be deleted.
    fn keep_keys(&self, segment: &Segment, end: u64) -> Result<(), WalError> {
        let (now, mut newest) = (now(), 0);
        let mut out = KEYS_MAGIC.to_vec();
        let file = File::open(&segment.path).map_err(cannot_read(&segment.path))?;
        // One that came back, because the machine stopped when it had been deleted, may be cut off as well.
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
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        let path = segment.path.with_extension("keys");
        write_whole(&path, &out)?;
        lock(&self.key_files).push_back((path, newest));
        Ok(())
    }

    fn fail(&self, trouble: String, is_full: bool) {
        let mut state = lock(&self.state);
        if state.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(%trouble, "the webhook's write-ahead log takes nothing");
            state.trouble = Some(trouble);
        }
        state.is_full = is_full;
    }

    fn goes_on(&self) {
        let mut state = lock(&self.state);
        if state.trouble.take().is_some() {
            tracing::info!("the webhook's write-ahead log goes on");
        }
        state.is_full = false;
    }

    /// Why this many bytes more have no room.
    fn no_room(&self, bytes: u64) -> Option<String> {
        let (held, max, folder) =
            (lock(&self.state).bytes, self.options.bytes_max, self.options.folder.display());
        if held + bytes > max {
            return Some(format!("the write-ahead log {folder} is full: its bound is {max} bytes"));
        }
        // What is wrong with a disk that does not even say its size, the write will say.
        let disk = rustix::fs::statvfs(&self.options.folder).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let low = free < self.options.disk_free_bytes_min.saturating_add(bytes);
        low.then(|| format!("the disk of {folder} is almost full"))
    }
}

/// Makes batches durable; there is one.
#[derive(Debug)]
pub struct Writer {
    wal: Arc<Wal>,
    open: Option<OpenSegment>,
}

#[derive(Debug)]
struct OpenSegment {
    file: File,
    path: PathBuf,
    /// Durable bytes of the file.
    bytes: u64,
    /// Set until the first group is durable.
    new: Option<Segment>,
}

impl Writer {
    /// Writes what comes until all senders are gone.
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

    /// Stores a group or what of it has room, and tells each batch's sender what became of it.
    fn take(&mut self, group: Vec<Batch>) {
        let (mut bytes, mut no_room) = (0, None);
        let (group, refused): (Vec<Batch>, Vec<Batch>) = group.into_iter().partition(|batch| {
            let with = bytes + batch.record_bytes();
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
                    None => self.wal.goes_on(),
                }
                Ok(())
            }
            Err(error) => {
                // Nothing is known of what lies behind the durable end; no one reads it, and it goes if it can.
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

/// Writes and syncs a group. When this fails, the segment must not be used any more.
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
        let head = RecordHead {
            text_bytes: batch.text.len() as u32,
            lines: batch.lines,
            group: group_at,
            received: batch.received,
            begins: *begins,
            key: batch.key,
            text_checksum: batch.text_checksum,
            name: batch.cluster.to_string(),
        };
        open.file
            .write_all(&head.to_bytes())
            .and_then(|()| open.file.write_all(&batch.text))
            .map_err(cannot_write(&open.path))?;
        bytes += head.record_bytes();
        *begins = behind(*begins, &batch.text, batch.lines);
    }
    open.file.sync_data().map_err(cannot_write(&open.path))?;
    if open.new.is_some() {
        sync_folder(&wal.options.folder)?;
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
    let path = wal.options.folder.join(format!("{start:020}.log"));
    let head = SegmentHead { id: wal.id_bytes, start, partitions: clusters.clone().into_iter().collect() };
    let bytes = head.to_bytes();
    let mut file = create(&path, true).map_err(cannot_write(&path))?;
    file.write_all(&bytes).map_err(cannot_write(&path))?;
    let head_bytes = bytes.len() as u64;
    let new = Segment { path: path.clone(), start, head_bytes, begins: Arc::new(clusters) };
    Ok(OpenSegment { file, path, bytes: head_bytes, new: Some(new) })
}

/// Where a stream stands behind a text.
fn behind(begins: End, text: &[u8], lines: u32) -> End {
    let mut chain = LineChain::from(begins.chain);
    chain.update(text);
    End {
        offset: begins.offset + text.len() as u64,
        lines: begins.lines + u64::from(lines),
        // A text ends behind a newline.
        chain: chain.value().unwrap_or_default(),
    }
}

/// Takes in one segment, in order; `false` when it has neither a head nor a record.
fn recover(
    state: &mut State,
    recent: &mut Recent,
    start: u64,
    path: &Path,
    id: &[u8; 16],
) -> Result<bool, WalError> {
    let file = File::open(path).map_err(cannot_read(path))?;
    let length = file.metadata().map_err(cannot_read(path))?.len();
    let head = read_at(&file, 0, SEGMENT_HEAD_BYTES_MAX.min(length as usize)).map_err(cannot_read(path))?;
    let damaged = |byte, what| WalError::Damaged { path: path.to_owned(), byte, what };
    let Some((head, head_bytes)) = SegmentHead::parse(&head) else {
        if next_record(&file, 0, length, |_| true).map_err(cannot_read(path))?.is_some() {
            return Err(damaged(0, "the head is no head, though records follow"));
        }
        return Ok(false);
    };
    if head.id != *id {
        return Err(damaged(0, "it belongs to another log"));
    }
    if head.start != start || state.segments.back().is_some_and(|before| before.start >= start) {
        return Err(damaged(0, "its name is not where it begins"));
    }
    // What is known of the segment before: its durable bytes end where this one begins.
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
        begins: Arc::new(begins),
    });
    Ok(true)
}

/// A segment with another behind it: remembers its keys. Damage in it is the reader's to report.
fn close(bytes: u64, segment: &Segment, end: u64, recent: &mut Recent) -> Result<u64, WalError> {
    let file = File::open(&segment.path).map_err(cannot_read(&segment.path))?;
    let length = file.metadata().map_err(cannot_read(&segment.path))?.len();
    let now = now();
    for_each_head(&file, segment.head_bytes, segment.byte(end).min(length), |head| {
        if recent.remembers(head.received, now) {
            recent.remember(head.key, head.received);
        }
    })
    .map_err(cannot_read(&segment.path))?;
    Ok(bytes + length)
}

/// Reads the last segment to its end, and cuts off what was under way; it must reach up to `end_min`, where a
/// segment was begun.
fn finish_recovery(state: &mut State, recent: &mut Recent, end_min: u64) -> Result<(), WalError> {
    let Some(segment) = state.segments.back().cloned() else { return Ok(()) };
    let path = &segment.path;
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(cannot_read(path))?;
    let length = file.metadata().map_err(cannot_read(path))?.len();
    let (mut at, now) = (segment.head_bytes, now());
    while at < length {
        let offset = segment.start + (at - segment.head_bytes);
        let Some((head, text)) = read_record(&file, at, length).map_err(cannot_read(path))? else {
            // Records of a later group say that this one was durable: nothing is cut off.
            let later = next_record(&file, at + 1, length, |head| head.group > offset);
            let Some(next) = later.map_err(cannot_read(path))? else { break };
            tracing::error!(file = %path.display(), byte = at, "the write-ahead log is damaged");
            at = next;
            continue;
        };
        state.clusters.insert(head.name.clone(), behind(head.begins, &text, head.lines));
        if recent.remembers(head.received, now) {
            recent.remember(head.key, head.received);
        }
        at += head.record_bytes();
    }
    if segment.start + (at - segment.head_bytes) < end_min {
        let what = "no record, though another segment was begun behind it";
        return Err(WalError::Damaged { path: path.clone(), byte: at, what });
    }
    if at < length {
        tracing::info!(file = %path.display(), bytes = length - at, "cut off what was not acknowledged");
        file.set_len(at).map_err(cannot_write(path))?;
    }
    // What was written and not synced when the last process was killed is kept, so it is made durable.
    file.sync_all().map_err(cannot_write(path))?;
    state.end = segment.start + (at - segment.head_bytes);
    state.bytes += at;
    if state.end == segment.start {
        // Without a record it is overwritten by the next group; what its head says is in `clusters`.
        state.segments.pop_back();
        state.bytes -= at;
    }
    Ok(())
}

pub fn read_at(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// The head of the record at `at`, if there is one that ends before `limit`.
pub fn read_head(file: &File, at: u64, limit: u64) -> io::Result<Option<RecordHead>> {
    let left = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
    let bytes = read_at(file, at, left.min(RECORD_HEAD_BYTES + NAME_BYTES_MAX))?;
    Ok(RecordHead::parse(&bytes).filter(|head| at + head.record_bytes() <= limit))
}

/// The text of a record, if it is what was written.
pub fn read_text(file: &File, at: u64, head: &RecordHead) -> io::Result<Option<Vec<u8>>> {
    let text = read_at(file, at + head.text_at(), head.text_bytes as usize)?;
    Ok((checksum(&text) == head.text_checksum).then_some(text))
}

fn read_record(file: &File, at: u64, limit: u64) -> io::Result<Option<(RecordHead, Vec<u8>)>> {
    let Some(head) = read_head(file, at, limit)? else { return Ok(None) };
    Ok(read_text(file, at, &head)?.map(|text| (head, text)))
}

/// Reads heads one behind the other, up to `limit` or the first that is none.
fn for_each_head(file: &File, mut at: u64, limit: u64, mut each: impl FnMut(&RecordHead)) -> io::Result<()> {
    while at < limit {
        let Some(head) = read_head(file, at, limit)? else { break };
        each(&head);
        at += head.record_bytes();
    }
    Ok(())
}

/// Searches for the first whole record from `at` on that `fits`.
fn next_record(
    file: &File,
    mut at: u64,
    limit: u64,
    fits: impl Fn(&RecordHead) -> bool,
) -> io::Result<Option<u64>> {
    while at + RECORD_HEAD_BYTES as u64 <= limit {
        let length = usize::try_from(limit - at).unwrap_or(usize::MAX).min(SEARCH_BYTES);
        let bytes = read_at(file, at, length)?;
        for found in memchr::memmem::find_iter(&bytes, RECORD_MAGIC) {
            let found = at + found as u64;
            if read_record(file, found, limit)?.is_some_and(|(head, _)| fits(&head)) {
                return Ok(Some(found));
            }
        }
        // The next look begins where a record's first bytes may have been cut.
        at += (length - (RECORD_MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}

fn create(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(truncate).mode(0o600).open(path)
}

/// Makes a folder and those above it, so that they are there after a crash.
fn make_folder(folder: &Path) -> Result<(), WalError> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| WalError::MakeFolder { path: folder.to_owned(), source })?;
    for made in missing {
        match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent)?,
            _ => sync_folder(Path::new("."))?,
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<(), WalError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(cannot_write(folder))
}

/// Writes a file that is there as a whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), WalError> {
    let new = path.with_extension("new");
    create(&new, true)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(cannot_write(&new))?;
    std::fs::rename(&new, path).map_err(cannot_write(path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Files named with 20 digits, in order.
fn numbered(folder: &Path, extension: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let digits = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() == 20);
        if path.extension().is_some_and(|found| found == extension)
            && let Some(number) = digits.and_then(|digits| digits.parse().ok())
        {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_or_make_id(folder: &Path, may_make: bool) -> Result<[u8; 16], WalError> {
    let path = folder.join("id");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_make => {
            let mut id = [0; 16];
            getrandom::fill(&mut id)
                .map_err(|error| WalError::Write { path: path.clone(), source: error.into() })?;
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

/// Remembers what earlier processes acknowledged; a file that is damaged is passed over, which can only cost
/// a batch stored twice.
fn load_keys(folder: &Path, recent: &mut Recent) -> Result<VecDeque<(PathBuf, u64)>, WalError> {
    let mut files = VecDeque::new();
    let now = now();
    for (_, path) in numbered(folder, "keys").map_err(cannot_read(folder))? {
        let bytes = std::fs::read(&path).map_err(cannot_read(&path))?;
        let keys = bytes
            .split_last_chunk::<16>()
            .filter(|(content, sum)| checksum(content) == **sum)
            .and_then(|(content, _)| content.strip_prefix(KEYS_MAGIC));
        let Some(keys) = keys else {
            tracing::warn!(file = %path.display(), "damaged: batches that come again may be stored again");
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
