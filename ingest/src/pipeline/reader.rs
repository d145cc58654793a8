//! The reader: turns inputs into blocks, each under the partition that it belongs to.
//!
//! Invariants:
//! - Text that is skipped because it is stored was read and compared. If the input reaches a sealed
//!   position, the text is compared with the hash of that position; if the input ends before it,
//!   with the stored rows themselves.
//! - No partition is looked up while this run has unsealed rows of it. A stream that may belong to
//!   such a partition waits until the rows are sealed.
//! - A block longer than the bound, which has one long line, is under way alone.
//! - The message about a stream comes before the stream's first block; the last message is the
//!   number of blocks.
//!
//! A crash loses nothing: the next run reads the inputs again and compares them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};
use strongroom_archive::{Archive, Position, Writer};
use strongroom_lines::frame::Origin;
use strongroom_schemas::Table;

use super::room::Room;
use super::{IngestOptions, Job, ReaderMessage, StreamState, TEXT_TIMES_MAX, lock};
use crate::alike;
use crate::seal::StoredRejects;
use crate::source::{ALIKE_MAX, BlockBounds, CompareError, FileError, Input, Skipped, Stream};

pub(super) struct Reader<'r> {
    pub(super) options: &'r IngestOptions,
    pub(super) archive: &'r Archive,
    pub(super) writer: &'r Mutex<Writer>,
    pub(super) jobs: Sender<Job>,
    pub(super) messages: Sender<ReaderMessage>,
    pub(super) permits: Receiver<()>,
    /// Number of permits there are.
    pub(super) permits_max: usize,
    /// Buffers of decoded blocks, for reuse.
    pub(super) buffers: Receiver<Vec<u8>>,
    pub(super) room: Arc<Room>,
    pub(super) bytes_read: Arc<AtomicU64>,
    pub(super) sent: Sent,
}

/// What the reader has sent so far.
#[derive(Default)]
pub(super) struct Sent {
    blocks: u64,
    streams: usize,
    /// Permits that were taken and are not used for a block yet.
    spare: usize,
    /// Partitions that may have unsealed rows, so the archive cannot say yet what it has of them.
    unsealed: HashSet<String>,
}

/// What the archive holds of an input.
enum Found {
    /// Nothing, or its beginning: the stream is positioned after what is stored.
    Stream { stream: Box<Stream>, state: Box<StreamState>, rejects: StoredRejects },
    /// All of it, as the beginning of a longer stream.
    Known { records: u64, bytes: u64 },
}

/// The result of the comparison with one partition.
enum Comparison {
    Found(Box<Found>),
    /// The partition has another stream; the stream that was compared is returned at its first
    /// byte.
    OtherStream(Box<Stream>),
}

