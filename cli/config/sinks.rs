//! `[outbox]` and `[[sink]]`: where alerts go.
//!
//! Invariant: a sink that was read without a mistake can be made. A wrong address, secret or
//! certificate is reported as a mistake of the file. Reading connects to nothing.

use std::path::PathBuf;
use std::time::Duration;

use strongroom_live::Secret;
use strongroom_live::kafka::{KafkaSink, KafkaSinkOptions};
use strongroom_schemas::{Severity, error_chain};
use strongroom_sinks::http::HttpOptions;
use strongroom_sinks::{
    Alertmanager, AlertmanagerOptions, Elastic, ElasticOptions, FileSink, OUTBOX_BYTES_MAX_DEFAULT,
    OutboxOptions, PagerDuty, PagerDutyOptions, SYSLOG_BYTES_MAX_DEFAULT, Sink, SinkError, SinkOptions,
    Slack, SlackOptions, Splunk, SplunkOptions, StdoutSink, Syslog, SyslogFormat, SyslogOptions, TlsOptions,
    Transport, Webhook, WebhookOptions,
};

use super::reader::Section;
use super::{NAME_CHARS_MAX, kafka_security};
use crate::term;

/// Maximum number of sinks in one process.
const SINKS_MAX: usize = 64;
/// Name of the sink for `alerts.file`.
const ALERTS_FILE: &str = "alerts-file";
/// Name of the sink for `alerts.stdout`.
const ALERTS_STDOUT: &str = "alerts-stdout";

/// A sink, before it is made.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    pub lane: SinkOptions,
    pub kind: SinkKind,
}

#[derive(Clone, Debug)]
pub enum SinkKind {
    File(PathBuf),
    Stdout,
    Kafka(Box<KafkaSinkOptions>),
    Webhook(Box<WebhookOptions>),
    Syslog(Box<SyslogOptions>),
    Splunk(Box<SplunkOptions>),
    Elastic(Box<ElasticOptions>),
    Alertmanager(AlertmanagerOptions),
    Slack(SlackOptions),
    PagerDuty(Box<PagerDutyOptions>),
}

impl SinkConfig {
    /// Makes the sink; connects to nothing.
    pub fn make(&self) -> Result<Box<dyn Sink>, SinkError> {
        Ok(match &self.kind {
            SinkKind::File(path) => Box::new(FileSink::new(path.clone())),
            SinkKind::Stdout => Box::new(StdoutSink::new(term::data())),
            SinkKind::Kafka(options) => Box::new(KafkaSink::new(options.as_ref().clone())?),
            SinkKind::Webhook(options) => Box::new(Webhook::new(options)?),
            SinkKind::Syslog(options) => Box::new(Syslog::new(options.as_ref().clone())?),
            SinkKind::Splunk(options) => Box::new(Splunk::new(options.as_ref().clone())?),
            SinkKind::Elastic(options) => Box::new(Elastic::new(options)?),
            SinkKind::Alertmanager(options) => Box::new(Alertmanager::new(options)?),
            SinkKind::Slack(options) => Box::new(Slack::new(options)?),
            SinkKind::PagerDuty(options) => Box::new(PagerDuty::new(options)?),
        })
    }
}

/// Returns the sinks that `[alerts]` names, for an outbox.
pub fn of_alerts(alerts: &super::Alerts) -> Vec<SinkConfig> {
    let lane = |name: &str| SinkOptions {
        name: name.to_owned(),
        severity: alerts.severity,
        heartbeat: Duration::ZERO,
    };
    let file =
        alerts.file.clone().map(|path| SinkConfig { lane: lane(ALERTS_FILE), kind: SinkKind::File(path) });
    let stdout = alerts.stdout.then(|| SinkConfig { lane: lane(ALERTS_STDOUT), kind: SinkKind::Stdout });
    file.into_iter().chain(stdout).collect()
}

pub fn outbox(section: &Section<'_>, severity: Severity) -> Option<OutboxOptions> {
    let folder = section.path("folder");
    let bytes_max = section.bytes("bytes", OUTBOX_BYTES_MAX_DEFAULT, 1 << 20..=1 << 44);
    let group = section.duration("group", Duration::ZERO, Duration::ZERO..=Duration::from_secs(86_400));
    section.finish();
    folder.map(|folder| OutboxOptions { folder, bytes_max, group, severity })
}

pub fn sinks(sections: &[Section<'_>], severity: Severity, with_outbox: bool) -> Vec<SinkConfig> {
    let mut names = vec![ALERTS_FILE.to_owned(), ALERTS_STDOUT.to_owned()];
    let mut found = Vec::new();
    for (number, section) in sections.iter().enumerate() {
        if number == SINKS_MAX {
            section.mistake("", format!("there are more than {SINKS_MAX} sinks"));
        }
        if number == 0 && !with_outbox {
            section.mistake("", "needs [outbox] folder, where alerts wait for the sink");
        }
        found.extend(sink(section, &mut names, severity));
    }
    found
}

fn sink(section: &Section<'_>, names: &mut Vec<String>, severity: Severity) -> Option<SinkConfig> {
    let name = section.required("name", "each sink has its own name");
    // The name of a sink is also the name of a file.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !name.is_empty() && (name.chars().count() > NAME_CHARS_MAX || !name.chars().all(plain)) {
        section.mistake("name", format!("must be 1 to {NAME_CHARS_MAX} letters, digits, - and _"));
    }
    if names.contains(&name) {
        section.mistake("name", "another sink has this name");
    }
    names.push(name.clone());
    let lane = SinkOptions {
        name,
        severity: section.parsed("severity", str::parse::<Severity>).unwrap_or(severity),
        heartbeat: {
            let day = Duration::from_secs(86_400);
            section.duration("heartbeat", Duration::ZERO, Duration::ZERO..=day)
        },
    };
    let kind = kind(section);
    section.finish();
    let sink = SinkConfig { lane, kind: kind? };
    if section.is_sound()
        && let Err(error) = sink.make()
    {
        section.mistake("", error_chain(&error));
    }
    Some(sink)
}

