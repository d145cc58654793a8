//! `strongroom evidence`: the records of a period, with everything that lets a stranger check them.
//!
//! Invariant: a pack gets its name only when it is complete, synced, and has been checked as a
//! stranger would check it. A run that dies leaves a folder whose name says that it is not a pack.

mod ask;
mod check;
mod gaps;
mod report;

use std::collections::{BTreeMap, HashSet};
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_alerts::own;
use strongroom_archive::{Archive, LogError};
use strongroom_evidence::{
    Asked, Chosen, EvidenceError, Ledger, MANIFEST, MANIFEST_NOTE, Manifest, PackFile, Query, Question,
    Selected, Selection, Span, attest, check_pack, sign_manifest, write_pack_records,
};
use strongroom_ingest::export::EventRecords;
use strongroom_proof::verify::{Options, Report as Verified, Witnesses, verify};
use strongroom_schemas::Table;
use strongroom_schemas::record::Sha256Hash;
use strongroom_tlog::PublicKey;

use self::ask::{Asker, time_text};
use self::gaps::{CANNOT_KNOW, Gap, Pauses};
use self::report::{LINES_SHOWN, RECORDS_SHOWN, Top};
use crate::exit::{self, CliError, evidence_error, proof_error};
use crate::findings::json_text;
use crate::key::{KeyArgs, open, public_key};
use crate::{hunt, term, verify as verify_command};

/// How late a commit may be after its newest event without being reported.
const LAG_MAX_US: i64 = 3_600_000_000;
/// Maximum number of gaps that are listed; further ones are only counted.
const GAPS_MAX: usize = 5000;
/// Maximum number of alerts in one pack: their ids are held in memory.
const ALERTS_MAX: u64 = 2_000_000;
/// Resource and subresource in the usual notation.
const RESOURCE: &str = "CASE WHEN subresource IS NULL THEN resource ELSE resource || '/' || subresource END";
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

Exit codes: 0 done, no finding; 1 findings (the pack is written all the same) or bad input; 2 it could not be done.")]
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
    /// Include every record of every file that may hold one of the period, and all commits: more
    /// than was asked for, but then the pack alone shows that no record is missing
    #[arg(long, conflicts_with_all = ["namespace", "user", "condition"])]
    complete: bool,
    /// The folder to make; it must not exist, or be empty
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

/// Reports the current step.
struct Steps {
    quiet: bool,
}

impl Steps {
    fn say(&self, what: &str) {
        if !self.quiet {
            // An error about this line would help no one.
            let _ = writeln!(anstream::stderr(), "{what}");
        }
    }

    fn bar(&self) -> verify_command::Bar {
        verify_command::Bar(verify_command::bar(self.quiet))
    }
}

fn question(args: &Args) -> Result<(Question, Span), CliError> {
    let (from_us, to_us) = (args.from.unwrap_or_default(), args.to.unwrap_or_default());
    if from_us >= to_us {
        return Err(CliError::input(anyhow::anyhow!("the period ends before it starts"))
            .with_hint("--to is exclusive: one day is --from 2026-03-01 --to 2026-03-02"));
    }
    let time =
        |us| time_text(us).ok_or_else(|| CliError::input(anyhow::anyhow!("a time is outside the calendar")));
    let question = Question {
        from: time(from_us)?,
        to: time(to_us)?,
        namespaces: args.namespace.clone(),
        users: args.user.clone(),
        condition: args.condition.clone(),
        complete: args.complete,
    };
    Ok((question, Span { from_us, to_us }))
}

/// The folder that a pack is written in before it gets its name.
fn partial_folder(out: &Path) -> Result<tempfile::TempDir, CliError> {
    let refuse = |what: &str| {
        Err(CliError::input(anyhow::anyhow!("{} {what}", out.display()))
            .with_hint("name a folder that does not exist"))
    };
    match std::fs::read_dir(out) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return refuse("is not empty");
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(_) => return refuse("is not a usable folder"),
    }
    let Some(name) = out.file_name() else { return refuse("is not a folder name") };
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let prefix = format!(".{}.partial-", name.to_string_lossy());
    tempfile::Builder::new()
        .prefix(&prefix)
        // Audit events name people and hold what they sent.
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(folder)
        .with_context(|| format!("cannot make a folder in {}", folder.display()))
        .map_err(CliError::input)
}

