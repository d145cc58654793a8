//! The hash of a record, which ingest computes and the archive proves.
//!
//! Invariant: [`leaf_hash`] is the leaf hash of RFC 6962, section 2.1: SHA-256 of a zero byte
//! followed by the record. The hash of a record that was redacted also covers its mark, so that the
//! mark can be neither changed nor left out in a proof. Both hashes are part of the format. No
//! state.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A SHA-256 hash, displayed as hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256Hash(pub [u8; 32]);

impl fmt::Display for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Sha256Hash {
    /// Returns the plain hash of `bytes`, such as a file's content. For a leaf, use [`leaf_hash`].
    pub fn of(bytes: &[u8]) -> Sha256Hash {
        Sha256Hash(Sha256::digest(bytes).into())
    }

    /// Parses 64 lower-case hex digits, the format of `Display`; `None` for any other text.
    pub fn parse(text: &str) -> Option<Sha256Hash> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Sha256Hash(hash))
    }
}

/// Returns the hash of a leaf, which is a record or a commit.
pub fn leaf_hash(leaf: &[u8]) -> Sha256Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(leaf);
    Sha256Hash(hasher.finalize().into())
}

/// Returns the leaf hash of a record that was redacted before it was written: SHA-256 of a byte 2,
/// its mark, a newline, and the record. These bytes cannot be confused with others: a mark has no
/// newline, and the byte 2 begins neither another kind of leaf nor a node of a tree.
pub fn redacted_leaf_hash(mark: &str, record: &[u8]) -> Sha256Hash {
    let mut hasher = Sha256::new();
    hasher.update([2]);
    hasher.update(mark);
    hasher.update(b"\n");
    hasher.update(record);
    Sha256Hash(hasher.finalize().into())
}

/// Returns the leaf hash of a record, with the mark of its row if it was redacted.
pub fn record_hash(mark: Option<&str>, record: &[u8]) -> Sha256Hash {
    mark.map_or_else(|| leaf_hash(record), |mark| redacted_leaf_hash(mark, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_in_the_hash_of_its_record() {
        let record = b"{\"auditID\":\"a\"}";
        // printf '\002mark\n{"auditID":"a"}' | sha256sum
        let expected = "b5c76837c9beb59a658e4c7fb157226463a3b50bd7a191baab67d7f47e77983b";
        let marked = redacted_leaf_hash("mark", record);
        assert_eq!(marked.to_string(), expected);
        assert_eq!(record_hash(Some("mark"), record), marked);
        assert_eq!(record_hash(None, record), leaf_hash(record));
        assert_ne!(marked, leaf_hash(record));
        assert_ne!(marked, redacted_leaf_hash("Mark", record));
        assert_ne!(marked, leaf_hash(b"mark\n{\"auditID\":\"a\"}"));
    }
}
