//! Encodes blocks and plans seals, for the two drivers and for the hunt.
//!
//! Invariants:
//! - A seal carries a position for the stream of every alert in it. A stream without new rows,
//!   whose alert waited for late events, keeps its position, and the commit says so.
//! - Rejects that the table already has are left out by their offset, and alerts by their id
//!   ([`crate::stored_alerts`]); nothing else is left out. Under a redaction policy an event may have
//!   been stored as an encrypted reject. When it is read again, it is left out too, even if it would
//!   be stored as an event now.
//!
//! Nothing is written before the caller hands the plan to the writer, so a crash here loses
//! nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array as _, RecordBatch};
use chrono::{DateTime, Utc};
use strongroom_alerts::alerts_batch;
use strongroom_archive::{
    Archive, ArchiveError, EncodedRowGroup, Position, SourcePosition, encode, encode_records,
};
use strongroom_decode::{DecodedBlock, DecoderConfig};
use strongroom_lines::{DEPTH_MAX, DialectCounts, LINE_BYTES_MAX, Reason};
use strongroom_schemas::{Alert, Table, rejects};

use crate::error::IngestError;
use crate::faults::FaultCounts;
use crate::kinds::KindCounts;
use crate::redaction::{self, RedactionCounts};

/// Number of Parquet bytes that causes a seal.
pub const SEAL_BYTES: u64 = 128 << 20;
/// Age of unsealed rows that causes a seal.
pub const SEAL_INTERVAL: Duration = Duration::from_secs(300);
/// Number of alerts that causes a seal, because they wait in memory for it.
pub const SEAL_ALERTS_MAX: usize = 100_000;
/// Maximum number of rejects that a report quotes.
pub const EXAMPLES_MAX: usize = 5;

/// The bounds that both drivers work within.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Threads that decode, match and encode. Default: the number of cores.
    pub workers: usize,
    /// Maximum size of the text that becomes one row group, in bytes.
    pub block_bytes_max: usize,
    pub line_bytes_max: usize,
    pub depth_max: usize,
    /// Number of Parquet bytes that causes a seal.
    pub seal_bytes: u64,
    /// Age of unsealed rows that causes a seal.
    pub seal_interval: Duration,
}

impl Limits {
    /// Returns the defaults, with row groups of up to `block_bytes_max` bytes of text.
    pub fn with_blocks_of(block_bytes_max: usize) -> Self {
        Limits {
            workers: cores(),
            block_bytes_max,
            line_bytes_max: LINE_BYTES_MAX,
            depth_max: DEPTH_MAX,
            seal_bytes: SEAL_BYTES,
            seal_interval: SEAL_INTERVAL,
        }
    }

    /// Returns the bounds of a decoder.
    pub fn decoder(&self) -> DecoderConfig {
        DecoderConfig { line_bytes_max: self.line_bytes_max, depth_max: self.depth_max }
    }
}

/// Returns the number of cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Completes the plan of a seal: returns the positions of all its streams. `moved` are the streams
/// with new rows; `stored` returns the position in `events` of a stream that has alerts but no new
/// rows.
///
/// # Errors
/// If `stored` fails.
pub fn seal_plan(
    moved: Vec<SourcePosition>,
    alerts: &[Alert],
    mut stored: impl FnMut(&str) -> Result<Option<Position>, ArchiveError>,
) -> Result<Vec<SourcePosition>, ArchiveError> {
    let mut positions = moved;
    for alert in alerts {
        let partition = &alert.event.source;
        if !positions.iter().any(|planned| planned.partition == *partition)
            && let Some(position) = stored(partition)?
        {
            let (partition, label) = (partition.clone(), partition.clone());
            positions.push(SourcePosition { partition, label, position, previous: Some(position) });
        }
    }
    Ok(positions)
}

/// Returns the row groups of alerts; none without alerts.
///
/// # Errors
/// If the alerts cannot be encoded.
pub fn encode_alerts(alerts: &[Alert]) -> Result<Vec<EncodedRowGroup>, ArchiveError> {
    if alerts.is_empty() { Ok(Vec::new()) } else { encode(Table::Alerts, alerts_batch(alerts), Utc::now()) }
}

/// The rejects of a stream that the archive has, although it does not have the events up to the
/// same offset, because a run died between the two commits.
#[derive(Clone, Debug)]
pub struct StoredRejects {
    /// The rejects before this offset are stored.
    before: i64,
    /// Offsets of events that were stored as encrypted rejects, after the position of the events.
    encrypted: Arc<HashSet<i64>>,
}

impl StoredRejects {
    /// Returns the stored rejects of a partition. `events` and `rejects` are the positions of the
    /// partition in these tables.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn of(
        archive: &Archive,
        partition: &str,
        events: Option<Position>,
        rejects: Option<Position>,
    ) -> Result<StoredRejects, ArchiveError> {
        let from = |position: Option<Position>| position.map_or(i64::MIN, |position| position.next_offset);
        let (sealed, before) = (from(events), from(rejects));
        let mut encrypted = HashSet::new();
        if before > sealed {
            for batch in archive.read_rows(Table::Rejects, partition)? {
                let batch = batch?;
                let column = |name: &str| batch.column_by_name(name);
                let reasons = column(rejects::REASON).and_then(|column| column.as_string_opt::<i32>());
                let offsets =
                    column(rejects::SOURCE_OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>());
                // If the table lacks these columns, the writer refuses it later.
                let rows = reasons.into_iter().flatten().zip(offsets.into_iter().flatten());
                encrypted.extend(rows.filter_map(|(reason, offset)| {
                    offset.filter(|offset| *offset >= sealed && reason == Some(Reason::Encrypted.as_str()))
                }));
            }
        }
        Ok(StoredRejects { before, encrypted: Arc::new(encrypted) })
    }

    /// Whether some rows of a block that begins at offset `from` may be stored already.
    pub(crate) fn may_have(&self, from: i64) -> bool {
        self.before > from || !self.encrypted.is_empty()
    }

    /// Returns the stored rejects if these are all rejects before `offset`, and no event is stored
    /// as an encrypted reject.
    pub fn before(offset: i64) -> StoredRejects {
        StoredRejects { before: offset, encrypted: Arc::default() }
    }
}

