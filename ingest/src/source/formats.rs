//! Recognises files that must be converted before they can be read: unsupported compressions,
//! archives and encodings.
//!
//! Invariant: only the first bytes of a stream count, and no line of an audit log begins with them.
//! So nothing that a client sends can make a file unreadable. Nothing is kept here.

/// How the bytes of a file are packed or encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The name of the format.
    pub name: &'static str,
    /// How to convert the file to text.
    pub remedy: &'static str,
}

const UTF_16: Format = Format {
    name: "UTF-16",
    remedy: "convert it first: iconv -f UTF-16 -t UTF-8 FILE | strongroom ingest … -",
};
const UTF_32: Format = Format {
    name: "UTF-32",
    remedy: "convert it first: iconv -f UTF-32 -t UTF-8 FILE | strongroom ingest … -",
};
const BZIP2: Format =
    Format { name: "bzip2", remedy: "decompress it first: bzip2 -dc FILE | strongroom ingest … -" };
const XZ: Format =
    Format { name: "xz", remedy: "decompress it first: xz -dc FILE | strongroom ingest … -" };
const LZ4: Format =
    Format { name: "LZ4", remedy: "decompress it first: lz4 -dc FILE | strongroom ingest … -" };
const SNAPPY: Format =
    Format { name: "framed Snappy", remedy: "decompress it first, for example with snzip -dc" };
const ZIP: Format = Format { name: "ZIP", remedy: "unpack it first, and ingest the files in it" };
const TAR: Format =
    Format { name: "tar", remedy: "unpack it first (tar -xf FILE), and ingest the files in it" };
const TWICE: Format =
    Format { name: "gzip or zstd, twice", remedy: "decompress it once, and ingest what is in it" };

const PARQUET: Format = Format {
    name: "Parquet",
    remedy: "write its rows as JSON lines first, for example with duckdb: COPY (FROM 'FILE') TO 'FILE.jsonl'",
};
const AVRO: Format = Format {
    name: "Avro, as the capture of Event Hubs writes it",
    remedy: "write the field Body of its records as lines first, for example with avro-tools tojson FILE | jq -r '.Body.bytes'",
};
const JOURNAL: Format = Format {
    name: "a journal of systemd",
    remedy: "write it as text first: journalctl --file FILE --all -o json | strongroom ingest … -",
};
const OUTBOX: Format = Format {
    name: "a part of an outbox or of a write-ahead log of Strongroom",
    remedy: "leave it where it is: strongroom run reads it",
};

/// The first bytes of each format. If an entry begins with another one, the longer one comes first.
const MAGIC: [(&[u8], Format); 21] = [
    (b"\xff\xfe\0\0", UTF_32),
    (b"\0\0\xfe\xff", UTF_32),
    (b"\xff\xfe", UTF_16),
    (b"\xfe\xff", UTF_16),
    // The start of an object or an array, without a byte order mark.
    (b"{\0\"\0", UTF_16),
    (b"\0{\0\"", UTF_16),
    (b"[\0{\0", UTF_16),
    (b"\0[\0{", UTF_16),
    (b"\xfd7zXZ\0", XZ),
    (b"\x04\x22\x4d\x18", LZ4),
    (b"\xff\x06\0\0sNaPpY", SNAPPY),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"PK\x07\x08", ZIP),
    (b"\x1f\x8b\x08", TWICE),
    (b"\x28\xb5\x2f\xfd", TWICE),
    (b"PAR1", PARQUET),
    (b"Obj\x01", AVRO),
    (b"LPKSHHRH", JOURNAL),
    (b"SROUTBX\x01", OUTBOX),
    (b"\nSRWAL\0", OUTBOX),
];
/// The bytes that follow `BZh` and the level.
const BZIP2_BLOCKS: [&[u8]; 2] = [b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90"];
/// The offset of `ustar` in the header of a tar archive.
const USTAR_AT: usize = 257;

/// Returns the format of a stream that begins with `bytes`, after gzip and zstd were undone; `None`
/// for text.
pub(super) fn of(bytes: &[u8]) -> Option<Format> {
    let begins = |(magic, _): &&(&[u8], Format)| bytes.starts_with(magic);
    if let Some((_, format)) = MAGIC.iter().find(begins) {
        return Some(*format);
    }
    let is_bzip2 = bytes.strip_prefix(b"BZh").is_some_and(|rest| {
        rest.first().is_some_and(|level| matches!(level, b'1'..=b'9'))
            && BZIP2_BLOCKS.iter().any(|block| rest[1..].starts_with(block))
    });
    if is_bzip2 {
        return Some(BZIP2);
    }
    // A header begins with a name, and has NUL bytes after it.
    let is_tar = bytes.get(USTAR_AT..).is_some_and(|rest| rest.starts_with(b"ustar"))
        && bytes[..USTAR_AT].contains(&0)
        && !bytes.starts_with(b"{");
    is_tar.then_some(TAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        let utf_16 = |mark: &[u8], is_big: bool| -> Vec<u8> {
            let text = "{\"kind\":\"Event\"}\n".encode_utf16();
            let bytes = text.flat_map(|unit| if is_big { unit.to_be_bytes() } else { unit.to_le_bytes() });
            mark.iter().copied().chain(bytes).collect()
        };
        let mut tar = vec![0; 1024];
        tar[..9].copy_from_slice(b"audit.log");
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, name) in [
            (utf_16(b"\xff\xfe", false), "UTF-16"),
            (utf_16(b"\xfe\xff", true), "UTF-16"),
            (utf_16(b"", false), "UTF-16"),
            (utf_16(b"", true), "UTF-16"),
            (b"\xff\xfe\0\0{\0\0\0".to_vec(), "UTF-32"),
            (b"BZh91AY&SY\0".to_vec(), "bzip2"),
            (b"\xfd7zXZ\0\0".to_vec(), "xz"),
            (b"\x04\x22\x4d\x18d".to_vec(), "LZ4"),
            (b"\xff\x06\0\0sNaPpY\0".to_vec(), "framed Snappy"),
            (b"PK\x03\x04\x14".to_vec(), "ZIP"),
            (tar, "tar"),
            (b"\x1f\x8b\x08\0".to_vec(), "gzip or zstd, twice"),
            (b"PAR1\x15\x04".to_vec(), "Parquet"),
            (b"Obj\x01\x04".to_vec(), "Avro, as the capture of Event Hubs writes it"),
            (b"LPKSHHRH\0".to_vec(), "a journal of systemd"),
            (b"\nSRWAL\0\x01".to_vec(), "a part of an outbox or of a write-ahead log of Strongroom"),
        ] {
            assert_eq!(of(&bytes).map(|format| format.name), Some(name));
        }
        for text in [
            "",
            "{",
            "{\"kind\":\"Event\"}",
            "BZh9 is a text",
            "BZh",
            "PK",
            "\u{feff}{",
            "\0\0\0\0{\"a\":1}",
            "I0302 10:00:00.000001       1 a.go:1] x",
        ] {
            assert_eq!(of(text.as_bytes()), None, "{text}");
        }
        let long = format!("{{\"a\":\"{}ustar\"}}", "x".repeat(251));
        assert_eq!(&long[257..262], "ustar");
        assert_eq!(of(long.as_bytes()), None);
    }
}
