//! Gaps: what an archive knows about records that it may lack (silences, jumps, late seals,
//! rejects), and what no archive can know.
//!
//! Invariant: a gap states its source, how it is known, and, if they are known, its start and end.
//! The total number is stated even if not all gaps are listed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde_json::{Value, json};

use super::text::time_text;

/// A pause of up to this many minutes is never a silence.
const SILENCE_MINUTES_MIN: i64 = 5;
/// A pause is a silence if it is longer than this many times the usual pause.
const SILENCE_FACTOR: i64 = 10;
/// The usual pause is this quantile of all pauses, in thousandths: 990 means that at least 99 % of
/// all pauses are not longer than the usual one.
const USUAL: u64 = 990;
/// The usual pause is computed only if there are at least this many minutes with an event.
const MINUTES_MIN: u64 = 30;
/// Maximum number of silences between events that are listed for one source. The longest silences
/// are listed.
const LISTED_MAX: usize = 50;
pub(crate) const MINUTE_US: i64 = 60_000_000;

/// Records that are known to be missing, late or unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) kind: &'static str,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) source: String,
    /// Number of records, messages, commits or minutes.
    pub(crate) count: u64,
    pub(crate) why: String,
}

impl Gap {
    pub(crate) fn to_json(&self) -> Value {
        let Gap { kind, from, to, source, count, why } = self;
        json!({ "kind": kind, "from": from, "to": to, "source": source, "count": count, "why": why })
    }
}

/// The pauses between the minutes in which a source or a cluster had an event.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    /// Number of pauses by their length in minutes.
    lengths: BTreeMap<i64, u64>,
    longest: BinaryHeap<Reverse<(i64, i64)>>,
    first: Option<i64>,
    last: Option<i64>,
    pub(crate) minutes: u64,
}

impl Pauses {
    /// Adds a minute with an event, given by its start in microseconds since the epoch. Minutes are
    /// added in order.
    pub(crate) fn minute(&mut self, minute: i64) {
        if let Some(last) = self.last.filter(|last| *last < minute) {
            self.pause(last, minute);
        }
        self.first.get_or_insert(minute);
        self.last = Some(minute);
        self.minutes += 1;
    }

    fn pause(&mut self, from: i64, to: i64) {
        let length = (to - from) / MINUTE_US;
        *self.lengths.entry(length).or_insert(0) += 1;
        if length > SILENCE_MINUTES_MIN {
            self.longest.push(Reverse((length, from)));
            if self.longest.len() > LISTED_MAX {
                self.longest.pop();
            }
        }
    }

    /// Returns the longest pause in minutes that is not a silence, or `None` if fewer than
    /// `MINUTES_MIN` minutes with an event were added.
    pub(crate) fn limit(&self) -> Option<i64> {
        if self.minutes < MINUTES_MIN {
            return None;
        }
        let all: u64 = self.lengths.values().sum();
        let mut seen = 0;
        let usual = self.lengths.iter().find(|(_, number)| {
            seen += **number;
            seen * 1000 >= all * USUAL
        });
        let usual = usual.map_or(1, |(length, _)| *length);
        Some(usual.saturating_mul(SILENCE_FACTOR).max(SILENCE_MINUTES_MIN))
    }

