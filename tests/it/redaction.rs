//! No value that a policy names is on disk or leaves the process, even if processes are killed. All
//! other values are written.
//!
//! Method: every value that the policy names is a marker, and all markers differ. Everything that a
//! run leaves in its folder is searched for markers ([`crate::markers`]). The search is tried on a run
//! without a policy first. What was sent and logged is searched as well.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

use crate::daemon::{Daemon, config, wait_until};
use crate::markers::{Sent, files_with_markers, has_marker, marker, packed};
use crate::run::{expect_code, is_long, number, output, strongroom, write, write_secret};
use crate::services::receiver::Receiver;
use crate::services::tansu::Tansu;

pub const TOKEN: &str = "a-token-of-the-test-that-is-long";
/// A rule that fires on every request, with everything in its message that may be redacted, and one
/// that counts the requests of a user.
const RULES: &str = "title: Every request\nid: 6d1f0d0a-52b1-4a39-9a0e-6a3f0d6f7c12\nstatus: test\nlevel: high\n\
    description: Fires on every request.\nlogsource:\n  product: kubernetes\n  service: audit\n\
    detection:\n  all:\n    verb|re: '.+'\n  condition: all\n\
    message: '{user.username} {actor} {requestURI} {exec.command} {request} {object}'\n\
    next_steps: 'Ask {user.username} about {requestURI}.'\n";

