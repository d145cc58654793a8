//! Makes the SQL statements that choose the records of a pack, and reads their answers as a stream.
//!
//! Invariant: the statements are determined by the question alone, so anyone who has a pack can
//! reconstruct them. An answer is processed line by line, and is never in memory as a whole. The
//! caller supplies the function that runs SQL, so this crate does not depend on a query engine.

use std::collections::HashSet;
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

use chrono::DateTime;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use strongroom_schemas::alerts;
use strongroom_schemas::record::Sha256Hash;
use strongroom_schemas::touched::ANY;

use super::chosen::Chosen;
use super::error::EvidenceError;
use super::manifest::Query;
use super::question::{Question, Span};
use super::select::Selection;

/// Maximum number of alerts in one pack: their ids are held in memory.
const ALERTS_MAX: u64 = 2_000_000;

/// Runs a statement over the archive, writes the answer as `strongroom query --format json` does
/// (one JSON object per line), and returns the number of its rows.
pub type RunSql<'r> = dyn Fn(&str, &mut (dyn Write + Send)) -> Result<u64, Box<dyn Error + Send + Sync>> + 'r;

/// Runs statements one after another.
pub(crate) struct Asker<'a> {
    pub(crate) run: &'a RunSql<'a>,
}

/// The rows that a question chose, and the statements that were run for it.
pub(crate) struct Answers {
    pub(crate) events: Query,
    pub(crate) alerts: Query,
    chosen: Chosen,
    alert_ids: HashSet<String>,
}

impl Answers {
    /// Returns the selection of events and the selection of alerts.
    pub(crate) fn selections(&mut self, question: &Question) -> (Selection<'_>, Selection<'_>) {
        if question.complete {
            (Selection::Whole, Selection::Whole)
        } else {
            (Selection::Events(&mut self.chosen), Selection::Alerts(&self.alert_ids))
        }
    }
}

