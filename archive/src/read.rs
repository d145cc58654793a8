//! Reads rows back in the order of their source.
//!
//! Terms. Each row group of a partition covers a range of offsets. A *block* is the part of a
//! source that was encoded in one batch. The ranges of a partition's row groups overlap only if the
//! row groups are from the same block, whose rows were split over several dates. Row groups that
//! overlap form a *cluster*. A row group may have rows of many partitions, because short streams
//! share a batch. The ranges of two such row groups may overlap although they have no partition in
//! common. So before a row group with several sources is read for a partition, its column of
//! sources is read to see whether the partition is among them.
//!
//! Invariant: a cluster is read whole, sorted, and returned before the next cluster is read. So
//! every row is returned once, in order, and memory holds one cluster (the rows of a block),
//! whatever the size of the archive; a cluster larger than a block can be is refused. Beside it, memory holds the names of the sources of the row
//! groups that have several.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, RecordBatch, StringArray, new_null_array};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use arrow_select::interleave::interleave;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
    RowFilter,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use serde_json::Value;
use strongroom_schemas::{Period, Table, VolumeId};
use strongroom_store::{Contents, Fetched, Store, layout};

use crate::delta::commit;
use crate::delta::facts::{METADATA, STATISTICS_OFFSET, STATISTICS_SOURCE};
use crate::delta::snapshot::{FileEntry, Snapshot};
use crate::error::{ArchiveError, ColumnError, Result};
use crate::position::{Position, Source};
use crate::records::drops;
use crate::sealed_rows::{Offsets, SealedBatch, columns_of};
use crate::site::Site;
use strongroom_parquet::{self as decoding, Batches, Fault, Guarded, RowGroupSize};

/// Number of bytes that are fetched from the end of a file, before the length of its footer is
/// known.
const FOOTER_BYTES_LIKELY: u64 = 128 << 10;

/// Number of rows of a returned batch.
const BATCH_ROWS: usize = 8192;

/// A function that decides, from the values of some columns, whether the other columns of a row are
/// read too.
pub type Choose = dyn FnMut(&RecordBatch) -> std::result::Result<BooleanArray, ArrowError> + Send;

/// Which events to read, and which of their columns.
#[derive(Clone, Default)]
pub struct EventSelection {
    /// Only events with `stage_timestamp` at or after this time, in microseconds; events without a
    /// time are left out.
    pub since_us: Option<i64>,
    /// Only events with `stage_timestamp` before this time; events without a time are left out.
    pub until_us: Option<i64>,
    /// Only row groups in which this column may have a value.
    pub having: Option<String>,
    /// Names of the wanted columns, including `source`, `source_offset` and `stage_timestamp`; all
    /// columns if empty.
    pub columns: Vec<String>,
    /// The names of the columns that a [`Choose`] function needs, and the function. If it leaves a
    /// row out, no other column of the row is read. The function is not used if events without a
    /// time are wanted and there may be such events: they are dated by the events before them, so
    /// every row is read.
    pub choose: Option<(Vec<String>, Arc<Mutex<Choose>>)>,
}

impl EventSelection {
    fn may_hold(&self, bounds: (Option<i64>, Option<i64>)) -> bool {
        let late = |since| bounds.1.is_none_or(|latest| latest >= since);
        let early = |until| bounds.0.is_none_or(|earliest| earliest < until);
        self.since_us.is_none_or(late) && self.until_us.is_none_or(early)
    }

    fn is_unbounded(&self) -> bool {
        self.since_us.is_none() && self.until_us.is_none()
    }

    fn holds(&self, time_us: Option<i64>) -> bool {
        self.since_us.is_none_or(|since| time_us.is_some_and(|time| time >= since))
            && self.until_us.is_none_or(|until| time_us.is_some_and(|time| time < until))
    }

    fn wants(&self, column: &str) -> bool {
        self.columns.is_empty() || self.columns.iter().any(|name| name == column)
    }
}

/// An iterator over batches of rows, which are read while it advances. The iterator ends after an
/// error.
pub struct Rows {
    store: Store,
    table: Table,
    files: Vec<FileEntry>,
    /// The row groups of all files, in order of first offset.
    row_groups: Vec<RowGroup>,
    partitions: VecDeque<String>,
    selection: EventSelection,
    clusters: VecDeque<Vec<RowGroup>>,
    cluster: Option<Cluster>,
    partition: String,
    /// Footer of the file that was read last.
    footer: Option<(usize, ArrowReaderMetadata)>,
    /// The sources of the row groups that have several.
    sources: HashMap<Place, BTreeSet<String>>,
    /// The rows that were read last, if the next partition may have some of them too.
    shared: Option<Shared>,
}

