//! The log of the outbox on disk: what is in it is durable, in order, and numbered.
//!
//! What is stored where, in the outbox's folder:
//! - `lock`: held by the process that uses the folder.
//! - `<20 digits>.log`: a segment, named after the number of its first record.
//! - `<20 digits>.ids`: ids of the alerts of a segment that is gone, 16 bytes each, behind a magic word.
//!
//! ```text
//! segment: "SROUTBX\x01", records
//! record:  "SRAR", length of the payload u32, number u64, time u64 (ms since 1970), checksum 16 bytes, payload
//! ```
//! All numbers are little-endian; the checksum is BLAKE3 over all else; the payload is an [`Entry`] as JSON.
//!
//! Invariants:
//! - Records are numbered without gaps; a number is given once, also over restarts.
//! - What readers see has been synced. A group of records is written and synced at once, and the next one only
//!   after that, so what is broken at the end of the newest segment was never seen, and is cut off.
//! - What is broken elsewhere is damage: it is reported with file and byte, and reading goes on behind it.
//! - After a failed write the segment is given up where it was durable, and the next group begins a new one.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use strongroom_schemas::{Alert, Period};
use thiserror::Error;
use uuid::Uuid;

const SEGMENT_MAGIC: &[u8; 8] = b"SROUTBX\x01";
const IDS_MAGIC: &[u8; 8] = b"SRALIDS\x01";
const RECORD_MAGIC: &[u8; 4] = b"SRAR";
const HEAD_BYTES: usize = 40;
/// Longest payload. An alert has a few kilobytes; one with the most names, each as long as may be and of nothing but
/// characters that JSON escapes, has more than one MiB.
const PAYLOAD_BYTES_MAX: usize = 2 << 20;
/// A segment is not added to when it is this long, or a sixteenth of the log's bound.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;
/// What a reader takes from the disk at once; a longer record is read alone.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug, Error)]
pub enum OutboxError {
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
    #[error("{} is no segment of an outbox", path.display())]
    NoSegment { path: PathBuf },
    #[error("cannot start the thread {name}")]
    Thread {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// Up to where the archive's alerts are in the log: the last commit of each volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark(pub BTreeMap<Period, u64>);

impl Mark {
    /// Moves forward, never back.
    pub fn advance(&mut self, other: &Mark) {
        for (period, version) in &other.0 {
            let known = self.0.entry(*period).or_insert(*version);
            *known = (*known).max(*version);
        }
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// To be sent.
    Alert(Box<Alert>),
    /// Not sent by itself, but counted in the summary of `first`.
    Held { alert_id: String, first: String, audit_id: String },
    /// Ends the group of `first`; to be sent.
    Summary { first: String, alert: Box<Alert> },
    /// All alerts that the archive has sealed up to here are in records before this one.
    Mark(Mark),
}

impl Entry {
    pub(super) fn alert_id(&self) -> Option<&str> {
        match self {
            Entry::Alert(alert) | Entry::Summary { alert, .. } => Some(&alert.alert_id),
            Entry::Held { alert_id, .. } => Some(alert_id),
            Entry::Mark(_) => None,
        }
    }
}

/// An alert's id in 16 bytes.
pub(super) fn short_id(alert_id: &str) -> u128 {
    Uuid::parse_str(alert_id).map_or_else(
        |_| {
            let hash = blake3::hash(alert_id.as_bytes());
            u128::from_be_bytes(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"))
        },
        |uuid| uuid.as_u128(),
    )
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub number: u64,
    /// When it was written, in milliseconds since 1970.
    pub time_ms: u64,
    pub entry: Entry,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is whole after each statement, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> OutboxError + use<> {
    let path = path.to_owned();
    move |source| OutboxError::Read { path, source }
}

pub(super) fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> OutboxError + use<> {
    let path = path.to_owned();
    move |source| OutboxError::Write { path, source }
}

fn checksum(head: &[u8], payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize().as_bytes()[..16].try_into().expect("a hash has 32 bytes")
}

fn put_record(out: &mut Vec<u8>, number: u64, time_ms: u64, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(RECORD_MAGIC);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&time_ms.to_le_bytes());
    let sum = checksum(&out[start..], payload);
    out.extend_from_slice(&sum);
    out.extend_from_slice(payload);
}

/// What stands at the begin of some bytes.
enum Parsed {
    Record(Record, usize),
    /// So many bytes are needed to tell.
    Short(usize),
    Broken,
}

fn parse_record(bytes: &[u8]) -> Parsed {
    let Some(head) = bytes.get(..HEAD_BYTES) else { return Parsed::Short(HEAD_BYTES) };
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let length = u32::from_le_bytes(head[4..8].try_into().expect("four bytes")) as usize;
    if head[..4] != *RECORD_MAGIC || length > PAYLOAD_BYTES_MAX {
        return Parsed::Broken;
    }
    let Some(payload) = bytes.get(HEAD_BYTES..HEAD_BYTES + length) else {
        return Parsed::Short(HEAD_BYTES + length);
    };
    if checksum(&head[..24], payload) != head[24..] {
        return Parsed::Broken;
    }
    match serde_json::from_slice(payload) {
        Ok(entry) => {
            Parsed::Record(Record { number: word(8), time_ms: word(16), entry }, HEAD_BYTES + length)
        }
        Err(_) => Parsed::Broken,
    }
}

/// The next whole record at or behind `from`, and where it begins.
fn find_record(bytes: &[u8], from: usize) -> Option<(usize, Record, usize)> {
    let mut at = from;
    loop {
        at += memchr::memmem::find(bytes.get(at..)?, RECORD_MAGIC)?;
        if let Parsed::Record(record, length) = parse_record(&bytes[at..]) {
            return Some((at, record, length));
        }
        at += 1;
    }
}

#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    /// Number of its first record.
    start: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    segments: VecDeque<Segment>,
    /// Number of the next record; those before it are durable.
    end: u64,
}

/// What the writer and the readers have in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

/// The writer's side.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    pub shared: Arc<Shared>,
    /// Of the newest segment, unless it was given up.
    open: Option<File>,
    segment_bytes: u64,
    ids: VecDeque<(PathBuf, usize)>,
    _lock: File,
}

/// Where a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub next: u64,
    /// Segment, and byte of it, where that record begins.
    at: Option<(u64, u64)>,
}

impl Cursor {
    pub(super) fn at(next: u64) -> Cursor {
        Cursor { next, at: None }
    }
}

#[derive(Debug)]
pub(super) enum Read {
    Records(Vec<Record>),
    /// What comes next was dropped; the log begins with this number.
    Gone(u64),
}

impl Log {
    /// Opens a folder, or makes it. `id` is told the ids of alerts, oldest first; `record` every record that is kept.
    pub(super) fn open(
        folder: &Path,
        bytes_max: u64,
        id: &mut dyn FnMut(u128),
        record: &mut dyn FnMut(Record),
    ) -> Result<Log, OutboxError> {
        make_folder(folder)?;
        let lock_path = folder.join("lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let held = opened.map_err(cannot_write(&lock_path))?;
        held.try_lock().map_err(|_| OutboxError::InUse { path: folder.to_owned() })?;
        let mut ids = VecDeque::new();
        for (_, path) in numbered(folder, "ids")? {
            let bytes = std::fs::read(&path).map_err(cannot_read(&path))?;
            let known = bytes.strip_prefix(IDS_MAGIC).unwrap_or_default();
            known.chunks_exact(16).for_each(|b| id(u128::from_le_bytes(b.try_into().expect("16 bytes"))));
            ids.push_back((path, known.len() / 16));
        }
        let files = numbered(folder, "log")?;
        let newest = files.len().saturating_sub(1);
        let mut state = State { segments: VecDeque::new(), end: 1 };
        for (at, (start, path)) in files.into_iter().enumerate() {
            state.end = state.end.max(start);
            let mut whole = 0;
            let bytes = recover(&path, at == newest, &mut |found| {
                if let Some(alert_id) = found.entry.alert_id() {
                    id(short_id(alert_id));
                }
                state.end = state.end.max(found.number + 1);
                whole += 1;
                record(found);
            })?;
            if at == newest && whole == 0 && state.end == start.max(1) {
                // Killed while it was made; the next group makes it again.
                std::fs::remove_file(&path).map_err(cannot_write(&path))?;
                continue;
            }
            state.segments.push_back(Segment { path, start, bytes });
        }
        let shared = Arc::new(Shared { state: Mutex::new(state), grown: Condvar::new() });
        let segment_bytes = SEGMENT_BYTES.min(bytes_max / 16).max(1);
        Ok(Log { folder: folder.to_owned(), shared, open: None, segment_bytes, ids, _lock: held })
    }

    /// Makes entries durable, as one group; returns the number of the first. A new segment begins with `mark`.
    pub(super) fn append(&mut self, entries: &[Entry], mark: Option<&Mark>) -> Result<u64, OutboxError> {
        let (end, newest) = {
            let state = lock(&self.shared.state);
            (state.end, state.segments.back().cloned())
        };
        let time_ms = now_ms();
        let full = newest.as_ref().is_none_or(|segment| segment.bytes >= self.segment_bytes);
        let begin = full || self.open.is_none();
        let head = mark.filter(|_| begin).map(|mark| Entry::Mark(mark.clone()));
        let mut number = end;
        let mut bytes = if begin { SEGMENT_MAGIC.to_vec() } else { Vec::new() };
        for entry in head.iter().chain(entries) {
            let payload = serde_json::to_vec(entry).expect("an entry has text keys and finite numbers");
            put_record(&mut bytes, number, time_ms, &payload);
            number += 1;
        }
        let first = end + u64::from(head.is_some());
        let (path, written) = if begin {
            let path = self.folder.join(format!("{end:020}.log"));
            self.open = None;
            (path.clone(), begin_segment(&path, &bytes).map(|file| self.open = Some(file)))
        } else {
            let path = newest.as_ref().map(|segment| segment.path.clone()).unwrap_or_default();
            let file = self.open.as_mut().expect("looked at above");
            (path, file.write_all(&bytes).and_then(|()| file.sync_data()))
        };
        if let Err(source) = written {
            // Nothing is known of the file's end: it is cut where it was durable, and not added to.
            self.open = None;
            if begin {
                // A file without a durable record tells nothing; recovery reads it as an empty one.
                let _ = std::fs::remove_file(&path);
            } else if let Some(segment) = newest {
                let _ = OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(segment.bytes));
            }
            return Err(OutboxError::Write { path, source });
        }
        let mut state = lock(&self.shared.state);
        if begin {
            state.segments.push_back(Segment { path, start: end, bytes: 0 });
        }
        if let Some(segment) = state.segments.back_mut() {
            segment.bytes += bytes.len() as u64;
        }
        state.end = number;
        self.shared.grown.notify_all();
        Ok(first)
    }

