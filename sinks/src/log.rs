//! The outbox's log on disk: durable, ordered and numbered records.
//!
//! What is stored where, in the outbox's folder:
//! - `lock`: held by the process that uses the folder.
//! - `<20 digits>.log`: a segment, named after the number of its first record.
//! - `<20 digits>.ids`: the ids of the alerts in a deleted segment, 16 bytes each, after magic
//!   bytes.
//!
//! ```text
//! segment: "SROUTBX\x01", records
//! record:  "SRAR", length of the payload u32, number u64, time u64 (ms since 1970), checksum 16 bytes, payload
//! ```
//! All numbers are little-endian. The checksum is the first half of the BLAKE3 hash of the fields
//! before it and the payload. The payload is an [`Entry`] as JSON.
//!
//! Invariants:
//! - Records are numbered without gaps, and a number is used only once, even across restarts.
//! - Readers see only synced records. A group of records is written and synced before the next
//!   group is written. So no reader has seen broken bytes at the end of the newest segment, and
//!   they are cut off when the log is opened.
//! - Broken bytes elsewhere are damage: the reader reports them with file and byte, and continues
//!   after them.
//! - After a failed write the segment is cut at its last durable byte and closed, and the next
//!   group starts a new segment.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strongroom_journal::{
    Folder, Found, JournalError, Reader, Record as _, cannot_read, cannot_write, checksum, create, end_at,
    find, lock, now_ms, numbered, scan, sync_folder, write_whole,
};
use strongroom_schemas::{Alert, Period};
use thiserror::Error;
use uuid::Uuid;

const SEGMENT_MAGIC: &[u8; 8] = b"SROUTBX\x01";
const IDS_MAGIC: &[u8; 8] = b"SRALIDS\x01";
const RECORD_MAGIC: &[u8; 4] = b"SRAR";
const HEAD_BYTES: usize = 40;
/// Maximum size of a payload. An alert has a few kilobytes; the largest possible one (every list
/// full, every name as long as allowed, every character escaped in JSON) has more than one MiB.
const PAYLOAD_BYTES_MAX: usize = 2 << 20;
/// A segment is full at this size, or at a sixteenth of the log's maximum size if that is less.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;

#[derive(Debug, Error)]
pub enum OutboxError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{} is not a segment of an outbox", path.display())]
    NotASegment { path: PathBuf },
    #[error("cannot start the thread {name}")]
    Thread {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// A point in the archive up to which all alerts are in the log. For each volume of the table
/// `alerts`, it has the last commit whose alerts, and those of all earlier commits, are in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark(pub BTreeMap<Period, u64>);

impl Mark {
    /// Moves forward to `other`, volume by volume, and never back.
    pub fn advance(&mut self, other: &Mark) {
        for (period, version) in &other.0 {
            let known = self.0.entry(*period).or_insert(*version);
            *known = (*known).max(*version);
        }
    }
}

/// The payload of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// An alert to send.
    Alert(Box<Alert>),
    /// An alert that is not sent, but counted in the summary of the group that `first` opened.
    Held { alert_id: String, first: String, audit_id: String },
    /// The summary to send when the group that `first` opened is closed.
    Summary { first: String, alert: Box<Alert> },
    /// All alerts that are sealed up to this mark are in earlier records.
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

/// Returns an alert's id in 16 bytes.
pub(super) fn short_id(alert_id: &str) -> u128 {
    Uuid::parse_str(alert_id)
        .map_or_else(|_| u128::from_be_bytes(checksum(&[alert_id.as_bytes()])), |uuid| uuid.as_u128())
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub number: u64,
    /// When it was written, in milliseconds since 1970.
    pub time_ms: u64,
    pub entry: Entry,
}

impl strongroom_journal::Record for Record {
    const MAGIC: &'static [u8] = RECORD_MAGIC;

    fn read(reader: &mut Reader, at: u64) -> io::Result<Option<(Record, u64)>> {
        let Some(head) = reader.bytes(at, HEAD_BYTES)?.first_chunk::<HEAD_BYTES>().copied() else {
            return Ok(None);
        };
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let payload_bytes = u32::from_le_bytes(head[4..8].try_into().expect("four bytes")) as usize;
        if head[..4] != *RECORD_MAGIC || payload_bytes > PAYLOAD_BYTES_MAX {
            return Ok(None);
        }
        let length = HEAD_BYTES + payload_bytes;
        let Some(payload) = reader.bytes(at, length)?.get(HEAD_BYTES..length) else { return Ok(None) };
        if checksum(&[&head[..24], payload]) != head[24..] {
            return Ok(None);
        }
        let record = serde_json::from_slice(payload)
            .map(|entry| (Record { number: word(8), time_ms: word(16), entry }, length as u64));
        Ok(record.ok())
    }
}

fn put_record(out: &mut Vec<u8>, number: u64, time_ms: u64, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(RECORD_MAGIC);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&time_ms.to_le_bytes());
    let sum = checksum(&[&out[start..], payload]);
    out.extend_from_slice(&sum);
    out.extend_from_slice(payload);
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
    /// Number of the next record; all records before it are durable.
    end: u64,
}

