//! Makes rows, positions and seals for the tests of this crate and of the crates that use it.

#![allow(dead_code, reason = "each crate that includes this file uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    ArrayRef, BinaryArray, DictionaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_cast::cast;
use arrow_schema::DataType;
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use chrono::{DateTime, TimeZone as _, Utc};
use strongroom_archive::encode::{encode, encode_records};
use strongroom_archive::fail::FailPoints;
use strongroom_archive::{Archive, Counts, Position, Result, SourcePosition, Writer, WriterOptions};
use strongroom_schemas::record::{Sha256Hash, record_hash};
use strongroom_schemas::{Table, events};

pub(crate) const PARTITION: &str = "file/00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// The source of the rows of `activity`.
pub(crate) const ACTIVITY: &str = "activity/test";
/// The time 2026-03-02T12:00:00Z, in microseconds since 1970.
pub(crate) const NOON_US: i64 = 1_772_452_800_000_000;
pub(crate) const DAY_US: i64 = 86_400_000_000;

pub(crate) fn arrived() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(NOON_US + 60_000_000).expect("a time")
}

/// A small, repeatable source of numbers. The quality of the randomness does not matter here.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 24
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The shape of a batch of test rows.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) rows: usize,
    pub(crate) distinct: u64,
    pub(crate) null_percent: u64,
    pub(crate) partition: &'static str,
    pub(crate) first_offset: i64,
    pub(crate) first_time: i64,
    /// Microseconds between rows.
    pub(crate) step: i64,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            seed: 1,
            rows: 100,
            distinct: 7,
            null_percent: 10,
            partition: PARTITION,
            first_offset: 0,
            first_time: NOON_US,
            step: 1000,
        }
    }
}

/// Makes rows of a table, with nulls, empty lists, and empty and long strings. Their offsets are
/// 1,000 bytes apart.
pub(crate) fn batch(table: Table, shape: &Shape) -> RecordBatch {
    let mut random = Random(shape.seed);
    let schema = table.batch_schema();
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "source" => constant(field.data_type(), shape.partition, shape.rows),
        // The alerts of these tests name a single event, in columns other than the later ones.
        name if table == Table::Alerts && table.later_columns().contains(&name) => {
            new_null_array(field.data_type(), shape.rows)
        }
        "source_offset" => Arc::new(Int64Array::from_iter_values(
            (0..shape.rows as i64).map(|row| shape.first_offset + row * 1000),
        )),
        name if name == table.time_column() => {
            let times = (0..shape.rows as i64).map(|row| shape.first_time + row * shape.step);
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")) as ArrayRef
        }
        _ => column(field.data_type(), shape, &mut random),
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("columns fit the schema")
}

pub(crate) fn constant(data_type: &DataType, value: &str, rows: usize) -> ArrayRef {
    match data_type {
        DataType::Utf8 => Arc::new(StringArray::from(vec![value; rows])),
        _ => Arc::new(DictionaryArray::new(
            Int32Array::from(vec![0; rows]),
            Arc::new(StringArray::from(vec![value])),
        )),
    }
}

pub(crate) fn text(random: &mut Random, distinct: u64) -> String {
    let number = random.below(distinct);
    match number % 7 {
        0 => String::new(),
        1 => format!("ünï-{number}"),
        2 => "long ".repeat(30) + &number.to_string(),
        _ => format!("value-{number}"),
    }
}

pub(crate) fn validity(random: &mut Random, shape: &Shape, rows: usize) -> Option<NullBuffer> {
    (shape.null_percent > 0)
        .then(|| (0..rows).map(|_| !random.chance(shape.null_percent)).collect::<Vec<bool>>().into())
}

pub(crate) fn column(data_type: &DataType, shape: &Shape, random: &mut Random) -> ArrayRef {
    let rows = shape.rows;
    match data_type {
        DataType::Dictionary(..) => strings(data_type, rows, shape, random),
        DataType::Utf8 => strings(data_type, rows, shape, random),
        DataType::Binary => {
            let values: Vec<Option<Vec<u8>>> = (0..rows)
                .map(|_| {
                    (!random.chance(shape.null_percent))
                        .then(|| vec![random.next() as u8; random.below(90) as usize])
                })
                .collect();
            Arc::new(BinaryArray::from_iter(values))
        }
        DataType::Int32 => {
            let values = (0..rows).map(|_| {
                (!random.chance(shape.null_percent)).then(|| 200 + random.below(shape.distinct) as i32)
            });
            Arc::new(Int32Array::from_iter(values))
        }
        DataType::Int64 => {
            let values = (0..rows)
                .map(|_| (!random.chance(shape.null_percent)).then(|| random.next() as i64 - (1 << 30)));
            Arc::new(Int64Array::from_iter(values))
        }
        DataType::Timestamp(..) => {
            let values = (0..rows).map(|_| {
                (!random.chance(shape.null_percent)).then(|| NOON_US + random.below(1 << 40) as i64)
            });
            Arc::new(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC"))
        }
        DataType::List(item) => {
            let lengths: Vec<usize> = (0..rows).map(|_| random.below(4) as usize).collect();
            let items = strings(item.data_type(), lengths.iter().sum(), shape, random);
            let nulls = validity(random, shape, rows);
            Arc::new(ListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), items, nulls))
        }
        other => panic!("no column of our schemas has type {other}"),
    }
}

