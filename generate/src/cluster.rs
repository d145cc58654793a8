//! The simulated cluster: its objects and its actors, drawn once from the seed.
//!
//! Invariant: nothing here changes while events are generated, apart from the names of new pods.
//! The cluster belongs to an invented clinic. Addresses are from private ranges (nodes, pods, VPN)
//! and from the documentation ranges of RFC 5737 (the internet). Domain names end in `.example`.

use crate::go;
use crate::line::{Actor, ActorSpec, Credential};
use crate::random::Random;

const SECOND: i64 = go::SECOND;
/// Kubelets renew the token of a pod when 80 % of the token's hour has passed.
const POD_TOKEN_LIFETIME_US: i64 = 2_880 * SECOND;
/// People sign in once every morning.
const PERSON_TOKEN_LIFETIME_US: i64 = 43_200 * SECOND;

pub(crate) const KUBERNETES: &str = "v1.33.4";
const COMMIT: &str = "74cdb2b";
/// Address of the load balancer in front of the API servers, which sets `X-Forwarded-For`.
pub(crate) const LOAD_BALANCER: &str = "10.40.0.10";

pub(crate) struct Cluster {
    pub nodes: Vec<Node>,
    pub workloads: Vec<Workload>,
    pub operators: Vec<Operator>,
    pub controllers: Vec<Controller>,
    pub people: Vec<Person>,
    pub deployers: Vec<Actor>,
    pub scheduler: Actor,
    pub manager: Actor,
    pub resolver: Actor,
    pub prometheus: Actor,
    pub dashboard: Actor,
    /// Service accounts that keep asking for a permission which their roles lack.
    pub misconfigured: Vec<Actor>,
}

pub(crate) struct Node {
    pub name: String,
    pub uid: String,
    pub lease_uid: String,
    pub ip: String,
    /// The images on the node, rendered as the list in its status. They do not change during the
    /// log.
    pub images: String,
    pub kubelet: Actor,
    pub proxy: Actor,
    pub network: Actor,
    pub storage: Actor,
    /// Unauthenticated health checks that come from this node's address.
    pub probe: Actor,
    /// A client on this node whose token has expired.
    pub unauthenticated: Actor,
}

#[derive(Clone)]
pub(crate) struct Workload {
    pub namespace: &'static str,
    pub name: &'static str,
    pub uid: String,
    pub replica_set_uid: String,
    pub image: String,
    /// Digest of the image.
    pub digest: String,
    pub hash: String,
    pub port: u32,
    pub pods: Vec<Pod>,
    pub secrets: Vec<Named>,
    pub config_maps: Vec<Named>,
    pub endpoint_slice: Named,
}

#[derive(Clone)]
pub(crate) struct Pod {
    pub name: String,
    /// The id of the container in its runtime.
    pub container: String,
    pub uid: String,
    pub node: usize,
    pub ip: String,
}

#[derive(Clone)]
pub(crate) struct Named {
    pub name: String,
    pub uid: String,
}

pub(crate) struct Operator {
    pub actor: Actor,
    pub namespace: &'static str,
    pub lease: Option<Named>,
    /// The kind that the operator reconciles: (group, version, resource, kind).
    pub reconciles: (&'static str, &'static str, &'static str, &'static str),
    pub reads_secrets: bool,
}

/// A control loop of kube-controller-manager, which has its own service account.
pub(crate) struct Controller {
    pub name: &'static str,
    pub actor: Actor,
}

pub(crate) struct Person {
    pub actor: Actor,
    /// Namespaces of the person's team; empty for administrators, who use all namespaces.
    pub namespaces: &'static [&'static str],
}

