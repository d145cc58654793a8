//! OCSF 1.8 Detection Finding (class 2004), made from an [`crate::Alert`].
//!
//! Invariant: every finding satisfies the OCSF 1.8.0 schema without profiles and without unknown
//! keys; values without an OCSF field are under `unmapped`. `finding_info.uid` is the alert's id,
//! so a receiver recognises a duplicate. No state. Rejected: the OCSF crates. They are immature,
//! and each has a thousand types, of which a dozen would be used here.

use std::net::IpAddr;

use serde::Serialize;

use crate::{Alert, AlertEvent, Outcome, Severity};

/// The OCSF release that findings are written in.
pub const OCSF_VERSION: &str = "1.8.0";
/// `class_uid` of Detection Finding.
pub const CLASS_UID: u32 = 2004;

/// The name of the operation in a finding if the event has no verb.
pub const VERB_UNKNOWN: &str = "unknown";

/// The finding of one alert, to be serialised with serde_json as one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DetectionFinding<'a> {
    activity_id: u32,
    activity_name: &'static str,
    category_name: &'static str,
    category_uid: u32,
    class_name: &'static str,
    class_uid: u32,
    count: u64,
    end_time: i64,
    evidences: [Evidence<'a>; 1],
    finding_info: FindingInfo<'a>,
    is_alert: bool,
    message: &'a str,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    observables: Vec<Observable<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remediation: Option<Remediation<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Resource<'a>>,
    severity: &'static str,
    severity_id: u8,
    start_time: i64,
    status: &'static str,
    status_id: u32,
    /// Milliseconds since the epoch, like every time in a finding.
    time: i64,
    type_name: &'static str,
    type_uid: u32,
    unmapped: Unmapped<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Metadata<'a> {
    event_code: &'a str,
    log_name: &'static str,
    log_provider: &'static str,
    original_event_uid: &'a str,
    product: Product,
    uid: &'a str,
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct FindingInfo<'a> {
    analytic: Analytic<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attacks: Vec<Attack>,
    data_sources: [&'static str; 1],
    first_seen_time: i64,
    last_seen_time: i64,
    related_events_count: u64,
    title: &'a str,
    uid: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Analytic<'a> {
    name: &'a str,
    r#type: &'static str,
    type_id: u32,
    uid: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Attack {
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_technique: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tactic: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    technique: Option<Named>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Named {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Evidence<'a> {
    actor: Actor<'a>,
    api: Api<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_request: Option<HttpRequest<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_endpoint: Option<Endpoint<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Actor<'a> {
    user: Name<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Name<'a> {
    name: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Api<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Name<'a>>,
    operation: &'a str,
    request: Uid<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Response>,
    service: Name<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Uid<'a> {
    uid: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Response {
    code: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct HttpRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Url<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Url<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Observable<'a> {
    name: &'static str,
    r#type: &'static str,
    type_id: u32,
    value: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Remediation<'a> {
    desc: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Resource<'a> {
    labels: Vec<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    r#type: &'a str,
}

/// The values of an audit event for which OCSF has no field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Unmapped<'a> {
    /// The actors of all events of the alert, as in the column `actors`.
    actors: &'a [String],
    audit_ids: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    authenticated_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_decision: Option<&'a str>,
    cluster: &'a str,
    clusters: &'a [String],
    event_ranges: Vec<EventRange<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec_command: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec_container: Option<&'a str>,
    /// Parts of the event that could not be read.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    faults: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    group_key: &'a str,
    /// The user whose permissions were borrowed. The actor is the authenticated user.
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a str>,
    namespaces: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    source: &'a str,
    source_offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct EventRange<'a> {
    first: i64,
    last: i64,
    source: &'a str,
}

/// Returns the finding of an alert.
///
/// ```
/// use strongroom_schemas::{Alert, AlertEvent, Severity, ocsf};
/// # let event = AlertEvent { verb: Some("get".into()), ..AlertEvent::default() };
/// # let alert = Alert {
/// #     alert_id: "7b8c7f3e-92a5-5d0f-8f0e-000000000000".into(), rule_id: "r".into(), rule_name: "r".into(),
/// #     title: "t".into(), severity: Severity::High, time_us: 1_772_445_600_000_000,
/// #     window_start_us: 0, window_end_us: 0, group_key: String::new(), event_count: 1, audit_ids: vec![],
/// #     tactics: vec![], techniques: vec![], message: "m".into(), next_steps: String::new(), event, touched: Default::default(),
/// # };
/// let line = serde_json::to_string(&ocsf::detection_finding(&alert)).unwrap();
/// assert!(line.contains("\"type_uid\":200401"));
/// ```
pub fn detection_finding(alert: &Alert) -> DetectionFinding<'_> {
    let event = &alert.event;
    DetectionFinding {
        activity_id: 1,
        activity_name: "Create",
        category_name: "Findings",
        category_uid: 2,
        class_name: "Detection Finding",
        class_uid: CLASS_UID,
        count: alert.event_count,
        end_time: milliseconds(alert.window_end_us),
        evidences: [evidence(event)],
        finding_info: FindingInfo {
            analytic: Analytic { name: &alert.rule_name, r#type: "Rule", type_id: 1, uid: &alert.rule_id },
            attacks: attacks(alert),
            data_sources: ["Kubernetes audit log"],
            first_seen_time: milliseconds(alert.window_start_us),
            last_seen_time: milliseconds(alert.window_end_us),
            related_events_count: alert.event_count,
            title: &alert.title,
            uid: &alert.alert_id,
        },
        is_alert: true,
        message: &alert.message,
        metadata: Metadata {
            event_code: &alert.rule_name,
            log_name: "audit.k8s.io/v1",
            log_provider: "kube-apiserver",
            original_event_uid: &event.audit_id,
            product: Product {
                name: "Strongroom",
                vendor_name: "Strongroom",
                version: env!("CARGO_PKG_VERSION"),
            },
            uid: &alert.alert_id,
            version: OCSF_VERSION,
        },
        observables: observables(event),
        remediation: (!alert.next_steps.is_empty()).then_some(Remediation { desc: &alert.next_steps }),
        resources: resource(event).into_iter().collect(),
        severity: severity_name(alert.severity),
        severity_id: alert.severity.ocsf_id(),
        start_time: milliseconds(alert.window_start_us),
        status: "New",
        status_id: 1,
        time: milliseconds(alert.time_us),
        type_name: "Detection Finding: Create",
        type_uid: CLASS_UID * 100 + 1,
        unmapped: Unmapped {
            actors: alert.touched.actors(),
            audit_ids: &alert.audit_ids,
            authenticated_user: event.impersonated_user().map(|_| event.authenticated_user()),
            authorization_decision: event.authz_decision.as_deref(),
            cluster: &event.cluster,
            clusters: alert.touched.clusters(),
            event_ranges: alert
                .touched
                .ranges()
                .map(|(source, first, last)| EventRange { first, last, source })
                .collect(),
            exec_command: event.exec_command.as_deref(),
            exec_container: event.exec_container.as_deref(),
            faults: &event.faults,
            group_key: &alert.group_key,
            impersonated_user: event.impersonated_user(),
            namespaces: alert.touched.namespaces(),
            outcome: event.outcome,
            source: &event.source,
            source_offset: event.source_offset,
            stage: event.stage.as_deref(),
        },
    }
}

fn milliseconds(microseconds: i64) -> i64 {
    microseconds.div_euclid(1000)
}

fn evidence(event: &AlertEvent) -> Evidence<'_> {
    let url = event.request_uri.as_deref().map(|uri| match uri.split_once('?') {
        Some((path, query)) => Url { path, query_string: Some(query) },
        None => Url { path: uri, query_string: None },
    });
    let user_agent = event.user_agent.as_deref();
    Evidence {
        actor: Actor { user: Name { name: event.authenticated_user() } },
        api: Api {
            group: event.api_group.as_deref().map(|name| Name { name }),
            operation: event.verb.as_deref().unwrap_or(VERB_UNKNOWN),
            request: Uid { uid: &event.audit_id },
            response: event.response_code.map(|code| Response { code }),
            service: Name { name: "kube-apiserver" },
        },
        http_request: (url.is_some() || user_agent.is_some()).then_some(HttpRequest { url, user_agent }),
        src_endpoint: event.source_ip.as_deref().map(endpoint),
    }
}

/// Returns an endpoint: a valid address becomes its `ip`, any other text becomes its `name`.
fn endpoint(address: &str) -> Endpoint<'_> {
    if is_address(address) {
        Endpoint { ip: Some(address), name: None }
    } else {
        Endpoint { ip: None, name: Some(address) }
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn observables(event: &AlertEvent) -> Vec<Observable<'_>> {
    let mut observables = Vec::new();
    let users = [
        ("evidences[0].actor.user.name", Some(event.authenticated_user())),
        ("unmapped.impersonated_user", event.impersonated_user()),
    ];
    for (name, user) in users {
        let user = user.filter(|user| !user.is_empty());
        observables.extend(user.map(|value| Observable { name, r#type: "User Name", type_id: 4, value }));
    }
    if let Some(address) = event.source_ip.as_deref().filter(|address| is_address(address)) {
        observables.push(Observable {
            name: "evidences[0].src_endpoint.ip",
            r#type: "IP Address",
            type_id: 2,
            value: address,
        });
    }
    observables
}

fn resource(event: &AlertEvent) -> Option<Resource<'_>> {
    let kind = event.resource.as_deref()?;
    let mut name = event.name.clone().unwrap_or_else(|| kind.to_owned());
    if let Some(subresource) = &event.subresource {
        name.push('/');
        name.push_str(subresource);
    }
    Some(Resource {
        labels: vec![format!("cluster={}", event.cluster)],
        name,
        namespace: event.namespace.as_deref(),
        r#type: kind,
    })
}

/// Returns the name of a severity in a finding.
pub const fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Informational => "Informational",
        Severity::Low => "Low",
        Severity::Medium => "Medium",
        Severity::High => "High",
        Severity::Critical => "Critical",
    }
}

/// ATT&CK's tactics, each as the name in Sigma tags, the display name and the id.
const TACTICS: &[(&str, &str, &str)] = &[
    ("collection", "Collection", "TA0009"),
    ("command-and-control", "Command and Control", "TA0011"),
    ("credential-access", "Credential Access", "TA0006"),
    ("defense-evasion", "Defense Evasion", "TA0005"),
    ("discovery", "Discovery", "TA0007"),
    ("execution", "Execution", "TA0002"),
    ("exfiltration", "Exfiltration", "TA0010"),
    ("impact", "Impact", "TA0040"),
    ("initial-access", "Initial Access", "TA0001"),
    ("lateral-movement", "Lateral Movement", "TA0008"),
    ("persistence", "Persistence", "TA0003"),
    ("privilege-escalation", "Privilege Escalation", "TA0004"),
    ("reconnaissance", "Reconnaissance", "TA0043"),
    ("resource-development", "Resource Development", "TA0042"),
];

/// Returns the name in Sigma tags of the tactic with this display name and this id; `None` if there
/// is no such tactic.
pub fn tactic_tag(name: &str, uid: &str) -> Option<&'static str> {
    TACTICS.iter().find(|(_, shown, id)| (*shown, *id) == (name, uid)).map(|(tag, ..)| *tag)
}

fn attacks(alert: &Alert) -> Vec<Attack> {
    let tactics = alert.tactics.iter().map(|tag| {
        let known = TACTICS.iter().find(|(name, ..)| name == tag);
        let tactic = match known {
            Some((_, name, uid)) => Named { name: Some((*name).to_owned()), uid: Some((*uid).to_owned()) },
            None => Named { name: Some(tag.clone()), uid: None },
        };
        Attack { sub_technique: None, tactic: Some(tactic), technique: None }
    });
    let techniques = alert.techniques.iter().map(|id| {
        let named = |id: &str| Some(Named { name: None, uid: Some(id.to_owned()) });
        match id.split_once('.') {
            Some((technique, _)) => {
                Attack { sub_technique: named(id), tactic: None, technique: named(technique) }
            }
            None => Attack { sub_technique: None, tactic: None, technique: named(id) },
        }
    });
    tactics.chain(techniques).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Touch, Touched};

    fn alert() -> Alert {
        Alert {
            alert_id: "0f0e0d0c-0b0a-5908-8706-050403020100".into(),
            rule_id: "rule-id".into(),
            rule_name: "secret-sweep".into(),
            title: "Secrets swept".into(),
            severity: Severity::High,
            time_us: 1_772_445_600_123_456,
            window_start_us: 1_772_445_600_000_000,
            window_end_us: 1_772_445_600_123_456,
            group_key: "actor=alice".into(),
            event_count: 24,
            audit_ids: vec!["a".into(), "b".into()],
            tactics: vec!["credential-access".into(), "stealth".into()],
            techniques: vec!["T1552.007".into(), "T1078".into()],
            message: "alice read 24 Secrets".into(),
            next_steps: "Ask alice.".into(),
            event: AlertEvent {
                audit_id: "b".into(),
                actor: "alice".into(),
                user_name: "root".into(),
                source_ip: Some("10.0.0.7".into()),
                request_uri: Some("/api/v1/secrets?limit=1".into()),
                resource: Some("secrets".into()),
                cluster: "prod".into(),
                verb: Some("list".into()),
                response_code: Some(200),
                outcome: Some(Outcome::Success),
                faults: vec!["/verb: duplicate_member".into()],
                ..AlertEvent::default()
            },
            touched: touched(),
        }
    }

    fn touched() -> Touched {
        let touch = Touch {
            namespace: Some("shop"),
            actor: "alice",
            user_name: "root",
            cluster: "prod",
            source: "s",
        };
        let mut touched = Touched::of(touch, 17);
        touched.add(Touch { namespace: Some("bank"), ..touch }, 40, 42);
        touched
    }

    #[test]
    fn fields_land_where_ocsf_has_them() {
        let finding = serde_json::to_value(detection_finding(&alert())).unwrap();
        let at = |pointer: &str| finding.pointer(pointer).cloned().unwrap_or(Value::Null);
        assert_eq!(at("/type_uid"), json!(200_401));
        assert_eq!(at("/time"), json!(1_772_445_600_123_i64));
        assert_eq!(at("/severity_id"), json!(4));
        assert_eq!(at("/finding_info/uid"), json!("0f0e0d0c-0b0a-5908-8706-050403020100"));
        assert_eq!(at("/finding_info/attacks/0/tactic/uid"), json!("TA0006"));
        assert_eq!(at("/finding_info/attacks/1/tactic"), json!({"name": "stealth"}));
        assert_eq!(at("/finding_info/attacks/2/sub_technique/uid"), json!("T1552.007"));
        assert_eq!(at("/finding_info/attacks/2/technique/uid"), json!("T1552"));
        assert_eq!(at("/evidences/0/src_endpoint"), json!({"ip": "10.0.0.7"}));
        assert_eq!(at("/evidences/0/http_request/url/query_string"), json!("limit=1"));
        assert_eq!(at("/resources/0/name"), json!("secrets"));
        assert_eq!(at("/evidences/0/actor/user/name"), json!("root"), "who acts is who authenticated");
        assert_eq!(at("/unmapped/authenticated_user"), json!("root"));
        assert_eq!(at("/unmapped/impersonated_user"), json!("alice"));
        assert_eq!(at("/unmapped/outcome"), json!("success"));
        assert_eq!(at("/unmapped/faults"), json!(["/verb: duplicate_member"]));
        assert_eq!(at("/observables/0/value"), json!("root"));
        assert_eq!(at("/observables/1/value"), json!("alice"));
        assert_eq!(at("/unmapped/namespaces"), json!(["bank", "shop"]));
        assert_eq!(at("/unmapped/actors"), json!(["alice", "root"]));
        assert_eq!(at("/unmapped/clusters"), json!(["prod"]));
        assert_eq!(
            at("/unmapped/event_ranges"),
            json!([{"source": "s", "first": 17, "last": 17}, {"source": "s", "first": 40, "last": 42}])
        );
    }

    #[test]
    fn an_event_with_nothing_still_makes_a_finding() {
        let mut alert = alert();
        alert.event = AlertEvent { source_ip: Some("not an address".into()), ..AlertEvent::default() };
        alert.touched = Touched::default();
        let finding = serde_json::to_value(detection_finding(&alert)).unwrap();
        assert_eq!(finding.pointer("/evidences/0/src_endpoint"), Some(&json!({"name": "not an address"})));
        assert_eq!(finding.pointer("/evidences/0/actor/user/name"), Some(&json!("")));
        assert_eq!(finding.pointer("/unmapped/impersonated_user"), None);
        assert_eq!(finding.pointer("/unmapped/outcome"), None);
        assert_eq!(finding.pointer("/unmapped/faults"), None);
        assert_eq!(finding.pointer("/resources"), None);
        assert_eq!(finding.pointer("/unmapped/namespaces"), Some(&json!([])));
        assert_eq!(finding.pointer("/unmapped/event_ranges"), Some(&json!([])));
        assert_eq!(finding.pointer("/evidences/0/api/operation"), Some(&json!("unknown")));
    }
}
