//! The driver of one run: turns chunks into alerts, and into batches that are sealed.
//!
//! Terms. Each chunk is decoded twice: once on arrival to raise alerts (*match*), and again,
//! together with other text, for the archive (*encode*). Text is *under way* from the moment a
//! source hands it over until it is encoded. Matched text waits in its *stream* until there is
//! enough of it for a block. The block is encoded into the *open epoch*, which gathers what the
//! next seal will carry. When it is time to seal, the epoch ends: the rest of all streams is
//! encoded into it, and then the sealer gets it as a *batch*.
//!
//! Invariants:
//! - Matches are handled in the order in which chunks were handed over, so a position covers a
//!   whole prefix of its stream, and an epoch has exactly the alerts of its rows.
//! - One epoch is open, at most one is ending, and at most one is at the sealer.
//! - Encoded text that is not sealed is bounded. At the bound nothing more is encoded, so text
//!   remains under way, and sources wait.
//! - Matching and encoding must count the same numbers of events and rejects for the same text, and
//!   a seal must store as many rows as were counted. If the numbers differ, an error is reported.
//!
//! A crash loses nothing, because sources can bring again everything that is not sealed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, unbounded};
use strongroom_alerts::{Detector, DetectorConfig, RuleSet};
use strongroom_archive::fingerprint::Fingerprint;
use strongroom_archive::{
    Archive, Counts, EncodedRowGroup, Position, SealReport, SourcePosition, WriterOptions,
};
use strongroom_ingest::redaction::RedactionCounts;
use strongroom_ingest::replay::{stored_alerts, warm_up};
use strongroom_ingest::seal::{Limits, SEAL_ALERTS_MAX, StoredRejects, seal_plan};
use strongroom_ingest::stored_alerts::{NewestIds, ShortId, StoredAlerts, short_id};
use strongroom_ingest::{FaultCounts, IngestError, PipelineThread};
use strongroom_lines::frame::{self, Edge};
use strongroom_lines::{Block, DialectCounts, Reason};
use strongroom_redact::Redactor;
use strongroom_schemas::{Alert, Table, error_chain};

use crate::feed::{Shared, SourceMessage};
use crate::sealer::{self, Order, SealBatch, Sealed, Sealer};
use crate::worker::{Answer, EncodeJob, Encoded, MatchJob, Matched, Worker};
use crate::{Chunk, Feed, Metrics, Source, StreamName};

/// Maximum size of the text of a stream that becomes one row group, in bytes.
pub const LIVE_BLOCK_BYTES: usize = 32 << 20;
/// Maximum size of the text under way, in bytes.
pub const TEXT_BYTES_MAX: u64 = 256 << 20;
/// Maximum number of messages of sources that wait for the driver.
const SOURCE_MESSAGES_MAX: usize = 1024;
/// Longest time that an orderly stop may take.
pub const DRAIN: Duration = Duration::from_secs(25);
/// How often the driver checks the time while nothing else happens.
const TICK: Duration = Duration::from_millis(100);
/// A detector stops waiting for late events after a silence of this length, in addition to the
/// lateness that its rules allow.
const SETTLE: Duration = Duration::from_secs(1);
/// Wait before a failed source is restarted; it doubles up to [`SOURCE_WAIT_MAX`].
const SOURCE_WAIT: Duration = Duration::from_secs(1);
const SOURCE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Alerts whose ids are remembered, so that a restarted pipeline does not report them again.
pub const REMEMBERED_ALERTS_MAX: usize = 200_000;
/// Maximum number of match jobs under way, per worker.
const MATCH_JOBS_PER_WORKER: usize = 16;

fn match_jobs_max(limits: &Limits) -> usize {
    MATCH_JOBS_PER_WORKER * limits.workers.max(1)
}

/// Settings of a driver.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    pub limits: Limits,
    /// Maximum size of the text under way, in bytes: this bounds the memory.
    pub text_bytes_max: u64,
    /// Longest time that an orderly stop may take. What is not sealed by then is read again later.
    pub drain: Duration,
    /// The redaction policy and its keys. `None`: everything is written as it was received.
    pub redactor: Option<Arc<Redactor>>,
    /// True if an operator has confirmed that this machine's clock is right. Evidence against the
    /// clock is then ignored.
    pub clock_is_right: bool,
}

impl Default for LiveOptions {
    fn default() -> Self {
        LiveOptions {
            limits: Limits::with_blocks_of(LIVE_BLOCK_BYTES),
            text_bytes_max: TEXT_BYTES_MAX,
            drain: DRAIN,
            redactor: None,
            clock_is_right: false,
        }
    }
}

/// Receives alerts and seals as they happen. Its methods must not block.
pub trait LiveObserver {
    /// A new alert. Its events may not be sealed yet; after a crash it may be reported again, with
    /// the same id.
    fn alert(&mut self, alert: &Alert);
    /// A seal is durable.
    fn sealed(&mut self, _report: &SealReport, _counts: &Counts) {}
    /// The conservation sum does not hold. `what` says what was counted and what was sealed.
    fn conservation_failed(&mut self, _what: &str) {}
    /// Called a few times a second.
    fn tick(&mut self, _metrics: &Metrics) {}
}

/// How a run has ended after it was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything that was handed over is sealed.
    Complete,
    /// The drain timed out; `unsealed` records will be read again.
    TimedOut { unsealed: u64 },
}

/// What a process remembers from one run to the next.
#[derive(Debug)]
pub struct Remembered {
    /// The alerts that this process has reported, or another one has sealed.
    raised: NewestIds,
}

