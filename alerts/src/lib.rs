//! Sigma rules over Kubernetes audit events: compiled once, matched on record batches, counted on
//! event time, told once.
//!
//! ```text
//! YAML ─parse─▶ documents ─link─▶ rules ─compile─▶ program      once, RuleSet
//! RecordBatch ─gates─▶ candidates ─conditions─▶ BatchMatches    any thread, Matcher
//! BatchMatches ─once a request─▶ windows ─▶ Alert               in source order, Detector
//! ```
//!
//! What is absent: no IO but reading rule files, no clock (time is the events'), no thread. A rule set
//! that loaded has no errors left; an alert never carries a body.
//!
//! What Sigma does not say, and is so here:
//! - Fields have the audit event's JSON names. Virtual ones: `actor`, `source_ip`, `authz.decision`,
//!   `authz.reason`, `exec.command`, `exec.container`, `cluster`, and `pod.…` for the pod spec in pods
//!   and in every workload's template (`pod.containers` joins all kinds of containers, `pod.metadata`
//!   is the pod's or its template's).
//! - A path through an array means any of its elements, each line of a rule on its own. To bind lines
//!   to one element write a scope: `requestObject.rules[any]:` with a map below it; also `[all]` (there
//!   is one), `[all_or_empty]` and `[none]`.
//! - A rule that does not name `stage` looks at every stage but `RequestReceived`, and alerts once a
//!   request ([`Detector`]).
//! - `message` (with `{field}`, see the names an alert carries) and `next_steps` are keys of our own.

mod batch;
mod body;
mod builtin;
mod closing;
mod columns;
mod compile;
mod condition;
mod detection;
mod detector;
#[cfg(test)]
mod engine_test;
mod error;
mod evaluate;
mod expr;
mod fields;
mod gate;
mod history;
mod link;
mod matcher;
mod matches;
mod memo;
mod message;
mod needs;
#[cfg(test)]
mod oracle_test;
pub mod own;
mod parse;
mod pattern;
mod reorder;
mod rule;
#[cfg(test)]
mod rules_test;
mod ruleset;
#[cfg(test)]
mod shuffle_test;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod touched_test;
mod trace;
mod window;

pub use batch::{alerts_batch, alerts_of_batch};
pub use columns::MatchError;
pub use detector::{
    ALERT_NAMESPACE, ALLOWED_LATENESS, Detector, DetectorConfig, EVENTS_MAX, GROUP_EVENTS_MAX, GROUPS_MAX,
    HOURS_MAX, REQUESTS_MAX, VALUES_MAX,
};
pub use error::{LATENESS_MAX, RULE_FILE_BYTES_MAX, RULES_MAX, RuleError, THRESHOLD_MAX, TIMESPAN_MAX};
pub use matcher::Matcher;
pub use matches::{BatchMatches, FIELD_BYTES_MAX};
pub use message::{MESSAGE_CHARS_MAX, NEXT_STEPS_CHARS_MAX, VALUE_CHARS_MAX};
pub use needs::Needs;
pub use rule::{RuleInfo, RuleKind};
pub use ruleset::RuleSet;
