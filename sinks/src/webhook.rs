//! Sends alerts as Standard Webhooks: an OCSF finding in a signed POST.
//! <https://www.standardwebhooks.com>
//!
//! Invariants: `webhook-id` is the alert's id, so a receiver recognises an alert that is sent
//! again, for instance after a crash. Each attempt is signed with its own time.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use strongroom_schemas::{Alert, Secret};

use super::http::{Http, HttpOptions, post};
use super::judge::judge;
use super::{Outcome, Sink, SinkError, finding};

/// Number of requests that are sent at the same time.
const AT_ONCE: usize = 8;
const BATCH_MAX: usize = 64;
const SECRET_BYTES_MIN: usize = 16;

#[derive(Clone, Debug)]
pub struct WebhookOptions {
    pub http: HttpOptions,
    /// `whsec_` followed by base64. While a new secret replaces an old one, both are given,
    /// separated by spaces.
    pub secret: Secret,
}

pub struct Webhook {
    http: Http,
    url: String,
    keys: Vec<Vec<u8>>,
}

impl Webhook {
    /// # Errors
    /// When the secret is not a key, or TLS cannot be set up.
    pub fn new(options: &WebhookOptions) -> Result<Webhook, SinkError> {
        let wrong = SinkError::Secret { what: "is not whsec_ and base64 of 16 bytes or more" };
        let mut keys = Vec::new();
        for text in options.secret.expose().split_whitespace() {
            let key = text.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
            match key {
                Some(key) if key.len() >= SECRET_BYTES_MIN => keys.push(key),
                _ => return Err(wrong),
            }
        }
        if keys.is_empty() {
            return Err(wrong);
        }
        let secrets = options.secret.expose().split_whitespace().map(Secret::new).collect();
        let http = Http::new(&options.http, secrets)?;
        Ok(Webhook { http, url: options.http.url.to_string(), keys })
    }
}

/// Returns `v1,` and the base64 of the HMAC-SHA-256 of id, time and body.
pub fn sign(key: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

impl Sink for Webhook {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        let requests = alerts.iter().map(|alert| {
            let body = finding(alert);
            let timestamp = chrono::Utc::now().timestamp();
            let signatures: Vec<String> =
                self.keys.iter().map(|key| sign(key, &alert.alert_id, timestamp, &body)).collect();
            let headers = [
                ("content-type", "application/json"),
                ("webhook-id", alert.alert_id.as_str()),
                ("webhook-timestamp", &timestamp.to_string()),
                ("webhook-signature", &signatures.join(" ")),
            ];
            post(&self.url, &headers, body)
        });
        let requests = requests.collect();
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
