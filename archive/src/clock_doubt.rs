//! The reasons why a clock cannot be right, with their texts for messages.
//!
//! No IO, no state.

use chrono::{DateTime, Utc};

/// Why a clock cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockDoubt {
    /// Behind the newest commit.
    Behind { newest: DateTime<Utc> },
    /// Ahead of the newest commit, if there is one, and of the store's clock.
    Ahead { newest: Option<DateTime<Utc>>, store: DateTime<Utc> },
    /// Ahead of the time that it should show according to the last seal of this process and the
    /// time that has passed since, and ahead of the newest event.
    Jumped { expected: DateTime<Utc>, event: DateTime<Utc> },
}

impl std::fmt::Display for ClockDoubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |time: &DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        match self {
            ClockDoubt::Behind { newest } => {
                write!(f, "the newest commit of the archive is from {}", text(newest))
            }
            ClockDoubt::Ahead { newest: Some(newest), store } => write!(
                f,
                "the newest commit of the archive is from {}, and the clock of its store is at {}",
                text(newest),
                text(store)
            ),
            ClockDoubt::Ahead { newest: None, store } => {
                write!(f, "the clock of the archive's store is at {}", text(store))
            }
            ClockDoubt::Jumped { expected, event } => write!(
                f,
                "by the last seal of this process and the time since, it is {}, and the newest event is from {}",
                text(expected),
                text(event)
            ),
        }
    }
}
