//! Retention: the promised years can be extended but never shortened. A hold keeps data for longer
//! than that. Expired data is only reported; it is dropped only by somebody who names it and has
//! the key. All this is tested on a disk and in a real store, which must refuse some of the
//! requests.
//!
//! The tests set the clock of programs (`tests/tools/clock.c`). The clock of the store cannot be
//! set. So an old volume is first made on a disk by programs whose clock is set back, and then put
//! into the store with a retention of seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, DateTime as SdkTime};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention,
    ObjectLockRetentionMode,
};
use chrono::{DateTime, Datelike as _, Days, Months, Utc};
use serde_json::Value;
use strongroom_generate::{Generator, GeneratorOptions};
use tempfile::TempDir;

use crate::run::{expect_code, is_long, log, output, strongroom, write};
use crate::s3::{self, Outsider, at};

/// Age in days of the old volume of these tests: eight years.
const AGO_DAYS: u64 = 8 * 365 + 2;

fn long_ago() -> DateTime<Utc> {
    Utc::now() - Days::new(AGO_DAYS)
}

fn old(table: &str) -> String {
    format!("{table}/{}", long_ago().year())
}

fn present(table: &str) -> String {
    format!("{table}/{}", Utc::now().year())
}

/// Returns a generated log of `events` events. The time of the first one is `start`.
fn log_from(events: u64, seed: u64, start: DateTime<Utc>) -> Vec<u8> {
    let options = GeneratorOptions { seed, events, start, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("valid options");
    let mut log = Vec::new();
    while generator.next_line(&mut log) {}
    log
}

/// Returns the path of the library that shifts the clock of a program.
pub fn clock_library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &LIBRARY
        .get_or_init(|| {
            let folder = tempfile::tempdir().expect("a folder");
            let library = folder.path().join("clock.so");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/clock.c");
            let mut cc = Command::new("cc");
            let built = output(cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl"));
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            (folder, library)
        })
        .1
}

/// Makes a command see a time this many days from now.
pub fn at_days<'c>(command: &'c mut Command, folder: &Path, days: i64) -> &'c mut Command {
    let offset = write(folder, &format!("offset{days}"), (days * 86_400).to_string().as_bytes());
    command.env("LD_PRELOAD", clock_library()).env("STRONGROOM_TEST_CLOCK", offset)
}

/// An archive on a disk, with a source that was sealed long ago and continues this year.
struct Aged {
    folder: TempDir,
    /// The file that was ingested, and how much of it was sealed long ago.
    bytes: Vec<u8>,
    before: usize,
    public: String,
}

impl Aged {
    fn new() -> Aged {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        let (public, _) = expect_code(strongroom().args(["key", "new"]).arg(&key), 0);
        let mut bytes = log_from(3_000, 91, long_ago());
        let middle = bytes.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        bytes.splice(middle..middle, b"this is no event\n".iter().copied());
        let before = bytes.len();
        bytes.extend(log_from(1_000, 92, Utc::now() - Days::new(1)));
        let aged = Aged { folder, bytes, before, public: public.trim().to_owned() };
        let path = write(aged.folder.path(), "audit.log", &aged.bytes[..before]);
        expect_code(at_days(&mut aged.ingest(&path), aged.folder.path(), -(AGO_DAYS as i64)), 1);
        write(aged.folder.path(), "audit.log", &aged.bytes);
        expect_code(&mut aged.ingest(&path), 0);
        aged
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    fn ingest(&self, path: &Path) -> Command {
        let mut command = crate::run::ingest(&self.archive(), &[path]);
        command.arg("--key").arg(self.key()).args(["--seal-bytes", "64KiB", "--block-bytes", "8MiB"]);
        command
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = strongroom();
        command.args(words).arg("--archive").arg(self.archive());
        command
    }

    fn drop(&self, volume: &str) -> Command {
        let mut command = self.command(&["retention", "drop", "--reason", "past its time"]);
        command.args(["--volume", volume, "--confirm", volume, "--key"]).arg(self.key());
        command
    }

    fn status(&self) -> (Option<i32>, Value) {
        document(&mut self.command(&["retention", "status", "--json"]))
    }

    /// Returns the kinds of findings of `verify`. The second verifier, if there is one, must find
    /// the same; it runs without a Parquet reader, which these tests do not need.
    fn kinds(&self) -> BTreeSet<String> {
        let mut command = self.command(&["verify", "--json", "-", "--public-key", &self.public]);
        let (_, report) = document(&mut command);
        let ours = kinds(&report);
        if let Ok(second) = std::env::var("STRONGROOM_VERIFIER") {
            let mut words = second.split_whitespace();
            let mut run = Command::new(words.next().expect("a command"));
            let path = self.folder.path().join("second.json");
            run.args(words).arg(self.archive()).args(["--public-key", &self.public, "--json"]).arg(&path);
            let output = output(&mut run);
            let report = std::fs::read(&path).unwrap_or_default();
            let report: Value = serde_json::from_slice(&report)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
            assert_eq!(kinds(&report), ours, "{report:#}");
        }
        ours
    }

    fn dropped(&self, volume: &str) -> PathBuf {
        self.archive().join("_dropped").join(volume.replace('/', "-"))
    }
}

/// Runs a command, and returns its exit code and its output as JSON.
fn document(command: &mut Command) -> (Option<i32>, Value) {
    let output = output(command);
    let document = serde_json::from_slice(&output.stdout);
    let document =
        document.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), document)
}

