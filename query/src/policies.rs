//! Finds the redaction policies under which the rows that a statement reads were stored.
//!
//! Tokens of different keys are never equal. So a join over the tokens of two keys finds fewer rows
//! than a join over the values, and a count of distinct tokens is greater than that of the values.
//! The id of a policy depends on the id of its key, and is at the beginning of each mark. A file is
//! written by one run, and so under one policy, which the file's first mark names.
//!
//! Invariant: if all rows with marks are in one file, nothing is read. If there are up to
//! [`FILES_MAX`] such files, all of them are examined. If there are more, the first, the last and
//! some in between are examined, so a key that was changed once is always noticed. No state.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use datafusion::arrow::array::StringArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory as _;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::{FutureExt as _, StreamExt as _};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use strongroom_schemas::events;

use crate::reader::InPlace;

/// Maximum number of files that are examined.
const FILES_MAX: usize = 16;
/// Rows of marks that are decoded at once.
const BATCH_ROWS: usize = 256;
/// The beginning of the text of each mark. The id of the policy follows it.
const MARK_HEAD: &[u8] = b"{\"policy\":\"";
/// Number of hex digits of that id.
const POLICY_DIGITS: usize = 16;

/// Returns the ids of the policies of these files, as far as the available files show. A file that
/// cannot be read is not an error here, because the statement has already read it.
pub(crate) async fn policies_of(files: &[PartitionedFile], reader: &InPlace) -> Vec<String> {
    let (count, mut ids) = (files.len(), BTreeSet::new());
    if count < 2 {
        return Vec::new();
    }
    let looks = count.min(FILES_MAX);
    for look in 0..looks {
        let policy = first_policy(&files[look * (count - 1) / (looks - 1)], reader);
        ids.extend(AssertUnwindSafe(policy).catch_unwind().await.unwrap_or_default());
    }
    ids.into_iter().collect()
}

/// Returns the policy of the first mark in a file.
async fn first_policy(file: &PartitionedFile, reader: &InPlace) -> Option<String> {
    let metrics = ExecutionPlanMetricsSet::new();
    let reader: Box<dyn AsyncFileReader> = reader.create_reader(0, file.clone(), None, &metrics).ok()?;
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.ok()?;
    let marks = ProjectionMask::columns(builder.parquet_schema(), [events::REDACTION]);
    let mut rows = builder.with_projection(marks).with_batch_size(BATCH_ROWS).build().ok()?;
    while let Some(Ok(batch)) = rows.next().await {
        let marks = cast(batch.columns().first()?, &DataType::Utf8).ok()?;
        let marks = marks.as_any().downcast_ref::<StringArray>()?;
        if let Some(policy) = marks.iter().flatten().next().and_then(|mark| policy_of(mark.as_bytes())) {
            return Some(policy.to_owned());
        }
    }
    None
}

/// Returns the id of the policy of a mark, from the beginning of its text.
fn policy_of(mark: &[u8]) -> Option<&str> {
    let id = mark.strip_prefix(MARK_HEAD)?.get(..POLICY_DIGITS)?;
    std::str::from_utf8(id).ok().filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use strongroom_schemas::marks::Redaction;

    use super::*;

    #[test]
    fn the_policy_of_a_mark_is_at_its_beginning() {
        let mark =
            Redaction::new(0x00a1_b2c3, vec!["/requestObject".to_owned()], Vec::new()).expect("a mark");
        let text = mark.to_string();
        assert_eq!(policy_of(text.as_bytes()), Some(mark.policy()));
        assert_eq!(policy_of(&text.as_bytes()[..MARK_HEAD.len() + POLICY_DIGITS]), Some(mark.policy()));
        for other in ["", "{\"policy\":\"00a1", &text[1..], "{\"policy\":\"not-hexadecimal.\"}"] {
            assert_eq!(policy_of(other.as_bytes()), None, "{other}");
        }
    }
}
