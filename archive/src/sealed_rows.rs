//! Reads the rows of a sealed file: batches, columns by name and type, and records.
//!
//! Invariants:
//! 1. The schema of a file is not trusted to be that of its table: a column that is missing or has
//!    another type is an error that names it, never a panic.
//! 2. [`SealedRows`] holds the bytes of one file and one batch of its rows in memory. A file that a
//!    stranger wrote costs no more, and no panic: `decoding` sees to that.
//!
//! This module does not write, so a crash loses nothing.
//!
//! Two readers open files themselves and use only [`SealedBatch`] of this module: `read`, because
//! it keeps footers, chooses row groups by their statistics and leaves out rows while it decodes;
//! and `retention`, because it fetches ranges without blocking a thread, and only the columns that
//! a hold needs. `proof::verify` reads rows with [`SealedRows`]. It opens a changed file once more
//! by itself, to find the first damaged column chunk.

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::schema::types::SchemaDescriptor;
use strongroom_schemas::{Table, events};

use crate::delta::facts::{STATISTICS_OFFSET, STATISTICS_SOURCE};
use crate::encode::{record_column, record_value};
use crate::error::{ColumnError, RowsError};
use crate::render::Records;
use strongroom_parquet::{Batches, row_group_bytes_max};

/// An iterator over the rows of one sealed file, with all columns. Rows are read while it advances.
pub struct SealedRows {
    table: Table,
    batches: Batches,
}

impl SealedRows {
    /// Opens a file of `table`, whose batches have at most `batch_rows` rows.
    ///
    /// # Errors
    /// [`RowsError::File`] if the bytes are not a Parquet file, [`RowsError::Column`] if its columns
    /// are not those of the table.
    pub fn open(file: Bytes, table: Table, batch_rows: usize) -> Result<SealedRows, RowsError> {
        let batches = Batches::open(file, row_group_bytes_max(table), batch_rows)?;
        check_columns(table, batches.schema())?;
        Ok(SealedRows { table, batches })
    }
}

/// Checks that a file has the columns of its table, in their order and with their types: a record is
/// rendered by the place of a column, and SQL finds a column by its name. Older files lack later
/// columns, and newer ones may have more, after all others.
fn check_columns(table: Table, file: &Schema) -> Result<(), ColumnError> {
    let known = table.file_schema();
    let missing = |name: &str| ColumnError::Missing { column: name.to_owned() };
    for (at, field) in known.fields().iter().enumerate() {
        let Some(found) = file.fields().get(at) else {
            if table.later_columns().contains(&field.name().as_str()) {
                return Ok(());
            }
            return Err(missing(field.name()));
        };
        if found.name() != field.name() {
            return Err(missing(field.name()));
        }
        let is_same = match (found.data_type(), field.data_type()) {
            // Files name the items of a list as Parquet does.
            (DataType::List(found), DataType::List(item)) => found.data_type() == item.data_type(),
            (found, wanted) => found == wanted,
        };
        if !is_same {
            return Err(ColumnError::Mistyped { column: field.name().clone() });
        }
    }
    let mut more = file.fields().iter().skip(known.fields().len());
    match more.find(|field| known.field_with_name(field.name()).is_ok()) {
        Some(twice) => Err(ColumnError::Mistyped { column: twice.name().clone() }),
        None => Ok(()),
    }
}

impl Iterator for SealedRows {
    type Item = Result<SealedBatch, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        Some(batch.map(|batch| SealedBatch { table: self.table, batch }).map_err(RowsError::from))
    }
}

/// A batch of rows of a sealed file of `table`, with the columns that were read.
pub struct SealedBatch {
    pub table: Table,
    pub batch: RecordBatch,
}

impl SealedBatch {
    /// Returns the column with this name, whatever its type.
    ///
    /// # Errors
    /// [`ColumnError::Missing`].
    pub fn array(&self, name: &str) -> Result<&ArrayRef, ColumnError> {
        self.batch.column_by_name(name).ok_or_else(|| ColumnError::Missing { column: name.to_owned() })
    }

