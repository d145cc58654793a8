//! A consumer's life: it connects to the brokers, joins the group, opens partitions, reads their
//! messages, and gives partitions away.
//!
//! One thread does all of this. librdkafka's callbacks only store reports in the [`Context`], which
//! the thread reads between two polls, so no state is shared. A partition that the group assigns is
//! *waiting* until the archive and the broker have said where it continues. Then it is *open*, and
//! fetched. If messages of it are lost, it is *blocked*.
//!
//! Invariant: a partition is assigned to librdkafka only while it is open, with the offset that its
//! [`Gather`] expects next. So every message either continues the stream or was received before.
//! After a crash the next owner asks the archive where to continue.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use strongroom_lines::frame::Origin;

use super::client::{self, Context, Rebalance, Report, printable};
use super::gather::Gather;
use super::start::{Decision, LogRange, decide};
use super::{BEHIND, CHUNK_WAIT, CLUSTER_ID_BYTES_MAX, GATHERED_BYTES_MAX, KafkaOptions, OnGap, Start};
use crate::{Feed, SourceError, Stopped, StreamName};

/// Longest time that brokers may take to report their metadata.
const METADATA_WAIT: Duration = Duration::from_secs(5);
/// Longest time that a broker may take to report where a partition begins and ends.
const LOG_WAIT: Duration = Duration::from_secs(3);
/// Longest time that the archive may take to report its positions.
const REFRESH_WAIT: Duration = Duration::from_secs(30);
/// Longest time that giving partitions away may take: until then, everything that was read of them
/// should be handed over and sealed. The group waits meanwhile, and considers this process dead
/// after `max.poll.interval.ms`.
const SEAL_WAIT: Duration = Duration::from_secs(60);
/// How long the pipeline may be full before partitions are paused. A pause discards what was
/// fetched ahead, so it should happen only when sealing hangs, not whenever a broker is faster than
/// this process.
const STALL_WAIT: Duration = Duration::from_secs(5);
/// How long one chunk waits for the pipeline before other work is done.
const OFFER_WAIT: Duration = Duration::from_millis(100);
/// A group that assigns no partition for this long is reported.
const IDLE_REPORTED: Duration = Duration::from_secs(30);
/// How often [`Consume::tick`] does its work.
const TICK: Duration = Duration::from_millis(200);
/// How often the group's offsets are written.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// First wait before something is tried again.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest wait before something is tried again.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often topics that were missing or forbidden are checked again.
const TOPICS_INTERVAL: Duration = Duration::from_secs(15);
/// How long a connection error is shown after it was last reported, if a broker answers.
const CONNECTION_TROUBLE: Duration = Duration::from_secs(3);
/// The same for a refused connection, whose refusal is reported again only when librdkafka connects
/// again.
const REFUSAL_TROUBLE: Duration = Duration::from_secs(20);
/// The same for trouble on the brokers, which is reported again only when metadata is fetched
/// again.
const SERVICE_TROUBLE: Duration = Duration::from_secs(60);
/// How often a broker is asked for the end of a log before a position is reported to lie beyond
/// that end. A broker that has just become the leader may not know the end yet.
const BEYOND_ASKED: u32 = 4;
/// Maximum number of troubled partitions that are named in full.
const NAMED_MAX: usize = 3;

/// Reads messages and hands them to the driver until the driver ends the run.
///
/// # Errors
/// Failures that only a restart can recover from.
pub(super) fn run(
    options: &KafkaOptions,
    begun: &mut HashMap<String, i64>,
    feed: &Feed,
) -> Result<(), SourceError> {
    let mut consume = Consume {
        options,
        feed,
        begun,
        consumer: client::consumer(options)?,
        identity: String::new(),
        streams: Streams::default(),
        troubles: Troubles::default(),
        paused: false,
        ticked: None,
        committed: Instant::now(),
        topics_checked: Instant::now(),
        idle: Idle::No,
    };
    match consume.run() {
        Ok(()) | Err(Ended::Stopped) => Ok(()),
        Err(Ended::Failed(error)) => Err(error),
    }
}

