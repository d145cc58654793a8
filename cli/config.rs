//! The configuration of `strongroom run`, and `strongroom config`, which explains and checks it.
//!
//! Invariant: a [`Config`] has been checked as a whole. If a start with it fails, the cause is
//! outside of the configuration, such as a port that is in use. Reading a configuration binds no
//! address, opens no archive and makes no file. It only reads files of secrets, keys and
//! certificates.

mod reader;
pub mod redact;
pub mod sinks;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use strongroom_archive::{Archive, LockMode, RETENTION_YEARS_MAX, StoreOptions};
use strongroom_ingest::{SEAL_BYTES, SEAL_INTERVAL};
use strongroom_lines::{DEPTH_MAX, EventPath, LINE_BYTES_MAX, Reading, WRITERS_MAX, Writer, Writers};
use strongroom_live::kafka::{self, KafkaOptions, KafkaSource};
use strongroom_live::webhook::{self, AssertionOptions, Route, RouteFormat, TlsFiles, WebhookOptions};
use strongroom_live::{DRAIN, LiveOptions, Secret, TEXT_BYTES_MAX, TailOptions, tail};
use strongroom_redact::Policy;
use strongroom_schemas::{Severity, error_chain};
use strongroom_sinks::{OutboxOptions, TlsOptions};
use strongroom_tlog::{PrivateKey, PublicKey, Signer, WitnessKey};

use self::reader::{Mistake, Mistakes, Section, parse};
use self::sinks::SinkConfig;
use crate::anchor::{TimestampConfig, WITNESSES_MAX, WitnessConfig, timestamp_authorities};
use crate::exit::{self, CliError};
use crate::term;

/// Every key, with its default and its meaning.
pub const DEFAULT: &str = include_str!("default.toml");

/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 4 << 20;
pub(crate) const NAME_CHARS_MAX: usize = 64;

/// Longest name of a cluster.
const CLUSTER_CHARS_MAX: usize = 253;

pub fn cluster_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > CLUSTER_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(format!(
            "a cluster's name has 1 to {CLUSTER_CHARS_MAX} characters, none of them control characters"
        ));
    }
    Ok(text.to_owned())
}

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
        None => term::stdout().write_all(DEFAULT.as_bytes()).context("cannot print")?,
        Some(Command::Check { file }) => {
            let config = Config::read(&file, None)?;
            let sources = config.tails.len() + config.webhooks.len() + config.kafkas.len();
            let plural = if sources == 1 { "" } else { "s" };
            writeln!(term::stdout(), "{}: no mistakes; {sources} source{plural}", file.display())
                .context("cannot print")?;
        }
    }
    Ok(exit::OK)
}

/// Everything that `strongroom run` is configured with.
#[derive(Debug)]
pub struct Config {
    pub archive: String,
    pub live: LiveOptions,
    pub builtin_rules: bool,
    pub rules: Vec<PathBuf>,
    /// How often the files of [`Config::rules`] are checked for changes; zero for never.
    pub rules_watch: Duration,
    pub alerts: Alerts,
    /// Where alerts wait for their sinks; without an outbox, the sinks of `alerts` are written
    /// directly.
    pub outbox: Option<OutboxOptions>,
    pub sinks: Vec<SinkConfig>,
    pub observe: Observe,
    pub log: Log,
    /// The redaction policy, if there is one.
    pub redact: Option<Policy>,
    pub store: StoreOptions,
    /// The signer of the proof logs, unless the command line or the environment names one.
    pub signer: Option<Arc<Signer>>,
    pub witnesses: Vec<WitnessConfig>,
    pub timestamps: Vec<TimestampConfig>,
    pub tails: Vec<TailOptions>,
    pub webhooks: Vec<WebhookOptions>,
    pub kafkas: Vec<KafkaOptions>,
    /// For each source by name, how long it may deliver nothing before an alert is raised.
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
    pub token: Option<Secret>,
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
    /// Reads `file`; `archive` replaces the location in it.
    ///
    /// # Errors
    /// One error that lists every mistake with its line.
    pub fn read(file: &Path, archive: Option<&str>) -> Result<Config, CliError> {
        let hint = "`strongroom config` prints every key with its default and its meaning";
        let cannot = || format!("cannot read the configuration {}", file.display());
        let size = std::fs::metadata(file).with_context(cannot).map_err(CliError::input)?.len();
        if size > FILE_BYTES_MAX {
            let error = anyhow::anyhow!("{} is longer than a configuration may be", file.display());
            return Err(CliError::input(error).with_hint(hint));
        }
        let text = std::fs::read_to_string(file).with_context(cannot).map_err(CliError::input)?;
        Config::parse(&text, archive).map_err(|mistakes| mistakes_error(file, mistakes).with_hint(hint))
    }

    fn parse(text: &str, archive: Option<&str>) -> Result<Config, Vec<Mistake>> {
        let mistakes = Mistakes::of(text);
        let Some(table) = parse(text, &mistakes) else { return Err(mistakes.into_sorted()) };
        let root = Section::root(&mistakes, &table);
        let config = read(&root, archive);
        root.finish();
        if config.tails.is_empty() && config.webhooks.is_empty() && config.kafkas.is_empty() {
            mistakes.add(0, "", "there is no source: write at least one [[tail]], [[webhook]] or [[kafka]]");
        }
        drop(root);
        let found = mistakes.into_sorted();
        if found.is_empty() { Ok(config) } else { Err(found) }
    }
}

