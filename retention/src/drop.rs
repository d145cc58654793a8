//! Drops a volume whose retention is over.
//!
//! Terms. A *drop record* (`_dropped/events-2019`) is a note signed with the archive's key. It
//! states the volume, the volume's last tree, its number of files and rows, the reason and the time
//! of the drop. The *state* of the volume (`_dropped/events-2019.state`) has the final positions of
//! its sources and the offsets of its files. Writers, and checks of totals, continue from these
//! positions in later volumes.
//!
//! A drop checks everything, writes the state, writes the record, and removes the objects, in this
//! order. The volume counts as dropped when its record is written: from then on, readers leave the
//! volume out. After a crash, the same command removes the remaining objects.
//!
//! Invariants: a record is written only if every object of the volume was past its retention and
//! under no legal hold. If a store reports the time by its own clock, retention is judged by the
//! earlier of that time and this machine's. Nothing outside the volume's folder is removed, and no
//! link is followed. On a disk, files whose names an archive does not use are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Datelike as _, Days, NaiveTime, Utc};
use futures::{StreamExt as _, stream};
use strongroom_archive::Archive;
use strongroom_archive::delta::facts::CommitFacts;
use strongroom_archive::error::{LogError, RecordError};
use strongroom_archive::fail::FailPoints;
use strongroom_archive::log::LogSigner;
use strongroom_archive::record_fault::RecordFault;
use strongroom_archive::records::clock::ClockRecords;
use strongroom_archive::records::drops::{self, FinalPositions, POSITIONS_FORMAT};
use strongroom_archive::records::holds::{Hold, Holds};
use strongroom_archive::records::policy;
use strongroom_archive::records::text::{DropRecord, Statement, retention_end, time_text};
use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_store::{Bucket, Store, durable, layout};
use strongroom_tlog::keys::Keys;

use super::{
    Failures, NAMES_MAX, OBJECTS_AT_ONCE, Progress, RetentionError, Work, matching, objects, text_of,
};

/// For an archive on a disk: by how many days this machine's clock may be ahead of the newest time
/// in the archive before an operator must confirm that the clock is right.
const CLOCK_DAYS_AHEAD_MAX: i64 = 31;

/// The time by which retention is judged, where the time is from, and whether it can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockTrust {
    pub now: DateTime<Utc>,
    /// Where the time is from, as a text for people.
    pub says: String,
    /// The reason to think that the clock is too far ahead, if there is one.
    pub doubt: Option<String>,
}

/// Returns the time by which retention is judged: in a bucket, the earlier of the times of this
/// machine's and the store's clock; on a disk, the time of this machine's clock.
pub(super) async fn clock(
    work: &Work,
    volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>,
) -> Result<ClockTrust, RetentionError> {
    let ours = Utc::now();
    match &work.site.store {
        Store::S3(bucket) => Ok(match bucket.s3.clock_ahead().await {
            Ok(Some(ahead)) => {
                let theirs = ours + chrono::Duration::seconds(ahead);
                let says = format!(
                    "the store's clock is {ahead} s ahead of this machine's; the earlier one is used"
                );
                ClockTrust { now: ours.min(theirs), says, doubt: None }
            }
            Ok(None) | Err(_) => ClockTrust {
                now: ours,
                says: "this machine's clock; the store does not report its own".to_owned(),
                doubt: None,
            },
        }),
        Store::Local => {
            let newest = newest(work, volumes)?;
            let ahead = newest.map(|newest| (ours - newest).num_days());
            let says = match newest {
                Some(newest) => {
                    format!(
                        "this machine's clock; the newest commit or file is from {}",
                        newest.format("%Y-%m-%d %H:%M")
                    )
                }
                None => "this machine's clock only: there is nothing to compare it with".to_owned(),
            };
            let doubt = ahead.filter(|ahead| *ahead > CLOCK_DAYS_AHEAD_MAX).map(|ahead| {
                format!(
                    "this machine's clock is {ahead} days ahead of the newest commit and file of the archive"
                )
            });
            Ok(ClockTrust { now: ours, says, doubt })
        }
    }
}

