//! Sends alerts to Splunk's HTTP Event Collector.
//!
//! Invariants: with acknowledgements, an alert is taken when the indexer has acknowledged it, not
//! when the collector has parsed it. After an error that concerns the token or the index, the alert
//! is sent again later. If a request is refused, its events are sent again one by one, so only the
//! event at fault is refused. After a crash events may be sent again, with the same `alert_id`.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use strongroom_schemas::{Alert, Secret, ocsf};
use uuid::Uuid;

use super::backoff::Backoff;
use super::http::{Http, HttpOptions, check_header, post};
use super::judge::judge;
use super::{Outcome, Sink, SinkError, plain};

const BATCH_MAX: usize = 100;
/// Maximum size of a request. The collector's own limit is 1 MB by default.
const REQUEST_BYTES_MAX: usize = 900 << 10;
const ACK_POLLS_MAX: usize = 30;
const ACK_WAIT: Duration = Duration::from_secs(1);
const ACK_WAIT_FIRST: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub struct SplunkOptions {
    pub http: HttpOptions,
    pub token: Secret,
    pub index: Option<String>,
    /// Whether indexer acknowledgement is on for the token.
    pub acks: bool,
    /// The field `host` of the events.
    pub hostname: String,
}

pub struct Splunk {
    http: Http,
    options: SplunkOptions,
    authorization: Secret,
    channel: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    text: String,
    code: Option<u32>,
    #[serde(rename = "ackId")]
    ack: Option<u64>,
    acks: std::collections::HashMap<String, bool>,
}

impl Splunk {
    /// # Errors
    /// When TLS cannot be set up, or the token is not valid in a header.
    pub fn new(options: SplunkOptions) -> Result<Splunk, SinkError> {
        check_header(&options.token)?;
        let mut random = [0; 16];
        // Without randomness all sinks share one channel, which is allowed.
        let _ = getrandom::fill(&mut random);
        let channel = uuid::Builder::from_random_bytes(random).into_uuid();
        Ok(Splunk {
            http: Http::new(&options.http, vec![options.token.clone()])?,
            authorization: Secret::new(format!("Splunk {}", options.token.expose())),
            channel: Uuid::to_string(&channel),
            options,
        })
    }

    fn event(&self, alert: &Alert) -> Vec<u8> {
        let mut event = json!({
            "time": alert.time_us.div_euclid(1000) as f64 / 1000.0,
            "host": self.options.hostname,
            "source": "strongroom",
            "sourcetype": "ocsf:detection_finding",
            "event": ocsf::detection_finding(alert),
            "fields": {"alert_id": alert.alert_id, "severity": alert.severity.as_str()},
        });
        if let Some(index) = &self.options.index {
            event["index"] = index.as_str().into();
        }
        event.to_string().into_bytes()
    }

    fn post(&mut self, path: &str, body: Vec<u8>) -> (Outcome, Response) {
        let url = self.options.http.join(path);
        let mut headers =
            vec![("authorization", self.authorization.expose()), ("content-type", "application/json")];
        if self.options.acks {
            headers.push(("x-splunk-request-channel", &self.channel));
        }
        let answer = self.http.send(post(&url, &headers, body));
        let response: Response = answer
            .as_ref()
            .ok()
            .and_then(|answer| serde_json::from_slice(&answer.body).ok())
            .unwrap_or_default();
        let mut outcome = judge(&self.http, &answer);
        let text = || format!("code {}: {}", response.code.unwrap_or_default(), plain(&response.text, 200));
        match response.code {
            Some(0) | None => {}
            // These codes are about the token, the index, the channel or acknowledgements: the
            // settings are at fault, not the alert.
            Some(1..=4 | 7 | 10 | 11 | 14 | 16) => {
                outcome = Outcome::later(format!(
                    "{}: check the token, its index and its acknowledgements",
                    text()
                ));
            }
            Some(9) if outcome == Outcome::Taken => outcome = Outcome::later(text()),
            Some(_) => {}
        }
        (outcome, response)
    }

    fn events(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        let mut body = Vec::new();
        for alert in alerts {
            body.extend_from_slice(&self.event(alert));
        }
        if body.len() > REQUEST_BYTES_MAX && alerts.len() > 1 {
            let (first, second) = alerts.split_at(alerts.len() / 2);
            return [self.events(first), self.events(second)].concat();
        }
        let (mut outcome, response) = self.post("services/collector/event", body);
        if matches!(outcome, Outcome::Refused { .. }) && alerts.len() > 1 {
            return alerts.iter().flat_map(|alert| self.events(std::slice::from_ref(alert))).collect();
        }
        if outcome == Outcome::Taken && self.options.acks {
            outcome = match response.ack {
                Some(ack) => self.wait_for(ack),
                None => {
                    Outcome::later("the token has no acknowledgements: turn them on, or set acks = false")
                }
            };
        }
        alerts.iter().map(|_| outcome.clone()).collect()
    }

    fn wait_for(&mut self, ack: u64) -> Outcome {
        let body = json!({"acks": [ack]}).to_string().into_bytes();
        let path = format!("services/collector/ack?channel={}", self.channel);
        let mut backoff = Backoff::new(ACK_WAIT_FIRST, ACK_WAIT);
        for _ in 0..ACK_POLLS_MAX {
            let (outcome, response) = self.post(&path, body.clone());
            if outcome != Outcome::Taken {
                return outcome;
            }
            if response.acks.get(&ack.to_string()) == Some(&true) {
                return Outcome::Taken;
            }
            std::thread::sleep(backoff.wait());
            backoff.double();
        }
        Outcome::later("the indexer did not acknowledge in time")
    }
}

impl Sink for Splunk {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        self.events(alerts)
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn answer(&self) -> String {
        self.http.last_answer.clone()
    }
}
