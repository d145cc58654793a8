//! Texts of people and clients: SQL up to its plan, configurations, redaction policies, and the bodies
//! that an API server posts to the webhook.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use strongroom_archive::Archive;
use strongroom_query::{Session, SessionOptions};
use strongroom_redact::{Form, Key, Keys, Policy, Redactor, RuleSettings, Settings, Target};

use super::{Changes, archive, corpus, files, try_all};
use crate::daemon::{Daemon, config};
use crate::run::{output, strongroom, write, write_secret};
use crate::webhook::{listener, post};

const SQL_WORDS: &[&str] = &[
    "SELECT ",
    "FROM events ",
    "FROM alerts a ",
    "WHERE ",
    "AND ",
    "OR ",
    "NOT ",
    "IS NULL",
    "IN (",
    "BETWEEN ",
    "LIKE ",
    "GROUP BY ",
    "ORDER BY ",
    "LIMIT ",
    "OFFSET ",
    "HAVING ",
    "DISTINCT ",
    "UNION ALL ",
    "EXCEPT ",
    "WITH x AS (",
    "WITH RECURSIVE r AS (",
    "JOIN ",
    "LEFT JOIN ",
    "CROSS JOIN ",
    "ON ",
    "CASE WHEN ",
    "END ",
    "count(*)",
    "sum(",
    "max(stage_timestamp)",
    "repeat('x', 100000000)",
    "generate_series(1, 1000000000)",
    "read_csv('/etc/passwd')",
    "'/etc/passwd'",
    "COPY ",
    "TO '/tmp/x' ",
    "CREATE EXTERNAL TABLE ",
    "INSERT INTO ",
    "DELETE FROM ",
    "SET ",
    "SHOW TABLES",
    "EXPLAIN ANALYZE ",
    "DESCRIBE ",
    "PREPARE ",
    "EXECUTE ",
    "information_schema.tables",
    "strongroom.archive.events",
    "request_object->'a'",
    "request_object->>'a'",
    "audit_ids[1]",
    "array_agg(",
    "unnest(",
    "OVER (PARTITION BY ",
    "INTERVAL '1 day'",
    "TIMESTAMP '2026-03-02'",
    "date_trunc('hour', ",
    "arrow_cast(1, 'Decimal128(38,38)')",
    "CAST(",
    " AS ",
    "::bigint",
    "'",
    "\"",
    "$$",
    "x'00'",
    "--",
    "/*",
    "*/",
    ";",
    "(",
    ")",
    "((((((((((((((((",
    ",",
    "*",
    "/",
    "%",
    "||",
    "<=>",
    "-9223372036854775808",
    "99999999999999999999",
    "1e309",
    "NULL",
    "''",
    "\u{0}",
    "\u{202e}",
    "\u{feff}",
    "é",
    "~ '(a+)+$'",
];

#[test]
fn sql() {
    let (folder, root) = archive();
    let archive = Archive::open(&root.display().to_string()).expect("an archive");
    let before: Vec<_> = files(&root);
    let options = SessionOptions {
        memory_limit: 64 << 20,
        threads: Some(1),
        temp_dir: Some(folder.path().join("spill")),
    };
    let session = Session::open(archive, &options).expect("a session");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut planned = 0_u64;
    let mut check = |sql: &[u8], _: usize| {
        let Ok(sql) = std::str::from_utf8(sql) else { return };
        match runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(15), session.ask(sql)).await })
        {
            Ok(Ok(_)) => planned += 1,
            Ok(Err(error)) => assert!(!error.to_string().is_empty()),
            Err(_) => panic!("no plan in time"),
        }
    };
    try_all("sql", 500, &corpus("sql"), Changes::Words(SQL_WORDS), &mut check);
    assert!(planned > 0, "no statement was planned");
    assert_eq!(files(&root), before, "a statement changed the archive");
}