/// One error that lists the mistakes of a file.
fn mistakes_error(file: &Path, mistakes: Vec<Mistake>) -> CliError {
    let count = mistakes.len();
    let plural = if count == 1 { "" } else { "s" };
    let mut text = format!("{} has {count} mistake{plural}:", file.display());
    for mistake in mistakes {
        text.push_str(&format!("\n  {mistake}"));
    }
    CliError::input(anyhow::anyhow!(text))
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
    // The value is not repeated: it may be a key that was put there by mistake.
    match archive {
        Some(location) if reader::has_credentials(location) => section
            .mistake("location", "given on the command line or in STRONGROOM_ARCHIVE has a key in its URL"),
        _ if !location.is_empty() && !Archive::is_location(&location) => {
            section.mistake("location", "must be a folder, a file:// URL, or s3://bucket/prefix");
        }
        _ => {}
    }
    let store = store(&section);
    section.finish();
    let mut names = Vec::new();
    let mut silence = Vec::new();
    let tails = root.sections("tail").iter().map(|s| tail(s, &mut names, &mut silence)).collect();
    let mut logs = Vec::new();
    let mut webhooks = Vec::new();
    for section in root.sections("webhook") {
        let options = webhook(&section, &mut names, &mut silence);
        own_folder(&section, "wal", &options.wal_dir, &mut logs);
        webhooks.push(options);
    }
    let mut topics = BTreeSet::new();
    let mut kafkas = Vec::new();
    for section in root.sections("kafka") {
        let options = kafka(&section, &mut names, &mut silence);
        for topic in &options.topics {
            let new = options.brokers.iter().all(|broker| topics.insert((broker.clone(), topic.clone())));
            if !new {
                section.mistake("topics", format!("another section reads {topic} of the same broker"));
            }
        }
        kafkas.push(options);
    }
    let alerts = alerts(&root.section("alerts"));
    let outbox = sinks::outbox(&root.section("outbox"), alerts.severity);
    if let Some(outbox) = &outbox {
        own_folder(&root.section("outbox"), "folder", &outbox.folder, &mut logs);
    }
    let sinks = sinks::sinks(&root.sections("sink"), alerts.severity, outbox.is_some());
    let (live, signer) = limits(root);
    Config {
        archive: location,
        store,
        live,
        signer,
        witnesses: witnesses(&root.sections("witness")),
        timestamps: timestamps(&root.sections("timestamp")),
        builtin_rules: root.section("rules").bool("builtin", true),
        rules: {
            let section = root.section("rules");
            let paths = section.strings("paths").into_iter().map(PathBuf::from).collect();
            section.is_set("builtin");
            section.is_set("watch");
            section.finish();
            paths
        },
        rules_watch: {
            let day = Duration::from_secs(86_400);
            root.section("rules").duration("watch", Duration::ZERO, Duration::ZERO..=day)
        },
        alerts,
        outbox,
        sinks,
        observe: observe(&root.section("observe")),
        log: log(&root.section("log")),
        redact: redact::policy(&root.section("redact")),
        tails,
        webhooks,
        kafkas,
        silence,
    }
}

/// Reports a mistake if another section keeps its log in the same folder, even if the folder has
/// another name there.
fn own_folder(section: &Section<'_>, key: &'static str, folder: &Path, known: &mut Vec<PathBuf>) {
    if folder.as_os_str().is_empty() {
        return;
    }
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    // The part of the path that exists may contain links.
    let place = absolute.ancestors().find_map(|there| {
        let rest = absolute.strip_prefix(there).ok()?;
        there.canonicalize().ok().map(|real| real.join(rest))
    });
    let place = place.unwrap_or(absolute);
    if known.contains(&place) {
        section.mistake(key, "is the folder of another log; each log needs a folder of its own");
    }
    known.push(place);
}

/// Reads the options of the object store. An option that is not in the section is taken from the
/// environment.
fn store(section: &Section<'_>) -> StoreOptions {
    let mut options = match StoreOptions::from_env() {
        Ok(options) => options,
        Err(error) => {
            section.mistake("location", error.to_string());
            StoreOptions::default()
        }
    };
    let s3 = &mut options.s3;
    s3.endpoint = section.string("endpoint").or(s3.endpoint.take());
    s3.region = section.string("region").or(s3.region.take());
    s3.path_style = section.bool("path_style", s3.path_style);
    s3.ca_file = section.path("ca_file").or(s3.ca_file.take());
    s3.kms_key_id = section.string("kms_key_id").or(s3.kms_key_id.take());
    let modes = [("compliance", LockMode::Compliance), ("governance", LockMode::Governance)];
    s3.mode = section.one_of("lock_mode", s3.mode, &modes);
    let years =
        section.integer("retention_years", u64::from(s3.retention_years), 1..=u64::from(RETENTION_YEARS_MAX));
    s3.retention_years = u32::try_from(years).unwrap_or(s3.retention_years);
    s3.single_writer = section.bool("single_writer", s3.single_writer);
    s3.staging = section.path("staging").or(s3.staging.take());
    options
}

