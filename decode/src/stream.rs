//! Writes rows back as the bytes of their stream.
//!
//! Invariant: what is written is byte for byte what was read, or an error says where the rows do
//! not determine it. Rows have the offsets of their records. The only bytes that are neither in a
//! record nor in a frame are newlines, so a gap between two records is filled with newlines. The
//! gap of a missing row would be filled with newlines too, so the caller compares the hash of the
//! whole stream. A forged offset or position could be filled without end, so newlines are bounded by
//! what the rows account for. Nothing is kept here; after a crash the caller writes the stream again.

use std::io::Write;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, RecordBatch};
use strongroom_schemas::rejects;
use thiserror::Error;

use crate::render::{Renderer, RowFault, WrongColumn};

#[derive(Debug, Error)]
pub enum StreamError {
    #[error("record at offset {offset} begins before offset {at}, where the one before it ends")]
    Overlap { offset: i64, at: i64 },
    #[error(
        "the rows up to offset {at} account for {records} bytes, but {blank} more, all of them newlines, would have to \
         be written up to offset {offset}"
    )]
    Blank { at: i64, records: i64, blank: i64, offset: i64 },
    #[error("cannot read the rows back as records")]
    Columns(#[from] WrongColumn),
    #[error("the row at offset {offset} does not give a record")]
    Row {
        offset: i64,
        #[source]
        source: RowFault,
    },
    #[error("cannot read a row of rejects back: column {0} has the wrong type")]
    RejectColumn(&'static str),
    #[error("cannot write the exported lines")]
    Write(#[source] std::io::Error),
}

/// Newlines between the records of a stream, beyond as many as the records have bytes.
const BLANK_BYTES_MAX: i64 = 256 << 20;

/// Writes records of one stream at their offsets.
pub struct StreamWriter<W> {
    out: W,
    /// Offset in the stream of the next byte.
    at: i64,
    /// How many of the bytes so far were of records and their frames, and how many were not.
    records: i64,
    blank: i64,
}

impl<W: Write> StreamWriter<W> {
    pub fn new(out: W) -> Self {
        StreamWriter::from(out, 0)
    }

    fn from(out: W, at: i64) -> Self {
        StreamWriter { out, at, records: 0, blank: 0 }
    }

    /// Writes a record that was at `offset`, with the frame bytes `before` and `after` it.
    pub fn record(
        &mut self,
        offset: i64,
        before: &[u8],
        record: &[u8],
        after: &[u8],
    ) -> Result<(), StreamError> {
        self.advance(offset.saturating_sub_unsigned(before.len() as u64))?;
        for bytes in [before, record, after] {
            self.out.write_all(bytes).map_err(StreamError::Write)?;
            self.at = self.at.saturating_add_unsigned(bytes.len() as u64);
            self.records = self.records.saturating_add_unsigned(bytes.len() as u64);
        }
        Ok(())
    }

    /// Writes newlines up to `offset`.
    pub fn advance(&mut self, offset: i64) -> Result<(), StreamError> {
        if offset < self.at {
            return Err(StreamError::Overlap { offset, at: self.at });
        }
        let gap = offset.saturating_sub(self.at);
        let blank = self.blank.saturating_add(gap);
        if blank > self.records.saturating_add(BLANK_BYTES_MAX) {
            return Err(StreamError::Blank { at: self.at, records: self.records, blank, offset });
        }
        self.blank = blank;
        const NEWLINES: [u8; 4096] = [b'\n'; 4096];
        let mut left = gap;
        while left > 0 {
            let some = left.min(NEWLINES.len() as i64);
            self.out.write_all(&NEWLINES[..some as usize]).map_err(StreamError::Write)?;
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

/// Writes one stream from its events and its rejects, each in offset order: the records that begin
/// before `end`, and the newlines up to `end`. Rows from `end` on are left out. There may be such
/// rows if one table was committed ahead of the other. Returns the number of records.
///
/// # Errors
/// Those of [`StreamError`]; errors of the iterators pass through.
pub fn write<E: From<StreamError>>(
    events: impl Iterator<Item = Result<RecordBatch, E>>,
    rejects: impl Iterator<Item = Result<RecordBatch, E>>,
    end: i64,
    out: impl Write,
) -> Result<u64, E> {
    write_range(events, rejects, 0..end, out)
}

/// Like [`write()`], but leaves out the records that begin before the range, and the newlines before
/// it.
///
/// # Errors
/// Like [`write()`].
pub fn write_range<E: From<StreamError>>(
    events: impl Iterator<Item = Result<RecordBatch, E>>,
    rejects: impl Iterator<Item = Result<RecordBatch, E>>,
    range: std::ops::Range<i64>,
    out: impl Write,
) -> Result<u64, E> {
    let (start, end) = (range.start, range.end);
    let mut writer = StreamWriter::from(out, start);
    let mut rejects = RejectRows::new(rejects, start);
    let mut records = 0;
    let mut record = Vec::new();
    'batches: for batch in events {
        let batch = batch?;
        let renderer = Renderer::new(&batch).map_err(StreamError::from)?;
        for row in 0..batch.num_rows() {
            let offset = renderer.offset(row);
            if offset >= end {
                break 'batches;
            }
            if offset < start {
                continue;
            }
            records += rejects.each_before(offset, &mut |at, bytes| writer.record(at, &[], bytes, &[]))?;
            record.clear();
            renderer.record(row, &mut record).map_err(|source| StreamError::Row { offset, source })?;
            let (before, after) = renderer.frame(row);
            writer.record(offset, before, &record, after)?;
            records += 1;
        }
    }
    records += rejects.each_before(end, &mut |at, bytes| writer.record(at, &[], bytes, &[]))?;
    if writer.offset() < end {
        writer.advance(end)?;
    }
    writer.out.flush().map_err(StreamError::Write)?;
    Ok(records)
}

/// What [`write_lines`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Records of the stream in the range, including those that were kept back.
    pub records: u64,
    /// Records that were redacted before they were stored.
    pub redacted: u64,
    /// Rejects that were kept back.
    pub kept_back: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Writes the records of a stream that cannot be written byte for byte, because some of its records
/// were redacted before they were stored. Writes each record that begins in the range, in order and
/// with a newline, and leaves out the bytes around the records. Rejects for which `is_kept_back`
/// returns true are counted, and not written.
///
/// # Errors
/// Those of [`StreamError`]; errors of the iterators pass through.
pub fn write_lines<E: From<StreamError>>(
    events: impl Iterator<Item = Result<RecordBatch, E>>,
    rejects: impl Iterator<Item = Result<RecordBatch, E>>,
    range: std::ops::Range<i64>,
    is_kept_back: &dyn Fn(&[u8]) -> bool,
    mut out: impl Write,
) -> Result<Lines, E> {
    let mut lines = Lines::default();
    let mut rejects = RejectRows::new(rejects, range.start);
    let mut line = |lines: &mut Lines, bytes: &[u8]| {
        lines.records += 1;
        lines.bytes += bytes.len() as u64 + 1;
        out.write_all(bytes).and_then(|()| out.write_all(b"\n")).map_err(StreamError::Write)
    };
    let reject = |line: &mut dyn FnMut(&mut Lines, &[u8]) -> _, lines: &mut Lines, bytes: &[u8]| {
        if is_kept_back(bytes) {
            (lines.records, lines.kept_back) = (lines.records + 1, lines.kept_back + 1);
            return Ok(());
        }
        line(lines, bytes)
    };
    let mut record = Vec::new();
    'batches: for batch in events {
        let batch = batch?;
        let renderer = Renderer::new(&batch).map_err(StreamError::from)?;
        for row in 0..batch.num_rows() {
            let offset = renderer.offset(row);
            if offset >= range.end {
                break 'batches;
            }
            if offset < range.start {
                continue;
            }
            rejects.each_before(offset, &mut |_, bytes| reject(&mut line, &mut lines, bytes))?;
            record.clear();
            renderer.record(row, &mut record).map_err(|source| StreamError::Row { offset, source })?;
            lines.redacted += u64::from(renderer.is_redacted(row));
            line(&mut lines, &record)?;
        }
    }
    rejects.each_before(range.end, &mut |_, bytes| reject(&mut line, &mut lines, bytes))?;
    out.flush().map_err(StreamError::Write)?;
    Ok(lines)
}

/// Takes the offset and the bytes of a reject.
type EachReject<'e> = dyn FnMut(i64, &[u8]) -> Result<(), StreamError> + 'e;

/// Rejects, one by one, from their batches.
struct RejectRows<I> {
    batches: I,
    batch: Option<RecordBatch>,
    row: usize,
    /// Rejects before this offset are left out.
    start: i64,
}

impl<E: From<StreamError>, I: Iterator<Item = Result<RecordBatch, E>>> RejectRows<I> {
    fn new(batches: I, start: i64) -> Self {
        RejectRows { batches, batch: None, row: 0, start }
    }

    /// Calls `each` with the offset and the bytes of every reject before `limit`, except rejects of
    /// earlier calls. Returns the number of its calls.
    fn each_before(&mut self, limit: i64, each: &mut EachReject<'_>) -> Result<u64, E> {
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
                .ok_or(StreamError::RejectColumn(rejects::SOURCE_OFFSET))?;
            let raw = batch
                .column(rejects::index::RAW)
                .as_binary_opt::<i32>()
                .ok_or(StreamError::RejectColumn(rejects::RAW))?;
            let offset = offsets.value(self.row);
            if offset >= limit {
                return Ok(written);
            }
            if offset < self.start {
                self.row += 1;
                continue;
            }
            let bytes = if raw.is_valid(self.row) { raw.value(self.row) } else { &[] };
            each(offset, bytes)?;
            written += 1;
            self.row += 1;
        }
    }
}
