//! Writes `report.html`, the summary of a pack for people.
//!
//! Invariant: text from a log, an archive or the command line goes through [`escape`] before it is
//! HTML. A report has no script and loads no other file, so it looks the same in ten years and
//! without a network.

use serde_json::Value;

use super::ask::{self, Asker};
use super::error::EvidenceError;
use super::find_gaps::Gaps;
use super::gaps::{CANNOT_KNOW, Gap};
use super::manifest::Manifest;
use super::text::count;

/// Maximum number of records that a report shows; all are in `records.jsonl`.
const RECORDS_SHOWN: usize = 500;
/// Maximum number of lines in each table of the most frequent values, such as actors or verbs.
const LINES_SHOWN: usize = 20;
/// Maximum number of gaps, and of findings of `verify`, that a report shows. `gaps.json` lists more
/// gaps, and `verification.json` lists all findings.
const GAPS_SHOWN: usize = 100;
/// Maximum number of characters in a cell. A longer text is cut and ends with `…`.
const CELL_CHARS: usize = 300;
/// Resource and subresource in the usual notation, such as `pods/exec`.
const RESOURCE: &str = "CASE WHEN subresource IS NULL THEN resource ELSE resource || '/' || subresource END";

const STYLE: &str = "\
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#111;background:#fff}\
h1{font-size:1.6em;margin:0 0 .2em}h2{font-size:1.2em;margin:1.8em 0 .4em;border-bottom:1px solid #999}\
table{border-collapse:collapse;margin:.5em 0;width:100%}th,td{border:1px solid #bbb;padding:.15em .5em;text-align:left;\
vertical-align:top;overflow-wrap:anywhere}th{background:#eee}td.n{text-align:right;white-space:nowrap}\
pre{background:#f4f4f4;padding:.6em;white-space:pre-wrap;overflow-wrap:anywhere}code{overflow-wrap:anywhere}\
.serves{color:#444;font-size:.9em}.bad{border:2px solid #a00;padding:.4em .8em}.good{border:2px solid #060;padding:.4em .8em}\
@media print{body{margin:0;max-width:none;font-size:9.5pt}h2{break-after:avoid}tr{break-inside:avoid}thead{display:table-header-group}}\
@page{margin:15mm}";

/// Everything that a report shows.
pub(crate) struct Report<'r> {
    manifest: &'r Manifest,
    tops: Vec<Top>,
    records: Vec<Value>,
    alerts: Vec<Value>,
    gaps: &'r Gaps,
    /// The report of `verify`, and the answers of the store.
    verification: &'r Value,
    store: &'r Value,
}

/// A table of the most frequent values of a column.
struct Top {
    title: &'static str,
    column: &'static str,
    rows: Vec<Value>,
}

