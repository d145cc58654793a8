//! Seven independent programs can read archives and find the same rows in them. So an auditor needs
//! none of our programs.
//!
//! `tests/readers.py` opens every volume with each of these readers, and compares what they find
//! with what the commits say. This test makes the archives, and counts the same things with our own
//! reader. If a volume has Delta checkpoints, every reader has to start with the newest one, with
//! and without `_last_checkpoint`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use serde_json::Value;
use strongroom_archive::{Archive, CHECKPOINT_INTERVAL};
use strongroom_schemas::Table;

use crate::run;
use crate::s3::{self, Outsider};

const READERS: [&str; 7] = ["delta-rs", "Spark SQL", "DuckDB", "chDB", "Polars", "PyArrow", "Daft"];
/// The name of a cluster. It must be quoted or escaped wherever it is written.
const CLUSTER: &str = "it's a \"näme\" %20 + {x} \\ `é` \u{202e}";
/// Arguments that make blocks so small that there are many commits.
const MANY_COMMITS: [&str; 4] = ["--block-bytes", "16KiB", "--seal-bytes", "1"];

/// The number of values in a column that are not null, and a sum over these values (see `weigh`,
/// and the same function in the script).
type Weight = (i64, i128);

fn weigh(column: &ArrayRef) -> Weight {
    let present: Vec<usize> = (0..column.len()).filter(|row| column.is_valid(*row)).collect();
    let each: Box<dyn Fn(usize) -> i128> = match column.data_type() {
        DataType::Utf8 => Box::new(|row| column.as_string::<i32>().value(row).len() as i128),
        DataType::Binary => Box::new(|row| column.as_binary::<i32>().value(row).len() as i128),
        DataType::Int32 => Box::new(|row| column.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Box::new(|row| column.as_primitive::<Int64Type>().value(row).into()),
        DataType::Timestamp(..) => {
            Box::new(|row| column.as_primitive::<TimestampMicrosecondType>().value(row).into())
        }
        DataType::List(_) => Box::new(|row| i128::from(column.as_list::<i32>().value_length(row))),
        other => panic!("no column of ours is {other}"),
    };
    (present.len() as i64, present.into_iter().map(each).sum())
}

fn ours(archive: &Archive, table: Table) -> (u64, BTreeMap<String, Weight>) {
    let (mut rows, mut columns) = (0, BTreeMap::<String, Weight>::new());
    for source in archive.sources().expect("sources") {
        for batch in archive.read_rows(table, &source.partition).expect("planned") {
            let batch = batch.expect("readable");
            rows += batch.num_rows() as u64;
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                let (count, weight) = weigh(column);
                let total = columns.entry(field.name().clone()).or_default();
                *total = (total.0 + count, total.1 + weight);
            }
        }
    }
    (rows, columns)
}

/// Returns every folder at or below `root` that is a Delta table.
fn volumes(root: &Path) -> Vec<PathBuf> {
    let root = std::fs::canonicalize(root).expect("a folder");
    let (mut found, mut folders) = (Vec::new(), vec![root]);
    while let Some(folder) = folders.pop() {
        if folder.join("_delta_log").is_dir() {
            found.push(folder);
            continue;
        }
        let entries = std::fs::read_dir(&folder).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        folders.extend(paths.filter(|path| path.is_dir()));
    }
    found.sort();
    found
}

/// Returns the paths of a volume's Delta checkpoints, oldest first.
fn checkpoints(volume: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(volume.join("_delta_log")).expect("a log");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.to_string_lossy().ends_with(".checkpoint.parquet")).collect();
    paths.sort();
    paths
}

struct Verdict {
    is_good: bool,
    document: Value,
}

impl Verdict {
    fn lines(&self) -> impl Iterator<Item = &Value> {
        self.document["readers"].as_array().expect("a list").iter()
    }

    fn differences(&self) -> Vec<&str> {
        self.document["differences"].as_array().expect("a list").iter().filter_map(Value::as_str).collect()
    }

