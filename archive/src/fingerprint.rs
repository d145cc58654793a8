//! Fingerprints of streams: hashes by which a run recognises that a source has the same content
//! before a position as an earlier run has stored.
//!
//! The position of a file contains the hash of all bytes before it. A run reads the file from its
//! start to compute that hash again. Streams of brokers and of the webhook cannot be read again
//! from their start: a broker deletes old messages, and the webhook's write-ahead log deletes old
//! segments. Their fingerprints form a *chain* instead. The fingerprint after a line is the first
//! half of the BLAKE3 hash over the fingerprint before the line and the line itself (with its
//! newline). So the fingerprint in a position is enough to continue the chain.
//!
//! Invariant: the fingerprint after a line depends only on the lines up to it, not on how the bytes
//! were cut into chunks. Nothing is stored here; the archive's positions contain the fingerprints.

/// First half of a BLAKE3 hash.
pub type Fingerprint = [u8; 16];

/// Returns the fingerprint of the bytes hashed so far.
pub fn fingerprint(hasher: &blake3::Hasher) -> Fingerprint {
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    half
}

/// Kinds of partitions whose fingerprint is a chain.
const CHAINED: [&str; 2] = ["kafka/", "webhook/"];

/// True if the fingerprints of a partition are a chain over its lines; false if a fingerprint is
/// the hash of all bytes.
pub fn is_chained(partition: &str) -> bool {
    CHAINED.iter().any(|kind| partition.starts_with(kind))
}

/// The chain of a stream over the bytes seen so far.
#[derive(Clone, Debug, Default)]
pub struct LineChain {
    value: Fingerprint,
    /// If the bytes so far end inside a line: the hasher of that line.
    open: Option<blake3::Hasher>,
}

impl LineChain {
    /// Continues the chain of a stream from `value`, the fingerprint after a whole line. A chain
    /// from the start of a stream is [`LineChain::default`].
    pub fn from(value: Fingerprint) -> Self {
        LineChain { value, open: None }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(newline) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(newline + 1);
            let mut hasher = self.hasher();
            hasher.update(line);
            self.value = fingerprint(&hasher);
            rest = after;
        }
        if !rest.is_empty() {
            let mut hasher = self.hasher();
            hasher.update(rest);
            self.open = Some(hasher);
        }
    }

    fn hasher(&mut self) -> blake3::Hasher {
        self.open.take().unwrap_or_else(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.value);
            hasher
        })
    }

    /// Returns the fingerprint after the last whole line; `None` inside a line.
    pub fn value(&self) -> Option<Fingerprint> {
        self.open.is_none().then_some(self.value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cuts_mean_nothing(lines in proptest::collection::vec("[a-z]{0,9}", 0..9), cut in 0_usize..90) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let cut = cut.min(text.len());
            let mut parts = LineChain::default();
            parts.update(&text.as_bytes()[..cut]);
            parts.update(&text.as_bytes()[cut..]);
            let mut one_by_one = LineChain::default();
            for line in &lines {
                one_by_one = LineChain::from(one_by_one.value().expect("whole lines"));
                one_by_one.update(format!("{line}\n").as_bytes());
            }
            prop_assert_eq!(parts.value(), one_by_one.value());
            prop_assert!(parts.value().is_some());
        }
    }

    #[test]
    fn a_line_that_is_added_or_lost_is_seen() {
        let value = |text: &str| {
            let mut chain = LineChain::default();
            chain.update(text.as_bytes());
            chain.value()
        };
        assert_ne!(value("a\nb\n"), value("a\nb\n\n"));
        assert_ne!(value("a\nb\n"), value("b\na\n"));
        assert_eq!(value("a\nb"), None);
    }
}
