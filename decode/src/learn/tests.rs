//! Learns the forms of logs that other serialisers wrote, of wrappers, and of hostile streams.
//!
//! Goal: a record is given back exactly, whichever program wrote it. If the records of a stream
//! repeat a form, no row keeps `raw`; if every record needs a different form, the work is bounded.

use std::fmt::Write as _;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, RecordBatch};
use proptest::prelude::*;
use serde_json::Value as Json;
use strongroom_generate::{Generator, GeneratorOptions};
use strongroom_lines::{DEPTH_MAX, plain};
use strongroom_schemas::events::index;
use strongroom_schemas::form::{FORMS_IN_BLOCK_MAX, Form};

use super::*;
use crate::decode_bytes;
use crate::rows::{Place as At, Rows};

fn lines(events: u64, seed: u64) -> Vec<String> {
    let options = GeneratorOptions { events, seed, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options in range");
    let mut lines = Vec::new();
    let mut line = Vec::new();
    while generator.next_line(&mut line) {
        lines.push(String::from_utf8(std::mem::take(&mut line)).expect("text").trim_end().to_owned());
    }
    lines
}

/// Returns a row for each pair of a record and the event in it.
fn rows_of(records: &[(String, String)]) -> RecordBatch {
    let mut rows = Rows::new();
    for (record, event) in records {
        let event =
            plain::decode(event.as_bytes(), DEPTH_MAX).unwrap_or_else(|why| panic!("{why:?}: {event}"));
        let row = rows.plain_row(&event, record.as_bytes());
        rows.push(&row, &At { offset: 0, before: &[] }, record.as_bytes());
    }
    rows.finish(&[]).expect("columns")
}

/// Checks that each row gives its record, and that all forms are valid. Returns the number of rows
/// with a form and the number of forms.
fn check<'r>(batch: &RecordBatch, records: impl IntoIterator<Item = &'r str>) -> (usize, usize) {
    let renderer = Renderer::new(batch).expect("a batch of events");
    let mut templates: Vec<&str> = Vec::new();
    let forms = batch.column(index::FORM).as_dictionary::<arrow_array::types::Int32Type>();
    let texts = forms.values().as_string::<i32>();
    let mut formed = 0;
    let mut count = 0;
    for (row, record) in records.into_iter().enumerate() {
        let mut out = Vec::new();
        renderer.record(row, &mut out).expect("a record");
        assert!(out == record.as_bytes(), "{}\n{record}", String::from_utf8_lossy(&out));
        count += 1;
        if forms.is_null(row) {
            assert!(batch.column(index::FORM_VALUES).is_null(row));
            continue;
        }
        formed += 1;
        assert!(batch.column(index::RAW).is_null(row) && batch.column(index::SHAPE).is_null(row));
        let template = texts.value(forms.keys().value(row) as usize);
        if !templates.contains(&template) {
            Form::parse(template).unwrap_or_else(|error| panic!("{error}: {template}"));
            templates.push(template);
        }
    }
    assert_eq!(batch.num_rows(), count);
    assert!(templates.len() <= FORMS_IN_BLOCK_MAX);
    (formed, templates.len())
}

fn templates(batch: &RecordBatch) -> Vec<String> {
    let forms = batch.column(index::FORM).as_dictionary::<arrow_array::types::Int32Type>();
    forms.values().as_string::<i32>().iter().flatten().map(str::to_owned).collect()
}

fn check_log(lines: &[String]) -> (usize, usize) {
    let log = lines.join("\n") + "\n";
    let decoded = decode_bytes(log.as_bytes(), "c", "p").expect("columns");
    assert_eq!(decoded.rejects.num_rows(), 0);
    check(&decoded.events, lines.iter().map(String::as_str))
}

/// Writes JSON as another program does.
#[derive(Clone)]
struct Writer {
    comma: &'static str,
    colon: &'static str,
    ascii: bool,
}

const COMPACT: Writer = Writer { comma: ",", colon: ":", ascii: false };

