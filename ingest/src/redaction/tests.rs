//! Tests that a redacted block contains what the redacted events contain, and that nothing else
//! changes.

use std::collections::HashSet;

use arrow_schema::DataType;
use proptest::prelude::*;
use serde_json::json;
use strongroom_decode::Decoder;
use strongroom_decode::meaning::compare_events;
use strongroom_lines::frame::{Edge, LineSoFar};
use strongroom_lines::{Block, LINE_BYTES_MAX};
use strongroom_redact::{Key, Keys, Policy, RuleSettings, Settings, is_encrypted};
use strongroom_schemas::format::EVENTS_FORMAT;
use strongroom_schemas::record::leaf_hash;

use super::*;

mod ways;

const MARK: &str = "zQmK";

fn redactor() -> Arc<Redactor> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let settings = Settings {
        key: Some("env:UNUSED".to_owned()),
        presets: texts(&["secrets"]),
        rules: vec![
            RuleSettings {
                resources: texts(&["configmaps"]),
                paths: texts(&["requestObject.data.*", "user.username"]),
                action: "tokenise".to_owned(),
                ..RuleSettings::default()
            },
            RuleSettings {
                paths: texts(&["requestURI.command", "annotations[\"x.io/note\"]"]),
                action: "drop".to_owned(),
                ..RuleSettings::default()
            },
        ],
        ..Settings::default()
    };
    let policy = Policy::new(&settings).expect("a policy");
    let key = Key::parse(&"5a".repeat(32)).expect("a key");
    Arc::new(Redactor::new(policy, Keys::new(key, Vec::new()).expect("one id")))
}

/// Returns an event of a kind. The policy does not change events of the kinds from 4 on.
fn event(kind: u8, number: usize) -> String {
    let mark = format!("{MARK}{number}");
    let (resource, uri, user, body, note) = match kind {
        0 => ("secrets", "/s", "eve", json!({"kind": "Secret", "data": {"a": mark, "b": mark}}), ""),
        1 => ("configmaps", "/c", mark.as_str(), json!({"data": {"a": mark}, "kept": "yes"}), ""),
        2 => ("pods", "/p/exec", "eve", json!({}), ""),
        3 => ("nodes", "/n", "eve", json!({}), mark.as_str()),
        4 => ("nodes", "/n?x=1", "eve", json!({"kept": number}), ""),
        _ => ("secrets", "/s", "eve", json!({"kind": "Secret", "type": "Opaque"}), ""),
    };
    let query = if kind == 2 { format!("?command={mark}&stdin=true") } else { String::new() };
    let note = if note.is_empty() { String::new() } else { format!(r#","x.io/note":"{note}""#) };
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"id-{number}","stage":"ResponseComplete","requestURI":"{uri}{query}","verb":"create","user":{{"username":"{user}","groups":["a","b"]}},"sourceIPs":["10.0.0.7"],"objectRef":{{"resource":"{resource}","namespace":"n","name":"o","apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":201}},"requestObject":{body},"requestReceivedTimestamp":"2026-03-02T10:00:00.000001Z","stageTimestamp":"2026-03-02T10:00:00.000002Z","annotations":{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""{note}}}}}"#
    )
}

/// Puts an event into a wrapper, or damages it.
fn line(text: &str, wrapper: u8) -> String {
    let literal = || serde_json::to_string(text).expect("a string");
    match wrapper {
        0 => text.to_owned(),
        1 => format!("Mar  2 10:00:00 master kube-apiserver[1]: {text}"),
        2 => format!(r#"{{"message":{0},"event":{{"original":{0}}}}}"#, literal()),
        3 => format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{text},{text}]}}"#),
        4 => serde_json::from_str::<serde_json::Value>(text).expect("JSON").to_string(),
        5 => literal(),
        6 => text[..text.len() - 40].to_owned(),
        // Copies of an event beside events in which nothing may be replaced, before and after the
        // event itself.
        7 => format!(
            r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{"copy":{copy}}},"items":[{other},{text},{other}],"copy":{copy}}}"#,
            copy = literal(),
            other = event(4, 0)
        ),
        8 => {
            let other = serde_json::to_string(&event(4, 0)).expect("a string");
            format!(
                r#"{{"records":[{{"category":"kube-audit","properties":{{"log":{copy}}}}},{{"copy":{copy},"category":"kube-audit","properties":{{"log":{other}}},"more":{copy}}}]}}"#,
                copy = literal()
            )
        }
        _ => format!("no event {MARK}"),
    }
}

