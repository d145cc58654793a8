//! Checks the bytes and rows of data files against the statements of the commits.
//!
//! A file is read once, as a whole, and is hashed and decoded in memory. A thread holds one file at
//! a time.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow_array::Array as _;
use bytes::Bytes;
use chrono::{DateTime, Datelike as _, NaiveDate};
use serde_json::Value;
use strongroom_archive::activity_record::differences;
use strongroom_archive::delta::facts::{
    AddFacts, CommitFacts, STATISTICS_OFFSET, STATISTICS_SOURCE, micros, timestamp,
};
use strongroom_archive::encode::{EARLIEST_YEAR, hash_column};
use strongroom_archive::error::RowsError;
use strongroom_archive::sealed_rows::{SealedBatch, SealedRows};
use strongroom_archive::{Archive, Records};
use strongroom_parquet::{Fault, first_undecodable, quietly, row_group_bytes_max};
use strongroom_schemas::format::EVENTS_FORMAT;
use strongroom_schemas::record::{Sha256Hash as Hash, record_hash};
use strongroom_schemas::{Table, VolumeId};
use strongroom_store::layout;
use strongroom_store::s3_error::S3Error;
use strongroom_tlog::tree::CompactRange;

use super::{Checked, Finding, FindingKind, LINKED, Options, Report, Watch};

/// Maximum number of rows of one file that are named because their columns differ from their
/// records. All such rows are counted.
const ROWS_TOLD_MAX: usize = 10;
/// Number of rows that are decoded at once.
const BATCH_ROWS: usize = 8192;
/// Length of a time without a fraction and a zone.
const SECONDS_LENGTH: usize = 19;
const DAY_US: i64 = 86_400_000_000;
/// Days from the year 1 to the 1st of January 1970.
const EPOCH_DAYS: i64 = 719_163;
/// Maximum time between the arrival of rows and their commit.
const ARRIVAL_DAYS_MAX: i64 = 7;

/// A file to check.
struct Job<'a> {
    log: VolumeId,
    /// `events/2026/date=…/….parquet`
    place: String,
    path: PathBuf,
    add: &'a AddFacts,
    /// True if the time of its commit is so close to its date that rows without a plausible time
    /// may have arrived on that date.
    is_day_of_arrival: bool,
    /// True if its columns are compared with its records.
    is_compared: bool,
    /// The `eventsFormat` of its commit.
    format: u32,
}

/// The outcome of checking one file.
#[derive(Default)]
struct Outcome {
    findings: Vec<Finding>,
    checked: Checked,
}

impl Outcome {
    fn find(&mut self, kind: FindingKind, place: String, detail: impl Into<String>) {
        self.findings.push(Finding { kind, place, detail: detail.into() });
    }
}

