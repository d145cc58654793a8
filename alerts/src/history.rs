//! The usual behaviour of groups: values that they have had (`first_seen`), and events per hour
//! (`baseline`).
//!
//! **First seen.** A value is new for its group if the group did not have it within the rule's
//! timespan before or after the event. A group is being learnt until `learning` has passed since
//! its first event. Until then a new value raises either no alert, or one of the rule's
//! `learning_level`. A group that was silent for the timespan is learnt again.
//!
//! **Baseline.** Events of a group are counted by hour of event time, UTC. An hour alerts once,
//! when its count reaches the floor and is more than `factor` times the usual count. The usual
//! count is the larger of two medians, plus 1.4826 times the median absolute deviation from the
//! first median, which estimates the standard deviation without the outliers. The first median is
//! that of the counts of the group's active hours (those with an event) in the timespan before the
//! judged hour. The second median takes one count from each earlier day: the count of the busiest
//! of three hours, which are the same hour of the day and the two next to it. The second median is
//! used only if at least [`SAME_HOUR_MIN`] days had events in these hours. Half of the history
//! would have to be outliers to move a median. Hours without an event do not count: somebody who
//! works twice a week is compared with the days of work. A group with fewer active hours than
//! `min_history` is not judged.
//!
//! Both kinds judge an event by its own time, however late it arrives. A late event does not change
//! what was judged before it arrived. So the order of arrival matters little, and with a `lateness`
//! it does not matter at all. A repeated event is recognised by its request.
//!
//! **Bounds.** [`HistoryLimits`] bounds the state. If there are too many values, the one seen
//! longest ago is forgotten, which can raise an extra alert and never hides one. If there are too
//! many groups, the one seen longest ago is forgotten, and learnt again. The names that an hour
//! touches are kept for the last [`HOURS_TOUCHED_MAX`] hours of a group, and their number is
//! bounded over all groups. An older hour, and an hour that exceeds this bound, count as touching
//! any name.
//!
//! **Crash.** State is lost; observing the archive's events of the timespan again rebuilds it.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashMap;
use strongroom_schemas::Touched;

use crate::window::{Counted, GroupKey};

/// Microseconds in an hour.
const HOUR_US: i64 = 3_600_000_000;
/// Minimum number of earlier days with events at the same time of day for their median to be used.
const SAME_HOUR_MIN: usize = 3;
/// Maximum number of audit ids in a baseline's alert; they are the first ones of the hour.
pub(crate) const EVIDENCE_MAX: usize = 8;
/// Number of hours of a group whose touched names are known: the last hour, and the hour before it,
/// because late events of that hour may still arrive.
const HOURS_TOUCHED_MAX: usize = 2;
/// Maximum number of names and ranges touched by the hours of all groups; about 60 bytes each.
const TOUCHED_ITEMS_MAX: usize = 1 << 20;

/// Limits on what the histories remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HistoryLimits {
    /// Values of all groups; about 150 bytes each.
    pub(crate) values_max: usize,
    /// Maximum number of groups with values, and also of groups with baselines. A group with a
    /// baseline takes up to 12 bytes for each hour of its timespan.
    pub(crate) groups_max: usize,
    /// Active hours of all groups.
    pub(crate) hours_max: usize,
}

/// How new a value is to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Novelty {
    Known,
    /// New, in a group that is still being learnt.
    Learnt,
    /// New, in a group whose usual values are known.
    New,
}

/// Values that groups have had.
#[derive(Debug)]
pub(crate) struct Novelties {
    limits: HistoryLimits,
    /// When each value was last seen.
    values: HashMap<(GroupKey, u128), i64>,
    values_by_age: BTreeSet<(i64, GroupKey, u128)>,
    /// When each group was first and last seen.
    groups: HashMap<GroupKey, (i64, i64)>,
    groups_by_age: BTreeSet<(i64, GroupKey)>,
}

impl Novelties {
    pub(crate) fn new(limits: HistoryLimits) -> Novelties {
        Novelties {
            limits,
            values: HashMap::new(),
            values_by_age: BTreeSet::new(),
            groups: HashMap::new(),
            groups_by_age: BTreeSet::new(),
        }
    }

