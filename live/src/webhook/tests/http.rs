//! Tests of the listener over real connections: HTTP/1.1 and HTTP/2, plain and with TLS, and
//! killed.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore};
use strongroom_archive::Position;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::testing::Pipeline;
use crate::webhook::assertion::tests::{AUDIENCE, Issuer, options as assertion_options, write_keys};
use crate::webhook::push::tests::{delivery, gzip};
use crate::webhook::tls::Identity;
use crate::webhook::{
    KeysError, Route, RouteFormat, TlsFiles, Webhook, WebhookError, WebhookOptions, WebhookSource,
};
use crate::{Secret, Source};

const TOKEN: &str = "a token of the tests";
const QUIET: Duration = Duration::from_millis(400);

fn route(path: &str, cluster: &str, names: &[&str]) -> Route {
    let client_names = names.iter().map(|name| (*name).to_owned()).collect();
    Route {
        path: path.to_owned(),
        cluster: cluster.to_owned(),
        client_names,
        reading: Arc::default(),
        format: RouteFormat::Audit,
    }
}

fn plain(folder: &Path) -> WebhookOptions {
    WebhookOptions {
        tokens: vec![Secret::new("another".to_owned()), Secret::new(TOKEN.to_owned())],
        routes: vec![route("/audit/prod", "prod", &[]), route("/audit/test/", "test", &[])],
        disk_free_bytes_min: 0,
        ..WebhookOptions::new("hook", SocketAddr::from(([127, 0, 0, 1], 0)), folder.join("wal"))
    }
}

fn body(first: usize, items: usize) -> String {
    let items: Vec<String> =
        (first..first + items).map(|number| format!("{{\"auditID\":\"{number}\"}}")).collect();
    format!(
        "{{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{{}},\"items\":[{}]}}\n",
        items.join(",")
    )
}

