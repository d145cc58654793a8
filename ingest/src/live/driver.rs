//! The driver of one run: from chunks to alerts, and from chunks to bundles that are sealed.
//!
//! Terms. A *look* is the first decoding of a chunk, for its alerts. Text that was looked at waits in its
//! *stream* until there is a block of it, which is encoded into the *open cut*. A cut ends at a seal: then the
//! rest of all streams is encoded into it, and when the last of that is done, it is a *bundle* for the sealer.
//!
//! Invariants:
//! - Looks are handled in the order in which chunks were handed over, so a position covers a whole prefix
//!   of its stream, and the alerts of a cut are those of its rows.
//! - There is one cut that is open, at most one that is ending, and at most one at the sealer.
//! - What is encoded and not sealed is bounded: beyond that nothing more is encoded, so text stays under
//!   way, and sources wait.
//! - What a look counted and what was encoded of the same text are the same numbers, and so are rows sealed
//!   and rows counted. Where they are not, an error says so; nothing is assumed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, unbounded};
use strongroom_alerts::{Detector, DetectorConfig, RuleSet, alerts_batch};
use strongroom_archive::{Archive, Counts, EncodedRowGroup, Position, SealReport, SourcePosition, encode};
use strongroom_schemas::{Alert, Table};

use super::feed::{Shared, Told};
use super::sealer::{self, Bundle, Order, Sealed, Sealer, chain};
use super::worker::{Answer, Encode, Encoded, Look, Looked, Worker};
use super::{Chunk, Feed, Metrics, Source, StreamName};
use crate::decode::{DEPTH_MAX, LINE_BYTES_MAX};
use crate::error::IngestError;
use crate::frame::{Block, Edge};
use crate::hunt::warm_up;
use crate::pipeline::{SEAL_ALERTS_MAX, SEAL_BYTES, SEAL_INTERVAL, stored_alerts};

/// Text of a stream that becomes a row group.
pub const LIVE_BLOCK_BYTES: usize = 32 << 20;
/// Text under way.
pub const TEXT_BYTES_MAX: u64 = 256 << 20;
/// What sources may have told before the driver has listened.
const TOLD_MAX: usize = 1024;
/// Time that a stop may take.
pub const DRAIN: Duration = Duration::from_secs(25);
/// How often the driver looks at the time while nothing else happens.
const TICK: Duration = Duration::from_millis(100);
/// Silence beyond the lateness of its rules after which a detector waits for nothing more.
const SETTLE: Duration = Duration::from_secs(1);
/// Wait before a source that failed is started again; it doubles up to [`SOURCE_WAIT_MAX`].
const SOURCE_WAIT: Duration = Duration::from_secs(1);
const SOURCE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Alerts whose ids are remembered, so that a pipeline that begins again does not tell them again.
pub const TOLD_ALERTS_MAX: usize = 200_000;
/// Looks under way, for each worker.
const LOOKS_PER_WORKER: usize = 16;

fn looks_max(options: &LiveOptions) -> usize {
    LOOKS_PER_WORKER * options.workers.max(1)
}

/// How a driver works.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Threads that decode, match and encode. Default: the cores.
    pub workers: usize,
    /// Text of a stream that becomes one row group, in bytes.
    pub block_bytes_max: usize,
    pub line_bytes_max: usize,
    pub depth_max: usize,
    /// Text under way, in bytes: what bounds the memory.
    pub text_bytes_max: u64,
    /// Parquet bytes that cause a seal.
    pub seal_bytes: u64,
    /// Age of unsealed records that causes a seal.
    pub seal_interval: Duration,
    /// Time that a stop may take: what is not sealed by then stays at its source.
    pub drain: Duration,
}

impl Default for LiveOptions {
    fn default() -> Self {
        LiveOptions {
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            block_bytes_max: LIVE_BLOCK_BYTES,
            line_bytes_max: LINE_BYTES_MAX,
            depth_max: DEPTH_MAX,
            text_bytes_max: TEXT_BYTES_MAX,
            seal_bytes: SEAL_BYTES,
            seal_interval: SEAL_INTERVAL,
            drain: DRAIN,
        }
    }
}

