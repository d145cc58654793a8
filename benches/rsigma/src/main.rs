//! How fast is our matcher compared with rsigma-eval 0.21 on the same events and rules, do the two
//! agree, and what do a thousand rules cost compared with a hundred?
//!
//! Events: 40,000 generated ones with attacks (seed 7), without `RequestReceived`, which our rules
//! leave out by default. Rules: our own over single events, as far as rsigma can express them; the
//! others are counted by reason. Each engine gets its events in its own form, prepared beforehand:
//! ours a batch of columns, rsigma a parsed `serde_json::Value` with our virtual fields added. One
//! thread, best of several rounds. Derived rules are ours with one more line that no event has.
//!
//! Correlations are compared as well, where both engines give them the same meaning: counts, counts
//! of values, sequences. What is compared is which rule reports which group, not how often: rsigma
//! reports again for each further event, ours once per burst. Both get each request once (ours
//! counts a request once, rsigma each of its stages), in order of time. Both engines also get each
//! rule's own fixtures: both must find the hits, and neither may find the near misses.
//!
//! Run with `cargo run --release --manifest-path benches/rsigma/Cargo.toml` from the root.

#[path = "../../../alerts/src/testing.rs"]
#[allow(dead_code, reason = "its other forms of a batch are for the tests of the matcher")]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rsigma_eval::{CorrelationConfig, CorrelationEngine, Engine, JsonEvent, ResultBody, TimestampFallback};
use serde_json::Value as Json;
use strongroom_alerts::{Detector, DetectorConfig, Matcher, RuleSet};
use strongroom_generate::{Generator, GeneratorOptions};
use yaml_serde::Value;

const EVENTS: u64 = 40_000;
const ROUNDS: usize = 5;

fn events() -> Vec<String> {
    let options = GeneratorOptions { seed: 7, events: EVENTS, attacks: true, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options within bounds");
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if !generator.next_line(&mut line) {
            return lines;
        }
        let line = String::from_utf8(line).expect("the generator writes UTF-8").trim_end().to_owned();
        if !line.contains("\"stage\":\"RequestReceived\"") {
            lines.push(line);
        }
    }
}

/// Returns the event as rsigma gets it, with our virtual fields.
fn for_them(line: &str) -> Json {
    let mut event: Json = serde_json::from_str(line).expect("the generator writes JSON");
    let text = |path: &str| event.pointer(path).and_then(Json::as_str).map(str::to_owned);
    let actor = text("/impersonatedUser/username").or_else(|| text("/user/username"));
    let address = event["sourceIPs"].as_array().and_then(|ips| ips.last()).cloned();
    let decision = event["annotations"].get("authorization.k8s.io/decision").cloned();
    let reason = event["annotations"].get("authorization.k8s.io/reason").cloned();
    let object = event.as_object_mut().expect("an event is an object");
    object.extend(actor.map(|actor| ("actor".to_owned(), Json::String(actor))));
    object.extend(address.map(|address| ("source_ip".to_owned(), address)));
    let mut authz = serde_json::Map::new();
    authz.extend(decision.map(|decision| ("decision".to_owned(), decision)));
    authz.extend(reason.map(|reason| ("reason".to_owned(), reason)));
    object.insert("authz".to_owned(), Json::Object(authz));
    event
}

/// Returns the reason why a rule is left out, or `None` if it is compared.
fn left_out(text: &str) -> Option<&'static str> {
    let has = |part: &str| text.contains(part);
    [
        ("pod.", "the pod spec in every workload, a virtual field of ours"),
        ("exec.", "a decoded query parameter, a virtual field of ours"),
        ("annotations.", "a key with dots in it"),
        (".extra.", "a key with dots in it"),
        ("[any]", "an array scope"),
        ("[all]", "an array scope"),
        ("[none]", "an array scope"),
    ]
    .into_iter()
    .find(|(part, _)| has(part))
    .map(|(_, reason)| reason)
}

