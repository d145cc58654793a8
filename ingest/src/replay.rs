//! Runs rules over sealed events: to hunt, and to rebuild what a detector remembers after a
//! restart.
//!
//! Invariant: what is found is what the stream would have raised, under the same ids. The compiled
//! rules, the matcher and the detector are those of the stream, and events come stream by stream,
//! each in the order in which it arrived. So single events, and windows over one stream, are found
//! exactly. A window over several streams is found too, but the event that completes it may not be
//! the one that completed it when the streams arrived together.
//!
//! What is not read: files and row groups outside the period, and columns that no rule and no alert
//! needs. If the cheap columns of a row show that no rule can match it, its other columns, above
//! all the bodies, are not read either. This module is here and not with the queries because the
//! pipeline does the same at every start. A crash loses nothing, because [`store`] commits its
//! alerts at once.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray as _;
use arrow_schema::ArrowError;
use chrono::Utc;
use strongroom_alerts::{Detector, DetectorConfig, Hidden, Matcher, RuleSet};
use strongroom_archive::{Archive, Counts, EventSelection, FileEntry};
use strongroom_schemas::{Alert, Table, events};

use crate::error::IngestError;
use crate::seal::{encode_alerts, seal_plan};
use crate::stored_alerts::StoredAlerts;

/// Column of `alerts` that identifies an alert.
const ALERT_ID: &str = "alert_id";
/// Maximum number of events that are read at a start for rules that look back over days
/// (`first_seen`, `baseline`); the newest are read. A rule that looks back further sees fewer days
/// after the start.
pub const HISTORY_ROWS_MAX: u64 = 200_000_000;

/// The period to hunt through, in microseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Start of the period; `None` for the beginning.
    pub from_us: Option<i64>,
    /// End of the period, exclusive; `None` for the end.
    pub until_us: Option<i64>,
}

/// What a hunt has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hunted {
    /// Events that were read whole, including events before the span that windows needed.
    pub events_read: u64,
    /// Number of all events in the files that may have events of the span.
    pub events_in_files: u64,
    pub alerts: u64,
    /// The hunt was asked to stop before the end.
    pub interrupted: bool,
}

/// Runs `rules` over the events of `span` and hands over each finding whose last event is in it,
/// stream by stream. Events before the span are read if windows and histories need them.
///
/// # Errors
/// If the archive cannot be read.
pub fn hunt(
    archive: &Archive,
    rules: &Arc<RuleSet>,
    span: Span,
    stop: &AtomicBool,
    found: &mut dyn FnMut(Alert),
) -> Result<Hunted, IngestError> {
    let mut detector = Detector::new(Arc::clone(rules), DetectorConfig::default());
    let mut hunted = Hunted::default();
    let rebuild = i64::try_from(rules.rebuild_span().as_micros()).unwrap_or(i64::MAX);
    let since_us = span.from_us.map(|from| from.saturating_sub(rebuild));
    if let Some(since_us) = since_us {
        look_back(archive, rules, since_us, &mut detector)?;
    }
    let holds = |file: &&FileEntry| {
        since_us.is_none_or(|since| file.time_max_us.is_none_or(|latest| latest >= since))
            && span.until_us.is_none_or(|until| file.time_min_us.is_none_or(|earliest| earliest < until))
    };
    hunted.events_in_files =
        archive.snapshot(Table::Events)?.files.iter().filter(holds).map(|file| file.rows).sum();
    let in_span = |alert: &Alert| span.from_us.is_none_or(|from| alert.time_us >= from);
    let mut matcher = Matcher::new(Arc::clone(rules));
    let selection = selection(&matcher, since_us, span.until_us, !rules.needs_all_times());
    for batch in archive.select_events(selection)? {
        if stop.load(Ordering::Relaxed) {
            hunted.interrupted = true;
            return Ok(hunted);
        }
        let batch = batch?;
        hunted.events_read += batch.num_rows() as u64;
        for alert in detector.observe(matcher.match_batch(&batch)?).into_iter().filter(in_span) {
            hunted.alerts += 1;
            found(alert);
        }
    }
    for alert in detector.settle().into_iter().filter(in_span) {
        hunted.alerts += 1;
        found(alert);
    }
    Ok(hunted)
}

/// Counts what `rules` cannot see in the events of `span`, because it was redacted before it was
/// written. Only row groups with redacted events are read, and no bodies.
///
/// # Errors
/// If the archive cannot be read.
pub fn hidden(
    archive: &Archive,
    rules: &Arc<RuleSet>,
    span: Span,
    stop: &AtomicBool,
) -> Result<Hidden, IngestError> {
    let mut hidden = Hidden::new(rules);
    let mut matcher = Matcher::new(Arc::clone(rules));
    let always = [
        events::index::SOURCE,
        events::index::SOURCE_OFFSET,
        events::index::STAGE_TIMESTAMP,
        events::index::REDACTION,
    ];
    let columns: BTreeSet<usize> = matcher.cheap_columns().iter().copied().chain(always).collect();
    let selection = EventSelection {
        since_us: span.from_us,
        until_us: span.until_us,
        having: Some(events::REDACTION.to_owned()),
        columns: columns.into_iter().map(|at| events::COLUMNS[at].to_owned()).collect(),
        choose: None,
    };
    for batch in archive.select_events(selection)? {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        hidden.see(&mut matcher, &batch?)?;
    }
    Ok(hidden)
}

