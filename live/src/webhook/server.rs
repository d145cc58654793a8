//! The listener's requests and answers: what is served, to whom, and how much of it at a time.
//!
//! Invariants:
//! - Nothing of a body is read before its sender is authenticated and authorised for the path.
//! - 200 is answered when, and only when, all items of the request are durable in the log, from
//!   this request or from an earlier one.
//! - Connections, the streams of one connection, bytes of bodies, and batches under way are each
//!   bounded, and every wait for a peer ends. When a bound is reached, the answer is 429 with the
//!   time to wait. An API server then tries again for minutes, whereas it gives a batch up after
//!   any other refusal.
//! - No answer and no log line contains a token or a byte of a body.
//! - Each refusal is counted by kind, and logged: see [`Refusals`]. A refusal by the write-ahead
//!   log is reported as trouble of the source instead.
//!
//! A crash loses only batches that were not answered; their senders try again.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use strongroom_journal::{checksum, lock, now_ms};
use strongroom_lines::body::{self, BodyError, Lines};

use super::assertion::{AssertionError, Assertions};
use super::push::{self, ID_BYTES_MAX, PushError, Pushed};
use super::recent::{Lookup, Outcome};
use super::record::Key;
use super::refusal_kind::RefusalKind;
use super::refusals::{Refusals, Who};
use super::refused::Refused;
use super::tls::{Identity, common_names, subject, with_subject};
use super::wal::{Batch, Wal};
use crate::door::{Door, Stranger};

/// Longest time for a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Maximum number of connections on which no sender has authenticated yet.
pub const STRANGERS_MAX: usize = 512;
/// Maximum number of such connections from one address. Many API servers may share the address of a
/// load balancer.
pub const STRANGERS_OF_ADDRESS_MAX: usize = 128;
/// A connection on which no sender has authenticated is closed after this time.
const STRANGER_MAX: Duration = Duration::from_secs(15);
/// An idle connection is closed after this time. An API server closes it earlier, after 90 s, so
/// that it never sends a request on a connection that is being closed.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Longest time to read a body: less than the 30 s after which the API server gives up on a
/// request.
const BODY_MAX: Duration = Duration::from_secs(25);
/// How often a connection is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of requests under way on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
const HEADER_BYTES_MAX: u32 = 32 << 10;
const WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The unit in which room in memory is counted.
pub const ROOM_BYTES: usize = 4 << 10;
/// Room for a body of unknown length.
const ROOM_FIRST_BYTES: usize = 64 << 10;
/// Longer bodies are scanned on another thread, so that other requests are not delayed.
const INLINE_BYTES_MAX: usize = 512 << 10;
/// Wait before accepting again, when the system cannot accept a connection.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);
/// How often the certificate's files are checked.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// The cluster to which a path belongs, and the clients that may post to the path.
pub struct Target {
    pub cluster: Arc<str>,
    /// Common names of client certificates; empty: every certificate of the authority.
    pub client_names: Vec<String>,
    pub admission: Admission,
}

/// How the senders to a path authenticate. The format of their bodies follows from this.
pub enum Admission {
    /// An API server, with the certificate or the token that the listener requires.
    Listener,
    PubSub(Assertions),
    /// The hash of the access key.
    Firehose(blake3::Hash),
}

/// The header of Firehose's access key.
const ACCESS_KEY: &str = "x-amz-firehose-access-key";
/// The header with the id of a delivery, which the answer repeats.
const REQUEST_ID: &str = "x-amz-firehose-request-id";

pub struct Listener {
    pub targets: HashMap<String, Target>,
    /// Hashes of the tokens. Comparing hashes does not reveal how much of a guessed token is right.
    pub tokens: Vec<blake3::Hash>,
    pub identity: Option<Identity>,
    pub body_bytes_max: usize,
    pub line_bytes_max: usize,
    pub retry_after: Duration,
    pub queue: Sender<Batch>,
    pub wal: Arc<Wal>,
    pub memory: Arc<Semaphore>,
    /// Permits for connections whose sender has authenticated.
    pub connections: Arc<Semaphore>,
    /// The room for all other connections.
    pub door: Arc<Door>,
    pub duplicates: Arc<AtomicU64>,
    pub refusals: Refusals,
}

