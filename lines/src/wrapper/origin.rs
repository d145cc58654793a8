//! Judges by the metadata beside an event whether an API server wrote its text.
//!
//! Any pod may print text that looks like an event, and shippers put its name beside the text in
//! many spellings. So the members of a carrier or of a list's item are walked, outside of the values
//! that hold events, and are judged by their *compact name*: the letters and digits of the names on
//! the way, in lower case. `kubernetes.container.name`, `k8s_container_name`, `containerName` and
//! `{"container":{"name":…}}` all end in `containername`.
//!
//! Invariants:
//! - Text is refused if anything here names a container, a namespace, a unit or a log stream that is
//!   not an API server's, or standard error. A name that is not a string is refused too. Metadata
//!   that names none of these is accepted.
//! - At most [`LEVELS_MAX`] objects and lists are opened one in the other, and at most
//!   [`MEMBERS_MAX`] members in all. Text with more members is refused. So the work is linear in the
//!   metadata, and the stack is bounded. Nothing is kept here.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{aks, eks};
use crate::json::{self, Members};
use crate::reject::{Reason, Refusal};

/// Maximum number of objects and lists that are opened one in the other.
const LEVELS_MAX: usize = 6;
/// Maximum number of members and of items of lists that are judged.
const MEMBERS_MAX: usize = 4096;
/// Only the end of a compact name is kept. No name that is looked for is as long.
const NAME_BYTES_MAX: usize = 64;

/// Containers that write audit events.
const CONTAINERS: [&str; 7] = [
    "kube-apiserver",
    "openshift-apiserver",
    "oauth-apiserver",
    "openshift-oauth-apiserver",
    "oauth-server",
    "oauth-openshift",
    "kube-apiserver-audit",
];

/// What the names of their pods begin with. `apiserver-` is OpenShift's.
const PODS: [&str; 6] = [
    "kube-apiserver",
    "apiserver-",
    "openshift-apiserver",
    "oauth-apiserver",
    "oauth-server",
    "oauth-openshift",
];

/// Units of systemd and identifiers of syslog that API servers log with.
const UNITS: [&str; 8] = [
    "kube-apiserver",
    "k3s",
    "rke2-server",
    "rke2",
    "snap.microk8s.daemon-kubelite",
    "microk8s.daemon-kubelite",
    "k0scontroller",
    "k0s",
];

/// Objects whose member `namespace` is not that of a pod.
const OTHER_NAMESPACES: [&str; 4] = ["datastream", "service", "orchestrator", "objectref"];

/// What paths of container logs begin with: how, what stands between the names, and whether the
/// names are those of a directory (`NAMESPACE_POD_UID/CONTAINER/`) or of a file
/// (`POD_NAMESPACE_CONTAINER-ID.log`). Tags have dots in place of slashes.
const PATHS: [(&str, char, bool); 4] = [
    ("/var/log/pods/", '/', true),
    ("/var/log/containers/", '/', false),
    ("var.log.pods.", '.', true),
    ("var.log.containers.", '.', false),
];

/// Refuses text that an API server did not write, by the `members` beside it. The values in `held`
/// are slices of the members and are not judged, because they hold events.
pub(super) fn other(members: &Members<'_>, held: &[&RawValue]) -> Option<Refusal> {
    let mut walk = Walk::new(held, Strictness::Carrier);
    match walk.object(members, TOP) {
        Err(refusal) => Some(refusal),
        Ok(()) => (walk.names_other_pod && !walk.names_container).then(other_container),
    }
}

/// Refuses an event that a shipper took out of what a container printed, and put among its own
/// members: judges the member `name` beside those of the event. Only what certainly names a
/// container, a log of one, or standard error counts, because people add members of many names.
pub(super) fn other_beside(name: &str, value: &RawValue) -> Option<Refusal> {
    Walk::new(&[], Strictness::Event).member(name, value, TOP).err()
}

