//! `strongroom prove` and `strongroom verify-proof`: write and check proofs of single records,
//! which can be checked without the archive.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat};
use serde_json::Value;
use strongroom_ingest::export::EventRecords;
use strongroom_proof::{RECORDS_MAX, prove, verify_proof_with};
use strongroom_query::{Expanded, Format, Layout, Session, SessionOptions, write_answer};
use strongroom_tlog::PublicKey;

use crate::exit::{self, CliError, proof_error, query_error};
use crate::key::{open, public_key};
use crate::term;
use crate::verify::WitnessKeyArgs;

/// Write single events with a proof that they are in the archive.
///
/// The file has the original bytes of the requested events, and only hashes of all others. For an
/// event that was redacted before it was stored, it has the stored bytes and the mark that says
/// what was redacted; the proof covers both. `strongroom verify-proof` checks the file without the
/// archive; docs/proof.md says how to check it without strongroom.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  strongroom prove --archive ./archive 5a1f7e9c-… -o proof.json
  strongroom prove --archive ./archive -o proof.json \\
      --where \"user_name = 'eve' AND date = '2026-03-02'\"")]
pub struct Args {
    /// `auditID` of the events
    #[arg(required_unless_present = "filter", conflicts_with = "filter", value_name = "AUDIT_ID")]
    audit_id: Option<String>,
    /// The events for which this SQL condition is true
    #[arg(long = "where", value_name = "CONDITION")]
    filter: Option<String>,
    /// The archive: a folder, a file:// or an s3:// URL
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    archive: String,
    /// Where to write the proof
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Check a proof made by `strongroom prove`, without the archive.
#[derive(clap::Args)]
pub struct VerifyArgs {
    /// The proof file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A public key of the archive, obtained out of band (repeatable); without one, only the
    /// proof's consistency is shown
    #[arg(long, env = "STRONGROOM_PUBLIC_KEY", value_name = "KEY", value_parser = public_key)]
    public_key: Vec<PublicKey>,
    #[command(flatten)]
    witnesses: WitnessKeyArgs,
    /// Write the proven records to standard output, one per line, and nothing else
    #[arg(long)]
    records: bool,
}

pub fn run(args: Args) -> Result<u8, CliError> {
    let archive = open(&args.archive)?;
    let condition = match (&args.filter, &args.audit_id) {
        (Some(filter), _) => filter.clone(),
        (None, audit_id) => {
            format!("audit_id = '{}'", audit_id.as_deref().unwrap_or_default().replace('\'', "''"))
        }
    };
    let sql =
        format!("SELECT source, source_offset FROM events WHERE ({condition}\n) LIMIT {}", RECORDS_MAX + 1);
    let session = Session::open(archive.clone(), &SessionOptions::default()).map_err(query_error)?;
    let layout = Layout { width: None, truncate: false, expanded: Expanded::WhenWide };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start threads")?;
    let mut rows = Vec::new();
    runtime
        .block_on(async {
            let answer = session.ask(&sql).await?;
            write_answer(answer, Format::Json, &layout, &mut rows).await
        })
        .map_err(query_error)?;
    let mut wanted = HashSet::new();
    for row in rows.split(|byte| *byte == b'\n').filter(|row| !row.is_empty()) {
        let row: Value = serde_json::from_slice(row).context("an answer of SQL is not JSON")?;
        if let (Some(source), Some(offset)) = (row["source"].as_str(), row["source_offset"].as_i64()) {
            wanted.insert((source.to_owned(), offset));
        }
    }
    if wanted.is_empty() {
        return Err(CliError::input(anyhow::anyhow!("the archive has no such event")));
    }
    let proof = prove(&archive, &wanted, &EventRecords).map_err(proof_error)?;
    let text = serde_json::to_string_pretty(&proof).context("cannot write the proof as JSON")?;
    let written = std::fs::write(&args.output, text.as_bytes());
    written.with_context(|| format!("cannot write {}", args.output.display()))?;
    let (events, bytes) = (term::count(wanted.len() as u64), term::bytes(text.len() as u64));
    writeln!(term::stderr(), "proof of {events} events: {}, {bytes}", args.output.display())?;
    let redacted = proof.records.iter().filter(|part| part.redaction.is_some()).count();
    if redacted > 0 {
        let redacted = term::count(redacted as u64);
        writeln!(
            term::stderr(),
            "{redacted} of them were redacted before they were stored: their records are not the bytes received, and the proof says so"
        )?;
    }
    Ok(exit::OK)
}

pub fn verify(args: VerifyArgs) -> Result<u8, CliError> {
    let file = std::fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()));
    let witnesses = args.witnesses.witnesses()?;
    let proven = match verify_proof_with(&file.map_err(CliError::input)?, &args.public_key, &witnesses) {
        Ok(proven) => proven,
        Err(detail) => {
            return Err(CliError::input(anyhow::anyhow!(
                "the proof does not hold: {}",
                term::printable(&detail)
            )));
        }
    };
    let mut out = term::stdout().lock();
    if args.records {
        for record in &proven.records {
            out.write_all(&record.record)?;
            out.write_all(b"\n")?;
        }
        return Ok(exit::OK);
    }
    writeln!(
        out,
        "holds: {} records of archive {}",
        proven.records.len(),
        term::printable(&proven.archive_id)
    )?;
    let mut redacted: BTreeMap<&str, u64> = BTreeMap::new();
    for mark in proven.records.iter().filter_map(|record| record.redaction.as_ref()) {
        *redacted.entry(mark.policy()).or_default() += 1;
    }
    for (policy, records) in redacted {
        let records = term::count(records);
        writeln!(out, "redacted before they were stored: {records} of the records, by the policy {policy}")?;
    }
    for head in &proven.heads {
        writeln!(out, "under the checkpoint of {} at size {}", term::printable(&head.origin), head.size)?;
        for (witness, time) in &head.cosigned {
            let time = i64::try_from(*time).ok().and_then(|time| DateTime::from_timestamp(time, 0));
            let time = time.map_or_else(String::new, |time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
            writeln!(out, "cosigned by {} at {time}", term::printable(witness.name()))?;
        }
    }
    if args.public_key.is_empty() {
        writeln!(out, "not checked: whose key it is, because no public key was given ({})", proven.key)?;
    }
    Ok(exit::OK)
}
