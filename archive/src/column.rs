//! Encodes one column chunk: turns levels and values into compressed Parquet pages with statistics.
//!
//! Invariant: [`encode_column`] returns a whole column chunk whose metadata agrees with its bytes,
//! so a file writer only copies it.
//!
//! `parquet`'s `ArrowColumnWriter` is not used. It hashes the value of every row to build a
//! dictionary and compares the value of every row for statistics, even if the rows arrive as
//! dictionary codes. This module reads each distinct value once.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::{BoundaryOrder, Compression, Encoding, PageType, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::metadata::{
    ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats,
};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use strongroom_parquet::bits::{bit_width, put_delta, put_hybrid, put_varint};
use zstd::bulk::Compressor;

/// Longest value kept in statistics. Longer values are shortened to bounds that still enclose them.
const STATISTICS_BYTES_MAX: usize = 64;
/// A data page is closed when its values reach this many bytes before compression.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// A page is stored compressed only if compression saves at least one byte in this many. A smaller
/// gain is not worth decompressing the page on every read.
const COMPRESSION_GAIN_MIN: usize = 32;
/// Approximate number of bytes of a page header.
const PAGE_HEADER_BYTES: usize = 64;
/// Maximum number of bytes of each of three buffers that a worker keeps for the next column.
const SCRATCH_BYTES_MAX: usize = 16 << 20;

/// The parts of a column whose least and greatest values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bounds {
    /// None: the values have no useful order, or must not be repeated in a footer.
    Off,
    /// The column chunk.
    Chunk,
    /// The column chunk, and each page.
    Pages,
}

/// How byte strings outside a dictionary are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteEncoding {
    /// All lengths, then all bytes.
    DeltaLength,
    /// For each value, the length of the prefix that it shares with the value before it, and the
    /// rest of the value.
    DeltaPrefix,
}

/// How integers outside a dictionary are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntEncoding {
    /// As differences, packed in groups of 32. Each difference takes as many bits as the widest one
    /// of its group needs.
    Delta,
    /// All first bytes, then all second bytes, and so on.
    SplitBytes,
}

/// Width of dictionary codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodeWidth {
    /// The least number of bits in which every code of the dictionary fits.
    Least,
    /// Whole bytes, because a compressor finds repetitions in whole bytes.
    Bytes,
}

/// How one column is encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ColumnSpec {
    pub(crate) bounds: Bounds,
    /// Number of bits of the bloom filter for each distinct value; `None` for no filter.
    pub(crate) bloom_bits: Option<u32>,
    pub(crate) zstd_level: i32,
    pub(crate) code_width: CodeWidth,
    pub(crate) page_rows: usize,
}

/// The non-null values of a column, in row order.
pub(crate) enum Values<'a> {
    Codes { codes: Vec<u32>, entries: Entries<'a> },
    Bytes { values: Vec<&'a [u8]>, encoding: ByteEncoding },
    Int64 { values: Vec<i64>, encoding: IntEncoding },
}

/// A dictionary.
pub(crate) enum Entries<'a> {
    /// If `sorted` is true, the order of the codes is the order of the values.
    Bytes { entries: Vec<&'a [u8]>, sorted: bool },
    /// In ascending order.
    Int32(Vec<i32>),
}

/// Definition levels of a column or a part of it.
pub(crate) enum Definition {
    /// All levels have this value.
    All(u32),
    Each(Vec<u32>),
}

/// Repetition levels of a column.
pub(crate) enum Repetition {
    /// The column is not a list.
    Flat,
    /// A list in which no row has more than one item, so each row has exactly one level.
    OnePerRow,
    /// Any other list. `levels` contains its repetition levels. `starts` contains the index of the
    /// first level of each row, followed by the number of levels.
    Each { levels: Vec<u32>, starts: Vec<u32> },
}

/// A column of a row group.
pub(crate) struct Column<'a> {
    pub(crate) rows: usize,
    pub(crate) definition: Definition,
    pub(crate) repetition: Repetition,
    pub(crate) values: Values<'a>,
}

/// An encoded column chunk. `close` has the metadata of `bytes`, with offsets that start at 0.
#[derive(Clone, Debug)]
pub(crate) struct EncodedColumn {
    pub(crate) bytes: Bytes,
    pub(crate) close: ColumnCloseResult,
}

/// The least or greatest value of a page or chunk, as bytes for statistics.
type Bound = Vec<u8>;

