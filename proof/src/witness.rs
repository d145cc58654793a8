//! A witness: an independent party that makes sure that everyone is shown the same history of a
//! log. This is the server side of C2SP tlog-witness, without HTTP.
//!
//! Invariants: a tree is cosigned only after a proof that it continues the largest tree of the same
//! log that the witness has cosigned. A cosignature is on disk before anyone receives it.
//!
//! State: the state folder has one file for each log (that is, for each origin), `logs/<hex SHA-256
//! of the origin>`. It contains the newest cosigned checkpoint, as a note with the signature of the
//! log and the cosignature. The file is always replaced as a whole. The file `vkey` names the
//! witness to which the folder belongs. It is written once, when a witness starts for the first
//! time, so that a lost or exchanged folder is noticed.
//!
//! Locking: every request reads the file of its log and then replaces the file. If two requests for
//! one log did this at the same time, an older tree could replace a newer one. So reading and
//! replacing are one critical section. One critical section for all logs is enough, because it
//! takes only the time of a sync, and a log sends a request every few minutes. A lock on the folder
//! refuses a second process.
//!
//! After a crash before the replacement, nothing was cosigned. After a crash between the
//! replacement and the answer, the log asks again, receives the size that is on disk, and gets its
//! cosignature for the same tree.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_store::durable;
use strongroom_tlog::checkpoint::parse_checkpoint_text;
use strongroom_tlog::cosignature::{WitnessKey, cosign};
use strongroom_tlog::note::{Note, PrivateKey, PublicKey, base64, from_base64, line};
use strongroom_tlog::tree::is_consistent;

use super::error::ProofError;

/// Maximum number of lines of a consistency proof, as in tlog-witness.
pub(crate) const PROOF_LINES_MAX: usize = 63;
/// Maximum size of a request: a proof, and a checkpoint with sixteen signatures of the longest
/// kind.
pub const REQUEST_BYTES_MAX: usize = 128 << 10;
/// Maximum number of logs with stored state. An archive adds only a few logs a year. Without this
/// limit, the holder of a log's key could fill the disk.
const LOGS_MAX: usize = 100_000;
/// Maximum number of notes that are kept as evidence that a log may have contradicted itself.
const EVIDENCE_MAX: usize = 1000;
const LOCK: &str = "lock";
const STATES: &str = "logs";
const EVIDENCE: &str = "evidence";
const VKEY: &str = "vkey";
/// Maximum number of characters of another witness's vkey that an error shows.
const NAME_SHOWN_MAX: usize = 200;

/// The body of a request to `add-checkpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Submission<'b> {
    pub(crate) old: u64,
    pub(crate) proof: Vec<Hash>,
    /// A signed checkpoint.
    pub(crate) note: &'b [u8],
}

impl<'b> Submission<'b> {
    pub(crate) fn parse(body: &'b [u8]) -> Option<Submission<'b>> {
        let end = body.windows(2).position(|two| two == b"\n\n")?;
        let head = std::str::from_utf8(&body[..end]).ok()?;
        let mut lines = head.split('\n');
        let old = lines.next()?.strip_prefix("old ")?;
        let size: u64 = old.parse().ok()?;
        // No sign and no leading zero.
        if size.to_string() != old {
            return None;
        }
        let proof = lines.map(|line| Some(Hash(from_base64(line)?.try_into().ok()?)));
        let proof: Vec<Hash> = proof.collect::<Option<_>>()?;
        (proof.len() <= PROOF_LINES_MAX).then_some(Submission { old: size, proof, note: &body[end + 2..] })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut body = format!("old {}\n", self.old);
        for hash in &self.proof {
            body += &base64(&hash.0);
            body.push('\n');
        }
        body.push('\n');
        let mut body = body.into_bytes();
        body.extend(self.note);
        body
    }
}

/// A log to cosign, or all logs of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedLog {
    pub key: PublicKey,
    /// An origin, or a prefix that ends with a slash and stands for every origin that starts with
    /// it.
    pub origin: String,
}

