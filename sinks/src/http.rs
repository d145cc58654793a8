//! HTTP for sinks: a request, an answer, and what an answer means for an alert.
//!
//! Invariants:
//! - Redirects are not followed, and no address of the link-local network is spoken to: an alert goes where the
//!   configuration says.
//! - A request takes [`HTTP_TIMEOUT`] at most; of an answer [`ANSWER_BYTES_MAX`] are read.
//! - What a receiver says is shown without control characters, not in full length, and without our secrets.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use strongroom_schemas::Secret;
use url::{Host, Url};

use super::{Outcome, SinkError, TlsOptions, plain};

/// Time for one request, connecting included.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Of an answer that is shown.
const SHOWN_CHARS_MAX: usize = 300;

/// Where to, and with whom.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    pub url: Url,
    pub tls: TlsOptions,
}

impl HttpOptions {
    /// Checks an address. With `confidential` it has to be https, unless it is this machine.
    ///
    /// # Errors
    /// When it is no http or https URL, or one that nothing is sent to.
    pub fn new(url: &str, tls: TlsOptions, confidential: bool) -> Result<HttpOptions, SinkError> {
        let url = Url::parse(url).map_err(|_| SinkError::Url { what: "is no URL" })?;
        let is_local = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) if address.is_link_local() => {
                return Err(SinkError::Url { what: "is link-local, where clouds keep credentials" });
            }
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) if address.is_unicast_link_local() => {
                return Err(SinkError::Url { what: "is link-local, where clouds keep credentials" });
            }
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(SinkError::Url { what: "has no host" }),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SinkError::Url { what: "holds a name or password, which belong in a file" });
        }
        match url.scheme() {
            "https" => {}
            "http" if !confidential || is_local => {}
            "http" => return Err(SinkError::Url { what: "has to be https: a secret goes there" }),
            _ => return Err(SinkError::Url { what: "is neither http nor https" }),
        }
        Ok(HttpOptions { url, tls })
    }

    /// The address with more of a path behind it.
    pub(super) fn join(&self, path: &str) -> String {
        format!("{}/{path}", self.url.as_str().trim_end_matches('/'))
    }
}

/// What a receiver answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

/// A client with a runtime of its own.
pub(super) struct Http {
    runtime: tokio::runtime::Runtime,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    secrets: Vec<Secret>,
    /// The last answer, or why there was none, for a person.
    pub said: String,
}

impl Http {
    pub(super) fn new(options: &HttpOptions, secrets: Vec<Secret>) -> Result<Http, SinkError> {
        // Without TLS no authority is needed, and a small image may have none.
        let tls = match options.url.scheme() {
            "https" => options.tls.client()?,
            _ => options.tls.none()?,
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        // A thread of its own notices connections that the receiver closes between two requests.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sink-http")
            .enable_all()
            .build()
            .map_err(SinkError::Runtime)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Http { runtime, client, secrets, said: String::new() })
    }

