//! The writers whose audit events are believed. The operator of a source can add writers.
//!
//! Any pod may print text that looks like an event, so an event is accepted only if nothing beside
//! it names a writer other than an API server. [`Writers`] has the names that are believed. The
//! names that kubeadm, K3s, RKE2, MicroK8s, k0s, OpenShift, EKS and AKS use are known. The operator
//! has to add a control plane that runs in pods of another cluster (HyperShift, Kamaji, Gardener,
//! vcluster), or a log with another name:
//!
//! | text | believed |
//! |---|---|
//! | `NAMESPACE/CONTAINER` | the container in the namespace |
//! | `NAME` | a container in a namespace of the system, a pod, unit, identifier, category, host, log stream, service or log of this name |
//! | `/GROUP` | all streams of a log group of CloudWatch, whose name begins with `/` |
//! | `*` | whoever the records name; the source has nothing but audit logs |
//!
//! A `*` at the end of a name stands for any rest of the name.
//!
//! Invariant: a name only decides whom to believe. Text that is not an event does not become one
//! because its writer is believed. Standard error of a container is never believed. No IO, no
//! state.

use std::fmt;

use thiserror::Error;

/// Maximum number of writers that a source may name.
pub const WRITERS_MAX: usize = 64;
/// Longest text of a writer, in bytes.
pub const WRITER_BYTES_MAX: usize = 512;

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

/// Beginnings of the names of the pods that run these containers. `apiserver-` is OpenShift's.
const PODS: [&str; 6] = [
    "kube-apiserver",
    "apiserver-",
    "openshift-apiserver",
    "oauth-apiserver",
    "oauth-server",
    "oauth-openshift",
];

/// The units of systemd, and the identifiers of syslog, under which API servers log.
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

/// Categories of AKS that have audit events.
const CATEGORIES: [&str; 3] = ["kube-audit", "kube-audit-admin", "kube-apiserver"];
/// The beginning of the names of the EKS log streams that have audit events.
const AUDIT_STREAM: &str = "kube-apiserver-audit";
/// The beginning of the names of the CloudWatch log groups that AWS services create.
const GROUPS_OF_AWS: &str = "/aws/";
/// The beginning of the names of the log groups of EKS clusters. Only AWS writes to these groups,
/// and the name of a stream in them says which program wrote its text.
const GROUPS_OF_EKS: &str = "/aws/eks/";

/// The writers that one source believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    believed: Vec<Writer>,
    is_unjudged: bool,
}

/// One writer that an operator believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Anyone,
    Name(Name),
    Container { namespace: Name, container: Name },
    Group(Name),
}

/// A name, or the beginning of names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    text: String,
    is_beginning: bool,
}

/// Why a text is not a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WriterError {
    #[error("is empty, or has an empty name before or after its slash")]
    Empty,
    #[error("has more than {WRITER_BYTES_MAX} bytes")]
    Long,
    #[error("has white space or a control character")]
    Character,
    #[error("has a * that is not at the end of a name")]
    Star,
    #[error("has more than one slash: write NAMESPACE/CONTAINER, NAME, or /GROUP")]
    Slashes,
}

impl Writer {
    /// Parses the text by which a writer is configured.
    ///
    /// # Errors
    /// [`WriterError`] if `text` is not a writer.
    pub fn parse(text: &str) -> Result<Writer, WriterError> {
        if text.len() > WRITER_BYTES_MAX {
            return Err(WriterError::Long);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(WriterError::Character);
        }
        let kind = match text.split_once('/') {
            _ if text == "*" => Kind::Anyone,
            None => Kind::Name(Name::parse(text)?),
            Some(("", _)) => Kind::Group(Name::parse(text)?),
            Some((_, container)) if container.contains('/') => return Err(WriterError::Slashes),
            Some((namespace, container)) => {
                Kind::Container { namespace: Name::parse(namespace)?, container: Name::parse(container)? }
            }
        };
        Ok(Writer(kind))
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Anyone => f.write_str("*"),
            Kind::Name(name) | Kind::Group(name) => name.fmt(f),
            Kind::Container { namespace, container } => write!(f, "{namespace}/{container}"),
        }
    }
}

impl Name {
    fn parse(text: &str) -> Result<Name, WriterError> {
        let (text, is_beginning) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        if text.contains('*') {
            return Err(WriterError::Star);
        }
        if text.trim_start_matches('/').is_empty() && !is_beginning {
            return Err(WriterError::Empty);
        }
        Ok(Name { text: text.to_owned(), is_beginning })
    }

