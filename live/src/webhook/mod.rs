//! The API server's audit webhook: a listener that acknowledges a batch when it is durable, and a
//! source that hands over what was acknowledged.
//!
//! ```text
//!  API server ──POST──▶ listener ──lines──▶ write-ahead log ──▶ source ──Chunk──▶ pipeline
//!             ◀──200───          ◀──durable──      ▲                                 │
//!                                                  └───── sealed: may be deleted ────┘
//! ```
//!
//! Invariants:
//! - A batch that was answered with 200 is handed to the pipeline exactly once, whichever process
//!   is killed at whichever time. The batch is in the log before the answer; the archive's position
//!   says how much of the log the archive has; and a repeated batch is recognised by its bytes.
//! - Nothing is served without authentication, on loopback either. The listener requires a client
//!   certificate or a bearer token, or both if both are configured. Routes to which clouds push
//!   have credentials of their own.
//! - The listener runs whether or not a pipeline runs. When the log is full, it answers with 429.
//! - The cluster is determined by the path, never by the body.
//!
//! Where things are: `strongroom_lines::body` turns the bodies of API servers into lines, and
//! `push` those of clouds, whose senders `assertion` checks. `record` and `wal` store the lines,
//! and `cipher` encrypts them. `recent` recognises repeated batches. `server` and `tls` talk to
//! senders, and `refusals` reports the senders that were refused. `follow` is the source.

mod assertion;
mod cipher;
mod counters;
mod follow;
mod push;
mod recent;
mod record;
mod refusal_kind;
mod refusals;
mod refused;
mod server;
mod tls;
mod wal;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strongroom_lines::Reading;
use strongroom_redact::Redactor;
use strongroom_schemas::error_chain;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

pub use self::assertion::{AssertionOptions, GOOGLE, KeysError};
pub use self::counters::{LATENCY_MS, STATUSES, WebhookCounters};
pub use self::follow::WebhookSource;
pub use self::refusal_kind::RefusalKind;
pub use self::tls::{Identity, TlsError, TlsFiles};
pub use self::wal::WalError;

use self::assertion::Assertions;
use self::cipher::TextCipher;
use self::record::{NAME_BYTES_MAX, PARTITIONS_MAX, TEXT_BYTES_MAX};
use self::refusals::Refusals;
use self::server::{
    Admission, Listener, RELOAD_INTERVAL, ROOM_BYTES, STRANGERS_MAX, STRANGERS_OF_ADDRESS_MAX, Target,
    normal_path,
};
use self::wal::{Wal, WalOptions};
use crate::Secret;
use crate::door::Door;

/// Default of [`WebhookOptions::wal_bytes_max`].
pub const WAL_BYTES_MAX_DEFAULT: u64 = 4 << 30;
/// Default of [`WebhookOptions::disk_free_bytes_min`].
pub const DISK_FREE_BYTES_MIN_DEFAULT: u64 = 256 << 20;
/// Default of [`WebhookOptions::body_bytes_max`].
pub const BODY_BYTES_MAX_DEFAULT: usize = 64 << 20;
/// Default of [`WebhookOptions::memory_bytes_max`].
pub const MEMORY_BYTES_MAX_DEFAULT: usize = 256 << 20;
/// Default of [`WebhookOptions::line_bytes_max`].
pub const LINE_BYTES_MAX_DEFAULT: usize = 64 << 20;
/// Default of [`WebhookOptions::connections_max`].
pub const CONNECTIONS_MAX_DEFAULT: usize = 512;
/// Default of [`WebhookOptions::remembered_max`].
pub const REMEMBERED_MAX_DEFAULT: usize = 200_000;
/// Default of [`WebhookOptions::remembered_for`].
pub const REMEMBERED_FOR_DEFAULT: Duration = Duration::from_secs(3_600);
/// Default of [`WebhookOptions::retry_after`].
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(5);
/// Longest [`WebhookOptions::retry_after`]. It is short, so that a batch is still remembered when
/// it is sent again.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The log must have room for this many bodies of maximum size.
const WAL_BODIES_MIN: u64 = 4;
/// Number of bodies for which a push may need memory: the body itself, one of its records, and the
/// unpacked text.
const PUSH_BODIES: usize = 3;
/// Maximum number of batches that wait for the writer.
const QUEUE_BATCHES: usize = 1 << 10;
/// Number of threads that serve connections, and also the number of threads that scan long bodies.
const THREADS: usize = 2;
/// How often the listener checks whether all connections are closed.
const CLOSING_CHECK: Duration = Duration::from_millis(10);

