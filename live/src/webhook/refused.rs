//! The reasons why a batch was not stored. The log refuses the batch, and the listener answers.
//!
//! Invariant: a refused batch leaves nothing in the log that is read, so the sender may try again.

/// Why a batch was not stored; the sender may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The log or its disk has no room.
    Full,
    /// The disk failed.
    Failed,
}
