//! What the two drivers and the hunt have in common: encoding a block, and planning a seal.
//!
//! Invariants:
//! - A seal carries a position for the stream of every alert in it. A stream without new rows,
//!   whose alert waited for late events, keeps its position, and the commit says so.
//! - Rejects that the table already has are left out by their offset; nothing else is left out.
//!
//! Nothing is written before the caller hands the plan to the writer, so a crash here loses
//! nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type};
use chrono::{DateTime, Utc};
use strongroom_alerts::alerts_batch;
use strongroom_archive::{ArchiveError, EncodedRowGroup, Position, SourcePosition, encode, encode_records};
use strongroom_decode::{DecodedBlock, DecoderConfig};
use strongroom_lines::{DEPTH_MAX, DialectCounts, LINE_BYTES_MAX};
use strongroom_schemas::{Alert, Table, rejects};

use crate::error::IngestError;

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
    /// The defaults, with row groups of up to `block_bytes_max` bytes of text.
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

    /// The bounds of a decoder.
    pub fn decoder(&self) -> DecoderConfig {
        DecoderConfig { line_bytes_max: self.line_bytes_max, depth_max: self.depth_max }
    }
}

/// The number of cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Completes the plan of a seal. Returns the positions of all its streams, and the row groups of
/// its alerts. `moved` are the streams with new rows; `stored` returns the position in `events` of
/// a stream that has alerts but no new rows.
///
/// # Errors
/// If `stored` fails, or if the alerts cannot be encoded.
pub fn seal_plan(
    moved: Vec<SourcePosition>,
    alerts: &[Alert],
    mut stored: impl FnMut(&str) -> Result<Option<Position>, ArchiveError>,
) -> Result<(Vec<SourcePosition>, Vec<EncodedRowGroup>), IngestError> {
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
    let row_groups =
        if alerts.is_empty() { Vec::new() } else { encode(Table::Alerts, alerts_batch(alerts), Utc::now())? };
    Ok((positions, row_groups))
}

/// A decoded block as row groups and counts.
pub struct EncodedBlock {
    pub row_groups: Vec<EncodedRowGroup>,
    pub events: u64,
    pub rejects: u64,
    /// Number of rejects of each reason.
    pub reasons: BTreeMap<String, u64>,
    pub dialects: DialectCounts,
    /// The first rejects, as text.
    pub examples: Vec<String>,
}

/// Encodes a block that was decoded to be sealed, without the rejects before offset `rejects_from`.
///
/// # Errors
/// If a column cannot be encoded.
pub fn encode_block(
    decoded: DecodedBlock,
    rejects_from: i64,
    arrived: DateTime<Utc>,
) -> Result<EncodedBlock, IngestError> {
    let (reasons, examples) = summary(&decoded.rejects);
    let (events, rejects) = (decoded.events.num_rows() as u64, decoded.rejects.num_rows() as u64);
    let dialects = decoded.dialects;
    let mut row_groups = encode_rejects(decoded.rejects, rejects_from, arrived)?;
    if events > 0 {
        row_groups.extend(encode_records(decoded.events, &decoded.record_hashes, arrived)?);
    }
    Ok(EncodedBlock { row_groups, events, rejects, reasons, dialects, examples })
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
fn summary(batch: &RecordBatch) -> (BTreeMap<String, u64>, Vec<String>) {
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
