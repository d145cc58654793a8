//! Worker threads, which decode text. A chunk is matched on arrival, so that its alerts can leave,
//! and is encoded later, together with the text around it. A big chunk is decoded once for both.
//!
//! Invariant: every job is answered, and the answer returns the text if it is needed again. If a
//! job panics, it is answered with an error. Workers keep nothing between jobs, and sources can
//! bring the text again, so a crash loses nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chrono::Utc;
use crossbeam_channel::{Receiver, Sender, select_biased};
use strongroom_alerts::{BatchMatches, Matcher, RuleSet};
use strongroom_archive::fingerprint::Fingerprint;
use strongroom_decode::{DecodedBlock, Decoder};
use strongroom_ingest::IngestError;
use strongroom_ingest::redaction::{Redaction, RedactionCounts};
use strongroom_ingest::seal::{EncodedBlock, Limits, StoredRejects, encode_block};
use strongroom_lines::Block;
use strongroom_redact::Redactor;

use crate::{Chunk, StreamName};

/// A chunk to match. `encode` has an epoch and the stored rejects of the stream. If it is set, the
/// chunk is also encoded into that epoch, without the stored rejects.
pub(super) struct MatchJob {
    pub(super) sequence: u64,
    /// The rules to match with.
    pub(super) rules: Arc<RuleSet>,
    pub(super) chunk: Chunk,
    pub(super) encode: Option<(u64, StoredRejects)>,
}

/// Text to encode into an epoch.
pub(super) struct EncodeJob {
    pub(super) epoch: u64,
    pub(super) stream: Arc<StreamName>,
    pub(super) block: Block,
    pub(super) stored: StoredRejects,
}

#[expect(clippy::large_enum_variant, reason = "there is one answer for a block, and it is moved twice")]
pub(super) enum Answer {
    Matched { sequence: u64, outcome: Result<Box<Matched>, IngestError> },
    Encoded { outcome: Result<Encoded, IngestError> },
}

pub(super) struct Matched {
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
    pub(super) prefix: Fingerprint,
    pub(super) broker_offset: Option<i64>,
}

pub(super) struct Encoded {
    pub(super) epoch: u64,
    pub(super) stream: Arc<StreamName>,
    /// Bytes of text that were encoded.
    pub(super) bytes: u64,
    pub(super) block: EncodedBlock,
}

pub(super) struct Worker {
    decoder: Decoder,
    matcher: Matcher,
    redaction: Option<Redaction>,
    /// Locked while a chunk longer than a block is decoded. Such a chunk has one long line and
    /// takes much memory, so only one is decoded at a time.
    wide: Arc<Mutex<()>>,
    block_bytes_max: usize,
}

impl Worker {
    pub(super) fn new(
        rules: &Arc<RuleSet>,
        limits: &Limits,
        redactor: Option<&Arc<Redactor>>,
        wide: Arc<Mutex<()>>,
    ) -> Self {
        Worker {
            decoder: Decoder::new(limits.decoder()),
            matcher: Matcher::new(Arc::clone(rules)),
            redaction: redactor.map(|redactor| Redaction::new(Arc::clone(redactor), limits.decoder())),
            wide,
            block_bytes_max: limits.block_bytes_max,
        }
    }

    /// Works until the driver is gone. Takes match jobs before encode jobs.
    pub(super) fn run(
        mut self,
        match_jobs: &Receiver<MatchJob>,
        encode_jobs: &Receiver<EncodeJob>,
        answers: &Sender<Answer>,
    ) {
        loop {
            let answer = select_biased! {
                recv(match_jobs) -> job => match job {
                    Ok(job) => self.answer_match(job),
                    Err(_) => return,
                },
                recv(encode_jobs) -> job => match job {
                    Ok(job) => self.answer_encode(job),
                    Err(_) => return,
                },
            };
            if answers.send(answer).is_err() {
                return;
            }
        }
    }

