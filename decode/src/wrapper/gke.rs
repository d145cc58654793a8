//! Google Cloud's audit entries of GKE, which are not events but say some of the same.
//!
//! Invariant: a column has what the entry says, or is null. An entry never has groups, uid, extra,
//! the impersonated user, the level or the URI. The response code is taken only from a `Status` in
//! the response. No HTTP code follows from the entry's own `status.code`: it is a gRPC code, which
//! stands for several HTTP codes, and it is left out if it is zero. The column `shape` of these
//! rows is [`SHAPE`]; their `raw` is the entry.
//!
//! | column | member of the entry |
//! |---|---|
//! | `audit_id` | `operation.id`, else `insertId` |
//! | `stage` | `ResponseComplete` when `operation.last`, `ResponseStarted` when only `operation.first` |
//! | `verb` | last part of `protoPayload.methodName` |
//! | `user_name` | `authenticationInfo.principalEmail` |
//! | `source_ips`, `user_agent` | `requestMetadata.callerIp`, `.callerSuppliedUserAgent` |
//! | `api_group` … `subresource` | `resourceName`, split |
//! | `response_*` | `response` when it is a `Status`; `response_message` else `status.message` |
//! | `request_object`, `response_object` | `request`, `response` |
//! | `annotations`, `authz_reason` | `labels` |
//! | `authz_decision` | the label, else whether all of `authorizationInfo` is `granted` |
//! | `stage_timestamp` | `timestamp` |

use serde_json::value::RawValue;
use strongroom_schemas::Stage;

use super::{Content, Record};
use crate::dialect::Dialect;
use crate::json::{self, Members};
use crate::plain::{self, PlainEvent};
use crate::reject::{Reason, Refusal};

/// The `shape` of a row that was mapped from a Google audit entry, and so lacks some columns.
pub const SHAPE: &str = "google.cloud.audit.AuditLog";

const AUDIT_LOGS: [&str; 2] = ["activity", "data_access"];

pub(super) fn record<'d>(document: &'d str, members: &Members<'d>) -> Record<'d> {
    let content = match event(members) {
        Ok(event) => Content::Mapped(Box::new(event)),
        Err(refusal) => Content::Refused(refusal),
    };
    Record { item: document, content, dialect: Dialect::Gke }
}