impl TrustedLog {
    /// Reads `<public key>@<origin>`; the key is a vkey or the base64 of 32 bytes.
    ///
    /// # Errors
    /// [`ProofError::TrustedLog`] for anything else.
    pub fn parse(text: &str) -> Result<TrustedLog, ProofError> {
        let (key, origin) =
            split_key(text, |key| PublicKey::parse(key).ok()).ok_or(ProofError::TrustedLog)?;
        let is_origin = !origin.is_empty() && origin != "/" && !origin.chars().any(char::is_control);
        if is_origin {
            Ok(TrustedLog { key, origin: origin.to_owned() })
        } else {
            Err(ProofError::TrustedLog)
        }
    }

    fn is_of(&self, origin: &str) -> bool {
        match self.origin.ends_with('/') {
            true => origin.len() > self.origin.len() && origin.starts_with(&self.origin),
            false => origin == self.origin,
        }
    }
}

/// Splits `<key>@<rest>`. The name in a key may itself contain an `@`.
pub(crate) fn split_key<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<(T, &str)> {
    text.match_indices('@').find_map(|(at, _)| Some((read(&text[..at])?, &text[at + 1..])))
}

/// The answer of a witness, and what its operator should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessAnswer {
    /// The HTTP status.
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
    /// The origin of the log, if its signature was valid.
    pub origin: Option<String>,
    /// A description of the contradiction, if the log signed a tree that was not shown to continue
    /// the cosigned tree.
    pub contradiction: Option<String>,
}

impl WitnessAnswer {
    fn refusal(status: u16, body: &str) -> WitnessAnswer {
        let body = format!("{body}\n");
        WitnessAnswer {
            status,
            content_type: "text/plain; charset=utf-8",
            body,
            origin: None,
            contradiction: None,
        }
    }

    /// Returns the answer that names the size from which the next request must prove consistency.
    fn conflict(size: u64) -> WitnessAnswer {
        let answer = WitnessAnswer::refusal(409, &size.to_string());
        WitnessAnswer { content_type: "text/x.tlog.size", ..answer }
    }
}

/// A witness: its key, its logs, and its state.
#[derive(Debug)]
pub struct Witness {
    key: PrivateKey,
    logs: Vec<TrustedLog>,
    folder: PathBuf,
    /// The names of the states that are known to exist. Locked while a log's state is read and
    /// replaced.
    states: Mutex<HashSet<String>>,
    _lock: File,
}

/// Returns the names of the states, without files that are only half written.
fn state_names(folder: &Path) -> Result<HashSet<String>, ProofError> {
    let path = folder.join(STATES);
    let names = std::fs::read_dir(&path).and_then(|entries| {
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.filter(|name| !name.as_ref().is_ok_and(|name| name.contains('.'))).collect()
    });
    names.map_err(|source| ProofError::Read { path, source })
}

