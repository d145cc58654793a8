//! The reader: turns inputs into blocks, each under the partition that it belongs to.
//!
//! Invariants:
//! - Text is skipped as stored only after it was read and compared. If the input reaches a sealed
//!   position, the text is compared with the hash of that position; if the input ends before it,
//!   the text is compared with the stored rows themselves.
//! - A stream is never identified with one that has unsealed rows in this run. If the two may be
//!   the same, the stream waits until those rows are sealed.
//! - A block longer than the bound, which has one long line, is under way alone.
//! - Blocks that are kept to be decoded together are sent before the reader waits for anything that
//!   depends on them, or for a pipe.
//! - The message about a stream comes before the stream's first block. The last message of all has
//!   the number of jobs.
//!
//! A crash loses nothing: the next run reads the inputs again and compares them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};
use strongroom_archive::{Archive, Position, Writer};
use strongroom_lines::frame::Origin;
use strongroom_schemas::Table;

use super::reached::Reached;
use super::room::{Room, Taken};
use super::{
    IngestOptions, Job, JobPart, ReaderMessage, StreamState, TEXT_TIMES_MAX, TOGETHER_BYTES_MAX,
    TOGETHER_MAX, lock,
};
use crate::alike;
use crate::seal::StoredRejects;
use crate::source::place::{End, Heads, Lookup, Stored, look_up};
use crate::source::{BlockBounds, CompareError, FileError, Input, Stream};

pub(super) struct Reader<'r> {
    pub(super) options: &'r IngestOptions,
    pub(super) archive: &'r Archive,
    pub(super) writer: &'r Mutex<Writer>,
    pub(super) jobs: Sender<Job>,
    pub(super) messages: Sender<ReaderMessage>,
    pub(super) permits: Receiver<()>,
    /// Number of permits that exist.
    pub(super) permits_max: usize,
    /// Buffers of decoded blocks, for reuse.
    pub(super) buffers: Receiver<Vec<u8>>,
    pub(super) room: Arc<Room>,
    pub(super) reached: Arc<Reached>,
    pub(super) bytes_read: Arc<AtomicU64>,
    pub(super) sent: Sent,
    pub(super) together: Option<Together>,
}

/// Blocks that will be decoded together. They share one permit.
pub(super) struct Together {
    parts: Vec<JobPart>,
    bytes: usize,
    lines: usize,
    stored: StoredRejects,
    taken: Taken,
}

/// Counts of what the reader has sent so far.
#[derive(Default)]
pub(super) struct Sent {
    jobs: u64,
    streams: usize,
    /// Permits that were taken and are not used for a job yet.
    spare: usize,
    /// A buffer that is free, because its block was copied into a smaller one.
    buffer: Option<Vec<u8>>,
    /// Partitions with unsealed rows, each with the places where it may end when they are sealed.
    /// Until then the archive cannot say what it has of them.
    unsealed: HashMap<String, Vec<End>>,
    /// Partitions whose end is not known, because an unfinished last line may have been left out.
    open: Vec<String>,
    heads: Heads,
}

/// What the archive holds of an input.
enum Found {
    /// Nothing, or its beginning: the stream is positioned after what is stored.
    Stream { stream: Box<Stream>, state: Box<StreamState>, rejects: StoredRejects },
    /// All of it, as the beginning of a longer stream.
    Known { records: u64, bytes: u64 },
}

/// The coordinator has failed, and will report the reason itself.
struct CoordinatorGone;