fn kinds(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().map(|finding| finding["kind"].as_str().expect("a kind").to_owned()).collect()
}

fn issues(status: &Value) -> BTreeSet<String> {
    let issues = status["issues"].as_array().expect("a list");
    issues.iter().map(|issue| issue["kind"].as_str().expect("a kind").to_owned()).collect()
}

fn volume<'s>(status: &'s Value, name: &str) -> &'s Value {
    let volumes = status["volumes"].as_array().expect("a list");
    volumes.iter().find(|volume| volume["volume"] == name).unwrap_or_else(|| panic!("{name}: {status:#}"))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &target) } else { _ = std::fs::copy(&path, &target).expect("copied") }
    }
}

fn replace(path: &Path, bytes: &[u8]) {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn expired_volumes_are_reported_and_dropped_only_by_name() {
    let aged = Aged::new();
    assert_eq!(aged.kinds(), BTreeSet::new());
    let (code, status) = aged.status();
    assert_eq!(code, Some(0), "{status:#}");
    assert_eq!(
        (status["years"].as_u64(), volume(&status, &old("events"))["past"].as_bool()),
        (Some(6), Some(true))
    );
    assert_eq!(volume(&status, &present("events"))["past"], false);
    let next = status["next"].as_str().expect("a volume");
    assert!(next.ends_with(&Utc::now().year().to_string()), "{next}");
    let (table, _) = expect_code(&mut aged.command(&["retention", "status"]), 0);
    assert!(table.contains(&format!("expired: {}", old("events"))), "{table}");

    // Nothing is dropped without a full confirmation, without the key, with a wrong clock, or
    // before its time.
    let refused = |command: &mut Command, why: &str| {
        let (_, err) = expect_code(command, 1);
        assert!(err.contains(why), "{why}: {err}");
    };
    let mut other = aged.command(&["retention", "drop", "--reason", "r", "--volume", &old("events")]);
    refused(other.args(["--confirm", &old("rejects")]), "nothing was dropped");
    let mut keyless = aged.command(&["retention", "drop", "--reason", "r", "--volume", &old("events")]);
    refused(keyless.args(["--confirm", &old("events")]), "a signing key is required");
    refused(&mut aged.drop(&present("events")), "it is from the present year");
    refused(&mut aged.drop("events/2011"), "volume events/2011 does not exist");
    let days = i64::try_from(AGO_DAYS).expect("a small number");
    let mut ahead = aged.drop(&present("events"));
    refused(at_days(&mut ahead, aged.folder.path(), days), "days ahead of the newest commit");
    let mut back = aged.drop(&old("events"));
    refused(at_days(&mut back, aged.folder.path(), -days), "it is kept until");
    expect_code(strongroom().args(["retention", "drop", "--volume", "events", "--confirm", "events"]), 64);
    let mut hold =
        aged.command(&["hold", "place", "--reason", "case 7", "--user", "nobody at all", "case 7"]);
    expect_code(&mut hold, 0);
    let day = long_ago().format("%Y-%m-%d").to_string();
    let mut hold = aged.command(&["hold", "place", "--reason", "case 8", "--to", &day, "case 8"]);
    expect_code(&mut hold, 0);
    refused(&mut aged.drop(&old("events")), "hold \"case 8\" lists");
    let (code, status) = aged.status();
    assert_eq!((code, volume(&status, &old("events"))["past"].as_bool()), (Some(0), Some(false)));
    assert_eq!(aged.kinds(), BTreeSet::new());
    expect_code(&mut aged.command(&["hold", "release", "case 8", "--reason", "closed"]), 0);
    let (list, _) = expect_code(&mut aged.command(&["hold", "list"]), 0);
    assert!(list.contains("case 7\tin force") && list.contains("case 8\treleased"), "{list}");

    let backup = aged.folder.path().join("backup");
    copy(&aged.archive(), &backup);
    let (out, _) = expect_code(&mut aged.drop(&old("events")), 0);
    assert!(out.contains(&format!("dropped: {}", old("events"))), "{out}");
    assert!(!aged.archive().join(old("events")).exists());
    let (out, _) = expect_code(&mut aged.drop(&old("events")), 0);
    assert!(out.contains("dropped before") && out.contains("0 objects removed"), "{out}");

    // The remaining data is complete and can be queried. Its source continues, and is exported byte
    // for byte.
    assert_eq!(aged.kinds(), BTreeSet::new());
    let mut verify = aged.command(&["verify", "--json", "-", "--public-key", &aged.public]);
    let (_, report) = document(&mut verify);
    let told = report["not_checked"].to_string();
    assert!(told.contains("it was dropped at") && told.contains("past its time"), "{told}");
    let sql = "SELECT count(*) FROM events";
    assert_eq!(crate::run::number(&aged.archive(), sql), 1_000);
    let path = aged.folder.path().join("audit.log");
    let (_, err) = expect_code(&mut aged.ingest(&path), 0);
    assert!(err.contains("nothing new"), "{err}");
    let exported = output(&mut aged.command(&["export"]));
    assert!(String::from_utf8_lossy(&exported.stderr).contains("was in a volume that was dropped"));
    assert!(exported.stdout == aged.bytes[aged.before..], "{} bytes", exported.stdout.len());
    let mut grown = aged.bytes.clone();
    grown.extend(log_from(500, 93, Utc::now()));
    write(aged.folder.path(), "audit.log", &grown);
    expect_code(&mut aged.ingest(&path), 0);
    assert_eq!(crate::run::number(&aged.archive(), sql), 1_500);
    assert_eq!(aged.kinds(), BTreeSet::new());

    // The volumes of the other tables of that year are dropped in the same way. Rejects have no
    // user, so a hold about a user covers all of them.
    refused(&mut aged.drop(&old("rejects")), "hold \"case 7\" lists");
    expect_code(&mut aged.command(&["hold", "release", "case 7", "--reason", "closed"]), 0);
    expect_code(&mut aged.drop(&old("rejects")), 0);
    assert_eq!(aged.kinds(), BTreeSet::new());
    assert_eq!(crate::run::number(&aged.archive(), "SELECT count(*) FROM rejects"), 0);
}

#[test]
fn invalid_drops_are_named_by_both_verifiers() {
    let aged = Aged::new();
    let backup = aged.folder.path().join("backup");
    copy(&aged.archive(), &backup);
    expect_code(&mut aged.drop(&old("events")), 0);
    let (record, state) =
        (aged.dropped(&old("events")), aged.dropped(&old("events")).with_extension("state"));
    let good = std::fs::read_to_string(&record).expect("text");
    let good_state = std::fs::read(&state).expect("bytes");
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    // The volume is restored beside its drop record, as if the drop had not been finished.
    let volume = aged.archive().join(old("events"));
    copy(&backup.join(old("events")), &volume);
    assert_eq!(aged.kinds(), set(&["drop_unfinished"]));
    assert_eq!(crate::run::number(&aged.archive(), "SELECT count(*) FROM events"), 1_000);
    let (code, status) = aged.status();
    assert_eq!((code, issues(&status)), (Some(1), set(&["drop_unfinished"])));
    expect_code(&mut aged.drop(&old("events")), 0);
    assert_eq!(aged.kinds(), BTreeSet::new());
    // The volume is removed together with its drop record. Then the source has a gap that no record
    // explains.
    let taken = |path: &Path| std::fs::remove_file(path).expect("removed");
    taken(&record);
    taken(&state);
    assert_eq!(aged.kinds(), set(&["rows_missing", "volume_missing"]));
    replace(&record, good.as_bytes());
    assert_eq!(
        aged.kinds(),
        set(&["drop_record", "rows_missing", "volume_missing"]),
        "the state that the record names is missing"
    );
    replace(&state, &good_state);
    assert_eq!(aged.kinds(), BTreeSet::new());
    // Forged drop records: changed, unsigned, signed by another key, from before the retention
    // ended, or of another volume.
    let text = good.split("\n\n").next().expect("the text before the signatures").to_owned() + "\n";
    let other = aged.folder.path().join("other");
    expect_code(strongroom().args(["key", "new"]).arg(&other), 0);
    let (this, that) = (old("events"), present("events"));
    for (what, forged) in [
        ("another reason", good.replace("past its time", "past its date")),
        ("signed by nobody", text.clone()),
        ("of another volume", good.replace(&this, &that)),
        ("more lines", good.replacen("\n\n", "\nmore\n\n", 1)),
        ("nothing", String::new()),
    ] {
        replace(&record, forged.as_bytes());
        assert_eq!(aged.kinds(), set(&["drop_record", "rows_missing", "volume_missing"]), "{what}");
    }
    replace(&record, good.as_bytes());
    // Somebody without the key writes a drop record for a volume that exists. That does not hide
    // the volume.
    replace(&aged.dropped(&that), text.replace(&this, &that).as_bytes());
    replace(&aged.dropped(&that).with_extension("state"), &good_state);
    assert_eq!(crate::run::number(&aged.archive(), "SELECT count(*) FROM events"), 1_000);
    assert_eq!(aged.kinds(), set(&["drop_record"]));
    let (_, err) = expect_code(&mut aged.drop(&that), 2);
    assert!(err.contains("it is not signed"), "{err}");
    taken(&aged.dropped(&that));
    taken(&aged.dropped(&that).with_extension("state"));
    // Missing and forged records of holds and policies are findings, too.
    expect_code(&mut aged.command(&["hold", "place", "--reason", "case 7", "case 7"]), 0);
    assert_eq!(aged.kinds(), BTreeSet::new());
    let list = aged.archive().join("_holds/00000001-00000001");
    let kept = std::fs::read(&list).expect("read");
    taken(&list);
    assert_eq!(aged.kinds(), BTreeSet::new(), "a list that was never written is not a finding");
    assert_eq!(issues(&aged.status().1), set(&["hold_open"]));
    replace(&list, &[&kept[..], b"object nowhere/x -\n"].concat());
    assert_eq!(aged.kinds(), set(&["hold_missing"]));
    replace(&list, b"strongroom held 1 1\n");
    assert_eq!(aged.kinds(), set(&["hold_record"]));
    replace(&list, &kept);
    let forged = aged.archive().join("_retention/00000001");
    std::fs::create_dir_all(forged.parent().expect("a folder")).expect("made");
    replace(&forged, b"strongroom retention 1\n");
    assert_eq!(aged.kinds(), set(&["retention_record"]));
    taken(&forged);
    // After a rotation, the key record names all volumes, so a missing volume is a finding.
    let mut rotate = aged.command(&["key", "rotate"]);
    expect_code(rotate.arg("--to").arg(&other).arg("--key").arg(aged.key()), 0);
    assert_eq!(aged.kinds(), BTreeSet::new());
    std::fs::remove_dir_all(aged.archive().join(old("alerts"))).ok();
    let rejects = aged.archive().join(old("rejects"));
    std::fs::remove_dir_all(rejects).expect("removed");
    assert!(aged.kinds().contains("volume_missing"));
}

/// Returns, for every object except the probes, the mode and the end of its lock, and true if it
/// has a legal hold.
fn protections(outsider: &Outsider, bucket: &str) -> BTreeMap<String, (String, i64, bool)> {
    let versions = outsider.versions(bucket);
    let kept = versions.into_iter().filter(|(key, _)| !key.contains("/_probe/"));
    kept.map(|(key, version)| {
        let head = outsider.client.head_object().bucket(bucket).key(&key).version_id(version).send();
        let head = outsider.runtime.block_on(head).expect("the object is there");
        let mode = head.object_lock_mode().map_or(String::new(), |mode| mode.as_str().to_owned());
        let until = head.object_lock_retain_until_date().map_or(0, SdkTime::secs);
        let held = head.object_lock_legal_hold_status().map(|status| status.as_str()) == Some("ON");
        (key, (mode, until, held))
    })
    .collect()
}

/// Runs a command again and again, and kills it after a longer time in each run, until it ends by
/// itself.
fn killed_until_it_ends(what: &str, command: impl Fn() -> Command) {
    let (mut kills, mut pause) = (0, 20);
    loop {
        let mut child = command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(pause));
        let _ = child.kill();
        let ended = child.wait_with_output().expect("ends");
        match ended.status.code() {
            Some(0) => break,
            Some(code) => panic!("{what}: {code}: {}", String::from_utf8_lossy(&ended.stderr)),
            None => kills += 1,
        }
        pause += if is_long() { 7 } else { 40 };
    }
    assert!(kills > 0, "{what}: it was never killed");
}

