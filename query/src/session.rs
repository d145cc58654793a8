//! A session: the archive's tables and views, the functions, the limits.
//!
//! Invariants: a session knows one object store: the archive's folder, opened for reading or, for
//! an archive in a bucket, an empty store in memory, because only `reader` reads buckets. Its
//! memory pool is bounded, so larger data spills to the temporary folder. Every statement is
//! checked by `gate` before it is planned, and the plan is checked again before it runs. A crash
//! leaves only spilled files in the temporary folder.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::functions_table::all_default_table_functions;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use futures::stream::Fuse;
use futures::{FutureExt as _, StreamExt};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use strongroom_archive::Archive;
use strongroom_schemas::Table;
use url::Url;

use crate::complete::{Catalog, Relation};
use crate::error::{QueryError, Result};
use crate::listings::{INFORMATION_SCHEMA, Listed};
use crate::marked::Marked;
use crate::policies::policies_of;
use crate::reader::{InPlace, PageIndex};
use crate::snapshots::{Snapshots, Taken};
use crate::table::{STORE_URL, ScanSummary};
use crate::{bounded, concatenate, functions, gate, guarded, json, listings, views};

/// Default memory for the queries of one session.
pub const MEMORY_LIMIT_DEFAULT: usize = 1 << 30;
/// Minimum memory that a session can work with.
const MEMORY_LIMIT_MIN: usize = 8 << 20;
/// The memory limit divided by this is the number of rows in one batch, which is at least
/// [`BATCH_ROWS_MIN`] and at most [`BATCH_ROWS_MAX`]. A batch has few rows when memory is short,
/// because a sort holds at least two batches and rows with bodies have some KiB each. The upper
/// bound is DataFusion's default.
const ROW_MEMORY_BYTES: usize = 48 << 10;
const BATCH_ROWS_MIN: usize = 256;
const BATCH_ROWS_MAX: usize = 8192;
/// The memory limit divided by this is set aside, for all partitions together, to merge the data
/// that sorts have spilled. A partition gets at most [`MERGE_BYTES_MAX`], DataFusion's default.
const MERGE_SHARE: usize = 16;
const MERGE_BYTES_MAX: usize = 10 << 20;
/// Maximum memory for parsed footers and page indexes, which are kept between queries.
const METADATA_CACHE_BYTES: usize = 64 << 20;
/// Name of the only catalog.
const CATALOG: &str = "strongroom";
/// Name of the schema with the tables and views. The only other schema is `information_schema`.
const SCHEMA: &str = "archive";

/// Resources that a session may use.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Bytes of memory for sorts, joins and groups of one session.
    pub memory_limit: usize,
    /// Parts of a plan that run at once; the number of cores if `None`.
    pub threads: Option<usize>,
    /// Folder for spilled data; the system's temporary folder if `None`.
    pub temp_dir: Option<PathBuf>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions { memory_limit: MEMORY_LIMIT_DEFAULT, threads: None, temp_dir: None }
    }
}

/// Answers queries over one archive.
pub struct Session {
    context: SessionContext,
    archive: Arc<Archive>,
    memory_limit: usize,
}

/// The answer to one statement, as a stream.
pub struct Answer {
    pub schema: SchemaRef,
    pub rows: Fuse<SendableRecordBatchStream>,
    plan: Arc<dyn ExecutionPlan>,
    marked: Arc<Marked>,
    /// Reads the redaction marks of the files that the plan reads.
    reader: InPlace,
    memory_limit: usize,
    /// When the statement was received.
    pub asked: Instant,
}

impl Session {
    /// Opens a session over `archive`. This reads no file of the archive, because each query takes
    /// its own snapshot. The temporary folder of the options is created if it does not exist.
    ///
    /// # Errors
    /// [`QueryError::Session`] when the limits cannot be set up, [`QueryError::SpillFolder`] when the
    /// temporary folder cannot be used.
    pub fn open(archive: Archive, options: &SessionOptions) -> Result<Session> {
        let memory_limit = options.memory_limit.max(MEMORY_LIMIT_MIN);
        let threads = options.threads.unwrap_or_else(cores).max(1);
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_target_partitions(threads)
            .with_batch_size((memory_limit / ROW_MEMORY_BYTES).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX));
        let settings = config.options_mut();
        settings.execution.time_zone = Some("UTC".to_owned());
        settings.execution.sort_spill_reservation_bytes =
            (memory_limit / (MERGE_SHARE * threads)).min(MERGE_BYTES_MAX);
        settings.execution.parquet.pushdown_filters = true;
        settings.execution.parquet.reorder_filters = true;
        settings.explain.show_sizes = false;
        // Parallel sorts are followed by a merge that cannot spill, and they leave no memory for
        // it. A single sort can always continue, and is not slower than they are once data is
        // spilled.
        settings.optimizer.repartition_sorts = false;

