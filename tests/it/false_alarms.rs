//! Benign logs raise nothing urgent, and planted attacks are found.
//!
//! Goal: on a real cluster's 16,563 events of Helm installs, and on generated logs without attacks,
//! no alert is `high` or `critical`. Alerts of lower severity are listed with their counts. The
//! generator can also plant attacks, each of which is called a story. Each story is found by the
//! rules that were made for it.

use std::collections::{BTreeMap, BTreeSet};

use strongroom_schemas::{Alert, Severity};

use crate::corpus;
use crate::run::is_long;

#[expect(clippy::print_stdout, reason = "the list of lesser alerts is what the test is read for")]
fn assert_nothing_urgent(log: &str, events: usize, alerts: &[Alert]) {
    let mut counts: BTreeMap<(Severity, &str), usize> = BTreeMap::new();
    for alert in alerts {
        *counts.entry((alert.severity, &alert.rule_name)).or_default() += 1;
    }
    println!("{log}: {events} events, {} alerts", alerts.len());
    for ((severity, rule), count) in counts.iter().rev() {
        println!("  {severity:<14} {rule:<40} {count}");
    }
    let urgent: Vec<&str> = alerts
        .iter()
        .filter(|alert| alert.severity >= Severity::High)
        .map(|alert| alert.message.as_str())
        .collect();
    assert!(
        urgent.is_empty(),
        "{log}: {} urgent alerts on a benign log:\n{}",
        urgent.len(),
        urgent.join("\n")
    );
}

#[test]
fn helm_installs_raise_nothing_urgent() {
    let Some(folder) = corpus::folder("false_alarms") else { return };
    let text = corpus::read(&folder.join("hkerma/audit-logs_DERIVED.ndjson.gz"));
    let lines = corpus::lines(&text);
    let (batches, rejects) = corpus::decode(&lines);
    assert_eq!((lines.len(), rejects), (16_563, 0));
    assert_nothing_urgent("hkerma", lines.len(), &corpus::alerts(&corpus::builtin(), &batches));
}

#[test]
fn generated_background_raises_nothing_urgent() {
    /// Events of fourteen hours: a night and most of a working day.
    const EVENTS: u64 = 600_000;
    /// Events of ten days.
    const EVENTS_LONG: u64 = 10_000_000;
    let rules = corpus::builtin();
    let runs: &[(u64, u64)] = match is_long() {
        true => &[(99, EVENTS_LONG)],
        false => &[(1, EVENTS), (7, EVENTS), (20_260_302, EVENTS)],
    };
    for (seed, events) in runs {
        let alerts = corpus::alerts_of_background(&rules, *seed, *events);
        assert_nothing_urgent(&format!("generated, seed {seed}"), *events as usize, &alerts);
    }
}

/// Returns the rules that were made for a story of the generator. Each of them must find the story.
fn made_for(story: &str) -> &'static [&'static str] {
    match story {
        "anonymous-probing" => &["anonymous-probing", "authentication-failures"],
        "stolen-token-reads-secrets" => &[
            "secret-reads-distinct",
            "secret-read-by-script",
            "service-account-from-public-address",
            "token-used-by-script",
        ],
        "cluster-wide-secret-list" => &["secrets-listed-cluster-wide", "secret-read-by-script"],
        "exec-then-secrets" => {
            &["pod-exec", "pod-exec-shell", "pod-exec-suspicious-command", "sequence-exec-then-secrets"]
        }
        "port-forward-to-database" => &["pod-port-forward"],
        "ephemeral-container" => &["ephemeral-container", "privileged-container", "pod-attach"],
        "token-minting" => &["token-minted", "token-minted-kube-system", "token-long-lived"],
        "impersonation-of-masters" => &["impersonate-privileged", "impersonate-user"],
        "wildcard-role" => &["rbac-wildcard-role", "rbac-role-change"],
        "cluster-admin-binding" => &["rbac-cluster-admin-binding", "rbac-binding-change"],
        "certificate-approval" => {
            &["csr-approved", "csr-client-certificate", "sequence-own-certificate-approved"]
        }
        "privileged-host-path-pod" => &[
            "privileged-container",
            "host-path-sensitive",
            "host-pid-ipc",
            "host-network",
            "pod-exec-suspicious-command",
            "sequence-privileged-workload-then-exec",
        ],
        "privileged-daemon-set" => &[
            "privileged-container",
            "host-path-sensitive",
            "host-pid-ipc",
            "daemonset-created",
            "kube-system-workload-change",
        ],
        "kubelet-through-proxy" => {
            &["node-proxy", "service-account-from-public-address", "token-used-by-script"]
        }
        "rogue-webhook" => {
            &["admission-webhook-external", "admission-webhook-change", "admission-webhook-sees-secrets"]
        }
        "network-policy-deletion" => &["network-policy-deleted"],
        "mass-deletion" => &["mass-deletion"],
        "events-deletion" => &["events-deleted"],
        other => panic!("no rule is named for story {other:?}"),
    }
}

#[test]
fn planted_attacks_are_found() {
    let rules = corpus::builtin();
    let names: BTreeSet<&str> = rules.rules().iter().map(|rule| rule.name.as_str()).collect();
    for seed in [1, 42] {
        let (text, planted) = corpus::generated(seed, 60_000, true);
        assert!(planted.len() >= 18, "{} stories", planted.len());
        let (batches, rejects) = corpus::decode(&corpus::lines(&text));
        assert_eq!(rejects, 0);
        let alerts = corpus::alerts(&rules, &batches);
        let mut missed = Vec::new();
        for attack in &planted {
            let own: BTreeSet<&str> = attack.audit_ids.iter().map(String::as_str).collect();
            let found: BTreeSet<&str> = alerts
                .iter()
                .filter(|alert| alert.audit_ids.iter().any(|id| own.contains(id.as_str())))
                .map(|alert| alert.rule_name.as_str())
                .collect();
            // The generator's ground truth promises that at least one of these rules finds the
            // story.
            let promised: Vec<&str> = attack.rules.iter().map(String::as_str).collect();
            assert!(promised.iter().all(|rule| names.contains(rule)), "{}: {promised:?}", attack.story);
            if !promised.iter().any(|rule| found.contains(rule)) {
                missed.push(format!("seed {seed}: {} is found by none of {promised:?}", attack.story));
            }
            for rule in made_for(&attack.story) {
                if !found.contains(rule) {
                    missed.push(format!(
                        "seed {seed}: {} is not found by {rule}, only by {found:?}",
                        attack.story
                    ));
                }
            }
        }
        assert!(missed.is_empty(), "{}", missed.join("\n"));

        // Every urgent alert is about at least one planted event.
        let own: BTreeSet<&str> =
            planted.iter().flat_map(|attack| &attack.audit_ids).map(String::as_str).collect();
        let stray: Vec<&str> = alerts
            .iter()
            .filter(|alert| alert.severity >= Severity::High)
            .filter(|alert| !alert.audit_ids.iter().any(|id| own.contains(id.as_str())))
            .map(|alert| alert.message.as_str())
            .collect();
        assert!(stray.is_empty(), "seed {seed}: urgent alerts without an attack:\n{}", stray.join("\n"));
    }
}
