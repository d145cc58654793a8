//! Sliding windows on event time: which groups reached a count, and whether that was told already.
//!
//! **Terms.** A correlation counts events (or distinct values) of a *group* within its *timespan*. A
//! *window* ends at an event and holds the group's events at most `timespan` older, both ends
//! included. A window with enough in it is a *crossing*. An *episode* is a stretch of event time that
//! was alerted for.
//!
//! **Why it is hard.** Events come out of order: several API servers, files read one after another,
//! retried webhook batches, Kafka partitions that lag. Counting in order of arrival finds windows
//! that never were; waiting until nothing late can come delays every alert by the longest lateness,
//! and a file read after another one is late by hours.
//!
//! **So:** a group keeps its events sorted by event time, and an arriving event is judged at once,
//! against every window it belongs to: the one that ends at it and, when it is late, those that end
//! at later events up to `timespan` away. A crossing is raised only from events that truly lie within
//! one timespan, and an event that arrives late can still complete the window it belongs to. There
//! is no lateness after which an event is dropped: what limits memory is the number of events
//! remembered. (Rejected: a watermark that closes windows. One source that runs ahead would make all
//! others late.)
//!
//! **Once.** A crossing alerts when its window shares no event time with an episode of its group;
//! it then starts an episode. Otherwise it lengthens the episode silently. So a burst alerts once
//! however long it goes on, and the next alert needs a window with nothing of the told burst in it:
//! the window has drained. When a late event makes a window whose first part was never counted
//! overlap two episodes, they become one.
//!
//! **Order.** Alerts are a function of the sequence of events, wherever it is cut into batches. Of
//! the windows an event completes the one that ends first is reported.
//!
//! **Bounds.** [`WindowLimits`]. The event that *arrived* longest ago is forgotten first, whatever
//! its time; in a group that is full, the event whose time is farthest from the new one's. A group
//! whose events are all forgotten is forgotten with its episodes; if the same window were then
//! delivered again, it would alert again under the same id. Repeated values of a `value_count` are
//! thinned out: an occurrence with an earlier and a later one at most a timespan apart can change no
//! window.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};
use strongroom_schemas::alert::AUDIT_IDS_MAX;

/// Most episodes that a group remembers; the oldest is forgotten first.
const EPISODES_MAX: usize = 16;

/// What windows may hold in memory; about 150 bytes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowLimits {
    pub(crate) events_max: usize,
    pub(crate) groups_max: usize,
    pub(crate) group_events_max: usize,
}

/// A group of a correlation.
pub(crate) type GroupKey = (u32, u128);

/// What a window is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) timespan_us: i64,
    pub(crate) at_least: usize,
    pub(crate) counts_values: bool,
}

/// An event to count.
#[derive(Clone, Debug)]
pub(crate) struct Counted<'a> {
    pub(crate) time_us: i64,
    pub(crate) request: u128,
    pub(crate) value: u128,
    pub(crate) audit_id: &'a str,
}

/// A crossing to tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crossing {
    pub(crate) first_request: u128,
    pub(crate) start_us: i64,
    pub(crate) end_us: i64,
    pub(crate) count: u64,
    pub(crate) audit_ids: Vec<String>,
}

#[derive(Debug)]
struct Seen {
    time_us: i64,
    arrival: u64,
    request: u128,
    value: u128,
    audit_id: Box<str>,
}

/// The two latest occurrences of a value, by time.
#[derive(Debug)]
struct Occurrences {
    before: Option<(i64, u64)>,
    last: (i64, u64),
}

#[derive(Debug, Default)]
struct Group {
    /// Sorted by time, then arrival.
    events: VecDeque<Seen>,
    /// First and last event time of what was told.
    episodes: VecDeque<(i64, i64)>,
    occurrences: HashMap<u128, Occurrences>,
}

/// The remembered events of all groups.
#[derive(Debug)]
pub(crate) struct Windows {
    limits: WindowLimits,
    groups: HashMap<GroupKey, Group>,
    /// Every event in order of arrival; those that left their group already are skipped.
    arrivals: VecDeque<(GroupKey, i64, u64)>,
    next_arrival: u64,
}

impl Windows {
    pub(crate) fn new(limits: WindowLimits) -> Windows {
        Windows { limits, groups: HashMap::new(), arrivals: VecDeque::new(), next_arrival: 0 }
    }

    /// Counts an event; the crossing that it completes, unless that was told already.
    pub(crate) fn count(&mut self, key: GroupKey, rule: Rule, event: &Counted<'_>) -> Option<Crossing> {
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        let group = self.groups.entry(key).or_default();
        let at = group.insert(arrival, event, rule);
        self.arrivals.push_back((key, event.time_us, arrival));
        let crossing = group.crossing(at, rule);
        group.shrink(self.limits.group_events_max.max(rule.at_least), event.time_us);
        while self.arrivals.len() > self.limits.events_max || self.groups.len() > self.limits.groups_max {
            self.forget_oldest();
        }
        crossing
    }

    fn forget_oldest(&mut self) {
        let Some((key, time_us, arrival)) = self.arrivals.pop_front() else { return };
        if let Some(group) = self.groups.get_mut(&key) {
            group.remove(time_us, arrival);
            if group.events.is_empty() {
                self.groups.remove(&key);
            }
        }
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.groups.values().map(|group| group.events.len()).sum()
    }
}

impl Group {
    /// Puts an event in its place by time, and returns the place.
    fn insert(&mut self, arrival: u64, event: &Counted<'_>, rule: Rule) -> usize {
        if rule.counts_values {
            self.thin_out(arrival, event, rule.timespan_us);
        }
        let at = self.events.partition_point(|seen| seen.time_us <= event.time_us);
        let seen = Seen {
            time_us: event.time_us,
            arrival,
            request: event.request,
            value: event.value,
            audit_id: event.audit_id.into(),
        };
        self.events.insert(at, seen);
        at
    }