/// An event with markers in all places of its kind, in the order and with the escapes of an API
/// server.
pub fn event(number: usize) -> String {
    let mut next = 0;
    let mut mark = || {
        next += 1;
        marker(number * 10 + next)
    };
    let (group, resource, verb, request, response, more) = match number % 8 {
        0 => {
            let applied = json!({"kind": "Secret", "data": {"password": mark()}}).to_string();
            let body = json!({"kind": "Secret", "metadata": {"name": "s",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}},
                "data": {"password": mark(), "user": mark()}, "stringData": {"more": mark()}});
            ("", "secrets", "create", Some(body.clone()), Some(body), String::new())
        }
        1 => {
            let patch = json!([{"op": "replace", "path": "/data/password", "value": mark()},
                {"op": "add", "path": "/data", "value": {"other": mark()}}]);
            let body = json!({"kind": "Secret", "data": {"password": mark()}});
            ("", "secrets", "patch", Some(patch), Some(body), String::new())
        }
        2 => {
            let items: Vec<Value> = (0..3)
                .map(|at| json!({"metadata": {"name": format!("s{at}")}, "data": {"k": mark()}}))
                .collect();
            let list = json!({"kind": "SecretList", "items": items});
            ("", "secrets", "list", None, Some(list), String::new())
        }
        3 => {
            let body = json!({"kind": "Patient", "metadata": {"name": "p"},
                "spec": {"ssn": mark(), "notes": [{"text": mark()}, {"text": mark()}], "ward": "w7"}});
            ("example.org", "patients", "create", Some(body.clone()), Some(body), String::new())
        }
        4 => {
            let more = format!(r#","example.org/note":"{}""#, mark());
            ("", "configmaps", "update", Some(json!({"data": {"a": mark()}})), None, more)
        }
        5 => {
            let body = json!({"kind": "Status", "status": "Failure", "message": format!("bad {}", mark())});
            (
                "example.org",
                "patients",
                "update",
                Some(json!({"spec": {"ssn": mark()}})),
                Some(body),
                String::new(),
            )
        }
        6 => ("", "pods", "create", None, None, String::new()),
        _ => ("", "nodes", "list", None, None, String::new()),
    };
    let user = if number % 16 == 3 { mark() } else { format!("user-{}", number % 7) };
    let query =
        if resource == "pods" { format!("/exec?command={}&container=app", mark()) } else { String::new() };
    let subresource = if resource == "pods" { r#","subresource":"exec""# } else { "" };
    let api_group = if group.is_empty() { String::new() } else { format!(r#","apiGroup":"{group}""#) };
    let body =
        |name: &str, body: Option<Value>| body.map_or(String::new(), |body| format!(r#","{name}":{body}"#));
    let message = if number % 8 == 5 {
        format!(r#","message":"spec.ssn: Invalid value: \"{}\"""#, mark())
    } else {
        String::new()
    };
    let code = if number % 8 == 5 { 422 } else { 201 };
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"id-{number}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/phi-1/{resource}{query}","verb":"{verb}","user":{{"username":"{user}","groups":["system:authenticated"],"extra":{{"example.org/claim":["{claim}"]}}}},"sourceIPs":["10.0.0.7"],"userAgent":"kubectl/v1.34","objectRef":{{"resource":"{resource}","namespace":"phi-1","name":"o-{number}"{api_group},"apiVersion":"v1"{subresource}}},"responseStatus":{{"metadata":{{}}{message},"code":{code}}}{request}{response},"requestReceivedTimestamp":"2026-03-02T10:{minute:02}:{second:02}.000001Z","stageTimestamp":"2026-03-02T10:{minute:02}:{second:02}.{micro:06}Z","annotations":{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""{more}}}}}"#,
        claim = mark(),
        request = body("requestObject", request),
        response = body("responseObject", response),
        minute = number / 60 % 60,
        second = number % 60,
        micro = number % 1_000_000,
    )
}

/// Returns the events of `numbers` as lines, and the number of records. If `wrapped`, an event's
/// number chooses its wrapper, and some lines are damaged or are no events.
pub fn lines(numbers: std::ops::Range<usize>, wrapped: bool) -> (Vec<u8>, usize) {
    let (mut log, mut records) = (Vec::new(), 0);
    let mut number = numbers.start;
    while number < numbers.end {
        let text = event(number);
        let line = match number % 31 {
            _ if !wrapped => text,
            1 => json!({"@timestamp": "2026-03-02T10:00:00Z", "message": text, "event": {"original": text}})
                .to_string(),
            2 => {
                let (second, third) = (event(numbers.end + number), event(2 * numbers.end + number));
                records += 2;
                let items: Vec<Value> = [&text, &second, &third]
                    .iter()
                    .map(|text| serde_json::from_str(text).expect("JSON"))
                    .collect();
                json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items})
                    .to_string()
            }
            3 => format!("Mar  2 10:00:00 master kube-apiserver[1]: {text}"),
            4 => format!("2026-03-02T10:00:00.000000001Z stdout F {text}"),
            5 => {
                let event = json!({"id": "1", "timestamp": 1_772_445_600_000_i64, "message": text});
                json!({"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g",
                    "logStream": "kube-apiserver-audit-1", "subscriptionFilters": ["f"], "logEvents": [event]})
                .to_string()
            }
            // This line is not an event, so it becomes a reject.
            6 => format!("not JSON {}", marker(number * 10)),
            7 => json!({"kind": "Pod", "password": marker(number * 10)}).to_string(),
            // This line ends inside a body, so it becomes an event with a fault.
            8 => text[..text.find("requestObject").map_or(text.len() / 2, |at| at + 60)].to_owned(),
            // A body that is not JSON, and one that is nested deeply.
            9 => text.replacen(r#"{"kind":"Secret""#, r#"{"kind":"Secret","x":tru"#, 1),
            10 => {
                let deep = format!("{}\"{}\"{}", "[".repeat(200), marker(number * 10), "]".repeat(200));
                text.replacen(
                    r#","requestReceivedTimestamp""#,
                    &format!(r#","requestObject":{deep},"requestReceivedTimestamp""#),
                    1,
                )
            }
            // Another program has parsed this event and written it again.
            11 => serde_json::from_str::<Value>(&text).expect("JSON").to_string(),
            _ => text,
        };
        records += 1;
        log.extend_from_slice(line.as_bytes());
        log.push(b'\n');
        number += 1;
    }
    (log, records)
}

/// Returns a policy that names every place where an event has a marker. Makes its key if needed.
pub fn policy(folder: &Path, key: &str) -> String {
    let path = folder.join("redact.key");
    if !path.exists() {
        write(folder, "redact.key", key.repeat(32).as_bytes());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .expect("the file belongs to this user");
    }
    format!(
        "[redact]\nkey = 'file:{}'\npresets = ['secrets']\n\
         [[redact.rules]]\nnamespaces = ['phi-*']\nresources = ['example.org/patients']\n\
         paths = ['requestObject.spec.ssn', 'responseObject.spec.ssn', 'user.username']\naction = 'tokenise'\n\
         [[redact.rules]]\nresources = ['example.org/patients']\naction = 'drop'\n\
         paths = ['requestObject.spec.notes[].text', 'responseObject.spec.notes[].text', 'responseObject.message', 'responseStatus.message']\n\
         [[redact.rules]]\nresources = ['configmaps']\npaths = ['requestObject.data.*']\naction = 'tokenise'\n\
         [[redact.rules]]\npaths = ['user.extra.*', 'annotations[\"example.org/note\"]', 'requestURI.command']\naction = 'drop'\n",
        path.display()
    )
}

pub fn ingest(archive: &Path, policy: Option<&Path>, logs: &[&Path]) -> Command {
    let mut command = strongroom();
    command.args(["ingest", "--cluster", "test", "--archive"]).arg(archive);
    if let Some(policy) = policy {
        command.arg("--redact").arg(policy);
    }
    command.args(logs);
    command
}

pub fn count(archive: &Path, sql: &str) -> usize {
    usize::try_from(number(archive, sql)).expect("a count")
}

/// Makes a folder with an input, a policy and the rules. Returns the folder, the path of the input
/// and the number of its records.
pub fn setting(records: usize, wrapped: bool) -> (tempfile::TempDir, PathBuf, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("input");
    std::fs::create_dir(&input).expect("made");
    let (log, records) = lines(0..records, wrapped);
    let log = write(&input, "audit.log", &log);
    write(folder.path(), "policy.toml", policy(folder.path(), "5a").as_bytes());
    write(folder.path(), "every.yml", RULES.as_bytes());
    (folder, log, records)
}

#[test]
fn no_marker_of_a_file_is_on_disk_and_nothing_is_lost() {
    let (folder, log, records) = setting(if is_long() { 100_000 } else { 20_000 }, true);
    let at = |name: &str| folder.path().join(name);
    let mut sent = Sent::default();
    sent.add("file", &std::fs::read(&log).expect("the log"));
    sent.report(&["file"]);
    // The search finds what is there.
    let clear = at("clear");
    output(&mut ingest(&clear, None, &[&log]));
    let found = files_with_markers(&clear);
    assert!(found.iter().any(|path| path.to_string_lossy().contains("events")), "{found:?}");
    assert!(found.iter().any(|path| path.to_string_lossy().contains("rejects")), "{found:?}");
    std::fs::remove_dir_all(&clear).expect("removed");

    let (archive, policy) = (at("archive"), at("policy.toml"));
    let run = || {
        let mut command = ingest(&archive, Some(&policy), &[&log]);
        command
            .args(["--seal-bytes", "256KiB", "--block-bytes", "1MiB", "--alerts-out"])
            .arg(at("alerts.jsonl"));
        command.arg("--rules").arg(at("every.yml"));
        command
    };
    for wait in [150, 400, 900] {
        let mut child = run().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(wait));
        // The process may have ended.
        let _ = child.kill();
        child.wait().expect("the process ends");
        assert_eq!(files_with_markers(folder.path()), Vec::<PathBuf>::new());
    }
    let last = output(&mut run());
    let (out, err) = (String::from_utf8_lossy(&last.stdout), String::from_utf8_lossy(&last.stderr));
    assert_eq!(last.status.code(), Some(1), "there are rejects\n{err}");
    assert!(!has_marker(&last.stdout) && !has_marker(&last.stderr), "{out}{err}");
    assert_eq!(files_with_markers(folder.path()), Vec::<PathBuf>::new());

    let (events, rejects) =
        (count(&archive, "SELECT count(*) FROM events"), count(&archive, "SELECT count(*) FROM rejects"));
    assert_eq!(events + rejects, records, "{err}");
    assert!(count(&archive, "SELECT count(*) FROM rejects WHERE reason = 'encrypted'") > 0);
    for sql in [
        "SELECT count(*) FROM events WHERE redaction IS NULL AND (resource = 'secrets' OR resource = 'patients')",
        "SELECT count(*) FROM events WHERE redaction IS NULL",
        "SELECT count(DISTINCT source_offset) - count(*) FROM (SELECT source_offset FROM events UNION ALL SELECT source_offset FROM rejects)",
    ] {
        assert_eq!(number(&archive, sql), 0, "{sql}");
    }
    // What the policy does not name is unchanged.
    assert!(count(&archive, "SELECT count(*) FROM events WHERE request_object LIKE '%\"ward\":\"w7\"%'") > 0);
    assert!(count(&archive, "SELECT count(*) FROM events WHERE user_name LIKE 'rt1:%'") > 0);
    // The same file adds nothing, and neither does a shorter copy of it, whatever the policy is.
    let bytes = std::fs::read(&log).expect("the log");
    let half = bytes.len() / 2;
    let half = half + memchr::memchr(b'\n', &bytes[half..]).expect("a line") + 1;
    let short = write(&folder.path().join("input"), "short.log", &bytes[..half]);
    let other = policy_of_other_key(folder.path());
    for policy in [Some(policy.as_path()), None, Some(other.as_path())] {
        for log in [&log, &short] {
            let (_, err) = expect_code(&mut ingest(&archive, policy, &[log]), 0);
            assert!(err.contains("nothing new"), "{log:?}: {err}");
        }
    }
    verified(&archive);
}

fn policy_of_other_key(folder: &Path) -> PathBuf {
    let other = folder.join("other");
    std::fs::create_dir_all(&other).expect("made");
    let text = policy(&other, "77");
    write(&other, "policy.toml", text.as_bytes())
}

/// Returns a configuration of `run` without its archive and policy: the log is followed, a webhook
/// listens, and alerts go to a file and to the receiver at `url`. Everything is kept in `folder`.
pub fn sources(folder: &Path, log: &Path, url: &str, token: &Path, secret: &Path) -> String {
    let at = |name: &str| folder.join(name);
    format!(
        "[seal]\ninterval = '300ms'\n[rules]\npaths = ['{rules}']\n[alerts]\nfile = '{alerts}'\n\
         [outbox]\nfolder = '{outbox}'\n[[sink]]\nname = 'siem'\ntype = 'webhook'\nurl = '{url}'\nsecret_file = '{secret}'\n\
         [[tail]]\nname = 'files'\ncluster = 'test'\npaths = ['{log}']\npoll = '20ms'\n\
         [[webhook]]\nname = 'api'\nlisten = '127.0.0.1:0'\ntoken_file = '{token}'\nwal = '{wal}'\n\
         [[webhook.route]]\npath = '/prod'\ncluster = 'prod'\n",
        rules = at("every.yml").display(),
        alerts = at("alerts.jsonl").display(),
        outbox = at("outbox").display(),
        secret = secret.display(),
        log = log.display(),
        token = token.display(),
        wal = at("wal").display(),
    )
}

/// Runs `strongroom verify`, and the verifier in `STRONGROOM_VERIFIER` if it is set. Neither finds
/// anything.
pub fn verified(archive: &Path) {
    expect_code(strongroom().args(["verify", "--archive"]).arg(archive), 0);
    let Ok(verifier) = std::env::var("STRONGROOM_VERIFIER") else { return };
    let mut words = verifier.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    expect_code(command.args(words).arg(archive), 0);
}

/// Posts a batch; returns the status, or 0 if no answer came.
pub fn post(address: &str, body: &[u8]) -> u16 {
    let send = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let head = format!(
            "POST /prod HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = send().unwrap_or_default();
    answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

pub fn batch(numbers: std::ops::Range<usize>) -> Vec<u8> {
    let items: Vec<String> = numbers
        .map(|number| event(number).replacen(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "", 1))
        .collect();
    format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#,
        items.join(",")
    )
    .into_bytes()
}

/// Waits until the daemon has logged the address of its webhook, and returns the address.
pub fn listener(daemon: &Daemon) -> String {
    let mut address = None;
    wait_until("the webhook listens", || {
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("webhook listens")).map(str::to_owned);
        let rest = line.and_then(|line| line.split("address=").nth(1).map(str::to_owned));
        address = rest.map(|rest| rest.split_whitespace().next().unwrap_or_default().to_owned());
        address.is_some()
    });
    address.expect("waited for")
}

fn produce(tansu: &Tansu, numbers: std::ops::Range<usize>, sent: &mut Sent) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", tansu.address())
        .set("acks", "all")
        .create()
        .expect("a producer");
    for number in numbers {
        let text = event(number);
        let record = || BaseRecord::<(), [u8]>::to("audit").partition(0).payload(text.as_bytes());
        while producer.send(record()).is_err() {
            producer.poll(Duration::from_millis(20));
        }
        sent.add("kafka", text.as_bytes());
    }
    producer.flush(Duration::from_secs(60)).expect("produced");
}

