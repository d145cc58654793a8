//! How much memory the pages of a column take once they are decoded.
//!
//! A few bytes can become gigabytes in three ways: a page of one repeated byte, an entry of a
//! dictionary that all rows share, and a long prefix that all values share. A page is bounded by the
//! size in its header, which the decoder enforces. What is shared is counted here as often as rows
//! use it, from the lengths alone.
//!
//! Invariant: [`Measure`] is never less than what the decoder makes of the values, and takes no more
//! memory itself than one decompressed page.

use parquet::basic::{Compression, Type};
use parquet::file::metadata::ColumnChunkMetaData;

use super::thrift::{Kind, PageHeader, page_header, unzigzag, varint};
use super::{Fault, PAGE_BYTES_MAX};

/// The encodings that share parts of values, and those of levels, by their numbers in Parquet.
const PLAIN_DICTIONARY: i64 = 2;
const RLE: i64 = 3;
const DELTA_BYTE_ARRAY: i64 = 7;
const RLE_DICTIONARY: i64 = 8;
/// Memory for each value, or null, beside its bytes: an offset, levels and a bit of validity, or the
/// number itself.
const VALUE_BYTES: u64 = 16;
/// If all values of a page together can take no more than this, they are not counted one by one.
const UNCOUNTED_BYTES_MAX: u64 = 256 << 10;

/// Whether the decoder copies an entry of a dictionary for each row that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entries {
    Copied,
    /// Views point into the dictionary.
    Shared,
}

/// What is known of a column before its pages are read.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    codec: Compression,
    /// Bytes of each value; `None` if values have lengths of their own.
    width: Option<u64>,
    definition_max: i16,
    repetition_max: i16,
}

impl Shape {
    pub(super) fn of(column: &ColumnChunkMetaData) -> Shape {
        let descriptor = column.column_descr();
        let width = match column.column_type() {
            Type::BYTE_ARRAY => None,
            Type::FIXED_LEN_BYTE_ARRAY => Some(u64::try_from(descriptor.type_length()).unwrap_or(0)),
            _ => Some(0),
        };
        Shape {
            codec: column.compression(),
            width,
            definition_max: descriptor.max_def_level(),
            repetition_max: descriptor.max_rep_level(),
        }
    }

    pub(super) fn is_repeated(&self) -> bool {
        self.repetition_max > 0
    }
}

/// The decoded size of some pages of one column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// All values together.
    pub(super) bytes: u64,
    /// At most what one row takes.
    pub(super) row_bytes: u64,
    /// Values and nulls in data pages.
    pub(super) values: u64,
}

/// Measures the pages in `bytes`, which begin with a header.
pub(super) fn measure(bytes: &[u8], shape: &Shape, entries: Entries) -> Result<Measure, Fault> {
    let mut measure = Measure::default();
    let mut lengths: Option<Vec<u32>> = None;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let (header, length) = page_header(rest)?;
        if header.size > PAGE_BYTES_MAX {
            return Err(Fault::TooLarge {
                what: "a page",
                bytes: header.size as u64,
                max: PAGE_BYTES_MAX as u64,
            });
        }
        let end = length.checked_add(header.stored).filter(|end| *end <= rest.len());
        let (Some(end), true) = (end, header.levels_bytes <= header.size) else {
            return Err(Fault::Malformed { what: "the header of a page" });
        };
        let body = rest.get(length..end).unwrap_or_default();
        match header.kind {
            Kind::Other => {}
            Kind::Dictionary => {
                measure.bytes = measure.bytes.saturating_add(header.size as u64);
                if shape.width.is_none() && entries == Entries::Copied {
                    lengths = Some(match values_of(&header, body, shape.codec)? {
                        Some(page) => entry_lengths(&page, header.values)?,
                        None => vec![u32::try_from(header.size).unwrap_or(u32::MAX)],
                    });
                }
            }
            Kind::Data | Kind::DataV2 => {
                data_page(&header, body, shape, entries, lengths.as_deref(), &mut measure)?;
            }
        }
        at += end;
    }
    if shape.is_repeated() {
        // A row may have all values of a list.
        measure.row_bytes = measure.bytes;
    }
    Ok(measure)
}

