//! Question: how much CPU time does sealing take for each event, and how many bytes of log can be
//! sealed per second? Two parts are timed separately: encoding, which a worker does for a block,
//! and writing and committing files, which the coordinator does.
//!
//! Data: one block of the generated log (seed 1), some 52,000 events and 64 MiB of text.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strongroom_archive::{Archive, Counts, Position, SourcePosition, encode};
use strongroom_decode::decode_bytes;
use strongroom_generate::{Generator, GeneratorOptions};
use strongroom_schemas::Table;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BLOCK_BYTES: usize = 64 << 20;
const PARTITION: &str = "file/bench";

fn arrived() -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_409_600 + 86_400, 0).expect("a time")
}

fn seal(criterion: &mut Criterion) {
    let options = GeneratorOptions { events: 1_000_000, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options in bounds");
    let mut text = Vec::new();
    while text.len() < BLOCK_BYTES && generator.next_line(&mut text) {}
    let events = decode_bytes(&text, "bench", PARTITION).expect("the generator writes events").events;
    let next_offset = text.len() as i64;

    let mut group = criterion.benchmark_group("seal");
    group.sample_size(20);
    for (name, throughput) in [
        ("bytes", Throughput::Bytes(text.len() as u64)),
        ("events", Throughput::Elements(events.num_rows() as u64)),
    ] {
        group.throughput(throughput);
        group.bench_function(format!("encode/{name}"), |bencher| {
            bencher.iter_batched(
                || events.clone(),
                |events| encode(Table::Events, events, arrived()).expect("encodes"),
                BatchSize::PerIteration,
            );
        });
    }
    group.throughput(Throughput::Elements(events.num_rows() as u64));
    group.bench_function("write and commit", |bencher| {
        bencher.iter_batched(
            || {
                let folder = tempfile::tempdir().expect("a folder");
                let archive =
                    Archive::open_or_create(folder.path().to_str().expect("text")).expect("an archive");
                let row_groups = encode(Table::Events, events.clone(), arrived()).expect("encodes");
                (folder, Arc::new(archive), row_groups)
            },
            |(folder, archive, row_groups)| {
                let mut writer = archive.writer().expect("the lock is free");
                for row_group in row_groups {
                    writer.append(row_group).expect("appends");
                }
                let position = Position {
                    next_offset,
                    records: events.num_rows() as i64,
                    prefix_blake3: [0; 16],
                    broker_offset: None,
                };
                let step = SourcePosition {
                    partition: PARTITION.to_owned(),
                    label: "bench".to_owned(),
                    position,
                    previous: None,
                };
                let report = writer.seal(&[step], Counts::default()).expect("seals");
                (folder, report)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, seal);
criterion_main!(benches);
