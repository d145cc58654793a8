//! Serves the state of a running pipeline over HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! Invariants: no text of an event or a client is shown. `/metrics` requires the token if one is
//! configured. `/healthz` and `/readyz` answer yes or no, and name the failing parts without
//! details. The number and the duration of connections are bounded.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use strongroom_live::webhook::WebhookCounters;
use strongroom_live::{BUCKETS, Door, Histogram, Metrics, Secret};
use strongroom_sinks::{OutboxCounters, SinkCounters};

use crate::anchor::AnchorCounters;
use crate::exit::CliError;

/// Maximum number of connections. When there are more, the oldest one is closed.
const CONNECTIONS_MAX: usize = 64;
/// Maximum number of connections from one address. When there are more, the oldest of them is
/// closed.
const CONNECTIONS_OF_ADDRESS_MAX: usize = 32;
/// Maximum time for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Maximum time for a whole connection.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// A pipeline that has not called [`State::alive`] for this long counts as hung.
const HANGS: Duration = Duration::from_secs(300);

/// The state that is shown.
pub struct State {
    metrics: Arc<Metrics>,
    dropped_alerts: Arc<AtomicU64>,
    heard: Mutex<Instant>,
    webhooks: Mutex<Vec<(String, Arc<WebhookCounters>)>>,
    sinks: OnceLock<SinksShown>,
    anchors: OnceLock<Vec<(String, Arc<AnchorCounters>)>>,
}

/// Counters of the outbox, and of each sink by its name.
type SinksShown = (Arc<OutboxCounters>, Vec<(String, Arc<SinkCounters>)>);

impl State {
    pub fn new(metrics: Arc<Metrics>, dropped_alerts: Arc<AtomicU64>) -> State {
        State {
            metrics,
            dropped_alerts,
            heard: Mutex::new(Instant::now()),
            webhooks: Mutex::default(),
            sinks: OnceLock::new(),
            anchors: OnceLock::new(),
        }
    }

    pub fn add_webhook(&self, name: String, counters: Arc<WebhookCounters>) {
        self.webhooks.lock().unwrap_or_else(PoisonError::into_inner).push((name, counters));
    }

    /// Sets the counters of the outbox and the sinks. Only the first call has an effect.
    pub fn set_sinks(&self, outbox: Arc<OutboxCounters>, sinks: Vec<(String, Arc<SinkCounters>)>) {
        let _ = self.sinks.set((outbox, sinks));
    }

    /// Sets the counters of the anchors. Only the first call has an effect.
    pub fn set_anchors(&self, anchors: Vec<(String, Arc<AnchorCounters>)>) {
        let _ = self.anchors.set(anchors);
    }

    /// Called by the pipeline to report that it is alive.
    pub fn alive(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn health(&self) -> (StatusCode, String) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if self.metrics.running.load(Ordering::Relaxed) && heard > HANGS {
            return (StatusCode::SERVICE_UNAVAILABLE, "the pipeline is hung\n".to_owned());
        }
        (StatusCode::OK, "ok\n".to_owned())
    }

    fn readiness(&self) -> (StatusCode, String) {
        let mut wrong = Vec::new();
        if !self.metrics.running.load(Ordering::Relaxed) {
            wrong.push("the pipeline is not running".to_owned());
        }
        if self.metrics.clock_doubted.load(Ordering::Relaxed) {
            wrong.push("the system clock cannot be right, so nothing is sealed".to_owned());
        } else if self.metrics.trouble().is_some() {
            wrong.push("the archive cannot be written".to_owned());
        }
        let sources = self.metrics.sources();
        let troubled = sources.iter().filter(|(_, counters)| counters.trouble().is_some());
        wrong.extend(troubled.map(|(name, _)| format!("source {name} is blocked")));
        if wrong.is_empty() {
            return (StatusCode::OK, "ready\n".to_owned());
        }
        wrong.push("see the log for the reason".to_owned());
        (StatusCode::SERVICE_UNAVAILABLE, wrong.join("\n") + "\n")
    }
}