fn event(entry: &Members<'_>) -> Result<PlainEvent, Refusal> {
    let text = |members: &Members<'_>, name: &'static str, path: &str| json::field(path, members, name);
    let inner = |members, name, path| {
        json::object(path, json::member(members, name)).map(|inner| inner.unwrap_or(Members(Vec::new())))
    };
    let log_name = text(entry, "logName", "logName")?.unwrap_or_default();
    let resource = inner(entry, "resource", "resource")?;
    let payload = inner(entry, "protoPayload", "protoPayload")?;
    let is_audit = AUDIT_LOGS.iter().any(|log| {
        log_name.strip_suffix(log).is_some_and(|head| head.ends_with("/logs/cloudaudit.googleapis.com%2F"))
    });
    if !is_audit
        || text(&resource, "type", "resource.type")?.as_deref() != Some("k8s_cluster")
        || text(&payload, "serviceName", "protoPayload.serviceName")?.as_deref() != Some("k8s.io")
        || text(&payload, "@type", "protoPayload.@type")?.as_deref()
            != Some("type.googleapis.com/google.cloud.audit.AuditLog")
    {
        let other = "an entry of Google Cloud Logging that is not an audit entry of k8s.io";
        return Err(Refusal::new(Reason::OtherCategory, other));
    }

    let operation = inner(entry, "operation", "operation")?;
    let caller = inner(&payload, "requestMetadata", "protoPayload.requestMetadata")?;
    let authentication = inner(&payload, "authenticationInfo", "protoPayload.authenticationInfo")?;
    let mut event = PlainEvent {
        audit_id: match text(&operation, "id", "operation.id")? {
            Some(id) => Some(id),
            None => text(entry, "insertId", "insertId")?,
        },
        stage: match (is_true(&operation, "first"), is_true(&operation, "last")) {
            (_, true) => Some(Stage::ResponseComplete.as_str().to_owned()),
            (true, false) => Some(Stage::ResponseStarted.as_str().to_owned()),
            (false, false) => None,
        },
        verb: text(&payload, "methodName", "protoPayload.methodName")?
            .and_then(|method| method.rsplit('.').next().map(str::to_owned)),
        user_name: text(&authentication, "principalEmail", "protoPayload.authenticationInfo.principalEmail")?,
        source_ips: text(&caller, "callerIp", "protoPayload.requestMetadata.callerIp")?.map(|ip| vec![ip]),
        user_agent: text(
            &caller,
            "callerSuppliedUserAgent",
            "protoPayload.requestMetadata.callerSuppliedUserAgent",
        )?,
        request_object: body(&payload, "request"),
        response_object: body(&payload, "response"),
        annotations: json::json_object("labels", json::member(entry, "labels"))?,
        stage_timestamp: json::timestamp("timestamp", json::member(entry, "timestamp"))?,
        ..PlainEvent::default()
    };
    if let Some(name) = text(&payload, "resourceName", "protoPayload.resourceName")? {
        reference(&name, &mut event);
    }
    response(&payload, &mut event)?;
    let labels = inner(entry, "labels", "labels")?;
    event.authz_reason = text(&labels, plain::AUTHZ_REASON, "labels[authorization.k8s.io/reason]")?;
    event.authz_decision =
        match text(&labels, plain::AUTHZ_DECISION, "labels[authorization.k8s.io/decision]")? {
            Some(decision) => Some(decision),
            None => granted(&payload)?,
        };
    Ok(event)
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
        // `status` and `finalize` are subresources of the namespace itself. They stand where a
        // resource in the namespace would be named.
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

/// Fills the response columns of `event` from the entry's response, if that is a `Status`. If there
/// is no message in it, the message of the entry's own status is taken.
fn response(payload: &Members<'_>, event: &mut PlainEvent) -> Result<(), Refusal> {
    let response = json::object("protoPayload.response", json::member(payload, "response")).ok().flatten();
    if let Some(response) = response
        && json::field("@type", &response, "@type").ok().flatten().as_deref() == Some("core.k8s.io/v1.Status")
    {
        let text =
            |name: &'static str| json::field(&format!("protoPayload.response.{name}"), &response, name);
        event.response_status = text("status")?;
        event.response_message = text("message")?;
        event.response_reason = text("reason")?;
        event.response_details =
            json::json_object("protoPayload.response.details", json::member(&response, "details"))?;
        event.response_code = json::code("protoPayload.response.code", json::member(&response, "code"))?;
    }
    if event.response_message.is_none()
        && let Some(status) = json::object("protoPayload.status", json::member(payload, "status"))?
    {
        event.response_message = json::field("protoPayload.status.message", &status, "message")?;
    }
    Ok(())
}

/// Returns the decision: `allow` only if all items of `authorizationInfo` are granted. An entry
/// leaves `granted` out if it is false.
fn granted(payload: &Members<'_>) -> Result<Option<String>, Refusal> {
    let name = "protoPayload.authorizationInfo";
    let Some(list) = json::member(payload, "authorizationInfo") else { return Ok(None) };
    let list: Option<Vec<&RawValue>> =
        serde_json::from_str(list.get()).map_err(|_| Refusal::field(name, "an array"))?;
    let list = list.unwrap_or_default();
    if list.is_empty() {
        return Ok(None);
    }
    let mut all = true;
    for item in list {
        all &= json::object(name, Some(item))?.is_some_and(|info| is_true(&info, "granted"));
    }
    Ok(Some(if all { "allow" } else { "forbid" }.to_owned()))
}

fn is_true(members: &Members<'_>, name: &str) -> bool {
    json::member(members, name).is_some_and(|value| value.get() == "true")
}

fn body(members: &Members<'_>, name: &str) -> Option<String> {
    json::member(members, name).filter(|value| value.get() != "null").map(|value| value.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
