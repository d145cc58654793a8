//! Redacts the bodies of events in which nothing else is replaced.
//!
//! Events with bodies mostly differ in their bodies alone: the rest of what a policy may change or
//! search, the *envelope* of an event, is the same in many of them. So an envelope is judged once per
//! block, and only the bodies of each event are read. The columns of a changed event are those that
//! it had, with other bodies, so it is not decoded again.
//!
//! Invariant: a row is changed here as it is changed when its whole event is edited and decoded; the
//! tests compare both ways. If that is not certain, nothing is done here. What is known is kept for
//! one block.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ArrayRef, StringArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::ArrowError;
use strongroom_decode::render::Renderer;
use strongroom_redact::{Edited, EditedBodies, Envelope, RedactedBodies, Redactor};
use strongroom_schemas::events::index;

use super::gate::{Gate, Likeness};

/// The columns of bodies.
pub const BODIES: [usize; 2] = [index::REQUEST_OBJECT, index::RESPONSE_OBJECT];

/// The envelopes of a block; `None` for one that is not kept as it is.
#[derive(Default)]
pub struct Envelopes {
    known: HashMap<Likeness, Option<Envelope>>,
    text: Vec<u8>,
}

impl Envelopes {
    /// Returns what becomes of the bodies of a row with this likeness.
    pub fn redact(
        &mut self,
        redactor: &Redactor,
        gate: &mut Gate<'_>,
        rows: &Renderer<'_>,
        row: usize,
        likeness: &Likeness,
    ) -> RedactedBodies {
        let applicable = gate.applicable(row);
        let Envelopes { known, text } = self;
        let envelope = known.entry(*likeness).or_insert_with(|| {
            text.clear();
            rows.columns_without_bodies(row, text);
            std::str::from_utf8(text).ok().and_then(|text| redactor.envelope(text, &applicable))
        });
        match envelope {
            Some(envelope) => redactor.redact_bodies(gate.bodies(row), &applicable, envelope),
            None => RedactedBodies::Unknown,
        }
    }
}

/// The rows of a block in which only bodies are changed, ascending.
#[derive(Default)]
pub struct ChangedBodies {
    rows: Vec<usize>,
    bodies: Vec<[Edited; 2]>,
    marks: Vec<String>,
}

impl ChangedBodies {
    pub fn push(&mut self, row: usize, edited: EditedBodies) {
        self.rows.push(row);
        self.bodies.push(edited.bodies);
        self.marks.push(edited.mark.to_string());
    }

    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Each row with its mark.
    pub fn marks(&self) -> impl Iterator<Item = (usize, &str)> {
        self.rows.iter().copied().zip(self.marks.iter().map(String::as_str))
    }

    /// Makes the changes in one of the columns of [`BODIES`]. `None` if it has none.
    pub fn column(&self, body: usize, column: &ArrayRef) -> Result<Option<ArrayRef>, ArrowError> {
        let edits = self.rows.iter().zip(&self.bodies).map(|(row, bodies)| (*row, &bodies[body]));
        let edits: Vec<(usize, &Edited)> = edits.filter(|(_, edited)| **edited != Edited::Kept).collect();
        if edits.is_empty() {
            return Ok(None);
        }
        spliced(column.as_string::<i32>(), &edits).map(|column| Some(Arc::new(column) as ArrayRef))
    }
}

/// Replaces some values of a column, which are given with their rows, ascending.
fn spliced(column: &StringArray, edits: &[(usize, &Edited)]) -> Result<StringArray, ArrowError> {
    let too_long = |_| ArrowError::ComputeError("the bodies of a block are too long".to_owned());
    let (offsets, values) = (column.value_offsets(), column.value_data());
    let mut bytes: Vec<u8> = Vec::with_capacity(values.len());
    let mut ends: Vec<i32> = Vec::with_capacity(offsets.len());
    ends.push(0);
    let mut present: Vec<bool> = (0..column.len()).map(|row| column.is_valid(row)).collect();
    let mut next = 0;
    let copy = |rows: std::ops::Range<usize>, bytes: &mut Vec<u8>, ends: &mut Vec<i32>| {
        let shift = i64::try_from(bytes.len()).map_err(too_long)? - i64::from(offsets[rows.start]);
        bytes.extend_from_slice(&values[offsets[rows.start] as usize..offsets[rows.end] as usize]);
        for end in &offsets[rows.start + 1..=rows.end] {
            ends.push(i32::try_from(i64::from(*end) + shift).map_err(too_long)?);
        }
        Ok::<_, ArrowError>(())
    };
    for (row, edited) in edits {
        copy(next..*row, &mut bytes, &mut ends)?;
        match edited {
            Edited::Kept => copy(*row..*row + 1, &mut bytes, &mut ends)?,
            Edited::Changed(text) => {
                bytes.extend_from_slice(text.as_bytes());
                ends.push(i32::try_from(bytes.len()).map_err(too_long)?);
            }
            Edited::Dropped => {
                present[*row] = false;
                ends.push(i32::try_from(bytes.len()).map_err(too_long)?);
            }
        }
        next = row + 1;
    }
    copy(next..column.len(), &mut bytes, &mut ends)?;
    let nulls = NullBuffer::new(BooleanBuffer::from(present));
    StringArray::try_new(OffsetBuffer::new(ends.into()), Buffer::from_vec(bytes), Some(nulls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_values_of_a_column_are_replaced() {
        let column = StringArray::from(vec![Some("x"), Some("a"), None, Some("bc"), Some(""), Some("d")]);
        let (column, changed) = (column.slice(1, 5), Edited::Changed("longer".to_owned()));
        let edits = [(0, &changed), (2, &Edited::Dropped), (3, &Edited::Kept), (4, &changed)];
        let expected = StringArray::from(vec![Some("longer"), None, None, Some(""), Some("longer")]);
        assert_eq!(spliced(&column, &edits).expect("a column"), expected);
        assert_eq!(spliced(&column, &edits[2..3]).expect("a column"), column);
        assert_eq!(spliced(&column, &[(3, &Edited::Dropped)]).expect("a column").null_count(), 2);
    }
}