impl Asker<'_> {
    /// Runs the statements of the question. The chosen rows are kept in `folder`, in a file without
    /// a name.
    pub(crate) fn answers(&self, question: &Question, folder: &Path) -> Result<Answers, EvidenceError> {
        let keep = |source| EvidenceError::KeepChosen { source };
        let mut chosen = Chosen::in_folder(folder).map_err(|source| EvidenceError::MakeChosen { source })?;
        let events = self.rows(&events_sql(question), &mut |row| {
            let (Some(source), Some(offset)) = (row["source"].as_str(), row["source_offset"].as_i64()) else {
                return Err(EvidenceError::EventWithoutPosition);
            };
            chosen.push(source, offset).map_err(keep)
        })?;
        chosen.finish().map_err(keep)?;
        let mut alert_ids = HashSet::new();
        let alerts = self.rows(&alerts_sql(question), &mut |row| {
            if alert_ids.len() as u64 >= ALERTS_MAX {
                return Err(EvidenceError::TooManyAlerts { max: ALERTS_MAX });
            }
            alert_ids.extend(row["alert_id"].as_str().map(str::to_owned));
            Ok(())
        })?;
        Ok(Answers { events, alerts, chosen, alert_ids })
    }

    /// Runs `sql` and calls `each` with every row of the answer, which is a JSON object. Returns
    /// the statement with the number of rows and the hash of the answer.
    pub(crate) fn rows(
        &self,
        sql: &str,
        each: &mut (dyn FnMut(Value) -> Result<(), EvidenceError> + Send),
    ) -> Result<Query, EvidenceError> {
        let mut parsed = |line: &[u8]| {
            each(serde_json::from_slice(line).map_err(|source| EvidenceError::ParseAnswer { source })?)
        };
        let mut lines = Lines { each: &mut parsed, line: Vec::new(), sha256: Sha256::new(), failed: None };
        let written = (self.run)(sql, &mut lines);
        let Lines { sha256, failed, .. } = lines;
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(Query {
            sql: sql.to_owned(),
            rows: written.map_err(EvidenceError::Sql)?,
            sha256: Sha256Hash(sha256.finalize().into()).to_string(),
        })
    }

    /// Returns all rows of a short answer.
    pub(crate) fn all(&self, sql: &str) -> Result<Vec<Value>, EvidenceError> {
        let mut rows = Vec::new();
        self.rows(sql, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Returns the column `n` of an answer with one row.
    pub(crate) fn number(&self, sql: &str) -> Result<u64, EvidenceError> {
        Ok(self.all(sql)?.first().and_then(|row| row["n"].as_u64()).unwrap_or(0))
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn list(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    names.join(", ")
}

/// Returns the condition that the time in a column is in the period of the question.
fn period(column: &str, question: &Question) -> String {
    format!("{column} >= {} AND {column} < {}", literal(&question.from), literal(&question.to))
}

/// Returns the condition that chooses the events of a question.
pub(crate) fn events_condition(question: &Question) -> String {
    let mut condition = period("stage_timestamp", question);
    if !question.namespaces.is_empty() {
        condition += &format!(" AND namespace IN ({})", list(&question.namespaces));
    }
    if !question.users.is_empty() {
        let users = list(&question.users);
        condition += &format!(" AND (user_name IN ({users}) OR impersonated_user_name IN ({users}))");
    }
    if let Some(more) = &question.condition {
        condition += &format!(" AND (\n{more}\n)");
    }
    condition
}

/// Returns the condition that chooses the alerts of a question. The question's own SQL condition is
/// about events, so it does not narrow the alerts.
pub(crate) fn alerts_condition(question: &Question) -> String {
    let mut condition = period("time", question);
    if !question.namespaces.is_empty() {
        condition += &touches((alerts::NAMESPACES, "namespace"), &question.namespaces);
    }
    if !question.users.is_empty() {
        condition += &touches((alerts::ACTORS, "actor"), &question.users);
    }
    condition
}

/// Returns the condition that an event of an alert has, or may have, one of the names. The column
/// `of_all` has the names of all events of an alert. For alerts that were written before this
/// column was introduced, the column `of_one` is used, which has the name of the event that
/// completed the alert.
fn touches((of_all, of_one): (&str, &str), names: &[String]) -> String {
    let any = [ANY.to_owned()];
    let has = names.iter().chain(&any).map(|name| format!("array_has({of_all}, {})", literal(name)));
    let has: Vec<String> = has.collect();
    format!(" AND ({} OR ({of_all} IS NULL AND {of_one} IN ({})))", has.join(" OR "), list(names))
}

pub(crate) fn events_sql(question: &Question) -> String {
    let condition = events_condition(question);
    format!("SELECT source, source_offset FROM events WHERE {condition} ORDER BY source, source_offset")
}

pub(crate) fn alerts_sql(question: &Question) -> String {
    format!("SELECT alert_id FROM alerts WHERE {} ORDER BY alert_id", alerts_condition(question))
}

/// Returns the condition that an event is in the period of the question. The report of gaps uses it
/// for all sources.
pub(crate) fn whole_period(question: &Question) -> String {
    period("stage_timestamp", question)
}

pub(crate) fn alerts_period(question: &Question) -> String {
    period("time", question)
}

/// Returns the condition that the partition column `date` is a day of the period.
pub(crate) fn days(span: Span) -> String {
    let day = |us: i64| DateTime::from_timestamp_micros(us).map(|time| time.date_naive().to_string());
    let (first, last) = (day(span.from_us).unwrap_or_default(), day(span.to_us - 1).unwrap_or_default());
    format!("date >= {} AND date <= {}", literal(&first), literal(&last))
}

/// Cuts its input into lines, calls `each` with every line, and hashes the input.
struct Lines<'e> {
    each: &'e mut (dyn FnMut(&[u8]) -> Result<(), EvidenceError> + Send),
    line: Vec<u8>,
    sha256: Sha256,
    failed: Option<EvidenceError>,
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha256.update(bytes);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
                if let Err(error) = (self.each)(&self.line) {
                    self.failed = Some(error);
                    return Err(io::Error::other("a line of the answer was not accepted"));
                }
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_cut_into_lines_and_hashed() {
        let run = |sql: &str, out: &mut (dyn Write + Send)| -> Result<u64, Box<dyn Error + Send + Sync>> {
            assert_eq!(sql, "SELECT n");
            out.write_all(b"{\"n\":1}\n{\"n\"")?;
            out.write_all(b":2}\n")?;
            Ok(2)
        };
        let asker = Asker { run: &run };
        let mut seen = Vec::new();
        let query = asker.rows("SELECT n", &mut |row| {
            seen.push(row["n"].as_u64());
            Ok(())
        });
        let query = query.expect("an answer");
        assert_eq!((query.rows, &seen[..]), (2, &[Some(1), Some(2)][..]));
        assert_eq!(query.sha256, Sha256Hash::of(b"{\"n\":1}\n{\"n\":2}\n").to_string());
        assert_eq!(asker.number("SELECT n").expect("a number"), 1);
        let refused = asker.rows("SELECT n", &mut |_| Err(EvidenceError::EventWithoutPosition));
        assert!(
            matches!(refused, Err(EvidenceError::EventWithoutPosition)),
            "the error of the caller is returned"
        );
    }

    #[test]
    fn what_is_asked_for_stays_a_name() {
        let question = Question {
            from: "2026-03-02T00:00:00.000000Z".to_owned(),
            to: "2026-03-03T00:00:00.000000Z".to_owned(),
            namespaces: vec!["a') OR ('1'='1".to_owned()],
            users: vec!["o'neil".to_owned()],
            condition: Some("verb = 'get' -- all".to_owned()),
            complete: false,
        };
        let sql = events_sql(&question);
        assert!(sql.contains("namespace IN ('a'') OR (''1''=''1')"), "{sql}");
        assert!(sql.contains("user_name IN ('o''neil')") && sql.contains("-- all\n)"), "{sql}");
        let sql = alerts_sql(&question);
        assert!(!sql.contains("verb"));
        let users = "(array_has(actors, 'o''neil') OR array_has(actors, '*') OR (actors IS NULL AND actor IN ('o''neil')))";
        assert!(sql.contains(users), "{sql}");
        assert!(sql.contains("array_has(namespaces, 'a'') OR (''1''=''1')"), "{sql}");
    }
}
