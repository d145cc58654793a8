//! Asks outside parties for statements about the signed logs: cosignatures of witnesses (the client
//! side of C2SP tlog-witness), and timestamps of authorities (RFC 3161).
//!
//! Invariants:
//! 1. Anchoring follows signing and never delays it. If a witness was unreachable, a later round
//!    asks it for one cosignature of everything that was signed in the meantime.
//! 2. An answer is stored only after it was checked with the key or the authorities in the
//!    configuration. It is stored as a separate object, so a checkpoint is never written again.
//! 3. A contradiction by a witness is reported as a contradiction, never as a temporary failure.
//!
//! A restart loses nothing: the names of the stored answers show what was anchored.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use bytes::Bytes;
use chrono::Utc;
use strongroom_archive::Archive;
use strongroom_archive::error::{LogError, with_causes};
use strongroom_archive::log::{consistency, newest_note, timestamp_folder, witness_folder};
use strongroom_archive::records::{drops, keys};
use strongroom_archive::site::Site;
use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_store::background;
use strongroom_tlog::checkpoint::{TreeHead, checkpoint_name, parse_checkpoint_name, parse_timestamp_name};
use strongroom_tlog::cosignature::WitnessKey;
use strongroom_tlog::keys::Keys;
use strongroom_tlog::note::{Note, line};
use strongroom_tlog::timestamp::{self, TimestampAuthorities};

use super::error::ProofError;
use super::witness::{Submission, split_key};

/// Maximum number of requests to one witness for one log in one round. More than one is needed if
/// the witness replies with the size from which it wants a proof.
const ATTEMPTS_MAX: usize = 4;
/// Maximum number of seconds by which the clock of a witness may be ahead of this machine's clock,
/// and by which the clock of a timestamp authority may differ from this machine's clock.
const CLOCK_AHEAD_SECONDS_MAX: u64 = 600;
/// Maximum number of characters of an answer that are shown.
const SHOWN_CHARS_MAX: usize = 200;

/// Sends requests to one server and returns its answers.
pub trait AnchorTransport: Send + Sync {
    /// POSTs `body` to a path below the server's address, and waits. Reads a limited number of
    /// bytes of the answer.
    ///
    /// # Errors
    /// A description, if there was no answer.
    fn post(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<AnchorResponse, String>;
}

/// The answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorResponse {
    /// The HTTP status.
    pub status: u16,
    pub body: Vec<u8>,
}

impl AnchorResponse {
    fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let plain = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
        let text: String = plain.take(SHOWN_CHARS_MAX).collect();
        if text.is_empty() {
            format!("HTTP {}", self.status)
        } else {
            format!("HTTP {}: {text}", self.status)
        }
    }
}

/// A witness to ask for cosignatures.
#[derive(Clone)]
pub struct WitnessOptions {
    pub key: WitnessKey,
    pub transport: Arc<dyn AnchorTransport>,
}

impl WitnessOptions {
    /// Splits `<vkey>@<URL>`.
    ///
    /// # Errors
    /// [`ProofError::WitnessAddress`] for anything else.
    pub fn split(text: &str) -> Result<(WitnessKey, &str), ProofError> {
        let split = split_key(text, |key| WitnessKey::parse(key).ok());
        split.filter(|(_, url)| !url.is_empty()).ok_or(ProofError::WitnessAddress)
    }
}

impl fmt::Debug for WitnessOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WitnessOptions").field("key", &self.key.to_string()).finish_non_exhaustive()
    }
}

/// An authority to ask for timestamps.
#[derive(Clone)]
pub struct TimestampOptions {
    /// Name for people.
    pub name: String,
    /// The address of the server. The names of its timestamps contain a part of the address's hash,
    /// which distinguishes them from the timestamps of other authorities.
    pub url: String,
    pub transport: Arc<dyn AnchorTransport>,
    /// The certificate authorities to which the certificates of the timestamp authority must lead.
    pub authorities: TimestampAuthorities,
    /// Minimum time between two timestamps of one log.
    pub interval: Duration,
}

impl fmt::Debug for TimestampOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimestampOptions").field("url", &self.url).finish_non_exhaustive()
    }
}

impl TimestampOptions {
    /// Returns the id of this authority in the names of its timestamps.
    fn id(&self) -> String {
        Hash::of(self.url.as_bytes()).to_string()[..8].to_owned()
    }
}

