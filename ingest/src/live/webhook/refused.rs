//! Why a batch was not stored, for the log that refuses it and the listener that answers.
//!
//! Invariant: a refused batch left nothing in the log, so the sender may try again.

/// Why a batch was not stored; the sender may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room.
    Full,
    /// The disk failed.
    Failed,
}