/// Writes a file of the pack.
fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<PackFile, CliError> {
    let path = folder.join(name);
    let written = std::fs::File::create_new(&path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write {}", path.display()))?;
    let sha256 = Sha256Hash::of(bytes).to_string();
    Ok(PackFile { name: name.to_owned(), bytes: bytes.len() as u64, sha256 })
}

fn make(args: &Args) -> Result<u8, CliError> {
    let (question, span) = question(args)?;
    let out = args.out.clone().unwrap_or_default();
    let steps = Steps { quiet: args.quiet };
    let partial = partial_folder(&out)?;
    let folder = partial.path();
    let signer = args.key.signer()?;
    let archive = open(args.archive.as_deref().unwrap_or_default())?;

    steps.say("reading the signed commits");
    let ledger = Ledger::load(&archive, span, None, LAG_MAX_US).map_err(evidence_error)?;
    if let Some(signer) = &signer {
        // Reported before the work, not after it.
        match ledger.keys().current() {
            Some(current) if current != signer.public() => {
                return Err(proof_error(LogError::KeyNotCurrent { current }));
            }
            _ => {}
        }
    }
    steps.say("asking which records the question chooses");
    let asker = Asker::over(&archive)?;
    let (mut chosen, events_query) = ask_events(&asker, &question, folder)?;
    let (ids, alerts_query) = ask_alerts(&asker, &question)?;

    steps.say(&format!(
        "proving {} events and {} alerts",
        term::count(events_query.rows),
        term::count(alerts_query.rows)
    ));
    let bar = steps.bar();
    let (events, alerts) = if question.complete {
        (Selection::Whole, Selection::Whole)
    } else {
        (Selection::Events(&mut chosen), Selection::Alerts(&ids))
    };
    let selected = write_pack_records((&archive, &ledger), events, alerts, &EventRecords, folder, &bar);
    let mut selected = selected.map_err(evidence_error)?;
    bar.0.finish_and_clear();
    if !question.complete && selected.alerts != alerts_query.rows {
        let detail = format!(
            "{} of {} alerts are in no commit that is signed yet",
            alerts_query.rows.saturating_sub(selected.alerts),
            alerts_query.rows
        );
        return Err(evidence_error(EvidenceError::NotProvable { detail }));
    }

    steps.say("verifying the archive, with the files of the period");
    let verified = verify_period(&archive, span, &args.public_key, &steps)?;
    steps.say("asking the store");
    let store = attest(&archive, &ledger).map_err(evidence_error)?;
    steps.say("looking for gaps");
    let mut found = look_for_gaps(&asker, &question, &ledger, &verified)?;
    found.gaps.truncate(GAPS_MAX);

    steps.say("writing the report");
    let counts = counts(&asker, &question, &ledger, &selected, (&events_query, &alerts_query), &found)?;
    let (strongroom_json, keys) = ledger.identity();
    let mut manifest = Manifest {
        format: Manifest::FORMAT.to_owned(),
        archive_id: archive.id().to_owned(),
        location: archive.root().display().to_string(),
        made: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        program: format!("strongroom {}", env!("CARGO_PKG_VERSION")),
        question,
        events_query,
        alerts_query,
        counts,
        strongroom_json,
        keys,
        heads: ledger.head_entries(),
        signed_by: signer.as_ref().map(|signer| signer.public().to_string()),
        files: Vec::new(),
    };
    let mut files = std::mem::take(&mut selected.files);
    let named = json!({ "format": "strongroom-evidence-files-1", "files": named_files(&selected)? });
    files.push(put(folder, "archive-files.json", json_text(&named).as_bytes())?);
    files.push(put(folder, "gaps.json", json_text(&found.to_json()).as_bytes())?);
    files.push(put(folder, "store.json", json_text(&store).as_bytes())?);
    let verification = verified.to_json();
    files.push(put(folder, "verification.json", json_text(&verification).as_bytes())?);
    let html = readable(&asker, &manifest, &found, &verification, &store)?;
    files.push(put(folder, "report.html", html.as_bytes())?);
    let verifier = Sha256Hash(Sha256::digest(VERIFIER).into()).to_string();
    files.push(put(folder, "VERIFY.md", report::verify_md(&manifest, &verifier).as_bytes())?);
    files.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.files = files;
    let bytes = manifest.to_bytes();
    if let Some(signer) = &signer {
        let note = sign_manifest(signer, ledger.keys(), archive.id(), &bytes);
        put(folder, MANIFEST_NOTE, note.map_err(proof_error)?.as_bytes())?;
    }
    put(folder, MANIFEST, &bytes)?;

    steps.say("checking the pack as a stranger would");
    let bar = steps.bar();
    let checked = check_pack(folder, &[], &Witnesses::default(), &bar)
        .with_context(|| format!("cannot read {}", folder.display()))?;
    bar.0.finish_and_clear();
    if let Some(finding) = checked.findings.first() {
        return Err(CliError::failure(anyhow::anyhow!(
            "the pack failed its own check and is not kept: {}: {}: {}",
            finding.kind,
            term::printable(&finding.place),
            term::printable(&finding.detail)
        )));
    }
    publish(partial, &out)?;
    let findings = verified.findings.len();
    steps.say(&format!(
        "{}: {} events, {} alerts, proof files: {}{}",
        out.display(),
        term::count(manifest.counts.events),
        term::count(manifest.counts.alerts),
        term::count(manifest.counts.proofs),
        if signer.is_some() { ", signed" } else { "; not signed, because no key was given" }
    ));
    if findings > 0 {
        let first = &verified.findings[0];
        let place = term::printable(&first.place);
        steps.say(&format!(
            "verify has {findings} findings on the archive, the first: {} {place}; all are in the report",
            first.kind
        ));
        return Ok(exit::FINDING);
    }
    Ok(exit::OK)
}

/// Gives the folder its name, when all of it is on disk.
fn publish(partial: tempfile::TempDir, out: &Path) -> Result<(), CliError> {
    let sync = |path: &Path| std::fs::File::open(path).and_then(|folder| folder.sync_all());
    for folder in ["proofs", "commits", "."] {
        let path = partial.path().join(folder);
        if path.is_dir() {
            sync(&path).with_context(|| format!("cannot sync {}", path.display()))?;
        }
    }
    // An empty folder of that name is replaced; anything else is not.
    std::fs::rename(partial.path(), out).with_context(|| format!("cannot write {}", out.display()))?;
    // Its old name is gone, so nothing is left to remove.
    let _ = partial.keep();
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync(parent).with_context(|| format!("cannot sync {}", parent.display()))?;
    Ok(())
}

fn ask_events(asker: &Asker, question: &Question, folder: &Path) -> Result<(Chosen, Query), CliError> {
    let mut chosen = Chosen::in_folder(folder).context("cannot make a file for the chosen rows")?;
    let query = asker.rows(&ask::events_sql(question), &mut |row| {
        let (Some(source), Some(offset)) = (row["source"].as_str(), row["source_offset"].as_i64()) else {
            anyhow::bail!("an event has no source or no offset, so it cannot be proven");
        };
        chosen.push(source, offset).context("cannot keep the chosen rows")
    })?;
    chosen.finish().context("cannot keep the chosen rows")?;
    Ok((chosen, query))
}

fn ask_alerts(asker: &Asker, question: &Question) -> Result<(HashSet<String>, Query), CliError> {
    let mut ids = HashSet::new();
    let query = asker.rows(&ask::alerts_sql(question), &mut |row| {
        if ids.len() as u64 >= ALERTS_MAX {
            anyhow::bail!("the period has more than {ALERTS_MAX} alerts; ask for a shorter one");
        }
        ids.extend(row["alert_id"].as_str().map(str::to_owned));
        Ok(())
    })?;
    Ok((ids, query))
}

fn verify_period(
    archive: &Archive,
    span: Span,
    public_keys: &[PublicKey],
    steps: &Steps,
) -> Result<Verified, CliError> {
    let day = |us: i64| DateTime::from_timestamp_micros(us).map(|time| time.date_naive());
    let options = Options {
        from: day(span.from_us),
        to: day(span.to_us - 1).or(Some(NaiveDate::MAX)),
        public_keys: public_keys.to_vec(),
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        ..Options::default()
    };
    let bar = steps.bar();
    let report = verify(archive, &options, &EventRecords, &bar).map_err(proof_error)?;
    bar.0.finish_and_clear();
    Ok(report)
}

fn named_files(selected: &Selected) -> Result<Value, CliError> {
    Ok(serde_json::to_value(&selected.named).context("cannot write the list of files")?)
}

/// What was found to be missing, late or unread.
#[derive(Default)]
struct Found {
    gaps: Vec<Gap>,
    in_all: BTreeMap<&'static str, u64>,
    limits: Vec<Value>,
    rejects_at_positions: u64,
    rejects_received: u64,
    /// By reason: rejects between the positions, or received in the period.
    rejects: BTreeMap<String, u64>,
    events_without_time: u64,
}

impl Found {
    fn add(&mut self, gaps: Vec<Gap>, kind: &'static str, in_all: u64) {
        self.gaps.extend(gaps);
        if in_all > 0 {
            *self.in_all.entry(kind).or_insert(0) += in_all;
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "format": "strongroom-gaps-1",
            "entries": self.gaps.iter().map(Gap::to_json).collect::<Vec<_>>(),
            "in_all": self.in_all,
            "limits": self.limits,
            "rejects": self.rejects,
            "cannot_know": CANNOT_KNOW,
        })
    }
}

