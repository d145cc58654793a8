//! What users see of redaction: a preview gives the same counts as the run; exports and proofs say
//! what was redacted; a join of two columns gives the same rows with tokens of one key as with the
//! values; and each use of a key is recorded before the answer is given.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::run::{expect_code, export, number, output, strongroom, write};

/// The beginning of every password and of every patient number, which the policy hides.
const MARK: &str = "zQpW";
const EVENTS: usize = 240;
/// Number of different patients. Each patient has one patient number, which is in several events.
const PATIENTS: usize = 17;

fn patient(number: usize) -> String {
    format!("{MARK}-patient-{}", number % PATIENTS)
}

/// Returns an event: a Secret that is written, a patient's record that is written or read, or a
/// pod.
fn event(number: usize) -> String {
    let (group, resource, verb, request, response) = match number % 4 {
        0 => {
            let body = json!({"kind": "Secret", "data": {"password": format!("{MARK}{number}"), "user": "dXNlcg=="}});
            ("", "secrets", "create", body.to_string(), String::new())
        }
        1 => {
            let body = json!({"kind": "Patient", "spec": {"ssn": patient(number), "ward": "w7"}});
            ("example.org", "patients", "create", body.to_string(), String::new())
        }
        2 => {
            let body = json!({"kind": "Patient", "spec": {"ssn": patient(number / 2), "ward": "w7"}});
            ("example.org", "patients", "get", String::new(), body.to_string())
        }
        _ => {
            let container = json!({"name": "c", "image": "i", "securityContext": {"privileged": true}});
            let body = json!({"kind": "Pod", "spec": {"containers": [container]}});
            ("", "pods", "create", body.to_string(), String::new())
        }
    };
    let member =
        |name: &str, body: &str| if body.is_empty() { String::new() } else { format!(r#","{name}":{body}"#) };
    let group = if group.is_empty() { String::new() } else { format!(r#","apiGroup":"{group}""#) };
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"id-{number}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/clinic/{resource}","verb":"{verb}","user":{{"username":"user-{user}","groups":["system:authenticated"]}},"sourceIPs":["10.0.0.7"],"userAgent":"kubectl/v1.34","objectRef":{{"resource":"{resource}","namespace":"clinic","name":"o-{number}"{group},"apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":201}}{request}{response},"requestReceivedTimestamp":"2026-03-02T10:{minute:02}:{second:02}.000001Z","stageTimestamp":"2026-03-02T10:{minute:02}:{second:02}.000002Z","annotations":{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}}}"#,
        user = number % 5,
        request = member("requestObject", &request),
        response = member("responseObject", &response),
        minute = number / 60 % 60,
        second = number % 60,
    )
}

fn log(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| event(number) + "\n").collect()
}

/// A folder with a key for the proofs, and keys and policies for redaction.
struct Site {
    folder: tempfile::TempDir,
    public: String,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("signing.key");
        let public = expect_code(strongroom().args(["key", "new"]).arg(&key), 0).0.trim().to_owned();
        let site = Site { folder, public };
        site.new_key("a.key");
        site.new_key("b.key");
        site.policy("policy.toml", "a.key", &[]);
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a key, and returns its id.
    fn new_key(&self, name: &str) -> String {
        let (out, _) = expect_code(strongroom().args(["redact", "key", "new"]).arg(self.at(name)), 0);
        out.trim().to_owned()
    }

    fn policy(&self, name: &str, key: &str, old: &[&str]) -> PathBuf {
        let source = |key: &str| format!("'file:{}'", self.at(key).display());
        let old: Vec<String> = old.iter().map(|key| source(key)).collect();
        let text = format!(
            "[redact]\nkey = {}\nold_keys = [{}]\npresets = ['secrets']\n\
             [[redact.rules]]\nresources = ['example.org/patients']\naction = 'tokenise'\n\
             paths = ['requestObject.spec.ssn', 'responseObject.spec.ssn']\n\
             [[redact.rules]]\nresources = ['pods']\naction = 'drop'\n\
             paths = ['requestObject.spec.containers[].securityContext']\n",
            source(key),
            old.join(", ")
        );
        write(self.folder.path(), name, text.as_bytes())
    }