    /// Asserts that all readers have read all volumes correctly, and have used the Delta
    /// checkpoints of volumes that have some.
    fn assert_good(&self, volumes: &[PathBuf]) {
        assert!(self.is_good, "{:#?}", self.differences());
        assert_eq!(self.differences(), Vec::<&str>::new());
        for volume in volumes {
            let name = volume.to_str().expect("text");
            let said: BTreeMap<&str, &str> = self
                .lines()
                .filter(|line| line["volume"] == name && line["reader"] != "commits")
                .map(|line| {
                    (line["reader"].as_str().expect("text"), line["checkpoint"].as_str().expect("text"))
                })
                .collect();
            let expected = if checkpoints(volume).is_empty() { "none" } else { "used" };
            let all: BTreeMap<&str, &str> = READERS.into_iter().map(|reader| (reader, expected)).collect();
            assert_eq!(said, all, "{name}");
        }
    }
}

/// Returns the readers' verdict on these volumes; `None` if the readers are not installed.
/// (`./tests/run` installs them and sets the variable.)
fn judge(volumes: &[PathBuf]) -> Option<Verdict> {
    judge_with(&READERS.map(|reader| ["--checkpoint-by", reader]).concat(), volumes)
}

fn judge_with(options: &[&str], volumes: &[PathBuf]) -> Option<Verdict> {
    let python = std::env::var_os("STRONGROOM_PYTHON")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers.py");
    let output = run::output(Command::new(python).arg(script).arg("--json").args(options).args(volumes));
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    Some(Verdict { is_good: output.status.success(), document })
}

#[test]
fn outsiders_read_what_we_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("ärchive with spaces");
    let mut text = run::log(30_000, 11);
    text.extend_from_slice(b"not json\n{\"kind\":\"Pod\"}\n\xff\xfe\n");
    let first = run::write(folder.path(), "it's the \"first\" #1 %2F.log", &text);
    let second = run::write(folder.path(), "second.log", &run::log(3_000, 12));
    let ingest = |log: &Path| {
        let mut command = run::strongroom();
        command.args(["ingest", "--cluster", CLUSTER, "--print-alerts", "critical", "--archive"]);
        command.arg(&root).arg(log);
        command
    };
    run::expect_code(&mut ingest(&first), 1);
    run::expect_code(&mut ingest(&second), 0);

    let all = volumes(&root);
    let Some(verdict) = judge(&all) else { return };
    verdict.assert_good(&all);
    let archive = Archive::open(root.to_str().expect("text")).expect("an archive");
    for (table, least) in [(Table::Events, 33_000), (Table::Rejects, 3), (Table::Alerts, 1)] {
        let (rows, columns) = ours(&archive, table);
        assert!(rows >= least, "{} has {rows} rows", table.name());
        assert_eq!(archive.snapshot(table).expect("a snapshot").rows(), rows);
        // All readers have found what the commits say. So our reader is compared only with the
        // commits.
        let of_table = |line: &&Value| {
            line["reader"] == "commits"
                && line["volume"]
                    .as_str()
                    .is_some_and(|volume| volume.contains(&format!("/{}/", table.name())))
        };
        let said: Vec<&Value> = verdict.lines().filter(of_table).collect();
        assert_eq!(said.iter().filter_map(|line| line["rows"].as_u64()).sum::<u64>(), rows);
        let mut weights = BTreeMap::<String, Weight>::new();
        for (name, weight) in said.iter().flat_map(|line| line["weights"].as_object().expect("an object")) {
            let total = weights.entry(name.clone()).or_default();
            total.0 += weight[0].as_i64().expect("a count");
            total.1 += weight[1].as_str().and_then(|weight| weight.parse::<i128>().ok()).expect("a number");
        }
        assert_eq!(weights, columns, "{}", table.name());
    }
}

