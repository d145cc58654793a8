//! `strongroom verify`: recomputes everything from bytes, and names what is wrong.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::NaiveDate;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use strongroom_archive::{Archive, ArchiveError};
use strongroom_ingest::export::EventRecords;
use strongroom_proof::verify::{FindingKind, Options, Report, Watch, Witnesses, heads_of_report, verify};
use strongroom_schemas::error_chain;
use strongroom_tlog::{PublicKey, TimestampAuthorities, TreeHead, WitnessKey};

use crate::anchor::{timestamp_authorities, witness_key};
use crate::exit::{self, CliError, archive_error, proof_error};
use crate::findings::{self, PrintableReport};
use crate::key::public_key;
use crate::term;

/// Check that nothing in the archive was changed and nothing is missing.
///
/// Signatures, their trees, every file's hash, every record's hash, positions and counts are
/// recomputed from the bytes; in a bucket, versions, deletions and locks are checked as well.
/// docs/proof.md says what is checked and how, for those who do not want to rely on this program.
/// The report names what could not be checked.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  strongroom verify --archive ./archive --public-key strongroom+3e78f75f+ARtw8e…
  strongroom verify --archive ./archive --since-last
  strongroom verify --archive s3://bucket/prefix --from 2026-03-01 --to 2026-03-31 \\
      --json report.json

Exit codes: 0 no finding; 1 findings; 2 the check could not be done.")]
pub struct Args {
    /// The archive: a folder, a file:// or an s3:// URL
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    archive: String,
    /// Read only files of this day and later; logs, signatures and positions are checked in full
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// Read only files up to this day
    #[arg(long, value_name = "DAY")]
    to: Option<NaiveDate>,
    /// Read only files that are newer than the last check that found nothing, and check that the
    /// logs continue from that check
    #[arg(long)]
    since_last: bool,
    /// Where the last check is remembered [default: in the state folder of the user]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Write the report as JSON to FILE; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A public key of the archive, obtained out of band (repeatable)
    #[arg(long, env = "STRONGROOM_PUBLIC_KEY", value_name = "KEY", value_parser = public_key)]
    public_key: Vec<PublicKey>,
    #[command(flatten)]
    witnesses: WitnessKeyArgs,
    /// PEM file of the certificate authorities that timestamps (RFC 3161) must chain to; each log
    /// must then have one
    #[arg(long, value_name = "FILE")]
    tsa_ca: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere: the archive must continue it (repeatable)
    #[arg(long, value_name = "FILE")]
    remembered: Vec<PathBuf>,
    /// Files read at once [default: the number of cores]
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// No progress bar, nothing on standard output unless there are findings
    #[arg(short, long)]
    quiet: bool,
}

/// Witnesses whose cosignatures are required.
#[derive(clap::Args)]
pub struct WitnessKeyArgs {
    /// The vkey of a witness, obtained from its operator; the witness must have cosigned
    /// (repeatable)
    #[arg(long = "witness", env = "STRONGROOM_WITNESSES", value_name = "VKEY", value_delimiter = ' ', value_parser = witness_key)]
    keys: Vec<WitnessKey>,
    /// How many of the witnesses must have cosigned [default: all of them]
    #[arg(long, value_name = "N", requires = "keys")]
    witness_quorum: Option<std::num::NonZeroUsize>,
}

impl WitnessKeyArgs {
    pub fn witnesses(&self) -> Result<Witnesses, CliError> {
        let quorum = self.witness_quorum.map(std::num::NonZero::get);
        Witnesses::new(self.keys.clone(), quorum).map_err(CliError::input)
    }
}