impl<'r> Report<'r> {
    /// Asks the archive for the records and sums that a report shows.
    pub(crate) fn ask(
        asker: &Asker<'_>,
        manifest: &'r Manifest,
        gaps: &'r Gaps,
        verification: &'r Value,
        store: &'r Value,
    ) -> Result<Report<'r>, EvidenceError> {
        let condition = ask::events_condition(&manifest.question);
        let mut tops = Vec::new();
        for (title, column, expression) in [
            ("Actors", "Actor", "actor"),
            ("Verbs", "Verb", "verb"),
            ("Resources", "Resource", RESOURCE),
            ("Namespaces", "Namespace", "namespace"),
            ("Addresses (the last of sourceIPs)", "Address", "source_ip"),
            ("Answers", "Code", "cast(response_code AS VARCHAR)"),
            ("Decisions", "Decision", "authz_decision"),
        ] {
            let sql = format!(
                "SELECT {expression} AS value, count(*) AS n, min(stage_timestamp) AS first, max(stage_timestamp) AS last FROM events \
                 WHERE {condition} GROUP BY 1 ORDER BY n DESC, value LIMIT {LINES_SHOWN}"
            );
            tops.push(Top { title, column, rows: asker.all(&sql)? });
        }
        let records = asker.all(&format!(
            "SELECT stage_timestamp, actor, user_name, verb, {RESOURCE} AS resource, namespace, name, response_code, \
             source_ip, cluster, audit_id FROM events WHERE {condition} ORDER BY stage_timestamp, source, source_offset LIMIT {RECORDS_SHOWN}"
        ))?;
        let alerts = asker.all(&format!(
            "SELECT time, severity, title, actor, namespace, message FROM alerts WHERE {} ORDER BY time, alert_id LIMIT {RECORDS_SHOWN}",
            ask::alerts_condition(&manifest.question)
        ))?;
        Ok(Report { manifest, tops, records, alerts, gaps, verification, store })
    }

    /// Returns the page.
    pub(crate) fn html(&self) -> String {
        let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
        out.push_str("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
        out.push_str(&format!("<title>Audit evidence</title><style>{STYLE}</style></head><body>\n"));
        out.push_str("<h1>Audit evidence</h1>\n");
        paragraph(
            &mut out,
            "Kubernetes audit records of a period, with proofs. This page is a summary for people: the records are in records.jsonl and \
            alerts.jsonl, the proofs are in proofs/, and VERIFY.md says how to check them without the program that wrote this page. Nothing here certifies \
            compliance with any rule; each part names the rules that it can support.",
        );
        question(&mut out, self.manifest);
        counts(&mut out, self);
        activity(&mut out, self);
        gaps(&mut out, self.gaps);
        proof(&mut out, self);
        retention(&mut out, self.store);
        out.push_str("</body></html>\n");
        out
    }
}

fn question(out: &mut String, manifest: &Manifest) {
    let question = &manifest.question;
    out.push_str("<h2>The question</h2>\n");
    facts(
        out,
        &[
            ("From", question.from.clone()),
            ("To (excluded)", question.to.clone()),
            ("Time zone", "UTC".to_owned()),
            (
                "Namespaces",
                if question.namespaces.is_empty() {
                    "all".to_owned()
                } else {
                    question.namespaces.join(", ")
                },
            ),
            (
                "Users (own name or impersonated)",
                if question.users.is_empty() { "all".to_owned() } else { question.users.join(", ") },
            ),
            ("Condition in SQL", question.condition.clone().unwrap_or_else(|| "none".to_owned())),
            (
                "Complete files",
                if question.complete {
                    "yes: every record of every file that may have records of the period".to_owned()
                } else {
                    "no".to_owned()
                },
            ),
            ("Archive", format!("{} at {}", manifest.archive_id, manifest.location)),
            ("Made", format!("{} by {}", manifest.made, manifest.program)),
            (
                "Signed by",
                manifest
                    .signed_by
                    .clone()
                    .unwrap_or_else(|| "no one: only the records prove themselves".to_owned()),
            ),
        ],
    );
    out.push_str(&format!(
        "<pre>{}</pre>\n",
        manifest.events_query.sql.lines().map(escape).collect::<Vec<_>>().join("\n")
    ));
    facts(
        out,
        &[
            ("Rows of the answer", count(manifest.events_query.rows)),
            ("SHA-256 of the answer (strongroom query --format json)", manifest.events_query.sha256.clone()),
        ],
    );
    serves(
        out,
        "45 CFR 164.312(b) audit controls: record and examine activity; completeness and accuracy of a report (query text, \
        parameters, time zone, row count, hash of the result)",
    );
}

