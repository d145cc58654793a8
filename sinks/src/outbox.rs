//! The outbox: an alert that is in it is sent to every sink, whatever happens to this process.
//!
//! Terms. The pipeline *tells* an alert when it is raised, before its events are sealed. The *writer*, a thread,
//! makes what was told durable in the [`super::log`]; the sinks read from there. A *mark* says up to which commit
//! of the archive all alerts are in the log. The *catch-up* is a thread that reads from the archive.
//!
//! Why it is hard: nothing may hold back the pipeline, so what is told passes through a bounded queue, and a
//! process may be killed with alerts in it whose events are sealed a moment before; those never come again from
//! their source. The design that this forces:
//! - Each seal is told, too, through the same queue. When its turn comes, all alerts of that seal are durable in
//!   the log, so the mark moves there. At every start the catch-up reads what the archive's table `alerts` got
//!   behind the mark, and tells what the log does not know.
//! - An alert that found the queue full, or the disk, *freezes* the mark; the catch-up reads after each of the next
//!   [`SEALS_UNTIL_SURE`] seals, one of which has that alert.
//! - Ids are remembered ([`KNOWN_IDS_MAX`], across restarts), so that a replay, or the catch-up, tells nothing twice.
//! - Beyond its bound the log drops its oldest segments, not the newest alerts: a sink that is down for days must
//!   not keep alerts from the others. A sink that finds what it needs gone reads it from the archive.
//!
//! Crashes: between two statements of all this, the mark is behind what is in the log, never ahead of it.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use strongroom_schemas::{Alert, Severity};

use super::group::Groups;
use super::log::{Entry, Log, Mark, OutboxError, Shared, lock, now_ms, short_id};

/// Default of [`OutboxOptions::bytes_max`].
pub const OUTBOX_BYTES_MAX_DEFAULT: u64 = 1 << 30;
/// What is told and not yet durable.
const QUEUE_MAX: usize = 10_000;
/// Alerts that become durable with one sync.
const APPEND_MAX: usize = 1024;
/// Ids of alerts that are remembered; 32 bytes each in memory, 16 on disk.
pub const KNOWN_IDS_MAX: usize = 1 << 19;
/// After so many seals an alert that was raised before them is in one: at most two cuts are under way before the
/// one that is open, and a pipeline that begins again begins with them.
pub const SEALS_UNTIL_SURE: u32 = 8;
/// How often the writer looks for what is due or to be dropped.
const TICK: Duration = Duration::from_millis(250);
/// Waits of the catch-up for an archive that cannot be read.
const CATCH_UP_WAIT: Duration = Duration::from_secs(1);
const CATCH_UP_WAIT_MAX: Duration = Duration::from_secs(60);

/// Where the outbox is, and how it treats alerts.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    pub folder: PathBuf,
    /// Bytes of the log; beyond that the oldest records are dropped.
    pub bytes_max: u64,
    /// Alerts of one rule and group within so long become one, and a summary; zero for never.
    pub group: Duration,
    /// Alerts below are not sent.
    pub severity: Severity,
}

/// What went wrong when the archive was read.
pub type HistoryError = Box<dyn std::error::Error + Send + Sync>;

/// The alerts that are sealed; an archive, seen from here.
pub trait History: Send + Sync {
    /// Where its alerts end now.
    ///
    /// # Errors
    /// When it cannot be read. An archive that does not exist yet ends at its beginning.
    fn end(&self) -> Result<Mark, HistoryError>;

    /// Gives alerts that were sealed after `from` and up to `to`, always in the same order, until `each` says `false`.
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
    /// Alerts that were known, and not stored again.
    pub known: AtomicU64,
    /// Alerts counted in a group instead of sent.
    pub held: AtomicU64,
    /// Alerts that found no room and are read from the archive later; those of our own are lost.
    pub missed: AtomicU64,
    /// Alerts that the catch-up found in the archive.
    pub caught_up: AtomicU64,
    /// Times that the log could not be written.
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
    /// The catch-up has told everything up to here.
    CaughtUp(Mark),
    Stop,
}

#[derive(Debug, Default)]
struct Flow {
    /// Seals until the mark may move again.
    frozen: AtomicU32,
    catching_up: AtomicBool,
    stop: AtomicBool,
}

