//! Alerts arrive at their receivers, despite kills, outages and hostile receivers.
//!
//! Method: a rule that fires on every request makes an alert of each line, so that the table
//! `alerts` and what a receiver got can be compared one by one. For Splunk, Elasticsearch, Slack
//! and PagerDuty there are mocks that answer as the vendor documents it. rsyslog, Alertmanager,
//! Tansu, and the programs that check signatures and CEF are real.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::{Value, json};
use strongroom_live::Secret;
use strongroom_live::kafka::{KafkaSink, KafkaSinkOptions, Security};
use strongroom_schemas::{Alert, AlertEvent};
use strongroom_sinks::http::HttpOptions;
use strongroom_sinks::{
    Alertmanager, AlertmanagerOptions, Elastic, ElasticOptions, Outcome, PagerDuty, PagerDutyOptions, Sink,
    Slack, SlackOptions, Splunk, SplunkOptions, Syslog, SyslogFormat, SyslogOptions, TlsOptions, Transport,
    Webhook, WebhookOptions, cef, rfc5424,
};

use crate::corpus;
use crate::daemon::{Daemon, config, wait_until};
use crate::run::{expect_code, is_long, log, number, strongroom, write, write_secret};
use crate::services::debian::{self, tls};
use crate::services::receiver::{Posted, Receiver};
use crate::services::tansu::Tansu;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A rule that fires on every request.
const RULE: &str = "title: Every request\nid: 6d1f0d0a-52b1-4a39-9a0e-6a3f0d6f7c11\nstatus: test\nlevel: high\n\
                    description: Fires on every request.\nlogsource:\n  product: kubernetes\n  service: audit\n\
                    detection:\n  all:\n    verb|re: '.+'\n  condition: all\n";

/// Returns alerts of a generated log, and one alert of a hostile client.
fn alerts(count: usize) -> Vec<Arc<Alert>> {
    let text = corpus::generated(5, 20_000, true).0;
    let decoded = corpus::decode(&corpus::lines(&text)).0;
    let found = corpus::alerts(&corpus::builtin(), &decoded);
    let mut alerts: Vec<Alert> = found.iter().cycle().take(count).cloned().collect();
    for (number, alert) in alerts.iter_mut().enumerate() {
        alert.alert_id = format!("00000000-0000-5000-8000-{number:012}");
    }
    let evil = "a|b=c\\d\r\ne\u{1b}[31mf\u{0}g\"h]i<!channel>&\u{202e}\u{7f}ü".to_owned();
    if let Some(alert) = alerts.last_mut() {
        let some = || Some(evil.clone());
        alert.message = evil.clone();
        alert.event = AlertEvent {
            audit_id: evil.clone(),
            actor: evil.clone(),
            source_ip: some(),
            user_agent: some(),
            verb: some(),
            request_uri: some(),
            resource: some(),
            namespace: some(),
            name: some(),
            ..alert.event.clone()
        };
    }
    alerts.into_iter().map(Arc::new).collect()
}

fn ids<'a>(alerts: impl IntoIterator<Item = &'a Arc<Alert>>) -> BTreeSet<String> {
    alerts.into_iter().map(|alert| alert.alert_id.clone()).collect()
}

fn all_taken(outcomes: &[Outcome]) {
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Taken), "{outcomes:?}");
}

fn plain_http(url: &str) -> HttpOptions {
    HttpOptions::new(url, TlsOptions::default(), false).expect("a URL")
}

/// Gives `input` to a script in `tests/tools` that uses an independent checker (a *judge*), and
/// returns the output; `None` if the judge is not installed.
fn judged(tool: &str, input: &str) -> Option<String> {
    let python = std::env::var_os("STRONGROOM_PYTHON")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(tool);
    let mut command = Command::new(python);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("Python starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let feed = std::thread::Builder::new().spawn(move || pipe.write_all(input.as_bytes())).expect("a thread");
    let output = child.wait_with_output().expect("the judge ends");
    // A judge that has seen enough stops reading.
    let _ = feed.join();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("UTF-8"))
}

/// A daemon's folder: a log that grows, an archive, an outbox, a rule for every request.
struct Setting {
    folder: tempfile::TempDir,
    config: PathBuf,
}

fn setting(outbox: &str, sinks: &str) -> Setting {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(folder.path().join("logs")).expect("made");
    write(folder.path(), "every.yml", RULE.as_bytes());
    let rest = format!(
        "[seal]\ninterval = '300ms'\n[rules]\nbuiltin = false\npaths = ['{}']\n[alerts]\nstdout = false\n\
         [outbox]\nfolder = '{}'\n{outbox}\n[[tail]]\nname = 'files'\ncluster = 'test'\npaths = ['{}']\npoll = '20ms'\n{sinks}",
        at("every.yml"),
        at("outbox"),
        at("logs"),
    );
    let config = config(folder.path(), &at("archive"), &rest);
    Setting { folder, config }
}

