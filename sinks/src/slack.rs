//! Sends alerts to Slack's incoming webhooks, as short messages for people.
//!
//! Invariants: a value that a client of a cluster chose cannot mention anybody, link anywhere or
//! end a block: `&`, `<` and `>` are escaped, and texts are marked as plain where Slack allows it.
//! The URL is a secret. Only title, severity, actor, object and references are sent. After a crash
//! a message may be sent again.

use std::sync::Arc;

use serde_json::json;
use strongroom_schemas::{Alert, Secret};

use super::http::{Http, HttpOptions, post};
use super::judge::judge;
use super::{Outcome, Sink, SinkError, plain};

const TEXT_CHARS_MAX: usize = 500;
/// Slack takes about one message a second, and asks a sender of more messages to wait.
const BATCH_MAX: usize = 1;

#[derive(Clone, Debug)]
pub struct SlackOptions {
    /// The whole address, which is the credential.
    pub url: Secret,
}

pub struct Slack {
    http: Http,
    url: Secret,
}

impl Slack {
    /// # Errors
    /// When the URL is not valid, or TLS cannot be set up.
    pub fn new(options: &SlackOptions) -> Result<Slack, SinkError> {
        let checked = HttpOptions::new(options.url.expose(), super::TlsOptions::default(), true)?;
        let http = Http::new(&checked, vec![options.url.clone()])?;
        Ok(Slack { http, url: options.url.clone() })
    }
}

fn escaped(text: &str) -> String {
    plain(text, TEXT_CHARS_MAX).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Returns the verb and the object of an alert in one short line.
pub(super) fn object(alert: &Alert) -> String {
    let event = &alert.event;
    let parts = [&event.verb, &event.resource, &event.subresource, &event.namespace, &event.name];
    parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn message(alert: &Alert) -> serde_json::Value {
    let title = format!("[{}] {}", alert.severity, alert.title);
    let field = |name: &str, text: &str| {
        let text = plain(text, TEXT_CHARS_MAX);
        let text = if text.is_empty() { "-".to_owned() } else { text };
        json!({"type": "plain_text", "text": format!("{name}: {text}"), "emoji": false})
    };
    json!({
        "text": escaped(&title),
        "unfurl_links": false,
        "blocks": [
            {"type": "section", "text": {"type": "plain_text", "text": plain(&title, TEXT_CHARS_MAX), "emoji": false}},
            {"type": "section", "fields": [
                field("actor", &alert.event.who()),
                field("cluster", &alert.event.cluster),
                field("object", &object(alert)),
                field("events", &alert.event_count.to_string()),
            ]},
            {"type": "context", "elements": [
                field("alert", &alert.alert_id),
                field("audit id", &alert.event.audit_id),
            ]},
        ],
    })
}

impl Sink for Slack {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        let send = |alert: &Arc<Alert>| {
            let body = message(alert).to_string().into_bytes();
            let answer =
                self.http.send(post(self.url.expose(), &[("content-type", "application/json")], body));
            judge(&self.http, &answer)
        };
        alerts.iter().map(send).collect()
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn answer(&self) -> String {
        self.http.last_answer.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hostile;

    #[test]
    fn values_cannot_mention_anybody() {
        let mut alert = hostile();
        alert.title = "x <!channel> & <https://evil|here>".to_owned();
        let value = message(&alert);
        assert_eq!(value["text"], "[high] x &lt;!channel&gt; &amp; &lt;https://evil|here&gt;");
        let text = value["blocks"].to_string();
        assert!(!text.contains("mrkdwn") && !text.contains("\\u001b"), "{text}");
    }
}
