//! `strongroom run`: the daemon. Configuration, log, signals, sources, and the output of alerts.
//!
//! Alerts are the command's data and go to standard output and a file; everything else is the log,
//! on standard error. Nothing here may hold up the pipeline: alerts go into the outbox, or, without
//! one, through a bounded queue to a thread that writes. After a crash the next start reads all
//! positions from the archive.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::Utc;
use crossbeam_channel::{Receiver, Sender, bounded};
use strongroom_alerts::own;
use strongroom_archive::{Archive, Counts, SealReport};
use strongroom_lines::Reason;
use strongroom_live::kafka::KafkaSource;
use strongroom_live::webhook::Webhook;
use strongroom_live::{
    self as live, ArchiveHistory, Drained, LiveObserver, LiveRules, Metrics, Source, Tail, mark_of,
};
use strongroom_proof::Anchors;
use strongroom_schemas::Alert;
use strongroom_sinks::{Sinks, finding_line};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::anchor::{Anchoring, TimestampConfig};
use crate::clock::{ClockWatch, Step};
use crate::config::{self, Config, LogFormat};
use crate::exit::{self, CliError, ingest_error};
use crate::key::KeyArgs;
use crate::observe::{self, State};
use crate::reload::Reload;
use crate::term;
use crate::{allocator, ingest};

/// Maximum number of alerts that wait for a slow file or reader.
const ALERTS_QUEUE: usize = 10_000;
/// How long a stop waits for requests in progress. Their events stay in the write-ahead log for the
/// next start.
const WEBHOOK_CLOSE: Duration = Duration::from_secs(3);
/// How long a stop waits until queued alerts are written.
const ALERTS_FINISH: Duration = Duration::from_secs(5);
/// How often sources are checked for silence.
const SILENCE_TICK: Duration = Duration::from_secs(1);
/// Minimum time between two reports of rejects.
const REJECTS_INTERVAL: Duration = Duration::from_secs(3600);
/// Maximum number of alerts about the pipeline itself that wait for room in the outbox. They must
/// wait, because no archive has them.
const RETRY_QUEUE_MAX: usize = 100;

/// Follow sources for as long as the process lives: raise alerts, seal events.
///
/// A configuration file names sources, archive and everything else. SIGTERM seals what is in
/// progress and ends the process; what could not be sealed in time stays at its source and is read
/// again. After a crash the next run continues from what the archive holds; nothing is lost and
/// nothing is stored twice.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  strongroom config > strongroom.toml
  strongroom config check strongroom.toml
  strongroom run --config strongroom.toml
  curl http://127.0.0.1:9464/metrics")]
pub struct Args {
    /// The configuration file
    #[arg(short, long, env = "STRONGROOM_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// The archive, instead of the configuration's location
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    archive: Option<String>,
    /// Confirm that this machine's clock is right, although it is behind the newest commit of the
    /// archive, or more than a day ahead of everything that shows the time
    #[arg(long)]
    clock_is_right: bool,
    #[command(flatten)]
    key: KeyArgs,
}