    fn ingest(&self, archive: &str, policy: Option<&Path>, log: &Path) -> (String, i32) {
        let mut command = strongroom();
        command.args(["ingest", "--complete", "--cluster", "test", "--archive"]).arg(self.at(archive));
        command.arg("--key").arg(self.at("signing.key"));
        if let Some(policy) = policy {
            command.arg("--redact").arg(policy);
        }
        let output = output(command.arg(log));
        (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code().unwrap_or(-1))
    }

    /// Makes an archive of all events, redacted or not, and returns its folder.
    fn archive(&self, name: &str, is_redacted: bool) -> PathBuf {
        let log = write(self.folder.path(), "audit.log", log(0..EVENTS).as_bytes());
        let policy = self.at("policy.toml");
        let (err, code) = self.ingest(name, is_redacted.then_some(policy.as_path()), &log);
        assert_eq!(code, 0, "{err}");
        self.at(name)
    }

    fn verified(&self, archive: &Path) {
        let mut verify = strongroom();
        verify.args(["verify", "--public-key", &self.public, "--archive"]).arg(archive);
        let (out, _) = expect_code(&mut verify, 0);
        assert!(out.contains("redacted before they were stored"), "{out}");
        expect_code(verifier(&["archive", "--public-key", &self.public]).arg(archive), 0);
    }
}

/// A command that runs the second verifier, which shares no code with the program.
fn verifier(arguments: &[&str]) -> Command {
    let python = std::env::var_os("STRONGROOM_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/verify.py")).args(arguments);
    command
}