/// Serves `state` on its own thread; returns the bound address.
///
/// # Errors
/// When the address cannot be bound.
pub fn start(listen: SocketAddr, token: Option<Secret>, state: Arc<State>) -> Result<SocketAddr, CliError> {
    let cannot = || format!("cannot listen on {listen} for metrics and health");
    let hint = "[observe] listen in the configuration names the address; \"\" for none";
    let bind = || {
        let listener = std::net::TcpListener::bind(listen).with_context(cannot)?;
        listener.set_nonblocking(true).with_context(cannot)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().with_context(cannot)?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener).with_context(cannot)?
        };
        let address = listener.local_addr().with_context(cannot)?;
        std::thread::Builder::new()
            .name("observe".to_owned())
            .spawn(move || runtime.block_on(serve(listener, token, state)))
            .with_context(cannot)?;
        anyhow::Ok(address)
    };
    bind().map_err(|error| CliError::failure(error).with_hint(hint))
}

async fn serve(listener: tokio::net::TcpListener, token: Option<Secret>, state: Arc<State>) {
    let door = Door::new(CONNECTIONS_MAX, CONNECTIONS_OF_ADDRESS_MAX);
    let token = Arc::new(token.map(|token| format!("Bearer {}", token.expose())));
    loop {
        let (stream, stranger) = match listener.accept().await {
            Ok((stream, address)) => (stream, door.enter(address.ip())),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (state, token) = (Arc::clone(&state), Arc::clone(&token));
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let response = answer(&request, token.as_deref(), &state);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .serve_connection(TokioIo::new(stream), service);
            // An error that a client causes on its own connection is not reported.
            tokio::select! {
                _ = tokio::time::timeout(CONNECTION_TIME, connection) => {}
                () = stranger.sent_away() => {}
            }
        });
    }
}

