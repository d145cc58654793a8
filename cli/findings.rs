//! Reports of findings: printed for people, written as JSON for programs.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;
use strongroom_proof::verify::Finding;

use crate::exit::CliError;
use crate::term;

/// Maximum number of findings that are printed; the JSON report has them all.
const PRINTED_MAX: usize = 50;

/// A report in the form that is printed.
pub struct PrintableReport<'r> {
    pub findings: &'r [Finding],
    pub not_checked: &'r [String],
    /// What was checked, in one line.
    pub checked: String,
    /// The report as JSON.
    pub document: &'r dyn Fn() -> Value,
}

/// Renders a document as it is written to files: indented, with a newline at its end.
pub fn json_text(document: &Value) -> String {
    format!("{document:#}\n")
}

/// Writes the report to `json`, if given, and prints it. If `json` is `-`, standard output gets the
/// JSON and nothing else. If `quiet`, the report is printed only when there are findings.
pub fn write_report(report: &PrintableReport<'_>, json: Option<&Path>, quiet: bool) -> Result<(), CliError> {
    if let Some(path) = json {
        let text = json_text(&(report.document)());
        if path.as_os_str() == "-" {
            term::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
            return Ok(());
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if quiet && report.findings.is_empty() {
        return Ok(());
    }
    print(report).context("cannot write to standard output")?;
    Ok(())
}

fn print(report: &PrintableReport<'_>) -> std::io::Result<()> {
    let mut out = term::stdout().lock();
    for finding in report.findings.iter().take(PRINTED_MAX) {
        let (place, detail) = (term::printable(&finding.place), term::printable(&finding.detail));
        writeln!(out, "FINDING  {}: {place}: {detail}", finding.kind)?;
    }
    if report.findings.len() > PRINTED_MAX {
        writeln!(out, "… and {} more findings", report.findings.len() - PRINTED_MAX)?;
    }
    for missing in report.not_checked {
        writeln!(out, "not checked: {}", term::printable(missing))?;
    }
    writeln!(out, "checked: {}", report.checked)?;
    match report.findings.len() {
        0 => writeln!(out, "no finding"),
        1 => writeln!(out, "1 finding"),
        many => writeln!(out, "{many} findings"),
    }
}
