//! Question: how many events per second does the webhook store durably and acknowledge, and how
//! long does an acknowledgement take, at full speed and at 20,000 events per second?
//!
//! Data: generated events (seed 1) in EventLists of 100 and 400, as the API server batches them,
//! over TLS with a token. The client, the listener and the reader of its log share the cores of one
//! machine, so a listener alone on a machine is faster. Each load runs for [`SECONDS`].

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use strongroom_archive::Position;
use strongroom_generate::{Generator, GeneratorOptions};
use strongroom_live::testing::Pipeline;
use strongroom_live::webhook::{Route, RouteFormat, TlsFiles, Webhook, WebhookOptions};
use strongroom_live::{Secret, Source};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECONDS: u64 = 8;
const EVENTS: usize = 40_000;
const TOKEN: &str = "a token of the bench";

/// How events are posted.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    alpn: &'static str,
    connections: usize,
    /// Requests in progress on each connection.
    at_once: usize,
    batch_events: usize,
    /// Number of events per second; `None` for as many as are acknowledged.
    rate: Option<usize>,
}

const LOADS: &[Load] = &[
    Load { name: "h2, full speed", alpn: "h2", connections: 2, at_once: 8, batch_events: 400, rate: None },
    Load { name: "h2, full speed", alpn: "h2", connections: 2, at_once: 8, batch_events: 100, rate: None },
    Load {
        name: "h1, full speed",
        alpn: "http/1.1",
        connections: 8,
        at_once: 1,
        batch_events: 400,
        rate: None,
    },
    Load { name: "h2, paced", alpn: "h2", connections: 2, at_once: 8, batch_events: 400, rate: Some(20_000) },
    Load { name: "h2, paced", alpn: "h2", connections: 2, at_once: 8, batch_events: 100, rate: Some(20_000) },
];

