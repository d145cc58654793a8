//! `strongroom rules`: lists, shows, checks and tests rules, and says what they need from an audit
//! policy.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use chrono::Utc;
use serde_json::{Value, json};
use strongroom_alerts::{
    Detector, DetectorConfig, Hidden, LogKind, Matcher, OwnRules, RuleInfo, RuleKind, RuleSet,
};
use strongroom_archive::{Archive, EventSelection};
use strongroom_decode::{Decoder, DecoderConfig};
use strongroom_generate::dialect::Dialect;
use strongroom_ingest::preview::{self, Preview};
use strongroom_ingest::replay::{self, Span};
use strongroom_lines::Block;
use strongroom_lines::frame::{Edge, Origin};
use strongroom_redact::Redactor;
use strongroom_schemas::{Alert, Level, Severity, Table, events};

use crate::config::redact;
use crate::exit::{self, CliError, ingest_error};
use crate::redact::{hidden_json, parts_json};
use crate::{ingest, term};

/// Longest fixture that is read.
const FIXTURE_BYTES_MAX: u64 = 64 << 20;

/// List, show, check and test rules, and say what they cover.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  strongroom rules list --severity high --technique T1552
  strongroom rules show pod-exec-shell
  strongroom rules lint ./rules
  strongroom rules test ./rules
  strongroom rules coverage --archive ./archive")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Given {
    /// Your own rules: a Sigma YAML file or a folder of them (repeatable)
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Leave out the built-in rules
    #[arg(long)]
    no_builtin_rules: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// One line for each rule
    List {
        #[command(flatten)]
        given: Given,
        /// Of this severity and above
        #[arg(long, value_name = "SEVERITY", value_parser = ingest::severity)]
        severity: Option<Severity>,
        /// Of this ATT&CK technique, or of a sub-technique
        #[arg(long, value_name = "T1234")]
        technique: Option<String>,
        /// Serving this HIPAA safeguard, or a part of it
        #[arg(long, value_name = "164.312(b)")]
        hipaa: Option<String>,
    },
    /// Show everything that a rule says: description, next steps, and its text
    Show {
        #[command(flatten)]
        given: Given,
        /// Name or id of the rule
        rule: String,
    },
    /// Check rules for mistakes, and for missing texts that an analyst needs; exit code 1 if
    /// anything is found
    Lint {
        /// Rule files, or folders of them
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Leave out the built-in rules, which a correlation may name
        #[arg(long)]
        no_builtin_rules: bool,
    },
    /// Run rules over their fixtures: events that they must find and events that they must not find
    Test {
        /// Rule files, or folders of them
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Folder with NAME.hit.ndjson and NAME.near-miss.ndjson [default: fixtures beside the
        /// rule]
        #[arg(long, value_name = "DIR")]
        fixtures: Option<PathBuf>,
        /// Leave out the built-in rules, which a correlation may name
        #[arg(long)]
        no_builtin_rules: bool,
    },
    /// Show ATT&CK techniques and HIPAA safeguards, the audit levels that rules need, and whether
    /// the events of a stream have these levels
    Coverage {
        #[command(flatten)]
        given: Given,
        /// An archive of the stream
        #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
        archive: Option<String>,
        /// Values that must not be in the archive: the section [redact] of a TOML file, whose paths
        /// are looked for [default: contents of Secrets, and tokens]
        #[arg(long, value_name = "FILE", requires = "archive")]
        redact: Option<PathBuf>,
        /// Number of days to look at, up to the last day of the archive
        #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3660))]
        days: u32,
    },
}

