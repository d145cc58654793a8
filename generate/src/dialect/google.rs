//! Maps an event to the entry that GKE makes of it in Google Cloud Logging.
//!
//! Invariant: the entry contains no more than Google's entries do. It has no groups, uid, extra,
//! impersonated user, level or URI. The entry of a success has no code. The entry of a failure has
//! the HTTP code in a response of the type `Status`, and the gRPC code in `status`.

use serde_json::{Map, Value, json};

use super::{Event, SecondsFormat, hash_hex};

/// Returns the entry; `None` for an event of the stage RequestReceived, for which Google has no
/// entry.
pub(super) fn entry(event: &Event<'_>) -> Option<Value> {
    let members = &event.members;
    let stage = members.text("stage").unwrap_or_default();
    if stage == "RequestReceived" {
        return None;
    }
    let id = members.text("auditID").unwrap_or_else(|| hash_hex(event.text.as_bytes()));
    let verb = members.text("verb").unwrap_or_default();
    let reference = Reference::new(&members.value("objectRef"));
    let method = reference.method(&verb);
    let uri = members.text("requestURI").unwrap_or_default();
    let resource_name = reference.resource_name(&uri);

    let status = members.value("responseStatus");
    let code = status["code"].as_u64();
    let has_failed = code.map_or(status["status"] == "Failure", |code| code >= 400);
    let annotations = members.value("annotations");
    let is_granted = match annotations["authorization.k8s.io/decision"].as_str() {
        Some(decision) => decision == "allow",
        None => !matches!(code, Some(401 | 403)),
    };

    let mut authorization = json!({"permission": method, "resource": resource_name});
    if is_granted {
        authorization["granted"] = true.into();
    }
    let mut payload = json!({
        "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
        "authorizationInfo": [authorization],
        "methodName": method,
        "requestMetadata": {},
        "resourceName": resource_name,
        "serviceName": "k8s.io",
        "status": {},
    });
    if let Some(name) = members.value("user")["username"].as_str() {
        payload["authenticationInfo"] = json!({"principalEmail": name});
    }
    let addresses = members.value("sourceIPs");
    if let Some(address) = addresses.as_array().and_then(|addresses| addresses.last()) {
        payload["requestMetadata"]["callerIp"] = address.clone();
    }
    if let Some(agent) = members.text("userAgent") {
        payload["requestMetadata"]["callerSuppliedUserAgent"] = agent.into();
    }
    if has_failed {
        payload["status"] = json!({"code": code.map_or(2, grpc_code)});
        if let Some(message) = status["message"].as_str() {
            payload["status"]["message"] = message.into();
        }
        payload["response"] = failure(status);
    } else if let Some(body) = typed(members.value("responseObject"), "") {
        payload["response"] = body;
    }
    let of_request = if verb == "patch" { "k8s.io/Patch" } else { "" };
    if let Some(body) = typed(members.value("requestObject"), of_request) {
        payload["request"] = body;
    }

    let log = if matches!(verb.as_str(), "get" | "list" | "watch") { "data_access" } else { "activity" };
    let mut operation = json!({"id": id, "producer": "k8s.io"});
    // A long-running request has two entries, one for its start and one for its end. Every other
    // request has one entry for both.
    let is_long = verb == "watch" || matches!(reference.subresource(), "exec" | "attach" | "portforward");
    if stage == "ResponseStarted" || !is_long {
        operation["first"] = true.into();
    }
    if stage != "ResponseStarted" {
        operation["last"] = true.into();
    }
    Some(json!({
        "insertId": id,
        "labels": match annotations { Value::Object(labels) => labels, _ => Map::new() },
        "logName": format!("projects/demo/logs/cloudaudit.googleapis.com%2F{log}"),
        "operation": operation,
        "protoPayload": payload,
        "receiveTimestamp": (event.time + chrono::TimeDelta::seconds(5)).to_rfc3339_opts(SecondsFormat::Nanos, true),
        "resource": {
            "labels": {"cluster_name": "gke-1", "location": "europe-west1", "project_id": "demo"},
            "type": "k8s_cluster",
        },
        "severity": if has_failed { "ERROR" } else { "INFO" },
        "timestamp": event.rfc3339(SecondsFormat::Micros),
    }))
}