/// A page: the ranges of its bytes in the buffers of [`Scratch`], before and after compression.
struct RawPage {
    raw: Range<usize>,
    small: Range<usize>,
    rows: usize,
    levels: usize,
    nulls: usize,
    bounds: Option<(Bound, Bound)>,
}

/// Buffers that are kept from one column to the next: allocating them costs more than the work done
/// in them.
pub(crate) struct Scratch {
    zstd: Compressor<'static>,
    /// Pages of the column, dictionary first.
    raw: Vec<u8>,
    small: Vec<u8>,
    one: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> std::io::Result<Scratch> {
        Ok(Scratch { zstd: Compressor::new(1)?, raw: Vec::new(), small: Vec::new(), one: Vec::new() })
    }

    fn begin(&mut self, level: i32) -> std::io::Result<()> {
        for buffer in [&mut self.raw, &mut self.small, &mut self.one] {
            buffer.clear();
            buffer.shrink_to(SCRATCH_BYTES_MAX);
        }
        self.zstd.set_compression_level(level)
    }

    /// Compresses the bytes of `raw` from `at` to its end; returns both ranges. If `has_values` is
    /// false, nothing is compressed, because a page without values is only a few bytes of levels.
    fn compress_from(
        &mut self,
        at: usize,
        has_values: bool,
    ) -> std::io::Result<(Range<usize>, Range<usize>)> {
        let (raw, small) = (at..self.raw.len(), self.small.len());
        if !has_values {
            return Ok((raw, small..small));
        }
        self.one.clear();
        self.one.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.zstd.compress_to_buffer(&self.raw[raw.clone()], &mut self.one)?;
        self.small.extend_from_slice(&self.one);
        Ok((raw, small..self.small.len()))
    }
}

/// Returns which bytes of a column belong to a page.
type PageRange = fn(&RawPage) -> Range<usize>;

pub(crate) fn encode_column(
    descriptor: &ColumnDescPtr,
    column: &Column<'_>,
    spec: &ColumnSpec,
    scratch: &mut Scratch,
) -> Result<EncodedColumn> {
    scratch.begin(spec.zstd_level)?;
    let has_values = column.values.len() > 0;
    let chunk_bounds = match spec.bounds {
        Bounds::Off => None,
        Bounds::Chunk | Bounds::Pages => column.values.bounds(0, column.values.len()),
    };
    let dictionary = match &column.values {
        Values::Codes { entries, .. } => {
            entries.put_plain(&mut scratch.raw);
            Some((entries, scratch.compress_from(0, has_values)?))
        }
        Values::Bytes { .. } | Values::Int64 { .. } => None,
    };
    let pages = put_pages(column, descriptor.max_def_level() as u32, spec, chunk_bounds.as_ref(), scratch)?;
    let compresses =
        has_values && scratch.small.len() + scratch.raw.len() / COMPRESSION_GAIN_MIN < scratch.raw.len();
    let (stored, of_page): (&[u8], PageRange) = match compresses {
        true => (&scratch.small, |page| page.small.clone()),
        false => (&scratch.raw, |page| page.raw.clone()),
    };

    let mut sink =
        TrackedWrite::new(Vec::with_capacity(stored.len() + PAGE_HEADER_BYTES * (pages.len() + 1)));
    let mut writer = SerializedPageWriter::new(&mut sink);
    let mut uncompressed_total = 0;
    let mut encoding_stats = Vec::new();
    if let Some((entries, (raw, small))) = &dictionary {
        let page = Page::DictionaryPage {
            buf: Bytes::copy_from_slice(&stored[if compresses { small.clone() } else { raw.clone() }]),
            num_values: entries.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: entries.sorted(),
        };
        uncompressed_total += writer.write_page(CompressedPage::new(page, raw.len()))?.uncompressed_size;
        encoding_stats.push(PageEncodingStats {
            page_type: PageType::DICTIONARY_PAGE,
            encoding: Encoding::PLAIN,
            count: 1,
        });
    }

    let encoding = column.values.encoding();
    encoding_stats.push(PageEncodingStats {
        page_type: PageType::DATA_PAGE,
        encoding,
        count: pages.len() as i32,
    });
    let mut offset_index = OffsetIndexBuilder::new();
    let mut column_index =
        (spec.bounds != Bounds::Off).then(|| ColumnIndexBuilder::new(descriptor.physical_type()));
    if let Some(index) = &mut column_index {
        index.set_boundary_order(column.values.boundary_order(&pages));
    }
    let (mut levels, mut nulls, mut data_offset) = (0, 0, None);
    for page in pages {
        levels += page.levels;
        nulls += page.nulls;
        let data = Page::DataPage {
            buf: Bytes::copy_from_slice(&stored[of_page(&page)]),
            num_values: page.levels as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let written = writer.write_page(CompressedPage::new(data, page.raw.len()))?;
        data_offset.get_or_insert(written.offset as i64);
        uncompressed_total += written.uncompressed_size;
        offset_index.append_row_count(page.rows as i64);
        offset_index.append_offset_and_size(written.offset as i64, written.compressed_size as i32);
        if let Some(index) = &mut column_index {
            match page.bounds {
                Some((least, greatest)) => {
                    index.append(false, lower(least), upper(greatest), page.nulls as i64)
                }
                None => index.append(true, Vec::new(), Vec::new(), page.nulls as i64),
            }
        }
    }
    writer.close()?;
    let bytes = Bytes::from(sink.into_inner()?);

    let codec = match compresses {
        true => Compression::ZSTD(ZstdLevel::try_new(spec.zstd_level)?),
        false => Compression::UNCOMPRESSED,
    };
    let mut encodings = vec![encoding, Encoding::RLE];
    if dictionary.is_some() {
        encodings.push(Encoding::PLAIN);
    }
    let metadata = ColumnChunkMetaData::builder(descriptor.clone())
        .set_compression(codec)
        .set_encodings(encodings)
        .set_page_encoding_stats(encoding_stats)
        .set_num_values(levels as i64)
        .set_total_compressed_size(bytes.len() as i64)
        .set_total_uncompressed_size(uncompressed_total as i64)
        .set_data_page_offset(data_offset.unwrap_or(0))
        .set_dictionary_page_offset(dictionary.map(|_| 0))
        .set_statistics(column.values.statistics(chunk_bounds, nulls as u64))
        .build()?;
    Ok(EncodedColumn {
        close: ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: column.rows as u64,
            metadata,
            bloom_filter: spec.bloom_bits.and_then(|bits| column.values.bloom_filter(bits)),
            column_index: column_index.map(ColumnIndexBuilder::build).transpose()?,
            offset_index: Some(offset_index.build()),
        },
        bytes,
    })
}

