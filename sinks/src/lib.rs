//! Delivery of alerts to the receivers outside the process.
//!
//! ```
//! use std::sync::Arc;
//!
//! use strongroom_schemas::{Alert, AlertEvent, Severity};
//! use strongroom_sinks::{Outcome, Sink, StdoutSink};
//!
//! # let alert = Alert {
//! #     alert_id: "7b8c7f3e-92a5-5d0f-8f0e-000000000000".into(), rule_id: "r".into(), rule_name: "r".into(),
//! #     title: "Secrets read".into(), severity: Severity::High, time_us: 1_772_445_600_000_000,
//! #     window_start_us: 0, window_end_us: 0, group_key: String::new(), event_count: 1, audit_ids: vec![],
//! #     tactics: vec![], techniques: vec![], message: "m".into(), next_steps: String::new(),
//! #     event: AlertEvent::default(), touched: Default::default(),
//! # };
//! let mut lines = Vec::new();
//! let outcomes = StdoutSink::new(&mut lines).send(&[Arc::new(alert)]);
//! assert_eq!(outcomes, [Outcome::Taken]);
//! assert!(lines.starts_with(b"{") && lines.ends_with(b"}\n"));
//! ```
//!
//! An outbox on disk stands between the pipeline and the sinks, each of which has a thread and a
//! position:
//!
//! ```text
//! pipeline ──alert──▶ queue ──▶ outbox: log on disk ──▶ worker ──▶ sink
//!                                  ▲              ├──▶ worker ──▶ sink
//! archive's table alerts ──catch-up┘              └──▶ …
//! ```
//!
//! Invariants:
//! - Handing over an alert never waits; a sink holds up neither the pipeline nor another sink.
//! - An alert whose events are sealed reaches every sink at least once, wherever the process is
//!   killed. An alert that is sent again has the same id. Every format has the id in the field by
//!   which its receiver recognises repeated alerts.
//! - Sinks send OCSF unless the receiver has a format of its own. No format contains a request or
//!   response body. Each format escapes, by its own rules, the values that clients of a cluster
//!   chose.
//! - TLS is always verified. A secret is sent only in the requests that need it, and is in no
//!   error, log or metric.
//!
//! Crashes: the outbox continues where it was (see the module `outbox`). An alert may be sent to a
//! sink again.
//!
//! The Kafka sink is in the crate `strongroom-live`, beside the Kafka source, because the two share
//! the settings and messages of librdkafka.

mod alertmanager;
mod backoff;
mod cef;
mod ecs;
mod elastic;
mod file;
mod group;
pub mod http;
mod judge;
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
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use strongroom_schemas::{Alert, ocsf};

pub use self::alertmanager::{Alertmanager, AlertmanagerOptions};
pub use self::backoff::Backoff;
pub use self::cef::cef;
pub use self::ecs::ecs;
pub use self::elastic::{Elastic, ElasticOptions};
pub use self::file::{FileSink, StdoutSink, append_lines, finding_line, open_lines};
pub use self::group::GROUPS_MAX;
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
pub use self::worker::{
    DEAD_BYTES_MAX, RETRY_AFTER_MAX, RETRY_WAIT, RETRY_WAIT_MAX, SINK_FINISH, SinkCounters, SinkOptions,
    SinkState,
};

use self::outbox::{Opened, Outbox};
use self::worker::SinkWorker;

/// The result of sending one alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has the alert.
    Taken,
    /// The receiver did not take the alert now. The alert is sent again: after the time that the
    /// receiver asked for, or else after the sink's own wait.
    Later { reason: String, after: Option<Duration> },
    /// The receiver will never take this alert.
    Refused { reason: String },
}

impl Outcome {
    pub fn later(reason: impl Into<String>) -> Outcome {
        Outcome::Later { reason: reason.into(), after: None }
    }
}

/// A receiver of alerts. One thread calls it; a call may block for a bounded time.
pub trait Sink: Send {
    /// Sends alerts, and returns the outcome of each, in order.
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome>;

    /// Returns the maximum number of alerts in one call of [`Sink::send`].
    fn batch_max(&self) -> usize;

    /// Returns the receiver's last answer, as text for people.
    fn answer(&self) -> String {
        String::new()
    }

    /// Closes the sink. No other method is called afterwards.
    fn finish(&mut self) {}
}

