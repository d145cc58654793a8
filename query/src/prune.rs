//! Decides which files a query can skip, based on what the commits say about them.
//!
//! Invariant: a file is skipped only when the filters prove that none of its rows can match. A file
//! that lacks a statistic is kept. A filter on the event time uses only the least and the greatest
//! event time that the commit gives for a file. It never uses the date that the file is stored
//! under, because an event whose own time is implausible is stored under the day it arrived.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow_schema::SchemaRef;
use chrono::{Datelike, NaiveDate};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use strongroom_archive::FileEntry;
use strongroom_schemas::{Table, events, table::DATE};

/// Days since 1970-01-01, the value of a `Date32`.
pub(crate) fn date32(date: NaiveDate) -> i32 {
    const EPOCH_FROM_CE: i32 = 719_163;
    date.num_days_from_ce() - EPOCH_FROM_CE
}

/// Keeps the files that may hold a row for which `filter` (over `schema`) is true.
pub(crate) fn prune(
    table: Table,
    files: Vec<FileEntry>,
    filter: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
) -> Result<Vec<FileEntry>> {
    let predicate =
        PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).try_build(Arc::clone(filter))?;
    if predicate.always_true() {
        return Ok(files);
    }
    let keep = predicate.prune(&CommitStatistics { time_column: table.time_column(), files: &files })?;
    Ok(files.into_iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect())
}

/// Keeps the files whose date makes `filter` true. The filter may use the column `date` alone. The
/// answer is exact, whatever the filter's form, because the filter is evaluated on each date.
pub(crate) fn select_dates(files: Vec<FileEntry>, filter: &Arc<dyn PhysicalExpr>) -> Result<Vec<FileEntry>> {
    let dates = Date32Array::from_iter_values(files.iter().map(|file| date32(file.date)));
    let rows = RecordBatch::try_from_iter([(DATE, Arc::new(dates) as ArrayRef)])?;
    let keep = filter.evaluate(&rows)?.into_array(files.len())?;
    let keep = as_boolean_array(&keep)?;
    Ok(files.into_iter().zip(keep).filter_map(|(file, keep)| (keep == Some(true)).then_some(file)).collect())
}

/// Gives DataFusion the statistics of `files` from the commits. DataFusion calls a file a
/// *container*.
struct CommitStatistics<'a> {
    time_column: &'static str,
    files: &'a [FileEntry],
}

#[derive(Clone, Copy)]
enum Bound {
    Min,
    Max,
}

impl CommitStatistics<'_> {
    fn bounds(&self, column: &Column, bound: Bound) -> Option<ArrayRef> {
        let files = self.files.iter();
        Some(match column.name() {
            DATE => Arc::new(Date32Array::from_iter_values(files.map(|file| date32(file.date)))),
            name if name == self.time_column => {
                let times = files.map(|file| match bound {
                    Bound::Min => file.time_min_us,
                    Bound::Max => file.time_max_us,
                });
                Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone("UTC"))
            }
            events::SOURCE_OFFSET => Arc::new(Int64Array::from_iter(files.map(|file| match bound {
                Bound::Min => file.offset_min,
                Bound::Max => file.offset_max,
            }))),
            events::SOURCE => Arc::new(StringViewArray::from_iter(files.map(|file| match bound {
                Bound::Min => file.source_min.as_deref(),
                Bound::Max => file.source_max.as_deref(),
            }))),
            _ => return None,
        })
    }
}

impl PruningStatistics for CommitStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, Bound::Min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, Bound::Max)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        // Every row has a date. Commits do not count the nulls of any other column.
        (column.name() == DATE).then(|| Arc::new(UInt64Array::from_value(0, self.files.len())) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.files.iter().map(|file| file.rows))))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
