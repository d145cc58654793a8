//! Users' own rules: shown, tested, replaced while the daemon runs, and run over sealed events.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

use crate::daemon::{Daemon, config, wait_until};
use crate::run::{expect_code, ingest, log, number, strongroom, write};

const OK: i32 = 0;
const FINDING: i32 = 1;

fn event(at: usize, second: usize, verb: &str, resource: &str, actor: &str) -> String {
    let time =
        format!("2026-03-02T{:02}:{:02}:{:02}.000000Z", 10 + second / 3600, second / 60 % 60, second % 60);
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a-{at}","stage":"ResponseComplete","requestURI":"/x/{at}","verb":"{verb}","user":{{"username":"{actor}"}},"sourceIPs":["10.0.0.1"],"objectRef":{{"resource":"{resource}","namespace":"web","name":"n{at}"}},"responseStatus":{{"metadata":{{}},"code":200}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}"}}"#
    ) + "\n"
}

fn rule(name: &str, verb: &str, resource: &str) -> String {
    format!(
        "title: {name}\nname: {name}\nlogsource: {{product: kubernetes, service: audit}}\ndetection:\n  a: {{verb: {verb}, objectRef.resource: {resource}}}\n  condition: a\nlevel: high\n"
    )
}

/// Goal: a hunt over sealed events finds the alerts that were raised when the events arrived.
/// Method: a generated log with attacks, cut into two files, is ingested with the built-in rules.
/// Then the same rules hunt over the archive. Both must give the same ids, and the hunt must not
/// store an alert a second time.
#[test]
fn a_hunt_finds_what_the_stream_raised() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("archive");
    let text = log(40_000, 11);
    let file = write(folder.path(), "audit.log", &text);
    expect_code(&mut ingest(&archive, &[&file]), OK);
    let (raised, _) = expect_code(
        strongroom()
            .args(["query", "--format", "csv", "--archive"])
            .arg(&archive)
            .arg("SELECT DISTINCT alert_id FROM alerts"),
        OK,
    );
    let raised: BTreeSet<&str> = raised.lines().skip(1).collect();
    assert!(raised.len() > 20, "{}", raised.len());
    let hunt = |more: &[&str]| {
        let mut command = strongroom();
        command.args(["hunt", "--builtin-rules", "--format", "json", "--archive"]).arg(&archive).args(more);
        let (out, err) = expect_code(&mut command, OK);
        let ids: BTreeSet<String> = out
            .lines()
            .map(|line| {
                let finding: serde_json::Value = serde_json::from_str(line).expect("a finding is JSON");
                finding["finding_info"]["uid"].as_str().expect("a finding has an id").to_owned()
            })
            .collect();
        (ids, err)
    };
    let (found, _) = hunt(&["--store"]);
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), raised);
    assert_eq!(
        number(&archive, "SELECT count(*) FROM alerts"),
        raised.len() as i64,
        "the hunt stores no alert a second time"
    );

    // A hunt over a shorter period finds the alerts that ended in it, even if they started before
    // it.
    let from = "2026-03-02T02:00:00Z";
    let middle = number(
        &archive,
        &format!("SELECT count(DISTINCT alert_id) FROM alerts WHERE time >= TIMESTAMP '{from}'"),
    );
    let (late, _) = hunt(&["--from", from]);
    assert_eq!(late.len() as i64, middle);
    let (none, err) = hunt(&["--to", "2001-01-01"]);
    assert!(none.is_empty() && err.contains("0 findings; 0 of 0 events"), "{err}");
}

