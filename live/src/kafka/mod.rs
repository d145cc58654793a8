//! Reads the topics of a Kafka cluster as a source.
//!
//! Each partition of a topic is a partition of the archive, `kafka/CLUSTER/TOPIC/NUMBER`, where
//! CLUSTER is the id that the brokers report. Its stream is the concatenation of the messages'
//! values, each followed by a newline; bytes are never changed. An offset in the stream counts
//! bytes, and the archive's position also has the broker's number of the next message.
//!
//! Invariants:
//! - The archive says where to continue, never the group's committed offsets. The group's offsets
//!   are written after a seal, for tools that watch the lag; a failure to write them does no harm.
//! - Messages that the broker no longer has are never skipped silently. If the next message of a
//!   partition is gone, or never existed, the partition is blocked and reports what is lost. With
//!   [`OnGap::Continue`] it continues instead, and the loss is logged as an error. Numbers missing
//!   *between*
//!   messages are legal (compaction, markers of transactions) and are counted.
//! - Before a partition is given away, everything that was handed over of it is sealed. If that
//!   takes too long, or if the partition was lost without notice, two members may read the same
//!   messages; the archive's own check of positions then lets only one of them seal each message.
//! - The group never waits for the pipeline: while the pipeline is full, all partitions are paused,
//!   and polling continues.
//!
//! After a crash, the next owner continues after the last sealed message; nothing else is
//! remembered.
//!
//! Memory held: [`CHUNK_BYTES`] per partition and [`GATHERED_BYTES_MAX`] together,
//! [`PREFETCH_BYTES`] in librdkafka, and one fetched response of [`FETCH_BYTES`], or one message if
//! that is longer.
//!
//! What is not noticed: a topic that was deleted and created again, and now has at least as many
//! messages as were sealed of the old one. Brokers distinguish them by a topic's id, which
//! librdkafka does not pass on.

mod client;
mod consume;
mod gather;
mod produce;
mod start;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use strongroom_lines::Reading;

pub use produce::{KafkaSink, KafkaSinkOptions};

use crate::{Feed, Secret, Source, SourceError};

/// A chunk is handed over when it has this much text.
pub const CHUNK_BYTES: usize = 4 << 20;
/// The longest time that a message waits for others to share its chunk.
pub const CHUNK_WAIT: Duration = Duration::from_millis(50);
/// A message that is older than this, by its own timestamp, shows that its partition lags. A
/// lagging partition is read in larger chunks, for throughput instead of latency.
pub const BEHIND: Duration = Duration::from_secs(2);
/// A chunk of a lagging partition is handed over when it has this much text. Chunks of this size
/// are decoded only once, both for their alerts and for the archive.
pub const BEHIND_CHUNK_BYTES: usize = crate::LIVE_BLOCK_BYTES / 2;
/// The longest time that a message of a lagging partition waits for others to share its chunk.
pub const BEHIND_WAIT: Duration = Duration::from_millis(250);
/// Maximum amount of text of all partitions that is gathered and not handed over yet.
pub const GATHERED_BYTES_MAX: usize = 32 << 20;
/// Size of the messages that librdkafka fetches ahead, in bytes.
pub const PREFETCH_BYTES: usize = 32 << 20;
/// Maximum size of one response of a broker, in bytes. A longer message is still fetched, in a
/// response of its own.
pub const FETCH_BYTES: usize = 16 << 20;
/// The longest response, and so the longest message, that is accepted.
pub const RESPONSE_BYTES_MAX: usize = 128 << 20;
/// Default of [`KafkaOptions::session_timeout`]: the partitions of a killed process go to other
/// members, or back to a restarted one, after this time.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of a cluster's id, in bytes; the id is part of partition names.
pub const CLUSTER_ID_BYTES_MAX: usize = 128;

