//! Field names of rules: the audit event's JSON names and a few virtual ones, resolved to columns.
//!
//! Invariant: a name has one meaning and is resolved when a rule is read. So a misspelt field is an
//! error, and never makes a rule that silently cannot match. Any path may follow `requestObject`,
//! `responseObject`, `annotations`, the `extra` maps, `responseStatus.details` and `pod`. No state.

use std::fmt;

pub(crate) use strongroom_bodies::{Exec, Path};
use strongroom_schemas::events::index;

/// Columns from which a row's outcome is computed.
const OUTCOME_COLUMNS: [usize; 6] = [
    index::STAGE,
    index::RESPONSE_CODE,
    index::RESPONSE_STATUS,
    index::AUTHZ_DECISION,
    index::RESOURCE,
    index::ANNOTATIONS,
];

/// Columns from which it is computed whether a row is a dry run.
const DRY_RUN_COLUMNS: [usize; 5] =
    [index::REQUEST_URI, index::VERB, index::API_GROUP, index::RESOURCE, index::SUBRESOURCE];

/// Columns from which it is computed whether a request creates an object.
const CREATES_COLUMNS: [usize; 2] = [index::VERB, index::RESPONSE_CODE];

/// Columns of the object that a request asks for. The response is among them, because a patch is
/// also evaluated on the object in the response.
const OBJECT_COLUMNS: [usize; 3] = [index::REQUEST_OBJECT, index::VERB, index::RESPONSE_OBJECT];

/// Columns from which it is computed whether a binding names the user who makes it.
const BINDS_ITSELF_COLUMNS: [usize; 5] = [
    index::USER_NAME,
    index::USER_GROUPS,
    index::IMPERSONATED_USER_NAME,
    index::IMPERSONATED_USER_GROUPS,
    index::NAMESPACE,
];

/// The two bodies of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Body {
    Request,
    Response,
}

/// The source of a field's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Field {
    /// A text or number column, by its position.
    Column(usize),
    /// A point in time, compared as text such as `2026-03-02T10:00:00.000000Z`.
    Time(usize),
    /// A column of lists of text; it matches if any element of the list does.
    List(usize),
    /// `impersonatedUser.username`, else `user.username`.
    Actor,
    /// The last of `sourceIPs`, the only address that the API server saw itself.
    SourceIp,
    /// Whether the request succeeded, see [`strongroom_schemas::outcome`].
    Outcome,
    /// True for a request that asked the API server to change nothing.
    DryRun,
    /// True for a request that creates an object: a `create`, or a server-side apply that is
    /// answered with 201.
    Creates,
    /// False if rules cannot see all of the request body; null without a body.
    Examined,
    /// True for a patch whose event does not contain the resulting object.
    Partial,
    /// JSON pointers to what the request removes from the stored object, see
    /// [`strongroom_bodies::body::Examined::removes`].
    Removed,
    /// Whether a binding in the request body names the user who sends the request, or one of the
    /// user's groups; see [`strongroom_bodies::binding`].
    BindsItself,
    /// A query parameter in the URI of exec and attach or, if the URI does not have it, the option
    /// in the request body.
    Exec(Exec),
    /// The program that `userAgent` names first, without its version.
    Client,
    /// A path in a JSON column that is not a body.
    Json(usize, Path),
    Body(Body, Path),
    /// A path in the pod spec of any kind of object.
    Pod(Path),
    /// In an array scope, a path below the element; an empty path is the element itself.
    Element(Path),
}

impl Field {
    /// Returns true if the value is part of a body. To read the value, the body must be parsed, and
    /// no alert may contain the value.
    pub(crate) fn is_body(&self) -> bool {
        matches!(self, Field::Body(..) | Field::Pod(_) | Field::Removed | Field::BindsItself)
    }

