//! The interface between a source and the driver: chunks, requests, positions and troubles.
//!
//! Invariant: the chunks of one partition follow each other without a gap, from the position that
//! [`Feed::position`] returned; if they do not, the driver ends the run. Nothing here survives a
//! crash: a source then asks for the position again.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender, bounded};
use strongroom_archive::fingerprint::Fingerprint;
use strongroom_archive::{Archive, Position};
use strongroom_lines::Block;

/// The names of a partition: one for the archive, one for people.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamName {
    /// `kind/identity`, as in the column `source` and in the block's origin.
    pub partition: String,
    /// Name for people: a path, `topic[3]`, a listener.
    pub label: String,
}

/// Whole lines of one partition.
#[derive(Debug)]
pub struct Chunk {
    pub stream: Arc<StreamName>,
    /// The text. It ends after a newline, at the end of a stream that no longer grows, or inside an
    /// over-long line.
    pub block: Block,
    /// Fingerprint of the stream up to the block's end: the hash of all its bytes, or the chain of
    /// its lines, as the partition's kind defines it.
    pub prefix: Fingerprint,
    /// The broker's number of the first message after the block.
    pub broker_offset: Option<i64>,
    /// When the first byte of the block was received.
    pub arrived: Instant,
}

/// The run is over. A source that gets this error returns from [`Source::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Why a source cannot continue. The run continues without it, and restarts it after a while.
#[derive(Debug)]
pub struct SourceError {
    pub message: String,
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| -> &(dyn std::error::Error + 'static) { source.as_ref() })
    }
}

/// A source of lines that lasts as long as the process.
pub trait Source: Send {
    /// Returns the name in the configuration.
    fn name(&self) -> &str;

    /// Hands over lines until [`Feed::is_stopping`], or until a call returns [`Stopped`]. After a
    /// failure anywhere in the pipeline it is called again, with a new feed. It must rely on
    /// nothing from an earlier run, only on what [`Feed::position`] returns.
    ///
    /// # Errors
    /// An error that the source itself cannot recover from. Conditions that pass (a broker is away,
    /// a file is missing) are not errors: the source waits, and reports them with
    /// [`Feed::trouble`].
    fn run(&mut self, feed: &Feed) -> Result<(), SourceError>;
}

/// What a source has done since the process started.
#[derive(Debug)]
pub struct SourceCounters {
    /// Bytes of text handed over.
    pub bytes: AtomicU64,
    /// Records that were received again and not handed over.
    pub duplicates: AtomicU64,
    /// Amount of data that is known to wait at the source: messages of a broker, or bytes of files
    /// or of a write-ahead log.
    pub lag: AtomicI64,
    /// Files in followed folders that are not read, because they are not named like logs.
    pub left_out: AtomicU64,
    /// Number of troubles so far.
    pub troubles: AtomicU64,
    /// The current trouble; empty if there is none.
    trouble: Mutex<String>,
    /// When something was last handed over.
    last: Mutex<Option<Instant>>,
    started: Instant,
    assigned: Mutex<Option<Assigned>>,
}

/// How many partitions a group has assigned to a source, and since when it has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub partitions: usize,
    since: Option<Instant>,
}

impl Default for SourceCounters {
    fn default() -> Self {
        SourceCounters {
            bytes: AtomicU64::default(),
            duplicates: AtomicU64::default(),
            lag: AtomicI64::default(),
            left_out: AtomicU64::default(),
            troubles: AtomicU64::default(),
            trouble: Mutex::default(),
            last: Mutex::default(),
            started: Instant::now(),
            assigned: Mutex::default(),
        }
    }
}

impl SourceCounters {
    /// Returns the number of partitions that the source's group has assigned to it; `None` if the
    /// source is in no group.
    pub fn partitions(&self) -> Option<usize> {
        lock(&self.assigned).map(|assigned| assigned.partitions)
    }

