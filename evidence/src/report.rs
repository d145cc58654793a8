//! The readable part of a pack: `report.html` and `VERIFY.md`.
//!
//! Invariant: text from a log, an archive or the command line goes through [`escape`] before it is
//! HTML. A report has no script and loads nothing, so it reads the same in ten years, and without a
//! network.

use serde_json::Value;
use strongroom_evidence::Manifest;

use super::gaps::{CANNOT_KNOW, Gap};
use crate::term;

/// Most records that a report shows; all are in `records.jsonl`.
pub const RECORDS_SHOWN: usize = 500;
/// Most lines of each of the other tables.
pub const LINES_SHOWN: usize = 20;
/// Most gaps that a report shows; all that are known are in `gaps.json`.
const GAPS_SHOWN: usize = 100;
/// Longest cell; a longer one is cut, with a mark.
const CELL_CHARS: usize = 300;

/// Text as HTML, with characters that hide or reorder other text made visible.
pub fn escape(text: &str) -> String {
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

/// Direction marks and similar characters.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A table of what people did.
pub struct Top {
    pub title: &'static str,
    pub column: &'static str,
    pub rows: Vec<Value>,
}

/// Everything that a report shows.
pub struct Report<'r> {
    pub manifest: &'r Manifest,
    pub tops: Vec<Top>,
    pub records: Vec<Value>,
    pub alerts: Vec<Value>,
    pub gaps: &'r [Gap],
    pub gaps_in_all: u64,
    pub rejects: Vec<(String, u64)>,
    /// Report of `verify`, and of the store.
    pub verification: &'r Value,
    pub store: &'r Value,
}

const STYLE: &str = "\
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#111;background:#fff}\
h1{font-size:1.6em;margin:0 0 .2em}h2{font-size:1.2em;margin:1.8em 0 .4em;border-bottom:1px solid #999}\
table{border-collapse:collapse;margin:.5em 0;width:100%}th,td{border:1px solid #bbb;padding:.15em .5em;text-align:left;\
vertical-align:top;overflow-wrap:anywhere}th{background:#eee}td.n{text-align:right;white-space:nowrap}\
pre{background:#f4f4f4;padding:.6em;white-space:pre-wrap;overflow-wrap:anywhere}code{overflow-wrap:anywhere}\
.serves{color:#444;font-size:.9em}.bad{border:2px solid #a00;padding:.4em .8em}.good{border:2px solid #060;padding:.4em .8em}\
@media print{body{margin:0;max-width:none;font-size:9.5pt}h2{break-after:avoid}tr{break-inside:avoid}thead{display:table-header-group}}\
@page{margin:15mm}";

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

/// A table of these columns; each names the field of a row.
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

/// Pairs of a name and a value.
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

