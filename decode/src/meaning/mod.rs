//! Checks whether the columns of a row say what its record says.
//!
//! Invariants:
//! - What an event's record says is what the decoder reads from these bytes alone: the columns of a
//!   row that was decoded and sealed are the ones found here.
//! - What an alert's record says is what the finding says that was sent. Columns that the finding
//!   does not determine are not compared.
//! - No record is trusted: it may contain anything, of any size up to [`RECORD_BYTES_MAX`]. Its
//!   values are never repeated.
//!
//! Nothing is kept here, and nothing is written.

mod alerts;
mod events;

use arrow_schema::ArrowError;
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
    /// The record does not belong to its table, so nothing follows from it.
    NoRecord,
    /// The form of the row does not give a record; the text is the class of the fault.
    Form(&'static str),
    /// What the row says of its record beside its columns is not well formed.
    Mark(&'static str),
    /// These columns say something else, in order.
    Columns(Vec<&'static str>),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::NoRecord => f.write_str("its record is not one of the table"),
            Difference::Form(fault) => write!(f, "its form does not give a record: {fault}"),
            Difference::Mark(detail) => f.write_str(detail),
            Difference::Columns(names) => write!(f, "not what its record says: {}", names.join(", ")),
        }
    }
}
