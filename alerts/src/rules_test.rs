//! Our own rules, each against a hit and a near miss.
//!
//! Goal: a rule that ships finds what it says and stays quiet when the one thing it is about is
//! missing. Method: `rules/fixtures/<rule>.hit.ndjson` and `<rule>.near-miss.ndjson` hold events as
//! kube-apiserver writes them; each event of a single-event rule's hit must fire the rule by itself,
//! the events of a correlation's hit must fire it together, and nothing of a near miss may.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom_schemas::{Alert, Severity};
use yaml_serde::{Deserializer, Value};

use crate::testing::batch_of;
use crate::{Detector, DetectorConfig, Matcher, RuleSet};

/// Fewest rules of our own.
const RULES_MIN: usize = 36;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Rule files by stem, with their documents.
fn files() -> BTreeMap<String, Vec<Value>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder()).expect("the folder of rules") {
        let path = entry.expect("an entry of the folder").path();
        if path.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        let stem = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let documents = Deserializer::from_str(&read(&path))
            .map(|document| {
                serde::Deserialize::deserialize(document)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            })
            .collect();
        files.insert(stem, documents);
    }
    files
}

fn events(rule: &str, kind: &str) -> Vec<String> {
    let text = read(&folder().join("fixtures").join(format!("{rule}.{kind}.ndjson")));
    assert!(!text.is_empty(), "{rule}.{kind}.ndjson is empty");
    text.lines().map(str::to_owned).collect()
}

/// Alerts of all built-in rules over `lines`, as one batch.
fn alerts(rules: &Arc<RuleSet>, lines: &[String]) -> Vec<Alert> {
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let matches = Matcher::new(Arc::clone(rules)).match_batch(&batch_of(&lines)).expect("a batch of events");
    Detector::new(Arc::clone(rules), DetectorConfig::default()).observe(matches)
}

fn fired(alerts: &[Alert], rule: &str) -> usize {
    alerts.iter().filter(|alert| alert.rule_name == rule).count()
}

fn builtin() -> Arc<RuleSet> {
    Arc::new(RuleSet::builtin().unwrap_or_else(|error| panic!("built-in rules: {error}")))
}

fn is_correlation(documents: &[Value]) -> bool {
    documents.iter().any(|document| document.get("correlation").is_some())
}

