//! Reads sealed files in place.
//!
//! Invariants: a file is opened read-only, and only below the archive's root. In a bucket, the
//! version that its commit names is read. What a footer or a page says of its own size is checked
//! before the decoder gets it, because the decoder believes it. Parsed footers and page indexes are kept for the session,
//! up to a number of bytes; they stay valid because sealed files never change.
//!
//! Reads of a local disk happen on the calling thread. A query makes hundreds of small reads, for
//! bloom filters and for pages chosen by the index. Handing each of them to another thread, as the
//! object store does, costs more than the read itself when the page cache has the bytes. From a
//! bucket, everything that one step needs is requested at once, with neighbouring ranges as one
//! request.
//!
//! DataFusion prunes row groups by columns, not by the elements of lists. A search for an address
//! is a search for an element, so this reader hides from a scan every row group whose statistics or
//! bloom filter show that it lacks a wanted element.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileMetrics;
use datafusion::datasource::physical_plan::parquet::{CachedParquetMetaData, ParquetFileReaderFactory};
use datafusion::execution::cache::cache_manager::{CachedFileMetadataEntry, FileMetadataCache};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, MetadataFetch};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader,
    RowGroupMetaData,
};
use strongroom_archive::{Archive, Contents, FILE_BYTES_MAX, Fetched};
use strongroom_parquet::{self as decoding, Fault, chunk_range};
use thiserror::Error;

use crate::guarded;
use crate::implied::Element;
use crate::marked::Marked;

/// How much of the end of a file in a bucket is read before the length of the footer is known.
const FOOTER_BYTES_LIKELY: usize = 128 << 10;
/// Maximum memory for the pages that are read at once: those of one row group.
const PAGES_BYTES_MAX: u64 = 1 << 30;

/// A sealed file that could not be read, with the part that was requested.
#[derive(Debug, Error)]
enum ReadError {
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read bytes {} to {} of {}", range.start, range.end, path.display())]
    Bytes {
        path: PathBuf,
        range: Range<u64>,
        #[source]
        source: io::Error,
    },
    #[error("cannot fetch a part of {}", path.display())]
    Fetch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged", path.display())]
    Metadata {
        path: PathBuf,
        #[source]
        source: ParquetError,
    },
    #[error("cannot decode {}", path.display())]
    Decode {
        path: PathBuf,
        #[source]
        source: Fault,
    },
}

impl From<ReadError> for ParquetError {
    fn from(error: ReadError) -> Self {
        ParquetError::External(Box::new(error))
    }
}

/// Whether a scan uses the page index. It does if it has filters, because the index then shows
/// which pages can be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageIndex {
    Wanted,
    Unused,
}

pub(crate) struct InPlace {
    archive: Arc<Archive>,
    footers: Arc<FileMetadataCache>,
    page_index: PageIndex,
    elements: Arc<[Element]>,
    /// Where files with marks are noted, if the scan reads columns that may contain tokens.
    marked: Option<Arc<Marked>>,
}

impl std::fmt::Debug for InPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InPlace").field("root", &self.archive.root()).finish_non_exhaustive()
    }
}

impl InPlace {
    /// Returns a reader of `archive`'s files for a scan whose filters require all of `elements`.
    pub(crate) fn new(
        archive: Arc<Archive>,
        footers: Arc<FileMetadataCache>,
        page_index: PageIndex,
        elements: Vec<Element>,
    ) -> Self {
        InPlace { archive, footers, page_index, elements: elements.into(), marked: None }
    }

    /// Returns the same reader, which from now on adds the files with marks that it opens to
    /// `marked`.
    pub(crate) fn noting(self, marked: Arc<Marked>) -> Self {
        InPlace { marked: Some(marked), ..self }
    }
}

impl ParquetFileReaderFactory for InPlace {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::common::Result<Box<dyn AsyncFileReader + Send>> {
        let location = &file.object_meta.location;
        let metrics = ParquetFileMetrics::new(partition, location.as_ref(), metrics);
        let root = self.archive.root().to_owned();
        let path = location.parts().fold(root, |path, part| path.join(part.as_ref()));
        let version = file.object_meta.version.as_deref();
        Ok(Box::new(SealedFile {
            contents: self.archive.contents_of(&path, file.object_meta.size, version),
            path,
            open: None,
            file,
            footers: Arc::clone(&self.footers),
            page_index: self.page_index,
            elements: Arc::clone(&self.elements),
            marked: self.marked.clone(),
            metrics,
            chunks: Vec::new(),
        }))
    }
}

struct SealedFile {
    path: PathBuf,
    contents: Contents,
    /// The open file and its length in bytes, once a file on a local disk has been read.
    open: Option<(File, u64)>,
    file: PartitionedFile,
    footers: Arc<FileMetadataCache>,
    page_index: PageIndex,
    elements: Arc<[Element]>,
    marked: Option<Arc<Marked>>,
    metrics: ParquetFileMetrics,
    /// Where the column chunks are, in order; empty until the footer is known.
    chunks: Vec<(Range<u64>, Arc<ColumnChunkMetaData>)>,
}