fn data_page(
    header: &PageHeader,
    body: &[u8],
    shape: &Shape,
    entries: Entries,
    lengths: Option<&[u32]>,
    measure: &mut Measure,
) -> Result<(), Fault> {
    let (page, count) = (header.size as u64, header.values);
    measure.values = measure.values.saturating_add(count);
    let is_coded = matches!(header.encoding, PLAIN_DICTIONARY | RLE_DICTIONARY);
    let (bytes, row_bytes) = match shape.width {
        Some(width) => (count.saturating_mul(width), width),
        None if is_coded && entries == Entries::Shared => (0, 0),
        None if is_coded => {
            let lengths = lengths.ok_or(Fault::Malformed { what: "a page without its dictionary" })?;
            let longest = u64::from(lengths.iter().copied().max().unwrap_or(0));
            let at_most = count.saturating_mul(longest);
            let page = match at_most <= UNCOUNTED_BYTES_MAX {
                true => None,
                false => values_of(header, body, shape.codec)?,
            };
            let bytes = page.map_or(Ok(at_most), |page| coded_bytes(header, &page, shape, lengths))?;
            (bytes, longest)
        }
        None if header.encoding == DELTA_BYTE_ARRAY => {
            let (bytes, longest) = match values_of(header, body, shape.codec)? {
                Some(values) => prefix_bytes(past_levels(header, &values, shape)?, count)?,
                None => (count.saturating_mul(page), page),
            };
            (bytes.saturating_add(page), longest.saturating_add(page))
        }
        // The values are in the page as they are.
        None => (page, page),
    };
    measure.bytes = measure.bytes.saturating_add(bytes).saturating_add(count.saturating_mul(VALUE_BYTES));
    measure.row_bytes = measure.row_bytes.max(row_bytes.saturating_add(VALUE_BYTES));
    Ok(())
}

/// The bytes of a page after decompression. Those of version 2 begin with their values. `None` if
/// only the decoder can decompress it.
fn values_of(header: &PageHeader, body: &[u8], codec: Compression) -> Result<Option<Vec<u8>>, Fault> {
    let body = body.get(header.levels_bytes..).ok_or(Fault::Malformed { what: "a page" })?;
    let size = header.size.saturating_sub(header.levels_bytes);
    let undecodable = || Fault::Malformed { what: "a compressed page" };
    let bytes = match codec {
        Compression::UNCOMPRESSED => body.to_vec(),
        _ if !header.is_compressed => body.to_vec(),
        _ if size == 0 => Vec::new(),
        Compression::ZSTD(_) => zstd::bulk::decompress(body, size).map_err(|_| undecodable())?,
        // Archives have no other compression. What such a page shares is not counted.
        _ => return Ok(None),
    };
    if bytes.len() == size { Ok(Some(bytes)) } else { Err(undecodable()) }
}

/// The lengths of the entries of a dictionary of texts.
fn entry_lengths(page: &[u8], count: u64) -> Result<Vec<u32>, Fault> {
    let malformed = Fault::Malformed { what: "a dictionary" };
    // Each entry has four bytes of length at least.
    if count > page.len() as u64 / 4 {
        return Err(malformed);
    }
    let (mut at, mut lengths) = (0usize, Vec::new());
    for _ in 0..count {
        let length = page.get(at..).and_then(|rest| rest.first_chunk::<4>());
        let Some(length) = length.map(|length| u32::from_le_bytes(*length)) else { return Err(malformed) };
        let end = at.checked_add(4).and_then(|start| start.checked_add(length as usize));
        match end.filter(|end| *end <= page.len()) {
            Some(end) => at = end,
            None => return Err(malformed),
        }
        lengths.push(length);
    }
    Ok(lengths)
}

/// The values of a data page, behind its levels.
fn past_levels<'p>(header: &PageHeader, page: &'p [u8], shape: &Shape) -> Result<&'p [u8], Fault> {
    if header.kind == Kind::DataV2 {
        return Ok(page);
    }
    let mut rest = page;
    let kinds = [
        (shape.repetition_max, header.repetition_encoding),
        (shape.definition_max, header.definition_encoding),
    ];
    for (max, encoding) in kinds.into_iter().filter(|(max, _)| *max > 0) {
        let bytes = if encoding == RLE {
            let length = rest.first_chunk::<4>().map(|length| u32::from_le_bytes(*length) as usize);
            length.and_then(|length| length.checked_add(4))
        } else {
            let width = u64::from(16 - max.leading_zeros());
            let bits = header.values.saturating_mul(width);
            usize::try_from(bits.div_ceil(8)).ok()
        };
        rest = bytes
            .and_then(|bytes| rest.get(bytes..))
            .ok_or(Fault::Malformed { what: "the levels of a page" })?;
    }
    Ok(rest)
}

