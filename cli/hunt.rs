//! `strongroom hunt`: runs rules over sealed events.
//!
//! Findings are the command's data and go to standard output; the summary of the hunt goes to
//! standard error. Without `--store` the archive is only read.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use chrono::{DateTime, NaiveDate, NaiveTime};
use strongroom_alerts::{Hidden, RuleSet};
use strongroom_archive::Archive;
use strongroom_ingest::replay::{self, Span};
use strongroom_schemas::{Alert, Severity};
use strongroom_sinks::finding_line;

use crate::exit::{self, CliError, ingest_error};
use crate::{ingest, term};

/// Maximum number of findings that one hunt stores.
const STORED_MAX: usize = 1_000_000;

/// Run rules over the archive, and list what they would have raised when the events arrived.
///
/// A finding, also of a correlation, has the id that the stream gives to the same alert: an alert
/// that was raised then is found again under the same id. Only what rules and findings need is
/// read.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  strongroom hunt --archive ./archive --rule new-rule.yml --from 2026-03-01 --to 2026-04-01
  strongroom hunt --archive ./archive --builtin-rules --format json > findings.jsonl
  strongroom hunt --archive ./archive --rule ./rules --store")]
pub struct Args {
    /// The archive: a folder, a file:// or an s3:// URL
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    archive: String,
    /// A Sigma YAML file, or a folder of them (repeatable)
    #[arg(long, value_name = "PATH", required_unless_present = "builtin_rules")]
    rule: Vec<PathBuf>,
    /// Also use the built-in rules
    #[arg(long)]
    builtin_rules: bool,
    /// Start of the period: 2026-03-01 or 2026-03-01T10:00:00Z [default: the first event]
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// End of the period, exclusive [default: the last event]
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    /// Findings of this severity and above
    #[arg(long, value_name = "SEVERITY", default_value = "informational", value_parser = ingest::severity)]
    severity: Severity,
    /// How to write findings
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Add new findings to the table of alerts; no other process may be writing
    #[arg(long)]
    store: bool,
    /// Print no summary on standard error
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For reading
    Text,
    /// OCSF 1.8 Detection Findings, one JSON object per line
    Json,
}

/// Reads a time, or a day, which means the start of that day. Returns microseconds since 1970.
pub fn time(text: &str) -> Result<i64, String> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
    }
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.timestamp_micros())
        .map_err(|_| "a day such as 2026-03-01, or a time such as 2026-03-01T10:00:00Z".to_owned())
}

pub fn run(args: Args) -> Result<u8, CliError> {
    let rules: Arc<RuleSet> = Arc::new(ingest::load_rules(!args.builtin_rules, &args.rule)?);
    let archive = Archive::open(&args.archive).map_err(|error| ingest_error(error.into()))?;
    let stop = Arc::new(AtomicBool::new(false));
    ingest::stop_on_interrupt(&stop)?;
    let mut found = 0_u64;
    let mut kept = Vec::new();
    let mut written = Ok(());
    let span = Span { from_us: args.from, until_us: args.to };
    let hunted = replay::hunt(&archive, &rules, span, &stop, &mut |alert| {
        if alert.severity < args.severity {
            return;
        }
        found += 1;
        if written.is_ok() {
            written = write(&alert, args.format);
            // Nothing reads the findings any more, so the hunt stops.
            if written.is_err() {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        if args.store && kept.len() <= STORED_MAX {
            kept.push(alert);
        }
    });
    let hunted = hunted.map_err(ingest_error)?;
    written.context("cannot write a finding")?;
    if !args.quiet {
        let (read, of) = (term::count(hunted.events_read), term::count(hunted.events_in_files));
        let _ = writeln!(
            term::stderr(),
            "{} findings; {read} of {of} events had to be read in full",
            term::count(found)
        );
    }
    if hunted.interrupted {
        let _ = writeln!(term::stderr(), "interrupted");
        return Ok(exit::INTERRUPTED);
    }
    let hidden = replay::hidden(&archive, &rules, span, &stop).map_err(ingest_error)?;
    tell_hidden(&rules, &hidden);
    if args.store {
        if kept.len() > STORED_MAX {
            let error =
                anyhow::anyhow!("one hunt stores at most {} findings", term::count(STORED_MAX as u64));
            return Err(CliError::input(error).with_hint("narrow the hunt with --from, --to or --severity"));
        }
        let Some(stored) = replay::store(&archive, kept).map_err(ingest_error)? else {
            let error =
                anyhow::anyhow!("another process writes to the archive; the findings were not stored");
            return Err(CliError::failure(error).with_hint("stop `strongroom run`, or try again later"));
        };
        if !args.quiet {
            let _ = writeln!(term::stderr(), "{} new findings stored", term::count(stored));
        }
    }
    Ok(exit::OK)
}

/// Says on standard error which rules could not see everything that they ask for. This is printed
/// even if no summary is wanted, because findings may be missing.
pub fn tell_hidden(rules: &RuleSet, hidden: &Hidden) {
    if hidden.events() == 0 {
        return;
    }
    let blind: Vec<_> = (0..rules.rules().len())
        .filter(|at| rules.rules()[*at].alerts)
        .map(|at| (&rules.rules()[at].name, hidden.fields(rules, at)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect();
    let mut err = term::stderr().lock();
    let events = term::count(hidden.events());
    // When stderr is closed, there is nothing left to do.
    let _ = writeln!(
        err,
        "{events} of the events were redacted before they were stored; {} of the rules ask for what may be hidden in them{}",
        blind.len(),
        if blind.is_empty() { "" } else { ":" }
    );
    for (name, fields) in blind {
        let fields: Vec<String> = fields
            .into_iter()
            .map(|(field, events)| format!("{} (events: {})", term::printable(field), term::count(events)))
            .collect();
        let _ = writeln!(err, "  {}: {}", term::printable(name), fields.join(", "));
    }
}

fn write(alert: &Alert, format: Format) -> anyhow::Result<()> {
    let mut out = term::stdout().lock();
    match format {
        Format::Text => out.write_all(ingest::alert_text(alert).as_bytes())?,
        Format::Json => out.write_all(&finding_line(alert))?,
    }
    Ok(())
}
