//! Compares our rules with Falco's own labels.
//!
//! The Falco project has labelled events for its k8s-audit rules. A label names a rule and an
//! event. If it is positive, the rule must fire on the event; if it is negative, it must not.
//!
//! Goal: our rules satisfy these labels wherever we have a rule on the same subject. Method: each
//! Falco rule is mapped to our rules with the same subject. At a positive label at least one of
//! these must fire, and at a negative one none may. A negative label for `*` requires that all our
//! rules are quiet, except those that a positive label of the same event asks for, and
//! [`NO_SUBJECT`]. Subjects that are not covered are listed with the reason. The whole table is
//! printed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::corpus;

/// What a Falco rule maps to.
enum Subject {
    /// Any of these rules of ours has the same subject.
    Covered(&'static [&'static str]),
    NotCovered(&'static str),
}

/// Our rules on subjects for which Falco has no rule. They fire on Falco's samples for good reason:
/// the samples come from a test cluster whose only user is a member of system:masters, and the
/// Secret of kube-system in them is a bootstrap token.
const NO_SUBJECT: &[&str] = &["bootstrap-token-created", "break-glass-identity-used"];

const ALLOW_LIST: &str = "a list of what this one site allows; ours knows no site";
const ACTIVITY: &str = "reports everyday activity, not a finding; it is a question in SQL";

fn subject(falco: &str) -> Subject {
    use Subject::{Covered, NotCovered};
    match falco {
        "Anonymous Request Allowed" => Covered(&["anonymous-access-allowed"]),
        "Attach to cluster-admin Role" => Covered(&["rbac-cluster-admin-binding"]),
        "Attach/Exec Pod" => Covered(&["pod-exec", "pod-attach"]),
        "ClusterRole With Pod Exec Created" => Covered(&["rbac-role-grants-exec"]),
        "ClusterRole With Wildcard Created" => Covered(&["rbac-wildcard-role"]),
        "ClusterRole With Write Privileges Created" => Covered(&["rbac-role-grants-write"]),
        "Create HostNetwork Pod" => Covered(&["host-network", "host-access-pod-by-controller"]),
        "Create NodePort Service" => Covered(&["service-exposed"]),
        "Create Privileged Pod" => Covered(&["privileged-container", "host-access-pod-by-controller"]),
        "Create Sensitive Mount Pod" => Covered(&["host-path-sensitive", "host-access-pod-by-controller"]),
        "Create/Modify Configmap With Private Credentials" => Covered(&["configmap-credentials"]),
        "K8s ClusterRole Created" | "K8s ClusterRole Deleted" => Covered(&["rbac-role-change"]),
        "K8s ClusterRoleBinding Created" | "K8s ClusterRoleBinding Deleted" => {
            Covered(&["rbac-binding-change"])
        }
        "K8s Namespace Deleted" => Covered(&["namespace-deleted"]),
        "K8s Secret Deleted" => Covered(&["secret-deleted"]),
        "Pod Created in Kube Namespace" => Covered(&["system-namespace-pod-started", "pod-in-kube-public"]),
        "Service Account Created in Kube Namespace" => Covered(&["service-account-in-system-namespace"]),
        "System ClusterRole Modified/Deleted" => Covered(&["rbac-system-role-modified"]),
        "Create Disallowed Namespace" | "Create Disallowed Pod" | "Disallowed K8s User" => {
            NotCovered(ALLOW_LIST)
        }
        "K8s ConfigMap Created"
        | "K8s ConfigMap Deleted"
        | "K8s Deployment Created"
        | "K8s Deployment Deleted"
        | "K8s Namespace Created"
        | "K8s Secret Created"
        | "K8s Service Created"
        | "K8s Service Deleted"
        | "K8s Serviceaccount Created"
        | "K8s Serviceaccount Deleted" => NotCovered(ACTIVITY),
        "json_pointer_example" => NotCovered("an example of Falco's syntax"),
        other => panic!("Falco rule {other:?} is not mapped"),
    }
}

struct Label {
    falco: String,
    file: String,
    line: usize,
    expected: bool,
    test: String,
}

impl Label {
    fn parse(line: &[u8]) -> Label {
        let value: Value = serde_json::from_slice(line).expect("labels.jsonl holds JSON lines");
        let text = |key: &str| value[key].as_str().unwrap_or_else(|| panic!("{key} of a label")).to_owned();
        Label {
            falco: text("rule"),
            file: text("event_file"),
            line: value["line"].as_u64().expect("line of a label") as usize,
            expected: value["expected"].as_bool().expect("expected of a label"),
            test: text("test"),
        }
    }

