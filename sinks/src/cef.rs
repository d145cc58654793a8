//! Writes an alert as one line of the ArcSight Common Event Format, version 0.
//!
//! Invariant: a value that a client chose cannot end the line, a header field or an extension
//! value. `\` and `|` are escaped in the header; `\`, `=`, and line breaks (as `\r` and `\n`) in
//! the extension. All other control characters become U+FFFD. No state.

use std::fmt::Write as _;
use std::net::IpAddr;

use strongroom_schemas::{Alert, Severity};

use super::plain;

/// Maximum number of characters of `msg`, which is the format's own limit.
const MESSAGE_CHARS_MAX: usize = 1023;
const VALUE_CHARS_MAX: usize = 1000;

fn header(text: &str) -> String {
    plain(text, VALUE_CHARS_MAX).replace('\\', "\\\\").replace('|', "\\|")
}

fn extension(text: &str, chars: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().take(chars) {
        match c {
            '\\' => out.push_str("\\\\"),
            '=' => out.push_str("\\="),
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Returns an alert as a line of CEF, without a newline.
pub fn cef(alert: &Alert) -> String {
    let event = &alert.event;
    let severity = match alert.severity {
        Severity::Informational => 1,
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    };
    let mut out = format!(
        "CEF:0|Strongroom|Strongroom|{}|{}|{}|{severity}|",
        env!("CARGO_PKG_VERSION"),
        header(&alert.rule_name),
        header(&alert.title),
    );
    let mut first = true;
    let mut put = |key: &str, value: &str, chars: usize| {
        if !value.is_empty() {
            let space = if std::mem::take(&mut first) { "" } else { " " };
            let _ = write!(out, "{space}{key}={}", extension(value, chars));
        }
    };
    let some = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut value = |key: &str, value: &str| put(key, value, VALUE_CHARS_MAX);
    value("rt", &alert.time_us.div_euclid(1000).to_string());
    value("start", &alert.window_start_us.div_euclid(1000).to_string());
    value("end", &alert.window_end_us.div_euclid(1000).to_string());
    value("externalId", &alert.alert_id);
    value("cat", &alert.tactics.join(","));
    value("act", &some(&event.verb));
    let decision = event.authz_decision.as_deref().unwrap_or_default();
    value("outcome", event.outcome.map_or(decision, |outcome| outcome.as_str()));
    value("suser", event.authenticated_user());
    value("duser", event.impersonated_user().unwrap_or_default());
    value("dvchost", &event.cluster);
    match event.source_ip.as_deref().map(|ip| (ip, ip.parse::<IpAddr>())) {
        Some((ip, Ok(IpAddr::V4(_)))) => value("src", ip),
        Some((ip, Ok(IpAddr::V6(_)))) => {
            value("c6a2", ip);
            value("c6a2Label", "Source IPv6 Address");
        }
        _ => {}
    }
    value("request", &some(&event.request_uri));
    value("requestClientApplication", &some(&event.user_agent));
    let object = [&event.api_group, &event.resource, &event.subresource, &event.namespace, &event.name];
    let object: Vec<String> = object.into_iter().flatten().cloned().collect();
    let labelled = [
        ("cs1", "ruleId", alert.rule_id.clone()),
        ("cs2", "techniques", alert.techniques.join(",")),
        ("cs3", "object", object.join("/")),
        ("cs4", "groupKey", alert.group_key.clone()),
        ("cs5", "auditId", event.audit_id.clone()),
        ("cs6", "authenticatedUser", event.user_name.clone()),
        ("cn1", "eventCount", alert.event_count.to_string()),
        ("cn2", "responseCode", event.response_code.map(|code| code.to_string()).unwrap_or_default()),
    ];
    for (key, label, text) in labelled.iter().filter(|(_, _, text)| !text.is_empty()) {
        value(key, text);
        value(&format!("{key}Label"), label);
    }
    put("msg", &alert.message, MESSAGE_CHARS_MAX);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{alert, hostile};

    #[test]
    fn an_alert_is_one_line_with_its_parts() {
        let line = cef(&alert(1));
        assert!(line.starts_with("CEF:0|Strongroom|Strongroom|"), "{line}");
        assert!(line.contains("|secrets-read|Secrets read|8|rt=1772445600000 "), "{line}");
        assert!(line.contains(" suser=mallory ") && line.contains(" src=203.0.113.9 "), "{line}");
        assert!(line.contains(" cs2=T1552.007 cs2Label=techniques "), "{line}");
        assert!(line.ends_with(" msg=mallory read secret number 1"), "{line}");
    }

    #[test]
    fn the_source_user_is_the_one_who_acts() {
        let mut alert = alert(1);
        alert.event.actor = "admin".to_owned();
        alert.event.outcome = Some(strongroom_schemas::Outcome::Success);
        let line = cef(&alert);
        assert!(line.contains(" suser=mallory duser=admin "), "{line}");
        assert!(line.contains(" outcome=success "), "{line}");
    }

    #[test]
    fn hostile_values_stay_inside_their_fields() {
        let line = cef(&hostile());
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.contains("suser=a|b\\=c\\\\d\\r\\ne\u{fffd}[31mf\u{fffd}g"), "{line}");
        assert_eq!(header("a|b\\c\nd"), "a\\|b\\\\c\u{fffd}d");
    }
}
