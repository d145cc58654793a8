//! An HTTP client with bounds: for sinks, and for other callers that post to a configured address.
//!
//! Invariants:
//! - Redirects are not followed, so a request goes to the configured address only. An address that
//!   is written as a link-local IP address is refused. A name is not resolved for this check.
//! - A request takes at most [`HTTP_TIMEOUT`], and at most `ANSWER_BYTES_MAX` of an answer are
//!   read.
//! - Text of an answer that is shown is shortened, and contains neither control characters nor
//!   secrets of the sink.
//!
//! No state survives a crash. The receiver may have received the last request before the crash.

use std::sync::Mutex;
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
use strongroom_journal::lock;
use strongroom_schemas::{Secret, error_chain};
use url::{Host, Url};

use super::{SinkError, TlsOptions, plain};

/// Time for one request, including the connection.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of an answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Maximum number of characters of an answer that are shown.
const SHOWN_CHARS_MAX: usize = 300;

/// The address of a receiver, and its TLS.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    pub url: Url,
    pub tls: TlsOptions,
}

impl HttpOptions {
    /// Checks an address. If secrets are sent to it (`confidential`), it must be https, unless it
    /// is on this machine.
    ///
    /// # Errors
    /// [`SinkError::Url`] if it is not an http or https URL, or is an address to which nothing may
    /// be sent.
    pub fn new(url: &str, tls: TlsOptions, confidential: bool) -> Result<HttpOptions, SinkError> {
        let url = Url::parse(url).map_err(|_| SinkError::Url { what: "is not a valid URL" })?;
        let is_local = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) if address.is_link_local() => {
                return Err(SinkError::Url { what: "is link-local, where clouds keep credentials" });
            }
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address))
                if address.is_unicast_link_local()
                    || address.to_ipv4_mapped().is_some_and(|mapped| mapped.is_link_local()) =>
            {
                return Err(SinkError::Url { what: "is link-local, where clouds keep credentials" });
            }
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(SinkError::Url { what: "has no host" }),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SinkError::Url { what: "contains a user name or password, which belong in a file" });
        }
        match url.scheme() {
            "https" => {}
            "http" if !confidential || is_local => {}
            "http" => return Err(SinkError::Url { what: "must be https, because a secret is sent to it" }),
            _ => return Err(SinkError::Url { what: "is neither http nor https" }),
        }
        Ok(HttpOptions { url, tls })
    }

    /// Returns the address with `path` appended.
    pub(super) fn join(&self, path: &str) -> String {
        format!("{}/{path}", self.url.as_str().trim_end_matches('/'))
    }
}

/// A receiver's answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

/// A client with its own async runtime.
pub(super) struct Http {
    runtime: tokio::runtime::Runtime,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    secrets: Vec<Secret>,
    /// The last answer, or the reason why there was none, as text for people.
    pub last_answer: String,
}

impl Http {
    pub(super) fn new(options: &HttpOptions, secrets: Vec<Secret>) -> Result<Http, SinkError> {
        // Without TLS no certificate authorities are needed, and a small container image may have
        // none.
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
        // The runtime's own thread notices connections that the receiver closes between two
        // requests.
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
        Ok(Http { runtime, client, secrets, last_answer: String::new() })
    }

    /// Sends requests, `at_once` of them at the same time, and returns the answers in order.
    pub(super) fn send_all(
        &mut self,
        requests: Vec<Request<Full<Bytes>>>,
        at_once: usize,
    ) -> Vec<Result<Answer, String>> {
        let client = &self.client;
        let one = |request: Request<Full<Bytes>>| async move {
            let exchange = async {
                let response: Response<_> =
                    client.request(request).await.map_err(|error| error_chain(&error))?;
                let (head, body) = response.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|error| error_chain(error.as_ref()))?.to_bytes().to_vec();
                let after = head.headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
                Ok(Answer { status: head.status, retry_after: after, body })
            };
            let timed = tokio::time::timeout(HTTP_TIMEOUT, exchange).await;
            timed.unwrap_or_else(|_| Err(format!("no answer within {} s", HTTP_TIMEOUT.as_secs())))
        };
        let sent = futures::stream::iter(requests.into_iter().map(one)).buffered(at_once.max(1));
        let answers: Vec<_> = self.runtime.block_on(sent.collect());
        if let Some(last) = answers.last() {
            self.last_answer = match last {
                Ok(answer) => self.shown(answer),
                Err(reason) => reason.clone(),
            };
        }
        answers
    }

    pub(super) fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        self.send_all(vec![request], 1).pop().unwrap_or_else(|| Err("nothing was sent".to_owned()))
    }

    /// Returns an answer as text for a person.
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
}

/// A POST client with the sinks' TLS and timeout rules, for callers that are not sinks.
pub struct PostClient {
    base: String,
    http: Mutex<Http>,
}

impl PostClient {
    /// # Errors
    /// [`SinkError`] if the authorities or certificates cannot be used.
    pub fn new(options: &HttpOptions) -> Result<PostClient, SinkError> {
        let base = options.url.as_str().trim_end_matches('/').to_owned();
        Ok(PostClient { base, http: Mutex::new(Http::new(options, Vec::new())?) })
    }

    /// Posts `body` to a path below the address, or to the address itself if the path is empty, and
    /// returns the status and the body of the answer. Waits at most [`HTTP_TIMEOUT`]. Sends one
    /// request at a time and blocks, so it must not be called inside an async runtime.
    ///
    /// # Errors
    /// The reason as text, if there was no complete answer.
    pub fn send(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), String> {
        let url = if path.is_empty() { self.base.clone() } else { format!("{}/{path}", self.base) };
        let request = post(&url, &[("content-type", content_type)], body);
        let answer = lock(&self.http).send(request)?;
        Ok((answer.status.as_u16(), answer.body))
    }
}

/// Returns a POST request.
pub(super) fn post(url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(Method::POST).uri(url);
    request = request.header("user-agent", concat!("strongroom/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    // Addresses and secrets are checked when a sink is made, so the request is valid.
    request.body(Full::new(Bytes::from(body))).unwrap_or_default()
}

/// Checks a secret that is sent in a header.
pub(super) fn check_header(secret: &Secret) -> Result<(), SinkError> {
    let plain = secret.expose().bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if plain {
        Ok(())
    } else {
        Err(SinkError::Secret { what: "has characters that are not allowed in a header" })
    }
}

/// Returns the wait in a `Retry-After` header, which has seconds or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    (date.to_utc() - chrono::Utc::now()).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_expose_secrets_are_refused() {
        let new = |url, confidential| HttpOptions::new(url, TlsOptions::default(), confidential);
        assert!(new("https://siem.example/x", true).is_ok());
        assert!(new("http://127.0.0.1:9/x", true).is_ok());
        assert!(new("http://alertmanager.monitoring.svc:9093", false).is_ok());
        assert!(new("https://[::ffff:10.0.0.7]/", true).is_ok());
        assert!(new("https://[2001:db8::1]/", true).is_ok());
        for url in [
            "http://siem.example/x",
            "http://169.254.169.254/",
            "https://[fe80::1]/",
            "https://[febf::1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://[::ffff:a9fe:a9fe]/",
            "ftp://x/",
            "x",
            "https://u:p@x/",
        ] {
            assert!(new(url, true).is_err(), "{url}");
        }
    }

    #[test]
    fn receivers_may_ask_for_a_wait() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        let soon = (chrono::Utc::now() + chrono::TimeDelta::seconds(60)).to_rfc2822();
        assert!(retry_after(&soon).is_some_and(|wait| wait > Duration::from_secs(50)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }
}