/// Minutes with an event, of each cluster or of each source, in order.
fn silences(
    asker: &Asker,
    sql: &str,
    kind: &'static str,
    edges: Option<(i64, i64)>,
    found: &mut Found,
) -> Result<(), CliError> {
    let mut current: Option<(String, Pauses)> = None;
    let mut end = |current: Option<(String, Pauses)>| {
        let Some((name, pauses)) = current else { return };
        let (gaps, all) = pauses.silences(kind, &name, edges);
        let limit = pauses.limit();
        if found.limits.len() < GAPS_MAX {
            found.limits.push(json!({ "kind": kind, "source": name, "minutes_with_events": pauses.minutes(), "silence_beyond_minutes": limit }));
        }
        found.add(gaps, kind, all);
    };
    asker.rows(sql, &mut |row| {
        let name = row["name"].as_str().unwrap_or_default();
        let minute = row["minute"].as_str().and_then(|time| DateTime::parse_from_rfc3339(time).ok());
        let minute = minute.context("a minute in an answer is not a time")?.timestamp_micros();
        if current.as_ref().is_none_or(|(known, _)| known != name) {
            end(current.replace((name.to_owned(), Pauses::default())));
        }
        if let Some((_, pauses)) = &mut current {
            pauses.minute(minute);
        }
        Ok(())
    })?;
    end(current);
    Ok(())
}

