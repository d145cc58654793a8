//! Rows back in the order in which their source had them.

use arrow_array::RecordBatch;

use crate::error::Result;

/// Batches of rows, read while iterated.
pub struct Rows {}

impl Iterator for Rows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}
