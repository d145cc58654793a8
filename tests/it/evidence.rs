//! Evidence packs contain the requested records, with proofs. Every kind of tampering is found
//! under a name of its own, by `strongroom evidence check` and by the verifier for auditors, which
//! shares no code with it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::run::{expect_code, ingest, log, output, strongroom, write};
use crate::services::seaweed::{self, ACCESS_KEY, SECRET_KEY};

/// An archive with a key, and packs of it.
struct Site {
    folder: TempDir,
    public: String,
    /// Three times: a quarter, half and three quarters of the archive's events are before them.
    times: [String; 3],
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    /// Runs `strongroom evidence` on this archive.
    fn evidence(&self, out: &Path) -> Command {
        let mut command = strongroom();
        command.args(["evidence", "--quiet", "--archive"]).arg(self.archive()).arg("--out").arg(out);
        command.args(["--public-key", &self.public]);
        command
    }

    /// Runs `strongroom evidence` for the middle half of the archive's events.
    fn middle(&self, out: &Path) -> Command {
        let mut command = self.evidence(out);
        command.args(["--from", &self.times[0], "--to", &self.times[2]]);
        command
    }
}

fn new_key(path: &Path) -> String {
    expect_code(strongroom().args(["key", "new"]).arg(path), 0).0.trim().to_owned()
}

fn signed_ingest(archive: &Path, key: &Path, log: &Path, code: i32) {
    let mut command = ingest(archive, &[log]);
    command.arg("--key").arg(key).args(["--complete", "--seal-bytes", "64KiB", "--block-bytes", "1MiB"]);
    expect_code(&mut command, code);
}

fn answer(archive: &Path, sql: &str) -> Vec<String> {
    let mut query = strongroom();
    let (out, _) =
        expect_code(query.args(["query", "--format", "csv", "--archive"]).arg(archive).arg(sql), 0);
    out.lines().skip(1).map(str::to_owned).collect()
}

/// Makes the archive once. It has three sources, sealed in three runs, with attacks and rejects.
fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        let public = new_key(&key);
        for (name, events, seed) in [("a.log", 6_000, 51), ("b.log", 3_000, 52), ("c.log", 900, 53)] {
            let mut bytes = log(events, seed);
            let middle = bytes.len() / 2;
            let line = middle + bytes[middle..].iter().position(|byte| *byte == b'\n').expect("a line") + 1;
            bytes.splice(line..line, b"this is no event\nnor is this\n".iter().copied());
            let path = write(folder.path(), name, &bytes);
            signed_ingest(&folder.path().join("archive"), &key, &path, 1);
        }
        let archive = folder.path().join("archive");
        let all: usize = answer(&archive, "SELECT count(*) FROM events")[0].parse().expect("a number");
        let times = [all / 4, all / 2, all * 3 / 4].map(|at| {
            let sql =
                format!("SELECT stage_timestamp FROM events ORDER BY stage_timestamp LIMIT 1 OFFSET {at}");
            answer(&archive, &sql).remove(0)
        });
        Site { folder, public, times }
    })
}

/// Makes, once, a signed pack of the middle half of the site's events.
fn pack() -> &'static Path {
    static PACK: OnceLock<PathBuf> = OnceLock::new();
    PACK.get_or_init(|| {
        let out = site().path("pack");
        expect_code(site().middle(&out).arg("--key").arg(site().path("key")), 0);
        out
    })
}

fn complete_pack() -> &'static Path {
    static PACK: OnceLock<PathBuf> = OnceLock::new();
    PACK.get_or_init(|| {
        let out = site().path("complete");
        let mut command = site().evidence(&out);
        let later = "2099-01-01";
        expect_code(command.args(["--from", &site().times[2], "--to", later, "--complete"]), 0);
        out
    })
}

fn copy(pack: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let copied =
        Command::new("cp").arg("-a").arg(pack.join(".")).arg(folder.path()).status().expect("cp runs");
    assert!(copied.success());
    folder
}

fn kinds(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().map(|finding| finding["kind"].as_str().expect("a kind").to_owned()).collect()
}

