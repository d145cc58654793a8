//! Turns rows into encoded row groups, on any thread: grouped by date, sorted, encoded, compressed.
//!
//! Invariant: the row groups of one call contain each row of the batch exactly once, under the date
//! of its event time (or of its arrival, if it has no plausible time). Each row group states which
//! offsets of which sources it contains, so that the writer can refuse a row that is already
//! stored.
//!
//! Rows are sorted only inside a row group. Row groups follow the order of the source, so each row
//! group spans a short time, which makes pruning by time effective. Inside a row group, events are
//! sorted by resource, verb, user and namespace. So equal values are next to each other, which
//! makes compression and pruning by user effective. The order of the source is not lost:
//! `source_offset` is a column.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, Days, NaiveDate, Utc};
use parquet::arrow::ArrowSchemaConverter;
use parquet::errors::ParquetError;
use parquet::schema::types::SchemaDescPtr;
use strongroom_schemas::record::{Sha256Hash, leaf_hash};
use strongroom_schemas::{Table, activity, alerts, events, rejects};

use crate::column::{
    Bounds, ByteEncoding, CodeWidth, Column, ColumnSpec, Definition, EncodedColumn, Entries, IntEncoding,
    Repetition, Scratch, Values, encode_column,
};
use crate::error::{ArchiveError, Result};

/// A dictionary of up to this many values is written in the order of its values, so that comparing
/// two codes gives the same result as comparing their values.
const SORTED_ENTRIES_MAX: usize = 4096;
/// The code that stands for null.
const NULL: u32 = u32::MAX;
/// Year of the earliest plausible event time: Kubernetes was first released in this year.
pub const EARLIEST_YEAR: i32 = 2014;

/// A row group of one table and date, sorted, encoded and compressed; the argument of
/// [`crate::Writer::append`].
#[derive(Clone, Debug)]
pub struct EncodedRowGroup {
    pub(crate) table: Table,
    pub(crate) date: NaiveDate,
    pub(crate) rows: u64,
    pub(crate) columns: Vec<EncodedColumn>,
    pub(crate) spans: Vec<Span>,
    /// Minimum and maximum time, in microseconds.
    pub(crate) times: Option<(i64, i64)>,
    /// Leaf hashes of the records, in row order; `None` if they were not given.
    pub(crate) record_hashes: Option<Vec<Sha256Hash>>,
}

/// The offsets of one source in a row group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) partition: String,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) rows: u64,
}

impl EncodedRowGroup {
    pub fn table(&self) -> Table {
        self.table
    }

    pub fn date(&self) -> NaiveDate {
        self.date
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the number of bytes that its columns take in a file.
    pub fn bytes(&self) -> u64 {
        self.columns.iter().map(|column| column.bytes.len() as u64).sum()
    }

    /// Returns the name of each column and the number of bytes that it takes in a file, for
    /// measuring. The items of a list count under the name of the list's column.
    pub fn column_bytes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.columns.iter().map(|column| {
            let path = column.close.metadata.column_path().parts();
            let bloom =
                column.close.bloom_filter.as_ref().map_or(0, |filter| filter.num_blocks() as u64 * 32);
            (path[0].as_str(), column.bytes.len() as u64 + bloom)
        })
    }
}

/// The order of rows inside a row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// The order of the source.
    Source,
    /// Sorted by these columns. Rows that have equal values in all of them keep the order of the
    /// source.
    By(&'static [&'static str]),
}

/// Options of the encoding. Archives are written with [`Layout::default`]; other values are for
/// measuring.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub row_order: RowOrder,
    /// If true, every second group of rows with equal values in the columns of `row_order` is
    /// reversed.
    pub turns: bool,
    pub zstd_level: i32,
    /// Number of rows in a data page.
    pub page_rows: usize,
    /// If true, dictionary codes are stored in whole bytes.
    pub byte_codes: bool,
    /// A column is written as a dictionary only if it has at least this many rows for each distinct
    /// value.
    pub rows_per_entry_min: usize,
    /// If true, a value outside a dictionary is stored without the prefix that it shares with the
    /// value before it.
    pub shared_prefixes: bool,
    /// If true, times and offsets are stored as differences; otherwise as split bytes.
    pub deltas: bool,
    /// If true, columns in which single values are looked up have bloom filters.
    pub bloom_filters: bool,
}