    /// Returns the listed silences, longest first, and the number of all silences. `edges` is the
    /// start and the end of the period. If it is given, the time before the first event and the
    /// time after the last event count as pauses too.
    pub(crate) fn silences(
        &self,
        kind: &'static str,
        source: &str,
        edges: Option<(i64, i64)>,
    ) -> (Vec<Gap>, u64) {
        let Some(limit) = self.limit() else { return (Vec::new(), 0) };
        let mut found: Vec<(i64, i64, i64, &str)> = self
            .longest
            .iter()
            .filter(|Reverse((length, _))| *length > limit)
            .map(|Reverse((length, from))| {
                (*length - 1, *from + MINUTE_US, *from + *length * MINUTE_US, "between two events")
            })
            .collect();
        let mut all: u64 = self.lengths.range(limit + 1..).map(|(_, number)| number).sum();
        if let (Some((begin, end)), Some(first), Some(last)) = (edges, self.first, self.last) {
            for (from, to, what) in
                [(begin, first, "before the first event"), (last + MINUTE_US, end, "after the last event")]
            {
                let length = (to - from) / MINUTE_US;
                if length > limit {
                    found.push((length, from, to, what));
                    all += 1;
                }
            }
        }
        found.sort_unstable_by_key(|(length, from, ..)| (Reverse(*length), *from));
        let gaps = found.into_iter().map(|(length, from, to, what)| Gap {
            kind,
            from: time_text(from),
            to: time_text(to),
            source: source.to_owned(),
            count: u64::try_from(length).unwrap_or(0),
            why: format!(
                "{length} minutes without an event {what} of the period; 99 % of all pauses are not longer than the usual pause, and \
                 {SILENCE_FACTOR} times the usual pause are {limit} minutes"
            ),
        });
        (gaps.collect(), all)
    }
}

/// What no archive can show, even if it is complete and unchanged.
pub(crate) const CANNOT_KNOW: [&str; 8] = [
    "events that the API server never wrote: its audit policy leaves out whole classes (level None), and the policy is not in the archive",
    "events that the API server dropped before it wrote them, when its own buffer was full or its backend failed: compare its metric \
     apiserver_audit_error_total and the like for the period",
    "log lines that were deleted, by rotation or otherwise, before they were read: positions count only bytes that were read",
    "clusters, nodes and sources that were never connected: a source from which no event ever came has no silence",
    "why there is a silence: the archive cannot distinguish a cluster with nothing to log from events that were lost on their way",
    "alerts that Strongroom raised about itself (a silent source, a sum that is wrong) and that were sent only to sinks: the archive has \
     such an alert only if hunt --store added it",
    "what was done inside databases and applications: Kubernetes audit events show access to objects of the API, not to records of patients",
    "whether the clocks of API servers were right: the times of events are from these clocks, and only the times of commits are from the archive's clock",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(minutes: impl IntoIterator<Item = i64>) -> Pauses {
        let mut pauses = Pauses::default();
        minutes.into_iter().for_each(|minute| pauses.minute(minute * MINUTE_US));
        pauses
    }

    #[test]
    fn a_silence_is_longer_than_what_is_usual() {
        let steady = pauses((0..200).chain(230..400));
        assert_eq!(steady.limit(), Some(10));
        let (gaps, all) = steady.silences("cluster_silent", "prod", None);
        assert_eq!((gaps.len(), all), (1, 1));
        assert_eq!(gaps[0].count, 30);
        assert_eq!(gaps[0].from.as_deref(), Some("1970-01-01T03:20:00.000000Z"));
        // A source with an event every twenty minutes is not silent.
        let slow = pauses((0..100).map(|at| at * 20));
        assert_eq!(slow.limit(), Some(200));
        assert_eq!(slow.silences("cluster_silent", "prod", None).1, 0);
    }

    #[test]
    fn edges_count_where_they_are_asked_for() {
        let steady = pauses(100..200);
        let edges = Some((0, 300 * MINUTE_US));
        assert_eq!(steady.silences("cluster_silent", "prod", edges).1, 2);
        assert_eq!(steady.silences("cluster_silent", "prod", None).1, 0);
        assert_eq!(pauses(0..29).limit(), None, "too few events for a limit");
        assert_eq!(pauses([]).silences("cluster_silent", "prod", edges), (Vec::new(), 0));
    }

    #[test]
    fn only_the_longest_are_listed_and_all_are_counted() {
        // Two hundred blocks of minutes with an event in each, and a pause of an hour between two
        // blocks.
        let blocks = (0..200).flat_map(|block| (0..200).map(move |minute| block * 260 + minute));
        let (gaps, all) = pauses(blocks).silences("cluster_silent", "prod", None);
        assert_eq!((gaps.len(), all), (50, 199));
    }
}