/// The bytes of all values of a page of codes.
fn coded_bytes(header: &PageHeader, page: &[u8], shape: &Shape, lengths: &[u32]) -> Result<u64, Fault> {
    let values = past_levels(header, page, shape)?;
    let Some((width, codes)) = values.split_first() else { return Ok(0) };
    let width = u32::from(*width);
    if width > 32 {
        return Err(Fault::Malformed { what: "a page of codes" });
    }
    let length_of = |code: u64| {
        let code = usize::try_from(code).ok();
        code.and_then(|code| lengths.get(code)).map_or(0, |length| u64::from(*length))
    };
    let (mut at, mut left, mut bytes) = (0, header.values, 0u64);
    while left > 0 {
        let Some(head) = varint(codes, &mut at) else { break };
        if head & 1 == 0 {
            let stored = codes.get(at..at.saturating_add(width.div_ceil(8) as usize));
            let Some(stored) = stored else { break };
            at += stored.len();
            let code = stored.iter().rev().fold(0u64, |code, byte| (code << 8) | u64::from(*byte));
            let run = (head >> 1).min(left);
            bytes = bytes.saturating_add(length_of(code).saturating_mul(run));
            left -= run;
        } else {
            let count = (head >> 1).saturating_mul(8).min(left);
            let packed = codes.get(at..).unwrap_or_default();
            for place in 0..count {
                let Some(code) = unpacked(packed, place, width) else { break };
                bytes = bytes.saturating_add(length_of(code));
            }
            left -= count;
            let packed = (head >> 1).saturating_mul(u64::from(width));
            at = at.saturating_add(usize::try_from(packed).unwrap_or(usize::MAX));
        }
    }
    Ok(bytes)
}

/// The number at a place of a row of numbers with `width` bits each, at most 64, the lowest first.
fn unpacked(bytes: &[u8], place: u64, width: u32) -> Option<u64> {
    let bit = place.checked_mul(u64::from(width))?;
    let start = usize::try_from(bit / 8).ok()?;
    let shift = (bit % 8) as u32;
    let window = bytes.get(start..)?;
    let needed = (shift + width).div_ceil(8) as usize;
    let window = window.get(..needed)?;
    let value = window.iter().rev().fold(0u128, |value, byte| (value << 8) | u128::from(*byte));
    let mask = (1u128 << width) - 1;
    Some(((value >> shift) & mask) as u64)
}