/// A rule that is newer than the events finds sequences and first occurrences in them, and what it
/// finds is stored.
#[test]
fn a_new_rule_hunts_through_old_events_and_stores_what_it_finds() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("archive");
    let mut text = String::new();
    for at in 0..200 {
        text += &event(at, at * 30, "list", "pods", "alice");
    }
    text += &event(300, 6100, "create", "rolebindings", "mallory");
    text += &event(301, 6200, "get", "secrets", "mallory");
    text += &event(302, 6300, "get", "secrets", "alice");
    let file = write(folder.path(), "audit.log", text.as_bytes());
    expect_code(&mut ingest(&archive, &[&file]), OK);
    let rules = format!(
        "{}---\n{}---\n{}---\ntitle: Grant, then use\nname: grant-use\nid: 11111111-2222-4333-8444-555555555555\ncorrelation: {{type: temporal_ordered, rules: [grants, reads], group-by: actor, timespan: 10m}}\nlevel: high\n---\ntitle: New resource\nname: new-resource\nid: 11111111-2222-4333-8444-555555555556\ncorrelation: {{type: first_seen, rules: [lists, reads], group-by: actor, timespan: 10d, learning: 1h, condition: {{field: objectRef.resource}}}}\n",
        rule("grants", "create", "rolebindings"),
        rule("reads", "get", "secrets"),
        rule("lists", "list", "pods"),
    );
    let rules = write(folder.path(), "new.yml", rules.as_bytes());
    let before = number(&archive, "SELECT count(*) FROM alerts");
    let mut hunt = strongroom();
    hunt.args(["hunt", "--store", "--archive"]).arg(&archive).arg("--rule").arg(&rules);
    let (out, err) = expect_code(&mut hunt, OK);
    assert!(out.contains("grant-use") && out.contains("mallory"), "{out}");
    assert!(out.contains("new-resource") && out.contains("alice"), "{out}");
    assert!(err.contains("2 findings; 203 of 203 events"), "{err}");
    assert!(err.contains("2 new findings stored"), "{err}");
    assert_eq!(number(&archive, "SELECT count(*) FROM alerts"), before + 2);
    let (_, err) = expect_code(&mut hunt, OK);
    assert!(err.contains("0 new findings stored"), "{err}");
    // The ingest of the grown log continues where it stopped.
    let mut more = text;
    more += &event(400, 6400, "get", "secrets", "bob");
    std::fs::write(&file, more).expect("written");
    expect_code(&mut ingest(&archive, &[&file]), OK);
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 204);
}

#[test]
fn rules_are_listed_shown_linted_and_tested() {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, _) = expect_code(strongroom().args(["rules", "list"]), OK);
    let (high, _) = expect_code(strongroom().args(["rules", "list", "--severity", "high"]), OK);
    assert!(out.lines().count() > high.lines().count() && high.lines().count() > 5);
    let (one, _) = expect_code(strongroom().args(["rules", "list", "--technique", "T1609"]), OK);
    assert!(one.contains("pod-exec") && one.lines().count() < out.lines().count(), "{one}");
    let (shown, _) = expect_code(strongroom().args(["rules", "show", "pod-exec-shell"]), OK);
    for part in ["pod-exec-shell", "T1609", "needs level", "detection:", "Next steps"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let (json, _) = expect_code(strongroom().args(["rules", "show", "--json", "pod-exec-shell"]), OK);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["needs"]["level"], "Metadata");
    let (_, err) = expect_code(strongroom().args(["rules", "show", "no-such-rule"]), FINDING);
    assert!(err.contains("rules list"), "{err}");

    let own = write(folder.path(), "own.yml", rule("own", "get", "secrets").as_bytes());
    let (out, err) = expect_code(strongroom().args(["rules", "lint"]).arg(&own), FINDING);
    assert!(out.contains("own.yml:1: own: has no UUID as its id"), "{out}");
    assert!(err.contains("1 rule read, 5 remarks"), "{err}");
    // The shipped rules are checked in place of the built-in ones.
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/rules");
    let (out, err) = expect_code(strongroom().args(["rules", "lint"]).arg(&shipped), OK);
    assert!(out.is_empty() && err.contains("rules read, 0 remarks"), "{out}{err}");
    let (out, err) = expect_code(strongroom().args(["rules", "test"]).arg(&shipped), OK);
    assert!(out.contains("ok    pod-exec-shell") && err.contains("rules tested, 0 failed"), "{err}");
    let copy =
        std::fs::read_to_string(shipped.join("pod-exec.yml")).expect("a rule").replace("pods", "services");
    let copy = write(folder.path(), "pod-exec.yml", copy.as_bytes());
    let (out, _) = expect_code(strongroom().args(["rules", "lint"]).arg(&copy), FINDING);
    assert!(out.contains("pod-exec: differs from the built-in rule"), "{out}");

    let broken = write(folder.path(), "broken.yml", b"title: x\nlogsource: {product: kubernetes, service: audit}\ndetection:\n  a: {verbs: get}\n  condition: a\n");
    let (_, err) = expect_code(strongroom().args(["rules", "lint"]).arg(&broken), FINDING);
    assert!(
        err.contains("broken.yml:4") && err.contains("nearest: verb") || err.contains("broken.yml:4"),
        "{err}"
    );

    let (out, _) = expect_code(strongroom().args(["rules", "test"]).arg(&own), FINDING);
    assert!(out.contains("FAIL  own") && out.contains("own.hit.ndjson"), "{out}");
    let fixtures = folder.path().join("fixtures");
    std::fs::create_dir(&fixtures).expect("a folder");
    write(&fixtures, "own.hit.ndjson", event(1, 0, "get", "secrets", "a").as_bytes());
    write(&fixtures, "own.near-miss.ndjson", event(1, 0, "list", "secrets", "a").as_bytes());
    let (out, err) = expect_code(strongroom().args(["rules", "test"]).arg(&own), OK);
    assert!(out.contains("ok    own") && err.contains("1 rule tested, 0 failed"), "{out}{err}");
    write(&fixtures, "own.near-miss.ndjson", event(1, 0, "get", "secrets", "a").as_bytes());
    let (out, _) = expect_code(strongroom().args(["rules", "test"]).arg(&own), FINDING);
    assert!(out.contains("the near miss fires once"), "{out}");
}

