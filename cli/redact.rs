//! `strongroom redact`: counts what a redaction policy would replace, makes the keys of policies,
//! and decrypts rejects.
//!
//! Invariant: a key is written only to the requested file, and never printed. Only `redact decrypt`
//! prints values, and only after the use of the key was recorded.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use serde_json::json;
use strongroom_alerts::{Hidden, RuleSet};
use strongroom_archive::Archive;
use strongroom_ingest::disclose::{self, Asked, Disclosure, REASON_BYTES_MAX};
use strongroom_ingest::preview::{self, Preview};
use strongroom_ingest::replay::Span;
use strongroom_ingest::source;
use strongroom_lines::{EventPath, Reading, Writer, Writers};
use strongroom_redact::{CONTEXT_REJECT, Key, KeyError, KeySource, Keys, Redactor};
use strongroom_schemas::error_chain;

use crate::config::cluster_name;
use crate::config::redact::{guard_memory, read_policy, redactor};
use crate::exit::{self, CliError, archive_error, ingest_error};
use crate::hunt::{self, time};
use crate::key::{KeyArgs, open};
use crate::{ingest, term};

/// Show what a redaction policy would replace; make keys; decrypt rejects.
///
/// Redaction itself is done by `ingest` and `run`, before anything is written. docs/redaction.md
/// describes policies.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_long_help = "\
Examples:
  strongroom redact --dry-run --redact policy.toml --cluster prod /var/log/kubernetes/audit/
  strongroom redact --dry-run --redact policy.toml --archive ./archive --from 2026-03-01
  strongroom redact key new redact.key

Exit codes of --dry-run: 0 done; 1 the archive contains values that the policy would have replaced; 2 a
log could not be read to its end.")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    preview: PreviewArgs,
}

#[derive(clap::Args)]
struct PreviewArgs {
    /// Replace nothing: count what would be replaced, by part of the policy; no values are shown
    #[arg(long, required = true)]
    dry_run: bool,
    /// The policy: a TOML file with a table `[redact]`, such as the configuration of `run`
    #[arg(long, value_name = "FILE", required = true)]
    redact: Option<PathBuf>,
    /// Name of the cluster that the logs come from
    #[arg(long, value_name = "NAME", value_parser = cluster_name, required_unless_present = "archive")]
    cluster: Option<String>,
    /// Read an archive instead of logs, and count what the policy would have replaced in it
    #[arg(long, value_name = "LOCATION", conflicts_with_all = ["cluster", "logs", "unwrap", "writers"])]
    archive: Option<String>,
    /// Start of the period in the archive [default: the first event]
    #[arg(long, value_name = "TIME", value_parser = time, requires = "archive")]
    from: Option<i64>,
    /// End of the period, exclusive [default: the last event]
    #[arg(long, value_name = "TIME", value_parser = time, requires = "archive")]
    to: Option<i64>,
    /// Where the event is in objects in which no wrapper is recognised
    #[arg(long, value_name = "PATH", value_parser = EventPath::parse)]
    unwrap: Option<EventPath>,
    /// Believe a writer of audit events that strongroom does not know, as `ingest --writer` does
    /// (repeatable)
    #[arg(long = "writer", value_name = "WRITER", value_parser = Writer::parse)]
    writers: Vec<Writer>,
    /// Also say what these rules would not see in a hunt: a Sigma YAML file or a folder of them
    /// (repeatable)
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Leave out the built-in rules
    #[arg(long)]
    no_builtin_rules: bool,
    /// Write one JSON document
    #[arg(long)]
    json: bool,
    /// Log files, folders, quoted patterns, or - for standard input
    #[arg(value_name = "LOG", required_unless_present = "archive")]
    logs: Vec<String>,
}

#[derive(clap::Subcommand)]
#[expect(clippy::large_enum_variant, reason = "a command line is parsed once")]
enum Command {
    /// Make a key for a policy, or show the id of a key
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Write the clear bytes of encrypted rejects; the use is recorded in the archive first
    Decrypt(DecryptArgs),
}

