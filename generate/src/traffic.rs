//! Generates the requests that a healthy cluster sends to its API server, in realistic proportions.
//!
//! Invariant: an activity appends exactly one line, the one whose stage is reached now, and queues
//! its later lines. So the log is in order of stage time, as the server writes it.
//!
//! # Rates
//! [`ACTIVITIES`] gives the share of each activity in about 100,000. The shares follow from periods
//! that Kubernetes and its usual companions fix, for two dozen nodes and a dozen events a second:
//!
//! * every kubelet renews its Lease every 10 s (24 nodes: 2.4 a second, a fifth of the log), and
//!   every leader reads and writes its Lease every 2 s; together these are more than a third of the
//!   log, as in any real log;
//! * the kubelets of the API servers, and load balancers, ask every 1 to 10 s, without credentials,
//!   whether a server is ready and live: an eighth of the log;
//! * informers end each watch after 5 to 10 minutes and open the next one: two events each;
//! * kubelets check the tokens of scrapers (TokenReview and SubjectAccessReview, cached for two
//!   minutes), renew each pod's token at 80 % of an hour, and patch the node status every five
//!   minutes or on change; an autoscaler reads each of its targets every 15 s;
//! * operators reconcile: they read a few Secrets and ConfigMaps of their own, refresh external
//!   ones hourly, write status, and sometimes meet a conflict (409) or an object that is gone
//!   (404);
//! * pods come and go with CronJobs and rollouts; each start is some fifteen requests by four
//!   components;
//! * denials exist in every cluster: a role that lacks a verb, an expired token, a curious
//!   colleague.
//!
//! People and pipelines follow the clock of [`PEOPLE_PERCENT`] (working days of a European clinic,
//! in UTC). At night, machines take over the share of people, because the total load of a server
//! hardly changes.
//!
//! The assumed audit policy has these levels: Metadata for reads, Leases, Secrets, ConfigMaps and
//! tokens; Request for status writes, deletes and exec; RequestResponse for writes of workloads,
//! RBAC and admission. It omits `RequestReceived` except for exec, attach, port-forward and RBAC.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::bodies::{self, PodSpec, put};
use crate::cluster::{self, CRON_JOBS, Cluster, Person, Pod, Workload};
use crate::go::{self, SECOND};
use crate::line::{
    Actor, FORBIDDEN, METADATA, ObjectRef, PANIC, REQUEST, REQUEST_RESPONSE, RESPONSE_COMPLETE,
    RESPONSE_STARTED, Request, Status,
};
use crate::random::Random;

/// The cluster, and the state that changes while it runs.
pub(crate) struct World {
    pub cluster: Cluster,
    pub random: Random,
    /// The cluster's `resourceVersion`.
    pub revision: u64,
    pub queue: Queue,
    scratch: Scratch,
}

/// Buffers for the bodies of the current event.
#[derive(Default)]
struct Scratch {
    body: Vec<u8>,
    response: Vec<u8>,
}

/// Lines whose stage is in the future, the earliest first.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: BinaryHeap<Waiting>,
    /// Buffers of lines that were already written, kept for reuse.
    spare: Vec<Vec<u8>>,
    pushed: u64,
}

struct Waiting {
    at_us: i64,
    /// Number of the line in the order of arrival, so that lines of the same time keep that order.
    sequence: u64,
    line: Vec<u8>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    /// The earliest line compares as the greatest, because a heap returns its greatest element
    /// first.
    fn cmp(&self, other: &Waiting) -> Ordering {
        (other.at_us, other.sequence).cmp(&(self.at_us, self.sequence))
    }
}

impl Queue {
    pub fn push(&mut self, at_us: i64, render: impl FnOnce(&mut Vec<u8>)) {
        let mut line = self.spare.pop().unwrap_or_default();
        line.clear();
        render(&mut line);
        self.pushed += 1;
        self.waiting.push(Waiting { at_us, sequence: self.pushed, line });
    }

    /// Returns the time of the earliest line.
    pub fn due(&self) -> Option<i64> {
        self.waiting.peek().map(|waiting| waiting.at_us)
    }

    /// Moves the earliest line to `out`.
    pub fn pop(&mut self, out: &mut Vec<u8>) {
        if let Some(Waiting { line, .. }) = self.waiting.pop() {
            out.extend_from_slice(&line);
            self.spare.push(line);
        }
    }
}

type Activity = fn(&mut World, i64, &mut Vec<u8>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// The share of requests is the same by day and by night.
    Machines,
    /// A share that follows [`PEOPLE_PERCENT`].
    People,
}

/// The share of each activity in 100,000 activities, at full working hours.
const ACTIVITIES: &[(u32, Clock, Activity)] = &[
    (21_000, Clock::Machines, World::node_lease),
    (15_000, Clock::Machines, World::leader_lease),
    (15_000, Clock::Machines, World::health_probe),
    (5_600, Clock::Machines, World::watch),
    (1_300, Clock::Machines, World::node_status),
    (1_300, Clock::Machines, World::pod_status),
    (6_500, Clock::Machines, World::event_write),
    (3_400, Clock::Machines, World::token_review),
    (3_200, Clock::Machines, World::access_review),
    (1_300, Clock::Machines, World::pod_token),
    (3_600, Clock::Machines, World::autoscaler),
    (1_600, Clock::Machines, World::endpoint_slice),
    (300, Clock::Machines, World::secret_read),
    (2_200, Clock::Machines, World::config_read),
    (3_000, Clock::Machines, World::custom_status),
    (2_600, Clock::Machines, World::discovery),
    (4_600, Clock::Machines, World::pod_read),
    (900, Clock::Machines, World::metrics),
    (2_400, Clock::Machines, World::network_agent),
    (900, Clock::Machines, World::storage_agent),
    (200, Clock::Machines, World::cron_job),
    (300, Clock::Machines, World::workload_status),
    (700, Clock::Machines, World::not_found),
    (130, Clock::Machines, World::forbidden),
    (50, Clock::Machines, World::unauthorized),
    (40, Clock::Machines, World::overloaded),
    (300, Clock::Machines, World::deprecated),
    (3, Clock::Machines, World::relist_secrets),
    (1, Clock::Machines, World::panic),
    (2_700, Clock::People, World::person_list),
    (900, Clock::People, World::person_describe),
    (900, Clock::People, World::person_logs),
    (400, Clock::People, World::person_can_i),
    (500, Clock::People, World::person_config),
    (160, Clock::People, World::person_apply),
    (90, Clock::People, World::person_delete_pod),
    (60, Clock::People, World::person_secret),
    (60, Clock::People, World::person_forbidden),
    (14, Clock::People, World::person_exec),
    (20, Clock::People, World::person_port_forward),
    (500, Clock::People, World::dashboard),
    (110, Clock::People, World::rollout),
];

/// How busy people are at each hour of a working day, in percent.
const PEOPLE_PERCENT: [u64; 24] =
    [2, 1, 1, 1, 2, 8, 25, 60, 90, 100, 100, 90, 60, 85, 100, 95, 80, 55, 30, 18, 12, 8, 5, 3];
/// How busy people are at weekends, in percent of the same hour of a working day.
const WEEKEND_PERCENT: u64 = 12;
/// Mean number of events per 100 activities; a test compares it with the generated log.
pub(crate) const EVENTS_PER_100_ACTIVITIES: u64 = 111;

/// Number of redraws after which an activity of machines is used, so that drawing does not take
/// long in a quiet night.
const REDRAWS_MAX: u32 = 16;

impl World {
    pub fn new(cluster: Cluster, random: Random) -> World {
        World { cluster, random, revision: 48_211_903, queue: Queue::default(), scratch: Scratch::default() }
    }