fn kind(section: &Section<'_>) -> Option<SinkKind> {
    const KINDS: &str =
        "file, stdout, kafka, webhook, syslog, splunk, elastic, alertmanager, slack or pagerduty";
    let kind = section.required("type", &format!("one of {KINDS}"));
    let what = "an http:// or https:// URL";
    Some(match kind.as_str() {
        "file" => SinkKind::File(PathBuf::from(section.required("path", "the file that lines are added to"))),
        "stdout" => SinkKind::Stdout,
        "kafka" => {
            let brokers = section.strings("brokers");
            if brokers.is_empty() {
                section.mistake("brokers", "needs at least one");
            }
            SinkKind::Kafka(Box::new(KafkaSinkOptions {
                brokers,
                topic: section.required("topic", "the topic that alerts are sent to"),
                security: kafka_security(section),
                ca_file: section.path("ca_file"),
                cert_file: section.path("cert_file"),
                key_file: section.path("key_file"),
            }))
        }
        "webhook" => {
            let http = http(section, &section.required("url", what), false);
            let secret = secret(section, "secret_file", "secret_env");
            SinkKind::Webhook(Box::new(WebhookOptions { http: http?, secret: secret? }))
        }
        "syslog" => {
            let transports = [("tls", Transport::Tls), ("tcp", Transport::Tcp), ("udp", Transport::Udp)];
            let formats = [("json", SyslogFormat::Json), ("cef", SyslogFormat::Cef)];
            let bytes = section.bytes("bytes", SYSLOG_BYTES_MAX_DEFAULT as u64, 1024..=1 << 20);
            SinkKind::Syslog(Box::new(SyslogOptions {
                address: section
                    .required("address", "name and port of the receiver, such as \"siem.example:6514\""),
                transport: section.one_of("transport", Transport::Tls, &transports),
                format: section.one_of("format", SyslogFormat::Json, &formats),
                tls: tls(section),
                bytes_max: usize::try_from(bytes).unwrap_or(SYSLOG_BYTES_MAX_DEFAULT),
                hostname: hostname(section),
            }))
        }
        "splunk" => {
            let http = http(section, &section.required("url", what), true);
            let token = secret(section, "token_file", "token_env");
            let (index, acks) = (section.string("index"), section.bool("acks", true));
            let hostname = hostname(section);
            SinkKind::Splunk(Box::new(SplunkOptions { http: http?, token: token?, index, acks, hostname }))
        }
        "elastic" => {
            let api_key = section.secret("api_key_file", "api_key_env").map(Secret::new);
            let http = http(section, &section.required("url", what), api_key.is_some());
            let index =
                section.string("index").unwrap_or_else(|| "logs-strongroom.alerts-default".to_owned());
            SinkKind::Elastic(Box::new(ElasticOptions { http: http?, index, api_key }))
        }
        "alertmanager" => {
            let urls = section.strings("urls");
            if urls.is_empty() {
                section.mistake(
                    "urls",
                    "must list every member of the cluster, such as [\"http://alertmanager-0:9093\"]",
                );
            }
            let tls = tls(section);
            let member = |url: &String| match HttpOptions::new(url, tls.clone(), false) {
                Ok(http) => Some(http),
                Err(error) => {
                    section.mistake("urls", error.to_string());
                    None
                }
            };
            SinkKind::Alertmanager(AlertmanagerOptions { members: urls.iter().filter_map(member).collect() })
        }
        "slack" => SinkKind::Slack(SlackOptions { url: secret(section, "url_file", "url_env")? }),
        "pagerduty" => {
            let url = section.string("url").unwrap_or_else(|| "https://events.pagerduty.com".to_owned());
            let http = http(section, &url, true);
            let routing_key = secret(section, "routing_key_file", "routing_key_env");
            SinkKind::PagerDuty(Box::new(PagerDutyOptions { http: http?, routing_key: routing_key? }))
        }
        "" => return None,
        _ => {
            section.mistake("type", format!("must be one of {KINDS}"));
            return None;
        }
    })
}

fn secret(section: &Section<'_>, file: &'static str, env: &'static str) -> Option<Secret> {
    let secret = section.secret(file, env);
    if secret.is_none() {
        section.mistake("", format!("needs {file} or {env}"));
    }
    secret.map(Secret::new)
}

fn tls(section: &Section<'_>) -> TlsOptions {
    let identity = match (section.path("cert_file"), section.path("key_file")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            section.mistake("cert_file", "and key_file go together; one of them is missing");
            None
        }
    };
    TlsOptions { ca_file: section.path("ca_file"), identity }
}

fn http(section: &Section<'_>, url: &str, confidential: bool) -> Option<HttpOptions> {
    let tls = tls(section);
    if url.is_empty() {
        return None;
    }
    match HttpOptions::new(url, tls, confidential) {
        Ok(http) => Some(http),
        Err(error) => {
            section.mistake("url", error.to_string());
            None
        }
    }
}

/// Returns the host name that messages contain: the key `hostname`, or else the name of the
/// machine.
fn hostname(section: &Section<'_>) -> String {
    section.string("hostname").unwrap_or_else(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim().to_owned()
    })
}
