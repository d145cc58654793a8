//! Compares a pack with the archive that it was made from.
//!
//! Invariant: a statement of a pack is believed only if the pack's bytes prove it. The question of
//! the pack is asked of the archive again, with its logs as they were at the heads of the pack.

use strongroom_archive::error::LogError;
use strongroom_proof::verify::FindingKind;
use strongroom_schemas::Table;

use super::ask::{Asker, alerts_sql, events_sql};
use super::build::Sources;
use super::check::PackReport;
use super::error::EvidenceError;
use super::ledger::Ledger;
use super::manifest::{ALERTS, MANIFEST, Manifest, RECORDS};
use super::progress::{Progress, Step};
use super::question::Span;
use super::select::fingerprint;
use super::text::count;

/// Asks the archive the question of the pack that `report` is about, and adds the differences to
/// the report. A report without a manifest is not changed.
///
/// # Errors
/// If the archive cannot be read. Such an error does not mean that the pack is damaged.
pub fn compare_with_archive(
    sources: &Sources<'_>,
    report: &mut PackReport,
    progress: &Progress<'_>,
) -> Result<(), EvidenceError> {
    let Some(manifest) = report.manifest.clone() else { return Ok(()) };
    let Some(span) = valid_period(sources, &manifest, report) else { return Ok(()) };
    progress.step(Step::AskAgain);
    let heads = report.heads.clone();
    let ledger = match Ledger::load(sources.archive, span, Some(&heads)) {
        Ok(ledger) => ledger,
        Err(EvidenceError::Log(error @ (LogError::Forked { .. } | LogError::Read { .. }))) => {
            let detail = format!("the archive does not have these checkpoints: {error}");
            report.find(FindingKind::Forked, MANIFEST, detail);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    compare_answers(sources, &manifest, &ledger, report, progress)
}

/// Returns the period of the pack's question. Returns `None` and reports a finding if the pack is
/// of another archive, if its period is invalid, or if its SQL is not the SQL of its question.
fn valid_period(sources: &Sources<'_>, manifest: &Manifest, report: &mut PackReport) -> Option<Span> {
    let id = sources.archive.id();
    if id != manifest.archive_id {
        let detail = format!("the pack is of archive {}, and this is {id}", manifest.archive_id);
        report.find(FindingKind::PackArchive, MANIFEST, detail);
        return None;
    }
    let question = &manifest.question;
    let Some(span) = question.span() else {
        report.find(FindingKind::PackQuestion, MANIFEST, "its period is not valid");
        return None;
    };
    if manifest.events_query.sql != events_sql(question) || manifest.alerts_query.sql != alerts_sql(question)
    {
        report.find(FindingKind::PackQuestion, MANIFEST, "its SQL is not the SQL of its question");
        return None;
    }
    Some(span)
}

/// Compares the records and answers in the pack with those that the archive gives now.
fn compare_answers(
    sources: &Sources<'_>,
    manifest: &Manifest,
    ledger: &Ledger,
    report: &mut PackReport,
    progress: &Progress<'_>,
) -> Result<(), EvidenceError> {
    let question = &manifest.question;
    let spool = tempfile::tempdir().map_err(|source| EvidenceError::MakeTemporaryFolder { source })?;
    let mut answers = Asker { run: sources.sql }.answers(question, spool.path())?;
    let have_events_changed = answers.events.sha256 != manifest.events_query.sha256;
    let have_alerts_changed = answers.alerts.sha256 != manifest.alerts_query.sha256;
    let (events, alerts) = answers.selections(question);
    let mut later = 0;
    for (table, name, wanted) in [(Table::Events, RECORDS, events), (Table::Alerts, ALERTS, alerts)] {
        let from = (sources.archive, ledger);
        let (sha256, named, left) = match fingerprint(from, table, wanted, sources.records, progress.watch) {
            Ok(found) => found,
            Err(EvidenceError::NotProvable { detail }) => {
                let detail = format!("the archive cannot be read again: {detail}");
                report.find(FindingKind::PackArchive, name, detail);
                continue;
            }
            Err(error) => return Err(error),
        };
        later += left;
        let given = manifest.files.iter().find(|file| file.name == name);
        if given.is_none_or(|file| file.sha256 != sha256) {
            let rows: u64 = named.iter().map(|file| file.chosen).sum();
            let packed = if table == Table::Events { manifest.counts.events } else { manifest.counts.alerts };
            let detail = format!(
                "the archive answers with {rows} records and the pack has {packed}: the pack is not the answer to its question"
            );
            report.find(FindingKind::PackIncomplete, name, detail);
        }
    }
    report.not_checked.retain(|text| !text.starts_with("whether these are all records"));
    // All records of a complete pack were compared, whether or not the question chose them.
    let is_explained = later > 0 || question.complete;
    if have_events_changed && !is_explained {
        let detail =
            "the answer to its SQL has another hash than the manifest says, and no later records explain it";
        report.find(FindingKind::PackQuestion, MANIFEST, detail);
    } else if have_events_changed || have_alerts_changed {
        report.not_checked.push(format!(
            "records that came later: {} events of the period were sealed after the checkpoints of the pack{}",
            if question.complete { "perhaps some".to_owned() } else { count(later) },
            if have_alerts_changed { ", and the period has other alerts" } else { "" }
        ));
    }
    Ok(())
}