/// Returns our rules over single events that both engines can run, as YAML, by name.
fn rules() -> (BTreeMap<String, String>, BTreeMap<&'static str, usize>) {
    let ours = RuleSet::builtin().expect("built-in rules load");
    let (mut rules, mut left) = (BTreeMap::new(), BTreeMap::new());
    for rule in ours.rules().iter().filter(|rule| rule.kind == strongroom_alerts::RuleKind::Event) {
        let document: Value = yaml_serde::from_str(&rule.text).expect("it was read before");
        let detection =
            yaml_serde::to_string(document.get("detection").expect("a rule has a detection")).expect("YAML");
        if let Some(reason) = left_out(&detection) {
            *left.entry(reason).or_insert(0) += 1;
            continue;
        }
        rules.insert(rule.name.clone(), bare(&rule.name, &document, None));
    }
    (rules, left)
}

/// Returns a document with only the title, name, logsource and detection of a rule; `tenant`
/// derives another rule from it.
fn bare(name: &str, document: &Value, tenant: Option<usize>) -> String {
    let mut detection =
        document.get("detection").and_then(Value::as_mapping).expect("a rule has a detection").clone();
    let mut name = name.to_owned();
    if let Some(tenant) = tenant {
        name = format!("{name}-{tenant}");
        let line: Value =
            yaml_serde::from_str(&format!("objectRef.namespace: tenant-{tenant}")).expect("YAML");
        detection.insert(Value::String("of_tenant".into()), line);
        let condition = match detection.get("condition") {
            Some(Value::String(text)) => text.replace(" of them", " of sel*"),
            _ => "selection".to_owned(),
        };
        let condition = Value::String(format!("({condition}) and of_tenant"));
        detection.insert(Value::String("condition".into()), condition);
    }
    let detection = yaml_serde::to_string(&detection).expect("YAML").replace('\n', "\n  ");
    format!(
        "title: {name}\nname: {name}\nid: {name}\nlogsource: {{product: kubernetes, service: audit}}\ndetection:\n  {}\n",
        detection.trim_end()
    )
}

fn best(mut work: impl FnMut() -> usize) -> (Duration, usize) {
    let mut best = (Duration::MAX, 0);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let found = work();
        best = best.min((begun.elapsed(), found));
    }
    best
}

fn ours(documents: &[String]) -> Arc<RuleSet> {
    let text = documents.join("---\n");
    Arc::new(RuleSet::from_yaml("bench.yml", &text).unwrap_or_else(|error| panic!("{error}")))
}

fn theirs(documents: &[String]) -> Engine {
    let collection =
        rsigma_parser::parse_sigma_yaml(&documents.join("---\n")).expect("rsigma reads the rules");
    assert_eq!(collection.rules.len(), documents.len(), "{:?}", collection.errors);
    let mut engine = Engine::new();
    engine.add_collection(&collection).expect("rsigma compiles the rules");
    engine
}

fn main() {
    let lines = events();
    let texts: Vec<&str> = lines.iter().map(String::as_str).collect();
    let batch = testing::batch_of(&texts);
    let json: Vec<Json> = lines.iter().map(|line| for_them(line)).collect();
    let (rules, left) = rules();
    println!("{} events; {} rules in both engines", lines.len(), rules.len());
    for (reason, count) in left {
        println!("left out: {count} with {reason}");
    }

    // Do they agree?
    let documents: Vec<String> = rules.values().cloned().collect();
    let (set, engine) = (ours(&documents), theirs(&documents));
    let mut matcher = Matcher::new(Arc::clone(&set));
    let found: BTreeSet<(usize, String)> = matcher
        .match_batch(&batch)
        .expect("a batch of events")
        .matched()
        .map(|(row, rule)| (row, set.rules()[rule].name.clone()))
        .collect();
    let mut expected = BTreeSet::new();
    for (row, event) in json.iter().enumerate() {
        for result in engine.evaluate(&JsonEvent::borrow(event)) {
            expected.insert((row, result.header.rule_title));
        }
    }
    println!("matches: ours {}, rsigma {}", found.len(), expected.len());
    let mut differences: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (_, rule) in found.difference(&expected) {
        *differences.entry((rule, "ours alone")).or_insert(0) += 1;
    }
    for (_, rule) in expected.difference(&found) {
        *differences.entry((rule, "rsigma alone")).or_insert(0) += 1;
    }
    for ((rule, who), count) in &differences {
        println!("differ: {rule}, {who}, {count} events");
    }

    // How fast?
    let each = |(took, _): (Duration, usize)| took.as_secs_f64() * 1e9 / lines.len() as f64;
    let our_time = each(best(|| matcher.match_batch(&batch).expect("a batch of events").matched().count()));
    let their_time =
        each(best(|| json.iter().map(|event| engine.evaluate(&JsonEvent::borrow(event)).len()).sum()));
    println!(
        "ours {our_time:.0} ns per event, rsigma {their_time:.0} ns; ratio {:.1}",
        their_time / our_time
    );

    // What do more rules cost?
    let all = RuleSet::builtin().expect("built-in rules load");
    let sources: Vec<(String, Value)> = all
        .rules()
        .iter()
        .filter(|rule| rules.contains_key(&rule.name))
        .map(|rule| (rule.name.clone(), yaml_serde::from_str(&rule.text).expect("it was read before")))
        .collect();
    let derived = |count: usize| -> Vec<String> {
        let (first, rest) = (documents.len().min(count), count.saturating_sub(documents.len()));
        let more = (0..rest).map(|at| {
            let (name, document) = &sources[at % sources.len()];
            bare(name, document, Some(at / sources.len()))
        });
        documents[..first].iter().cloned().chain(more).collect()
    };
    let mut first = None;
    for count in [100, 300, 1000] {
        let set = ours(&derived(count));
        let mut matcher = Matcher::new(set);
        let time = each(best(|| matcher.match_batch(&batch).expect("a batch of events").matched().count()));
        let (of, than) = *first.get_or_insert((count, time));
        println!(
            "{count} rules: {time:.0} ns per event, {:.2} times the cost of {of} for {:.1} times the rules",
            time / than,
            count as f64 / of as f64
        );
    }
    let agree = correlations(&lines);
    assert!(differences.is_empty(), "rules and events on which the engines differ are listed above");
    assert!(agree, "correlations on which the engines differ are listed above");
}

