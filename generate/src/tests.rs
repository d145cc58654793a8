//! Tests the promises of this crate on its output: it has the form that Go would have written, it
//! is the same each time, and every attack is in the ground truth.

use std::collections::{BTreeMap, HashMap};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::{ATTACK_EVENTS_MIN, Generator, GeneratorOptions, LINE_BYTES_MEAN, OptionsError, go};

/// JSON that keeps the order of its keys and the text of its numbers.
#[derive(Debug, PartialEq)]
enum Ordered {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Ordered>),
    Object(Vec<(String, Ordered)>),
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ordered, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Ordered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
                Ok(Ordered::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
                Ok(Ordered::Number(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
                Ok(Ordered::Number(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
                Ok(Ordered::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Ordered, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Ordered::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Ordered, A::Error> {
                let mut object = Vec::new();
                while let Some(member) = members.next_entry()? {
                    object.push(member);
                }
                Ok(Ordered::Object(object))
            }
        }
        deserializer.deserialize_any(AnyValue)
    }
}

impl Ordered {
    /// Writes the value as Go would: compact, and escaped for HTML.
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Ordered::Null => out.extend_from_slice(b"null"),
            Ordered::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Ordered::Number(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Ordered::Text(text) => go::string(out, text),
            Ordered::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Ordered::Object(members) => {
                out.push(b'{');
                for (index, (key, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    go::string(out, key);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    fn keys(&self) -> Vec<&str> {
        match self {
            Ordered::Object(members) => members.iter().map(|(key, _)| key.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    fn at(&self, key: &str) -> &Ordered {
        match self {
            Ordered::Object(members) => {
                members.iter().find(|(name, _)| name == key).map_or(&Ordered::Null, |(_, value)| value)
            }
            _ => &Ordered::Null,
        }
    }

    fn text(&self) -> &str {
        match self {
            Ordered::Text(text) => text,
            _ => "",
        }
    }
}

/// JSON keys of the Go structs, in the order of their declaration, and the keys without
/// `omitempty`.
const EVENT: &[&str] = &[
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "impersonatedUser",
    "authenticationMetadata",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "responseStatus",
    "requestObject",
    "responseObject",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "annotations",
];
const EVENT_ALWAYS: &[&str] = &[
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "requestReceivedTimestamp",
    "stageTimestamp",
];
const USER: &[&str] = &["username", "uid", "groups", "extra"];
const OBJECT_REF: &[&str] =
    &["resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource"];
const STATUS: &[&str] = &["metadata", "status", "message", "reason", "details", "code"];
const DETAILS: &[&str] = &["name", "group", "kind", "uid", "causes", "retryAfterSeconds"];

fn assert_order(found: &Ordered, order: &[&str], line: &str) {
    let positions: Vec<usize> = found
        .keys()
        .into_iter()
        .map(|key| {
            order.iter().position(|known| *known == key).unwrap_or_else(|| panic!("key {key}: {line}"))
        })
        .collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{:?}: {line}", found.keys());
}

fn assert_no_empty(found: &Ordered, line: &str) {
    if let Ordered::Object(members) = found {
        for (key, value) in members {
            let empty = match value {
                Ordered::Text(text) => text.is_empty(),
                Ordered::List(items) => items.is_empty(),
                Ordered::Null => true,
                _ => false,
            };
            assert!(!empty, "{key} is empty, and Go would omit it: {line}");
        }
    }
}

fn log(options: GeneratorOptions) -> (Vec<u8>, Generator) {
    let mut generator = Generator::new(options).expect("options in bounds");
    let mut log = Vec::new();
    while generator.next_line(&mut log) {}
    (log, generator)
}

fn lines(log: &[u8]) -> impl Iterator<Item = &str> {
    std::str::from_utf8(log).expect("UTF-8").lines()
}

fn attacked(events: u64, seed: u64) -> GeneratorOptions {
    GeneratorOptions { events, seed, attacks: true, ..GeneratorOptions::default() }
}

#[test]
fn every_line_is_what_go_writes() {
    let (log, _) = log(attacked(60_000, 3));
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines(&log) {
        let event: Ordered = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let mut again = Vec::new();
        event.write(&mut again);
        assert_eq!(std::str::from_utf8(&again).expect("UTF-8"), line);

        assert_order(&event, EVENT, line);
        for key in EVENT_ALWAYS {
            assert!(event.keys().contains(key), "{key} is missing: {line}");
        }
        assert_order(event.at("user"), USER, line);
        assert_order(event.at("impersonatedUser"), USER, line);
        assert_order(event.at("objectRef"), OBJECT_REF, line);
        assert_order(event.at("responseStatus"), STATUS, line);
        assert_order(event.at("responseStatus").at("details"), DETAILS, line);
        for object in ["user", "impersonatedUser", "objectRef", "responseStatus"] {
            assert_no_empty(event.at(object), line);
        }
        for map in [event.at("annotations"), event.at("user").at("extra")] {
            assert!(map.keys().is_sorted_by(|a, b| a < b), "Go sorts map keys: {line}");
        }
        for time in ["requestReceivedTimestamp", "stageTimestamp"] {
            let text = event.at(time).text();
            assert!(text.len() == 27 && text.ends_with('Z') && text.as_bytes()[19] == b'.', "{line}");
        }
        assert!(event.at("requestReceivedTimestamp").text() <= event.at("stageTimestamp").text(), "{line}");
        let (level, stage) = (event.at("level").text(), event.at("stage").text());
        assert!(level != "Metadata" || *event.at("requestObject") == Ordered::Null, "{line}");
        assert_eq!(stage == "RequestReceived", *event.at("responseStatus") == Ordered::Null, "{line}");
        *seen.entry(format!("level {level}")).or_default() += 1;
        *seen.entry(format!("stage {stage}")).or_default() += 1;
        if let Ordered::Number(code) = event.at("responseStatus").at("code") {
            *seen.entry(format!("code {code}")).or_default() += 1;
        }
        if matches!(event.at("requestObject"), Ordered::List(_)) {
            *seen.entry("JSON patch".to_owned()).or_default() += 1;
        }
        if line.contains("\\u003c") || line.contains("\\u003e") {
            *seen.entry("HTML escapes".to_owned()).or_default() += 1;
        }
    }
    for kind in [
        "level Metadata",
        "level Request",
        "level RequestResponse",
        "stage RequestReceived",
        "stage ResponseStarted",
        "stage ResponseComplete",
        "code 101",
        "code 200",
        "code 201",
        "code 401",
        "code 403",
        "code 404",
        "code 409",
        "code 429",
        "code 504",
        "JSON patch",
        "HTML escapes",
    ] {
        assert!(seen.contains_key(kind), "no {kind} in {seen:?}");
    }
}

#[test]
fn a_panic_is_written_now_and_then() {
    let (log, _) = log(GeneratorOptions { events: 400_000, ..GeneratorOptions::default() });
    assert!(lines(&log).any(|line| line.contains(r#""stage":"Panic""#)));
}

#[test]
fn the_log_is_a_function_of_the_options() {
    let hash = |options| blake3::hash(&log(options).0);
    let base = || attacked(5_000, 11);
    assert_eq!(hash(base()), hash(base()));
    assert_ne!(hash(base()), hash(attacked(5_000, 12)));
    assert_ne!(hash(base()), hash(GeneratorOptions { nodes: 3, ..base() }));
}

/// A test or a measurement names its input by the options, so a change of the output must be
/// intended.
#[test]
fn the_log_of_seed_1_is_known() {
    let (log, _) = log(attacked(20_000, 1));
    assert_eq!(blake3::hash(&log).to_hex().as_str(), SEED_1);
}

const SEED_1: &str = "fcf37568338ce216c7d78b01df37e60c9872801992e52febaea33b34708bddf2";

#[test]
fn attacks_are_lines_among_an_unchanged_background() {
    let (with, generator) = log(attacked(30_000, 5));
    let planted: std::collections::HashSet<&str> = generator
        .ground_truth()
        .iter()
        .flat_map(|attack| attack.audit_ids.iter().map(String::as_str))
        .collect();
    let id_of = |line: &str| {
        let at = line.find(r#""auditID":""#).expect("every line has this member") + 11;
        line[at..at + 36].to_owned()
    };
    let rate = GeneratorOptions::default().rate.min(30_000.0 / 14_400.0);
    let (without, _) = log(GeneratorOptions { events: 30_000, seed: 5, rate, ..GeneratorOptions::default() });
    let background: Vec<&str> = lines(&with).filter(|line| !planted.contains(id_of(line).as_str())).collect();
    assert!(background.len() > 29_000);
    for (number, (found, expected)) in background.iter().zip(lines(&without)).enumerate() {
        assert_eq!(*found, expected, "line {number}");
    }
}

#[test]
fn the_truth_about_attacks_is_in_the_log() {
    for (events, seed) in [(ATTACK_EVENTS_MIN, 1), (20_000, 2), (200_000, 3)] {
        let (log, generator) = log(attacked(events, seed));
        assert_eq!(lines(&log).count() as u64, events);
        let mut by_id: HashMap<String, Vec<serde_json::Value>> = HashMap::new();
        for line in lines(&log) {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            by_id.entry(event["auditID"].as_str().expect("text").to_owned()).or_default().push(event);
        }
        let truth = generator.ground_truth();
        assert!(truth.len() >= 16);
        let mut names: Vec<_> = truth.iter().map(|attack| attack.story.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), truth.len(), "story names are unique");
        for attack in truth {
            let mut times = Vec::new();
            for id in &attack.audit_ids {
                for event in by_id.get(id).unwrap_or_else(|| panic!("{}: no line has {id}", attack.story)) {
                    times.push(event["stageTimestamp"].as_str().expect("text"));
                    let ips = event["sourceIPs"].as_array().expect("list");
                    assert_eq!(*ips.last().expect("an address"), *attack.source_ip, "{}", attack.story);
                    let impersonated = event["impersonatedUser"]["username"].as_str();
                    if let Some(actor) = impersonated.or(event["user"]["username"].as_str()) {
                        assert_eq!(actor, attack.actor, "{}", attack.story);
                    }
                }
            }
            times.sort_unstable();
            assert_eq!(times.len() as u64, attack.events, "{}", attack.story);
            assert_eq!(times.first().copied(), Some(attack.first_time.as_str()), "{}", attack.story);
            assert_eq!(times.last().copied(), Some(attack.last_time.as_str()), "{}", attack.story);
            assert!(!attack.techniques.is_empty());
        }
    }
}

#[test]
fn size_and_pace_are_as_said() {
    let options = GeneratorOptions { events: 1_000_000, ..GeneratorOptions::default() };
    let span_expected = options.events as f64 / options.rate;
    let mut generator = Generator::new(options).expect("in bounds");
    let (mut line, mut bytes, mut last) = (Vec::new(), 0u64, 0.0f64);
    while generator.next_line(&mut line) {
        bytes += line.len() as u64;
        if generator.emitted() == 1_000_000 {
            let text = std::str::from_utf8(&line).expect("UTF-8");
            let at = text.find(r#""stageTimestamp":""#).expect("every line has this member") + 18;
            let time = chrono::DateTime::parse_from_rfc3339(&text[at..at + 27]).expect("a time");
            last = (time.timestamp() - crate::START_DEFAULT_SECONDS) as f64;
        }
        line.clear();
    }
    let mean = bytes as f64 / 1_000_000.0;
    assert!((mean / LINE_BYTES_MEAN as f64 - 1.0).abs() < 0.05, "mean line: {mean} bytes");
    assert!((last / span_expected - 1.0).abs() < 0.1, "span: {last} s, expected {span_expected} s");
}

#[test]
fn options_have_bounds() {
    let error = |options| Generator::new(options).err().expect("refused");
    assert_eq!(error(attacked(10, 1)), OptionsError::TooFewForAttacks { events: 10 });
    assert!(matches!(error(GeneratorOptions { rate: 0.0, ..Default::default() }), OptionsError::Rate { .. }));
    assert!(matches!(
        error(GeneratorOptions { rate: f64::NAN, ..Default::default() }),
        OptionsError::Rate { .. }
    ));
    assert!(matches!(error(GeneratorOptions { nodes: 0, ..Default::default() }), OptionsError::Nodes { .. }));
    assert!(matches!(
        error(GeneratorOptions { events: u64::MAX, ..Default::default() }),
        OptionsError::Span { .. }
    ));
}
