//! Detectors: each finds values of one shape, such as an email address, wherever they are in a
//! body.
//!
//! A detector searches the content of a string, the text of a number, and the name of a member. It
//! treats an underscore as a letter and also as a separator, so it finds the number in
//! `ssn_123-45-6789`. It also decodes base64, at most twice: values of Secrets are encoded, and
//! tools often encode a value before they store it in a Secret.
//!
//! Invariant: the result of a detector depends on the value alone. No state.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use regex::bytes::Regex;

/// The names of the detectors.
pub const DETECTORS: [&str; 8] =
    ["aws-access-key", "email", "iban", "jwt", "payment-card", "private-key", "us-phone", "us-ssn"];

/// A value with more bytes than this is not decoded from base64.
const BASE64_BYTES_MAX: usize = 1 << 20;
/// A base64 text with fewer bytes than this is too short for the shape of any detector.
const BASE64_BYTES_MIN: usize = 8;
/// Maximum number of times that a value is decoded from base64.
const BASE64_LAYERS_MAX: usize = 2;

/// One shape of values.
#[derive(Debug)]
pub(crate) struct Detector {
    pub(crate) name: &'static str,
    pattern: LazyLock<Regex>,
    /// Checks a match of the pattern, for shapes whose pattern alone would match too much.
    check: fn(&[u8]) -> bool,
}

macro_rules! detectors {
    ($($name:literal, $pattern:literal, $check:expr;)*) => {
        static ALL: [Detector; DETECTORS.len()] = [$(Detector {
            name: $name,
            pattern: LazyLock::new(|| Regex::new($pattern).expect("a test compiles every pattern")),
            check: $check,
        },)*];
    };
}

// A text with underscores is searched a second time, with a space in place of each underscore. A
// token may contain underscores itself, so its pattern treats them as a boundary.
detectors! {
    "aws-access-key", r"(?-u)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", |_| true;
    "email", r"(?-u)[A-Za-z0-9._%+\x80-\xff-]+(?:@|%40)[A-Za-z0-9\x80-\xff-]+(?:\.[A-Za-z0-9\x80-\xff-]+)+", |_| true;
    "iban", r"(?-u)\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}\b", is_iban;
    "jwt", r"(?-u)(?:\b|_)eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*", |_| true;
    "payment-card", r"(?-u)\b[2-6](?:[ -]?[0-9]){12,18}\b", is_card;
    "private-key", r"(?-u)-----BEGIN [A-Z0-9 ]*PRIVATE KEY", |_| true;
    "us-phone", r"(?-u)(?:\+1[ .-]?)?(?:\([2-9][0-9]{2}\) ?|\b[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}\b", |_| true;
    "us-ssn", r"(?-u)\b[0-8][0-9]{2}[- ][0-9]{2}[- ][0-9]{4}\b", is_ssn;
}

/// Returns a detector by its name.
pub(crate) fn find(name: &str) -> Option<&'static Detector> {
    ALL.iter().find(|detector| detector.name == name)
}

impl Detector {
    fn finds(&self, text: &[u8]) -> bool {
        self.pattern.find_iter(text).any(|found| (self.check)(found.as_bytes()))
    }
}

/// Returns the label of the first detector that finds its shape in a text.
fn shape_in(detectors: &[(&'static Detector, u16)], text: &[u8]) -> Option<u16> {
    let find =
        |text: &[u8]| detectors.iter().find(|(detector, _)| detector.finds(text)).map(|(_, label)| *label);
    find(text).or_else(|| {
        memchr::memchr(b'_', text)?;
        let apart: Vec<u8> = text.iter().map(|byte| if *byte == b'_' { b' ' } else { *byte }).collect();
        find(&apart)
    })
}

/// Returns the label of the first detector that finds its shape in a text, or in what the text
/// decodes to if it is base64.
pub(crate) fn first_in(detectors: &[(&'static Detector, u16)], text: &[u8]) -> Option<u16> {
    if detectors.is_empty() {
        return None;
    }
    if let Some(label) = shape_in(detectors, text) {
        return Some(label);
    }
    let mut decoded = from_base64(text)?;
    for _ in 1..BASE64_LAYERS_MAX {
        if let Some(label) = shape_in(detectors, &decoded) {
            return Some(label);
        }
        decoded = from_base64(&decoded)?;
    }
    shape_in(detectors, &decoded)
}

/// Decodes a text if all of it is base64: in either alphabet, with or without padding and line
/// breaks.
pub(crate) fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
    if !(BASE64_BYTES_MIN..=BASE64_BYTES_MAX).contains(&text.len()) {
        return None;
    }
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=\r\n".contains(byte);
    if !text.iter().all(is_base64) {
        return None;
    }
    let lines: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    STANDARD.decode(&lines).or_else(|_| URL_SAFE.decode(&lines)).ok()
}

fn digits(text: &[u8]) -> impl DoubleEndedIterator<Item = u32> + '_ {
    text.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| u32::from(byte - b'0'))
}

/// Checks the digits of a payment card with Luhn's algorithm.
fn is_card(text: &[u8]) -> bool {
    let doubled = |(at, digit): (usize, u32)| match (at % 2, digit * 2) {
        (0, _) => digit,
        (_, twice) if twice > 9 => twice - 9,
        (_, twice) => twice,
    };
    digits(text).rev().enumerate().map(doubled).sum::<u32>() % 10 == 0
}

/// Checks an IBAN by ISO 13616: with the first four characters moved to the end, the remainder
/// modulo 97 is 1.
fn is_iban(text: &[u8]) -> bool {
    let letters: Vec<u8> = text.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    let Some((head, rest)) = letters.split_at_checked(4) else { return false };
    let rest = rest.iter().chain(head).fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte.to_ascii_uppercase() - b'A') + 10) % 97,
    });
    letters.len() >= 15 && rest == 1
}

