//! Checks that nothing is missing and nothing is stored twice. The positions in commits are
//! compared with the offsets and counts of the files that the commits name.

use std::collections::{BTreeMap, HashMap};

use strongroom_archive::delta::facts::{CLOSED, CommitFacts, STATISTICS_SOURCE};
use strongroom_schemas::{Table, VolumeId};

use super::{FindingKind, Report, volumes_of};

/// Suffixes of the `appId`s that say more of a partition, next to its offset. The first has its number
/// of records.
const RECORDS: &str = "#records";
const SUFFIXES: [&str; 4] = [RECORDS, "#broker", "#blake3.hi", "#blake3.lo"];

/// The position of a partition after a commit.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    next_offset: i64,
    records: i64,
    /// Rows of the checked table up to this position.
    events: u64,
}

/// For each partition, ranges of rows in the files of a table: first offset, last offset and number
/// of rows.
type Ranges = HashMap<String, Vec<(i64, i64, u64)>>;

/// A killed run may leave the alerts and rejects of one seal without the events of that seal. If
/// more commits than this lack their events, events were removed.
const COMMITS_AHEAD_MAX: usize = 1;
/// Commits that are younger than this are not counted, because their events may have been sealed
/// after this check read the commits of `events`.
const AHEAD_MS_MIN: i64 = 60 * 60 * 1000;

/// A position of a partition in a commit: its name, next offset and number of records.
type Move<'c> = (&'c str, i64, i64);

/// The moves of a commit. A position that is negative, or lacks its number of records, is a finding
/// and moves nothing.
fn moves<'c>(commit: &'c CommitFacts, place: &str, report: &mut Report) -> Vec<Move<'c>> {
    let mut moves = Vec::new();
    for (app_id, next) in commit.txns.iter().filter(|(app_id, _)| *app_id != CLOSED) {
        if let Some(partition) = SUFFIXES.iter().find_map(|suffix| app_id.strip_suffix(*suffix)) {
            if !commit.txns.contains_key(partition) {
                let detail = format!("{app_id}: the partition itself has no position");
                report.find(FindingKind::CommitMalformed, place, detail);
            }
            continue;
        }
        match commit.txns.get(&format!("{app_id}{RECORDS}")) {
            Some(records) if *next >= 0 && *records >= 0 => moves.push((app_id.as_str(), *next, *records)),
            _ => {
                let detail =
                    format!("source {app_id}: its position is negative, or has no number of records");
                report.find(FindingKind::CommitMalformed, place, detail);
            }
        }
    }
    moves
}

/// The partitions of which a file, whose commit does not say its offsets, may have rows: those from
/// one name to another. Their rows cannot be counted.
type Unknown = Vec<Option<(String, String)>>;

fn unknown(volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>, report: &mut Report) -> Unknown {
    let commits =
        volumes.iter().filter(|(log, _)| log.table != Table::Alerts).flat_map(|(_, commits)| commits);
    let adds = commits.flat_map(|commit| &commit.adds).filter(|add| add.offsets.is_none());
    let bound = |bounds: &serde_json::Map<String, serde_json::Value>| {
        bounds.get(STATISTICS_SOURCE).and_then(|name| name.as_str()).map(str::to_owned)
    };
    let mut ranges: Unknown = adds.map(|add| bound(&add.least).zip(bound(&add.greatest))).collect();
    ranges.sort_unstable();
    ranges.dedup();
    if !ranges.is_empty() {
        let detail = "that no record is missing, of sources with files whose offsets are not known";
        report.not_checked.push(detail.to_owned());
    }
    ranges
}

fn is_unknown(partition: &str, ranges: &Unknown) -> bool {
    let holds = |(low, high): &(String, String)| low.as_str() <= partition && partition <= high.as_str();
    ranges.iter().any(|range| range.as_ref().is_none_or(holds))
}

pub(super) fn check(volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>, report: &mut Report) {
    let unknown = unknown(volumes, report);
    let rejects = others(volumes, Table::Rejects, report);
    others(volumes, Table::Alerts, report);
    // Every activity record is a row of the table, so there are no rejects to add.
    let own = truth(volumes, Table::Activity, (&Ranges::new(), &unknown), report).len();
    let events = truth(volumes, Table::Events, (&rejects, &unknown), report);
    check_ahead(Table::Rejects, volumes, &events, report);
    check_ahead(Table::Alerts, volumes, &events, report);
    report.checked.partitions = (events.len() + own) as u64;
}

