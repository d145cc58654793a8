//! Generates streams with events of a hostile client in every dialect. The input is not such a
//! stream; it serves as the random numbers from which a stream is generated.

#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom_fuzz::random::{Random, seed_of};
use strongroom_fuzz::streams::forgery;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    // These numbers are used after the end of the input, so that a short input gives an event too.
    let mut random = Random(seed_of(data));
    forgery::check(&mut |bound| {
        let bytes = if bound <= 256 { 1 } else { 3 };
        match rest.split_at_checked(bytes) {
            Some((drawn, after)) => {
                rest = after;
                drawn.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)) % bound
            }
            None => random.below(bound),
        }
    });
});
