//! Extends the retention of an archive: the promised number of calendar years for which it keeps
//! its objects.
//!
//! An extension is recorded first (see `records/policy`). Writers read the new record at their next
//! seal at the latest. From then on, they lock every object that they write for the new number of
//! years. After writing the record, the command moves the retain-until date of every existing
//! object, at the version that belongs to the archive. If a run dies, the same command finishes the
//! extension. No date is moved back.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use strongroom_archive::Archive;
use strongroom_archive::records::policy::{Policy, load_valid, path, refresh};
use strongroom_archive::records::text::{PolicyRecord, Statement, retention_end};
use strongroom_store::options::{LockMode, RETENTION_YEARS_MAX};
use strongroom_store::s3::Locked;
use strongroom_store::{Bucket, Store};

use super::{Failures, OBJECTS_AT_ONCE, Progress, RetentionError, Work, objects, text_of};

/// Returns the archive's promise, and the records that extended it.
///
/// # Errors
/// [`RetentionError::Record`] for an invalid record.
pub fn policy(archive: &Archive) -> Result<Policy, RetentionError> {
    Work::of(archive, Arc::new(|_, _| ()))
        .run(|work| async move { Ok(load_valid(&work.site, &work.keys().await?).await?) })
}

/// The outcome of an extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extended {
    pub years: u32,
    /// True if this run recorded the promise; false if an earlier run did.
    pub is_new: bool,
    /// Objects of the archive.
    pub objects: u64,
    /// Objects whose date was moved.
    pub moved: u64,
    /// Objects that were already locked for long enough.
    pub long_enough: u64,
}

/// Promises `years` calendar years, and moves the retain-until date of every object that is locked
/// for a shorter time. If the archive already promises `years`, this finishes what an earlier run
/// started.
///
/// # Errors
/// [`RetentionError::Shorter`], [`RetentionError::KeyNeeded`] in an archive with a key,
/// [`RetentionError::Objects`] if the dates of some objects could not be moved; those of all other
/// objects were moved.
pub fn extend(
    archive: &Archive,
    years: u32,
    reason: &str,
    progress: Progress,
) -> Result<Extended, RetentionError> {
    let (work, reason) = (Work::of(archive, progress), reason.to_owned());
    work.run(move |work| async move { extend_with(&work, years, &reason).await })
}

pub(crate) async fn extend_with(work: &Work, years: u32, reason: &str) -> Result<Extended, RetentionError> {
    if !(1..=RETENTION_YEARS_MAX).contains(&years) {
        return Err(RetentionError::Years { asked: years });
    }
    text_of("reason", reason)?;
    let keys = work.keys().await?;
    let mut extended = Extended { years, ..Extended::default() };
    loop {
        let policy = load_valid(&work.site, &keys).await?;
        if years < policy.years {
            return Err(RetentionError::Shorter { asked: years, promised: policy.years });
        }
        if years == policy.years {
            break;
        }
        if work.site.signer.is_none() && keys.current().is_some() {
            return Err(RetentionError::KeyNeeded);
        }
        let number = policy.records.len() as u64 + 1;
        let record = PolicyRecord { number, time: Utc::now(), years, reason: reason.to_owned() };
        let text = record.text(&work.site.archive_id);
        let bytes = work.signed(&text, &Statement::Retention.signed_as(&work.site.archive_id), &keys)?;
        // If another process has taken this number, the next round of the loop reads its record.
        if work.put(&path(&work.site, number), bytes).await? {
            extended.is_new = true;
        }
    }
    let Store::S3(bucket) = &work.site.store else { return Ok(extended) };
    refresh(&work.site, &bucket.retention).await?;
    move_dates(work, bucket, years, &mut extended).await?;
    Ok(extended)
}

/// Moves the date of every object that is locked for less than `years`.
async fn move_dates(
    work: &Work,
    bucket: &Bucket,
    years: u32,
    extended: &mut Extended,
) -> Result<(), RetentionError> {
    let found = objects::all(work, bucket).await?.objects;
    extended.objects = found.len() as u64;
    let mode = bucket.retention.now().mode;
    let mut moved = stream::iter(found)
        .map(|object| async move {
            let outcome = move_date(work, bucket, &object, years, mode).await;
            (object.path, outcome)
        })
        .buffer_unordered(OBJECTS_AT_ONCE);
    let (mut failures, mut done) = (Failures::default(), 0);
    while let Some((path, outcome)) = moved.next().await {
        done += 1;
        (work.progress)(done, extended.objects);
        match failures.take(&path, outcome) {
            Some(true) => extended.moved += 1,
            Some(false) => extended.long_enough += 1,
            None => {}
        }
    }
    failures.end("extended")
}

/// Returns whether the date of the object had to be moved.
async fn move_date(
    work: &Work,
    bucket: &Bucket,
    object: &objects::Object,
    years: u32,
    mode: LockMode,
) -> Result<bool, String> {
    let path = work.site.root.join(&object.path);
    let version = object.version.as_deref();
    // Stores report the time of a PUT to the millisecond, but keep retention dates to the second.
    let wanted =
        retention_end(object.modified, years).and_then(|end| DateTime::from_timestamp(end.timestamp(), 0));
    let wanted = wanted.ok_or("its retention would end beyond the calendar")?;
    let lock = bucket.s3.protection(&path, version).await.map_err(|failure| failure.to_string())?;
    // `retention_end` adds a day to the promised years. A date may be earlier by that day, because
    // clocks may differ, and because some stores change the time of an object when its lock is
    // moved.
    let owed = wanted - chrono::Days::new(1);
    if lock.until.is_some_and(|until| until >= owed) {
        return Ok(false);
    }
    work.pass(&path).map_err(|error| error.to_string())?;
    // The mode of a lock is not changed: `verify` reports objects in GOVERNANCE.
    let locked = Locked { mode: lock.mode.unwrap_or(mode), until: wanted };
    bucket.s3.extend(&path, version, locked).await.map_err(|failure| failure.to_string())?;
    Ok(true)
}
