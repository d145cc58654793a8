//! Events that are alike are judged once, and of others only the bodies are read. The result is that
//! of editing and decoding every event whole, whatever is in it, around it, and in the policy.

use proptest::sample::select;

use super::*;

/// Names that mean something to a policy or to the API, and some that do not.
const NAMES: [&str; 32] = [
    "data",
    "stringData",
    "spec",
    "env",
    "value",
    "valueFrom",
    "name",
    "metadata",
    "annotations",
    "labels",
    "managedFields",
    "fieldsV1",
    "f:data",
    "k:{\"name\":\"zQmK1aaa\"}",
    "v:\"zQmK2bbb\"",
    "items",
    "rows",
    "cells",
    "object",
    "raw",
    "kind",
    "status",
    "message",
    "reason",
    "details",
    "causes",
    "op",
    "path",
    "from",
    "patch",
    "a/b~c",
    "é",
];

/// Texts that repeat in several places of an event, so that one may be found beside another.
const TEXTS: [&str; 12] = [
    "zQmK1aaa",
    "zQmK2bbb",
    "zQmK3ccc zQmK1aaa",
    "elFtSzFhYWE=",
    "jane@example.org",
    "123-45-6789",
    "/data/password",
    "/spec/env/0/value",
    "replace",
    "not \"found\"\n<&>",
    "",
    "Failure",
];

const PATHS: [&str; 26] = [
    "requestObject",
    "responseObject",
    "requestObject.data.*",
    "responseObject.data.*",
    "requestObject.stringData",
    "requestObject.**.env[].value",
    "responseObject.**.env[].value",
    "requestObject.spec.**",
    "responseObject.spec.name",
    "requestObject.metadata.annotations.*",
    "responseObject.metadata.labels.name",
    "requestObject.items[].spec",
    "responseObject.*.value",
    "requestObject[].value",
    "responseObject.status.message",
    "requestObject[\"a/b~c\"]",
    "annotations[\"x.io/note\"]",
    "annotations.*",
    "responseStatus.message",
    "responseStatus.details.causes[].message",
    "responseStatus.details",
    "user.extra.*",
    "impersonatedUser.extra",
    "user.username",
    "requestURI.command",
    "requestURI.*",
];

fn some_policy() -> impl Strategy<Value = Arc<Redactor>> {
    let resources =
        select(&["", "", "secrets", "core/*", "pods", "statefulsets", "example.org/patients"][..]);
    let rule = (proptest::collection::vec(select(&PATHS[..]), 1..4), any::<bool>(), resources, any::<bool>());
    let names = |names: &'static [&'static str]| {
        proptest::collection::vec(select(names), 0..2)
            .prop_map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let presets = names(&["secrets", "configmaps", "env", "exec"]);
    let detectors = names(&["email", "us-ssn"]);
    (proptest::collection::vec(rule, 1..5), presets, detectors)
        .prop_map(|(rules, presets, detectors)| Settings {
            key: Some("env:UNUSED".to_owned()),
            old_keys: Vec::new(),
            presets,
            detectors,
            rules: rules
                .into_iter()
                .map(|(paths, drop, resource, is_phi)| RuleSettings {
                    clusters: Vec::new(),
                    namespaces: if is_phi { vec!["phi-*".to_owned()] } else { Vec::new() },
                    resources: if resource.is_empty() { Vec::new() } else { vec![resource.to_owned()] },
                    paths: paths.into_iter().map(str::to_owned).collect(),
                    action: if drop { "drop" } else { "tokenise" }.to_owned(),
                })
                .collect(),
        })
        .prop_filter_map("a policy that can be kept", |settings| {
            let policy = Policy::new(&settings).ok()?;
            let key = Key::parse(&"5a".repeat(32)).expect("a key");
            Some(Arc::new(Redactor::new(policy, Keys::new(key, Vec::new()).expect("one id"))))
        })
}

/// A literal, as Go writes it or with an escape that nobody needs.
fn literal(text: &str, is_odd: bool) -> String {
    let mut out = Vec::new();
    strongroom_decode::render::go_string(text, &mut out);
    let plain = String::from_utf8(out).expect("text");
    match text.chars().next() {
        Some(first) if is_odd && first.is_ascii_alphanumeric() => {
            plain.replacen(first, &format!("\\u{:04x}", u32::from(first)), 1)
        }
        _ => plain,
    }
}

