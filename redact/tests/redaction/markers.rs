//! No marker survives: values at the places that a policy names leave no trace in the edited event.
//! They are tried in every form in which they are known to arrive, and in combinations of these
//! forms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use strongroom_redact::{Form, Token, Unreadable};
use strongroom_schemas::marked;
use strongroom_schemas::marks::Redaction;

use crate::{SECRET, edited, rule, with};

const MARKER: &str = "MARKER";

/// Adds every text in a value to `out`: names and strings, and the texts inside them, in JSON or
/// base64.
fn texts(value: &Value, out: &mut Vec<String>) {
    let push = |text: &str, out: &mut Vec<String>| {
        out.push(text.to_owned());
        if let Ok(decoded) = STANDARD.decode(text)
            && let Ok(decoded) = String::from_utf8(decoded)
        {
            out.push(decoded);
        }
        if let Ok(inner @ (Value::Object(_) | Value::Array(_) | Value::String(_))) =
            serde_json::from_str::<Value>(text)
        {
            texts(&inner, out);
        }
    };
    match value {
        Value::String(text) => push(text, out),
        Value::Array(elements) => elements.iter().for_each(|inner| texts(inner, out)),
        Value::Object(members) => {
            for (name, inner) in members {
                push(name, out);
                texts(inner, out);
            }
        }
        _ => {}
    }
}

/// Panics if a marker is in the text, in a string of it, or in a text inside a string.
fn assert_no_marker(text: &str, event: &str) {
    let mut all = vec![text.to_owned()];
    texts(&serde_json::from_str(text).expect("an edited event is JSON"), &mut all);
    assert!(!all.iter().any(|text| text.contains(MARKER)), "a marker survives\n{event}\n{text}");
}

/// Returns the values that a pointer leads to.
fn values<'v>(value: &'v Value, steps: &[&str]) -> Vec<&'v Value> {
    let Some((step, rest)) = steps.split_first() else { return vec![value] };
    let name = step.replace("~1", "/").replace("~0", "~");
    match value {
        Value::Object(members) => members.get(&name).map(|inner| values(inner, rest)).unwrap_or_default(),
        Value::Array(elements) if *step == "-" => {
            elements.iter().flat_map(|inner| values(inner, rest)).collect()
        }
        Value::Array(elements) => step
            .parse::<usize>()
            .ok()
            .and_then(|at| elements.get(at))
            .map(|inner| values(inner, rest))
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Panics if a mark is not true of an edited event.
pub fn assert_true(mark: &str, event: &str) {
    let mark = Redaction::parse(mark).expect("a mark");
    // Both verifiers check this for every redacted row.
    assert_eq!(marked::compare(&mark, event.as_bytes()), Ok(()), "{mark} {event}");
    let event: Value = serde_json::from_str(event).expect("JSON");
    let find = |pointer: &String| {
        let steps: Vec<&str> = pointer.split('/').skip(1).collect();
        (values(&event, &steps), steps.contains(&"-"))
    };
    for pointer in mark.dropped() {
        let (found, is_folded) = find(pointer);
        assert!(is_folded || found.iter().all(|value| value.is_null()), "{pointer} leads to a value");
    }
    for pointer in mark.tokenised() {
        let (found, is_folded) = find(pointer);
        let is_token = |value: &&&Value| {
            value.as_str().is_some_and(|text| Token::parse(text).is_ok() || text.contains("rt1:"))
        };
        let tokens = found.iter().filter(is_token).count();
        assert!(tokens > 0 && (is_folded || tokens == found.len()), "{pointer} leads to no token");
    }
}

/// Generates an object of the API with markers in `data`.
fn secret() -> impl Strategy<Value = Value> {
    let name =
        proptest::sample::select(&["p", "tls.key", "a/b~c", "-", "0", "é", "data", "items", "value"][..]);
    let value = prop_oneof![
        (0..1000).prop_map(|at| json!(format!("{MARKER}-{at:012}"))),
        (0..1000).prop_map(|at| json!(STANDARD.encode(format!("{MARKER}-{at:012}")))),
        Just(json!({"deep": [MARKER, {"er": MARKER}]})),
        Just(json!([MARKER, null, [MARKER]])),
        Just(json!(null)),
    ];
    let odd = prop_oneof![Just(json!(MARKER)), Just(json!([MARKER])), Just(json!([{"p": MARKER}]))];
    let data = proptest::collection::btree_map(name, value, 0..4).prop_map(|data| json!(data));
    (prop_oneof![6 => data, 1 => odd], any::<bool>()).prop_map(|(data, upper)| {
        json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "n"}, if upper { "Data" } else { "data" }: data})
    })
}

