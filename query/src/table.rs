//! One table of the archive for DataFusion: the files that its commits name, without those that the
//! filters rule out, read by DataFusion's own Parquet source.
//!
//! Invariants: the list of files is taken once per statement and never from the folder, so files
//! that no commit names are not read; row counts are exact, so `COUNT(*)` needs no file; filters on
//! `date` alone are fully answered by the choice of files, all others are evaluated again on rows.
//!
//! Strings are read as Arrow's string views: the decoder then points into the page instead of
//! copying each value.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, DataFusionError, Result, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectMeta;
use strongroom_archive::FileEntry;
use strongroom_schemas::{Table, table::DATE};

use crate::implied::{Element, element, implied};
use crate::marked::may_have_tokens;
use crate::prune::{date32, prune, select_dates};
use crate::reader::{InPlace, PageIndex};
use crate::snapshots::{Snapshots, Taken};

/// The URL that stands for the archive's folder in plans. A session has no other object store.
pub(crate) static STORE_URL: LazyLock<ObjectStoreUrl> = LazyLock::new(|| {
    ObjectStoreUrl::parse("strongroom://archive/").expect("a scheme and a host make an object store URL")
});

/// How many files a scan listed and how many of them it opens. Travels with the scan's first file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// Files that the table's commits name.
    pub listed: usize,
    /// Files that the filters did not rule out.
    pub kept: usize,
}

/// A table of an archive, without the computed columns.
#[derive(Debug)]
pub(crate) struct SealedTable {
    table: Table,
    snapshots: Arc<Snapshots>,
    schema: TableSchema,
    date: FieldRef,
}

impl SealedTable {
    pub(crate) fn new(table: Table, snapshots: Arc<Snapshots>) -> Self {
        let date = Arc::new(Field::new(DATE, DataType::Date32, false));
        let schema = TableSchema::builder(view_schema(&table.file_schema()))
            .with_table_partition_cols(vec![Arc::clone(&date)])
            .build();
        SealedTable { table, snapshots, schema, date }
    }

    async fn files(&self, state: &dyn Session) -> Result<Vec<FileEntry>> {
        let taken = state.config().get_extension::<Taken>();
        let snapshot = self.snapshots.of(self.table, taken.as_deref()).await;
        Ok(snapshot.map_err(|error| DataFusionError::External(Box::new(error)))?.files.clone())
    }

    /// Returns true if a scan of these columns may give tokens. `None` means all columns.
    fn reads_tokens(&self, projection: Option<&Vec<usize>>) -> bool {
        let fields = self.schema.table_schema().fields();
        projection.is_none_or(|columns| {
            columns.iter().filter_map(|at| fields.get(*at)).any(|field| may_have_tokens(field.name()))
        })
    }

    fn partitioned_file(&self, file: &FileEntry) -> Result<PartitionedFile> {
        let relative = file.path.strip_prefix(self.snapshots.archive().root()).map_err(|_| {
            DataFusionError::Internal(format!("{} is outside the archive", file.path.display()))
        })?;
        let location = relative.to_str().and_then(|path| object_store::path::Path::parse(path).ok());
        let location = location.ok_or_else(|| {
            DataFusionError::Execution(format!("the name of file {} cannot be used", file.path.display()))
        })?;
        let meta = ObjectMeta {
            location,
            // Files are never changed once they are sealed: size and name identify them in caches.
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: file.size,
            e_tag: None,
            // Without this, a newer version under the same name would be read, which is not the
            // version that the commit names.
            version: file.version.clone(),
        };
        Ok(PartitionedFile::new_from_meta(meta)
            .with_partition_values(vec![ScalarValue::Date32(Some(date32(file.date)))])
            .with_statistics(Arc::new(self.file_statistics(file))))
    }

    /// Statistics of one file over the columns it stores.
    fn file_statistics(&self, file: &FileEntry) -> Statistics {
        // Commits keep event times to the microsecond, so MIN and MAX are answered from them too.
        let time = |us: Option<i64>| match us {
            Some(us) => Precision::Exact(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))),
            None => Precision::Absent,
        };
        let columns = self.schema.file_schema().fields().iter().map(|field| {
            let mut statistics = ColumnStatistics::new_unknown();
            if field.name() == self.table.time_column() {
                statistics.min_value = time(file.time_min_us);
                statistics.max_value = time(file.time_max_us);
            }
            statistics
        });
        Statistics {
            num_rows: Precision::Exact(usize::try_from(file.rows).unwrap_or(usize::MAX)),
            total_byte_size: Precision::Absent,
            column_statistics: columns.collect(),
        }
    }
}

