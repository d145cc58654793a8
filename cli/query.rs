//! `strongroom query`: answers one SQL statement.
//!
//! Invariant: a file named by `--output` appears under its name only when the answer is complete; a
//! failed or interrupted query leaves what was there before.

use std::fs::Permissions;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use strongroom_archive::Archive;
use strongroom_query::{
    Expanded, Format, Layout, QueryError, Session, SessionOptions, Written, write_answer,
};
use tokio::runtime::Runtime;

use crate::exit::{self, CliError, query_error};
use crate::term;

/// Answer one SQL statement over the archive.
///
/// Tables: events, rejects, alerts, activity. Views: secret_access, exec_sessions, rbac_changes,
/// auth_failures, pod_changes, configmap_changes, network_policy_changes, unfinished_requests. The
/// answer goes to standard output; row count and timing go to standard error.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    session: SessionArgs,
    /// The statement; `-` reads it from standard input, which is the default if that is no terminal
    // SQL may start with a comment, `-- like this`.
    #[arg(allow_hyphen_values = true, value_parser = no_flag)]
    sql: Option<String>,
    /// Takes an argument after the statement, which is an error. So if an unknown flag is before
    /// the statement, the error is about the flag, and not about the statement as a second argument
    #[arg(hide = true, value_parser = nothing_more)]
    _more: Option<String>,
    /// Read the statement from FILE
    #[arg(short, long, value_name = "FILE", conflicts_with = "sql")]
    file: Option<PathBuf>,
    /// How to write the answer [default: by the ending of --output, or as a table]
    #[arg(long, value_name = "FORMAT")]
    format: Option<FormatName>,
    /// Write the answer to FILE, which appears when it is complete
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Never cut a table's cells to fit the terminal
    #[arg(long)]
    no_truncate: bool,
    /// Write each column of a row on its own line
    #[arg(short = 'x', long)]
    expanded: bool,
    /// Print no row count and timing on standard error
    #[arg(short, long)]
    quiet: bool,
}

/// Arguments that `query` and `sql` share: the archive, and the resources of a query.
#[derive(clap::Args)]
pub struct SessionArgs {
    /// The archive: a folder, a file:// or an s3:// URL
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    archive: String,
    /// Memory for sorts, joins and groups; more is spilled to disk
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = term::byte_size)]
    memory_limit: u64,
    /// Cores to use [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// Folder for spilled data [default: the system's]
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatName {
    /// Aligned columns, for reading
    Table,
    Csv,
    /// One JSON object per line
    Json,
    /// One JSON array
    JsonArray,
    Parquet,
    /// Arrow IPC: a stream to standard output, a file to --output
    Arrow,
}

/// How long the process waits for an interrupted query to stop and to remove what it spilled.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest statement read from a file or standard input.
const SQL_BYTES_MAX: u64 = 1 << 20;

pub fn run(args: Args) -> Result<u8, CliError> {
    let sql = statement(&args)?;
    let format = format_of(&args);
    if format.is_binary() && args.output.is_none() && io::stdout().is_terminal() {
        return Err(CliError::input(anyhow::anyhow!("a terminal cannot show this format"))
            .with_hint("name a file with --output, or redirect standard output"));
    }
    let runtime = runtime(&args.session)?;
    let session = open(&args.session)?;
    let layout = Layout {
        width: if args.output.is_none() { terminal_width() } else { None },
        truncate: !args.no_truncate,
        expanded: if args.expanded { Expanded::Always } else { Expanded::WhenWide },
    };
    let answered = match &args.output {
        None => answer(&runtime, &session, &sql, format, &layout, term::data()),
        Some(path) => answer_to_file(&runtime, &session, &sql, format, &layout, path),
    };
    // Dropping the session and stopping the runtime removes what was spilled.
    drop(session);
    runtime.shutdown_timeout(STOP_TIMEOUT);
    match answered? {
        Some(written) => {
            tell_policies(&written);
            if !args.quiet {
                // The answer is written, so a failure to write this line is ignored.
                let _ = writeln!(term::stderr(), "{}", summary(&written));
            }
            Ok(exit::OK)
        }
        None => {
            let _ = writeln!(term::stderr(), "interrupted");
            Ok(exit::INTERRUPTED)
        }
    }
}

/// Returns a runtime with as many threads as the session may use.
pub fn runtime(args: &SessionArgs) -> Result<Runtime, CliError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        builder.worker_threads(threads.get());
    }
    Ok(builder.enable_all().thread_name("query").build().context("cannot start threads")?)
}

pub fn open(args: &SessionArgs) -> Result<Session, CliError> {
    let archive = Archive::open(&args.archive).map_err(|error| query_error(error.into()))?;
    let options = SessionOptions {
        memory_limit: usize::try_from(args.memory_limit).unwrap_or(usize::MAX),
        threads: args.threads.map(std::num::NonZeroUsize::get),
        temp_dir: args.temp_dir.clone(),
    };
    Session::open(archive, &options).map_err(query_error)
}

/// Writes the answer to `sql` to `out`; `None` when Ctrl-C stopped it.
pub fn answer(
    runtime: &Runtime,
    session: &Session,
    sql: &str,
    format: Format,
    layout: &Layout,
    out: impl io::Write + Send,
) -> Result<Option<Written>, CliError> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot listen for Ctrl-C")?;
                Ok(None)
            }
            written = async { write_answer(session.ask(sql).await?, format, layout, out).await } => {
                written.map(Some).map_err(query_error)
            }
        }
    })
}

