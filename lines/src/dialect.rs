//! Names for the forms in which records of audit events arrive.
//!
//! Invariant: the names are shown in summaries and metrics, so none is changed or reused. A dialect
//! names the outermost layer around an event, if the content of the layer shows who wrote it. No
//! decision depends on a dialect.

use std::fmt;

macro_rules! dialects {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The form in which an event arrived.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Dialect {
            $($(#[$doc])* $name,)*
        }

        impl Dialect {
            pub const ALL: &[Dialect] = &[$(Dialect::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Dialect::$name => $text,)*
                }
            }
        }
    };
}

dialects! {
    /// An event on a line of its own.
    Plain = "plain",
    /// An `EventList`, as the API server's webhook sends it.
    EventList = "event_list",
    /// A subscription of CloudWatch Logs.
    Eks = "eks",
    /// Diagnostic settings of Azure.
    Aks = "aks",
    /// An entry of Google Cloud Logging.
    Gke = "gke",
    /// A JSON array, or a document over several lines.
    Document = "json_document",
    /// A line that is a JSON string with the escaped event in it.
    StringLiteral = "string_literal",
    /// A time and the event: an export of CloudWatch Logs, or `kubectl logs --timestamps`.
    TimeAndEvent = "time_and_event",
    CloudWatchCli = "cloudwatch_cli",
    CloudWatchTail = "cloudwatch_tail",
    Syslog = "syslog",
    Journald = "journald",
    Cri = "cri",
    Docker = "docker",
    Filebeat = "filebeat",
    ElasticAgent = "elastic_agent",
    FluentBit = "fluent_bit",
    Vector = "vector",
    Logstash = "logstash",
    Loki = "loki",
    Splunk = "splunk",
    OpenTelemetry = "opentelemetry",
    OpenShiftViaq = "openshift_viaq",
    AzureLogAnalytics = "azure_log_analytics",
    /// A line of Fluentd's `out_file`.
    Fluentd = "fluentd",
    /// Graylog's format.
    Gelf = "gelf",
    OtherWrapper = "other_wrapper",
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Number of events of each dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialectCounts([u64; Dialect::ALL.len()]);

impl DialectCounts {
    pub fn add(&mut self, dialect: Dialect) {
        self.0[dialect as usize] += 1;
    }

    pub fn add_all(&mut self, others: &DialectCounts) {
        for (count, other) in self.0.iter_mut().zip(others.0) {
            *count += other;
        }
    }

    pub fn of(&self, dialect: Dialect) -> u64 {
        self.0[dialect as usize]
    }

    /// Returns each dialect that has events, with the number of its events.
    pub fn iter(&self) -> impl Iterator<Item = (Dialect, u64)> + '_ {
        Dialect::ALL.iter().map(|dialect| (*dialect, self.of(*dialect))).filter(|(_, count)| *count > 0)
    }

    /// Returns the number of all events.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects_are_counted_apart() {
        let mut counts = DialectCounts::default();
        for (times, dialect) in Dialect::ALL.iter().enumerate() {
            assert_eq!(Dialect::ALL[*dialect as usize], *dialect);
            (0..times).for_each(|_| counts.add(*dialect));
        }
        let mut twice = counts.clone();
        twice.add_all(&counts);
        assert_eq!(twice.total(), 2 * counts.total());
        assert!(twice.iter().all(|(dialect, count)| count == 2 * dialect as u64 && count > 0));
        let names: std::collections::HashSet<_> = Dialect::ALL.iter().map(|it| it.as_str()).collect();
        assert_eq!(names.len(), Dialect::ALL.len());
    }
}
