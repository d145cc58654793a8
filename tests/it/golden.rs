//! This version opens, queries, verifies and continues what an earlier version left on disk.
//!
//! Invariant: the files below `tests/data/format-1/` were written by the binary that the README
//! there names, and never change. What is expected of them is in `expected.json`, and was taken
//! from the same binary. So if a name, number or prefix that the format fixes is changed, this is
//! noticed here even if all code of this version agrees on the change. Queries name the columns
//! that they want, because tables may get more columns. Where a report depends on the time, the
//! test sets the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::daemon::{Daemon, config, wait_until};
use crate::retention::clock_library;
use crate::run::{expect_code, output, strongroom, write, write_secret};

/// Names in the fixture that are not data. These files explain the data, or were used to make it.
const BESIDE: [&str; 3] = [".gitattributes", "README.md", "make"];

/// A fixture, with the test that opens each of its parts.
macro_rules! fixture {
    ($name:ident $folder:literal $($part:literal $open:ident;)*) => {
        mod $name {
            use super::{Fixture, open, parts_of};

            $(
                #[test]
                fn $open() {
                    open::$open(&Fixture::new($folder));
                }
            )*

            #[test]
            fn every_part_is_named() {
                assert_eq!(parts_of($folder), [$($part),*]);
            }
        }
    };
}

fixture! {
    format_1 "format-1"
    "archive.tar" archive;
    "complete-pack" complete_pack;
    "expected.json" expected;
    "keys" keys;
    "logs" logs;
    "outbox" outbox;
    "pack" pack;
    "proof.json" proof;
    "rules.yml" rules;
    "wal" wal;
}

fn parts_of(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(data(folder)).expect("the fixture");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !BESIDE.contains(&name.as_str())).collect();
    names.sort();
    names
}

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

/// The fixture, and a folder for the copies that a test works on.
struct Fixture {
    folder: PathBuf,
    scratch: TempDir,
    expected: Value,
}

impl Fixture {
    fn new(folder: &str) -> Fixture {
        let folder = data(folder);
        let expected = std::fs::read(folder.join("expected.json")).expect("the fixture");
        let expected = serde_json::from_slice(&expected).expect("JSON");
        Fixture { folder, scratch: tempfile::tempdir().expect("a folder"), expected }
    }

    /// Returns the path of a part as it was made. Tests never write there.
    fn part(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.expected[name].as_str().unwrap_or_else(|| panic!("{name} in expected.json")).to_owned()
    }

    /// Unpacks the archive with its file modes, and returns its folder. A test may call this once.
    fn archive(&self) -> PathBuf {
        let archive = self.path("archive");
        if !archive.exists() {
            let mut tar = Command::new("tar");
            tar.arg("-xpf").arg(self.part("archive.tar")).arg("-C").arg(self.scratch.path());
            expect_code(&mut tar, 0);
        }
        archive
    }

    /// Makes a copy of a part that is a folder.
    fn copy(&self, name: &str) -> PathBuf {
        let target = self.path(name);
        copy(&self.part(name), &target);
        target
    }

    /// Makes a copy of a key that only its owner can read. (Git does not store such permissions.)
    fn key(&self, name: &str) -> PathBuf {
        let key = std::fs::read(self.part("keys").join(name)).expect("the fixture");
        let path = write(self.scratch.path(), name, &key);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
        path
    }