fn line(number: usize) -> String {
    format!("{{\"auditID\":\"{number}\"}}\n")
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn plain(address: SocketAddr) -> Sender {
        let stream = TcpStream::connect(address).await.expect("connects");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("shakes hands");
        tokio::spawn(connection);
        Sender::One(sender)
    }

    /// Connects with TLS; `None` if the listener ends the connection.
    async fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> Option<Sender> {
        let stream = TcpStream::connect(address).await.expect("connects");
        let name = "localhost".try_into().expect("a name");
        let stream = TlsConnector::from(config).connect(name, stream).await.ok()?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            Some(Sender::Two(sender))
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            Some(Sender::One(sender))
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Option<Response<Bytes>> {
        let response = match self {
            Sender::One(sender) => {
                sender.ready().await.ok()?;
                sender.send_request(request).await.ok()?
            }
            Sender::Two(sender) => {
                sender.ready().await.ok()?;
                sender.send_request(request).await.ok()?
            }
        };
        let (head, body) = response.into_parts();
        Some(Response::from_parts(head, body.collect().await.ok()?.to_bytes()))
    }

    async fn post(&mut self, path: &str, body: &str) -> Option<u16> {
        Some(self.send(request("POST", path, body)).await?.status().as_u16())
    }
}

fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let uri = format!("https://localhost{path}");
    Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a request")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Returns what a source hands over until it has no more, by cluster; the positions after that
/// text; and the number of duplicates that the source reported.
fn drain(
    source: &mut WebhookSource,
    sealed: &HashMap<String, Position>,
    seal: bool,
) -> (HashMap<String, String>, HashMap<String, Position>, u64) {
    let pipeline = Pipeline::new(sealed.clone());
    let mut positions = sealed.clone();
    let mut texts: HashMap<String, String> = HashMap::new();
    std::thread::scope(|scope| {
        let feed = pipeline.feed.clone();
        let running = scope.spawn(move || source.run(&feed));
        while let Some(chunk) = pipeline.next(QUIET) {
            let partition = chunk.stream.partition.clone();
            let before = positions.get(&partition).map_or(0, |position| position.next_offset);
            assert_eq!(chunk.block.offset, before, "chunks follow each other");
            let next_offset = before + chunk.block.bytes.len() as i64;
            let position =
                Position { next_offset, records: 0, prefix_blake3: chunk.prefix, broker_offset: None };
            if seal {
                pipeline.seal(&partition, position);
            }
            positions.insert(partition, position);
            let text = String::from_utf8(chunk.block.bytes).expect("text");
            texts.entry(chunk.block.origin.cluster.clone()).or_default().push_str(&text);
        }
        pipeline.stop();
        running.join().expect("no panic").expect("no failure");
    });
    (texts, positions, pipeline.duplicates())
}

#[test]
fn answers_say_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = WebhookOptions { body_bytes_max: 4_000, line_bytes_max: 100, ..plain(folder.path()) };
    let (webhook, mut source) = Webhook::start(options).expect("starts");
    let address = webhook.address();
    runtime().block_on(async {
        // A refusal before the body is read may end the connection, so each request has its own.
        let ask = async |request: Request<Full<Bytes>>| {
            Sender::plain(address).await.send(request).await.expect("an answer")
        };
        let status = async |request| ask(request).await.status().as_u16();
        let post = |path: &str, body: &str| request("POST", path, body);
        assert_eq!(status(post("/audit/prod", &body(0, 2))).await, 200);
        assert_eq!(status(post("/audit/prod/?timeout=30s", &body(2, 1))).await, 200);
        assert_eq!(status(post("/audit/test?timeout=30s", &body(3, 1))).await, 200);
        assert_eq!(status(post("/audit/prod", &body(0, 0))).await, 200);
        assert_eq!(status(post("/audit/prod", "{\"kind\":\"Event\"}\n")).await, 200);
        assert_eq!(status(post("/audit/prod", "no JSON")).await, 200);
        assert_eq!(status(post("/audit/prod", "no JSON\nat all")).await, 400);
        assert_eq!(status(post("/audit/prod", &"x".repeat(101))).await, 400);
        assert_eq!(status(post("/audit/prod", "")).await, 400);
        assert_eq!(status(post("/audit/prod", &"x".repeat(4_001))).await, 413);
        assert_eq!(status(post("/audit", &body(9, 1))).await, 404);
        assert_eq!(status(post("/", &body(9, 1))).await, 404);
        let answer = ask(request("GET", "/audit/prod", "")).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["allow"]),
            (405, &"POST".parse().expect("text"))
        );
        for token in ["", "Bearer", "Bearer ", "Bearer wrong", "Basic a token of the tests"] {
            let mut request = post("/audit/prod", &body(9, 1));
            request.headers_mut().insert("authorization", token.parse().expect("text"));
            let answer = ask(request).await;
            assert_eq!(answer.status().as_u16(), 401);
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        }
        let mut packed = post("/audit/prod", &body(9, 1));
        packed.headers_mut().insert("content-encoding", "gzip".parse().expect("text"));
        assert_eq!(status(packed).await, 415);
        let secret = "hunter2\nhunter2";
        let answer = ask(post("/audit/prod", secret)).await;
        assert!(!String::from_utf8_lossy(answer.body()).contains("hunter2"));
    });
    let counters = webhook.counters();
    let refusals: HashMap<&str, u64> = counters.refusals().filter(|(_, count)| *count > 0).collect();
    let wanted =
        [("credentials", 5), ("path", 2), ("too_long", 1), ("body", 4), ("method", 1), ("encoding", 1)];
    assert_eq!(refusals, HashMap::from(wanted));
    let requests: HashMap<u16, u64> = counters.requests().collect();
    assert_eq!((requests[&200], requests[&401], requests[&404], requests[&413]), (6, 5, 2, 1));
    assert_eq!(counters.items.load(Ordering::Relaxed), 6);
    assert_eq!(counters.odd_bodies.load(Ordering::Relaxed), 1);
    webhook.shutdown(Duration::from_secs(5));
    let (texts, _, _) = drain(&mut source, &HashMap::new(), false);
    let wanted: String =
        [0, 1, 2].into_iter().map(line).chain(["{\"kind\":\"Event\"}\nno JSON\n".to_owned()]).collect();
    assert_eq!(texts, HashMap::from([("prod".to_owned(), wanted), ("test".to_owned(), line(3))]));
}

#[test]
fn nothing_is_served_without_authentication() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |options| Webhook::start(options).map(|_| ());
    let none = WebhookOptions { tokens: Vec::new(), ..plain(folder.path()) };
    assert!(matches!(start(none), Err(WebhookError::Unauthenticated { .. })));
    let empty = WebhookOptions { tokens: vec![Secret::new(" ".to_owned())], ..plain(folder.path()) };
    assert!(matches!(start(empty), Err(WebhookError::EmptyToken { .. })));
    let exposed = WebhookOptions { listen: SocketAddr::from(([0, 0, 0, 0], 0)), ..plain(folder.path()) };
    assert!(matches!(start(exposed), Err(WebhookError::Exposed { .. })));
    let names = WebhookOptions { routes: vec![route("/a", "a", &["kube"])], ..plain(folder.path()) };
    assert!(matches!(start(names), Err(WebhookError::Path { .. })));
    let twice = WebhookOptions {
        routes: vec![route("/a", "a", &[]), route("/a/", "b", &[])],
        ..plain(folder.path())
    };
    assert!(matches!(start(twice), Err(WebhookError::Path { .. })));
    let path = |text| {
        let unwrap = Some(strongroom_lines::EventPath::parse(text).expect("a path"));
        Arc::new(strongroom_lines::Reading { unwrap, ..Default::default() })
    };
    let two = |cluster: &str, reading| {
        let first = Route { reading: path("a.b"), ..route("/a", "a", &[]) };
        let second = Route { reading, ..route("/b", cluster, &[]) };
        WebhookOptions { routes: vec![first, second], ..plain(folder.path()) }
    };
    for (cluster, reading, is_right) in [
        ("a", path("a.b"), true),
        ("a", path("a.c"), false),
        ("a", Arc::default(), false),
        ("b", Arc::default(), true),
    ] {
        assert_eq!(two(cluster, reading).check().is_ok(), is_right);
    }
    assert!(!format!("{:?}", plain(folder.path())).contains(TOKEN));
}

