//! The driver for files: one reader, some workers, one coordinator.
//!
//! ```text
//!  reader ──Job──▶ workers (decode, match, sort, encode) ──FinishedJob──▶ coordinator ──▶ writer
//!     ▲                                                                       │  in stream order:
//!     └────────────── permits: blocks under way are bounded ◀─────────────────┘  correlate, append, seal
//! ```
//!
//! Invariants:
//! - Short streams are decoded together: up to `TOGETHER_MAX` blocks are one job and one row group,
//!   because a row group has a cost of its own, whatever its rows. Their rows are in the order in
//!   which the streams were read, and each stream has its own position.
//! - Blocks under way (read and not yet appended) never exceed the number of permits, nor, in
//!   bytes, [`BLOCKS_MEMORY_BYTES`]. These bytes are counted: a block takes [`TEXT_TIMES_MAX`]
//!   times its size before it is read, the size of its columns when it is decoded, and that of its
//!   row groups when it is encoded. So memory is bounded, whatever the number of workers and the
//!   input's size. A block with one long line may be larger, and passes alone.
//! - The coordinator handles blocks in the order in which they were read, so correlations see each
//!   stream in its order and a position always covers a whole prefix.
//! - A seal commits rows and the position after them together. A crash anywhere loses nothing that
//!   was acknowledged and repeats nothing: the next run reads the position and continues from
//!   there.
//!
//! After a crash between the commits of two tables, the tables' positions differ. Reading starts at
//! the position of `events`, which is committed last, and rows that another table already has are
//! left out: rejects by their offset, and alerts by their id, because an alert may point to an
//! event long before the event that completed the alert.

mod reached;
mod reader;
mod room;
mod worker;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use strongroom_alerts::{BatchMatches, Detector, DetectorConfig, RuleSet};
use strongroom_archive::fingerprint::Fingerprint;
use strongroom_archive::{Archive, Counts, Position, SealReport, SourcePosition, Writer, WriterOptions};
use strongroom_decode::reject_batch;
use strongroom_lines::frame::Origin;
use strongroom_lines::{DialectCounts, Reading, Reason, Refusal};
use strongroom_redact::Redactor;
use strongroom_schemas::{Alert, Severity, Table};

use self::reached::{ClosesReached, Reached};
use self::reader::{Reader, Sent};
use self::room::{ClosesRoom, Room, Taken};
use self::worker::Worker;
use crate::error::{IngestError, PipelineThread};
use crate::faults::FaultCounts;
use crate::kinds::KindCounts;
use crate::redaction::RedactionCounts;
use crate::replay::{stored_alerts, warm_up};
use crate::seal::{
    EXAMPLES_MAX, EncodedBlock, Limits, SEAL_ALERTS_MAX, StoredRejects, cores, encode_alerts, encode_rejects,
    seal_plan,
};
use crate::source::{FileError, Input, StreamBlock};
use crate::stored_alerts::StoredAlerts;

/// Maximum size of the text in a block, in bytes; only a longer line makes a longer block. A block
/// becomes one row group.
pub const BLOCK_BYTES_MAX: usize = 48 << 20;
/// Minimum size of the text in a block. Smaller row groups compress badly and make queries slow.
pub const BLOCK_BYTES_MIN: usize = 8 << 20;
/// Maximum number of bytes that all blocks under way take; with many workers blocks are smaller.
pub const BLOCKS_MEMORY_BYTES: usize = 448 << 20;
/// How many times the size of its text a block takes while it is decoded: the text, its columns,
/// and the records that no form gives.
pub const TEXT_TIMES_MAX: usize = 3;
/// Maximum number of lines in a block.
pub const BLOCK_LINES_MAX: usize = 131_072;
/// Maximum number of blocks that are decoded together. The number is bounded because a read of any
/// of their streams reads the whole row group.
const TOGETHER_MAX: usize = 512;
/// A block of a fresh stream with at most this much text is decoded together with others.
const TOGETHER_BYTES_MAX: usize = 256 << 10;
/// Maximum number of messages of the reader that wait for the coordinator.
const MESSAGES_MAX: usize = 1024;
/// How often progress is reported while nothing else happens.
const TICK: Duration = Duration::from_millis(100);