#[test]
fn a_promise_in_a_bucket_grows_and_never_shrinks() {
    let Some(seaweed) = s3::store() else { return };
    let (endpoint, outsider) = (seaweed.endpoint(), Outsider::of(&seaweed));
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    let (public, _) = expect_code(strongroom().args(["key", "new"]).arg(&key), 0);
    for mode in ["COMPLIANCE", "GOVERNANCE"] {
        let bucket = format!("extend-{}", mode.to_lowercase());
        let location = format!("s3://{bucket}/a");
        let run = |words: &[&str]| {
            let mut command = at(&endpoint);
            command.args(words).env("STRONGROOM_ARCHIVE", &location).env("STRONGROOM_KEY_FILE", &key);
            command.env("STRONGROOM_S3_LOCK_MODE", mode);
            command
        };
        let (_, made) = document(&mut run(&["archive", "init", "--json", &location]));
        let policies = made["policies"].as_object().expect("policies");
        for role in ["writer", "keeper"] {
            let refused =
                policies[role]["Statement"].as_array().expect("a list").last().expect("a statement").clone();
            assert_eq!(
                (&refused["Effect"], &refused["Action"][0]),
                (&"Deny".into(), &"s3:DeleteObject*".into())
            );
        }
        let ingest = |name: &str, seed| {
            let path = write(folder.path(), name, &log(2_000, seed));
            expect_code(run(&["ingest", "--cluster", "test", "--print-alerts", "critical"]).arg(path), 0);
        };
        ingest("first.log", 51);
        let extend = |years: &str| run(&["retention", "extend", "--years", years, "--reason", "a new law"]);
        let before = protections(&outsider, &bucket);
        let (_, err) = expect_code(&mut extend("5"), 1);
        assert!(err.contains("the archive promises 6 years"), "{err}");
        assert_eq!(protections(&outsider, &bucket), before);
        killed_until_it_ends("extend", || extend("8"));
        let eight = (Utc::now() + Months::new(96)).timestamp() - 600;
        let after = protections(&outsider, &bucket);
        for (key, (_, until, _)) in &before {
            assert!(after[key].1 > *until && after[key].1 >= eight, "{key}: {until} to {}", after[key].1);
        }
        assert!(after.values().all(|(found, until, _)| found == mode && *until >= eight), "{after:#?}");
        let (out, _) = expect_code(&mut extend("8"), 0);
        assert!(out.contains("promised before") && out.contains(" 0 extended"), "{out}");
        expect_code(&mut extend("7"), 1);
        // Later objects are promised the same years, even by writers with a shorter setting.
        ingest("second.log", 52);
        let all = protections(&outsider, &bucket);
        assert!(all.len() > after.len() && all.values().all(|(_, until, _)| *until >= eight), "{all:#?}");
        let (code, status) = document(&mut run(&["retention", "status", "--json"]));
        assert_eq!((code, status["years"].as_u64()), (Some(0), Some(8)), "{status:#}");
        assert_eq!(volume(&status, &present("events"))["past"], false);
        let (found, report) = s3::findings(&endpoint, &location, public.trim());
        let expected: BTreeSet<String> = match mode {
            "COMPLIANCE" => BTreeSet::new(),
            _ => BTreeSet::from(["lock_mode".to_owned()]),
        };
        assert_eq!(found, expected, "{report:#}");
        if mode == "COMPLIANCE" {
            continue;
        }
        // In governance mode an administrator can shorten a lock. That is reported, and the command
        // that extended the promise repairs it.
        let versions = outsider.versions(&bucket);
        let (key, version) = versions.iter().find(|(key, _)| key.ends_with(".parquet")).expect("a file");
        let six = SdkTime::from_secs((Utc::now() + Months::new(72)).timestamp());
        let shorter =
            ObjectLockRetention::builder().mode(ObjectLockRetentionMode::Governance).retain_until_date(six);
        let shorten = outsider.client.put_object_retention().bucket(&bucket).key(key).version_id(version);
        let shorten = shorten.bypass_governance_retention(true).retention(shorter.build()).send();
        outsider.runtime.block_on(shorten).expect("GOVERNANCE allows this to an administrator");
        let (found, _) = s3::findings(&endpoint, &location, public.trim());
        assert!(found.contains("retention_short"), "a lock is shorter than the promise: {found:?}");
        let (code, status) = document(&mut run(&["retention", "status", "--json"]));
        assert_eq!((code, issues(&status)), (Some(1), BTreeSet::from(["retention_short".to_owned()])));
        let (out, _) = expect_code(&mut extend("8"), 0);
        assert!(out.contains(" 1 extended"), "{out}");
        assert!(protections(&outsider, &bucket)[key].1 >= eight);
    }
}

