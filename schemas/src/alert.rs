//! An alert: the finding of a rule, in the form that every sink and the `alerts` table share.
//!
//! Invariant: an alert has references and short, listed fields, never a request or response body,
//! so no secret of a cluster gets out through a SIEM. The exception is the command and the
//! container of an exec, which most logs have in the URI. The `alert_id` of an alert depends only
//! on rule, group, window start and first event, so a replay raises the same id, even after a
//! crash.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::touched::{Touch, Touched};

/// How urgent an alert is; the names are Sigma's `level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const ALL: [Severity; 5] =
        [Severity::Informational, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Informational => "informational",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }

    /// Returns the OCSF `severity_id`.
    pub const fn ocsf_id(self) -> u8 {
        match self {
            Severity::Informational => 1,
            Severity::Low => 2,
            Severity::Medium => 3,
            Severity::High => 4,
            Severity::Critical => 5,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Severity {
    type Err = crate::UnknownValue;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Severity::ALL.into_iter().find(|s| s.as_str() == value).ok_or_else(|| crate::UnknownValue {
            field: "level",
            value: value.chars().take(64).collect(),
            expected: "informational, low, medium, high, critical",
        })
    }
}

/// The fields of one event that an alert may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertEvent {
    pub audit_id: String,
    pub stage: Option<String>,
    /// Event time, microseconds since the epoch, UTC.
    pub time_us: i64,
    pub cluster: String,
    pub source: String,
    pub source_offset: i64,
    /// The impersonated user if there is one, else the user.
    pub actor: String,
    /// The authenticated user, even if it impersonates another one.
    pub user_name: String,
    /// The last of `sourceIPs`.
    pub source_ip: Option<String>,
    pub user_agent: Option<String>,
    pub verb: Option<String>,
    pub request_uri: Option<String>,
    pub api_group: Option<String>,
    pub resource: Option<String>,
    pub subresource: Option<String>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub response_code: Option<i32>,
    pub authz_decision: Option<String>,
    /// The command of an exec whose URI has none, from the options in its body.
    pub exec_command: Option<String>,
    /// The container of an exec or attach whose URI has none, from the options in its body.
    pub exec_container: Option<String>,
    /// Whether the request succeeded; `None` in older alerts, which lack this field.
    pub outcome: Option<Outcome>,
    /// Parts of the event that could not be read, as in the column `faults`.
    pub faults: Vec<String>,
}

impl AlertEvent {
    /// Returns the user who acts: the authenticated user, even if this user borrows the permissions
    /// of another one.
    pub fn authenticated_user(&self) -> &str {
        if self.user_name.is_empty() { &self.actor } else { &self.user_name }
    }

    /// Returns the user whose permissions the authenticated user borrows; `None` without
    /// impersonation.
    pub fn impersonated_user(&self) -> Option<&str> {
        Some(self.actor.as_str()).filter(|actor| *actor != self.authenticated_user())
    }

    /// Returns who acts: `alice`, or `alice as admin` if she borrows the permissions of `admin`.
    pub fn who(&self) -> String {
        match self.impersonated_user() {
            None => self.actor.clone(),
            Some(impersonated) => format!("{} as {impersonated}", self.authenticated_user()),
        }
    }

    /// Returns the names of this event that its alert keeps in [`Touched`].
    pub fn touch(&self) -> Touch<'_> {
        Touch {
            namespace: self.namespace.as_deref(),
            actor: &self.actor,
            user_name: &self.user_name,
            cluster: &self.cluster,
            source: &self.source,
        }
    }
}

/// One finding of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// UUID (version 5), a function of rule, group, window start and first event.
    pub alert_id: String,
    pub rule_id: String,
    /// Short stable name of the rule, its file name.
    pub rule_name: String,
    pub title: String,
    pub severity: Severity,
    /// Time of the event that completed the finding, microseconds since the epoch.
    pub time_us: i64,
    pub window_start_us: i64,
    pub window_end_us: i64,
    /// `field=value` pairs that a correlation grouped by; empty for single-event rules.
    pub group_key: String,
    /// Events counted in the window; 1 for single-event rules.
    pub event_count: u64,
    /// `auditID`s of the first events counted, in order, at most [`AUDIT_IDS_MAX`].
    pub audit_ids: Vec<String>,
    /// ATT&CK tactics as in Sigma tags, e.g. `credential-access`.
    pub tactics: Vec<String>,
    /// ATT&CK techniques, e.g. `T1552.007`.
    pub techniques: Vec<String>,
    /// One sentence about what happened, with this alert's own values.
    pub message: String,
    /// What an analyst should do next, from the rule.
    pub next_steps: String,
    /// The event that completed the finding.
    pub event: AlertEvent,
    /// What all events counted in the window touch; empty in older alerts, which lack this field.
    #[serde(default)]
    pub touched: Touched,
}

/// Maximum number of `auditID`s that one alert lists.
pub const AUDIT_IDS_MAX: usize = 32;