/// What to read and how.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Name of the cluster, stored with every row.
    pub cluster: String,
    pub inputs: Vec<Input>,
    /// How the files are read: where events are in them, and which writers are believed.
    pub reading: Arc<Reading>,
    pub limits: Limits,
    /// The redaction policy and its keys. `None`: everything is written as it was received.
    pub redactor: Option<Arc<Redactor>>,
    /// Whether files no longer grow, so that an unfinished last line is a reject.
    pub complete: bool,
    /// If true, an operator vouches for this machine's clock, and evidence against it is ignored.
    pub clock_is_right: bool,
    pub block_lines_max: usize,
    /// Set from outside to end the run early: text that was read is sealed first.
    pub stop: Arc<AtomicBool>,
}

/// Returns the size of a block, in bytes of text, at which no worker has to wait for memory: the
/// blocks that `workers` threads decode, and one more that is being read, then fit into
/// [`BLOCKS_MEMORY_BYTES`].
pub fn block_bytes(workers: usize) -> usize {
    let blocks = workers.max(1).saturating_add(1);
    (BLOCKS_MEMORY_BYTES / TEXT_TIMES_MAX / blocks).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)
}

impl IngestOptions {
    pub fn new(cluster: impl Into<String>, inputs: Vec<Input>) -> Self {
        IngestOptions {
            cluster: cluster.into(),
            inputs,
            reading: Arc::default(),
            redactor: None,
            limits: Limits::with_blocks_of(block_bytes(cores())),
            complete: false,
            clock_is_right: false,
            block_lines_max: BLOCK_LINES_MAX,
            stop: Arc::default(),
        }
    }
}

/// How far a run has got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Bytes read from files, before decompression.
    pub bytes_read: u64,
    /// Sum of the files' sizes.
    pub bytes_total: u64,
    pub events: u64,
    pub rejects: u64,
    pub alerts: u64,
}

