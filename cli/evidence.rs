//! `strongroom evidence`: writes the records of a period, with everything that is needed to check
//! them.
//!
//! `strongroom-evidence` decides what is in a pack, and when its folder gets its name. This command
//! only reads arguments, runs the SQL of the pack, and prints.

mod check;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use strongroom_alerts::own;
use strongroom_archive::Archive;
use strongroom_evidence::{Pack, PackFolder, PackOptions, Progress, Question, Sources, Span, Step, build};
use strongroom_ingest::export::EventRecords;
use strongroom_proof::verify::Watch;
use strongroom_query::{Expanded, Format, Layout, Session, SessionOptions, write_answer};
use strongroom_tlog::PublicKey;
use tokio::runtime::Runtime;

use crate::exit::{self, CliError, evidence_error, query_error};
use crate::key::{KeyArgs, open, public_key};
use crate::verify::{Bar, bar};
use crate::{hunt, term};

/// The verifier for auditors; `VERIFY.md` states its hash.
const VERIFIER: &[u8] = include_bytes!("../tools/verify.py");

/// Write the records of a period, with proofs, into a folder that an auditor checks offline; or
/// check such a folder.
///
/// The folder has the original bytes of every chosen event and of the alerts about the period,
/// proofs that lead from each of them to a signed checkpoint, what the store said of locks and
/// versions, what is known of gaps, and a report to read or print. VERIFY.md in it says how to
/// check it without strongroom. docs/proof.md has the format.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_long_help = "\
Examples:
  strongroom evidence --archive ./archive --from 2026-03-01 --to 2026-04-01 \\
      --namespace payments --out march
  strongroom evidence --archive s3://bucket/prefix --from 2026-03-02T10:00:00Z \\
      --to 2026-03-02T12:00:00Z --user eve@example.com --key audit.key --out eve
  strongroom evidence check march --public-key strongroom+3e78f75f+ARtw8e…
  strongroom evidence check march --archive ./archive --public-key strongroom+3e78f75f+ARtw8e…

Exit codes: 0 done, no finding; 1 findings (the pack is written all the same) or bad input; 2 failed.")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The archive: a folder, a file:// or an s3:// URL
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION", required = true)]
    archive: Option<String>,
    /// Start of the period, by the event's own clock: 2026-03-01 or 2026-03-01T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = hunt::time, required = true)]
    from: Option<i64>,
    /// End of the period, exclusive
    #[arg(long, value_name = "TIME", value_parser = hunt::time, required = true)]
    to: Option<i64>,
    /// Only events of this namespace (repeatable)
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Vec<String>,
    /// Only events of this user, acting itself or impersonated (repeatable)
    #[arg(long, value_name = "USER")]
    user: Vec<String>,
    /// Only events for which this SQL condition is true
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Include every record of each file that may hold a record of the period, and all commits:
    /// more than was asked for, but then the pack alone shows that no record is missing
    #[arg(long, conflicts_with_all = ["namespace", "user", "condition"])]
    complete: bool,
    /// The folder to make; a folder that exists already must be empty
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    #[command(flatten)]
    key: KeyArgs,
    /// A public key of the archive, obtained out of band, to verify the period with (repeatable)
    #[arg(long, env = "STRONGROOM_PUBLIC_KEY", value_name = "KEY", value_parser = public_key)]
    public_key: Vec<PublicKey>,
    /// Print no summary on standard error
    #[arg(short, long)]
    quiet: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Check a pack; with --archive, ask the archive again whether the pack is the full answer
    Check(check::Args),
}

pub fn run(args: Args) -> Result<u8, CliError> {
    match args.command {
        Some(Command::Check(check)) => check::run(&check),
        None => make(&args),
    }
}

