//! Question: what does it cost to turn a line into columns, with byte-exactness checked, compared
//! with merely parsing it?
//!
//! Data: one block of the generated log (seed 1), some 52,000 events and 64 MiB of text.
//! `canonical` decodes it as it is. `general` decodes it with an added blank in each line.
//! kube-apiserver would not write this blank, so the line takes the general path and gets a form.
//! `in a string` decodes each line as a shipper writes it: as the text of a member, beside members
//! of the shipper. The peers get the lines of `canonical`. `plain` is the decoder that tests
//! compare ours with; it makes one struct per event, and no columns. `serde_json` builds a tree of
//! values and reads nothing from it.

use std::hint::black_box;
use std::sync::Arc;

use chrono::DateTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strongroom_decode::{Decoder, DecoderConfig};
use strongroom_generate::{Generator, GeneratorOptions};
use strongroom_lines::frame::{Edge, Origin};
use strongroom_lines::{Block, DEPTH_MAX, plain};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BLOCK_BYTES: usize = 64 << 20;

fn block(bytes: Vec<u8>) -> Block {
    Block {
        origin: Arc::new(Origin {
            partition: "bench/decode".to_owned(),
            cluster: "bench".to_owned(),
            reading: Arc::default(),
        }),
        offset: 0,
        first_line: 1,
        bytes,
        begins: Edge::Line,
        ends: Edge::Line,
        open_ended: false,
    }
}

fn decode(criterion: &mut Criterion) {
    let options = GeneratorOptions { events: 1_000_000, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options in bounds");
    let mut text = Vec::new();
    while text.len() < BLOCK_BYTES && generator.next_line(&mut text) {}
    let spaced: Vec<u8> = text
        .split_inclusive(|byte| *byte == b'\n')
        .flat_map(|line| [b"{ ".as_slice(), &line[1..]].concat())
        .collect();
    let mut in_strings = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = std::str::from_utf8(line).expect("the generator writes text");
        let message = serde_json::to_string(line).expect("a string");
        in_strings.extend_from_slice(format!("{{\"message\":{message},\"host\":\"cp-1\"}}\n").as_bytes());
    }
    let (canonical, spaced, in_strings) = (block(text), block(spaced), block(in_strings));
    let lines: Vec<&[u8]> =
        canonical.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let arrived = DateTime::from_timestamp(1_800_000_000, 0).expect("a time in 2027");

    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(canonical.bytes.len() as u64)).sample_size(20);
    for (name, block) in [("canonical", &canonical), ("general", &spaced), ("in a string", &in_strings)] {
        let mut decoder = Decoder::new(DecoderConfig::default());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let decoded = decoder.decode(black_box(block), arrived).expect("columns fit");
                assert_eq!(decoded.events.num_rows(), lines.len());
                decoded
            });
        });
    }
    group.bench_function("peer plain", |bencher| {
        bencher.iter(|| {
            for line in &lines {
                black_box(plain::decode(line, DEPTH_MAX).expect("the generator writes events"));
            }
        });
    });
    group.bench_function("peer serde_json", |bencher| {
        bencher.iter(|| {
            for line in &lines {
                black_box(serde_json::from_slice::<serde_json::Value>(line).expect("JSON"));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
