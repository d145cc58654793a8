//! The way of alerts out of the process.
//!
//! ```text
//! pipeline ──tell──▶ queue ──▶ outbox: log on disk ──▶ lane ──▶ sink      a thread each,
//!                                  ▲              ├──▶ lane ──▶ sink      a position each
//! archive's table alerts ──catch-up┘              └──▶ …
//! ```
//!
//! Invariants:
//! - Telling never waits; a sink holds up neither the pipeline nor another sink.
//! - An alert whose events are sealed reaches every sink at least once, wherever the process is killed. What comes
//!   again comes under the same id, which every format carries where its receiver looks for repeats.
//! - OCSF is what is sent where the receiver does not have a form of its own; no format carries a body of a request
//!   or response, and each escapes what clients of a cluster chose, by its own rules.
//! - TLS is verified, always; a secret leaves in the request it is for, and in no error, log or metric.
//!
//! The Kafka sink is not here but beside the Kafka source, which owns librdkafka's settings and what it says.

mod alertmanager;
mod cef;
mod ecs;
mod elastic;
mod file;
mod group;
mod http;
mod lane;
mod log;
mod outbox;
mod pagerduty;
mod slack;
mod splunk;
mod syslog;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use strongroom_schemas::{Alert, ocsf};

pub use self::alertmanager::{Alertmanager, AlertmanagerOptions};
pub use self::cef::cef;
pub use self::ecs::ecs;
pub use self::elastic::{Elastic, ElasticOptions};
pub use self::file::{FileSink, StdoutSink};
pub use self::group::GROUPS_MAX;
pub use self::http::{HTTP_TIMEOUT, HttpOptions, Post};
pub use self::lane::{
    DEAD_BYTES_MAX, LANE_FINISH, LaneOptions, RETRY_AFTER_MAX, RETRY_WAIT, RETRY_WAIT_MAX, SinkCounters,
    SinkState,
};
pub use self::log::{Mark, OutboxError};
pub use self::outbox::{
    History, HistoryError, KNOWN_IDS_MAX, OUTBOX_BYTES_MAX_DEFAULT, OutboxCounters, OutboxOptions,
    SEALS_UNTIL_SURE,
};
pub use self::pagerduty::{PagerDuty, PagerDutyOptions};
pub use self::slack::{Slack, SlackOptions};
pub use self::splunk::{Splunk, SplunkOptions};
pub use self::syslog::{SYSLOG_BYTES_MAX_DEFAULT, Syslog, SyslogFormat, SyslogOptions, Transport, rfc5424};
pub use self::tls::{SinkError, TlsOptions};
pub use self::webhook::{Webhook, WebhookOptions, sign};

use self::lane::Lane;
use self::outbox::{Opened, Outbox};

/// What became of one alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Taken,
    /// Not now: it is sent again, after the time that the receiver asked for, if it did.
    Later { reason: String, after: Option<Duration> },
    /// Never: the receiver says that this alert is wrong.
    Refused { reason: String },
}

impl Outcome {
    pub fn later(reason: impl Into<String>) -> Outcome {
        Outcome::Later { reason: reason.into(), after: None }
    }
}

/// Something that alerts are sent to. Called by one thread, which may wait in it, for a bounded time.
pub trait Sink: Send {
    /// Sends alerts; what became of each, in their order.
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome>;

    /// Most alerts that it wants at once.
    fn batch_max(&self) -> usize;

    /// What the receiver answered last, for a person.
    fn answer(&self) -> String {
        String::new()
    }

    /// The last call: nothing is sent any more.
    fn finish(&mut self) {}
}

/// A running outbox with its sinks.
pub struct Sinks {
    outbox: Outbox,
    stop: Arc<AtomicBool>,
    log: Arc<log::Shared>,
    done: Receiver<()>,
    lanes: Vec<(String, Arc<SinkCounters>)>,
}

