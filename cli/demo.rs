//! `strongroom demo`: shows the whole product on a generated log, so that a newcomer needs no log.
//!
//! Invariant: every step calls the same functions as the command printed above it, so the
//! demonstration shows exactly what the reader gets. It writes to one folder only, and replaces
//! nothing there but what an earlier demonstration left.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use strongroom_archive::{Archive, SealReport};
use strongroom_generate::{ATTACK_EVENTS_MIN, Generator, GeneratorOptions, PlantedAttack};
use strongroom_ingest::{FileError, IngestError, IngestOptions, Observer, Progress, ingest, source};
use strongroom_query::{Expanded, Format, Layout, Session, SessionOptions};
use strongroom_schemas::{Alert, Severity};

use crate::exit::{self, CliError, ingest_error, query_error};
use crate::ingest::{Screen, load_rules, print_account, stop_on_interrupt};
use crate::{generate, query, term};

/// See the whole product work on a generated cluster with attacks hidden in it.
///
/// Generates a day's audit log, ingests it with alerts, seals it in an archive, checks that each
/// attack was found and each byte kept, and answers three questions. Nothing outside --dir is
/// touched.
#[derive(clap::Args)]
pub struct Args {
    /// Folder for the log and the archive; an earlier demonstration there is replaced
    #[arg(long, value_name = "DIR", default_value = "strongroom-demo")]
    dir: PathBuf,
    /// Events of the day
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(ATTACK_EVENTS_MIN..=EVENTS_MAX))]
    events: u64,
    /// Another seed gives another cluster and another day
    #[arg(long, value_name = "S", default_value_t = 7)]
    seed: u64,
}

/// Maximum number of events. A demonstration is meant to be watched; for larger logs there are
/// `generate` and `ingest`.
const EVENTS_MAX: u64 = 20_000_000;
const DAY_SECONDS: f64 = 86_400.0;
/// Events per second that one node causes, as in the generator's own cluster.
const EVENTS_PER_NODE: f64 = 0.5;
/// Minimum number of nodes of the cluster.
const NODES_MIN: f64 = 3.0;
/// Maximum number of nodes of the cluster.
const NODES_MAX: f64 = 500.0;

const NAME: &str = "strongroom";
const CLUSTER: &str = "clinic";
/// Minimum severity of the alerts that are printed as they fire. The table `alerts` has them all.
const PRINT_FROM: Severity = Severity::High;

const MARKER: &str = ".strongroom-demo";
const LOG: &str = "audit.log";
const TRUTH: &str = "audit.log.truth.jsonl";
const ARCHIVE: &str = "archive";

/// What an investigator asks after these alerts.
const QUESTIONS: [(&str, &str); 3] = [
    (
        "Who read Secrets from outside the cluster's networks, and how many?",
        "\
SELECT actor, source_ip, count(DISTINCT namespace || '/' || name) AS secrets,
       count(DISTINCT namespace) AS namespaces, min(stage_timestamp) AS first_read
FROM secret_access
WHERE succeeded AND verb = 'get' AND source_ip NOT LIKE '10.%'
GROUP BY actor, source_ip ORDER BY secrets DESC",
    ),
    (
        "What else came from the first of these addresses?",
        "\
SELECT stage_timestamp, actor, verb, resource, namespace, name, response_code
FROM events
WHERE source_ip = '198.51.100.23' AND resource <> 'secrets' AND stage = 'ResponseComplete'
ORDER BY stage_timestamp",
    ),
    (
        "Which permissions were granted that day, by whom and to whom?",
        "\
SELECT stage_timestamp, actor, source_ip, resource, name, role_name,
       coalesce(subjects, rules) AS granted
FROM rbac_changes
WHERE succeeded
ORDER BY stage_timestamp",
    ),
];