#[test]
fn holds_in_a_bucket_are_the_stores_legal_holds() {
    let Some(seaweed) = s3::store() else { return };
    let (endpoint, outsider) = (seaweed.endpoint(), Outsider::of(&seaweed));
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    let (public, _) = expect_code(strongroom().args(["key", "new"]).arg(&key), 0);
    let (bucket, location) = ("holds", "s3://holds/a");
    let run = |words: &[&str]| {
        let mut command = at(&endpoint);
        command.args(words).env("STRONGROOM_ARCHIVE", location).env("STRONGROOM_KEY_FILE", &key);
        command
    };
    expect_code(&mut run(&["archive", "init", location]), 0);
    let ingest = |name: &str, seed| {
        let path = write(folder.path(), name, &log(1_500, seed));
        expect_code(run(&["ingest", "--cluster", "test", "--print-alerts", "critical"]).arg(path), 0);
    };
    ingest("first.log", 61);
    let held = || -> BTreeSet<String> {
        let all = protections(&outsider, bucket).into_iter();
        all.filter(|(_, (.., held))| *held).map(|(key, _)| key).collect()
    };
    let place = |name: &str, limits: &[&str]| {
        let mut command = run(&["hold", "place", "--reason", "case 7, J. Doe", name]);
        command.args(limits);
        command
    };
    let user = ["--user", "nobody at all"];
    expect_code(&mut place("nobody", &user), 0);
    assert!(held().iter().all(|key| !key.contains("/date=")), "nobody's records: {:#?}", held());
    expect_code(&mut run(&["hold", "release", "nobody", "--reason", "a mistake"]), 0);
    assert_eq!(held(), BTreeSet::new());

    killed_until_it_ends("place", || place("all", &[]));
    let first = held();
    for part in [
        "/events/",
        "/date=",
        "_delta_log/00000000000000000001.json",
        "/_tlog/checkpoint/",
        "/_tlog/tile/0/",
        "/_keys/00000001",
        "/strongroom.json",
        "/_holds/",
    ] {
        assert!(first.iter().any(|key| key.contains(part)), "{part}: {first:#?}");
    }
    // The hold is complete: neither verifier finds anything, and the status has no issue.
    assert_eq!(s3::findings(&endpoint, location, public.trim()).0, BTreeSet::new());
    let (code, status) = document(&mut run(&["retention", "status", "--json"]));
    assert_eq!(code, Some(0), "{status:#}");
    assert!(volume(&status, &present("events"))["held"].as_u64() > Some(2));

    // Two cases in which the hold has to be placed again: a file was sealed later, and somebody has
    // lifted the legal hold of an object.
    ingest("second.log", 62);
    assert_eq!(held(), first);
    let (code, status) = document(&mut run(&["retention", "status", "--json"]));
    assert_eq!((code, issues(&status)), (Some(1), BTreeSet::from(["hold_open".to_owned()])));
    let lifted = first.iter().find(|key| key.contains("/date=")).expect("a file");
    let off = ObjectLockLegalHold::builder().status(ObjectLockLegalHoldStatus::Off).build();
    let lift = outsider.client.put_object_legal_hold().bucket(bucket).key(lifted).legal_hold(off).send();
    outsider.runtime.block_on(lift).expect("whoever may place may lift");
    let (found, report) = s3::findings(&endpoint, location, public.trim());
    assert_eq!(found, BTreeSet::from(["hold_missing".to_owned()]), "{report:#}");
    killed_until_it_ends("refresh", || run(&["hold", "refresh"]));
    assert!(held().len() > first.len() && held().is_superset(&first));
    assert_eq!(s3::findings(&endpoint, location, public.trim()).0, BTreeSet::new());
    let (code, status) = document(&mut run(&["retention", "status", "--json"]));
    assert_eq!(code, Some(0), "{status:#}");

    // There are two holds on one object. It is released only when the second of them is released.
    expect_code(&mut place("again", &["--from", "2020-01-01"]), 0);
    killed_until_it_ends("release", || run(&["hold", "release", "all", "--reason", "closed"]));
    let rest = held();
    assert!(rest.iter().any(|key| key.contains("/date=")), "{rest:#?}");
    assert!(
        !rest.iter().any(|key| key.ends_with("_holds/00000003")),
        "the hold's own record is still locked: {rest:#?}"
    );
    assert_eq!(s3::findings(&endpoint, location, public.trim()).0, BTreeSet::new());
    expect_code(&mut run(&["hold", "release", "again", "--reason", "closed"]), 0);
    assert_eq!(held(), BTreeSet::new());
    let (list, _) = expect_code(&mut run(&["hold", "list"]), 0);
    assert_eq!(list.lines().filter(|line| line.contains("released")).count(), 3, "{list}");
}

