//! Threads that decode. A block is looked at as it comes, so that its alerts can leave, and encoded later,
//! together with what came before and behind it; a big one is decoded once for both.
//!
//! Invariant: a job's answer always comes, and carries the text back when it is needed again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use crossbeam_channel::{Receiver, Sender, select_biased};
use strongroom_alerts::{BatchMatches, Matcher, RuleSet};
use strongroom_archive::{EncodedRowGroup, encode_records};

use super::{Chunk, StreamName};
use crate::decode::{Decoder, DecoderConfig};
use crate::error::IngestError;
use crate::frame::Block;
use crate::pipeline::worker::{encode_rejects, summary};

/// A chunk to look at; with `encode` to be encoded as well, and its rejects from that offset.
pub(super) struct Look {
    pub(super) sequence: u64,
    /// What it is looked at with.
    pub(super) rules: Arc<RuleSet>,
    pub(super) chunk: Chunk,
    pub(super) encode: Option<(u64, i64)>,
}

/// Text to encode into a cut.
pub(super) struct Encode {
    pub(super) cut: u64,
    pub(super) stream: Arc<StreamName>,
    pub(super) block: Block,
    pub(super) rejects_from: i64,
}

pub(super) enum Answer {
    Looked { sequence: u64, outcome: Result<Box<Looked>, IngestError> },
    Encoded { outcome: Result<Encoded, IngestError> },
}

pub(super) struct Looked {
    pub(super) stream: Arc<StreamName>,
    pub(super) arrived: Instant,
    /// Bytes of the chunk.
    pub(super) bytes: u64,
    /// The text, unless it is encoded already.
    pub(super) block: Option<Block>,
    pub(super) encoded: Option<Encoded>,
    pub(super) matches: BatchMatches,
    pub(super) events: u64,
    pub(super) rejects: u64,
    /// Where the chunk ends.
    pub(super) next_offset: i64,
    pub(super) prefix: crate::source::Fingerprint,
    pub(super) broker_offset: Option<i64>,
}

pub(super) struct Encoded {
    pub(super) cut: u64,
    pub(super) stream: Arc<StreamName>,
    /// Bytes of text that were encoded.
    pub(super) bytes: u64,
    pub(super) row_groups: Vec<EncodedRowGroup>,
    pub(super) events: u64,
    pub(super) rejects: u64,
    pub(super) reasons: BTreeMap<String, u64>,
    pub(super) examples: Vec<String>,
}

pub(super) struct Worker {
    decoder: Decoder,
    matcher: Matcher,
}

impl Worker {
    pub(super) fn new(rules: &Arc<RuleSet>, line_bytes_max: usize, depth_max: usize) -> Self {
        Worker {
            decoder: Decoder::new(DecoderConfig { line_bytes_max, depth_max }),
            matcher: Matcher::new(Arc::clone(rules)),
        }
    }

    /// Works until the driver is gone. What has just come goes first.
    pub(super) fn run(
        mut self,
        looks: &Receiver<Look>,
        encodes: &Receiver<Encode>,
        answers: &Sender<Answer>,
    ) {
        loop {
            let answer = select_biased! {
                recv(looks) -> look => match look {
                    Ok(look) => self.look_or_say(look),
                    Err(_) => return,
                },
                recv(encodes) -> encode => match encode {
                    Ok(encode) => self.encode_or_say(encode),
                    Err(_) => return,
                },
            };
            if answers.send(answer).is_err() {
                return;
            }
        }
    }

    fn look_or_say(&mut self, look: Look) -> Answer {
        let (sequence, label, offset) =
            (look.sequence, look.chunk.stream.label.clone(), look.chunk.block.offset);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.look(look).map(Box::new)));
        let outcome = outcome.unwrap_or(Err(IngestError::WorkerPanicked { label, offset }));
        Answer::Looked { sequence, outcome }
    }

    fn encode_or_say(&mut self, job: Encode) -> Answer {
        let (label, offset) = (job.stream.label.clone(), job.block.offset);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.decoded(job.cut, job.stream, &job.block, job.rejects_from, false).map(|(encoded, _)| encoded)
        }));
        let outcome = outcome.unwrap_or(Err(IngestError::WorkerPanicked { label, offset }));
        Answer::Encoded { outcome }
    }

    fn look(&mut self, look: Look) -> Result<Looked, IngestError> {
        let Look { rules, chunk, encode, .. } = look;
        if !Arc::ptr_eq(&rules, self.matcher.rules()) {
            self.matcher = Matcher::new(rules);
        }
        let Chunk { stream, block, prefix, broker_offset, arrived } = chunk;
        let bytes = block.bytes.len() as u64;
        let next_offset = block.offset + i64::try_from(bytes).unwrap_or(i64::MAX);
        let looked = |encoded, block, matches, events, rejects| Looked {
            stream: Arc::clone(&stream),
            arrived,
            bytes,
            block,
            encoded,
            matches,
            events,
            rejects,
            next_offset,
            prefix,
            broker_offset,
        };
        if let Some((cut, rejects_from)) = encode {
            let (encoded, matches) = self.decoded(cut, Arc::clone(&stream), &block, rejects_from, true)?;
            let (events, rejects) = (encoded.events, encoded.rejects);
            return Ok(looked(Some(encoded), None, matches, events, rejects));
        }
        let decoded = self.decode(&block, &stream, false)?;
        let matches = self.matcher.match_batch(&decoded.events)?;
        let (events, rejects) = (decoded.events.num_rows() as u64, decoded.rejects.num_rows() as u64);
        Ok(looked(None, Some(block), matches, events, rejects))
    }

    fn decode(
        &mut self,
        block: &Block,
        stream: &StreamName,
        to_seal: bool,
    ) -> Result<crate::DecodedBlock, IngestError> {
        let decoded = match to_seal {
            true => self.decoder.decode_to_seal(block, Utc::now()),
            false => self.decoder.decode(block, Utc::now()),
        };
        let decoded = decoded.map_err(|source| IngestError::Columns {
            label: stream.label.clone(),
            offset: block.offset,
            source,
        })?;
        debug_assert_eq!(decoded.consumed, block.bytes.len(), "chunks are whole lines");
        Ok(decoded)
    }

    fn decoded(
        &mut self,
        cut: u64,
        stream: Arc<StreamName>,
        block: &Block,
        rejects_from: i64,
        with_matches: bool,
    ) -> Result<(Encoded, BatchMatches), IngestError> {
        let decoded = self.decode(block, &stream, true)?;
        let matches = match with_matches {
            true => self.matcher.match_batch(&decoded.events)?,
            false => BatchMatches::default(),
        };
        let (reasons, examples) = summary(&decoded.rejects);
        let (events, rejects) = (decoded.events.num_rows() as u64, decoded.rejects.num_rows() as u64);
        let arrived = Utc::now();
        let mut row_groups = encode_rejects(decoded.rejects, rejects_from, arrived)?;
        if events > 0 {
            row_groups.extend(encode_records(decoded.events, &decoded.record_hashes, arrived)?);
        }
        let bytes = block.bytes.len() as u64;
        Ok((Encoded { cut, stream, bytes, row_groups, events, rejects, reasons, examples }, matches))
    }
}