/// A path and the cluster whose API server posts to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Begins with a slash; a slash at its end is ignored.
    pub path: String,
    pub cluster: String,
    /// Common names of the client certificates that may post here. If empty, every certificate
    /// issued by [`TlsFiles::client_ca`] may.
    pub client_names: Vec<String>,
    /// How the stream is read: which writers are believed and, for [`RouteFormat::Audit`] only,
    /// where events are. All routes of one cluster must have the same value, because they share a
    /// stream.
    pub reading: Arc<Reading>,
    pub format: RouteFormat,
}

/// What a route accepts, and from which senders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RouteFormat {
    /// Batches of an API server, from clients with the certificate or the token that the listener
    /// requires.
    #[default]
    Audit,
    /// Pushes of a Pub/Sub subscription, with a signed token.
    PubSub(AssertionOptions),
    /// Deliveries of a Firehose stream, with this access key.
    Firehose { access_key: Secret },
}

/// What a listener serves, and how much it may use.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// The source's name in the configuration. It is part of partition names, and must not change.
    pub name: String,
    pub listen: SocketAddr,
    /// `None`: plain HTTP, on loopback only.
    pub tls: Option<TlsFiles>,
    /// Bearer tokens for routes of the format [`RouteFormat::Audit`]; each of them is accepted. If
    /// there is none, client certificates must be required.
    pub tokens: Vec<Secret>,
    pub routes: Vec<Route>,
    /// Folder of the write-ahead log, used by this source only; created if it is missing.
    pub wal_dir: PathBuf,
    /// Maximum size of the log, in bytes. At this size batches are refused with 429, until a part
    /// of the log is sealed in the archive and deleted.
    pub wal_bytes_max: u64,
    /// Free bytes to leave on the log's disk.
    pub disk_free_bytes_min: u64,
    /// Longest body; longer ones are refused with 413.
    pub body_bytes_max: usize,
    /// Maximum size of all bodies under way, taken together, in bytes.
    pub memory_bytes_max: usize,
    /// Longest body that is stored as one line because it is neither a list nor an event.
    pub line_bytes_max: usize,
    pub connections_max: usize,
    /// How many acknowledged batches are remembered, and how long, so that a repeated batch is
    /// recognised.
    pub remembered_max: usize,
    pub remembered_for: Duration,
    /// How long a refused sender is asked to wait; whole seconds.
    pub retry_after: Duration,
    /// The redaction policy and its keys, under which the log is encrypted.
    pub redactor: Option<Arc<Redactor>>,
}

impl WebhookOptions {
    /// Returns options with the defaults of this module. They are refused until a route and either
    /// a token or TLS are added.
    pub fn new(name: impl Into<String>, listen: SocketAddr, wal_dir: impl Into<PathBuf>) -> Self {
        WebhookOptions {
            name: name.into(),
            listen,
            tls: None,
            tokens: Vec::new(),
            routes: Vec::new(),
            wal_dir: wal_dir.into(),
            wal_bytes_max: WAL_BYTES_MAX_DEFAULT,
            disk_free_bytes_min: DISK_FREE_BYTES_MIN_DEFAULT,
            body_bytes_max: BODY_BYTES_MAX_DEFAULT,
            memory_bytes_max: MEMORY_BYTES_MAX_DEFAULT,
            line_bytes_max: LINE_BYTES_MAX_DEFAULT,
            connections_max: CONNECTIONS_MAX_DEFAULT,
            remembered_max: REMEMBERED_MAX_DEFAULT,
            remembered_for: REMEMBERED_FOR_DEFAULT,
            retry_after: RETRY_AFTER_DEFAULT,
            redactor: None,
        }
    }
}

impl WebhookOptions {
    /// Checks that the options are valid together, and opens nothing.
    ///
    /// # Errors
    /// The errors with which [`Webhook::start`] would refuse the options.
    pub fn check(&self) -> Result<(), WebhookError> {
        checked(self)
    }
}