    /// Adds a value that a group had at a time, and returns how new the value was to the group.
    pub(crate) fn see(
        &mut self,
        group: GroupKey,
        value: u128,
        time_us: i64,
        (timespan_us, learning_us): (i64, i64),
    ) -> Novelty {
        let apart = |a: i64, b: i64| a.saturating_sub(b).saturating_abs() > timespan_us;
        let known = self.groups.get(&group).copied();
        let known = known.filter(|(_, last_us)| time_us.saturating_sub(*last_us) <= timespan_us);
        let (first_us, last_us) = known.unwrap_or((time_us, time_us));
        let learnt = time_us.saturating_sub(first_us) >= learning_us && known.is_some();
        let seen_us = self.values.get(&(group, value)).copied();
        let is_new = seen_us.is_none_or(|seen_us| apart(time_us, seen_us));

        self.note_group(group, (first_us.min(time_us), last_us.max(time_us)));
        let latest_us = seen_us.map_or(time_us, |seen_us| seen_us.max(time_us));
        if seen_us != Some(latest_us) {
            if let Some(seen_us) = self.values.insert((group, value), latest_us) {
                self.values_by_age.remove(&(seen_us, group, value));
            }
            self.values_by_age.insert((latest_us, group, value));
        }
        while self.values.len() > self.limits.values_max
            && let Some((_, group, value)) = self.values_by_age.pop_first()
        {
            self.values.remove(&(group, value));
        }
        match (is_new, learnt) {
            (false, _) => Novelty::Known,
            (true, false) => Novelty::Learnt,
            (true, true) => Novelty::New,
        }
    }

    fn note_group(&mut self, group: GroupKey, span: (i64, i64)) {
        if let Some((_, last_us)) = self.groups.insert(group, span) {
            self.groups_by_age.remove(&(last_us, group));
        }
        self.groups_by_age.insert((span.1, group));
        while self.groups.len() > self.limits.groups_max
            && let Some((_, group)) = self.groups_by_age.pop_first()
        {
            self.groups.remove(&group);
        }
    }
}

/// The parameters of a baseline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judgement {
    pub(crate) timespan_us: i64,
    pub(crate) floor: u32,
    pub(crate) factor_thousandths: u64,
    pub(crate) history_min: usize,
}

/// An hour that alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spike {
    pub(crate) hour_us: i64,
    pub(crate) count: u64,
    pub(crate) audit_ids: Vec<String>,
    pub(crate) touched: Touched,
}

#[derive(Clone, Copy, Debug)]
struct Hour {
    hour: i32,
    count: u32,
    alerted: bool,
}

#[derive(Debug, Default)]
struct Hours {
    /// Active hours, in order.
    hours: VecDeque<Hour>,
    /// First audit ids of the last hour.
    evidence: Vec<Box<str>>,
    /// An hour, and the count above which it alerts (`None` if the history is too short). This is
    /// forgotten when the count of an earlier hour changes.
    limit: Option<(i32, Option<u64>)>,
    /// What each of the last hours touches, in order; an hour that alerts is removed.
    touched: VecDeque<(i32, Touched)>,
}

/// Hours of all groups.
#[derive(Debug)]
pub(crate) struct Baselines {
    limits: HistoryLimits,
    groups: HashMap<GroupKey, Hours>,
    by_age: BTreeSet<(i32, GroupKey)>,
    hours: usize,
    /// Number of names and ranges that the hours of all groups touch, at most
    /// [`TOUCHED_ITEMS_MAX`].
    items: usize,
}

impl Baselines {
    pub(crate) fn new(limits: HistoryLimits) -> Baselines {
        Baselines { limits, groups: HashMap::new(), by_age: BTreeSet::new(), hours: 0, items: 0 }
    }