    /// Forgets the last occurrence of a value when the one before it and the new one make it useless.
    fn thin_out(&mut self, arrival: u64, event: &Counted<'_>, timespan_us: i64) {
        let new = (event.time_us, arrival);
        match self.occurrences.get_mut(&event.value) {
            None => drop(self.occurrences.insert(event.value, Occurrences { before: None, last: new })),
            // A late occurrence is kept and never makes another one useless.
            Some(known) if event.time_us < known.last.0 => {}
            Some(known) => {
                let last = known.last;
                known.last = new;
                match known.before {
                    Some((before_us, _)) if event.time_us - before_us <= timespan_us => {
                        self.take(last.0, last.1);
                    }
                    _ => known.before = Some(last),
                }
            }
        }
    }

    fn take(&mut self, time_us: i64, arrival: u64) -> Option<Seen> {
        let at = self.events.binary_search_by_key(&(time_us, arrival), |seen| (seen.time_us, seen.arrival));
        self.events.remove(at.ok()?)
    }

    fn remove(&mut self, time_us: i64, arrival: u64) {
        let Some(seen) = self.take(time_us, arrival) else { return };
        if let Some(known) = self.occurrences.get_mut(&seen.value) {
            if known.before.is_some_and(|(_, before)| before == arrival) {
                known.before = None;
            }
            if known.last.1 == arrival {
                self.occurrences.remove(&seen.value);
            }
        }
    }

    /// Forgets events until at most `events_max` are left, each time the one farthest from `time_us`.
    fn shrink(&mut self, events_max: usize, time_us: i64) {
        while self.events.len() > events_max {
            let (Some(first), Some(last)) = (self.events.front(), self.events.back()) else { return };
            let first_is_farther = time_us - first.time_us >= last.time_us - time_us;
            let seen = if first_is_farther { first } else { last };
            self.remove(seen.time_us, seen.arrival);
        }
    }

    /// The first window through the event at `at` that has enough in it, unless it was told.
    fn crossing(&mut self, at: usize, rule: Rule) -> Option<Crossing> {
        let (start, end) = if rule.counts_values {
            self.window_of_values(at, rule)?
        } else {
            self.window_of_events(at, rule)?
        };
        let (start_us, end_us) = (self.events[start].time_us, self.events[end].time_us);
        if self.extends_episode(start_us, end_us) {
            return None;
        }
        if self.episodes.len() == EPISODES_MAX {
            self.episodes.pop_front();
        }
        self.episodes.push_back((start_us, end_us));
        let window = self.events.range(start..=end);
        let count = match rule.counts_values {
            true => window.clone().map(|seen| seen.value).collect::<HashSet<u128>>().len(),
            false => window.len(),
        };
        Some(Crossing {
            first_request: self.events[start].request,
            start_us,
            end_us,
            count: count as u64,
            audit_ids: window.take(AUDIT_IDS_MAX).map(|seen| seen.audit_id.to_string()).collect(),
        })
    }

    /// Where the window that ends at the event at `end` starts.
    fn start_of(&self, end: usize, timespan_us: i64) -> usize {
        let from_us = self.events[end].time_us.saturating_sub(timespan_us);
        self.events.partition_point(|seen| seen.time_us < from_us)
    }

    /// Ends of the windows that hold the event at `at`.
    fn ends(&self, at: usize, timespan_us: i64) -> impl Iterator<Item = usize> + '_ {
        let until_us = self.events[at].time_us.saturating_add(timespan_us);
        (at..self.events.len()).take_while(move |&end| self.events[end].time_us <= until_us)
    }

    fn window_of_events(&self, at: usize, rule: Rule) -> Option<(usize, usize)> {
        self.ends(at, rule.timespan_us)
            .map(|end| (self.start_of(end, rule.timespan_us), end))
            .find(|(start, end)| end - start + 1 >= rule.at_least)
    }

    fn window_of_values(&self, at: usize, rule: Rule) -> Option<(usize, usize)> {
        // In order, only the window that ends here is new; going back from here, enough values are
        // usually found long before its start.
        let mut start = self.start_of(at, rule.timespan_us);
        let mut values = HashSet::new();
        for seen in self.events.range(start..=at).rev() {
            values.insert(seen.value);
            if values.len() >= rule.at_least {
                return Some((start, at));
            }
        }
        // A late event: slide over the windows that end after it.
        let mut counts: HashMap<u128, usize> = HashMap::new();
        for seen in self.events.range(start..=at) {
            *counts.entry(seen.value).or_default() += 1;
        }
        for end in self.ends(at, rule.timespan_us).skip(1) {
            *counts.entry(self.events[end].value).or_default() += 1;
            let new_start = self.start_of(end, rule.timespan_us);
            for seen in self.events.range(start..new_start) {
                if let Some(count) = counts.get_mut(&seen.value) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(&seen.value);
                    }
                }
            }
            start = new_start;
            if counts.len() >= rule.at_least {
                return Some((start, end));
            }
        }
        None
    }

    /// Whether a window overlaps what was told; then it becomes part of it.
    fn extends_episode(&mut self, start_us: i64, end_us: i64) -> bool {
        let (mut from, mut to) = (start_us, end_us);
        let mut overlaps = false;
        self.episodes.retain(|&(first, last)| {
            let apart = last < start_us || first > end_us;
            if !apart {
                overlaps = true;
                from = from.min(first);
                to = to.max(last);
            }
            apart
        });
        if overlaps {
            self.episodes.push_back((from, to));
        }
        overlaps
    }
}