    /// Returns the time since which the source has handed nothing over: the time of the last chunk,
    /// of the group's assignment, or of the start. `None` if the group has assigned no partition to
    /// this source, because other members then read all of them.
    pub fn quiet_since(&self) -> Option<Instant> {
        let assigned = match *lock(&self.assigned) {
            None => None,
            Some(Assigned { since: Some(since), .. }) => Some(since),
            Some(Assigned { since: None, .. }) => return None,
        };
        [Some(self.started), self.last_chunk(), assigned].into_iter().flatten().max()
    }

    /// Returns the current trouble, in words.
    pub fn trouble(&self) -> Option<String> {
        let trouble = lock(&self.trouble);
        (!trouble.is_empty()).then(|| trouble.clone())
    }

    /// Returns when something was last handed over.
    pub fn last_chunk(&self) -> Option<Instant> {
        *lock(&self.last)
    }
}

/// State that the feeds of a run share with the driver.
#[derive(Debug)]
pub(crate) struct Shared {
    stopping: Arc<AtomicBool>,
    /// Bytes of text under way.
    under_way: Mutex<u64>,
    room: Condvar,
    under_way_max: u64,
    /// For each partition, the position up to which it is sealed.
    sealed: Mutex<HashMap<String, Position>>,
    /// For each partition, the position up to which it has been handed over in this run.
    reached: Mutex<HashMap<String, Position>>,
    /// Partitions whose rejects are ahead of their events in the archive: a run died between two
    /// commits.
    rejects_ahead: HashMap<String, Position>,
    /// The archive, for comparing streams with what it has.
    pub(crate) archive: Option<Archive>,
}

