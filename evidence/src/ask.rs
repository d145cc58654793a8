//! The SQL of evidence, and its answers as a stream.
//!
//! Invariant: the statements are a function of the question, so that whoever has a pack can
//! reconstruct them; an answer is handed on line by line, never held in memory.

use std::io::{self, Write};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use strongroom_archive::Archive;
use strongroom_evidence::{Query, Question, Span};
use strongroom_query::{Expanded, Format, Layout, Session, SessionOptions, write_answer};
use strongroom_schemas::alerts;
use strongroom_schemas::record::Sha256Hash;
use strongroom_schemas::touched::ANY;
use tokio::runtime::Runtime;

use crate::exit::{CliError, query_error};

/// `2026-03-02T10:00:00.000000Z`
pub fn time_text(us: i64) -> Option<String> {
    Some(DateTime::from_timestamp_micros(us)?.to_rfc3339_opts(SecondsFormat::Micros, true))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn list(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    names.join(", ")
}

/// The period, as a condition on a column.
fn period(column: &str, question: &Question) -> String {
    format!("{column} >= {} AND {column} < {}", literal(&question.from), literal(&question.to))
}

/// The condition that chooses the events of a question.
pub fn events_condition(question: &Question) -> String {
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

/// The condition that chooses the alerts beside them: an SQL condition is about events and does not
/// narrow alerts.
pub fn alerts_condition(question: &Question) -> String {
    let mut condition = period("time", question);
    if !question.namespaces.is_empty() {
        condition += &touches((alerts::NAMESPACES, "namespace"), &question.namespaces);
    }
    if !question.users.is_empty() {
        condition += &touches((alerts::ACTORS, "actor"), &question.users);
    }
    condition
}

/// True when one of an alert's events has, or may have, one of the names. Alerts from before the
/// columns about all of their events are judged by the event that completed them.
fn touches((of_all, of_one): (&str, &str), names: &[String]) -> String {
    let any = [ANY.to_owned()];
    let has = names.iter().chain(&any).map(|name| format!("array_has({of_all}, {})", literal(name)));
    let has: Vec<String> = has.collect();
    format!(" AND ({} OR ({of_all} IS NULL AND {of_one} IN ({})))", has.join(" OR "), list(names))
}

pub fn events_sql(question: &Question) -> String {
    let condition = events_condition(question);
    format!("SELECT source, source_offset FROM events WHERE {condition} ORDER BY source, source_offset")
}

pub fn alerts_sql(question: &Question) -> String {
    format!("SELECT alert_id FROM alerts WHERE {} ORDER BY alert_id", alerts_condition(question))
}

/// The period of the question, over all sources, for the report of gaps.
pub fn whole_period(question: &Question) -> String {
    period("stage_timestamp", question)
}

pub fn alerts_period(question: &Question) -> String {
    period("time", question)
}

/// Days of the period, as a condition on the partition column.
pub fn days(span: Span) -> String {
    let day = |us: i64| DateTime::from_timestamp_micros(us).map(|time| time.date_naive().to_string());
    let (first, last) = (day(span.from_us).unwrap_or_default(), day(span.to_us - 1).unwrap_or_default());
    format!("date >= {} AND date <= {}", literal(&first), literal(&last))
}

/// Answers statements one after the other.
pub struct Asker {
    runtime: Runtime,
    session: Session,
}

/// Cuts its input into lines, and hashes it.
struct Lines<'e> {
    each: &'e mut (dyn FnMut(&[u8]) -> anyhow::Result<()> + Send),
    line: Vec<u8>,
    sha256: Sha256,
    failed: Option<anyhow::Error>,
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

impl Asker {
    pub fn over(archive: &Archive) -> Result<Asker, CliError> {
        let session = Session::open(archive.clone(), &SessionOptions::default()).map_err(query_error)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("query").build();
        Ok(Asker { runtime: runtime.context("cannot start threads")?, session })
    }

    /// Calls `each` with every row of the answer, a JSON object.
    pub fn rows(
        &self,
        sql: &str,
        each: &mut (dyn FnMut(Value) -> anyhow::Result<()> + Send),
    ) -> Result<Query, CliError> {
        let mut parsed =
            |line: &[u8]| each(serde_json::from_slice(line).context("an answer of SQL is not JSON")?);
        let mut lines = Lines { each: &mut parsed, line: Vec::new(), sha256: Sha256::new(), failed: None };
        let layout = Layout { width: None, truncate: false, expanded: Expanded::Never };
        let written = self.runtime.block_on(async {
            let answer = self.session.ask(sql).await?;
            write_answer(answer, Format::Json, &layout, &mut lines).await
        });
        let Lines { sha256, failed, .. } = lines;
        match (written, failed) {
            (_, Some(error)) => Err(CliError::failure(error)),
            (Err(error), None) => Err(query_error(error)),
            (Ok(written), None) => Ok(Query {
                sql: sql.to_owned(),
                rows: written.rows,
                sha256: Sha256Hash(sha256.finalize().into()).to_string(),
            }),
        }
    }

    /// All rows of a short answer.
    pub fn all(&self, sql: &str) -> Result<Vec<Value>, CliError> {
        let mut rows = Vec::new();
        self.rows(sql, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The single number of an answer.
    pub fn number(&self, sql: &str) -> Result<u64, CliError> {
        Ok(self.all(sql)?.first().and_then(|row| row["n"].as_u64()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