/// Number of a file, and number of a row group in it.
type Place = (usize, usize);

#[derive(Clone, Debug)]
struct RowGroup {
    file: usize,
    index: usize,
    first: i64,
    last: i64,
    /// Bounds of `source`; they may be truncated.
    source_min: Option<Vec<u8>>,
    source_max: Option<Vec<u8>>,
}

/// What was read last: the row groups, their rows, and what these take.
type Shared = (Vec<Place>, Arc<Vec<SealedBatch>>, RowGroupSize);

/// The wanted rows of a cluster, in order, and the number already returned.
struct Cluster {
    batches: Arc<Vec<SealedBatch>>,
    order: Vec<(usize, usize)>,
    taken: usize,
    /// Number of rows of a returned batch.
    batch_rows: usize,
    /// For messages.
    file: usize,
}

impl Rows {
    pub(crate) fn of_partition(store: Store, snapshot: Snapshot, partition: &str) -> Result<Rows> {
        let partitions = VecDeque::from([partition.to_owned()]);
        let files = snapshot.files.into_iter().filter(|file| file.may_hold_source(partition)).collect();
        Rows::new(store, snapshot.table, files, partitions, EventSelection::default())
    }

    /// Returns the rows of partitions that are [begun](Rows::begin) one by one.
    pub(crate) fn of_partitions(store: Store, snapshot: Snapshot, partitions: &[&str]) -> Result<Rows> {
        let may_hold = |file: &FileEntry| partitions.iter().any(|partition| file.may_hold_source(partition));
        let files = snapshot.files.into_iter().filter(may_hold).collect();
        Rows::new(store, snapshot.table, files, VecDeque::new(), EventSelection::default())
    }

    /// Makes the iterator return the rows of `partition` next. Rows of the previous partition that
    /// it has not returned yet are skipped.
    pub fn begin(&mut self, partition: &str) {
        self.cluster = None;
        self.clusters.clear();
        self.partitions = VecDeque::from([partition.to_owned()]);
    }

    pub(crate) fn selected(
        store: Store,
        snapshot: Snapshot,
        partitions: VecDeque<String>,
        selection: EventSelection,
    ) -> Result<Rows> {
        let wanted = |file: &FileEntry| selection.may_hold((file.time_min_us, file.time_max_us));
        let files = snapshot.files.into_iter().filter(wanted).collect();
        Rows::new(store, snapshot.table, files, partitions, selection)
    }

    fn new(
        store: Store,
        table: Table,
        files: Vec<FileEntry>,
        partitions: VecDeque<String>,
        selection: EventSelection,
    ) -> Result<Rows> {
        let mut rows = Rows {
            store,
            table,
            files,
            row_groups: Vec::new(),
            partitions,
            selection,
            clusters: VecDeque::new(),
            cluster: None,
            partition: String::new(),
            footer: None,
            sources: HashMap::new(),
            shared: None,
        };
        for file in 0..rows.files.len() {
            rows.plan(file)?;
        }
        rows.row_groups.sort_by_key(|row_group| (row_group.first, row_group.last));
        Ok(rows)
    }

    /// Adds the row groups of a file that may contain wanted rows.
    fn plan(&mut self, file: usize) -> Result<()> {
        let footer = self.footer(file)?;
        for (index, metadata) in footer.metadata().row_groups().iter().enumerate() {
            if let Some((earliest, latest)) = int64_bounds(metadata, self.table.time_column())
                && !self.selection.may_hold((Some(earliest), Some(latest)))
            {
                continue;
            }
            if self.selection.having.as_ref().is_some_and(|column| has_none(metadata, column)) {
                continue;
            }
            // An event without a time is dated by the event before it, so that event must be read
            // even if it is not chosen.
            if self.selection.is_unbounded() && may_lack(metadata, self.table.time_column()) {
                self.selection.choose = None;
            }
            let Some((first, last)) = int64_bounds(metadata, STATISTICS_OFFSET) else {
                let path = self.files[file].path.clone();
                return Err(ArchiveError::RowGroupStatistics {
                    path,
                    column: STATISTICS_OFFSET,
                    row_group: index,
                });
            };
            let source = statistics(metadata, STATISTICS_SOURCE);
            let bound = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            self.row_groups.push(RowGroup {
                file,
                index,
                first,
                last,
                source_min: bound(source.and_then(Statistics::min_bytes_opt)),
                source_max: bound(source.and_then(Statistics::max_bytes_opt)),
            });
        }
        Ok(())
    }

