//! The columns of a batch, in any physical Arrow type that they may have.
//!
//! Invariant: a value is the same text whether its column is a dictionary, plain strings or string
//! views, so a rule gives the same result on the stream and over the archive. Columns are borrowed
//! from the batch, not copied. No state.

use std::cell::OnceCell;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow_schema::{DataType, TimeUnit};
use strongroom_schemas::{Outcome, events};
use thiserror::Error;

/// Why a batch cannot be matched.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MatchError {
    #[error("the batch has no column \"{name}\"")]
    Missing { name: &'static str },
    #[error("column \"{name}\" has type {found}, not {expected}")]
    Type { name: &'static str, found: String, expected: &'static str },
}

/// Strings of any physical type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Strings<'a> {
    Utf8(&'a StringArray),
    Large(&'a LargeStringArray),
    View(&'a StringViewArray),
}

impl<'a> Strings<'a> {
    fn of(array: &'a ArrayRef) -> Option<Strings<'a>> {
        match array.data_type() {
            DataType::Utf8 => Some(Strings::Utf8(array.as_string())),
            DataType::LargeUtf8 => Some(Strings::Large(array.as_string())),
            DataType::Utf8View => Some(Strings::View(array.as_string_view())),
            _ => None,
        }
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Strings::Utf8(array) => array.len(),
            Strings::Large(array) => array.len(),
            Strings::View(array) => array.len(),
        }
    }

    pub(crate) fn get(self, at: usize) -> Option<&'a str> {
        match self {
            Strings::Utf8(array) => array.is_valid(at).then(|| array.value(at)),
            Strings::Large(array) => array.is_valid(at).then(|| array.value(at)),
            Strings::View(array) => array.is_valid(at).then(|| array.value(at)),
        }
    }
}

/// Text that may be a dictionary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Text<'a> {
    Dictionary(&'a Int32Array, Strings<'a>),
    Plain(Strings<'a>),
}

impl<'a> Text<'a> {
    pub(crate) fn of(array: &'a ArrayRef) -> Option<Text<'a>> {
        match array.data_type() {
            DataType::Dictionary(key, _) if **key == DataType::Int32 => {
                let dictionary = array.as_dictionary::<Int32Type>();
                Some(Text::Dictionary(dictionary.keys(), Strings::of(dictionary.values())?))
            }
            _ => Some(Text::Plain(Strings::of(array)?)),
        }
    }

    pub(crate) fn get(self, at: usize) -> Option<&'a str> {
        match self {
            Text::Plain(strings) => strings.get(at),
            Text::Dictionary(keys, values) => {
                if keys.is_null(at) {
                    return None;
                }
                usize::try_from(keys.value(at)).ok().and_then(|key| values.get(key))
            }
        }
    }

    /// Returns the place of a row's value in a memo, where 0 is null (see [`crate::memo`]); `None`
    /// if the column is not a dictionary.
    pub(crate) fn place(self, at: usize) -> Option<usize> {
        match self {
            Text::Plain(_) => None,
            Text::Dictionary(keys, _) if keys.is_null(at) => Some(0),
            Text::Dictionary(keys, _) => Some(keys.value(at) as usize + 1),
        }
    }

    /// Returns the number of places that a memo for this column needs; 0 if it is not a dictionary.
    pub(crate) fn places(self) -> usize {
        match self {
            Text::Plain(_) => 0,
            Text::Dictionary(_, values) => values.len() + 1,
        }
    }
}

/// Lists of text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lists<'a> {
    list: &'a arrow_array::ListArray,
    pub(crate) items: Text<'a>,
}

impl<'a> Lists<'a> {
    /// Returns the dictionary keys of all items, and the dictionary's values; `None` if the items
    /// are not a dictionary, or if a key is null.
    pub(crate) fn keys(&self) -> Option<(&'a [i32], Strings<'a>)> {
        match self.items {
            Text::Dictionary(keys, values) if keys.null_count() == 0 => Some((keys.values(), values)),
            _ => None,
        }
    }