    /// Returns the decompressed content of the log with this name. The log was ingested or posted
    /// when the fixture was made.
    fn log(&self, name: &str) -> Vec<u8> {
        let bytes = std::fs::read(self.part("logs").join(name)).expect("the fixture");
        if !name.ends_with(".gz") {
            return bytes;
        }
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).expect("gzip");
        text
    }

    /// Sets the clock of a command to the time at which the expectations were written down.
    fn then<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let time = DateTime::parse_from_rfc3339(&self.text("looked_at")).expect("a time");
        let seconds = time.timestamp() - Utc::now().timestamp();
        let offset = write(self.scratch.path(), "clock", seconds.to_string().as_bytes());
        command.env("LD_PRELOAD", clock_library()).env("STRONGROOM_TEST_CLOCK", offset)
    }

    fn answer(&self, archive: &Path, sql: &str) -> Vec<u8> {
        let mut query = strongroom();
        query.args(["query", "--quiet", "--format", "json", "--archive"]).arg(archive).arg(sql);
        let answer = output(&mut query);
        assert!(answer.status.success(), "{sql}: {}", String::from_utf8_lossy(&answer.stderr));
        answer.stdout
    }

    fn rows(&self, archive: &Path, sql: &str) -> Vec<Value> {
        let answer = self.answer(archive, sql);
        let rows = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        rows.map(|row| serde_json::from_slice(row).expect("JSON")).collect()
    }

    fn count(&self, archive: &Path, sql: &str) -> u64 {
        self.rows(archive, &format!("SELECT count(*) AS n FROM {sql}"))[0]["n"].as_u64().expect("a count")
    }

    fn public_key(&self) -> Vec<String> {
        vec!["--public-key".to_owned(), self.expected["keys"]["audit-1"].as_str().expect("a key").to_owned()]
    }

    /// Returns the arguments that trust the witness and the first key. The first key vouches for
    /// all later keys.
    fn trusted(&self) -> Vec<String> {
        let mut words = self.public_key();
        words.extend(["--witness".to_owned(), self.text("witness")]);
        words
    }

    /// Runs a verifier that must find nothing, and returns its report.
    fn report(&self, mut command: Command, path: &Path) -> Value {
        self.then(command.arg("--json").arg(path));
        let (out, err) = expect_code(&mut command, 0);
        let report = std::fs::read(path).unwrap_or_else(|error| panic!("{command:?}: {error}: {out}{err}"));
        let report: Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!(report["findings"], Value::Array(Vec::new()), "{command:?}");
        report
    }

    fn ours(&self, words: &[&str], place: &Path, trusted: &[String]) -> Value {
        let mut command = strongroom();
        command.args(words).arg(place).args(trusted);
        self.report(command, &self.path("ours.json"))
    }

    fn theirs(&self, words: &[&str], place: &Path, trusted: &[String]) -> Value {
        let mut command = second();
        let (kind, options) = words.split_first().expect("a command");
        command.arg(kind).arg(place).args(options).args(trusted);
        self.report(command, &self.path("theirs.json"))
    }

    /// Asserts that a report says what `expected.json` has. Counters that only a later verifier has
    /// are ignored.
    fn agrees(&self, report: &Value, name: &str) {
        let expected = &self.expected["verified"][name];
        assert!(expected.is_object(), "{name} in expected.json");
        // The second verifier uses other words for what it skips without a Parquet reader.
        if !name.ends_with("second") {
            assert_eq!(report["not_checked"], expected["not_checked"], "{name}");
        }
        for (counter, count) in expected["checked"].as_object().expect("counters") {
            assert_eq!(&report["checked"][counter], count, "{name}: {counter}");
        }
        for member in ["archive_id", "heads"] {
            if !expected[member].is_null() {
                assert_eq!(report[member], expected[member], "{name}: {member}");
            }
        }
    }
}

/// A command that runs the second verifier, which shares no code with this program.
fn second() -> Command {
    let python = std::env::var_os("STRONGROOM_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/verify.py"));
    command
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &target) } else { _ = std::fs::copy(&path, &target).expect("copied") }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn export(archive: &Path, source: Option<&str>) -> Vec<u8> {
    let mut command = strongroom();
    command.args(["export", "--quiet", "--archive"]).arg(archive);
    if let Some(source) = source {
        command.args(["--source", source]);
    }
    let exported = output(&mut command);
    assert!(exported.status.success(), "{source:?}: {}", String::from_utf8_lossy(&exported.stderr));
    exported.stdout
}

/// Returns the exported streams by name, each with what is expected of it.
fn streams(fixture: &Fixture) -> BTreeMap<String, Value> {
    let exports = fixture.expected["exports"].as_object().expect("streams");
    exports.iter().map(|(name, stream)| (name.clone(), stream.clone())).collect()
}

/// Asserts that each stream, except those in `except`, is exported from `archive` byte for byte.
fn streams_come_back(fixture: &Fixture, archive: &Path, except: &[&str]) {
    for (name, stream) in streams(fixture) {
        if except.contains(&name.as_str()) {
            continue;
        }
        let exported = export(archive, stream["partition"].as_str());
        assert_eq!(sha256(&exported), stream["sha256"].as_str().expect("a hash"), "{name}");
        if name != "webhook" {
            let from = usize::try_from(stream["from"].as_u64().expect("an offset")).expect("a small number");
            assert!(exported == fixture.log(&name)[from..], "{name}");
        }
    }
}

/// Starts a daemon on copies of the fixture, with a webhook as its source and a file as its sink.
fn start(fixture: &Fixture, archive: &Path, outbox: &Path, wal: &Path) -> Daemon {
    let token = write_secret(fixture.scratch.path(), "token", b"a-token-that-opens-nothing");
    let rest = format!(
        "[seal]\ninterval = '200ms'\nkey_file = '{}'\n[rules]\nbuiltin = false\npaths = ['{}']\n[alerts]\nstdout = false\n\
         [outbox]\nfolder = '{}'\n[[webhook]]\nname = 'api'\nlisten = '127.0.0.1:0'\ntoken_file = '{}'\nwal = '{}'\n\
         [[webhook.route]]\npath = '/prod'\ncluster = 'prod'\n[[sink]]\nname = '{}'\ntype = 'file'\npath = '{}'\n",
        fixture.key("audit-2.key").display(),
        fixture.part("rules.yml").display(),
        outbox.display(),
        token.display(),
        wal.display(),
        fixture.expected["outbox"]["sink"].as_str().expect("a name"),
        fixture.path("alerts.jsonl").display(),
    );
    Daemon::start(&config(fixture.scratch.path(), &archive.display().to_string(), &rest))
}