    /// Adds the columns from which the value is computed to `out`.
    pub(crate) fn add_columns(&self, out: &mut Vec<usize>) {
        match self {
            Field::Column(at) | Field::Time(at) | Field::List(at) | Field::Json(at, _) => out.push(*at),
            Field::Actor => out.extend([index::USER_NAME, index::IMPERSONATED_USER_NAME]),
            Field::SourceIp => out.push(index::SOURCE_IPS),
            Field::Outcome => out.extend(OUTCOME_COLUMNS),
            Field::DryRun => out.extend(DRY_RUN_COLUMNS),
            Field::Creates => out.extend(CREATES_COLUMNS),
            Field::Examined | Field::Removed => out.push(index::REQUEST_OBJECT),
            Field::Partial | Field::Body(Body::Request, _) => out.extend(OBJECT_COLUMNS),
            Field::Body(Body::Response, _) => out.push(index::RESPONSE_OBJECT),
            Field::Pod(_) => out.extend(OBJECT_COLUMNS.into_iter().chain([index::RESOURCE])),
            Field::BindsItself => out.extend(OBJECT_COLUMNS.into_iter().chain(BINDS_ITSELF_COLUMNS)),
            Field::Exec(_) => out.extend([index::REQUEST_URI, index::SUBRESOURCE, index::REQUEST_OBJECT]),
            Field::Client => out.push(index::USER_AGENT),
            Field::Element(_) => {}
        }
    }
}

const EXACT: &[(&str, Field)] = &[
    ("actor", Field::Actor),
    ("auditID", Field::Column(index::AUDIT_ID)),
    ("binds_itself", Field::BindsItself),
    ("authz.decision", Field::Column(index::AUTHZ_DECISION)),
    ("authz.reason", Field::Column(index::AUTHZ_REASON)),
    ("annotations.authorization.k8s.io/decision", Field::Column(index::AUTHZ_DECISION)),
    ("annotations.authorization.k8s.io/reason", Field::Column(index::AUTHZ_REASON)),
    ("client", Field::Client),
    ("cluster", Field::Column(index::CLUSTER)),
    ("creates", Field::Creates),
    ("dry_run", Field::DryRun),
    ("exec.command", Field::Exec(Exec::Command)),
    ("exec.container", Field::Exec(Exec::Container)),
    ("faults", Field::List(index::FAULTS)),
    ("impersonatedUser.groups", Field::List(index::IMPERSONATED_USER_GROUPS)),
    ("impersonatedUser.username", Field::Column(index::IMPERSONATED_USER_NAME)),
    ("level", Field::Column(index::LEVEL)),
    ("objectRef.apiGroup", Field::Column(index::API_GROUP)),
    ("objectRef.apiVersion", Field::Column(index::API_VERSION)),
    ("objectRef.name", Field::Column(index::NAME)),
    ("objectRef.namespace", Field::Column(index::NAMESPACE)),
    ("objectRef.resource", Field::Column(index::RESOURCE)),
    ("objectRef.resourceVersion", Field::Column(index::RESOURCE_VERSION)),
    ("objectRef.subresource", Field::Column(index::SUBRESOURCE)),
    ("objectRef.uid", Field::Column(index::OBJECT_UID)),
    ("outcome", Field::Outcome),
    ("request_examined", Field::Examined),
    ("request_partial", Field::Partial),
    ("request_removes", Field::Removed),
    ("requestReceivedTimestamp", Field::Time(index::REQUEST_RECEIVED_TIMESTAMP)),
    ("requestURI", Field::Column(index::REQUEST_URI)),
    ("responseStatus.code", Field::Column(index::RESPONSE_CODE)),
    ("responseStatus.message", Field::Column(index::RESPONSE_MESSAGE)),
    ("responseStatus.reason", Field::Column(index::RESPONSE_REASON)),
    ("responseStatus.status", Field::Column(index::RESPONSE_STATUS)),
    ("sourceIPs", Field::List(index::SOURCE_IPS)),
    ("source_ip", Field::SourceIp),
    ("stage", Field::Column(index::STAGE)),
    ("stageTimestamp", Field::Time(index::STAGE_TIMESTAMP)),
    ("user.groups", Field::List(index::USER_GROUPS)),
    ("user.uid", Field::Column(index::USER_UID)),
    ("user.username", Field::Column(index::USER_NAME)),
    ("userAgent", Field::Column(index::USER_AGENT)),
    ("verb", Field::Column(index::VERB)),
];

/// Names that any path may follow.
const ROOTS: &[&str] = &[
    "annotations",
    "impersonatedUser.extra",
    "pod",
    "requestObject",
    "responseObject",
    "responseStatus.details",
    "user.extra",
];

/// A name that is not a field, with the most similar field names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownField {
    name: String,
    nearest: Vec<&'static str>,
}

