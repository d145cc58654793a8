//! `strongroom witness`: runs a witness for the logs of other archives, over HTTP.
//!
//! Invariants: without TLS the witness listens on loopback only. The number of connections, the
//! streams and the duration of each, and the size of a request are bounded. `strongroom_proof`
//! decides what is cosigned, and writes it to disk before the answer is sent.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use strongroom_live::Door;
use strongroom_live::webhook::{Identity, TlsFiles};
use strongroom_proof::{REQUEST_BYTES_MAX, TrustedLog, Witness, WitnessAnswer};
use strongroom_schemas::error_chain;
use strongroom_tlog::{Signer, WitnessKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::config::{Log, LogFormat};
use crate::exit::{self, CliError, proof_error};
use crate::{run, term};

const CONNECTIONS_MAX: usize = 128;
const CONNECTIONS_OF_ADDRESS_MAX: usize = 64;
const STREAMS_MAX: u32 = 8;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Maximum time between two requests of a connection. A log sends a request every few minutes.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Maximum time for a whole connection.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
const BODY_MAX: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: usize = 16 << 10;
const ACCEPT_WAIT: Duration = Duration::from_millis(100);
/// How often the certificate's files are checked for changes.
const RELOAD: Duration = Duration::from_secs(10);
const TEXT: &str = "text/plain; charset=utf-8";
/// Maximum number of requests that use the disk at the same time.
const WORKERS: usize = 4;
/// Maximum number of logs.
const LOGS_MAX: usize = 10_000;
/// Maximum size of the file that names the logs.
const LOGS_BYTES_MAX: u64 = 4 << 20;

/// Watch the proof logs of archives, and cosign each tree that continues the one cosigned before.
///
/// A witness remembers the greatest tree that it has seen of each log. It cosigns no other history,
/// even if that history is signed with the log's key. Run the witness where the archive's operator
/// has no power. It speaks C2SP tlog-witness; an archive reaches it with `strongroom sign-log
/// --witness` or with `[[witness]]` in the configuration of `run`, and `strongroom verify
/// --witness` requires its cosignatures. The witness prints its vkey at the start.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  strongroom key new --name witness.example/w1 witness.key
  strongroom witness --new --key witness.key --state ./witness \\
      --log 'strongroom+3e78f75f+ARtw8e…@strongroom/5d0c…/'
  strongroom witness --key witness.key --state ./witness --logs logs.txt \\
      --listen 0.0.0.0:8485 --tls-cert tls.crt --tls-key tls.key")]
pub struct Args {
    /// Address and port; beyond loopback it needs --tls-cert and --tls-key
    #[arg(long, default_value = "127.0.0.1:8485", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The witness's own key, made by `strongroom key new --name NAME`; never a key that signs logs
    #[arg(long, env = "STRONGROOM_WITNESS_KEY_FILE", value_name = "FILE")]
    key: PathBuf,
    /// The folder of the witness's state; without its state the witness does not start
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The first start of a witness: make the folder of its state. Never use it with a key that has
    /// cosigned before
    #[arg(long)]
    new: bool,
    /// A log by its public key and origin; an origin that ends in a slash covers all origins with
    /// that prefix, as strongroom/ARCHIVE_ID/ does for all logs of an archive. Repeatable, also for
    /// several keys of one log
    #[arg(long = "log", value_name = "KEY@ORIGIN", value_parser = log)]
    logs: Vec<TrustedLog>,
    /// A file of such logs, one per line; lines that start with # are comments
    #[arg(long = "logs", value_name = "FILE")]
    file: Option<PathBuf>,
    /// PEM file of the certificate and its intermediates; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

fn log(text: &str) -> Result<TrustedLog, String> {
    TrustedLog::parse(text).map_err(|error| error.to_string())
}

pub fn run(args: Args) -> Result<u8, CliError> {
    let identity = match args.tls_cert.clone().zip(args.tls_key.clone()) {
        Some((cert, key)) => {
            let files = TlsFiles { cert, key, client_ca: None };
            Some(Arc::new(Identity::load(files).context("cannot use TLS").map_err(CliError::input)?))
        }
        None if args.listen.ip().is_loopback() => None,
        None => {
            let error =
                anyhow::anyhow!("{} is reachable from outside, and TLS is not configured", args.listen);
            return Err(
                CliError::input(error).with_hint("give --tls-cert and --tls-key, or listen on 127.0.0.1")
            );
        }
    };
    let logs = logs(&args)?;
    let Signer::Key(key) = Signer::from_file(&args.key).map_err(proof_error)? else {
        return Err(CliError::input(anyhow::anyhow!("a witness signs with its own key, not with a program")));
    };
    if logs.iter().any(|log| log.key == key.public()) {
        let error = anyhow::anyhow!("the key in {} signs one of the logs", args.key.display());
        return Err(CliError::input(error)
            .with_hint("strongroom key new --name NAME makes one for the witness alone"));
    }
    if args.new {
        Witness::begin(WitnessKey::of(&key), &args.state).map_err(proof_error)?;
    }
    let count = logs.len();
    let witness = Arc::new(Witness::open(key, logs, &args.state).map_err(proof_error)?);
    run::start_log(&Log { level: tracing::Level::INFO, format: LogFormat::Text })?;
    writeln!(term::stdout(), "{}", witness.public())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(async {
        let cannot = || format!("cannot listen on {}", args.listen);
        let listener = TcpListener::bind(args.listen).await.with_context(cannot)?;
        let address = listener.local_addr().with_context(cannot)?;
        let (mut terminate, mut interrupt) = {
            let on = |kind| signal(kind).context("cannot wait for signals");
            (on(SignalKind::terminate())?, on(SignalKind::interrupt())?)
        };
        tracing::info!(%address, keys = count, tls = identity.is_some(), "the witness listens");
        tokio::select! {
            () = serve(listener, witness, identity) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        anyhow::Ok(())
    })?;
    Ok(exit::OK)
}

fn logs(args: &Args) -> Result<Vec<TrustedLog>, CliError> {
    let mut logs = args.logs.clone();
    if let Some(path) = &args.file {
        let cannot = || format!("cannot read {}", path.display());
        let size = std::fs::metadata(path).with_context(cannot).map_err(CliError::input)?.len();
        if size > LOGS_BYTES_MAX {
            return Err(CliError::input(anyhow::anyhow!("{} is too long", path.display())));
        }
        let text = std::fs::read_to_string(path).with_context(cannot).map_err(CliError::input)?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let place = || format!("{}, line {}", path.display(), number + 1);
                logs.push(TrustedLog::parse(line).with_context(place).map_err(CliError::input)?);
            }
        }
    }
    match logs.len() {
        0 => {
            Err(CliError::input(anyhow::anyhow!("no log is named"))
                .with_hint("name some with --log or --logs"))
        }
        1..=LOGS_MAX => Ok(logs),
        many => {
            Err(CliError::input(anyhow::anyhow!("{many} logs are named; at most {LOGS_MAX} are possible")))
        }
    }
}

async fn serve(listener: TcpListener, witness: Arc<Witness>, identity: Option<Arc<Identity>>) {
    let door = Door::new(CONNECTIONS_MAX, CONNECTIONS_OF_ADDRESS_MAX);
    let mut reload = tokio::time::interval(RELOAD);
    loop {
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                _ = reload.tick() => {
                    match identity.as_ref().map(|identity| identity.reload()) {
                        Some(Ok(true)) => tracing::info!("the certificate was replaced"),
                        Some(Err(error)) => {
                            let error = error_chain(&error);
                            tracing::error!(%error, "cannot replace the certificate; the old one stays in use");
                        }
                        _ => {}
                    }
                }
            }
        };
        match accepted {
            Ok((stream, address)) => {
                let (witness, identity) = (Arc::clone(&witness), identity.clone());
                let stranger = door.enter(address.ip());
                tokio::spawn(async move {
                    let served = connection(stream, witness, identity.as_deref());
                    // An error that a client causes on its own connection is not reported.
                    tokio::select! {
                        _ = tokio::time::timeout(CONNECTION_MAX, served) => {}
                        () = stranger.sent_away() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_WAIT).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, witness: Arc<Witness>, identity: Option<&Identity>) {
    // An answer is one small packet, and its receiver is waiting.
    let _ = stream.set_nodelay(true);
    match identity {
        None => requests(stream, witness).await,
        Some(identity) => {
            let handshake = TlsAcceptor::from(identity.config()).accept(stream);
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
                requests(stream, witness).await;
            }
        }
    }
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, witness: Arc<Witness>) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_MAX).max_buf_size(HEADER_BYTES_MAX * 2);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .keep_alive_interval(Some(IDLE_MAX / 4))
        .keep_alive_timeout(HANDSHAKE_MAX);
    let service = service_fn(|request| {
        let witness = Arc::clone(&witness);
        async move { Ok::<_, Infallible>(answer(request, witness).await) }
    });
    let _ = pin!(builder.serve_connection(TokioIo::new(stream), service)).await;
}

async fn answer(request: Request<Incoming>, witness: Arc<Witness>) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| response(status, TEXT, text.into());
    let path = request.uri().path();
    if let (&Method::GET, Some(log)) =
        (request.method(), path.strip_prefix('/').and_then(|path| path.strip_suffix("/checkpoint")))
    {
        let log = log.to_owned();
        let found = tokio::task::spawn_blocking(move || witness.checkpoint(&log)).await.ok().flatten();
        return match found {
            Some(note) => response(StatusCode::OK, TEXT, note.into()),
            None => plain(StatusCode::NOT_FOUND, "no checkpoint of this log has been cosigned\n"),
        };
    }
    if path != "/add-checkpoint" {
        return plain(StatusCode::NOT_FOUND, "not found; try /add-checkpoint\n");
    }
    if request.method() != Method::POST {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return refused;
    }
    if request.body().size_hint().lower() > REQUEST_BYTES_MAX as u64 {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long\n");
    }
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect();
    let body = match tokio::time::timeout(BODY_MAX, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long\n");
        }
        Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, "the body broke off\n"),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body arrived too slowly\n"),
    };
    let time = u64::try_from(Utc::now().timestamp()).unwrap_or(0);
    let answered = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body, time)).await;
    let Ok(WitnessAnswer { status, content_type, body, origin, contradiction }) = answered else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the witness failed\n");
    };
    // The origin is that of a known log, and the log's key has signed it. So no stranger can put
    // text into the messages of this process.
    if let Some(origin) = origin {
        match contradiction {
            Some(what) => {
                tracing::error!(origin, status, what, "a log contradicts itself; what it signed is kept")
            }
            None if status == 500 => {
                tracing::error!(origin, what = body.trim(), "a checkpoint was not cosigned")
            }
            None => tracing::info!(origin, status, "a checkpoint came"),
        }
    }
    response(
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        content_type,
        body.into(),
    )
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