fn counts(out: &mut String, report: &Report<'_>) {
    let counts = &report.manifest.counts;
    out.push_str("<h2>Counts</h2>\n");
    let received = &counts.received;
    if counts.redacted > 0 {
        paragraph(
            out,
            &format!(
                "{} of the events were redacted by a policy before they were written. Their records are the bytes that were written, not \
                those that were received. Each proof names the policy and the changed places, and both are part of what is proven.",
                count(counts.redacted)
            ),
        );
    }
    facts(
        out,
        &[
            ("Events in this pack", count(counts.events)),
            ("Events that the question chose", count(counts.events_in_question)),
            ("Alerts in this pack", count(counts.alerts)),
            (
                "Events examined: rows of the files that may have events of the period",
                count(counts.rows_examined),
            ),
            ("Files that may have events or alerts of the period", count(counts.files)),
            ("Commits that sealed those events", count(counts.commits)),
            (
                "Received in these commits = events + rejects + duplicates",
                format!(
                    "{} = {} + {} + {}{}",
                    count(received.received),
                    count(received.events),
                    count(received.rejects),
                    count(received.duplicates),
                    if received.received == received.events + received.rejects + received.duplicates {
                        ""
                    } else {
                        " — this sum is wrong"
                    }
                ),
            ),
            (
                "Rejects (lines that could not be read as events) between the positions of these files",
                count(counts.rejects_at_positions),
            ),
            ("Rejects that arrived in the period", count(counts.rejects_received)),
            (
                "Events without a time, in files of these days: not in this pack",
                count(counts.events_without_time),
            ),
        ],
    );
    if !report.gaps.rejects.is_empty() {
        paragraph(
            out,
            "A reject may be an event that could not be read. Its bytes are in the table rejects of the archive. Rejects by reason:",
        );
        let rows: Vec<Value> = report
            .gaps
            .rejects
            .iter()
            .map(|(reason, n)| serde_json::json!({ "reason": reason, "n": n }))
            .collect();
        table(out, &[("Reason", "reason"), ("Rejects", "n")], &rows);
    }
    serves(out, "45 CFR 164.312(c)(1) integrity: what was received is accounted for");
}

fn activity(out: &mut String, report: &Report<'_>) {
    let counts = &report.manifest.counts;
    out.push_str("<h2>Who did what</h2>\n");
    if counts.events_in_question == 0 {
        paragraph(out, "No event of the archive answers the question.");
    }
    for top in report.tops.iter().filter(|top| !top.rows.is_empty()) {
        out.push_str(&format!("<h3>{}</h3>\n", escape(top.title)));
        table(
            out,
            &[(top.column, "value"), ("Events", "n"), ("First", "first"), ("Last", "last")],
            &top.rows,
        );
    }
    if !report.records.is_empty() {
        out.push_str("<h3>Events, oldest first</h3>\n");
        table(
            out,
            &[
                ("Time", "stage_timestamp"),
                ("Actor", "actor"),
                ("Authenticated as", "user_name"),
                ("Verb", "verb"),
                ("Resource", "resource"),
                ("Namespace", "namespace"),
                ("Name", "name"),
                ("Code", "response_code"),
                ("From", "source_ip"),
                ("Cluster", "cluster"),
                ("auditID", "audit_id"),
            ],
            &report.records,
        );
        let more = counts.events_in_question.saturating_sub(report.records.len() as u64);
        if more > 0 {
            paragraph(out, &format!("and {} more, which are in records.jsonl", count(more)));
        }
    }
    if !report.alerts.is_empty() {
        out.push_str("<h3>Alerts about the period</h3>\n");
        table(
            out,
            &[
                ("Time", "time"),
                ("Severity", "severity"),
                ("Alert", "title"),
                ("Actor", "actor"),
                ("Namespace", "namespace"),
                ("Message", "message"),
            ],
            &report.alerts,
        );
        let more = counts.alerts_in_question.saturating_sub(report.alerts.len() as u64);
        if more > 0 {
            paragraph(out, &format!("and {} more, which are in alerts.jsonl", count(more)));
        }
    }
    serves(
        out,
        "45 CFR 164.308(a)(1)(ii)(D) information system activity review: the regular review of audit logs is done by a person and is \
        not shown by this pack; 164.308(a)(6)(ii) documenting incidents",
    );
}