#[derive(Debug, Error)]
pub enum WebhookError {
    #[error("webhook \"{name}\": without TLS it listens on loopback only, and {listen} is not")]
    Exposed { name: String, listen: SocketAddr },
    #[error("webhook \"{name}\" requires neither client certificates nor a token")]
    Unauthenticated { name: String },
    #[error("webhook \"{name}\" has an empty token")]
    EmptyToken { name: String },
    #[error("webhook \"{name}\" has no route")]
    NoRoute { name: String },
    #[error("webhook \"{name}\": the path \"{path}\" {what}")]
    Path { name: String, path: String, what: &'static str },
    #[error("the name \"{name}\" is empty, longer than {NAME_BYTES_MAX} bytes or has a control character")]
    Name { name: String },
    #[error("webhook \"{name}\": {what}")]
    Bound { name: String, what: String },
    #[error("webhook \"{name}\": the keys of the path \"{path}\" cannot be used")]
    Keys {
        name: String,
        path: String,
        #[source]
        source: KeysError,
    },
    #[error("webhook \"{name}\": the certificate cannot be used")]
    Tls {
        name: String,
        #[source]
        source: Box<TlsError>,
    },
    #[error("webhook \"{name}\": the write-ahead log cannot be used")]
    Wal {
        name: String,
        #[source]
        source: WalError,
    },
    #[error("webhook \"{name}\" cannot listen on {listen}")]
    Listen {
        name: String,
        listen: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("webhook \"{name}\" cannot start its threads")]
    Threads {
        name: String,
        #[source]
        source: std::io::Error,
    },
}

/// A running listener.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    wal: Arc<Wal>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Webhook {
    /// Opens the log, binds the address and accepts requests from then on, whether or not the
    /// source runs.
    ///
    /// # Errors
    /// If the options are not valid together, if a certificate or the log cannot be used, or if the
    /// address is taken.
    pub fn start(options: WebhookOptions) -> Result<(Webhook, WebhookSource), WebhookError> {
        checked(&options)?;
        let name = options.name.clone();
        let targets = targets(&options)?;
        let identity = options
            .tls
            .clone()
            .map(Identity::load)
            .transpose()
            .map_err(|source| WebhookError::Tls { name: name.clone(), source: Box::new(source) })?;
        let counters = Arc::new(WebhookCounters::default());
        let no_wal = |source| WebhookError::Wal { name: name.clone(), source };
        let wal_options = WalOptions {
            folder: options.wal_dir.clone(),
            bytes_max: options.wal_bytes_max,
            disk_free_bytes_min: options.disk_free_bytes_min,
            remembered_max: options.remembered_max,
            remembered_for: options.remembered_for,
            cipher: TextCipher(options.redactor.clone()),
        };
        let (wal, writer) = Wal::open(wal_options, counters).map_err(no_wal)?;
        let mut clusters: BTreeSet<String> = wal.clusters().into_keys().collect();
        clusters.extend(options.routes.iter().map(|route| route.cluster.clone()));
        if clusters.len() > PARTITIONS_MAX {
            return Err(no_wal(WalError::TooManyClusters { path: options.wal_dir.clone() }));
        }

        let no_threads = |source| WebhookError::Threads { name: name.clone(), source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(THREADS)
            .thread_name("webhook")
            .enable_all()
            .build()
            .map_err(no_threads)?;
        let no_socket = |source| WebhookError::Listen { name: name.clone(), listen: options.listen, source };
        let socket = runtime.block_on(tokio::net::TcpListener::bind(options.listen)).map_err(no_socket)?;
        let address = socket.local_addr().map_err(no_socket)?;
        let (queue, batches) = crossbeam_channel::bounded(QUEUE_BATCHES);
        let writer = std::thread::Builder::new()
            .name("webhook-wal".to_owned())
            .spawn(move || writer.run(&batches))
            .map_err(no_threads)?;
        let duplicates = Arc::new(AtomicU64::new(0));
        let listener = Arc::new(Listener {
            targets,
            tokens: options.tokens.iter().map(|token| blake3::hash(token.expose().as_bytes())).collect(),
            identity,
            body_bytes_max: options.body_bytes_max,
            line_bytes_max: options.line_bytes_max,
            retry_after: options.retry_after,
            queue,
            wal: Arc::clone(&wal),
            memory: Arc::new(Semaphore::new(options.memory_bytes_max.div_ceil(ROOM_BYTES))),
            connections: Arc::new(Semaphore::new(options.connections_max)),
            door: Door::new(STRANGERS_MAX, STRANGERS_OF_ADDRESS_MAX),
            duplicates: Arc::clone(&duplicates),
            refusals: Refusals::new(name.clone(), Arc::clone(&wal.counters)),
        });
        let (stop, stopped) = watch::channel(false);
        runtime.spawn(keep_identity(Arc::clone(&listener)));
        runtime.spawn(keep_keys(Arc::clone(&listener)));
        runtime.spawn(listener.run(socket, stopped));
        let of_route = |route: &Route| (route.cluster.clone(), Arc::clone(&route.reading));
        let readings = options.routes.iter().map(of_route).collect();
        let source = WebhookSource { name, wal: Arc::clone(&wal), duplicates, readings };
        Ok((Webhook { address, wal, stop, runtime: Some(runtime), writer: Some(writer) }, source))
    }

    /// Returns the bound address, with the port that the system chose if it was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn counters(&self) -> Arc<WebhookCounters> {
        Arc::clone(&self.wal.counters)
    }

