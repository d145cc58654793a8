//! Positions: how far each source has been stored.
//!
//! Invariant: a position is written in the same commit as the rows between it and the previous
//! position, or not at all. So every row before `next_offset` is in the table exactly once, and no
//! row after it is in the table.

/// The first byte (or broker offset) of a source partition that is not stored yet, and a
/// fingerprint of everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The offset in the uncompressed stream of the first byte that is not stored yet, or the
    /// broker's next offset.
    pub next_offset: i64,
    /// Records (lines) before `next_offset`.
    pub records: i64,
    /// First half of the BLAKE3 hash of everything before `next_offset`.
    pub prefix_blake3: [u8; 16],
    /// The broker's own number of the first message that is not stored yet; only partitions of a
    /// broker have one.
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
    /// Where this commit's rows start. For the first commit of a run, this is the position that
    /// [`crate::Writer::position`] returned for `events` (for `activity`, if the partition belongs
    /// to a writer of activity records). For later commits, it is where the last commit's rows end.
    pub previous: Option<Position>,
}

/// The counts of one commit. In every commit, `received = events + rejects + duplicates`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    pub events: u64,
    pub rejects: u64,
    pub duplicates: u64,
}

/// A source partition of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub partition: String,
    /// The label in the newest commit that names the partition.
    pub label: String,
    pub position: Position,
    /// Records before this offset were in volumes that have been dropped; 0 if none were.
    pub dropped_before: i64,
    /// The first commit of `events` that has the partition, as its number among all commits of
    /// `events`. Partitions whose first rows were sealed together have the same number.
    pub first_commit: usize,
}
