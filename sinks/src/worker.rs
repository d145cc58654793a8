//! The worker of one sink: a thread with a position in the outbox.
//!
//! Invariants:
//! - The position moves past an alert only when the sink has taken the alert or the alert is in the
//!   dead letters, so each alert arrives at least once. An alert that is sent again after a crash
//!   has the same id.
//! - A sink never holds up the outbox or another sink: a worker only reads the log.
//! - An alert that the sink will never take is written to the dead letters with the reason, and the
//!   worker continues with the next one. After a failure that is not the alert's fault (network,
//!   credentials, address, load), it waits and sends the alert again.
//! - The nominal wait doubles from [`RETRY_WAIT`] up to [`RETRY_WAIT_MAX`]. The actual wait is
//!   random, between half of the nominal wait and all of it. If a sink asks for a wait
//!   (Retry-After), that wait is used, up to [`RETRY_AFTER_MAX`].
//!
//! What is stored where: `<name>.position` is written after sends, at most a few times a second.
//! `<name>.dead.jsonl` has the dead letters, one JSON object per line. It is renamed to
//! `<name>.dead.1.jsonl` when it has [`DEAD_BYTES_MAX`].
//!
//! If the outbox had to drop alerts that the worker still needs, the worker reads them from the
//! archive. It reads from the last mark that it passed up to the third different mark that is left
//! in the log. All dropped alerts are sealed before that mark.
//!
//! Crashes: the stored position may be older than the last sends, so alerts may be sent again, but
//! none is skipped.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use strongroom_alerts::own;
use strongroom_journal::{JournalError, cannot_write, lock, now_ms, write_whole};
use strongroom_schemas::{Alert, Severity, ocsf};

use super::backoff::Backoff;
use super::log::{Cursor, Entry, Mark, OutboxError, Read, read_small};
use super::outbox::{Positions, Source};
use super::{Outcome, Sink};

/// First wait after a failure.
pub const RETRY_WAIT: Duration = Duration::from_millis(500);
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(300);
/// Longest wait that is used if a sink asks for a wait.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Maximum size of one file of dead letters, in bytes; there are at most two files.
pub const DEAD_BYTES_MAX: u64 = 64 << 20;
/// Time that a healthy sink has to take the remaining alerts when the process stops.
pub const SINK_FINISH: Duration = Duration::from_secs(5);
/// How often a position is written.
const POSITION_INTERVAL: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_millis(100);
const POSITION_BYTES_MAX: u64 = 1 << 20;
/// Everything in a gap is sealed once this many different marks follow the gap.
const MARKS_AFTER_GAP: usize = 3;

/// Counts of one sink, for its metrics.
#[derive(Debug, Default)]
pub struct SinkCounters {
    /// Alerts that the sink took.
    pub sent: AtomicU64,
    /// Attempts to send one alert that failed and are repeated.
    pub failures: AtomicU64,
    /// Alerts in the dead letters.
    pub dead: AtomicU64,
    /// Records of the outbox that the worker has yet to process.
    pub lag: AtomicU64,
    /// When the oldest waiting alert was stored, in milliseconds since 1970; 0 for none.
    pub oldest_ms: AtomicU64,
    /// When the sink last took an alert, in milliseconds since 1970; 0 for never.
    pub last_sent_ms: AtomicI64,
    trouble: Mutex<Option<String>>,
}

impl SinkCounters {
    /// Returns why the sink is not accepting alerts now, or `None` if it is.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }
}

