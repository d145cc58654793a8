//! `strongroom ingest`: reads logs, raises alerts, and seals the events in an archive.
//!
//! Alerts are the command's data and go to standard output; progress and the summary of the run go
//! to standard error. The summary always shows that the records received are the sum of events,
//! rejects and duplicates, so that readers can check it.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use strongroom_alerts::{RuleError, RuleSet};
use strongroom_archive::Archive;
use strongroom_ingest::source::PassedOver;
use strongroom_ingest::{
    FileError, IngestError, IngestOptions, Observer, Progress, Report, ingest, pipeline, source,
};
use strongroom_lines::{Dialect, EventPath, Reading, Reason, Writer, Writers};
use strongroom_schemas::{Alert, Severity, error_chain};
use strongroom_sinks::{append_lines, finding_line, open_lines};

use crate::config::{self, redact};
use crate::exit::{self, CliError, ingest_error};
use crate::key::KeyArgs;
use crate::{allocator, term};

/// Read audit logs, raise alerts, seal the events in the archive.
///
/// Reading the same file again adds nothing; a grown file is continued; a killed run is resumed by
/// running it again. Lines that cannot be decoded are kept as rows of the table `rejects`.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  strongroom ingest --cluster prod --archive ./archive /var/log/kubernetes/audit/
  strongroom ingest --cluster prod --archive ./archive 'audit-*.log.gz' audit.log
  zcat audit.log.gz | strongroom ingest --cluster prod --archive ./archive -")]
pub struct Args {
    /// Name of the cluster that the logs come from, which is not in the events
    #[arg(long, value_name = "NAME", value_parser = config::cluster_name)]
    cluster: String,
    /// The archive: a folder, a file:// or an s3:// URL, made if it does not exist
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    archive: String,
    /// Log files, folders (searched for logs, rotated ones oldest first), quoted patterns, or - for
    /// standard input; plain, gzip or zstd, detected by content
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<String>,
    /// Where the event is in objects in which no wrapper is recognised: the names of the members,
    /// from the outermost, separated by dots (\. is a dot in a name)
    #[arg(long, value_name = "PATH", value_parser = EventPath::parse)]
    unwrap: Option<EventPath>,
    /// Believe a writer of audit events that strongroom does not know: NAMESPACE/CONTAINER, NAME, a
    /// log group of CloudWatch as /GROUP, or * for all; a * may end a name (repeatable)
    #[arg(long = "writer", value_name = "WRITER", value_parser = Writer::parse)]
    writers: Vec<Writer>,
    /// Redact events before anything of them is written: the section [redact] of FILE, which may be
    /// the configuration of `strongroom run`
    #[arg(long, value_name = "FILE")]
    redact: Option<PathBuf>,
    /// Append each alert to FILE as an OCSF 1.8 Detection Finding, one JSON object per line
    #[arg(long, value_name = "FILE")]
    alerts_out: Option<PathBuf>,
    /// Add your own rules: a Sigma YAML file or a folder of them (repeatable)
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Leave out the built-in rules
    #[arg(long)]
    no_builtin_rules: bool,
    /// Print alerts of this severity and above
    #[arg(long, value_name = "SEVERITY", default_value = "low", value_parser = severity)]
    print_alerts: Severity,
    /// The files are complete: reject an unfinished last line now, instead of leaving it for the
    /// next run
    #[arg(long)]
    complete: bool,
    /// Confirm that this machine's clock is right, although it is behind the newest commit of the
    /// archive, or more than a day ahead of that commit and of the store's clock
    #[arg(long)]
    clock_is_right: bool,
    /// Threads that decode, match and encode [default: the number of cores]
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// Seal at this many bytes of Parquet
    #[arg(long, value_name = "BYTES", default_value = "128MiB", value_parser = term::byte_size)]
    seal_bytes: u64,
    /// Seal when the oldest row is this old
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    seal_seconds: u64,
    /// Maximum size of the text in a block, which becomes one row group [default: 48MiB, less with
    /// more than two threads]
    #[arg(long, value_name = "BYTES", value_parser = block_bytes, hide_short_help = true)]
    block_bytes: Option<u64>,
    /// Print no progress bar, and no summary unless something needs attention
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    key: KeyArgs,
}