impl Witness {
    /// Creates the state of a witness that has not cosigned anything yet.
    ///
    /// # Errors
    /// [`ProofError::WitnessBegun`] if a state exists, [`ProofError::Read`] and
    /// [`ProofError::Write`].
    pub fn begin(key: WitnessKey, folder: &Path) -> Result<(), ProofError> {
        for path in [folder.to_owned(), folder.join(STATES), folder.join(EVIDENCE)] {
            let made = durable::create_folder(&path).map_err(io::Error::other);
            made.map_err(|source| ProofError::Write { path, source })?;
        }
        let path = folder.join(VKEY);
        if !state_names(folder)?.is_empty() && !path.exists() {
            let of = format!("states without a file {VKEY}");
            return Err(ProofError::WitnessOther { path: folder.to_owned(), of });
        }
        match durable::create_file(&path, &path.with_extension("new"), &[format!("{key}\n").as_bytes()]) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(ProofError::WitnessBegun { path: folder.to_owned() })
            }
            Err(source) => Err(ProofError::Write { path, source }),
        }
    }

    /// Opens a witness that continues from its state in `folder`.
    ///
    /// # Errors
    /// [`ProofError::WitnessForgot`] if there is no state, [`ProofError::WitnessOther`] if the
    /// state belongs to another witness, [`ProofError::WitnessBusy`] if another process uses the
    /// folder, [`ProofError::Read`] and [`ProofError::Write`].
    pub fn open(key: PrivateKey, logs: Vec<TrustedLog>, folder: &Path) -> Result<Witness, ProofError> {
        let path = folder.join(VKEY);
        let of = match std::fs::read_to_string(&path) {
            Ok(of) => of,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ProofError::WitnessForgot { path: folder.to_owned() });
            }
            Err(source) => return Err(ProofError::Read { path, source }),
        };
        if of.trim_end() != WitnessKey::of(&key).to_string() {
            let of = of.trim_end().chars().take(NAME_SHOWN_MAX).collect();
            return Err(ProofError::WitnessOther { path: folder.to_owned(), of });
        }
        let path = folder.join(LOCK);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = opened.map_err(|source| ProofError::Write { path: path.clone(), source })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ProofError::WitnessBusy { path: folder.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(ProofError::Write { path, source }),
        }
        let states = state_names(folder)?;
        Ok(Witness { key, logs, folder: folder.to_owned(), states: Mutex::new(states), _lock: lock })
    }

    pub fn public(&self) -> WitnessKey {
        WitnessKey::of(&self.key)
    }

    /// Answers a request to `add-checkpoint`, at a time in seconds since 1970. Blocks: a cosigned
    /// tree is on disk when this returns. May be called from several threads.
    pub fn add_checkpoint(&self, body: &[u8], time: u64) -> WitnessAnswer {
        let malformed = |what: &str| WitnessAnswer::refusal(400, what);
        let Some(submission) = Submission::parse(body) else {
            return malformed("the body is not an old size, consistency proof, empty line and checkpoint");
        };
        let Some(note) = Note::parse(submission.note) else {
            return malformed("the checkpoint is not a signed note");
        };
        let Some((origin, size, root)) = parse_checkpoint_text(note.text) else {
            return malformed("the checkpoint does not consist of an origin, a size and a root");
        };
        let keys: Vec<&TrustedLog> = self.logs.iter().filter(|log| log.is_of(origin)).collect();
        if keys.is_empty() {
            return WitnessAnswer::refusal(404, "unknown log");
        }
        // If a signature under a known key is invalid, the note is refused, even if its other
        // signatures are valid.
        let is_tried = |log: &&&TrustedLog| note.signatures_of(origin, log.key.id(origin)).next().is_some();
        let mut tried = keys.iter().filter(is_tried).peekable();
        if tried.peek().is_none() || !tried.all(|log| note.is_signed(origin, &log.key)) {
            return WitnessAnswer::refusal(
                403,
                "the checkpoint has no valid signature by a known key of this log",
            );
        }
        let answer = match submission.old > size {
            true => malformed("the old size is larger than the size of the checkpoint"),
            false => self.cosign(&submission, &note, (origin, size, root), time),
        };
        WitnessAnswer { origin: Some(origin.to_owned()), ..answer }
    }

    /// Cosigns a checkpoint if it continues the state of its log, and replaces the state. This
    /// function is the critical section.
    fn cosign(
        &self,
        submission: &Submission<'_>,
        note: &Note<'_>,
        (origin, size, root): (&str, u64, Hash),
        time: u64,
    ) -> WitnessAnswer {
        let failed = |what: &str| WitnessAnswer::refusal(500, what);
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let name = Hash::of(origin.as_bytes()).to_string();
        let path = self.folder.join(STATES).join(&name);
        let is_known = states.contains(&name);
        let (latest, latest_root) = match state(&path, origin) {
            Ok(Some(state)) => state,
            // The state existed and is missing, although no program removes it. The log is not
            // treated as a new one, because then it could start again with another history, which a
            // witness must prevent.
            Ok(None) if is_known => return failed("the state of this log is missing"),
            Ok(None) if states.len() >= LOGS_MAX => return failed("this witness has too many logs"),
            Ok(None) => (0, Hash::of(b"")),
            Err(_) => return failed("the state of this log cannot be read"),
        };
        if submission.old != latest {
            return WitnessAnswer::conflict(latest);
        }
        let contradicts = |answer: WitnessAnswer, what: String| {
            self.keep_evidence(submission.note);
            WitnessAnswer { contradiction: Some(what), ..answer }
        };
        if !is_consistent((latest, &latest_root), (size, &root), &submission.proof) {
            let what = match size == latest {
                true => format!("it has shown two trees of {size} leaves"),
                false => format!("a tree of {size} leaves was not shown to continue the one of {latest}"),
            };
            return contradicts(WitnessAnswer::refusal(422, "the consistency proof is invalid"), what);
        }
        let body = cosign(&self.key, note.text, time);
        let mut state = format!("{}\n", note.text);
        for log in self.logs.iter().filter(|log| log.is_of(origin)) {
            let id = log.key.id(origin);
            state.extend(note.signatures_of(origin, id).map(|signature| line(origin, id, signature)));
        }
        state += &body;
        if durable::replace_file(&path, &path.with_extension("new"), &[state.as_bytes()]).is_err() {
            return failed("the state of this log cannot be written");
        }
        states.insert(name);
        drop(states);
        WitnessAnswer {
            status: 200,
            content_type: "text/plain; charset=utf-8",
            body,
            origin: None,
            contradiction: None,
        }
    }

    /// Returns the newest cosigned checkpoint of a log, with the log's signature and the
    /// cosignature, or `None` if there is none. `log` is the hex SHA-256 of its origin.
    pub fn checkpoint(&self, log: &str) -> Option<Vec<u8>> {
        Hash::parse(log)?;
        std::fs::read(self.folder.join(STATES).join(log)).ok()
    }

    /// Stores a note with which a log may have contradicted itself, unless `EVIDENCE_MAX` notes are
    /// stored already. The submitter may also have sent a bad proof for a good tree, so a person
    /// must examine the note.
    fn keep_evidence(&self, note: &[u8]) {
        let folder = self.folder.join(EVIDENCE);
        let Ok(entries) = std::fs::read_dir(&folder) else { return };
        if entries.count() < EVIDENCE_MAX {
            let path = folder.join(Hash::of(note).to_string());
            // An error is ignored: the answer is the same, whether or not the note could be stored.
            let _ = durable::replace_file(&path, &path.with_extension("new"), &[note]);
        }
    }
}