    /// Counts an event in its hour, and returns the spike if the hour now alerts.
    pub(crate) fn count(
        &mut self,
        group: GroupKey,
        judgement: Judgement,
        event: &Counted<'_>,
    ) -> Option<Spike> {
        let hour = i32::try_from(event.time_us.div_euclid(HOUR_US)).ok()?;
        let known = self.groups.entry(group).or_default();
        let (before, newest) = (known.hours.len(), known.hours.back().map(|hour| hour.hour));
        self.items -= known.items();
        let spike = known.count(hour, judgement, event, TOUCHED_ITEMS_MAX.saturating_sub(self.items));
        self.items += known.items();
        let now = known.hours.back().map(|hour| hour.hour);
        self.hours = self.hours + known.hours.len() - before;
        if newest != now {
            newest.map(|newest| self.by_age.remove(&(newest, group)));
            now.map(|now| self.by_age.insert((now, group)));
        }
        while (self.groups.len() > self.limits.groups_max || self.hours > self.limits.hours_max)
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            if let Some(forgotten) = self.groups.remove(&oldest) {
                self.hours -= forgotten.hours.len();
                self.items -= forgotten.items();
            }
        }
        spike
    }
}

impl Hours {
    fn items(&self) -> usize {
        self.touched.iter().map(|(_, touched)| touched.items()).sum()
    }

    /// Adds what an event touches to the hour at position `at`. If the group's hours then touch
    /// more than `items_max` names and ranges, this hour counts as touching any name.
    fn touch(&mut self, at: usize, event: &Counted<'_>, items_max: usize) {
        let Hour { hour, count, alerted } = self.hours[at];
        if alerted {
            return;
        }
        if count == 1 {
            let place = self.touched.partition_point(|(known, _)| *known < hour);
            self.touched.insert(place, (hour, Touched::default()));
            if self.touched.len() > HOURS_TOUCHED_MAX {
                self.touched.pop_front();
            }
        }
        if let Some((_, touched)) = self.touched.iter_mut().find(|(known, _)| *known == hour) {
            touched.add(event.touch, event.source_offset, event.source_offset);
        }
        if self.items() > items_max
            && let Some((_, touched)) = self.touched.iter_mut().find(|(known, _)| *known == hour)
        {
            touched.widen();
        }
    }

    fn count(
        &mut self,
        hour: i32,
        judgement: Judgement,
        event: &Counted<'_>,
        items_max: usize,
    ) -> Option<Spike> {
        let audit_id = event.audit_id;
        let span = i32::try_from(judgement.timespan_us / HOUR_US).unwrap_or(i32::MAX);
        let newest = self.hours.back().map_or(hour, |last| last.hour.max(hour));
        while self.hours.front().is_some_and(|first| first.hour < newest.saturating_sub(span)) {
            self.hours.pop_front();
        }
        // The event is older than the history, so the usual count of its hour is unknown.
        if hour < newest.saturating_sub(span) {
            return None;
        }
        if self.hours.back().is_none_or(|last| last.hour < hour) {
            self.evidence.clear();
        }
        let at = self.hours.partition_point(|known| known.hour < hour);
        match self.hours.get_mut(at) {
            Some(known) if known.hour == hour => known.count = known.count.saturating_add(1),
            _ => self.hours.insert(at, Hour { hour, count: 1, alerted: false }),
        }
        let is_last = at + 1 == self.hours.len();
        if is_last && self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(audit_id.into());
        }
        self.touch(at, event, items_max);
        // The event changes the usual count of every later hour.
        self.limit = self.limit.filter(|(of, _)| *of <= hour);
        let Hour { count, alerted, .. } = self.hours[at];
        if alerted || count < judgement.floor {
            return None;
        }
        let limit = match self.limit {
            Some((of, limit)) if of == hour => limit,
            _ => self.usual_limit(at, judgement),
        };
        self.limit = Some((hour, limit));
        if u64::from(count) <= limit? {
            return None;
        }
        self.hours[at].alerted = true;
        let audit_ids = if is_last {
            self.evidence.iter().map(|id| id.to_string()).collect()
        } else {
            vec![audit_id.to_owned()]
        };
        // The names that an older hour touched are no longer known.
        let known = self.touched.iter().position(|(known, _)| *known == hour);
        let touched =
            known.and_then(|at| self.touched.remove(at)).map_or_else(Touched::any, |(_, known)| known);
        Some(Spike { hour_us: i64::from(hour) * HOUR_US, count: u64::from(count), audit_ids, touched })
    }

    /// Returns the count above which the hour at `at` alerts; `None` if the history is too short.
    fn usual_limit(&self, at: usize, judgement: Judgement) -> Option<u64> {
        let span = i32::try_from(judgement.timespan_us / HOUR_US).unwrap_or(i32::MAX);
        let hour = self.hours[at].hour;
        let before = self.hours.range(..at).filter(|known| known.hour >= hour.saturating_sub(span));
        let mut counts: Vec<u32> = before.clone().map(|known| known.count).collect();
        if counts.len() < judgement.history_min {
            return None;
        }
        let usual = median(&mut counts)?;
        // For each earlier day, the count of the busiest of three hours: the same hour of the day
        // and the two next to it, which are at places 0 to 2.
        let mut days: Vec<(i32, u32)> = Vec::new();
        for known in before {
            let apart = hour - known.hour + 1;
            let (day, place) = (apart / 24, apart % 24);
            match days.last_mut() {
                _ if day == 0 || place > 2 => {}
                Some((same, busiest)) if *same == day => *busiest = known.count.max(*busiest),
                _ => days.push((day, known.count)),
            }
        }
        let mut days: Vec<u32> = days.into_iter().map(|(_, busiest)| busiest).collect();
        let seasonal = if days.len() >= SAME_HOUR_MIN { median(&mut days)? } else { 0 };
        let mut deviations: Vec<u32> = counts.iter().map(|count| count.abs_diff(usual)).collect();
        let deviation = u64::from(median(&mut deviations)?) * 14_826;
        let usual = u64::from(usual.max(seasonal)) * 10_000 + deviation;
        Some(usual.saturating_mul(judgement.factor_thousandths) / 10_000_000)
    }
}

