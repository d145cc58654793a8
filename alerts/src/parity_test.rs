//! Tests the built-in rules in every dialect.
//!
//! Goal: a rule finds the same events, whatever cloud or shipper they went through. Method: the
//! hits and the near misses of all rules are rendered in a dialect, decoded as one log, and
//! matched. The matches, with all that an alert keeps of its event, and the alerts must equal those
//! of the plain events. Google's entries lack some members; rules that ask for one of these are
//! listed by [`RuleSet::lacking`], and only they may differ.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use strongroom_decode::decode_bytes;
use strongroom_generate::dialect::{self, Dialect};
use strongroom_schemas::{Alert, AlertEvent, Touched};

use crate::coverage::LogKind;
use crate::matches::{Entry, Meaning};
use crate::{BatchMatches, Detector, DetectorConfig, Matcher, RuleSet};

/// The dialects of Google, which map an event to an entry.
const MAPPED: [Dialect; 2] = [Dialect::Gke, Dialect::GcloudRead];

/// Maximum number of rules that ask for a member which Google's entries lack.
const LACKING_MAX: usize = 45;

type Found = BTreeMap<String, usize>;

struct Runner {
    rules: Arc<RuleSet>,
    matcher: Matcher,
}

impl Runner {
    fn new() -> Runner {
        let rules = Arc::new(RuleSet::builtin().unwrap_or_else(|error| panic!("built-in rules: {error}")));
        Runner { matcher: Matcher::new(Arc::clone(&rules)), rules }
    }

    /// Returns the matches of events in a dialect; an error if an event does not become a row.
    fn matches(&mut self, events: &[String], dialect: Dialect) -> Result<BatchMatches, String> {
        let mut log = Vec::new();
        for event in events {
            dialect::render(event, dialect, &mut log).map_err(|error| error.to_string())?;
        }
        // Google has no entry for a request that has only arrived.
        let is_kept = |event: &&String| !dialect.is_mapped() || !event.contains("\"RequestReceived\"");
        let wanted = events.iter().filter(is_kept).count();
        let decoded = decode_bytes(&log, "test", "test/parity").map_err(|error| error.to_string())?;
        let rows = decoded.events.num_rows();
        if rows != wanted {
            return Err(format!("{rows} of {wanted} events were decoded"));
        }
        self.matcher.match_batch(&decoded.events).map_err(|error| error.to_string())
    }

    fn alerts(&self, matches: BatchMatches) -> Vec<Alert> {
        Detector::new(Arc::clone(&self.rules), DetectorConfig::default()).observe(matches)
    }

    /// Returns the rules that alert about events, each with its number of alerts; an error if an
    /// event does not become a row.
    fn found(&mut self, events: &[String], dialect: Dialect) -> Result<Found, String> {
        let matches = self.matches(events, dialect)?;
        let mut found = Found::new();
        for alert in self.alerts(matches) {
            *found.entry(alert.rule_name).or_default() += 1;
        }
        Ok(found)
    }

    /// Returns a text for each match and each alert. The offsets of events are left out, because
    /// only they may differ between dialects. What an alert touches is left out, too, because it
    /// follows from its events.
    fn findings(&mut self, events: &[String], dialect: Dialect) -> Result<Vec<String>, String> {
        let matches = self.matches(events, dialect)?;
        let rules = Arc::clone(&self.rules);
        let finding = |entry: &Entry| {
            let event = &matches.events[entry.event as usize];
            let meaning = match entry.meaning {
                Meaning::Alert => String::new(),
                Meaning::Count { correlation, group, group_text, value } => {
                    let group_text = matches.texts.get(group_text).unwrap_or_default();
                    format!("{correlation} {group:x} {group_text} {value:x}")
                }
            };
            let kept = AlertEvent { source_offset: 0, ..matches.alert_event(event) };
            let rule = &rules.rules()[entry.rule as usize].name;
            format!("{rule} {meaning} {:x} {:?} {:?} {kept:?}", event.request, event.half, event.latest_us)
        };
        let mut all: Vec<String> = matches.entries.iter().map(finding).collect();
        for mut alert in self.alerts(matches) {
            alert.event.source_offset = 0;
            alert.touched = Touched::default();
            all.push(format!("alert {}: {alert:?}", alert.rule_name));
        }
        Ok(all)
    }
}

