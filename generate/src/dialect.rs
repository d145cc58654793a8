//! Renders one audit event as each cloud, shipper and tool puts it on the wire.
//!
//! ```
//! use strongroom_generate::dialect::{self, Dialect};
//!
//! let event = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"7f1a","verb":"get"}"#;
//! let mut log = Vec::new();
//! dialect::render(event, Dialect::Docker, &mut log)?;
//! assert!(log.starts_with(br#"{"log":"{\"kind\":\"Event\","#));
//! # Ok::<(), strongroom_generate::dialect::EventError>(())
//! ```
//!
//! Invariant: a rendering is a function of the event's text and the dialect. Times are the event's
//! own, and ids are derived from its bytes. Google maps an event to an entry of another shape (see
//! `google`). In every other dialect, the rendering contains the whole event: its bytes, a string
//! literal of its text, the numbers of its bytes, or its members in another order.

mod google;

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::START_DEFAULT_SECONDS;

/// containerd and Docker cut the output of a container into pieces of this length.
const CONTAINER_PIECE_BYTES: usize = 16 * 1024;

/// A form in which audit events are put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// A line of kube-apiserver's log backend.
    Plain,
    /// The body of kube-apiserver's webhook backend.
    EventList,
    /// A CloudWatch Logs subscription of EKS.
    Eks,
    /// Output of `aws logs filter-log-events`.
    CloudWatchCli,
    /// A line of a CloudWatch Logs export to S3.
    CloudWatchExport,
    /// A line of `aws logs tail`.
    CloudWatchTail,
    /// A message of Azure Event Hub.
    Aks,
    /// A line of Azure's export to a storage account.
    AksBlob,
    /// An entry of Google Cloud Logging, as a sink delivers it.
    Gke,
    /// Output of `gcloud logging read --format=json`.
    GcloudRead,
    /// OpenShift's ClusterLogForwarder with its data model ViaQ.
    OpenShiftViaq,
    /// Lines of a container's log under containerd or CRI-O.
    Cri,
    /// Lines of Docker's json-file log.
    Docker,
    /// RFC 5424.
    Syslog,
    /// RFC 3164.
    SyslogBsd,
    /// `journalctl --output=short`.
    Journald,
    /// `journalctl --output=json --all`. The text is a string or, if journalctl would not print one
    /// of its characters, a list of bytes.
    JournaldJson,
    /// Like [`Dialect::JournaldJson`], but always with a list of bytes.
    JournaldBytes,
    /// Filebeat, with the parsed event in `json`.
    Filebeat,
    /// Filebeat, with the text in `message`.
    FilebeatMessage,
    /// Elastic's integration for Kubernetes audit logs.
    ElasticAgent,
    /// Fluent Bit, with the text in `log`.
    FluentBit,
    /// Fluent Bit or Fluentd, with the members of the parsed event beside members of their own.
    FluentBitMerged,
    Vector,
    /// Logstash with its ECS names.
    Logstash,
    /// A stream of Loki, as `logcli` and Promtail's sinks write it.
    Loki,
    /// The body of Loki's push interface.
    LokiPush,
    /// The body of Splunk's HTTP Event Collector.
    SplunkHec,
    /// OpenTelemetry's OTLP as JSON.
    Otlp,
    /// OTLP, from a receiver that parsed the line into an object.
    OtlpMembers,
    /// Graylog's GELF over TCP, a NUL byte after each message.
    Gelf,
    /// A line of Fluentd's `out_file`.
    FluentdFile,
    /// RFC 3164 with the cookie `@cee:`.
    SyslogCee,
    /// A line of `aws logs tail --format short`.
    CloudWatchShort,
    /// A JSON array of events.
    Array,
    /// The event as JSON over many lines.
    Pretty,
}

