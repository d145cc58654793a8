//! Checks that nothing is missing and nothing is stored twice. The positions in commits are
//! compared with the offsets and counts of the files that the commits name.

use std::collections::{BTreeMap, HashMap};

use strongroom_archive::delta::facts::CommitFacts;
use strongroom_schemas::{Table, VolumeId};

use super::{FindingKind, Report, volumes_of};

/// Suffix of the `appId` under which a partition's number of records is stated. The `appId` without
/// the suffix has its offset.
const RECORDS: &str = "#records";

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

pub(super) fn check(volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>, report: &mut Report) {
    let rejects = others(volumes, Table::Rejects, report);
    others(volumes, Table::Alerts, report);
    // Activity records have no rejects: every record is a row of the table.
    let own = truth(volumes, Table::Activity, &Ranges::new(), report).len();
    let events = truth(volumes, Table::Events, &rejects, report);
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
        let mut moves = commit.txns.iter().filter(|(app_id, _)| !app_id.contains('#'));
        let ahead = moves.find(|(partition, next)| **next > end(partition));
        if let Some((partition, _)) = ahead
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
    rejects: &Ranges,
    report: &mut Report,
) -> BTreeMap<String, Reached> {
    let mut reached: BTreeMap<String, Reached> = BTreeMap::new();
    let mut is_complete = true;
    for (log, commits) in volumes_of(volumes, table) {
        for (version, commit) in commits.iter().enumerate() {
            let place = format!("{}/_delta_log/{version:020}.json", log.name());
            is_complete &= commit.adds.iter().all(|add| add.offsets.is_some());
            let rows: u64 = commit.adds.iter().filter_map(|add| add.rows).sum();
            if let Some([received, events, rejects, duplicates]) = commit.counts
                && (received != events + rejects + duplicates || events != rows)
            {
                let detail = format!(
                    "received {received}, events {events}, rejects {rejects}, duplicates {duplicates}; but its files have \
                         {rows} rows"
                );
                report.find(FindingKind::Counts, place.as_str(), detail);
            }
            for (app_id, next_offset) in commit.txns.iter().filter(|(app_id, _)| !app_id.contains('#')) {
                let Some(records) = commit.txns.get(&format!("{app_id}{RECORDS}")) else {
                    report.find(
                        FindingKind::CommitMalformed,
                        place.as_str(),
                        format!("source {app_id}: its position has no number of records"),
                    );
                    continue;
                };
                // The offset of an activity record is its number.
                if table == Table::Activity && next_offset != records {
                    let kind =
                        if next_offset > records { FindingKind::RowsMissing } else { FindingKind::RowsExtra };
                    let detail =
                        format!("source {app_id}: it is at offset {next_offset} but has {records} records");
                    report.find(kind, place.as_str(), detail);
                }
                let before = reached.get(app_id).copied().unwrap_or_default();
                if *next_offset < before.next_offset || *records < before.records {
                    let detail = format!(
                        "source {app_id}: it was at offset {}, record {}, and moved to {next_offset}, {records}",
                        before.next_offset, before.records
                    );
                    report.find(FindingKind::PositionBack, place.as_str(), detail);
                }
            }
            check_files(commit, &place, &mut reached, report);
            if is_complete {
                check_sums(commit, &place, &reached, rejects, report);
            }
        }
    }
    if !is_complete {
        report
            .not_checked
            .push("that no record is missing, from the first file without offsets in its commit".to_owned());
    }
    reached
}

/// Checks that the rows of a commit are between the old and the new position of their partition.
/// Moves `reached` to the new positions.
fn check_files(
    commit: &CommitFacts,
    place: &str,
    reached: &mut BTreeMap<String, Reached>,
    report: &mut Report,
) {
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    for add in &commit.adds {
        for (partition, (first, last, count)) in add.offsets.iter().flatten() {
            let before = reached.get(partition).copied().unwrap_or_default();
            let next = commit.txns.get(partition).copied();
            if *first < before.next_offset || next.is_none_or(|next| *last >= next) {
                let next = next.map_or("no position".to_owned(), |next| next.to_string());
                let detail = format!(
                    "source {partition}: {} has offsets {first} to {last}, but the commit goes from {} to {next}",
                    add.path, before.next_offset
                );
                report.find(FindingKind::Overlap, place, detail);
            }
            *rows.entry(partition).or_insert(0) += count;
        }
    }
    for (partition, next_offset) in commit.txns.iter().filter(|(app_id, _)| !app_id.contains('#')) {
        let records = commit.txns.get(&format!("{partition}{RECORDS}")).copied().unwrap_or(0);
        let known = reached.entry(partition.clone()).or_default();
        known.events += rows.get(partition.as_str()).copied().unwrap_or(0);
        (known.next_offset, known.records) = (*next_offset, records);
    }
}

/// Checks, for each partition of a commit, that the number of records at its position equals the
/// number of rows and rejects before that position. This cannot be checked if the offsets of a file
/// of rejects are on both sides of the position.
fn check_sums(
    commit: &CommitFacts,
    place: &str,
    reached: &BTreeMap<String, Reached>,
    rejects: &Ranges,
    report: &mut Report,
) {
    for partition in commit.txns.keys().filter(|app_id| !app_id.contains('#')) {
        let Some(now) = reached.get(partition) else { continue };
        let ranges = rejects.get(partition).map_or(&[][..], Vec::as_slice);
        if ranges.iter().any(|(first, last, _)| *first < now.next_offset && *last >= now.next_offset) {
            continue;
        }
        let rejects: u64 =
            ranges.iter().filter(|(_, last, _)| *last < now.next_offset).map(|(.., rows)| rows).sum();
        let found = now.events + rejects;
        let kind = match found.cmp(&u64::try_from(now.records).unwrap_or(0)) {
            std::cmp::Ordering::Equal => continue,
            std::cmp::Ordering::Less => FindingKind::RowsMissing,
            std::cmp::Ordering::Greater => FindingKind::RowsExtra,
        };
        let detail = format!(
            "source {partition}: {} records are before offset {}, but its files have {} rows and {rejects} rejects",
            now.records, now.next_offset, now.events
        );
        report.find(kind, place, detail);
    }
}

/// Returns the ranges of the rows of a table that `truth` does not check. Checks that each range is
/// before the position of its partition, and that positions do not move back.
fn others(volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>, table: Table, report: &mut Report) -> Ranges {
    let (mut ranges, mut reached): (Ranges, HashMap<String, i64>) = Default::default();
    for (log, commits) in volumes_of(volumes, table) {
        for (version, commit) in commits.iter().enumerate() {
            let place = format!("{}/_delta_log/{version:020}.json", log.name());
            for (partition, next) in commit.txns.iter().filter(|(app_id, _)| !app_id.contains('#')) {
                let known = reached.entry(partition.clone()).or_insert(*next);
                if next < known {
                    let detail = format!("source {partition}: it was at offset {known} and moved to {next}");
                    report.find(FindingKind::PositionBack, place.as_str(), detail);
                }
                *known = *next;
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
