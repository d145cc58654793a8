//! Every kind of tampering with an archive gives a finding of its own kind, and an unchanged
//! archive gives no finding.
//!
//! Each entry of the table `TAMPERINGS` says what is done to an archive, and the kind of finding
//! that `verify` must then report. A second verifier checks the same archives if
//! `STRONGROOM_VERIFIER` is set to its command, which takes a folder, `--public-key`,
//! `--remembered` and `--json FILE`. An example is the `archive` command of tools/verify.py, which
//! was written from the documents alone.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, Int32Array, Int64Array, RecordBatch, RecordBatchReader as _,
    StringArray, StructArray,
};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_archive::Records as _;
use strongroom_ingest::export::EventRecords;
use strongroom_schemas::record::leaf_hash;
use tempfile::TempDir;

use crate::run::{expect_code, export, ingest, log, output, strongroom, write};

/// Kinds that a verifier without a Parquet reader cannot find.
const NEEDS_PARQUET: [&str; 5] = ["record_changed", "rows", "offsets", "statistics", "columns_differ"];

/// An archive with a key, to be tampered with.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
}

impl Site {
    pub(crate) fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    fn other_key(&self) -> PathBuf {
        self.folder.path().join("other-key")
    }

    /// Returns the checkpoints that were copied elsewhere before the tampering.
    fn remembered(&self) -> Vec<PathBuf> {
        let mut kept: Vec<PathBuf> = names(&self.folder.path().join("kept"));
        kept.sort();
        kept
    }

    fn volume(&self, table: &str) -> PathBuf {
        let mut volumes = names(&self.archive().join(table));
        volumes.sort();
        volumes.pop().unwrap_or_else(|| panic!("{table} has a volume"))
    }

    fn commit(&self, table: &str, version: u64) -> PathBuf {
        self.volume(table).join(format!("_delta_log/{version:020}.json"))
    }

    pub(crate) fn commits(&self, table: &str) -> Vec<PathBuf> {
        let mut commits = names(&self.volume(table).join("_delta_log"));
        commits.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        commits.sort();
        commits
    }

    /// Returns the data files of a table.
    pub(crate) fn files(&self, table: &str) -> Vec<PathBuf> {
        let folders = names(&self.volume(table));
        let days = folders.iter().filter(|path| path.to_string_lossy().contains("/date="));
        let mut files: Vec<PathBuf> = days.flat_map(|day| names(day)).collect();
        files.sort();
        files
    }

    fn checkpoints(&self, table: &str) -> Vec<PathBuf> {
        let mut found = names(&self.volume(table).join("_tlog/checkpoint"));
        found.sort();
        found
    }

    /// Moves the time of all commits two hours back.
    fn make_older(&self) {
        for commit in ["events", "rejects", "alerts"].iter().flat_map(|table| self.commits(table)) {
            edit(&commit, |actions| {
                let time = &mut actions[0]["commitInfo"]["timestamp"];
                *time = json!(time.as_i64().expect("a time") - 2 * 60 * 60 * 1000);
            });
        }
    }

    /// Removes the proof logs and signs the commits again with the right key, as an insider could.
    pub(crate) fn sign_again(&self) {
        for table in ["events", "rejects", "alerts"] {
            for volume in names(&self.archive().join(table)) {
                let _ = std::fs::remove_dir_all(volume.join("_tlog"));
            }
        }
        sign_log(&self.archive(), &self.key(), 0);
    }
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn sign_log(archive: &Path, key: &Path, code: i32) -> (String, String) {
    expect_code(strongroom().args(["sign-log", "--archive"]).arg(archive).arg("--key").arg(key), code)
}

pub(crate) fn new_key(path: &Path) -> String {
    let (public, _) = expect_code(strongroom().args(["key", "new"]).arg(path), 0);
    public.trim().to_owned()
}

pub(crate) fn public_of(key: &Path) -> String {
    expect_code(strongroom().args(["key", "show", "--key"]).arg(key), 0).0.trim().to_owned()
}

pub(crate) fn signed_ingest(archive: &Path, key: &Path, logs: &[&Path]) -> Command {
    let mut command = ingest(archive, logs);
    command.arg("--key").arg(key).args(["--complete", "--seal-bytes", "64KiB", "--block-bytes", "8MiB"]);
    command
}

/// Runs a verifier, and returns the kinds of its findings and its whole report.
pub(crate) fn verify(
    archive: &Path,
    public: Option<&str>,
    remembered: &[PathBuf],
) -> (BTreeSet<String>, Value) {
    let mut command = strongroom();
    command.args(["verify", "--json", "-", "--archive"]).arg(archive);
    judged(&mut command, public, remembered)
}

fn judged(command: &mut Command, public: Option<&str>, remembered: &[PathBuf]) -> (BTreeSet<String>, Value) {
    if let Some(public) = public {
        command.args(["--public-key", public]);
    }
    for path in remembered {
        command.arg("--remembered").arg(path);
    }
    let output = output(command);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{command:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let kinds: BTreeSet<String> = report["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|finding| finding["kind"].as_str().expect("a kind").to_owned())
        .collect();
    assert_eq!(output.status.code(), Some(i32::from(!kinds.is_empty())), "{report:#}");
    (kinds, report)
}

/// Runs the second verifier, and returns what it reports.
pub(crate) fn second_opinion(
    command: &str,
    site: &Site,
    public: &str,
    remembered: &[PathBuf],
) -> (BTreeSet<String>, Value) {
    let mut words = command.split_whitespace();
    let mut run = Command::new(words.next().expect("a command"));
    let path = site.folder.path().join("second.json");
    run.args(words).arg(site.archive()).arg("--json").arg(&path).args(["--public-key", public]);
    for kept in remembered {
        run.arg("--remembered").arg(kept);
    }
    let output = output(&mut run);
    let report = std::fs::read(&path).unwrap_or_default();
    let report: Value = serde_json::from_slice(&report)
        .unwrap_or_else(|error| panic!("{run:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let kinds: BTreeSet<String> = report["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|finding| finding["kind"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(output.status.code(), Some(i32::from(!kinds.is_empty())), "{report:#}");
    (kinds, report)
}

pub(crate) fn no_finding(archive: &Path, public: Option<&str>) -> Value {
    let (kinds, report) = verify(archive, public, &[]);
    assert!(kinds.is_empty(), "{report:#}");
    report
}

/// Makes, once, an archive of two files that are sealed in two runs. It has events, rejects and
/// alerts.
fn original() -> &'static Site {
    static ORIGINAL: OnceLock<Site> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let site = Site { folder: tempfile::tempdir().expect("a folder") };
        new_key(&site.key());
        new_key(&site.other_key());
        for (name, seed) in [("a.log", 41), ("b.log", 42)] {
            let mut bytes = log(6_000, seed);
            let middle = bytes.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
            bytes.splice(middle..middle, b"this is no event\nnor is this\n".iter().copied());
            let path = write(site.folder.path(), name, &bytes);
            expect_code(&mut signed_ingest(&site.archive(), &site.key(), &[&path]), 1);
        }
        let kept = site.folder.path().join("kept");
        std::fs::create_dir(&kept).expect("a folder");
        for table in ["events", "rejects", "alerts"] {
            let newest = site.checkpoints(table).pop().expect("a checkpoint");
            std::fs::copy(newest, kept.join(table)).expect("copied");
        }
        site
    })
}

/// Makes a copy of the original. Its files have the same times.
fn copy() -> Site {
    let site = Site { folder: tempfile::tempdir().expect("a folder") };
    let from = original().folder.path().join(".");
    let copied = Command::new("cp").arg("-a").arg(from).arg(site.folder.path()).status().expect("cp runs");
    assert!(copied.success());
    site
}

/// Replaces the content of a read-only file.
pub(crate) fn replace(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).expect("the file was there");
    std::fs::write(path, bytes).expect("written");
}

/// Makes a file of 6 GiB that takes no space on the disk.
fn swell(path: &Path) {
    let bytes = std::fs::read(path).expect("readable");
    replace(path, &bytes);
    File::options().write(true).open(path).expect("writable").set_len(6 << 30).expect("sparse");
}

fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = std::fs::read(path).expect("readable");
    let at = at(bytes.len());
    bytes[at] ^= 0x20;
    replace(path, &bytes);
}

/// Changes the actions of a commit.
pub(crate) fn edit(commit: &Path, change: impl Fn(&mut Vec<Value>)) {
    let text = std::fs::read_to_string(commit).expect("a commit");
    let mut actions: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    change(&mut actions);
    let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
    replace(commit, lines.join("\n").as_bytes());
}

fn adds(actions: &mut [Value]) -> impl Iterator<Item = &mut Value> {
    actions.iter_mut().filter_map(|action| action.get_mut("add"))
}

/// Changes the action that names a file, in its commit.
pub(crate) fn edit_add(site: &Site, table: &str, file: &Path, change: impl Fn(&mut Value)) {
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    for commit in site.commits(table) {
        if std::fs::read_to_string(&commit).expect("a commit").contains(&name) {
            edit(&commit, |actions| {
                adds(actions)
                    .filter(|add| add["path"].as_str().is_some_and(|path| path.contains(&name)))
                    .for_each(&change);
            });
        }
    }
}

pub(crate) fn rows_of(file: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).expect("readable"));
    let reader = reader.expect("Parquet").build().expect("Parquet");
    let schema = reader.schema();
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("rows")).collect();
    concat_batches(&schema, &batches).expect("one schema")
}