    /// Deletes the oldest segments whose records are all before `needed`, and, beyond `bytes_max`, also others but
    /// the newest; their alerts' ids stay, `ids_max` of them. Returns the number of the first record of those.
    pub(super) fn trim(
        &mut self,
        needed: u64,
        bytes_max: u64,
        ids_max: usize,
    ) -> Result<Option<u64>, OutboxError> {
        let mut forced = None;
        loop {
            let (first, next) = {
                let state = lock(&self.shared.state);
                let (Some(first), Some(next)) = (state.segments.front(), state.segments.get(1)) else {
                    break;
                };
                let bytes: u64 = state.segments.iter().map(|segment| segment.bytes).sum();
                if next.start > needed && bytes <= bytes_max {
                    break;
                }
                (first.clone(), next.start)
            };
            if next > needed {
                forced = Some(next);
            }
            let mut ids = IDS_MAGIC.to_vec();
            recover(&first.path, false, &mut |record| {
                if let Some(alert_id) = record.entry.alert_id() {
                    ids.extend_from_slice(&short_id(alert_id).to_le_bytes());
                }
            })?;
            let path = first.path.with_extension("ids");
            if ids.len() > IDS_MAGIC.len() {
                write_whole(&path, &ids)?;
                self.ids.push_back((path, (ids.len() - IDS_MAGIC.len()) / 16));
            }
            std::fs::remove_file(&first.path).map_err(cannot_write(&first.path))?;
            lock(&self.shared.state).segments.pop_front();
        }
        let mut kept: usize = self.ids.iter().map(|(_, count)| count).sum();
        while kept > ids_max
            && let Some((path, count)) = self.ids.pop_front()
        {
            std::fs::remove_file(&path).map_err(cannot_write(&path))?;
            kept -= count;
        }
        Ok(forced)
    }
}

impl Shared {
    /// Number of the next record.
    pub(super) fn end(&self) -> u64 {
        lock(&self.state).end
    }