/// Told what happens while it happens; must not wait for anything.
pub trait LiveObserver {
    /// A new alert. Its events may not be sealed yet; after a crash it may be told again, with the same id.
    fn alert(&mut self, alert: &Alert);
    /// A seal is durable.
    fn sealed(&mut self, _report: &SealReport, _counts: &Counts) {}
    /// A sum does not hold: what was counted and what was sealed, in words.
    fn conservation_failed(&mut self, _what: &str) {}
    /// Told a few times a second.
    fn tick(&mut self, _metrics: &Metrics) {}
}

/// How a run ended that was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything that was handed over is sealed.
    Whole,
    /// The time was up: so many records were not sealed, and come again.
    Short { unsealed: u64 },
}

/// What is remembered from one run to the next, of the same process.
#[derive(Debug, Default)]
pub struct Remembered {
    told: HashSet<String>,
    order: VecDeque<String>,
}

impl Remembered {
    /// Whether an alert is told for the first time.
    fn is_new(&mut self, alert_id: &str) -> bool {
        if !self.told.insert(alert_id.to_owned()) {
            return false;
        }
        self.order.push_back(alert_id.to_owned());
        if self.order.len() > TOLD_ALERTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
        true
    }
}

/// The rules that text is looked at with from now on, which may be replaced while a pipeline runs. A chunk is
/// looked at with those that were here when it came, so each is looked at once and with one set.
#[derive(Debug)]
pub struct LiveRules(Mutex<Arc<RuleSet>>);

impl LiveRules {
    pub fn new(rules: Arc<RuleSet>) -> LiveRules {
        LiveRules(Mutex::new(rules))
    }

    pub fn current(&self) -> Arc<RuleSet> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other rules in place; those that were there.
    pub fn replace(&self, rules: Arc<RuleSet>) -> Arc<RuleSet> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), rules)
    }
}

/// What one run has in common with the next.
#[derive(Clone, Copy)]
pub struct Run<'r> {
    pub rules: &'r LiveRules,
    pub options: &'r LiveOptions,
    pub metrics: &'r Metrics,
    /// Set from outside to end in order: what was read is sealed.
    pub stop: &'r AtomicBool,
}

