//! Reads and appends the records of an archive's keys.
//!
//! Invariant: a record is written once, under the number after the last record. If two processes
//! append at once, one of them finds its number taken and reads the records again. After a crash, a
//! record exists whole or not at all.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_store::layout;
use strongroom_tlog::checkpoint::TreeHead;
use strongroom_tlog::keys::{KeyRecord, Keys, signed_as};
use strongroom_tlog::signer::Signer;

use crate::error::LogError;
use crate::site::Site;

/// Maximum number of keys that an archive may have had.
const KEYS_MAX: u64 = 10_000;

/// Returns the path of the record of a key; records are numbered from 1 on.
pub fn path(root: &Path, number: u64) -> PathBuf {
    root.join(layout::KEYS).join(format!("{number:08}"))
}

/// Reads the key records of an archive in order, and checks that each continues the ones before it.
pub async fn load(site: &Site) -> Result<Keys, LogError> {
    let mut keys = Keys::default();
    for number in 1..=KEYS_MAX {
        let path = path(&site.root, number);
        let Some(note) = site.read(&path).await? else { break };
        let record = KeyRecord::parse(&note, &site.archive_id, &keys.records);
        keys.records.push(record.map_err(|fault| LogError::KeyRecord { path, fault })?);
    }
    Ok(keys)
}

/// Reads the key records of an archive up to the first invalid one, after which no key is known.
pub async fn known(site: &Site) -> Result<Keys, LogError> {
    let mut keys = Keys::default();
    for number in 1..=KEYS_MAX {
        let Some(note) = site.read(&path(&site.root, number)).await? else { break };
        let Ok(record) = KeyRecord::parse(&note, &site.archive_id, &keys.records) else { break };
        keys.records.push(record);
    }
    Ok(keys)
}

/// Reads `strongroom.json` and returns its hash, which key records name.
pub async fn manifest_hash(site: &Site) -> Result<Hash, LogError> {
    Ok(Hash::of(&site.read_present(&site.root.join(layout::MANIFEST)).await?))
}

/// A new key, and what its record says about it.
#[derive(Debug)]
pub struct NewKey<'s> {
    /// The signer of the current key; `None` if the archive has no key yet.
    pub old: Option<&'s Signer>,
    pub new: &'s Signer,
    /// The heads up to which the earlier keys are valid.
    pub heads: Vec<TreeHead>,
    pub time: DateTime<Utc>,
}

/// Appends a record for a new key. The record is signed by the new key and, if the archive has a
/// key already, by the current key too.
pub async fn append(site: &Site, keys: &mut Keys, added: NewKey<'_>) -> Result<(), LogError> {
    let NewKey { old, new, mut heads, time } = added;
    heads.sort_by_key(|head| head.log.name());
    let record = KeyRecord {
        number: keys.records.len() as u64 + 1,
        archive_id: site.archive_id.clone(),
        manifest: manifest_hash(site).await?,
        time: time.to_rfc3339_opts(SecondsFormat::Secs, true),
        key: new.public(),
        previous: keys.current(),
        heads,
    };
    let (name, text) = (signed_as(&site.archive_id), record.text());
    let mut note = format!("{text}\n");
    for signer in old.into_iter().chain([new]) {
        note += &signer.sign(&name, &text)?;
    }
    let path = path(&site.root, record.number);
    let put = site.store.put_proof(&path, Bytes::from(note)).await;
    if put.map_err(|source| LogError::Write { path: path.clone(), source })? {
        keys.records.push(record);
        return Ok(());
    }
    // Another process has appended a record first. If that record gave the archive the same key,
    // this call succeeds.
    *keys = load(site).await?;
    match keys.current() {
        Some(current) if current == new.public() => Ok(()),
        _ => Err(LogError::Differs { path }),
    }
}