impl Reader<'_> {
    pub(super) fn run(mut self) {
        let options = self.options;
        for input in &options.inputs {
            if options.stop.load(Ordering::Relaxed) {
                break;
            }
            match self.read(input) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    if self.messages.send(ReaderMessage::FileFailed(error)).is_err() {
                        return;
                    }
                }
                Err(CoordinatorGone) => return,
            }
        }
        if self.send_together().is_err() {
            return;
        }
        // A coordinator that has failed receives nothing.
        let _ = self.messages.send(ReaderMessage::ReadAll { jobs: self.sent.jobs });
    }

    fn send(&self, message: ReaderMessage) -> Result<(), CoordinatorGone> {
        self.messages.send(message).map_err(|_| CoordinatorGone)
    }

    /// Waits until the reader holds this many unused permits.
    fn take_permits(&mut self, wanted: usize) -> Result<(), CoordinatorGone> {
        while self.sent.spare < wanted {
            self.permits.recv().map_err(|_| CoordinatorGone)?;
            self.sent.spare += 1;
        }
        Ok(())
    }

    fn send_job(
        &mut self,
        parts: Vec<JobPart>,
        stored: StoredRejects,
        taken: Taken,
    ) -> Result<(), CoordinatorGone> {
        let job = Job { sequence: self.sent.jobs, parts, stored, taken };
        self.jobs.send(job).map_err(|_| CoordinatorGone)?;
        self.sent.jobs += 1;
        Ok(())
    }

    /// Sends the blocks that are kept.
    fn send_together(&mut self) -> Result<(), CoordinatorGone> {
        match self.together.take() {
            Some(Together { parts, stored, taken, .. }) => self.send_job(parts, stored, taken),
            None => Ok(()),
        }
    }

    /// Copies a short block out of its large buffer, and keeps it to be decoded with others.
    /// Returns a block that is not kept.
    fn keep(
        &mut self,
        mut part: JobPart,
        rejects: &StoredRejects,
        taken: Taken,
    ) -> Result<Option<(JobPart, Taken)>, CoordinatorGone> {
        let block = &mut part.block.block;
        let bytes = block.bytes.len();
        let bytes_max = TOGETHER_BYTES_MAX.min(self.options.limits.block_bytes_max);
        if bytes > bytes_max || rejects.may_have(block.offset) {
            self.send_together()?;
            return Ok(Some((part, taken)));
        }
        let lines = memchr::memchr_iter(b'\n', &block.bytes).count() + 1;
        // A seal ends between row groups, so a row group must not be larger than a seal should be.
        let limits = &self.options.limits;
        let text_max = limits.block_bytes_max.min(usize::try_from(limits.seal_bytes).unwrap_or(usize::MAX));
        let has_room = |kept: &Together| {
            kept.parts.len() < TOGETHER_MAX
                && kept.bytes + bytes <= text_max
                && kept.lines + lines <= self.options.block_lines_max
        };
        if self.together.as_ref().is_some_and(|kept| !has_room(kept)) {
            self.send_together()?;
        }
        let text = block.bytes.as_slice().to_vec();
        self.sent.buffer = Some(std::mem::replace(&mut block.bytes, text));
        match &mut self.together {
            Some(kept) => {
                kept.parts.push(part);
                kept.bytes += bytes;
                kept.lines += lines;
                kept.taken.add(taken);
            }
            none => {
                // The permit of this block is now the permit of all kept blocks.
                self.sent.spare -= 1;
                let stored = StoredRejects::before(i64::MIN);
                *none = Some(Together { parts: vec![part], bytes, lines, stored, taken });
            }
        }
        Ok(None)
    }

    /// Reads one input and sends its blocks to the workers. The inner error is about the input; the
    /// run goes on without it.
    fn read(&mut self, input: &Input) -> Result<Result<(), FileError>, CoordinatorGone> {
        let limits = &self.options.limits;
        let bounds = BlockBounds {
            bytes_max: limits.block_bytes_max,
            lines_max: self.options.block_lines_max,
            line_bytes_max: limits.line_bytes_max,
        };
        let (count, stop) = (Arc::clone(&self.bytes_read), Arc::clone(&self.options.stop));
        let opened = Stream::open(input.clone(), bounds, self.options.complete, count, stop);
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        let identity = match stream.identity(&self.options.cluster) {
            Ok(Some(identity)) => identity,
            // If the run stops, a pipe is not waited for. It then gives no text, but is not empty.
            Ok(None) if self.options.stop.load(Ordering::Relaxed) => return Ok(Ok(())),
            Ok(None) => {
                self.send(ReaderMessage::EmptyFile(input.clone()))?;
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        };
        let (mut stream, state, rejects) = match self.find_partition(stream, &identity)? {
            Ok(Found::Stream { stream, state, rejects }) => (stream, *state, rejects),
            Ok(Found::Known { records, bytes }) => {
                self.send(ReaderMessage::Known { records, bytes })?;
                self.send(ReaderMessage::FileKnown)?;
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        };
        if let Some(known) = state.sealed {
            self.send(ReaderMessage::Known {
                records: u64::try_from(known.records).unwrap_or(0),
                bytes: u64::try_from(known.next_offset).unwrap_or(0),
            })?;
        }
        let origin = self.origin(&state.partition);
        self.send(ReaderMessage::Stream(state))?;
        let number = self.sent.streams;
        self.sent.streams += 1;
        let mut blocks = 0;
        while !self.options.stop.load(Ordering::Relaxed) {
            if stream.is_pipe() {
                self.send_together()?;
            }
            self.take_permits(1)?;
            let bytes = limits.block_bytes_max.saturating_mul(TEXT_TIMES_MAX);
            let mut taken = match self.room.try_take(bytes) {
                Some(taken) => taken,
                None => {
                    self.send_together()?;
                    self.room.take(bytes).ok_or(CoordinatorGone)?
                }
            };
            let buffer = self.sent.buffer.take().or_else(|| self.buffers.try_recv().ok());
            match stream.next_block(&origin, buffer.unwrap_or_default()) {
                Ok(Some(block)) => {
                    let is_wide = block.block.bytes.len() > limits.block_bytes_max;
                    taken.shrink_to(block.block.bytes.len().saturating_mul(TEXT_TIMES_MAX));
                    let ends = self.sent.unsealed.entry(origin.partition.clone()).or_default();
                    ends.clear();
                    ends.push((stream.offset(), block.prefix));
                    if let Some(before) = block.before_open_line {
                        ends.push(before);
                        self.sent.open.push(origin.partition.clone());
                    }
                    blocks += 1;
                    let part = JobPart { stream: number, block };
                    let part = match stream.is_pipe() {
                        true => Some((part, taken)),
                        false => self.keep(part, &rejects, taken)?,
                    };
                    let Some((part, taken)) = part else { continue };
                    self.sent.spare -= 1;
                    if is_wide {
                        // All other blocks are done before this one is sent.
                        self.take_permits(self.permits_max - 1)?;
                    }
                    self.send_job(vec![part], rejects.clone(), taken)?;
                    if is_wide {
                        self.take_permits(self.permits_max)?;
                    }
                }
                Ok(None) => {
                    if blocks == 0 {
                        self.send(ReaderMessage::FileKnown)?;
                    }
                    break;
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// Finds the partition that has this very stream, or a new partition. The stream is returned
    /// positioned after what the archive has of it.
    fn find_partition(
        &mut self,
        stream: Stream,
        identity: &str,
    ) -> Result<Result<Found, FileError>, CoordinatorGone> {
        let mut looked_up = self.look_up(stream, identity);
        while let Ok(Lookup { is_unsure: true, stream, .. }) = looked_up {
            if !self.close_ends()? {
                self.seal_now()?;
            }
            let stream = if stream.offset() == 0 { Ok(stream) } else { stream.again() };
            looked_up = stream.and_then(|stream| self.look_up(stream, identity));
        }
        Ok(looked_up.and_then(|lookup| self.found(lookup)))
    }

    fn look_up(&mut self, mut stream: Stream, identity: &str) -> Result<Lookup, FileError> {
        let cluster = &self.options.cluster;
        // The stream may have been opened again, and then has not read its first line yet.
        stream.identity(cluster)?;
        let (writer, unsealed) = (self.writer, &self.sent.unsealed);
        let mut stored = |partition: &str| {
            // If the writer cannot answer, it has failed; the next seal reports that.
            let [events, rejects] = [Table::Events, Table::Rejects]
                .map(|table| lock(writer).position(table, partition).ok().flatten());
            let unsealed = unsealed.get(partition).cloned().unwrap_or_default();
            let end = |position: Position| (position.next_offset, position.prefix_blake3);
            let rejects_ahead =
                rejects.filter(|ahead| events.is_none_or(|known| known.next_offset < ahead.next_offset));
            let is_stored = events.is_some() || rejects.is_some() || !unsealed.is_empty();
            is_stored.then(|| Stored {
                events: events.map(end),
                // If this run has unsealed rows of the partition, it has compared the rejects
                // already.
                rejects_ahead: rejects_ahead.filter(|_| unsealed.is_empty()).map(end),
                unsealed,
            })
        };
        look_up(stream, identity, cluster, &mut self.sent.heads, &mut stored)
    }

    /// Compares a stream with longer stored ones, and returns where to continue.
    fn found(&mut self, lookup: Lookup) -> Result<Found, FileError> {
        let Lookup { mut stream, same, longer, end, free, start, .. } = lookup;
        let is_all_stored = end.is_some_and(|end| same.is_some() && stream.offset() == end.0);
        for (partition, stored_end) in longer.into_iter().filter(|_| !is_all_stored) {
            let Some(end) = end else { continue };
            let heads = &mut self.sent.heads;
            alike::load_head(self.archive, &partition, stored_end, heads);
            if heads.differs(&partition, &start, stored_end) {
                continue;
            }
            let (origin, config) = (self.origin(&partition), self.options.limits.decoder());
            if let Some(records) = alike::stored_start(self.archive, &stream, &origin, &config, end)? {
                return Ok(Found::Known { records, bytes: u64::try_from(end.0).unwrap_or(0) });
            }
        }
        if same.is_none() && stream.offset() > 0 {
            stream = stream.again()?;
        }
        let partition = same.unwrap_or(free);
        self.sent.heads.remember_start(&partition, start);
        let label = stream.input().label();
        let [sealed, rejects, alerts] = {
            let mut writer = lock(self.writer);
            [Table::Events, Table::Rejects, Table::Alerts]
                .map(|table| writer.position(table, &partition).ok().flatten())
        };
        let from = |position: Option<Position>| position.map_or(i64::MIN, |position| position.next_offset);
        let alerts_ahead = from(alerts) > from(sealed);
        let alerts_stored = HashSet::new();
        let rejects = StoredRejects::of(self.archive, &partition, sealed, rejects).map_err(|source| {
            FileError::Compare { label: label.clone(), source: Box::new(CompareError::Archive(source)) }
        })?;
        let state = StreamState { partition, label, sealed, reached: None, alerts_ahead, alerts_stored };
        Ok(Found::Stream { stream: Box::new(stream), state: Box::new(state), rejects })
    }

    /// Learns the ends of the streams whose end was not known. Returns `false` if there were none.
    fn close_ends(&mut self) -> Result<bool, CoordinatorGone> {
        let open = std::mem::take(&mut self.sent.open);
        if open.is_empty() {
            return Ok(false);
        }
        self.send_together()?;
        let ends = self.reached.wait(self.sent.jobs, &open).ok_or(CoordinatorGone)?;
        for (partition, end) in open.into_iter().zip(ends) {
            match end {
                Some(end) => _ = self.sent.unsealed.insert(partition, vec![end]),
                // Nothing of the stream was taken.
                None => _ = self.sent.unsealed.remove(&partition),
            }
        }
        Ok(true)
    }

    /// Waits until everything that was read so far is sealed.
    fn seal_now(&mut self) -> Result<(), CoordinatorGone> {
        self.send_together()?;
        let (done, sealed) = bounded(1);
        self.send(ReaderMessage::SealNow { jobs: self.sent.jobs, done })?;
        sealed.recv().map_err(|_| CoordinatorGone)?;
        self.sent.unsealed.clear();
        self.sent.open.clear();
        self.reached.clear();
        Ok(())
    }

    fn origin(&self, partition: &str) -> Arc<Origin> {
        Arc::new(Origin {
            partition: partition.to_owned(),
            cluster: self.options.cluster.clone(),
            reading: Arc::clone(&self.options.reading),
        })
    }
}
