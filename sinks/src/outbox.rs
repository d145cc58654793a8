//! The outbox: a log on disk from which every alert is sent to every sink, even if this process is
//! killed.
//!
//! Terms. The pipeline *hands over* an alert when it is raised, before its events are sealed. The
//! *writer*, a thread, makes these alerts durable in the [`super::log`]; the sinks read from there.
//! A *mark* is the commit of the archive up to which all alerts are in the log. The *catch-up* is a
//! thread that reads alerts from the archive.
//!
//! Why it is hard: the pipeline must not wait, so alerts pass through a bounded queue. A process
//! may be killed with alerts in the queue whose events were just sealed. The source never delivers
//! these events again, so the alerts are not raised again. The design that this forces:
//! - Each seal passes through the same queue. When the writer takes it from the queue, all alerts
//!   of that seal are durable in the log, so the mark moves to that seal. At every start the
//!   catch-up reads the alerts that the archive's table `alerts` has after the mark, and hands over
//!   each alert that the log does not have.
//! - An alert that finds the queue or the disk full *freezes* the mark. The catch-up then reads the
//!   archive after each of the next [`SEALS_UNTIL_SURE`] seals, because one of these seals has that
//!   alert.
//! - The log remembers the last [`KNOWN_IDS_MAX`] alert ids, across restarts, so a replay or the
//!   catch-up stores no alert twice.
//! - A log that is too large drops its oldest segments, not the newest alerts: a sink that is down
//!   for days must not keep new alerts from other sinks. A sink whose next alerts were dropped
//!   reads them from the archive.
//!
//! Crashes: at every point, all alerts up to the mark are in the log.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use strongroom_journal::{lock, now_ms};
use strongroom_schemas::{Alert, Severity};

use super::backoff::Backoff;
use super::group::Groups;
use super::log::{Entry, Log, Mark, OutboxError, Shared, short_id};

/// Default of [`OutboxOptions::bytes_max`].
pub const OUTBOX_BYTES_MAX_DEFAULT: u64 = 1 << 30;
/// Maximum number of alerts and seals that are handed over and not yet durable.
const QUEUE_MAX: usize = 10_000;
/// Maximum number of alerts that become durable with one sync.
const APPEND_MAX: usize = 1024;
/// Maximum number of alert ids that the outbox remembers; 32 bytes each in memory, 16 on disk.
pub const KNOWN_IDS_MAX: usize = 1 << 19;
/// Number of seals within which an alert that is raised now is sealed. At most two groups of events
/// wait for their seal while the next group grows, so three seals are enough for a pipeline that
/// keeps running. A restarted pipeline seals the waiting events first.
pub const SEALS_UNTIL_SURE: u32 = 8;
/// How often the writer checks for due summaries and for segments to delete.
const TICK: Duration = Duration::from_millis(250);
/// How long the catch-up waits before it tries again to read the archive.
const CATCH_UP_WAIT: Duration = Duration::from_secs(1);
const CATCH_UP_WAIT_MAX: Duration = Duration::from_secs(60);

/// Where the outbox is stored, and which alerts it takes.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    pub folder: PathBuf,
    /// Maximum size of the log. If it is larger, the oldest records are dropped.
    pub bytes_max: u64,
    /// Alerts of one rule and group within this time become one alert and a summary. Zero turns
    /// this off.
    pub group: Duration,
    /// Alerts of a lower severity are not sent.
    pub severity: Severity,
}

/// Why the archive cannot be read.
pub type HistoryError = Box<dyn std::error::Error + Send + Sync>;

/// Read access to the sealed alerts of an archive.
pub trait History: Send + Sync {
    /// Returns the mark after the newest sealed alert. For an archive that does not exist yet, this
    /// is the empty mark.
    ///
    /// # Errors
    /// When it cannot be read.
    fn end(&self) -> Result<Mark, HistoryError>;

    /// Passes the alerts sealed after `from` and up to `to` to `each`, always in the same order,
    /// until `each` returns `false`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn alerts(&self, from: &Mark, to: &Mark, each: &mut dyn FnMut(Alert) -> bool)
    -> Result<(), HistoryError>;
}