/// A certificate authority. It issues certificates as PEM files and as parts of a client.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signs"))
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("signs"), key)
    }

    fn client(&self, certificate: Option<(rcgen::Certificate, KeyPair)>, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).expect("a pair")
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn files(&self, folder: &Path, with_clients: bool) -> TlsFiles {
        let (certificate, key) = self.sign("listener");
        let files = TlsFiles {
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
            client_ca: with_clients.then(|| folder.join("ca.pem")),
        };
        std::fs::write(&files.cert, certificate.pem()).expect("writes");
        std::fs::write(&files.key, key.serialize_pem()).expect("writes");
        std::fs::write(folder.join("ca.pem"), self.0.pem()).expect("writes");
        files
    }
}

#[test]
fn both_versions_of_http_are_spoken_over_tls_to_those_with_a_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let options = WebhookOptions {
        tls: Some(authority.files(folder.path(), true)),
        tokens: Vec::new(),
        routes: vec![route("/prod", "prod", &["kube-prod"]), route("/any", "any", &[])],
        ..plain(folder.path())
    };
    let (webhook, mut source) = Webhook::start(options).expect("starts");
    let address = webhook.address();
    runtime().block_on(async {
        for (number, alpn) in [&["h2", "http/1.1"][..], &["http/1.1"], &[]].into_iter().enumerate() {
            let config = authority.client(Some(authority.sign("kube-prod")), alpn);
            let mut sender = Sender::tls(address, config).await.expect("the sender is let in");
            assert_eq!(matches!(sender, Sender::Two(_)), alpn.contains(&"h2"));
            assert_eq!(sender.post("/prod?timeout=30s", &body(number, 1)).await, Some(200));
            assert_eq!(sender.post("/any", &body(number, 1)).await, Some(200));
            let long = format!("{{\"kind\":\"Event\",\"x\":\"{}\"}}", "x".repeat(5 << 20));
            assert_eq!(
                sender.post("/any", &long).await,
                Some(200),
                "a body may be longer than a flow-control window"
            );

            let config = authority.client(Some(authority.sign("kube-test")), alpn);
            let mut sender = Sender::tls(address, config).await.expect("the sender is let in");
            assert_eq!(sender.post("/prod", &body(7, 1)).await, Some(403));

            let nobody = authority.client(None, alpn);
            let other = authority.client(Some(stranger.sign("kube-prod")), alpn);
            for config in [nobody, other] {
                // With TLS 1.3 a client learns only later that it was refused.
                let answer = match Sender::tls(address, config).await {
                    Some(mut sender) => sender.post("/prod", &body(8, 1)).await,
                    None => None,
                };
                assert_eq!(answer, None);
            }
        }
    });
    // The listener counts a refusal after it has answered the client.
    let until = Instant::now() + Duration::from_secs(5);
    let failed = || webhook.counters().handshakes_failed.load(Ordering::Relaxed);
    while failed() < 6 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(failed(), 6);
    let refusals: HashMap<&str, u64> =
        webhook.counters().refusals().filter(|(_, count)| *count > 0).collect();
    let wanted = [("certificate_name", 3), ("no_certificate", 3), ("certificate", 3)];
    assert_eq!(refusals, HashMap::from(wanted));
    webhook.shutdown(Duration::from_secs(5));
    let (texts, _, duplicates) = drain(&mut source, &HashMap::new(), false);
    assert_eq!(texts["prod"], [0, 1, 2].into_iter().map(line).collect::<String>());
    assert_eq!(
        texts["any"].len(),
        3 * line(0).len() + (5 << 20) + 24,
        "the long body was sent three times, and is stored once"
    );
    assert_eq!(duplicates, 2);
}

