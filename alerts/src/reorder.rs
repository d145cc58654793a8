//! Holds events back until late ones have arrived, so that the order of arrival does not matter.
//!
//! A correlation with a `lateness` gets its events in order of event time: an event waits until its
//! source has delivered an event that is later by more than the lateness. So windows see the same
//! order, however a source shuffles events within the lateness and wherever batches end. By default
//! there is no lateness, and events do not wait: it matters more that an alert is raised within a
//! second of its event than that it is the same in any order of arrival.
//!
//! Invariant: an event is released once, and none is dropped. An event that is late by more than
//! the lateness is released at once. If too many events of a source wait, the event that would be
//! released next is released early. When no more events are expected, [`Reorder::settle`] releases
//! all. Events of a correlation that have the same time are released in order of their request
//! hash.
//!
//! The waiting events do not survive a crash. After a restart they are read from the archive or
//! delivered again, and wait again.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use strongroom_schemas::AlertEvent;

use crate::matches::Half;

/// Maximum number of sources whose events wait. If there are more, the events of the source that
/// was added first are released.
const SOURCES_MAX: usize = 1024;

/// An event that waits to be counted, with the fields of a possible alert about it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Key of the correlation.
    pub(crate) correlation: u64,
    pub(crate) group: u128,
    pub(crate) group_text: String,
    pub(crate) value: u128,
    pub(crate) request: u128,
    pub(crate) half: Option<Half>,
    pub(crate) event: AlertEvent,
}

/// The sort key of a waiting event: the time that its source must pass for it to be released, then
/// the fields that make the order independent of arrival.
type Place = (i64, u64, u128, u128, u64);

#[derive(Debug, Default)]
struct Source {
    waiting: BTreeMap<Place, Held>,
    next_arrival: u64,
}

/// The waiting events of all sources.
#[derive(Debug)]
pub(crate) struct Reorder {
    waiting_max: usize,
    sources: HashMap<String, Source>,
    order: VecDeque<String>,
}

impl Reorder {
    pub(crate) fn new(waiting_max: usize) -> Reorder {
        Reorder { waiting_max, sources: HashMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sources.values().all(|source| source.waiting.is_empty())
    }

    /// Adds an event of a source. If too many events or sources wait, returns the events to
    /// release.
    pub(crate) fn hold(&mut self, name: &str, lateness_us: i64, held: Held) -> Vec<Held> {
        let mut left = Vec::new();
        if !self.sources.contains_key(name) {
            if self.order.len() == SOURCES_MAX
                && let Some(oldest) = self.order.pop_front()
                && let Some(source) = self.sources.remove(&oldest)
            {
                left.extend(source.waiting.into_values());
            }
            self.order.push_back(name.to_owned());
        }
        let source = self.sources.entry_ref(name).or_default();
        let leaves_us = held.event.time_us.saturating_add(lateness_us);
        let place = (leaves_us, held.correlation, held.request, held.value, source.next_arrival);
        source.next_arrival += 1;
        source.waiting.insert(place, held);
        if source.waiting.len() > self.waiting_max {
            left.extend(source.waiting.pop_first().map(|(_, held)| held));
        }
        left
    }

    /// Advances a source to a time, and returns the events to release, in order.
    pub(crate) fn advance(&mut self, name: &str, latest_us: i64) -> Vec<Held> {
        let Some(source) = self.sources.get_mut(name) else { return Vec::new() };
        let mut left = Vec::new();
        while let Some(first) = source.waiting.first_entry()
            && first.key().0 < latest_us
        {
            left.push(first.remove());
        }
        left
    }

    /// Releases all events, because no more are expected.
    pub(crate) fn settle(&mut self) -> Vec<Held> {
        let mut left = Vec::new();
        for name in &self.order {
            let waiting = self.sources.get_mut(name).map(|source| std::mem::take(&mut source.waiting));
            left.extend(waiting.into_iter().flat_map(BTreeMap::into_values));
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(time_us: i64) -> Held {
        Held {
            correlation: 0,
            group: 0,
            group_text: String::new(),
            value: 0,
            request: time_us as u128,
            half: None,
            event: AlertEvent { time_us, ..AlertEvent::default() },
        }
    }

    fn times(held: Vec<Held>) -> Vec<i64> {
        held.into_iter().map(|held| held.event.time_us).collect()
    }

    #[test]
    fn events_leave_in_order_behind_the_lateness() {
        let mut reorder = Reorder::new(100);
        for time in [10, 8, 12, 9] {
            assert!(reorder.hold("s", 5, held(time)).is_empty());
        }
        assert_eq!(times(reorder.advance("s", 14)), [8]);
        assert!(reorder.advance("other", 100).is_empty());
        reorder.hold("s", 5, held(1));
        assert_eq!(times(reorder.advance("s", 14)), [1], "an event that is too late does not wait");
        assert_eq!(times(reorder.advance("s", 16)), [9, 10]);
        assert_eq!(times(reorder.settle()), [12]);
        assert!(reorder.is_empty());
    }

    #[test]
    fn waiting_events_are_bounded_and_none_is_dropped() {
        let mut reorder = Reorder::new(3);
        let mut left = Vec::new();
        for time in 0..10 {
            left.extend(times(reorder.hold("s", 1000, held(time))));
        }
        assert_eq!(left, (0..7).collect::<Vec<_>>());
        for name in 0..SOURCES_MAX {
            left.extend(times(reorder.hold(&format!("{name}"), 1000, held(100))));
        }
        assert_eq!(left, (0..10).collect::<Vec<_>>());
    }
}