/// What to read, and how to reach it.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// Name in the configuration. It also names the cluster of brokers if the brokers report no id.
    pub name: String,
    /// The Kubernetes cluster of the events: column `cluster`.
    pub cluster: String,
    /// `host:port` of some brokers. These name the other brokers.
    pub brokers: Vec<String>,
    /// Names of topics.
    pub topics: Vec<String>,
    /// How the messages are read: where events are in them, and which writers are believed.
    pub reading: Arc<Reading>,
    /// Consumer group: processes that name the same group share the partitions.
    pub group: String,
    /// How the connection is protected, and how this client authenticates.
    pub security: Security,
    /// PEM file of the authorities that issue the brokers' certificates. Without it, the system's
    /// authorities are used.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate, for brokers that require one; used with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the key of the client certificate.
    pub key_file: Option<PathBuf>,
    /// Where a partition starts if the archive has nothing of it.
    pub start: Start,
    /// What to do if messages that the archive does not have are gone from the broker.
    pub on_gap: OnGap,
    /// How partitions are shared.
    pub assignor: Assignor,
    /// The group considers a process dead after silence of this length. [`SESSION_TIMEOUT`] suits
    /// most groups. Brokers allow 6 s to 30 min by default.
    pub session_timeout: Duration,
}

/// How the connection to brokers is protected. Certificates are verified, always.
#[derive(Clone, Debug)]
pub enum Security {
    Plaintext,
    Tls,
    /// A name and password over a connection that anyone on the path can read.
    SaslPlaintext(Sasl),
    SaslTls(Sasl),
}

/// A name and a password. For Azure Event Hubs, the name is `$ConnectionString`, the password is
/// the connection string, and the mechanism is [`Mechanism::Plain`].
#[derive(Clone, Debug)]
pub struct Sasl {
    pub mechanism: Mechanism,
    pub username: String,
    pub password: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// Where a partition starts if the archive has nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message that the broker has.
    #[default]
    Earliest,
    /// At the messages that arrive from now on.
    Latest,
}

/// What to do if messages that the archive does not have are gone from the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// The partition is blocked until an operator decides.
    #[default]
    Stop,
    /// Continue with the oldest message, and log an error that says how many are lost.
    Continue,
}

/// How the members of a group share partitions. All members must name the same assignor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignor {
    /// A partition that stays with its member is not interrupted when another member joins or
    /// leaves.
    #[default]
    CooperativeSticky,
    /// All members stop reading and start again whenever a member joins or leaves. Every broker
    /// supports this.
    Range,
}

/// Reads a cluster's topics, as a member of a group.
#[derive(Debug)]
pub struct KafkaSource {
    options: KafkaOptions,
    /// Where partitions began that started with [`Start::Latest`] and have nothing sealed yet. When
    /// the group's members change, these partitions must begin at the same place.
    begun: HashMap<String, i64>,
}

impl KafkaSource {
    /// Creates a source that has not connected yet.
    ///
    /// # Errors
    /// [`OptionsError`] for options with which it cannot work.
    pub fn new(options: KafkaOptions) -> Result<KafkaSource, OptionsError> {
        check(&options)?;
        Ok(KafkaSource { options, begun: HashMap::new() })
    }
}

impl Source for KafkaSource {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn run(&mut self, feed: &Feed) -> Result<(), SourceError> {
        consume::run(&self.options, &mut self.begun, feed)
    }
}