/// Rewrites a file with other rows, and lets its commit name the new bytes.
fn rewrite(site: &Site, file: &Path, rows: &RecordBatch) {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).expect("a writer");
    writer.write(rows).expect("written");
    writer.close().expect("written");
    replace(file, &bytes);
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    edit_add(site, "events", file, |add| {
        add["size"] = json!(bytes.len());
        add["tags"]["sha256"] = json!(sha256);
    });
}

fn picked(rows: &RecordBatch, order: impl IntoIterator<Item = usize>) -> RecordBatch {
    let order = Int64Array::from_iter_values(order.into_iter().map(|row| row as i64));
    take_record_batch(rows, &order).expect("rows")
}

fn root_of(rows: &RecordBatch) -> String {
    let mut leaves = Vec::new();
    EventRecords.each(rows, &mut |record| leaves.push(leaf_hash(record).0)).expect("events");
    root_of_leaves(&leaves)
}

pub(crate) fn root_of_leaves(leaves: &[[u8; 32]]) -> String {
    fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
        match leaves {
            [leaf] => *leaf,
            _ => {
                let split = 1 << (leaves.len() - 1).ilog2();
                let node = [&[1u8][..], &root(&leaves[..split]), &root(&leaves[split..])].concat();
                Sha256::digest(node).into()
            }
        }
    }
    root(leaves).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the tags and statistics in the commit correct for changed rows.
fn retag(site: &Site, file: &Path, rows: &RecordBatch) {
    let column = |name: &str| rows.column_by_name(name).expect("a column");
    let offsets = column("source_offset").as_any().downcast_ref::<Int64Array>().expect("offsets");
    let (least, most) = (offsets.iter().flatten().min(), offsets.iter().flatten().max());
    let sources = column("source").as_any().downcast_ref::<StringArray>().expect("a column of names");
    let tag = json!({ sources.value(0): [least, most, rows.num_rows()] }).to_string();
    let root = root_of(rows);
    edit_add(site, "events", file, |add| {
        let mut stats: Value = serde_json::from_str(add["stats"].as_str().expect("text")).expect("JSON");
        stats["numRecords"] = json!(rows.num_rows());
        stats["minValues"]["source_offset"] = json!(least);
        stats["maxValues"]["source_offset"] = json!(most);
        add["stats"] = json!(stats.to_string());
        add["tags"]["rows"] = json!(rows.num_rows().to_string());
        add["tags"]["offsets"] = json!(tag);
        add["tags"]["record_root"] = json!(root);
    });
}

/// A tampering, and the kind of finding that it must give. `remembered` is true if it can be
/// noticed only with a checkpoint that was kept elsewhere.
struct Tampering {
    name: &'static str,
    kind: &'static str,
    remembered: bool,
    does: fn(&Site),
}

const fn case(name: &'static str, kind: &'static str, does: fn(&Site)) -> Tampering {
    Tampering { name, kind, remembered: false, does }
}

const fn kept(name: &'static str, kind: &'static str, does: fn(&Site)) -> Tampering {
    Tampering { name, kind, remembered: true, does }
}

