//! Our matcher compared with `sigma-rust`, an independent engine.
//!
//! Goal: for every rule that both engines can express, they agree on each single event. Method:
//! both engines run the same rules over all generated and real events. The rules are our own
//! (including those that feed our correlations) and the small ones of
//! `tests/data/sigma-differential`. If the engines differ on a rule and an event, [`Reason`] must
//! list the cause, and every cause in that list must occur. Detections that only our engine can
//! express are left out by name, with the reason.
//!
//! sigma-rust does not get our columns. It gets the JSON line as serde_json reads it, with the
//! documented virtual fields, which this test computes itself. Some syntax is translated for
//! sigma-rust: `field: null` becomes `field|exists: false`, because sigma-rust does not let null
//! stand for an absent field; `re|i` becomes `(?i)`; and a keyword gets stars around it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use serde_json::Value as Json;
use strongroom_alerts::{Matcher, RuleSet};
use strongroom_schemas::events;
use yaml_serde::{Mapping, Value};

use crate::corpus;

/// Fields of our engine that sigma-rust does not get.
const OURS_ALONE: &[&str] = &[
    "binds_itself",
    "creates",
    "dry_run",
    "faults",
    "request_examined",
    "request_partial",
    "request_removes",
];

/// Number of generated events, which include attacks.
const GENERATED_EVENTS: u64 = 20_000;

/// One rule, in the form of both engines.
struct Rule {
    name: String,
    /// Text for our engine: the document alone.
    ours: String,
    theirs: sigma_rust::Rule,
    lines: Vec<Line>,
    /// The rule names `stage` itself, so that events of any stage count.
    names_stage: bool,
}

/// One line of a selection.
struct Line {
    field: String,
    modifiers: Vec<String>,
    values: Vec<Value>,
}

/// Why the engines may differ on a rule and an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// A field leads to or through an array. Our engine checks each element, sigma-rust none.
    Array,
    /// The rule and the event have values of different types: the rule has `1` and the event `1.5`
    /// or `"1"`, or the rule has `true` and the event `"true"`.
    Types,
    /// The rule encodes a text as base64, and its length is not a multiple of three bytes, so the
    /// encoding needs padding.
    Base64Padding,
    /// `fieldref`: the two fields have the same text, but in upper and lower case.
    FieldrefCase,
    /// The rule lists `null` among other values, and the event does not have the field.
    NullInList,
}

impl Reason {
    const ALL: [Reason; 5] =
        [Reason::Array, Reason::Types, Reason::Base64Padding, Reason::FieldrefCase, Reason::NullInList];

    fn text(self) -> &'static str {
        match self {
            Reason::Array => "the field leads to or through an array, into which sigma-rust does not look",
            Reason::Types => {
                "sigma-rust compares only values of one type, and distinguishes whole numbers from others"
            }
            Reason::Base64Padding => {
                "sigma-rust cuts the last group off base64 text where the standard pads it"
            }
            Reason::FieldrefCase => {
                "sigma-rust minds the case of fieldref, which Sigma does not without cased"
            }
            Reason::NullInList => "sigma-rust does not take null in a list for a field that is not there",
        }
    }

    /// Returns the reason that explains a difference; `None` if no reason does.
    fn of(rule: &Rule, event: &Json) -> Option<Reason> {
        rule.lines.iter().find_map(|line| Reason::of_line(line, event))
    }

    fn of_line(line: &Line, event: &Json) -> Option<Reason> {
        let has = |modifier: &str| line.modifiers.iter().any(|known| known == modifier);
        let value = match leads_to(event, &line.field) {
            Lead::Array => return Some(Reason::Array),
            Lead::Nowhere => {
                let is_listed = line.values.len() > 1 && line.values.iter().any(Value::is_null);
                return is_listed.then_some(Reason::NullInList);
            }
            Lead::Value(value) => value,
        };
        if has("fieldref") {
            return line.values.iter().find_map(|other| match leads_to(event, other.as_str()?) {
                Lead::Value(Json::String(other)) if other != value => Some(Reason::FieldrefCase),
                _ => None,
            });
        }
        let padded = |text: &Value| text.as_str().is_some_and(|text| !text.len().is_multiple_of(3));
        if has("base64") && line.values.iter().any(padded) {
            return Some(Reason::Base64Padding);
        }
        // Text comparisons read every scalar as text in both engines.
        let textual =
            ["re", "contains", "startswith", "endswith", "exists", "cidr"].iter().any(|word| has(word));
        let other_type = |expected: &Value| match (expected, value) {
            (Value::Number(expected), Json::Number(value)) => expected.is_i64() != value.is_i64(),
            (Value::Number(_), Json::String(_)) | (Value::Bool(_), Json::String(_)) => true,
            _ => false,
        };
        (!textual && line.values.iter().any(other_type)).then_some(Reason::Types)
    }
}