/// Returns false for numbers that are never issued: those with the area 000 or 666, and those with
/// a part of zeros only.
fn is_ssn(text: &[u8]) -> bool {
    let parts: Vec<&[u8]> = text.split(|byte| matches!(byte, b'-' | b' ')).collect();
    !matches!(parts.as_slice(), [b"000" | b"666", ..] | [_, b"00", _] | [_, _, b"0000"])
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

    use super::*;

    #[test]
    fn every_name_is_a_detector() {
        assert_eq!(DETECTORS, ALL.each_ref().map(|detector| detector.name));
        ALL.iter().for_each(|detector| assert_eq!(first_in(&[(detector, 0)], b""), None));
    }

    #[test]
    fn an_underscore_is_a_separator() {
        for (name, text) in [
            ("us-ssn", "ssn_123-45-6789"),
            ("us-ssn", "123-45-6789_old"),
            ("us-ssn", "a_123_45_6789_b"),
            ("us-ssn", "000-12-3456_123-45-6789"),
            ("payment-card", "card_4111111111111111_visa"),
            ("iban", "to_DE89370400440532013000_now"),
            ("jwt", "token_eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2_n"),
            ("jwt", "token_eyJhbGc_OiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln"),
            ("aws-access-key", "key_AKIAIOSFODNN7EXAMPLE_1"),
            ("us-phone", "tel_415-555-2671_home"),
            ("email", "to_a@b.co_"),
            ("private-key", "_-----BEGIN PRIVATE KEY-----_"),
        ] {
            let detector = [(find(name).expect(name), 7)];
            assert_eq!(first_in(&detector, text.as_bytes()), Some(7), "{name} {text}");
            assert_eq!(first_in(&detector, STANDARD.encode(text).as_bytes()), Some(7), "{name} {text}");
        }
        for (name, text) in [("us-ssn", "1_1123-45-6789"), ("aws-access-key", "_xAKIAIOSFODNN7EXAMPLE")] {
            assert_eq!(first_in(&[(find(name).expect(name), 7)], text.as_bytes()), None, "{name} {text}");
        }
    }

    #[test]
    fn shapes_are_found() {
        for (name, hits, misses) in [
            (
                "email",
                &["a@b.co", "to: Jane.Doe+x@mail.example.org;", "a%40b.co", "é@exämple.org"][..],
                &["a@b", "@b.co", "user@"][..],
            ),
            (
                "us-ssn",
                &["123-45-6789", "ssn 123 45 6789."],
                &["000-12-3456", "666-12-3456", "123-00-4567", "923-45-6789", "1123-45-6789", "123456789"],
            ),
            (
                "payment-card",
                &["4111 1111 1111 1111", "4111111111111111", "x 5500-0000-0000-0004"],
                &["4111111111111112", "1234567890123", "41111111"],
            ),
            (
                "iban",
                &["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32"],
                &["DE89370400440532013001", "DE89"],
            ),
            (
                "jwt",
                &[
                    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln",
                    "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.",
                ],
                &["eyJhbGciOiJIUzI1NiJ9", "a.b.c"],
            ),
            (
                "private-key",
                &["-----BEGIN RSA PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----"],
                &["-----BEGIN CERTIFICATE-----"],
            ),
            ("aws-access-key", &["AKIAIOSFODNN7EXAMPLE"], &["AKIAIOSFODNN7", "xAKIAIOSFODNN7EXAMPLE"]),
            (
                "us-phone",
                &["(415) 555-2671", "415-555-2671", "+1 415.555.2671"],
                &["10.96.0.10", "115-555-2671", "4155552671"],
            ),
        ] {
            let detector = [(find(name).expect(name), 7)];
            let is_in = |text: &str| first_in(&detector, text.as_bytes()) == Some(7);
            for text in hits {
                assert!(is_in(text), "{name} {text}");
                let once = STANDARD.encode(text);
                assert!(is_in(&once), "{name} {text} in base64");
                assert!(is_in(&STANDARD.encode(&once)), "{name} {text} in base64 twice");
                if text.len() > 8 {
                    assert!(is_in(&STANDARD_NO_PAD.encode(text)), "{name} {text} unpadded");
                    assert!(is_in(&URL_SAFE.encode(text)), "{name} {text} URL-safe");
                }
            }
            for text in misses {
                assert!(!is_in(text), "{name} {text}");
            }
        }
    }
}