/// Returns EventLists that are cut off inside their last member, `metadata`. Each post completes it
/// with its own number, so that no two posts have the same bytes.
fn lists(batch_events: usize) -> Vec<String> {
    let options = GeneratorOptions { events: EVENTS as u64, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options in bounds");
    let mut lines = Vec::new();
    let mut line = Vec::new();
    while generator.next_line(&mut line) {
        lines.push(String::from_utf8(std::mem::take(&mut line)).expect("the generator writes text"));
    }
    let list = |batch: &[String]| {
        let items: Vec<&str> = batch.iter().map(|line| line.trim_end()).collect();
        format!(
            r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}],"metadata":{{"resourceVersion":"#,
            items.join(",")
        )
    };
    lines.chunks_exact(batch_events).map(list).collect()
}

#[derive(Default)]
struct Figures {
    next: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
    over: AtomicBool,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

async fn connect(address: std::net::SocketAddr, config: Arc<ClientConfig>) -> Sender {
    let stream = TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("a socket");
    let stream = TlsConnector::from(config)
        .connect("localhost".try_into().expect("a name"), stream)
        .await
        .expect("shakes hands");
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("speaks HTTP/2");
        tokio::spawn(connection);
        Sender::Two(sender)
    } else {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("speaks HTTP/1.1");
        tokio::spawn(connection);
        Sender::One(sender)
    }
}

async fn post(
    mut sender: Sender,
    load: Load,
    lists: Arc<Vec<String>>,
    figures: Arc<Figures>,
) -> Vec<Duration> {
    let began = Instant::now();
    let mut latencies = Vec::new();
    while !figures.over.load(Ordering::Relaxed) {
        let number = figures.next.fetch_add(1, Ordering::Relaxed);
        if let Some(rate) = load.rate {
            let due = Duration::from_secs_f64(number as f64 * load.batch_events as f64 / rate as f64);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
        let list = &lists[number as usize % lists.len()];
        let body = Bytes::from(format!("{list}\"{number}\"}}}}"));
        figures.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        let request = Request::post("https://localhost/audit?timeout=30s")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Full::new(body))
            .expect("a request");
        let sent = Instant::now();
        let response = match &mut sender {
            Sender::One(sender) => {
                sender.ready().await.expect("open");
                sender.send_request(request).await
            }
            Sender::Two(sender) => sender.send_request(request).await,
        };
        let response = response.expect("an answer");
        let status = response.status();
        response.into_body().collect().await.expect("an answer");
        latencies.push(sent.elapsed());
        if status != StatusCode::OK {
            figures.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
    latencies
}

fn run(load: Load) {
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk, not in memory");
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let files = TlsFiles {
        cert: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
        client_ca: None,
    };
    std::fs::write(&files.cert, cert.pem()).expect("writes");
    std::fs::write(&files.key, signing_key.serialize_pem()).expect("writes");
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let options = WebhookOptions {
        tls: Some(files),
        tokens: vec![Secret::new(TOKEN.to_owned())],
        routes: vec![Route {
            path: "/audit".to_owned(),
            cluster: "bench".to_owned(),
            client_names: Vec::new(),
            reading: Arc::default(),
            format: RouteFormat::Audit,
        }],
        ..WebhookOptions::new("bench", listen, folder.path().join("wal"))
    };
    let (webhook, mut source) = Webhook::start(options).expect("starts");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(cert.der().to_vec())).expect("an authority");
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![load.alpn.as_bytes().to_vec()];
    let config = Arc::new(config);

    let lists = Arc::new(lists(load.batch_events));
    let figures = Arc::new(Figures::default());
    let pipeline = Pipeline::new(HashMap::new());
    let began = Instant::now();
    let (mut latencies, took, (lines, delay)) = std::thread::scope(|scope| {
        let feed = pipeline.feed.clone();
        let following = scope.spawn(move || source.run(&feed));
        let draining = scope.spawn(|| {
            let (mut lines, mut delay) = (0, Duration::ZERO);
            while let Some(chunk) = pipeline.next(Duration::from_secs(1)) {
                delay = delay.max(chunk.arrived.elapsed());
                lines += chunk.block.bytes.iter().filter(|byte| **byte == b'\n').count();
                let next_offset = chunk.block.offset + chunk.block.bytes.len() as i64;
                let position =
                    Position { next_offset, records: 0, prefix_blake3: chunk.prefix, broker_offset: None };
                pipeline.seal(&chunk.stream.partition, position);
            }
            (lines, delay)
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let latencies = runtime.block_on(async {
            let mut posts = Vec::new();
            for _ in 0..load.connections {
                let mut senders = vec![connect(webhook.address(), Arc::clone(&config)).await];
                while senders.len() < load.at_once {
                    let Sender::Two(sender) = &senders[0] else { break };
                    senders.push(Sender::Two(sender.clone()));
                }
                for sender in senders {
                    posts.push(tokio::spawn(post(sender, load, Arc::clone(&lists), Arc::clone(&figures))));
                }
            }
            tokio::time::sleep(Duration::from_secs(SECONDS)).await;
            figures.over.store(true, Ordering::Relaxed);
            let mut latencies = Vec::new();
            for post in posts {
                latencies.extend(post.await.expect("no panic"));
            }
            latencies
        });
        let took = began.elapsed();
        let drained = draining.join().expect("no panic");
        pipeline.stop();
        following.join().expect("no panic").expect("no failure");
        (latencies, took, drained)
    });
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let posted = latencies.len() * load.batch_events;
    println!(
        "{:<15} batch {:>3}: {:>7.0} events/s, {:>4.0} MB/s, {} errors, ack p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; \
         {} syncs, {} of {posted} events handed over, at most {:.0} ms after they came",
        load.name,
        load.batch_events,
        posted as f64 / took.as_secs_f64(),
        figures.bytes.load(Ordering::Relaxed) as f64 / 1e6 / took.as_secs_f64(),
        figures.errors.load(Ordering::Relaxed),
        at(0.5),
        at(0.99),
        at(1.0),
        webhook.counters().wal_syncs.load(Ordering::Relaxed),
        lines,
        delay.as_secs_f64() * 1e3,
    );
    webhook.shutdown(Duration::from_secs(1));
}

fn main() {
    for load in LOADS {
        run(*load);
    }
}