const CONFIG_WORDS: &[&str] = &[
    "[archive]\n",
    "location = '/tmp/x'\n",
    "[seal]\n",
    "interval = '5s'\n",
    "interval = '-1s'\n",
    "bytes = '99999999999GiB'\n",
    "[[tail]]\n",
    "[[kafka]]\n",
    "[[webhook]]\n",
    "[[webhook.route]]\n",
    "[[sink]]\n",
    "[outbox]\n",
    "[redaction]\n",
    "[[redaction.rule]]\n",
    "[[witness]]\n",
    "[[timestamp]]\n",
    "[rules]\n",
    "[observe]\n",
    "[limits]\n",
    "[alerts]\n",
    "name = 'a'\n",
    "cluster = 'c'\n",
    "paths = ['/var/log/x']\n",
    "brokers = ['h:1']\n",
    "topics = ['t']\n",
    "listen = '127.0.0.1:0'\n",
    "listen = '::'\n",
    "url = 'https://u:p@h/'\n",
    "type = 'webhook'\n",
    "type = 'syslog'\n",
    "token_file = '/dev/null'\n",
    "key_file = '/'\n",
    "writers = ['*']\n",
    "unwrap = 'a.b'\n",
    "silence = '1h'\n",
    "threads = 0\n",
    "threads = 999999999\n",
    "drain = '1ns'\n",
    "action = 'drop'\n",
    "detectors = ['ssn']\n",
    "= ",
    "''",
    "\"\"",
    "'''",
    "[[",
    "]]",
    "{",
    "}",
    "#",
    "\n",
    "1e999",
    "inf",
    "nan",
    "0x7fffffffffffffff",
    "1979-05-27T07:32:00Z",
    "true",
    "\\u0000",
    "\u{0}",
    "\u{feff}",
    "\u{202e}",
    "a.b.c = 1\n",
];

#[test]
fn configurations() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut corpus = corpus("config");
    corpus.push(include_bytes!("../../../cli/default.toml").to_vec());
    let mut right = 0_u64;
    let mut check = |text: &[u8], _: usize| {
        let path = write(folder.path(), "strongroom.toml", text);
        let output = output(strongroom().args(["config", "check"]).arg(path));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}: {said}", output.status);
        assert!(!said.contains("panicked"), "{said}");
        right += u64::from(output.status.success());
        let made = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(made, 1, "to check a configuration makes no file");
    };
    try_all("config", 250, &corpus, Changes::Words(CONFIG_WORDS), &mut check);
    assert!(right > 0, "no configuration is right");
}

const POLICY_WORDS: &[&str] = &[
    "path: ",
    "action: drop\n",
    "action: tokenise\n",
    "action: keep\n",
    "resource: secrets\n",
    "resource: */*\n",
    "resource: apps/deployments\n",
    "namespace: phi-*\n",
    "namespace: [a-z]\n",
    "cluster: prod\n",
    "preset: secrets\n",
    "preset: env\n",
    "detector: ssn\n",
    "detector: email\n",
    "rule\n",
    "requestObject.data.*",
    "responseObject.items[*].data",
    "requestObject.metadata.annotations['a.b/c']",
    "**",
    "*.*.*",
    "user.username",
    "annotations",
    "requestURI",
    "objectRef.name",
    ".",
    "[",
    "]",
    "[*]",
    "*",
    "?",
    "\\",
    "'",
    "\"",
    "\n",
    "{",
    "{a,b}",
    "éé",
    "\u{0}",
    "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a",
];

/// Events with something to redact.
const EVENTS: [&str; 3] = [
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"a","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/phi/secrets/db?fieldSelector=metadata.name%3Ddb","verb":"update","user":{"username":"eve","groups":["g"],"extra":{"k":["v"]}},"sourceIPs":["10.0.0.1"],"objectRef":{"resource":"secrets","namespace":"phi","name":"db","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestObject":{"metadata":{"name":"db","annotations":{"a.b/c":"{\"data\":{\"p\":\"x\"}}"}},"data":{"p":"cHc=","q":null},"ssn":"123-45-6789"},"responseObject":{"items":[{"data":{"p":"cHc="}},{"data":[1,true,{"x":"y"}]}]},"requestReceivedTimestamp":"2026-03-02T10:00:00.000000Z","stageTimestamp":"2026-03-02T10:00:00.000000Z","annotations":{"authorization.k8s.io/reason":"because of db"}}"#,
    r#"{"kind":"Event","level":"Request","auditID":"b","stage":"ResponseComplete","requestURI":"/x","verb":"patch","user":{"username":"eve"},"requestObject":[{"op":"add","path":"/data/p","value":"eA=="},{"op":"replace","path":"/metadata/annotations","value":{"a.b/c":"d"}}]}"#,
    r#"{"kind":"Event","auditID":"c","requestObject":"text","responseObject":null,"user":{}}"#,
];