/// Returns the ids of the findings in `lines`, which has one finding on each line.
fn ids(lines: &str) -> Vec<String> {
    let id = |line: &str| {
        let finding: Value = serde_json::from_str(line).expect("a finding");
        finding["finding_info"]["uid"].as_str().expect("an id").to_owned()
    };
    lines.lines().map(id).collect()
}

/// Returns the ids of the findings that the file sink has received.
fn delivered(fixture: &Fixture) -> Vec<String> {
    let text = std::fs::read_to_string(fixture.path("alerts.jsonl")).unwrap_or_default();
    ids(text.rsplit_once('\n').map_or("", |(whole, _)| whole))
}

fn outbox_ids(fixture: &Fixture) -> BTreeSet<String> {
    let ids = fixture.expected["outbox"]["alerts"].as_array().expect("ids").iter();
    ids.map(|id| id.as_str().expect("an id").to_owned()).collect()
}

/// Functions that open the parts of the fixture, one for each part.
mod open {
    use super::*;

    /// The archive is exported, queried and verified with the results that are in `expected.json`.
    pub fn archive(fixture: &Fixture) {
        let archive = fixture.archive();
        streams_come_back(fixture, &archive, &[]);
        let all = export(&archive, None);
        assert_eq!(sha256(&all), fixture.expected["whole_export"]["sha256"].as_str().expect("a hash"));
        let mut list = strongroom();
        let (listed, _) = expect_code(list.args(["export", "--list", "--archive"]).arg(&archive), 0);
        for (name, stream) in streams(fixture) {
            let (partition, label) = (stream["partition"].as_str(), stream["label"].as_str());
            let line = format!("{}\t", partition.expect("a partition"));
            let line =
                listed.lines().find(|listed| listed.starts_with(&line)).unwrap_or_else(|| panic!("{name}"));
            assert!(line.ends_with(&format!("\t{}", label.expect("a label"))), "{line}");
        }

        let answers = fixture.expected["answers"].as_object().expect("answers");
        assert!(answers.len() > 9, "{} statements", answers.len());
        for (name, answer) in answers {
            let rows = fixture.rows(&archive, answer["sql"].as_str().expect("SQL"));
            assert_eq!(&rows, answer["rows"].as_array().expect("rows"), "{name}");
        }
        for (table, whole) in fixture.expected["whole_tables"].as_object().expect("tables") {
            let answer = fixture.answer(&archive, whole["sql"].as_str().expect("SQL"));
            assert_eq!(sha256(&answer), whole["sha256"].as_str().expect("a hash"), "{table}");
        }

        let authorities = ["--tsa-ca".to_owned(), fixture.part("keys/tsa-ca.pem").display().to_string()];
        let anchored = [fixture.trusted(), authorities.to_vec()].concat();
        let public = fixture.public_key();
        for (trusted, name) in [(&anchored, "archive"), (&public, "archive, without anchors")] {
            let ours = fixture.ours(&["verify", "--archive"], &archive, trusted);
            fixture.agrees(&ours, name);
            let theirs = fixture.theirs(&["archive", "--no-rows"], &archive, trusted);
            fixture.agrees(&theirs, &format!("{name}, second"));
            assert_eq!(ours["heads"], theirs["heads"]);
        }
        if std::env::var_os("STRONGROOM_PYTHON").is_some() {
            // With a Parquet reader the rows are checked as well, and are valid.
            let theirs = fixture.theirs(&["archive"], &archive, &anchored);
            assert_eq!(theirs["heads"], fixture.expected["verified"]["archive"]["heads"]);
        }

        let mut holds = strongroom();
        let (holds, _) = expect_code(holds.args(["hold", "list", "--json", "--archive"]).arg(&archive), 0);
        let holds: Value = serde_json::from_str(&holds).expect("JSON");
        assert_eq!(holds["holds"], fixture.expected["holds"]);
        let mut status = strongroom();
        status.args(["retention", "status", "--json", "--archive"]).arg(&archive);
        let (status, _) = expect_code(fixture.then(&mut status), 0);
        let status: Value = serde_json::from_str(&status).expect("JSON");
        for (member, expected) in fixture.expected["retention"].as_object().expect("members") {
            let Some(volumes) = expected.as_array().filter(|_| member == "volumes") else {
                assert_eq!(&status[member], expected, "{member}");
                continue;
            };
            let found = status["volumes"].as_array().expect("volumes");
            assert_eq!(found.len(), volumes.len());
            for (found, expected) in found.iter().zip(volumes) {
                for (member, expected) in expected.as_object().expect("members") {
                    assert_eq!(&found[member], expected, "{found:#}");
                }
            }
        }
    }

    pub fn complete_pack(fixture: &Fixture) {
        a_pack(fixture, "complete-pack");
    }

