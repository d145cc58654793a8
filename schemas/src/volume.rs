//! Names of volumes. A volume is a Delta table that contains the commits of one table of the
//! archive for one period.
//!
//! Invariants. A *period* is a UTC year, or one part of a year. The first volume of a year is named
//! after the year (`2026`). When a volume has its maximum number of commits, the next part begins
//! (`2026-0001`, `2026-0002`, …). So periods sort like their names, and a commit of a later period
//! is never older than a commit of an earlier period. No state.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::table::Table;

/// The years that can be the year of a period.
pub const YEARS: RangeInclusive<i32> = 2000..=9999;
/// The number of the last part of a year; four digits.
pub const PART_MAX: u16 = 9999;

/// A year, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Period {
    pub year: i32,
    /// 0 for the first volume of the year.
    pub part: u16,
}

/// A text that is not the name of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPeriod;

impl fmt::Display for NotAPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a year, or a year and a part, such as 2026 or 2026-0001")
    }
}

impl std::error::Error for NotAPeriod {}

impl Period {
    /// Returns the period of the first volume of a year.
    pub const fn of_year(year: i32) -> Period {
        Period { year, part: 0 }
    }

    /// Returns the next part of the same year; `None` after the last part.
    pub fn next_part(self) -> Option<Period> {
        (self.part < PART_MAX).then(|| Period { part: self.part + 1, ..self })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}", self.year)?;
        match self.part {
            0 => Ok(()),
            part => write!(f, "-{part:04}"),
        }
    }
}

impl FromStr for Period {
    type Err = NotAPeriod;

    fn from_str(text: &str) -> Result<Period, NotAPeriod> {
        let digits = |text: &str| {
            let all = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
            all.then(|| text.parse::<u16>().ok()).flatten()
        };
        let (year, part) = match text.split_once('-') {
            Some((year, part)) => (year, digits(part).filter(|part| *part > 0).ok_or(NotAPeriod)?),
            None => (text, 0),
        };
        let year = digits(year).map(i32::from).filter(|year| YEARS.contains(year)).ok_or(NotAPeriod)?;
        Ok(Period { year, part })
    }
}

impl From<Period> for String {
    fn from(period: Period) -> String {
        period.to_string()
    }
}

impl TryFrom<String> for Period {
    type Error = NotAPeriod;

    fn try_from(text: String) -> Result<Period, NotAPeriod> {
        text.parse()
    }
}

/// One Delta table of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId {
    pub table: Table,
    pub period: Period,
}

impl VolumeId {
    /// Returns `<table>/<period>`: the volume's path below the archive root, and its name in key
    /// records.
    pub fn name(&self) -> String {
        format!("{}/{}", self.table.name(), self.period)
    }

    /// Returns the first line of the log checkpoints of the volume's proof log, which is also the
    /// name of their signatures.
    pub fn origin(&self, archive_id: &str) -> String {
        format!("strongroom/{archive_id}/{}", self.name())
    }

    /// Parses a name in the format of [`VolumeId::name`]; `None` if it is not one.
    pub fn parse(name: &str) -> Option<VolumeId> {
        let (table, period) = name.split_once('/')?;
        let table = Table::ALL.into_iter().find(|known| known.name() == table)?;
        Some(VolumeId { table, period: period.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_sort_like_their_names() {
        let names = ["2025", "2026", "2026-0001", "2026-0002", "2026-9999", "2027"];
        let periods: Vec<Period> = names.iter().map(|name| name.parse().expect("a period")).collect();
        assert!(periods.is_sorted() && names.is_sorted());
        for (name, period) in names.iter().zip(&periods) {
            assert_eq!(period.to_string(), *name);
        }
        assert_eq!(Period::of_year(2026).next_part(), "2026-0001".parse().ok());
        assert_eq!(periods[4].next_part(), None);
    }

    #[test]
    fn other_texts_are_not_periods() {
        for text in
            ["26", "20261", "abcd", "+026", "1999", "2026-", "2026-0000", "2026-1", "2026-00001", "2026_0001"]
        {
            assert_eq!(text.parse::<Period>(), Err(NotAPeriod), "{text}");
        }
        assert_eq!(
            VolumeId::parse("events/2026-0001").map(|id| id.name()).as_deref(),
            Some("events/2026-0001")
        );
        assert_eq!(VolumeId::parse("events/26"), None);
        assert_eq!(VolumeId::parse("files/2026"), None);
    }
}
