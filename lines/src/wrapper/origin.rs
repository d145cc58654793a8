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
//! - At most [`LEVELS_MAX`] levels of objects and lists are opened. An object or list below the
//!   last level is not read. If its own name is that of a member which names a writer, the text is
//!   refused. Text with more than [`MEMBERS_MAX`] members, or more than [`NAMES_MAX`] names of one
//!   kind, is refused. So the work is linear in the metadata, and the stack is bounded. No state.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::writers::Writers;
use crate::json::{self, Members};
use crate::plain;
use crate::reject::{Reason, Refusal};

/// Maximum number of levels of objects and lists that are opened.
const LEVELS_MAX: usize = 6;
/// Maximum number of members and of items of lists that are judged.
const MEMBERS_MAX: usize = 4096;
/// Maximum number of different names of one kind.
const NAMES_MAX: usize = 16;
/// Longest compact name. Only the end of a longer one is kept, which is enough, because the names
/// that it is compared with are shorter.
const NAME_BYTES_MAX: usize = 64;
/// Longest name that a refusal repeats.
const SHOWN_BYTES_MAX: usize = 64;

/// Ends of the names of objects whose members `container`, `pod` and `namespace` name the writer.
/// `metadata` is not one of them, because objects of Kubernetes have a `namespace` in their
/// `metadata`, which clients write.
const PLACES_OF_NAMES: [&str; 12] = [
    "kubernetes",
    "k8s",
    "kube",
    "pod",
    "container",
    "labels",
    "fields",
    "attributes",
    "attrs",
    "tags",
    "resource",
    "context",
];

/// Ends of the names of members that contain the path of a log, or a tag made from one.
const PLACES_OF_PATHS: [&str; 16] = [
    "file",
    "filename",
    "path",
    "source",
    "sourcetype",
    "tag",
    "tags",
    "location",
    "logstream",
    "logstreamname",
    "containername",
    "logname",
    "tagname",
    "topic",
    "routingkey",
    "key",
];

/// Names of objects whose members contain text that a client chose.
const CHOSEN_BY_CLIENTS: [&str; 6] = ["url", "http", "request", "urldetails", "useragent", "query"];
/// Texts that may come before the path of a log: the places where a node's folders are mounted.
const MOUNTS: [&str; 5] = ["", "/host", "/hostfs", "/rootfs", "file://"];

/// The forms of the paths of container logs: the beginning, the character between the names, and
/// whether the names are those of a directory (`NAMESPACE_POD_UID/CONTAINER/`) or of a file
/// (`POD_NAMESPACE_CONTAINER-ID.log`). Tags that are made from paths have dots in place of slashes.
const PATHS: [(&str, char, bool); 4] = [
    ("/var/log/pods/", '/', true),
    ("/var/log/containers/", '/', false),
    ("var.log.pods.", '.', true),
    ("var.log.containers.", '.', false),
];

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

    /// A writer without a name, such as a program that writes a log of its own.
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

/// Which members say who wrote a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// The members beside a text that may be anything.
    Carrier,
    /// Like [`Carrier`](Self::Carrier), but names of services and applications name writers, too.
    Services,
    /// The members beside those of an event. Only members that certainly name a container, the log
    /// of a container, or standard error count, because people add members with many names.
    Event,
}

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

    /// What a tag, a path or a sourcetype alone says.
    pub(super) fn of_tag(tag: &str) -> Origin {
        let mut origin = Origin::default();
        origin.path(tag, Where::Anywhere);
        origin
    }

    /// What the name of a log stream of CloudWatch and the name of its group say.
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

    /// Reads a text that may name a container: the path of the container's log, a tag that was made
    /// from such a path, docker's name of the container, or its sourcetype.
    fn path(&mut self, text: &str, place: Where) {
        if let Some(name) = text.strip_prefix("kube:container:") {
            self.containers.push(name.to_owned());
        }
        if let Some((container, namespace)) = docker_name(text) {
            self.paths.push((container.to_owned(), namespace.to_owned()));
        }
        for (start, between, is_directory) in PATHS {
            for (at, _) in text.match_indices(start).take(NAMES_MAX) {
                if place == Where::Start && !is_before_path(&text[..at], between) {
                    continue;
                }
                match named(&text[at + start.len()..], between, is_directory) {
                    Some((container, namespace)) => {
                        self.paths.push((container.to_owned(), namespace.to_owned()));
                    }
                    None => self.unread = Some(CONTAINER),
                }
            }
        }
    }
}

