//! Formats times and numbers for the texts of a pack.
//!
//! Invariant: a time is in UTC and has six digits after the second, so the order of two texts is
//! the order of their times.

use chrono::{DateTime, SecondsFormat};

/// Returns a time as `2026-03-02T10:00:00.000000Z`, or `None` outside the calendar.
pub(crate) fn time_text(us: i64) -> Option<String> {
    Some(DateTime::from_timestamp_micros(us)?.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// Returns `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(time_text(1_000_000).as_deref(), Some("1970-01-01T00:00:01.000000Z"));
        assert_eq!(time_text(i64::MAX), None);
    }
}