/// The value at the end of a path.
enum Lead<'e> {
    Value(&'e Json),
    /// An array, at the end of the path or on the way to it.
    Array,
    Nowhere,
}

fn leads_to<'e>(event: &'e Json, field: &str) -> Lead<'e> {
    let (mut at, mut rest) = (event, Some(field));
    while let Some(path) = rest {
        match at {
            Json::Array(_) => return Lead::Array,
            Json::Object(object) => {
                let (part, behind) =
                    path.split_once('.').map_or((path, None), |(part, rest)| (part, Some(rest)));
                // A key of annotations or extra may contain dots.
                (at, rest) = match (object.get(path), object.get(part)) {
                    (Some(inner), _) => (inner, None),
                    (None, Some(inner)) => (inner, behind),
                    (None, None) => return Lead::Nowhere,
                };
            }
            _ => return Lead::Nowhere,
        }
    }
    match at {
        Json::Array(_) => Lead::Array,
        value => Lead::Value(value),
    }
}

/// A detection that only our engine can express, and the reason.
type LeftOut = (String, &'static str);

/// Converts a document's detection to sigma-rust's syntax, and collects its lines.
struct Translation {
    lines: Vec<Line>,
}

/// Puts stars around a keyword. The specification wants a keyword found anywhere inside a value,
/// but sigma-rust compares it with the whole value.
fn keyword(word: &Value) -> Value {
    let word = word.as_str().expect("keywords of our rules are text");
    Value::String(format!("*{}*", word.trim_matches('*')))
}

impl Translation {
    fn selection(&mut self, value: &Value) -> Result<Value, &'static str> {
        match value {
            Value::Mapping(map) => Ok(Value::Mapping(self.map(map)?)),
            Value::Sequence(items) => {
                let (maps, words): (Vec<&Value>, Vec<&Value>) =
                    items.iter().partition(|item| item.is_mapping());
                if maps.is_empty() {
                    return Ok(Value::Sequence(words.into_iter().map(keyword).collect()));
                }
                if !words.is_empty() {
                    return Err("keywords beside maps: sigma-rust refuses the mixture");
                }
                maps.into_iter()
                    .map(|item| self.selection(item))
                    .collect::<Result<_, _>>()
                    .map(Value::Sequence)
            }
            _ => Ok(value.clone()),
        }
    }

    fn map(&mut self, map: &Mapping) -> Result<Mapping, &'static str> {
        let mut translated = Mapping::new();
        for (key, value) in map {
            let key = key.as_str().expect("keys of our rules are text");
            let (name, modifiers) = key.split_once('|').unwrap_or((key, ""));
            if key.contains('[') {
                return Err("array scope: an extension of ours");
            }
            if name.is_empty() {
                return Err("keywords with modifiers: sigma-rust takes them for a field without a name");
            }
            if name.starts_with("pod.") {
                return Err("pod.*: a virtual field of ours");
            }
            if modifiers.split('|').any(|modifier| modifier == "neq") {
                return Err("neq: sigma-rust does not know it");
            }
            self.lines.push(Line {
                field: name.to_owned(),
                modifiers: modifiers.split('|').map(str::to_owned).collect(),
                values: match value {
                    Value::Sequence(values) => values.clone(),
                    value => vec![value.clone()],
                },
            });
            let (key, value) = if value.is_null() {
                (format!("{name}|exists"), Value::Bool(false))
            } else if modifiers == "re|i" {
                let text = value.as_str().ok_or("re|i with a list")?;
                (format!("{name}|re"), Value::String(format!("(?i){text}")))
            } else {
                (key.to_owned(), value.clone())
            };
            translated.insert(Value::String(key), value);
        }
        Ok(translated)
    }
}

