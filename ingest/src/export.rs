//! Exports sealed streams as the bytes that were received.
//!
//! Invariant: what [`sealed_stream`] writes is byte for byte what was read.
//! [`strongroom_decode::stream`] fills the gap of a missing row with newlines, so the hash of
//! everything written is compared with the hash in the commit. A stream cannot be restored if one
//! of its records was redacted before it was stored. For such a stream, [`redacted_stream`] writes
//! the records, and compares their number with the one in the commit. Nothing is kept here; after a
//! crash the export is repeated.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Write;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, RecordBatch};
use strongroom_archive::fingerprint::{Fingerprint, LineChain, fingerprint, is_chained};
use strongroom_archive::{Archive, ArchiveError, EventSelection, Position, Records};
use strongroom_decode::meaning::{Difference, compare_alerts, compare_events};
use strongroom_decode::render::{Renderer, RowFault};
use strongroom_decode::stream::{self, Lines, StreamError};
use strongroom_redact::is_encrypted;
use strongroom_schemas::{Table, events, rejects};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ExportError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(
        "the {bytes} bytes written are not the ones received: their hash is not the one sealed with them"
    )]
    Changed { bytes: i64 },
    #[error("the stream has {found} records, and {sealed} were sealed")]
    RecordsMissing { found: u64, sealed: i64 },
}

/// Like [`stream::write`], up to a sealed position. The bytes written must have the hash of that
/// position.
///
/// # Errors
/// Those of [`stream::write`], and [`ExportError::Changed`] if everything is written but is not
/// what was received.
pub fn sealed_stream<E: From<StreamError> + From<ExportError>>(
    events: impl Iterator<Item = Result<RecordBatch, E>>,
    rejects: impl Iterator<Item = Result<RecordBatch, E>>,
    partition: &str,
    position: &Position,
    out: impl Write,
) -> Result<u64, E> {
    let hash = if is_chained(partition) {
        Hash::Chain(LineChain::default())
    } else {
        Hash::Whole(blake3::Hasher::new())
    };
    let mut hashed = Hashed { out, hash };
    let records = stream::write(events, rejects, position.next_offset, &mut hashed)?;
    let found = match &hashed.hash {
        Hash::Whole(hasher) => Some(fingerprint(hasher)),
        Hash::Chain(chain) => chain.value(),
    };
    if found != Some(position.prefix_blake3) {
        return Err(ExportError::Changed { bytes: position.next_offset }.into());
    }
    Ok(records)
}

/// Returns those partitions in which a record was changed before it was stored: an event was
/// redacted, or a reject was encrypted. [`sealed_stream`] cannot restore these.
///
/// # Errors
/// Errors of reading the archive.
pub fn redacted_partitions(archive: &Archive, wanted: &[&str]) -> Result<BTreeSet<String>, ArchiveError> {
    let mut partitions = BTreeSet::new();
    let columns = [events::SOURCE, events::SOURCE_OFFSET, events::STAGE_TIMESTAMP, events::REDACTION];
    let selection = EventSelection {
        having: Some(events::REDACTION.to_owned()),
        columns: columns.map(str::to_owned).to_vec(),
        ..EventSelection::default()
    };
    for batch in archive.select_events(selection)? {
        let batch = batch?;
        let text = |name| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let (Some(sources), Some(marks)) = (text(events::SOURCE), text(events::REDACTION)) else { continue };
        let marked = (0..batch.num_rows()).filter(|row| marks.is_valid(*row) && sources.is_valid(*row));
        for source in marked.map(|row| sources.value(row)) {
            if !partitions.contains(source) && wanted.contains(&source) {
                partitions.insert(source.to_owned());
            }
        }
    }
    let mut rejects = archive.read_partitions(Table::Rejects, wanted)?;
    for source in wanted {
        if partitions.contains(*source) {
            continue;
        }
        rejects.begin(source);
        for batch in rejects.by_ref() {
            let batch = batch?;
            let raws = batch.column_by_name(rejects::RAW).and_then(|raws| raws.as_binary_opt::<i32>());
            if raws.is_some_and(|raws| raws.iter().flatten().any(is_encrypted)) {
                partitions.insert((*source).to_owned());
                break;
            }
        }
    }
    Ok(partitions)
}