/// Maximum size of a block's text. Offsets in a batch have 32 bits, and the text may be in a batch
/// twice: as columns and as `raw`.
const BLOCK_BYTES_MAX: u64 = 512 << 20;

fn block_bytes(text: &str) -> Result<u64, String> {
    let bytes = term::byte_size(text)?;
    let too_big = || format!("at most {}", term::bytes(BLOCK_BYTES_MAX));
    (bytes <= BLOCK_BYTES_MAX).then_some(bytes).ok_or_else(too_big)
}

pub fn severity(text: &str) -> Result<Severity, String> {
    text.parse().map_err(|error: strongroom_schemas::UnknownValue| error.to_string())
}

pub fn run(args: Args) -> Result<u8, CliError> {
    allocator::give_pages_back();
    let redactor = match &args.redact {
        Some(file) => Some(redact::redactor(redact::read_policy(file)?)?),
        None => None,
    };
    let outputs: Vec<&Path> = args.alerts_out.as_deref().into_iter().collect();
    let source::Expanded { inputs, passed_over } =
        source::expand(&args.logs, &outputs).map_err(ingest_error)?;
    let rules = Arc::new(load_rules(args.no_builtin_rules, &args.rules)?);
    if !args.quiet {
        print_passed_over(&passed_over)?;
    }
    let archive = Archive::open_or_create_signed(&args.archive, args.key.signer()?)
        .map_err(|error| ingest_error(IngestError::Archive(error)))?;
    let mut options = IngestOptions::new(&args.cluster, inputs);
    let limits = &mut options.limits;
    if let Some(threads) = args.threads {
        limits.workers = threads.get();
    }
    limits.seal_bytes = args.seal_bytes;
    limits.seal_interval = Duration::from_secs(args.seal_seconds);
    limits.block_bytes_max = match args.block_bytes {
        Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        None => pipeline::block_bytes(limits.workers),
    };
    options.complete = args.complete;
    options.clock_is_right = args.clock_is_right;
    options.reading = Arc::new(Reading { unwrap: args.unwrap, writers: Writers::new(args.writers) });
    options.redactor = redactor;
    stop_on_interrupt(&options.stop)?;

    let alerts_file = args.alerts_out.as_deref().map(AlertsFile::open).transpose()?;
    let mut screen = Screen::new(args.quiet, args.print_alerts, alerts_file);
    let started = Instant::now();
    let outcome = ingest(&archive, &rules, &options, &mut screen);
    screen.bar.finish_and_clear();
    // An error of reading or sealing is reported before an error of printing.
    let report = outcome.map_err(ingest_error)?;
    if !args.quiet || needs_a_look(&report) {
        print_account(&report, started.elapsed(), &args.archive)?;
        print_skipped(&passed_over)?;
    }
    let code = exit_code(&report);
    match screen.finish() {
        Err(error) if code == exit::OK || !error.is_broken_pipe() => Err(error),
        _ => Ok(code),
    }
}

/// Prints which files and folders below the given folders are not read, with examples. Called
/// before the run, which may take long.
fn print_passed_over(passed_over: &PassedOver) -> Result<(), CliError> {
    print_skipped(passed_over)?;
    let mut err = term::stderr().lock();
    let cannot = "cannot write to standard error";
    for (path, why) in &passed_over.examples {
        let name: String = path.display().to_string().chars().take(SKIPPED_NAME_CHARS_MAX).collect();
        writeln!(err, "  {}: {why}", term::printable(&name)).context(cannot)?;
    }
    let more = passed_over.total() - passed_over.examples.len() as u64;
    if more > 0 {
        writeln!(err, "  and {} more", term::count(more)).context(cannot)?;
    }
    if passed_over.total() > 0 {
        writeln!(err, "  name a file to read it all the same").context(cannot)?;
    }
    Ok(())
}

