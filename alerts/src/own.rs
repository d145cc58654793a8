//! Makes the alerts that the pipeline raises about itself, because missing evidence is a finding,
//! too.
//!
//! Invariant: an alert's id is a function of the problem and its start, so raising it again makes
//! no new alert, even after a crash. No state.

use std::collections::BTreeMap;
use std::time::Duration;

use strongroom_schemas::{Alert, AlertEvent, Severity, Touched};
use uuid::Uuid;

use crate::detector::ALERT_NAMESPACE;

/// Rule id of [`source_silent`].
pub const SOURCE_SILENT: &str = "3d7a6a0e-6f0c-4b7e-9a52-5d2f4b0c9e11";
/// Rule id of [`conservation_failed`].
pub const CONSERVATION_FAILED: &str = "b9c0f6d4-1f63-4f0b-8f0e-2a4e7c6d8a37";

/// Rule id of [`history_contradicted`].
pub const HISTORY_CONTRADICTED: &str = "26674da9-0862-43f5-9417-9d1979bffb58";

/// Rule id of [`records_rejected`].
pub const RECORDS_REJECTED: &str = "0d0a2f5c-7c1e-4f0c-9b57-3a8f6f2f4f61";

/// Rule id of [`clock_doubted`].
pub const CLOCK_DOUBTED: &str = "7a4f1d52-3c08-4e6b-a1d9-6b2c9f0e8d43";

/// Rule id of [`test_alert`].
pub const TEST: &str = "5c1e2f7a-0b3d-4f6e-9a7c-8d4b1e6f2035";
/// Rule id of [`heartbeat`].
pub const HEARTBEAT: &str = "e27b4c90-3a5f-4d18-8c6b-71f0a9d2e364";

/// Returns true if a rule id is one of the pipeline's own.
pub fn is_own(rule_id: &str) -> bool {
    [
        SOURCE_SILENT,
        CONSERVATION_FAILED,
        HISTORY_CONTRADICTED,
        RECORDS_REJECTED,
        CLOCK_DOUBTED,
        TEST,
        HEARTBEAT,
    ]
    .contains(&rule_id)
}

/// Returns the alert about a source that has delivered no event since `since_us` (microseconds
/// since the epoch).
pub fn source_silent(source: &str, since_us: i64, now_us: i64, bound: Duration) -> Alert {
    let message = format!("source {source} has delivered no event for more than {} s", bound.as_secs());
    let next_steps = "Check whether the API server still writes audit events (apiserver_audit_event_total, \
                      apiserver_audit_error_total), whether its audit policy or webhook was changed, and what \
                      /readyz and the log report about this source. Stopping the log may be an attacker's first step.";
    let (title, severity) = ("Source of audit events fell silent", Severity::High);
    own(SOURCE_SILENT, "source-silent", title, severity, source, since_us, now_us, message, next_steps)
}

/// Returns the alert about two counts of records that must be equal but differ; `what` describes
/// them.
pub fn conservation_failed(what: &str, now_us: i64) -> Alert {
    let message = format!("records counted and records sealed differ: {what}");
    let next_steps = "Keep the source's logs, to compare them with the output of strongroom export. Then report \
                      the log lines of that time; this is a defect of the pipeline.";
    let (title, severity) = ("Audit pipeline lost count", Severity::Critical);
    own(
        CONSERVATION_FAILED,
        "conservation-failed",
        title,
        severity,
        what,
        now_us,
        now_us,
        message,
        next_steps,
    )
}

/// Returns the alert about a witness that has seen another history of the archive.
pub fn history_contradicted(witness: &str, now_us: i64) -> Alert {
    let message = format!(
        "the witness {witness} has seen a history of the archive that differs from the archive's own"
    );
    let next_steps = "Keep the archive and its backups as they are. strongroom verify --witness names the log and the \
                      first entry that differ; the log of strongroom has the witness's answer. Either somebody who has the archive \
                      and its key has rewritten the archive or set it back, or two archives share one identity and key.";
    let (title, severity) = ("Audit archive contradicts its witness", Severity::Critical);
    own(
        HISTORY_CONTRADICTED,
        "history-contradicted",
        title,
        severity,
        witness,
        now_us,
        now_us,
        message,
        next_steps,
    )
}