    fn footer(&mut self, file: usize) -> Result<ArrowReaderMetadata> {
        match &self.footer {
            Some((known, footer)) if *known == file => Ok(footer.clone()),
            _ => {
                let end = self.fetch_end(file)?;
                let FileEntry { path, size, .. } = &self.files[file];
                let end = Fetched { start: size.saturating_sub(end.len() as u64), bytes: end };
                let footer = decoding::footer(&end)
                    .map_err(|source| ArchiveError::DecodeFile { path: path.clone(), source })?;
                self.footer = Some((file, footer.clone()));
                Ok(footer)
            }
        }
    }

    /// The end of a file, including at least its whole footer.
    fn fetch_end(&self, file: usize) -> Result<Bytes> {
        let FileEntry { path, size, version, .. } = &self.files[file];
        let contents = self.store.contents(path, *size, version.as_deref());
        let read = |bytes: u64| {
            let range = size.saturating_sub(bytes)..*size;
            contents
                .read_blocking(range)
                .map_err(|source| ArchiveError::ReadFile { path: path.clone(), source })
        };
        let end = read(FOOTER_BYTES_LIKELY)?;
        // What is wrong with the length of the footer is said when it is parsed.
        let length = decoding::footer_length(&end).unwrap_or(0);
        if length <= end.len() as u64 || length > *size { Ok(end) } else { read(length) }
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(cluster) = &mut self.cluster {
                if let Some(batch) = cluster.take(self.table, &self.selection).map_err(|source| {
                    ArchiveError::OrderRows { path: self.files[cluster.file].path.clone(), source }
                })? {
                    return Ok(Some(batch));
                }
                self.cluster = None;
            }
            if let Some(row_groups) = self.clusters.pop_front() {
                self.cluster = Some(self.read_cluster(&row_groups)?);
            } else if let Some(partition) = self.partitions.pop_front() {
                let may_hold = |row_group: &&RowGroup| row_group.may_hold(&partition);
                let candidates: Vec<RowGroup> = self.row_groups.iter().filter(may_hold).cloned().collect();
                let mut row_groups = Vec::with_capacity(candidates.len());
                for row_group in candidates {
                    if self.holds(&row_group, &partition)? {
                        row_groups.push(row_group);
                    }
                }
                self.clusters = clusters(row_groups.into_iter());
                self.partition = partition;
            } else {
                return Ok(None);
            }
        }
    }

    /// Whether a row group really has rows of a partition, if [`RowGroup::may_hold`] says that it
    /// may.
    fn holds(&mut self, row_group: &RowGroup, partition: &str) -> Result<bool> {
        if !row_group.has_several_sources() {
            return Ok(true);
        }
        if let Some(sources) = self.sources.get(&row_group.place()) {
            return Ok(sources.contains(partition));
        }
        let columns = vec![STATISTICS_SOURCE.to_owned()];
        let selection = EventSelection { columns, ..EventSelection::default() };
        let path = self.files[row_group.file].path.clone();
        let mut sources = BTreeSet::new();
        let (batches, _) =
            self.row_group(row_group, &selection, decoding::row_group_bytes_max(self.table))?;
        for batch in batches {
            let unordered = |source| ArchiveError::OrderRows { path: path.clone(), source };
            let batch = SealedBatch { table: self.table, batch: batch.map_err(unordered)? };
            let column: &StringArray =
                batch.column(STATISTICS_SOURCE).map_err(|error| unordered(error.into()))?;
            for source in column.iter().flatten() {
                if !sources.contains(source) {
                    sources.insert(source.to_owned());
                }
            }
        }
        let holds = sources.contains(partition);
        self.sources.insert(row_group.place(), sources);
        Ok(holds)
    }

    /// The selected columns and rows of a row group, which may take `bytes_max`, and what they take.
    fn row_group(
        &mut self,
        row_group: &RowGroup,
        selection: &EventSelection,
        bytes_max: u64,
    ) -> Result<(Guarded, RowGroupSize)> {
        let footer = self.footer(row_group.file)?;
        let FileEntry { path, size, version, .. } = &self.files[row_group.file];
        let metadata = footer.metadata().row_group(row_group.index);
        // The wanted columns are adjacent, or nearly so, so one read for each row group fetches them
        // all.
        let chosen = selection.choose.iter().flat_map(|(names, _)| names);
        let chosen: Vec<&str> = chosen.map(String::as_str).collect();
        let is_read = |leaf: usize| {
            let column = metadata.columns().get(leaf);
            let root = column.and_then(|column| column.column_path().parts().first());
            root.is_some_and(|root| selection.wants(root) || chosen.contains(&root.as_str()))
        };
        let extent = decoding::extent(metadata, &is_read);
        let contents = self.store.contents(path, *size, version.as_deref());
        let bytes = contents.read_blocking(extent.clone());
        let bytes = bytes.map_err(|source| ArchiveError::ReadFile { path: path.clone(), source })?;
        let fetched = Fetched { start: extent.start, bytes };
        let measured = decoding::row_group_size(metadata, row_group.index, &is_read, &fetched, bytes_max);
        let reader = measured.map_err(ParquetError::from).and_then(|measured| {
            let batch_rows = measured.batch_rows(BATCH_ROWS);
            let reader =
                Guarded::build(|| row_group_of(fetched, &footer, row_group.index, selection, batch_rows));
            Ok((reader?, measured))
        });
        reader.map_err(|source| ArchiveError::DecodeFile { path: path.clone(), source })
    }

    fn read_cluster(&mut self, row_groups: &[RowGroup]) -> Result<Cluster> {
        let places: Vec<Place> = row_groups.iter().map(RowGroup::place).collect();
        let shared = self.shared.take().filter(|(known, ..)| *known == places);
        let (batches, size) = match shared {
            Some((_, batches, size)) => (batches, size),
            None => {
                let selection = self.selection.clone();
                let bytes_max = decoding::row_group_bytes_max(self.table);
                let (mut batches, mut size) = (Vec::new(), RowGroupSize { bytes: 0, row_bytes: 0 });
                for row_group in row_groups {
                    let path = self.files[row_group.file].path.clone();
                    let (read, measured) = self.row_group(row_group, &selection, bytes_max)?;
                    size.bytes = size.bytes.saturating_add(measured.bytes);
                    size.row_bytes = size.row_bytes.max(measured.row_bytes);
                    if size.bytes > bytes_max {
                        let what = "rows in row groups whose offsets overlap";
                        let fault = Fault::TooLarge { what, bytes: size.bytes, max: bytes_max };
                        return Err(ArchiveError::DecodeFile { path, source: fault.into() });
                    }
                    for batch in read {
                        let batch =
                            batch.map_err(|source| ArchiveError::OrderRows { path: path.clone(), source })?;
                        batches.push(SealedBatch { table: self.table, batch });
                    }
                }
                (Arc::new(batches), size)
            }
        };
        let file = row_groups.first().map_or(0, |row_group| row_group.file);
        let mut order: Vec<(i64, usize, usize)> = Vec::new();
        for (at, batch) in batches.iter().enumerate() {
            let wanted = wanted(batch, &self.partition, &self.selection).map_err(|error| {
                ArchiveError::OrderRows { path: self.files[file].path.clone(), source: error.into() }
            })?;
            order.extend(wanted.into_iter().map(|(offset, row)| (offset, at, row)));
        }
        order.sort_unstable();
        let order = order.into_iter().map(|(_, batch, row)| (batch, row)).collect();
        if row_groups.iter().any(RowGroup::has_several_sources) {
            self.shared = Some((places, Arc::clone(&batches), size));
        }
        Ok(Cluster { batches, order, taken: 0, batch_rows: size.batch_rows(BATCH_ROWS), file })
    }
}