const NAMESPACES: &[(&str, &[&str])] = &[
    ("patient-portal", &["web", "api", "sessions", "notifications", "redis"]),
    ("billing", &["invoices", "claims", "ledger", "postgres"]),
    ("lab-results", &["intake", "viewer", "hl7-gateway", "archive"]),
    ("imaging", &["dicom-router", "viewer", "thumbnailer", "worker"]),
    ("scheduling", &["calendar", "reminders", "api"]),
    ("pharmacy", &["orders", "stock", "prescriptions"]),
    ("identity", &["sso", "directory-sync", "consent"]),
    ("data-platform", &["warehouse-loader", "kafka-connect", "reports", "feature-store"]),
    ("staging", &["web", "api", "worker", "postgres"]),
    ("observability", &["grafana", "loki", "tempo", "alertmanager"]),
];

/// Scheduled jobs: namespace and name.
pub(crate) const CRON_JOBS: &[(&str, &str)] = &[
    ("billing", "nightly-statements"),
    ("lab-results", "result-export"),
    ("data-platform", "warehouse-sync"),
    ("patient-portal", "session-sweeper"),
    ("identity", "directory-pull"),
];

/// Operators: namespace, service account, client, lease, kind reconciled, whether it reads Secrets.
type OperatorRow = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    (&'static str, &'static str, &'static str, &'static str),
    bool,
);
const OPERATORS: &[OperatorRow] = &[
    (
        "cert-manager",
        "cert-manager",
        "cert-manager-controller/v1.18.2 (linux/amd64) cert-manager/36ee1f2",
        "cert-manager-controller",
        ("cert-manager.io", "v1", "certificates", "Certificate"),
        true,
    ),
    (
        "cert-manager",
        "cert-manager-cainjector",
        "cert-manager-cainjector/v1.18.2 (linux/amd64) cert-manager/36ee1f2",
        "cert-manager-cainjector-leader-election",
        ("cert-manager.io", "v1", "certificaterequests", "CertificateRequest"),
        true,
    ),
    (
        "external-secrets",
        "external-secrets",
        "external-secrets/v0.0.0 (linux/amd64) kubernetes/$Format",
        "external-secrets-controller",
        ("external-secrets.io", "v1", "externalsecrets", "ExternalSecret"),
        true,
    ),
    (
        "observability",
        "prometheus-operator",
        "PrometheusOperator/0.83.0",
        "",
        ("monitoring.coreos.com", "v1", "servicemonitors", "ServiceMonitor"),
        true,
    ),
    (
        "argocd",
        "argocd-application-controller",
        "argocd-application-controller/v3.0.12 (linux/amd64)",
        "",
        ("argoproj.io", "v1alpha1", "applications", "Application"),
        true,
    ),
    (
        "ingress-nginx",
        "ingress-nginx",
        "nginx-ingress-controller/v1.13.1 (linux/amd64) ingress-nginx/f1b2d9c",
        "ingress-nginx-leader",
        ("networking.k8s.io", "v1", "ingresses", "Ingress"),
        true,
    ),
    (
        "kube-system",
        "cilium-operator",
        "cilium-operator-generic/1.17.6 5ef9d4c (linux/amd64)",
        "cilium-operator-resource-lock",
        ("cilium.io", "v2", "ciliumidentities", "CiliumIdentity"),
        false,
    ),
    (
        "kube-system",
        "ebs-csi-controller-sa",
        "csi-attacher/v4.9.0",
        "external-attacher-leader-ebs-csi-aws-com",
        ("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment"),
        false,
    ),
    (
        "kyverno",
        "kyverno-admission-controller",
        "kyverno/v1.14.4 (linux/amd64)",
        "kyverno",
        ("kyverno.io", "v2", "policyexceptions", "PolicyException"),
        false,
    ),
    (
        "velero",
        "velero-server",
        "velero-server/v1.16.2 (linux/amd64) 7f2c1d5",
        "",
        ("velero.io", "v1", "backups", "Backup"),
        false,
    ),
];

