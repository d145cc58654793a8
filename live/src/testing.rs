//! For tests of sources: a driver and an archive in memory, and a pipeline that can be inspected.
//!
//! Invariant: the archive takes only what continues a partition, as the real one does; several
//! drivers may share it, like several processes. Violations are listed in [`Archive::problems`].

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use strongroom_archive::Position;
use strongroom_archive::fingerprint::LineChain;

use crate::feed::{Shared, SourceCounters, SourceMessage};
use crate::{Chunk, Feed};

/// An archive in memory: the sealed text of each partition.
#[derive(Clone, Debug, Default)]
pub struct Archive(Arc<Mutex<Sealed>>);

#[derive(Debug, Default)]
struct Sealed {
    partitions: BTreeMap<String, (Vec<u8>, Position)>,
    problems: Vec<String>,
    /// Number of bytes that were refused because another driver had sealed them before.
    fenced: u64,
}

impl Archive {
    fn lock(&self) -> MutexGuard<'_, Sealed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the sealed bytes of a partition.
    pub fn bytes(&self, partition: &str) -> Vec<u8> {
        self.lock().partitions.get(partition).map(|(bytes, _)| bytes.clone()).unwrap_or_default()
    }

    pub fn bytes_in_all(&self) -> usize {
        self.lock().partitions.values().map(|(bytes, _)| bytes.len()).sum()
    }

    pub fn positions(&self) -> HashMap<String, Position> {
        self.lock().partitions.iter().map(|(name, (_, position))| (name.clone(), *position)).collect()
    }

    /// Marks a partition as sealed up to `position`, whatever its bytes were.
    pub fn set_position(&self, partition: &str, position: Position) {
        self.lock().partitions.entry(partition.to_owned()).or_insert((Vec::new(), position)).1 = position;
    }

    pub fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }

    /// Returns the number of bytes that arrived after another driver had sealed them.
    pub fn fenced(&self) -> u64 {
        self.lock().fenced
    }

    fn seal(&self, chunk: &Chunk) {
        let mut sealed = self.lock();
        let Sealed { partitions, problems, fenced } = &mut *sealed;
        let (block, name) = (&chunk.block, &chunk.stream.partition);
        let (bytes, position) = partitions.entry(name.clone()).or_insert_with(|| {
            let none = Position { next_offset: 0, records: 0, prefix_blake3: [0; 16], broker_offset: None };
            (Vec::new(), none)
        });
        if block.offset < position.next_offset {
            *fenced += block.bytes.len() as u64;
            return;
        }
        let mut chain = LineChain::from(position.prefix_blake3);
        chain.update(&block.bytes);
        let lines = memchr::memchr_iter(b'\n', &block.bytes).count();
        if block.offset != position.next_offset {
            problems.push(format!("{name}: {} follows {}", block.offset, position.next_offset));
        }
        if chain.value() != Some(chunk.prefix) {
            problems.push(format!("{name}: another chain after {}", block.offset));
        }
        if block.first_line != position.records + 1 {
            problems.push(format!("{name}: line {} after {}", block.first_line, position.records));
        }
        bytes.extend_from_slice(&block.bytes);
        *position = Position {
            next_offset: block.offset + i64::try_from(block.bytes.len()).unwrap_or(i64::MAX),
            records: position.records + i64::try_from(lines).unwrap_or(i64::MAX),
            prefix_blake3: chunk.prefix,
            broker_offset: chunk.broker_offset,
        };
    }
}

/// The moments at which a driver seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealPolicy {
    /// It seals each chunk when it arrives.
    EveryChunk,
    /// It seals when it is asked to.
    OnRequest,
}