/// Runs `sources` into `archive` until `stop` is set or something fails that only a new run can mend.
///
/// # Errors
/// When the archive or a rule cannot be used, or another process has taken a partition over. What was sealed
/// stays; all else is still at the sources.
pub fn run(
    archive: &Archive,
    run: &Run<'_>,
    sources: &mut [Box<dyn Source>],
    remembered: &mut Remembered,
    observer: &mut dyn LiveObserver,
) -> Result<Drained, IngestError> {
    let Run { rules, options, metrics, stop } = *run;
    let writer = match sealer::open_writer(archive, stop) {
        Ok(writer) => writer,
        // Nothing was taken from any source yet.
        Err(_) if stop.load(Ordering::Relaxed) => return Ok(Drained::Whole),
        Err(error) => return Err(error.into()),
    };
    let first_rules = rules.current();
    let mut detector = Detector::new(Arc::clone(&first_rules), DetectorConfig::default());
    warm_up(archive, &first_rules, &mut detector)?;
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

    let workers = options.workers.max(1);
    let give_up = Arc::new(AtomicBool::new(false));
    // As many as are asked for at once; see `LOOKS_PER_WORKER`.
    let (look_sender, looks) = bounded::<Look>(looks_max(options) + 1);
    #[expect(clippy::disallowed_methods, reason = "what they hold is text under way, which is bounded")]
    let ((encode_sender, encodes), (answer_sender, answers)) = (unbounded::<Encode>(), unbounded::<Answer>());
    let (told_sender, told) = bounded::<Told>(TOLD_MAX);
    let (order_sender, orders) = bounded::<Order>(2);
    let (sealed_sender, sealed) = bounded::<Sealed>(2);

    let outcome = std::thread::scope(|scope| {
        for source in sources.iter_mut() {
            let feed = Feed {
                shared: Arc::clone(&shared),
                driver: told_sender.clone(),
                counters: metrics.source(source.name()),
                line_bytes_max: options.line_bytes_max,
            };
            scope.spawn(move || keep_source(source.as_mut(), &feed));
        }
        drop(told_sender);
        for _ in 0..workers {
            let (looks, encodes, answers) = (looks.clone(), encodes.clone(), answer_sender.clone());
            let worker = Worker::new(&first_rules, options.line_bytes_max, options.depth_max);
            scope.spawn(move || worker.run(&looks, &encodes, &answers));
        }
        drop((looks, encodes, answer_sender));
        let sealer = Sealer { archive, writer: Some(writer), metrics, give_up: Arc::clone(&give_up) };
        scope.spawn(move || sealer.run(&orders, &sealed_sender));

        let driver = Driver {
            archive,
            options,
            metrics,
            remembered,
            observer,
            rules,
            last_look: Instant::now(),
            shared: &shared,
            stored,
            detector,
            looks: look_sender,
            encodes: encode_sender,
            orders: order_sender,
            streams: HashMap::new(),
            next_sequence: 0,
            handled: 0,
            early: HashMap::new(),
            open: Cut::default(),
            ending: None,
            sealing: None,
            requests: Vec::new(),
            refreshes: Vec::new(),
            is_refreshing: false,
            text_bytes: 0,
        };
        metrics.set_trouble(None);
        metrics.running.store(true, Ordering::Relaxed);
        // However the driver ends, sources and sealer are told: the scope waits for them.
        let ending = Ending { shared: &shared, give_up: &give_up, metrics };
        let outcome = driver.run(&told, &answers, &sealed, stop);
        drop(ending);
        // Whoever waits to be heard is told by a closed channel that nobody listens.
        drop(told);
        outcome
    });
    // What was not sealed comes again with the next run.
    let unsealed = metrics.unsealed.swap(0, Ordering::Relaxed);
    metrics.given_up.fetch_add(unsealed, Ordering::Relaxed);
    metrics.set_oldest(None);
    metrics.encoded_bytes.store(0, Ordering::Relaxed);
    metrics.text_bytes.store(0, Ordering::Relaxed);
    outcome
}

/// Tells everybody that the run is over when it is dropped.
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

