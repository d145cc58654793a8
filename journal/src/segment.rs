//! Reads the records of a segment in order, finds the next record after damage, and cuts off a
//! write that a crash left incomplete.
//!
//! Terms: a *record* begins with magic bytes and has checksums. Bytes that are not a record are
//! *damage* if a later record proves that they were durable, and a *torn tail* at the end of the
//! segment otherwise.
//!
//! Damage and a torn tail are treated differently, because a log syncs each group of records before
//! it writes the next group. So a torn tail was never acknowledged and may be cut off. Damage was
//! durable once: it must be reported, and no byte of it may be discarded. The log decides which
//! later records prove that the bytes before them were durable.
//!
//! Only [`end_at`] writes. After a crash in [`end_at`] the torn tail may still be there; the next
//! start finds it and cuts it off.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::{JournalError, cannot_write};

/// Number of bytes that a [`Reader`] reads from the disk at once. A longer record is read with one
/// read of its own.
const BLOCK_BYTES: usize = 256 << 10;

/// A record format of a log.
pub trait Record: Sized {
    /// The bytes that every record begins with.
    const MAGIC: &'static [u8];

    /// Returns the record that begins at byte `at`, and its length, or `None` if it is damaged or
    /// does not end within the reader's limit.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn read(reader: &mut Reader, at: u64) -> io::Result<Option<(Self, u64)>>;
}

/// A segment file, read in blocks up to a limit.
#[derive(Debug)]
pub struct Reader {
    file: File,
    limit: u64,
    /// The byte of the file at which the block begins.
    start: u64,
    block: Vec<u8>,
}

impl Reader {
    /// Returns a reader of the first `limit` bytes of a file, which must have at least that many.
    pub fn new(file: File, limit: u64) -> Reader {
        Reader { file, limit, start: 0, block: Vec::new() }
    }

    /// Returns a reader of a file up to the length that it has now.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Reader> {
        let file = File::open(path)?;
        let limit = file.metadata()?.len();
        Ok(Reader::new(file, limit))
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the byte up to which the file is read.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns bytes from `at` on: at least `min` bytes, or all bytes up to the limit if there are
    /// fewer.
    ///
    /// # Errors
    /// When the file cannot be read, or is shorter than the limit.
    pub fn bytes(&mut self, at: u64, min: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.limit.saturating_sub(at)).unwrap_or(usize::MAX);
        let needed = min.min(left);
        let skip = at.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let skip = skip.filter(|skip| self.block.len().checked_sub(*skip).is_some_and(|has| has >= needed));
        if let Some(skip) = skip {
            return Ok(&self.block[skip..]);
        }
        self.start = at;
        self.block.resize(needed.max(BLOCK_BYTES).min(left), 0);
        if let Err(error) = self.file.read_exact_at(&mut self.block, at) {
            self.block.clear();
            return Err(error);
        }
        Ok(&self.block)
    }
}

/// What a scan has found: a record, or damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<R> {
    Record(R),
    /// The bytes from `at` to `next` are not records, although they were durable once.
    Damage {
        at: u64,
        next: u64,
    },
}

/// Reads records from byte `from` to the limit, and returns the byte at which the last whole record
/// ends. Bytes after it are a torn tail. Calls `each` with every record and all damage, in order.
/// `proves(at, record)` says whether a record proves that the bytes from `at` up to the record,
/// which are not a record themselves, were durable.
///
/// # Errors
/// When the file cannot be read.
pub fn scan<R: Record>(
    reader: &mut Reader,
    from: u64,
    proves: impl Fn(u64, &R) -> bool,
    mut each: impl FnMut(Found<R>),
) -> io::Result<u64> {
    let mut at = from;
    while at < reader.limit() {
        if let Some((record, bytes)) = R::read(reader, at)? {
            each(Found::Record(record));
            at += bytes;
        } else if let Some((next, _)) = find(reader, at + 1, |record| proves(at, record))? {
            each(Found::Damage { at, next });
            at = next;
        } else {
            break;
        }
    }
    Ok(at)
}

/// Finds the first whole record at or after byte `at` that `fits` accepts, and returns the byte at
/// which it begins and the record.
///
/// # Errors
/// When the file cannot be read.
pub fn find<R: Record>(
    reader: &mut Reader,
    mut at: u64,
    fits: impl Fn(&R) -> bool,
) -> io::Result<Option<(u64, R)>> {
    loop {
        let bytes = reader.bytes(at, R::MAGIC.len())?;
        if bytes.len() < R::MAGIC.len() {
            return Ok(None);
        }
        let Some(found) = memchr::memmem::find(bytes, R::MAGIC) else {
            // The magic bytes may cross the end of the block, so the next search begins just before
            // it.
            at += (bytes.len() - (R::MAGIC.len() - 1)) as u64;
            continue;
        };
        at += found as u64;
        if let Some((record, _)) = R::read(reader, at)?
            && fits(&record)
        {
            return Ok(Some((at, record)));
        }
        at += 1;
    }
}

