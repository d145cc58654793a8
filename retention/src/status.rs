//! Reports until when each volume is protected, which volume expires next, what is under a legal
//! hold, and which objects lack their protection.
//!
//! Invariant: this module only reads. In a bucket, the lock of each object is requested; if the
//! store does not report a lock, that is an issue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use serde::{Serialize, Serializer};
use strongroom_archive::Archive;
use strongroom_archive::records::clock::ClockRecords;
use strongroom_archive::records::drops;
use strongroom_archive::records::holds::{Hold, Holds};
use strongroom_archive::records::policy::{self, FoundPolicy, Policy};
use strongroom_archive::records::text::{DropRecord, retention_end, time_text};
use strongroom_schemas::VolumeId;
use strongroom_store::options::LockMode;
use strongroom_store::s3::Protection;
use strongroom_store::{Bucket, Store, layout};

use super::drop::{self, ClockTrust};
use super::hold::{HoldState, HoldTargets, wanted};
use super::objects::{self, volume_of};
use super::{NAMES_MAX, OBJECTS_AT_ONCE, Progress, RetentionError, Work};

/// Maximum number of issues that are listed.
const ISSUES_MAX: usize = 10_000;

/// A problem for the operator to examine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issue {
    pub kind: IssueKind,
    #[serde(rename = "where")]
    pub place: String,
    pub detail: String,
}

/// The kind of an issue. A kind that `verify` also reports has the same name in its reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueKind {
    LockMissing,
    LockMode,
    LockUnknown,
    RetentionShort,
    FileMissing,
    HoldMissing,
    HoldOpen,
    DropUnfinished,
    DropRecord,
    ClockRecord,
    RetentionRecord,
    HoldRecord,
}

impl IssueKind {
    /// Returns the name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            IssueKind::LockMissing => "lock_missing",
            IssueKind::LockMode => "lock_mode",
            IssueKind::LockUnknown => "lock_unknown",
            IssueKind::RetentionShort => "retention_short",
            IssueKind::FileMissing => "file_missing",
            IssueKind::HoldMissing => "hold_missing",
            IssueKind::HoldOpen => "hold_open",
            IssueKind::DropUnfinished => "drop_unfinished",
            IssueKind::DropRecord => "drop_record",
            IssueKind::ClockRecord => "clock_record",
            IssueKind::RetentionRecord => "retention_record",
            IssueKind::HoldRecord => "hold_record",
        }
    }
}

impl fmt::Display for IssueKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl Serialize for IssueKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The protection of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeStatus {
    /// `<table>/<year>`; empty for objects outside volumes: keys and records.
    pub name: String,
    pub commits: u64,
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
    /// In a bucket: number of objects, all of whose locks were requested.
    pub objects: u64,
    /// The earliest date on which the retention of one of its objects ends.
    pub first: Option<DateTime<Utc>>,
    /// The date on which the retention of the whole volume ends.
    pub until: Option<DateTime<Utc>>,
    /// Objects under a legal hold.
    pub held: u64,
    /// Objects whose lock is missing, unknown, shorter than promised, or in another mode.
    pub wanting: u64,
    /// Past its retention, and under no hold: `retention drop` may drop it.
    pub is_past: bool,
}

/// The retention of an archive.
#[derive(Clone, Debug)]
pub struct Status {
    pub policy: Policy,
    /// In a bucket: the lock mode of new objects.
    pub mode: Option<LockMode>,
    pub clock: ClockTrust,
    /// In order of table and year; in a bucket, objects outside volumes come last.
    pub volumes: Vec<VolumeStatus>,
    pub holds: Vec<HoldState>,
    pub dropped: Vec<DropRecord>,
    pub issues: Vec<Issue>,
}

impl Status {
    /// Returns the volume whose retention ends first, among those that cannot be dropped yet.
    pub fn next(&self) -> Option<&VolumeStatus> {
        let volumes = self.volumes.iter().filter(|volume| !volume.name.is_empty() && !volume.is_past);
        volumes.filter(|volume| volume.until.is_some()).min_by_key(|volume| volume.until)
    }
}

/// Returns which volumes an archive has, until when each must be kept, and what is wrong.
///
/// # Errors
/// If the archive cannot be read. Anything else that is wrong is an issue.
pub fn status(archive: &Archive, progress: Progress) -> Result<Status, RetentionError> {
    Work::of(archive, progress).run(|work| async move { look(&work).await })
}