/// Maximum number of characters that are shown of the path of a file that is not read.
const SKIPPED_NAME_CHARS_MAX: usize = 300;

/// Prints how many files and folders below the given folders are not read, and why.
fn print_skipped(passed_over: &PassedOver) -> Result<(), CliError> {
    if passed_over.total() == 0 {
        return Ok(());
    }
    let number = |is_folder: bool| -> u64 {
        let counts = passed_over.counts.iter().filter(|(why, _)| why.is_folder() == is_folder);
        counts.map(|(_, count)| count).sum()
    };
    let kinds = [(number(false), "file"), (number(true), "folder")];
    let kinds = kinds.iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<String> = kinds
        .map(|(count, noun)| term::counted(usize::try_from(*count).unwrap_or(usize::MAX), noun))
        .collect();
    let reasons = passed_over.counts.iter().map(|(why, count)| format!("{} {why}", term::count(*count)));
    writeln!(term::stderr(), "skipped {}: {}", kinds.join(" and "), reasons.collect::<Vec<_>>().join("; "))
        .context("cannot write to standard error")?;
    Ok(())
}

/// Returns the rules of a run: the built-in ones, and the user's own.
pub fn load_rules(no_builtin: bool, own: &[PathBuf]) -> Result<RuleSet, CliError> {
    let rules = if no_builtin { RuleSet::load(own) } else { RuleSet::builtin_and(own) };
    rules.map_err(unusable_rules)
}

pub fn unusable_rules(error: RuleError) -> CliError {
    let hint = "the message names the rule's file, document and line; docs/rules.md describes the format";
    CliError::input(error).with_hint(hint)
}

/// Ctrl-C ends reading; what was read is sealed. A second Ctrl-C ends the process at once.
pub fn stop_on_interrupt(stop: &Arc<AtomicBool>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for signals")?;
    let stop = Arc::clone(stop);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    if stop.swap(true, Ordering::Relaxed) {
                        #[expect(
                            clippy::disallowed_methods,
                            reason = "the second Ctrl-C asks for an end at once"
                        )]
                        std::process::exit(i32::from(exit::INTERRUPTED));
                    }
                    // The terminal may be gone.
                    let _ = writeln!(
                        term::stderr(),
                        "\nstopping: sealing what was read (Ctrl-C again to stop at once)"
                    );
                }
            });
        })
        .context("cannot start the thread that waits for signals")?;
    Ok(())
}

/// Maximum number of writers that a summary names.
const WRITERS_SHOWN_MAX: usize = 8;

pub fn exit_code(report: &Report) -> u8 {
    if report.interrupted {
        exit::INTERRUPTED
    } else if report.files_failed > 0 {
        exit::FAILURE
    } else if unexpected_rejects(report) > 0 || !report.unfinished.is_empty() || is_all_of_others(report) {
        exit::FINDING
    } else {
        exit::OK
    }
}

/// Returns the number of rejects, except records of other logs that a cloud sends in the same
/// stream. An empty file is a reject too, and like any other it counts only in the run in which it
/// is new.
fn unexpected_rejects(report: &Report) -> u64 {
    let expected = report.rejects_by_reason.get(Reason::OtherCategory.as_str());
    report.counts.rejects - expected.copied().unwrap_or(0).min(report.counts.rejects)
}

/// Returns true if everything that was new was taken for records of other logs. Then the audit log
/// is probably among them, under a name that is not known.
fn is_all_of_others(report: &Report) -> bool {
    let counts = report.counts;
    counts.events + counts.duplicates == 0 && counts.rejects > 0 && unexpected_rejects(report) == 0
}

fn needs_a_look(report: &Report) -> bool {
    exit_code(report) != exit::OK || !report.warnings.is_empty()
}

