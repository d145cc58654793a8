//! Gathers the messages of one partition into chunks of its stream.
//!
//! The stream is the concatenation of the messages' values, each followed by a newline. A message
//! without a value, or with an empty one, is an empty line.
//!
//! Invariant: the content of chunks (bytes, offsets, line numbers, chain) depends on the messages
//! alone, not on where chunks were cut. A message that is received twice is in the stream once.
//! Gathered text is lost in a crash, and is read again from the broker.

use std::sync::Arc;
use std::time::Instant;

use strongroom_archive::Position;
use strongroom_archive::fingerprint::LineChain;
use strongroom_lines::frame::{Block, Edge, Origin};

use super::{BEHIND_CHUNK_BYTES, BEHIND_WAIT, CHUNK_BYTES, CHUNK_WAIT};
use crate::{Chunk, StreamName};

/// Text of a partition that is not handed over yet, and its place in the stream.
#[derive(Debug)]
pub(super) struct Gather {
    stream: Arc<StreamName>,
    origin: Arc<Origin>,
    /// The broker's number of the next message.
    next: i64,
    /// Offset of `bytes` in the stream.
    offset: i64,
    /// Number of the first line of `bytes`, from 1.
    line: i64,
    chain: LineChain,
    bytes: Vec<u8>,
    /// When the first of the gathered messages was received.
    since: Option<Instant>,
    /// Whether the last message was older than [`BEHIND`](super::BEHIND).
    behind: bool,
    /// How many of the broker's numbers had no message, because the message was compacted away or
    /// the number belongs to a transaction's marker.
    pub(super) skipped: u64,
}

impl Gather {
    /// Continues after `position`, or starts the stream, with the broker's message `next`.
    pub(super) fn new(
        stream: Arc<StreamName>,
        origin: Arc<Origin>,
        position: Option<Position>,
        next: i64,
    ) -> Gather {
        Gather {
            stream,
            origin,
            next,
            offset: position.map_or(0, |position| position.next_offset),
            line: position.map_or(0, |position| position.records) + 1,
            chain: position
                .map_or_else(LineChain::default, |position| LineChain::from(position.prefix_blake3)),
            bytes: Vec::new(),
            since: None,
            behind: false,
            skipped: 0,
        }
    }

    /// Returns the broker's number of the next message.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Continues at `next`. The messages before it are lost.
    pub(super) fn jump(&mut self, next: i64) {
        self.next = next;
    }

    /// Returns the number of bytes that are not handed over yet.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the message with the broker's number `number`. If the number is lower than expected,
    /// the message was received before, and is ignored. `behind` says whether the message is older
    /// than [`BEHIND`](super::BEHIND).
    pub(super) fn push(&mut self, number: i64, value: &[u8], now: Instant, behind: bool) {
        if number < self.next {
            return;
        }
        self.skipped += number.abs_diff(self.next);
        self.next = number.saturating_add(1);
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
        self.chain.update(&self.bytes[begin..]);
        self.since.get_or_insert(now);
        self.behind = behind;
    }

    /// Whether the text suffices for a chunk.
    pub(super) fn is_enough(&self) -> bool {
        self.bytes.len() >= if self.behind { BEHIND_CHUNK_BYTES } else { CHUNK_BYTES }
    }

    /// Whether the text suffices for a chunk, or has waited long enough.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let wait = if self.behind { BEHIND_WAIT } else { CHUNK_WAIT };
        self.is_enough() || self.since.is_some_and(|since| now.saturating_duration_since(since) >= wait)
    }

    /// Takes everything gathered; `None` if there is nothing.
    pub(super) fn take(&mut self) -> Option<Chunk> {
        let arrived = self.since.take()?;
        let bytes = std::mem::take(&mut self.bytes);
        let (offset, first_line) = (self.offset, self.line);
        self.offset += length(&bytes);
        self.line += newlines(&bytes);
        Some(Chunk {
            stream: Arc::clone(&self.stream),
            block: Block {
                origin: Arc::clone(&self.origin),
                offset,
                first_line,
                bytes,
                begins: Edge::Line,
                ends: Edge::Line,
                open_ended: false,
            },
            // Each message ends with a newline, so the chain is between two lines.
            prefix: self.chain.value().unwrap_or_default(),
            broker_offset: Some(self.next),
            arrived,
        })
    }

    /// Takes back the chunk that [`Gather::take`] returned last. Nothing may have been pushed
    /// since.
    pub(super) fn put_back(&mut self, chunk: Chunk) {
        self.offset = chunk.block.offset;
        self.line = chunk.block.first_line;
        self.bytes = chunk.block.bytes;
        self.since = Some(chunk.arrived);
    }
}

fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

fn newlines(bytes: &[u8]) -> i64 {
    i64::try_from(memchr::memchr_iter(b'\n', bytes).count()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gather(position: Option<Position>, next: i64) -> Gather {
        let stream = StreamName { partition: "kafka/c/t/0".into(), label: "t[0]".into() };
        let origin =
            Origin { partition: "kafka/c/t/0".into(), cluster: "prod".into(), reading: Arc::default() };
        Gather::new(Arc::new(stream), Arc::new(origin), position, next)
    }

    /// Generates messages: for each, how many numbers are missing before it, its value, and what is
    /// done after it.
    fn messages() -> impl Strategy<Value = Vec<(i64, Vec<u8>, u8)>> {
        let byte = prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()];
        proptest::collection::vec((0_i64..3, proptest::collection::vec(byte, 0..9), 0_u8..5), 0..20)
    }

    proptest! {
        #[test]
        fn cuts_and_restarts_mean_nothing(messages in messages(), start in 0_i64..100) {
            let now = Instant::now();
            let (mut text, mut number, mut missing) = (Vec::new(), start, 0);
            let mut cut = gather(None, start);
            let mut skipped = 0;
            let (mut offset, mut line) = (0, 1);
            let mut rebuilt = Vec::new();
            let mut prefix = LineChain::default().value();
            for (gap, value, then) in &messages {
                missing += gap;
                number += gap;
                cut.push(number, value, now, false);
                // The same message again is ignored.
                cut.push(number, b"again", now, true);
                number += 1;
                text.extend_from_slice(value);
                text.push(b'\n');
                if *then == 0 {
                    continue;
                }
                let Some(mut chunk) = cut.take() else { unreachable!("a message was pushed") };
                prop_assert!(cut.take().is_none());
                if *then == 1 {
                    cut.put_back(chunk);
                    chunk = cut.take().expect("what was put back");
                }
                prop_assert_eq!(chunk.block.offset, offset);
                prop_assert_eq!(chunk.block.first_line, line);
                prop_assert_eq!(chunk.broker_offset, Some(number));
                rebuilt.extend_from_slice(&chunk.block.bytes);
                offset = length(&rebuilt);
                line = 1 + newlines(&rebuilt);
                prefix = Some(chunk.prefix);
                if *then == 2 {
                    skipped += cut.skipped;
                    let position = Position {
                        next_offset: offset,
                        records: line - 1,
                        prefix_blake3: chunk.prefix,
                        broker_offset: chunk.broker_offset,
                    };
                    cut = gather(Some(position), number);
                }
            }
            if let Some(chunk) = cut.take() {
                rebuilt.extend_from_slice(&chunk.block.bytes);
                prefix = Some(chunk.prefix);
            }
            prop_assert_eq!(&rebuilt, &text);
            let mut whole = LineChain::default();
            whole.update(&text);
            prop_assert_eq!(prefix, whole.value());
            prop_assert_eq!(skipped + cut.skipped, u64::try_from(missing).expect("no negative gaps"));
            prop_assert_eq!(cut.next(), number);
        }
    }

    #[test]
    fn is_due_by_size_or_age() {
        let now = Instant::now();
        let mut gather = gather(None, 0);
        assert!(!gather.is_due(now + BEHIND_WAIT));
        gather.push(0, b"", now, false);
        assert!(!gather.is_due(now));
        assert!(gather.is_due(now + CHUNK_WAIT));
        gather.push(1, b"", now, true);
        assert!(!gather.is_due(now + CHUNK_WAIT));
        assert!(gather.is_due(now + BEHIND_WAIT));
        gather.push(2, &[b'a'; CHUNK_BYTES], now, true);
        assert!(!gather.is_due(now));
        gather.push(3, b"", now, false);
        assert!(gather.is_due(now));
    }
}
