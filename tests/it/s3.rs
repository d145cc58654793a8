//! Archives in a bucket with Object Lock, in a real store. Sealed data cannot be removed, is stored
//! once, and is exported byte for byte, despite lost answers, kills and a second writer.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::{ByteStream, DateTime as SdkTime};
use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
use chrono::{Months, Utc};
use serde_json::Value;

use crate::run::{expect_code, is_long, log, output, strongroom, write};
use crate::services::faults::Faults;
use crate::services::seaweed::{self, ACCESS_KEY, SECRET_KEY, Seaweed};

/// How long a request may take while answers are lost on purpose.
const TIMEOUT_SECONDS: u64 = 2;

/// A command that runs the binary with the settings of the store at `endpoint`.
pub fn at(endpoint: &str) -> Command {
    let mut command = strongroom();
    command
        .env("STRONGROOM_S3_ENDPOINT", endpoint)
        .env("STRONGROOM_S3_PATH_STYLE", "true")
        .env("STRONGROOM_S3_TIMEOUT", TIMEOUT_SECONDS.to_string())
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_EC2_METADATA_DISABLED", "true");
    for name in ["AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"] {
        command.env_remove(name);
    }
    command
}

pub fn init(endpoint: &str, location: &str) {
    expect_code(at(endpoint).args(["archive", "init", location]), 0);
}

pub fn ingest(endpoint: &str, location: &str, log: &Path) -> Command {
    let mut command = at(endpoint);
    command.args(["ingest", "--cluster", "test", "--print-alerts", "critical", "--archive", location]);
    command.arg(log);
    command
}

fn export(endpoint: &str, location: &str) -> Vec<u8> {
    let output = output(at(endpoint).args(["export", "--archive", location]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub fn number(endpoint: &str, location: &str, sql: &str) -> i64 {
    let (out, _) =
        expect_code(at(endpoint).args(["query", "--format", "csv", "--archive", location]).arg(sql), 0);
    out.lines().nth(1).unwrap_or_default().parse().unwrap_or_else(|_| panic!("{sql}: {out}"))
}

/// Runs `archive check`, and returns its exit code and its report.
pub fn check(endpoint: &str, location: &str) -> (Option<i32>, Value) {
    let output = output(at(endpoint).args(["archive", "check", "--json", location]));
    let document = serde_json::from_slice(&output.stdout);
    let document: Value =
        document.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), document)
}

pub fn verdict<'d>(document: &'d Value, item: &str) -> &'d str {
    let findings = document["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["item"] == item);
    found.and_then(|found| found["verdict"].as_str()).unwrap_or_else(|| panic!("{item}: {document:#}"))
}

/// A client of the store that is not Strongroom and has all rights.
pub struct Outsider {
    pub client: Client,
    pub runtime: tokio::runtime::Runtime,
}

impl Outsider {
    pub fn of(seaweed: &Seaweed) -> Outsider {
        let config = aws_sdk_s3::config::Builder::new()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .endpoint_url(seaweed.endpoint())
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .force_path_style(true)
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Outsider { client: Client::from_conf(config), runtime }
    }

    /// Returns the key and the version of every object in a bucket.
    pub fn versions(&self, bucket: &str) -> Vec<(String, String)> {
        let listed = self.runtime.block_on(self.client.list_object_versions().bucket(bucket).send());
        let listed = listed.expect("a listing");
        assert_ne!(listed.is_truncated(), Some(true), "one page is enough for these tests");
        let versions = listed.versions().iter().map(|version| {
            (
                version.key().unwrap_or_default().to_owned(),
                version.version_id().unwrap_or_default().to_owned(),
            )
        });
        versions.collect()
    }
}

/// Asserts that every key has one version, which means that no object was put twice.
fn assert_each_once(versions: &[(String, String)]) {
    let mut keys: Vec<&str> = versions.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    let all = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), all, "{versions:#?}");
}

pub fn store() -> Option<Arc<Seaweed>> {
    seaweed::shared()
}

