//! Compares the beginning of a stream with what the archive has of it.
//!
//! If no row was redacted, the rows give the bytes of their stream, and the hash of these bytes is
//! compared. Otherwise the input is decoded again, and compared row by row. A row that was not
//! redacted is compared by its bytes. A redacted row is compared by its offset, its request and its
//! time.
//!
//! Invariant: an input is taken for the beginning of a stored stream only if every record of the
//! input is stored at its offset. So a file that was read before adds nothing, and no record is
//! taken for another one that differs in anything that is stored in clear. No state.

use std::cell::Cell;
use std::iter::Peekable;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array as _, RecordBatch};
use strongroom_archive::fingerprint::Fingerprint;
use strongroom_archive::{Archive, ArchiveError};
use strongroom_decode::render::Renderer;
use strongroom_decode::stream;
use strongroom_decode::{Decoder, DecoderConfig};
use strongroom_lines::frame::Origin;
use strongroom_redact::is_encrypted;
use strongroom_schemas::events::index;
use strongroom_schemas::{Table, events, rejects};

use crate::export;
use crate::source::place::Heads;
use crate::source::{CompareError, FileError, Stream};

/// Returns the number of records in an input, if a stored stream begins with it; `None` if the
/// stored stream is another one. `stream` was read to its end: it has `length` bytes, with the
/// fingerprint `prefix`.
///
/// # Errors
/// If the input or the archive cannot be read.
pub fn stored_start(
    archive: &Archive,
    stream: &Stream,
    origin: &Arc<Origin>,
    config: &DecoderConfig,
    (length, prefix): (i64, Fingerprint),
) -> Result<Option<u64>, FileError> {
    let label = stream.input().label();
    let compare =
        |source: CompareError| FileError::Compare { label: label.clone(), source: Box::new(source) };
    let rows = |table| -> Result<_, FileError> {
        let rows = archive.read_rows(table, &origin.partition).map_err(|error| compare(error.into()))?;
        Ok(rows.map(|batch: Result<RecordBatch, ArchiveError>| batch.map_err(CompareError::from)))
    };
    let is_changed = Cell::new(false);
    let events = rows(Table::Events)?.inspect(|batch| is_changed.set(is_changed.get() || has_marks(batch)));
    let sealed =
        rows(Table::Rejects)?.inspect(|batch| is_changed.set(is_changed.get() || has_ciphers(batch)));
    let found = export::prefix(events, sealed, length);
    if !is_changed.get() {
        let (found, records) = found.map_err(compare)?;
        return Ok((found == prefix).then_some(records));
    }
    let stored = Stored {
        events: rows(Table::Events)?.flat_map(event_rows as Rows).peekable(),
        rejects: rows(Table::Rejects)?.flat_map(reject_rows as Rows).peekable(),
    };
    begins_with(stored, stream.again()?, origin, config, &compare)
}

/// Remembers the beginning of a stored partition, unless it is remembered already. The remembered
/// beginning is empty if redaction changed it before it was stored, or if it cannot be read.
pub fn load_head(archive: &Archive, partition: &str, end: i64, heads: &mut Heads) {
    if heads.has(partition, end) {
        return;
    }
    let length = Heads::length(end);
    let mut head = Vec::new();
    let mut load = || -> Result<(), CompareError> {
        let rows = |table| -> Result<_, CompareError> {
            let rows = archive.read_rows(table, partition)?;
            Ok(rows.map(|batch: Result<RecordBatch, ArchiveError>| batch.map_err(CompareError::from)))
        };
        let is_changed = Cell::new(false);
        let see = |found: bool| is_changed.set(is_changed.get() || found);
        let events = rows(Table::Events)?.inspect(|batch| see(has_marks(batch)));
        let sealed = rows(Table::Rejects)?.inspect(|batch| see(has_ciphers(batch)));
        let mut start = export::Start::new(length, Vec::new());
        stream::write::<CompareError>(events, sealed, length, &mut start)?;
        if !is_changed.get() {
            head = start.into_inner();
        }
        Ok(())
    };
    if load().is_err() {
        // A later read of the whole stream meets the same error, and reports it.
        head.clear();
    }
    heads.remember(partition, head, length);
}

fn has_marks(batch: &Result<RecordBatch, CompareError>) -> bool {
    let column = batch.as_ref().ok().and_then(|batch| batch.column_by_name(events::REDACTION));
    column.is_some_and(|column| column.null_count() < column.len())
}

fn has_ciphers(batch: &Result<RecordBatch, CompareError>) -> bool {
    let column = batch.as_ref().ok().and_then(|batch| batch.column_by_name(rejects::RAW));
    let raw = column.and_then(|column| column.as_binary_opt::<i32>());
    raw.is_some_and(|raw| raw.iter().flatten().any(is_encrypted))
}

/// The parts of a stream's record that are compared.
#[derive(Debug)]
enum Row {
    /// `record` is `None` if it was redacted.
    Event { request: Request, record: Option<Vec<u8>> },
    /// The bytes of the reject; if they were encrypted, the maximum number of them.
    Reject { raw: Result<Vec<u8>, usize> },
}

/// The members of an event that no policy changes.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    audit_id: Option<String>,
    stage: Option<String>,
    verb: Option<String>,
    stage_us: Option<i64>,
}

