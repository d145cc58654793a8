//! The columns of a row must say what its record says. Not even somebody with the key can make a
//! row whose columns show something other than what its record proves.
//!
//! The tests change one column in each of several rows of an archive. Everything that is computed
//! from the rows is computed again, and signed with the right key. Then only the columns and the
//! records disagree, and both verifiers must name each of these rows.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, BinaryArray, Int32Array, Int64Array, ListBuilder, RecordBatch,
    StringArray, StringBuilder, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use datafusion::parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_archive::Records as _;
use strongroom_ingest::export::EventRecords;
use strongroom_lines::time;
use strongroom_schemas::record::leaf_hash;

use crate::proof::{
    Site, edit, edit_add, new_key, no_finding, replace, root_of_leaves, rows_of, second_opinion,
    signed_ingest, verify,
};
use crate::run::{expect_code, log, write};

/// Returns an event with something in every column. Its note contains a brace. No form can have a
/// brace in a string, so the record stays in `raw`.
fn event(number: usize) -> Value {
    json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "auditID": format!("00000000-0000-4000-8000-{number:012}"),
        "stage": "ResponseComplete",
        "requestURI": "/apis/apps/v1/namespaces/shop/deployments/web/scale?a=1&b=2",
        "verb": "patch",
        "user": {
            "username": "alice", "uid": "u-1", "groups": ["ops", "system:authenticated"], "extra": { "scopes": ["a"] },
        },
        "impersonatedUser": { "username": "bob", "uid": "u-2", "groups": ["dev"], "extra": { "why": ["x"] } },
        "sourceIPs": ["10.0.0.1", "10.0.0.2"],
        "userAgent": "kubectl/v1.31",
        "objectRef": {
            "resource": "deployments", "namespace": "shop", "name": "web", "uid": "o-1", "apiGroup": "apps",
            "apiVersion": "v1", "resourceVersion": "7", "subresource": "scale",
        },
        "responseStatus": {
            "metadata": {}, "status": "Failure", "message": "no", "reason": "Conflict",
            "details": { "kind": "deployments" }, "code": 409,
        },
        "requestObject": { "spec": { "replicas": 3 } },
        "responseObject": { "kind": "Status" },
        "requestReceivedTimestamp": "2026-03-02T10:00:00.000000Z",
        "stageTimestamp": "2026-03-02T10:00:00.100000Z",
        "annotations": { "authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "RBAC" },
        "note": "{",
    })
}

/// Returns an event as a line of kube-apiserver.
fn line(number: usize) -> String {
    format!(
        concat!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"10000000-0000-4000-8000-{:012}","#,
            r#""stage":"ResponseComplete","requestURI":"/api/v1/pods","verb":"list","user":{{"username":"carol","groups":["dev"]}},"#,
            r#""sourceIPs":["10.0.0.3"],"userAgent":"curl","objectRef":{{"resource":"pods","apiVersion":"v1"}},"#,
            r#""responseStatus":{{"metadata":{{}},"code":200}},"requestReceivedTimestamp":"2026-03-02T11:00:00.000000Z","#,
            r#""stageTimestamp":"2026-03-02T11:00:00.000001Z","annotations":{{"authorization.k8s.io/decision":"allow","#,
            r#""authorization.k8s.io/reason":""}}}}"#
        ),
        number
    )
}

/// Returns an entry of Google Cloud Logging.
fn entry(number: usize) -> Value {
    json!({
        "insertId": format!("entry-{number}"),
        "logName": "projects/p/logs/cloudaudit.googleapis.com%2Factivity",
        "resource": { "type": "k8s_cluster" },
        "timestamp": "2026-03-02T12:00:00.5Z",
        "protoPayload": {
            "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
            "serviceName": "k8s.io",
            "methodName": "io.k8s.core.v1.pods.exec.create",
            "resourceName": "core/v1/namespaces/shop/pods/web/exec",
            "authenticationInfo": { "principalEmail": "dave@example.com" },
            "requestMetadata": { "callerIp": "10.0.0.4", "callerSuppliedUserAgent": "kubectl" },
            "authorizationInfo": [{ "granted": true }],
        },
    })
}