pub fn run(args: Args) -> Result<u8, CliError> {
    allocator::give_pages_back();
    let mut config = Config::read(&args.config, args.archive.as_deref())?;
    let redactor = config.redact.take().map(config::redact::redactor).transpose()?;
    for webhook in &mut config.webhooks {
        webhook.redactor.clone_from(&redactor);
    }
    config.live.redactor.clone_from(&redactor);
    config.live.clock_is_right = args.clock_is_right;
    let rules = Arc::new(ingest::load_rules(!config.builtin_rules, &config.rules)?);
    start_log(&config.log)?;
    if let Some(redactor) = &redactor {
        // `redactor` has called this before the log was started. The second call repeats a warning,
        // so that it is in the log.
        config::redact::guard_memory();
        tracing::info!(
            policy = format!("{:016x}", redactor.id()),
            "events are redacted before they are written"
        );
    }
    let (output, dropped_alerts, writer) = start_alerts(&config)?;
    let metrics = Arc::new(Metrics::default());
    if let Some(redactor) = &redactor {
        let _ = metrics.redaction_policy.set(redactor.id());
    }
    let state = Arc::new(State::new(Arc::clone(&metrics), dropped_alerts));
    if let AlertOutput::Outbox(sinks) = &output {
        state.set_sinks(sinks.outbox_counters(), sinks.counters());
    }
    if let Some(listen) = config.observe.listen {
        let bound = observe::start(listen, config.observe.token.clone(), Arc::clone(&state))?;
        tracing::info!(address = %bound, "metrics and health are served");
    }
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(&stop)?;

    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    for options in config.tails.clone() {
        sources.push(Box::new(Tail::new(options)));
    }
    let mut webhooks = Vec::new();
    for options in config.webhooks.clone() {
        let name = options.name.clone();
        let (webhook, source) = Webhook::start(options).map_err(CliError::failure)?;
        tracing::info!(source = name, address = %webhook.address(), "webhook listens");
        state.add_webhook(name, webhook.counters());
        webhooks.push(webhook);
        sources.push(Box::new(source));
    }
    for options in config.kafkas.clone() {
        sources.push(Box::new(KafkaSource::new(options).map_err(CliError::input)?));
    }
    for source in &sources {
        metrics.source(source.name());
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        archive = %config.archive,
        sources = sources.len(),
        rules = rules.rules().len(),
        "started"
    );
    let (location, store) = (config.archive.clone(), config.store.clone());
    // The command line and the environment override the file.
    let signer = args.key.signer()?.or_else(|| config.signer.clone());
    let public_key = signer.as_ref().map(|signer| signer.public());
    let anchoring = start_anchors(&config, &state)?;
    // If the archive disappears later, its disk was probably unmounted. It must not be replaced by
    // a new archive.
    let was_open = std::cell::Cell::new(false);
    let open = move || {
        let archive = if was_open.get() {
            Archive::open_with(&location, &store)?
        } else {
            Archive::open_or_create_named(&location, &store, public_key)?
        };
        was_open.set(true);
        Ok(match &signer {
            Some(signer) => archive.signed_by(Arc::clone(signer)),
            None => archive,
        })
    };
    let mut observer = Watch {
        output,
        anchoring,
        contradicted: HashSet::new(),
        retry_queue: Vec::new(),
        severity: config.alerts.severity,
        silence: config.silence,
        silent: HashSet::new(),
        rejects: BTreeMap::new(),
        rejects_reported: None,
        clock_is_doubted: false,
        started: Instant::now(),
        checked: Instant::now(),
        clock: ClockWatch::new(),
        state,
        metrics: Arc::clone(&metrics),
    };
    let rules = Arc::new(LiveRules::new(rules));
    let reload = Reload {
        rules: Arc::clone(&rules),
        builtin: config.builtin_rules,
        paths: config.rules,
        watch: config.rules_watch,
        metrics: Arc::clone(&metrics),
    };
    reload.start()?;
    let run = live::Run { rules: &rules, options: &config.live, metrics: &metrics, stop: &stop };
    let drained = live::serve(&open, &run, sources, &mut observer);
    for webhook in webhooks {
        webhook.shutdown(WEBHOOK_CLOSE);
    }
    observer.send_queued();
    if let Some(anchoring) = observer.anchoring.take() {
        anchoring.finish();
    }
    let written = match observer.output {
        // The writer ends when the last sender is dropped.
        AlertOutput::Queue { alerts, .. } => {
            drop(alerts);
            writer.map_or(Ok(()), Writing::finish)
        }
        AlertOutput::Outbox(sinks) => {
            if !sinks.finish() {
                tracing::warn!(
                    "alerts remain in the outbox for sinks that did not accept them; they are sent after the next start"
                );
            }
            Ok(())
        }
    };
    match drained.map_err(ingest_error)? {
        Drained::Complete => tracing::info!("stopped; everything read is sealed"),
        Drained::TimedOut { unsealed } => {
            tracing::warn!(unsealed, "stopped before everything was sealed; the rest is read again");
            return Ok(exit::FINDING);
        }
    }
    written.map(|()| exit::OK).map_err(CliError::failure)
}

