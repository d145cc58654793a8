//! The one place where Parquet from an archive is decoded.
//!
//! ```
//! use strongroom_parquet::{Batches, row_group_bytes_max};
//! use strongroom_schemas::Table;
//!
//! let file = bytes::Bytes::from_static(b"PAR1, but not a Parquet file");
//! assert!(Batches::open(file, row_group_bytes_max(Table::Events), 1024).is_err());
//! ```
//!
//! Whoever opens an archive may not know who wrote it. The Parquet crate reads most damaged files as
//! errors, but it panics on some, and it believes sizes. So before a row group is decoded, its
//! footer and the headers of its pages are read here without trust, and what its values will take is
//! measured.
//!
//! Invariants:
//! 1. A file costs an error, never a panic: what the decoder panics on ends in [`Fault::Panicked`].
//!    [`guarded`] catches it on the thread that decodes, because the state that the panic leaves
//!    behind is the decoder's own, and is dropped with it.
//! 2. A row group whose values take more than its limit is refused before memory is reserved.
//! 3. A batch takes at most [`BATCH_BYTES_MAX`], or what one row takes.
//!
//! [`bits`] is the other direction: it writes Parquet's encodings of integers.
//!
//! A stack overflow cannot be caught, so what is nested is bounded in `thrift`.

pub mod bits;
mod pages;
mod thrift;

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::schema::types::SchemaDescriptor;
use strongroom_schemas::Table;
use strongroom_store::Fetched;
use thiserror::Error;

pub use self::pages::Entries;
use self::pages::{Shape, measure};

/// Largest page. A page of more than one value has at most some MiB, and the longest line 64 MiB.
pub const PAGE_BYTES_MAX: usize = 256 << 20;
/// Memory for the values of one batch. A batch has fewer rows where they are long.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;
/// Maximum memory for the values of one row group: of a block of events or rejects (at most three
/// times 48 MiB of text and one line of 64 MiB, which columns and originals may each have), and of
/// the alerts or the activity of one seal.
const BLOCK_BYTES_MAX: u64 = 1 << 30;
const SEAL_BYTES_MAX: u64 = 2 << 30;
/// The same for a Delta checkpoint, and the number of its rows that are decoded at once.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;
const CHECKPOINT_BATCH_ROWS: usize = 1024;
/// Maximum number of rows of a row group. A block has at most 131,072 lines.
const ROWS_MAX: i64 = 1 << 24;
/// Number of rows that are decoded at once when damage is looked for.
const BATCH_ROWS: usize = 8192;
/// Longest footer.
const FOOTER_BYTES_MAX: u64 = 256 << 20;
/// The bytes at the end of a file that have the length of the footer and a magic word.
const TAIL_BYTES: usize = 8;
/// Longest name of a column in a message.
const NAME_CHARS_MAX: usize = 80;