/// The columns that investigators filter by. Rows with equal values in these columns are similar in
/// most other columns too.
const EVENT_ORDER: &[&str] = &[events::RESOURCE, events::VERB, events::USER_NAME, events::NAMESPACE];

impl Default for Layout {
    fn default() -> Self {
        Layout {
            row_order: RowOrder::By(EVENT_ORDER),
            turns: true,
            zstd_level: 1,
            page_rows: 8192,
            byte_codes: true,
            rows_per_entry_min: 2,
            shared_prefixes: true,
            deltas: true,
            bloom_filters: true,
        }
    }
}

/// Sorts and encodes the rows of `batch` (in `table.batch_schema()`), one row group for each UTC
/// date of their time; a row whose time is absent or implausible gets the date of `arrived`. A
/// batch without rows gives no row groups.
///
/// In every table except `events`, one column has the record of a row. The record of an event
/// consists of the bytes received, which this function does not see. So events that it encodes have
/// no hashes of their records, and their records cannot be proven; see [`encode_records`].
///
/// # Errors
/// [`ArchiveError::EncodeSchema`] if the batch has other columns, [`ArchiveError::EncodeColumn`] if
/// a column cannot be encoded (for example, because a page exceeds 2 GiB).
pub fn encode(table: Table, batch: RecordBatch, arrived: DateTime<Utc>) -> Result<Vec<EncodedRowGroup>> {
    encode_with(table, batch, arrived, &Layout::default())
}

/// Like [`encode`], but for events, with the leaf hash of each row's record: [`leaf_hash`] of the
/// bytes received.
///
/// # Errors
/// Those of [`encode`], and [`ArchiveError::EncodeSchema`] if the number of hashes is not the
/// number of rows.
pub fn encode_records(
    batch: RecordBatch,
    record_hashes: &[Sha256Hash],
    arrived: DateTime<Utc>,
) -> Result<Vec<EncodedRowGroup>> {
    if record_hashes.len() != batch.num_rows() {
        let detail = format!("{} hashes of records for {} rows", record_hashes.len(), batch.num_rows());
        return Err(ArchiveError::EncodeSchema { table: Table::Events, detail });
    }
    encode_all(Table::Events, &batch, Some(record_hashes), arrived, &Layout::default())
}

/// Like [`encode`], but with a given layout.
pub fn encode_with(
    table: Table,
    batch: RecordBatch,
    arrived: DateTime<Utc>,
    layout: &Layout,
) -> Result<Vec<EncodedRowGroup>> {
    encode_all(table, &batch, None, arrived, layout)
}

fn encode_all(
    table: Table,
    batch: &RecordBatch,
    record_hashes: Option<&[Sha256Hash]>,
    arrived: DateTime<Utc>,
    layout: &Layout,
) -> Result<Vec<EncodedRowGroup>> {
    check_schema(table, batch)?;
    let hashed = record_column(table).map(|name| hash_column(column(batch, name)));
    let record_hashes = record_hashes.or(hashed.as_deref());
    let mut dates: BTreeMap<NaiveDate, Vec<u32>> = BTreeMap::new();
    file_by_date(table, batch, arrived, &mut dates);
    dates
        .into_iter()
        .map(|(date, rows)| encode_rows(table, batch, record_hashes, (date, rows), layout))
        .collect()
}

/// Returns the column that has the record of a row; `events` has none, because its records are
/// rendered.
pub const fn record_column(table: Table) -> Option<&'static str> {
    match table {
        Table::Events => None,
        Table::Rejects => Some(rejects::RAW),
        Table::Alerts => Some(alerts::OCSF),
        Table::Activity => Some(activity::BODY),
    }
}

