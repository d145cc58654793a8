//! librdkafka's settings, and the events that it reports on its own.
//!
//! Invariants:
//! - librdkafka decides nothing: it commits and stores no offsets on its own. If a broker does not
//!   have an offset, that is an error; librdkafka never continues at another offset.
//! - Text from a broker or the network is printed without its control characters, and shortened.
//! - Only [`secure`] passes the password on, and no error shows it.
//!
//! No state survives a crash.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::{
    Assignor, FETCH_BYTES, KafkaOptions, Mechanism, PREFETCH_BYTES, RESPONSE_BYTES_MAX, Sasl, Security,
};
use crate::SourceError;

/// Returns the client's settings.
pub(super) fn settings(options: &KafkaOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    let assignor = match options.assignor {
        Assignor::CooperativeSticky => "cooperative-sticky",
        Assignor::Range => "range",
    };
    config
        .set("bootstrap.servers", options.brokers.join(","))
        .set("client.id", "strongroom")
        .set("group.id", &options.group)
        .set("partition.assignment.strategy", assignor)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("allow.auto.create.topics", "false")
        // A message that was changed on its way, or on the broker's disk, is an error.
        .set("check.crcs", "true")
        // The longest time between two polls. While partitions are given away, a poll waits for a
        // seal, for at most `consume::SEAL_WAIT`.
        .set("max.poll.interval.ms", "300000")
        .set("session.timeout.ms", options.session_timeout.as_millis().to_string())
        .set("heartbeat.interval.ms", (options.session_timeout.as_millis() / 4).clamp(1, 3_000).to_string())
        // Without this, librdkafka would send its metrics to the brokers.
        .set("enable.metrics.push", "false")
        .set("statistics.interval.ms", "2000")
        // A new topic, or a new partition of a topic, is noticed within this time.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "10000")
        // A broker answers as soon as it has one byte, because the alerts of a message must not
        // wait for other messages.
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "500")
        .set("fetch.error.backoff.ms", "200")
        .set("fetch.queue.backoff.ms", "20")
        .set("max.partition.fetch.bytes", (FETCH_BYTES / 4).to_string())
        .set("fetch.max.bytes", FETCH_BYTES.to_string())
        .set("receive.message.max.bytes", RESPONSE_BYTES_MAX.to_string())
        .set("queued.max.messages.kbytes", (PREFETCH_BYTES >> 10).to_string());
    let KafkaOptions { security, ca_file, cert_file, key_file, .. } = options;
    secure(&mut config, security, ca_file.as_deref(), cert_file.as_deref(), key_file.as_deref());
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Sets how the client authenticates to brokers, and how brokers authenticate to the client.
pub(super) fn secure(
    config: &mut ClientConfig,
    security: &Security,
    ca_file: Option<&Path>,
    cert_file: Option<&Path>,
    key_file: Option<&Path>,
) {
    let protocol = match security {
        Security::Plaintext => "plaintext",
        Security::Tls => "ssl",
        Security::SaslPlaintext(_) => "sasl_plaintext",
        Security::SaslTls(_) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Security::Tls | Security::SaslTls(_) = security {
        let path = |path: Option<&Path>| path.and_then(|path| path.to_str().map(str::to_owned));
        config
            .set("enable.ssl.certificate.verification", "true")
            .set("ssl.endpoint.identification.algorithm", "https")
            // Without a file, librdkafka searches the places where distributions keep their
            // authorities, because the OpenSSL that it was built with has none.
            .set("ssl.ca.location", path(ca_file).unwrap_or_else(|| "probe".to_owned()));
        if let (Some(cert), Some(key)) = (path(cert_file), path(key_file)) {
            config.set("ssl.certificate.location", cert).set("ssl.key.location", key);
        }
    }
    if let Security::SaslPlaintext(sasl) | Security::SaslTls(sasl) = security {
        let Sasl { mechanism, username, password } = sasl;
        let mechanism = match mechanism {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        config
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", username)
            .set("sasl.password", password.expose());
    }
}

/// Creates a consumer that has not subscribed yet.
pub(super) fn consumer(options: &KafkaOptions) -> Result<BaseConsumer<Context>, SourceError> {
    settings(options).create_with_context(Context::default()).map_err(|error| {
        let message = match &error {
            // The value is left out: it may be a password.
            KafkaError::ClientConfig(_, description, key, _) => {
                format!("Kafka client: setting {key}: {}", printable(description))
            }
            other => format!("Kafka client: {}", printable(&other.to_string())),
        };
        SourceError { message, source: None }
    })
}

/// A change of the partitions that the group assigns to us.
#[derive(Debug)]
pub(super) enum Rebalance {
    /// Topics and numbers that are assigned to us from now on.
    Assign(Vec<(String, i32)>),
    Revoke(Vec<(String, i32)>),
}

/// An event that librdkafka reports.
#[derive(Debug)]
pub(super) struct Report {
    pub code: RDKafkaErrorCode,
    pub reason: String,
}

/// Keeps librdkafka's reports until the consumer reads them. All decisions are made outside of
/// callbacks.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// The consumer is closing: reports are no longer read.
    pub closing: AtomicBool,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    rebalances: VecDeque<Rebalance>,
    reports: VecDeque<Report>,
    statistics: Option<Statistics>,
}

/// Maximum number of reports that are kept; when there are more, the oldest is dropped.
const REPORTS_MAX: usize = 64;

impl Context {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rebalance(&self) -> Option<Rebalance> {
        self.said().rebalances.pop_front()
    }

    pub(super) fn report(&self) -> Option<Report> {
        self.said().reports.pop_front()
    }

    pub(super) fn statistics(&self) -> Option<Statistics> {
        self.said().statistics.take()
    }
}

/// Writes librdkafka's log to our log.
pub(super) fn log_of_library(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let message = printable(message);
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "librdkafka: {message}");
        }
        // What matters arrives as a report as well, and is logged there.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::info!(facility, "librdkafka: {message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, "librdkafka: {message}");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_of_library(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.said().statistics = Some(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut said = self.said();
        if said.reports.len() == REPORTS_MAX {
            said.reports.pop_front();
        }
        said.reports.push_back(Report { code, reason: printable(reason) });
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions =
            list.elements().iter().map(|one| (one.topic().to_owned(), one.partition())).collect();
        let rebalance = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Rebalance::Assign(partitions)
        } else {
            Rebalance::Revoke(partitions)
        };
        if self.closing.load(Ordering::Acquire) {
            answer(consumer, &rebalance, &[]);
        } else {
            self.said().rebalances.push_back(rebalance);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!("the group's offsets were not written: {}", printable(&error.to_string()));
        }
    }
}

