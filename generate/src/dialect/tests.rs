//! Tests of the renderings.
//!
//! Goal: each rendering can be parsed by a reader of its dialect, which finds the event in it.
//! Method: lines of the generator and some odd events are rendered in every dialect, and unwrapped
//! here by the shortest code that knows the dialect.

use serde_json::{Value, json};

use super::{CONTAINER_PIECE_BYTES, Dialect, EventError, bytes_of, hash_hex, render};
use crate::{Generator, GeneratorOptions};

fn events() -> Vec<String> {
    let options = GeneratorOptions { events: 300, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options within bounds");
    let mut log = Vec::new();
    while generator.next_line(&mut log) {}
    let mut events: Vec<String> = String::from_utf8(log).expect("UTF-8").lines().map(str::to_owned).collect();
    events.push(r#"{"auditID":"no time","user":{},"é\"\\":"\u003c\"}{"}"#.to_owned());
    events.push(format!(r#"{{"auditID":"long","pad":"{}"}}"#, "aé\\u003c".repeat(CONTAINER_PIECE_BYTES / 4)));
    events
}

fn rendered(event: &str, dialect: Dialect) -> String {
    let mut out = Vec::new();
    render(event, dialect, &mut out).expect("an event");
    String::from_utf8(out).expect("UTF-8")
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn parse_text(value: &Value) -> Value {
    parse(value.as_str().expect("a string"))
}

/// Returns the event in a rendering. The dialects that map events are not supported.
fn found(text: &str, dialect: Dialect) -> Value {
    let after = |mark: &str| parse(text.split_once(mark).expect(mark).1);
    match dialect {
        Dialect::Plain | Dialect::FluentBitMerged | Dialect::OpenShiftViaq | Dialect::Pretty => parse(text),
        Dialect::EventList => parse(text)["items"][0].clone(),
        Dialect::Eks => parse_text(&parse(text)["logEvents"][0]["message"]),
        Dialect::CloudWatchCli => parse_text(&parse(text)["events"][0]["message"]),
        Dialect::CloudWatchExport
        | Dialect::CloudWatchTail
        | Dialect::CloudWatchShort
        | Dialect::SyslogCee
        | Dialect::FluentdFile => {
            let at = text.find('{').expect("an object");
            parse(&text[at..])
        }
        Dialect::Aks => parse_text(&parse(text)["records"][0]["properties"]["log"]),
        Dialect::AksBlob => parse_text(&parse(text)["properties"]["log"]),
        Dialect::Gke | Dialect::GcloudRead => panic!("a mapped event"),
        Dialect::Cri => {
            let contents: Vec<(&str, &str)> = text
                .lines()
                .map(|line| line.split_once(" stdout ").expect("a CRI line").1)
                .map(|line| line.split_once(' ').expect("a tag"))
                .collect();
            let (last, parts) = contents.split_last().expect("a line");
            assert!(last.0 == "F" && parts.iter().all(|(tag, _)| *tag == "P"));
            parse(&contents.iter().map(|(_, content)| *content).collect::<String>())
        }
        Dialect::Docker => {
            let logs = text.lines().map(|line| parse(line)["log"].as_str().expect("a log").to_owned());
            let log: String = logs.collect();
            assert_eq!(log.matches('\n').count(), 1);
            parse(&log)
        }
        Dialect::Syslog => after(" - - - "),
        Dialect::SyslogBsd => after(" k8s-audit: "),
        Dialect::Journald => after(" kube-apiserver[811]: "),
        Dialect::JournaldJson | Dialect::JournaldBytes => match &parse(text)["MESSAGE"] {
            Value::Array(bytes) => {
                let bytes: Vec<u8> = bytes
                    .iter()
                    .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()).expect("a byte"))
                    .collect();
                serde_json::from_slice(&bytes).expect("an event")
            }
            text => parse_text(text),
        },
        Dialect::Filebeat => parse(text)["json"].clone(),
        Dialect::FilebeatMessage | Dialect::Vector => parse_text(&parse(text)["message"]),
        Dialect::ElasticAgent => parse(text)["kubernetes"]["audit"].clone(),
        Dialect::FluentBit => parse_text(&parse(text)["log"]),
        Dialect::Logstash => {
            let document = parse(text);
            assert_eq!(document["message"], document["event"]["original"]);
            parse_text(&document["message"])
        }
        Dialect::Loki => parse_text(&parse(text)["values"][0][1]),
        Dialect::LokiPush => parse_text(&parse(text)["streams"][0]["values"][0][1]),
        Dialect::SplunkHec => parse(text)["event"].clone(),
        Dialect::Otlp => {
            let records = &parse(text)["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
            parse_text(&records[0]["body"]["stringValue"])
        }
        Dialect::OtlpMembers => {
            let records = &parse(text)["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
            parse_text(&records[0]["body"]["kvlistValue"]["values"][1]["value"]["stringValue"])
        }
        Dialect::Gelf => parse_text(&parse(text.trim_end_matches('\0'))["short_message"]),
        Dialect::Array => parse(text)[0].clone(),
    }
}

#[test]
fn every_rendering_contains_the_event() {
    for event in events() {
        let original = parse(&event);
        for dialect in Dialect::ALL.into_iter().filter(|dialect| !dialect.is_mapped()) {
            let text = rendered(&event, dialect);
            let end = if dialect == Dialect::Gelf { '\0' } else { '\n' };
            assert!(text.ends_with(end) && !text.ends_with("\n\n"), "{}: {text}", dialect.name());
            let is_one_line = text.len() <= CONTAINER_PIECE_BYTES && dialect != Dialect::Pretty;
            assert!(!is_one_line || text.lines().count() == 1, "{}: {text}", dialect.name());
            let mut expected = original.clone();
            let members = expected.as_object_mut().expect("an object");
            match dialect {
                Dialect::EventList => members.retain(|name, _| name != "kind" && name != "apiVersion"),
                Dialect::OpenShiftViaq => {
                    members.remove("level");
                }
                _ => {}
            }
            let found = found(&text, dialect);
            for (name, value) in members {
                assert_eq!(found.get(name.as_str()), Some(&*value), "{}: {name}", dialect.name());
            }
            if dialect == Dialect::OpenShiftViaq {
                assert_eq!(found["level"], "default");
                assert_eq!(found["k8s_audit_level"], original["level"]);
            }
        }
    }
}

#[test]
fn a_body_that_is_nested_deeply_is_not_lost() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let event = format!(r#"{{"auditID":"deep","requestObject":{deep},"verb":"create"}}"#);
    for dialect in Dialect::ALL.into_iter().filter(|dialect| !dialect.is_mapped()) {
        let text = rendered(&event, dialect);
        let bytes = bytes_of(&deep);
        let bytes = bytes.trim_matches(['[', ']']);
        let is_kept = text.replace(['\n', ' '], "").contains(&deep) || text.contains(bytes);
        assert!(is_kept, "{}: {text}", dialect.name());
    }
}

#[test]
fn a_rendering_is_a_function_of_the_event() {
    let events = events();
    for dialect in Dialect::ALL {
        let all = || events.iter().map(|event| rendered(event, dialect)).collect::<String>();
        assert_eq!(all(), all(), "{}", dialect.name());
    }
    // A change of a rendering must be intended, because tests of other crates depend on the
    // renderings.
    let event = r#"{"kind":"Event","level":"Metadata","auditID":"7f1a","stageTimestamp":"2026-03-02T10:00:00.123456Z"}"#;
    let text: String = Dialect::ALL.into_iter().map(|dialect| rendered(event, dialect)).collect();
    for time in ["2026-03-02T10:00:00.123Z", "1772445600123", "1772445600123456000", "Mar  2 10:00:00"] {
        assert!(text.contains(time), "{time}");
    }
    let is_bytes = text.contains(bytes_of("7f1a").trim_matches(['[', ']']));
    assert!(is_bytes, "{text}");
    assert_eq!(
        text.matches("7f1a").count(),
        Dialect::ALL.len() + 2,
        "Logstash and Google write the id twice"
    );
}

#[test]
fn names_are_distinct_and_every_dialect_is_listed() {
    let mut names: Vec<&str> = Dialect::ALL.into_iter().map(Dialect::name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Dialect::ALL.len());
    assert!(Dialect::ALL.is_sorted(), "the list has the order of the declaration");
}

#[test]
fn what_is_not_one_event_is_refused() {
    for (text, is_line) in [("", true), ("[]", true), ("{\"a\":1", true), ("{}{}", true), ("{\n}", false)] {
        let mut out = b"before".to_vec();
        let error = render(text, Dialect::Plain, &mut out).expect_err(text);
        assert_eq!(matches!(error, EventError::NotAnObject(_)), is_line, "{text}");
        assert_eq!(out, b"before");
    }
}

fn entry(event: &Value) -> Value {
    let text = rendered(&event.to_string(), Dialect::Gke);
    assert_eq!(parse(&rendered(&event.to_string(), Dialect::GcloudRead))[0], parse(&text));
    parse(&text)
}

#[test]
fn google_entries_name_the_request() {
    // Columns: group, version, namespace, resource, name, subresource; verb; method; resource name.
    for (reference, verb, method, name) in [
        (
            "- v1 ns pods p exec",
            "create",
            "io.k8s.core.v1.pods.exec.create",
            "core/v1/namespaces/ns/pods/p/exec",
        ),
        ("- v1 - secrets - -", "list", "io.k8s.core.v1.secrets.list", "core/v1/secrets"),
        ("- v1 ns namespaces ns -", "delete", "io.k8s.core.v1.namespaces.delete", "core/v1/namespaces/ns"),
        ("- v1 - nodes n proxy", "get", "io.k8s.core.v1.nodes.proxy.get", "core/v1/nodes/n/proxy"),
        (
            "apps v1 ns daemonsets d -",
            "patch",
            "io.k8s.apps.v1.daemonsets.patch",
            "apps/v1/namespaces/ns/daemonsets/d",
        ),
        (
            "rbac.authorization.k8s.io v1 - clusterroles c -",
            "create",
            "io.k8s.authorization.rbac.v1.clusterroles.create",
            "rbac.authorization.k8s.io/v1/clusterroles/c",
        ),
        (
            "cert-manager.io v1 ns issuers i -",
            "deletecollection",
            "io.cert-manager.v1.issuers.deletecollection",
            "cert-manager.io/v1/namespaces/ns/issuers/i",
        ),
    ] {
        let names = ["apiGroup", "apiVersion", "namespace", "resource", "name", "subresource"];
        let reference: Value = names
            .into_iter()
            .zip(reference.split(' '))
            .filter(|(_, value)| *value != "-")
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let entry = entry(&json!({"auditID": "a", "verb": verb, "objectRef": reference}));
        let payload = &entry["protoPayload"];
        assert_eq!((&payload["methodName"], &payload["resourceName"]), (&method.into(), &name.into()));
        assert_eq!(payload["authorizationInfo"][0]["permission"], method);
    }
    let entry = entry(&json!({"auditID": "a", "verb": "get", "requestURI": "/readyz?verbose"}));
    assert_eq!(entry["protoPayload"]["methodName"], "io.k8s.get");
    assert_eq!(entry["protoPayload"]["resourceName"], "readyz");
}

#[test]
fn google_entries_say_how_a_request_ended_and_no_more_than_google() {
    let event = json!({
        "kind": "Event", "level": "Request", "auditID": "a", "stage": "ResponseComplete", "verb": "create",
        "requestURI": "/apis/apps/v1/namespaces/ns/deployments?secret",
        "user": {"username": "eve", "uid": "u-1", "groups": ["system:masters"], "extra": {"k": ["v"]}},
        "impersonatedUser": {"username": "admin"},
        "sourceIPs": ["198.51.100.1", "203.0.113.7"], "userAgent": "kubectl",
        "objectRef": {"apiGroup": "apps", "apiVersion": "v1", "namespace": "ns", "resource": "deployments", "name": "d"},
        "responseStatus": {"metadata": {}, "code": 201},
        "requestObject": {"kind": "Deployment", "apiVersion": "apps/v1", "spec": {"replicas": 1}},
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "r"},
        "stageTimestamp": "2026-03-02T10:00:00.123456Z",
    });
    let good = entry(&event);
    let payload = &good["protoPayload"];
    assert_eq!(good["labels"], event["annotations"]);
    assert_eq!(good["operation"], json!({"first": true, "id": "a", "last": true, "producer": "k8s.io"}));
    assert_eq!(good["timestamp"], "2026-03-02T10:00:00.123456Z");
    assert_eq!(payload["authenticationInfo"], json!({"principalEmail": "eve"}));
    assert_eq!(payload["authorizationInfo"][0]["granted"], true);
    assert_eq!(payload["requestMetadata"]["callerIp"], "203.0.113.7");
    assert_eq!(payload["request"]["@type"], "apps.k8s.io/v1.Deployment");
    assert_eq!(payload["request"]["spec"], event["requestObject"]["spec"]);
    assert_eq!((&payload["status"], &payload["response"]), (&json!({}), &Value::Null));
    for lost in ["201", "system:masters", "u-1", "admin", "?secret", "\"Request\"", "198.51.100.1"] {
        assert!(!good.to_string().contains(lost), "{lost}");
    }

    let mut refused = event.clone();
    refused["responseStatus"] = json!({"metadata": {}, "code": 403, "message": "no", "reason": "Forbidden"});
    refused["annotations"]["authorization.k8s.io/decision"] = "forbid".into();
    let payload = entry(&refused)["protoPayload"].clone();
    assert_eq!(payload["status"], json!({"code": 7, "message": "no"}));
    assert_eq!(payload["response"]["@type"], "core.k8s.io/v1.Status");
    assert_eq!(
        (&payload["response"]["code"], &payload["response"]["status"]),
        (&403.into(), &"Failure".into())
    );
    assert_eq!(payload["authorizationInfo"][0].get("granted"), None);

    let mut patch = event.clone();
    patch["verb"] = "patch".into();
    patch["requestObject"] = json!([{"op": "add", "path": "/spec/replicas", "value": 2}]);
    let payload = entry(&patch)["protoPayload"].clone();
    assert_eq!(payload["request"]["@type"], "k8s.io/Patch");
    assert_eq!(payload["request"]["value"], patch["requestObject"]);
}

#[test]
fn google_has_two_entries_for_a_long_request_and_none_for_its_receipt() {
    let operation = |stage: &str, subresource: &str| {
        let event = json!({
            "auditID": "a", "stage": stage, "verb": "create",
            "objectRef": {"apiVersion": "v1", "resource": "pods", "name": "p", "subresource": subresource},
        });
        let mut out = Vec::new();
        render(&event.to_string(), Dialect::Gke, &mut out).expect("an event");
        let entry: Value = serde_json::from_slice(&out).unwrap_or_default();
        (entry["operation"]["first"] == true, entry["operation"]["last"] == true, out.is_empty())
    };
    assert_eq!(operation("RequestReceived", "exec"), (false, false, true));
    assert_eq!(operation("ResponseStarted", "exec"), (true, false, false));
    assert_eq!(operation("ResponseComplete", "exec"), (false, true, false));
    assert_eq!(operation("ResponseComplete", "status"), (true, true, false));
}

#[test]
fn ids_follow_from_bytes() {
    assert_eq!(hash_hex(b""), "cbf29ce484222325");
    assert_eq!(hash_hex(b"a"), "af63dc4c8601ec8c");
}
