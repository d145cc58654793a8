//! Tests the built-in rules on labelled events in four dialects.
//!
//! Goal: the rules find what an analyst wants to know about, and everyday work raises nothing
//! urgent, whichever cloud the events come from. Method: `tests/data/labelled/events.ndjson` has
//! cases of attacks and of benign work; its README says where they are from. Each case becomes
//! audit events, which are rendered in the dialect, decoded as `ingest` would do it, and matched
//! alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use strongroom_decode::decode_bytes;
use strongroom_generate::dialect::{self, Dialect};
use strongroom_schemas::{Alert, Severity};

use crate::{Detector, DetectorConfig, Matcher, RuleSet};

const DIALECTS: [Dialect; 4] = [Dialect::Plain, Dialect::Eks, Dialect::Aks, Dialect::Gke];

/// Minimum number of cases in each dialect.
const CASES_MIN: usize = 200;
/// Minimum share of the attacks that must be found.
const FOUND_PERCENT_MIN: usize = 95;
/// Maximum share of the benign cases that may raise an alert of medium severity.
const MEDIUM_PERCENT_MAX: usize = 5;

/// Benign cases on which a rule of medium severity fires: the case, the rule, and the reason why
/// the alert is right.
const ARGUED: &[(&str, &str, &str)] = &[(
    "kubectl-bind-view",
    "rbac-binding-change",
    "a person gives somebody a right in all namespaces; who may read what is reviewed, whatever the role",
)];

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Label {
    Attack,
    Benign,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    source: String,
    label: Label,
    least: Option<String>,
    gke_least: Option<String>,
    why: Option<String>,
    only: Option<Vec<String>>,
    r#as: String,
    #[serde(default)]
    groups: Vec<String>,
    imp: Option<String>,
    #[serde(default)]
    imp_groups: Vec<String>,
    verb: String,
    #[serde(default)]
    res: String,
    #[serde(default)]
    res_each: Vec<String>,
    version: Option<String>,
    ns: Option<String>,
    name: Option<String>,
    uri: Option<String>,
    query: Option<String>,
    tail: Option<String>,
    #[serde(default)]
    cmd: Vec<String>,
    body: Option<Value>,
    level: Option<String>,
    code: Option<u16>,
    ip: Option<String>,
    ua: Option<String>,
    #[serde(default = "once")]
    times: u32,
}

const fn once() -> u32 {
    1
}

