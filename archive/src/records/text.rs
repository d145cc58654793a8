//! The texts of retention records: policies, holds, their objects, and drops.
//!
//! Invariants: a text is accepted only in the exact form in which this program writes it, so that
//! all readers read it alike. A text that has a signature is refused unless a known key made the
//! signature. `docs/proof.md` has the formats.

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};
use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_store::options::{LockMode, RETENTION_YEARS_MAX, Retention};
use strongroom_tlog::keys::Keys;
use strongroom_tlog::note::{Note, PublicKey, base64, from_base64};

use crate::record_fault::RecordFault;

/// Longest reason, name, namespace or user, in bytes.
pub const TEXT_BYTES_MAX: usize = 1000;
/// Maximum number of objects in one list. With this limit, the size of a list stays well below the
/// maximum size of a note.
pub const LIST_OBJECTS_MAX: usize = 4000;

/// Maximum number of milliseconds by which the time in a record may be ahead of our clock. A record
/// with a later time is refused.
pub const CLOCK_AHEAD_MS_MAX: i64 = 600_000;

/// Returns the end of the retention of an object that was put at `time`.
pub fn retention_end(time: DateTime<Utc>, years: u32) -> Option<DateTime<Utc>> {
    Retention { mode: LockMode::Compliance, years }.until(time)
}

/// The kind of a signed statement. It is part of the name under which the statement is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    Retention,
    Holds,
    Dropped,
    Clock,
}

impl Statement {
    /// Returns the name under which a statement of this kind is signed.
    pub fn signed_as(self, archive_id: &str) -> String {
        let kind = match self {
            Statement::Retention => "retention",
            Statement::Holds => "holds",
            Statement::Dropped => "dropped",
            Statement::Clock => "clock",
        };
        format!("strongroom/{archive_id}/{kind}")
    }
}

/// Whether `text` is allowed as the value of a line of a record.
pub fn is_line(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TEXT_BYTES_MAX
        && text.trim() == text
        && !text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// Returns a time in the format of records: whole seconds.
pub fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Opens a record. Returns its text and, if it is signed, the index in `keys` of its signer.
pub fn open<'n>(
    bytes: &'n [u8],
    signed_as: &str,
    keys: &[PublicKey],
) -> Result<(&'n str, Option<usize>), RecordFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| RecordFault::Utf8)?;
    if text.contains("\n\n") {
        let note = Note::parse(bytes).ok_or(RecordFault::Note)?;
        let signer = note.signer(signed_as, keys).ok_or(RecordFault::Signature)?;
        return Ok((note.text, Some(signer)));
    }
    let plain = text.ends_with('\n') && !text.bytes().any(|byte| byte < 0x20 && byte != b'\n');
    if plain { Ok((text, None)) } else { Err(RecordFault::Lines) }
}

/// The lines of a record, in order.
pub(super) struct Fields<'t>(std::iter::Peekable<std::str::Lines<'t>>);

impl<'t> Fields<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Fields(text.lines().peekable())
    }

    fn optional(&mut self, name: &str) -> Option<&'t str> {
        let value = self.0.peek()?.strip_prefix(name)?.strip_prefix(' ')?;
        self.0.next();
        Some(value)
    }

    pub(super) fn field(&mut self, name: &'static str) -> Result<&'t str, RecordFault> {
        self.optional(name).ok_or(RecordFault::Line { name })
    }

    pub(super) fn line(&mut self, name: &'static str) -> Result<String, RecordFault> {
        let value = self.field(name)?;
        if is_line(value) { Ok(value.to_owned()) } else { Err(RecordFault::Text { name }) }
    }

    pub(super) fn time(&mut self, name: &'static str) -> Result<DateTime<Utc>, RecordFault> {
        time(self.field(name)?).ok_or(RecordFault::Time { name })
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self, name: &'static str) -> Result<T, RecordFault> {
        self.field(name)?.parse().map_err(|_| RecordFault::Number { name })
    }

    pub(super) fn archive(&mut self, archive_id: &str) -> Result<(), RecordFault> {
        match self.field("archive")? {
            id if id == archive_id => Ok(()),
            _ => Err(RecordFault::OtherArchive),
        }
    }
}

pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    // A leap second and the year 0 are not times of a calendar that every reader has.
    let is_common = time.timestamp_subsec_nanos() < 1_000_000_000 && time.year() >= 1;
    (is_common && time_text(time) == text).then_some(time)
}

pub(super) fn as_written(written: &str, text: &str) -> Result<(), RecordFault> {
    if written == text { Ok(()) } else { Err(RecordFault::Form) }
}

/// The number of calendar years for which everything is kept from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRecord {
    /// From 1 on.
    pub number: u64,
    pub time: DateTime<Utc>,
    pub years: u32,
    pub reason: String,
}

impl PolicyRecord {
    /// Returns the text of the record, which is signed.
    pub fn text(&self, archive_id: &str) -> String {
        let PolicyRecord { number, time, years, reason } = self;
        let time = time_text(*time);
        format!(
            "strongroom retention {number}\narchive {archive_id}\ntime {time}\nyears {years}\nreason {reason}\n"
        )
    }

    /// Reads record `number`, which must promise more years than `before`.
    pub fn parse(text: &str, archive_id: &str, number: u64, before: u32) -> Result<Self, RecordFault> {
        let mut fields = Fields::of(text);
        if fields.number::<u64>("strongroom retention")? != number {
            return Err(RecordFault::OtherNumber { number });
        }
        fields.archive(archive_id)?;
        let (time, years) = (fields.time("time")?, fields.number("years")?);
        let record = PolicyRecord { number, time, years, reason: fields.line("reason")? };
        as_written(&record.text(archive_id), text)?;
        if years <= before || years > RETENTION_YEARS_MAX {
            return Err(RecordFault::Years { years, before });
        }
        Ok(record)
    }
}

/// The scope of a hold. A row is in the scope if it matches every field; a field that is `None`
/// matches every row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Records at this time and later.
    pub from: Option<DateTime<Utc>>,
    /// Records before this time.
    pub to: Option<DateTime<Utc>>,
    pub namespace: Option<String>,
    /// Name of a user, or of a user who was impersonated.
    pub user: Option<String>,
}

/// What a hold record does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    Place(Scope),
    Release,
}

/// A record of `_holds/`: a hold is placed or released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRecord {
    pub number: u64,
    pub time: DateTime<Utc>,
    pub name: String,
    pub deed: Deed,
    pub reason: String,
}

impl HoldRecord {
    /// Returns the text of the record, which is signed.
    pub fn text(&self, archive_id: &str) -> String {
        let HoldRecord { number, time, name, deed, reason } = self;
        let time = time_text(*time);
        let mut text = format!("strongroom hold {number}\narchive {archive_id}\ntime {time}\n");
        match deed {
            Deed::Release => text += &format!("release {name}\n"),
            Deed::Place(Scope { from, to, namespace, user }) => {
                text += &format!("place {name}\n");
                let lines = [
                    ("from", from.map(time_text)),
                    ("to", to.map(time_text)),
                    ("namespace", namespace.clone()),
                    ("user", user.clone()),
                ];
                for (name, value) in lines {
                    if let Some(value) = value {
                        text += &format!("{name} {value}\n");
                    }
                }
            }
        }
        text + &format!("reason {reason}\n")
    }

