//! Replaces rows of a block by their redacted versions, and makes a batch of the rejects.
//!
//! Invariant: a column in which no row differs stays as it is. In the other columns, only values of
//! redacted rows are replaced. A dictionary in memory may still contain values that no row uses any
//! more, but the encoder writes only the entries in use. No state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array as _, ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{ArrowError, DataType};
use arrow_select::nullif::nullif;
use arrow_select::{concat::concat, filter::filter, interleave::interleave, take::take};
use chrono::{DateTime, Utc};
use strongroom_decode::DecodedBlock;
use strongroom_lines::frame::Origin;
use strongroom_schemas::events::index;
use strongroom_schemas::record::Sha256Hash;
use strongroom_schemas::{Table, rejects};

use super::Changes;
use super::around::AROUND;
use super::bodies::BODIES;
use super::gate::{Names, dictionary_value};

/// The columns that can differ after redaction, because a policy changes their values or because
/// the redacted record is written differently. If a block has redacted log entries of Google, which
/// are mapped to events, all columns except [`PLACE`] are compared. The marks, and what is around
/// records, are set for all changed rows without a comparison.
const EDITED: [usize; 19] = [
    index::REQUEST_URI,
    index::USER_NAME,
    index::USER_EXTRA,
    index::IMPERSONATED_USER_NAME,
    index::IMPERSONATED_USER_EXTRA,
    index::RESPONSE_STATUS,
    index::RESPONSE_MESSAGE,
    index::RESPONSE_REASON,
    index::RESPONSE_DETAILS,
    index::REQUEST_OBJECT,
    index::RESPONSE_OBJECT,
    index::ANNOTATIONS,
    index::AUTHZ_DECISION,
    index::AUTHZ_REASON,
    index::RAW,
    index::SHAPE,
    index::FORM,
    index::FORM_VALUES,
    index::FAULTS,
];

/// The columns that say where a row was found.
const PLACE: [usize; 3] = [index::CLUSTER, index::SOURCE, index::SOURCE_OFFSET];

/// Sets the marks of changed rows.
pub fn with_marks(changed: &RecordBatch, marks: &[String]) -> Result<RecordBatch, ArrowError> {
    let mut columns = changed.columns().to_vec();
    let marks: Vec<Option<&str>> = marks.iter().map(|mark| Some(mark.as_str())).collect();
    columns[index::REDACTION] = dictionary(&marks)?;
    RecordBatch::try_new(changed.schema(), columns)
}

/// Returns the changed rows, each with the place of the row from which it was made.
pub fn with_places(events: &RecordBatch, changes: &Changes) -> Result<RecordBatch, ArrowError> {
    let rows: Int64Array = changes.originals.iter().map(|row| Some(*row as i64)).collect();
    let mut columns = changes.changed.columns().to_vec();
    for column in PLACE {
        columns[column] = take(events.column(column), &rows, None)?;
    }
    RecordBatch::try_new(events.schema(), columns)
}

/// Replaces the changed rows of a block, column by column; a column without a difference is kept as
/// it is.
pub fn replaced(events: &RecordBatch, changes: &Changes) -> Result<RecordBatch, ArrowError> {
    let mut columns = events.columns().to_vec();
    let all: Vec<usize> = (0..index::COUNT).filter(|column| !PLACE.contains(column)).collect();
    for column in if changes.is_google { all.as_slice() } else { EDITED.as_slice() } {
        let (clear, changed) = (events.column(*column), changes.changed.column(*column));
        let pair = Pair::of(clear, changed);
        // Rows that share a changed row differ from it in the same columns, so only the original is
        // compared.
        let differs = |(at, row): (usize, &usize)| !pair.is_equal(*row, at);
        let differs: Vec<bool> = changes.originals.iter().enumerate().map(differs).collect();
        if !differs.contains(&true) {
            continue;
        }
        let rows = || changes.rows.iter().filter(|(_, at)| differs[*at]);
        columns[*column] = match (clear.as_dictionary_opt(), changed.as_dictionary_opt()) {
            (Some(clear), Some(changed)) => with_entries(clear, changed, rows())?,
            _ => {
                let mut picks: Vec<(usize, usize)> = (0..events.num_rows()).map(|row| (0, row)).collect();
                rows().for_each(|(row, at)| picks[*row] = (1, *at));
                interleave(&[clear.as_ref(), changed.as_ref()], &picks)?
            }
        };
    }
    for (body, column) in BODIES.into_iter().enumerate() {
        if let Some(changed) = changes.bodies.column(body, &columns[column])? {
            columns[column] = changed;
        }
    }
    let mut marks: Vec<Option<&str>> = vec![None; events.num_rows()];
    changes.rows.iter().for_each(|(row, at)| marks[*row] = Some(&changes.marks[*at]));
    changes.bodies.marks().for_each(|(row, mark)| marks[row] = Some(mark));
    columns[index::REDACTION] = dictionary(&marks)?;
    // Nothing is around the record of a changed event.
    let mask: BooleanArray = marks.iter().map(|mark| Some(mark.is_some())).collect();
    for column in AROUND {
        if columns[column].null_count() < events.num_rows() {
            columns[column] = nullif(&columns[column], &mask)?;
        }
    }
    RecordBatch::try_new(events.schema(), columns)
}

