//! Tests of the redactor: one case for each form in which a value is known to arrive.

use strongroom_redact::{Form, Key, Root, RuleSettings, Target};

use crate::{SECRET, edited, key, rule, with};

const RULES: [&str; 2] = ["requestObject.data.*", "responseObject.data.*"];

/// Drops `data.*`, and compares the edited event and the dropped paths of its mark.
fn dropped(event: &str, left: &str, paths: &[&str]) {
    let redactor = with(vec![rule("drop", &RULES)], &[], &[]);
    let (text, mark) = edited(&redactor, event);
    assert_eq!(text, left, "{event}");
    let paths: Vec<String> = paths.iter().map(|path| format!("{path:?}")).collect();
    let expected =
        format!(r#"{{"policy":"{:016x}","dropped":[{}],"tokenised":[]}}"#, redactor.id(), paths.join(","));
    assert_eq!(mark.unwrap_or_default(), expected, "{event}");
}

fn unchanged(event: &str) {
    let redactor = with(vec![rule("drop", &RULES)], &[], &[]);
    assert_eq!(edited(&redactor, event), (event.to_owned(), None));
}

fn token(text: &str) -> String {
    key().token_of_json(text).expect("JSON").to_string()
}

#[test]
fn members_go_with_their_commas() {
    for (data, left) in
        [(r#"{"a":1}"#, "{}"), (r#"{ "a" : 1 , "b":2 }"#, "{}"), (r#"{"a":{"b":[1,{}]}}"#, "{}")]
    {
        dropped_some(data, left);
    }
    let redactor = with(vec![rule("drop", &["requestObject.a", "requestObject.c"])], &[], &[]);
    for (body, left) in [
        (r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2}"#),
        (r#"{"b":2,"a":1}"#, r#"{"b":2}"#),
        (r#"{"b":2,"a":1,"d":4}"#, r#"{"b":2,"d":4}"#),
        (r#"{"a":1,"c":3,"b":2,"d":4}"#, r#"{"b":2,"d":4}"#),
        ("{ \"b\" : 2 ,\n \"a\" : 1 ,\n \"d\" : 4 }", "{ \"b\" : 2 ,\n \"d\" : 4 }"),
        (r#"{"b":2,"a":1,"c":3}"#, r#"{"b":2}"#),
    ] {
        assert_eq!(
            edited(&redactor, &format!(r#"{{"requestObject":{body}}}"#)).0,
            format!(r#"{{"requestObject":{left}}}"#)
        );
    }
}

fn dropped_some(data: &str, left: &str) {
    let redactor = with(vec![rule("drop", &RULES)], &[], &[]);
    let (text, mark) = edited(&redactor, &format!(r#"{{"requestObject":{{"data":{data}}}}}"#));
    assert_eq!(text, format!(r#"{{"requestObject":{{"data":{left}}}}}"#));
    assert!(mark.is_some());
}

#[test]
fn values_are_found_however_they_are_written() {
    let path = "/requestObject/data/p";
    dropped(r#"{"requestObject":{"d\u0061ta":{"p":"x"}}}"#, r#"{"requestObject":{"d\u0061ta":{}}}"#, &[path]);
    dropped(r#"{"request\u004fbject":{"data":{"p":"x"}}}"#, r#"{"request\u004fbject":{"data":{}}}"#, &[path]);
    // Go's decoder ignores case in some places, and a client may misspell a name.
    dropped(
        r#"{"requestObject":{"Data":{"p":"x"}}}"#,
        r#"{"requestObject":{"Data":{}}}"#,
        &["/requestObject/Data/p"],
    );
    // Every occurrence of a repeated member is dropped.
    dropped(r#"{"requestObject":{"data":{"p":"x"},"data":{"p":"y"}}}"#, r#"{}"#, &["/requestObject"]);
    dropped(r#"{"requestObject":{"data":{"p":"x","p":"y"}}}"#, r#"{"requestObject":{"data":{}}}"#, &[path]);
    // Names that a pointer has to escape, and names that cannot be in a pointer.
    dropped(
        r#"{"requestObject":{"data":{"a/b~c":"x"}}}"#,
        r#"{"requestObject":{"data":{}}}"#,
        &["/requestObject/data/a~1b~0c"],
    );
    for name in [r"\u0000", r"a\nb", r"\ud800", &"n".repeat(600)] {
        dropped(
            &format!(r#"{{"requestObject":{{"data":{{"{name}":"x"}},"kind":"Secret"}}}}"#),
            r#"{"requestObject":{"kind":"Secret"}}"#,
            &["/requestObject/data"],
        );
    }
}

#[test]
fn a_lone_surrogate_beside_a_value_is_tolerated() {
    let redactor = with(vec![rule("drop", &RULES)], &[], &[]);
    let event = r#"{"requestObject":{"\ud800":"\udc00","data":{"p":"x"},"n":1e999}}"#;
    let redacted = redactor.redact(event.as_bytes(), Form::Event, "prod", &SECRET).expect("readable");
    let redacted = redacted.expect("changed");
    assert_eq!(redacted.event, br#"{"requestObject":{"\ud800":"\udc00","data":{},"n":1e999}}"#);
    assert_eq!(strongroom_schemas::marked::compare(&redacted.mark, &redacted.event), Ok(()));
}

#[test]
fn what_is_not_formed_as_expected_is_a_value() {
    // A body that is a text: YAML, or JSON in a string.
    dropped(
        r#"{"verb":"patch","requestObject":"data:\n  p: x\n"}"#,
        r#"{"verb":"patch"}"#,
        &["/requestObject"],
    );
    dropped(r#"{"requestObject":"{\"data\":{\"p\":\"x\"}}"}"#, "{}", &["/requestObject"]);
    dropped(r#"{"requestObject":17}"#, "{}", &["/requestObject"]);
    // CBOR, as a raw extension.
    dropped(
        r#"{"requestObject":{"raw":"2dn3oQ==","contentType":"application/cbor"}}"#,
        r#"{"requestObject":{"contentType":"application/cbor"}}"#,
        &["/requestObject/raw"],
    );
    dropped(r#"{"requestObject":{"data":"x"}}"#, r#"{"requestObject":{}}"#, &["/requestObject/data"]);
    dropped(
        r#"{"requestObject":{"data":["x",{"p":"y"},null]}}"#,
        r#"{"requestObject":{"data":[null,{},null]}}"#,
        &["/requestObject/data/0", "/requestObject/data/1/p"],
    );
    // In a merge patch, null removes a member, so there is no value to drop.
    unchanged(r#"{"requestObject":{"data":null}}"#);
    dropped(
        r#"{"requestObject":{"data":{"p":null}}}"#,
        r#"{"requestObject":{"data":{}}}"#,
        &["/requestObject/data/p"],
    );
    unchanged(r#"{"requestObject":null,"responseObject":{}}"#);
}

#[test]
fn lists_and_tables_have_objects() {
    dropped(
        r#"{"responseObject":{"items":[{"data":{"p":"x"},"metadata":{"name":"a"}},{"items":[{"data":{"q":"y"}}]}]}}"#,
        r#"{"responseObject":{"items":[{"data":{},"metadata":{"name":"a"}},{"items":[{"data":{}}]}]}}"#,
        &["/responseObject/items/0/data/p", "/responseObject/items/1/items/0/data/q"],
    );
    dropped(
        r#"{"responseObject":{"kind":"Table","rows":[{"cells":["a","Opaque"],"object":{"data":{"p":"x"}}}]}}"#,
        r#"{"responseObject":{"kind":"Table","rows":[{"cells":["a","Opaque"],"object":{"data":{}}}]}}"#,
        &["/responseObject/rows/0/object/data/p"],
    );
    let redactor = with(vec![rule("drop", &RULES)], &[], &[]);
    let patients = Target { api_group: Some("example.org"), resource: Some("patients"), ..SECRET };
    let table = br#"{"responseObject":{"kind":"Table","rows":[{"cells":["123-45-6789"]}]}}"#;
    let redacted =
        redactor.redact(table, Form::Event, "prod", &patients).expect("readable").expect("changed");
    assert_eq!(redacted.event, br#"{"responseObject":{"kind":"Table","rows":[{}]}}"#);
    // A watch event.
    dropped(
        r#"{"responseObject":{"type":"ADDED","object":{"data":{"p":"x"}}}}"#,
        r#"{"responseObject":{"type":"ADDED","object":{"data":{}}}}"#,
        &["/responseObject/object/data/p"],
    );
}

#[test]
fn json_patches_are_followed() {
    for (operation, left, path) in [
        (r#"{"op":"add","path":"/data/p","value":"x"}"#, r#"{"op":"add","path":"/data/p"}"#, "/value"),
        (r#"{"op":"test","path":"/data/p","value":"x"}"#, r#"{"op":"test","path":"/data/p"}"#, "/value"),
        (
            r#"{"value":"x","path":"/d\u0061ta/p","op":"add"}"#,
            r#"{"path":"/d\u0061ta/p","op":"add"}"#,
            "/value",
        ),
        (
            r#"{"op":"add","path":"/data/a~1b","value":{"c":1}}"#,
            r#"{"op":"add","path":"/data/a~1b"}"#,
            "/value",
        ),
        (
            r#"{"op":"add","path":"/data/p/deeper","value":1}"#,
            r#"{"op":"add","path":"/data/p/deeper"}"#,
            "/value",
        ),
        (
            r#"{"op":"replace","path":"/data","value":{"p":"x"}}"#,
            r#"{"op":"replace","path":"/data","value":{}}"#,
            "/value/p",
        ),
        (
            r#"{"op":"replace","path":"","value":{"data":{"p":"x"},"kind":"Secret"}}"#,
            r#"{"op":"replace","path":"","value":{"data":{},"kind":"Secret"}}"#,
            "/value/data/p",
        ),
        (r#"{"op":"replace","path":"/data","value":"x"}"#, r#"{"op":"replace","path":"/data"}"#, "/value"),
        (r#"{"op":"add","path":"data/p","value":"x"}"#, r#"{"op":"add","path":"data/p"}"#, "/value"),
        (r#"{"op":"add","value":"x"}"#, r#"{"op":"add"}"#, "/value"),
        (r#"{"op":"add","path":"/data/p","Value":"x"}"#, r#"{"op":"add","path":"/data/p"}"#, "/Value"),
        (
            r#"{"op":"add","path":"/x","path":"/data/p","value":"x"}"#,
            r#"{"op":"add","path":"/x","path":"/data/p"}"#,
            "/value",
        ),
        (r#"{"op":"add","path":"/data/-","value":"x"}"#, r#"{"op":"add","path":"/data/-"}"#, "/value"),
        (
            r#"{"op":"add","path":"/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration","value":"{\"data\":{\"p\":\"x\"}}"}"#,
            r#"{"op":"add","path":"/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration"}"#,
            "/value",
        ),
        (
            r#"{"op":"add","path":"/metadata","value":{"annotations":{"l":"{\"data\":{\"p\":\"x\"}}"}}}"#,
            r#"{"op":"add","path":"/metadata","value":{"annotations":{}}}"#,
            "/value/annotations/l",
        ),
    ] {
        dropped(
            &format!(r#"{{"requestObject":[{{"op":"remove","path":"/x"}},{operation}]}}"#),
            &format!(r#"{{"requestObject":[{{"op":"remove","path":"/x"}},{left}]}}"#),
            &[&format!("/requestObject/1{path}")],
        );
    }
    dropped(
        r#"{"requestObject":[{"op":"add","path":["data","p"],"value":"x"}]}"#,
        r#"{"requestObject":[{"op":"add"}]}"#,
        &["/requestObject/0/path", "/requestObject/0/value"],
    );
    for other in [
        r#"{"op":"copy","from":"/data/p","path":"/data/q"}"#,
        r#"{"op":"add","path":"/metadata/labels/data","value":"x"}"#,
        r#"{"op":"replace","path":"/spec/data/p","value":"x"}"#,
        r#"{"op":"remove","path":"/data/p"}"#,
    ] {
        unchanged(&format!(r#"{{"requestObject":[{other}]}}"#));
    }
    // A value is written to one place, and then moved to a place of the policy, in one or more
    // moves.
    for (written, moves) in [
        ("/metadata/labels/t", r#"{"op":"move","from":"/metadata/labels/t","path":"/data/p"}"#),
        ("/metadata/labels/t", r#"{"op":"copy","path":"/data","from":"/metadata/labels"}"#),
        ("/metadata/labels", r#"{"op":"COPY","from":"/metadata/labels/t","path":"/data/p"}"#),
        ("/spec/x/-", r#"{"op":"copy","from":"/spec/x/7","path":"/data/p"}"#),
        ("/a~1b", r#"{"op":"copy","from":"/\u0061~1b","path":"/data/p"}"#),
        ("/a", r#"{"op":"move","from":"/b","path":"/data/p"},{"op":"copy","from":"/a","path":"/b"}"#),
        ("/a", r#"{"op":"copy","from":"/b","path":""},{"op":"copy","from":"/a","path":"/b/c"}"#),
        ("/a", r#"{"op":"move","from":"/a"}"#),
    ] {
        dropped(
            &format!(
                r#"{{"requestObject":[{{"op":"add","path":"{written}","value":{{"t":"x"}}}},{moves}]}}"#
            ),
            &format!(r#"{{"requestObject":[{{"op":"add","path":"{written}"}},{moves}]}}"#),
            &["/requestObject/0/value"],
        );
    }
    let many = r#",{"op":"copy","from":"/b","path":"/c"}"#.repeat(100);
    dropped(
        &format!(r#"{{"requestObject":[{{"op":"add","path":"/a","value":"x"}}{many}]}}"#),
        &format!(r#"{{"requestObject":[{{"op":"add","path":"/a"}}{many}]}}"#),
        &["/requestObject/0/value"],
    );
    for moves in [
        r#"{"op":"copy","from":"/b","path":"/data/p"}"#,
        r#"{"op":"move","from":"/a","path":"/metadata/labels/p"}"#,
    ] {
        unchanged(&format!(r#"{{"requestObject":[{{"op":"add","path":"/a","value":"x"}},{moves}]}}"#));
    }
    // An array that is not a patch: each object in it is a body, and any other element may be a
    // value.
    dropped(
        r#"{"requestObject":[{"data":{"p":"x"}},"y",["z"]]}"#,
        r#"{"requestObject":[{"data":{}},null,[null]]}"#,
        &["/requestObject/0/data/p", "/requestObject/1", "/requestObject/2/0"],
    );
    let lists = with(vec![rule("drop", &["requestObject.spec.patients[].ssn"])], &[], &[]);
    for (pointer, value, left) in [
        ("/spec/patients/-", r#"{"ssn":"x","n":1}"#, r#"{"n":1}"#),
        ("/spec/patients/0", r#"{"ssn":"x","n":1}"#, r#"{"n":1}"#),
        ("/spec/patients", r#"[{"ssn":"x","n":1}]"#, r#"[{"n":1}]"#),
        ("/spec/patients/a", r#"{"ssn":"x","n":1}"#, r#"{"n":1}"#),
    ] {
        let event = |value: &str| {
            format!(r#"{{"requestObject":[{{"op":"add","path":"{pointer}","value":{value}}}]}}"#)
        };
        assert_eq!(edited(&lists, &event(value)).0, event(left));
    }
}

#[test]
fn strategic_merge_patches_have_directives() {
    let redactor = with(vec![rule("drop", &["requestObject.spec.ids[]"])], &[], &[]);
    let event = r#"{"requestObject":{"spec":{"$setElementOrder/ids":["x","y"],"$deleteFromPrimitiveList/ids":["z"],"$retainKeys":["ids"]}}}"#;
    assert_eq!(
        edited(&redactor, event).0,
        r#"{"requestObject":{"spec":{"$setElementOrder/ids":[null,null],"$deleteFromPrimitiveList/ids":[null],"$retainKeys":["ids"]}}}"#
    );
}

#[test]
fn annotations_that_repeat_an_object_are_dropped() {
    let inner = r#"{\"kind\":\"Secret\",\"data\":{\"p\":\"x\"}}"#;
    let path = "/requestObject/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
    let event = |text: &str| {
        format!(
            r#"{{"requestObject":{{"metadata":{{"annotations":{{"a":"b","kubectl.kubernetes.io/last-applied-configuration":"{text}"}}}}}}}}"#
        )
    };
    let left = r#"{"requestObject":{"metadata":{"annotations":{"a":"b"}}}}"#;
    dropped(&event(inner), left, &[path]);
    // The copy is inside an annotation of another copy, cut off, compressed, or in base64.
    let twice = inner.replace('\\', r"\\\");
    dropped(&event(&format!(r#"{{\"metadata\":{{\"annotations\":{{\"l\":\"{twice}\"}}}}}}"#)), left, &[path]);
    dropped(&event(r#"{\"kind\":\"Secret\",\"data"#), left, &[path]);
    dropped(&event("H4sIAAAAAAAA/6pWSkksSVSyqo4tLVayqgUEAAD"), left, &[path]);
    dropped(&event("eyJkYXRhIjp7InAiOiJ4In19"), left, &[path]);
    dropped(&event(r#"[{\"op\":\"add\",\"path\":\"/data/p\",\"value\":\"x\"}]"#), left, &[path]);
    unchanged(&event(r#"{\"kind\":\"Secret\",\"metadata\":{}}"#));
    unchanged(&event("prose"));
    // The copy follows characters that print nothing, or prose.
    for before in ["\u{feff}", " \u{feff}\\n", "\\ufeff", "\u{200b}\u{a0}", "\\u0001", "was: ", ")]}'\\n"] {
        dropped(&event(&format!("{before}{inner}")), left, &[path]);
        dropped(&event(&format!("{before}{inner}\u{feff}")), left, &[path]);
    }
    dropped(&event("77u/eyJkYXRhIjp7InAiOiJ4In19"), left, &[path]);
    dropped(&event(r#"was: {\"kind\":\"Secret\",\"data"#), left, &[path]);
    dropped(&event(r#"was: { \"data\":{\"p\":\"x\"}} and {\"a\":1}"#), left, &[path]);
    unchanged(&event(r#"was: {\"kind\":\"Secret\"}, now"#));
    unchanged(&event(r#"up{job=\"x\"} and {name} in {} of { 1 }"#));
    // The object is in a list, or the annotation is an object and not a text.
    dropped(
        &format!(r#"{{"responseObject":{{"items":[{{"metadata":{{"annotations":{{"l":"{inner}"}}}}}}]}}}}"#),
        r#"{"responseObject":{"items":[{"metadata":{"annotations":{}}}]}}"#,
        &["/responseObject/items/0/metadata/annotations/l"],
    );
    dropped(
        r#"{"requestObject":{"metadata":{"annotations":{"l":{"data":{"p":"x"}}}}}}"#,
        r#"{"requestObject":{"metadata":{"annotations":{"l":{"data":{}}}}}}"#,
        &["/requestObject/metadata/annotations/l/data/p"],
    );
}

#[test]
fn annotations_of_the_event_are_judged_by_their_kind() {
    let event = |annotation: &str| {
        format!(r#"{{"annotations":{{"authorization.k8s.io/decision":"allow",{annotation}}}}}"#)
    };
    let left = r#"{"annotations":{"authorization.k8s.io/decision":"allow"}}"#;
    dropped(
        &event(
            r#""patch.webhook.admission.k8s.io/round_0_index_0":"{\"webhook\":\"w\",\"patch\":[{\"op\":\"add\",\"path\":\"/data/p\",\"value\":\"x\"}],\"patchType\":\"JSONPatch\"}""#,
        ),
        left,
        &["/annotations/patch.webhook.admission.k8s.io~1round_0_index_0"],
    );
    dropped(
        &event(r#""validation.policy.admission.k8s.io/validation_failure":"[{\"message\":\"no x\"}]""#),
        left,
        &["/annotations/validation.policy.admission.k8s.io~1validation_failure"],
    );
    unchanged(&event(
        r#""patch.webhook.admission.k8s.io/round_0_index_0":"{\"webhook\":\"w\",\"patch\":[{\"op\":\"add\",\"path\":\"/metadata/labels/a\",\"value\":\"x\"}]}""#,
    ));
    unchanged(&event(r#""my.webhook/finding":"none""#));
}

#[test]
fn an_authorizer_may_say_anything() {
    let event = |decision: &str, reason: &str| {
        format!(
            r#"{{"annotations":{{"authorization.k8s.io/decision":"{decision}","authorization.k8s.io/reason":"{reason}"}},"requestObject":{{"data":{{"p":"123-45-6789"}}}}}}"#
        )
    };
    let rbac = r#"RBAC: allowed by RoleBinding \"b/ns\" of Role \"r\" to User \"u\""#;
    let at = ["/annotations/authorization.k8s.io~1reason", "/requestObject/data/p"];
    let kept = format!(
        r#"{{"annotations":{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"{rbac}"}},"requestObject":{{"data":{{}}}}}}"#
    );
    dropped(&event("allow", rbac), &kept, &at[1..]);
    let left = r#"{"annotations":{"authorization.k8s.io/decision":"allow"},"requestObject":{"data":{}}}"#;
    dropped(&event("allow", "webhook: 123-45-6789 is not on the list"), left, &at);
    dropped(&event("allow", r#"{\"data\":{\"p\":\"x\"}}"#), left, &at);
    dropped(&event("allow", r#"RBAC: allowed by RoleBinding \"123-45-6789/ns\""#), left, &at);
    let other = format!(
        r#"{{"annotations":{{"authorization.k8s.io/reason":"{rbac}"}},"requestObject":{{"data":{{}}}}}}"#
    );
    dropped(&event("is 123-45-6789", rbac), &other, &["/annotations/authorization.k8s.io~1decision", at[1]]);
    let is_plain = strongroom_redact::is_plain_authorization;
    assert!(is_plain("authorization.k8s.io/decision", "forbid"));
    assert!(is_plain("authorization.k8s.io/reason", &rbac.replace('\\', "")));
    assert!(is_plain("authorization.k8s.io/reason", ""));
    assert!(!is_plain("authorization.k8s.io/decision", "allow x"));
    assert!(!is_plain("authorization.k8s.io/reason", r#"{"data":1}"#));
    assert!(!is_plain("authorization.k8s.io/x", ""));
}

#[test]
fn members_that_no_event_has_are_beside_it() {
    let at = "/requestObject/data/p";
    for (member, path) in [
        (r#""user":{"username":"u","note":"x","n":1}"#, "/user/note"),
        (r#""user":{"username":"u","n":1,"note":{"a":"x"}}"#, "/user/note"),
        (r#""impersonatedUser":{"note":["x"],"username":"u","n":1}"#, "/impersonatedUser/note"),
        (r#""objectRef":{"resource":"secrets","note":"x"}"#, "/objectRef/note"),
        (r#""objectRef":{"Name":"x","resource":"secrets"}"#, "/objectRef/Name"),
        (
            r#""authenticationMetadata":{"note":"x","impersonationConstraint":"c"}"#,
            "/authenticationMetadata/note",
        ),
        (r#""responseStatus":{"code":200,"note":"x"}"#, "/responseStatus/note"),
        (r#""Verb":"x","verb":"get""#, "/Verb"),
    ] {
        let event = |member: &str, data: &str| format!(r#"{{{member},"requestObject":{{"data":{data}}}}}"#);
        let redactor = with(vec![rule("drop", &RULES)], &[], &[]);
        let (left, mark) = edited(&redactor, &event(member, r#"{"p":"123-45-6789"}"#));
        let mark = mark.expect("a mark");
        assert!(mark.contains(path) && mark.contains(at), "{mark}");
        crate::markers::assert_true(&mark, &left);
        assert!(!left.contains("\"x\""), "{left}");
        unchanged(&event(member, "{}"));
    }
    // A copy of the body is dropped even if nothing else is replaced.
    dropped(
        r#"{"user":{"username":"u","copy":"{\"requestObject\":1}"},"verb":"get"}"#,
        r#"{"user":{"username":"u"},"verb":"get"}"#,
        &["/user/copy"],
    );
    unchanged(
        r#"{"user":{"username":"u","uid":"i","groups":["g"],"extra":{"k":["v"]}},"objectRef":{"resource":"secrets","name":"n","apiVersion":"v1","resourceVersion":"1","uid":"u"}}"#,
    );
}

#[test]
fn a_revision_has_a_part_of_another_object() {
    let template = r#""spec":{"template":{"spec":{"containers":[{"env":[{"name":"A","value":"x"}]}]}}}"#;
    let left = template.replace(r#","value":"x""#, "");
    let about = |resources: &[&str], paths: &[&str]| {
        let resources = resources.iter().map(|text| (*text).to_owned()).collect();
        with(vec![RuleSettings { resources, ..rule("drop", paths) }], &[], &[])
    };
    let revisions = Target {
        namespace: Some("a"),
        name: Some("r-1"),
        api_group: Some("apps"),
        resource: Some("controllerrevisions"),
    };
    let path = [
        "requestObject.spec.template.spec.containers[].env[].value",
        "responseObject.spec.template.spec.containers[].env[].value",
    ];
    let event = |template: &str| {
        format!(
            r#"{{"requestObject":{{"kind":"ControllerRevision","data":{{{template}}},"revision":1}},"responseObject":{{"items":[{{"data":{{{template}}}}}]}}}}"#
        )
    };
    let patch = |template: &str| {
        format!(r#"{{"requestObject":[{{"op":"replace","path":"/data","value":{{{template}}}}}]}}"#)
    };
    for resources in
        [&["apps/statefulsets"][..], &["daemonsets"], &["apps/*"], &["apps/controllerrevisions"], &[]]
    {
        let redactor = about(resources, &path);
        for form in [&event as &dyn Fn(&str) -> String, &patch] {
            let redacted = redactor.redact(form(template).as_bytes(), Form::Event, "c", &revisions);
            let redacted = redacted.expect("readable").unwrap_or_else(|| panic!("{resources:?}"));
            assert_eq!(String::from_utf8_lossy(&redacted.event), form(&left), "{resources:?}");
        }
    }
    for resources in [&["apps/deployments"][..], &["secrets"], &["core/*"]] {
        let redactor = about(resources, &path);
        assert!(
            redactor
                .redact(event(template).as_bytes(), Form::Event, "c", &revisions)
                .expect("readable")
                .is_none()
        );
    }
    // Only in a ControllerRevision is `data` a part of an object.
    let redactor = about(&[], &path);
    let maps = Target { api_group: None, resource: Some("configmaps"), ..revisions };
    assert!(
        redactor.redact(event(template).as_bytes(), Form::Event, "c", &maps).expect("readable").is_none()
    );
}

#[test]
fn messages_are_kept_only_if_they_quote_nothing() {
    let quoting = r#"Secret \"db\" is invalid: data[p]: Invalid value: \"hunter2\": no"#;
    dropped(
        &format!(
            r#"{{"responseStatus":{{"message":"{quoting}","code":422,"details":{{"causes":[{{"message":"{quoting}","field":"data[p]"}}]}}}}}}"#
        ),
        r#"{"responseStatus":{"code":422,"details":{"causes":[{"field":"data[p]"}]}}}"#,
        &["/responseStatus/details/causes/0/message", "/responseStatus/message"],
    );
    dropped(
        &format!(
            r#"{{"responseObject":{{"kind":"Status","message":"{quoting}","details":{{"causes":[{{"message":"{quoting}"}}]}}}}}}"#
        ),
        r#"{"responseObject":{"kind":"Status","details":{"causes":[{}]}}}"#,
        &["/responseObject/details/causes/0/message", "/responseObject/message"],
    );
    unchanged(r#"{"responseStatus":{"message":"secrets \"db\" not found","code":404}}"#);
}

#[test]
fn a_reason_is_kept_only_if_it_is_one_of_the_api() {
    for (reason, status) in [("hunter2", "Failure"), ("Invalid", "hunter2")] {
        let (name, path) = if reason == "hunter2" { ("reason", "reason") } else { ("status", "status") };
        let rest = if reason == "hunter2" {
            format!(r#""status":"{status}""#)
        } else {
            format!(r#""reason":"{reason}""#)
        };
        for member in ["responseStatus", "responseObject"] {
            dropped(
                &format!(r#"{{"{member}":{{{rest},"{name}":"hunter2","code":403}}}}"#),
                &format!(r#"{{"{member}":{{{rest},"code":403}}}}"#),
                &[&format!("/{member}/{path}")],
            );
        }
    }
    unchanged(r#"{"responseStatus":{"status":"Failure","reason":"NotFound","code":404}}"#);
    unchanged(r#"{"responseObject":{"kind":"Secret","status":{"reason":"hunter2"}}}"#);
    // In an `Event` of Kubernetes, `reason` is an ordinary field.
    let redactor = with(vec![rule("drop", &RULES)], &[], &[]);
    let events = Target { resource: Some("events"), ..SECRET };
    let event = br#"{"requestObject":{"kind":"Event","reason":"FailedMount","message":"x"}}"#;
    assert!(redactor.redact(event, Form::Event, "prod", &events).expect("readable").is_none());
}

#[test]
fn a_status_that_quotes_its_object_is_dropped_where_it_does() {
    let event = |conditions: &str| {
        format!(
            r#"{{"responseObject":{{"data":{{"p":"123-45-6789"}},"status":{{"phase":"Bad","conditions":[{conditions}]}}}}}}"#
        )
    };
    let left = |conditions: &str| {
        format!(
            r#"{{"responseObject":{{"data":{{}},"status":{{"phase":"Bad","conditions":[{conditions}]}}}}}}"#
        )
    };
    dropped(
        &event(
            r#"{"type":"A","message":"no 123-45-6789","reason":"X"},{"type":"B","message":"fine","reason":"No123-45-6789"}"#,
        ),
        &left(r#"{"type":"A","reason":"X"},{"type":"B","message":"fine"}"#),
        &[
            "/responseObject/data/p",
            "/responseObject/status/conditions/0/message",
            "/responseObject/status/conditions/1/reason",
        ],
    );
    // The message is in an item of a list, or in a JSON patch.
    dropped(
        r#"{"responseObject":{"items":[{"data":{"p":"123-45-6789"},"status":{"message":"123-45-6789"}}]}}"#,
        r#"{"responseObject":{"items":[{"data":{},"status":{}}]}}"#,
        &["/responseObject/items/0/data/p", "/responseObject/items/0/status/message"],
    );
    dropped(
        r#"{"requestObject":[{"op":"add","path":"/data/p","value":"123-45-6789"},{"op":"add","path":"/status/conditions/-","value":{"message":"is 123-45-6789"}}]}"#,
        r#"{"requestObject":[{"op":"add","path":"/data/p"},{"op":"add","path":"/status/conditions/-","value":{}}]}"#,
        &["/requestObject/0/value", "/requestObject/1/value/message"],
    );
    unchanged(r#"{"responseObject":{"status":{"conditions":[{"message":"123-45-6789"}]}}}"#);
}

#[test]
fn selectors_with_values_go_from_the_uri() {
    let redactor = with(vec![rule("tokenise", &["responseObject.spec.ssn"])], &[], &[]);
    let left = |redactor: &strongroom_redact::Redactor, query: &str| {
        let event = format!(r#"{{"requestURI":"/apis/example.org/v1/patients?{query}","verb":"list"}}"#);
        let (text, mark) = edited(redactor, &event);
        let may = redactor.may_change_uri(&format!("/apis/example.org/v1/patients?{query}"));
        assert!(may || mark.is_none(), "the question before is answered the same way: {query}");
        if let Some(mark) = mark {
            crate::markers::assert_true(&mark, &text);
        }
        text
    };
    for query in [
        "fieldSelector=spec.ssn%3D123-45-6789",
        "fieldSelector=metadata.name%3Da%2Cspec.ssn%3D%3D123-45-6789",
        "FieldSelector=spec.SSN!%3d123-45-6789",
        "f%69eldSelector=spec.ssn=123-45-6789",
        "fieldSelector=%20spec.ssn+%3D123-45-6789",
        "fieldSelector=spec.ssn.deeper%3D123-45-6789",
    ] {
        let text = left(&redactor, &format!("{query}&watch=true"));
        assert_eq!(text, r#"{"requestURI":"/apis/example.org/v1/patients?watch=true","verb":"list"}"#);
    }
    for query in [
        "fieldSelector=metadata.name%3D123-45-6789",
        "fieldSelector=spec.other%3D1&labelSelector=spec.ssn%3D1",
        "labelSelector=app%3Dx",
        "fieldSelector=",
        "fieldSelector",
    ] {
        assert!(left(&redactor, query).contains(query), "{query}");
    }
    let labels = with(vec![rule("drop", &["requestObject.metadata.labels[\"x.io/mrn\"]"])], &[], &[]);
    for query in [
        "labelSelector=x.io%2Fmrn%3D4711",
        "labelSelector=app%3Dx%2Cx.io%2Fmrn%20in%20(4711,4712)",
        "labelSelector=!x.io/mrn",
    ] {
        assert!(!left(&labels, query).contains('?'), "{query}");
    }
    assert!(left(&labels, "labelSelector=app%3Dx").contains("app"));
    // Paths with a `**` or a `*`, and a path that ends above the field.
    for path in ["requestObject.**.ssn", "requestObject.spec.*", "requestObject.**", "requestObject.spec"] {
        let redactor = with(vec![rule("drop", &[path])], &[], &[]);
        assert!(!left(&redactor, "fieldSelector=spec.ssn%3D1").contains('?'), "{path}");
    }
}

#[test]
fn what_repeats_a_replaced_value_is_dropped() {
    dropped(
        r#"{"requestObject":{"data":{"p":"aHVudGVyMi10b28="},"metadata":{"annotations":{"tool/a":"was hunter2-too","tool/b":"other"}}},"annotations":{"w/x":"aHVudGVyMi10b28=","w/y":"z"}}"#,
        r#"{"requestObject":{"data":{},"metadata":{"annotations":{"tool/b":"other"}}},"annotations":{"w/y":"z"}}"#,
        &["/annotations/w~1x", "/requestObject/data/p", "/requestObject/metadata/annotations/tool~1a"],
    );
    // A collector's copy beside the event.
    dropped(
        r#"{"message":"{\"requestObject\":…}","host":"n1","n":1,"verb":"get","requestObject":{"data":{"p":"x"}}}"#,
        r#"{"n":1,"verb":"get","requestObject":{"data":{}}}"#,
        &["/host", "/message", "/requestObject/data/p"],
    );
    dropped(
        r#"{"message":"{\"requestObject\":{}}","verb":"get","host":"n1"}"#,
        r#"{"verb":"get"}"#,
        &["/host", "/message"],
    );
    unchanged(r#"{"host":"n1","verb":"get","requestObject":{"kind":"Secret"}}"#);
    // A collector's members are below `metadata`, which events of early API versions had.
    dropped(
        r#"{"metadata":{"name":"n","copy":"x"},"verb":"get","requestObject":{"data":{"p":"x"}}}"#,
        r#"{"verb":"get","requestObject":{"data":{}}}"#,
        &["/metadata", "/requestObject/data/p"],
    );
    dropped(
        r#"{"metadata":{"uid":"u","creationTimestamp":null},"verb":"get","requestObject":{"data":{"p":"x"}}}"#,
        r#"{"metadata":{"uid":"u","creationTimestamp":null},"verb":"get","requestObject":{"data":{}}}"#,
        &["/requestObject/data/p"],
    );
    // The copy is quoted or encoded in another way.
    for text in [
        "secret+%22correct-horse-battery%22",
        "a \\\"correct-horse-battery\\\"",
        "ImNvcnJlY3QtaG9yc2UtYmF0dGVyeS",
    ] {
        dropped(
            &format!(
                r#"{{"requestObject":{{"data":{{"p":"\"correct-horse-battery\""}}}},"annotations":{{"w/x":"({text})"}}}}"#
            ),
            r#"{"requestObject":{"data":{}},"annotations":{}}"#,
            &["/annotations/w~1x", "/requestObject/data/p"],
        );
    }
}

#[test]
fn managed_fields_have_values_in_names() {
    let event = |fields: &str| {
        format!(
            r#"{{"responseObject":{{"metadata":{{"managedFields":[{{"manager":"m","fieldsV1":{fields}}}]}}}}}}"#
        )
    };
    let redactor = with(
        vec![rule("drop", &["responseObject.spec.ids[]", "responseObject.spec.patients[].ssn"])],
        &[],
        &[],
    );
    for (fields, left) in [
        (r#"{"f:spec":{"f:ids":{".":{},"v:\"123\"":{}},"f:n":{}}}"#, r#"{"f:spec":{"f:n":{}}}"#),
        (
            r#"{"f:spec":{"f:patients":{"k:{\"ssn\":\"123\"}":{".":{}}},"f:n":{}}}"#,
            r#"{"f:spec":{"f:n":{}}}"#,
        ),
    ] {
        assert_eq!(edited(&redactor, &event(fields)).0, event(left));
    }
    for kept in [
        r#"{"f:spec":{"f:patients":{"k:{\"name\":\"a\"}":{"f:ssn":{}}}}}"#,
        r#"{"f:metadata":{"f:finalizers":{"v:\"foregroundDeletion\"":{}}}}"#,
        r#"{"f:spec":{"f:ids":{}}}"#,
    ] {
        assert_eq!(edited(&redactor, &event(kept)).1, None, "{kept}");
    }
    // Members of a value that is dropped as a whole.
    let whole = with(vec![rule("drop", &["responseObject.data"])], &[], &[]);
    let (left, mark) = edited(&whole, &event(r#"{"f:data":{".":{},"f:jane-doe":{}},"f:n":{}}"#));
    assert_eq!(left, event(r#"{"f:n":{}}"#));
    assert!(!mark.expect("a mark").contains("jane"));
    // Names that repeat a value that was replaced elsewhere.
    let elsewhere = with(vec![rule("drop", &["responseObject.spec.ssn"])], &[], &[]);
    for fields in [
        r#"{"f:metadata":{"f:finalizers":{"v:\"123-45-6789\"":{}}}}"#,
        r#"{"f:spec":{"f:list":{"k:{\"name\":\"p-123-45-6789\"}":{".":{}}}}}"#,
        r#"{"f:spec":{"f:list":{"k:{\"name\":\"p-123-45-\u0036789\"}":{".":{}}}}}"#,
    ] {
        let text =
            event(fields).replacen("{\"metadata\"", "{\"spec\":{\"ssn\":\"123-45-6789\"},\"metadata\"", 1);
        let (left, mark) = edited(&elsewhere, &text);
        assert_eq!(left, r#"{"responseObject":{"spec":{},"metadata":{"managedFields":[{"manager":"m"}]}}}"#);
        crate::markers::assert_true(&mark.expect("a mark"), &left);
    }
    // The same names in a JSON patch, with any pointer into managed fields.
    let redactor = with(vec![rule("drop", &["requestObject.spec.ids[]"])], &[], &[]);
    let patch = |path: &str, value: &str| {
        format!(
            r#"{{"requestObject":[{{"op":"add","path":"/metadata/managedFields{path}","value":{value}}}]}}"#
        )
    };
    for (path, value, left) in [
        ("/0/fieldsV1", r#"{"f:spec":{"f:ids":{"v:\"123\"":{}},"f:n":{}}}"#, r#"{"f:spec":{"f:n":{}}}"#),
        ("/0/fieldsV1/f:spec", r#"{"f:ids":{"v:\"123\"":{}},"f:n":{}}"#, r#"{"f:n":{}}"#),
        ("/0", r#"{"fieldsV1":{"f:spec":{"f:ids":{"v:\"123\"":{}}}}}"#, r#"{"fieldsV1":{"f:spec":{}}}"#),
    ] {
        assert_eq!(edited(&redactor, &patch(path, value)).0, patch(path, left));
    }
    let whole = edited(&redactor, &patch("/0/fieldsV1/f:spec/f:ids", r#"{"v:\"123\"":{}}"#)).0;
    assert!(!whole.contains("123"), "{whole}");
}

#[test]
fn tokens_stand_for_values_of_any_type() {
    let redactor = with(vec![rule("tokenise", &["requestObject.data.*"])], &[], &[]);
    for value in [
        r#""x""#,
        r#""\u0078""#,
        "1",
        "1.50e0",
        "true",
        "[1, 2]",
        r#"{"a":{}}"#,
        "1e999",
        r#""\ud800""#,
        "123456789012345678901234567890",
    ] {
        let event = format!(r#"{{"requestObject":{{"data":{{"p": {value} }}}}}}"#);
        let (text, mark) = edited(&redactor, &event);
        assert_eq!(text, format!(r#"{{"requestObject":{{"data":{{"p": "{}" }}}}}}"#, token(value)));
        assert!(mark.expect("a mark").contains(r#""tokenised":["/requestObject/data/p"]"#));
    }
    assert_eq!(token(r#""x""#), token(r#""\u0078""#));
    assert_eq!(edited(&redactor, r#"{"requestObject":{"data":{"p":null}}}"#).1, None);
    // The stronger action wins, and a token of another archive is replaced like any other value.
    let both = with(
        vec![rule("tokenise", &["requestObject.data.*"]), rule("drop", &["requestObject.data.p"])],
        &[],
        &[],
    );
    let old = token("1");
    let (text, _) = edited(&both, &format!(r#"{{"requestObject":{{"data":{{"p":"x","q":"{old}"}}}}}}"#));
    assert_eq!(text, format!(r#"{{"requestObject":{{"data":{{"q":"{}"}}}}}}"#, token(&format!("{old:?}"))));
}

#[test]
fn paths_of_any_depth() {
    let redactor = with(
        vec![rule("drop", &["requestObject.**.password"]), rule("tokenise", &["responseObject.spec.**"])],
        &[],
        &[],
    );
    let (text, _) = edited(
        &redactor,
        r#"{"requestObject":{"password":1,"a":[{"password":{"b":2}},{"c":{"PASSWORD":3}}],"d":"password"},"responseObject":{"spec":{"a":[1,{"b":"c"}],"e":{}},"kind":"K"}}"#,
    );
    assert_eq!(
        text,
        format!(
            r#"{{"requestObject":{{"a":[{{}},{{"c":{{}}}}],"d":"password"}},"responseObject":{{"spec":{{"a":["{}",{{"b":"{}"}}],"e":{{}}}},"kind":"K"}}}}"#,
            token("1"),
            token(r#""c""#)
        )
    );
}

#[test]
fn uris_keep_what_no_rule_names() {
    let drop = with(vec![rule("drop", &["requestURI.command"])], &[], &[]);
    let event = r#"{"requestURI":"/api/v1/namespaces/a/pods/p/exec?command=mysql\u0026command=-phunter2\u0026container=c"}"#;
    let (text, mark) = edited(&drop, event);
    assert_eq!(text, r#"{"requestURI":"/api/v1/namespaces/a/pods/p/exec?container=c"}"#);
    assert!(mark.expect("a mark").contains(r#""dropped":["/requestURI/command"]"#));
    let (text, _) = edited(&drop, r#"{"requestURI":"/exec?c%6fmmand=x"}"#);
    assert_eq!(text, r#"{"requestURI":"/exec"}"#);
    let tokenise = with(vec![rule("tokenise", &["requestURI.*"])], &[], &[]);
    let (text, mark) = edited(&tokenise, r#"{"requestURI":"/exec?command=a%20b&command=a+b&stdin&tty="}"#);
    let token = token(r#""a b""#);
    assert_eq!(
        text,
        format!(r#"{{"requestURI":"/exec?command={token}\u0026command={token}\u0026stdin\u0026tty="}}"#)
    );
    assert!(mark.expect("a mark").contains(r#""tokenised":["/requestURI"]"#));
    assert_eq!(edited(&tokenise, r#"{"requestURI":"/api/v1/pods"}"#).1, None);
    for (query, left) in [
        ("container=c;command=x;tty=1", "?container=c;tty=1"),
        ("command=x;container=c&tty=1", r"?container=c\u0026tty=1"),
        ("container=c&command=x;tty=1", "?container=c;tty=1"),
        ("a;command=x", "?a"),
        ("a;command=x&b", r"?a\u0026b"),
    ] {
        assert!(drop.may_change_uri(&format!("/exec?{query}")), "{query}");
        let (text, _) = edited(&drop, &format!(r#"{{"requestURI":"/exec?{query}"}}"#));
        assert_eq!(text, format!(r#"{{"requestURI":"/exec{left}"}}"#));
    }
    let (text, _) = edited(&drop, r#"{"requestURI":"/x?command%00=a","verb":"get"}"#);
    assert_eq!(text, r#"{"requestURI":"/x?command%00=a","verb":"get"}"#);
    let (text, _) = edited(
        &with(vec![rule("drop", &["requestURI.*"])], &[], &[]),
        r#"{"requestURI":"/x?a%00=a","verb":"get"}"#,
    );
    assert_eq!(text, r#"{"verb":"get"}"#);
}

#[test]
fn the_name_of_a_user_is_replaced_wherever_it_is() {
    let redactor = with(vec![rule("tokenise", &["user.username"])], &[], &[]);
    let token = token(r#""jane@example.org""#);
    let (text, mark) = edited(
        &redactor,
        r#"{"verb":"create","user":{"username":"jane@example.org","groups":["g"]},"responseStatus":{"message":"User \"jane@example.org\" cannot"},"requestObject":{"spec":{"user":"jane@example.org","x":"xjane@example.org"}},"annotations":{"authorization.k8s.io/reason":"allowed to User \"jane@example.org\""}}"#,
    );
    assert_eq!(
        text,
        format!(
            r#"{{"verb":"create","user":{{"username":"{token}","groups":["g"]}},"responseStatus":{{"message":"User \"{token}\" cannot"}},"requestObject":{{"spec":{{"user":"{token}","x":"xjane@example.org"}}}},"annotations":{{"authorization.k8s.io/reason":"allowed to User \"{token}\""}}}}"#
        )
    );
    assert!(mark.expect("a mark").contains("/requestObject/spec/user"));
    // The annotation is searched for values after the name in it was replaced, not before.
    let rbac =
        r#"RBAC: allowed by ClusterRoleBinding \"b\" of ClusterRole \"r\" to User \"jane@example.org\""#;
    let event = format!(
        r#"{{"user":{{"username":"jane@example.org"}},"annotations":{{"authorization.k8s.io/reason":"{rbac}"}}}}"#
    );
    assert_eq!(edited(&redactor, &event).0, event.replace("jane@example.org", &token));
    // The API server quotes names of users as Go's `%q` does.
    let (text, _) = edited(
        &redactor,
        r#"{"user":{"username":"CORP\\jane"},"responseStatus":{"message":"User \"CORP\\\\jane\" cannot"},"annotations":{"authorization.k8s.io/reason":"allowed to User \"CORP\\\\jane\"","x/y":"{\"user\":\"CORP\\\\jane\"}"}}"#,
    );
    assert!(!text.contains("jane") && !text.contains("CORP"), "{text}");
    let (text, _) =
        edited(&redactor, r#"{"impersonatedUser":{"username":"jane@example.org"},"user":{"username":""}}"#);
    assert!(text.contains(&token) && !text.contains("jane"), "{text}");
}

#[test]
fn other_members_of_the_event() {
    let redactor = with(
        vec![
            rule(
                "drop",
                &[
                    "annotations[\"a.b/c\"]",
                    "responseStatus.message",
                    "responseStatus.details.causes[].field",
                ],
            ),
            rule("tokenise", &["user.extra.*[]", "impersonatedUser.extra.*[]"]),
        ],
        &[],
        &[],
    );
    let (text, _) = edited(
        &redactor,
        r#"{"user":{"extra":{"k":["v"]},"uid":"u"},"impersonatedUser":{"extra":{"k":["v"]}},"annotations":{"a.b/c":"x","d":"y"},"responseStatus":{"message":"secrets \"a\" not found","details":{"causes":[{"field":"f","reason":"r"}]}}}"#,
    );
    let token = token(r#""v""#);
    assert_eq!(
        text,
        format!(
            r#"{{"user":{{"extra":{{"k":["{token}"]}},"uid":"u"}},"impersonatedUser":{{"extra":{{"k":["{token}"]}}}},"annotations":{{"d":"y"}},"responseStatus":{{"details":{{"causes":[{{"reason":"r"}}]}}}}}}"#
        )
    );
}

#[test]
fn entries_of_google_have_the_same_members_elsewhere() {
    let redactor = with(vec![rule("drop", &RULES), rule("tokenise", &["user.username"])], &[], &[]);
    let entry = br#"{"insertId":"1","labels":{"authorization.k8s.io/reason":"to User \"jane\""},"protoPayload":{"@type":"a","authenticationInfo":{"principalEmail":"jane"},"request":{"@type":"core.k8s.io/v1.Secret","data":{"p":"x"}},"response":{"data":{"p":"x"}},"resourceOriginalState":{"data":{"p":"x"}},"metadata":{"k":"x"},"status":{"code":3,"message":"Invalid value: x"}}}"#;
    let redacted =
        redactor.redact(entry, Form::GoogleEntry, "c", &SECRET).expect("readable").expect("changed");
    let token = token(r#""jane""#);
    assert_eq!(
        String::from_utf8_lossy(&redacted.event),
        format!(
            r#"{{"insertId":"1","labels":{{"authorization.k8s.io/reason":"to User \"{token}\""}},"protoPayload":{{"@type":"a","authenticationInfo":{{"principalEmail":"{token}"}},"request":{{"@type":"core.k8s.io/v1.Secret","data":{{}}}},"response":{{"data":{{}}}},"resourceOriginalState":{{"data":{{}}}},"status":{{"code":3}}}}}}"#
        )
    );
    // The principals on whose behalf a service account acts.
    let entry = |names: [&str; 5]| {
        let [email, first, third, subject, claim] = names;
        format!(
            r#"{{"protoPayload":{{"authenticationInfo":{{"principalEmail":"{email}","serviceAccountKeyName":"{first}","serviceAccountDelegationInfo":[{{"firstPartyPrincipal":{{"principalEmail":"{third}","serviceMetadata":{{"a":"b"}}}}}},{{"principalSubject":"{subject}","thirdPartyPrincipal":{{"thirdPartyClaims":{{"sub":"{claim}"}}}}}}],"thirdPartyPrincipal":{{"thirdPartyClaims":{{"sub":"{claim}"}}}}}},"response":{{"x":"{third}","y":"claim"}}}}}}"#
        )
    };
    let names = ["sa@p", "//iam/sa@p/keys/1", "jane@example.org", "user:joe", "claim"];
    let redacted = redactor
        .redact(entry(names).as_bytes(), Form::GoogleEntry, "c", &SECRET)
        .expect("readable")
        .expect("changed");
    let tokens = names.map(|name| key().token_of_json(&format!("\"{name}\"")).expect("JSON").to_string());
    let [a, b, c, d, e] = tokens.each_ref().map(String::as_str);
    assert_eq!(String::from_utf8_lossy(&redacted.event), entry([a, b, c, d, e]));
    crate::markers::assert_true(&redacted.mark.to_string(), &String::from_utf8_lossy(&redacted.event));
    // A patch inside the object that Google puts around it.
    let patch =
        br#"{"protoPayload":{"request":{"@type":"k","value":[{"op":"add","path":"/data/p","value":"x"}]}}}"#;
    let redacted =
        redactor.redact(patch, Form::GoogleEntry, "c", &SECRET).expect("readable").expect("changed");
    assert_eq!(
        redacted.event,
        br#"{"protoPayload":{"request":{"@type":"k","value":[{"op":"add","path":"/data/p"}]}}}"#
    );
}

#[test]
fn detectors_look_into_every_body() {
    let redactor = with(Vec::new(), &[], &["email", "us-ssn", "payment-card"]);
    let t = |value: &str| token(value);
    let (text, _) = edited(
        &redactor,
        r#"{"user":{"username":"a@b.example"},"requestObject":{"a":"ssn 123-45-6789","b":[4111111111111111,"x"],"c":"MTIzLTQ1LTY3ODk=","d":"a\u0040b.example","metadata":{"annotations":{"l":"{\"x\":\"a\\u0040b.example\"}"}}},"responseStatus":{"message":"no a@b.example"}}"#,
    );
    assert_eq!(
        text,
        format!(
            r#"{{"user":{{"username":"a@b.example"}},"requestObject":{{"a":"{}","b":["{}","x"],"c":"{}","d":"{}","metadata":{{"annotations":{{}}}}}},"responseStatus":{{"message":"{}"}}}}"#,
            t(r#""ssn 123-45-6789""#),
            t("4111111111111111"),
            t(r#""MTIzLTQ1LTY3ODk=""#),
            t(r#""a@b.example""#),
            t(r#""no a@b.example""#)
        )
    );
    // If a member's name contains a value, the whole object is dropped, because the mark would
    // repeat the name.
    let (text, mark) = edited(&redactor, r#"{"requestObject":{"byMail":{"a@b.example":1},"k":2}}"#);
    assert_eq!(text, r#"{"requestObject":{"k":2}}"#);
    assert!(!mark.expect("a mark").contains('@'));
    assert_eq!(
        edited(&redactor, r#"{"requestObject":{"image":"registry/x@sha256:abc","ip":"10.96.0.10"}}"#).1,
        None
    );
}

#[test]
fn rules_are_about_clusters_namespaces_and_resources() {
    let about = |clusters: &[&str], namespaces: &[&str], resources: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        with(
            vec![RuleSettings {
                clusters: owned(clusters),
                namespaces: owned(namespaces),
                resources: owned(resources),
                ..rule("drop", &["requestObject.data"])
            }],
            &[],
            &[],
        )
    };
    let patients = Target {
        namespace: Some("phi-1"),
        name: Some("p"),
        api_group: Some("example.org"),
        resource: Some("patients"),
    };
    assert!(about(&[], &[], &[]).may_change("prod", &patients));
    assert!(
        about(&["prod", "stage*"], &["phi-*"], &["example.org/patients"]).may_change("stage-2", &patients)
    );
    assert!(about(&["*"], &["*-1"], &["patients"]).may_change("any", &patients));
    assert!(about(&[], &[], &["*.org/*"]).may_change("any", &patients));
    assert!(!about(&["prod"], &[], &[]).may_change("prod2", &patients));
    assert!(!about(&[], &["phi"], &[]).may_change("prod", &patients));
    assert!(!about(&[], &[], &["core/patients"]).may_change("prod", &patients));
    assert!(!about(&[], &[], &["secrets"]).may_change("prod", &patients));
    assert!(about(&[], &[], &["core/secrets"]).may_change("prod", &SECRET));
    // A list of all namespaces, an object without a namespace, and an event whose `objectRef`
    // cannot be read.
    let some = about(&[], &["phi-*"], &["patients"]);
    assert!(some.may_change("prod", &Target { namespace: None, name: None, ..patients }));
    assert!(!some.may_change("prod", &Target { namespace: None, ..patients }));
    assert!(some.may_change("prod", &Target::default()));
    // In any combination, an empty member has the same meaning as an absent one.
    let any = |text: Option<&'static str>| [text, None, Some("")];
    for namespace in any(patients.namespace) {
        for name in any(patients.name) {
            for api_group in any(patients.api_group) {
                for resource in any(patients.resource) {
                    let target = Target { namespace, name, api_group, resource };
                    for policy in [&some, &about(&[], &[], &["core/patients"]), &about(&[], &["a"], &["a"])] {
                        let expected = policy.may_change("prod", &target.said());
                        assert_eq!(policy.may_change("prod", &target), expected, "{target:?}");
                    }
                }
            }
        }
    }
    assert!(some.may_change("prod", &Target { namespace: Some(""), name: Some(""), ..patients }));
    assert!(some.may_change("prod", &Target { resource: Some(""), ..patients }));
    let roots: Vec<Root> = about(&[], &[], &[]).roots("prod", &patients).iter().collect();
    assert_eq!(
        roots,
        [
            Root::RequestObject,
            Root::ResponseObject,
            Root::Annotations,
            Root::StatusMessage,
            Root::StatusDetails,
            Root::RequestUri
        ]
    );
}

#[test]
fn presets_cover_what_they_are_named_after() {
    let redactor = with(Vec::new(), &["secrets", "env", "exec", "configmaps"], &[]);
    let left = |target: &Target<'_>, event: &str| {
        let redacted = redactor.redact(event.as_bytes(), Form::Event, "c", target).expect("readable");
        redacted.map(|redacted| String::from_utf8(redacted.event).expect("text")).unwrap_or_default()
    };
    let of = |group, resource| Target {
        namespace: Some("a"),
        name: Some("b"),
        api_group: group,
        resource: Some(resource),
    };
    for (target, event, expected) in [
        (
            of(None, "secrets"),
            r#"{"requestObject":{"data":{"a":"x"},"stringData":{"b":"y"}}}"#,
            r#"{"requestObject":{"data":{},"stringData":{}}}"#,
        ),
        (
            of(None, "serviceaccounts"),
            r#"{"responseObject":{"status":{"token":"x"}}}"#,
            r#"{"responseObject":{"status":{}}}"#,
        ),
        (
            of(Some("authentication.k8s.io"), "tokenreviews"),
            r#"{"requestObject":{"spec":{"token":"x"}}}"#,
            r#"{"requestObject":{"spec":{}}}"#,
        ),
        (
            of(Some("oauth.openshift.io"), "oauthclients"),
            r#"{"requestObject":{"secret":"x","additionalSecrets":["y"]}}"#,
            r#"{"requestObject":{"additionalSecrets":[null]}}"#,
        ),
        (
            of(Some("route.openshift.io"), "routes"),
            r#"{"responseObject":{"spec":{"tls":{"key":"x","termination":"edge"}}}}"#,
            r#"{"responseObject":{"spec":{"tls":{"termination":"edge"}}}}"#,
        ),
        (
            of(None, "configmaps"),
            r#"{"requestObject":{"binaryData":{"a":"x"}}}"#,
            r#"{"requestObject":{"binaryData":{}}}"#,
        ),
        (
            of(None, "pods"),
            r#"{"requestObject":{"spec":{"containers":[{"env":[{"name":"A","value":"x"}]}]}}}"#,
            r#"{"requestObject":{"spec":{"containers":[{"env":[{"name":"A"}]}]}}}"#,
        ),
        (
            of(Some("apps"), "deployments"),
            r#"{"requestObject":[{"op":"add","path":"/spec/template/spec/containers/0/env/-","value":{"name":"A","value":"x"}}]}"#,
            r#"{"requestObject":[{"op":"add","path":"/spec/template/spec/containers/0/env/-","value":{"name":"A"}}]}"#,
        ),
        (
            of(None, "pods"),
            r#"{"requestURI":"/exec?command=x&tty=true"}"#,
            r#"{"requestURI":"/exec?tty=true"}"#,
        ),
    ] {
        assert_eq!(left(&target, event), expected);
    }
}

#[test]
fn a_mark_has_room_for_every_list() {
    let redactor = with(vec![rule("drop", &RULES)], &[], &[]);
    let items: Vec<String> =
        (0..500).map(|at| format!(r#"{{"data":{{"p":"x{at}","q":"y"}},"n":{at}}}"#)).collect();
    let (text, mark) =
        edited(&redactor, &format!(r#"{{"responseObject":{{"items":[{}]}}}}"#, items.join(",")));
    let mark = mark.expect("a mark");
    assert!(
        mark.contains(r#""dropped":["/responseObject/items/-/data/p","/responseObject/items/-/data/q"]"#),
        "{mark}"
    );
    assert!(text.contains(r#"{"data":{},"n":499}"#));
    // If the names do not fit in a mark, the object that contains them is dropped.
    let data: Vec<String> = (0..300).map(|at| format!(r#""k{at}":"x""#)).collect();
    let (text, mark) = edited(
        &redactor,
        &format!(r#"{{"requestObject":{{"data":{{{}}},"kind":"Secret"}}}}"#, data.join(",")),
    );
    assert_eq!(text, r#"{"requestObject":{"kind":"Secret"}}"#);
    assert!(mark.expect("a mark").contains(r#"["/requestObject/data"]"#));
    let tokens = with(vec![rule("tokenise", &RULES)], &[], &[]);
    let (text, mark) =
        edited(&tokens, &format!(r#"{{"requestObject":{{"data":{{{}}},"kind":"Secret"}}}}"#, data.join(",")));
    assert_eq!(text, r#"{"requestObject":{"kind":"Secret"}}"#);
    assert!(mark.expect("a mark").contains(r#""dropped":["/requestObject/data"],"tokenised":[]"#));
}

#[test]
fn the_id_is_of_the_policy_and_of_the_key() {
    let one = with(vec![rule("drop", &["requestObject.a", r#"requestObject["b"]"#])], &[], &[]).id();
    let same =
        with(vec![rule("drop", &["requestObject.b"]), rule("drop", &["requestObject.a"])], &[], &[]).id();
    assert_eq!(one, same);
    assert_ne!(one, with(vec![rule("tokenise", &["requestObject.a", "requestObject.b"])], &[], &[]).id());
    assert_ne!(one, with(vec![rule("drop", &["requestObject.a", "requestObject.b"])], &[], &["email"]).id());
    assert_ne!(key().id(), Key::generate().expect("a key").id());
}