    /// Parses the text that [`open`] returned for a record. Returns an error if the record is about
    /// another archive or item than the arguments name.
    pub fn parse(text: &str, archive_id: &str, number: u64) -> Result<Self, RecordFault> {
        let mut fields = Fields::of(text);
        if fields.number::<u64>("strongroom hold")? != number {
            return Err(RecordFault::OtherNumber { number });
        }
        fields.archive(archive_id)?;
        let made = fields.time("time")?;
        let (name, deed) = match fields.optional("release") {
            Some(name) => (name, Deed::Release),
            None => {
                let name = fields.field("place")?;
                let bound = |text: Option<&str>| match text {
                    Some(text) => time(text).map(Some).ok_or(RecordFault::Span),
                    None => Ok(None),
                };
                let (from, to) = (bound(fields.optional("from"))?, bound(fields.optional("to"))?);
                let mut line = |name: &str| fields.optional(name).map(str::to_owned);
                (name, Deed::Place(Scope { from, to, namespace: line("namespace"), user: line("user") }))
            }
        };
        let record =
            HoldRecord { number, time: made, name: name.to_owned(), deed, reason: fields.line("reason")? };
        as_written(&record.text(archive_id), text)?;
        let named = match &record.deed {
            Deed::Place(scope) => {
                [&scope.namespace, &scope.user].into_iter().flatten().all(|text| is_line(text))
            }
            Deed::Release => true,
        };
        if named && is_line(&record.name) { Ok(record) } else { Err(RecordFault::Name) }
    }
}

/// An object under a hold: its path below the root, and in a bucket its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldObject {
    pub path: String,
    pub version: Option<String>,
}

/// A record of `_holds/`: objects under a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldList {
    /// Number of the hold.
    pub number: u64,
    /// Number of the list, from 1 on.
    pub part: u64,
    /// Hash of the hold's record.
    pub hold: Hash,
    pub objects: Vec<HeldObject>,
}

impl HeldList {
    /// Returns the text of the record, which is signed.
    pub fn text(&self, archive_id: &str) -> String {
        let HeldList { number, part, hold, objects } = self;
        let mut text = format!("strongroom held {number} {part}\narchive {archive_id}\nhold {hold}\n");
        for HeldObject { path, version } in objects {
            text += &format!("object {path} {}\n", version.as_deref().unwrap_or("-"));
        }
        text
    }

    /// Parses the text that [`open`] returned for a record. Returns an error if the record is about
    /// another archive or item than the arguments name.
    pub fn parse(text: &str, archive_id: &str, number: u64, part: u64) -> Result<Self, RecordFault> {
        let mut fields = Fields::of(text);
        if fields.field("strongroom held")? != format!("{number} {part}") {
            return Err(RecordFault::OtherList { number, part });
        }
        fields.archive(archive_id)?;
        let hold = Hash::parse(fields.field("hold")?).ok_or(RecordFault::Hash { name: "hold" })?;
        let mut list = HeldList { number, part, hold, objects: Vec::new() };
        while let Some(line) = fields.optional("object") {
            let (path, version) = line.split_once(' ').ok_or(RecordFault::ObjectVersion)?;
            let plain = !path.is_empty()
                && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
                && !path.contains(['\\', '\0']);
            if !plain || version.is_empty() || version.contains(' ') {
                return Err(RecordFault::Object);
            }
            let version = (version != "-").then(|| version.to_owned());
            list.objects.push(HeldObject { path: path.to_owned(), version });
        }
        as_written(&list.text(archive_id), text)?;
        Ok(list)
    }
}

/// A record of `_dropped/`: a volume was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropRecord {
    pub log: VolumeId,
    pub time: DateTime<Utc>,
    /// Number of the volume's commits; `root` is the root over them.
    pub size: u64,
    pub root: Hash,
    pub files: u64,
    pub rows: u64,
    /// Time of the volume's newest commit, or the end of the date of its newest file, whichever is
    /// later.
    pub last: DateTime<Utc>,
    /// Years that were promised when the volume was dropped.
    pub years: u32,
    /// When the retention of the volume's last object ended.
    pub until: DateTime<Utc>,
    /// Hash of the file of the volume's final positions.
    pub state: Hash,
    pub reason: String,
}

impl DropRecord {
    /// Returns the text of the record, which is signed.
    pub fn text(&self, archive_id: &str) -> String {
        let DropRecord { log, time, size, root, files, rows, last, years, until, state, reason } = self;
        format!(
            "strongroom dropped {}\narchive {archive_id}\ntime {}\nsize {size}\nroot {}\nfiles {files}\nrows {rows}\n\
             last {}\nyears {years}\nuntil {}\nstate {state}\nreason {reason}\n",
            log.name(),
            time_text(*time),
            base64(&root.0),
            time_text(*last),
            time_text(*until)
        )
    }