fn row_group_of(
    file: Fetched,
    footer: &ArrowReaderMetadata,
    index: usize,
    selection: &EventSelection,
    batch_rows: usize,
) -> Result<ParquetRecordBatchReader, ParquetError> {
    let columns = |wanted: &dyn Fn(&str) -> bool| columns_of(footer.parquet_schema(), wanted);
    let projection = columns(&|name| selection.wants(name));
    let filter = selection.choose.as_ref().map(|(names, choose)| {
        let (mask, choose) = (columns(&|name| names.iter().any(|wanted| wanted == name)), Arc::clone(choose));
        let predicate = ArrowPredicateFn::new(mask, move |batch| {
            choose.lock().unwrap_or_else(PoisonError::into_inner)(&batch)
        });
        RowFilter::new(vec![Box::new(predicate)])
    });
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer.clone())
        .with_row_groups(vec![index])
        .with_projection(projection)
        .with_batch_size(batch_rows);
    match filter {
        Some(filter) => builder.with_row_filter(filter).build(),
        None => builder.build(),
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if let Some(Err(_)) = next {
            self.cluster = None;
            self.clusters.clear();
            self.partitions.clear();
        }
        next
    }
}

impl RowGroup {
    fn place(&self) -> Place {
        (self.file, self.index)
    }

