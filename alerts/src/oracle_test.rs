//! The matcher compared with the simplest correct evaluator, the oracle.
//!
//! Goal: gates, memos, three-valued evaluation and column forms change no result. Method: rules are
//! composed at random from lines that cover every kind of field. Many rules run at once, so that
//! they share leaves and fill more than one mask. Events use a small vocabulary, so that lines
//! often match. The oracle evaluates the parsed expression on each event's JSON, one row and one
//! rule at a time.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use strongroom_bodies::walk::{self, Pod};
use strongroom_bodies::{Exec, body};
use strongroom_schemas::events::index;
use strongroom_schemas::outcome::{Answer, asks_dry_run, obeys_dry_run};
use strongroom_schemas::uri::query_parameter;

use crate::expr::{Comparison, Expr, Quantifier};
use crate::fields::{Body, Field, Path};
use crate::pattern::{fold, scalar_text};
use crate::testing::{CLUSTER, batch_of, file_batch_of, view_batch_of};
use crate::{Detector, DetectorConfig, Matcher, RuleSet};

/// Returns the JSON pointer to a column's value in the event.
fn pointer(column: usize) -> &'static str {
    match column {
        index::AUDIT_ID => "/auditID",
        index::STAGE => "/stage",
        index::VERB => "/verb",
        index::REQUEST_URI => "/requestURI",
        index::USER_NAME => "/user/username",
        index::USER_GROUPS => "/user/groups",
        index::USER_EXTRA => "/user/extra",
        index::IMPERSONATED_USER_NAME => "/impersonatedUser/username",
        index::IMPERSONATED_USER_GROUPS => "/impersonatedUser/groups",
        index::SOURCE_IPS => "/sourceIPs",
        index::USER_AGENT => "/userAgent",
        index::RESOURCE => "/objectRef/resource",
        index::SUBRESOURCE => "/objectRef/subresource",
        index::NAMESPACE => "/objectRef/namespace",
        index::NAME => "/objectRef/name",
        index::RESPONSE_CODE => "/responseStatus/code",
        index::ANNOTATIONS => "/annotations",
        other => panic!("the rules of this test never read column {other}"),
    }
}

fn at(event: &Value, column: usize) -> Option<Value> {
    let value = match column {
        index::CLUSTER => return Some(json!(CLUSTER)),
        index::AUTHZ_DECISION => event.get("annotations")?.get("authorization.k8s.io/decision")?,
        _ => event.pointer(pointer(column))?,
    };
    (!value.is_null()).then(|| value.clone())
}