    /// Appends one line of an activity that is drawn for this time.
    pub fn act(&mut self, at_us: i64, out: &mut Vec<u8>) {
        let activity = self.choose(at_us);
        self.revision += 1 + self.random.below(3);
        activity(self, at_us, out);
    }

    fn choose(&mut self, at_us: i64) -> Activity {
        let total: u32 = const {
            let mut sum = 0;
            let mut index = 0;
            while index < ACTIVITIES.len() {
                sum += ACTIVITIES[index].0;
                index += 1;
            }
            sum
        };
        for _ in 0..REDRAWS_MAX {
            let mut draw = self.random.below(u64::from(total)) as u32;
            for &(share, clock, activity) in ACTIVITIES {
                if draw < share {
                    if clock == Clock::Machines || self.random.percent(people_percent(at_us)) {
                        return activity;
                    }
                    break;
                }
                draw -= share;
            }
        }
        World::node_lease
    }

    fn node_lease(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, revision, .. } = self;
        let node = random.pick(&cluster.nodes);
        let uri = format!(
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}?timeout=10s",
            node.name
        );
        let object = ObjectRef {
            resource: "leases",
            namespace: "kube-node-lease",
            name: &node.name,
            uid: &node.lease_uid,
            group: "coordination.k8s.io",
            version: "v1",
            resource_version: *revision - random.between(100, 130),
            ..ObjectRef::default()
        };
        simple(random, out, at, &node.kubelet, "update", &uri, object, 200);
    }

    fn leader_lease(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, revision, .. } = self;
        let which = random.below(12) as usize;
        let (actor, namespace, name, uid) = match which {
            0..=1 => (
                &cluster.manager,
                "kube-system",
                "kube-controller-manager",
                "5b0e6e9c-9d0e-4a36-a2bd-c4b2b7f6c9b5",
            ),
            2..=3 => {
                (&cluster.scheduler, "kube-system", "kube-scheduler", "c0b7e8cd-3f4e-4c0b-8f3c-0d2d0a4b11f7")
            }
            other => {
                let leaders = cluster.operators.iter().filter(|operator| operator.lease.is_some());
                let operator = leaders.cycle().nth(other - 4).expect("operators with a lease exist");
                let lease = operator.lease.as_ref().expect("filtered by it");
                (&operator.actor, operator.namespace, lease.name.as_str(), lease.uid.as_str())
            }
        };
        let uri = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}?timeout=5s");
        let mut object = ObjectRef {
            resource: "leases",
            namespace,
            name,
            group: "coordination.k8s.io",
            version: "v1",
            ..ObjectRef::default()
        };
        if random.percent(50) {
            simple(random, out, at, actor, "get", &uri, object, 200);
        } else if random.below(400) == 0 {
            let message = format!(
                "Operation cannot be fulfilled on leases.coordination.k8s.io \"{name}\": the object has been modified; please apply your changes to the latest version and try again"
            );
            let details = format!(r#"{{"name":"{name}","group":"coordination.k8s.io","kind":"leases"}}"#);
            let status =
                Status::Failure { message: &message, reason: "Conflict", details: &details, code: 409 };
            answered(random, out, at, actor, "update", &uri, object, &actor.allowed, status);
        } else {
            object.uid = uid;
            object.resource_version = *revision - random.between(10, 60);
            simple(random, out, at, actor, "update", &uri, object, 200);
        }
    }

    fn health_probe(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let node = &cluster.nodes[random.below(3.min(cluster.nodes.len() as u64)) as usize];
        let uri = *random.pick(&[
            "/readyz",
            "/readyz",
            "/readyz",
            "/livez",
            "/healthz",
            "/livez?exclude=kms-provider-0",
        ]);
        let code = if random.below(2_000) == 0 { 500 } else { 200 };
        simple(random, out, at, &node.probe, "get", uri, ObjectRef::default(), code);
    }

    fn watch(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, revision, queue, .. } = self;
        let node = random.pick(&cluster.nodes);
        let workload = random.pick(&cluster.workloads);
        let operator = random.pick(&cluster.operators);
        let mut selector = String::new();
        let (actor, (group, version, resource), namespace) = match random.below(100) {
            0..=34 => {
                let kind = *random.pick(&[
                    ("", "v1", "nodes"),
                    ("", "v1", "pods"),
                    ("", "v1", "services"),
                    ("", "v1", "configmaps"),
                    ("", "v1", "secrets"),
                    ("storage.k8s.io", "v1", "csidrivers"),
                    ("node.k8s.io", "v1", "runtimeclasses"),
                ]);
                let mut namespace = "";
                match kind.2 {
                    "nodes" => selector = format!("metadata.name%3D{}", node.name),
                    "pods" => selector = format!("spec.nodeName%3D{}", node.name),
                    "configmaps" => {
                        namespace = workload.namespace;
                        selector = format!("metadata.name%3D{}", workload.config_maps[0].name);
                    }
                    "secrets" => {
                        namespace = workload.namespace;
                        selector = format!("metadata.name%3D{}", workload.secrets[0].name);
                    }
                    _ => {}
                }
                (&node.kubelet, kind, namespace)
            }
            35..=49 => (
                &node.proxy,
                *random.pick(&[
                    ("", "v1", "services"),
                    ("discovery.k8s.io", "v1", "endpointslices"),
                    ("", "v1", "nodes"),
                ]),
                "",
            ),
            50..=69 => (
                &node.network,
                *random.pick(&[
                    ("cilium.io", "v2", "ciliumnetworkpolicies"),
                    ("cilium.io", "v2", "ciliumidentities"),
                    ("networking.k8s.io", "v1", "networkpolicies"),
                    ("", "v1", "namespaces"),
                    ("", "v1", "pods"),
                ]),
                "",
            ),
            70..=77 => (
                &cluster.resolver,
                *random.pick(&[
                    ("", "v1", "namespaces"),
                    ("", "v1", "services"),
                    ("discovery.k8s.io", "v1", "endpointslices"),
                ]),
                "",
            ),
            _ => {
                let (group, version, resource, _) = operator.reconciles;
                let secrets = operator.reads_secrets && random.percent(30);
                (
                    &operator.actor,
                    if secrets { ("", "v1", "secrets") } else { (group, version, resource) },
                    "",
                )
            }
        };
        let seconds = random.between(300, 599);
        let mut uri = collection_uri(group, version, namespace, resource);
        uri.push_str("?allowWatchBookmarks=true");
        if !selector.is_empty() {
            uri.push_str("&fieldSelector=");
            uri.push_str(&selector);
        }
        uri.push_str(&format!(
            "&resourceVersion={}&timeout={}m{}s&timeoutSeconds={seconds}&watch=true",
            *revision - random.below(90),
            seconds / 60,
            seconds % 60
        ));
        let request = Request {
            level: METADATA,
            audit_id: random.uuid(),
            uri: &uri,
            verb: "watch",
            actor,
            impersonated: "",
            object: ObjectRef { resource, namespace, group, version, ..ObjectRef::default() },
            body: b"",
            received_us: at - random.between(400, 2_500) as i64,
            annotations: &actor.allowed,
        };
        request.answered(out, RESPONSE_STARTED, at, Status::Code(200), b"");
        let end = at + seconds as i64 * SECOND + random.below(4_000) as i64;
        queue.push(end, |line| request.answered(line, RESPONSE_COMPLETE, end, Status::Code(200), b""));
    }

    fn node_status(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, scratch, .. } = self;
        let node = random.pick(&cluster.nodes);
        scratch.body.clear();
        bodies::node_status_patch(&mut scratch.body, at, &node.images, random);
        let uri = format!("/api/v1/nodes/{}/status?timeout=10s", node.name);
        let object = ObjectRef {
            resource: "nodes",
            name: &node.name,
            version: "v1",
            subresource: "status",
            ..ObjectRef::default()
        };
        with_body(random, out, at, &node.kubelet, "patch", &uri, object, REQUEST, &scratch.body, b"", 200);
    }

    fn pod_status(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, scratch, .. } = self;
        let workload = random.pick(&cluster.workloads);
        let pod = random.pick(&workload.pods);
        let node = &cluster.nodes[pod.node];
        patch_pod_status(random, scratch, out, at, &node.kubelet, &node.ip, workload, pod);
    }

    fn event_write(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let workload = random.pick(&cluster.workloads);
        let pod = random.pick(&workload.pods);
        let actor = match random.below(10) {
            0..=5 => &cluster.nodes[pod.node].kubelet,
            6 => &cluster.scheduler,
            7 => &cluster.controllers[random.below(cluster.controllers.len() as u64) as usize].actor,
            _ => &random.pick(&cluster.operators).actor,
        };
        write_event(random, out, at, actor, workload.namespace, &pod.name);
    }

    fn token_review(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let node = random.pick(&cluster.nodes);
        let object = ObjectRef {
            resource: "tokenreviews",
            group: "authentication.k8s.io",
            version: "v1",
            ..ObjectRef::default()
        };
        let uri = "/apis/authentication.k8s.io/v1/tokenreviews";
        simple(random, out, at, &node.kubelet, "create", uri, object, 201);
    }

    fn access_review(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let node = random.pick(&cluster.nodes);
        let object = ObjectRef {
            resource: "subjectaccessreviews",
            group: "authorization.k8s.io",
            version: "v1",
            ..ObjectRef::default()
        };
        let uri = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        simple(random, out, at, &node.kubelet, "create", uri, object, 201);
    }

    fn pod_token(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let workload = random.pick(&cluster.workloads);
        let kubelet = &cluster.nodes[random.pick(&workload.pods).node].kubelet;
        issue_token(random, out, at, kubelet, workload);
    }

    fn autoscaler(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, revision, .. } = self;
        let actor = &controller(cluster, "horizontal-pod-autoscaler").actor;
        let workload = random.pick(&cluster.workloads);
        let (namespace, name) = (workload.namespace, workload.name);
        match random.below(3) {
            0 => {
                let uri = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale");
                let object = ObjectRef {
                    resource: "deployments",
                    namespace,
                    name,
                    group: "apps",
                    version: "v1",
                    subresource: "scale",
                    ..ObjectRef::default()
                };
                simple(random, out, at, actor, "get", &uri, object, 200);
            }
            1 => {
                let uri = format!(
                    "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector=app.kubernetes.io%2Fname%3D{name}"
                );
                let object = ObjectRef {
                    resource: "pods",
                    namespace,
                    group: "metrics.k8s.io",
                    version: "v1beta1",
                    ..ObjectRef::default()
                };
                simple(random, out, at, actor, "list", &uri, object, 200);
            }
            _ => {
                let uri = format!(
                    "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/{name}/status"
                );
                let object = ObjectRef {
                    resource: "horizontalpodautoscalers",
                    namespace,
                    name,
                    uid: &workload.uid,
                    group: "autoscaling",
                    version: "v2",
                    resource_version: *revision - random.between(40, 900),
                    subresource: "status",
                };
                simple(random, out, at, actor, "update", &uri, object, 200);
            }
        }
    }

    fn endpoint_slice(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, revision, .. } = self;
        let actor = &controller(cluster, "endpointslice-controller").actor;
        let workload = random.pick(&cluster.workloads);
        let slice = &workload.endpoint_slice;
        let uri = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/{}",
            workload.namespace, slice.name
        );
        let object = ObjectRef {
            resource: "endpointslices",
            namespace: workload.namespace,
            name: &slice.name,
            uid: &slice.uid,
            group: "discovery.k8s.io",
            version: "v1",
            resource_version: *revision - random.between(40, 90_000),
            ..ObjectRef::default()
        };
        simple(random, out, at, actor, "update", &uri, object, 200);
    }

    /// An operator reads one of its own few Secrets: certificates, repositories, or Secrets that it
    /// refreshes hourly.
    fn secret_read(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let readers = cluster.operators.iter().filter(|operator| operator.reads_secrets).count();
        let nth = random.below(readers as u64) as usize;
        let operator = cluster
            .operators
            .iter()
            .filter(|operator| operator.reads_secrets)
            .nth(nth)
            .expect("drawn below their number");
        let workload = random.pick(&cluster.workloads);
        let (namespace, name) = match operator.namespace {
            "external-secrets" => (workload.namespace, workload.secrets[0].name.as_str()),
            "cert-manager" | "ingress-nginx" => (workload.namespace, workload.secrets[1].name.as_str()),
            "argocd" => ("argocd", *random.pick(&["argocd-secret", "repo-platform", "repo-apps"])),
            own => (own, *random.pick(&["prometheus-web-config", "alertmanager-main"])),
        };
        read_secret(random, out, at, &operator.actor, namespace, name);
    }

    fn config_read(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let operator = random.pick(&cluster.operators);
        let workload = random.pick(&cluster.workloads);
        let name = random.pick(&workload.config_maps).name.as_str();
        let uri = format!("/api/v1/namespaces/{}/configmaps/{name}", workload.namespace);
        let object = ObjectRef {
            resource: "configmaps",
            namespace: workload.namespace,
            name,
            version: "v1",
            ..ObjectRef::default()
        };
        simple(random, out, at, &operator.actor, "get", &uri, object, 200);
    }

    fn custom_status(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, revision, scratch, .. } = self;
        let operator = random.pick(&cluster.operators);
        let workload = random.pick(&cluster.workloads);
        let (group, version, resource, kind) = operator.reconciles;
        let name = format!("{}-{}", workload.name, &kind[..3].to_ascii_lowercase());
        let base = format!("/apis/{group}/{version}/namespaces/{}/{resource}/{name}", workload.namespace);
        let mut object = ObjectRef {
            resource,
            namespace: workload.namespace,
            name: &name,
            group,
            version,
            ..ObjectRef::default()
        };
        if random.percent(45) {
            simple(random, out, at, &operator.actor, "get", &base, object, 200);
            return;
        }
        scratch.body.clear();
        let group_version = format!("{group}/{version}");
        let known = *revision - random.between(10, 5_000);
        bodies::custom_status(&mut scratch.body, &group_version, kind, workload.namespace, &name, known, at);
        object.subresource = "status";
        object.uid = &workload.uid;
        object.resource_version = known;
        let uri = format!("{base}/status");
        if random.percent(3) {
            let message = format!(
                "Operation cannot be fulfilled on {resource}.{group} \"{name}\": the object has been modified; please apply your changes to the latest version and try again"
            );
            let details = format!(r#"{{"name":"{name}","group":"{group}","kind":"{resource}"}}"#);
            let request = Request {
                level: REQUEST,
                audit_id: random.uuid(),
                uri: &uri,
                verb: "update",
                actor: &operator.actor,
                impersonated: "",
                object,
                body: &scratch.body,
                received_us: at - latency(random),
                annotations: &operator.actor.allowed,
            };
            let status =
                Status::Failure { message: &message, reason: "Conflict", details: &details, code: 409 };
            request.answered(out, RESPONSE_COMPLETE, at, status, b"");
        } else {
            with_body(
                random,
                out,
                at,
                &operator.actor,
                "update",
                &uri,
                object,
                REQUEST,
                &scratch.body,
                b"",
                200,
            );
        }
    }

    fn discovery(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let actor = match random.below(4) {
            0 => &controller(cluster, "generic-garbage-collector").actor,
            1 => &controller(cluster, "resourcequota-controller").actor,
            2 => &controller(cluster, "namespace-controller").actor,
            _ => &random.pick(&cluster.operators).actor,
        };
        let uri = *random.pick(&[
            "/api",
            "/apis",
            "/api/v1",
            "/apis/apps/v1",
            "/apis/metrics.k8s.io/v1beta1",
            "/openapi/v2?timeout=32s",
            "/version",
            "/apis/external-secrets.io/v1?timeout=32s",
        ]);
        simple(random, out, at, actor, "get", uri, ObjectRef::default(), 200);
    }

    fn pod_read(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let workload = random.pick(&cluster.workloads);
        let pod = random.pick(&workload.pods);
        let actor = &cluster.nodes[pod.node].kubelet;
        read_pod(random, out, at, actor, workload.namespace, &pod.name);
    }

    fn metrics(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let (uri, object) = if random.percent(60) {
            ("/metrics", ObjectRef::default())
        } else {
            let object = ObjectRef {
                resource: "nodes",
                group: "metrics.k8s.io",
                version: "v1beta1",
                ..ObjectRef::default()
            };
            ("/apis/metrics.k8s.io/v1beta1/nodes", object)
        };
        let verb = if object.resource.is_empty() { "get" } else { "list" };
        simple(random, out, at, &cluster.prometheus, verb, uri, object, 200);
    }

    /// The network agent updates its endpoints with JSON patches, whose body is an array.
    fn network_agent(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, revision, scratch, .. } = self;
        let workload = random.pick(&cluster.workloads);
        let pod = random.pick(&workload.pods);
        let node = &cluster.nodes[pod.node];
        let mut object = ObjectRef {
            resource: "ciliumnodes",
            name: &node.name,
            group: "cilium.io",
            version: "v2",
            ..ObjectRef::default()
        };
        if random.percent(60) {
            let uri = format!("/apis/cilium.io/v2/ciliumnodes/{}", node.name);
            simple(random, out, at, &node.network, "get", &uri, object, 200);
            return;
        }
        object.resource = "ciliumendpoints";
        object.namespace = workload.namespace;
        object.name = &pod.name;
        scratch.body.clear();
        let identity = random.between(1_000, 65_000).to_string();
        put(
            &mut scratch.body,
            &[
                r#"[{"op":"test","path":"/metadata/resourceVersion","value":""#,
                &(*revision - 40).to_string(),
                r#""},{"op":"replace","path":"/status","value":{"external-identifiers":{"k8s-namespace":""#,
                workload.namespace,
                r#"","k8s-pod-name":""#,
                &pod.name,
                r#""},"id":"#,
                &random.between(10, 4_000).to_string(),
                r#","identity":{"id":"#,
                &identity,
                r#","labels":["k8s:app.kubernetes.io/name="#,
                workload.name,
                r#""]},"networking":{"addressing":[{"ipv4":""#,
                &pod.ip,
                r#""}],"node":""#,
                &node.ip,
                r#""},"state":"ready"}}]"#,
            ],
        );
        let uri =
            format!("/apis/cilium.io/v2/namespaces/{}/ciliumendpoints/{}", workload.namespace, pod.name);
        with_body(random, out, at, &node.network, "patch", &uri, object, REQUEST, &scratch.body, b"", 200);
    }

    fn storage_agent(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let node = random.pick(&cluster.nodes);
        let uri = format!("/apis/storage.k8s.io/v1/csinodes/{}", node.name);
        let object = ObjectRef {
            resource: "csinodes",
            name: &node.name,
            group: "storage.k8s.io",
            version: "v1",
            ..ObjectRef::default()
        };
        simple(random, out, at, &node.storage, "get", &uri, object, 200);
    }

    /// The run of a CronJob: the job, and its pod from posting to clean-up.
    fn cron_job(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, scratch, queue, revision } = self;
        let (namespace, base) = *random.pick(CRON_JOBS);
        let name = format!("{base}-{}", at / (60 * SECOND));
        let uid = cluster::uid(random);
        let creator = &controller(cluster, "cronjob-controller").actor;
        scratch.body.clear();
        bodies::job_request(&mut scratch.body, namespace, &name, &uid);
        let uri = format!("/apis/batch/v1/namespaces/{namespace}/jobs");
        let mut object = ObjectRef {
            resource: "jobs",
            namespace,
            name: &name,
            group: "batch",
            version: "v1",
            ..ObjectRef::default()
        };
        with_body(random, out, at, creator, "create", &uri, object, REQUEST, &scratch.body, b"", 201);
        let nth = random.below(cluster.workloads.len() as u64) as usize;
        let workload = &cluster.workloads[nth];
        let pod = cluster::pod(random, workload.name, &workload.hash, cluster.nodes.len());
        let runner = &controller(cluster, "job-controller").actor;
        let end = start_pod(cluster, random, scratch, queue, *revision, at + SECOND, runner, workload, &pod);
        let done = end + random.between(20, 200) as i64 * SECOND;
        object.uid = &uid;
        object.subresource = "status";
        let status_uri = format!("{uri}/{name}/status");
        queue.push(done, |line| simple(random, line, done, runner, "update", &status_uri, object, 200));
        object.subresource = "";
        let removal = done + random.between(30, 400) as i64 * SECOND;
        let uri = format!("{uri}/{name}");
        let details = format!(r#"{{"name":"{name}","group":"batch","kind":"jobs","uid":"{uid}"}}"#);
        queue.push(removal, |line| {
            let status = Status::Success { details: &details, code: 200 };
            answered(random, line, removal, creator, "delete", &uri, object, &creator.allowed, status);
        });
    }

    /// A controller writes the status of a Deployment, with the whole object.
    fn workload_status(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, revision, scratch, .. } = self;
        let workload = random.pick(&cluster.workloads);
        let actor = &controller(cluster, "deployment-controller").actor;
        let generation = random.between(3, 60);
        let spec = PodSpec::ordinary(workload);
        scratch.body.clear();
        let known = *revision - random.between(5, 50);
        bodies::deployment(&mut scratch.body, &spec, known, generation, at - 2 * SECOND);
        let uri =
            format!("/apis/apps/v1/namespaces/{}/deployments/{}/status", workload.namespace, workload.name);
        let object = ObjectRef {
            resource: "deployments",
            namespace: workload.namespace,
            name: workload.name,
            uid: &workload.uid,
            group: "apps",
            version: "v1",
            resource_version: known,
            subresource: "status",
        };
        let body = &scratch.body;
        with_body(random, out, at, actor, "update", &uri, object, REQUEST, body, b"", 200);
    }

    fn not_found(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let operator = random.pick(&cluster.operators);
        let workload = random.pick(&cluster.workloads);
        let resource = *random.pick(&["configmaps", "services", "pods", "persistentvolumeclaims", "secrets"]);
        let name = format!("{}-{}", workload.name, random.pick(&["canary", "override", "extra", "legacy"]));
        let namespace = workload.namespace;
        let uri = format!("/api/v1/namespaces/{namespace}/{resource}/{name}");
        let object = ObjectRef { resource, namespace, name: &name, version: "v1", ..ObjectRef::default() };
        let message = format!("{resource} \"{name}\" not found");
        let details = format!(r#"{{"name":"{name}","kind":"{resource}"}}"#);
        let status = Status::Failure { message: &message, reason: "NotFound", details: &details, code: 404 };
        let actor = &operator.actor;
        answered(random, out, at, actor, "get", &uri, object, &actor.allowed, status);
    }

    /// A service account asks again for a permission that it lacks.
    fn forbidden(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let actor = random.pick(&cluster.misconfigured);
        let (group, version, resource) = *random.pick(&[
            ("", "v1", "nodes"),
            ("", "v1", "persistentvolumes"),
            ("policy", "v1", "poddisruptionbudgets"),
            ("storage.k8s.io", "v1", "storageclasses"),
        ]);
        deny(random, out, at, actor, "list", group, version, "", resource, "");
    }

    /// Appends a request with an expired token, for which the server knows no user.
    fn unauthorized(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let node = random.pick(&cluster.nodes);
        let uri = *random.pick(&["/metrics", "/api/v1/nodes?limit=500", "/apis/apps/v1/daemonsets"]);
        unauthenticated(random, out, at, &node.unauthenticated, uri);
    }

    fn overloaded(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let operator = random.pick(&cluster.operators);
        let (group, version, resource, _) = operator.reconciles;
        let uri = format!("{}?limit=500", collection_uri(group, version, "", resource));
        let object = ObjectRef { resource, group, version, ..ObjectRef::default() };
        let actor = &operator.actor;
        if random.percent(50) {
            let message = "The API server is too busy, please try again later";
            let details = r#"{"retryAfterSeconds":1}"#;
            let status = Status::Failure { message, reason: "TooManyRequests", details, code: 429 };
            answered(random, out, at, actor, "list", &uri, object, &actor.allowed, status);
        } else {
            let message = "Timeout: request did not complete within the allotted timeout";
            let status = Status::Failure { message, reason: "Timeout", details: "{}", code: 504 };
            let annotations = format!(
                r#""apiserver.latency.k8s.io/etcd":"59.998{}s","apiserver.latency.k8s.io/total":"60.00{}s",{}"#,
                random.between(100_000, 999_999),
                random.between(1_000_000, 9_999_999),
                actor.allowed
            );
            let request = Request {
                level: METADATA,
                audit_id: random.uuid(),
                uri: &uri,
                verb: "list",
                actor,
                impersonated: "",
                object,
                body: b"",
                received_us: at - 60 * SECOND - random.below(9_000) as i64,
                annotations: &annotations,
            };
            request.answered(out, RESPONSE_COMPLETE, at, status, b"");
        }
    }

    fn deprecated(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let actor = &random.pick(&cluster.operators).actor;
        let annotations =
            format!(r#"{},"k8s.io/deprecated":"true","k8s.io/removed-release":"1.38""#, actor.allowed);
        let object = ObjectRef { resource: "endpoints", version: "v1", ..ObjectRef::default() };
        let uri = "/api/v1/endpoints?limit=500&resourceVersion=0";
        answered(random, out, at, actor, "list", uri, object, &annotations, Status::Code(200));
    }

    /// An informer that lost its position lists everything again, including the Secrets of all
    /// namespaces.
    fn relist_secrets(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let readers = cluster.operators.iter().filter(|operator| operator.reads_secrets);
        let operator =
            readers.max_by_key(|operator| operator.namespace.len()).expect("operators read Secrets");
        let object = ObjectRef { resource: "secrets", version: "v1", ..ObjectRef::default() };
        let uri = "/api/v1/secrets?limit=500&resourceVersion=0";
        simple(random, out, at, &operator.actor, "list", uri, object, 200);
    }

    fn panic(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let operator = random.pick(&cluster.operators);
        let (group, version, resource, _) = operator.reconciles;
        let uri = collection_uri(group, version, "", resource);
        let request = Request {
            level: METADATA,
            audit_id: random.uuid(),
            uri: &uri,
            verb: "list",
            actor: &operator.actor,
            impersonated: "",
            object: ObjectRef { resource, group, version, ..ObjectRef::default() },
            body: b"",
            received_us: at - latency(random),
            annotations: &operator.actor.allowed,
        };
        let message = "APIServer panic'd: runtime error: invalid memory address or nil pointer dereference";
        let status = Status::Failure { message, reason: "InternalError", details: "", code: 500 };
        request.answered(out, PANIC, at, status, b"");
    }

    fn person_list(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let (person, namespace) = person(cluster, random);
        let (group, version, resource) = *random.pick(&[
            ("", "v1", "pods"),
            ("", "v1", "pods"),
            ("", "v1", "pods"),
            ("apps", "v1", "deployments"),
            ("", "v1", "services"),
            ("", "v1", "events"),
            ("", "v1", "configmaps"),
            ("batch", "v1", "jobs"),
            ("networking.k8s.io", "v1", "ingresses"),
            ("apps", "v1", "replicasets"),
        ]);
        let uri = format!("{}?limit=500", collection_uri(group, version, namespace, resource));
        let object = ObjectRef { resource, namespace, group, version, ..ObjectRef::default() };
        simple(random, out, at, &person.actor, "list", &uri, object, 200);
    }

    fn person_describe(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, queue, .. } = self;
        let (person, namespace) = person(cluster, random);
        let workload = workload_of(cluster, random, namespace);
        let pod = random.pick(&workload.pods);
        read_pod(random, out, at, &person.actor, namespace, &pod.name);
        let uri = format!(
            "/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name%3D{}%2CinvolvedObject.uid%3D{}&limit=500",
            pod.name, pod.uid
        );
        let object = ObjectRef { resource: "events", namespace, version: "v1", ..ObjectRef::default() };
        let next = at + random.between(30_000, 120_000) as i64;
        queue.push(next, |line| simple(random, line, next, &person.actor, "list", &uri, object, 200));
    }

    fn person_logs(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, queue, .. } = self;
        let (person, namespace) = person(cluster, random);
        let workload = workload_of(cluster, random, namespace);
        let pod = random.pick(&workload.pods);
        let follow = random.percent(35);
        let uri = format!(
            "/api/v1/namespaces/{namespace}/pods/{}/log?container={}{}{}",
            pod.name,
            workload.name,
            if follow { "&follow=true" } else { "" },
            if random.percent(50) { "&tailLines=200" } else { "" },
        );
        let object = pod_object(namespace, &pod.name, "log");
        let length = if follow { random.between(5, 1_500) } else { 1 } as i64 * SECOND / 3;
        long_running(random, out, queue, at, length, &person.actor, "get", &uri, object, 200);
    }

    fn person_can_i(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, scratch, .. } = self;
        let (person, namespace) = person(cluster, random);
        let verb = *random.pick(&["get", "list", "delete", "patch", "create"]);
        let resource = *random.pick(&["pods", "deployments", "secrets", "jobs"]);
        scratch.body.clear();
        scratch.response.clear();
        bodies::self_review(&mut scratch.body, namespace, verb, resource, None);
        bodies::self_review(&mut scratch.response, namespace, verb, resource, Some(random.percent(80)));
        let object = ObjectRef {
            resource: "selfsubjectaccessreviews",
            group: "authorization.k8s.io",
            version: "v1",
            ..ObjectRef::default()
        };
        let uri = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let (body, response) = (&scratch.body, &scratch.response);
        with_body(
            random,
            out,
            at,
            &person.actor,
            "create",
            uri,
            object,
            REQUEST_RESPONSE,
            body,
            response,
            201,
        );
    }

    fn person_config(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let (person, namespace) = person(cluster, random);
        let workload = workload_of(cluster, random, namespace);
        let name = random.pick(&workload.config_maps).name.as_str();
        let uri = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let object =
            ObjectRef { resource: "configmaps", namespace, name, version: "v1", ..ObjectRef::default() };
        simple(random, out, at, &person.actor, "get", &uri, object, 200);
    }

    /// A person runs `kubectl apply`, which reads and then patches.
    fn person_apply(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, revision, scratch, queue } = self;
        let (person, namespace) = person(cluster, random);
        let workload = workload_of(cluster, random, namespace);
        let uri = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{}", workload.name);
        simple(random, out, at, &person.actor, "get", &uri, deployment_object(workload), 200);
        let next = at + random.between(60_000, 400_000) as i64;
        let uri = format!("{uri}?fieldManager=kubectl-client-side-apply&fieldValidation=Strict");
        queue.push(next, |line| {
            patch_deployment(random, scratch, line, next, &person.actor, &uri, workload, *revision);
        });
    }

    fn person_delete_pod(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let (person, namespace) = person(cluster, random);
        let workload = workload_of(cluster, random, namespace);
        let pod = random.pick(&workload.pods);
        let uri = format!("/api/v1/namespaces/{namespace}/pods/{}", pod.name);
        let object = pod_object(namespace, &pod.name, "");
        with_body(
            random,
            out,
            at,
            &person.actor,
            "delete",
            &uri,
            object,
            REQUEST,
            bodies::DELETE_OPTIONS,
            b"",
            200,
        );
    }

    fn person_secret(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let (person, namespace) = person(cluster, random);
        let workload = workload_of(cluster, random, namespace);
        let name = random.pick(&workload.secrets).name.as_str();
        read_secret(random, out, at, &person.actor, namespace, name);
    }

    /// A person tries something that the role of the team does not allow.
    fn person_forbidden(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let people = &cluster.people;
        let bound = people.iter().filter(|person| !person.namespaces.is_empty()).count() as u64;
        let nth = random.below(bound) as usize;
        let person = people
            .iter()
            .filter(|person| !person.namespaces.is_empty())
            .nth(nth)
            .expect("drawn below their number");
        let resource = *random.pick(&["pods", "services", "configmaps"]);
        deny(random, out, at, &person.actor, "list", "", "v1", "observability", resource, "");
    }

    fn person_exec(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, queue, .. } = self;
        let (person, namespace) = person(cluster, random);
        let workload = workload_of(cluster, random, namespace);
        let pod = random.pick(&workload.pods);
        let uri = format!(
            "/api/v1/namespaces/{namespace}/pods/{}/exec?command=sh&container={}&stdin=true&stdout=true&tty=true",
            pod.name, workload.name
        );
        let object = pod_object(namespace, &pod.name, "exec");
        let length = random.between(8, 900) as i64 * SECOND;
        stream(random, out, queue, at, length, &person.actor, &uri, object);
    }

    fn person_port_forward(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, queue, .. } = self;
        let (person, namespace) = person(cluster, random);
        let workload = workload_of(cluster, random, namespace);
        let pod = random.pick(&workload.pods);
        let uri = format!("/api/v1/namespaces/{namespace}/pods/{}/portforward", pod.name);
        let object = pod_object(namespace, &pod.name, "portforward");
        let length = random.between(30, 3_000) as i64 * SECOND;
        stream(random, out, queue, at, length, &person.actor, &uri, object);
    }

    /// The web dashboard acts for its user, whom it impersonates.
    fn dashboard(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, .. } = self;
        let (person, namespace) = person(cluster, random);
        let impersonated = format!(
            r#"{{"username":"{}","groups":["staff","system:authenticated"]}}"#,
            go::escaped(&person.actor.username)
        );
        let resource = *random.pick(&["pods", "services", "events", "persistentvolumeclaims"]);
        let uri = format!("/api/v1/namespaces/{namespace}/{resource}?limit=500&orderBy=<name>");
        let request = Request {
            level: METADATA,
            audit_id: random.uuid(),
            uri: &uri,
            verb: "list",
            actor: &cluster.dashboard,
            impersonated: &impersonated,
            object: ObjectRef { resource, namespace, version: "v1", ..ObjectRef::default() },
            body: b"",
            received_us: at - latency(random),
            annotations: &person.actor.allowed,
        };
        request.answered(out, RESPONSE_COMPLETE, at, Status::Code(200), b"");
    }

    /// A pipeline makes a Helm upgrade, and the controllers roll it out.
    fn rollout(&mut self, at: i64, out: &mut Vec<u8>) {
        let World { cluster, random, revision, scratch, queue } = self;
        let actor = random.pick(&cluster.deployers);
        let nth = random.below(cluster.workloads.len() as u64) as usize;
        let workload = &cluster.workloads[nth];
        let (namespace, name) = (workload.namespace, workload.name);
        let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
        let releases = format!("{secrets}?labelSelector=name%3D{name}%2Cowner%3Dhelm");
        let listed = ObjectRef { resource: "secrets", namespace, version: "v1", ..ObjectRef::default() };
        simple(random, out, at, actor, "list", &releases, listed, 200);

        let mut next = at + random.between(200_000, 900_000) as i64;
        let release = format!("sh.helm.release.v1.{name}.v{}", random.between(3, 60));
        let stored = ObjectRef { name: &release, ..listed };
        let uri = format!("{secrets}?fieldManager=helm");
        queue.push(next, |line| simple(random, line, next, actor, "create", &uri, stored, 201));
        for config_map in &workload.config_maps {
            next += random.between(40_000, 120_000) as i64;
            let uri =
                format!("/api/v1/namespaces/{namespace}/configmaps/{}?fieldManager=helm", config_map.name);
            let object = ObjectRef {
                resource: "configmaps",
                namespace,
                name: &config_map.name,
                version: "v1",
                ..ObjectRef::default()
            };
            queue.push(next, |line| simple(random, line, next, actor, "patch", &uri, object, 200));
        }
        next += random.between(60_000, 200_000) as i64;
        let uri = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}?fieldManager=helm");
        queue.push(next, |line| {
            patch_deployment(random, scratch, line, next, actor, &uri, workload, *revision);
        });

        let creator = &controller(cluster, "replicaset-controller").actor;
        for old in &workload.pods {
            next += SECOND;
            let pod = cluster::pod(random, name, &workload.hash, cluster.nodes.len());
            next = start_pod(cluster, random, scratch, queue, *revision, next, creator, workload, &pod);
            next += random.between(200_000, 900_000) as i64;
            let uri = format!("/api/v1/namespaces/{namespace}/pods/{}", old.name);
            let object = pod_object(namespace, &old.name, "");
            queue.push(next, |line| {
                let body = bodies::DELETE_OPTIONS;
                with_body(random, line, next, creator, "delete", &uri, object, REQUEST, body, b"", 200);
            });
        }
        next += random.between(300_000, 2_000_000) as i64;
        let uri = format!("{secrets}/{release}?fieldManager=helm");
        queue.push(next, |line| simple(random, line, next, actor, "update", &uri, stored, 200));
    }
}