/// Like [`other`], for the members of `value`. An object that cannot be read is refused, and
/// anything else that is not an object says nothing.
pub(super) fn other_in(value: Option<&RawValue>) -> Option<Refusal> {
    let value = value.filter(|value| value.get().starts_with('{'))?;
    match serde_json::from_str::<Members<'_>>(value.get()) {
        Ok(members) => other(&members, &[]),
        Err(_) => Some(other_container()),
    }
}

pub(super) fn other_container() -> Refusal {
    Refusal::new(Reason::OtherCategory, "written by a container other than an API server")
}

pub(super) fn standard_error() -> Refusal {
    Refusal::new(Reason::OtherCategory, "standard error of a container")
}

fn other_unit() -> Refusal {
    Refusal::new(Reason::OtherCategory, "from a unit other than an API server's")
}

fn other_category() -> Refusal {
    Refusal::new(Reason::OtherCategory, "of a category other than those of the API server")
}

/// What a member names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Container,
    Namespace,
    Pod,
    Unit,
    LogStream,
    LogGroup,
    Category,
    Other,
}

impl Names {
    /// `path` and `own` are the compact names of the member with and without those around it, and
    /// `parent` is that of the object around it.
    fn of(path: &str, own: &str, parent: &str) -> Names {
        let ends = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end));
        if ends(&["containername"]) || matches!(own, "container" | "kubernetescontainer" | "k8scontainer") {
            Names::Container
        } else if ends(&[
            "namespacename",
            "podnamespace",
            "kubernetesnamespace",
            "k8snamespace",
            "kubenamespace",
        ]) || (own == "namespace" && !OTHER_NAMESPACES.contains(&parent))
        {
            Names::Namespace
        } else if ends(&["podname"]) || matches!(own, "pod" | "kubernetespod" | "k8spod") {
            Names::Pod
        } else if ends(&["systemdunit", "syslogidentifier"]) {
            Names::Unit
        } else if ends(&["logstream", "logstreamname"]) {
            Names::LogStream
        } else if ends(&["loggroup", "loggroupname"]) {
            Names::LogGroup
        } else {
            Names::Other
        }
    }

    /// Returns what counts beside the members of an event.
    fn beside_event(self, path: &str) -> Names {
        match self {
            Names::Container => self,
            Names::Namespace if path != "namespace" => self,
            Names::Unit if path.ends_with("systemdunit") => self,
            _ => Names::Other,
        }
    }

    /// The refusal of a name that is not a string.
    fn unread(self) -> Option<Refusal> {
        match self {
            Names::Container | Names::Namespace => Some(other_container()),
            Names::Unit => Some(other_unit()),
            Names::LogStream => Some(eks::other_stream()),
            Names::Category => Some(other_category()),
            Names::Pod | Names::LogGroup | Names::Other => None,
        }
    }
}

/// A place in the walk.
#[derive(Clone, Copy)]
struct At<'p> {
    /// The compact name with those around it.
    path: &'p str,
    /// The compact name alone.
    own: &'p str,
    level: usize,
}

/// Where the metadata is.
const TOP: At<'_> = At { path: "", own: "", level: 1 };

/// What counts as a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// Beside a text that may be anything.
    Carrier,
    /// Beside the members of an event.
    Event,
}

struct Walk<'w> {
    held: &'w [&'w RawValue],
    strictness: Strictness,
    members_left: usize,
    names_container: bool,
    names_other_pod: bool,
}

