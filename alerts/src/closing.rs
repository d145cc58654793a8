//! Windows that are judged when they close: counts with an upper bound (`lt`, `lte`, `eq`), and
//! requests that have no later stage (`unfinished`).
//!
//! A count is final, and can be compared with an upper bound, only when no more events of its
//! window can arrive. So, unlike sliding windows, these windows need a time up to which a source is
//! complete. A source's *watermark* is the latest event time of any of its events, less the allowed
//! lateness. Events wait until the watermark passes them and are then counted in order of event
//! time, so within the lateness the order of arrival does not matter.
//!
//! A window opens at an event whose group has no open window, and lasts one timespan; it is judged
//! once, when the watermark passes its end. An event older than the watermark is late and is not
//! counted, because its window may have been judged. Windows never slide, so each event counts
//! once. A group without events has no window and never alerts. A window that is still open when a
//! stream ends is not judged, since its time is not over.
//!
//! A request that may be unfinished has a window of its own. Its `RequestReceived` opens the
//! window, and any later stage of the request removes the window, however late that stage arrives.
//! So if the window closes, the request has no recorded end. If `RequestReceived` and a later stage
//! have the same time, `RequestReceived` is counted first. If the stages of a request are in
//! different sources (for example in two files, because a log was rotated), the request is not
//! judged if the first source ends before the window does, as a rotated file usually does.
//! Otherwise it counts as unfinished.
//!
//! Each source has its own watermark and its own windows, because a source can lag behind the
//! others: a file that is read later, or a slow Kafka partition. If the events of a group come from
//! several sources, each source counts only its own part of them. So rules with an upper bound are
//! for streams from one source.
//!
//! **Bounds.** [`ClosingLimits`] bounds the state. If too many events of a source wait, its oldest
//! events are counted early, and its watermark advances to them. If too many windows of a source
//! are open, the window that would close first is removed without being judged, because its count
//! is not complete. If there are too many sources, the source that was added first is forgotten. If
//! all windows together touch too many names, the next window to which a name is added counts as
//! touching every name. State is lost in a crash, and rebuilt from the archive's events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::{HashMap, HashSet};
use strongroom_schemas::alert::AUDIT_IDS_MAX;
use strongroom_schemas::{AlertEvent, Touched};

use crate::error::THRESHOLD_MAX;
use crate::window::GroupKey;

/// Maximum number of sources whose watermarks are remembered.
const SOURCES_MAX: usize = 1024;
/// Maximum number of names and ranges touched by all open windows; about 60 bytes each.
const TOUCHED_ITEMS_MAX: usize = 1 << 19;

/// Added to the arrival number of an event that ends a request, so that this event is counted after
/// all other events of the same time.
const ENDS: u64 = 1 << 63;

/// Limits of closing windows; each limit applies to one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClosingLimits {
    pub(crate) waiting_max: usize,
    pub(crate) windows_max: usize,
    pub(crate) lateness_us: i64,
}

/// An event that waits to be counted, with the fields of a possible alert about it.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// Key of the window: the group or, for `unfinished`, the request.
    pub(crate) key: GroupKey,
    pub(crate) group: u128,
    /// True for a later stage of a request that may be unfinished.
    pub(crate) ends: bool,
    pub(crate) timespan_us: i64,
    pub(crate) counts_values: bool,
    pub(crate) request: u128,
    pub(crate) value: u128,
    pub(crate) group_text: String,
    pub(crate) event: AlertEvent,
}

/// A window whose time is over.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) key: GroupKey,
    pub(crate) group: u128,
    pub(crate) first_request: u128,
    pub(crate) start_us: i64,
    pub(crate) count: u64,
    pub(crate) audit_ids: Vec<String>,
    pub(crate) touched: Touched,
    pub(crate) group_text: String,
    /// The last event in the window.
    pub(crate) event: AlertEvent,
}

#[derive(Debug)]
struct Open {
    end_us: i64,
    counts_values: bool,
    values: HashSet<u128>,
    /// The outcome of the window if it closed now.
    closed: Closed,
}