/// Receives alerts, seals and failures as they happen, always on the thread that called [`ingest`].
pub trait Observer {
    fn progress(&mut self, _progress: &Progress) {}
    /// A new alert. Its events are not sealed yet; after a crash it may be reported again, with the
    /// same id.
    fn alert(&mut self, _alert: &Alert) {}
    /// A file could not be read, or not to its end. The run continues.
    fn file_failed(&mut self, _error: &FileError) {}
    /// Called before a seal is committed. After the commit the events of the alerts so far are not
    /// read again. So an observer that stores alerts must make them durable now. If it returns an
    /// error, nothing is committed, and the run ends.
    fn sealing(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
    /// A seal is durable.
    fn sealed(&mut self, _report: &SealReport) {}
    /// Another process writes to the archive; this process waits for it.
    fn waiting(&mut self) {}
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub counts: Counts,
    pub alerts: BTreeMap<Severity, u64>,
    pub rejects_by_reason: BTreeMap<String, u64>,
    /// Events by the wrapper that they came in.
    pub dialects: DialectCounts,
    pub faults: FaultCounts,
    /// Audit events that became rejects because their writer is not known, by the writer's name.
    pub untrusted: KindCounts,
    /// The first rejects, as `file:line: reason: detail`.
    pub reject_examples: Vec<String>,
    pub redacted: RedactionCounts,
    /// Events whose bytes had to be kept in `raw`.
    pub raw_kept: u64,
    /// Bytes of decompressed text that were read, without those that were sealed before.
    pub bytes: u64,
    /// Bytes of decompressed text that an earlier run had sealed.
    pub bytes_known: u64,
    pub sealed_bytes: u64,
    pub sealed_files: u64,
    pub seals: u64,
    /// Files whose last line is unfinished: label, offset and length of what was left.
    pub unfinished: Vec<(String, i64, usize)>,
    pub files_failed: u64,
    pub files_read: u64,
    /// Files without new content.
    pub files_known: u64,
    pub warnings: Vec<String>,
    pub interrupted: bool,
}

/// One stream, once its identity is known.
#[derive(Clone, Debug)]
struct StreamState {
    partition: String,
    label: String,
    /// Position in `events` at the last seal.
    sealed: Option<Position>,
    /// Position after the last block appended.
    reached: Option<Position>,
    /// `alerts` was committed but `events` was not: a run died between the two commits.
    alerts_ahead: bool,
    /// Ids of stored alerts, if some may be raised again.
    alerts_stored: HashSet<String>,
}

struct Job {
    sequence: u64,
    /// One block, or several blocks, each of a stream of which nothing is stored.
    parts: Vec<JobPart>,
    /// The rejects of the stream that the table `rejects` already has.
    stored: StoredRejects,
    taken: Taken,
}

/// A block, with the number of its stream.
struct JobPart {
    stream: usize,
    block: StreamBlock,
}

/// The result of a [`Job`], from a worker.
struct FinishedJob {
    sequence: u64,
    outcome: Result<JobResult, IngestError>,
}

/// Blocks that a worker decoded, matched and encoded.
struct JobResult {
    /// In row order.
    matches: Vec<BatchMatches>,
    encoded: EncodedBlock,
    raw_kept: u64,
    parts: Vec<PartResult>,
    taken: Taken,
}

/// The result of one block of a [`Job`].
struct PartResult {
    stream: usize,
    events: u64,
    rejects: u64,
    bytes: u64,
    end_offset: i64,
    end_prefix: Fingerprint,
    unfinished: Option<(i64, usize)>,
}

enum ReaderMessage {
    /// A stream was identified. Its number is the position of this message among all messages of
    /// this kind.
    Stream(StreamState),
    EmptyFile(Input),
    FileFailed(FileError),
    FileKnown,
    Known {
        records: u64,
        bytes: u64,
    },
    /// A file may continue a partition with unsealed rows. Seal the first `jobs` jobs, then answer.
    SealNow {
        jobs: u64,
        done: Sender<()>,
    },
    /// All inputs have been read, and this many jobs have been sent.
    ReadAll {
        jobs: u64,
    },
}

/// Reads all inputs into `archive`, raising alerts with `rules`.
///
/// When it returns, everything counted in the report is durable. Files that cannot be read are
/// reported to the observer and counted; the run continues with the others.
///
/// # Errors
/// If the archive or a rule cannot be used. What was sealed before stays sealed, and the next run
/// continues after it.
pub fn ingest(
    archive: &Archive,
    rules: &Arc<RuleSet>,
    options: &IngestOptions,
    observer: &mut dyn Observer,
) -> Result<Report, IngestError> {
    let writer_options = WriterOptions { clock_is_right: options.clock_is_right, ..WriterOptions::default() };
    let writer = archive.writer_with(writer_options, || observer.waiting())?;
    let mut detector = Detector::new(Arc::clone(rules), DetectorConfig::default());
    warm_up(archive, rules, &mut detector)?;
    let stored_alerts = StoredAlerts::load(archive)?;

    let workers = options.limits.workers.max(1);
    // One block held by each worker, one waiting for each, one being read.
    let permits = 2 * workers + 1;
    // Blocks are big, so none waits in the channel: a worker takes each one from the reader.
    let (job_sender, job_receiver) = bounded::<Job>(0);
    let (done_sender, done_receiver) = bounded::<FinishedJob>(permits);
    let (message_sender, message_receiver) = bounded::<ReaderMessage>(MESSAGES_MAX);
    let (permit_sender, permit_receiver) = bounded::<()>(permits);
    for _ in 0..permits {
        permit_sender.send(()).expect("the channel has room for every permit and both ends are here");
    }
    let (buffer_sender, buffer_receiver) = bounded::<Vec<u8>>(permits);
    let room = Room::new(BLOCKS_MEMORY_BYTES);
    let reached = Arc::new(Reached::default());
    let writer = Mutex::new(writer);
    let bytes_read = Arc::new(AtomicU64::new(0));

    std::thread::scope(|scope| {
        let reader = Reader {
            options,
            archive,
            writer: &writer,
            jobs: job_sender,
            messages: message_sender,
            permits: permit_receiver,
            permits_max: permits,
            buffers: buffer_receiver,
            room: Arc::clone(&room),
            reached: Arc::clone(&reached),
            bytes_read: Arc::clone(&bytes_read),
            sent: Sent::default(),
            together: None,
        };
        scope.spawn(move || {
            // If the reader panics its channels close, which ends the run.
            let _ = catch_unwind(AssertUnwindSafe(|| reader.run()));
        });
        for _ in 0..workers {
            let (jobs, done) = (job_receiver.clone(), done_sender.clone());
            let mut worker =
                Worker::new(rules, &options.limits, options.redactor.as_ref(), buffer_sender.clone());
            scope.spawn(move || {
                for job in jobs {
                    // Without an answer the coordinator would wait forever.
                    let sequence = job.sequence;
                    let first = job.parts.first().map(|part| &part.block.block);
                    let (label, offset) =
                        first.map(|block| (block.origin.partition.clone(), block.offset)).unwrap_or_default();
                    let answer = catch_unwind(AssertUnwindSafe(|| worker.work(job)));
                    let lost = answer.is_err();
                    let answer = answer.unwrap_or_else(|_| FinishedJob {
                        sequence,
                        outcome: Err(IngestError::WorkerPanicked { label, offset }),
                    });
                    if done.send(answer).is_err() || lost {
                        break;
                    }
                }
            });
        }
        drop((job_receiver, done_sender, buffer_sender));
        // Owned here, so that an error drops them. That ends the reader and the workers, for which
        // the scope waits.
        let (message_receiver, done_receiver) = (message_receiver, done_receiver);
        let _closes_room = ClosesRoom(room);
        let _closes_reached = ClosesReached(Arc::clone(&reached));
        let mut coordinator = Coordinator {
            options,
            archive,
            writer: &writer,
            detector,
            observer,
            streams: Vec::new(),
            waiting: HashMap::new(),
            next: 0,
            alerts: Vec::new(),
            stored_alerts,
            counts: Counts::default(),
            empty_files: Vec::new(),
            seal_at: None,
            reached: &reached,
            last_seal: Instant::now(),
            report: Report::default(),
            progress: Progress {
                bytes_total: options.inputs.iter().filter_map(Input::size).sum(),
                ..Progress::default()
            },
            bytes_read: &bytes_read,
        };
        coordinator.run(&message_receiver, &done_receiver, permit_sender)?;
        Ok(coordinator.report)
    })
}

fn lock<'w>(writer: &'w Mutex<Writer>) -> MutexGuard<'w, Writer> {
    // A panic elsewhere ends the run; the writer itself refuses work after a failed operation.
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Coordinator<'c> {
    options: &'c IngestOptions,
    archive: &'c Archive,
    writer: &'c Mutex<Writer>,
    detector: Detector,
    observer: &'c mut dyn Observer,
    streams: Vec<StreamState>,
    /// Jobs that came before their turn.
    waiting: HashMap<u64, FinishedJob>,
    next: u64,
    /// Alerts that are not sealed yet.
    alerts: Vec<Alert>,
    stored_alerts: StoredAlerts,
    /// Counts since the last seal.
    counts: Counts,
    empty_files: Vec<Input>,
    /// The reader waits until the blocks of the first jobs, up to this number, are sealed.
    seal_at: Option<(u64, Sender<()>)>,
    reached: &'c Reached,
    last_seal: Instant,
    report: Report,
    progress: Progress,
    bytes_read: &'c AtomicU64,
}

