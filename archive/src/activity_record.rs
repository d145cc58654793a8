//! Activity records: the questions, judgements and decisions of this program and its users, with
//! their authors and times. They are sealed and proven like events.
//!
//! Invariants. A record is one JSON object, its *body*. Proofs are over the bytes of the body.
//! These bytes are written once, by this module; the other columns of a row repeat members of the
//! body. Each writer of activity records has its own source partition, `activity/<writer id>`. The
//! offset of a record in the partition is the record's number, counted from 0. So the position of
//! the partition is the number of its records, and a missing record is noticed.
//!
//! `docs/format.md` has the grammar.

use std::fmt;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, RecordBatch, StringArray, TimestampMicrosecondArray};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};
use strongroom_schemas::activity;
use thiserror::Error;

use crate::strict_json::Strict;

/// Maximum length of a record's body.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Maximum length of a principal or subject, in bytes.
pub const NAME_BYTES_MAX: usize = 1000;
/// Maximum length of a writer id.
pub const WRITER_ID_BYTES_MAX: usize = 64;

/// The kind of a record: a closed list. Each kind has its own members in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ActivityKind {
    /// A question that was asked of the archive.
    Question,
    /// A judgement of an alert.
    Triage,
    /// A step in the life of a case.
    Case,
    /// A review of accesses or rights.
    Review,
    /// A use of emergency access.
    BreakGlass,
    /// Sums over earlier records, which remain when the earlier records are dropped.
    Rollup,
    /// A statement by an outside clock.
    Clock,
}

impl ActivityKind {
    pub const ALL: [ActivityKind; 7] = [
        ActivityKind::Question,
        ActivityKind::Triage,
        ActivityKind::Case,
        ActivityKind::Review,
        ActivityKind::BreakGlass,
        ActivityKind::Rollup,
        ActivityKind::Clock,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            ActivityKind::Question => "question",
            ActivityKind::Triage => "triage",
            ActivityKind::Case => "case",
            ActivityKind::Review => "review",
            ActivityKind::BreakGlass => "break_glass",
            ActivityKind::Rollup => "rollup",
            ActivityKind::Clock => "clock",
        }
    }
}

impl fmt::Display for ActivityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something is not an activity record. The message never repeats the record.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ActivityError {
    #[error("the body has {bytes} bytes, and at most {max} are allowed", max = BODY_BYTES_MAX)]
    BodyLong { bytes: usize },
    #[error("the body is not a JSON object, or repeats a name")]
    BodyMalformed,
    #[error("\"{member}\" in the body is missing or malformed")]
    Member { member: &'static str },
    #[error("\"{member}\" is a member of every record, and cannot be among its details")]
    MemberReserved { member: &'static str },
    #[error("a writer id must have 1 to {max} of the characters a-z, A-Z, 0-9, -, _ and .", max = WRITER_ID_BYTES_MAX)]
    WriterId,
    #[error("{records} records with {bytes} bytes are too many for one append")]
    TooMany { records: usize, bytes: usize },
}

/// An activity record: its body, and those members of the body that are also columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityRecord {
    kind: ActivityKind,
    time_us: i64,
    principal: String,
    subject: Option<String>,
    body: String,
}

impl ActivityRecord {
    /// Makes a record of `kind` from its principal, its subject, and the other members of its body.
    ///
    /// # Errors
    /// [`ActivityError`] if a part does not have the required form, or the body would be too long.
    pub fn new(
        kind: ActivityKind,
        time: DateTime<Utc>,
        principal: &str,
        subject: Option<&str>,
        details: Map<String, Value>,
    ) -> Result<ActivityRecord, ActivityError> {
        let own = [activity::KIND, activity::TIME, activity::PRINCIPAL, activity::SUBJECT];
        if let Some(member) = own.into_iter().find(|member| details.contains_key(*member)) {
            return Err(ActivityError::MemberReserved { member });
        }
        let mut members = details;
        members.insert(activity::KIND.to_owned(), kind.as_str().into());
        members.insert(activity::TIME.to_owned(), time_text(time).into());
        members.insert(activity::PRINCIPAL.to_owned(), principal.into());
        if let Some(subject) = subject {
            members.insert(activity::SUBJECT.to_owned(), subject.into());
        }
        ActivityRecord::parse(Value::Object(members).to_string())
    }

    /// Parses a body. The record keeps the body's bytes unchanged.
    ///
    /// # Errors
    /// [`ActivityError`] if the body is not a record.
    pub fn parse(body: String) -> Result<ActivityRecord, ActivityError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(ActivityError::BodyLong { bytes: body.len() });
        }
        let Ok(Strict(Value::Object(members))) = serde_json::from_str(&body) else {
            return Err(ActivityError::BodyMalformed);
        };
        let wrong = |member| ActivityError::Member { member };
        let text = |member: &str| members.get(member).and_then(Value::as_str);
        let kind = text(activity::KIND);
        let kind = ActivityKind::ALL.into_iter().find(|known| Some(known.as_str()) == kind);
        let time = text(activity::TIME).and_then(|text| {
            let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
            (time_text(time) == text).then_some(time)
        });
        let principal = text(activity::PRINCIPAL).filter(|name| is_name(name));
        let subject = match members.get(activity::SUBJECT) {
            None => None,
            Some(subject) => {
                let subject = subject.as_str().filter(|name| is_name(name));
                Some(subject.ok_or(wrong(activity::SUBJECT))?.to_owned())
            }
        };
        Ok(ActivityRecord {
            kind: kind.ok_or(wrong(activity::KIND))?,
            time_us: time.ok_or(wrong(activity::TIME))?.timestamp_micros(),
            principal: principal.ok_or(wrong(activity::PRINCIPAL))?.to_owned(),
            subject,
            body,
        })
    }

    pub fn kind(&self) -> ActivityKind {
        self.kind
    }

    /// Microseconds since the epoch.
    pub fn time_us(&self) -> i64 {
        self.time_us
    }

    pub fn principal(&self) -> &str {
        &self.principal
    }

    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Returns the proven bytes.
    pub fn body(&self) -> &str {
        &self.body
    }
}

