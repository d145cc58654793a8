//! The question that a pack answers, and the period of the question.
//!
//! Invariant: a period includes its start and excludes its end, so two consecutive periods have no
//! time in common.

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use super::text::time_text;

/// A period in microseconds since the epoch: from `from_us`, inclusive, to `to_us`, exclusive.
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

    /// Returns both times in the form of a question, or `None` if one of them is outside the
    /// calendar.
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
    /// Whether the pack contains every record of each file that may have records of the period.
    pub complete: bool,
}

impl Question {
    /// Returns the period, or `None` if one of its times is not valid.
    pub fn span(&self) -> Option<Span> {
        let time = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros());
        Some(Span { from_us: time(&self.from)?, to_us: time(&self.to)? })
    }
}