/// Tests what is logged while a listener refuses senders.
#[test]
fn the_log_says_who_is_turned_away_and_shows_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let options = WebhookOptions {
        tls: Some(authority.files(folder.path(), true)),
        routes: vec![route("/prod", "prod", &["kube-prod"])],
        body_bytes_max: 4_000,
        name: "told".to_owned(),
        ..plain(folder.path())
    };
    // The threads of the listener log too, so the subscriber must be global. This is the only test
    // that sets one.
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).expect("no other subscriber is set");
    let (webhook, _source) = Webhook::start(options).expect("starts");
    let address = webhook.address();
    runtime().block_on(async {
        let sign = |name| authority.client(Some(authority.sign(name)), &[]);
        let send = async |config, request| {
            Sender::tls(address, config).await.expect("the sender is let in").send(request).await
        };
        send(sign("kube-test"), request("POST", "/prod", "hunter2")).await;
        send(sign("kube-prod"), request("POST", "/prod", &"hunter2".repeat(1_000))).await;
        send(sign("kube-prod"), request("POST", "/typo?token=hunter2", "")).await;
        let mut wrong = request("POST", "/prod", "hunter2");
        wrong.headers_mut().insert("authorization", "Bearer hunter2".parse().expect("text"));
        for _ in 0..20 {
            send(sign("kube-prod"), wrong.clone()).await;
        }
        let refused = authority.client(Some(stranger.sign("mallory\nforged=line")), &[]);
        if let Some(mut sender) = Sender::tls(address, refused).await {
            assert_eq!(sender.post("/prod", "hunter2").await, None);
        }
        // This client does not trust the listener.
        assert!(Sender::tls(address, stranger.client(None, &[])).await.is_none());
        // This client does not speak TLS.
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut plain = TcpStream::connect(address).await.expect("connects");
        plain.write_all(b"POST /prod HTTP/1.1\r\nauthorization: bearer hunter2\r\n\r\n").await.expect("sent");
        let _ = plain.read_to_end(&mut Vec::new()).await;
    });
    let until = Instant::now() + Duration::from_secs(5);
    let is_ours = |line: &String| line.contains("source=told") && line.contains("refused=");
    let lines = || log.lines().into_iter().filter(is_ours).collect::<Vec<_>>();
    while lines().len() < 7 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let lines = lines();
    for (kind, detail) in [
        ("certificate_name", "CN=kube-test"),
        ("too_long", "--audit-webhook-truncate-enabled"),
        ("path", "/typo"),
        ("credentials", "a bearer token is required"),
        ("certificate", "CN=mallory\\nforged=line"),
        ("not_trusted", "received fatal alert"),
        ("not_tls", "https"),
    ] {
        let of_kind: Vec<&String> =
            lines.iter().filter(|line| line.contains(&format!("refused={kind} "))).collect();
        assert_eq!(of_kind.len(), 1, "{kind}: {lines:#?}");
        assert!(of_kind[0].contains(detail) && of_kind[0].contains("peer=127.0.0.1:"), "{}", of_kind[0]);
    }
    assert!(!lines.iter().any(|line| line.contains("hunter2") || line.contains(TOKEN)), "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("ERROR") == (line.contains("too_long"))), "{lines:#?}");
}

/// Keeps what is logged, a line for each event.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<String>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic holds it").clone()
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }

            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                self.0.push_str(&format!("{field}={value} "));
            }
        }
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        self.0.lock().expect("no panic holds it").push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn pushes(folder: &Path) -> WebhookOptions {
    let format = |path: &str, cluster: &str, format| Route { format, ..route(path, cluster, &[]) };
    let access_key = Secret::new(TOKEN.to_owned());
    WebhookOptions {
        tokens: Vec::new(),
        routes: vec![
            format("/gke", "gke", RouteFormat::PubSub(assertion_options(&folder.join("jwks.json")))),
            format("/eks", "eks", RouteFormat::Firehose { access_key }),
        ],
        body_bytes_max: 8_000,
        ..plain(folder)
    }
}

