//! Checks the files or objects of the store that the commits do not describe, and the versions,
//! delete markers and locks of objects.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use futures::{StreamExt as _, stream};
use strongroom_archive::delta::facts::CommitFacts;
use strongroom_archive::error::ArchiveError;
use strongroom_schemas::{Table, VolumeId};
use strongroom_store::options::{LockMode, Retention};
use strongroom_store::s3::Condition;
use strongroom_store::{Bucket, durable, layout};

use super::{FindingKind, ProofError, Report, UNPROVEN_SECONDS_MAX};

/// Maximum number of files and folders that are examined although they do not belong to the
/// archive.
const STRANGERS_MAX: usize = 10_000;
/// The folders that an archive has in a volume, apart from those of dates.
const OWN_FOLDERS: [&str; 3] = ["_delta_log", "_tlog", layout::STAGING];
const STRANGER: &str = "a Parquet file where an archive has none; readers by pattern would read it";

/// Number of objects whose locks are requested at the same time.
const LOCKS_AT_ONCE: usize = 16;

/// Reports files of a local archive that no commit names. A file that is younger than the last
/// commit and less than an hour old is not a finding, because a killed run may have left it for the
/// next run to remove.
pub(super) fn unnamed_files(
    root: &Path,
    volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>,
    report: &mut Report,
) -> Result<(), ArchiveError> {
    strangers(root, report)?;
    let young = report.time.timestamp_millis() - UNPROVEN_SECONDS_MAX * 1000;
    for (log, commits) in volumes {
        let volume = layout::volume(root, *log);
        let named: HashSet<&str> =
            commits.iter().flat_map(|commit| &commit.adds).map(|add| add.path.as_str()).collect();
        // The first commit of a volume adds no file, and may be made after those of the second.
        let with_files = commits.iter().filter(|commit| !commit.adds.is_empty());
        let last = with_files.filter_map(|commit| commit.time_ms).max().unwrap_or(0);
        for folder in durable::names(&volume)? {
            let Some(folder) = folder.to_str().filter(|name| name.starts_with("date=")) else { continue };
            if std::fs::symlink_metadata(volume.join(folder)).is_ok_and(|found| !found.is_dir()) {
                report.find(
                    FindingKind::FileUnnamed,
                    format!("{}/{folder}", log.name()),
                    "it is not a folder",
                );
                continue;
            }
            for name in durable::names(&volume.join(folder))? {
                let path = format!("{folder}/{}", name.to_string_lossy());
                if named.contains(path.as_str()) {
                    continue;
                }
                // A killed run leaves plain files only.
                let found = std::fs::symlink_metadata(volume.join(&path)).ok();
                let written = found.filter(|found| found.is_file()).and_then(|found| found.modified().ok());
                let written = written.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
                let place = format!("{}/{path}", log.name());
                let written = written.and_then(|time| i64::try_from(time.as_millis()).ok());
                if written.is_some_and(|time| time > last && time > young) {
                    report
                        .not_checked
                        .push(format!("{place}: left by an unfinished run; no commit names it"));
                } else {
                    let detail = "no commit names it, and it is too old to be the leftover of a killed run";
                    report.find(FindingKind::FileUnnamed, place, detail);
                }
            }
        }
    }
    Ok(())
}

/// Reports Parquet files at places where an archive has none. A reader that is given a pattern of
/// paths, and not the tables, would read these files.
fn strangers(root: &Path, report: &mut Report) -> Result<(), ArchiveError> {
    let mut looked = 0;
    for table in Table::ALL {
        let folder = layout::table(root, table);
        for name in durable::names(&folder)? {
            let shown = name.to_string_lossy().into_owned();
            let place = format!("{}/{shown}", table.name());
            if VolumeId::parse(&place).is_none() {
                stranger(&folder.join(&name), &place, &mut looked, report)?;
                continue;
            }
            for inner in durable::names(&folder.join(&name))? {
                let shown = inner.to_string_lossy();
                if !shown.starts_with("date=") && !OWN_FOLDERS.contains(&&*shown) {
                    let path = folder.join(&name).join(&inner);
                    stranger(&path, &format!("{place}/{shown}"), &mut looked, report)?;
                }
            }
        }
    }
    Ok(())
}

/// Reports `path` if it is a Parquet file, and the Parquet files below `path` if it is a folder.
/// Links are not followed.
fn stranger(path: &Path, place: &str, looked: &mut usize, report: &mut Report) -> Result<(), ArchiveError> {
    *looked += 1;
    if *looked == STRANGERS_MAX {
        report.not_checked.push(format!("{place}: there are too many files that are not the archive's"));
    }
    if *looked >= STRANGERS_MAX {
        return Ok(());
    }
    let is_folder = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    if is_folder {
        for name in durable::names(path)? {
            stranger(&path.join(&name), &format!("{place}/{}", name.to_string_lossy()), looked, report)?;
        }
    } else if place.to_lowercase().ends_with(".parquet") {
        report.find(FindingKind::FileUnnamed, place, STRANGER);
    }
    Ok(())
}