/// Why a log is not anchored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnchorError {
    /// There was no answer, or an answer that asks to try again. No action is needed.
    Away(String),
    /// The server refused: its configuration and ours do not match.
    Refused(String),
    /// The witness has cosigned a history of the log that differs from the archive's, or says that
    /// it has.
    Contradicted(String),
    /// The archive could not be read or written.
    Archive(String),
}

impl fmt::Display for AnchorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnchorError::Away(what) => write!(f, "no answer: {what}"),
            AnchorError::Refused(what) => write!(f, "refused: {what}"),
            AnchorError::Contradicted(what) => write!(f, "it has seen another history: {what}"),
            AnchorError::Archive(what) => write!(f, "{what}"),
        }
    }
}

impl From<ProofError> for AnchorError {
    fn from(error: ProofError) -> Self {
        AnchorError::Archive(with_causes(&error))
    }
}

impl From<LogError> for AnchorError {
    fn from(error: LogError) -> Self {
        AnchorError::Archive(with_causes(&error))
    }
}

/// The state of one witness or authority after a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchored {
    /// Its kind: `witness`, or `timestamp authority`.
    pub kind: &'static str,
    pub name: String,
    /// Number of checkpoints that it cosigned or stamped in this round.
    pub made: u64,
    /// Number of commits, in the logs of `errors`, that are under no checkpoint that it has
    /// cosigned or stamped.
    pub lag: u64,
    /// The logs that are not up to date, and why; contradictions come first.
    pub errors: Vec<(VolumeId, AnchorError)>,
}

/// All witnesses and authorities that anchor an archive's logs.
#[derive(Debug)]
pub struct Anchors {
    witnesses: Vec<WitnessOptions>,
    authorities: Vec<TimestampOptions>,
    /// Logs that need no further rounds: completely anchored logs of volumes that have a successor.
    /// A commit that is added to such a volume later is anchored after the next start.
    settled: Mutex<HashSet<VolumeId>>,
}

/// A log at its newest checkpoint.
struct Current {
    log: VolumeId,
    head: TreeHead,
    /// The name of the checkpoint's file.
    name: String,
    note: Bytes,
    /// For the key id of each witness: the sizes of the checkpoints that it has cosigned.
    cosigned: HashMap<String, Vec<u64>>,
    /// For the id of each authority: the sizes of the checkpoints that it has stamped, and the
    /// names of the timestamps.
    stamped: HashMap<String, Vec<(u64, String)>>,
}