fn dry_run(policy: &Path) -> Command {
    let mut command = strongroom();
    command.args(["redact", "--dry-run", "--json", "--redact"]).arg(policy);
    command
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Runs a command with `input` as its standard input.
fn with_input(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // The command may end without reading its input.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn answer(archive: &Path, sql: &str) -> String {
    expect_code(strongroom().args(["query", "--format", "csv", "--archive"]).arg(archive).arg(sql), 0).0
}

#[test]
fn a_preview_has_the_counts_of_the_run_and_no_values() {
    let site = Site::new();
    let (clear, policy) = (site.archive("clear", false), site.at("policy.toml"));
    let log = site.at("audit.log");
    let mut of_logs = dry_run(&policy);
    let (out, err) = expect_code(of_logs.args(["--cluster", "test"]).arg(&log), 0);
    assert!(!out.contains(MARK) && !err.contains(MARK), "{out}{err}");
    let logs = json_of(&out);
    // A Secret has two members of data, which are dropped. A patient's record has one number, which
    // is tokenised. A pod has one security context, which is dropped.
    let (quarter, events) = (EVENTS as u64 / 4, EVENTS as u64);
    assert_eq!((&logs["events"], &logs["changed"]), (&json!(events), &json!(events)));
    assert_eq!(
        (&logs["dropped"], &logs["tokenised"]),
        (&json!(3 * quarter), &json!(2 * quarter)),
        "{logs:#}"
    );
    let values: u64 =
        logs["parts"].as_array().expect("parts").iter().map(|part| part["values"].as_u64().unwrap()).sum();
    assert_eq!(values, 5 * quarter, "{logs:#}");
    assert!(logs["hidden"]["privileged-container"].is_object(), "{logs:#}");
    assert!(logs["hidden"].get("pod-exec-shell").is_none(), "{logs:#}");

    // A preview over an archive counts what the policy would have replaced.
    let (out, err) = expect_code(dry_run(&policy).arg("--archive").arg(&clear), 1);
    assert!(!out.contains(MARK) && !err.contains(MARK), "{out}{err}");
    let archived = json_of(&out);
    for name in ["policy", "key", "changed", "dropped", "tokenised", "parts", "encrypted", "hidden"] {
        assert_eq!(archived[name], logs[name], "{name}");
    }
    let day = ["--from", "2026-03-03"];
    let (out, _) = expect_code(dry_run(&policy).arg("--archive").arg(&clear).args(day), 0);
    assert_eq!(json_of(&out)["changed"], 0);

    // The run redacts what the preview said. A preview over its archive finds nothing left to
    // redact.
    let redacted = site.archive("redacted", true);
    let summary = site.ingest("again", Some(&policy), &log).0;
    let expected =
        format!("redacted: {EVENTS} events, {} values dropped, {} tokenised", 3 * quarter, 2 * quarter);
    assert!(summary.contains(&expected), "{summary}");
    let mark = logs["policy"].as_str().expect("an id");
    let marked = format!("SELECT count(*) FROM events WHERE redaction LIKE '%{mark}%'");
    assert_eq!(number(&redacted, &marked), EVENTS as i64);
    let (out, _) = expect_code(dry_run(&policy).arg("--archive").arg(&redacted), 0);
    let left = json_of(&out);
    assert_eq!((&left["changed"], &left["done"]), (&json!(0), &json!(events)));
    // Under another policy with another key there is nothing to do either: the values are gone.
    let other = site.policy("other.toml", "b.key", &[]);
    let (out, _) = expect_code(dry_run(&other).arg("--archive").arg(&redacted), 0);
    let left = json_of(&out);
    assert_eq!((&left["changed"], &left["others"]), (&json!(0), &json!(events)), "{left:#}");
    // The same preview, printed as text.
    let mut text = strongroom();
    text.args(["redact", "--dry-run", "--redact"]).arg(&policy).arg("--archive").arg(&clear);
    let (out, err) = expect_code(&mut text, 1);
    assert!(out.contains("requestObject.spec.ssn") && err.contains("privileged-container"), "{out}{err}");
    assert!(!out.contains(MARK) && !err.contains(MARK), "{out}{err}");
}

#[test]
fn an_export_says_that_it_is_redacted_and_can_be_read_again() {
    let site = Site::new();
    let redacted = site.archive("redacted", true);
    let exported = output(strongroom().args(["export", "--archive"]).arg(&redacted));
    let err = String::from_utf8_lossy(&exported.stderr).into_owned();
    assert_eq!(exported.status.code(), Some(0), "{err}");
    assert!(err.contains("240 of 240 records were redacted before they were stored"), "{err}");
    let lines = String::from_utf8(exported.stdout).expect("UTF-8");
    assert_eq!(lines.lines().count(), EVENTS);
    assert!(!lines.contains(MARK) && lines.contains("rt1:"));
    let mut ids: Vec<String> = Vec::new();
    for line in lines.lines() {
        ids.push(json_of(line)["auditID"].as_str().expect("an id").to_owned());
    }
    assert_eq!(
        ids,
        (0..EVENTS).map(|number| format!("id-{number}")).collect::<Vec<_>>(),
        "the export is in source order"
    );
    // `--quiet` does not suppress this message.
    let quiet = output(strongroom().args(["export", "--quiet", "--archive"]).arg(&redacted));
    assert!(String::from_utf8_lossy(&quiet.stderr).contains("redacted before they were stored"));
    let log = write(site.folder.path(), "exported.log", lines.as_bytes());
    let (err, code) = site.ingest("second", None, &log);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        export(&site.at("second")),
        lines.as_bytes(),
        "the export of the second archive is the text that it was made of"
    );
}