    /// Returns the column with this name and type.
    ///
    /// # Errors
    /// [`ColumnError`] if it is missing or has another type.
    pub fn column<A: Array + 'static>(&self, name: &str) -> Result<&A, ColumnError> {
        let array = self.array(name)?.as_any().downcast_ref();
        array.ok_or_else(|| ColumnError::Mistyped { column: name.to_owned() })
    }

    /// Returns the source partition of each row, and the offset of the row in it.
    ///
    /// # Errors
    /// [`ColumnError`] if one of the columns is missing or has another type.
    pub fn offsets(&self) -> Result<Offsets<'_>, ColumnError> {
        Ok(Offsets { source: self.column(STATISTICS_SOURCE)?, offset: self.column(STATISTICS_OFFSET)? })
    }

    /// Returns the time of each row.
    ///
    /// # Errors
    /// [`ColumnError`] if the column is missing or has another type.
    pub fn times(&self) -> Result<&TimestampMicrosecondArray, ColumnError> {
        self.column(self.table.time_column())
    }

    /// Returns the marks of the rows whose records were redacted before they were written.
    ///
    /// # Errors
    /// [`ColumnError::Mistyped`] if the column has another type than in the table's schema. A
    /// missing column is not an error: only events have it, and events that were written before it
    /// was introduced do not.
    pub fn marks(&self) -> Result<Marks<'_>, ColumnError> {
        let is_there = self.table == Table::Events && self.batch.column_by_name(events::REDACTION).is_some();
        Ok(Marks { column: is_there.then(|| self.column(events::REDACTION)).transpose()? })
    }

    /// Returns the column whose values are the records; `None` for events, whose records are
    /// rendered.
    ///
    /// # Errors
    /// [`ColumnError`] if the column is missing or has another type than in the table's schema.
    pub fn record_column(&self) -> Result<Option<&ArrayRef>, ColumnError> {
        let Some(name) = record_column(self.table) else { return Ok(None) };
        let array = self.array(name)?;
        let schema = self.table.file_schema();
        let is_typed = schema.field_with_name(name).is_ok_and(|field| field.data_type() == array.data_type());
        if is_typed { Ok(Some(array)) } else { Err(ColumnError::Mistyped { column: name.to_owned() }) }
    }

    /// Calls `each` for every row, in order, with the row's number in the batch and its record. A
    /// record that is null counts as an empty record.
    ///
    /// # Errors
    /// [`RowsError::Column`] if the column of the records is missing or has another type,
    /// [`RowsError::Records`] if events cannot be rendered.
    pub fn each_record(
        &self,
        records: &dyn Records,
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), RowsError> {
        if let Some(column) = self.record_column()? {
            (0..column.len()).for_each(|row| each(row, record_value(column, row)));
            return Ok(());
        }
        let mut row = 0;
        let rendered = records.each(&self.batch, &mut |record| {
            each(row, record);
            row += 1;
        });
        rendered.map_err(|detail| RowsError::Records { detail })
    }
}

/// The column of redaction marks, if the rows have one.
#[derive(Clone, Copy)]
pub struct Marks<'b> {
    column: Option<&'b StringArray>,
}

impl<'b> Marks<'b> {
    /// Returns the mark of a row; `None` if its record is what was received.
    pub fn of(&self, row: usize) -> Option<&'b str> {
        self.column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
    }

    /// Returns the number of rows with a mark.
    pub fn count(&self) -> u64 {
        self.column.map_or(0, |column| (column.len() - column.null_count()) as u64)
    }
}

/// The columns that state the source of each row and the offset of the row in it.
#[derive(Clone, Copy)]
pub struct Offsets<'b> {
    pub source: &'b StringArray,
    pub offset: &'b Int64Array,
}

impl<'b> Offsets<'b> {
    /// Returns the source and the offset of a row; `None` if the row lacks either.
    pub fn of(&self, row: usize) -> Option<(&'b str, i64)> {
        let is_known = self.source.is_valid(row) && self.offset.is_valid(row);
        is_known.then(|| (self.source.value(row), self.offset.value(row)))
    }
}

