//! The format of a segment of the write-ahead log, in bytes.
//!
//! ```text
//! segment = head, record*
//! head    = "\nSRWAL\0", version u8, id [16], start u64, directory_bytes u32, partition*, checksum [16]
//! partition = name_bytes u16, name, position
//! position  = offset u64, lines u64, chain [16]        in the partition's stream
//! record  = "\n\xffSW", name_bytes u16, 0 u16, text_bytes u32, lines u32,
//!           group u64, received u64, position, key [32], text_checksum [16],
//!           head_checksum [16], name, text
//! ```
//! Numbers are little-endian; checksums are the first half of a BLAKE3 hash. A *group* is the
//! records that were written and synced together. `start` and `group` are offsets that count bytes
//! of records over all segments: `start` is where the segment's first record begins, and `group` is
//! where the first record of the record's group begins. `received` is milliseconds since 1970. The
//! `position` in the head of a segment is where the partition's stream ends when the segment
//! begins. The `position` of a record is where the record begins in the stream. `text` is lines. In
//! a segment of version 2 it is encrypted under the key of a redaction policy. `text_bytes` and
//! `text_checksum` are then those of the encrypted bytes, while a `position` counts bytes and lines
//! of the clear text. Each record begins with a newline, which ends the last line before it, so
//! that the log can be read as text in an emergency.
//!
//! Invariant: whatever clients send, a search for the beginning of a record finds only records that
//! this program wrote. A text in clear never contains the first two bytes of a record: a text of
//! several lines is UTF-8, which has no `\xff`, and a text of one line has a newline at its end
//! only. An encrypted text may contain the two bytes, but no client can choose the bytes that
//! follow them there, and those would have to match the checksum of a head.

use strongroom_archive::fingerprint::{Fingerprint, fingerprint};
use strongroom_journal::checksum;
use strongroom_redact::ENCRYPTED_OVERHEAD;

pub const SEGMENT_MAGIC: &[u8; 7] = b"\nSRWAL\0";
/// Version of a segment with texts in clear.
const CLEAR: u8 = 1;
/// Version of a segment with encrypted texts.
const ENCRYPTED: u8 = 2;
pub const RECORD_MAGIC: &[u8; 4] = b"\n\xffSW";
pub const RECORD_HEAD_BYTES: usize = 128;
/// Longest name of a cluster.
pub const NAME_BYTES_MAX: usize = 253;
/// Maximum number of clusters that one log may know over its life.
pub const PARTITIONS_MAX: usize = 1024;
/// Longest text: the longest body that is accepted, and a newline.
pub const TEXT_BYTES_MAX: usize = (1 << 30) + 1;
const SEGMENT_FIXED_BYTES: usize = 36;
const END_BYTES: usize = 32;
/// Longest head of a segment.
pub const SEGMENT_HEAD_BYTES_MAX: usize =
    SEGMENT_FIXED_BYTES + PARTITIONS_MAX * (2 + NAME_BYTES_MAX + END_BYTES) + 16;

/// BLAKE3 hash of the path and body of a batch. Two batches with the same hash are the same.
pub type Key = [u8; 32];

/// The position of a partition's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    pub offset: u64,
    pub lines: u64,
    pub chain: Fingerprint,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// Whether the texts of the segment are encrypted.
    pub is_encrypted: bool,
    pub id: [u8; 16],
    pub start: u64,
    pub partitions: Vec<(String, End)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHead {
    pub text_bytes: u32,
    pub lines: u32,
    pub group: u64,
    pub received: u64,
    pub begins: End,
    pub key: Key,
    pub text_checksum: Fingerprint,
    pub name: String,
}

fn put_end(out: &mut Vec<u8>, end: &End) {
    out.extend_from_slice(&end.offset.to_le_bytes());
    out.extend_from_slice(&end.lines.to_le_bytes());
    out.extend_from_slice(&end.chain);
}

impl SegmentHead {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut directory = Vec::new();
        for (name, end) in &self.partitions {
            directory.extend_from_slice(&(name.len() as u16).to_le_bytes());
            directory.extend_from_slice(name.as_bytes());
            put_end(&mut directory, end);
        }
        let mut out = SEGMENT_MAGIC.to_vec();
        out.push(if self.is_encrypted { ENCRYPTED } else { CLEAR });
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&(directory.len() as u32).to_le_bytes());
        out.extend_from_slice(&directory);
        let sum = checksum(&[&out]);
        out.extend_from_slice(&sum);
        out
    }

    /// Parses the head of a segment at the beginning of `bytes`. Returns it with its length.
    pub fn parse(bytes: &[u8]) -> Option<(SegmentHead, usize)> {
        let mut rest = Rest(bytes);
        if rest.take(SEGMENT_MAGIC.len())? != SEGMENT_MAGIC {
            return None;
        }
        let is_encrypted = match rest.array()? {
            [CLEAR] => false,
            [ENCRYPTED] => true,
            _ => return None,
        };
        let id = rest.array()?;
        let start = rest.u64()?;
        let directory_bytes = usize::try_from(rest.u32()?).ok()?;
        let mut directory = Rest(rest.take(directory_bytes)?);
        let head_bytes = SEGMENT_FIXED_BYTES + directory_bytes;
        if checksum(&[bytes.get(..head_bytes)?]) != rest.array()? {
            return None;
        }
        let mut partitions = Vec::new();
        while !directory.0.is_empty() {
            let name_bytes = usize::from(directory.u16()?);
            let name = String::from_utf8(directory.take(name_bytes)?.to_vec()).ok()?;
            partitions.push((name, directory.end()?));
        }
        Some((SegmentHead { is_encrypted, id, start, partitions }, head_bytes + 16))
    }
}

