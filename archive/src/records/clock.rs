//! The clock records of an archive: which commits a wrong clock dated, and when they were made.
//!
//! The time in a commit cannot be changed any more, so after a clock was wrong once, what follows
//! would be a finding for ever. A *clock record* (`_clock/00000001` and so on), signed with the
//! archive's key, says of a range of commits that their times are wrong, and when they were made or
//! that this is unknown.
//!
//! Invariants: a record counts only if it is signed and all records before it count. It names the
//! tree up to its last commit, so it is about these commits and no others. It never shortens a
//! retention: commits count as made at the latest of all times that the commit and the records give.
//! The records about one commit are read in order, and the last one is right.

use std::path::PathBuf;

use chrono::{DateTime, Datelike as _, Utc};
use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_schemas::volume::YEARS;
use strongroom_store::layout;
use strongroom_tlog::keys::Keys;
use strongroom_tlog::note::{base64, from_base64};

use super::text::{CLOCK_AHEAD_MS_MAX, Fields, Statement, as_written, open, time, time_text};
use crate::error::{LogError, RecordError};
use crate::record_fault::RecordFault;
use crate::site::Site;

/// Maximum number of clock records that are read.
const RECORDS_MAX: u64 = 10_000;

/// When commits were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Each of them between these times, both included.
    Between { from: DateTime<Utc>, to: DateTime<Utc> },
    /// Nobody knows.
    Unknown,
}

/// A statement that the times in some commits are wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockRecord {
    /// From 1 on.
    pub number: u64,
    /// When the statement was made.
    pub time: DateTime<Utc>,
    pub log: VolumeId,
    /// Version of the first of the commits, and of the last.
    pub first: u64,
    pub last: u64,
    /// Merkle tree hash over the commits up to the last one.
    pub root: Hash,
    pub made: Made,
    pub reason: String,
}

impl ClockRecord {
    /// The text of the record, which is signed.
    pub fn text(&self, archive_id: &str) -> String {
        let ClockRecord { number, time, log, first, last, root, made, reason } = self;
        let (time, log, root) = (time_text(*time), log.name(), base64(&root.0));
        let made = match made {
            Made::Between { from, to } => format!("{} {}", time_text(*from), time_text(*to)),
            Made::Unknown => UNKNOWN.to_owned(),
        };
        format!(
            "strongroom clock {number}\narchive {archive_id}\ntime {time}\ncommits {log} {first} {last}\n\
             root {root}\nmade {made}\nreason {reason}\n"
        )
    }

    /// Parses the text that [`open`] returned for record `number`.
    pub fn parse(text: &str, archive_id: &str, number: u64) -> Result<Self, RecordFault> {
        let mut fields = Fields::of(text);
        if fields.number::<u64>("strongroom clock")? != number {
            return Err(RecordFault::OtherNumber { number });
        }
        fields.archive(archive_id)?;
        let at = fields.time("time")?;
        let (log, first, last) = commits(fields.field("commits")?).ok_or(RecordFault::Commits)?;
        let root = from_base64(fields.field("root")?).and_then(|bytes| bytes.try_into().ok());
        let root = Hash(root.ok_or(RecordFault::Hash { name: "root" })?);
        let made = made(fields.field("made")?, at).ok_or(RecordFault::Made)?;
        let reason = fields.line("reason")?;
        let record = ClockRecord { number, time: at, log, first, last, root, made, reason };
        as_written(&record.text(archive_id), text)?;
        Ok(record)
    }

    /// Checks that the key that signed the record could make it.
    pub fn check(&self, signer: Option<usize>, keys: &Keys, now: DateTime<Utc>) -> Result<(), RecordFault> {
        let signer = signer.ok_or(RecordFault::Unsigned)?;
        // The holder of a stolen retired key could speak of what came after it.
        if keys.retired_at(signer, self.log).is_some_and(|size| self.last >= size) {
            return Err(RecordFault::KeyRetiredBefore);
        }
        if self.time > now + chrono::Duration::milliseconds(CLOCK_AHEAD_MS_MAX) {
            return Err(RecordFault::Later { time: self.time });
        }
        Ok(())
    }

    /// The time before which the commits were made: where that is unknown, they existed when this
    /// was said.
    pub fn made_until(&self) -> DateTime<Utc> {
        match self.made {
            Made::Between { to, .. } => to,
            Made::Unknown => self.time,
        }
    }
}

const UNKNOWN: &str = "unknown";
/// Greatest version of a commit.
const VERSION_MAX: u64 = i64::MAX as u64;

fn commits(text: &str) -> Option<(VolumeId, u64, u64)> {
    let mut parts = text.split(' ');
    let log = VolumeId::parse(parts.next()?)?;
    let (first, last) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (first <= last && last <= VERSION_MAX).then_some((log, first, last))
}

fn made(text: &str, at: DateTime<Utc>) -> Option<Made> {
    if text == UNKNOWN {
        return Some(Made::Unknown);
    }
    let (from, to) = text.split_once(' ')?;
    let (from, to) = (time(from)?, time(to)?);
    let is_past = from <= to && to <= at && from.year() >= *YEARS.start();
    is_past.then_some(Made::Between { from, to })
}