    fn has_several_sources(&self) -> bool {
        self.source_min.is_none() || self.source_min != self.source_max
    }

    fn may_hold(&self, partition: &str) -> bool {
        self.source_min.as_deref().is_none_or(|least| least <= partition.as_bytes())
            && self.source_max.as_deref().is_none_or(|greatest| partition.as_bytes() <= greatest)
    }
}

/// Calls `each` with the values of a text column of a file of `table`, without its nulls.
pub(crate) fn texts(
    contents: &Contents,
    table: Table,
    column: &str,
    each: &mut dyn FnMut(&str),
) -> Result<()> {
    let path = || contents.path().to_owned();
    let unreadable = |source| ArchiveError::ReadFile { path: path(), source };
    let bytes = contents.read_blocking(0..contents.bytes()).map_err(unreadable)?;
    texts_of(bytes, table, column, each).map_err(|source| ArchiveError::DecodeFile { path: path(), source })
}

fn texts_of(
    bytes: Bytes,
    table: Table,
    column: &str,
    each: &mut dyn FnMut(&str),
) -> Result<(), ParquetError> {
    let batches = Batches::open(bytes, decoding::row_group_bytes_max(table), BATCH_ROWS)?;
    for batch in batches.with_columns(|schema| columns_of(schema, &|name| name == column)) {
        let batch = batch?;
        let values = batch.column_by_name(column).and_then(|values| values.as_string_opt::<i32>());
        let values = values.ok_or_else(|| ParquetError::General(format!("no text column {column}")))?;
        values.iter().flatten().for_each(&mut *each);
    }
    Ok(())
}

/// Groups row groups, given in order of their first offset, by overlap.
fn clusters(row_groups: impl Iterator<Item = RowGroup>) -> VecDeque<Vec<RowGroup>> {
    let mut clusters: VecDeque<Vec<RowGroup>> = VecDeque::new();
    let mut last = i64::MIN;
    for row_group in row_groups {
        match clusters.back_mut() {
            Some(cluster) if row_group.first <= last => {
                last = last.max(row_group.last);
                cluster.push(row_group);
            }
            _ => {
                last = row_group.last;
                clusters.push_back(vec![row_group]);
            }
        }
    }
    clusters
}

/// Offset and row number of each row that belongs to the partition and has a selected time.
fn wanted(
    rows: &SealedBatch,
    partition: &str,
    selection: &EventSelection,
) -> Result<Vec<(i64, usize)>, ColumnError> {
    let (Offsets { source, offset }, times) = (rows.offsets()?, rows.times()?);
    let in_time = |row| selection.holds(times.is_valid(row).then(|| times.value(row)));
    Ok((0..rows.batch.num_rows())
        .filter(|row| source.is_valid(*row) && source.value(*row) == partition && in_time(*row))
        .map(|row| (offset.value(row), row))
        .collect())
}

impl Cluster {
    fn take(&mut self, table: Table, selection: &EventSelection) -> Result<Option<RecordBatch>, ArrowError> {
        let rest = &self.order[self.taken..];
        let picks = &rest[..rest.len().min(self.batch_rows)];
        if picks.is_empty() {
            return Ok(None);
        }
        let schema: SchemaRef = table.file_schema();
        let fields = schema.fields().iter().filter(|field| selection.wants(field.name())).cloned();
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let columns = schema.fields().iter().map(|field| {
            let parts = self.batches.iter().map(|rows| match rows.array(field.name()) {
                Err(_) if table.later_columns().contains(&field.name().as_str()) => {
                    Ok(new_null_array(field.data_type(), rows.batch.num_rows()))
                }
                column => as_type(Arc::clone(column?), field.data_type()),
            });
            let parts: Vec<ArrayRef> = parts.collect::<Result<_, ArrowError>>()?;
            interleave(&parts.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>(), picks)
        });
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, ArrowError>>()?)?;
        self.taken += picks.len();
        Ok(Some(batch))
    }
}

/// Returns the same values with the type that our schema has for the column. In files, the items of
/// lists have the name that Parquet requires, which differs from the name in our schema.
fn as_type(array: ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    match (array.as_list_opt::<i32>(), wanted) {
        (Some(list), DataType::List(item)) if array.data_type() != wanted => {
            let (_, offsets, values, nulls) = list.clone().into_parts();
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls)?))
        }
        _ => Ok(array),
    }
}

