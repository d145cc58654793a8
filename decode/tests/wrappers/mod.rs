//! Events in the wrappers of managed clouds are decoded like bare events, and given back with the
//! wrapper.

use std::fmt::Write as _;
use std::slice::from_ref;

use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use strongroom_lines::frame::PART_BYTES;
use strongroom_lines::wrapper::SHAPE_GOOGLE;
use strongroom_lines::{EventPath, Writers};

mod blocks;
mod carriers;
mod field;
mod layers;
mod lists;
mod paths;

use super::*;

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string")
}

fn lines(seed: u64, events: u64) -> Vec<String> {
    let log = String::from_utf8(generated(events, seed)).expect("UTF-8");
    log.lines().map(str::to_owned).collect()
}

fn eks_stream(stream: &str, messages: &[String]) -> String {
    let events: Vec<String> = messages
        .iter()
        .enumerate()
        .map(|(at, message)| {
            format!(r#"{{"id":"3719{at:052}","timestamp":1700000000{at:03},"message":{}}}"#, quoted(message))
        })
        .collect();
    format!(
        r#"{{"messageType":"DATA_MESSAGE","owner":"123456789012","logGroup":"/aws/eks/prod/cluster","logStream":"{stream}","subscriptionFilters":["audit"],"logEvents":[{}]}}"#,
        events.join(",")
    )
}

fn eks(messages: &[String]) -> String {
    eks_stream("kube-apiserver-audit-0123456789abcdef0123456789abcdef", messages)
}

const CONTROL: &str = r#"{"messageType":"CONTROL_MESSAGE","owner":"CloudwatchLogs","logGroup":"","logStream":"","subscriptionFilters":[],"logEvents":[{"id":"","timestamp":1510109208016,"message":"CWL CONTROL MESSAGE: Checking health of destination Firehose."}]}"#;

fn export_lines(messages: &[String]) -> String {
    messages.iter().fold(String::new(), |mut text, message| {
        writeln!(text, "2026-01-01T00:00:00.000Z {message}").expect("writing to a String");
        text
    })
}

fn aks_record(category: &str, log: &str) -> String {
    format!(
        r#"{{"operationName":"Microsoft.ContainerService/managedClusters/diagnosticLogs/Read","category":"{category}","ccpNamespace":"5eb120ce57f96500011bde2d","resourceId":"/SUBSCRIPTIONS/S/RESOURCEGROUPS/R/PROVIDERS/MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/PROD","properties":{{"log":{log},"stream":"stdout","pod":"kube-apiserver-79599f95c7-qn557"}},"time":"2020-05-05T16:16:37.0000000Z","Cloud":"AzureCloud"}}"#
    )
}

/// Returns a record as Azure writes it, with the newline of the log line inside the string.
fn aks_string(category: &str, line: &str) -> String {
    aks_record(category, &quoted(&format!("{line}\n")))
}

fn batch(records: &[String]) -> String {
    format!(r#"{{"records":[{}]}}"#, records.join(","))
}

/// Checks that the events of `wrapped` equal those of `bare` in each column that the bytes of an
/// event determine.
fn same_events(wrapped: &DecodedBlock, bare: &[String]) {
    let direct = decode_bytes(bare.join("\n").as_bytes(), "c", "p").expect("columns");
    assert_eq!(direct.events.num_rows(), bare.len());
    assert_eq!(wrapped.events.num_rows(), bare.len(), "{:?}", reasons(wrapped));
    for row in 0..bare.len() {
        assert_eq!(plain_row(&wrapped.events, row), plain_row(&direct.events, row), "row {row}");
    }
}

/// Returns the number of events whose record does not follow from the columns alone, so that the
/// row has `raw` or a form.
fn raws(decoded: &DecodedBlock) -> usize {
    let (raw, form) = (decoded.events.column(index::RAW), decoded.events.column(index::FORM));
    2 * raw.len() - raw.null_count() - form.null_count()
}

fn details(decoded: &DecodedBlock) -> Vec<String> {
    let detail = decoded.rejects.column(rejects::index::DETAIL).as_string::<i32>();
    detail.iter().flatten().map(str::to_owned).collect()
}

#[test]
fn subscriptions_of_eks() {
    let events = lines(31, 60);
    let (one, many) = (eks(&events[..1]), eks(&events));
    same_events(&check(one.as_bytes()), &events[..1]);
    same_events(&check(many.as_bytes()), &events);
    same_events(
        &check(format!("\u{feff}{many}\r\n{one}\n").as_bytes()),
        &[&events[..], &events[..1]].concat(),
    );

    let decoded = check(format!("{CONTROL}\n{one}\n{CONTROL}\n").as_bytes());
    same_events(&decoded, &events[..1]);
    assert_eq!(reasons(&decoded), ["other_category"; 2]);

    let cut = format!("{}[Truncated...]", &events[1][..events[1].len() / 2]);
    let decoded = check(eks(&[events[0].clone(), cut, events[2].clone()]).as_bytes());
    same_events(&decoded, &[events[0].clone(), events[2].clone()]);
    assert_eq!(reasons(&decoded), ["truncated_by_cloud"]);
}

/// Events in other streams are refused, because workloads may write anything there.
#[test]
fn other_streams_and_categories_are_counted_and_kept() {
    let events = lines(32, 3);
    for stream in ["kube-apiserver-0123456789abcdef", "authenticator-0123", "app/kube-apiserver-audit-1", ""]
    {
        let decoded = check(eks_stream(stream, &events).as_bytes());
        assert_eq!(
            (decoded.events.num_rows(), reasons(&decoded)),
            (0, vec!["untrusted_origin".to_owned(); 3])
        );
    }
    let without_stream = eks(&events).replacen("logStream", "stream", 1);
    assert_eq!(reasons(&check(without_stream.as_bytes())), ["untrusted_origin"; 3]);

    for category in ["kube-scheduler", "guard", "cluster-autoscaler", "kube-audit2", ""] {
        let forged = aks_string(category, &events[1]);
        let decoded = check(forged.as_bytes());
        let known = ["kube-scheduler", "guard", "cluster-autoscaler"].contains(&category);
        let reason = if known { "other_category" } else { "untrusted_origin" };
        assert_eq!((decoded.events.num_rows(), reasons(&decoded)), (0, vec![reason.to_owned()]));
        assert!(details(&decoded)[0].contains(category));
        let mixed = [
            forged.clone(),
            aks_string("kube-audit", &events[0]),
            forged.clone(),
            forged.clone(),
            aks_string("kube-audit-admin", &events[2]),
            forged,
        ];
        let decoded = check(format!("{}\n", batch(&mixed)).as_bytes());
        same_events(&decoded, &[events[0].clone(), events[2].clone()]);
        assert_eq!(reasons(&decoded), [reason; 4]);
    }
    let klog = "2026-01-01T00:00:00.000Z I0101 00:00:00.000000 10 controller.go:1] synced\n";
    let decoded = check(format!("{klog}{}", export_lines(&events)).as_bytes());
    same_events(&decoded, &events);
    assert_eq!(reasons(&decoded), ["other_category"]);
}

#[test]
fn documents_of_firehose_follow_each_other_without_newlines() {
    let events = lines(33, 40);
    let documents: Vec<String> = events.chunks(7).map(eks).collect();
    for end in ["", "\n"] {
        let object = format!("{}{end}", documents.concat());
        let decoded = check(object.as_bytes());
        same_events(&decoded, &events);
        assert_eq!(decoded.rejects.num_rows(), 0);
    }
    let decoded = check(format!("{CONTROL}{}{CONTROL}{}", documents[0], documents[1]).as_bytes());
    same_events(&decoded, &events[..14]);
    assert_eq!(reasons(&decoded), ["other_category"; 2]);
    // If the object ends early, whole documents are decoded, and the rest is kept.
    for cut in [1, 100, documents[1].len() - 1] {
        for end in ["", "\n"] {
            let torn = format!("{}{}{end}", documents[0], &documents[1][..cut]);
            let decoded = check(torn.as_bytes());
            // The whole elements of the torn document are events.
            let whole = decoded.events.num_rows();
            assert!((7..=14).contains(&whole), "{whole}");
            same_events(&decoded, &events[..whole]);
            // If only brackets are missing, what is left of the document is frame.
            let reasons = reasons(&decoded);
            assert!(reasons.iter().all(|reason| reason == "torn_line"), "cut at {cut}: {reasons:?}");
            assert!(whole == 14 || reasons.len() == 1, "cut at {cut}");
        }
    }
    let decoded = check(format!("\u{feff}{}{}\n", events[0], events[1]).as_bytes());
    same_events(&decoded, &events[..2]);
}

#[test]
fn exported_lines_need_no_raw() {
    let events = lines(34, 50);
    let decoded = check(export_lines(&events).as_bytes());
    same_events(&decoded, &events);
    assert_eq!((decoded.rejects.num_rows(), raws(&decoded)), (0, 0));

    let bad: Vec<String> = [
        r#"{"kind":"Pod","apiVersion":"v1"}"#,
        r#"{"auditID":"a","verb":5}"#,
        &events[0][..events[0].len() - 1],
        r#"{"records":[]}"#,
        r#"{"kind":"Event","auditID":"a","requestO[Truncated...]"#,
    ]
    .map(str::to_owned)
    .to_vec();
    let decoded = check(export_lines(&bad).as_bytes());
    assert_eq!(reasons(&decoded), ["not_an_audit_event", "wrapped", "truncated_by_cloud"]);
    let faults = |row: usize| plain_row(&decoded.events, row).faults;
    assert_eq!(decoded.events.num_rows(), 2);
    assert_eq!(faults(0), Some(vec!["/verb: wrong_type".to_owned()]));
    assert_eq!(faults(1), Some(vec![": not_json".to_owned()]));
}

#[test]
fn records_of_azure() {
    let events = lines(35, 30);
    let strings: Vec<String> = events.iter().map(|line| aks_string("kube-audit", line)).collect();
    let objects: Vec<String> = events.iter().map(|line| aks_record("kube-audit-admin", line)).collect();
    for records in [&strings, &objects] {
        let as_lines = check(format!("{}\n", records.join("\n")).as_bytes());
        same_events(&as_lines, &events);
        let as_batch = check(format!("{}\n{}", batch(&records[..9]), batch(&records[9..])).as_bytes());
        same_events(&as_batch, &events);
        assert_eq!(raws(&as_batch), if std::ptr::eq(records, &strings) { 30 } else { 0 });
    }
    for (record, reason) in [
        (aks_record("kube-audit", "5"), "invalid_field"),
        (aks_record("kube-audit", "null"), "invalid_field"),
        (aks_record("kube-audit", r#""""#), "blank_line"),
        (aks_record("kube-audit", r#""I0101 not an event""#), "broken_json"),
        (aks_record("kube-audit", r#""\ud800""#), "invalid_utf8"),
        (aks_record("kube-audit", "{}"), "not_an_audit_event"),
        (r#"{"category":"kube-audit","properties":7}"#.to_owned(), "invalid_field"),
        (r#"{"category":7,"properties":{}}"#.to_owned(), "invalid_field"),
        (batch(&["7".to_owned()]), "not_an_audit_event"),
        (batch(&["{}".to_owned()]), "not_an_audit_event"),
        (batch(&[]), "wrapped"),
        (r#"{"records":null}"#.to_owned(), "wrapped"),
        (r#"{"records":7}"#.to_owned(), "invalid_field"),
        (r#"{"requestId":"a","timestamp":1578090901599,"records":[{"data":"H4sI"}]}"#.to_owned(), "wrapped"),
    ] {
        assert_eq!(reasons(&check(record.as_bytes())), [reason], "{record}");
    }
}

/// A client's text is inside an event or inside a string in an event, and is never taken for an
/// event.
#[test]
fn a_body_that_looks_like_a_wrapper_stays_a_body() {
    let forged = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"forged","stage":"ResponseComplete","verb":"delete"}"#;
    let wrappers = [
        eks(&[forged.to_owned()]),
        batch(&[aks_string("kube-audit", forged)]),
        aks_string("kube-audit", forged),
        quoted(forged),
        export_lines(&[forged.to_owned()]),
        google("forged", ""),
    ];
    let ids = |decoded: &DecodedBlock| {
        let ids = decoded.events.column(index::AUDIT_ID).as_string::<i32>();
        ids.iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    for wrapper in &wrappers {
        let value = if wrapper.starts_with(['{', '"']) { wrapper.clone() } else { quoted(wrapper) };
        let as_text = quoted(wrapper);
        let event = format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"real","userAgent":{as_text},"requestObject":[{value},{value}],"responseObject":{value},"annotations":{{"a":{as_text}}}}}"#
        );
        assert_eq!(ids(&check(event.as_bytes())), ["real"]);
        for outer in [
            eks(from_ref(&event)),
            aks_string("kube-audit", &event),
            aks_record("kube-audit", &event),
            export_lines(from_ref(&event)),
        ] {
            assert_eq!(ids(&check(outer.as_bytes())), ["real"], "{outer}");
        }
        // Members of a wrapper beside those of an event.
        for other in [
            format!(r#"{{"auditID":"a","kind":"Pod","records":[{value}]}}"#),
            format!(
                r#"{{"kind":"EventList","items":[],"records":[{value}],"logEvents":[{value}],"messageType":"DATA_MESSAGE"}}"#
            ),
            format!(r#"{{"auditID":5,"records":[{}]}}"#, aks_string("kube-audit", forged)),
        ] {
            assert_eq!(check(other.as_bytes()).events.num_rows(), 0, "{other}");
        }
        // A list in a list is not opened. A layer around a single event is opened, as in a record.
        let is_layer = wrapper.starts_with("2026-") || wrapper.contains("protoPayload");
        for outer in [eks(from_ref(wrapper)), aks_string("kube-audit", wrapper)] {
            assert_eq!(check(outer.as_bytes()).events.num_rows(), usize::from(is_layer), "{outer}");
        }
        assert_eq!(check(batch(&[batch(from_ref(&value))]).as_bytes()).events.num_rows(), 0);
        for torn_at in 1..event.len() {
            let torn = check(format!("{}\n", &event[..torn_at]).as_bytes());
            assert!(torn.events.num_rows() == 0 || event[..torn_at].ends_with(forged), "torn at {torn_at}");
        }
    }
}

#[test]
fn text_of_a_client_does_not_hide_a_document() {
    let events = lines(36, 4);
    let klog = eks_stream("kube-apiserver-0123", &["GET /x AUDIT: id=".to_owned()]);
    let decoded = check(format!("{}{klog}{}", eks(&events[..2]), eks(&events[2..])).as_bytes());
    same_events(&decoded, &events);
    assert_eq!(reasons(&decoded), ["other_category"]);
}

#[test]
fn a_wrapper_cut_at_every_byte() {
    let events = lines(37, 3);
    let wrappers = [
        eks(&events[..2]),
        batch(&[aks_string("kube-audit", &events[0]), aks_record("kube-audit", &events[1])]),
        format!("{CONTROL}{}{}", eks(&events[..1]), eks(&events[1..])),
        export_lines(&events[..1]),
        google("insert", ""),
    ];
    for wrapper in wrappers {
        for cut in 0..wrapper.len() {
            for end in ["", "\n", "[Truncated...]\n", "\0\0\n"] {
                let decoded = check(format!("{}{end}", &wrapper[..cut]).as_bytes());
                // If the wrapper is torn right after an event that is not a string, that event
                // cannot be distinguished from a bare one. If a line of an export is cut after the
                // event's user, it is an event.
                let is_named = wrapper.starts_with("20") && cut >= end_of_user(wrapper.as_bytes());
                // The elements before the cut are events.
                let whole = is_named
                    || events
                        .iter()
                        .any(|event| wrapper[..cut].contains(quoted(event).trim_end_matches('"')))
                    || wrapper.starts_with(CONTROL)
                    || events.iter().any(|event| wrapper[..cut].trim_end().ends_with(event));
                assert!(decoded.events.num_rows() == 0 || whole, "cut at {cut}: {}", &wrapper[..cut]);
            }
        }
        check(wrapper.as_bytes());
    }
}

#[test]
fn an_unfinished_line_is_used_when_it_is_one_whole_record() {
    const LINE_BYTES_MAX: usize = 1 << 20;
    let events = lines(38, 2);
    let decode = |text: &str| {
        let block = Block {
            origin: Arc::new(Origin { partition: "p".into(), cluster: "c".into(), reading: Arc::default() }),
            offset: 0,
            first_line: 1,
            bytes: text.as_bytes().to_vec(),
            begins: Edge::Line,
            ends: Edge::Line,
            open_ended: true,
        };
        let config = DecoderConfig { line_bytes_max: LINE_BYTES_MAX, ..DecoderConfig::default() };
        let mut decoder = Decoder::new(config);
        let decoded = decoder.decode(&block, chrono::DateTime::UNIX_EPOCH).expect("columns");
        assert_eq!(rebuilt(&decoded, decoded.consumed), text.as_bytes()[..decoded.consumed]);
        (decoded.events.num_rows(), decoded.rejects.num_rows(), decoded.consumed)
    };
    for one in [
        eks(&events[..1]),
        aks_string("kube-audit", &events[0]),
        batch(&[aks_record("kube-audit", &events[0])]),
        export_lines(&events[..1]).trim_end().to_owned(),
        google("insert", ""),
        quoted(&events[0]),
    ] {
        assert_eq!(decode(&one), (1, 0, one.len()), "{one}");
        assert_eq!(decode(&one[..one.len() - 1]), (0, 0, 0), "{one}");
    }
    for none in [eks(&events), CONTROL.to_owned(), batch(&[]), eks(&[String::new()])] {
        assert_eq!(decode(&none), (0, 0, 0), "{none}");
        // The line becomes records if the stream is declared complete, as a compressed stream is.
        assert!(check(none.as_bytes()).records() > 0, "{none}");
    }
    let documents = [eks(&events), eks(&events[..1])];
    assert_eq!(decode(&documents.concat()), (0, 0, 0));
    // If the line is over-long, only its last part is left for later.
    let object = documents[0].repeat(1 + LINE_BYTES_MAX / documents[0].len());
    let (found, refused, consumed) = decode(&object);
    assert_eq!((found * documents[0].len() / 2, refused), (consumed, 0));
    assert!(consumed < object.len() && object.len() - consumed <= PART_BYTES, "{consumed}");
}

#[test]
fn hostile_wrappers_take_bounded_work() {
    let events = lines(39, 2);
    for (input, reason) in [
        (format!(r#"{{"records":[{}]}}"#, vec!["1"; 100_000].join(",")), "short_items"),
        (eks(&[]).replacen("[]", &format!("[{}]", vec!["{}"; 100_000].join(",")), 2), "short_items"),
        (format!("{}{}", r#"{"records":"#.repeat(100_000), "}".repeat(100_000)), "too_deep"),
        (aks_record("kube-audit", &format!("{}{}", "[".repeat(200), "]".repeat(200))), "invalid_field"),
        (aks_record("kube-audit", &quoted(&"[".repeat(100_000))), "too_deep"),
        (eks(&[eks(&[eks(&events)])]), "wrapped"),
        (aks_record("kube-audit", &quoted(&quoted(&events[0]))), "not_an_audit_event"),
        (quoted(&quoted(&events[0])), "not_an_audit_event"),
        (format!(r#"{{"records":{}"#, "[".repeat(100)), "broken_json"),
    ] {
        let decoded = check(input.as_bytes());
        assert_eq!(
            (decoded.events.num_rows(), reasons(&decoded)),
            (0, vec![reason.to_owned()]),
            "{}",
            &input[..60]
        );
    }
    // Many documents on a line, each with as many short items as a document may have.
    let short = format!(r#"{{"records":[{}]}}"#, vec!["1"; 64].join(","));
    let many = check(short.repeat(10_000).as_bytes());
    assert!(many.records() <= 66 + (short.len() * 10_000 / 64) as u64, "{}", many.records());
    assert_eq!(many.events.num_rows(), 0);
}

#[test]
fn a_deep_event_refuses_itself_and_not_its_neighbours() {
    let events = lines(40, 3);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for depth in [128, 100_000] {
        let deep = format!(r#"{{"auditID":"deep","requestObject":{}}}"#, nested(depth));
        let objects = [
            aks_record("kube-audit", &events[0]),
            aks_record("kube-audit", &deep),
            aks_record("guard", &deep),
            aks_record("kube-audit", &events[1]),
            aks_string("kube-audit", &deep),
            aks_string("kube-audit", &events[2]),
        ];
        let mut with_one = objects.to_vec();
        with_one.truncate(2);
        for (input, kept, refused) in [
            (eks(&[events[0].clone(), deep.clone(), events[1].clone()]), 3, vec![]),
            (batch(&objects), 5, vec!["other_category"]),
            (batch(&with_one), 2, vec![]),
            (format!("{}{}\n", batch(&with_one), eks(&events[1..])), 4, vec![]),
            (aks_record("kube-audit", &deep), 1, vec![]),
            (export_lines(&[events[0].clone(), deep.clone(), events[1].clone()]), 3, vec![]),
            (google("deep", &format!(r#","request":{}"#, nested(depth))), 1, vec![]),
            (google("deep", &format!(r#","x":{},"request":{{}}"#, nested(depth))), 0, vec!["too_deep"]),
        ] {
            let decoded = check(input.as_bytes());
            assert_eq!(decoded.events.num_rows(), kept, "{}", &input[..80]);
            let body =
                if input.contains("protoPayload") { "/protoPayload/request" } else { "/requestObject" };
            let deep_fault = Some(vec![format!("{body}: too_deep")]);
            for row in 0..kept {
                let event = plain_row(&decoded.events, row);
                let is_deep = event.audit_id.as_deref() == Some("deep");
                assert_eq!(event.faults, deep_fault.clone().filter(|_| is_deep));
            }
            assert_eq!(reasons(&decoded), refused as Vec<&str>, "{}", &input[..80]);
        }
    }
    // The depth of an event does not include the wrapper around it.
    let allowed = format!(r#"{{"auditID":"allowed","requestObject":{}}}"#, nested(127));
    for input in [aks_record("kube-audit", &allowed), batch(&[aks_record("kube-audit", &allowed)])] {
        same_events(&check(input.as_bytes()), from_ref(&allowed));
    }
}

/// An object of Firehose has no newline, and its length has no bound.
#[test]
fn an_object_of_firehose_may_be_longer_than_a_line() {
    const LINE_BYTES_MAX: usize = 1 << 20;
    let check = |input: &[u8]| check_bounded(input, LINE_BYTES_MAX);
    let events = lines(41, 2_700);
    let mut documents: Vec<String> = events.chunks(90).map(eks).collect();
    documents.insert(3, CONTROL.to_owned());
    let object = documents.concat();
    assert!(object.len() > 2 * LINE_BYTES_MAX, "{}", object.len());
    for end in ["", "\n", "\r\n"] {
        let decoded = check(format!("\u{feff}{object}{end}").as_bytes());
        same_events(&decoded, &events);
        assert_eq!(reasons(&decoded), ["other_category"]);
    }
    // The next line is numbered correctly, and an ordinary line is not searched.
    let decoded = check(format!("{object}\nbroken\n{}\n", events[0]).as_bytes());
    assert_eq!((decoded.events.num_rows(), reasons(&decoded).len()), (events.len() + 1, 2));
    let line = decoded.rejects.column(rejects::index::LINE).as_primitive::<Int64Type>();
    assert_eq!(line.values()[..], [1, 2]);

    // If one document is too long, or is cut off, its neighbours are still decoded.
    let long = eks(&vec!["x".repeat(1000); 1_250]);
    assert!(long.len() > LINE_BYTES_MAX);
    let decoded = check(format!("{}{long}{}", documents[0], documents[1]).as_bytes());
    same_events(&decoded, &events[..180]);
    assert_eq!(reasons(&decoded), ["line_too_long"; 2]);
    let torn = format!("{object}{}", &documents[0][..documents[0].len() / 2]);
    let decoded = check(torn.as_bytes());
    assert!(decoded.events.num_rows() >= events.len(), "the whole elements of a torn document are events");
    assert_eq!(reasons(&decoded), ["other_category", "torn_line"]);

    // A document that a client wrote into a line of text is not decoded.
    let forged = format!("text {}{}{}", "x".repeat(LINE_BYTES_MAX), "}", documents[0].repeat(2));
    let decoded = check(forged.as_bytes());
    assert_eq!(decoded.events.num_rows(), 0);
    assert!(reasons(&decoded).iter().all(|reason| reason == "line_too_long"));
}

/// The reject of a truncated event names the audit ID, which is not secret and shows which event to
/// find elsewhere.
#[test]
fn a_cut_event_is_named_by_its_audit_id() {
    let head = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"#;
    let id = "0a1b2c3d-0000-4000-8000-0123456789ab";
    let cut = |id: &str| format!(r#"{head}{id},"requestObject":{{"auditID":"body","a[Truncated...]"#);
    let named = format!("ends in [Truncated...]; auditID {id}");
    for input in [
        cut(&quoted(id)),
        eks(&[cut(&quoted(id))]),
        export_lines(&[cut(&quoted(id))]),
        aks_string("kube-audit", &cut(&quoted(id))),
        format!(r#" {{ "metadata" : {{"auditID":"no"}} , "auditID" : "{id}" ,"a[Truncated...]"#),
    ] {
        let decoded = check(input.as_bytes());
        assert_eq!(
            (reasons(&decoded), details(&decoded)),
            (vec!["truncated_by_cloud".to_owned()], vec![named.clone()])
        );
    }
    let long = quoted(&"a".repeat(65));
    for unnamed in [
        cut(&long),
        cut(r#""""#),
        cut(r#""a b""#),
        cut(r#""a\u001b[31m""#),
        cut(r#""a\"b""#),
        cut("\"gr\u{fc}n\""),
        cut("7"),
        cut("null"),
        format!(r#"{head}"{}[Truncated...]"#, &id[..20]),
        r#"{"kind":"Event","requestObject":{"auditID":"body","a[Truncated...]"#.to_owned(),
        r#"{"kind":"Event" "auditID":"a","a[Truncated...]"#.to_owned(),
        r#"["auditID","a[Truncated...]"#.to_owned(),
        format!(r#"{{{}"auditID":"a","a[Truncated...]"#, r#""a":{},"#.repeat(50)),
        "[Truncated...]".to_owned(),
    ] {
        let decoded = check(unnamed.as_bytes());
        assert_eq!(details(&decoded), ["ends in [Truncated...]"], "{unnamed}");
    }
    assert_eq!(details(&check(cut(&format!("\"{}\"", "a".repeat(64))).as_bytes())).len(), 1);
}

/// Returns an audit entry of GKE with `payload` added to its `protoPayload`.
fn google(id: &str, payload: &str) -> String {
    format!(
        r#"{{"insertId":"{id}","labels":{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"because"}},"logName":"projects/p/logs/cloudaudit.googleapis.com%2Factivity","operation":{{"first":true,"id":"{id}","last":true,"producer":"k8s.io"}},"protoPayload":{{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","authenticationInfo":{{"principalEmail":"jane@example.com"}},"authorizationInfo":[{{"granted":true,"permission":"io.k8s.core.v1.pods.exec.create","resource":"core/v1/namespaces/ns/pods/p/exec"}}],"methodName":"io.k8s.core.v1.pods.exec.create","requestMetadata":{{"callerIp":"203.0.113.9","callerSuppliedUserAgent":"kubectl/v1.33"}},"resourceName":"core/v1/namespaces/ns/pods/p/exec","serviceName":"k8s.io"{payload}}},"receiveTimestamp":"2026-01-01T00:00:05.1Z","resource":{{"labels":{{"cluster_name":"prod","location":"europe-west3","project_id":"p"}},"type":"k8s_cluster"}},"timestamp":"2026-01-01T00:00:00.123456789Z"}}"#
    )
}

#[test]
fn entries_of_google_are_mapped_and_marked() {
    let entry = google("f2b1", r#","status":{}"#);
    let decoded = check(format!(" {entry} \n").as_bytes());
    assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (1, 0));
    let shape = decoded.events.column(index::SHAPE).as_dictionary::<Int32Type>();
    assert_eq!(shape.values().as_string::<i32>().value(shape.keys().value(0) as usize), SHAPE_GOOGLE);
    assert_eq!(decoded.events.column(index::RAW).as_binary::<i32>().value(0), entry.as_bytes());
    let time = decoded.events.column(index::STAGE_TIMESTAMP).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(time.value(0), 1_767_225_600_123_456);
    let text = |text: &str| Some(text.to_owned());
    let expected = plain::PlainEvent {
        audit_id: text("f2b1"),
        stage: text("ResponseComplete"),
        verb: text("create"),
        user_name: text("jane@example.com"),
        source_ips: Some(vec!["203.0.113.9".to_owned()]),
        user_agent: text("kubectl/v1.33"),
        resource: text("pods"),
        subresource: text("exec"),
        namespace: text("ns"),
        name: text("p"),
        api_version: text("v1"),
        annotations: text(
            r#"{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"because"}"#,
        ),
        authz_decision: text("allow"),
        authz_reason: text("because"),
        stage_timestamp: Some(1_767_225_600_123_456),
        // There is no response code, because the entry has none.
        ..plain::PlainEvent::default()
    };
    assert_eq!(plain_row(&decoded.events, 0), expected);
    // Bare events are not marked.
    assert_eq!(check(&generated(5, 40)).events.column(index::SHAPE).null_count(), 5);
}

/// If an entry names no principal, the user is taken from another form of the name. If the request
/// had no credentials, the user is the anonymous one.
#[test]
fn the_user_of_an_entry_of_google() {
    const PRINCIPAL: &str = r#""authenticationInfo":{"principalEmail":"jane@example.com"},"#;
    let user = |authentication: &str, reason: &str, decision: &str, status: &str| {
        let entry = google("a", &format!(r#","status":{status}"#)).replacen(PRINCIPAL, authentication, 1);
        let labels = format!(
            r#""authorization.k8s.io/decision":{decision:?},"authorization.k8s.io/reason":{reason:?}"#
        );
        let old = r#""authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"because""#;
        plain_row(&check(entry.replacen(old, &labels, 1).as_bytes()).events, 0).user_name
    };
    let named = |name: &str| Some(name.to_owned());
    let to = |who: &str| format!(r#"RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to {who}"#);
    let (to_nobody, to_all) = (to(r#"User "system:anonymous""#), to(r#"Group "system:unauthenticated""#));
    let anonymous = named("system:anonymous");
    let refused =
        r#"{"code":7,"message":"pods is forbidden: User \"system:anonymous\" cannot list resource"}"#;
    let hidden = r#"{"code":7,"message":"PERMISSION_DENIED"}"#;
    for nothing in
        ["", r#""authenticationInfo":null,"#, r#""authenticationInfo":{},"#, r#""authenticationInfo":{ },"#]
    {
        assert_eq!(user(nothing, "", "allow", "{}"), anonymous, "{nothing}");
        assert_eq!(user(nothing, &to_nobody, "other", "{}"), anonymous, "{nothing}");
        assert_eq!(user(nothing, &to_all, "other", "{}"), anonymous, "{nothing}");
        assert_eq!(user(nothing, "", "forbid", refused), anonymous, "{nothing}");
        // If a read was refused, Google hides the user.
        assert_eq!(user(nothing, "", "forbid", hidden), None, "{nothing}");
        assert_eq!(user(nothing, &format!("{to_all} no"), "forbid", "{}"), None, "{nothing}");
    }
    assert_eq!(user(PRINCIPAL, &to_all, "allow", refused), named("jane@example.com"));
    let subject = r#""authenticationInfo":{"principalSubject":"principal://pool/subject/eve"},"#;
    assert_eq!(user(subject, &to_all, "allow", "{}"), named("principal://pool/subject/eve"));
    let other = r#""authenticationInfo":{"authoritySelector":"x"},"#;
    assert_eq!(user(other, "", "allow", "{}"), None);
    assert_eq!(user(other, &to_all, "allow", "{}"), anonymous);
    let odd = r#""authenticationInfo":{"principalEmail":5},"#;
    assert_eq!(user(odd, "", "allow", "{}"), None);
}

#[test]
fn a_google_entry_has_no_code_but_that_of_a_status() {
    let event = |entry: &str| plain_row(&check(entry.as_bytes()).events, 0);
    let grpc = event(&google("a", r#","status":{"code":7,"message":"pods is forbidden"}"#));
    assert_eq!((grpc.response_code, grpc.response_message.as_deref()), (None, Some("pods is forbidden")));
    assert_eq!(grpc.response_status.as_deref(), Some("Failure"));
    assert_eq!(event(&google("a", r#","status":{"code":0}"#)).response_status, None);
    let status = r#","response":{"@type":"core.k8s.io/v1.Status","code":403,"status":"Failure","reason":"Forbidden","message":"no","details":{"kind":"pods"}},"status":{"code":7,"message":"PERMISSION_DENIED"}"#;
    let status = event(&google("a", status));
    assert_eq!((status.response_code, status.response_reason.as_deref()), (Some(403), Some("Forbidden")));
    assert_eq!(
        (status.response_status.as_deref(), status.response_message.as_deref()),
        (Some("Failure"), Some("no"))
    );
    assert_eq!(status.response_details.as_deref(), Some(r#"{"kind":"pods"}"#));
    // The response may be an object that has a member `code`.
    let object = r#","request":{"@type":"core.k8s.io/v1.Pod","a":1},"response":{"@type":"example.com/v1.Door","code":200}"#;
    let object = event(&google("a", object));
    assert_eq!(object.response_code, None);
    assert_eq!(object.request_object.as_deref(), Some(r#"{"@type":"core.k8s.io/v1.Pod","a":1}"#));

    let unlabelled = google("a", "").replacen("authorization.k8s.io/decision", "other", 1);
    assert_eq!(event(&unlabelled).authz_decision.as_deref(), Some("allow"));
    assert_eq!(
        event(&unlabelled.replacen(r#""granted":true,"#, "", 1)).authz_decision.as_deref(),
        Some("forbid")
    );
    let first = google("a", "").replacen(r#","last":true"#, "", 1);
    assert_eq!(event(&first).stage.as_deref(), Some("ResponseStarted"));
    let without_operation = google("a", "").replacen(r#""operation""#, r#""x""#, 1);
    let without_operation = event(&without_operation);
    assert_eq!((without_operation.stage, without_operation.audit_id.as_deref()), (None, Some("a")));

    for (from, to, reason) in [
        ("%2Factivity", "%2Fsystem_event", "other_category"),
        ("projects/p/logs/cloudaudit", "projects/p/logs/myapp", "other_category"),
        ("k8s_cluster", "k8s_container", "other_category"),
        (r#""serviceName":"k8s.io""#, r#""serviceName":"container.googleapis.com""#, "other_category"),
        (r#""protoPayload":{"#, r#""textPayload":"x","y":{"#, "other_category"),
    ] {
        let entry = google("a", "");
        let changed = entry.replacen(from, to, 1);
        assert_ne!(entry, changed);
        assert_eq!(reasons(&check(changed.as_bytes())), [reason], "{to}");
    }
    for (from, to, fault) in [
        (r#""timestamp":"2026"#, r#""timestamp":"x2026"#, "/timestamp: not_a_time"),
        (
            r#""callerIp":"203.0.113.9""#,
            r#""callerIp":5"#,
            "/protoPayload/requestMetadata/callerIp: wrong_type",
        ),
    ] {
        let entry = google("a", "");
        let (whole, odd) = (event(&entry), event(&entry.replacen(from, to, 1)));
        assert_eq!(odd.faults, Some(vec![fault.to_owned()]));
        assert_eq!((odd.audit_id, odd.user_name), (whole.audit_id, whole.user_name));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_wrapping_decodes_as_the_bare_events(
        seed in 0_u64..50, forms in prop::collection::vec((0_u8..7, 1_usize..6, any::<bool>()), 1..6),
    ) {
        let events = lines(seed, 40);
        let (mut at, mut input, mut bare) = (0, String::new(), Vec::new());
        for (form, count, newline) in forms {
            let some = &events[at % 30..at % 30 + count];
            at += count;
            let strings = some.iter().map(|line| aks_string("kube-audit", line)).collect::<Vec<_>>();
            input += &match form {
                0 => eks(some),
                1 => format!("{CONTROL}{}", eks(some)),
                2 => batch(&strings),
                3 => format!("{}\n", strings.join("\n")),
                4 => batch(&some.iter().map(|line| aks_record("kube-audit", line)).collect::<Vec<_>>()),
                5 => format!("\n{}", export_lines(some)),
                _ => some.join("\n"),
            };
            if newline || form == 5 || form == 6 || form == 3 {
                input.push('\n');
            }
            bare.extend_from_slice(some);
        }
        // An entry of an export begins a line, so a newline ends whatever is before it.
        let decoded = check(input.as_bytes());
        same_events(&decoded, &bare);
        prop_assert!(reasons(&decoded).iter().all(|reason| reason == "other_category"));
    }

    #[test]
    fn mutated_wrappers(
        seed in 0_u64..20, form in 0_u8..6, kinds in prop::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 1..4),
    ) {
        let events = lines(seed, 3);
        let mut input = match form {
            0 => eks(&events),
            1 => eks(&events[..1]),
            2 => batch(&[aks_string("kube-audit", &events[0]), aks_record("guard", &events[1])]),
            3 => format!("{CONTROL}{}", eks(&events)),
            4 => export_lines(&events),
            _ => google("a", ""),
        }
        .into_bytes();
        for (kind, at, byte) in kinds {
            if !input.is_empty() {
                input = mutate(&input, kind, at, byte);
            }
        }
        check(&input);
    }
}
