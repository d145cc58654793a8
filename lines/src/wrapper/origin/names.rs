//! What a member names, by its compact name: the letters and digits of the names on the path to the
//! member, in lower case.

use super::{CATEGORY, CONTAINER, STREAM, UNIT};

/// Longest compact name. Only the end of a longer one is kept, which is enough, because the names
/// that it is compared with are shorter.
pub(super) const NAME_BYTES_MAX: usize = 64;

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

/// What a member names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
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
    pub(super) fn of(path: &str, own: &str, parent: &str) -> Names {
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
    pub(super) fn beside_event(self, path: &str) -> Names {
        match self {
            Names::Container => self,
            Names::Namespace if path != "namespace" => self,
            Names::Unit if path.ends_with("systemdunit") => self,
            _ => Names::Other,
        }
    }

    /// Returns the kind of writer that stays unknown if a name of this kind is not a string.
    pub(super) fn unread(self) -> Option<&'static str> {
        match self {
            Names::Container | Names::Namespace => Some(CONTAINER),
            Names::Unit => Some(UNIT),
            Names::LogStream => Some(STREAM),
            Names::Category => Some(CATEGORY),
            Names::Pod | Names::LogGroup | Names::Service | Names::Other => None,
        }
    }
}

/// Appends the letters and digits of `name` to `parent`, in lower case, and keeps the end.
pub(super) fn compact(parent: &str, name: &str) -> String {
    let letters = |text: &str| -> Vec<char> {
        text.chars().rev().filter(char::is_ascii_alphanumeric).take(NAME_BYTES_MAX).collect()
    };
    let mut end = letters(name);
    end.extend(parent.chars().rev().take(NAME_BYTES_MAX.saturating_sub(end.len())));
    end.into_iter().rev().map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Whether a member of this name, outside of any object, may name a writer or contain such a name.
pub(super) fn may_name(name: &str) -> bool {
    let own = compact("", name);
    Names::of(&own, &own, "").beside_event(&own) != Names::Other || is_place(&own)
}

/// Whether an object with this compact name has the names of a container and of what it runs in.
pub(super) fn is_place(own: &str) -> bool {
    ["kubernetes", "k8s", "kube", "container", "pod"].iter().any(|place| own.ends_with(place))
}