const CONTROLLERS: &[&str] = &[
    "endpointslice-controller",
    "replicaset-controller",
    "deployment-controller",
    "job-controller",
    "cronjob-controller",
    "horizontal-pod-autoscaler",
    "namespace-controller",
    "generic-garbage-collector",
    "resourcequota-controller",
    "node-controller",
];

/// Columns of [`PEOPLE`]: name, group of the team, namespaces, client.
type PersonRow = (&'static str, &'static str, &'static [&'static str], &'static str);
const PEOPLE: &[PersonRow] = &[
    ("mara.lindqvist", "platform-admins", &[], "kubectl/v1.33.3 (darwin/arm64) kubernetes/80779bd"),
    ("tomasz.wrona", "platform-admins", &[], "kubectl/v1.33.4 (linux/amd64) kubernetes/74cdb2b"),
    ("ines.carvalho", "platform-admins", &[], "k9s/v0.50.9 (darwin/arm64)"),
    (
        "zoë.okafor",
        "team-portal",
        &["patient-portal", "staging"],
        "kubectl/v1.32.7 (darwin/arm64) kubernetes/158eee9",
    ),
    (
        "henrik.dahl",
        "team-portal",
        &["patient-portal", "staging"],
        "kubectl/v1.33.3 (linux/amd64) kubernetes/80779bd",
    ),
    (
        "priya.raman",
        "team-billing",
        &["billing", "staging"],
        "kubectl/v1.33.1 (windows/amd64) kubernetes/8adc0f0",
    ),
    ("luca.ferrante", "team-billing", &["billing", "staging"], "k9s/v0.50.6 (linux/amd64)"),
    (
        "aylin.demir",
        "team-lab",
        &["lab-results", "imaging"],
        "kubectl/v1.33.3 (darwin/arm64) kubernetes/80779bd",
    ),
    (
        "jonas.meier",
        "team-lab",
        &["lab-results", "imaging"],
        "kubectl/v1.31.11 (linux/amd64) kubernetes/2e3dd44",
    ),
    (
        "sofia.petrova",
        "team-pharmacy",
        &["pharmacy", "scheduling"],
        "kubectl/v1.33.3 (darwin/arm64) kubernetes/80779bd",
    ),
    ("emil.novak", "team-pharmacy", &["pharmacy", "scheduling"], "Lens/2025.6.261308-latest"),
    ("grace.mwangi", "team-data", &["data-platform"], "kubectl/v1.33.3 (linux/amd64) kubernetes/80779bd"),
    ("daniel.costa", "team-data", &["data-platform"], "kubectl/v1.33.2 (darwin/arm64) kubernetes/a57b6f7"),
    ("noor.haddad", "team-identity", &["identity"], "kubectl/v1.33.3 (darwin/arm64) kubernetes/80779bd"),
];