/// How a row keeps its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// As an event in `raw`.
    Raw,
    /// Nowhere: the record is rendered from the columns.
    Rendered,
    /// As a string in `raw` that contains an event.
    Escaped,
    /// As an entry of Google Cloud Logging in `raw`.
    Mapped,
    /// As the OCSF finding of an alert.
    Finding,
}

use Kept::{Escaped, Finding, Mapped, Raw, Rendered};

/// Returns logs of at most [`LOG_ROWS`] events. Each log becomes a data file of its own.
fn logs() -> Vec<String> {
    let mut logs = vec![String::new(); 12];
    for (number, log) in logs.iter_mut().enumerate() {
        for row in 0..LOG_ROWS {
            let at = number * LOG_ROWS + row;
            match number {
                0..6 => writeln!(log, "{}", event(at)),
                6 => writeln!(log, "{}", line(at)),
                7 => {
                    let properties = json!({ "log": event(at).to_string() });
                    writeln!(
                        log,
                        "{}",
                        json!({ "records": [{ "category": "kube-audit", "properties": properties }] })
                    )
                }
                8 => writeln!(log, "{}", entry(at)),
                9 => {
                    let list =
                        json!({ "kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [event(at)] });
                    writeln!(log, "{}", json!({ "@timestamp": "t", "message": list.to_string() }))
                }
                10 => writeln!(log, "2026-03-02T10:00:00.1Z stdout F [{}]", event(at)),
                _ => {
                    let mut deep = entry(at);
                    deep["protoPayload"]["request"] = (0..200).fold(json!(1), |inner, _| json!([inner]));
                    writeln!(log, "{}", json!({ "message": json!([deep]).to_string() }))
                }
            }
            .expect("text");
        }
    }
    logs
}

/// Number of rows in one file: few enough for a report to name them all.
const LOG_ROWS: usize = 10;

/// A change of one column in a row, and the columns that the finding must then name. `named` is
/// `None` if the changed row no longer has a valid record; the finding then says that.
struct Case {
    kept: Kept,
    column: &'static str,
    value: Value,
    named: Option<&'static str>,
}

fn cases() -> Vec<Case> {
    let of = |kept, column, value, named| Case { kept, column, value, named };
    let one = |kept, column: &'static str, value| of(kept, column, value, Some(column));
    let time = |text: &str| json!(time::parse(text).expect("a time"));
    let raw = event(900).to_string();
    vec![
        // Each column that is compared gets another value.
        one(Raw, "audit_id", json!("00000000-0000-4000-8000-999999999999")),
        one(Raw, "stage", json!("Panic")),
        one(Raw, "level", json!("Metadata")),
        one(Raw, "verb", json!("get")),
        one(Raw, "request_uri", json!("/apis/apps/v1/namespaces/shop/deployments/web/scale?a=1\\u0026b=2")),
        one(Raw, "user_name", json!("mallory")),
        one(Raw, "user_uid", json!("U-1")),
        one(Raw, "user_groups", json!(["system:authenticated", "ops"])),
        one(Raw, "user_extra", json!("{ \"scopes\":[\"a\"]}")),
        one(Raw, "impersonated_user_name", json!("")),
        one(Raw, "impersonated_user_groups", json!(["dev", "dev"])),
        one(Raw, "impersonated_user_extra", json!("{}")),
        one(Raw, "source_ips", json!(["10.0.0.2", "10.0.0.1"])),
        one(Raw, "user_agent", json!("kubectl/v1.31 ")),
        one(Raw, "resource", json!("pods")),
        one(Raw, "subresource", json!("status")),
        one(Raw, "namespace", json!("default")),
        one(Raw, "name", json!("api")),
        one(Raw, "api_group", json!("")),
        one(Raw, "api_version", json!("v1beta1")),
        one(Raw, "object_uid", json!("o-2")),
        one(Raw, "resource_version", json!("07")),
        one(Raw, "response_code", json!(200)),
        one(Raw, "response_status", json!("Success")),
        one(Raw, "response_reason", json!("conflict")),
        one(Raw, "response_message", json!("yes")),
        one(Raw, "response_details", json!("{}")),
        one(Raw, "request_object", json!("{\"spec\":{\"replicas\":4}}")),
        one(Raw, "response_object", json!("null")),
        one(Raw, "annotations", json!("{}")),
        one(Raw, "authz_decision", json!("forbid")),
        one(Raw, "authz_reason", json!("")),
        one(Raw, "request_received_timestamp", time("2026-03-02T10:00:00.000001Z")),
        one(Raw, "stage_timestamp", time("2026-03-02T09:59:59.999999Z")),
        one(Raw, "shape", json!("")),
        // A column is null although the record has a value, or has a value that the record lacks.
        one(Raw, "verb", Value::Null),
        one(Raw, "user_groups", Value::Null),
        one(Raw, "source_ips", json!([])),
        one(Raw, "user_groups", json!(["ops", null])),
        one(Raw, "response_code", Value::Null),
        one(Raw, "request_object", Value::Null),
        one(Raw, "stage_timestamp", Value::Null),
        // The record is replaced with another one.
        of(Raw, "raw", json!(raw.replace("\"patch\"", "\"get\"")), Some("audit_id, verb")),
        of(
            Raw,
            "raw",
            json!(raw.replace("\"patch\"", "\"patch\",\"verb\":null")),
            Some("audit_id, verb, faults"),
        ),
        of(Raw, "raw", json!("no event"), None),
        of(Raw, "raw", json!(""), None),
        of(Raw, "raw", json!(format!("{{\"auditID\":\"a\",\"x\":{}}}", "[".repeat(100_000))), None),
        // The records of these rows are rendered from their columns. Some columns can disagree with
        // such a record all the same.
        one(Rendered, "authz_decision", json!("forbid")),
        one(Rendered, "authz_decision", Value::Null),
        one(Rendered, "authz_reason", Value::Null),
        of(Rendered, "annotations", json!("{\"a\":\"b\"}"), Some("authz_decision, authz_reason")),
        of(
            Rendered,
            "annotations",
            json!(
                "{\"authorization.k8s.io/decision\":\"allow\",\"authorization.k8s.io/reason\":\"\"},\"verb\":\"delete\""
            ),
            Some("verb, annotations, faults"),
        ),
        of(Rendered, "shape", json!("\"verb\":\"delete\","), Some("faults, shape")),
        of(
            Rendered,
            "request_object",
            json!("1,\"responseObject\":2"),
            Some("request_object, response_object"),
        ),
        of(
            Rendered,
            "request_object",
            json!("not JSON"),
            Some(
                "request_object, annotations, authz_decision, authz_reason, request_received_timestamp, \
                 stage_timestamp, faults",
            ),
        ),
        of(Rendered, "level", json!("metadata"), Some("faults")),
        // Columns of events in the wrappers of clouds are changed.
        one(Escaped, "verb", json!("get")),
        one(Escaped, "namespace", Value::Null),
        one(Escaped, "shape", json!("google.cloud.audit.AuditLog")),
        one(Mapped, "user_name", json!("mallory@example.com")),
        one(Mapped, "level", json!("Metadata")),
        one(Mapped, "authz_decision", json!("forbid")),
        one(Mapped, "shape", Value::Null),
        // Columns of alerts are changed.
        one(Finding, "title", json!("Nothing")),
        one(Finding, "severity", json!("informational")),
        one(Finding, "actor", Value::Null),
        one(Finding, "audit_ids", json!(["another"])),
        one(Finding, "event_count", json!(1_000_000)),
        of(Finding, "ocsf", json!("[\"nothing\"]"), None),
    ]
}

fn kept(rows: &RecordBatch, row: usize) -> Kept {
    let Some(raws) = rows.column_by_name("raw") else { return Finding };
    let (raws, shapes) =
        (raws.as_binary::<i32>(), rows.column_by_name("shape").expect("a column").as_string::<i32>());
    match (raws.is_valid(row), raws.is_valid(row) && raws.value(row).starts_with(b"\"")) {
        (false, _) => Rendered,
        (true, true) => Escaped,
        (true, false) if shapes.is_valid(row) => Mapped,
        (true, false) => Raw,
    }
}

/// Returns the rows with another value in one column of one row.
fn with_value(rows: &RecordBatch, row: usize, column: &str, value: &Value) -> RecordBatch {
    let at = rows.schema().index_of(column).expect("a column");
    let array = rows.column(at);
    let number = || value.as_i64();
    let changed: ArrayRef = match array.data_type() {
        DataType::Utf8 => Arc::new(StringArray::from(vec![value.as_str()])),
        DataType::Binary => Arc::new(BinaryArray::from(vec![value.as_str().map(str::as_bytes)])),
        DataType::Int32 => {
            Arc::new(Int32Array::from(vec![number().map(|number| i32::try_from(number).expect("a code"))]))
        }
        DataType::Int64 => Arc::new(Int64Array::from(vec![number()])),
        DataType::Timestamp(..) => Arc::new(
            TimestampMicrosecondArray::from(vec![number()]).with_timezone_opt(zone(array.data_type())),
        ),
        DataType::List(field) => {
            let mut list = ListBuilder::new(StringBuilder::new()).with_field(Arc::clone(field));
            value
                .as_array()
                .into_iter()
                .flatten()
                .for_each(|item| list.values().append_option(item.as_str()));
            list.append(value.is_array());
            Arc::new(list.finish())
        }
        other => panic!("{column} is of type {other}"),
    };
    let parts: [&dyn datafusion::arrow::array::Array; 3] =
        [&array.slice(0, row), &changed, &array.slice(row + 1, array.len() - row - 1)];
    let mut columns = rows.columns().to_vec();
    columns[at] = concat(&parts).expect("one type");
    RecordBatch::try_new(rows.schema(), columns).expect("the same columns")
}

fn zone(data_type: &DataType) -> Option<Arc<str>> {
    match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    }
}

/// Writes a file again with other rows, and updates its commit accordingly.
fn reseal(site: &Site, table: &str, file: &Path, rows: &RecordBatch) {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).expect("a writer");
    writer.write(rows).expect("written");
    writer.close().expect("written");
    replace(file, &bytes);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut leaves = Vec::new();
    match rows.column_by_name("ocsf") {
        Some(findings) => {
            let findings = findings.as_string::<i32>();
            leaves.extend(findings.iter().map(|finding| leaf_hash(finding.unwrap_or_default().as_bytes()).0));
        }
        None => EventRecords.each(rows, &mut |record| leaves.push(leaf_hash(record).0)).expect("events"),
    }
    let name = if table == "events" { "stage_timestamp" } else { "time" };
    let times =
        rows.column_by_name(name).expect("a column").as_primitive::<TimestampMicrosecondType>().clone();
    let (least, most) = (times.iter().flatten().min(), times.iter().flatten().max());
    let text = |micros: Option<i64>| {
        let mut text = Vec::new();
        time::render(micros.expect("a time"), &mut text);
        json!(String::from_utf8(text).expect("ASCII"))
    };
    edit_add(site, table, file, |add| {
        let mut stats: Value = serde_json::from_str(add["stats"].as_str().expect("text")).expect("JSON");
        stats["minValues"][name] = text(least);
        stats["maxValues"][name] = text(most);
        add["stats"] = json!(stats.to_string());
        add["size"] = json!(bytes.len());
        add["tags"]["sha256"] = json!(hex(&Sha256::digest(&bytes)));
        add["tags"]["record_root"] = json!(root_of_leaves(&leaves));
    });
}