/// Refuses an event because of the member `name` beside its own, if that member names a writer that
/// is not believed.
pub(super) fn other_beside(name: &str, value: &RawValue, writers: &Writers) -> Option<Refusal> {
    Origin::of_member(name, value).other(writers).map(|other| other.refusal(true))
}

/// Standard error of a container, which is never believed: the API server logs there what clients
/// send.
pub(super) fn standard_error() -> Other {
    Other::of_log(STANDARD_ERROR)
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
    Service,
    Other,
}

impl Names {
    /// `path` is the compact name of the member with the names around it, `own` is the compact name
    /// without them, and `parent` is the compact name of the object around the member.
    fn of(path: &str, own: &str, parent: &str) -> Names {
        let ends = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end));
        let is_outermost = path.len() == parent.len() + own.len();
        let is_metadata = matches!(parent, "metadata" | "meta") && is_outermost;
        let is_among_names = is_metadata || PLACES_OF_NAMES.iter().any(|place| parent.ends_with(place));
        let is_place = parent.is_empty() || is_among_names;
        if ends(&["containername"])
            || matches!(own, "kubernetescontainer" | "k8scontainer" | "kubecontainer")
            || (own == "container" && is_place)
        {
            Names::Container
        } else if ends(&[
            "namespacename",
            "podnamespace",
            "kubernetesnamespace",
            "k8snamespace",
            "kubenamespace",
            "kubernetesns",
            "k8sns",
            "kubens",
        ]) || (own == "namespace" && is_place)
            || (own == "ns" && is_among_names)
        {
            Names::Namespace
        } else if ends(&["podname"])
            || matches!(own, "kubernetespod" | "k8spod" | "kubepod")
            || (own == "pod" && is_place)
        {
            Names::Pod
        } else if ends(&["systemdunit", "syslogidentifier"]) {
            Names::Unit
        } else if ends(&["logstream", "logstreamname"]) {
            Names::LogStream
        } else if ends(&["loggroup", "loggroupname"]) {
            Names::LogGroup
        } else if matches!(own, "app" | "servicename" | "k8sapp" | "appkubernetesioname") {
            Names::Service
        } else {
            Names::Other
        }
    }

    /// Returns what the member names if it is beside the members of an event, where fewer names
    /// count.
    fn beside_event(self, path: &str) -> Names {
        match self {
            Names::Container => self,
            Names::Namespace if path != "namespace" => self,
            Names::Unit if path.ends_with("systemdunit") => self,
            _ => Names::Other,
        }
    }

    /// Returns the kind of writer that stays unknown if a name of this kind is not a string.
    fn unread(self) -> Option<&'static str> {
        match self {
            Names::Container | Names::Namespace => Some(CONTAINER),
            Names::Unit => Some(UNIT),
            Names::LogStream => Some(STREAM),
            Names::Category => Some(CATEGORY),
            Names::Pod | Names::LogGroup | Names::Service | Names::Other => None,
        }
    }
}

/// The place of a member in the metadata.
#[derive(Clone, Copy)]
struct At<'p> {
    /// The compact name of the member, with the names around it.
    path: &'p str,
    /// The compact name of the member alone.
    own: &'p str,
    level: usize,
}

/// The place around the outermost members.
const TOP: At<'_> = At { path: "", own: "", level: 1 };

struct Walk<'w> {
    held: &'w [&'w RawValue],
    strictness: Strictness,
    members_left: usize,
    origin: &'w mut Origin,
}