impl Writer {
    fn string(&self, text: &str) -> String {
        let text = serde_json::to_string(text).expect("text");
        if !self.ascii {
            return text;
        }
        let mut out = String::new();
        for character in text.chars() {
            if character < '\u{7f}' {
                out.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("writing to a String");
                }
            }
        }
        out
    }

    fn value(&self, value: &Json) -> String {
        match value {
            Json::String(text) => self.string(text),
            Json::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.value(item)).collect();
                format!("[{}]", items.join(self.comma))
            }
            Json::Object(members) => {
                let members = members.iter().map(|(name, value)| (name.clone(), self.value(value)));
                self.object(members.collect())
            }
            other => other.to_string(),
        }
    }

    fn object(&self, members: Vec<(String, String)>) -> String {
        let members: Vec<String> = members
            .into_iter()
            .map(|(name, value)| format!("{}{}{value}", self.string(&name), self.colon))
            .collect();
        format!("{{{}}}", members.join(self.comma))
    }
}

/// Returns the members of an event in the order of its text.
fn members(line: &str) -> Vec<(String, Json)> {
    let strongroom_lines::json::Members(members) = serde_json::from_str(line).expect("an object");
    members
        .into_iter()
        .map(|(name, value)| (name.into_owned(), serde_json::from_str(value.get()).expect("JSON")))
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum Dialect {
    Sorted,
    Front,
    Logstash,
    Python,
}

/// Writes the lines of a log in a dialect. `jitter` changes the added time, and adds an offset that
/// grows.
fn dialect(lines: &[String], dialect: Dialect, jitter: bool) -> Vec<String> {
    let mut offset = 1000;
    lines
        .iter()
        .enumerate()
        .map(|(number, line)| {
            let writer = match dialect {
                Dialect::Python => Writer { comma: ", ", colon: ": ", ascii: true },
                _ => COMPACT,
            };
            offset += line.len();
            let event = members(line);
            let stage = event.iter().find(|(name, _)| name == "stageTimestamp").map(|(_, time)| time.clone());
            let time = match (stage, jitter) {
                (Some(Json::String(time)), true) => {
                    Json::from(format!("{}{:03}Z", &time[..20], number * 7 % 1000))
                }
                (time, _) => time.unwrap_or_default(),
            };
            let (mut before, mut after) = (Vec::new(), Vec::new());
            let add =
                |list: &mut Vec<(String, Json)>, name: &str, value: Json| list.push((name.to_owned(), value));
            match dialect {
                Dialect::Front => {
                    add(&mut before, "@timestamp", time.clone());
                    add(&mut after, "cluster", "prod".into());
                }
                Dialect::Logstash => {
                    add(&mut before, "@version", "1".into());
                    add(&mut before, "host", serde_json::json!({"name": "cp-1"}));
                    add(&mut after, "log", serde_json::json!({"file": {"path": "/var/log/audit.log"}}));
                    add(&mut after, "@timestamp", time.clone());
                }
                _ if jitter => add(&mut before, "@timestamp", time.clone()),
                _ => {}
            }
            if jitter {
                add(&mut after, "offset", offset.into());
            }
            let mut event = event;
            if let Dialect::Logstash = dialect {
                event.sort_by_key(|(name, _)| (name.len(), name.clone()));
            }
            let mut all: Vec<(String, Json)> = before.into_iter().chain(event).chain(after).collect();
            if let Dialect::Sorted = dialect {
                all.sort_by_key(|(name, _)| name.clone());
            }
            writer.object(all.into_iter().map(|(name, value)| (name, writer.value(&value))).collect())
        })
        .collect()
}

#[test]
fn streams_that_were_written_again_need_no_raw() {
    let plain = lines(1_500, 7);
    for kind in [Dialect::Sorted, Dialect::Front, Dialect::Logstash, Dialect::Python] {
        for jitter in [false, true] {
            let lines = dialect(&plain, kind, jitter);
            let (formed, forms) = check_log(&lines);
            println!("{kind:?} {jitter}: {formed} of {} rows, {forms} forms", lines.len());
            assert!(
                formed * 100 >= lines.len() * 99,
                "{kind:?} {jitter}: {formed} of {}, {forms} forms",
                lines.len()
            );
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text")
}

#[test]
fn wrappers_of_whole_lines_need_no_raw() {
    let plain = lines(400, 3);
    type Wrap = fn(usize, &str) -> String;
    let wrappers: [(&str, Wrap); 8] = [
        ("message", |n, line| {
            format!(
                r#"{{"@timestamp":"2026-03-02T10:00:0{}.{:03}Z","message":{},"host":"cp-1"}}"#,
                n % 10,
                n % 1000,
                quoted(line)
            )
        }),
        ("literal", |_, line| quoted(line)),
        ("docker", |n, line| {
            format!(
                r#"{{"log":{},"stream":"stdout","time":"2026-03-02T10:00:00.{n:09}Z"}}"#,
                quoted(&format!("{line}\n"))
            )
        }),
        ("cri", |n, line| format!("2026-03-02T10:00:00.{n:09}Z stdout F {line}")),
        ("syslog", |n, line| {
            format!("<133>Oct  1 10:37:{:02} node1.example.org k8s-audit[{}]: {line}", n % 60, n % 7)
        }),
        ("object", |n, line| {
            format!(
                r#"{{"log":{{"offset":{n},"file":{{"path":"/var/log/a.log"}}}},"json":{line},"tags":["a","b"]}}"#
            )
        }),
        ("deep", |n, line| {
            let inner = quoted(&format!("{{\"log\":{},\"n\":{n}}}", quoted(line)));
            format!(r#"{{"body": {{"stringValue": {inner}}} , "seen": null}}"#)
        }),
        ("string in a string", |_, line| quoted(&quoted(line))),
    ];
    for (name, wrap) in wrappers {
        let records: Vec<(String, String)> =
            plain.iter().enumerate().map(|(number, line)| (wrap(number, line), line.clone())).collect();
        let batch = rows_of(&records);
        let (formed, forms) = check(&batch, records.iter().map(|(record, _)| record.as_str()));
        println!("{name}: {formed} of {}, {forms} forms", records.len());
        assert!(formed * 100 >= records.len() * 99, "{name}: {formed} of {}, {forms} forms", records.len());
    }
}

/// A small generator of choices, so that a test case is one number.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    fn text(&mut self) -> String {
        const PARTS: [&str; 24] = [
            "get",
            "$",
            "${",
            "${verb}",
            "$$",
            "\"",
            "\\",
            "\u{1f600}",
            "\u{2028}",
            "\u{7f}",
            "/",
            "<&>",
            "\n",
            "\u{8}",
            "\u{1}",
            "é",
            "{",
            "}",
            " ",
            "\\u007b",
            "'",
            "/api/v1/pods?a=1",
            "\t",
            "ünïcode",
        ];
        let plain = self.one_in(2);
        (0..self.below(5)).map(|_| if plain { PARTS[self.below(2) * 21] } else { self.of(&PARTS) }).collect()
    }
}

/// How the records of a stream are written. If `odd` is not 0, the other choices are made anew for
/// some of the records and values.
struct Odd {
    white: [&'static str; 4],
    style: usize,
    order: u64,
    shuffles: bool,
    odd: usize,
}

impl Odd {
    fn string(&self, text: &str, choices: &mut Choices) -> String {
        let mut out = String::from("\"");
        let style = if self.odd > 0 && choices.one_in(self.odd) { choices.below(5) } else { self.style };
        for character in text.chars() {
            let escaped = |upper: bool| -> String {
                character.encode_utf16(&mut [0; 2]).iter().fold(String::new(), |mut text, unit| {
                    if upper { write!(text, "\\u{unit:04X}") } else { write!(text, "\\u{unit:04x}") }
                        .expect("writing to a String");
                    text
                })
            };
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\u{8}' if style < 3 => out.push_str("\\b"),
                '/' if style == 1 => out.push_str("\\/"),
                '<' | '>' | '&' if style == 0 => out.push_str(&escaped(false)),
                '\u{7f}'.. if style == 2 => out.push_str(&escaped(false)),
                '\u{2028}' if style == 0 => out.push_str(&escaped(false)),
                ..' ' => out.push_str(&escaped(style == 3)),
                _ if style == 4 && choices.one_in(3) => out.push_str(&escaped(choices.one_in(2))),
                other => out.push(other),
            }
        }
        out.push('"');
        out
    }

    fn value(&self, value: &Json, choices: &mut Choices) -> String {
        let [open, before, after, close] = self.white;
        match value {
            Json::String(text) => self.string(text, choices),
            Json::Array(items) if items.is_empty() => "[]".to_owned(),
            Json::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.value(item, choices)).collect();
                format!("[{open}{}{close}]", items.join(&format!(",{open}")))
            }
            Json::Object(members) => {
                let mut members: Vec<(&String, &Json)> = members.iter().collect();
                let mut order =
                    Choices(if self.shuffles { choices.below(1 << 20) as u64 } else { self.order });
                for at in (1..members.len()).rev() {
                    members.swap(at, order.below(at + 1));
                }
                let mut texts: Vec<String> = members
                    .into_iter()
                    .map(|(name, value)| {
                        format!(
                            "{}{before}:{after}{}",
                            Writer::string(&COMPACT, name),
                            self.value(value, choices)
                        )
                    })
                    .collect();
                if self.odd > 0 && choices.one_in(self.odd * 4) && !texts.is_empty() {
                    // The same member twice: the last one counts.
                    texts.insert(0, texts[texts.len() - 1].clone());
                }
                format!("{{{open}{}{close}}}", texts.join(&format!(",{open}")))
            }
            other => other.to_string(),
        }
    }
}