impl Coordinator<'_> {
    fn run(
        &mut self,
        messages: &Receiver<ReaderMessage>,
        done: &Receiver<FinishedJob>,
        permits: Sender<()>,
    ) -> Result<(), IngestError> {
        let mut jobs = None;
        while jobs.is_none_or(|jobs| self.next < jobs) {
            // The message about a stream comes before the stream's first block.
            while let Ok(message) = messages.try_recv() {
                jobs = self.handle_message(message)?.or(jobs);
            }
            if jobs.is_some_and(|jobs| self.next >= jobs) {
                break;
            }
            if let Some((_, done)) = self.seal_at.take_if(|(jobs, _)| self.next >= *jobs) {
                self.seal()?;
                // The reader waits for this, or is gone.
                let _ = done.send(());
            }
            match done.recv_timeout(TICK) {
                Ok(job) => {
                    while let Ok(message) = messages.try_recv() {
                        jobs = self.handle_message(message)?.or(jobs);
                    }
                    self.waiting.insert(job.sequence, job);
                    while let Some(job) = self.waiting.remove(&self.next) {
                        self.next += 1;
                        self.handle_job(job)?;
                        // The reader may have finished already.
                        let _ = permits.try_send(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if jobs.is_none() => {
                    // Workers end after the reader, whose last message is in the channel.
                    match messages.recv() {
                        Ok(message) => jobs = self.handle_message(message)?.or(jobs),
                        Err(_) => return Err(IngestError::ThreadEnded { thread: PipelineThread::Reader }),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(IngestError::ThreadEnded { thread: PipelineThread::Workers });
                }
            }
            self.report_progress();
            if self.last_seal.elapsed() >= self.options.limits.seal_interval {
                self.seal()?;
            }
        }
        self.reject_empty_files()?;
        // Nothing more arrives, so alerts that wait for late events are judged. An interrupted run
        // will continue.
        if !self.options.stop.load(Ordering::Relaxed) {
            let found = self.detector.settle();
            self.raise(found);
        }
        self.seal()?;
        self.report_progress();
        self.report.interrupted = self.options.stop.load(Ordering::Relaxed);
        Ok(())
    }

    /// Handles a message of the reader; returns the number of jobs if it has read everything.
    fn handle_message(&mut self, message: ReaderMessage) -> Result<Option<u64>, IngestError> {
        match message {
            ReaderMessage::Stream(mut state) => {
                if state.alerts_ahead {
                    state.alerts_stored = stored_alerts(self.archive, &state.partition)?;
                }
                self.report.files_read += 1;
                self.streams.push(state);
            }
            ReaderMessage::EmptyFile(input) => self.empty_files.push(input),
            ReaderMessage::FileFailed(error) => {
                self.report.files_failed += 1;
                self.observer.file_failed(&error);
            }
            ReaderMessage::FileKnown => self.report.files_known += 1,
            ReaderMessage::SealNow { jobs, done } => self.seal_at = Some((jobs, done)),
            ReaderMessage::Known { records, bytes } => {
                self.counts.received += records;
                self.counts.duplicates += records;
                self.report.bytes_known += bytes;
            }
            ReaderMessage::ReadAll { jobs } => return Ok(Some(jobs)),
        }
        Ok(None)
    }

    /// Handles the next job in order.
    fn handle_job(&mut self, job: FinishedJob) -> Result<(), IngestError> {
        let job = job.outcome?;
        let encoded = job.encoded;
        for part in &job.parts {
            let stream = &mut self.streams[part.stream];
            let before = stream.reached.or(stream.sealed).map_or(0, |position| position.records);
            // If a first line is incomplete, nothing is known of its stream, not even its name.
            if part.end_offset > 0 {
                stream.reached = Some(Position {
                    next_offset: part.end_offset,
                    records: before + i64::try_from(part.events + part.rejects).unwrap_or(i64::MAX),
                    prefix_blake3: part.end_prefix,
                    broker_offset: None,
                });
            }
            if let Some((offset, bytes)) = part.unfinished {
                self.report.unfinished.push((stream.label.clone(), offset, bytes));
            }
            self.report.bytes += part.bytes;
        }
        let end_of = |part: &PartResult| {
            let stream = &self.streams[part.stream];
            let end = stream.reached.map(|reached| (reached.next_offset, reached.prefix_blake3));
            (stream.partition.as_str(), end)
        };
        self.reached.appended(&job.parts.iter().map(end_of).collect::<Vec<_>>());
        for (reject, example) in encoded.examples {
            if self.report.reject_examples.len() < EXAMPLES_MAX {
                let label = part_of_reject(&job.parts, reject).map(|part| &self.streams[part.stream].label);
                let label = label.map_or("", String::as_str);
                self.report.reject_examples.push(format!("{label}:{example}"));
            }
        }
        for matches in job.matches {
            let found = self.detector.observe(matches);
            self.raise(found);
        }
        {
            let mut writer = lock(self.writer);
            for row_group in encoded.row_groups {
                writer.append(row_group)?;
            }
        }
        drop(job.taken);
        self.counts.received += encoded.events + encoded.rejects;
        self.counts.events += encoded.events;
        self.counts.rejects += encoded.rejects;
        self.report.raw_kept += job.raw_kept;
        for (reason, count) in encoded.reasons {
            *self.report.rejects_by_reason.entry(reason).or_insert(0) += count;
        }
        self.report.dialects.add_all(&encoded.dialects);
        self.report.faults.add_all(&encoded.faults);
        self.report.untrusted.add_all(&encoded.untrusted);
        self.report.redacted.add(encoded.redacted);
        self.progress.events += encoded.events;
        self.progress.rejects += encoded.rejects;
        if lock(self.writer).pending_bytes() >= self.options.limits.seal_bytes
            || self.alerts.len() >= SEAL_ALERTS_MAX
        {
            self.seal()?;
        }
        Ok(())
    }

    fn raise(&mut self, alerts: Vec<Alert>) {
        for alert in alerts {
            self.observer.alert(&alert);
            *self.report.alerts.entry(alert.severity).or_insert(0) += 1;
            self.progress.alerts += 1;
            if !self.streams.iter().any(|stream| stream.alerts_stored.contains(&alert.alert_id)) {
                self.alerts.push(alert);
            }
        }
    }

    /// Makes each empty file a reject: it is evidence that the file was empty.
    fn reject_empty_files(&mut self) -> Result<(), IngestError> {
        let mut seen = HashSet::new();
        let refusal = Refusal { reason: Reason::EmptyFile, detail: "an empty file".to_owned() };
        let arrived = Utc::now();
        let mut origins = Vec::new();
        for input in std::mem::take(&mut self.empty_files) {
            let label = input.label();
            let hash = blake3::hash(format!("{}\0{label}", self.options.cluster).as_bytes());
            let partition = format!("{EMPTY}{}", &hash.to_hex()[..24]);
            self.counts.received += 1;
            let known = lock(self.writer).position(Table::Events, &partition)?;
            if known.is_some() || !seen.insert(partition.clone()) {
                self.counts.duplicates += 1;
                self.report.files_known += 1;
                continue;
            }
            let stored = lock(self.writer).position(Table::Rejects, &partition)?;
            if stored.is_none() {
                let cluster = self.options.cluster.clone();
                origins.push(Origin { partition: partition.clone(), cluster, reading: Arc::default() });
            }
            self.counts.rejects += 1;
            self.progress.rejects += 1;
            *self.report.rejects_by_reason.entry(Reason::EmptyFile.as_str().to_owned()).or_insert(0) += 1;
            if self.report.reject_examples.len() < EXAMPLES_MAX {
                self.report.reject_examples.push(format!("{label}: {}: {}", refusal.reason, refusal.detail));
            }
            self.streams.push(StreamState {
                partition,
                label,
                sealed: None,
                reached: Some(Position {
                    next_offset: 1,
                    records: 1,
                    prefix_blake3: [0; 16],
                    broker_offset: None,
                }),
                alerts_ahead: false,
                alerts_stored: HashSet::new(),
            });
        }
        let batch = reject_batch(&origins, &refusal, arrived).map_err(|source| IngestError::Columns {
            label: "empty files".to_owned(),
            offset: 0,
            source,
        })?;
        for row_group in encode_rejects(batch, &StoredRejects::before(i64::MIN), arrived)? {
            lock(self.writer).append(row_group)?;
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), IngestError> {
        self.last_seal = Instant::now();
        let moved = self.streams.iter().filter_map(|stream| {
            let position = stream.reached.filter(|reached| stream.sealed != Some(*reached))?;
            let (partition, label) = (stream.partition.clone(), stream.label.clone());
            Some(SourcePosition { partition, label, position, previous: stream.sealed })
        });
        let positions = seal_plan(moved.collect(), &self.alerts, |partition| {
            lock(self.writer).position(Table::Events, partition)
        })?;
        let counts = std::mem::take(&mut self.counts);
        add(&mut self.report.counts, counts);
        if positions.is_empty() {
            return Ok(());
        }
        self.observer.sealing().map_err(IngestError::KeepAlerts)?;
        let mut writer = lock(self.writer);
        if writer.is_shared() && !self.alerts.is_empty() {
            self.stored_alerts.catch_up(self.archive)?;
        }
        let alerts = self.stored_alerts.without_stored(std::mem::take(&mut self.alerts));
        for row_group in encode_alerts(&alerts)? {
            writer.append(row_group)?;
        }
        let sealed = writer.seal(&positions, counts)?;
        drop(writer);
        self.stored_alerts.sealed(&alerts, None);
        for stream in &mut self.streams {
            stream.sealed = stream.reached.or(stream.sealed);
        }
        self.report.seals += 1;
        self.report.sealed_bytes += sealed.bytes;
        self.report.sealed_files += sealed.files.len() as u64;
        self.report.warnings.extend(sealed.warnings.iter().cloned());
        self.observer.sealed(&sealed);
        Ok(())
    }

    fn report_progress(&mut self) {
        self.progress.bytes_read = self.bytes_read.load(Ordering::Relaxed);
        self.observer.progress(&self.progress);
    }
}

/// Returns the block that contains a reject, given the reject's number among those of the job.
fn part_of_reject(parts: &[PartResult], reject: usize) -> Option<&PartResult> {
    let mut left = reject as u64;
    parts.iter().find(|part| {
        let is_here = left < part.rejects;
        left = left.saturating_sub(part.rejects);
        is_here
    })
}

/// Beginning of the names of partitions that stand for empty files.
pub const EMPTY: &str = "empty/";

fn add(total: &mut Counts, counts: Counts) {
    total.received += counts.received;
    total.events += counts.events;
    total.rejects += counts.rejects;
    total.duplicates += counts.duplicates;
}

/// Checks that a report's sum holds: `received = events + rejects + duplicates`.
pub fn is_conserved(counts: &Counts) -> bool {
    counts.received == counts.events + counts.rejects + counts.duplicates
}
