//! Maps Google Cloud's audit log entries of GKE to events. The entries are not audit events, but
//! have a part of the same information.
//!
//! Invariant: a column has what the entry says, or is null. An entry never has groups, uid, extra,
//! the impersonated user, the level or the URI. The response code is taken only from a `Status` in
//! the response, or a `Failure` without a type. The entry's own `status.code` gives no HTTP code,
//! because it is a gRPC code, which stands for several HTTP codes. A code of zero is left out of
//! the entry; any other code says only that the request failed. A member that cannot be read is a
//! fault of the row, unless entries are recognised by that member. The column `shape` of these rows
//! is [`SHAPE`]; their `raw` is the entry. Other entries may have an API server's own event as
//! their payload. Then the payload is the record.
//!
//! | column | member of the entry |
//! |---|---|
//! | `audit_id` | `operation.id`, else `insertId` |
//! | `stage` | `ResponseComplete` when `operation.last`, `ResponseStarted` when only `operation.first` |
//! | `verb` | last part of `protoPayload.methodName` |
//! | `user_name` | `authenticationInfo.principalEmail`, else `.principalSubject`; else [`ANONYMOUS`] if the entry is of an anonymous request |
//! | `source_ips`, `user_agent` | `requestMetadata.callerIp`, `.callerSuppliedUserAgent` |
//! | `api_group` … `subresource` | `resourceName`, split; else `methodName`, without namespace and name |
//! | `response_*` | `response` when it is a `Status`; `response_message` else `status.message` |
//! | `response_status` | else `Failure`, when `status.code` is not zero |
//! | `request_object`, `response_object` | `request`, `response` |
//! | `annotations`, `authz_reason` | `labels` |
//! | `authz_decision` | the label, else whether all of `authorizationInfo` is `granted` |
//! | `stage_timestamp` | `timestamp` |

use serde_json::value::RawValue;
use strongroom_schemas::Stage;

use super::origin::{Origin, Other};
use super::writers::Writers;
use super::{Content, Record, refused_for};
use crate::dialect::Dialect;
use crate::json::{self, Members, WHITE};
use crate::plain::{self, FORMAT_OF_FAULTS, PlainEvent};
use crate::reject::{Reason, Refusal};
use crate::tolerant::{Faults, Object, Text};

/// The `shape` of a row that was mapped from a Google audit entry, and so lacks some columns.
pub const SHAPE: &str = "google.cloud.audit.AuditLog";

const AUDIT_LOGS: [&str; 2] = ["activity", "data_access"];
/// The domain in the name of an audit log, and the values of `serviceName` that its entries may
/// have: first for clusters in Google Cloud, then for clusters elsewhere that Google manages.
const AUDIT_SERVICES: [(&str, &[&str]); 2] = [
    ("cloudaudit.googleapis.com", &["k8s.io"]),
    ("externalaudit.googleapis.com", &["k8s.io", "anthosgke.googleapis.com"]),
];
/// The beginning of the names of logs that are believed to have an API server's own events, even if
/// the entry does not name a container.
const EVENT_LOG: &str = "kube-apiserver-audit";
/// The members in which an entry that is not an audit entry has its payload.
const PAYLOADS: [&str; 2] = ["textPayload", "jsonPayload"];

/// The `status` of a response that failed, as Kubernetes names it.
const FAILURE: &str = "Failure";

/// The member with the audit log's own message.
const PAYLOAD: &str = "protoPayload";
/// Its bodies, in which a client of the cluster chooses how deep they are. One that is too deep is a
/// fault; any other member that is too deep refuses the entry.
const BODIES: [&str; 2] = ["request", "response"];

pub(super) fn record<'d>(
    document: &'d str,
    members: &Members<'d>,
    depth_max: usize,
    format: u32,
    writers: &Writers,
) -> Result<Record<'d>, Refusal> {
    bounded_depth(members, depth_max)?;
    let content = match event(members, depth_max, format) {
        Ok(event) => Content::Mapped(Box::new(event)),
        Err(refusal) => payload(members, refusal, writers),
    };
    Ok(Record { item: document, content, dialect: Dialect::Gke })
}