    fn answer_match(&mut self, job: MatchJob) -> Answer {
        let sequence = job.sequence;
        let (label, offset) = (job.chunk.stream.label.clone(), job.chunk.block.offset);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.match_chunk(job).map(Box::new)))
            .unwrap_or(Err(IngestError::WorkerPanicked { label, offset }));
        Answer::Matched { sequence, outcome }
    }

    fn answer_encode(&mut self, job: EncodeJob) -> Answer {
        let (label, offset) = (job.stream.label.clone(), job.block.offset);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.encode(job)))
            .unwrap_or(Err(IngestError::WorkerPanicked { label, offset }));
        Answer::Encoded { outcome }
    }

    fn match_chunk(&mut self, job: MatchJob) -> Result<Matched, IngestError> {
        let MatchJob { rules, chunk, encode, .. } = job;
        if !Arc::ptr_eq(&rules, self.matcher.rules()) {
            self.matcher = Matcher::new(rules);
        }
        let wide = Arc::clone(&self.wide);
        let _alone = self.alone(&wide, &chunk.block);
        let Chunk { stream, block, prefix, broker_offset, arrived } = chunk;
        let bytes = block.bytes.len() as u64;
        let next_offset = block.offset + i64::try_from(bytes).unwrap_or(i64::MAX);
        let decoded = self.decode(&block, &stream, encode.is_some())?;
        let (events, rejects) = (decoded.events.num_rows() as u64, decoded.rejects.num_rows() as u64);
        let (matcher, origin) = (&mut self.matcher, &block.origin);
        let (matches, redacted) = match (&mut self.redaction, encode) {
            (None, encode) => {
                let matches = matcher.match_batch(&decoded.events)?;
                (matches, encode.map(|to| (to, decoded, RedactionCounts::default())))
            }
            (Some(redaction), None) => (redaction.match_batch(matcher, &decoded.events, origin)?, None),
            (Some(redaction), Some(to)) => {
                let changes = redaction.changes(&decoded.events, origin)?;
                let matches = redaction.match_changed(matcher, &decoded.events, &changes, origin)?;
                let (decoded, counts) = redaction.apply(decoded, changes, origin, Utc::now())?;
                (matches, Some((to, decoded, counts)))
            }
        };
        let (block, encoded) = match redacted {
            Some(((epoch, stored), decoded, counts)) => {
                let block = encode_block(decoded, counts, &stored, Utc::now())?;
                (None, Some(Encoded { epoch, stream: Arc::clone(&stream), bytes, block }))
            }
            None => (Some(block), None),
        };
        Ok(Matched {
            stream,
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
        })
    }

    fn encode(&mut self, job: EncodeJob) -> Result<Encoded, IngestError> {
        let EncodeJob { epoch, stream, block, stored } = job;
        let wide = Arc::clone(&self.wide);
        let _alone = self.alone(&wide, &block);
        let bytes = block.bytes.len() as u64;
        let decoded = self.decode(&block, &stream, true)?;
        let (decoded, counts) = match &mut self.redaction {
            None => (decoded, RedactionCounts::default()),
            Some(redaction) => {
                let changes = redaction.changes(&decoded.events, &block.origin)?;
                redaction.apply(decoded, changes, &block.origin, Utc::now())?
            }
        };
        let block = encode_block(decoded, counts, &stored, Utc::now())?;
        Ok(Encoded { epoch, stream, bytes, block })
    }

    /// Waits for other long chunks, if this text is longer than a block.
    fn alone<'w>(&self, wide: &'w Mutex<()>, block: &Block) -> Option<MutexGuard<'w, ()>> {
        let is_wide = block.bytes.len() > self.block_bytes_max;
        // The lock protects no data, so a panic leaves nothing half done.
        is_wide.then(|| wide.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn decode(
        &mut self,
        block: &Block,
        stream: &StreamName,
        to_seal: bool,
    ) -> Result<DecodedBlock, IngestError> {
        let arrived = Utc::now();
        let decoded = match &self.redaction {
            _ if !to_seal => self.decoder.decode_to_match(block, arrived),
            None => self.decoder.decode_to_seal(block, arrived),
            Some(redaction) => {
                self.decoder.decode_to_change(block, arrived, redaction.hashed_later(&block.origin))
            }
        }
        .map_err(|source| IngestError::Columns {
            label: stream.label.clone(),
            offset: block.offset,
            source,
        })?;
        debug_assert_eq!(decoded.consumed, block.bytes.len(), "chunks are whole lines");
        Ok(decoded)
    }
}
