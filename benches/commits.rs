//! Question: how large are a volume's log, its checkpoints and its proofs, and how much slower do a
//! commit and an opening become as a volume grows?
//!
//! Data: signed seals of one small file each (10 events of the generated log), on a local disk.
//! There are 20,000 of them unless a number is given, which is what a writer that seals every five
//! minutes makes in ten weeks.
//!
//! Method: the time of each seal is measured, and at 10, 1,000, … commits the time to open the
//! archive and list its files. Seals sync files and folders, so the disk determines their time; for
//! each number of commits, the median of the last hundred seals is reported. Bytes are those of
//! `_delta_log` and `_tlog`. The table of costs is computed from these bytes. A commit and its
//! proof take the bytes that were measured. A checkpoint takes the measured bytes of one entry,
//! multiplied by the number of files that the volume has so far.
//!
//! Run: `cargo bench --bench commits [-- COMMITS]`.

#![expect(clippy::print_stdout, reason = "its answer goes to standard output")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use strongroom_archive::{
    Archive, CHECKPOINT_INTERVAL, Counts, Position, SourcePosition, VOLUME_COMMITS_MAX, encode,
};
use strongroom_decode::decode_bytes;
use strongroom_generate::{Generator, GeneratorOptions};
use strongroom_schemas::Table;
use strongroom_tlog::{PrivateKey, Signer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COMMITS_DEFAULT: u64 = 20_000;
const ROWS: usize = 10;
const PARTITION: &str = "kafka/audit/0";
/// Number of seals of which the median is taken.
const SAMPLE: usize = 100;
/// Number of seals in a year, with one every five minutes.
const SEALS_A_YEAR: f64 = 105_120.0;

fn arrived() -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_409_600 + 86_400, 0).expect("a time")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Returns the bytes of the files below `folder` whose path contains `part`.
fn bytes(folder: &Path, part: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.map(|entry| {
        let path = entry.expect("listed").path();
        let metadata = std::fs::symlink_metadata(&path).expect("a file of the archive");
        match metadata.is_dir() {
            true => bytes(&path, part),
            false if path.to_string_lossy().contains(part) => metadata.len(),
            false => 0,
        }
    });
    sizes.sum()
}

fn main() {
    let commits = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(COMMITS_DEFAULT);
    let mut generator = Generator::new(GeneratorOptions::default()).expect("options in bounds");
    let mut text = Vec::new();
    for _ in 0..ROWS {
        generator.next_line(&mut text);
    }
    let events = decode_bytes(&text, "bench", PARTITION).expect("the generator writes events").events;
    let folder = tempfile::tempdir().expect("a folder");
    let location = folder.path().join("archive");
    let signer = Signer::Key(PrivateKey::generate("bench").expect("a key"));
    let archive = Archive::open_or_create(location.to_str().expect("text"))
        .expect("an archive")
        .signed_by(Arc::new(signer));
    let mut writer = archive.writer().expect("the lock is free");
    let mut previous = None;
    let (mut times, mut counts): (Vec<Duration>, Vec<u64>) =
        (Vec::new(), vec![10, 100, 1_000, 8_000, 20_000]);
    counts.retain(|count| *count <= commits);
    println!(
        "commits  seal p50 ms  open p50 ms  _delta_log bytes  of them checkpoints  _tlog bytes    bytes/commit"
    );
    for number in 1..=commits {
        let next = number as i64 * text.len() as i64;
        let base = next - text.len() as i64;
        let offsets = arrow_array::Int64Array::from_iter_values((0..ROWS as i64).map(|row| base + row));
        let mut columns = events.columns().to_vec();
        columns[strongroom_schemas::events::index::SOURCE_OFFSET] = Arc::new(offsets);
        let rows = arrow_array::RecordBatch::try_new(events.schema(), columns).expect("the same schema");
        let position = Position {
            next_offset: next,
            records: number as i64 * ROWS as i64,
            prefix_blake3: *number.to_le_bytes().repeat(2).first_chunk().expect("sixteen bytes"),
            broker_offset: Some(number as i64),
        };
        let step =
            SourcePosition { partition: PARTITION.to_owned(), label: "bench".to_owned(), position, previous };
        let begin = Instant::now();
        for row_group in encode(Table::Events, rows, arrived()).expect("encodes") {
            writer.append(row_group).expect("appends");
        }
        let received = Counts { received: ROWS as u64, events: ROWS as u64, ..Counts::default() };
        let report = writer.seal(&[step], received).expect("seals");
        times.push(begin.elapsed());
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        previous = Some(position);
        if counts.contains(&number) {
            let opens = (0..5).map(|_| {
                let begin = Instant::now();
                let archive = Archive::open(location.to_str().expect("text")).expect("opens");
                let snapshot = archive.snapshot(Table::Events).expect("a snapshot");
                assert_eq!(snapshot.files.len() as u64, number);
                begin.elapsed()
            });
            let open = median(opens.collect());
            let seal = median(times[times.len().saturating_sub(SAMPLE)..].to_vec());
            let (log, tlog) = (bytes(&location, "/_delta_log/"), bytes(&location, "/_tlog/"));
            let checkpoints = bytes(&location, ".checkpoint.parquet");
            println!(
                "{number:>7}  {:>11.1}  {:>11.1}  {log:>16}  {checkpoints:>19}  {tlog:>11}  {:>14}",
                seal.as_secs_f64() * 1e3,
                open.as_secs_f64() * 1e3,
                (log + tlog) / number
            );
        }
    }
    drop(writer);
    costs(&location, commits);
}

/// Prints the table of costs, which is computed from the bytes of the archive at `location`.
fn costs(location: &Path, commits: u64) {
    let checkpoints = bytes(location, ".checkpoint.parquet") as f64;
    // A checkpoint is written after every interval, and names all files of the volume again.
    let (mut repeated, mut left) = (0.0, commits);
    while left > 0 {
        let volume = left.min(VOLUME_COMMITS_MAX);
        let full = volume / CHECKPOINT_INTERVAL;
        repeated += (1..=full).map(|count| (count * CHECKPOINT_INTERVAL) as f64).sum::<f64>();
        left -= volume;
    }
    let per_file = checkpoints / repeated.max(1.0);
    let commit = (bytes(location, "/_delta_log/") as f64 - checkpoints) / commits as f64;
    let proofs = bytes(location, "/_tlog/") as f64 / commits as f64;
    println!("\na file in a checkpoint {per_file:.0} bytes, a commit {commit:.0}, its proof {proofs:.0}");
    println!(
        "\nwriters  commits a year  volumes a year  GB a year    MB/seal of data for 1 %    events/s/writer (60 B)"
    );
    for writers in [1.0, 4.0, 16.0] {
        let all = writers * SEALS_A_YEAR;
        let volumes = (all / VOLUME_COMMITS_MAX as f64).ceil();
        let in_volume = all.min(VOLUME_COMMITS_MAX as f64);
        let each = commit + proofs + per_file * in_volume / (2.0 * CHECKPOINT_INTERVAL as f64);
        println!(
            "{writers:>7}  {all:>14.0}  {volumes:>14.0}  {:>9.2}  {:>25.2}  {:>24.0}",
            all * each / 1e9,
            each * 100.0 / 1e6,
            each * 100.0 / 60.0 / 300.0
        );
    }
}