impl Default for Remembered {
    fn default() -> Remembered {
        Remembered { raised: NewestIds::new(REMEMBERED_ALERTS_MAX) }
    }
}

impl Remembered {
    /// Remembers an alert, and returns whether it is reported for the first time.
    fn is_new(&mut self, alert_id: &str) -> bool {
        self.raised.insert(short_id(alert_id))
    }

    /// Remembers the alerts that another process has sealed: they are reported there.
    fn sealed_elsewhere(&mut self, ids: Vec<ShortId>) {
        for id in ids {
            self.raised.insert(id);
        }
    }
}

/// The rules to match with, which may be replaced while a pipeline runs. A chunk is matched once,
/// with the rules that were current when it arrived.
#[derive(Debug)]
pub struct LiveRules(Mutex<Arc<RuleSet>>);

impl LiveRules {
    pub fn new(rules: Arc<RuleSet>) -> LiveRules {
        LiveRules(Mutex::new(rules))
    }

    pub fn current(&self) -> Arc<RuleSet> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the rules, and returns the previous ones.
    pub fn replace(&self, rules: Arc<RuleSet>) -> Arc<RuleSet> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), rules)
    }
}

/// What all runs of a process share.
#[derive(Clone, Copy)]
pub struct Run<'r> {
    pub rules: &'r LiveRules,
    pub options: &'r LiveOptions,
    pub metrics: &'r Metrics,
    /// Set from outside to end the run in order: all text that was read is sealed.
    pub stop: &'r AtomicBool,
}

/// Runs `sources` into `archive` until `stop` is set, or until a failure that only a new run can
/// recover from.
///
/// # Errors
/// If the archive or a rule cannot be used, or another process has taken over a partition. What was
/// sealed remains in the archive; sources can bring everything else again.
pub fn run(
    archive: &Archive,
    run: &Run<'_>,
    sources: &mut [Box<dyn Source>],
    remembered: &mut Remembered,
    observer: &mut dyn LiveObserver,
) -> Result<Drained, IngestError> {
    let Run { rules, options, metrics, stop } = *run;
    let clock = WriterOptions { clock_is_right: options.clock_is_right, ..WriterOptions::default() };
    let writer = match sealer::open_writer(archive, &clock, stop) {
        Ok(writer) => writer,
        // No text was taken from a source yet.
        Err(_) if stop.load(Ordering::Relaxed) => return Ok(Drained::Complete),
        Err(error) => return Err(error.into()),
    };
    let first_rules = rules.current();
    let mut detector = Detector::new(Arc::clone(&first_rules), DetectorConfig::default());
    warm_up(archive, &first_rules, &mut detector)?;
    let stored_alerts = StoredAlerts::load(archive)?;
    let stored = Table::ALL.map(|table| (table, sealer::positions(&writer, table)));
    let stored: HashMap<Table, HashMap<String, Position>> = stored.into_iter().collect();
    let ahead = stored[&Table::Rejects].iter().filter(|(partition, rejects)| {
        let events = stored[&Table::Events].get(*partition);
        events.is_none_or(|events| events.next_offset < rejects.next_offset)
    });
    let ahead = ahead.map(|(partition, rejects)| (partition.clone(), *rejects)).collect();
    let shared =
        Shared::new(stored[&Table::Events].clone(), ahead, options.text_bytes_max, Some(archive.clone()));
    metrics.text_bytes_max.store(options.text_bytes_max, Ordering::Relaxed);
    let partitions = stored[&Table::Events].len();
    tracing::info!(archive = %archive.root().display(), partitions, "positions read from the archive");

    let workers = options.limits.workers.max(1);
    let give_up = Arc::new(AtomicBool::new(false));
    // There is room for all jobs under way; see `MATCH_JOBS_PER_WORKER`.
    let (match_sender, match_jobs) = bounded::<MatchJob>(match_jobs_max(&options.limits) + 1);
    #[expect(clippy::disallowed_methods, reason = "what they hold is text under way, which is bounded")]
    let ((encode_sender, encode_jobs), (answer_sender, answers)) =
        (unbounded::<EncodeJob>(), unbounded::<Answer>());
    let (message_sender, messages) = bounded::<SourceMessage>(SOURCE_MESSAGES_MAX);
    let (order_sender, orders) = bounded::<Order>(2);
    let (sealed_sender, sealed) = bounded::<Sealed>(2);

    let outcome = std::thread::scope(|scope| {
        for source in sources.iter_mut() {
            let feed = Feed {
                shared: Arc::clone(&shared),
                driver: message_sender.clone(),
                counters: metrics.source(source.name()),
                line_bytes_max: options.limits.line_bytes_max,
            };
            scope.spawn(move || keep_source(source.as_mut(), &feed));
        }
        drop(message_sender);
        let wide = Arc::new(Mutex::new(()));
        for _ in 0..workers {
            let (match_jobs, encode_jobs) = (match_jobs.clone(), encode_jobs.clone());
            let answers = answer_sender.clone();
            let worker =
                Worker::new(&first_rules, &options.limits, options.redactor.as_ref(), Arc::clone(&wide));
            scope.spawn(move || worker.run(&match_jobs, &encode_jobs, &answers));
        }
        drop((match_jobs, encode_jobs, answer_sender));
        let sealer = Sealer {
            archive,
            writer: Some(writer),
            stored_alerts,
            sealed_elsewhere: Vec::new(),
            options: clock,
            metrics,
            give_up: Arc::clone(&give_up),
        };
        scope.spawn(move || sealer.run(&orders, &sealed_sender));

        let driver = Driver {
            archive,
            options,
            metrics,
            remembered,
            observer,
            rules,
            shared: &shared,
            stored,
            detector,
            streams: HashMap::new(),
            text_bytes: 0,
            last_match: Instant::now(),
            queues: Queues { match_jobs: match_sender, encode_jobs: encode_sender, orders: order_sender },
            matching: Matching::default(),
            epochs: Epochs::default(),
            requests: Requests::default(),
        };
        metrics.set_trouble(None);
        metrics.running.store(true, Ordering::Relaxed);
        // However the driver ends, sources and sealer must end too, because the scope waits for
        // them.
        let ending = Ending { shared: &shared, give_up: &give_up, metrics };
        let outcome = driver.run(&messages, &answers, &sealed, stop);
        drop(ending);
        // A source that waits to send sees the closed channel.
        drop(messages);
        outcome
    });
    // Records that were not sealed are read again by the next run.
    let unsealed = metrics.unsealed.swap(0, Ordering::Relaxed);
    metrics.given_up.fetch_add(unsealed, Ordering::Relaxed);
    metrics.set_oldest(None);
    metrics.encoded_bytes.store(0, Ordering::Relaxed);
    metrics.text_bytes.store(0, Ordering::Relaxed);
    outcome
}