fn limits(root: &Section<'_>) -> (LiveOptions, Option<Arc<Signer>>) {
    let mut options = LiveOptions::default();
    let section = root.section("limits");
    let threads = section.integer("threads", 0, 0..=1024);
    if let Ok(threads @ 1..) = usize::try_from(threads) {
        options.limits.workers = threads;
    }
    options.text_bytes_max = section.bytes("text", TEXT_BYTES_MAX, 64 << 20..=1 << 40);
    let line = section.bytes("line", LINE_BYTES_MAX as u64, 64 << 10..=64 << 20);
    options.limits.line_bytes_max = usize::try_from(line).unwrap_or(usize::MAX);
    // What is read of a record must not depend on settings, so only one depth is valid.
    let depth = section.integer("depth", DEPTH_MAX as u64, DEPTH_MAX as u64..=DEPTH_MAX as u64);
    options.limits.depth_max = usize::try_from(depth).unwrap_or(DEPTH_MAX);
    options.drain = section.duration("drain", DRAIN, Duration::from_secs(1)..=Duration::from_secs(3600));
    section.finish();
    let section = root.section("seal");
    options.limits.seal_bytes = section.bytes("bytes", SEAL_BYTES, 1 << 20..=4 << 30);
    options.limits.seal_interval =
        section.duration("interval", SEAL_INTERVAL, Duration::from_millis(100)..=Duration::from_secs(86_400));
    let signer = signer(&section);
    section.finish();
    // Blocks of several streams are in memory at a time, so one block may not use all of the text.
    let block = usize::try_from(options.text_bytes_max / 8).unwrap_or(usize::MAX);
    options.limits.block_bytes_max = options.limits.block_bytes_max.min(block);
    (options, signer)
}

/// Returns the signer: a key in a file or a variable, or a program that has a key.
fn signer(section: &Section<'_>) -> Option<Arc<Signer>> {
    let (file, variable) = (section.path("key_file"), section.string("key_env"));
    let (program, public) =
        (section.strings("signer"), section.parsed("signer_public_key", PublicKey::parse));
    let given = [file.is_some(), variable.is_some(), section.is_set("signer")];
    if given.iter().filter(|is_given| **is_given).count() > 1 {
        section.mistake("", "has more than one of key_file, key_env and signer; set one");
        return None;
    }
    if section.is_set("signer_public_key") && !section.is_set("signer") {
        section.mistake(
            "signer_public_key",
            "is for signer only: the public key of a file or a variable is known",
        );
    }
    let made = match (file, variable) {
        (Some(path), _) => Signer::from_file(&path).map_err(|error| ("key_file", error_chain(&error))),
        (None, Some(name)) => match std::env::var(&name) {
            Ok(text) => {
                PrivateKey::parse(&text).map(Signer::Key).map_err(|error| ("key_env", error_chain(&error)))
            }
            Err(_) => Err(("key_env", format!("the environment has no variable {name}"))),
        },
        (None, None) if !section.is_set("signer") => return None,
        (None, None) if program.is_empty() => {
            Err(("signer", "must name a program and its arguments".to_owned()))
        }
        (None, None) => match public {
            Some(public) => Ok(Signer::Command { command: program, public }),
            None if section.is_set("signer_public_key") => return None,
            None => {
                Err(("signer", "needs signer_public_key, which checks what the program signs".to_owned()))
            }
        },
    };
    made.map(Arc::new).map_err(|(key, what)| section.mistake(key, what)).ok()
}