#[test]
fn every_rule_fires_on_its_hit_and_not_on_its_near_miss() {
    let rules = builtin();
    let mut faults = Vec::new();
    for (rule, documents) in files() {
        let (hit, miss) = (events(&rule, "hit"), events(&rule, "near-miss"));
        if is_correlation(&documents) {
            let count = fired(&alerts(&rules, &hit), &rule);
            if count != 1 {
                faults.push(format!("{rule}: the hit fires {count} times, not once"));
            }
        } else {
            for (at, event) in hit.iter().enumerate() {
                let count = fired(&alerts(&rules, std::slice::from_ref(event)), &rule);
                if count != 1 {
                    faults.push(format!("{rule}: event {} of the hit fires {count} times, not once", at + 1));
                }
            }
        }
        let count = fired(&alerts(&rules, &miss), &rule);
        if count != 0 {
            faults.push(format!("{rule}: the near miss fires {count} times"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn fixtures_belong_to_rules() {
    let rules: BTreeSet<String> = files().into_keys().collect();
    let mut stems = BTreeSet::new();
    for entry in fs::read_dir(folder().join("fixtures")).expect("the folder of fixtures") {
        let name = entry.expect("an entry of the folder").file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".hit.ndjson").or_else(|| name.strip_suffix(".near-miss.ndjson"));
        stems.insert(stem.unwrap_or_else(|| panic!("{name} is neither a hit nor a near miss")).to_owned());
    }
    assert_eq!(stems, rules);
}

/// The near miss must be worth its name: as many events, and few members that differ.
#[test]
fn near_misses_are_near() {
    for (rule, documents) in files() {
        let (hit, miss) = (events(&rule, "hit"), events(&rule, "near-miss"));
        if is_correlation(&documents) {
            let short = hit.len() - miss.len().min(hit.len());
            assert!(
                miss.len() <= hit.len() && short <= 1,
                "{rule}: {} against {} events",
                miss.len(),
                hit.len()
            );
            continue;
        }
        for event in &miss {
            let nearest = hit.iter().map(|other| differences(event, other)).min().expect("a hit has events");
            assert!(nearest > 0, "{rule}: an event is both hit and near miss");
            assert!(nearest <= 4, "{rule}: the near miss differs from the hit in {nearest} members");
        }
    }
}

/// Top-level members that differ, those that only repeat what another says left out.
fn differences(left: &str, right: &str) -> usize {
    let parse = |text: &str| -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    let (left, right) = (parse(left), parse(right));
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    keys.into_iter()
        .filter(|key| {
            !matches!(key.as_str(), "auditID" | "requestReceivedTimestamp" | "stageTimestamp" | "annotations")
        })
        .filter(|key| left.get(*key) != right.get(*key))
        .count()
}

#[test]
fn every_rule_says_what_an_analyst_needs() {
    let files = files();
    assert!(files.len() >= RULES_MIN, "{} rule files", files.len());
    let (mut ids, mut titles) = (HashSet::new(), HashSet::new());
    for (rule, documents) in &files {
        for document in documents {
            let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
            let id = text("id");
            assert!(id.len() == 36 && id.split('-').count() == 5, "{rule}: id {id:?} is not a UUID");
            assert!(ids.insert(id.to_owned()), "{rule}: id {id} is taken");
            assert!(titles.insert(text("title").to_owned()), "{rule}: title {:?} is taken", text("title"));
            let alerts = !(is_correlation(documents) && document.get("correlation").is_none());
            if !alerts {
                assert!(!text("name").is_empty(), "{rule}: a rule that feeds a correlation needs a name");
                continue;
            }
            assert!(text("level").parse::<Severity>().is_ok(), "{rule}: level {:?}", text("level"));
            for key in ["title", "description", "message", "next_steps", "status"] {
                assert!(!text(key).is_empty(), "{rule}: {key} is missing");
            }
            assert!(text("message").contains('{'), "{rule}: the message has none of the alert's own values");
            assert!(text("next_steps").contains("SELECT "), "{rule}: next_steps asks no question in SQL");
            let list = |key: &str| -> Vec<&str> {
                let items = document.get(key).and_then(Value::as_sequence);
                items.map(|items| items.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
            };
            assert!(!list("falsepositives").is_empty(), "{rule}: falsepositives is missing");
            let tags = list("tags");
            let technique = |tag: &&str| {
                tag.strip_prefix("attack.t")
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            };
            assert!(tags.iter().any(technique), "{rule}: no ATT&CK technique");
            assert!(tags.iter().any(|tag| !technique(tag)), "{rule}: no ATT&CK tactic");
        }
    }
}

/// What the files say reaches the alert.
#[test]
fn built_in_rules_are_the_files() {
    let rules = builtin();
    let names: BTreeSet<String> =
        rules.rules().iter().filter(|rule| rule.alerts).map(|rule| rule.name.clone()).collect();
    assert_eq!(names, files().into_keys().collect());
    let alerts = alerts(&rules, &events("pod-exec-suspicious-command", "hit"));
    let alert = alerts
        .iter()
        .find(|alert| alert.rule_name == "pod-exec-suspicious-command")
        .expect("the rule fires on its hit");
    assert_eq!(alert.severity, Severity::High);
    assert!(alert.techniques.iter().any(|technique| technique == "T1609"), "{:?}", alert.techniques);
    assert!(alert.message.contains("lena.hofer@clinic.example"), "{}", alert.message);
    assert!(alert.message.contains("169.254.169.254"), "{}", alert.message);
    assert!(!alert.message.contains('{'), "{}", alert.message);
}