fn translate(name: &str, document: &Value) -> Result<Rule, &'static str> {
    let detection = document.get("detection").and_then(Value::as_mapping).expect("a rule has a detection");
    let mut translation = Translation { lines: Vec::new() };
    let mut translated = Mapping::new();
    for (key, value) in detection {
        let value = match key.as_str() {
            Some("condition") => match value.as_str() {
                // In the specification, "any of" means the same as "1 of". sigma-rust has only the
                // second.
                Some(text) => Value::String(text.replace("any of ", "1 of ")),
                None => return Err("a list of conditions: sigma-rust takes one"),
            },
            _ => translation.selection(value)?,
        };
        translated.insert(key.clone(), value);
    }
    let mut theirs = Mapping::new();
    for key in ["title", "logsource"] {
        theirs.insert(Value::String(key.to_owned()), document.get(key).expect("a rule has it").clone());
    }
    theirs.insert(Value::String("detection".to_owned()), Value::Mapping(translated));
    let text = yaml_serde::to_string(&Value::Mapping(theirs)).expect("what was read can be written");
    let theirs = sigma_rust::rule_from_yaml(&text)
        .unwrap_or_else(|error| panic!("{name}: sigma-rust: {error}\n{text}"));
    Ok(Rule {
        name: name.to_owned(),
        ours: yaml_serde::to_string(document).expect("what was read can be written"),
        theirs,
        names_stage: translation.lines.iter().any(|line| line.field == "stage"),
        lines: translation.lines,
    })
}

/// Adds the rules of a folder that both engines can run to `rules`, and the others to `left_out`.
fn rules(folder: &Path, rules: &mut Vec<Rule>, left_out: &mut Vec<LeftOut>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let stem = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        for document in text.split("\n---\n") {
            let document: Value =
                yaml_serde::from_str(document).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if document.get("correlation").is_some() {
                left_out.push((
                    stem.clone(),
                    "correlation: sigma-rust has none; the rule that feeds it is compared",
                ));
                continue;
            }
            let name = document.get("name").and_then(Value::as_str).unwrap_or(&stem).to_owned();
            match translate(&name, &document) {
                Ok(rule) => rules.push(rule),
                Err(reason) => left_out.push((name, reason)),
            }
        }
    }
}

/// Returns the line as sigma-rust gets it: without nulls, and with our virtual fields, which this
/// test computes itself.
fn event_for_them(line: &Json) -> Json {
    let mut event = line.clone();
    strip_nulls(&mut event);
    let text = |path: &str| line.pointer(path).and_then(Json::as_str).map(str::to_owned);
    let answer = strongroom_schemas::outcome::Answer {
        stage: line["stage"].as_str(),
        response_code: line["responseStatus"]["code"].as_i64().and_then(|code| i32::try_from(code).ok()),
        response_status: line["responseStatus"]["status"].as_str(),
        authz_decision: line["annotations"]["authorization.k8s.io/decision"].as_str(),
        resource: line["objectRef"]["resource"].as_str(),
        login_decision: line["annotations"]["authentication.openshift.io/decision"].as_str(),
    };
    let virtuals = [
        ("outcome", answer.outcome().map(|outcome| outcome.as_str().to_owned())),
        ("actor", text("/impersonatedUser/username").or_else(|| text("/user/username"))),
        (
            "source_ip",
            line["sourceIPs"].as_array().and_then(|ips| ips.last()).and_then(Json::as_str).map(str::to_owned),
        ),
        ("exec.command", command(line)),
        ("client", client(line)),
        ("authz.decision", text("/annotations/authorization.k8s.io~1decision")),
        ("authz.reason", text("/annotations/authorization.k8s.io~1reason")),
    ];
    let object = event.as_object_mut().expect("an event is an object");
    for (name, value) in virtuals {
        object.extend(value.map(|value| (name.to_owned(), Json::String(value))));
    }
    event
}

