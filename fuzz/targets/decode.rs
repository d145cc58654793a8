//! Gives blocks of bytes to both decoders, and checks the promises of [`blocks::check`].

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use strongroom_fuzz::{blocks, mutate};

fuzz_target!(|data: &[u8]| blocks::check(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // Half of the mutations know JSON and half do not, because each kind finds what the other
    // misses.
    if seed % 2 == 0 {
        mutate::audit(data, size, max_size, seed)
    } else {
        fuzzer_mutate(data, size, max_size)
    }
});
