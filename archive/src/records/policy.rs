//! Reads the retention policy of an archive from its records: for how many years it promises to
//! keep everything.
//!
//! `strongroom.json` is written once, so promises of more years are in a chain of records,
//! `_retention/00000001` and so on, each with more years than the record before it. If the archive
//! has a key, a record counts only if one of the archive's keys signed it. Otherwise, anyone who
//! may put objects could force the owner to keep and pay for everything for a hundred years.
//!
//! Invariant: a record counts only if all records before it are valid.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use strongroom_store::lock_term::LockTerm;
use strongroom_store::options::RETENTION_YEARS_MAX;
use strongroom_store::{Store, background, layout};
use strongroom_tlog::keys::Keys;

use super::keys;
use super::text::{PolicyRecord, Statement, open};
use crate::error::{LogError, RecordError};
use crate::record_fault::RecordFault;
use crate::site::Site;

/// Maximum number of policy records: each adds at least a year.
pub const RECORDS_MAX: u64 = RETENTION_YEARS_MAX as u64;

/// The retention policy of an archive: the promised number of years, and the records that promise
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The years promised when the archive was created. A local disk has no locks, but even there
    /// data that is younger than this is never dropped.
    pub made_with: u32,
    pub years: u32,
    pub records: Vec<PolicyRecord>,
}

impl Policy {
    /// Years promised by the records that existed at `time`.
    pub fn years_at(&self, time: DateTime<Utc>) -> u32 {
        let known = self.records.iter().filter(|record| record.time <= time);
        known.map(|record| record.years).max().unwrap_or(0).max(self.made_with)
    }
}

/// Returns the path of a record of policy; records are numbered from 1 on.
pub fn path(site: &Site, number: u64) -> PathBuf {
    site.root.join(layout::RETENTION).join(format!("{number:08}"))
}

/// The records of policy of an archive, up to the first invalid one.
#[derive(Clone, Debug)]
pub struct FoundPolicy {
    pub policy: Policy,
    /// Records that were read, including the invalid one.
    pub read: u64,
    /// The invalid record.
    pub wrong: Option<RecordError>,
}

/// Reads the retention records of an archive, in order, up to the first invalid one.
pub async fn load(site: &Site, keys: &Keys) -> Result<FoundPolicy, LogError> {
    let made_with = site.made_with_years;
    let mut policy = Policy { made_with, years: made_with, records: Vec::new() };
    let (signed_as, known) = (Statement::Retention.signed_as(&site.archive_id), keys.all());
    for number in 1..=RECORDS_MAX {
        let path = path(site, number);
        let Some(bytes) = site.read(&path).await? else { break };
        let parsed = open(&bytes, &signed_as, &known).and_then(|(text, signer)| {
            if signer.is_none() && !known.is_empty() {
                return Err(RecordFault::UnsignedPolicy);
            }
            PolicyRecord::parse(text, &site.archive_id, number, policy.years)
        });
        match parsed {
            Ok(record) => {
                policy.years = record.years;
                policy.records.push(record);
            }
            Err(fault) => {
                let wrong = Some(RecordError { path, fault });
                return Ok(FoundPolicy { policy, read: number, wrong });
            }
        }
    }
    let read = policy.records.len() as u64;
    Ok(FoundPolicy { policy, read, wrong: None })
}

/// Like [`load`], but an invalid record is an error.
pub async fn load_valid(site: &Site, keys: &Keys) -> Result<Policy, LogError> {
    let FoundPolicy { policy, wrong, .. } = load(site, keys).await?;
    wrong.map_or(Ok(policy), |wrong| Err(wrong.into()))
}

/// Raises `term` to the years of policy records that it does not include yet. If there is no new
/// record, this costs a request for a single name. Invalid records are ignored: they must not cause
/// objects to be locked for longer, and `verify` reports them.
pub async fn refresh(site: &Site, term: &LockTerm) -> Result<(), LogError> {
    let next = path(site, term.records() + 1);
    let there = site.store.exists(&next).await;
    if there.map_err(|source| LogError::Read { path: next, source })? {
        let keys = keys::load(site).await?;
        let FoundPolicy { policy, .. } = load(site, &keys).await?;
        term.raise(policy.years, policy.records.len() as u64);
    }
    Ok(())
}

/// Like [`refresh`], but blocks, and does nothing on a local disk. Called when an archive is opened
/// and before each seal of a writer, so that promises made in the meantime apply to new objects.
pub fn refresh_blocking(site: &Site) -> Result<(), LogError> {
    let Store::S3(bucket) = site.store.clone() else { return Ok(()) };
    let site = site.clone();
    background::wait(async move { refresh(&site, &bucket.retention).await })
}