/// Counts of an outbox, for its metrics.
#[derive(Debug, Default)]
pub struct OutboxCounters {
    /// Alerts made durable.
    pub stored: AtomicU64,
    /// Alerts that were known already, and not stored again.
    pub known: AtomicU64,
    /// Alerts counted in a summary instead of sent.
    pub held: AtomicU64,
    /// Alerts that found the queue or the disk full. They are read from the archive later, but
    /// Strongroom's alerts about itself are not in the archive and are lost.
    pub missed: AtomicU64,
    /// Alerts that the catch-up found in the archive.
    pub caught_up: AtomicU64,
    /// Failed writes of the log.
    pub failures: AtomicU64,
    /// Records dropped before every sink had them.
    pub dropped: AtomicU64,
    /// Bytes of the log.
    pub bytes: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Alert(Box<Alert>),
    Sealed(Mark),
    /// The catch-up has handed over all alerts up to this mark.
    CaughtUp(Mark),
    Stop,
}

#[derive(Debug, Default)]
struct Flow {
    /// Number of seals until the mark may move again.
    frozen: AtomicU32,
    catching_up: AtomicBool,
    stop: AtomicBool,
}

/// An open outbox. If it is dropped without [`Outbox::finish`], its threads end by themselves
/// later.
pub struct Outbox {
    sender: Sender<Message>,
    flow: Arc<Flow>,
    catch_up_requests: Sender<()>,
    pub counters: Arc<OutboxCounters>,
    severity: Severity,
    threads: Vec<JoinHandle<()>>,
}

/// The parts of an outbox that sinks read.
#[derive(Clone)]
pub(super) struct Source {
    pub log: Arc<Shared>,
    pub folder: PathBuf,
    pub mark: Arc<Mutex<Option<Mark>>>,
    pub history: Arc<dyn History>,
}

/// Positions of the sinks: for each sink, the number of the first record that it may still need.
pub(super) type Positions = Arc<Vec<AtomicU64>>;

/// An outbox whose folder is read and locked, and whose threads are not started yet.
pub(super) struct Opened {
    log: Log,
    known: Known,
    groups: Groups,
    pub source: Source,
    options: OutboxOptions,
}

impl Opened {
    pub(super) fn open(options: OutboxOptions, history: Arc<dyn History>) -> Result<Opened, OutboxError> {
        let mut known = Known::default();
        let mut groups = Groups::new(options.group);
        let mut mark = None;
        let mut log =
            Log::open(&options.folder, options.bytes_max, &mut |id| _ = known.insert(id), &mut |record| {
                if let Entry::Mark(found) = &record.entry {
                    mark.get_or_insert_with(Mark::default).advance(found);
                }
                groups.replay(&record);
            })?;
        if mark.is_none() {
            // A new outbox sends no alert that is sealed already. So its first mark is the end of
            // the archive, before the first alert is handed over.
            match history.end() {
                Ok(end) => {
                    log.append(&[Entry::Mark(end.clone())], None)?;
                    mark = Some(end);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read where the archive's alerts end; trying again later")
                }
            }
        }
        let source = Source {
            log: Arc::clone(&log.shared),
            folder: options.folder.clone(),
            mark: Arc::new(Mutex::new(mark)),
            history,
        };
        Ok(Opened { log, known, groups, source, options })
    }

    /// Starts the writer and the catch-up.
    pub(super) fn start(self, positions: Positions) -> Result<Outbox, OutboxError> {
        let Opened { log, known, groups, source, options } = self;
        let (sender, queue) = bounded(QUEUE_MAX);
        let (catch_up_requests, requests) = bounded(1);
        let flow = Arc::new(Flow::default());
        let counters = Arc::new(OutboxCounters::default());
        let severity = options.severity;
        let writer = Writer {
            log,
            known,
            groups,
            mark: Arc::clone(&source.mark),
            options,
            positions,
            flow: Arc::clone(&flow),
            counters: Arc::clone(&counters),
            logged: None,
        };
        // At every start, catch up on the alerts that were sealed before the last process ended.
        flow.catching_up.store(true, Ordering::Relaxed);
        let _ = catch_up_requests.try_send(());
        let catch_up = CatchUp {
            sender: sender.clone(),
            flow: Arc::clone(&flow),
            counters: Arc::clone(&counters),
            source,
            severity,
        };
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            started.map_err(|source| OutboxError::Thread { name: name.to_owned(), source })
        };
        let threads = vec![
            thread("outbox", Box::new(move || writer.run(&queue)))?,
            thread("outbox-catch-up", Box::new(move || catch_up.run(&requests)))?,
        ];
        Ok(Outbox { sender, flow, catch_up_requests, counters, severity, threads })
    }
}