fn answer(request: &Request<Incoming>, token: Option<&str>, state: &State) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => {
            let (status, body) = state.health();
            (status, text, body)
        }
        (&Method::GET, "/readyz") => {
            let (status, body) = state.readiness();
            (status, text, body)
        }
        (&Method::GET, "/metrics") if !is_allowed(request, token) => {
            (StatusCode::UNAUTHORIZED, text, "a bearer token is required\n".to_owned())
        }
        (&Method::GET, "/metrics") => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", exposition(state))
        }
        (&Method::GET, _) => {
            (StatusCode::NOT_FOUND, text, "not found; try /metrics, /healthz or /readyz\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, text, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn is_allowed(request: &Request<Incoming>, token: Option<&str>) -> bool {
    let Some(token) = token else { return true };
    let given = request.headers().get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    // The comparison takes the same time wherever the first wrong byte is, so that its duration
    // says nothing about the token.
    given.len() == token.len()
        && given.iter().zip(token.as_bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// The text format of Prometheus.
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP strongroom_{name} {help}\n# TYPE strongroom_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.0, "strongroom_{name}");
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let cumulative = histogram.cumulative();
        for (bound, count) in BUCKETS.iter().zip(cumulative) {
            self.sample(&format!("{name}_bucket"), &[("le", &bound.to_string())], count as f64);
        }
        let all = cumulative.last().copied().unwrap_or(0) as f64;
        self.sample(&format!("{name}_bucket"), &[("le", "+Inf")], all);
        self.sample(&format!("{name}_sum"), &[], histogram.sum_seconds());
        self.sample(&format!("{name}_count"), &[], all);
    }
}

fn exposition(state: &State) -> String {
    let metrics = &state.metrics;
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    let mut out = Exposition(String::new());
    out.family("build_info", "gauge", "The running version.");
    out.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let counters: [(&str, &str, &AtomicU64); 16] = [
        ("received_records_total", "Records decoded or skipped as duplicates.", &metrics.received),
        ("sealed_events_total", "Events sealed in the archive.", &metrics.sealed_events),
        ("sealed_rejects_total", "Undecodable records sealed in the archive.", &metrics.sealed_rejects),
        ("duplicate_records_total", "Records skipped because they are stored already.", &metrics.duplicates),
        (
            "given_up_records_total",
            "Records read and not sealed when the pipeline restarted; they are read again.",
            &metrics.given_up,
        ),
        ("seals_total", "Durable seals.", &metrics.seals),
        ("seal_failures_total", "Attempts to seal that failed.", &metrics.seal_failures),
        ("sealed_bytes_total", "Bytes of Parquet sealed.", &metrics.sealed_bytes),
        ("sealed_files_total", "Files sealed.", &metrics.sealed_files),
        ("restarts_total", "Times that the pipeline restarted after a failure.", &metrics.restarts),
        ("rules", "Rules in use.", &metrics.rules),
        ("rule_reloads_total", "Times that rules were replaced.", &metrics.rule_reloads),
        (
            "rule_reloads_refused_total",
            "Times that new rules were refused and the old ones stayed.",
            &metrics.rule_reloads_refused,
        ),
        (
            "conservation_failures_total",
            "Times that the counts of records read and sealed differed. Anything but 0 is a defect.",
            &metrics.conservation_failures,
        ),
        (
            "alerts_untold_total",
            "Alerts dropped because their queue was full; the archive has them.",
            &state.dropped_alerts,
        ),
        ("text_limit_bytes", "Maximum size of the text that may be in progress.", &metrics.text_bytes_max),
    ];
    for (name, help, count) in counters {
        out.one(name, if name.ends_with("_total") { "counter" } else { "gauge" }, help, get(count));
    }
    out.one("unsealed_records", "gauge", "Records decoded and not sealed yet.", get(&metrics.unsealed));
    out.one(
        "text_bytes",
        "gauge",
        "Text in progress, from its source until it is encoded.",
        get(&metrics.text_bytes),
    );
    out.one("encoded_bytes", "gauge", "Parquet waiting for a seal.", get(&metrics.encoded_bytes));
    let oldest = metrics.oldest_unsealed().map_or(0.0, |age| age.as_secs_f64());
    out.one("oldest_unsealed_seconds", "gauge", "Age of the oldest unsealed record.", oldest);
    let conserved = if metrics.conserved() { 1.0 } else { 0.0 };
    out.one("conserved", "gauge", "1 while received equals the sum of its outcomes.", conserved);
    let running = if metrics.running.load(Ordering::Relaxed) { 1.0 } else { 0.0 };
    out.one("running", "gauge", "1 while the pipeline accepts records from sources.", running);
    let doubted = if metrics.clock_doubted.load(Ordering::Relaxed) { 1.0 } else { 0.0 };
    out.one(
        "clock_doubted",
        "gauge",
        "1 while nothing is sealed because the clock cannot be right.",
        doubted,
    );
    out.histogram("seal_seconds", "Duration of a seal.", &metrics.seal_seconds);
    out.histogram("alert_seconds", "Time from the arrival of an event to its alert.", &metrics.alert_seconds);
    out.family("alerts_total", "counter", "Alerts raised, by severity.");
    for (severity, count) in metrics.alerts() {
        out.sample("alerts_total", &[("severity", severity.as_str())], count as f64);
    }
    out.family("rejects_total", "counter", "Rejects sealed, by reason.");
    for (reason, count) in metrics.rejects() {
        out.sample("rejects_total", &[("reason", &reason)], count as f64);
    }
    out.family("dialect_events_total", "counter", "Events sealed, by the wrapper that they came in.");
    for (dialect, count) in metrics.dialects().iter() {
        out.sample("dialect_events_total", &[("dialect", dialect.as_str())], count as f64);
    }
    let faults = metrics.faults();
    out.one(
        "faulty_events_total",
        "counter",
        "Events sealed with members that could not be read.",
        faults.events as f64,
    );
    let mut by_fault: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for (kind, count) in faults.kinds() {
        *by_fault.entry(kind.rsplit(": ").next().unwrap_or(kind)).or_insert(0) += count;
    }
    out.family("faults_total", "counter", "Parts of sealed events that could not be read, by fault.");
    for (fault, count) in by_fault {
        out.sample("faults_total", &[("fault", fault)], count as f64);
    }
    if let Some(policy) = metrics.redaction_policy.get() {
        out.family("redaction_policy", "gauge", "1 while a redaction policy is in force.");
        out.sample("redaction_policy", &[("policy", &format!("{policy:016x}"))], 1.0);
    }
    out.one(
        "redacted_events_total",
        "counter",
        "Events sealed that the redaction policy changed.",
        get(&metrics.redacted_events),
    );
    out.family("redacted_values_total", "counter", "Values that the policy removed or replaced, by action.");
    out.sample("redacted_values_total", &[("action", "drop")], get(&metrics.dropped_values));
    out.sample("redacted_values_total", &[("action", "tokenise")], get(&metrics.tokenised_values));
    let sources = metrics.sources();
    let mut each =
        |name: &str, kind: &str, help: &str, value: &dyn Fn(&strongroom_live::SourceCounters) -> f64| {
            out.family(name, kind, help);
            for (source, counters) in &sources {
                out.sample(name, &[("source", source)], value(counters));
            }
        };
    each("source_bytes_total", "counter", "Text read from a source.", &|c| get(&c.bytes));
    each("source_duplicates_total", "counter", "Records that arrived again.", &|c| get(&c.duplicates));
    // A source whose Kafka group has assigned no partition to it reads nothing. So it is neither
    // healthy nor blocked, and its lag is unknown.
    let is_spare = |c: &strongroom_live::SourceCounters| c.partitions() == Some(0);
    each(
        "source_lag",
        "gauge",
        "What waits at the source: bytes, or messages of a broker; NaN if its group has assigned nothing.",
        &|c| if is_spare(c) { f64::NAN } else { c.lag.load(Ordering::Relaxed) as f64 },
    );
    each(
        "source_partitions",
        "gauge",
        "Partitions that the source's group has assigned to it; NaN for sources without a group.",
        &|c| c.partitions().map_or(f64::NAN, |count| count as f64),
    );
    each(
        "source_files_left_out",
        "gauge",
        "Files in followed folders that are not read, because of their names.",
        &|c| get(&c.left_out),
    );
    each("source_troubles_total", "counter", "Times that a source was blocked.", &|c| get(&c.troubles));
    each(
        "source_well",
        "gauge",
        "0 while a source is blocked by an error; NaN while its group has assigned nothing.",
        &|c| match c.trouble() {
            Some(_) => 0.0,
            None if is_spare(c) => f64::NAN,
            None => 1.0,
        },
    );
    each(
        "source_silent_seconds",
        "gauge",
        "Time since a source delivered anything, or could; NaN while its group has assigned nothing.",
        &|c| c.quiet_since().map_or(f64::NAN, |since| since.elapsed().as_secs_f64()),
    );
    let webhooks = state.webhooks.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !webhooks.is_empty() {
        of_webhooks(&mut out, &webhooks);
    }
    if let Some((outbox, sinks)) = state.sinks.get() {
        of_sinks(&mut out, outbox, sinks);
    }
    if let Some(anchors) = state.anchors.get() {
        of_anchors(&mut out, anchors);
    }
    out.0
}

fn of_anchors(out: &mut Exposition, anchors: &[(String, Arc<AnchorCounters>)]) {
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&AnchorCounters) -> f64| {
        out.family(name, kind, help);
        for (anchor, counters) in anchors {
            out.sample(name, &[("anchor", anchor)], value(counters));
        }
    };
    let yes = |is: &AtomicBool| f64::from(u8::from(is.load(Ordering::Relaxed)));
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    each(
        "anchor_made_total",
        "counter",
        "Checkpoints that a witness cosigned, or an authority stamped.",
        &|c| get(&c.made),
    );
    each(
        "anchor_troubles_total",
        "counter",
        "Times that a log could not be anchored.",
        &|c| get(&c.troubles),
    );
    each(
        "anchor_lag_commits",
        "gauge",
        "Signed commits that a witness or authority has yet to anchor.",
        &|c| get(&c.lag),
    );
    each("anchor_well", "gauge", "1 while everything due is anchored.", &|c| yes(&c.is_well));
    each(
        "anchor_contradicts",
        "gauge",
        "1 when a witness has seen a history other than the archive's.",
        &|c| yes(&c.contradicts),
    );
}