/// Returns the time of the latest write to an archive on a disk: the latest of the times in its
/// commits and the modification times of its commit files.
fn newest(
    work: &Work,
    volumes: &BTreeMap<VolumeId, Vec<CommitFacts>>,
) -> Result<Option<DateTime<Utc>>, RetentionError> {
    let commits = volumes.values().flatten().filter_map(|commit| commit.time_ms);
    let mut newest = commits.max().and_then(DateTime::from_timestamp_millis);
    let mut take = |path: &Path| {
        let modified = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
        newest = newest.max(modified.ok().filter(|time| *time > SystemTime::UNIX_EPOCH).map(Into::into));
    };
    for log in volumes.keys() {
        let folder = layout::delta_log(&layout::volume(&work.site.root, *log));
        for name in durable::names(&folder)? {
            take(&folder.join(name));
        }
    }
    Ok(newest)
}

/// Returns the time from which a volume's retention is counted: the time of its newest commit, the
/// end of its newest file's date, or the time until which commits of it were made as clock records
/// say (`explained`), whichever is latest.
pub(super) fn last(commits: &[CommitFacts], explained: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    let made =
        commits.iter().filter_map(|commit| commit.time_ms).max().and_then(DateTime::from_timestamp_millis);
    let days = commits.iter().flat_map(|commit| &commit.adds).filter_map(|add| add.date).max();
    let day =
        days.and_then(|day| Some(day.checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN).and_utc()));
    made.max(day).max(explained)
}

/// The clock records, of which none is invalid: an invalid one must not end a retention early.
pub(super) async fn explained(work: &Work, keys: &Keys) -> Result<ClockRecords, RetentionError> {
    let records = ClockRecords::load(&work.site, keys).await?;
    match records.wrong {
        Some(wrong) => Err(wrong.into()),
        None => Ok(records),
    }
}

/// A request to drop a volume.
#[derive(Clone, Debug)]
pub struct DropRequest {
    pub volume: VolumeId,
    pub reason: String,
    /// True if the operator has checked this machine's clock.
    pub is_clock_checked: bool,
}

/// The outcome of a drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropOutcome {
    pub record: DropRecord,
    /// True if this run wrote the record; false if an earlier run did.
    pub is_new: bool,
    /// Objects removed by this run.
    pub removed: u64,
    /// Names below the volume's folder that do not belong to an archive, and are kept.
    pub left: Vec<String>,
}

/// Drops a volume whose retention is over and that is under no legal hold. If an earlier run has
/// dropped it already, removes the remaining objects.
///
/// # Errors
/// [`RetentionError::NotDropped`] with all reasons why the volume may not be dropped;
/// [`RetentionError::Objects`] if the record is written but some objects could not be removed.
pub fn drop_volume(
    archive: &Archive,
    drop: &DropRequest,
    progress: Progress,
) -> Result<DropOutcome, RetentionError> {
    let drop = drop.clone();
    Work::of(archive, progress).run(move |work| async move { drop_with(&work, &drop).await })
}

pub(crate) async fn drop_with(work: &Work, drop: &DropRequest) -> Result<DropOutcome, RetentionError> {
    let (log, volume) = (drop.volume, drop.volume.name());
    text_of("reason", &drop.reason)?;
    let all = drops::load(&work.site).await?;
    let place = format!("{}/{}", layout::DROPPED, drops::file(log));
    if let Some((_, fault)) = all.wrong.iter().find(|(wrong, _)| *wrong == place) {
        return Err(RecordError { path: drops::path(&work.site.root, log), fault: fault.clone() }.into());
    }
    let (record, is_new) = match all.good.get(&log) {
        Some((record, _)) => {
            let reasons = held(work, log, &[]).await?;
            if !reasons.is_empty() {
                return Err(RetentionError::NotDropped { volume, reasons });
            }
            (record.clone(), false)
        }
        None => (lay_down(work, drop).await?, true),
    };
    let (removed, left) = match &work.site.store {
        Store::Local => remove_local(work, log)?,
        Store::S3(bucket) => (remove_versions(work, bucket, log).await?, Vec::new()),
    };
    Ok(DropOutcome { record, is_new, removed, left })
}