impl Outbox {
    /// Takes an alert; never waits. Alerts below the severity are skipped here, and known alerts
    /// are skipped by the writer. Returns `false` if the queue is full: the alert is read from the
    /// archive later.
    pub fn hand_over(&self, alert: &Alert) -> bool {
        if alert.severity < self.severity {
            return true;
        }
        match self.sender.try_send(Message::Alert(Box::new(alert.clone()))) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counters.missed.fetch_add(1, Ordering::Relaxed);
                self.flow.frozen.store(SEALS_UNTIL_SURE, Ordering::Relaxed);
                false
            }
        }
    }

    /// Takes note of a seal. All alerts of the seal must have been handed over before.
    pub fn sealed(&self, commits: &Mark) {
        let frozen = self.flow.frozen.load(Ordering::Relaxed);
        if frozen > 0 {
            self.flow.frozen.store(frozen - 1, Ordering::Relaxed);
            // If the channel is full, a catch-up is already requested.
            let _ = self.catch_up_requests.try_send(());
        } else if !commits.0.is_empty() {
            // If the queue is full, the mark stays where it is, and the next seal moves it.
            let _ = self.sender.try_send(Message::Sealed(commits.clone()));
        }
    }

    /// Makes all alerts handed over durable, and ends the threads.
    pub fn finish(mut self) {
        self.flow.stop.store(true, Ordering::Relaxed);
        let _ = self.sender.send(Message::Stop);
        drop((self.sender, self.catch_up_requests));
        for thread in self.threads.drain(..) {
            // The catch-up stores nothing and may be reading from the archive, so it is not waited
            // for.
            if thread.thread().name() == Some("outbox") {
                let _ = thread.join();
            }
        }
    }
}

/// The ids of the newest [`KNOWN_IDS_MAX`] alerts.
#[derive(Debug, Default)]
struct Known {
    ids: HashSet<u128>,
    order: VecDeque<u128>,
}