/// Returns all values of a field, with `None` wherever a value is absent.
fn values(event: &Value, field: &Field) -> Vec<Option<Value>> {
    let uri = |name: &str| {
        let uri = at(event, index::REQUEST_URI)?;
        query_parameter(uri.as_str()?, name).map(Value::String)
    };
    let below = |value: Option<Value>, path: &Path| {
        let mut found = Vec::new();
        walk::any_at(value.as_ref(), &path.0, &mut |value| {
            found.push(value.cloned());
            false
        });
        found
    };
    match field {
        Field::Column(column) => vec![at(event, *column)],
        Field::Actor => {
            vec![at(event, index::IMPERSONATED_USER_NAME).or_else(|| at(event, index::USER_NAME))]
        }
        Field::Creates => {
            let verb = at(event, index::VERB);
            let code = event.pointer("/responseStatus/code").and_then(Value::as_i64);
            let verb = verb.as_ref().and_then(Value::as_str);
            vec![Some(json!(verb == Some("create") || verb == Some("patch") && code == Some(201)))]
        }
        Field::Removed => {
            let body = at(event, index::REQUEST_OBJECT).and_then(|body| body::examine(&body.to_string()));
            let removed = body.map(|body| body.removes().to_vec()).unwrap_or_default();
            if removed.is_empty() {
                vec![None]
            } else {
                removed.into_iter().map(|place| Some(json!(place))).collect()
            }
        }
        Field::Outcome => {
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
            let answer = Answer {
                stage: text("/stage"),
                response_code: event
                    .pointer("/responseStatus/code")
                    .and_then(Value::as_i64)
                    .map(|code| code as i32),
                response_status: text("/responseStatus/status"),
                authz_decision: text("/annotations/authorization.k8s.io~1decision"),
                resource: text("/objectRef/resource"),
                login_decision: text("/annotations/authentication.openshift.io~1decision"),
            };
            vec![answer.outcome().map(|outcome| json!(outcome.as_str()))]
        }
        Field::DryRun => {
            let text = |column| at(event, column).and_then(|value| value.as_str().map(str::to_owned));
            let group = event.pointer("/objectRef/apiGroup").and_then(Value::as_str);
            let obeys = obeys_dry_run(
                text(index::VERB).as_deref(),
                group,
                text(index::RESOURCE).as_deref(),
                text(index::SUBRESOURCE).as_deref(),
            );
            let asks = text(index::REQUEST_URI).is_some_and(|uri| asks_dry_run(&uri));
            vec![Some(json!(obeys && asks))]
        }
        Field::SourceIp => {
            let addresses = at(event, index::SOURCE_IPS);
            vec![addresses.and_then(|addresses| addresses.as_array()?.last().cloned())]
        }
        Field::List(column) => below(at(event, *column), &Path(vec![])),
        Field::Exec(Exec::Command) => {
            let of_body = || {
                let parts = parsed(event, Body::Request)?.get("command")?.as_array()?.clone();
                let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
                (!parts.is_empty()).then(|| json!(parts.join(" ")))
            };
            let is_exec = at(event, index::SUBRESOURCE) == Some(json!("exec"));
            vec![uri("command").or_else(|| is_exec.then(of_body).flatten())]
        }
        Field::Exec(Exec::Container) => {
            let of_body =
                || parsed(event, Body::Request)?.get("container").filter(|name| name.is_string()).cloned();
            let has_body =
                [json!("exec"), json!("attach")].map(Some).contains(&at(event, index::SUBRESOURCE));
            vec![uri("container").or_else(|| has_body.then(of_body).flatten())]
        }
        Field::Client => {
            let agent = at(event, index::USER_AGENT);
            let agent = agent.as_ref().and_then(Value::as_str).unwrap_or_default();
            let is_part = |c: &char| !matches!(c, '/' | '(') && !c.is_ascii_whitespace();
            let word: String = agent.trim_ascii_start().chars().take_while(is_part).collect();
            vec![(!word.is_empty()).then(|| json!(word))]
        }
        Field::Json(column, path) => below(at(event, *column), path),
        Field::Body(body, path) => below(parsed(event, *body), path),
        Field::Pod(path) => {
            let resource = at(event, index::RESOURCE);
            let body = parsed(event, Body::Request);
            let pod = Pod::of(resource.as_ref().and_then(Value::as_str).unwrap_or_default(), body.as_ref());
            let mut found = Vec::new();
            pod.any_at(&path.0, &mut |value| {
                found.push(value.cloned());
                false
            });
            found
        }
        other => panic!("the rules of this test never read {other:?}"),
    }
}

fn parsed(event: &Value, body: Body) -> Option<Value> {
    let key = match body {
        Body::Request => "requestObject",
        Body::Response => "responseObject",
    };
    body::examine(&event.get(key)?.to_string()).map(|examined| examined.value)
}

fn is_true(expr: &Expr, event: &Value) -> bool {
    match expr {
        Expr::All(exprs) => exprs.iter().all(|expr| is_true(expr, event)),
        Expr::Any(exprs) => exprs.iter().any(|expr| is_true(expr, event)),
        Expr::Not(expr) => !is_true(expr, event),
        Expr::Field(field, test) => {
            values(event, field).iter().any(|value| test.matches_json(value.as_ref()))
        }
        Expr::Fields(left, comparison, right) => {
            let texts = |field| {
                let mut texts = Vec::new();
                for value in values(event, field).into_iter().flatten() {
                    let mut text = String::new();
                    if scalar_text(&value, &mut text) {
                        texts.push(fold(&text));
                    }
                }
                texts
            };
            let rights = texts(right);
            texts(left).iter().any(|left| {
                rights.iter().any(|right| match comparison {
                    Comparison::Equals => left == right,
                    Comparison::Contains => left.contains(right.as_str()),
                    Comparison::StartsWith => left.starts_with(right.as_str()),
                    Comparison::EndsWith => left.ends_with(right.as_str()),
                })
            })
        }
        Expr::Scope(field, quantifier, inner) => {
            let holder = match field {
                Field::List(column) => at(event, *column),
                Field::Body(body, path) => parsed(event, *body)
                    .and_then(|body| path.0.iter().try_fold(body, |value, key| value.get(key).cloned())),
                other => panic!("the rules of this test have no scope over {other:?}"),
            };
            let items = holder.and_then(|holder| holder.as_array().cloned()).unwrap_or_default();
            let mut answers = items.iter().map(|item| element_is_true(inner, item));
            match quantifier {
                Quantifier::Any => answers.any(|answer| answer),
                Quantifier::All => !items.is_empty() && answers.all(|answer| answer),
                Quantifier::AllOrEmpty => answers.all(|answer| answer),
                Quantifier::None => !answers.any(|answer| answer),
            }
        }
        Expr::Keyword(test) => {
            // A keyword is searched for in all columns but the times. Every member of these events
            // has a column.
            let mut event = event.clone();
            event["stageTimestamp"].take();
            event["requestReceivedTimestamp"].take();
            walk::any_text(&event, &mut |value| test.matches_json(Some(value)))
        }
    }
}

