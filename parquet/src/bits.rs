//! Parquet's integer encodings, appended to a byte vector: RLE/bit-packed hybrid and
//! DELTA_BINARY_PACKED.
//!
//! This module has its own encoders, because those of the `parquet` crate are private and take one
//! value at a time. The encoders here take a whole page. They are tested against the decoders of
//! that crate and of DuckDB.

/// Number of values in a group of the bit-packed form.
const GROUP: usize = 8;
/// Minimum number of equal values that are stored as a run, apart from those that fill the last
/// bit-packed group before the run.
const RUN_MIN: usize = 16;
/// Maximum number of groups in one bit-packed run. Up to this number, the header of a run is a
/// single byte.
const GROUPS_MAX: usize = 63;
const DELTA_BLOCK: usize = 128;
const DELTA_MINIBLOCKS: usize = 4;
const DELTA_MINIBLOCK: usize = DELTA_BLOCK / DELTA_MINIBLOCKS;

/// Bits needed for `value`.
pub fn bit_width(value: u32) -> u8 {
    (u32::BITS - value.leading_zeros()) as u8
}

/// Appends `value` in LEB128.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_zigzag(value: i64, out: &mut Vec<u8>) {
    put_varint(((value << 1) ^ (value >> 63)) as u64, out);
}

/// Appends `values` in the RLE/bit-packed hybrid, without a length prefix. Each value must be below
/// `1 << width`.
pub fn put_hybrid(values: &[u32], width: u8, out: &mut Vec<u8>) {
    if width == 0 {
        // If only one value is possible, one run is enough, and the value of the run takes no
        // bytes.
        if !values.is_empty() {
            put_varint((values.len() as u64) << 1, out);
        }
        return;
    }
    let mut literals_from = 0;
    let mut at = 0;
    while at < values.len() {
        let value = values[at];
        let run = 1 + values[at + 1..].iter().take_while(|next| **next == value).count();
        // A bit-packed run consists of whole groups. So if its last group is not full, the group is
        // filled with values from the start of the run of equal values.
        let lent = (GROUP - (at - literals_from) % GROUP) % GROUP;
        if run >= RUN_MIN + lent {
            put_literals(&values[literals_from..at + lent], width, out);
            put_varint(((run - lent) as u64) << 1, out);
            out.extend_from_slice(&value.to_le_bytes()[..usize::from(width).div_ceil(8)]);
            at += run;
            literals_from = at;
        } else {
            at += run;
        }
    }
    put_literals(&values[literals_from..], width, out);
}

/// Appends `values` as bit-packed runs. The last group is padded with zeros.
fn put_literals(values: &[u32], width: u8, out: &mut Vec<u8>) {
    for chunk in values.chunks(GROUPS_MAX * GROUP) {
        let groups = chunk.len().div_ceil(GROUP);
        put_varint(((groups as u64) << 1) | 1, out);
        let end = out.len() + groups * usize::from(width);
        match width {
            8 => out.extend(chunk.iter().map(|value| *value as u8)),
            16 => out.extend(chunk.iter().flat_map(|value| (*value as u16).to_le_bytes())),
            _ => pack(chunk, width, out),
        }
        out.resize(end, 0);
    }
}

/// Appends `values` with `width` bits each, least significant bit first.
fn pack(values: &[u32], width: u8, out: &mut Vec<u8>) {
    let (mut bits, mut filled) = (0u64, 0u32);
    for value in values {
        bits |= u64::from(*value) << filled;
        filled += u32::from(width);
        if filled >= 32 {
            out.extend_from_slice(&(bits as u32).to_le_bytes());
            bits >>= 32;
            filled -= 32;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..(filled as usize).div_ceil(8)]);
}

/// Like [`pack`], but for values of up to 64 bits.
fn pack_wide(values: &[u64], width: u8, out: &mut Vec<u8>) {
    let (mut bits, mut filled) = (0u128, 0u32);
    for value in values {
        bits |= u128::from(*value) << filled;
        filled += u32::from(width);
        if filled >= 64 {
            out.extend_from_slice(&(bits as u64).to_le_bytes());
            bits >>= 64;
            filled -= 64;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..(filled as usize).div_ceil(8)]);
}

