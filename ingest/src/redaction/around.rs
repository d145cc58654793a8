//! Removes the text around the records of a line or document in which something was replaced.
//!
//! A collector may put a copy of a whole list of events beside the list. The copy is then in the
//! text around each of the events, including those in which nothing is replaced. This text can be
//! removed, because no proof covers the text around a record, and because a stream with a redacted
//! record is exported record by record.
//!
//! Invariant: a record loses the text around it if a record of the same line or document was
//! redacted or encrypted. Otherwise it stays as it was. Two records belong to one line if no byte
//! lies between the texts around them, because all other bytes of a stream are newlines. No state.

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, BooleanArray, RecordBatch};
use arrow_schema::ArrowError;
use arrow_select::nullif::nullif;
use strongroom_decode::render::Renderer;
use strongroom_schemas::events::index;
use strongroom_schemas::rejects;

/// The two columns with what is around a record.
pub const AROUND: [usize; 2] = [index::FRAME_BEFORE, index::FRAME_AFTER];

/// A record of the block.
#[derive(Clone, Copy)]
enum Unit {
    Event(usize),
    Reject(usize),
}

/// Returns the rows of a block beside which something was redacted or encrypted. `changed` are the
/// rows of redacted or encrypted events. All rejects are encrypted.
pub fn beside(
    events: &RecordBatch,
    rejects: &RecordBatch,
    changed: impl Iterator<Item = usize>,
) -> Result<Option<BooleanArray>, ArrowError> {
    if AROUND.iter().all(|column| events.column(*column).null_count() == events.num_rows()) {
        return Ok(None);
    }
    let renderer = Renderer::new(events).map_err(|error| ArrowError::SchemaError(error.to_string()))?;
    let raw = rejects.column(rejects::index::RAW).as_binary::<i32>();
    let offsets = rejects.column(rejects::index::SOURCE_OFFSET).as_primitive::<Int64Type>();
    let mut units: Vec<(i64, Unit)> =
        (0..events.num_rows()).map(|row| (renderer.offset(row), Unit::Event(row))).collect();
    units.extend((0..rejects.num_rows()).map(|row| (offsets.value(row), Unit::Reject(row))));
    units.sort_by_key(|(offset, _)| *offset);
    let around = AROUND.map(|column| events.column(column).as_binary::<i32>());
    let bytes_of = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    let begin = |at: usize| match units[at] {
        (offset, Unit::Event(row)) => offset - bytes_of(around[0].value(row).len()),
        (offset, Unit::Reject(_)) => offset,
    };
    let mut record = Vec::new();
    let mut end = |at: usize| match units[at] {
        (offset, Unit::Event(row)) => {
            record.clear();
            // Does not fail, because a row that was just decoded gives its record.
            match renderer.record(row, &mut record) {
                Ok(()) => offset + bytes_of(record.len() + around[1].value(row).len()),
                Err(_) => i64::MAX,
            }
        }
        (offset, Unit::Reject(row)) => offset + bytes_of(raw.value(row).len()),
    };
    let mut is_changed = vec![false; events.num_rows()];
    changed.for_each(|row| is_changed[row] = true);
    let is_seed = |at: usize| match units[at].1 {
        Unit::Event(row) => is_changed[row],
        Unit::Reject(_) => true,
    };
    let mut is_beside = vec![false; events.num_rows()];
    let mut mark = |at: usize| {
        if let Unit::Event(row) = units[at].1 {
            is_beside[row] = true;
        }
        // If this record is a seed too, the records beyond it are marked from there.
        is_seed(at)
    };
    for seed in (0..units.len()).filter(|at| is_seed(*at)) {
        let mut at = seed;
        while at + 1 < units.len() && end(at) >= begin(at + 1) {
            at += 1;
            if mark(at) {
                break;
            }
        }
        at = seed;
        while at > 0 && end(at - 1) >= begin(at) {
            at -= 1;
            if mark(at) {
                break;
            }
        }
    }
    Ok(is_beside.contains(&true).then(|| BooleanArray::from(is_beside)))
}

/// Removes the text around the records of these rows.
pub fn alone(events: &RecordBatch, rows: &BooleanArray) -> Result<RecordBatch, ArrowError> {
    let mut columns = events.columns().to_vec();
    for column in AROUND {
        columns[column] = nullif(&columns[column], rows)?;
    }
    RecordBatch::try_new(events.schema(), columns)
}
