//! Tests of levels that are lower than the rule's own, and of commands of an exec that only the
//! body contains.
//!
//! Goal: an alert is never left out, whatever its level becomes, and a command is found wherever an
//! event has it. Method: a few lines go through the matcher and the detector.

use std::sync::Arc;

use strongroom_schemas::{Alert, Severity};

use crate::testing::{batch_of, file_batch_of};
use crate::{Detector, DetectorConfig, Matcher, RuleSet};

const SOURCE: &str = "logsource: {product: kubernetes, service: audit}\n";

fn set(text: &str) -> Arc<RuleSet> {
    Arc::new(RuleSet::from_yaml("r.yml", text).unwrap_or_else(|error| panic!("{error}")))
}

fn error(text: &str) -> String {
    RuleSet::from_yaml("r.yml", text).expect_err(text).to_string()
}

fn read(second: u32, user: &str, name: &str) -> String {
    let time = format!("2026-03-02T10:{:02}:{:02}.000000Z", second / 60, second % 60);
    format!(
        r#"{{"auditID":"{second}","stage":"ResponseComplete","verb":"get","requestURI":"/s/{second}","user":{{"username":"{user}"}},"userAgent":"kubectl/v1","objectRef":{{"resource":"secrets","namespace":"web","name":"{name}"}},"responseStatus":{{"code":200}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}"}}"#
    )
}

/// Returns the alerts for lines that are matched as batches of `size`.
fn alerts(rules: &Arc<RuleSet>, lines: &[String], size: usize) -> Vec<Alert> {
    let mut detector = Detector::new(Arc::clone(rules), DetectorConfig::default());
    let mut matcher = Matcher::new(Arc::clone(rules));
    let mut alerts = Vec::new();
    for lines in lines.chunks(size) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        alerts.extend(detector.observe(matcher.match_batch(&batch_of(&lines)).expect("a batch")));
    }
    alerts
}

fn levels(alerts: &[Alert]) -> Vec<Severity> {
    alerts.iter().map(|alert| alert.severity).collect()
}

#[test]
fn alerts_that_are_common_have_a_lower_level() {
    let common = "level: high\ncommon: {alerts: 2, timespan: 5m, level: low}\n";
    let event = format!("title: r\n{SOURCE}detection: {{a: {{verb: get}}, condition: a}}\n{common}");
    let correlation = format!(
        "title: f\nname: f\n{SOURCE}detection: {{a: {{verb: get}}, condition: a}}\n---\ntitle: c\nname: c\ncorrelation: {{type: event_count, rules: f, group-by: actor, timespan: 10s, condition: {{gte: 1}}}}\n{common}"
    );
    let lines: Vec<String> = [(0, "a"), (20, "b"), (40, "c"), (60, "a"), (500, "d"), (520, "e"), (540, "f")]
        .map(|(second, user)| read(second, user, "s"))
        .to_vec();
    let (high, low) = (Severity::High, Severity::Low);
    for text in [event, correlation] {
        let rules = set(&text);
        assert_eq!(rules.rebuild_span().as_secs(), 300);
        let found = alerts(&rules, &lines, 100);
        assert_eq!(levels(&found), [high, high, low, low, high, high, low], "{text}");
        assert!(found[2].message.ends_with("; common here: 2 or more such alerts within 5m"), "{found:?}");
        // Neither batches nor levels change ids.
        let ids = |alerts: &[Alert]| alerts.iter().map(|alert| alert.alert_id.clone()).collect::<Vec<_>>();
        let one_by_one = alerts(&rules, &lines, 1);
        assert_eq!((ids(&one_by_one), levels(&one_by_one)), (ids(&found), levels(&found)));
        let always = set(&text.replace("common:", "references:"));
        assert_eq!(ids(&alerts(&always, &lines, 3)), ids(&found));
    }
}

#[test]
fn what_is_new_while_the_group_is_learnt_has_a_lower_level() {
    let text = |level: &str| {
        format!(
            "title: f\nname: f\n{SOURCE}detection: {{a: {{verb: get}}, condition: a}}\n---\ntitle: n\nname: n\ncorrelation: {{type: first_seen, rules: f, group-by: [cluster], timespan: 1d, learning: 5m{level}, condition: {{field: [user.username, client]}}}}\nlevel: high\n"
        )
    };
    let mut lines = [(0, "a"), (10, "b"), (20, "a"), (400, "b"), (410, "c")]
        .map(|(second, user)| read(second, user, "s"))
        .to_vec();
    lines.push(read(420, "a", "s").replace("kubectl/v1", "curl/8"));
    lines.push(read(430, "a", "s").replace("kubectl/v1", "kubectl/v2 (x)"));
    let (high, low) = (Severity::High, Severity::Low);
    let found = alerts(&set(&text(", learning_level: low")), &lines, 2);
    assert_eq!(levels(&found), [low, low, high, high]);
    let ids: Vec<&str> = found.iter().map(|alert| alert.event.audit_id.as_str()).collect();
    assert_eq!(ids, ["0", "10", "410", "420"]);
    assert!(found[0].message.ends_with("; the log is too young to know what is usual"), "{found:?}");
    assert!(!found[2].message.contains("too young"), "{found:?}");
    assert_eq!(levels(&alerts(&set(&text("")), &lines, 2)), [high, high]);
}

