//! A worker: a block of text to matches and row groups. It keeps nothing of a block for the next one but
//! memory, so blocks may be worked on in any order.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array as _, RecordBatch};
use chrono::{DateTime, Utc};
use crossbeam_channel::Sender;
use strongroom_alerts::{Matcher, RuleSet};
use strongroom_archive::{EncodedRowGroup, encode, encode_records};
use strongroom_schemas::{Table, events, rejects};

use super::{Done, EXAMPLES_MAX, IngestOptions, Job, Work};
use crate::decode::{Decoder, DecoderConfig};
use crate::error::IngestError;
use crate::source::Cut;

pub(super) struct Worker {
    decoder: Decoder,
    matcher: Matcher,
    buffers: Sender<Vec<u8>>,
}

impl Worker {
    pub(super) fn new(rules: &Arc<RuleSet>, options: &IngestOptions, buffers: Sender<Vec<u8>>) -> Self {
        Worker {
            buffers,
            decoder: Decoder::new(DecoderConfig {
                line_bytes_max: options.line_bytes_max,
                depth_max: options.depth_max,
            }),
            matcher: Matcher::new(Arc::clone(rules)),
        }
    }

    pub(super) fn work(&mut self, job: Job) -> Done {
        let Job { sequence, stream, cut, rejects_from } = job;
        let outcome = self.decode(cut, rejects_from);
        Done { sequence, stream, outcome }
    }

    fn decode(&mut self, cut: Cut, rejects_from: i64) -> Result<Work, IngestError> {
        let arrived = Utc::now();
        let block = cut.block;
        let decoded = self.decoder.decode_to_seal(&block, arrived).map_err(|source| {
            IngestError::Columns { label: block.origin.partition.clone(), offset: block.offset, source }
        })?;
        let left = block.bytes.len() - decoded.consumed;
        let end_offset = block.offset + decoded.consumed as i64;
        // The columns have copied what they keep. The reader may have finished already.
        let _ = self.buffers.try_send(block.bytes);
        let matches = self.matcher.match_batch(&decoded.events)?;
        let raw = decoded.events.column(events::index::RAW);
        let raw_kept = (raw.len() - raw.null_count()) as u64;
        let (reasons, examples) = summary(&decoded.rejects);
        let (events, rejects) = (decoded.events.num_rows() as u64, decoded.rejects.num_rows() as u64);
        let mut row_groups = encode_rejects(decoded.rejects, rejects_from, arrived)?;
        if events > 0 {
            row_groups.extend(encode_records(decoded.events, &decoded.record_hashes, arrived)?);
        }
        Ok(Work {
            matches,
            row_groups,
            events,
            rejects,
            raw_kept,
            reasons,
            examples,
            bytes: decoded.consumed as u64,
            end_offset,
            end_prefix: match cut.prefix_before_open_line {
                Some(before) if left > 0 => before,
                _ => cut.prefix,
            },
            unfinished: (left > 0).then_some((end_offset, left)),
        })
    }
}

/// Encodes the rejects from `from` on.
pub(crate) fn encode_rejects(
    batch: RecordBatch,
    from: i64,
    arrived: DateTime<Utc>,
) -> Result<Vec<EncodedRowGroup>, IngestError> {
    let offsets = batch.column(rejects::index::SOURCE_OFFSET).as_primitive::<Int64Type>();
    let first = offsets.values().partition_point(|offset| *offset < from);
    if first == batch.num_rows() {
        return Ok(Vec::new());
    }
    let batch = batch.slice(first, batch.num_rows() - first);
    Ok(encode(Table::Rejects, batch, arrived)?)
}

/// Rejects by reason, and the first few as text.
pub(crate) fn summary(batch: &RecordBatch) -> (BTreeMap<String, u64>, Vec<String>) {
    let (mut reasons, mut examples) = (BTreeMap::new(), Vec::new());
    let reason = batch.column(rejects::index::REASON).as_dictionary::<Int32Type>();
    let names = reason.values().as_string::<i32>();
    let detail = batch.column(rejects::index::DETAIL).as_string::<i32>();
    let lines = batch.column(rejects::index::LINE).as_primitive::<Int64Type>();
    let offsets = batch.column(rejects::index::SOURCE_OFFSET).as_primitive::<Int64Type>();
    for row in 0..batch.num_rows() {
        let name = names.value(reason.keys().value(row) as usize);
        *reasons.entry(name.to_owned()).or_insert(0) += 1;
        if examples.len() < EXAMPLES_MAX {
            examples.push(format!(
                "{}: {name}: {} (byte {})",
                lines.value(row),
                detail.value(row),
                offsets.value(row)
            ));
        }
    }
    (reasons, examples)
}
