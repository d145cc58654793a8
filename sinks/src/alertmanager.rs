//! Sends alerts to Prometheus Alertmanager, API v2.
//!
//! Invariants: Alertmanager identifies an alert by its labels. No label has a value that a client
//! of the API server chose, so, apart from the alert's id, each label has a bounded number of
//! values. Each alert is sent to every member of an Alertmanager cluster, and counts as taken if
//! one member takes it.
//!
//! Our alerts are points in time, but Alertmanager's alerts are conditions that last. So each alert
//! sets its own `endsAt`, [`FIRING_TIME`] ahead, and is sent once. After a crash it may be sent
//! again, with the same labels.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use strongroom_schemas::Alert;

use super::http::{Http, HttpOptions, post};
use super::judge::judge;
use super::{Outcome, Sink, SinkError, plain, rfc3339};

/// How long an alert fires in Alertmanager.
const FIRING_TIME: Duration = Duration::from_secs(600);
const BATCH_MAX: usize = 64;
const ANNOTATION_CHARS_MAX: usize = 1000;

#[derive(Clone, Debug)]
pub struct AlertmanagerOptions {
    /// The addresses of all members of the cluster, without `/api/v2/alerts`.
    pub members: Vec<HttpOptions>,
}

pub struct Alertmanager {
    members: Vec<(Http, String)>,
    last_answer: String,
}

impl Alertmanager {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(options: &AlertmanagerOptions) -> Result<Alertmanager, SinkError> {
        let member = |http: &HttpOptions| Ok((Http::new(http, Vec::new())?, http.join("api/v2/alerts")));
        let members = options.members.iter().map(member).collect::<Result<_, SinkError>>()?;
        Ok(Alertmanager { members, last_answer: String::new() })
    }

    fn post(&mut self, alerts: &[Arc<Alert>]) -> Outcome {
        let body: Vec<_> = alerts.iter().map(|alert| of(alert)).collect();
        let body = serde_json::to_vec(&body).expect("values are JSON");
        let mut outcomes = Vec::new();
        self.last_answer.clear();
        for (http, url) in &mut self.members {
            let answer = http.send(post(url, &[("content-type", "application/json")], body.clone()));
            let outcome = judge(http, &answer);
            if outcome != Outcome::Taken {
                tracing::debug!(
                    url = url.as_str(),
                    answer = http.last_answer.as_str(),
                    "a member took no alerts"
                );
            }
            self.last_answer = http.last_answer.clone();
            outcomes.push(outcome);
        }
        let taken = outcomes.contains(&Outcome::Taken);
        // If one member refuses an alert and another one only fails, the alert is sent again later,
        // because the failed member may take it then.
        let later = outcomes.iter().position(|outcome| matches!(outcome, Outcome::Later { .. }));
        match (taken, later) {
            (true, _) => Outcome::Taken,
            (false, Some(at)) => outcomes.swap_remove(at),
            (false, None) => outcomes.pop().unwrap_or_else(|| Outcome::later("there is no member")),
        }
    }
}

fn of(alert: &Alert) -> serde_json::Value {
    let now_us = chrono::Utc::now().timestamp_micros();
    let ends = now_us.saturating_add(i64::try_from(FIRING_TIME.as_micros()).unwrap_or(i64::MAX));
    let text = |text: &str| plain(text, ANNOTATION_CHARS_MAX);
    let event = &alert.event;
    let mut labels = json!({
        "alertname": text(&alert.rule_name),
        "severity": alert.severity.as_str(),
        "rule_id": text(&alert.rule_id),
        "alert_id": text(&alert.alert_id),
        "product": "strongroom",
    });
    if !event.cluster.is_empty() {
        labels["cluster"] = text(&event.cluster).into();
    }
    json!({
        "labels": labels,
        "annotations": {
            "summary": text(&alert.title),
            "description": text(&alert.message),
            "next_steps": text(&alert.next_steps),
            "actor": text(&event.who()),
            "audit_id": text(&event.audit_id),
        },
        "startsAt": rfc3339(alert.time_us.min(now_us)),
        "endsAt": rfc3339(ends),
    })
}

impl Sink for Alertmanager {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        match self.post(alerts) {
            // A request is refused as a whole: send each alert alone to find the one at fault.
            Outcome::Refused { .. } if alerts.len() > 1 => {
                alerts.iter().map(|alert| self.post(std::slice::from_ref(alert))).collect()
            }
            outcome => alerts.iter().map(|_| outcome.clone()).collect(),
        }
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn answer(&self) -> String {
        self.last_answer.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hostile;

    #[test]
    fn labels_contain_no_value_of_a_client() {
        let value = of(&hostile());
        let labels = value["labels"].as_object().expect("labels");
        let names: Vec<&str> = labels.keys().map(String::as_str).collect();
        assert_eq!(names, ["alert_id", "alertname", "cluster", "product", "rule_id", "severity"]);
        assert!(!labels.values().any(|text| text.as_str().is_none_or(|text| text.contains('|'))));
        let annotations = value["annotations"].as_object().expect("annotations");
        let texts = annotations.values().filter_map(|text| text.as_str());
        assert!(texts.flat_map(str::chars).all(|c| !c.is_control()));
    }
}