    pub fn pack(fixture: &Fixture) {
        a_pack(fixture, "pack");
    }

    fn a_pack(fixture: &Fixture, name: &str) {
        let (pack, trusted) = (fixture.part(name), fixture.public_key());
        let ours = fixture.ours(&["evidence", "check", "--quiet"], &pack, &trusted);
        fixture.agrees(&ours, name);
        let theirs = fixture.theirs(&["pack"], &pack, &trusted);
        fixture.agrees(&theirs, &format!("{name}, second"));
        assert_eq!(ours["heads"], theirs["heads"]);
    }

    pub fn proof(fixture: &Fixture) {
        let (proof, trusted) = (fixture.part("proof.json"), fixture.public_key());
        let mut ours = strongroom();
        ours.args(["verify-proof", "--records"]).arg(&proof).args(&trusted);
        let proven = output(fixture.then(&mut ours));
        assert!(proven.status.success(), "{}", String::from_utf8_lossy(&proven.stderr));
        assert_eq!(sha256(&proven.stdout), fixture.expected["proven"]["sha256"].as_str().expect("a hash"));
        let theirs = fixture.theirs(&["proof"], &proof, &trusted);
        fixture.agrees(&theirs, "proof, second");
    }

    /// Since the fixture was made, no file in it was changed and none was added.
    pub fn expected(fixture: &Fixture) {
        let files = fixture.expected["files"].as_object().expect("files");
        let mut found = BTreeMap::new();
        for path in files_below(&fixture.folder) {
            let name = path.strip_prefix(&fixture.folder).expect("below it").to_string_lossy().into_owned();
            if name != "expected.json" && !BESIDE.contains(&name.as_str()) {
                found.insert(name, Value::from(sha256(&std::fs::read(&path).expect("the fixture"))));
            }
        }
        let expected: BTreeMap<String, Value> =
            files.iter().map(|(name, hash)| (name.clone(), hash.clone())).collect();
        assert_eq!(found, expected);
    }