impl Cluster {
    pub fn new(random: &mut Random, node_count: u32) -> Cluster {
        let nodes: Vec<Node> = (0..node_count.max(1)).map(|index| node(random, index)).collect();
        let workloads = NAMESPACES
            .iter()
            .flat_map(|(namespace, names)| names.iter().map(move |name| (*namespace, *name)))
            .map(|(namespace, name)| workload(random, namespace, name, nodes.len()))
            .collect();
        let operators = OPERATORS.iter().map(|row| operator(random, row, &nodes)).collect();
        let controllers =
            CONTROLLERS.iter().map(|name| Controller { name, actor: controller(random, name) }).collect();
        let people = PEOPLE.iter().enumerate().map(|(index, row)| person(random, index, row)).collect();
        let deployers = ["gitlab-deployer", "release-bot"]
            .map(|name| {
                account(
                    random,
                    &nodes,
                    "ci",
                    name,
                    "runner-deploy-0",
                    "Helm/3.18.4",
                    "ci-deployer",
                    "ci-deployer",
                )
            })
            .into();
        let scheduler = component(
            random,
            "system:kube-scheduler",
            "kube-scheduler",
            "scheduler",
            "system:kube-scheduler",
        );
        let manager = component(
            random,
            "system:kube-controller-manager",
            "kube-controller-manager",
            "leader-election",
            "system:kube-controller-manager",
        );
        let resolver = account(
            random,
            &nodes,
            "kube-system",
            "coredns",
            "coredns-7d764666f9-8w2lz",
            "coredns/1.12.1 (linux/amd64)",
            "system:coredns",
            "system:coredns",
        );
        let prometheus = account(
            random,
            &nodes,
            "observability",
            "prometheus-k8s",
            "prometheus-k8s-0",
            "Prometheus/3.5.0",
            "prometheus-k8s",
            "prometheus-k8s",
        );
        let dashboard = account(
            random,
            &nodes,
            "headlamp",
            "headlamp",
            "headlamp-6f9c7d8b54-x2kqp",
            "Headlamp/0.34.0 (linux/amd64)",
            "headlamp-impersonator",
            "headlamp-impersonator",
        );
        let misconfigured = [
            ("observability", "kube-state-metrics", "kube-state-metrics/v2.16.0"),
            ("data-platform", "feature-store", "python-requests/2.32.4"),
            ("imaging", "worker", "OpenAPI-Generator/33.1.0/python"),
            ("staging", "api", "okhttp/4.12.0"),
            ("velero", "node-agent", "node-agent-server/v1.16.2 (linux/amd64) 7f2c1d5"),
        ]
        .map(|(namespace, name, agent)| {
            let pod = format!("{name}-{}", random.suffix(5));
            account(random, &nodes, namespace, name, &pod, agent, name, name)
        })
        .into();
        Cluster {
            nodes,
            workloads,
            operators,
            controllers,
            people,
            deployers,
            scheduler,
            manager,
            resolver,
            prometheus,
            dashboard,
            misconfigured,
        }
    }
}

fn text(uuid: [u8; 36]) -> String {
    String::from_utf8(uuid.to_vec()).expect("a UUID is ASCII")
}

pub(crate) fn uid(random: &mut Random) -> String {
    text(random.uuid())
}

fn node(random: &mut Random, index: u32) -> Node {
    let (third, fourth) = (16 + index / 200, 11 + index % 200);
    let ip = format!("10.40.{third}.{fourth}");
    let name = format!("ip-10-40-{third}-{fourth}.ec2.internal");
    let fingerprint = random.hex(64);
    let uid_text = uid(random);
    let kubelet = Actor::new(ActorSpec {
        username: &format!("system:node:{name}"),
        uid: "",
        groups: &["system:nodes", "system:authenticated"],
        extra: "",
        credential: Credential::Certificate(&fingerprint),
        source_ips: &[&ip],
        agent: &format!("kubelet/{KUBERNETES} (linux/amd64) kubernetes/{COMMIT}"),
        reason: "",
    });
    let place = Place { name: &name, uid: &uid_text, ip: &ip };
    let daemon = |random: &mut Random, account: &str, agent: &str| {
        let pod = format!("{account}-{}", random.suffix(5));
        service_account(random, &place, "kube-system", account, &pod, agent, account, account)
    };
    let proxy_agent = format!("kube-proxy/{KUBERNETES} (linux/amd64) kubernetes/{COMMIT}");
    let proxy = daemon(random, "kube-proxy", &proxy_agent);
    let network = daemon(random, "cilium", "cilium-agent/1.17.6 5ef9d4c go version go1.24.5 linux/amd64");
    let storage = daemon(random, "ebs-csi-node-sa", "aws-ebs-csi-driver/v1.46.0");
    let anonymous = |agent: &str, reason: &str| {
        Actor::new(ActorSpec {
            username: "system:anonymous",
            uid: "",
            groups: &["system:unauthenticated"],
            extra: "",
            credential: Credential::None,
            source_ips: &[&ip],
            agent,
            reason,
        })
    };
    let probe = anonymous(
        "kube-probe/1.33",
        "RBAC: allowed by ClusterRoleBinding \"system:public-info-viewer\" of ClusterRole \"system:public-info-viewer\" to Group \"system:unauthenticated\"",
    );
    let unauthenticated = Actor::new(ActorSpec {
        username: "",
        uid: "",
        groups: &[],
        extra: "",
        credential: Credential::None,
        source_ips: &[&ip],
        agent: "node-exporter-textfile/0.3",
        reason: "",
    });
    let images: Vec<String> = (0..random.between(9, 16))
        .map(|_| {
            format!(
                r#"{{"names":["registry.clinic.example/base/layer@sha256:{}"],"sizeBytes":{}}}"#,
                random.hex(64),
                random.between(4_000_000, 400_000_000)
            )
        })
        .collect();
    Node {
        images: format!("[{}]", images.join(",")),
        lease_uid: uid(random),
        name,
        uid: uid_text,
        ip,
        kubelet,
        proxy,
        network,
        storage,
        probe,
        unauthenticated,
    }
}