fn element_is_true(expr: &Expr, item: &Value) -> bool {
    match expr {
        Expr::All(exprs) => exprs.iter().all(|expr| element_is_true(expr, item)),
        Expr::Any(exprs) => exprs.iter().any(|expr| element_is_true(expr, item)),
        Expr::Not(expr) => !element_is_true(expr, item),
        Expr::Field(Field::Element(path), test) => {
            walk::any_at(Some(item), &path.0, &mut |value| test.matches_json(value))
        }
        other => panic!("no scope of the test has {other:?}"),
    }
}

const LINES: &[&str] = &[
    "verb: get",
    "verb: [create, patch]",
    "verb|neq: get",
    "objectRef.resource: pods",
    "objectRef.resource: [secrets, configmaps]",
    "objectRef.resource|startswith: se",
    "objectRef.resource: null",
    "objectRef.subresource: exec",
    "objectRef.subresource: null",
    "objectRef.namespace: kube-system",
    "objectRef.namespace|exists: false",
    "objectRef.name|contains: a",
    "user.username: alice",
    "user.username|endswith: ob",
    "user.username|startswith: 'system:'",
    "impersonatedUser.username|exists: true",
    "impersonatedUser.username: alice",
    "impersonatedUser.groups: dev",
    "actor: bob",
    "actor|re: '^a'",
    "actor|fieldref: user.username",
    "source_ip|cidr: 10.0.0.0/8",
    "sourceIPs|cidr: 10.0.0.0/8",
    "sourceIPs[all]|cidr: 10.0.0.0/8",
    "user.groups: system:masters",
    "user.groups: null",
    "user.groups[none]|startswith: 'system:'",
    "userAgent|contains: [curl, wget, python, go-http]",
    "client: kubectl",
    "client: null",
    "responseStatus.code: 403",
    "responseStatus.code|gte: 400",
    "responseStatus.code: null",
    "responseStatus.code: '4*'",
    "authz.decision: forbid",
    "outcome: success",
    "outcome: [failure, unknown]",
    "outcome: null",
    "outcome|neq: success",
    "dry_run: true",
    "dry_run: false",
    "annotations.a.b/c: x",
    "user.extra.scopes: b",
    "stage: ResponseStarted",
    "stage|neq: RequestReceived",
    "exec.command|contains: shadow",
    "exec.container: web",
    "exec.container: null",
    "requestObject.kind: Pod",
    "requestObject.rules.verbs: '\\*'",
    "requestObject.rules[any]: {verbs: '\\*', resources: secrets}",
    "requestObject.rules[all]: {verbs: get}",
    "requestObject.rules[none]: {resources: secrets}",
    "responseObject.kind|exists: true",
    "pod.hostNetwork: true",
    "pod.containers.image|contains: evil",
    "pod.containers.securityContext: null",
    "'|contains': evil",
    "cluster: test",
];

const CONDITIONS: &[&str] = &[
    "a",
    "not a",
    "a and b",
    "a or b",
    "a and not b",
    "not (a or b)",
    "1 of them",
    "all of them",
    "a and (b or c)",
    "c or not a and b",
    "not (a and not b) or c",
];

fn rule() -> impl Strategy<Value = String> {
    let selection = || proptest::sample::subsequence(LINES, 1..4);
    (selection(), selection(), selection(), proptest::sample::select(CONDITIONS)).prop_map(
        |(a, b, c, condition)| {
            let mut yaml = String::from("logsource: {product: kubernetes, service: audit}\ndetection:\n");
            for (name, lines) in [("a", a), ("b", b), ("c", c)] {
                yaml.push_str(&format!("  {name}:\n"));
                let mut keys = Vec::new();
                for line in lines {
                    let key = line.split(": ").next();
                    if !keys.contains(&key) {
                        keys.push(key);
                        yaml.push_str(&format!("    {line}\n"));
                    }
                }
            }
            yaml.push_str(&format!("  condition: {condition}\n"));
            yaml
        },
    )
}

