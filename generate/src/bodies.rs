//! Renders request and response objects, as the API server's encoder writes them into
//! `requestObject` and `responseObject`.
//!
//! Invariant: every constant here is compact and escaped as Go does it. Every value that is
//! inserted is a name, a number or a time, which needs no escaping, so [`put`] only copies. Fields
//! within an object are in the order of the Go types. The audit policy of the simulated cluster
//! leaves out `managedFields` (`omitManagedFields: true`), as recommended for policies that record
//! bodies.

use crate::cluster::{Pod, Workload};
use crate::go;
use crate::random::Random;

/// Appends all parts.
pub(crate) fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Returns a `Time` as text.
pub(crate) fn time_text(at_us: i64) -> String {
    let mut out = Vec::with_capacity(20);
    go::time(&mut out, at_us);
    String::from_utf8(out).expect("a time is ASCII")
}

/// Renders a strategic merge patch of a node's status, which kubelets send every five minutes or
/// when the status changes.
pub(crate) fn node_status_patch(out: &mut Vec<u8>, at_us: i64, images: &str, random: &mut Random) {
    let now = time_text(at_us);
    let free = random.between(40_000_000_000, 90_000_000_000).to_string();
    put(
        out,
        &[
            r#"{"status":{"$setElementOrder/conditions":[{"type":"MemoryPressure"},{"type":"DiskPressure"},{"type":"PIDPressure"},{"type":"Ready"}],"allocatable":{"ephemeral-storage":""#,
            &free,
            r#""},"conditions":[{"lastHeartbeatTime":""#,
            &now,
            r#"","type":"MemoryPressure"},{"lastHeartbeatTime":""#,
            &now,
            r#"","type":"DiskPressure"},{"lastHeartbeatTime":""#,
            &now,
            r#"","type":"PIDPressure"},{"lastHeartbeatTime":""#,
            &now,
            r#"","type":"Ready"}]"#,
        ],
    );
    if random.percent(40) {
        put(out, &[r#","images":"#, images]);
    }
    put(out, &["}}"]);
}

/// Renders a strategic merge patch of a pod's status, which its kubelet sends.
pub(crate) fn pod_status_patch(
    out: &mut Vec<u8>,
    at_us: i64,
    workload: &Workload,
    pod: &Pod,
    node_ip: &str,
    random: &mut Random,
) {
    let now = time_text(at_us);
    let started = time_text(at_us - random.between(2, 9) as i64 * go::SECOND);
    let restarts = random.below(3).to_string();
    put(
        out,
        &[
            r#"{"metadata":{"uid":""#,
            &pod.uid,
            r#""},"status":{"$setElementOrder/conditions":[{"type":"PodReadyToStartContainers"},{"type":"Initialized"},{"type":"Ready"},{"type":"ContainersReady"},{"type":"PodScheduled"}],"conditions":[{"lastTransitionTime":""#,
            &now,
            r#"","message":null,"reason":null,"status":"True","type":"Ready"},{"lastTransitionTime":""#,
            &now,
            r#"","message":null,"reason":null,"status":"True","type":"ContainersReady"}],"containerStatuses":[{"containerID":"containerd://"#,
            &pod.container,
            r#"","image":""#,
            &workload.image,
            r#"","imageID":"registry.clinic.example/"#,
            workload.namespace,
            "/",
            workload.name,
            "@sha256:",
            &workload.digest,
            r#"","lastState":{},"name":""#,
            workload.name,
            r#"","ready":true,"restartCount":"#,
            &restarts,
            r#","started":true,"state":{"running":{"startedAt":""#,
            &started,
            r#""}},"volumeMounts":[{"mountPath":"/etc/"#,
            workload.name,
            r#"","name":"config"},{"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","name":"kube-api-access","readOnly":true,"recursiveReadOnly":"Disabled"}]}],"hostIP":""#,
            node_ip,
            r#"","hostIPs":[{"ip":""#,
            node_ip,
            r#""}],"phase":"Running","podIP":""#,
            &pod.ip,
            r#"","podIPs":[{"ip":""#,
            &pod.ip,
            r#""}],"startTime":""#,
            &started,
            r#""}}"#,
        ],
    );
}

/// The creator of a pod.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    ReplicaSet,
    /// A person who has chosen the pod's name. No object owns the pod.
    Nobody,
}

/// The parts of a pod spec that differ between workloads.
pub(crate) struct PodSpec<'a> {
    pub workload: &'a Workload,
    pub owner: Owner,
    /// Rendered JSON of the container's `securityContext`.
    pub security: &'a str,
    /// Rendered members that precede the pod's own `securityContext`, such as
    /// `"hostNetwork":true,`; usually empty.
    pub host: &'a str,
    /// Rendered volumes that precede the ordinary ones; each ends with a comma.
    pub volumes: &'a str,
}