impl fmt::Display for UnknownField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field \"{}\" is not one of an audit event", self.name)?;
        match self.nearest.as_slice() {
            [] => write!(
                f,
                "; fields are verb, objectRef.resource, user.username, requestObject.…, annotations.…, actor, source_ip, pod.… and so on"
            ),
            names => write!(f, "; nearest: {}", names.join(", ")),
        }
    }
}

/// Returns the field for a name that is written in a rule.
pub(crate) fn resolve(name: &str) -> Result<Field, UnknownField> {
    if let Some((_, field)) = EXACT.iter().find(|(known, _)| *known == name) {
        return Ok(field.clone());
    }
    for root in ROOTS {
        let Some(rest) = name.strip_prefix(root) else { continue };
        let path = match rest.strip_prefix('.') {
            Some(path) => path,
            None if rest.is_empty() => "",
            None => continue,
        };
        // Annotations and extras are flat maps, so everything after the root is one key.
        let flat = || Path(if path.is_empty() { vec![] } else { vec![path.replace("\\.", ".")] });
        return Ok(match *root {
            "annotations" => Field::Json(index::ANNOTATIONS, flat()),
            "impersonatedUser.extra" => Field::Json(index::IMPERSONATED_USER_EXTRA, flat()),
            "user.extra" => Field::Json(index::USER_EXTRA, flat()),
            "responseStatus.details" => Field::Json(index::RESPONSE_DETAILS, Path::parse(path)),
            "pod" => Field::Pod(Path::parse(path)),
            "requestObject" => Field::Body(Body::Request, Path::parse(path)),
            _ => Field::Body(Body::Response, Path::parse(path)),
        });
    }
    Err(UnknownField { name: name.chars().take(128).collect(), nearest: nearest(name) })
}

/// Returns the known names that a misspelt name may stand for: the name that differs only in case
/// or, if there is none, the names with the same last part.
fn nearest(name: &str) -> Vec<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let known = || EXACT.iter().map(|(known, _)| *known).filter(|known| !known.contains('/'));
    let same = known().find(|known| known.eq_ignore_ascii_case(name));
    match same {
        Some(known) => vec![known],
        None => known().filter(|known| last(known) == last(name)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use strongroom_schemas::Table;

    use super::*;

    #[test]
    fn names_resolve_to_their_columns() {
        let schema = Table::Events.file_schema();
        for (name, field) in EXACT {
            if let Field::Column(at) | Field::List(at) | Field::Time(at) = field {
                let column = schema.field(*at).name().replace('_', "");
                let plain = name.rsplit(['.', '/']).next().unwrap().to_lowercase();
                assert!(
                    column.ends_with(plain.trim_start_matches("user").trim_end_matches('s'))
                        || column.contains(&plain),
                    "{name} {column}"
                );
            }
        }
    }

    #[test]
    fn paths_below_roots() {
        let path = |parts: &[&str]| Path(parts.iter().map(|p| (*p).to_owned()).collect());
        assert_eq!(resolve("requestObject.spec.x"), Ok(Field::Body(Body::Request, path(&["spec", "x"]))));
        assert_eq!(
            resolve(r"requestObject.metadata.labels.a\.b/c"),
            Ok(Field::Body(Body::Request, path(&["metadata", "labels", "a.b/c"])))
        );
        assert_eq!(
            resolve("annotations.pod-security.kubernetes.io/audit-violations"),
            Ok(Field::Json(index::ANNOTATIONS, path(&["pod-security.kubernetes.io/audit-violations"])))
        );
        assert_eq!(
            resolve("annotations.authorization.k8s.io/decision"),
            Ok(Field::Column(index::AUTHZ_DECISION))
        );
        assert_eq!(resolve("pod.containers.image"), Ok(Field::Pod(path(&["containers", "image"]))));
        assert_eq!(resolve("requestObject"), Ok(Field::Body(Body::Request, path(&[]))));
    }

    #[test]
    fn unknown_names_come_with_the_nearest() {
        let error = resolve("objectref.Resource").unwrap_err();
        assert_eq!(error.nearest, ["objectRef.resource"]);
        assert_eq!(resolve("username").unwrap_err().nearest, ["impersonatedUser.username", "user.username"]);
        assert!(resolve("requestObjects.x").is_err());
        assert!(resolve("pods").is_err());
    }
}