    /// Private keys are read only with owner permissions, and are those of the archive and of its
    /// witness.
    pub fn keys(fixture: &Fixture) {
        let show = |words: &[&str], key: &Path, code| {
            let mut command = strongroom();
            command.args(["key", "show"]).args(words).arg("--key").arg(key);
            expect_code(&mut command, code)
        };
        for name in ["audit-1", "audit-2"] {
            let (public, _) = show(&[], &fixture.key(&format!("{name}.key")), 0);
            assert_eq!(public.trim(), fixture.expected["keys"][name].as_str().expect("a key"), "{name}");
        }
        let (witness, _) = show(&["--witness"], &fixture.key("witness.key"), 0);
        assert_eq!(witness.trim(), fixture.text("witness"));
        let open = fixture.key("audit-1.key");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).expect("permissions");
        let (_, err) = show(&[], &open, 2);
        assert!(err.contains("other users may read"), "{err}");
        let mut of_archive = strongroom();
        of_archive.args(["key", "show", "--archive"]).arg(fixture.archive());
        let (chain, _) = expect_code(&mut of_archive, 0);
        let key = |name: &str| {
            let vkey = fixture.expected["keys"][name].as_str().expect("a key");
            vkey.rsplit('+').next().expect("base64").to_owned()
        };
        let lines: Vec<&str> = chain.lines().collect();
        let [first, newest] = &lines[..] else { panic!("{chain}") };
        assert!(first.contains(&key("audit-1")) && first.ends_with("retired"), "{chain}");
        assert!(newest.contains(&key("audit-2")) && newest.ends_with("current"), "{chain}");
    }

    /// This version seals the same logs into a new archive. Partitions, positions, rows and ids are
    /// the same as in the old one.
    pub fn logs(fixture: &Fixture) {
        let (then, now) = (fixture.archive(), fixture.path("now"));
        let key = fixture.key("audit-1.key");
        let mut clusters: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
        for (name, _) in streams(fixture).iter().filter(|(name, _)| *name != "webhook") {
            let cluster = match name.as_str() {
                "eks.json" => "eks",
                "aks.json" => "aks",
                "gke.json" => "gke",
                "trickle.log" => "staging",
                _ => "prod",
            };
            clusters.entry(cluster).or_default().push(fixture.part("logs").join(name));
        }
        for (cluster, logs) in clusters {
            let mut ingest = strongroom();
            ingest.args([
                "ingest",
                "--cluster",
                cluster,
                "--no-builtin-rules",
                "--complete",
                "--quiet",
                "--rules",
            ]);
            ingest
                .arg(fixture.part("rules.yml"))
                .arg("--archive")
                .arg(&now)
                .arg("--key")
                .arg(&key)
                .args(logs);
            let run = output(&mut ingest);
            let code = run.status.code();
            assert!(matches!(code, Some(0 | 1)), "{cluster}: {}", String::from_utf8_lossy(&run.stderr));
        }

        let (mut tags, mut appids, mut positions) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for (name, action) in actions(&now) {
            if let Some(add) = action.get("add") {
                tags.extend(add["tags"].as_object().expect("tags").keys().cloned());
            }
            if let Some(txn) = action.get("txn") {
                let appid = txn["appId"].as_str().expect("an id");
                let (partition, what) = appid.split_once('#').unwrap_or((appid, ""));
                appids.insert(appid[partition.len()..].to_owned());
                if name.starts_with("events/") {
                    let what = if what.is_empty() { "offset" } else { what };
                    positions.insert((partition.to_owned(), what.to_owned()), txn["version"].clone());
                }
            }
        }
        let constants = &fixture.expected["constants"];
        let named = |name: &str| -> BTreeSet<String> {
            let names = constants[name].as_array().expect("names").iter();
            names.map(|name| name.as_str().expect("a name").to_owned()).collect()
        };
        assert!(tags.is_superset(&named("tags")), "{tags:?}");
        assert!(appids.is_superset(&named("appids")), "{appids:?}");
        for (name, stream) in streams(fixture).iter().filter(|(name, _)| *name != "webhook") {
            let partition = stream["partition"].as_str().expect("a partition");
            // The partition of an empty file is named after the file's path, and here the path is
            // different.
            if partition.starts_with("empty/") {
                continue;
            }
            for (what, version) in stream["position"].as_object().expect("positions") {
                let found = positions.get(&(partition.to_owned(), what.clone()));
                assert_eq!(found, Some(version), "{name}: {what}");
            }
        }

        // The stored form of a record may change (`raw`, `shape`); its content may not.
        let columns = "audit_id, stage, level, verb, request_uri, user_name, user_uid, user_groups, user_extra, \
                       impersonated_user_name, impersonated_user_groups, impersonated_user_extra, source_ips, user_agent, \
                       resource, subresource, namespace, name, api_group, api_version, object_uid, resource_version, \
                       response_code, response_status, response_reason, response_message, response_details, \
                       request_object, response_object, annotations, authz_decision, authz_reason, \
                       request_received_timestamp, stage_timestamp, cluster, source, source_offset";
        for name in
            ["control-plane.log", "event-list.json", "old-api.log", "one.log", "packed.log.gz", "trickle.log"]
        {
            let stream = &fixture.expected["exports"][name];
            let (source, from) = (stream["partition"].as_str().expect("a partition"), &stream["from"]);
            let sql = format!(
                "SELECT {columns} FROM events WHERE source = '{source}' AND source_offset >= {from} ORDER BY source_offset"
            );
            let rows = fixture.rows(&then, &sql);
            assert!(!rows.is_empty(), "{name}");
            assert_eq!(fixture.rows(&now, &sql), rows, "{name}");
            let sql = format!("SELECT alert_id FROM alerts WHERE source = '{source}' ORDER BY alert_id");
            let ids = |archive| -> BTreeSet<String> {
                fixture.rows(archive, &sql).iter().map(|row| row["alert_id"].to_string()).collect()
            };
            assert!(ids(&now).is_superset(&ids(&then)), "{name}");
        }
        assert!(fixture.count(&then, "alerts WHERE source LIKE 'file/%'") > 3);
    }

    /// Alerts in the outbox that had not reached a sink are delivered, although the archive that
    /// they are from is missing.
    pub fn outbox(fixture: &Fixture) {
        let (outbox, ids) = (fixture.copy("outbox"), outbox_ids(fixture));
        assert!(ids.len() > 4, "{ids:?}");
        let mut daemon = start(fixture, &fixture.path("fresh"), &outbox, &fixture.path("fresh-wal"));
        wait_until("all are delivered", || delivered(fixture).len() >= ids.len());
        assert_eq!(delivered(fixture).into_iter().collect::<BTreeSet<_>>(), ids);
        let lag =
            format!("sink_lag{{sink=\"{}\"}}", fixture.expected["outbox"]["sink"].as_str().expect("a name"));
        daemon.wait_for_metric(&lag, 0.0);
        let (status, log) = daemon.terminate();
        assert!(status.success(), "{log}");
        assert_eq!(delivered(fixture).len(), ids.len(), "each alert is delivered once");
    }

    /// The old rule, used for a hunt, finds the old alerts in the old events.
    pub fn rules(fixture: &Fixture) {
        let archive = fixture.archive();
        let mut hunt = strongroom();
        hunt.args(["hunt", "--format", "json", "--rule"]).arg(fixture.part("rules.yml"));
        let (found, _) = expect_code(hunt.arg("--archive").arg(&archive), 0);
        let found: BTreeSet<String> = ids(&found).into_iter().collect();
        let sealed = fixture.rows(&archive, "SELECT alert_id FROM alerts");
        let sealed = sealed.iter().map(|row| row["alert_id"].as_str().expect("an id").to_owned());
        assert!(found.len() > 9, "{found:?}");
        assert_eq!(found, sealed.collect::<BTreeSet<_>>());
    }

    /// The write-ahead log is read together with its archive, because what the archive has sealed
    /// is no longer in the log.
    pub fn wal(_: &Fixture) {
        a_daemon_that_was_killed_is_continued();
    }
}

