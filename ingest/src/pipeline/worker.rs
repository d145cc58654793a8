//! A worker: turns a block of text into matches and row groups.
//!
//! Invariant: a worker keeps nothing between blocks except buffers, so blocks may be decoded in any
//! order, and a crash loses none.

use std::sync::Arc;

use arrow_array::Array as _;
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;
use chrono::{DateTime, Utc};
use crossbeam_channel::Sender;
use strongroom_alerts::{BatchMatches, Matcher, RuleSet};
use strongroom_archive::EncodedRowGroup;
use strongroom_decode::{DecodedBlock, Decoder, Share};
use strongroom_lines::frame::Origin;
use strongroom_lines::{Block, DialectCounts};
use strongroom_redact::Redactor;
use strongroom_schemas::record::Sha256Hash;
use strongroom_schemas::{Table, events};

use super::room::Taken;
use super::{FinishedJob, Job, JobPart, JobResult, PartResult};
use crate::error::IngestError;
use crate::redaction::{Redaction, RedactionCounts};
use crate::seal::{Limits, StoredRejects, encode_block};
use crate::source::StreamBlock;

/// Memory that the metadata of a column of a row group takes, approximately, in bytes.
const COLUMN_METADATA_BYTES: usize = 4 << 10;

pub(super) struct Worker {
    decoder: Decoder,
    matcher: Matcher,
    redaction: Option<Redaction>,
    buffers: Sender<Vec<u8>>,
    /// Longer buffers are not kept for reuse.
    buffer_bytes_max: usize,
}

impl Worker {
    pub(super) fn new(
        rules: &Arc<RuleSet>,
        limits: &Limits,
        redactor: Option<&Arc<Redactor>>,
        buffers: Sender<Vec<u8>>,
    ) -> Self {
        let redaction = redactor.map(|redactor| Redaction::new(Arc::clone(redactor), limits.decoder()));
        Worker {
            buffers,
            buffer_bytes_max: limits.block_bytes_max,
            redaction,
            decoder: Decoder::new(limits.decoder()),
            matcher: Matcher::new(Arc::clone(rules)),
        }
    }

    pub(super) fn work(&mut self, job: Job) -> FinishedJob {
        let Job { sequence, mut parts, stored, taken } = job;
        let outcome = match (parts.pop(), parts.is_empty()) {
            (Some(part), true) => self.work_on(part, &stored, taken),
            (last, _) => {
                parts.extend(last);
                self.work_on_several(parts, &stored, taken)
            }
        };
        FinishedJob { sequence, outcome }
    }

    fn work_on(
        &mut self,
        part: JobPart,
        stored: &StoredRejects,
        mut taken: Taken,
    ) -> Result<JobResult, IngestError> {
        let arrived = Utc::now();
        let JobPart { stream, block: read } = part;
        let decoded = self.decode(&read.block, arrived)?;
        let (origin, consumed) = (Arc::clone(&read.block.origin), decoded.consumed);
        let result = part_result(stream, &read, consumed);
        // The columns have copied what they keep. The reader may have finished already.
        if read.block.bytes.capacity() <= self.buffer_bytes_max {
            let _ = self.buffers.try_send(read.block.bytes);
        } else {
            drop(read.block.bytes);
        }
        taken.shrink_to(decoded.bytes());
        let (matches, decoded, redacted) = self.matched(decoded, &origin, arrived)?;
        let raw_kept = raw_kept(&decoded);
        let encoded = encode_block(decoded, redacted, stored, arrived)?;
        taken.shrink_to(encoded.row_groups.iter().map(memory_bytes).sum());
        let parts = vec![PartResult { events: encoded.events, rejects: encoded.rejects, ..result }];
        Ok(JobResult { matches: vec![matches], encoded, raw_kept, parts, taken })
    }