/// Returns the alert about records that were kept as rejects since `since_us`, with their number
/// for each reason. Such records may be events: somebody who pads a request can choose where the
/// event of that request is cut off.
pub fn records_rejected(reasons: &BTreeMap<String, u64>, since_us: i64, now_us: i64) -> Alert {
    let count: u64 = reasons.values().sum();
    let list: Vec<String> = reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let message =
        format!("{count} records were kept as rejects, and no rule has seen them: {}", list.join(", "));
    let next_steps = "Read the rejected records, and look for the complete events at the source of the log. `SELECT received_timestamp, \
                      source, source_offset, reason, detail FROM rejects ORDER BY received_timestamp DESC LIMIT 100`";
    let (title, severity) = ("Audit records that could not be read", Severity::Medium);
    let alert = own(
        RECORDS_REJECTED,
        "records-rejected",
        title,
        severity,
        "rejects",
        since_us,
        now_us,
        message,
        next_steps,
    );
    let event = AlertEvent { time_us: now_us, ..AlertEvent::default() };
    Alert { group_key: format!("reasons={}", list.join(" ")), event_count: count, event, ..alert }
}

/// Returns the alert about a clock that cannot be right. Nothing is sealed until the clock is set.
/// The alert has the time of that clock.
pub fn clock_doubted(what: &str, now_us: i64) -> Alert {
    let message = format!("nothing is sealed, because the clock of this machine cannot be right: {what}");
    let next_steps = "Set the clock of the machine that runs strongroom; sealing continues by itself. Until then events \
                      are kept where they come from and in the write-ahead log. If the clock is right, and the other time \
                      is wrong, restart with strongroom run --clock-is-right. Somebody may have set the clock to change \
                      until when records are kept.";
    let (title, severity) = ("Audit pipeline stopped sealing because of its clock", Severity::High);
    own(CLOCK_DOUBTED, "clock-doubted", title, severity, "clock", now_us, now_us, message, next_steps)
}

/// Returns an alert that is marked as a test, to check whether a sink accepts alerts.
pub fn test_alert(sink: &str, now_us: i64) -> Alert {
    let message = format!("TEST: strongroom can reach the sink {sink}; nothing happened in any cluster");
    let next_steps = "None: somebody ran strongroom alerts test-sink.";
    let (title, severity) = ("Strongroom test alert", Severity::Informational);
    let alert = own(TEST, "strongroom-test", title, severity, sink, now_us, now_us, message, next_steps);
    about_no_attack(alert, sink)
}

/// Returns the heartbeat for a sink that has got no alert since `since_us`. If the heartbeat does
/// not arrive, there is a problem.
pub fn heartbeat(sink: &str, since_us: i64, now_us: i64) -> Alert {
    let message = format!("strongroom is running and reaches the sink {sink}");
    let next_steps = "None. If heartbeats stop, check /readyz and the log of strongroom.";
    let (title, severity) = ("Strongroom heartbeat", Severity::Informational);
    let alert =
        own(HEARTBEAT, "strongroom-heartbeat", title, severity, sink, since_us, now_us, message, next_steps);
    about_no_attack(alert, sink)
}

fn about_no_attack(alert: Alert, sink: &str) -> Alert {
    let event = AlertEvent { time_us: alert.time_us, ..AlertEvent::default() };
    Alert { tactics: Vec::new(), techniques: Vec::new(), group_key: format!("sink={sink}"), event, ..alert }
}

#[expect(clippy::too_many_arguments, reason = "the fields of one value, named by the callers above")]
fn own(
    rule_id: &str,
    rule_name: &str,
    title: &str,
    severity: Severity,
    key: &str,
    since_us: i64,
    now_us: i64,
    message: String,
    next_steps: &str,
) -> Alert {
    let name = [rule_id.as_bytes(), &[0], key.as_bytes(), &[0], &since_us.to_be_bytes()].concat();
    Alert {
        alert_id: Uuid::new_v5(&ALERT_NAMESPACE, &name).to_string(),
        rule_id: rule_id.to_owned(),
        rule_name: rule_name.to_owned(),
        title: title.to_owned(),
        severity,
        time_us: now_us,
        window_start_us: since_us,
        window_end_us: now_us,
        group_key: format!("source={key}"),
        event_count: 0,
        audit_ids: Vec::new(),
        tactics: vec!["defense-evasion".to_owned()],
        techniques: vec!["T1562.008".to_owned()],
        message,
        next_steps: next_steps.to_owned(),
        event: AlertEvent { time_us: now_us, source: key.to_owned(), ..AlertEvent::default() },
        // The alert has no event.
        touched: Touched::default(),
    }
}