#[test]
fn messages_of_pubsub_are_stored_once_for_a_valid_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let (issuer, stranger) = (Issuer::new("key"), Issuer::new("key"));
    write_keys(&folder.path().join("jwks.json"), &[&issuer]);
    let (webhook, mut source) = Webhook::start(pushes(folder.path())).expect("starts");
    let address = webhook.address();
    let now_s = i64::try_from(strongroom_journal::now_ms() / 1_000).expect("a time");
    // The data is `{"insertId":"a"}` in base64.
    let message = |id: &str, attempt: u32| {
        format!(
            "{{\"deliveryAttempt\":{attempt},\"message\":{{\"data\":\"eyJpbnNlcnRJZCI6ImEifQ==\",\"messageId\":\"{id}\"}},\
             \"subscription\":\"projects/p/subscriptions/s\"}}"
        )
    };
    runtime().block_on(async {
        let post = async |path: &str, token: &str, body: &str| {
            let mut request = request("POST", path, body);
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("text"));
            Sender::plain(address).await.send(request).await.expect("an answer").status().as_u16()
        };
        let token = issuer.valid(now_s);
        assert_eq!(post("/gke", &token, &message("1", 1)).await, 200);
        assert_eq!(post("/gke", &token, &message("1", 2)).await, 200, "a repeated message is acknowledged");
        assert_eq!(post("/gke", &token, &message("2", 1)).await, 200);
        assert_eq!(post("/gke", &issuer.valid(now_s - 3_600), &message("3", 1)).await, 401);
        assert_eq!(post("/gke", &stranger.valid(now_s), &message("3", 1)).await, 401);
        assert_eq!(post("/gke", TOKEN, &message("3", 1)).await, 401);
        assert_eq!(post("/eks", &token, &delivery(&[b"{}"])).await, 401, "a token for another route");
        assert_eq!(post("/nowhere", &token, &message("3", 1)).await, 401);
    });
    let refusals: HashMap<&str, u64> =
        webhook.counters().refusals().filter(|(_, count)| *count > 0).collect();
    assert_eq!(refusals, HashMap::from([("credentials", 4), ("path", 1)]));
    webhook.shutdown(Duration::from_secs(5));
    let (texts, _, duplicates) = drain(&mut source, &HashMap::new(), false);
    assert_eq!(texts, HashMap::from([("gke".to_owned(), "{\"insertId\":\"a\"}\n".repeat(2))]));
    assert_eq!(duplicates, 1);
    assert!(!format!("{:?}", pushes(folder.path())).contains(TOKEN) && AUDIENCE.starts_with("https://"));
}

#[test]
fn deliveries_of_firehose_are_stored_once_and_answered_as_it_wants() {
    let folder = tempfile::tempdir().expect("a folder");
    write_keys(&folder.path().join("jwks.json"), &[&Issuer::new("key")]);
    let (webhook, mut source) = Webhook::start(pushes(folder.path())).expect("starts");
    let address = webhook.address();
    let post = async |key: &str, body: Vec<u8>, encoding: Option<&str>| {
        let mut request = Request::builder()
            .method("POST")
            .uri("https://localhost/eks")
            .header("host", "localhost")
            .header("x-amz-firehose-request-id", "id-1")
            .header("x-amz-firehose-access-key", key)
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        if let Some(encoding) = encoding {
            request.headers_mut().insert("content-encoding", encoding.parse().expect("text"));
        }
        let answer = Sender::plain(address).await.send(request).await.expect("an answer");
        let body: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
        assert_eq!(body["requestId"], "id-1");
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert!(body["timestamp"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000));
        assert_eq!(body["errorMessage"].is_string(), answer.status() != 200);
        answer.status().as_u16()
    };
    runtime().block_on(async {
        let records: [&[u8]; 2] = [&gzip(b"{\"messageType\":\"DATA_MESSAGE\"}"), b"{\"a\":1}\n"];
        let first = delivery(&records);
        assert_eq!(post(TOKEN, first.clone().into_bytes(), None).await, 200);
        // The same delivery again has the time of its attempt, and may be compressed.
        let again = first.replace("1578090901599", "1578090999999");
        assert_eq!(post(TOKEN, gzip(again.as_bytes()), Some("gzip")).await, 200);
        assert_eq!(post("wrong", first.clone().into_bytes(), None).await, 401);
        assert_eq!(post(TOKEN, first.clone().into_bytes(), Some("br")).await, 415);
        assert_eq!(post(TOKEN, first.into_bytes(), Some("gzip")).await, 400);
        assert_eq!(post(TOKEN, b"{\"kind\":\"EventList\",\"items\":[]}".to_vec(), None).await, 400);
        assert_eq!(post(TOKEN, delivery(&[&gzip(&[b'x'; 9_000])]).into_bytes(), None).await, 413);
        assert_eq!(post(TOKEN, delivery(&[]).into_bytes(), None).await, 200);
    });
    webhook.shutdown(Duration::from_secs(5));
    let (texts, _, duplicates) = drain(&mut source, &HashMap::new(), false);
    let wanted = "{\"messageType\":\"DATA_MESSAGE\"}\n{\"a\":1}\n";
    assert_eq!(texts, HashMap::from([("eks".to_owned(), wanted.to_owned())]));
    assert_eq!(duplicates, 2);
}

