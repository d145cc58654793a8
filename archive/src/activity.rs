//! Appends activity records: records of what this program and its users did, sealed and proven like
//! events.
//!
//! Records that were not sealed are lost in a crash: [`ActivityLog::open`] continues after the last
//! sealed record. A caller that must not lose a record keeps a copy of the record until
//! [`ActivityLog::seal`] returns.

use std::sync::Arc;

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use chrono::Utc;
use strongroom_schemas::{Table, activity};

pub use crate::activity_record::{
    ActivityError, ActivityKind, ActivityRecord, BODY_BYTES_MAX, NAME_BYTES_MAX, WRITER_ID_BYTES_MAX,
};
use crate::encode::encode;
use crate::error::ArchiveError;
use crate::position::{Counts, Position, SourcePosition};
use crate::writer::{SealReport, Writer};

/// Maximum number of records in one [`ActivityLog::append`].
pub const RECORDS_MAX: usize = 4096;
/// Maximum total length of the bodies in one [`ActivityLog::append`], in bytes.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// The activity records of one writer, which are appended to the writer's source partition in
/// order.
#[derive(Debug)]
pub struct ActivityLog {
    partition: String,
    sealed: Option<Position>,
    reached: Position,
}

impl ActivityLog {
    /// Continues after the last record of `writer_id` in the archive. If two processes use one id
    /// at once, the next seal of one of them is refused.
    ///
    /// # Errors
    /// [`ArchiveError::Activity`] for an id that cannot be part of a source's name.
    pub fn open(writer: &mut Writer, writer_id: &str) -> Result<ActivityLog, ArchiveError> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=WRITER_ID_BYTES_MAX).contains(&writer_id.len()) || !writer_id.bytes().all(is_part) {
            return Err(ArchiveError::Activity { source: ActivityError::WriterId });
        }
        let partition = format!("{}{writer_id}", activity::SOURCE_PREFIX);
        let sealed = writer.position(Table::Activity, &partition)?;
        let none = Position { next_offset: 0, records: 0, prefix_blake3: [0; 16], broker_offset: None };
        Ok(ActivityLog { partition, sealed, reached: sealed.unwrap_or(none) })
    }

    /// Returns the source partition of the records.
    pub fn partition(&self) -> &str {
        &self.partition
    }

    /// Returns the number of records so far, sealed or not.
    pub fn records(&self) -> i64 {
        self.reached.records
    }

    /// Adds records to the next seal of the writer.
    ///
    /// # Errors
    /// [`ArchiveError::Activity`] if there are too many records or bytes for one call; otherwise
    /// those of [`Writer::append`].
    pub fn append(&mut self, writer: &mut Writer, records: &[ActivityRecord]) -> Result<(), ArchiveError> {
        let bytes: usize = records.iter().map(|record| record.body().len()).sum();
        if records.len() > RECORDS_MAX || bytes > BATCH_BYTES_MAX {
            let source = ActivityError::TooMany { records: records.len(), bytes };
            return Err(ArchiveError::Activity { source });
        }
        let batch = batch(records, &self.partition, self.reached.next_offset);
        for row_group in encode(Table::Activity, batch, Utc::now())? {
            writer.append(row_group)?;
        }
        for record in records {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.reached.prefix_blake3).update(record.body().as_bytes()).update(b"\n");
            self.reached.prefix_blake3.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            self.reached.next_offset += 1;
            self.reached.records += 1;
        }
        Ok(())
    }

    /// Returns the position to pass to [`Writer::seal`] in a seal that has rows of other sources as
    /// well. Call [`ActivityLog::has_sealed`] after that seal. `None` if no record was added.
    pub fn position(&self) -> Option<SourcePosition> {
        let is_new = self.sealed.map_or(self.reached.records > 0, |sealed| sealed != self.reached);
        is_new.then(|| SourcePosition {
            partition: self.partition.clone(),
            label: self.partition.clone(),
            position: self.reached,
            previous: self.sealed,
        })
    }

    /// Notes that the position returned by [`ActivityLog::position`] is sealed.
    pub fn has_sealed(&mut self) {
        if self.reached.records > 0 {
            self.sealed = Some(self.reached);
        }
    }

    /// Seals the added records, with a writer that has no rows of other sources. The records are on
    /// disk when this returns.
    ///
    /// # Errors
    /// Those of [`Writer::seal`].
    pub fn seal(&mut self, writer: &mut Writer) -> Result<SealReport, ArchiveError> {
        let positions: Vec<SourcePosition> = self.position().into_iter().collect();
        let report = writer.seal(&positions, Counts::default())?;
        self.has_sealed();
        Ok(report)
    }
}

/// Returns records as rows of `Table::Activity.batch_schema()`, with offsets from `first_offset`
/// on.
fn batch(records: &[ActivityRecord], partition: &str, first_offset: i64) -> RecordBatch {
    let dictionary = |of: fn(&ActivityRecord) -> &str| -> ArrayRef {
        let mut builder = StringDictionaryBuilder::<Int32Type>::new();
        records.iter().for_each(|record| builder.append_value(of(record)));
        Arc::new(builder.finish())
    };
    let mut sources = StringDictionaryBuilder::<Int32Type>::new();
    records.iter().for_each(|_| sources.append_value(partition));
    let times = TimestampMicrosecondArray::from_iter_values(records.iter().map(|record| record.time_us()));
    let last_offset = first_offset + records.len() as i64;
    let columns: Vec<ArrayRef> = vec![
        dictionary(|record| record.kind().as_str()),
        Arc::new(times.with_timezone("UTC")),
        dictionary(ActivityRecord::principal),
        Arc::new(StringArray::from_iter(records.iter().map(|record| record.subject()))),
        Arc::new(StringArray::from_iter_values(records.iter().map(ActivityRecord::body))),
        Arc::new(sources.finish()),
        Arc::new(Int64Array::from_iter_values(first_offset..last_offset)),
    ];
    RecordBatch::try_new(Table::Activity.batch_schema(), columns).expect("columns are built from the schema")
}

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use strongroom_schemas::record::leaf_hash;

    use super::*;

    #[test]
    fn rows_are_the_members_of_the_body() {
        let kinds = [ActivityKind::Question, ActivityKind::Clock];
        let new = |kind| ActivityRecord::new(kind, Utc::now(), "eve", Some("a case"), Map::new()).unwrap();
        let records = kinds.map(new);
        let batch = batch(&records, "activity/a", 7);
        assert_eq!(batch.num_rows(), 2);
        let row_groups = encode(Table::Activity, batch, Utc::now()).unwrap();
        assert_eq!(row_groups.len(), 1);
        let hashes = row_groups[0].record_hashes.clone().unwrap();
        let expected: Vec<_> = records.iter().map(|record| leaf_hash(record.body().as_bytes())).collect();
        assert_eq!(hashes, expected);
    }
}