/// Runs a source again when it fails, for as long as the run lasts.
fn keep_source(source: &mut dyn Source, feed: &Feed) {
    let name = source.name().to_owned();
    let span = tracing::info_span!("source", name);
    let _entered = span.enter();
    let mut wait = SOURCE_WAIT;
    while !feed.is_stopping() {
        let begun = Instant::now();
        // What a source keeps between runs is for its own comfort: all else is the archive's.
        match catch_unwind(AssertUnwindSafe(|| source.run(feed))) {
            Ok(Ok(())) if feed.is_stopping() => return,
            Ok(Ok(())) => feed.trouble("the source ended by itself"),
            Ok(Err(error)) => feed.trouble(chain(&error)),
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
    /// Position in `events` before the open cut, or, while one ends, before that.
    sealed: Option<Position>,
    /// Offset that the next chunk must have.
    expected: i64,
    /// Behind the last chunk looked at, in order.
    reached: Option<Reached>,
    /// Looked at and not encoded; the last one grows.
    waiting: Vec<Block>,
    /// First offset that `rejects` does not have yet.
    rejects_from: i64,
    /// Alerts that are stored already, where some may be raised again.
    alerts_stored: HashSet<String>,
}

#[derive(Clone, Copy)]
struct Reached {
    next_offset: i64,
    prefix: crate::source::Fingerprint,
    broker_offset: Option<i64>,
}

#[derive(Default)]
struct Cut {
    number: u64,
    row_groups: Vec<EncodedRowGroup>,
    bytes: u64,
    /// Encodings under way.
    jobs: u64,
    alerts: Vec<Alert>,
    duplicates: u64,
    /// By looks.
    looked: Tally,
    encoded: Tally,
    /// Records encoded, by partition.
    records: HashMap<String, u64>,
    reasons: BTreeMap<String, u64>,
    /// Arrival of its first record.
    since: Option<Instant>,
    /// Where its streams end; known when it ends.
    ends: Vec<(Arc<StreamName>, Option<Position>, Reached)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    events: u64,
    rejects: u64,
}

/// What is at the sealer.
struct Sealing {
    number: u64,
    counts: Counts,
    positions: Vec<(String, Position)>,
    reasons: BTreeMap<String, u64>,
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
    /// When a look was handled last.
    last_look: Instant,
    shared: &'d Arc<Shared>,
    /// Positions of each table when the run began, or was refreshed.
    stored: HashMap<Table, HashMap<String, Position>>,
    detector: Detector,
    looks: Sender<Look>,
    encodes: Sender<Encode>,
    orders: Sender<Order>,
    streams: HashMap<String, Stream>,
    next_sequence: u64,
    /// Looks handled, in order.
    handled: u64,
    /// Looks that were answered before their turn.
    early: HashMap<u64, Result<Box<Looked>, IngestError>>,
    open: Cut,
    ending: Option<Cut>,
    sealing: Option<Sealing>,
    /// Who wants to know when everything before a look is sealed.
    requests: Vec<Request>,
    /// Partitions whose position is to be read anew, and who waits for it.
    refreshes: Vec<(Vec<String>, Sender<()>)>,
    is_refreshing: bool,
    text_bytes: u64,
}

struct Request {
    /// Look before which everything is meant.
    before: u64,
    /// The cut that has it all.
    cut: Option<u64>,
    then: Then,
}

/// What happens when a request's cut is sealed.
enum Then {
    Answer(Sender<()>),
    Refresh(Vec<String>, Sender<()>),
}

impl Driver<'_> {
    fn run(
        mut self,
        told: &Receiver<Told>,
        answers: &Receiver<Answer>,
        sealed: &Receiver<Sealed>,
        stop: &AtomicBool,
    ) -> Result<Drained, IngestError> {
        let mut drain_until = None;
        let mut told_ended = false;
        loop {
            let full = self.next_sequence - self.handled >= looks_max(self.options) as u64;
            let never_told = never();
            // While looks are answered more slowly than asked for, sources wait.
            let listen = if full || told_ended { &never_told } else { told };
            select! {
                recv(answers) -> answer => self.answer(answer.map_err(|_| IngestError::WorkerLost)?)?,
                recv(sealed) -> done => self.sealed(done.map_err(|_| IngestError::WorkerLost)?)?,
                recv(listen) -> said => match said {
                    Ok(said) => self.told(said)?,
                    // All sources have ended, as they do when the run is over.
                    Err(_) => told_ended = true,
                },
                recv(after(TICK)) -> _ => {}
            }
            let draining = drain_until.is_some();
            if !draining {
                self.settle();
            }
            self.make_room();
            self.end_cut(draining && told_ended);
            self.bundle()?;
            self.answer_requests();
            self.measure();
            self.observer.tick(self.metrics);
            if !draining && stop.load(Ordering::Relaxed) {
                drain_until = Some(Instant::now() + self.options.drain);
                self.shared.stop();
            }
            let Some(until) = drain_until else { continue };
            if told_ended && self.is_idle() {
                return Ok(Drained::Whole);
            }
            if Instant::now() >= until {
                return Ok(Drained::Short { unsealed: self.metrics.unsealed.load(Ordering::Relaxed) });
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.next_sequence == self.handled
            && self.ending.is_none()
            && self.sealing.is_none()
            && !self.is_anything_unsealed()
    }

    fn is_anything_unsealed(&self) -> bool {
        self.open.since.is_some() || self.open.duplicates > 0
    }

    fn told(&mut self, said: Told) -> Result<(), IngestError> {
        match said {
            Told::Chunk(chunk) => self.chunk(chunk),
            Told::Duplicates(records) => {
                self.open.duplicates += records;
                self.metrics.received.fetch_add(records, Ordering::Relaxed);
                self.metrics.unsealed.fetch_add(records, Ordering::Relaxed);
                Ok(())
            }
            Told::Seal(done) => {
                let then = Then::Answer(done);
                self.requests.push(Request { before: self.next_sequence, cut: None, then });
                Ok(())
            }
            Told::Refresh(partitions, done) => {
                // A position is read when nothing of ours is on its way to it.
                let then = Then::Refresh(partitions, done);
                self.requests.push(Request { before: self.next_sequence, cut: None, then });
                Ok(())
            }
        }
    }

    /// Gives a chunk to the workers.
    fn chunk(&mut self, chunk: Chunk) -> Result<(), IngestError> {
        let (partition, may_encode) = (&chunk.stream.partition, self.may_encode());
        if !self.streams.contains_key(partition) {
            let stream = self.stream(&chunk.stream)?;
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
        // Another file may continue a stream, and people know it by its newest name.
        if stream.name.label != chunk.stream.label {
            stream.name = Arc::clone(&chunk.stream);
        }
        self.text_bytes += chunk.block.bytes.len() as u64;
        // A big chunk is worth a row group of its own, and decoding it twice is not free.
        let big = chunk.block.bytes.len() >= self.options.block_bytes_max / 2;
        let odd = chunk.block.begins != Edge::Line || chunk.block.ends != Edge::Line;
        let encode = ((big || odd) && may_encode).then_some((self.open.number, stream.rejects_from));
        if encode.is_some() {
            self.open.jobs += 1;
        }
        let look = Look { sequence: self.next_sequence, rules: self.rules.current(), chunk, encode };
        self.next_sequence += 1;
        self.looks.send(look).map_err(|_| IngestError::WorkerLost)
    }

    /// What the archive knows of a stream that is met for the first time.
    fn stream(&self, name: &Arc<StreamName>) -> Result<Stream, IngestError> {
        let of = |table: Table| self.stored[&table].get(&name.partition).copied();
        let (sealed, rejects, alerts) = (of(Table::Events), of(Table::Rejects), of(Table::Alerts));
        let from = |position: Option<Position>| position.map_or(i64::MIN, |position| position.next_offset);
        let alerts_stored = match from(alerts) > from(sealed) {
            true => stored_alerts(self.archive, &name.partition)?,
            false => HashSet::new(),
        };
        Ok(Stream {
            name: Arc::clone(name),
            sealed,
            expected: sealed.map_or(0, |position| position.next_offset),
            reached: None,
            waiting: Vec::new(),
            rejects_from: from(rejects),
            alerts_stored,
        })
    }

    fn answer(&mut self, answer: Answer) -> Result<(), IngestError> {
        match answer {
            Answer::Looked { sequence, outcome } => {
                self.early.insert(sequence, outcome);
                while let Some(outcome) = self.early.remove(&self.handled) {
                    self.handled += 1;
                    self.looked(outcome?)?;
                }
                Ok(())
            }
            Answer::Encoded { outcome } => {
                self.encoded(outcome?);
                Ok(())
            }
        }
    }

    /// Tells an alert that is new, and keeps it for the next seal.
    fn found(&mut self, alert: Alert) {
        if self.remembered.is_new(&alert.alert_id) {
            self.metrics.alert(alert.severity);
            self.observer.alert(&alert);
        }
        let known = self.streams.get(&alert.event.source);
        if !known.is_some_and(|stream| stream.alerts_stored.contains(&alert.alert_id)) {
            self.open.alerts.push(alert);
        }
    }

    /// Judges what waits for events that come late, when nothing has come for as long as they may be late.
    fn settle(&mut self) {
        let patience = self.detector.rules().lateness_max() + SETTLE;
        if self.detector.is_waiting()
            && self.handled == self.next_sequence
            && self.last_look.elapsed() > patience
        {
            for alert in self.detector.settle() {
                self.open.since.get_or_insert_with(Instant::now);
                self.found(alert);
            }
        }
    }

    /// Handles the next look in order.
    fn looked(&mut self, looked: Box<Looked>) -> Result<(), IngestError> {
        let looked = *looked;
        let records = looked.events + looked.rejects;
        self.metrics.received.fetch_add(records, Ordering::Relaxed);
        self.metrics.unsealed.fetch_add(records, Ordering::Relaxed);
        self.last_look = Instant::now();
        for alert in self.detector.observe(looked.matches) {
            self.metrics.alert_seconds.observe(looked.arrived.elapsed());
            self.found(alert);
        }
        self.open.since.get_or_insert(looked.arrived);
        let stream = self.streams.get_mut(&looked.stream.partition).expect("its chunk made it");
        let reached = Reached {
            next_offset: looked.next_offset,
            prefix: looked.prefix,
            broker_offset: looked.broker_offset,
        };
        stream.reached = Some(reached);
        if let Some(encoded) = looked.encoded {
            // What waits of this stream lies before it. A cut may have ended since the chunk came.
            self.open.looked.events += looked.events;
            self.open.looked.rejects += looked.rejects;
            if encoded.cut != self.open.number {
                self.move_job(encoded.cut);
            }
            let cut = self.open.number;
            self.encoded(Encoded { cut, ..encoded });
            return Ok(());
        }
        self.open.looked.events += looked.events;
        self.open.looked.rejects += looked.rejects;
        let Some(block) = looked.block else { return Ok(()) };
        debug_assert_eq!(block.bytes.len() as u64, looked.bytes);
        match stream.waiting.last_mut() {
            Some(waiting)
                if waiting.ends == Edge::Line
                    && block.begins == Edge::Line
                    && block.ends == Edge::Line
                    && waiting.bytes.last() == Some(&b'\n')
                    && waiting.bytes.len() + block.bytes.len() <= self.options.block_bytes_max =>
            {
                waiting.bytes.extend_from_slice(&block.bytes);
            }
            _ => {
                let mut block = block;
                // Buffers are as long as what they might have held.
                block.bytes.shrink_to_fit();
                stream.waiting.push(block);
            }
        }
        let bound = self.options.block_bytes_max / 2;
        if stream.waiting.len() > 1 || stream.waiting.last().is_some_and(|block| block.bytes.len() >= bound) {
            self.encode_waiting(&looked.stream.partition);
        }
        Ok(())
    }

    /// Encodes what waits of a stream, as far as there is room for it.
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

    /// A job that was counted in one cut is done in the next.
    fn move_job(&mut self, from: u64) {
        if let Some(ending) = self.ending.as_mut().filter(|ending| ending.number == from) {
            ending.jobs -= 1;
            self.open.jobs += 1;
        }
    }

    fn encoded(&mut self, encoded: Encoded) {
        let cut = match &mut self.ending {
            Some(ending) if ending.number == encoded.cut => ending,
            _ => &mut self.open,
        };
        cut.jobs = cut.jobs.saturating_sub(1);
        cut.bytes += encoded.row_groups.iter().map(EncodedRowGroup::bytes).sum::<u64>();
        cut.row_groups.extend(encoded.row_groups);
        cut.encoded.events += encoded.events;
        cut.encoded.rejects += encoded.rejects;
        *cut.records.entry(encoded.stream.partition.clone()).or_insert(0) += encoded.events + encoded.rejects;
        for (reason, count) in encoded.reasons {
            *cut.reasons.entry(reason).or_insert(0) += count;
        }
        for example in encoded.examples {
            tracing::warn!(stream = %encoded.stream.label, reject = %example, "kept as a reject");
        }
        self.text_bytes = self.text_bytes.saturating_sub(encoded.bytes);
        self.shared.release(encoded.bytes);
    }

    /// Whether there is room for more that is encoded and not sealed.
    fn may_encode(&self) -> bool {
        self.open.bytes < 2 * self.options.seal_bytes.max(1)
    }

    /// Encodes text into the open cut.
    fn encode(&mut self, partition: &str, block: Block) {
        let stream = &self.streams[partition];
        let job = Encode {
            cut: self.open.number,
            stream: Arc::clone(&stream.name),
            block,
            rejects_from: stream.rejects_from,
        };
        self.open.jobs += 1;
        // Workers end when the driver has, not before; a lost one is seen where answers are waited for.
        let _ = self.encodes.send(job);
    }

    /// Many streams with little text each fill the memory, too: then the longest is encoded.
    fn make_room(&mut self) {
        if self.text_bytes <= self.options.text_bytes_max / 2 || self.open.jobs > 0 {
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

    /// Ends the open cut when it is time to.
    fn end_cut(&mut self, draining: bool) {
        if self.ending.is_some() || self.sealing.is_some() || !self.is_anything_unsealed() {
            return;
        }
        let asked = self.requests.iter().any(|request| {
            self.handled >= request.before && request.cut.is_none_or(|cut| cut == self.open.number)
        });
        let due = self.open.bytes >= self.options.seal_bytes
            || self.open.since.is_some_and(|since| since.elapsed() >= self.options.seal_interval)
            || self.open.alerts.len() >= SEAL_ALERTS_MAX
            || (draining && self.next_sequence == self.handled);
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
                self.open.ends.push((Arc::clone(&stream.name), stream.sealed, reached));
            }
        }
        let next = Cut { number: self.open.number + 1, ..Cut::default() };
        self.ending = Some(std::mem::replace(&mut self.open, next));
    }

    /// Gives the cut that ends to the sealer when the last of it is encoded.
    fn bundle(&mut self) -> Result<(), IngestError> {
        if self.sealing.is_some() {
            return Ok(());
        }
        let Some(cut) = self.ending.take_if(|cut| cut.jobs == 0) else {
            if !self.refreshes.is_empty() && !self.is_refreshing {
                self.is_refreshing = true;
                self.orders.send(Order::Refresh).map_err(|_| IngestError::WorkerLost)?;
            }
            return Ok(());
        };
        if cut.looked != cut.encoded {
            let what = format!(
                "{} events and {} rejects were looked at, {} and {} were encoded",
                cut.looked.events, cut.looked.rejects, cut.encoded.events, cut.encoded.rejects
            );
            self.conservation_failed(&what);
        }
        let mut row_groups = cut.row_groups;
        if !cut.alerts.is_empty() {
            row_groups.extend(encode(Table::Alerts, alerts_batch(&cut.alerts), Utc::now())?);
        }
        let mut positions = Vec::with_capacity(cut.ends.len());
        for (name, previous, reached) in cut.ends {
            let added = cut.records.get(&name.partition).copied().unwrap_or(0);
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
            positions.push(SourcePosition { partition, label, position, previous });
        }
        // What waited for late events may be of a stream that brought nothing since: that stays where it is.
        for alert in &cut.alerts {
            let partition = &alert.event.source;
            if positions.iter().any(|given| given.partition == *partition) {
                continue;
            }
            let of_stream = self.streams.get(partition).and_then(|stream| stream.sealed);
            let stored = self.stored.get(&Table::Events).and_then(|stored| stored.get(partition).copied());
            if let Some(position) = of_stream.or(stored) {
                let (partition, label) = (partition.clone(), partition.clone());
                positions.push(SourcePosition { partition, label, position, previous: Some(position) });
            }
        }
        let counts = Counts {
            received: cut.encoded.events + cut.encoded.rejects + cut.duplicates,
            events: cut.encoded.events,
            rejects: cut.encoded.rejects,
            duplicates: cut.duplicates,
        };
        self.sealing = Some(Sealing {
            number: cut.number,
            counts,
            positions: positions.iter().map(|given| (given.partition.clone(), given.position)).collect(),
            reasons: cut.reasons,
            rows: Tally {
                events: rows(&row_groups, Table::Events),
                rejects: rows(&row_groups, Table::Rejects),
            },
            bytes: cut.bytes,
            since: cut.since,
        });
        let bundle = Bundle { cut: cut.number, row_groups, positions, counts };
        self.orders.send(Order::Seal(bundle)).map_err(|_| IngestError::WorkerLost)
    }

    fn conservation_failed(&mut self, what: &str) {
        tracing::error!(what, "the conservation sum does not hold");
        self.metrics.conservation_failures.fetch_add(1, Ordering::Relaxed);
        self.observer.conservation_failed(what);
    }

    fn sealed(&mut self, done: Sealed) -> Result<(), IngestError> {
        let (cut, outcome, took) = match done {
            Sealed::Bundle { cut, outcome, took } => (cut, outcome, took),
            Sealed::Refreshed(positions) => {
                self.refreshed(positions?);
                return Ok(());
            }
        };
        let sealing = self.sealing.take().filter(|sealing| sealing.number == cut);
        let sealing = sealing.expect("the sealer answers what it was asked, once");
        let report = outcome?;
        let counts = sealing.counts;
        // A cut without a row, or one whose commit turned out to exist, reports nothing new.
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
        if !metrics.draw_up() {
            self.conservation_failed("received is not the sum of sealed, duplicates, given up and unsealed");
        }
        // A stream at rest is met anew when it goes on: a rotated file never does.
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
        let done = self.requests.extract_if(.., |request| request.cut.is_some_and(|wanted| wanted <= cut));
        for request in done.collect::<Vec<_>>() {
            self.satisfied(request.then);
        }
        Ok(())
    }

    fn satisfied(&mut self, then: Then) {
        match then {
            // Who asked may have stopped waiting.
            Then::Answer(done) => _ = done.send(()),
            Then::Refresh(partitions, done) => self.refreshes.push((partitions, done)),
        }
    }

    /// Attaches requests to the cut that will have what they mean, and answers those that need none.
    fn answer_requests(&mut self) {
        let unsealed = self.is_anything_unsealed();
        let newest = self.sealing.as_ref().map(|sealing| sealing.number);
        let newest = self.ending.as_ref().map(|ending| ending.number).or(newest);
        let (handled, open) = (self.handled, self.open.number);
        for request in self.requests.iter_mut().filter(|request| handled >= request.before) {
            request.cut = request.cut.or(if unsealed { Some(open) } else { newest });
        }
        let done = self.requests.extract_if(.., |r| handled >= r.before && r.cut.is_none());
        for request in done.collect::<Vec<_>>() {
            self.satisfied(request.then);
        }
    }

    /// Takes over the new positions of the partitions that were asked about: they are met anew.
    fn refreshed(&mut self, stored: HashMap<Table, HashMap<String, Position>>) {
        self.is_refreshing = false;
        for (partitions, done) in std::mem::take(&mut self.refreshes) {
            for partition in partitions {
                // Something of it is under way, which was handed over since: it stays as it was met, and the run
                // ends where the archive refuses it.
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
        let ending = self.ending.as_ref().map_or(0, |cut| cut.bytes);
        let sealing = self.sealing.as_ref().map_or(0, |sealing| sealing.bytes);
        metrics.encoded_bytes.store(self.open.bytes + ending + sealing, Ordering::Relaxed);
        let sealing = self.sealing.as_ref().and_then(|sealing| sealing.since);
        let ending = self.ending.as_ref().and_then(|cut| cut.since);
        metrics.set_oldest(sealing.or(ending).or(self.open.since));
    }
}

fn rows(row_groups: &[EncodedRowGroup], table: Table) -> u64 {
    row_groups.iter().filter(|row_group| row_group.table() == table).map(EncodedRowGroup::rows).sum()
}