fn of_sinks(out: &mut Exposition, outbox: &OutboxCounters, sinks: &[(String, Arc<SinkCounters>)]) {
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let counters: [(&str, &str, &AtomicU64); 7] = [
        ("outbox_alerts_total", "Alerts made durable for the sinks.", &outbox.stored),
        ("outbox_known_total", "Alerts that arrived again and were not stored again.", &outbox.known),
        ("outbox_held_total", "Alerts counted in a group and sent as its summary.", &outbox.held),
        (
            "outbox_missed_total",
            "Alerts for which there was no room; they are read from the archive.",
            &outbox.missed,
        ),
        ("outbox_caught_up_total", "Alerts read from the archive.", &outbox.caught_up),
        ("outbox_failures_total", "Times that the outbox could not be written.", &outbox.failures),
        ("outbox_dropped_total", "Records dropped before every sink had them.", &outbox.dropped),
    ];
    for (name, help, count) in counters {
        out.one(name, "counter", help, get(count) as f64);
    }
    out.one("outbox_bytes", "gauge", "Bytes of the outbox.", get(&outbox.bytes) as f64);
    let now_ms = chrono::Utc::now().timestamp_millis();
    let age = |ms: i64, none: f64| if ms == 0 { none } else { (now_ms - ms).max(0) as f64 / 1000.0 };
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&SinkCounters) -> f64| {
        out.family(name, kind, help);
        for (sink, counters) in sinks {
            out.sample(name, &[("sink", sink)], value(counters));
        }
    };
    each("sink_sent_total", "counter", "Alerts that a sink accepted.", &|c| get(&c.sent) as f64);
    each("sink_failures_total", "counter", "Failed attempts, which are repeated.", &|c| {
        get(&c.failures) as f64
    });
    each("sink_dead_total", "counter", "Alerts that a sink refused; they are in its dead letters.", &|c| {
        get(&c.dead) as f64
    });
    each("sink_lag", "gauge", "Records of the outbox waiting for a sink.", &|c| get(&c.lag) as f64);
    each("sink_oldest_seconds", "gauge", "Age of the oldest alert waiting for a sink.", &|c| {
        age(i64::try_from(get(&c.oldest_ms)).unwrap_or(0), 0.0)
    });
    each(
        "sink_last_sent_seconds",
        "gauge",
        "Time since a sink accepted anything; -1 before the first.",
        &|c| age(c.last_sent_ms.load(Ordering::Relaxed), -1.0),
    );
    each("sink_well", "gauge", "0 while a sink accepts nothing.", &|c| {
        if c.trouble().is_some() { 0.0 } else { 1.0 }
    });
}

