//! Changed inputs for what reads bytes from outside: none ends in a panic or takes long, and what is
//! accepted is what an honest writer made.
//!
//! Method: each input is one of a corpus (`tests/data/mutants`, and the parts of
//! `tests/data/format-1`), changed in one to three places. The changes follow from a number, so an
//! input can be made again; one that breaks a promise is written to the temporary folder, and the
//! message names it. The number of inputs is fixed. With `--long` each target gets ten minutes of one
//! core.
//!
//! `fuzz/` tries the decoders, the rules and request bodies with the guidance of coverage. What is
//! tried here stands on Parquet, SQL, TLS or cryptography, whose instrumented build would cost more
//! than the guidance gives.

mod log;
#[expect(dead_code, reason = "the fuzz targets use all of it")]
#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;
#[expect(dead_code, reason = "the fuzz targets use all of it")]
#[path = "../../../fuzz/src/random.rs"]
mod random;
mod signed;
mod text;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use self::random::Random;
use crate::run::{expect_code, is_long};

/// How long each target is tried with `--long`.
const LONG: Duration = Duration::from_secs(600);
/// How long one input may take, on a machine that is busy with other tests.
const INPUT_MAX: Duration = Duration::from_secs(20);
/// How many times an input is changed.
const CHANGES_MAX: usize = 3;
/// How much longer than its original an input may become.
const GROWTH_MAX: usize = 1 << 12;
/// Bytes that readers of binary formats are known to trip over.
const ODD_BYTES: [u8; 8] = [0, 1, 0x1f, 0x7f, 0x80, 0x81, 0xfe, 0xff];

/// How inputs are changed.
#[derive(Clone, Copy)]
enum Changes {
    /// Token by token, with these words.
    Words(&'static [&'static str]),
    /// Byte by byte.
    Bytes,
}

/// Checks `inputs` changed inputs.
#[expect(clippy::print_stdout, reason = "the number of inputs is a part of the answer")]
fn try_all(
    target: &str,
    inputs: u64,
    corpus: &[Vec<u8>],
    changes: Changes,
    check: &mut dyn FnMut(&[u8], usize),
) {
    let begun = Instant::now();
    let (mut tried, mut slowest) = (0, Duration::ZERO);
    while if is_long() { begun.elapsed() < LONG } else { tried < inputs } {
        let mut random = Random(tried);
        let seed = random.below(corpus.len());
        let mut input = corpus[seed].clone();
        // The unchanged corpus comes first.
        if let Ok(at) = usize::try_from(tried)
            && at < corpus.len()
        {
            input.clone_from(&corpus[at]);
            run(target, tried, &input, at, check);
            tried += 1;
            continue;
        }
        for _ in 0..=random.below(CHANGES_MAX) {
            change(&mut input, corpus, changes, &mut random);
        }
        let taken = run(target, tried, &input, seed, check);
        slowest = slowest.max(taken);
        tried += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "mutants: {target}: {tried} inputs in {seconds:.1} s, the slowest took {} ms",
        slowest.as_millis()
    );
}

/// Checks one input, and returns how long that took.
#[expect(clippy::print_stderr, reason = "a panic on another thread says nothing of its input")]
fn run(
    target: &str,
    number: u64,
    input: &[u8],
    seed: usize,
    check: &mut dyn FnMut(&[u8], usize),
) -> Duration {
    let kept = || {
        let path = std::env::temp_dir().join(format!("strongroom-mutant-{target}-{number}"));
        std::fs::write(&path, input).expect("the temporary folder has room");
        path
    };
    let begun = Instant::now();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input, seed))) {
        eprintln!("mutants: {target}: input {number} breaks a promise: {}", kept().display());
        resume_unwind(panic);
    }
    let taken = begun.elapsed();
    assert!(taken < INPUT_MAX, "{target}: input {number} took {taken:?}: {}", kept().display());
    taken
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], changes: Changes, random: &mut Random) {
    if let Changes::Words(words) = changes {
        let size = input.len();
        input.resize(size + GROWTH_MAX, 0);
        let seed = u32::try_from(random.below(u32::MAX as usize)).expect("below");
        let (data, max_size) = (input.as_mut_slice(), size + GROWTH_MAX);
        let size = mutate::step(data, size, max_size, seed, words);
        input.truncate(size);
        return;
    }
    let at = random.below(input.len() + 1);
    match (random.below(7), input.get_mut(at)) {
        (0, Some(byte)) => *byte ^= 1 << random.below(8),
        (1, Some(byte)) => *byte = ODD_BYTES[random.below(ODD_BYTES.len())],
        (2, Some(byte)) => *byte = byte.wrapping_add(1),
        (3, _) => input.truncate(at),
        (4, _) => {
            // A part of another one.
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            let to = (from + 1 + random.below(64)).min(other.len());
            input.splice(at..at, other[from..to].iter().copied());
        }
        (5, _) => {
            let end = (at + 1 + random.below(64)).min(input.len());
            input.drain(at..end);
        }
        _ => input.insert(at, ODD_BYTES[random.below(ODD_BYTES.len())]),
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The committed inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(data("mutants").join(target))
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    names.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

/// The archive of `tests/data/format-1`, unpacked.
fn archive() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut tar = Command::new("tar");
    tar.arg("-xpf").arg(data("format-1/archive.tar")).arg("-C").arg(folder.path());
    expect_code(&mut tar, 0);
    let archive = folder.path().join("archive");
    (folder, archive)
}

/// The files below a folder, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