/// Returns the actions of all commits, each with the name of its volume.
fn actions(archive: &Path) -> Vec<(String, Value)> {
    let commits = files_below(archive).into_iter().filter(|path| {
        let text = path.to_string_lossy();
        text.contains("/_delta_log/") && text.ends_with(".json")
    });
    let read = |path: PathBuf| {
        let volume = path.parent().and_then(Path::parent).expect("a volume");
        let name = volume.strip_prefix(archive).expect("below it").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("text");
        let actions: Vec<_> = text
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| (name.clone(), serde_json::from_str(line).expect("JSON")))
            .collect();
        actions
    };
    commits.flat_map(read).collect()
}

/// This version takes over an archive, an outbox and a write-ahead log as a killed daemon left
/// them.
#[test]
fn a_daemon_that_was_killed_is_continued() {
    let fixture = Fixture::new("format-1");
    let (archive, outbox, wal) = (fixture.archive(), fixture.copy("outbox"), fixture.copy("wal"));
    let before = fixture.count(&archive, "events");
    let sealed = fixture.count(&archive, "events WHERE source LIKE 'webhook/%'");
    let acknowledged = fixture.expected["wal"]["events"].as_u64().expect("a count");
    assert!(0 < sealed && sealed < acknowledged, "{sealed} of {acknowledged}");
    let mut daemon = start(&fixture, &archive, &outbox, &wal);
    daemon.wait_for_metric("sealed_events_total", (acknowledged - sealed) as f64);
    let ids = outbox_ids(&fixture);
    wait_until("all are delivered", || delivered(&fixture).len() >= ids.len());
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    assert_eq!(delivered(&fixture).into_iter().collect::<BTreeSet<_>>(), ids);
    assert_eq!(fixture.count(&archive, "events"), before + acknowledged - sealed);
    streams_come_back(&fixture, &archive, &["webhook"]);
    let partition = fixture.expected["exports"]["webhook"]["partition"].as_str();
    assert_eq!(
        sha256(&export(&archive, partition)),
        fixture.expected["wal"]["sha256"].as_str().expect("a hash")
    );
    verified(&fixture, &archive);
}

/// Asserts that neither verifier finds anything, with the clock not set.
fn verified(fixture: &Fixture, archive: &Path) {
    let mut ours = strongroom();
    ours.args(["verify", "--quiet", "--archive"]).arg(archive).args(fixture.public_key());
    expect_code(&mut ours, 0);
    let mut theirs = second();
    theirs.arg("archive").arg(archive).args(fixture.public_key());
    expect_code(&mut theirs, 0);
}

/// An old archive gets more events of a source, a new source, a new key and a hold.
#[test]
fn an_archive_of_then_grows() {
    let fixture = Fixture::new("format-1");
    let archive = fixture.archive();
    let (key, newer) = (fixture.key("audit-2.key"), fixture.path("audit-3.key"));
    let before = fixture.count(&archive, "events");
    let rejects = fixture.count(&archive, "rejects");
    let ingest = |name: &str, bytes: &[u8], cluster: &str, key: &Path, code: i32| {
        let path = write(fixture.scratch.path(), name, bytes);
        let mut ingest = strongroom();
        ingest.args(["ingest", "--no-builtin-rules", "--rules"]).arg(fixture.part("rules.yml"));
        ingest
            .args(["--quiet", "--cluster", cluster, "--archive"])
            .arg(&archive)
            .arg("--key")
            .arg(key)
            .arg(path);
        expect_code(&mut ingest, code);
    };
    // A second run finds nothing new.
    let mut trickle = fixture.log("trickle.log");
    ingest("trickle.log", &trickle, "staging", &key, 0);
    assert_eq!(fixture.count(&archive, "events"), before);
    let mut more: Vec<u8> = crate::run::log(20, 7);
    trickle.extend_from_slice(&more);
    trickle.extend_from_slice(b"this is no event\n");
    ingest("trickle.log", &trickle, "staging", &key, 1);
    let mut grown = fixture.log("control-plane.log");
    grown.append(&mut more);
    ingest("control-plane.log", &grown, "prod", &key, 0);
    let new = crate::run::log(30, 8);
    ingest("new.log", &new, "prod", &key, 0);
    assert_eq!(fixture.count(&archive, "events"), before + 70);
    assert_eq!(fixture.count(&archive, "rejects"), rejects + 1);
    verified(&fixture, &archive);

    let stream = |name: &str| fixture.expected["exports"][name].clone();
    assert!(export(&archive, stream("trickle.log")["partition"].as_str()) == trickle);
    let from = usize::try_from(stream("control-plane.log")["from"].as_u64().expect("an offset"))
        .expect("a small number");
    assert!(export(&archive, stream("control-plane.log")["partition"].as_str()) == grown[from..]);
    assert!(export(&archive, Some("new.log")) == new);
    streams_come_back(&fixture, &archive, &["trickle.log", "control-plane.log"]);

    expect_code(strongroom().args(["key", "new"]).arg(&newer), 0);
    let mut rotate = strongroom();
    rotate.args(["key", "rotate", "--archive"]).arg(&archive).arg("--key").arg(&key).arg("--to").arg(&newer);
    expect_code(&mut rotate, 0);
    ingest("last.log", &crate::run::log(10, 9), "prod", &newer, 0);
    let command = |words: &[&str]| {
        let mut command = strongroom();
        command.args(words).arg("--archive").arg(&archive);
        expect_code(&mut command, 0).0
    };
    command(&["hold", "place", "--reason", "case 3", "--from", "2025-01-01", "case-3"]);
    command(&["hold", "refresh"]);
    // A hold that was placed with a key can be released only with a key.
    let newest_key = newer.display().to_string();
    command(&["hold", "release", "case-1", "--reason", "case 1 is closed", "--key", &newest_key]);
    verified(&fixture, &archive);
    let proof = fixture.path("proof.json");
    let out = proof.display().to_string();
    command(&["prove", "--where", "cluster IN ('eks', 'staging')", "-o", &out]);
    let mut theirs = second();
    theirs.arg("proof").arg(&proof).args(fixture.public_key());
    expect_code(&mut theirs, 0);
}