/// Signals that the run is over when it is dropped.
struct Ending<'e> {
    shared: &'e Shared,
    give_up: &'e AtomicBool,
    metrics: &'e Metrics,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.metrics.running.store(false, Ordering::Relaxed);
        self.shared.stop();
        self.give_up.store(true, Ordering::Relaxed);
    }
}

/// Restarts a source when it fails, for as long as the run lasts.
fn keep_source(source: &mut dyn Source, feed: &Feed) {
    let name = source.name().to_owned();
    let span = tracing::info_span!("source", name);
    let _entered = span.enter();
    let mut wait = SOURCE_WAIT;
    while !feed.is_stopping() {
        let begun = Instant::now();
        // A panic may leave the source's own state half changed. That does no harm, because a
        // source relies only on the positions of the archive.
        match catch_unwind(AssertUnwindSafe(|| source.run(feed))) {
            Ok(Ok(())) if feed.is_stopping() => return,
            Ok(Ok(())) => feed.trouble("the source ended without an error"),
            Ok(Err(error)) => feed.trouble(error_chain(&error)),
            Err(_) => feed.trouble("the source ended in a panic, which is a bug"),
        }
        if begun.elapsed() > SOURCE_WAIT_MAX {
            wait = SOURCE_WAIT;
        }
        let until = Instant::now() + wait;
        while Instant::now() < until && !feed.is_stopping() {
            std::thread::sleep(TICK);
        }
        wait = (wait * 2).min(SOURCE_WAIT_MAX);
    }
}

struct Stream {
    name: Arc<StreamName>,
    /// Position in `events` before the open epoch, or, while another epoch is ending, before the
    /// ending epoch.
    sealed: Option<Position>,
    /// Offset that the next chunk must have.
    expected: i64,
    /// The end of the last chunk that was matched and handled in order.
    reached: Option<Reached>,
    /// Blocks that are matched but not encoded. The last block grows as chunks arrive.
    waiting: Vec<Block>,
    /// The rejects of the stream that the table already has.
    stored: StoredRejects,
    /// Ids of the alerts that the archive has of this stream, if some of them may be raised again.
    alerts_stored: HashSet<String>,
}

#[derive(Clone, Copy)]
struct Reached {
    next_offset: i64,
    prefix: Fingerprint,
    broker_offset: Option<i64>,
}

/// An epoch: the rows, alerts and positions that one seal will carry.
#[derive(Default)]
struct SealEpoch {
    number: u64,
    row_groups: Vec<EncodedRowGroup>,
    bytes: u64,
    /// Encode jobs under way.
    jobs: u64,
    alerts: Vec<Alert>,
    duplicates: u64,
    /// Rows counted when their text was matched.
    matched: Tally,
    /// Rows counted when their text was encoded.
    encoded: Tally,
    /// Events that could not be redacted, and so became rejects when they were encoded.
    events_rejected: u64,
    redacted: RedactionCounts,
    /// Records encoded, by partition.
    records: HashMap<String, u64>,
    reasons: BTreeMap<String, u64>,
    dialects: DialectCounts,
    faults: FaultCounts,
    /// Arrival of the epoch's first record.
    since: Option<Instant>,
    /// For each stream of the epoch: its position before the epoch, and its end in the epoch. Set
    /// when the epoch ends.
    ends: Vec<(Arc<StreamName>, Option<Position>, Reached)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    events: u64,
    rejects: u64,
}

/// The epoch that is at the sealer.
struct PendingSeal {
    number: u64,
    counts: Counts,
    positions: Vec<(String, Position)>,
    reasons: BTreeMap<String, u64>,
    dialects: DialectCounts,
    faults: FaultCounts,
    redacted: RedactionCounts,
    rows: Tally,
    bytes: u64,
    since: Option<Instant>,
}

struct Driver<'d> {
    archive: &'d Archive,
    options: &'d LiveOptions,
    metrics: &'d Metrics,
    remembered: &'d mut Remembered,
    observer: &'d mut dyn LiveObserver,
    rules: &'d LiveRules,
    shared: &'d Arc<Shared>,
    /// Positions of each table when the run began, or when they were refreshed. Those of `events`
    /// also follow the seals.
    stored: HashMap<Table, HashMap<String, Position>>,
    detector: Detector,
    streams: HashMap<String, Stream>,
    text_bytes: u64,
    /// When the last match was handled.
    last_match: Instant,
    queues: Queues,
    matching: Matching,
    epochs: Epochs,
    requests: Requests,
}

