//! The listener's requests and answers: what is served, to whom, and how much of it at a time.
//!
//! Invariants:
//! - Nothing of a body is read before its sender is authenticated and authorised for the path.
//! - 200 is answered when, and only when, all items are durable in the log, or were before.
//! - Connections, the streams of one connection, bytes of bodies, and batches under way are each
//!   bounded, and every wait for a peer ends. When a bound is reached, the answer is 429 with the
//!   time to wait: the API server then tries again for minutes, while it would give a batch up
//!   after any other refusal.
//! - No byte of a body and no token is in an answer or in the log.
//!
//! A crash costs only batches that were not answered; their senders try again.

use std::collections::HashMap;
use std::convert::Infallible;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use strongroom_decode::body::{self, BodyError};
use strongroom_journal::{checksum, lock, now_ms};

use super::recent::{Lookup, Outcome};
use super::record::Key;
use super::refused::Refused;
use super::tls::{Identity, common_names};
use super::wal::{Batch, Wal};

/// Longest time for a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A connection on which no sender has authenticated is closed after this.
const STRANGER_MAX: Duration = Duration::from_secs(15);
/// An idle connection is closed after this: later than the API server closes it itself (90 s), so
/// that no request meets a closing connection.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Longest time to read a body: less than the 30 s after which the API server gives a request up.
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
/// Wait when the system has no more connections for us.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);
/// How often the certificate's files are checked.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// The cluster that a path stands for, and the clients that may post to it.
#[derive(Debug)]
pub struct Target {
    pub cluster: Arc<str>,
    /// Common names; empty: any that the authority vouches for.
    pub client_names: Vec<String>,
}

pub struct Listener {
    pub targets: HashMap<String, Target>,
    /// Hashes of the tokens: comparing hashes does not reveal how much of a token was right.
    pub tokens: Vec<blake3::Hash>,
    pub identity: Option<Identity>,
    pub body_bytes_max: usize,
    pub line_bytes_max: usize,
    pub retry_after: Duration,
    pub queue: Sender<Batch>,
    pub wal: Arc<Wal>,
    pub memory: Arc<Semaphore>,
    pub connections: Arc<Semaphore>,
    pub duplicates: Arc<AtomicU64>,
}

/// The state of one connection, shared by its requests and its idle check.
struct Peer {
    names: Vec<String>,
    is_known: AtomicBool,
    under_way: AtomicUsize,
    /// Milliseconds from `since` to the end of the last request.
    used: AtomicU64,
    since: Instant,
}

impl Peer {
    fn new(names: Vec<String>) -> Self {
        Peer {
            names,
            is_known: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            used: AtomicU64::new(0),
            since: Instant::now(),
        }
    }

    /// Whether it has been unused for too long.
    fn is_idle(&self) -> bool {
        let max = if self.is_known.load(Ordering::Relaxed) { IDLE_MAX } else { STRANGER_MAX };
        let used = Duration::from_millis(self.used.load(Ordering::Relaxed));
        self.under_way.load(Ordering::Relaxed) == 0 && self.since.elapsed().saturating_sub(used) > max
    }
}

/// A request under way, until it is answered or given up.
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

/// Counts one for as long as it lives.
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

/// The answers other than 200.
#[derive(Debug)]
enum Answer {
    Unauthorized,
    Forbidden,
    NoSuchPath,
    OnlyPost,
    Encoded,
    TooLong,
    Body(BodyError),
    BrokenOff,
    TooSlow,
    /// Too much at once.
    Busy,
    Full,
    Failed,
}