const TAMPERINGS: &[Tampering] = &[
    case("a byte of a file flipped", "file_changed", |site| {
        flip(&site.files("events")[0], |bytes| bytes / 2)
    }),
    case("a byte of a footer flipped", "file_changed", |site| {
        flip(&site.files("events")[0], |bytes| bytes - 20)
    }),
    case("a byte of the rejects flipped", "file_changed", |site| {
        flip(&site.files("rejects")[0], |bytes| bytes / 2)
    }),
    case("a file cut short", "file_size", |site| {
        let file = &site.files("events")[0];
        let bytes = std::fs::read(file).expect("readable");
        replace(file, &bytes[..bytes.len() - 1]);
    }),
    case("a file removed", "file_missing", |site| {
        std::fs::remove_file(&site.files("events")[0]).expect("removed");
    }),
    case("a file of alerts removed", "file_missing", |site| {
        std::fs::remove_file(&site.files("alerts")[0]).expect("removed");
    }),
    case("a file replaced by another one of the archive", "file_size", |site| {
        let files = site.files("events");
        replace(&files[0], &std::fs::read(files.last().expect("files")).expect("readable"));
    }),
    case("a row removed, the commit's hash of the file corrected, signed again", "rows", |site| {
        let file = &site.files("events")[0];
        let rows = rows_of(file);
        rewrite(site, file, &picked(&rows, 1..rows.num_rows()));
        site.sign_again();
    }),
    case("a row removed and everything about the file corrected, signed again", "rows_missing", |site| {
        let file = &site.files("events")[0];
        let rows = rows_of(file);
        let rows = picked(&rows, 1..rows.num_rows());
        rewrite(site, file, &rows);
        retag(site, file, &rows);
        site.sign_again();
    }),
    case("a row added twice and everything about the file corrected, signed again", "rows_extra", |site| {
        let file = &site.files("events")[0];
        let rows = rows_of(file);
        let rows = picked(&rows, (0..rows.num_rows()).chain([0]));
        rewrite(site, file, &rows);
        retag(site, file, &rows);
        site.sign_again();
    }),
    case("rows swapped, the hash of the file corrected, signed again", "record_changed", |site| {
        let file = &site.files("events")[0];
        let rows = rows_of(file);
        rewrite(site, file, &picked(&rows, (0..rows.num_rows()).rev()));
        site.sign_again();
    }),
    case("a name changed in a row, the hash of the file corrected, signed again", "record_changed", |site| {
        let file = &site.files("events")[0];
        let rows = rows_of(file);
        let at = rows.schema().index_of("user_name").expect("a column");
        let names = rows.column(at).as_any().downcast_ref::<StringArray>().expect("a column of names");
        let names = StringArray::from_iter((0..names.len()).map(|row| {
            if row == 7 { Some("nobody") } else { names.is_valid(row).then(|| names.value(row)) }
        }));
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns[at] = Arc::new(names);
        rewrite(site, file, &RecordBatch::try_new(rows.schema(), columns).expect("the same columns"));
        site.sign_again();
    }),
    case("a commit removed", "commit_missing", |site| {
        std::fs::remove_file(site.commit("events", 1)).expect("removed");
    }),
    case("the last commit removed", "commits_cut", |site| {
        std::fs::remove_file(site.commits("events").pop().expect("commits")).expect("removed");
    }),
    case("a byte of a commit changed", "commit_changed", |site| {
        flip(&site.commit("events", 1), |bytes| bytes / 2)
    }),
    case("two commits swapped", "commit_changed", |site| {
        let (a, b) = (site.commit("events", 1), site.commit("events", 2));
        let (first, second) = (std::fs::read(&a).expect("readable"), std::fs::read(&b).expect("readable"));
        replace(&a, &second);
        replace(&b, &first);
    }),
    kept("tail and checkpoints cut off", "rolled_back", |site| {
        std::fs::remove_file(site.commits("events").pop().expect("commits")).expect("removed");
        std::fs::remove_file(site.checkpoints("events").pop().expect("checkpoints")).expect("removed");
    }),
    kept("rolled back to an older checkpoint", "rolled_back", |site| {
        std::fs::remove_file(site.checkpoints("events").pop().expect("checkpoints")).expect("removed");
    }),
    kept("a second history signed with the right key", "forked", |site| {
        edit(&site.commit("events", 1), |actions| {
            actions.iter_mut().filter_map(|action| action.get_mut("commitInfo")).for_each(|info| {
                info["strongroom"]["labels"] = json!({});
            });
        });
        site.sign_again();
    }),
    case("a tile changed", "tile_changed", |site| {
        let tiles = names(&site.volume("events").join("_tlog/tile/0/000.p"));
        flip(&tiles[0], |_| 3);
    }),
    case("tiles removed", "tile_missing", |site| {
        std::fs::remove_dir_all(site.volume("events").join("_tlog/tile")).expect("removed");
    }),
    case("a signature changed", "checkpoint_signature", |site| {
        let checkpoint = &site.checkpoints("events")[0];
        let text = std::fs::read_to_string(checkpoint).expect("text");
        let end = text.len() - 12;
        let other = if &text[end..=end] == "A" { "B" } else { "A" };
        replace(checkpoint, format!("{}{other}{}", &text[..end], &text[end + 1..]).as_bytes());
    }),
    case("the root in a checkpoint changed", "checkpoint_signature", |site| {
        let checkpoint = &site.checkpoints("events")[0];
        let text = std::fs::read_to_string(checkpoint).expect("text");
        let mut lines: Vec<&str> = text.split('\n').collect();
        lines[2] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        replace(checkpoint, lines.join("\n").as_bytes());
    }),
    case("a checkpoint of another table put here", "checkpoint_origin", |site| {
        let other = std::fs::read(&site.checkpoints("rejects")[0]).expect("readable");
        replace(&site.checkpoints("events")[0], &other);
    }),
    case("a checkpoint replaced by something else", "checkpoint_malformed", |site| {
        replace(&site.checkpoints("events")[0], b"nothing\n");
    }),
    case("a checkpoint under another size's name", "checkpoint_malformed", |site| {
        let checkpoints = site.checkpoints("events");
        let last = checkpoints.last().expect("checkpoints");
        let name = last
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .replace("0000000000000000000", "0000000000000000009");
        std::fs::rename(last, last.with_file_name(name)).expect("renamed");
    }),
    case("the key record changed", "key_record", |site| flip(&site.archive().join("_keys/00000001"), |_| 60)),
    case("the key record removed", "key_untrusted", |site| {
        std::fs::remove_file(site.archive().join("_keys/00000001")).expect("removed");
    }),
    case("everything signed again with another key", "key_untrusted", |site| {
        std::fs::remove_file(site.archive().join("_keys/00000001")).expect("removed");
        for table in ["events", "rejects", "alerts"] {
            std::fs::remove_dir_all(site.volume(table).join("_tlog")).expect("removed");
        }
        sign_log(&site.archive(), &site.other_key(), 0);
    }),
    case("strongroom.json changed", "manifest_changed", |site| {
        let path = site.archive().join("strongroom.json");
        let text = std::fs::read_to_string(&path).expect("text");
        replace(&path, text.replace("\"created\": \"2", "\"created\": \"1").as_bytes());
    }),
    case("another key named in strongroom.json", "key_mismatch", |site| {
        let path = site.archive().join("strongroom.json");
        let text = std::fs::read_to_string(&path).expect("text");
        replace(&path, text.replace(&public_of(&site.key()), &public_of(&site.other_key())).as_bytes());
    }),
    case("strongroom.json broken", "manifest_malformed", |site| {
        replace(&site.archive().join("strongroom.json"), b"{");
    }),
    case("a position advanced past records that do not exist, signed again", "rows_missing", |site| {
        let last = site.commits("events").pop().expect("commits");
        edit(&last, |actions| {
            for txn in actions.iter_mut().filter_map(|action| action.get_mut("txn")) {
                if txn["appId"].as_str().is_some_and(|name| name.ends_with("#records")) {
                    txn["version"] = json!(txn["version"].as_i64().expect("a number") + 5);
                }
            }
        });
        site.sign_again();
    }),
    case("offsets of a file extended far beyond its rows, signed again", "overlap", |site| {
        edit(&site.commits("events").pop().expect("commits"), |actions| {
            for add in adds(actions) {
                let text = add["tags"]["offsets"].as_str().expect("text").to_owned();
                let mut offsets: Value = serde_json::from_str(&text).expect("JSON");
                for span in offsets.as_object_mut().expect("an object").values_mut() {
                    span[1] = json!(span[1].as_i64().expect("a number") + 1_000_000_000);
                }
                add["tags"]["offsets"] = json!(offsets.to_string());
            }
        });
        site.sign_again();
    }),
    case("a position set back, signed again", "position_back", |site| {
        let commits = site.commits("events");
        let before = std::fs::read_to_string(&commits[1]).expect("text");
        let name = before.lines().find(|line| line.contains("\"txn\"")).expect("a position").to_owned();
        let name: Value = serde_json::from_str(&name).expect("JSON");
        edit(commits.last().expect("commits"), |actions| {
            let mut position = name.clone();
            position["txn"]["version"] = json!(1);
            let partition = position["txn"]["appId"].as_str().expect("a name").to_owned();
            actions.push(position);
            actions.push(json!({ "txn": { "appId": format!("{partition}#records"), "version": 1 } }));
        });
        site.sign_again();
    }),
    kept("a whole source left out, signed again", "rolled_back", |site| {
        // Removes the commits of the second run, which are those with another source than the
        // first.
        let commits = site.commits("events");
        let first = source_of(&commits[1]);
        for commit in commits.iter().rev().take_while(|commit| source_of(commit) != first) {
            std::fs::remove_file(commit).expect("removed");
        }
        site.sign_again();
    }),
    kept("a whole source left out with its files, signed again", "rolled_back", |site| {
        let commits = site.commits("events");
        let first = source_of(&commits[1]);
        for commit in commits.iter().rev().take_while(|commit| source_of(commit) != first) {
            for file in site.files("events") {
                let name = file.file_name().expect("a name").to_string_lossy().into_owned();
                if std::fs::read_to_string(commit).expect("text").contains(&name) {
                    std::fs::remove_file(file).expect("removed");
                }
            }
            std::fs::remove_file(commit).expect("removed");
        }
        site.sign_again();
    }),
    case("all rejects dropped", "rows_missing", |site| {
        std::fs::remove_dir_all(site.archive().join("rejects")).expect("removed");
    }),
    case("the clock set back, signed again", "clock_back", |site| {
        edit(&site.commits("events").pop().expect("commits"), |actions| {
            for info in actions.iter_mut().filter_map(|action| action.get_mut("commitInfo")) {
                info["timestamp"] = json!(info["timestamp"].as_i64().expect("a time") - 3_600_000);
            }
        });
        site.sign_again();
    }),
    case("a volume renamed to another year", "checkpoint_origin", |site| {
        let volume = site.volume("events");
        let year: u32 = volume.file_name().expect("a year").to_string_lossy().parse().expect("a number");
        std::fs::rename(&volume, volume.with_file_name((year + 1).to_string())).expect("renamed");
    }),
    case("a volume renamed to a later year, signed again", "wrong_year", |site| {
        let volume = site.volume("events");
        let year: u32 = volume.file_name().expect("a year").to_string_lossy().parse().expect("a number");
        std::fs::rename(&volume, volume.with_file_name((year + 1).to_string())).expect("renamed");
        site.sign_again();
    }),
    case("counts changed, signed again", "counts", |site| {
        edit(&site.commit("events", 1), |actions| {
            for info in actions.iter_mut().filter_map(|action| action.get_mut("commitInfo")) {
                info["strongroom"]["counts"]["duplicates"] = json!(1);
            }
        });
        site.sign_again();
    }),
    case("statistics narrowed so that queries skip a file, signed again", "statistics", |site| {
        edit_add(site, "events", &site.files("events")[0], |add| {
            let mut stats: Value = serde_json::from_str(add["stats"].as_str().expect("text")).expect("JSON");
            stats["maxValues"]["stage_timestamp"] = stats["minValues"]["stage_timestamp"].clone();
            add["stats"] = json!(stats.to_string());
        });
        site.sign_again();
    }),
    case("a file removed by a commit, signed again", "not_append_only", |site| {
        edit(&site.commits("events").pop().expect("commits"), |actions| {
            actions.push(json!({ "remove": { "path": "date=2026-03-02/x.parquet", "dataChange": true } }));
        });
        site.sign_again();
    }),
    case("a commit after the one that closed the volume, signed again", "volume_reopened", |site| {
        edit(&site.commit("events", 1), |actions| {
            actions.push(json!({ "txn": { "appId": "#closed", "version": 1 } }));
        });
        site.sign_again();
    }),
    case("a checkpoint put where a cosignature belongs", "witness_malformed", |site| {
        let checkpoint = site.checkpoints("events").pop().expect("checkpoints");
        let folder = site.volume("events").join("_tlog/witness");
        std::fs::create_dir_all(&folder).expect("a folder");
        let name = checkpoint.file_name().expect("a name");
        std::fs::copy(&checkpoint, folder.join(name)).expect("copied");
    }),
    case("a file named twice, signed again", "file_named_twice", |site| {
        let add = std::fs::read_to_string(site.commit("events", 1)).expect("text");
        let add = add.lines().find(|line| line.contains("\"add\"")).expect("an add").to_owned();
        edit(&site.commits("events").pop().expect("commits"), |actions| {
            actions.push(serde_json::from_str(&add).expect("JSON"));
        });
        site.sign_again();
    }),
    case("a file added to the others", "file_unnamed", |site| {
        let file = &site.files("events")[0];
        let planted = file.with_file_name("00000000000000000000000000000000.parquet");
        std::fs::copy(file, &planted).expect("copied");
        let times = File::options().write(true).open(&planted).or_else(|_| File::open(&planted));
        let past = SystemTime::now() - Duration::from_secs(86_400);
        times.and_then(|file| file.set_modified(past)).expect("the time is set");
    }),
    case("a file moved to another day, signed again", "statistics", |site| {
        let file = &site.files("events")[0];
        let day = file.parent().and_then(Path::file_name).expect("a day").to_string_lossy().into_owned();
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let other = site.volume("events").join("date=2026-02-01");
        std::fs::create_dir(&other).expect("a folder");
        edit_add(site, "events", file, |add| {
            assert!(add["path"].as_str().is_some_and(|path| path.starts_with(&day)));
            add["path"] = json!(format!("date=2026-02-01/{name}"));
            add["partitionValues"]["date"] = json!("2026-02-01");
        });
        std::fs::rename(file, other.join(&name)).expect("moved");
        site.sign_again();
    }),
    case("a commit in which a line is not JSON, signed again", "commit_malformed", |site| {
        let commit = site.commits("events").pop().expect("commits");
        let text = std::fs::read_to_string(&commit).expect("text");
        replace(&commit, format!("{text}\n{{").as_bytes());
        site.sign_again();
    }),
    case("tags removed from a file, signed again", "tags", |site| {
        edit_add(site, "events", site.files("events").last().expect("files"), |add| {
            add["tags"].as_object_mut().expect("tags").retain(|name, _| name == "sha256");
        });
        site.sign_again();
    }),
    case("one tag removed from a file, signed again", "tags", |site| {
        edit_add(site, "events", &site.files("events")[0], |add| {
            add["tags"].as_object_mut().expect("tags").remove("offsets");
        });
        site.sign_again();
    }),
    case("a deletion vector given to a file, signed again", "commit_malformed", |site| {
        edit_add(site, "events", &site.files("events")[0], |add| {
            add["deletionVector"] =
                json!({ "storageType": "i", "pathOrInlineDv": "x", "sizeInBytes": 1, "cardinality": 1 });
        });
        site.sign_again();
    }),
    case("a path given twice in one action, signed again", "commit_malformed", |site| {
        let commit = site.commit("events", 1);
        let text = std::fs::read_to_string(&commit).expect("text");
        let add = text.find("{\"add\":{").expect("an add") + 8;
        let other = "\"path\":\"date=2026-03-02/00000000000000000000000000000000.parquet\",";
        replace(&commit, format!("{}{other}{}", &text[..add], &text[add..]).as_bytes());
        site.sign_again();
    }),
    case("a commit that does not say when it was made, signed again", "commit_malformed", |site| {
        edit(&site.commits("events").pop().expect("commits"), |actions| {
            actions.retain(|action| action.get("commitInfo").is_none());
        });
        site.sign_again();
    }),
    case("a folder in place of a checkpoint", "checkpoint_malformed", |site| {
        let checkpoint = site.checkpoints("events").pop().expect("checkpoints");
        std::fs::remove_file(&checkpoint).expect("removed");
        std::fs::create_dir(&checkpoint).expect("made");
    }),
    case("a commit of gigabytes", "commit_malformed", |site| {
        swell(&site.commits("events").pop().expect("commits"));
    }),
    case("a key record of gigabytes", "key_record", |site| swell(&site.archive().join("_keys/00000001"))),
    case("all events removed", "commits_cut", |site| {
        site.make_older();
        std::fs::remove_dir_all(site.archive().join("events")).expect("removed");
    }),
    case("the newest events cut off, signed again", "commits_cut", |site| {
        site.make_older();
        for commit in site.commits("events").split_off(1) {
            let text = std::fs::read_to_string(&commit).expect("text");
            for path in text.lines().filter_map(|line| {
                let action: Value = serde_json::from_str(line).expect("JSON");
                Some(site.volume("events").join(action["add"]["path"].as_str()?))
            }) {
                std::fs::remove_file(path).expect("removed");
            }
            std::fs::remove_file(&commit).expect("removed");
        }
        site.sign_again();
    }),
    case("a pipe in place of a file", "file_missing", |site| {
        let file = &site.files("events")[0];
        std::fs::remove_file(file).expect("removed");
        assert!(Command::new("mkfifo").arg(file).status().expect("mkfifo runs").success());
    }),
    case("a link in place of a file", "file_missing", |site| {
        elsewhere(site, &site.files("events")[0]);
    }),
    case("a link in place of a folder of files", "file_missing", |site| {
        elsewhere(site, site.files("events")[0].parent().expect("a folder"));
    }),
    case("a link in place of a commit", "commit_missing", |site| {
        elsewhere(site, &site.commits("events").pop().expect("commits"));
    }),
    case("a pipe in place of a commit", "commit_missing", |site| {
        let commit = site.commits("events").pop().expect("commits");
        std::fs::remove_file(&commit).expect("removed");
        assert!(Command::new("mkfifo").arg(commit).status().expect("mkfifo runs").success());
    }),
    case("a link in place of a checkpoint", "checkpoint_malformed", |site| {
        elsewhere(site, &site.checkpoints("events").pop().expect("checkpoints"));
    }),
    case("a link in place of a volume", "commit_missing", |site| elsewhere(site, &site.volume("events"))),
    case("a link in place of a table", "commit_missing", |site| {
        elsewhere(site, &site.archive().join("alerts"))
    }),
    case("a link in place of a key record", "key_record", |site| {
        elsewhere(site, &site.archive().join("_keys/00000001"));
    }),
    case("a link in place of the manifest", "manifest_malformed", |site| {
        elsewhere(site, &site.archive().join("strongroom.json"));
    }),
    case("a folder among the files of a date", "file_unnamed", |site| {
        let folder = site.files("events")[0].with_file_name(format!("{}.parquet", "ab".repeat(16)));
        std::fs::create_dir(folder).expect("made");
    }),
    case("a hint to a checkpoint that is not there", "delta_checkpoint", |site| {
        let hint = site.volume("events").join("_delta_log/_last_checkpoint");
        std::fs::write(hint, br#"{"version":1,"size":5}"#).expect("written");
    }),
    case("a Parquet file in the folder of a volume", "file_unnamed", |site| {
        std::fs::copy(&site.files("events")[0], site.volume("events").join("x.parquet")).expect("copied");
    }),
    case("a Parquet file in a folder like that of a date", "file_unnamed", |site| {
        let folder = site.volume("events").join("DATE=2026-03-02/inner");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::copy(&site.files("events")[0], folder.join("x.PARQUET")).expect("copied");
    }),
    case("a Parquet file in a folder like that of a volume", "file_unnamed", |site| {
        let (file, folder) = (site.files("events").remove(0), site.archive().join("events/2026x"));
        std::fs::create_dir(&folder).expect("made");
        std::fs::copy(file, folder.join("x.parquet")).expect("copied");
    }),
    case("a file added to Delta's commits", "delta_checkpoint", |site| {
        let log = site.volume("events").join("_delta_log");
        std::fs::write(log.join("00000000000000000001.checkpoint.0000000001.0000000001.parquet"), b"PAR1")
            .expect("written");
    }),
    case("all alerts of a year removed", "volume_missing", |site| {
        std::fs::remove_dir_all(site.volume("alerts")).expect("removed");
    }),
    case("all rejects of a year removed", "volume_missing", |site| {
        std::fs::remove_dir_all(site.volume("rejects")).expect("removed");
    }),
    case("the newest alerts cut off, signed again", "commits_cut", |site| {
        let commit = site.commits("alerts").pop().expect("commits");
        let text = std::fs::read_to_string(&commit).expect("text");
        let paths = text.lines().filter_map(|line| {
            let action: Value = serde_json::from_str(line).expect("JSON");
            Some(site.volume("alerts").join(action["add"]["path"].as_str()?))
        });
        paths.for_each(|path| std::fs::remove_file(path).expect("removed"));
        std::fs::remove_file(&commit).expect("removed");
        site.sign_again();
    }),
    case("the tag of the rows contradicting the statistics, signed again", "tags", |site| {
        edit_add(site, "events", &site.files("events")[0], |add| add["tags"]["rows"] = json!("1"));
        site.sign_again();
    }),
];

/// Moves a part of an archive away, and puts a link to it in its place.
fn elsewhere(site: &Site, path: &Path) {
    let moved = site.folder.path().join("elsewhere");
    std::fs::rename(path, &moved).expect("moved");
    std::os::unix::fs::symlink(&moved, path).expect("linked");
}

/// Returns the sources whose positions a commit moves.
fn source_of(commit: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(commit).expect("text");
    let names = text.lines().filter_map(|line| {
        let action: Value = serde_json::from_str(line).expect("JSON");
        action["txn"]["appId"].as_str().filter(|name| !name.contains('#')).map(str::to_owned)
    });
    names.collect()
}

#[test]
fn every_tampering_is_named() {
    let public = public_of(&original().key());
    let clean = no_finding(&original().archive(), Some(&public));
    assert_eq!(clean["not_checked"], json!([]), "{clean:#}");
    assert!(verify(&original().archive(), Some(&public), &original().remembered()).0.is_empty());
    let second = std::env::var("STRONGROOM_VERIFIER").ok();
    if let Some(second) = &second {
        let (kinds, report) = second_opinion(second, &copy(), &public, &original().remembered());
        assert!(kinds.is_empty(), "{report:#}");
    }
    let mut wrong = Vec::new();
    for tampering in TAMPERINGS {
        let site = copy();
        (tampering.does)(&site);
        let remembered = if tampering.remembered { site.remembered() } else { Vec::new() };
        let (kinds, report) = verify(&site.archive(), Some(&public), &remembered);
        if !kinds.contains(tampering.kind) {
            wrong.push(format!("{}: {} is not among {kinds:?}\n{report:#}", tampering.name, tampering.kind));
        }
        if let Some(second) = &second {
            let (kinds, report) = second_opinion(second, &site, &public, &remembered);
            if !kinds.contains(tampering.kind) && !NEEDS_PARQUET.contains(&tampering.kind) {
                wrong.push(format!("second verifier: {}: {kinds:?}\n{report:#}", tampering.name));
            }
        }
    }
    let names: BTreeSet<&str> = TAMPERINGS.iter().map(|tampering| tampering.name).collect();
    assert!(names.len() == TAMPERINGS.len() && names.len() >= 40, "{} names", names.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), TAMPERINGS.len(), wrong.join("\n"));
}