impl Sinks {
    /// Opens the outbox and starts a thread for each sink. Alerts that the archive `history` has and the outbox has
    /// not are told first.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn start(
        options: OutboxOptions,
        sinks: Vec<(LaneOptions, Box<dyn Sink>)>,
        history: Arc<dyn History>,
    ) -> Result<Sinks, OutboxError> {
        let opened = Opened::open(options, history)?;
        let source = opened.source.clone();
        let positions: Arc<Vec<AtomicU64>> = Arc::new(sinks.iter().map(|_| AtomicU64::new(0)).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, done) = bounded(sinks.len());
        let (mut lanes, mut running) = (Vec::new(), Vec::new());
        for (index, (options, sink)) in sinks.into_iter().enumerate() {
            let name = options.name.clone();
            let (source, positions) = (source.clone(), Arc::clone(&positions));
            let lane = Lane::new(options, sink, source, positions, index, Arc::clone(&stop))?;
            lanes.push((name.clone(), Arc::clone(&lane.counters)));
            running.push((name, lane));
        }
        let log = Arc::clone(&source.log);
        let outbox = opened.start(positions)?;
        for (name, lane) in running {
            let ended = ended.clone();
            let run = move || {
                lane.run();
                // Nobody may wait for it any more.
                let _ = ended.send(());
            };
            let started = std::thread::Builder::new().name(format!("sink-{name}")).spawn(run);
            started.map_err(|source| OutboxError::Thread { name, source })?;
        }
        Ok(Sinks { outbox, stop, log, done, lanes })
    }

    /// Takes an alert on its way; never waits. `false` when there is no room: an alert of a rule is then read from
    /// the archive later.
    pub fn tell(&self, alert: &Alert) -> bool {
        self.outbox.tell(alert)
    }

    /// Takes note of commits of the archive's table `alerts`, after all of their alerts were told. Never waits.
    pub fn sealed(&self, commits: &Mark) {
        self.outbox.sealed(commits);
    }

    pub fn outbox_counters(&self) -> Arc<OutboxCounters> {
        Arc::clone(&self.outbox.counters)
    }

    /// Counters of each sink, by its name.
    pub fn counters(&self) -> Vec<(String, Arc<SinkCounters>)> {
        self.lanes.clone()
    }

    /// Makes durable what was told and gives sinks [`LANE_FINISH`] to take it; the rest has its turn at the next start.
    /// Returns whether every sink has everything.
    pub fn finish(self) -> bool {
        let end = {
            self.outbox.finish();
            self.log.end()
        };
        self.stop.store(true, Ordering::Release);
        self.log.wake();
        let until = Instant::now() + LANE_FINISH + Duration::from_secs(1);
        let mut ended = 0;
        while ended < self.lanes.len() && self.done.recv_deadline(until).is_ok() {
            ended += 1;
        }
        let lag: u64 = self.lanes.iter().map(|(_, counters)| counters.lag.load(Ordering::Relaxed)).sum();
        tracing::debug!(end, ended, lag, "the outbox is closed");
        ended == self.lanes.len() && lag == 0
    }

    /// Where sinks are, as the files in an outbox's folder say; its process may run.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn states(folder: &std::path::Path, names: &[String]) -> Result<Vec<SinkState>, OutboxError> {
        let end = log::peek_end(folder)?;
        let states = names.iter().map(|name| SinkState::read(folder, name, end));
        Ok(states.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

/// The finding of an alert as one line of JSON, without a newline.
pub(crate) fn finding(alert: &Alert) -> Vec<u8> {
    serde_json::to_vec(&ocsf::detection_finding(alert)).expect("a finding has text keys and finite numbers")
}

/// An alert's time, or another in microseconds since 1970, as RFC 3339 with milliseconds.
pub(crate) fn rfc3339(time_us: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(time_us).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// The first `chars` characters of a text, without control characters.
pub(crate) fn plain(text: &str, chars: usize) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut plain: String = text.chars().map(clean).take(chars).collect();
    if text.chars().nth(chars).is_some() {
        plain.pop();
        plain.push('…');
    }
    plain
}