/// Why [`run`] ended.
#[derive(Debug)]
enum Ended {
    Stopped,
    Failed(SourceError),
}

impl From<Stopped> for Ended {
    fn from(_: Stopped) -> Ended {
        Ended::Stopped
    }
}

impl Ended {
    fn failed(message: impl fmt::Display) -> Ended {
        Ended::Failed(SourceError { message: message.to_string(), source: None })
    }
}

/// A partition that the group has assigned to us.
#[derive(Debug)]
struct Stream {
    topic: String,
    number: i32,
    name: Arc<StreamName>,
    state: State,
    /// Set once it is known where the partition continues.
    gather: Option<Gather>,
    /// Whether librdkafka has the partition among those that it fetches.
    assigned: bool,
    /// End of the broker's log, as last reported.
    end: i64,
    /// The position that was committed to the group.
    committed: i64,
}

#[derive(Debug)]
enum State {
    /// Where the partition continues is not known yet.
    Waiting {
        from: Instant,
        tried: u32,
        why: Option<String>,
    },
    Open,
    /// Messages are lost; an operator has to decide.
    Blocked {
        why: String,
    },
}

impl Stream {
    fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    fn is_waiting(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { from, .. } if from <= now)
    }

    fn retry(&mut self, why: String) {
        let tried = if let State::Waiting { tried, .. } = self.state { tried.saturating_add(1) } else { 1 };
        let wait = RETRY_MIN.saturating_mul(1 << tried.min(8)).min(RETRY_MAX);
        self.state = State::Waiting { from: Instant::now() + wait, tried, why: Some(why) };
    }

    fn trouble(&self) -> Option<&str> {
        match &self.state {
            State::Waiting { why, .. } => why.as_deref(),
            State::Open => None,
            State::Blocked { why } => Some(why),
        }
    }
}

/// All partitions that are assigned to us.
#[derive(Debug, Default)]
struct Streams {
    all: Vec<Stream>,
    /// The partition of the last message: the next message most likely belongs to it too.
    last: usize,
    /// The partition that was last offered to the pipeline. The next round begins after it, so that
    /// no partition is always last.
    turn: usize,
    /// Bytes gathered of all partitions together.
    gathered: usize,
    /// Since when the pipeline has been full.
    full_since: Option<Instant>,
}

impl Streams {
    fn position(&mut self, topic: &str, number: i32) -> Option<usize> {
        let is = |stream: &Stream| stream.number == number && stream.topic == topic;
        if !self.all.get(self.last).is_some_and(is) {
            self.last = self.all.iter().position(is)?;
        }
        Some(self.last)
    }

    /// Adds a message to its partition. Returns whether the partition has enough text to hand over.
    fn take(&mut self, message: &BorrowedMessage<'_>, now: Instant) -> bool {
        let Some(at) = self.position(message.topic(), message.partition()) else { return false };
        let stream = &mut self.all[at];
        let (true, Some(gather)) = (stream.is_open(), &mut stream.gather) else { return false };
        let before = gather.len();
        let behind = message.timestamp().to_millis().is_some_and(is_behind);
        gather.push(message.offset(), message.payload().unwrap_or_default(), now, behind);
        self.gathered += gather.len() - before;
        gather.is_enough() || self.gathered >= GATHERED_BYTES_MAX
    }

    /// Hands over what is due. Returns whether the pipeline took all of it.
    fn hand_over(&mut self, feed: &Feed) -> Result<bool, Stopped> {
        self.gathered = self.all.iter().filter_map(|stream| stream.gather.as_ref()).map(Gather::len).sum();
        let everything = self.gathered >= GATHERED_BYTES_MAX;
        let now = Instant::now();
        for _ in 0..self.all.len() {
            self.turn = (self.turn + 1) % self.all.len();
            let Some(gather) = &mut self.all[self.turn].gather else { continue };
            let bytes = gather.len();
            if bytes == 0 || !(everything || gather.is_due(now)) {
                continue;
            }
            if !offer(gather, feed, OFFER_WAIT)? {
                self.turn = (self.turn + self.all.len() - 1) % self.all.len();
                self.full_since.get_or_insert(now);
                return Ok(false);
            }
            self.gathered = self.gathered.saturating_sub(bytes);
        }
        self.full_since = None;
        Ok(true)
    }