/// Makes an archive that contains a row of every kind.
fn site() -> Site {
    let site = Site { folder: tempfile::tempdir().expect("a folder") };
    new_key(&site.key());
    for (number, text) in logs().iter().enumerate() {
        let path = write(site.folder.path(), &format!("{number}.log"), text.as_bytes());
        expect_code(&mut signed_ingest(&site.archive(), &site.key(), &[&path]), 0);
    }
    let path = write(site.folder.path(), "attacks.log", &log(6_000, 41));
    expect_code(&mut signed_ingest(&site.archive(), &site.key(), &[&path]), 0);
    site
}

/// Returns the findings of a report, as pairs of `where` and `detail`.
fn named(report: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let findings = report["findings"].as_array().expect("a list").iter();
    findings.map(|finding| (text(&finding["where"]), text(&finding["detail"]))).collect()
}

fn public(site: &Site) -> String {
    crate::proof::public_of(&site.key())
}

/// Asserts that our verifier, and the second one if there is one, report `columns_differ` in the
/// expected rows, and nothing else.
fn both_find(site: &Site, expected: &BTreeSet<(String, String)>) {
    let (kinds, report) = verify(&site.archive(), Some(&public(site)), &[]);
    let only: BTreeSet<String> = [String::from("columns_differ")].into();
    assert!(kinds == only, "{report:#}");
    assert_eq!(&named(&report), expected, "{report:#}");
    if let Ok(second) = std::env::var("STRONGROOM_VERIFIER") {
        let (kinds, report) = second_opinion(&second, site, &public(site), &[]);
        assert!(kinds == only, "{report:#}");
        assert_eq!(&named(&report), expected, "{report:#}");
    }
}

