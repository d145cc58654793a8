//! Counts things by their kind, in bounded memory.
//!
//! Invariant: the first [`KINDS_MAX`] kinds are counted separately, and all others together.

use std::collections::BTreeMap;

/// Maximum number of kinds that are counted apart.
pub const KINDS_MAX: usize = 64;
/// The name under which all other kinds are counted.
const OTHERS: &str = "others";

/// Numbers by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindCounts(BTreeMap<String, u64>);

impl KindCounts {
    pub(crate) fn add(&mut self, kind: &str, count: u64) {
        let is_apart = self.0.contains_key(kind) || self.0.len() < KINDS_MAX;
        let kind = if is_apart { kind } else { OTHERS };
        *self.0.entry(kind.to_owned()).or_insert(0) += count;
    }

    pub(crate) fn add_all(&mut self, others: &KindCounts) {
        for (kind, count) in &others.0 {
            self.add(kind, *count);
        }
    }

    /// Returns the kinds, the most frequent first.
    pub fn kinds(&self) -> Vec<(&str, u64)> {
        let mut kinds: Vec<(&str, u64)> =
            self.0.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kinds
    }

    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_bounded() {
        let mut counts = KindCounts::default();
        for number in 0..2 * KINDS_MAX {
            counts.add(&number.to_string(), 1);
        }
        counts.add("3", 2);
        assert_eq!(counts.kinds().len(), KINDS_MAX + 1);
        assert_eq!(counts.kinds()[..2], [(OTHERS, KINDS_MAX as u64), ("3", 3)]);
        assert_eq!(counts.sum(), 2 * KINDS_MAX as u64 + 2);
    }
}