    /// Works on blocks of short streams, whose rows become one row group.
    fn work_on_several(
        &mut self,
        parts: Vec<JobPart>,
        stored: &StoredRejects,
        mut taken: Taken,
    ) -> Result<JobResult, IngestError> {
        let arrived = Utc::now();
        let assembled = |source| {
            let (label, offset) = ("short streams".to_owned(), 0);
            IngestError::Columns { label, offset, source }
        };
        let mut matches = Vec::new();
        let mut redacted = RedactionCounts::default();
        let (decoded, shares) = if self.redaction.is_none() {
            let blocks = parts.iter().map(|part| &part.block.block);
            let (decoded, shares) = self.decoder.decode_together(blocks, arrived).map_err(assembled)?;
            matches.push(self.matcher.match_batch(&decoded.events)?);
            (decoded, shares)
        } else {
            // The text around an event is judged within its stream, so each block is redacted
            // alone.
            let (mut apart, mut shares) = (Vec::with_capacity(parts.len()), Vec::with_capacity(parts.len()));
            for part in &parts {
                let block = &part.block.block;
                let decoded = self.decode(block, arrived)?;
                let (found, decoded, counts) = self.matched(decoded, &block.origin, arrived)?;
                matches.push(found);
                redacted.add(counts);
                let (events, rejects) = (decoded.events.num_rows(), decoded.rejects.num_rows());
                shares.push(Share { events, rejects, consumed: decoded.consumed });
                apart.push(decoded);
            }
            (joined(apart).map_err(assembled)?, shares)
        };
        let part_of = |(part, share): (&JobPart, &Share)| {
            let (events, rejects) = (share.events as u64, share.rejects as u64);
            let result = part_result(part.stream, &part.block, share.consumed);
            PartResult { events, rejects, ..result }
        };
        let results = parts.iter().zip(&shares).map(part_of).collect();
        drop(parts);
        taken.shrink_to(decoded.bytes());
        let raw_kept = raw_kept(&decoded);
        let encoded = encode_block(decoded, redacted, stored, arrived)?;
        taken.shrink_to(encoded.row_groups.iter().map(memory_bytes).sum());
        Ok(JobResult { matches, encoded, raw_kept, parts: results, taken })
    }

    fn decode(&mut self, block: &Block, arrived: DateTime<Utc>) -> Result<DecodedBlock, IngestError> {
        let decoded = match &self.redaction {
            None => self.decoder.decode_to_seal(block, arrived),
            Some(redaction) => {
                self.decoder.decode_to_change(block, arrived, redaction.hashed_later(&block.origin))
            }
        };
        decoded.map_err(|source| {
            let label = block.origin.partition.clone();
            IngestError::Columns { label, offset: block.offset, source }
        })
    }

    /// Matches the rows of one stream, and redacts them if there is a policy.
    fn matched(
        &mut self,
        decoded: DecodedBlock,
        origin: &Origin,
        arrived: DateTime<Utc>,
    ) -> Result<(BatchMatches, DecodedBlock, RedactionCounts), IngestError> {
        let Some(redaction) = &mut self.redaction else {
            return Ok((self.matcher.match_batch(&decoded.events)?, decoded, RedactionCounts::default()));
        };
        let changes = redaction.changes(&decoded.events, origin)?;
        let matches = redaction.match_changed(&mut self.matcher, &decoded.events, &changes, origin)?;
        let (decoded, redacted) = redaction.apply(decoded, changes, origin, arrived)?;
        Ok((matches, decoded, redacted))
    }
}

/// Returns the number of events whose record is kept as it was received.
fn raw_kept(decoded: &DecodedBlock) -> u64 {
    let raw = decoded.events.column(events::index::RAW);
    (raw.len() - raw.null_count()) as u64
}

/// Returns the rows of several blocks, one after the other.
fn joined(blocks: Vec<DecodedBlock>) -> Result<DecodedBlock, ArrowError> {
    let (mut events, mut rejects, mut record_hashes) = (Vec::new(), Vec::new(), Vec::new());
    let mut unhashed = Vec::new();
    let (mut consumed, mut dialects) = (0, DialectCounts::default());
    for block in blocks {
        events.push(block.events);
        rejects.push(block.rejects);
        unhashed.extend(block.unhashed.into_iter().map(|row| row + record_hashes.len()));
        record_hashes.extend(block.record_hashes);
        consumed += block.consumed;
        dialects.add_all(&block.dialects);
    }
    let events = concat_batches(&Table::Events.batch_schema(), &events)?;
    let rejects = concat_batches(&Table::Rejects.batch_schema(), &rejects)?;
    Ok(DecodedBlock { events, rejects, record_hashes, unhashed, consumed, dialects })
}

/// Returns the result of a block, without the numbers of its rows.
fn part_result(stream: usize, read: &StreamBlock, consumed: usize) -> PartResult {
    let left = read.block.bytes.len() - consumed;
    let end_offset = read.block.offset + consumed as i64;
    PartResult {
        stream,
        events: 0,
        rejects: 0,
        bytes: consumed as u64,
        end_offset,
        end_prefix: match read.before_open_line {
            Some((_, before)) if left > 0 => before,
            _ => read.prefix,
        },
        unfinished: (left > 0).then_some((end_offset, left)),
    }
}

/// Returns how many bytes of memory a row group takes, with the hashes of its records.
fn memory_bytes(row_group: &EncodedRowGroup) -> usize {
    let columns = row_group.column_bytes().map(|(_, bytes)| bytes as usize + COLUMN_METADATA_BYTES);
    columns.sum::<usize>() + row_group.rows() as usize * size_of::<Sha256Hash>()
}