    /// Parses the text that [`open`] returned for a record. Returns an error if the record is about
    /// another archive or item than the arguments name.
    pub fn parse(text: &str, archive_id: &str, log: VolumeId) -> Result<Self, RecordFault> {
        let mut fields = Fields::of(text);
        if fields.field("strongroom dropped")? != log.name() {
            return Err(RecordFault::OtherVolume { volume: log });
        }
        fields.archive(archive_id)?;
        let (time, size) = (fields.time("time")?, fields.number("size")?);
        let root = from_base64(fields.field("root")?).and_then(|bytes| bytes.try_into().ok());
        let record = DropRecord {
            log,
            time,
            size,
            root: Hash(root.ok_or(RecordFault::Hash { name: "root" })?),
            files: fields.number("files")?,
            rows: fields.number("rows")?,
            last: fields.time("last")?,
            years: fields.number("years")?,
            until: fields.time("until")?,
            state: Hash::parse(fields.field("state")?).ok_or(RecordFault::Hash { name: "state" })?,
            reason: fields.line("reason")?,
        };
        as_written(&record.text(archive_id), text)?;
        Ok(record)
    }

    /// Checks that the volume could be dropped at the stated time, and by the key that signed the
    /// record. `explained` is the time until which commits of it were made, as clock records say
    /// that are not younger than this record.
    pub fn check(
        &self,
        signer: Option<usize>,
        keys: &Keys,
        years: u32,
        explained: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<(), RecordFault> {
        let signer = signer.ok_or(RecordFault::Unsigned)?;
        // Otherwise, the holder of a stolen retired key could drop a volume that existed when the
        // key was retired.
        if let Some(next) = keys.records.get(signer + 1)
            && next.heads.iter().any(|head| head.log == self.log)
        {
            return Err(RecordFault::KeyRetired);
        }
        for head in keys.records.iter().flat_map(|record| &record.heads).filter(|head| head.log == self.log) {
            if head.size > self.size || head.size == self.size && head.root != self.root {
                return Err(RecordFault::OtherTree);
            }
        }
        if self.last.year() < self.log.period.year {
            return Err(RecordFault::LastEarly { year: self.log.period.year });
        }
        if let Some(until) = explained.filter(|until| self.last < *until) {
            return Err(RecordFault::LastExplained { until });
        }
        if self.years < years {
            return Err(RecordFault::YearsFew { years: self.years, promised: years });
        }
        let promised = retention_end(self.last, self.years).ok_or(RecordFault::Calendar)?;
        if self.until < promised || self.time < self.until {
            return Err(RecordFault::DroppedEarly { time: self.time, until: self.until.max(promised) });
        }
        if self.time > now + chrono::Duration::milliseconds(CLOCK_AHEAD_MS_MAX) {
            return Err(RecordFault::Later { time: self.time });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use strongroom_schemas::Period;

    use chrono::TimeZone as _;
    use strongroom_schemas::Table;

    use super::*;

    const ID: &str = "5a1f7e9c-0000-4000-8000-000000000000";

    fn at(year: i32, month: u32, day: u32) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(year, month, day, 10, 0, 0).single().expect("a time")
    }

    fn dropped() -> DropRecord {
        DropRecord {
            log: VolumeId { table: Table::Events, period: Period::of_year(2019) },
            time: at(2026, 3, 2),
            size: 7,
            root: Hash::of(b"root"),
            files: 6,
            rows: 600,
            last: at(2019, 12, 31),
            years: 6,
            until: at(2026, 1, 1),
            state: Hash::of(b"{}"),
            reason: "past its time".to_owned(),
        }
    }

    #[test]
    fn records_round_trip_and_nothing_else_is_read() {
        let policy =
            PolicyRecord { number: 2, time: at(2026, 3, 2), years: 8, reason: "a new law".to_owned() };
        assert_eq!(PolicyRecord::parse(&policy.text(ID), ID, 2, 7), Ok(policy.clone()));
        assert!(PolicyRecord::parse(&policy.text(ID), ID, 2, 8).is_err(), "no more than before");
        assert!(PolicyRecord::parse(&policy.text(ID), ID, 1, 7).is_err(), "another number");
        assert!(PolicyRecord::parse(&policy.text(ID), "other", 2, 7).is_err(), "another archive");
        let scope =
            Scope { from: Some(at(2026, 1, 1)), to: None, namespace: Some("a b".to_owned()), user: None };
        for deed in [Deed::Place(scope), Deed::Place(Scope::default()), Deed::Release] {
            let hold = HoldRecord {
                number: 1,
                time: at(2026, 3, 2),
                name: "case 7".to_owned(),
                deed,
                reason: "r".to_owned(),
            };
            assert_eq!(HoldRecord::parse(&hold.text(ID), ID, 1), Ok(hold));
        }
        let object = |path: &str, version: Option<&str>| HeldObject {
            path: path.to_owned(),
            version: version.map(str::to_owned),
        };
        let objects = vec![object("events/2026/a", None), object("_keys/00000001", Some("v1"))];
        let list = HeldList { number: 1, part: 3, hold: Hash::of(b"x"), objects };
        assert_eq!(HeldList::parse(&list.text(ID), ID, 1, 3), Ok(list.clone()));
        let elsewhere = list.text(ID).replace("events/2026/a", "events/../../etc");
        assert!(HeldList::parse(&elsewhere, ID, 1, 3).is_err());
        let record = dropped();
        assert_eq!(DropRecord::parse(&record.text(ID), ID, record.log), Ok(record.clone()));
        for (from, to) in [
            ("size 7", "size 07"),
            ("files", "Files"),
            ("time 2026-03-02T10:00:00Z", "time 2026-03-02T10:00:00+00:00"),
            ("reason ", "reason  "),
            ("time 2026-03-02T10:00:00Z", "time 2026-03-02T23:59:60Z"),
            ("last 2019-", "last 0000-"),
        ] {
            assert!(DropRecord::parse(&record.text(ID).replace(from, to), ID, record.log).is_err(), "{to}");
        }
        assert!(DropRecord::parse(&(record.text(ID) + "more\n"), ID, record.log).is_err());
    }

    #[test]
    fn a_volume_cannot_have_been_dropped_early() {
        let (record, keys, now) = (dropped(), Keys::default(), at(2026, 3, 3));
        let check = |record: &DropRecord, years| record.check(Some(0), &keys, years, None, now);
        assert_eq!(check(&record, 6), Ok(()));
        assert!(record.check(None, &keys, 6, None, now).is_err(), "not signed");
        let explained = |until| record.check(Some(0), &keys, 6, Some(until), now);
        assert_eq!(explained(record.last), Ok(()));
        assert!(explained(at(2020, 6, 1)).is_err(), "a clock was wrong, and the volume is younger");
        assert!(check(&record, 7).is_err(), "seven years were promised");
        for early in [
            DropRecord { time: at(2025, 12, 30), ..record.clone() },
            DropRecord { until: at(2025, 6, 1), ..record.clone() },
            DropRecord { last: at(2018, 12, 31), ..record.clone() },
            DropRecord { last: at(2020, 12, 31), ..record.clone() },
            DropRecord { time: at(2027, 1, 1), ..record.clone() },
        ] {
            assert!(check(&early, 6).is_err(), "{early:?}");
        }
    }

    #[test]
    fn a_line_is_a_line() {
        for good in ["a", "case 7/2026", "Ünï – c"] {
            assert!(is_line(good), "{good}");
        }
        for bad in ["", " a", "a\n", "a\nb", "a\u{7f}", "a\u{2028}b", &"x".repeat(TEXT_BYTES_MAX + 1)] {
            assert!(!is_line(bad), "{bad:?}");
        }
    }
}