pub fn run(args: Args) -> Result<u8, CliError> {
    match args.command {
        Command::List { given, severity, technique, hipaa } => {
            let rules = ingest::load_rules(given.no_builtin_rules, &given.rules)?;
            let wanted = |rule: &&RuleInfo| {
                severity.is_none_or(|least| rule.severity >= least)
                    && technique.as_ref().is_none_or(|wanted| {
                        let wanted = wanted.to_ascii_uppercase();
                        let below = |id: &String| *id == wanted || id.starts_with(&format!("{wanted}."));
                        rule.techniques.iter().any(below)
                    })
                    && hipaa.as_ref().is_none_or(|wanted| rule.hipaa.iter().any(|id| id.starts_with(wanted)))
            };
            let found: Vec<&RuleInfo> = rules.rules().iter().filter(wanted).collect();
            list(&found, given.json).context("cannot write to standard output")?;
            Ok(exit::OK)
        }
        Command::Show { given, rule } => {
            let rules = ingest::load_rules(given.no_builtin_rules, &given.rules)?;
            let at = rules.rules().iter().position(|known| known.name == rule || known.id == rule);
            let Some(at) = at else {
                let error = anyhow::anyhow!("no rule has the name or id {rule}");
                return Err(CliError::input(error).with_hint("`strongroom rules list` names them all"));
            };
            show(&rules, at, given.json).context("cannot write to standard output")?;
            Ok(exit::OK)
        }
        Command::Lint { paths, no_builtin_rules } => lint(&paths, no_builtin_rules),
        Command::Test { paths, fixtures, no_builtin_rules } => {
            test(&paths, fixtures.as_deref(), no_builtin_rules)
        }
        Command::Coverage { given, archive, redact, days } => {
            let rules = Arc::new(ingest::load_rules(given.no_builtin_rules, &given.rules)?);
            let seen = match archive {
                Some(location) => Some(seen(&rules, &location, redact.as_deref(), days)?),
                None => None,
            };
            coverage(&rules, seen.as_ref(), given.json).context("cannot write to standard output")?;
            Ok(exit::OK)
        }
    }
}

fn described(rules: &RuleSet, at: usize) -> Value {
    let rule = &rules.rules()[at];
    let needs = rules.needs(at);
    let feeders: Vec<&str> =
        rules.feeders(at).into_iter().map(|at| rules.rules()[at].name.as_str()).collect();
    json!({
        "name": rule.name,
        "id": rule.id,
        "title": rule.title,
        "description": rule.description,
        "severity": rule.severity.as_str(),
        "type": rule.kind.as_str(),
        "alerts": rule.alerts,
        "fed_by": feeders,
        "tactics": rule.tactics,
        "techniques": rule.techniques,
        "hipaa": rule.hipaa,
        "falsepositives": rule.false_positives,
        "next_steps": rule.next_steps,
        "runbook": rule.runbook,
        "needs": { "level": needs.level.as_str(), "resources": needs.resources, "verbs": needs.verbs },
        "file": rule.file,
        "line": rule.line,
        "text": rule.text,
    })
}

fn list(rules: &[&RuleInfo], as_json: bool) -> std::io::Result<()> {
    let mut out = term::stdout().lock();
    if as_json {
        let rules: Vec<Value> = rules
            .iter()
            .map(|rule| {
                json!({
                    "name": rule.name, "id": rule.id, "title": rule.title, "severity": rule.severity.as_str(),
                    "type": rule.kind.as_str(), "alerts": rule.alerts, "techniques": rule.techniques,
                    "hipaa": rule.hipaa,
                })
            })
            .collect();
        return writeln!(out, "{:#}", Value::Array(rules));
    }
    let width = rules.iter().map(|rule| rule.name.chars().count()).max().unwrap_or(0);
    for rule in rules {
        let (severity, kind) = (rule.severity.as_str(), rule.kind.as_str());
        let kind = if rule.alerts { kind } else { "feeds only" };
        let name = term::printable(&rule.name);
        let techniques = rule.techniques.join(" ");
        writeln!(
            out,
            "{name:width$}  {severity:13}  {kind:16}  {techniques:20}  {}",
            term::printable(&rule.title)
        )?;
    }
    Ok(())
}

