//! `strongroom hold`: legal holds, which keep records until they are released.

use std::io::Write as _;

use anyhow::Context as _;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use serde_json::json;
use strongroom_retention::{Covered, Scope, holds, place_hold, refresh_holds, release_hold};

use crate::exit::{self, CliError, retention_error};
use crate::key::KeyArgs;
use crate::retention::{ArchiveArgs, hold_json, scope_text};
use crate::term;

/// Legal holds: records of a period, a namespace or a user stay, whatever their retention is.
///
/// A hold is on the files that have such records, on the commits that name these files, and on the
/// objects that prove them. In a bucket the store itself enforces it; on a disk `strongroom
/// retention drop` respects it.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Place a hold; with the same arguments again, finish one that was interrupted
    Place(PlaceArgs),
    /// Show all holds, including released ones
    List {
        #[command(flatten)]
        archive: ArchiveArgs,
        /// Write one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Extend all holds to what was sealed since they were placed; run it daily while there is a
    /// hold
    Refresh {
        #[command(flatten)]
        archive: ArchiveArgs,
    },
    /// Release a hold; what another hold covers stays held
    Release {
        /// Name of the hold
        #[arg(value_name = "NAME")]
        name: String,
        /// The reason, in one line; it is recorded
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        archive: ArchiveArgs,
        #[command(flatten)]
        key: KeyArgs,
    },
}

#[derive(clap::Args)]
#[command(after_long_help = "\
Example:
  strongroom hold place --from 2026-03-01 --to 2026-03-31 --namespace payments \\
      --reason \"case 4711, J. Doe\" case-4711

Without --to the hold is open: `strongroom hold refresh` extends it to what is sealed later.")]
struct PlaceArgs {
    /// A name for the hold; each name is used once
    #[arg(value_name = "NAME")]
    name: String,
    /// Who orders the hold and why, in one line; it is recorded
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Records of this day, or time, and later ones
    #[arg(long, value_name = "TIME", value_parser = start)]
    from: Option<DateTime<Utc>>,
    /// Records up to the end of this day, or before this time
    #[arg(long, value_name = "TIME", value_parser = end)]
    to: Option<DateTime<Utc>>,
    /// Records about this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Records of what this user did, or was impersonated for
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    key: KeyArgs,
}

fn start(text: &str) -> Result<DateTime<Utc>, String> {
    moment(text, 0)
}

fn end(text: &str) -> Result<DateTime<Utc>, String> {
    moment(text, 1)
}

/// Reads a time, or a day. For a day, returns the start of the day that is `days` later, in UTC.
fn moment(text: &str, days: u64) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let day = day.and_then(|day| day.checked_add_days(Days::new(days)));
    day.map(|day| day.and_time(NaiveTime::MIN).and_utc())
        .ok_or_else(|| "a day such as 2026-03-02, or a time such as 2026-03-02T10:00:00Z".to_owned())
}

pub fn run(args: Args) -> Result<u8, CliError> {
    let mut out = term::stdout().lock();
    match args.command {
        Command::Place(args) => {
            let archive = args.archive.open(Some(&args.key))?;
            let PlaceArgs { from, to, namespace, user, .. } = &args;
            let scope = Scope { from: *from, to: *to, namespace: namespace.clone(), user: user.clone() };
            let (bar, progress) = args.archive.bar();
            let covered = place_hold(&archive, &args.name, &args.reason, &scope, progress);
            let covered = covered.map_err(retention_error)?;
            bar.finish_and_clear();
            print_covered(&mut out, &covered, "held")?;
        }
        Command::List { archive, json } => {
            let all = holds(&archive.open(None)?).map_err(retention_error)?;
            if json {
                let all: Vec<_> = all.iter().map(hold_json).collect();
                writeln!(out, "{:#}", json!({ "holds": all })).context("cannot write to standard output")?;
                return Ok(exit::OK);
            }
            for hold in &all {
                let (name, reason) = (term::printable(&hold.name), term::printable(&hold.reason));
                let state = match &hold.released {
                    None => "in force".to_owned(),
                    Some((time, why)) => {
                        format!("released {} ({})", time.format("%Y-%m-%d"), term::printable(why))
                    }
                };
                writeln!(
                    out,
                    "{name}\t{state}\tplaced {}\t{}\t{} files\t{} objects\t{reason}",
                    hold.placed.format("%Y-%m-%d"),
                    scope_text(&hold.scope),
                    term::count(hold.files),
                    term::count(hold.objects)
                )?;
            }
        }
        Command::Refresh { archive } => {
            let (bar, progress) = archive.bar();
            let covered = refresh_holds(&archive.open(None)?, progress).map_err(retention_error)?;
            bar.finish_and_clear();
            for covered in &covered {
                print_covered(&mut out, covered, "held")?;
            }
            if covered.is_empty() {
                writeln!(out, "no hold is in force")?;
            }
        }
        Command::Release { name, reason, archive, key } => {
            let (bar, progress) = archive.bar();
            let covered = release_hold(&archive.open(Some(&key))?, &name, &reason, progress);
            let covered = covered.map_err(retention_error)?;
            bar.finish_and_clear();
            print_covered(&mut out, &covered, "let go")?;
        }
    }
    Ok(exit::OK)
}

fn print_covered(out: &mut impl std::io::Write, covered: &Covered, verb: &str) -> std::io::Result<()> {
    writeln!(
        out,
        "{}: {verb}: {} files, {} objects including their proofs ({} new in its lists, {} changed in the store)",
        term::printable(&covered.name),
        term::count(covered.files),
        term::count(covered.objects),
        term::count(covered.listed),
        term::count(covered.told)
    )
}