/// Appends `values` in DELTA_BINARY_PACKED.
pub fn put_delta(values: &[i64], out: &mut Vec<u8>) {
    put_varint(DELTA_BLOCK as u64, out);
    put_varint(DELTA_MINIBLOCKS as u64, out);
    put_varint(values.len() as u64, out);
    let Some((first, rest)) = values.split_first() else {
        put_zigzag(0, out);
        return;
    };
    put_zigzag(*first, out);
    let mut previous = *first;
    for block in rest.chunks(DELTA_BLOCK) {
        let mut deltas = [0i64; DELTA_BLOCK];
        for (delta, value) in deltas.iter_mut().zip(block) {
            *delta = value.wrapping_sub(previous);
            previous = *value;
        }
        let deltas = &deltas[..block.len()];
        let least = deltas.iter().copied().min().expect("a chunk is never empty");
        put_zigzag(least, out);
        let widths_at = out.len();
        out.extend_from_slice(&[0; DELTA_MINIBLOCKS]);
        for (index, mini) in deltas.chunks(DELTA_MINIBLOCK).enumerate() {
            // The missing values of the block's last miniblock are stored as zeros; readers skip
            // them.
            let mut offsets = [0u64; DELTA_MINIBLOCK];
            let mut all = 0u64;
            for (offset, delta) in offsets.iter_mut().zip(mini) {
                *offset = delta.wrapping_sub(least) as u64;
                all |= *offset;
            }
            let width = (u64::BITS - all.leading_zeros()) as u8;
            out[widths_at + index] = width;
            if width > 0 {
                pack_wide(&offsets, width, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    /// Returns the `width` bits of a packed run that start at bit `at`, read in the slow and
    /// obvious way.
    fn bits_at(bytes: &[u8], at: usize, width: usize) -> u64 {
        (0..width).map(|bit| u64::from(bytes[(at + bit) / 8] >> ((at + bit) % 8) & 1) << bit).sum()
    }

    fn read_hybrid(mut bytes: &[u8], width: u8, count: usize) -> Vec<u32> {
        let mut values = Vec::new();
        while values.len() < count {
            let header = read_varint(&mut bytes);
            if header & 1 == 1 {
                let groups = (header >> 1) as usize;
                values.extend(
                    (0..groups * 8).map(|i| bits_at(bytes, i * usize::from(width), width.into()) as u32),
                );
                bytes = &bytes[groups * usize::from(width)..];
            } else {
                let wide = usize::from(width).div_ceil(8);
                let value = bits_at(bytes, 0, wide * 8) as u32;
                bytes = &bytes[wide..];
                values.extend(std::iter::repeat_n(value, (header >> 1) as usize));
            }
        }
        assert!(bytes.is_empty(), "bytes left over");
        values.truncate(count);
        values
    }

    fn read_delta(mut bytes: &[u8]) -> Vec<i64> {
        let zigzag = |value: u64| ((value >> 1) as i64) ^ -((value & 1) as i64);
        assert_eq!(read_varint(&mut bytes), DELTA_BLOCK as u64);
        assert_eq!(read_varint(&mut bytes), DELTA_MINIBLOCKS as u64);
        let count = read_varint(&mut bytes) as usize;
        let mut values = vec![zigzag(read_varint(&mut bytes))];
        while values.len() < count {
            let least = zigzag(read_varint(&mut bytes));
            let widths: Vec<usize> = bytes[..DELTA_MINIBLOCKS].iter().map(|w| usize::from(*w)).collect();
            bytes = &bytes[DELTA_MINIBLOCKS..];
            for width in widths {
                if values.len() >= count {
                    assert_eq!(width, 0);
                    continue;
                }
                for i in 0..DELTA_MINIBLOCK {
                    let delta = least.wrapping_add(bits_at(bytes, i * width, width) as i64);
                    let last = *values.last().expect("starts with one");
                    values.push(last.wrapping_add(delta));
                }
                bytes = &bytes[DELTA_MINIBLOCK * width / 8..];
            }
        }
        assert!(bytes.is_empty(), "bytes left over");
        values.truncate(count);
        values
    }

    fn runs() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::vec((any::<u32>(), prop_oneof![1usize..4, 1usize..90, Just(600)]), 0..40)
            .prop_map(|runs| runs.into_iter().flat_map(|(v, n)| std::iter::repeat_n(v, n)).collect())
    }

    proptest! {
        #[test]
        fn hybrid_round_trips(values in runs(), width in 0u8..=32) {
            let mask = if width == 32 { u32::MAX } else { (1 << width) - 1 };
            let values: Vec<u32> = values.into_iter().map(|value| value & mask).collect();
            let mut out = Vec::new();
            put_hybrid(&values, width, &mut out);
            prop_assert_eq!(read_hybrid(&out, width, values.len()), values);
        }

        #[test]
        fn delta_round_trips(values in proptest::collection::vec(prop_oneof![any::<i64>(), -50i64..50], 1..600)) {
            let mut out = Vec::new();
            put_delta(&values, &mut out);
            prop_assert_eq!(read_delta(&out), values);
        }
    }

    #[test]
    fn equal_values_take_a_few_bytes() {
        let mut out = Vec::new();
        put_hybrid(&[3; 100_000], 7, &mut out);
        assert!(out.len() < 8, "{}", out.len());
        out.clear();
        put_delta(&(0..100_000).map(|i| i * 7).collect::<Vec<_>>(), &mut out);
        assert!(out.len() < 100_000 / DELTA_BLOCK * 8, "{}", out.len());
    }
}