/// The object of a request; a text is empty if the event does not have it.
struct Reference([String; 6]);

impl Reference {
    fn new(reference: &Value) -> Reference {
        let text = |name: &str| reference[name].as_str().unwrap_or_default().to_owned();
        Reference(["apiGroup", "apiVersion", "namespace", "resource", "name", "subresource"].map(text))
    }

    fn subresource(&self) -> &str {
        &self.0[5]
    }

    /// Returns a method such as `io.k8s.core.v1.pods.exec.create`. The labels of the group's domain
    /// name are in reverse order.
    fn method(&self, verb: &str) -> String {
        let [group, version, _, resource, _, subresource] = &self.0;
        if resource.is_empty() {
            return format!("io.k8s.{verb}");
        }
        let group = match group.as_str() {
            "" => "io.k8s.core".to_owned(),
            name if name.contains('.') => name.rsplit('.').collect::<Vec<_>>().join("."),
            name => format!("io.k8s.{name}"),
        };
        let parts = [&group, version, resource, subresource];
        let parts: Vec<&str> =
            parts.iter().map(|part| part.as_str()).filter(|part| !part.is_empty()).collect();
        format!("{}.{verb}", parts.join("."))
    }

    /// Returns a name such as `core/v1/namespaces/ns/pods/name/exec`, or the path of a request that
    /// names no resource.
    fn resource_name(&self, uri: &str) -> String {
        let [group, version, namespace, resource, name, subresource] = &self.0;
        if resource.is_empty() {
            return uri.split('?').next().unwrap_or_default().trim_start_matches('/').to_owned();
        }
        let group = if group.is_empty() { "core" } else { group };
        let mut parts = vec![group, version];
        if !namespace.is_empty() && resource != "namespaces" {
            parts.extend(["namespaces", namespace]);
        }
        parts.extend([resource.as_str(), name, subresource]);
        parts.retain(|part| !part.is_empty());
        parts.join("/")
    }
}

/// Returns a body with the member `@type`. Its value is `of` or, if `of` is empty, follows from the
/// kind of the body. A body that is not an object becomes the member `value` of an object.
fn typed(body: Value, of: &str) -> Option<Value> {
    let mut object = match body {
        Value::Null => return None,
        Value::Object(object) => object,
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    let kind = object.get("kind").and_then(Value::as_str);
    let api_version = object.get("apiVersion").and_then(Value::as_str);
    let name = match (of, kind, api_version.and_then(|version| version.split_once('/'))) {
        ("", Some(kind), Some((group, version))) if group.contains('.') => {
            format!("{group}/{version}.{kind}")
        }
        ("", Some(kind), Some((group, version))) => format!("{group}.k8s.io/{version}.{kind}"),
        ("", Some(kind), None) => format!("core.k8s.io/{}.{kind}", api_version.unwrap_or("v1")),
        ("", None, _) => "type.googleapis.com/google.protobuf.Struct".to_owned(),
        (of, ..) => of.to_owned(),
    };
    object.entry("@type").or_insert(name.into());
    Some(Value::Object(object))
}

fn failure(status: Value) -> Value {
    let mut response = match status {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (name, value) in [("apiVersion", "v1"), ("kind", "Status"), ("status", "Failure")] {
        response.entry(name).or_insert(value.into());
    }
    response.insert("@type".to_owned(), "core.k8s.io/v1.Status".into());
    Value::Object(response)
}

/// Returns the gRPC code by which Google reports a failure with this HTTP code.
fn grpc_code(http: u64) -> u32 {
    match http {
        400 | 422 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 10,
        429 => 8,
        500 => 13,
        503 => 14,
        504 => 4,
        _ => 2,
    }
}