/// Cuts the column into pages; encodes and compresses their levels and values.
fn put_pages(
    column: &Column<'_>,
    max_definition: u32,
    spec: &ColumnSpec,
    chunk: Option<&(Bound, Bound)>,
    scratch: &mut Scratch,
) -> Result<Vec<RawPage>> {
    let mut pages = Vec::new();
    let (mut row, mut value) = (0, 0);
    while row < column.rows {
        let mut rows = spec.page_rows.min(column.rows - row);
        let (mut levels, mut present) = column.page_levels(row, rows, max_definition);
        // Long values: halve the page until it fits, down to a single row.
        while rows > 1 && column.values.bytes_len(value, present) > PAGE_BYTES_MAX {
            rows /= 2;
            (levels, present) = column.page_levels(row, rows, max_definition);
        }
        let at = scratch.raw.len();
        let out = &mut scratch.raw;
        match &column.repetition {
            Repetition::Flat => {}
            Repetition::OnePerRow => put_level_run(0, levels.len(), out),
            Repetition::Each { levels: repetition, .. } => put_levels(&repetition[levels.clone()], 1, out),
        }
        match &column.definition {
            Definition::All(level) => put_level_run(*level, levels.len(), out),
            Definition::Each(definition) => {
                put_levels(&definition[levels.clone()], bit_width(max_definition), out)
            }
        }
        column.values.put(value, present, spec.code_width, out);
        let (raw, small) = scratch.compress_from(at, column.values.len() > 0)?;
        let bounds = match chunk {
            Some(chunk) if present > 0 => match spec.bounds {
                Bounds::Pages => {
                    Some(column.values.page_bounds(value, present).unwrap_or_else(|| chunk.clone()))
                }
                Bounds::Chunk | Bounds::Off => Some(chunk.clone()),
            },
            _ => None,
        };
        pages.push(RawPage { raw, small, rows, levels: levels.len(), nulls: levels.len() - present, bounds });
        row += rows;
        value += present;
    }
    Ok(pages)
}