/// Starts the thread that has checkpoints cosigned by witnesses and stamped by authorities, if any
/// are configured.
fn start_anchors(config: &Config, state: &State) -> Result<Option<Anchoring>, CliError> {
    if config.witnesses.is_empty() && config.timestamps.is_empty() {
        return Ok(None);
    }
    let mut made = Vec::new();
    for witness in &config.witnesses {
        let cannot = || format!("cannot ask the witness {}", witness.key.name());
        made.push(witness.make().with_context(cannot).map_err(CliError::input)?);
    }
    let mut authorities = Vec::new();
    for authority in &config.timestamps {
        let cannot = || format!("cannot ask {}", authority.url);
        authorities.push(authority.make().with_context(cannot).map_err(CliError::input)?);
    }
    let names = config.witnesses.iter().map(|witness| witness.key.name().to_owned());
    let names = names.chain(config.timestamps.iter().map(TimestampConfig::name)).collect();
    let (location, store) = (config.archive.clone(), config.store.clone());
    let open = move || Archive::open_with(&location, &store);
    let anchoring = Anchoring::start(Anchors::new(made, authorities), names, open)?;
    state.set_anchors(anchoring.counters());
    let (witnesses, timestamps) = (config.witnesses.len(), config.timestamps.len());
    tracing::info!(witnesses, timestamps, "checkpoints are anchored");
    Ok(Some(anchoring))
}

pub fn start_log(log: &config::Log) -> Result<(), CliError> {
    let ours = LevelFilter::from_level(log.level);
    // Messages of libraries are for debugging.
    let theirs = if log.level >= tracing::Level::DEBUG { ours } else { LevelFilter::ERROR };
    // A target matches by prefix, so this one covers all our crates.
    let targets = Targets::new().with_default(theirs).with_target("strongroom", ours);
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(term::log).with_target(false);
    let started = match log.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()
        }
    };
    started.context("cannot start the log").map_err(CliError::failure)
}

/// The first SIGTERM or SIGINT stops the process in order; the second stops it at once.
fn stop_on_signals(stop: &Arc<AtomicBool>) -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for signals")?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        let on = |kind| signal(kind).context("cannot wait for signals");
        (on(SignalKind::terminate())?, on(SignalKind::interrupt())?)
    };
    let stop = Arc::clone(stop);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    let received = tokio::select! {
                        received = terminate.recv() => received,
                        received = interrupt.recv() => received,
                    };
                    if received.is_none() {
                        return;
                    }
                    if stop.swap(true, Ordering::Relaxed) {
                        #[expect(
                            clippy::disallowed_methods,
                            reason = "the second signal asks for an end at once"
                        )]
                        std::process::exit(i32::from(exit::INTERRUPTED));
                    }
                    tracing::info!("stopping: sealing what is in progress");
                }
            });
        })
        .context("cannot start the thread that waits for signals")?;
    Ok(())
}

/// Where alerts leave the process.
enum AlertOutput {
    /// To a thread that writes them as they arrive. An alert that arrives while the queue is full
    /// is only in the archive.
    Queue {
        alerts: Sender<Alert>,
        dropped_alerts: Arc<AtomicU64>,
    },
    Outbox(Sinks),
}

fn start_alerts(config: &Config) -> Result<(AlertOutput, Arc<AtomicU64>, Option<Writing>), CliError> {
    let Some(outbox) = config.outbox.clone() else {
        let (alerts, writing) = start_writer(&config.alerts)?;
        let dropped_alerts = Arc::<AtomicU64>::default();
        return Ok((
            AlertOutput::Queue { alerts, dropped_alerts: Arc::clone(&dropped_alerts) },
            dropped_alerts,
            Some(writing),
        ));
    };
    let mut made = Vec::new();
    for sink in config::sinks::of_alerts(&config.alerts).into_iter().chain(config.sinks.iter().cloned()) {
        let cannot = || format!("cannot make the sink {}", sink.lane.name);
        made.push((sink.lane.clone(), sink.make().with_context(cannot).map_err(CliError::input)?));
    }
    let (location, store) = (config.archive.clone(), config.store.clone());
    let history = ArchiveHistory::new(move || Archive::open_with(&location, &store));
    let folder = outbox.folder.display().to_string();
    let sinks = Sinks::start(outbox, made, history).context("cannot use the outbox").map_err(|error| {
        CliError::failure(error).with_hint("[outbox] folder in the configuration names its folder")
    })?;
    tracing::info!(folder, sinks = sinks.counters().len(), "alerts go through the outbox");
    Ok((AlertOutput::Outbox(sinks), Arc::default(), None))
}

