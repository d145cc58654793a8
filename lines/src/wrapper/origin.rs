//! Finds out from the metadata beside an event who wrote its text.
//!
//! Any pod may print text that looks like an event, and shippers put the pod's name beside the text
//! in many spellings. So the members of a carrier, or of an item of a list, are read, except the
//! values that contain events. The *compact name* of a member shows what the member names. It has
//! the letters and digits of the names on the path to the member, in lower case.
//! `kubernetes.container.name`, `k8s_container_name`, `containerName` and
//! `{"container":{"name":…}}` all end in `containername`.
//!
//! Shippers also put copies of the event, or of its members, beside it, and a client of the cluster
//! chooses what is in a body, a URI or a user agent. Invariants:
//! - The content of an event, or of a copy of one, never decides who wrote the event. Members that
//!   are named like those of an event are not judged, and neither are objects that have an event's
//!   members or those of an object of Kubernetes. Paths of logs are looked for only in members that
//!   are named like paths or tags.
//! - Text is refused if any of these members names a writer that is not believed (see [`Writers`]),
//!   or standard error. A name that is not a string is refused too. Metadata that names nobody is
//!   accepted.
//! - At most [`LEVELS_MAX`](walk::LEVELS_MAX) levels of objects and lists are opened. An object or
//!   list below the last level is not read. If its own name is that of a member which names a
//!   writer, the text is refused. Text with more than [`MEMBERS_MAX`] members, or more than
//!   [`NAMES_MAX`] names of one kind, is refused. So the work is linear in the metadata, and the
//!   stack is bounded. No state.

mod names;
mod paths;
mod walk;

use serde_json::value::RawValue;

use self::paths::Where;
use self::walk::{MEMBERS_MAX, Strictness, TOP, Walk};
use super::writers::Writers;
use crate::json::Members;
use crate::reject::{Reason, Refusal};

/// Maximum number of different names of one kind.
const NAMES_MAX: usize = 16;
/// Longest name that a refusal repeats.
const SHOWN_BYTES_MAX: usize = 64;

/// What the members beside a text say about who wrote it.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    containers: Vec<String>,
    namespaces: Vec<String>,
    pods: Vec<String>,
    /// Containers and their namespaces, taken from the paths of their logs.
    paths: Vec<(String, String)>,
    units: Vec<String>,
    streams: Vec<String>,
    groups: Vec<String>,
    categories: Vec<String>,
    /// Names of services or applications, which say little about the writer.
    services: Vec<String>,
    is_stderr: bool,
    /// The kind of writer that a member should name, if the name cannot be read.
    unread: Option<&'static str>,
}

/// A writer that is not believed.
pub(super) struct Other {
    what: &'static str,
    name: Option<String>,
}

impl Other {
    pub(super) fn new(what: &'static str, name: &str) -> Other {
        Other { what, name: Some(name.to_owned()) }
    }

    /// Returns a writer without a name, such as a program that writes a log of its own.
    pub(super) fn of_log(what: &'static str) -> Other {
        Other { what, name: None }
    }

    /// Refuses a text that this writer wrote. If the text is an audit event, the refusal says so
    /// and names the writer: it may be an API server under a name that is not known here.
    pub(super) fn refusal(&self, is_event: bool) -> Refusal {
        if !is_event {
            return Refusal::new(Reason::OtherCategory, format!("from {}", self.what));
        }
        let name = self.name.as_deref().map(shown).unwrap_or_default();
        Refusal::new(Reason::UntrustedOrigin, format!("an audit event from {}{name}", self.what))
    }
}

/// Returns a name in the form in which a refusal repeats it. Names of Kubernetes, systemd and
/// clouds have only these characters.
fn shown(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@#[]$*".contains(&byte);
    match name.len() <= SHOWN_BYTES_MAX && !name.is_empty() && name.bytes().all(is_plain) {
        true => format!(": {name}"),
        false => ", whose name cannot be shown".to_owned(),
    }
}

const CONTAINER: &str = "a container other than an API server";
const STANDARD_ERROR: &str = "standard error of a container";
const UNIT: &str = "a unit other than an API server's";
const STREAM: &str = "a log stream other than an API server's";
const CATEGORY: &str = "a category other than those of the API server";
const SERVICE: &str = "a service other than an API server";