/// Cuts off the bytes of a segment from `end` on, and makes the bytes before it durable.
///
/// # Errors
/// When the file cannot be written.
pub fn end_at(path: &Path, end: u64) -> Result<(), JournalError> {
    let cut = |file: File| {
        if file.metadata()?.len() > end {
            file.set_len(end)?;
        }
        file.sync_all()
    };
    OpenOptions::new().write(true).open(path).and_then(cut).map_err(cannot_write(path))
}

/// Returns the checksum of several parts in this order: the first half of their BLAKE3 hash.
pub fn checksum(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `##`, a length, that many bytes, and their checksum.
    #[derive(Debug, PartialEq)]
    struct Note(Vec<u8>);

    impl Note {
        fn to_bytes(text: &[u8]) -> Vec<u8> {
            let length = (text.len() as u32).to_le_bytes();
            [&b"##"[..], &length, text, &checksum(&[text])].concat()
        }
    }

    impl Record for Note {
        const MAGIC: &'static [u8] = b"##";

        fn read(reader: &mut Reader, at: u64) -> io::Result<Option<(Self, u64)>> {
            let Some(head) = reader.bytes(at, 6)?.first_chunk::<6>().copied() else { return Ok(None) };
            let length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
            if head[..2] != *b"##" || length > 1 << 20 {
                return Ok(None);
            }
            let bytes = reader.bytes(at, 6 + length + 16)?;
            let Some(bytes) = bytes.get(6..6 + length + 16) else { return Ok(None) };
            let (text, sum) = bytes.split_at(length);
            Ok((checksum(&[text]) == *sum).then(|| (Note(text.to_vec()), 6 + length as u64 + 16)))
        }
    }

    fn scanned(path: &Path, proves: bool) -> (Vec<Found<Note>>, u64) {
        let mut found = Vec::new();
        let mut reader = Reader::open(path).expect("a file");
        let end = scan(&mut reader, 0, |_, _: &Note| proves, |one| found.push(one)).expect("readable");
        (found, end)
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_cut_off_and_nothing_before_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("segment");
        let notes: Vec<Vec<u8>> = (0..5_usize).map(|n| Note::to_bytes(&vec![b'#'; n * 7])).collect();
        let whole = notes.concat();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).expect("written");
            let (found, end) = scanned(&path, true);
            let kept = notes[..found.len()].concat().len();
            assert_eq!(kept as u64, end);
            assert!(length - kept < notes[found.len().min(4)].len());
            end_at(&path, end).expect("cut");
            assert_eq!(std::fs::read(&path).expect("readable"), whole[..kept]);
        }
    }

    #[test]
    fn damage_is_passed_over_only_if_a_later_record_proves_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("segment");
        // The second record crosses the end of the first block.
        let texts = [vec![b'a'; 10], vec![b'#'; BLOCK_BYTES], b"c".to_vec()];
        let notes: Vec<Vec<u8>> = texts.iter().map(|text| Note::to_bytes(text)).collect();
        let mut bytes = notes.concat();
        let second = notes[0].len();
        bytes[second + 9] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let third = (second + notes[1].len()) as u64;
        let (found, end) = scanned(&path, true);
        let damage = Found::Damage { at: second as u64, next: third };
        let expected = [Found::Record(Note(texts[0].clone())), damage, Found::Record(Note(b"c".to_vec()))];
        assert!(found == expected, "{end}");
        assert_eq!(end, bytes.len() as u64);
        assert_eq!(scanned(&path, false).1, second as u64, "a tail");
    }

    #[test]
    fn magic_bytes_are_found_across_blocks() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("segment");
        for before in BLOCK_BYTES - 4..BLOCK_BYTES + 2 {
            std::fs::write(&path, [vec![b'.'; before], Note::to_bytes(b"x")].concat()).expect("written");
            let mut reader = Reader::open(&path).expect("a file");
            let found = find(&mut reader, 0, |_: &Note| true).expect("readable");
            assert_eq!(found, Some((before as u64, Note(b"x".to_vec()))));
        }
    }
}