impl Setting {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, bytes: &[u8]) {
        let path = self.path("logs/audit.log");
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opened");
        file.write_all(bytes).expect("written");
    }

    /// Returns the number of events in the archive.
    fn events(&self) -> usize {
        usize::try_from(number(&self.path("archive"), "SELECT count(*) FROM events")).unwrap_or(0)
    }

    /// Returns the ids of the alerts in the archive.
    fn sealed(&self) -> BTreeSet<String> {
        let mut command = strongroom();
        command.args(["query", "--format", "csv", "--archive"]).arg(self.path("archive"));
        let (out, _) = expect_code(command.arg("SELECT alert_id FROM alerts"), 0);
        out.lines().skip(1).map(str::to_owned).collect()
    }
}

fn file_sink(set: &str) -> String {
    format!("[[sink]]\nname = 'lines'\ntype = 'file'\npath = '{set}'\n")
}

/// Returns the ids of findings, in their order.
fn found(text: &str) -> Vec<String> {
    let id = |line: &str| {
        let finding: Value = serde_json::from_str(line).expect("a finding");
        finding["finding_info"]["uid"].as_str().expect("an id").to_owned()
    };
    text.lines().map(id).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn hook(receiver: &Receiver, folder: &Path) -> String {
    write_secret(folder, "secret", SECRET.as_bytes());
    format!(
        "[[sink]]\nname = 'hook'\ntype = 'webhook'\nurl = '{}/in'\nsecret_file = '{}'\n",
        receiver.url(),
        folder.join("secret").display()
    )
}

/// Returns every different body that arrived, by its `webhook-id`.
fn bodies(posted: &Mutex<Vec<Posted>>) -> BTreeMap<String, BTreeSet<Vec<u8>>> {
    let mut bodies: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for one in posted.lock().expect("no panic holds it").iter() {
        bodies.entry(one.header("webhook-id").to_owned()).or_default().insert(one.body.clone());
    }
    bodies
}

/// A receiver is down while alerts arrive, 1,000 a second, and the daemon is killed again and
/// again.
#[test]
fn a_sink_that_is_down_gets_every_alert_though_the_process_is_killed() {
    let (down, kills) = if is_long() { (Duration::from_secs(600), 20) } else { (Duration::from_secs(20), 3) };
    // For each id: a hash of its body, how often it arrived, and true if another body arrived under
    // the same id.
    type Arrived = BTreeMap<String, (u64, u64, bool)>;
    let arrived: Arc<Mutex<Arrived>> = Arc::default();
    let there = Arc::clone(&arrived);
    let mut receiver = Receiver::that_forgets(move |posted| {
        let mut hasher = DefaultHasher::new();
        posted.body.hash(&mut hasher);
        let hash = hasher.finish();
        let mut arrived = there.lock().expect("no panic holds it");
        let known = arrived.entry(posted.header("webhook-id").to_owned()).or_insert((hash, 0, false));
        *known = (known.0, known.1 + 1, known.2 || known.0 != hash);
        (200, String::new(), String::new())
    });
    receiver.down();
    let secrets = tempfile::tempdir().expect("a folder");
    let set = setting("", &hook(&receiver, secrets.path()));
    let events = down.as_secs() * 1_000;
    let text = log(events, 77);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let begun = Instant::now();
    let mut daemon = Daemon::start(&set.config);
    let mut written = 0;
    for round in 1..=kills {
        while begun.elapsed() < down * round / kills {
            let due = usize::try_from(begun.elapsed().as_millis()).unwrap_or(usize::MAX).min(lines.len());
            set.append(&lines[written..due].concat());
            written = due;
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon.kill();
        daemon = Daemon::start(&set.config);
    }
    set.append(&lines[written..].concat());
    assert!(arrived.lock().expect("no panic holds it").is_empty());
    receiver.up();
    // The daemon is also killed once while it delivers what has waited.
    let waited = || arrived.lock().expect("no panic holds it").len();
    wait_until("the first come", || waited() > 0);
    daemon.kill();
    daemon = Daemon::start(&set.config);
    let until = Instant::now() + if is_long() { Duration::from_secs(900) } else { Duration::from_secs(300) };
    let mut sealed = BTreeSet::new();
    loop {
        let lag = daemon.metric("sink_lag{sink=\"hook\"}");
        let unsealed = daemon.metric("unsealed_records");
        if lag == 0.0 && unsealed == 0.0 && set.events() == lines.len() {
            sealed = set.sealed();
            let arrived = arrived.lock().expect("no panic holds it");
            if sealed.iter().all(|id| arrived.contains_key(id)) {
                break;
            }
        }
        let count = arrived.lock().expect("no panic holds it").len();
        assert!(
            Instant::now() < until,
            "{count} arrived of {}, lag {lag}, unsealed {unsealed}",
            sealed.len()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    let arrived = arrived.lock().expect("no panic holds it").clone();
    let repeats: u64 = arrived.values().map(|(_, count, _)| count - 1).sum();
    println!("{} alerts, {repeats} repeated, {kills} kills, down {down:?}", sealed.len());
    assert!(sealed.len() as u64 > events / 2, "{} alerts of {events} events", sealed.len());
    assert_eq!(arrived.keys().cloned().collect::<BTreeSet<_>>(), sealed);
    assert!(
        !arrived.values().any(|(_, _, differs)| *differs),
        "an alert that is sent again has the same body"
    );
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
}

/// The library that receivers use accepts the signatures of posted bodies.
#[test]
fn webhooks_are_signed_as_the_standard_wants() {
    let receiver = Receiver::that_takes_all();
    let http = plain_http(&receiver.url());
    let mut sink = Webhook::new(&WebhookOptions { http, secret: Secret::new(SECRET) }).expect("a sink");
    let alerts = alerts(20);
    all_taken(&sink.send(&alerts));
    let posted = receiver.posted.lock().expect("no panic holds it").clone();
    let heard: BTreeSet<String> = posted.iter().map(|one| one.header("webhook-id").to_owned()).collect();
    assert_eq!(heard, ids(&alerts));
    let line = |secret: &str, one: &Posted| {
        let headers: BTreeMap<&str, &str> =
            one.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        json!({"secret": secret, "headers": headers, "body": STANDARD.encode(&one.body)}).to_string() + "\n"
    };
    let input: String = posted.iter().map(|one| line(SECRET, one)).collect();
    let Some(said) = judged("webhook_verify.py", &input) else { return };
    assert_eq!(said.trim(), "20");
    // The judge really checks: it refuses a changed body.
    let mut changed = posted[0].clone();
    changed.body.push(b' ');
    let python = std::env::var_os("STRONGROOM_PYTHON").expect("asked above");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/webhook_verify.py");
    let file = write(&std::env::temp_dir(), "strongroom-changed-webhook", line(SECRET, &changed).as_bytes());
    let mut command = Command::new(python);
    let judged = command.arg(script).stdin(std::fs::File::open(&file).expect("written")).output();
    assert!(!judged.expect("Python starts").status.success());
    std::fs::remove_file(file).expect("removed");
}

/// One sink is dead, one refuses alerts, one is slow. The fourth still gets everything at once.
#[test]
fn no_sink_holds_up_another_or_the_pipeline() {
    let dead = {
        let mut receiver = Receiver::that_takes_all();
        receiver.down();
        receiver
    };
    let refuses = Receiver::start(|_| (400, String::new(), "I never take this".to_owned()));
    let busy = Receiver::start(|_| (429, "retry-after: 3600\r\n".to_owned(), String::new()));
    let secrets = tempfile::tempdir().expect("a folder");
    let out = secrets.path().join("out.jsonl");
    let hooks = [("dead", &dead), ("refuses", &refuses), ("busy", &busy)];
    let hooks = hooks.map(|(name, at)| hook(at, secrets.path()).replace("'hook'", &format!("'{name}'")));
    let set = setting("", &(hooks.concat() + &file_sink(&out.display().to_string())));
    let mut daemon = Daemon::start(&set.config);
    set.append(&log(2_000, 3));
    wait_until("the file has all", || {
        let sealed = set.path("archive").exists().then(|| set.path("archive"));
        sealed.is_some() && daemon.metric("sealed_events_total") == 2_000.0
    });
    let sealed = set.sealed();
    wait_until("the file has all", || found(&read(&out)).len() == sealed.len());
    assert_eq!(found(&read(&out)).into_iter().collect::<BTreeSet<_>>(), sealed);
    wait_until("all are refused", || {
        daemon.metric("sink_dead_total{sink=\"refuses\"}") == sealed.len() as f64
    });
    let dead_letters = read(&set.path("outbox/refuses.dead.jsonl"));
    let letter: Value = serde_json::from_str(dead_letters.lines().next().expect("a letter")).expect("JSON");
    assert!(
        letter["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("400") && reason.contains("never take"))
    );
    assert!(sealed.contains(letter["finding"]["finding_info"]["uid"].as_str().expect("an id")));
    assert_eq!(dead_letters.lines().count(), sealed.len());
    assert_eq!(daemon.metric("sink_well{sink=\"dead\"}"), 0.0);
    assert!(daemon.metric("sink_lag{sink=\"dead\"}") > 0.0);
    // A receiver that asks the sink to wait for an hour gets no further request.
    let asked = busy.posted.lock().expect("no panic holds it").len();
    assert!((1..=64).contains(&asked), "{asked}");
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    let (out, _) = expect_code(strongroom().args(["alerts", "sinks", "--config"]).arg(&set.config), 0);
    assert!(out.lines().any(|line| line.starts_with("lines ") && line.contains(" 0  ")), "{out}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("readable").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
}

/// Events are sealed, but their alerts are not in the outbox, as if the process had been killed
/// between the two.
#[test]
fn what_is_sealed_and_not_in_the_outbox_is_read_from_the_archive() {
    let secrets = tempfile::tempdir().expect("a folder");
    let out = secrets.path().join("out.jsonl");
    let set = setting("", &file_sink(&out.display().to_string()));
    let text = log(3_000, 9);
    let half = text.split_inclusive(|byte| *byte == b'\n').take(1_000).map(<[u8]>::len).sum();
    let mut daemon = Daemon::start(&set.config);
    set.append(&text[..half]);
    daemon.wait_for_metric("sealed_events_total", 1_000.0);
    daemon.terminate();
    let before = set.sealed();
    assert_eq!(found(&read(&out)).into_iter().collect::<BTreeSet<_>>(), before);
    copy(&set.path("outbox"), &set.path("outbox.then"));
    let mut daemon = Daemon::start(&set.config);
    set.append(&text[half..]);
    daemon.wait_for_metric("sealed_events_total", 2_000.0);
    daemon.terminate();
    let after = set.sealed();
    assert!(after.len() > before.len());
    let first = found(&read(&out));
    assert_eq!(first.len(), after.len(), "each once");

    std::fs::remove_dir_all(set.path("outbox")).expect("removed");
    copy(&set.path("outbox.then"), &set.path("outbox"));
    std::fs::remove_file(&out).expect("removed");
    let mut daemon = Daemon::start(&set.config);
    let missing: BTreeSet<String> = after.difference(&before).cloned().collect();
    wait_until("the rest comes", || found(&read(&out)).len() >= missing.len());
    assert!(daemon.metric("outbox_caught_up_total") >= missing.len() as f64);
    daemon.terminate();
    assert_eq!(found(&read(&out)).into_iter().collect::<BTreeSet<_>>(), missing);
    // A second run sends nothing new.
    let daemon = Daemon::start(&set.config);
    std::thread::sleep(Duration::from_secs(1));
    daemon.terminate();
    assert_eq!(found(&read(&out)).len(), missing.len());
}

/// A sink is down for so long that the outbox has no more room. The alerts that the outbox then
/// drops are later read from the archive.
#[test]
fn an_outbox_that_is_full_drops_nothing_for_good() {
    let mut receiver = Receiver::that_takes_all();
    receiver.down();
    let secrets = tempfile::tempdir().expect("a folder");
    let out = secrets.path().join("out.jsonl");
    let sinks = hook(&receiver, secrets.path()) + &file_sink(&out.display().to_string());
    let set = setting("bytes = '1MiB'", &sinks);
    let mut daemon = Daemon::start(&set.config);
    let text = log(6_000, 21);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    for part in lines.chunks(500) {
        set.append(&part.concat());
        std::thread::sleep(Duration::from_millis(350));
    }
    daemon.wait_for_metric("sealed_events_total", 6_000.0);
    wait_until("something is dropped", || daemon.metric("outbox_dropped_total") > 0.0);
    wait_until("it is within its bound", || daemon.metric("outbox_bytes") <= f64::from(1 << 20));
    let sealed = set.sealed();
    let arrived = || {
        let text = read(&out);
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        found(whole).into_iter().collect::<BTreeSet<_>>()
    };
    wait_until("the other sink has every alert while this one is down", || arrived() == sealed);
    receiver.up();
    wait_until("every alert arrives", || bodies(&receiver.posted).len() >= sealed.len());
    assert_eq!(bodies(&receiver.posted).into_keys().collect::<BTreeSet<_>>(), sealed);
    assert_eq!(
        found(&read(&out)).into_iter().collect::<BTreeSet<_>>(),
        sealed,
        "the other one was not held up"
    );
    daemon.terminate();
}

/// Alerts are grouped. The first alert of a group is sent, and later a summary that counts the
/// others.
#[test]
fn groups_send_the_first_and_count_the_others() {
    let secrets = tempfile::tempdir().expect("a folder");
    let out = secrets.path().join("out.jsonl");
    let set = setting("group = '3s'", &file_sink(&out.display().to_string()));
    let daemon = Daemon::start(&set.config);
    set.append(&log(2_000, 5));
    wait_until("some are sealed", || set.path("archive/alerts").exists() && !set.sealed().is_empty());
    // Held alerts survive a kill.
    daemon.kill();
    let mut daemon = Daemon::start(&set.config);
    daemon.wait_for_metric("unsealed_records", 0.0);
    let counted = || -> (usize, u64) {
        let findings = read(&out);
        let findings: Vec<Value> =
            findings.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let summaries = findings
            .iter()
            .filter(|f| f["finding_info"]["title"].as_str().is_some_and(|t| t.ends_with(" more)")));
        let counts: Vec<u64> = summaries.map(|f| f["count"].as_u64().expect("a count")).collect();
        (findings.len() - counts.len(), counts.iter().sum())
    };
    wait_until("firsts and summaries are all alerts", || {
        let (firsts, held) = counted();
        firsts + held as usize == set.sealed().len()
    });
    let (firsts, held) = counted();
    assert!(firsts > 0 && held > 0, "{firsts} firsts, {held} held");
    daemon.terminate();
}

#[test]
fn test_sink_prints_what_the_receiver_answered() {
    let receiver = Receiver::start(|posted| match posted.path.as_str() {
        "/in" => (200, String::new(), "thank you".to_owned()),
        _ => (401, String::new(), format!("who are you, {SECRET}?")),
    });
    let secrets = tempfile::tempdir().expect("a folder");
    let good = hook(&receiver, secrets.path());
    let bad = good.replace("'hook'", "'other'").replace("/in'", "/out'");
    let set = setting("", &(good + &bad));
    let run = |name: &str, code: i32| {
        expect_code(strongroom().args(["alerts", "test-sink", name, "--config"]).arg(&set.config), code).1
    };
    assert!(run("hook", 0).contains("hook: taken: HTTP 200 OK: thank you"));
    let posted = receiver.posted.lock().expect("no panic holds it")[0].clone();
    assert!(String::from_utf8_lossy(&posted.body).contains("Strongroom test alert"));
    let said = run("other", 1);
    assert!(said.contains("not taken: HTTP 401") && said.contains("check the credentials"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    assert!(run("none", 1).contains("the configuration has hook, other"));
}

fn syslog(port: u16, format: SyslogFormat, ca: &str) -> Syslog {
    let options = SyslogOptions {
        address: format!("localhost:{port}"),
        transport: Transport::Tls,
        tls: TlsOptions { ca_file: Some(tls(ca)), identity: None },
        format,
        bytes_max: 8192,
        hostname: "gate".to_owned(),
    };
    Syslog::new(options).expect("a sink")
}

#[test]
fn rsyslog_gets_every_byte_over_tls() {
    let Some(peer) = debian::rsyslog() else { return };
    let alerts = alerts(300);
    let mut expected = BTreeSet::new();
    for format in [SyslogFormat::Json, SyslogFormat::Cef] {
        let mut sink = syslog(peer.port, format, "ca.pem");
        for part in alerts.chunks(sink.batch_max()) {
            all_taken(&sink.send(part));
        }
        sink.finish();
        let message = |alert: &Arc<Alert>| {
            let message = rfc5424(alert, format, "gate", 8192).expect("the message is short enough");
            String::from_utf8(message).expect("UTF-8")
        };
        expected.extend(alerts.iter().map(message));
    }
    wait_until("all are written", || read(&peer.out).lines().count() >= expected.len());
    let got: BTreeSet<String> = read(&peer.out).lines().map(str::to_owned).collect();
    assert!(got == expected, "{:?}", got.symmetric_difference(&expected).take(2).collect::<Vec<_>>());
    // A receiver with another authority gets nothing.
    let outcome = syslog(peer.port, SyslogFormat::Json, "other-ca.pem").send(&alerts[..1]);
    assert!(
        matches!(&outcome[..], [Outcome::Later { reason, .. }] if reason.contains("certificate")),
        "{outcome:?}"
    );
    assert_eq!(read(&peer.out).lines().count(), expected.len());
}

#[test]
fn another_parser_reads_the_same_from_our_cef() {
    let alerts = alerts(40);
    let lines: String = alerts.iter().map(|alert| cef(alert) + "\n").collect();
    assert_eq!(lines.lines().count(), alerts.len(), "each alert is one line");
    let Some(said) = judged("cef_parse.py", &lines) else { return };
    for (alert, line) in alerts.iter().zip(said.lines()) {
        let parsed: Value = serde_json::from_str(line).expect("JSON");
        let text = |key: &str| parsed[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("externalId"), alert.alert_id, "{parsed}");
        assert_eq!(text("DeviceEventClassID"), alert.rule_name, "{parsed}");
        assert_eq!(text("Name"), alert.title, "{parsed}");
        assert_eq!(text("dvchost"), alert.event.cluster, "{parsed}");
        assert_eq!(text("eventCount"), alert.event_count.to_string(), "{parsed}");
        assert_eq!(text("ruleId"), alert.rule_id, "{parsed}");
    }
    // The judge does not decode escapes. What matters is that it finds the right end of the value.
    let parsed: Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
    let expected = "a|b\\=c\\\\d\\r\\ne\u{fffd}[31mf\u{fffd}g\"h]i<!channel>&\u{202e}\u{fffd}ü";
    assert_eq!(parsed["duser"], expected, "{parsed}");
    assert_eq!(parsed["msg"], expected, "{parsed}");
}

#[test]
fn alertmanager_receives_groups_and_forwards() {
    let forwarded = Receiver::that_takes_all();
    let Some(peer) = debian::alertmanager(&forwarded.url()) else { return };
    let members = vec![plain_http(&format!("http://127.0.0.1:{}", peer.port))];
    let mut sink = Alertmanager::new(&AlertmanagerOptions { members }).expect("a sink");
    let mut alerts = alerts(30);
    for alert in &mut alerts {
        Arc::make_mut(alert).time_us = chrono::Utc::now().timestamp_micros();
    }
    all_taken(&sink.send(&alerts));
    let rules: BTreeSet<String> = alerts.iter().map(|alert| alert.rule_name.clone()).collect();
    let told = || {
        let posted = forwarded.posted.lock().expect("no panic holds it").clone();
        let groups: Vec<Value> =
            posted.iter().map(|one| serde_json::from_slice(&one.body).expect("JSON")).collect();
        let ids: BTreeSet<String> = groups
            .iter()
            .flat_map(|group| group["alerts"].as_array().cloned().unwrap_or_default())
            .map(|alert| alert["labels"]["alert_id"].as_str().unwrap_or_default().to_owned())
            .collect();
        let keys: BTreeSet<String> = groups
            .iter()
            .map(|g| g["groupLabels"]["alertname"].as_str().unwrap_or_default().to_owned())
            .collect();
        (ids, keys)
    };
    wait_until("Alertmanager forwards all", || told().0.len() >= alerts.len());
    assert_eq!(told(), (ids(&alerts), rules));
}

#[test]
fn kafka_has_every_alert_under_its_id() {
    let Some(tansu) = Tansu::start() else { return };
    tansu.create_topic("alerts", 3);
    let options = KafkaSinkOptions {
        brokers: vec![tansu.address()],
        topic: "alerts".to_owned(),
        security: Security::Plaintext,
        ca_file: None,
        cert_file: None,
        key_file: None,
    };
    let mut sink = KafkaSink::new(options).expect("a sink");
    let alerts = alerts(1_000);
    for part in alerts.chunks(sink.batch_max()) {
        let outcomes = sink.send(part);
        all_taken(&outcomes);
    }
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", tansu.address())
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    consumer.subscribe(&["alerts"]).expect("subscribed");
    let mut got: BTreeMap<String, usize> = BTreeMap::new();
    wait_until("all are read", || {
        while let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let Ok(message) = message else { continue };
            let key = String::from_utf8(message.key().expect("a key").to_vec()).expect("UTF-8");
            let finding: Value = serde_json::from_slice(message.payload().expect("a payload")).expect("JSON");
            assert_eq!(finding["finding_info"]["uid"], key.as_str());
            *got.entry(key).or_insert(0) += 1;
        }
        got.len() >= alerts.len()
    });
    assert_eq!(got.keys().cloned().collect::<BTreeSet<_>>(), ids(&alerts));
    assert!(got.values().all(|count| *count == 1), "idempotent");
}

#[test]
fn a_kafka_that_is_gone_is_waited_for() {
    let Some(mut tansu) = Tansu::start() else { return };
    tansu.create_topic("alerts", 1);
    let options = KafkaSinkOptions {
        brokers: vec![tansu.address()],
        topic: "alerts".to_owned(),
        security: Security::Plaintext,
        ca_file: None,
        cert_file: None,
        key_file: None,
    };
    tansu.stop();
    let mut sink = KafkaSink::new(options).expect("a sink");
    let alerts = alerts(3);
    let outcomes = sink.send(&alerts);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Later { .. })), "{outcomes:?}");
    tansu.start_again();
    tansu.create_topic("alerts", 1);
    wait_until("the broker takes them", || {
        sink.send(&alerts).iter().all(|outcome| *outcome == Outcome::Taken)
    });
}

/// Alerts are sent to a mock of Elasticsearch's `_bulk`, which refuses whatever is not exactly
/// right.
#[test]
fn a_mock_of_elastic_takes_what_its_contract_says() {
    let known = Arc::new(Mutex::new(BTreeMap::<String, Value>::new()));
    let asked = Arc::new(Mutex::new(0));
    let (known_there, asked_there) = (Arc::clone(&known), Arc::clone(&asked));
    let mock = Receiver::start(move |posted| {
        if posted.path != "/logs-test-default/_bulk" || posted.header("authorization") != "ApiKey k3y" {
            return (401, String::new(), "{}".to_owned());
        }
        let body = String::from_utf8(posted.body.clone()).unwrap_or_default();
        if posted.header("content-type") != "application/x-ndjson" || !body.ends_with('\n') {
            return (
                400,
                String::new(),
                "{\"error\":\"The bulk request must be terminated by a newline\"}".to_owned(),
            );
        }
        let lines: Vec<Value> =
            body.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
        if lines.len() > 2 * 64 {
            return (413, String::new(), String::new());
        }
        let mut known = known_there.lock().expect("no panic holds it");
        let mut asked = asked_there.lock().expect("no panic holds it");
        *asked += 1;
        let mut items = Vec::new();
        for pair in lines.chunks(2) {
            let id = pair[0]["create"]["_id"].as_str().unwrap_or_default().to_owned();
            let last = id.bytes().last().unwrap_or_default();
            let is_known = known.contains_key(&id);
            let (status, error) = if is_known {
                (409, "version_conflict_engine_exception")
            } else if last == b'3' && *asked == 1 {
                (429, "es_rejected_execution_exception")
            } else if last == b'7' {
                (400, "document_parsing_exception")
            } else {
                known.insert(id, pair[1].clone());
                items.push(json!({"create": {"status": 201}}));
                continue;
            };
            items.push(json!({"create": {"status": status, "error": {"type": error, "reason": "said so"}}}));
        }
        (200, String::new(), json!({"took": 1, "errors": true, "items": items}).to_string())
    });
    let http = plain_http(&mock.url());
    let options =
        ElasticOptions { http, index: "logs-test-default".to_owned(), api_key: Some(Secret::new("k3y")) };
    let mut sink = Elastic::new(&options).expect("a sink");
    let alerts = alerts(40);
    let outcomes = sink.send(&alerts);
    for (number, outcome) in outcomes.iter().enumerate() {
        let expected = match number % 10 {
            3 => matches!(outcome, Outcome::Later { .. }),
            7 => {
                matches!(outcome, Outcome::Refused { reason } if reason.contains("document_parsing_exception"))
            }
            _ => *outcome == Outcome::Taken,
        };
        assert!(expected, "{number}: {outcome:?}");
    }
    // A document that exists already counts as delivered. After a 413, the sink sends half as much.
    let again: Vec<Arc<Alert>> = alerts.iter().cycle().take(120).cloned().collect();
    let outcomes = sink.send(&again);
    let taken = outcomes.iter().filter(|outcome| **outcome == Outcome::Taken).count();
    assert_eq!(taken, 120 - 12);
    let known = known.lock().expect("no panic holds it");
    assert_eq!(known.len(), 36);
    assert!(
        known
            .values()
            .all(|document| document["event"]["kind"] == "alert" && document["@timestamp"].is_string())
    );
}

/// Alerts are sent to a mock of Splunk's collector with acknowledgements, which refuses whatever is
/// not exactly right.
#[test]
fn a_mock_of_splunk_acknowledges_what_its_contract_says() {
    #[derive(Default)]
    struct Indexer {
        events: Vec<Value>,
        acks: BTreeMap<u64, u32>,
        channel: String,
    }
    let state = Arc::new(Mutex::new(Indexer::default()));
    let there = Arc::clone(&state);
    let mock = Receiver::start(move |posted| {
        let mut state = there.lock().expect("no panic holds it");
        let said = |status: u16, code: u32, text: &str| {
            (status, String::new(), json!({"code": code, "text": text}).to_string())
        };
        if posted.header("authorization") != "Splunk t0ken" {
            return said(403, 4, "Invalid token");
        }
        let channel = posted.header("x-splunk-request-channel").to_owned();
        if channel.len() != 36 {
            return said(400, 10, "Data channel is missing");
        }
        if let Some(asked) = posted.path.strip_prefix("/services/collector/ack?channel=") {
            assert_eq!(asked, state.channel);
            let asked: Value = serde_json::from_slice(&posted.body).expect("JSON");
            let id = asked["acks"][0].as_u64().expect("an id");
            let polls = state.acks.entry(id).or_insert(0);
            *polls += 1;
            return (200, String::new(), json!({"acks": {id.to_string(): *polls == 3}}).to_string());
        }
        assert_eq!(posted.path, "/services/collector/event");
        state.channel = channel;
        let events: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_slice(&posted.body).into_iter::<Value>().collect();
        let Ok(events) = events else { return said(400, 6, "Invalid data format") };
        if events.iter().any(|event| event["fields"]["alert_id"].as_str().is_some_and(|id| id.ends_with("5")))
        {
            return said(400, 6, "Invalid data format");
        }
        assert!(events.iter().all(|event| event["time"].is_f64() && event["event"]["class_uid"] == 2004));
        state.events.extend(events);
        let ack = state.events.len() as u64;
        (200, String::new(), json!({"text": "Success", "code": 0, "ackId": ack}).to_string())
    });
    let options = |token: &str| SplunkOptions {
        http: plain_http(&mock.url()),
        token: Secret::new(token),
        index: Some("sec".to_owned()),
        acks: true,
        hostname: "gate".to_owned(),
    };
    let alerts = alerts(10);
    let mut sink = Splunk::new(options("t0ken")).expect("a sink");
    let outcomes = sink.send(&alerts);
    for (number, outcome) in outcomes.iter().enumerate() {
        let refused = matches!(outcome, Outcome::Refused { .. });
        assert_eq!(refused, number == 5, "{number}: {outcome:?}");
    }
    assert_eq!(state.lock().expect("no panic holds it").events.len(), 9);
    assert!(state.lock().expect("no panic holds it").acks.values().all(|polls| *polls == 3));
    let outcomes = Splunk::new(options("wrong")).expect("a sink").send(&alerts);
    assert!(
        outcomes.iter().all(|o| matches!(o, Outcome::Later { reason, .. } if reason.contains("token"))),
        "{outcomes:?}"
    );
}

/// Alerts are sent to mocks of Slack and PagerDuty.
#[test]
fn mocks_of_slack_and_pagerduty_take_what_their_contracts_say() {
    let slow = Arc::new(Mutex::new(true));
    let first = Arc::clone(&slow);
    let mock = Receiver::start(move |posted| {
        let body: Value = serde_json::from_slice(&posted.body).expect("JSON");
        if posted.path == "/v2/enqueue" {
            let right = body["event_action"] == "trigger"
                && body["routing_key"] == "r0ute"
                && body["dedup_key"].as_str().is_some_and(|key| key.len() <= 255)
                && body["payload"]["summary"].as_str().is_some_and(|text| text.chars().count() <= 1024);
            return if right {
                (202, String::new(), "{}".to_owned())
            } else {
                (400, String::new(), "{}".to_owned())
            };
        }
        if std::mem::take(&mut *first.lock().expect("no panic holds it")) {
            return (429, "retry-after: 7\r\n".to_owned(), String::new());
        }
        let text = body["text"].as_str().unwrap_or_default();
        let right = !text.contains('<') && body["blocks"].as_array().is_some_and(|blocks| blocks.len() <= 50);
        if right {
            (200, String::new(), "ok".to_owned())
        } else {
            (400, String::new(), "invalid_payload".to_owned())
        }
    });
    let alerts = alerts(4);
    let mut slack =
        Slack::new(&SlackOptions { url: Secret::new(format!("{}/T/B", mock.url())) }).expect("a sink");
    let outcome = slack.send(&alerts[..1]);
    let asked = Some(Duration::from_secs(7));
    assert!(matches!(&outcome[..], [Outcome::Later { after, .. }] if *after == asked), "{outcome:?}");
    all_taken(&slack.send(&alerts));
    let options = PagerDutyOptions { http: plain_http(&mock.url()), routing_key: Secret::new("r0ute") };
    all_taken(&PagerDuty::new(&options).expect("a sink").send(&alerts));
    let posted = mock.posted.lock().expect("no panic holds it").clone();
    let text: String = posted.iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect();
    assert!(!text.contains("requestObject") && !text.contains("\u{1b}"));
}