fn gaps(out: &mut String, gaps: &Gaps) {
    out.push_str("<h2>Gaps and outages</h2>\n");
    if gaps.listed.is_empty() {
        paragraph(out, "The archive shows no silence, jump, late seal or reject in the period.");
    } else {
        let rows: Vec<Value> = gaps.listed.iter().take(GAPS_SHOWN).map(Gap::to_json).collect();
        table(
            out,
            &[
                ("Kind", "kind"),
                ("From", "from"),
                ("To", "to"),
                ("Source", "source"),
                ("Count", "count"),
                ("How it is known", "why"),
            ],
            &rows,
        );
    }
    let in_all: u64 = gaps.in_all.values().sum();
    let more = in_all.saturating_sub(gaps.listed.len().min(GAPS_SHOWN) as u64);
    if more > 0 {
        paragraph(out, &format!("and {} more; gaps.json lists more of them", count(more)));
    }
    paragraph(out, "What cannot be known from an archive:");
    out.push_str("<ul>\n");
    for unknown in CANNOT_KNOW {
        out.push_str(&format!("<li>{}</li>\n", escape(unknown)));
    }
    out.push_str("</ul>\n");
    serves(out, "45 CFR 164.312(b) audit controls: a statement of what was not recorded");
}

fn proof(out: &mut String, report: &Report<'_>) {
    let manifest = report.manifest;
    out.push_str("<h2>Proof</h2>\n");
    let findings = report.verification["findings"].as_array().map_or(&[][..], Vec::as_slice);
    let good = findings.is_empty();
    let days = format!("{} to {}", manifest.question.from, manifest.question.to);
    out.push_str(&format!("<p class=\"{}\">", if good { "good" } else { "bad" }));
    out.push_str(&match findings.len() {
        0 => format!("When this pack was made, strongroom verify checked the archive, with the files of the days of {}, and had no finding.", escape(&days)),
        n => format!("When this pack was made, strongroom verify had {n} findings on the archive. Read them before you rely on it."),
    });
    out.push_str("</p>\n");
    if !good {
        table(
            out,
            &[("Finding", "kind"), ("Where", "where"), ("What", "detail")],
            &findings[..findings.len().min(GAPS_SHOWN)],
        );
    }
    let unchecked = report.verification["not_checked"].as_array().map_or(&[][..], Vec::as_slice);
    if !unchecked.is_empty() {
        paragraph(out, "Not checked:");
        out.push_str("<ul>\n");
        for text in unchecked {
            out.push_str(&format!("<li>{}</li>\n", escape(&self::text(text))));
        }
        out.push_str("</ul>\n");
    }
    paragraph(
        out,
        "Every record of this pack is proven to be under one of these checkpoints, which a key of the archive signed:",
    );
    let heads: Vec<Value> = manifest
        .heads
        .iter()
        .map(|head| serde_json::json!({ "log": head.log, "size": head.size, "root": head.root }))
        .collect();
    table(out, &[("Log", "log"), ("Commits", "size"), ("Root", "root")], &heads);
    paragraph(
        out,
        if manifest.question.complete {
            "This pack has all commits up to these checkpoints and every record of every file whose signed times overlap the period, so a missing \
                 file or record is noticed even without the archive. Events that were never sealed are in no commit."
        } else {
            "A proof shows that a record was sealed in the archive and was not changed. It does not show that these are all records. To \
                  show this, ask the archive again (strongroom evidence check with --archive), which needs access to the archive, or make a \
                  complete pack (--complete), which has whole files and so more records than the question chose."
        },
    );
    if manifest.signed_by.is_none() {
        paragraph(
            out,
            "This pack is not signed. Report, counts and gaps are only the word of whoever gave it to you.",
        );
    }
    serves(
        out,
        "45 CFR 164.312(c)(1) integrity, and (c)(2) corroborating that records were not altered or destroyed",
    );
}

