//! Tests the rules about reads of Secrets in kube-system: what programs read every day raises
//! nothing urgent, and what no program reads is reported.
//!
//! Goal: on a million events of a busy cluster, at most 50 alerts about such reads are of medium
//! severity or higher, and each of 20 reads that no program makes is in an alert, in the dialects
//! of the API server, EKS and GKE. Method: of the million events, only the reads in kube-system are
//! generated. There are 16,000 within a quarter of an hour, by 448 service accounts and 60 people;
//! a few accounts, people and Secrets are much more frequent than the others. The 20 reads are
//! planted among them, from the first second to the last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use strongroom_decode::decode_bytes;
use strongroom_generate::dialect::{self, Dialect};
use strongroom_schemas::{Alert, Severity};

use crate::{Detector, DetectorConfig, Matcher, RuleSet};

/// Number of reads in kube-system among a million events.
const READS: u64 = 16_000;
/// Time in which these reads happen.
const SPAN_US: u64 = 900_000_000;
/// The time after which the rules know what is usual.
const LEARNING_US: u64 = 600_000_000;
/// Maximum number of alerts about these reads that may be of medium severity or higher.
const URGENT_MAX: usize = 50;
const BATCH: usize = 2000;
const PLANTED: u64 = 20;

/// Generates numbers from 0 up to but not including 1, the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a place below `count`; the first places are the most frequent.
    fn skewed(&mut self, count: usize, exponent: f64) -> usize {
        let weights: Vec<f64> = (1..=count).map(|at| (at as f64).powf(-exponent)).collect();
        let mut left = self.next() * weights.iter().sum::<f64>();
        weights
            .iter()
            .position(|weight| {
                left -= weight;
                left < 0.0
            })
            .unwrap_or(0)
    }
}

fn program(at: usize) -> (String, String) {
    let name =
        ["argocd", "prometheus", "istiod", "cert-manager", "autoscaler", "dns", "fluent", "default"][at % 8];
    let user = format!("system:serviceaccount:team-{:02}:{name}", at / 8);
    (user, format!("{name}/v1.{}.0 (linux/amd64) kubernetes/$Format", at % 30))
}

/// A read of a Secret in kube-system; a list or a watch of all Secrets if `secret` is empty.
#[derive(Clone)]
struct Read {
    user: String,
    agent: String,
    verb: &'static str,
    secret: String,
    acts_as: &'static str,
}

impl Read {
    fn get(user: &str, agent: &str, secret: &str) -> Read {
        let [user, agent, secret] = [user, agent, secret].map(str::to_owned);
        Read { user, agent, verb: "get", secret, acts_as: "" }
    }

    fn all(user: &str, agent: &str, verb: &'static str) -> Read {
        Read { verb, ..Read::get(user, agent, "") }
    }

    fn text(&self, id: &str, at_us: u64) -> String {
        let Read { user, agent, verb, secret, acts_as } = self;
        let time = chrono::DateTime::from_timestamp_micros(1_772_442_000_000_000 + at_us as i64);
        let time = time.expect("a time").to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let (path, name) = match (secret.as_str(), *verb) {
            ("", "watch") => ("?watch=true".to_owned(), String::new()),
            ("", _) => ("?limit=500".to_owned(), String::new()),
            (secret, _) => (format!("/{secret}"), format!(r#","name":"{secret}""#)),
        };
        let acts_as = match *acts_as {
            "" => String::new(),
            name => format!(r#","impersonatedUser":{{"username":"{name}"}}"#),
        };
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{id}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/kube-system/secrets{path}","verb":"{verb}","user":{{"username":"{user}","groups":["system:authenticated"]}}{acts_as},"sourceIPs":["10.0.0.7"],"userAgent":"{agent}","objectRef":{{"resource":"secrets","namespace":"kube-system"{name},"apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":200}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}","annotations":{{"authorization.k8s.io/decision":"allow"}}}}"#
        )
    }
}

const KUBECTL: &str = "kubectl/v1.31.2 (linux/amd64) kubernetes/5864a46";

/// Returns a read that no program makes. The second value is false if its user reads in kube-system
/// every day, and true if the read is new to everybody.
fn planted(at: u64) -> (Read, bool) {
    let person = "person-00@clinic.example";
    let known = |number: usize| program(number);
    let (first, own) = known(0);
    match at {
        // People who are new to kube-system get one Secret, or list or watch all Secrets.
        0 | 10 => (Read::get(&format!("eve-{at}@clinic.example"), KUBECTL, "app-1"), true),
        1 | 11 => (Read::all(&format!("eve-{at}@clinic.example"), KUBECTL, "list"), true),
        2 | 12 => (Read::all(&format!("eve-{at}@clinic.example"), KUBECTL, "watch"), true),
        // A service account with its own client, from a namespace whose accounts never read there.
        3 | 13 => (Read::get(&format!("system:serviceaccount:shop-{at}:web"), "web/v1.0.0", "app-3"), true),
        // A person who reads there every day.
        4 => (Read::get(person, KUBECTL, "app-2"), false),
        14 => (Read::all(person, KUBECTL, "list"), false),
        // People and programs that impersonate another user.
        5 => (Read { acts_as: "system:kube-scheduler", ..Read::get(person, KUBECTL, "app-2") }, true),
        15 => (Read { acts_as: "root", ..Read::get(&first, &own, "app-1") }, true),
        // Programs that read there every day, but now with another client, or all Secrets at once.
        6 | 16 => (Read::get(&first, if at == 6 { "curl/8.5.0" } else { "zx/0.1" }, "app-1"), true),
        7 => (Read::all(&first, &own, "list"), true),
        17 => (Read::all(&first, &own, "watch"), true),
        // A program that reads there every day, but now reads a Secret that no program reads.
        8 => (Read::get(&known(1).0, &known(1).1, "bootstrap-token-aaaaaa"), true),
        // Components of the system that use a tool for people, or a client of their own that is
        // new.
        9 => (Read::get("system:kube-controller-manager", KUBECTL, "app-4"), true),
        18 => (Read::get("system:serviceaccount:kube-system:coredns", "coredns/v1.11", "app-4"), true),
        _ => (Read::get("system:node:worker-3", "curl/8.5.0", "app-5"), true),
    }
}