impl Anchors {
    pub fn new(witnesses: Vec<WitnessOptions>, authorities: Vec<TimestampOptions>) -> Anchors {
        Anchors { witnesses, authorities, settled: Mutex::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.witnesses.is_empty() && self.authorities.is_empty()
    }

    /// Asks each witness to cosign the newest checkpoint of each log, unless the witness has done
    /// so already. Asks each authority to stamp the checkpoint, unless the authority has done so
    /// already or its interval is not over. Blocks until the servers have answered. For one
    /// archive, only one thread at a time may call this.
    ///
    /// # Errors
    /// If the archive's logs cannot be read. Failures of a witness or an authority are in the
    /// outcome.
    pub fn round(&self, archive: &Archive) -> Result<Vec<Anchored>, ProofError> {
        let logs = self.current(archive)?;
        let mut outcome = Vec::new();
        let mut late: HashSet<VolumeId> = HashSet::new();
        for witness in &self.witnesses {
            let mut anchored = Anchored::none("witness", witness.key.name());
            let mut is_away = None;
            for current in &logs {
                let sizes =
                    current.cosigned.get(&witness.key.id().to_string()).map_or(&[][..], Vec::as_slice);
                let greatest = sizes.iter().copied().max().unwrap_or(0);
                let seen = sizes.iter().copied().filter(|size| *size <= current.head.size).max().unwrap_or(0);
                let done = match is_away.clone() {
                    _ if greatest > current.head.size => Err(self.behind(archive, current, greatest)),
                    _ if greatest == current.head.size => kept(archive, witness, current),
                    Some(away) => Err(away),
                    None => {
                        let done = self.one(archive, witness, current, seen);
                        anchored.made += u64::from(done.is_ok());
                        done
                    }
                };
                if let Err(error) = done {
                    late.insert(current.log);
                    anchored.missed(current, seen, error, &mut is_away);
                }
            }
            outcome.push(anchored.sorted());
        }
        for authority in &self.authorities {
            let mut anchored = Anchored::none("timestamp authority", &authority.name);
            let mut is_away = None;
            for current in &logs {
                let stamped = current.stamped.get(&authority.id()).map_or(&[][..], Vec::as_slice);
                let newest = stamped.iter().filter(|(size, _)| *size <= current.head.size).max();
                let seen = newest.map_or(0, |(size, _)| *size);
                if seen == current.head.size || !is_due(archive, current.log, newest, authority.interval) {
                    if seen < current.head.size {
                        late.insert(current.log);
                    }
                    continue;
                }
                let done = match is_away.clone() {
                    Some(away) => Err(away),
                    None => {
                        let done = stamp(archive, authority, current);
                        anchored.made += u64::from(done.is_ok());
                        done
                    }
                };
                if let Err(error) = done {
                    late.insert(current.log);
                    anchored.missed(current, seen, error, &mut is_away);
                }
            }
            outcome.push(anchored.sorted());
        }
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |log: &VolumeId| {
            logs.iter().any(|other| other.log.table == log.table && other.log.period > log.period)
        };
        settled
            .extend(logs.iter().map(|current| current.log).filter(|log| is_over(log) && !late.contains(log)));
        Ok(outcome)
    }

    /// Returns the logs that may not be completely anchored, each at its newest checkpoint.
    fn current(&self, archive: &Archive) -> Result<Vec<Current>, ProofError> {
        let site = archive.site().clone();
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner).clone();
        background::wait(async move {
            let keys = keys::load(&site).await?;
            let mut all = Vec::new();
            for log in drops::volumes(&site).await? {
                if !settled.contains(&log) {
                    all.extend(current(&site, log, &keys).await?);
                }
            }
            Ok(all)
        })
    }

    /// Asks one witness to cosign one checkpoint, and stores the cosignature. `seen` is the size of
    /// the largest checkpoint that the witness has cosigned, according to the archive.
    fn one(
        &self,
        archive: &Archive,
        witness: &WitnessOptions,
        current: &Current,
        seen: u64,
    ) -> Result<(), AnchorError> {
        let mut old = seen;
        for _ in 0..ATTEMPTS_MAX {
            let (site, head) = (archive.site().clone(), current.head.clone());
            let proof = background::wait(async move { consistency(&site, &head, old).await })?;
            let body = Submission { old, proof, note: &current.note }.to_bytes();
            let response = witness.transport.post("add-checkpoint", "text/plain; charset=utf-8", body);
            let response = response.map_err(AnchorError::Away)?;
            match response.status {
                200 => return self.keep(archive, witness, current, &response),
                409 => old = self.conflict(archive, current, &response, old)?,
                422 => {
                    let what = format!(
                        "{} of size {}: the witness does not accept it as a continuation of the {old} commits that it has \
                         cosigned",
                        current.log.name(),
                        current.head.size
                    );
                    return Err(AnchorError::Contradicted(what));
                }
                403 => {
                    return Err(AnchorError::Refused(format!(
                        "{}: it does not know the archive's key",
                        response.shown()
                    )));
                }
                404 => {
                    return Err(AnchorError::Refused(format!(
                        "{}: it does not know the log",
                        response.shown()
                    )));
                }
                400 | 401 | 405 | 413 => return Err(AnchorError::Refused(response.shown())),
                _ => return Err(AnchorError::Away(response.shown())),
            }
        }
        Err(AnchorError::Away(format!("it asked for another size {ATTEMPTS_MAX} times")))
    }

    /// Reads the answer of a witness that has cosigned another size than `old`. Returns the size
    /// from which it wants a consistency proof.
    fn conflict(
        &self,
        archive: &Archive,
        current: &Current,
        response: &AnchorResponse,
        old: u64,
    ) -> Result<u64, AnchorError> {
        let name = current.log.name();
        let text = std::str::from_utf8(&response.body).ok().and_then(|body| body.strip_suffix('\n'));
        let size = text.and_then(|text| text.parse::<u64>().ok());
        let size = size.ok_or_else(|| AnchorError::Refused(format!("{}: not a size", response.shown())))?;
        if size == old {
            let what = format!("{name}: the witness has cosigned another tree of {size} commits");
            return Err(AnchorError::Contradicted(what));
        }
        if size <= current.head.size {
            return Ok(size);
        }
        Err(self.behind(archive, current, size))
    }