/// Where a pod runs.
struct Place<'a> {
    name: &'a str,
    uid: &'a str,
    ip: &'a str,
}

#[expect(clippy::too_many_arguments, reason = "one row of a table of accounts")]
fn service_account(
    random: &mut Random,
    place: &Place<'_>,
    namespace: &str,
    name: &str,
    pod: &str,
    agent: &str,
    binding: &str,
    role: &str,
) -> Actor {
    let (account_uid, pod_uid) = (uid(random), uid(random));
    Actor::new(ActorSpec {
        username: &format!("system:serviceaccount:{namespace}:{name}"),
        uid: &account_uid,
        groups: &[
            "system:serviceaccounts",
            &format!("system:serviceaccounts:{namespace}"),
            "system:authenticated",
        ],
        extra: &format!(
            r#""authentication.kubernetes.io/node-name":["{}"],"authentication.kubernetes.io/node-uid":["{}"],"authentication.kubernetes.io/pod-name":["{pod}"],"authentication.kubernetes.io/pod-uid":["{pod_uid}"]"#,
            place.name, place.uid,
        ),
        credential: Credential::Token { identity: random.next(), lifetime_us: POD_TOKEN_LIFETIME_US },
        source_ips: &[place.ip],
        agent,
        reason: &format!(
            "RBAC: allowed by ClusterRoleBinding \"{binding}\" of ClusterRole \"{role}\" to ServiceAccount \"{name}/{namespace}\""
        ),
    })
}

#[expect(clippy::too_many_arguments, reason = "one row of a table of accounts")]
fn account(
    random: &mut Random,
    nodes: &[Node],
    namespace: &str,
    name: &str,
    pod: &str,
    agent: &str,
    binding: &str,
    role: &str,
) -> Actor {
    let node = random.pick(nodes);
    let place = Place { name: &node.name, uid: &node.uid, ip: &node.ip };
    service_account(random, &place, namespace, name, pod, agent, binding, role)
}

fn operator(random: &mut Random, row: &OperatorRow, nodes: &[Node]) -> Operator {
    let (namespace, name, agent, lease, reconciles, reads_secrets) = *row;
    let pod = format!("{name}-{}-{}", random.suffix(10), random.suffix(5));
    let actor = account(random, nodes, namespace, name, &pod, agent, name, name);
    let lease = (!lease.is_empty()).then(|| Named { name: lease.to_owned(), uid: uid(random) });
    Operator { actor, namespace, lease, reconciles, reads_secrets }
}