/// Generates a body that contains an object, in one form or in several forms inside one another.
fn body() -> impl Strategy<Value = Value> {
    secret().prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|items| {
                // Lists of the API contain only objects, so strings are left out.
                let items: Vec<Value> = items.into_iter().filter(|item| !item.is_string()).collect();
                json!({"kind": "List", "items": items})
            }),
            inner.clone().prop_map(|object| json!({"kind": "Table", "rows": [{"cells": ["n"], "object": object}]})),
            inner.clone().prop_map(|object| match object {
                Value::String(text) => json!(text),
                object => json!({"type": "MODIFIED", "object": object}),
            }),
            inner.clone().prop_map(|object| {
                json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": object.to_string()}}})
            }),
            inner.clone().prop_map(|object| {
                let text = object.to_string();
                json!({"metadata": {"annotations": {"x": STANDARD.encode(&text), "y": text[..text.len() - 1].to_owned()}}})
            }),
            inner.clone().prop_map(|object| json!({"metadata": {"annotations": {"x": object}}})),
            inner.clone().prop_map(|object| json!([{"op": "replace", "path": "", "value": object}])),
            inner.clone().prop_map(|object| {
                let data = object.get("data").or_else(|| object.get("Data")).cloned().unwrap_or(json!(MARKER));
                json!([{"op": "test", "path": "/data", "value": data}, {"op": "add", "path": "/data/a~1b", "value": MARKER}])
            }),
            inner.clone().prop_map(|object| json!([{"op": "add", "path": "/items/-", "value": object}])),
            inner.clone().prop_map(|object| {
                json!([{"op": "add", "path": "/metadata/annotations/x~1y", "value": object.to_string()}])
            }),
            inner.clone().prop_map(|object| json!([{"op": "add", "path": "/metadata", "value": object["metadata"]}])),
            inner.clone().prop_map(|object| json!(object.to_string())),
            inner.clone().prop_map(|object| json!([object, [object]])),
            inner.prop_map(|object| json!({"@type": "k", "value": [{"op": "add", "path": "", "value": object}]})),
        ]
    })
}