#[test]
fn routes_for_pushes_are_checked_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let start = |options| Webhook::start(options).map(|_| ());
    assert!(matches!(
        start(pushes(folder.path())),
        Err(WebhookError::Keys { source: KeysError::Read { .. }, .. })
    ));
    write_keys(&folder.path().join("jwks.json"), &[&Issuer::new("key")]);
    let path = |options: WebhookOptions, wanted: &str| match start(options) {
        Err(WebhookError::Path { what, .. }) => assert!(what.contains(wanted), "{what}"),
        other => panic!("{wanted}: {other:?}"),
    };
    let tls = Some(authority.files(folder.path(), true));
    path(WebhookOptions { tls, ..pushes(folder.path()) }, "two listeners");
    let with = |format| {
        let route = Route { format, ..route("/a", "a", &[]) };
        WebhookOptions { routes: vec![route], ..pushes(folder.path()) }
    };
    path(with(RouteFormat::Firehose { access_key: Secret::new(" ".to_owned()) }), "empty access key");
    let mut unwraps = with(RouteFormat::Firehose { access_key: Secret::new("key".to_owned()) });
    let unwrap = Some(strongroom_lines::EventPath::parse("a").expect("a path"));
    unwraps.routes[0].reading = Arc::new(strongroom_lines::Reading { unwrap, ..Default::default() });
    path(unwraps, "has an unwrap");
    let jwks = folder.path().join("jwks.json");
    for (audience, email, issuers) in [("", "e", 1), ("a", " ", 1), ("a", "e", 0)] {
        let options = crate::webhook::AssertionOptions {
            audience: audience.to_owned(),
            email: email.to_owned(),
            issuers: vec!["i".to_owned(); issuers],
            ..assertion_options(&jwks)
        };
        path(with(RouteFormat::PubSub(options)), "are not empty");
    }
    let tight = WebhookOptions { memory_bytes_max: 3 * 8_000, ..pushes(folder.path()) };
    assert!(matches!(start(tight), Err(WebhookError::Bound { .. })));
    let token = WebhookOptions { tokens: vec![Secret::new(TOKEN.to_owned())], ..pushes(folder.path()) };
    assert!(matches!(start(token), Err(WebhookError::Bound { .. })));
}

#[test]
fn a_certificate_that_changes_is_used_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let files = authority.files(folder.path(), true);
    let identity = Identity::load(files.clone()).expect("loads");
    let first = identity.config();
    assert!(!identity.reload().expect("nothing changed"));
    authority.files(folder.path(), true);
    assert!(identity.reload().expect("changed"));
    assert!(!Arc::ptr_eq(&first, &identity.config()));
    let second = identity.config();
    std::fs::write(&files.cert, "no PEM").expect("writes");
    assert!(identity.reload().is_err());
    std::fs::remove_file(&files.cert).expect("removes");
    assert!(identity.reload().is_err());
    assert!(Arc::ptr_eq(&second, &identity.config()));
    authority.files(folder.path(), true);
    assert!(identity.reload().expect("whole again"));
}

#[test]
fn a_full_log_is_told_with_the_time_to_wait_until_some_of_it_is_sealed() {
    let folder = tempfile::tempdir().expect("a folder");
    let options =
        || WebhookOptions { body_bytes_max: 4_000, wal_bytes_max: 32 << 10, ..plain(folder.path()) };
    let (webhook, mut source) = Webhook::start(options()).expect("starts");
    let address = webhook.address();
    let event =
        |number: usize| format!("{{\"kind\":\"Event\",\"n\":{number},\"x\":\"{}\"}}", "x".repeat(3_000));
    let runtime = runtime();
    let stored = runtime.block_on(async {
        let mut sender = Sender::plain(address).await;
        let mut stored = 0;
        loop {
            let answer =
                sender.send(request("POST", "/audit/prod", &event(stored))).await.expect("an answer");
            if answer.status() != 200 {
                assert_eq!(
                    (answer.status().as_u16(), &answer.headers()["retry-after"]),
                    (429, &"5".parse().expect("5"))
                );
                break stored;
            }
            stored += 1;
        }
    });
    assert!((5..11).contains(&stored), "{stored}");
    assert!(webhook.trouble().is_some_and(|trouble| trouble.contains("is full")));
    let (_, positions, _) = drain(&mut source, &HashMap::new(), true);
    assert_eq!(webhook.trouble(), None);
    runtime.block_on(async {
        let mut sender = Sender::plain(address).await;
        assert_eq!(sender.post("/audit/prod", &event(stored)).await, Some(200));
        assert_eq!(
            sender.post("/audit/prod", &event(0)).await,
            Some(200),
            "the batch is recognised although its segment is removed"
        );
    });
    let (texts, _, duplicates) = drain(&mut source, &positions, true);
    assert_eq!((texts["prod"].as_str(), duplicates), (format!("{}\n", event(stored)).as_str(), 1));
}