    /// Number of the first record that is kept.
    pub(super) fn first(&self) -> u64 {
        let state = lock(&self.state);
        state.segments.front().map_or(state.end, |segment| segment.start)
    }

    pub(super) fn bytes(&self) -> u64 {
        lock(&self.state).segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Waits until there is a record `next`, or for so long.
    pub(super) fn wait(&self, next: u64, wait: Duration) {
        let state = lock(&self.state);
        // Whether it came is asked by reading.
        drop(self.grown.wait_timeout_while(state, wait, |state| state.end <= next));
    }

    pub(super) fn wake(&self) {
        self.grown.notify_all();
    }

    /// Reads at most `records_max` records from where `cursor` is, and moves it behind them.
    pub(super) fn read(&self, cursor: &mut Cursor, records_max: usize) -> Result<Read, OutboxError> {
        let mut records = Vec::new();
        while records.len() < records_max {
            let (segment, until) = {
                let state = lock(&self.state);
                if cursor.next >= state.end {
                    break;
                }
                let after = state.segments.partition_point(|segment| segment.start <= cursor.next);
                let Some(segment) = after.checked_sub(1).and_then(|at| state.segments.get(at)) else {
                    let first = state.segments.front().map_or(state.end, |segment| segment.start);
                    if records.is_empty() {
                        return Ok(Read::Gone(first));
                    }
                    break;
                };
                (segment.clone(), state.segments.get(after).map_or(state.end, |next| next.start))
            };
            let at = match cursor.at {
                Some((start, byte)) if start == segment.start => byte,
                _ => SEGMENT_MAGIC.len() as u64,
            };
            match read_some(&segment, at, cursor, until, records_max, &mut records) {
                Ok(()) => {}
                // It was dropped between the look and the reading; the next look says so.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot_read(&segment.path)(error)),
            }
        }
        Ok(Read::Records(records))
    }
}

/// Reads from one segment, at least one step forward.
fn read_some(
    segment: &Segment,
    mut at: u64,
    cursor: &mut Cursor,
    until: u64,
    records_max: usize,
    records: &mut Vec<Record>,
) -> io::Result<()> {
    let file = File::open(&segment.path)?;
    let mut bytes = Vec::new();
    let mut wanted = READ_BYTES;
    while records.len() < records_max && cursor.next < until {
        let left = usize::try_from(segment.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        bytes.resize(wanted.min(left), 0);
        file.read_exact_at(&mut bytes, at)?;
        let mut parsed = 0;
        loop {
            if records.len() >= records_max || cursor.next >= until {
                return Ok(());
            }
            match parse_record(&bytes[parsed..]) {
                Parsed::Record(record, length) => {
                    parsed += length;
                    at += length as u64;
                    if record.number >= cursor.next {
                        *cursor = Cursor { next: record.number + 1, at: Some((segment.start, at)) };
                        records.push(record);
                    }
                }
                Parsed::Short(needed) if bytes.len() < left => {
                    wanted = READ_BYTES.max(needed);
                    break;
                }
                Parsed::Short(_) | Parsed::Broken => {
                    return skip_damage(segment, &file, at, cursor, until);
                }
            }
        }
    }
    Ok(())
}

/// Goes on behind what cannot be read, and says so.
fn skip_damage(segment: &Segment, file: &File, at: u64, cursor: &mut Cursor, until: u64) -> io::Result<()> {
    let mut rest = vec![0; usize::try_from(segment.bytes.saturating_sub(at)).unwrap_or(0)];
    file.read_exact_at(&mut rest, at)?;
    let found = find_record(&rest, 1).filter(|(_, record, _)| record.number >= cursor.next);
    let next = match found {
        Some((byte, record, _)) => {
            Cursor { next: record.number, at: Some((segment.start, at + byte as u64)) }
        }
        None => Cursor::at(until),
    };
    tracing::error!(
        file = %segment.path.display(),
        byte = at,
        records = next.next - cursor.next,
        "the outbox is damaged; the archive's table alerts has what is left out"
    );
    *cursor = next;
    Ok(())
}

/// Reads a whole segment; of the newest one cuts off what was being written. Returns its bytes.
fn recover(path: &Path, is_newest: bool, record: &mut dyn FnMut(Record)) -> Result<u64, OutboxError> {
    let bytes = std::fs::read(path).map_err(cannot_read(path))?;
    if !bytes.starts_with(SEGMENT_MAGIC) {
        if is_newest && bytes.len() < SEGMENT_MAGIC.len() {
            return Ok(0);
        }
        return Err(OutboxError::NoSegment { path: path.to_owned() });
    }
    let mut at = SEGMENT_MAGIC.len();
    while at < bytes.len() {
        if let Parsed::Record(found, length) = parse_record(&bytes[at..]) {
            record(found);
            at += length;
        } else if let Some((next, ..)) = find_record(&bytes, at + 1) {
            at = next;
        } else {
            break;
        }
    }
    if is_newest && at < bytes.len() {
        let file = OpenOptions::new().write(true).open(path).map_err(cannot_write(path))?;
        file.set_len(at as u64).and_then(|()| file.sync_all()).map_err(cannot_write(path))?;
    }
    Ok(at as u64)
}

fn begin_segment(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_folder(path)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// Replaces a file, whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), OutboxError> {
    let staging = path.with_extension("new");
    let write = || {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&staging)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&staging, path)?;
        sync_folder(path)
    };
    write().map_err(cannot_write(path))
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
}

fn make_folder(folder: &Path) -> Result<(), OutboxError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| OutboxError::MakeFolder { path: folder.to_owned(), source })
}