fn make(args: &Args) -> Result<u8, CliError> {
    let question = question(args)?;
    let out = args.out.clone().unwrap_or_default();
    let folder = PackFolder::create(&out).map_err(evidence_error)?;
    let signer = args.key.signer()?;
    let archive = open(args.archive.as_deref().unwrap_or_default())?;
    let asker = Asker::over(&archive)?;
    let steps = Steps::new(args.quiet);
    let pack = build(
        &Sources { archive: &archive, records: &EventRecords, sql: &|sql, out| asker.run(sql, out) },
        question,
        &PackOptions {
            signer: signer.as_deref(),
            public_keys: &args.public_key,
            gap_rules: &[own::SOURCE_SILENT, own::CONSERVATION_FAILED],
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            program: concat!("strongroom ", env!("CARGO_PKG_VERSION")),
            verifier: VERIFIER,
        },
        folder,
        &Progress { on_step: &|step| steps.start(step), watch: &steps },
    );
    let Pack { manifest, verified } = pack.map_err(evidence_error)?;
    steps.say(&format!(
        "{}: {} events, {} alerts, proof files: {}{}",
        out.display(),
        term::count(manifest.counts.events),
        term::count(manifest.counts.alerts),
        term::count(manifest.counts.proofs),
        if signer.is_some() { ", signed" } else { "; not signed, because no key was given" }
    ));
    if manifest.counts.redacted > 0 {
        steps.say(&format!(
            "{} of the events were redacted before they were stored; the proofs say so",
            term::count(manifest.counts.redacted)
        ));
    }
    let Some(first) = verified.findings.first() else { return Ok(exit::OK) };
    steps.say(&format!(
        "verify has {} findings on the archive, the first: {} {}; all are in the report",
        verified.findings.len(),
        first.kind,
        term::printable(&first.place)
    ));
    Ok(exit::FINDING)
}

fn question(args: &Args) -> Result<Question, CliError> {
    let span = Span { from_us: args.from.unwrap_or_default(), to_us: args.to.unwrap_or_default() };
    if span.from_us >= span.to_us {
        return Err(CliError::input(anyhow::anyhow!("the period ends before it starts"))
            .with_hint("--to is exclusive: one day is --from 2026-03-01 --to 2026-03-02"));
    }
    let (from, to) =
        span.texts().ok_or_else(|| CliError::input(anyhow::anyhow!("a time is outside the calendar")))?;
    Ok(Question {
        from,
        to,
        namespaces: args.namespace.clone(),
        users: args.user.clone(),
        condition: args.condition.clone(),
        complete: args.complete,
    })
}

/// Runs the statements of a pack one after the other.
struct Asker {
    runtime: Runtime,
    session: Session,
}

impl Asker {
    fn over(archive: &Archive) -> Result<Asker, CliError> {
        let session = Session::open(archive.clone(), &SessionOptions::default()).map_err(query_error)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("query").build();
        Ok(Asker { runtime: runtime.context("cannot start threads")?, session })
    }

    /// Writes the answer as JSON, and returns the number of its rows.
    fn run(
        &self,
        sql: &str,
        out: &mut (dyn Write + Send),
    ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        let layout = Layout { width: None, truncate: false, expanded: Expanded::Never };
        let written = self.runtime.block_on(async {
            let answer = self.session.ask(sql).await?;
            write_answer(answer, Format::Json, &layout, out).await
        });
        Ok(written?.rows)
    }
}

/// Prints the current step, and how much of it is done.
struct Steps {
    quiet: bool,
    bar: Mutex<Bar>,
}

impl Steps {
    fn new(quiet: bool) -> Steps {
        Steps { quiet, bar: Mutex::new(Bar(bar(quiet))) }
    }

    fn start(&self, step: Step) {
        match step {
            Step::ReadCommits => self.say("reading the signed commits"),
            Step::Choose => self.say("asking which records the question chooses"),
            Step::Prove { events, alerts } => self.say(&format!(
                "proving {} events and {} alerts",
                term::count(events),
                term::count(alerts)
            )),
            Step::VerifyArchive => self.say("verifying the archive, with the files of the period"),
            Step::AskStore => self.say("asking the store"),
            Step::FindGaps => self.say("looking for gaps"),
            Step::WriteReport => self.say("writing the report"),
            Step::CheckPack => self.say("checking the pack as a stranger would"),
            Step::AskAgain => self.say("asking the archive again"),
        }
    }

    fn say(&self, what: &str) {
        self.clear();
        if !self.quiet {
            // If this line cannot be written, the pack is still made.
            let _ = writeln!(term::stderr(), "{what}");
        }
    }

    /// Removes the bar of the last step.
    fn clear(&self) {
        std::mem::replace(&mut *self.bar(), Bar(bar(self.quiet))).0.finish_and_clear();
    }

    fn bar(&self) -> MutexGuard<'_, Bar> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Steps {
    fn read(&self, done: u64, total: u64) {
        self.bar().read(done, total);
    }
}