#[test]
fn what_is_sealed_in_a_bucket_comes_back_and_cannot_be_taken_away() {
    let Some(seaweed) = store() else { return };
    let (endpoint, location) = (seaweed.endpoint(), "s3://sealed/some/prefix");
    let folder = tempfile::tempdir().expect("a folder");
    let before = Utc::now();
    let (out, _) = expect_code(at(&endpoint).args(["archive", "init", location]), 0);
    assert!(out.contains("made the bucket") && out.contains("COMPLIANCE for 6 calendar years"), "{out}");
    let (out, _) = expect_code(at(&endpoint).args(["archive", "init", location]), 0);
    assert!(out.contains("the archive exists already"), "{out}");
    let (out, _) = expect_code(at(&endpoint).args(["archive", "init", "--json", location]), 0);
    let document: Value = serde_json::from_str(&out).expect("JSON");
    let statements = document["policies"]["auditor"]["Statement"].as_array().expect("a list");
    let actions = statements.iter().flat_map(|statement| statement["Action"].as_array().expect("a list"));
    let actions: Vec<&str> = actions.map(|action| action.as_str().expect("text")).collect();
    assert!(actions.contains(&"s3:GetObjectLegalHold") && actions.contains(&"s3:ListBucketVersions"));
    let reads = |action: &&str| action.starts_with("s3:Get") || action.starts_with("s3:List");
    assert!(actions.iter().all(reads), "{actions:?}");

    let mut bytes = log(12_000, 1);
    bytes.extend_from_slice(b"broken\n");
    let path = write(folder.path(), "audit.log", &bytes);
    let (_, err) = expect_code(&mut ingest(&endpoint, location, &path), 1);
    assert!(err.contains("received 12,001 = events 12,000 + rejects 1 + duplicates 0"), "{err}");
    assert!(export(&endpoint, location) == bytes);
    assert_eq!(number(&endpoint, location, "SELECT count(*) FROM events"), 12_000);
    assert_eq!(number(&endpoint, location, "SELECT count(*) FROM rejects WHERE reason = 'broken_json'"), 1);
    let by_address = "SELECT count(*) FROM events WHERE array_has(source_ips, 'no such address')";
    assert_eq!(number(&endpoint, location, by_address), 0);
    let alerts = number(&endpoint, location, "SELECT count(*) FROM alerts");
    assert!(alerts > 0);
    let (_, err) = expect_code(&mut ingest(&endpoint, location, &path), 0);
    assert!(err.contains("nothing new"), "{err}");
    assert_eq!(number(&endpoint, location, "SELECT count(*) FROM alerts"), alerts);

    let outsider = Outsider::of(&seaweed);
    let versions = outsider.versions("sealed");
    assert_each_once(&versions);
    let sealed: Vec<_> = versions.iter().filter(|(key, _)| !key.contains("/_probe/")).collect();
    assert!(sealed.iter().any(|(key, _)| key.ends_with(".parquet")), "{sealed:?}");
    let six_years = before + Months::new(72);
    for (key, version) in sealed {
        let of = |what: &str| format!("{what} {key}");
        let (client, rt) = (&outsider.client, &outsider.runtime);
        let kept = rt.block_on(client.get_object_retention().bucket("sealed").key(key).send());
        let kept = kept.unwrap_or_else(|error| panic!("{}: {error:?}", of("retention of")));
        let kept = kept.retention().expect("a retention").clone();
        assert_eq!(kept.mode(), Some(&ObjectLockRetentionMode::Compliance), "{key}");
        let until = kept.retain_until_date().expect("a date");
        assert!(until.secs() >= six_years.timestamp(), "{key} until {until}");
        // This client has all rights, so it is only the lock that refuses.
        let delete = client.delete_object().bucket("sealed").key(key).version_id(version);
        let delete = rt.block_on(delete.bypass_governance_retention(true).send());
        assert!(delete.is_err(), "{}", of("deleted"));
        let shorter = ObjectLockRetention::builder()
            .mode(ObjectLockRetentionMode::Compliance)
            .retain_until_date(SdkTime::from_secs(until.secs() - 86_400))
            .build();
        let shorten = client.put_object_retention().bucket("sealed").key(key).version_id(version);
        assert!(rt.block_on(shorten.retention(shorter).send()).is_err(), "{}", of("shortened"));
    }
    let (code, document) = check(&endpoint, location);
    assert_eq!(code, Some(0), "{document:#}");
    for item in ["object lock", "versions", "conditional put", "sealed objects", "versions of objects"] {
        assert_eq!(verdict(&document, item), "ok", "{document:#}");
    }

    // Another object is put over a sealed file. Readers still read the version that the commit
    // names.
    let parquet = versions.iter().find(|(key, _)| key.contains("/events/") && key.ends_with(".parquet"));
    let (key, _) = parquet.expect("a sealed file");
    let forged = outsider.client.put_object().bucket("sealed").key(key);
    let forged = forged.body(ByteStream::from_static(b"forged")).send();
    outsider.runtime.block_on(forged).expect("a lock does not prevent a new version");
    assert!(export(&endpoint, location) == bytes);
    assert!(number(&endpoint, location, "SELECT count(DISTINCT audit_id) FROM events") > 0);
    let (code, document) = check(&endpoint, location);
    assert_eq!(code, Some(1), "{document:#}");
    assert_eq!(verdict(&document, "versions of objects"), "fail", "{document:#}");
}