/// Makes an archive with so many commits of events that it has a Delta checkpoint.
fn long_site() -> Site {
    let site = Site { folder: tempfile::tempdir().expect("a folder") };
    new_key(&site.key());
    let text = log(12_000, 43);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let paths: Vec<PathBuf> = lines
        .chunks(lines.len() / 170)
        .enumerate()
        .map(|(at, lines)| write(site.folder.path(), &format!("{at:03}.log"), &lines.concat()))
        .collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let mut command = ingest(&site.archive(), &paths);
    command.arg("--key").arg(site.key());
    expect_code(command.args(["--complete", "--seal-bytes", "1KiB", "--seal-seconds", "0"]), 0);
    site
}

/// Returns the path of the newest Delta checkpoint of `events`.
fn delta_checkpoint(site: &Site) -> PathBuf {
    let mut found = names(&site.volume("events").join("_delta_log"));
    found.retain(|path| path.to_string_lossy().ends_with(".checkpoint.parquet"));
    found.pop().expect("a checkpoint of Delta")
}

/// Writes the Delta checkpoint again, with a changed column for the actions of one kind.
fn rewrite_delta(site: &Site, action: &str, change: impl Fn(StructArray) -> StructArray) {
    let path = delta_checkpoint(site);
    let rows = rows_of(&path);
    let at = rows.schema().index_of(action).expect("an action");
    let mut columns = rows.columns().to_vec();
    columns[at] = Arc::new(change(columns[at].as_struct().clone()));
    write_delta(&path, &RecordBatch::try_new(rows.schema(), columns).expect("the same columns"));
}

