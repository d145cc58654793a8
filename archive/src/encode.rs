//! Rows to encoded Parquet column chunks, on any thread.

use arrow_array::RecordBatch;
use chrono::{DateTime, NaiveDate, Utc};
use strongroom_schemas::Table;

use crate::error::Result;

/// A row group of one table and date, sorted, encoded and compressed; what [`crate::Writer::append`] takes.
#[derive(Debug)]
pub struct EncodedRowGroup {
    table: Table,
    date: NaiveDate,
    rows: u64,
    bytes: u64,
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

    /// Bytes that it takes in a file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Sorts and encodes the rows of `batch` (in `table.batch_schema()`), one row group for each UTC date
/// of their time; a row whose time is absent or implausible is filed under the date of `arrived`.
/// A batch without rows gives no row groups.
pub fn encode(_table: Table, _batch: RecordBatch, _arrived: DateTime<Utc>) -> Result<Vec<EncodedRowGroup>> {
    unimplemented!()
}