fn block(log: &str) -> Block {
    let origin = Origin { partition: "file/x".to_owned(), cluster: "c".to_owned(), reading: Arc::default() };
    Block {
        origin: Arc::new(origin),
        offset: 0,
        first_line: 1,
        bytes: log.as_bytes().to_vec(),
        begins: LineSoFar::default().edge(log.as_bytes(), LINE_BYTES_MAX),
        ends: Edge::Line,
        open_ended: false,
    }
}

/// Returns the offsets of a table's rows.
fn offsets(batch: &RecordBatch, column: usize) -> Vec<i64> {
    batch.column(column).as_primitive::<Int64Type>().values().to_vec()
}

/// Whether a value of a row has a marker. Entries of a dictionary that no row uses do not count.
fn has_marker(batch: &RecordBatch) -> bool {
    let rows: Int64Array = (0..batch.num_rows() as i64).map(Some).collect();
    batch.columns().iter().any(|column| {
        let column = take(column, &rows, None).expect("rows");
        match column.data_type() {
            DataType::Dictionary(..) => {
                let column = column.as_dictionary::<Int32Type>();
                (0..column.len())
                    .any(|row| dictionary_value(column, row).is_some_and(|text| text.contains(MARK)))
            }
            DataType::Utf8 => column.as_string::<i32>().iter().flatten().any(|text| text.contains(MARK)),
            DataType::Binary => column
                .as_binary::<i32>()
                .iter()
                .flatten()
                .any(|bytes| memchr::memmem::find(bytes, MARK.as_bytes()).is_some()),
            DataType::List(_) => format!("{column:?}").contains(MARK),
            _ => false,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_redacted_block_says_what_its_records_say(
        lines in proptest::collection::vec((0_u8..6, 0_u8..10), 1..20),
    ) {
        let texts: Vec<String> =
            lines.iter().enumerate().map(|(at, (kind, wrapper))| line(&event(*kind, at % 4), *wrapper) + "\n").collect();
        let block = block(&texts.concat());
        let mut decoder = Decoder::new(DecoderConfig::default());
        let decoded = decoder.decode_to_seal(&block, DateTime::UNIX_EPOCH).expect("columns");
        let (clear, clear_hashes) = (decoded.events, decoded.record_hashes);
        let redactor = redactor();
        let mut redaction = Redaction::new(Arc::clone(&redactor), DecoderConfig::default());
        let later = redaction.hashed_later(&block.origin);
        let decoded = decoder.decode_to_change(&block, DateTime::UNIX_EPOCH, later).expect("columns");
        prop_assert_eq!(&decoded.events, &clear);
        let (records, clear_offsets) = (decoded.records(), offsets(&clear, index::SOURCE_OFFSET));
        let changes = redaction.changes(&decoded.events, &block.origin).expect("columns");
        let (redacted, counts) =
            redaction.apply(decoded, changes, &block.origin, DateTime::UNIX_EPOCH).expect("columns");

        // Nothing is lost, moved or left in clear.
        prop_assert_eq!(redacted.records(), records);
        prop_assert!(!has_marker(&redacted.events) && !has_marker(&redacted.rejects));
        let kept: HashSet<i64> = offsets(&redacted.events, index::SOURCE_OFFSET).into_iter().collect();
        let rejected = offsets(&redacted.rejects, rejects::index::SOURCE_OFFSET);
        prop_assert!(rejected.is_sorted());
        prop_assert!(clear_offsets.iter().all(|offset| kept.contains(offset) || rejected.contains(offset)));
        let raw = redacted.rejects.column(rejects::index::RAW).as_binary::<i32>();
        prop_assert!(raw.iter().flatten().all(is_encrypted));

        // In each record a verifier finds what the columns say, and each hash is that of its
        // record.
        let mut found = Vec::new();
        let mut records = Vec::new();
        compare_events(&redacted.events, EVENTS_FORMAT, &mut |record| records.push(record.to_vec()), &mut |row, how| {
            found.push((row, how.to_string()));
        })
        .expect("events");
        prop_assert_eq!(found, Vec::new());
        let marks = redacted.events.column(index::REDACTION).as_dictionary::<Int32Type>();
        for (row, record) in records.iter().enumerate() {
            let hash = match dictionary_value(marks, row) {
                Some(mark) => redacted_leaf_hash(mark, record),
                None => leaf_hash(record),
            };
            prop_assert_eq!(redacted.record_hashes[row], hash);
        }
        prop_assert_eq!(counts.events as usize, marks.len() - marks.null_count());

        // A row that is not changed is what it was, and the others are the same events.
        let offsets = offsets(&redacted.events, index::SOURCE_OFFSET);
        for (row, offset) in offsets.iter().enumerate() {
            let was = clear_offsets.iter().position(|clear| clear == offset).expect("a clear row has it");
            if marks.is_null(row) {
                prop_assert_eq!(redacted.record_hashes[row], clear_hashes[was]);
                continue;
            }
            for column in IDENTITY.into_iter().chain([index::USER_GROUPS, index::SOURCE_IPS]) {
                let pair = Pair::of(clear.column(column), redacted.events.column(column));
                prop_assert!(pair.is_equal(was, row));
            }
        }
    }
}

/// Tests that similar events change as if each were edited alone. Only one of them is edited; the
/// others take over its result.
#[test]
fn events_that_are_alike_are_changed_alone_or_together_in_the_same_way() {
    let kinds = [2, 3, 1, 4, 2, 3, 2, 0, 3, 1, 2, 3];
    let lines: Vec<String> = kinds
        .iter()
        .enumerate()
        .map(|(at, kind)| {
            // Each event has its own time, address and object.
            let text = event(*kind, at % 2).replace("10.0.0.7", &format!("10.0.0.{at}"));
            let text = text.replace(r#""name":"o""#, &format!(r#""name":"o-{at}""#));
            text.replace(r#""requestObject":{},"#, "")
        })
        .collect();
    let redact = |log: &str| {
        let block = block(log);
        let mut redaction = Redaction::new(redactor(), DecoderConfig::default());
        let later = redaction.hashed_later(&block.origin);
        let mut decoder = Decoder::new(DecoderConfig::default());
        let decoded = decoder.decode_to_change(&block, DateTime::UNIX_EPOCH, later).expect("columns");
        let is_of_annotation = log.contains("x.io/note");
        assert!(!decoded.unhashed.is_empty() || !log.contains(MARK) || is_of_annotation, "hashed once");
        let changes = redaction.changes(&decoded.events, &block.origin).expect("columns");
        let made = changes.originals.len();
        let (redacted, counts) =
            redaction.apply(decoded, changes, &block.origin, DateTime::UNIX_EPOCH).expect("columns");
        (redacted, counts, made)
    };
    let (together, counts, made) = redact(&(lines.join("\n") + "\n"));
    assert!(made < counts.events as usize, "{made} of {}", counts.events);
    assert_eq!(counts.events, 11);
    let mut alone_counts = RedactionCounts::default();
    let renderer = Renderer::new(&together.events).expect("columns");
    for (row, line) in lines.iter().enumerate() {
        let (alone, counts, _) = redact(&(line.clone() + "\n"));
        alone_counts.add(counts);
        assert_eq!(alone.record_hashes[0], together.record_hashes[row], "{line}");
        let (mut one, mut other) = (Vec::new(), Vec::new());
        Renderer::new(&alone.events).expect("columns").record(0, &mut one).expect("a record");
        renderer.record(row, &mut other).expect("a record");
        assert_eq!(String::from_utf8_lossy(&one), String::from_utf8_lossy(&other));
        let mark = |batch: &RecordBatch, row| {
            dictionary_value(batch.column(index::REDACTION).as_dictionary(), row).map(str::to_owned)
        };
        assert_eq!(mark(&alone.events, 0), mark(&together.events, row));
    }
    assert_eq!(alone_counts, counts);
}

#[test]
fn a_detail_of_a_reject_repeats_nothing() {
    let text = event(4, 1);
    let log = [
        format!(r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"{MARK}1","ob[Truncated...]"#),
        format!(r#"{{"a-{MARK}2":{text}}}"#),
        format!(r#"{{"a-{MARK}3":[{text}]}}"#),
    ];
    let block = block(&(log.join("\n") + "\n"));
    let mut decoder = Decoder::new(DecoderConfig::default());
    let decoded = decoder.decode_to_seal(&block, DateTime::UNIX_EPOCH).expect("columns");
    let details = |batch: &RecordBatch| {
        let details = batch.column(rejects::index::DETAIL).as_string::<i32>();
        details.iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    let clear = details(&decoded.rejects);
    assert!(clear.len() == 3 && clear.iter().all(|detail| detail.contains(MARK)), "{clear:?}");
    let mut redaction = Redaction::new(redactor(), DecoderConfig::default());
    let changes = redaction.changes(&decoded.events, &block.origin).expect("columns");
    let (redacted, _) =
        redaction.apply(decoded, changes, &block.origin, DateTime::UNIX_EPOCH).expect("columns");
    assert!(!has_marker(&redacted.rejects));
    let left = details(&redacted.rejects);
    assert!(left.iter().zip(&clear).all(|(left, clear)| !left.is_empty() && clear.starts_with(left)));
}

/// Tests lists whose items may be in other blocks than their first and last members.
#[test]
fn a_list_says_nothing_of_its_items_beside_them() {
    let text = event(4, 1);
    for (before, after) in [
        (format!(r#","metadata":{{"continue":"{MARK}1"}}"#), String::new()),
        (format!(r#","metadata":{{"resourceVersion":"{MARK}1"}}"#), String::new()),
        (String::new(), format!(r#","metadata":{{"selfLink":"{MARK}1"}}"#)),
        (String::new(), format!(r#","apiVersion":"{MARK}1""#)),
    ] {
        let head = format!(r#"{{{}"kind":"EventList"{before}"#, "\n");
        let document = format!("{head},\n\"items\":[\n{text},\n{text}\n]{after}\n}}\n");
        for log in [document.clone(), document.replace('\n', "") + "\n"] {
            let mut block = block(&log);
            block.begins = LineSoFar::default().edge(log.as_bytes(), LINE_BYTES_MAX);
            let mut decoder = Decoder::new(DecoderConfig::default());
            let decoded = decoder.decode_to_seal(&block, DateTime::UNIX_EPOCH).expect("columns");
            assert!(decoded.events.num_rows() == 2 && has_marker(&decoded.events), "{log}");
            let mut redaction = Redaction::new(redactor(), DecoderConfig::default());
            let changes = redaction.changes(&decoded.events, &block.origin).expect("columns");
            let (redacted, _) =
                redaction.apply(decoded, changes, &block.origin, DateTime::UNIX_EPOCH).expect("columns");
            assert!(!has_marker(&redacted.events), "{log}");
            assert_eq!((redacted.events.num_rows(), redacted.rejects.num_rows()), (2, 0));
        }
    }
}

#[test]
fn rejects_that_are_stored_are_left_out_whatever_the_policy_is() {
    let log = [line(&event(0, 1), 0), line(&event(4, 2), 0), line(&event(0, 3), 0)].join("\n") + "\n";
    let block = block(&log);
    let mut decoder = Decoder::new(DecoderConfig::default());
    let decoded = decoder.decode_to_seal(&block, DateTime::UNIX_EPOCH).expect("columns");
    let all = offsets(&decoded.events, index::SOURCE_OFFSET);
    let (left, count) = leave_out(decoded, &HashSet::from([all[1], 7])).expect("columns");
    assert_eq!((count, left.record_hashes.len()), (1, 2));
    assert_eq!(offsets(&left.events, index::SOURCE_OFFSET), [all[0], all[2]]);
}

#[test]
fn only_lines_with_a_redacted_record_lose_what_is_around_their_records() {
    let list = |first: &str, second: &str| {
        format!(r#"{{"kind":"EventList","items":[{first},{second}],"metadata":{{"resourceVersion":"1"}}}}"#)
    };
    let (kept, changed) = (event(4, 1), event(0, 2));
    let lines = [
        list(&kept, &kept),
        list(&kept, &changed),
        list(&kept, &kept),
        list(&changed, &kept),
        list(&kept, "{\"kind\":\"Pod\"}"),
        line(&kept, 1),
        list(&kept, &kept),
    ];
    let block = block(&(lines.join("\n\n") + "\n"));
    let decoded =
        Decoder::new(DecoderConfig::default()).decode_to_seal(&block, DateTime::UNIX_EPOCH).expect("columns");
    assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (12, 1));
    let mut redaction = Redaction::new(redactor(), DecoderConfig::default());
    let changes = redaction.changes(&decoded.events, &block.origin).expect("columns");
    let (clear, applied) = (decoded.events.clone(), |decoded, changes| {
        redaction.apply(decoded, changes, &block.origin, DateTime::UNIX_EPOCH).expect("columns").0
    });
    let redacted = applied(decoded, changes);
    for column in [index::FRAME_BEFORE, index::FRAME_AFTER] {
        let (was, is) = (clear.column(column), redacted.events.column(column));
        for row in 0..12 {
            let (was, is) = (was.slice(row, 1), is.slice(row, 1));
            assert!(
                if (2..4).contains(&row) || (6..9).contains(&row) { is.is_null(0) } else { was == is },
                "{row}"
            );
        }
    }
    // If no part of the policy applies to anything here, nothing changes.
    assert!(clear.column(index::FRAME_AFTER).null_count() < 12);
}