#[test]
fn rows_whose_columns_and_record_disagree_are_named() {
    let site = site();
    no_finding(&site.archive(), Some(&public(&site)));
    if let Ok(second) = std::env::var("STRONGROOM_VERIFIER") {
        let (kinds, report) = second_opinion(&second, &site, &public(&site), &[]);
        assert!(kinds.is_empty(), "{report:#}");
    }
    let mut files: Vec<(&str, PathBuf, RecordBatch, usize)> = ["events", "alerts"]
        .into_iter()
        .flat_map(|table| site.files(table).into_iter().map(move |file| (table, file)))
        .map(|(table, file)| {
            let rows = rows_of(&file);
            (table, file, rows, 0)
        })
        // Data files with more rows than that are from the log with attacks, whose events are not
        // changed.
        .filter(|(table, _, rows, _)| *table == "alerts" || rows.num_rows() <= LOG_ROWS)
        .collect();
    let mut expected = BTreeSet::new();
    let cases = cases();
    for Case { kept: wanted, column, value, named } in &cases {
        let file = files
            .iter_mut()
            .find(|(_, _, rows, used)| *used < rows.num_rows().min(LOG_ROWS) && kept(rows, *used) == *wanted);
        let Some((_, path, rows, used)) = file else { panic!("no row is left for {column} of {wanted:?}") };
        let changed = with_value(rows, *used, column, value);
        assert!(changed != *rows, "{column} of {wanted:?} is changed");
        let place = path.strip_prefix(site.archive()).expect("below the root").display().to_string();
        let detail = match named {
            Some(names) => format!("not what its record says: {names}"),
            None => "its record is not one of the table".to_owned(),
        };
        expected.insert((format!("{place}, row {used}"), detail));
        (*rows, *used) = (changed, *used + 1);
    }
    for (table, file, rows, _) in files.iter().filter(|(.., used)| *used > 0) {
        reseal(&site, table, file, rows);
    }
    site.sign_again();
    assert!(expected.len() == cases.len() && cases.len() >= 30, "{} cases", cases.len());
    both_find(&site, &expected);
}

