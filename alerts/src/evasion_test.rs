//! Three attacks by somebody who took over an account, in every known disguise, and the alerts that
//! each disguise raises.
//!
//! Goal: an attack raises an alert however it is carried out, and in whatever form its events are
//! logged. Method: the events of each attack are written once for each series of requests that has
//! the same effect, and once in each form that a log may have. Each of these variants is decoded,
//! matched and detected like a log of its own. The table of the alerts is compared with the one in
//! `docs/evasions.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use strongroom_decode::decode_bytes;
use strongroom_generate::dialect::{self, Dialect};
use strongroom_schemas::Severity;

use crate::{Detector, DetectorConfig, Matcher, RuleSet, own};

const ACTS: [&str; 3] = ["privileged pod", "bulk Secret read", "cluster-admin"];

/// For each attack, the alerts that say what was done. Each form of the attack's event must raise
/// one of them. A form in [`BLIND`] raises another alert instead, which says that the event does
/// not show what was done.
const TOLD_BY: [&[&str]; 3] =
    [&["privileged-container"], &["secrets-listed-cluster-wide"], &["rbac-cluster-admin-binding"]];

/// Forms of an event that do not show what was done.
const BLIND: &[&str] = &[
    "cut off after its verb",
    "glued to a torn line",
    "cut off in its body",
    "body nested too deeply",
    "body truncated by the API server",
    "level Metadata",
    "object of another type",
    "with a certificate of the API server's name",
    "with a certificate of a controller's name",
];

/// An event, in the order of kube-apiserver.
#[derive(Clone)]
struct Event {
    at: usize,
    level: &'static str,
    stage: &'static str,
    verb: &'static str,
    uri: String,
    user: String,
    agent: String,
    object: String,
    status: String,
    request: Option<String>,
    response: Option<String>,
    annotations: String,
    /// Members after all others, each with a comma before it.
    more: String,
}

const LENA: &str =
    r#"{"username":"lena.hofer@clinic.example","groups":["clinic:developers","system:authenticated"]}"#;