/// Why a Parquet file is not decoded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    #[error("{what} is malformed")]
    Malformed { what: &'static str },
    #[error("{what} takes {bytes} bytes, more than {max}")]
    TooLarge { what: &'static str, bytes: u64, max: u64 },
    #[error("row group {row_group}, column {column}: {fault}")]
    Column { row_group: usize, column: String, fault: Box<Fault> },
    #[error("the decoder of Parquet failed on it")]
    Panicked,
}

impl From<Fault> for ParquetError {
    fn from(fault: Fault) -> Self {
        ParquetError::External(Box::new(fault))
    }
}

impl From<Fault> for ArrowError {
    fn from(fault: Fault) -> Self {
        ArrowError::ExternalError(Box::new(fault))
    }
}

thread_local! {
    /// How many calls of [`quietly`] this thread is in.
    static QUIET: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic of this thread will be caught, and becomes an error: then its message, which may
/// quote a record, is not printed.
pub fn is_quiet() -> bool {
    QUIET.try_with(Cell::get).unwrap_or(0) > 0
}

/// Runs `decode`, and returns `None` if it panics.
pub fn quietly<T>(decode: impl FnOnce() -> T) -> Option<T> {
    let count = |change: fn(u32) -> u32| _ = QUIET.try_with(|quiet| quiet.set(change(quiet.get())));
    count(|quiet| quiet.saturating_add(1));
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    count(|quiet| quiet.saturating_sub(1));
    decoded.ok()
}

/// Runs `decode`; a panic becomes [`Fault::Panicked`].
pub fn guarded<T, E: From<Fault>>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    quietly(decode).unwrap_or_else(|| Err(Fault::Panicked.into()))
}

/// Maximum memory for the values of one row group of a table.
pub fn row_group_bytes_max(table: Table) -> u64 {
    match table {
        Table::Events | Table::Rejects => BLOCK_BYTES_MAX,
        Table::Alerts | Table::Activity => SEAL_BYTES_MAX,
    }
}

/// The footer of a file, from its end.
///
/// # Errors
/// If it cannot be read, or names what is not in the file.
pub fn footer(end: &Fetched) -> Result<ArrowReaderMetadata, ParquetError> {
    guarded(|| {
        check_end(&end.bytes)?;
        let metadata = ParquetMetaDataReader::new().parse_and_finish(end)?;
        check_metadata(&metadata, end.start + end.bytes.len() as u64)?;
        ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
    })
}

/// The number of bytes from the beginning of the footer to the end of a file, from its last bytes.
///
/// # Errors
/// [`Fault`] if there is no footer, or one that no archive has.
pub fn footer_length(end: &[u8]) -> Result<u64, Fault> {
    let tail = end.last_chunk::<TAIL_BYTES>().ok_or(Fault::Malformed { what: "the footer" })?;
    let [a, b, c, d, ..] = *tail;
    let length = u64::from(u32::from_le_bytes([a, b, c, d])) + TAIL_BYTES as u64;
    if length > FOOTER_BYTES_MAX {
        return Err(Fault::TooLarge { what: "the footer", bytes: length, max: FOOTER_BYTES_MAX });
    }
    Ok(length)
}

/// Checks the text of the footer in the last bytes of a file, before it is parsed.
///
/// # Errors
/// [`Fault`] if it is not well-formed, or is not in these bytes.
pub fn check_end(end: &[u8]) -> Result<(), Fault> {
    let length = usize::try_from(footer_length(end)?).unwrap_or(usize::MAX);
    let start = end.len().checked_sub(length);
    let footer = start.and_then(|start| end.get(start..end.len() - TAIL_BYTES));
    thrift::check_footer(footer.ok_or(Fault::Malformed { what: "the footer" })?)
}

/// Checks that a parsed footer names parts of a file of this length, none of them twice, and
/// plausible numbers of rows.
///
/// # Errors
/// [`Fault`] for the first column chunk of which this is not true.
pub fn check_metadata(metadata: &ParquetMetaData, file_bytes: u64) -> Result<(), Fault> {
    let mut total = 0u64;
    for (number, row_group) in metadata.row_groups().iter().enumerate() {
        if !(0..=ROWS_MAX).contains(&row_group.num_rows()) {
            return Err(Fault::Malformed { what: "the number of rows in a row group" });
        }
        for column in row_group.columns() {
            let range = chunk_range(column).filter(|range| range.end <= file_bytes);
            let Some(range) = range else {
                let fault = Fault::Malformed { what: "its place in the file" };
                return Err(in_column(number, column, fault));
            };
            total = total.saturating_add(range.end - range.start);
        }
    }
    // Chunks that are named again and again would be decoded as often.
    if total > file_bytes {
        return Err(Fault::TooLarge { what: "its column chunks together", bytes: total, max: file_bytes });
    }
    Ok(())
}

fn in_column(row_group: usize, column: &ColumnChunkMetaData, fault: Fault) -> Fault {
    // Whoever wrote the file chose the name.
    let name = column.column_path().string();
    let column = name.escape_debug().take(NAME_CHARS_MAX).collect();
    Fault::Column { row_group, column, fault: Box::new(fault) }
}

/// Where a column chunk is in its file, with its dictionary.
pub fn chunk_range(column: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let first = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let (start, length) = (u64::try_from(first).ok()?, u64::try_from(column.compressed_size()).ok()?);
    Some(start..start.checked_add(length)?)
}

/// How a row group is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroupSize {
    /// At most what its values take.
    pub bytes: u64,
    /// At most what one row takes.
    pub row_bytes: u64,
}