impl Dialect {
    pub const ALL: [Dialect; 36] = [
        Dialect::Plain,
        Dialect::EventList,
        Dialect::Eks,
        Dialect::CloudWatchCli,
        Dialect::CloudWatchExport,
        Dialect::CloudWatchTail,
        Dialect::Aks,
        Dialect::AksBlob,
        Dialect::Gke,
        Dialect::GcloudRead,
        Dialect::OpenShiftViaq,
        Dialect::Cri,
        Dialect::Docker,
        Dialect::Syslog,
        Dialect::SyslogBsd,
        Dialect::Journald,
        Dialect::JournaldJson,
        Dialect::JournaldBytes,
        Dialect::Filebeat,
        Dialect::FilebeatMessage,
        Dialect::ElasticAgent,
        Dialect::FluentBit,
        Dialect::FluentBitMerged,
        Dialect::Vector,
        Dialect::Logstash,
        Dialect::Loki,
        Dialect::LokiPush,
        Dialect::SplunkHec,
        Dialect::Otlp,
        Dialect::OtlpMembers,
        Dialect::Gelf,
        Dialect::FluentdFile,
        Dialect::SyslogCee,
        Dialect::CloudWatchShort,
        Dialect::Array,
        Dialect::Pretty,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Plain => "plain",
            Dialect::EventList => "event-list",
            Dialect::Eks => "eks",
            Dialect::CloudWatchCli => "cloudwatch-cli",
            Dialect::CloudWatchExport => "cloudwatch-export",
            Dialect::CloudWatchTail => "cloudwatch-tail",
            Dialect::Aks => "aks",
            Dialect::AksBlob => "aks-blob",
            Dialect::Gke => "gke",
            Dialect::GcloudRead => "gcloud-read",
            Dialect::OpenShiftViaq => "openshift-viaq",
            Dialect::Cri => "cri",
            Dialect::Docker => "docker",
            Dialect::Syslog => "syslog",
            Dialect::SyslogBsd => "syslog-bsd",
            Dialect::Journald => "journald",
            Dialect::JournaldJson => "journald-json",
            Dialect::JournaldBytes => "journald-bytes",
            Dialect::Filebeat => "filebeat",
            Dialect::FilebeatMessage => "filebeat-message",
            Dialect::ElasticAgent => "elastic-agent",
            Dialect::FluentBit => "fluent-bit",
            Dialect::FluentBitMerged => "fluent-bit-merged",
            Dialect::Vector => "vector",
            Dialect::Logstash => "logstash",
            Dialect::Loki => "loki",
            Dialect::LokiPush => "loki-push",
            Dialect::SplunkHec => "splunk-hec",
            Dialect::Otlp => "otlp",
            Dialect::OtlpMembers => "otlp-members",
            Dialect::Gelf => "gelf",
            Dialect::FluentdFile => "fluentd-file",
            Dialect::SyslogCee => "syslog-cee",
            Dialect::CloudWatchShort => "cloudwatch-short",
            Dialect::Array => "array",
            Dialect::Pretty => "pretty",
        }
    }

    /// Returns true if the event's members are mapped to other members, which loses some of them.
    pub const fn is_mapped(self) -> bool {
        matches!(self, Dialect::Gke | Dialect::GcloudRead)
    }
}

/// Why a text is not one event.
#[derive(Debug, Error)]
pub enum EventError {
    #[error("the event is not a JSON object")]
    NotAnObject(#[source] serde_json::Error),
    #[error("the event is not on one line")]
    NotOneLine,
}

/// Appends `event`, which is one line of JSON, in the form of `dialect`. The last byte is a newline
/// or, for GELF, a NUL byte.
///
/// Google has no entry for the stage RequestReceived. Nothing is appended for such an event.
///
/// # Errors
/// [`EventError`] if `event` is not one JSON object on one line. Then nothing is appended.
pub fn render(event: &str, dialect: Dialect, out: &mut Vec<u8>) -> Result<(), EventError> {
    let event = Event::new(event)?;
    let Some(text) = event.text_in(dialect) else { return Ok(()) };
    out.extend_from_slice(text.as_bytes());
    // A message of GELF already ends with its NUL byte.
    if !text.ends_with(['\n', '\0']) {
        out.push(b'\n');
    }
    Ok(())
}

struct Event<'e> {
    text: &'e str,
    members: Members<'e>,
    time: DateTime<Utc>,
}