    /// Returns why batches are refused now; `None` if they are not refused.
    pub fn trouble(&self) -> Option<String> {
        self.wal.trouble()
    }

    /// Accepts no more connections, answers the requests under way if that is possible within
    /// `deadline`, and stops. What was acknowledged stays in the log. The source may be stopped
    /// before or after this call, or not at all. A disk that hangs in a sync delays the shutdown
    /// past the deadline.
    pub fn shutdown(self, deadline: Duration) {
        let until = Instant::now() + deadline;
        self.stop.send_replace(true);
        while self.wal.counters.connections.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            std::thread::sleep(CLOSING_CHECK);
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The runtime waits for long bodies that are being scanned; there are at most two.
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
        // The runtime owned the last sender of batches, so the writer ends.
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Reads the certificate's files again when they change.
async fn keep_identity(listener: Arc<Listener>) {
    let Some(identity) = &listener.identity else { return };
    let mut refused = None;
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        match identity.reload() {
            Ok(true) => tracing::info!("the webhook's certificate was reloaded"),
            Ok(false) => refused = None,
            Err(error) => {
                let text = error.to_string();
                if refused.as_ref() != Some(&text) {
                    listener.wal.counters.certificates_refused.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "the webhook's new certificate cannot be used; the old one stays in use");
                    refused = Some(text);
                }
            }
        }
    }
}

/// Reads the routes' key files again when they change.
async fn keep_keys(listener: Arc<Listener>) {
    let mut refused: HashMap<&str, String> = HashMap::new();
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        for (path, target) in &listener.targets {
            let Admission::PubSub(assertions) = &target.admission else { continue };
            match assertions.reload() {
                Ok(is_new) => {
                    refused.remove(path.as_str());
                    if is_new {
                        tracing::info!(path, "the keys of the route were reloaded");
                    }
                }
                Err(error) => {
                    let text = error_chain(&error);
                    if refused.get(path.as_str()) != Some(&text) {
                        tracing::error!(
                            path,
                            error = text,
                            "the route's new keys cannot be used; the old ones stay in use"
                        );
                        refused.insert(path, text);
                    }
                }
            }
        }
    }
}

/// Returns the routes for looking up paths.
fn targets(options: &WebhookOptions) -> Result<HashMap<String, Target>, WebhookError> {
    let target = |route: &Route| {
        let admission = match &route.format {
            RouteFormat::Audit => Admission::Listener,
            RouteFormat::PubSub(options_) => {
                let (name, path) = (options.name.clone(), route.path.clone());
                let keys = Assertions::load(options_.clone());
                Admission::PubSub(keys.map_err(|source| WebhookError::Keys { name, path, source })?)
            }
            RouteFormat::Firehose { access_key } => {
                Admission::Firehose(blake3::hash(access_key.expose().as_bytes()))
            }
        };
        let (cluster, client_names) = (route.cluster.as_str().into(), route.client_names.clone());
        Ok((normal_path(&route.path).to_owned(), Target { cluster, client_names, admission }))
    };
    options.routes.iter().map(target).collect()
}