fn look_for_gaps(
    asker: &Asker,
    question: &Question,
    ledger: &Ledger,
    verified: &Verified,
) -> Result<Found, CliError> {
    let mut found = Found::default();
    let period = ask::whole_period(question);
    let now = Utc::now().timestamp_micros();
    let edges = Some((ledger.span.from_us, ledger.span.to_us.min(now)));
    let minutes = |name: &str| {
        format!(
            "SELECT {name} AS name, date_trunc('minute', stage_timestamp) AS minute FROM events WHERE {period} GROUP BY 1, 2 ORDER BY 1, 2"
        )
    };
    // A file that was rotated away ends, so only a cluster as a whole is silent at the ends of a
    // period.
    silences(asker, &minutes("cluster"), "cluster_silent", edges, &mut found)?;
    silences(asker, &minutes("source"), "source_silent", None, &mut found)?;
    let jumps = ledger.jumps.iter().map(|jump| Gap {
        kind: "broker_numbers_missing",
        from: jump.from_us.and_then(time_text),
        to: jump.to_us.and_then(time_text),
        source: jump.source.clone(),
        count: u64::try_from(jump.messages - jump.records).unwrap_or(0),
        why: format!(
            "{}: the broker advanced by {} messages and {} records arrived: compaction or a transaction took the other numbers, or the messages \
             were gone before they were read",
            jump.commit, jump.messages, jump.records
        ),
    });
    found.add(jumps.collect(), "broker_numbers_missing", ledger.jumps_in_all);
    let lags = ledger.lags.iter().map(|lag| Gap {
        kind: "sealed_late",
        from: time_text(lag.from_us),
        to: time_text(lag.sealed_us),
        source: lag.sources.join(", "),
        count: u64::try_from((lag.sealed_us - lag.from_us) / gaps::MINUTE_US).unwrap_or(0),
        why: format!(
            "{}: sealed this many minutes after its newest event; until then the archive did not protect these events",
            lag.commit
        ),
    });
    found.add(lags.collect(), "sealed_late", ledger.lags_in_all);
    for (log, commits) in &ledger.unsigned {
        let why =
            format!("{commits} commits of {log} have no checkpoint yet: their records are not in this pack");
        let gap =
            Gap { kind: "unsigned_commits", from: None, to: None, source: log.clone(), count: *commits, why };
        found.add(vec![gap], "unsigned_commits", 1);
    }
    rejects(asker, ledger, &mut found)?;
    let days = ask::days(ledger.span);
    let sql = format!("SELECT count(*) AS n FROM events WHERE stage_timestamp IS NULL AND {days}");
    found.events_without_time = asker.number(&sql)?;
    if found.events_without_time > 0 {
        let gap = Gap {
            kind: "events_without_time",
            from: Some(question.from.clone()),
            to: Some(question.to.clone()),
            source: "all".to_owned(),
            count: found.events_without_time,
            why: "events without a time are stored under the day they arrived, and a question about a time cannot find them".to_owned(),
        };
        found.add(vec![gap], "events_without_time", 1);
    }
    let own = [own::SOURCE_SILENT, own::CONSERVATION_FAILED].map(|id| format!("'{id}'")).join(", ");
    let sql = format!(
        "SELECT time, group_key, title, message FROM alerts WHERE rule_id IN ({own}) AND {} ORDER BY time, alert_id LIMIT {GAPS_MAX}",
        ask::alerts_period(question)
    );
    let reported = asker.all(&sql)?.into_iter().map(|row| Gap {
        kind: "own_alert",
        from: row["time"].as_str().map(str::to_owned),
        to: None,
        source: row["group_key"].as_str().unwrap_or_default().to_owned(),
        count: 1,
        why: format!(
            "{}: {}",
            row["title"].as_str().unwrap_or_default(),
            row["message"].as_str().unwrap_or_default()
        ),
    });
    let reported: Vec<Gap> = reported.collect();
    let all = reported.len() as u64;
    found.add(reported, "own_alert", all);
    let findings = verified.findings.iter().map(|finding| Gap {
        kind: "verify_finding",
        from: None,
        to: None,
        source: finding.place.clone(),
        count: 1,
        why: format!("{}: {}", finding.kind, finding.detail),
    });
    found.add(findings.collect(), "verify_finding", verified.findings.len() as u64);
    Ok(found)
}

