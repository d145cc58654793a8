//! `strongroom evidence check`: checks a pack, alone or against its archive.
//!
//! Invariant: without `--archive` only the folder of the pack is read.

use std::path::PathBuf;

use anyhow::Context as _;
use strongroom_evidence::{PackReport, Progress, Sources, check_pack, compare_with_archive};
use strongroom_ingest::export::EventRecords;
use strongroom_tlog::PublicKey;

use super::{Asker, Steps};
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
    // This is not taken from the environment. Asking the archive again reads as much as making the
    // pack did, so the user has to request it.
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
    let (steps, witnesses) = (Steps::new(args.quiet), args.witnesses.witnesses()?);
    let mut report = check_pack(&args.folder, &args.public_key, &witnesses, &steps)
        .with_context(|| format!("cannot read {}", args.folder.display()))
        .map_err(CliError::input)?;
    steps.clear();
    if let (Some(location), Some(_)) = (&args.archive, &report.manifest) {
        let archive = open(location)?;
        let asker = Asker::over(&archive)?;
        let sources =
            Sources { archive: &archive, records: &EventRecords, sql: &|sql, out| asker.run(sql, out) };
        let progress = Progress { on_step: &|step| steps.start(step), watch: &steps };
        compare_with_archive(&sources, &mut report, &progress).map_err(evidence_error)?;
        steps.clear();
    }
    write_report(args, &report)?;
    Ok(if report.findings.is_empty() { exit::OK } else { exit::FINDING })
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
