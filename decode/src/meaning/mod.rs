//! Checks whether the columns of a row say what its record says.
//!
//! Invariants:
//! - The decoder reads an event's record from its bytes alone. So if the decoder made a sealed row,
//!   the same columns are found here.
//! - An alert's record is the finding that was sent. Columns that the finding does not determine
//!   are not compared.
//! - No record is trusted: it may contain anything, of any size up to [`RECORD_BYTES_MAX`]. No
//!   message repeats its values.
//!
//! No state; nothing is written.

mod alerts;
mod events;

use arrow_schema::ArrowError;
use strongroom_schemas::marked::MarkDiffers;
use thiserror::Error;

pub use self::alerts::{compare_alerts, compared_alert_columns};
pub use self::events::compare_events;
use crate::render::WrongColumn;

/// Longest record that is read, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Why rows cannot be compared.
#[derive(Debug, Error)]
pub enum MeaningError {
    #[error(transparent)]
    Column(#[from] WrongColumn),
    #[error("cannot turn the records into columns")]
    Columns(#[from] ArrowError),
}

/// How the columns of a row differ from what its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The record is not a record of the row's table, so it determines no column.
    NoRecord,
    /// The form of the row does not give a record; the text is the class of the fault.
    Form(&'static str),
    /// A column that marks the row (`redaction`, `faults`, or `form_values` without a form) is not
    /// well formed; the text says which.
    Mark(&'static str),
    /// The record is not what the redaction mark of the row says.
    Redaction(MarkDiffers),
    /// These columns differ from what the record says. They are in the order in which they are
    /// compared.
    Columns(Vec<&'static str>),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::NoRecord => f.write_str("its record is not one of the table"),
            Difference::Form(fault) => write!(f, "its form does not give a record: {fault}"),
            Difference::Mark(detail) => f.write_str(detail),
            Difference::Redaction(differs) => write!(f, "{differs}"),
            Difference::Columns(names) => write!(f, "not what its record says: {}", names.join(", ")),
        }
    }
}
