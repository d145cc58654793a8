//! Output of the command lines and search pages of log stores. Events are taken out of it, or the
//! reject says how to convert it.

use std::path::Path;

use serde_json::{Value, json};

use crate::run::{expect_code, export, ingest, log, number, write};

fn events(count: u64, seed: u64) -> Vec<String> {
    String::from_utf8(log(count, seed)).expect("text").lines().map(str::to_owned).collect()
}

fn lines(values: impl IntoIterator<Item = Value>) -> String {
    values.into_iter().map(|value| format!("{value}\n")).collect()
}

/// Ingests a text, and returns what was printed on standard error.
fn ingested(folder: &Path, name: &str, text: &str, options: &[&str], code: i32) -> String {
    let archive = folder.join(format!("{name}.archive"));
    let path = write(folder, name, text.as_bytes());
    let (_, err) = expect_code(ingest(&archive, &[&path]).arg("--complete").args(options), code);
    assert!(export(&archive) == text.as_bytes(), "{name}");
    err
}

/// `aws logs … --query 'events[].message'` prints an array of strings.
#[test]
fn an_array_of_strings_gives_the_event_in_each() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (folder, events) = (folder.path(), events(40, 61));
    let array = Value::from(events.clone());
    let pretty = serde_json::to_string_pretty(&array).expect("text") + "\n";
    for (name, text) in [("pretty.json", pretty), ("compact.json", format!("{array}\n"))] {
        let err = ingested(folder, name, &text, &[], 0);
        assert!(err.contains("received 40 = events 40 + rejects 0"), "{name}: {err}");
    }
    // If one of the strings is not an event, it is a reject, and the others are events.
    let mut mixed = events.clone();
    mixed.insert(20, "a line of another log".to_owned());
    let text = serde_json::to_string_pretty(&mixed).expect("text");
    let err = ingested(folder, "mixed.json", &text, &[], 1);
    assert!(err.contains("received 41 = events 40 + rejects 1"), "{err}");
    // If the first string of an array is not an event, no string of it is taken: the array may be a
    // list of a client that was cut out of an event.
    mixed.swap(0, 20);
    let text = serde_json::to_string_pretty(&mixed).expect("text");
    let err = ingested(folder, "client.json", &text, &[], 1);
    assert!(err.contains("events 0 + rejects 41"), "{err}");
}

#[test]
fn results_of_searches_say_how_to_read_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (folder, events) = (folder.path(), events(5, 62));
    let rows = |row: &dyn Fn(usize, &str) -> Value| -> Vec<Value> {
        events.iter().enumerate().map(|(at, event)| row(at, event)).collect()
    };
    let splunk = rows(&|at, event| json!({"preview": false, "offset": at, "result": {"_raw": event}}));
    let dump = rows(&|at, event| json!({"_index": "a", "_id": at, "_source": {"message": event}}));
    for (name, text, path) in
        [("splunk.json", lines(splunk), "result._raw"), ("dump.json", lines(dump), "_source.message")]
    {
        let err = ingested(folder, name, &text, &[], 1);
        assert!(err.contains(&format!("--unwrap {path} ")), "{err}");
        let err = ingested(folder, &format!("{name}.unwrapped"), &text, &["--unwrap", path], 0);
        assert!(err.contains("events 5 + rejects 0"), "{err}");
    }
    let hits = rows(&|at, event| json!({"_id": at, "_source": {"message": event}}));
    let values = rows(&|at, event| json!([at.to_string(), event]));
    let raws = rows(&|_, event| json!({"_raw": event}));
    let loki = json!({"status": "success", "data": {"resultType": "streams", "result": [{"stream": {}, "values": values}]}});
    for (name, object, path) in [
        ("hits.json", json!({"took": 3, "hits": {"hits": hits}}), ".hits.hits[]._source.message"),
        ("results.json", json!({"results": raws}), ".results[]._raw"),
        ("loki.json", loki, ".data.result[].values[][]"),
    ] {
        let err = ingested(folder, name, &lines([object]), &[], 1);
        assert!(err.contains(&format!("at {path}: ")) && err.contains("`jq -c`"), "{name}: {err}");
    }
    let logcli = rows(
        &|_, event| json!({"labels": {"job": "audit"}, "line": event, "timestamp": "2026-03-02T10:00:00Z"}),
    );
    let err = ingested(folder, "logcli.jsonl", &lines(logcli), &[], 0);
    assert!(err.contains("events 5 + rejects 0"), "{err}");
    let text: String = events
        .iter()
        .map(|event| format!("2026-03-02T10:00:00Z {{job=\"audit\", host=\"a\"}} {event}\n"))
        .collect();
    assert!(ingested(folder, "logcli.txt", &text, &[], 1).contains("logcli query --output=raw"));
    let cell = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let first: String = events.iter().map(|event| format!("{},x\n", cell(event))).collect();
    let second: String = events.iter().map(|event| format!("1700000000000,{}\n", cell(event))).collect();
    for (name, text) in [
        ("first.csv", format!("_raw,_time\n{first}")),
        ("second.csv", format!("timestamp,message\n{second}")),
    ] {
        assert!(ingested(folder, name, &text, &[], 1).contains("mlr --icsv --ojsonl cat"), "{name}");
    }
    assert_eq!(number(&folder.join("first.csv.archive"), "SELECT count(*) FROM rejects"), 6);
}
