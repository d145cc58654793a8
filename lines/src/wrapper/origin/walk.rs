//! Reads the members beside a text, and collects the names in them that may be those of writers.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::names::{Names, compact, is_place};
use super::paths::{Where, docker_name};
use super::{CONTAINER, NAMES_MAX, Origin};
use crate::json::{self, Members};
use crate::plain;

/// Maximum number of levels of objects and lists that are opened.
pub(super) const LEVELS_MAX: usize = 6;

/// Maximum number of members and of items of lists that are judged.
pub(super) const MEMBERS_MAX: usize = 4096;

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

/// Which members say who wrote a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// The members beside a text that may be anything.
    Carrier,
    /// Like [`Carrier`](Self::Carrier), but names of services and applications name writers, too.
    Services,
    /// The members beside those of an event. Only members that certainly name a container, the log
    /// of a container, or standard error count, because people add members with many names.
    Event,
}

/// The place of a member in the metadata.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    /// The compact name of the member, with the names around it.
    path: &'p str,
    /// The compact name of the member alone.
    own: &'p str,
    level: usize,
}

/// The place around the outermost members.
pub(super) const TOP: At<'_> = At { path: "", own: "", level: 1 };

pub(super) struct Walk<'w> {
    pub(super) held: &'w [&'w RawValue],
    pub(super) strictness: Strictness,
    pub(super) members_left: usize,
    pub(super) origin: &'w mut Origin,
}

/// Each method returns `None` if a bound is exceeded.
impl Walk<'_> {
    pub(super) fn object(&mut self, members: &Members<'_>, at: At<'_>) -> Option<()> {
        // Whoever writes a text may add members to such an object, if a shipper merges them.
        if at.level > 1 && !is_place(at.own) && is_copy(members) {
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

    pub(super) fn member(&mut self, name: &str, value: &RawValue, around: At<'_>) -> Option<()> {
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

fn string_of(value: &RawValue) -> Option<Cow<'_, str>> {
    string(Some(value.get()).filter(|text| text.starts_with('"'))?)
}

/// Returns the text of a string literal, if it is Unicode.
fn string(literal: &str) -> Option<Cow<'_, str>> {
    if !literal.contains('\\') {
        return literal.get(1..literal.len().checked_sub(1)?).map(Cow::Borrowed);
    }
    serde_json::from_str(literal).ok().map(Cow::Owned)
}