/// Returns the Merkle tree hash, as RFC 6962 defines it.
fn tree(leaves: &[Vec<u8>]) -> [u8; 32] {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => Sha256::digest([&[0], &leaf[..]].concat()).into(),
        _ => {
            let half = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(half);
            Sha256::digest([&[1], &tree(left)[..], &tree(right)[..]].concat()).into()
        }
    }
}

/// The constants that the format fixes are written in this test a second time and compared with the
/// old bytes. The other tests read the same bytes with the program. So if a constant is changed
/// everywhere in the program, this test or one of them fails.
#[test]
fn constants_are_those_of_format_1() {
    let fixture = Fixture::new("format-1");
    let (archive, id) = (fixture.archive(), fixture.text("archive_id"));
    let manifest = std::fs::read(archive.join("strongroom.json")).expect("a manifest");
    let manifest_json: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!((&manifest_json["format"], &manifest_json["archive_id"]), (&1.into(), &id.clone().into()));
    let key = |vkey: &Value| vkey.as_str().and_then(|vkey| vkey.rsplit('+').next()).map(str::to_owned);
    assert_eq!(key(&manifest_json["public_key"]), key(&fixture.expected["keys"]["audit-1"]));

    let volumes = fixture.expected["constants"]["volumes"].as_object().expect("volumes");
    let names: BTreeSet<&str> = volumes.keys().map(String::as_str).collect();
    let years = [
        "alerts/2025",
        "alerts/2026",
        "events/2025",
        "events/2026",
        "rejects/2019",
        "rejects/2025",
        "rejects/2026",
    ];
    assert_eq!(names, BTreeSet::from(years));
    for (name, expected) in volumes {
        let volume = archive.join(name);
        let count = expected["commits"].as_u64().expect("a count");
        let commits: Vec<Vec<u8>> = (0..count)
            .map(|at| std::fs::read(volume.join(format!("_delta_log/{at:020}.json"))).expect("a commit"))
            .collect();
        assert_eq!(sha256(&commits.concat()), expected["commits_sha256"].as_str().expect("a hash"), "{name}");
        let origin = format!("strongroom/{id}/{name}");
        let root = BASE64.encode(tree(&commits));
        assert_eq!((&expected["origin"], &expected["root"]), (&origin.clone().into(), &root.clone().into()));
        // The name of a checkpoint's file has the id of the key, which depends on the origin.
        let known = ["audit-1", "audit-2"].map(|key| {
            let vkey = fixture.expected["keys"][key].as_str().expect("a key");
            let public = BASE64.decode(vkey.rsplit('+').next().expect("base64")).expect("base64");
            assert_eq!(public[0], 1, "Ed25519");
            hex(&Sha256::digest([origin.as_bytes(), b"\n", &public].concat())[..4])
        });
        let checkpoint = |id: &String| volume.join(format!("_tlog/checkpoint/{count:020}-{id}"));
        let newest: Vec<String> =
            known.iter().filter_map(|id| std::fs::read_to_string(checkpoint(id)).ok()).collect();
        let text = format!("{origin}\n{count}\n{root}\n\n\u{2014} {origin} ");
        assert!(!newest.is_empty() && newest.iter().all(|note| note.starts_with(&text)), "{name}");
        let folder = |name: &str| std::fs::read_dir(volume.join(name)).map_or(0, Iterator::count) as u64;
        assert_eq!(Some(folder("_tlog/witness")), expected["cosigned"].as_u64(), "{name}");
        assert_eq!(Some(folder("_tlog/timestamp")), expected["stamped"].as_u64(), "{name}");
        let checkpoints = files_below(&volume.join("_delta_log")).into_iter();
        let checkpoints = checkpoints.filter(|path| path.to_string_lossy().ends_with(".checkpoint.parquet"));
        assert_eq!(Some(checkpoints.count() as u64), expected["delta_checkpoints"].as_u64(), "{name}");
    }
    assert!(volumes["events/2026"]["commits"].as_u64() > Some(100));
    assert_eq!(volumes["events/2026"]["delta_checkpoints"], 1);

    // A file with a single event: the root over its records is the hash of the one leaf.
    let one = fixture.log("one.log");
    let record = one.strip_suffix(b"\n").expect("a line");
    let root = hex(&tree(&[record.to_vec()]));
    let actions = actions(&archive);
    let adds = || actions.iter().filter_map(|(_, action)| action.get("add"));
    assert_eq!(adds().filter(|add| add["tags"]["record_root"] == root.as_str()).count(), 1);
    for (volume, action) in &actions {
        if let Some(add) = action.get("add") {
            let tags: BTreeSet<&str> =
                add["tags"].as_object().expect("tags").keys().map(String::as_str).collect();
            assert_eq!(tags, BTreeSet::from(["offsets", "record_root", "rows", "sha256"]));
            let path = archive.join(volume).join(add["path"].as_str().expect("a path"));
            let bytes = std::fs::read(&path).expect("a file");
            assert_eq!(add["tags"]["sha256"], sha256(&bytes).as_str());
            let (day, name) = add["path"].as_str().and_then(|path| path.split_once('/')).expect("a folder");
            let digits = name.strip_suffix(".parquet").expect("Parquet");
            assert!(digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
            assert_eq!(day, format!("date={}", add["partitionValues"]["date"].as_str().expect("a day")));
            let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o444, "sealed files are read-only");
        }
        if let Some(txn) = action.get("txn") {
            let appid = txn["appId"].as_str().expect("an id");
            let (partition, what) = appid.split_once('#').unwrap_or((appid, ""));
            assert!(["", "records", "blake3.hi", "blake3.lo"].contains(&what), "{appid}");
            assert!(
                ["file/", "webhook/api/", "empty/"].iter().any(|kind| partition.starts_with(kind)),
                "{appid}"
            );
        }
    }

    let first = |path: &str| {
        let text =
            std::fs::read_to_string(archive.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.lines().next().expect("a line").to_owned()
    };
    for (path, line) in [
        ("_keys/00000001", "strongroom key 1"),
        ("_keys/00000002", "strongroom key 2"),
        ("_retention/00000001", "strongroom retention 1"),
        ("_holds/00000001", "strongroom hold 1"),
        ("_holds/00000001-00000001", "strongroom held 1 1"),
        ("_holds/00000003", "strongroom hold 3"),
        ("_dropped/events-2019", "strongroom dropped events/2019"),
        ("_dropped/alerts-2019", "strongroom dropped alerts/2019"),
    ] {
        assert_eq!(first(path), line);
    }
    for (path, expected) in fixture.expected["constants"]["texts"].as_object().expect("texts") {
        let bytes = std::fs::read(archive.join(path)).expect("a record");
        assert_eq!(sha256(&bytes), expected["sha256"].as_str().expect("a hash"), "{path}");
    }
    let document = |path: PathBuf| -> Value {
        serde_json::from_slice(&std::fs::read(path).expect("a document")).expect("JSON")
    };
    let pack = fixture.part("pack");
    for (path, format) in [
        (archive.join("_dropped/events-2019.state"), "strongroom-dropped-1"),
        (fixture.part("proof.json"), "strongroom-proof-1"),
        (pack.join("manifest.json"), "strongroom-evidence-1"),
        (pack.join("archive-files.json"), "strongroom-evidence-files-1"),
        (pack.join("gaps.json"), "strongroom-gaps-1"),
        (pack.join("store.json"), "strongroom-store-1"),
        (pack.join("verification.json"), "strongroom-verify-1"),
    ] {
        assert_eq!(document(path)["format"], format);
    }
    let note = std::fs::read_to_string(pack.join("manifest.note")).expect("a note");
    let manifest = std::fs::read(pack.join("manifest.json")).expect("a manifest");
    assert!(note.starts_with(&format!("strongroom/{id}/evidence\n{}\n\n", sha256(&manifest))), "{note}");
    assert!(!fixture.part("complete-pack/manifest.note").exists(), "the complete pack is not signed");
    // Reports of this version.
    let ours = fixture.ours(&["verify", "--archive"], &archive, &fixture.public_key());
    assert_eq!(ours["format"], "strongroom-verify-1");
    let ours = fixture.ours(&["evidence", "check", "--quiet"], &pack, &fixture.public_key());
    assert_eq!(ours["format"], "strongroom-pack-check-1");
}
