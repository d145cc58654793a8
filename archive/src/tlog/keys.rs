//! The archive's keys, one after the other: a record for the first, and one for each rotation.
//!
//! Invariant: a record is signed by the key before it and by its own, and names every log's head at that moment. So a
//! proof made under an old key stays one, an old key that is stolen later proves nothing new, and trust in any key of the
//! chain reaches all of them.

use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash;

use super::checkpoint::TreeHead;
use super::note::{Note, PublicKey, base64, from_base64};

/// A key and when it became the archive's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// From 1 on.
    pub number: u64,
    pub archive_id: String,
    /// SHA-256 of `strongroom.json`.
    pub manifest: Sha256Hash,
    pub time: String,
    pub key: PublicKey,
    pub previous: Option<PublicKey>,
    /// Up to where the keys before it count.
    pub heads: Vec<TreeHead>,
}

/// Name that key records are signed under.
pub(crate) fn signed_as(archive_id: &str) -> String {
    format!("strongroom/{archive_id}/keys")
}

impl KeyRecord {
    /// The text that is signed.
    pub(crate) fn text(&self) -> String {
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

    /// Reads a record that must follow `before`; or says what is wrong with it.
    pub(crate) fn parse(note: &[u8], archive_id: &str, before: &[KeyRecord]) -> Result<KeyRecord, String> {
        let note = Note::parse(note).ok_or("it is no signed note")?;
        let mut lines = note.text.lines();
        let mut field = |name: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.ok_or_else(|| format!("it has no line \"{name}\" where one should be"))
        };
        let key = |text: &str| {
            let bytes = from_base64(text).and_then(|bytes| bytes.try_into().ok());
            bytes.map(PublicKey).ok_or_else(|| "a key is not the base64 of 32 bytes".to_owned())
        };
        let number = before.len() as u64 + 1;
        if field("strongroom key")? != number.to_string() {
            return Err(format!("it is not number {number}"));
        }
        let archive = field("archive")?;
        if archive != archive_id {
            return Err(format!("it is of another archive, {archive}"));
        }
        let manifest = Sha256Hash::parse(field("manifest")?).ok_or("its manifest is no hash")?;
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
                return Err("the key before it is another one".to_owned());
            }
            if last.manifest != record.manifest {
                return Err("it names another strongroom.json than the record before".to_owned());
            }
            for line in lines {
                let head = head(line).ok_or_else(|| format!("a line is no head of a log: {line:?}"))?;
                record.heads.push(head);
            }
        } else if lines.next().is_some() {
            return Err("it has more lines than it should".to_owned());
        }
        if before.iter().any(|known| known.key == record.key) {
            return Err("its key was used before".to_owned());
        }
        // What is not written as it would be written now could hide a difference from other readers.
        if record.text() != note.text {
            return Err("it is not written as the format says".to_owned());
        }
        let name = signed_as(archive_id);
        if !record.previous.iter().chain([&record.key]).all(|key| note.is_signed(&name, key)) {
            return Err("a signature is missing or does not hold".to_owned());
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

/// All keys of an archive, oldest first; every record has been checked against the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    pub records: Vec<KeyRecord>,
}

impl Keys {
    pub fn current(&self) -> Option<PublicKey> {
        self.records.last().map(|record| record.key)
    }

    pub(crate) fn all(&self) -> Vec<PublicKey> {
        self.records.iter().map(|record| record.key).collect()
    }

    /// Size of `log` up to which the key of `records[at]` counts; `None` for the current one, which has no end.
    pub(crate) fn retired_at(&self, at: usize, log: VolumeId) -> Option<u64> {
        let next = self.records.get(at + 1)?;
        Some(next.heads.iter().find(|head| head.log == log).map_or(0, |head| head.size))
    }
}