/// If many rows of a file are changed, some of them are named and all are counted. If the commit
/// names a newer format, the rows are not compared.
#[test]
fn many_rows_are_counted_and_newer_formats_are_not_judged() {
    let site = Site { folder: tempfile::tempdir().expect("a folder") };
    new_key(&site.key());
    let text: String = (0..40).map(|number| format!("{}\n", event(number))).collect();
    let path = write(site.folder.path(), "a.log", text.as_bytes());
    expect_code(&mut signed_ingest(&site.archive(), &site.key(), &[&path]), 0);
    let file = site.files("events").pop().expect("a file");
    let mut rows = rows_of(&file);
    for row in 7..40 {
        rows = with_value(&rows, row, "verb", &json!("get"));
    }
    reseal(&site, "events", &file, &rows);
    site.sign_again();
    let place = file.strip_prefix(site.archive()).expect("below the root").display().to_string();
    let detail = "not what its record says: verb; such rows of the file: 33";
    both_find(&site, &(7..17).map(|row| (format!("{place}, row {row}"), detail.to_owned())).collect());

    let last = site.commits("events").pop().expect("a commit");
    edit(&last, |actions| {
        for action in actions {
            if let Some(info) = action.get_mut("commitInfo") {
                info["strongroom"]["eventsFormat"] = json!(3);
            }
        }
    });
    site.sign_again();
    let told = "whether columns match their records in 1 files of events, whose format is newer than 2";
    assert_eq!(no_finding(&site.archive(), Some(&public(&site)))["not_checked"], json!([told]));
    if let Ok(second) = std::env::var("STRONGROOM_VERIFIER") {
        let (kinds, report) = second_opinion(&second, &site, &public(&site), &[]);
        assert!(kinds.is_empty() && report["not_checked"] == json!([told]), "{report:#}");
    }
}