/// The thread that writes alerts, and its result.
struct Writing(Receiver<anyhow::Result<()>>);

impl Writing {
    /// Waits for the queued alerts, but not for a reader that has stopped reading.
    fn finish(self) -> anyhow::Result<()> {
        self.0.recv_timeout(ALERTS_FINISH).unwrap_or_else(|_| {
            tracing::warn!("the reader of alerts has stopped; the remaining alerts are in the archive");
            Ok(())
        })
    }
}

fn start_writer(options: &config::Alerts) -> Result<(Sender<Alert>, Writing), CliError> {
    let file = match &options.file {
        Some(path) => {
            let opened = File::options().create(true).append(true).open(path);
            let cannot = || format!("cannot open {} for alerts", path.display());
            Some((path.clone(), opened.with_context(cannot).map_err(CliError::input)?))
        }
        None => None,
    };
    let stdout = options.stdout;
    let (alerts, queue) = bounded(ALERTS_QUEUE);
    let (done, writing) = bounded(1);
    std::thread::Builder::new()
        .name("alerts".to_owned())
        // The receiver may have stopped waiting.
        .spawn(move || _ = done.send(write_alerts(&queue, file, stdout)))
        .context("cannot start the thread that writes alerts")?;
    Ok((alerts, Writing(writing)))
}

fn write_alerts(
    queue: &Receiver<Alert>,
    mut file: Option<(PathBuf, File)>,
    mut stdout: bool,
) -> anyhow::Result<()> {
    let mut first = Ok(());
    for alert in queue {
        let line = finding_line(&alert);
        if let Some((path, file)) = &mut file
            && let Err(error) = file.write_all(&line)
        {
            // The disk may have room again for the next alert.
            tracing::error!(%error, file = %path.display(), "cannot write an alert; it is in the archive");
            first =
                first.and(Err(error).with_context(|| format!("cannot write alerts to {}", path.display())));
        }
        if stdout {
            let mut out = term::data();
            if let Err(error) = out.write_all(&line).and_then(|()| out.flush()) {
                tracing::warn!(%error, "standard output is gone; alerts no longer go there");
                stdout = false;
            }
        }
    }
    first
}

/// Observes the pipeline.
struct Watch {
    output: AlertOutput,
    anchoring: Option<Anchoring>,
    /// Witnesses that contradict the archive and have been reported.
    contradicted: HashSet<String>,
    /// Alerts about the pipeline itself for which there was no room.
    retry_queue: Vec<Alert>,
    severity: strongroom_schemas::Severity,
    silence: Vec<(String, Duration)>,
    /// Silent sources.
    silent: HashSet<String>,
    /// The rejects, by reason, that have been reported, and when the last ones were.
    rejects: BTreeMap<String, u64>,
    rejects_reported: Option<Instant>,
    /// Whether it has been reported that nothing is sealed because of the clock.
    clock_is_doubted: bool,
    started: Instant,
    checked: Instant,
    clock: ClockWatch,
    state: Arc<State>,
    metrics: Arc<Metrics>,
}

impl Watch {
    fn send(&self, alert: &Alert) -> bool {
        if alert.severity < self.severity {
            return true;
        }
        match &self.output {
            AlertOutput::Queue { alerts, dropped_alerts } => {
                let accepted = alerts.try_send(alert.clone()).is_ok();
                dropped_alerts.fetch_add(u64::from(!accepted), Ordering::Relaxed);
                accepted
            }
            AlertOutput::Outbox(sinks) => sinks.hand_over(alert),
        }
    }

    /// Sends an alert that no archive has. If there is no room for it, it waits in `retry_queue`.
    fn send_own(&mut self, alert: Alert) {
        if !self.send(&alert) && self.retry_queue.len() < RETRY_QUEUE_MAX {
            self.retry_queue.push(alert);
        }
    }

    fn send_queued(&mut self) {
        for alert in std::mem::take(&mut self.retry_queue) {
            self.send_own(alert);
        }
    }

