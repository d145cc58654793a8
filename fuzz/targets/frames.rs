//! Gives streams of any bytes, in blocks of any size, to the framing, with and without a path to
//! the event.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use strongroom_fuzz::mutate;
use strongroom_fuzz::random::{Random, seed_of};
use strongroom_fuzz::streams::{self, Options};
use strongroom_lines::{EventPath, Reading, Writers};

/// The paths of sources: one that no wrapper has, some that a wrapper has too, and one in a list.
const PATHS: [&str; 4] = ["detail.audit", "json", "properties.log", "message"];
/// A first byte below this one is not text. Its bits choose the bounds and the path.
const OPTIONS_MAX: u8 = 0x20;

fuzz_target!(|data: &[u8]| {
    let (options, bytes) = match data {
        [first, rest @ ..] if *first < OPTIONS_MAX && *first != b'\n' => (*first, rest),
        _ => (0, data),
    };
    let path = (options & 4 != 0).then(|| PATHS[usize::from(options >> 3)]);
    let limits = Options::default();
    let options = Options {
        line_bytes_max: if options & 1 != 0 { 512 } else { limits.line_bytes_max },
        depth_max: if options & 2 != 0 { 5 } else { limits.depth_max },
        reading: Arc::new(Reading {
            unwrap: path.map(|path| EventPath::parse(path).expect("a path")),
            writers: Writers::SERVERS,
        }),
    };
    let mut random = Random(seed_of(data));
    streams::check(bytes, &options, &mut || {
        let size = 1_usize << random.below(12);
        1 + random.below(size)
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0 {
        mutate::audit(data, size, max_size, seed)
    } else {
        fuzzer_mutate(data, size, max_size)
    }
});