/// The state of one connection, shared by its requests and its idle check.
struct Peer {
    address: SocketAddr,
    /// The common names in the client certificate, and its whole subject.
    names: Vec<String>,
    subject: Option<String>,
    is_known: AtomicBool,
    /// Notified when the sender has authenticated.
    known: Notify,
    under_way: AtomicUsize,
    /// Milliseconds from `since` to the end of the last request.
    used: AtomicU64,
    since: Instant,
}

impl Peer {
    fn new(address: SocketAddr, names: Vec<String>, subject: Option<String>) -> Self {
        Peer {
            address,
            names,
            subject,
            is_known: AtomicBool::new(false),
            known: Notify::new(),
            under_way: AtomicUsize::new(0),
            used: AtomicU64::new(0),
            since: Instant::now(),
        }
    }

    fn who(&self) -> Who<'_> {
        Who { address: self.address, subject: self.subject.as_deref() }
    }

    /// Whether the connection has been unused for too long.
    fn is_idle(&self) -> bool {
        let max = if self.is_known.load(Ordering::Relaxed) { IDLE_MAX } else { STRANGER_MAX };
        let used = Duration::from_millis(self.used.load(Ordering::Relaxed));
        self.under_way.load(Ordering::Relaxed) == 0 && self.since.elapsed().saturating_sub(used) > max
    }
}

/// Returns when the stranger has to leave; never for a sender that has authenticated.
async fn away(stranger: Option<&Stranger>) {
    match stranger {
        Some(stranger) => stranger.sent_away().await,
        None => std::future::pending().await,
    }
}

/// A request that is neither answered nor given up yet.
struct UnderWay(Arc<Peer>);