pub(super) fn check(
    archive: &Archive,
    volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>,
    options: &Options,
    records: &dyn Records,
    watch: &dyn Watch,
    report: &mut Report,
) {
    let mut jobs = Vec::new();
    let (mut untagged, mut unrooted, mut newer) = (0u64, 0u64, 0u64);
    for (log, commits) in volumes {
        let since = options.since.iter().find(|head| head.log == *log).map_or(0, |head| head.size);
        let volume = archive.site().volume(*log);
        let new = commits.iter().skip(since as usize);
        for (commit, add) in new.flat_map(|commit| commit.adds.iter().map(move |add| (commit, add))) {
            let is_wanted = add.date.is_none_or(|date| {
                options.from.is_none_or(|from| from <= date) && options.to.is_none_or(|to| date <= to)
            });
            if is_wanted {
                untagged += u64::from(add.sha256.is_none());
                unrooted += u64::from(add.record_root.is_none());
                let place = format!("{}/{}", log.name(), add.path);
                let made =
                    commit.time_ms.and_then(DateTime::from_timestamp_millis).map(|time| time.date_naive());
                let days = made.zip(add.date).map(|(made, date)| (made - date).num_days());
                let is_day_of_arrival = days.is_none_or(|days| (-1..=ARRIVAL_DAYS_MAX).contains(&days));
                // Commits that name no format are older than format 2.
                let format = commit.events_format.unwrap_or(1).max(1);
                let format = u32::try_from(format).unwrap_or(u32::MAX);
                let is_newer = log.table == Table::Events && format > EVENTS_FORMAT;
                newer += u64::from(is_newer);
                let is_compared = log.table != Table::Rejects && !is_newer;
                let path = volume.join(&add.path);
                jobs.push(Job { log: *log, place, path, add, is_day_of_arrival, is_compared, format });
            }
        }
    }
    if untagged > 0 {
        report.not_checked.push(format!("the bytes of {untagged} files, which have no hash in their commit"));
    }
    if unrooted > 0 {
        report
            .not_checked
            .push(format!("the records of {unrooted} files, which have no record_root in their commit"));
    }
    if newer > 0 {
        report.not_checked.push(format!(
            "whether columns match their records in {newer} files of events, whose format is newer than {EVENTS_FORMAT}"
        ));
    }
    let total = jobs.iter().map(|job| job.add.size).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1).min(jobs.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { return };
                    // What the rows of a tampered file say is compared here too.
                    let outcome = quietly(|| check_file(archive, job, records)).unwrap_or_else(|| {
                        let mut outcome = Outcome::default();
                        let fault = Fault::Panicked.to_string();
                        outcome.find(FindingKind::Rows, job.place.clone(), fault);
                        outcome
                    });
                    let read = done.fetch_add(job.add.size, Ordering::Relaxed) + job.add.size;
                    watch.read(read, total);
                    outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.sort_by_key(|(at, _)| *at);
    for (_, outcome) in outcomes {
        for finding in outcome.findings {
            report.find(finding.kind, finding.place, finding.detail);
        }
        report.checked.files += outcome.checked.files;
        report.checked.bytes += outcome.checked.bytes;
        report.checked.records += outcome.checked.records;
        report.checked.redacted += outcome.checked.redacted;
    }
}

fn check_file(archive: &Archive, job: &Job<'_>, records: &dyn Records) -> Outcome {
    let mut outcome = Outcome::default();
    let contents = archive.contents_of(&job.path, job.add.size, job.add.version.as_deref());
    if archive.site().is_linked(&job.path) {
        outcome.find(FindingKind::FileMissing, job.place.clone(), LINKED);
        return outcome;
    }
    if let Some(path) = contents.local() {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                outcome.find(
                    FindingKind::FileMissing,
                    job.place.clone(),
                    "a commit names it, but it is missing",
                );
                return outcome;
            }
            Ok(found) if !found.is_file() => {
                outcome.find(FindingKind::FileMissing, job.place.clone(), "it is not a plain file");
                return outcome;
            }
            Ok(found) if found.len() != job.add.size => {
                let detail = format!("it has {} bytes, but its commit says {}", found.len(), job.add.size);
                outcome.find(FindingKind::FileSize, job.place.clone(), detail);
                return outcome;
            }
            _ => {}
        }
    }
    if job.add.size > layout::FILE_BYTES_MAX {
        let detail = format!("its commit says {} bytes, which is more than a file can have", job.add.size);
        outcome.find(FindingKind::FileSize, job.place.clone(), detail);
        return outcome;
    }
    let bytes = match contents.read_blocking(0..job.add.size) {
        Ok(bytes) => bytes,
        Err(error) => {
            let missing = S3Error::within(&error).is_some_and(|failure| failure.is_missing());
            let kind = if missing { FindingKind::FileMissing } else { FindingKind::FileUnreadable };
            outcome.find(kind, job.place.clone(), error.to_string());
            return outcome;
        }
    };
    outcome.checked.files = 1;
    outcome.checked.bytes = bytes.len() as u64;
    if let Some(sha256) = job.add.sha256
        && Hash::of(&bytes) != sha256
    {
        let (first, last) =
            first_undecodable(&bytes, row_group_bytes_max(job.log.table)).unwrap_or((0, bytes.len() as u64));
        let place = format!("{}, bytes {first}..{last}", job.place);
        outcome.find(FindingKind::FileChanged, place, "its SHA-256 differs from its commit");
        return outcome;
    }
    if let Err(detail) = rows(bytes, job, records, &mut outcome) {
        outcome.find(FindingKind::Rows, job.place.clone(), detail);
    }
    outcome
}