struct Issues(Vec<Issue>);

impl Issues {
    fn add(&mut self, kind: IssueKind, place: impl Into<String>, detail: impl Into<String>) {
        if self.0.len() < ISSUES_MAX {
            self.0.push(Issue { kind, place: place.into(), detail: detail.into() });
        }
    }
}

async fn look(work: &Work) -> Result<Status, RetentionError> {
    let mut issues = Issues(Vec::new());
    let below = |path: &std::path::Path| {
        path.strip_prefix(&work.site.root).unwrap_or(path).to_string_lossy().into_owned()
    };
    let FoundPolicy { policy, wrong, .. } = policy::load(&work.site, &work.keys().await?).await?;
    if let Some(wrong) = wrong {
        issues.add(IssueKind::RetentionRecord, below(&wrong.path), wrong.fault.to_string());
    }
    let dropped = drops::load(&work.site).await?;
    for (place, fault) in &dropped.wrong {
        issues.add(IssueKind::DropRecord, place, fault.to_string());
    }
    let holds = Holds::load(&work.site).await?;
    if let Some(wrong) = &holds.wrong {
        issues.add(IssueKind::HoldRecord, below(&wrong.path), wrong.fault.to_string());
    }
    let explained = ClockRecords::load(&work.site, &work.keys().await?).await?;
    if let Some(wrong) = &explained.wrong {
        issues.add(IssueKind::ClockRecord, below(&wrong.path), wrong.fault.to_string());
    }
    let covered = holds.covered();
    let (targets, mut volumes, mode) = match &work.site.store {
        Store::Local => {
            let targets = HoldTargets::local(objects::volumes(work).await?);
            for log in dropped.good.keys() {
                let folder = layout::volume(&work.site.root, *log);
                if std::fs::symlink_metadata(folder).is_ok() {
                    issues.add(
                        IssueKind::DropUnfinished,
                        log.name(),
                        "it was dropped, but some of it remains",
                    );
                }
            }
            (targets, BTreeMap::new(), None)
        }
        Store::S3(bucket) => {
            let found = objects::all(work, bucket).await?;
            for (volume, count) in &found.left {
                let is_dropped = dropped.good.keys().any(|log| log.name() == *volume);
                if is_dropped {
                    issues.add(
                        IssueKind::DropUnfinished,
                        volume,
                        format!("it was dropped, but {count} versions remain"),
                    );
                } else {
                    issues.add(
                        IssueKind::FileMissing,
                        volume,
                        format!("it is hidden by delete markers; {count} versions remain"),
                    );
                }
            }
            for path in &found.missing {
                issues.add(IssueKind::FileMissing, path, "the version that its commit names is missing");
            }
            let volumes = locks(work, bucket, &found.objects, &policy, &covered, &mut issues).await?;
            (HoldTargets::found(found), volumes, Some(bucket.retention.now().mode))
        }
    };
    let clock = drop::clock(work, targets.volumes()).await?;
    for (log, commits) in targets.volumes() {
        let status = volumes.entry(Some(*log)).or_default();
        status.name = log.name();
        status.commits = commits.len() as u64;
        for add in commits.iter().flat_map(|commit| &commit.adds) {
            status.files += 1;
            status.rows += add.rows.unwrap_or(0);
            status.bytes += add.size;
        }
        // Even if the locks end earlier, the promise does not permit a drop before its end.
        let promised = drop::last(commits, explained.made_until(*log, DateTime::<Utc>::MAX_UTC))
            .and_then(|last| retention_end(last, policy.years));
        status.until = status.until.max(promised);
        if mode.is_none() {
            let first = commits.iter().filter_map(|commit| commit.time_ms).min();
            let first = first.and_then(DateTime::from_timestamp_millis);
            status.first = first.and_then(|first| retention_end(first, policy.years));
            let below = format!("{}/", log.name());
            status.held = covered.iter().filter(|path| path.starts_with(&below)).count() as u64;
        }
    }
    let active: Vec<&Hold> = holds.active().collect();
    for hold in active {
        let (wanted, _) = wanted(work, &hold.scope, &targets).await?;
        let listed: BTreeSet<&str> = hold.listed().map(|object| object.path.as_str()).collect();
        let open: Vec<&String> = wanted.iter().filter(|path| !listed.contains(path.as_str())).collect();
        if let Some(first) = open.first() {
            let detail = format!(
                "hold \"{}\" is not yet on {} objects in its scope; run strongroom hold refresh",
                hold.record.name,
                open.len()
            );
            issues.add(IssueKind::HoldOpen, first.as_str(), detail);
            for path in open {
                let of = volume_of(path).and_then(|log| volumes.get_mut(&Some(log)));
                of.into_iter().for_each(|volume| volume.held += 1);
            }
        }
        for object in hold.listed() {
            let path = work.site.root.join(&object.path);
            if let Store::Local = work.site.store
                && !path.exists()
            {
                issues.add(
                    IssueKind::HoldMissing,
                    &object.path,
                    format!("it is under hold \"{}\", but it is missing", hold.record.name),
                );
            }
        }
    }
    for volume in volumes.values_mut() {
        volume.is_past = volume.held == 0
            && volume.until.is_some_and(|until| until <= clock.now)
            && !volume.name.is_empty();
    }
    let rest = volumes.remove(&None);
    Ok(Status {
        policy,
        mode,
        clock,
        volumes: volumes.into_values().chain(rest).collect(),
        holds: holds.all.iter().map(HoldState::of).collect(),
        dropped: dropped.good.into_values().map(|(record, _)| record).collect(),
        issues: issues.0,
    })
}