/// A running outbox with its sinks.
pub struct Sinks {
    outbox: Outbox,
    stop: Arc<AtomicBool>,
    log: Arc<log::Shared>,
    done: Receiver<()>,
    counters: Vec<(String, Arc<SinkCounters>)>,
}

impl Sinks {
    /// Opens the outbox and starts a thread for each sink. Alerts that were sealed after the
    /// outbox's last mark, but are not in the outbox, are read from the archive `history` and sent
    /// too.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn start(
        options: OutboxOptions,
        sinks: Vec<(SinkOptions, Box<dyn Sink>)>,
        history: Arc<dyn History>,
    ) -> Result<Sinks, OutboxError> {
        let opened = Opened::open(options, history)?;
        let source = opened.source.clone();
        let positions: Arc<Vec<AtomicU64>> = Arc::new(sinks.iter().map(|_| AtomicU64::new(0)).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, done) = bounded(sinks.len());
        let (mut counters, mut workers) = (Vec::new(), Vec::new());
        for (index, (options, sink)) in sinks.into_iter().enumerate() {
            let name = options.name.clone();
            let (source, positions) = (source.clone(), Arc::clone(&positions));
            let worker = SinkWorker::new(options, sink, source, positions, index, Arc::clone(&stop))?;
            counters.push((name.clone(), Arc::clone(&worker.counters)));
            workers.push((name, worker));
        }
        let log = Arc::clone(&source.log);
        let outbox = opened.start(positions)?;
        for (name, worker) in workers {
            let ended = ended.clone();
            let run = move || {
                worker.run();
                // Nobody receives this if `finish` has stopped waiting.
                let _ = ended.send(());
            };
            let started = std::thread::Builder::new().name(format!("sink-{name}")).spawn(run);
            started.map_err(|source| OutboxError::Thread { name, source })?;
        }
        Ok(Sinks { outbox, stop, log, done, counters })
    }

    /// Takes an alert to send; never waits. Returns `false` if the queue is full: an alert of a
    /// rule is then read from the archive later.
    pub fn hand_over(&self, alert: &Alert) -> bool {
        self.outbox.hand_over(alert)
    }

    /// Notes that commits of the archive's table `alerts` were sealed. All alerts in these commits
    /// must have been handed over before. Never waits.
    pub fn sealed(&self, commits: &Mark) {
        self.outbox.sealed(commits);
    }

    pub fn outbox_counters(&self) -> Arc<OutboxCounters> {
        Arc::clone(&self.outbox.counters)
    }

    /// Returns the counters of each sink, with its name.
    pub fn counters(&self) -> Vec<(String, Arc<SinkCounters>)> {
        self.counters.clone()
    }

    /// Makes all alerts handed over durable, and gives the sinks [`SINK_FINISH`] to take them; the
    /// rest is sent after the next start. Returns whether every sink has every alert.
    pub fn finish(self) -> bool {
        let end = {
            self.outbox.finish();
            self.log.end()
        };
        self.stop.store(true, Ordering::Release);
        self.log.wake();
        let until = Instant::now() + SINK_FINISH + Duration::from_secs(1);
        let mut ended = 0;
        while ended < self.counters.len() && self.done.recv_deadline(until).is_ok() {
            ended += 1;
        }
        let lag: u64 = self.counters.iter().map(|(_, counters)| counters.lag.load(Ordering::Relaxed)).sum();
        tracing::debug!(end, ended, lag, "the outbox is closed");
        ended == self.counters.len() && lag == 0
    }

    /// Returns the states of sinks from the files in an outbox's folder, which a running process
    /// may be writing.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn states(folder: &std::path::Path, names: &[String]) -> Result<Vec<SinkState>, OutboxError> {
        let end = log::peek_end(folder)?;
        let states = names.iter().map(|name| SinkState::read(folder, name, end));
        Ok(states.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

/// Returns the finding of an alert as JSON, without a newline.
pub(crate) fn finding(alert: &Alert) -> Vec<u8> {
    serde_json::to_vec(&ocsf::detection_finding(alert)).expect("a finding has text keys and finite numbers")
}

/// Returns a time in microseconds since 1970 as RFC 3339 with milliseconds.
pub(crate) fn rfc3339(time_us: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(time_us).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Returns the first `chars` characters of a text, with control characters replaced.
pub(crate) fn plain(text: &str, chars: usize) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut plain: String = text.chars().map(clean).take(chars).collect();
    if text.chars().nth(chars).is_some() {
        plain.pop();
        plain.push('…');
    }
    plain
}
