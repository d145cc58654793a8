//! Whoever opens an archive need not trust who wrote it. Each kind of object is changed at random,
//! and everything that reads it runs on the result: `verify`, `export`, `query` and `hunt` end with a
//! finding, an error or an answer, never with a panic, a hang, or memory beyond a bound.
//!
//! The readers run in this process, so a panic that nobody catches fails the test, and so does an
//! abort. A normal run makes [`MUTANTS`] of each kind, and `./tests/run --long` [`MUTANTS_LONG`].

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use datafusion::parquet::file::metadata::ParquetMetaDataReader;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use strongroom_archive::{Archive, EventSelection};
use strongroom_ingest::export::{EventRecords, ExportError, sealed_stream};
use strongroom_parquet::is_quiet;
use strongroom_proof::verify::{Options, Watch, verify};
use strongroom_query::{Expanded, Format, Layout, Session, SessionOptions, write_answer};
use strongroom_schemas::Table;

use crate::run::{expect_code, is_long, log, strongroom, write};

const MUTANTS: usize = 60;
const MUTANTS_LONG: usize = 10_000;
/// The longest that all readers together may take for one mutant, on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(60);
/// The most that `export` may write of the small archive: what its rows account for, and the newlines
/// that a stream may have beside them.
const EXPORT_BYTES_MAX: u64 = 300 << 20;
/// The most memory that the process may have had after all mutants.
const RESIDENT_BYTES_MAX: u64 = 3 << 30;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// What is written over some bytes: extremes of the numbers of Thrift, Parquet, JSON and notes.
const PIECES: [&[u8]; 16] = [
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xfc\xff\xff\xff\xff\x07",
    b"\x19\xfc\xff\xff\xff\xff\x07",
    b"\"",
    b"}",
    b"-1",
    b"99999999999999999999",
    b"\n",
    b"\x1c\x1c\x1c\x1c\x1c\x1c\x1c\x1c\x1c\x1c\x1c\x1c\x1c\x1c\x1c\x1c",
];

/// Changes bytes within `range`.
fn mutate(bytes: &mut Vec<u8>, range: std::ops::Range<usize>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let end = range.end.min(bytes.len());
        if end <= range.start {
            return;
        }
        let at = range.start + random.below(end - range.start);
        match random.below(10) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = bytes[at].wrapping_add(*random.one_of(&[1, 255])),
            3 => {
                let piece = random.one_of(&PIECES);
                bytes.splice(at..at, piece.iter().copied());
            }
            4 => {
                let until = (at + 1 + random.below(8)).min(end);
                bytes.drain(at..until);
            }
            5 => {
                let until = (at + 1 + random.below(64)).min(end);
                let again = bytes[at..until].to_vec();
                bytes.splice(at..at, again);
            }
            6 | 7 => bytes[at] = random.next() as u8,
            _ => {
                for (place, byte) in bytes.iter_mut().skip(at).zip(*random.one_of(&PIECES)) {
                    *place = *byte;
                }
            }
        }
    }
}

/// The part of a Parquet file in which a change matters most: its footer, or the headers and the first
/// bytes of pages.
fn parquet_range(bytes: &[u8], is_footer: bool, random: &mut Random) -> std::ops::Range<usize> {
    let length = bytes.len();
    let footer = u32::from_le_bytes(bytes[length - 8..length - 4].try_into().expect("four bytes")) as usize;
    if is_footer {
        return length - 8 - footer..length;
    }
    let metadata =
        ParquetMetaDataReader::decode_metadata(&bytes[length - 8 - footer..length - 8]).expect("a footer");
    let groups = metadata.row_groups();
    let columns = random.one_of(groups).columns();
    let column = random.one_of(columns);
    let (start, length) = column.byte_range();
    let start = if random.below(2) == 0 { start } else { column.data_page_offset() as u64 };
    let near = 1 + random.below(96) as u64;
    start as usize..(start + near.min(length)) as usize
}