impl Origin {
    /// Returns what the `members` beside a text say. The values in `held` are slices of the
    /// members. They hold events, and are not read.
    pub(super) fn of(members: &Members<'_>, held: &[&RawValue]) -> Origin {
        let mut origin = Origin::default();
        origin.add(members, held, Strictness::Carrier);
        origin
    }

    /// Like [`of`](Self::of), for the labels of Loki and the attributes of OpenTelemetry, in which
    /// the names of services and applications say whose text it is.
    pub(super) fn of_labels(members: &Members<'_>, held: &[&RawValue]) -> Origin {
        let mut origin = Origin::default();
        origin.add_labels(members, held);
        origin
    }

    pub(super) fn add_labels(&mut self, members: &Members<'_>, held: &[&RawValue]) {
        self.add(members, held, Strictness::Services);
    }

    /// Like [`add_labels`](Self::add_labels), for the members of `value`. A value that is not an
    /// object says nothing.
    pub(super) fn add_labels_of(&mut self, value: Option<&RawValue>) {
        let Some(value) = value.filter(|value| value.get().starts_with('{')) else { return };
        match serde_json::from_str::<Members<'_>>(value.get()) {
            Ok(members) => self.add_labels(&members, &[]),
            Err(_) => self.unread = Some(CONTAINER),
        }
    }

    fn add(&mut self, members: &Members<'_>, held: &[&RawValue], strictness: Strictness) {
        let mut walk = Walk { held, strictness, members_left: MEMBERS_MAX, origin: self };
        if walk.object(members, TOP).is_none() {
            self.unread = Some(CONTAINER);
        }
    }

    /// Returns what a member beside the event's own says. Such members exist if a shipper took the
    /// event out of what a container printed, and put the event's members among its own.
    fn of_member(name: &str, value: &RawValue) -> Origin {
        let mut origin = Origin::default();
        let mut walk =
            Walk { held: &[], strictness: Strictness::Event, members_left: MEMBERS_MAX, origin: &mut origin };
        if walk.member(name, value, TOP).is_none() {
            origin.unread = Some(CONTAINER);
        }
        origin
    }

    /// Returns what a tag, a path or a sourcetype says alone.
    pub(super) fn of_tag(tag: &str) -> Origin {
        let mut origin = Origin::default();
        origin.path(tag, Where::Anywhere);
        origin
    }

    /// Returns what the names of a log stream of CloudWatch and of its group say.
    pub(super) fn of_stream(stream: Option<&str>, group: Option<&str>) -> Origin {
        let mut origin = Origin::of_tag(stream.unwrap_or_default());
        origin.streams.extend(stream.map(str::to_owned));
        origin.groups.extend(group.map(str::to_owned));
        origin
    }

    /// Whether a container is named.
    pub(super) fn names_container(&self) -> bool {
        !self.containers.is_empty() || !self.paths.is_empty()
    }

    /// Returns the writer, if it is not believed.
    pub(super) fn other(&self, writers: &Writers) -> Option<Other> {
        if self.is_stderr && !writers.is_unjudged() {
            return Some(standard_error());
        }
        if writers.is_anyone() {
            return None;
        }
        if let Some(what) = self.unread {
            return Some(Other { what, name: None });
        }
        self.other_container(writers).or_else(|| self.other_name(writers))
    }

    fn other_container(&self, writers: &Writers) -> Option<Other> {
        let or_none = |names: &[String]| -> Vec<Option<String>> {
            if names.is_empty() { vec![None] } else { names.iter().cloned().map(Some).collect() }
        };
        let (containers, namespaces) = (or_none(&self.containers), or_none(&self.namespaces));
        let pairs = containers.iter().flat_map(|container| {
            namespaces.iter().map(move |namespace| (container.as_deref(), namespace.as_deref()))
        });
        let paths = self.paths.iter().map(|(container, namespace)| (Some(&**container), Some(&**namespace)));
        for (container, namespace) in pairs.chain(paths) {
            let is_named = container.is_some() || namespace.is_some();
            if is_named && !writers.believe_container(container, namespace) {
                let name = [namespace.unwrap_or("*"), "/", container.unwrap_or("*")].concat();
                return Some(Other::new(CONTAINER, &name));
            }
        }
        if self.containers.is_empty() {
            let namespace = self.namespaces.first().map(String::as_str);
            if let Some(pod) = self.pods.iter().find(|pod| !writers.believe_pod(pod, namespace)) {
                return Some(Other::new(CONTAINER, pod));
            }
        }
        None
    }

    fn other_name(&self, writers: &Writers) -> Option<Other> {
        if let Some(unit) = self.units.iter().find(|unit| !writers.believe_unit(unit)) {
            return Some(Other::new(UNIT, unit));
        }
        let group = self.groups.first().map(String::as_str);
        if let Some(stream) = self.streams.iter().find(|stream| !writers.believe_stream(Some(stream), group))
        {
            let name = group.map_or_else(|| stream.clone(), |group| format!("{group}:{stream}"));
            return Some(Other::new(STREAM, &name));
        }
        if let (Some(group), true) = (group, self.streams.is_empty())
            && !writers.believe_stream(None, Some(group))
        {
            return Some(Other::new(STREAM, group));
        }
        if let Some(category) = self.categories.iter().find(|name| !writers.believe_category(name)) {
            return Some(Other::new(CATEGORY, category));
        }
        let service = self.services.iter().find(|name| !writers.believe_name(name));
        service.map(|name| Other::new(SERVICE, name))
    }
}