/// If the audit policy leaves out bodies, rules about bodies can never fire, and the coverage says
/// so.
#[test]
fn coverage_names_rules_that_the_stream_cannot_trigger() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("archive");
    let mut text = event(1, 0, "create", "pods", "alice");
    text += &event(2, 1, "get", "secrets", "alice");
    let file = write(folder.path(), "audit.log", text.as_bytes());
    expect_code(&mut ingest(&archive, &[&file]), OK);
    let rules = format!(
        "{}---\ntitle: host\nname: host\nlogsource: {{product: kubernetes, service: audit}}\ndetection:\n  a: {{verb: create, objectRef.resource: pods, pod.hostNetwork: true}}\n  condition: a\n---\n{}",
        rule("reads", "get", "secrets"),
        rule("nodes", "delete", "nodes"),
    );
    let rules = write(folder.path(), "r.yml", rules.as_bytes());
    let mut command = strongroom();
    command.args(["rules", "coverage", "--json", "--no-builtin-rules", "--rules"]).arg(&rules);
    command.arg("--archive").arg(&archive);
    let (out, _) = expect_code(&mut command, OK);
    let out: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let states: Vec<(&str, &str)> = out["rules"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|rule| (rule["rule"].as_str().unwrap_or(""), rule["stream"]["state"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(states, [("reads", "carried"), ("host", "blind"), ("nodes", "not seen")]);
    // The table has a line for each rule that alerts, and a column for each kind of log.
    let (list, _) = expect_code(strongroom().args(["rules", "list", "--json"]), OK);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let alerting = list.as_array().expect("a list").iter().filter(|rule| rule["alerts"] == true);
    let (out, _) = expect_code(strongroom().args(["rules", "coverage"]), OK);
    let table: Vec<&str> = out.lines().skip_while(|line| !line.starts_with("  rule  ")).skip(1).collect();
    let table: Vec<&str> = table.into_iter().take_while(|line| !line.is_empty()).collect();
    let names: Vec<&str> = table.iter().filter_map(|line| line.split_whitespace().next()).collect();
    let expected: Vec<&str> = alerting.filter_map(|rule| rule["name"].as_str()).collect();
    assert_eq!(names, expected, "{out}");
    let lacks = table.iter().find(|line| line.contains(" pod-exec-shell ")).expect("a line");
    assert!(lacks.contains("Metadata") && lacks.contains("yes         lacks request_uri"), "{lacks}");
    let starts: BTreeSet<Option<usize>> =
        table.iter().map(|line| line.find(" yes ").or(line.find(" yes"))).collect();
    assert_eq!(starts.len(), 1, "one column");
    assert!(
        out.contains("T1609") && out.contains("logs like gke: ") && out.contains("  gke, gcloud-read\n"),
        "{out}"
    );
    assert!(out.lines().all(|line| line.chars().count() < 240), "{out}");
}

/// Goal: when rules are replaced, no event is lost or counted twice, and the counts of correlations
/// are kept. A broken file of rules changes nothing. Method: events are appended one by one before
/// and after each replacement.
#[test]
fn rules_are_replaced_while_the_daemon_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = write(folder.path(), "audit.log", b"");
    let counts = |least: u32| {
        format!(
            "{}---\ntitle: many\nname: many\ncorrelation: {{type: event_count, rules: reads, group-by: actor, timespan: 1h, condition: {{gte: {least}}}}}\nlevel: high\n",
            rule("reads", "get", "secrets")
        )
    };
    let rules = write(folder.path(), "own.yml", counts(5).as_bytes());
    let archive = folder.path().join("archive");
    let rest = format!(
        "[rules]\nbuiltin = false\npaths = ['{}']\n[[tail]]\nname = 't'\ncluster = 'c'\npaths = ['{}']\npoll = '50ms'\n",
        rules.display(),
        log.display()
    );
    let mut daemon = Daemon::start(&config(folder.path(), &archive.display().to_string(), &rest));
    daemon.wait_for_metric("rules", 2.0);
    let append = |events: std::ops::Range<usize>| {
        let mut file = std::fs::File::options().append(true).open(&log).expect("a log");
        let text = events.fold(String::new(), |mut text, at| {
            let _ = write!(text, "{}", event(at, at, "get", "secrets", "mallory"));
            text
        });
        file.write_all(text.as_bytes()).expect("appended");
    };
    append(0..3);
    daemon.wait_for_metric("received_records_total", 3.0);
    // Another rule is added, and the rule that counts stays. Its count continues.
    let more = format!("{}---\n{}", counts(5), rule("lists", "list", "pods"));
    std::fs::write(&rules, more).expect("written");
    daemon.signal("-HUP");
    daemon.wait_for_metric("rule_reloads_total", 1.0);
    assert_eq!(daemon.metric("rules"), 3.0);
    append(3..4);
    daemon.wait_for_metric("received_records_total", 4.0);
    assert!(
        daemon.alerts.lock().expect("no panic").is_empty(),
        "four events do not reach the threshold of five"
    );
    // A broken file is refused by name and line, and the rules in use stay.
    std::fs::write(&rules, "title: x\nname: x\ndetection: {a: {verb: get}, condition: a}\n")
        .expect("written");
    daemon.signal("-HUP");
    daemon.wait_for_metric("rule_reloads_refused_total", 1.0);
    wait_until("the log names the line", || daemon.log().contains("own.yml:1"));
    assert_eq!(daemon.metric("rules"), 3.0);
    append(4..5);
    daemon.wait_for_metric("received_records_total", 5.0);
    wait_until("the fifth completes the count", || daemon.alerts.lock().expect("no panic").len() == 1);
    let text = daemon.alerts.lock().expect("no panic")[0].1.clone();
    assert!(text.contains("many") && text.contains("a-0") && text.contains("a-4"), "{text}");
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    assert_eq!(number(&archive, "SELECT count(*) FROM alerts"), 1);
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 5);
}