/// What the rows of a file show, in the form in which the file's commit states the same.
#[derive(Default)]
struct Seen {
    rows: u64,
    times: Option<(i64, i64)>,
    /// The least and the greatest, also of rows that have no source.
    offsets: Option<(i64, i64)>,
    sources: Option<(String, String)>,
    spans: BTreeMap<String, (i64, i64, u64)>,
    records: CompactRange,
    /// The first row whose time does not belong to the date of the file.
    misfiled: Option<u64>,
    redacted: u64,
    differing: Differing,
}

/// Rows whose columns do not match their records: the first of these rows, and their total number.
#[derive(Default)]
struct Differing {
    first: Vec<(u64, String)>,
    count: u64,
}

impl Differing {
    fn add(&mut self, row: u64, difference: &dyn Display) {
        self.count += 1;
        if self.first.len() < ROWS_TOLD_MAX {
            self.first.push((row, difference.to_string()));
        }
    }

    fn tell(&self, place: &str, outcome: &mut Outcome) {
        let more = match self.count > self.first.len() as u64 {
            true => format!("; such rows of the file: {}", self.count),
            false => String::new(),
        };
        for (row, difference) in &self.first {
            outcome.find(
                FindingKind::ColumnsDiffer,
                format!("{place}, row {row}"),
                format!("{difference}{more}"),
            );
        }
    }
}

fn rows(bytes: Bytes, job: &Job<'_>, records: &dyn Records, outcome: &mut Outcome) -> Result<(), String> {
    let mut batches =
        SealedRows::open(bytes, job.log.table, BATCH_ROWS).map_err(|error| error.to_string())?;
    let mut seen = Seen::default();
    let read = batches.try_for_each(|batch| {
        let before = seen.rows;
        let taken = batch.and_then(|batch| take(&batch, job, records, &mut seen));
        taken.map_err(|error| format!("row {before} or later: {error}"))
    });
    seen.differing.tell(&job.place, outcome);
    read?;
    outcome.checked.records += seen.rows;
    outcome.checked.redacted += seen.redacted;
    let (add, place) = (job.add, &job.place);
    // That a commit does not say it is a finding of its own.
    if let Some(said) = add.rows.filter(|rows| *rows != seen.rows) {
        outcome.find(
            FindingKind::Rows,
            place.clone(),
            format!("it has {} rows, but its commit says {said}", seen.rows),
        );
    }
    if let Some(root) = add.record_root
        && seen.records.root() != root
    {
        let place = format!("{place}, rows 0..{}", seen.rows);
        outcome.find(FindingKind::RecordChanged, place, "the root over its records differs from its commit");
    }
    if let Some(row) = seen.misfiled {
        outcome.find(
            FindingKind::Statistics,
            format!("{place}, row {row}"),
            "its time is not on the date of its file",
        );
    }
    if let Some(offsets) = &add.offsets
        && *offsets != seen.spans
    {
        let differs = |(name, span): &(&String, &(i64, i64, u64))| seen.spans.get(*name) != Some(*span);
        let name = offsets.iter().find(differs).map(|(name, _)| name);
        let name = name.or_else(|| seen.spans.keys().find(|name| !offsets.contains_key(*name)));
        let detail = format!(
            "source {}: the offsets of its rows differ from its commit",
            name.map_or("", |name| name)
        );
        outcome.find(FindingKind::Offsets, place.clone(), detail);
    }
    statistics(job, &seen, outcome);
    Ok(())
}