impl Known {
    fn insert(&mut self, id: u128) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > KNOWN_IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

struct Writer {
    log: Log,
    known: Known,
    groups: Groups,
    mark: Arc<Mutex<Option<Mark>>>,
    options: OutboxOptions,
    positions: Positions,
    flow: Arc<Flow>,
    counters: Arc<OutboxCounters>,
    /// The failure that was logged last, until a write succeeds.
    logged: Option<String>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>) {
        let mut trimmed = Instant::now();
        let mut ended = false;
        while !ended {
            let mut messages = Vec::new();
            match queue.recv_timeout(TICK) {
                Ok(message) => {
                    messages.push(message);
                    messages.extend(queue.try_iter().take(APPEND_MAX - 1));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => ended = true,
            }
            ended |= messages.iter().any(|message| matches!(message, Message::Stop));
            self.write(messages);
            if trimmed.elapsed() >= TICK {
                trimmed = Instant::now();
                self.trim();
            }
        }
    }

    fn write(&mut self, messages: Vec<Message>) {
        let mut entries = self.groups.due(now_ms());
        let mut mark = lock(&self.mark).clone();
        let before = mark.clone();
        let mut caught_up = false;
        for message in messages {
            match message {
                Message::Alert(alert) => {
                    if !self.known.insert(short_id(&alert.alert_id)) {
                        self.counters.known.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    entries.push(self.groups.take(alert, now_ms()));
                }
                Message::Sealed(commits) => {
                    // After a missed alert, and during a catch-up, only the catch-up knows up to
                    // which commit the log has all alerts.
                    let sure = self.flow.frozen.load(Ordering::Relaxed) == 0
                        && !self.flow.catching_up.load(Ordering::Relaxed);
                    if let Some(mark) = mark.as_mut().filter(|_| sure) {
                        mark.advance(&commits);
                    }
                }
                Message::CaughtUp(to) => {
                    caught_up = true;
                    if self.flow.frozen.load(Ordering::Relaxed) == 0 {
                        mark.get_or_insert_with(Mark::default).advance(&to);
                    }
                }
                Message::Stop => {}
            }
        }
        if mark != before
            && let Some(mark) = &mark
        {
            entries.push(Entry::Mark(mark.clone()));
        }
        if !entries.is_empty() && self.append(&entries) {
            *lock(&self.mark) = mark;
        }
        if caught_up {
            self.flow.catching_up.store(false, Ordering::Relaxed);
        }
    }

    /// Appends entries, and returns whether they are durable.
    fn append(&mut self, entries: &[Entry]) -> bool {
        let mark = lock(&self.mark).clone();
        let ids = entries.iter().filter_map(Entry::alert_id);
        match self.log.append(entries, mark.as_ref()) {
            Ok(first) => {
                self.groups.stored(entries, first);
                let held = entries.iter().filter(|entry| matches!(entry, Entry::Held { .. })).count();
                let alerts = ids.count() - held;
                self.counters.stored.fetch_add(alerts as u64, Ordering::Relaxed);
                self.counters.held.fetch_add(held as u64, Ordering::Relaxed);
                self.counters.bytes.store(self.log.shared.bytes(), Ordering::Relaxed);
                if self.logged.take().is_some() {
                    tracing::info!("the outbox is writable again");
                }
                true
            }
            Err(error) => {
                for id in ids.map(short_id) {
                    self.known.ids.remove(&id);
                }
                self.groups.not_stored(entries);
                self.flow.frozen.store(SEALS_UNTIL_SURE, Ordering::Relaxed);
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                self.counters.missed.fetch_add(entries.len() as u64, Ordering::Relaxed);
                self.log_failure(&error);
                false
            }
        }
    }

    fn trim(&mut self) {
        let end = self.log.shared.end();
        let needed = self.positions.iter().map(|position| position.load(Ordering::Relaxed)).min();
        let needed = needed.unwrap_or(end).min(self.groups.oldest().unwrap_or(end));
        let first = self.log.shared.first();
        match self.log.trim(needed, self.options.bytes_max, KNOWN_IDS_MAX) {
            Ok(Some(forced)) => {
                let records = forced - first.max(needed).min(forced);
                self.counters.dropped.fetch_add(records, Ordering::Relaxed);
                tracing::warn!(
                    records,
                    "the outbox is full and dropped records that a sink still needs; they are read from the archive"
                );
            }
            Ok(None) => {}
            Err(error) => self.log_failure(&error),
        }
        self.counters.bytes.store(self.log.shared.bytes(), Ordering::Relaxed);
    }

    fn log_failure(&mut self, error: &OutboxError) {
        let text = error.to_string();
        if self.logged.as_ref() != Some(&text) {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(
                error = %text,
                cause,
                "cannot write the outbox; alerts are read from the archive later"
            );
            self.logged = Some(text);
        }
    }
}

struct CatchUp {
    sender: Sender<Message>,
    flow: Arc<Flow>,
    counters: Arc<OutboxCounters>,
    source: Source,
    severity: Severity,
}

impl CatchUp {
    fn run(self, requests: &Receiver<()>) {
        let mut backoff = Backoff::new(CATCH_UP_WAIT, CATCH_UP_WAIT_MAX);
        while !self.flow.stop.load(Ordering::Relaxed) {
            match requests.recv_timeout(TICK) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.flow.catching_up.store(true, Ordering::Relaxed);
            while let Err(error) = self.once() {
                tracing::warn!(%error, "cannot read the archive's alerts for the outbox; trying again");
                let until = Instant::now() + backoff.wait();
                while Instant::now() < until {
                    if self.flow.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(TICK);
                }
                backoff.double();
            }
            backoff.reset();
        }
    }

    fn once(&self) -> Result<(), HistoryError> {
        let to = self.source.history.end()?;
        // Without a mark the outbox is new: it starts with the alerts that are sealed from now on.
        let from = lock(&self.source.mark).clone();
        if let Some(from) = from.filter(|from| *from != to) {
            let mut each = |alert: Alert| {
                if alert.severity >= self.severity {
                    self.counters.caught_up.fetch_add(1, Ordering::Relaxed);
                    return self.send(Message::Alert(Box::new(alert)));
                }
                !self.flow.stop.load(Ordering::Relaxed)
            };
            self.source.history.alerts(&from, &to, &mut each)?;
        }
        if !self.flow.stop.load(Ordering::Relaxed) {
            self.send(Message::CaughtUp(to));
        }
        Ok(())
    }

    /// Puts a message into the queue, and waits for room. Returns `false` if the outbox is closed.
    fn send(&self, mut message: Message) -> bool {
        loop {
            if self.flow.stop.load(Ordering::Relaxed) {
                return false;
            }
            match self.sender.send_timeout(message, TICK) {
                Ok(()) => return true,
                Err(crossbeam_channel::SendTimeoutError::Timeout(back)) => message = back,
                Err(crossbeam_channel::SendTimeoutError::Disconnected(_)) => return false,
            }
        }
    }
}