/// Goal: a process is killed between the steps of a sequence, before or after the first step was
/// sealed. It still raises the same alert as without the kill. Method: kill -9 between two appends;
/// the alert must have the id that a hunt gives it.
#[test]
fn a_kill_between_the_steps_of_a_sequence_changes_no_id() {
    for seals in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let log = write(folder.path(), "audit.log", b"");
        let rules = format!(
            "{}---\n{}---\ntitle: Grant, then use\nname: grant-use\ncorrelation: {{type: temporal_ordered, rules: [grants, reads], group-by: actor, timespan: 10m}}\nlevel: high\n",
            rule("grants", "create", "rolebindings"),
            rule("reads", "get", "secrets"),
        );
        let rules = write(folder.path(), "own.yml", rules.as_bytes());
        let archive = folder.path().join("archive");
        let interval = if seals { "100ms" } else { "5m" };
        let rest = format!(
            "[seal]\ninterval = '{interval}'\n[rules]\nbuiltin = false\npaths = ['{}']\n[[tail]]\nname = 't'\ncluster = 'c'\npaths = ['{}']\npoll = '50ms'\n",
            rules.display(),
            log.display()
        );
        let config = config(folder.path(), &archive.display().to_string(), &rest);
        let append = |text: String| {
            let mut file = std::fs::File::options().append(true).open(&log).expect("a log");
            file.write_all(text.as_bytes()).expect("appended");
        };
        let mut daemon = Daemon::start(&config);
        daemon.address();
        append(event(1, 0, "create", "rolebindings", "mallory"));
        daemon.wait_for_metric("received_records_total", 1.0);
        if seals {
            daemon.wait_for_metric("sealed_events_total", 1.0);
        }
        daemon.kill();
        let daemon = Daemon::start(&config);
        append(event(2, 60, "get", "secrets", "mallory"));
        wait_until("the sequence is found", || !daemon.alerts.lock().expect("no panic").is_empty());
        let alerts: Vec<String> =
            daemon.alerts.lock().expect("no panic").iter().map(|(_, line)| line.clone()).collect();
        assert_eq!(alerts.len(), 1, "{alerts:?}");
        let (status, log) = daemon.terminate();
        assert!(status.success(), "{log}");
        let mut hunt = strongroom();
        hunt.args(["hunt", "--format", "json", "--archive"]).arg(&archive).arg("--rule").arg(&rules);
        let (found, _) = expect_code(&mut hunt, OK);
        let id = |line: &str| -> String {
            let finding: serde_json::Value = serde_json::from_str(line).expect("a finding is JSON");
            finding["finding_info"]["uid"].as_str().expect("a finding has an id").to_owned()
        };
        assert_eq!(id(&alerts[0]), id(found.trim()), "sealed: {seals}");
    }
}