/// An open outbox. Dropping it without [`Outbox::finish`] leaves its threads to end by themselves.
pub struct Outbox {
    sender: Sender<Message>,
    flow: Arc<Flow>,
    wanted: Sender<()>,
    pub counters: Arc<OutboxCounters>,
    severity: Severity,
    threads: Vec<JoinHandle<()>>,
}

/// What sinks need of an outbox.
#[derive(Clone)]
pub(super) struct Source {
    pub log: Arc<Shared>,
    pub folder: PathBuf,
    pub mark: Arc<Mutex<Option<Mark>>>,
    pub history: Arc<dyn History>,
}

/// Positions of the sinks: the number of the first record that each may still need.
pub(super) type Positions = Arc<Vec<AtomicU64>>;

/// The folder, read and locked, before its threads run.
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
            // A new outbox begins where the archive ends before the first alert is told.
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
        let (wanted, wishes) = bounded(1);
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
            told: None,
        };
        // The first wish is everybody's: what was sealed before the last process ended.
        flow.catching_up.store(true, Ordering::Relaxed);
        let _ = wanted.try_send(());
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
            thread("outbox-catch-up", Box::new(move || catch_up.run(&wishes)))?,
        ];
        Ok(Outbox { sender, flow, wanted, counters, severity, threads })
    }
}

impl Outbox {
    /// Takes an alert on its way; never waits. Not stored are those below the severity, and those known already.
    /// `false` when there is no room: the archive has the alert, and it is read from there.
    pub fn tell(&self, alert: &Alert) -> bool {
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

    /// Takes note of a seal: all alerts in it were told before.
    pub fn sealed(&self, commits: &Mark) {
        let frozen = self.flow.frozen.load(Ordering::Relaxed);
        if frozen > 0 {
            self.flow.frozen.store(frozen - 1, Ordering::Relaxed);
            // Full means that it is wished for already.
            let _ = self.wanted.try_send(());
        } else if !commits.0.is_empty() {
            // Without room the mark stays where it is, and the next one moves it.
            let _ = self.sender.try_send(Message::Sealed(commits.clone()));
        }
    }

    /// Makes durable what was told, and ends the threads.
    pub fn finish(mut self) {
        self.flow.stop.store(true, Ordering::Relaxed);
        let _ = self.sender.send(Message::Stop);
        drop((self.sender, self.wanted));
        for thread in self.threads.drain(..) {
            // The catch-up may be in the middle of a read of the archive; it changes nothing.
            if thread.thread().name() == Some("outbox") {
                let _ = thread.join();
            }
        }
    }
}

/// Ids of alerts, the newest [`KNOWN_IDS_MAX`].
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
    /// What was said of a disk that fails.
    told: Option<String>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>) {
        let mut looked = Instant::now();
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
            if looked.elapsed() >= TICK {
                looked = Instant::now();
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
                    // While something was missed, or is looked for, only the catch-up knows how far all is told.
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

    /// Whether the entries are durable.
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
                if self.told.take().is_some() {
                    tracing::info!("the outbox can be written again");
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
                self.say(&error);
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
                    "the outbox is full: what a sink still needs is read from the archive"
                );
            }
            Ok(None) => {}
            Err(error) => self.say(&error),
        }
        self.counters.bytes.store(self.log.shared.bytes(), Ordering::Relaxed);
    }

    fn say(&mut self, error: &OutboxError) {
        let text = error.to_string();
        if self.told.as_ref() != Some(&text) {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(error = %text, cause, "the outbox fails; alerts are read from the archive later");
            self.told = Some(text);
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
    fn run(self, wishes: &Receiver<()>) {
        let mut wait = CATCH_UP_WAIT;
        while !self.flow.stop.load(Ordering::Relaxed) {
            match wishes.recv_timeout(TICK) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.flow.catching_up.store(true, Ordering::Relaxed);
            while let Err(error) = self.once() {
                tracing::warn!(%error, "cannot read the archive's alerts for the outbox; trying again");
                let until = Instant::now() + wait;
                while Instant::now() < until {
                    if self.flow.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(TICK);
                }
                wait = (wait * 2).min(CATCH_UP_WAIT_MAX);
            }
            wait = CATCH_UP_WAIT;
        }
    }

    fn once(&self) -> Result<(), HistoryError> {
        let to = self.source.history.end()?;
        // An outbox that is new begins with what is sealed from now on.
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

    /// Waits for room, but not longer than the outbox lives.
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