fn show(rules: &RuleSet, at: usize, as_json: bool) -> std::io::Result<()> {
    let mut out = term::stdout().lock();
    if as_json {
        return writeln!(out, "{:#}", described(rules, at));
    }
    let rule = &rules.rules()[at];
    let needs = rules.needs(at);
    let or = |items: &[String], nothing: &str| match items {
        [] => nothing.to_owned(),
        items => items.join(", "),
    };
    let names = |places: Vec<usize>| places.into_iter().map(|at| rules.rules()[at].name.clone()).collect();
    let feeders: Vec<String> = names(rules.feeders(at));
    let lines = [
        ("name", rule.name.clone()),
        ("id", rule.id.clone()),
        ("title", rule.title.clone()),
        ("severity", rule.severity.to_string()),
        ("type", rule.kind.as_str().to_owned()),
        ("alerts", if rule.alerts { "yes" } else { "no: it feeds correlations" }.to_owned()),
        ("fed by", or(&feeders, "-")),
        ("tactics", or(&rule.tactics, "-")),
        ("techniques", or(&rule.techniques, "-")),
        ("HIPAA", or(&rule.hipaa, "-")),
        ("needs level", needs.level.as_str().to_owned()),
        ("of resources", or(&needs.resources, "any")),
        ("file", format!("{}:{}", rule.file, rule.line)),
    ];
    for (name, value) in lines {
        writeln!(out, "{name:14}{}", term::printable(&value))?;
    }
    let mut section =
        |name: &str, text: &str| if text.is_empty() { Ok(()) } else { writeln!(out, "\n{name}\n{text}") };
    section("What it sees", &printable_lines(&rule.description))?;
    section("False positives", &printable_lines(&rule.false_positives.join("\n")))?;
    section("Next steps", &printable_lines(&rule.next_steps))?;
    section("Runbook", &printable_lines(&rule.runbook.join(";\n\n")))?;
    section("Rule", &printable_lines(&rule.text))
}

fn printable_lines(text: &str) -> String {
    text.lines().map(term::printable).collect::<Vec<_>>().join("\n")
}

/// Loads the rules to check, in place of built-in rules with the same names.
fn own_rules(paths: &[PathBuf], no_builtin: bool) -> Result<OwnRules, CliError> {
    if no_builtin {
        let rules = ingest::load_rules(true, paths)?;
        return Ok(OwnRules { rules, first: 0, changed: BTreeSet::new() });
    }
    RuleSet::in_place_of_builtin(paths).map_err(ingest::unusable_rules)
}

fn lint(paths: &[PathBuf], no_builtin: bool) -> Result<u8, CliError> {
    let OwnRules { rules, first, changed } = own_rules(paths, no_builtin)?;
    let mut out = term::stdout().lock();
    let mut faults = 0;
    let own = &rules.rules()[first..];
    for rule in own {
        let missing = |what: &'static str, is: bool| is.then_some(what);
        let uuid = rule.id.len() == 36 && rule.id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let found = [
            missing(
                "differs from the built-in rule of this name or id: it loads only with --no-builtin-rules",
                changed.contains(&rule.name) || changed.contains(&rule.id),
            ),
            missing("has no UUID as its id: ids of its alerts depend on its name", !uuid),
            missing("has no description", rule.alerts && rule.description.is_empty()),
            missing("has no tag of an ATT&CK technique", rule.alerts && rule.techniques.is_empty()),
            missing("names no false positives", rule.alerts && rule.false_positives.is_empty()),
            missing(
                "has neither next_steps nor a runbook",
                rule.alerts && rule.next_steps.is_empty() && rule.runbook.is_empty(),
            ),
        ];
        for what in found.into_iter().flatten() {
            faults += 1;
            writeln!(out, "{}:{}: {}: {what}", rule.file, rule.line, term::printable(&rule.name))
                .context("cannot write to standard output")?;
        }
    }
    let (read, remarks) = (term::counted(own.len(), "rule"), term::counted(faults, "remark"));
    let _ = writeln!(term::stderr(), "{read} read, {remarks}");
    Ok(if faults > 0 { exit::FINDING } else { exit::OK })
}