fn ours(pack: &Path, public: &str, archive: Option<&Path>) -> (BTreeSet<String>, Value) {
    let mut command = strongroom();
    command.args(["evidence", "check", "--quiet", "--json", "-", "--public-key", public]).arg(pack);
    if let Some(archive) = archive {
        command.arg("--archive").arg(archive);
    }
    let output = output(&mut command);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{command:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let kinds = kinds(&report);
    assert_eq!(output.status.code(), Some(i32::from(!kinds.is_empty())), "{report:#}");
    (kinds, report)
}

/// Runs the verifier for auditors on a pack, and returns the kinds of its findings and its report.
fn theirs(pack: &Path, public: &str) -> (BTreeSet<String>, Value) {
    let python = std::env::var_os("STRONGROOM_PYTHON").unwrap_or_else(|| "python3".into());
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/verify.py")).arg("pack").arg(pack);
    command.args(["--public-key", public, "--json"]).arg(&json);
    let output = output(&mut command);
    let report = std::fs::read(&json).unwrap_or_default();
    let report: Value = serde_json::from_slice(&report)
        .unwrap_or_else(|error| panic!("{command:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let kinds = kinds(&report);
    assert_eq!(output.status.code(), Some(i32::from(!kinds.is_empty())), "{report:#}");
    (kinds, report)
}

fn nobody_finds_anything(pack: &Path, public: &str, archive: Option<&Path>) -> Value {
    let (kinds, report) = ours(pack, public, archive);
    assert!(kinds.is_empty(), "{report:#}");
    let (kinds, second) = theirs(pack, public);
    assert!(kinds.is_empty(), "{second:#}");
    for what in ["events", "alerts", "proofs", "files"] {
        let count = |report: &Value| report["checked"][what].as_u64().unwrap_or(0);
        assert_eq!(count(&report), count(&second), "{what}");
    }
    assert_eq!(report["heads"], second["heads"]);
    report
}

fn read(pack: &Path, name: &str) -> Vec<u8> {
    std::fs::read(pack.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn read_json(pack: &Path, name: &str) -> Value {
    serde_json::from_slice(&read(pack, name)).expect("JSON")
}

fn put(pack: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(pack.join(name), bytes).expect("written");
}

fn edit(pack: &Path, name: &str, change: impl FnOnce(&mut Value)) {
    let mut value = read_json(pack, name);
    change(&mut value);
    put(pack, name, value.to_string().as_bytes());
}

/// Makes the manifest agree with a changed pack, and removes the signature. Somebody without the
/// key can do that.
fn forge(pack: &Path) {
    let mut names: Vec<String> = Vec::new();
    for folder in ["", "proofs/", "commits/"] {
        let Ok(entries) = std::fs::read_dir(pack.join(folder)) else { continue };
        let files = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_file());
        names.extend(files.map(|entry| format!("{folder}{}", entry.file_name().to_string_lossy())));
    }
    names.retain(|name| !name.starts_with("manifest."));
    names.sort();
    let files: Vec<Value> = names
        .iter()
        .map(|name| {
            let bytes = read(pack, name);
            let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "name": name, "bytes": bytes.len(), "sha256": sha256 })
        })
        .collect();
    let _ = std::fs::remove_file(pack.join("manifest.note"));
    edit(pack, "manifest.json", |manifest| {
        manifest["files"] = json!(files);
        manifest["signed_by"] = Value::Null;
    });
}

#[test]
fn a_pack_is_the_answer_and_proves_it() {
    let (site, pack) = (site(), pack());
    let report = nobody_finds_anything(pack, &site.public, Some(&site.archive()));
    assert_eq!(
        report["not_checked"],
        json!([]),
        "the pack is signed, its key is trusted, and the query was repeated"
    );
    let manifest = read_json(pack, "manifest.json");
    let period = format!("stage_timestamp >= '{}' AND stage_timestamp < '{}'", site.times[0], site.times[2]);
    let events = answer(&site.archive(), &format!("SELECT count(*) FROM events WHERE {period}"))[0].clone();
    assert_eq!(manifest["counts"]["events"].to_string(), events);
    assert!(manifest["counts"]["alerts"].as_u64() > Some(0), "{manifest:#}");
    assert!(manifest["counts"]["proofs"].as_u64() > Some(1), "the proofs are in more than one file");
    assert!(manifest["counts"]["rejects_at_positions"].as_u64() >= Some(4), "{manifest:#}");
    // The records are the original bytes: each is a line of a log, and none occurs twice.
    let logs: String = ["a.log", "b.log", "c.log"]
        .map(|name| String::from_utf8(read(site.folder.path(), name)).expect("text"))
        .concat();
    let known: BTreeSet<&str> = logs.lines().collect();
    let records = String::from_utf8(read(pack, "records.jsonl")).expect("text");
    let lines: BTreeSet<&str> = records.lines().collect();
    assert_eq!(lines.len().to_string(), events);
    assert!(lines.is_subset(&known));
    // Anyone can repeat the query of the pack: `strongroom query` gives an answer with the same
    // hash.
    let sql = manifest["events_query"]["sql"].as_str().expect("SQL");
    let mut query = strongroom();
    query.args(["query", "--quiet", "--format", "json", "--archive"]).arg(site.archive()).arg(sql);
    let sha256: String =
        Sha256::digest(output(&mut query).stdout).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(manifest["events_query"]["sha256"], sha256.as_str());
    // Each proof file can be verified without the rest of the pack.
    let mut alone = strongroom();
    alone.args(["verify-proof", "--public-key", &site.public]).arg(pack.join("proofs/00000001.json"));
    expect_code(&mut alone, 0);
    let gaps = read_json(pack, "gaps.json");
    assert!(
        gaps["in_all"]["rejects"].as_u64() > Some(0) && gaps["in_all"]["sealed_late"].as_u64() > Some(0),
        "{gaps:#}"
    );
    assert!(gaps["cannot_know"].as_array().is_some_and(|unknown| unknown.len() > 5));
    let store = read_json(pack, "store.json");
    assert_eq!(store["store"], "local");
    assert!(store["objects"].as_array().is_some_and(|objects| objects.len() > 6), "{store:#}");
    assert_eq!(read_json(pack, "verification.json")["result"], "ok");
    let html = String::from_utf8(read(pack, "report.html")).expect("text");
    for said in [
        "164.312(b)",
        "164.312(c)(1)",
        "164.308(a)(1)(ii)(D)",
        "164.316(b)(2)(i)",
        "Nothing here certifies",
        &events,
    ] {
        let with_commas = said
            .parse::<u64>()
            .map_or(said.to_owned(), |number| format!("{},{:03}", number / 1000, number % 1000));
        assert!(html.contains(said) || html.contains(&with_commas), "{said}");
    }
    for unwanted in ["<script", "http://", "https://", "<img", "<link", "certified"] {
        assert!(!html.contains(unwanted), "{unwanted}");
    }
    assert!(String::from_utf8_lossy(&read(pack, "VERIFY.md")).contains("verify.py pack . --public-key"));
    // The same question gives the same records.
    let again = site.path("again");
    expect_code(&mut site.middle(&again), 0);
    assert!(read(&again, "records.jsonl") == read(pack, "records.jsonl"));
    assert!(read(&again, "alerts.jsonl") == read(pack, "alerts.jsonl"));
    let mode = std::fs::metadata(&again).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "only the owner can open a pack");
    let (kinds, report) = ours(&again, &site.public, None);
    assert!(kinds.is_empty());
    let unchecked = report["not_checked"].to_string();
    assert!(unchecked.contains("not signed") && unchecked.contains("all records"), "{unchecked}");
}

#[test]
fn questions_choose_by_namespace_user_and_condition() {
    let site = site();
    let most = "SELECT namespace FROM events WHERE namespace IS NOT NULL GROUP BY namespace ORDER BY count(*) DESC, namespace LIMIT 1";
    let namespace = answer(&site.archive(), most).remove(0);
    let user = "SELECT user_name FROM events GROUP BY user_name ORDER BY count(*) DESC, user_name LIMIT 1";
    let user = answer(&site.archive(), user).remove(0);
    let cases: [(&str, Vec<&str>, String); 3] = [
        ("namespace", vec!["--namespace", &namespace], format!("namespace = '{namespace}'")),
        (
            "user",
            vec!["--user", &user],
            format!("(user_name = '{user}' OR impersonated_user_name = '{user}')"),
        ),
        ("where", vec!["--where", "verb = 'delete' -- only"], "verb = 'delete'".to_owned()),
    ];
    for (name, arguments, condition) in cases {
        let out = site.path(&format!("by-{name}"));
        expect_code(site.middle(&out).args(arguments), 0);
        nobody_finds_anything(&out, &site.public, Some(&site.archive()));
        let sql = format!(
            "SELECT count(*) FROM events WHERE {condition} AND stage_timestamp >= '{}' AND stage_timestamp < '{}'",
            site.times[0], site.times[2]
        );
        let counts = read_json(&out, "manifest.json")["counts"].clone();
        assert_eq!(counts["events"].to_string(), answer(&site.archive(), &sql)[0], "{name}");
        assert!(counts["events"].as_u64() < counts["rows_examined"].as_u64(), "{name}: {counts:#}");
        // An alert is chosen if any of its events has the name. The column `of_one` is about the
        // last event only, so it finds no more alerts than that.
        let (of_all, of_one, value) = match name {
            "namespace" => ("namespaces", "namespace", &namespace),
            "user" => ("actors", "actor", &user),
            _ => continue,
        };
        let alerts = |condition: String| -> u64 {
            let period = format!("time >= '{}' AND time < '{}'", site.times[0], site.times[2]);
            let sql = format!("SELECT count(*) FROM alerts WHERE {period} AND ({condition})");
            answer(&site.archive(), &sql)[0].parse().expect("a number")
        };
        let touched = alerts(format!("array_has({of_all}, '{value}') OR array_has({of_all}, '*')"));
        assert_eq!(counts["alerts"].as_u64(), Some(touched), "{name}");
        assert!(touched >= alerts(format!("{of_one} = '{value}'")), "{name}");
    }
}

#[test]
fn alerts_name_what_all_of_their_events_touch() {
    let site = site();
    let strangers = "
        SELECT count(*) FROM alerts a JOIN events e ON array_has(a.audit_ids, e.audit_id)
        WHERE NOT ((e.namespace IS NULL OR array_has(a.namespaces, e.namespace) OR array_has(a.namespaces, '*'))
                   AND (array_has(a.actors, e.user_name) OR array_has(a.actors, '*'))
                   AND (array_has(a.clusters, e.cluster) OR array_has(a.clusters, '*')))";
    assert_eq!(answer(&site.archive(), strangers), ["0"]);
    let several = "SELECT count(*) FROM alerts WHERE array_length(namespaces) > 1";
    assert_ne!(answer(&site.archive(), several), ["0"], "some alerts must name several namespaces");
    let rows = |sql: &str| -> Vec<Value> {
        let mut query = strongroom();
        query.args(["query", "--quiet", "--format", "json", "--archive"]).arg(site.archive()).arg(sql);
        let (out, _) = expect_code(&mut query, 0);
        out.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
    };
    let events = rows("SELECT audit_id, source, source_offset FROM events");
    for alert in rows("SELECT alert_id, event_count, audit_ids, event_ranges, ocsf FROM alerts") {
        let ranges = alert["event_ranges"].as_str().expect("ranges");
        let ranges: Vec<(String, i64, i64)> = serde_json::from_str(ranges).expect("ranges");
        let holds = |event: &&Value| {
            let offset = event["source_offset"].as_i64().expect("an offset");
            ranges.iter().any(|(source, first, last)| {
                (event["source"] == source.as_str() || source == "*") && (*first..=*last).contains(&offset)
            })
        };
        let held: BTreeSet<&str> =
            events.iter().filter(holds).map(|event| event["audit_id"].as_str().expect("an id")).collect();
        for id in alert["audit_ids"].as_array().expect("a list") {
            assert!(held.contains(id.as_str().expect("an id")), "{alert:#}");
        }
        // The finding, which is the proven record of the alert, says the same as the columns.
        let finding: Value = serde_json::from_str(alert["ocsf"].as_str().expect("a finding")).expect("JSON");
        let said = finding["unmapped"]["event_ranges"].as_array().expect("a list").iter();
        let said: Vec<(String, i64, i64)> = said
            .map(|range| {
                let number = |name: &str| range[name].as_i64().expect("an offset");
                (range["source"].as_str().expect("a source").to_owned(), number("first"), number("last"))
            })
            .collect();
        assert_eq!(said, ranges);
    }
}

#[test]
fn a_complete_pack_shows_that_nothing_is_missing() {
    let (site, pack) = (site(), complete_pack());
    let report = nobody_finds_anything(pack, &site.public, Some(&site.archive()));
    assert!(!report["not_checked"].to_string().contains("all records"), "{report:#}");
    let counts = read_json(pack, "manifest.json")["counts"].clone();
    assert_eq!(counts["events"], counts["rows_examined"]);
    assert!(counts["events"].as_u64() > counts["events_in_question"].as_u64(), "{counts:#}");
    // A file whose times are outside the question's period is not in the pack.
    let all = answer(&site.archive(), "SELECT count(*) FROM events")[0].parse().expect("a number");
    assert!(counts["events"].as_u64() <= Some(all), "{counts:#}");
    let mut refused = site.evidence(&site.path("refused"));
    let (_, err) = expect_code(
        refused.args(["--from", "2026-01-01", "--to", "2027-01-01", "--complete", "--user", "x"]),
        64,
    );
    assert!(err.contains("cannot be used with"), "{err}");
}

/// A tampering: what is done, the kind of finding that it must give, whether it is done to a
/// complete pack (true) or to a signed one (false), and the function that does it to a copy.
type Tampering = (&'static str, &'static str, bool, fn(&Path));

fn first_piece(pack: &Path, change: impl FnOnce(&mut Value)) {
    edit(pack, "proofs/00000001.json", change);
}

/// Removes the last event from everything that names it, as somebody could who makes packs and
/// wants to hide that event.
fn leave_out_last_event(pack: &Path) {
    let manifest = read_json(pack, "manifest.json");
    let mut names: Vec<String> = manifest["files"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|file| {
            file["name"].as_str().filter(|name| name.starts_with("proofs/")).map(str::to_owned)
        })
        .collect();
    names.sort();
    let mut taken = None;
    for name in names.iter().rev() {
        edit(pack, name, |piece| {
            let alerts: Vec<bool> = piece["commits"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|commit| {
                    piece["checkpoints"][commit["checkpoint"].as_u64().expect("a place") as usize]["table"]
                        == "alerts"
                })
                .collect();
            let records = piece["records"].as_array_mut().expect("a list");
            let is_event = |record: &Value| !alerts[record["commit"].as_u64().expect("a place") as usize];
            if let (None, Some(at)) = (&taken, records.iter().rposition(is_event)) {
                taken = Some(records.remove(at));
            }
        });
        if taken.is_some() {
            break;
        }
    }
    let taken = taken.expect("an event");
    let record = BASE64.decode(taken["record"].as_str().expect("base64")).expect("base64");
    let mut records = read(pack, "records.jsonl");
    assert!(records.ends_with(&[&record[..], b"\n"].concat()), "the record to hide is the last one");
    records.truncate(records.len() - record.len() - 1);
    put(pack, "records.jsonl", &records);
    edit(pack, "archive-files.json", |files| {
        let file = files["files"]
            .as_array_mut()
            .expect("a list")
            .iter_mut()
            .find(|file| file["file"] == taken["file"]);
        let file = file.expect("its file");
        file["chosen"] = json!(file["chosen"].as_u64().expect("a number") - 1);
    });
    edit(pack, "manifest.json", |manifest| {
        for (of, name) in [("counts", "events"), ("counts", "events_in_question"), ("events_query", "rows")] {
            manifest[of][name] = json!(manifest[of][name].as_u64().expect("a number") - 1);
        }
    });
    forge(pack);
}

const TAMPERINGS: [Tampering; 27] = [
    ("a byte of a record is flipped", "pack_file_changed", false, |pack| {
        let mut records = read(pack, "records.jsonl");
        records[40] ^= 1;
        put(pack, "records.jsonl", &records);
    }),
    ("a byte of a record is flipped, and the manifest follows", "pack_records", false, |pack| {
        let mut records = read(pack, "records.jsonl");
        records[40] ^= 1;
        put(pack, "records.jsonl", &records);
        forge(pack);
    }),
    ("a record is taken out of the file of records", "pack_records", false, |pack| {
        let records = read(pack, "records.jsonl");
        let first = records.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        put(pack, "records.jsonl", &records[first..]);
        forge(pack);
    }),
    ("a line is added after the records", "pack_records", false, |pack| {
        put(pack, "records.jsonl", &[&read(pack, "records.jsonl")[..], b"{}\n"].concat());
        forge(pack);
    }),
    ("an alert is changed", "pack_records", false, |pack| {
        let alerts =
            String::from_utf8(read(pack, "alerts.jsonl")).expect("text").replacen("severity", "Severity", 1);
        put(pack, "alerts.jsonl", alerts.as_bytes());
        forge(pack);
    }),
    ("the report is changed", "pack_file_changed", false, |pack| {
        put(pack, "report.html", b"<p>nothing happened</p>")
    }),
    ("the report is changed, and the manifest follows", "pack_signature", false, |pack| {
        let note = read(pack, "manifest.note");
        put(pack, "report.html", b"<p>nothing happened</p>");
        let signed_by = read_json(pack, "manifest.json")["signed_by"].clone();
        forge(pack);
        edit(pack, "manifest.json", |manifest| manifest["signed_by"] = signed_by);
        put(pack, "manifest.note", &note);
    }),
    ("the signature is removed", "pack_signature", false, |pack| {
        std::fs::remove_file(pack.join("manifest.note")).expect("removed");
    }),
    ("the signature is changed", "pack_signature", false, |pack| {
        let note = String::from_utf8(read(pack, "manifest.note")).expect("text");
        let at = note.trim_end().len() - 10;
        let other = if note.as_bytes()[at] == b'A' { "B" } else { "A" };
        put(pack, "manifest.note", format!("{}{other}{}", &note[..at], &note[at + 1..]).as_bytes());
    }),
    ("a checkpoint stands for the signature", "pack_signature", false, |pack| {
        let note = read_json(pack, "manifest.json")["heads"][0]["note"].clone();
        put(pack, "manifest.note", note.as_str().expect("a note").as_bytes());
    }),
    ("a piece of proof is removed", "pack_file_missing", false, |pack| {
        std::fs::remove_file(pack.join("proofs/00000001.json")).expect("removed");
    }),
    ("a piece of proof is removed, and the manifest follows", "pack_records", false, |pack| {
        std::fs::remove_file(pack.join("proofs/00000001.json")).expect("removed");
        forge(pack);
    }),
    ("a file is added", "pack_file_extra", false, |pack| put(pack, "readme.txt", b"trust me")),
    ("a piece of proof is added that is not a proof", "pack_proof", false, |pack| {
        put(pack, "proofs/00000099.json", b"{}");
        forge(pack);
    }),
    ("a link lies in a file's place", "pack_file_missing", false, |pack| {
        std::fs::remove_file(pack.join("gaps.json")).expect("removed");
        std::os::unix::fs::symlink("store.json", pack.join("gaps.json")).expect("a link");
    }),
    ("a record in a proof is replaced", "pack_proof", false, |pack| {
        first_piece(pack, |piece| piece["records"][3]["record"] = json!(BASE64.encode("{\"forged\":true}")));
        forge(pack);
    }),
    ("a record says it is in another row", "pack_proof", false, |pack| {
        first_piece(pack, |piece| {
            let row = piece["records"][3]["row"].as_u64().expect("a row");
            piece["records"][3]["row"] = json!(row + 1);
        });
        forge(pack);
    }),
    ("a commit in a proof is changed", "pack_proof", false, |pack| {
        first_piece(pack, |piece| {
            let commit =
                BASE64.decode(piece["commits"][0]["commit"].as_str().expect("base64")).expect("base64");
            piece["commits"][0]["commit"] = json!(BASE64.encode([&commit[..], b" "].concat()));
        });
        forge(pack);
    }),
    ("two records have changed places, everywhere", "pack_order", false, |pack| {
        let mut lines: Vec<Vec<u8>> =
            read(pack, "records.jsonl").split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.swap(0, 1);
        put(pack, "records.jsonl", &lines.concat());
        first_piece(pack, |piece| piece["records"].as_array_mut().expect("a list").swap(0, 1));
        forge(pack);
    }),
    ("a record is there twice, everywhere", "pack_proof", false, |pack| {
        let records = read(pack, "records.jsonl");
        let first = records.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        put(pack, "records.jsonl", &[&records[..first], &records[..]].concat());
        first_piece(pack, |piece| {
            let record = piece["records"][0].clone();
            piece["records"].as_array_mut().expect("a list").insert(0, record);
        });
        forge(pack);
    }),
    ("the description of a file of the archive is changed", "pack_archive_files", false, |pack| {
        edit(pack, "archive-files.json", |files| files["files"][0]["sha256"] = json!("0".repeat(64)));
        forge(pack);
    }),
    ("a file of the archive is left out of the list", "pack_archive_files", false, |pack| {
        edit(pack, "archive-files.json", |files| {
            _ = files["files"].as_array_mut().expect("a list").remove(0)
        });
        forge(pack);
    }),
    ("a count is changed", "pack_counts", false, |pack| {
        edit(pack, "manifest.json", |manifest| {
            manifest["counts"]["received"]["rejects"] = json!(0);
            manifest["counts"]["received"]["received"] = json!(1);
        });
        forge(pack);
    }),
    ("the period that was asked for is changed", "pack_question", false, |pack| {
        edit(pack, "manifest.json", |manifest| {
            manifest["question"]["from"] = manifest["question"]["to"].clone()
        });
        forge(pack);
    }),
    ("the manifest has a field that it should not have", "pack_manifest", false, |pack| {
        edit(pack, "manifest.json", |manifest| manifest["approved_by"] = json!("an auditor"));
    }),
    ("a record of a complete pack is left out, everywhere", "pack_complete", true, leave_out_last_event),
    ("a commit of a complete pack is left out", "pack_complete", true, |pack| {
        let folder = std::fs::read_dir(pack.join("commits")).expect("commits");
        let path = folder
            .map(|entry| entry.expect("an entry").path())
            .find(|path| path.to_string_lossy().contains("/events-"));
        let path = path.expect("commits of events");
        let text = std::fs::read_to_string(&path).expect("text");
        let last = text.trim_end().rfind('\n').expect("lines") + 1;
        std::fs::write(&path, &text[..last]).expect("written");
        forge(pack);
    }),
];

#[test]
fn every_tampering_with_a_pack_is_named() {
    let site = site();
    for (name, kind, complete, does) in TAMPERINGS {
        let folder = copy(if complete { complete_pack() } else { pack() });
        does(folder.path());
        for (who, (kinds, report)) in [
            ("ours", ours(folder.path(), &site.public, None)),
            ("theirs", theirs(folder.path(), &site.public)),
        ] {
            assert!(kinds.contains(kind), "{who}: {name}: {kind} is not among {kinds:?}\n{report:#}");
        }
    }
    let stranger = new_key(&site.path("stranger-key"));
    assert_eq!(ours(pack(), &stranger, None).0, BTreeSet::from(["key_untrusted".to_owned()]));
    assert_eq!(theirs(pack(), &stranger).0, BTreeSet::from(["key_untrusted".to_owned()]));
}

#[test]
fn a_record_that_was_left_out_is_found_by_asking_again() {
    let site = site();
    let folder = copy(pack());
    leave_out_last_event(folder.path());
    // Everything in the pack is proven, but the pack is not signed. A check of the pack alone
    // cannot show that something is missing, and its report says so.
    let (kinds, report) = ours(folder.path(), &site.public, None);
    assert!(kinds.is_empty(), "{report:#}");
    assert!(report["not_checked"].to_string().contains("whether these are all records"), "{report:#}");
    let (kinds, second) = theirs(folder.path(), &site.public);
    assert!(
        kinds.is_empty() && second["not_checked"].to_string().contains("whether these are all records"),
        "{second:#}"
    );
    let (kinds, report) = ours(folder.path(), &site.public, Some(&site.archive()));
    assert!(kinds.contains("pack_incomplete"), "{report:#}");
    // In this pack the SQL asks for less than the question does.
    let folder = copy(pack());
    edit(folder.path(), "manifest.json", |manifest| {
        let sql = manifest["events_query"]["sql"].as_str().expect("SQL").replace("WHERE", "WHERE false AND");
        manifest["events_query"]["sql"] = json!(sql);
    });
    forge(folder.path());
    assert!(ours(folder.path(), &site.public, Some(&site.archive())).0.contains("pack_question"));
}

#[test]
fn later_changes_of_the_archive_are_reported_but_not_as_findings() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let public = new_key(&path("key"));
    signed_ingest(&path("archive"), &path("key"), &write(folder.path(), "a.log", &log(600, 61)), 0);
    let evidence = |out: &str, code| {
        let mut command = strongroom();
        command.args(["evidence", "--archive"]).arg(path("archive")).arg("--out").arg(path(out));
        expect_code(command.args(["--from", "2026-01-01", "--to", "2027-01-01"]), code)
    };
    let (_, err) = evidence("before", 0);
    assert!(err.contains("checking the pack as a stranger would") && err.contains("600 events"), "{err}");
    // Unsigned commits cannot be proven.
    expect_code(&mut ingest(&path("archive"), &[&write(folder.path(), "b.log", &log(300, 62))]), 0);
    let (_, err) = evidence("unsigned", 2);
    assert!(err.contains("300 records are not in a signed commit yet") && err.contains("sign-log"), "{err}");
    assert!(!path("unsigned").exists());
    expect_code(
        strongroom().args(["sign-log", "--archive"]).arg(path("archive")).arg("--key").arg(path("key")),
        0,
    );
    evidence("after", 0);
    let (kinds, report) = ours(&path("before"), &public, Some(&path("archive")));
    assert!(kinds.is_empty(), "{report:#}");
    assert!(
        report["not_checked"].to_string().contains("300 events of the period were sealed after"),
        "{report:#}"
    );
    // The key is rotated. Packs from before stay valid under the old key, the only one that they
    // contain. New packs are valid under both keys.
    let second = new_key(&path("second"));
    let mut rotate = strongroom();
    rotate.args(["key", "rotate", "--archive"]).arg(path("archive"));
    expect_code(rotate.arg("--key").arg(path("key")).arg("--to").arg(path("second")), 0);
    let mut signed = strongroom();
    signed
        .args(["evidence", "--quiet", "--from", "2026-01-01", "--to", "2027-01-01", "--archive"])
        .arg(path("archive"));
    let (_, err) = expect_code(signed.arg("--out").arg(path("wrong")).arg("--key").arg(path("key")), 2);
    assert!(err.contains("current key"), "{err}");
    let mut signed = strongroom();
    signed
        .args(["evidence", "--quiet", "--from", "2026-01-01", "--to", "2027-01-01", "--archive"])
        .arg(path("archive"));
    expect_code(signed.arg("--out").arg(path("rotated")).arg("--key").arg(path("second")), 0);
    nobody_finds_anything(&path("after"), &public, Some(&path("archive")));
    for public in [&public, &second] {
        nobody_finds_anything(&path("rotated"), public, Some(&path("archive")));
    }
    assert!(
        ours(&path("after"), &second, None).0.contains("key_untrusted"),
        "the pack is older than that key"
    );
    // The pack is checked against another archive.
    assert!(ours(&path("after"), &public, Some(&site().archive())).0.contains("pack_archive"));
    // The archive is rolled back to a state before the pack was made.
    let volumes = std::fs::read_dir(path("archive").join("events")).expect("volumes");
    let volume = volumes.map(|entry| entry.expect("an entry").path()).next().expect("a volume");
    let commits = std::fs::read_dir(volume.join("_delta_log")).expect("commits");
    let mut commits: Vec<PathBuf> = commits.map(|entry| entry.expect("an entry").path()).collect();
    commits.sort();
    std::fs::remove_file(commits.pop().expect("a commit")).expect("removed");
    assert!(ours(&path("rotated"), &public, Some(&path("archive"))).0.contains("forked"));
}

