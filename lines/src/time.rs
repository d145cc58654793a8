//! Kubernetes `MicroTime`: RFC 3339, read with any number of decimals and written with six.
//!
//! kube-apiserver writes `2006-01-02T15:04:05.000000Z`; managed clouds write zero to nine decimals.
//! Shippers also write a space in place of the `T`, a zone without its colon, or a number.
//! Invariant: decimals after the sixth are cut off, never rounded, so an event's time is never
//! moved past the time of a later event. No state.

const DAY_US: i64 = 86_400_000_000;

/// Integers below this are seconds since the epoch.
const SECONDS_END: i64 = 100_000_000_000;
/// Integers from [`SECONDS_END`] to below this are milliseconds.
const MILLIS_END: i64 = 100_000_000_000_000;

/// Microseconds since the epoch that a JSON number stands for. `None` if it is not an integer, or
/// is negative or too large.
pub(crate) fn of_number(text: &str) -> Option<i64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match text.parse().ok()? {
        number @ 0..SECONDS_END => Some(number * 1_000_000),
        number @ SECONDS_END..MILLIS_END => Some(number * 1_000),
        _ => None,
    }
}

/// Microseconds since the epoch of an RFC 3339 timestamp, or `None` if the text is not one. A space
/// in place of the `T`, and a zone without its colon, are allowed, too.
pub fn parse(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    if b.len() < 20
        || b[4] != b'-'
        || b[7] != b'-'
        || !matches!(b[10], b'T' | b't' | b' ')
        || b[13] != b':'
        || b[16] != b':'
    {
        return None;
    }
    let year = number(&b[0..4])?;
    let (month, day) = (number(&b[5..7])?, number(&b[8..10])?);
    let (hour, minute, second) = (number(&b[11..13])?, number(&b[14..16])?, number(&b[17..19])?);
    let seconds = seconds_of((year, month, day), (hour, minute, second))?;
    let mut at = 19;
    let mut micros = 0;
    if b[at] == b'.' {
        at += 1;
        let start = at;
        while at < b.len() && b[at].is_ascii_digit() {
            if at - start < 6 {
                micros = micros * 10 + i64::from(b[at] - b'0');
            }
            at += 1;
        }
        let digits = at - start;
        if digits == 0 || digits > 9 {
            return None;
        }
        for _ in digits..6 {
            micros *= 10;
        }
    }
    let offset_minutes = match b.get(at)? {
        b'Z' | b'z' if at + 1 == b.len() => 0,
        sign @ (b'+' | b'-') => {
            let minutes_at = match b.len() - at {
                6 if b[at + 3] == b':' => at + 4,
                5 => at + 3,
                _ => return None,
            };
            let (hours, minutes) = (number(&b[at + 1..at + 3])?, number(&b[minutes_at..])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 60 + minutes;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    Some((seconds - offset_minutes * 60) * 1_000_000 + micros)
}

/// Appends the time as `2006-01-02T15:04:05.000000Z`. The year must be from 0 to 9999, as it always
/// is in what [`parse`] returns.
pub fn render(micros: i64, out: &mut Vec<u8>) {
    let days = micros.div_euclid(DAY_US);
    let mut rest = micros.rem_euclid(DAY_US);
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    digits(year, &mut text[..4]);
    digits(month, &mut text[5..7]);
    digits(day, &mut text[8..10]);
    digits(rest / 3_600_000_000, &mut text[11..13]);
    rest %= 3_600_000_000;
    digits(rest / 60_000_000, &mut text[14..16]);
    rest %= 60_000_000;
    digits(rest / 1_000_000, &mut text[17..19]);
    digits(rest % 1_000_000, &mut text[20..26]);
    out.extend_from_slice(&text);
}

/// Whether `text`, which [`parse`] accepts, is written as [`render`] writes a time.
pub fn is_canonical(text: &str) -> bool {
    let b = text.as_bytes();
    b.len() == CANONICAL_BYTES && b[10] == b'T' && b[19] == b'.' && b[26] == b'Z'
}

/// Length of a timestamp as [`render`] writes it.
pub const CANONICAL_BYTES: usize = 27;

/// Like [`parse`], but only for a time in the format that [`render`] writes.
pub fn parse_canonical(text: &[u8; CANONICAL_BYTES]) -> Option<i64> {
    const FORM: &[u8; CANONICAL_BYTES] = b"0000-00-00T00:00:00.000000Z";
    // The loop has no early exit, so that it is vectorised.
    let has_form = text
        .iter()
        .zip(FORM)
        .fold(true, |all, (byte, form)| all & ((*byte == *form) | ((*form == b'0') & byte.is_ascii_digit())));
    if !has_form {
        return None;
    }
    let two = |at: usize| i64::from(text[at] - b'0') * 10 + i64::from(text[at + 1] - b'0');
    let (year, month, day) = (two(0) * 100 + two(2), two(5), two(8));
    let (hour, minute, second) = (two(11), two(14), two(17));
    let seconds = seconds_of((year, month, day), (hour, minute, second))?;
    let micros = two(20) * 10_000 + two(22) * 100 + two(24);
    Some(seconds * 1_000_000 + micros)
}

/// Like [`parse_canonical`], but faster if `text` is in the same second as `other`, a canonical
/// time whose value is `other_us`.
pub fn parse_canonical_near(
    text: &[u8; CANONICAL_BYTES],
    other: &[u8; CANONICAL_BYTES],
    other_us: i64,
) -> Option<i64> {
    const POINT: usize = 19;
    if text[..=POINT] != other[..=POINT] || text[CANONICAL_BYTES - 1] != b'Z' {
        return parse_canonical(text);
    }
    let micros = number(&text[POINT + 1..CANONICAL_BYTES - 1])?;
    Some(other_us - other_us.rem_euclid(1_000_000) + micros)
}

/// Seconds since the epoch, if the day and the time of day exist.
fn seconds_of((year, month, day): (i64, i64, i64), (hour, minute, second): (i64, i64, i64)) -> Option<i64> {
    if hour > 23
        || minute > 59
        || second > 59
        || !(1..=12).contains(&month)
        || day < 1
        || day > days_in(year, month)
    {
        return None;
    }
    Some(days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> Option<i64> {
    let mut value = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(value)
}

fn digits(value: i64, out: &mut [u8]) {
    let mut rest = u32::try_from(value).unwrap_or(0);
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date. Years are counted from March, so the leap
/// day is the last of its year and every month's start is a linear function of the month.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use proptest::prelude::*;

    #[test]
    fn decimals_from_none_to_nine_and_offsets() {
        let whole = parse("2026-03-02T10:00:00Z").expect("valid");
        assert_eq!(parse("2026-03-02T10:00:00.1Z"), Some(whole + 100_000));
        assert_eq!(parse("2026-03-02T10:00:00.123456Z"), Some(whole + 123_456));
        assert_eq!(parse("2026-03-02T10:00:00.123456999Z"), Some(whole + 123_456));
        assert_eq!(parse("2026-03-02T12:30:00+02:30"), Some(whole));
        assert_eq!(parse("2026-03-02T08:00:00-02:00"), Some(whole));
        assert_eq!(parse("2026-03-02 12:30:00.000+0230"), Some(whole));
        assert_eq!(parse("2026-03-02t08:00:00-0200"), Some(whole));
        assert!(!is_canonical("2026-03-02 10:00:00.000000Z"));
    }

    #[test]
    fn numbers_are_seconds_or_milliseconds() {
        assert_eq!(of_number("0"), Some(0));
        assert_eq!(of_number("1772445600"), Some(1_772_445_600_000_000));
        assert_eq!(of_number("99999999999"), Some(99_999_999_999_000_000));
        assert_eq!(of_number("100000000000"), Some(100_000_000_000_000));
        assert_eq!(of_number("1772445600123"), Some(1_772_445_600_123_000));
        assert_eq!(of_number("99999999999999"), Some(99_999_999_999_999_000));
        for text in ["", "100000000000000", "-1", "-0", "+1", "1.0", "1e3", "99999999999999999999"] {
            assert_eq!(of_number(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_timestamp() {
        for text in [
            "",
            "null",
            "2026-03-02",
            "2026-03-02T10:00:00",
            "2026-13-02T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "2026-03-02T24:00:00Z",
            "2026-03-02T10:00:60Z",
            "2026-03-02T10:00:00.Z",
            "2026-03-02T10:00:00.1234567890Z",
            "2026-03-02T10:00:00Zz",
            "2026-03-02  10:00:00Z",
            "2026-03-02_10:00:00Z",
            "٢٠٢٦-03-02T10:00:00Z",
            "2026-03-02T10:00:00+2:30",
            "2026-03-02T10:00:00+023",
            "2026-03-02T10:00:00+02300",
            "2026-03-02T10:00:00+02",
            "2026-03-02T10:00:00+2400",
            "2026-03-02T10:00:00 +0200",
            "2026-03-02 10:00:00 UTC",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_chrono_both_ways(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let mut out = Vec::new();
            render(micros, &mut out);
            let text = String::from_utf8(out).expect("ascii");
            let chrono = DateTime::<Utc>::from_timestamp_micros(micros).expect("in range");
            prop_assert_eq!(&text, &chrono.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
            prop_assert_eq!(parse(&text), Some(micros));
            prop_assert!(is_canonical(&text));
        }

        #[test]
        fn a_near_time_is_no_other(
            micros in 0_i64..4_000_000_000_000_000,
            gap in -1_500_000_i64..1_500_000,
            at in 0..CANONICAL_BYTES,
            byte in any::<u8>(),
        ) {
            let rendered = |micros| -> [u8; CANONICAL_BYTES] {
                let mut out = Vec::new();
                render(micros, &mut out);
                out.try_into().expect("of that length")
            };
            let (other, text) = (rendered(micros), rendered(micros + gap));
            prop_assert_eq!(parse_canonical_near(&text, &other, micros), Some(micros + gap));
            let mut changed = text;
            changed[at] = byte;
            prop_assert_eq!(parse_canonical_near(&changed, &other, micros), parse_canonical(&changed));
            let expected = std::str::from_utf8(&changed).ok().filter(|text| is_canonical(text)).and_then(parse);
            prop_assert_eq!(parse_canonical(&changed), expected);
        }
    }
}
