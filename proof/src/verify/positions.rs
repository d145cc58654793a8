//! Checks that nothing is missing and nothing is stored twice. The positions in commits are
//! compared with the offsets and counts of the files that the commits name.

use std::collections::{BTreeMap, HashMap};

use strongroom_archive::delta::facts::CommitFacts;
use strongroom_schemas::{Table, VolumeId};

use super::{FindingKind, Report, volumes_of};

/// Suffix of the `appId` that has a partition's number of records, next to its offset.
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

/// For each partition, its positions after the commits of a table that moved it.
type Moves = BTreeMap<String, Vec<i64>>;

/// A killed run leaves alerts and rejects of one seal without their events. More commits than this
/// without their events mean that events are gone.
const COMMITS_AHEAD_MAX: usize = 1;

pub(super) fn check(volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>, report: &mut Report) {
    let (rejects, rejects_moves) = others(volumes, Table::Rejects, report);
    let (_, alerts_moves) = others(volumes, Table::Alerts, report);
    // Every activity record is a row of the table, so there are no rejects to add.
    let own = truth(volumes, Table::Activity, &Ranges::new(), report).len();
    let events = truth(volumes, Table::Events, &rejects, report);
    check_ahead(Table::Rejects, &rejects_moves, &events, report);
    check_ahead(Table::Alerts, &alerts_moves, &events, report);
    report.checked.partitions = (events.len() + own) as u64;
}

/// Checks that `events` are not far behind `table`, whose rows are committed before the events that
/// they belong to.
fn check_ahead(table: Table, moves: &Moves, events: &BTreeMap<String, Reached>, report: &mut Report) {
    let ahead = moves.iter().filter_map(|(partition, moves)| {
        let end = events.get(partition).map_or(0, |reached| reached.next_offset);
        let commits = moves.iter().filter(|next| **next > end).count();
        (commits > 0).then_some((commits, partition, end))
    });
    let (mut sources, mut furthest) = (0, (0, "", 0));
    for (commits, partition, end) in ahead {
        sources += 1;
        if commits > furthest.0 {
            furthest = (commits, partition, end);
        }
    }
    let (commits, partition, end) = furthest;
    if commits > COMMITS_AHEAD_MAX {
        let detail = format!(
            "source {partition}: {} has {commits} commits beyond offset {end}, where its events end; {sources} sources are so",
            table.name()
        );
        report.find(FindingKind::CommitsCut, Table::Events.name(), detail);
    } else if commits > 0 {
        report.not_checked.push(format!(
            "whether the newest events are missing: {} is one commit beyond the events of {sources} sources (first \
             {partition}, whose events end at offset {end}); a killed run leaves this until it runs again",
            table.name()
        ));
    }
}

/// Checks a table whose positions state how many records its sources had. Returns its sources.
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

/// Returns the ranges of the rows of a table that is not checked by `truth`, and its positions.
/// Checks that each range is before the position of its partition, and that positions do not move
/// back.
fn others(
    volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>,
    table: Table,
    report: &mut Report,
) -> (Ranges, Moves) {
    let (mut ranges, mut moves): (Ranges, Moves) = Default::default();
    for (log, commits) in volumes_of(volumes, table) {
        for (version, commit) in commits.iter().enumerate() {
            let place = format!("{}/_delta_log/{version:020}.json", log.name());
            for (partition, next) in commit.txns.iter().filter(|(app_id, _)| !app_id.contains('#')) {
                let known = moves.entry(partition.clone()).or_default();
                if let Some(known) = known.last().filter(|known| next < known) {
                    let detail = format!("source {partition}: it was at offset {known} and moved to {next}");
                    report.find(FindingKind::PositionBack, place.as_str(), detail);
                }
                known.push(*next);
            }
            for add in &commit.adds {
                for (partition, (first, last, rows)) in add.offsets.iter().flatten() {
                    let next = moves.get(partition).and_then(|moves| moves.last());
                    if next.is_none_or(|next| last >= next) {
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
    (ranges, moves)
}