fn people_percent(at_us: i64) -> u64 {
    let hours = at_us.div_euclid(3_600 * SECOND);
    let percent = PEOPLE_PERCENT[hours.rem_euclid(24) as usize];
    // The epoch was a Thursday, so adding 3 days makes Monday 0.
    let weekday = (hours.div_euclid(24) + 3).rem_euclid(7);
    if weekday >= 5 { percent * WEEKEND_PERCENT / 100 } else { percent }
}

fn controller<'a>(cluster: &'a Cluster, name: &str) -> &'a cluster::Controller {
    cluster.controllers.iter().find(|controller| controller.name == name).expect("a name from the same table")
}

/// Draws a person, and one of the namespaces that the person may use.
fn person<'a>(cluster: &'a Cluster, random: &mut Random) -> (&'a Person, &'static str) {
    let person = random.pick(&cluster.people);
    let namespace = if person.namespaces.is_empty() {
        random.pick(&cluster.workloads).namespace
    } else {
        random.pick(person.namespaces)
    };
    (person, namespace)
}

fn workload_of<'a>(cluster: &'a Cluster, random: &mut Random, namespace: &str) -> &'a Workload {
    let count = cluster.workloads.iter().filter(|workload| workload.namespace == namespace).count();
    let nth = random.below(count as u64) as usize;
    let mut inside = cluster.workloads.iter().filter(|workload| workload.namespace == namespace);
    inside.nth(nth).expect("every namespace of a person has workloads")
}