/// Each method returns `None` if a bound is exceeded.
impl Walk<'_> {
    fn object(&mut self, members: &Members<'_>, at: At<'_>) -> Option<()> {
        if at.level > 1 && is_copy(members) {
            return Some(());
        }
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
        Some(())
    }

    fn member(&mut self, name: &str, value: &RawValue, around: At<'_>) -> Option<()> {
        if is_in_event(name) || self.held.iter().any(|held| std::ptr::eq(held.get(), value.get())) {
            return Some(());
        }
        let (path, own) = (compact(around.path, name), compact("", name));
        let names = match name {
            "Category" if around.level == 1 => Names::Category,
            _ => Names::of(&path, &own, around.own),
        };
        let names = if self.strictness == Strictness::Event { names.beside_event(&path) } else { names };
        self.value(names, value, At { path: &path, own: &own, level: around.level })
    }

    fn value(&mut self, names: Names, value: &RawValue, at: At<'_>) -> Option<()> {
        self.members_left = self.members_left.checked_sub(1)?;
        let text = value.get();
        let is_deep = at.level >= LEVELS_MAX;
        let inner = At { level: at.level + 1, ..at };
        match (text.as_bytes().first(), names.unread()) {
            (Some(b'"'), _) => return self.string(names, text, at),
            // An object may have the name in it, as in `{"container":{"name":…}}`, but not if it is
            // the value of a member such as `container_name`.
            (Some(b'{'), Some(unread)) if at.path.ends_with("name") => self.origin.unread = Some(unread),
            (Some(b'{'), _) if !is_deep => {
                match serde_json::from_str::<Members<'_>>(text) {
                    Ok(members) => self.object(&members, inner)?,
                    // The object has a name that cannot be read.
                    Err(_) if self.strictness == Strictness::Event => {}
                    Err(_) => self.origin.unread = Some(CONTAINER),
                }
            }
            (Some(b'{'), None) => {}
            (_, Some(unread)) => self.origin.unread = Some(unread),
            (Some(b'['), None) if !is_deep => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                items.into_iter().try_for_each(|item| self.value(names, item, inner))?;
            }
            _ => {}
        }
        Some(())
    }

    fn string(&mut self, names: Names, literal: &str, at: At<'_>) -> Option<()> {
        let Some(text) = string(literal) else {
            self.origin.unread = names.unread().or(self.origin.unread);
            return Some(());
        };
        let text: &str = &text;
        let ends = |ends: &[&str]| ends.iter().any(|end| at.own.ends_with(end));
        self.origin.is_stderr |= text == "stderr" && ends(&["stream", "streams", "source"]);
        if ends(&["logstream", "logstreamname"]) {
            self.origin.path(text, Where::Anywhere);
        } else if ends(&PLACES_OF_PATHS) && !CHOSEN_BY_CLIENTS.iter().any(|of| at.path.contains(of)) {
            self.origin.path(text, Where::Start);
        }
        // Datadog's `kube_namespace:shop,container_name:web`.
        if matches!(at.own, "ddtags" | "tags") {
            for (key, value) in text.split(',').filter_map(|tag| tag.trim().split_once(':')) {
                self.members_left = self.members_left.checked_sub(1)?;
                let key = compact("", key);
                self.named(Names::of(&key, &key, "tags"), value);
            }
        }
        match names {
            Names::Other => self.hint(text, at),
            _ => self.named(names, text),
        }
        let origin = &*self.origin;
        let names = [&origin.containers, &origin.namespaces, &origin.pods, &origin.units, &origin.streams];
        let is_bounded = names.iter().all(|names| names.len() <= NAMES_MAX)
            && [&origin.groups, &origin.categories, &origin.services]
                .iter()
                .all(|names| names.len() <= NAMES_MAX)
            && origin.paths.len() <= NAMES_MAX;
        is_bounded.then_some(())
    }

    fn named(&mut self, names: Names, text: &str) {
        let found = match names {
            // Docker's name of a container has the names that Kubernetes gave in it.
            Names::Container if docker_name(text).is_some() => {
                return self.origin.path(text, Where::Start);
            }
            Names::Container => &mut self.origin.containers,
            Names::Namespace => &mut self.origin.namespaces,
            Names::Pod => &mut self.origin.pods,
            Names::Unit => &mut self.origin.units,
            Names::LogStream if text == "stdout" => return,
            Names::LogStream => &mut self.origin.streams,
            Names::LogGroup => &mut self.origin.groups,
            Names::Category => &mut self.origin.categories,
            Names::Service if self.strictness == Strictness::Services => {
                if text.starts_with("unknown_service") {
                    return;
                }
                &mut self.origin.services
            }
            Names::Service | Names::Other => return,
        };
        if !found.iter().any(|known| known == text) {
            found.push(text.to_owned());
        }
    }

    /// Reads a member that names a writer only if its value has a certain form.
    fn hint(&mut self, text: &str, at: At<'_>) {
        match at.own {
            // A label that Loki's clients make from the journal.
            "unit" if self.strictness != Strictness::Event && text.ends_with(".service") => {
                self.named(Names::Unit, text);
            }
            // Loki's clients name the job of a pod `NAMESPACE/NAME`.
            "job" if self.strictness == Strictness::Services => {
                if let Some((namespace, _)) = text.split_once('/') {
                    self.named(Names::Namespace, namespace);
                }
            }
            // Alloy names what it reads `NAMESPACE/POD:CONTAINER`.
            "instance" if self.strictness == Strictness::Services => {
                let named = text
                    .split_once('/')
                    .and_then(|(namespace, rest)| Some((namespace, rest.split_once(':')?)));
                if let Some((namespace, (_pod, container))) = named {
                    self.origin.paths.push((container.to_owned(), namespace.to_owned()));
                }
            }
            // OpenShift's forwarder names the kind of a log. Logs of these kinds are not audit
            // logs.
            "logtype" if matches!(text, "application" | "infrastructure") => {
                self.origin.unread = Some(CONTAINER);
            }
            _ => {}
        }
    }
}