fn event() -> impl Strategy<Value = String> {
    let message = prop_oneof![
        Just(json!(format!("Secret \"n\" is invalid: data[p]: Invalid value: \"{MARKER}\": no"))),
        Just(json!(format!("admission webhook \"w\" denied the request: {MARKER}"))),
        Just(json!("secrets \"n\" not found")),
        Just(json!([MARKER])),
        Just(json!(null)),
    ];
    let annotation = prop_oneof![
        Just(json!(format!(
            "{{\"webhook\":\"w\",\"patch\":[{{\"op\":\"add\",\"path\":\"/data/p\",\"value\":\"{MARKER}\"}}]}}"
        ))),
        Just(json!("none")),
    ];
    (body(), body(), message, annotation, any::<bool>()).prop_map(|(request, response, message, annotation, escaped)| {
        let text = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a", "stage": "ResponseComplete",
            "user": {"username": "jane"},
            "responseStatus": {"code": 422, "message": message, "details": {"causes": [{"message": message}]}},
            "requestObject": request,
            "responseObject": response,
            "annotations": {"patch.webhook.admission.k8s.io/round_0_index_0": annotation},
        })
        .to_string();
        if escaped {
            // Writes every marker, and every name that a path depends on, with escapes.
            text.replace("MARKER", r"\u004dAR\u004bER").replace("\"data\"", r#""d\u0061ta""#).replace("\"op\"", r#""\u006fp""#)
        } else {
            text
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_marker_survives(event in event()) {
        for action in ["drop", "tokenise"] {
            let redactor = with(vec![rule(action, &["requestObject.data.*", "responseObject.data.*"])], &[], &[]);
            let (left, mark) = edited(&redactor, &event);
            assert_no_marker(&left, &event);
            if let Some(mark) = mark {
                assert!(!mark.contains(MARKER), "{mark}");
                assert_true(&mark, &left);
            }
        }
        // Paths with `**` find the same values, and members at any depth.
        let redactor = with(vec![rule("drop", &["requestObject.**.data.**", "responseObject.**.data"])], &[], &[]);
        assert_no_marker(&edited(&redactor, &event).0, &event);
    }

    /// A `**` is not followed through a text that has the next name nowhere. So it makes no difference
    /// where else the name is.
    #[test]
    fn a_name_that_is_elsewhere_changes_nothing(
        event in event(),
        names in proptest::sample::subsequence(&["deep", "er", "y", "cells", "spec", "annotations", "Rows"][..], 1..4),
        action in proptest::sample::select(&["drop", "tokenise"][..]),
    ) {
        let paths: Vec<String> = names
            .iter()
            .flat_map(|name| [format!("requestObject.**.{name}.*"), format!("responseObject.**.{name}")])
            .collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let redactor = with(vec![rule(action, &paths)], &[], &[]);
        let beside = |agent: &str| event.replacen("\"stage\":", &format!("\"userAgent\":{agent:?},\"stage\":"), 1);
        let (alone, mark) = edited(&redactor, &beside("-"));
        let agent = names.join(" ");
        let (woken, woken_mark) = edited(&redactor, &beside(&agent));
        prop_assert_eq!(alone.replacen("\"userAgent\":\"-\"", &format!("\"userAgent\":{agent:?}"), 1), woken);
        prop_assert_eq!(mark, woken_mark);
    }

    #[test]
    fn a_cut_event_is_not_passed(event in event(), cut in any::<prop::sample::Index>()) {
        let redactor = with(vec![rule("drop", &["requestObject.data.*"])], &[], &[]);
        let end = cut.index(event.len());
        prop_assert!(matches!(
            redactor.redact(&event.as_bytes()[..end], Form::Event, "prod", &SECRET),
            Err(Unreadable::NotJson | Unreadable::NotUtf8)
        ));
    }

    #[test]
    fn any_bytes_are_tolerated(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let redactor = with(vec![rule("drop", &["requestObject.**"])], &[], &["email"]);
        prop_assert!(redactor.redact(&bytes, Form::Event, "prod", &SECRET).is_err());
    }
}

#[test]
fn a_hundred_thousand_markers_leave_no_trace() {
    let data: Vec<String> = (0..100_000).map(|at| format!(r#""k{at}":"{MARKER}-{at:012}""#)).collect();
    let object = format!(r#"{{"kind":"Secret","data":{{{}}}}}"#, data.join(","));
    let items: Vec<String> = (0..1000)
        .map(|at| format!(r#"{{"metadata":{{"name":"n{at}"}},"data":{{"a":"{MARKER}-{at}"}}}}"#))
        .collect();
    let event = format!(
        r#"{{"kind":"Event","annotations":{{"w/x":"{MARKER}-000000000007"}},"requestObject":{object},"responseObject":{{"items":[{}]}}}}"#,
        items.join(",")
    );
    for action in ["drop", "tokenise"] {
        let redactor = with(vec![rule(action, &["requestObject.data.*", "responseObject.data.*"])], &[], &[]);
        let (left, mark) = edited(&redactor, &event);
        assert_no_marker(&left, "");
        assert_true(&mark.expect("a mark"), &left);
        assert!(left.contains(r#""name":"n999""#), "objects keep what no rule names");
    }
}