#[test]
fn proofs_and_packs_of_redacted_records_hold_for_both_verifiers() {
    let site = Site::new();
    let redacted = site.archive("redacted", true);
    site.verified(&redacted);
    let proof = site.at("proof.json");
    let mut prove = strongroom();
    prove
        .args(["prove", "--where", "resource = 'secrets'", "--archive"])
        .arg(&redacted)
        .arg("-o")
        .arg(&proof);
    let (_, err) = expect_code(&mut prove, 0);
    assert!(err.contains("60 of them were redacted"), "{err}");
    let checked = |proof: &Path, code: i32| {
        let mut ours = strongroom();
        ours.args(["verify-proof", "--public-key", &site.public]).arg(proof);
        let (out, _) = expect_code(&mut ours, code);
        expect_code(verifier(&["proof", "--public-key", &site.public]).arg(proof), code);
        out
    };
    assert!(
        checked(&proof, 0).contains("redacted before they were stored: 60 of the records, by the policy ")
    );
    // Both verifiers find a mark that was changed or left out.
    let text = std::fs::read_to_string(&proof).expect("a proof");
    for (from, to) in
        [("/requestObject/data/password", "/requestObject/data/passwort"), ("\"redaction\"", "\"claims2\"")]
    {
        let mut forged = json_of(&text);
        let record = &mut forged["records"][0];
        match to {
            "\"claims2\"" => drop(record.as_object_mut().expect("an object").remove("redaction")),
            _ => record["redaction"] = record["redaction"].as_str().expect("a mark").replace(from, to).into(),
        }
        let forged = write(site.folder.path(), "forged.json", forged.to_string().as_bytes());
        checked(&forged, 1);
    }

    let pack = site.at("pack");
    let mut evidence = strongroom();
    evidence.args(["evidence", "--from", "2026-03-02", "--to", "2026-03-03", "--archive"]).arg(&redacted);
    evidence.arg("--key").arg(site.at("signing.key")).arg("--out").arg(&pack);
    let (_, err) = expect_code(&mut evidence, 0);
    assert!(err.contains("redacted before they were stored"), "{err}");
    let manifest = json_of(&std::fs::read_to_string(pack.join("manifest.json")).expect("a manifest"));
    assert_eq!(manifest["counts"]["redacted"], EVENTS);
    let check = |code: i32| {
        let mut ours = strongroom();
        ours.args(["evidence", "check"]).arg(&pack).args(["--public-key", &site.public]);
        let theirs = &mut verifier(&["pack", "--public-key", &site.public]);
        [expect_code(&mut ours, code).0, expect_code(theirs.arg(&pack), code).0]
    };
    check(0);
    let mut asked_again = strongroom();
    asked_again.args(["evidence", "check"]).arg(&pack).args(["--public-key", &site.public, "--archive"]);
    expect_code(asked_again.arg(&redacted), 0);
    for name in ["records.jsonl", "report.html", "gaps.json"] {
        let text = std::fs::read_to_string(pack.join(name)).expect("a file");
        assert!(!text.contains(MARK), "{name}");
    }
    let report = std::fs::read_to_string(pack.join("report.html")).expect("a report");
    assert!(report.contains("were redacted by a policy"));
    // A manifest that says that fewer records were redacted is found.
    let text = manifest.to_string().replace("\"redacted\":240", "\"redacted\":239");
    std::fs::write(pack.join("manifest.json"), text).expect("written");
    for said in check(1) {
        assert!(said.contains("pack_counts") && said.contains("redacted"), "{said}");
    }
}

