//! Reads of Secrets in kube-system: what programs read every day is not told, what they do not read
//! is.
//!
//! Goal: on a million events of a busy cluster, at most 50 alerts about such reads are of medium
//! severity or higher, and each of 20 reads that no program makes is in an alert. Method: the reads
//! of kube-system among a million events are generated: 16,000 within a quarter of an hour, by 448
//! service accounts and 60 people, with skewed popularity of accounts, people and Secrets. The 20
//! reads are planted among them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use strongroom_schemas::{Alert, Severity};

use crate::testing::batch_of;
use crate::{Detector, DetectorConfig, Matcher, RuleSet};

/// Number of reads in kube-system among a million events, and the time that they take.
const READS: u64 = 16_000;
const SPAN_US: u64 = 900_000_000;
/// Maximum number of alerts of medium severity or higher about them.
const URGENT_MAX: usize = 50;
const BATCH: usize = 2000;

/// A generator of numbers in \[0, 1), the same in every run (xorshift64*).
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

fn read(id: &str, at_us: u64, user: &str, agent: &str, secret: &str) -> String {
    let time = chrono::DateTime::from_timestamp_micros(1_772_442_000_000_000 + at_us as i64).expect("a time");
    let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    format!(
        r#"{{"auditID":"{id}","level":"Metadata","stage":"ResponseComplete","verb":"get","requestURI":"/api/v1/namespaces/kube-system/secrets/{secret}","user":{{"username":"{user}","groups":["system:authenticated"]}},"sourceIPs":["10.0.0.7"],"userAgent":"{agent}","objectRef":{{"resource":"secrets","namespace":"kube-system","name":"{secret}","apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":200}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}","annotations":{{"authorization.k8s.io/decision":"allow"}}}}"#
    )
}

/// Returns the reads of a seed in order of time; the ids of planted ones start with `planted`.
fn reads(seed: u64) -> Vec<String> {
    const KUBECTL: &str = "kubectl/v1.31.2 (linux/amd64) kubernetes/5864a46";
    let mut random = Random(seed);
    let mut reads: Vec<(u64, String)> = (0..READS)
        .map(|at| {
            let at_us = at * (SPAN_US / READS);
            let id = format!("usual-{at}");
            let is_person = random.next() < 0.1;
            let text = if is_person {
                let user = format!("person-{:02}@clinic.example", random.skewed(60, 1.0));
                read(&id, at_us, &user, KUBECTL, &format!("api-{:04}", (random.next() * 6000.0) as u64))
            } else {
                let (user, agent) = program(random.skewed(448, 0.7));
                read(&id, at_us, &user, &agent, &format!("app-{}", random.skewed(180, 0.9)))
            };
            (at_us, text)
        })
        .collect();
    for at in 0..20_u64 {
        let at_us = SPAN_US / 3 + at * 20_000_000 + 7;
        let id = format!("planted-{at}");
        let text = match at % 5 {
            // A person who is new, and one who reads there every day.
            0 => read(&id, at_us, &format!("eve-{at}@clinic.example"), KUBECTL, "app-1"),
            1 => read(&id, at_us, "person-00@clinic.example", KUBECTL, "app-2"),
            // A program that never read there, and one that does, with a person's tool.
            2 => read(
                &id,
                at_us,
                &format!("system:serviceaccount:shop-{at}:web"),
                "web/v1.0.0 (linux/amd64) kubernetes/$Format",
                "app-3",
            ),
            3 => read(&id, at_us, &program(0).0, "curl/8.5.0", "app-4"),
            // A program that reads there, and reads what no program reads.
            _ => read(&id, at_us, &program(1).0, &program(1).1, &format!("bootstrap-token-{at:06}")),
        };
        reads.push((at_us, text));
    }
    reads.sort();
    reads.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn usual_reads_are_not_told_and_others_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let file = |name: &str| fs::read_to_string(folder.join(format!("kube-system-secret-{name}.yml")));
    let texts = ["read", "reader-new", "never-read"].map(|name| (name, file(name).expect("the rule's file")));
    let documents =
        texts.iter().map(|(name, text)| (format!("kube-system-secret-{name}.yml"), text.as_str()));
    let rules = Arc::new(RuleSet::from_documents(documents).unwrap_or_else(|error| panic!("{error}")));
    for seed in [1, 20_260_302] {
        let mut matcher = Matcher::new(Arc::clone(&rules));
        let mut detector = Detector::new(Arc::clone(&rules), DetectorConfig::default());
        let reads = reads(seed);
        let mut alerts: Vec<Alert> = Vec::new();
        for lines in reads.chunks(BATCH) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            alerts.extend(detector.observe(matcher.match_batch(&batch_of(&lines)).expect("a batch")));
        }
        let urgent = alerts
            .iter()
            .filter(|alert| alert.severity >= Severity::Medium)
            .filter(|alert| !alert.event.audit_id.starts_with("planted"));
        let urgent = urgent.count();
        assert!(urgent <= URGENT_MAX, "seed {seed}: {urgent} alerts of medium severity or higher");
        let told: BTreeSet<&str> =
            alerts.iter().flat_map(|alert| &alert.audit_ids).map(String::as_str).collect();
        let missed: Vec<String> =
            (0..20).map(|at| format!("planted-{at}")).filter(|id| !told.contains(id.as_str())).collect();
        assert!(missed.is_empty(), "seed {seed}: not told: {missed:?}");
    }
}
