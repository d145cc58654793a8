//! Text as a request body: what rules see of it, compared with what the API server makes of it.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use strongroom_fuzz::{mutate, patches};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        patches::check(text);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 8 != 0 {
        mutate::patches(data, size, max_size, seed)
    } else {
        fuzzer_mutate(data, size, max_size)
    }
});
