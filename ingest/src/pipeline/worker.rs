//! A worker: turns a block of text into matches and row groups.
//!
//! Invariant: it keeps nothing between blocks but buffers, so blocks may be worked on in any order,
//! and a crash loses none.

use std::sync::Arc;

use arrow_array::Array as _;
use chrono::Utc;
use crossbeam_channel::Sender;
use strongroom_alerts::{Matcher, RuleSet};
use strongroom_archive::EncodedRowGroup;
use strongroom_decode::Decoder;
use strongroom_redact::Redactor;
use strongroom_schemas::events;
use strongroom_schemas::record::Sha256Hash;

use super::room::Taken;
use super::{BlockResult, FinishedJob, Job};
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
        let Job { sequence, stream, block, stored, taken } = job;
        let outcome = self.work_on(block, &stored, taken);
        FinishedJob { sequence, stream, outcome }
    }

    fn work_on(
        &mut self,
        read: StreamBlock,
        stored: &StoredRejects,
        mut taken: Taken,
    ) -> Result<BlockResult, IngestError> {
        let arrived = Utc::now();
        let block = read.block;
        let decoded = match &self.redaction {
            None => self.decoder.decode_to_seal(&block, arrived),
            Some(redaction) => {
                self.decoder.decode_to_change(&block, arrived, redaction.hashed_later(&block.origin))
            }
        };
        let decoded = decoded.map_err(|source| IngestError::Columns {
            label: block.origin.partition.clone(),
            offset: block.offset,
            source,
        })?;
        let consumed = decoded.consumed;
        let left = block.bytes.len() - consumed;
        let end_offset = block.offset + consumed as i64;
        // The columns have copied what they keep. The reader may have finished already.
        if block.bytes.capacity() <= self.buffer_bytes_max {
            let _ = self.buffers.try_send(block.bytes);
        } else {
            drop(block.bytes);
        }
        taken.shrink_to(decoded.bytes());
        let (matches, decoded, redacted) = match &mut self.redaction {
            None => (self.matcher.match_batch(&decoded.events)?, decoded, RedactionCounts::default()),
            Some(redaction) => {
                let changes = redaction.changes(&decoded.events, &block.origin)?;
                let matches =
                    redaction.match_changed(&mut self.matcher, &decoded.events, &changes, &block.origin)?;
                let (decoded, redacted) = redaction.apply(decoded, changes, &block.origin, arrived)?;
                (matches, decoded, redacted)
            }
        };
        let raw = decoded.events.column(events::index::RAW);
        let raw_kept = (raw.len() - raw.null_count()) as u64;
        let encoded = encode_block(decoded, redacted, stored, arrived)?;
        taken.shrink_to(encoded.row_groups.iter().map(memory_bytes).sum());
        Ok(BlockResult {
            matches,
            encoded,
            taken,
            raw_kept,
            bytes: consumed as u64,
            end_offset,
            end_prefix: match read.before_open_line {
                Some((_, before)) if left > 0 => before,
                _ => read.prefix,
            },
            unfinished: (left > 0).then_some((end_offset, left)),
        })
    }
}

/// Returns how many bytes of memory a row group takes, with the hashes of its records.
fn memory_bytes(row_group: &EncodedRowGroup) -> usize {
    let columns = row_group.column_bytes().map(|(_, bytes)| bytes as usize + COLUMN_METADATA_BYTES);
    columns.sum::<usize>() + row_group.rows() as usize * size_of::<Sha256Hash>()
}