/// Refuses an event because of the member `name` beside its own, if that member names a writer that
/// is not believed.
pub(super) fn other_beside(name: &str, value: &RawValue, writers: &Writers) -> Option<Refusal> {
    Origin::of_member(name, value).other(writers).map(|other| other.refusal(true))
}

/// Refuses an event because of the member `name` beside its own, whose value cannot be read, if the
/// value may name a writer.
pub(super) fn unread_beside(name: &str, writers: &Writers) -> Option<Refusal> {
    let origin = Origin { unread: names::may_name(name).then_some(CONTAINER), ..Origin::default() };
    origin.other(writers).map(|other| other.refusal(true))
}

/// Standard error of a container, which is never believed: the API server logs there what clients
/// send.
pub(super) fn standard_error() -> Other {
    Other::of_log(STANDARD_ERROR)
}

#[cfg(test)]
mod tests {
    use super::names::compact;
    use super::walk::LEVELS_MAX;
    use super::*;
    use crate::wrapper::{Reading, Writer, decode_alone_of};

    const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","verb":"get"}"#;

    /// Replaces `EV` by an event in a string.
    fn decode_by(line: &str, writers: &[&str]) -> Result<(), Refusal> {
        let writers = writers.iter().map(|text| Writer::parse(text).expect(text)).collect();
        let reading = Reading { unwrap: None, writers: Writers::new(writers) };
        let text = line.replace("EV", &serde_json::Value::from(EVENT).to_string());
        decode_alone_of(text.as_bytes(), &reading, 64).map(|_| ())
    }