/// Appends the levels of a data page (version 1): their length in bytes, then the levels in the
/// RLE/bit-packed hybrid.
fn put_levels(levels: &[u32], width: u8, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put_hybrid(levels, width, out);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Like [`put_levels`], but for `count` equal levels.
fn put_level_run(level: u32, count: usize, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put_varint((count as u64) << 1, out);
    out.push(level as u8);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

impl Column<'_> {
    /// Returns the range of the levels of `rows` rows from `row` on, and how many values these rows
    /// have.
    fn page_levels(&self, row: usize, rows: usize, max_definition: u32) -> (Range<usize>, usize) {
        let levels = match &self.repetition {
            Repetition::Each { starts, .. } => starts[row] as usize..starts[row + rows] as usize,
            Repetition::Flat | Repetition::OnePerRow => row..row + rows,
        };
        let present = match &self.definition {
            Definition::All(level) if *level == max_definition => levels.len(),
            Definition::All(_) => 0,
            Definition::Each(definition) => {
                definition[levels.clone()].iter().filter(|level| **level == max_definition).count()
            }
        };
        (levels, present)
    }
}

impl Entries<'_> {
    fn len(&self) -> usize {
        match self {
            Entries::Bytes { entries, .. } => entries.len(),
            Entries::Int32(entries) => entries.len(),
        }
    }

    fn sorted(&self) -> bool {
        match self {
            Entries::Bytes { sorted, .. } => *sorted,
            Entries::Int32(_) => true,
        }
    }

    /// Appends the dictionary page.
    fn put_plain(&self, out: &mut Vec<u8>) {
        match self {
            Entries::Bytes { entries, .. } => put_plain_bytes(entries, out),
            Entries::Int32(entries) => out.extend(entries.iter().flat_map(|entry| entry.to_le_bytes())),
        }
    }

    fn bound(&self, code: u32) -> Bound {
        match self {
            Entries::Bytes { entries, .. } => entries[code as usize].to_vec(),
            Entries::Int32(entries) => entries[code as usize].to_le_bytes().to_vec(),
        }
    }
}

