//! The interface through which the records of sealed events are rendered; callers implement it.
//!
//! Invariant: this crate stores events as columns and does not render them. It passes whole batches
//! to the renderer, in the order of rows.

use std::fmt::Display;

use arrow_array::RecordBatch;
use strongroom_schemas::Table;

/// A renderer: computes the records of events, that is, their bytes, from their columns.
pub trait Records: Sync {
    /// Calls `each` with the record of every row of a batch of events, in order.
    ///
    /// # Errors
    /// A description of what is wrong with the batch.
    fn each(&self, events: &RecordBatch, each: &mut dyn FnMut(&[u8])) -> Result<(), String>;

    /// Compares the columns of a batch of `table` with the records of its rows. Calls `differs`, in
    /// order, for every row whose columns do not match its record, with a description that repeats
    /// no value. Such rows include those whose form gives no record (the record then counts as
    /// empty) and those whose marks (`form_values`, `redaction`, `faults`) are wrong. For events,
    /// it calls `each` with the record of every row, in order, before it calls `differs`; `format`
    /// is the `eventsFormat` of their commit. Rejects have no column that could be compared with
    /// their records.
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
