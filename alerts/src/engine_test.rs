//! Tests of the engine through its interface: YAML and events in, matches and alerts out.

use std::sync::Arc;

use strongroom_schemas::{Alert, Severity};

use crate::testing::{batch_of, file_batch_of, view_batch_of};
use crate::{Detector, DetectorConfig, MatchError, Matcher, RuleSet, ShownRows};

/// Returns the YAML of a rule with a detection.
fn rule(detection: &str) -> String {
    let indented: String = detection.lines().map(|line| format!("  {line}\n")).collect();
    format!("title: t\nlogsource: {{product: kubernetes, service: audit}}\ndetection:\n{indented}")
}

/// Returns the YAML of a detection with one selection.
fn selection(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    rule(&format!("selection:\n{indented}condition: selection"))
}

fn set(yaml: &str) -> Arc<RuleSet> {
    Arc::new(RuleSet::from_yaml("rules.yml", yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}")))
}

/// Returns the rows that the only rule matches, after checking that they are the same in every form
/// of the columns.
fn rows(yaml: &str, events: &[&str]) -> Vec<usize> {
    let rules = set(yaml);
    let forms = [batch_of(events), file_batch_of(events), view_batch_of(events)];
    let mut found = forms.iter().map(|batch| {
        let matches = Matcher::new(Arc::clone(&rules)).match_batch(batch).expect("a batch of events");
        matches
            .matched()
            .map(|(row, rule)| {
                assert_eq!(rule, 0);
                row
            })
            .collect::<Vec<_>>()
    });
    let first = found.next().expect("three forms");
    for other in found {
        assert_eq!(first, other, "the matches are the same with columns in another form");
    }
    first
}

fn hits(yaml: &str, event: &str) -> bool {
    !rows(yaml, &[event]).is_empty()
}

fn alerts(rules: &Arc<RuleSet>, events: &[&str]) -> Vec<Alert> {
    let matches = Matcher::new(Arc::clone(rules)).match_batch(&batch_of(events)).expect("a batch of events");
    Detector::new(Arc::clone(rules), DetectorConfig::default()).observe(matches)
}

const EXEC: &str = r#"{"auditID":"e-1","stage":"ResponseComplete","level":"Metadata","verb":"get","requestURI":"/api/v1/namespaces/web/pods/web-0/exec?command=cat&command=%2Fetc%2Fshadow&container=app","user":{"username":"Alice","uid":"u1","groups":["system:authenticated","dev team"],"extra":{"authentication.kubernetes.io/pod-name":["runner-7"],"scopes":["a","b"]}},"impersonatedUser":{"username":"bob","groups":["ops"]},"sourceIPs":["1.1.1.1","10.2.3.4"],"userAgent":"kubectl/v1.30","objectRef":{"resource":"pods","namespace":"web","name":"web-0","subresource":"exec","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":101},"requestReceivedTimestamp":"2026-03-02T10:00:00.000001Z","stageTimestamp":"2026-03-02T10:00:01.000000Z","annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed","x.io/y.z":"value"}}"#;

#[test]
fn lines_of_a_selection_and_their_modifiers() {
    let encoded =
        r#"{"verb":"create","user":{"username":"dG9rZW4=xx"},"userAgent":"c\u0000u\u0000r\u0000l\u0000"}"#;
    let cases = [
        ("verb: get", true),
        ("verb: GET", true),
        ("verb|cased: GET", false),
        ("verb: [list, get]", true),
        ("verb: [list, watch]", false),
        ("verb: get\nobjectRef.subresource: exec", true),
        ("verb: get\nobjectRef.subresource: attach", false),
        ("- verb: list\n- objectRef.resource: pods", true),
        ("requestURI|contains: '/pods/'", true),
        ("requestURI|contains|all: [command=cat, shadow]", true),
        ("requestURI|contains|all: [command=cat, passwd]", false),
        ("requestURI|startswith: /api/", true),
        ("requestURI|endswith: =app", true),
        ("requestURI: '/api/*/pods/web-?/exec?*'", true),
        ("requestURI: '/api/*/pods/web-??/exec*'", false),
        ("user.username|re: '^A.*e$'", true),
        ("user.username|re: '^a'", false),
        ("user.username|re|i: '^a'", true),
        ("sourceIPs|cidr: 1.0.0.0/8", true),
        ("source_ip|cidr: 1.0.0.0/8", false),
        ("source_ip|cidr: [192.168.0.0/16, 10.0.0.0/8]", true),
        ("objectRef.apiGroup|exists: false", true),
        ("objectRef.name|exists: true", true),
        ("user.groups|exists: true", true),
        ("objectRef.apiGroup: null", true),
        ("objectRef.name: null", false),
        ("objectRef.name: [null, web-0]", true),
        ("objectRef.name: ''", false),
        ("responseStatus.code: 101", true),
        ("responseStatus.code: '101'", true),
        ("responseStatus.code: '1*'", true),
        ("responseStatus.code|gt: 100", true),
        ("responseStatus.code|gt: 101", false),
        ("responseStatus.code|gte: 101", true),
        ("responseStatus.code|lt: 101", false),
        ("responseStatus.code|lte: 101", true),
        ("verb|neq: get", false),
        ("verb|neq: [list, watch]", true),
        ("objectRef.apiGroup|neq: apps", true),
        ("user.groups: dev team", true),
        ("user.groups: dev", false),
        ("user.groups|contains|all: [authenticated, dev]", true),
        ("actor: bob", true),
        ("actor: alice", false),
        ("user.username: alice", true),
        ("impersonatedUser.groups: ops", true),
        ("exec.command: cat /etc/shadow", true),
        ("exec.command|contains: '%2F'", false),
        ("exec.container: app", true),
        ("authz.decision: allow", true),
        ("annotations.authorization.k8s.io/decision: allow", true),
        ("annotations.x.io/y.z: value", true),
        ("annotations.x.io/y.a|exists: false", true),
        ("user.extra.authentication.kubernetes.io/pod-name|startswith: runner", true),
        ("user.extra.scopes: b", true),
        ("cluster: test", true),
        ("outcome: success", true),
        ("outcome: [failure, unknown]", false),
        ("outcome|neq: failure", true),
        ("dry_run: false", true),
        ("dry_run: true", false),
        ("faults: null", true),
        ("request_examined: null", true),
        ("stageTimestamp|startswith: '2026-03-02T10:00:01'", true),
        ("user.username|fieldref: actor", false),
        ("objectRef.namespace|fieldref: objectRef.namespace", true),
        ("requestURI|fieldref|contains: objectRef.name", true),
        ("user.groups[any]|contains: dev", true),
        ("user.groups[all]|contains: dev", false),
        ("user.groups[none]|contains: root", true),
        ("sourceIPs[all]|cidr: [1.0.0.0/8, 10.0.0.0/8]", true),
        ("level: Metadata\nauditID: e-1", true),
    ];
    for (lines, expected) in cases {
        assert_eq!(hits(&selection(lines), EXEC), expected, "{lines}");
    }
    let cases = [
        ("user.username|base64|contains: token", true),
        ("user.username|base64|contains: Token", false),
        ("user.username|base64offset|contains: oken", true),
        ("userAgent|wide|contains: url", true),
        ("userAgent|utf16be|contains: curl", false),
    ];
    for (lines, expected) in cases {
        assert_eq!(hits(&selection(lines), encoded), expected, "{lines}");
    }
    let in_body = EXEC.replace("command=cat&command=%2Fetc%2Fshadow&", "").replace(
        r#""responseStatus""#,
        r#""requestObject":{"command":["cat","/etc/passwd"]},"responseStatus""#,
    );
    let both = in_body.replace("exec?", "exec?command=id&");
    for (lines, event, expected) in [
        ("exec.command: cat /etc/passwd", &in_body, true),
        ("exec.command: null", &in_body, false),
        ("exec.command: id", &both, true),
        ("exec.command|contains: passwd", &both, false),
        ("exec.command: cat /etc/passwd", &in_body.replace(r#""exec""#, r#""attach""#), false),
        ("exec.command: null", &in_body.replace(r#"["cat","/etc/passwd"]"#, "[]"), true),
        ("exec.command: null", &in_body.replace(r#"["cat","/etc/passwd"]"#, r#""cat""#), true),
    ] {
        assert_eq!(hits(&selection(lines), event), expected, "{lines} {event}");
    }
    assert!(hits(
        &selection("exec.command|windash|contains: ' -c'"),
        &EXEC.replace("command=cat", "command=sh&command=/c")
    ));
}

#[test]
fn conditions_join_selections() {
    let named = |condition: &str| {
        rule(&format!(
            "sel_verb:\n  verb: get\nsel_pods:\n  objectRef.resource: pods\nother:\n  verb: delete\ncondition: {condition}"
        ))
    };
    let cases = [
        ("sel_verb and sel_pods", true),
        ("sel_verb and other", false),
        ("sel_verb or other", true),
        ("sel_verb and not other", true),
        ("not (sel_verb and sel_pods)", false),
        ("1 of sel_*", true),
        ("all of sel_*", true),
        ("all of them", false),
        ("1 of them", true),
        ("not 1 of them", false),
    ];
    for (condition, expected) in cases {
        assert_eq!(hits(&named(condition), EXEC), expected, "{condition}");
    }
}

#[test]
fn keywords_are_searched_for_in_every_value() {
    let body = r#"{"verb":"create","objectRef":{"resource":"pods"},"requestObject":{"spec":{"containers":[{"image":"XMRig:1"}]}}}"#;
    assert!(hits(&rule("words: [xmrig, nothing]\ncondition: words"), body));
    assert!(hits(&rule("words:\n  - 'x?rig'\ncondition: words"), body));
    assert!(!hits(&rule("words: [containers]\ncondition: words"), body), "names of fields are not values");
    assert!(hits(&rule("words:\n  '|all': [runner-7, kubectl]\ncondition: words"), EXEC));
    assert!(!hits(&rule("words:\n  '|all': [runner-7, helm]\ncondition: words"), EXEC));
    assert!(hits(&rule("words:\n  '|re': 'shad.w'\ncondition: words"), EXEC));
    assert!(hits(&rule("words: ['101']\ncondition: words"), EXEC));
}

#[test]
fn scopes_bind_lines_to_one_element() {
    let role = |rules: &str| {
        format!(
            r#"{{"verb":"create","objectRef":{{"resource":"clusterroles"}},"requestObject":{{"rules":{rules}}}}}"#
        )
    };
    let apart = role(r#"[{"resources":["secrets"],"verbs":["get"]},{"resources":["pods"],"verbs":["*"]}]"#);
    let together =
        role(r#"[{"resources":["pods"],"verbs":["get"]},{"resources":["secrets"],"verbs":["*"]}]"#);
    let loose = selection(
        r"requestObject.rules.resources: secrets
requestObject.rules.verbs: '\*'",
    );
    assert!(hits(&loose, &apart) && hits(&loose, &together), "plain paths match each line on its own");
    let any = selection("requestObject.rules[any]:\n  resources: secrets\n  verbs: '\\*'");
    assert!(!hits(&any, &apart));
    assert!(hits(&any, &together));
    let all = selection("requestObject.rules[all]:\n  verbs|exists: true");
    assert!(hits(&all, &apart));
    assert!(!hits(&all, &role("[]")));
    assert!(!hits(&all, &role(r#"[{"verbs":["get"]},{}]"#)));
    let empty = selection("requestObject.rules[all_or_empty]:\n  verbs|exists: true");
    assert!(hits(&empty, &role("[]")));
    let none = selection("requestObject.rules[none]:\n  - verbs: '\\*'\n  - resources: secrets");
    assert!(!hits(&none, &apart));
    assert!(hits(&none, &role(r#"[{"resources":["pods"],"verbs":["get"]}]"#)));
    let nested = selection("requestObject.rules[any].verbs[all]: get");
    assert!(hits(&nested, &apart));
    assert!(!hits(&nested, &role(r#"[{"verbs":["get","list"]}]"#)));
}

#[test]
fn pods_are_seen_in_templates_patches_and_updates() {
    let privileged =
        selection("pod.containers[any]:\n  securityContext.privileged: true\n  image|contains: nsenter");
    let container = r#"{"name":"x","image":"nsenter","securityContext":{"privileged":true}}"#;
    let event = |resource: &str, verb: &str, body: &str| {
        format!(r#"{{"verb":"{verb}","objectRef":{{"resource":"{resource}"}},"requestObject":{body}}}"#)
    };
    let spec = |list: &str| format!(r#"{{"{list}":[{{"name":"ok","image":"web"}},{container}]}}"#);
    let cases = [
        event("pods", "create", &format!(r#"{{"spec":{}}}"#, spec("containers"))),
        event("pods", "create", &format!(r#"{{"spec":{}}}"#, spec("initContainers"))),
        event("pods", "patch", &format!(r#"{{"spec":{}}}"#, spec("ephemeralContainers"))),
        event(
            "deployments",
            "update",
            &format!(r#"{{"spec":{{"template":{{"spec":{}}}}}}}"#, spec("containers")),
        ),
        event(
            "cronjobs",
            "create",
            &format!(
                r#"{{"spec":{{"jobTemplate":{{"spec":{{"template":{{"spec":{}}}}}}}}}}}"#,
                spec("containers")
            ),
        ),
        event(
            "daemonsets",
            "patch",
            &format!(r#"[{{"op":"add","path":"/spec/template/spec/containers/-","value":{container}}}]"#),
        ),
    ];
    for case in &cases {
        assert!(hits(&privileged, case), "{case}");
    }
    let apart = event(
        "pods",
        "create",
        r#"{"spec":{"containers":[{"image":"nsenter"},{"image":"web","securityContext":{"privileged":true}}]}}"#,
    );
    assert!(!hits(&privileged, &apart));
    assert!(!hits(
        &privileged,
        &event("services", "create", &format!(r#"{{"spec":{}}}"#, spec("containers")))
    ));
    let unset = selection("verb: create\npod.containers.resources.limits: null");
    assert!(hits(&unset, &cases[0]));
    assert!(!hits(&selection("pod.hostNetwork: true"), &cases[0]));
}

#[test]
fn bodies_that_cannot_be_read_are_counted_and_absent() {
    let rules = set(&selection("verb: create\nrequestObject.a: 1"));
    let deep = format!(r#"{{"verb":"create","requestObject":{}1{}}}"#, "[".repeat(126), "]".repeat(126));
    let shallow = r#"{"verb":"create","requestObject":{"a":1}}"#;
    let other = r#"{"verb":"get","requestObject":{"a":1}}"#;
    let matches = Matcher::new(rules).match_batch(&batch_of(&[&deep, shallow, other])).unwrap();
    assert_eq!(matches.matched().collect::<Vec<_>>(), [(1, 0)]);
    assert_eq!(matches.bodies_unreadable(), 0, "126 levels are within the parser's bound");
}

#[test]
fn a_request_alerts_once_over_its_stages() {
    let rules = set(&selection("objectRef.subresource: exec"));
    let stage = |name: &str, time: &str| EXEC.replace("ResponseComplete", name).replace("10:00:01", time);
    let events = [
        stage("RequestReceived", "10:00:00"),
        stage("ResponseStarted", "10:00:01"),
        stage("ResponseComplete", "11:30:00"),
    ];
    let lines: Vec<&str> = events.iter().map(String::as_str).collect();
    assert_eq!(rows(&selection("objectRef.subresource: exec"), &lines), [1, 2]);
    let found = alerts(&rules, &lines);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].event.stage.as_deref(), Some("ResponseStarted"));
    assert_eq!(found[0].message, "Alice as bob get pods/web-0/exec in web from 10.2.3.4");
    let late_only = alerts(&rules, &lines[2..]);
    assert_eq!(late_only[0].alert_id, found[0].alert_id, "both stages give the same finding");

    let named = selection("objectRef.subresource: exec\nstage: RequestReceived");
    assert_eq!(rows(&named, &lines), [0]);
}

/// An entry in a cloud's log does not say when the request was received. The entries about the
/// start and the end of a request are one request, in whatever order they arrive, and no other
/// entries are.
#[test]
fn the_two_entries_of_an_operation_alert_once() {
    let entry = |id: &str, stage: &str, second: u32, name: &str| {
        format!(
            r#"{{"auditID":"{id}","stage":"{stage}","verb":"create","user":{{"username":"eve"}},"sourceIPs":["10.0.0.1"],"objectRef":{{"resource":"pods","name":"{name}"}},"stageTimestamp":"2026-03-02T10:00:{second:02}.000000Z","annotations":{{"authorization.k8s.io/decision":"allow"}}}}"#
        )
    };
    let start = |second| entry("1", "ResponseStarted", second, "a");
    let end = |second| entry("1", "ResponseComplete", second, "a");
    let counted = "\n---\ntitle: c\nname: c\ncorrelation: {type: event_count, rules: [t], group-by: actor, timespan: 1m, condition: {gte: 2}, generate: true}\n";
    let rules = set(&format!("name: t\n{}{counted}", selection("verb: create\noutcome: success")));
    let count = |lines: &[String]| {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let found = alerts(&rules, &lines);
        let single = found.iter().filter(|alert| alert.rule_name == "t").count();
        (single, found.len() - single)
    };
    assert_eq!(count(&[start(1), end(5)]), (1, 0));
    assert_eq!(count(&[end(5), start(1)]), (1, 0));
    assert_eq!(count(&[start(1), end(5), start(1), end(5)]), (1, 0), "the same events, delivered twice");
    assert_eq!(
        count(&[start(1), end(5), start(6), end(8)]),
        (2, 1),
        "a request whose id was used before still alerts"
    );
    assert_eq!(count(&[end(5), end(6)]), (2, 1));
    assert_eq!(count(&[start(1), start(2)]), (2, 1));
    assert_eq!(count(&[end(1), start(2)]), (2, 1), "an end before its start is of another request");
    assert_eq!(count(&[start(1), entry("1", "ResponseComplete", 2, "b")]), (2, 1));
    assert_eq!(count(&[start(1), entry("2", "ResponseComplete", 2, "a")]), (2, 1));
}

/// A rule that asks for success also matches an unknown outcome if its alerts are of high severity.
#[test]
fn an_unknown_outcome_is_success_for_grave_alerts_only() {
    let event = r#"{"verb":"delete","user":{"username":"eve"},"stage":"ResponseComplete","objectRef":{"resource":"pods"},"stageTimestamp":"2026-03-02T10:00:00.000000Z"}"#;
    let message = |level: &str, lines: &str| {
        let yaml = format!("level: {level}\nmessage: '{{actor}} did it'\n{}", selection(lines));
        alerts(&set(&yaml), &[event]).pop().map(|alert| alert.message)
    };
    for level in ["high", "critical"] {
        let found = message(level, "verb: delete\noutcome: success");
        assert_eq!(found.as_deref(), Some("unconfirmed: eve did it"));
    }
    for level in ["medium", "low", "informational"] {
        assert_eq!(message(level, "verb: delete\noutcome: success"), None);
        let found = message(level, "verb: delete\noutcome|neq: failure");
        assert_eq!(found.as_deref(), Some("unconfirmed: eve did it"));
        assert_eq!(message(level, "verb: delete").as_deref(), Some("eve did it"));
    }
    assert_eq!(message("high", "verb: delete\noutcome: failure"), None);
    let excluded = "level: high\n".to_owned()
        + &rule(
            "selection:\n  verb: delete\nfilter:\n  outcome: success\ncondition: selection and not filter",
        );
    assert_eq!(alerts(&set(&excluded), &[event]).len(), 1, "an exception for successes is not widened");
    // One base rule, which is counted by a correlation of high severity and by one of medium
    // severity.
    let counted = |name: &str, level: &str| {
        format!(
            "\n---\ntitle: {name}\nname: {name}\nlevel: {level}\ncorrelation: {{type: event_count, rules: [t], timespan: 1m, condition: {{gte: 1}}}}\n"
        )
    };
    let feeder = format!("name: t\nlevel: low\n{}", selection("outcome: success"));
    let rules = set(&[feeder, counted("grave", "high"), counted("other", "medium")].concat());
    let found = alerts(&rules, &[event]);
    assert_eq!(found.iter().map(|alert| alert.rule_name.as_str()).collect::<Vec<_>>(), ["grave"]);
    assert!(found[0].message.starts_with("unconfirmed: "), "{}", found[0].message);
}

#[test]
fn a_dry_run_is_left_out_of_rules_about_success() {
    let event = |verb: &str, query: &str| {
        format!(
            r#"{{"verb":"{verb}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/pods{query}","objectRef":{{"resource":"pods"}},"responseStatus":{{"code":200}}}}"#
        )
    };
    let (dry, wet) = (event("create", "?dryRun=All"), event("create", ""));
    for (lines, on_dry, on_wet) in [
        ("outcome: success", false, true),
        ("outcome|neq: failure", true, true),
        ("outcome: success\ndry_run: [true, false]", true, true),
        ("outcome: success\ndry_run: true", true, false),
        ("responseStatus.code|lt: 400", true, true),
        ("verb: create", true, true),
    ] {
        assert_eq!(hits(&selection(lines), &dry), on_dry, "{lines}");
        assert_eq!(hits(&selection(lines), &wet), on_wet, "{lines}");
    }
    assert!(
        hits(&selection("outcome: success"), &event("delete", "?dryRun=All")),
        "whether a delete is a dry run depends on its body"
    );
}

/// `generateName` leaves the name to the API server, which names it in its response.
#[test]
fn a_generated_name_comes_from_the_response() {
    let event = |object: &str, response: &str| {
        format!(
            r#"{{"verb":"create","user":{{"username":"eve"}},"objectRef":{object},"responseObject":{response}}}"#
        )
    };
    let pod = r#"{"kind":"Pod","metadata":{"generateName":"web-","name":"web-7xk2p"}}"#;
    let name = |event: &str| {
        let found = alerts(&set(&selection("verb: [create, update]")), &[event]);
        (found[0].event.name.clone(), found[0].message.clone())
    };
    assert_eq!(
        name(&event(r#"{"resource":"pods"}"#, pod)),
        (Some("web-7xk2p".to_owned()), "eve create pods/web-7xk2p".to_owned())
    );
    for (object, expected) in [
        (r#"{"resource":"pods","name":"a"}"#, Some("a")),
        (r#"{"resource":"pods","subresource":"eviction"}"#, None),
        ("{}", None),
    ] {
        assert_eq!(name(&event(object, pod)).0.as_deref(), expected, "{object}");
    }
    for response in ["null", "[]", r#"{"kind":"Status","metadata":{}}"#] {
        assert_eq!(name(&event(r#"{"resource":"pods"}"#, response)).0, None, "{response}");
    }
    let updated = event(r#"{"resource":"pods"}"#, pod).replace("create", "update");
    assert_eq!(name(&updated).0, None);
}

/// A lone surrogate or a number that is too large hides neither a body nor the members around it.
#[test]
fn unreadable_scalars_hide_nothing() {
    let event = |pad: &str| {
        format!(
            r#"{{"auditID":"a","verb":"create","user":{{"username":"eve","extra":{{{pad}"scopes":["b"]}}}},"objectRef":{{"resource":"pods"}},"requestObject":{{{pad}"spec":{{"hostPID":true}}}},"requestReceivedTimestamp":"2026-03-02T10:00:00.000000Z","stageTimestamp":"2026-03-02T10:00:00.000000Z"}}"#
        )
    };
    let rules = set(&selection("pod.hostPID: true\nuser.extra.scopes: b\nrequest_examined: true"));
    let plain = alerts(&rules, &[&event("")]);
    assert_eq!(plain.len(), 1);
    let long = format!("\"x\":{},", "9".repeat(400));
    for pad in [r#""x":"\ud800","#, r#""\ud800":[],"#, r#""x":1e999,"#, r#""x":[-1e999],"#, &long] {
        assert_eq!(alerts(&rules, &[&event(pad)]), plain, "{pad}");
    }
    let patch = event("").replace(
        r#"{"spec":{"hostPID":true}}"#,
        r#"[{"op":"add","path":"/x","value":"\ud800"},{"op":"add","path":"/spec","value":{"hostPID":true}}]"#,
    );
    assert_eq!(alerts(&rules, &[&patch]), plain);
    let harmless = event(r#""x":"\ud800","#).replace("true", "false");
    assert!(alerts(&rules, &[&harmless]).is_empty());
}

/// A JSON patch may copy values from the stored object. They are not in the event, and a rule can
/// ask for such patches.
#[test]
fn patches_that_copy_from_the_stored_object_are_found() {
    let event = |operations: &str| {
        format!(
            r#"{{"verb":"patch","objectRef":{{"resource":"pods"}},"requestObject":[{{"op":"add","path":"/metadata/annotations/a","value":true}}{operations}]}}"#
        )
    };
    let own = event(r#",{"op":"move","from":"/metadata/annotations/a","path":"/spec/hostPID"}"#);
    assert!(hits(&selection("pod.hostPID: true\nrequest_examined: true"), &own));
    let stored = event(r#",{"op":"copy","from":"/metadata/annotations/b","path":"/spec/hostPID"}"#);
    assert!(!hits(&selection("pod.hostPID: true"), &stored));
    assert!(hits(&selection("request_examined: false"), &stored));
    assert!(
        hits(&selection("request_examined: false\npod.hostPID: null"), &stored),
        "after the body was read"
    );
    for whole in ["", r#",{"op":"remove","path":"/spec/hostPID"}"#, r#",{"op":"test","path":"/a","value":1}"#]
    {
        assert!(hits(&selection("request_examined: true"), &event(whole)), "{whole}");
    }
}

/// A patch shows only a part of the object. If a patch was about something that a rule reads, the
/// rule is also evaluated on the object that results from the patch.
#[test]
fn patches_are_judged_by_what_they_lead_to() {
    let wide = selection("requestObject.rules[any]:\n  apiGroups: ''\n  verbs: '\\*'");
    let role =
        |group: &str| format!(r#"{{"metadata":{{}},"rules":[{{"apiGroups":["{group}"],"verbs":["*"]}}]}}"#);
    let event = |verb: &str, request: &str, response: &str| {
        format!(
            r#"{{"verb":"{verb}","objectRef":{{"resource":"roles"}},"requestObject":{request},"responseObject":{response}}}"#
        )
    };
    let verb_added = r#"[{"op":"add","path":"/rules/0/verbs/-","value":"*"}]"#;
    let copied = r#"[{"op":"copy","from":"/a","path":"/rules/0/verbs/0"}]"#;
    let label_added = r#"{"metadata":{"labels":{"a":"b"}}}"#;
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let status = r#"{"kind":"Status","metadata":{},"rules":[{"apiGroups":[""],"verbs":["*"]}]}"#;
    for (verb, request, response, expected) in [
        ("patch", verb_added, role(""), true),
        ("patch", verb_added, role("example.org"), false),
        ("patch", verb_added, "null".to_owned(), false),
        ("patch", verb_added, status.to_owned(), false),
        ("patch", r#"[{"op":"remove","path":"/rules/0/verbs/1"}]"#, role(""), true),
        ("patch", label_added, role(""), false),
        ("patch", r#"[{"op":"remove","path":"/metadata/labels/a"}]"#, role(""), false),
        // The copied value is not in the event, so the patch may have written anything.
        ("patch", copied, role(""), true),
        ("patch", copied, role("example.org"), false),
        // The request body is not in the event, or cannot be read.
        ("update", "null", role(""), true),
        ("create", &deep, role(""), true),
        // The request body is whole, so the result is not examined: others may have changed the
        // object.
        ("update", &role("example.org"), role(""), false),
        ("get", "null", role(""), false),
    ] {
        let event = event(verb, request, &response);
        assert_eq!(hits(&wide, &event), expected, "{event}");
    }
    for (verb, request, response, expected) in [
        ("patch", verb_added, role(""), false),
        ("patch", verb_added, "null".to_owned(), true),
        ("patch", verb_added, status.to_owned(), true),
        ("update", verb_added, "null".to_owned(), false),
    ] {
        let event = event(verb, request, &response);
        assert_eq!(hits(&selection("request_partial: true"), &event), expected, "{event}");
    }
    // Negated lines, and lines about members that the patch did not touch, are also evaluated on
    // the result.
    let unlimited = selection("requestObject.rules[any]:\n  verbs: '\\*'\n  resourceNames: null");
    let unlimiting = r#"[{"op":"remove","path":"/rules/0/resourceNames"}]"#;
    assert!(hits(&unlimited, &event("patch", unlimiting, &role(""))));
    let of_pod = r#"{"metadata":{},"spec":{"containers":[{"name":"a","image":"x","securityContext":{"privileged":true}}]}}"#;
    let pods = |request: &str| {
        let event = event("patch", request, of_pod);
        event.replace(r#""resource":"roles""#, r#""resource":"pods""#)
    };
    let privileged = selection("pod.containers[any]:\n  image: x\n  securityContext.privileged: true");
    let image = r#"{"spec":{"containers":[{"name":"a","image":"x"}]}}"#;
    assert!(hits(&privileged, &pods(image)));
    assert!(!hits(&selection("pod.containers.securityContext.privileged: true"), &pods(image)));
}

/// An event that was cut off before its times has the latest time of its source.
#[test]
fn events_without_a_time_count_where_their_source_stands() {
    let event = |id: usize, verb: &str, time: Option<&str>| {
        let time = time.map(|time| format!(r#","stageTimestamp":"2026-03-02T{time}.000000Z""#));
        format!(
            r#"{{"auditID":"a-{id}","stage":"ResponseComplete","verb":"{verb}","user":{{"username":"eve"}},"objectRef":{{"resource":"pods","name":"p{id}"}},"responseStatus":{{"code":200}}{}}}"#,
            time.unwrap_or_default()
        )
    };
    let counted = "\n---\ntitle: c\nname: c\ncorrelation: {type: event_count, rules: [t], group-by: actor, timespan: 1m, condition: {gte: 3}, generate: true}\n";
    let rules = set(&format!("name: t\n{}{counted}", selection("verb: delete")));
    let cut_at = |events: &[(&str, Option<&str>)], size: usize| {
        let lines: Vec<String> =
            events.iter().enumerate().map(|(at, (verb, time))| event(at, verb, *time)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut detector = Detector::new(Arc::clone(&rules), DetectorConfig::default());
        let mut found = Vec::new();
        for lines in lines.chunks(size) {
            let matches = Matcher::new(Arc::clone(&rules)).match_batch(&batch_of(lines));
            found.extend(detector.observe(matches.expect("a batch of events")));
        }
        found
    };
    let found = |events: &[(&str, Option<&str>)]| {
        let whole = cut_at(events, events.len());
        let of = |name: &str| {
            let of = whole.iter().filter(|alert| alert.rule_name == name);
            of.map(|alert| alert.time_us / 1_000_000 % 86_400 - 36_000).collect::<Vec<_>>()
        };
        for size in 1..events.len() {
            let ids = |alerts: &[Alert]| {
                alerts.iter().map(|alert| (alert.alert_id.clone(), alert.time_us)).collect::<Vec<_>>()
            };
            assert_eq!(ids(&cut_at(events, size)), ids(&whole), "batches of {size}");
        }
        (of("t"), of("c"))
    };
    let (cut, dated) = (("delete", None), |time| ("get", Some(time)));
    assert_eq!(found(&[dated("10:00:07"), cut, cut, cut]), (vec![7, 7, 7], vec![7]));
    assert_eq!(
        found(&[dated("10:00:07"), dated("10:00:05"), cut]),
        (vec![7], vec![]),
        "the event has the latest time of its source"
    );
    assert_eq!(
        found(&[dated("10:00:00"), cut, ("delete", Some("10:00:30")), cut, dated("10:00:40"), cut]),
        (vec![0, 30, 30, 40], vec![30])
    );
    let apart = [dated("10:00:00"), cut, cut, dated("10:01:01"), cut, cut];
    assert_eq!(found(&apart), (vec![0, 0, 61, 61], vec![]), "two windows");
    let undated = found(&[cut, cut, cut, dated("10:00:00")]);
    assert_eq!(undated, (vec![-36_000; 3], vec![-36_000]), "the source has shown no time");
    // The id of an alert about one event is the same in a hunt, which reads fewer events and so
    // knows fewer times.
    let alone = cut_at(&[("delete", None)], 1);
    let late = event(0, "delete", None);
    let mut detector = Detector::new(Arc::clone(&rules), DetectorConfig::default());
    let mut observe = |line: &str| {
        detector.observe(Matcher::new(Arc::clone(&rules)).match_batch(&batch_of(&[line])).expect("events"))
    };
    observe(&event(9, "get", Some("10:00:00")));
    let late = observe(&late);
    assert_eq!(late[0].alert_id, alone[0].alert_id);
    assert_ne!(late[0].time_us, alone[0].time_us);
}

/// A body that is padded with escapes is examined; one with too many values is reported.
#[test]
fn padding_hides_no_body() {
    let event = |pad: &str| {
        format!(
            r#"{{"verb":"create","objectRef":{{"resource":"pods"}},"requestObject":{{"metadata":{{"annotations":{{"a":{pad}}}}},"spec":{{"hostPID":true}}}}}}"#
        )
    };
    let padded = event(&format!("\"{}\"", "\\u003c".repeat(1 << 20)));
    assert!(padded.len() > 6 << 20);
    assert!(hits(&selection("pod.hostPID: true"), &padded));
    assert!(hits(&selection("request_examined: true"), &padded));
    let crowded = event(&format!("[{}0]", "0,".repeat(strongroom_bodies::body::VALUES_MAX)));
    assert!(!hits(&selection("pod.hostPID: true"), &crowded));
    assert!(hits(&selection("request_examined: false"), &crowded));
    assert!(hits(&selection("request_examined: true"), &event("0")));
    let deep = event(&format!("{}1{}", "[".repeat(200), "]".repeat(200)));
    assert!(hits(&selection("faults: '/requestObject: too_deep'"), &deep));
    assert!(!hits(&selection("faults|startswith: '/requestObject'"), &event("[[1]]")));
}

/// A client may send an audit id that was used before. Such a request still raises its alert.
#[test]
fn a_reused_audit_id_silences_nothing() {
    let rules = set(&selection("objectRef.subresource: exec"));
    let variants = [
        EXEC.to_owned(),
        EXEC.replace("\"bob\"", "\"mallory\""),
        EXEC.replace("shadow", "passwd"),
        EXEC.replace("10:00:00.000001", "10:00:00.000002"),
        EXEC.replace("10.2.3.4", "10.2.3.5"),
    ];
    let lines: Vec<&str> = variants.iter().chain(&variants).map(String::as_str).collect();
    let found = alerts(&rules, &lines);
    assert_eq!(found.len(), variants.len(), "each request alerts once, and its repetitions do not");
    let mut ids: Vec<&str> = found.iter().map(|alert| alert.alert_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), variants.len());
}

#[test]
fn an_alert_says_what_the_rule_and_the_event_say() {
    let yaml = format!(
        "name: shadow-read\nid: 11111111-1111-4111-8111-111111111111\nlevel: high\ntags: [attack.credential-access, attack.t1552.007, cve.2020-1]\nmessage: '{{actor}} ran {{exec.command}}'\nnext_steps: Ask {{user.username}}.\n{}",
        selection("objectRef.subresource: exec")
    );
    let found = alerts(&set(&yaml), &[EXEC]);
    let alert = &found[0];
    assert_eq!(alert.rule_name, "shadow-read");
    assert_eq!(alert.rule_id, "11111111-1111-4111-8111-111111111111");
    assert_eq!(alert.severity, Severity::High);
    assert_eq!(alert.tactics, ["credential-access"]);
    assert_eq!(alert.techniques, ["T1552.007"]);
    assert_eq!(alert.message, "Alice as bob ran cat /etc/shadow");
    assert_eq!(alert.next_steps, "Ask Alice.");
    assert_eq!(alert.time_us, 1_772_445_601_000_000);
    assert_eq!((alert.window_start_us, alert.window_end_us), (alert.time_us, alert.time_us));
    assert_eq!(alert.audit_ids, ["e-1"]);
    assert_eq!(alert.event_count, 1);
    assert_eq!(alert.event.user_name, "Alice");
    assert_eq!(
        alert.event.request_uri.as_deref(),
        Some("/api/v1/namespaces/web/pods/web-0/exec?command=cat&command=%2Fetc%2Fshadow&container=app")
    );
    // SIEMs store the id, so it must not change.
    assert_eq!(alert.alert_id, "6cc9ee57-8a28-56cd-a872-6ea148e80810");
}

#[test]
fn a_rule_says_what_it_serves_and_what_to_ask() {
    let yaml = format!(
        "hipaa: [164.312(b), '164.308(a)(1)(ii)(D)']\nrunbook:\n- SELECT * FROM events WHERE actor = {{actor}}\n- SELECT {{count}}\n{}",
        selection("objectRef.subresource: exec")
    );
    let rules = set(&yaml);
    assert_eq!(rules.rules()[0].hipaa, ["164.312(b)", "164.308(a)(1)(ii)(D)"]);
    assert_eq!(rules.rules()[0].runbook.len(), 2);
    let alert = &alerts(&rules, &[EXEC])[0];
    assert_eq!(rules.runbook(alert), ["SELECT * FROM events WHERE actor = 'bob'", "SELECT 1"]);
    let counts = format!("{COUNTS}runbook: 'SELECT {{timespan}}, {{group}}'\nhipaa: 164.312(d)\n");
    let rules = set(&counts);
    let events = [read(0, "al'ice", "a"), read(1, "al'ice", "b"), read(2, "al'ice", "c")];
    let lines: Vec<&str> = events.iter().map(String::as_str).collect();
    let alert = &alerts(&rules, &lines)[0];
    assert_eq!(rules.runbook(alert), ["SELECT '1m', 'actor=al''ice'"]);
}

const COUNTS: &str = "title: Secret read
name: secret-read
logsource: {product: kubernetes, service: audit}
detection:
  selection:
    verb: get
    objectRef.resource: secrets
  condition: selection
---
title: Many Secrets read
name: many-secrets
correlation:
  type: value_count
  rules: secret-read
  group-by: actor
  timespan: 1m
  condition:
    field: objectRef.name
    gte: 3
";

fn read(second: u32, actor: &str, secret: &str) -> String {
    format!(
        r#"{{"auditID":"{actor}-{second}-{secret}","stage":"ResponseComplete","verb":"get","user":{{"username":"{actor}"}},"objectRef":{{"resource":"secrets","name":"{secret}"}},"requestReceivedTimestamp":"2026-03-02T10:{:02}:{:02}.000000Z","stageTimestamp":"2026-03-02T10:{:02}:{:02}.500000Z"}}"#,
        second / 60,
        second % 60,
        second / 60,
        second % 60
    )
}

#[test]
fn distinct_values_are_counted_by_group() {
    let rules = set(COUNTS);
    assert_eq!(rules.window_max().as_secs(), 60);
    assert!(!rules.rules()[0].alerts, "a base rule only feeds its correlation");
    let events = [
        read(0, "alice", "a"),
        read(1, "alice", "a"),
        read(2, "bob", "b"),
        read(3, "alice", "b"),
        read(4, "bob", "b"),
        read(5, "bob", "c"),
        read(6, "alice", "c"),
        read(7, "alice", "d"),
        read(66, "bob", "d"),
    ];
    let lines: Vec<&str> = events.iter().map(String::as_str).collect();
    let found = alerts(&rules, &lines);
    assert_eq!(found.len(), 1, "the three reads of bob take 64 seconds, longer than the timespan");
    let alert = &found[0];
    assert_eq!(alert.rule_name, "many-secrets");
    assert_eq!(alert.group_key, "actor=alice");
    assert_eq!(alert.event_count, 3);
    assert_eq!(alert.window_end_us - alert.window_start_us, 6_000_000);
    assert_eq!(alert.audit_ids, ["alice-0-a", "alice-1-a", "alice-3-b", "alice-6-c"]);
    assert_eq!(alert.message, "3 within 1m for actor=alice; last: alice get secrets/c");
}

#[test]
fn generate_lets_base_rules_alert_too() {
    let rules = set(&COUNTS.replace("  timespan: 1m", "  timespan: 1m\n  generate: true"));
    assert!(rules.rules()[0].alerts);
    let events = [read(0, "alice", "a"), read(1, "alice", "b"), read(2, "alice", "c")];
    let lines: Vec<&str> = events.iter().map(String::as_str).collect();
    let names: Vec<String> = alerts(&rules, &lines).into_iter().map(|alert| alert.rule_name).collect();
    assert_eq!(names, ["secret-read", "secret-read", "secret-read", "many-secrets"]);
}

const EXCEPTION: &str = "
title: The vault's agent reads Secrets
logsource: {product: kubernetes, service: audit}
filter:
  rules: [secret-read]
  agent: {user.username: vault-agent}
  condition: not agent
";

#[test]
fn filters_are_exceptions_kept_apart() {
    let rules = RuleSet::from_documents([("a.yml".to_owned(), COUNTS), ("b.yml".to_owned(), EXCEPTION)]);
    let rules = Arc::new(rules.unwrap_or_else(|error| panic!("{error}")));
    assert_eq!(rules.rules().len(), 2, "a filter is not a rule");
    let of = |actor: &str| [read(0, actor, "a"), read(1, actor, "b"), read(2, actor, "c")];
    let events = [of("alice"), of("vault-agent")].concat();
    let lines: Vec<&str> = events.iter().map(String::as_str).collect();
    let groups: Vec<String> = alerts(&rules, &lines).into_iter().map(|alert| alert.group_key).collect();
    assert_eq!(groups, ["actor=alice"]);
}

#[test]
fn an_alert_about_a_new_value_names_it() {
    let yaml = COUNTS
        .replace("value_count", "first_seen")
        .replace("timespan: 1m", "timespan: 1h\n  learning: 1m")
        .replace("    gte: 3\n", "");
    let rules = set(&yaml);
    assert_eq!(rules.history_max().as_secs(), 3600);
    assert_eq!(rules.window_max().as_secs(), 0);
    let events =
        [read(0, "alice", "a"), read(70, "alice", "b"), read(71, "alice", "b"), read(72, "bob", "c")];
    let lines: Vec<&str> = events.iter().map(String::as_str).collect();
    let found = alerts(&rules, &lines);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].group_key, "actor=alice, objectRef.name=b");
    assert_eq!(found[0].audit_ids, ["alice-70-b"]);
}

/// The events arrive with the times 300, 100, 101, 102. An engine that counts in order of arrival
/// would alert at 101.
#[test]
fn an_early_arrival_of_a_later_event_makes_no_window() {
    let rules = set(COUNTS);
    let events = [read(300, "alice", "a"), read(100, "alice", "b"), read(101, "alice", "c")];
    let lines: Vec<&str> = events.iter().map(String::as_str).collect();
    assert_eq!(alerts(&rules, &lines), []);
    let events = [&events[..], &[read(102, "alice", "d")]].concat();
    let lines: Vec<&str> = events.iter().map(String::as_str).collect();
    let found = alerts(&rules, &lines);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].audit_ids, ["alice-100-b", "alice-101-c", "alice-102-d"]);
}

/// A count is final only when no more events of the window can arrive. This is when the source has
/// delivered an event that is later than the window's end by more than the allowed lateness.
#[test]
fn upper_bounds_are_judged_when_the_window_is_over() {
    let rules = set(&COUNTS.replace("gte: 3", "lte: 2"));
    let mut events =
        vec![read(0, "alice", "a"), read(2, "bob", "a"), read(3, "bob", "b"), read(4, "bob", "c")];
    events.push(read(1, "alice", "b"));
    events.push(read(1, "alice", "b"));
    let raised = |events: &[String]| {
        let lines: Vec<&str> = events.iter().map(String::as_str).collect();
        alerts(&rules, &lines)
    };
    assert_eq!(raised(&events), [], "no window is over yet");
    // An event that matches no rule advances the time: first to the end of Alice's window plus the
    // lateness, then to a second later.
    let other = |second: u32| read(second, "carol", "x").replace("secrets", "pods");
    events.push(other(180));
    assert_eq!(raised(&events), []);
    events.push(other(181));
    let found = raised(&events);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].group_key, "actor=alice");
    assert_eq!(found[0].event_count, 2);
    assert_eq!(found[0].window_end_us - found[0].window_start_us, 60_000_000);
    events.push(read(30, "alice", "late"));
    events.push(other(400));
    assert_eq!(raised(&events).len(), 1, "a late event starts no new window");

    let exactly = set(&COUNTS.replace("gte: 3", "eq: 3"));
    let lines: Vec<&str> = events.iter().map(String::as_str).collect();
    let groups: Vec<String> = alerts(&exactly, &lines).into_iter().map(|alert| alert.group_key).collect();
    assert_eq!(groups, ["actor=bob"]);
}

#[test]
fn aliases_join_rules_with_other_fields() {
    let yaml = "title: Impersonates
name: impersonates
logsource: {product: kubernetes, service: audit}
detection:
  selection: {impersonatedUser.username|exists: true}
  condition: selection
---
title: Reads
name: reads
logsource: {product: kubernetes, service: audit}
detection:
  selection: {objectRef.resource: secrets}
  condition: selection
---
title: Both
name: both
correlation:
  type: event_count
  rules: [impersonates, reads]
  group-by: [person]
  timespan: 5m
  aliases:
    person:
      impersonates: impersonatedUser.username
      reads: user.username
  condition: {gt: 1}
";
    let impersonates = r#"{"auditID":"i","verb":"get","user":{"username":"root"},"impersonatedUser":{"username":"alice"},"requestReceivedTimestamp":"2026-03-02T10:00:00Z","stageTimestamp":"2026-03-02T10:00:00Z"}"#;
    let found = alerts(&set(yaml), &[impersonates, &read(1, "alice", "a"), &read(2, "bob", "a")]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].group_key, "person=alice");
}

#[test]
fn wrong_rules_name_file_rule_and_line() {
    let cases = [
        (
            selection("verb: get\nobjectref.resource: x"),
            "rules.yml:6: rule \"t\": detection > selection > objectref.resource: field \"objectref.resource\" is not one of an audit event; nearest: objectRef.resource",
        ),
        (
            selection("verb|contians: get"),
            "rules.yml:5: rule \"t\": detection > selection > verb|contians: modifier \"contians\" is unknown",
        ),
        (
            selection("verb|re: '('"),
            "rules.yml:5: rule \"t\": detection > selection > verb|re: regular expression: unclosed group",
        ),
        (selection("source_ip|cidr: nowhere"), "\"nowhere\" is not a network such as 10.0.0.0/8"),
        (selection("verb|expand: '%x%'"), "modifier expand needs a pipeline"),
        (selection("verb|i: x"), "modifier i is only valid after re"),
        (selection("verb: {a: b}"), "a map is a value only below a scope"),
        (selection("verb[any]: get"), "verb is not an array and has no elements"),
        (selection("user.groups[some]: get"), "scope [some] is not one of"),
        (
            rule("selection:\n  verb: get\ncondition: selektion"),
            "rules.yml:6: rule \"t\": detection > condition: no selection is named \"selektion\"; the selections are selection",
        ),
        (rule("selection:\n  verb: get"), "detection has no condition"),
        (
            selection("verb: get").replace("kubernetes", "windows"),
            "rules.yml:2: rule \"t\": logsource > product: product is windows; rules must be for logsource product: kubernetes, service: audit",
        ),
        (
            format!("level: urgent\n{}", selection("verb: get")),
            "rules.yml:1: rule \"t\": level: level \"urgent\" is not one of informational",
        ),
        (
            format!("hipaa: [164.312(b)x]\n{}", selection("verb: get")),
            "rules.yml:1: rule \"t\": hipaa: \"164.312(b)x\" is not a safeguard of 45 CFR part 164",
        ),
        (format!("hipaa: 164.312(1)\n{}", selection("verb: get")), "is not a safeguard"),
        (format!("runbook: ['SELECT {{data}}']\n{}", selection("verb: get")), "runbook: names {data}"),
        (
            format!("message: '{{requestObject.data}}'\n{}", selection("verb: get")),
            "names {requestObject.data}, but an alert carries only",
        ),
        ("title: t\n".to_owned(), "has neither a detection nor a correlation"),
        ("title: a\n---\ntitle: [\n".to_owned(), "rules.yml:"),
        (
            COUNTS.replace("secret-read\n  group", "secret-reed\n  group"),
            "rules.yml:10: rule \"Many Secrets read\": no rule has the name or id \"secret-reed\" that it counts",
        ),
        (
            COUNTS.replace("value_count", "temporal"),
            "temporal matches all of its rules and takes no condition",
        ),
        (
            COUNTS.replace("value_count", "session"),
            "type session is not one of event_count, value_count, temporal",
        ),
        (COUNTS.replace("  timespan: 1m", "  timespan: 1m\n  lateness: 2h"), "lateness: is longer than 60m"),
        (COUNTS.replace("value_count", "first_seen"), "key gte is not one of field"),
        (
            format!(
                "{COUNTS}---\ntitle: f\nlogsource: {{product: kubernetes, service: audit}}\nfilter:\n  rules: [secret-reed]\n  a: {{verb: get}}\n  condition: not a\n"
            ),
            "rules.yml:21: rule \"f\": filter: no rule has the name or id \"secret-reed\" that it filters",
        ),
        (
            format!(
                "{COUNTS}---\ntitle: f\nlogsource: {{product: kubernetes, service: audit}}\nfilter:\n  a: {{verb: get}}\n  condition: not a\n"
            ),
            "filter > rules: names no rules",
        ),
        (
            format!(
                "{COUNTS}---\ntitle: f\nlogsource: {{product: kubernetes, service: audit}}\nfilter:\n  rules: many-secrets\n  a: {{verb: get}}\n  condition: not a\n"
            ),
            "filters \"many-secrets\", a correlation",
        ),
        (COUNTS.replace("1m", "1 minute"), "\"1 minute\" is not a number followed by s, m, h or d"),
        (COUNTS.replace("1m", "60d"), "60d is not between 1s and 31d"),
        (COUNTS.replace("gte: 3", "gte: 1000000"), "is not a whole number up to 4096"),
        (COUNTS.replace("group-by: actor", "group-by: requestObject.a"), "is part of a body"),
        (COUNTS.replace("    field: objectRef.name\n", ""), "value_count needs the field"),
        (
            COUNTS.replace("name: many-secrets", "name: secret-read"),
            "is also the name or id of the rule at rules.yml:1",
        ),
        (COUNTS.replace("name: secret-read\n", "").replace("name: many-secrets\n", ""), "needs a name"),
    ];
    for (yaml, part) in cases {
        let error = match RuleSet::from_yaml("rules.yml", &yaml) {
            Ok(_) => panic!("reads well, expected: {part}\n{yaml}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(part), "{error}\nexpected: {part}\n{yaml}");
    }
}

#[test]
fn builtin_rules_load() {
    let rules = RuleSet::builtin().unwrap_or_else(|error| panic!("{error}"));
    assert!(rules.rules().iter().filter(|rule| rule.alerts).count() >= 30);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let loaded = RuleSet::load(&[folder]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.rules().len(), rules.rules().len(), "the folder and the embedded rules are the same");
}

#[test]
fn batches_that_are_not_events_are_refused() {
    let rules = set(&selection("verb: get"));
    let batch = batch_of(&[EXEC]);
    let verb = batch.schema().index_of("verb").unwrap();
    let without: Vec<usize> = (0..batch.num_columns()).filter(|at| *at != verb).collect();
    let error = Matcher::new(Arc::clone(&rules)).match_batch(&batch.project(&without).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the batch has no column \"verb\"");
    // A column that no rule and no alert reads may be missing.
    let unread = batch.schema().index_of("request_object").unwrap();
    let fewer: Vec<usize> = (0..batch.num_columns()).filter(|at| *at != unread).collect();
    assert!(Matcher::new(rules).match_batch(&batch.project(&fewer).unwrap()).is_ok());
}

const UNFINISHED: &str = r"title: patch
name: patch
logsource: {product: kubernetes, service: audit}
detection:
  selection: {verb: patch, stage: [RequestReceived, ResponseStarted, ResponseComplete, Panic]}
  condition: selection
---
title: unfinished
name: unfinished
correlation: {type: unfinished, rules: patch, group-by: user.username, timespan: 5m}
message: '{user.username} {count} {timespan}'
";

/// Returns one stage of a patch. `received` and `ended` are minutes of an hour.
fn stage_of(audit_id: &str, user: &str, stage: &str, received: u32, ended: u32, other: &str) -> String {
    format!(
        r#"{{"auditID":"{audit_id}","stage":"{stage}","verb":"patch","requestURI":"/a","user":{{"username":"{user}"}},{other}"requestReceivedTimestamp":"2026-03-02T10:{received:02}:00.000001Z","stageTimestamp":"2026-03-02T10:{ended:02}:00.000001Z"}}"#
    )
}

#[test]
fn unfinished_requests_are_reported_by_group() {
    let rules = set(UNFINISHED);
    let received = |id: &str, user: &str, at: u32| stage_of(id, user, "RequestReceived", at, at, "");
    let ended =
        |id: &str, user: &str, from: u32, at: u32, stage: &str| stage_of(id, user, stage, from, at, "");
    let found = |events: &[String]| -> Vec<(String, Vec<String>)> {
        let lines: Vec<&str> = events.iter().map(String::as_str).collect();
        let whole = alerts(&rules, &lines);
        // Batches of one line give the same alerts.
        let mut matcher = Matcher::new(Arc::clone(&rules));
        let mut detector = Detector::new(Arc::clone(&rules), DetectorConfig::default());
        let mut apart = Vec::new();
        for line in &lines {
            apart.extend(detector.observe(matcher.match_batch(&batch_of(&[*line])).expect("a batch")));
        }
        let ids = |alerts: &[Alert]| alerts.iter().map(|alert| alert.alert_id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&whole), ids(&apart));
        whole.into_iter().map(|alert| (alert.message, alert.audit_ids)).collect()
    };
    let one = |message: &str, id: &str| vec![(message.to_owned(), vec![id.to_owned()])];
    let later = received("later", "zoe", 30);

    let lost = received("1", "eve", 0);
    assert_eq!(found(&[lost.clone(), later.clone()]), one("eve 1 5m", "1"));
    assert_eq!(found(std::slice::from_ref(&lost)), [], "the timespan is not over");
    for stage in ["ResponseStarted", "ResponseComplete", "Panic"] {
        assert_eq!(found(&[lost.clone(), ended("1", "eve", 0, 1, stage), later.clone()]), [], "{stage}");
    }
    // A client chooses the audit id. So a request is not ended by another request with the same id,
    // nor by an event with the same id and another time of receipt.
    let borrowed = [lost.clone(), ended("1", "bob", 0, 1, "ResponseComplete"), later.clone()];
    assert_eq!(found(&borrowed), one("eve 1 5m", "1"));
    let again =
        [lost.clone(), received("1", "eve", 1), ended("1", "eve", 1, 2, "ResponseComplete"), later.clone()];
    assert_eq!(found(&again), one("eve 1 5m", "1"));
    // When a request is received, the event does not say yet that it impersonates somebody.
    let impersonated = r#""impersonatedUser":{"username":"bob"},"#;
    let borrowing =
        [lost.clone(), stage_of("1", "eve", "ResponseComplete", 0, 1, impersonated), later.clone()];
    assert_eq!(found(&borrowing), []);
    // There is one alert for a burst of one user, one for another user, and one for a later burst.
    let many: Vec<String> = (0..5)
        .map(|at| received(&format!("e{at}"), "eve", at))
        .chain([received("b", "bob", 3), received("e9", "eve", 20), received("later", "zoe", 59)])
        .collect();
    let many: Vec<String> = found(&many).into_iter().map(|(_, ids)| ids.join(" ")).collect();
    assert_eq!(many, ["e0", "b", "e9"]);
}

#[test]
fn unfinished_refuses_what_it_cannot_judge() {
    let refused = |from: &str, to: &str| {
        assert!(UNFINISHED.contains(from), "{from}");
        RuleSet::from_yaml("r.yml", &UNFINISHED.replace(from, to)).expect_err(to).to_string()
    };
    let blind = refused(", stage: [RequestReceived, ResponseStarted, ResponseComplete, Panic]", "");
    assert!(blind.contains("\"patch\" does not name stage"), "{blind}");
    let lateness = refused("timespan: 5m", "timespan: 5m, lateness: 1m");
    assert!(lateness.contains("fixed lateness"), "{lateness}");
    let bound = refused("timespan: 5m", "timespan: 5m, condition: {lt: 3}");
    assert!(bound.contains("key lt is not one of gt, gte"), "{bound}");
}

/// The fields of a match are taken from the shown rows. The rules are evaluated on the original
/// rows.
#[test]
fn a_match_carries_what_is_shown() {
    let line = |user: &str, uri: &str, body: &str| {
        format!(
            r#"{{"auditID":"1","stage":"ResponseComplete","verb":"create","requestURI":"{uri}","user":{{"username":"{user}"}},"objectRef":{{"resource":"pods","name":"a"}},"requestObject":{body},"requestReceivedTimestamp":"2026-03-02T10:00:00.000000Z","stageTimestamp":"2026-03-02T10:00:00.000000Z","responseStatus":{{"code":201}}}}"#
        )
    };
    let counted = "\n---\ntitle: c\nname: c\ncorrelation: {type: first_seen, rules: [t], group-by: user.username, timespan: 10d, learning: 1s, condition: {field: exec.command}, generate: true}\n";
    let rules = set(&format!(
        "name: t\nmessage: '{{user.username}} {{requestURI}}'\n{}{counted}",
        selection("user.username: eve\nrequestObject.pin: '1234'")
    ));
    let clear = [
        line("bob", "/x?command=1", r#"{"pin":"1234"}"#),
        line("eve", "/x?command=1234", r#"{"pin":"1234"}"#),
    ];
    let batch = batch_of(&clear.iter().map(String::as_str).collect::<Vec<_>>());
    let shown = line("rt1:eve", "/x", "{}");
    let mut matcher = Matcher::new(Arc::clone(&rules));
    let token = |value: &str| format!("<{}>", value.len());
    let matches = matcher.match_batch_shown::<MatchError>(&batch, |rows| {
        assert_eq!(rows, [1]);
        Ok(Some(ShownRows { events: batch_of(&[&shown]), rows: vec![(1, 0)], token: &token }))
    });
    let matches = matches.expect("columns");
    assert_eq!(matches.matched().count(), 1);
    let mut detector = Detector::new(Arc::clone(&rules), DetectorConfig::default());
    let found = detector.observe(matches);
    assert!(!found.is_empty());
    for alert in &found {
        let text = format!("{alert:?}");
        assert!(!text.contains("1234") && !text.contains("\"eve\""), "{text}");
        assert_eq!(
            (alert.event.user_name.as_str(), alert.event.request_uri.as_deref()),
            ("rt1:eve", Some("/x"))
        );
    }
    assert!(
        found
            .iter()
            .all(|alert| alert.rule_name != "c"
                || alert.group_key == "user.username=rt1:eve, exec.command=<4>")
    );
    // The identity of the request is taken from the shown row, so a replay raises the same ids.
    let single = found.iter().find(|alert| alert.rule_name == "t");
    let replayed = set(&format!("name: t\nmessage: '{{user.username}}'\n{}", selection("verb: create")));
    let again = alerts(&replayed, &[&shown]);
    if let Some(single) = single {
        assert_eq!(single.event.audit_id, again[0].event.audit_id);
    }
}