/// State that the writer shares with the readers.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

/// The writer's side of the log.
#[derive(Debug)]
pub(super) struct Log {
    folder: Folder,
    pub shared: Arc<Shared>,
    /// The newest segment, unless a write to it failed.
    open: Option<File>,
    segment_bytes: u64,
    ids: VecDeque<(PathBuf, usize)>,
}

/// The position of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub next: u64,
    /// The segment of that record, and the byte where the record begins.
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
    /// The next records were dropped; the log now begins with the record of this number.
    Gone(u64),
}

impl Log {
    /// Opens a folder, or creates it. Calls `id` with the ids of alerts, oldest first, and `record`
    /// with every record in the log.
    pub(super) fn open(
        path: &Path,
        bytes_max: u64,
        id: &mut dyn FnMut(u128),
        record: &mut dyn FnMut(Record),
    ) -> Result<Log, OutboxError> {
        let folder = Folder::open(path)?;
        let mut ids = VecDeque::new();
        for (_, path) in numbered(folder.path(), "ids")? {
            let bytes = std::fs::read(&path).map_err(cannot_read(&path))?;
            let known = bytes.strip_prefix(IDS_MAGIC).unwrap_or_default();
            known.chunks_exact(16).for_each(|b| id(u128::from_le_bytes(b.try_into().expect("16 bytes"))));
            ids.push_back((path, known.len() / 16));
        }
        let files = numbered(folder.path(), "log")?;
        let newest = files.len().saturating_sub(1);
        let mut state = State { segments: VecDeque::new(), end: 1 };
        for (at, (start, path)) in files.into_iter().enumerate() {
            state.end = state.end.max(start);
            let mut records = 0;
            let bytes = recover(&path, at == newest, &mut |found| {
                if let Some(alert_id) = found.entry.alert_id() {
                    id(short_id(alert_id));
                }
                state.end = state.end.max(found.number + 1);
                records += 1;
                record(found);
            })?;
            if at == newest && records == 0 && state.end == start.max(1) {
                // The process was killed while it created the segment; the next group creates it
                // again.
                std::fs::remove_file(&path).map_err(cannot_write(&path))?;
                continue;
            }
            state.segments.push_back(Segment { path, start, bytes });
        }
        let shared = Arc::new(Shared { state: Mutex::new(state), grown: Condvar::new() });
        let segment_bytes = SEGMENT_BYTES.min(bytes_max / 16).max(1);
        Ok(Log { folder, shared, open: None, segment_bytes, ids })
    }

    /// Makes entries durable as one group, and returns the number of the first. A new segment
    /// begins with `mark`.
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
            let path = self.folder.file(end, "log");
            self.open = None;
            let begun = begin_segment(&path, &bytes).map(|file| self.open = Some(file));
            (path, begun)
        } else {
            let path = newest.as_ref().map(|segment| segment.path.clone()).unwrap_or_default();
            let file = self.open.as_mut().expect("a segment begins above if none is open");
            let written = file.write_all(&bytes).and_then(|()| file.sync_data());
            (path.clone(), written.map_err(cannot_write(&path)))
        };
        if let Err(error) = written {
            // The end of the file is unknown now: cut it at the last durable byte, and append no
            // more to it.
            self.open = None;
            if begin {
                // It does no harm if the file cannot be removed: recovery treats a file without a
                // durable record as empty.
                let _ = std::fs::remove_file(&path);
            } else if let Some(segment) = newest {
                let _ = OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(segment.bytes));
            }
            return Err(error.into());
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

    /// Deletes segments, oldest first. A segment is deleted if all its records are before `needed`.
    /// While the log is larger than `bytes_max`, segments with needed records are deleted too, but
    /// never the newest segment. Keeps at most `ids_max` ids of alerts in deleted segments. If
    /// needed records were deleted, returns the number of the first record left.
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
    /// Returns the number of the next record.
    pub(super) fn end(&self) -> u64 {
        lock(&self.state).end
    }

    /// Returns the number of the first record in the log.
    pub(super) fn first(&self) -> u64 {
        let state = lock(&self.state);
        state.segments.front().map_or(state.end, |segment| segment.start)
    }

    pub(super) fn bytes(&self) -> u64 {
        lock(&self.state).segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Waits until record `next` exists, for at most `wait`.
    pub(super) fn wait(&self, next: u64, wait: Duration) {
        let state = lock(&self.state);
        // The caller then reads, which shows whether the record exists.
        drop(self.grown.wait_timeout_while(state, wait, |state| state.end <= next));
    }

    pub(super) fn wake(&self) {
        self.grown.notify_all();
    }

    /// Reads at most `records_max` records from where `cursor` is, and moves it past them.
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
            match read_segment(&segment, at, cursor, until, records_max, &mut records) {
                Ok(()) => {}
                // The segment was deleted after it was chosen; the next round chooses again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot_read(&segment.path)(error).into()),
            }
        }
        Ok(Read::Records(records))
    }
}