/// Checks whether a volume may be dropped, and writes and returns its drop record.
async fn lay_down(work: &Work, drop: &DropRequest) -> Result<DropRecord, RetentionError> {
    let (log, volume) = (drop.volume, drop.volume.name());
    if !drops::volumes(&work.site).await?.contains(&log) {
        return Err(RetentionError::NoVolume { volume });
    }
    let keys = work.keys().await?;
    let current = keys.current().ok_or(LogError::NoKey)?;
    let signer = work.site.signer.clone().ok_or(RetentionError::KeyNeeded)?;
    if signer.public() != current {
        return Err(LogError::KeyNotCurrent { current }.into());
    }
    let policy = policy::load_valid(&work.site, &keys).await?;
    let volumes = objects::volumes(work).await?;
    let commits = volumes.get(&log).map_or(&[][..], Vec::as_slice);
    let clock = clock(work, &volumes).await?;
    let mut reasons = Vec::new();
    if log.period.year >= clock.now.year() {
        reasons.push("it is from the present year".to_owned());
    }
    if let Some(doubt) = clock.doubt.filter(|_| !drop.is_clock_checked) {
        reasons.push(format!("{doubt}, and it has not been confirmed"));
    }
    let explained = explained(work, &keys).await?.made_until(log, DateTime::<Utc>::MAX_UTC);
    let last = last(commits, explained).ok_or_else(|| RetentionError::NotDropped {
        volume: volume.clone(),
        reasons: vec!["it has no commit with a time".to_owned()],
    })?;
    let mut until = retention_end(last, policy.years).ok_or_else(|| RetentionError::NotDropped {
        volume: volume.clone(),
        reasons: vec!["its retention ends beyond the calendar".to_owned()],
    })?;
    if until > clock.now {
        let (until, years) = (until.format("%Y-%m-%d"), policy.years);
        reasons.push(format!("{years} years are promised, so it is kept until {until}"));
    }
    reasons.extend(held(work, log, commits).await?);
    if let Store::S3(bucket) = &work.site.store {
        let (latest, locked) = locks(work, bucket, log, clock.now).await?;
        until = until.max(latest.unwrap_or(until));
        reasons.extend(locked);
    }
    if !reasons.is_empty() {
        return Err(RetentionError::NotDropped { volume, reasons });
    }
    let log_signer = LogSigner::of(work.site.clone(), signer);
    let head = log_signer.one(log, &keys, &FailPoints::default()).await?;
    let head =
        head.filter(|head| head.size == commits.len() as u64).ok_or_else(|| RetentionError::NotDropped {
            volume: volume.clone(),
            reasons: vec!["its commits have a gap, so its content is unknown".to_owned()],
        })?;
    // The state has only strings and numbers, so serialization cannot fail.
    let state = serde_json::to_vec(&final_positions(commits)).unwrap_or_default();
    let adds = || commits.iter().flat_map(|commit| &commit.adds);
    // Times in records have whole seconds. They are rounded up, because the time of the drop in the
    // record must not be before the end of the retention.
    let whole = |time: DateTime<Utc>| DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time);
    let up = |time: DateTime<Utc>| whole(time + chrono::Duration::milliseconds(999));
    let last = up(last);
    let record = DropRecord {
        log,
        time: whole(Utc::now()).max(up(until)),
        size: head.size,
        root: head.root,
        files: adds().count() as u64,
        rows: adds().filter_map(|add| add.rows).sum(),
        last,
        years: policy.years,
        until: up(until).max(retention_end(last, policy.years).unwrap_or(until)),
        state: Hash::of(&state),
        reason: drop.reason.clone(),
    };
    let record = DropRecord { time: record.time.max(record.until), ..record };
    let state_path = drops::positions_path(&work.site.root, log);
    if !work.put(&state_path, state.into()).await? {
        let fault = RecordFault::StateDiffers;
        return Err(RecordError { path: state_path, fault }.into());
    }
    let path = drops::path(&work.site.root, log);
    let text = record.text(&work.site.archive_id);
    let bytes = work.signed(&text, &Statement::Dropped.signed_as(&work.site.archive_id), &keys)?;
    if !work.put(&path, bytes).await? {
        let fault = RecordFault::DroppedMeanwhile;
        return Err(RecordError { path, fault }.into());
    }
    Ok(record)
}

