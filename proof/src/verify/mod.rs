//! Checks an archive from its bytes: the checks that `docs/proof.md` lists, under the same names.
//!
//! Invariants: no statement in an archive is believed before it has been recomputed. Every fault
//! becomes a finding, and the rest is still checked. Everything that was not checked is reported in
//! words. The archive is only read.

mod anchors;
mod bucket;
mod clock;
mod delta;
mod files;
mod finding;
mod positions;
mod retention;
mod volume;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use strongroom_archive::delta::facts::CommitFacts;
use strongroom_archive::records::{drops, keys};
use strongroom_archive::site::Site;
use strongroom_archive::{Archive, Records};
use strongroom_schemas::record::Sha256Hash;
use strongroom_schemas::{Table, VolumeId};
use strongroom_store::{Store, background, layout};
use strongroom_tlog::checkpoint::{CheckpointFault, TreeHead, check_note};
use strongroom_tlog::keys::{KeyRecord, Keys};
use strongroom_tlog::note::{Note, PublicKey, base64, from_base64};
use strongroom_tlog::timestamp::TimestampAuthorities;
use strongroom_tlog::tree;

pub use self::anchors::Witnesses;
pub use self::finding::{Finding, FindingKind};
use super::error::ProofError;

/// Number of seconds for which commits may wait for a signature. After that, a missing signature is
/// a finding.
const UNPROVEN_SECONDS_MAX: i64 = 3600;
/// Maximum number of findings that are kept. A single fault can cause findings in very many places.
const FINDINGS_MAX: usize = 10_000;

/// What to check.
#[derive(Debug, Default)]
pub struct Options {
    /// Read only files of this date and later. Logs, signatures and positions are always checked
    /// for all dates.
    pub from: Option<NaiveDate>,
    /// Read only files of this date and earlier.
    pub to: Option<NaiveDate>,
    /// Heads that an earlier check found valid. The logs must continue these heads. Files that are
    /// named by commits under these heads are not read again.
    pub since: Vec<TreeHead>,
    /// Keys that the caller obtained out of band.
    pub public_keys: Vec<PublicKey>,
    /// Checkpoints that the caller kept, each with a name for messages.
    pub remembered: Vec<(String, Vec<u8>)>,
    /// Witnesses that must have seen the logs.
    pub witnesses: Witnesses,
    /// The certificate authorities that timestamps must lead to. If any are given, each signed log
    /// must have a timestamp.
    pub timestamp_authorities: TimestampAuthorities,
    /// Number of threads that read files; at least one is used.
    pub threads: usize,
}

impl From<&CheckpointFault> for FindingKind {
    fn from(fault: &CheckpointFault) -> Self {
        match fault {
            CheckpointFault::Malformed | CheckpointFault::Name => FindingKind::CheckpointMalformed,
            CheckpointFault::Origin { .. } => FindingKind::CheckpointOrigin,
            CheckpointFault::Signature | CheckpointFault::KeyUnknown { .. } => {
                FindingKind::CheckpointSignature
            }
        }
    }
}

/// Counts of what was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub commits: u64,
    pub checkpoints: u64,
    pub cosignatures: u64,
    pub timestamps: u64,
    pub tiles: u64,
    pub files: u64,
    pub bytes: u64,
    pub records: u64,
    /// Records that were redacted before they were written, according to their rows.
    #[serde(skip_serializing_if = "is_zero")]
    pub redacted: u64,
    pub partitions: u64,
    pub objects: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The outcome of a check.
#[derive(Clone, Debug)]
pub struct Report {
    pub archive_id: String,
    pub location: String,
    pub time: DateTime<Utc>,
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
    pub not_checked: Vec<String>,
    pub checked: Checked,
    /// For each log, the largest tree that a known key has signed and that matches the commits.
    pub heads: Vec<TreeHead>,
}

impl Report {
    /// An empty report of an archive.
    pub fn new(archive_id: &str, location: &Path) -> Report {
        Report {
            archive_id: archive_id.to_owned(),
            location: location.display().to_string(),
            time: Utc::now(),
            findings: Vec::new(),
            not_checked: Vec::new(),
            checked: Checked::default(),
            heads: Vec::new(),
        }
    }