impl Answer {
    fn status(&self) -> StatusCode {
        match self {
            Answer::Unauthorized => StatusCode::UNAUTHORIZED,
            Answer::Forbidden => StatusCode::FORBIDDEN,
            Answer::NoSuchPath => StatusCode::NOT_FOUND,
            Answer::OnlyPost => StatusCode::METHOD_NOT_ALLOWED,
            Answer::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Answer::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Answer::Body(_) | Answer::BrokenOff => StatusCode::BAD_REQUEST,
            Answer::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Answer::Busy | Answer::Full => StatusCode::TOO_MANY_REQUESTS,
            Answer::Failed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn text(&self) -> String {
        let text = match self {
            Answer::Unauthorized => "a bearer token is required",
            Answer::Forbidden => "this certificate may not use this path",
            Answer::NoSuchPath => "no such path",
            Answer::OnlyPost => "audit events must be sent with POST",
            Answer::Encoded => "the body must not be compressed",
            Answer::TooLong => "the body is too long",
            Answer::Body(error) => return error.to_string(),
            Answer::BrokenOff => "the body broke off",
            Answer::TooSlow => "the body arrived too slowly",
            Answer::Busy => "too many requests at once",
            Answer::Full => "the write-ahead log is full",
            Answer::Failed => "the write-ahead log cannot be written",
        };
        text.to_owned()
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
            // At the bound no connection is accepted: the system lets them wait.
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (listener, stop) = (Arc::clone(&self), stop.clone());
                    tokio::spawn(async move {
                        listener.connection(stream, stop).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the webhook cannot accept connections");
                    tokio::time::sleep(ACCEPT_WAIT).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, stop: watch::Receiver<bool>) {
        // An answer is one small packet, and the sender waits for it.
        let _ = stream.set_nodelay(true);
        let counters = Arc::clone(&self.wal.counters);
        let _counted = Counted::new(&counters.connections);
        match &self.identity {
            None => Arc::clone(&self).serve(stream, Peer::new(Vec::new()), stop).await,
            Some(identity) => {
                let handshake = TlsAcceptor::from(identity.config()).accept(stream);
                match tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
                    Ok(Ok(stream)) => {
                        let (_, session) = stream.get_ref();
                        let certificate = session.peer_certificates().and_then(|chain| chain.first());
                        let names = certificate.map(common_names).unwrap_or_default();
                        Arc::clone(&self).serve(stream, Peer::new(names), stop).await;
                    }
                    Ok(Err(error)) => {
                        counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(%error, "a handshake failed");
                    }
                    Err(_) => {
                        counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    async fn serve<S>(self: Arc<Self>, stream: S, peer: Peer, mut stop: watch::Receiver<bool>)
    where
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
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error, "a connection ended");
                    }
                    return;
                }
                _ = look.tick() => {
                    if peer.is_idle() {
                        return;
                    }
                }
                _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Full<Bytes>> {
        let began = Instant::now();
        let answer = self.take(request, peer).await;
        let (status, text) = match &answer {
            Ok(is_new) => {
                if *is_new {
                    self.wal.counters.acknowledged(began.elapsed());
                }
                (StatusCode::OK, "{}".to_owned())
            }
            Err(answer) => (answer.status(), serde_json::json!({"error": answer.text()}).to_string()),
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
            Err(Answer::Unauthorized) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Err(Answer::OnlyPost) => {
                headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            _ => {}
        }
        response
    }

    /// Stores a request's items; `false` if they were stored before.
    async fn take(&self, request: Request<Incoming>, peer: &Peer) -> Result<bool, Answer> {
        if !self.tokens.is_empty() && !self.has_token(request.headers()) {
            return Err(Answer::Unauthorized);
        }
        let path = normal_path(request.uri().path());
        let target = self.targets.get(path).ok_or(Answer::NoSuchPath)?;
        let allowed = &target.client_names;
        if !allowed.is_empty() && !peer.names.iter().any(|name| allowed.contains(name)) {
            return Err(Answer::Forbidden);
        }
        peer.is_known.store(true, Ordering::Relaxed);
        if request.method() != Method::POST {
            return Err(Answer::OnlyPost);
        }
        let encoding = request.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Answer::Encoded);
        }
        let key_of_path = blake3::hash(path.as_bytes());
        let read = tokio::time::timeout(BODY_MAX, self.body(request.into_body()));
        let (mut body, room) = read.await.map_err(|_| Answer::TooSlow)??;

        let line_bytes_max = self.line_bytes_max;
        // The room moves along, so that it is held however long this takes, whether the sender
        // waits or not.
        let is_long = room.bytes() > INLINE_BYTES_MAX;
        let digest = move || {
            let mut hasher = blake3::Hasher::new();
            hasher.update(key_of_path.as_bytes()).update(&body);
            let key = *hasher.finalize().as_bytes();
            let lines = body::into_lines(&mut body, line_bytes_max);
            (key, checksum(&[&body]), lines, body, room)
        };
        let (key, text_checksum, lines, text, room) = if is_long {
            tokio::task::spawn_blocking(digest).await.map_err(|_| Answer::Failed)?
        } else {
            digest()
        };
        let lines = lines.map_err(Answer::Body)?;
        if lines.count == 0 {
            // A list without items: there is nothing to keep.
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
                // The memory of the repeated batch is not needed while the first batch is waited
                // for.
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
        let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else { return false };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return false;
        }
        let given = blake3::hash(token.trim_ascii());
        // Hashes are compared in constant time, and all of them are.
        self.tokens.iter().fold(false, |found, token| (*token == given) | found)
    }

    /// Reads a request's whole body. Returns it with the room in memory that it takes.
    async fn body(&self, mut body: Incoming) -> Result<(Vec<u8>, Room), Answer> {
        let announced = body.size_hint().exact();
        if announced.is_some_and(|bytes| bytes > self.body_bytes_max as u64) {
            return Err(Answer::TooLong);
        }
        let announced = announced.and_then(|bytes| usize::try_from(bytes).ok());
        // One more byte for the newline of a body that is its own item.
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

/// Room in memory that was given to a body.
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

/// Waits until the outcome of a batch is known.
async fn written(mut outcome: watch::Receiver<Outcome>) -> Result<(), Answer> {
    match outcome.wait_for(Option::is_some).await {
        Ok(outcome) => (*outcome).unwrap_or(Err(Refused::Failed)).map_err(Answer::from),
        // Its writer has given it up.
        Err(_) => Err(Answer::Busy),
    }
}

/// Returns a path in the form in which routes are compared: without a slash at its end, because
/// client-go removes it.
pub fn normal_path(path: &str) -> &str {
    path.trim_end_matches('/')
}
