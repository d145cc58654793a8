//! Counts the events with parts that could not be read, by part and by reason.
//!
//! Invariant: the kinds are faults as they are written in the column `faults`. No state is kept
//! here.

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, RecordBatch};
use strongroom_schemas::events;

use crate::kinds::KindCounts;

/// How many events have faults, in all and by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Events with at least one fault.
    pub events: u64,
    kinds: KindCounts,
}

impl FaultCounts {
    /// Counts the faults in a batch of `events`.
    pub fn of(batch: &RecordBatch) -> FaultCounts {
        let mut counts = FaultCounts::default();
        let column = batch.column_by_name(events::FAULTS).and_then(|column| column.as_list_opt::<i32>());
        let Some(lists) = column.filter(|lists| lists.null_count() < lists.len()) else { return counts };
        for list in lists.iter().flatten() {
            counts.events += 1;
            for fault in list.as_string_opt::<i32>().into_iter().flatten().flatten() {
                counts.kinds.add(fault, 1);
            }
        }
        counts
    }

    pub fn add_all(&mut self, others: &FaultCounts) {
        self.events += others.events;
        self.kinds.add_all(&others.kinds);
    }

    /// Returns the kinds with their counts, the most frequent first.
    pub fn kinds(&self) -> Vec<(&str, u64)> {
        self.kinds.kinds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_once_and_their_faults_by_kind() {
        let log = br#"{"auditID":"a","verb":1,"stage":2}
{"auditID":"b"}
{"auditID":"c","verb":1}
"#;
        let decoded = strongroom_decode::decode_bytes(log, "c", "file/f").expect("columns of one length");
        let mut counts = FaultCounts::of(&decoded.events);
        counts.add_all(&counts.clone());
        assert_eq!(counts.events, 4);
        assert_eq!(counts.kinds(), [("/verb: wrong_type", 4), ("/stage: wrong_type", 2)]);
    }
}
