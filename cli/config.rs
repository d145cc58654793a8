//! The configuration of `strongroom run`, and `strongroom config`, which explains and checks it.
//!
//! Invariant: a [`Config`] is what its file says, checked whole: whoever has one has nothing left to check
//! but the world. Nothing is bound, opened or made while it is read, apart from the files of secrets.

mod reader;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use strongroom_ingest::live::{LiveOptions, TailOptions, tail};
use strongroom_ingest::{decode, live, pipeline};
use strongroom_schemas::Severity;

use self::reader::{Mistake, Mistakes, Section, parse};
use crate::exit::{self, CliError};
use crate::ingest::cluster_name;

/// Every key, with its default and what it is for.
pub const DEFAULT: &str = include_str!("default.toml");

/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 4 << 20;
const NAME_CHARS_MAX: usize = 64;

/// Print the configuration with every key and its default, or check a file.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  strongroom config > strongroom.toml
  strongroom config check strongroom.toml")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Report every mistake of a configuration file; open and bind nothing
    Check {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub fn run(args: Args) -> Result<u8, CliError> {
    match args.command {
        None => anstream::stdout().write_all(DEFAULT.as_bytes()).context("cannot print")?,
        Some(Command::Check { file }) => {
            let config = Config::read(&file, None)?;
            let sources = config.tails.len();
            let plural = if sources == 1 { "" } else { "s" };
            writeln!(anstream::stdout(), "{}: no mistakes; {sources} source{plural}", file.display())
                .context("cannot print")?;
        }
    }
    Ok(exit::OK)
}

/// Everything that `strongroom run` is told.
#[derive(Debug)]
pub struct Config {
    pub archive: String,
    pub live: LiveOptions,
    pub builtin_rules: bool,
    pub rules: Vec<PathBuf>,
    pub alerts: Alerts,
    pub observe: Observe,
    pub log: Log,
    pub tails: Vec<TailOptions>,
    /// By source: an alert is raised when nothing comes for so long.
    pub silence: Vec<(String, Duration)>,
}

#[derive(Debug)]
pub struct Alerts {
    pub file: Option<PathBuf>,
    pub stdout: bool,
    pub severity: Severity,
}

#[derive(Debug)]
pub struct Observe {
    pub listen: Option<SocketAddr>,
    pub token: Option<live::Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug)]
pub struct Log {
    pub level: tracing::Level,
    pub format: LogFormat,
}

impl Config {
    /// Reads `file`; `archive` is used in place of the location in it.
    ///
    /// # Errors
    /// One error that lists every mistake with its line.
    pub fn read(file: &Path, archive: Option<&str>) -> Result<Config, CliError> {
        let hint = "`strongroom config` prints every key with its default and what it is for";
        let cannot = || format!("cannot read the configuration {}", file.display());
        let size = std::fs::metadata(file).with_context(cannot).map_err(CliError::input)?.len();
        if size > FILE_BYTES_MAX {
            let error = anyhow::anyhow!("{} is too long for a configuration", file.display());
            return Err(CliError::input(error).with_hint(hint));
        }
        let text = std::fs::read_to_string(file).with_context(cannot).map_err(CliError::input)?;
        Config::parse(&text, archive).map_err(|mistakes| {
            let count = mistakes.len();
            let plural = if count == 1 { "" } else { "s" };
            let mut text = format!("{} has {count} mistake{plural}:", file.display());
            for mistake in mistakes {
                text.push_str(&format!("\n  {mistake}"));
            }
            CliError::input(anyhow::anyhow!(text)).with_hint(hint)
        })
    }

    fn parse(text: &str, archive: Option<&str>) -> Result<Config, Vec<Mistake>> {
        let mistakes = Mistakes::of(text);
        let Some(table) = parse(text, &mistakes) else { return Err(mistakes.into_sorted()) };
        let root = Section::root(&mistakes, &table);
        let config = read(&root, archive);
        root.finish();
        if config.tails.is_empty() {
            mistakes.add(0, "", "there is no source: write at least one [[tail]]");
        }
        drop(root);
        let found = mistakes.into_sorted();
        if found.is_empty() { Ok(config) } else { Err(found) }
    }
}