/// Leaf hashes of the values of a record column.
pub fn hash_column(array: &ArrayRef) -> Vec<Sha256Hash> {
    (0..array.len()).map(|row| leaf_hash(record_value(array, row))).collect()
}

/// Returns a value of a record column; a null is an empty record.
pub(crate) fn record_value(array: &ArrayRef, row: usize) -> &[u8] {
    match array.data_type() {
        _ if array.is_null(row) => &[],
        DataType::Binary => array.as_binary::<i32>().value(row),
        _ => array.as_string::<i32>().value(row).as_bytes(),
    }
}

fn check_schema(table: Table, batch: &RecordBatch) -> Result<()> {
    let expected = table.batch_schema();
    let got = batch.schema();
    let wrong = |detail: String| Err(ArchiveError::EncodeSchema { table, detail });
    if expected.fields().len() != got.fields().len() {
        return wrong(format!("{} columns instead of {}", got.fields().len(), expected.fields().len()));
    }
    for (expected, got) in expected.fields().iter().zip(got.fields()) {
        if expected.name() != got.name() {
            return wrong(format!("column {} where {} should be", got.name(), expected.name()));
        }
        if expected.data_type() != got.data_type() {
            return wrong(format!(
                "column {} is {}, not {}",
                got.name(),
                got.data_type(),
                expected.data_type()
            ));
        }
    }
    Ok(())
}

fn file_by_date(
    table: Table,
    batch: &RecordBatch,
    arrived: DateTime<Utc>,
    dates: &mut BTreeMap<NaiveDate, Vec<u32>>,
) {
    const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
    let arrival = arrived.date_naive();
    let earliest = NaiveDate::from_ymd_opt(EARLIEST_YEAR, 1, 1)
        .and_then(|date| date.and_hms_opt(0, 0, 0))
        .expect("the first of January exists")
        .and_utc()
        .timestamp_micros();
    let latest = arrived.timestamp_micros().saturating_add(DAY_US);
    let times = column(batch, table.time_column()).as_primitive::<TimestampMicrosecondType>();
    // Most batches have rows of a single date. So rows are collected in one list as long as they
    // have the same day, and the list is added to the map only when the day changes.
    let mut current: Option<(i64, Vec<u32>)> = None;
    let epoch = NaiveDate::default();
    let date_of = |day: i64| match u64::try_from(day) {
        Ok(days) => epoch.checked_add_days(Days::new(days)).unwrap_or(arrival),
        Err(_) => arrival,
    };
    let arrival_day = arrived.timestamp_micros().div_euclid(DAY_US);
    for row in 0..batch.num_rows() {
        let day = if times.is_valid(row) && (earliest..=latest).contains(&times.value(row)) {
            times.value(row).div_euclid(DAY_US)
        } else {
            arrival_day
        };
        match &mut current {
            Some((known, rows)) if *known == day => rows.push(row as u32),
            _ => {
                if let Some((known, rows)) = current.take() {
                    dates.entry(date_of(known)).or_default().extend(rows);
                }
                current = Some((day, vec![row as u32]));
            }
        }
    }
    if let Some((known, rows)) = current {
        dates.entry(date_of(known)).or_default().extend(rows);
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).expect("the schema was checked")
}

/// Returns the Parquet schema of a table's files. The items of lists have the name that the Parquet
/// format requires, so that every reader finds them.
pub(crate) fn parquet_schema(table: Table) -> &'static SchemaDescPtr {
    static SCHEMAS: LazyLock<HashMap<Table, SchemaDescPtr>> = LazyLock::new(|| {
        let convert = |table: Table| {
            ArrowSchemaConverter::new()
                .with_coerce_types(true)
                .schema_root("schema")
                .convert(&table.file_schema())
                .expect("our schemas hold only types that Parquet has")
        };
        Table::ALL.into_iter().map(|table| (table, Arc::new(convert(table)))).collect()
    });
    &SCHEMAS[&table]
}

