//! Question: what share of an ingest's CPU time do all proofs take, how many bytes do they add to
//! an event, and how fast is `verify` compared with the ingest of the same data?
//!
//! Data: the generated log (seed 1, attacks planted), 300,000 events unless a number is given,
//! ingested with a key and all rules by the real binary.
//!
//! Method: CPU time of whole processes as Linux accounts it to ended children, on as many threads
//! as the machine has cores. Each round ingests, verifies every row, and signs an unsigned copy of
//! the archive, which gives the cost of the log alone. The hashing of records and files cannot be
//! turned off. To know what it costs, this process hashes the same bytes in the same round: each
//! record as a leaf, the nodes above the leaves, and the sealed files. Shares are computed for each
//! round, and their median is reported.
//!
//! Run: `cargo bench --bench proofs [-- EVENTS]`.

#![expect(clippy::print_stdout, reason = "its answer goes to standard output")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use strongroom_generate::{Generator, GeneratorOptions};
use strongroom_schemas::record::leaf_hash;

const EVENTS_DEFAULT: u64 = 300_000;
const ROUNDS: usize = 5;

/// Clock ticks a second in `/proc/<pid>/stat`: `USER_HZ`, which is 100 wherever Linux runs.
const TICKS: f64 = 100.0;

/// Returns the CPU time of the child processes that have ended.
fn children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has the times of a process");
    // The name (field 2) is in parentheses and may contain spaces, so fields are counted after it:
    // the state is field 3, `cutime` is 16 and `cstime` is 17.
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().expect("a number");
    (ticks(16) + ticks(17)) / TICKS
}

/// Returns the CPU time of this thread.
fn own() -> f64 {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has the times of a thread");
    let nanos =
        text.split(' ').next().and_then(|field| field.parse().ok()).expect("the first field is CPU time");
    Duration::from_nanos(nanos).as_secs_f64()
}

fn timed(clock: fn() -> f64, work: impl FnOnce()) -> f64 {
    let before = clock();
    work();
    clock() - before
}

fn strongroom() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STRONGROOM_"))
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ingest(archive: &Path, log: &Path) -> Command {
    let mut command = strongroom();
    command.args(["ingest", "--quiet", "--cluster", "bench", "--print-alerts", "critical", "--archive"]);
    command.arg(archive).arg(log);
    command
}

fn files_below(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files_below(&path, all),
            false => all.push(path),
        }
    }
}

/// Returns the bytes that proofs add: those in the tags of files, and those in the log.
fn proof_bytes(archive: &Path, files: &[PathBuf]) -> (u64, u64) {
    let (mut tags, mut log) = (0, 0);
    for path in files {
        let below =
            path.strip_prefix(archive).expect("the file is below the archive").to_string_lossy().into_owned();
        let bytes = std::fs::read(path).expect("readable");
        if below.contains("/_tlog/") || below.starts_with("_keys/") {
            log += bytes.len() as u64;
        } else if below.contains("/_delta_log/") && below.ends_with(".json") {
            let lines = bytes
                .split(|byte| *byte == b'\n')
                .filter_map(|line| serde_json::from_slice::<Value>(line).ok());
            let added = lines.filter_map(|line| Some(line.get("add")?.get("tags")?.to_string().len() as u64));
            tags += added.sum::<u64>();
        }
    }
    (tags, log)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // Cargo passes --bench; a number is how many events to use.
    let events =
        std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(EVENTS_DEFAULT);
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let options = GeneratorOptions { events, attacks: true, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options in bounds");
    let (mut text, mut lines) = (Vec::new(), 0u64);
    while generator.next_line(&mut text) {
        lines += 1;
    }
    std::fs::write(at("audit.log"), &text).expect("room on the disk");
    let records: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|record| !record.is_empty()).collect();
    run(strongroom().args(["key", "new"]).arg(at("key")));
    let megabytes = text.len() as f64 / 1e6;
    println!("# {lines} events, {megabytes:.0} MB; seconds of CPU time");
    println!("{:>8} {:>8} {:>8} {:>8} {:>8} {:>8}", "ingest", "verify", "leaves", "nodes", "files", "log");

    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let (signed, unsigned) = (at(&format!("signed-{round}")), at(&format!("unsigned-{round}")));
        let ingested = timed(children, || run(ingest(&signed, &at("audit.log")).arg("--key").arg(at("key"))));
        let verified =
            timed(children, || run(strongroom().args(["verify", "--quiet", "--archive"]).arg(&signed)));
        run(&mut ingest(&unsigned, &at("audit.log")));
        let nothing = timed(children, || run(strongroom().args(["key", "show", "--key"]).arg(at("key"))));
        let log = timed(children, || {
            run(strongroom().args(["sign-log", "--archive"]).arg(&unsigned).arg("--key").arg(at("key")))
        });
        let mut hashes = Vec::with_capacity(lines as usize);
        let leaves = timed(own, || hashes.extend(records.iter().copied().map(leaf_hash)));
        let nodes = timed(own, || {
            // A tree of n leaves has n - 1 nodes, of 65 bytes each.
            let mut node = [1; 65];
            for hash in &hashes {
                node[1..33].copy_from_slice(&hash.0);
                let above = Sha256::digest(node);
                node[33..].copy_from_slice(&above);
            }
            assert_ne!(node[33..], [1; 32]);
        });
        let mut all = Vec::new();
        files_below(&signed, &mut all);
        let sealed: Vec<Vec<u8>> = all
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
            .map(|path| std::fs::read(path).expect("readable"))
            .collect();
        let files =
            timed(own, || sealed.iter().for_each(|bytes| assert_ne!(Sha256::digest(bytes)[..], [0; 32])));
        // The first round fills the caches and is not counted.
        if round > 0 {
            println!(
                "{ingested:8.2} {verified:8.2} {leaves:8.2} {nodes:8.2} {files:8.2} {:8.2}",
                log - nothing
            );
            rounds.push([ingested, verified, leaves, nodes, files, (log - nothing).max(0.0)]);
        }
        if round == ROUNDS {
            let (tags, log) = proof_bytes(&signed, &all);
            println!(
                "bytes per event: {:.4} in tags of files, {:.4} in the log",
                tags as f64 / lines as f64,
                log as f64 / lines as f64
            );
        }
        for archive in [signed, unsigned] {
            std::fs::remove_dir_all(archive).expect("removed");
        }
    }
    let of = |share: fn(&[f64; 6]) -> f64| median(rounds.iter().map(share).collect());
    println!(
        "proofs: {:.1} % of the CPU time of ingest",
        100.0 * of(|round| round[2..].iter().sum::<f64>() / round[0])
    );
    println!(
        "verify: {:.2} times the speed of ingest per core ({:.0} beside {:.0} MB/s)",
        of(|round| round[0] / round[1]),
        megabytes / of(|round| round[1]),
        megabytes / of(|round| round[0])
    );
}