/// A decoded block as row groups and counts.
pub struct EncodedBlock {
    pub row_groups: Vec<EncodedRowGroup>,
    pub events: u64,
    pub rejects: u64,
    /// Events that count as rejects, because they could not be redacted.
    pub events_rejected: u64,
    pub redacted: RedactionCounts,
    /// Number of rejects of each reason.
    pub reasons: BTreeMap<String, u64>,
    pub dialects: DialectCounts,
    /// Events with a part that could not be read.
    pub faults: FaultCounts,
    /// Audit events that became rejects because text beside them names a writer that is not known,
    /// by that writer.
    pub untrusted: KindCounts,
    /// The first rejects, as text, each with its number among the rejects.
    pub examples: Vec<(usize, String)>,
}

/// Encodes a decoded block for a seal, without the rejects that are stored already. If there is a
/// policy, the block has been redacted.
///
/// # Errors
/// If a column cannot be encoded, or if an event is encrypted now that was not encrypted when the
/// rejects beside it were stored.
pub fn encode_block(
    decoded: DecodedBlock,
    redacted: RedactionCounts,
    stored: &StoredRejects,
    arrived: DateTime<Utc>,
) -> Result<EncodedBlock, IngestError> {
    // By now every record is final, and was hashed.
    debug_assert!(decoded.unhashed.is_empty());
    let (decoded, left_out) = if stored.encrypted.is_empty() {
        (decoded, 0)
    } else {
        redaction::leave_out(decoded, &stored.encrypted).map_err(IngestError::LeaveOut)?
    };
    let Summary { mut reasons, untrusted, examples } = summary(&decoded.rejects);
    if left_out > 0 {
        *reasons.entry(Reason::Encrypted.as_str().to_owned()).or_insert(0) += left_out;
    }
    let (events, rejects) = (decoded.events.num_rows() as u64, decoded.rejects.num_rows() as u64 + left_out);
    let (dialects, faults) = (decoded.dialects, FaultCounts::of(&decoded.events));
    let mut row_groups = encode_rejects(decoded.rejects, stored, arrived)?;
    if events > 0 {
        row_groups.extend(encode_records(decoded.events, &decoded.record_hashes, arrived)?);
    }
    let events_rejected = redacted.encrypted + left_out;
    Ok(EncodedBlock {
        row_groups,
        events,
        rejects,
        events_rejected,
        redacted,
        reasons,
        dialects,
        faults,
        untrusted,
        examples,
    })
}

/// Encodes the rejects that are not stored.
pub(crate) fn encode_rejects(
    batch: RecordBatch,
    stored: &StoredRejects,
    arrived: DateTime<Utc>,
) -> Result<Vec<EncodedRowGroup>, IngestError> {
    let offsets = batch.column(rejects::index::SOURCE_OFFSET).as_primitive::<Int64Type>();
    let first = offsets.values().partition_point(|offset| *offset < stored.before);
    let reason = batch.column(rejects::index::REASON).as_dictionary::<Int32Type>();
    let names = reason.values().as_string::<i32>();
    // The table takes no row before its position, so an event that is encrypted now cannot be added
    // there. The stream must be read under the policy under which the stored rejects were written.
    if (0..first).any(|row| {
        names.value(reason.keys().value(row) as usize) == Reason::Encrypted.as_str()
            && !stored.encrypted.contains(&offsets.value(row))
    }) {
        return Err(IngestError::OtherPolicy);
    }
    if first == batch.num_rows() {
        return Ok(Vec::new());
    }
    let batch = batch.slice(first, batch.num_rows() - first);
    Ok(encode(Table::Rejects, batch, arrived)?)
}

struct Summary {
    reasons: BTreeMap<String, u64>,
    untrusted: KindCounts,
    examples: Vec<(usize, String)>,
}

/// Counts rejects by their reason, and by their writer where that is the reason. Returns the first
/// few as text.
fn summary(batch: &RecordBatch) -> Summary {
    let (mut reasons, mut untrusted, mut examples) = (BTreeMap::new(), KindCounts::default(), Vec::new());
    let mut shown = Vec::new();
    let reason = batch.column(rejects::index::REASON).as_dictionary::<Int32Type>();
    let names = reason.values().as_string::<i32>();
    let detail = batch.column(rejects::index::DETAIL).as_string::<i32>();
    let lines = batch.column(rejects::index::LINE).as_primitive::<Int64Type>();
    let offsets = batch.column(rejects::index::SOURCE_OFFSET).as_primitive::<Int64Type>();
    for row in 0..batch.num_rows() {
        let name = names.value(reason.keys().value(row) as usize);
        *reasons.entry(name.to_owned()).or_insert(0) += 1;
        if name == Reason::UntrustedOrigin.as_str() {
            untrusted.add(detail.value(row), 1);
        }
        // One of each kind, so that many of one kind do not hide the others.
        let kind = (name, detail.value(row));
        if examples.len() < EXAMPLES_MAX && !shown.contains(&kind) {
            shown.push(kind);
            let line = if lines.is_valid(row) { lines.value(row).to_string() } else { "-".to_owned() };
            let place = offsets.value(row);
            examples.push((row, format!("{line}: {name}: {} (byte {place})", detail.value(row))));
        }
    }
    Summary { reasons, untrusted, examples }
}