impl SealedFile {
    fn open(&mut self) -> Result<&(File, u64), ReadError> {
        if self.open.is_none() {
            let opened = File::open(&self.path).and_then(|file| {
                let bytes = file.metadata()?.len();
                Ok((file, bytes))
            });
            let opened = opened.map_err(|source| ReadError::Open { path: self.path.clone(), source })?;
            self.open = Some(opened);
        }
        Ok(self.open.as_ref().expect("it was just opened"))
    }

    fn is_local(&self) -> bool {
        self.contents.local().is_some()
    }

    /// Reads what the decoder asks for.
    async fn read_checked(&mut self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, ReadError> {
        guarded::note(&self.path);
        let read = self.read(ranges.clone()).await?;
        guarded::note(&self.path);
        self.check_pages(&ranges, &read)?;
        Ok(read)
    }

    async fn read(&mut self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, ReadError> {
        let read = self.fetch(ranges).await?;
        self.metrics.bytes_scanned.add(read.iter().map(Bytes::len).sum());
        Ok(read)
    }

    /// Like [`read`](Self::read), but does not count the bytes as scanned.
    async fn fetch(&mut self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, ReadError> {
        if self.is_local() {
            return ranges.into_iter().map(|range| self.read_local(range)).collect();
        }
        let read = self.contents.read_ranges(ranges).await;
        read.map_err(|source| ReadError::Fetch { path: self.path.clone(), source })
    }

    fn read_local(&mut self, range: Range<u64>) -> Result<Bytes, ReadError> {
        let (file, file_bytes) = self.open()?;
        // A damaged footer may name any range. No memory is allocated for one that exceeds the
        // file.
        let length = range.end.checked_sub(range.start);
        let length = length.filter(|length| range.end <= *file_bytes && *length <= FILE_BYTES_MAX);
        let read = match length.and_then(|length| usize::try_from(length).ok()) {
            Some(length) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, range.start).map(|()| bytes)
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let bytes = read.map_err(|source| ReadError::Bytes { path: self.path.clone(), range, source })?;
        Ok(bytes.into())
    }

    /// Checks the pages among what was read, which are the parts of column chunks.
    fn check_pages(&self, ranges: &[Range<u64>], read: &[Bytes]) -> Result<(), ReadError> {
        let mut total = 0u64;
        for (range, bytes) in ranges.iter().zip(read) {
            let after = self.chunks.partition_point(|(chunk, _)| chunk.start <= range.start);
            let chunk = after.checked_sub(1).and_then(|at| self.chunks.get(at));
            let Some((_, column)) = chunk.filter(|(chunk, _)| range.end <= chunk.end) else { continue };
            let measured = decoding::pages_bytes(bytes, column).and_then(|bytes| {
                total = total.saturating_add(bytes);
                let what = "what is read of a row group";
                let fault = Fault::TooLarge { what, bytes: total, max: PAGES_BYTES_MAX };
                if total > PAGES_BYTES_MAX { Err(fault) } else { Ok(()) }
            });
            measured.map_err(|source| ReadError::Decode { path: self.path.clone(), source })?;
        }
        Ok(())
    }

    /// The end of the file with the whole footer, of which the decoder can believe all lengths.
    async fn check_footer(&mut self) -> Result<(), ReadError> {
        let (file_bytes, likely) =
            if self.is_local() { (self.open()?.1, 8) } else { (self.contents.bytes(), FOOTER_BYTES_LIKELY) };
        let last = |length: u64| -> Vec<Range<u64>> {
            std::iter::once(file_bytes.saturating_sub(length)..file_bytes).collect()
        };
        let mut end = self.fetch(last(likely as u64)).await?.pop().unwrap_or_default();
        let undecodable = |path: &PathBuf, source| ReadError::Decode { path: path.clone(), source };
        let length = decoding::footer_length(&end).map_err(|fault| undecodable(&self.path, fault))?;
        if length > end.len() as u64 && length <= file_bytes {
            end = self.fetch(last(length)).await?.pop().unwrap_or_default();
        }
        decoding::check_end(&end).map_err(|fault| undecodable(&self.path, fault))
    }

    fn note_chunks(&mut self, metadata: &ParquetMetaData) {
        let columns = metadata.row_groups().iter().flat_map(|row_group| row_group.columns());
        let chunks = columns.filter_map(|column| Some((chunk_range(column)?, Arc::new(column.clone()))));
        self.chunks = chunks.collect();
        self.chunks.sort_by_key(|(chunk, _)| chunk.start);
    }

    async fn metadata(&mut self) -> Result<Arc<ParquetMetaData>, ReadError> {
        let meta = self.file.object_meta.clone();
        let known = self.footers.get(&meta.location).filter(|known| known.is_valid_for(&meta));
        let known = known.as_ref().and_then(|known| known.file_metadata.as_any().downcast_ref());
        if let Some(known) = known.map(CachedParquetMetaData::parquet_metadata)
            && (self.page_index == PageIndex::Unused || known.offset_index().is_some())
        {
            let known = Arc::clone(known);
            self.note_chunks(&known);
            return Ok(known);
        }
        self.check_footer().await?;
        let policy = match self.page_index {
            PageIndex::Wanted => PageIndexPolicy::Optional,
            PageIndex::Unused => PageIndexPolicy::Skip,
        };
        let reader = ParquetMetaDataReader::new().with_page_index_policy(policy);
        let parsed = if self.is_local() {
            reader.parse_and_finish(&self.open()?.0)
        } else {
            let bytes = self.contents.bytes();
            reader.with_prefetch_hint(Some(FOOTER_BYTES_LIKELY)).load_and_finish(Footer(self), bytes).await
        };
        let parsed =
            Arc::new(parsed.map_err(|source| ReadError::Metadata { path: self.path.clone(), source })?);
        let file_bytes = if self.is_local() { self.open()?.1 } else { self.contents.bytes() };
        decoding::check_metadata(&parsed, file_bytes)
            .map_err(|source| ReadError::Decode { path: self.path.clone(), source })?;
        self.note_chunks(&parsed);
        let entry = CachedFileMetadataEntry::new(
            meta.clone(),
            Arc::new(CachedParquetMetaData::new(Arc::clone(&parsed))),
        );
        self.footers.put(&meta.location, entry);
        Ok(parsed)
    }

    /// Returns `all` without the row groups that lack a wanted element.
    async fn with_elements(&mut self, all: Arc<ParquetMetaData>) -> Result<Arc<ParquetMetaData>, ReadError> {
        let elements = Arc::clone(&self.elements);
        let mut kept = vec![];
        for (at, row_group) in all.row_groups().iter().enumerate() {
            let mut may_hold = true;
            for element in elements.iter() {
                may_hold = may_hold && self.may_hold(row_group, element).await?;
            }
            if may_hold {
                kept.push(at);
            }
        }
        if kept.len() == all.num_row_groups() {
            return Ok(all);
        }
        let row_groups = kept.iter().map(|at| all.row_group(*at).clone()).collect();
        let column_index = all.column_index().map(|index| kept.iter().map(|at| index[*at].clone()).collect());
        let offset_index = all.offset_index().map(|index| kept.iter().map(|at| index[*at].clone()).collect());
        let some = ParquetMetaDataBuilder::new(all.file_metadata().clone())
            .set_row_groups(row_groups)
            .set_column_index(column_index)
            .set_offset_index(offset_index);
        Ok(Arc::new(some.build()))
    }

    async fn may_hold(&mut self, row_group: &RowGroupMetaData, element: &Element) -> Result<bool, ReadError> {
        let mut leaves = row_group.columns().iter().filter(|column| {
            let parts = column.column_path().parts();
            parts.len() > 1 && parts[0] == element.list
        });
        let (Some(column), None) = (leaves.next(), leaves.next()) else { return Ok(true) };
        let wanted = element.value.as_bytes();
        if let Some(statistics) = column.statistics().filter(|known| !known.is_min_max_deprecated()) {
            let is_below = statistics.min_bytes_opt().is_some_and(|least| wanted < least);
            let is_above = statistics.max_bytes_opt().is_some_and(|greatest| wanted > greatest);
            if is_below || is_above {
                return Ok(false);
            }
        }
        let bloom = if self.is_local() {
            Sbbf::read_from_column_chunk(column, &self.open()?.0)
        } else {
            let place = column.bloom_filter_offset().zip(column.bloom_filter_length());
            let place = place.and_then(|(offset, length)| {
                Some((u64::try_from(offset).ok()?, u64::try_from(length).ok()?))
            });
            // The files of an archive say where the bloom filter is. If this file does not, the row
            // group is read.
            let Some((offset, length)) = place else { return Ok(true) };
            let place = offset..offset.saturating_add(length);
            let bytes = self.read(vec![place]).await?.pop();
            Sbbf::read_from_column_chunk(column, &Fetched { start: offset, bytes: bytes.unwrap_or_default() })
        };
        let bloom = bloom.map_err(|source| ReadError::Metadata { path: self.path.clone(), source })?;
        Ok(bloom.is_none_or(|bloom| bloom.check(element.value.as_str())))
    }
}

/// A file as the footer parser reads it.
struct Footer<'f>(&'f mut SealedFile);

impl MetadataFetch for Footer<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.0.get_bytes(range)
    }
}

impl AsyncFileReader for SealedFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { Ok(self.read_checked(vec![range]).await?.pop().unwrap_or_default()) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { Ok(self.read_checked(ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let all = self.metadata().await?;
            if let Some(marked) = &self.marked {
                marked.note(&self.file, &all);
            }
            if self.elements.is_empty() { Ok(all) } else { Ok(self.with_elements(all).await?) }
        }
        .boxed()
    }
}