    /// Returns the error for a witness that has cosigned `size` commits, more than the newest
    /// checkpoint has.
    fn behind(&self, archive: &Archive, current: &Current, size: u64) -> AnchorError {
        // Since we listed the names, another process may have signed a newer checkpoint and shown
        // it to the witness.
        let now = match self.current(archive) {
            Ok(now) => now,
            Err(error) => return error.into(),
        };
        match now.iter().any(|now| now.log == current.log && now.head.size >= size) {
            true => AnchorError::Away("another process has shown it a newer checkpoint".to_owned()),
            false => AnchorError::Contradicted(format!(
                "{}: the witness has cosigned {size} commits, but the newest checkpoint has {}",
                current.log.name(),
                current.head.size
            )),
        }
    }

    /// Checks a cosignature and stores it.
    fn keep(
        &self,
        archive: &Archive,
        witness: &WitnessOptions,
        current: &Current,
        response: &AnchorResponse,
    ) -> Result<(), AnchorError> {
        let refused = |what: &str| AnchorError::Refused(what.to_owned());
        let signed = Note::parse(&current.note).ok_or_else(|| refused("the checkpoint is not a note"))?;
        let (key, id) = (&witness.key, witness.key.id());
        let answer = std::str::from_utf8(&response.body).map_err(|_| refused("its answer is not text"))?;
        let answer = format!("{}\n{answer}", signed.text);
        let answer =
            Note::parse(answer.as_bytes()).ok_or_else(|| refused("its answer is not a signature line"))?;
        let time = key.cosigned(&answer).map_err(|_| refused("its cosignature is invalid"))?;
        let time = time.ok_or_else(|| refused("its answer has no cosignature by its key"))?;
        if time > now().saturating_add(CLOCK_AHEAD_SECONDS_MAX) {
            return Err(refused("its cosignature is from the future: one of the clocks is wrong"));
        }
        let cosignature =
            answer.signatures_of(key.name(), id).map(|signature| line(key.name(), id, signature));
        let note = String::from_utf8_lossy(&current.note).into_owned() + &cosignature.collect::<String>();
        let path = witness_folder(archive.root(), current.log).join(checkpoint_name(current.head.size, id));
        let (store, bytes, to) = (archive.site().store.clone(), Bytes::from(note), path.clone());
        let put = background::wait_io(async move { store.put_proof(&to, bytes).await });
        if put.map_err(|source| ProofError::Write { path, source })? {
            return Ok(());
        }
        // Another process has stored a cosignature of this checkpoint first, with another time.
        kept(archive, witness, current)
    }
}

impl Anchored {
    fn none(kind: &'static str, name: &str) -> Anchored {
        Anchored { kind, name: name.to_owned(), made: 0, lag: 0, errors: Vec::new() }
    }

    fn missed(
        &mut self,
        current: &Current,
        seen: u64,
        error: AnchorError,
        is_away: &mut Option<AnchorError>,
    ) {
        self.lag += current.head.size - seen;
        // A server that is unreachable for one log is not asked about the other logs of this round.
        if matches!(error, AnchorError::Away(_)) {
            *is_away = Some(error.clone());
        }
        self.errors.push((current.log, error));
    }

    fn sorted(mut self) -> Anchored {
        self.errors.sort_by_key(|(_, error)| match error {
            AnchorError::Contradicted(_) => 0,
            AnchorError::Refused(_) => 1,
            AnchorError::Archive(_) => 2,
            AnchorError::Away(_) => 3,
        });
        self
    }
}

/// Whether a log needs a new timestamp: it has none, or its newest one is unreadable or at least
/// `interval` old.
fn is_due(archive: &Archive, log: VolumeId, newest: Option<&(u64, String)>, interval: Duration) -> bool {
    let Some((_, name)) = newest else { return true };
    let (store, path) = (archive.site().store.clone(), timestamp_folder(archive.root(), log).join(name));
    let Ok(Some(token)) = background::wait_io(async move { store.read(&path).await }) else { return true };
    let Some(time) = timestamp::time_of(&token) else { return true };
    (Utc::now() - time).to_std().is_ok_and(|age| age >= interval)
}