/// Adds findings to the table of alerts, except alerts that the table already has. Returns how many
/// were new, or `None` if another process writes to the archive.
///
/// # Errors
/// If the archive cannot be written.
pub fn store(archive: &Archive, alerts: Vec<Alert>) -> Result<Option<u64>, IngestError> {
    let Some(mut writer) = archive.try_writer(strongroom_archive::WriterOptions::default())? else {
        return Ok(None);
    };
    let new = StoredAlerts::all(archive)?.without_stored(alerts);
    if new.is_empty() {
        return Ok(Some(0));
    }
    let positions = seal_plan(Vec::new(), &new, |partition| writer.position(Table::Events, partition))?;
    for row_group in encode_alerts(&new)? {
        writer.append(row_group)?;
    }
    writer.seal(&positions, Counts::default())?;
    Ok(Some(new.len() as u64))
}

/// Returns the ids of the alerts that the archive has of a partition.
///
/// # Errors
/// If the archive cannot be read.
pub fn stored_alerts(archive: &Archive, partition: &str) -> Result<HashSet<String>, IngestError> {
    let mut ids = HashSet::new();
    for batch in archive.read_rows(Table::Alerts, partition)? {
        let batch = batch?;
        let column = batch.column_by_name(ALERT_ID).and_then(|column| column.as_string_opt::<i32>());
        let column = column.ok_or(IngestError::AlertIds)?;
        ids.extend(column.iter().flatten().map(str::to_owned));
    }
    Ok(ids)
}

/// Rebuilds what a detector remembers from the newest events in the archive. Their alerts were
/// raised when the events arrived.
///
/// # Errors
/// If the archive cannot be read, or the rules cannot be applied to a block.
pub fn warm_up(archive: &Archive, rules: &Arc<RuleSet>, detector: &mut Detector) -> Result<(), IngestError> {
    let window = i64::try_from(rules.rebuild_span().as_micros()).unwrap_or(i64::MAX);
    if window == 0 && rules.history_max().is_zero() {
        return Ok(());
    }
    let tomorrow = Utc::now().timestamp_micros().saturating_add(86_400_000_000);
    let snapshot = archive.snapshot(Table::Events)?;
    // A file with times in the future does not show where the log ends.
    let newest =
        snapshot.files.iter().filter_map(|file| file.time_max_us).filter(|time| *time < tomorrow).max();
    let Some(newest) = newest else { return Ok(()) };
    let since_us = newest.saturating_sub(window);
    look_back(archive, rules, since_us, detector)?;
    let mut matcher = Matcher::new(Arc::clone(rules));
    let selection = selection(&matcher, Some(since_us), None, !rules.needs_all_times());
    for batch in archive.select_events(selection)? {
        drop(detector.observe(matcher.match_batch(&batch?)?));
    }
    Ok(())
}

/// Feeds the days before `until_us` to the rules that look back over days.
fn look_back(
    archive: &Archive,
    rules: &Arc<RuleSet>,
    until_us: i64,
    detector: &mut Detector,
) -> Result<(), IngestError> {
    let history = i64::try_from(rules.history_max().as_micros()).unwrap_or(i64::MAX);
    if history == 0 {
        return Ok(());
    }
    let wanted_us = until_us.saturating_sub(history);
    let since_us = affordable(&archive.snapshot(Table::Events)?.files, wanted_us, until_us);
    if since_us > wanted_us {
        let days = (until_us - since_us) / 86_400_000_000;
        tracing::warn!(
            days,
            rows_max = HISTORY_ROWS_MAX,
            "rules that look back over days see fewer days, because there are too many events to read at the start"
        );
    }
    let mut matcher = Matcher::new(Arc::new(rules.history_part()));
    let selection = selection(&matcher, Some(since_us), Some(until_us), !rules.needs_all_times());
    for batch in archive.select_events(selection)? {
        drop(detector.observe(matcher.match_batch(&batch?)?));
    }
    Ok(())
}

/// Returns the earliest time, not before `wanted_us`, from which on the files up to `until_us` have
/// at most [`HISTORY_ROWS_MAX`] events.
fn affordable(files: &[FileEntry], wanted_us: i64, until_us: i64) -> i64 {
    let mut spans: Vec<(i64, u64)> = files
        .iter()
        .filter(|file| file.time_min_us.is_none_or(|earliest| earliest < until_us))
        .filter_map(|file| Some((file.time_max_us?, file.rows)))
        .filter(|(latest, _)| *latest >= wanted_us)
        .collect();
    spans.sort_unstable_by_key(|(latest, _)| std::cmp::Reverse(*latest));
    let mut rows = 0;
    for (latest_us, in_file) in spans {
        rows += in_file;
        if rows > HISTORY_ROWS_MAX {
            return latest_us.saturating_add(1).clamp(wanted_us, until_us);
        }
    }
    wanted_us
}

/// Selects the events of a period that a matcher reads, and the columns that it needs.
fn selection(
    matcher: &Matcher,
    since_us: Option<i64>,
    until_us: Option<i64>,
    may_choose: bool,
) -> EventSelection {
    let names = |columns: &[usize]| columns.iter().map(|at| events::COLUMNS[*at].to_owned()).collect();
    let mut cheap_matcher = Matcher::new(Arc::clone(matcher.rules()));
    let cheap: Vec<String> = names(cheap_matcher.cheap_columns());
    let choose = move |batch: &arrow_array::RecordBatch| {
        cheap_matcher.may_match(batch).map_err(|error| ArrowError::SchemaError(error.to_string()))
    };
    EventSelection {
        since_us,
        until_us,
        having: None,
        columns: names(matcher.columns()),
        choose: may_choose.then(|| (cheap, Arc::new(Mutex::new(choose)) as _)),
    }
}