thread_local! {
    /// The compression state and the buffers are large, so each worker thread allocates them once.
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

fn encode_rows(
    table: Table,
    batch: &RecordBatch,
    record_hashes: Option<&[Sha256Hash]>,
    (date, mut rows): (NaiveDate, Vec<u32>),
    layout: &Layout,
) -> Result<EncodedRowGroup> {
    let spans = spans(batch, &rows);
    let times = column(batch, table.time_column()).as_primitive::<TimestampMicrosecondType>();
    let valid = || {
        rows.iter().map(|row| *row as usize).filter(|row| times.is_valid(*row)).map(|row| times.value(row))
    };
    let times = valid().min().zip(valid().max());
    if let (Table::Events, RowOrder::By(names)) = (table, layout.row_order) {
        sort_rows(batch, names, layout.turns, &mut rows);
    }
    let descriptors = parquet_schema(table).columns();
    let columns = SCRATCH.with_borrow_mut(|scratch| {
        let scratch = match scratch {
            Some(scratch) => scratch,
            none => none.insert(Scratch::new().map_err(|source| ArchiveError::EncodeColumn {
                table,
                column: "*".to_owned(),
                source: ParquetError::from(source),
            })?),
        };
        let schema = batch.schema();
        let mut columns = Vec::with_capacity(descriptors.len());
        for ((field, array), descriptor) in schema.fields().iter().zip(batch.columns()).zip(descriptors) {
            let (spec, values) = plan(table, field.name(), layout);
            let gathered = gather(array, &rows, values, layout);
            let encoded = encode_column(descriptor, &gathered, &spec, scratch).map_err(|source| {
                ArchiveError::EncodeColumn { table, column: field.name().clone(), source }
            })?;
            columns.push(encoded);
        }
        Ok::<_, ArchiveError>(columns)
    })?;
    let record_hashes = record_hashes.map(|hashes| rows.iter().map(|row| hashes[*row as usize]).collect());
    Ok(EncodedRowGroup { table, date, rows: rows.len() as u64, columns, spans, times, record_hashes })
}

/// How the values of a column are stored if the column has no dictionary.
#[derive(Clone, Copy)]
struct ValuePlan {
    bytes: ByteEncoding,
    ints: IntEncoding,
}

/// Returns how a column is encoded. The choices were made with the measurements of
/// `benches/layout.rs`.
fn plan(table: Table, name: &str, layout: &Layout) -> (ColumnSpec, ValuePlan) {
    let bytes = if layout.shared_prefixes { ByteEncoding::DeltaPrefix } else { ByteEncoding::DeltaLength };
    let ints = if layout.deltas { IntEncoding::Delta } else { IntEncoding::SplitBytes };
    let mut values = ValuePlan { bytes, ints };
    let mut spec = ColumnSpec {
        bounds: Bounds::Chunk,
        bloom_bits: None,
        zstd_level: layout.zstd_level,
        code_width: if layout.byte_codes { CodeWidth::Bytes } else { CodeWidth::Least },
        page_rows: layout.page_rows,
    };
    let bloom = |bits| layout.bloom_filters.then_some(bits);
    if table != Table::Events {
        match name {
            rejects::RAW
            | rejects::DETAIL
            | "message"
            | "next_steps"
            | alerts::OCSF
            | alerts::EVENT_RANGES
            | activity::BODY => {
                spec.bounds = Bounds::Off;
                values.bytes = ByteEncoding::DeltaLength;
            }
            "alert_id" => spec.bloom_bits = bloom(8),
            _ => {}
        }
        return (spec, values);
    }
    match name {
        events::AUDIT_ID => {
            // Random values: bounds are useless, and no prefixes are shared.
            spec.bloom_bits = bloom(6);
            spec.bounds = Bounds::Off;
            values.bytes = ByteEncoding::DeltaLength;
        }
        events::USER_NAME | events::RESOURCE | events::VERB => {
            spec.bounds = Bounds::Pages;
            spec.bloom_bits = bloom(10);
        }
        events::NAMESPACE
        | events::NAME
        | events::SOURCE_IPS
        | events::OBJECT_UID
        | events::IMPERSONATED_USER_NAME => {
            spec.bloom_bits = bloom(10);
        }
        events::STAGE_TIMESTAMP | events::REQUEST_RECEIVED_TIMESTAMP | events::SOURCE_OFFSET => {
            spec.bounds = Bounds::Pages;
        }
        // Bodies, claims and the like must not appear in the footer of a file, and have no useful
        // order.
        events::REQUEST_OBJECT
        | events::RESPONSE_OBJECT
        | events::ANNOTATIONS
        | events::USER_EXTRA
        | events::IMPERSONATED_USER_EXTRA
        | events::RESPONSE_DETAILS
        | events::RESPONSE_MESSAGE
        | events::RAW
        | events::SHAPE
        | events::FRAME_BEFORE
        | events::FRAME_AFTER
        | events::FORM
        | events::REDACTION
        | events::FAULTS => {
            spec.bounds = Bounds::Off;
            values.bytes = ByteEncoding::DeltaLength;
        }
        // The values are times and numbers, most of which share a prefix with the value before
        // them.
        events::FORM_VALUES => spec.bounds = Bounds::Off,
        _ => {}
    }
    (spec, values)
}

/// Returns the least offset, the greatest offset and the number of rows of each source among
/// `rows`. Rows without a source belong to no position, so they are in no span.
fn spans(batch: &RecordBatch, rows: &[u32]) -> Vec<Span> {
    let offsets = column(batch, events::SOURCE_OFFSET).as_primitive::<Int64Type>();
    let sources = column(batch, events::SOURCE);
    let mut spans: BTreeMap<&str, (i64, i64, u64)> = BTreeMap::new();
    fn widen(span: Option<(i64, i64, u64)>, first: i64, last: i64, rows: u64) -> (i64, i64, u64) {
        span.map_or((first, last, rows), |span| (span.0.min(first), span.1.max(last), span.2 + rows))
    }
    match sources.as_dictionary_opt::<Int32Type>() {
        Some(dictionary) => {
            let names = dictionary.values().as_string::<i32>();
            let keys = dictionary.keys();
            let mut by_code: Vec<Option<(i64, i64, u64)>> = vec![None; names.len()];
            for row in rows
                .iter()
                .map(|row| *row as usize)
                .filter(|row| keys.is_valid(*row) && offsets.is_valid(*row))
            {
                let (span, offset) = (&mut by_code[keys.value(row) as usize], offsets.value(row));
                *span = Some(widen(*span, offset, offset, 1));
            }
            for (code, span) in by_code.into_iter().enumerate() {
                if let Some((first, last, rows)) = span {
                    let name = names.value(code);
                    spans.insert(name, widen(spans.get(name).copied(), first, last, rows));
                }
            }
        }
        None => {
            let names = sources.as_string::<i32>();
            for row in rows
                .iter()
                .map(|row| *row as usize)
                .filter(|row| names.is_valid(*row) && offsets.is_valid(*row))
            {
                let (name, offset) = (names.value(row), offsets.value(row));
                spans.insert(name, widen(spans.get(name).copied(), offset, offset, 1));
            }
        }
    }
    spans
        .into_iter()
        .map(|(partition, (first, last, rows))| Span { partition: partition.to_owned(), first, last, rows })
        .collect()
}

/// Sorts `rows` by the dictionary columns `names`. Rows that are equal in all of these columns keep
/// their order.
fn sort_rows(batch: &RecordBatch, names: &[&str], turns: bool, rows: &mut [u32]) {
    let mut keys: Vec<u128> = (0..rows.len() as u128).collect();
    let mut free = u128::BITS - u32::BITS;
    for name in names {
        let dictionary = column(batch, name).as_dictionary::<Int32Type>();
        let mut codes = row_codes(
            dictionary.keys().values(),
            dictionary.nulls(),
            dictionary.values(),
            rows.iter().copied(),
        );
        let used = rank(&mut codes, dictionary.values().as_string::<i32>());
        // Null sorts first: its code becomes zero.
        let bits = u32::BITS - (used as u32).leading_zeros();
        if bits > free {
            break;
        }
        free -= bits;
        for (key, code) in keys.iter_mut().zip(&codes) {
            *key |= u128::from(code.wrapping_add(1)) << (u32::BITS + free);
        }
    }
    keys.sort_unstable();
    if turns {
        // Every second group is reversed: times and offsets then continue from one group to the
        // next instead of jumping back, which keeps their differences narrow.
        for (number, group) in keys.chunk_by_mut(|a, b| a >> u32::BITS == b >> u32::BITS).enumerate() {
            if number % 2 == 1 {
                group.reverse();
            }
        }
    }
    let sorted: Vec<u32> = keys.iter().map(|key| rows[(*key as u32) as usize]).collect();
    rows.copy_from_slice(&sorted);
}

/// Returns the code of each row, or [`NULL`] for a row without a value.
fn row_codes(
    keys: &[i32],
    nulls: Option<&NullBuffer>,
    entries: &ArrayRef,
    rows: impl Iterator<Item = u32>,
) -> Vec<u32> {
    let mut codes: Vec<u32> = match nulls {
        None => rows.map(|row| keys[row as usize] as u32).collect(),
        Some(nulls) => {
            let is_valid = validity(nulls);
            // For a row without a value, the result has all bits set, which is [`NULL`].
            rows.map(|row| keys[row as usize] as u32 | is_valid(row).wrapping_sub(1)).collect()
        }
    };
    if let Some(missing) = entries.nulls() {
        for code in codes.iter_mut().filter(|code| **code != NULL) {
            if missing.is_null(*code as usize) {
                *code = NULL;
            }
        }
    }
    codes
}

/// Returns a function that gives 1 for a row with a value, and 0 for a row without one.
fn validity(nulls: &NullBuffer) -> impl Fn(u32) -> u32 {
    let (bits, offset) = (nulls.inner().values(), nulls.inner().offset());
    move |row| {
        let at = row as usize + offset;
        u32::from(bits[at / 8] >> (at % 8) & 1)
    }
}

/// Renumbers the codes of the entries in use from 0, in the order of the values if there are few
/// enough entries, otherwise in the order of appearance. Returns the number of entries in use.
fn rank(codes: &mut [u32], entries: &StringArray) -> usize {
    compact(codes, entries).0.len()
}

/// Like [`rank`], but returns the old codes of the entries in use, and whether these are in the
/// order of their values.
fn compact(codes: &mut [u32], entries: &StringArray) -> (Vec<u32>, bool) {
    // The last place, after those of the entries, is for null.
    let place = |code: u32| (code as usize).min(entries.len());
    let mut seen = vec![false; entries.len() + 1];
    for code in codes.iter() {
        seen[place(*code)] = true;
    }
    let mut used: Vec<u32> = (0..entries.len() as u32).filter(|code| seen[*code as usize]).collect();
    let is_sorted = used.len() <= SORTED_ENTRIES_MAX;
    let mut renumbered = vec![NULL; entries.len() + 1];
    if is_sorted {
        used.sort_unstable_by_key(|code| entries.value(*code as usize));
        for (rank, code) in used.iter().enumerate() {
            renumbered[*code as usize] = rank as u32;
        }
    } else {
        used.clear();
        for code in codes.iter().filter(|code| **code != NULL) {
            let number = &mut renumbered[*code as usize];
            if *number == NULL {
                *number = used.len() as u32;
                used.push(*code);
            }
        }
    }
    for code in codes {
        *code = renumbered[place(*code)];
    }
    (used, is_sorted)
}

/// Returns the given rows of `array`, in the order of `rows`, as levels and values.
fn gather<'a>(array: &'a ArrayRef, rows: &[u32], plan: ValuePlan, layout: &Layout) -> Column<'a> {
    if array.null_count() == array.len() {
        return without_values(array.data_type(), rows.len(), plan);
    }
    match array.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = array.as_dictionary::<Int32Type>();
            let codes = row_codes(
                dictionary.keys().values(),
                dictionary.nulls(),
                dictionary.values(),
                rows.iter().copied(),
            );
            let definition = presence(codes.iter().map(|code| u32::from(*code != NULL)));
            let values = dictionary_values(codes, dictionary.values(), plan, layout);
            Column { rows: rows.len(), definition, repetition: Repetition::Flat, values }
        }
        DataType::Utf8 => {
            let strings = array.as_string::<i32>();
            let (definition, present) = present_rows(strings.nulls(), rows);
            let values = present.iter().map(|row| strings.value(*row as usize).as_bytes()).collect();
            Column {
                rows: rows.len(),
                definition,
                repetition: Repetition::Flat,
                values: Values::Bytes { values, encoding: plan.bytes },
            }
        }
        DataType::Binary => {
            let binary = array.as_binary::<i32>();
            let (definition, present) = present_rows(binary.nulls(), rows);
            let values = present.iter().map(|row| binary.value(*row as usize)).collect();
            Column {
                rows: rows.len(),
                definition,
                repetition: Repetition::Flat,
                values: Values::Bytes { values, encoding: plan.bytes },
            }
        }
        DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let ints: &[i64] = match array.data_type() {
                DataType::Int64 => array.as_primitive::<Int64Type>().values(),
                _ => array.as_primitive::<TimestampMicrosecondType>().values(),
            };
            let (definition, present) = present_rows(array.nulls(), rows);
            let values = present.iter().map(|row| ints[*row as usize]).collect();
            Column {
                rows: rows.len(),
                definition,
                repetition: Repetition::Flat,
                values: Values::Int64 { values, encoding: plan.ints },
            }
        }
        DataType::Int32 => {
            let ints = array.as_primitive::<Int32Type>();
            let (definition, present) = present_rows(ints.nulls(), rows);
            let values: Vec<i32> = present.iter().map(|row| ints.values()[*row as usize]).collect();
            let mut entries = values.clone();
            entries.sort_unstable();
            entries.dedup();
            let codes = values
                .iter()
                .map(|value| entries.binary_search(value).expect("entries are these values") as u32)
                .collect();
            Column {
                rows: rows.len(),
                definition,
                repetition: Repetition::Flat,
                values: Values::Codes { codes, entries: Entries::Int32(entries) },
            }
        }
        DataType::List(_) => gather_list(array, rows, plan, layout),
        // check_schema admits only the types of our schemas.
        other => unreachable!("no column of our schemas has type {other}"),
    }
}

