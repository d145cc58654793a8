//! Writes an alert as a document of the Elastic Common Schema.
//!
//! Invariants: every field is defined in ECS 8.17 or is below `strongroom`, and fields that ECS
//! defines as arrays are arrays. No client chooses a key, so clients cannot make a mapping grow. No
//! state.

use serde_json::{Map, Value, json};
use strongroom_schemas::{Alert, Severity};

use super::rfc3339;

const ECS_VERSION: &str = "8.17.0";

/// Returns an alert as a document.
pub fn ecs(alert: &Alert) -> Value {
    let event = &alert.event;
    let risk = match alert.severity {
        Severity::Informational => 10,
        Severity::Low => 25,
        Severity::Medium => 50,
        Severity::High => 75,
        Severity::Critical => 95,
    };
    // A request that the authorizer allowed may still have failed.
    let failed =
        event.authz_decision.as_deref() == Some("forbid") || event.response_code.is_some_and(|c| c >= 400);
    let outcome = match (failed, event.response_code) {
        (true, _) => "failure",
        (false, Some(_)) => "success",
        (false, None) => "unknown",
    };
    let address = event.source_ip.as_deref().filter(|ip| ip.parse::<std::net::IpAddr>().is_ok());
    let users: Vec<&str> =
        [event.user_name.as_str(), event.actor.as_str()].into_iter().filter(|u| !u.is_empty()).collect();
    let impersonated =
        Some(event.actor.as_str()).filter(|actor| *actor != event.user_name && !actor.is_empty());
    let document = json!({
        "@timestamp": rfc3339(alert.time_us),
        "ecs": {"version": ECS_VERSION},
        "message": alert.message,
        "event": {
            "kind": "alert",
            "category": [category(alert)],
            "type": ["info"],
            "action": event.verb,
            "outcome": event.outcome.map_or(outcome, |outcome| outcome.as_str()),
            "id": alert.alert_id,
            "severity": alert.severity.ocsf_id(),
            "risk_score": risk,
            "reason": alert.title,
            "start": rfc3339(alert.window_start_us),
            "end": rfc3339(alert.window_end_us),
            "module": "kubernetes",
            "dataset": "kubernetes.audit_logs",
            "provider": "strongroom",
        },
        "rule": {"id": alert.rule_id, "name": alert.rule_name, "description": alert.title, "ruleset": "strongroom"},
        "threat": {
            "framework": (!alert.techniques.is_empty()).then_some("MITRE ATT&CK"),
            "tactic": {"name": alert.tactics},
            "technique": {"id": alert.techniques},
        },
        "user": {"name": event.user_name, "effective": {"name": impersonated}},
        "source": {"ip": address},
        "user_agent": {"original": event.user_agent},
        "url": {"original": event.request_uri},
        "http": {"response": {"status_code": event.response_code}},
        "orchestrator": {
            "type": "kubernetes",
            "cluster": {"name": event.cluster},
            "namespace": event.namespace,
            "resource": {"type": event.resource, "name": event.name},
        },
        "related": {"user": users, "ip": address.into_iter().collect::<Vec<_>>()},
        "strongroom": {
            "audit_id": event.audit_id,
            "audit_ids": alert.audit_ids,
            "event_count": alert.event_count,
            "group_key": alert.group_key,
            "severity": alert.severity.as_str(),
            "stage": event.stage,
            "api_group": event.api_group,
            "subresource": event.subresource,
            "authorization_decision": event.authz_decision,
            "exec": {"command": event.exec_command, "container": event.exec_container},
            "next_steps": alert.next_steps,
            "source": event.source,
            "source_offset": event.source_offset,
        },
    });
    without_empty(document)
}

/// Returns the value of `event.category`, from ECS's closed list.
fn category(alert: &Alert) -> &'static str {
    let is = |tactic: &str| alert.tactics.iter().any(|known| known == tactic);
    match alert.event.resource.as_deref() {
        Some("roles" | "rolebindings" | "clusterroles" | "clusterrolebindings" | "serviceaccounts") => "iam",
        _ if is("credential-access") || is("initial-access") => "authentication",
        _ if is("persistence") || is("defense-evasion") => "configuration",
        _ => "intrusion_detection",
    }
}

/// Removes members that are null, an empty text, an empty list, or an object that has no members
/// left.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, without_empty(value)));
            let kept = kept.filter(|(_, value)| match value {
                Value::Null => false,
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Object(map) => !map.is_empty(),
                _ => true,
            });
            Value::Object(kept.collect::<Map<_, _>>())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{alert, hostile};

    #[test]
    fn arrays_are_arrays_and_nothing_is_null() {
        let document = ecs(&alert(1));
        for path in ["/event/category", "/event/type", "/threat/technique/id", "/related/ip", "/related/user"]
        {
            assert!(document.pointer(path).is_some_and(Value::is_array), "{path}: {document}");
        }
        assert_eq!(document["event"]["outcome"], "success");
        assert!(!document.to_string().contains("null"), "{document}");
        let document = ecs(&hostile());
        assert_eq!(document.pointer("/source/ip"), None, "a text that is no address is left out");
    }
}