/// Runs the rules of some files over their fixtures. For a rule over single events, each event of
/// the hit must alone raise one alert. For a correlation, the events of the hit together must raise
/// one alert. Near misses must raise none.
fn test(paths: &[PathBuf], fixtures: Option<&Path>, no_builtin: bool) -> Result<u8, CliError> {
    let OwnRules { rules, first, .. } = own_rules(paths, no_builtin)?;
    let rules = Arc::new(rules);
    let mut out = term::stdout().lock();
    let (mut tested, mut failed) = (0, 0);
    for rule in rules.rules()[first..].iter().filter(|rule| rule.alerts) {
        let beside = Path::new(&rule.file).parent().unwrap_or(Path::new(".")).join("fixtures");
        let folder = fixtures.unwrap_or(&beside);
        tested += 1;
        let faults = match (lines(folder, rule, "hit")?, lines(folder, rule, "near-miss")?) {
            (Some(hit), Some(miss)) => faults(&rules, rule, &hit, &miss),
            _ => vec![format!(
                "{}.hit.ndjson and {0}.near-miss.ndjson are not both in {}",
                rule.name,
                folder.display()
            )],
        };
        failed += usize::from(!faults.is_empty());
        let word = if faults.is_empty() { "ok" } else { "FAIL" };
        writeln!(out, "{word:5} {}", term::printable(&rule.name))
            .context("cannot write to standard output")?;
        for fault in faults {
            writeln!(out, "      {}", term::printable(&fault)).context("cannot write to standard output")?;
        }
    }
    let _ = writeln!(term::stderr(), "{} tested, {failed} failed", term::counted(tested, "rule"));
    Ok(if failed > 0 { exit::FINDING } else { exit::OK })
}

fn lines(folder: &Path, rule: &RuleInfo, kind: &str) -> Result<Option<Vec<String>>, CliError> {
    let path = folder.join(format!("{}.{kind}.ndjson", rule.name));
    let cannot = || format!("cannot read {}", path.display());
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CliError::input(anyhow::Error::from(error).context(cannot()))),
        Ok(metadata) if metadata.len() > FIXTURE_BYTES_MAX => {
            return Err(CliError::input(anyhow::anyhow!("{} is too long for a fixture", path.display())));
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(&path).with_context(cannot).map_err(CliError::input)?;
    Ok(Some(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()))
}

fn faults(rules: &Arc<RuleSet>, rule: &RuleInfo, hit: &[String], miss: &[String]) -> Vec<String> {
    let fired = |lines: &[String]| -> Result<usize, String> {
        Ok(alerts(rules, lines)?.iter().filter(|alert| alert.rule_id == rule.id).count())
    };
    let mut faults = Vec::new();
    if hit.is_empty() || miss.is_empty() {
        faults.push("a fixture is empty".to_owned());
    }
    let mut expect_one = |what: String, lines: &[String]| match fired(lines) {
        Ok(1) => {}
        Ok(0) => faults.push(format!("{what} does not fire")),
        Ok(count) => faults.push(format!("{what} fires {count} times, not once")),
        Err(error) => faults.push(format!("{what}: {error}")),
    };
    match rule.kind {
        RuleKind::Event => {
            for (at, line) in hit.iter().enumerate() {
                expect_one(format!("event {} of the hit", at + 1), std::slice::from_ref(line));
            }
        }
        _ => expect_one("the hit".to_owned(), hit),
    }
    match fired(miss) {
        Ok(0) => {}
        Ok(1) => faults.push("the near miss fires once".to_owned()),
        Ok(count) => faults.push(format!("the near miss fires {count} times")),
        Err(error) => faults.push(format!("the near miss: {error}")),
    }
    faults
}

/// Alerts of a new detector over some lines.
fn alerts(rules: &Arc<RuleSet>, lines: &[String]) -> Result<Vec<Alert>, String> {
    let block = Block {
        origin: Arc::new(Origin {
            partition: "fixture".to_owned(),
            cluster: "fixture".to_owned(),
            reading: Arc::default(),
        }),
        offset: 0,
        first_line: 1,
        bytes: (lines.join("\n") + "\n").into_bytes(),
        begins: Edge::Line,
        ends: Edge::Line,
        open_ended: false,
    };
    let mut decoder = Decoder::new(DecoderConfig::default());
    let decoded = decoder.decode(&block, Utc::now()).map_err(|error| error.to_string())?;
    if decoded.rejects.num_rows() > 0 {
        return Err(match decoded.rejects.num_rows() {
            1 => "a line is not an audit event".to_owned(),
            lines => format!("{lines} lines are not audit events"),
        });
    }
    let matches = Matcher::new(Arc::clone(rules)).match_batch(&decoded.events);
    let mut detector = Detector::new(Arc::clone(rules), DetectorConfig::default());
    let mut alerts = detector.observe(matches.map_err(|error| error.to_string())?);
    alerts.extend(detector.settle());
    Ok(alerts)
}

