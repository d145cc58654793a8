//! Writes text as Go's `encoding/json` does, which kube-apiserver's log backend uses.
//!
//! Invariant: the output of [`string`] is byte for byte what Go would have written. Go differs from
//! most encoders. It escapes `<`, `>` and `&` (safe inside HTML) and U+2028 and U+2029 (safe inside
//! JavaScript). Since Go 1.22 it writes `\b` and `\f`; other control characters become `\u00xx` in
//! lower case. DEL and all other characters are not escaped.

/// Microseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000;

/// Appends `text` as a Go JSON string, quotes included.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

/// Appends `text` in escaped form, without quotes.
pub(crate) fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut clean_from = 0;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if !NEEDS_LOOK[usize::from(byte)] {
            at += 1;
            continue;
        }
        let (escaped, width): (&[u8], usize) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            0x08 => (b"\\b", 1),
            0x0c => (b"\\f", 1),
            b'<' => (b"\\u003c", 1),
            b'>' => (b"\\u003e", 1),
            b'&' => (b"\\u0026", 1),
            0xe2 => match bytes.get(at + 1..at + 3) {
                Some([0x80, 0xa8]) => (b"\\u2028", 3),
                Some([0x80, 0xa9]) => (b"\\u2029", 3),
                _ => {
                    at += 1;
                    continue;
                }
            },
            control => {
                out.extend_from_slice(&bytes[clean_from..at]);
                out.extend_from_slice(b"\\u00");
                out.push(b"0123456789abcdef"[usize::from(control >> 4)]);
                out.push(b"0123456789abcdef"[usize::from(control & 15)]);
                at += 1;
                clean_from = at;
                continue;
            }
        };
        out.extend_from_slice(&bytes[clean_from..at]);
        out.extend_from_slice(escaped);
        at += width;
        clean_from = at;
    }
    out.extend_from_slice(&bytes[clean_from..]);
}

/// Returns `text` in escaped form, for parts that are rendered once and reused.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    escape(&mut out, text);
    String::from_utf8(out).expect("escaping keeps UTF-8")
}

const NEEDS_LOOK: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xe2] = true;
    table
};

/// Appends a `MicroTime`, such as `2006-01-02T15:04:05.000000Z`, always with six decimals.
pub(crate) fn micro_time(out: &mut Vec<u8>, at_us: i64) {
    seconds(out, at_us.div_euclid(SECOND));
    let mut text = *b".000000Z";
    let mut rest = at_us.rem_euclid(SECOND) as u64;
    for digit in text[1..7].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text);
}

/// Appends a `Time` in whole seconds, such as `2006-01-02T15:04:05Z`.
pub(crate) fn time(out: &mut Vec<u8>, at_us: i64) {
    seconds(out, at_us.div_euclid(SECOND));
    out.push(b'Z');
}

/// Appends a time such as `2006-01-02T15:04:05`. The civil date is computed from the day number
/// with Howard Hinnant's algorithm.
fn seconds(out: &mut Vec<u8>, at: i64) {
    let (days, second) = (at.div_euclid(86_400), at.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);

    let mut text = *b"0000-00-00T00:00:00";
    two(&mut text, 0, year / 100);
    two(&mut text, 2, year % 100);
    two(&mut text, 5, month);
    two(&mut text, 8, day);
    two(&mut text, 11, second / 3_600);
    two(&mut text, 14, second / 60 % 60);
    two(&mut text, 17, second % 60);
    out.extend_from_slice(&text);
}

fn two(text: &mut [u8; 19], at: usize, value: i64) {
    text[at] = b'0' + (value / 10 % 10) as u8;
    text[at + 1] = b'0' + (value % 10) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(text: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn escapes_are_those_of_go() {
        assert_eq!(go("a<b>&c"), r#""a\u003cb\u003e\u0026c""#);
        assert_eq!(go("\"\\\n\r\t\u{8}\u{c}\u{1}\u{1f}"), r#""\"\\\n\r\t\b\f\u0001\u001f""#);
        assert_eq!(go("x\u{2028}y\u{2029}z\u{2027}"), "\"x\\u2028y\\u2029z\u{2027}\"");
        assert_eq!(go("Zoë \u{7f} 患者 🏥"), "\"Zoë \u{7f} 患者 🏥\"");
    }

    #[test]
    fn times_are_those_of_go() {
        let text = |at| {
            let mut out = Vec::new();
            micro_time(&mut out, at);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(text(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text(1_772_409_600_000_001), "2026-03-02T00:00:00.000001Z");
        assert_eq!(text(1_709_251_199_999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(text(951_868_799_000_000), "2000-02-29T23:59:59.000000Z");
    }
}