/// Whoever can open one connection can open many. Clients with credentials must be served all the
/// same, on connections that were open before and on new ones.
#[test]
fn strangers_keep_nobody_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let options = WebhookOptions {
        tls: Some(authority.files(folder.path(), false)),
        connections_max: 4,
        ..plain(folder.path())
    };
    let (webhook, _source) = Webhook::start(options).expect("starts");
    let address = webhook.address();
    let within = Duration::from_secs(5);
    runtime().block_on(async {
        let config = authority.client(None, &["h2"]);
        let mut before = Sender::tls(address, Arc::clone(&config)).await.expect("the sender is let in");
        assert_eq!(before.post("/audit/prod", &body(0, 1)).await, Some(200));
        let mut silent = Vec::new();
        for round in 1..=5 {
            for _ in 0..100 {
                silent.push(TcpStream::connect(address).await.expect("connects"));
            }
            // Some of the strangers speak TLS, and then say nothing.
            for _ in 0..3 {
                silent.extend(TcpStream::connect(address).await);
                let quiet = tokio::time::timeout(within, Sender::tls(address, Arc::clone(&config))).await;
                assert!(quiet.expect("in time").is_some(), "round {round}");
            }
            let begun = Instant::now();
            let new = async {
                let mut new = Sender::tls(address, Arc::clone(&config)).await.expect("the sender is let in");
                new.post("/audit/prod", &body(round, 1)).await
            };
            assert_eq!(tokio::time::timeout(within, new).await, Ok(Some(200)), "round {round}");
            assert_eq!(before.post("/audit/test", &body(round, 1)).await, Some(200), "round {round}");
            assert!(begun.elapsed() < within, "{:?}", begun.elapsed());
        }
        assert!(
            webhook.counters().connections.load(Ordering::Relaxed) < 200,
            "connections of strangers were closed"
        );
    });
    let crowded = webhook.counters().refusals().find(|(kind, _)| *kind == "crowded").expect("a kind").1;
    assert!(crowded >= 300, "{crowded}");
}

/// A connection beyond the bound is closed after its answer, and then there is room again.
#[test]
fn connections_of_those_who_are_known_are_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = WebhookOptions { connections_max: 2, ..plain(folder.path()) };
    let (webhook, _source) = Webhook::start(options).expect("starts");
    let address = webhook.address();
    runtime().block_on(async {
        let mut senders = Vec::new();
        for number in 0..4 {
            let mut sender = Sender::plain(address).await;
            assert_eq!(sender.post("/audit/prod", &body(number, 1)).await, Some(200), "{number}");
            senders.push(sender);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(webhook.counters().connections.load(Ordering::Relaxed), 2);
        for sender in &mut senders[..2] {
            assert_eq!(sender.post("/audit/prod", &body(9, 1)).await, Some(200));
        }
        drop(senders);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut sender = Sender::plain(address).await;
        assert_eq!(sender.post("/audit/prod", &body(10, 1)).await, Some(200));
        assert_eq!(sender.post("/audit/prod", &body(11, 1)).await, Some(200));
    });
    let refused = webhook.counters().refusals().find(|(kind, _)| *kind == "connections").expect("a kind").1;
    assert_eq!(refused, 2);
}

#[test]
fn memory_for_bodies_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let options =
        WebhookOptions { body_bytes_max: 900 << 10, memory_bytes_max: 1 << 20, ..plain(folder.path()) };
    let (webhook, _source) = Webhook::start(options).expect("starts");
    let address = webhook.address();
    runtime().block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        // One sender announces a long body and sends little of it.
        let mut slow = TcpStream::connect(address).await.expect("connects");
        let head = format!(
            "POST /audit/prod HTTP/1.1\r\nhost: x\r\nauthorization: bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n{{",
            800 << 10
        );
        slow.write_all(head.as_bytes()).await.expect("writes");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let long = "x".repeat(500 << 10);
        let answer = Sender::plain(address).await.send(request("POST", "/audit/prod", &long)).await.expect("answers");
        assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"5".parse().expect("5")));
        assert_eq!(Sender::plain(address).await.post("/audit/prod", &body(0, 1)).await, Some(200));
        // A body that breaks off is not stored, and its memory is free again.
        slow.shutdown().await.expect("shuts down");
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
        let mut sender = Sender::plain(address).await;
        assert_eq!(sender.post("/audit/prod", &long).await, Some(200));
    });
    assert_eq!(webhook.counters().batches.load(Ordering::Relaxed), 2);
}