    /// Adds a finding.
    pub fn find(&mut self, kind: FindingKind, place: impl Into<String>, detail: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, place: place.into(), detail: detail.into() });
        } else if self.findings.len() == FINDINGS_MAX {
            self.not_checked
                .push(format!("there are more than {FINDINGS_MAX} findings; the rest are left out"));
        }
    }

    /// Returns the report in the format of `docs/proof.md`.
    pub fn to_json(&self) -> serde_json::Value {
        let heads = self.heads.iter().map(|head| {
            let log = head.log.origin(&self.archive_id);
            serde_json::json!({ "log": log, "size": head.size, "root": base64(&head.root.0) })
        });
        serde_json::json!({
            "format": "strongroom-verify-1",
            "archive_id": self.archive_id,
            "location": self.location,
            "time": self.time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            "result": if self.findings.is_empty() { "ok" } else { "findings" },
            "findings": self.findings,
            "not_checked": self.not_checked,
            "checked": self.checked,
            "heads": heads.collect::<Vec<_>>(),
        })
    }
}

/// Returns the heads in a JSON report, or `None` if `report` is not a valid report about this
/// archive.
pub fn heads_of_report(report: &[u8], archive_id: &str) -> Option<Vec<TreeHead>> {
    let report: serde_json::Value = serde_json::from_slice(report).ok()?;
    if report["archive_id"].as_str()? != archive_id {
        return None;
    }
    let heads = report["heads"].as_array()?.iter().map(|head| {
        let log = VolumeId::parse(head["log"].as_str()?.strip_prefix(&format!("strongroom/{archive_id}/"))?)?;
        let root = from_base64(head["root"].as_str()?)?;
        Some(TreeHead { log, size: head["size"].as_u64()?, root: Sha256Hash(root.try_into().ok()?) })
    });
    heads.collect()
}

/// Receives the progress of reading files, from any thread.
pub trait Watch: Sync {
    fn read(&self, _done: u64, _total: u64) {}
}

/// Checks `archive`. Damage is not an error but a finding in the report.
///
/// # Errors
/// If the store cannot be read. Such an error does not mean that the archive is damaged.
pub fn verify(
    archive: &Archive,
    options: &Options,
    records: &dyn Records,
    watch: &dyn Watch,
) -> Result<Report, ProofError> {
    let mut report = Report::new(archive.id(), archive.root());
    let (site, public_keys) = (archive.site().clone(), options.public_keys.clone());
    let (keys, found, mut report) = background::wait(async move {
        let keys = check_keys(&site, &public_keys, &mut report).await?;
        let found = retention::records(&site, &keys, &mut report).await?;
        Ok::<_, ProofError>((keys, found, report))
    })?;

    let mut volumes: BTreeMap<VolumeId, Vec<CommitFacts>> = BTreeMap::new();
    let site = archive.site().clone();
    let (all, mut report) = background::wait(async move {
        let mut all = drops::volumes(&site).await?;
        for table in Table::ALL {
            if site.is_linked(&layout::table(&site.root, table)) {
                all.retain(|log| log.table != table);
            }
            names_in(&site, &layout::table(&site.root, table), FindingKind::CommitMissing, &mut report)
                .await?;
        }
        Ok::<_, ProofError>((all, report))
    })?;
    retention::missing(&keys, &all, &found, &mut report);
    for log in all {
        let (site, keys) = (archive.site().clone(), keys.clone());
        let since = options.since.iter().find(|head| head.log == log).cloned();
        let (witnesses, authorities) = (options.witnesses.clone(), options.timestamp_authorities.clone());
        let mut taken = std::mem::replace(&mut report, Report::new("", Path::new("")));
        let (commits, back) = background::wait(async move {
            let commits = volume::check(&site, log, &keys, since, &mut taken).await?;
            anchors::check(&site, log, &keys, &witnesses, &commits, &mut taken).await?;
            anchors::check_timestamps(&site, log, &authorities, &mut taken).await?;
            Ok::<_, ProofError>((commits, taken))
        })?;
        report = back;
        volumes.insert(log, commits);
    }
    clock::check(&volumes, &found, &mut report);
    check_remembered(archive.id(), options, &keys, (&volumes, &found), &mut report);
    let truncated = retention::truncated(&volumes, &found);
    positions::check(&retention::with_dropped(&volumes, &found), &mut report);
    files::check(archive, &volumes, options, records, watch, &mut report);
    match &archive.site().store {
        Store::Local => bucket::unnamed_files(archive.root(), &volumes, &mut report)?,
        Store::S3(bucket) => {
            let (bucket, root) = (bucket.clone(), archive.root().to_owned());
            let (years, dropped) = (found.policy.years, found.dropped.keys().copied().collect());
            let mut taken = report;
            report = background::wait(async move {
                bucket::check(&bucket, &root, (years, dropped), &volumes, &mut taken).await?;
                Ok::<_, ProofError>(taken)
            })?;
        }
    }
    let (site, mut taken) = (archive.site().clone(), report);
    report = background::wait(async move {
        retention::report_truncated(&site, truncated, &mut taken).await?;
        retention::objects(&site, &found, &mut taken).await?;
        Ok::<_, ProofError>(taken)
    })?;
    if options.from.is_some() || options.to.is_some() {
        let day = |day: Option<NaiveDate>| day.map_or("…".to_owned(), |day| day.to_string());
        report.not_checked.push(format!(
            "files of other dates than {} to {}: their bytes were not read",
            day(options.from),
            day(options.to)
        ));
    }
    Ok(report)
}