impl Row {
    /// Whether this stored row may be what was written for the row `received`.
    fn is_of(&self, received: &Row) -> bool {
        match (self, received) {
            (Row::Event { request, record }, Row::Event { request: of, record: Some(bytes) }) => {
                request == of && record.as_ref().is_none_or(|record| record == bytes)
            }
            (Row::Reject { raw: Ok(raw) }, Row::Reject { raw: Ok(bytes) }) => raw == bytes,
            (
                Row::Reject { raw: Err(longest) },
                Row::Reject { raw: Ok(bytes) } | Row::Event { record: Some(bytes), .. },
            ) => bytes.len() <= *longest,
            _ => false,
        }
    }
}

type Found = Result<(i64, Row), CompareError>;
type Rows = fn(Result<RecordBatch, CompareError>) -> Vec<Found>;

fn event_rows(batch: Result<RecordBatch, CompareError>) -> Vec<Found> {
    let rows = |batch: RecordBatch| -> Result<Vec<Found>, CompareError> {
        let renderer = Renderer::new(&batch).map_err(|error| CompareError::Stream(error.into()))?;
        let times = batch.column(index::STAGE_TIMESTAMP).as_primitive::<TimestampMicrosecondType>();
        let row = |row: usize| {
            let text = |column: usize| text(&batch, column, row);
            let request = Request {
                audit_id: text(index::AUDIT_ID),
                stage: text(index::STAGE),
                verb: text(index::VERB),
                stage_us: times.is_valid(row).then(|| times.value(row)),
            };
            let offset = renderer.offset(row);
            let record = if renderer.is_redacted(row) {
                None
            } else {
                let mut record = Vec::new();
                renderer
                    .record(row, &mut record)
                    .map_err(|source| CompareError::Stream(stream::StreamError::Row { offset, source }))?;
                Some(record)
            };
            Ok((offset, Row::Event { request, record }))
        };
        Ok((0..batch.num_rows()).map(row).collect())
    };
    batch.and_then(rows).unwrap_or_else(|error| vec![Err(error)])
}

fn reject_rows(batch: Result<RecordBatch, CompareError>) -> Vec<Found> {
    let rows = |batch: RecordBatch| -> Vec<Found> {
        let raw = batch.column(rejects::index::RAW).as_binary::<i32>();
        let offsets = batch.column(rejects::index::SOURCE_OFFSET).as_primitive::<Int64Type>();
        let row = |row: usize| {
            let bytes = if raw.is_valid(row) { raw.value(row) } else { &[] };
            let raw = if is_encrypted(bytes) { Err(bytes.len()) } else { Ok(bytes.to_vec()) };
            Ok((offsets.value(row), Row::Reject { raw }))
        };
        (0..batch.num_rows()).map(row).collect()
    };
    batch.map(rows).unwrap_or_else(|error| vec![Err(error)])
}

fn text(batch: &RecordBatch, column: usize, row: usize) -> Option<String> {
    let array = batch.column(column);
    if array.is_null(row) {
        return None;
    }
    if let Some(strings) = array.as_string_opt::<i32>() {
        return Some(strings.value(row).to_owned());
    }
    let dictionary = array.as_dictionary_opt::<Int32Type>()?;
    let key = usize::try_from(dictionary.keys().value(row)).ok()?;
    Some(dictionary.values().as_string_opt::<i32>()?.value(key).to_owned())
}

/// Rows of two tables, in order of their offsets.
struct Stored<E: Iterator<Item = Found>, R: Iterator<Item = Found>> {
    events: Peekable<E>,
    rejects: Peekable<R>,
}

impl<E: Iterator<Item = Found>, R: Iterator<Item = Found>> Iterator for Stored<E, R> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        // An error sorts first, so that it is returned at once.
        let offset = |found: &Found| found.as_ref().map_or(i64::MIN, |(offset, _)| *offset);
        let (event, reject) = (self.events.peek().map(offset), self.rejects.peek().map(offset));
        match (event, reject) {
            (Some(event), Some(reject)) if reject < event => self.rejects.next(),
            (None, _) => self.rejects.next(),
            _ => self.events.next(),
        }
    }
}

fn begins_with(
    mut stored: impl Iterator<Item = Found>,
    mut stream: Stream,
    origin: &Arc<Origin>,
    config: &DecoderConfig,
    compare: &dyn Fn(CompareError) -> FileError,
) -> Result<Option<u64>, FileError> {
    let mut decoder = Decoder::new(config.clone());
    let mut records = 0;
    while let Some(block) = stream.next_block(origin, Vec::new())? {
        let decoded = decoder
            .decode(&block.block, chrono::DateTime::UNIX_EPOCH)
            .map_err(|error| compare(CompareError::Columns(error)))?;
        let received = Stored {
            events: event_rows(Ok(decoded.events)).into_iter().peekable(),
            rejects: reject_rows(Ok(decoded.rejects)).into_iter().peekable(),
        };
        for received in received {
            let (offset, received) = received.map_err(compare)?;
            match stored.next().transpose().map_err(compare)? {
                Some((at, row)) if at == offset && row.is_of(&received) => records += 1,
                _ => return Ok(None),
            }
        }
    }
    Ok(Some(records))
}