#[derive(Debug)]
struct Source {
    watermark_us: i64,
    waiting: BTreeMap<(i64, u64), Waiting>,
    open: HashMap<GroupKey, Open>,
    ends: BTreeSet<(i64, GroupKey)>,
    next_arrival: u64,
}

/// The closing windows of all sources.
#[derive(Debug)]
pub(crate) struct Closings {
    limits: ClosingLimits,
    sources: HashMap<String, Source>,
    order: VecDeque<String>,
    /// Number of names and ranges that all open windows touch, at most [`TOUCHED_ITEMS_MAX`].
    items: usize,
}

impl Closings {
    pub(crate) fn new(limits: ClosingLimits) -> Closings {
        Closings { limits, sources: HashMap::new(), order: VecDeque::new(), items: 0 }
    }

    /// Advances the watermark of a source whose latest event time is `latest_us`, and returns the
    /// windows that end before the watermark.
    pub(crate) fn advance(&mut self, source: &str, latest_us: i64) -> Vec<Closed> {
        let watermark_us = latest_us.saturating_sub(self.limits.lateness_us);
        let limits = self.limits;
        let (source, items) = self.source(source);
        source.watermark_us = source.watermark_us.max(watermark_us);
        let mut closed = Vec::new();
        source.release(source.watermark_us, limits, items, &mut closed);
        source.close_before(source.watermark_us, items, &mut closed);
        closed
    }

    /// Adds an event of a source, which is counted when the watermark passes it. A late event is
    /// dropped. Returns the windows that close early because too many events wait.
    pub(crate) fn add(&mut self, source: &str, waiting: Waiting) -> Vec<Closed> {
        let limits = self.limits;
        let (source, items) = self.source(source);
        let time_us = waiting.event.time_us;
        if time_us < source.watermark_us {
            if waiting.ends {
                source.forget(&waiting.key, items);
            }
            return Vec::new();
        }
        let arrival = source.next_arrival | if waiting.ends { ENDS } else { 0 };
        source.next_arrival += 1;
        source.waiting.insert((time_us, arrival), waiting);
        let mut closed = Vec::new();
        if source.waiting.len() > limits.waiting_max
            && let Some((&(oldest_us, _), _)) = source.waiting.first_key_value()
        {
            source.watermark_us = source.watermark_us.max(oldest_us);
            source.release(oldest_us, limits, items, &mut closed);
        }
        closed
    }

    /// Returns a source, after adding it if it is new. Also returns the number of names and ranges
    /// that the windows of all sources touch.
    fn source(&mut self, name: &str) -> (&mut Source, &mut usize) {
        if !self.sources.contains_key(name) {
            if self.order.len() == SOURCES_MAX
                && let Some(oldest) = self.order.pop_front()
                && let Some(source) = self.sources.remove(&oldest)
            {
                self.items -= source.open.values().map(|open| open.closed.touched.items()).sum::<usize>();
            }
            self.order.push_back(name.to_owned());
        }
        let source = self.sources.entry_ref(name).or_insert_with(|| Source {
            watermark_us: i64::MIN,
            waiting: BTreeMap::new(),
            open: HashMap::new(),
            ends: BTreeSet::new(),
            next_arrival: 0,
        });
        (source, &mut self.items)
    }
}

impl Source {
    /// Counts the waiting events up to `until_us`, in order of time. Adds the windows that end
    /// before one of these events to `closed`.
    fn release(&mut self, until_us: i64, limits: ClosingLimits, items: &mut usize, closed: &mut Vec<Closed>) {
        while let Some(first) = self.waiting.first_entry() {
            let time_us = first.key().0;
            if time_us > until_us {
                return;
            }
            let waiting = first.remove();
            self.close_before(time_us, items, closed);
            self.count(waiting, limits, items);
        }
    }

