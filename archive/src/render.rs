//! How the records of sealed rows are rendered: the interface that the caller implements.
//!
//! Invariant: the archive stores events as columns and renders none. It gives whole batches to the
//! renderer, in the order of rows.

use std::fmt::Display;

use arrow_array::RecordBatch;
use strongroom_schemas::Table;

/// Returns the bytes of events; the archive stores them as columns and cannot render them.
pub trait Records: Sync {
    /// Calls `each` with the record of every row of a batch of events, in order.
    ///
    /// # Errors
    /// A description of what is wrong with the batch.
    fn each(&self, events: &RecordBatch, each: &mut dyn FnMut(&[u8])) -> Result<(), String>;

    /// Compares the columns of `table` with its records. Calls `differs`, in order, with every row
    /// whose columns do not match its record, and with a description that repeats no value. This
    /// includes a row whose form gives no record (the record then counts as empty), and a row whose
    /// marks (`form_values`, `redaction`, `faults`) are wrong. For events, it first calls `each`
    /// with the record of every row, in order, and `format` is the `eventsFormat` of their commit.
    /// The records of rejects say nothing about columns.
    ///
    /// # Errors
    /// A description of what is wrong with the batch.
    fn compare(
        &self,
        table: Table,
        rows: &RecordBatch,
        format: u32,
        each: &mut dyn FnMut(&[u8]),
        differs: &mut dyn FnMut(usize, &dyn Display),
    ) -> Result<(), String>;
}