impl Case {
    fn is_in(&self, dialect: Dialect) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == dialect.name()))
            && !(dialect == Dialect::Gke && self.gke_least.as_deref() == Some("none"))
    }

    /// Returns the lowest severity that the alert about an attack may have.
    fn least(&self, dialect: Dialect) -> Severity {
        let on_gke = self.gke_least.as_deref().filter(|_| dialect == Dialect::Gke);
        match on_gke.or(self.least.as_deref()).unwrap_or_else(|| panic!("{} has no `least`", self.id)) {
            "low" => Severity::Low,
            "medium" => Severity::Medium,
            "high" => Severity::High,
            other => panic!("{}: {other} is not a severity here", self.id),
        }
    }

    /// Returns the events of the case as lines of the log backend.
    fn events(&self) -> Vec<String> {
        (0..self.times).map(|at| self.event(at).to_string()).collect()
    }

    fn event(&self, at: u32) -> Value {
        let numbered = |text: &Option<String>| text.as_ref().map(|text| text.replace("{n}", &at.to_string()));
        let (namespace, name) = (numbered(&self.ns), numbered(&self.name));
        let each = self.res_each.get(at as usize % self.res_each.len().max(1));
        let reference = each.unwrap_or(&self.res);
        let (resource, subresource) = match reference.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (reference.as_str(), None),
        };
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let version = self.version.as_deref().unwrap_or("v1");
        let is_stream = matches!(subresource, Some("exec" | "attach" | "portforward"));

        let mut uri = match &self.uri {
            Some(_) => numbered(&self.uri).unwrap_or_default(),
            None => {
                let mut parts = match group {
                    "" => vec!["", "api", version],
                    group => vec!["", "apis", group, version],
                };
                if let Some(namespace) = &namespace {
                    parts.extend(["namespaces", namespace]);
                }
                parts.push(resource);
                // An object is created by a request to its collection.
                if self.verb != "create" || subresource.is_some() {
                    parts.extend(name.as_deref());
                }
                parts.extend(subresource);
                parts.extend(self.tail.as_deref());
                parts.join("/")
            }
        };
        let mut query: Vec<String> =
            self.cmd.iter().map(|word| format!("command={}", percent_encoded(word))).collect();
        if !self.cmd.is_empty() {
            query.push("container=main&stdout=true&stderr=true".to_owned());
        }
        query.extend(self.query.clone());
        if self.verb == "watch" && self.query.is_none() {
            query.push("watch=true".to_owned());
        }
        if !query.is_empty() {
            uri = format!("{uri}?{}", query.join("&"));
        }

        let code = self.code.unwrap_or(match self.verb.as_str() {
            _ if is_stream => 101,
            "create" => 201,
            _ => 200,
        });
        let level = match (&self.level, &self.body) {
            (Some(level), _) => level,
            (None, Some(_)) => "RequestResponse",
            (None, None) => "Metadata",
        };
        let stage = if is_stream && code < 400 { "ResponseStarted" } else { "ResponseComplete" };
        let time = format!("2026-03-02T10:{:02}:{:02}.000000Z", at / 60, at % 60);
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": level,
            "auditID": format!("{}-{at}", self.id),
            "stage": stage,
            "requestURI": uri,
            "verb": self.verb,
            "user": self.user(),
            "sourceIPs": [self.ip.as_deref().unwrap_or(self.usual_address())],
            "userAgent": self.ua.clone().unwrap_or_else(|| self.usual_agent()),
            "responseStatus": {"metadata": {}, "code": code},
            "requestReceivedTimestamp": time,
            "stageTimestamp": time,
        });
        if let Some(name) = &self.imp {
            event["impersonatedUser"] = json!({"username": name, "groups": self.imp_groups});
        }
        if self.uri.is_none() {
            let namespace = match (resource, self.verb.as_str()) {
                ("namespaces", "create" | "list" | "watch") => None,
                ("namespaces", _) => name.clone(),
                _ => namespace,
            };
            let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let members = [
                ("resource", text(resource)),
                ("namespace", namespace),
                ("name", name),
                ("apiGroup", text(group)),
                ("apiVersion", text(version)),
                ("subresource", subresource.and_then(text)),
            ];
            let members =
                members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
            event["objectRef"] = Value::Object(members.collect::<Map<_, _>>());
        }
        if let Some(body) = &self.body {
            event["requestObject"] = body.clone();
            // If the body has a kind, the API server answers with the object.
            if code < 300 && level == "RequestResponse" && body.get("kind").is_some() {
                event["responseObject"] = body.clone();
            }
        }
        let failure = |reason: &str| json!({"metadata": {}, "status": "Failure", "message": "refused", "reason": reason, "code": code});
        match code {
            401 => event["responseStatus"] = failure("Unauthorized"),
            403 => event["responseStatus"] = failure("Forbidden"),
            404 => event["responseStatus"] = failure("NotFound"),
            409 => event["responseStatus"] = failure("AlreadyExists"),
            422 => event["responseStatus"] = failure("Invalid"),
            429 => event["responseStatus"] = failure("TooManyRequests"),
            _ => {}
        }
        if code != 401 {
            let decision = if code == 403 { "forbid" } else { "allow" };
            event["annotations"] =
                json!({"authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": ""});
        }
        event
    }

    fn user(&self) -> Value {
        let name = self.r#as.as_str();
        let mut groups = self.groups.clone();
        if name.is_empty() {
            return json!({});
        }
        if let Some((namespace, account)) =
            name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
        {
            groups.extend([
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]);
            let extra = json!({"authentication.kubernetes.io/pod-name": [format!("{account}-0")]});
            return json!({"username": name, "uid": "u-1", "groups": groups, "extra": extra});
        }
        if name.starts_with("system:node:") {
            groups.push("system:nodes".to_owned());
        }
        groups.push(match name {
            "system:anonymous" => "system:unauthenticated".to_owned(),
            _ => "system:authenticated".to_owned(),
        });
        json!({"username": name, "groups": groups})
    }

    fn usual_address(&self) -> &'static str {
        match self.r#as.as_str() {
            name if name.starts_with("system:serviceaccount:") => "10.0.3.17",
            name if name.starts_with("system:node:") => "10.0.1.5",
            _ => "203.0.113.42",
        }
    }

    fn usual_agent(&self) -> String {
        let name = self.r#as.as_str();
        if name.starts_with("system:node:") {
            return "kubelet/v1.31.0 (linux/amd64) kubernetes/9edcffc".to_owned();
        }
        if name == "system:kube-controller-manager"
            || (name.contains(":kube-system:") && name.ends_with("-controller"))
        {
            return format!("kube-controller-manager/v1.31.0 (linux/amd64) kubernetes/9edcffc/{name}");
        }
        match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
            Some((_, account)) => format!("{account}/v1.0.0 (linux/amd64) kubernetes/$Format"),
            None => "kubectl/v1.31.0 (linux/amd64) kubernetes/9edcffc".to_owned(),
        }
    }
}