        let spill = match &options.temp_dir {
            Some(folder) => {
                std::fs::create_dir_all(folder)
                    .map_err(|source| QueryError::SpillFolder { path: folder.clone(), source })?;
                DiskManagerMode::Directories(vec![folder.clone()])
            }
            None => DiskManagerMode::OsTmpDirectory,
        };
        // Sealed files are read by `reader`, but DataFusion requires a store all the same. For an
        // archive on a disk it gets the folder. For a bucket, which only `reader` can reach, it
        // gets an empty store.
        let store: Arc<dyn ObjectStore> = if archive.is_local() {
            Arc::new(
                LocalFileSystem::new_with_prefix(archive.root())
                    .map_err(|error| QueryError::Session(DataFusionError::ObjectStore(Box::new(error))))?,
            )
        } else {
            Arc::new(InMemory::new())
        };
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(memory_limit)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(spill))
            .with_object_store_registry(Arc::new(ArchiveOnly { store }))
            .with_metadata_cache_limit(METADATA_CACHE_BYTES)
            .build_arc()
            .map_err(QueryError::Session)?;

        let table_functions = all_default_table_functions()
            .into_iter()
            .filter(|function| gate::TABLE_FUNCTIONS.contains(&function.name()))
            .map(|function| (function.name().to_owned(), function));
        // File formats and table factories serve only COPY and CREATE EXTERNAL TABLE, so there are
        // none here.
        let mut state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_table_functions(table_functions.collect())
            .with_file_formats(vec![])
            .with_table_factories(Default::default())
            .build();
        json::register(&mut state).map_err(QueryError::Session)?;
        concatenate::register(&mut state, memory_limit).map_err(QueryError::Session)?;
        let context = SessionContext::new_with_state(state);
        for function in functions::all() {
            context.register_udf(Arc::unwrap_or_clone(function));
        }
        bounded::wrap_functions(&context, memory_limit);
        let archive = Arc::new(archive);
        let snapshots = Arc::new(Snapshots::new(Arc::clone(&archive)));
        views::register_tables(&context, &snapshots).map_err(QueryError::Session)?;
        Ok(Session { context, archive, memory_limit })
    }

    /// Plans `sql` and starts to answer it.
    ///
    /// Cancel safe: dropping the future or the answer stops the work and removes what it spilled.
    ///
    /// # Errors
    /// [`QueryError::Refused`] or a similar variant for a statement that does more than read, and
    /// one of [`QueryError::UnknownTable`], [`QueryError::UnknownColumn`] and
    /// [`QueryError::UnknownFunction`] for a name that does not exist.
    pub async fn ask(&self, sql: &str) -> Result<Answer> {
        // Planning reads files too, and computes constants.
        AssertUnwindSafe(self.begin(sql)).catch_unwind().await.unwrap_or(Err(QueryError::Panicked))
    }

    async fn begin(&self, sql: &str) -> Result<Answer> {
        let asked = Instant::now();
        let statement = listings::as_question(gate::admit(sql)?)?;
        self.plan_views(&statement).await.map_err(QueryError::Session)?;
        let mut state = self.context.state();
        let taken = Taken::default();
        let marked = Arc::clone(&taken.marked);
        state.config_mut().set_extension(Arc::new(taken));
        let names = views::names();
        let from_plan = |error| QueryError::from_plan(error, &names);
        let plan = state.statement_to_plan(statement).await.map_err(from_plan)?;
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&plan)
            .map_err(from_plan)?;
        // The optimiser computes constants, so they are checked after it has run.
        let plan = state.optimize(&plan).map_err(from_plan)?;
        bounded::check_constants(&plan)
            .map_err(|error| QueryError::from_execution(error, self.memory_limit))?;
        let plan = state.query_planner().create_physical_plan(&plan, &state).await.map_err(from_plan)?;
        let plan = guarded::guard(plan).map_err(from_plan)?;
        let rows = execute_stream(Arc::clone(&plan), state.task_ctx())
            .map_err(|error| QueryError::from_execution(error, self.memory_limit))?;
        let footers = state.runtime_env().cache_manager.get_file_metadata_cache();
        Ok(Answer {
            schema: rows.schema(),
            rows: rows.fuse(),
            plan,
            marked,
            reader: InPlace::new(Arc::clone(&self.archive), footers, PageIndex::Unused, Vec::new()),
            memory_limit: self.memory_limit,
            asked,
        })
    }

    /// Plans the views that `statement` names, or all views if it reads `information_schema`, where
    /// they are listed.
    async fn plan_views(&self, statement: &Statement) -> Result<(), DataFusionError> {
        let references = self.context.state().resolve_table_references(statement)?;
        if references.iter().any(|name| name.schema() == Some(INFORMATION_SCHEMA)) {
            return self.register_lists().await;
        }
        for view in &views::VIEWS {
            if references.iter().any(|name| name.table() == view.name) {
                views::plan_view(&self.context, view).await?;
            }
        }
        Ok(())
    }

    /// Registers the schema of the lists, unless that is done already.
    async fn register_lists(&self) -> Result<(), DataFusionError> {
        let Some(catalog) = self.context.catalog(CATALOG) else { return Ok(()) };
        if catalog.schema(INFORMATION_SCHEMA).is_none() {
            let lists =
                listings::information_schema(SCHEMA, &self.relations().await?, &self.context.state())?;
            catalog.register_schema(INFORMATION_SCHEMA, lists)?;
        }
        Ok(())
    }

    /// Returns every table and view.
    async fn relations(&self) -> Result<Vec<Listed>, DataFusionError> {
        for view in &views::VIEWS {
            views::plan_view(&self.context, view).await?;
        }
        let mut relations = vec![];
        for name in views::names() {
            let view = views::VIEWS.iter().find(|view| view.name == name);
            let table = Table::ALL.into_iter().find(|table| table.name() == name).map(views::about);
            relations.push(Listed {
                about: view.map(|view| view.about).or(table).unwrap_or_default(),
                is_view: view.is_some(),
                schema: self.context.table_provider(name.as_str()).await?.schema(),
                name,
            });
        }
        Ok(relations)
    }

    /// Returns the names for completion and listings.
    ///
    /// # Errors
    /// [`QueryError::Session`] when a view cannot be planned.
    pub async fn catalog(&self) -> Result<Catalog> {
        let relations = self.relations().await.map_err(QueryError::Session)?.into_iter();
        let relations = relations.map(|relation| Relation {
            columns: relation.schema.fields().iter().map(|field| field.name().clone()).collect(),
            name: relation.name,
            about: relation.about,
            is_view: relation.is_view,
        });
        let state = self.context.state();
        let mut functions: Vec<String> = state.scalar_functions().keys().cloned().collect();
        functions.extend(state.aggregate_functions().keys().cloned());
        functions.extend(state.window_functions().keys().cloned());
        functions.sort();
        functions.dedup();
        Ok(Catalog { relations: relations.collect(), functions })
    }
}