fn witnesses(sections: &[Section<'_>]) -> Vec<WitnessConfig> {
    let mut found: Vec<WitnessConfig> = Vec::new();
    for (number, section) in sections.iter().enumerate() {
        if number == WITNESSES_MAX {
            section.mistake("", format!("there are more than {WITNESSES_MAX} witnesses"));
        }
        let text = section.required("key", "the vkey that the witness's operator gave you");
        let url = section.required("url", "the URL of the witness");
        let tls = TlsOptions { ca_file: section.path("ca_file"), identity: None };
        section.finish();
        let key = (!text.is_empty()).then(|| WitnessKey::parse(&text)).transpose();
        let key = key.map_err(|error| section.mistake("key", error.to_string())).ok().flatten();
        let Some(key) = key else { continue };
        if found.iter().any(|other| other.key.name() == key.name()) {
            section.mistake("key", "another witness has this name");
        }
        if url.is_empty() {
            continue;
        }
        if let Some(Err(error)) = tls.ca_file.is_some().then(|| tls.client()) {
            section.mistake("ca_file", error_chain(&error));
        }
        match WitnessConfig::new(key, &url, tls) {
            Ok(witness) => found.push(witness),
            Err(error) => section.mistake("url", error.to_string()),
        }
    }
    found
}

fn timestamps(sections: &[Section<'_>]) -> Vec<TimestampConfig> {
    let mut found: Vec<TimestampConfig> = Vec::new();
    for (number, section) in sections.iter().enumerate() {
        if number == WITNESSES_MAX {
            section.mistake("", format!("there are more than {WITNESSES_MAX} authorities"));
        }
        let url = section.required("url", "the URL of an RFC 3161 authority");
        let trusted = section.required("tsa_ca_file", "the authorities that its certificate must chain to");
        let tls = TlsOptions { ca_file: section.path("ca_file"), identity: None };
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(31 * 86_400));
        let interval = section.duration("interval", Duration::from_secs(3600), least..=most);
        section.finish();
        if let Some(Err(error)) = tls.ca_file.is_some().then(|| tls.client()) {
            section.mistake("ca_file", error_chain(&error));
        }
        if url.is_empty() || trusted.is_empty() {
            continue;
        }
        let trusted = match timestamp_authorities(Path::new(&trusted)) {
            Ok(trusted) => trusted,
            Err(error) => {
                section.mistake("tsa_ca_file", error_chain(error.source.as_ref()));
                continue;
            }
        };
        match TimestampConfig::new(&url, tls, trusted, interval) {
            Ok(authority) if found.iter().any(|other| other.url == authority.url) => {
                section.mistake("url", "another section has this address");
            }
            Ok(authority) => found.push(authority),
            Err(error) => section.mistake("url", error.to_string()),
        }
    }
    found
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
    let token = section.token("token_file", "token_env").map(Secret::new);
    if let Some(listen) = listen
        && !listen.ip().is_loopback()
        && token.is_none()
    {
        section.mistake("listen", "is reachable from outside; then /metrics needs token_file or token_env");
    }
    section.finish();
    Observe { listen, token }
}

fn address(section: &Section<'_>, key: &'static str, text: &str) -> Option<SocketAddr> {
    let address = text.parse::<SocketAddr>();
    if address.is_err() {
        let what = match text.parse::<IpAddr>() {
            Ok(_) => "needs a port, such as \"127.0.0.1:9464\"",
            Err(_) => "must be an address and a port, such as \"127.0.0.1:9464\" or \"[::]:8443\"",
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

/// Reads what every source has: its own name, which is returned, and how long it may be silent.
fn source(section: &Section<'_>, names: &mut Vec<String>, silence: &mut Vec<(String, Duration)>) -> String {
    let name = section.required("name", "each source has its own name");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && (name.chars().count() > NAME_CHARS_MAX || !name.chars().all(plain)) {
        section.mistake("name", format!("must be 1 to {NAME_CHARS_MAX} letters, digits, -, _ and ."));
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

/// Reads where the event is in the objects of a source (`unwrap`), and which writers are believed
/// beside the known ones (`writers`).
fn reading(section: &Section<'_>) -> Arc<Reading> {
    let texts = section.strings("writers");
    if texts.len() > WRITERS_MAX {
        section.mistake("writers", format!("has more than {WRITERS_MAX} writers"));
    }
    let parsed = |text: &String| {
        Writer::parse(text).map_err(|error| section.mistake("writers", format!("{text:?} {error}"))).ok()
    };
    let writers = Writers::new(texts.iter().take(WRITERS_MAX).filter_map(parsed).collect());
    Arc::new(Reading { unwrap: section.parsed("unwrap", EventPath::parse), writers })
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
        section.mistake("paths", "needs at least one file, folder or pattern");
    }
    let mut options = TailOptions::new(name, cluster, paths);
    options.reading = reading(section);
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(60));
    options.poll = section.duration("poll", tail::POLL, least..=most);
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(86_400));
    options.give_up_line = section.duration("give_up_line", tail::GIVE_UP_LINE, least..=most);
    section.finish();
    options
}

fn webhook(
    section: &Section<'_>,
    names: &mut Vec<String>,
    silence: &mut Vec<(String, Duration)>,
) -> WebhookOptions {
    let name = source(section, names, silence);
    let listen = section.required("listen", "the address of the listener, such as \"0.0.0.0:8443\"");
    let listen = (!listen.is_empty()).then(|| address(section, "listen", &listen)).flatten();
    let listen = listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let wal = section.required("wal", "the folder of the write-ahead log");
    let mut options = WebhookOptions::new(name, listen, wal);
    options.tls = match (section.path("cert_file"), section.path("key_file")) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key, client_ca: section.path("client_ca_file") }),
        (None, None) => {
            if section.is_set("client_ca_file") {
                section.mistake("client_ca_file", "needs cert_file and key_file");
            }
            None
        }
        _ => {
            section.mistake("cert_file", "and key_file go together; one of them is missing");
            None
        }
    };
    options.tokens = section.token("token_file", "token_env").map(Secret::new).into_iter().collect();
    options.wal_bytes_max = section.bytes("wal_bytes", webhook::WAL_BYTES_MAX_DEFAULT, 1 << 20..=1 << 44);
    options.disk_free_bytes_min =
        section.bytes("disk_free", webhook::DISK_FREE_BYTES_MIN_DEFAULT, 0..=1 << 44);
    let body = section.bytes("body", webhook::BODY_BYTES_MAX_DEFAULT as u64, 64 << 10..=1 << 30);
    options.body_bytes_max = usize::try_from(body).unwrap_or(usize::MAX);
    let memory = section.bytes("memory", webhook::MEMORY_BYTES_MAX_DEFAULT as u64, 1 << 20..=1 << 36);
    options.memory_bytes_max = usize::try_from(memory).unwrap_or(usize::MAX);
    let connections = section.integer("connections", webhook::CONNECTIONS_MAX_DEFAULT as u64, 1..=100_000);
    options.connections_max = usize::try_from(connections).unwrap_or(1);
    let (least, most) = (Duration::from_secs(60), Duration::from_secs(86_400));
    options.remembered_for = section.duration("remember", webhook::REMEMBERED_FOR_DEFAULT, least..=most);
    let (least, most) = (Duration::from_secs(1), webhook::RETRY_AFTER_MAX);
    options.retry_after = section.duration("retry_after", webhook::RETRY_AFTER_DEFAULT, least..=most);
    for route in section.sections("route") {
        options.routes.push(Route {
            path: route.required("path", "the path that a cluster posts to, such as \"/prod\""),
            cluster: cluster(&route),
            client_names: route.strings("client_names"),
            reading: reading(&route),
            format: route_format(&route),
        });
        route.finish();
    }
    section.finish();
    // If a value could not be read, this check would only report a second mistake, that the value
    // is missing.
    if let (true, Err(error)) = (section.is_sound(), options.check()) {
        section.mistake("", error.to_string());
    }
    options
}