/// How alerts are delivered to a sink.
#[derive(Clone, Debug)]
pub struct SinkOptions {
    /// Name of the sink in files, logs and metrics.
    pub name: String,
    /// Alerts of a lower severity are not sent.
    pub severity: Severity,
    /// A heartbeat is sent after this much time without an alert; zero for never.
    pub heartbeat: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// Number of the first record that may still be needed.
    next: u64,
    /// The last mark before that record.
    mark: Option<Mark>,
    /// The alerts to read from the archive.
    gap: Option<Gap>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Gap {
    from: Mark,
    to: Mark,
    /// Number of alerts in the gap that were sent or are in the dead letters.
    done: u64,
}

/// An alert to send.
struct Pending {
    number: u64,
    time_ms: u64,
    alert: Arc<Alert>,
}

pub(super) struct SinkWorker {
    pub options: SinkOptions,
    pub sink: Box<dyn Sink>,
    pub source: Source,
    pub counters: Arc<SinkCounters>,
    pub positions: Positions,
    pub index: usize,
    pub stop: Arc<AtomicBool>,
    position: Position,
    stored: Position,
    written: Instant,
    backoff: Backoff,
    stopping: Option<Instant>,
    /// The reason of the dead letter that was logged last.
    logged_reason: String,
}

/// The error of a worker that ends early because the process stops.
struct Stopped;

impl SinkWorker {
    /// Reads the sink's position. A new sink starts at the log's end.
    pub(super) fn new(
        options: SinkOptions,
        sink: Box<dyn Sink>,
        source: Source,
        positions: Positions,
        index: usize,
        stop: Arc<AtomicBool>,
    ) -> Result<SinkWorker, OutboxError> {
        let path = source.folder.join(format!("{}.position", options.name));
        let found = read_small(&path, POSITION_BYTES_MAX)?;
        let stored = found.map(|bytes| serde_json::from_slice::<Position>(&bytes));
        let fresh = stored.as_ref().is_none_or(Result::is_err);
        let position = match stored {
            Some(Ok(position)) => position,
            Some(Err(_)) => {
                // Some alerts are sent twice, under the same ids; none is skipped.
                tracing::error!(
                    file = %path.display(),
                    "the position is damaged; the sink starts again at the oldest alert"
                );
                Position { next: source.log.first(), mark: None, gap: None }
            }
            None => {
                let mark = lock(&source.mark).clone();
                Position { next: source.log.end(), mark, gap: None }
            }
        };
        // If the log was deleted, its numbers start again at 1, before the stored position.
        let next = position.next.min(source.log.end());
        let position = Position { next, ..position };
        if let Some(shared) = positions.get(index) {
            shared.store(next, Ordering::Relaxed);
        }
        let worker = SinkWorker {
            options,
            sink,
            source,
            counters: Arc::default(),
            positions,
            index,
            stop,
            stored: if fresh { Position::default() } else { position.clone() },
            position,
            written: Instant::now(),
            backoff: Backoff::new(RETRY_WAIT, RETRY_WAIT_MAX),
            stopping: None,
            logged_reason: String::new(),
        };
        if fresh {
            let bytes = serde_json::to_vec(&worker.position).expect("a position is JSON");
            write_whole(&path, &bytes)?;
        }
        Ok(worker)
    }

    pub(super) fn run(mut self) {
        let mut cursor = Cursor::at(self.position.next);
        let mut last_alert = Instant::now();
        loop {
            if self.position.gap.is_some() {
                if self.fill_gap().is_err() {
                    break;
                }
                cursor = Cursor::at(self.position.next);
            }
            let mark = self.position.mark.clone();
            let read = match self.source.log.read(&mut cursor, self.sink.batch_max().max(1)) {
                Ok(read) => read,
                Err(error) => {
                    if self.fail(&error.to_string(), None).is_err() {
                        break;
                    }
                    cursor = Cursor::at(self.position.next);
                    continue;
                }
            };
            let records = match read {
                Read::Gone(first) => {
                    self.find_gap(first, mark);
                    cursor = Cursor::at(self.position.next);
                    continue;
                }
                Read::Records(records) => records,
            };
            if records.is_empty() {
                self.counters.oldest_ms.store(0, Ordering::Relaxed);
                self.keep_position(true);
                // More alerts may have been stored after the read above. The outbox is closed
                // before `stop` is set, so the log's end is final here.
                if self.stop.load(Ordering::Acquire) {
                    if cursor.next >= self.source.log.end() {
                        break;
                    }
                    continue;
                }
                self.send_heartbeat(&mut last_alert);
                self.source.log.wait(cursor.next, TICK);
                continue;
            }
            let (mut pending, mut mark) = (VecDeque::new(), None);
            for record in records {
                match record.entry {
                    Entry::Alert(alert) | Entry::Summary { alert, .. } => {
                        if alert.severity >= self.options.severity || own::is_own(&alert.rule_id) {
                            let alert = Arc::from(alert);
                            pending.push_back(Pending {
                                number: record.number,
                                time_ms: record.time_ms,
                                alert,
                            });
                        }
                    }
                    Entry::Mark(passed) => mark = Some(passed),
                    Entry::Held { .. } => {}
                }
            }
            if !pending.is_empty() {
                last_alert = Instant::now();
            }
            let sent = self.deliver(pending, |position, first_left| {
                if let Some(number) = first_left {
                    position.next = number;
                }
            });
            if sent.is_err() {
                break;
            }
            self.position.next = cursor.next;
            if let Some(mark) = mark {
                self.position.mark = Some(mark);
            }
            self.keep_position(false);
        }
        self.sink.finish();
        self.keep_position(true);
    }