const LINKED: &str = "a symbolic link is in its path, and an archive has none";

/// Names in a folder of an archive, sorted. If it is not a folder, or is a link or below one, that is a
/// finding of `kind`, and it has no names.
async fn names_in(
    site: &Site,
    folder: &Path,
    kind: FindingKind,
    report: &mut Report,
) -> Result<Vec<String>, ProofError> {
    let place = folder.strip_prefix(&site.root).unwrap_or(folder).to_string_lossy();
    if site.is_linked(folder) {
        report.find(kind, place, LINKED);
        return Ok(Vec::new());
    }
    if let Store::Local = site.store
        && std::fs::symlink_metadata(folder).is_ok_and(|found| !found.is_dir())
    {
        report.find(kind, place, "it is not a folder");
        return Ok(Vec::new());
    }
    let mut names = site.store.names(folder).await?;
    names.sort();
    Ok(names)
}

/// Reads the bytes of a file that was listed. Returns no bytes if it is not a file, is a link or
/// below a link, or is larger than the maximum size of its kind.
async fn read(site: &Site, path: &Path) -> Result<Bytes, ProofError> {
    Ok(site.read(path).await?.unwrap_or_default())
}

async fn check_keys(site: &Site, public_keys: &[PublicKey], report: &mut Report) -> Result<Keys, ProofError> {
    let mut keys = Keys::default();
    let mut names = names_in(site, &site.root.join(layout::KEYS), FindingKind::KeyRecord, report).await?;
    names.retain(|name| !name.starts_with('.'));
    for (at, name) in names.iter().enumerate() {
        let path = keys::path(&site.root, at as u64 + 1);
        let place = format!("{}/{name}", layout::KEYS);
        if *name != format!("{:08}", at + 1) {
            report.find(FindingKind::KeyRecord, place, format!("record {} is missing here", at + 1));
            break;
        }
        let note = read(site, &path).await?;
        match KeyRecord::parse(&note, &site.archive_id, &keys.records) {
            Ok(record) => keys.records.push(record),
            Err(fault) => {
                report.find(FindingKind::KeyRecord, place, fault.to_string());
                break;
            }
        }
    }
    let path = site.root.join(layout::MANIFEST);
    let manifest = match site.read(&path).await? {
        Some(manifest) => manifest,
        _ => {
            report.find(
                FindingKind::ManifestMalformed,
                layout::MANIFEST,
                "it is missing, or something hides it",
            );
            Bytes::new()
        }
    };
    let named = serde_json::from_slice::<serde_json::Value>(&manifest).ok();
    let named = named.as_ref().and_then(|manifest| manifest["public_key"].as_str());
    if named.is_some() && names.is_empty() {
        let place = format!("{}/00000001", layout::KEYS);
        report.find(FindingKind::KeyRecord, place, "it is missing, but strongroom.json names a public key");
    }
    let Some(first) = keys.records.first() else {
        match public_keys {
            [] => report.not_checked.push(
                "who wrote the archive: it has no key, so nothing is signed; it was only checked against its own log"
                    .to_owned(),
            ),
            _ => report.find(FindingKind::KeyUntrusted, layout::KEYS, "the archive has no key, so it cannot have the given one"),
        }
        return Ok(keys);
    };
    if first.manifest != Sha256Hash::of(&manifest) {
        report.find(
            FindingKind::ManifestChanged,
            layout::MANIFEST,
            "its SHA-256 differs from the key records",
        );
    }
    if let Some(named) = named
        && PublicKey::parse(named).ok() != Some(first.key)
    {
        report.find(FindingKind::KeyMismatch, layout::MANIFEST, "its key differs from the first key record");
    }
    if public_keys.is_empty() {
        report.not_checked.push(format!(
            "whose key it is: no public key was given, so the archive's own key was used ({})",
            keys.current().map_or_else(String::new, |key| key.to_string())
        ));
    } else if !keys.records.iter().any(|record| public_keys.contains(&record.key)) {
        report.find(
            FindingKind::KeyUntrusted,
            layout::KEYS,
            "none of the given public keys belongs to the archive",
        );
    }
    Ok(keys)
}