/// The file to which alerts are appended. The file is synced before the events that the alerts are
/// about are sealed, so a run that is killed loses no alert. The next run raises the alerts of
/// unsealed events again, so an alert may be in the file twice, with the same id.
struct AlertsFile {
    path: PathBuf,
    file: File,
    /// Whole lines that are not written yet.
    unwritten: Vec<u8>,
    /// Why the last write failed, if it did.
    failed: Option<anyhow::Error>,
}

/// Number of bytes of alerts that are written at once.
const ALERTS_BYTES: usize = 64 << 10;

impl AlertsFile {
    fn open(path: &Path) -> Result<Self, CliError> {
        let file = open_lines(path, &mut File::options())
            .with_context(|| format!("cannot open {} for alerts", path.display()))
            .map_err(CliError::input)?;
        Ok(AlertsFile { path: path.to_owned(), file, unwritten: Vec::new(), failed: None })
    }

    fn add(&mut self, alert: &Alert) {
        self.unwritten.extend(finding_line(alert));
        if self.unwritten.len() >= ALERTS_BYTES {
            self.write();
        }
    }

    fn write(&mut self) {
        let unwritten = std::mem::take(&mut self.unwritten);
        if self.failed.is_none()
            && let Err(error) = append_lines(&mut self.file, &unwritten)
        {
            let text = format!("cannot write alerts to {}", self.path.display());
            self.failed = Some(anyhow::Error::new(error).context(text));
        }
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.write();
        match self.failed.take() {
            Some(error) => Err(error),
            None => sync(&self.file).with_context(|| format!("cannot write {}", self.path.display())),
        }
    }
}

/// Syncs a file; a device or a pipe has nothing to sync.
fn sync(file: &File) -> std::io::Result<()> {
    if file.metadata()?.is_file() { file.sync_data() } else { Ok(()) }
}

/// What the user sees during the run.
pub struct Screen {
    pub bar: ProgressBar,
    quiet: bool,
    print_from: Severity,
    alerts_file: Option<AlertsFile>,
    /// The first error of writing; reported when the run is over, because sealing continues.
    failed: Option<anyhow::Error>,
}

impl Screen {
    fn new(quiet: bool, print_from: Severity, alerts_file: Option<AlertsFile>) -> Self {
        let bar = ProgressBar::new(0);
        let style = "{elapsed_precise} {bar:32} {bytes}/{total_bytes} {binary_bytes_per_sec} {msg}";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        if quiet || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Screen { bar, quiet, print_from, alerts_file, failed: None }
    }

    /// Returns a screen that prints alerts of `severity` and above, and writes no file.
    pub fn printing_from(severity: Severity) -> Self {
        Screen::new(false, severity, None)
    }

    fn keep(&mut self, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
    }

    fn finish(&mut self) -> Result<(), CliError> {
        if let Some(file) = &mut self.alerts_file {
            let synced = file.sync();
            self.keep(synced);
        }
        self.failed.take().map_or(Ok(()), |error| Err(CliError::failure(error)))
    }
}

impl Observer for Screen {
    fn progress(&mut self, progress: &Progress) {
        if progress.bytes_total > 0 {
            self.bar.set_length(progress.bytes_total.max(progress.bytes_read));
        }
        self.bar.set_position(progress.bytes_read);
        self.bar.set_message(format!(
            "{} events, {} rejects, {} alerts",
            term::count(progress.events),
            term::count(progress.rejects),
            term::count(progress.alerts)
        ));
    }

    fn alert(&mut self, alert: &Alert) {
        if let Some(file) = &mut self.alerts_file {
            file.add(alert);
        }
        if alert.severity < self.print_from {
            return;
        }
        let text = alert_text(alert);
        let printed = self.bar.suspend(|| term::stdout().lock().write_all(text.as_bytes()));
        self.keep(printed.context("cannot print an alert"));
    }

    fn file_failed(&mut self, error: &FileError) {
        let text = format!("error: {}\n  hint: {}\n", term::printable(&error_chain(error)), error.hint());
        self.bar.suspend(|| {
            let _ = term::stderr().lock().write_all(text.as_bytes());
        });
    }