    fn check_silence(&mut self) {
        for (name, bound) in self.silence.clone() {
            let Some(since) = self.metrics.source(&name).quiet_since() else {
                // The source has no partition now: another member of its Kafka group reads them.
                self.silent.remove(&name);
                continue;
            };
            if since.elapsed() <= bound {
                if self.silent.remove(&name) {
                    tracing::info!(source = name, "the source is active again");
                }
                continue;
            }
            if self.silent.insert(name.clone()) {
                let now = Utc::now().timestamp_micros();
                let ago = i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX);
                tracing::error!(source = name, bound_s = bound.as_secs(), "the source fell silent");
                self.send_own(own::source_silent(&name, now.saturating_sub(ago), now, bound));
            }
        }
    }

    fn check_rejects(&mut self) {
        if self.rejects_reported.is_some_and(|reported| reported.elapsed() < REJECTS_INTERVAL) {
            return;
        }
        let hiding: Vec<&str> = Reason::ALL
            .iter()
            .filter(|reason| reason.may_hide_an_event())
            .map(|reason| reason.as_str())
            .collect();
        let rejects = self.metrics.rejects();
        let count_of = |reason: &str, known: &BTreeMap<String, u64>| known.get(reason).copied().unwrap_or(0);
        let new: BTreeMap<String, u64> = hiding
            .into_iter()
            .map(|reason| (reason.to_owned(), count_of(reason, &rejects) - count_of(reason, &self.rejects)))
            .filter(|(_, count)| *count > 0)
            .collect();
        if new.is_empty() {
            return;
        }
        let since = self.rejects_reported.replace(Instant::now()).unwrap_or(self.started);
        self.rejects = rejects;
        let now = Utc::now().timestamp_micros();
        let ago = i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.send_own(own::records_rejected(&new, now.saturating_sub(ago), now));
    }

    fn check_clock(&mut self) {
        let is_doubted = self.metrics.clock_doubted.load(Ordering::Relaxed);
        if is_doubted && !self.clock_is_doubted {
            let what = self.metrics.trouble().unwrap_or_default();
            tracing::error!(reason = %what, "nothing is sealed until the system clock is right");
            self.send_own(own::clock_doubted(&what, Utc::now().timestamp_micros()));
        } else if !is_doubted && self.clock_is_doubted {
            tracing::info!("the system clock is no longer doubted");
        }
        self.clock_is_doubted = is_doubted;
    }

    fn check_contradictions(&mut self) {
        for (name, counters) in self.anchoring.as_ref().map(Anchoring::counters).unwrap_or_default() {
            if !counters.contradicts.load(Ordering::Relaxed) {
                self.contradicted.remove(&name);
            } else if self.contradicted.insert(name.clone()) {
                self.send_own(own::history_contradicted(&name, Utc::now().timestamp_micros()));
            }
        }
    }
}

impl LiveObserver for Watch {
    fn alert(&mut self, alert: &Alert) {
        // An alert for which there is no room is read from the archive later.
        let _ = self.send(alert);
    }

    fn sealed(&mut self, report: &SealReport, _: &Counts) {
        if let AlertOutput::Outbox(sinks) = &self.output {
            sinks.sealed(&mark_of(report));
        }
        if let Some(anchoring) = &self.anchoring {
            anchoring.sealed();
        }
    }

    fn conservation_failed(&mut self, what: &str) {
        self.send_own(own::conservation_failed(what, Utc::now().timestamp_micros()));
    }

    fn tick(&mut self, _metrics: &Metrics) {
        self.state.alive();
        self.send_queued();
        if self.checked.elapsed() >= SILENCE_TICK {
            self.checked = Instant::now();
            self.check_silence();
            self.check_contradictions();
            self.check_clock();
            self.check_rejects();
            match self.clock.step() {
                Some(Step::Back(by)) => tracing::error!(
                    by_s = by.as_secs(),
                    "the system clock was set back; times of arrival are wrong until it is right again"
                ),
                Some(Step::Ahead(by)) => {
                    tracing::warn!(by_s = by.as_secs(), "the system clock was set ahead")
                }
                None => {}
            }
        }
    }
}