fn fixtures() -> BTreeMap<String, [Vec<String>; 2]> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/fixtures");
    let events = |rule: &str, kind: &str| -> Vec<String> {
        let path = folder.join(format!("{rule}.{kind}.ndjson"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.lines().map(str::to_owned).collect()
    };
    let mut fixtures = BTreeMap::new();
    for entry in fs::read_dir(&folder).expect("the folder of fixtures") {
        let name = entry.expect("an entry of the folder").file_name().to_string_lossy().into_owned();
        if let Some(rule) = name.strip_suffix(".hit.ndjson") {
            fixtures.insert(rule.to_owned(), ["hit", "near-miss"].map(|kind| events(rule, kind)));
        }
    }
    fixtures
}

#[test]
fn whole_events_raise_the_same_alerts_in_every_dialect() {
    let mut runner = Runner::new();
    let events: Vec<String> = fixtures().into_values().flatten().flatten().collect();
    let plain = runner.findings(&events, Dialect::Plain).expect("plain events");
    assert!(plain.iter().filter(|finding| finding.starts_with("alert ")).count() > fixtures().len());
    let mut faults = Vec::new();
    for dialect in Dialect::ALL.into_iter().filter(|dialect| !dialect.is_mapped()) {
        let name = dialect.name();
        match runner.findings(&events, dialect) {
            Ok(found) if found.len() == plain.len() => {
                let mut pairs = found.iter().zip(&plain).filter(|(found, plain)| found != plain);
                faults.extend(pairs.next().map(|(found, plain)| format!("{name}: {found}\nnot {plain}")));
            }
            Ok(found) => {
                let lost = plain.iter().find(|plain| !found.contains(plain));
                let more = found.iter().find(|found| !plain.contains(found));
                faults.push(format!("{name}: lost {lost:?}\nmore {more:?}"));
            }
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Each rule alone: its hit raises the same alerts in every dialect that has whole events, and its
/// near miss raises none.
#[test]
fn each_rule_is_silent_on_its_near_miss_in_every_dialect() {
    let mut runner = Runner::new();
    let mut faults = Vec::new();
    let (mut hits, mut misses) = (0, 0);
    for (rule, [hit, miss]) in fixtures() {
        let mut alerts_of = |events: &[String], dialect: Dialect| -> Result<Vec<String>, String> {
            let matches = runner.matches(events, dialect)?;
            let alerts = runner.alerts(matches).into_iter().filter(|alert| alert.rule_name == rule);
            let texts = alerts.map(|alert| {
                let Alert { alert_id, severity, message, audit_ids, event, .. } = alert;
                format!("{alert_id} {severity} {message} {audit_ids:?} {} {}", event.user_name, event.actor)
            });
            Ok(texts.collect())
        };
        let plain = alerts_of(&hit, Dialect::Plain).unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert!(!plain.is_empty(), "{rule}");
        for dialect in Dialect::ALL.into_iter().filter(|dialect| !dialect.is_mapped()) {
            let (of_hit, of_miss) = (alerts_of(&hit, dialect), alerts_of(&miss, dialect));
            hits += usize::from(of_hit.as_ref() == Ok(&plain));
            misses += usize::from(of_miss.as_ref().is_ok_and(Vec::is_empty));
            if of_hit.as_ref() != Ok(&plain) || of_miss.as_ref() != Ok(&Vec::new()) {
                faults.push(format!("{rule}, {}: {of_hit:?}, {of_miss:?}, not {plain:?}", dialect.name()));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
    assert_eq!(hits, misses);
    assert!(misses > 200 * (Dialect::ALL.len() - MAPPED.len()), "{misses}");
}

#[test]
fn entries_of_google_raise_the_same_alerts_but_for_what_they_lack() {
    let mut runner = Runner::new();
    let lacking: BTreeMap<String, Vec<&str>> = (0..runner.rules.rules().len())
        .map(|at| (runner.rules.rules()[at].name.clone(), runner.rules.lacking(at, LogKind::Google)))
        .filter(|(_, lacking)| !lacking.is_empty())
        .collect();
    let fixtures = fixtures();
    let listed: Vec<&String> = lacking.keys().filter(|rule| fixtures.contains_key(*rule)).collect();
    println!("{} rules ask for what an entry of Google lacks:", listed.len());
    for rule in &listed {
        println!("  {rule}: {}", lacking[*rule].join(", "));
    }
    let mut faults = Vec::new();
    for (rule, [hit, miss]) in fixtures {
        let plain = runner.found(&hit, Dialect::Plain).unwrap_or_else(|error| panic!("{rule}: {error}"));
        let mut check = |events: &[String], kind: &str, expected: usize| {
            for dialect in MAPPED {
                let found = runner.found(events, dialect);
                let count = found.as_ref().map(|found| found.get(&rule).copied().unwrap_or_default());
                if count != Ok(expected) {
                    let name = dialect.name();
                    let fault = format!("{rule}, {kind}, {name}: {found:?}, not {expected} times");
                    match lacking.contains_key(&rule) {
                        true => println!("lacking: {fault}"),
                        false => faults.push(fault),
                    }
                }
            }
        };
        check(&hit, "hit", plain.get(&rule).copied().unwrap_or_default());
        check(&miss, "near miss", 0);
    }
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
    assert!(listed.len() <= LACKING_MAX, "{} rules", listed.len());
}

/// Goal: events of one cluster neither silence nor complete an alert about another cluster. Method:
/// each hit happens in two clusters, one after the other, and one detector observes both.
#[test]
fn clusters_are_counted_apart() {
    let mut runner = Runner::new();
    let mut faults = Vec::new();
    for (rule, [hit, _]) in fixtures() {
        let log: String = hit.iter().map(|event| format!("{event}\n")).collect();
        let mut in_cluster = |cluster: &str| {
            let decoded = decode_bytes(log.as_bytes(), cluster, cluster).expect("a log");
            runner.matcher.match_batch(&decoded.events).expect("a batch")
        };
        let matches = [in_cluster("dev"), in_cluster("prod")];
        let mut detector = Detector::new(Arc::clone(&runner.rules), DetectorConfig::default());
        let fired = matches
            .map(|matches| detector.observe(matches).iter().filter(|alert| alert.rule_name == rule).count());
        if fired[0] == 0 || fired[0] != fired[1] {
            faults.push(format!("{rule}: {fired:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Goal: if an event is damaged so that it does not show what the request was for, an alert is
/// raised, whatever the outcome. Method: events whose members have other types, and an event that
/// is cut off at every byte.
#[test]
fn requests_that_are_not_identified_are_reported() {
    let mut runner = Runner::new();
    let rule = "request-not-identified";
    let event = |uri: &str| {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestURI":"{uri}","verb":"list","user":{{"username":"eve"}},"sourceIPs":["203.0.113.42"],"userAgent":"curl/8","objectRef":{{"resource":"secrets","apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":200}},"requestReceivedTimestamp":"2026-03-02T10:00:00.000000Z","stageTimestamp":"2026-03-02T10:00:00.010000Z"}}"#
        )
    };
    let mut reported = |line: &str| {
        let decoded = decode_bytes(format!("{line}\n").as_bytes(), "test", "test").expect("a log");
        let rows = decoded.events.num_rows();
        let matches = runner.matcher.match_batch(&decoded.events).expect("a batch");
        let alerts = runner.alerts(matches);
        (rows, alerts.iter().any(|alert| alert.rule_name == rule))
    };
    let whole = event("/api/v1/secrets");
    assert_eq!(reported(&whole), (1, false));
    for (member, damaged) in [
        (r#""objectRef":{"resource":"secrets","apiVersion":"v1"}"#, r#""objectRef":[1]"#),
        (r#""resource":"secrets""#, r#""resource":5"#),
        (r#""objectRef":{"resource":"secrets","apiVersion":"v1"},"#, ""),
        (r#""responseStatus":{"metadata":{},"code":200}"#, r#""responseStatus":"ok""#),
        (r#""code":200"#, r#""code":"200""#),
    ] {
        let line = whole.replace(member, damaged);
        assert_ne!(line, whole);
        assert_eq!(reported(&line), (1, true), "{line}");
    }
    let padded = event(&format!("/api/v1/secrets?x={}", "A".repeat(100)));
    let answered = padded.find(r#","requestReceivedTimestamp""#).expect("a member");
    let mut cut = 0;
    for end in 1..answered {
        let (rows, is_reported) = reported(&padded[..end]);
        assert!(rows == 0 || is_reported, "{}", &padded[..end]);
        cut += rows;
    }
    assert!(cut > 100, "{cut} events");
}
