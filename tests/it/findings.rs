//! Alerts as a SIEM gets them satisfy OCSF, judged by an independent validator.
//!
//! Method: the built-in rules are given their own fixtures and a generated log with attacks. Each
//! alert that they raise becomes a finding. `tests/tools/ocsf_validate.py` checks all findings
//! against the OCSF 1.8.0 schema in PyPI's ocsf-json-schema.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use strongroom_schemas::{Alert, AlertEvent, ocsf};

use crate::corpus;

/// Returns the alerts that the fixtures of all rules and a generated log raise.
fn alerts() -> Vec<Alert> {
    let rules = corpus::builtin();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/rules/fixtures");
    let mut texts: Vec<Vec<u8>> =
        corpus::event_files(&fixtures).iter().map(|path| corpus::read(path)).collect();
    texts.push(corpus::generated(5, 20_000, true).0);
    let alerts: Vec<Alert> = texts
        .iter()
        .flat_map(|text| corpus::alerts(&rules, &corpus::decode(&corpus::lines(text)).0))
        .collect();
    let heard: BTreeSet<&str> = alerts.iter().map(|alert| alert.rule_name.as_str()).collect();
    let expected = rules.rules().iter().filter(|rule| rule.alerts).count();
    assert_eq!(heard.len(), expected, "every rule has raised an alert");
    alerts
}

/// Returns the exit code and the output of the validator; `None` if it is not installed.
fn judged(findings: &str) -> Option<(Option<i32>, String)> {
    // ./tests/run installs the validator and sets this variable. Without it nothing is validated.
    let python = std::env::var_os("STRONGROOM_PYTHON")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/ocsf_validate.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    child.stdin.take().expect("a pipe").write_all(findings.as_bytes()).expect("the judge reads all of it");
    let output = child.wait_with_output().expect("the judge ends");
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

fn line(alert: &Alert) -> String {
    let finding = serde_json::to_string(&ocsf::detection_finding(alert)).expect("a finding is JSON");
    assert!(!finding.contains('\n'));
    finding + "\n"
}

#[test]
fn findings_satisfy_the_ocsf_schema() {
    let mut alerts = alerts();
    // The smallest possible event, and values that only hostile clients send.
    let mut bare = alerts[0].clone();
    bare.event = AlertEvent::default();
    alerts.push(bare);
    let mut hostile = alerts[0].clone();
    hostile.event.source_ip = Some("not an address".into());
    hostile.event.actor = "\u{0}\u{202e}\"'\n".into();
    hostile.tactics = vec!["of-my-own".into()];
    hostile.event.request_uri = Some(String::new());
    alerts.push(hostile);

    let findings: String = alerts.iter().map(line).collect();
    let Some((code, said)) = judged(&findings) else { return };
    assert_eq!((code, said.as_str()), (Some(0), format!("{}\n", alerts.len()).as_str()), "{said}");
}

/// The validator really checks: it refuses a finding with a fault.
#[test]
fn the_judge_refuses_faults() {
    let alert = alerts().remove(0);
    for (right, wrong) in [
        ("\"type_uid\":200401", "\"type_uid\":200498"),
        ("\"is_alert\"", "\"is_an_alert\""),
        ("\"severity_id\":", "\"severity_id\":7"),
    ] {
        let finding = line(&alert);
        assert!(finding.contains(right), "{finding}");
        let Some((code, said)) = judged(&finding.replace(right, wrong)) else { return };
        assert_eq!(code, Some(1), "{wrong}: {said}");
    }
}