pub fn run(args: Args) -> Result<u8, CliError> {
    let archive = match Archive::open_to_verify(&args.archive) {
        Ok(archive) => archive,
        Err(error) if is_of_the_manifest(&error) => {
            let mut report = Report::new("", Path::new(&args.archive));
            report.find(FindingKind::ManifestMalformed, "strongroom.json", error_chain(&error));
            let rest = "everything else: without strongroom.json nothing says which archive this is";
            report.not_checked.push(rest.to_owned());
            write_report(&args, &report)?;
            return Ok(exit::FINDING);
        }
        Err(error) => return Err(archive_error(error)),
    };
    let state = match (&args.state, args.since_last) {
        (Some(path), _) => Some(path.clone()),
        (None, true) => Some(state_file(archive.id())?),
        (None, false) => None,
    };
    let mut options = Options {
        from: args.from,
        to: args.to,
        public_keys: args.public_key.clone(),
        witnesses: args.witnesses.witnesses()?,
        timestamp_authorities: match &args.tsa_ca {
            Some(path) => timestamp_authorities(path)?,
            None => TimestampAuthorities::default(),
        },
        threads: args.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            std::num::NonZero::get,
        ),
        ..Options::default()
    };
    for path in &args.remembered {
        let note = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        options.remembered.push((path.display().to_string(), note.map_err(CliError::input)?));
    }
    if let (Some(path), true) = (&state, args.since_last) {
        options.since = last_heads(path, archive.id())?;
    }
    let bar = Bar(bar(args.quiet));
    let report = verify(&archive, &options, &EventRecords, &bar).map_err(proof_error)?;
    bar.0.finish_and_clear();
    write_report(&args, &report)?;
    let good = report.findings.is_empty();
    // A check of certain days is not remembered, because it has not read every file that the tree
    // heads cover.
    if let (Some(path), true, None, None) = (&state, good, args.from, args.to) {
        remember(path, &report).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if good { exit::OK } else { exit::FINDING })
}

/// Whether an archive cannot be opened because of what is, or is not, in its `strongroom.json`. That is
/// a finding.
fn is_of_the_manifest(error: &ArchiveError) -> bool {
    use std::io::ErrorKind::{FileTooLarge, InvalidInput};
    match error {
        ArchiveError::ParseManifest { .. } | ArchiveError::FormatUnknown { .. } => true,
        ArchiveError::ReadManifest { source, .. } => matches!(source.kind(), FileTooLarge | InvalidInput),
        ArchiveError::NotAnArchive { root } => root.is_dir(),
        _ => false,
    }
}

/// A progress bar that shows the bytes read so far.
pub struct Bar(pub ProgressBar);

impl Watch for Bar {
    fn read(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

pub fn bar(quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn write_report(args: &Args, report: &Report) -> Result<(), CliError> {
    let checked = &report.checked;
    let printable = PrintableReport {
        findings: &report.findings,
        not_checked: &report.not_checked,
        checked: format!(
            "{} commits, {} checkpoints, {} cosignatures, {} timestamps, {} tiles, {} files ({}), {} records{}, {} sources",
            term::count(checked.commits),
            term::count(checked.checkpoints),
            term::count(checked.cosignatures),
            term::count(checked.timestamps),
            term::count(checked.tiles),
            term::count(checked.files),
            term::bytes(checked.bytes),
            term::count(checked.records),
            match checked.redacted {
                0 => String::new(),
                redacted => format!(" (redacted before they were stored: {})", term::count(redacted)),
            },
            term::count(checked.partitions)
        ),
        document: &|| report.to_json(),
    };
    findings::write_report(&printable, args.json.as_deref(), args.quiet)
}

fn state_file(archive_id: &str) -> Result<PathBuf, CliError> {
    let folder = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || {
        Some(PathBuf::from(std::env::var_os("HOME").filter(|path| !path.is_empty())?).join(".local/state"))
    };
    let folder = folder.or_else(home).ok_or_else(|| {
        CliError::input(anyhow::anyhow!("there is no folder for the state of the last check"))
            .with_hint("name a file with --state")
    })?;
    Ok(folder.join("strongroom").join(format!("verify-{archive_id}.json")))
}

/// Returns the tree heads that the last check verified; an empty list if there was no check.
fn last_heads(path: &Path, archive_id: &str) -> Result<Vec<TreeHead>, CliError> {
    let report = match std::fs::read(path) {
        Ok(report) => report,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(CliError::failure(
                anyhow::Error::new(error).context(format!("cannot read {}", path.display())),
            ));
        }
    };
    heads_of_report(&report, archive_id).ok_or_else(|| {
        CliError::input(anyhow::anyhow!("{} is not a report of this archive", path.display()))
            .with_hint("name another file with --state, or remove this one to check everything")
    })
}

fn remember(path: &Path, report: &Report) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, findings::json_text(&report.to_json()))
}