fn event_of(choices: &mut Choices) -> Json {
    let mut event = serde_json::json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": choices.text(), "level": "Metadata",
        "verb": choices.of(&["get", "list"]), "requestURI": choices.text(),
        "user": {"username": choices.text(), "groups": ["system:masters", choices.text()]},
        "responseStatus": {"metadata": {}, "code": choices.below(600)},
        "stageTimestamp": format!("2026-03-02T10:00:{:02}.{:06}Z", choices.below(60), choices.below(1_000_000)),
    });
    let mut set =
        |name: &str, value: Json| event.as_object_mut().expect("an object").insert(name.to_owned(), value);
    if choices.one_in(2) {
        set(
            "requestObject",
            serde_json::json!({"a": [1, {"b": choices.text(), "verb": "x"}], "auditID": "no"}),
        );
    }
    if choices.one_in(3) {
        set(
            "annotations",
            serde_json::json!({"authorization.k8s.io/decision": "allow", "x": choices.text()}),
        );
    }
    if choices.one_in(3) {
        set("sourceIPs", serde_json::json!([]));
    }
    if choices.one_in(4) {
        set(
            "requestReceivedTimestamp",
            Json::from(choices.of(&["2026-03-02T10:00:00Z", "2026-03-02T10:00:00.5+02:00"])),
        );
    }
    if choices.one_in(4) {
        set("objectRef", Json::Null);
    }
    event
}