/// Replaces values of a dictionary. Entries that no row uses any more stay in it, but the encoder
/// does not write them.
fn with_entries<'r>(
    clear: &DictionaryArray<Int32Type>,
    changed: &DictionaryArray<Int32Type>,
    rows: impl Iterator<Item = &'r (usize, usize)>,
) -> Result<ArrayRef, ArrowError> {
    let first = i32::try_from(clear.values().len())
        .map_err(|_| ArrowError::ComputeError("a dictionary has too many entries".to_owned()))?;
    let mut keys: Vec<Option<i32>> = clear.keys().iter().collect();
    for (row, at) in rows {
        keys[*row] = changed.is_valid(*at).then(|| first + changed.keys().value(*at));
    }
    let values = concat(&[clear.values().as_ref(), changed.values().as_ref()])?;
    Ok(Arc::new(DictionaryArray::try_new(Int32Array::from(keys), values)?))
}

/// Removes rows, and the hashes of their records, from a batch.
pub fn without(
    events: RecordBatch,
    hashes: Vec<Sha256Hash>,
    rows: impl Iterator<Item = usize>,
) -> Result<(RecordBatch, Vec<Sha256Hash>), ArrowError> {
    let mut keep = vec![true; events.num_rows()];
    let mut is_all = true;
    for row in rows {
        keep[row] = false;
        is_all = false;
    }
    if is_all {
        return Ok((events, hashes));
    }
    let hashes = hashes.into_iter().zip(&keep).filter_map(|(hash, keep)| keep.then_some(hash)).collect();
    let mask = BooleanArray::from(keep);
    let columns = events.columns().iter().map(|column| filter(column, &mask)).collect::<Result<_, _>>()?;
    Ok((RecordBatch::try_new(events.schema(), columns)?, hashes))
}

/// Removes the events at the offsets `stored` from a block, because the archive already has them as
/// encrypted rejects. Returns the block, and the number of events that were removed.
///
/// # Errors
/// If a column cannot be assembled.
pub fn leave_out(
    decoded: DecodedBlock,
    stored: &std::collections::HashSet<i64>,
) -> Result<(DecodedBlock, u64), ArrowError> {
    let offsets = decoded.events.column(index::SOURCE_OFFSET).as_primitive::<Int64Type>();
    let rows: Vec<usize> =
        (0..decoded.events.num_rows()).filter(|row| stored.contains(&offsets.value(*row))).collect();
    let left_out = rows.len() as u64;
    let DecodedBlock { events, rejects, record_hashes, unhashed, consumed, dialects } = decoded;
    let (events, record_hashes) = without(events, record_hashes, rows.into_iter())?;
    Ok((DecodedBlock { events, rejects, record_hashes, unhashed, consumed, dialects }, left_out))
}

/// Two arrays of the same column, to be compared value by value.
pub enum Pair<'p> {
    /// Neither array has a value.
    Null,
    Dictionaries(Names<'p>, Names<'p>),
    Strings(&'p StringArray, &'p StringArray),
    Binaries(&'p BinaryArray, &'p BinaryArray),
    Times(&'p TimestampMicrosecondArray, &'p TimestampMicrosecondArray),
    /// Compared by slices, which is slow.
    Others(&'p ArrayRef, &'p ArrayRef),
}