/// Returns `schema` with Arrow's views in place of strings and bytes, and with the names that
/// elements of lists have in files.
fn view_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => Arc::new(Field::new(field.name(), DataType::Utf8View, field.is_nullable())),
        DataType::Binary => Arc::new(Field::new(field.name(), DataType::BinaryView, field.is_nullable())),
        DataType::List(item) => {
            let item = Field::new("element", item.data_type().clone(), item.is_nullable());
            Arc::new(Field::new(field.name(), DataType::List(Arc::new(item)), field.is_nullable()))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Returns true if `filter` uses the column `date` alone, so that the files' dates decide it.
fn is_about_dates(filter: &Expr) -> bool {
    let columns = filter.column_refs();
    !columns.is_empty() && columns.iter().all(|column| column.name() == DATE) && !filter.is_volatile()
}

#[async_trait]
impl TableProvider for SealedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| {
            if is_about_dates(filter) {
                TableProviderFilterPushDown::Exact
            } else {
                TableProviderFilterPushDown::Inexact
            }
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut files = self.files(state).await?;
        let listed = files.len();
        let (about_dates, others): (Vec<_>, Vec<_>) = filters.iter().cloned().partition(is_about_dates);
        if let Some(filter) = conjunction(about_dates) {
            let schema = DFSchema::from_unqualified_fields([Arc::clone(&self.date)].into(), HashMap::new())?;
            files = select_dates(files, &state.create_physical_expr(filter, &schema)?)?;
        }
        let schema = DFSchema::try_from(self.schema())?;
        let implied: Vec<Expr> =
            others.iter().filter_map(|filter| implied(filter, self.table.time_column())).collect();
        let elements: Vec<Element> = others.iter().chain(&implied).filter_map(element).collect();
        if let Some(filter) = conjunction(others.into_iter().chain(implied.iter().cloned())) {
            files = prune(self.table, files, &state.create_physical_expr(filter, &schema)?, &self.schema())?;
        }
        let summary = ScanSummary { listed, kept: files.len() };
        if files.is_empty() {
            let schema = self.schema();
            let schema = match projection {
                Some(columns) => Arc::new(schema.project(columns)?),
                None => schema,
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }

        // The files are in the order of their event times, so that neighbouring files have
        // neighbouring times.
        files.sort_by_key(|file| (file.time_min_us, file.offset_min));
        let mut files = files.iter().map(|file| self.partitioned_file(file)).collect::<Result<Vec<_>>>()?;
        if let Some(first) = files.first_mut() {
            *first = first.clone().with_extension(summary);
        }
        let statistics = table_statistics(&files, self.schema.table_schema());
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());

        let footers = state.runtime_env().cache_manager.get_file_metadata_cache();
        let page_index = if filters.is_empty() { PageIndex::Unused } else { PageIndex::Wanted };
        let archive = Arc::clone(self.snapshots.archive());
        let mut reader = InPlace::new(archive, footers, page_index, elements);
        if let Some(taken) = state.config().get_extension::<Taken>()
            && self.table == Table::Events
            && self.reads_tokens(projection)
        {
            reader = reader.noting(Arc::clone(&taken.marked));
        }
        let mut source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(state.default_table_options().parquet)
            .with_parquet_file_reader_factory(Arc::new(reader));
        if let Some(filter) = conjunction(implied) {
            source = source.with_predicate(state.create_physical_expr(filter, &schema)?);
        }
        let config = FileScanConfigBuilder::new(STORE_URL.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

fn table_statistics(files: &[PartitionedFile], schema: &SchemaRef) -> Statistics {
    let statistics = files.iter().filter_map(|file| file.statistics.as_deref());
    Statistics::try_merge_iter(statistics, schema).unwrap_or_else(|_| Statistics::new_unknown(schema))
}