/// Checks versions, deletions and locks of every object below the archive's root.
pub(super) async fn check(
    bucket: &Bucket,
    root: &Path,
    (years, dropped): (u32, HashSet<VolumeId>),
    volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>,
    report: &mut Report,
) -> Result<(), ProofError> {
    let listed = bucket.s3.all_versions().await;
    let listed = match listed {
        Ok(listed) => listed,
        Err(failure) => {
            report
                .not_checked
                .push(format!("versions and locks of objects: they cannot be listed ({failure})"));
            return Ok(());
        }
    };
    let mut named: HashMap<String, (Option<&str>, u64)> = HashMap::new();
    for (log, commits) in volumes {
        for add in commits.iter().flat_map(|commit| &commit.adds) {
            named.insert(format!("{}/{}", log.name(), add.path), (add.version.as_deref(), add.size));
        }
    }
    let is_file = |place: &str| place.contains("/date=");
    let (mut unnamed, mut locks, mut left) = (0u64, Vec::new(), BTreeMap::new());
    for (place, versions) in &listed {
        if place.starts_with(layout::PROBE) {
            continue;
        }
        // A dropped volume is no longer part of the archive, even if some of it remains.
        if let Some(log) = dropped.iter().find(|log| place.starts_with(&format!("{}/", log.name()))) {
            *left.entry(log.name()).or_insert(0u64) += versions.len() as u64;
            continue;
        }
        if is_file(place) && !named.contains_key(place) {
            // A killed run has left this object. Writers remove nothing in a bucket.
            unnamed += 1;
            continue;
        }
        if place.to_lowercase().ends_with(".parquet") && !place.contains("/_delta_log/") && !is_file(place) {
            report.find(FindingKind::FileUnnamed, place.as_str(), STRANGER);
        }
        report.checked.objects += 1;
        let markers = versions.iter().filter(|version| version.is_delete_marker).count();
        if markers > 0 {
            report.find(
                FindingKind::DeleteMarker,
                place.as_str(),
                format!("{markers} delete markers hide it"),
            );
        }
        let objects: Vec<_> = versions.iter().filter(|version| !version.is_delete_marker).collect();
        if objects.len() > 1 {
            let detail = format!("it has {} versions, but an archive writes one", objects.len());
            report.find(FindingKind::Shadowed, place.as_str(), detail);
        }
        let said = named.get(place).copied();
        let chosen = match said.and_then(|(pinned, _)| pinned) {
            Some(pinned) => objects.iter().find(|object| object.version.as_deref() == Some(pinned)),
            // The oldest version is the one that was written; stores list it last.
            None => objects.iter().rev().min_by_key(|object| object.modified),
        };
        // A read requests as many bytes as the commit states, so additional bytes would not be
        // noticed by reading.
        if let (Some((_, size)), Some(bytes)) = (said, chosen.and_then(|object| object.bytes))
            && bytes > size
        {
            let detail = format!("it has {bytes} bytes, but its commit says {size}");
            report.find(FindingKind::FileSize, place.as_str(), detail);
        }
        match chosen {
            Some(object) => locks.push((place.clone(), (*object).clone())),
            None => report.find(
                FindingKind::FileMissing,
                place.as_str(),
                "the version that its commit names is missing",
            ),
        }
    }
    for place in named.keys().filter(|place| !listed.contains_key(*place)) {
        if !report.findings.iter().any(|finding| finding.place == *place) {
            report.find(FindingKind::FileMissing, place.as_str(), "a commit names it, but it is missing");
        }
    }
    for (volume, count) in left {
        report.find(
            FindingKind::DropUnfinished,
            volume,
            format!("it was dropped, but {count} versions remain"),
        );
    }
    if unnamed > 0 {
        report.not_checked.push(format!("{unnamed} objects that no commit names: killed runs leave them"));
    }
    let asked = locks.into_iter().map(|(place, object)| {
        let (s3, path) = (bucket.s3.clone(), root.join(&place));
        async move {
            let lock = s3.object_lock(&path, object.version.as_deref()).await;
            (place, object, lock)
        }
    });
    let mut asked = stream::iter(asked).buffered(LOCKS_AT_ONCE);
    let mut unknown = 0u64;
    while let Some((place, object, lock)) = asked.next().await {
        let lock = match lock {
            Condition::Known(lock) => lock,
            Condition::Unset => {
                report.find(FindingKind::LockMissing, place, "it has no lock");
                continue;
            }
            Condition::Unknown(_) => {
                unknown += 1;
                continue;
            }
        };
        if lock.mode != Some(LockMode::Compliance) {
            let mode = lock.mode.map_or("none", LockMode::as_str);
            report.find(FindingKind::LockMode, place.as_str(), format!("its mode is {mode}, not COMPLIANCE"));
        }
        // `until` adds a day to the promised years. A lock may be shorter by that day, because
        // clocks may differ.
        let wanted = Retention { mode: LockMode::Compliance, years }.until(object.modified);
        let wanted = wanted.and_then(|until| until.checked_sub_days(chrono::Days::new(1)));
        match (lock.until, wanted) {
            (Some(until), Some(wanted)) if until >= wanted => {}
            (Some(until), _) => {
                let detail = format!("it is locked until {until}, but {years} years are promised");
                report.find(FindingKind::RetentionShort, place, detail);
            }
            (None, _) => report.find(FindingKind::LockMissing, place, "its lock has no end"),
        }
    }
    if unknown > 0 {
        report.not_checked.push(format!("the locks of {unknown} objects: the store did not report them"));
    }
    Ok(())
}