impl<'p> Pair<'p> {
    pub fn of(clear: &'p ArrayRef, changed: &'p ArrayRef) -> Pair<'p> {
        let is_null = |array: &ArrayRef| array.null_count() == array.len();
        if is_null(clear) && is_null(changed) {
            return Pair::Null;
        }
        match clear.data_type() {
            DataType::Dictionary(..) => Pair::Dictionaries(clear.as_dictionary(), changed.as_dictionary()),
            DataType::Utf8 => Pair::Strings(clear.as_string(), changed.as_string()),
            DataType::Binary => Pair::Binaries(clear.as_binary(), changed.as_binary()),
            DataType::Timestamp(..) => Pair::Times(
                clear.as_primitive::<TimestampMicrosecondType>(),
                changed.as_primitive::<TimestampMicrosecondType>(),
            ),
            _ => Pair::Others(clear, changed),
        }
    }

    /// Whether row `row` of the first has the value of row `at` of the second.
    pub fn is_equal(&self, row: usize, at: usize) -> bool {
        match self {
            Pair::Null => true,
            Pair::Dictionaries(clear, changed) => {
                dictionary_value(clear, row) == dictionary_value(changed, at)
            }
            Pair::Strings(clear, changed) => {
                clear.is_valid(row) == changed.is_valid(at)
                    && (clear.is_null(row) || clear.value(row) == changed.value(at))
            }
            Pair::Binaries(clear, changed) => {
                clear.is_valid(row) == changed.is_valid(at)
                    && (clear.is_null(row) || clear.value(row) == changed.value(at))
            }
            Pair::Times(clear, changed) => {
                clear.is_valid(row) == changed.is_valid(at)
                    && (clear.is_null(row) || clear.value(row) == changed.value(at))
            }
            Pair::Others(clear, changed) => clear.slice(row, 1) == changed.slice(at, 1),
        }
    }
}

/// Returns the values of a dictionary column, each converted by `text`.
pub fn column_texts(array: &ArrayRef, text: impl Fn(usize, &str) -> String) -> Vec<Option<String>> {
    let array = array.as_dictionary::<Int32Type>();
    (0..array.len()).map(|row| dictionary_value(array, row).map(|value| text(row, value))).collect()
}

pub fn dictionary<T: AsRef<str>>(values: &[Option<T>]) -> Result<ArrayRef, ArrowError> {
    let mut known: HashMap<&str, i32> = HashMap::new();
    let mut entries: Vec<&str> = Vec::new();
    let keys: Int32Array = values
        .iter()
        .map(|value| {
            let value = value.as_ref()?.as_ref();
            let key = *known.entry(value).or_insert_with(|| {
                entries.push(value);
                i32::try_from(entries.len()).unwrap_or(i32::MAX) - 1
            });
            Some(key)
        })
        .collect();
    if entries.is_empty() {
        // Null rows point at key 0, which must exist.
        entries.push("");
    }
    Ok(Arc::new(DictionaryArray::try_new(keys, Arc::new(StringArray::from(entries)))?))
}

/// A row of `rejects`.
pub struct Reject {
    pub raw: Vec<u8>,
    pub reason: String,
    pub detail: String,
    pub offset: i64,
    pub line: Option<i64>,
}

pub fn rejects_batch(
    all: &[Reject],
    origin: &Origin,
    arrived: DateTime<Utc>,
) -> Result<RecordBatch, ArrowError> {
    let same = |text: &str| dictionary(&vec![Some(text.to_owned()); all.len()]);
    let received = vec![arrived.timestamp_micros(); all.len()];
    let mut columns: BTreeMap<usize, ArrayRef> = BTreeMap::new();
    let raw = BinaryArray::from_iter_values(all.iter().map(|reject| &reject.raw));
    columns.insert(rejects::index::RAW, Arc::new(raw));
    let reasons: Vec<Option<&str>> = all.iter().map(|reject| Some(reject.reason.as_str())).collect();
    columns.insert(rejects::index::REASON, dictionary(&reasons)?);
    let details = StringArray::from_iter_values(all.iter().map(|reject| &reject.detail));
    columns.insert(rejects::index::DETAIL, Arc::new(details));
    columns.insert(rejects::index::CLUSTER, same(&origin.cluster)?);
    columns.insert(rejects::index::SOURCE, same(&origin.partition)?);
    let offsets = Int64Array::from_iter_values(all.iter().map(|reject| reject.offset));
    columns.insert(rejects::index::SOURCE_OFFSET, Arc::new(offsets));
    columns.insert(rejects::index::LINE, Arc::new(all.iter().map(|r| r.line).collect::<Int64Array>()));
    let received = TimestampMicrosecondArray::from(received).with_timezone("UTC");
    columns.insert(rejects::index::RECEIVED_TIMESTAMP, Arc::new(received));
    RecordBatch::try_new(Table::Rejects.batch_schema(), columns.into_values().collect())
}
