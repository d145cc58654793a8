//! Question: in which order, with which encodings and at which zstd level do sealed events take the
//! fewest bytes for the CPU time spent?
//!
//! Data: blocks of the generated log (`strongroom-generate`, seed 1, attacks planted), decoded as
//! an ingest decodes them. Each variant changes one choice of the layout that archives are written
//! with. Encoding runs on one thread. The time is that thread's CPU time in the fastest repetition.
//! Bytes are counted over column chunks and bloom filters: the whole file except its footer.
//!
//! Run: `cargo bench --bench layout [-- EVENTS]`. Results are kept in `benches/runs/`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use chrono::{DateTime, Utc};
use strongroom_archive::{Layout, RowOrder, encode_with};
use strongroom_decode::{Decoder, DecoderConfig};
use strongroom_generate::{Generator, GeneratorOptions};
use strongroom_lines::Block;
use strongroom_lines::frame::{Edge, Origin};
use strongroom_schemas::Table;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS_DEFAULT: u64 = 200_000;
const BLOCK_BYTES: usize = 64 << 20;
const REPETITIONS: usize = 3;

fn blocks(events: u64) -> Vec<RecordBatch> {
    let options = GeneratorOptions { events, attacks: true, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options in bounds");
    let origin = Arc::new(Origin {
        partition: format!("file/{}", "5a".repeat(32)),
        cluster: "bench".to_owned(),
        reading: Arc::default(),
    });
    let mut decoder = Decoder::new(DecoderConfig::default());
    let (mut offset, mut line) = (0, 1);
    let mut batches = Vec::new();
    let mut more = true;
    while more {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES + (1 << 20));
        let mut lines = 0;
        while bytes.len() < BLOCK_BYTES {
            more = generator.next_line(&mut bytes);
            if !more {
                break;
            }
            lines += 1;
        }
        let next = offset + bytes.len() as i64;
        let block = Block {
            origin: Arc::clone(&origin),
            offset,
            first_line: line,
            bytes,
            begins: Edge::Line,
            ends: Edge::Line,
            open_ended: false,
        };
        (offset, line) = (next, line + lines);
        batches.push(decoder.decode(&block, arrived()).expect("the generator writes events").events);
    }
    batches
}

fn arrived() -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_409_600 + 86_400, 0).expect("a time")
}

struct Outcome {
    time: Duration,
    bytes: u64,
    columns: BTreeMap<String, u64>,
}

fn measure(batches: &[RecordBatch], layout: &Layout) -> Outcome {
    let mut best: Option<Outcome> = None;
    for _ in 0..REPETITIONS {
        let mut outcome = Outcome { time: Duration::ZERO, bytes: 0, columns: BTreeMap::new() };
        for batch in batches {
            let started = cpu_time();
            let row_groups = encode_with(Table::Events, batch.clone(), arrived(), layout).expect("encodes");
            outcome.time += cpu_time() - started;
            for (column, bytes) in row_groups.iter().flat_map(|row_group| row_group.column_bytes()) {
                outcome.bytes += bytes;
                *outcome.columns.entry(column.to_owned()).or_default() += bytes;
            }
        }
        if best.as_ref().is_none_or(|best| outcome.time < best.time) {
            best = Some(outcome);
        }
    }
    best.expect("at least one repetition")
}

fn variants() -> Vec<(&'static str, Layout)> {
    let base = Layout::default();
    let by = |columns| Layout { row_order: RowOrder::By(columns), ..base };
    vec![
        ("as archives are written", base),
        ("rows in source order", Layout { row_order: RowOrder::Source, ..base }),
        ("every group forwards", Layout { turns: false, ..base }),
        ("by user_name", by(&["user_name"])),
        ("by user_name, resource, verb, namespace", by(&["user_name", "resource", "verb", "namespace"])),
        ("by user_name, request_uri", by(&["user_name", "request_uri"])),
        ("by resource, verb, user_name", by(&["resource", "verb", "user_name"])),
        ("by resource, verb, namespace, user_name", by(&["resource", "verb", "namespace", "user_name"])),
        (
            "by resource, verb, user_name, namespace, name",
            by(&["resource", "verb", "user_name", "namespace", "name"]),
        ),
        (
            "by resource, namespace, name, verb, user_name",
            by(&["resource", "namespace", "name", "verb", "user_name"]),
        ),
        ("by verb, resource, user_name, namespace", by(&["verb", "resource", "user_name", "namespace"])),
        ("by request_uri", by(&["request_uri"])),
        ("zstd 2", Layout { zstd_level: 2, ..base }),
        ("zstd 3", Layout { zstd_level: 3, ..base }),
        ("zstd 6", Layout { zstd_level: 6, ..base }),
        ("zstd 9", Layout { zstd_level: 9, ..base }),
        ("codes in as few bits as possible", Layout { byte_codes: false, ..base }),
        ("pages of 2,048 rows", Layout { page_rows: 2048, ..base }),
        ("pages of 4,096 rows", Layout { page_rows: 4096, ..base }),
        ("pages of 16,384 rows", Layout { page_rows: 16_384, ..base }),
        ("pages of 65,536 rows", Layout { page_rows: 65_536, ..base }),
        ("dictionaries whatever their size", Layout { rows_per_entry_min: 0, ..base }),
        ("dictionaries from 4 rows per value", Layout { rows_per_entry_min: 4, ..base }),
        ("dictionaries from 16 rows per value", Layout { rows_per_entry_min: 16, ..base }),
        ("no shared prefixes", Layout { shared_prefixes: false, ..base }),
        ("numbers as split bytes", Layout { deltas: false, ..base }),
        ("no bloom filters", Layout { bloom_filters: false, ..base }),
    ]
}

/// Returns the CPU time of this thread. Unlike the time of a clock, it does not include other work
/// of the machine.
fn cpu_time() -> Duration {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has the times of a thread");
    let nanos =
        text.split(' ').next().and_then(|field| field.parse().ok()).expect("the first field is CPU time");
    Duration::from_nanos(nanos)
}

fn main() {
    // Cargo passes --bench; a number is how many events to use.
    let events =
        std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(EVENTS_DEFAULT);
    let batches = blocks(events);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut out = std::io::stdout().lock();
    let mut print = |line: String| writeln!(out, "{line}").expect("stdout is open");
    print(format!("# {} at {}", env!("CARGO_PKG_VERSION"), Utc::now().format("%Y-%m-%dT%H:%M:%SZ")));
    print(format!("# {rows} rows in {} blocks", batches.len()));
    print(format!("{:>8} {:>8}  variant", "B/event", "ns/event"));
    let mut base = None;
    for (name, layout) in variants() {
        let outcome = measure(&batches, &layout);
        let per_row = |total: f64| total / rows as f64;
        print(format!(
            "{:8.2} {:8.0}  {name}",
            per_row(outcome.bytes as f64),
            per_row(outcome.time.as_nanos() as f64)
        ));
        base.get_or_insert(outcome);
    }
    print(String::new());
    print("B/event of each column, as archives are written".to_owned());
    let base = base.expect("there are variants");
    let mut columns: Vec<_> = base.columns.iter().collect();
    columns.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
    for (name, bytes) in columns {
        print(format!("{:8.3}  {name}", *bytes as f64 / rows as f64));
    }
}