/// Rejects of the period: by when they arrived, and by where they stood among the events.
fn rejects(asker: &Asker, ledger: &Ledger, found: &mut Found) -> Result<(), CliError> {
    struct Seen {
        rows: u64,
        first: Option<i64>,
        last: Option<i64>,
    }
    let mut seen: BTreeMap<(String, String), Seen> = BTreeMap::new();
    asker.rows("SELECT source, source_offset, reason, received_timestamp FROM rejects", &mut |row| {
        let source = row["source"].as_str().unwrap_or_default();
        let offset = row["source_offset"].as_i64();
        let received =
            row["received_timestamp"].as_str().and_then(|time| DateTime::parse_from_rfc3339(time).ok());
        let received = received.map(|time| time.timestamp_micros());
        let is_between = ledger
            .positions
            .get(source)
            .zip(offset)
            .is_some_and(|((first, last), offset)| (*first..=*last).contains(&offset));
        let came = received.is_some_and(|time| ledger.span.holds(time));
        found.rejects_at_positions += u64::from(is_between);
        found.rejects_received += u64::from(came);
        if is_between || came {
            let reason = row["reason"].as_str().unwrap_or_default();
            *found.rejects.entry(reason.to_owned()).or_insert(0) += 1;
            let key = (source.to_owned(), reason.to_owned());
            if seen.len() < GAPS_MAX || seen.contains_key(&key) {
                let seen = seen.entry(key).or_insert(Seen { rows: 0, first: received, last: received });
                seen.rows += 1;
                seen.first = seen.first.min(received);
                seen.last = seen.last.max(received);
            }
        }
        Ok(())
    })?;
    let all: u64 = seen.len() as u64;
    let gaps = seen.into_iter().map(|((source, reason), seen)| Gap {
        kind: "rejects",
        from: seen.first.and_then(time_text),
        to: seen.last.and_then(time_text),
        source,
        count: seen.rows,
        why: format!("{reason}: lines that arrived at these times, or stood between events of the period, and could not be read; they may be events"),
    });
    found.add(gaps.collect(), "rejects", all);
    Ok(())
}

