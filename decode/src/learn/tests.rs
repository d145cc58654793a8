use std::fmt::Write as _;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, RecordBatch};
use proptest::prelude::*;
use serde_json::Value as Json;
use strongroom_generate::{Generator, GeneratorOptions};
use strongroom_schemas::events::index;
use strongroom_schemas::form::{FORMS_IN_BLOCK_MAX, Form};

use super::*;
use crate::plain;
use crate::rows::{Place as At, Rows};
use crate::{DEPTH_MAX, decode_bytes};

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

/// Returns the rows of records, each of which has the event that follows it.
fn rows_of(records: &[(String, String)]) -> RecordBatch {
    let mut rows = Rows::new();
    for (record, event) in records {
        let event = plain::decode(event.as_bytes(), DEPTH_MAX).unwrap_or_else(|why| panic!("{why:?}: {event}"));
        let row = rows.plain_row(&event, record.as_bytes());
        rows.push(&row, &At { offset: 0, before: &[] }, record.as_bytes());
    }
    rows.finish().expect("columns")
}

/// Checks that each row gives its record, and that all forms are forms. Returns the number of rows
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
                    write!(out, "\\u{unit:04x}").expect("memory");
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
    let crate::json::Members(members) = serde_json::from_str(line).expect("an object");
    members.into_iter().map(|(name, value)| (name.into_owned(), serde_json::from_str(value.get()).expect("JSON"))).collect()
}

#[derive(Clone, Copy, Debug)]
enum Dialect {
    Sorted,
    Front,
    Logstash,
    Python,
}

/// Re-serialises a log. `jitter` changes the added time and adds an offset that grows.
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
                (Some(Json::String(time)), true) => Json::from(format!("{}{:03}Z", &time[..20], number * 7 % 1000)),
                (time, _) => time.unwrap_or_default(),
            };
            let (mut before, mut after) = (Vec::new(), Vec::new());
            let mut add = |list: &mut Vec<(String, Json)>, name: &str, value: Json| list.push((name.to_owned(), value));
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
    let plain = lines(20_000, 7);
    for kind in [Dialect::Sorted, Dialect::Front, Dialect::Logstash, Dialect::Python] {
        for jitter in [false, true] {
            let lines = dialect(&plain, kind, jitter);
            let (formed, forms) = check_log(&lines);
            println!("{kind:?} {jitter}: {formed} of {} rows, {forms} forms", lines.len());
            assert!(formed * 100 >= lines.len() * 99, "{kind:?} {jitter}: {formed} of {}, {forms} forms", lines.len());
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text")
}

#[test]
fn wrappers_of_whole_lines_need_no_raw() {
    let plain = lines(3_000, 3);
    type Wrap = fn(usize, &str) -> String;
    let wrappers: [(&str, Wrap); 8] = [
        ("message", |n, line| {
            format!(r#"{{"@timestamp":"2026-03-02T10:00:0{}.{:03}Z","message":{},"host":"cp-1"}}"#, n % 10, n % 1000, quoted(line))
        }),
        ("literal", |_, line| quoted(line)),
        ("docker", |n, line| {
            format!(r#"{{"log":{},"stream":"stdout","time":"2026-03-02T10:00:00.{n:09}Z"}}"#, quoted(&format!("{line}\n")))
        }),
        ("cri", |n, line| format!("2026-03-02T10:00:00.{n:09}Z stdout F {line}")),
        ("syslog", |n, line| format!("<133>Oct  1 10:37:{:02} node1.example.org k8s-audit[{}]: {line}", n % 60, n % 7)),
        ("object", |n, line| format!(r#"{{"log":{{"offset":{n},"file":{{"path":"/var/log/a.log"}}}},"json":{line},"tags":["a","b"]}}"#)),
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