#[derive(clap::Subcommand)]
enum KeyCommand {
    /// Make a key, write it to FILE (readable by its owner only) and print its id
    New {
        /// Where to write it; an existing file is never replaced
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the id of a key, which is also in each of its tokens
    Id {
        /// The key: file:PATH, env:NAME or command:PROGRAM ARGUMENTS
        #[arg(value_name = "KEY", value_parser = key_source)]
        key: KeySource,
    },
}

#[derive(clap::Args)]
#[command(after_long_help = "\
Example:
  strongroom redact decrypt --redact policy.toml --archive ./archive --principal eve@example.com \\
      --reason \"case 4711\" -o rejects.bin

Each record is followed by a newline. Exit code 1: some rejects need a key that was not given, or are
damaged.")]
struct DecryptArgs {
    #[command(flatten)]
    keys: DisclosureArgs,
    /// Only rejects of this source partition (repeatable)
    #[arg(long, value_name = "SOURCE")]
    source: Vec<String>,
    /// Write to FILE instead of standard output; a new file is readable by its owner only
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The keys of a disclosure, and what is recorded of it.
#[derive(clap::Args)]
pub struct DisclosureArgs {
    /// The policy whose keys are used, with its `old_keys`: a TOML file with a table `[redact]`
    #[arg(long, value_name = "FILE", required_unless_present = "redact_key")]
    redact: Option<PathBuf>,
    /// A key: file:PATH, env:NAME or command:PROGRAM ARGUMENTS (repeatable)
    #[arg(long, value_name = "KEY", value_parser = key_source, conflicts_with = "redact")]
    redact_key: Vec<KeySource>,
    /// The archive that is asked about, and in which the use is recorded
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    archive: String,
    /// Record the use in this archive instead: while another process, such as `run`, writes to an
    /// archive on a disk, nothing else can
    #[arg(long, value_name = "LOCATION")]
    record: Option<String>,
    /// Who asks; it is recorded [default: the name of the user]
    #[arg(long, value_name = "NAME", env = "USER")]
    principal: String,
    /// Why, in one line; it is recorded
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    signer: KeyArgs,
}

pub fn key_source(text: &str) -> Result<KeySource, String> {
    KeySource::parse(text).map_err(|error| error.to_string())
}

impl DisclosureArgs {
    /// Loads the keys. It is an error if a key cannot be loaded.
    pub fn keys(&self) -> Result<Keys, CliError> {
        guard_memory();
        let keys = match &self.redact {
            Some(file) => Keys::load(&read_policy(file)?),
            None => keys_of(&self.redact_key),
        };
        keys.map_err(|errors| key_errors(&errors))
    }

    /// Opens the archive that is asked about.
    pub fn archive(&self) -> Result<Archive, CliError> {
        open(&self.archive)
    }