const SECURITY: &str = r#"{"capabilities":{"drop":["ALL"]},"runAsNonRoot":true,"readOnlyRootFilesystem":true,"allowPrivilegeEscalation":false}"#;

impl<'a> PodSpec<'a> {
    pub fn ordinary(workload: &'a Workload) -> PodSpec<'a> {
        PodSpec { workload, owner: Owner::ReplicaSet, security: SECURITY, host: "", volumes: "" }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (workload, port) = (self.workload, self.workload.port.to_string());
        let name = workload.name;
        put(
            out,
            &[
                r#"{"volumes":["#,
                self.volumes,
                r#"{"name":"config","configMap":{"name":""#,
                &workload.config_maps[0].name,
                r#"","defaultMode":420}},{"name":"tls","secret":{"secretName":""#,
                &workload.secrets[0].name,
                r#"","defaultMode":420}}],"containers":[{"name":""#,
                name,
                r#"","image":""#,
                &workload.image,
                r#"","command":["/bin/sh","-c","ulimit -n 65536 \u0026\u0026 exec /app/"#,
                name,
                " --listen=:",
                &port,
                r#" 2\u003e\u00261"],"ports":[{"name":"http","containerPort":"#,
                &port,
                r#","protocol":"TCP"}],"env":[{"name":"POD_NAME","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}},{"name":"DATABASE_PASSWORD","valueFrom":{"secretKeyRef":{"name":""#,
                &workload.secrets[0].name,
                r#"","key":"password"}}},{"name":"LOG_LEVEL","value":"info"}],"resources":{"limits":{"cpu":"1","memory":"768Mi"},"requests":{"cpu":"150m","memory":"384Mi"}},"volumeMounts":[{"name":"config","mountPath":"/etc/"#,
                name,
                r#""},{"name":"tls","readOnly":true,"mountPath":"/etc/tls"}],"livenessProbe":{"httpGet":{"path":"/healthz","port":"http","scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent","securityContext":"#,
                self.security,
                r#"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":""#,
                name,
                r#"","serviceAccount":""#,
                name,
                r#"","#,
            ],
        );
        put(
            out,
            &[
                self.host,
                r#""securityContext":{"fsGroup":2000,"seccompProfile":{"type":"RuntimeDefault"}},"imagePullSecrets":[{"name":"registry-pull"}],"affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":100,"podAffinityTerm":{"labelSelector":{"matchLabels":{"app.kubernetes.io/name":""#,
                name,
                r#""}},"topologyKey":"kubernetes.io/hostname"}}]}},"schedulerName":"default-scheduler""#,
            ],
        );
        put(out, &["}"]);
    }
}

fn labels(out: &mut Vec<u8>, workload: &Workload, hash: bool) {
    put(
        out,
        &[
            r#""labels":{"app.kubernetes.io/instance":""#,
            workload.namespace,
            r#"","app.kubernetes.io/managed-by":"Helm","app.kubernetes.io/name":""#,
            workload.name,
            "\"",
        ],
    );
    if hash {
        put(out, &[r#","pod-template-hash":""#, &workload.hash, "\""]);
    }
    put(out, &["}"]);
}

fn pod_owner(out: &mut Vec<u8>, workload: &Workload) {
    put(
        out,
        &[
            r#""ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":""#,
            workload.name,
            "-",
            &workload.hash,
            r#"","uid":""#,
            &workload.replica_set_uid,
            r#"","controller":true,"blockOwnerDeletion":true}]"#,
        ],
    );
}

/// Renders a pod as the client posts it.
pub(crate) fn pod_request(out: &mut Vec<u8>, spec: &PodSpec<'_>, pod: &Pod) {
    let workload = spec.workload;
    match spec.owner {
        Owner::ReplicaSet => put(
            out,
            &[
                r#"{"kind":"Pod","apiVersion":"v1","metadata":{"generateName":""#,
                workload.name,
                "-",
                &workload.hash,
                r#"-","creationTimestamp":null,"#,
            ],
        ),
        Owner::Nobody => put(
            out,
            &[
                r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":""#,
                &pod.name,
                r#"","namespace":""#,
                workload.namespace,
                r#"","creationTimestamp":null,"#,
            ],
        ),
    }
    pod_rest(out, spec, r#","status":{}}"#);
}

/// Renders a pod as the server stores it.
pub(crate) fn pod_response(out: &mut Vec<u8>, spec: &PodSpec<'_>, pod: &Pod, revision: u64, at_us: i64) {
    let workload = spec.workload;
    put(out, &[r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":""#, &pod.name, r#"","#]);
    if spec.owner == Owner::ReplicaSet {
        put(out, &[r#""generateName":""#, workload.name, "-", &workload.hash, r#"-","#]);
    }
    put(
        out,
        &[
            r#""namespace":""#,
            workload.namespace,
            r#"","uid":""#,
            &pod.uid,
            r#"","resourceVersion":""#,
            &revision.to_string(),
            r#"","creationTimestamp":""#,
            &time_text(at_us),
            r#"","#,
        ],
    );
    pod_rest(out, spec, r#","status":{"phase":"Pending","qosClass":"Burstable"}}"#);
}

fn pod_rest(out: &mut Vec<u8>, spec: &PodSpec<'_>, status: &str) {
    labels(out, spec.workload, spec.owner == Owner::ReplicaSet);
    put(out, &[r#","annotations":{"prometheus.io/scrape":"true"}"#]);
    if spec.owner == Owner::ReplicaSet {
        put(out, &[","]);
        pod_owner(out, spec.workload);
    }
    put(out, &[r#"},"spec":"#]);
    spec.write(out);
    put(out, &[status]);
}

/// Renders a DaemonSet: as the client posts it if `stored` is `None`, else as the server stores it.
pub(crate) fn daemon_set(out: &mut Vec<u8>, spec: &PodSpec<'_>, stored: Option<(u64, i64)>) {
    let workload = spec.workload;
    put(
        out,
        &[
            r#"{"kind":"DaemonSet","apiVersion":"apps/v1","metadata":{"name":""#,
            workload.name,
            r#"","namespace":""#,
            workload.namespace,
            r#"","#,
        ],
    );
    match stored {
        None => put(out, &[r#""creationTimestamp":null,"#]),
        Some((revision, at_us)) => put(
            out,
            &[
                r#""uid":""#,
                &workload.uid,
                r#"","resourceVersion":""#,
                &revision.to_string(),
                r#"","generation":1,"creationTimestamp":""#,
                &time_text(at_us),
                r#"","#,
            ],
        ),
    }
    labels(out, workload, false);
    put(
        out,
        &[
            r#"},"spec":{"selector":{"matchLabels":{"app.kubernetes.io/name":""#,
            workload.name,
            r#""}},"template":{"metadata":{"creationTimestamp":null,"#,
        ],
    );
    labels(out, workload, false);
    put(out, &[r#"},"spec":"#]);
    spec.write(out);
    put(
        out,
        &[
            r#"},"updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":1,"maxSurge":0}},"revisionHistoryLimit":10},"status":{"currentNumberScheduled":0,"numberMisscheduled":0,"desiredNumberScheduled":0,"numberReady":0}}"#,
        ],
    );
}

/// Renders the strategic merge patch of a rollout, which has a new image and new annotations.
pub(crate) fn deployment_patch(out: &mut Vec<u8>, workload: &Workload, tag: &str, at_us: i64) {
    put(
        out,
        &[
            r#"{"metadata":{"annotations":{"clinic.example/change":"queue \u003c 2 min \u0026 no retries\u2028voir « Chaînes »","clinic.example/deployed-by":"pipeline","meta.helm.sh/release-name":""#,
            workload.name,
            r#""}},"spec":{"template":{"metadata":{"annotations":{"clinic.example/rollout":""#,
            &time_text(at_us),
            r#""}},"spec":{"$setElementOrder/containers":[{"name":""#,
            workload.name,
            r#""}],"containers":[{"image":"registry.clinic.example/"#,
            workload.namespace,
            "/",
            workload.name,
            ":",
            tag,
            r#"","name":""#,
            workload.name,
            r#""}]}}}}"#,
        ],
    );
}

/// Renders a Deployment as in the server's answer to a write.
pub(crate) fn deployment(out: &mut Vec<u8>, spec: &PodSpec<'_>, revision: u64, generation: u64, at_us: i64) {
    let workload = spec.workload;
    let replicas = workload.pods.len().to_string();
    let now = time_text(at_us);
    put(
        out,
        &[
            r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":""#,
            workload.name,
            r#"","namespace":""#,
            workload.namespace,
            r#"","uid":""#,
            &workload.uid,
            r#"","resourceVersion":""#,
            &revision.to_string(),
            r#"","generation":"#,
            &generation.to_string(),
            r#","creationTimestamp":"2025-11-04T09:12:33Z","#,
        ],
    );
    labels(out, workload, false);
    put(
        out,
        &[
            r#","annotations":{"deployment.kubernetes.io/revision":""#,
            &generation.to_string(),
            r#"","meta.helm.sh/release-name":""#,
            workload.name,
            r#"","meta.helm.sh/release-namespace":""#,
            workload.namespace,
            r#""}},"spec":{"replicas":"#,
            &replicas,
            r#","selector":{"matchLabels":{"app.kubernetes.io/name":""#,
            workload.name,
            r#""}},"template":{"metadata":{"creationTimestamp":null,"#,
        ],
    );
    labels(out, workload, false);
    put(out, &[r#"},"spec":"#]);
    spec.write(out);
    put(
        out,
        &[
            r#"},"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"25%","maxSurge":"25%"}},"revisionHistoryLimit":10,"progressDeadlineSeconds":600},"status":{"observedGeneration":"#,
            &generation.to_string(),
            r#","replicas":"#,
            &replicas,
            r#","updatedReplicas":"#,
            &replicas,
            r#","readyReplicas":"#,
            &replicas,
            r#","availableReplicas":"#,
            &replicas,
            r#","conditions":[{"type":"Available","status":"True","lastUpdateTime":""#,
            &now,
            r#"","lastTransitionTime":"2025-11-04T09:12:51Z","reason":"MinimumReplicasAvailable","message":"Deployment has minimum availability."},{"type":"Progressing","status":"True","lastUpdateTime":""#,
            &now,
            r#"","lastTransitionTime":"2025-11-04T09:12:33Z","reason":"NewReplicaSetAvailable","message":"ReplicaSet \""#,
            workload.name,
            "-",
            &workload.hash,
            r#"\" has successfully progressed."}]}}"#,
        ],
    );
}

/// Renders the status update that an operator makes to a custom resource.
pub(crate) fn custom_status(
    out: &mut Vec<u8>,
    group_version: &str,
    kind: &str,
    namespace: &str,
    name: &str,
    revision: u64,
    at_us: i64,
) {
    let now = time_text(at_us);
    put(
        out,
        &[
            r#"{"apiVersion":""#,
            group_version,
            r#"","kind":""#,
            kind,
            r#"","metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\""#,
            group_version,
            r#"\",\"kind\":\""#,
            kind,
            r#"\",\"metadata\":{\"annotations\":{},\"name\":\""#,
            name,
            r#"\",\"namespace\":\""#,
            namespace,
            r#"\"}}\n"},"creationTimestamp":"2025-10-21T13:40:02Z","generation":3,"name":""#,
            name,
            r#"","namespace":""#,
            namespace,
            r#"","resourceVersion":""#,
            &revision.to_string(),
            r#""},"spec":{"refreshInterval":"1h","target":{"creationPolicy":"Owner","name":""#,
            name,
            r#""}},"status":{"conditions":[{"lastTransitionTime":"2025-10-21T13:40:09Z","message":"up to date","observedGeneration":3,"reason":"Synced","status":"True","type":"Ready"}],"refreshTime":""#,
            &now,
            r#"","syncedResourceVersion":"3-"#,
            &revision.to_string(),
            r#""}}"#,
        ],
    );
}

/// The options of a deletion.
pub(crate) const DELETE_OPTIONS: &[u8] =
    br#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}"#;

/// Renders a review of whether a user may do something. With `answer`, it has the server's reply.
pub(crate) fn self_review(
    out: &mut Vec<u8>,
    namespace: &str,
    verb: &str,
    resource: &str,
    answer: Option<bool>,
) {
    put(
        out,
        &[
            r#"{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{"creationTimestamp":null},"spec":{"resourceAttributes":{"namespace":""#,
            namespace,
            r#"","verb":""#,
            verb,
            r#"","resource":""#,
            resource,
            r#""}},"status":"#,
            match answer {
                None => r#"{"allowed":false}}"#,
                Some(true) => r#"{"allowed":true,"reason":"RBAC: allowed by RoleBinding"}}"#,
                Some(false) => r#"{"allowed":false}}"#,
            },
        ],
    );
}

/// Renders the Job that the controller of a CronJob posts.
pub(crate) fn job_request(out: &mut Vec<u8>, namespace: &str, name: &str, uid: &str) {
    put(
        out,
        &[
            r#"{"kind":"Job","apiVersion":"batch/v1","metadata":{"name":""#,
            name,
            r#"","namespace":""#,
            namespace,
            r#"","creationTimestamp":null,"ownerReferences":[{"apiVersion":"batch/v1","kind":"CronJob","name":""#,
            name,
            r#"","uid":""#,
            uid,
            r#"","controller":true,"blockOwnerDeletion":true}]},"spec":{"backoffLimit":2,"template":{"metadata":{"creationTimestamp":null},"spec":{"containers":[{"name":"job","image":"registry.clinic.example/"#,
            namespace,
            r#"/jobs:2026.2.1","command":["/app/run","--since=24h","--rows\u003e0"],"resources":{"requests":{"cpu":"100m","memory":"256Mi"}},"imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Never"}}},"status":{}}"#,
        ],
    );
}