fn strip_nulls(value: &mut Json) {
    match value {
        Json::Object(object) => {
            object.retain(|_, inner| !inner.is_null());
            object.values_mut().for_each(strip_nulls);
        }
        Json::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// Returns the `command=` parameters of a request URI, form-decoded and joined by spaces or, if
/// there are none, the command in the body of an exec.
fn command(line: &Json) -> Option<String> {
    let query = line["requestURI"].as_str().and_then(|uri| uri.split_once('?'));
    let pairs = query.into_iter().flat_map(|(_, query)| query.split('&')).filter(|pair| is_read(pair));
    let pairs = pairs.flat_map(url_pairs);
    let words: Vec<String> = pairs.filter(|(key, _)| key == "command").map(|(_, value)| value).collect();
    if !words.is_empty() || line["objectRef"]["subresource"] != "exec" {
        return (!words.is_empty()).then(|| words.join(" "));
    }
    let words = line["requestObject"]["command"].as_array()?;
    let words: Vec<&str> = words.iter().filter_map(Json::as_str).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Returns true if Go reads a pair of a query. Go drops a pair with a semicolon or a broken escape.
fn is_read(pair: &str) -> bool {
    let is_hex = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    !pair.contains(';') && pair.split('%').skip(1).all(is_hex)
}

/// Returns the program that the user agent names first.
fn client(line: &Json) -> Option<String> {
    let agent = line["userAgent"].as_str()?.trim_start();
    let name = agent.split(|c: char| c == '/' || c == '(' || c.is_ascii_whitespace()).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn url_pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        let mut bytes = Vec::new();
        let mut parts = text.split('%');
        bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
        for part in parts {
            match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => {
                    bytes.push(byte);
                    bytes.extend_from_slice(&part.as_bytes()[2..]);
                }
                None => {
                    bytes.push(b'%');
                    bytes.extend_from_slice(part.as_bytes());
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    query.split('&').map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

/// Returns the lines of the generated log and of the corpus.
fn lines() -> Vec<Vec<u8>> {
    let (text, _) = corpus::generated(20_260_302, GENERATED_EVENTS, true);
    let mut all: Vec<Vec<u8>> = corpus::lines(&text).into_iter().map(<[u8]>::to_vec).collect();
    if let Some(folder) = corpus::folder("differential") {
        for path in corpus::event_files(&folder) {
            let text = corpus::read(&path);
            all.extend(corpus::lines(&text).into_iter().map(<[u8]>::to_vec));
        }
    }
    for folder in ["alerts/rules/fixtures", "tests/data/sigma-differential"] {
        for path in corpus::event_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            let text = corpus::read(&path);
            all.extend(corpus::lines(&text).into_iter().map(<[u8]>::to_vec));
        }
    }
    all
}

#[test]
fn single_events_are_judged_as_by_sigma_rust() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut both, mut left_out) = (Vec::new(), Vec::new());
    rules(&root.join("alerts/rules"), &mut both, &mut left_out);
    let own = both.len();
    rules(&root.join("tests/data/sigma-differential"), &mut both, &mut left_out);
    assert!(both.len() - own >= 30, "only {} small rules", both.len() - own);
    println!("{own} rules of our own and {} small ones run in both engines; left out:", both.len() - own);
    for (name, reason) in &left_out {
        println!("  {name:<40} {reason}");
    }

    let documents: Vec<(String, &str)> =
        both.iter().map(|rule| (format!("{}.yml", rule.name), rule.ours.as_str())).collect();
    let set = RuleSet::from_documents(documents).unwrap_or_else(|error| panic!("{error}"));
    let index: BTreeMap<usize, usize> = set
        .rules()
        .iter()
        .enumerate()
        .map(|(at, info)| {
            let ours = both.iter().position(|rule| rule.name == info.name);
            (at, ours.unwrap_or_else(|| panic!("{} is not one of the rules", info.name)))
        })
        .collect();
    let mut matcher = Matcher::new(Arc::new(set));

    let all = lines();
    let slices: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let mut offsets = BTreeMap::new();
    let mut offset = 0;
    for (at, line) in slices.iter().enumerate() {
        offsets.insert(offset, at);
        offset += line.len() as i64 + 1;
    }

    let mut differences: BTreeMap<(&str, Reason), usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    let mut hits: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut compared, mut events_seen) = (0_u64, 0_u64);
    for batch in corpus::decode(&slices).0 {
        let matches = matcher.match_batch(&batch).expect("a batch of events");
        let mut ours = vec![vec![false; both.len()]; batch.num_rows()];
        for (row, rule) in matches.matched() {
            ours[row][index[&rule]] = true;
        }
        let row_offsets = batch.column(events::index::SOURCE_OFFSET).as_primitive::<Int64Type>();
        for (row, ours) in ours.iter().enumerate() {
            // An item of an EventList is only a part of a line, so sigma-rust cannot read it.
            let Some(&line) = offsets.get(&row_offsets.value(row)) else { continue };
            // Our decoder also reads damaged or deeply nested events, which serde_json refuses.
            let Ok(json) = serde_json::from_slice::<Json>(slices[line]) else { continue };
            if json.get("verb").is_none() {
                continue;
            }
            let json = event_for_them(&json);
            let received = json["stage"] == "RequestReceived";
            let event = sigma_rust::Event::try_from(json.clone()).expect("an event is an object");
            events_seen += 1;
            for (rule, &ours) in both.iter().zip(ours) {
                // Our engine skips events of stage RequestReceived unless the rule names stages.
                let theirs = (rule.names_stage || !received) && rule.theirs.is_match(&event);
                compared += 1;
                *hits.entry(&rule.name).or_default() += usize::from(theirs);
                // Only our engine knows dry runs, unknown outcomes and parts that cannot be read.
                let asks = |names: &[&str]| rule.lines.iter().any(|line| names.contains(&&*line.field));
                let is_dry = json["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun"));
                let is_ours = asks(&["outcome"]) && (is_dry || json["outcome"] == "unknown");
                // Our engine also judges a patch by the object that it led to.
                let has_result = json["responseObject"].is_object()
                    && (json["verb"] == "patch" || json["requestObject"].is_null());
                let reads_object = rule.lines.iter().any(|line| line.field.starts_with("requestObject"));
                let is_of_result = ours && has_result && reads_object;
                if ours == theirs || is_ours || is_of_result || asks(OURS_ALONE) {
                    continue;
                }
                match Reason::of(rule, &json) {
                    Some(reason) => *differences.entry((&rule.name, reason)).or_default() += 1,
                    None => unexplained.push(format!(
                        "{}: ours {ours}, sigma-rust {theirs}: {}",
                        rule.name,
                        String::from_utf8_lossy(slices[line])
                    )),
                }
            }
        }
    }
    println!("{compared} answers over {events_seen} events; differences:");
    for ((rule, reason), count) in &differences {
        println!("  {rule:<40} {count:>6}  {}", reason.text());
    }
    // If a rule matches no event, or every event, the comparison shows little. So such rules are
    // printed.
    for (rule, count) in &hits {
        if *count == 0 || *count as u64 == events_seen {
            println!("  {rule:<40} matched {count} of {events_seen} events");
        }
    }
    for reason in Reason::ALL {
        assert!(differences.keys().any(|(_, used)| *used == reason), "{reason:?} explains nothing");
    }
    let shown: Vec<&String> = unexplained.iter().take(20).collect();
    assert!(unexplained.is_empty(), "{} unexplained differences:\n{shown:#?}", unexplained.len());
    assert!(events_seen > GENERATED_EVENTS * 9 / 10, "only {events_seen} events were compared");
}