    /// Sends alerts until every one is taken or in the dead letters. After each attempt, calls
    /// `moved` with the number of the first alert left, if any.
    fn deliver(
        &mut self,
        mut pending: VecDeque<Pending>,
        moved: impl Fn(&mut Position, Option<u64>),
    ) -> Result<(), Stopped> {
        while let Some(first) = pending.front() {
            self.counters.oldest_ms.store(first.time_ms, Ordering::Relaxed);
            self.lag();
            if self.stopping().is_some_and(|since| since.elapsed() > SINK_FINISH) {
                return Err(Stopped);
            }
            let alerts: Vec<Arc<Alert>> = pending.iter().map(|one| Arc::clone(&one.alert)).collect();
            let mut outcomes = self.sink.send(&alerts).into_iter();
            let mut later: Option<(String, Option<Duration>)> = None;
            let mut left = VecDeque::new();
            let mut progress = false;
            for one in pending {
                let missing = || Outcome::later("the sink returned no outcome");
                match outcomes.next().unwrap_or_else(missing) {
                    Outcome::Taken => {
                        progress = true;
                        self.counters.sent.fetch_add(1, Ordering::Relaxed);
                        self.counters
                            .last_sent_ms
                            .store(i64::try_from(now_ms()).unwrap_or(0), Ordering::Relaxed);
                    }
                    Outcome::Refused { reason } => match self.write_dead_letter(&one.alert, &reason) {
                        Ok(()) => {
                            progress = true;
                            self.counters.dead.fetch_add(1, Ordering::Relaxed);
                            // Every refused alert is written to the dead letters, but a repeated
                            // reason is logged only once.
                            if self.logged_reason != reason {
                                let (sink, alert_id) = (&self.options.name, &one.alert.alert_id);
                                tracing::error!(
                                    sink,
                                    alert_id,
                                    reason,
                                    "the sink refused an alert; it is in the dead letters"
                                );
                                self.logged_reason = reason;
                            }
                        }
                        Err(error) => {
                            later.get_or_insert((error.to_string(), None));
                            left.push_back(one);
                        }
                    },
                    Outcome::Later { reason, after } => {
                        self.counters.failures.fetch_add(1, Ordering::Relaxed);
                        let asked = later.as_ref().and_then(|(_, asked)| *asked).max(after);
                        later = Some((later.map_or(reason, |(first, _)| first), asked));
                        left.push_back(one);
                    }
                }
            }
            pending = left;
            moved(&mut self.position, pending.front().map(|one| one.number));
            self.keep_position(false);
            if progress {
                self.backoff.reset();
            }
            match later {
                Some((reason, after)) => self.fail(&reason, after)?,
                None => self.recovered(),
            }
        }
        Ok(())
    }

    fn recovered(&mut self) {
        self.backoff.reset();
        if lock(&self.counters.trouble).take().is_some() {
            tracing::info!(sink = self.options.name, "sink is accepting alerts again");
        }
    }