/// Returns an event whose names are all attempts to break out of the HTML report.
fn hostile(number: u32) -> String {
    let name = "</td><script>alert(1)</script><img src=x onerror=alert(2)>";
    let event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": format!("\"><b>{number}</b>"),
        "stage": "ResponseComplete", "requestURI": format!("/api/{name}"), "verb": format!("get\"{name}"),
        "user": { "username": format!("eve' onmouseover='{name}\u{202e}"), "groups": ["system:authenticated"] },
        "sourceIPs": [format!("10.0.0.1<iframe src=\"javascript:alert(3)\">")], "userAgent": name,
        "objectRef": { "resource": format!("pods{name}"), "namespace": format!("ns&{name}\u{1b}[2J"), "name": name, "apiVersion": "v1" },
        "responseStatus": { "metadata": {}, "code": 200 },
        "requestReceivedTimestamp": "2026-03-02T10:00:00.000000Z",
        "stageTimestamp": format!("2026-03-02T10:00:{:02}.000000Z", number % 60),
        "annotations": { "authorization.k8s.io/decision": "allow<script>" },
    });
    event.to_string()
}

#[test]
fn hostile_names_are_text_in_a_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let public = new_key(&path("key"));
    let lines: String = (0..40).map(|number| hostile(number) + "\n").collect();
    let source =
        write(folder.path(), "<script>alert(4)<script>.log", (lines + "<svg onload=alert(5)>\n").as_bytes());
    let mut command = strongroom();
    command.args([
        "ingest",
        "--quiet",
        "--cluster",
        "<script>cluster</script>",
        "--print-alerts",
        "critical",
        "--archive",
    ]);
    command.arg(path("archive")).arg(&source).arg("--complete").arg("--key").arg(path("key"));
    expect_code(&mut command, 1);
    let out = path("out");
    let mut evidence = strongroom();
    evidence
        .args(["evidence", "--quiet", "--from", "2026-03-02", "--to", "2026-03-03", "--archive"])
        .arg(path("archive"));
    evidence.arg("--out").arg(&out).args(["--where", "verb <> '<script>alert(6)</script>'"]);
    expect_code(&mut evidence, 0);
    nobody_finds_anything(&out, &public, Some(&path("archive")));
    let html = String::from_utf8(read(&out, "report.html")).expect("text");
    for unwanted in ["<script", "<img", "<iframe", "<svg", "<b>", "\u{202e}", "\u{1b}"] {
        assert!(!html.contains(unwanted), "{unwanted}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    // Every attribute of the page is ours.
    let allowed = ["lang=", "charset=", "http-equiv=", "content=", "class="];
    for tag in html.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        for attribute in tag.split_whitespace().skip(1).filter(|word| word.contains('=')) {
            assert!(allowed.iter().any(|known| attribute.starts_with(known)), "<{tag}>");
        }
    }
}