fn of_webhooks(out: &mut Exposition, webhooks: &[(String, Arc<WebhookCounters>)]) {
    out.family("webhook_requests_total", "counter", "Requests answered, by status.");
    for (source, counters) in webhooks {
        for (status, count) in counters.requests().filter(|(_, count)| *count > 0) {
            let labels = [("source", source.as_str()), ("status", &status.to_string())];
            out.sample("webhook_requests_total", &labels, count as f64);
        }
    }
    out.family("webhook_refusals_total", "counter", "Requests and connections refused, by kind.");
    for (source, counters) in webhooks {
        for (kind, count) in counters.refusals() {
            out.sample("webhook_refusals_total", &[("source", source), ("kind", kind)], count as f64);
        }
    }
    let name = "webhook_acknowledgement_seconds";
    out.family(name, "histogram", "Time from the head of a request to its acknowledgement.");
    for (source, counters) in webhooks {
        let (buckets, sum) = counters.latency();
        let mut below = 0;
        for (bound, count) in buckets {
            below += count;
            let bound = bound.map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
            out.sample(&format!("{name}_bucket"), &[("source", source), ("le", &bound)], below as f64);
        }
        out.sample(&format!("{name}_sum"), &[("source", source)], sum.as_secs_f64());
        out.sample(&format!("{name}_count"), &[("source", source)], below as f64);
    }
    type Get = fn(&WebhookCounters) -> &AtomicU64;
    let families: [(&str, &str, &str, Get); 9] = [
        ("webhook_batches_total", "counter", "Batches stored.", |c| &c.batches),
        ("webhook_items_total", "counter", "Events stored.", |c| &c.items),
        ("webhook_duplicate_batches_total", "counter", "Batches that arrived again.", |c| {
            &c.duplicate_batches
        }),
        ("webhook_odd_bodies_total", "counter", "Bodies that were not events, kept as a line.", |c| {
            &c.odd_bodies
        }),
        ("webhook_handshakes_failed_total", "counter", "Connections refused.", |c| &c.handshakes_failed),
        ("webhook_connections", "gauge", "Open connections.", |c| &c.connections),
        ("webhook_wal_bytes", "gauge", "Bytes of the write-ahead log.", |c| &c.wal_bytes),
        ("webhook_wal_segments", "gauge", "Its segments.", |c| &c.wal_segments),
        ("webhook_wal_syncs_total", "counter", "Syncs of the write-ahead log.", |c| &c.wal_syncs),
    ];
    for (name, kind, help, get) in families {
        out.family(name, kind, help);
        for (source, counters) in webhooks {
            out.sample(name, &[("source", source)], get(counters).load(Ordering::Relaxed) as f64);
        }
    }
}
