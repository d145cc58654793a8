//! Anchors outside the archive: who is asked, and when the daemon asks.
//!
//! Invariant: asking has a thread of its own. A seal moves on when its files, commits and signature are there; nobody
//! outside can hold it up.

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
use strongroom_sinks::{HttpOptions, Post, SinkError, TlsOptions};
use strongroom_tlog::{TimestampAuthorities, WitnessKey};

use crate::exit::CliError;
use crate::key::proof_error;

/// The first wait after a round that did not reach everybody; it doubles up to [`AGAIN_MAX`].
const AGAIN_MIN: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(300);
/// How often the logs are looked at in the end when nothing is sealed here: another process may have signed.
const LOOK: Duration = Duration::from_secs(300);
/// Time for the last round at a stop.
const FINISH: Duration = Duration::from_secs(10);
/// Most witnesses of one archive.
pub const WITNESSES_MAX: usize = 64;

/// Who is asked for cosignatures.
#[derive(clap::Args, Clone)]
pub struct WitnessArgs {
    /// Have the checkpoints cosigned by a witness: its vkey and the address it is asked at (repeatable)
    #[arg(long = "witness", value_name = "VKEY@URL", value_parser = address)]
    witnesses: Vec<Address>,
    /// PEM file of the authorities for witnesses' TLS [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "witnesses")]
    witness_ca: Option<PathBuf>,
    /// Have the checkpoints stamped by the RFC 3161 authority at this address (repeatable)
    #[arg(long = "timestamp", value_name = "URL", requires = "tsa_ca")]
    timestamps: Vec<String>,
    /// PEM file of the authorities that timestamps must lead to
    #[arg(long, value_name = "FILE")]
    tsa_ca: Option<PathBuf>,
}

/// A witness as the command line names it.
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

/// Reads the vkey of a witness.
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

/// Reads the authorities of timestamps.
pub fn timestamp_authorities(path: &Path) -> Result<TimestampAuthorities, CliError> {
    let cannot = || format!("cannot use {}", path.display());
    let pem = std::fs::read(path).with_context(cannot).map_err(CliError::input)?;
    TimestampAuthorities::from_pem(&pem).with_context(cannot).map_err(CliError::input)
}

/// An authority for timestamps, before it is asked.
#[derive(Clone, Debug)]
pub struct TimestampConfig {
    pub url: String,
    http: HttpOptions,
    authorities: TimestampAuthorities,
    interval: Duration,
}

impl TimestampConfig {
    /// # Errors
    /// When the address is no http or https URL.
    pub fn new(
        url: &str,
        tls: TlsOptions,
        authorities: TimestampAuthorities,
        interval: Duration,
    ) -> Result<TimestampConfig, SinkError> {
        let http = HttpOptions::new(url, tls, false)?;
        Ok(TimestampConfig { url: url.to_owned(), http, authorities, interval })
    }

    /// What it is called in messages and metrics.
    pub fn name(&self) -> String {
        self.http.url.host_str().unwrap_or(&self.url).to_owned()
    }

    /// Makes what asks; connects to nothing.
    pub fn make(&self) -> Result<TimestampOptions, SinkError> {
        Ok(TimestampOptions {
            name: self.name(),
            url: self.url.clone(),
            transport: Arc::new(Carrier(Post::new(&self.http)?)),
            authorities: self.authorities.clone(),
            interval: self.interval,
        })
    }
}

/// A witness, before it is asked.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    pub key: WitnessKey,
    http: HttpOptions,
}

impl WitnessConfig {
    /// Checks an address; what goes there is public.
    ///
    /// # Errors
    /// When it is no http or https URL.
    pub fn new(key: WitnessKey, url: &str, tls: TlsOptions) -> Result<WitnessConfig, SinkError> {
        Ok(WitnessConfig { key, http: HttpOptions::new(url, tls, false)? })
    }

    /// Makes what asks; connects to nothing.
    pub fn make(&self) -> Result<WitnessOptions, SinkError> {
        Ok(WitnessOptions { key: self.key.clone(), transport: Arc::new(Carrier(Post::new(&self.http)?)) })
    }
}

struct Carrier(Post);