/// Encodes a value of a query as kubectl does.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/labelled/events.ndjson");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Returns the alerts of `cases` together, in order.
fn alerts(matcher: &mut Matcher, rules: &Arc<RuleSet>, cases: &[&Case], dialect: Dialect) -> Vec<Alert> {
    let mut log = Vec::new();
    let events: Vec<String> = cases.iter().flat_map(|case| case.events()).collect();
    for event in &events {
        dialect::render(event, dialect, &mut log).expect("an event");
    }
    let decoded = decode_bytes(&log, "test", "test/labelled").expect("columns fit their schema");
    assert_eq!(
        (decoded.events.num_rows(), decoded.rejects.num_rows()),
        (events.len(), 0),
        "{} in {}",
        cases[0].id,
        dialect.name()
    );
    let matches = matcher.match_batch(&decoded.events).expect("a batch of events");
    Detector::new(Arc::clone(rules), DetectorConfig::default()).observe(matches)
}

#[derive(Default)]
struct Tally {
    attacks: usize,
    found: usize,
    benign: usize,
    high: Vec<String>,
    medium: Vec<String>,
    missed: Vec<String>,
}

fn tally(matcher: &mut Matcher, rules: &Arc<RuleSet>, cases: &[Case], dialect: Dialect) -> Tally {
    let mut tally = Tally::default();
    for case in cases.iter().filter(|case| case.is_in(dialect)) {
        let alerts = alerts(matcher, rules, &[case], dialect);
        let mut fired: Vec<(Severity, &str)> =
            alerts.iter().map(|alert| (alert.severity, alert.rule_name.as_str())).collect();
        fired.sort();
        fired.dedup();
        let names: Vec<String> =
            fired.iter().map(|(severity, rule)| format!("{rule} ({severity})")).collect();
        match case.label {
            Label::Attack => {
                tally.attacks += 1;
                let least = case.least(dialect);
                if fired.iter().any(|(severity, _)| *severity >= least) {
                    tally.found += 1;
                } else {
                    let line =
                        format!("{}: wanted {least}, found [{}]; {}", case.id, names.join(", "), case.source);
                    tally.missed.push(line);
                }
            }
            Label::Benign => {
                tally.benign += 1;
                let line = || {
                    format!("{}: {}; {}", case.id, names.join(", "), case.why.as_deref().unwrap_or_default())
                };
                if fired.iter().any(|(severity, _)| *severity >= Severity::High) {
                    tally.high.push(line());
                } else if fired.iter().any(|(severity, _)| *severity >= Severity::Medium) {
                    tally.medium.push(line());
                }
            }
        }
    }
    tally
}