/// Kinds of correlations that both engines have, with the same meaning.
const KINDS: [&str; 4] = ["event_count", "value_count", "temporal", "temporal_ordered"];

/// Returns a correlation with the rules that feed it, as YAML for our engine and for rsigma.
fn correlation(name: &str, document: &Value, all: &RuleSet) -> Result<[String; 2], &'static str> {
    let correlation = document.get("correlation").expect("it is one");
    let kind = correlation.get("type").and_then(Value::as_str).unwrap_or_default();
    if !KINDS.contains(&kind) {
        return Err("a kind of ours");
    }
    let mut documents = Vec::new();
    for base in correlation.get("rules").and_then(Value::as_sequence).expect("it has rules") {
        let base = base.as_str().expect("a name");
        let info = all.rules().iter().find(|rule| rule.name == base).expect("the set has it");
        let document: Value = yaml_serde::from_str(&info.text).expect("it was read before");
        let Some(detection) = document.get("detection") else { return Err("a correlation of correlations") };
        if let Some(reason) = left_out(&yaml_serde::to_string(detection).expect("YAML")) {
            return Err(reason);
        }
        documents.push(bare(base, &document, None));
    }
    let group = correlation.get("group-by").and_then(Value::as_sequence).into_iter().flatten();
    for field in group.filter_map(Value::as_str) {
        if field == "cluster" || field.contains(".extra.") {
            return Err("a group of a field that only ours has");
        }
    }
    let mut ours = correlation.as_mapping().expect("a mapping").clone();
    // Our engine would wait this long for late events, but no event is late here.
    ours.remove(Value::String("lateness".into()));
    let mut theirs = ours.clone();
    if kind == "temporal" {
        // Without a condition rsigma 0.21 accepts any one of the rules; Sigma requires all of them.
        let condition = yaml_serde::from_str(&format!("gte: {}", documents.len())).expect("YAML");
        theirs.insert(Value::String("condition".into()), condition);
    }
    Ok([ours, theirs].map(|correlation| {
        let text = yaml_serde::to_string(&correlation).expect("YAML").replace('\n', "\n  ");
        let document =
            format!("title: {name}\nname: {name}\nid: {name}\ncorrelation:\n  {}\n", text.trim_end());
        [documents.clone(), vec![document]].concat().join("---\n")
    }))
}