#[test]
fn no_marker_of_the_live_sources_is_on_disk_or_sent_whatever_is_killed() {
    let count_each = if is_long() { 30_000 } else { 1_500 };
    let (folder, log, _) = setting(count_each, false);
    let at = |name: &str| folder.path().join(name);
    let mut markers = Sent::default();
    markers.add("tail", &std::fs::read(&log).expect("the log"));
    let receiver = Receiver::that_takes_all();
    let tansu = Tansu::start();
    let token = write_secret(folder.path(), "token", TOKEN.as_bytes());
    let secret = write_secret(folder.path(), "sink.secret", b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let kafka = tansu.as_ref().map_or(String::new(), |tansu| {
        format!(
            "[[kafka]]\nname = 'topic'\ncluster = 'test'\nbrokers = ['{}']\ntopics = ['audit']\nsession_timeout = '6s'\n",
            tansu.address()
        )
    });
    let rest = format!(
        "{}{kafka}{}",
        sources(folder.path(), &log, &receiver.url(), &token, &secret),
        policy(folder.path(), "5a")
    );
    let archive = at("archive");
    let config = config(folder.path(), &archive.display().to_string(), &rest);
    if let Some(tansu) = &tansu {
        produce(tansu, 3 * count_each..4 * count_each, &mut markers);
    }
    let (mut daemon, mut logs) = (Daemon::start(&config), Vec::new());
    let mut sent = count_each;
    let kills_after = count_each / 300;
    for (at, chunk) in (count_each..2 * count_each).step_by(100).enumerate() {
        let body = batch(chunk..chunk + 100);
        while post(&listener(&daemon), &body) != 200 {
            std::thread::sleep(Duration::from_millis(50));
        }
        markers.add("webhook", &body);
        sent += 100;
        if at % kills_after == kills_after - 1 {
            std::thread::sleep(Duration::from_millis(250));
            logs.push(daemon.log());
            daemon.kill();
            assert_eq!(files_with_markers(folder.path()), Vec::<PathBuf>::new());
            daemon = Daemon::start(&config);
        }
    }
    markers.report(if tansu.is_some() { &["tail", "kafka", "webhook"] } else { &["tail", "webhook"] });
    let events = sent + if tansu.is_some() { count_each } else { 0 };
    wait_until("everything is sealed", || {
        daemon.metric("unsealed_records") == 0.0
            && count(&archive, "SELECT count(*) FROM events")
                + count(&archive, "SELECT count(*) FROM rejects")
                == events
    });
    assert_eq!(daemon.metric("conservation_failures_total"), 0.0);
    assert!(daemon.metric("redacted_events_total") > 0.0);
    let (_, metrics) = daemon.get("/metrics");
    let in_force = metrics.lines().find(|line| line.starts_with("strongroom_redaction_policy{policy=\""));
    assert!(in_force.is_some_and(|line| line.ends_with("\"} 1")), "{metrics}");
    assert!(daemon.metric("redacted_values_total{action=\"drop\"}") > 0.0);
    let alerts = number(&archive, "SELECT count(*) FROM alerts");
    assert!(alerts >= i64::try_from(events).expect("a small number"), "{alerts}");
    let stdout = daemon
        .alerts
        .lock()
        .expect("no panic holds it")
        .iter()
        .map(|(_, line)| line.clone())
        .collect::<Vec<_>>();
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    logs.push(log);
    assert_eq!(files_with_markers(folder.path()), Vec::<PathBuf>::new());
    assert!(!logs.iter().chain(&stdout).any(|text| has_marker(text.as_bytes())));
    let posted = receiver.posted.lock().expect("no panic holds it");
    assert!(!posted.is_empty() && !posted.iter().any(|posted| has_marker(&posted.body)));
    drop(posted);
    assert_eq!(number(&archive, "SELECT count(*) FROM events WHERE redaction IS NULL"), 0);
    // A statement that spills to disk, and the making of a pack, leave no marker either.
    let spill = at("spill");
    std::fs::create_dir(&spill).expect("made");
    let mut query = strongroom();
    query.env("TMPDIR", &spill).args(["query", "--format", "json", "--archive"]).arg(&archive);
    query.arg("SELECT * FROM events ORDER BY request_object, response_object, annotations");
    let (out, _) = expect_code(&mut query, 0);
    assert!(!has_marker(out.as_bytes()));
    verified(&archive);
    packed(&archive, folder.path());
    assert_eq!(files_with_markers(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn the_write_ahead_log_is_encrypted_and_read_with_its_key_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("archive");
    let token = write_secret(folder.path(), "token", TOKEN.as_bytes());
    let rest = |interval: &str, policy: &str| {
        format!(
            "[seal]\ninterval = '{interval}'\n[alerts]\nstdout = false\n[[webhook]]\nname = 'api'\nlisten = '127.0.0.1:0'\n\
             token_file = '{}'\nwal = '{}'\n[[webhook.route]]\npath = '/prod'\ncluster = 'prod'\n{policy}",
            token.display(),
            folder.path().join("wal").display()
        )
    };
    let location = archive.display().to_string();
    let ours = policy(folder.path(), "5a");
    let daemon = Daemon::start(&config(folder.path(), &location, &rest("1h", &ours)));
    for batch_at in 0..5 {
        assert_eq!(post(&listener(&daemon), &batch(batch_at * 20..batch_at * 20 + 20)), 200);
    }
    daemon.kill();
    let log: Vec<PathBuf> = std::fs::read_dir(folder.path().join("wal"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    assert!(log.iter().any(|path| std::fs::metadata(path).expect("a file").len() > 10_000));
    assert_eq!(files_with_markers(folder.path()), Vec::<PathBuf>::new());
    // Without a policy, or with another key, the daemon ends without reading its write-ahead log,
    // which stays as it is.
    let other = std::fs::read_to_string(policy_of_other_key(folder.path())).expect("a policy");
    for (policy, says) in [("", "no redaction policy gives its key"), (other.as_str(), "cannot be decrypted")]
    {
        let config = config(folder.path(), &location, &rest("300ms", policy));
        let (_, err) = expect_code(strongroom().args(["run", "--config"]).arg(config), 2);
        assert!(err.contains(says), "{err}");
    }
    // To read the log, it is enough that its key is among the old keys.
    let old = ours.lines().find_map(|line| line.strip_prefix("key = ")).expect("a key");
    let rotated = other.replacen("presets", &format!("old_keys = [{old}]\npresets"), 1);
    let daemon = Daemon::start(&config(folder.path(), &location, &rest("300ms", &rotated)));
    wait_until("everything is sealed", || {
        archive.join("strongroom.json").exists() && number(&archive, "SELECT count(*) FROM events") == 100
    });
    let (status, log) = daemon.terminate();
    assert!(status.success() && !has_marker(log.as_bytes()), "{log}");
    assert_eq!(files_with_markers(folder.path()), Vec::<PathBuf>::new());
    verified(&archive);
}

#[test]
fn correlations_continue_over_a_restart_by_their_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("input");
    std::fs::create_dir(&input).expect("made");
    // `known` reads a value that the policy replaces. After a restart it cannot find that value in
    // the sealed events, so `many-known` starts again from zero. `made` reads no such value, so
    // `many` continues its count.
    let rule = "title: Patient made\nname: made\nlogsource: {product: kubernetes, service: audit}\n\
        detection: {s: {objectRef.resource: patients, verb: create}, condition: s}\nlevel: low\n---\n\
        title: Many patients\nname: many\nid: 6d1f0d0a-52b1-4a39-9a0e-6a3f0d6f7c14\n\
        correlation: {type: event_count, rules: made, group-by: user.username, timespan: 1h, condition: {gte: 3}}\n\
        level: high\n---\n\
        title: Known patient\nname: known\nlogsource: {product: kubernetes, service: audit}\n\
        detection: {s: {requestObject.spec.ssn|startswith: zQ}, condition: s}\nlevel: low\n---\n\
        title: Many known\nname: many-known\nid: 6d1f0d0a-52b1-4a39-9a0e-6a3f0d6f7c15\n\
        correlation: {type: event_count, rules: known, group-by: user.username, timespan: 1h, condition: {gte: 3}}\n\
        level: high\n";
    let rules = write(folder.path(), "rule.yml", rule.as_bytes());
    let policy = write(folder.path(), "policy.toml", policy(folder.path(), "5a").as_bytes());
    let archive = folder.path().join("archive");
    let user = user_of(3);
    let line = |number: usize| event(16 * number + 3).replace(&user_of(16 * number + 3), &user) + "\n";
    let run = |lines: std::ops::Range<usize>| {
        let log = write(&input, "audit.log", lines.map(line).collect::<String>().as_bytes());
        let mut command = ingest(&archive, Some(&policy), &[&log]);
        command.args(["--no-builtin-rules", "--rules"]).arg(&rules);
        let (out, _) = expect_code(&mut command, 0);
        assert!(!has_marker(out.as_bytes()), "{out}");
        out
    };
    let first = run(0..2);
    assert!(!first.contains("Many patients"), "{first}");
    let second = run(0..3);
    assert!(second.contains("Many patients") && second.contains("rt1:"), "{second}");
    assert!(!second.contains("Many known"), "{second}");
    let third = run(0..6);
    assert!(third.contains("Many known"), "{third}");
    let groups = "SELECT count(*) FROM alerts WHERE group_key LIKE 'user.username=rt1:%'";
    assert!(number(&archive, groups) >= 2);
    assert_eq!(files_with_markers(folder.path()), Vec::<PathBuf>::new());
}

/// Returns an event without a body, which a policy does not change.
fn plain_event(number: usize) -> Value {
    let event = event(8 * number + 7);
    let mut event: Value = serde_json::from_str(&event).expect("JSON");
    event["user"].as_object_mut().expect("a user").remove("extra");
    event
}

#[test]
fn what_is_around_an_event_is_no_way_around_the_policy() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("input");
    std::fs::create_dir(&input).expect("made");
    let policy = write(folder.path(), "policy.toml", policy(folder.path(), "5a").as_bytes());
    let (mut next, mut lines) = (0, Vec::new());
    let mut mark = || {
        next += 1;
        marker(next)
    };
    let secret = |mark: String| json!({"kind": "Secret", "data": {"password": mark}});
    let head = "2026-03-02T10:00:00.1Z";
    // An event that is cut into parts, with lines between them, as runtimes write them.
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        let mut event = plain_event(number);
        if number % 2 == 0 {
            event["requestObject"] = json!({"kind": "Pod"});
        }
        event
    };
    for _ in 0..2 {
        let text = fresh().to_string();
        let body = format!("I0302 10:00:00.000001 1 request.go:1] Request Body: {}", secret(mark()));
        lines.push(format!(
            "{head} stdout P {}\n{head} stderr F {body}\n{head} stdout F {}",
            &text[..100],
            &text[100..]
        ));
        let text = fresh().to_string();
        let docker =
            |text: &str, stream: &str| json!({"log": text, "stream": stream, "time": head}).to_string();
        let other = mark();
        lines.push(format!(
            "{}\n{}\n{}",
            docker(&text[..100], "stdout"),
            docker(&format!("body {other}\n"), "stderr"),
            docker(&format!("{}\n", &text[100..]), "stdout")
        ));
    }
    let parts = lines.len();
    // Members of a carrier beside the event, in each of its forms.
    for at in 0..18 {
        let event = fresh();
        let mut other = fresh();
        other["objectRef"] = json!({"resource": "secrets", "namespace": "x", "name": "s"});
        other["requestObject"] = secret(mark());
        let beside = match at % 6 {
            0 => json!({"requestObject": secret(mark())}),
            1 => json!({"a": [{"responseObject": secret(mark())}]}),
            2 => json!(json!({"requestObject": secret(mark())}).to_string()),
            3 => json!(other.to_string()),
            4 => json!(format!("Got responseObject {}", mark())),
            _ => other,
        };
        let carrier = match (at + at / 6) % 3 {
            0 => json!({"log": event.to_string(), "copy": beside}),
            1 => json!({"@timestamp": head, "message": event.to_string(), "zzz": beside}),
            _ => json!({"log_processed": event, "aaa": beside, "log": "x"}),
        };
        lines.push(carrier.to_string());
    }
    // Members of a list beside its items.
    let (before, after) = (mark(), mark());
    lines.push(format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{"x":"{before}"}},"items":[{},{}],"note":"{after}"}}"#,
        fresh(),
        fresh()
    ));
    let records = lines.len() + 1;
    // What is around the following events is kept.
    let harmless = [
        format!("{head} stdout F {}", fresh()),
        json!({"log": format!("{}\n", fresh()), "stream": "stdout", "time": head}).to_string(),
        {
            let text = fresh().to_string();
            json!({"@timestamp": head, "message": text, "event": {"original": text}}).to_string()
        },
    ];
    lines.extend(harmless.iter().cloned());
    let log = write(&input, "audit.log", (lines.join("\n") + "\n").as_bytes());

    let clear = folder.path().join("clear");
    output(ingest(&clear, None, &[&log]).arg("--complete"));
    let stored = |archive: &Path| count(archive, "SELECT count(*) FROM events");
    let all = stored(&clear);
    assert!(all >= records - parts, "{all} of {records}");
    let found = files_with_markers(&clear);
    assert!(found.iter().any(|path| path.to_string_lossy().contains("events")), "{found:?}");
    std::fs::remove_dir_all(&clear).expect("removed");

    let archive = folder.path().join("archive");
    output(ingest(&archive, Some(&policy), &[&log]).arg("--complete"));
    assert_eq!(files_with_markers(folder.path()), Vec::<PathBuf>::new());
    // Each event is still there, and those with something around them have marks.
    assert_eq!(stored(&archive), all);
    let unmarked = count(&archive, "SELECT count(*) FROM events WHERE redaction IS NULL");
    assert_eq!(unmarked, harmless.len());
    verified(&archive);
    let (out, _) = expect_code(strongroom().args(["export", "--archive"]).arg(&archive), 0);
    assert!(!has_marker(out.as_bytes()));
    for line in &harmless {
        assert!(out.contains(line.as_str()), "{line}\n{out}");
    }
    // Nothing is there twice.
    output(ingest(&archive, Some(&policy), &[&log]).arg("--complete"));
    assert_eq!(stored(&archive), all);
}

