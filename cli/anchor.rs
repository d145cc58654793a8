//! Asks an archive's anchors: the witnesses that cosign its checkpoints, and the authorities that
//! timestamp them. This file decides which anchors are asked, and when the daemon asks them.
//!
//! Invariant: the daemon asks on a thread of its own. A seal is complete when its files, commits
//! and signature are there, so no outside party can delay it. A crash loses nothing: the next round
//! asks about every checkpoint that is signed and not anchored.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use strongroom_archive::{Archive, ArchiveError};
use strongroom_proof::{
    AnchorError, AnchorResponse, AnchorTransport, Anchored, Anchors, TimestampOptions, WitnessOptions,
};
use strongroom_schemas::error_chain;
use strongroom_sinks::http::{HttpOptions, PostClient};
use strongroom_sinks::{SinkError, TlsOptions};
use strongroom_tlog::{TimestampAuthorities, WitnessKey};

use crate::exit::{CliError, proof_error};
use crate::term;

/// The first wait after a round that did not reach every anchor; it doubles up to [`AGAIN_MAX`].
const AGAIN_MIN: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(300);
/// Maximum time between two rounds while this process seals nothing. Another process may have
/// signed checkpoints in the meantime.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// Time for the last round when the process stops.
const FINISH: Duration = Duration::from_secs(10);
/// Maximum number of witnesses of one archive.
pub const WITNESSES_MAX: usize = 64;

/// Witnesses and timestamp authorities to ask.
#[derive(clap::Args, Clone)]
pub struct WitnessArgs {
    /// Have the checkpoints cosigned by a witness: its vkey and its URL (repeatable)
    #[arg(long = "witness", value_name = "VKEY@URL", value_parser = address)]
    witnesses: Vec<Address>,
    /// PEM file of the certificate authorities for the witnesses' TLS [default: the system's]
    #[arg(long, value_name = "FILE", requires = "witnesses")]
    witness_ca: Option<PathBuf>,
    /// Have the checkpoints stamped by the RFC 3161 authority at this URL (repeatable)
    #[arg(long = "timestamp", value_name = "URL", requires = "tsa_ca")]
    timestamps: Vec<String>,
    /// PEM file of the certificate authorities that timestamps must chain to
    #[arg(long, value_name = "FILE")]
    tsa_ca: Option<PathBuf>,
}

/// A witness as named on the command line.
#[derive(Clone, Debug)]
pub struct Address {
    key: WitnessKey,
    url: String,
}

fn address(text: &str) -> Result<Address, String> {
    let (key, url) = WitnessOptions::split(text).map_err(|error| error.to_string())?;
    HttpOptions::new(url, TlsOptions::default(), false).map_err(|error| error.to_string())?;
    Ok(Address { key, url: url.to_owned() })
}

/// Parses the verifier key (vkey) of a witness; for clap.
pub fn witness_key(text: &str) -> Result<WitnessKey, String> {
    WitnessKey::parse(text).map_err(|error| error.to_string())
}

impl WitnessArgs {
    pub fn anchors(&self) -> Result<Anchors, CliError> {
        let mut made = Vec::new();
        for Address { key, url } in &self.witnesses {
            let tls = TlsOptions { ca_file: self.witness_ca.clone(), identity: None };
            let witness = WitnessConfig::new(key.clone(), url, tls).and_then(|config| config.make());
            made.push(
                witness
                    .with_context(|| format!("cannot ask the witness {}", key.name()))
                    .map_err(CliError::input)?,
            );
        }
        let mut authorities = Vec::new();
        if let Some(path) = &self.tsa_ca {
            let trusted = timestamp_authorities(path)?;
            for url in &self.timestamps {
                let config =
                    TimestampConfig::new(url, TlsOptions::default(), trusted.clone(), Duration::ZERO);
                let authority = config.and_then(|config| config.make());
                authorities
                    .push(authority.with_context(|| format!("cannot ask {url}")).map_err(CliError::input)?);
            }
        }
        Ok(Anchors::new(made, authorities))
    }
}

/// Reads a PEM file of the certificate authorities that are trusted to issue timestamps.
pub fn timestamp_authorities(path: &Path) -> Result<TimestampAuthorities, CliError> {
    let cannot = || format!("cannot use {}", path.display());
    let pem = std::fs::read(path).with_context(cannot).map_err(CliError::input)?;
    TimestampAuthorities::from_pem(&pem).with_context(cannot).map_err(CliError::input)
}