/// Gives the commits the length and the hash that a changed file has now, so that its rows are read.
fn retag(archive: &Path, file: &Path) {
    let bytes = fs::read(file).expect("a file");
    let name = file.file_name().expect("a name").to_string_lossy();
    for commit in files(archive, &|path| path.contains("/_delta_log/") && path.ends_with(".json")) {
        let text = fs::read_to_string(&commit).expect("a commit");
        if !text.contains(&*name) {
            continue;
        }
        let lines = text.lines().map(|line| {
            let mut action: Value = serde_json::from_str(line).expect("an action");
            let add = &mut action["add"];
            if add["path"].as_str().is_some_and(|path| path.contains(&*name)) {
                add["size"] = bytes.len().into();
                let hash =
                    Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                add["tags"]["sha256"] = hash.into();
                return action.to_string();
            }
            line.to_owned()
        });
        put(&commit, (lines.collect::<Vec<_>>().join("\n") + "\n").as_bytes());
    }
}

fn put(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).expect("written");
}

/// The files below a folder whose paths are wanted, in order.
fn files(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if wanted(&path.to_string_lossy()) {
                found.insert(path);
            }
        }
    }
    found.into_iter().collect()
}

struct Unwatched;

impl Watch for Unwatched {}

/// Takes bytes, up to a bound that no good reader passes.
struct Sink(u64);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        assert!(self.0 <= EXPORT_BYTES_MAX, "an export writes on and on");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs everything that reads an archive; returns how many parts of that ended well.
fn read_everything(archive: &Path, runtime: &tokio::runtime::Runtime) -> usize {
    let location = archive.to_string_lossy();
    let mut good = 0;
    if let Ok(opened) = Archive::open_to_verify(&location) {
        let options = Options { threads: 1, ..Options::default() };
        let report = verify(&opened, &options, &EventRecords, &Unwatched);
        good += usize::from(report.is_ok_and(|report| report.findings.is_empty()));
    }
    let Ok(opened) = Archive::open(&location) else { return good };
    good += usize::from(export(&opened).is_ok());
    good += usize::from(
        opened.select_events(EventSelection::default()).is_ok_and(|mut rows| rows.all(|rows| rows.is_ok())),
    );
    let options = SessionOptions { memory_limit: 64 << 20, threads: Some(1), temp_dir: None };
    let Ok(session) = Session::open(opened, &options) else { return good };
    let layout = Layout { width: None, truncate: false, expanded: Expanded::Never };
    let statements = [
        "SELECT * FROM events",
        "SELECT verb, count(*) FROM events WHERE request_uri LIKE '%pods%' GROUP BY verb",
        "SELECT * FROM rejects UNION ALL SELECT * FROM rejects",
        "SELECT alert_id, namespaces FROM alerts WHERE severity <> 'low'",
    ];
    for sql in statements {
        let answered = runtime
            .block_on(async { write_answer(session.ask(sql).await?, Format::Json, &layout, Sink(0)).await });
        good += usize::from(answered.is_ok());
    }
    good
}

fn export(archive: &Archive) -> Result<(), Box<dyn std::error::Error>> {
    let sources = archive.sources()?;
    let partitions: Vec<&str> = sources.iter().map(|source| source.partition.as_str()).collect();
    let mut events = archive.read_partitions(Table::Events, &partitions)?;
    let mut rejects = archive.read_partitions(Table::Rejects, &partitions)?;
    for source in &sources {
        events.begin(&source.partition);
        rejects.begin(&source.partition);
        let batches = |rows: &mut strongroom_archive::Rows| -> Vec<_> {
            rows.map(|batch| {
                batch.map_err(|error| ExportError::Changed { bytes: error.to_string().len() as i64 })
            })
            .collect()
        };
        let (events, rejects) = (batches(&mut events), batches(&mut rejects));
        sealed_stream(events.into_iter(), rejects.into_iter(), &source.partition, &source.position, Sink(0))?;
    }
    Ok(())
}

/// A small archive without a key, whose commits can be changed with their files.
fn small(folder: &Path) -> PathBuf {
    let mut text = log(60, 3);
    text.extend_from_slice(b"no event\n{\"kind\":\n");
    let (log, archive) = (write(folder, "small.log", &text), folder.join("small"));
    let mut command = strongroom();
    command.args(["ingest", "-q", "--cluster", "c", "--complete", "--archive"]).arg(&archive).arg(&log);
    expect_code(&mut command, 1);
    archive
}

/// The archive of an earlier release, which has records of every kind.
fn old(folder: &Path) -> PathBuf {
    let tar = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1/archive.tar");
    let status = Command::new("tar").arg("-xf").arg(tar).arg("-C").arg(folder).status();
    assert!(status.expect("tar runs").success());
    folder.join("archive")
}