/// Requests the lock of every object, and adds missing or weak locks to `issues`. Returns the state
/// of the locks of each volume. The entry under the key `None` is for the objects outside volumes.
async fn locks(
    work: &Work,
    bucket: &Bucket,
    objects: &[objects::Object],
    policy: &Policy,
    covered: &BTreeSet<String>,
    issues: &mut Issues,
) -> Result<BTreeMap<Option<VolumeId>, VolumeStatus>, RetentionError> {
    let mut volumes: BTreeMap<Option<VolumeId>, VolumeStatus> = BTreeMap::new();
    let total = objects.len() as u64;
    let mut asked = stream::iter(objects.to_vec())
        .map(|object| async move {
            let lock =
                bucket.s3.protection(&work.site.root.join(&object.path), object.version.as_deref()).await;
            (object, lock)
        })
        .buffered(OBJECTS_AT_ONCE);
    let (mut done, mut unknown) = (0, 0usize);
    while let Some((object, lock)) = asked.next().await {
        done += 1;
        (work.progress)(done, total);
        let status = volumes.entry(volume_of(&object.path)).or_default();
        status.objects += 1;
        let lock: Protection = match lock {
            Ok(lock) => lock,
            Err(failure) => {
                status.wanting += 1;
                unknown += 1;
                if unknown <= NAMES_MAX {
                    issues.add(IssueKind::LockUnknown, &object.path, failure.to_string());
                }
                continue;
            }
        };
        status.held += u64::from(lock.is_held);
        if covered.contains(&object.path) && !lock.is_held {
            issues.add(
                IssueKind::HoldMissing,
                &object.path,
                "it is under a hold, but the store does not hold it; run strongroom hold refresh",
            );
        }
        let wanting = match (lock.mode, lock.until) {
            (None, _) | (_, None) => Some((IssueKind::LockMissing, "it has no lock".to_owned())),
            (Some(LockMode::Governance), _) if bucket.retention.now().mode == LockMode::Compliance => {
                Some((IssueKind::LockMode, "its mode is GOVERNANCE, not COMPLIANCE".to_owned()))
            }
            (Some(_), Some(until)) => {
                // `retention_end` adds a day to the promised years. A lock may be shorter by that
                // day, because clocks may differ.
                let owed = retention_end(object.modified, policy.years)
                    .and_then(|end| end.checked_sub_days(chrono::Days::new(1)));
                let short = owed.is_none_or(|owed| until < owed);
                let until = time_text(until);
                let detail =
                    || format!("it is locked until {until}, but {} years are promised", policy.years);
                short.then(|| (IssueKind::RetentionShort, detail()))
            }
        };
        if let Some((kind, detail)) = wanting {
            status.wanting += 1;
            issues.add(kind, &object.path, detail);
        }
        if let Some(until) = lock.until {
            status.first = Some(status.first.map_or(until, |first| first.min(until)));
            status.until = status.until.max(Some(until));
        }
    }
    if unknown > NAMES_MAX {
        issues.add(IssueKind::LockUnknown, "", format!("and {} more objects", unknown - NAMES_MAX));
    }
    Ok(volumes)
}