impl Answer {
    /// Files that the plan's scans listed and opened, and bytes read so far.
    pub fn stats(&self) -> QueryStats {
        let mut stats = QueryStats::default();
        collect_stats(&self.plan, &mut stats);
        stats
    }

    /// Returns the redaction policies under which rows with tokens were stored, in the files read
    /// so far.
    pub async fn policies(&self) -> Vec<String> {
        policies_of(&self.marked.files(), &self.reader).await
    }

    pub(crate) fn failure(&self, error: DataFusionError) -> QueryError {
        QueryError::from_execution(error, self.memory_limit)
    }

    /// Returns the physical plan, for its metrics.
    pub fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.plan
    }
}

/// The files and bytes that were read, and the bytes that were spilled, for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryStats {
    pub files: ScanSummary,
    pub bytes_read: usize,
    pub bytes_spilled: usize,
}

fn collect_stats(plan: &Arc<dyn ExecutionPlan>, stats: &mut QueryStats) {
    if let Some(scan) = plan.downcast_ref::<DataSourceExec>()
        && let Some(config) = scan.data_source().downcast_ref::<FileScanConfig>()
    {
        let files = config.file_groups.iter().flat_map(|group| group.iter());
        if let Some(summary) = files.filter_map(|file| file.extension::<ScanSummary>()).next() {
            stats.files.listed += summary.listed;
            stats.files.kept += summary.kept;
        }
    }
    if let Some(metrics) = plan.metrics() {
        stats.bytes_read += metrics.sum_by_name("bytes_scanned").map_or(0, |value| value.as_usize());
        stats.bytes_spilled += metrics.spilled_bytes().unwrap_or(0);
    }
    for child in plan.children() {
        collect_stats(child, stats);
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A registry that holds the one store of the session (for a bucket, an empty one) and ignores
/// every other.
#[derive(Debug)]
struct ArchiveOnly {
    store: Arc<dyn ObjectStore>,
}

impl ObjectStoreRegistry for ArchiveOnly {
    fn register_store(&self, _: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        Some(store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, DataFusionError> {
        if url.as_str() == STORE_URL.as_str() {
            return Ok(Arc::clone(&self.store));
        }
        Err(DataFusionError::Plan(format!("this archive is read-only: {url} is outside it")))
    }
}
