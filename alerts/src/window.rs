//! Sliding windows on event time: they find the groups that reach a count, and alert once for each
//! burst of events.
//!
//! **Terms.** A correlation counts events (or distinct values) of a *group* within its *timespan*.
//! A *window* ends at an event and contains the group's events that are at most `timespan` older,
//! both ends included. A window with enough events is a *crossing*. An *episode* is a stretch of
//! event time that has alerted.
//!
//! **Why it is hard.** Events arrive out of order: several API servers, files read one after
//! another, retried webhook batches, Kafka partitions that lag. Counting in order of arrival finds
//! windows that never existed; waiting until no late event can arrive delays every alert by the
//! longest lateness, and the events of a file read after another one are late by hours.
//!
//! **Design.** A group keeps its events sorted by event time, and an arriving event is judged at
//! once against every window that contains it: the window that ends at this event and, if the event
//! is late, the windows that end at later events, up to one timespan after it. So all events of a
//! crossing are within one timespan, and an event that arrives late can still complete its window.
//! No event is dropped for being late; memory is bounded by the number of remembered events.
//! (Rejected: a watermark that closes windows. One source that runs ahead would make all other
//! sources late.)
//!
//! **Once.** The whole timespan that ends at the last event of a crossing is compared with the
//! group's episodes. If it overlaps none, the crossing alerts and starts an episode, which lasts
//! from the crossing's first event to its last. If it overlaps an episode, the crossing raises no
//! alert and extends the episode. If it overlaps several episodes, they become one. So a burst
//! alerts once, however long it lasts. The next alert needs a crossing without an event of that
//! burst, that is, the window must have drained.
//!
//! **All of several rules** (`temporal`) is a count of distinct values, where the value of an event
//! is the rule that matched it. **In order** (`temporal_ordered`) requires a *chain* in the window:
//! one event for each rule of the list, each from a different request, and none earlier than the
//! event of the rule before it. The alert is about the chain that starts latest. Events of the same
//! time may be in either order. Both types count only the last event of each rule, so one more
//! event of a rule does not change the count.
//!
//! **Order.** Alerts depend only on the sequence of events, not on where it is cut into batches. Of
//! the windows that an event completes, the one that ends first is reported.
//!
//! **Bounds.** [`WindowLimits`] bounds the state. If there are too many events or too many groups,
//! the event that *arrived* longest ago is forgotten, whatever its event time. If a group has too
//! many events, it forgets the event whose time is farthest from the new event's time. A group
//! whose events are all forgotten is forgotten with its episodes. If the events of a window that
//! has alerted were then delivered again, the window would alert again under the same id.
//!
//! **Thinning.** If three occurrences of one value arrive in order of time and are within a
//! timespan, the middle one is removed (`value_count` and `temporal`). Every window that contains
//! it also contains the first or the last of the three, so the count of distinct values is the same
//! without it.
//!
//! **What is touched.** An event *touches* its namespace, users, cluster and source. These names
//! are in a [`Trace`], which events with the same names share. An alert collects the traces of all
//! events that it counts. A `value_count` also collects the traces of events that were thinned out,
//! which the next occurrence of the value keeps. Those events are at most a timespan older than
//! that occurrence.
//!
//! **Crash.** State is lost; observing the archive's events again rebuilds it, see
//! [`crate::Detector`].

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use strongroom_schemas::alert::AUDIT_IDS_MAX;
use strongroom_schemas::{AlertEvent, Severity, Touch, Touched};

use crate::rule::Measure;
use crate::trace::{Trace, Traces};

/// Maximum number of episodes of a group; the oldest is forgotten first.
const EPISODES_MAX: usize = 16;
/// Maximum number of traces of thinned-out occurrences that one event keeps. If there are more, one
/// entry replaces them all and counts as touching any name.
const THINNED_MAX: usize = 64;

/// Limits on what the windows remember; an event takes about 200 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowLimits {
    pub(crate) events_max: usize,
    pub(crate) groups_max: usize,
    pub(crate) group_events_max: usize,
}

/// A group of a correlation: the correlation's key, and the hash of the group's values.
pub(crate) type GroupKey = (u64, u128);

