//! The manifest of a pack, `manifest.json`, and the signed note over it, `manifest.note`.
//!
//! Invariant: the manifest has the hash of every other file of the pack, and the note has the hash
//! of the manifest. So a change of any byte of a signed pack is detected.

use serde::{Deserialize, Serialize};
use strongroom_archive::error::LogError;
use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_tlog::keys::Keys;
use strongroom_tlog::note::{Note, PublicKey};
use strongroom_tlog::signer::Signer;

use super::ledger::CommitCounts;
use super::question::Question;

pub(super) const FORMAT: &str = "strongroom-evidence-1";
pub const MANIFEST: &str = "manifest.json";
pub const MANIFEST_NOTE: &str = "manifest.note";
pub(super) const RECORDS: &str = "records.jsonl";
pub(super) const ALERTS: &str = "alerts.jsonl";
pub(super) const FILES: &str = "archive-files.json";

/// A statement in SQL, and the SHA-256 of its answer in the format of `strongroom query --format
/// json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    pub sql: String,
    pub rows: u64,
    pub sha256: String,
}

/// The head of a log: the size and the root in a signed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadEntry {
    pub log: String,
    pub size: u64,
    /// Base64.
    pub root: String,
    /// The text of the checkpoint.
    pub note: String,
}

/// A file of the pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackFile {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// Counts of a pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Rows in the answer to the question, and in the answer about alerts.
    pub events_in_question: u64,
    pub alerts_in_question: u64,
    /// Records in the pack.
    pub events: u64,
    pub alerts: u64,
    /// Number of events in the pack that were redacted before they were written.
    #[serde(default, skip_serializing_if = "is_none")]
    pub redacted: u64,
    /// Files of `events` and `alerts` that may contain rows of the period, and the number of rows
    /// in such files of `events`.
    pub files: u64,
    pub rows_examined: u64,
    /// Number of commits that add these files of `events`, and the sums of the counts in these
    /// commits.
    pub commits: u64,
    pub received: CommitCounts,
    /// Rejects between the first and the last position of these files, and rejects that arrived in
    /// the period.
    pub rejects_at_positions: u64,
    pub rejects_received: u64,
    /// Events without a time in files of the period's dates.
    pub events_without_time: u64,
    /// Pieces of proof: files in `proofs/`.
    pub proofs: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: String,
    pub archive_id: String,
    pub location: String,
    pub made: String,
    pub program: String,
    pub question: Question,
    pub events_query: Query,
    pub alerts_query: Query,
    pub counts: Asked,
    /// `strongroom.json` of the archive, in base64, and the texts of its key records.
    pub strongroom_json: String,
    pub keys: Vec<String>,
    pub heads: Vec<HeadEntry>,
    /// The public key (base64) that signs `manifest.note`; null in a pack that is not signed.
    pub signed_by: Option<String>,
    /// Every file except `manifest.json` and `manifest.note`, by name.
    pub files: Vec<PackFile>,
}

impl Manifest {
    pub const FORMAT: &'static str = FORMAT;

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    pub fn parse(bytes: &[u8]) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match manifest.format == FORMAT {
            true => Ok(manifest),
            false => {
                Err(format!("the manifest has format {:.40}; this program reads {FORMAT}", manifest.format))
            }
        }
    }
}

/// Returns the name under which manifests are signed: the first line of the note.
fn origin(archive_id: &str) -> String {
    format!("strongroom/{archive_id}/evidence")
}

fn note_text(archive_id: &str, manifest: &[u8]) -> String {
    format!("{}\n{}\n", origin(archive_id), Hash::of(manifest))
}

/// Returns the signed note over a manifest. Blocks if the signer is a program.
///
/// # Errors
/// [`LogError::KeyNotCurrent`] for a key that is not the archive's current one, and any error of
/// the signer.
pub fn sign_manifest(
    signer: &Signer,
    keys: &Keys,
    archive_id: &str,
    manifest: &[u8],
) -> Result<String, LogError> {
    match keys.current() {
        Some(current) if current == signer.public() => {}
        Some(current) => return Err(LogError::KeyNotCurrent { current }),
        None => return Err(LogError::NoKey),
    }
    let text = note_text(archive_id, manifest);
    Ok(format!("{text}\n{}", signer.sign(&origin(archive_id), &text)?))
}

/// Checks the note. The error says what is wrong with it.
pub(super) fn check_note(
    note: &[u8],
    archive_id: &str,
    manifest: &[u8],
    current: Option<PublicKey>,
) -> Result<(), String> {
    let note = Note::parse(note).ok_or("not a signed note")?;
    if note.text != note_text(archive_id, manifest) {
        return Err("it does not name this manifest".to_owned());
    }
    let current = current.ok_or("the pack has no proof that names the archive's key")?;
    match note.is_signed(&origin(archive_id), &current) {
        true => Ok(()),
        false => Err("it is not signed by the archive's newest key in the proofs".to_owned()),
    }
}
