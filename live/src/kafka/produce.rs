//! Sends alerts to a Kafka topic.
//!
//! Invariants: an alert is delivered when all in-sync replicas have it (`acks=all`); the producer
//! is idempotent, so a message that librdkafka itself sends again is stored once. The key is the
//! alert's id, which identifies repeated messages after a crash. A message that the broker will
//! never accept is refused; all others wait.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use strongroom_schemas::{Alert, ocsf};
use strongroom_sinks::{Outcome, Sink, SinkError};

use super::Security;
use super::client::{log_of_library, printable, secure};

const BATCH_MAX: usize = 256;
/// Longest time for one message. A message that is not acknowledged by then is sent again later.
const MESSAGE_TIME: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// Longest time that a stop waits for messages under way.
const FINISH: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct KafkaSinkOptions {
    pub brokers: Vec<String>,
    pub topic: String,
    pub security: Security,
    pub ca_file: Option<std::path::PathBuf>,
    pub cert_file: Option<std::path::PathBuf>,
    pub key_file: Option<std::path::PathBuf>,
}

type Delivered = (usize, Result<(), KafkaError>);

/// Records the outcomes of messages.
#[derive(Default)]
struct Deliveries(Mutex<Vec<Delivered>>);

impl Deliveries {
    fn take(&self) -> Vec<Delivered> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_of_library(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("Kafka sink: {}: {}", printable(&error.to_string()), printable(reason));
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        let outcome = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((*index, outcome));
    }
}

/// Alerts as OCSF findings in a topic.
pub struct KafkaSink {
    options: KafkaSinkOptions,
    /// `None` after an error that librdkafka calls fatal; the next batch then creates a new
    /// producer.
    producer: Option<BaseProducer<Deliveries>>,
    /// Counts the messages of earlier batches, so that a late answer to one of these is not taken
    /// for an answer to a message of this batch.
    base: usize,
    said: String,
}

impl KafkaSink {
    /// Creates a sink that has not connected yet.
    ///
    /// # Errors
    /// If librdkafka refuses the settings.
    pub fn new(options: KafkaSinkOptions) -> Result<KafkaSink, SinkError> {
        let producer = Some(producer(&options)?);
        Ok(KafkaSink { options, producer, base: 0, said: String::new() })
    }
}

fn producer(options: &KafkaSinkOptions) -> Result<BaseProducer<Deliveries>, SinkError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", options.brokers.join(","))
        .set("client.id", "strongroom")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "zstd")
        .set("linger.ms", "5")
        .set("message.timeout.ms", MESSAGE_TIME.as_millis().to_string())
        .set("allow.auto.create.topics", "false")
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "10000")
        .set("enable.metrics.push", "false");
    let KafkaSinkOptions { security, ca_file, cert_file, key_file, .. } = options;
    secure(&mut config, security, ca_file.as_deref(), cert_file.as_deref(), key_file.as_deref());
    config.set_log_level(RDKafkaLogLevel::Info);
    config.create_with_context(Deliveries::default()).map_err(|error| {
        SinkError::Kafka(match &error {
            // The value is left out: it may be a password.
            KafkaError::ClientConfig(_, description, key, _) => {
                format!("Kafka client: setting {key}: {}", printable(description))
            }
            other => format!("Kafka client: {}", printable(&other.to_string())),
        })
    })
}

fn outcome(error: &KafkaError) -> Outcome {
    let reason = printable(&error.to_string());
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord,
        ) => Outcome::Refused { reason },
        _ => Outcome::later(reason),
    }
}

impl Sink for KafkaSink {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        let all = |reason: &str| alerts.iter().map(|_| Outcome::later(reason)).collect::<Vec<_>>();
        let producer = match &self.producer {
            Some(producer) => producer,
            None => match producer(&self.options) {
                Ok(made) => &*self.producer.insert(made),
                Err(error) => return all(&error.to_string()),
            },
        };
        let base = self.base;
        self.base += alerts.len();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; alerts.len()];
        for (index, alert) in alerts.iter().enumerate() {
            let payload = serde_json::to_vec(&ocsf::detection_finding(alert))
                .expect("a finding has text keys and finite numbers");
            let schema = format!("ocsf/{}", ocsf::OCSF_VERSION);
            let headers = OwnedHeaders::new()
                .insert(Header { key: "content-type", value: Some("application/json") })
                .insert(Header { key: "schema", value: Some(&schema) });
            let record = BaseRecord::with_opaque_to(&self.options.topic, Box::new(base + index))
                .key(&alert.alert_id)
                .payload(&payload)
                .headers(headers);
            if let Err((error, _)) = producer.send(record) {
                outcomes[index] = Some(outcome(&error));
            }
        }
        let until = Instant::now() + MESSAGE_TIME + POLL;
        while outcomes.iter().any(Option::is_none) && Instant::now() < until {
            producer.poll(POLL);
            for (number, result) in producer.context().take() {
                let place = number.checked_sub(base).and_then(|index| outcomes.get_mut(index));
                if let Some(place) = place {
                    *place = Some(result.map_or_else(|error| outcome(&error), |()| Outcome::Taken));
                }
            }
        }
        let fatal = producer.client().fatal_error();
        if let Some((_, reason)) = &fatal {
            tracing::warn!(reason = printable(reason), "restarting the Kafka producer");
        }
        let silent = || Outcome::later("the broker did not acknowledge in time");
        let outcomes: Vec<Outcome> = outcomes.into_iter().map(|one| one.unwrap_or_else(silent)).collect();
        self.said = match outcomes.last() {
            Some(Outcome::Taken) => "acknowledged by all in-sync replicas".to_owned(),
            Some(Outcome::Later { reason, .. } | Outcome::Refused { reason }) => reason.clone(),
            None => String::new(),
        };
        if fatal.is_some() {
            self.producer = None;
        }
        outcomes
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn answer(&self) -> String {
        self.said.clone()
    }

    fn finish(&mut self) {
        if let Some(producer) = &self.producer {
            // Messages that are not acknowledged by now are sent again at the next start.
            let _ = producer.flush(FINISH);
        }
    }
}