pub(crate) fn collection_uri(group: &str, version: &str, namespace: &str, resource: &str) -> String {
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    if namespace.is_empty() {
        format!("{root}/{resource}")
    } else {
        format!("{root}/namespaces/{namespace}/{resource}")
    }
}

pub(crate) fn pod_object<'a>(namespace: &'a str, name: &'a str, subresource: &'a str) -> ObjectRef<'a> {
    ObjectRef { resource: "pods", namespace, name, version: "v1", subresource, ..ObjectRef::default() }
}

fn deployment_object(workload: &Workload) -> ObjectRef<'_> {
    ObjectRef {
        resource: "deployments",
        namespace: workload.namespace,
        name: workload.name,
        group: "apps",
        version: "v1",
        ..ObjectRef::default()
    }
}

/// Draws the time that a request takes: mostly a few milliseconds, sometimes some hundred.
pub(crate) fn latency(random: &mut Random) -> i64 {
    let base = random.between(700, 9_000) as i64;
    if random.below(50) == 0 { base * random.between(4, 40) as i64 } else { base }
}

#[expect(clippy::too_many_arguments, reason = "the fields of one event, in its order")]
pub(crate) fn simple(
    random: &mut Random,
    out: &mut Vec<u8>,
    at: i64,
    actor: &Actor,
    verb: &str,
    uri: &str,
    object: ObjectRef<'_>,
    code: u16,
) {
    answered(random, out, at, actor, verb, uri, object, &actor.allowed, Status::Code(code));
}

