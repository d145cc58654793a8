//! The promise in years, and how it grows.
//!
//! `strongroom.json` is written once, so everything promised beyond it is a chain of records,
//! `_retention/00000001` and so on, each with more years than the one before. In an archive with a
//! key a record counts only if it is signed by one of the archive's keys: otherwise, anyone who may
//! put objects could have everything kept, and paid for, for a hundred years.
//!
//! An extension is a record first. From then on writers lock new objects for that time, at the
//! latest from their next seal. Then the date of every object is moved, on the version that belongs
//! to the archive.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};

use super::record::{PolicyRecord, RecordFault, Statement, open};
use super::{Failures, OBJECTS_AT_ONCE, Progress, RetentionError, Work, end, objects, text_of};
use crate::archive::Archive;
use crate::layout;
use crate::options::{LockMode, RETENTION_YEARS_MAX, Retention};
use crate::proof::keys::Keys;
use crate::s3::Locked;
use crate::store::{Bucket, Store};

/// Maximum number of policy records: each adds at least a year.
pub(crate) const RECORDS_MAX: u64 = RETENTION_YEARS_MAX as u64;

/// The lock of new objects. Clones see it grow.
#[derive(Clone, Debug)]
pub(crate) struct Promised {
    mode: LockMode,
    years: Arc<AtomicU32>,
    /// Number of policy records that it includes.
    records: Arc<AtomicU64>,
}

impl Promised {
    pub(crate) fn new(retention: Retention) -> Self {
        Promised { mode: retention.mode, years: Arc::new(retention.years.into()), records: Arc::default() }
    }

    pub(crate) fn now(&self) -> Retention {
        Retention { mode: self.mode, years: self.years.load(Ordering::Relaxed) }
    }

    fn raise(&self, policy: &Policy) {
        self.years.fetch_max(policy.years, Ordering::Relaxed);
        self.records.fetch_max(policy.records.len() as u64, Ordering::Relaxed);
    }
}

/// The promise of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The promise when the archive was created; on a local disk, which locks nothing, data younger
    /// than this is never dropped.
    pub made_with: u32,
    pub years: u32,
    pub records: Vec<PolicyRecord>,
}

impl Policy {
    /// Years promised by the records that existed at `time`.
    pub(crate) fn years_at(&self, time: DateTime<Utc>) -> u32 {
        let known = self.records.iter().filter(|record| record.time <= time);
        known.map(|record| record.years).max().unwrap_or(0).max(self.made_with)
    }
}

pub(crate) fn path(work: &Work, number: u64) -> PathBuf {
    work.root.join(layout::RETENTION).join(format!("{number:08}"))
}

/// The records of an archive up to the first invalid one, and what is wrong with that one.
pub(crate) async fn load(
    work: &Work,
    keys: &Keys,
) -> Result<(Policy, u64, Option<(PathBuf, RecordFault)>), RetentionError> {
    let mut policy = Policy { made_with: work.made_with, years: work.made_with, records: Vec::new() };
    let (signed_as, known) = (Statement::Retention.signed_as(&work.archive_id), keys.all());
    for number in 1..=RECORDS_MAX {
        let path = path(work, number);
        let Some(bytes) = work.read(&path).await? else { break };
        let parsed = open(&bytes, &signed_as, &known).and_then(|(text, signer)| {
            if signer.is_none() && !known.is_empty() {
                return Err(RecordFault::UnsignedPolicy);
            }
            PolicyRecord::parse(text, &work.archive_id, number, policy.years)
        });
        match parsed {
            Ok(record) => {
                policy.years = record.years;
                policy.records.push(record);
            }
            Err(fault) => return Ok((policy, number, Some((path, fault)))),
        }
    }
    let count = policy.records.len() as u64;
    Ok((policy, count, None))
}

/// Like [`load`], but an invalid record is an error.
async fn whole(work: &Work, keys: &Keys) -> Result<Policy, RetentionError> {
    match load(work, keys).await? {
        (policy, _, None) => Ok(policy),
        (.., Some((path, fault))) => Err(RetentionError::Record { path, fault }),
    }
}

/// Adds the promises made since to `promised`. Asks the store for one name if there are none.
/// Invalid records are ignored: `verify` reports them, and they must not cost anyone anything.
pub(crate) async fn refresh(work: &Work, promised: &Promised) -> Result<(), RetentionError> {
    let next = path(work, promised.records.load(Ordering::Relaxed) + 1);
    let there = work.store.exists(&next).await;
    if there.map_err(|source| RetentionError::Read { path: next, source })? {
        let (policy, ..) = load(work, &work.keys().await?).await?;
        promised.raise(&policy);
    }
    Ok(())
}

/// The promise of the archive.
///
/// # Errors
/// [`RetentionError::Record`] for an invalid record.
pub fn policy(archive: &Archive) -> Result<Policy, RetentionError> {
    Work::of(archive, Arc::new(|_, _| ())).run(|work| async move { whole(&work, &work.keys().await?).await })
}

/// The outcome of an extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extended {
    pub years: u32,
    /// Whether this run made the promise; otherwise an earlier run did.
    pub is_new: bool,
    /// Objects of the archive.
    pub objects: u64,
    /// Objects whose date was moved.
    pub moved: u64,
    /// Objects that were already locked for long enough.
    pub long_enough: u64,
}

/// Promises `years` calendar years and moves the date of every object that is locked for less. With
/// the years that are promised already, it finishes what an earlier run started.
///
/// # Errors
/// [`RetentionError::Shorter`], [`RetentionError::KeyNeeded`] in an archive with a key,
/// [`RetentionError::Objects`] if some objects could not be extended: all others are.
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
        // If another process took the number, read its promise first.
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

/// Returns whether the date of the object had to be moved.
async fn move_date(
    work: &Work,
    bucket: &Bucket,
    object: &objects::Object,
    years: u32,
    mode: LockMode,
) -> Result<bool, String> {
    let path = work.root.join(&object.path);
    let version = object.version.as_deref();
    // Stores report the time of a PUT to the millisecond, but keep retention dates to the second.
    let wanted = end(object.modified, years).and_then(|end| DateTime::from_timestamp(end.timestamp(), 0));
    let wanted = wanted.ok_or("its retention would end beyond the calendar")?;
    let lock = bucket.s3.protection(&path, version).await.map_err(|failure| failure.to_string())?;
    // The additional day allows for differences between clocks, and for stores that change an
    // object's time when its lock is moved.
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

/// Called when an archive is opened, and by a writer before a seal: promises made in the meantime
/// apply to new objects.
pub(crate) fn refresh_in(work: Work) -> Result<(), RetentionError> {
    let Store::S3(bucket) = work.store.clone() else { return Ok(()) };
    work.run(move |work| async move { refresh(&work, &bucket.retention).await })
}
