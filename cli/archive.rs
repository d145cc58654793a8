//! `strongroom archive`: makes an archive's folder or bucket, checks whether it protects what it
//! should, and explains commits that a wrong clock dated.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde_json::json;
use strongroom_archive::{Finding, Init, StoreOptions, Verdict, check, init};
use strongroom_retention::{ClockRecord, ClockRequest, Made, explain_clock, made_text};
use strongroom_schemas::VolumeId;

use crate::exit::{self, CliError, archive_error, proof_error, retention_error};
use crate::key::KeyArgs;
use crate::retention::{ArchiveArgs, volume};
use crate::term;

/// Make the folder or bucket of an archive, and check whether a bucket protects it.
///
/// An object store is configured in the environment: STRONGROOM_S3_ENDPOINT,
/// STRONGROOM_S3_PATH_STYLE, STRONGROOM_S3_CA_FILE and AWS_REGION. Credentials are read from where
/// AWS tools look for them.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make an archive, and its bucket with Object Lock, unless they exist; print the policies to
    /// put in place
    Init {
        #[command(flatten)]
        location: Location,
        #[command(flatten)]
        key: KeyArgs,
    },
    /// Check lock, versions, rules, policy, clock and a sample of sealed objects; exit code 1 if
    /// any check fails
    Check(Location),
    /// Explain commits that a wrong clock dated, in a signed record with which `verify` judges them
    ExplainClock(ExplainArgs),
}

#[derive(clap::Args)]
#[command(after_long_help = "\
Example:
  strongroom archive explain-clock --volume events/2040 --commits 0-3 \\
      --made-from 2026-03-02T09:00:00Z --made-to 2026-03-02T11:30:00Z \\
      --reason \"the clock's battery was empty\" --key audit.key

The times in commits cannot be changed, and stay a finding of `verify`. After this they are reported
as the word of the key's owner instead. Nothing is kept for less time because of it: a volume's
retention counts from the latest of the times that its commits and these records give. A later record
about the same commits replaces an earlier one.")]
struct ExplainArgs {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// The volume, as table and period, as in the finding: events/2040
    #[arg(long, value_name = "VOLUME", value_parser = volume)]
    volume: VolumeId,
    /// The commits whose times are wrong, by their numbers: 3, or 3-7
    #[arg(long, value_name = "FIRST[-LAST]", value_parser = range)]
    commits: (u64, u64),
    /// None of them was made before this time, such as 2026-03-02T09:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time, requires = "made_to", required_unless_present = "made_unknown")]
    made_from: Option<DateTime<Utc>>,
    /// None of them was made after this time
    #[arg(long, value_name = "TIME", value_parser = time, requires = "made_from")]
    made_to: Option<DateTime<Utc>>,
    /// Nobody knows when they were made; their retention then counts from this record
    #[arg(long, conflicts_with_all = ["made_from", "made_to"])]
    made_unknown: bool,
    /// The reason, in one line; it is kept
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    key: KeyArgs,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err("commits are a number, or the first and the last one, such as 3-7".to_owned()),
    }
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc()).map_err(|_| "a time is like 2026-03-02T09:00:00Z".to_owned())
}

#[derive(clap::Args)]
struct Location {
    /// The archive: a folder, a file:// or an s3://bucket/prefix URL
    #[arg(env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    location: String,
    /// Write one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<u8, CliError> {
    let options = StoreOptions::from_env().map_err(|error| archive_error(error.into()))?;
    match args.command {
        Command::Init { location: Location { location, json }, key } => {
            let signer = key.signer()?;
            let public_key = signer.as_ref().map(|signer| signer.public());
            let made = init(&location, &options, public_key).map_err(archive_error)?;
            if let Some(signer) = signer {
                // Writes the first key record, and signs what is committed already.
                made.archive.clone().signed_by(signer).sign_logs().map_err(proof_error)?;
            }
            print_init(&made, json).context("cannot write to standard output")?;
            Ok(exit::OK)
        }
        Command::Check(Location { location, json }) => {
            let findings = check(&location, &options).map_err(archive_error)?;
            print_findings(&findings, json).context("cannot write to standard output")?;
            let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
            Ok(if failed { exit::FINDING } else { exit::OK })
        }
        Command::ExplainClock(args) => explain(&args),
    }
}

fn explain(args: &ExplainArgs) -> Result<u8, CliError> {
    let archive = args.archive.open(Some(&args.key))?;
    let made = match (args.made_from, args.made_to) {
        (Some(from), Some(to)) => Made::Between { from, to },
        _ => Made::Unknown,
    };
    let (first, last) = args.commits;
    let request = ClockRequest { volume: args.volume, first, last, made, reason: args.reason.clone() };
    let (record, is_new) = explain_clock(&archive, &request).map_err(retention_error)?;
    let what = if is_new { "recorded" } else { "recorded before" };
    let ClockRecord { number, log, first, last, made, .. } = record;
    writeln!(
        term::stdout().lock(),
        "{what}: number {number}, commits {first} to {last} of {} were made {}",
        log.name(),
        made_text(made)
    )
    .context("cannot write to standard output")?;
    Ok(exit::OK)
}

fn print_init(made: &Init, as_json: bool) -> std::io::Result<()> {
    let mut out = term::stdout().lock();
    let Init { archive, made_bucket, made_archive, policies } = made;
    let root = archive.root().display();
    if as_json {
        let document = json!({
            "location": root.to_string(),
            "archive_id": archive.id(),
            "made_bucket": made_bucket,
            "made_archive": made_archive,
            "policies": policies,
        });
        return writeln!(out, "{document:#}");
    }
    if *made_bucket {
        writeln!(out, "made the bucket, with object lock")?;
    }
    let what = if *made_archive { "made the archive" } else { "the archive exists already" };
    writeln!(out, "{what}: {root}, id {}", archive.id())?;
    if let Some(retention) = archive.retention() {
        let (mode, years) = (retention.mode.as_str(), retention.years);
        writeln!(out, "every object is locked in mode {mode} for {years} calendar years and a day")?;
    }
    if let Some(policies) = policies {
        writeln!(out, "\npolicy for the identity that writes:\n{:#}", policies.writer)?;
        writeln!(out, "\npolicy for the identity that extends retention and holds:\n{:#}", policies.keeper)?;
        writeln!(out, "\npolicy for the identity that checks and queries:\n{:#}", policies.auditor)?;
        writeln!(
            out,
            "\npolicy for the identity that drops volumes past their retention, for as long as it takes:\n{:#}",
            policies.remover
        )?;
        writeln!(
            out,
            "\npolicy for the bucket, to be put in place by its administrator:\n{:#}",
            policies.bucket
        )?;
    }
    Ok(())
}

fn print_findings(findings: &[Finding], as_json: bool) -> std::io::Result<()> {
    let mut out = term::stdout().lock();
    if as_json {
        return writeln!(out, "{:#}", json!({ "findings": findings }));
    }
    for Finding { item, verdict, detail, remedy, .. } in findings {
        let (word, colour) = match verdict {
            Verdict::Ok => ("ok", AnsiColor::Green),
            Verdict::Warn => ("WARN", AnsiColor::Yellow),
            Verdict::Fail => ("FAIL", AnsiColor::Red),
        };
        let style = Style::new().fg_color(Some(colour.into()));
        writeln!(out, "{style}{word:<4}{style:#}  {item}: {}", term::printable(detail))?;
        if let Some(remedy) = remedy {
            writeln!(out, "      {remedy}")?;
        }
    }
    Ok(())
}