pub fn run(args: Args) -> Result<u8, CliError> {
    crate::allocator::give_pages_back();
    let started = Instant::now();
    prepare(&args.dir)?;
    let log = args.dir.join(LOG);
    let archive_path = args.dir.join(ARCHIVE);
    let (log_word, archive_word) = (word(&log), word(&archive_path));

    let truth = generate_day(&args, &log)?;
    let alerts = ingest_day(&log, &archive_path)?;
    let found = compare(&truth, &alerts)?;
    let same = export_and_compare(&log, &archive_path)?;
    let answered = investigate(&archive_path)?;

    say("")?;
    heading(&format!("Done in {:.1} s. Now try it yourself", started.elapsed().as_secs_f64()))?;
    let program = program();
    for (arguments, what) in [
        (format!("sql --archive {archive_word}"), "ask more; \\d lists tables and views"),
        (
            format!("query --archive {archive_word} \"SELECT * FROM exec_sessions\""),
            "what was run inside pods",
        ),
        (format!("export --archive {archive_word} | cmp - {log_word}"), "the log as it was, byte for byte"),
        (
            format!("ingest --cluster {CLUSTER} --archive {archive_word} {log_word}"),
            "the same file again adds nothing",
        ),
        (
            "ingest --cluster prod --archive ./archive /var/log/kubernetes/audit/".to_owned(),
            "your own cluster's log",
        ),
    ] {
        say(&format!("  {program} {arguments}\n      {}", dimmed(what)))?;
    }
    say(&format!("\nEverything is in {}; delete it when you are done.", word(&args.dir)))?;
    Ok(if found && same && answered { exit::OK } else { exit::FINDING })
}

/// Makes the folder, or removes what an earlier demonstration left in it.
fn prepare(dir: &Path) -> Result<(), CliError> {
    let marker = dir.join(MARKER);
    let cannot = |what: &str| format!("cannot {what} {}", dir.display());
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if !marker.exists() && entries.next().is_some() {
                return Err(CliError::input(anyhow::anyhow!(
                    "{} exists and was not made by an earlier demonstration",
                    dir.display()
                ))
                .with_hint("name another folder with --dir"));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).with_context(|| cannot("make")).map_err(CliError::input)?;
        }
        Err(error) => return Err(CliError::input(anyhow::Error::new(error).context(cannot("read")))),
    }
    File::create(&marker).with_context(|| cannot("write to")).map_err(CliError::input)?;
    for file in [LOG, TRUTH] {
        remove(fs::remove_file(dir.join(file))).with_context(|| cannot("empty"))?;
    }
    remove(fs::remove_dir_all(dir.join(ARCHIVE))).with_context(|| cannot("empty"))?;
    Ok(())
}