    /// Returns the file and the line of the event that the label is about.
    fn event(&self) -> (&str, usize) {
        (&self.file, self.line)
    }
}

#[test]
fn covered_positives_fire_and_covered_negatives_do_not() {
    let Some(folder) = corpus::folder("falco_labels") else { return };
    let text = corpus::read(&folder.join("falco/labels.jsonl"));
    let labels: Vec<Label> = corpus::lines(&text).into_iter().map(Label::parse).collect();
    assert!(labels.len() >= 80, "only {} labels", labels.len());

    let rules = corpus::builtin();
    let mut alerts: BTreeMap<(String, usize), BTreeSet<String>> = BTreeMap::new();
    let mut rejected = BTreeSet::new();
    for file in labels.iter().map(|label| label.file.clone()).collect::<BTreeSet<_>>() {
        let text = corpus::read(&folder.join(&file));
        for (at, line) in corpus::lines(&text).into_iter().enumerate() {
            let (batches, rejects) = corpus::decode(&[line]);
            if rejects > 0 {
                rejected.insert((file.clone(), at + 1));
            }
            let found = corpus::alerts(&rules, &batches).into_iter().map(|alert| alert.rule_name).collect();
            alerts.insert((file.clone(), at + 1), found);
        }
    }

    let mut faults = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let nothing = BTreeSet::new();
    println!("{:<8} {:<48} {:<58} {:<12} what fired, or why not", "label", "Falco rule", "event", "outcome");
    for label in &labels {
        let event = (label.file.clone(), label.line);
        let fired = alerts.get(&event).unwrap_or(&nothing);
        let contradicted = !label.expected
            && labels
                .iter()
                .any(|other| other.expected && other.falco == label.falco && other.event() == label.event());
        let (outcome, note) = if label.falco == "(parser)" {
            match rejected.contains(&event) {
                true => ("rejected", "as it must be".to_owned()),
                false => ("FAULT", "was decoded".to_owned()),
            }
        } else if label.falco == "*" {
            let allowed: BTreeSet<&str> = labels
                .iter()
                .filter(|other| other.expected && other.event() == label.event())
                .filter_map(|other| match subject(&other.falco) {
                    Subject::Covered(ours) => Some(ours),
                    Subject::NotCovered(_) => None,
                })
                .flatten()
                .copied()
                .collect();
            let surplus: Vec<&str> = fired
                .iter()
                .map(String::as_str)
                .filter(|rule| !allowed.contains(rule) && !NO_SUBJECT.contains(rule))
                .collect();
            match surplus.is_empty() {
                true if allowed.is_empty() => ("quiet", String::new()),
                true => ("quiet", "except for rules that a positive label of the event asks for".to_owned()),
                false => ("FAULT", format!("fired {}", surplus.join(", "))),
            }
        } else {
            match subject(&label.falco) {
                Subject::NotCovered(reason) => ("not covered", reason.to_owned()),
                Subject::Covered(_) if contradicted => {
                    ("not covered", format!("{} allows this event's image; {ALLOW_LIST}", label.test))
                }
                Subject::Covered(ours) => {
                    let found: Vec<&str> =
                        ours.iter().copied().filter(|rule| fired.contains(*rule)).collect();
                    match (label.expected, found.is_empty()) {
                        (true, false) => ("fires", found.join(", ")),
                        (false, true) => ("quiet", String::new()),
                        (true, true) => ("FAULT", format!("none of {} fired", ours.join(", "))),
                        (false, false) => ("FAULT", format!("fired {}", found.join(", "))),
                    }
                }
            }
        };
        let sign = if label.expected { "positive" } else { "negative" };
        let name = label.event().0.trim_start_matches("falco/").trim_end_matches(".ndjson");
        println!(
            "{sign:<8} {:<48} {:<58} {outcome:<12} {note}",
            label.falco,
            format!("{name}:{}", label.line)
        );
        *counts.entry(outcome).or_default() += 1;
        if outcome == "FAULT" {
            faults.push(format!("{sign} {} on {}:{}: {note}", label.falco, label.file, label.line));
        }
    }
    println!("{counts:?}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(counts["fires"] >= 30, "only {} positives are covered", counts["fires"]);
    assert!(counts["quiet"] >= 15, "only {} negatives are covered", counts["quiet"]);
}