#[test]
fn many_at_once_twice_each_are_stored_once_and_outlive_the_process() {
    const POSTS: usize = 50;
    const ITEMS: usize = 20;
    let folder = tempfile::tempdir().expect("a folder");
    let post_all = |address: SocketAddr, twice: bool| {
        runtime().block_on(async {
            let post = move |number: usize| async move {
                Sender::plain(address).await.post("/audit/prod", &body(number * ITEMS, ITEMS)).await
            };
            let tasks: Vec<_> = (0..POSTS)
                .flat_map(|number| (0..if twice { 2 } else { 1 }).map(move |_| number))
                .map(|number| tokio::spawn(post(number)))
                .collect();
            for task in tasks {
                assert_eq!(task.await.expect("no panic"), Some(200));
            }
        });
    };
    let (webhook, source) = Webhook::start(plain(folder.path())).expect("starts");
    post_all(webhook.address(), true);
    assert_eq!(webhook.counters().duplicate_batches.load(Ordering::Relaxed), POSTS as u64);
    drop((webhook, source));

    let (webhook, mut source) = Webhook::start(plain(folder.path())).expect("starts");
    post_all(webhook.address(), false);
    let (texts, positions, duplicates) = drain(&mut source, &HashMap::new(), false);
    assert_eq!(duplicates, (POSTS * ITEMS) as u64, "after a restart every batch is recognised");
    let mut numbers: Vec<&str> = texts["prod"].lines().collect();
    // A batch stays together and in its order.
    for batch in numbers.chunks(ITEMS) {
        let first = batch[0]
            .trim_matches(|letter: char| !letter.is_ascii_digit())
            .parse::<usize>()
            .expect("a number");
        assert_eq!(batch, (first..first + ITEMS).map(|n| line(n).trim_end().to_owned()).collect::<Vec<_>>());
    }
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), POSTS * ITEMS);
    let (nothing, _, _) = drain(&mut source, &positions, false);
    assert_eq!(nothing.len(), 0);
}

/// Environment variable of a child process: the folder of its log, in which it also writes its
/// address.
const CHILD: &str = "STRONGROOM_TEST_WEBHOOK";

/// Not a test in itself. The next test starts this function in a process of its own, and kills that
/// process.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD).map(std::path::PathBuf::from) else { return };
    let (webhook, _source) = Webhook::start(plain(&folder)).expect("starts");
    let mut file = std::fs::File::create(folder.join("new")).expect("creates");
    write!(file, "{}", webhook.address()).expect("writes");
    std::fs::rename(folder.join("new"), folder.join("address")).expect("renames");
    std::thread::sleep(Duration::from_secs(60));
}

/// Kills a process again and again while batches arrive. Each batch is sent until it is
/// acknowledged, as the API server does, and must be handed over exactly once.
#[test]
fn what_was_acknowledged_is_there_once_whenever_the_process_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut next = 0;
    for round in 0..8_u64 {
        let _ = std::fs::remove_file(folder.path().join("address"));
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "webhook::tests::http::child"])
            .env(CHILD, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let until = Instant::now() + Duration::from_secs(20);
        let address = loop {
            if let Ok(address) = std::fs::read_to_string(folder.path().join("address")) {
                break address.parse().expect("an address");
            }
            assert!(Instant::now() < until, "the child process did not start to listen");
            std::thread::sleep(Duration::from_millis(5));
        };
        runtime().block_on(async {
            let posting = async {
                let mut sender = Sender::plain(address).await;
                while sender.post("/audit/prod", &body(next * 3, 3)).await == Some(200) {
                    next += 1;
                }
            };
            let killing = async {
                tokio::time::sleep(Duration::from_millis(20 + round * 13)).await;
                child.kill().expect("kills");
            };
            tokio::join!(posting, killing);
        });
        child.wait().expect("ended");
    }
    // The last batch was not acknowledged: it is sent once more, as the API server would.
    let (webhook, mut source) = Webhook::start(plain(folder.path())).expect("starts");
    runtime().block_on(async {
        assert_eq!(
            Sender::plain(webhook.address()).await.post("/audit/prod", &body(next * 3, 3)).await,
            Some(200)
        );
    });
    assert!(next > 8, "{next}");
    let (texts, _, _) = drain(&mut source, &HashMap::new(), false);
    assert_eq!(texts["prod"], (0..(next + 1) * 3).map(line).collect::<String>());
}