/// All clock records, and what is wrong with the first invalid one.
#[derive(Clone, Debug, Default)]
pub struct ClockRecords {
    pub all: Vec<ClockRecord>,
    pub wrong: Option<RecordError>,
}

/// The path of a clock record; records are numbered from 1 on.
pub fn path(site: &Site, number: u64) -> PathBuf {
    site.root.join(layout::CLOCK).join(record_name(number))
}

/// Name of a clock record.
pub fn record_name(number: u64) -> String {
    format!("{number:08}")
}

impl ClockRecords {
    /// Reads and checks the clock records, up to the first invalid one. Whether they name the trees
    /// of their volumes is not checked.
    pub async fn load(site: &Site, keys: &Keys) -> Result<ClockRecords, LogError> {
        let mut records = ClockRecords::default();
        let names = site.record_names(layout::CLOCK).await?;
        if names.is_empty() {
            return Ok(records);
        }
        let (known, signed_as) = (keys.all(), Statement::Clock.signed_as(&site.archive_id));
        for number in 1..=RECORDS_MAX {
            if !names.contains(&record_name(number)) {
                break;
            }
            let path = path(site, number);
            let bytes = site.read(&path).await?.unwrap_or_default();
            let checked = open(&bytes, &signed_as, &known).and_then(|(text, signer)| {
                let record = ClockRecord::parse(text, &site.archive_id, number)?;
                record.check(signer, keys, Utc::now())?;
                Ok(record)
            });
            match checked {
                Ok(record) => records.all.push(record),
                Err(fault) => {
                    records.wrong = Some(RecordError { path, fault });
                    return Ok(records);
                }
            }
        }
        if records.all.len() < names.len() {
            let fault = RecordFault::Names { count: names.len() - records.all.len() };
            records.wrong = Some(RecordError { path: site.root.join(layout::CLOCK), fault });
        }
        Ok(records)
    }

    /// The time until which commits of a volume were made, by the records that existed at `time`;
    /// `None` if none of them is about the volume.
    pub fn made_until(&self, log: VolumeId, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let about = self.all.iter().filter(|record| record.log == log && record.time <= time);
        about.map(ClockRecord::made_until).max()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use strongroom_schemas::{Period, Table};

    use super::*;

    const ID: &str = "5a1f7e9c-0000-4000-8000-000000000000";

    fn at(hour: u32) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 3, 2, hour, 0, 0).single().expect("a time")
    }

    fn record(made: Made) -> ClockRecord {
        ClockRecord {
            number: 2,
            time: at(12),
            log: VolumeId { table: Table::Events, period: Period::of_year(2040) },
            first: 0,
            last: 3,
            root: Hash::of(b"root"),
            made,
            reason: "the battery of the clock was empty".to_owned(),
        }
    }

    #[test]
    fn records_round_trip_and_nothing_else_is_read() {
        for made in [Made::Unknown, Made::Between { from: at(9), to: at(12) }] {
            let record = record(made);
            assert_eq!(ClockRecord::parse(&record.text(ID), ID, 2), Ok(record.clone()));
            assert!(ClockRecord::parse(&record.text(ID), ID, 1).is_err(), "another number");
            assert!(ClockRecord::parse(&record.text(ID), "other", 2).is_err(), "another archive");
            assert!(ClockRecord::parse(&(record.text(ID) + "more\n"), ID, 2).is_err());
        }
        let good = record(Made::Between { from: at(9), to: at(10) }).text(ID);
        for (from, to) in [
            ("events/2040 0 3", "events/2040 4 3"),
            ("events/2040 0 3", "events/2040 00 3"),
            ("events/2040 0 3", "events/2040 0 3 4"),
            ("events/2040 0 3", "events/2040 0 18446744073709551615"),
            ("events/2040 0 3", "nothing/2040 0 3"),
            ("T09:00:00Z", "T10:00:01Z"),
            ("made 2026-", "made 1999-"),
            ("T10:00:00Z", "T12:00:01Z"),
            ("made ", "made  "),
            ("reason ", "reason  "),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(ClockRecord::parse(&good.replacen(from, to, 1), ID, 2).is_err(), "{to}");
        }
    }

    #[test]
    fn a_record_is_signed_and_not_of_the_future() {
        let (record, keys) = (record(Made::Unknown), Keys::default());
        assert_eq!(record.check(Some(0), &keys, at(12)), Ok(()));
        assert_eq!(record.check(None, &keys, at(12)), Err(RecordFault::Unsigned));
        assert!(record.check(Some(0), &keys, at(11)).is_err());
    }

    #[test]
    fn commits_count_as_made_at_the_latest_time_that_is_said() {
        let about = |made, hour| ClockRecord { time: at(hour), ..record(made) };
        let all = vec![
            about(Made::Between { from: at(1), to: at(9) }, 10),
            about(Made::Between { from: at(1), to: at(2) }, 11),
            about(Made::Unknown, 12),
        ];
        let records = ClockRecords { all, wrong: None };
        let log = records.all[0].log;
        assert_eq!(records.made_until(log, at(11)), Some(at(9)), "what was said first is not taken back");
        assert_eq!(records.made_until(log, at(12)), Some(at(12)));
        assert_eq!(records.made_until(log, at(9)), None);
        assert_eq!(records.made_until(VolumeId { table: Table::Alerts, ..log }, at(12)), None);
    }
}