    fn is(&self, name: &str) -> bool {
        if self.is_beginning { name.starts_with(&self.text) } else { name == self.text }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.is_beginning { "*" } else { "" })
    }
}

impl Writers {
    /// Believes the API servers that are known, and no other writer.
    pub const SERVERS: Writers = Writers { believed: Vec::new(), is_unjudged: false };

    /// Does not judge who wrote a record. This is for records that are read again: they were judged
    /// when they arrived, by what the source's operator believed then.
    pub const UNJUDGED: Writers = Writers { believed: Vec::new(), is_unjudged: true };

    /// Also believes `writers`.
    pub const fn new(writers: Vec<Writer>) -> Writers {
        Writers { believed: writers, is_unjudged: false }
    }

    pub(super) const fn is_unjudged(&self) -> bool {
        self.is_unjudged
    }

    /// Whether every writer is believed, except standard error and other logs of programs.
    pub(super) fn is_anyone(&self) -> bool {
        self.is_unjudged || self.believed.iter().any(|writer| writer.0 == Kind::Anyone)
    }

    fn names(&self, name: &str) -> bool {
        self.believed.iter().any(|writer| matches!(&writer.0, Kind::Name(known) if known.is(name)))
    }

    /// Judges a container and its namespace. `None` means that no metadata names it; at least one
    /// of the two is named.
    pub(super) fn believe_container(&self, container: Option<&str>, namespace: Option<&str>) -> bool {
        let is_of_system = namespace.is_none_or(is_of_system);
        let is_known = container.is_none_or(|name| CONTAINERS.contains(&name) || self.names(name));
        (is_of_system && is_known) || self.believe_pair(container, namespace)
    }

    fn believe_pair(&self, container: Option<&str>, namespace: Option<&str>) -> bool {
        self.believed.iter().any(|writer| match &writer.0 {
            Kind::Container { namespace: n, container: c } => {
                container.is_none_or(|name| c.is(name)) && namespace.is_none_or(|name| n.is(name))
            }
            _ => false,
        })
    }

    /// Judges a pod whose container is not named.
    pub(super) fn believe_pod(&self, pod: &str, namespace: Option<&str>) -> bool {
        PODS.iter().any(|known| pod.starts_with(known))
            || self.names(pod)
            || namespace.is_some_and(|namespace| self.believe_pair(None, Some(namespace)))
    }

    pub(super) fn believe_unit(&self, unit: &str) -> bool {
        let name = unit.strip_suffix(".service").unwrap_or(unit);
        UNITS.contains(&name) || self.names(name) || self.names(unit)
    }

    /// Judges a log stream, and its group if that is named.
    pub(super) fn believe_stream(&self, stream: Option<&str>, group: Option<&str>) -> bool {
        let believes = |group: &str| {
            self.believed.iter().any(|writer| matches!(&writer.0, Kind::Group(known) if known.is(group)))
        };
        let is_of_audit = |group: &str| !group.starts_with(GROUPS_OF_AWS) && says_audit(group);
        let is_of_eks = |group: &str| group.starts_with(GROUPS_OF_EKS) && stream.is_none();
        group.is_some_and(|group| believes(group) || is_of_audit(group) || is_of_eks(group))
            || stream.is_some_and(|stream| {
                // A pod may have such a name, too. So the name of the group, if there is one, must
                // be that of an EKS cluster, because only AWS writes there.
                let is_apart = group.is_none_or(|group| group.starts_with(GROUPS_OF_EKS));
                (stream.starts_with(AUDIT_STREAM) && is_apart) || self.names(stream)
            })
    }

    /// Judges the name between a time and an event. Logstash writes the name of a host there, and
    /// `aws logs tail` the name of a log stream, so the text may be that of any pod.
    pub(super) fn believe_host(&self, name: &str) -> bool {
        self.is_anyone() || self.believe_stream(Some(name), None)
    }

    /// Judges a category of logs of Azure.
    pub(super) fn believe_category(&self, category: &str) -> bool {
        CATEGORIES.contains(&category) || self.believe_log(category)
    }

    /// Judges the name of a log.
    pub(super) fn believe_log(&self, name: &str) -> bool {
        self.is_anyone() || self.names(name)
    }