    /// Records a failure and waits; returns early if the process stops.
    fn fail(&mut self, reason: &str, after: Option<Duration>) -> Result<(), Stopped> {
        {
            let mut trouble = lock(&self.counters.trouble);
            if trouble.as_deref() != Some(reason) {
                tracing::warn!(
                    sink = self.options.name,
                    reason,
                    "sink is not accepting alerts; they stay in the outbox"
                );
                *trouble = Some(reason.to_owned());
            }
        }
        let wait = match after {
            Some(asked) => asked.min(RETRY_AFTER_MAX),
            None => jittered(self.backoff.wait()),
        };
        self.backoff.double();
        self.keep_position(true);
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.stopping().is_some() {
                // The alerts stay in the outbox.
                return Err(Stopped);
            }
            self.lag();
            std::thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn stopping(&mut self) -> Option<Instant> {
        if self.stop.load(Ordering::Relaxed) {
            self.stopping.get_or_insert_with(Instant::now);
        }
        self.stopping
    }

    fn lag(&self) {
        let lag = self.source.log.end().saturating_sub(self.position.next);
        self.counters.lag.store(lag, Ordering::Relaxed);
    }

    fn keep_position(&mut self, now: bool) {
        self.lag();
        if self.stored == self.position || (!now && self.written.elapsed() < POSITION_INTERVAL) {
            return;
        }
        self.written = Instant::now();
        let path = self.path("position");
        let bytes = serde_json::to_vec(&self.position).expect("a position is JSON");
        match write_whole(&path, &bytes) {
            Ok(()) => {
                if let Some(shared) = self.positions.get(self.index) {
                    shared.store(self.position.next, Ordering::Relaxed);
                }
                self.stored = self.position.clone();
            }
            Err(error) => {
                tracing::warn!(sink = self.options.name, %error, "cannot write the sink's position");
            }
        }
    }

    fn path(&self, what: &str) -> PathBuf {
        self.source.folder.join(format!("{}.{what}", self.options.name))
    }

    /// Writes an alert to the dead letters.
    fn write_dead_letter(&self, alert: &Alert, reason: &str) -> Result<(), JournalError> {
        #[derive(Serialize)]
        struct DeadLetter<'a> {
            time: String,
            sink: &'a str,
            reason: &'a str,
            alert_id: &'a str,
            finding: ocsf::DetectionFinding<'a>,
        }
        let letter = DeadLetter {
            time: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            sink: &self.options.name,
            reason,
            alert_id: &alert.alert_id,
            finding: ocsf::detection_finding(alert),
        };
        let mut line = serde_json::to_vec(&letter).expect("a letter has text keys and finite numbers");
        line.push(b'\n');
        let path = self.path("dead.jsonl");
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= DEAD_BYTES_MAX) {
            std::fs::rename(&path, self.path("dead.1.jsonl")).map_err(cannot_write(&path))?;
        }
        let write = || {
            let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            file.write_all(&line)?;
            file.sync_all()
        };
        write().map_err(cannot_write(&path))
    }

    /// Sends a heartbeat if no alert was sent for the configured time.
    fn send_heartbeat(&mut self, last_alert: &mut Instant) {
        let bound = self.options.heartbeat;
        if bound.is_zero() || last_alert.elapsed() < bound {
            return;
        }
        let now = Utc::now().timestamp_micros();
        let since = now.saturating_sub(i64::try_from(last_alert.elapsed().as_micros()).unwrap_or(i64::MAX));
        *last_alert = Instant::now();
        let heartbeat = Arc::new(own::heartbeat(&self.options.name, since, now));
        match self.sink.send(&[heartbeat]).pop() {
            Some(Outcome::Taken) => {
                self.counters.last_sent_ms.store(now / 1000, Ordering::Relaxed);
                self.recovered();
            }
            Some(Outcome::Later { reason, .. } | Outcome::Refused { reason }) => {
                // A heartbeat that comes late is useless, so a failed one is not sent again.
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(sink = self.options.name, reason, "the sink did not take a heartbeat");
                *lock(&self.counters.trouble) = Some(reason);
            }
            None => {}
        }
    }

