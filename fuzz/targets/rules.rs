//! Loads text as a rule file. Rules that load are matched against events, and nothing may panic.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use arrow_array::RecordBatch;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use strongroom_alerts::{Detector, DetectorConfig, Matcher, RuleSet};
use strongroom_decode::decode_bytes;
use strongroom_fuzz::mutate;

/// Events with bodies, denials, an exec and an impersonation, so that most fields have values.
const EVENTS: &[u8] = include_bytes!("../corpus/events.ndjson");

thread_local! {
    static BATCH: RefCell<RecordBatch> = RefCell::new(
        decode_bytes(EVENTS, "c", "file/f").expect("the decoder assembles its columns").events,
    );
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let rules = match RuleSet::from_yaml("fuzz.yml", text) {
        Ok(rules) => Arc::new(rules),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mut matcher = Matcher::new(Arc::clone(&rules));
    let mut detector = Detector::new(Arc::clone(&rules), DetectorConfig::default());
    BATCH.with_borrow(|batch| {
        let matches = matcher.match_batch(batch).expect("a batch of events");
        let again = matcher.match_batch(batch).expect("a batch of events");
        assert!(matches.matched().eq(again.matched()), "a matcher carries state from batch to batch");
        for alert in detector.observe(matches) {
            assert!(rules.rules().iter().any(|rule| rule.id == alert.rule_id), "an alert of no rule");
        }
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0 {
        mutate::rules(data, size, max_size, seed)
    } else {
        fuzzer_mutate(data, size, max_size)
    }
});