/// Returns the size and root of the newest cosigned tree, or `None` if there was none.
fn state(path: &Path, origin: &str) -> io::Result<Option<(u64, Hash)>> {
    let note = match std::fs::read(path) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let note = Note::parse(&note).ok_or_else(damaged)?;
    match parse_checkpoint_text(note.text) {
        Some((found, size, root)) if found == origin => Ok(Some((size, root))),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use strongroom_schemas::record::leaf_hash;

    use super::*;
    use strongroom_tlog::checkpoint::checkpoint_text;
    use strongroom_tlog::note::signature_line;
    use strongroom_tlog::tree::{consistency_ranges, root};

    const ORIGIN: &str = "strongroom/a/events/2026";

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect()
    }

    fn proof(old: u64, leaves: &[Hash]) -> Vec<Hash> {
        let ranges = consistency_ranges(old, leaves.len() as u64).into_iter();
        ranges.map(|range| root(&leaves[range.start as usize..range.end as usize])).collect()
    }

    fn note(key: &PrivateKey, origin: &str, leaves: &[Hash]) -> String {
        let text = checkpoint_text(origin, leaves.len() as u64, &root(leaves));
        let signature = key.sign(text.as_bytes());
        format!("{text}\n{}", signature_line(origin, &key.public(), &signature))
    }

    fn body(key: &PrivateKey, old: u64, leaves: &[Hash]) -> Vec<u8> {
        let note = note(key, ORIGIN, leaves);
        Submission { old, proof: proof(old, leaves), note: note.as_bytes() }.to_bytes()
    }

    struct Site {
        folder: tempfile::TempDir,
        log: PrivateKey,
        key: String,
    }

    impl Site {
        fn new() -> Site {
            let key = PrivateKey::generate("witness.example/w1").expect("randomness").to_text();
            let log = PrivateKey::generate("log").expect("randomness");
            let folder = tempfile::tempdir().expect("a folder");
            let public = WitnessKey::of(&PrivateKey::parse(&key).expect("a key"));
            Witness::begin(public, folder.path()).expect("an empty folder");
            Site { folder, log, key }
        }

        fn open(&self) -> Witness {
            let trusted = TrustedLog { key: self.log.public(), origin: "strongroom/a/".to_owned() };
            let key = PrivateKey::parse(&self.key).expect("a key");
            Witness::open(key, vec![trusted], self.folder.path()).expect("a witness")
        }
    }

    #[test]
    fn a_witness_begins_once_and_never_by_itself() {
        let (site, other) = (Site::new(), PrivateKey::generate("witness.example/w2").expect("randomness"));
        let key = || PrivateKey::parse(&site.key).expect("a key");
        let begin = || Witness::begin(WitnessKey::of(&key()), site.folder.path());
        assert!(matches!(begin(), Err(ProofError::WitnessBegun { .. })));
        let another = Witness::open(other, Vec::new(), site.folder.path());
        assert!(matches!(another, Err(ProofError::WitnessOther { .. })));
        let witness = site.open();
        assert_eq!(witness.add_checkpoint(&body(&site.log, 0, &leaves(3)), 1).status, 200);
        drop(witness);
        // A folder without its `vkey` is not accepted as a state, and a new witness cannot be
        // started in it while it still has states of logs.
        std::fs::remove_file(site.folder.path().join(VKEY)).expect("removed");
        let open = || Witness::open(key(), Vec::new(), site.folder.path());
        assert!(matches!(open(), Err(ProofError::WitnessForgot { .. })));
        assert!(matches!(begin(), Err(ProofError::WitnessOther { .. })));
        std::fs::remove_dir_all(site.folder.path().join(STATES)).expect("removed");
        assert!(matches!(open(), Err(ProofError::WitnessForgot { .. })));
        begin().expect("there is no state yet");
        open().expect("there is a state");
    }

    #[test]
    fn what_continues_is_cosigned_and_nothing_else() {
        let site = Site::new();
        let witness = site.open();
        let (all, other) = (leaves(9), {
            let mut other = leaves(9);
            other[1] = leaf_hash(b"another");
            other
        });
        let ask = |old, leaves: &[Hash]| witness.add_checkpoint(&body(&site.log, old, leaves), 1000);
        let is_cosigned = |answer: &WitnessAnswer, leaves: &[Hash]| {
            let text = checkpoint_text(ORIGIN, leaves.len() as u64, &root(leaves));
            let note = format!("{text}\n{}", answer.body);
            let note = Note::parse(note.as_bytes()).expect("a note");
            assert_eq!((answer.status, witness.public().cosigned(&note)), (200, Ok(Some(1000))));
        };
        is_cosigned(&ask(0, &all[..3]), &all[..3]);
        is_cosigned(&ask(3, &all[..7]), &all[..7]);
        // The same tree again, as after a lost answer.
        is_cosigned(&ask(7, &all[..7]), &all[..7]);
        let conflict = |answer: WitnessAnswer| {
            assert_eq!((answer.status, answer.content_type), (409, "text/x.tlog.size"));
            assert_eq!(answer.body, "7\n");
            answer.contradiction
        };
        assert_eq!(conflict(ask(0, &all)), None);
        assert_eq!(conflict(ask(3, &all)), None);
        assert_eq!(conflict(ask(0, &all[..3])), None, "rolled back");
        assert_eq!(conflict(ask(8, &all)), None);
        for forked in [ask(7, &other[..7]), ask(7, &other)] {
            assert_eq!((forked.status, forked.contradiction.is_some()), (422, true));
        }
        let rolled_back = ask(7, &all[..6]);
        assert_eq!(rolled_back.status, 400);
        assert_eq!(std::fs::read_dir(site.folder.path().join(EVIDENCE)).expect("a folder").count(), 2);
        is_cosigned(&ask(7, &all), &all);
        let shown = witness.checkpoint(&Hash::of(ORIGIN.as_bytes()).to_string()).expect("a checkpoint");
        let shown = Note::parse(&shown).expect("a note");
        assert_eq!(parse_checkpoint_text(shown.text), Some((ORIGIN, 9, root(&all))));
        assert_eq!(witness.public().cosigned(&shown), Ok(Some(1000)));
        assert!(shown.is_signed(ORIGIN, &site.log.public()));
        for nothing in ["", "../lock", &Hash::of(b"another").to_string()] {
            assert_eq!(witness.checkpoint(nothing), None, "{nothing}");
        }
        let empty = |root| {
            let text = checkpoint_text("strongroom/a/alerts/2026", 0, &root);
            let origin = "strongroom/a/alerts/2026";
            let note = format!(
                "{text}\n{}",
                signature_line(origin, &site.log.public(), &site.log.sign(text.as_bytes()))
            );
            let submission = Submission { old: 0, proof: Vec::new(), note: note.as_bytes() };
            witness.add_checkpoint(&submission.to_bytes(), 1000).status
        };
        assert_eq!((empty(all[0]), empty(root(&[]))), (422, 200), "the empty tree has one root");
    }

    #[test]
    fn strangers_and_what_is_not_signed_are_refused() {
        let site = Site::new();
        let witness = site.open();
        let stranger = PrivateKey::generate("log").expect("randomness");
        let ask = |body: &[u8]| witness.add_checkpoint(body, 1000).status;
        assert_eq!(ask(&body(&stranger, 0, &leaves(3))), 403);
        let elsewhere = note(&site.log, "strongroom/b/events/2026", &leaves(3));
        let elsewhere = Submission { old: 0, proof: Vec::new(), note: elsewhere.as_bytes() };
        assert_eq!(ask(&elsewhere.to_bytes()), 404);
        let prefix = note(&site.log, "strongroom/a/", &leaves(3));
        let prefix = Submission { old: 0, proof: Vec::new(), note: prefix.as_bytes() };
        assert_eq!(ask(&prefix.to_bytes()), 404, "the prefix is not a log");
        let good = String::from_utf8(body(&site.log, 0, &leaves(3))).expect("text");
        for (was, is) in [
            ("old 0\n", ""),
            ("old 0\n", "old 00\n"),
            ("old 0\n", "old +0\n"),
            ("old 0\n", "old -1\n"),
            ("old 0\n", "old 0 \n"),
            ("old 0\n", "old 0\nAAAA\n"),
            ("\n3\n", "\n03\n"),
            ("\n3\n", "\n3\n3\n"),
            ("\u{2014} ", "- "),
        ] {
            assert_eq!(ask(good.replacen(was, is, 1).as_bytes()), 400, "{was:?} to {is:?}");
        }
        let hash = format!("{}\n", base64(&[7; 32]));
        let many = |count: usize| good.replacen("old 0\n", &format!("old 0\n{}", hash.repeat(count)), 1);
        assert_eq!(ask(many(64).as_bytes()), 400);
        assert_eq!(ask(many(63).as_bytes()), 422, "from an empty tree there is nothing to prove");
        // A note with an invalid signature under a known key is refused. A signature line of an
        // unknown signer is ignored.
        let line = good.lines().last().expect("a signature").to_owned();
        let text = good.split("\n\n").nth(1).expect("a checkpoint");
        let theirs = signature_line(ORIGIN, &stranger.public(), &stranger.sign(text.as_bytes()));
        let bad = signature_line(ORIGIN, &site.log.public(), &site.log.sign(b"another text"));
        assert_eq!(ask(format!("{good}{bad}").as_bytes()), 403);
        assert_eq!(ask(good.replace(&format!("{line}\n"), &theirs).as_bytes()), 403);
        assert_eq!(ask(format!("{good}{theirs}").as_bytes()), 200);
    }

    #[test]
    fn what_was_cosigned_is_known_after_every_end() {
        let site = Site::new();
        let all = leaves(20);
        for size in 1..all.len() {
            let witness = site.open();
            // The answer is lost, as if the witness was killed after the write.
            let old = (size - 1) as u64;
            assert_eq!(witness.add_checkpoint(&body(&site.log, old, &all[..size]), 1000).status, 200);
            drop(witness);
            // A half-written file is ignored.
            let states = site.folder.path().join(STATES);
            let name = Hash::of(ORIGIN.as_bytes()).to_string();
            std::fs::write(states.join(name).with_extension("new"), "half").expect("written");
            let witness = site.open();
            let again = witness.add_checkpoint(&body(&site.log, old, &all[..size]), 1000);
            assert_eq!((again.status, again.body), (409, format!("{size}\n")));
            assert_eq!(witness.add_checkpoint(&body(&site.log, size as u64, &all[..size]), 1).status, 200);
        }
        let witness = site.open();
        let key = PrivateKey::parse(&site.key).expect("a key");
        let second = Witness::open(key, Vec::new(), site.folder.path());
        assert!(matches!(second, Err(ProofError::WitnessBusy { .. })));
        let state = site.folder.path().join(STATES).join(Hash::of(ORIGIN.as_bytes()).to_string());
        std::fs::write(&state, "damaged").expect("written");
        assert_eq!(witness.add_checkpoint(&body(&site.log, 0, &all), 1).status, 500);
        std::fs::remove_file(&state).expect("removed");
        assert_eq!(
            witness.add_checkpoint(&body(&site.log, 0, &all), 1).status,
            500,
            "a state that is missing"
        );
    }

    #[test]
    fn requests_at_once_never_roll_back() {
        let site = Site::new();
        let witness = site.open();
        let all = leaves(40);
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let (witness, site, all) = (&witness, &site, &all);
                scope.spawn(move || {
                    let mut old = 0;
                    for round in 0..200usize {
                        let size = 1 + (round * 7 + thread * 11) % all.len();
                        let asked = body(&site.log, old.min(size as u64), &all[..size]);
                        let answer = witness.add_checkpoint(&asked, 1000);
                        match answer.status {
                            200 => {
                                assert!(size as u64 >= old, "{size} below {old}");
                                old = size as u64;
                            }
                            409 => {
                                let latest: u64 = answer.body.trim().parse().expect("a size");
                                assert!(latest >= old, "{latest} below {old}");
                                old = latest;
                            }
                            status => panic!("{status}: {}", answer.body),
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn keys_and_origins_are_told_apart() {
        let key = PrivateKey::generate("me@example.com/log").expect("randomness").public();
        let vkey = key.vkey("me@example.com/log");
        for text in [format!("{vkey}@strongroom/a/"), format!("{key}@strongroom/a/")] {
            let log = TrustedLog::parse(&text).expect("a log");
            assert_eq!(log, TrustedLog { key, origin: "strongroom/a/".to_owned() });
        }
        assert_eq!(TrustedLog::parse(&format!("{vkey}@a@b")).expect("a log").origin, "a@b");
        for wrong in [vkey.as_str(), "x@y", &format!("{vkey}@"), &format!("{vkey}@/"), ""] {
            assert!(TrustedLog::parse(wrong).is_err(), "{wrong}");
        }
    }
}