/// Asks an authority to stamp one checkpoint, checks the token and stores it.
fn stamp(archive: &Archive, authority: &TimestampOptions, current: &Current) -> Result<(), AnchorError> {
    let (imprint, mut nonce) = (Hash::of(&current.note), [0; 8]);
    SystemRandom::new().fill(&mut nonce).map_err(|_| AnchorError::from(ProofError::Randomness))?;
    let nonce = u64::from_be_bytes(nonce);
    let query = timestamp::query(&imprint, nonce);
    let response =
        authority.transport.post("", "application/timestamp-query", query).map_err(AnchorError::Away)?;
    if response.status != 200 {
        return Err(match response.status {
            400..=499 if ![408, 425, 429].contains(&response.status) => {
                AnchorError::Refused(response.shown())
            }
            _ => AnchorError::Away(response.shown()),
        });
    }
    let token = timestamp::token_of_response(&response.body).map_err(AnchorError::Refused)?;
    let stamped = timestamp::verify(token, &imprint, &authority.authorities);
    let stamped =
        stamped.map_err(|error| AnchorError::Refused(format!("its timestamp is invalid: {error}")))?;
    if !stamped.has_nonce(nonce) {
        return Err(AnchorError::Refused("its timestamp has a nonce that was not requested".to_owned()));
    }
    let apart = (Utc::now() - stamped.time).num_seconds().unsigned_abs();
    if apart > CLOCK_AHEAD_SECONDS_MAX {
        return Err(AnchorError::Refused(format!(
            "its clock and ours are {apart} s apart: one of them is wrong"
        )));
    }
    let name = format!("{}-{}", current.name, authority.id());
    let path = timestamp_folder(archive.root(), current.log).join(name);
    let (store, bytes, to) = (archive.site().store.clone(), Bytes::copy_from_slice(token), path.clone());
    // If the name is taken, another process has stored a timestamp of the same checkpoint.
    let put = background::wait_io(async move { store.put_proof(&to, bytes).await });
    put.map(drop).map_err(|source| ProofError::Write { path, source }.into())
}

/// Checks the stored cosignature of a witness for the newest checkpoint.
fn kept(archive: &Archive, witness: &WitnessOptions, current: &Current) -> Result<(), AnchorError> {
    let folder = witness_folder(archive.root(), current.log);
    let path = folder.join(checkpoint_name(current.head.size, witness.key.id()));
    let (store, from) = (archive.site().store.clone(), path.clone());
    let found = background::wait_io(async move { store.read_present(&from).await });
    let found = found.map_err(|source| ProofError::Read { path: path.clone(), source })?;
    let cosigned = Note::parse(&found).filter(|found| matches!(witness.key.cosigned(found), Ok(Some(_))));
    match (cosigned, Note::parse(&current.note)) {
        (Some(found), Some(signed)) if found.text == signed.text => Ok(()),
        (Some(_), _) => Err(AnchorError::Contradicted(format!(
            "{}: the witness has cosigned another tree of {} commits",
            current.log.name(),
            current.head.size
        ))),
        (None, _) => Err(LogError::Differs { path }.into()),
    }
}

fn now() -> u64 {
    u64::try_from(Utc::now().timestamp()).unwrap_or(0)
}

async fn current(site: &Site, log: VolumeId, keys: &Keys) -> Result<Option<Current>, ProofError> {
    let Some((head, name, note)) = newest_note(site, log, keys).await? else { return Ok(None) };
    let mut cosigned: HashMap<String, Vec<u64>> = HashMap::new();
    for name in site.store.names(&witness_folder(&site.root, log)).await? {
        if let Some((size, id)) = parse_checkpoint_name(&name) {
            cosigned.entry(id.to_owned()).or_default().push(size);
        }
    }
    let mut stamped: HashMap<String, Vec<(u64, String)>> = HashMap::new();
    for name in site.store.names(&timestamp_folder(&site.root, log)).await? {
        if let Some((size, _, id)) = parse_timestamp_name(&name) {
            stamped.entry(id.to_owned()).or_default().push((size, name.clone()));
        }
    }
    Ok(Some(Current { log, head, name, note, cosigned, stamped }))
}