/// Refuses an entry that is too deep outside of its bodies.
fn bounded_depth(entry: &Members<'_>, depth_max: usize) -> Result<(), Refusal> {
    for (_, value) in entry.0.iter().filter(|(name, _)| name != PAYLOAD) {
        json::bounded_depth(value.get().as_bytes(), depth_max.saturating_sub(1))?;
    }
    let Some(payload) = json::member(entry, PAYLOAD) else { return Ok(()) };
    let members = payload.get().starts_with('{').then(|| serde_json::from_str::<Members<'_>>(payload.get()));
    let Some(Ok(members)) = members else {
        return json::bounded_depth(payload.get().as_bytes(), depth_max.saturating_sub(1));
    };
    for (_, value) in members.0.iter().filter(|(name, _)| !BODIES.contains(&name.as_ref())) {
        json::bounded_depth(value.get().as_bytes(), depth_max.saturating_sub(2))?;
    }
    Ok(())
}

/// Returns the payload of an entry that is not an audit entry, if the payload may be an event: an
/// agent may have sent an API server's own log to Cloud Logging. Otherwise the entry is refused
/// with `refusal`.
fn payload<'d>(entry: &Members<'d>, refusal: Refusal, writers: &Writers) -> Content<'d> {
    let Some(payload) = PAYLOADS.iter().find_map(|name| json::member(entry, name)) else {
        return Content::Refused(refusal);
    };
    if !super::says_event(payload.get().as_bytes()) {
        return Content::Refused(refusal);
    }
    let log = json::field("logName", entry, "logName").ok().flatten().unwrap_or_default();
    let log = log.rsplit_once("/logs/").map_or(log.as_str(), |(_, name)| name);
    let origin = Origin::of(entry, &[payload]);
    let other = origin.other(writers).or_else(|| {
        let is_believed = log.starts_with(EVENT_LOG)
            || origin.names_container() && log != "stderr"
            || writers.believe_log(log);
        (!is_believed).then(|| Other::new("a log of Cloud Logging that is not known", log))
    });
    match other {
        Some(other) => Content::Refused(refused_for(&other, Some(payload))),
        None => Content::Event(payload.get()),
    }
}

fn event(entry: &Members<'_>, depth_max: usize, format: u32) -> Result<PlainEvent, Refusal> {
    let Text { object: entry, mut faults, .. } = Text::strict(entry);
    let faults = &mut faults;
    let log_name = entry.plain_string("logName").unwrap_or_default();
    let resource = inner(&entry, "resource", &mut Faults::default());
    let mut payload = inner(&entry, PAYLOAD, faults);
    let service = payload.plain_string("serviceName").unwrap_or_default();
    let is_audit =
        log_name.rsplit_once("/logs/").and_then(|(_, log)| log.split_once("%2F")).is_some_and(|(of, log)| {
            AUDIT_LOGS.contains(&log)
                && AUDIT_SERVICES
                    .iter()
                    .any(|(known, services)| *known == of && services.contains(&service.as_str()))
        });
    if !is_audit
        || resource.plain_string("type").as_deref() != Some("k8s_cluster")
        || payload.plain_string("@type").as_deref() != Some("type.googleapis.com/google.cloud.audit.AuditLog")
    {
        let other = "an entry of Google Cloud Logging that is not an audit entry of k8s.io";
        return Err(Refusal::new(Reason::OtherCategory, other));
    }

    payload.drop_deep(&BODIES, depth_max.saturating_sub(2), faults);
    let operation = inner(&entry, "operation", faults);
    let caller = inner(&payload, "requestMetadata", faults);
    let authentication = inner(&payload, "authenticationInfo", faults);
    let mut event = PlainEvent {
        audit_id: operation.string("id", faults).or_else(|| entry.string("insertId", faults)),
        stage: match (is_true(&operation, "first"), is_true(&operation, "last")) {
            (_, true) => Some(Stage::ResponseComplete.as_str().to_owned()),
            (true, false) => Some(Stage::ResponseStarted.as_str().to_owned()),
            (false, false) => None,
        },
        verb: payload
            .string("methodName", faults)
            .and_then(|method| method.rsplit('.').next().map(str::to_owned)),
        user_name: authentication.string("principalEmail", faults),
        source_ips: caller.string("callerIp", faults).map(|ip| vec![ip]),
        user_agent: caller.string("callerSuppliedUserAgent", faults),
        request_object: payload.any("request"),
        response_object: payload.any("response"),
        annotations: entry.json_object("labels", faults),
        stage_timestamp: entry.time("timestamp", faults),
        ..PlainEvent::default()
    };
    match payload.string("resourceName", faults) {
        Some(name) => reference(&name, &mut event),
        None if format >= FORMAT_OF_FAULTS => of_method(&payload, &mut event),
        None => {}
    }
    response(&payload, &mut event, format, faults);
    let labels = inner(&entry, "labels", faults);
    event.authz_reason = labels.string(plain::AUTHZ_REASON, faults);
    event.authz_decision = labels.string(plain::AUTHZ_DECISION, faults).or_else(|| granted(&payload, faults));
    if event.user_name.is_none() && format >= FORMAT_OF_FAULTS {
        event.user_name = authentication
            .string("principalSubject", faults)
            .or_else(|| is_anonymous(&payload, &event).then(|| ANONYMOUS.to_owned()));
    }
    event.faults = std::mem::take(faults).into_texts();
    Ok(event)
}