impl RowGroupSize {
    /// The number of rows, at most `rows`, that fit into one batch.
    pub fn batch_rows(&self, rows: usize) -> usize {
        if self.bytes <= BATCH_BYTES_MAX {
            return rows;
        }
        let fitting = BATCH_BYTES_MAX / self.row_bytes.max(1);
        usize::try_from(fitting).unwrap_or(usize::MAX).clamp(1, rows.max(1))
    }
}

/// Measures those columns of a row group whose leaves are `wanted`. `file` has their bytes.
///
/// # Errors
/// [`Fault::Column`] if a page cannot be measured, [`Fault::TooLarge`] if the values take more than
/// `bytes_max`.
pub fn row_group_size(
    row_group: &RowGroupMetaData,
    number: usize,
    wanted: &dyn Fn(usize) -> bool,
    file: &Fetched,
    bytes_max: u64,
) -> Result<RowGroupSize, Fault> {
    let mut size = RowGroupSize { bytes: 0, row_bytes: 0 };
    for (_, column) in row_group.columns().iter().enumerate().filter(|(leaf, _)| wanted(*leaf)) {
        let within = |fault| in_column(number, column, fault);
        let range = chunk_range(column).and_then(|range| {
            let at = |place: u64| usize::try_from(place.checked_sub(file.start)?).ok();
            file.bytes.get(at(range.start)?..at(range.end)?)
        });
        let bytes = range.ok_or_else(|| within(Fault::Malformed { what: "its place in the file" }))?;
        let shape = Shape::of(column);
        let measured = measure(bytes, &shape, Entries::Copied).map_err(within)?;
        if !shape.is_repeated() && i64::try_from(measured.values) != Ok(row_group.num_rows()) {
            return Err(within(Fault::Malformed { what: "its number of values" }));
        }
        size.bytes = size.bytes.saturating_add(measured.bytes);
        size.row_bytes = size.row_bytes.saturating_add(measured.row_bytes);
        if size.bytes > bytes_max {
            let what = "what its rows share";
            return Err(within(Fault::TooLarge { what, bytes: size.bytes, max: bytes_max }));
        }
    }
    Ok(size)
}

/// The part of a file that has the columns of a row group whose leaves are `wanted`.
pub fn extent(row_group: &RowGroupMetaData, wanted: &dyn Fn(usize) -> bool) -> Range<u64> {
    let columns = row_group.columns().iter().enumerate().filter(|(leaf, _)| wanted(*leaf));
    let ranges = columns.filter_map(|(_, column)| chunk_range(column));
    ranges.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or_default()
}

/// The columns of a row group, from the part of its file that has them.
///
/// # Errors
/// If they cannot be decoded, or take more than `bytes_max`.
pub fn open_row_group(
    footer: &ArrowReaderMetadata,
    number: usize,
    mask: &ProjectionMask,
    file: Fetched,
    bytes_max: u64,
    batch_rows: usize,
) -> Result<Guarded, ParquetError> {
    Guarded::build(|| {
        let row_group = footer.metadata().row_group(number);
        let size = row_group_size(row_group, number, &|leaf| mask.leaf_included(leaf), &file, bytes_max)?;
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer.clone())
            .with_row_groups(vec![number])
            .with_projection(mask.clone())
            .with_batch_size(size.batch_rows(batch_rows))
            .build()
    })
}

/// What pages that were read from a column chunk take when they are decoded, if the decoder makes
/// views.
///
/// # Errors
/// [`Fault`] if their headers are malformed, or a page is too large.
pub fn pages_bytes(pages: &[u8], column: &ColumnChunkMetaData) -> Result<u64, Fault> {
    Ok(measure(pages, &Shape::of(column), Entries::Shared)?.bytes)
}