/// Checks that `events` is not far behind `table`. A seal commits rows of `table` before its
/// events.
fn check_ahead(
    table: Table,
    volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>,
    events: &BTreeMap<String, Reached>,
    report: &mut Report,
) {
    let newest_ms = report.time.timestamp_millis() - AHEAD_MS_MIN;
    let end = |partition: &str| events.get(partition).map_or(0, |reached| reached.next_offset);
    let (mut commits, mut first) = (0, None);
    for commit in volumes_of(volumes, table).flat_map(|(_, commits)| commits) {
        // What is wrong with the positions has been reported.
        let mut unheard = Report::new("", std::path::Path::new(""));
        let ahead = moves(commit, "", &mut unheard).into_iter().find(|(name, next, _)| *next > end(name));
        if let Some((partition, ..)) = ahead
            && commit.time_ms.is_some_and(|time| time < newest_ms)
        {
            commits += 1;
            first.get_or_insert(partition);
        }
    }
    let Some(partition) = first else { return };
    let detail = format!(
        "{commits} commits of {} are beyond the newest events; those of source {partition} end at offset {}",
        table.name(),
        end(partition)
    );
    if commits > COMMITS_AHEAD_MAX {
        report.find(FindingKind::CommitsCut, Table::Events.name(), detail);
    } else {
        report.not_checked.push(format!(
            "whether the newest events are missing: {detail}; a killed run leaves this until it runs again"
        ));
    }
}

/// Checks a table whose positions decide how far its sources have been stored. Returns its sources.
fn truth(
    volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>,
    table: Table,
    (rejects, unknown): (&Ranges, &Unknown),
    report: &mut Report,
) -> BTreeMap<String, Reached> {
    let mut reached: BTreeMap<String, Reached> = BTreeMap::new();
    for (log, commits) in volumes_of(volumes, table) {
        for (version, commit) in commits.iter().enumerate() {
            let place = format!("{}/_delta_log/{version:020}.json", log.name());
            if table == Table::Events {
                check_counts(commit, &place, report);
            }
            let moves = moves(commit, &place, report);
            for (partition, next_offset, records) in &moves {
                // The offset of an activity record is its number.
                if table == Table::Activity && next_offset != records {
                    let kind =
                        if next_offset > records { FindingKind::RowsMissing } else { FindingKind::RowsExtra };
                    let detail = format!(
                        "source {partition}: it is at offset {next_offset} but has {records} records"
                    );
                    report.find(kind, place.as_str(), detail);
                }
                let before = reached.get(*partition).copied().unwrap_or_default();
                if *next_offset < before.next_offset || *records < before.records {
                    let detail = format!(
                        "source {partition}: it was at offset {}, record {}, and moved to {next_offset}, {records}",
                        before.next_offset, before.records
                    );
                    report.find(FindingKind::PositionBack, place.as_str(), detail);
                }
            }
            check_files(commit, &moves, &place, &mut reached, report);
            let known = moves.iter().filter(|(partition, ..)| !is_unknown(partition, unknown));
            for (partition, ..) in known {
                check_sum(partition, &place, &reached, rejects, report);
            }
        }
    }
    reached
}

/// Checks the counts of a commit against its files. A commit that only creates its table has none.
fn check_counts(commit: &CommitFacts, place: &str, report: &mut Report) {
    // A dropped volume counts as one commit with one file, which has no date.
    let is_dropped = commit.adds.iter().any(|add| add.date.is_none());
    if is_dropped || (commit.adds.is_empty() && !commit.is_ours) {
        return;
    }
    let Some([received, events, rejects, duplicates]) = commit.counts else {
        report.find(FindingKind::Counts, place, "it does not count what was received");
        return;
    };
    let sum = |counts: &[u64]| counts.iter().map(|count| u128::from(*count)).sum::<u128>();
    let rows: Vec<u64> = commit.adds.iter().filter_map(|add| add.rows).collect();
    if u128::from(received) != sum(&[events, rejects, duplicates]) || u128::from(events) != sum(&rows) {
        let detail = format!(
            "received {received}, events {events}, rejects {rejects}, duplicates {duplicates}; but its files have {} rows",
            sum(&rows)
        );
        report.find(FindingKind::Counts, place, detail);
    }
}