fn write_delta(path: &Path, rows: &RecordBatch) {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).expect("a writer");
    writer.write(rows).expect("written");
    writer.close().expect("written");
    replace(path, &bytes);
}

/// Returns a struct in which one column is changed.
fn with_column(rows: StructArray, name: &str, change: impl Fn(&ArrayRef) -> ArrayRef) -> StructArray {
    let at = rows.column_names().iter().position(|known| *known == name).expect("a column");
    let (fields, mut columns, nulls) = rows.into_parts();
    columns[at] = change(&columns[at]);
    StructArray::new(fields, columns, nulls)
}

fn each_text(column: &ArrayRef, change: impl Fn(&str) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter(column.as_string::<i32>().iter().map(|text| text.map(&change))))
}

/// Readers of Delta start with a Delta checkpoint. Such a checkpoint is not a leaf of the proof
/// log, so `verify` compares it with the commits instead.
#[test]
fn a_checkpoint_of_delta_that_shows_another_archive_is_found() {
    type Change = fn(&Site);
    let changes: &[(&str, Change)] = &[
        ("files left out", |site| {
            let path = delta_checkpoint(site);
            let rows = rows_of(&path);
            let is_file = |row: &usize| rows.column_by_name("add").is_some_and(|adds| adds.is_valid(*row));
            let left_out = (0..rows.num_rows()).filter(is_file).nth(3).expect("files");
            let rows = picked(&rows, (0..rows.num_rows()).filter(|row| *row != left_out));
            write_delta(&path, &rows);
        }),
        ("a file named twice", |site| {
            let path = delta_checkpoint(site);
            let rows = rows_of(&path);
            let is_file = |row: &usize| rows.column_by_name("add").is_some_and(|adds| adds.is_valid(*row));
            let twice = (0..rows.num_rows()).find(is_file).expect("files");
            write_delta(&path, &picked(&rows, (0..rows.num_rows()).chain([twice])));
        }),
        ("statistics narrowed", |site| {
            rewrite_delta(site, "add", |adds| {
                with_column(adds, "stats", |stats| {
                    each_text(stats, |text| {
                        let mut stats: Value = serde_json::from_str(text).expect("JSON");
                        stats["maxValues"]["stage_timestamp"] = stats["minValues"]["stage_timestamp"].clone();
                        stats.to_string()
                    })
                })
            });
        }),
        ("a deletion vector", |site| {
            rewrite_delta(site, "add", |adds| {
                with_column(adds, "deletionVector", |vectors| {
                    let (fields, columns, _) = vectors.as_struct().clone().into_parts();
                    let columns = columns
                        .iter()
                        .map(|column| -> ArrayRef {
                            match column.data_type() {
                                DataType::Utf8 => Arc::new(StringArray::from(vec!["i"; column.len()])),
                                DataType::Int32 => Arc::new(Int32Array::from(vec![1; column.len()])),
                                _ => Arc::new(Int64Array::from(vec![1; column.len()])),
                            }
                        })
                        .collect();
                    Arc::new(StructArray::new(fields, columns, None))
                })
            });
        }),
        ("positions moved on", |site| {
            rewrite_delta(site, "txn", |txns| {
                with_column(txns, "version", |versions| {
                    let versions = versions.as_primitive::<Int64Type>();
                    Arc::new(versions.iter().map(|version| Some(version? + 1)).collect::<Int64Array>())
                })
            });
        }),
        ("a column renamed", |site| {
            rewrite_delta(site, "metaData", |metadata| {
                with_column(metadata, "schemaString", |schemas| {
                    each_text(schemas, |schema| schema.replace("\"user_name\"", "\"user_nome\""))
                })
            });
        }),
        ("a reader's feature", |site| {
            rewrite_delta(site, "protocol", |protocol| {
                with_column(protocol, "minReaderVersion", |versions| {
                    Arc::new(Int32Array::from(vec![3; versions.len()]))
                })
            });
        }),
        ("cut short", |site| {
            let bytes = std::fs::read(delta_checkpoint(site)).expect("readable");
            replace(&delta_checkpoint(site), &bytes[..bytes.len() - 9]);
        }),
        ("of a commit that is not there", |site| {
            let path = delta_checkpoint(site);
            std::fs::copy(&path, path.with_file_name("00000000000000000500.checkpoint.parquet"))
                .expect("copied");
        }),
        ("_last_checkpoint of a commit that is not there", |site| {
            replace(
                &delta_checkpoint(site).with_file_name("_last_checkpoint"),
                b"{\"version\":500,\"size\":1}",
            );
        }),
        ("a commit of two files' names", |site| {
            let log = site.volume("events").join("_delta_log");
            std::fs::write(log.join("00000000000000000000.00000000000000000105.compacted.json"), b"{}")
                .expect("written");
        }),
    ];
    let site = long_site();
    let public = public_of(&site.key());
    no_finding(&site.archive(), Some(&public));
    let second = std::env::var("STRONGROOM_VERIFIER").ok();
    if let Some(second) = &second {
        let (kinds, report) = second_opinion(second, &site, &public, &[]);
        assert!(kinds.is_empty(), "{report:#}");
    }
    let log = site.volume("events").join("_delta_log");
    let kept = site.folder.path().join("log");
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
        assert!(copied.success());
    };
    copy(&log, &kept);
    let mut wrong = Vec::new();
    for (name, change) in changes {
        change(&site);
        let (kinds, report) = verify(&site.archive(), Some(&public), &[]);
        if !kinds.contains("delta_checkpoint") {
            wrong.push(format!("{name}: {report:#}"));
        }
        if let Some(second) = &second {
            let (kinds, report) = second_opinion(second, &site, &public, &[]);
            if !kinds.contains("delta_checkpoint") {
                wrong.push(format!("second verifier: {name}: {report:#}"));
            }
        }
        std::fs::remove_dir_all(&log).expect("removed");
        copy(&kept, &log);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_key_proves_nothing() {
    let stranger = public_of(&original().other_key());
    let (kinds, _) = verify(&original().archive(), Some(&stranger), &[]);
    assert_eq!(kinds, BTreeSet::from(["key_untrusted".to_owned()]));
    let report = no_finding(&original().archive(), None);
    assert!(report["not_checked"].to_string().contains("whose key"), "{report:#}");
}

#[test]
fn only_checkpoints_of_the_archive_can_be_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    let note = write(folder.path(), "kept", b"nothing");
    let public = public_of(&original().key());
    let (kinds, _) = verify(&original().archive(), Some(&public), &[note]);
    assert_eq!(kinds, BTreeSet::from(["remembered_invalid".to_owned()]));
}