fn settings(text: &str) -> Settings {
    let mut settings = Settings { key: Some("env:UNUSED".to_owned()), ..Settings::default() };
    for line in text.lines() {
        if line == "rule" || settings.rules.is_empty() {
            settings.rules.push(RuleSettings::default());
        }
        let Some(rule) = settings.rules.last_mut() else { continue };
        let value = |value: &str| value.to_owned();
        match line.split_once(": ") {
            Some(("path", path)) => rule.paths.push(value(path)),
            Some(("action", action)) => rule.action = value(action),
            Some(("resource", resource)) => rule.resources.push(value(resource)),
            Some(("namespace", namespace)) => rule.namespaces.push(value(namespace)),
            Some(("cluster", cluster)) => rule.clusters.push(value(cluster)),
            Some(("preset", preset)) => settings.presets.push(value(preset)),
            Some(("detector", detector)) => settings.detectors.push(value(detector)),
            _ => {}
        }
    }
    settings
}

#[test]
fn policies() {
    let key = || Key::parse(&"0123456789abcdef".repeat(4)).expect("a key");
    let target =
        Target { namespace: Some("phi"), name: Some("db"), api_group: None, resource: Some("secrets") };
    let mut right = 0_u64;
    let mut check = |text: &[u8], _: usize| {
        let policy = match Policy::new(&settings(&String::from_utf8_lossy(text))) {
            Ok(policy) => policy,
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                return;
            }
        };
        right += 1;
        let redactor = Redactor::new(policy, Keys::new(key(), Vec::new()).expect("keys"));
        for event in EVENTS {
            let edit = |event: &[u8]| redactor.redact(event, Form::Event, "prod", &target);
            let Ok(Some(once)) = edit(event.as_bytes()) else { continue };
            serde_json::from_slice::<Value>(&once.event).expect("an edited event is JSON");
            assert_eq!(edit(event.as_bytes()).ok().flatten().map(|again| again.event), Some(once.event));
        }
    };
    try_all("policies", 3_000, &corpus("policies"), Changes::Words(POLICY_WORDS), &mut check);
    assert!(right > 0, "no policy is right");
}

const BODY_WORDS: &[&str] = &[
    "{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":[",
    "]}",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"items\":",
    "\"items\":{}",
    "\"items\":[[",
    "\"kind\":\"Event\",",
    "\"kind\":\"List\",",
    "\"auditID\":\"x\",",
    "\"level\":\"Request\",",
    "\"stage\":\"Panic\",",
    "\"requestObject\":{\"a\":\"\\ud800\"},",
    "\"requestObject\":[[[[[[[[[[[[",
    "\"user\":null,",
    "null",
    "true",
    "1e999",
    "-0",
    "\"\"",
    "\\u0000",
    "\\x",
    "\n",
    "\r\n",
    "\0",
    "\u{feff}",
    "\u{2028}",
    "}{",
    "\n\n{\"kind\":\"EventList\"",
    "99999999999999999999",
];
const TOKEN: &str = "a-token-of-the-test-that-is-long";
/// How much memory the daemon may have taken at most.
const MEMORY_KIB_MAX: u64 = 700 << 10;

#[test]
fn webhook_bodies() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = write_secret(folder.path(), "token", TOKEN.as_bytes());
    let rest = format!(
        "[seal]\ninterval = '1s'\n[alerts]\nstdout = false\n[[webhook]]\nname = 'api'\nlisten = '127.0.0.1:0'\n\
         token_file = '{}'\nwal = '{}'\n[[webhook.route]]\npath = '/prod'\ncluster = 'prod'\n",
        token.display(),
        folder.path().join("wal").display()
    );
    let location = folder.path().join("archive").display().to_string();
    let mut daemon = Daemon::start(&config(folder.path(), &location, &rest));
    let address = listener(&daemon);
    let mut taken = 0_u64;
    let mut check = |body: &[u8], _: usize| {
        let status = post(&address, "/prod", TOKEN, body);
        assert!(matches!(status, 200 | 400 | 413 | 415 | 422), "answered with {status}");
        taken += u64::from(status == 200);
    };
    try_all("webhook", 800, &corpus("webhook"), Changes::Words(BODY_WORDS), &mut check);
    assert!(taken > 0, "no body was taken");
    assert_eq!(daemon.metric("conserved"), 1.0);
    assert_eq!(daemon.metric("conservation_failures_total"), 0.0);
    let memory = memory_kib(daemon.pid());
    assert!(memory < MEMORY_KIB_MAX, "the daemon took {memory} KiB");
    let (status, log) = daemon.terminate();
    assert!(status.success() && !log.contains("panicked"), "{log}");
    let verified = output(strongroom().args(["verify", "--archive", &location]));
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// The most memory that a process has taken.
fn memory_kib(pid: u32) -> u64 {
    let status =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
