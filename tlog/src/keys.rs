//! The archive's keys in order: one record for the first key, and one for each rotation.
//!
//! Invariant: a record is signed by the previous key and by the new one, and names the head of
//! every log at the moment of the rotation. So a proof that was made under an old key stays valid,
//! an old key that is stolen later cannot sign anything new, and who trusts one key of the chain
//! can trust all of them.

use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash;
use thiserror::Error;

use super::checkpoint::TreeHead;
use super::note::{Note, PublicKey, base64, from_base64};

/// A key of the archive, and the time from which it is the current key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Counted from 1.
    pub number: u64,
    pub archive_id: String,
    /// SHA-256 of `strongroom.json`.
    pub manifest: Sha256Hash,
    pub time: String,
    pub key: PublicKey,
    pub previous: Option<PublicKey>,
    /// The heads of all logs when this key took over. Earlier keys are valid only up to these
    /// heads.
    pub heads: Vec<TreeHead>,
}

/// Why a key record is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFault {
    #[error("not a signed note")]
    Note,
    #[error("line \"{name}\" is missing or misplaced")]
    Line { name: &'static str },
    #[error("a key is not the base64 of 32 bytes")]
    Key,
    #[error("its number is not {number}")]
    OtherNumber { number: u64 },
    #[error("it belongs to another archive, {archive}")]
    OtherArchive { archive: String },
    #[error("manifest is not a SHA-256 hash")]
    Manifest,
    #[error("its previous key is not the key of the record before")]
    Previous,
    #[error("its manifest hash differs from that of the record before")]
    OtherManifest,
    #[error("a line is not the head of a log: {line:?}")]
    Head { line: String },
    #[error("it has additional lines")]
    Lines,
    #[error("its key was used before")]
    Used,
    #[error("it is not in the exact format")]
    Form,
    #[error("a signature is missing or invalid")]
    Signature,
}

/// Returns the name under which key records are signed.
pub fn signed_as(archive_id: &str) -> String {
    format!("strongroom/{archive_id}/keys")
}

impl KeyRecord {
    /// Returns the text that is signed.
    pub fn text(&self) -> String {
        let mut text = format!(
            "strongroom key {}\narchive {}\nmanifest {}\ntime {}\nkey {}\n",
            self.number, self.archive_id, self.manifest, self.time, self.key
        );
        if let Some(previous) = self.previous {
            text += &format!("previous {previous}\n");
        }
        for TreeHead { log, size, root } in &self.heads {
            text += &format!("log {} {size} {}\n", log.name(), base64(&root.0));
        }
        text
    }

    /// Reads and checks one key record. `before` contains all earlier records, in order. The error
    /// says what is wrong with the record.
    pub fn parse(note: &[u8], archive_id: &str, before: &[KeyRecord]) -> Result<KeyRecord, KeyFault> {
        let note = Note::parse(note).ok_or(KeyFault::Note)?;
        let mut lines = note.text.lines();
        let mut field = |name: &'static str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.ok_or(KeyFault::Line { name })
        };
        let key = |text: &str| {
            let bytes = from_base64(text).and_then(|bytes| bytes.try_into().ok());
            bytes.map(PublicKey).ok_or(KeyFault::Key)
        };
        let number = before.len() as u64 + 1;
        if field("strongroom key")? != number.to_string() {
            return Err(KeyFault::OtherNumber { number });
        }
        let archive = field("archive")?;
        if archive != archive_id {
            return Err(KeyFault::OtherArchive { archive: archive.to_owned() });
        }
        let manifest = Sha256Hash::parse(field("manifest")?).ok_or(KeyFault::Manifest)?;
        let time = field("time")?.to_owned();
        let mut record = KeyRecord {
            number,
            archive_id: archive_id.to_owned(),
            manifest,
            time,
            key: key(field("key")?)?,
            previous: None,
            heads: Vec::new(),
        };
        if let Some(last) = before.last() {
            record.previous = Some(key(field("previous")?)?);
            if record.previous != Some(last.key) {
                return Err(KeyFault::Previous);
            }
            if last.manifest != record.manifest {
                return Err(KeyFault::OtherManifest);
            }
            for line in lines {
                let head = head(line).ok_or_else(|| KeyFault::Head { line: line.to_owned() })?;
                record.heads.push(head);
            }
        } else if lines.next().is_some() {
            return Err(KeyFault::Lines);
        }
        if before.iter().any(|known| known.key == record.key) {
            return Err(KeyFault::Used);
        }
        // Other programs could read a record differently if it is not in the exact format.
        if record.text() != note.text {
            return Err(KeyFault::Form);
        }
        let name = signed_as(archive_id);
        if !record.previous.iter().chain([&record.key]).all(|key| note.is_signed(&name, key)) {
            return Err(KeyFault::Signature);
        }
        Ok(record)
    }
}

fn head(line: &str) -> Option<TreeHead> {
    let mut parts = line.strip_prefix("log ")?.split(' ');
    let log = VolumeId::parse(parts.next()?)?;
    let size = parts.next()?.parse().ok()?;
    let root = Sha256Hash(from_base64(parts.next()?)?.try_into().ok()?);
    parts.next().is_none().then_some(TreeHead { log, size, root })
}

/// All keys of an archive, oldest first; every record has been checked against the record before
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    pub records: Vec<KeyRecord>,
}

impl Keys {
    /// Returns the newest key.
    pub fn current(&self) -> Option<PublicKey> {
        self.records.last().map(|record| record.key)
    }

    /// Returns all keys, oldest first.
    pub fn all(&self) -> Vec<PublicKey> {
        self.records.iter().map(|record| record.key).collect()
    }

    /// Returns the size of `log` up to which the key of `records[at]` is valid; 0 if the log did
    /// not exist when that key was retired. `None` for the current key, which is valid for any
    /// size.
    pub fn retired_at(&self, at: usize, log: VolumeId) -> Option<u64> {
        let next = self.records.get(at + 1)?;
        Some(next.heads.iter().find(|head| head.log == log).map_or(0, |head| head.size))
    }
}