fn rules(count: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    proptest::collection::vec(rule(), count).prop_map(|rules| {
        let documents =
            rules.iter().enumerate().map(|(at, rule)| format!("title: r{at}\nname: r{at}\n{rule}"));
        documents.collect::<Vec<_>>().join("---\n")
    })
}

fn event() -> impl Strategy<Value = Value> {
    let of = |values: &'static [Value]| proptest::sample::select(values);
    fn choices(values: Vec<Value>) -> &'static [Value] {
        Box::leak(values.into_boxed_slice())
    }
    let body = choices(vec![
        Value::Null,
        json!({"kind": "Pod", "spec": {"hostNetwork": true, "containers": [{"image": "web"}]}}),
        json!({"kind": "Pod", "spec": {"containers": [{"image": "evil", "securityContext": {}}]}}),
        json!({"spec": {"template": {"spec": {"containers": [{"image": "EVIL:1"}]}}}}),
        json!({"rules": [{"verbs": ["*"], "resources": ["pods"]}, {"verbs": ["get"], "resources": ["secrets"]}]}),
        json!({"rules": [{"verbs": ["get", "*"], "resources": ["secrets"]}]}),
        json!({"rules": []}),
        json!({"command": ["cat", "/etc/shadow"], "container": "web"}),
        json!([{"op": "add", "path": "/spec/hostNetwork", "value": true}]),
    ]);
    (
        of(choices(vec![json!("get"), json!("create"), json!("patch"), Value::Null])),
        of(choices(vec![
            Value::Null,
            json!({"resource": "pods", "namespace": "kube-system", "name": "a"}),
            json!({"resource": "pods", "subresource": "exec", "namespace": "web", "name": "b"}),
            json!({"resource": "secrets"}),
            json!({"resource": "configmaps", "name": "Äa"}),
            json!({"resource": "deployments", "namespace": "web"}),
        ])),
        of(choices(vec![
            json!({}),
            json!({"username": "alice", "groups": ["system:masters", "dev"]}),
            json!({"username": "bob", "groups": [], "extra": {"scopes": ["a", "b"]}}),
            json!({"username": "system:anonymous", "groups": ["dev"]}),
        ])),
        of(choices(vec![
            Value::Null,
            Value::Null,
            json!({"username": "bob"}),
            json!({"username": "alice", "groups": ["dev", "ops"]}),
            json!({"username": "carol", "groups": ["ops"]}),
        ])),
        of(choices(vec![
            Value::Null,
            json!([]),
            json!(["10.0.0.1"]),
            json!(["10.0.0.1", "8.8.8.8"]),
            json!(["8.8.8.8", "10.0.0.1"]),
        ])),
        of(choices(vec![Value::Null, json!("curl/8"), json!("kubectl/v1 evil"), json!(" (x)")])),
        of(choices(vec![
            Value::Null,
            json!({"code": 200}),
            json!({"code": 403}),
            json!({"code": 101}),
            json!({"code": 0, "status": "Failure"}),
        ])),
        of(choices(vec![
            Value::Null,
            json!({"authorization.k8s.io/decision": "forbid", "a.b/c": "x"}),
            json!({"authorization.k8s.io/decision": "allow"}),
            json!({"authentication.openshift.io/decision": "deny"}),
        ])),
        of(body),
        (
            of(choices(vec![
                json!("RequestReceived"),
                json!("ResponseStarted"),
                json!("ResponseComplete"),
                Value::Null,
            ])),
            of(choices(vec![
                Value::Null,
                json!("/exec?command=cat&command=%2Fetc%2Fshadow"),
                json!("/exec?container=web"),
                json!("/api?dryRun=All"),
            ])),
            of(choices(vec![Value::Null, json!({"kind": "Table"})])),
        ),
    )
        .prop_map(
            |(
                verb,
                object,
                user,
                impersonated,
                addresses,
                agent,
                status,
                annotations,
                body,
                (stage, uri, response),
            )| {
                json!({
                    "verb": verb, "objectRef": object, "user": user, "impersonatedUser": impersonated,
                    "sourceIPs": addresses, "userAgent": agent, "responseStatus": status,
                    "annotations": annotations, "requestObject": body, "stage": stage, "requestURI": uri,
                    "responseObject": response,
                })
            },
        )
}