/// Returns some records of one odd stream, each with its event.
fn odd_stream(seed: u64, count: usize) -> Vec<(String, String)> {
    let choices = &mut Choices(seed);
    let white = [["", "", "", ""], ["", "", " ", ""], [" ", " ", " ", " "], ["\n  ", "", " ", "\n"]];
    let odd = Odd {
        white: white[choices.below(4)],
        style: choices.below(4),
        order: choices.below(1 << 20) as u64,
        shuffles: choices.one_in(8),
        odd: if choices.one_in(2) { 0 } else { 1 + choices.below(40) },
    };
    let wrapper = choices.below(8);
    let added = choices.below(6);
    let mut records = Vec::new();
    for number in 0..count {
        let mut event = event_of(choices);
        let mut set = |name: &str, value: Json| {
            event.as_object_mut().expect("an object").insert(name.to_owned(), value)
        };
        if added & 1 != 0 {
            set("@timestamp", Json::from(format!("2026-03-02T10:00:{:02}Z", number % 60)));
            set("host", serde_json::json!({"name": "cp-$1", "ip": ["10.0.0.1", 7, null], "n": number / 4}));
        }
        if added & 2 != 0 {
            set("extra", Json::from(choices.text()));
            set("labels", serde_json::json!({"a": choices.below(3), "b": {"c": [], "d": {}}, "t": true}));
        }
        if added == 5 {
            set(&format!("new{}", choices.below(5)), Json::from(number));
        }
        let text = odd.value(&event, choices);
        let record = match wrapper {
            0 => format!("{}{text}{}", choices.of(&["", " "]), choices.of(&["", "  "])),
            1 => format!("2026-03-02T10:00:{:02}Z host $tag[{number}]: {text}", number % 60),
            2 => format!("{{\"log\": {text},\"n\":{number}}}"),
            3 => format!("{{\"n\":{number},\"message\":{}}}", odd.string(&text, choices)),
            4 => odd.string(&format!("{text}\n"), choices),
            5 => {
                let inner = format!("{{\"log\":{},\"${{}}\":1}}", odd.string(&text, choices));
                format!("x{number} {{\"a\":{{\"b\":{}}},\"c\":[1.50, -0e1]}} y", odd.string(&inner, choices))
            }
            _ => text.clone(),
        };
        records.push((record, text));
    }
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_stream_is_given_back(seed in any::<u64>(), count in 1_usize..40) {
        let records = odd_stream(seed, count);
        check(&rows_of(&records), records.iter().map(|(record, _)| record.as_str()));
    }
}

