//! Topics of a Kafka cluster as a source.
//!
//! Each partition of a topic is a partition of the archive, `kafka/CLUSTER/TOPIC/NUMBER`, where the cluster is
//! known by the id that its brokers tell. Its stream is the concatenation of the messages' values, each with a
//! newline behind it; bytes are never changed. So an offset in the stream is one of bytes, and the archive's
//! position holds the broker's number of the next message beside it.
//!
//! Invariants:
//! - Where to go on is what the archive says, never what the group has committed. The group's offsets are
//!   written behind a seal, for those who watch its lag; that nobody can write them harms nothing.
//! - Messages that the broker no longer has are never passed over in silence: a partition whose next message is
//!   gone, or was never there, stands still and says what is lost, unless [`OnGap::Continue`] is chosen; then
//!   the loss is logged as an error. Numbers that are missing *between* messages are legal (compaction,
//!   markers of transactions) and are counted.
//! - A partition given away is sealed first, as far as it was handed over. Where that takes too long, or the
//!   partition was lost unawares, the archive's own check of positions keeps two owners from sealing the same.
//! - Waiting for the pipeline never keeps the group waiting: the broker is asked on, with all partitions paused.
//!
//! What happens on a crash: the next owner goes on from the last sealed message; nothing else is remembered.
//!
//! Memory held: [`CHUNK_BYTES`] a partition and [`GATHERED_BYTES_MAX`] together, [`PREFETCH_BYTES`] in librdkafka,
//! and one fetched response of [`FETCH_BYTES`], or one message where that is longer.
//!
//! What is not seen: a topic that was deleted, created anew, and has by now at least as many messages as were
//! sealed of the old one. Brokers tell the difference by a topic's id, which librdkafka does not pass on.

mod client;
mod consume;
mod gather;
mod produce;
mod start;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

pub use produce::{KafkaSink, KafkaSinkOptions};

use crate::live::{Feed, Secret, Source, SourceError};

/// Text of one partition that is worth a chunk.
pub const CHUNK_BYTES: usize = 4 << 20;
/// The longest that a message waits for others to share its chunk.
pub const CHUNK_WAIT: Duration = Duration::from_millis(50);
/// Age of a message, by its own timestamp, from which on its partition is read for throughput and not for latency.
pub const BEHIND: Duration = Duration::from_secs(2);
/// Text of a partition that is behind that is worth a chunk: enough that the driver decodes it once, for its alerts
/// and for the archive.
pub const BEHIND_CHUNK_BYTES: usize = crate::live::LIVE_BLOCK_BYTES / 2;
/// The longest that a message of a partition that is behind waits.
pub const BEHIND_WAIT: Duration = Duration::from_millis(250);
/// Text of all partitions that is gathered, and not handed over yet.
pub const GATHERED_BYTES_MAX: usize = 32 << 20;
/// Messages that librdkafka fetches ahead.
pub const PREFETCH_BYTES: usize = 32 << 20;
/// What a broker is asked to put in one response. A message that is longer comes all the same, on its own.
pub const FETCH_BYTES: usize = 16 << 20;
/// The longest response, and so the longest message, that is accepted.
pub const RESPONSE_BYTES_MAX: usize = 128 << 20;
/// Default of [`KafkaOptions::session_timeout`]: a killed process comes back to its partitions so soon.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a cluster's id, which is part of partitions' names.
pub const CLUSTER_ID_BYTES_MAX: usize = 128;

/// What to read, and how to reach it.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// Name in the configuration; also names the cluster of brokers, where these tell no id.
    pub name: String,
    /// The Kubernetes cluster that the events are of: column `cluster`.
    pub cluster: String,
    /// `host:port` of some brokers; the others are learnt from them.
    pub brokers: Vec<String>,
    /// Names of topics.
    pub topics: Vec<String>,
    /// Consumer group: processes that name the same one share the partitions.
    pub group: String,
    /// How the connection is protected, and who we say we are.
    pub security: Security,
    /// PEM file of the authorities that vouch for brokers; the system's when there is none.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our certificate, for brokers that ask for one; goes with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of its key.
    pub key_file: Option<PathBuf>,
    /// Where a partition begins of which the archive has nothing.
    pub start: Start,
    /// What to do when messages are gone that the archive does not have.
    pub on_gap: OnGap,
    /// How partitions are shared.
    pub assignor: Assignor,
    /// How soon the group takes a process for dead that says nothing; [`SESSION_TIMEOUT`] unless there is reason.
    /// Brokers allow 6 s to 30 min, if not told otherwise.
    pub session_timeout: Duration,
}

/// How the connection to brokers is protected. Certificates are verified, always.
#[derive(Clone, Debug)]
pub enum Security {
    Plaintext,
    Tls,
    /// A name and password over a connection that anybody on the way can read.
    SaslPlaintext(Sasl),
    SaslTls(Sasl),
}

/// A name and a password. Azure Event Hubs takes `$ConnectionString` and the connection string, as
/// [`Mechanism::Plain`].
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

/// Where a partition begins of which the archive has nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message that the broker has.
    #[default]
    Earliest,
    /// With the messages that come from now on.
    Latest,
}

/// What to do when messages are gone that the archive does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// The partition stands still until somebody decides.
    #[default]
    Stop,
    /// Go on with the oldest message that there is, and log an error that says how many are lost.
    Continue,
}

/// How the members of a group share partitions. All members must name the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignor {
    /// A partition that stays with its member is not interrupted when another comes or goes.
    #[default]
    CooperativeSticky,
    /// Everybody stops and begins anew whenever a member comes or goes; every broker knows it.
    Range,
}

/// Reads a cluster's topics, as a member of a group.
#[derive(Debug)]
pub struct KafkaSource {
    options: KafkaOptions,
    /// Where partitions began with [`Start::Latest`] of which nothing is sealed yet: a change of members must
    /// not move their beginning.
    begun: HashMap<String, i64>,
}

impl KafkaSource {
    /// # Errors
    /// [`OptionsError`]: options under which it cannot work.
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
    #[error("{name:?} is no name of a topic: 1 to 249 letters, digits, dots, hyphens and underscores")]
    TopicName { name: String },
    #[error("{what} holds a NUL or another character that is not allowed in it")]
    Character { what: &'static str },
    #[error("cert_file and key_file go together: one of them is missing")]
    HalfCertificate,
    #[error("{what} needs a connection with TLS")]
    NeedsTls { what: &'static str },
}

/// Kafka's own bound.
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
        // A comma would make two of it, a scheme another listener of it.
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
