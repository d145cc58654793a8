//! Sigma rules over Kubernetes audit events. Rules are compiled once and matched on record batches;
//! correlations count in event time; and each finding raises one alert.
//!
//! ```
//! use std::sync::Arc;
//!
//! use arrow_array::RecordBatch;
//! use strongroom_alerts::{Detector, DetectorConfig, Matcher, RuleSet};
//! use strongroom_schemas::Table;
//!
//! let rules = r#"
//! title: Secret read
//! logsource: { product: kubernetes, service: audit }
//! detection:
//!     selection: { verb: get, objectRef.resource: secrets }
//!     condition: selection
//! level: high
//! "#;
//! let rules = Arc::new(RuleSet::from_yaml("secret-read.yml", rules)?);
//! let mut matcher = Matcher::new(Arc::clone(&rules));
//! let mut detector = Detector::new(rules, DetectorConfig::default());
//!
//! let batch = RecordBatch::new_empty(Table::Events.batch_schema());
//! let alerts = detector.observe(matcher.match_batch(&batch)?);
//! assert!(alerts.is_empty(), "no event, no alert");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```text
//! YAML ─parse─▶ documents ─link─▶ rules ─compile─▶ program      once, RuleSet
//! RecordBatch ─gates─▶ candidates ─conditions─▶ BatchMatches    any thread, Matcher
//! BatchMatches ─once per request─▶ windows ─▶ Alert             in source order, Detector
//! ```
//!
//! Invariants: there is no IO except the reading of rule files, no clock (all times come from
//! events), and no thread. A loaded rule set has no errors left, and an alert never carries a body.
//! A crash loses only the state of the detector, which is rebuilt from the archive's events.
//!
//! Where Sigma leaves room, this crate decides:
//! - Fields have the audit event's JSON names. There are also virtual fields: `actor`, `source_ip`,
//!   `outcome`, `dry_run`, `creates`, `authz.decision`, `authz.reason`, `binds_itself`,
//!   `exec.command`, `exec.container`, `client`, `cluster`, `faults`, `request_examined`,
//!   `request_partial`, `request_removes`, and `pod.…` for the pod spec of a pod or of any
//!   workload's template. `pod.containers` joins all kinds of containers, and `pod.metadata` is the
//!   metadata of the pod or of the template.
//! - A path through an array matches if any element does; each line of a rule may match a different
//!   element. To make several lines apply to the same element, write a scope:
//!   `requestObject.rules[any]:` with a map below it. Other scopes are `[all]` (which needs at
//!   least one element), `[all_or_empty]` and `[none]`.
//! - A rule that does not name `stage` matches every stage but `RequestReceived`, and alerts once
//!   per request ([`Detector`]). A rule that asks for `outcome: success` matches no dry run, unless
//!   it names `dry_run`. If its severity is high or critical, it also matches an unknown outcome,
//!   and the alert then says that it is unconfirmed.
//! - Sigma does not have these keys: `message` (with `{field}` for the fields that an alert
//!   carries), `next_steps`, `runbook` and `common`, and in a correlation `lateness`, `learning`,
//!   `learning_level` and `across_clusters`.

mod batch;
mod builtin;
mod closing;
mod columns;
mod compile;
mod condition;
mod coverage;
mod details;
mod detection;
mod detector;
#[cfg(test)]
mod engine_test;
mod error;
mod evaluate;
#[cfg(test)]
mod evasion_test;
mod expr;
mod fields;
mod gate;
mod hidden;
mod history;
#[cfg(test)]
mod kube_system_test;
#[cfg(test)]
mod labelled_test;
#[cfg(test)]
mod level_test;
mod link;
mod matcher;
mod matches;
mod memo;
mod message;
mod needs;
#[cfg(test)]
mod oracle_test;
mod outcome;
pub mod own;
#[cfg(test)]
mod parity_test;
mod parse;
mod pattern;
mod rarity;
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
pub use coverage::LogKind;
pub use detector::{
    ALERT_NAMESPACE, ALLOWED_LATENESS, Detector, DetectorConfig, EVENTS_MAX, GROUP_EVENTS_MAX, GROUPS_MAX,
    HOURS_MAX, REQUESTS_MAX, VALUES_MAX,
};
pub use error::{LATENESS_MAX, RULE_FILE_BYTES_MAX, RULES_MAX, RuleError, THRESHOLD_MAX, TIMESPAN_MAX};
pub use hidden::Hidden;
pub use matcher::{Matcher, ShownRows};
pub use matches::{BatchMatches, FIELD_BYTES_MAX};
pub use message::{MESSAGE_CHARS_MAX, NEXT_STEPS_CHARS_MAX, VALUE_CHARS_MAX};
pub use needs::Needs;
pub use rarity::Common;
pub use rule::{RuleInfo, RuleKind};
pub use ruleset::{OwnRules, RuleSet};