    /// Messages that wait at the brokers.
    fn lag(&self) -> i64 {
        let lag =
            |stream: &Stream| stream.gather.as_ref().map_or(0, |gather| (stream.end - gather.next()).max(0));
        self.all.iter().map(lag).fold(0, i64::saturating_add)
    }
}

/// Whether a message with this timestamp, in milliseconds, is at least [`BEHIND`] old.
fn is_behind(timestamp: i64) -> bool {
    let now = chrono::Utc::now().timestamp_millis();
    now.saturating_sub(timestamp) >= i64::try_from(BEHIND.as_millis()).unwrap_or(i64::MAX)
}

/// Hands over everything that was gathered of a partition. Returns `false` if the pipeline is full.
fn offer(gather: &mut Gather, feed: &Feed, wait: Duration) -> Result<bool, Stopped> {
    let Some(chunk) = gather.take() else { return Ok(true) };
    match feed.offer(chunk, wait)? {
        None => Ok(true),
        Some(chunk) => {
            gather.put_back(chunk);
            Ok(false)
        }
    }
}

/// What is wrong now, apart from troubles of partitions.
#[derive(Debug, Default)]
struct Troubles {
    service: Option<Service>,
    /// The last connection error; it matters only if there is no other connection.
    connection: Option<String>,
    /// Topics that cannot be read.
    topics: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Service {
    what: String,
    since: Instant,
    /// How long the trouble is shown if a broker answers and the trouble is not reported again.
    keep: Duration,
}

struct Consume<'r> {
    options: &'r KafkaOptions,
    feed: &'r Feed,
    begun: &'r mut HashMap<String, i64>,
    consumer: BaseConsumer<Context>,
    /// The brokers' name for their cluster, as written in partition names.
    identity: String,
    streams: Streams,
    troubles: Troubles,
    paused: bool,
    ticked: Option<Instant>,
    committed: Instant,
    topics_checked: Instant,
    /// Tracks a time without partitions, so that it is reported once.
    idle: Idle,
}

/// The state of a time in which the group assigns no partition.
#[derive(Debug, Default, Clone, Copy)]
enum Idle {
    #[default]
    No,
    Since(Instant),
    Reported,
}

impl Drop for Consume<'_> {
    fn drop(&mut self) {
        // From here on, callbacks answer the group themselves. Rebalances that they have not
        // answered are answered here.
        self.consumer.context().closing.store(true, Ordering::Release);
        while let Some(rebalance) = self.consumer.context().rebalance() {
            let assigned = self.assigned_of(&rebalance);
            client::answer(&self.consumer, &rebalance, &assigned);
        }
    }
}

