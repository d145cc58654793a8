//! Decides from the beginning of a file whether it may be a log, if its name does not say so.
//!
//! Invariant: a file is passed over only if it is certainly not a log. A file that cannot be
//! opened, or is packed in a way that this program does not undo, may be a log: the reader then
//! refuses it with the reason. Nothing is kept here.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::{Input, formats, open};

/// Number of bytes of the text that are examined.
const LOOK_BYTES: usize = 256 << 10;
/// A text with more than one control character in this many bytes is binary.
const BYTES_PER_CONTROL: usize = 64;

/// What the beginning of a file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Records begin in the file, or it cannot be decided.
    MayBeLog,
    Empty,
    Binary,
    /// The file is text, without an object and without a line that begins with a time or a
    /// priority.
    NoRecord,
}

/// Examines the beginning of a regular file.
pub(super) fn look(path: &Path) -> Look {
    let Ok(opened) = open(&Input::File(path.to_owned()), &Arc::default(), &Arc::default()) else {
        return Look::MayBeLog;
    };
    let mut text = Vec::new();
    let read = opened.reader.take(LOOK_BYTES as u64).read_to_end(&mut text);
    if read.is_err() && text.is_empty() { Look::MayBeLog } else { of_text(&text) }
}

fn of_text(text: &[u8]) -> Look {
    if text.is_empty() {
        return Look::Empty;
    }
    if formats::of(text).is_some() {
        return Look::MayBeLog;
    }
    let start = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start();
    if start.starts_with(b"{") || start.starts_with(b"[") {
        return Look::MayBeLog;
    }
    let is_control = |byte: &&u8| byte.is_ascii_control() && !matches!(byte, b'\t'..=b'\r' | b'\x1b');
    if text.iter().filter(is_control).count() * BYTES_PER_CONTROL > text.len() {
        return Look::Binary;
    }
    let has_record = has_object(text) || text.split(|byte| *byte == b'\n').any(begins_like_a_record);
    if has_record { Look::MayBeLog } else { Look::NoRecord }
}

/// Whether an object with a member begins somewhere, perhaps in a string or in a cell of a table.
fn has_object(text: &[u8]) -> bool {
    memchr::memchr_iter(b'{', text).any(|at| {
        let next = text[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace() && **byte != b'\\');
        next == Some(&b'"')
    })
}

/// Beginnings of log lines that have their record later in the line: a time, as RFC 3339, RFC 3164
/// and klog write it, or the priority of syslog. In a pattern `0` is a digit, `_` a digit or a
/// space, and `A` a letter.
const BEGINNINGS: [&[u8]; 7] = [
    b"0000-00-00T00:00",
    b"0000-00-00 00:00",
    b"AAA _0 00:00:00",
    b"A0000 00:00:00",
    b"<0>",
    b"<00>",
    b"<000>",
];

fn begins_like_a_record(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    BEGINNINGS.iter().any(|beginning| {
        line.len() >= beginning.len()
            && beginning.iter().zip(line).all(|(wanted, byte)| match wanted {
                b'0' => byte.is_ascii_digit(),
                b'_' => *byte == b' ' || byte.is_ascii_digit(),
                b'A' => byte.is_ascii_alphabetic(),
                wanted => wanted == byte,
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_log_is_read() {
        for text in [
            "{",
            "[",
            "\u{feff}\n\n {\n  \"kind\"",
            "2026-03-02T09:14:05.120934Z {\"kind\":\"Event\"}\n",
            "2026-03-02T09:14:05.120934Z stdout F {\"kind\":\"Event\"}\n",
            "<134>Mar  2 09:14:05 host audit: text\n",
            "a banner\nMar  2 09:14:05 host audit: text\n",
            "I0302 10:00:00.000001       1 a.go:1] x\n",
            "kube.x\t{\"kind\":\"Event\"}\n",
            "time,message\n1,\"{\"\"kind\"\":\"\"Event\"\"}\"\n",
            "x: \"{\\\"kind\\\":\\\"Event\\\"}\"\n",
            "BZh91AY&SY",
            "PK\u{3}\u{4}",
        ] {
            assert_eq!(of_text(text.as_bytes()), Look::MayBeLog, "{text}");
        }
        let gelf = b"{\"version\":\"1.1\"}\0{\"version\":\"1.1\"}\0";
        assert_eq!(of_text(gelf), Look::MayBeLog);
    }

    #[test]
    fn what_is_certainly_no_log_is_known() {
        for text in [
            "not a log",
            "# Notes\n\nIn 2026 we saw { and } often.\n",
            "PRIVATE+KEY+x+1+AAAA\n",
            "#!/bin/sh\nfunction f() { echo; }\n",
            "-----BEGIN CERTIFICATE-----\nMIIB\n",
            "a,b\n1,2\n",
        ] {
            assert_eq!(of_text(text.as_bytes()), Look::NoRecord, "{text}");
        }
        assert_eq!(of_text(b""), Look::Empty);
        let random: Vec<u8> =
            (0..60_000_u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_be_bytes()).collect();
        assert_eq!(of_text(&random), Look::Binary);
        assert_eq!(of_text(b"\x7fELF\x02\x01\x01\0\0\0\0\0"), Look::Binary);
    }

    #[test]
    fn packed_text_is_looked_into() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |bytes: &[u8]| {
            let path = folder.path().join("000000.gz");
            std::fs::write(&path, bytes).expect("written");
            look(&path)
        };
        let packed = |text: &[u8]| zstd::encode_all(text, 1).expect("in memory");
        assert_eq!(file(&packed(b"{\"kind\":\"Event\"}\n")), Look::MayBeLog);
        assert_eq!(file(&packed(b"prose\n")), Look::NoRecord);
        // The file is cut short, which the reader will report.
        assert_eq!(file(&packed(b"prose\n")[..6]), Look::MayBeLog);
        assert_eq!(look(&folder.path().join("gone")), Look::MayBeLog);
    }
}