#[test]
fn an_empty_member_of_a_reference_says_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("input");
    std::fs::create_dir(&input).expect("made");
    let policy = write(folder.path(), "policy.toml", policy(folder.path(), "5a").as_bytes());
    let said = |name: &str, value: Option<&str>| {
        value.map_or(String::new(), |value| format!(r#","{name}":"{value}""#))
    };
    let (mut log, mut number) = (String::new(), 0);
    // The named object comes first, so that a decision about it that is remembered and then wrongly
    // used for an object without a name would be noticed.
    for name in [Some("p"), None, Some("")] {
        for namespace in [Some("phi-1"), None, Some("")] {
            for resource in ["patients", ""] {
                // A named object without a namespace is in no namespace, so the policy does not
                // apply.
                if name == Some("p") && namespace != Some("phi-1") {
                    continue;
                }
                number += 1;
                log += &format!(
                    r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"id-{number}","stage":"ResponseComplete","requestURI":"/apis/example.org/v1/patients","verb":"list","user":{{"username":"u"}},"objectRef":{{"resource":"{resource}"{}{},"apiGroup":"example.org"}},"responseObject":{{"items":[{{"spec":{{"ssn":"{}"}}}}]}},"requestReceivedTimestamp":"2026-03-02T10:00:00.000001Z","stageTimestamp":"2026-03-02T10:00:00.000001Z"}}"#,
                    said("namespace", namespace),
                    said("name", name),
                    marker(number)
                );
                log.push('\n');
            }
        }
    }
    let log = write(&input, "audit.log", log.as_bytes());
    let archive = folder.path().join("archive");
    output(ingest(&archive, Some(&policy), &[&log]).arg("--complete"));
    assert_eq!(files_with_markers(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(count(&archive, "SELECT count(*) FROM events WHERE redaction IS NOT NULL"), number);
    verified(&archive);
}

/// Returns the user of a patient's event, which is a marker.
fn user_of(number: usize) -> String {
    let text: Value = serde_json::from_str(&event(number)).expect("JSON");
    text["user"]["username"].as_str().expect("a user").to_owned()
}