/// The records of a hostile archive may contain anything. Neither verifier crashes on them, and
/// their reports agree.
#[test]
fn arbitrary_records_are_judged_alike() {
    let site = Site { folder: tempfile::tempdir().expect("a folder") };
    new_key(&site.key());
    for number in 0..6 {
        let text: String = (0..LOG_ROWS).map(|row| format!("{}\n", event(number * LOG_ROWS + row))).collect();
        let path = write(site.folder.path(), &format!("{number}.log"), text.as_bytes());
        expect_code(&mut signed_ingest(&site.archive(), &site.key(), &[&path]), 0);
    }
    let deep =
        |open: &str, depth: usize| format!("{{\"auditID\":\"a\",\"requestObject\":{}", open.repeat(depth));
    let long = "x".repeat(8 << 20);
    let pieces: Vec<String> = [
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\\ud800",
        "\\udc00\\ud800",
        "\\u0000",
        "\u{0}",
        "NaN",
        "1e999",
        "-0",
        "\u{2028}",
        "\"verb\":\"x\",",
        "\"\\u0076erb\":\"y\",",
        "null",
        "99999999999999999999",
        "\"kind\":\"Pod\",",
        "\"logName\":\"x\",",
        " \t",
    ]
    .map(str::to_owned)
    .into();
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) as usize % bound
    };
    let mut records = vec![
        deep("[", 1_000_000),
        deep("{\"a\":", 300_000),
        format!("{}1{}}}", deep("[", 127), "]".repeat(127)),
        format!("{}1{}}}", deep("[", 128), "]".repeat(128)),
        format!("{{\"auditID\":\"{long}\"}}"),
        format!("\"{}\"", "\\\"".repeat(1 << 20)),
        "9".repeat(1 << 20),
        format!("{{\"auditID\":\"a\",\"responseStatus\":{{\"code\":{}}}}}", "9".repeat(100_000)),
    ];
    while records.len() < 6 * LOG_ROWS {
        let mut record = event(records.len()).to_string();
        for _ in 0..1 + below(3) {
            let at = below(record.len());
            record.insert_str(at, &pieces[below(pieces.len())]);
        }
        records.push(record);
    }
    let mut records = records.iter();
    for file in site.files("events") {
        let mut rows = rows_of(&file);
        for row in 0..rows.num_rows() {
            let record = records.next().expect("a record for each row");
            rows = with_value(&rows, row, "raw", &json!(record));
        }
        reseal(&site, "events", &file, &rows);
    }
    site.sign_again();
    let (_, report) = verify(&site.archive(), Some(&public(&site)), &[]);
    let expected = named(&report);
    assert!(expected.len() > 40, "{report:#}");
    both_find(&site, &expected);
    let offsets = rows_of(&site.files("events")[0]);
    assert!(
        offsets.column_by_name("source_offset").expect("a column").as_primitive::<Int64Type>().len()
            == LOG_ROWS
    );
}