pub(crate) fn strings(data_type: &DataType, rows: usize, shape: &Shape, random: &mut Random) -> ArrayRef {
    let nulls = validity(random, shape, rows);
    match data_type {
        DataType::Utf8 => {
            let values: Vec<Option<String>> = (0..rows)
                .map(|row| {
                    nulls
                        .as_ref()
                        .is_none_or(|nulls| nulls.is_valid(row))
                        .then(|| text(random, shape.distinct))
                })
                .collect();
            Arc::new(StringArray::from(values))
        }
        _ => {
            // Unused and equal entries occur in real batches.
            let entries: Vec<String> =
                (0..shape.distinct + 3).map(|_| text(random, shape.distinct)).collect();
            let keys = (0..rows).map(|_| random.below(entries.len() as u64) as i32).collect::<Vec<_>>();
            let keys = Int32Array::new(keys.into(), nulls);
            Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(StringArray::from(entries))))
        }
    }
}

/// Returns the same rows with the types that columns have in files.
pub(crate) fn plain(table: Table, batch: &RecordBatch) -> RecordBatch {
    let schema = table.file_schema();
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()).expect("dictionaries can be spelled out"));
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("types of files")
}

pub(crate) fn read_all(archive: &Archive, table: Table, partition: &str) -> Option<RecordBatch> {
    let batches: Vec<RecordBatch> =
        archive.read_rows(table, partition).expect("planned").collect::<Result<_>>().expect("readable");
    let first = batches.first()?.schema();
    Some(concat_batches(&first, &batches).expect("one schema"))
}

pub(crate) fn position(next_offset: i64) -> Position {
    let hash = blake3::hash(&next_offset.to_le_bytes());
    Position {
        next_offset,
        records: next_offset / 1000,
        prefix_blake3: hash.as_bytes()[..16].try_into().expect("16 of 32"),
        broker_offset: None,
    }
}

pub(crate) fn step(partition: &str, previous: Option<Position>, next_offset: i64) -> SourcePosition {
    SourcePosition {
        partition: partition.to_owned(),
        label: format!("/var/log/{}.log", &partition[..4]),
        position: position(next_offset),
        previous,
    }
}

pub(crate) fn counts(events: u64) -> Counts {
    Counts { received: events, events, rejects: 0, duplicates: 0 }
}

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("strong room ü%20").tempdir().expect("a folder")
}

pub(crate) fn create(folder: &Path) -> Archive {
    Archive::open_or_create(folder.join("archive").to_str().expect("text")).expect("a new archive")
}

/// Returns the hashes of the records of rows. The rows of these tests were never received, so each
/// has an empty record. Some have a mark.
fn hashes(batch: &RecordBatch) -> Vec<Sha256Hash> {
    let marks = batch.column_by_name(events::REDACTION).expect("a column");
    let marks = cast(marks, &DataType::Utf8).expect("text");
    marks.as_string::<i32>().iter().map(|mark| record_hash(mark, b"")).collect()
}

pub(crate) fn append(writer: &mut Writer, table: Table, batch: RecordBatch) -> Result<()> {
    let row_groups = match table {
        Table::Events => encode_records(batch.clone(), &hashes(&batch), arrived()),
        _ => encode(table, batch, arrived()),
    };
    for row_group in row_groups? {
        writer.append(row_group)?;
    }
    Ok(())
}

pub(crate) fn fixed_2026() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 12, 31, 23, 59, 59).single().expect("a time")
}

pub(crate) fn fixed_2027() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2027, 1, 1, 0, 0, 1).single().expect("a time")
}

pub(crate) fn options(clock: fn() -> DateTime<Utc>) -> WriterOptions {
    WriterOptions { clock, clock_is_right: true, ..WriterOptions::default() }
}

/// Returns the paths of all files below a folder, relative to it.
pub(crate) fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(&at).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path)
            } else {
                found.push(path.strip_prefix(folder).expect("the file is below the folder").to_owned())
            }
        }
    }
    found.sort();
    found
}

/// Continues an ingest from the archive's position, up to block number `blocks`, and seals after
/// every `blocks_per_seal` blocks. A block covers 10,000 offsets. Each block has ten events; every
/// second block also has ten rejects, and every third block has ten alerts. Returns the first
/// error.
pub(crate) fn ingest(archive: &Archive, fail: &FailPoints, blocks_per_seal: i64, blocks: i64) -> Result<()> {
    let mut writer = archive.writer()?;
    writer.fail_points = fail.clone();
    let mut previous = writer.position(Table::Events, PARTITION)?;
    let mut known = std::collections::HashMap::new();
    for table in Table::ALL {
        known.insert(table, writer.position(table, PARTITION)?.map_or(0, |position| position.next_offset));
    }
    let mut block = previous.map_or(0, |position| position.next_offset) / 10_000;
    while block < blocks {
        let end = (block + blocks_per_seal).min(blocks);
        for block in block..end {
            for (table, every) in [(Table::Events, 1), (Table::Rejects, 2), (Table::Alerts, 3)] {
                if block % every == 0 {
                    let shape = Shape {
                        seed: block as u64,
                        rows: 10,
                        first_offset: block * 10_000,
                        ..Shape::default()
                    };
                    let rows = batch(table, &shape);
                    let offsets = rows
                        .column_by_name("source_offset")
                        .expect("a column")
                        .as_primitive::<Int64Type>()
                        .clone();
                    let keep: UInt32Array =
                        (0..10).filter(|row| offsets.value(*row as usize) >= known[&table]).collect();
                    append(&mut writer, table, take_record_batch(&rows, &keep).expect("taken"))?;
                }
            }
        }
        let next = step(PARTITION, previous, end * 10_000);
        writer.seal(std::slice::from_ref(&next), counts(10 * (end - block) as u64))?;
        previous = Some(next.position);
        block = end;
    }
    Ok(())
}

pub(crate) fn offsets(archive: &Archive, table: Table) -> Vec<i64> {
    read_all(archive, table, PARTITION).map_or_else(Vec::new, |rows| {
        rows.column_by_name("source_offset").expect("a column").as_primitive::<Int64Type>().values().to_vec()
    })
}