/// Returns a column of `rows` nulls. Many columns contain only nulls, and their rows need not be
/// read.
fn without_values<'a>(data_type: &DataType, rows: usize, plan: ValuePlan) -> Column<'a> {
    let of_codes = |entries| Values::Codes { codes: Vec::new(), entries };
    let values = |data_type: &DataType| match data_type {
        DataType::Dictionary(..) => of_codes(Entries::Bytes { entries: Vec::new(), sorted: true }),
        DataType::Int32 => of_codes(Entries::Int32(Vec::new())),
        DataType::Int64 | DataType::Timestamp(..) => {
            Values::Int64 { values: Vec::new(), encoding: plan.ints }
        }
        _ => Values::Bytes { values: Vec::new(), encoding: plan.bytes },
    };
    let (repetition, values) = match data_type {
        DataType::List(item) => (Repetition::OnePerRow, values(item.data_type())),
        flat => (Repetition::Flat, values(flat)),
    };
    Column { rows, definition: Definition::All(0), repetition, values }
}

/// Definition levels of `rows`, and the rows that have a value.
fn present_rows<'r>(nulls: Option<&NullBuffer>, rows: &'r [u32]) -> (Definition, Cow<'r, [u32]>) {
    let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else {
        return (presence(rows.iter().map(|_| 1)), Cow::Borrowed(rows));
    };
    let is_valid = validity(nulls);
    let definition = presence(rows.iter().map(|row| is_valid(*row)));
    (definition, rows.iter().copied().filter(|row| is_valid(*row) == 1).collect())
}