/// A timestamp authority as configured; [`TimestampConfig::make`] makes its client.
#[derive(Clone, Debug)]
pub struct TimestampConfig {
    pub url: String,
    http: HttpOptions,
    authorities: TimestampAuthorities,
    interval: Duration,
}

impl TimestampConfig {
    /// # Errors
    /// When `url` is not a valid http or https URL.
    pub fn new(
        url: &str,
        tls: TlsOptions,
        authorities: TimestampAuthorities,
        interval: Duration,
    ) -> Result<TimestampConfig, SinkError> {
        let http = HttpOptions::new(url, tls, false)?;
        Ok(TimestampConfig { url: url.to_owned(), http, authorities, interval })
    }

    /// Returns the name of the authority in messages and metrics.
    pub fn name(&self) -> String {
        self.http.url.host_str().unwrap_or(&self.url).to_owned()
    }

    /// Makes the client; connects to nothing.
    pub fn make(&self) -> Result<TimestampOptions, SinkError> {
        Ok(TimestampOptions {
            name: self.name(),
            url: self.url.clone(),
            transport: Arc::new(Carrier(PostClient::new(&self.http)?)),
            authorities: self.authorities.clone(),
            interval: self.interval,
        })
    }
}

/// A witness as configured; [`WitnessConfig::make`] makes its client.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    pub key: WitnessKey,
    http: HttpOptions,
}

impl WitnessConfig {
    /// The witness with this key, at `url`. Plain http is allowed, because everything sent to a
    /// witness is public.
    ///
    /// # Errors
    /// When `url` is not a valid http or https URL.
    pub fn new(key: WitnessKey, url: &str, tls: TlsOptions) -> Result<WitnessConfig, SinkError> {
        Ok(WitnessConfig { key, http: HttpOptions::new(url, tls, false)? })
    }

    /// Makes the client; connects to nothing.
    pub fn make(&self) -> Result<WitnessOptions, SinkError> {
        Ok(WitnessOptions {
            key: self.key.clone(),
            transport: Arc::new(Carrier(PostClient::new(&self.http)?)),
        })
    }
}

struct Carrier(PostClient);

impl AnchorTransport for Carrier {
    fn post(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<AnchorResponse, String> {
        let (status, body) = self.0.send(path, content_type, body)?;
        Ok(AnchorResponse { status, body })
    }
}

/// Counters of one witness or authority.
#[derive(Debug, Default)]
pub struct AnchorCounters {
    pub made: AtomicU64,
    pub troubles: AtomicU64,
    /// Signed commits that the anchor should have cosigned or stamped, but has not.
    pub lag: AtomicU64,
    /// Whether the last round succeeded and agreed with the archive.
    pub is_well: AtomicBool,
    pub contradicts: AtomicBool,
}

/// The thread that has checkpoints cosigned and stamped.
pub struct Anchoring {
    wake: Sender<()>,
    done: Receiver<()>,
    counters: Vec<(String, Arc<AnchorCounters>)>,
}

impl Anchoring {
    /// Starts the thread. It first anchors the checkpoints that earlier runs left without an
    /// anchor.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        anchors: Anchors,
        names: Vec<String>,
        open: impl Fn() -> Result<Archive, ArchiveError> + Send + 'static,
    ) -> Result<Anchoring, CliError> {
        let counters: Vec<_> =
            names.into_iter().map(|name| (name, Arc::<AnchorCounters>::default())).collect();
        // One pending wake-up is enough for any number of seals.
        let (wake, woken) = bounded(1);
        let (ended, done) = bounded(1);
        let rounds =
            Rounds { anchors, open, archive: None, counters: counters.clone(), reported: Vec::new() };
        std::thread::Builder::new()
            .name("anchors".to_owned())
            .spawn(move || {
                rounds.run(&woken);
                // The receiver may have stopped waiting.
                let _ = ended.send(());
            })
            .context("cannot start the anchoring thread")?;
        Ok(Anchoring { wake, done, counters })
    }

    pub fn counters(&self) -> Vec<(String, Arc<AnchorCounters>)> {
        self.counters.clone()
    }

    /// Wakes the thread after a seal. Never waits.
    pub fn sealed(&self) {
        let _ = self.wake.try_send(());
    }

    /// Ends the thread after a last round, and waits for it for at most [`FINISH`].
    pub fn finish(self) {
        drop(self.wake);
        if self.done.recv_timeout(FINISH).is_err() {
            tracing::warn!("not all witnesses answered in time; they are asked again after the next start");
        }
    }
}

