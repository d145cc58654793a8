//! Sends alerts to PagerDuty, Events API v2.
//!
//! Invariants: `dedup_key` is the alert's id, so an alert that is sent again, for instance after a
//! crash, is the same incident. The routing key is a secret. Only title, severity, actor, object
//! and references are sent.

use std::sync::Arc;

use serde_json::json;
use strongroom_schemas::{Alert, Secret, Severity};

use super::http::{Http, HttpOptions, post};
use super::judge::judge;
use super::slack::object;
use super::{Outcome, Sink, SinkError, plain, rfc3339};

const BATCH_MAX: usize = 8;
const AT_ONCE: usize = 2;
/// Maximum number of characters of a summary, which is the API's limit.
const SUMMARY_CHARS_MAX: usize = 1024;
const VALUE_CHARS_MAX: usize = 500;

#[derive(Clone, Debug)]
pub struct PagerDutyOptions {
    /// The address without `/v2/enqueue`.
    pub http: HttpOptions,
    pub routing_key: Secret,
}

pub struct PagerDuty {
    http: Http,
    url: String,
    routing_key: Secret,
}

impl PagerDuty {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(options: &PagerDutyOptions) -> Result<PagerDuty, SinkError> {
        let http = Http::new(&options.http, vec![options.routing_key.clone()])?;
        Ok(PagerDuty { http, url: options.http.join("v2/enqueue"), routing_key: options.routing_key.clone() })
    }

    fn event(&self, alert: &Alert) -> Vec<u8> {
        let severity = match alert.severity {
            Severity::Critical => "critical",
            Severity::High => "error",
            Severity::Medium => "warning",
            Severity::Low | Severity::Informational => "info",
        };
        let text = |text: &str| plain(text, VALUE_CHARS_MAX);
        let event = &alert.event;
        let source = if event.cluster.is_empty() { "strongroom" } else { &event.cluster };
        let body = json!({
            "routing_key": self.routing_key.expose(),
            "event_action": "trigger",
            "dedup_key": alert.alert_id,
            "payload": {
                "summary": plain(&format!("[{}] {}", source, alert.title), SUMMARY_CHARS_MAX),
                "source": text(source),
                "severity": severity,
                "timestamp": rfc3339(alert.time_us),
                "component": "kube-apiserver",
                "group": text(event.namespace.as_deref().unwrap_or_default()),
                "class": text(&alert.rule_name),
                "custom_details": {
                    "actor": text(&event.who()),
                    "object": text(&object(alert)),
                    "rule": text(&alert.rule_name),
                    "events": alert.event_count,
                    "audit_id": text(&event.audit_id),
                },
            },
        });
        body.to_string().into_bytes()
    }
}

impl Sink for PagerDuty {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        let request =
            |alert: &Arc<Alert>| post(&self.url, &[("content-type", "application/json")], self.event(alert));
        let requests = alerts.iter().map(request).collect();
        let answers = self.http.send_all(requests, AT_ONCE);
        answers.iter().map(|answer| judge(&self.http, answer)).collect()
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn answer(&self) -> String {
        self.http.last_answer.clone()
    }
}