/// Makes mutants of files that `wanted` chooses and has them read.
#[expect(clippy::print_stdout, reason = "the number of mutants is a part of the answer")]
fn mutants(name: &str, make: fn(&Path) -> PathBuf, wanted: fn(&str) -> bool, range: Range) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !is_quiet() {
            print(panic);
        }
    }));
    let folder = tempfile::tempdir().expect("a folder");
    let archive = make(folder.path());
    let whole = files(&archive, &|_| true);
    whole.iter().for_each(|path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("ours");
    });
    let chosen = files(&archive, &wanted);
    assert!(!chosen.is_empty(), "the archive has no {name}");
    let commits = files(&archive, &|path| path.contains("/_delta_log/"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let count = if is_long() { MUTANTS_LONG } else { MUTANTS };
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ name.len() as u64);
    let (mut harmless, mut slowest) = (0, Duration::ZERO);
    let best = read_everything(&archive, &runtime);
    assert!(best > 0, "{name}: nothing can be read of the archive as it is");
    for number in 0..count {
        let file = random.one_of(&chosen);
        let before = fs::read(file).expect("a file");
        let kept: Vec<_> = commits.iter().map(|path| fs::read(path).expect("a commit")).collect();
        let mut bytes = before.clone();
        let place = match range {
            Range::Any => 0..bytes.len(),
            Range::Footer => parquet_range(&bytes, true, &mut random),
            Range::Pages => parquet_range(&bytes, false, &mut random),
            Range::Tags => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let at = text.find("\"tags\"").or_else(|| text.find("\"add\"")).unwrap_or(0);
                at..bytes.len()
            }
        };
        mutate(&mut bytes, place, &mut random);
        put(file, &bytes);
        if matches!(range, Range::Footer | Range::Pages) && random.below(4) > 0 {
            retag(&archive, file);
        }
        let begun = Instant::now();
        harmless += usize::from(read_everything(&archive, &runtime) == best);
        let took = begun.elapsed();
        assert!(took < TIME_MAX, "{name}, mutant {number}: {took:?}");
        slowest = slowest.max(took);
        put(file, &before);
        for (path, bytes) in commits.iter().zip(kept) {
            if path != file {
                put(path, &bytes);
            }
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let peak: u64 = peak.unwrap_or(0) << 10;
    println!(
        "{name}: {count} mutants, {harmless} without an effect, slowest {} ms, peak of the process {} MiB",
        slowest.as_millis(),
        peak >> 20
    );
    assert!(peak <= RESIDENT_BYTES_MAX, "{name}: {} MiB", peak >> 20);
}

/// Which bytes of a file are changed.
#[derive(Clone, Copy)]
enum Range {
    Any,
    Footer,
    Pages,
    Tags,
}

fn is_data(path: &str) -> bool {
    path.contains("/date=") && path.ends_with(".parquet")
}

#[test]
fn manifests() {
    mutants("manifests", small, |path| path.ends_with("strongroom.json"), Range::Any);
}

#[test]
fn keys() {
    mutants("keys", old, |path| path.contains("/_keys/"), Range::Any);
}

#[test]
fn commits() {
    mutants("commits", small, |path| path.contains("/_delta_log/") && path.ends_with(".json"), Range::Any);
}

#[test]
fn tags() {
    mutants("tags", small, |path| path.contains("/_delta_log/") && path.ends_with("1.json"), Range::Tags);
}

#[test]
fn delta_checkpoints() {
    mutants("checkpoints of Delta", old, |path| path.contains("checkpoint.parquet"), Range::Any);
}

#[test]
fn footers() {
    mutants("footers", small, is_data, Range::Footer);
}

#[test]
fn pages() {
    mutants("pages", small, is_data, Range::Pages);
}

#[test]
fn rows() {
    mutants("data files", small, is_data, Range::Any);
}

#[test]
fn notes() {
    mutants("notes", old, |path| path.contains("/_tlog/"), Range::Any);
}

#[test]
fn statements() {
    mutants(
        "statements",
        old,
        |path| path.contains("/_retention/") || path.contains("/_dropped/"),
        Range::Any,
    );
}

#[test]
fn holds() {
    mutants("holds", old, |path| path.contains("/_holds/"), Range::Any);
}