/// Returns the final positions and offsets of the volume that these commits make up.
fn final_positions(commits: &[CommitFacts]) -> FinalPositions {
    let mut end = FinalPositions {
        format: POSITIONS_FORMAT.to_owned(),
        txns: BTreeMap::new(),
        offsets: Some(BTreeMap::new()),
    };
    for commit in commits {
        end.txns.extend(commit.txns.iter().map(|(app_id, version)| (app_id.clone(), *version)));
        for add in &commit.adds {
            let (Some(all), Some(offsets)) = (&mut end.offsets, &add.offsets) else {
                end.offsets = None;
                continue;
            };
            for (partition, (first, last, rows)) in offsets {
                let span = all.entry(partition.clone()).or_insert((*first, *last, 0));
                *span = (span.0.min(*first), span.1.max(*last), span.2 + rows);
            }
        }
    }
    end
}

/// Returns a reason for each active hold that lists an object of the volume or has a file of the
/// volume in its scope.
async fn held(work: &Work, log: VolumeId, commits: &[CommitFacts]) -> Result<Vec<String>, RetentionError> {
    let holds = Holds::load(&work.site).await?;
    if let Some(wrong) = holds.wrong {
        return Err(wrong.into());
    }
    let below = format!("{}/", log.name());
    let mut reasons = Vec::new();
    let active: Vec<&Hold> = holds.active().collect();
    for hold in active {
        let listed = hold.listed().filter(|object| object.path.starts_with(&below)).count();
        let files = matching::files(work, log, commits, &hold.scope).await?.len();
        if listed > 0 || files > 0 {
            let name = &hold.record.name;
            reasons.push(format!(
                "hold \"{name}\" lists {listed} of its objects, and {files} of its files are in the scope of the hold"
            ));
        }
    }
    Ok(reasons)
}

/// Returns the latest end of a lock among a volume's objects, and a reason for each object that
/// must be kept.
async fn locks(
    work: &Work,
    bucket: &Bucket,
    log: VolumeId,
    now: DateTime<Utc>,
) -> Result<(Option<DateTime<Utc>>, Vec<String>), RetentionError> {
    let versions = versions(work, bucket, log).await?;
    let total = versions.len() as u64;
    let mut asked = stream::iter(versions.into_iter().filter(|(.., is_marker)| !is_marker))
        .map(|(place, version, _)| async move {
            let lock = bucket.s3.protection(&work.site.root.join(&place), version.as_deref()).await;
            (place, lock)
        })
        .buffer_unordered(OBJECTS_AT_ONCE);
    let (mut latest, mut reasons, mut done, mut more) = (None, Vec::new(), 0, 0u64);
    while let Some((place, lock)) = asked.next().await {
        done += 1;
        (work.progress)(done, total);
        let why = match &lock {
            Err(failure) => Some(format!("{place}: its lock is unknown ({failure})")),
            Ok(lock) if lock.is_held => Some(format!("{place} is under a legal hold")),
            Ok(lock) => {
                latest = latest.max(lock.until);
                let until = lock.until.filter(|until| *until > now);
                until.map(|until| format!("{place} is locked until {}", time_text(until)))
            }
        };
        match why {
            Some(why) if reasons.len() < NAMES_MAX => reasons.push(why),
            Some(_) => more += 1,
            None => {}
        }
    }
    if more > 0 {
        reasons.push(format!("and {more} more objects"));
    }
    Ok((latest, reasons))
}

/// Lists every version of every object of a volume: its path, its version id, and `true` for a
/// delete marker.
async fn versions(
    work: &Work,
    bucket: &Bucket,
    log: VolumeId,
) -> Result<Vec<(String, Option<String>, bool)>, RetentionError> {
    let folder = layout::volume(&work.site.root, log);
    let listed = bucket.s3.versions_below(&folder).await;
    let listed = listed.map_err(|source| RetentionError::List { path: folder, source })?;
    let each = listed.into_iter().flat_map(|(path, versions)| {
        versions.into_iter().map(move |version| (path.clone(), version.version, version.is_delete_marker))
    });
    Ok(each.collect())
}