/// The coordinator has failed, and reports why.
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
        // A coordinator that has failed receives nothing.
        let _ = self.messages.send(ReaderMessage::ReadAll { blocks: self.sent.blocks });
    }

    fn send(&self, message: ReaderMessage) -> Result<(), CoordinatorGone> {
        self.messages.send(message).map_err(|_| CoordinatorGone)
    }

    /// Waits until the reader holds this many permits that are not used.
    fn take_permits(&mut self, wanted: usize) -> Result<(), CoordinatorGone> {
        while self.sent.spare < wanted {
            self.permits.recv().map_err(|_| CoordinatorGone)?;
            self.sent.spare += 1;
        }
        Ok(())
    }

    /// Reads one input.
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
            // A pipe that was not waited for is not empty.
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
            self.take_permits(1)?;
            let bytes = limits.block_bytes_max.saturating_mul(TEXT_TIMES_MAX);
            let mut taken = self.room.take(bytes).ok_or(CoordinatorGone)?;
            let buffer = self.buffers.try_recv().unwrap_or_default();
            match stream.next_block(&origin, buffer) {
                Ok(Some(block)) => {
                    self.sent.spare -= 1;
                    let is_wide = block.block.bytes.len() > limits.block_bytes_max;
                    if is_wide {
                        // All other blocks are done before this one is sent.
                        self.take_permits(self.permits_max - 1)?;
                    }
                    taken.shrink_to(block.block.bytes.len().saturating_mul(TEXT_TIMES_MAX));
                    let stored = rejects.clone();
                    let job = Job { sequence: self.sent.blocks, stream: number, block, stored, taken };
                    if self.jobs.send(job).is_err() {
                        return Err(CoordinatorGone);
                    }
                    self.sent.blocks += 1;
                    blocks += 1;
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
        mut stream: Stream,
        identity: &str,
    ) -> Result<Result<Found, FileError>, CoordinatorGone> {
        for number in 0..ALIKE_MAX {
            let partition = if number == 0 { identity.to_owned() } else { format!("{identity}.{number}") };
            if self.sent.unsealed.contains(&partition) {
                self.seal_now()?;
            }
            match self.in_partition(stream, partition) {
                Ok(Comparison::Found(found)) => {
                    let found = *found;
                    if let Found::Stream { state, .. } = &found {
                        self.sent.unsealed.insert(state.partition.clone());
                    }
                    return Ok(Ok(found));
                }
                Ok(Comparison::OtherStream(same)) => stream = *same,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Err(FileError::TooManyAlike { label: stream.input().label(), tries: ALIKE_MAX }))
    }

    /// Has everything sealed that was read so far.
    fn seal_now(&mut self) -> Result<(), CoordinatorGone> {
        let (done, sealed) = bounded(1);
        self.send(ReaderMessage::SealNow { blocks: self.sent.blocks, done })?;
        sealed.recv().map_err(|_| CoordinatorGone)?;
        self.sent.unsealed.clear();
        Ok(())
    }

    /// Compares a stream with what the archive has under the name `partition`.
    fn in_partition(&self, mut stream: Stream, partition: String) -> Result<Comparison, FileError> {
        let label = stream.input().label();
        let [sealed, rejects, alerts] = {
            let mut writer = lock(self.writer);
            // If the writer cannot answer, it has failed; the next seal reports that.
            [Table::Events, Table::Rejects, Table::Alerts]
                .map(|table| writer.position(table, &partition).ok().flatten())
        };
        let from = |position: Option<Position>| position.map_or(i64::MIN, |position| position.next_offset);
        let rejects_from = from(rejects);
        if let Some(ahead) = rejects.filter(|_| rejects_from > from(sealed)) {
            // A run died after it had committed the rejects and before it had committed the events.
            // The rejects are this stream's only if they match. Lines are cut as they were in that
            // run only if a block ends where a block of that run ended.
            if stream.again()?.skip_to(ahead.next_offset)? != Skipped::To(ahead.prefix_blake3) {
                return Ok(Comparison::OtherStream(Box::new(stream)));
            }
            stream.cut_at(ahead.next_offset);
        }
        if let Some(known) = sealed {
            match stream.skip_to(known.next_offset)? {
                Skipped::To(prefix) if prefix == known.prefix_blake3 => {}
                Skipped::To(_) => return Ok(Comparison::OtherStream(Box::new(stream.again()?))),
                Skipped::Short(length, prefix) => {
                    let origin = self.origin(&partition);
                    let config = self.options.limits.decoder();
                    let end = (length, prefix);
                    let stored = alike::stored_start(self.archive, &stream, &origin, &config, end)?;
                    let Some(records) = stored else {
                        return Ok(Comparison::OtherStream(Box::new(stream.again()?)));
                    };
                    let bytes = u64::try_from(length).unwrap_or(0);
                    return Ok(Comparison::Found(Box::new(Found::Known { records, bytes })));
                }
            }
        }
        let alerts_ahead = from(alerts) > from(sealed);
        let alerts_stored = HashSet::new();
        let rejects = StoredRejects::of(self.archive, &partition, sealed, rejects).map_err(|source| {
            FileError::Compare { label: label.clone(), source: Box::new(CompareError::Archive(source)) }
        })?;
        let state = StreamState { partition, label, sealed, reached: None, alerts_ahead, alerts_stored };
        Ok(Comparison::Found(Box::new(Found::Stream {
            stream: Box::new(stream),
            state: Box::new(state),
            rejects,
        })))
    }

    fn origin(&self, partition: &str) -> Arc<Origin> {
        Arc::new(Origin {
            partition: partition.to_owned(),
            cluster: self.options.cluster.clone(),
            unwrap: self.options.unwrap.clone(),
        })
    }
}
