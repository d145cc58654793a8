//! Finds the gaps of a period, which are records that are known to be missing, late or unread. It
//! searches the records, the commits, and the report of `verify`.
//!
//! Invariant: a pack lists at most [`GAPS_MAX`] gaps, but counts all of them. Gaps are not proven;
//! they are statements of the pack's maker.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use strongroom_proof::verify::Report as Verified;

use super::ask::{self, Asker};
use super::error::EvidenceError;
use super::gaps::{CANNOT_KNOW, Gap, MINUTE_US, Pauses};
use super::ledger::Ledger;
use super::question::Question;
use super::text::time_text;

/// Maximum number of gaps that are listed; further gaps are only counted.
const GAPS_MAX: usize = 5000;

/// The gaps that were found.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// At most [`GAPS_MAX`].
    pub(crate) listed: Vec<Gap>,
    /// Number of all gaps by kind, listed or not.
    pub(crate) in_all: BTreeMap<&'static str, u64>,
    limits: Vec<Value>,
    pub(crate) rejects_at_positions: u64,
    pub(crate) rejects_received: u64,
    /// Number of rejects by reason. A reject counts if its offset is among the offsets of the
    /// period's files, or if it was received in the period.
    pub(crate) rejects: BTreeMap<String, u64>,
    pub(crate) events_without_time: u64,
}

impl Gaps {
    /// Finds the gaps of the period. An alert of a rule in `own_rules` says that events may be
    /// missing, so such an alert is a gap too.
    pub(crate) fn find(
        asker: &Asker<'_>,
        question: &Question,
        ledger: &Ledger,
        own_rules: &[&str],
        verified: &Verified,
    ) -> Result<Gaps, EvidenceError> {
        let mut gaps = Gaps::default();
        let period = ask::whole_period(question);
        let now = Utc::now().timestamp_micros();
        let edges = Some((ledger.span.from_us, ledger.span.to_us.min(now)));
        let minutes = |name: &str| {
            format!(
                "SELECT {name} AS name, date_trunc('minute', stage_timestamp) AS minute FROM events WHERE {period} GROUP BY 1, 2 ORDER BY 1, 2"
            )
        };
        // A source may start or end within the period, as a rotated file does. So the time before
        // the first event and the time after the last event count only for a cluster as a whole.
        gaps.silences(asker, &minutes("cluster"), "cluster_silent", edges)?;
        gaps.silences(asker, &minutes("source"), "source_silent", None)?;
        gaps.commits(ledger);
        gaps.rejects(asker, ledger)?;
        gaps.without_time(asker, question, ledger)?;
        gaps.own_alerts(asker, question, own_rules)?;
        gaps.findings(verified);
        gaps.listed.truncate(GAPS_MAX);
        Ok(gaps)
    }