/// The channels to the workers and to the sealer.
struct Queues {
    match_jobs: Sender<MatchJob>,
    encode_jobs: Sender<EncodeJob>,
    orders: Sender<Order>,
}

/// The state of the match jobs, whose results are handled in order.
#[derive(Default)]
struct Matching {
    next_sequence: u64,
    /// Matches handled, in order.
    handled: u64,
    /// Matches that were answered before their turn, by sequence.
    early: HashMap<u64, Result<Box<Matched>, IngestError>>,
}

impl Matching {
    fn under_way(&self) -> u64 {
        self.next_sequence - self.handled
    }
}

/// The epochs that are not sealed yet.
#[derive(Default)]
struct Epochs {
    open: SealEpoch,
    ending: Option<SealEpoch>,
    sealing: Option<PendingSeal>,
}

/// Requests of sources that are not answered yet.
#[derive(Default)]
struct Requests {
    seals: Vec<Request>,
    /// Partitions whose position is to be read again, with the channel that waits for it.
    refreshes: Vec<(Vec<String>, Sender<()>)>,
    is_refreshing: bool,
}

struct Request {
    /// The request covers all match jobs whose sequence is before this one.
    before: u64,
    /// The epoch that completes the request.
    epoch: Option<u64>,
    then: Then,
}

/// What happens when the request's epoch is sealed.
enum Then {
    Answer(Sender<()>),
    Refresh(Vec<String>, Sender<()>),
}

