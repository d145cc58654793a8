//! Results remembered for the distinct values of one column in one block.
//!
//! Terms. The *place* of a value is its number among the distinct values of the column in this
//! block, from 1; place 0 is null.
//!
//! Invariant: a memo is cleared between blocks, because a place stands for another value in the
//! next block. No state outlives a block.

const UNKNOWN: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;

/// One result for each place.
#[derive(Debug, Default)]
pub(crate) struct Memo(Vec<u8>);

impl Memo {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn fill(&mut self, places: usize, mut answer: impl FnMut(usize) -> bool) {
        self.0.clear();
        self.0.extend((0..places).map(|place| if answer(place) { TRUE } else { FALSE }));
    }

    pub(crate) fn known(&self, place: usize) -> Option<bool> {
        match self.0.get(place) {
            None | Some(&UNKNOWN) => None,
            Some(answer) => Some(*answer == TRUE),
        }
    }

    /// Returns the result for a place. If the result is not known yet, `answer` is called.
    pub(crate) fn get(&mut self, place: usize, places: usize, answer: impl FnOnce() -> bool) -> bool {
        if self.0.is_empty() {
            self.0.resize(places, UNKNOWN);
        }
        match self.0[place] {
            UNKNOWN => {
                let found = answer();
                self.0[place] = if found { TRUE } else { FALSE };
                found
            }
            known => known == TRUE,
        }
    }
}