#[test]
fn a_pack_without_records_says_so() {
    let site = site();
    let out = site.path("empty");
    let mut command = site.evidence(&out);
    command.args(["--from", "2031-01-01", "--to", "2031-02-01", "--key"]).arg(site.path("key"));
    expect_code(&mut command, 0);
    let report = nobody_finds_anything(&out, &site.public, Some(&site.archive()));
    assert_eq!(report["checked"]["events"], 0);
    assert_eq!(report["heads"].as_array().map(Vec::len), Some(3), "{report:#}");
    let html = String::from_utf8(read(&out, "report.html")).expect("text");
    assert!(html.contains("No event of the archive answers the question"), "{html}");
    assert!(read(&out, "records.jsonl").is_empty());
}

#[test]
fn impossible_requests_are_refused_and_leave_nothing() {
    let site = site();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let out = path("out");
    // The folder is not empty.
    std::fs::create_dir(&out).expect("a folder");
    std::fs::write(out.join("mine"), b"x").expect("a file");
    let (_, err) = expect_code(&mut site.middle(&out), 1);
    assert!(err.contains("is not empty"), "{err}");
    std::fs::remove_file(out.join("mine")).expect("removed");
    // The period is empty, the SQL is wrong, the location has no archive, or an argument is
    // missing.
    let (_, err) = expect_code(site.evidence(&out).args(["--from", "2026-03-02", "--to", "2026-03-02"]), 1);
    assert!(err.contains("ends before it starts"), "{err}");
    let (_, err) = expect_code(site.middle(&out).args(["--where", "no_such_column = 1"]), 1);
    assert!(err.contains("no_such_column"), "{err}");
    let (_, err) = expect_code(
        strongroom().args(["evidence", "--from", "2026-03-02", "--to", "2026-03-03", "--out", "x"]),
        64,
    );
    assert!(err.contains("--archive"), "{err}");
    let mut keyless = ingest(&path("keyless"), &[&write(folder.path(), "a.log", &log(50, 3))]);
    expect_code(&mut keyless, 0);
    let mut command = strongroom();
    command
        .args(["evidence", "--quiet", "--from", "2026-01-01", "--to", "2027-01-01", "--archive"])
        .arg(path("keyless"));
    let (_, err) = expect_code(command.arg("--out").arg(&out), 2);
    assert!(err.contains("the archive has no key yet"), "{err}");
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["a.log", "keyless", "out"], "nothing half made is left");
    // An empty folder is replaced.
    expect_code(&mut site.middle(&out), 0);
    assert!(out.join("manifest.json").is_file());
    let (_, err) = expect_code(strongroom().args(["evidence", "check", "--quiet"]).arg(path("none")), 1);
    assert!(err.contains("cannot read"), "{err}");
}