fn retention(out: &mut String, store: &Value) {
    out.push_str("<h2>Retention</h2>\n");
    let objects = store["objects"].as_array().map_or(&[][..], Vec::as_slice);
    if store["store"] == "local" {
        paragraph(
            out,
            &format!(
                "The archive is on a local disk, which has no locks. It has {} objects of the period. Anyone who may write to the disk can remove \
             these objects; this would be noticed, but is not prevented.",
                objects.len()
            ),
        );
    } else {
        let number = |test: &dyn Fn(&Value) -> bool| objects.iter().filter(|object| test(object)).count();
        let compliance = number(&|object| object["lock"]["mode"] == "COMPLIANCE");
        let held = number(&|object| object["legal_hold"] == "ON");
        let unknown = number(&|object| {
            object["lock"]["unknown"].is_string() || object["versions"]["unknown"].is_string()
        });
        let shadowed =
            number(&|object| object["versions"].as_array().is_some_and(|versions| versions.len() != 1));
        let earliest = objects.iter().filter_map(|object| object["lock"]["retain_until"].as_str()).min();
        facts(
            out,
            &[
                ("Objects of the period", objects.len().to_string()),
                ("Locked in mode COMPLIANCE", compliance.to_string()),
                ("Earliest end of a lock", earliest.unwrap_or("none").to_owned()),
                ("Under a legal hold", held.to_string()),
                ("With more or fewer than one version", shadowed.to_string()),
                ("With an incomplete answer of the store", unknown.to_string()),
                ("Asked", format!("{} to {}", text(&store["asked_from"]), text(&store["asked_to"]))),
            ],
        );
        paragraph(
            out,
            "store.json has the store's answers about each object, as this program received them. Only those who can ask the store can see whether \
            the answers are still true.",
        );
    }
    serves(
        out,
        "45 CFR 164.316(b)(2)(i): documentation is kept six years from its creation or last effect. The rule sets no time for raw audit logs; \
        six years is the customary reading, and state law may ask for more",
    );
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn cell(value: &Value) -> String {
    let text = text(value);
    if value.is_number() {
        format!("<td class=\"n\">{}</td>", escape(&text))
    } else {
        format!("<td>{}</td>", escape(&cut(&text)))
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(CELL_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Writes a table. Each column has a title and the name of a field of the rows.
fn table(out: &mut String, columns: &[(&str, &str)], rows: &[Value]) {
    out.push_str("<table><thead><tr>");
    for (title, _) in columns {
        out.push_str(&format!("<th>{}</th>", escape(title)));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for (_, name) in columns {
            out.push_str(&cell(&row[*name]));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
}

/// Writes a table of names and values.
fn facts(out: &mut String, facts: &[(&str, String)]) {
    out.push_str("<table><tbody>");
    for (name, value) in facts {
        out.push_str(&format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name), escape(value)));
    }
    out.push_str("</tbody></table>\n");
}

fn serves(out: &mut String, text: &str) {
    out.push_str(&format!("<p class=\"serves\">Serves: {}</p>\n", escape(text)));
}

fn paragraph(out: &mut String, text: &str) {
    out.push_str(&format!("<p>{}</p>\n", escape(text)));
}

/// Returns text as HTML. Characters that hide or reorder other text are made visible.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' => escaped.push('\n'),
            c if c.is_control() || is_invisible(c) => escaped.extend(c.escape_unicode()),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Whether a character is a direction mark or another invisible character.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_text() {
        assert_eq!(
            escape("<script>alert('&\"')</script>"),
            "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"
        );
        assert_eq!(escape("a\u{202e}b\u{0}\u{200b}"), "a\\u{202e}b\\u{0}\\u{200b}");
        assert_eq!(cut(&"é".repeat(500)).chars().count(), CELL_CHARS + 1);
        assert_eq!(cut("short"), "short");
    }
}