async fn remove_versions(work: &Work, bucket: &Bucket, log: VolumeId) -> Result<u64, RetentionError> {
    let versions = versions(work, bucket, log).await?;
    let total = versions.len() as u64;
    let mut removed = stream::iter(versions)
        .map(|(place, version, _)| async move {
            let path = work.site.root.join(&place);
            let outcome = match work.pass(&path) {
                Ok(()) => {
                    let removed = bucket.s3.remove_version(&path, version.as_deref()).await;
                    removed.map_err(|failure| failure.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            (place, outcome)
        })
        .buffer_unordered(OBJECTS_AT_ONCE);
    let (mut failures, mut done, mut count) = (Failures::default(), 0, 0);
    while let Some((place, outcome)) = removed.next().await {
        done += 1;
        (work.progress)(done, total);
        count += u64::from(failures.take(&place, outcome).is_some());
    }
    failures.end("removed")?;
    Ok(count)
}

/// Removes a volume's files: the data first, the commits last. Returns the number of files removed,
/// and the names that are kept.
fn remove_local(work: &Work, log: VolumeId) -> Result<(u64, Vec<String>), RetentionError> {
    let volume = layout::volume(&work.site.root, log);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| RetentionError::Write { path: path.clone(), source }
    };
    match std::fs::symlink_metadata(&volume) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok((0, vec![log.name()])),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, Vec::new())),
        Err(error) => return Err(failed(&volume)(error)),
    }
    let names: BTreeSet<String> =
        durable::names(&volume)?.into_iter().filter_map(|name| name.into_string().ok()).collect();
    let days = names.iter().filter(|name| layout::date_of_folder(name).is_some()).cloned();
    let ours = [layout::STAGING, layout::TLOG, layout::DELTA_LOG].map(str::to_owned);
    let folders: Vec<String> = days.chain(ours.into_iter().filter(|name| names.contains(name))).collect();
    let mut files = Vec::new();
    for folder in &folders {
        let is_day = layout::date_of_folder(folder).is_some();
        files_below(&volume.join(folder), &|name| !is_day || layout::is_file_name(name), &mut files)?;
    }
    let total = files.len() as u64;
    let mut removed = 0;
    for (file, is_folder) in files {
        if is_folder {
            // A folder that is not empty is kept, because it contains files that do not belong to
            // the archive.
            let _ = std::fs::remove_dir(&file);
            continue;
        }
        work.pass(&file)?;
        std::fs::remove_file(&file).map_err(failed(&file))?;
        removed += 1;
        (work.progress)(removed, total);
    }
    let mut left = Vec::new();
    if std::fs::remove_dir(&volume).is_err() {
        let names = durable::names(&volume)?;
        left.extend(names.into_iter().map(|name| format!("{}/{}", log.name(), name.to_string_lossy())));
    }
    durable::sync_folder(&layout::table(&work.site.root, log.table))?;
    Ok((removed, left))
}

/// Appends to `files` the plain files below a folder whose names `is_ours` accepts, and each folder
/// after its content. The flag next to each path is true for a folder.
fn files_below(
    folder: &Path,
    is_ours: &dyn Fn(&str) -> bool,
    files: &mut Vec<(PathBuf, bool)>,
) -> Result<(), RetentionError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| RetentionError::Read { path: path.clone(), source }
    };
    if !std::fs::symlink_metadata(folder).map_err(read(folder))?.is_dir() {
        return Ok(());
    }
    for name in durable::names(folder)? {
        let path = folder.join(&name);
        let found = std::fs::symlink_metadata(&path).map_err(read(&path))?;
        if found.is_dir() {
            files_below(&path, is_ours, files)?;
        } else if found.is_file() && name.to_str().is_some_and(is_ours) {
            files.push((path, false));
        }
    }
    files.push((folder.to_owned(), true));
    Ok(())
}