#[test]
fn a_killed_run_leaves_no_pack_that_looks_whole() {
    let site = site();
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let mut killed = 0;
    for step in 1.. {
        let mut command = strongroom();
        command.args(["evidence", "--archive"]).arg(site.archive()).arg("--out").arg(&out);
        command.args(["--from", &site.times[0], "--to", &site.times[1]]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let reached = lines.by_ref().take(step).filter(Result::is_ok).count();
        if reached == step && !out.exists() {
            child.kill().expect("killed, or ended already");
        }
        if child.wait().expect("ends").code().is_some() {
            break;
        }
        killed += 1;
        assert!(!out.exists(), "killed after line {step}");
    }
    assert!(killed >= 6, "{killed} steps");
    nobody_finds_anything(&out, &site.public, Some(&site.archive()));
    let left =
        std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    for name in left.filter(|name| name != "out") {
        assert!(name.to_string_lossy().starts_with(".out.partial-"), "{name:?}");
    }
}

#[test]
fn damage_to_the_archive_is_reported_in_the_pack_or_prevents_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    new_key(&path("key"));
    for (name, seed) in [("a.log", 71), ("b.log", 72)] {
        signed_ingest(&path("archive"), &path("key"), &write(folder.path(), name, &log(400, seed)), 0);
    }
    let evidence = |out: &str| {
        let mut command = strongroom();
        command.args(["evidence", "--quiet", "--from", "2026-01-01", "--to", "2027-01-01", "--archive"]);
        command.arg(path("archive")).arg("--out").arg(path(out));
        command
    };
    // A tile is missing. Proofs do not contain tiles, so the pack is made. It reports the finding
    // of `verify`, and the exit code is that of findings.
    let volumes = std::fs::read_dir(path("archive").join("events")).expect("volumes");
    let volume = volumes.map(|entry| entry.expect("an entry").path()).next().expect("a volume");
    std::fs::remove_dir_all(volume.join("_tlog/tile")).expect("removed");
    expect_code(&mut evidence("told"), 1);
    let html = String::from_utf8(read(&path("told"), "report.html")).expect("text");
    assert!(html.contains("tile_missing") && html.contains("findings on the archive"), "{html}");
    assert_eq!(read_json(&path("told"), "verification.json")["result"], "findings");
    // A file that was changed cannot be proven.
    let mut days = std::fs::read_dir(&volume).expect("a volume").map(|entry| entry.expect("an entry").path());
    let day = days.find(|path| path.to_string_lossy().contains("/date=")).expect("a day");
    let file = std::fs::read_dir(day).expect("a day").next().expect("a file").expect("an entry").path();
    let mut bytes = std::fs::read(&file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    std::fs::remove_file(&file).expect("removed");
    std::fs::write(&file, bytes).expect("written");
    let (_, err) = expect_code(&mut evidence("damaged"), 2);
    assert!(!path("damaged").exists(), "{err}");
}

#[test]
fn a_pack_from_a_bucket_contains_what_the_store_said() {
    let Some(seaweed) = seaweed::shared() else { return };
    let endpoint = seaweed.endpoint();
    let at = || {
        let mut command = strongroom();
        command
            .env("STRONGROOM_S3_ENDPOINT", &endpoint)
            .env("STRONGROOM_S3_PATH_STYLE", "true")
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true");
        for name in ["AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"] {
            command.env_remove(name);
        }
        command
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let public = new_key(&path("key"));
    let location = "s3://evidence/some/prefix";
    expect_code(at().args(["archive", "init", location, "--key"]).arg(path("key")), 0);
    let log = write(folder.path(), "a.log", &log(2_000, 81));
    let mut ingest = at();
    ingest.args([
        "ingest",
        "--cluster",
        "test",
        "--print-alerts",
        "critical",
        "--archive",
        location,
        "--key",
    ]);
    expect_code(ingest.arg(path("key")).arg(&log), 0);
    let mut evidence = at();
    evidence.args([
        "evidence",
        "--quiet",
        "--archive",
        location,
        "--from",
        "2026-01-01",
        "--to",
        "2027-01-01",
        "--key",
    ]);
    evidence.arg(path("key")).args(["--public-key", &public, "--out"]).arg(path("pack"));
    expect_code(&mut evidence, 0);
    nobody_finds_anything(&path("pack"), &public, None);
    let mut again = at();
    again.args(["evidence", "check", "--archive", location, "--public-key", &public]).arg(path("pack"));
    let (out, _) = expect_code(&mut again, 0);
    assert!(out.contains("no finding") && !out.contains("not checked"), "{out}");
    let store = read_json(&path("pack"), "store.json");
    assert_eq!(store["store"], "bucket");
    assert_eq!(store["bucket"]["object_lock"]["enabled"], true, "{store:#}");
    let objects = store["objects"].as_array().expect("a list");
    let files: Vec<&Value> = objects
        .iter()
        .filter(|object| object["object"].as_str().is_some_and(|name| name.contains("/date=")))
        .collect();
    assert!(!files.is_empty() && objects.len() >= files.len() + 4, "{store:#}");
    for object in objects {
        assert_eq!(object["lock"]["mode"], "COMPLIANCE", "{object:#}");
        assert!(object["lock"]["retain_until"].as_str() > Some("2032-"), "{object:#}");
        assert_eq!(object["versions"].as_array().map(Vec::len), Some(1), "{object:#}");
        assert!(object["legal_hold"].is_null() || object["legal_hold"] == "OFF", "{object:#}");
    }
    // The pack names each file with the object version that the file's commit names.
    let named = read_json(&path("pack"), "archive-files.json");
    for file in named["files"].as_array().expect("a list") {
        let name =
            format!("{}/{}", file["log"].as_str().expect("a log"), file["file"].as_str().expect("a file"));
        let object = objects.iter().find(|object| object["object"] == name.as_str()).expect("listed");
        assert!(file["version_id"].is_string());
        assert_eq!(object["version_id"], file["version_id"]);
    }
    let html = String::from_utf8(read(&path("pack"), "report.html")).expect("text");
    assert!(html.contains("Locked in mode COMPLIANCE") && !html.contains(SECRET_KEY));
}