impl UnderWay {
    fn new(peer: Arc<Peer>) -> Self {
        peer.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(peer)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.0.is_known.load(Ordering::Relaxed) {
            let used = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.0.used.store(used, Ordering::Relaxed);
        }
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Increases a counter for as long as this value lives.
struct Counted<'c>(&'c AtomicU64);

impl<'c> Counted<'c> {
    fn new(count: &'c AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All answers except 200.
#[derive(Debug)]
enum Answer {
    Unauthorized(&'static str),
    /// The signed token is not accepted.
    Assertion(AssertionError),
    Forbidden,
    NoSuchPath,
    /// There is no such path. The sender has no credentials, so the answer does not say which paths
    /// exist.
    NotSaid,
    OnlyPost,
    Encoded,
    TooLong,
    Body(BodyError),
    NotADelivery,
    BadGzip,
    BrokenOff,
    TooSlow,
    /// Too much is under way at once.
    Busy,
    Full,
    Failed,
}

impl Answer {
    fn status(&self) -> StatusCode {
        match self {
            Answer::Unauthorized(_) | Answer::Assertion(_) | Answer::NotSaid => StatusCode::UNAUTHORIZED,
            Answer::Forbidden => StatusCode::FORBIDDEN,
            Answer::NoSuchPath => StatusCode::NOT_FOUND,
            Answer::OnlyPost => StatusCode::METHOD_NOT_ALLOWED,
            Answer::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Answer::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Answer::Body(_) | Answer::NotADelivery | Answer::BadGzip | Answer::BrokenOff => {
                StatusCode::BAD_REQUEST
            }
            Answer::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Answer::Busy | Answer::Full => StatusCode::TOO_MANY_REQUESTS,
            Answer::Failed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn text(&self) -> String {
        let text = match self {
            Answer::Unauthorized(what) => what,
            Answer::Assertion(error) => return error.to_string(),
            Answer::Forbidden => "this certificate may not use this path",
            Answer::NoSuchPath => "no such path",
            Answer::NotSaid => "credentials are required",
            Answer::OnlyPost => "audit events must be sent with POST",
            Answer::Encoded => "the body must not be compressed",
            Answer::TooLong => "the body is too long",
            Answer::Body(error) => return error.to_string(),
            Answer::NotADelivery => "the body is not a delivery of Firehose",
            Answer::BadGzip => "the body is not gzip, although its header says so",
            Answer::BrokenOff => "the body broke off",
            Answer::TooSlow => "the body arrived too slowly",
            Answer::Busy => "too many requests at once",
            Answer::Full => "the write-ahead log is full",
            Answer::Failed => "the write-ahead log cannot be written",
        };
        text.to_owned()
    }
}

impl Answer {
    /// Returns the kind under which the answer is counted and logged. `None` if the write-ahead log
    /// has already logged the reason.
    fn kind(&self) -> Option<RefusalKind> {
        Some(match self {
            Answer::Unauthorized(_) | Answer::Assertion(_) => RefusalKind::Credentials,
            Answer::Forbidden => RefusalKind::CertificateName,
            Answer::NoSuchPath | Answer::NotSaid => RefusalKind::Path,
            Answer::OnlyPost => RefusalKind::Method,
            Answer::Encoded => RefusalKind::Encoding,
            Answer::TooLong => RefusalKind::TooLong,
            Answer::Body(_) | Answer::NotADelivery | Answer::BadGzip => RefusalKind::Body,
            Answer::BrokenOff => RefusalKind::BrokenOff,
            Answer::TooSlow => RefusalKind::TooSlow,
            Answer::Busy => RefusalKind::Busy,
            Answer::Full | Answer::Failed => return None,
        })
    }
}

impl From<PushError> for Answer {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Body(error) => Answer::Body(error),
            PushError::NotADelivery => Answer::NotADelivery,
            PushError::BadGzip => Answer::BadGzip,
            PushError::TooLong => Answer::TooLong,
            PushError::Busy => Answer::Busy,
        }
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Answer::Full,
            Refused::Failed => Answer::Failed,
        }
    }
}

impl Listener {
    /// Takes connections until `stop` is set.
    pub async fn run(self: Arc<Self>, socket: TcpListener, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (listener, stop) = (Arc::clone(&self), stop.clone());
                    let stranger = self.door.enter(address.ip());
                    tokio::spawn(listener.connection(stream, address, stranger, stop));
                }
                Err(error) => {
                    self.refusals.note_all(RefusalKind::Accept, &error.to_string());
                    tokio::time::sleep(ACCEPT_WAIT).await;
                }
            }
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        stranger: Stranger,
        stop: watch::Receiver<bool>,
    ) {
        // An answer is one small packet, and the sender waits for it, so it is sent without delay.
        let _ = stream.set_nodelay(true);
        let counters = Arc::clone(&self.wal.counters);
        let _counted = Counted::new(&counters.connections);
        let Some(identity) = &self.identity else {
            let peer = Peer::new(address, Vec::new(), None);
            return Arc::clone(&self).serve(stream, peer, stranger, stop).await;
        };
        let handshake = TlsAcceptor::from(identity.config()).accept(stream);
        let handshake = with_subject(tokio::time::timeout(HANDSHAKE_MAX, handshake));
        let (shaken, refused) = tokio::select! {
            shaken = handshake => shaken,
            () = stranger.sent_away() => {
                self.refusals.note(RefusalKind::Crowded, &Who { address, subject: None }, "");
                counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let (kind, detail) = match shaken {
            Ok(Ok(stream)) => {
                let (_, session) = stream.get_ref();
                let certificate = session.peer_certificates().and_then(|chain| chain.first());
                let names = certificate.map(common_names).unwrap_or_default();
                let peer = Peer::new(address, names, certificate.and_then(subject));
                return Arc::clone(&self).serve(stream, peer, stranger, stop).await;
            }
            Ok(Err(error)) => (kind_of(&error), error.to_string()),
            Err(_) => (RefusalKind::HandshakeTimeout, String::new()),
        };
        self.refusals.note(kind, &Who { address, subject: refused.as_deref() }, &detail);
        counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }

    async fn serve<S>(
        self: Arc<Self>,
        stream: S,
        peer: Peer,
        stranger: Stranger,
        mut stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Arc::new(peer);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_MAX)
            .max_buf_size(HEADER_BYTES_MAX as usize * 4);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(Some(IDLE_MAX / 4))
            .keep_alive_timeout(HANDSHAKE_MAX);
        let service = service_fn(|request| {
            let (listener, under_way) = (Arc::clone(&self), UnderWay::new(Arc::clone(&peer)));
            async move { Ok::<_, Infallible>(listener.answer(request, &under_way.0).await) }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut look = tokio::time::interval(CHECK_INTERVAL);
        let mut is_stopping = false;
        let (mut stranger, mut permit) = (Some(stranger), None::<OwnedSemaphorePermit>);
        loop {
            tokio::select! {
                // A sender that has just authenticated is not sent away, so `known` is checked
                // first.
                biased;
                () = peer.known.notified(), if stranger.is_some() => {
                    stranger = None;
                    permit = Arc::clone(&self.connections).try_acquire_owned().ok();
                    if permit.is_none() && !is_stopping {
                        // Requests that were sent on this connection are answered before it is
                        // closed.
                        let detail = "as many connections are open as allowed";
                        self.refusals.note_all(RefusalKind::Connections, detail);
                        is_stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
                () = away(stranger.as_ref()) => {
                    self.refusals.note(RefusalKind::Crowded, &peer.who(), "");
                    break;
                }
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error, "a connection ended");
                    }
                    break;
                }
                _ = look.tick() => {
                    if peer.is_idle() {
                        break;
                    }
                }
                _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
        drop(permit);
    }

    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Full<Bytes>> {
        let began = Instant::now();
        let path = request.uri().path().to_owned();
        let target = self.targets.get(normal_path(&path));
        let delivery = target
            .is_some_and(|target| matches!(target.admission, Admission::Firehose(_)))
            .then(|| request_id(request.headers()));
        let answer = self.take(request, peer).await;
        if let Err(answer) = &answer
            && let Some(kind) = answer.kind()
        {
            let detail = if kind == RefusalKind::Path { path } else { answer.text() };
            self.refusals.note(kind, &peer.who(), &detail);
        }
        let (status, error) = match &answer {
            Ok(is_new) => {
                if *is_new {
                    self.wal.counters.acknowledged(began.elapsed());
                }
                (StatusCode::OK, None)
            }
            Err(answer) => (answer.status(), Some(answer.text())),
        };
        let text = match (&delivery, error) {
            (Some(id), error) => acknowledgement(id, error),
            (None, Some(error)) => serde_json::json!({"error": error}).to_string(),
            (None, None) => "{}".to_owned(),
        };
        self.wal.counters.answered(status.as_u16());
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match &answer {
            Err(Answer::Busy | Answer::Full | Answer::Failed) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after.as_secs()));
            }
            Err(Answer::Unauthorized(_) | Answer::Assertion(_) | Answer::NotSaid) if delivery.is_none() => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Err(Answer::OnlyPost) => {
                headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            _ => {}
        }
        response
    }

    /// Checks the credentials of a request. Returns the answer for a sender that may not post.
    fn admit(&self, target: &Target, headers: &HeaderMap, peer: &Peer) -> Result<(), Answer> {
        match &target.admission {
            Admission::Listener => {
                if !self.tokens.is_empty() && !self.has_token(headers) {
                    return Err(Answer::Unauthorized("a bearer token is required"));
                }
                let allowed = &target.client_names;
                if !allowed.is_empty() && !peer.names.iter().any(|name| allowed.contains(name)) {
                    return Err(Answer::Forbidden);
                }
                Ok(())
            }
            Admission::PubSub(assertions) => {
                let token = bearer(headers).ok_or(Answer::Assertion(AssertionError::Missing))?;
                let now_s = i64::try_from(now_ms() / 1_000).unwrap_or(i64::MAX);
                assertions.check(token, now_s).map_err(Answer::Assertion)
            }
            Admission::Firehose(key) => {
                let given = headers.get(ACCESS_KEY).map(|given| blake3::hash(given.as_bytes().trim_ascii()));
                // Hashes are compared in constant time.
                match given {
                    Some(given) if given == *key => Ok(()),
                    _ => Err(Answer::Unauthorized("the access key is required")),
                }
            }
        }
    }

    /// Stores a request's items; `false` if they were stored before.
    async fn take(&self, request: Request<Incoming>, peer: &Peer) -> Result<bool, Answer> {
        let path = normal_path(request.uri().path());
        let Some(target) = self.targets.get(path) else {
            // Without tokens, certificates are required, so this sender has one.
            let is_known = match self.tokens.is_empty() {
                true => self.targets.values().any(|target| matches!(target.admission, Admission::Listener)),
                false => self.has_token(request.headers()),
            };
            return Err(if is_known { Answer::NoSuchPath } else { Answer::NotSaid });
        };
        self.admit(target, request.headers(), peer)?;
        peer.is_known.store(true, Ordering::Relaxed);
        peer.known.notify_one();
        if request.method() != Method::POST {
            return Err(Answer::OnlyPost);
        }
        let is_delivery = matches!(target.admission, Admission::Firehose(_));
        let is_packed = match request.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None => false,
            Some(encoding) if encoding.eq_ignore_ascii_case(b"identity") => false,
            Some(encoding) => {
                if !is_delivery || !encoding.eq_ignore_ascii_case(b"gzip") {
                    return Err(Answer::Encoded);
                }
                true
            }
        };
        let key_of_path = blake3::hash(path.as_bytes());
        let delivery = request_id(request.headers());
        let read = tokio::time::timeout(BODY_MAX, self.body(request.into_body()));
        let (mut body, mut room) = read.await.map_err(|_| Answer::TooSlow)??;

        // A delivery may become much longer when it is unpacked.
        let is_long = room.bytes() > INLINE_BYTES_MAX || is_delivery;
        let (body_bytes_max, line_bytes_max) = (self.body_bytes_max, self.line_bytes_max);
        let memory = Arc::clone(&self.memory);
        type Unpack = dyn FnOnce(Vec<u8>, &mut Room) -> Result<Pushed, PushError> + Send;
        let unpack: Option<Box<Unpack>> = match &target.admission {
            Admission::Listener => None,
            Admission::PubSub(_) => Some(Box::new(move |body, room| {
                room.grow(&memory, body.len() * 2).map_err(|_| PushError::Busy)?;
                push::pubsub(body, line_bytes_max)
            })),
            Admission::Firehose(_) => Some(Box::new(move |body, room| {
                let mut reserve = |bytes: usize| room.grow(&memory, bytes).is_ok();
                let pushed = push::firehose(body, is_packed, body_bytes_max, &mut reserve)?;
                Ok(Pushed { id: Some(delivery).filter(|id| !id.is_empty()).or(pushed.id), ..pushed })
            })),
        };
        // The permit for the memory moves into the closure. So it is held until the work is done,
        // even if the sender stops waiting.
        let digest = move || -> Result<_, Answer> {
            let mut hasher = blake3::Hasher::new();
            hasher.update(key_of_path.as_bytes());
            let Some(unpack) = unpack else {
                hasher.update(&body);
                let lines = body::into_lines(&mut body, line_bytes_max).map_err(Answer::Body)?;
                return Ok((*hasher.finalize().as_bytes(), checksum(&[&body]), lines, body, room));
            };
            let pushed = unpack(body, &mut room)?;
            // A delivery that is sent again has the same id and text, but not always the same
            // bytes, because it contains the time of the attempt. A push without an id is
            // recognised by its text alone.
            let id = pushed.id.unwrap_or_default();
            hasher.update(&(id.len() as u64).to_le_bytes()).update(id.as_bytes()).update(&pushed.text);
            let lines = Lines { count: pushed.lines, is_odd: pushed.is_odd };
            Ok((*hasher.finalize().as_bytes(), checksum(&[&pushed.text]), lines, pushed.text, room))
        };
        let (key, text_checksum, lines, text, room) = if is_long {
            tokio::task::spawn_blocking(digest).await.map_err(|_| Answer::Failed)?
        } else {
            digest()
        }?;
        if lines.count == 0 {
            // The body is a list without items, so there is nothing to keep.
            return Ok(true);
        }
        let is_new = self.store(target, key, text, text_checksum, lines.count, room.permit).await?;
        if is_new && lines.is_odd {
            self.wal.counters.odd_bodies.fetch_add(1, Ordering::Relaxed);
        }
        Ok(is_new)
    }

    async fn store(
        &self,
        target: &Target,
        key: Key,
        text: Vec<u8>,
        text_checksum: [u8; 16],
        lines: u32,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<bool, Answer> {
        let received = now_ms();
        let counters = &self.wal.counters;
        let again = || {
            counters.duplicate_batches.fetch_add(1, Ordering::Relaxed);
            self.duplicates.fetch_add(u64::from(lines), Ordering::Relaxed);
        };
        let seen = lock(&self.wal.recent).look_up(key, received);
        match seen {
            Lookup::Acknowledged => {
                again();
                Ok(false)
            }
            Lookup::Writing(outcome) => {
                // The memory of the repeated batch is not needed during the wait for the first one.
                drop((text, room));
                written(outcome).await?;
                again();
                Ok(false)
            }
            Lookup::New(outcome) => {
                let done = outcome.subscribe();
                let bytes = text.len() as u64;
                let cluster = Arc::clone(&target.cluster);
                let batch =
                    Batch { cluster, key, text, text_checksum, lines, received, outcome, _room: room };
                if let Err(refused) = self.queue.try_send(batch) {
                    lock(&self.wal.recent).settle(key, false, received);
                    return Err(if refused.is_full() { Answer::Busy } else { Answer::Failed });
                }
                written(done).await?;
                counters.batches.fetch_add(1, Ordering::Relaxed);
                counters.items.fetch_add(u64::from(lines), Ordering::Relaxed);
                counters.bytes.fetch_add(bytes, Ordering::Relaxed);
                Ok(true)
            }
        }
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let Some(token) = bearer(headers) else { return false };
        let given = blake3::hash(token);
        // Hashes are compared in constant time, and no token is skipped.
        self.tokens.iter().fold(false, |found, token| (*token == given) | found)
    }

    /// Reads a request's whole body. Returns it with a permit for the memory that it takes.
    async fn body(&self, mut body: Incoming) -> Result<(Vec<u8>, Room), Answer> {
        let announced = body.size_hint().exact();
        if announced.is_some_and(|bytes| bytes > self.body_bytes_max as u64) {
            return Err(Answer::TooLong);
        }
        let announced = announced.and_then(|bytes| usize::try_from(bytes).ok());
        // A body that is itself an item gets a newline, so there is room for one byte more.
        let wanted = announced.map_or(ROOM_FIRST_BYTES, |bytes| (bytes + 1).min(WINDOW_BYTES as usize));
        let mut room = Room { permit: None };
        room.grow(&self.memory, wanted)?;
        let mut bytes = Vec::with_capacity(wanted);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Answer::BrokenOff)?.into_data() else { continue };
            let needed = bytes.len() + data.len() + 1;
            if needed > self.body_bytes_max + 1 {
                return Err(Answer::TooLong);
            }
            if needed > bytes.capacity() {
                let most = announced.unwrap_or(self.body_bytes_max) + 1;
                let wanted = (bytes.capacity() * 2).min(most).max(needed);
                room.grow(&self.memory, wanted)?;
                bytes.reserve_exact(wanted - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        if announced.is_some_and(|announced| announced != bytes.len()) {
            return Err(Answer::BrokenOff);
        }
        Ok((bytes, room))
    }
}

/// A permit for the memory that a body takes.
struct Room {
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    fn bytes(&self) -> usize {
        self.permit.as_ref().map_or(0, |permit| permit.num_permits() * ROOM_BYTES)
    }

    fn grow(&mut self, memory: &Arc<Semaphore>, to: usize) -> Result<(), Answer> {
        let pieces = to.saturating_sub(self.bytes()).div_ceil(ROOM_BYTES);
        let pieces = u32::try_from(pieces).map_err(|_| Answer::Busy)?;
        let more = Arc::clone(memory).try_acquire_many_owned(pieces).map_err(|_| Answer::Busy)?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

/// Returns the bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Returns the id of a Firehose delivery; empty if it has none that can be used.
fn request_id(headers: &HeaderMap) -> String {
    let id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    if id.len() <= ID_BYTES_MAX { id.to_owned() } else { String::new() }
}

/// Returns an answer in the form that Firehose requires: the id of its delivery, the time, and the
/// error, if any.
fn acknowledgement(id: &str, error: Option<String>) -> String {
    let mut answer = serde_json::json!({"requestId": id, "timestamp": now_ms()});
    if let Some(error) = error {
        answer["errorMessage"] = error.into();
    }
    answer.to_string()
}

/// Returns the kind of refusal for a failed handshake.
fn kind_of(error: &std::io::Error) -> RefusalKind {
    use rustls::Error;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => RefusalKind::NoCertificate,
        Some(Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_)) => RefusalKind::Certificate,
        Some(Error::AlertReceived(_)) => RefusalKind::NotTrusted,
        Some(Error::InvalidMessage(_)) => RefusalKind::NotTls,
        Some(_) => RefusalKind::Handshake,
        // The error is the system's: the connection ended.
        None => RefusalKind::Closed,
    }
}

/// Waits until the outcome of a batch is known.
async fn written(mut outcome: watch::Receiver<Outcome>) -> Result<(), Answer> {
    match outcome.wait_for(Option::is_some).await {
        Ok(outcome) => (*outcome).unwrap_or(Err(Refused::Failed)).map_err(Answer::from),
        // The batch that was being written was given up.
        Err(_) => Err(Answer::Busy),
    }
}

/// Returns a path in the form in which routes are compared. It has no slash at its end, because
/// client-go removes that slash.
pub fn normal_path(path: &str) -> &str {
    path.trim_end_matches('/')
}