/// Reads the format of the bodies that a route accepts, and the credentials that it asks for.
fn route_format(route: &Section<'_>) -> RouteFormat {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Audit,
        PubSub,
        Firehose,
    }
    let kinds = [("audit", Kind::Audit), ("pubsub", Kind::PubSub), ("firehose", Kind::Firehose)];
    let kind = route.one_of("format", Kind::Audit, &kinds);
    let only = |key: &'static str, of: Kind, name: &str| {
        if route.is_set(key) && kind != of {
            route.mistake(key, format!("is for format = \"{name}\""));
        }
    };
    for key in ["jwks_file", "audience", "email", "issuers"] {
        only(key, Kind::PubSub, "pubsub");
    }
    for key in ["access_key_file", "access_key_env"] {
        only(key, Kind::Firehose, "firehose");
    }
    match kind {
        Kind::Audit => RouteFormat::Audit,
        Kind::PubSub => RouteFormat::PubSub(AssertionOptions {
            jwks_file: route.required("jwks_file", "the keys that sign the tokens of pushes").into(),
            audience: route.required("audience", "the audience that the subscription is configured with"),
            email: route.required("email", "the service account that the subscription pushes as"),
            issuers: match route.is_set("issuers") {
                true => route.strings("issuers"),
                false => webhook::GOOGLE.map(str::to_owned).to_vec(),
            },
        }),
        Kind::Firehose => {
            let key = route.token("access_key_file", "access_key_env");
            if key.is_none() {
                route.mistake("format", "needs access_key_file or access_key_env");
            }
            RouteFormat::Firehose { access_key: Secret::new(key.unwrap_or_default()) }
        }
    }
}

/// Returns how sources and sinks connect to brokers.
fn kafka_security(section: &Section<'_>) -> kafka::Security {
    use kafka::{Mechanism, Sasl, Security};
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Plaintext,
        Tls,
        SaslPlaintext,
        SaslTls,
    }
    let kinds = [
        ("plaintext", Kind::Plaintext),
        ("tls", Kind::Tls),
        ("sasl_plaintext", Kind::SaslPlaintext),
        ("sasl_tls", Kind::SaslTls),
    ];
    let kind = section.one_of("security", Kind::Plaintext, &kinds);
    let mechanisms = [
        ("plain", Mechanism::Plain),
        ("scram-sha-256", Mechanism::ScramSha256),
        ("scram-sha-512", Mechanism::ScramSha512),
    ];
    let mechanism = section.one_of("sasl_mechanism", Mechanism::ScramSha512, &mechanisms);
    let username = section.string("username");
    let password = section.secret("password_file", "password_env").map(Secret::new);
    let with_sasl = matches!(kind, Kind::SaslPlaintext | Kind::SaslTls);
    let sasl = match (with_sasl, username, password) {
        (true, Some(username), Some(password)) => Some(Sasl { mechanism, username, password }),
        (true, ..) => {
            section.mistake("security", "needs username, and password_file or password_env");
            None
        }
        (false, None, None) => None,
        (false, ..) => {
            section.mistake("username", "and a password are for sasl_plaintext and sasl_tls");
            None
        }
    };
    match (kind, sasl) {
        (Kind::Tls, _) => Security::Tls,
        (Kind::SaslPlaintext, Some(sasl)) => Security::SaslPlaintext(sasl),
        (Kind::SaslTls, Some(sasl)) => Security::SaslTls(sasl),
        _ => Security::Plaintext,
    }
}