    /// Returns the positions of a row's items in `items`; empty for null.
    pub(crate) fn range(&self, row: usize) -> Range<usize> {
        if self.list.is_null(row) {
            return 0..0;
        }
        let offsets = self.list.value_offsets();
        offsets[row] as usize..offsets[row + 1] as usize
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Column<'a> {
    Text(Text<'a>),
    Lists(Lists<'a>),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Time(&'a TimestampMicrosecondArray),
}

/// The columns of one batch, by their position in the events schema.
pub(crate) struct Columns<'a> {
    columns: Vec<Option<Column<'a>>>,
    pub(crate) rows: usize,
    /// The outcome of each row, computed at the first use.
    outcomes: OnceCell<Vec<Option<Outcome>>>,
    dry_runs: OnceCell<Vec<bool>>,
}

impl<'a> Columns<'a> {
    /// Finds columns by name; all of `wanted` must exist.
    pub(crate) fn of(batch: &'a RecordBatch, wanted: &[usize]) -> Result<Columns<'a>, MatchError> {
        let mut columns = vec![None; events::index::COUNT];
        for &at in wanted {
            let name = events::COLUMNS[at];
            let array = batch.column_by_name(name).ok_or(MatchError::Missing { name })?;
            columns[at] = Some(column_of(name, array)?);
        }
        Ok(Columns { columns, rows: batch.num_rows(), outcomes: OnceCell::new(), dry_runs: OnceCell::new() })
    }

    fn get(&self, at: usize) -> Column<'a> {
        self.columns[at].expect("the program lists every column it reads")
    }

    pub(crate) fn column(&self, at: usize) -> Column<'a> {
        self.get(at)
    }

    pub(crate) fn text(&self, at: usize) -> Text<'a> {
        match self.get(at) {
            Column::Text(text) => text,
            other => unreachable!("{other:?} in place of text was refused by column_of"),
        }
    }

    /// Returns a column that the matcher may not have loaded, because only some sets of rules read
    /// it; `None` if this set does not.
    pub(crate) fn optional_text(&self, at: usize) -> Option<Text<'a>> {
        self.columns[at].is_some().then(|| self.text(at))
    }

    pub(crate) fn lists(&self, at: usize) -> Lists<'a> {
        match self.get(at) {
            Column::Lists(lists) => lists,
            other => unreachable!("{other:?} in place of lists was refused by column_of"),
        }
    }

    /// Returns the outcome of each row. The first call computes the outcomes with `compute`.
    pub(crate) fn outcomes(&self, compute: impl FnOnce() -> Vec<Option<Outcome>>) -> &[Option<Outcome>] {
        self.outcomes.get_or_init(compute)
    }

    /// Returns for each row whether it is a dry run. The first call computes this with `compute`.
    pub(crate) fn dry_runs(&self, compute: impl FnOnce() -> Vec<bool>) -> &[bool] {
        self.dry_runs.get_or_init(compute)
    }

    pub(crate) fn number(&self, at: usize, row: usize) -> Option<i64> {
        match self.get(at) {
            Column::Int32(array) => array.is_valid(row).then(|| i64::from(array.value(row))),
            Column::Int64(array) => array.is_valid(row).then(|| array.value(row)),
            Column::Time(array) => array.is_valid(row).then(|| array.value(row)),
            Column::Text(_) | Column::Lists(_) => None,
        }
    }
}

fn column_of<'a>(name: &'static str, array: &'a ArrayRef) -> Result<Column<'a>, MatchError> {
    let refused = |expected| Err(MatchError::Type { name, found: array.data_type().to_string(), expected });
    let schema = strongroom_schemas::Table::Events.file_schema();
    let expected = schema.field_with_name(name).expect("a name of events::COLUMNS").data_type();
    match (expected, array.data_type()) {
        (DataType::Utf8, _) => match Text::of(array) {
            Some(text) => Ok(Column::Text(text)),
            None => refused("a string, string view or Dictionary(Int32, string)"),
        },
        (DataType::List(_), DataType::List(_)) => {
            let list = array.as_list::<i32>();
            match Text::of(list.values()) {
                Some(items) => Ok(Column::Lists(Lists { list, items })),
                None => refused("a list of strings"),
            }
        }
        (DataType::List(_), _) => refused("a list of strings"),
        (DataType::Int32, DataType::Int32) => Ok(Column::Int32(array.as_primitive::<Int32Type>())),
        (DataType::Int32, _) => refused("Int32"),
        (DataType::Int64, DataType::Int64) => Ok(Column::Int64(array.as_primitive::<Int64Type>())),
        (DataType::Int64, _) => refused("Int64"),
        (_, DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            Ok(Column::Time(array.as_primitive::<TimestampMicrosecondType>()))
        }
        _ => refused("a timestamp in microseconds"),
    }
}