/// The user of a request without credentials.
const ANONYMOUS: &str = "system:anonymous";
/// How the API server's reason ends when it allows a request of such a user: after the binding, it
/// names the user or the group.
const ALLOWED_TO_ANONYMOUS: [&str; 2] =
    [r#" to User "system:anonymous""#, r#" to Group "system:unauthenticated""#];
/// What the API server writes when it refuses a request of such a user.
const REFUSED_TO_ANONYMOUS: &str = r#"User "system:anonymous" cannot "#;

/// Returns true if an entry without a principal is about an anonymous request: the entry says so,
/// or the request was allowed and the entry names nobody. Google hides the principal of reads that
/// were refused, so a refusal alone says nothing.
fn is_anonymous(payload: &Object<'_>, event: &PlainEvent) -> bool {
    let names_nobody = payload.value("authenticationInfo").is_none_or(|text| {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        inner.is_some_and(|inner| inner.trim_matches(WHITE).is_empty())
    });
    let reason = event.authz_reason.as_deref().unwrap_or_default();
    ALLOWED_TO_ANONYMOUS.iter().any(|end| reason.ends_with(end))
        || event.response_message.as_ref().is_some_and(|text| text.contains(REFUSED_TO_ANONYMOUS))
        || names_nobody && event.authz_decision.as_deref() == Some("allow")
}

/// Returns the object in the member `name`, or an empty object.
fn inner<'t>(members: &Object<'t>, name: &str, faults: &mut Faults) -> Object<'t> {
    members.object(name, faults).unwrap_or_else(Object::empty)
}

/// Splits `group/version/[namespaces/<namespace>/]resource[/name[/subresource]]`. Other names do
/// not name a resource.
fn reference(resource_name: &str, event: &mut PlainEvent) {
    let parts: Vec<&str> = resource_name.split('/').collect();
    let [group, version, rest @ ..] = parts.as_slice() else { return };
    let is_version =
        version.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if !is_version || parts.iter().any(|part| part.is_empty()) {
        return;
    }
    let (namespace, rest) = match rest {
        // `status` and `finalize` are subresources of the namespace itself. In a resource name they
        // are where a resource in the namespace would be.
        ["namespaces", name, "status" | "finalize"] => (Some(*name), rest),
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (Some(*namespace), inner),
        // As in the API server's events, the namespace of a namespace is the namespace itself.
        ["namespaces", name] => (Some(*name), rest),
        _ => (None, rest),
    };
    let Some(resource) = rest.first() else { return };
    let owned = |part: Option<&&str>| part.map(|part| (*part).to_owned());
    event.api_group = (*group != "core").then(|| (*group).to_owned());
    event.api_version = Some((*version).to_owned());
    event.namespace = namespace.map(str::to_owned);
    event.resource = Some((*resource).to_owned());
    event.name = owned(rest.get(1));
    event.subresource = owned(rest.get(2));
}

/// Groups of Kubernetes whose names have no domain. A `methodName` has them with a domain, as in
/// `io.k8s.apps`.
const SHORT_GROUPS: [&str; 5] = ["apps", "autoscaling", "batch", "extensions", "policy"];

/// Splits `group.version.resource[.subresource].verb`, where the group's domain is written
/// backwards. Other methods do not name a resource.
fn of_method(payload: &Object<'_>, event: &mut PlainEvent) {
    let Some(method) = payload.plain_string("methodName") else { return };
    let parts: Vec<&str> = method.split('.').collect();
    let Some(at) = parts.iter().position(|part| is_version(part)) else { return };
    let (group, Some([version, resource, rest @ ..])) = (&parts[..at], parts.get(at..)) else { return };
    let Some((_verb, rest)) = rest.split_last() else { return };
    if group.is_empty() || parts.iter().any(|part| part.is_empty()) {
        return;
    }
    event.api_group = match group {
        ["io", "k8s", "core"] => None,
        ["io", "k8s", name] if SHORT_GROUPS.contains(name) => Some((*name).to_owned()),
        _ => Some(group.iter().rev().copied().collect::<Vec<_>>().join(".")),
    };
    event.api_version = Some((*version).to_owned());
    event.resource = Some((*resource).to_owned());
    event.subresource = rest.first().map(|part| (*part).to_owned());
}