/// `2026-03-02T10:00:00.000000Z`
fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Whether a text may be a principal or a subject. The rule is the same as for names in holds, so
/// that a value in a column cannot be mistaken for another name or for a missing one.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.trim().len() == name.len()
        && !name.chars().any(char::is_control)
}

/// Whether a source partition belongs to a writer of activity records.
pub(crate) fn is_activity(partition: &str) -> bool {
    partition.starts_with(activity::SOURCE_PREFIX)
}

/// Calls `wrong` for each row in which the columns differ from the members of the body, or the body
/// is not a record.
///
/// # Errors
/// If the batch does not have the columns of the table.
pub fn differences(
    batch: &RecordBatch,
    wrong: &mut dyn FnMut(usize, &'static str),
) -> Result<(), &'static str> {
    let missing = "it does not have the columns of its table";
    let text = |name: &str| {
        batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>()).ok_or(missing)
    };
    let times = batch.column_by_name(activity::TIME).and_then(|column| column.as_primitive_opt());
    let times: &TimestampMicrosecondArray = times.ok_or(missing)?;
    let (kinds, principals, subjects, bodies) =
        (text(activity::KIND)?, text(activity::PRINCIPAL)?, text(activity::SUBJECT)?, text(activity::BODY)?);
    let value = |column: &StringArray, row: usize| column.is_valid(row).then(|| column.value(row).to_owned());
    for row in 0..batch.num_rows() {
        match value(bodies, row).and_then(|body| ActivityRecord::parse(body).ok()) {
            None => wrong(row, "its body is not an activity record"),
            Some(record) => {
                let is_same = value(kinds, row).as_deref() == Some(record.kind.as_str())
                    && times.is_valid(row)
                    && times.value(row) == record.time_us
                    && value(principals, row).as_deref() == Some(record.principal())
                    && value(subjects, row).as_deref() == record.subject();
                if !is_same {
                    wrong(row, "its columns differ from its body");
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(kind: &str, more: &str) -> String {
        format!(r#"{{"kind":"{kind}","time":"2026-03-02T10:00:00.000001Z","principal":"eve"{more}}}"#)
    }

    #[test]
    fn a_record_is_its_body() {
        let text = body("question", r#","subject":"case 7","sql":"SELECT 1","n":[1,{"a":null}]"#);
        let record = ActivityRecord::parse(text.clone()).unwrap();
        assert_eq!(record.body(), text);
        assert_eq!((record.kind(), record.principal()), (ActivityKind::Question, "eve"));
        assert_eq!((record.time_us(), record.subject()), (1_772_445_600_000_001, Some("case 7")));
        let time = DateTime::from_timestamp_micros(record.time_us()).unwrap();
        for kind in ActivityKind::ALL {
            let details = Map::from_iter([("reason".to_owned(), "because".into())]);
            let made = ActivityRecord::new(kind, time, "eve", None, details).unwrap();
            assert_eq!(ActivityRecord::parse(made.body().to_owned()).as_ref(), Ok(&made));
            assert_eq!((made.kind(), made.subject()), (kind, None));
            let value: Value = serde_json::from_str(made.body()).unwrap();
            assert_eq!(value["reason"], "because");
            assert_eq!(value["kind"], kind.to_string());
        }
    }

    #[test]
    fn anything_but_a_record_is_refused() {
        let member = |member| Err(ActivityError::Member { member });
        let refused = |text: &str| ActivityRecord::parse(text.to_owned()).map(|_| ());
        for text in ["", "[]", "{", "null", "{\"a\":1,\"a\":2}", &body("case", r#","kind":"case""#)] {
            assert_eq!(refused(text), Err(ActivityError::BodyMalformed), "{text}");
        }
        let deep = |lists| body("case", &format!(r#","deep":{}{}"#, "[".repeat(lists), "]".repeat(lists)));
        assert_eq!(refused(&deep(126)), Ok(()));
        assert_eq!(refused(&deep(127)), Err(ActivityError::BodyMalformed), "127 with the object");
        assert_eq!(refused(&body("gossip", "")), member("kind"));
        assert_eq!(refused("{}"), member("kind"));
        for subject in ["1", "null", r#""""#, r#"" a""#, r#""a\u0000""#, &format!("\"{}\"", "x".repeat(1001))]
        {
            assert_eq!(refused(&body("case", &format!(r#","subject":{subject}"#))), member("subject"));
        }
        let time = |time: &str| body("case", "").replace("2026-03-02T10:00:00.000001Z", time);
        for wrong in
            ["2026-03-02T10:00:00Z", "2026-03-02T10:00:00.000001+00:00", "2026-02-30T10:00:00.000001Z"]
        {
            assert_eq!(refused(&time(wrong)), member("time"), "{wrong}");
        }
        assert_eq!(refused(&body("case", "").replace("eve", "e\\ne")), member("principal"));
        let long = body("case", &format!(r#","note":"{}""#, "x".repeat(BODY_BYTES_MAX)));
        assert_eq!(refused(&long), Err(ActivityError::BodyLong { bytes: long.len() }));
        let details = Map::from_iter([("time".to_owned(), "now".into())]);
        let reserved = ActivityRecord::new(ActivityKind::Case, Utc::now(), "eve", None, details);
        assert_eq!(reserved, Err(ActivityError::MemberReserved { member: "time" }));
    }
}