    /// Judges a name that says little: of a service, an application, a host, a log.
    pub(super) fn believe_name(&self, name: &str) -> bool {
        says_audit(name) || name.contains("apiserver") || UNITS.contains(&name) || self.names(name)
    }
}

fn says_audit(name: &str) -> bool {
    name.contains("audit")
}

/// Whether API servers run in this namespace, and users run nothing in it. On OpenShift users
/// cannot make a namespace with this prefix.
fn is_of_system(namespace: &str) -> bool {
    namespace == "kube-system" || namespace.starts_with("openshift-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writers(texts: &[&str]) -> Writers {
        Writers::new(texts.iter().map(|text| Writer::parse(text).expect(text)).collect())
    }

    #[test]
    fn texts_of_writers() {
        for text in ["a", "a*", "a/b", "a*/b*", "*/b", "a/*", "/aws/x", "/*", "*"] {
            assert_eq!(Writer::parse(text).expect(text).to_string(), text);
        }
        for (text, error) in [
            ("", WriterError::Empty),
            ("/", WriterError::Empty),
            ("a/", WriterError::Empty),
            ("a*b", WriterError::Star),
            ("**", WriterError::Star),
            ("a/b/c", WriterError::Slashes),
            ("a b", WriterError::Character),
            ("a\n", WriterError::Character),
            (&"a".repeat(WRITER_BYTES_MAX + 1), WriterError::Long),
        ] {
            assert_eq!(Writer::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn containers_are_believed_with_their_namespaces() {
        let known = Writers::SERVERS;
        assert!(known.believe_container(Some("kube-apiserver"), None));
        assert!(known.believe_container(Some("kube-apiserver"), Some("kube-system")));
        assert!(known.believe_container(None, Some("openshift-apiserver")));
        assert!(!known.believe_container(Some("kube-apiserver"), Some("tenant-a")));
        assert!(!known.believe_container(Some("web"), Some("kube-system")));

        let hosted = writers(&["clusters-*/audit-logs", "syncer"]);
        assert!(hosted.believe_container(Some("audit-logs"), Some("clusters-a")));
        assert!(hosted.believe_container(Some("audit-logs"), None));
        assert!(hosted.believe_container(None, Some("clusters-a")));
        assert!(hosted.believe_container(Some("kube-apiserver"), Some("kube-system")));
        assert!(!hosted.believe_container(Some("web"), Some("clusters-a")));
        assert!(!hosted.believe_container(Some("audit-logs"), Some("shop")));
        assert!(hosted.believe_container(Some("syncer"), Some("kube-system")));
        assert!(!hosted.believe_container(Some("syncer"), Some("shop")));
        assert!(hosted.believe_pod("kube-apiserver-1", Some("clusters-a")));
        assert!(hosted.believe_pod("x", Some("clusters-a")));
        assert!(!hosted.believe_pod("x", Some("kube-system")));
    }

    #[test]
    fn streams_are_judged_with_their_groups() {
        let known = Writers::SERVERS;
        for (stream, group, is_believed) in [
            (Some("kube-apiserver-audit-1a"), Some("/aws/eks/c/cluster"), true),
            (Some("kube-apiserver-audit-1a"), None, true),
            (Some("kube-apiserver-1a"), Some("/aws/eks/c/cluster"), false),
            (Some("authenticator-1a"), None, false),
            (Some("ip-10-0-0-1"), Some("/k8s/prod/audit"), true),
            (Some("ip-10-0-0-1"), Some("/aws/eks/audit/x"), false),
            (Some("web"), Some("/shop"), false),
            (Some("kube-apiserver-audit-0.web"), Some("/aws/containerinsights/c/application"), false),
            (Some("kube-apiserver-audit-0.web"), Some("/shop"), false),
            (None, Some("/shop"), false),
            (None, Some("/aws/eks/c/cluster"), true),
            (None, Some("/aws/containerinsights/c/application"), false),
        ] {
            assert_eq!(known.believe_stream(stream, group), is_believed, "{stream:?} {group:?}");
        }
        let believed = writers(&["/shop*", "web"]);
        assert!(believed.believe_stream(Some("x"), Some("/shop/audit-logs")));
        assert!(believed.believe_stream(Some("web"), None));
        assert!(!believed.believe_stream(Some("x"), Some("/other")));
    }
}