#[test]
fn mistakes_in_levels_are_errors() {
    let event =
        |more: &str| format!("title: r\n{SOURCE}detection: {{a: {{verb: get}}, condition: a}}\n{more}");
    for (more, expected) in [
        ("level: low\ncommon: {alerts: 1, timespan: 1h, level: low}\n", "low is not below low"),
        ("level: high\ncommon: {alerts: 0, timespan: 1h, level: low}\n", "from 1 to 1000"),
        ("level: high\ncommon: {alerts: 3, level: low}\n", "has no timespan"),
        ("level: high\ncommon: {alerts: 3, timespan: 1h}\n", "has no level"),
        ("level: high\ncommon: {alerts: 3, timespan: 1x, level: low}\n", "is not a number followed by"),
        ("level: high\ncommon: {alerts: 3, timespan: 1h, level: lov}\n", "lov"),
        ("level: high\ncommon: {count: 3}\n", "key count is not one of alerts, timespan, level"),
        ("level: high\ncommon: 3\n", "is not a map"),
    ] {
        let error = error(&event(more));
        assert!(error.contains(expected), "{error}");
    }
    let counting = format!(
        "{}---\ntitle: c\ncorrelation: {{type: event_count, rules: r, timespan: 1h, condition: {{gte: 1}}, learning_level: low}}\n",
        event("name: r\n")
    );
    assert!(error(&counting).contains("only first_seen learns"), "{}", error(&counting));
}

#[test]
fn a_command_is_found_in_the_uri_or_in_the_body() {
    let rules = set(&format!(
        "title: r\n{SOURCE}detection: {{a: {{exec.command: 'sh -c id'}}, b: {{exec.container: web}}, condition: a and b}}\nlevel: high\nmessage: \"{{exec.command}} in {{exec.container}}\"\n"
    ));
    let exec = |uri: &str, subresource: &str, body: &str| {
        read(1, "eve", "p")
            .replace("/s/1", uri)
            .replace("\"secrets\"", &format!(r#""pods","subresource":"{subresource}""#))
            .replace("\"responseStatus\"", &format!(r#""requestObject":{body},"responseStatus""#))
    };
    let options = r#"{"kind":"PodExecOptions","container":"web","command":["sh","-c","id"]}"#;
    let hits = [
        exec("/exec?command=sh&command=-c&command=id&container=web", "exec", "null"),
        exec("/exec", "exec", options),
        exec("/exec?container=web", "exec", options),
        exec("/exec?command=sh&command=-c&command=id&container=web", "exec", r#"{"command":["date"]}"#),
        exec("/exec", "exec", options).replace(r#""requestURI":"/exec","#, ""),
    ];
    for hit in &hits {
        let found = alerts(&rules, std::slice::from_ref(hit), 1);
        assert_eq!(found.len(), 1, "{hit}");
        assert_eq!(found[0].message, "sh -c id in web", "{hit}");
        // The archive's form of the batch gives the same alert.
        let mut matcher = Matcher::new(Arc::clone(&rules));
        let matches = matcher.match_batch(&file_batch_of(&[hit])).expect("a batch");
        let sealed = Detector::new(Arc::clone(&rules), DetectorConfig::default()).observe(matches);
        assert_eq!(sealed, found, "{hit}");
    }
    for miss in [
        exec("/exec?command=date&container=web", "exec", options),
        exec("/log", "log", options),
        exec("/exec", "exec", r#"{"container":"web","command":[]}"#),
        exec("/exec", "exec", "[1]"),
    ] {
        assert_eq!(alerts(&rules, std::slice::from_ref(&miss), 1).len(), 0, "{miss}");
    }
    // The rule names the command only in its message.
    let rules = set(&format!(
        "title: r\n{SOURCE}detection: {{a: {{objectRef.subresource: exec}}, condition: a}}\nmessage: \"ran {{exec.command}}\"\n"
    ));
    assert_eq!(alerts(&rules, &hits[1..2], 1)[0].message, "ran sh -c id");
    assert_eq!(alerts(&rules, &hits[1..2], 1)[0].event.exec_command.as_deref(), Some("sh -c id"));
    assert_eq!(alerts(&rules, &hits[..1], 1)[0].event.exec_command, None);
}