/// Answers a rebalance, because the group waits for the answer. New partitions are not fetched yet.
/// `assigned` has those of the partitions given away that were being fetched.
pub(super) fn answer(consumer: &BaseConsumer<Context>, rebalance: &Rebalance, assigned: &[(&str, i32)]) {
    let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
    let none = TopicPartitionList::new();
    let answered = match rebalance {
        Rebalance::Assign(_) if cooperative => consumer.incremental_assign(&none),
        Rebalance::Assign(_) => consumer.assign(&none),
        Rebalance::Revoke(_) if cooperative => consumer.incremental_unassign(&list(assigned)),
        Rebalance::Revoke(_) => consumer.unassign(),
    };
    if let Err(error) = answered {
        tracing::warn!("Kafka: change of partitions: {}", printable(&error.to_string()));
    }
}

pub(super) fn list(partitions: &[(&str, i32)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

/// Makes a list of partitions with the offsets to start from.
pub(super) fn list_at<'p>(
    partitions: impl Iterator<Item = (&'p str, i32, i64)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in partitions {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    Ok(list)
}

/// Returns the meaning of a report and a hint what to do. `None` if the trouble passes without
/// action.
pub(super) fn advice(report: &Report, group: &str) -> Option<String> {
    // The rest of the reason says how long the attempt took. It differs each time, so it is cut
    // off.
    let reason = report.reason.split(" (after ").next().unwrap_or_default();
    let hint = match report.code {
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            "check mechanism, username and password".to_owned()
        }
        // The error code of a failed handshake depends on which of librdkafka's threads noticed the
        // failure first.
        code if code == RDKafkaErrorCode::SSL || reason.contains("certificate verify failed") => {
            "check ca_file, and that the configured broker names are those in the certificates".to_owned()
        }
        RDKafkaErrorCode::Resolve => "check the names of the brokers".to_owned(),
        RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure => {
            "check that the brokers are up and can be reached, and whether they expect TLS".to_owned()
        }
        RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownPartition => "create the topic, or correct its name".to_owned(),
        RDKafkaErrorCode::TopicAuthorizationFailed => "allow Read and Describe on the topic".to_owned(),
        RDKafkaErrorCode::GroupAuthorizationFailed => format!("allow Read on group {group}"),
        RDKafkaErrorCode::ClusterAuthorizationFailed => "allow Describe on the cluster".to_owned(),
        RDKafkaErrorCode::InconsistentGroupProtocol => {
            format!("give all members of group {group} the same assignor")
        }
        _ => return None,
    };
    Some(format!("Kafka: {reason}: {hint}"))
}

/// Whether at least one connection is up.
pub(super) fn is_up(statistics: &Statistics) -> bool {
    statistics.brokers.values().any(|broker| broker.state == "UP")
}

/// Returns where the logs of partitions end, by topic and number, if the end is known.
pub(super) fn ends(statistics: &Statistics) -> HashMap<(&str, i32), i64> {
    let mut ends = HashMap::new();
    for topic in statistics.topics.values() {
        for partition in topic.partitions.values() {
            let end = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
            if partition.partition >= 0 && end >= 0 {
                ends.insert((topic.topic.as_str(), partition.partition), end);
            }
        }
    }
    ends
}

/// Longest foreign text that is printed, in characters.
const PRINTED_CHARS_MAX: usize = 400;

/// Makes foreign text safe to print.
pub(super) fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut printable: String = text.chars().map(clean).take(PRINTED_CHARS_MAX).collect();
    if text.chars().nth(PRINTED_CHARS_MAX).is_some() {
        printable.push('…');
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_made_printable() {
        assert_eq!(printable("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
        assert_eq!(printable(&"x".repeat(1000)).chars().count(), PRINTED_CHARS_MAX + 1);
    }
}