#[test]
fn attacks_are_found_and_benign_work_raises_nothing_urgent_in_four_dialects() {
    let rules = Arc::new(RuleSet::builtin().unwrap_or_else(|error| panic!("built-in rules: {error}")));
    let mut matcher = Matcher::new(Arc::clone(&rules));
    let cases = cases();
    let mut faults = Vec::new();
    println!(
        "{:<8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "dialect", "attacks", "found", "missed", "benign", "high", "medium"
    );
    for dialect in DIALECTS {
        let name = dialect.name();
        let tally = tally(&mut matcher, &rules, &cases, dialect);
        println!(
            "{name:<8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
            tally.attacks,
            tally.found,
            tally.missed.len(),
            tally.benign,
            tally.high.len(),
            tally.medium.len()
        );
        for (what, lines) in [("missed", &tally.missed), ("high", &tally.high), ("medium", &tally.medium)] {
            for line in lines {
                println!("  {name} {what}: {line}");
            }
        }
        if tally.attacks + tally.benign < CASES_MIN {
            faults.push(format!("{name}: only {} cases", tally.attacks + tally.benign));
        }
        if tally.found * 100 < tally.attacks * FOUND_PERCENT_MIN {
            faults.push(format!("{name}: {} of {} attacks are found", tally.found, tally.attacks));
        }
        if !tally.high.is_empty() {
            faults.push(format!("{name}: urgent alerts on benign work:\n{}", tally.high.join("\n")));
        }
        if tally.medium.len() * 100 > tally.benign * MEDIUM_PERCENT_MAX {
            faults.push(format!(
                "{name}: {} of {} benign cases are medium",
                tally.medium.len(),
                tally.benign
            ));
        }
        for line in &tally.medium {
            let is_argued = ARGUED
                .iter()
                .any(|(case, rule, _)| line.starts_with(&format!("{case}: ")) && line.contains(rule));
            if !is_argued {
                faults.push(format!("{name}: a medium alert that nobody argued for: {line}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// All benign cases together must not raise an urgent alert, either.
#[test]
fn benign_work_together_raises_nothing_urgent() {
    let rules = Arc::new(RuleSet::builtin().unwrap_or_else(|error| panic!("built-in rules: {error}")));
    let mut matcher = Matcher::new(Arc::clone(&rules));
    let cases = cases();
    for dialect in DIALECTS {
        let benign: Vec<&Case> =
            cases.iter().filter(|case| matches!(case.label, Label::Benign) && case.is_in(dialect)).collect();
        let urgent: Vec<String> = alerts(&mut matcher, &rules, &benign, dialect)
            .into_iter()
            .filter(|alert| alert.severity >= Severity::High)
            .map(|alert| alert.message)
            .collect();
        assert!(urgent.is_empty(), "{}: {}", dialect.name(), urgent.join("\n"));
    }
}

#[test]
fn cases_are_well_formed() {
    let mut labels: BTreeMap<bool, usize> = BTreeMap::new();
    let cases = cases();
    let mut ids: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), cases.len(), "two cases have one id");
    for case in &cases {
        let is_attack = matches!(case.label, Label::Attack);
        *labels.entry(is_attack).or_default() += 1;
        assert_eq!(case.least.is_some(), is_attack, "{}", case.id);
        assert_eq!(case.why.is_none(), is_attack, "{}", case.id);
        assert!(
            !case.source.is_empty()
                && (case.uri.is_some() || !case.res.is_empty() || !case.res_each.is_empty())
        );
        let known = |name: &String| DIALECTS.iter().any(|dialect| dialect.name() == name);
        assert!(case.only.iter().flatten().all(known), "{}", case.id);
    }
    assert!(labels[&true] >= 100 && labels[&false] >= 80, "{labels:?}");
    for (id, _, reason) in ARGUED {
        assert!(
            ids.binary_search(id).is_ok() && !reason.is_empty(),
            "{id} is in the list of arguments, and is not a case"
        );
    }
}