impl RecordHead {
    /// Returns the length of the whole record, in bytes.
    pub fn record_bytes(&self) -> u64 {
        (RECORD_HEAD_BYTES + self.name.len()) as u64 + u64::from(self.text_bytes)
    }

    /// Returns the offset of the record's text from the beginning of the record.
    pub fn text_at(&self) -> u64 {
        (RECORD_HEAD_BYTES + self.name.len()) as u64
    }

    /// Returns the bytes of the record's head and name, which its text follows.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = RECORD_MAGIC.to_vec();
        out.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.text_bytes.to_le_bytes());
        out.extend_from_slice(&self.lines.to_le_bytes());
        out.extend_from_slice(&self.group.to_le_bytes());
        out.extend_from_slice(&self.received.to_le_bytes());
        put_end(&mut out, &self.begins);
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.text_checksum);
        let sum = Self::head_checksum(&out, self.name.as_bytes());
        out.extend_from_slice(&sum);
        out.extend_from_slice(self.name.as_bytes());
        out
    }

    fn head_checksum(fixed: &[u8], name: &[u8]) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        hasher.update(fixed);
        hasher.update(name);
        fingerprint(&hasher)
    }

    /// Parses the record at the beginning of `bytes`, which must hold at least its head and name.
    pub fn parse(bytes: &[u8]) -> Option<RecordHead> {
        let mut rest = Rest(bytes);
        if rest.take(RECORD_MAGIC.len())? != RECORD_MAGIC {
            return None;
        }
        let name_bytes = usize::from(rest.u16()?);
        rest.u16()?;
        let (text_bytes, lines) = (rest.u32()?, rest.u32()?);
        let (group, received) = (rest.u64()?, rest.u64()?);
        let begins = rest.end()?;
        let (key, text_checksum, sum) = (rest.array()?, rest.array()?, rest.array()?);
        let name = rest.take(name_bytes)?;
        let sound = name_bytes <= NAME_BYTES_MAX
            && text_bytes as usize <= TEXT_BYTES_MAX + ENCRYPTED_OVERHEAD
            && Self::head_checksum(bytes.get(..RECORD_HEAD_BYTES - 16)?, name) == sum;
        let name = String::from_utf8(name.to_vec()).ok()?;
        sound.then_some(RecordHead { text_bytes, lines, group, received, begins, key, text_checksum, name })
    }
}

/// The bytes of a head that are not parsed yet.
struct Rest<'b>(&'b [u8]);

impl<'b> Rest<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn end(&mut self) -> Option<End> {
        Some(End { offset: self.u64()?, lines: self.u64()?, chain: self.array()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_and_no_changed_bit_goes_unseen() {
        let end = End { offset: 7, lines: 2, chain: [9; 16] };
        let record = RecordHead {
            text_bytes: 3,
            lines: 1,
            group: 11,
            received: 12,
            begins: end,
            key: [4; 32],
            text_checksum: checksum(&[b"{}\n"]),
            name: "prod".to_owned(),
        };
        let partitions = vec![("prod".to_owned(), end)];
        let segment = SegmentHead { is_encrypted: true, id: [1; 16], start: 5, partitions };
        let (record_bytes, segment_bytes) = (record.to_bytes(), segment.to_bytes());
        assert_eq!(record_bytes.len() as u64, record.text_at());
        assert_eq!(RecordHead::parse(&record_bytes), Some(record));
        assert_eq!(SegmentHead::parse(&segment_bytes), Some((segment, segment_bytes.len())));
        for bit in 0..record_bytes.len() * 8 {
            let mut bytes = record_bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHead::parse(&bytes), None);
            assert_eq!(RecordHead::parse(&record_bytes[..bit / 8]), None);
        }
        for bit in 0..segment_bytes.len() * 8 {
            let mut bytes = segment_bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHead::parse(&bytes), None);
            assert_eq!(SegmentHead::parse(&segment_bytes[..bit / 8]), None);
        }
    }
}
