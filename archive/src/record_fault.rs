//! The reasons why a retention record is refused.
//!
//! Invariant: a fault repeats names, numbers and times of a record, never its reason or any other
//! text that a person wrote.

use std::fmt::Display;

use chrono::{DateTime, Utc};
use strongroom_schemas::VolumeId;
use strongroom_store::options::RETENTION_YEARS_MAX;
use thiserror::Error;

/// Why a record of `_retention`, `_holds`, `_dropped` or `_clock` is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordFault {
    #[error("it is not UTF-8")]
    Utf8,
    #[error("not a signed note")]
    Note,
    #[error("its signature is invalid or of an unknown key")]
    Signature,
    #[error("not a text of lines")]
    Lines,
    #[error("line \"{name}\" is missing or misplaced")]
    Line { name: &'static str },
    #[error("its {name} is not one line of plain text")]
    Text { name: &'static str },
    #[error("its {name} is not a time such as 2026-03-02T10:00:00Z")]
    Time { name: &'static str },
    #[error("its {name} is not a number")]
    Number { name: &'static str },
    #[error("its {name} is not a hash")]
    Hash { name: &'static str },
    #[error("its from or to is not a time")]
    Span,
    #[error("it belongs to another archive")]
    OtherArchive,
    #[error("its number is not {number}")]
    OtherNumber { number: u64 },
    #[error("it is not list {part} of hold {number}")]
    OtherList { number: u64, part: u64 },
    #[error("it is not about {}", volume.name())]
    OtherVolume { volume: VolumeId },
    #[error("it is not in the exact format")]
    Form,
    #[error("it promises {years} years; more than {before} and at most {RETENTION_YEARS_MAX} are allowed")]
    Years { years: u32, before: u32 },
    #[error("a name in it is not plain text")]
    Name,
    #[error("an object in it has no version")]
    ObjectVersion,
    #[error("an object in it does not belong to an archive")]
    Object,
    #[error("the archive has a key, but the record is not signed")]
    UnsignedPolicy,
    #[error("a hold with that name was placed before")]
    HoldTwice,
    #[error("the hold to release does not exist")]
    HoldUnknown,
    #[error("the hold was placed with a signature, but its release is not signed")]
    ReleaseUnsigned,
    #[error("it belongs to a record other than the hold's")]
    OtherHold,
    #[error("{count} names here are not records, or an earlier record is missing")]
    Names { count: usize },
    #[error("another process is listing the objects of the hold; run again")]
    ListedMeanwhile,
    #[error("its name is not that of a volume")]
    NoVolume,
    #[error("it is not signed")]
    Unsigned,
    #[error("it is signed by a retired key, but the volume existed when the key was retired")]
    KeyRetired,
    #[error("a key record names a different tree of the volume")]
    OtherTree,
    #[error("its last commit is from before the year {year}")]
    LastEarly { year: i32 },
    #[error("it was dropped after {years} years, but {promised} were promised")]
    YearsFew { years: u32, promised: u32 },
    #[error("its retention ends beyond the calendar")]
    Calendar,
    #[error("it was dropped at {}, but had to be kept until {}", seconds(*time), seconds(*until))]
    DroppedEarly { time: DateTime<Utc>, until: DateTime<Utc> },
    #[error("its time {} is in the future", seconds(*time))]
    Later { time: DateTime<Utc> },
    #[error("commits of it were made up to {}, as a clock record says, and its last is earlier", seconds(*until))]
    LastExplained { until: DateTime<Utc> },
    #[error("its commits are not a range, such as events/2026 3 5")]
    Commits,
    #[error("its times are not a period that ends before the record was made")]
    Made,
    #[error("it is signed by a key that was retired before these commits")]
    KeyRetiredBefore,
    #[error("the file of its positions is missing")]
    StateMissing,
    #[error("the file of its positions does not match the hash in it")]
    StateOther,
    #[error("the file of its positions is damaged")]
    StateDamaged,
    #[error("the file of its positions has an unknown format")]
    StateFormat,
    #[error("it exists already, with positions that differ from the volume")]
    StateDiffers,
    #[error("another process is dropping it; run again")]
    DroppedMeanwhile,
}

fn seconds(time: DateTime<Utc>) -> impl Display {
    time.format("%Y-%m-%dT%H:%M:%SZ")
}