#[test]
fn tokens_join_like_values_until_the_key_is_changed() {
    let site = Site::new();
    let (clear, redacted) = (site.archive("clear", false), site.archive("redacted", true));
    let written = "json_get_str(request_object, 'spec', 'ssn')";
    let read = "json_get_str(response_object, 'spec', 'ssn')";
    let pairs = "SELECT count(*) FROM events w JOIN events r ON json_get_str(w.request_object, 'spec', 'ssn') = \
                 json_get_str(r.response_object, 'spec', 'ssn') WHERE w.resource = 'patients' AND r.resource = 'patients'";
    let counts = format!(
        "SELECT n, count(*) AS patients FROM (SELECT {read} AS ssn, count(*) AS n FROM events WHERE {read} IS NOT NULL GROUP BY 1) GROUP BY 1 ORDER BY 1"
    );
    let distinct = format!("SELECT count(DISTINCT {written}) FROM events");
    let by_user = format!(
        "SELECT user_name, count(DISTINCT {read}) AS patients FROM events WHERE {read} IS NOT NULL GROUP BY 1 ORDER BY 1"
    );
    for sql in [pairs, &counts, &distinct, &by_user] {
        let (of_values, of_tokens) = (answer(&clear, sql), answer(&redacted, sql));
        assert!(of_values.lines().count() > 1 && !of_values.contains("\n0\n"), "{sql}: {of_values}");
        assert_eq!(of_values, of_tokens, "{sql}");
    }
    assert!(!answer(&redacted, &format!("SELECT {written} FROM events")).contains(MARK));

    // The second half of the events is redacted with another key, so its tokens differ from those
    // of the first half.
    let halves = [log(0..EVENTS / 2), log(EVENTS / 2..EVENTS)];
    let rotated = site.policy("rotated.toml", "b.key", &["a.key"]);
    for (half, policy) in halves.iter().zip([site.at("policy.toml"), rotated.clone()]) {
        let log = write(site.folder.path(), "half.log", half.as_bytes());
        let (err, code) = site.ingest("rotated", Some(&policy), &log);
        assert_eq!(code, 0, "{err}");
    }
    let archive = site.at("rotated");
    site.verified(&archive);
    let keys = format!("SELECT count(DISTINCT substr({written}, 5, 8)) FROM events");
    assert_eq!(number(&archive, &keys), 2, "the id of the key is in the token");
    assert_eq!(number(&archive, &distinct), 2 * number(&clear, &distinct));
    let across = format!("{pairs} AND (w.source <> r.source)");
    assert_eq!(number(&archive, &across), 0);
    assert!(number(&archive, pairs) < number(&clear, pairs) && number(&archive, pairs) > 0);

    // A statement that reads columns which may contain tokens prints one note about the two keys.
    // Other statements print none.
    let said = |archive: &Path, sql: &str, more: &[&str]| {
        let mut command = strongroom();
        command.args(["query", "--format", "csv", "--archive"]).arg(archive).args(more).arg(sql);
        expect_code(&mut command, 0).1.matches("note: ").count()
    };
    for sql in [pairs, &counts, "SELECT * FROM events", "SELECT count(DISTINCT user_name) FROM events"] {
        assert_eq!(said(&archive, sql, &[]), 1, "{sql}");
        assert_eq!(said(&archive, sql, &["--quiet"]), 1, "{sql}");
        assert_eq!(said(&redacted, sql, &[]), 0, "{sql}");
        assert_eq!(said(&clear, sql, &[]), 0, "{sql}");
    }
    for sql in ["SELECT count(*) FROM events", "SELECT verb, count(*) FROM events GROUP BY 1"] {
        assert_eq!(said(&archive, sql, &[]), 0, "{sql}");
    }
    let mut shell = strongroom();
    let told = with_input(shell.args(["sql", "--archive"]).arg(&archive), &format!("{pairs};\n"));
    assert!(
        String::from_utf8_lossy(&told.stderr).contains("tokens of different keys"),
        "the shell prints the note as well"
    );
}

/// Returns the records of the uses of a key, oldest first.
fn uses(archive: &Path) -> Vec<Value> {
    let mut query = strongroom();
    query.args(["query", "--format", "json", "--archive"]).arg(archive);
    query.arg("SELECT kind, principal, subject, body FROM activity ORDER BY source_offset");
    expect_code(&mut query, 0).0.lines().map(json_of).collect()
}