/// Where in a value the path of a log is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Anywhere in the names of log streams, and in tags, which only shippers make.
    Anywhere,
    Start,
}

/// Whether a text may come before the path of a log: a mount, or the first label of a tag.
fn is_before_path(text: &str, between: char) -> bool {
    match between {
        '/' => MOUNTS.contains(&text),
        _ => {
            let label = text.strip_suffix(between).unwrap_or(text);
            label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@'))
        }
    }
}

/// Whether a member of this name belongs to an event, or contains one, so that a client of the
/// cluster may have chosen its value. `metadata` is left out, because many other things have that
/// name.
fn is_in_event(name: &str) -> bool {
    let compact = compact("", name);
    (plain::is_of_event(name) && name != "metadata")
        || ["requestobject", "responseobject"].iter().any(|body| compact.starts_with(body))
        // `authentication.kubernetes.io/pod-name` names the pod to which a service account's token
        // is bound.
        || compact.contains("authenticationkubernetesio")
        || compact.ends_with("userextra")
}

/// Whether an object is a copy of an event or of a body, as shippers make it when they parse a
/// text. Labels and attributes have no objects in them, so nobody can make labels look like a copy.
fn is_copy(members: &Members<'_>) -> bool {
    let has = |first: char, names: &[&str]| {
        names.iter().any(|name| json::member(members, name).is_some_and(|v| v.get().starts_with(first)))
    };
    has('"', &["auditID"])
        && has('{', &["user", "objectRef", "responseStatus", "requestObject", "responseObject"])
        || has('"', &["kind"]) && has('{', &["metadata", "spec"])
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

/// Returns the container and the namespace in the name that docker gives to a container of
/// Kubernetes, `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`.
fn docker_name(name: &str) -> Option<(&str, &str)> {
    let mut parts = name.trim_start_matches('/').strip_prefix("k8s_")?.split('_');
    let (container, _pod, namespace) = (parts.next()?, parts.next()?, parts.next()?);
    let (_uid, _attempt) = (parts.next()?, parts.next()?);
    Some((container, namespace))
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