impl Shared {
    pub(crate) fn new(
        sealed: HashMap<String, Position>,
        rejects_ahead: HashMap<String, Position>,
        under_way_max: u64,
        archive: Option<Archive>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            stopping: Arc::default(),
            under_way: Mutex::new(0),
            room: Condvar::new(),
            under_way_max,
            sealed: Mutex::new(sealed),
            reached: Mutex::default(),
            rejects_ahead,
            archive,
        })
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.room.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Subtracts `bytes` from the text under way, because they were encoded or given up.
    pub(crate) fn release(&self, bytes: u64) {
        let mut under_way = lock(&self.under_way);
        *under_way = under_way.saturating_sub(bytes);
        self.room.notify_all();
    }

    pub(crate) fn under_way(&self) -> u64 {
        *lock(&self.under_way)
    }

    pub(crate) fn seal(&self, positions: impl IntoIterator<Item = (String, Position)>) {
        lock(&self.sealed).extend(positions);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The values are whole after each statement, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a source sends to the driver.
#[derive(Debug)]
pub(crate) enum SourceMessage {
    Chunk(Chunk),
    /// Records that were received again.
    Duplicates(u64),
    /// Seal everything sent so far, then answer.
    Seal(Sender<()>),
    /// Read the positions of partitions again, because another process may have moved them, then
    /// answer.
    Refresh(Vec<String>, Sender<()>),
}

/// The handle through which a source sends to the pipeline and asks for positions.
#[derive(Clone, Debug)]
pub struct Feed {
    pub(crate) shared: Arc<Shared>,
    pub(crate) driver: Sender<SourceMessage>,
    pub(crate) counters: Arc<SourceCounters>,
    /// Longest line that is decoded, in bytes.
    pub line_bytes_max: usize,
}

impl Feed {
    /// Whether the run is over.
    pub fn is_stopping(&self) -> bool {
        self.shared.is_stopping()
    }

    /// Returns where to continue a partition: after what was handed over in this run, or else after
    /// what is sealed. `None` if the archive has nothing of the partition.
    pub fn position(&self, partition: &str) -> Option<Position> {
        lock(&self.shared.reached).get(partition).copied().or_else(|| self.sealed(partition))
    }

    /// Returns how far a partition is sealed. Everything before that position is durable, and the
    /// source need not keep it.
    pub fn sealed(&self, partition: &str) -> Option<Position> {
        lock(&self.shared.sealed).get(partition).copied()
    }

    /// Returns where the rejects of a partition end, if they are ahead of its events. Up to there,
    /// lines must be cut as they were when the rejects were stored.
    pub(crate) fn rejects_ahead(&self, partition: &str) -> Option<Position> {
        self.shared.rejects_ahead.get(partition).copied()
    }

    /// Returns the flag that is set when the run is over.
    pub(crate) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.stopping)
    }

    /// Returns the partitions whose name begins with `kind`, with the positions up to which they
    /// are sealed.
    pub fn sealed_partitions(&self, kind: &str) -> Vec<(String, Position)> {
        let sealed = lock(&self.shared.sealed);
        let of_kind = sealed.iter().filter(|(partition, _)| partition.starts_with(kind));
        of_kind.map(|(partition, position)| (partition.clone(), *position)).collect()
    }

    /// Hands a chunk over, and waits while the pipeline is full. An empty chunk is ignored.
    ///
    /// # Errors
    /// [`Stopped`] if the run is over. The chunk is then dropped, and the next run reads it again.
    pub fn send(&self, chunk: Chunk) -> Result<(), Stopped> {
        let mut left = self.offer(chunk, WAIT)?;
        while let Some(chunk) = left {
            left = self.offer(chunk, WAIT)?;
        }
        Ok(())
    }

    /// Hands a chunk over. If the pipeline is full for longer than `wait`, returns the chunk, for a
    /// source that has other work to do meanwhile. An empty chunk is ignored.
    ///
    /// # Errors
    /// [`Stopped`] if the run is over. The chunk is then dropped, and the next run reads it again.
    pub fn offer(&self, chunk: Chunk, wait: Duration) -> Result<Option<Chunk>, Stopped> {
        let bytes = chunk.block.bytes.len() as u64;
        if bytes == 0 {
            return Ok(None);
        }
        let until = Instant::now() + wait;
        {
            let mut under_way = lock(&self.shared.under_way);
            while *under_way > 0 && *under_way + bytes > self.shared.under_way_max && !self.is_stopping() {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Some(chunk));
                }
                let waited = self.shared.room.wait_timeout(under_way, left.min(WAIT));
                under_way = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if self.is_stopping() {
                return Err(Stopped);
            }
            *under_way += bytes;
        }
        let partition = chunk.stream.partition.clone();
        let reached = Position {
            next_offset: chunk.block.offset + i64::try_from(bytes).unwrap_or(i64::MAX),
            // The driver counts the records, because only the driver knows their number.
            records: 0,
            prefix_blake3: chunk.prefix,
            broker_offset: chunk.broker_offset,
        };
        {
            // Locked while the chunk is sent. So if two sources have found the same stream, the
            // driver receives their chunks in the order in which they are accepted here.
            let mut all = lock(&self.shared.reached);
            let known = all.get(&partition).copied().or_else(|| self.sealed(&partition));
            if chunk.block.offset < known.map_or(0, |known| known.next_offset) {
                // Another source has handed this text over. This source notices when it next asks
                // for its position.
                self.shared.release(bytes);
                return Ok(None);
            }
            match self.driver.send_deadline(SourceMessage::Chunk(chunk), until) {
                Ok(()) => _ = all.insert(partition, reached),
                Err(SendTimeoutError::Timeout(SourceMessage::Chunk(chunk))) => {
                    self.shared.release(bytes);
                    return Ok(Some(chunk));
                }
                Err(_) => return Err(Stopped),
            }
        }
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        *lock(&self.counters.last) = Some(Instant::now());
        Ok(None)
    }

    /// Reports records that were received again and are left out. The conservation sum counts them.
    ///
    /// # Errors
    /// [`Stopped`] if the run is over.
    pub fn duplicates(&self, records: u64) -> Result<(), Stopped> {
        self.counters.duplicates.fetch_add(records, Ordering::Relaxed);
        self.driver.send(SourceMessage::Duplicates(records)).map_err(|_| Stopped)
    }

    /// Requests a seal of everything that was handed over so far, and waits for it. Returns `false`
    /// if the seal took longer than `wait`.
    ///
    /// # Errors
    /// [`Stopped`] if the run is over.
    pub fn seal_now(&self, wait: Duration) -> Result<bool, Stopped> {
        let (done, answer) = bounded(1);
        if !self.message(SourceMessage::Seal(done), wait)? {
            return Ok(false);
        }
        self.wait_for(&answer, wait)
    }

    /// Reads a partition's position again from the archive. Returns `false` if that took longer
    /// than `wait`. A source that shares partitions with other processes calls this when it is
    /// assigned a partition, before it calls [`Feed::position`]. What this process handed over
    /// earlier of the partition then no longer counts.
    ///
    /// # Errors
    /// [`Stopped`] if the run is over.
    pub fn refresh(&self, partition: &str, wait: Duration) -> Result<bool, Stopped> {
        self.refresh_all(std::slice::from_ref(&partition), wait)
    }

    /// Like [`Feed::refresh`], for several partitions with one read of the archive.
    ///
    /// # Errors
    /// [`Stopped`] if the run is over.
    pub fn refresh_all(&self, partitions: &[&str], wait: Duration) -> Result<bool, Stopped> {
        let (done, answer) = bounded(1);
        if !self.message(
            SourceMessage::Refresh(partitions.iter().map(|name| (*name).to_owned()).collect(), done),
            wait,
        )? {
            return Ok(false);
        }
        let refreshed = self.wait_for(&answer, wait)?;
        if refreshed {
            let mut reached = lock(&self.shared.reached);
            for partition in partitions {
                reached.remove(*partition);
            }
        }
        Ok(refreshed)
    }

    fn message(&self, message: SourceMessage, wait: Duration) -> Result<bool, Stopped> {
        match self.driver.send_timeout(message, wait) {
            Ok(()) => Ok(true),
            Err(SendTimeoutError::Timeout(_)) => Ok(false),
            Err(SendTimeoutError::Disconnected(_)) => Err(Stopped),
        }
    }

    fn wait_for(&self, answer: &crossbeam_channel::Receiver<()>, wait: Duration) -> Result<bool, Stopped> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match answer.recv_timeout(left.min(WAIT)) {
                Ok(()) => return Ok(true),
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return Err(Stopped),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                    if self.is_stopping() {
                        return Err(Stopped);
                    }
                    if left.is_zero() {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Sets the amount of data that is known to wait at the source.
    pub fn lag(&self, lag: i64) {
        self.counters.lag.store(lag, Ordering::Relaxed);
    }

    /// Sets how many partitions the source's group has assigned to it.
    pub fn assigned(&self, partitions: usize) {
        let mut assigned = lock(&self.counters.assigned);
        let before = (*assigned).and_then(|assigned| assigned.since);
        let since = (partitions > 0).then(|| before.unwrap_or_else(Instant::now));
        *assigned = Some(Assigned { partitions, since });
    }

    /// Sets how many files in followed folders are not read, because they are not named like logs.
    pub fn left_out(&self, files: usize) {
        self.counters.left_out.store(files as u64, Ordering::Relaxed);
    }

    /// Reports a trouble: something is wrong, and the source waits until it passes. A trouble is
    /// logged once, and the readiness check shows it until [`Feed::recovered`].
    pub fn trouble(&self, what: impl fmt::Display) {
        let what = what.to_string();
        let mut trouble = lock(&self.counters.trouble);
        if *trouble != what {
            tracing::warn!(trouble = %what, "source is blocked");
            self.counters.troubles.fetch_add(1, Ordering::Relaxed);
            *trouble = what;
        }
    }

    /// Reports that nothing is wrong any more.
    pub fn recovered(&self) {
        let mut trouble = lock(&self.counters.trouble);
        if !trouble.is_empty() {
            tracing::info!(trouble = %trouble, "source recovered");
            trouble.clear();
        }
    }
}

/// How often a waiting call checks whether the run is over.
const WAIT: Duration = Duration::from_millis(200);