fn controller(random: &mut Random, name: &str) -> Actor {
    let account_uid = uid(random);
    Actor::new(ActorSpec {
        username: &format!("system:serviceaccount:kube-system:{name}"),
        uid: &account_uid,
        groups: &["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
        extra: "",
        credential: Credential::Token { identity: random.next(), lifetime_us: POD_TOKEN_LIFETIME_US },
        source_ips: &["10.40.0.21"],
        agent: &format!(
            "kube-controller-manager/{KUBERNETES} (linux/amd64) kubernetes/{COMMIT}/system:serviceaccount:kube-system:{name}"
        ),
        reason: &format!(
            "RBAC: allowed by ClusterRoleBinding \"system:controller:{name}\" of ClusterRole \"system:controller:{name}\" to ServiceAccount \"{name}/kube-system\""
        ),
    })
}

fn component(random: &mut Random, username: &str, program: &str, part: &str, role: &str) -> Actor {
    let fingerprint = random.hex(64);
    Actor::new(ActorSpec {
        username,
        uid: "",
        groups: &["system:authenticated"],
        extra: "",
        credential: Credential::Certificate(&fingerprint),
        source_ips: &["10.40.0.21"],
        agent: &format!("{program}/{KUBERNETES} (linux/amd64) kubernetes/{COMMIT}/{part}"),
        reason: &format!(
            "RBAC: allowed by ClusterRoleBinding \"{role}\" of ClusterRole \"{role}\" to User \"{username}\""
        ),
    })
}

fn person(random: &mut Random, index: usize, row: &PersonRow) -> Person {
    let (name, group, namespaces, agent) = *row;
    let (binding, role) =
        if namespaces.is_empty() { ("platform-admins", "cluster-admin") } else { (group, "admin") };
    // Most people reach the servers through the VPN alone. Some also go through a proxy that
    // forwards their address.
    let address = format!("10.8.0.{}", 20 + index);
    let source_ips: &[&str] = if index % 4 == 3 { &[&address, LOAD_BALANCER] } else { &[&address] };
    let actor = Actor::new(ActorSpec {
        username: &format!("{name}@clinic.example"),
        uid: "",
        groups: &[group, "staff", "system:authenticated"],
        extra: "",
        credential: Credential::Token { identity: random.next(), lifetime_us: PERSON_TOKEN_LIFETIME_US },
        source_ips,
        agent,
        reason: &format!(
            "RBAC: allowed by ClusterRoleBinding \"{binding}\" of ClusterRole \"{role}\" to Group \"{group}\""
        ),
    });
    Person { actor, namespaces }
}

fn workload(random: &mut Random, namespace: &'static str, name: &'static str, nodes: usize) -> Workload {
    let hash = random.suffix(10);
    let replicas = random.between(1, 4);
    let pods = (0..replicas).map(|_| pod(random, name, &hash, nodes)).collect();
    let named = |random: &mut Random, name: String| Named { name, uid: uid(random) };
    let secrets = ["credentials", "tls", "api-key", "registry"][..random.between(2, 4) as usize]
        .iter()
        .map(|kind| named(random, format!("{name}-{kind}")))
        .collect();
    let config_maps = ["config", "feature-flags"][..random.between(1, 2) as usize]
        .iter()
        .map(|kind| named(random, format!("{name}-{kind}")))
        .collect();
    let slice = format!("{name}-{}", random.suffix(5));
    Workload {
        namespace,
        name,
        uid: uid(random),
        replica_set_uid: uid(random),
        image: format!(
            "registry.clinic.example/{namespace}/{name}:2026.{}.{}",
            random.between(1, 9),
            random.between(0, 40)
        ),
        digest: random.hex(64),
        hash,
        port: 8_000 + random.below(900) as u32,
        pods,
        secrets,
        config_maps,
        endpoint_slice: named(random, slice),
    }
}

pub(crate) fn pod(random: &mut Random, workload: &str, hash: &str, nodes: usize) -> Pod {
    Pod {
        name: format!("{workload}-{hash}-{}", random.suffix(5)),
        container: random.hex(64),
        uid: uid(random),
        node: random.below(nodes as u64) as usize,
        ip: format!("10.128.{}.{}", random.between(0, 63), random.between(2, 250)),
    }
}
