//! Rows that are alike to all gates: the same resource, verb, user, answer and so on.
//!
//! Invariant: what is remembered for a class of rows follows from the values of their gates alone, so it holds for each
//! of them. A log repeats itself: a block of fifty thousand rows has some thousand classes, so conditions are judged
//! once a class, and a row costs one look-up. Were every row a class of its own, that look-up would be all that is lost.

use std::hash::{BuildHasher as _, Hasher as _};
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::gate::OpenGate;

/// A rule that rows of a class may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Position in [`crate::compile::Program::rules`].
    pub(crate) rule: u32,
    /// The gates alone say that it matches.
    pub(crate) is_decided: bool,
}

#[derive(Debug)]
struct Class {
    /// Any row of it.
    row: u32,
    open: Range<u32>,
}

/// The classes of one block.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    hashes: DefaultHashBuilder,
    classes: HashTable<Class>,
    open: Vec<Open>,
}

impl Alike {
    /// Called for each block.
    pub(crate) fn clear(&mut self) {
        self.classes.clear();
        self.open.clear();
    }

    /// What is open for a row; `judge` adds it for the first row of a class.
    pub(crate) fn open(
        &mut self,
        gates: &[OpenGate],
        row: usize,
        judge: impl FnOnce(&mut Vec<Open>),
    ) -> &[Open] {
        let hashes = &self.hashes;
        let hash = |row: usize| {
            let mut hasher = hashes.build_hasher();
            for two in gates.chunks(2) {
                let places = two.iter().fold(0, |places, gate| (places << 32) | u64::from(gate.places[row]));
                hasher.write_u64(places);
            }
            hasher.finish()
        };
        let key = hash(row);
        let is_same =
            |class: &Class| gates.iter().all(|gate| gate.places[class.row as usize] == gate.places[row]);
        let open = match self.classes.find(key, is_same) {
            Some(class) => class.open.clone(),
            None => {
                let from = self.open.len() as u32;
                judge(&mut self.open);
                let open = from..self.open.len() as u32;
                let class = Class { row: row as u32, open: open.clone() };
                self.classes.insert_unique(key, class, |class| hash(class.row as usize));
                open
            }
        };
        &self.open[open.start as usize..open.end as usize]
    }
}
