//! The way back: records in offset order become the bytes of their stream.
//!
//! Invariant: what is written is byte for byte what was read, or an error says where the archive
//! cannot tell. Records carry their offsets; the only bytes that no record and no frame holds are
//! newlines, so a gap between two records is that many newlines. Where a row is missing the gap would
//! be filled with newlines too, so [`sealed_stream`] compares the whole with the hash in the commit.

use std::fmt::Display;
use std::io::Write;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, RecordBatch};
use strongroom_archive::Position;
use strongroom_archive::Records;
use strongroom_schemas::{Table, rejects};
use thiserror::Error;

use crate::chain::{LineChain, is_chained};
use crate::meaning::{Difference, compare_alerts, compare_events};
use crate::render::{Renderer, RowFault, WrongColumn};
use crate::source::{Fingerprint, fingerprint};

#[derive(Debug, Error)]
pub enum ExportError {
    #[error("record at offset {offset} begins before offset {at}, where the one before it ends")]
    Overlap { offset: i64, at: i64 },
    #[error(
        "the {bytes} bytes written are not the ones received: their hash is not the one sealed with them"
    )]
    Changed { bytes: i64 },
    #[error("cannot read the rows back as records")]
    Columns(#[from] WrongColumn),
    #[error("the row at offset {offset} gives no record")]
    Row {
        offset: i64,
        #[source]
        source: RowFault,
    },
    #[error("cannot read a row of rejects back: column {0} has another type")]
    RejectColumn(&'static str),
    #[error("cannot write the exported lines")]
    Write(#[source] std::io::Error),
}

/// Writes records of one stream at their offsets.
pub struct StreamWriter<W> {
    out: W,
    /// Offset in the stream of the next byte.
    at: i64,
}

impl<W: Write> StreamWriter<W> {
    pub fn new(out: W) -> Self {
        StreamWriter { out, at: 0 }
    }

    /// Writes a record whose first byte after `before` stood at `offset`.
    pub fn record(
        &mut self,
        offset: i64,
        before: &[u8],
        record: &[u8],
        after: &[u8],
    ) -> Result<(), ExportError> {
        self.advance(offset - before.len() as i64)?;
        for bytes in [before, record, after] {
            self.out.write_all(bytes).map_err(ExportError::Write)?;
            self.at += bytes.len() as i64;
        }
        Ok(())
    }

    /// Writes the newlines up to `offset`.
    pub fn advance(&mut self, offset: i64) -> Result<(), ExportError> {
        let gap = offset - self.at;
        if gap < 0 {
            return Err(ExportError::Overlap { offset, at: self.at });
        }
        const NEWLINES: [u8; 4096] = [b'\n'; 4096];
        let mut left = gap;
        while left > 0 {
            let some = left.min(NEWLINES.len() as i64);
            self.out.write_all(&NEWLINES[..some as usize]).map_err(ExportError::Write)?;
            left -= some;
        }
        self.at = offset;
        Ok(())
    }

    /// Offset of the next byte: how much has been written.
    pub fn offset(&self) -> i64 {
        self.at
    }

    pub fn into_inner(self) -> W {
        self.out
    }
}

/// Writes one stream from its events and its rejects, each in offset order: the records that begin before
/// `end`, and the newlines up to there. Rows from `end` on are not read: a table that was committed ahead of
/// the other may have them. Returns the number of records.
///
/// # Errors
/// As [`ExportError`]; errors of the iterators pass through.
pub fn stream<E: From<ExportError>>(
    events: impl Iterator<Item = Result<RecordBatch, E>>,
    rejects: impl Iterator<Item = Result<RecordBatch, E>>,
    end: i64,
    out: impl Write,
) -> Result<u64, E> {
    rest_of_stream(events, rejects, 0..end, out)
}

/// As [`stream`], without the records that begin before the range, and the newlines between them.
///
/// # Errors
/// As [`stream`].
pub fn rest_of_stream<E: From<ExportError>>(
    events: impl Iterator<Item = Result<RecordBatch, E>>,
    rejects: impl Iterator<Item = Result<RecordBatch, E>>,
    range: std::ops::Range<i64>,
    out: impl Write,
) -> Result<u64, E> {
    let (start, end) = (range.start, range.end);
    let mut writer = StreamWriter { out, at: start };
    let mut rejects = RejectRows::new(rejects, start);
    let mut records = 0;
    let mut record = Vec::new();
    'batches: for batch in events {
        let batch = batch?;
        let renderer = Renderer::new(&batch).map_err(ExportError::from)?;
        for row in 0..batch.num_rows() {
            let offset = renderer.offset(row);
            if offset >= end {
                break 'batches;
            }
            if offset < start {
                continue;
            }
            records += rejects.write_before(offset, &mut writer)?;
            record.clear();
            renderer.record(row, &mut record).map_err(|source| ExportError::Row { offset, source })?;
            let (before, after) = renderer.frame(row);
            writer.record(offset, before, &record, after)?;
            records += 1;
        }
    }
    records += rejects.write_before(end, &mut writer)?;
    if writer.offset() < end {
        writer.advance(end)?;
    }
    writer.out.flush().map_err(ExportError::Write)?;
    Ok(records)
}

/// As [`stream`] up to a sealed position, whose hash the bytes written must have.
///
/// # Errors
/// As [`stream`], and [`ExportError::Changed`] when everything is written and is not what was received.
pub fn sealed_stream<E: From<ExportError>>(
    events: impl Iterator<Item = Result<RecordBatch, E>>,
    rejects: impl Iterator<Item = Result<RecordBatch, E>>,
    partition: &str,
    position: &Position,
    out: impl Write,
) -> Result<u64, E> {
    let hash = match is_chained(partition) {
        true => Hash::Chain(LineChain::default()),
        false => Hash::Whole(blake3::Hasher::new()),
    };
    let mut hashed = Hashed { out, hash };
    let records = stream(events, rejects, position.next_offset, &mut hashed)?;
    let found = match &hashed.hash {
        Hash::Whole(hasher) => Some(fingerprint(hasher)),
        Hash::Chain(chain) => chain.value(),
    };
    if found != Some(position.prefix_blake3) {
        return Err(ExportError::Changed { bytes: position.next_offset }.into());
    }
    Ok(records)
}

/// First half of the hash of the first `length` bytes of a stream, and the records that begin in them.
///
/// # Errors
/// As [`stream`].
pub fn prefix<E: From<ExportError>>(
    events: impl Iterator<Item = Result<RecordBatch, E>>,
    rejects: impl Iterator<Item = Result<RecordBatch, E>>,
    length: i64,
) -> Result<(Fingerprint, u64), E> {
    let mut start = Start { hasher: blake3::Hasher::new(), left: usize::try_from(length).unwrap_or(0) };
    let records = stream(events, rejects, length, &mut start)?;
    Ok((fingerprint(&start.hasher), records))
}

/// Hashes the first bytes that are written, and forgets the others.
struct Start {
    hasher: blake3::Hasher,
    left: usize,
}

impl Write for Start {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let some = bytes.len().min(self.left);
        self.hasher.update(&bytes[..some]);
        self.left -= some;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The fingerprint of a partition, as its kind has it.
enum Hash {
    Whole(blake3::Hasher),
    Chain(LineChain),
}

/// Hashes what passes through.
struct Hashed<W> {
    out: W,
    hash: Hash,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        match &mut self.hash {
            Hash::Whole(hasher) => _ = hasher.update(&bytes[..written]),
            Hash::Chain(chain) => chain.update(&bytes[..written]),
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Rejects, one by one, from their batches.
struct RejectRows<I> {
    batches: I,
    batch: Option<RecordBatch>,
    row: usize,
    /// Those before it are left out.
    start: i64,
}

impl<E: From<ExportError>, I: Iterator<Item = Result<RecordBatch, E>>> RejectRows<I> {
    fn new(batches: I, start: i64) -> Self {
        RejectRows { batches, batch: None, row: 0, start }
    }

    fn write_before<W: Write>(&mut self, limit: i64, writer: &mut StreamWriter<W>) -> Result<u64, E> {
        let mut written = 0;
        loop {
            while self.batch.as_ref().is_none_or(|batch| self.row >= batch.num_rows()) {
                match self.batches.next() {
                    Some(batch) => (self.batch, self.row) = (Some(batch?), 0),
                    None => return Ok(written),
                }
            }
            let Some(batch) = &self.batch else { return Ok(written) };
            let offsets = batch
                .column(rejects::index::SOURCE_OFFSET)
                .as_primitive_opt::<Int64Type>()
                .ok_or(ExportError::RejectColumn(rejects::SOURCE_OFFSET))?;
            let raw = batch
                .column(rejects::index::RAW)
                .as_binary_opt::<i32>()
                .ok_or(ExportError::RejectColumn(rejects::RAW))?;
            let offset = offsets.value(self.row);
            if offset >= limit {
                return Ok(written);
            }
            if offset < self.start {
                self.row += 1;
                continue;
            }
            let bytes = if raw.is_valid(self.row) { raw.value(self.row) } else { &[] };
            writer.record(offset, &[], bytes, &[])?;
            written += 1;
            self.row += 1;
        }
    }
}

/// Gives events back as bytes to whoever checks an archive.
pub struct EventRecords;

impl Records for EventRecords {
    fn each(&self, events: &RecordBatch, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        let renderer = Renderer::new(events).map_err(|error| error.to_string())?;
        let mut record = Vec::new();
        for row in 0..events.num_rows() {
            record.clear();
            renderer.record(row, &mut record).map_err(|fault| told(row, fault))?;
            each(&record);
        }
        Ok(())
    }

    fn compare(
        &self,
        table: Table,
        rows: &RecordBatch,
        each: &mut dyn FnMut(&[u8]),
        differs: &mut dyn FnMut(usize, &dyn Display),
    ) -> Result<(), String> {
        let mut differs = |row: usize, difference: Difference| differs(row, &difference);
        let compared = match table {
            Table::Events => compare_events(rows, each, &mut differs),
            Table::Alerts => compare_alerts(rows, &mut differs),
            // The archive knows itself what a record of activity says.
            Table::Rejects | Table::Activity => Ok(()),
        };
        compared.map_err(|error| error.to_string())
    }
}

fn told(row: usize, fault: RowFault) -> String {
    format!("row {row} of a batch gives no record: {}", fault.as_str())
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::cloned_ref_to_slice_refs,
        clippy::unnecessary_to_owned,
        reason = "batches are cheap to clone, and own what they hold"
    )]
    use super::*;
    use crate::decode::decode_bytes;

    #[test]
    fn the_start_of_a_stream_has_the_hash_of_its_bytes() {
        let log = "{\"auditID\":\"a\"}\n\n\nbroken\n{\"auditID\":\"b\"}\nbroken too\n";
        let decoded = decode_bytes(log.as_bytes(), "c", "file/f").expect("columns of one length");
        let rows = |batch: &RecordBatch| [Ok::<_, ExportError>(batch.clone())].into_iter();
        let begins = [0, 18, 25, 41];
        for length in 0..=log.len() {
            let (hash, records) =
                prefix(rows(&decoded.events), rows(&decoded.rejects), length as i64).expect("whole");
            assert_eq!(hash[..], blake3::hash(&log.as_bytes()[..length]).as_bytes()[..16], "{length}");
            assert_eq!(records, begins.iter().filter(|begin| **begin < length).count() as u64, "{length}");
        }
    }

    #[test]
    fn a_missing_row_is_no_run_of_newlines() {
        let log = "{\"auditID\":\"a\"}\n{\"auditID\":\"b\"}\nbroken\n{\"auditID\":\"c\"}\n";
        let decoded = decode_bytes(log.as_bytes(), "c", "file/f").expect("columns of one length");
        assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (3, 1));
        let position = Position {
            next_offset: log.len() as i64,
            records: 4,
            prefix_blake3: blake3::hash(log.as_bytes()).as_bytes()[..16].try_into().expect("16 of 32 bytes"),
            broker_offset: None,
        };
        let export = |events: &[RecordBatch], rejects: &[RecordBatch]| {
            let rows = |batches: &[RecordBatch]| batches.to_vec().into_iter().map(Ok::<_, ExportError>);
            let mut out = Vec::new();
            sealed_stream(rows(events), rows(rejects), "file/x", &position, &mut out)
                .map(|records| (records, out))
        };
        let (events, rejects) = (&decoded.events, &decoded.rejects);
        let (records, out) = export(&[events.clone()], &[rejects.clone()]).expect("whole");
        assert_eq!((records, out.as_slice()), (4, log.as_bytes()));
        let without_the_middle = [events.slice(0, 1), events.slice(2, 1)];
        for outcome in [export(&without_the_middle, &[rejects.clone()]), export(&[events.clone()], &[])] {
            assert!(matches!(outcome, Err(ExportError::Changed { .. })), "{outcome:?}");
        }
    }
}