pub fn html(report: &Report<'_>) -> String {
    let manifest = report.manifest;
    let (question, counts) = (&manifest.question, &manifest.counts);
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    out.push_str("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
    out.push_str(&format!("<title>Audit evidence</title><style>{STYLE}</style></head><body>\n"));
    out.push_str("<h1>Audit evidence</h1>\n");
    paragraph(
        &mut out,
        "Kubernetes audit records of a period, with proofs. This page is a summary for people: the records are in records.jsonl and \
        alerts.jsonl, the proofs in proofs/, and VERIFY.md says how to check them without the program that wrote this. Nothing here certifies \
        compliance with any rule; each part names what it can support.",
    );

    out.push_str("<h2>The question</h2>\n");
    facts(
        &mut out,
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
                    "yes: every record of every file that may hold one of the period".to_owned()
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
        &mut out,
        &[
            ("Rows of the answer", term::count(manifest.events_query.rows)),
            ("SHA-256 of the answer (strongroom query --format json)", manifest.events_query.sha256.clone()),
        ],
    );
    serves(
        &mut out,
        "45 CFR 164.312(b) audit controls: record and examine activity; completeness and accuracy of a report (query text, \
        parameters, time zone, row count, hash of the result)",
    );

    out.push_str("<h2>Counts</h2>\n");
    let received = &counts.received;
    facts(
        &mut out,
        &[
            ("Events in this pack", term::count(counts.events)),
            ("Events that the question chose", term::count(counts.events_in_question)),
            ("Alerts in this pack", term::count(counts.alerts)),
            (
                "Events examined: rows of the files that may hold one of the period",
                term::count(counts.rows_examined),
            ),
            ("Files that may hold events or alerts of the period", term::count(counts.files)),
            ("Commits that sealed those events", term::count(counts.commits)),
            (
                "Received in these commits = events + rejects + duplicates",
                format!(
                    "{} = {} + {} + {}{}",
                    term::count(received.received),
                    term::count(received.events),
                    term::count(received.rejects),
                    term::count(received.duplicates),
                    if received.received == received.events + received.rejects + received.duplicates {
                        ""
                    } else {
                        " — this sum is wrong"
                    }
                ),
            ),
            (
                "Rejects (lines that could not be read as events) between the positions of these files",
                term::count(counts.rejects_at_positions),
            ),
            ("Rejects that arrived in the period", term::count(counts.rejects_received)),
            (
                "Events without a time, in files of these days: not in this pack",
                term::count(counts.events_without_time),
            ),
        ],
    );
    if !report.rejects.is_empty() {
        paragraph(
            &mut out,
            "A reject may be an event that could not be read. Its bytes are in the table rejects of the archive. By reason:",
        );
        let rows: Vec<Value> = report
            .rejects
            .iter()
            .map(|(reason, n)| serde_json::json!({ "reason": reason, "n": n }))
            .collect();
        table(&mut out, &[("Reason", "reason"), ("Rejects", "n")], &rows);
    }
    serves(&mut out, "45 CFR 164.312(c)(1) integrity: what was received is accounted for");

    out.push_str("<h2>Who did what</h2>\n");
    if counts.events_in_question == 0 {
        paragraph(&mut out, "No event of the archive answers the question.");
    }
    for top in report.tops.iter().filter(|top| !top.rows.is_empty()) {
        out.push_str(&format!("<h3>{}</h3>\n", escape(top.title)));
        table(
            &mut out,
            &[(top.column, "value"), ("Events", "n"), ("First", "first"), ("Last", "last")],
            &top.rows,
        );
    }
    if !report.records.is_empty() {
        out.push_str("<h3>Events, oldest first</h3>\n");
        table(
            &mut out,
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
            paragraph(&mut out, &format!("and {} more, which are in records.jsonl", term::count(more)));
        }
    }
    if !report.alerts.is_empty() {
        out.push_str("<h3>Alerts about the period</h3>\n");
        table(
            &mut out,
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
            paragraph(&mut out, &format!("and {} more, which are in alerts.jsonl", term::count(more)));
        }
    }
    serves(
        &mut out,
        "45 CFR 164.308(a)(1)(ii)(D) information system activity review: the regular review of audit logs is done by a person and is \
        not shown by this pack; 164.308(a)(6)(ii) documenting incidents",
    );

    gaps(&mut out, report);
    proof(&mut out, report);
    retention(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

fn gaps(out: &mut String, report: &Report<'_>) {
    out.push_str("<h2>Gaps and outages</h2>\n");
    if report.gaps.is_empty() {
        paragraph(out, "The archive shows no silence, jump, late seal or reject in the period.");
    } else {
        let rows: Vec<Value> = report.gaps.iter().take(GAPS_SHOWN).map(Gap::to_json).collect();
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
    let more = report.gaps_in_all.saturating_sub(report.gaps.len().min(GAPS_SHOWN) as u64);
    if more > 0 {
        paragraph(out, &format!("and {} more; gaps.json lists those that are known", term::count(more)));
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
                 file or record is noticed even without the archive. What was never sealed is in no commit."
        } else {
            "A proof shows that a record was sealed in the archive and was not changed. It does not show that these are all records: that \
                  is shown by asking the archive again (strongroom evidence check with --archive), which needs access to it, or by a complete pack \
                  (--complete), which holds whole files and so shows more than was asked."
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

fn retention(out: &mut String, report: &Report<'_>) {
    let store = report.store;
    out.push_str("<h2>Retention</h2>\n");
    let objects = store["objects"].as_array().map_or(&[][..], Vec::as_slice);
    if store["store"] == "local" {
        paragraph(
            out,
            &format!(
                "The archive is on a local disk, which locks nothing. It has {} objects of the period. Whoever may write to that disk can remove \
             them; that would be noticed, but not prevented.",
                objects.len()
            ),
        );
    } else {
        let count = |test: &dyn Fn(&Value) -> bool| objects.iter().filter(|object| test(object)).count();
        let compliance = count(&|object| object["lock"]["mode"] == "COMPLIANCE");
        let held = count(&|object| object["legal_hold"] == "ON");
        let unknown = count(&|object| {
            object["lock"]["unknown"].is_string() || object["versions"]["unknown"].is_string()
        });
        let shadowed =
            count(&|object| object["versions"].as_array().is_some_and(|versions| versions.len() != 1));
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
            "store.json has what the store said of each object. It is the store's answer as this program received it; only those who can ask the \
            store can see whether it is still true.",
        );
    }
    serves(
        out,
        "45 CFR 164.316(b)(2)(i): documentation is kept six years from its creation or last effect. The rule sets no time for raw audit logs; \
        six years is the customary reading, and state law may ask for more",
    );
}

/// How to check a pack, for readers who have Python and none of our programs.
pub fn verify_md(manifest: &Manifest, verifier_sha256: &str) -> String {
    let complete = if manifest.question.complete {
        "The pack is complete: it has every commit up to the checkpoints, and every record of every file whose signed\n\
         times overlap the period. The verifier notices if a file or a record of them is missing. It also means that\n\
         the pack has records that the question did not ask for.\n"
    } else {
        "Proofs show that the records in this pack were sealed and not changed. They do not show that nothing was left\n\
         out. Anyone with read access to the archive can confirm that by asking it again:\n\n\
         \x20   strongroom evidence check . --archive LOCATION --public-key KEY\n\n\
         or by making a pack with `--complete`, which holds whole files.\n"
    };
    let signed = match &manifest.signed_by {
        Some(key) => format!(
            "The manifest is signed (`manifest.note`) with the key `{key}`, which the verifier finds among the archive's\n\
             keys. So report, counts and gaps are as the holder of that key wrote them. That does not make them true:\n\
             they are that holder's word.\n"
        ),
        None => "The manifest is not signed. Records prove themselves; report, counts and gaps are only the word of whoever\n\
                 gave you the pack, and anyone could have changed them since.\n"
            .to_owned(),
    };
    format!(
        "# How to check this pack\n\n\
         You need Python 3.9 or later and one file, `verify.py`; no network, no installation. The file is not in this pack, on\n\
         purpose: a checker that comes with what it checks proves nothing. Get it from the Strongroom project (`tools/verify.py`\n\
         of a release) or from someone you trust, read it, or write your own: `docs/proof.md` of the project describes every\n\
         byte. The `verify.py` that this program was built with has the SHA-256\n\n\
         \x20   {verifier_sha256}\n\n\
         You also need the public key of the archive, from its holder, by a path other than this pack.\n\n\
         ## 1. The whole pack\n\n\
         In the folder of this file:\n\n\
         \x20   python3 -I /path/to/verify.py pack . --public-key KEY\n\n\
         Exit code 0: no finding. 1: findings, each with a kind that docs/proof.md explains. 2: the check could not be done. Read\n\
         the lines `not checked:` as well. If a third party runs a witness of this archive, ask them for its key and add\n\
         `--witness VKEY`: then a second history, signed with the right key for you alone, is found too.\n\n\
         The check shows that every file is as the manifest says and none is missing or added; that the keys and checkpoints are\n\
         those of the archive whose key you gave; that every record of `records.jsonl` and `alerts.jsonl` is in a file of the\n\
         archive, under a commit, under a checkpoint that was signed, in the stated place, once; and that the numbers agree.\n\n\
         It does not show that an event happened: the API server's word was taken. It does not show what the API server did not\n\
         write, or what never reached the archive; `gaps.json` has what is known of that.\n\n\
         ## 2. Is this all?\n\n\
         {complete}\n\
         ## 3. Who says so?\n\n\
         {signed}\n\
         ## 4. By hand\n\n\
         Any file's hash, against `manifest.json`:\n\n\
         \x20   sha256sum records.jsonl report.html\n\n\
         A single proof file, with nothing else at hand:\n\n\
         \x20   python3 -I /path/to/verify.py proof proofs/00000001.json --public-key KEY --print\n\n\
         (A pack without records has no proof file.)\n\n\
         If the archive is in a bucket that you may read, the same `verify.py` asks the store itself and needs no `store.json`.\n\
         With your own credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY it reads the whole archive, and every version,\n\
         deletion, lock and legal hold that the store has of it:\n\n\
         \x20   python3 -I /path/to/verify.py archive s3://BUCKET/PREFIX --public-key KEY\n\n\
         ## What is here\n\n\
         | file | content |\n|---|---|\n\
         | `manifest.json` | the question, the counts, keys and checkpoints, every file with its SHA-256 |\n\
         | `manifest.note` | the signature over it, in a signed pack |\n\
         | `records.jsonl` | the original bytes of the events, in the order of commits, files and rows; a newline after each |\n\
         | `alerts.jsonl` | the alerts about the period, OCSF, likewise |\n\
         | `proofs/` | the same records, each with its inclusion proof up to a signed checkpoint |\n\
         | `commits/` | every commit, in a complete pack |\n\
         | `archive-files.json` | the archive's files that may hold records of the period, and how many of their records are here |\n\
         | `gaps.json` | silences, jumps, late seals, rejects, and what cannot be known |\n\
         | `store.json` | what the store said of versions, locks and holds, and when it was asked |\n\
         | `verification.json` | the report of `strongroom verify` at that time |\n\
         | `report.html` | all of this, to read or print |\n"
    )
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
