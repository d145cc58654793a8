//! Streams in blocks of any size, and streams of clients that forge events.

use strongroom_generate::dialect::{self, Dialect};

use super::*;
use crate::streams::{self, Options, forgery};

fn cases(short: u32, long: u32) -> ProptestConfig {
    let is_long = std::env::var_os("STRONGROOM_LONG").is_some_and(|value| value == "1");
    ProptestConfig::with_cases(if is_long { long } else { short })
}

/// Takes numbers from `drawn`, and after its end zeros.
fn draws(drawn: &[u32]) -> impl FnMut(usize) -> usize {
    let mut rest = drawn.iter();
    move |bound| rest.next().map_or(0, |drawn| *drawn as usize % bound.max(1))
}

proptest! {
    #![proptest_config(cases(400, 100_000))]

    #[test]
    fn nothing_that_a_client_controls_is_an_event(drawn in prop::collection::vec(any::<u32>(), 40..400)) {
        forgery::check(&mut draws(&drawn));
    }
}

proptest! {
    #![proptest_config(cases(100, 10_000))]

    /// Events of a stream in any dialect, some of them mutated, in blocks of any size.
    #[test]
    fn rows_do_not_depend_on_blocks(
        dialects in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..40), 1..6),
        damage in prop::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 0..4),
        sizes in prop::collection::vec(1_usize..3_000, 1..8),
        long in any::<bool>(),
        unwrap in 0_usize..3,
    ) {
        thread_local!(static EVENTS: Vec<String> = lines(71, 40));
        let mut stream = Vec::new();
        for (dialect, event) in dialects {
            let event = EVENTS.with(|events| events[event].clone());
            dialect::render(&event, *dialect.get(&Dialect::ALL), &mut stream).expect("an event");
        }
        for (kind, at, byte) in damage {
            if !stream.is_empty() {
                stream = mutate(&stream, kind, at, byte);
            }
        }
        let path = [None, Some("json"), Some("properties.log")][unwrap];
        let options = Options {
            line_bytes_max: if long { 700 } else { LINE_BYTES_MAX },
            unwrap: path.map(|path| Arc::new(EventPath::parse(path).expect("a path"))),
            ..Options::default()
        };
        let mut sizes = sizes.into_iter().cycle();
        streams::check(&stream, &options, &mut || sizes.next().unwrap_or(1));
    }
}