/// Counts of the events of a stream that a rule over single events could match.
#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    /// Events that the rule matches, as far as can be seen without a body.
    seen: u64,
    /// The events of `seen` that were written at the audit level that the rule needs, or a higher
    /// one.
    whole: u64,
}

/// What an archive shows of a stream.
struct Seen {
    /// One for each rule, at the rule's position in the set.
    carried: Vec<Carried>,
    /// Values that are in the archive although they should not be.
    in_clear: Preview,
    redactor: Arc<Redactor>,
    /// What rules cannot see in redacted events.
    hidden: Hidden,
}

fn seen(rules: &Arc<RuleSet>, location: &str, policy: Option<&Path>, days: u32) -> Result<Seen, CliError> {
    let archive = Archive::open(location).map_err(|error| ingest_error(error.into()))?;
    let since_us = since(&archive, days)?;
    let redactor = match policy {
        Some(file) => redact::redactor(redact::read_policy(file)?)?,
        None => Arc::new(preview::secrets().context("the shipped policy cannot be used")?),
    };
    let (span, stop) = (Span { from_us: since_us, until_us: None }, AtomicBool::new(false));
    let in_clear = preview::of_archive(&redactor, rules, &archive, span, &stop).map_err(ingest_error)?;
    let hidden = replay::hidden(&archive, rules, span, &stop).map_err(ingest_error)?;
    Ok(Seen { carried: carried(rules, &archive, since_us)?, in_clear, redactor, hidden })
}

/// Returns the start of the last days of an archive.
fn since(archive: &Archive, days: u32) -> Result<Option<i64>, CliError> {
    let snapshot = archive.snapshot(Table::Events).map_err(|error| ingest_error(error.into()))?;
    let tomorrow = Utc::now().timestamp_micros().saturating_add(86_400_000_000);
    let newest =
        snapshot.files.iter().filter_map(|file| file.time_max_us).filter(|time| *time < tomorrow).max();
    Ok(newest.map(|newest| newest.saturating_sub(i64::from(days) * 86_400_000_000)))
}

fn carried(rules: &Arc<RuleSet>, archive: &Archive, since_us: Option<i64>) -> Result<Vec<Carried>, CliError> {
    let mut matcher = Matcher::new(Arc::clone(rules));
    let always = [
        events::index::LEVEL,
        events::index::SOURCE,
        events::index::SOURCE_OFFSET,
        events::index::STAGE_TIMESTAMP,
    ];
    let columns: BTreeSet<usize> = matcher.cheap_columns().iter().copied().chain(always).collect();
    let columns = columns.into_iter().map(|at| events::COLUMNS[at].to_owned()).collect();
    let needed: Vec<Level> = (0..rules.rules().len()).map(|at| rules.needs(at).level).collect();
    let mut carried = vec![Carried::default(); needed.len()];
    let selection = EventSelection { since_us, columns, ..EventSelection::default() };
    let rows = archive.select_events(selection).map_err(|error| ingest_error(error.into()))?;
    for batch in rows {
        let batch = batch.map_err(|error| ingest_error(error.into()))?;
        let levels = batch.column_by_name(events::COLUMNS[events::index::LEVEL]);
        let levels =
            levels.and_then(|levels| levels.as_string_opt::<i32>()).context("the archive has no levels")?;
        let found = matcher.may_match_by_rule(&batch).map_err(CliError::failure)?;
        for (row, rule) in found {
            let level = levels.is_valid(row).then(|| levels.value(row));
            let level = level.and_then(|level| level.parse::<Level>().ok());
            carried[rule].seen += 1;
            carried[rule].whole += u64::from(level.is_some_and(|level| level >= needed[rule]));
        }
    }
    Ok(carried)
}