fn take(rows: &SealedBatch, job: &Job<'_>, records: &dyn Records, seen: &mut Seen) -> Result<(), RowsError> {
    let SealedBatch { table, batch } = rows;
    let wrong = |detail: String| RowsError::Records { detail };
    let Seen { rows: before, records: leaves, differing, .. } = seen;
    let marks = rows.marks()?;
    let mut differs = |row: usize, how: &dyn Display| differing.add(*before + row as u64, how);
    match rows.record_column()? {
        Some(array) => {
            leaves.extend(hash_column(array));
            if *table == Table::Activity {
                let compared = differences(batch, &mut |row, detail| differs(row, &detail));
                compared.map_err(|detail| wrong(detail.to_owned()))?;
            } else if job.is_compared {
                records.compare(*table, batch, job.format, &mut |_| (), &mut differs).map_err(wrong)?;
            }
        }
        None if job.is_compared => {
            let mut row = 0;
            let each = &mut |record: &[u8]| {
                leaves.push(record_hash(marks.of(row), record));
                row += 1;
            };
            records.compare(*table, batch, job.format, each, &mut differs).map_err(wrong)?;
        }
        None => {
            rows.each_record(records, &mut |row, record| leaves.push(record_hash(marks.of(row), record)))?
        }
    }
    seen.redacted += marks.count();
    let (times, offsets) = (rows.times()?, rows.offsets()?);
    // Most rows have the same source as the row before them. So the span of a run of rows is merged
    // into the map only when the source changes.
    let mut run: Option<(&str, (i64, i64, u64))> = None;
    for row in 0..batch.num_rows() {
        if times.is_valid(row) {
            let time = times.value(row);
            seen.times = Some(seen.times.map_or((time, time), |(low, high)| (low.min(time), high.max(time))));
            if seen.misfiled.is_none()
                && job.add.date.is_some_and(|date| is_misfiled(time, date, job.is_day_of_arrival))
            {
                seen.misfiled = Some(seen.rows + row as u64);
            }
        }
        if offsets.offset.is_valid(row) {
            let offset = offsets.offset.value(row);
            let (low, high) = seen.offsets.unwrap_or((offset, offset));
            seen.offsets = Some((low.min(offset), high.max(offset)));
        }
        let Some((source, offset)) = offsets.of(row) else {
            if offsets.source.is_valid(row) {
                widen(&mut seen.sources, offsets.source.value(row));
            }
            continue;
        };
        match &mut run {
            Some((name, span)) if *name == source => {
                *span = (span.0.min(offset), span.1.max(offset), span.2 + 1);
            }
            _ => {
                merge(&mut seen.spans, run.take());
                run = Some((source, (offset, offset, 1)));
            }
        }
    }
    merge(&mut seen.spans, run);
    for name in seen.spans.keys().next().into_iter().chain(seen.spans.keys().next_back()) {
        widen(&mut seen.sources, name);
    }
    seen.rows += batch.num_rows() as u64;
    Ok(())
}

fn widen(bounds: &mut Option<(String, String)>, name: &str) {
    match bounds {
        None => *bounds = Some((name.to_owned(), name.to_owned())),
        Some((low, _)) if name < low.as_str() => name.clone_into(low),
        Some((_, high)) if name > high.as_str() => name.clone_into(high),
        Some(_) => {}
    }
}

fn merge(spans: &mut BTreeMap<String, (i64, i64, u64)>, run: Option<(&str, (i64, i64, u64))>) {
    let Some((name, (first, last, rows))) = run else { return };
    match spans.get_mut(name) {
        Some(span) => *span = (span.0.min(first), span.1.max(last), span.2 + rows),
        None => _ = spans.insert(name.to_owned(), (first, last, rows)),
    }
}