#[test]
fn untouched_archives_have_no_finding_whatever_their_shape() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let public = new_key(&path("key"));
    let small = write(folder.path(), "small.log", &log(50, 7));
    let empty = write(folder.path(), "empty.log", b"");
    let broken = write(folder.path(), "broken.log", b"nothing of this is an event\n\n\nnor this");

    // Without a key, the logs of the archive are checked, and the report says that they are
    // unsigned.
    expect_code(&mut ingest(&path("plain"), &[&small]), 0);
    let report = no_finding(&path("plain"), None);
    assert!(report["not_checked"].to_string().contains("nothing is signed"), "{report:#}");
    // The key is added later.
    sign_log(&path("plain"), &path("key"), 0);
    assert_eq!(no_finding(&path("plain"), Some(&public))["not_checked"], json!([]));

    // An archive of one empty file, and an archive that has only rejects, are valid.
    expect_code(&mut signed_ingest(&path("empty"), &path("key"), &[&empty]), 1);
    no_finding(&path("empty"), Some(&public));
    expect_code(&mut signed_ingest(&path("rejects"), &path("key"), &[&broken]), 1);
    no_finding(&path("rejects"), Some(&public));

    // A log of many days is ingested four times, alternately without and with the key. Before the
    // third time it has not grown.
    let grown = path("grown.log");
    let bytes = log(9_000, 8);
    for (part, cut) in
        [bytes.len() / 5, bytes.len() / 2, bytes.len() / 2, bytes.len()].into_iter().enumerate()
    {
        std::fs::write(&grown, &bytes[..cut]).expect("written");
        let mut command = ingest(&path("grown"), &[&grown, &small]);
        if part % 2 == 1 {
            command.arg("--key").arg(path("key"));
        }
        output(&mut command);
    }
    assert_eq!(export(&path("grown")).len(), bytes.len() + std::fs::read(&small).expect("readable").len());
    sign_log(&path("grown"), &path("key"), 0);
    assert_eq!(no_finding(&path("grown"), Some(&public))["not_checked"], json!([]));

    // `verify` can be limited to some days, and to what is new since an earlier report.
    let (kinds, report) = judged(
        strongroom()
            .args(["verify", "--from", "2026-03-02", "--to", "2026-03-02", "--json", "-", "--archive"])
            .arg(path("grown")),
        Some(&public),
        &[],
    );
    assert!(kinds.is_empty() && report["not_checked"].to_string().contains("other dates"), "{report:#}");
    let since = |archive: &Path| {
        let mut command = strongroom();
        command
            .args(["verify", "--since-last", "--state"])
            .arg(path("state"))
            .args(["--json", "-", "--archive"])
            .arg(archive);
        judged(&mut command, Some(&public), &[])
    };
    let (kinds, first) = since(&path("grown"));
    assert!(kinds.is_empty() && first["checked"]["files"].as_u64() > Some(0), "{first:#}");
    let (kinds, second) = since(&path("grown"));
    assert!(kinds.is_empty() && second["checked"]["files"] == 0, "{second:#}");
    // Remembered checkpoints are compared with the archive, too.
    std::fs::remove_dir_all(path("grown").join("alerts")).ok();
    let rolled = names(&path("grown").join("events")).pop().expect("a volume").join("_tlog/checkpoint");
    let mut checkpoints = names(&rolled);
    checkpoints.sort();
    std::fs::remove_file(checkpoints.pop().expect("checkpoints")).expect("removed");
    assert!(since(&path("grown")).0.contains("rolled_back"));
}

