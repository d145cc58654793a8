//! Explains commits that a wrong clock dated, with a signed record (see `records/clock`).
//!
//! Invariants: a record is written only about commits that exist, with the tree that they have, and
//! only by the archive's current key. No lock is moved, and nothing is removed earlier because of it:
//! the retention of a volume counts from the latest of the times that its commits and these records
//! give. After a crash there is either the whole record or none.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use strongroom_archive::Archive;
use strongroom_archive::error::LogError;
use strongroom_archive::records::clock::{ClockRecord, ClockRecords, Made, path};
use strongroom_archive::records::text::{Statement, time_text};
use strongroom_schemas::VolumeId;
use strongroom_tlog::tree;

use super::{RetentionError, Work, objects, text_of};

/// Which commits, and when they were made.
#[derive(Clone, Debug)]
pub struct ClockRequest {
    pub volume: VolumeId,
    /// Version of the first of the commits, and of the last.
    pub first: u64,
    pub last: u64,
    pub made: Made,
    pub reason: String,
}

/// Writes the record. Returns it, and whether this call wrote it: the newest record may say the same
/// already.
///
/// # Errors
/// [`RetentionError::KeyNeeded`], [`RetentionError::Made`], [`RetentionError::NoVolume`],
/// [`RetentionError::NoCommits`].
pub fn explain_clock(
    archive: &Archive,
    request: &ClockRequest,
) -> Result<(ClockRecord, bool), RetentionError> {
    let request = request.clone();
    Work::of(archive, Arc::new(|_, _| ())).run(move |work| async move { explain(&work, &request).await })
}

async fn explain(work: &Work, request: &ClockRequest) -> Result<(ClockRecord, bool), RetentionError> {
    let ClockRequest { volume, first, last, made, reason } = request;
    text_of("reason", reason)?;
    let keys = work.keys().await?;
    keys.current().ok_or(LogError::NoKey)?;
    if work.site.signer.is_none() {
        return Err(RetentionError::KeyNeeded);
    }
    // Records have whole seconds.
    let whole = |time: DateTime<Utc>| DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time);
    let now = whole(Utc::now());
    let made = match *made {
        Made::Between { from, to } if from > to || whole(to) > now => return Err(RetentionError::Made),
        Made::Between { from, to } => Made::Between { from: whole(from), to: whole(to) },
        Made::Unknown => Made::Unknown,
    };
    let volumes = objects::volumes(work).await?;
    let commits = volumes.get(volume).ok_or_else(|| RetentionError::NoVolume { volume: volume.name() })?;
    let none = || RetentionError::NoCommits {
        volume: volume.name(),
        first: *first,
        last: *last,
        there: commits.len() as u64,
    };
    let size = usize::try_from(*last).ok().and_then(|last| last.checked_add(1)).ok_or_else(none)?;
    let named = commits.get(..size).filter(|_| first <= last).ok_or_else(none)?;
    let root = tree::root(&named.iter().map(|commit| commit.leaf).collect::<Vec<_>>());
    loop {
        let records = ClockRecords::load(&work.site, &keys).await?;
        if let Some(wrong) = records.wrong {
            return Err(wrong.into());
        }
        let record = ClockRecord {
            number: records.all.len() as u64 + 1,
            time: now,
            log: *volume,
            first: *first,
            last: *last,
            root,
            made,
            reason: reason.clone(),
        };
        let says =
            |other: &ClockRecord| ClockRecord { number: other.number, time: other.time, ..record.clone() };
        if let Some(newest) = records.all.last().filter(|newest| says(newest) == **newest) {
            return Ok((newest.clone(), false));
        }
        let text = record.text(&work.site.archive_id);
        let bytes = work.signed(&text, &Statement::Clock.signed_as(&work.site.archive_id), &keys)?;
        // If another process took this number, the next round reads its record.
        if work.put(&path(&work.site, record.number), bytes).await? {
            return Ok((record, true));
        }
    }
}

/// A record in one line, for people.
pub fn made_text(made: Made) -> String {
    match made {
        Made::Between { from, to } => format!("between {} and {}", time_text(from), time_text(to)),
        Made::Unknown => "at an unknown time".to_owned(),
    }
}