#[expect(clippy::too_many_arguments, reason = "the fields of one event, in its order")]
pub(crate) fn answered(
    random: &mut Random,
    out: &mut Vec<u8>,
    at: i64,
    actor: &Actor,
    verb: &str,
    uri: &str,
    object: ObjectRef<'_>,
    annotations: &str,
    status: Status<'_>,
) {
    let request = Request {
        level: METADATA,
        audit_id: random.uuid(),
        uri,
        verb,
        actor,
        impersonated: "",
        object,
        body: b"",
        received_us: at - latency(random),
        annotations,
    };
    request.answered(out, RESPONSE_COMPLETE, at, status, b"");
}

#[expect(clippy::too_many_arguments, reason = "the fields of one event, in its order")]
fn with_body(
    random: &mut Random,
    out: &mut Vec<u8>,
    at: i64,
    actor: &Actor,
    verb: &str,
    uri: &str,
    object: ObjectRef<'_>,
    level: &'static str,
    body: &[u8],
    response: &[u8],
    code: u16,
) {
    let request = Request {
        level,
        audit_id: random.uuid(),
        uri,
        verb,
        actor,
        impersonated: "",
        object,
        body,
        received_us: at - latency(random),
        annotations: &actor.allowed,
    };
    request.answered(out, RESPONSE_COMPLETE, at, Status::Code(code), response);
}