/// Reads records from one segment. Moves the cursor past at least one record, or past damage.
fn read_segment(
    segment: &Segment,
    mut at: u64,
    cursor: &mut Cursor,
    until: u64,
    records_max: usize,
    records: &mut Vec<Record>,
) -> io::Result<()> {
    let mut reader = Reader::new(File::open(&segment.path)?, segment.bytes);
    while records.len() < records_max && cursor.next < until {
        let Some((record, length)) = Record::read(&mut reader, at)? else {
            return skip_damage(segment, &mut reader, at, cursor, until);
        };
        at += length;
        if record.number >= cursor.next {
            *cursor = Cursor { next: record.number + 1, at: Some((segment.start, at)) };
            records.push(record);
        }
    }
    Ok(())
}

/// Moves the cursor past bytes that cannot be read, and logs an error.
fn skip_damage(
    segment: &Segment,
    reader: &mut Reader,
    at: u64,
    cursor: &mut Cursor,
    until: u64,
) -> io::Result<()> {
    let found = find(reader, at + 1, |_: &Record| true)?.filter(|(_, record)| record.number >= cursor.next);
    let next = match found {
        Some((byte, record)) => Cursor { next: record.number, at: Some((segment.start, byte)) },
        None => Cursor::at(until),
    };
    tracing::error!(
        file = %segment.path.display(),
        byte = at,
        records = next.next - cursor.next,
        "the outbox is damaged: these records are skipped; the archive's table alerts has their alerts"
    );
    *cursor = next;
    Ok(())
}

/// Reads a whole segment, and returns the byte at which its records end. If it is the newest
/// segment, cuts off its torn tail.
fn recover(path: &Path, is_newest: bool, record: &mut dyn FnMut(Record)) -> Result<u64, OutboxError> {
    let mut reader = Reader::open(path).map_err(cannot_read(path))?;
    let magic = reader.bytes(0, SEGMENT_MAGIC.len()).map_err(cannot_read(path))?;
    if !magic.starts_with(SEGMENT_MAGIC) {
        if is_newest && magic.len() < SEGMENT_MAGIC.len() {
            return Ok(0);
        }
        return Err(OutboxError::NotASegment { path: path.to_owned() });
    }
    // A segment's records are synced in order, so a later record proves that the bytes before it
    // were durable.
    let end = scan(
        &mut reader,
        SEGMENT_MAGIC.len() as u64,
        |_, _| true,
        |found| match found {
            Found::Record(found) => record(found),
            // The reader reports damage when it comes to it.
            Found::Damage { .. } => {}
        },
    )
    .map_err(cannot_read(path))?;
    if is_newest && end < reader.limit() {
        end_at(path, end)?;
    }
    Ok(end)
}

fn begin_segment(path: &Path, bytes: &[u8]) -> Result<File, JournalError> {
    let mut file = create(path).map_err(cannot_write(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(cannot_write(path))?;
    path.parent().map_or(Ok(()), sync_folder)?;
    Ok(file)
}

/// Reads the first `bytes_max` bytes of a small file; `None` if the file does not exist.
pub(super) fn read_small(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, OutboxError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot_read(path)(error).into()),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).map_err(cannot_read(path))?;
    Ok(Some(bytes))
}

/// Returns the number of the next record without taking the lock. A running process may write more
/// records in the meantime.
pub(super) fn peek_end(folder: &Path) -> Result<u64, OutboxError> {
    let Some((start, path)) = numbered(folder, "log")?.pop() else { return Ok(1) };
    let mut reader = Reader::open(&path).map_err(cannot_read(&path))?;
    let mut end = start;
    let from = SEGMENT_MAGIC.len() as u64;
    scan(
        &mut reader,
        from,
        |_, _| false,
        |found: Found<Record>| {
            if let Found::Record(record) = found {
                end = record.number + 1;
            }
        },
    )
    .map_err(cannot_read(&path))?;
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
    fn whatever_is_torn_off_the_end_the_rest_comes_back_and_numbers_continue() {
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
            // The next round starts with one segment again.
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
    fn segments_are_deleted_when_no_sink_needs_them_and_ids_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, ..) = open(folder.path(), 16 << 10);
        let mark = Mark(BTreeMap::from([(Period::of_year(2026), 7)]));
        for number in 0..100 {
            log.append(&[held(number)], Some(&mark)).expect("written");
        }
        let end = log.shared.end();
        assert_eq!(log.trim(end / 2, u64::MAX, 1000).expect("trimmed"), None);
        assert!(log.shared.first() <= end / 2 && log.shared.first() > end / 4);
        let gone = log.trim(0, 4 << 10, 1000).expect("trimmed").expect("some segments had to go");
        assert_eq!(gone, log.shared.first());
        assert!(log.shared.bytes() <= 4 << 10);
        let mut cursor = Cursor::at(1);
        assert!(matches!(log.shared.read(&mut cursor, 10), Ok(Read::Gone(first)) if first == gone));
        drop(log);
        let (mut log, records, ids) = open(folder.path(), 16 << 10);
        assert_eq!(ids.len(), 100, "every id is still known");
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
        assert!(matches!(second, Err(OutboxError::Journal(JournalError::InUse { .. }))));
        drop(log);
    }
}