/// Checks that the rows of a commit are between the old and the new position of their partition.
/// Moves `reached` to the new positions.
fn check_files(
    commit: &CommitFacts,
    moves: &[Move<'_>],
    place: &str,
    reached: &mut BTreeMap<String, Reached>,
    report: &mut Report,
) {
    let next: HashMap<&str, i64> = moves.iter().map(|(partition, next, _)| (*partition, *next)).collect();
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    for add in &commit.adds {
        for (partition, (first, last, count)) in add.offsets.iter().flatten() {
            let before = reached.get(partition).copied().unwrap_or_default();
            let next = next.get(partition.as_str()).copied();
            if *first < before.next_offset || next.is_none_or(|next| *last >= next) {
                let next = next.map_or("no position".to_owned(), |next| next.to_string());
                let detail = format!(
                    "source {partition}: {} has offsets {first} to {last}, but the commit goes from {} to {next}",
                    add.path, before.next_offset
                );
                report.find(FindingKind::Overlap, place, detail);
            }
            let sum = rows.entry(partition).or_insert(0);
            *sum = sum.saturating_add(*count);
        }
    }
    for (partition, count) in rows {
        let known = reached.entry(partition.to_owned()).or_default();
        known.events = known.events.saturating_add(count);
    }
    for (partition, next_offset, records) in moves {
        let known = reached.entry((*partition).to_owned()).or_default();
        (known.next_offset, known.records) = (*next_offset, *records);
    }
}

/// Checks, for a partition of a commit, that the number of records at its position equals the number
/// of rows and rejects before that position. This cannot be checked if the offsets of a file of
/// rejects are on both sides of the position.
fn check_sum(
    partition: &str,
    place: &str,
    reached: &BTreeMap<String, Reached>,
    rejects: &Ranges,
    report: &mut Report,
) {
    let Some(now) = reached.get(partition) else { return };
    let ranges = rejects.get(partition).map_or(&[][..], Vec::as_slice);
    if ranges.iter().any(|(first, last, _)| *first < now.next_offset && *last >= now.next_offset) {
        return;
    }
    let before = ranges.iter().filter(|(_, last, _)| *last < now.next_offset);
    let rejects = before.fold(0u64, |sum, (.., rows)| sum.saturating_add(*rows));
    let found = now.events.saturating_add(rejects);
    let kind = match found.cmp(&u64::try_from(now.records).unwrap_or(0)) {
        std::cmp::Ordering::Equal => return,
        std::cmp::Ordering::Less => FindingKind::RowsMissing,
        std::cmp::Ordering::Greater => FindingKind::RowsExtra,
    };
    let detail = format!(
        "source {partition}: {} records are before offset {}, but its files have {} rows and {rejects} rejects",
        now.records, now.next_offset, now.events
    );
    report.find(kind, place, detail);
}

/// Returns the ranges of the rows of a table that `truth` does not check. Checks that each range is
/// before the position of its partition, and that positions do not move back.
fn others(volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>, table: Table, report: &mut Report) -> Ranges {
    let (mut ranges, mut reached): (Ranges, HashMap<String, i64>) = Default::default();
    for (log, commits) in volumes_of(volumes, table) {
        for (version, commit) in commits.iter().enumerate() {
            let place = format!("{}/_delta_log/{version:020}.json", log.name());
            for (partition, next, _) in moves(commit, &place, report) {
                let known = reached.entry(partition.to_owned()).or_insert(next);
                if next < *known {
                    let detail = format!("source {partition}: it was at offset {known} and moved to {next}");
                    report.find(FindingKind::PositionBack, place.as_str(), detail);
                }
                *known = next;
            }
            for add in &commit.adds {
                for (partition, (first, last, rows)) in add.offsets.iter().flatten() {
                    if reached.get(partition).is_none_or(|next| last >= next) {
                        let detail = format!(
                            "source {partition}: {} reaches offset {last}, beyond its position",
                            add.path
                        );
                        report.find(FindingKind::Overlap, place.as_str(), detail);
                    }
                    let known = ranges.entry(partition.clone()).or_default();
                    known.push((*first, *last, *rows));
                }
            }
        }
    }
    ranges
}