fn check_remembered(
    archive_id: &str,
    options: &Options,
    keys: &Keys,
    (volumes, found): (&BTreeMap<VolumeId, Vec<CommitFacts>>, &retention::Found),
    report: &mut Report,
) {
    let mut heads: Vec<(String, TreeHead)> =
        options.since.iter().map(|head| ("the last check".to_owned(), head.clone())).collect();
    for (name, note) in &options.remembered {
        let origin = Note::parse(note).and_then(|note| note.text.lines().next());
        let log = origin
            .and_then(|origin| VolumeId::parse(origin.strip_prefix(&format!("strongroom/{archive_id}/"))?));
        let Some(log) = log else {
            report.find(FindingKind::RememberedInvalid, name, "not a checkpoint of this archive");
            continue;
        };
        match check_note(note, &log.origin(archive_id), &keys.all()) {
            Ok((size, root, _)) => heads.push((name.clone(), TreeHead { log, size, root })),
            Err(fault) => report.find(FindingKind::RememberedInvalid, name, fault.to_string()),
        }
    }
    for (name, head) in heads {
        if retention::remembered(&name, &head, found, report) {
            continue;
        }
        let log = head.log.name();
        let newest = report.heads.iter().find(|known| known.log == head.log).map_or(0, |known| known.size);
        let commits = volumes.get(&head.log).map_or(&[][..], Vec::as_slice);
        if head.size > newest {
            let detail =
                format!("{name} has size {}, but the newest valid checkpoint is of size {newest}", head.size);
            report.find(FindingKind::RolledBack, format!("{log}/_tlog/checkpoint"), detail);
        }
        if head.size <= commits.len() as u64 {
            let leaves: Vec<Sha256Hash> =
                commits[..head.size as usize].iter().map(|commit| commit.leaf).collect();
            if tree::root(&leaves) != head.root {
                let detail = format!("at size {} the log differs from {name}", head.size);
                report.find(FindingKind::Forked, format!("{log}/_tlog/checkpoint"), detail);
            }
        }
    }
}

/// Volumes of one table, oldest first.
fn volumes_of(
    volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>,
    table: Table,
) -> impl Iterator<Item = (&VolumeId, &Vec<CommitFacts>)> {
    volumes.iter().filter(move |(log, _)| log.table == table)
}
