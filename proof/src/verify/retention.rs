//! Checks the retention records (policies, legal holds and dropped volumes) against the archive, and
//! reads the clock records.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use futures::{StreamExt as _, stream};
use serde_json::Map;
use strongroom_archive::delta::facts::{AddFacts, CommitFacts};
use strongroom_archive::records::clock::ClockRecords;
use strongroom_archive::records::drops::{self, FinalPositions};
use strongroom_archive::records::holds::Holds;
use strongroom_archive::records::policy::{self, FoundPolicy, Policy};
use strongroom_archive::records::text::{DropRecord, time_text};
use strongroom_archive::site::Site;
use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_store::s3::Condition;
use strongroom_store::{Bucket, Store, layout};
use strongroom_tlog::checkpoint::TreeHead;
use strongroom_tlog::keys::Keys;

use super::{FindingKind, ProofError, Report, names_in};

/// Number of objects whose legal holds are requested at the same time.
const HOLDS_AT_ONCE: usize = 16;

/// The valid retention records of an archive.
pub(super) struct Found {
    pub(super) policy: Policy,
    pub(super) dropped: BTreeMap<VolumeId, (DropRecord, FinalPositions)>,
    pub(super) clock: ClockRecords,
    /// Objects under a legal hold that is not released: path, version and name of the hold.
    held: Vec<(String, Option<String>, String)>,
}

/// Reads the records of retention and holds, and reports the invalid ones.
pub(super) async fn records(site: &Site, keys: &Keys, report: &mut Report) -> Result<Found, ProofError> {
    let below = |path: &Path| path.strip_prefix(&site.root).unwrap_or(path).to_string_lossy().into_owned();
    let folders = [
        (layout::RETENTION, FindingKind::RetentionRecord),
        (layout::HOLDS, FindingKind::HoldRecord),
        (layout::DROPPED, FindingKind::DropRecord),
    ];
    for (folder, kind) in folders {
        names_in(site, &site.root.join(folder), kind, report).await?;
    }
    let FoundPolicy { policy, read: count, wrong } = policy::load(site, keys).await?;
    if let Some(wrong) = wrong {
        report.find(FindingKind::RetentionRecord, below(&wrong.path), wrong.fault.to_string());
    } else {
        let names = site.record_names(layout::RETENTION).await?;
        if names.len() as u64 != count {
            let detail = format!(
                "{} names here are not records, or an earlier record is missing",
                names.len() as u64 - count
            );
            report.find(FindingKind::RetentionRecord, layout::RETENTION, detail);
        }
    }
    let holds = Holds::load(site).await?;
    if let Some(wrong) = &holds.wrong {
        report.find(FindingKind::HoldRecord, below(&wrong.path), wrong.fault.to_string());
    }
    let unsigned: u64 = holds.all.iter().map(|hold| hold.unsigned).sum();
    if unsigned > 0 && !keys.records.is_empty() {
        report
            .not_checked
            .push(format!("who placed or released holds: nobody has signed {unsigned} of the records"));
    }
    let held: Vec<_> = holds
        .active()
        .flat_map(|hold| {
            let name = hold.record.name.clone();
            hold.listed().map(move |object| (object.path.clone(), object.version.clone(), name.clone()))
        })
        .collect();
    let clock = ClockRecords::load(site, keys).await?;
    if let Some(wrong) = &clock.wrong {
        report.find(FindingKind::ClockRecord, below(&wrong.path), wrong.fault.to_string());
    }
    let dropped = drops::load(site).await?;
    for (place, fault) in dropped.wrong {
        report.find(FindingKind::DropRecord, place, fault.to_string());
    }
    for (log, (record, _)) in &dropped.good {
        report.not_checked.push(format!(
            "{}: it was dropped at {}, {} years after it ended, with {} files and {} rows ({})",
            log.name(),
            time_text(record.time),
            record.years,
            record.files,
            record.rows,
            record.reason
        ));
    }
    Ok(Found { policy, dropped: dropped.good, clock, held })
}

/// Reports each volume that a key record names and that neither exists nor was dropped.
pub(super) fn missing(keys: &Keys, there: &[VolumeId], found: &Found, report: &mut Report) {
    let mut told = HashSet::new();
    for record in &keys.records {
        for head in &record.heads {
            let is_known = there.contains(&head.log) || found.dropped.contains_key(&head.log);
            if !is_known && told.insert(head.log) {
                let detail = format!(
                    "key record {} names {} commits of it, but it is missing and was not dropped",
                    record.number, head.size
                );
                report.find(FindingKind::VolumeMissing, head.log.name(), detail);
            }
        }
    }
}

/// A volume that is missing, or has fewer commits than a commit of another volume states.
pub(super) struct TruncatedVolume {
    log: VolumeId,
    size: u64,
    there: Option<u64>,
    /// Path of the commit that states a larger number.
    place: String,
}

/// Returns the volumes that have fewer commits than a commit of another volume states. A dropped
/// volume counts with the number of commits in its drop record.
pub(super) fn truncated(
    volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>,
    found: &Found,
) -> Vec<TruncatedVolume> {
    let mut named: BTreeMap<VolumeId, (u64, String)> = BTreeMap::new();
    for (log, commits) in volumes {
        for (version, commit) in commits.iter().enumerate() {
            for (other, size) in &commit.volumes {
                let (most, place) = named.entry(*other).or_default();
                if size > most {
                    (*most, *place) = (*size, format!("{}/_delta_log/{version:020}.json", log.name()));
                }
            }
        }
    }
    let short = named.into_iter().filter_map(|(log, (size, place))| {
        let dropped = || found.dropped.get(&log).map(|(record, _)| record.size);
        let there = volumes.get(&log).map(|commits| commits.len() as u64).or_else(dropped);
        there.is_none_or(|there| there < size).then_some(TruncatedVolume { log, size, there, place })
    });
    short.collect()
}

