//! Builds the rejects of a block.
//!
//! Invariant: the `raw` of a reject has every byte that belongs to the reject. After a reject is
//! pushed, the decoder may find that more bytes belong to it, such as the end of a list whose last
//! item was refused. These bytes are appended to its `raw`; only the last reject pushed can grow.
//! Builders live in memory only; after a crash the block is read again.

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use chrono::{DateTime, Utc};
use strongroom_lines::{Refusal, frame};
use strongroom_schemas::Table;

use crate::columns::{BytesColumn, DictColumn, NULL, NumberColumn};

/// The rejects of a block.
pub(crate) struct Rejects {
    raw: Vec<Vec<u8>>,
    reason: DictColumn,
    detail: BytesColumn,
    cluster: DictColumn,
    source: DictColumn,
    offset: NumberColumn,
    line: NumberColumn,
    received: NumberColumn,
    arrived: i64,
    cluster_key: i32,
    source_key: i32,
    last_offset: i64,
}

impl Rejects {
    pub(crate) fn new() -> Self {
        Rejects {
            raw: Vec::new(),
            reason: DictColumn::new(),
            detail: BytesColumn::new(),
            cluster: DictColumn::new(),
            source: DictColumn::new(),
            offset: NumberColumn::new(),
            line: NumberColumn::new(),
            received: NumberColumn::new(),
            arrived: 0,
            cluster_key: NULL,
            source_key: NULL,
            last_offset: -1,
        }
    }

    pub(crate) fn begin(&mut self, origin: &frame::Origin, arrived: i64) {
        self.arrived = arrived;
        self.cluster_key = self.cluster.dictionary.intern(&origin.cluster);
        self.source_key = self.source.dictionary.intern(&origin.partition);
        self.last_offset = -1;
    }

    pub(crate) fn push(&mut self, bytes: &[u8], refusal: &Refusal, offset: i64, line: i64) {
        self.last_offset = offset;
        self.raw.push(bytes.to_vec());
        let reason = self.reason.dictionary.intern(refusal.reason.as_str());
        self.reason.push(reason);
        self.detail.push(Some(refusal.detail.as_bytes()));
        self.cluster.push(self.cluster_key);
        self.source.push(self.source_key);
        self.offset.push(Some(offset));
        self.line.push(Some(line));
        self.received.push(Some(self.arrived));
    }

    /// Returns the number of rejects so far.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Offset of the last reject, or -1 if the block has none so far.
    pub(crate) fn last_offset(&self) -> i64 {
        self.last_offset
    }

    pub(crate) fn extend_last(&mut self, tail: &[u8]) {
        if let Some(raw) = self.raw.last_mut() {
            raw.extend_from_slice(tail);
        }
    }

    pub(crate) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let mut raw = BytesColumn::new();
        for bytes in self.raw.drain(..) {
            raw.push(Some(&bytes));
        }
        RecordBatch::try_new(
            Table::Rejects.batch_schema(),
            vec![
                raw.finish_binary()?,
                self.reason.finish()?,
                self.detail.finish_strings()?,
                self.cluster.finish()?,
                self.source.finish()?,
                self.offset.finish_i64(),
                self.line.finish_i64(),
                self.received.finish_timestamps(),
            ],
        )
    }
}

/// Returns a batch with one reject for each stream in `origins`. These streams have no bytes (they
/// are empty files), so the `raw` of each reject is empty.
///
/// # Errors
/// Like [`crate::Decoder::decode`].
pub fn reject_batch(
    origins: &[frame::Origin],
    refusal: &Refusal,
    arrived: DateTime<Utc>,
) -> Result<RecordBatch, ArrowError> {
    let mut rejects = Rejects::new();
    for origin in origins {
        rejects.begin(origin, arrived.timestamp_micros());
        rejects.push(&[], refusal, 0, 1);
    }
    rejects.finish()
}