fn counts(
    asker: &Asker,
    question: &Question,
    ledger: &Ledger,
    selected: &Selected,
    (events_query, alerts_query): (&Query, &Query),
    found: &Found,
) -> Result<Asked, CliError> {
    let sql = format!("SELECT count(*) AS n FROM events WHERE {}", ask::events_condition(question));
    let now = asker.number(&sql)?;
    if now != events_query.rows {
        let error = anyhow::anyhow!(
            "the question chose {} events, and now chooses {now}: the archive is still receiving events of the period",
            events_query.rows
        );
        return Err(CliError::failure(error).with_hint("let the period end earlier, or try again"));
    }
    Ok(Asked {
        events_in_question: events_query.rows,
        alerts_in_question: alerts_query.rows,
        events: selected.events,
        alerts: selected.alerts,
        files: selected.named.len() as u64,
        rows_examined: ledger.rows(Table::Events),
        commits: ledger.commits,
        received: ledger.counts,
        rejects_at_positions: found.rejects_at_positions,
        rejects_received: found.rejects_received,
        events_without_time: found.events_without_time,
        proofs: selected.proofs,
    })
}

fn readable(
    asker: &Asker,
    manifest: &Manifest,
    found: &Found,
    verification: &Value,
    store: &Value,
) -> Result<String, CliError> {
    let condition = ask::events_condition(&manifest.question);
    let mut tops = Vec::new();
    for (title, column, expression) in [
        ("Actors", "Actor", "actor"),
        ("Verbs", "Verb", "verb"),
        ("Resources", "Resource", RESOURCE),
        ("Namespaces", "Namespace", "namespace"),
        ("Addresses (the last of sourceIPs)", "Address", "source_ip"),
        ("Answers", "Code", "cast(response_code AS VARCHAR)"),
        ("Decisions", "Decision", "authz_decision"),
    ] {
        let sql = format!(
            "SELECT {expression} AS value, count(*) AS n, min(stage_timestamp) AS first, max(stage_timestamp) AS last FROM events \
             WHERE {condition} GROUP BY 1 ORDER BY n DESC, value LIMIT {LINES_SHOWN}"
        );
        tops.push(Top { title, column, rows: asker.all(&sql)? });
    }
    let records = asker.all(&format!(
        "SELECT stage_timestamp, actor, user_name, verb, {RESOURCE} AS resource, namespace, name, response_code, \
         source_ip, cluster, audit_id FROM events WHERE {condition} ORDER BY stage_timestamp, source, source_offset LIMIT {RECORDS_SHOWN}"
    ))?;
    let alerts = asker.all(&format!(
        "SELECT time, severity, title, actor, namespace, message FROM alerts WHERE {} ORDER BY time, alert_id LIMIT {RECORDS_SHOWN}",
        ask::alerts_condition(&manifest.question)
    ))?;
    let gaps_in_all: u64 = found.in_all.values().sum();
    Ok(report::html(&report::Report {
        manifest,
        tops,
        records,
        alerts,
        gaps: &found.gaps,
        gaps_in_all,
        rejects: found.rejects.iter().map(|(reason, n)| (reason.clone(), *n)).collect(),
        verification,
        store,
    }))
}
