//! Alerts for the tests of sinks. Invariant: the same number gives the same alert.

use strongroom_schemas::{Alert, AlertEvent, Severity, Touch, Touched};
use uuid::Uuid;

/// Returns an alert, a different one for each number.
pub(crate) fn alert(number: u64) -> Alert {
    let time_us = 1_772_445_600_000_000 + number as i64;
    Alert {
        alert_id: Uuid::from_u128(0x5000_0000_0000_5000_8000_0000_0000_0000 + u128::from(number)).to_string(),
        rule_id: "0d6a4f0e-1111-5222-8333-444455556666".to_owned(),
        rule_name: "secrets-read".to_owned(),
        title: "Secrets read".to_owned(),
        severity: Severity::High,
        time_us,
        window_start_us: time_us,
        window_end_us: time_us,
        group_key: String::new(),
        event_count: 1,
        audit_ids: vec![format!("audit-{number}")],
        tactics: vec!["credential-access".to_owned()],
        techniques: vec!["T1552.007".to_owned()],
        message: format!("mallory read secret number {number}"),
        next_steps: "Ask mallory.".to_owned(),
        event: AlertEvent {
            audit_id: format!("audit-{number}"),
            stage: Some("ResponseComplete".to_owned()),
            time_us,
            cluster: "prod".to_owned(),
            source: "file".to_owned(),
            source_offset: number as i64,
            actor: "mallory".to_owned(),
            user_name: "mallory".to_owned(),
            source_ip: Some("203.0.113.9".to_owned()),
            user_agent: Some("kubectl/v1.31".to_owned()),
            verb: Some("get".to_owned()),
            request_uri: Some("/api/v1/namespaces/shop/secrets/db?x=1".to_owned()),
            api_group: None,
            resource: Some("secrets".to_owned()),
            subresource: None,
            namespace: Some("shop".to_owned()),
            name: Some("db".to_owned()),
            response_code: Some(200),
            authz_decision: Some("allow".to_owned()),
            ..AlertEvent::default()
        },
        touched: Touched::of(
            Touch {
                namespace: Some("shop"),
                actor: "mallory",
                user_name: "mallory",
                cluster: "prod",
                source: "file",
            },
            number as i64,
        ),
    }
}

/// Returns an alert with hostile values in every field that a client can choose.
pub(crate) fn hostile() -> Alert {
    let evil = "a|b=c\\d\r\ne\u{1b}[31mf\u{0}g\"h]i<!channel>&\u{202e}\u{7f}ü";
    let mut alert = alert(666);
    alert.message = format!("message {evil}");
    alert.group_key = format!("actor={evil}");
    alert.audit_ids = vec![evil.to_owned()];
    alert.touched.add(
        Touch { namespace: Some(evil), actor: evil, user_name: evil, ..Touch::default() },
        0,
        0,
    );
    let event = &mut alert.event;
    evil.clone_into(&mut event.actor);
    evil.clone_into(&mut event.user_name);
    evil.clone_into(&mut event.audit_id);
    for field in [
        &mut event.source_ip,
        &mut event.user_agent,
        &mut event.verb,
        &mut event.request_uri,
        &mut event.api_group,
        &mut event.resource,
        &mut event.subresource,
        &mut event.namespace,
        &mut event.name,
    ] {
        *field = Some(evil.to_owned());
    }
    alert
}