fn remove(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn generate_day(args: &Args, log: &Path) -> Result<Vec<PlantedAttack>, CliError> {
    let rate = (args.events as f64 / DAY_SECONDS * 1_000.0).round() / 1_000.0;
    let nodes = (rate / EVENTS_PER_NODE).clamp(NODES_MIN, NODES_MAX).round() as u32;
    let options = GeneratorOptions {
        seed: args.seed,
        events: args.events,
        attacks: true,
        rate,
        nodes,
        ..GeneratorOptions::default()
    };
    let mut generator = Generator::new(options).map_err(CliError::input)?;
    let truth = generator.ground_truth().to_vec();
    heading(&format!(
        "One day in a cluster of {nodes} nodes: {} audit events, including {} attacks",
        term::count(args.events),
        truth.len()
    ))?;
    command(&format!(
        "generate --events {} --seed {} --rate {rate} --nodes {nodes} --attacks --output {}",
        args.events,
        args.seed,
        word(log)
    ))?;
    let started = Instant::now();
    let bytes = generate::to_file(&mut generator, log)?;
    generate::write_ground_truth(&log.with_file_name(TRUTH), &truth)?;
    say(&format!("{} in {:.1} s", term::bytes(bytes), started.elapsed().as_secs_f64()))?;
    Ok(truth)
}

fn ingest_day(log: &Path, archive_path: &Path) -> Result<Vec<Alert>, CliError> {
    let rules = Arc::new(load_rules(false, &[])?);
    say("")?;
    heading(&format!("Ingest it: {} rules watch while the events are sealed", rules.rules().len()))?;
    let location = archive_path.to_string_lossy();
    command(&format!(
        "ingest --cluster {CLUSTER} --archive {} --print-alerts {PRINT_FROM} {}",
        word(archive_path),
        word(log)
    ))?;
    let archive =
        Archive::open_or_create(&location).map_err(|error| ingest_error(IngestError::Archive(error)))?;
    let inputs = vec![source::Input::File(log.to_path_buf())];
    let options = IngestOptions::new(CLUSTER, inputs);
    stop_on_interrupt(&options.stop)?;
    let mut watcher = Watcher { screen: Screen::printing_from(PRINT_FROM), alerts: Vec::new() };
    let started = Instant::now();
    let outcome = ingest(&archive, &rules, &options, &mut watcher);
    watcher.screen.bar.finish_and_clear();
    let report = outcome.map_err(ingest_error)?;
    print_account(&report, started.elapsed(), &location)?;
    if report.interrupted {
        return Err(CliError { code: exit::INTERRUPTED, hint: None, source: anyhow::anyhow!("interrupted") });
    }
    Ok(watcher.alerts)
}

/// Shows alerts as `ingest` does, and keeps them for the comparison.
struct Watcher {
    screen: Screen,
    alerts: Vec<Alert>,
}

impl Observer for Watcher {
    fn progress(&mut self, progress: &Progress) {
        self.screen.progress(progress);
    }

    fn alert(&mut self, alert: &Alert) {
        self.screen.alert(alert);
        self.alerts.push(alert.clone());
    }

    fn file_failed(&mut self, error: &FileError) {
        self.screen.file_failed(error);
    }

    fn sealed(&mut self, report: &SealReport) {
        self.screen.sealed(report);
    }

    fn waiting(&mut self) {
        self.screen.waiting();
    }
}

/// Prints for each attack the alert that found it; returns true if all were found.
fn compare(truth: &[PlantedAttack], alerts: &[Alert]) -> Result<bool, CliError> {
    say("")?;
    heading(
        "Was every attack found? The alerts, against the list of planted attacks, which the rules do not know",
    )?;
    let mut of_attacks = HashSet::new();
    let mut found = 0;
    say(&dimmed(&format!("  {:<28} {:<6} {:<9} {}", "attack", "began", "severity", "found by")))?;
    for attack in truth {
        let ids: HashSet<&str> = attack.audit_ids.iter().map(String::as_str).collect();
        let touching: Vec<(usize, &Alert)> = alerts
            .iter()
            .enumerate()
            .filter(|(_, alert)| alert.audit_ids.iter().any(|id| ids.contains(id.as_str())))
            .collect();
        of_attacks.extend(touching.iter().map(|(index, _)| *index));
        let began = attack.first_time.get(11..16).unwrap_or_default();
        let finder =
            touching.iter().map(|(_, alert)| *alert).filter(|alert| attack.rules.contains(&alert.rule_name));
        match finder.max_by_key(|alert| alert.severity) {
            Some(alert) => {
                found += 1;
                let others: HashSet<&str> =
                    touching.iter().map(|(_, other)| other.rule_name.as_str()).collect();
                let others = match others.len() - 1 {
                    0 => String::new(),
                    1 => " and 1 more rule".to_owned(),
                    more => format!(" and {more} more rules"),
                };
                say(&format!(
                    "{} {:<28} {began:<6} {:<9} {}{}",
                    green("✓"),
                    attack.story,
                    alert.severity.as_str(),
                    alert.rule_name,
                    dimmed(&others)
                ))?;
            }
            None => say(&format!(
                "{} {:<28} {began:<6} {:<9} nothing: {}",
                red("✗"),
                attack.story,
                "",
                attack.description
            ))?,
        }
    }
    let rest = alerts.len() - of_attacks.len();
    say(&format!(
        "{found} of {} attacks found. {} alert{} on activity that was not an attack: people's exec sessions, port-forwards and the like.",
        truth.len(),
        term::count(rest as u64),
        if rest == 1 { "" } else { "s" },
    ))?;
    Ok(found == truth.len())
}

/// Exports the archive and compares the export with the log; returns true if they are equal.
fn export_and_compare(log: &Path, archive_path: &Path) -> Result<bool, CliError> {
    say("")?;
    heading("Was every byte kept?")?;
    command(&format!("export --archive {} | cmp - {}", word(archive_path), word(log)))?;
    let archive = Archive::open(&archive_path.to_string_lossy())
        .map_err(|error| ingest_error(IngestError::Archive(error)))?;
    let started = Instant::now();
    let original = File::open(log).with_context(|| format!("cannot open {}", log.display()))?;
    let mut comparison = Comparison {
        original: io::BufReader::with_capacity(1 << 20, original),
        compared: 0,
        differs_at: None,
    };
    let records = crate::export::everything(&archive, &mut comparison)?;
    let differs_at = comparison.finish().with_context(|| format!("cannot read {}", log.display()))?;
    match differs_at {
        None => say(&format!(
            "{} {} records were restored to the original {}, in {:.1} s",
            green("✓"),
            term::count(records),
            term::bytes(comparison.compared),
            started.elapsed().as_secs_f64()
        ))?,
        Some(at) => say(&format!("{} the export differs from the log at byte {at}", red("✗")))?,
    }
    Ok(differs_at.is_none())
}

/// A writer that keeps nothing and compares its input with a file.
struct Comparison {
    original: io::BufReader<File>,
    compared: u64,
    differs_at: Option<u64>,
}

impl Comparison {
    /// Returns the offset of the first difference between the file and what was written, if there
    /// is one. It is also a difference if one of the two is shorter.
    fn finish(&mut self) -> io::Result<Option<u64>> {
        let rest = io::BufRead::fill_buf(&mut self.original)?;
        if self.differs_at.is_none() && !rest.is_empty() {
            self.differs_at = Some(self.compared);
        }
        Ok(self.differs_at)
    }
}

impl io::Write for Comparison {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        if self.differs_at.is_some() {
            return Ok(written.len());
        }
        let expected = io::BufRead::fill_buf(&mut self.original)?;
        let length = expected.len().min(written.len());
        let same = expected.iter().zip(&written[..length]).take_while(|(a, b)| a == b).count();
        if length == 0 || same < length {
            self.differs_at = Some(self.compared + same as u64);
            return Ok(written.len());
        }
        io::BufRead::consume(&mut self.original, length);
        self.compared += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Asks the three questions; returns true if each answer has rows.
fn investigate(archive_path: &Path) -> Result<bool, CliError> {
    let archive = Archive::open(&archive_path.to_string_lossy())
        .map_err(|error| ingest_error(IngestError::Archive(error)))?;
    let session = Session::open(archive, &SessionOptions::default()).map_err(query_error)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let layout = Layout {
        width: query::terminal_width().or(Some(WIDTH_DEFAULT)),
        truncate: true,
        expanded: Expanded::Never,
    };
    let mut all = true;
    for (question, sql) in QUESTIONS {
        say("")?;
        heading(question)?;
        command(&format!("query --archive {} \"\n{sql}\"", word(archive_path)))?;
        let written = query::answer(&runtime, &session, sql, Format::Table, &layout, term::data())?;
        let Some(written) = written else {
            return Err(CliError {
                code: exit::INTERRUPTED,
                hint: None,
                source: anyhow::anyhow!("interrupted"),
            });
        };
        say(&dimmed(&query::summary(&written)))?;
        all &= written.rows > 0;
    }
    Ok(all)
}

/// Width of the output when there is no terminal.
const WIDTH_DEFAULT: usize = 160;

fn heading(text: &str) -> Result<(), CliError> {
    let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Green.into()));
    say(&format!("{style}{text}{style:#}"))
}

/// Prints the equivalent command line.
fn command(arguments: &str) -> Result<(), CliError> {
    say(&dimmed(&format!("$ {} {arguments}", program())))
}

/// Prints a line on standard output and flushes it, so that it keeps its place among the progress
/// bars, alerts and summaries on the same terminal.
fn say(text: &str) -> Result<(), CliError> {
    let mut out = term::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard output")?;
    Ok(())
}

fn dimmed(text: &str) -> String {
    let style = anstyle::Style::new().dimmed();
    format!("{style}{text}{style:#}")
}

fn green(text: &str) -> String {
    let style = anstyle::Style::new().fg_color(Some(anstyle::AnsiColor::Green.into()));
    format!("{style}{text}{style:#}")
}

fn red(text: &str) -> String {
    let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    format!("{style}{text}{style:#}")
}

/// Returns the word that starts this program again: the name or path that it was started with.
fn program() -> String {
    let given = std::env::args_os().next().map(PathBuf::from).unwrap_or_else(|| PathBuf::from(NAME));
    term::shell_word(&given.to_string_lossy())
}

fn word(path: &Path) -> String {
    term::shell_word(&path.to_string_lossy())
}