/// Returns the median of some counts; if their number is even, the upper of the two in the middle.
fn median(counts: &mut [u32]) -> Option<u32> {
    let middle = counts.len() / 2;
    (!counts.is_empty()).then(|| *counts.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HistoryLimits = HistoryLimits { values_max: 1000, groups_max: 100, hours_max: 10_000 };
    const GROUP: GroupKey = (0, 0);

    fn news(events: &[(i64, u128)]) -> Vec<(i64, u128)> {
        let mut novelties = Novelties::new(LIMITS);
        let new = |event: &&(i64, u128)| novelties.see(GROUP, event.1, event.0, (100, 30)) == Novelty::New;
        events.iter().filter(new).copied().collect()
    }

    #[test]
    fn a_value_is_new_once_when_its_group_is_known() {
        assert_eq!(news(&[(0, 1), (10, 2), (29, 3)]), [], "the group is learnt");
        assert_eq!(news(&[(0, 1), (30, 2), (31, 2), (40, 1)]), [(30, 2)]);
        assert_eq!(news(&[(0, 1), (50, 2), (100, 2), (101, 1)]), [(50, 2), (101, 1)], "forgotten after 100");
        assert_eq!(news(&[(0, 1), (101, 2)]), [], "a group that was away is learnt again");
        assert_eq!(
            news(&[(60, 1), (50, 1), (80, 2), (85, 3)]),
            [(80, 2), (85, 3)],
            "the first event came late"
        );
        assert_eq!(news(&[(0, 1), (90, 2), (40, 2)]), [(90, 2)], "known from a later event");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let limits = HistoryLimits { values_max: 10, groups_max: 5, hours_max: 40 };
        let mut novelties = Novelties::new(limits);
        let mut baselines = Baselines::new(limits);
        let judgement =
            Judgement { timespan_us: 100 * HOUR_US, floor: 5, factor_thousandths: 2000, history_min: 3 };
        for at in 0..2000_i64 {
            let group = (0, (at % 17) as u128);
            novelties.see(group, (at % 31) as u128, at, (500, 10));
            assert!(novelties.values.len() <= 10 && novelties.values_by_age.len() <= 10);
            assert!(novelties.groups.len() <= 5 && novelties.groups_by_age.len() <= 5);
            baselines.count(group, judgement, &Counted { time_us: at * HOUR_US, ..Counted::default() });
            assert!(baselines.groups.len() <= 5 && baselines.by_age.len() <= 5 && baselines.hours <= 40);
            let hours: usize = baselines.groups.values().map(|hours| hours.hours.len()).sum();
            assert_eq!(hours, baselines.hours);
            assert!(baselines.groups.values().all(|hours| hours.touched.len() <= HOURS_TOUCHED_MAX));
            assert_eq!(baselines.groups.values().map(Hours::items).sum::<usize>(), baselines.items);
        }
    }

    const JUDGEMENT: Judgement =
        Judgement { timespan_us: 14 * 24 * HOUR_US, floor: 10, factor_thousandths: 3000, history_min: 24 };

    /// Returns the spikes (hour, count) of `hours` (hour, number of events), in order.
    fn spikes(hours: &[(i64, usize)]) -> Vec<(i64, u64)> {
        let mut baselines = Baselines::new(LIMITS);
        let mut found = Vec::new();
        for (hour, count) in hours {
            for at in 0..*count {
                let time_us = hour * HOUR_US + at as i64;
                let event = Counted { time_us, audit_id: "id", ..Counted::default() };
                found.extend(baselines.count(GROUP, JUDGEMENT, &event));
            }
        }
        found.into_iter().map(|spike| (spike.hour_us / HOUR_US, spike.count)).collect()
    }

    #[test]
    fn an_unusually_busy_hour_alerts_once() {
        let usual: Vec<(i64, usize)> = (0..48).map(|hour| (hour, 4 + (hour % 3) as usize)).collect();
        let with = |more: &[(i64, usize)]| spikes(&[&usual[..], more].concat());
        assert_eq!(with(&[(48, 200)]), [(48, 20)], "3 × (5 and a deviation of 1)");
        assert_eq!(with(&[(48, 19)]), []);
        assert_eq!(
            with(&[(48, 200), (49, 200)]),
            [(48, 20), (49, 20)],
            "one outlier does not change what is usual"
        );
        assert_eq!(spikes(&[&usual[..20], &[(48, 200)]].concat()), [], "the history is too short");
        assert_eq!(with(&[(48 + 15 * 24, 200)]), [], "the history is too old");
        let nightly: Vec<(i64, usize)> =
            (0..240).map(|hour| (hour, if hour % 24 == 2 { 300 } else { 5 })).collect();
        assert_eq!(
            spikes(&[&nightly[24 * 3..], &[(24 * 10 + 2, 400)]].concat()),
            [(98, 16), (122, 16)],
            "as every night"
        );
        assert_eq!(
            spikes(&[&nightly[24 * 3..], &[(24 * 10 + 12, 400)]].concat()),
            [(98, 16), (122, 16), (24 * 10 + 12, 16)]
        );
        let quiet: Vec<(i64, usize)> = (0..48).map(|hour| (hour, 1)).collect();
        assert_eq!(spikes(&[&quiet[..], &[(48, 9)]].concat()), [], "below the floor");
    }

    proptest! {
        /// If the hours come in order, the spikes are those found by sorting all counts.
        #[test]
        fn spikes_agree_with_the_definition(
            counts in proptest::collection::vec(prop_oneof![0_u32..8, 0_u32..80], 0..200),
        ) {
            let hours: Vec<(i64, usize)> = counts.iter().enumerate().map(|(h, n)| (h as i64, *n as usize)).collect();
            let mut expected = Vec::new();
            for (hour, count) in counts.iter().enumerate() {
                let active: Vec<(usize, u32)> =
                    counts[..hour].iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
                if active.len() < 24 {
                    continue;
                }
                let middle = |mut values: Vec<u32>| { values.sort_unstable(); f64::from(values[values.len() / 2]) };
                let usual = middle(active.iter().map(|known| known.1).collect());
                let deviation =
                    middle(active.iter().map(|known| known.1.abs_diff(usual as u32)).collect()) * 1.4826;
                let near = |day: usize| {
                    let near = active.iter().filter(|(known, _)| (hour - known).abs_diff(24 * day) <= 1);
                    near.map(|known| known.1).max()
                };
                let same: Vec<u32> = (1..=14).filter_map(near).collect();
                let seasonal = if same.len() >= 3 { middle(same) } else { 0.0 };
                let limit = 3.0 * (usual.max(seasonal) + deviation);
                let spike = (10..=*count).find(|count| f64::from(*count) > limit.floor());
                expected.extend(spike.map(|count| (hour as i64, u64::from(count))));
            }
            prop_assert_eq!(spikes(&hours), expected);
        }
    }
}