#[test]
fn a_key_is_changed_and_old_proofs_stay_good() {
    let site = copy();
    let (old, other) = (public_of(&site.key()), public_of(&site.other_key()));
    let proof = site.folder.path().join("before.json");
    prove_first(&site.archive(), &proof);
    let mut rotate = strongroom();
    rotate.args(["key", "rotate", "--archive"]).arg(site.archive());
    rotate.arg("--key").arg(site.key()).arg("--to").arg(site.other_key());
    let (out, _) = expect_code(&mut rotate, 0);
    assert!(out.contains("retired") && out.contains("current"), "{out}");
    // One of the two public keys is enough to verify everything, because the key records lead from
    // each key to the other.
    for public in [&old, &other] {
        no_finding(&site.archive(), Some(public));
        expect_code(strongroom().args(["verify-proof", "--public-key", &old]).arg(&proof), 0);
    }
    // The retired key can no longer sign; the new one can.
    let (_, err) = sign_log(&site.archive(), &site.key(), 2);
    assert!(err.contains("current key"), "{err}");
    let more = write(site.folder.path(), "more.log", &log(300, 77));
    expect_code(&mut signed_ingest(&site.archive(), &site.other_key(), &[&more]), 0);
    assert_eq!(no_finding(&site.archive(), Some(&old))["not_checked"], json!([]));
    let after = site.folder.path().join("after.json");
    prove_first(&site.archive(), &after);
    for public in [&old, &other] {
        expect_code(strongroom().args(["verify-proof", "--public-key", public]).arg(&after), 0);
    }
    // A removed key record leaves a gap.
    std::fs::remove_file(site.archive().join("_keys/00000001")).expect("removed");
    assert!(verify(&site.archive(), Some(&old), &[]).0.contains("key_record"));
}

#[test]
fn a_thief_of_a_retired_key_is_found_out() {
    let site = copy();
    let stale = site.folder.path().join("stale");
    let copied = Command::new("cp").arg("-a").arg(site.archive()).arg(&stale).status().expect("cp runs");
    assert!(copied.success());
    let public = public_of(&site.key());
    let mut rotate = strongroom();
    rotate.args(["key", "rotate", "--archive"]).arg(site.archive());
    expect_code(rotate.arg("--key").arg(site.key()).arg("--to").arg(site.other_key()), 0);
    // The thief has the archive as it was before the rotation, adds commits to it with the retired
    // key, and copies the result over the archive.
    let forged = write(site.folder.path(), "forged.log", &log(200, 99));
    expect_code(&mut signed_ingest(&stale, &site.key(), &[&forged]), 0);
    let laid = Command::new("cp")
        .args(["-a", "-f"])
        .arg(stale.join("."))
        .arg(site.archive())
        .status()
        .expect("cp runs");
    assert!(laid.success());
    let (kinds, report) = verify(&site.archive(), Some(&public), &[]);
    assert!(kinds.contains("key_retired"), "{report:#}");
}