    /// Notes that the log dropped the records before `first`, and which alerts to read from the
    /// archive instead.
    fn find_gap(&mut self, first: u64, mark: Option<Mark>) {
        let missing = first.saturating_sub(self.position.next);
        self.position.next = first;
        let Some(from) = mark else {
            tracing::error!(
                sink = self.options.name,
                records = missing,
                "the outbox dropped alerts that the sink did not have yet; they are in the archive's table alerts"
            );
            return;
        };
        let mut to: Option<Mark> = None;
        let (mut marks, mut cursor) = (0, Cursor::at(first));
        while marks < MARKS_AFTER_GAP
            && let Ok(Read::Records(records)) = self.source.log.read(&mut cursor, 256)
            && !records.is_empty()
        {
            for record in records {
                if let Entry::Mark(found) = record.entry
                    && marks < MARKS_AFTER_GAP
                    && to.as_ref() != Some(&found)
                {
                    (marks, to) = (marks + 1, Some(found));
                }
            }
        }
        let to = to.or_else(|| lock(&self.source.mark).clone()).unwrap_or_default();
        tracing::warn!(
            sink = self.options.name,
            records = missing,
            "the outbox dropped alerts that the sink did not have yet; reading them from the archive"
        );
        self.position.gap = Some(Gap { from, to, done: 0 });
        self.keep_position(true);
    }

    /// Sends the alerts of the gap from the archive.
    fn fill_gap(&mut self) -> Result<(), Stopped> {
        let Some(gap) = self.position.gap.clone() else { return Ok(()) };
        let history = Arc::clone(&self.source.history);
        let batch_max = self.sink.batch_max().max(1);
        let severity = self.options.severity;
        let mut batch = VecDeque::new();
        let mut seen = 0;
        let mut stopped = false;
        let read = history.alerts(&gap.from, &gap.to, &mut |alert| {
            seen += 1;
            if seen > gap.done && alert.severity >= severity {
                batch.push_back(Pending { number: 0, time_ms: now_ms(), alert: Arc::new(alert) });
            }
            if batch.len() >= batch_max {
                stopped = self.deliver(std::mem::take(&mut batch), |_, _| {}).is_err();
                if let (false, Some(gap)) = (stopped, &mut self.position.gap) {
                    gap.done = seen;
                }
            }
            !stopped
        });
        if stopped {
            return Err(Stopped);
        }
        if let Err(error) = read {
            return self.fail(&format!("cannot read the archive's alerts: {error}"), None);
        }
        self.deliver(batch, |_, _| {})?;
        self.position.gap = None;
        self.position.mark = Some(gap.to);
        self.keep_position(true);
        Ok(())
    }
}

/// Returns a random time between half of `wait` and all of it.
fn jittered(wait: Duration) -> Duration {
    let random = getrandom::u64().unwrap_or(u64::MAX);
    let half = wait / 2;
    half + half.mul_f64(random as f64 / u64::MAX as f64)
}

/// The state of a sink according to its files, which another process may be writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkState {
    pub name: String,
    /// Number of the first record that may still be needed.
    pub next: u64,
    /// Number of records from `next` to the log's end.
    pub lag: u64,
    /// Bytes of dead letters.
    pub dead_bytes: u64,
    /// Whether the sink is reading alerts from the archive.
    pub in_gap: bool,
}

impl SinkState {
    pub(super) fn read(
        folder: &std::path::Path,
        name: &str,
        end: u64,
    ) -> Result<Option<SinkState>, OutboxError> {
        let found = read_small(&folder.join(format!("{name}.position")), POSITION_BYTES_MAX)?;
        let Some(position) = found.and_then(|bytes| serde_json::from_slice::<Position>(&bytes).ok()) else {
            return Ok(None);
        };
        let length = |what: &str| {
            std::fs::metadata(folder.join(format!("{name}.{what}"))).map_or(0, |metadata| metadata.len())
        };
        Ok(Some(SinkState {
            name: name.to_owned(),
            next: position.next,
            lag: end.saturating_sub(position.next),
            dead_bytes: length("dead.jsonl") + length("dead.1.jsonl"),
            in_gap: position.gap.is_some(),
        }))
    }
}