impl<'w> Walk<'w> {
    fn new(held: &'w [&'w RawValue], strictness: Strictness) -> Walk<'w> {
        let members_left = MEMBERS_MAX;
        Walk { held, strictness, members_left, names_container: false, names_other_pod: false }
    }

    fn object(&mut self, members: &Members<'_>, at: At<'_>) -> Result<(), Refusal> {
        // OpenTelemetry's `{"key":"k8s.container.name","value":{"stringValue":"…"}}`.
        let key = json::member(members, "key").and_then(string_of);
        for (name, value) in &members.0 {
            match &key {
                Some(key) if name == "value" => {
                    let inner = serde_json::from_str::<Members<'_>>(value.get()).ok();
                    let string = inner.as_ref().and_then(|inner| json::member(inner, "stringValue"));
                    self.member(key, string.unwrap_or(value), at)?;
                }
                _ => self.member(name, value, at)?,
            }
        }
        Ok(())
    }

    fn member(&mut self, name: &str, value: &RawValue, around: At<'_>) -> Result<(), Refusal> {
        if self.held.iter().any(|held| std::ptr::eq(held.get(), value.get())) {
            return Ok(());
        }
        let (path, own) = (compact(around.path, name), compact("", name));
        let names = match name {
            "Category" if around.level == 1 => Names::Category,
            _ => Names::of(&path, &own, around.own),
        };
        let names = if self.strictness == Strictness::Event { names.beside_event(&path) } else { names };
        self.value(names, value, At { path: &path, own: &own, level: around.level })
    }

    fn value(&mut self, names: Names, value: &RawValue, at: At<'_>) -> Result<(), Refusal> {
        self.members_left = self.members_left.checked_sub(1).ok_or_else(other_container)?;
        let text = value.get();
        let is_deep = at.level >= LEVELS_MAX;
        let inner = At { level: at.level + 1, ..at };
        match (text.as_bytes().first(), names.unread()) {
            (Some(b'"'), _) => return self.string(names, text, at),
            // The names may be in it: `{"container":{"name":…}}`.
            (Some(b'{'), Some(refusal)) if at.path.ends_with("name") => return Err(refusal),
            (Some(b'{'), _) if !is_deep => {
                match serde_json::from_str::<Members<'_>>(text) {
                    Ok(members) => self.object(&members, inner)?,
                    // A name in it cannot be read.
                    Err(_) if self.strictness == Strictness::Event => {}
                    Err(_) => return Err(other_container()),
                }
            }
            (Some(b'{'), None) => {}
            (_, Some(refusal)) => return Err(refusal),
            (Some(b'['), None) if !is_deep => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| other_container())?;
                items.into_iter().try_for_each(|item| self.value(names, item, inner))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn string(&mut self, names: Names, literal: &str, at: At<'_>) -> Result<(), Refusal> {
        let Some(text) = string(literal) else { return names.unread().map_or(Ok(()), Err) };
        let text: &str = &text;
        let is_allowed = match names {
            Names::Container => {
                self.names_container = true;
                writes_events(text)
            }
            Names::Namespace => is_of_system(text),
            Names::Pod => {
                self.names_other_pod |= !PODS.iter().any(|pod| text.starts_with(pod));
                true
            }
            Names::Unit => UNITS.contains(&text.strip_suffix(".service").unwrap_or(text)),
            Names::LogStream => text == "stdout" || text.starts_with(eks::AUDIT_STREAM),
            Names::LogGroup => !text.starts_with("/aws/containerinsights/"),
            Names::Category => aks::is_of_server(text),
            // A label that Loki's clients make from the journal.
            Names::Other if at.own == "unit" && self.strictness == Strictness::Carrier => {
                text.strip_suffix(".service").is_none_or(|unit| UNITS.contains(&unit))
            }
            // OpenShift's forwarder names the kind of a log.
            Names::Other if at.own == "logtype" => !matches!(text, "application" | "infrastructure"),
            Names::Other => true,
        };
        if text == "stderr" && ["stream", "streams", "source"].iter().any(|end| at.own.ends_with(end)) {
            return Err(standard_error());
        }
        if !is_allowed {
            return Err(names.unread().unwrap_or_else(|| match names {
                Names::LogGroup => eks::other_stream(),
                _ => other_unit(),
            }));
        }
        other_text(text).map_or(Ok(()), Err)
    }
}

/// Refuses a text, under whatever name, that is the path or the name of another container.
pub(super) fn other_text(text: &str) -> Option<Refusal> {
    let is_of_other = text.strip_prefix("kube:container:").is_some_and(|name| !writes_events(name))
        || docker_name(text) == Some(false)
        || is_path_of_other(text);
    is_of_other.then(other_container)
}