/// Returns the definition levels 0 and 1 of a column that is not a list.
fn presence(levels: impl ExactSizeIterator<Item = u32> + Clone) -> Definition {
    let count = levels.len();
    match levels.clone().map(|level| level as usize).sum() {
        0 => Definition::All(0),
        present if present == count => Definition::All(1),
        _ => Definition::Each(levels.collect()),
    }
}

/// Like [`gather`], but for a list of nullable strings. Its definition levels are 0 for no list, 1
/// for an empty list, 2 for an item that is null, and 3 for an item with a value.
fn gather_list<'a>(array: &'a ArrayRef, rows: &[u32], plan: ValuePlan, layout: &Layout) -> Column<'a> {
    let list = array.as_list::<i32>();
    let offsets = list.value_offsets();
    let mut items: Vec<u32> = Vec::new();
    let (mut definition, mut repetition) = (Vec::new(), Vec::new());
    let mut starts = Vec::with_capacity(rows.len() + 1);
    for row in rows.iter().map(|row| *row as usize) {
        starts.push(definition.len() as u32);
        let range = offsets[row] as u32..offsets[row + 1] as u32;
        if list.is_null(row) || range.is_empty() {
            definition.push(u32::from(list.is_valid(row)));
            repetition.push(0);
            continue;
        }
        repetition.push(0);
        repetition.extend(std::iter::repeat_n(1, range.len() - 1));
        definition.extend(range.clone().map(|_| 3));
        items.extend(range);
    }
    starts.push(definition.len() as u32);

    let child = list.values();
    let (missing, values) = match child.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = child.as_dictionary::<Int32Type>();
            let codes = row_codes(
                dictionary.keys().values(),
                dictionary.nulls(),
                dictionary.values(),
                items.iter().copied(),
            );
            let missing: Vec<bool> = codes.iter().map(|code| *code == NULL).collect();
            (missing, dictionary_values(codes, dictionary.values(), plan, layout))
        }
        _ => {
            let strings = child.as_string::<i32>();
            let missing = items.iter().map(|item| strings.is_null(*item as usize)).collect();
            let present = items.iter().map(|item| *item as usize).filter(|item| strings.is_valid(*item));
            let values = present.map(|item| strings.value(item).as_bytes()).collect();
            (missing, Values::Bytes { values, encoding: plan.bytes })
        }
    };
    if missing.contains(&true) {
        let mut missing = missing.into_iter();
        for level in definition.iter_mut().filter(|level| **level == 3) {
            if missing.next().expect("one for each item") {
                *level = 2;
            }
        }
    }
    let definition = match definition.first() {
        Some(first) if definition.iter().all(|level| level == first) => Definition::All(*first),
        _ => Definition::Each(definition),
    };
    Column {
        rows: rows.len(),
        definition,
        repetition: Repetition::Each { levels: repetition, starts },
        values,
    }
}

/// Returns the values that `codes` stand for: as a dictionary, or one by one if most of them
/// differ.
fn dictionary_values<'a>(
    mut codes: Vec<u32>,
    entries: &'a ArrayRef,
    plan: ValuePlan,
    layout: &Layout,
) -> Values<'a> {
    let entries = entries.as_string::<i32>();
    let (used, sorted) = compact(&mut codes, entries);
    if codes.contains(&NULL) {
        codes.retain(|code| *code != NULL);
    }
    let used: Vec<&[u8]> = used.into_iter().map(|code| entries.value(code as usize).as_bytes()).collect();
    if used.len() * layout.rows_per_entry_min > codes.len() && used.len() > 256 {
        let values = codes.into_iter().map(|code| used[code as usize]).collect();
        return Values::Bytes { values, encoding: plan.bytes };
    }
    Values::Codes { codes, entries: Entries::Bytes { entries: used, sorted } }
}