/// Selects the columns of a Parquet file whose names are `wanted`. Columns that are nested in a
/// wanted column are selected too.
pub fn columns_of(file: &SchemaDescriptor, wanted: &dyn Fn(&str) -> bool) -> ProjectionMask {
    // A list is selected by the name of its column, whatever name its items have.
    let root = |leaf: &usize| file.column(*leaf).path().parts().first().is_some_and(|name| wanted(name));
    ProjectionMask::leaves(file, (0..file.num_columns()).filter(root))
}

#[cfg(test)]
mod tests {
    use std::fmt::Display;
    use std::sync::Arc;

    use arrow_array::Int32Array;
    use strongroom_schemas::activity;

    use super::*;

    /// Renders nothing.
    struct Unrendered;

    impl Records for Unrendered {
        fn each(&self, _: &RecordBatch, _: &mut dyn FnMut(&[u8])) -> Result<(), String> {
            Err("no form".to_owned())
        }

        fn compare(
            &self,
            _: Table,
            _: &RecordBatch,
            _: u32,
            _: &mut dyn FnMut(&[u8]),
            _: &mut dyn FnMut(usize, &dyn Display),
        ) -> Result<(), String> {
            Err("no form".to_owned())
        }
    }

    fn sealed(table: Table, columns: [(&str, ArrayRef); 3]) -> SealedBatch {
        SealedBatch { table, batch: RecordBatch::try_from_iter(columns).expect("columns of one length") }
    }

    #[test]
    fn a_column_that_is_missing_or_mistyped_is_named() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let columns = [
            (STATISTICS_SOURCE, Arc::clone(&text)),
            (STATISTICS_OFFSET, Arc::clone(&numbers)),
            (activity::BODY, numbers),
        ];
        let rows = sealed(Table::Activity, columns);
        let mistyped = |column: &str| Some(ColumnError::Mistyped { column: column.to_owned() });
        assert_eq!(rows.offsets().err(), mistyped(STATISTICS_OFFSET));
        assert_eq!(rows.record_column().err(), mistyped(activity::BODY));
        assert_eq!(rows.times().err(), Some(ColumnError::Missing { column: activity::TIME.to_owned() }));
    }

    #[test]
    fn marks_are_of_events_alone() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let columns = |marks: &ArrayRef| {
            let others = (STATISTICS_SOURCE, STATISTICS_OFFSET);
            [
                (others.0, Arc::clone(&text)),
                (others.1, Arc::clone(&text)),
                (events::REDACTION, Arc::clone(marks)),
            ]
        };
        let rows = sealed(Table::Events, columns(&text));
        let marks = rows.marks().expect("marks");
        assert_eq!((marks.of(0), marks.of(1), marks.count()), (Some("a"), None, 1));
        let of_alerts = sealed(Table::Alerts, columns(&text));
        let marks = of_alerts.marks().expect("no marks");
        assert_eq!((marks.of(0), marks.count()), (None, 0));
        let mistyped = sealed(Table::Events, columns(&numbers)).marks().err();
        assert_eq!(mistyped, Some(ColumnError::Mistyped { column: events::REDACTION.to_owned() }));
    }

    #[test]
    fn records_come_with_their_rows() {
        let offsets: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let columns = || {
            let (offsets, text) = (Arc::clone(&offsets), Arc::clone(&text));
            [(STATISTICS_SOURCE, Arc::clone(&text)), (STATISTICS_OFFSET, offsets), (activity::BODY, text)]
        };
        let rows = sealed(Table::Activity, columns());
        let mut seen = Vec::new();
        let read = rows.each_record(&Unrendered, &mut |row, record| seen.push((row, record.to_vec())));
        read.expect("records of activity are stored");
        assert_eq!(seen, [(0, b"a".to_vec()), (1, Vec::new())], "a null is an empty record");
        let places = rows.offsets().expect("offsets");
        assert_eq!((places.of(0), places.of(1)), (Some(("a", 7)), None));
        let unrendered = sealed(Table::Events, columns()).each_record(&Unrendered, &mut |_, _| ());
        assert!(matches!(unrendered, Err(RowsError::Records { detail }) if detail == "no form"));
    }
}