fn put_plain_bytes(values: &[&[u8]], out: &mut Vec<u8>) {
    out.reserve(values.iter().map(|value| value.len() + 4).sum());
    for value in values {
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(value);
    }
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Values::Codes { codes, .. } => codes.len(),
            Values::Bytes { values, .. } => values.len(),
            Values::Int64 { values, .. } => values.len(),
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Values::Codes { .. } => Encoding::RLE_DICTIONARY,
            Values::Bytes { encoding: ByteEncoding::DeltaLength, .. } => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            Values::Bytes { encoding: ByteEncoding::DeltaPrefix, .. } => Encoding::DELTA_BYTE_ARRAY,
            Values::Int64 { encoding: IntEncoding::Delta, .. } => Encoding::DELTA_BINARY_PACKED,
            Values::Int64 { encoding: IntEncoding::SplitBytes, .. } => Encoding::BYTE_STREAM_SPLIT,
        }
    }

    /// Returns the approximate bytes of `count` values from `at` on, to decide where pages of long
    /// values end.
    fn bytes_len(&self, at: usize, count: usize) -> usize {
        match self {
            Values::Bytes { values, .. } => values[at..at + count].iter().map(|value| value.len()).sum(),
            Values::Codes { .. } | Values::Int64 { .. } => 0,
        }
    }

    fn put(&self, at: usize, count: usize, width: CodeWidth, out: &mut Vec<u8>) {
        match self {
            Values::Codes { codes, entries } => {
                let least = bit_width(entries.len().saturating_sub(1) as u32);
                let width = match width {
                    CodeWidth::Least => least,
                    CodeWidth::Bytes => least.next_multiple_of(8),
                };
                out.push(width);
                put_hybrid(&codes[at..at + count], width, out);
            }
            Values::Bytes { values, encoding } => {
                let values = &values[at..at + count];
                match encoding {
                    ByteEncoding::DeltaLength => put_delta_length(values.iter().copied(), out),
                    ByteEncoding::DeltaPrefix => put_delta_prefix(values, out),
                }
            }
            Values::Int64 { values, encoding } => {
                let values = &values[at..at + count];
                match encoding {
                    IntEncoding::Delta => put_delta(values, out),
                    IntEncoding::SplitBytes => {
                        for byte in 0..8 {
                            out.extend(values.iter().map(|value| (value >> (8 * byte)) as u8));
                        }
                    }
                }
            }
        }
    }

    fn bounds(&self, at: usize, count: usize) -> Option<(Bound, Bound)> {
        match self {
            Values::Codes { codes, entries: Entries::Bytes { entries, sorted: false } }
                if codes.len() == count =>
            {
                // Every entry of a dictionary is used by some row, so the bounds of the entries are
                // the bounds of the rows.
                let least = entries.iter().min()?;
                let greatest = entries.iter().max()?;
                Some((least.to_vec(), greatest.to_vec()))
            }
            Values::Codes { entries: Entries::Bytes { sorted: false, .. }, .. } => None,
            Values::Codes { codes, entries } => {
                let (least, greatest) = extremes(&codes[at..at + count], u32::MIN, u32::MAX)?;
                Some((entries.bound(least), entries.bound(greatest)))
            }
            Values::Bytes { values, .. } => {
                let values = &values[at..at + count];
                Some((values.iter().min()?.to_vec(), values.iter().max()?.to_vec()))
            }
            Values::Int64 { values, .. } => {
                let (least, greatest) = extremes(&values[at..at + count], i64::MIN, i64::MAX)?;
                Some((least.to_le_bytes().to_vec(), greatest.to_le_bytes().to_vec()))
            }
        }
    }

    /// Like [`Values::bounds`], but for the values of one page; `None` if only the bounds of the
    /// whole chunk are known.
    fn page_bounds(&self, at: usize, count: usize) -> Option<(Bound, Bound)> {
        match self {
            Values::Codes { entries: Entries::Bytes { sorted: false, .. }, .. } => None,
            _ => self.bounds(at, count),
        }
    }

    /// Ascending if neither the least nor the greatest value decreases from one page to the next;
    /// otherwise unordered.
    fn boundary_order(&self, pages: &[RawPage]) -> BoundaryOrder {
        let bounds: Vec<_> = pages.iter().filter_map(|page| page.bounds.as_ref()).collect();
        let rises = bounds.windows(2).all(|pair| {
            let [(least, greatest), (next_least, next_greatest)] = [pair[0], pair[1]];
            !self.less(next_least, least) && !self.less(next_greatest, greatest)
        });
        if rises { BoundaryOrder::ASCENDING } else { BoundaryOrder::UNORDERED }
    }

    fn less(&self, a: &Bound, b: &Bound) -> bool {
        match self {
            Values::Int64 { .. } => int64(a) < int64(b),
            Values::Codes { entries: Entries::Int32(_), .. } => int32(a) < int32(b),
            Values::Codes { .. } | Values::Bytes { .. } => a < b,
        }
    }

    fn statistics(&self, bounds: Option<(Bound, Bound)>, nulls: u64) -> Statistics {
        let (least, greatest) = bounds.unzip();
        match self {
            Values::Int64 { .. } => Statistics::int64(
                least.as_ref().map(int64),
                greatest.as_ref().map(int64),
                None,
                Some(nulls),
                false,
            ),
            Values::Codes { entries: Entries::Int32(_), .. } => Statistics::int32(
                least.as_ref().map(int32),
                greatest.as_ref().map(int32),
                None,
                Some(nulls),
                false,
            ),
            Values::Codes { .. } | Values::Bytes { .. } => {
                let least_exact = least.as_ref().is_some_and(|least| least.len() <= STATISTICS_BYTES_MAX);
                let greatest_exact =
                    greatest.as_ref().is_some_and(|greatest| greatest.len() <= STATISTICS_BYTES_MAX);
                Statistics::ByteArray(
                    ValueStatistics::new(
                        least.map(|least| ByteArray::from(lower(least))),
                        greatest.map(|greatest| ByteArray::from(upper(greatest))),
                        None,
                        Some(nulls),
                        false,
                    )
                    .with_min_is_exact(least_exact)
                    .with_max_is_exact(greatest_exact),
                )
            }
        }
    }

    fn bloom_filter(&self, bits: u32) -> Option<Sbbf> {
        let values: &[&[u8]] = match self {
            Values::Codes { entries: Entries::Bytes { entries, .. }, .. } => entries,
            Values::Bytes { values, .. } => values,
            Values::Codes { .. } | Values::Int64 { .. } => return None,
        };
        if values.is_empty() {
            return None;
        }
        // Any whole number of 32-byte blocks is allowed. Rounding up to a power of two would waste
        // up to half of the filter.
        let blocks = (values.len() * bits as usize).div_ceil(256);
        let mut filter = Sbbf::new(&vec![0; blocks * 32]);
        for value in values {
            filter.insert(*value);
        }
        Some(filter)
    }
}