    fn decode(line: &str) -> Result<(), Reason> {
        decode_by(line, &[]).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn text_of_others_is_refused_however_they_are_named() {
        for line in [
            r#"{"time":1,"source":"/var/log/pods/default_x_uid/x/0.log","event":EV}"#,
            r#"{"time":1,"sourcetype":"kube:container:x","event":EV}"#,
            r#"{"event":EV,"fields":{"k8s.container.name":"x"}}"#,
            r#"{"event":EV,"fields":{"k8s.namespace.name":"default"}}"#,
            r#"{"event":{"message":EV},"message":EV,"fields":{"namespace":"default"}}"#,
            r#"{"message":EV,"log":{"file":{"path":"/var/log/containers/x_default_x-1a.log"}}}"#,
            r#"{"message":EV,"container":{"name":"x"}}"#,
            r#"{"message":EV,"kubernetes.container.name":"x"}"#,
            r#"{"message":EV,"kubernetes_container_name":"x"}"#,
            r#"{"message":EV,"containerName":"x"}"#,
            r#"{"message":EV,"ContainerName":"x","LogSource":"stdout"}"#,
            r#"{"message":EV,"LogSource":"stderr"}"#,
            r#"{"message":EV,"kubernetes.namespace":"default"}"#,
            r#"{"message":EV,"kubernetes":{"container":{"name":"x"}}}"#,
            r#"{"message":EV,"kubernetes":{"pod_namespace":"default"}}"#,
            r#"{"message":EV,"file":"/var/log/pods/default_x_uid/x/0.log"}"#,
            r#"{"message":EV,"file":"\/var\/log\/pods\/default_x_uid\/x\/0.log"}"#,
            r#"{"body":{"stringValue":EV},"attributes":{"log.iostream":"stderr"}}"#,
            r#"{"body":EV,"resource":{"attributes":{"k8s.container.name":"x"}}}"#,
            r#"{"body":EV,"resource":{"attributes":[{"key":"k8s.container.name","value":{"stringValue":"x"}}]}}"#,
            r#"{"body":EV,"resource":{"attributes":[{"key":"k8s.container.name","value":{"intValue":"1"}}]}}"#,
            r#"{"body":EV,"resource":{"k8s.namespace.name":"default"}}"#,
            r#"{"log":EV,"kubernetes":{"namespace_name":"kube-apiserver-x","container_name":"kube-apiserver"}}"#,
            r#"{"log":EV,"kubernetes":{"pod_name":"x","namespace_name":"kube-system"}}"#,
            r#"{"log":EV,"kubernetes":{"pod_name":"x","host":"n1"}}"#,
            r#"{"log":EV,"kubernetes":[{"container_name":"x"}]}"#,
            r#"{"log":EV,"k8s":{"container_name":"x"}}"#,
            r#"{"log":EV,"tag":"kube.var.log.containers.x_default_x-1a.log"}"#,
            r#"{"log":EV,"tag":"kube.var.log.pods.default_x_uid.x.0.log"}"#,
            r#"{"log":EV,"tag":"kube.var.log.containers.x"}"#,
            r#"{"log":EV,"attrs":{"tag":"k8s_x_x_default_uid_0"}}"#,
            r#"{"log":EV,"container_name":"x"}"#,
            r#"{"log":EV,"namespace_name":"default"}"#,
            r#"{"log":EV,"key":"k","value":"v","container_name":"x"}"#,
            r#"{"log":EV,"kubernetes":{"container_name":null}}"#,
            r#"{"log":EV,"kubernetes":{"container_name":["kube-apiserver"]}}"#,
            r#"{"log":EV,"kubernetes":{"ns":"shop"}}"#,
            // Members that a pod prints, and a shipper merges into its own.
            r#"{"time":1.5,"event":{"log":"x","events":[],"message":EV,"kubernetes":{"container_name":"web"}}}"#,
            r#"{"time":1.5,"event":{"kind":"x","message":EV,"kubernetes":{"container_name":"web"}}}"#,
            r#"{"message":EV,"log":{"offset":1,"file":{"path":"/var/log/containers/web-1_shop_web-1a2b.log"},"events":[]}}"#,
            r#"{"message":EV,"log":{"file":{"path":"/var/log/containers/web-1_shop_web-1a2b.log"},"kind":"x","apiVersion":"y"}}"#,
            r#"{"message":EV,"kubernetes":{"namespace":"shop","container":{"name":"web"},"kind":"x","spec":{}}}"#,
            r#"{"message":EV,"kubernetes":{"namespace":"shop","container":{"name":"web"},"auditID":"x","user":{}}}"#,
            r#"{"message":EV,"log":{"file":{"path":"C:\\var\\log\\containers\\web-1_shop_web-1a2b.log"}}}"#,
            r#"{"log":EV,"k8s_ns":"shop"}"#,
            r#"{"log":EV,"kube_pod":"web-1"}"#,
            r#"{"log":EV,"kube_container":"web"}"#,
            r#"{"log":EV,"meta":{"namespace":"shop","pod":"web-1"}}"#,
            r#"{"log":EV,"kubernetes":{"namespace_name":{"n":"kube-system"}}}"#,
            r#"{"log":EV,"log_processed":EV,"stream":"stderr"}"#,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":EV},"attributes":[{"key":"k8s.container.name","value":{"stringValue":"x"}}]}]}]}]}"#,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":EV},"attributes":[{"key":"log.iostream","value":{"stringValue":"stderr"}}]}]}]}]}"#,
            r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"k8s.namespace.name","value":{"stringValue":"default"}}]},"scopeLogs":[{"logRecords":[{"body":{"stringValue":EV}}]}]}]}"#,
            r#"{"streams":[{"stream":{"filename":"/var/log/pods/default_x_uid/x/0.log"},"values":[["1",EV]]}]}"#,
            r#"{"streams":[{"stream":{"stream":"stderr"},"values":[["1",EV]]}]}"#,
            r#"{"stream":{"k8s_container_name":"x"},"values":[["1",EV]]}"#,
            r#"{"stream":{"k8s_namespace_name":"default"},"values":[["1",EV]]}"#,
            r#"{"stream":{"unit":"sshd.service"},"values":[["1",EV]]}"#,
            r#"{"stream":{},"values":[["1",EV,{"container":"x"}]]}"#,
            r#"{"timestamp":1,"message":EV,"logStream":"fluentbit-kube.x"}"#,
            r#"{"timestamp":1,"message":EV,"logGroup":"/aws/containerinsights/c/application"}"#,
            r#"{"timestamp":1,"message":EV,"logStreamName":null}"#,
            r#"{"events":[{"timestamp":1,"message":EV}],"searchedLogStreams":[{"logStreamName":"x"}]}"#,
            r#"{"_raw":EV,"source":"/var/log/containers/x_default_x.log"}"#,
            r#"{"MESSAGE":EV,"_SYSTEMD_UNIT":"sshd.service"}"#,
            r#"{"MESSAGE":EV,"SYSLOG_IDENTIFIER":"x"}"#,
            r#"{"MESSAGE":EV,"CONTAINER_NAME":"x"}"#,
            r#"{"log_s":EV,"Category":"kube-scheduler"}"#,
            r#"{"message":EV,"ddtags":"env:x,kube_namespace:shop,kube_container_name:web"}"#,
            r#"{"message":EV,"tags":["env:x","kube_namespace:shop"]}"#,
            r#"{"stream":{"job":"shop/web"},"values":[["1",EV]]}"#,
            r#"{"stream":{"service_name":"checkout"},"values":[["1",EV]]}"#,
            r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"checkout"}}]},"scopeLogs":[{"logRecords":[{"body":{"stringValue":EV}}]}]}]}"#,
            r#"{"messageType":"DATA_MESSAGE","logGroup":"/shop","logStream":"web","logEvents":[{"id":"1","timestamp":1,"message":EV}]}"#,
            r#"{"messageType":"DATA_MESSAGE","logEvents":[{"id":"1","timestamp":1,"message":EV}]}"#,
            r#"{"category":"x","properties":{"log":EV}}"#,
            r#"{"logName":"projects/p/logs/stdout","insertId":"1","textPayload":EV,"resource":{"type":"k8s_container","labels":{"namespace_name":"shop","container_name":"web"}}}"#,
            r#"{"logName":"projects/p/logs/app","insertId":"1","jsonPayload":{"message":EV}}"#,
            r#"{"message":EV,"level":"info"}"#,
            r#"{"message":EV,"@timestamp":"t","log.level":"INFO","log.logger":"org.example.Web"}"#,
            r#"{"message":EV,"log":{"logger":"x","level":"warn"}}"#,
            r#"{"msg":EV,"level":"info","ts":1}"#,
            r#"{"labels":{"namespace":"default","auditID":"a","user":"x","kind":"Event"},"line":EV,"timestamp":"t"}"#,
            r#"{"stream":{"instance":"shop/web-1:web","job":"loki.source.kubernetes.pods"},"values":[["1",EV]]}"#,
            r#"{"@log_name":"kubernetes.var.log.containers.web-1_shop_web-0123456789.log","log":EV,"stream":"stdout"}"#,
            r#"{"time":1.0,"event":{"log":EV,"stream":"stdout","kubernetes":{"namespace_name":"shop","container_name":"web"}}}"#,
            r#"{"file":"/host/var/log/pods/shop_web_uid/web/0.log","message":EV}"#,
            r#"{"records":[{"category":"kube-audit","properties":{"log":EV}}],"kubernetes":{"namespace_name":"shop"}}"#,
            r#"{"category":"kube-audit","properties":{"log":EV},"kubernetes":{"container_name":"web"}}"#,
            r#"{"messageType":"DATA_MESSAGE","logStream":"kube-apiserver-audit-1a","logEvents":[{"id":"1","message":EV}],"tag":"kube.var.log.containers.web-1_shop_web-01.log"}"#,
            r#"{"events":[{"timestamp":1,"message":EV}],"kubernetes":{"namespace_name":"shop"}}"#,
            r#"{"streams":[{"stream":{},"values":[["1",EV]]}],"kubernetes":{"namespace_name":"shop"}}"#,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":EV}}]}]}],"stream":"stderr"}"#,
        ] {
            assert_eq!(decode(line), Err(Reason::UntrustedOrigin), "{line}");
            let other = line.replace("EV", r#""{\"n\":1}""#);
            assert!(matches!(decode(&other), Err(reason) if reason != Reason::UntrustedOrigin), "{other}");
        }
    }

    #[test]
    fn a_refusal_names_the_writer() {
        for (line, detail) in [
            (
                r#"{"log":EV,"kubernetes":{"namespace_name":"shop","container_name":"web"}}"#,
                "a container other than an API server: shop/web",
            ),
            (
                r#"{"MESSAGE":EV,"_SYSTEMD_UNIT":"sshd.service"}"#,
                "a unit other than an API server's: sshd.service",
            ),
            (
                r#"{"timestamp":1,"message":EV,"logGroup":"/shop","logStream":"web"}"#,
                "a log stream other than an API server's: /shop:web",
            ),
            (
                r#"{"log":EV,"container_name":"a b"}"#,
                "a container other than an API server, whose name cannot be shown",
            ),
            (r#"{"log":EV,"stream":"stderr"}"#, "standard error of a container"),
        ] {
            let refusal = decode_by(line, &[]).expect_err(line);
            assert_eq!(refusal.detail, format!("an audit event from {detail}"), "{line}");
        }
    }

    #[test]
    fn an_operator_can_believe_other_writers() {
        for (line, writer) in [
            (
                r#"{"log":EV,"kubernetes":{"namespace_name":"clusters-a","container_name":"audit-logs","pod_name":"x"}}"#,
                "clusters-*/audit-logs",
            ),
            (
                r#"{"log":EV,"kubernetes":{"namespace_name":"clusters-a","pod_name":"x"}}"#,
                "clusters-a/audit-logs",
            ),
            (
                r#"{"log":EV,"tag":"kube.var.log.containers.kube-apiserver-x_shoot--a--b_kube-apiserver-1a.log"}"#,
                "shoot--*/kube-apiserver",
            ),
            (r#"{"MESSAGE":EV,"_SYSTEMD_UNIT":"gardener.service"}"#, "gardener"),
            (r#"{"timestamp":1,"message":EV,"logGroup":"/k8s/prod","logStream":"x"}"#, "/k8s/*"),
            (
                r#"{"messageType":"DATA_MESSAGE","logGroup":"/k8s/prod","logStream":"x","logEvents":[{"id":"1","timestamp":1,"message":EV}]}"#,
                "/k8s/prod",
            ),
            (r#"{"logName":"projects/p/logs/k8s","insertId":"1","textPayload":EV}"#, "k8s"),
            (r#"{"category":"x","properties":{"log":EV}}"#, "x"),
            (r#"{"stream":{"service_name":"k"},"values":[["1",EV]]}"#, "k"),
            (&format!("2026-03-02T10:00:00.000Z node1 {EVENT}"), "node1"),
            (&format!("2026-03-02T10:00:00Z\tkube.var.log.containers.x_a_b-1a.log\t{EVENT}"), "a/b"),
            (&EVENT.replace('}', r#","kubernetes":{"container_name":"x"}}"#), "*"),
        ] {
            assert_eq!(decode(line), Err(Reason::UntrustedOrigin), "{line}");
            for writers in [&[writer][..], &["x", "*"]] {
                assert_eq!(decode_by(line, writers), Ok(()), "{line} {writers:?}");
            }
        }
        for line in [r#"{"log":EV,"stream":"stderr"}"#, r#"{"msg":EV,"ts":1,"caller":"x"}"#] {
            assert!(decode_by(line, &["*"]).is_err(), "{line}");
        }
    }

    /// What a client of the cluster chooses: each of these would refuse the event beside it.
    const CHOSEN: [&str; 6] = [
        r#""namespace":"shop""#,
        r#""containerName":"web""#,
        r#""namespace_name":"shop","container":"web""#,
        r#""source":"/var/log/pods/shop_web_uid/web/0.log""#,
        r#""stream":"stderr""#,
        r#""x":"k8s_web_web_shop_uid_0""#,
    ];

    #[test]
    fn what_is_in_an_event_or_a_copy_of_it_never_decides() {
        let places = [
            r#"{"message":EV,"parsed":EVENT}"#,
            r#"{"log":EV,"stream":"stdout","log_processed":EVENT}"#,
            r#"{"message":EV,"a":{"b":[EVENT]}}"#,
            r#"{"message":EV,"requestObject":BODY}"#,
            r#"{"message":EV,"requestObject.metadata":BODY,"responseObject_x":BODY}"#,
            r#"{"message":EV,"request":{"kind":"Pod","metadata":BODY,"spec":BODY}}"#,
            r#"{"message":EV,"objectRef":BODY,"userAgent":"/var/log/pods/shop_web_uid/web/0.log"}"#,
            r#"{"message":EV,"requestURI":"/x?y=/var/log/containers/web_shop_web-1a.log"}"#,
            r#"{"message":EV,"url":{"path":"/var/log/pods/shop_web_uid/web/0.log"}}"#,
            r#"{"message":EV,"path":"/x/var/log/pods/shop_web_uid/web/0.log"}"#,
            r#"{"message":EV,"x":{"extra":{"authentication.kubernetes.io/pod-name":["web"]}}}"#,
            r#"{"message":EV,"_user_extra_authentication_kubernetes_io_pod_name":"web"}"#,
            r#"{"kubernetes":{"namespace_name":"openshift-kube-apiserver"},"level":"error","log_type":"audit","message":EV}"#,
            r#"{"message":EV,"original":"k8s_web_web_shop_uid_0 /var/log/pods/shop_web_uid/web/0.log"}"#,
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","verb":"get","log":EV,"copy":EVENT}"#,
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","verb":"get","request":{"kind":"Pod","metadata":BODY}}"#,
        ];
        for chosen in CHOSEN {
            let body = format!("{{{chosen}}}");
            let event = EVENT.replace('}', &format!(r#","user":{body},"requestObject":{body}}}"#));
            for place in places {
                let text = serde_json::Value::from(event.as_str()).to_string();
                let line = place.replace("EVENT", &event).replace("EV", &text).replace("BODY", &body);
                assert_eq!(decode(&line), Ok(()), "{line}");
            }
        }
    }

    #[test]
    fn text_of_api_servers_and_of_files_is_accepted() {
        for line in [
            r#"{"@timestamp":"t","message":EV,"log":{"offset":1,"file":{"path":"/var/log/kube-apiserver-audit.log"}},"agent":{"type":"filebeat","name":"n1"},"input":{"type":"container"}}"#,
            r#"{"file":"/var/log/audit.log","host":"node1","message":EV,"source_type":"file","timestamp":"t"}"#,
            r#"{"message":EV,"data_stream":{"type":"logs","dataset":"kubernetes.audit_logs","namespace":"default"}}"#,
            r#"{"message":EV,"service":{"namespace":"shop"},"service.namespace":"shop"}"#,
            r#"{"message":EV,"container":{"name":"kube-apiserver","image":{"name":"x"},"id":"1a"}}"#,
            r#"{"log":EV,"stream":"stdout","kubernetes":{"pod_name":"kube-apiserver-n1","namespace_name":"kube-system","container_name":"kube-apiserver","labels":{"tier":"control-plane"},"namespace_labels":{"name":"x"}}}"#,
            r#"{"log":EV,"kubernetes":{"pod_name":"apiserver-1","namespace_name":"openshift-apiserver","container_name":"openshift-apiserver"}}"#,
            r#"{"log":EV,"kubernetes":{"pod_name":"sidecar","container_name":"kube-apiserver-audit"}}"#,
            r#"{"log":EV,"stream":"stdout","attrs":{"tag":"x"}}"#,
            r#"{"log":EV,"tag":"kube.var.log.containers.kube-apiserver-n1.example.org_kube-system_kube-apiserver-1a.log"}"#,
            r#"{"log":EV,"tag":"k8s_audit","container_name":"/k8s_kube-apiserver_kube-apiserver-n1_kube-system_uid_0"}"#,
            r#"{"event":EV,"source":"/var/log/pods/kube-system_kube-apiserver-n1_uid/kube-apiserver/0.log","sourcetype":"kube:container:kube-apiserver"}"#,
            r#"{"event":EV,"source":"/var/log/audit.log","sourcetype":"kube:apiserver-audit","index":"main","time":1}"#,
            r#"{"body":EV,"resource":{"attributes":[{"key":"k8s.container.name","value":{"stringValue":"kube-apiserver"}},{"key":"host.name","value":{"stringValue":"x"}}]}}"#,
            r#"{"stream":{"container":"kube-apiserver","namespace":"kube-system","pod":"kube-apiserver-n1","stream":"stdout","job":"x"},"values":[["1",EV,{"detected_level":"info"}]]}"#,
            r#"{"timestamp":1,"message":EV,"logStream":"kube-apiserver-audit-1a","logGroup":"/aws/eks/c/cluster"}"#,
            r#"{"events":[{"timestamp":1,"message":EV,"logStreamName":"kube-apiserver-audit-1a"}],"searchedLogStreams":[{"logStreamName":"x"}]}"#,
            r#"{"MESSAGE":EV,"_SYSTEMD_UNIT":"k3s.service","SYSLOG_IDENTIFIER":"k3s","_TRANSPORT":"stdout"}"#,
            r#"{"log_s":EV,"Category":"kube-audit-admin","stream_s":"stdout"}"#,
            r#"{"messageType":"DATA_MESSAGE","logGroup":"/k8s/audit","logStream":"node1","logEvents":[{"id":"1","timestamp":1,"message":EV}]}"#,
            r#"{"stream":{"job":"kube-audit","service_name":"unknown_service"},"values":[["1",EV]]}"#,
            r#"{"message":EV,"ddtags":"env:prod,kube_namespace:kube-system,kube_container_name:kube-apiserver"}"#,
            r#"{"message":EV,"severity":5,"level":6}"#,
            r#"{"message":EV,"severity":"info","facility":"local0","appname":"kube-apiserver","source_type":"syslog"}"#,
            r#"{"logName":"projects/p/logs/kube-apiserver-audit","insertId":"1","jsonPayload":{"message":EV},"resource":{"type":"generic_node"}}"#,
            r#"{"json":{"auditID":"a","kind":"Event","apiVersion":"audit.k8s.io/v1","requestObject":{"container_name":"x","source":"stderr"}}}"#,
            r#"{"kubernetes":{"audit":{"auditID":"a","kind":"Event","apiVersion":"audit.k8s.io/v1","objectRef":{"namespace":"default"}}}}"#,
        ] {
            assert_eq!(decode(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn the_walk_is_bounded() {
        let log = |metadata: &str| decode(&format!(r#"{{"log":EV,"x":{metadata}}}"#));
        let many = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert_eq!(log(&many(MEMBERS_MAX - 2)), Ok(()));
        assert_eq!(log(&many(MEMBERS_MAX)), Err(Reason::UntrustedOrigin));
        let names = |count: usize| {
            let names: Vec<String> =
                (0..count).map(|n| format!(r#"{{"unit{n}systemd_unit":"k{n}"}}"#)).collect();
            log(&format!("[{}]", names.join(",")))
        };
        assert_eq!(names(NAMES_MAX + 1), Err(Reason::UntrustedOrigin));
        let deep = |levels: usize| {
            let open = r#"{"x":"#.repeat(levels - 1);
            log(&format!(r#"{open}{{"container_name":"x"}}{}"#, "}".repeat(levels - 1)))
        };
        assert_eq!(deep(LEVELS_MAX - 1), Err(Reason::UntrustedOrigin));
        assert_eq!(deep(LEVELS_MAX), Ok(()));
        let long = "x".repeat(1 << 20);
        assert_eq!(compact(&long, "Container.Name"), format!("{}containername", "x".repeat(51)));
    }
}