/// What a rule requires of a crossing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) timespan_us: i64,
    /// Minimum number of events or of distinct values; for a temporal rule, the number of its
    /// rules.
    pub(crate) at_least: usize,
    pub(crate) measure: Measure,
}

/// An event to count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted<'a> {
    pub(crate) time_us: i64,
    pub(crate) request: u128,
    /// The value to count; for a correlation that distinguishes rules, the rule's position in its
    /// list.
    pub(crate) value: u128,
    pub(crate) audit_id: &'a str,
    pub(crate) touch: Touch<'a>,
    pub(crate) source_offset: i64,
}

/// A crossing that alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crossing {
    pub(crate) first_request: u128,
    pub(crate) start_us: i64,
    pub(crate) end_us: i64,
    pub(crate) count: u64,
    pub(crate) audit_ids: Vec<String>,
    pub(crate) touched: Touched,
    /// The level of the alert if the group is still being learnt.
    pub(crate) learning_level: Option<Severity>,
    /// If a late event completed a temporal rule's crossing: the last event of the crossing, with
    /// its request. It has only the fields that windows keep.
    pub(crate) last: Option<(u128, AlertEvent)>,
}

#[derive(Debug)]
struct Seen {
    time_us: i64,
    arrival: u64,
    request: u128,
    value: u128,
    audit_id: Box<str>,
    trace: Arc<Trace>,
    source_offset: i64,
    /// Earlier occurrences of the value that were thinned out, at most a timespan before this one.
    thinned: Vec<Thinned>,
}

/// Thinned-out occurrences of one value that share a trace.
#[derive(Debug)]
struct Thinned {
    from_us: i64,
    to_us: i64,
    /// `None` if there were more than [`THINNED_MAX`] traces, so that the occurrences count as
    /// touching any name.
    trace: Option<Arc<Trace>>,
    first_offset: i64,
    last_offset: i64,
}

impl Seen {
    /// Returns the request of this event, and what is known of the event.
    fn as_event(&self) -> (u128, AlertEvent) {
        let Touch { namespace, actor, user_name, cluster, source } = self.trace.touch();
        let event = AlertEvent {
            audit_id: self.audit_id.to_string(),
            time_us: self.time_us,
            cluster: cluster.to_owned(),
            source: source.to_owned(),
            source_offset: self.source_offset,
            actor: actor.to_owned(),
            user_name: user_name.to_owned(),
            namespace: namespace.map(str::to_owned),
            ..AlertEvent::default()
        };
        (self.request, event)
    }

    /// Returns what the next occurrence of the same value keeps: this occurrence, and the
    /// occurrences that were thinned out before it.
    fn into_thinned(self) -> Vec<Thinned> {
        let Seen { time_us, trace, source_offset, mut thinned, .. } = self;
        let same =
            |known: &&mut Thinned| known.trace.as_ref().is_some_and(|known| Arc::ptr_eq(known, &trace));
        if let Some(known) = thinned.iter_mut().find(same) {
            known.to_us = known.to_us.max(time_us);
            known.from_us = known.from_us.min(time_us);
            known.first_offset = known.first_offset.min(source_offset);
            known.last_offset = known.last_offset.max(source_offset);
            return thinned;
        }
        let (first_offset, last_offset) = (source_offset, source_offset);
        let this =
            Thinned { from_us: time_us, to_us: time_us, trace: Some(trace), first_offset, last_offset };
        thinned.push(this);
        if thinned.len() > THINNED_MAX {
            let from_us = thinned.iter().map(|known| known.from_us).min().unwrap_or(time_us);
            let to_us = thinned.iter().map(|known| known.to_us).max().unwrap_or(time_us);
            thinned = vec![Thinned { from_us, to_us, trace: None, first_offset, last_offset }];
        }
        thinned
    }
}

/// The two latest occurrences of a value, by time.
#[derive(Debug)]
struct Occurrences {
    before: Option<(i64, u64)>,
    last: (i64, u64),
}

#[derive(Debug, Default)]
struct Group {
    /// Sorted by time. Events of the same time are in order of arrival or, for `temporal_ordered`,
    /// in the order of the rules.
    events: VecDeque<Seen>,
    /// First and last event time of each episode.
    episodes: VecDeque<(i64, i64)>,
    occurrences: HashMap<u128, Occurrences>,
    /// For `temporal_ordered`, the number of remembered events of each rule in the list.
    steps: Vec<u32>,
}