#[test]
fn many_odd_streams_have_forms() {
    let (mut formed, mut all) = (0, 0);
    for seed in 0..60 {
        let records = odd_stream(seed, 20);
        formed += check(&rows_of(&records), records.iter().map(|(record, _)| record.as_str())).0;
        all += records.len();
    }
    assert!(formed * 3 > all, "{formed} of {all}");
}

const EVENT: &str = r#""kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a-1","level":"Metadata","verb":"get","user":{"username":"u"}"#;

/// The columns of [`EVENT`].
const COLUMNS: Columns<'_> =
    Columns { there: 0b10_1101, request_object: None, response_object: None, event: None, times: [None; 2] };

/// Returns the templates of records that are events without a wrapper.
fn forms_of(records: &[String]) -> Vec<String> {
    let pairs: Vec<(String, String)> =
        records.iter().map(|record| (record.clone(), record.clone())).collect();
    let batch = rows_of(&pairs);
    let (formed, _) = check(&batch, records.iter().map(String::as_str));
    if formed == 0 { Vec::new() } else { templates(&batch) }
}

#[test]
fn what_is_the_same_is_in_the_form_and_what_varies_is_an_item() {
    let record = |n: usize| {
        format!(
            "{{{EVENT},\"@t\":\"2026-03-02T10:00:{n:02}Z\",\"host\":\"cp-1\",\"n\":{n},\"on\":true,\"v\":\"1\"}}"
        )
    };
    let common = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":${audit_id},"level":${level},"verb":${verb},"user":{"username":${user_name}}"#;
    let many: Vec<String> = (0..20).map(record).collect();
    let expected = format!(r#"{common},"@t":"${{}}","host":"cp-1","n":${{}},"on":true,"v":"1"}}"#);
    assert_eq!(forms_of(&many), [expected]);
    // After few records it is not known whether a number changes from record to record.
    let expected = format!(r#"{common},"@t":"${{}}","host":"${{}}","n":${{}},"on":true,"v":"${{}}"}}"#);
    for count in [1, 2] {
        assert_eq!(forms_of(&many[..count]), std::slice::from_ref(&expected));
    }
}

/// Returns a time of 2026-03-02 after 10:00, in microseconds since then.
fn time_of(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    format!("2026-03-02T10:{:02}:{:02}.{:06}Z", seconds / 60, seconds % 60, micros % 1_000_000)
}

/// Returns records with both times, and with `added(received, stage)` as further members.
fn timed(count: u64, added: impl Fn(u64, u64) -> String) -> Vec<String> {
    let record = |n: u64| {
        let (received, stage) = (n * 7_001_003, n * 7_001_003 + 1_234_567 + n);
        let (from, to) = (time_of(received), time_of(stage));
        let added = added(received, stage);
        format!("{{{EVENT},\"requestReceivedTimestamp\":\"{from}\",\"stageTimestamp\":\"{to}\",{added}}}")
    };
    (0..count).map(record).collect()
}

#[test]
fn copies_of_times_need_no_room() {
    /// Seconds from 1970 to 2026-03-02T10:00:00Z.
    const START: u64 = 1_772_445_600;
    let second = |micros: u64| START + micros / 1_000_000;
    let cut = |micros: u64, length: usize| format!("{}Z", &time_of(micros)[..length]);
    type Added<'a> = &'a dyn Fn(u64, u64) -> String;
    let cases: [(Added<'_>, &str); 9] = [
        (&|_, stage| format!("\"@t\":\"{}\"", time_of(stage)), "\"@t\":${=stage_timestamp}"),
        (
            &|from, _| format!("\"a\":{{\"@t\":\"{}\"}}", time_of(from)),
            "\"@t\":${=request_received_timestamp}",
        ),
        (&|_, stage| format!("\"@t\":\"{}\"", cut(stage, 23)), "\"@t\":${=stage_timestamp:3Z}"),
        (&|_, stage| format!("\"@t\":\"{}\"", cut(stage, 19)), "\"@t\":${=stage_timestamp:0Z}"),
        (&|_, stage| format!("\"@t\":{}", second(stage)), "\"@t\":${=stage_timestamp:s}"),
        (
            &|from, _| format!("\"@t\":{}", START * 1_000 + from / 1_000),
            "\"@t\":${=request_received_timestamp:ms}",
        ),
        (
            &|_, stage| format!("\"date\":{}.{:06}", second(stage), stage % 1_000_000),
            "\"date\":${=stage_timestamp:s.6}",
        ),
        (
            &|_, stage| format!("\"time\":{}.{:03}", second(stage), stage % 1_000_000 / 1_000),
            "\"time\":${=stage_timestamp:s.3}",
        ),
        (
            &|from, stage| format!("\"a\":\"{}\",\"b\":\"{}\"", time_of(from), time_of(stage)),
            "\"a\":${=request_received_timestamp},\"b\":${=stage_timestamp}",
        ),
    ];
    for (added, hole) in cases {
        let forms = forms_of(&timed(20, added));
        let [form] = forms.as_slice() else { panic!("one form for {hole}: {forms:?}") };
        assert!(form.contains(hole) && !form.contains("${}"), "{form}");
    }
}

#[test]
fn times_that_are_copies_by_chance_are_items() {
    let forms = |every: u64| {
        let stage_or_later = |stage: u64| stage + u64::from((stage / 7_001_003).is_multiple_of(every));
        forms_of(&timed(400, |_, stage| format!("\"@t\":\"{}\"", time_of(stage_or_later(stage)))))
    };
    // Most values are copies of a time. The records with other values have a second form.
    let most = forms(90);
    assert_eq!(most.len(), 2, "{most:?}");
    assert!(most.iter().any(|form| form.contains("\"@t\":${=stage_timestamp}")), "{most:?}");
    // Few values are copies of a time. The records that came before this was known have a form of
    // their own.
    for every in [1, 2, 5] {
        let few = forms(every);
        assert!(few.len() <= 2 && few.iter().any(|form| form.contains("\"@t\":\"${}\"")), "{few:?}");
    }
    // Values of members beyond the number that is remembered are not taken for copies.
    let many = |_: u64, stage: u64| {
        let member = |n: usize| format!("\"t{n}\":\"{}\"", time_of(stage));
        (0..20).map(member).collect::<Vec<_>>().join(",")
    };
    let forms = forms_of(&timed(20, many));
    assert_eq!(forms.iter().map(|form| form.matches("${=").count()).collect::<Vec<_>>(), [8]);
}

#[test]
fn a_stream_with_other_names_in_each_line_stays_bounded() {
    let records: Vec<String> = (0..3_000).map(|n| format!("{{{EVENT},\"member-{n}\":{n}}}")).collect();
    let pairs: Vec<(String, String)> =
        records.iter().map(|record| (record.clone(), record.clone())).collect();
    let mut learner = Learner::new();
    for (row, (record, _)) in pairs.iter().enumerate() {
        let (credit, before) = (learner.credit, learner.seen.len());
        learner.see(row, record.as_bytes(), &COLUMNS);
        assert!(learner.seen.len() <= CREDIT_MAX as usize && (credit > 0 || learner.seen.len() == before));
    }
    let batch = rows_of(&pairs);
    let (formed, forms) = check(&batch, records.iter().map(String::as_str));
    assert!(formed <= FORMS_IN_BLOCK_MAX && forms <= FORMS_IN_BLOCK_MAX, "{formed}");
    // The forms of a block take no more room than the records that they replace.
    let templates: usize = templates(&batch).iter().map(String::len).sum();
    assert!(templates <= records.iter().take(FORMS_IN_BLOCK_MAX * 2).map(String::len).sum());
}

#[test]
fn records_without_a_form_end_the_search() {
    let record = format!("{{{EVENT},\"note\":\"{{\"}}");
    let mut learner = Learner::new();
    for row in 0..1_000 {
        learner.see(row, record.as_bytes(), &COLUMNS);
    }
    assert_eq!((learner.credit, learner.seen.len()), (0, 0));
    assert!(learner.finish().is_none());
    assert_eq!(learner.credit, CREDIT_MAX);
}

#[test]
fn what_has_no_form_keeps_raw() {
    let odd = [
        // An object inside the event could be taken for the event.
        format!("{{{EVENT},\"x\":{{\"auditID\":\"b\"}}}}"),
        format!("{{{EVENT},\"x\":[{{\"verb\":\"b\"}}]}}"),
        // A string could contain such an object.
        format!("{{{EVENT},\"x\":\"{{}}\"}}"),
        format!("{{{EVENT},\"x\":\"\\\\u007b\"}}"),
        // Names.
        format!("{{{EVENT},\"Verb\":\"delete\"}}"),
        format!("{{{EVENT},\"verb\":\"get\"}}"),
        format!("{{{EVENT},\"a\":1,\"A\":2}}"),
        format!("{{{EVENT},\"\\u0061\":1}}"),
        // Times in another zone, with more decimals than a column has, in other letters.
        format!("{{{EVENT},\"stageTimestamp\":\"2026-03-02T10:00:00+02:00\"}}"),
        format!("{{{EVENT},\"stageTimestamp\":\"2026-03-02T10:00:00.123456789Z\"}}"),
        format!("{{{EVENT},\"stageTimestamp\":\"2026-03-02t10:00:00z\"}}"),
        // Lists.
        format!("{{{EVENT},\"sourceIPs\":[\"a\", \"b\",\"c\"]}}"),
        // Escapes that no style has, and two styles in one string.
        format!("{{{EVENT},\"userAgent\":\"\\u0041\"}}"),
        format!("{{{EVENT},\"userAgent\":\"&\\u0026\"}}"),
    ];
    for record in odd {
        assert_eq!(forms_of(std::slice::from_ref(&record)), [""; 0], "{record}");
    }
}

#[test]
fn codecs_that_differ_make_another_form_of_the_same_members() {
    let record = |agent: &str| format!("{{\"note\":\"x\",{EVENT},\"userAgent\":\"{agent}\"}}");
    let records = [record("a<b"), record("c\\u003cd"), record("plain"), record("e\\u003cf"), record("g<h")];
    let forms = forms_of(&records);
    assert_eq!(forms.len(), 2, "{forms:?}");
    assert!(forms[0].contains("${user_agent:json}") && forms[1].contains("${user_agent}"), "{forms:?}");
}

#[test]
fn levels_that_openshift_moved() {
    let event =
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","level":"Request","verb":"get"}"#;
    let records = [
        r#"{"apiVersion":"audit.k8s.io/v1","auditID":"a","k8s_audit_level":"Request","kind":"Event","level":"default","verb":"get"}"#,
        r#"{"apiVersion":"audit.k8s.io/v1","auditID":"a","kind":"Event","level":"default","openshift_audit_level":"Request","verb":"get"}"#,
        r#"{"apiVersion":"audit.k8s.io/v1","auditID":"a","k8s_audit_level":"Request","kind":"Event","verb":"get"}"#,
    ];
    for record in records {
        let pairs = [(record.to_owned(), event.to_owned())];
        let batch = rows_of(&pairs);
        assert_eq!(check(&batch, [record]), (1, 1), "{record}");
        assert!(templates(&batch)[0].contains("_audit_level\":${level}"), "{record}");
    }
    // The member from which the level is read has a level that the row does not have.
    for record in [
        records[0].replace("Request", "Metadata"),
        records[0].replace("default", "Metadata"),
        records[0].replace("k8s", "K8s"),
    ] {
        let pairs = [(record.clone(), event.to_owned())];
        assert_eq!(check(&rows_of(&pairs), [record.as_str()]).0, 0, "{record}");
    }
}

#[test]
fn a_block_is_learned_from_alone() {
    let plain = lines(300, 5);
    let records = dialect(&plain, Dialect::Front, true);
    let log = records.join("\n") + "\n";
    let decode = || decode_bytes(log.as_bytes(), "c", "p").expect("columns").events;
    assert_eq!(decode(), decode());
    let mut learner = Learner::new();
    learner.see(0, records[0].as_bytes(), &Columns { there: 0, ..COLUMNS });
    assert!(learner.finish().is_none());
}
