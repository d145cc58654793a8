//! What a pack is about: the question that was asked, and the period in it.
//!
//! Invariant: a period has its first microsecond and does not have its last one, so two that meet
//! share nothing.

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use super::text::time_text;

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

    /// Both times as a question has them; `None` if one is outside of the calendar.
    pub fn texts(self) -> Option<(String, String)> {
        Some((time_text(self.from_us)?, time_text(self.to_us)?))
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

impl Question {
    /// The period; `None` if one of its times is not valid.
    pub fn span(&self) -> Option<Span> {
        let time = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros());
        Some(Span { from_us: time(&self.from)?, to_us: time(&self.to)? })
    }
}