impl<'e> Event<'e> {
    fn new(text: &'e str) -> Result<Event<'e>, EventError> {
        let text = text.trim();
        if text.contains(['\n', '\r']) {
            return Err(EventError::NotOneLine);
        }
        let members: Members<'e> = serde_json::from_str(text).map_err(EventError::NotAnObject)?;
        let time = ["stageTimestamp", "requestReceivedTimestamp"]
            .iter()
            .filter_map(|name| members.text(name))
            .find_map(|time| DateTime::parse_from_rfc3339(&time).ok())
            .map(|time| time.to_utc())
            .filter(|time| (1970..2200).contains(&chrono::Datelike::year(time)))
            .or_else(|| DateTime::from_timestamp(START_DEFAULT_SECONDS, 0))
            .unwrap_or_default();
        Ok(Event { text, members, time })
    }

    fn text_in(&self, dialect: Dialect) -> Option<String> {
        let (event, quoted) = (self.text, || quoted(self.text));
        let (millis, nanos) = (self.time.timestamp_millis(), self.nanos());
        Some(match dialect {
            Dialect::Plain => event.to_owned(),
            Dialect::EventList => format!(
                r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#,
                self.without(&["kind", "apiVersion"], "")
            ),
            Dialect::Eks => format!(
                r#"{{"messageType":"DATA_MESSAGE","owner":"111122223333","logGroup":"/aws/eks/prod/cluster","logStream":"{}","subscriptionFilters":["audit"],"logEvents":[{{"id":"{}","timestamp":{millis},"message":{}}}]}}"#,
                self.log_stream(),
                self.event_id(),
                quoted()
            ),
            Dialect::CloudWatchCli => format!(
                r#"{{"events":[{{"logStreamName":"{}","timestamp":{millis},"message":{},"ingestionTime":{},"eventId":"{}"}}],"searchedLogStreams":[]}}"#,
                self.log_stream(),
                quoted(),
                millis + 1_000,
                self.event_id()
            ),
            Dialect::CloudWatchExport => format!("{} {event}", self.rfc3339(SecondsFormat::Millis)),
            Dialect::CloudWatchTail => {
                format!("{} {} {event}", self.time.format("%Y-%m-%dT%H:%M:%S%.6f+00:00"), self.log_stream())
            }
            Dialect::Aks => format!(r#"{{"records":[{}]}}"#, self.azure_record()),
            Dialect::AksBlob => self.azure_record(),
            Dialect::Gke => sorted(google::entry(self)?),
            Dialect::GcloudRead => {
                let entry = sorted(google::entry(self)?);
                pretty(&format!("[{entry}]"))
            }
            Dialect::OpenShiftViaq => self.viaq(),
            Dialect::Cri => self.cri(),
            Dialect::Docker => self.docker(),
            Dialect::Syslog => format!(
                "<110>1 {} node1.example.org kube-apiserver - - - {event}",
                self.rfc3339(SecondsFormat::Millis)
            ),
            Dialect::SyslogBsd => format!("<133>{} node1.example.org k8s-audit: {event}", self.bsd_time()),
            Dialect::Journald => format!("{} node1 kube-apiserver[811]: {event}", self.bsd_time()),
            Dialect::JournaldJson if is_printed(event) => self.journal_entry(&quoted()),
            Dialect::JournaldJson | Dialect::JournaldBytes => self.journal_entry(&bytes_of(event)),
            Dialect::Filebeat => format!(
                r#"{{"@timestamp":"{}","log":{{"offset":0,"file":{{"path":"/var/log/kube-apiserver-audit.log"}}}},"json":{event},"agent":{{"type":"filebeat"}}}}"#,
                self.rfc3339(SecondsFormat::Millis)
            ),
            Dialect::FilebeatMessage => format!(
                r#"{{"@timestamp":"{}","message":{},"log":{{"offset":0}},"agent":{{"type":"filebeat"}}}}"#,
                self.rfc3339(SecondsFormat::Millis),
                quoted()
            ),
            Dialect::ElasticAgent => format!(
                r#"{{"@timestamp":"{}","data_stream":{{"dataset":"kubernetes.audit_logs"}},"kubernetes":{{"audit":{event}}}}}"#,
                self.rfc3339(SecondsFormat::Millis)
            ),
            Dialect::FluentBit => format!(
                r#"{{"date":{}.{:06},"log":{}}}"#,
                self.time.timestamp(),
                self.time.timestamp_subsec_micros(),
                quoted()
            ),
            Dialect::FluentBitMerged => self.without(
                &[],
                &format!(r#""@timestamp":"{}","tag":"k8s.audit""#, self.rfc3339(SecondsFormat::Nanos)),
            ),
            Dialect::Vector => format!(
                r#"{{"file":"/var/log/audit.log","host":"node1","message":{},"source_type":"file","timestamp":"{}"}}"#,
                quoted(),
                self.rfc3339(SecondsFormat::Nanos)
            ),
            Dialect::Logstash => format!(
                r#"{{"@timestamp":"{}","@version":"1","event":{{"original":{}}},"host":{{"name":"node1"}},"log":{{"file":{{"path":"/var/log/audit.log"}}}},"message":{}}}"#,
                self.rfc3339(SecondsFormat::Millis),
                quoted(),
                quoted()
            ),
            Dialect::Loki => self.loki(nanos),
            Dialect::LokiPush => format!(r#"{{"streams":[{}]}}"#, self.loki(nanos)),
            Dialect::SplunkHec => format!(
                r#"{{"time":{}.{:03},"host":"node1","source":"/var/log/audit.log","sourcetype":"kube:apiserver-audit","event":{event}}}"#,
                self.time.timestamp(),
                self.time.timestamp_subsec_millis()
            ),
            Dialect::Otlp => format!(
                r#"{{"resourceLogs":[{{"resource":{{"attributes":[]}},"scopeLogs":[{{"scope":{{}},"logRecords":[{{"timeUnixNano":"{nanos}","observedTimeUnixNano":"{nanos}","body":{{"stringValue":{}}},"attributes":[{{"key":"log.file.name","value":{{"stringValue":"audit.log"}}}}],"traceId":"","spanId":""}}]}}]}}]}}"#,
                quoted()
            ),
            Dialect::OtlpMembers => format!(
                r#"{{"resourceLogs":[{{"resource":{{"attributes":[]}},"scopeLogs":[{{"scope":{{}},"logRecords":[{{"timeUnixNano":"{nanos}","body":{{"kvlistValue":{{"values":[{{"key":"_SYSTEMD_UNIT","value":{{"stringValue":"kube-apiserver.service"}}}},{{"key":"MESSAGE","value":{{"stringValue":{}}}}}]}}}},"attributes":[]}}]}}]}}]}}"#,
                quoted()
            ),
            Dialect::Gelf => format!(
                "{{\"version\":\"1.1\",\"host\":\"node1\",\"short_message\":{},\"timestamp\":{}.{:03},\"level\":6,\"_facility\":\"k8s-audit\"}}\0",
                quoted(),
                self.time.timestamp(),
                self.time.timestamp_subsec_millis()
            ),
            Dialect::FluentdFile => {
                format!("{}\tk8s.audit\t{event}", self.time.format("%Y-%m-%dT%H:%M:%S+00:00"))
            }
            Dialect::SyslogCee => {
                format!("<133>{} node1.example.org k8s-audit: @cee: {event}", self.bsd_time())
            }
            Dialect::CloudWatchShort => format!("{} {event}", self.time.format("%Y-%m-%dT%H:%M:%S")),
            Dialect::Array => format!("[{event}]"),
            Dialect::Pretty => pretty(event),
        })
    }

    /// Returns the event with its members in order, without those in `left_out`, and with `added`.
    fn without(&self, left_out: &[&str], added: &str) -> String {
        let mut parts: Vec<String> = self
            .members
            .0
            .iter()
            .filter(|(name, _)| !left_out.contains(&name.as_str()))
            .map(|(name, value)| format!("{}:{}", quoted(name), value.get()))
            .collect();
        if !added.is_empty() {
            parts.push(added.to_owned());
        }
        format!("{{{}}}", parts.join(","))
    }

    fn azure_record(&self) -> String {
        format!(
            r#"{{"category":"kube-audit","operationName":"Microsoft.ContainerService/managedClusters/diagnosticLogs/Read","time":"{}","resourceId":"/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/AKS1","properties":{{"log":{},"stream":"stdout","pod":"kube-apiserver-0","containerID":"{}{}"}}}}"#,
            self.time.format("%Y-%m-%dT%H:%M:%S%.6f0Z"),
            quoted(self.text),
            hash_hex(b"container"),
            hash_hex(b"of the API server")
        )
    }

    fn viaq(&self) -> String {
        let level = self.members.value("level");
        let mut members: BTreeMap<String, String> = self.members.sorted().collect();
        for (name, value) in [
            ("level", "default".into()),
            ("k8s_audit_level", level),
            ("@timestamp", self.rfc3339(SecondsFormat::Nanos).into()),
            ("hostname", "node1.example.org".into()),
            ("log_source", "kubeAPI".into()),
            ("log_type", "audit".into()),
            ("openshift", serde_json::json!({"cluster_id": "c0ffee00-0000-4000-8000-000000000001"})),
            ("tag", ".k8s-audit.log".into()),
        ] {
            members.insert(name.to_owned(), value.to_string());
        }
        let members = members.iter().map(|(name, value)| format!("{}:{value}", quoted(name)));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }

    fn cri(&self) -> String {
        let time = self.rfc3339(SecondsFormat::Nanos);
        let pieces = pieces(self.text);
        let last = pieces.len() - 1;
        let line = |(at, piece): (usize, &&str)| {
            format!("{time} stdout {} {piece}\n", if at == last { 'F' } else { 'P' })
        };
        pieces.iter().enumerate().map(line).collect()
    }

    fn docker(&self) -> String {
        let time = self.rfc3339(SecondsFormat::Nanos);
        let text = format!("{}\n", self.text);
        let line =
            |piece| format!("{{\"log\":{},\"stream\":\"stdout\",\"time\":\"{time}\"}}\n", quoted(piece));
        pieces(&text).into_iter().map(line).collect()
    }

    fn journal_entry(&self, message: &str) -> String {
        format!(
            r#"{{"__REALTIME_TIMESTAMP":"{}","_TRANSPORT":"stdout","PRIORITY":"6","SYSLOG_IDENTIFIER":"kube-apiserver","_SYSTEMD_UNIT":"kube-apiserver.service","_HOSTNAME":"node1","MESSAGE":{message}}}"#,
            self.time.timestamp_micros()
        )
    }

    fn loki(&self, nanos: i64) -> String {
        format!(r#"{{"stream":{{"source":"k8s-audit"}},"values":[["{nanos}",{}]]}}"#, quoted(self.text))
    }

    fn rfc3339(&self, format: SecondsFormat) -> String {
        self.time.to_rfc3339_opts(format, true)
    }

    fn bsd_time(&self) -> String {
        self.time.format("%b %e %H:%M:%S").to_string()
    }

    fn nanos(&self) -> i64 {
        self.time.timestamp_nanos_opt().unwrap_or_default()
    }

    /// Returns the name of a log stream, with 32 hexadecimal digits, as EKS names those of its API
    /// servers.
    fn log_stream(&self) -> String {
        format!("kube-apiserver-audit-{}{}", hash_hex(b"API server"), hash_hex(b"of EKS"))
    }

    fn event_id(&self) -> String {
        let number = hash(self.text.as_bytes());
        format!("{number:020}{number:020}{:016}", number % 10_000_000_000_000_000)
    }
}

/// The members of an object in their order, each with the text of its value.
struct Members<'e>(Vec<(String, &'e RawValue)>);

impl Members<'_> {
    /// Returns the value of the last member with this name, as a reader does that builds a map.
    fn value(&self, name: &str) -> Value {
        let value = self.0.iter().rev().find(|(found, _)| found == name);
        value.and_then(|(_, value)| serde_json::from_str(value.get()).ok()).unwrap_or_default()
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the members, with the members of every object inside a value sorted. A value that is
    /// nested too deeply to be parsed is returned unchanged.
    fn sorted(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.0.iter().map(|(name, value)| {
            let text = serde_json::from_str(value.get()).map_or_else(|_| value.get().to_owned(), sorted);
            (name.clone(), text)
        })
    }
}

impl<'de: 'e, 'e> Deserialize<'de> for Members<'e> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'e>, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members<'de>, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Returns true if journalctl prints a text as a string, and false if it writes a list of bytes.
fn is_printed(text: &str) -> bool {
    text.chars().all(|character| !character.is_control() || character == '\t')
}

/// Returns the bytes of a text as a list of numbers.
fn bytes_of(text: &str) -> String {
    let numbers: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

/// Returns JSON with the members of every object sorted, whichever features `serde_json` is built
/// with.
fn sorted(mut value: Value) -> String {
    value.sort_all_objects();
    value.to_string()
}

/// Spreads JSON over many lines. Only white space is added, so members keep their order.
fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    let mut characters = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(character) = characters.next() {
        if in_string {
            out.push(character);
            in_string = escaped || character != '"';
            escaped = character == '\\' && !escaped;
            continue;
        }
        match character {
            '"' => {
                in_string = true;
                out.push(character);
            }
            '{' | '[' => {
                out.push(character);
                if matches!(characters.peek(), Some('}' | ']')) {
                    out.extend(characters.next());
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            ' ' | '\t' => {}
            other => out.push(other),
        }
    }
    out
}

/// Cuts `text` into pieces of at most [`CONTAINER_PIECE_BYTES`]. No cut is inside a character.
fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while rest.len() > CONTAINER_PIECE_BYTES {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(CONTAINER_PIECE_BYTES));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// Hashes with FNV-1a, which is enough for ids that only have to be stable and distinct.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn hash_hex(bytes: &[u8]) -> String {
    format!("{:016x}", hash(bytes))
}

#[cfg(test)]
mod tests;