#[test]
fn outsiders_begin_with_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("archive");
    // Each file gives a commit. There are enough of them for two Delta checkpoints, and some
    // commits after these.
    let text = run::log(5_000, 1);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let files = 2 * usize::try_from(CHECKPOINT_INTERVAL).expect("a few") + 10;
    let paths: Vec<PathBuf> = lines
        .chunks(lines.len() / files)
        .enumerate()
        .map(|(at, lines)| run::write(folder.path(), &format!("{at:03}.log"), &lines.concat()))
        .collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let mut command = run::ingest(&root, &paths);
    run::expect_code(command.args(["--complete", "--seal-bytes", "1KiB", "--seal-seconds", "0"]), 0);
    let all = volumes(&root);
    assert!(all.iter().any(|volume| checkpoints(volume).len() > 1), "no two checkpoints in {all:?}");
    let Some(verdict) = judge(&all) else { return };
    verdict.assert_good(&all);
    assert!(verdict.lines().any(|line| line["checkpoint"] == "used"));

    // The newest checkpoint is replaced with an older one, which lacks files. A reader that starts
    // with it notices nothing, but the script does.
    let mut events = volumes(&root.join("events"));
    events.retain(|volume| checkpoints(volume).len() > 1);
    let volume = events.remove(0);
    let both = checkpoints(&volume);
    let older = std::fs::read(&both[both.len() - 2]).expect("read");
    std::fs::remove_file(&both[both.len() - 1]).expect("removed");
    std::fs::write(&both[both.len() - 1], older).expect("written");
    let verdict = judge_with(&["--whole"], std::slice::from_ref(&volume)).expect("the readers are installed");
    assert!(!verdict.is_good);
    let wrong: BTreeSet<&str> =
        verdict.differences().iter().filter_map(|difference| difference.split(',').next()).collect();
    assert_eq!(wrong, BTreeSet::from(READERS), "{:#?}", verdict.differences());
}

#[test]
fn outsiders_read_what_several_writers_put_into_a_bucket() {
    let Some(seaweed) = s3::store() else { return };
    let (endpoint, bucket, location) = (seaweed.endpoint(), "outsiders", "s3://outsiders/a");
    let folder = tempfile::tempdir().expect("a folder");
    run::expect_code(s3::at(&endpoint).args(["archive", "init", location]), 0);
    let running: Vec<_> = (1..=2)
        .map(|seed| {
            let log = run::write(folder.path(), &format!("{seed}.log"), &run::log(1_800, seed));
            let mut command = s3::ingest(&endpoint, location, &log);
            command.args(MANY_COMMITS).args(["--threads", "1"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts")
        })
        .collect();
    for process in running {
        let ended = process.wait_with_output().expect("ends");
        assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    let root = folder.path().join("bucket");
    download(&Outsider::of(&seaweed), bucket, &root);
    let all = volumes(&root);
    assert!(all.iter().all(|volume| !volume.join("_delta_log/_last_checkpoint").exists()));
    let Some(verdict) = judge(&all) else { return };
    verdict.assert_good(&all);
    let rows = |line: &&Value| line["reader"] == "commits" && line["rows"] == 3_600;
    assert_eq!(verdict.lines().filter(rows).count(), 1, "one volume has the events of both runs");
}

/// Writes the newest version of every object in a bucket to a file below `to`.
pub fn download(outsider: &Outsider, bucket: &str, to: &Path) {
    let list = outsider.client.list_objects_v2().bucket(bucket).into_paginator().send();
    let pages = outsider.runtime.block_on(list.collect::<Result<Vec<_>, _>>()).expect("a listing");
    for key in pages.iter().flat_map(|page| page.contents()).filter_map(|object| object.key()) {
        let path = to.join(key);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let bytes = outsider.runtime.block_on(async {
            let object =
                outsider.client.get_object().bucket(bucket).key(key).send().await.expect("an object");
            object.body.collect().await.expect("its bytes").into_bytes()
        });
        std::fs::write(path, bytes).expect("written");
    }
}

#[test]
fn outsiders_read_what_earlier_versions_wrote() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1/archive.tar");
    let folder = tempfile::tempdir().expect("a folder");
    run::expect_code(Command::new("tar").arg("-xpf").arg(fixture).arg("-C").arg(folder.path()), 0);
    let all = volumes(folder.path());
    assert!(all.len() > 1, "{all:?}");
    let Some(verdict) = judge(&all) else { return };
    verdict.assert_good(&all);
}