/// The remembered events of all groups.
#[derive(Debug)]
pub(crate) struct Windows {
    limits: WindowLimits,
    groups: HashMap<GroupKey, Group>,
    /// Every event in order of arrival; events that have left their group are skipped.
    arrivals: VecDeque<(GroupKey, i64, u64)>,
    next_arrival: u64,
    traces: Traces,
}

impl Windows {
    pub(crate) fn new(limits: WindowLimits) -> Windows {
        Windows {
            limits,
            groups: HashMap::new(),
            arrivals: VecDeque::new(),
            next_arrival: 0,
            traces: Traces::default(),
        }
    }

    /// Counts an event, and returns the crossing that it completes, if the crossing alerts.
    pub(crate) fn count(&mut self, key: GroupKey, rule: Rule, event: &Counted<'_>) -> Option<Crossing> {
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        let group = self.groups.entry(key).or_default();
        let at = group.insert(arrival, event, self.traces.of(event.touch), rule);
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
    /// Inserts an event by time, and returns its position.
    fn insert(&mut self, arrival: u64, event: &Counted<'_>, trace: Arc<Trace>, rule: Rule) -> usize {
        let mut at = self.events.partition_point(|seen| seen.time_us <= event.time_us);
        let mut thinned = Vec::new();
        match rule.measure {
            Measure::Values | Measure::Rules => {
                let redundant = self.thin_out(arrival, event, rule.timespan_us);
                // A temporal rule counts only the last event of each rule, so it keeps no traces
                // of earlier ones.
                if let Some(redundant) = redundant.filter(|_| rule.measure == Measure::Values) {
                    thinned = redundant.into_thinned();
                }
                at = self.events.partition_point(|seen| seen.time_us <= event.time_us);
            }
            Measure::RulesInOrder => {
                // Events of the same time are sorted by rule, so their order of arrival does not
                // matter.
                at = self
                    .events
                    .partition_point(|seen| (seen.time_us, seen.value) <= (event.time_us, event.value));
                self.steps.resize(rule.at_least, 0);
                if let Some(count) = self.steps.get_mut(event.value as usize) {
                    *count += 1;
                }
            }
            Measure::Events | Measure::FirstSeen { .. } | Measure::Baseline { .. } | Measure::Unfinished => {}
        }
        let seen = Seen {
            time_us: event.time_us,
            arrival,
            request: event.request,
            value: event.value,
            audit_id: event.audit_id.into(),
            trace,
            source_offset: event.source_offset,
            thinned,
        };
        self.events.insert(at, seen);
        at
    }

    /// Removes and returns the last occurrence of the event's value if it is redundant. It is
    /// redundant if the occurrence before it is at most a timespan older than the event.
    fn thin_out(&mut self, arrival: u64, event: &Counted<'_>, timespan_us: i64) -> Option<Seen> {
        let new = (event.time_us, arrival);
        match self.occurrences.get_mut(&event.value) {
            None => {
                self.occurrences.insert(event.value, Occurrences { before: None, last: new });
                None
            }
            // A late occurrence is kept, and makes no other occurrence redundant.
            Some(known) if event.time_us < known.last.0 => None,
            Some(known) => {
                let last = known.last;
                known.last = new;
                match known.before {
                    Some((before_us, _)) if event.time_us - before_us <= timespan_us => {
                        self.take(last.0, last.1)
                    }
                    _ => {
                        known.before = Some(last);
                        None
                    }
                }
            }
        }
    }

    fn take(&mut self, time_us: i64, arrival: u64) -> Option<Seen> {
        // Events of the same time are not always in order of arrival.
        let first = self.events.partition_point(|seen| seen.time_us < time_us);
        let same = self.events.range(first..).take_while(|seen| seen.time_us == time_us);
        let at = first + same.into_iter().position(|seen| seen.arrival == arrival)?;
        self.events.remove(at)
    }

    fn remove(&mut self, time_us: i64, arrival: u64) {
        let Some(seen) = self.take(time_us, arrival) else { return };
        if let Some(count) = self.steps.get_mut(seen.value as usize) {
            *count = count.saturating_sub(1);
        }
        if let Some(known) = self.occurrences.get_mut(&seen.value) {
            if known.before.is_some_and(|(_, before)| before == arrival) {
                known.before = None;
            }
            if known.last.1 == arrival {
                self.occurrences.remove(&seen.value);
            }
        }
    }

    /// Removes the events farthest from `time_us` until at most `events_max` are left.
    fn shrink(&mut self, events_max: usize, time_us: i64) {
        while self.events.len() > events_max {
            let (Some(first), Some(last)) = (self.events.front(), self.events.back()) else { return };
            let first_is_farther = time_us - first.time_us >= last.time_us - time_us;
            let seen = if first_is_farther { first } else { last };
            self.remove(seen.time_us, seen.arrival);
        }
    }

    /// Returns the first crossing whose window contains the event at `at`, and starts an episode.
    /// Returns `None` if there is no crossing, or if its window overlaps an episode.
    fn crossing(&mut self, at: usize, rule: Rule) -> Option<Crossing> {
        let counted: Vec<usize> = match rule.measure {
            Measure::Values => self.window_of_values(at, rule).map(|(start, end)| (start..=end).collect())?,
            Measure::Rules => {
                let (start, end) = self.window_of_values(at, rule)?;
                let mut rules = HashSet::new();
                let mut last: Vec<usize> =
                    (start..=end).rev().filter(|at| rules.insert(self.events[*at].value)).collect();
                last.reverse();
                last
            }
            Measure::RulesInOrder => self.chain(at, rule)?,
            Measure::Events | Measure::FirstSeen { .. } | Measure::Baseline { .. } | Measure::Unfinished => {
                self.window_of_events(at, rule).map(|(start, end)| (start..=end).collect())?
            }
        };
        let (start, end) = (*counted.first()?, *counted.last()?);
        let (start_us, end_us) = (self.events[start].time_us, self.events[end].time_us);
        if self.extends_episode(start_us, end_us, rule.timespan_us) {
            return None;
        }
        if self.episodes.len() == EPISODES_MAX {
            self.episodes.pop_front();
        }
        self.episodes.push_back((start_us, end_us));
        let count = match rule.measure {
            Measure::Values => {
                counted.iter().map(|at| self.events[*at].value).collect::<HashSet<u128>>().len()
            }
            _ => counted.len(),
        };
        let listed = counted.iter().take(AUDIT_IDS_MAX);
        Some(Crossing {
            first_request: self.events[start].request,
            start_us,
            end_us,
            count: count as u64,
            audit_ids: listed.map(|at| self.events[*at].audit_id.to_string()).collect(),
            touched: self.touched(&counted, rule),
            learning_level: None,
            last: (rule.measure.distinguishes_rules() && end != at).then(|| self.events[end].as_event()),
        })
    }

    /// Returns what the counted events of a window touch.
    fn touched(&self, counted: &[usize], rule: Rule) -> Touched {
        let mut touched = Touched::default();
        for seen in counted.iter().map(|at| &self.events[*at]) {
            touched.add(seen.trace.touch(), seen.source_offset, seen.source_offset);
        }
        let (Some(&start), Some(&end)) = (counted.first(), counted.last()) else { return touched };
        let (start_us, end_us) = (self.events[start].time_us, self.events[end].time_us);
        // If an occurrence in this window was thinned out, the occurrence that keeps its trace may
        // be after the end of the window.
        let until_us = end_us.saturating_add(rule.timespan_us);
        let keepers = self.events.range(start..).take_while(|seen| seen.time_us <= until_us);
        let thinned = keepers.flat_map(|seen| &seen.thinned);
        for thinned in thinned.filter(|thinned| thinned.to_us >= start_us && thinned.from_us <= end_us) {
            match &thinned.trace {
                Some(trace) => touched.add(trace.touch(), thinned.first_offset, thinned.last_offset),
                None => touched.widen(),
            }
        }
        touched
    }

    /// Returns the positions of a chain's events, first to last. Of the windows that contain the
    /// event at `at` and a chain, the one that ends first is used; of its chains, the one that
    /// starts latest.
    fn chain(&self, at: usize, rule: Rule) -> Option<Vec<usize>> {
        if self.steps.contains(&0) {
            return None;
        }
        let last_step = rule.at_least as u128 - 1;
        for end in self.ends(at, rule.timespan_us).filter(|end| self.events[*end].value == last_step) {
            let mut chain = vec![end];
            let mut later = &self.events[end];
            for place in (self.start_of(end, rule.timespan_us)..end).rev() {
                if later.value == 0 {
                    break;
                }
                let seen = &self.events[place];
                if seen.value + 1 == later.value && seen.request != later.request {
                    chain.push(place);
                    later = seen;
                }
            }
            if later.value == 0 {
                chain.reverse();
                return Some(chain);
            }
        }
        None
    }

    /// Returns the position of the first event in the window that ends at the event at `end`.
    fn start_of(&self, end: usize, timespan_us: i64) -> usize {
        let from_us = self.events[end].time_us.saturating_sub(timespan_us);
        self.events.partition_point(|seen| seen.time_us < from_us)
    }

    /// Returns the position of the last event of each window that contains the event at `at`.
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
        // If the event arrived in order, only the window that ends at it is new. A search backwards
        // from the event usually finds enough values long before it gets to the window's start.
        let mut start = self.start_of(at, rule.timespan_us);
        let mut values = HashSet::new();
        for seen in self.events.range(start..=at).rev() {
            values.insert(seen.value);
            if values.len() >= rule.at_least {
                return Some((start, at));
            }
        }
        // For a late event, slide over the windows that end after it.
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

    /// Returns true if a window overlaps an episode; the crossing's events, from `start_us` to
    /// `end_us`, then become part of the episode.
    ///
    /// The window is taken to start a whole timespan before `end_us`, not at its first remembered
    /// event, because earlier events may have been thinned out.
    fn extends_episode(&mut self, start_us: i64, end_us: i64, timespan_us: i64) -> bool {
        let (mut from, mut to) = (start_us, end_us);
        let mut overlaps = false;
        self.episodes.retain(|&(first, last)| {
            let apart = last < end_us.saturating_sub(timespan_us) || first > end_us;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: WindowLimits =
        WindowLimits { events_max: 1 << 16, groups_max: 1 << 10, group_events_max: 1 << 12 };
    const EVENTS: Rule = Rule { timespan_us: 10, at_least: 3, measure: Measure::Events };
    const VALUES: Rule = Rule { timespan_us: 10, at_least: 3, measure: Measure::Values };
    const RULES: Rule = Rule { timespan_us: 10, at_least: 3, measure: Measure::Rules };
    const IN_ORDER: Rule = Rule { timespan_us: 10, at_least: 3, measure: Measure::RulesInOrder };

    /// Returns, for each event (time, value) of one group in order of arrival, the crossing that
    /// alerts.
    fn crossings(rule: Rule, events: &[(i64, u128)]) -> Vec<Option<Crossing>> {
        let mut windows = Windows::new(LIMITS);
        counted_in(&mut windows, rule, events)
    }

    fn counted_in(windows: &mut Windows, rule: Rule, events: &[(i64, u128)]) -> Vec<Option<Crossing>> {
        let counted = events.iter().enumerate().map(|(at, (time_us, value))| {
            let id = format!("{at}");
            let event = Counted {
                time_us: *time_us,
                request: at as u128,
                value: *value,
                audit_id: &id,
                ..Counted::default()
            };
            windows.count((0, 0), rule, &event)
        });
        counted.collect()
    }

    fn ends(rule: Rule, times: &[i64]) -> Vec<(i64, i64, u64)> {
        let events: Vec<(i64, u128)> = times.iter().map(|time| (*time, *time as u128)).collect();
        let found = crossings(rule, &events).into_iter().flatten();
        found.map(|crossing| (crossing.start_us, crossing.end_us, crossing.count)).collect()
    }

    #[test]
    fn a_burst_alerts_once_and_again_when_the_window_has_drained() {
        assert_eq!(ends(EVENTS, &[1, 2, 3]), [(1, 3, 3)]);
        assert_eq!(ends(EVENTS, &[1, 2, 3, 4, 5, 12, 13, 20]), [(1, 3, 3)], "one burst");
        assert_eq!(ends(EVENTS, &[1, 2, 3, 14, 15]), [(1, 3, 3)]);
        assert_eq!(ends(EVENTS, &[1, 2, 3, 14, 15, 16]), [(1, 3, 3), (14, 16, 3)]);
        assert_eq!(ends(EVENTS, &[0, 5, 10]), [(0, 10, 3)], "both ends of the timespan are included");
        assert_eq!(ends(EVENTS, &[0, 5, 11, 15]), [(5, 15, 3)]);
    }

    #[test]
    fn late_events_complete_true_windows_only() {
        assert_eq!(ends(EVENTS, &[300, 100, 101]), []);
        assert_eq!(ends(EVENTS, &[300, 100, 101, 102]), [(100, 102, 3)]);
        assert_eq!(ends(EVENTS, &[5, 9, 1]), [(1, 9, 3)], "the late one comes first in time");
        assert_eq!(ends(EVENTS, &[5, 14, 1]), [], "1, 5 and 14 are not within a timespan of 10");
        assert_eq!(ends(EVENTS, &[20, 21, 22, 1, 2, 3]), [(20, 22, 3), (1, 3, 3)], "a file read later");
    }

    #[test]
    fn repeated_values_are_thinned_out_and_count_once() {
        let mut windows = Windows::new(LIMITS);
        let events: Vec<(i64, u128)> = (0..1000).map(|time| (time, (time % 2) as u128)).collect();
        assert!(counted_in(&mut windows, VALUES, &events).iter().all(Option::is_none));
        assert!(windows.remembered() < 1000 / 5 * 2, "{} remembered", windows.remembered());
        let found = counted_in(&mut windows, VALUES, &[(1000, 7)]);
        assert_eq!(found[0].as_ref().map(|crossing| crossing.count), Some(3));
    }

    #[test]
    fn all_rules_in_any_order_or_in_that_of_the_list() {
        let found = |rule: Rule, events: &[(i64, u128)]| {
            let found = crossings(rule, events).into_iter().flatten();
            found.map(|found| (found.start_us, found.end_us, found.audit_ids.join(" "))).collect::<Vec<_>>()
        };
        let text = |start: i64, end: i64, ids: &str| vec![(start, end, ids.to_owned())];
        assert_eq!(found(RULES, &[(1, 2), (2, 0), (3, 0), (5, 1)]), text(1, 5, "0 2 3"));
        assert_eq!(found(RULES, &[(1, 2), (2, 0), (12, 1)]), []);
        assert_eq!(found(IN_ORDER, &[(1, 2), (2, 0), (3, 0), (5, 1)]), []);
        assert_eq!(found(IN_ORDER, &[(1, 0), (2, 0), (3, 1), (4, 0), (5, 2)]), text(2, 5, "1 2 4"));
        assert_eq!(found(IN_ORDER, &[(1, 0), (2, 1), (12, 2)]), [], "11 exceeds the timespan");
        assert_eq!(
            found(IN_ORDER, &[(5, 2), (1, 0), (3, 1)]),
            text(1, 5, "1 2 0"),
            "late events complete the sequence"
        );
        assert_eq!(
            found(IN_ORDER, &[(3, 2), (3, 1), (3, 0)]),
            text(3, 3, "2 1 0"),
            "events with the same time"
        );
        assert_eq!(found(IN_ORDER, &[(1, 0), (2, 1), (3, 2), (4, 0), (5, 1), (6, 2)]).len(), 1, "one burst");
    }

    #[test]
    fn a_chain_has_different_requests() {
        let mut windows = Windows::new(LIMITS);
        let mut see = |time_us, request, value| {
            windows.count((0, 0), IN_ORDER, &Counted { time_us, request, value, ..Counted::default() })
        };
        assert_eq!(see(1, 1, 0), None);
        assert_eq!(see(1, 1, 1), None, "the same request");
        assert_eq!(see(2, 2, 2), None);
        assert!(see(2, 3, 1).is_some());
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_arrival_goes_first() {
        let limits = WindowLimits { events_max: 100, groups_max: 10, group_events_max: 20 };
        let mut windows = Windows::new(limits);
        for at in 0..10_000_u32 {
            let event = Counted { time_us: i64::from(at), value: u128::from(at), ..Counted::default() };
            let rule = if at % 2 == 0 { EVENTS } else { VALUES };
            windows.count((0, u128::from(at % 37)), rule, &event);
            assert!(windows.remembered() <= 100);
            assert!(windows.groups.len() <= 10);
            assert!(windows.arrivals.len() <= 101);
        }
        let mut windows = Windows::new(limits);
        let many: Vec<(i64, u128)> = (0..50).map(|time| (time, 0)).collect();
        counted_in(&mut windows, EVENTS, &many);
        assert_eq!(windows.remembered(), 20, "a group has its own bound");
        let group = &windows.groups[&(0, 0)];
        assert_eq!(group.events.front().map(|seen| seen.time_us), Some(30));
    }

    /// Counts as the documentation of this module says, without memory limits, thinning or binary
    /// searches. Returns, for each event in order of arrival, the end and the count of the crossing
    /// that alerts.
    fn plainly(rule: Rule, arrived: &[(i64, u128)]) -> Vec<Option<(i64, u64)>> {
        let mut sorted: Vec<(i64, usize, u128)> = Vec::new();
        let mut episodes: Vec<(i64, i64)> = Vec::new();
        let mut alerts = Vec::new();
        for (order, (time, value)) in arrived.iter().enumerate() {
            sorted.push((*time, order, *value));
            sorted.sort_unstable();
            let at = sorted.iter().position(|seen| seen.1 == order).unwrap();
            let mut found = None;
            for end in at..sorted.len() {
                let end_us = sorted[end].0;
                if end_us > time + rule.timespan_us {
                    break;
                }
                let window: Vec<_> =
                    sorted[..=end].iter().filter(|seen| seen.0 >= end_us - rule.timespan_us).collect();
                let count = if rule.measure == Measure::Values {
                    window.iter().map(|seen| seen.2).collect::<BTreeSet<_>>().len()
                } else {
                    window.len()
                };
                if count >= rule.at_least {
                    found = Some((window[0].0, end_us, count as u64));
                    break;
                }
            }
            alerts.push(found.and_then(|(start_us, end_us, count)| {
                let touches =
                    |episode: &(i64, i64)| episode.1 >= end_us - rule.timespan_us && episode.0 <= end_us;
                let (touched, apart): (Vec<_>, Vec<_>) = episodes.drain(..).partition(touches);
                episodes = apart;
                let first = touched.iter().map(|e| e.0).chain([start_us]).min().unwrap();
                let last = touched.iter().map(|e| e.1).chain([end_us]).max().unwrap();
                episodes.push((first, last));
                touched.is_empty().then_some((end_us, count))
            }));
        }
        alerts
    }

    fn arrivals() -> impl Strategy<Value = Vec<(i64, u128)>> {
        proptest::collection::vec((0_i64..120, 0_u128..5), 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn counts_agree_with_the_definition(arrived in arrivals(), in_order in any::<bool>(), values in any::<bool>()) {
            let rule = if values { VALUES } else { EVENTS };
            let mut arrived = arrived;
            if in_order {
                arrived.sort_by_key(|event| event.0);
            }
            let found: Vec<Option<(i64, u64)>> = crossings(rule, &arrived)
                .into_iter()
                .map(|crossing| crossing.map(|crossing| (crossing.end_us, crossing.count)))
                .collect();
            // Thinning may remove the first event of a window of values, so that the episode starts
            // later. Only a late event before the episode can show the difference, so for late
            // events only the first alert is compared.
            if values && !in_order {
                prop_assert_eq!(
                    found.iter().position(Option::is_some),
                    plainly(rule, &arrived).iter().position(Option::is_some)
                );
            } else {
                prop_assert_eq!(found, plainly(rule, &arrived));
            }
        }

        /// Whatever the order of arrival, each alert is about a window that exists, and if a window
        /// exists, at least one window alerts.
        #[test]
        fn any_order_finds_true_windows_only(arrived in arrivals(), values in any::<bool>()) {
            let rule = if values { VALUES } else { EVENTS };
            let mut sorted = arrived.clone();
            sorted.sort_unstable();
            let count = |from: i64, to: i64| {
                let window = sorted.iter().filter(|event| (from..=to).contains(&event.0));
                if values { window.map(|event| event.1).collect::<BTreeSet<_>>().len() } else { window.count() }
            };
            let found: Vec<Crossing> = crossings(rule, &arrived).into_iter().flatten().collect();
            for crossing in &found {
                prop_assert!(crossing.end_us - crossing.start_us <= rule.timespan_us);
                prop_assert!(count(crossing.start_us, crossing.end_us) >= crossing.count as usize);
                prop_assert!(crossing.count as usize >= rule.at_least);
            }
            let any_true = sorted.iter().any(|event| count(event.0 - rule.timespan_us, event.0) >= rule.at_least);
            prop_assert_eq!(any_true, !found.is_empty());
        }

        /// If events arrive in order of time, the alerts are the same as those found by a search
        /// through every window.
        #[test]
        fn temporal_rules_agree_with_a_search_of_every_window(
            events in proptest::collection::vec((0_i64..120, 0_u128..3), 0..60),
            ordered in any::<bool>(),
        ) {
            let rule = if ordered { IN_ORDER } else { RULES };
            let mut events = events;
            events.sort_unstable();
            let holds = |window: &[(i64, u128)]| match ordered {
                false => (0..3).all(|value| window.iter().any(|event| event.1 == value)),
                true => {
                    let mut next = 0;
                    for event in window {
                        next += u128::from(event.1 == next);
                    }
                    next >= 3
                }
            };
            let mut expected = Vec::new();
            let mut alerted_to = i64::MIN;
            for end in 0..events.len() {
                let end_us = events[end].0;
                let window: Vec<(i64, u128)> =
                    events[..=end].iter().copied().filter(|event| event.0 >= end_us - 10).collect();
                // A chain ends at an event of the last rule. A window that ends at another event
                // can contain only chains that an earlier window contains too.
                let useful = if ordered { events[end].1 == 2 } else { true };
                if useful && holds(&window) {
                    if alerted_to < end_us - 10 {
                        expected.push(end_us);
                    }
                    alerted_to = end_us;
                }
            }
            let found: Vec<i64> =
                crossings(rule, &events).into_iter().flatten().map(|crossing| crossing.end_us).collect();
            prop_assert_eq!(found, expected);
        }

        /// Whatever the order of arrival, each alert is about a window that exists, and if a window
        /// exists, at least one window alerts.
        #[test]
        fn rules_in_any_order_find_true_windows_only(
            arrived in proptest::collection::vec((0_i64..80, 0_u128..3), 0..40),
            ordered in any::<bool>(),
        ) {
            let rule = if ordered { IN_ORDER } else { RULES };
            let chain = |from: i64, to: i64| {
                let at = |value: u128| {
                    arrived.iter().filter(move |e| e.1 == value && (from..=to).contains(&e.0)).map(|e| e.0)
                };
                at(0).any(|a| at(1).any(|b| at(2).any(|c| !ordered || (a <= b && b <= c))))
            };
            let found: Vec<Crossing> = crossings(rule, &arrived).into_iter().flatten().collect();
            for crossing in &found {
                prop_assert!(crossing.end_us - crossing.start_us <= 10);
                prop_assert!(chain(crossing.start_us, crossing.end_us));
            }
            let any_true = arrived.iter().any(|event| chain(event.0 - 10, event.0));
            prop_assert_eq!(any_true, !found.is_empty());
        }

        /// A window with exactly as many events as needed gives the same crossing in any order of
        /// arrival.
        #[test]
        fn events_of_one_window_may_come_in_any_order(
            times in proptest::collection::hash_set(0_i64..=10, 3),
            order in Just([0_usize, 1, 2]).prop_shuffle(),
        ) {
            let mut times: Vec<i64> = times.into_iter().collect();
            times.sort_unstable();
            let find = |order: &[usize]| {
                let mut windows = Windows::new(LIMITS);
                let found = order.iter().filter_map(|at| {
                    let event = Counted { time_us: times[*at], request: *at as u128, value: *at as u128, ..Counted::default() };
                    windows.count((0, 0), VALUES, &event)
                });
                found.collect::<Vec<_>>()
            };
            let (found, expected) = (find(&order), find(&[0, 1, 2]));
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found, expected);
        }
    }
}