/// Returns what each engine reports for these lines, as pairs of rule and group.
fn told([rules, theirs]: &[String; 2], lines: &[String]) -> [BTreeSet<(String, String)>; 2] {
    let texts: Vec<&str> = lines.iter().map(String::as_str).collect();
    let set =
        Arc::new(RuleSet::from_yaml("bench.yml", rules).unwrap_or_else(|error| panic!("{error}\n{rules}")));
    let mut detector = Detector::new(Arc::clone(&set), DetectorConfig::default());
    let matches = Matcher::new(set).match_batch(&testing::batch_of(&texts)).expect("a batch of events");
    let mut alerts = detector.observe(matches);
    alerts.append(&mut detector.settle());
    let ours = alerts.into_iter().map(|alert| (alert.rule_name, alert.group_key)).collect();

    let collection = rsigma_parser::parse_sigma_yaml(theirs).expect("rsigma reads the rules");
    assert!(collection.errors.is_empty(), "{:?}\n{theirs}", collection.errors);
    let mut engine = CorrelationEngine::new(CorrelationConfig {
        timestamp_fields: vec!["stageTimestamp".to_owned()],
        timestamp_fallback: TimestampFallback::Skip,
        ..CorrelationConfig::default()
    });
    engine.add_collection(&collection).expect("rsigma compiles the rules");
    let mut theirs = BTreeSet::new();
    for line in lines {
        for result in engine.process_event(&JsonEvent::borrow(&for_them(line))) {
            if let ResultBody::Correlation(body) = result.body {
                let shown = |value: &str| if value.is_empty() { "-".to_owned() } else { value.to_owned() };
                let group: Vec<String> =
                    body.group_key.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
                theirs.insert((result.header.rule_title, group.join(", ")));
            }
        }
    }
    [ours, theirs]
}

/// Returns each request once, in order of time.
fn requests<'l>(lines: impl IntoIterator<Item = &'l String>) -> Vec<String> {
    let mut by_time: Vec<(String, String, &String)> = lines
        .into_iter()
        .map(|line| {
            let event: Json = serde_json::from_str(line).expect("JSON");
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            (text("stageTimestamp"), text("auditID"), line)
        })
        .collect();
    by_time.sort();
    let mut seen = BTreeSet::new();
    by_time.retain(|(_, id, _)| seen.insert(id.clone()));
    by_time.into_iter().map(|(_, _, line)| line.clone()).collect()
}

/// Whether both engines report the same.
fn correlations(lines: &[String]) -> bool {
    let all = RuleSet::builtin().expect("built-in rules load");
    let (mut rules, mut left) = (Vec::new(), BTreeMap::new());
    for rule in all.rules() {
        let document: Value = yaml_serde::from_str(&rule.text).expect("it was read before");
        if document.get("correlation").is_none() {
            continue;
        }
        match correlation(&rule.name, &document, &all) {
            Ok(text) => rules.push((rule.name.clone(), text)),
            Err(reason) => *left.entry(reason).or_insert(0) += 1,
        }
    }
    println!("{} correlations in both engines", rules.len());
    for (reason, count) in left {
        println!("left out: {count} correlations, {reason}");
    }
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../alerts/rules/fixtures");
    let generated = requests(lines);
    let (mut same, mut differ) = (0, 0);
    for (name, text) in &rules {
        let fixture = |kind: &str| {
            let path = fixtures.join(format!("{name}.{kind}.ndjson"));
            let text =
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let lines: Vec<String> = text
                .lines()
                .filter(|line| !line.contains("\"stage\":\"RequestReceived\""))
                .map(str::to_owned)
                .collect();
            requests(&lines)
        };
        for (of, lines, wanted) in [
            ("fixture", fixture("hit"), Some(true)),
            ("near miss", fixture("near-miss"), Some(false)),
            ("generated", generated.clone(), None),
        ] {
            let [ours, theirs] = told(text, &lines);
            same += ours.intersection(&theirs).count();
            if wanted.is_some_and(|wanted| wanted == ours.is_empty() || wanted == theirs.is_empty()) {
                println!("{name}, {of}: ours {} rsigma {}", ours.len(), theirs.len());
            }
            for (who, (rule, group)) in ours
                .difference(&theirs)
                .map(|one| ("ours", one))
                .chain(theirs.difference(&ours).map(|one| ("rsigma", one)))
            {
                differ += 1;
                println!("differ: {rule}, {of}, {who} alone: {group}");
            }
        }
    }
    println!("correlations: {same} groups reported by both, {differ} by one of them");
    differ == 0
}