/// Reports the truncated volumes, except those whose commits were made during this check.
pub(super) async fn report_truncated(
    site: &Site,
    truncated: Vec<TruncatedVolume>,
    report: &mut Report,
) -> Result<(), ProofError> {
    for TruncatedVolume { log, size, there, place } in truncated {
        // If the last of the stated commits exists now, it was made during this check. If a commit
        // before it is missing, that is a finding of another kind.
        let path = layout::commit(&site.volume(log), size - 1);
        // What a link leads to is not the archive's.
        let is_elsewhere = there.is_none() && site.is_linked(&path);
        let exists = site.store.exists(&path).await;
        if exists.map_err(|source| ProofError::Read { path, source })? && !is_elsewhere {
            continue;
        }
        let name = log.name();
        let is_reported = |report: &Report| {
            report.findings.iter().any(|told| told.kind == FindingKind::VolumeMissing && told.place == name)
        };
        match there {
            Some(there) => {
                let detail = format!("{place} names {size} commits of it, but it has {there}");
                report.find(FindingKind::CommitsCut, name, detail);
            }
            None if is_reported(report) => {}
            None => {
                let detail =
                    format!("{place} names {size} commits of it, but it is missing and was not dropped");
                report.find(FindingKind::VolumeMissing, name, detail);
            }
        }
    }
    Ok(())
}

/// Returns all volumes. Each dropped volume is replaced by one commit with its final positions,
/// from which later volumes continue.
pub(super) fn with_dropped<'v>(
    volumes: &'v BTreeMap<VolumeId, Vec<CommitFacts>>,
    found: &Found,
) -> Cow<'v, BTreeMap<VolumeId, Vec<CommitFacts>>> {
    if found.dropped.is_empty() {
        return Cow::Borrowed(volumes);
    }
    let mut all = volumes.clone();
    for (log, (record, end)) in &found.dropped {
        let add = AddFacts {
            path: format!("({} dropped files)", record.files),
            rows: Some(record.rows),
            offsets: end.offsets.clone(),
            ..AddFacts::default()
        };
        let txns = end.txns.clone();
        let commit = CommitFacts {
            leaf: Hash([0; 32]),
            time_ms: None,
            adds: vec![add],
            txns,
            counts: None,
            is_ours: false,
            volumes: BTreeMap::new(),
            events_format: None,
            table: Map::new(),
        };
        all.insert(*log, vec![commit]);
    }
    Cow::Owned(all)
}

/// Compares a head that the caller kept with the drop record of its volume. Returns `true` if the
/// volume was dropped.
pub(super) fn remembered(name: &str, head: &TreeHead, found: &Found, report: &mut Report) -> bool {
    let Some((record, _)) = found.dropped.get(&head.log) else { return false };
    let place = format!("{}/{}", layout::DROPPED, head.log.name().replace('/', "-"));
    if head.size > record.size {
        let detail =
            format!("{name} has size {} of it, but it was dropped with {} commits", head.size, record.size);
        report.find(FindingKind::RolledBack, place, detail);
    } else if head.size == record.size && head.root != record.root {
        report.find(
            FindingKind::Forked,
            place,
            format!("it was dropped with a tree that differs from {name}"),
        );
    } else if head.size < record.size {
        let detail = format!("whether the dropped volume continues {name}, of size {}", head.size);
        report.not_checked.push(format!("{}: {detail}", head.log.name()));
    }
    true
}

/// Checks that nothing remains of dropped volumes, that every object under a legal hold exists, and
/// that in a bucket the store holds it.
pub(super) async fn objects(site: &Site, found: &Found, report: &mut Report) -> Result<(), ProofError> {
    match &site.store {
        Store::Local => {
            for log in found.dropped.keys() {
                if std::fs::symlink_metadata(site.volume(*log)).is_ok() {
                    report.find(
                        FindingKind::DropUnfinished,
                        log.name(),
                        "it was dropped, but some of it remains",
                    );
                }
            }
            for (path, _, name) in &found.held {
                let is_file =
                    std::fs::symlink_metadata(site.root.join(path)).is_ok_and(|found| found.is_file());
                if !is_file {
                    report.find(
                        FindingKind::HoldMissing,
                        path.as_str(),
                        format!("it is under hold \"{name}\", but it is missing"),
                    );
                }
            }
        }
        Store::S3(bucket) => held(site, bucket, found, report).await,
    }
    Ok(())
}

async fn held(site: &Site, bucket: &Bucket, found: &Found, report: &mut Report) {
    let asked = found.held.clone().into_iter().map(|(path, version, name)| {
        let (s3, full) = (bucket.s3.clone(), site.root.join(&path));
        async move {
            let held = s3.hold(&full, version.as_deref()).await;
            (path, name, held)
        }
    });
    let mut asked = stream::iter(asked).buffered(HOLDS_AT_ONCE);
    let mut unknown = 0u64;
    while let Some((path, name, held)) = asked.next().await {
        match held {
            Condition::Known(true) => {}
            Condition::Known(false) | Condition::Unset => {
                report.find(
                    FindingKind::HoldMissing,
                    path.as_str(),
                    format!("it is under hold \"{name}\", but the store does not hold it"),
                );
            }
            Condition::Unknown(_) => unknown += 1,
        }
    }
    if unknown > 0 {
        report.not_checked.push(format!("whether {unknown} objects are held: the store did not report it"));
    }
}