#[test]
fn a_volume_in_a_bucket_is_dropped_only_when_the_store_allows_it() {
    let Some(seaweed) = s3::store() else { return };
    let (endpoint, outsider, aged) = (seaweed.endpoint(), Outsider::of(&seaweed), Aged::new());
    let (bucket, location) = ("dropping", "s3://dropping/a");
    let run = |words: &[&str]| {
        let mut command = at(&endpoint);
        command.args(words).env("STRONGROOM_ARCHIVE", location).env("STRONGROOM_KEY_FILE", aged.key());
        command
    };
    let make = outsider.client.create_bucket().bucket(bucket).object_lock_enabled_for_bucket(true).send();
    outsider.runtime.block_on(make).expect("a bucket");
    let until = Utc::now() + chrono::Duration::seconds(if is_long() { 90 } else { 45 });
    let mut folders = vec![aged.archive()];
    let mut objects = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let below = path
                .strip_prefix(aged.archive())
                .expect("the file is below the archive")
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !below.starts_with('.') && !below.contains("_last_checkpoint") {
                let put = outsider.client.put_object().bucket(bucket).key(format!("a/{below}"));
                let put = put.object_lock_mode(ObjectLockMode::Compliance);
                let put = put.object_lock_retain_until_date(SdkTime::from_secs(until.timestamp()));
                let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256);
                let bytes = std::fs::read(&path).expect("read");
                outsider
                    .runtime
                    .block_on(put.body(ByteStream::from(bytes)).send())
                    .expect("the object is stored");
                objects += usize::from(below.starts_with(&old("events")));
            }
        }
    }
    let drop = || {
        run(&["retention", "drop", "--volume", &old("events"), "--confirm", &old("events"), "--reason", "r"])
    };
    let left = || outsider.versions(bucket).iter().filter(|(key, _)| key.contains(&old("events"))).count();
    assert_eq!(left(), objects);
    let (_, err) = expect_code(&mut drop(), 1);
    assert!(err.contains("is locked until"), "{err}");
    let (code, status) = document(&mut run(&["retention", "status", "--json"]));
    // The test has put the old volume with locks that are shorter than the promised years.
    assert_eq!((code, issues(&status)), (Some(1), BTreeSet::from(["retention_short".to_owned()])));
    assert_eq!(volume(&status, &old("events"))["past"], false);
    std::thread::sleep((until - Utc::now()).to_std().unwrap_or_default() + Duration::from_secs(2));

    let versions = outsider.versions(bucket);
    let (key, version) = versions
        .iter()
        .find(|(key, _)| key.contains(&old("events")) && key.ends_with(".parquet"))
        .expect("a file");
    let hold = |status| {
        let hold = ObjectLockLegalHold::builder().status(status).build();
        let put = outsider.client.put_object_legal_hold().bucket(bucket).key(key).version_id(version);
        outsider.runtime.block_on(put.legal_hold(hold).send()).expect("held");
    };
    hold(ObjectLockLegalHoldStatus::On);
    let (_, err) = expect_code(&mut drop(), 1);
    assert!(err.contains("is under a legal hold"), "somebody else has placed this hold: {err}");
    hold(ObjectLockLegalHoldStatus::Off);
    assert_eq!(left(), objects, "nothing was touched");
    let (_, status) = document(&mut run(&["retention", "status", "--json"]));
    assert_eq!(volume(&status, &old("events"))["past"], true);

    killed_until_it_ends("drop", drop);
    assert_eq!(left(), 0);
    let (found, report) = s3::findings(&endpoint, location, &aged.public);
    assert_eq!(found, BTreeSet::from(["retention_short".to_owned()]), "{report:#}");
    assert!(report["not_checked"].to_string().contains("it was dropped at"), "{report:#}");
    assert_eq!(s3::number(&endpoint, location, "SELECT count(*) FROM events"), 1_000);
    // The record and the state are locked like everything else.
    let kept = protections(&outsider, bucket);
    let six = (Utc::now() + Months::new(72)).timestamp() - 600;
    let records: Vec<_> = kept.iter().filter(|(key, _)| key.contains("/_dropped/")).collect();
    assert!(records.len() == 2 && records.iter().all(|(_, (_, until, _))| *until >= six), "{records:#?}");
}

#[test]
fn a_commit_from_the_future_is_not_recent() {
    let folder = tempfile::tempdir().expect("a folder");
    let (archive, key) = (folder.path().join("archive"), folder.path().join("key"));
    expect_code(strongroom().args(["key", "new"]).arg(&key), 0);
    let path = write(folder.path(), "audit.log", &log(500, 71));
    let mut ingest = crate::run::ingest(&archive, &[&path]);
    expect_code(ingest.arg("--key").arg(&key), 0);
    let kinds = || {
        let mut verify = strongroom();
        kinds(&document(verify.args(["verify", "--json", "-", "--archive"]).arg(&archive)).1)
    };
    // Commits without a signature are no finding for an hour. But if their time is tomorrow, they
    // are one.
    let more = write(folder.path(), "more.log", &log(500, 72));
    expect_code(&mut crate::run::ingest(&archive, &[&more]), 0);
    assert_eq!(kinds(), BTreeSet::new());
    let later = write(folder.path(), "later.log", &log(500, 73));
    let mut ingest = crate::run::ingest(&archive, &[&later]);
    expect_code(at_days(&mut ingest, folder.path(), 1), 0);
    assert_eq!(kinds(), BTreeSet::from(["unproven".to_owned()]));
}
