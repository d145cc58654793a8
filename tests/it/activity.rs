//! The table `activity` has records of what is done with Strongroom itself. They are written like
//! all other records of an archive, so they are proven, kept and queried in the same way. Two
//! verifiers check them: `strongroom verify`, and the one for auditors, which shares no code with
//! the program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use strongroom_archive::Archive;
use strongroom_archive::activity::{ActivityKind, ActivityLog, ActivityRecord};
use strongroom_tlog::Signer;
use tempfile::TempDir;

use crate::run::{expect_code, export, ingest, log, output, strongroom, write};

struct Site {
    folder: TempDir,
    public: String,
}

impl Site {
    /// Makes an archive of events, with a key.
    fn new() -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        let public = expect_code(strongroom().args(["key", "new"]).arg(&key), 0).0.trim().to_owned();
        let site = Site { folder, public };
        site.ingest("a.log", 61);
        site
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn ingest(&self, name: &str, seed: u64) {
        let path = write(self.folder.path(), name, &log(500, seed));
        let mut command = ingest(&self.archive(), &[&path]);
        expect_code(command.args(["--complete", "--key"]).arg(self.folder.path().join("key")), 0);
    }

    /// Seals one activity record for each of `subjects`.
    fn seal(&self, writer: &str, principal: &str, subjects: &[Option<&str>]) {
        let signer = Signer::from_file(&self.folder.path().join("key")).expect("a key");
        let location = self.archive();
        let archive = Archive::open(location.to_str().expect("text")).expect("an archive");
        let mut writer_of_all = archive.signed_by(Arc::new(signer)).writer().expect("the lock is free");
        let mut log = ActivityLog::open(&mut writer_of_all, writer).expect("a log");
        let records: Vec<ActivityRecord> = subjects
            .iter()
            .enumerate()
            .map(|(at, subject)| {
                let time =
                    DateTime::from_timestamp_micros(1_772_445_600_000_000 + at as i64).expect("a time");
                let kind = ActivityKind::ALL[at % ActivityKind::ALL.len()];
                let details = Map::from_iter([("note".to_owned(), Value::from("it's \"this\"\n"))]);
                ActivityRecord::new(kind, time, principal, *subject, details).expect("a record")
            })
            .collect();
        log.append(&mut writer_of_all, &records).expect("appended");
        log.seal(&mut writer_of_all).expect("sealed");
    }

    fn answer(&self, sql: &str) -> Vec<String> {
        let mut query = strongroom();
        query.args(["query", "--format", "csv", "--archive"]).arg(self.archive()).arg(sql);
        expect_code(&mut query, 0).0.lines().skip(1).map(str::to_owned).collect()
    }

    /// Returns the kinds of findings of each of the two verifiers.
    fn kinds(&self) -> [Vec<String>; 2] {
        let python = std::env::var_os("STRONGROOM_PYTHON").unwrap_or_else(|| "python3".into());
        let mut ours = strongroom();
        ours.args(["verify", "--archive"]).arg(self.archive());
        let mut theirs = Command::new(python);
        theirs.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/verify.py")).arg("archive");
        theirs.arg(self.archive());
        [ours, theirs].map(|mut command| {
            let json = self.folder.path().join("report.json");
            let _ = std::fs::remove_file(&json);
            let said = output(command.args(["--public-key", &self.public, "--json"]).arg(&json));
            let report = std::fs::read(&json).unwrap_or_else(|error| {
                panic!("{command:?}: {error}: {}", String::from_utf8_lossy(&said.stderr))
            });
            let report: Value = serde_json::from_slice(&report).expect("a report");
            let findings = report["findings"].as_array().expect("a list");
            let kinds = findings.iter().map(|finding| finding["kind"].as_str().expect("a kind").to_owned());
            let mut kinds: Vec<String> = kinds.collect();
            kinds.sort();
            kinds.dedup();
            kinds
        })
    }
}

fn none() -> [Vec<String>; 2] {
    [Vec::new(), Vec::new()]
}

#[test]
fn records_are_verified_asked_for_and_held() {
    let site = Site::new();
    let lines = export(&site.archive());
    site.seal("q", "eve@example.com", &[Some("case 7"), None, Some("alert 1"), None]);
    site.seal("q", "eve@example.com", &[Some("case 8")]);
    site.seal("serve-2", "bob", &[None]);
    assert_eq!(site.kinds(), none());
    assert_eq!(
        site.answer("SELECT source, source_offset, kind, principal, subject FROM activity ORDER BY 1, 2"),
        [
            "activity/q,0,question,eve@example.com,case 7",
            "activity/q,1,triage,eve@example.com,",
            "activity/q,2,case,eve@example.com,alert 1",
            "activity/q,3,review,eve@example.com,",
            "activity/q,4,question,eve@example.com,case 8",
            "activity/serve-2,0,question,bob,",
        ]
    );
    assert_eq!(site.answer("SELECT count(*) FROM activity WHERE date = '2026-03-02'"), ["6"]);
    // The query returns the record as it was proven: one line of JSON.
    let mut query = strongroom();
    query.args(["query", "--quiet", "--format", "json", "--archive"]).arg(site.archive());
    let (rows, _) = expect_code(query.arg("SELECT body FROM activity WHERE principal = 'bob'"), 0);
    let row: Value = serde_json::from_str(rows.trim()).expect("a row");
    let record = ActivityRecord::parse(row["body"].as_str().expect("a body").to_owned()).expect("a record");
    assert_eq!((record.kind(), record.principal()), (ActivityKind::Question, "bob"));
    // Another log is ingested after the activity. The earlier events are still exported unchanged.
    site.ingest("b.log", 62);
    assert_eq!(site.kinds(), none());
    let all = export(&site.archive());
    assert!(all.starts_with(&lines) && all.len() > lines.len());

    let mut hold = strongroom();
    hold.args(["hold", "place", "--reason", "case 7", "--user", "nobody at all", "case 7", "--archive"]);
    expect_code(hold.arg(site.archive()).arg("--key").arg(site.folder.path().join("key")), 0);
    let list = std::fs::read_to_string(site.archive().join("_holds/00000001-00000001")).expect("a list");
    let files = |table: &str| {
        let of_table = format!("object {table}/");
        list.lines().filter(|line| line.starts_with(&of_table) && line.contains(".parquet")).count()
    };
    assert_eq!((files("activity"), files("events")), (3, 0), "a record may be about anybody: {list}");
    assert_eq!(site.kinds(), none());
}

#[test]
fn records_that_are_gone_are_missed() {
    let site = Site::new();
    site.seal("q", "eve", &[None, None]);
    site.seal("q", "eve", &[None]);
    let year = Utc::now().format("%Y").to_string();
    let volume = std::fs::read_dir(site.archive().join("activity"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&year)))
        .expect("a volume");
    site.ingest("b.log", 63);
    assert_eq!(site.kinds(), none());
    // A commit of `events` says how many commits of `activity` there were, so a missing volume of
    // activity is noticed.
    let away = site.folder.path().join("away");
    std::fs::rename(&volume, &away).expect("moved");
    for kinds in site.kinds() {
        assert_eq!(kinds, ["volume_missing"]);
    }
    std::fs::rename(&away, &volume).expect("moved back");
    let last = volume.join("_delta_log/00000000000000000002.json");
    let commit = std::fs::read(&last).expect("the second seal");
    std::fs::remove_file(&last).expect("removed");
    for kinds in site.kinds() {
        assert!(kinds.contains(&"commits_cut".to_owned()), "{kinds:?}");
    }
    std::fs::write(&last, commit).expect("written");
    assert_eq!(site.kinds(), none());
}