/// Appends the letters and digits of `name` to `parent`, in lower case, and keeps the end.
fn compact(parent: &str, name: &str) -> String {
    let letters = |text: &str| -> Vec<char> {
        text.chars().rev().filter(char::is_ascii_alphanumeric).take(NAME_BYTES_MAX).collect()
    };
    let mut end = letters(name);
    end.extend(parent.chars().rev().take(NAME_BYTES_MAX.saturating_sub(end.len())));
    end.into_iter().rev().map(|letter| letter.to_ascii_lowercase()).collect()
}

fn string_of(value: &RawValue) -> Option<Cow<'_, str>> {
    string(Some(value.get()).filter(|text| text.starts_with('"'))?)
}

/// The text of a string literal, if it is Unicode.
fn string(literal: &str) -> Option<Cow<'_, str>> {
    if !literal.contains('\\') {
        return literal.get(1..literal.len().checked_sub(1)?).map(Cow::Borrowed);
    }
    serde_json::from_str(literal).ok().map(Cow::Owned)
}

/// Whether a container of this name writes audit events.
fn writes_events(container: &str) -> bool {
    CONTAINERS.contains(&container) || docker_name(container) == Some(true)
}

/// Whether API servers run in this namespace, and users run nothing in it. On OpenShift users
/// cannot make a namespace with this prefix.
fn is_of_system(namespace: &str) -> bool {
    namespace == "kube-system" || namespace.starts_with("openshift-")
}

/// Whether the name that docker gives to a container of Kubernetes,
/// `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`, is that of an API server. `None` for other names.
fn docker_name(name: &str) -> Option<bool> {
    let mut parts = name.trim_start_matches('/').strip_prefix("k8s_")?.split('_');
    let (container, _pod, namespace) = (parts.next()?, parts.next()?, parts.next()?);
    let (_uid, _attempt) = (parts.next()?, parts.next()?);
    Some(CONTAINERS.contains(&container) && is_of_system(namespace))
}

/// Whether `text` has the path of a log that is not an API server's, or that cannot be read.
fn is_path_of_other(text: &str) -> bool {
    PATHS.iter().any(|(start, between, is_directory)| {
        text.match_indices(start).any(|(at, _)| {
            let rest = &text[at + start.len()..];
            !named(rest, *between, *is_directory).is_some_and(|(container, namespace)| {
                CONTAINERS.contains(&container) && is_of_system(namespace)
            })
        })
    })
}

/// Returns the container and the namespace that a path names.
fn named(path: &str, between: char, is_directory: bool) -> Option<(&str, &str)> {
    let mut parts = path.splitn(3, '_');
    let (first, second, last) = (parts.next()?, parts.next()?, parts.next()?);
    if is_directory {
        let mut last = last.split(between);
        let _uid = last.next()?;
        return Some((last.next()?, first));
    }
    let (container, _id) = last.split('.').next()?.rsplit_once('-')?;
    Some((container, second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrapper::decode_alone;

    /// Replaces `EV` by an event in a string.
    fn decode(line: &str) -> Result<(), Reason> {
        let event =
            r#""{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"a\",\"verb\":\"get\"}""#;
        decode_alone(line.replace("EV", event).as_bytes(), 64).map(|_| ()).map_err(|refusal| refusal.reason)
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
        ] {
            assert_eq!(decode(line), Err(Reason::OtherCategory), "{line}");
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
        assert_eq!(log(&many(MEMBERS_MAX)), Err(Reason::OtherCategory));
        let deep = |levels: usize| {
            let open = r#"{"x":"#.repeat(levels - 1);
            log(&format!(r#"{open}{{"container_name":"x"}}{}"#, "}".repeat(levels - 1)))
        };
        assert_eq!(deep(LEVELS_MAX - 1), Err(Reason::OtherCategory));
        assert_eq!(deep(LEVELS_MAX), Ok(()));
        let long = "x".repeat(1 << 20);
        assert_eq!(compact(&long, "Container.Name"), format!("{}containername", "x".repeat(51)));
    }
}