/// What is wrong with [`KafkaOptions`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("no broker is named")]
    NoBrokers,
    #[error("no topic is named")]
    NoTopics,
    #[error("no group is named")]
    NoGroup,
    #[error(
        "{name:?} is not a valid topic name: use 1 to 249 letters, digits, dots, hyphens and underscores"
    )]
    TopicName { name: String },
    #[error("{what} contains a NUL or another character that is not allowed there")]
    Character { what: &'static str },
    #[error("cert_file and key_file must be given together")]
    HalfCertificate,
    #[error("{what} requires a connection with TLS")]
    NeedsTls { what: &'static str },
}

/// Longest name of a topic, which is Kafka's own bound.
const TOPIC_BYTES_MAX: usize = 249;

fn check(options: &KafkaOptions) -> Result<(), OptionsError> {
    if options.brokers.is_empty() {
        return Err(OptionsError::NoBrokers);
    }
    if options.topics.is_empty() {
        return Err(OptionsError::NoTopics);
    }
    if options.group.is_empty() {
        return Err(OptionsError::NoGroup);
    }
    for topic in &options.topics {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let dots = topic == "." || topic == "..";
        if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || dots || !topic.bytes().all(known) {
            return Err(OptionsError::TopicName { name: topic.clone() });
        }
    }
    let plain = |what: &'static str, text: &str| {
        if text.chars().any(char::is_control) { Err(OptionsError::Character { what }) } else { Ok(()) }
    };
    for broker in &options.brokers {
        // With a comma it would be two brokers; with a scheme it would name another listener.
        if broker.is_empty() || broker.contains([',', '/', ' ']) {
            return Err(OptionsError::Character { what: "the name of a broker" });
        }
        plain("the name of a broker", broker)?;
    }
    plain("the group", &options.group)?;
    let tls = match &options.security {
        Security::Plaintext => false,
        Security::Tls => true,
        Security::SaslPlaintext(sasl) | Security::SaslTls(sasl) => {
            plain("the user name", &sasl.username)?;
            plain("the password", sasl.password.expose())?;
            matches!(options.security, Security::SaslTls(_))
        }
    };
    let files =
        [("ca_file", &options.ca_file), ("cert_file", &options.cert_file), ("key_file", &options.key_file)];
    for (what, file) in files {
        let Some(file) = file else { continue };
        if !tls {
            return Err(OptionsError::NeedsTls { what });
        }
        plain(what, file.to_str().ok_or(OptionsError::Character { what })?)?;
    }
    if options.cert_file.is_some() != options.key_file.is_some() {
        return Err(OptionsError::HalfCertificate);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> KafkaOptions {
        KafkaOptions {
            name: "audit".into(),
            cluster: "prod".into(),
            brokers: vec!["127.0.0.1:9092".into()],
            topics: vec!["kube-audit".into()],
            reading: Arc::default(),
            group: "strongroom".into(),
            security: Security::Plaintext,
            ca_file: None,
            cert_file: None,
            key_file: None,
            start: Start::default(),
            on_gap: OnGap::default(),
            assignor: Assignor::default(),
            session_timeout: SESSION_TIMEOUT,
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let is = |change: fn(&mut KafkaOptions)| {
            let mut options = options();
            change(&mut options);
            KafkaSource::new(options).map(|_| ())
        };
        assert_eq!(is(|_| ()), Ok(()));
        assert_eq!(is(|o| o.brokers.clear()), Err(OptionsError::NoBrokers));
        assert_eq!(is(|o| o.topics.clear()), Err(OptionsError::NoTopics));
        assert_eq!(is(|o| o.group.clear()), Err(OptionsError::NoGroup));
        for bad in ["", ".", "..", "^audit.*", "a/b", "a#b", "ä", &"a".repeat(250)] {
            let mut options = options();
            options.topics.push(bad.to_owned());
            let refused = KafkaSource::new(options).map(|_| ());
            assert_eq!(refused, Err(OptionsError::TopicName { name: bad.to_owned() }));
        }
        assert_eq!(
            is(|o| o.brokers.push("a:1,b:2".into())),
            Err(OptionsError::Character { what: "the name of a broker" })
        );
        assert_eq!(
            is(|o| o.ca_file = Some("ca.pem".into())),
            Err(OptionsError::NeedsTls { what: "ca_file" })
        );
        let half = is(|o| {
            o.security = Security::Tls;
            o.cert_file = Some("cert.pem".into());
        });
        assert_eq!(half, Err(OptionsError::HalfCertificate));
        let nul = is(|o| {
            o.security = Security::SaslPlaintext(Sasl {
                mechanism: Mechanism::Plain,
                username: "$ConnectionString".into(),
                password: Secret::new("a\0b"),
            });
        });
        assert_eq!(nul, Err(OptionsError::Character { what: "the password" }));
    }
}
