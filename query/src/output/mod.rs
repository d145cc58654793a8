//! Writes answers as text and files.
//!
//! Invariants: rows are written as they arrive, so memory does not grow with the answer (the grid
//! reads its first rows to choose widths). Values are written in full, except in the grid on a
//! terminal, where a cut is marked. Nothing that a cluster's client chose (a user agent, a name)
//! can move a terminal's cursor, colour its screen or fake a line on it.

mod encode;
mod grid;

use std::io::{self, BufWriter, Write};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use futures::{FutureExt as _, StreamExt};

use crate::error::{QueryError, Result};
use crate::session::{Answer, QueryStats};

/// The format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns for reading.
    Table,
    /// RFC 4180 with a header; lists and structs as JSON text, bytes as hex digits.
    Csv,
    /// One JSON object per line; nulls are written.
    Json,
    /// One JSON array of objects.
    JsonArray,
    /// A Parquet file, zstd.
    Parquet,
    /// An Arrow IPC file (Feather 2), for files.
    ArrowFile,
    /// An Arrow IPC stream, for pipes.
    ArrowStream,
}

impl Format {
    /// Whether the bytes are binary.
    pub const fn is_binary(self) -> bool {
        matches!(self, Format::Parquet | Format::ArrowFile | Format::ArrowStream)
    }
}

/// How the grid fits its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Width of the terminal in characters; `None` when there is no terminal.
    pub width: Option<usize>,
    /// Whether cells may be cut to fit `width`.
    pub truncate: bool,
    pub expanded: Expanded,
}

/// When each value of a row is written on its own line, rather than the whole row on one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expanded {
    Never,
    /// When the columns do not fit the terminal.
    WhenWide,
    Always,
}

/// Figures about an answer that was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub rows: u64,
    pub elapsed: Duration,
    pub stats: QueryStats,
    /// The redaction policies of the rows that were read, if the columns that were read may contain
    /// tokens.
    pub policies: Vec<String>,
}

/// Number of bytes that are gathered before they are handed to the output.
const OUTPUT_BUFFER_BYTES: usize = 1 << 16;

/// Writes all of `answer` to `out` and flushes it.
///
/// Cancel safe: the query stops, and what was already written stays.
///
/// # Errors
/// [`QueryError::Write`] when `out` fails, [`QueryError::Encode`] for a type that the format cannot
/// hold, and every error of running the query.
pub async fn write_answer(
    mut answer: Answer,
    format: Format,
    layout: &Layout,
    out: impl Write + Send,
) -> Result<Written> {
    let failure = Failure::default();
    let mut out = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, Tracked { out, failure: failure.clone() });
    let rows = match format {
        Format::Table => grid::write(&mut answer, layout, &mut out).await,
        _ => encode::write(&mut answer, format, &mut out).await,
    };
    let rows = rows.and_then(|rows| out.flush().map(|()| rows).map_err(QueryError::Write));
    match (rows, failure.take()) {
        (Ok(rows), None) => {
            let policies = answer.policies().await;
            Ok(Written { rows, elapsed: answer.asked.elapsed(), stats: answer.stats(), policies })
        }
        // An encoder wraps an error of the output in its own error. The output's error is the
        // relevant one.
        (_, Some(error)) => Err(QueryError::Write(error)),
        (Err(error), None) => Err(error),
    }
}

async fn next_batch(answer: &mut Answer) -> Result<Option<RecordBatch>> {
    // `guarded` has caught what the decoder of a file panics on; this is for what is above a scan.
    match AssertUnwindSafe(answer.rows.next()).catch_unwind().await {
        Ok(Some(Ok(batch))) => Ok(Some(batch)),
        Ok(Some(Err(error))) => Err(answer.failure(error)),
        Ok(None) => Ok(None),
        Err(_) => Err(QueryError::Panicked),
    }
}

/// The first error of an output, kept while an encoder wraps it.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        kind.into()
    }
}

struct Tracked<W> {
    out: W,
    failure: Failure,
}

impl<W: Write> Write for Tracked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => self.failure.note(error),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(|error| self.failure.note(error))
    }
}