/// Files named by 20 digits, in order.
fn numbered(folder: &Path, extension: &str) -> Result<Vec<(u64, PathBuf)>, OutboxError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot_read(folder))? {
        let path = entry.map_err(cannot_read(folder))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let digits = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
        if digits && path.extension().is_some_and(|is| is == extension) {
            found.push((stem.parse().unwrap_or(u64::MAX), path));
        }
    }
    found.sort();
    Ok(found)
}

/// A small file, or nothing when it is not there.
pub(super) fn read_small(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, OutboxError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot_read(path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).map_err(cannot_read(path))?;
    Ok(Some(bytes))
}

/// Number of the next record, read without the lock: a running process may be ahead.
pub(super) fn peek_end(folder: &Path) -> Result<u64, OutboxError> {
    let Some((start, path)) = numbered(folder, "log")?.pop() else { return Ok(1) };
    let bytes = std::fs::read(&path).map_err(cannot_read(&path))?;
    let (mut at, mut end) = (SEGMENT_MAGIC.len().min(bytes.len()), start);
    while let Parsed::Record(record, length) = parse_record(&bytes[at..]) {
        (at, end) = (at + length, record.number + 1);
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(number: u64) -> Entry {
        Entry::Held { alert_id: format!("a{number}"), first: "f".to_owned(), audit_id: "x".repeat(100) }
    }

    fn open(folder: &Path, bytes_max: u64) -> (Log, Vec<Record>, Vec<u128>) {
        let (mut ids, mut records) = (Vec::new(), Vec::new());
        let log = Log::open(folder, bytes_max, &mut |id| ids.push(id), &mut |record| records.push(record));
        (log.expect("an outbox"), records, ids)
    }

    fn read_all(log: &Log, from: u64) -> Vec<u64> {
        let mut cursor = Cursor::at(from);
        let mut numbers = Vec::new();
        loop {
            match log.shared.read(&mut cursor, 7).expect("readable") {
                Read::Records(records) if records.is_empty() => return numbers,
                Read::Records(records) => numbers.extend(records.iter().map(|record| record.number)),
                Read::Gone(first) => cursor = Cursor::at(first),
            }
        }
    }

    #[test]
    fn whatever_is_torn_off_the_end_the_rest_comes_back_and_numbers_go_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, ..) = open(folder.path(), 1 << 30);
        for group in 0..5 {
            log.append(&[held(2 * group), held(2 * group + 1)], None).expect("written");
        }
        drop(log);
        let path = folder.path().join(format!("{:020}.log", 1));
        let whole = std::fs::read(&path).expect("a segment");
        for length in (SEGMENT_MAGIC.len()..=whole.len()).step_by(13) {
            std::fs::write(&path, &whole[..length]).expect("written");
            let (mut log, records, ids) = open(folder.path(), 1 << 30);
            let numbers: Vec<u64> = records.iter().map(|record| record.number).collect();
            assert_eq!(numbers, (1..=records.len() as u64).collect::<Vec<_>>());
            assert_eq!(ids.len(), records.len());
            let next = log.append(&[held(99)], None).expect("written");
            assert_eq!(next, records.len() as u64 + 1);
            assert_eq!(read_all(&log, 1), (1..=next).collect::<Vec<_>>());
            drop(log);
            // The next round begins with one segment again.
            let new = folder.path().join(format!("{next:020}.log"));
            if new != path {
                std::fs::remove_file(new).expect("the segment of this round");
            }
        }
    }

    #[test]
    fn a_changed_byte_takes_one_record_with_it_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, ..) = open(folder.path(), 1 << 30);
        log.append(&(0..10).map(held).collect::<Vec<_>>(), None).expect("written");
        let path = folder.path().join(format!("{:020}.log", 1));
        let mut bytes = std::fs::read(&path).expect("a segment");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let numbers = read_all(&log, 1);
        assert_eq!(numbers.len(), 9, "{numbers:?}");
        drop(log);
        let (log, records, _) = open(folder.path(), 1 << 30);
        assert_eq!(records.len(), 9);
        assert_eq!(log.shared.end(), 11);
    }

    #[test]
    fn segments_go_when_nobody_needs_them_and_ids_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, ..) = open(folder.path(), 16 << 10);
        let mark = Mark(BTreeMap::from([(Period::of_year(2026), 7)]));
        for number in 0..100 {
            log.append(&[held(number)], Some(&mark)).expect("written");
        }
        let end = log.shared.end();
        assert_eq!(log.trim(end / 2, u64::MAX, 1000).expect("trimmed"), None);
        assert!(log.shared.first() <= end / 2 && log.shared.first() > end / 4);
        let gone = log.trim(0, 4 << 10, 1000).expect("trimmed").expect("some had to go");
        assert_eq!(gone, log.shared.first());
        assert!(log.shared.bytes() <= 4 << 10);
        let mut cursor = Cursor::at(1);
        assert!(matches!(log.shared.read(&mut cursor, 10), Ok(Read::Gone(first)) if first == gone));
        drop(log);
        let (mut log, records, ids) = open(folder.path(), 16 << 10);
        assert_eq!(ids.len(), 100, "every id is known still");
        assert_eq!(records[0].entry, Entry::Mark(mark), "a segment begins with the mark");
        log.trim(0, 4 << 10, 10).expect("trimmed");
        drop(log);
        let (_, _, ids) = open(folder.path(), 16 << 10);
        assert!(ids.len() < 60, "{}", ids.len());
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, ..) = open(folder.path(), 1 << 30);
        let second = Log::open(folder.path(), 1 << 30, &mut |_| {}, &mut |_| {});
        assert!(matches!(second, Err(OutboxError::InUse { .. })));
        drop(log);
    }
}