/// Writes the records of one of the [`redacted_partitions`], up to a sealed position: one per line,
/// without the text that was around them. Encrypted rejects are left out. `start` is the offset
/// from which on the archive still has the rows.
///
/// # Errors
/// Those of [`stream::write_lines`], and [`ExportError::RecordsMissing`] if no rows were dropped
/// from the archive, but it has fewer records than were sealed.
pub fn redacted_stream<E: From<StreamError> + From<ExportError>>(
    events: impl Iterator<Item = Result<RecordBatch, E>>,
    rejects: impl Iterator<Item = Result<RecordBatch, E>>,
    start: i64,
    position: &Position,
    out: impl Write,
) -> Result<Lines, E> {
    let lines = stream::write_lines(events, rejects, start..position.next_offset, &is_encrypted, out)?;
    if start == 0 && i64::try_from(lines.records) != Ok(position.records) {
        let (found, sealed) = (lines.records, position.records);
        return Err(ExportError::RecordsMissing { found, sealed }.into());
    }
    Ok(lines)
}

/// Returns the fingerprint of the first `length` bytes of a stream, and the number of records that
/// begin in these bytes.
///
/// # Errors
/// Those of [`stream::write`].
pub fn prefix<E: From<StreamError>>(
    events: impl Iterator<Item = Result<RecordBatch, E>>,
    rejects: impl Iterator<Item = Result<RecordBatch, E>>,
    length: i64,
) -> Result<(Fingerprint, u64), E> {
    let mut start = Start::new(length, blake3::Hasher::new());
    let records = stream::write(events, rejects, length, &mut start)?;
    Ok((fingerprint(&start.into_inner()), records))
}

/// A writer that passes on the first bytes, and ignores the rest.
pub(crate) struct Start<W> {
    out: W,
    left: usize,
}

impl<W> Start<W> {
    pub(crate) fn new(length: i64, out: W) -> Self {
        Start { out, left: usize::try_from(length).unwrap_or(0) }
    }

    pub(crate) fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write> Write for Start<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let some = bytes.len().min(self.left);
        self.out.write_all(&bytes[..some])?;
        self.left -= some;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The fingerprint of a partition while it is computed. The kind of the partition decides whether
/// it is a hash of all bytes or the chain of the lines.
enum Hash {
    Whole(blake3::Hasher),
    Chain(LineChain),
}

/// A writer that hashes the bytes that pass through it.
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

/// Renders events as bytes for a caller that checks an archive.
pub struct EventRecords;

impl Records for EventRecords {
    fn each(&self, events: &RecordBatch, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        let renderer = Renderer::new(events).map_err(|error| error.to_string())?;
        let mut record = Vec::new();
        for row in 0..events.num_rows() {
            record.clear();
            renderer.record(row, &mut record).map_err(|fault| fault_text(row, fault))?;
            each(&record);
        }
        Ok(())
    }

    fn compare(
        &self,
        table: Table,
        rows: &RecordBatch,
        format: u32,
        each: &mut dyn FnMut(&[u8]),
        differs: &mut dyn FnMut(usize, &dyn Display),
    ) -> Result<(), String> {
        let mut differs = |row: usize, difference: Difference| differs(row, &difference);
        let compared = match table {
            Table::Events => compare_events(rows, format, each, &mut differs),
            Table::Alerts => compare_alerts(rows, &mut differs),
            // The archive checks activity records itself.
            Table::Rejects | Table::Activity => Ok(()),
        };
        compared.map_err(|error| error.to_string())
    }
}

fn fault_text(row: usize, fault: RowFault) -> String {
    format!("row {row} of a batch does not give a record: {}", fault.as_str())
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::cloned_ref_to_slice_refs,
        clippy::unnecessary_to_owned,
        reason = "batches are cheap to clone, and own what they hold"
    )]
    use super::*;
    use strongroom_decode::decode_bytes;

    #[test]
    fn the_start_of_a_stream_has_the_hash_of_its_bytes() {
        let log = "{\"auditID\":\"a\"}\n\n\nbroken\n{\"auditID\":\"b\"}\nbroken too\n";
        let decoded = decode_bytes(log.as_bytes(), "c", "file/f").expect("columns of one length");
        let rows = |batch: &RecordBatch| [Ok::<_, ExportError>(batch.clone())].into_iter();
        let begins = [0, 18, 25, 41];
        for length in 0..=log.len() {
            let (hash, records) = prefix(rows(&decoded.events), rows(&decoded.rejects), length as i64)
                .expect("the whole stream");
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
        let (records, out) = export(&[events.clone()], &[rejects.clone()]).expect("the whole stream");
        assert_eq!((records, out.as_slice()), (4, log.as_bytes()));
        let without_the_middle = [events.slice(0, 1), events.slice(2, 1)];
        for outcome in [export(&without_the_middle, &[rejects.clone()]), export(&[events.clone()], &[])] {
            assert!(matches!(outcome, Err(ExportError::Changed { .. })), "{outcome:?}");
        }
    }
}