fn statistics<'a>(row_group: &'a RowGroupMetaData, name: &str) -> Option<&'a Statistics> {
    let column = row_group.columns().iter().find(|column| column.column_path().parts() == [name])?;
    column.statistics()
}

/// Returns true if a column of a row group may have nulls.
fn may_lack(row_group: &RowGroupMetaData, name: &str) -> bool {
    statistics(row_group, name).is_none_or(|statistics| statistics.null_count_opt() != Some(0))
}

/// Returns true if a column has no value in a row group: it is missing, or known to be all nulls.
fn has_none(row_group: &RowGroupMetaData, name: &str) -> bool {
    let is_column =
        |column: &ColumnChunkMetaData| column.column_path().parts().first().is_some_and(|root| root == name);
    let rows = u64::try_from(row_group.num_rows()).ok();
    let nulls = statistics(row_group, name).and_then(Statistics::null_count_opt);
    !row_group.columns().iter().any(is_column) || (rows.is_some() && nulls == rows)
}

fn int64_bounds(row_group: &RowGroupMetaData, name: &str) -> Option<(i64, i64)> {
    match statistics(row_group, name)? {
        Statistics::Int64(bounds) => Some((*bounds.min_opt()?, *bounds.max_opt()?)),
        _ => None,
    }
}

/// The files that some commits added, and the partitions whose positions these commits moved.
pub(crate) struct Added {
    pub(crate) paths: HashSet<PathBuf>,
    pub(crate) partitions: BTreeSet<String>,
}

/// Returns what the commits in a range of each volume added.
pub(crate) async fn added(site: &Site, table: Table, ranges: Vec<(Period, u64, u64)>) -> Result<Added> {
    let mut added = Added { paths: HashSet::new(), partitions: BTreeSet::new() };
    for (period, first, last) in ranges {
        let volume = site.volume(VolumeId { table, period });
        let commits = (first..=last).map(|version| layout::commit(&volume, version)).collect();
        for (_, lines) in commit::read_commits(&site.store, commits).await? {
            for line in lines {
                let partition = line.txn.map(|txn| txn.app_id).filter(|name| !name.contains('#'));
                added.partitions.extend(partition);
                added.paths.extend(line.add.map(|add| volume.join(add.path)));
            }
        }
    }
    Ok(added)
}

/// Returns all partitions of `events`, in the order of their first commit.
pub(crate) async fn sources(site: &Site) -> Result<Vec<Source>> {
    let mut order: Vec<(String, usize)> = Vec::new();
    let mut number = 0;
    let mut labels: HashMap<String, String> = HashMap::new();
    let mut positions: HashMap<String, Position> = HashMap::new();
    let mut dropped: HashMap<String, i64> = HashMap::new();
    for table in [Table::Events, Table::Rejects] {
        for state in drops::of_table(site, table).await?.into_values() {
            for (app_id, version) in state.txns.into_iter().filter(|(app_id, _)| !app_id.contains('#')) {
                let known = dropped.entry(app_id).or_insert(version);
                *known = version.max(*known);
            }
        }
    }
    for period in drops::periods(site, Table::Events).await? {
        let volume = site.volume(VolumeId { table: Table::Events, period });
        let commits = commit::commits(&site.store, &volume).await?;
        for (path, lines) in commit::read_commits(&site.store, commits).await? {
            number += 1;
            let mut transactions = HashMap::new();
            for line in lines {
                if let Some(transaction) = line.txn {
                    if !transaction.app_id.contains('#') && !positions.contains_key(&transaction.app_id) {
                        order.push((transaction.app_id.clone(), number));
                    }
                    transactions.insert(transaction.app_id, transaction.version);
                }
                let named =
                    line.commit_info.as_ref().and_then(|info| info.get(METADATA)?.get("labels")?.as_object());
                for (partition, label) in named.into_iter().flatten() {
                    if let Value::String(label) = label {
                        labels.insert(partition.clone(), label.clone());
                    }
                }
            }
            positions.extend(commit::positions(&path, &transactions)?);
        }
    }
    let source = |(partition, first_commit): (String, usize)| {
        let label = labels.remove(&partition).unwrap_or_else(|| partition.clone());
        let position = positions.remove(&partition)?;
        let dropped_before = dropped.get(&partition).copied().unwrap_or(0).min(position.next_offset);
        Some(Source { partition, label, position, dropped_before, first_commit })
    };
    Ok(order.into_iter().filter_map(source).collect())
}