/// Width of the lists of techniques and safeguards.
const LINE_CHARS: usize = 96;
/// Number of names of dialects in a line.
const NAMES_A_LINE: usize = 7;

fn coverage(rules: &RuleSet, seen: Option<&Seen>, as_json: bool) -> std::io::Result<()> {
    let mut out = term::stdout().lock();
    let alerting: Vec<usize> = (0..rules.rules().len()).filter(|at| rules.rules()[*at].alerts).collect();
    let by = |of: fn(&RuleInfo) -> &[String]| {
        let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for at in &alerting {
            let rule = &rules.rules()[*at];
            of(rule).iter().for_each(|key| found.entry(key).or_default().push(&rule.name));
        }
        found
    };
    let (techniques, safeguards) = (by(|rule| &rule.techniques), by(|rule| &rule.hipaa));
    let state = |at: usize| -> Option<(&'static str, Carried)> {
        let carried = &seen?.carried;
        let feeders = rules.feeders(at);
        let parts = if feeders.is_empty() { vec![at] } else { feeders };
        // A correlation sees no more than the rule that sees least among the rules that feed it.
        let least = parts.into_iter().map(|at| carried[at]).min_by_key(|part| (part.whole, part.seen))?;
        let word = match least {
            Carried { seen: 0, .. } => "not seen",
            Carried { whole: 0, .. } => "BLIND",
            Carried { seen, whole } if whole < seen => "partly",
            _ => "carried",
        };
        Some((word, least))
    };
    if as_json {
        let needs: Vec<Value> = alerting
            .iter()
            .map(|at| {
                let (rule, needs) = (&rules.rules()[*at], rules.needs(*at));
                let stream = state(*at).map(|(word, carried)| {
                    json!({ "state": word.to_ascii_lowercase(), "events": carried.seen, "at_level": carried.whole })
                });
                json!({
                    "rule": rule.name, "level": needs.level.as_str(), "resources": needs.resources,
                    "verbs": needs.verbs, "stream": stream,
                    "lacking": LogKind::ALL
                        .iter()
                        .map(|log| (log.as_str(), rules.lacking(*at, *log)))
                        .filter(|(_, lacking)| !lacking.is_empty())
                        .collect::<BTreeMap<_, _>>(),
                })
            })
            .collect();
        let mut document = json!({ "techniques": techniques, "hipaa": safeguards, "rules": needs });
        if let Some(seen) = seen {
            document["in_clear"] = json!({
                "events": seen.in_clear.changed + seen.in_clear.unreadable,
                "values": seen.in_clear.dropped + seen.in_clear.tokenised,
                "parts": parts_json(&seen.redactor, &seen.in_clear),
            });
            document["hidden"] = hidden_json(rules, &seen.hidden);
        }
        return writeln!(out, "{document:#}");
    }
    if let Some(Seen { in_clear, redactor, .. }) = seen
        && in_clear.changed + in_clear.unreadable > 0
    {
        // This comes first, because it is about what should not be there at all.
        let events = term::count(in_clear.changed + in_clear.unreadable);
        writeln!(out, "IN CLEAR: {events} events have values that should not be in the archive")?;
        for (label, replaced) in &in_clear.by_label {
            let (values, label) = (term::count(replaced.values), term::printable(redactor.label(*label)));
            writeln!(out, "  {values:>12} values  {label}")?;
        }
        writeln!(
            out,
            "  set the audit level of these resources to Metadata, or redact them: docs/redaction.md\n"
        )?;
    }
    let of_level = |level: Level| alerting.iter().filter(|at| rules.needs(**at).level == level).count();
    let levels = [Level::Metadata, Level::Request, Level::RequestResponse]
        .map(|level| format!("{} {}", of_level(level), level.as_str()));
    writeln!(
        out,
        "{} that alert; they need the audit level: {}",
        term::counted(alerting.len(), "rule"),
        levels.join(", ")
    )?;
    if seen.is_some() {
        let words: Vec<&str> = alerting.iter().filter_map(|at| Some(state(*at)?.0)).collect();
        let counts = ["carried", "partly", "BLIND", "not seen"]
            .map(|word| format!("{} {word}", words.iter().filter(|found| **found == word).count()));
        writeln!(out, "in the archive: {}", counts.join(", "))?;
    }
    for log in LogKind::ALL {
        let lacking = alerting.iter().filter(|at| !rules.lacking(**at, log).is_empty()).count();
        let names =
            Dialect::ALL.into_iter().filter(|dialect| dialect.is_mapped() == (log == LogKind::Google));
        let names: Vec<&str> = names.map(Dialect::name).collect();
        let lacking = match lacking {
            0 => "every rule finds the columns that it asks for".to_owned(),
            count => format!("{} ask for columns that are not there", term::counted(count, "rule")),
        };
        writeln!(out, "logs like {}: {lacking}", log.as_str())?;
        for names in names.chunks(NAMES_A_LINE) {
            writeln!(out, "  {}", names.join(", "))?;
        }
    }
    for (title, found) in [("ATT&CK technique", &techniques), ("HIPAA safeguard", &safeguards)] {
        writeln!(out, "\n{}, each with its number of rules", term::counted(found.len(), title))?;
        let width = found.keys().map(|key| key.chars().count()).max().unwrap_or(0);
        let cells: Vec<String> = found
            .iter()
            .map(|(key, rules)| format!("{:width$} {:4}", term::printable(key), rules.len()))
            .collect();
        let across = (LINE_CHARS / (width + 8)).max(1);
        for line in cells.chunks(across) {
            writeln!(out, "  {}", line.join("   "))?;
        }
    }
    writeln!(out, "\nRules by the audit level that they need, and by log: the columns that a log lacks")?;
    let width = alerting.iter().map(|at| rules.rules()[*at].name.chars().count()).max().unwrap_or(0);
    let seen_of = |at: usize| {
        state(at).map(|(word, Carried { seen, whole })| {
            format!("{word} ({} of {})", term::count(whole), term::count(seen))
        })
    };
    let events_seen: Vec<Option<String>> = alerting.iter().map(|at| seen_of(*at)).collect();
    let seen_width =
        events_seen.iter().flatten().map(String::len).max().map_or(0, |width| width.max("events".len()));
    let row = |name: &str, level: &str, seen: &str, logs: &[String]| {
        let seen = if seen_width == 0 { String::new() } else { format!("{seen:seen_width$}  ") };
        format!("  {name:width$}  {level:15}  {seen}{}", logs.join("  ")).trim_end().to_owned()
    };
    let kinds = LogKind::ALL.map(|log| format!("{:10}", log.as_str()));
    writeln!(out, "{}", row("rule", "level", "events", &kinds))?;
    for (&at, seen) in alerting.iter().zip(&events_seen) {
        let rule = &rules.rules()[at];
        let logs = LogKind::ALL.map(|log| match rules.lacking(at, log) {
            lacking if lacking.is_empty() => format!("{:10}", "yes"),
            lacking => format!("lacks {}", lacking.join(", ")),
        });
        let level = rules.needs(at).level;
        let seen = seen.as_deref().unwrap_or_default();
        writeln!(out, "{}", row(&term::printable(&rule.name), level.as_str(), seen, &logs))?;
    }
    writeln!(
        out,
        "\n`strongroom rules list --technique T1609` or `--hipaa '164.312(b)'` lists the rules of a technique or safeguard."
    )?;
    let hidden = seen.map(|seen| hidden_json(rules, &seen.hidden)).unwrap_or_default();
    let hidden = hidden.as_object().into_iter().flatten();
    for (at, (name, fields)) in hidden.enumerate() {
        if at == 0 {
            writeln!(out, "\nFields that were redacted, so that a hunt may not find what the stream found")?;
        }
        let fields: Vec<&String> = fields.as_object().into_iter().flatten().map(|(field, _)| field).collect();
        let fields = fields.into_iter().map(|field| term::printable(field)).collect::<Vec<_>>().join(", ");
        writeln!(out, "  {:40} {fields}", term::printable(name))?;
    }
    Ok(())
}