impl AnchorTransport for Carrier {
    fn post(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<AnchorResponse, String> {
        let (status, body) = self.0.send(path, content_type, body)?;
        Ok(AnchorResponse { status, body })
    }
}

/// What is counted of one witness or authority.
#[derive(Debug, Default)]
pub struct AnchorCounters {
    pub made: AtomicU64,
    pub troubles: AtomicU64,
    /// Commits under a signature that it should have cosigned or stamped.
    pub lag: AtomicU64,
    /// Whether the last round found it and the archive of one mind.
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
    /// Begins with what earlier runs have left.
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
        // One note that something was sealed stands for all of them.
        let (wake, woken) = bounded(1);
        let (ended, done) = bounded(1);
        let rounds = Rounds { anchors, open, archive: None, counters: counters.clone(), told: Vec::new() };
        std::thread::Builder::new()
            .name("anchors".to_owned())
            .spawn(move || {
                rounds.run(&woken);
                // Who waits for the end may have given up.
                let _ = ended.send(());
            })
            .context("cannot start the thread that asks witnesses")?;
        Ok(Anchoring { wake, done, counters })
    }

    pub fn counters(&self) -> Vec<(String, Arc<AnchorCounters>)> {
        self.counters.clone()
    }

    /// Something was sealed. Never waits.
    pub fn sealed(&self) {
        let _ = self.wake.try_send(());
    }

    /// Has the last seal cosigned, if the witnesses are quick.
    pub fn finish(self) {
        drop(self.wake);
        if self.done.recv_timeout(FINISH).is_err() {
            tracing::warn!(
                "not all witnesses have answered in time; they are asked again after the next start"
            );
        }
    }
}

struct Rounds<O> {
    anchors: Anchors,
    open: O,
    archive: Option<Archive>,
    counters: Vec<(String, Arc<AnchorCounters>)>,
    /// What was wrong in the last round, so that it is told once.
    told: Vec<String>,
}

impl<O: Fn() -> Result<Archive, ArchiveError>> Rounds<O> {
    fn run(mut self, woken: &Receiver<()>) {
        let (mut next, mut again, mut is_well) = (Instant::now(), AGAIN_MIN, true);
        // At a start the pipeline signs what earlier runs have left unsigned: it is looked at soon, then less often.
        let mut look = AGAIN_MIN;
        loop {
            let is_last = match woken.recv_timeout(next.saturating_duration_since(Instant::now())) {
                // Somebody who is away is asked again in their time, not with every seal.
                Ok(()) if !is_well && Instant::now() < next => continue,
                Ok(()) | Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            is_well = self.round();
            if is_last {
                return;
            }
            next = Instant::now() + if is_well { look } else { again };
            again = if is_well { AGAIN_MIN } else { (again * 2).min(AGAIN_MAX) };
            look = (look * 2).min(LOOK);
        }
    }

    /// Returns whether all is anchored.
    fn round(&mut self) -> bool {
        if self.archive.is_none() {
            self.archive = (self.open)().ok();
        }
        // The pipeline makes an archive that is not there yet, and says what is wrong with one that is. Its next seal
        // calls us.
        let Some(archive) = &self.archive else { return true };
        let mut found = Vec::new();
        let outcome = match self.anchors.round(archive) {
            Ok(outcome) => outcome,
            Err(error) => {
                found.push(format!("cannot anchor the proof logs: {}", crate::exit::causes(&error)));
                // Its store may be reached in another way next time.
                self.archive = None;
                Vec::new()
            }
        };
        let is_whole = found.is_empty();
        for anchored in &outcome {
            self.count(anchored);
            found.extend(messages(anchored));
        }
        for message in found.iter().filter(|message| !self.told.contains(message)) {
            match message.contains(CONTRADICTION) {
                true => tracing::error!("{message}"),
                false => tracing::warn!("{message}"),
            }
        }
        if found.is_empty() && !self.told.is_empty() {
            tracing::info!("all that is signed is anchored");
        }
        self.told = found;
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

/// What a message has in it that says more than that somebody is away.
const CONTRADICTION: &str = "another history";

/// What is wrong with one witness, in words; one message for all logs that it is away for.
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

/// One round for a command that ends; says what is wrong, and returns whether all is well.
pub fn once(anchors: &Anchors, archive: &Archive) -> Result<bool, CliError> {
    use std::io::Write as _;
    let outcome = anchors.round(archive).map_err(proof_error)?;
    let mut out = anstream::stderr().lock();
    for anchored in &outcome {
        for message in messages(anchored) {
            writeln!(out, "warning: {}", crate::term::printable(&message))?;
        }
    }
    Ok(outcome.iter().all(|anchored| anchored.errors.is_empty()))
}
