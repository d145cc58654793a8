//! `strongroom archive`: makes the folder or bucket of an archive, and checks whether a bucket
//! protects the archive.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use serde_json::json;
use strongroom_archive::{Finding, Init, StoreOptions, Verdict, check, init};

use crate::exit::{self, CliError, archive_error, proof_error};
use crate::key::KeyArgs;
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
    }
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
