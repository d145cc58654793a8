//! How far a source has been stored: the archive's only bookkeeping of its sources.
//!
//! Invariant: a position is written in the same commit as the rows before it, or not at all. So what
//! lies before `next_offset` is in the table, exactly once, and what lies behind it is not.

/// The first byte (or broker offset) of a source partition that is not stored yet, and a fingerprint
/// of everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Offset in the uncompressed stream, or the broker's next offset.
    pub next_offset: i64,
    /// Records (lines) before `next_offset`.
    pub records: i64,
    /// First half of the BLAKE3 hash of everything before `next_offset`.
    pub prefix_blake3: [u8; 16],
    /// A broker's own number of the first message behind `next_offset`; only partitions of a broker have one.
    pub broker_offset: Option<i64>,
}

/// A partition's step from one commit to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePosition {
    /// Identity of the partition, `kind/identity`, as in column `source`.
    pub partition: String,
    /// Name for people, e.g. the path that was read.
    pub label: String,
    /// Where this commit's rows end.
    pub position: Position,
    /// Where they begin: what [`crate::Writer::position`] said of `events` (of `activity`, for its own) at the start, or the last commit's end.
    pub previous: Option<Position>,
}

/// Conservation of one commit: `received = events + rejects + duplicates`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    pub events: u64,
    pub rejects: u64,
    pub duplicates: u64,
}

/// A source partition that the archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub partition: String,
    /// The label of its newest commit.
    pub label: String,
    pub position: Position,
    /// Records before this offset went with volumes that were dropped; 0 when none were.
    pub dropped_before: i64,
}