/// Checks that the options are valid together.
fn checked(options: &WebhookOptions) -> Result<(), WebhookError> {
    let name = || options.name.clone();
    let is_name =
        |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if !is_name(&options.name) || options.name.contains('/') {
        return Err(WebhookError::Name { name: name() });
    }
    if options.tls.is_none() && !options.listen.ip().is_loopback() {
        return Err(WebhookError::Exposed { name: name(), listen: options.listen });
    }
    let has_authority = options.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let is_push = |route: &Route| route.format != RouteFormat::Audit;
    let has_push = options.routes.iter().any(is_push);
    let is_all_push = has_push && options.routes.iter().all(is_push);
    if !has_authority && options.tokens.is_empty() && !is_all_push {
        return Err(WebhookError::Unauthenticated { name: name() });
    }
    if options.tokens.iter().any(|token| token.expose().trim().is_empty()) {
        return Err(WebhookError::EmptyToken { name: name() });
    }
    let bound = |what: String| WebhookError::Bound { name: name(), what };
    if options.body_bytes_max == 0 || options.body_bytes_max >= TEXT_BYTES_MAX {
        return Err(bound(format!("a body may have 1 to {} bytes", TEXT_BYTES_MAX - 1)));
    }
    if options.memory_bytes_max <= options.body_bytes_max {
        return Err(bound("the memory of all bodies must be larger than one body".to_owned()));
    }
    if has_push && options.memory_bytes_max / PUSH_BODIES <= options.body_bytes_max {
        return Err(bound(format!(
            "the memory of all bodies must be larger than {PUSH_BODIES} bodies, because pushes are unpacked in it"
        )));
    }
    if is_all_push && !options.tokens.is_empty() {
        return Err(bound("it has a token, but no route of the format audit that would use it".to_owned()));
    }
    if options.wal_bytes_max < WAL_BODIES_MIN * options.body_bytes_max as u64 {
        return Err(bound(format!("the log must have room for {WAL_BODIES_MIN} of the longest bodies")));
    }
    if options.connections_max == 0 || options.connections_max > Semaphore::MAX_PERMITS {
        return Err(bound("at least one connection must be allowed".to_owned()));
    }
    if options.retry_after.as_secs() == 0 || options.retry_after > RETRY_AFTER_MAX {
        return Err(bound(format!(
            "a sender can be asked to wait 1 to {} seconds",
            RETRY_AFTER_MAX.as_secs()
        )));
    }
    if options.routes.is_empty() {
        return Err(WebhookError::NoRoute { name: name() });
    }
    let (mut paths, mut readings) = (BTreeSet::new(), HashMap::new());
    for route in &options.routes {
        let wrong = |what| WebhookError::Path { name: name(), path: route.path.clone(), what };
        if !is_name(&route.cluster) {
            return Err(WebhookError::Name { name: route.cluster.clone() });
        }
        if !route.path.starts_with('/') {
            return Err(wrong("does not begin with a slash"));
        }
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%');
        if !route.path.bytes().all(plain) {
            return Err(wrong("has a character that requests encode differently"));
        }
        if !route.client_names.is_empty() && !has_authority {
            return Err(wrong("names client certificates, but none are required"));
        }
        if is_push(route) && has_authority {
            return Err(wrong(
                "is for a cloud, which pushes without a client certificate, but the listener requires one: use two listeners",
            ));
        }
        if is_push(route) && route.reading.unwrap.is_some() {
            return Err(wrong("is for a cloud, whose wrappers are known, but has an unwrap"));
        }
        if readings.insert(&route.cluster, &route.reading).is_some_and(|other| *other != route.reading) {
            return Err(wrong("differs in unwrap or writers from another path of its cluster"));
        }
        match &route.format {
            RouteFormat::Audit => {}
            RouteFormat::PubSub(options) => {
                let texts = [&options.audience, &options.email].into_iter().chain(&options.issuers);
                if options.issuers.is_empty() || texts.into_iter().any(|text| text.trim().is_empty()) {
                    return Err(wrong("needs an audience, an account and an issuer that are not empty"));
                }
            }
            RouteFormat::Firehose { access_key } => {
                if access_key.expose().trim().is_empty() {
                    return Err(wrong("has an empty access key"));
                }
            }
        }
        if !paths.insert(normal_path(&route.path)) {
            return Err(wrong("is given twice"));
        }
    }
    Ok(())
}