/// A driver that seals into an [`Archive`].
#[derive(Debug)]
pub struct Driver {
    pub feed: Feed,
    held: Arc<AtomicBool>,
    chunks: Arc<Mutex<Vec<(String, usize)>>>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    pub fn start(archive: &Archive, policy: SealPolicy, under_way_max: u64) -> Driver {
        let shared = Shared::new(archive.positions(), HashMap::new(), under_way_max, None);
        let (driver, messages) = bounded(64);
        let (held, chunks) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<(String, usize)>>>::default());
        let thread = std::thread::Builder::new().name("test driver".to_owned()).spawn({
            let (archive, shared) = (archive.clone(), Arc::clone(&shared));
            let (held, chunks) = (Arc::clone(&held), Arc::clone(&chunks));
            move || drive(&archive, &shared, &messages, policy, &held, &chunks)
        });
        let thread = thread.expect("a thread can be started in a test");
        let counters = Arc::<SourceCounters>::default();
        let feed = Feed { shared, driver, counters, line_bytes_max: 4 << 20 };
        Driver { feed, held, chunks, thread: Some(thread) }
    }

    /// Stops taking messages while `hold` is set, as if sealing hung.
    pub fn hold(&self, hold: bool) {
        self.held.store(hold, Ordering::Release);
    }

    /// Returns the chunks that were handed over so far, each with its partition and number of
    /// bytes.
    pub fn chunks(&self) -> Vec<(String, usize)> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn trouble(&self) -> Option<String> {
        self.feed.counters.trouble()
    }

    pub fn lag(&self) -> i64 {
        self.feed.counters.lag.load(Ordering::Relaxed)
    }

    /// Ends the run; what is not sealed is lost.
    pub fn stop(&mut self) {
        self.feed.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed, and shows in what is sealed.
            drop(thread.join());
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn drive(
    archive: &Archive,
    shared: &Shared,
    messages: &Receiver<SourceMessage>,
    policy: SealPolicy,
    held: &AtomicBool,
    chunks: &Mutex<Vec<(String, usize)>>,
) {
    let mut pending: Vec<Chunk> = Vec::new();
    loop {
        let stopping = || shared.is_stopping();
        while held.load(Ordering::Acquire) && !stopping() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let what = messages.recv_timeout(Duration::from_millis(20));
        if stopping() {
            return;
        }
        match what {
            Ok(SourceMessage::Chunk(chunk)) => {
                let bytes = chunk.block.bytes.len();
                let mut chunks = chunks.lock().unwrap_or_else(PoisonError::into_inner);
                chunks.push((chunk.stream.partition.clone(), bytes));
                shared.release(bytes as u64);
                pending.push(chunk);
                if policy == SealPolicy::EveryChunk {
                    seal(archive, shared, &mut pending);
                }
            }
            Ok(SourceMessage::Duplicates(_)) | Err(RecvTimeoutError::Timeout) => {}
            Ok(SourceMessage::Seal(done)) => {
                seal(archive, shared, &mut pending);
                // The requester may have given up waiting.
                let _ = done.send(());
            }
            Ok(SourceMessage::Refresh(_, done)) => {
                shared.seal(archive.positions());
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn seal(archive: &Archive, shared: &Shared, pending: &mut Vec<Chunk>) {
    for chunk in pending.drain(..) {
        archive.seal(&chunk);
    }
    shared.seal(archive.positions());
}

/// Takes what a source sends, and reports what is sealed.
#[derive(Debug)]
pub struct Pipeline {
    pub feed: Feed,
    messages: Receiver<SourceMessage>,
}

impl Pipeline {
    pub fn new(sealed: HashMap<String, Position>) -> Pipeline {
        let (driver, messages) = bounded(1 << 10);
        let shared = Shared::new(sealed, HashMap::new(), 64 << 20, None);
        let counters = Arc::new(SourceCounters::default());
        Pipeline { feed: Feed { shared, driver, counters, line_bytes_max: 4 << 20 }, messages }
    }

    /// Returns the next chunk, if one arrives within `wait`. Answers other messages meanwhile.
    pub fn next(&self, wait: Duration) -> Option<Chunk> {
        let until = Instant::now() + wait;
        loop {
            match self.messages.recv_deadline(until).ok()? {
                SourceMessage::Chunk(chunk) => {
                    self.feed.shared.release(chunk.block.bytes.len() as u64);
                    return Some(chunk);
                }
                SourceMessage::Duplicates(_) => {}
                SourceMessage::Seal(done) | SourceMessage::Refresh(_, done) => {
                    let _ = done.send(());
                }
            }
        }
    }

    pub fn seal(&self, partition: &str, position: Position) {
        self.feed.shared.seal([(partition.to_owned(), position)]);
    }

    pub fn stop(&self) {
        self.feed.shared.stop();
    }

    /// Returns the number of records that were received again.
    pub fn duplicates(&self) -> u64 {
        self.feed.counters.duplicates.load(Ordering::Relaxed)
    }

    /// Returns the amount of data that waits at the source.
    pub fn lag(&self) -> i64 {
        self.feed.counters.lag.load(Ordering::Relaxed)
    }

    /// Returns the current trouble; `None` if all is well.
    pub fn trouble(&self) -> Option<String> {
        self.feed.counters.trouble()
    }
}