struct Rounds<O> {
    anchors: Anchors,
    open: O,
    archive: Option<Archive>,
    counters: Vec<(String, Arc<AnchorCounters>)>,
    /// Messages of the last round, so that each is reported once.
    reported: Vec<String>,
}

impl<O: Fn() -> Result<Archive, ArchiveError>> Rounds<O> {
    fn run(mut self, woken: &Receiver<()>) {
        let (mut next, mut again, mut is_well) = (Instant::now(), AGAIN_MIN, true);
        // At the start the pipeline signs the commits that earlier runs left unsigned. So the first
        // rounds follow each other quickly, and later rounds are further apart.
        let mut idle = AGAIN_MIN;
        loop {
            let is_last = match woken.recv_timeout(next.saturating_duration_since(Instant::now())) {
                // An anchor that was unreachable is asked again when the wait is over, and not at
                // every seal.
                Ok(()) if !is_well && Instant::now() < next => continue,
                Ok(()) | Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            is_well = self.round();
            if is_last {
                return;
            }
            next = Instant::now() + if is_well { idle } else { again };
            again = if is_well { AGAIN_MIN } else { (again * 2).min(AGAIN_MAX) };
            idle = (idle * 2).min(IDLE_MAX);
        }
    }

    /// Asks every anchor once. Returns true if everything is anchored.
    fn round(&mut self) -> bool {
        if self.archive.is_none() {
            self.archive = (self.open)().ok();
        }
        // The pipeline makes a missing archive, and reports what is wrong with an existing one. The
        // next seal wakes this thread.
        let Some(archive) = &self.archive else { return true };
        let mut found = Vec::new();
        let outcome = match self.anchors.round(archive) {
            Ok(outcome) => outcome,
            Err(error) => {
                found.push(format!("cannot anchor the proof logs: {}", error_chain(&error)));
                // The next round opens the archive again. By then its store may be reachable.
                self.archive = None;
                Vec::new()
            }
        };
        let is_whole = found.is_empty();
        for anchored in &outcome {
            self.count(anchored);
            found.extend(messages(anchored));
        }
        for message in found.iter().filter(|message| !self.reported.contains(message)) {
            if message.contains(CONTRADICTION) {
                tracing::error!("{message}")
            } else {
                tracing::warn!("{message}")
            }
        }
        if found.is_empty() && !self.reported.is_empty() {
            tracing::info!("everything signed is anchored");
        }
        self.reported = found;
        is_whole && outcome.iter().all(|anchored| anchored.errors.is_empty())
    }

    fn count(&self, anchored: &Anchored) {
        let Some((_, counters)) = self.counters.iter().find(|(name, _)| *name == anchored.name) else {
            return;
        };
        counters.made.fetch_add(anchored.made, Ordering::Relaxed);
        counters.troubles.fetch_add(anchored.errors.len() as u64, Ordering::Relaxed);
        counters.lag.store(anchored.lag, Ordering::Relaxed);
        counters.is_well.store(anchored.errors.is_empty(), Ordering::Relaxed);
        let contradicts =
            anchored.errors.iter().any(|(_, trouble)| matches!(trouble, AnchorError::Contradicted(_)));
        counters.contradicts.store(contradicts, Ordering::Relaxed);
    }
}

/// A part of each message that reports a contradiction, which is more serious than an anchor that
/// cannot be reached.
const CONTRADICTION: &str = "another history";

/// Returns the problems of one anchor as messages. If the anchor cannot be reached, one message
/// covers all logs.
pub fn messages(anchored: &Anchored) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    for (log, trouble) in &anchored.errors {
        let message = match trouble {
            AnchorError::Away(_) => format!("{} {}: {trouble}", anchored.kind, anchored.name),
            _ => format!("{} {}: {}: {trouble}", anchored.kind, anchored.name, log.name()),
        };
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    messages
}

/// Asks every anchor once, for a command that then ends. Prints warnings, and returns true if there
/// were none.
pub fn once(anchors: &Anchors, archive: &Archive) -> Result<bool, CliError> {
    use std::io::Write as _;
    let outcome = anchors.round(archive).map_err(proof_error)?;
    let mut out = term::stderr().lock();
    for anchored in &outcome {
        for message in messages(anchored) {
            writeln!(out, "warning: {}", term::printable(&message))?;
        }
    }
    Ok(outcome.iter().all(|anchored| anchored.errors.is_empty()))
}
