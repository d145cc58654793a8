//! What do all built-in rules cost per event?
//!
//! The data is one decoded block of 131,072 generated events (seed 7, attacks planted, bodies and
//! all stages included), the size that ingest hands to a worker. `match` measures the worker's
//! part: excluding rules by the values of a few columns, evaluating conditions, parsing bodies, and
//! copying what the detector needs. `match and observe` adds the serial part, with a new detector
//! each time. `match small` has the same events in blocks of 1,024, as they come from a slow
//! stream; it shows the fixed cost of a block. Each run parses the bodies again; the rules are
//! compiled once.

use std::hint::black_box;
use std::sync::Arc;

use arrow_array::RecordBatch;
use chrono::DateTime;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strongroom_alerts::{Detector, DetectorConfig, Matcher, RuleSet};
use strongroom_decode::{Decoder, DecoderConfig};
use strongroom_generate::{Generator, GeneratorOptions};
use strongroom_lines::Block;
use strongroom_lines::frame::{Edge, Origin};

const EVENTS: u64 = 131_072;
const SEED: u64 = 7;
const SMALL_ROWS: usize = 1024;

fn log() -> Vec<Vec<u8>> {
    let options =
        GeneratorOptions { seed: SEED, events: EVENTS, attacks: true, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options within bounds");
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if !generator.next_line(&mut line) {
            return lines;
        }
        lines.push(line);
    }
}

fn block(lines: &[Vec<u8>]) -> RecordBatch {
    let block = Block {
        origin: Arc::new(Origin {
            partition: "bench/match".to_owned(),
            cluster: "bench".to_owned(),
            reading: Arc::default(),
        }),
        offset: 0,
        first_line: 1,
        bytes: lines.concat(),
        begins: Edge::Line,
        ends: Edge::Line,
        open_ended: false,
    };
    let arrived = DateTime::from_timestamp(1_800_000_000, 0).expect("a time in 2027");
    let decoded = Decoder::new(DecoderConfig::default()).decode(&block, arrived).expect("columns fit");
    assert_eq!(decoded.events.num_rows(), lines.len());
    decoded.events
}

fn matching(criterion: &mut Criterion) {
    let rules = Arc::new(RuleSet::builtin().expect("built-in rules load"));
    let lines = log();
    let batch = block(&lines);
    let mut group = criterion.benchmark_group(format!("{} rules", rules.rules().len()));
    group.throughput(Throughput::Elements(EVENTS)).sample_size(20);

    let mut matcher = Matcher::new(Arc::clone(&rules));
    group.bench_function("match", |bencher| {
        bencher.iter(|| matcher.match_batch(black_box(&batch)).expect("a batch of events"));
    });
    group.bench_function("match and observe", |bencher| {
        bencher.iter_batched(
            || Detector::new(Arc::clone(&rules), DetectorConfig::default()),
            |mut detector| {
                let matches = matcher.match_batch(black_box(&batch)).expect("a batch of events");
                detector.observe(matches).len()
            },
            BatchSize::PerIteration,
        );
    });
    let small: Vec<RecordBatch> = lines.chunks(SMALL_ROWS).map(block).collect();
    group.bench_function("match small", |bencher| {
        bencher.iter(|| {
            for batch in &small {
                black_box(matcher.match_batch(batch).expect("a batch of events"));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, matching);
criterion_main!(benches);