impl Consume<'_> {
    fn run(&mut self) -> Result<(), Ended> {
        self.connect()?;
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        self.consumer
            .subscribe(&topics)
            .map_err(|error| Ended::failed(format!("Kafka: subscribe: {}", printable(&error.to_string()))))?;
        loop {
            if self.feed.is_stopping() {
                return Ok(());
            }
            self.tick()?;
            // A poll serves the group only when no message waits, and the group must not wait that
            // long.
            self.serve()?;
            if self.streams.hand_over(self.feed)? {
                self.pause(false);
                self.poll(CHUNK_WAIT)?;
            } else if self.streams.full_since.is_some_and(|since| since.elapsed() >= STALL_WAIT) {
                self.pause(true);
                self.poll(OFFER_WAIT)?;
            }
        }
    }

    /// Waits until a broker answers, and reads the id of its cluster.
    fn connect(&mut self) -> Result<(), Ended> {
        let mut wait = RETRY_MIN;
        while let Err(error) = self.check_topics() {
            // The report of the connection says what went wrong; the metadata request only times
            // out.
            self.poll(TICK)?;
            if self.troubles.service.is_none() {
                let what = self.troubles.connection.clone();
                let what = what.unwrap_or_else(|| {
                    let brokers = self.options.brokers.join(", ");
                    format!("Kafka: no answer from {brokers}: {error}: check that the brokers can be reached")
                });
                self.troubles.set(what, CONNECTION_TROUBLE);
            }
            self.say_troubles();
            let until = Instant::now() + wait;
            while Instant::now() < until {
                if self.feed.is_stopping() {
                    return Err(Ended::Stopped);
                }
                self.poll(TICK)?;
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
        self.troubles.service = None;
        self.say_troubles();
        let id = self.consumer.client().fetch_cluster_id(METADATA_WAIT).filter(|id| !id.is_empty());
        self.identity = identity(id.as_deref().unwrap_or(&self.options.name)).ok_or_else(|| {
            Ended::failed(format!("Kafka: the id of the cluster is longer than {CLUSTER_ID_BYTES_MAX} bytes"))
        })?;
        Ok(())
    }

    /// Asks for the topics; an error means that no broker answered.
    fn check_topics(&mut self) -> Result<(), String> {
        self.topics_checked = Instant::now();
        for topic in &self.options.topics {
            let metadata = self.consumer.fetch_metadata(Some(topic), METADATA_WAIT);
            let metadata = metadata.map_err(|error| printable(&error.to_string()))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let error = match found {
                Some(found) => found.error().map(RDKafkaErrorCode::from),
                None => Some(RDKafkaErrorCode::UnknownTopicOrPartition),
            };
            match error {
                // If a missing leader matters, the partitions report it themselves.
                None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {
                    self.troubles.topics.remove(topic);
                }
                Some(code) => {
                    let report = Report { code, reason: format!("topic {topic}: {code}") };
                    let what = client::advice(&report, &self.options.group)
                        .unwrap_or_else(|| format!("Kafka: {}", report.reason));
                    self.troubles.topics.insert(topic.clone(), what);
                }
            }
        }
        if self.troubles.topics.is_empty() {
            // Trouble about topics that was reported earlier is over, too. Other trouble of this
            // kind will be reported again.
            self.troubles.service.take_if(|service| service.keep == SERVICE_TROUBLE);
        }
        Ok(())
    }

    /// Takes messages for up to `wait`, or until there is enough to hand over.
    fn poll(&mut self, wait: Duration) -> Result<(), Ended> {
        let until = Instant::now() + wait;
        let mut left = wait;
        loop {
            match self.consumer.poll(left) {
                Some(Ok(message)) => {
                    if self.streams.take(&message, Instant::now()) {
                        return Ok(());
                    }
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(Ended::failed(format!("Kafka client: {}", printable(&error.to_string()))));
                }
                // The error is among the reports, with its reason.
                Some(Err(_)) | None => {
                    self.serve()?;
                }
            }
            left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Handles what librdkafka has reported.
    fn serve(&mut self) -> Result<(), Ended> {
        while let Some(report) = self.consumer.context().report() {
            self.note(&report)?;
        }
        while let Some(rebalance) = self.consumer.context().rebalance() {
            // A new assignment ends a pause. If a pause is still needed, it follows soon.
            self.pause(false);
            match &rebalance {
                Rebalance::Assign(partitions) => {
                    client::answer(&self.consumer, &rebalance, &[]);
                    for (topic, number) in partitions {
                        self.receive(topic, *number);
                    }
                }
                Rebalance::Revoke(partitions) => {
                    let sealed = if self.consumer.assignment_lost() {
                        tracing::warn!(
                            group = self.options.group,
                            "Kafka: partitions were lost to the group"
                        );
                        Ok(())
                    } else {
                        self.settle(partitions)
                    };
                    let assigned = self.assigned_of(&rebalance);
                    client::answer(&self.consumer, &rebalance, &assigned);
                    let gone = |stream: &Stream| {
                        partitions
                            .iter()
                            .any(|(topic, number)| *number == stream.number && *topic == stream.topic)
                    };
                    self.streams.all.retain(|stream| !gone(stream));
                    self.streams.turn = 0;
                    sealed?;
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, report: &Report) -> Result<(), Ended> {
        let Report { code, reason } = report;
        match code {
            // The report does not name the partition, so the brokers are asked about all
            // partitions.
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                tracing::info!("Kafka: {reason}: asking the brokers where the logs begin and end");
                for stream in self.streams.all.iter_mut().filter(|stream| stream.is_open()) {
                    stream.state = State::Waiting { from: Instant::now(), tried: 0, why: None };
                }
            }
            // librdkafka continues after a message that it could not read. A restart of the
            // consumer keeps that message from being skipped.
            RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::BadCompression
            | RDKafkaErrorCode::NotImplemented
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize => match self.options.on_gap {
                OnGap::Stop => {
                    return Err(Ended::failed(format!(
                        "Kafka: messages cannot be read: {reason}; to continue after them and accept the gap, set \
                         on_gap = \"continue\" and restart"
                    )));
                }
                OnGap::Continue => tracing::error!("Kafka: unreadable messages are lost: {reason}"),
            },
            RDKafkaErrorCode::AllBrokersDown => {
                let known = self.troubles.connection.clone();
                if let Some(what) = known.or_else(|| client::advice(report, &self.options.group)) {
                    self.troubles.set(what, CONNECTION_TROUBLE);
                }
            }
            // Another broker may be up, or this one may return at once.
            RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut => {
                tracing::debug!("Kafka: {reason}");
                self.troubles.connection = client::advice(report, &self.options.group);
            }
            RDKafkaErrorCode::Resolve | RDKafkaErrorCode::SSL | RDKafkaErrorCode::Authentication => {
                if let Some(what) = client::advice(report, &self.options.group) {
                    self.troubles.connection = Some(what.clone());
                    self.troubles.set(what, REFUSAL_TROUBLE);
                }
            }
            RDKafkaErrorCode::PollExceeded => tracing::warn!("Kafka: {reason}"),
            _ => {
                let what = client::advice(report, &self.options.group);
                self.troubles.set(what.unwrap_or_else(|| format!("Kafka: {reason}")), SERVICE_TROUBLE);
            }
        }
        Ok(())
    }

    /// Adds a newly assigned partition. Where it continues is determined later, in
    /// [`Consume::open`].
    fn receive(&mut self, topic: &str, number: i32) {
        if self.streams.position(topic, number).is_some() {
            return;
        }
        self.streams.all.push(Stream {
            topic: topic.to_owned(),
            number,
            name: Arc::new(StreamName {
                partition: format!("kafka/{}/{topic}/{number}", self.identity),
                label: format!("{topic}[{number}]"),
            }),
            state: State::Waiting { from: Instant::now(), tried: 0, why: None },
            gather: None,
            assigned: false,
            end: 0,
            committed: 0,
        });
    }

    /// Requests a seal of everything that was read of `partitions`, which go to other members of
    /// the group, and waits for it, for at most [`SEAL_WAIT`].
    fn settle(&mut self, partitions: &[(String, i32)]) -> Result<(), Ended> {
        let until = Instant::now() + SEAL_WAIT;
        let mut unsealed = false;
        for (topic, number) in partitions {
            let Some(at) = self.streams.position(topic, *number) else { continue };
            let stream = &mut self.streams.all[at];
            let Some(gather) = &mut stream.gather else { continue };
            offer(gather, self.feed, until.saturating_duration_since(Instant::now()))?;
            let offset = |position: Option<strongroom_archive::Position>| position.map(|one| one.next_offset);
            let name = &stream.name.partition;
            unsealed |= offset(self.feed.position(name)) != offset(self.feed.sealed(name));
        }
        if unsealed && !self.feed.seal_now(until.saturating_duration_since(Instant::now()))? {
            tracing::warn!(
                "Kafka: partitions are given away before everything was sealed; their next owner reads the rest again"
            );
        }
        self.commit();
        Ok(())
    }

    fn assigned_of(&self, rebalance: &Rebalance) -> Vec<(&str, i32)> {
        let (Rebalance::Assign(partitions) | Rebalance::Revoke(partitions)) = rebalance;
        let is = |stream: &&Stream| {
            stream.assigned
                && partitions.iter().any(|(topic, number)| *number == stream.number && *topic == stream.topic)
        };
        self.streams.all.iter().filter(is).map(|stream| (stream.topic.as_str(), stream.number)).collect()
    }

    /// Does periodic work, at most once per [`TICK`]: opens partitions, commits, and reports what
    /// is idle or wrong.
    fn tick(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        if self.ticked.is_some_and(|ticked| now.saturating_duration_since(ticked) < TICK) {
            return Ok(());
        }
        self.ticked = Some(now);
        if let Some(statistics) = self.consumer.context().statistics() {
            let ends = client::ends(&statistics);
            for stream in &mut self.streams.all {
                let end = ends.get(&(stream.topic.as_str(), stream.number));
                stream.end = end.copied().unwrap_or(stream.end);
            }
            self.troubles.forget(client::is_up(&statistics));
        }
        if !self.paused {
            self.open(now)?;
        }
        self.report_idle(now);
        self.feed.lag(self.streams.lag());
        self.feed.assigned(self.streams.all.len());
        if self.committed.elapsed() >= COMMIT_INTERVAL {
            self.commit();
        }
        if !self.troubles.topics.is_empty() && self.topics_checked.elapsed() >= TOPICS_INTERVAL {
            // Without an answer, the earlier state of the topics is kept. The connection reports
            // the trouble.
            if let Err(error) = self.check_topics() {
                tracing::debug!("Kafka: topics: {error}");
            }
        }
        self.say_troubles();
        Ok(())
    }

    /// Reports once that the group assigns no partition, because it waits for its members or has
    /// more members than partitions.
    fn report_idle(&mut self, now: Instant) {
        self.idle = match self.idle {
            _ if !self.streams.all.is_empty() => Idle::No,
            Idle::No => Idle::Since(now),
            Idle::Since(since) if now.saturating_duration_since(since) >= IDLE_REPORTED => {
                tracing::warn!(
                    group = self.options.group,
                    "Kafka: the group has assigned no partition for {} s: it has more members than \
                     partitions, or waits for members that died",
                    IDLE_REPORTED.as_secs()
                );
                Idle::Reported
            }
            idle => idle,
        };
    }

    /// Determines where waiting partitions continue, and lets librdkafka fetch them.
    fn open(&mut self, now: Instant) -> Result<(), Ended> {
        let mut waiting: Vec<usize> = Vec::new();
        for (at, stream) in self.streams.all.iter().enumerate() {
            if stream.is_waiting(now) {
                waiting.push(at);
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let all = &self.streams.all;
        let new = waiting.iter().map(|at| &all[*at]).filter(|stream| stream.gather.is_none());
        let new: Vec<&str> = new.map(|stream| stream.name.partition.as_str()).collect();
        if !new.is_empty() && !self.feed.refresh_all(&new, REFRESH_WAIT)? {
            for at in waiting {
                self.streams.all[at].retry("the archive did not report its positions in time".to_owned());
            }
            return Ok(());
        }
        let (mut opened, mut silent) = (Vec::new(), None);
        for at in waiting {
            let stream = &mut self.streams.all[at];
            let label = &stream.name.label;
            // After a broker has failed to answer once, no further partition waits for an answer in
            // this round.
            if let Some(error) = &silent {
                let why = format!("{label}: cannot determine where its log begins: {error}");
                stream.retry(why);
                continue;
            }
            let log = match self.consumer.fetch_watermarks(&stream.topic, stream.number, LOG_WAIT) {
                Ok((low, high)) => LogRange { low, high },
                Err(error) => {
                    let text = printable(&error.to_string());
                    let why = format!("{label}: cannot determine where its log begins: {text}");
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut) {
                        silent = Some(text);
                    }
                    stream.retry(why);
                    continue;
                }
            };
            if go_on(stream, log, self.options, self.begun, self.feed) {
                opened.push(at);
            }
        }
        self.fetch(&opened);
        Ok(())
    }

    /// Lets librdkafka fetch partitions from where they continue.
    fn fetch(&mut self, opened: &[usize]) {
        if opened.is_empty() {
            return;
        }
        let next = |stream: &Stream| stream.gather.as_ref().map_or(0, Gather::next);
        let all = &self.streams.all;
        let fetched = if matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            let again = opened.iter().map(|at| &all[*at]).filter(|stream| stream.assigned);
            let again: Vec<(&str, i32)> =
                again.map(|stream| (stream.topic.as_str(), stream.number)).collect();
            let at = opened.iter().map(|at| &all[*at]);
            let given_up = if again.is_empty() {
                Ok(())
            } else {
                self.consumer.incremental_unassign(&client::list(&again))
            };
            given_up
                .and_then(|()| client::list_at(at.map(|one| (one.topic.as_str(), one.number, next(one)))))
                .and_then(|list| self.consumer.incremental_assign(&list))
        } else {
            // All open partitions are assigned again, each from its next message.
            let open = all.iter().filter(|stream| stream.is_open());
            client::list_at(open.map(|one| (one.topic.as_str(), one.number, next(one))))
                .and_then(|list| self.consumer.assign(&list))
        };
        for at in opened {
            let stream = &mut self.streams.all[*at];
            match &fetched {
                Ok(()) => stream.assigned = true,
                Err(error) => {
                    let why = format!(
                        "{}: cannot be fetched: {}",
                        stream.name.label,
                        printable(&error.to_string())
                    );
                    stream.retry(why);
                }
            }
        }
    }

    /// Commits to the group how far partitions are sealed, for tools that watch the group's lag.
    fn commit(&mut self) {
        self.committed = Instant::now();
        let mut sealed = Vec::new();
        for (at, stream) in self.streams.all.iter().enumerate() {
            let position = self.feed.sealed(&stream.name.partition);
            if let Some(next) = position.and_then(|position| position.broker_offset)
                && next > stream.committed
            {
                sealed.push((at, next));
            }
        }
        if sealed.is_empty() {
            return;
        }
        let all = &self.streams.all;
        let list = client::list_at(
            sealed.iter().map(|(at, next)| (all[*at].topic.as_str(), all[*at].number, *next)),
        );
        match list.and_then(|list| self.consumer.commit(&list, CommitMode::Async)) {
            Ok(()) => {
                for (at, next) in sealed {
                    self.streams.all[at].committed = next;
                }
            }
            Err(error) => tracing::debug!("Kafka: commit: {}", printable(&error.to_string())),
        }
    }

    fn pause(&mut self, pause: bool) {
        if self.paused == pause {
            return;
        }
        let assigned = self.streams.all.iter().filter(|stream| stream.assigned);
        let assigned: Vec<(&str, i32)> =
            assigned.map(|stream| (stream.topic.as_str(), stream.number)).collect();
        let list = client::list(&assigned);
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        tracing::debug!(pause, partitions = assigned.len(), "Kafka: the pipeline is full, or has room again");
        match done {
            Ok(()) => self.paused = pause,
            Err(error) => tracing::warn!(pause, "Kafka: pause: {}", printable(&error.to_string())),
        }
    }

    fn say_troubles(&self) {
        let streams = self.streams.all.iter().filter_map(Stream::trouble);
        let service = self.troubles.service.iter().map(|service| service.what.as_str());
        let all: Vec<&str> =
            service.chain(self.troubles.topics.values().map(String::as_str)).chain(streams).collect();
        if all.is_empty() {
            self.feed.recovered();
        } else {
            let more = all.len().saturating_sub(NAMED_MAX);
            let mut what = all[..all.len() - more].join("; ");
            if more > 0 {
                what.push_str(&format!("; and {more} more"));
            }
            self.feed.trouble(what);
        }
    }
}

impl Troubles {
    fn set(&mut self, what: String, keep: Duration) {
        self.service = Some(Service { what, since: Instant::now(), keep });
    }

    /// Drops troubles that were not repeated while a broker answers.
    fn forget(&mut self, is_up: bool) {
        if is_up && self.service.as_ref().is_some_and(|service| service.since.elapsed() >= service.keep) {
            self.service = None;
            self.connection = None;
        }
    }
}

/// Decides where a partition continues. Returns whether it is to be fetched.
fn go_on(
    stream: &mut Stream,
    log: LogRange,
    options: &KafkaOptions,
    begun: &mut HashMap<String, i64>,
    feed: &Feed,
) -> bool {
    let (partition, label) = (&stream.name.partition, stream.name.label.clone());
    let position = feed.position(partition);
    let wanted = match (&stream.gather, position) {
        (Some(gather), _) => Some(gather.next()),
        (None, Some(position)) if position.broker_offset.is_none() => {
            let why = format!("{label}: its position in the archive has no offset of the broker");
            stream.state = State::Blocked { why };
            return false;
        }
        (None, Some(position)) => position.broker_offset,
        (None, None) => begun.get(partition).copied(),
    };
    stream.end = log.high;
    if let (Some(wanted), State::Waiting { tried, .. }) = (wanted, &stream.state)
        && wanted > log.high
        && *tried + 1 < BEYOND_ASKED
    {
        let why = format!("{label}: offset {wanted} is beyond the end of the broker's log, {}", log.high);
        stream.retry(why);
        return false;
    }
    let next = match decide(&label, wanted, log, options.start, options.on_gap) {
        Decision::At(next) => next,
        Decision::AfterGap(next, lost) => {
            tracing::error!("Kafka: {lost}; continuing at offset {next}");
            next
        }
        Decision::Blocked(why) => {
            tracing::error!("Kafka: {why}");
            stream.state = State::Blocked { why };
            return false;
        }
    };
    if position.is_none() && options.start == Start::Latest {
        begun.insert(partition.clone(), next);
    }
    match &mut stream.gather {
        Some(gather) => gather.jump(next),
        none => {
            let origin = Origin {
                partition: partition.clone(),
                cluster: options.cluster.clone(),
                reading: Arc::clone(&options.reading),
            };
            *none = Some(Gather::new(Arc::clone(&stream.name), Arc::new(origin), position, next));
        }
    }
    stream.state = State::Open;
    tracing::info!(partition = %stream.name.partition, offset = next, "Kafka: reading a partition");
    true
}

/// Returns a cluster's id as it is written in partition names: letters, digits, `.`, `_`, `-`, and
/// `%XX` for any other byte.
fn identity(id: &str) -> Option<String> {
    use fmt::Write as _;

    let mut identity = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            identity.push(char::from(byte));
        } else {
            write!(identity, "%{byte:02X}").ok()?;
        }
    }
    (identity.len() <= CLUSTER_ID_BYTES_MAX).then_some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_id_makes_a_plain_name() {
        assert_eq!(identity("lkc-2mz_P.x").as_deref(), Some("lkc-2mz_P.x"));
        assert_eq!(identity("a/b#\n%ä").as_deref(), Some("a%2Fb%23%0A%25%C3%A4"));
        assert_eq!(identity(&"a".repeat(129)), None);
        let longest = identity(&"a".repeat(CLUSTER_ID_BYTES_MAX)).expect("not too long");
        let name = format!("kafka/{longest}/{}/{}", "t".repeat(249), i32::MAX);
        assert!(name.len() <= 512);
    }
}