    /// `gaps.json`.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "format": "strongroom-gaps-1",
            "entries": self.listed.iter().map(Gap::to_json).collect::<Vec<_>>(),
            "in_all": self.in_all,
            "limits": self.limits,
            "rejects": self.rejects,
            "cannot_know": CANNOT_KNOW,
        })
    }

    fn add(&mut self, gaps: Vec<Gap>, kind: &'static str, in_all: u64) {
        self.listed.extend(gaps);
        if in_all > 0 {
            *self.in_all.entry(kind).or_insert(0) += in_all;
        }
    }

    /// Adds the silences of each cluster or of each source. `sql` selects the minutes with an
    /// event, ordered by name and time; `edges` is as for `Pauses::silences`.
    fn silences(
        &mut self,
        asker: &Asker<'_>,
        sql: &str,
        kind: &'static str,
        edges: Option<(i64, i64)>,
    ) -> Result<(), EvidenceError> {
        let mut current: Option<(String, Pauses)> = None;
        let mut end = |current: Option<(String, Pauses)>| {
            let Some((name, pauses)) = current else { return };
            let (gaps, all) = pauses.silences(kind, &name, edges);
            let limit = pauses.limit();
            if self.limits.len() < GAPS_MAX {
                self.limits.push(json!({ "kind": kind, "source": name, "minutes_with_events": pauses.minutes, "silence_beyond_minutes": limit }));
            }
            self.add(gaps, kind, all);
        };
        asker.rows(sql, &mut |row| {
            let name = row["name"].as_str().unwrap_or_default();
            let minute = row["minute"].as_str().and_then(|time| DateTime::parse_from_rfc3339(time).ok());
            let minute = minute.ok_or(EvidenceError::MinuteNotATime)?.timestamp_micros();
            if current.as_ref().is_none_or(|(known, _)| known != name) {
                end(current.replace((name.to_owned(), Pauses::default())));
            }
            if let Some((_, pauses)) = &mut current {
                pauses.minute(minute);
            }
            Ok(())
        })?;
        end(current);
        Ok(())
    }

    /// Adds the gaps that the commits show: jumps of a broker's message numbers, late seals, and
    /// commits without a signature.
    fn commits(&mut self, ledger: &Ledger) {
        let jumps = ledger.jumps.iter().map(|jump| Gap {
            kind: "broker_numbers_missing",
            from: jump.from_us.and_then(time_text),
            to: jump.to_us.and_then(time_text),
            source: jump.source.clone(),
            count: u64::try_from(jump.messages - jump.records).unwrap_or(0),
            why: format!(
                "{}: the broker's message numbers advanced by {}, but {} records arrived: compaction or a transaction used the other numbers, or the \
                 messages were deleted before they were read",
                jump.commit, jump.messages, jump.records
            ),
        });
        self.add(jumps.collect(), "broker_numbers_missing", ledger.jumps_in_all);
        let lags = ledger.lags.iter().map(|lag| Gap {
            kind: "sealed_late",
            from: time_text(lag.from_us),
            to: time_text(lag.sealed_us),
            source: lag.sources.join(", "),
            count: u64::try_from((lag.sealed_us - lag.from_us) / MINUTE_US).unwrap_or(0),
            why: format!(
                "{}: sealed this many minutes after its newest event; until then the archive did not protect these events",
                lag.commit
            ),
        });
        self.add(lags.collect(), "sealed_late", ledger.lags_in_all);
        for (log, commits) in &ledger.unsigned {
            let gap = Gap {
                kind: "unsigned_commits",
                from: None,
                to: None,
                source: log.clone(),
                count: *commits,
                why: format!(
                    "{commits} commits of {log} have no checkpoint yet: their records are not in this pack"
                ),
            };
            self.add(vec![gap], "unsigned_commits", 1);
        }
    }

    /// Adds the rejects that arrived in the period or are between its events, grouped by source and
    /// reason.
    fn rejects(&mut self, asker: &Asker<'_>, ledger: &Ledger) -> Result<(), EvidenceError> {
        struct Seen {
            rows: u64,
            first: Option<i64>,
            last: Option<i64>,
        }
        let mut seen: BTreeMap<(String, String), Seen> = BTreeMap::new();
        asker.rows("SELECT source, source_offset, reason, received_timestamp FROM rejects", &mut |row| {
            let source = row["source"].as_str().unwrap_or_default();
            let offset = row["source_offset"].as_i64();
            let received =
                row["received_timestamp"].as_str().and_then(|time| DateTime::parse_from_rfc3339(time).ok());
            let received = received.map(|time| time.timestamp_micros());
            let is_between = ledger
                .positions
                .get(source)
                .zip(offset)
                .is_some_and(|((first, last), offset)| (*first..=*last).contains(&offset));
            let came = received.is_some_and(|time| ledger.span.holds(time));
            self.rejects_at_positions += u64::from(is_between);
            self.rejects_received += u64::from(came);
            if is_between || came {
                let reason = row["reason"].as_str().unwrap_or_default();
                *self.rejects.entry(reason.to_owned()).or_insert(0) += 1;
                let key = (source.to_owned(), reason.to_owned());
                if seen.len() < GAPS_MAX || seen.contains_key(&key) {
                    let seen = seen.entry(key).or_insert(Seen { rows: 0, first: received, last: received });
                    seen.rows += 1;
                    seen.first = seen.first.min(received);
                    seen.last = seen.last.max(received);
                }
            }
            Ok(())
        })?;
        let all = seen.len() as u64;
        let gaps = seen.into_iter().map(|((source, reason), seen)| Gap {
            kind: "rejects",
            from: seen.first.and_then(time_text),
            to: seen.last.and_then(time_text),
            source,
            count: seen.rows,
            why: format!("{reason}: lines that could not be read, and that arrived at these times or are between events of the period; they may be events"),
        });
        self.add(gaps.collect(), "rejects", all);
        Ok(())
    }

    /// Counts the events without a time in files of the period's days. A question about a period
    /// cannot find such events.
    fn without_time(
        &mut self,
        asker: &Asker<'_>,
        question: &Question,
        ledger: &Ledger,
    ) -> Result<(), EvidenceError> {
        let days = ask::days(ledger.span);
        let sql = format!("SELECT count(*) AS n FROM events WHERE stage_timestamp IS NULL AND {days}");
        self.events_without_time = asker.number(&sql)?;
        if self.events_without_time > 0 {
            let gap = Gap {
                kind: "events_without_time",
                from: Some(question.from.clone()),
                to: Some(question.to.clone()),
                source: "all".to_owned(),
                count: self.events_without_time,
                why: "events without a time are stored under the day on which they arrived, and a question about a period cannot find them".to_owned(),
            };
            self.add(vec![gap], "events_without_time", 1);
        }
        Ok(())
    }

    fn own_alerts(
        &mut self,
        asker: &Asker<'_>,
        question: &Question,
        rules: &[&str],
    ) -> Result<(), EvidenceError> {
        let rules = rules.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT time, group_key, title, message FROM alerts WHERE rule_id IN ({rules}) AND {} ORDER BY time, alert_id LIMIT {GAPS_MAX}",
            ask::alerts_period(question)
        );
        let reported = asker.all(&sql)?.into_iter().map(|row| Gap {
            kind: "own_alert",
            from: row["time"].as_str().map(str::to_owned),
            to: None,
            source: row["group_key"].as_str().unwrap_or_default().to_owned(),
            count: 1,
            why: format!(
                "{}: {}",
                row["title"].as_str().unwrap_or_default(),
                row["message"].as_str().unwrap_or_default()
            ),
        });
        let reported: Vec<Gap> = reported.collect();
        let all = reported.len() as u64;
        self.add(reported, "own_alert", all);
        Ok(())
    }

    fn findings(&mut self, verified: &Verified) {
        let findings = verified.findings.iter().map(|finding| Gap {
            kind: "verify_finding",
            from: None,
            to: None,
            source: finding.place.clone(),
            count: 1,
            why: format!("{}: {}", finding.kind, finding.detail),
        });
        self.add(findings.collect(), "verify_finding", verified.findings.len() as u64);
    }
}