/// Returns the events of the reads for a seed, in order of time. The ids of the planted reads start
/// with `planted`.
fn reads(seed: u64) -> Vec<String> {
    let mut random = Random(seed);
    let mut reads: Vec<(u64, String)> = (0..READS)
        .map(|at| {
            let at_us = at * (SPAN_US / READS);
            let id = format!("usual-{at}");
            let is_person = random.next() < 0.1;
            let read = if is_person {
                let user = format!("person-{:02}@clinic.example", random.skewed(60, 1.0));
                Read::get(&user, KUBECTL, &format!("api-{:04}", (random.next() * 6000.0) as u64))
            } else {
                let (user, agent) = program(random.skewed(448, 0.7));
                Read::get(&user, &agent, &format!("app-{}", random.skewed(180, 0.9)))
            };
            (at_us, read.text(&id, at_us))
        })
        .collect();
    for at in 0..PLANTED {
        reads.push((planted_us(at), planted(at).0.text(&format!("planted-{at}"), planted_us(at))));
    }
    reads.sort();
    reads.into_iter().map(|(_, text)| text).collect()
}

fn planted_us(at: u64) -> u64 {
    at * (SPAN_US / PLANTED) + 7_000_007
}

fn alerts(rules: &Arc<RuleSet>, reads: &[String], dialect: Dialect) -> Vec<Alert> {
    let mut matcher = Matcher::new(Arc::clone(rules));
    let mut detector = Detector::new(Arc::clone(rules), DetectorConfig::default());
    let mut alerts = Vec::new();
    for lines in reads.chunks(BATCH) {
        let mut log = Vec::new();
        for line in lines {
            dialect::render(line, dialect, &mut log).expect("an event");
        }
        let decoded = decode_bytes(&log, "test", "test/reads").expect("a log");
        assert_eq!(decoded.events.num_rows(), lines.len());
        alerts.extend(detector.observe(matcher.match_batch(&decoded.events).expect("a batch")));
    }
    alerts
}

#[test]
fn usual_reads_raise_nothing_urgent_and_each_unusual_one_is_reported() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let files = ["secret-read", "secret-reader-new", "secret-never-read", "secrets-listed"];
    let file = |name: &str| fs::read_to_string(folder.join(format!("kube-system-{name}.yml")));
    let texts = files.map(|name| (name, file(name).expect("the rule's file")));
    let documents = texts.iter().map(|(name, text)| (format!("kube-system-{name}.yml"), text.as_str()));
    let rules = Arc::new(RuleSet::from_documents(documents).unwrap_or_else(|error| panic!("{error}")));
    for (seed, dialect) in [(1, Dialect::Plain), (20_260_302, Dialect::Eks), (7, Dialect::Gke)] {
        let case = format!("seed {seed}, {}", dialect.name());
        let alerts = alerts(&rules, &reads(seed), dialect);
        let urgent = alerts
            .iter()
            .filter(|alert| alert.severity >= Severity::Medium)
            .filter(|alert| !alert.event.audit_id.starts_with("planted"));
        let urgent = urgent.count();
        assert!(urgent <= URGENT_MAX, "{case}: {urgent} alerts of medium severity or higher");
        assert!(alerts.iter().all(|alert| alert.severity <= Severity::Medium), "{case}");
        let mut levels: BTreeMap<&str, Severity> = BTreeMap::new();
        for alert in &alerts {
            for id in &alert.audit_ids {
                let level = levels.entry(id).or_insert(alert.severity);
                *level = (*level).max(alert.severity);
            }
        }
        // Google's entries do not say in whose name a request is made.
        let is_seen = |at: &u64| !dialect.is_mapped() || *at != 15;
        let missed: BTreeSet<u64> = (0..PLANTED)
            .filter(is_seen)
            .filter(|at| {
                let is_clear = planted(*at).1 && planted_us(*at) > LEARNING_US;
                let least = if is_clear { Severity::Medium } else { Severity::Low };
                levels.get(format!("planted-{at}").as_str()).is_none_or(|level| *level < least)
            })
            .collect();
        assert!(missed.is_empty(), "{case}: not reported, or with too low a level: {missed:?}");
    }
}