fn kafka(
    section: &Section<'_>,
    names: &mut Vec<String>,
    silence: &mut Vec<(String, Duration)>,
) -> KafkaOptions {
    use kafka::{Assignor, OnGap, Start};
    let name = source(section, names, silence);
    let cluster = cluster(section);
    let security = kafka_security(section);
    let group = if section.is_set("group") { section.required("group", "") } else { "strongroom".to_owned() };
    let starts = [("earliest", Start::Earliest), ("latest", Start::Latest)];
    let gaps = [("stop", OnGap::Stop), ("continue", OnGap::Continue)];
    let assignors = [("cooperative-sticky", Assignor::CooperativeSticky), ("range", Assignor::Range)];
    let options = KafkaOptions {
        name,
        cluster,
        brokers: section.strings("brokers"),
        topics: section.strings("topics"),
        reading: reading(section),
        group,
        security,
        ca_file: section.path("ca_file"),
        cert_file: section.path("cert_file"),
        key_file: section.path("key_file"),
        start: section.one_of("start", Start::default(), &starts),
        on_gap: section.one_of("on_gap", OnGap::default(), &gaps),
        assignor: section.one_of("assignor", Assignor::default(), &assignors),
        session_timeout: {
            let (least, most) = (Duration::from_secs(1), Duration::from_secs(300));
            section.duration("session_timeout", kafka::SESSION_TIMEOUT, least..=most)
        },
    };
    section.finish();
    if let (true, Err(error)) = (section.is_sound(), KafkaSource::new(options.clone())) {
        section.mistake("", error.to_string());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        let found = Config::parse(text, None).expect_err("mistakes");
        found.iter().map(ToString::to_string).collect()
    }

    /// Returns the default file with every key and section active, also those that are commented
    /// out.
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
        // These keys are left out: those that name a secret, which would have to exist, and those
        // for TLS of Kafka, which need another `security`. All other keys are read.
        let shown = shown();
        let left_out = |line: &str| {
            let keys = [
                "token_env",
                "access_key_env",
                "password_",
                "username",
                "secret_env",
                "api_key_env",
                "url_env",
                "routing_key_env",
                "key_env",
                "key_file = \"/etc/strongroom/proof",
            ];
            let observe = line.starts_with("token_file = \"/etc/strongroom/metrics");
            let webhook = line.starts_with("token_file = \"/etc/strongroom/webhook");
            keys.iter().any(|key| line.starts_with(key))
                || observe
                || webhook
                || line.contains("/etc/strongroom/kafka")
        };
        // The files that the options of sinks name are read together with the configuration.
        let folder = tempfile::tempdir().expect("a folder");
        let tls = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/");
        for (name, from) in [("ca.pem", "cert.pem"), ("client.crt", "cert.pem"), ("client.key", "key.pem")] {
            std::fs::copy(format!("{tls}{from}"), folder.path().join(name)).expect("copied");
        }
        for (name, text) in [
            ("webhook.secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ("splunk.token", "token"),
            ("elastic.key", "key"),
            ("slack.url", "https://hooks.slack.com/services/T/B/x"),
            ("pagerduty.key", "key"),
        ] {
            secret_file(folder.path(), name, text);
        }
        secret_file(folder.path(), "firehose.key", TOKEN);
        let redact_key = folder.path().join("redact.key");
        std::fs::write(&redact_key, "5a".repeat(32)).expect("written");
        std::fs::set_permissions(&redact_key, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("the file belongs to this user");
        let shown = shown.replace("/etc/strongroom/redact.key", &redact_key.display().to_string());
        let shown = shown.replace("/etc/strongroom/sinks", &folder.path().display().to_string());
        let shown =
            shown.replace("/etc/strongroom/firehose", &folder.path().join("firehose").display().to_string());
        let lines: Vec<&str> = shown.lines().filter(|line| !left_out(line)).collect();
        let config = Config::parse(&lines.join("\n"), None).map_err(|found| format!("{found:?}"));
        let config = config.expect("a configuration without mistakes");
        assert!(config.signer.is_some() && config.redact.is_some());
        assert_eq!((config.witnesses.len(), config.timestamps.len()), (1, 1));
        let sources = [config.tails.len(), config.webhooks.len(), config.kafkas.len()];
        assert_eq!((config.archive.as_str(), sources), ("/var/lib/strongroom", [1, 2, 1]));
        let formats = config.webhooks[1].routes.iter().map(|route| &route.format);
        let [RouteFormat::PubSub(pubsub), RouteFormat::Firehose { access_key }] =
            formats.collect::<Vec<_>>()[..]
        else {
            panic!("{:?}", config.webhooks[1]);
        };
        assert_eq!((pubsub.issuers.len(), access_key.expose()), (2, TOKEN));
        assert_eq!((config.sinks.len(), config.outbox.is_some()), (9, true));
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text = "[archive]\nlocatoin = 'x'\n[seal]\nbytes = '1KiB'\n[observe]\nlisten = '0.0.0.0:9464'\n\
                    [log]\nlevel = 'loud'\n[[tail]]\nname = 'a b'\ncluster = ''\npaths = 'x'\npoll = '5'\n";
        assert_eq!(
            mistakes(text),
            [
                "line 1: archive.location: is missing: a folder, a file:// or an s3:// URL",
                "line 2: archive.locatoin: is not a key here; the keys are ca_file, endpoint, kms_key_id, location, lock_mode, \
                 path_style, region, retention_years, single_writer, staging",
                "line 4: seal.bytes: must be a size from 1.0 MiB to 4.0 GiB",
                "line 6: observe.listen: is reachable from outside; then /metrics needs token_file or token_env",
                "line 8: log.level: must be one of error, warn, info, debug, trace",
                "line 10: tail[1].name: must be 1 to 64 letters, digits, -, _ and .",
                "line 11: tail[1].cluster: is empty",
                "line 12: tail[1].paths: must be a list of strings, found a string",
                "line 12: tail[1].paths: needs at least one file, folder or pattern",
                "line 13: tail[1].poll: must be a duration such as \"200ms\", \"30s\", \"5m\" or \"1h\"",
            ]
        );
    }

    #[test]
    fn routes_for_pushes_need_what_their_format_needs() {
        let text = "[archive]\nlocation = 'x'\n[[webhook]]\nname = 'a'\nlisten = '127.0.0.1:0'\nwal = 'w'\n\
                    [[webhook.route]]\npath = '/a'\ncluster = 'c'\njwks_file = 'k'\n\
                    [[webhook.route]]\npath = '/b'\ncluster = 'c'\nformat = 'pubsub'\nemail = ''\naccess_key_env = 'K'\n\
                    [[webhook.route]]\npath = '/c'\ncluster = 'c'\nformat = 'firehose'\n\
                    [[webhook.route]]\npath = '/d'\ncluster = 'c'\nformat = 'kinesis'\n";
        assert_eq!(
            mistakes(text),
            [
                "line 10: webhook[1].route[1].jwks_file: is for format = \"pubsub\"",
                "line 11: webhook[1].route[2].audience: is missing: the audience that the subscription is configured with",
                "line 11: webhook[1].route[2].jwks_file: is missing: the keys that sign the tokens of pushes",
                "line 15: webhook[1].route[2].email: is empty",
                "line 16: webhook[1].route[2].access_key_env: is for format = \"firehose\"",
                "line 20: webhook[1].route[3].format: needs access_key_file or access_key_env",
                "line 24: webhook[1].route[4].format: must be one of audit, pubsub, firehose",
            ]
        );
        let authority = "[archive]\nlocation = 'x'\n[[webhook]]\nname = 'a'\nlisten = '127.0.0.1:0'\nwal = 'w'\n\
                         cert_file = 'c'\nkey_file = 'k'\nclient_ca_file = 'ca'\n\
                         [[webhook.route]]\npath = '/b'\ncluster = 'c'\nformat = 'pubsub'\njwks_file = 'k'\naudience = 'a'\nemail = 'e'\n";
        let found = mistakes(authority);
        assert!(found.len() == 1 && found[0].contains("use two listeners"), "{found:?}");
        let alone = authority.replace("client_ca_file = 'ca'\n", "");
        assert!(Config::parse(&alone, None).is_ok());
    }

    #[test]
    fn writers_are_read_for_every_source() {
        let text = "[archive]\nlocation = 'x'\n[[tail]]\nname = 'a'\ncluster = 'c'\npaths = ['x']\nwriters = ['a/b', 'k*']\n\
                    [[kafka]]\nname = 'b'\ncluster = 'c'\nbrokers = ['b:1']\ntopics = ['t']\nwriters = ['*']\n\
                    [[webhook]]\nname = 'd'\nlisten = '127.0.0.1:0'\nwal = 'w'\ncert_file = 'c'\nkey_file = 'k'\nclient_ca_file = 'ca'\n\
                    [[webhook.route]]\npath = '/a'\ncluster = 'c'\nwriters = ['/g']\n";
        let config = Config::parse(text, None)
            .map_err(|found| format!("{found:?}"))
            .expect("a configuration without mistakes");
        let found = [
            &config.tails[0].reading.writers,
            &config.kafkas[0].reading.writers,
            &config.webhooks[0].routes[0].reading.writers,
        ];
        let writers = |texts: &[&str]| {
            Writers::new(texts.iter().map(|text| Writer::parse(text).expect(text)).collect())
        };
        assert_eq!(found, [&writers(&["a/b", "k*"]), &writers(&["*"]), &writers(&["/g"])]);
        let found = mistakes(&text.replace("'k*'", "'k*x', 'a b'"));
        assert_eq!(
            found,
            [
                "line 7: tail[1].writers: \"a b\" has white space or a control character",
                "line 7: tail[1].writers: \"k*x\" has a * that is not at the end of a name",
            ]
        );
        let many = vec!["'a'"; WRITERS_MAX + 1].join(", ");
        assert_eq!(mistakes(&text.replace("'k*'", &many)).len(), 1);
    }

    #[test]
    fn a_path_to_the_event_is_read_for_every_source_of_lines() {
        let text = "[archive]\nlocation = 'x'\n[[tail]]\nname = 'a'\ncluster = 'c'\npaths = ['x']\nunwrap = 'a.b'\n\
                    [[kafka]]\nname = 'b'\ncluster = 'c'\nbrokers = ['b:1']\ntopics = ['t']\nunwrap = 'x\\.y'\n\
                    [[webhook]]\nname = 'd'\nlisten = '127.0.0.1:0'\nwal = 'w'\ncert_file = 'c'\nkey_file = 'k'\nclient_ca_file = 'ca'\n\
                    [[webhook.route]]\npath = '/a'\ncluster = 'c'\nunwrap = 'z'\n";
        let config = Config::parse(text, None)
            .map_err(|found| format!("{found:?}"))
            .expect("a configuration without mistakes");
        let found = [
            &config.tails[0].reading.unwrap,
            &config.kafkas[0].reading.unwrap,
            &config.webhooks[0].routes[0].reading.unwrap,
        ];
        let found = found.map(|path| path.as_ref().map(ToString::to_string));
        assert_eq!(found.map(Option::unwrap_or_default), ["a.b", r"x\.y", "z"]);
        let wrong = text.replace("'a.b'", "'a..b'").replace("'z'", "'requestObject.z'");
        let found = mistakes(&wrong);
        assert!(found.len() == 2, "{found:?}");
        for expected in
            ["tail[1].unwrap: has an empty name", "webhook[1].route[1].unwrap: begins with requestObject"]
        {
            assert!(found.iter().any(|found| found.contains(expected)), "{found:?}");
        }
        let push = text.replace("unwrap = 'z'", "unwrap = 'z'\nformat = 'firehose'\naccess_key_env = 'PATH'");
        let push = push.replace("client_ca_file = 'ca'\n", "");
        assert!(mistakes(&push).iter().any(|found| found.contains("has an unwrap")), "{:?}", mistakes(&push));
    }

    #[test]
    fn a_file_that_is_not_toml_is_reported_with_its_line() {
        let found = mistakes("[archive]\nlocation = \n");
        assert!(found.len() == 1 && found[0].starts_with("line 2: "), "{found:?}");
        assert_eq!(mistakes("[archive]\nlocation = 'x'\n").len(), 1, "no source");
    }

    const TOKEN: &str = "0123456789abcdef0123456789abcdee";

    fn secret_file(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640))
            .expect("the file belongs to this user");
        path
    }

    #[test]
    fn secrets_that_others_know_are_mistakes() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = secret_file(folder.path(), "open", TOKEN);
        std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .expect("the file belongs to this user");
        let short = secret_file(folder.path(), "short", "x");
        std::fs::create_dir(folder.path().join("wal")).expect("made");
        std::os::unix::fs::symlink(folder.path().join("wal"), folder.path().join("link")).expect("linked");
        let webhook = |name: &str, token: &Path, wal: &str| {
            format!(
                "[[webhook]]\nname = '{name}'\nlisten = '127.0.0.1:0'\ntoken_file = '{}'\nwal = '{}'\n\
                 [[webhook.route]]\npath = '/a'\ncluster = 'c'\n",
                token.display(),
                folder.path().join(wal).display()
            )
        };
        let text = format!(
            "[archive]\nlocation = 's3://AKIAKEY:SECRETKEY@bucket/a'\nendpoint = 'https://AKIAKEY:SECRETKEY@store'\n\
             [outbox]\nfolder = '{}'\n{}{}{}",
            folder.path().join("wal/./").display(),
            webhook("a", &open, "wal"),
            webhook("b", &short, "link"),
            webhook("c", &folder.path().join("none"), "own"),
        );
        let found = mistakes(&text);
        for expected in [
            "line 2: archive.location: has a user, a key or a password in its URL",
            "line 3: archive.endpoint: has a user, a key or a password in its URL",
            "line 5: outbox.folder: is the folder of another log",
            "webhook[1].token_file: ",
            "can be read by every user; chmod o-rwx it",
            "webhook[2].token_file: is easy to guess",
            "webhook[2].wal: is the folder of another log",
            "webhook[3].token_file: cannot read",
        ] {
            assert!(found.iter().any(|found| found.contains(expected)), "{expected}: {found:#?}");
        }
        assert_eq!(found.len(), 7, "{found:#?}");
        assert!(!found.concat().contains("SECRETKEY"), "{found:#?}");
        let overridden = Config::parse(&text, Some("s3://AKIAKEY:SECRETKEY@bucket/a")).expect_err("mistakes");
        assert!(format!("{overridden:?}").contains("has a key in its URL"), "{overridden:?}");
        assert!(!format!("{overridden:?}").contains("SECRETKEY"), "{overridden:?}");
        for wrong in ["s3://m1/a", "ftp://x/y"] {
            let text = "[[tail]]\nname = 'a'\ncluster = 'c'\npaths = ['x']\n";
            let found = Config::parse(text, Some(wrong)).expect_err("a mistake");
            assert!(format!("{found:?}").contains("must be a folder"), "{wrong}: {found:?}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_are_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = secret_file(folder.path(), "token", &format!("{TOKEN}\n"));
        let text = format!(
            "[archive]\nlocation = 'x'\n[observe]\ntoken_file = '{}'\n[[tail]]\nname = 'a'\ncluster = 'c'\npaths = ['x']\n",
            path.display()
        );
        let config = Config::parse(&text, None).expect("a configuration");
        assert_eq!(config.observe.token.as_ref().map(Secret::expose), Some(TOKEN));
        assert!(!format!("{config:?}").contains(TOKEN));
    }
}