    fn close_before(&mut self, time_us: i64, items: &mut usize, closed: &mut Vec<Closed>) {
        while let Some(&(end_us, key)) = self.ends.first() {
            if end_us >= time_us {
                return;
            }
            self.ends.pop_first();
            if let Some(open) = self.open.remove(&key) {
                *items -= open.closed.touched.items();
                closed.push(open.closed);
            }
        }
    }

    /// Removes a window without judging it.
    fn forget(&mut self, key: &GroupKey, items: &mut usize) {
        if let Some(open) = self.open.remove(key) {
            self.ends.remove(&(open.end_us, *key));
            *items -= open.closed.touched.items();
        }
    }

    fn count(&mut self, waiting: Waiting, limits: ClosingLimits, items: &mut usize) {
        let Waiting { key, group, ends, timespan_us, counts_values, request, value, group_text, event } =
            waiting;
        if ends {
            self.forget(&key, items);
            return;
        }
        if !self.open.contains_key(&key) {
            if self.open.len() == limits.windows_max
                && let Some((_, forgotten)) = self.ends.pop_first()
                && let Some(forgotten) = self.open.remove(&forgotten)
            {
                *items -= forgotten.closed.touched.items();
            }
            self.ends.insert((event.time_us.saturating_add(timespan_us), key));
        }
        let open = self.open.entry(key).or_insert_with(|| Open {
            end_us: event.time_us.saturating_add(timespan_us),
            counts_values,
            values: HashSet::new(),
            closed: Closed {
                key,
                group,
                first_request: request,
                start_us: event.time_us,
                count: 0,
                audit_ids: Vec::new(),
                touched: Touched::default(),
                group_text,
                event: AlertEvent::default(),
            },
        });
        debug_assert!(event.time_us <= open.end_us, "windows that are over have been closed");
        if open.counts_values {
            // No bound exceeds `THRESHOLD_MAX`, so further distinct values cannot change the
            // outcome.
            if open.values.len() as u64 <= THRESHOLD_MAX {
                open.values.insert(value);
            }
            open.closed.count = open.values.len() as u64;
        } else {
            open.closed.count += 1;
        }
        if open.closed.audit_ids.len() < AUDIT_IDS_MAX {
            open.closed.audit_ids.push(event.audit_id.clone());
        }
        let touched = &mut open.closed.touched;
        *items -= touched.items();
        touched.add(event.touch(), event.source_offset, event.source_offset);
        if *items + touched.items() > TOUCHED_ITEMS_MAX {
            touched.widen();
        }
        *items += touched.items();
        open.closed.event = event;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: ClosingLimits = ClosingLimits { waiting_max: 1000, windows_max: 100, lateness_us: 5 };

    fn waiting(time_us: i64) -> Waiting {
        Waiting {
            key: (0, 0),
            group: 0,
            ends: false,
            timespan_us: 10,
            counts_values: false,
            request: time_us as u128,
            value: 0,
            group_text: String::new(),
            event: AlertEvent { time_us, ..AlertEvent::default() },
        }
    }

    /// Returns the start and the count of each window that closes when events arrive in this order.
    /// At the end, the source advances to a time that is 1 after its latest event.
    fn closed(limits: ClosingLimits, arrivals: &[i64]) -> Vec<(i64, u64)> {
        let mut closings = Closings::new(limits);
        let mut found = Vec::new();
        let mut latest = i64::MIN;
        for time in arrivals {
            latest = latest.max(*time);
            found.extend(closings.advance("s", latest));
            found.extend(closings.add("s", waiting(*time)));
        }
        found.extend(closings.advance("s", latest + 1));
        found.into_iter().map(|closed| (closed.start_us, closed.count)).collect()
    }

    #[test]
    fn windows_follow_each_other_and_close_behind_the_watermark() {
        assert_eq!(closed(LIMITS, &[0, 3, 10, 11, 40]), [(0, 3), (11, 1)]);
        // The window that opens at 0 ends at 10, and closes when the watermark is more than 10. The
        // source ends at 15 or 16, and its watermark is 5 less.
        assert_eq!(closed(LIMITS, &[0, 3, 14]), [], "the window ends at 10, and 15 less the lateness is 10");
        assert_eq!(closed(LIMITS, &[0, 3, 15]), [(0, 2)]);
    }

    #[test]
    fn a_later_stage_removes_the_window_of_its_request() {
        let stage = |time_us, request, ends| Waiting { key: (0, request), ends, ..waiting(time_us) };
        let found = |stages: &[(i64, u128, bool)]| {
            let mut closings = Closings::new(LIMITS);
            let mut found = Vec::new();
            for (time_us, request, ends) in stages {
                found.extend(closings.advance("s", *time_us));
                found.extend(closings.add("s", stage(*time_us, *request, *ends)));
            }
            found.extend(closings.advance("s", 1000));
            assert_eq!(closings.items, 0);
            assert!(closings.sources["s"].open.is_empty() && closings.sources["s"].ends.is_empty());
            found.into_iter().map(|closed| closed.key.1).collect::<Vec<_>>()
        };
        assert_eq!(found(&[(0, 1, false), (0, 2, false), (3, 1, true)]), [2]);
        assert_eq!(found(&[(3, 1, true), (3, 1, false)]), [], "received and ended at the same time");
        assert_eq!(found(&[(0, 1, false), (0, 1, false), (3, 1, true)]), [], "received twice");
        assert_eq!(found(&[(0, 1, false), (14, 2, false), (3, 1, true)]), [2], "the end came late");
        assert_eq!(found(&[(3, 1, true), (20, 1, false)]), [1], "another request");
        assert_eq!(found(&[(3, 1, true), (4, 1, true)]), [], "never received");
    }

    #[test]
    fn late_events_reopen_nothing() {
        assert_eq!(closed(LIMITS, &[0, 100, 1, 200]), [(0, 1), (100, 1)]);
    }

    #[test]
    fn sources_do_not_hold_each_other_up() {
        let mut closings = Closings::new(LIMITS);
        closings.add("a", waiting(1000));
        closings.advance("a", 2000);
        assert!(closings.add("b", waiting(0)).is_empty());
        let found = closings.advance("b", 100);
        assert_eq!(found.iter().map(|closed| closed.start_us).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn memory_is_bounded() {
        let limits = ClosingLimits { waiting_max: 10, windows_max: 3, lateness_us: 1000 };
        let mut closings = Closings::new(limits);
        for at in 0..500_i64 {
            closings.add("s", Waiting { key: (0, at as u128), ..waiting(at) });
            let source = &closings.sources["s"];
            assert!(source.waiting.len() <= 10 && source.open.len() <= 3 && source.ends.len() <= 3);
            let items: usize = source.open.values().map(|open| open.closed.touched.items()).sum();
            assert_eq!(items, closings.items);
        }
        for at in 0..3000 {
            closings.advance(&format!("s{at}"), 0);
        }
        assert!(closings.sources.len() <= SOURCES_MAX && closings.order.len() <= SOURCES_MAX);
        assert_eq!(closings.items, 0, "the source with open windows is forgotten");
    }

    proptest! {
        /// Events that are out of order by at most the lateness close the same windows as the same
        /// events in order of time.
        #[test]
        fn order_within_the_lateness_does_not_matter(
            mut times in proptest::collection::vec((0_i64..200, 0_i64..=5), 0..40)
        ) {
            let mut arrivals = times.clone();
            arrivals.sort_by_key(|(time, delay)| time + delay);
            times.sort_unstable();
            let sorted: Vec<i64> = times.iter().map(|(time, _)| *time).collect();
            let shuffled: Vec<i64> = arrivals.iter().map(|(time, _)| *time).collect();
            let end = [&[1000][..]].concat();
            prop_assert_eq!(
                closed(LIMITS, &[&shuffled[..], &end].concat()),
                closed(LIMITS, &[&sorted[..], &end].concat())
            );
        }
    }
}
