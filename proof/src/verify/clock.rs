//! Judges the times in commits, by what the clock records say of those that a wrong clock dated.
//!
//! Invariant: a clock record excuses times, and nothing else. It counts only for the commits that it
//! names and whose tree it names. What it excuses is reported in `not_checked`, because it is the
//! word of the key's owner.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, Utc};
use strongroom_archive::delta::facts::CommitFacts;
use strongroom_archive::records::clock::{ClockRecord, Made, record_name};
use strongroom_archive::records::text::time_text;
use strongroom_schemas::VolumeId;
use strongroom_store::layout;
use strongroom_tlog::tree::CompactRange;

use super::retention::Found;
use super::{FindingKind, Report};

/// How much earlier than the previous commit's time the time of a commit may be. Two writers have
/// two clocks.
const CLOCK_BACK_MS_MAX: i64 = 600_000;

/// What a volume is called after: its year, or the year in which its year was begun by a wrong
/// clock; `None` if that is unknown.
type Floors = BTreeMap<i32, Option<i32>>;

pub(super) fn check(volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>, found: &Found, report: &mut Report) {
    let mut counting: BTreeMap<VolumeId, Vec<&ClockRecord>> = BTreeMap::new();
    let mut floors = Floors::new();
    for record in &found.clock.all {
        // The commits of a dropped volume are gone. Its drop record was checked with the records.
        if found.dropped.contains_key(&record.log) {
            continue;
        }
        let commits = volumes.get(&record.log).map_or(&[][..], Vec::as_slice);
        if let Some(why) = other_commits(record, commits) {
            let place = format!("{}/{}", layout::CLOCK, record_name(record.number));
            report.find(FindingKind::ClockRecord, place, why);
            continue;
        }
        report.not_checked.push(excuse(record));
        // The clock that made the first commit named the year of this and of every volume after it.
        if record.first == 0 {
            let year = record.log.period.year;
            let begun = match record.made {
                Made::Between { from, .. } => Some(from.year().min(year)),
                Made::Unknown => None,
            };
            floors.insert(year, begun);
        }
        counting.entry(record.log).or_default().push(record);
    }
    for (log, commits) in volumes {
        let records = counting.get(log).map_or(&[][..], Vec::as_slice);
        times(*log, commits, records, &floors, report);
    }
}

/// Returns why a record is not about these commits, if it is not.
fn other_commits(record: &ClockRecord, commits: &[CommitFacts]) -> Option<String> {
    let ClockRecord { log, last, root, .. } = record;
    let size = usize::try_from(*last).ok().and_then(|last| last.checked_add(1));
    let Some(named) = size.and_then(|size| commits.get(..size)) else {
        return Some(format!(
            "it is about commit {last} of {}, which has {} commits",
            log.name(),
            commits.len()
        ));
    };
    let mut range = CompactRange::default();
    range.extend(named.iter().map(|commit| commit.leaf));
    (range.root() != *root)
        .then(|| format!("it names another tree than the first {} commits have", named.len()))
}

fn excuse(record: &ClockRecord) -> String {
    let ClockRecord { log, first, last, made, reason, .. } = record;
    let made = match made {
        Made::Between { from, to } => {
            format!("they were made between {} and {}", time_text(*from), time_text(*to))
        }
        Made::Unknown => "it is unknown when they were made".to_owned(),
    };
    format!(
        "{}: the times of commits {first} to {last} are of a wrong clock; the owner of the key says that {made} ({reason})",
        log.name()
    )
}

/// Reports the commits whose times contradict the commits before them or the year of their volume.
fn times(
    log: VolumeId,
    commits: &[CommitFacts],
    records: &[&ClockRecord],
    floors: &Floors,
    report: &mut Report,
) {
    let floor = floors.get(&log.period.year).copied().unwrap_or(Some(log.period.year));
    let mut before = None;
    for (version, commit) in (0..).zip(commits) {
        let place = format!("{}/_delta_log/{version:020}.json", log.name());
        let excused = records.iter().rev().find(|record| (record.first..=record.last).contains(&version));
        // The latest time at which it may have been made, and the earliest.
        let (latest, earliest) = match excused.map(|record| record.made) {
            Some(Made::Unknown) => continue,
            Some(Made::Between { from, to }) => (to.timestamp_millis(), from.timestamp_millis()),
            None => match commit.time_ms {
                Some(time) => (time, time),
                None => continue,
            },
        };
        if let Some(before) = before.filter(|before| latest < before - CLOCK_BACK_MS_MAX) {
            let detail =
                format!("it was made {} s earlier than the commit before it", (before - latest) / 1000);
            report.find(FindingKind::ClockBack, &place, detail);
        }
        before = match excused {
            Some(_) => before.max(Some(earliest)),
            None => Some(earliest),
        };
        let year = DateTime::<Utc>::from_timestamp_millis(latest).map(|time| time.year());
        if floor.is_some_and(|floor| year.is_none_or(|year| year < floor)) {
            let detail = format!("it was made before the year {}", log.period.year);
            report.find(FindingKind::WrongYear, place, detail);
        }
    }
}