    /// Records a use of the keys, in the archive of `--record` or else in the archive that is asked
    /// about. If this fails, the command gives no answer.
    pub fn record(&self, archive: &Archive, disclosure: Disclosure<'_>) -> Result<(), CliError> {
        let reason = self.reason.trim();
        if reason.is_empty() || reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
            let error = anyhow::anyhow!("the reason is one line of 1 to {REASON_BYTES_MAX} bytes");
            return Err(CliError::input(error));
        }
        let to = match &self.record {
            Some(location) => open(location)?,
            None => archive.clone(),
        };
        let about = (to.id() != archive.id()).then(|| archive.id());
        let to = match self.signer.signer()? {
            Some(signer) => to.signed_by(signer),
            None => to,
        };
        let asked = Asked { principal: &self.principal, reason, about };
        if disclose::record(&to, asked, disclosure).map_err(ingest_error)? {
            return Ok(());
        }
        let error = anyhow::anyhow!(
            "another process writes to {}, so the use cannot be recorded, and there is no answer",
            to.root().display()
        );
        Err(CliError::failure(error).with_hint(
            "record the use in an archive of its own, which `strongroom archive init FOLDER` makes once: \
             add --record FOLDER",
        ))
    }
}

fn keys_of(sources: &[KeySource]) -> Result<Keys, Vec<KeyError>> {
    let (mut keys, mut errors) = (Vec::new(), Vec::new());
    for source in sources {
        match source.load() {
            Ok(key) => keys.push(key),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut keys = keys.into_iter();
    let first = keys.next().ok_or_else(Vec::new)?;
    Keys::new(first, keys.collect()).map_err(|error| vec![error])
}

fn key_errors(errors: &[KeyError]) -> CliError {
    let texts: Vec<String> = errors.iter().map(|error| error_chain(error)).collect();
    CliError::input(anyhow::anyhow!("cannot load the keys: {}", texts.join("; ")))
}

pub fn run(args: Args) -> Result<u8, CliError> {
    match args.command {
        None => dry_run(args.preview),
        Some(Command::Key { command: KeyCommand::New { file } }) => {
            let key = Key::generate().context("cannot make a key")?;
            write_key(&file, &key).with_context(|| format!("cannot write {}", file.display()))?;
            writeln!(term::stdout(), "{}", key.id()).context("cannot write to standard output")?;
            Ok(exit::OK)
        }
        Some(Command::Key { command: KeyCommand::Id { key } }) => {
            let key = key.load().map_err(|error| key_errors(&[error]))?;
            writeln!(term::stdout(), "{}", key.id()).context("cannot write to standard output")?;
            Ok(exit::OK)
        }
        Some(Command::Decrypt(args)) => decrypt(&args),
    }
}

fn write_key(path: &Path, key: &Key) -> std::io::Result<()> {
    let mut file = private_file(path)?;
    file.write_all(key.to_text().expose().as_bytes())?;
    file.sync_all()
}

/// Makes a new file that only its owner can read.
fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn decrypt(args: &DecryptArgs) -> Result<u8, CliError> {
    let (keys, archive) = (args.keys.keys()?, args.keys.archive()?);
    let rejects = || disclose::encrypted_rejects(&archive, &args.source).map_err(ingest_error);
    let (mut readable, mut unreadable) = (0_u64, std::collections::BTreeMap::new());
    for reject in rejects()? {
        let reject = reject.map_err(ingest_error)?;
        match keys.find(reject.key) {
            Some(_) => readable += 1,
            None => *unreadable.entry(reject.key.to_string()).or_insert(0_u64) += 1,
        }
    }
    let mut damaged = 0_u64;
    if readable > 0 {
        args.keys.record(&archive, Disclosure::Decrypt { rejects: readable, sources: &args.source })?;
        let cannot = || match &args.output {
            Some(path) => format!("cannot write {}", path.display()),
            None => "cannot write to standard output".to_owned(),
        };
        let out: Box<dyn std::io::Write> = match &args.output {
            Some(path) => Box::new(private_file(path).with_context(cannot)?),
            None => Box::new(term::data()),
        };
        let mut out = BufWriter::new(out);
        for reject in rejects()? {
            let reject = reject.map_err(ingest_error)?;
            if keys.find(reject.key).is_none() {
                continue;
            }
            let Ok(clear) = keys.decrypt(&reject.bytes, CONTEXT_REJECT) else {
                damaged += 1;
                continue;
            };
            out.write_all(&clear).and_then(|()| out.write_all(b"\n")).with_context(cannot)?;
        }
        out.flush().with_context(cannot)?;
    }
    let mut err = term::stderr().lock();
    let tell = |err: &mut dyn std::io::Write, text: String| {
        writeln!(err, "{text}").context("cannot write to standard error")
    };
    tell(&mut err, format!("decrypted {} rejects", term::count(readable - damaged)))?;
    if damaged > 0 {
        tell(&mut err, format!("{} rejects were changed since they were encrypted", term::count(damaged)))?;
    }
    for (key, count) in &unreadable {
        tell(&mut err, format!("{} rejects need the key {key}, which was not given", term::count(*count)))?;
    }
    Ok(if damaged > 0 || !unreadable.is_empty() { exit::FINDING } else { exit::OK })
}

fn dry_run(args: PreviewArgs) -> Result<u8, CliError> {
    let Some(file) = &args.redact else {
        return Err(CliError::input(anyhow::anyhow!("no policy was given")));
    };
    let redactor = redactor(read_policy(file)?)?;
    let rules = Arc::new(ingest::load_rules(args.no_builtin_rules, &args.rules)?);
    let stop = Arc::new(AtomicBool::new(false));
    ingest::stop_on_interrupt(&stop)?;
    let mut failed = 0_u64;
    let preview = match &args.archive {
        Some(location) => {
            let archive = Archive::open(location).map_err(archive_error)?;
            let span = Span { from_us: args.from, until_us: args.to };
            preview::of_archive(&redactor, &rules, &archive, span, &stop).map_err(ingest_error)?
        }
        None => {
            let inputs = source::expand(&args.logs, &[]).map_err(ingest_error)?.inputs;
            let cluster = args.cluster.as_deref().unwrap_or_default();
            let writers = Writers::new(args.writers);
            let reading = Arc::new(Reading { unwrap: args.unwrap, writers });
            let mut tell = |error: &strongroom_ingest::FileError| {
                failed += 1;
                let text = error_chain(error);
                let _ = writeln!(term::stderr(), "error: {}", term::printable(&text));
            };
            preview::of_logs(&redactor, &rules, (cluster, &inputs), &reading, &stop, &mut tell)
                .map_err(ingest_error)?
        }
    };
    if args.json {
        print_json(&redactor, &preview, &rules).context("cannot write to standard output")?;
    } else {
        print(&redactor, &preview, args.archive.is_some()).context("cannot write to standard output")?;
        hunt::tell_hidden(&rules, &preview.hidden);
    }
    Ok(match () {
        () if preview.interrupted => exit::INTERRUPTED,
        () if failed > 0 => exit::FAILURE,
        () if args.archive.is_some() && preview.changed + preview.unreadable > 0 => exit::FINDING,
        () => exit::OK,
    })
}

fn print(redactor: &Redactor, preview: &Preview, is_archive: bool) -> std::io::Result<()> {
    let mut out = term::stdout().lock();
    let count = |count: u64| term::count(count);
    writeln!(out, "policy {:016x}, key {}", redactor.id(), redactor.keys().current().id())?;
    writeln!(
        out,
        "{} events, of which {} {}: {} values dropped, {} replaced by tokens",
        count(preview.events),
        count(preview.changed),
        if is_archive { "would have been changed" } else { "would be changed" },
        count(preview.dropped),
        count(preview.tokenised)
    )?;
    if !preview.by_label.is_empty() {
        writeln!(out, "{:>12}  {:>12}  part of the policy", "values", "events")?;
        for (label, replaced) in &preview.by_label {
            let label = term::printable(redactor.label(*label));
            writeln!(out, "{:>12}  {:>12}  {label}", count(replaced.values), count(replaced.events))?;
        }
    }
    if preview.unreadable + preview.rejects > 0 {
        let (events, rejects) = (count(preview.unreadable), count(preview.rejects));
        writeln!(out, "to be encrypted: {events} events that cannot be edited, {rejects} rejects")?;
    }
    if preview.done + preview.others > 0 {
        let (done, others) = (count(preview.done), count(preview.others));
        writeln!(out, "already redacted or encrypted: {done}; by another policy or key: {others}")?;
    }
    if preview.interrupted {
        writeln!(out, "interrupted: these are the counts so far")?;
    }
    Ok(())
}

fn print_json(redactor: &Redactor, preview: &Preview, rules: &RuleSet) -> std::io::Result<()> {
    let document = json!({
        "policy": format!("{:016x}", redactor.id()),
        "key": redactor.keys().current().id().to_string(),
        "events": preview.events,
        "changed": preview.changed,
        "dropped": preview.dropped,
        "tokenised": preview.tokenised,
        "parts": parts_json(redactor, preview),
        "encrypted": { "events": preview.unreadable, "rejects": preview.rejects },
        "done": preview.done,
        "others": preview.others,
        "hidden": hidden_json(rules, &preview.hidden),
        "interrupted": preview.interrupted,
    });
    writeln!(term::stdout().lock(), "{document:#}")
}

/// Returns the parts of a policy that would replace something.
pub fn parts_json(redactor: &Redactor, preview: &Preview) -> serde_json::Value {
    let part = |(label, replaced): (&u16, &preview::Replaced)| json!({ "part": redactor.label(*label), "values": replaced.values, "events": replaced.events });
    preview.by_label.iter().map(part).collect()
}

/// Returns the rules that cannot see a field, with the fields and the numbers of events.
pub fn hidden_json(rules: &RuleSet, hidden: &Hidden) -> serde_json::Value {
    let alerting = (0..rules.rules().len()).filter(|at| rules.rules()[*at].alerts);
    let blind = alerting.map(|at| (rules.rules()[at].name.clone(), json!(hidden.fields(rules, at))));
    blind.filter(|(_, fields)| fields.as_object().is_some_and(|fields| !fields.is_empty())).collect()
}