/// Returns the minimum and the maximum of `values`, in one pass and without a branch for each
/// value.
fn extremes<T: Copy + Ord>(values: &[T], min: T, max: T) -> Option<(T, T)> {
    let wider = |(least, greatest): (T, T), value: &T| (least.min(*value), greatest.max(*value));
    (!values.is_empty()).then(|| values.iter().fold((max, min), wider))
}

fn int64(bound: &Bound) -> i64 {
    i64::from_le_bytes(bound.as_slice().try_into().expect("bounds of an Int64 column are eight bytes"))
}

fn int32(bound: &Bound) -> i32 {
    i32::from_le_bytes(bound.as_slice().try_into().expect("bounds of an Int32 column are four bytes"))
}

fn put_delta_length<'a>(values: impl Iterator<Item = &'a [u8]> + Clone, out: &mut Vec<u8>) {
    let lengths: Vec<i64> = values.clone().map(|value| value.len() as i64).collect();
    put_delta(&lengths, out);
    for value in values {
        out.extend_from_slice(value);
    }
}

fn put_delta_prefix(values: &[&[u8]], out: &mut Vec<u8>) {
    let mut previous: &[u8] = &[];
    let mut prefixes = Vec::with_capacity(values.len());
    for value in values {
        prefixes.push(previous.iter().zip(*value).take_while(|(a, b)| a == b).count() as i64);
        previous = value;
    }
    put_delta(&prefixes, out);
    put_delta_length(values.iter().zip(&prefixes).map(|(value, prefix)| &value[*prefix as usize..]), out);
}

/// Returns the value, or a prefix of it if it is too long for statistics. A prefix is never greater
/// than its value.
fn lower(mut value: Bound) -> Bound {
    value.truncate(prefix_len(&value));
    value
}

/// Returns the value. If it is too long for statistics, returns a shorter value that is not less,
/// or the whole value if there is no such shorter value.
fn upper(value: Bound) -> Bound {
    let cut = prefix_len(&value);
    if cut == value.len() {
        return value;
    }
    match std::str::from_utf8(&value[..cut]) {
        Ok(text) => {
            // Text stays text: the last character that has a successor is replaced by it.
            for (at, character) in text.char_indices().rev() {
                if let Some(next) =
                    (u32::from(character) + 1..=u32::from(character) + 0x801).find_map(char::from_u32)
                {
                    let mut bound = text[..at].to_owned();
                    bound.push(next);
                    return bound.into_bytes();
                }
            }
            value
        }
        Err(_) => match value[..cut].iter().rposition(|byte| *byte < 0xff) {
            Some(at) => {
                let mut bound = value[..=at].to_vec();
                bound[at] += 1;
                bound
            }
            None => value,
        },
    }
}

/// Longest prefix within [`STATISTICS_BYTES_MAX`] that does not split a character.
fn prefix_len(value: &[u8]) -> usize {
    if value.len() <= STATISTICS_BYTES_MAX {
        return value.len();
    }
    // A UTF-8 character starts at most three bytes before its last byte.
    (STATISTICS_BYTES_MAX - 3..=STATISTICS_BYTES_MAX)
        .rev()
        .find(|at| value[*at] & 0xc0 != 0x80)
        .unwrap_or(STATISTICS_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shortened_bounds_enclose(value in "\\PC{0,120}") {
            let bytes = value.into_bytes();
            let (least, greatest) = (lower(bytes.clone()), upper(bytes.clone()));
            prop_assert!(least <= bytes && bytes <= greatest);
            prop_assert!(least.len() <= STATISTICS_BYTES_MAX);
            prop_assert!(std::str::from_utf8(&least).is_ok() && std::str::from_utf8(&greatest).is_ok());
        }

        #[test]
        fn shortened_bounds_of_binary_enclose(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..120)) {
            let (least, greatest) = (lower(bytes.clone()), upper(bytes.clone()));
            prop_assert!(least <= bytes && bytes <= greatest);
        }
    }

    #[test]
    fn bounds_without_successor_stay_whole() {
        let value = "\u{10ffff}".repeat(40).into_bytes();
        assert_eq!(upper(value.clone()), value);
        let value = vec![0xff; 100];
        assert_eq!(upper(value.clone()), value);
    }
}