/// The bytes (with an exclusive end) of the footer of a file in memory, if it cannot be read, or of
/// the first column chunk that cannot be decoded.
pub fn first_undecodable(file: &Bytes, bytes_max: u64) -> Option<(u64, u64)> {
    let length = file.len() as u64;
    let fetched = Fetched { start: 0, bytes: file.clone() };
    let Ok(footer) = footer(&fetched) else {
        return Some((length.saturating_sub(footer_length(file).unwrap_or(length)), length));
    };
    for (number, row_group) in footer.metadata().row_groups().iter().enumerate() {
        for (leaf, column) in row_group.columns().iter().enumerate() {
            let mask = ProjectionMask::leaves(footer.parquet_schema(), [leaf]);
            let opened = open_row_group(&footer, number, &mask, fetched.clone(), bytes_max, BATCH_ROWS);
            if !opened.is_ok_and(|mut rows| rows.all(|batch| batch.is_ok())) {
                return chunk_range(column).map(|range| (range.start, range.end));
            }
        }
    }
    None
}

/// Batches of a reader; a panic of the decoder is an error.
pub struct Guarded(ParquetRecordBatchReader);

impl Guarded {
    /// Builds a reader.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn build(
        build: impl FnOnce() -> Result<ParquetRecordBatchReader, ParquetError>,
    ) -> Result<Guarded, ParquetError> {
        guarded(build).map(Guarded)
    }
}

impl Iterator for Guarded {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        guarded(|| self.0.next().transpose()).transpose()
    }
}

/// The rows of a file in memory, one row group after the other. It ends after an error.
pub struct Batches {
    file: Fetched,
    footer: ArrowReaderMetadata,
    mask: ProjectionMask,
    batch_rows: usize,
    bytes_max: u64,
    next: usize,
    reader: Option<Guarded>,
}

impl Batches {
    /// Opens a file whose row groups take at most `bytes_max` each.
    ///
    /// # Errors
    /// If the bytes are not a Parquet file.
    pub fn open(file: Bytes, bytes_max: u64, batch_rows: usize) -> Result<Batches, ParquetError> {
        let file = Fetched { start: 0, bytes: file };
        let footer = footer(&file)?;
        let mask = ProjectionMask::all();
        Ok(Batches { file, footer, mask, batch_rows, bytes_max, next: 0, reader: None })
    }

    /// Opens a Delta checkpoint.
    ///
    /// # Errors
    /// If the bytes are not a Parquet file.
    pub fn of_checkpoint(file: Bytes) -> Result<Batches, ParquetError> {
        Batches::open(file, CHECKPOINT_BYTES_MAX, CHECKPOINT_BATCH_ROWS)
    }

    /// The columns of the file.
    pub fn schema(&self) -> &Schema {
        self.footer.schema()
    }

    /// Reads only some columns.
    #[must_use]
    pub fn with_columns(self, columns: impl FnOnce(&SchemaDescriptor) -> ProjectionMask) -> Batches {
        let mask = columns(self.footer.parquet_schema());
        Batches { mask, ..self }
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        loop {
            if let Some(reader) = &mut self.reader {
                match reader.next().transpose()? {
                    Some(batch) => return Ok(Some(batch)),
                    None => self.reader = None,
                }
            }
            if self.next >= self.footer.metadata().num_row_groups() {
                return Ok(None);
            }
            let number = self.next;
            self.next += 1;
            let Batches { footer, mask, file, bytes_max, batch_rows, .. } = &*self;
            let rows = open_row_group(footer, number, mask, file.clone(), *bytes_max, *batch_rows);
            self.reader = Some(rows.map_err(|error| match error {
                ParquetError::External(source) => ArrowError::ExternalError(source),
                error => error.into(),
            })?);
        }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if let Some(Err(_)) = next {
            self.reader = None;
            self.next = usize::MAX;
        }
        next
    }
}
