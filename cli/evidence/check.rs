//! `strongroom evidence check`: a pack alone, or compared with its archive.
//!
//! Invariant: a pack's own statements are believed only as far as its bytes show them; the archive
//! is asked the question of the pack, at the heads of the pack.

use std::path::PathBuf;

use anyhow::Context as _;
use chrono::DateTime;
use strongroom_archive::LogError;
use strongroom_evidence::{
    EvidenceError, Ledger, Manifest, PackReport, Selection, Span, check_pack, fingerprint,
};
use strongroom_ingest::export::EventRecords;
use strongroom_proof::verify::FindingKind;
use strongroom_schemas::Table;
use strongroom_tlog::{PublicKey, TreeHead};

use super::ask::{Asker, alerts_sql, events_sql};
use super::{LAG_MAX_US, Steps, ask_alerts, ask_events};
use crate::exit::{self, CliError, evidence_error};
use crate::findings::{self, PrintableReport};
use crate::key::{open, public_key};
use crate::term;
use crate::verify::WitnessKeyArgs;

#[derive(clap::Args)]
pub struct Args {
    /// The folder of the pack
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A public key of the archive, obtained out of band (repeatable); without one, only the pack's
    /// consistency is shown
    #[arg(long, env = "STRONGROOM_PUBLIC_KEY", value_name = "KEY", value_parser = public_key)]
    public_key: Vec<PublicKey>,
    #[command(flatten)]
    witnesses: WitnessKeyArgs,
    /// Ask this archive again: a folder, a file:// or an s3:// URL
    // Not from the environment: asking again reads as much as making the pack did, and must be
    // requested.
    #[arg(long, value_name = "LOCATION")]
    archive: Option<String>,
    /// Write the report as JSON to FILE; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No progress bar, nothing on standard output unless there are findings
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let (steps, witnesses) = (Steps { quiet: args.quiet }, args.witnesses.witnesses()?);
    let bar = steps.bar();
    let cannot = || format!("cannot read {}", args.folder.display());
    let report = check_pack(&args.folder, &args.public_key, &witnesses, &bar).with_context(cannot);
    let mut report = report.map_err(CliError::input)?;
    bar.0.finish_and_clear();
    if let (Some(location), Some(manifest)) = (&args.archive, report.manifest.clone()) {
        ask_again(location, &manifest, &mut report, &steps)?;
    }
    write_report(args, &report)?;
    Ok(if report.findings.is_empty() { exit::OK } else { exit::FINDING })
}

/// Asks the archive the question of the pack, at the heads of the pack.
fn ask_again(
    location: &str,
    manifest: &Manifest,
    report: &mut PackReport,
    steps: &Steps,
) -> Result<(), CliError> {
    let archive = open(location)?;
    if archive.id() != manifest.archive_id {
        report.find(
            FindingKind::PackArchive,
            "manifest.json",
            format!("the pack is of archive {}, and this is {}", manifest.archive_id, archive.id()),
        );
        return Ok(());
    }
    let question = &manifest.question;
    let time = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros());
    let (Some(from_us), Some(to_us)) = (time(&question.from), time(&question.to)) else {
        report.find(FindingKind::PackQuestion, "manifest.json", "its period is not valid");
        return Ok(());
    };
    if manifest.events_query.sql != events_sql(question) || manifest.alerts_query.sql != alerts_sql(question)
    {
        report.find(FindingKind::PackQuestion, "manifest.json", "its SQL is not the SQL of its question");
        return Ok(());
    }
    steps.say("asking the archive again");
    let heads: Vec<TreeHead> = report.heads.clone();
    let ledger = match Ledger::load(&archive, Span { from_us, to_us }, Some(&heads), LAG_MAX_US) {
        Ok(ledger) => ledger,
        Err(EvidenceError::Log(error @ (LogError::Forked { .. } | LogError::Read { .. }))) => {
            report.find(
                FindingKind::Forked,
                "manifest.json",
                format!("the archive does not have these checkpoints: {error}"),
            );
            return Ok(());
        }
        Err(error) => return Err(evidence_error(error)),
    };
    let asker = Asker::over(&archive)?;
    let spool = tempfile::tempdir().context("cannot make a temporary folder")?;
    let (mut chosen, events) = ask_events(&asker, question, spool.path())?;
    let (ids, alerts) = ask_alerts(&asker, question)?;
    let changed =
        (events.sha256 != manifest.events_query.sha256, alerts.sha256 != manifest.alerts_query.sha256);
    let (wanted_events, wanted_alerts) = if question.complete {
        (Selection::Whole, Selection::Whole)
    } else {
        (Selection::Events(&mut chosen), Selection::Alerts(&ids))
    };
    let mut later = 0;
    for (table, name, wanted) in
        [(Table::Events, "records.jsonl", wanted_events), (Table::Alerts, "alerts.jsonl", wanted_alerts)]
    {
        let bar = steps.bar();
        let (sha256, named, left) = match fingerprint((&archive, &ledger), table, wanted, &EventRecords, &bar)
        {
            Ok(found) => found,
            Err(EvidenceError::NotProvable { detail }) => {
                report.find(
                    FindingKind::PackArchive,
                    name,
                    format!("the archive cannot be read again: {detail}"),
                );
                continue;
            }
            Err(error) => return Err(evidence_error(error)),
        };
        bar.0.finish_and_clear();
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
    // The records of a complete pack were compared, whichever of them the question chose.
    let is_explained = later > 0 || question.complete;
    if changed.0 && !is_explained {
        let detail =
            "the answer to its SQL has another hash than the manifest says, and no later records explain it";
        report.find(FindingKind::PackQuestion, "manifest.json", detail);
    } else if changed.0 || changed.1 {
        report.not_checked.push(format!(
            "records that came later: {} events of the period were sealed after the checkpoints of the pack{}",
            if question.complete { "perhaps some".to_owned() } else { term::count(later) },
            if changed.1 { ", and the period has other alerts" } else { "" }
        ));
    }
    Ok(())
}

fn write_report(args: &Args, report: &PackReport) -> Result<(), CliError> {
    let printable = PrintableReport {
        findings: &report.findings,
        not_checked: &report.not_checked,
        checked: format!(
            "{} files, {} events, {} alerts, proof files: {}",
            term::count(report.files),
            term::count(report.events),
            term::count(report.alerts),
            term::count(report.proofs)
        ),
        document: &|| report.to_json(),
    };
    findings::write_report(&printable, args.json.as_deref(), args.quiet)
}