impl Event {
    /// Returns a request for the object that `place` names in the form
    /// `[namespace:]resource[.group][/name[/subresource]]`, such as `shop:deployments.apps`.
    fn new(verb: &'static str, place: &str) -> Event {
        let (namespace, rest) = place.split_once(':').map_or((None, place), |(at, rest)| (Some(at), rest));
        let mut parts = rest.splitn(3, '/');
        let kind = parts.next().unwrap_or_default();
        let (name, subresource) = (parts.next(), parts.next());
        let (resource, group) =
            kind.split_once('.').map_or((kind, None), |(resource, group)| (resource, Some(group)));
        let mut uri = group.map_or("/api/v1".to_owned(), |group| format!("/apis/{group}/v1"));
        let mut object = format!(r#"{{"resource":"{resource}""#);
        if let Some(namespace) = namespace {
            if resource != "namespaces" {
                write!(uri, "/namespaces/{namespace}").expect("a string");
            }
            write!(object, r#","namespace":"{namespace}""#).expect("a string");
        }
        write!(uri, "/{resource}").expect("a string");
        if let Some(name) = name {
            if verb != "create" || subresource.is_some() {
                write!(uri, "/{name}").expect("a string");
            }
            write!(object, r#","name":"{name}""#).expect("a string");
        }
        if let Some(group) = group {
            write!(object, r#","apiGroup":"{group}""#).expect("a string");
        }
        object.push_str(r#","apiVersion":"v1""#);
        if let Some(subresource) = subresource {
            write!(uri, "/{subresource}").expect("a string");
            write!(object, r#","subresource":"{subresource}""#).expect("a string");
        }
        object.push('}');
        let code = if verb == "create" { 201 } else { 200 };
        Event {
            at: 0,
            level: "Request",
            stage: "ResponseComplete",
            verb,
            uri,
            user: LENA.to_owned(),
            agent: "kubectl/v1.33.4 (linux/amd64) kubernetes/74cdb42".to_owned(),
            object,
            status: format!(r#"{{"metadata":{{}},"code":{code}}}"#),
            request: None,
            response: None,
            annotations: r#"{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}"#
                .to_owned(),
            more: String::new(),
        }
    }

    fn body(mut self, body: impl ToString) -> Event {
        self.request = Some(body.to_string());
        self
    }

    fn result(mut self, body: impl ToString) -> Event {
        self.level = "RequestResponse";
        self.response = Some(body.to_string());
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Event)) -> Event {
        change(&mut self);
        self
    }

    fn line(&self) -> String {
        let Event { at, level, stage, verb, uri, user, agent, object, status, annotations, more, .. } = self;
        let body = |name: &str, body: &Option<String>| {
            body.as_ref().map(|body| format!(r#","{name}":{body}"#)).unwrap_or_default()
        };
        let (request, response) =
            (body("requestObject", &self.request), body("responseObject", &self.response));
        let second = at % 60;
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level}","auditID":"7a0c2d51-33bb-4f0c-8e11-{at:012}","stage":"{stage}","requestURI":"{uri}","verb":"{verb}","user":{user},"sourceIPs":["10.20.4.17"],"userAgent":"{agent}","objectRef":{object},"responseStatus":{status}{request}{response},"requestReceivedTimestamp":"2026-03-02T09:14:{second:02}.000000Z","stageTimestamp":"2026-03-02T09:14:{second:02}.010000Z","annotations":{annotations}{more}}}"#
        )
    }
}

fn numbered(events: impl IntoIterator<Item = Event>) -> Vec<String> {
    events.into_iter().enumerate().map(|(at, event)| Event { at, ..event }.line()).collect()
}

fn pod_spec() -> serde_json::Value {
    json!({"containers": [{"name": "web", "image": "registry.clinic.example/web:1",
        "securityContext": {"privileged": true}}]})
}

fn pod() -> serde_json::Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web"}, "spec": pod_spec()})
}

fn workload(path: &str) -> serde_json::Value {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()});
    path.split('.').rev().fold(template, |inner, key| json!({ key: inner }))
}

fn binding() -> serde_json::Value {
    json!({"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "reporting"}, "subjects": [tomasz()], "roleRef": role_ref()})
}

fn tomasz() -> serde_json::Value {
    json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "tomasz.wrona@clinic.example"})
}

fn role_ref() -> serde_json::Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"})
}

const DEPLOYMENT: &str = "shop:deployments.apps/web";
const BINDING: &str = "clusterrolebindings.rbac.authorization.k8s.io/reporting";
const ROLE: &str = "clusterroles.rbac.authorization.k8s.io/reporting";
const CONTAINER: &str = "/spec/template/spec/containers/0";

/// Returns the events of each attack, as kubectl sends them.
fn plain() -> [Event; 3] {
    [
        Event::new("create", "shop:pods/web").body(pod()),
        Event::new("list", "secrets").with(|event| event.level = "Metadata"),
        Event::new("create", BINDING).body(binding()),
    ]
}

/// Returns requests for twenty Secrets, one after the other.
fn each_secret(event: impl Fn(String) -> Event) -> Vec<Event> {
    (0..20).map(|at| event(format!("shop:secrets/s{at}")).with(|event| event.level = "Metadata")).collect()
}

fn patch(operation: &str, path: &str, value: serde_json::Value) -> serde_json::Value {
    json!([{"op": operation, "path": path, "value": value}])
}

/// Returns other series of requests that have the same effects as the attacks.
fn ways() -> Vec<(&'static str, [Vec<Event>; 3])> {
    let [pod_made, secrets, bound] = plain();
    let list = |place: &str, query: &str| {
        let query = query.to_owned();
        Event::new("list", place).with(move |event| {
            event.level = "Metadata";
            event.uri += &query;
        })
    };
    let container = json!({"securityContext": {"privileged": true}, "name": "x"});
    let strategic = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    let on_pods = |body: serde_json::Value| vec![Event::new("patch", DEPLOYMENT).body(body)];
    let on_binding = |body: serde_json::Value| vec![Event::new("patch", BINDING).body(body)];
    let applied = |event: Event| {
        event.with(|event| {
            event.verb = "patch";
            event.uri += "?fieldManager=kubectl&force=true";
        })
    };
    let wide = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    let role = |rules: serde_json::Value| json!({"kind": "ClusterRole", "metadata": {"name": "reporting"}, "rules": [rules]});
    let copied = |from: &str, path: &str, value: serde_json::Value| json!([{"op": "add", "path": from, "value": value}, {"op": "copy", "from": from, "path": path}]);
    let stored = |path: &str| json!([{"op": "copy", "from": "/metadata/annotations/x", "path": path}]);
    let account = r#"{"username":"system:serviceaccount:ci:runner","groups":["system:serviceaccounts"]}"#;
    vec![
        ("as kubectl sends it", [vec![pod_made.clone()], vec![secrets.clone()], vec![bound.clone()]]),
        (
            "by PUT; by GET of each",
            [
                vec![Event::new("update", DEPLOYMENT).body(workload("spec.template"))],
                each_secret(|place| Event::new("get", &place)),
                vec![Event::new("update", BINDING).body(binding())],
            ],
        ),
        (
            "by strategic merge patch",
            [
                on_pods(strategic.clone()),
                each_secret(|place| Event::new("patch", &place)),
                on_binding(json!({"subjects": [tomasz()]})),
            ],
        ),
        (
            "by JSON patch of an item; by dry run",
            [
                on_pods(patch("add", "/spec/template/spec/containers/-", container.clone())),
                each_secret(|place| Event::new("patch", &place).with(|event| event.uri += "?dryRun=All")),
                on_binding(patch("add", "/subjects/-", tomasz())),
            ],
        ),
        (
            "by JSON patch of a member",
            [
                on_pods(patch("add", &format!("{CONTAINER}/securityContext/privileged"), json!(true))),
                vec![list("secrets", "?fieldSelector=metadata.namespace%21%3Dx")],
                on_binding(patch("replace", "/subjects/0/name", json!("tomasz.wrona@clinic.example"))),
            ],
        ),
        (
            "by JSON patch that copies its own value",
            [
                on_pods(copied(
                    "/metadata/annotations",
                    &format!("{CONTAINER}/securityContext"),
                    json!({"privileged": true}),
                )),
                vec![list("secrets", "?limit=1&continue=abc")],
                on_binding(copied("/metadata/annotations", "/subjects/0", tomasz())),
            ],
        ),
        (
            "by JSON patch that copies a stored value",
            [
                on_pods(stored(&format!("{CONTAINER}/securityContext"))),
                vec![list("secrets", "?resourceVersion=0")],
                on_binding(stored("/subjects/0")),
            ],
        ),
        (
            "by a patch whose result is in the event",
            [
                vec![
                    Event::new("patch", DEPLOYMENT)
                        .body(stored(&format!("{CONTAINER}/securityContext")))
                        .result(json!({"metadata": {}, "spec": {"template": {"spec": pod_spec()}}})),
                ],
                vec![Event::new("watch", "secrets").with(|event| event.uri += "?watch=true")],
                vec![
                    Event::new("patch", BINDING)
                        .body(patch("add", "/subjects/-", tomasz()))
                        .result(binding()),
                ],
            ],
        ),
        (
            "by apply",
            [
                vec![applied(pod_made.clone())],
                vec![
                    Event::new("watch", "secrets")
                        .with(|event| event.uri = "/api/v1/watch/secrets".to_owned()),
                ],
                vec![applied(bound.clone())],
            ],
        ),
        (
            "with a name from the API server; by list of each namespace",
            [
                vec![Event::new("create", "shop:pods").body(pod())],
                (0..10).map(|at| list(&format!("n{at}:secrets"), "")).collect(),
                vec![Event::new("create", "clusterrolebindings.rbac.authorization.k8s.io").body(binding())],
            ],
        ),
        (
            "in a CronJob; in kube-system",
            [
                vec![
                    Event::new("create", "shop:cronjobs.batch/web")
                        .body(workload("spec.jobTemplate.spec.template")),
                ],
                vec![list("kube-system:secrets", "")],
                vec![
                    Event::new("create", "kube-system:rolebindings.rbac.authorization.k8s.io/r")
                        .body(binding()),
                ],
            ],
        ),
        (
            "in a ReplicationController; by deletion that is a dry run; by a wide role",
            [
                vec![Event::new("create", "shop:replicationcontrollers/web").body(workload("spec.template"))],
                vec![Event::new("deletecollection", "shop:secrets").with(|event| event.uri += "?dryRun=All")],
                vec![Event::new("create", ROLE).body(role(wide.clone()))],
            ],
        ),
        (
            "in a StatefulSet; by a program's name; by one verb of a role",
            [
                vec![Event::new("create", "shop:statefulsets.apps/web").body(workload("spec.template"))],
                vec![secrets.clone().with(|event| event.agent = "kubelet/v1.33.4".to_owned())],
                vec![Event::new("patch", ROLE).body(patch("add", "/rules/0/verbs/-", json!("*")))],
            ],
        ),
        (
            "in a PodTemplate; by a service account's tool; by one group of a role",
            [
                vec![Event::new("create", "shop:podtemplates/web").body(workload("template"))],
                vec![secrets.clone().with(|event| event.user = account.to_owned())],
                vec![Event::new("patch", ROLE).body(patch("replace", "/rules/0/apiGroups/0", json!("*")))],
            ],
        ),
        (
            "in a Rollout; through a proxied service; by a role that binds",
            [
                vec![Event::new("create", "shop:rollouts.argoproj.io/web").body(workload("spec.template"))],
                vec![
                    Event::new("get", "default:services/https:kubernetes:443/proxy")
                        .with(|event| event.uri += "/api/v1/secrets"),
                ],
                vec![Event::new("create", ROLE).body(role(json!({
                "verbs": ["bind", "escalate"], "apiGroups": ["rbac.authorization.k8s.io"],
                "resources": ["clusterroles"]})))],
            ],
        ),
        (
            "in an ephemeral container; from inside a pod; by impersonation",
            [
                vec![
                    Event::new("patch", "shop:pods/web/ephemeralcontainers")
                        .body(json!({"spec": {"ephemeralContainers": [container.clone()]}})),
                ],
                vec![Event::new("create", "shop:pods/web/exec").with(|event| {
                    event.uri += "?command=cat&command=/var/run/secrets/kubernetes.io/serviceaccount/token";
                })],
                vec![secrets.clone().with(|event| {
                    event.user += r#","impersonatedUser":{"username":"x","groups":["system:masters"]}"#;
                })],
            ],
        ),
        (
            "in an init container; by a token of another account; by a certificate",
            [
                vec![Event::new("create", "shop:pods/web").body(json!({"spec": {
                "containers": [{"name": "a"}], "initContainers": [container.clone()]}}))],
                vec![
                    Event::new("create", "kube-system:serviceaccounts/admin/token").body(json!({"spec": {}})),
                ],
                vec![Event::new("create", "certificatesigningrequests.certificates.k8s.io/x").body(
                    json!({"spec": {"signerName": "kubernetes.io/kube-apiserver-client", "request": "x"}}),
                )],
            ],
        ),
        (
            "by the account of an operator; through the kubelet; by a label",
            [
                vec![pod_made.clone().with(|event| event.user = account.to_owned())],
                vec![Event::new("get", "nodes/n1/proxy").with(|event| event.uri += "/run/kube-system/x/y")],
                vec![
                    Event::new("create", ROLE)
                        .body(json!({"kind": "ClusterRole", "metadata": {"name": "reporting",
                "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}, "rules": [wide]})),
                ],
            ],
        ),
    ]
}

/// Returns the forms that a log may have for an attack's event, each as the bytes of that log.
fn forms(event: &Event) -> Vec<(&'static str, Vec<u8>)> {
    let line = event.line();
    let changed = |change: &dyn Fn(&mut Event)| event.clone().with(|event| change(event)).line().into_bytes();
    let replaced = |from: &str, to: &str| {
        assert!(line.contains(from), "{from} is not in {line}");
        line.replace(from, to).into_bytes()
    };
    let own = event.request.clone().unwrap_or_else(|| "{}".to_owned());
    let object = own.strip_prefix('{').expect("an object").to_owned();
    let comma = if object == "}" { "" } else { "," };
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    let member = |member: &str| changed(&|event| event.request = Some(format!("{{{member}{comma}{object}")));
    let sorted: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let escaped: String = line
        .replace("privileged", "\\u0070rivileged")
        .replace("secrets", "\\u0073ecrets")
        .replace("cluster-admin", "cluster\\u002dadmin");
    let at = |text: &str| line.find(text).expect("a member") + text.len();
    let mut forms = vec![
        ("members in another order", sorted.to_string().into_bytes()),
        ("names and values in escapes", escaped.into_bytes()),
        ("a lone surrogate in its body", member(r#""metadata":{"annotations":{"x":"\ud800"}}"#)),
        ("a number beyond every type in its body", member(r#""n":1e999"#)),
        ("a member twice in its body", member(r#""spec":{},"roleRef":{},"subjects":[]"#)),
        ("body nested too deeply", member(&format!(r#""x":{deep}"#))),
        (
            "a member nested too deeply beside its body",
            changed(&|event| event.more = format!(r#","x":{deep}"#)),
        ),
        ("padded by a megabyte", member(&format!(r#""pad":"{}""#, "\\u003c".repeat(1 << 18)))),
        (
            "body truncated by the API server",
            changed(&|event| {
                event.request = None;
                event.annotations = r#"{"audit.k8s.io/truncated":"true"}"#.to_owned();
            }),
        ),
        (
            "level Metadata",
            changed(&|event| {
                event.request = None;
                event.level = "Metadata";
            }),
        ),
        ("without level", replaced(&format!(r#""level":"{}","#, event.level), "")),
        ("without stage", replaced(r#""stage":"ResponseComplete","#, "")),
        ("stage ResponseStarted", changed(&|event| event.stage = "ResponseStarted")),
        ("without a code", changed(&|event| event.status = r#"{"metadata":{}}"#.to_owned())),
        (
            "without a code and a decision",
            changed(&|event| {
                event.status = r#"{"metadata":{}}"#.to_owned();
                event.annotations = "{}".to_owned();
            }),
        ),
        ("without audit id", replaced(r#""auditID":"7a0c2d51-33bb-4f0c-8e11-000000000000","#, "")),
        ("without times", {
            let text = line.replace(r#","requestReceivedTimestamp":"2026-03-02T09:14:00.000000Z""#, "");
            text.replace(r#","stageTimestamp":"2026-03-02T09:14:00.010000Z""#, "").into_bytes()
        }),
        ("in the year 9999", replaced("2026-03-02T09:14:00", "9999-12-31T09:14:00")),
        ("with the audit id of another request", {
            let other = Event::new("get", "shop:configmaps/x").line();
            format!("{other}\n{line}").into_bytes()
        }),
        ("sent twice", format!("{line}\n{line}").into_bytes()),
        ("object of another type", changed(&|event| event.object = "[1]".to_owned())),
        (
            "with addresses that the client made up",
            replaced(r#"["10.20.4.17"]"#, r#"["127.0.0.1","::1","10.20.4.17"]"#),
        ),
        ("without a user agent", replaced(&format!(r#""userAgent":"{}","#, event.agent), "")),
        (
            "with the user agent of a controller",
            changed(&|event| {
                event.agent =
                    "kube-controller-manager/v1.33.4 system:serviceaccount:kube-system:x".to_owned();
            }),
        ),
        (
            "impersonating the controller manager",
            changed(&|event| {
                event.user += r#","impersonatedUser":{"username":"system:kube-controller-manager"}"#;
            }),
        ),
        (
            "impersonating the API server",
            changed(&|event| {
                event.user += r#","impersonatedUser":{"username":"system:apiserver"}"#;
            }),
        ),
        (
            "with a certificate of the API server's name",
            changed(&|event| {
                event.user =
                    r#"{"username":"system:apiserver","groups":["system:authenticated"]}"#.to_owned();
            }),
        ),
        (
            "with a certificate of a controller's name",
            changed(&|event| {
                event.user = r#"{"username":"system:kube-controller-manager"}"#.to_owned();
            }),
        ),
        (
            "by a user with almost the name of the API server",
            changed(&|event| {
                event.user = r#"{"username":"system:apiserver "}"#.to_owned();
            }),
        ),
        ("after a byte order mark, with CRLF", format!("\u{feff}{line}\r\n").into_bytes()),
        ("glued to a torn line", format!("{}{line}", &line[..at(r#""verb":""#)]).into_bytes()),
        ("after a megabyte of blanks", format!("{}{line}", " ".repeat(1 << 20)).into_bytes()),
        ("cut off after its verb", line[..at(&format!(r#""verb":"{}""#, event.verb)) + 1].into()),
        (
            "cut off in its body",
            match line.find(r#""requestObject""#) {
                Some(body) => line[..body + 40].into(),
                None => line[..at(r#""responseStatus":"#)].into(),
            },
        ),
    ];
    for dialect in Dialect::ALL {
        let mut text = Vec::new();
        dialect::render(&line, dialect, &mut text).unwrap_or_else(|error| panic!("{error}"));
        forms.push((dialect.name(), text));
    }
    forms
}

struct Runner {
    rules: Arc<RuleSet>,
    matcher: Matcher,
}

impl Runner {
    /// Returns the rules that alert about a log, with their levels, the gravest first.
    fn alerts(&mut self, log: &[u8]) -> Vec<(Severity, String)> {
        let decoded = decode_bytes(log, "clinic", "test/evasions").expect("a block");
        if decoded.events.num_rows() == 0 {
            let rejected = own::records_rejected(&BTreeMap::new(), 0, 0);
            return vec![
                (rejected.severity, rejected.rule_name);
                usize::from(decoded.rejects.num_rows() > 0)
            ];
        }
        let matches = self.matcher.match_batch(&decoded.events).expect("a batch");
        let mut detector = Detector::new(Arc::clone(&self.rules), DetectorConfig::default());
        let alerts: BTreeSet<_> =
            detector.observe(matches).into_iter().map(|alert| (alert.severity, alert.rule_name)).collect();
        let mut alerts: Vec<_> = alerts.into_iter().collect();
        alerts.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.cmp(&right.1)));
        alerts
    }
}

/// Number of alerts that a cell of the table shows.
const SHOWN_MAX: usize = 2;

fn cell(alerts: &[(Severity, String)]) -> String {
    let shown = alerts.iter().take(SHOWN_MAX).map(|(level, rule)| format!("{rule} ({level})"));
    shown.collect::<Vec<_>>().join(", ")
}

#[test]
fn no_disguise_is_without_an_alert() {
    let rules = Arc::new(RuleSet::builtin().unwrap_or_else(|error| panic!("built-in rules: {error}")));
    let mut runner = Runner { matcher: Matcher::new(Arc::clone(&rules)), rules };
    let mut faults = Vec::new();
    let mut table = format!("| disguise | {} |\n|---|---|---|---|\n", ACTS.join(" | "));
    let mut rows = 0;
    let mut row = |name: &str, cells: [Vec<(Severity, String)>; 3], faults: &mut Vec<String>| {
        rows += 1;
        for (cell, act) in cells.iter().zip(ACTS) {
            if cell.iter().all(|(level, _)| *level <= Severity::Informational) {
                faults.push(format!("{name}, {act}: {cell:?}"));
            }
        }
        writeln!(table, "| {name} | {} |", cells.map(|alerts| cell(&alerts)).join(" | ")).expect("a string");
    };
    for (name, acts) in ways() {
        let cells = acts.map(|events| runner.alerts(numbered(events).join("\n").as_bytes()));
        row(name, cells, &mut faults);
    }
    let [pods, secrets, admin] = plain().map(|event| forms(&event));
    for ((pod, secret), admin) in pods.into_iter().zip(secrets).zip(admin) {
        let name = pod.0;
        let cells = [pod.1, secret.1, admin.1].map(|log| runner.alerts(&log));
        for ((alerts, told_by), act) in cells.iter().zip(TOLD_BY).zip(ACTS) {
            let is_told = alerts.iter().any(|(_, rule)| told_by.contains(&rule.as_str()));
            if !is_told && !BLIND.contains(&name) {
                faults.push(format!("{name}, {act}: the alerts are {alerts:?}, and none of {told_by:?}"));
            }
        }
        row(name, cells, &mut faults);
    }
    println!("{table}");
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
    assert!(rows >= 40, "{rows} disguises");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/evasions.md");
    let page = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    assert!(page.contains(&table), "docs/evasions.md has another table than this:\n{table}");
}