#[test]
fn a_token_is_revealed_with_the_key_and_a_record() {
    let site = Site::new();
    let redacted = site.archive("redacted", true);
    let token = answer(
        &redacted,
        "SELECT json_get_str(request_object, 'spec', 'ssn') FROM events WHERE audit_id = 'id-1'",
    );
    let token = token.lines().nth(1).expect("a token").to_owned();
    let reveal_for = |reason: &str, token: &str, more: &[&str]| {
        let mut command = strongroom();
        command.args(["reveal", "--token", token, "--archive"]).arg(&redacted);
        command.args(["--principal", "eve@example.com", "--reason", reason]).args(more);
        command
    };
    let reveal = |token: &str, more: &[&str]| reveal_for("case 4711", token, more);
    let policy = site.at("policy.toml");
    let policy = policy.to_str().expect("text");
    let of_policy = ["--redact", policy];
    let yes = with_input(&mut reveal(&token, &of_policy), &patient(1));
    assert_eq!(yes.status.code(), Some(0), "{}", String::from_utf8_lossy(&yes.stderr));
    let line = with_input(&mut reveal(&token, &of_policy), &format!("{}\n", patient(1)));
    assert_eq!(line.status.code(), Some(0), "a newline after the value does not count");
    let as_json =
        with_input(&mut reveal(&token, &["--redact", policy, "--json"]), &format!("\"{}\"", patient(1)));
    assert_eq!(as_json.status.code(), Some(0));
    let no = with_input(&mut reveal(&token, &of_policy), &patient(2));
    assert_eq!(no.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&no.stdout).contains("not the value"));
    for (at, record) in uses(&redacted).iter().enumerate() {
        assert_eq!(
            (&record["kind"], &record["principal"]),
            (&json!("break_glass"), &json!("eve@example.com"))
        );
        assert_eq!(record["subject"], token.as_str());
        let body = json_of(record["body"].as_str().expect("a body"));
        assert_eq!((&body["use"], &body["reason"]), (&json!("reveal"), &json!("case 4711")));
        assert_eq!(body["is_the_value"], at < 3);
        assert!(!record.to_string().contains(MARK));
    }
    assert_eq!(uses(&redacted).len(), 4);
    // With another key there is no answer, and the error names the key that is needed. With a
    // policy that has that key among its old keys, there is an answer.
    let other = site.policy("b.toml", "b.key", &[]);
    let unknown = with_input(&mut reveal(&token, &["--redact", other.to_str().expect("text")]), &patient(1));
    let err = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        err.contains(&token[4..12]) && err.contains("tokens of different keys cannot be compared"),
        "{err}"
    );
    assert_eq!(uses(&redacted).len(), 4, "there was no answer");
    let rotated = site.policy("rotated.toml", "b.key", &["a.key"]);
    let old = with_input(&mut reveal(&token, &["--redact", rotated.to_str().expect("text")]), &patient(1));
    assert_eq!(old.status.code(), Some(0));
    let key = format!("file:{}", site.at("a.key").display());
    let by_key = with_input(&mut reveal(&token, &["--redact-key", &key]), &patient(1));
    assert_eq!(by_key.status.code(), Some(0));
    for wrong in ["rt1:", "eve", &token[..token.len() - 1]] {
        expect_code(&mut reveal(wrong, &of_policy), 64);
    }
    // Without a reason, or while another process writes, there is no answer.
    for reason in ["", " ", "two\nlines"] {
        let silent = with_input(&mut reveal_for(reason, &token, &of_policy), &patient(1));
        assert_eq!(silent.status.code(), Some(1), "{reason:?}");
        assert!(silent.stdout.is_empty());
    }
    let archive = strongroom_archive::Archive::open(redacted.to_str().expect("text")).expect("an archive");
    let writer = archive.writer().expect("the lock is free");
    let locked = with_input(&mut reveal(&token, &of_policy), &patient(1));
    assert_eq!(locked.status.code(), Some(2));
    assert!(locked.stdout.is_empty(), "{}", String::from_utf8_lossy(&locked.stdout));
    // The error says how to record the use elsewhere, which works while the other process writes.
    let err = String::from_utf8_lossy(&locked.stderr).into_owned();
    assert!(err.contains("strongroom archive init FOLDER") && err.contains("--record FOLDER"), "{err}");
    let ledger = site.at("ledger");
    let with_ledger = ["--redact", policy, "--record", ledger.to_str().expect("text")];
    let none = with_input(&mut reveal(&token, &with_ledger), &patient(1));
    assert_ne!(none.status.code(), Some(0));
    assert!(none.stdout.is_empty(), "without a place for the record there is no answer");
    expect_code(strongroom().args(["archive", "init"]).arg(&ledger), 0);
    let answered = with_input(&mut reveal(&token, &with_ledger), &patient(1));
    assert_eq!(answered.status.code(), Some(0), "{}", String::from_utf8_lossy(&answered.stderr));
    let records = uses(&ledger);
    assert_eq!(records.len(), 1);
    let body = json_of(records[0]["body"].as_str().expect("a body"));
    assert_eq!((&body["use"], &body["archive"]), (&json!("reveal"), &json!(archive.id())));
    expect_code(strongroom().args(["verify", "--archive"]).arg(&ledger), 0);
    drop(writer);
    assert_eq!(uses(&redacted).len(), 6);
    site.verified(&redacted);
}