    fn sealing(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.alerts_file.as_mut().map_or(Ok(()), AlertsFile::sync).map_err(Into::into)
    }

    fn waiting(&mut self) {
        if !self.quiet {
            let _ = writeln!(term::stderr(), "another run is writing to this archive; waiting for it");
        }
    }
}

/// Returns two lines: severity, time, title and message; then cluster, rule, techniques, number of
/// events and id.
pub fn alert_text(alert: &Alert) -> String {
    use anstyle::{AnsiColor, Style};
    let bold = Style::new().bold();
    let colour = match alert.severity {
        Severity::Critical => Style::new()
            .bold()
            .fg_color(Some(AnsiColor::BrightWhite.into()))
            .bg_color(Some(AnsiColor::Red.into())),
        Severity::High => Style::new().bold().fg_color(Some(AnsiColor::Red.into())),
        Severity::Medium => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Severity::Low => Style::new().fg_color(Some(AnsiColor::Cyan.into())),
        Severity::Informational => Style::new(),
    };
    let dim = Style::new().dimmed();
    let time = chrono::DateTime::from_timestamp_micros(alert.time_us)
        .map_or_else(|| "no time".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%SZ").to_string());
    let techniques = if alert.techniques.is_empty() {
        String::new()
    } else {
        format!(" · {}", alert.techniques.join(" "))
    };
    format!(
        "{colour}{:^9}{colour:#} {time} {bold}{}{bold:#}: {}\n{dim}          {} · {}{techniques} · {} event{} · alert {}{dim:#}\n",
        alert.severity.as_str(),
        term::printable(&alert.title),
        term::printable(&alert.message),
        term::printable(&alert.event.cluster),
        alert.rule_name,
        alert.event_count,
        if alert.event_count == 1 { "" } else { "s" },
        alert.alert_id,
    )
}

/// Returns words to append to a line: how the number of sealed bytes compares with that of the
/// text. They are empty if there is no text, or nothing was sealed.
fn share_of_text(sealed: u64, text: u64) -> String {
    match (sealed, text) {
        (0, _) | (_, 0) => String::new(),
        (sealed, text) if sealed <= text => format!(", 1/{:.0} of the text", text as f64 / sealed as f64),
        (sealed, text) => format!(", {:.1} times the text", sealed as f64 / text as f64),
    }
}

/// Prints the summary of a run on standard error.
pub fn print_account(report: &Report, elapsed: Duration, archive: &str) -> Result<(), CliError> {
    let mut err = term::stderr().lock();
    let counts = report.counts;
    writeln!(
        err,
        "received {} = events {} + rejects {} + duplicates {}{}",
        term::count(counts.received),
        term::count(counts.events),
        term::count(counts.rejects),
        term::count(counts.duplicates),
        if pipeline::is_conserved(&counts) { "" } else { "   THE SUM IS WRONG: please report this" },
    )?;
    if counts.events + counts.rejects > 0 {
        let seconds = elapsed.as_secs_f64().max(0.001);
        writeln!(
            err,
            "sealed {} of text as {} in {} file{}: {:.1} bytes per event{}, in {:.1} s ({}/s)",
            term::bytes(report.bytes),
            term::bytes(report.sealed_bytes),
            report.sealed_files,
            if report.sealed_files == 1 { "" } else { "s" },
            report.sealed_bytes as f64 / (counts.events + counts.rejects) as f64,
            share_of_text(report.sealed_bytes, report.bytes),
            seconds,
            term::bytes((report.bytes as f64 / seconds) as u64),
        )?;
    } else if counts.duplicates > 0 && report.files_failed == 0 {
        let all = if report.unfinished.is_empty() { "all of it" } else { "every whole line" };
        writeln!(err, "nothing new: the archive has {all} already")?;
    } else {
        writeln!(err, "nothing was sealed")?;
    }
    if report.bytes_known > 0 && counts.events + counts.rejects > 0 {
        writeln!(err, "continued after {} that earlier runs had sealed", term::bytes(report.bytes_known))?;
    }
    if report.dialects.of(Dialect::Plain) < report.dialects.total() {
        let dialects: Vec<String> = report
            .dialects
            .iter()
            .map(|(dialect, count)| format!("{} {dialect}", term::count(count)))
            .collect();
        writeln!(err, "dialects: {}", dialects.join(", "))?;
    }
    if let Some((most, count)) = report.faults.kinds().first() {
        let events = report.faults.events;
        writeln!(
            err,
            "faults: {} event{} with members that could not be read; most frequent: {} {}\n  all of them: SELECT source, source_offset, faults FROM events WHERE faults IS NOT NULL",
            term::count(events),
            if events == 1 { "" } else { "s" },
            term::count(*count),
            term::printable(most),
        )?;
    }
    let redacted = report.redacted;
    if redacted.events > 0 || redacted.encrypted > 0 {
        writeln!(
            err,
            "redacted: {} event{}, {} value{} dropped, {} tokenised; encrypted whole: {}",
            term::count(redacted.events),
            if redacted.events == 1 { "" } else { "s" },
            term::count(redacted.dropped),
            if redacted.dropped == 1 { "" } else { "s" },
            term::count(redacted.tokenised),
            term::count(redacted.encrypted),
        )?;
    }
    if !report.alerts.is_empty() {
        let by_severity: Vec<String> = report
            .alerts
            .iter()
            .rev()
            .map(|(severity, count)| format!("{} {severity}", term::count(*count)))
            .collect();
        writeln!(err, "alerts: {}", by_severity.join(", "))?;
    }
    if counts.rejects > 0 {
        let reasons: Vec<String> = report
            .rejects_by_reason
            .iter()
            .map(|(reason, count)| format!("{} {reason}", term::count(*count)))
            .collect();
        writeln!(err, "rejects: {}", reasons.join(", "))?;
        for example in &report.reject_examples {
            writeln!(err, "  {}", term::printable(example))?;
        }
        writeln!(err, "  all of them, with their bytes: SELECT source, line, reason, detail FROM rejects")?;
    }
    let untrusted = report.untrusted.kinds();
    if !untrusted.is_empty() {
        writeln!(
            err,
            "warning: {} audit event{} not taken, because something beside {} names a writer that is not known:",
            term::count(report.untrusted.sum()),
            if report.untrusted.sum() == 1 { " was" } else { "s were" },
            if report.untrusted.sum() == 1 { "it" } else { "them" },
        )?;
        for (writer, count) in untrusted.iter().take(WRITERS_SHOWN_MAX) {
            writeln!(err, "  {}: {}", term::count(*count), term::printable(writer))?;
        }
        if untrusted.len() > WRITERS_SHOWN_MAX {
            writeln!(err, "  and {} more", untrusted.len() - WRITERS_SHOWN_MAX)?;
        }
        writeln!(
            err,
            "  if one of them is an API server, believe it with --writer (`writers` in a configuration), and ingest the log into another archive: in this one these records stay rejects"
        )?;
    }
    if is_all_of_others(report) {
        writeln!(
            err,
            "warning: no event was taken: every line names a container, stream or category that is not an API server's; docs/format.md lists those of API servers (Events in wrappers)"
        )?;
    }
    for (label, offset, bytes) in &report.unfinished {
        writeln!(
            err,
            "unfinished: {} ends inside a line, {bytes} bytes from byte {offset}; it is read when the line ends (or now, with --complete)",
            term::printable(label)
        )?;
    }
    for warning in &report.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    if report.interrupted {
        writeln!(err, "interrupted: what was read is sealed; run the same command again to continue")?;
    } else if counts.events > 0 {
        writeln!(err, "next: strongroom sql --archive {}", term::shell_word(archive))?;
    }
    Ok(())
}