#[test]
fn a_bucket_without_lock_is_refused_and_named() {
    let Some(seaweed) = store() else { return };
    let endpoint = seaweed.endpoint();
    let (out, _) = expect_code(at(&endpoint).args(["archive", "check", "s3://no-such-bucket/a"]), 1);
    assert!(out.contains("FAIL  bucket: bucket no-such-bucket does not exist"), "{out}");
    let outsider = Outsider::of(&seaweed);
    let made = outsider.client.create_bucket().bucket("unlocked").send();
    outsider.runtime.block_on(made).expect("a bucket");
    let (_, err) = expect_code(at(&endpoint).args(["archive", "init", "s3://unlocked/a"]), 1);
    assert!(err.contains("bucket unlocked cannot hold an archive: object lock is off"), "{err}");
    assert!(err.contains("hint: "), "{err}");
    let (code, document) = check(&endpoint, "s3://unlocked/a");
    assert_eq!(code, Some(1), "{document:#}");
    assert_eq!(verdict(&document, "object lock"), "fail");
    assert_eq!(verdict(&document, "versions"), "fail");

    let wrong_key =
        output(at(&endpoint).args(["archive", "check", "s3://unlocked/a"]).env("AWS_ACCESS_KEY_ID", "x"));
    assert_eq!(wrong_key.status.code(), Some(1));
    for stream in [&wrong_key.stdout, &wrong_key.stderr] {
        assert!(!String::from_utf8_lossy(stream).contains(SECRET_KEY));
    }
    expect_code(at(&endpoint).args(["archive", "check", "s3://Bucket?x"]), 1);
    let folder = tempfile::tempdir().expect("a folder");
    let local = folder.path().join("archive").display().to_string();
    expect_code(at(&endpoint).args(["archive", "check", &local]), 1);
    expect_code(at(&endpoint).args(["archive", "init", &local]), 0);
    let (out, _) = expect_code(at(&endpoint).args(["archive", "check", &local]), 0);
    assert!(out.contains("WARN  object lock: a local disk has none"), "{out}");
}

#[test]
fn lost_answers_neither_lose_nor_duplicate_data() {
    let Some(seaweed) = store() else { return };
    let faults = Faults::before(seaweed.port, Duration::from_secs(TIMEOUT_SECONDS + 1));
    let (direct, faulty, location) = (seaweed.endpoint(), faults.endpoint(), "s3://faults/a");
    let folder = tempfile::tempdir().expect("a folder");
    init(&direct, location);
    let bytes = log(12_000, 3);
    let path = write(folder.path(), "audit.log", &bytes);
    let mut command = ingest(&faulty, location, &path);
    let (_, err) = expect_code(command.args(["--block-bytes", "2MiB", "--seal-bytes", "100KiB"]), 0);
    assert!(err.contains("received 12,000 = events 12,000 + rejects 0 + duplicates 0"), "{err}");
    assert!(faults.lost() > 0, "no answer was lost");
    assert!(export(&direct, location) == bytes);
    assert!(export(&faulty, location) == bytes, "the export is read through the same proxy");
    assert_eq!(number(&direct, location, "SELECT count(*) FROM events"), 12_000);
    assert_each_once(&Outsider::of(&seaweed).versions("faults"));
    // Two commits with the same content would mean that a seal was made twice.
    let alerts = "SELECT count(*) - count(DISTINCT alert_id) FROM alerts";
    assert_eq!(number(&direct, location, alerts), 0);
    println!("{} answers were lost after the store had done its work", faults.lost());
}