/// Clear values are in the memory of every command that has a key, not only of those that write.
#[cfg(target_os = "linux")]
#[test]
fn commands_with_a_key_leave_no_clear_values_in_core_dumps() {
    let site = Site::new();
    let (policy, key) = (site.at("policy.toml"), format!("file:{}", site.at("a.key").display()));
    let archive = site.archive("redacted", true);
    let (id, _) = expect_code(strongroom().args(["redact", "key", "id", &key]), 0);
    let mut reveal = strongroom();
    reveal.args([
        "reveal",
        "--token",
        &format!("rt1:{}:{}", id.trim(), "0".repeat(32)),
        "--redact-key",
        &key,
    ]);
    reveal.args(["--principal", "eve", "--reason", "case 4711", "--archive"]).arg(&archive);
    let mut preview = strongroom();
    preview.args(["redact", "--dry-run", "--cluster", "test", "--redact"]).arg(&policy).arg("-");
    for command in [&mut reveal, &mut preview] {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let filter = format!("/proc/{}/coredump_filter", child.id());
        crate::daemon::wait_until("nothing of its memory is dumped", || {
            // Each of these commands waits for its standard input.
            let filter = std::fs::read_to_string(&filter).expect("the process is there");
            filter.trim().chars().all(|digit| digit == '0')
        });
        drop(child.stdin.take());
        child.wait().expect("it ends");
    }
}

#[test]
fn rejects_are_decrypted_with_the_key_and_a_record() {
    let site = Site::new();
    let garbage = [format!("not JSON {MARK}-1"), format!("{{\"kind\":\"Pod\",\"password\":\"{MARK}-2\"}}")];
    let text = format!("{}\n{}{}\n{}", garbage[0], log(0..8), garbage[1], log(8..16));
    let log = write(site.folder.path(), "mixed.log", text.as_bytes());
    let policy = site.at("policy.toml");
    let (err, code) = site.ingest("redacted", Some(&policy), &log);
    assert_eq!(code, 1, "there are rejects: {err}");
    let archive = site.at("redacted");
    // Encrypted rejects are not exported, and standard error says so.
    let exported = output(strongroom().args(["export", "--archive"]).arg(&archive));
    let err = String::from_utf8_lossy(&exported.stderr).into_owned();
    assert!(err.contains("2 rejects are encrypted and left out"), "{err}");
    let lines = String::from_utf8(exported.stdout).expect("UTF-8");
    assert_eq!(lines.lines().count(), 16);
    assert!(!lines.contains(MARK));

    let decrypt = |more: &[&str]| {
        let mut command = strongroom();
        command.args(["redact", "decrypt", "--principal", "eve", "--reason", "case 4711", "--archive"]);
        command.arg(&archive).args(more);
        command
    };
    let other = site.policy("b.toml", "b.key", &[]);
    let (out, err) = expect_code(&mut decrypt(&["--redact", other.to_str().expect("text")]), 1);
    assert!(out.is_empty() && err.contains("2 rejects need the key"), "{out}{err}");
    assert_eq!(uses(&archive).len(), 0, "nothing was disclosed");
    let to = site.at("rejects.bin");
    let mut command = decrypt(&["--redact", policy.to_str().expect("text"), "-o"]);
    let (_, err) = expect_code(command.arg(&to), 0);
    assert!(err.contains("decrypted 2 rejects") && !err.contains(MARK), "{err}");
    assert_eq!(
        std::fs::read_to_string(&to).expect("clear bytes"),
        format!("{}\n{}\n", garbage[0], garbage[1])
    );
    let mode = std::fs::metadata(&to).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let records = uses(&archive);
    assert_eq!(records.len(), 1);
    let body = json_of(records[0]["body"].as_str().expect("a body"));
    assert_eq!(
        (&body["use"], &body["rejects"], &body["reason"]),
        (&json!("decrypt"), &json!(2), &json!("case 4711"))
    );
    site.verified(&archive);
}