/// Returns true for `v1`, `v2beta1` and the like.
fn is_version(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('v') else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (major, minor) = rest.split_once("alpha").or_else(|| rest.split_once("beta")).unwrap_or((rest, "0"));
    is_number(major) && is_number(minor)
}

/// Fills the response columns of `event` from the entry's response, if that is a `Status`. A column
/// that is still null is then filled from the entry's own status.
fn response(payload: &Object<'_>, event: &mut PlainEvent, format: u32, faults: &mut Faults) {
    // A response that is not a `Status` is a body, and may be of any type. A response in which a
    // name cannot be read is not a `Status` either.
    let mut odd = Faults::default();
    let response = payload.object("response", &mut odd).filter(|_| odd.is_empty());
    let has_code = format >= FORMAT_OF_FAULTS;
    let is_status = |response: &Object<'_>| match response.plain_string("@type").as_deref() {
        Some(of) => of == "core.k8s.io/v1.Status",
        None => {
            let is_failure = response.plain_string("status").as_deref() == Some(FAILURE);
            has_code && is_failure && !response.has("@type")
        }
    };
    if let Some(response) = response.filter(is_status) {
        plain::response(&response, event, faults);
    }
    if event.response_message.is_some() && (event.response_status.is_some() || !has_code) {
        return;
    }
    let Some(status) = payload.object("status", faults) else { return };
    if event.response_message.is_none() {
        event.response_message = status.string("message", faults);
    }
    if has_code && event.response_status.is_none() && status.value("code").is_some_and(is_nonzero) {
        event.response_status = Some(FAILURE.to_owned());
    }
}

/// Returns true if a JSON value is an integer other than zero.
fn is_nonzero(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    digits != "0" && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the decision: `allow` only if all items of `authorizationInfo` are granted. An entry
/// leaves `granted` out if it is false.
fn granted(payload: &Object<'_>, faults: &mut Faults) -> Option<String> {
    let name = "authorizationInfo";
    let list = serde_json::from_str::<Vec<&RawValue>>(payload.value(name)?).ok();
    let is_item = |item: &&RawValue| item.get().starts_with('{') || item.get() == "null";
    let Some(list) = list.filter(|list| list.iter().all(is_item)) else {
        payload.wrong_type(name, faults);
        return None;
    };
    if list.is_empty() {
        return None;
    }
    let mut all = true;
    for item in list {
        let item = Object::of(item.get(), String::new(), faults);
        all &= item.is_some_and(|item| is_true(&item, "granted"));
    }
    Some(if all { "allow" } else { "forbid" }.to_owned())
}

fn is_true(members: &Object<'_>, name: &str) -> bool {
    members.value(name) == Some("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for version in ["v1", "v2beta1", "v1alpha10", "v10"] {
            assert!(is_version(version), "{version}");
        }
        for other in ["", "v", "v1beta", "vbeta1", "v2ray", "1", "v1alpha1beta1", "V1"] {
            assert!(!is_version(other), "{other}");
        }
    }

    #[test]
    fn resource_names() {
        // group, version, namespace, resource, name, subresource; `-` for null.
        for (name, expected) in [
            ("core/v1/namespaces/ns/pods/p", "- v1 ns pods p -"),
            ("core/v1/namespaces/ns/pods/p/exec", "- v1 ns pods p exec"),
            ("core/v1/namespaces/ns/pods", "- v1 ns pods - -"),
            ("core/v1/nodes/n", "- v1 - nodes n -"),
            ("core/v1/nodes/n/proxy/metrics", "- v1 - nodes n proxy"),
            ("core/v1/namespaces", "- v1 - namespaces - -"),
            ("core/v1/namespaces/ns", "- v1 ns namespaces ns -"),
            ("core/v1/namespaces/ns/finalize", "- v1 ns namespaces ns finalize"),
            (
                "rbac.authorization.k8s.io/v1/clusterroles/admin",
                "rbac.authorization.k8s.io v1 - clusterroles admin -",
            ),
            ("apps/v1/namespaces/ns/deployments/d/scale", "apps v1 ns deployments d scale"),
            ("batch/v1beta1/namespaces/ns/cronjobs/c", "batch v1beta1 ns cronjobs c -"),
            ("readyz", "- - - - - -"),
            ("api/v1", "- - - - - -"),
            ("core/v1//pods", "- - - - - -"),
            ("", "- - - - - -"),
        ] {
            let mut event = PlainEvent::default();
            reference(name, &mut event);
            let found = [
                event.api_group,
                event.api_version,
                event.namespace,
                event.resource,
                event.name,
                event.subresource,
            ];
            let found = found.map(|part| part.unwrap_or_else(|| "-".to_owned())).join(" ");
            assert_eq!(found, expected, "{name}");
        }
    }
}