fn read(root: &Section<'_>, archive: Option<&str>) -> Config {
    let section = root.section("archive");
    let location = match archive {
        Some(location) => {
            section.is_set("location");
            location.to_owned()
        }
        None => section.required("location", "a folder, a file:// or an s3:// URL"),
    };
    section.finish();
    let mut names = Vec::new();
    let mut silence = Vec::new();
    let tails = root.sections("tail").iter().map(|s| tail(s, &mut names, &mut silence)).collect();
    Config {
        archive: location,
        live: limits(root),
        builtin_rules: root.section("rules").bool("builtin", true),
        rules: {
            let section = root.section("rules");
            let paths = section.strings("paths").into_iter().map(PathBuf::from).collect();
            section.is_set("builtin");
            section.finish();
            paths
        },
        alerts: alerts(&root.section("alerts")),
        observe: observe(&root.section("observe")),
        log: log(&root.section("log")),
        tails,
        silence,
    }
}

fn limits(root: &Section<'_>) -> LiveOptions {
    let mut options = LiveOptions::default();
    let section = root.section("limits");
    let threads = section.integer("threads", 0, 0..=1024);
    if let Ok(threads @ 1..) = usize::try_from(threads) {
        options.workers = threads;
    }
    options.text_bytes_max = section.bytes("text", live::TEXT_BYTES_MAX, 64 << 20..=1 << 40);
    let line = section.bytes("line", decode::LINE_BYTES_MAX as u64, 64 << 10..=64 << 20);
    options.line_bytes_max = usize::try_from(line).unwrap_or(usize::MAX);
    let depth = section.integer("depth", decode::DEPTH_MAX as u64, 8..=1024);
    options.depth_max = usize::try_from(depth).unwrap_or(decode::DEPTH_MAX);
    options.drain =
        section.duration("drain", live::DRAIN, Duration::from_secs(1)..=Duration::from_secs(3600));
    section.finish();
    let section = root.section("seal");
    options.seal_bytes = section.bytes("bytes", pipeline::SEAL_BYTES, 1 << 20..=4 << 30);
    options.seal_interval = section.duration(
        "interval",
        pipeline::SEAL_INTERVAL,
        Duration::from_millis(100)..=Duration::from_secs(86_400),
    );
    section.finish();
    // Text of one stream that becomes a row group must leave room for other streams.
    let block = usize::try_from(options.text_bytes_max / 8).unwrap_or(usize::MAX);
    options.block_bytes_max = options.block_bytes_max.min(block);
    options
}

fn alerts(section: &Section<'_>) -> Alerts {
    let file = section.path("file");
    let stdout = section.bool("stdout", true);
    let severity = section.parsed("severity", str::parse::<Severity>);
    section.finish();
    Alerts { file, stdout, severity: severity.unwrap_or(Severity::Low) }
}

fn observe(section: &Section<'_>) -> Observe {
    let listen = match section.string("listen") {
        None => Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
        Some(text) if text.is_empty() => None,
        Some(text) => address(section, "listen", &text),
    };
    let token = section.secret("token_file", "token_env").map(live::Secret::new);
    if let Some(listen) = listen
        && !listen.ip().is_loopback()
        && token.is_none()
    {
        section.mistake("listen", "is reachable from outside: /metrics needs token_file or token_env then");
    }
    section.finish();
    Observe { listen, token }
}

fn address(section: &Section<'_>, key: &'static str, text: &str) -> Option<SocketAddr> {
    let address = text.parse::<SocketAddr>();
    if address.is_err() {
        let what = match text.parse::<IpAddr>() {
            Ok(_) => "wants a port, too, such as \"127.0.0.1:9464\"",
            Err(_) => "wants an address and a port, such as \"127.0.0.1:9464\" or \"[::]:8443\"",
        };
        section.mistake(key, what);
    }
    address.ok()
}

fn log(section: &Section<'_>) -> Log {
    use tracing::Level;
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    let level = section.one_of("level", Level::INFO, &levels);
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = section.one_of("format", LogFormat::Text, &formats);
    section.finish();
    Log { level, format }
}

/// What every source has: a name of its own, and how long it may be silent.
fn source(section: &Section<'_>, names: &mut Vec<String>, silence: &mut Vec<(String, Duration)>) -> String {
    let name = section.required("name", "each source has its own name");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && (name.chars().count() > NAME_CHARS_MAX || !name.chars().all(plain)) {
        section.mistake("name", format!("wants 1 to {NAME_CHARS_MAX} letters, digits, -, _ and ."));
    }
    if !name.is_empty() && names.contains(&name) {
        section.mistake("name", "another source has this name");
    }
    names.push(name.clone());
    let year = Duration::from_secs(366 * 86_400);
    let bound = section.duration("silence", Duration::ZERO, Duration::ZERO..=year);
    if !bound.is_zero() {
        silence.push((name.clone(), bound));
    }
    name
}