#[test]
fn keys_are_made_once_and_never_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("redact.key");
    let (id, _) = expect_code(strongroom().args(["redact", "key", "new"]).arg(&path), 0);
    let text = std::fs::read_to_string(&path).expect("a key");
    assert_eq!(text.trim().len(), 64);
    assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    assert_eq!(id.trim().len(), 8);
    let source = format!("file:{}", path.display());
    let (shown, err) = expect_code(strongroom().args(["redact", "key", "id", &source]), 0);
    assert_eq!(shown, id);
    assert!(!shown.contains(text.trim()) && !err.contains(text.trim()));
    let again = output(strongroom().args(["redact", "key", "new"]).arg(&path));
    assert_eq!(again.status.code(), Some(2), "an existing key is never replaced");
    assert_eq!(std::fs::read_to_string(&path).expect("a key"), text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("permissions");
    let open = output(strongroom().args(["redact", "key", "id", &source]));
    assert_eq!(open.status.code(), Some(1), "a key that others may read is refused");
    for wrong in ["redact.key", "files:x", "file:", "env:"] {
        expect_code(strongroom().args(["redact", "key", "id", wrong]), 64);
    }
}

#[test]
fn a_hunt_and_the_coverage_say_what_they_cannot_see() {
    let site = Site::new();
    let (clear, redacted) = (site.archive("clear", false), site.archive("redacted", true));
    let hunt = |archive: &Path| {
        let mut command = strongroom();
        command.args(["hunt", "--builtin-rules", "--quiet", "--format", "json", "--archive"]).arg(archive);
        expect_code(&mut command, 0)
    };
    let (found, err) = hunt(&clear);
    assert!(found.contains("privileged-container") && err.is_empty(), "{err}");
    let (found, err) = hunt(&redacted);
    assert!(!found.contains("privileged-container"), "the hunt is blind to it");
    assert!(err.contains("240 of the events were redacted before they were stored"), "{err}");
    let line = err.lines().find(|line| line.trim_start().starts_with("privileged-container: "));
    let line = line.unwrap_or_else(|| panic!("{err}"));
    assert!(line.contains("pod.containers.securityContext.privileged (events: 60)"), "{line}");
    assert!(!err.contains("  pod-exec-shell"), "{err}");

    let coverage = |archive: &Path, more: &[&str]| {
        let mut command = strongroom();
        command.args(["rules", "coverage", "--json", "--archive"]).arg(archive).args(more);
        json_of(&expect_code(&mut command, 0).0)
    };
    let seen = coverage(&clear, &[]);
    assert_eq!(
        (&seen["in_clear"]["events"], &seen["in_clear"]["values"]),
        (&json!(60), &json!(120)),
        "Secrets"
    );
    let policy = site.at("policy.toml");
    let chosen = coverage(&clear, &["--redact", policy.to_str().expect("text")]);
    assert_eq!(chosen["in_clear"]["events"], EVENTS, "Secrets, and the values that the policy names");
    let kept = coverage(&redacted, &[]);
    assert_eq!(kept["in_clear"]["events"], 0);
    assert!(kept["hidden"]["privileged-container"].is_object());
    let mut text = strongroom();
    text.args(["rules", "coverage", "--archive"]).arg(&clear);
    let (out, _) = expect_code(&mut text, 0);
    assert!(out.starts_with("IN CLEAR: 60 events"), "{out}");
}