impl Driver<'_> {
    fn run(
        mut self,
        messages: &Receiver<SourceMessage>,
        answers: &Receiver<Answer>,
        sealed: &Receiver<Sealed>,
        stop: &AtomicBool,
    ) -> Result<Drained, IngestError> {
        let mut drain_until = None;
        let mut sources_ended = false;
        loop {
            let full = self.matching.under_way() >= match_jobs_max(&self.options.limits) as u64;
            let never_messages = never();
            // While match jobs arrive faster than workers answer, sources wait.
            let listen = if full || sources_ended { &never_messages } else { messages };
            select! {
                recv(answers) -> answer => self.handle_answer(answer.map_err(|_| ended(PipelineThread::Workers))?)?,
                recv(sealed) -> done => self.handle_sealed(done.map_err(|_| ended(PipelineThread::Sealer))?)?,
                recv(listen) -> message => match message {
                    Ok(message) => self.handle_message(message)?,
                    // All sources have ended, as they do when the run is over.
                    Err(_) => sources_ended = true,
                },
                recv(after(TICK)) -> _ => {}
            }
            let draining = drain_until.is_some();
            if !draining {
                self.settle();
            }
            self.make_room();
            self.end_epoch(draining && sources_ended);
            self.send_batch()?;
            self.answer_requests();
            self.measure();
            self.observer.tick(self.metrics);
            if !draining && stop.load(Ordering::Relaxed) {
                drain_until = Some(Instant::now() + self.options.drain);
                self.shared.stop();
            }
            let Some(until) = drain_until else { continue };
            if sources_ended && self.is_idle() {
                return Ok(Drained::Complete);
            }
            if Instant::now() >= until {
                return Ok(Drained::TimedOut { unsealed: self.metrics.unsealed.load(Ordering::Relaxed) });
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.matching.under_way() == 0
            && self.epochs.ending.is_none()
            && self.epochs.sealing.is_none()
            && !self.is_anything_unsealed()
    }

    fn is_anything_unsealed(&self) -> bool {
        self.epochs.open.since.is_some() || self.epochs.open.duplicates > 0
    }

    fn handle_message(&mut self, message: SourceMessage) -> Result<(), IngestError> {
        match message {
            SourceMessage::Chunk(chunk) => self.handle_chunk(chunk),
            SourceMessage::Duplicates(records) => {
                self.epochs.open.duplicates += records;
                self.metrics.received.fetch_add(records, Ordering::Relaxed);
                self.metrics.unsealed.fetch_add(records, Ordering::Relaxed);
                Ok(())
            }
            SourceMessage::Seal(done) => {
                let then = Then::Answer(done);
                self.requests.seals.push(Request { before: self.matching.next_sequence, epoch: None, then });
                Ok(())
            }
            SourceMessage::Refresh(partitions, done) => {
                // The positions are read only after everything that was handed over before the
                // request is sealed.
                let then = Then::Refresh(partitions, done);
                self.requests.seals.push(Request { before: self.matching.next_sequence, epoch: None, then });
                Ok(())
            }
        }
    }

    /// Sends a chunk to the workers.
    fn handle_chunk(&mut self, chunk: Chunk) -> Result<(), IngestError> {
        let (partition, may_encode) = (&chunk.stream.partition, self.may_encode());
        if !self.streams.contains_key(partition) {
            let stream = self.new_stream(&chunk.stream)?;
            self.streams.insert(partition.clone(), stream);
        }
        let stream = self.streams.get_mut(partition).expect("it was there or was just inserted");
        if chunk.block.offset != stream.expected {
            return Err(IngestError::ChunkGap {
                label: stream.name.label.clone(),
                expected: stream.expected,
                found: chunk.block.offset,
            });
        }
        stream.expected += i64::try_from(chunk.block.bytes.len()).unwrap_or(i64::MAX);
        // A file may continue a stream that began in another file. Logs show the stream under its
        // newest name.
        if stream.name.label != chunk.stream.label {
            stream.name = Arc::clone(&chunk.stream);
        }
        self.text_bytes += chunk.block.bytes.len() as u64;
        // A big chunk is worth its own row group, and decoding it twice is expensive.
        let big = chunk.block.bytes.len() >= self.options.limits.block_bytes_max / 2;
        let odd = chunk.block.begins != Edge::Line || chunk.block.ends != Edge::Line;
        let encode = ((big || odd) && may_encode).then(|| (self.epochs.open.number, stream.stored.clone()));
        if encode.is_some() {
            self.epochs.open.jobs += 1;
        }
        let job =
            MatchJob { sequence: self.matching.next_sequence, rules: self.rules.current(), chunk, encode };
        self.matching.next_sequence += 1;
        self.queues.match_jobs.send(job).map_err(|_| ended(PipelineThread::Workers))
    }

    /// Returns the state of a stream that this run has not met before, from the archive's
    /// positions.
    fn new_stream(&self, name: &Arc<StreamName>) -> Result<Stream, IngestError> {
        let of = |table: Table| self.stored[&table].get(&name.partition).copied();
        let (sealed, rejects, alerts) = (of(Table::Events), of(Table::Rejects), of(Table::Alerts));
        let from = |position: Option<Position>| position.map_or(i64::MIN, |position| position.next_offset);
        let alerts_stored = if from(alerts) > from(sealed) {
            stored_alerts(self.archive, &name.partition)?
        } else {
            HashSet::new()
        };
        Ok(Stream {
            name: Arc::clone(name),
            sealed,
            expected: sealed.map_or(0, |position| position.next_offset),
            reached: None,
            waiting: Vec::new(),
            stored: StoredRejects::of(self.archive, &name.partition, sealed, rejects)?,
            alerts_stored,
        })
    }

    fn handle_answer(&mut self, answer: Answer) -> Result<(), IngestError> {
        match answer {
            Answer::Matched { sequence, outcome } => {
                self.matching.early.insert(sequence, outcome);
                while let Some(outcome) = self.matching.early.remove(&self.matching.handled) {
                    self.matching.handled += 1;
                    self.handle_matched(outcome?)?;
                }
                Ok(())
            }
            Answer::Encoded { outcome } => {
                self.handle_encoded(outcome?);
                Ok(())
            }
        }
    }

    /// Reports an alert if it is new, and keeps it for the next seal.
    fn raise(&mut self, alert: Alert) {
        if self.remembered.is_new(&alert.alert_id) {
            self.metrics.alert(alert.severity);
            self.observer.alert(&alert);
        }
        let known = self.streams.get(&alert.event.source);
        if !known.is_some_and(|stream| stream.alerts_stored.contains(&alert.alert_id)) {
            self.epochs.open.alerts.push(alert);
        }
    }

    /// Judges the alerts that wait for late events, if nothing has arrived for the longest time by
    /// which an event may be late.
    fn settle(&mut self) {
        let patience = self.detector.rules().lateness_max() + SETTLE;
        if self.detector.is_waiting()
            && self.matching.under_way() == 0
            && self.last_match.elapsed() > patience
        {
            for alert in self.detector.settle() {
                self.epochs.open.since.get_or_insert_with(Instant::now);
                self.raise(alert);
            }
        }
    }

    /// Handles the next match in order.
    fn handle_matched(&mut self, matched: Box<Matched>) -> Result<(), IngestError> {
        let matched = *matched;
        let records = matched.events + matched.rejects;
        self.metrics.received.fetch_add(records, Ordering::Relaxed);
        self.metrics.unsealed.fetch_add(records, Ordering::Relaxed);
        self.last_match = Instant::now();
        for alert in self.detector.observe(matched.matches) {
            self.metrics.alert_seconds.observe(matched.arrived.elapsed());
            self.raise(alert);
        }
        self.epochs.open.since.get_or_insert(matched.arrived);
        let stream = self.streams.get_mut(&matched.stream.partition).expect("its chunk made it");
        let reached = Reached {
            next_offset: matched.next_offset,
            prefix: matched.prefix,
            broker_offset: matched.broker_offset,
        };
        stream.reached = Some(reached);
        if let Some(encoded) = matched.encoded {
            // The stream's waiting text comes before this text and is not encoded yet, so this text
            // belongs to the open epoch too. If an epoch has ended since the chunk came, the job
            // moves to the open one.
            self.epochs.open.matched.events += matched.events;
            self.epochs.open.matched.rejects += matched.rejects;
            if encoded.epoch != self.epochs.open.number {
                self.move_job(encoded.epoch);
            }
            let epoch = self.epochs.open.number;
            self.handle_encoded(Encoded { epoch, ..encoded });
            return Ok(());
        }
        self.epochs.open.matched.events += matched.events;
        self.epochs.open.matched.rejects += matched.rejects;
        let Some(block) = matched.block else { return Ok(()) };
        debug_assert_eq!(block.bytes.len() as u64, matched.bytes);
        match stream.waiting.last_mut() {
            Some(waiting)
                if !matches!(waiting.begins, Edge::Page(_))
                    && waiting.ends == Edge::Line
                    && block.begins == Edge::Line
                    && block.ends == Edge::Line
                    && waiting.bytes.last() == Some(&b'\n')
                    // A line in parts that ends one chunk is not joined to the next chunk here.
                    && frame::open_parts(&waiting.bytes, self.options.limits.line_bytes_max).is_none()
                    && waiting.bytes.len() + block.bytes.len() <= self.options.limits.block_bytes_max =>
            {
                waiting.bytes.extend_from_slice(&block.bytes);
            }
            _ => {
                let mut block = block;
                // A buffer has the size of the longest text that it could have held; the unused
                // part is freed.
                block.bytes.shrink_to_fit();
                stream.waiting.push(block);
            }
        }
        let bound = self.options.limits.block_bytes_max / 2;
        if stream.waiting.len() > 1 || stream.waiting.last().is_some_and(|block| block.bytes.len() >= bound) {
            self.encode_waiting(&matched.stream.partition);
        }
        Ok(())
    }

    /// Encodes the waiting text of a stream while there is room for more encoded text.
    fn encode_waiting(&mut self, partition: &str) {
        while self.may_encode() {
            let Some(stream) = self.streams.get_mut(partition) else { return };
            if stream.waiting.is_empty() {
                return;
            }
            let block = stream.waiting.remove(0);
            self.encode(partition, block);
        }
    }

    /// Moves a job that was counted in an earlier epoch to the open one.
    fn move_job(&mut self, from: u64) {
        if let Some(ending) = self.epochs.ending.as_mut().filter(|ending| ending.number == from) {
            ending.jobs -= 1;
            self.epochs.open.jobs += 1;
        }
    }

    fn handle_encoded(&mut self, encoded: Encoded) {
        let epoch = match &mut self.epochs.ending {
            Some(ending) if ending.number == encoded.epoch => ending,
            _ => &mut self.epochs.open,
        };
        let block = encoded.block;
        epoch.jobs = epoch.jobs.saturating_sub(1);
        epoch.bytes += block.row_groups.iter().map(EncodedRowGroup::bytes).sum::<u64>();
        epoch.row_groups.extend(block.row_groups);
        epoch.encoded.events += block.events;
        epoch.encoded.rejects += block.rejects;
        epoch.events_rejected += block.events_rejected;
        epoch.redacted.add(block.redacted);
        *epoch.records.entry(encoded.stream.partition.clone()).or_insert(0) += block.events + block.rejects;
        for (reason, count) in block.reasons {
            *epoch.reasons.entry(reason).or_insert(0) += count;
        }
        epoch.dialects.add_all(&block.dialects);
        epoch.faults.add_all(&block.faults);
        for (_, example) in block.examples {
            tracing::warn!(stream = %encoded.stream.label, reject = %example, "kept as a reject");
        }
        self.text_bytes = self.text_bytes.saturating_sub(encoded.bytes);
        self.shared.release(encoded.bytes);
    }

    /// Whether there is room for more encoded text that is not sealed.
    fn may_encode(&self) -> bool {
        self.epochs.open.bytes < 2 * self.options.limits.seal_bytes.max(1)
    }

    /// Encodes text into the open epoch.
    fn encode(&mut self, partition: &str, block: Block) {
        let stream = &self.streams[partition];
        let job = EncodeJob {
            epoch: self.epochs.open.number,
            stream: Arc::clone(&stream.name),
            block,
            stored: stream.stored.clone(),
        };
        self.epochs.open.jobs += 1;
        // Workers end after the driver, so a worker takes the job. If all workers are lost, the
        // driver notices when it waits for answers.
        let _ = self.queues.encode_jobs.send(job);
    }

    /// Many streams with little waiting text each can fill the memory together. Before they do, the
    /// waiting text of the stream that has most is encoded.
    fn make_room(&mut self) {
        if self.text_bytes <= self.options.text_bytes_max / 2 || self.epochs.open.jobs > 0 {
            return;
        }
        let waiting = self.streams.values().map(|stream| {
            let bytes: usize = stream.waiting.iter().map(|block| block.bytes.len()).sum();
            (bytes, stream.name.partition.as_str())
        });
        if let Some(partition) =
            waiting.max().filter(|(bytes, _)| *bytes > 0).map(|(_, name)| name.to_owned())
        {
            self.encode_waiting(&partition);
        }
    }

    /// Ends the open epoch when it is time.
    fn end_epoch(&mut self, draining: bool) {
        if self.epochs.ending.is_some() || self.epochs.sealing.is_some() || !self.is_anything_unsealed() {
            return;
        }
        let asked = self.requests.seals.iter().any(|request| {
            self.matching.handled >= request.before
                && request.epoch.is_none_or(|epoch| epoch == self.epochs.open.number)
        });
        let due = self.epochs.open.bytes >= self.options.limits.seal_bytes
            || self
                .epochs
                .open
                .since
                .is_some_and(|since| since.elapsed() >= self.options.limits.seal_interval)
            || self.epochs.open.alerts.len() >= SEAL_ALERTS_MAX
            || (draining && self.matching.under_way() == 0);
        if !asked && !due {
            return;
        }
        let partitions: Vec<String> = self.streams.keys().cloned().collect();
        for partition in partitions {
            let Some(stream) = self.streams.get_mut(&partition) else { continue };
            for block in std::mem::take(&mut stream.waiting) {
                self.encode(&partition, block);
            }
            let Some(stream) = self.streams.get_mut(&partition) else { continue };
            if let Some(reached) = stream.reached.take() {
                self.epochs.open.ends.push((Arc::clone(&stream.name), stream.sealed, reached));
            }
        }
        let next = SealEpoch { number: self.epochs.open.number + 1, ..SealEpoch::default() };
        self.epochs.ending = Some(std::mem::replace(&mut self.epochs.open, next));
    }

    /// Sends the ending epoch to the sealer when its last job is done.
    fn send_batch(&mut self) -> Result<(), IngestError> {
        if self.epochs.sealing.is_some() {
            return Ok(());
        }
        let Some(epoch) = self.epochs.ending.take_if(|epoch| epoch.jobs == 0) else {
            if !self.requests.refreshes.is_empty() && !self.requests.is_refreshing {
                self.requests.is_refreshing = true;
                self.queues.orders.send(Order::Refresh).map_err(|_| ended(PipelineThread::Sealer))?;
            }
            return Ok(());
        };
        let expected = Tally {
            events: epoch.matched.events.saturating_sub(epoch.events_rejected),
            rejects: epoch.matched.rejects + epoch.events_rejected,
        };
        if expected != epoch.encoded {
            let what = format!(
                "{} events and {} rejects were matched, but {} events and {} rejects were encoded; {} of these \
                 rejects are events that could not be redacted",
                epoch.matched.events,
                epoch.matched.rejects,
                epoch.encoded.events,
                epoch.encoded.rejects,
                epoch.events_rejected
            );
            self.conservation_failed(&what);
        }
        let mut moved = Vec::with_capacity(epoch.ends.len());
        for (name, previous, reached) in epoch.ends {
            let added = epoch.records.get(&name.partition).copied().unwrap_or(0);
            let position = Position {
                next_offset: reached.next_offset,
                records: previous.map_or(0, |position| position.records)
                    + i64::try_from(added).unwrap_or(i64::MAX),
                prefix_blake3: reached.prefix,
                broker_offset: reached.broker_offset,
            };
            if let Some(stream) = self.streams.get_mut(&name.partition) {
                stream.sealed = Some(position);
            }
            let (partition, label) = (name.partition.clone(), name.label.clone());
            moved.push(SourcePosition { partition, label, position, previous });
        }
        let positions = seal_plan(moved, &epoch.alerts, |partition| {
            let of_stream = self.streams.get(partition).and_then(|stream| stream.sealed);
            let stored = self.stored.get(&Table::Events).and_then(|stored| stored.get(partition).copied());
            Ok(of_stream.or(stored))
        })?;
        let row_groups = epoch.row_groups;
        let counts = Counts {
            received: epoch.encoded.events + epoch.encoded.rejects + epoch.duplicates,
            events: epoch.encoded.events,
            rejects: epoch.encoded.rejects,
            duplicates: epoch.duplicates,
        };
        self.epochs.sealing = Some(PendingSeal {
            number: epoch.number,
            counts,
            positions: positions.iter().map(|given| (given.partition.clone(), given.position)).collect(),
            reasons: epoch.reasons,
            dialects: epoch.dialects,
            faults: epoch.faults,
            redacted: epoch.redacted,
            rows: Tally {
                events: rows(&row_groups, Table::Events),
                rejects: rows(&row_groups, Table::Rejects),
            },
            bytes: epoch.bytes,
            since: epoch.since,
        });
        let batch = SealBatch { epoch: epoch.number, row_groups, alerts: epoch.alerts, positions, counts };
        self.queues.orders.send(Order::Seal(batch)).map_err(|_| ended(PipelineThread::Sealer))
    }

    fn conservation_failed(&mut self, what: &str) {
        tracing::error!(what, "the conservation sum does not hold");
        self.metrics.conservation_failures.fetch_add(1, Ordering::Relaxed);
        self.observer.conservation_failed(what);
    }

    fn handle_sealed(&mut self, done: Sealed) -> Result<(), IngestError> {
        let (epoch, outcome, took) = match done {
            Sealed::Batch { epoch, outcome, took, sealed_elsewhere } => {
                self.remembered.sealed_elsewhere(sealed_elsewhere);
                (epoch, outcome, took)
            }
            Sealed::Refreshed(positions) => {
                self.handle_refreshed(positions?);
                return Ok(());
            }
        };
        let sealing = self.epochs.sealing.take().filter(|sealing| sealing.number == epoch);
        let sealing = sealing.expect("the sealer answers what it was asked, once");
        let report = outcome?;
        let counts = sealing.counts;
        // The report is empty for an epoch without rows, and for one whose commit turned out to
        // exist already.
        let reported = |table: Table| -> u64 {
            report.files.iter().filter(|file| file.table == table).map(|file| file.rows).sum()
        };
        let has = |table: Table| report.commits.iter().any(|commit| commit.volume.table == table);
        let (events, rejects) = (reported(Table::Events), reported(Table::Rejects));
        if (has(Table::Events) && events != sealing.rows.events)
            || (has(Table::Rejects) && rejects != sealing.rows.rejects)
        {
            let Tally { events: of_events, rejects: of_rejects } = sealing.rows;
            let what = format!(
                "{of_events} events and {of_rejects} rejects were encoded, {events} and {rejects} were sealed"
            );
            self.conservation_failed(&what);
        }
        if sealing.rows.events != counts.events || sealing.rows.rejects > counts.rejects {
            let what = format!(
                "{} events and {} rejects were counted, {} and {} became rows",
                counts.events, counts.rejects, sealing.rows.events, sealing.rows.rejects
            );
            self.conservation_failed(&what);
        }
        let metrics = self.metrics;
        metrics.seal_seconds.observe(took);
        metrics.seals.fetch_add(1, Ordering::Relaxed);
        metrics.sealed_events.fetch_add(counts.events, Ordering::Relaxed);
        metrics.sealed_rejects.fetch_add(counts.rejects, Ordering::Relaxed);
        metrics.duplicates.fetch_add(counts.duplicates, Ordering::Relaxed);
        metrics.sealed_bytes.fetch_add(report.bytes, Ordering::Relaxed);
        metrics.sealed_files.fetch_add(report.files.len() as u64, Ordering::Relaxed);
        let before = metrics.unsealed.load(Ordering::Relaxed);
        metrics.unsealed.store(before.saturating_sub(counts.received), Ordering::Relaxed);
        for (reason, count) in &sealing.reasons {
            metrics.reject(reason, *count);
        }
        metrics.sealed_in(&sealing.dialects);
        metrics.faulty(&sealing.faults);
        if let Some((fault, _)) = sealing.faults.kinds().first() {
            let events = sealing.faults.events;
            tracing::warn!(events, most = %fault, "events were sealed with members that could not be read");
        }
        if let Some(events) = sealing.reasons.get(Reason::UntrustedOrigin.as_str()) {
            tracing::warn!(
                events,
                "kept audit events as rejects, because something beside them names a writer that is not \
                 known: if it is an API server, believe it with the key writers of the source"
            );
        }
        metrics.redacted(sealing.redacted);
        if !metrics.draw_up() {
            self.conservation_failed("received is not the sum of sealed, duplicates, given up and unsealed");
        }
        // The state of a stream at rest is dropped. It is read from the positions again if the
        // stream continues, which a rotated file never does.
        let stored = self.stored.entry(Table::Events).or_default();
        stored.extend(sealing.positions.iter().cloned());
        self.streams.retain(|partition, stream| {
            stream.reached.is_some()
                || !stream.waiting.is_empty()
                || stored.get(partition).is_none_or(|position| position.next_offset != stream.expected)
        });
        self.shared.seal(sealing.positions);
        for warning in &report.warnings {
            tracing::warn!(%warning, "sealed, with a warning");
        }
        tracing::info!(
            events = counts.events,
            rejects = counts.rejects,
            duplicates = counts.duplicates,
            files = report.files.len(),
            bytes = report.bytes,
            took_ms = took.as_millis() as u64,
            "sealed"
        );
        self.observer.sealed(&report, &counts);
        let done =
            self.requests.seals.extract_if(.., |request| request.epoch.is_some_and(|wanted| wanted <= epoch));
        for request in done.collect::<Vec<_>>() {
            self.complete_request(request.then);
        }
        Ok(())
    }

    fn complete_request(&mut self, then: Then) {
        match then {
            // The requester may have stopped waiting.
            Then::Answer(done) => _ = done.send(()),
            Then::Refresh(partitions, done) => self.requests.refreshes.push((partitions, done)),
        }
    }

    /// Attaches requests to the epoch that will complete them, and answers requests that need no
    /// epoch.
    fn answer_requests(&mut self) {
        let unsealed = self.is_anything_unsealed();
        let newest = self.epochs.sealing.as_ref().map(|sealing| sealing.number);
        let newest = self.epochs.ending.as_ref().map(|ending| ending.number).or(newest);
        let (handled, open) = (self.matching.handled, self.epochs.open.number);
        for request in self.requests.seals.iter_mut().filter(|request| handled >= request.before) {
            request.epoch = request.epoch.or(if unsealed { Some(open) } else { newest });
        }
        let done = self.requests.seals.extract_if(.., |r| handled >= r.before && r.epoch.is_none());
        for request in done.collect::<Vec<_>>() {
            self.complete_request(request.then);
        }
    }

    /// Adopts the new positions of the requested partitions. Their streams are set up again from
    /// these.
    fn handle_refreshed(&mut self, stored: HashMap<Table, HashMap<String, Position>>) {
        self.requests.is_refreshing = false;
        for (partitions, done) in std::mem::take(&mut self.requests.refreshes) {
            for partition in partitions {
                // If text of the partition was handed over since, it is under way. The stream's
                // state then stays as it is, and the run ends if the archive refuses the text.
                let at_rest = self.streams.get(&partition).is_none_or(|stream| {
                    let sealed = stream.sealed.map_or(0, |position| position.next_offset);
                    stream.reached.is_none() && stream.waiting.is_empty() && stream.expected == sealed
                });
                if !at_rest {
                    continue;
                }
                self.streams.remove(&partition);
                for (table, positions) in &mut self.stored {
                    match stored[table].get(&partition) {
                        Some(position) => _ = positions.insert(partition.clone(), *position),
                        None => _ = positions.remove(&partition),
                    }
                }
                let position = stored[&Table::Events].get(&partition).copied();
                self.shared.seal(position.map(|position| (partition, position)));
            }
            let _ = done.send(());
        }
    }

    fn measure(&self) {
        let metrics = self.metrics;
        metrics.draw_up();
        metrics.text_bytes.store(self.shared.under_way(), Ordering::Relaxed);
        let ending = self.epochs.ending.as_ref().map_or(0, |epoch| epoch.bytes);
        let sealing = self.epochs.sealing.as_ref().map_or(0, |sealing| sealing.bytes);
        metrics.encoded_bytes.store(self.epochs.open.bytes + ending + sealing, Ordering::Relaxed);
        let sealing = self.epochs.sealing.as_ref().and_then(|sealing| sealing.since);
        let ending = self.epochs.ending.as_ref().and_then(|epoch| epoch.since);
        metrics.set_oldest(sealing.or(ending).or(self.epochs.open.since));
    }
}

fn ended(thread: PipelineThread) -> IngestError {
    IngestError::ThreadEnded { thread }
}

fn rows(row_groups: &[EncodedRowGroup], table: Table) -> u64 {
    row_groups.iter().filter(|row_group| row_group.table() == table).map(EncodedRowGroup::rows).sum()
}
