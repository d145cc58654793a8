//! Records the store's answers about the objects that evidence depends on: versions, locks, holds.
//!
//! Invariant: if the store refuses an answer, the refusal is recorded.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use strongroom_archive::Archive;
use strongroom_archive::records::keys;
use strongroom_schemas::Table;
use strongroom_store::error::StoreError;
use strongroom_store::options::LockMode;
use strongroom_store::s3::Condition;
use strongroom_store::{Bucket, Store, background, layout};

use super::error::EvidenceError;
use super::ledger::Ledger;

const FORMAT: &str = "strongroom-store-1";
/// Number of objects that are queried at the same time.
const ASKED_AT_ONCE: usize = 16;

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Returns the names of the objects that evidence depends on, relative to the root, each with the
/// version that its commit names, if any.
fn objects(archive: &Archive, ledger: &Ledger) -> BTreeMap<String, Option<String>> {
    let mut objects = BTreeMap::from([(layout::MANIFEST.to_owned(), None)]);
    for record in &ledger.keys.records {
        let path = keys::path(Path::new(""), record.number);
        objects.insert(path.display().to_string(), None);
    }
    for (log, volume) in &ledger.volumes {
        objects.insert(format!("{}/{}/checkpoint/{}", log.name(), layout::TLOG, volume.note_name), None);
        for entry in &volume.entries {
            let commit = layout::commit(&archive.site().volume(*log), entry.index);
            if let Ok(commit) = commit.strip_prefix(archive.root()) {
                objects.insert(commit.display().to_string(), None);
            }
        }
    }
    for table in [Table::Events, Table::Alerts] {
        for (log, _, add) in ledger.adds(table) {
            objects.insert(format!("{}/{}", log.name(), add.path), add.version.clone());
        }
    }
    objects
}

/// Returns the store's present answers about every object that the evidence of the period depends
/// on. `docs/proof.md` describes the format, `strongroom-store-1`.
///
/// # Errors
/// If no request to the store is possible at all. If the store refuses a single answer, the
/// document says so.
pub fn attest(archive: &Archive, ledger: &Ledger) -> Result<Value, EvidenceError> {
    let begun = Utc::now();
    let objects = objects(archive, ledger);
    let root = archive.root().to_owned();
    let (kind, bucket, listed) = match &archive.site().store {
        Store::Local => ("local", Value::Null, local(&root, &objects)),
        Store::S3(bucket) => {
            let bucket = bucket.clone();
            let asked = background::wait(async move {
                Ok::<_, StoreError>((settings(&bucket).await, in_bucket(&bucket, &root, objects).await))
            })?;
            ("bucket", asked.0, asked.1)
        }
    };
    Ok(json!({
        "format": FORMAT,
        "location": archive.root().display().to_string(),
        "store": kind,
        "asked_from": text(begun),
        "asked_to": text(Utc::now()),
        "bucket": bucket,
        "objects": listed,
    }))
}

fn local(root: &Path, objects: &BTreeMap<String, Option<String>>) -> Vec<Value> {
    let said = objects.keys().map(|name| match std::fs::metadata(root.join(name)) {
        Ok(found) => json!({
            "object": name,
            "bytes": found.len(),
            "modified": found.modified().ok().map(|time| text(time.into())),
            "read_only": found.permissions().readonly(),
        }),
        Err(error) => json!({ "object": name, "unknown": error.to_string() }),
    });
    said.collect()
}

/// Returns the value of a setting, `null` if it is not set, or the reason why it is unknown.
fn said<T>(condition: Condition<T>, value: impl FnOnce(T) -> Value) -> Value {
    match condition {
        Condition::Known(known) => value(known),
        Condition::Unset => Value::Null,
        Condition::Unknown(failure) => json!({ "unknown": failure.to_string() }),
    }
}

async fn settings(bucket: &Bucket) -> Value {
    let Bucket { s3, .. } = bucket;
    json!({
        "name": s3.bucket(),
        "object_lock": said(s3.lock_configuration().await, |lock| {
            json!({ "enabled": lock.enabled, "default": lock.default })
        }),
        "versioning": said(s3.versioning().await, Value::from),
        "clock_ahead_seconds": match s3.clock_ahead().await {
            Ok(seconds) => json!(seconds),
            Err(failure) => json!({ "unknown": failure.to_string() }),
        },
    })
}

async fn in_bucket(bucket: &Bucket, root: &Path, objects: BTreeMap<String, Option<String>>) -> Vec<Value> {
    let s3 = bucket.s3.clone();
    let listed = s3.all_versions().await;
    let (mut listed, unlisted) = match listed {
        Ok(listed) => (listed, None),
        Err(failure) => (BTreeMap::new(), Some(failure.to_string())),
    };
    let asked = objects.into_iter().map(|(name, pinned)| {
        let versions = listed.remove(&name).unwrap_or_default();
        let (s3, path, unlisted) = (s3.clone(), root.join(&name), unlisted.clone());
        async move {
            // If no commit names a version, the version that the archive wrote is the oldest one.
            let oldest = versions.iter().rev().filter(|version| !version.is_delete_marker);
            let oldest =
                oldest.min_by_key(|version| version.modified).and_then(|version| version.version.clone());
            let version = pinned.or(oldest);
            let lock = s3.object_lock(&path, version.as_deref()).await;
            let hold = s3.hold(&path, version.as_deref()).await;
            let asked = Utc::now();
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    json!({
                        "version_id": version.version,
                        "modified": text(version.modified),
                        "delete_marker": version.is_delete_marker,
                    })
                })
                .collect();
            json!({
                "object": name,
                "version_id": version,
                "versions": match unlisted {
                    None => json!(versions),
                    Some(failure) => json!({ "unknown": failure }),
                },
                "lock": said(lock, |lock| json!({
                    "mode": lock.mode.map(LockMode::as_str),
                    "retain_until": lock.until.map(text),
                })),
                "legal_hold": said(hold, |is_held| json!(if is_held { "ON" } else { "OFF" })),
                "asked": text(asked),
            })
        }
    });
    let mut answers = stream::iter(asked).buffered(ASKED_AT_ONCE);
    let mut all = Vec::new();
    while let Some(answer) = answers.next().await {
        all.push(answer);
    }
    all
}
