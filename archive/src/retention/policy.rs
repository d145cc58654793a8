//! The promise in years, and how it grows.
//!
//! `strongroom.json` is written once, so what is promised beyond it is a chain of records, `_retention/00000001` and so
//! on, each with more years than the one before. In an archive with a key a record counts only under the signature
//! of one: whoever may put objects could else have everything kept, and paid for, for a hundred years.
//!
//! An extension is a record first. From then on writers lock what they put for as long, at the latest from their
//! next seal on. Then every object's own date is moved, on the version that the archive names.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};

use super::record::{PolicyRecord, Statement, open};
use super::{Failures, OBJECTS_AT_ONCE, Progress, RetentionError, Work, end, objects, text_of};
use crate::archive::Archive;
use crate::layout;
use crate::proof::keys::Keys;
use crate::s3::Locked;
use crate::store::lock_term::LockTerm;
use crate::store::options::{LockMode, RETENTION_YEARS_MAX, Retention};
use crate::store::{Bucket, Store};

/// Most records of policy: each has a year more.
pub(crate) const RECORDS_MAX: u64 = RETENTION_YEARS_MAX as u64;

/// What an archive promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// As the archive was made; on a local disk, which locks nothing, the years before which nothing is dropped.
    pub made_with: u32,
    pub years: u32,
    pub records: Vec<PolicyRecord>,
}

impl Policy {
    /// Years promised by the records that were there at `time`.
    pub(crate) fn years_at(&self, time: DateTime<Utc>) -> u32 {
        let known = self.records.iter().filter(|record| record.time <= time);
        known.map(|record| record.years).max().unwrap_or(0).max(self.made_with)
    }
}

pub(crate) fn path(work: &Work, number: u64) -> PathBuf {
    work.root.join(layout::RETENTION).join(format!("{number:08}"))
}

/// The records of an archive up to the first that does not hold, and what is wrong with that one.
pub(crate) async fn load(
    work: &Work,
    keys: &Keys,
) -> Result<(Policy, u64, Option<(PathBuf, String)>), RetentionError> {
    let mut policy = Policy { made_with: work.made_with, years: work.made_with, records: Vec::new() };
    let (signed_as, known) = (Statement::Retention.signed_as(&work.archive_id), keys.all());
    for number in 1..=RECORDS_MAX {
        let path = path(work, number);
        let Some(bytes) = work.read(&path).await? else { break };
        let parsed = open(&bytes, &signed_as, &known).and_then(|(text, signer)| {
            if signer.is_none() && !known.is_empty() {
                return Err("the archive has a key, and nobody has signed it".to_owned());
            }
            PolicyRecord::parse(text, &work.archive_id, number, policy.years)
        });
        match parsed {
            Ok(record) => {
                policy.years = record.years;
                policy.records.push(record);
            }
            Err(detail) => return Ok((policy, number, Some((path, detail)))),
        }
    }
    let count = policy.records.len() as u64;
    Ok((policy, count, None))
}

/// As [`load`]; with a record that does not hold there is none.
async fn whole(work: &Work, keys: &Keys) -> Result<Policy, RetentionError> {
    match load(work, keys).await? {
        (policy, _, None) => Ok(policy),
        (.., Some((path, detail))) => Err(RetentionError::Record { path, detail }),
    }
}

/// Takes what was promised since into `promised`. Asks the store for one name where nothing was. Records that do not
/// hold are left out: they are for `verify` to name, and may cost nobody anything.
pub(crate) async fn refresh(work: &Work, promised: &LockTerm) -> Result<(), RetentionError> {
    let next = path(work, promised.records() + 1);
    let there = work.store.exists(&next).await;
    if there.map_err(|source| RetentionError::Read { path: next, source })? {
        let (policy, ..) = load(work, &work.keys().await?).await?;
        promised.raise(policy.years, policy.records.len() as u64);
    }
    Ok(())
}

/// What the archive promises.
///
/// # Errors
/// [`RetentionError::Record`] when a record does not hold.
pub fn policy(archive: &Archive) -> Result<Policy, RetentionError> {
    Work::of(archive, Arc::new(|_, _| ())).run(|work| async move { whole(&work, &work.keys().await?).await })
}

/// What an extension did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extended {
    pub years: u32,
    /// Whether the promise was made now; else an earlier run made it.
    pub is_new: bool,
    /// Objects of the archive.
    pub objects: u64,
    /// Whose date was moved.
    pub moved: u64,
    /// Which were locked for as long already.
    pub long_enough: u64,
}

/// Promises `years` calendar years and moves the date of every object that is locked for less. With the years that
/// are promised already it finishes what an earlier run began.
///
/// # Errors
/// [`RetentionError::Shorter`], [`RetentionError::KeyNeeded`] in an archive with a key, [`RetentionError::Objects`] when
/// some objects could not be extended: all others are.
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
        let policy = whole(work, &keys).await?;
        if years < policy.years {
            return Err(RetentionError::Shorter { asked: years, promised: policy.years });
        }
        if years == policy.years {
            break;
        }
        if work.signer.is_none() && keys.current().is_some() {
            return Err(RetentionError::KeyNeeded);
        }
        let number = policy.records.len() as u64 + 1;
        let record = PolicyRecord { number, time: Utc::now(), years, reason: reason.to_owned() };
        let text = record.text(&work.archive_id);
        let bytes = work.signed(&text, &Statement::Retention.signed_as(&work.archive_id), &keys)?;
        // When another process has taken the number, what it promised is read first.
        if work.put(&path(work, number), bytes).await? {
            extended.is_new = true;
        }
    }
    let Store::S3(bucket) = &work.store else { return Ok(extended) };
    refresh(work, &bucket.retention).await?;
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

/// Whether the date of an object had to be moved.
async fn move_date(
    work: &Work,
    bucket: &Bucket,
    object: &objects::Object,
    years: u32,
    mode: LockMode,
) -> Result<bool, String> {
    let path = work.root.join(&object.path);
    let version = object.version.as_deref();
    // Stores tell when an object was put to the millisecond, and keep dates of locks to the second.
    let wanted = end(object.modified, years).and_then(|end| DateTime::from_timestamp(end.timestamp(), 0));
    let wanted = wanted.ok_or("its retention would end beyond the calendar")?;
    let lock = bucket.s3.protection(&path, version).await.map_err(|failure| failure.to_string())?;
    // The day that is added bears clocks that differ, and stores that call an object new when its lock was moved.
    let owed = wanted - chrono::Days::new(1);
    if lock.until.is_some_and(|until| until >= owed) {
        return Ok(false);
    }
    work.pass(&path).map_err(|error| error.to_string())?;
    // The mode of a lock stays as it is: what is in GOVERNANCE is for `verify` to name.
    let locked = Locked { mode: lock.mode.unwrap_or(mode), until: wanted };
    bucket.s3.extend(&path, version, locked).await.map_err(|failure| failure.to_string())?;
    Ok(true)
}

/// What an archive does when it is opened, and a writer before a seal: what was promised meanwhile holds for what is put.
pub(crate) fn refresh_in(work: Work) -> Result<(), RetentionError> {
    let Store::S3(bucket) = work.store.clone() else { return Ok(()) };
    work.run(move |work| async move { refresh(&work, &bucket.retention).await })
}
