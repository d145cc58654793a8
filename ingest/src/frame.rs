//! A stream cut into blocks, a block cut into lines.
//!
//! Invariant: the lines of a block, the newlines between them and nothing else are its bytes, and the
//! blocks of a stream follow each other without a gap. A block ends behind a newline, or at the end of
//! its stream, or inside a line that is longer than a block; such a line goes on in the next block.

use std::sync::Arc;

/// Where a block comes from: constant over the stream, shared by its blocks.
#[derive(Debug, PartialEq, Eq)]
pub struct Origin {
    /// Source partition, as in the `source` column.
    pub partition: String,
    pub cluster: String,
}

/// Consecutive bytes of one stream, after decompression.
#[derive(Debug)]
pub struct Block {
    pub origin: Arc<Origin>,
    /// Byte offset of `bytes[0]` in the stream.
    pub offset: i64,
    /// Number of the line that `bytes[0]` belongs to, from 1.
    pub first_line: i64,
    pub bytes: Vec<u8>,
    /// The block begins inside a line that began in an earlier block and is over-long.
    pub continues_line: bool,
    /// The block ends inside a line that is over-long and goes on in the next block.
    pub ends_in_line: bool,
    /// The last line has no newline because more of it may come: when it cannot be decoded it is left.
    pub open_ended: bool,
}

/// One line, without its newline, or a piece of one that is too long to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'b> {
    /// Offset in the block.
    pub at: usize,
    /// Number of the line in the stream, from 1.
    pub number: i64,
    pub bytes: &'b [u8],
    pub kind: LineKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    Whole,
    /// No newline behind it, and the stream may grow.
    Open,
    /// Part of a line longer than the bound.
    Piece,
}

/// Lines of `block`; those longer than `line_bytes_max` as pieces of at most that size.
pub fn lines(block: &Block, line_bytes_max: usize) -> impl Iterator<Item = Line<'_>> {
    let bytes = block.bytes.as_slice();
    let (mut at, mut number) = (0, block.first_line);
    // End of the over-long line whose pieces are being handed out.
    let mut long_until = None;
    if block.continues_line {
        long_until = Some(line_end(bytes, 0));
    }
    std::iter::from_fn(move || {
        loop {
            if let Some(end) = long_until {
                if at < end {
                    let piece = &bytes[at..end.min(at + line_bytes_max)];
                    let line = Line { at, number, bytes: piece, kind: LineKind::Piece };
                    at += piece.len();
                    return Some(line);
                }
                long_until = None;
                at = end + 1;
                number += 1;
                continue;
            }
            if at >= bytes.len() {
                return None;
            }
            let end = line_end(bytes, at);
            let last = end == bytes.len();
            if end - at > line_bytes_max || (last && block.ends_in_line) {
                long_until = Some(end);
                continue;
            }
            let line = &bytes[at..end];
            let (start, of) = (at, number);
            at = end + 1;
            number += 1;
            if line.is_empty() {
                // An empty line is a newline and nothing else: the gap between records says it all.
                continue;
            }
            let kind = if last && block.open_ended { LineKind::Open } else { LineKind::Whole };
            return Some(Line { at: start, number: of, bytes: line, kind });
        }
    })
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(bytes: &[u8]) -> Block {
        Block {
            origin: Arc::new(Origin { partition: "p".into(), cluster: "c".into() }),
            offset: 0,
            first_line: 1,
            bytes: bytes.to_vec(),
            continues_line: false,
            ends_in_line: false,
            open_ended: false,
        }
    }

    #[test]
    fn long_lines_come_in_pieces_and_keep_their_number() {
        let block = block(b"ab\nabcdefg\n\nxy");
        let found: Vec<_> = lines(&block, 3).map(|l| (l.at, l.number, l.bytes, l.kind)).collect();
        assert_eq!(
            found,
            [
                (0, 1, &b"ab"[..], LineKind::Whole),
                (3, 2, b"abc", LineKind::Piece),
                (6, 2, b"def", LineKind::Piece),
                (9, 2, b"g", LineKind::Piece),
                (12, 4, b"xy", LineKind::Whole),
            ]
        );
    }

    #[test]
    fn a_line_over_several_blocks_is_all_pieces() {
        let first = Block { ends_in_line: true, ..block(b"ok\nlong") };
        let second = Block { continues_line: true, first_line: 2, offset: 7, ..block(b"er\nok") };
        let kinds =
            |b: &Block| lines(b, 100).map(|l| (l.number, l.bytes.to_vec(), l.kind)).collect::<Vec<_>>();
        assert_eq!(
            kinds(&first),
            [(1, b"ok".to_vec(), LineKind::Whole), (2, b"long".to_vec(), LineKind::Piece)]
        );
        assert_eq!(
            kinds(&second),
            [(2, b"er".to_vec(), LineKind::Piece), (3, b"ok".to_vec(), LineKind::Whole)]
        );
    }

    proptest! {
        #[test]
        fn lines_and_newlines_are_all_the_bytes(
            bytes in proptest::collection::vec(prop_oneof![3 => Just(b'\n'), 5 => any::<u8>()], 0..200),
            max in 1_usize..20,
        ) {
            let block = block(&bytes);
            let mut rebuilt = vec![b'\n'; bytes.len()];
            let mut end = 0;
            for line in lines(&block, max) {
                prop_assert!(line.at >= end && line.bytes.len() <= max && !line.bytes.contains(&b'\n'));
                prop_assert_eq!(line.number as usize, 1 + bytes[..line.at].iter().filter(|b| **b == b'\n').count());
                end = line.at + line.bytes.len();
                rebuilt[line.at..end].copy_from_slice(line.bytes);
            }
            prop_assert_eq!(rebuilt, bytes);
        }
    }
}