#[test]
fn what_a_stolen_retired_key_signs_proves_no_record() {
    let site = copy();
    let stale = site.folder.path().join("stale");
    let copied = Command::new("cp").arg("-a").arg(site.archive()).arg(&stale).status().expect("cp runs");
    assert!(copied.success());
    let (old, new) = (public_of(&site.key()), public_of(&site.other_key()));
    let mut rotate = strongroom();
    rotate.args(["key", "rotate", "--archive"]).arg(site.archive());
    expect_code(rotate.arg("--key").arg(site.key()).arg("--to").arg(site.other_key()), 0);
    let honest = site.folder.path().join("honest.json");
    prove_first(&site.archive(), &honest);
    // The thief makes another history, with fewer commits than there were when the key was retired.
    for table in ["events", "rejects", "alerts"] {
        std::fs::remove_dir_all(stale.join(table)).expect("removed");
    }
    let forged = write(site.folder.path(), "forged.log", &log(200, 99));
    expect_code(&mut signed_ingest(&stale, &site.key(), &[&forged]), 0);
    let path = site.folder.path().join("forged.json");
    prove_first(&stale, &path);
    let mut proof: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
    let record = |number: u8| {
        let path = site.archive().join(format!("_keys/0000000{number}"));
        json!(std::fs::read_to_string(path).expect("a key record"))
    };
    let holds = |proof: &Value, public: &str, code: i32| {
        std::fs::write(&path, proof.to_string()).expect("written");
        expect_code(strongroom().args(["verify-proof", "--public-key", public]).arg(&path), code);
        if let Ok(verifier) = std::env::var("STRONGROOM_VERIFIER") {
            let words: Vec<&str> = verifier
                .split_whitespace()
                .map(|word| if word == "archive" { "proof" } else { word })
                .collect();
            let mut second = Command::new(words[0]);
            second.args(&words[1..]).arg(&path).args(["--public-key", public]);
            assert_eq!(output(&mut second).status.code(), Some(code), "{second:?}");
        }
    };
    // Somebody who knows only the old key, and is given no newer key record, is deceived. So the
    // newest public key is the one to keep.
    holds(&proof, &old, 0);
    holds(&proof, &new, 1);
    proof["keys"] = json!([record(1), record(2)]);
    for public in [&old, &new] {
        holds(&proof, public, 1);
    }
    let proof: Value = serde_json::from_slice(&std::fs::read(&honest).expect("readable")).expect("JSON");
    for public in [&old, &new] {
        holds(&proof, public, 0);
    }
}

/// Proves the first event of an archive.
fn prove_first(archive: &Path, proof: &Path) -> String {
    let (out, _) = expect_code(
        strongroom()
            .args(["query", "--format", "csv", "--archive"])
            .arg(archive)
            .arg("SELECT audit_id FROM events ORDER BY source, source_offset LIMIT 1"),
        0,
    );
    let audit_id = out.lines().nth(1).expect("an id").to_owned();
    expect_code(
        strongroom().args(["prove", "--archive"]).arg(archive).arg(&audit_id).arg("-o").arg(proof),
        0,
    );
    audit_id
}

#[test]
fn one_record_is_proven_without_the_archive_and_shows_no_other() {
    let site = original();
    let public = public_of(&site.key());
    let folder = tempfile::tempdir().expect("a folder");
    let proof = folder.path().join("proof.json");
    let audit_id = prove_first(&site.archive(), &proof);
    let (records, _) =
        expect_code(strongroom().args(["verify-proof", "--records", "--public-key", &public]).arg(&proof), 0);
    let lines: Vec<&str> = records.lines().collect();
    let source = std::fs::read_to_string(site.folder.path().join("a.log")).expect("readable");
    assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(&audit_id)));
    let all = source.clone() + &std::fs::read_to_string(site.folder.path().join("b.log")).expect("readable");
    assert!(lines.iter().all(|line| all.lines().any(|received| received == *line)));
    let document: Value = serde_json::from_slice(&std::fs::read(&proof).expect("readable")).expect("JSON");
    assert_eq!(document["records"].as_array().map(Vec::len), Some(lines.len()));
    assert!(std::fs::metadata(&proof).expect("the proof is there").len() < 64 << 10, "it is one small file");

    let stranger = public_of(&site.other_key());
    expect_code(strongroom().args(["verify-proof", "--public-key", &stranger]).arg(&proof), 1);
    // Any change makes the proof invalid.
    type Change = fn(&mut Value);
    let changes: &[(&str, Change)] = &[
        ("record", |proof| proof["records"][0]["record"] = json!("e30=")),
        ("row", |proof| {
            proof["records"][0]["row"] = json!(proof["records"][0]["row"].as_u64().expect("a row") + 1)
        }),
        ("path", |proof| proof["records"][0]["path"][0] = json!("00".repeat(32))),
        ("shorter path", |proof| _ = proof["records"][0]["path"].as_array_mut().expect("a list").pop()),
        ("file", |proof| proof["records"][0]["file"] = json!("date=2026-03-02/x.parquet")),
        ("commit", |proof| proof["commits"][0]["commit"] = json!("e30=")),
        ("index", |proof| proof["commits"][0]["index"] = json!(0)),
        ("year", |proof| proof["checkpoints"][0]["year"] = json!(2020)),
        ("archive", |proof| proof["archive_id"] = json!("another")),
        ("manifest", |proof| proof["manifest"] = json!("e30=")),
        ("keys", |proof| proof["keys"] = json!([])),
        ("records", |proof| proof["records"] = json!([])),
    ];
    for (name, change) in changes {
        let mut changed = document.clone();
        change(&mut changed);
        let path = write(folder.path(), "changed.json", changed.to_string().as_bytes());
        let (_, err) =
            expect_code(strongroom().args(["verify-proof", "--public-key", &public]).arg(&path), 1);
        assert!(err.contains("does not hold"), "{name}: {err}");
    }

    let many = folder.path().join("many.json");
    let mut prove = strongroom();
    prove.args(["prove", "--where", "verb = 'delete'", "--archive"]).arg(site.archive()).arg("-o").arg(&many);
    expect_code(&mut prove, 0);
    let (records, _) =
        expect_code(strongroom().args(["verify-proof", "--records", "--public-key", &public]).arg(&many), 0);
    assert!(records.lines().count() > 1 && records.lines().all(|line| line.contains("\"verb\":\"delete\"")));
    let mut none = strongroom();
    none.args(["prove", "no-such-id", "--archive"])
        .arg(site.archive())
        .arg("-o")
        .arg(folder.path().join("none"));
    expect_code(&mut none, 1);
}

#[test]
fn a_program_signs_and_no_key_is_ever_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let public = new_key(&path("key"));
    let secret = std::fs::read_to_string(path("key")).expect("readable");
    let small = write(folder.path(), "small.log", &log(50, 7));
    let mut seen = String::new();
    for command in [
        strongroom().args(["key", "show", "--key"]).arg(path("key")),
        signed_ingest(&path("archive"), &path("key"), &[&small]).arg("-q"),
        strongroom().args(["key", "show", "--archive"]).arg(path("archive")),
        strongroom().args(["key", "new"]).arg(path("key")),
    ] {
        let output = output(command);
        seen += &String::from_utf8_lossy(&output.stdout);
        seen += &String::from_utf8_lossy(&output.stderr);
    }
    let data = secret.trim().rsplit('+').next().expect("data");
    assert!(seen.contains(public.trim()) && !seen.contains(data) && !seen.contains("PRIVATE"), "{seen}");
    assert_eq!(std::fs::read_to_string(path("key")).expect("readable"), secret, "a key is never replaced");
    // The key may be given in the environment as well.
    let more = write(folder.path(), "more.log", &log(60, 8));
    expect_code(ingest(&path("archive"), &[&more]).env("STRONGROOM_KEY", secret.trim()), 0);
    assert_eq!(no_finding(&path("archive"), Some(&public))["not_checked"], json!([]));
    // If the signing program fails, this is reported, and what was sealed is safe.
    let third = write(folder.path(), "third.log", &log(70, 9));
    let mut failing = ingest(&path("archive"), &[&third]);
    failing.args(["--signer", "/bin/false", "--signer-public-key", &public]);
    let (_, err) = expect_code(&mut failing, 0);
    assert!(err.contains("the proof log is behind"), "{err}");
    let report = no_finding(&path("archive"), Some(&public));
    assert!(report["not_checked"].to_string().contains("are not signed yet"), "{report:#}");
    sign_log(&path("archive"), &path("key"), 0);
    assert_eq!(no_finding(&path("archive"), Some(&public))["not_checked"], json!([]));
}