fn cluster(section: &Section<'_>) -> String {
    let name = section.required("cluster", "no event carries the name of its cluster");
    if let (false, Err(error)) = (name.is_empty(), cluster_name(&name)) {
        section.mistake("cluster", error);
    }
    name
}

fn tail(
    section: &Section<'_>,
    names: &mut Vec<String>,
    silence: &mut Vec<(String, Duration)>,
) -> TailOptions {
    let name = source(section, names, silence);
    let cluster = cluster(section);
    let paths = section.strings("paths");
    if paths.is_empty() {
        section.mistake("paths", "wants at least one file, folder or pattern");
    }
    let mut options = TailOptions::new(name, cluster, paths);
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(60));
    options.poll = section.duration("poll", tail::POLL, least..=most);
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(86_400));
    options.give_up_line = section.duration("give_up_line", tail::GIVE_UP_LINE, least..=most);
    section.finish();
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        let found = Config::parse(text, None).expect_err("mistakes");
        found.iter().map(ToString::to_string).collect()
    }

    /// The default file with the keys that it shows without a value.
    fn shown() -> String {
        let key = |line: &str| {
            line.strip_prefix('#').is_some_and(|rest| {
                rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
            })
        };
        let line = |line: &str| if key(line) { line[1..].to_owned() } else { line.to_owned() };
        DEFAULT.lines().map(|text| line(text) + "\n").collect()
    }

    #[test]
    fn the_default_file_says_what_happens_without_it() {
        let source = "[[tail]]\nname = 'a'\ncluster = 'c'\npaths = ['x']\n";
        let bare = Config::parse(source, Some("/a")).expect("a configuration");
        let whole = Config::parse(&format!("{DEFAULT}\n{source}"), Some("/a")).expect("a configuration");
        assert_eq!(format!("{bare:?}"), format!("{whole:?}"));
    }

    #[test]
    fn the_default_file_shows_every_key() {
        // Secrets are looked up, so these two keys are not there; all others are read without a mistake.
        let shown = shown();
        let lines: Vec<&str> = shown
            .lines()
            .filter(|line| !line.contains("token_file") && !line.contains("token_env"))
            .collect();
        let config = Config::parse(&lines.join("\n"), None).map_err(|found| format!("{found:?}"));
        let config = config.expect("no mistake");
        assert_eq!((config.archive.as_str(), config.tails.len()), ("/var/lib/strongroom", 1));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let text = "[archive]\nlocatoin = 'x'\n[seal]\nbytes = '1KiB'\n[observe]\nlisten = '0.0.0.0:9464'\n\
                    [log]\nlevel = 'loud'\n[[tail]]\nname = 'a b'\ncluster = ''\npaths = 'x'\npoll = '5'\n";
        assert_eq!(
            mistakes(text),
            [
                "line 1: archive.location: is missing: a folder, a file:// or an s3:// URL",
                "line 2: archive.locatoin: is no key here; there are location",
                "line 4: seal.bytes: wants a size from 1.0 MiB to 4.0 GiB",
                "line 6: observe.listen: is reachable from outside: /metrics needs token_file or token_env then",
                "line 8: log.level: wants one of error, warn, info, debug, trace",
                "line 10: tail[1].name: wants 1 to 64 letters, digits, -, _ and .",
                "line 11: tail[1].cluster: is empty",
                "line 12: tail[1].paths: wants a list of texts, found text",
                "line 12: tail[1].paths: wants at least one file, folder or pattern",
                "line 13: tail[1].poll: wants a time such as \"200ms\", \"30s\", \"5m\" or \"1h\"",
            ]
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_its_line() {
        let found = mistakes("[archive]\nlocation = \n");
        assert!(found.len() == 1 && found[0].starts_with("line 2: "), "{found:?}");
        assert_eq!(mistakes("[archive]\nlocation = 'x'\n").len(), 1, "no source");
    }

    #[test]
    fn secrets_come_from_files_and_are_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "hunter2\n").expect("written");
        let text = format!(
            "[archive]\nlocation = 'x'\n[observe]\ntoken_file = '{}'\n[[tail]]\nname = 'a'\ncluster = 'c'\npaths = ['x']\n",
            path.display()
        );
        let config = Config::parse(&text, None).expect("a configuration");
        assert_eq!(config.observe.token.as_ref().map(live::Secret::expose), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
