//! Decides whether the clock that dates commits can be right.
//!
//! A commit's time determines the volume in which its rows are sealed and the day until which they
//! are locked, and a wrong choice cannot be undone later. So before a commit is dated by a clock,
//! the clock is compared with everything else that shows the time: the newest commit and the clock
//! of the store; and, in a process that has sealed before, the newest event and the time of the
//! last seal plus the time that has passed since.
//!
//! Invariant: the age of the newest commit or of the newest event alone is no reason to doubt a
//! clock, because an archive may be idle and old logs may be ingested.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use strongroom_store::{Store, background};

use crate::clock_doubt::ClockDoubt;
use crate::error::ArchiveError;

/// How far a clock may be ahead of everything else that shows the time: a day, and a minute for the
/// time that passes between two readings.
const AHEAD_MAX: TimeDelta = TimeDelta::minutes(24 * 60 + 1);
/// How far a clock may be behind the newest commit. Several machines may write to one archive, and
/// their clocks differ slightly. `verify` reports a commit that is further behind the commit before
/// it.
const BEHIND_MAX: TimeDelta = TimeDelta::minutes(10);

/// What a clock said at a certain moment of this process.
#[derive(Clone, Copy, Debug)]
pub struct ClockSeen {
    said: DateTime<Utc>,
    at: Instant,
}

impl ClockSeen {
    pub(crate) fn now(said: DateTime<Utc>) -> ClockSeen {
        ClockSeen { said, at: Instant::now() }
    }

    /// Returns the time that the clock should say now. The time that a machine sleeps does not
    /// count.
    fn expected(&self) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(self.at.elapsed()).unwrap_or(TimeDelta::MAX);
        self.said.checked_add_signed(passed).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// What shows the time, apart from the clock that is judged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    /// Time of the newest commit.
    pub(crate) newest: Option<DateTime<Utc>>,
    /// What the clock said when this process sealed last.
    pub(crate) seen: Option<ClockSeen>,
    /// Time of the newest event that waits for a seal.
    pub(crate) event: Option<DateTime<Utc>>,
}

impl Evidence {
    /// Returns the reason why a clock that says `now` cannot be right, or `None` if there is none.
    /// `store` returns the time by the store's clock, if that can be read. It is called only if the
    /// newest commit does not decide.
    pub(crate) fn doubt(
        &self,
        now: DateTime<Utc>,
        store: impl FnOnce() -> Result<Option<DateTime<Utc>>, ArchiveError>,
    ) -> Result<Option<ClockDoubt>, ArchiveError> {
        if let Some(newest) = self.newest.filter(|newest| *newest - now > BEHIND_MAX) {
            return Ok(Some(ClockDoubt::Behind { newest }));
        }
        if self.newest.is_some_and(|newest| now - newest <= AHEAD_MAX) {
            return Ok(None);
        }
        if let Some(store) = store()?.filter(|store| now - *store > AHEAD_MAX) {
            return Ok(Some(ClockDoubt::Ahead { newest: self.newest, store }));
        }
        let expected = self.seen.map(|seen| seen.expected()).filter(|expected| now - *expected > AHEAD_MAX);
        let event = self.event.filter(|event| now - *event > AHEAD_MAX);
        Ok(expected.zip(event).map(|(expected, event)| ClockDoubt::Jumped { expected, event }))
    }
}

/// Returns the time by the clock of the store; `None` if the store does not report one. On a disk,
/// this is the modification time that the file system gives to a new file. If the disk is on a file
/// server, that time is from the server's clock.
pub(crate) fn of_store(
    store: &Store,
    root: &Path,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, ArchiveError> {
    match store {
        Store::Local => {
            // The file has no name, and disappears here.
            let made = tempfile::tempfile_in(root).and_then(|file| file.metadata()?.modified());
            Ok(made
                .ok()
                .filter(|time| *time > SystemTime::UNIX_EPOCH + Duration::from_secs(1))
                .map(Into::into))
        }
        Store::S3(bucket) => {
            let s3 = bucket.s3.clone();
            // A store that does not answer is an error, because it has not confirmed the clock: the
            // caller tries again.
            let ahead = background::wait(async move {
                s3.clock_ahead().await.map_err(|source| ArchiveError::StoreClock { source })
            })?;
            // `clock_ahead` compares the store's clock with the clock of the process. Except in
            // tests, that clock says `now`.
            Ok(ahead.and_then(|seconds| now.checked_add_signed(TimeDelta::try_seconds(seconds)?)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn a_clock_is_doubted_for_what_contradicts_it_and_never_for_silence() {
        let now = at("2026-11-30T12:00:00Z");
        let (day, year) = (TimeDelta::days(1), TimeDelta::days(365));
        let minute = TimeDelta::minutes(1);
        let judge = |newest: Option<DateTime<Utc>>, store: Option<DateTime<Utc>>| {
            Evidence { newest, ..Evidence::default() }.doubt(now, || Ok(store)).expect("a judgement")
        };
        // An archive in use; its store is not even asked.
        assert_eq!(judge(Some(now - minute), Some(now - year)), None);
        assert_eq!(judge(Some(now - day), Some(now - year)), None);
        // Idle archives, new archives, and stores that do not report a time.
        for newest in [None, Some(now - year)] {
            for store in [None, Some(now), Some(now + year), Some(now - day)] {
                assert_eq!(judge(newest, store), None, "{newest:?} {store:?}");
            }
            let store = now - day - minute * 2;
            assert_eq!(judge(newest, Some(store)), Some(ClockDoubt::Ahead { newest, store }));
        }
        // Clocks of several machines differ slightly.
        assert_eq!(judge(Some(now + minute * 10), Some(now)), None);
        let newest = now + minute * 11;
        assert_eq!(judge(Some(newest), Some(now)), Some(ClockDoubt::Behind { newest }));
        assert_eq!(
            judge(Some(now + year), Some(now + year)),
            Some(ClockDoubt::Behind { newest: now + year })
        );
    }

    #[test]
    fn a_clock_that_jumps_is_doubted_unless_events_jump_with_it() {
        let now = at("2027-11-30T12:00:00Z");
        let before = at("2026-11-30T12:00:00Z");
        let judge = |seen: Option<DateTime<Utc>>, event: Option<DateTime<Utc>>| {
            let evidence = Evidence { newest: Some(before), seen: seen.map(ClockSeen::now), event };
            // The disk has the clock of the machine, so its clock has jumped too.
            evidence.doubt(now, || Ok(Some(now))).expect("a judgement")
        };
        let jumped = judge(Some(before), Some(before));
        assert!(matches!(jumped, Some(ClockDoubt::Jumped { event, .. }) if event == before), "{jumped:?}");
        // Events from another machine agree with the clock, or there is no event to compare the
        // clock with.
        assert_eq!(judge(Some(before), Some(now - TimeDelta::hours(2))), None);
        assert_eq!(judge(Some(before), None), None);
        assert_eq!(judge(None, Some(before)), None);
        assert_eq!(judge(Some(now), Some(before)), None);
    }
}
