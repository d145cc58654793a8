//! What a pack is about: the question that was asked, and the period in it.
//!
//! Invariant: a period has its first microsecond and does not have its last one, so two that meet
//! share nothing.

use serde::{Deserialize, Serialize};

/// A period in microseconds since the epoch: from the first, inclusive, to the second, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    pub from_us: i64,
    pub to_us: i64,
}

impl Span {
    /// Whether a time lies in the period.
    pub fn holds(self, time_us: i64) -> bool {
        (self.from_us..self.to_us).contains(&time_us)
    }
}

/// The question that a pack answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// `2026-03-02T10:00:00.000000Z`; this time and later.
    pub from: String,
    /// Before this time.
    pub to: String,
    pub namespaces: Vec<String>,
    pub users: Vec<String>,
    /// A condition in SQL.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Whether the pack contains every record of every file that may have one of the period.
    pub complete: bool,
}
