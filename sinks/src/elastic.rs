//! Sends alerts to Elasticsearch and OpenSearch, as documents in ECS through `_bulk`.
//!
//! Invariants: a document is created under the alert's id, so an alert that is sent again, even
//! after a crash, is answered with 409 and stored once. If the whole request is answered with 200,
//! the answer is read item by item, and only the failed items are sent again.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use strongroom_schemas::{Alert, Secret};

use super::http::{Http, HttpOptions, check_header, post};
use super::judge::judge;
use super::{Outcome, Sink, SinkError, ecs, plain};

const BATCH_MAX: usize = 200;
const REASON_CHARS_MAX: usize = 300;

#[derive(Clone, Debug)]
pub struct ElasticOptions {
    pub http: HttpOptions,
    /// The name of the data stream.
    pub index: String,
    /// The value after `ApiKey` in the `Authorization` header.
    pub api_key: Option<Secret>,
}

pub struct Elastic {
    http: Http,
    url: String,
    authorization: Option<Secret>,
}

#[derive(Deserialize)]
struct Bulk {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Created,
}

#[derive(Deserialize)]
struct Created {
    status: u16,
    #[serde(default)]
    error: Value,
}

impl Elastic {
    /// # Errors
    /// When TLS cannot be set up, or the key is not valid in a header.
    pub fn new(options: &ElasticOptions) -> Result<Elastic, SinkError> {
        let secrets: Vec<Secret> = options.api_key.iter().cloned().collect();
        secrets.iter().try_for_each(check_header)?;
        let authorization =
            options.api_key.as_ref().map(|key| Secret::new(format!("ApiKey {}", key.expose())));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if options.index.is_empty() || !options.index.chars().all(plain) {
            return Err(SinkError::Url {
                what: "would contain an index with characters other than a-z, 0-9, -, _ and .",
            });
        }
        let url = options.http.join(&format!("{}/_bulk", options.index));
        Ok(Elastic { http: Http::new(&options.http, secrets)?, url, authorization })
    }

    fn bulk(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        let mut body = Vec::new();
        for alert in alerts {
            for line in [json!({"create": {"_id": alert.alert_id}}), ecs(alert)] {
                body.extend_from_slice(line.to_string().as_bytes());
                body.push(b'\n');
            }
        }
        let mut headers = vec![("content-type", "application/x-ndjson")];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization.expose()));
        }
        let answer = self.http.send(post(&self.url, &headers, body));
        let all = |outcome: Outcome| alerts.iter().map(|_| outcome.clone()).collect();
        let answered = match &answer {
            Ok(answered) if answered.status.as_u16() == 413 && alerts.len() > 1 => {
                let (first, second) = alerts.split_at(alerts.len() / 2);
                return [self.bulk(first), self.bulk(second)].concat();
            }
            Ok(answered) if answered.status.is_success() => answered,
            Ok(answered) if answered.status.as_u16() == 400 && alerts.len() > 1 => {
                return alerts.iter().flat_map(|alert| self.bulk(std::slice::from_ref(alert))).collect();
            }
            _ => return all(judge(&self.http, &answer)),
        };
        match serde_json::from_slice::<Bulk>(&answered.body) {
            Ok(bulk) if bulk.items.len() == alerts.len() => {
                bulk.items.into_iter().map(|item| of(&item.create)).collect()
            }
            _ => all(Outcome::later("the answer is not one of _bulk: check the URL")),
        }
    }
}

fn of(item: &Created) -> Outcome {
    let reason = || {
        let part = |key: &str| item.error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        plain(&format!("status {}: {}: {}", item.status, part("type"), part("reason")), REASON_CHARS_MAX)
    };
    match item.status {
        200..=299 => Outcome::Taken,
        // The document exists already.
        409 => Outcome::Taken,
        401 | 403 | 404 | 408 | 429 | 500..=599 => Outcome::later(reason()),
        _ => Outcome::Refused { reason: reason() },
    }
}

impl Sink for Elastic {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        self.bulk(alerts)
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn answer(&self) -> String {
        self.http.last_answer.clone()
    }
}
