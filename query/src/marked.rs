//! Records which files with redacted rows a statement reads, if it reads columns that may contain
//! tokens.
//!
//! Invariant: a file is noted if its footer shows a mark, or does not say whether there is one.
//! Nothing is kept between statements.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use datafusion::datasource::listing::PartitionedFile;
use parquet::file::metadata::ParquetMetaData;
use strongroom_schemas::events;

/// Columns of events that may have tokens.
const WITH_TOKENS: [&str; 11] = [
    events::REQUEST_URI,
    events::USER_NAME,
    events::USER_EXTRA,
    events::IMPERSONATED_USER_NAME,
    events::IMPERSONATED_USER_EXTRA,
    events::RESPONSE_MESSAGE,
    events::RESPONSE_DETAILS,
    events::REQUEST_OBJECT,
    events::RESPONSE_OBJECT,
    events::ANNOTATIONS,
    events::AUTHZ_REASON,
];

/// Whether a column of events may have tokens.
pub(crate) fn may_have_tokens(column: &str) -> bool {
    WITH_TOKENS.contains(&column)
}

/// The files with marks that one statement opened to read columns that may contain tokens.
#[derive(Debug, Default)]
pub(crate) struct Marked(Mutex<BTreeMap<String, PartitionedFile>>);

impl Marked {
    /// Notes a file of events, with its footer.
    pub(crate) fn note(&self, file: &PartitionedFile, footer: &ParquetMetaData) {
        let columns = footer.row_groups().iter().flat_map(|row_group| row_group.columns());
        let mut marks = columns.filter(|column| column.column_path().string() == events::REDACTION);
        let has_marks = marks.any(|column| {
            let nulls = column.statistics().and_then(|statistics| statistics.null_count_opt());
            nulls.is_none_or(|nulls| i64::try_from(nulls).is_ok_and(|nulls| nulls < column.num_values()))
        });
        if has_marks {
            let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            files.entry(file.object_meta.location.to_string()).or_insert_with(|| file.clone());
        }
    }

    /// Returns the files in the order of their paths. This is the order of their days, because a
    /// path names the day first.
    pub(crate) fn files(&self) -> Vec<PartitionedFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