fn answer_to_file(
    runtime: &Runtime,
    session: &Session,
    sql: &str,
    format: Format,
    layout: &Layout,
    path: &Path,
) -> Result<Option<Written>, CliError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // The umask narrows these permissions, as it does for any new file.
    let mut file = tempfile::Builder::new()
        .prefix(".strongroom-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .with_context(|| format!("cannot create a file in {}", folder.display()))
        .map_err(CliError::input)?;
    let Some(written) = answer(runtime, session, sql, format, layout, file.as_file_mut())? else {
        return Ok(None);
    };
    file.as_file().sync_all().with_context(|| format!("cannot sync {}", path.display()))?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(written))
}

/// Says that rows of more than one redaction policy were read. An answer computed from their tokens
/// may differ from one computed from the values, so this is said even if no summary is wanted.
pub fn tell_policies(written: &Written) {
    if written.policies.len() > 1 {
        // The answer is written, so a failure to write this line is ignored.
        let _ = writeln!(
            term::stderr(),
            "note: the rows read were redacted under more than one policy ({}); tokens of different keys are \
             never equal, so joins over them find too little, and one value may count as several (the key's id is \
             in each token)",
            written.policies.join(", ")
        );
    }
}

/// `3 rows in 12 ms, 1 of 365 files, 1.2 MiB read`.
pub fn summary(written: &Written) -> String {
    let rows = if written.rows == 1 { "row" } else { "rows" };
    let mut text = format!("{} {rows} in {}", term::count(written.rows), duration(written.elapsed));
    let stats = &written.stats;
    if stats.files.listed > 0 {
        let (kept, listed) = (stats.files.kept as u64, stats.files.listed as u64);
        text += &format!(", {} of {} files", term::count(kept), term::count(listed));
        text += &format!(", {} read", term::bytes(stats.bytes_read as u64));
    }
    if stats.bytes_spilled > 0 {
        text += &format!(", {} spilled", term::bytes(stats.bytes_spilled as u64));
    }
    text
}

fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

/// Columns of the terminal at standard output.
pub fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let (columns, _) = rustyline::DefaultEditor::new().ok()?.dimensions()?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

fn statement(args: &Args) -> Result<String, CliError> {
    let (name, mut input): (String, Box<dyn io::Read>) = match (&args.file, &args.sql) {
        (Some(path), _) => {
            let file = std::fs::File::open(path)
                .with_context(|| format!("cannot open {}", path.display()))
                .map_err(CliError::input)?;
            (path.display().to_string(), Box::new(file))
        }
        (None, Some(sql)) if sql != "-" => return Ok(sql.clone()),
        (None, None) if io::stdin().is_terminal() => {
            return Err(query_error(QueryError::NoStatement));
        }
        _ => ("standard input".to_owned(), Box::new(io::stdin())),
    };
    let mut sql = String::new();
    input
        .by_ref()
        .take(SQL_BYTES_MAX + 1)
        .read_to_string(&mut sql)
        .with_context(|| format!("cannot read {name} as text"))
        .map_err(CliError::input)?;
    Ok(sql)
}

fn format_of(args: &Args) -> Format {
    let ending = args.output.as_deref().and_then(Path::extension).and_then(|ending| ending.to_str());
    let named = args.format.unwrap_or(match ending {
        Some("csv") => FormatName::Csv,
        Some("json" | "jsonl" | "ndjson") => FormatName::Json,
        Some("parquet") => FormatName::Parquet,
        Some("arrow" | "feather") => FormatName::Arrow,
        _ => FormatName::Table,
    });
    match named {
        FormatName::Table => Format::Table,
        FormatName::Csv => Format::Csv,
        FormatName::Json => Format::Json,
        FormatName::JsonArray => Format::JsonArray,
        FormatName::Parquet => Format::Parquet,
        FormatName::Arrow if args.output.is_some() => Format::ArrowFile,
        FormatName::Arrow => Format::ArrowStream,
    }
}

/// Refuses a single word that starts with a hyphen. A statement has several words, so such a word
/// is meant as a flag, and this command has no such flag.
fn no_flag(text: &str) -> Result<String, String> {
    if text.len() > 1 && text.starts_with('-') && !text.contains(char::is_whitespace) {
        return Err("there is no such flag".to_owned());
    }
    Ok(text.to_owned())
}

fn nothing_more(_: &str) -> Result<String, String> {
    Err("one statement is answered; quote it so that it is one argument".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use strongroom_query::MEMORY_LIMIT_DEFAULT;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, String> {
        let line = ["query", "--archive", "a"].iter().chain(words);
        Line::try_parse_from(line).map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_limit_is_the_sessions() {
        assert_eq!(parse(&[]).expect("no statement").session.memory_limit, MEMORY_LIMIT_DEFAULT as u64);
    }

    #[test]
    fn a_statement_may_begin_with_a_hyphen() {
        for sql in ["-- who?\nSELECT 1", "--who?\nSELECT 1", "-- x=1\nSELECT 1", "- 1", "-"] {
            for words in [vec![sql], vec![sql, "--format", "csv"], vec!["--format", "csv", sql, "-q"]] {
                let args = parse(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
                assert_eq!(args.sql.as_deref(), Some(sql), "{words:?}");
                assert_eq!(args.format.is_some(), words.len() > 1, "{words:?}");
            }
        }
    }

    #[test]
    fn a_flag_that_is_none_is_named() {
        for words in [vec!["--quite"], vec!["--quite", "SELECT 1"], vec!["-z", "SELECT 1"]] {
            let error = parse(&words).map(|args| args.sql).expect_err("no such flag");
            assert!(error.contains(words[0]) && error.contains("no such flag"), "{words:?}: {error}");
        }
        let error = parse(&["SELECT 1", "SELECT 2"]).map(|args| args.sql).expect_err("one too many");
        assert!(error.contains("one statement is answered"), "{error}");
    }
}