fn some_text() -> impl Strategy<Value = String> {
    (select(&TEXTS[..]), 0_u8..6).prop_map(|(text, odd)| literal(text, odd == 0))
}

/// A JSON text. Names are repeated, are in another case, or have escapes.
fn some_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        6 => some_text(),
        1 => Just("null".to_owned()),
        1 => Just("1234567".to_owned()),
        1 => Just("true".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let name = (select(&NAMES[..]), 0_u8..12).prop_map(|(name, how)| match how {
            0 => literal(name, true),
            1 => literal(&name.to_ascii_uppercase(), false),
            _ => literal(name, false),
        });
        let member = (name, inner.clone()).prop_map(|(name, value)| format!("{name}:{value}"));
        prop_oneof![
            8 => (proptest::collection::vec(member, 0..5), 0_u8..10).prop_map(|(members, spaced)| {
                format!("{{{}}}", members.join(if spaced == 0 { " ,\t" } else { "," }))
            }),
            3 => proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            1 => inner.prop_map(|inner| literal(&inner, false)),
        ]
    })
}

/// A body, often with what a policy names where the policy expects it.
fn some_body() -> impl Strategy<Value = String> {
    let of_kind = |kind: &'static str| {
        (some_text(), some_text(), some_value()).prop_map(move |(one, other, more)| match kind {
            "secret" => format!(
                r#"{{"kind":"Secret","metadata":{{"name":"s","annotations":{{"applied":{more}}}}},"data":{{"password":{one},"user":{other}}}}}"#
            ),
            "pod" => format!(
                r#"{{"kind":"Pod","spec":{{"name":{one},"containers":[{{"env":[{{"name":"A","value":{other}}},{more}]}}]}}}}"#
            ),
            "status" => format!(
                r#"{{"kind":"Status","status":"Failure","message":{one},"reason":{other},"details":{{"causes":[{{"message":{more}}}]}}}}"#
            ),
            "patch" => format!(
                r#"[{{"op":"replace","path":"/data/p","value":{one}}},{{"op":"add","path":{other},"value":{more}}}]"#
            ),
            "kept" => format!(r#"{{"kind":"Lease","spec":{{"holder":"h","extra":{{"one":{one}}}}}}}"#),
            _ => format!(r#"{{"items":[{{"data":{{"a":{one}}},"spec":{more}}},{other}]}}"#),
        })
    };
    prop_oneof![
        2 => some_value(),
        2 => of_kind("secret"),
        2 => of_kind("pod"),
        1 => of_kind("status"),
        1 => of_kind("patch"),
        2 => of_kind("kept"),
        1 => of_kind("list"),
    ]
}

/// What of an event is not its bodies: its beginning, up to the bodies, and its end.
fn some_envelope() -> impl Strategy<Value = (String, String)> {
    let target = select(
        &[
            r#""resource":"secrets","namespace":"phi-1","name":"o","apiVersion":"v1""#,
            r#""resource":"pods","namespace":"phi-1","name":"o","apiVersion":"v1""#,
            r#""resource":"pods","namespace":"other","apiVersion":"v1","subresource":"exec""#,
            r#""resource":"statefulsets","namespace":"phi-2","name":"o","apiGroup":"apps","apiVersion":"v1""#,
            r#""resource":"controllerrevisions","namespace":"phi-2","name":"o","apiGroup":"apps","apiVersion":"v1""#,
            r#""resource":"patients","namespace":"phi-1","name":"o","apiGroup":"example.org","apiVersion":"v1""#,
        ][..],
    );
    let uri =
        select(&["/api", "/api?command=zQmK1aaa\\u0026x=1", "/api?fieldSelector=spec.name%3DzQmK2bbb"][..]);
    let status = select(
        &[
            "",
            r#""responseStatus":{"metadata":{},"code":200},"#,
            r#""responseStatus":{"metadata":{},"message":"zQmK2bbb is bad","code":422},"#,
            r#""responseStatus":{"metadata":{},"status":"Failure","message":"secrets \"zQmK1aaa\" not found","reason":"NotFound","details":{"name":"zQmK1aaa","kind":"secrets"},"code":404},"#,
            r#""responseStatus":{"metadata":{},"message":"zQmK2bbb"},"#,
        ][..],
    );
    let note = prop_oneof![
        3 => Just(String::new()),
        1 => some_text().prop_map(|text| format!(r#","x.io/note":{text}"#)),
        1 => some_text().prop_map(|text| format!(r#","other.io/finding":{text}"#)),
        1 => some_value().prop_map(|value| format!(r#","patch.webhook.admission.k8s.io/round_0_index_0":{}"#, literal(&value, false))),
    ];
    let extra = select(&["", r#","extra":{"example.org/claim":["zQmK1aaa"]}"#][..]);
    let user = select(&["eve", "jane@example.org"][..]);
    (target, uri, status, note, extra, user).prop_map(|(target, uri, status, note, extra, user)| {
        (
            format!(
                r#""requestURI":"{uri}","verb":"create","user":{{"username":"{user}","groups":["a"]{extra}}},"sourceIPs":["10.0.0.7"],"objectRef":{{{target}}},{status}"#
            ),
            format!(
                r#""requestReceivedTimestamp":"2026-03-02T10:00:00.000001Z","stageTimestamp":"2026-03-02T10:00:00.000002Z","annotations":{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by RoleBinding \"zQmK1aaa\" of Role \"b\" to User \"c\""{note}}}"#
            ),
        )
    })
}

type Pieces = (usize, Option<String>, Option<String>, u8, u8);

/// Writes an event as a line, in one of the ways in which events arrive.
fn some_line(
    envelopes: &[(String, String)],
    number: usize,
    (at, request, response, how, odd): &Pieces,
) -> String {
    let (before, after) = &envelopes[at % envelopes.len()];
    let member = |name: &str, body: &Option<String>| {
        body.as_ref().map_or(String::new(), |body| format!(r#""{name}":{body},"#))
    };
    let mut request = member("requestObject", request);
    if *odd == 0 {
        request = request.replacen("\"requestObject\"", "\"request\\u004fbject\"", 1);
    } else if *odd == 1 {
        request = request.repeat(2);
    }
    let response = member("responseObject", response);
    let more = if *odd == 2 { r#""copy":{"requestObject":"zQmK1aaa"},"# } else { "" };
    let event = |head: &str| {
        format!(
            r#"{{{head}"level":"RequestResponse","auditID":"id-{number}","stage":"ResponseComplete",{before}{request}{response}{more}{after}}}"#
        )
    };
    let text = event(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#);
    let string = |text: &str| serde_json::to_string(text).expect("a string");
    match *how {
        0..=9 => text,
        10 => format!("2026-03-02T10:00:00.000000001Z stdout F {text}"),
        11 => {
            format!(r#"{{"log":{},"stream":"stdout","time":"2026-03-02T10:00:00Z"}}"#, string(&(text + "\n")))
        }
        12 | 13 => {
            let items = [event(""), event(""), event("")].join(",");
            format!(
                r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#
            )
        }
        14 => {
            let items = [event(""), event("")].join(",");
            format!(
                r#"{{"kind":"EventList","items":[{items}],"metadata":{{"selfLink":"zQmK1aaa"}},"note":"zQmK2bbb"}}"#
            )
        }
        15 => format!(r#"{{"message":{0},"event":{{"original":{0}}}}}"#, string(&text)),
        16 => format!("Mar  2 10:00:00 master kube-apiserver[1]: {text}"),
        17 => text.replace(",\"", ", \""),
        18 => string(&text),
        19 => {
            text[..text.char_indices().nth(text.chars().count() * 4 / 5).map_or(0, |(at, _)| at)].to_owned()
        }
        20 => {
            let log = string(&text);
            format!(
                r#"{{"records":[{{"category":"kube-audit","properties":{{"log":{log}}}}},{{"category":"kube-audit","properties":{{"log":{log}}},"more":{log}}}]}}"#
            )
        }
        21 => format!(
            r#"{{"protoPayload":{{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","authenticationInfo":{{"principalEmail":"jane@example.org"}},"methodName":"io.k8s.core.v1.secrets.create","resourceName":"core/v1/namespaces/phi-1/secrets/o","serviceName":"k8s.io",{}"status":{{}}}},"insertId":"i-{number}","timestamp":"2026-03-02T10:00:00Z","logName":"projects/p/logs/cloudaudit.googleapis.com%2Factivity","resource":{{"type":"k8s_cluster"}}}}"#,
            request.replace("\"requestObject\"", "\"request\"")
        ),
        _ => "no event zQmK1aaa".to_owned(),
    }
}

fn decrypted(redactor: &Redactor, rejects: &RecordBatch) -> Vec<Vec<u8>> {
    let raw = rejects.column(rejects::index::RAW).as_binary::<i32>();
    raw.iter().flatten().map(|raw| redactor.decrypt(raw, CONTEXT_REJECT).expect("of this key")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 32 } else { 512 }))]

    #[test]
    fn shorter_ways_lead_to_the_same_rows(
        redactor in some_policy(),
        envelopes in proptest::collection::vec(some_envelope(), 1..4),
        pieces in proptest::collection::vec(
            (0_usize..3, proptest::option::weighted(0.7, some_body()), proptest::option::of(some_body()), 0_u8..23, 0_u8..40),
            1..16,
        ),
        line_bytes_max in select(&[LINE_BYTES_MAX, LINE_BYTES_MAX, 1500][..]),
    ) {
        let lines: Vec<String> =
            pieces.iter().enumerate().map(|(at, piece)| some_line(&envelopes, at, piece) + "\n").collect();
        let log = lines.concat();
        let mut block = block(&log);
        block.begins = LineSoFar::default().edge(log.as_bytes(), line_bytes_max);
        let config = DecoderConfig { line_bytes_max, ..DecoderConfig::default() };
        let redact = |edits_whole: bool| {
            let mut redaction = Redaction::new(Arc::clone(&redactor), config.clone());
            redaction.edits_whole = edits_whole;
            let later = redaction.hashed_later(&block.origin);
            let mut decoder = Decoder::new(config.clone());
            let decoded = decoder.decode_to_change(&block, DateTime::UNIX_EPOCH, later).expect("columns");
            let changes = redaction.changes(&decoded.events, &block.origin).expect("columns");
            let token = |value: &str| token(&redactor, value);
            let shown = redaction.shown(&decoded.events, &changes, None, &block.origin, &token).expect("rows");
            let shown = shown.map(|shown| (shown.events, shown.rows));
            let shorter = changes.bodies.rows().len();
            let (redacted, counts) =
                redaction.apply(decoded, changes, &block.origin, DateTime::UNIX_EPOCH).expect("columns");
            (redacted, counts, shown, shorter)
        };
        let (whole, whole_counts, whole_shown, _) = redact(true);
        let (short, counts, shown, shorter) = redact(false);
        prop_assert!(shorter <= counts.events as usize);
        prop_assert_eq!(counts, whole_counts, "{}", log);
        prop_assert_eq!(&short.record_hashes, &whole.record_hashes, "{}", log);
        same(&short.events, &whole.events, &log)?;
        prop_assert_eq!(shown.is_some(), whole_shown.is_some());
        if let (Some((events, rows)), Some((whole, whole_rows))) = (shown, whole_shown) {
            prop_assert_eq!(&rows, &whole_rows);
            same(&events, &whole, &log)?;
        }
        for column in [rejects::index::REASON, rejects::index::DETAIL, rejects::index::SOURCE_OFFSET] {
            prop_assert_eq!(short.rejects.column(column), whole.rejects.column(column));
        }
        prop_assert_eq!(decrypted(&redactor, &short.rejects), decrypted(&redactor, &whole.rejects));

        // What is written is what a verifier reads.
        let mut found = Vec::new();
        let hash = |row: usize, record: &[u8]| {
            let marks = short.events.column(index::REDACTION).as_dictionary::<Int32Type>();
            match dictionary_value(marks, row) {
                Some(mark) => redacted_leaf_hash(mark, record),
                None => leaf_hash(record),
            }
        };
        let mut hashes = Vec::new();
        compare_events(
            &short.events,
            EVENTS_FORMAT,
            &mut |record| hashes.push(hash(hashes.len(), record)),
            &mut |row, how| found.push((row, how.to_string())),
        )
        .expect("events");
        prop_assert_eq!(found, Vec::new(), "{}", log);
        prop_assert_eq!(&hashes, &short.record_hashes);
    }
}

/// Compares two batches of events value by value.
fn same(one: &RecordBatch, other: &RecordBatch, log: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(one.num_rows(), other.num_rows());
    for column in 0..one.num_columns() {
        let pair = Pair::of(one.column(column), other.column(column));
        for row in 0..one.num_rows() {
            let text = |batch: &RecordBatch| format!("{:?}", batch.column(column).slice(row, 1));
            prop_assert!(
                pair.is_equal(row, row),
                "row {} of {}: {} instead of {}\n{}",
                row,
                strongroom_schemas::events::COLUMNS[column],
                text(one),
                text(other),
                log
            );
        }
    }
    Ok(())
}