/// The sum and the greatest of the prefix lengths at the beginning of a page of shared prefixes.
fn prefix_bytes(values: &[u8], count: u64) -> Result<(u64, u64), Fault> {
    let malformed = || Fault::Malformed { what: "a page of shared prefixes" };
    let mut at = 0;
    let mut number = || varint(values, &mut at).ok_or_else(malformed);
    if values.is_empty() {
        // All values are null.
        return Ok((0, 0));
    }
    let (block, miniblocks, total, first) = (number()?, number()?, number()?, unzigzag(number()?));
    // Nulls have no length.
    if total > count || miniblocks == 0 || block % miniblocks != 0 || miniblocks > block {
        return Err(malformed());
    }
    let in_miniblock = block / miniblocks;
    let (mut last, mut sum, mut greatest, mut left) = (first, 0u64, 0u64, total);
    let mut add = |length: i64| {
        let length = u64::try_from(length).map_err(|_| malformed())?;
        sum = sum.saturating_add(length);
        greatest = greatest.max(length);
        Ok::<_, Fault>(())
    };
    if left > 0 {
        add(last)?;
        left -= 1;
    }
    while left > 0 {
        let least = unzigzag(varint(values, &mut at).ok_or_else(malformed)?);
        let widths =
            usize::try_from(miniblocks).ok().and_then(|count| values.get(at..at.checked_add(count)?));
        let widths = widths.ok_or_else(malformed)?;
        at += widths.len();
        for width in widths {
            if left == 0 {
                break;
            }
            let width = u32::from(*width);
            if width > 64 {
                return Err(malformed());
            }
            let packed = values.get(at..).unwrap_or_default();
            for place in 0..in_miniblock.min(left) {
                let delta = unpacked(packed, place, width).ok_or_else(malformed)?;
                last = last.wrapping_add(least).wrapping_add(delta as i64);
                // The decoder's lengths have 32 bits.
                last = i64::from(last as i32);
                add(last)?;
            }
            left -= in_miniblock.min(left);
            let bytes = in_miniblock.saturating_mul(u64::from(width)).div_ceil(8);
            at = at.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
    }
    Ok((sum, greatest))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Encoding, ZstdLevel};
    use parquet::file::properties::{WriterProperties, WriterVersion};

    use crate::{Batches, Fault, chunk_range, footer};

    use super::*;
    use strongroom_store::Fetched;

    /// A file with one column, in an encoding.
    fn file(column: ArrayRef, encoding: Option<Encoding>, version: WriterVersion) -> Bytes {
        let properties = WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_data_page_row_count_limit(100)
            .set_dictionary_enabled(encoding.is_none());
        let properties = match encoding {
            Some(encoding) => properties.set_encoding(encoding),
            None => properties,
        };
        let batch = RecordBatch::try_from_iter([("c", column)]).expect("a batch");
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build())).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        bytes.into()
    }

    fn measured(file: &Bytes) -> Measure {
        let footer = footer(&Fetched { start: 0, bytes: file.clone() }).expect("a footer");
        let column = footer.metadata().row_group(0).column(0);
        let range = chunk_range(column).expect("a range");
        let pages = &file[range.start as usize..range.end as usize];
        measure(pages, &Shape::of(column), Entries::Copied).expect("measured")
    }

    fn texts() -> Vec<Option<String>> {
        let long = "x".repeat(3000);
        (0..1000).map(|row| (row % 7 != 0).then(|| format!("{long}{}", row % 5))).collect()
    }

    #[test]
    fn what_rows_share_is_counted_as_often_as_they_use_it() {
        let rows = texts();
        let total: u64 = rows.iter().flatten().map(|text| text.len() as u64).sum();
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for encoding in [
                None,
                Some(Encoding::DELTA_BYTE_ARRAY),
                Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
                Some(Encoding::PLAIN),
            ] {
                let file = file(Arc::new(StringArray::from(rows.clone())), encoding, version);
                let measure = measured(&file);
                let least = total..=total * 2 + 100_000;
                assert!(least.contains(&measure.bytes), "{encoding:?} {version:?}: {measure:?} of {total}");
                assert!(measure.row_bytes >= 3001, "{encoding:?} {version:?}: {measure:?}");
                assert_eq!(measure.values, 1000);
                let decoded = |max| {
                    let batches = Batches::open(file.clone(), max, 8192).expect("a file");
                    batches.map(|batch| batch.map(|batch| batch.num_rows())).collect::<Result<Vec<_>, _>>()
                };
                assert_eq!(decoded(measure.bytes).expect("decoded"), [1000]);
                assert!(decoded(measure.bytes - 1).expect_err("too large").to_string().contains("share"));
            }
        }
    }

    #[test]
    fn lists_and_numbers_are_measured() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for row in 0..300 {
            (0..row % 4).for_each(|item| lists.values().append_value("y".repeat(1000 + item)));
            lists.append(row % 9 != 0);
        }
        let lists = lists.finish();
        let bytes = lists.values().get_buffer_memory_size() as u64;
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            let measure = measured(&file(Arc::new(lists.clone()), None, version));
            assert!(
                measure.bytes > bytes / 2 && measure.bytes < bytes * 2 + 100_000,
                "{measure:?} of {bytes}"
            );
            assert_eq!(measure.row_bytes, measure.bytes, "a row may have all");
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
            for encoding in [None, Some(Encoding::DELTA_BINARY_PACKED), Some(Encoding::PLAIN)] {
                let measure = measured(&file(Arc::clone(&numbers), encoding, version));
                assert!(measure.bytes >= 8000 && measure.values == 1000, "{encoding:?}: {measure:?}");
            }
        }
    }

    #[test]
    fn bits_are_unpacked() {
        let bytes = [0b1000_1000, 0b1100_0110, 0b1111_1010];
        let unpacked: Vec<_> = (0..8).map(|place| unpacked(&bytes, place, 3)).collect();
        assert_eq!(unpacked, (0..8).map(Some).collect::<Vec<_>>());
        assert_eq!(super::unpacked(&bytes, 8, 3), None);
        assert_eq!(super::unpacked(&[0xff; 16], 1, 63), Some((1 << 63) - 1));
        assert_eq!(super::unpacked(&[], 5, 0), Some(0));
    }

    #[test]
    fn a_page_is_not_decompressed_beyond_its_size() {
        let small = file(Arc::new(StringArray::from(texts())), None, WriterVersion::PARQUET_1_0);
        let footer = footer(&Fetched { start: 0, bytes: small.clone() }).expect("a footer");
        let column = footer.metadata().row_group(0).column(0);
        let start = chunk_range(column).expect("a range").start as usize;
        let (header, length) = page_header(&small[start..]).expect("a header");
        let body = &small[start + length..start + length + header.stored];
        let lying = PageHeader { size: header.size - 1, ..header };
        assert!(values_of(&lying, body, column.compression()).is_err());
        assert_eq!(
            entry_lengths(&[0xff, 0xff, 0xff, 0x7f, 0], 1),
            Err(Fault::Malformed { what: "a dictionary" })
        );
        assert!(entry_lengths(&[0; 8], 3).is_err(), "more entries than bytes");
    }
}