    /// Sends requests, `at_once` of them at the same time; the answers come in their order.
    pub(super) fn send_all(
        &mut self,
        requests: Vec<Request<Full<Bytes>>>,
        at_once: usize,
    ) -> Vec<Result<Answer, String>> {
        let client = &self.client;
        let one = |request: Request<Full<Bytes>>| async move {
            let exchange = async {
                let response: Response<_> = client.request(request).await.map_err(|error| chain(&error))?;
                let (head, body) = response.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|error| chain(error.as_ref()))?.to_bytes().to_vec();
                let after = head.headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
                Ok(Answer { status: head.status, retry_after: after, body })
            };
            let timed = tokio::time::timeout(HTTP_TIMEOUT, exchange).await;
            timed.unwrap_or_else(|_| Err(format!("no answer within {} s", HTTP_TIMEOUT.as_secs())))
        };
        let sent = futures::stream::iter(requests.into_iter().map(one)).buffered(at_once.max(1));
        let answers: Vec<_> = self.runtime.block_on(sent.collect());
        if let Some(last) = answers.last() {
            self.said = match last {
                Ok(answer) => self.shown(answer),
                Err(reason) => reason.clone(),
            };
        }
        answers
    }

    pub(super) fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        self.send_all(vec![request], 1).pop().unwrap_or_else(|| Err("nothing was sent".to_owned()))
    }

    /// An answer for a person.
    pub(super) fn shown(&self, answer: &Answer) -> String {
        let mut body = String::from_utf8_lossy(&answer.body).into_owned();
        for secret in &self.secrets {
            if !secret.expose().is_empty() {
                body = body.replace(secret.expose(), "[secret]");
            }
        }
        let body = plain(body.trim(), SHOWN_CHARS_MAX);
        let status = answer.status;
        if body.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {body}") }
    }

    /// What an answer means, by its status alone.
    pub(super) fn judge(&self, answer: &Result<Answer, String>) -> Outcome {
        let answer = match answer {
            Ok(answer) => answer,
            Err(reason) => return Outcome::later(reason.clone()),
        };
        let said = self.shown(answer);
        match answer.status.as_u16() {
            200..=299 => Outcome::Taken,
            408 | 425 | 429 | 500..=599 => Outcome::Later { reason: said, after: answer.retry_after },
            401 | 403 | 407 => Outcome::later(format!("{said}: check the credentials")),
            // The address is wrong, or nobody listens there any more; no alert is at fault.
            300..=399 | 404 | 405 | 410 => Outcome::later(format!("{said}: check the URL")),
            _ => Outcome::Refused { reason: said },
        }
    }
}

/// One address that is posted to, with the manners of a sink's HTTP: for who is no sink.
pub struct Post {
    base: String,
    http: Mutex<Http>,
}

impl Post {
    /// # Errors
    /// As what makes a sink: authorities or certificates that cannot be used.
    pub fn new(options: &HttpOptions) -> Result<Post, SinkError> {
        let base = options.url.as_str().trim_end_matches('/').to_owned();
        Ok(Post { base, http: Mutex::new(Http::new(options, Vec::new())?) })
    }

    /// Posts `body` to a path below the address, or to the address itself, and waits for [`HTTP_TIMEOUT`] at most:
    /// status and body of the answer. One at a time; blocks, and must not be called inside an async runtime.
    ///
    /// # Errors
    /// In words, when there was no whole answer.
    pub fn send(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), String> {
        let url = if path.is_empty() { self.base.clone() } else { format!("{}/{path}", self.base) };
        let request = post(&url, &[("content-type", content_type)], body);
        let mut http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = http.send(request)?;
        Ok((answer.status.as_u16(), answer.body))
    }
}

/// A POST with a body.
pub(super) fn post(url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(Method::POST).uri(url);
    request = request.header("user-agent", concat!("strongroom/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    // Addresses and secrets are checked when a sink is made; what is not possible here is answered by nobody.
    request.body(Full::new(Bytes::from(body))).unwrap_or_default()
}

/// A secret that goes into a header.
pub(super) fn check_header(secret: &Secret) -> Result<(), SinkError> {
    let plain = secret.expose().bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if plain { Ok(()) } else { Err(SinkError::Secret { what: "has characters that no header takes" }) }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    (date.to_utc() - chrono::Utc::now()).to_std().ok()
}

/// An error and its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_give_something_away_are_refused() {
        let new = |url, confidential| HttpOptions::new(url, TlsOptions::default(), confidential);
        assert!(new("https://siem.example/x", true).is_ok());
        assert!(new("http://127.0.0.1:9/x", true).is_ok());
        assert!(new("http://alertmanager.monitoring.svc:9093", false).is_ok());
        for url in [
            "http://siem.example/x",
            "http://169.254.169.254/",
            "https://[fe80::1]/",
            "ftp://x/",
            "x",
            "https://u:p@x/",
        ] {
            assert!(new(url, true).is_err(), "{url}");
        }
    }

    #[test]
    fn receivers_say_when_to_come_again() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        let soon = (chrono::Utc::now() + chrono::TimeDelta::seconds(60)).to_rfc2822();
        assert!(retry_after(&soon).is_some_and(|wait| wait > Duration::from_secs(50)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }
}