/// Appends a request that RBAC denies.
#[expect(clippy::too_many_arguments, reason = "the fields of one event, in its order")]
fn deny(
    random: &mut Random,
    out: &mut Vec<u8>,
    at: i64,
    actor: &Actor,
    verb: &str,
    group: &str,
    version: &str,
    namespace: &str,
    resource: &str,
    name: &str,
) {
    let mut uri = collection_uri(group, version, namespace, resource);
    if !name.is_empty() {
        uri.push('/');
        uri.push_str(name);
    }
    let object = ObjectRef { resource, namespace, name, group, version, ..ObjectRef::default() };
    let (message, details) = forbidden_text(actor, verb, &object);
    let status = Status::Failure { message: &message, reason: "Forbidden", details: &details, code: 403 };
    answered(random, out, at, actor, verb, &uri, object, FORBIDDEN, status);
}

/// Returns the message and the details of an RBAC denial.
pub(crate) fn forbidden_text(actor: &Actor, verb: &str, object: &ObjectRef<'_>) -> (String, String) {
    let kind = if object.group.is_empty() {
        object.resource.to_owned()
    } else {
        format!("{}.{}", object.resource, object.group)
    };
    let named = if object.name.is_empty() { String::new() } else { format!(" \"{}\"", object.name) };
    let scope = if object.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", object.namespace)
    };
    let message = format!(
        "{kind}{named} is forbidden: User \"{}\" cannot {verb} resource \"{}\" in API group \"{}\" {scope}",
        actor.username, object.resource, object.group
    );
    let mut details = String::from("{");
    if !object.name.is_empty() {
        details.push_str(&format!(r#""name":"{}","#, object.name));
    }
    if !object.group.is_empty() {
        details.push_str(&format!(r#""group":"{}","#, object.group));
    }
    details.push_str(&format!(r#""kind":"{}"}}"#, object.resource));
    (message, details)
}

/// Appends the only event of a failed authentication, which has neither a user nor annotations.
pub(crate) fn unauthenticated(random: &mut Random, out: &mut Vec<u8>, at: i64, actor: &Actor, uri: &str) {
    let object = match uri {
        "/metrics" => ObjectRef::default(),
        uri if uri.contains("/nodes") => {
            ObjectRef { resource: "nodes", version: "v1", ..ObjectRef::default() }
        }
        uri if uri.contains("/secrets") => {
            ObjectRef { resource: "secrets", version: "v1", ..ObjectRef::default() }
        }
        _ => ObjectRef { resource: "daemonsets", group: "apps", version: "v1", ..ObjectRef::default() },
    };
    let request = Request {
        level: METADATA,
        audit_id: random.uuid(),
        uri,
        verb: if object.resource.is_empty() { "get" } else { "list" },
        actor,
        impersonated: "",
        object,
        body: b"",
        received_us: at - random.between(100, 900) as i64,
        annotations: "",
    };
    let status = Status::Message { message: "Authentication failed, attempted: bearer", code: 401 };
    request.answered(out, RESPONSE_STARTED, at, status, b"");
}

/// Adds a request whose answer lasts long, such as a watch. It causes two events.
#[expect(clippy::too_many_arguments, reason = "the fields of one event, in its order")]
fn long_running(
    random: &mut Random,
    out: &mut Vec<u8>,
    queue: &mut Queue,
    at: i64,
    length_us: i64,
    actor: &Actor,
    verb: &str,
    uri: &str,
    object: ObjectRef<'_>,
    code: u16,
) {
    let request = Request {
        level: METADATA,
        audit_id: random.uuid(),
        uri,
        verb,
        actor,
        impersonated: "",
        object,
        body: b"",
        received_us: at - latency(random),
        annotations: &actor.allowed,
    };
    request.answered(out, RESPONSE_STARTED, at, Status::Code(code), b"");
    let end = at + length_us + random.below(90_000) as i64;
    queue.push(end, |line| request.answered(line, RESPONSE_COMPLETE, end, Status::Code(code), b""));
}

/// Adds an exec, attach or port-forward. All three stages of such a request are recorded.
#[expect(clippy::too_many_arguments, reason = "the fields of one event, in its order")]
pub(crate) fn stream(
    random: &mut Random,
    out: &mut Vec<u8>,
    queue: &mut Queue,
    at: i64,
    length_us: i64,
    actor: &Actor,
    uri: &str,
    object: ObjectRef<'_>,
) {
    // Since websockets replaced SPDY, the verb depends on the version of the client.
    let verb = if random.percent(50) { "get" } else { "create" };
    let request = Request {
        level: REQUEST,
        audit_id: random.uuid(),
        uri,
        verb,
        actor,
        impersonated: "",
        object,
        body: b"",
        received_us: at,
        annotations: &actor.allowed,
    };
    request.received(out);
    let started = at + random.between(9_000, 60_000) as i64;
    queue.push(started, |line| request.answered(line, RESPONSE_STARTED, started, Status::Code(101), b""));
    let end = started + length_us;
    queue.push(end, |line| request.answered(line, RESPONSE_COMPLETE, end, Status::Code(101), b""));
}

pub(crate) fn read_secret(
    random: &mut Random,
    out: &mut Vec<u8>,
    at: i64,
    actor: &Actor,
    namespace: &str,
    name: &str,
) {
    let uri = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let object = ObjectRef { resource: "secrets", namespace, name, version: "v1", ..ObjectRef::default() };
    simple(random, out, at, actor, "get", &uri, object, 200);
}

fn read_pod(random: &mut Random, out: &mut Vec<u8>, at: i64, actor: &Actor, namespace: &str, name: &str) {
    let uri = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let object = pod_object(namespace, name, "");
    if random.percent(3) {
        let message = format!("pods \"{name}\" not found");
        let details = format!(r#"{{"name":"{name}","kind":"pods"}}"#);
        let status = Status::Failure { message: &message, reason: "NotFound", details: &details, code: 404 };
        answered(random, out, at, actor, "get", &uri, object, &actor.allowed, status);
    } else {
        simple(random, out, at, actor, "get", &uri, object, 200);
    }
}

fn write_event(random: &mut Random, out: &mut Vec<u8>, at: i64, actor: &Actor, namespace: &str, about: &str) {
    // Kubernetes names an `Event` after its object and a time in nanoseconds.
    let name = format!("{about}.{:x}", at.unsigned_abs() * 1_000 + random.below(1_000_000));
    let object =
        ObjectRef { resource: "events", namespace, name: &name, version: "v1", ..ObjectRef::default() };
    if random.percent(30) {
        let uri = format!("/api/v1/namespaces/{namespace}/events/{name}");
        simple(random, out, at, actor, "patch", &uri, object, 200);
    } else {
        let uri = format!("/api/v1/namespaces/{namespace}/events");
        simple(random, out, at, actor, "create", &uri, object, 201);
    }
}

fn issue_token(random: &mut Random, out: &mut Vec<u8>, at: i64, kubelet: &Actor, workload: &Workload) {
    let (namespace, name) = (workload.namespace, workload.name);
    let uri = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
    let object = ObjectRef {
        resource: "serviceaccounts",
        namespace,
        name,
        version: "v1",
        subresource: "token",
        ..ObjectRef::default()
    };
    let issued = random.uuid();
    let annotations = format!(
        r#""authentication.kubernetes.io/issued-credential-id":"JTI={}",{}"#,
        std::str::from_utf8(&issued).expect("a UUID is ASCII"),
        kubelet.allowed
    );
    answered(random, out, at, kubelet, "create", &uri, object, &annotations, Status::Code(201));
}

#[expect(clippy::too_many_arguments, reason = "the fields of one event, in its order")]
fn patch_pod_status(
    random: &mut Random,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
    at: i64,
    kubelet: &Actor,
    node_ip: &str,
    workload: &Workload,
    pod: &Pod,
) {
    scratch.body.clear();
    bodies::pod_status_patch(&mut scratch.body, at, workload, pod, node_ip, random);
    let uri = format!("/api/v1/namespaces/{}/pods/{}/status", workload.namespace, pod.name);
    let object = pod_object(workload.namespace, &pod.name, "status");
    with_body(random, out, at, kubelet, "patch", &uri, object, REQUEST, &scratch.body, b"", 200);
}

#[expect(clippy::too_many_arguments, reason = "the fields of one event, in its order")]
fn patch_deployment(
    random: &mut Random,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
    at: i64,
    actor: &Actor,
    uri: &str,
    workload: &Workload,
    revision: u64,
) {
    let generation = random.between(4, 90);
    let tag = format!("2026.3.{}", random.below(60));
    scratch.body.clear();
    scratch.response.clear();
    bodies::deployment_patch(&mut scratch.body, workload, &tag, at);
    let spec = PodSpec::ordinary(workload);
    bodies::deployment(&mut scratch.response, &spec, revision, generation, at);
    let (body, response) = (&scratch.body, &scratch.response);
    let object = deployment_object(workload);
    with_body(random, out, at, actor, "patch", uri, object, REQUEST_RESPONSE, body, response, 200);
}

/// The annotation that an admission webhook leaves on the request for every pod that it reviews.
const POD_ADMISSION: &str = r#","mutation.webhook.admission.k8s.io/round_0_index_1":"{\"configuration\":\"kyverno-resource-mutating-webhook-cfg\",\"webhook\":\"mutate.kyverno.svc-fail\",\"mutated\":false}","pod-security.kubernetes.io/enforce-policy":"baseline:latest""#;

/// Adds the requests for a new pod, from its posting to its readiness. Returns the time when the
/// pod is ready.
#[expect(clippy::too_many_arguments, reason = "the parts of the world that a pod's start moves")]
fn start_pod(
    cluster: &Cluster,
    random: &mut Random,
    scratch: &mut Scratch,
    queue: &mut Queue,
    revision: u64,
    at: i64,
    creator: &Actor,
    workload: &Workload,
    pod: &Pod,
) -> i64 {
    let namespace = workload.namespace;
    let node = &cluster.nodes[pod.node];
    let spec = PodSpec::ordinary(workload);
    scratch.body.clear();
    scratch.response.clear();
    bodies::pod_request(&mut scratch.body, &spec, pod);
    bodies::pod_response(&mut scratch.response, &spec, pod, revision, at);
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let annotations = format!("{}{POD_ADMISSION}", creator.allowed);
    let request = Request {
        level: REQUEST_RESPONSE,
        audit_id: random.uuid(),
        uri: &pods,
        verb: "create",
        actor: creator,
        impersonated: "",
        object: pod_object(namespace, "", ""),
        body: &scratch.body,
        received_us: at - latency(random),
        annotations: &annotations,
    };
    queue.push(at, |line| {
        request.answered(line, RESPONSE_COMPLETE, at, Status::Code(201), &scratch.response);
    });
    let mut next = at + random.between(5_000, 40_000) as i64;
    write_queued(queue, random, next, creator, namespace, &pod.name);

    next += random.between(3_000, 20_000) as i64;
    let uri = format!("{pods}/{}/binding", pod.name);
    let object = pod_object(namespace, &pod.name, "binding");
    queue.push(next, |line| simple(random, line, next, &cluster.scheduler, "create", &uri, object, 201));
    next += random.between(2_000, 9_000) as i64;
    write_queued(queue, random, next, &cluster.scheduler, namespace, &pod.name);

    next += random.between(20_000, 200_000) as i64;
    queue.push(next, |line| read_pod(random, line, next, &node.kubelet, namespace, &pod.name));
    for (resource, name) in
        [("secrets", &workload.secrets[0].name), ("configmaps", &workload.config_maps[0].name)]
    {
        next += random.between(2_000, 30_000) as i64;
        let uri = format!(
            "/api/v1/namespaces/{namespace}/{resource}?fieldSelector=metadata.name%3D{name}&limit=500&resourceVersion=0"
        );
        let object = ObjectRef { resource, namespace, name, version: "v1", ..ObjectRef::default() };
        queue.push(next, |line| simple(random, line, next, &node.kubelet, "list", &uri, object, 200));
    }
    next += random.between(2_000, 30_000) as i64;
    queue.push(next, |line| issue_token(random, line, next, &node.kubelet, workload));
    for wait in [300_000, 1_500_000, 4_000_000] {
        next += wait + random.below(300_000) as i64;
        write_queued(queue, random, next, &node.kubelet, namespace, &pod.name);
        next += random.between(5_000, 50_000) as i64;
        queue.push(next, |line| {
            patch_pod_status(random, scratch, line, next, &node.kubelet, &node.ip, workload, pod);
        });
    }
    next
}

fn write_queued(
    queue: &mut Queue,
    random: &mut Random,
    at: i64,
    actor: &Actor,
    namespace: &str,
    about: &str,
) {
    queue.push(at, |line| write_event(random, line, at, actor, namespace, about));
}