fn timed(mut event: Value, at: usize, second: u32) -> String {
    let time = format!("2026-03-02T10:{:02}:{:02}.000000Z", second / 60, second % 60);
    event["auditID"] = json!(format!("id-{at}"));
    event["requestReceivedTimestamp"] = json!(time);
    event["stageTimestamp"] = json!(time);
    event.to_string()
}

const COUNTED: &str = "
---
title: events
correlation: {type: event_count, rules: [r0, r1], group-by: actor, timespan: 1m, condition: {gte: 2}}
name: c0
---
title: values
correlation: {type: value_count, rules: [r1, r2], group-by: [objectRef.namespace, verb], timespan: 2m, generate: true, condition: {field: [user.username, source_ip], gt: 1}}
name: c1
---
title: all
correlation: {type: event_count, rules: r3, timespan: 5m, condition: {gte: 3}}
name: c2
---
title: few
correlation: {type: event_count, rules: r2, group-by: verb, timespan: 1m, condition: {lte: 2, gte: 1}}
name: c3
";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_matcher_agrees_with_the_oracle(yaml in rules(1..12), events in proptest::collection::vec(event(), 1..40)) {
        agrees(&yaml, &events)?;
    }

    /// The alerts of a stream are the same wherever it is cut into batches.
    #[test]
    fn batches_may_be_cut_anywhere(
        yaml in rules(4..6),
        events in proptest::collection::vec((event(), 0_u32..600), 1..60),
        mut cuts in proptest::collection::vec(0_usize..60, 0..6),
    ) {
        let rules = RuleSet::from_yaml("r.yml", &format!("{yaml}{COUNTED}"));
        let rules = Arc::new(rules.unwrap_or_else(|error| panic!("{error}\n{yaml}")));
        let lines: Vec<String> =
            events.into_iter().enumerate().map(|(at, (event, second))| timed(event, at, second)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let all = batch_of(&lines);
        let alerts = |batches: &[(usize, usize)]| {
            let mut detector = Detector::new(Arc::clone(&rules), DetectorConfig::default());
            let mut matcher = Matcher::new(Arc::clone(&rules));
            let mut alerts = Vec::new();
            for (from, to) in batches {
                let batch = all.slice(*from, to - from);
                alerts.extend(detector.observe(matcher.match_batch(&batch).unwrap()));
            }
            // The rule c3 is judged when its windows close, so its alerts may come at other
            // positions. They are compared after all others.
            let (mut alerts, closed): (Vec<_>, Vec<_>) = alerts.into_iter().partition(|alert| alert.rule_name != "c3");
            alerts.extend(closed);
            alerts
        };
        let whole = alerts(&[(0, lines.len())]);
        cuts.push(0);
        cuts.push(lines.len());
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(lines.len()));
        cuts.sort_unstable();
        let pieces: Vec<(usize, usize)> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
        prop_assert_eq!(&alerts(&pieces), &whole);
        let mut ids: Vec<&str> = whole.iter().map(|alert| alert.alert_id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), whole.len(), "ids are distinct");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Even more rules than fit in one mask give the oracle's results.
    #[test]
    fn many_rules_agree_with_the_oracle(yaml in rules(129..300), events in proptest::collection::vec(event(), 1..30)) {
        agrees(&yaml, &events)?;
    }
}

fn agrees(yaml: &str, events: &[Value]) -> Result<(), TestCaseError> {
    let rules = RuleSet::from_yaml("r.yml", yaml);
    let rules = Arc::new(rules.unwrap_or_else(|error| panic!("{error}\n{yaml}")));
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut expected = Vec::new();
    for (row, event) in events.iter().enumerate() {
        let true_rules = rules.events.iter().filter(|rule| is_true(&rule.condition, event));
        expected.extend(true_rules.map(|rule| (row, rule.info)));
    }
    let mut matcher = Matcher::new(Arc::clone(&rules));
    let may = matcher.may_match(&file_batch_of(&lines)).unwrap();
    prop_assert!(expected.iter().all(|(row, _)| may.value(*row)), "{}", yaml);
    for batch in [batch_of(&lines), file_batch_of(&lines), view_batch_of(&lines), batch_of(&lines)] {
        let found: Vec<_> = matcher.match_batch(&batch).unwrap().matched().collect();
        prop_assert_eq!(&found, &expected, "{}", yaml);
    }
    Ok(())
}
