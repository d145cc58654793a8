//! Fingerprints of streams.
//!
//! A file's position carries the hash of all bytes before it, which a run computes again by reading
//! the file. A broker drops old messages and a write-ahead log old segments, so their streams have
//! a *chain* instead: the fingerprint of each line is the first half of the BLAKE3 hash of the
//! fingerprint before it and the line, newline included. A position's fingerprint is enough to
//! continue a chain.
//!
//! Invariant: the value after a line depends on the lines alone, not on how they were cut into
//! chunks. Nothing is kept here; the archive's positions carry the values.

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

/// Whether the fingerprints of a partition are a chain over its lines.
pub fn is_chained(partition: &str) -> bool {
    CHAINED.iter().any(|kind| partition.starts_with(kind))
}

/// The chain of a stream, up to the bytes seen so far.
#[derive(Clone, Debug, Default)]
pub struct LineChain {
    value: Fingerprint,
    /// The hash of an unfinished line.
    open: Option<blake3::Hasher>,
}

impl LineChain {
    /// Continues after a whole line; the default is the start of a stream.
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

    /// The fingerprint after the last whole line; `None` inside a line.
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
