//! Generates random numbers that depend only on the seed, on every platform and in every later
//! version.
//!
//! Invariant: only integers are used. A library's generator may change between its versions, and
//! `f64` logarithms may differ between platforms. Either would silently change every log on which a
//! test or a bench was measured. The generator is Xoshiro256++ (Blackman and Vigna), seeded through
//! SplitMix64, which together take a dozen lines.

/// Text of a UUID.
pub(crate) type Uuid = [u8; 36];

pub(crate) struct Random {
    state: [u64; 4],
}

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut walk = seed;
        Random { state: std::array::from_fn(|_| split_mix(&mut walk)) }
    }

    pub fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Returns a number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Returns a number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Returns true in `percent` of 100 draws.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns one element of a slice that is not empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Returns a random (version 4) UUID.
    pub fn uuid(&mut self) -> Uuid {
        uuid_of(self.next(), self.next())
    }

    /// Returns `length` characters of the alphabet that Kubernetes uses for generated names. It has
    /// no vowels, so that no words appear.
    pub fn suffix(&mut self, length: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..length).map(|_| char::from(*self.pick(ALPHABET))).collect()
    }

    /// Returns `length` lower-case hexadecimal digits.
    pub fn hex(&mut self, length: usize) -> String {
        (0..length).map(|_| char::from(HEX[self.below(16) as usize])).collect()
    }
}

/// Returns the version 4 UUID that is made from two words.
pub(crate) fn uuid_of(high: u64, low: u64) -> Uuid {
    let high = (high & 0xffff_ffff_ffff_0fff) | 0x4000;
    let low = (low & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.to_be_bytes());
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

/// Returns a UUID that is a function of two numbers, for identities that must not depend on the
/// order of draws.
pub(crate) fn derived_uuid(identity: u64, period: u64) -> Uuid {
    let mut walk = identity ^ period.wrapping_mul(0xd6e8_feb8_6659_fd93);
    uuid_of(split_mix(&mut walk), split_mix(&mut walk))
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn split_mix(walk: &mut u64) -> u64 {
    *walk = walk.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *walk;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_fixed() {
        let mut random = Random::new(0);
        // The first output of xoshiro256++ over the SplitMix64 expansion of zero, which other
        // implementations also give.
        assert_eq!(random.next(), 5_987_356_902_031_041_503);
        assert_eq!(random.next(), 7_051_070_477_665_621_255);
    }

    #[test]
    fn bounds_hold() {
        let mut random = Random::new(3);
        assert_eq!(random.below(0), 0);
        for _ in 0..10_000 {
            assert!(random.below(7) < 7);
            assert!((5..=9).contains(&random.between(5, 9)));
        }
    }

    #[test]
    fn uuids_are_version_4() {
        let mut random = Random::new(1);
        for _ in 0..100 {
            let text = String::from_utf8(random.uuid().to_vec()).expect("ASCII");
            assert_eq!(text.len(), 36);
            assert_eq!(&text[14..15], "4");
            assert!("89ab".contains(&text[19..20]), "{text}");
        }
    }
}