/// Whether a row with this time does not belong in a file of `date`. A row without a plausible time
/// is filed under the date on which it arrived.
fn is_misfiled(time: i64, date: NaiveDate, is_day_of_arrival: bool) -> bool {
    let midnight = |day: NaiveDate| (i64::from(day.num_days_from_ce()) - EPOCH_DAYS) * DAY_US;
    let start = midnight(date);
    let early = NaiveDate::from_ymd_opt(EARLIEST_YEAR, 1, 1).map_or(0, midnight);
    let is_believable = time >= early && time <= start + DAY_US;
    time.div_euclid(DAY_US) != start.div_euclid(DAY_US) && (is_believable || !is_day_of_arrival)
}

/// Compares the least and the greatest time, offset and source of the rows with the statistics.
fn statistics(job: &Job<'_>, seen: &Seen, outcome: &mut Outcome) {
    let said = |name: &str| [job.add.least.get(name), job.add.greatest.get(name)];
    let mut differs = |what: &str| {
        let detail = format!("the {what} of its rows differ from its statistics");
        outcome.find(FindingKind::Statistics, job.place.clone(), detail);
    };
    let time = job.log.table.time_column();
    // The writer leaves out both times if statistics cannot express one.
    let expressed = |(low, high): &(i64, i64)| timestamp(*low).is_some() && timestamp(*high).is_some();
    if !same(said(time), ends(seen.times.filter(expressed)), |said, time| {
        said.as_str().is_some_and(|said| is_time(said, *time))
    }) {
        differs("times");
    }
    if !same(said(STATISTICS_OFFSET), ends(seen.offsets), |said, offset| said.as_i64() == Some(*offset)) {
        differs("offsets");
    }
    let is_name = |said: &Value, name: &String| said.as_str() == Some(name.as_str());
    if !same(said(STATISTICS_SOURCE), ends(seen.sources.clone()), is_name) {
        differs("sources");
    }
}

fn ends<T>(bounds: Option<(T, T)>) -> [Option<T>; 2] {
    bounds.map_or([None, None], |(low, high)| [Some(low), Some(high)])
}

/// Whether the two bounds in the statistics are those of the rows.
fn same<T>(said: [Option<&Value>; 2], bounds: [Option<T>; 2], is: impl Fn(&Value, &T) -> bool) -> bool {
    said.into_iter().zip(bounds).all(|(said, bound)| match (said.filter(|said| !said.is_null()), bound) {
        (None, None) => true,
        (Some(said), Some(bound)) => is(said, &bound),
        _ => false,
    })
}

/// Whether a text of statistics is this time: with at most six digits of a second, in UTC.
fn is_time(said: &str, time: i64) -> bool {
    let Some(text) = said.strip_suffix('Z') else { return false };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_fraction = (1..=6).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    is_fraction
        && seconds.len() == SECONDS_LENGTH
        && seconds.as_bytes().get(10) == Some(&b'T')
        && micros(said) == Some(time)
}

#[cfg(test)]
mod tests {
    use strongroom_archive::encode::record_column;

    use super::*;

    #[test]
    fn days_are_judged_as_the_writer_files_them() {
        let day = NaiveDate::from_ymd_opt(2026, 3, 2).expect("a day");
        let noon = 1_772_452_800_000_000;
        assert!(!is_misfiled(noon, day, true));
        assert!(is_misfiled(noon - DAY_US, day, true));
        assert!(is_misfiled(noon + DAY_US / 2, day, true), "midnight belongs to the next day");
        assert!(
            !is_misfiled(noon + 3 * DAY_US, day, true),
            "a time that is implausible on the day of arrival"
        );
        assert!(!is_misfiled(0, day, true), "a time before there was Kubernetes");
        assert!(
            is_misfiled(noon + 3 * DAY_US, day, false),
            "its time is implausible, and it did not arrive on that day"
        );
        assert_eq!(record_column(Table::Events), None);
    }
}