#[test]
fn two_processes_write_different_files_at_once() {
    let Some(seaweed) = store() else { return };
    let (endpoint, location) = (seaweed.endpoint(), "s3://together/a");
    let folder = tempfile::tempdir().expect("a folder");
    init(&endpoint, location);
    let logs = [log(8_000, 4), log(8_000, 5), log(8_000, 6)];
    let running: Vec<_> = logs
        .iter()
        .enumerate()
        .map(|(number, bytes)| {
            let path = write(folder.path(), &format!("audit-{number}.log"), bytes);
            let mut command = ingest(&endpoint, location, &path);
            // Many small commits, so that the processes often commit at the same time.
            command.args(["--block-bytes", "1MiB", "--seal-bytes", "50KiB", "--threads", "1"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts")
        })
        .collect();
    for process in running {
        let ended = process.wait_with_output().expect("ends");
        assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(number(&endpoint, location, "SELECT count(*) FROM events"), 24_000);
    let exported = export(&endpoint, location);
    assert_eq!(exported.len(), logs.iter().map(Vec::len).sum::<usize>());
    for bytes in &logs {
        let path = folder.path().join("one");
        let first = bytes.split(|byte| *byte == b'\n').next().expect("a line");
        let start = exported.windows(first.len()).position(|window| window == first).expect("its first line");
        assert!(&exported[start..start + bytes.len()] == bytes.as_slice(), "{}", path.display());
    }
    assert_each_once(&Outsider::of(&seaweed).versions("together"));
}

#[test]
fn a_run_killed_at_any_moment_is_completed_by_the_next() {
    let Some(seaweed) = store() else { return };
    let (endpoint, location) = (seaweed.endpoint(), "s3://killed/a");
    let folder = tempfile::tempdir().expect("a folder");
    init(&endpoint, location);
    let bytes = log(if is_long() { 200_000 } else { 30_000 }, 7);
    let path = write(folder.path(), "audit.log", &bytes);
    let command = || {
        let mut command = ingest(&endpoint, location, &path);
        command.args(["--block-bytes", "1MiB", "--seal-bytes", "50KiB"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let (kills, mut killed, mut state) = (if is_long() { 60 } else { 8 }, 0, 0x5eed_u64);
    let started = Instant::now();
    for _ in 0..kills {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = command().spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(50 + (state >> 33) % 900));
        child.kill().expect("killed, or ended already");
        killed += usize::from(child.wait().expect("ends").code().is_none());
    }
    assert_eq!(command().status().expect("ends").code(), Some(0));
    assert!(export(&endpoint, location) == bytes);
    assert_eq!(
        number(&endpoint, location, "SELECT count(*) FROM events"),
        i64::from(bytes.iter().filter(|byte| **byte == b'\n').count() as u32)
    );
    let alerts = "SELECT count(*) - count(DISTINCT alert_id) FROM alerts";
    assert_eq!(number(&endpoint, location, alerts), 0);
    assert_each_once(&Outsider::of(&seaweed).versions("killed"));
    println!("{killed} runs were killed in {:?}", started.elapsed());
}

/// Returns the kinds of findings of `verify`, and its report. The second verifier, which asks the
/// store itself, must find the same.
pub fn findings(endpoint: &str, location: &str, public: &str) -> (BTreeSet<String>, Value) {
    findings_with(endpoint, location, public, &[])
}

pub fn findings_with(
    endpoint: &str,
    location: &str,
    public: &str,
    more: &[&str],
) -> (BTreeSet<String>, Value) {
    let mut verify = at(endpoint);
    verify.args(["verify", "--json", "-", "--public-key", public, "--archive", location]).args(more);
    let run = output(&mut verify);
    let (kinds, report) = kinds_of(&run.stdout, &run);
    if let Ok(verifier) = std::env::var("STRONGROOM_VERIFIER") {
        let folder = tempfile::tempdir().expect("a folder");
        let said = folder.path().join("report.json");
        let mut words = verifier.split_whitespace();
        let mut second = Command::new(words.next().expect("a command"));
        second
            .args(words)
            .args([location, "--endpoint", endpoint, "--public-key", public, "--json"])
            .arg(&said)
            .args(more);
        second.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        second.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_REGION");
        let run = output(&mut second);
        let (theirs, second) = kinds_of(&std::fs::read(&said).unwrap_or_default(), &run);
        // If a verifier reports which commit was changed, it may or may not report the root as
        // well.
        let plain = |kinds: &BTreeSet<String>| -> BTreeSet<String> {
            let named = kinds.contains("commit_changed");
            kinds.iter().filter(|kind| !(named && *kind == "checkpoint_root")).cloned().collect()
        };
        assert_eq!(plain(&theirs), plain(&kinds), "two verifiers\n{report:#}\n{second:#}");
        assert!(!second["not_checked"].to_string().contains("did not give them"), "{second:#}");
        assert_eq!(second["checked"]["objects"], report["checked"]["objects"], "{second:#}");
    }
    (kinds, report)
}

fn kinds_of(report: &[u8], run: &Output) -> (BTreeSet<String>, Value) {
    let report: Value = serde_json::from_slice(report)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&run.stderr)));
    let found = report["findings"].as_array().expect("a list");
    let kinds = found.iter().map(|finding| finding["kind"].as_str().expect("a kind").to_owned()).collect();
    assert_eq!(run.status.code(), Some(i32::from(!found.is_empty())), "{report:#}");
    (kinds, report)
}

/// Puts an object that Strongroom has not written in the place of the next commit.
pub fn append_commit(outsider: &Outsider, bucket: &str, key: &str, lock: Option<Duration>) {
    let number = |key: &str| key.rsplit('/').next()?.strip_suffix(".json")?.parse::<u64>().ok();
    let (folder, _) = key.rsplit_once('/').expect("a folder");
    let versions = outsider.versions(bucket);
    let newest =
        versions.iter().filter(|(key, _)| key.starts_with(folder)).filter_map(|(key, _)| number(key));
    let next = format!("{folder}/{:020}.json", newest.max().expect("a commit") + 1);
    let commit = format!(r#"{{"commitInfo":{{"timestamp":{}}}}}"#, Utc::now().timestamp_millis());
    let put =
        outsider.client.put_object().bucket(bucket).key(next).body(ByteStream::from(commit.into_bytes()));
    let put = match lock {
        None => put,
        Some(time) => put.object_lock_mode(ObjectLockMode::Compliance).object_lock_retain_until_date(
            SdkTime::from_secs(Utc::now().timestamp() + time.as_secs() as i64),
        ),
    };
    outsider.runtime.block_on(put.send()).expect("whoever may put may append");
}

#[test]
fn every_tampering_with_objects_is_named() {
    let Some(seaweed) = store() else { return };
    let endpoint = seaweed.endpoint();
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    let (public, _) = expect_code(strongroom().args(["key", "new"]).arg(&key), 0);
    let public = public.trim();
    let path = write(folder.path(), "audit.log", &log(2_000, 31));
    let more = write(folder.path(), "more.log", &log(500, 32));
    let outsider = Outsider::of(&seaweed);
    type Deed = fn(&Outsider, &str, &str, &str);
    let deeds: [(&str, &str, &str, Deed); 11] = [
        ("shadowed-file", ".parquet", "shadowed", |outsider, bucket, key, _| {
            let put = outsider.client.put_object().bucket(bucket).key(key);
            let put = put.body(ByteStream::from_static(b"forged")).send();
            outsider.runtime.block_on(put).expect("a lock does not prevent a new version");
        }),
        ("shadowed-commit", "00000000000000000001.json", "shadowed", |outsider, bucket, key, _| {
            let put = outsider.client.put_object().bucket(bucket).key(key);
            let put = put.body(ByteStream::from_static(b"{}")).send();
            outsider.runtime.block_on(put).expect("a lock does not prevent a new version");
        }),
        ("hidden-file", ".parquet", "delete_marker", |outsider, bucket, key, _| {
            let delete = outsider.client.delete_object().bucket(bucket).key(key).send();
            outsider.runtime.block_on(delete).expect("a marker hides it");
        }),
        ("hidden-tile", "/tile/0/", "delete_marker", |outsider, bucket, key, _| {
            let delete = outsider.client.delete_object().bucket(bucket).key(key).send();
            outsider.runtime.block_on(delete).expect("a marker hides it");
        }),
        ("hidden-commit", "00000000000000000002.json", "delete_marker", |outsider, bucket, key, _| {
            let delete = outsider.client.delete_object().bucket(bucket).key(key).send();
            outsider.runtime.block_on(delete).expect("a marker hides it");
        }),
        ("hidden-volume", ".parquet", "delete_marker", |outsider, bucket, _, _| {
            for (key, _) in outsider.versions(bucket).iter().filter(|(key, _)| key.contains("/events/")) {
                let delete = outsider.client.delete_object().bucket(bucket).key(key).send();
                outsider.runtime.block_on(delete).expect("a marker hides it");
            }
        }),
        ("appended-commit", "00000000000000000002.json", "lock_missing", |outsider, bucket, key, _| {
            append_commit(outsider, bucket, key, None);
        }),
        ("appended-for-a-day", "00000000000000000002.json", "retention_short", |outsider, bucket, key, _| {
            append_commit(outsider, bucket, key, Some(Duration::from_secs(86_400)));
        }),
        ("governance", ".parquet", "lock_mode", |_, _, _, _| {}),
        ("governance-shortened", ".parquet", "retention_short", |outsider, bucket, key, version| {
            let soon = Utc::now().timestamp() + 86_400;
            let shorter = ObjectLockRetention::builder()
                .mode(ObjectLockRetentionMode::Governance)
                .retain_until_date(SdkTime::from_secs(soon))
                .build();
            let shorten = outsider.client.put_object_retention().bucket(bucket).key(key).version_id(version);
            let shorten = shorten.bypass_governance_retention(true).retention(shorter).send();
            outsider.runtime.block_on(shorten).expect("GOVERNANCE allows this to an administrator");
        }),
        ("governance-replaced", "/tile/0/", "lock_missing", |outsider, bucket, key, version| {
            let got = outsider.client.get_object().bucket(bucket).key(key).send();
            let bytes = outsider.runtime.block_on(async { got.await.expect("read").body.collect().await });
            let bytes = bytes.expect("read").into_bytes();
            let delete = outsider.client.delete_object().bucket(bucket).key(key).version_id(version);
            let delete = delete.bypass_governance_retention(true).send();
            outsider.runtime.block_on(delete).expect("GOVERNANCE allows this to an administrator");
            let put =
                outsider.client.put_object().bucket(bucket).key(key).body(ByteStream::from(bytes)).send();
            outsider.runtime.block_on(put).expect("put without a lock");
        }),
    ];
    for (bucket, object, kind, does) in deeds {
        let bucket = format!("deed-{bucket}");
        let location = format!("s3://{bucket}/a");
        let mode = if bucket.contains("governance") { "GOVERNANCE" } else { "COMPLIANCE" };
        let signed = |command: &mut Command| {
            command.env("STRONGROOM_KEY_FILE", &key).env("STRONGROOM_S3_LOCK_MODE", mode);
        };
        let mut init = at(&endpoint);
        init.args(["archive", "init", &location]);
        signed(&mut init);
        expect_code(&mut init, 0);
        for log in [&path, &more] {
            let mut ingest = ingest(&endpoint, &location, log);
            signed(&mut ingest);
            expect_code(&mut ingest, 0);
        }
        if mode == "COMPLIANCE" {
            let (kinds, report) = findings(&endpoint, &location, public);
            assert!(
                kinds.is_empty() && report["checked"]["objects"].as_u64() > Some(5),
                "{bucket}: {report:#}"
            );
            assert_eq!(report["not_checked"], serde_json::json!([]), "{bucket}");
        }
        let versions = outsider.versions(&bucket);
        let found = versions.iter().find(|(key, _)| key.contains("/events/") && key.contains(object));
        let (name, version) = found.unwrap_or_else(|| panic!("{object}: {versions:#?}"));
        does(&outsider, &bucket, name, version);
        let (kinds, report) = findings(&endpoint, &location, public);
        assert!(kinds.contains(kind), "{bucket}: {kind} is not among {kinds:?}\n{report:#}");
    }
}
