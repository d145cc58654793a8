//! The model of parsed and checked rules, before they are compiled.
//!
//! Invariant: positions in these types ([`Base::rule`], [`EventRule::info`]) refer to the list of
//! [`RuleInfo`] that they were linked with. No state: a crash changes nothing.

use strongroom_schemas::Severity;

use crate::expr::Expr;
use crate::fields::Field;
use crate::message::{Template, timespan_text};
use crate::rarity::Common;

/// What a rule detects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// One event at a time.
    Event,
    /// The number of events within a window.
    EventCount,
    /// The number of distinct values within a window.
    ValueCount,
    /// A match of each of several rules within a window.
    Temporal,
    /// A match of each of several rules within a window, in the order of the rules.
    TemporalOrdered,
    /// A value that is new for its group.
    FirstSeen,
    /// An hour with far more events than the group's usual hours.
    Baseline,
    /// Requests that were received and have no later stage.
    Unfinished,
}

impl RuleKind {
    /// Returns the value of a rule's `type`, or `event` for a rule over single events.
    pub const fn as_str(self) -> &'static str {
        match self {
            RuleKind::Event => "event",
            RuleKind::EventCount => "event_count",
            RuleKind::ValueCount => "value_count",
            RuleKind::Temporal => "temporal",
            RuleKind::TemporalOrdered => "temporal_ordered",
            RuleKind::FirstSeen => "first_seen",
            RuleKind::Baseline => "baseline",
            RuleKind::Unfinished => "unfinished",
        }
    }
}

/// How a correlation evaluates the events that its rules match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Events,
    Values,
    /// All rules, in any order.
    Rules,
    /// All rules, in the order in which they are listed.
    RulesInOrder,
    /// Values that were not seen within the timespan, in groups known for at least `learning_us`.
    FirstSeen {
        learning_us: i64,
        /// The level of alerts about groups that are known for a shorter time; `None` if there are
        /// no such alerts.
        learning_level: Option<Severity>,
    },
    /// Events counted by hour, and compared with earlier hours within the timespan.
    Baseline {
        floor: u32,
        factor_thousandths: u64,
        history_min: usize,
    },
    /// Requests with an event of stage `RequestReceived` and none of a later stage within the
    /// timespan.
    Unfinished,
}

impl Measure {
    /// Returns true if a matched event counts only when it has a value in one of the correlation's
    /// fields.
    pub(crate) fn needs_value(self) -> bool {
        matches!(self, Measure::Values | Measure::FirstSeen { .. } | Measure::Unfinished)
    }

    /// Returns true if the alert depends on which of the correlation's rules matched.
    pub(crate) fn distinguishes_rules(self) -> bool {
        matches!(self, Measure::Rules | Measure::RulesInOrder)
    }

    /// Returns true if the correlation compares with a summary of the past, not with the events of
    /// one window.
    pub(crate) fn is_history(self) -> bool {
        matches!(self, Measure::FirstSeen { .. } | Measure::Baseline { .. })
    }
}

/// The description of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// `id`, or the name when the rule has none.
    pub id: String,
    /// `name`, or the file's stem; unique in the set.
    pub name: String,
    pub title: String,
    pub description: String,
    pub severity: Severity,
    /// When the rule's alerts get a lower level; `None` if they never do.
    pub common: Option<Common>,
    pub kind: RuleKind,
    /// False for a rule that only feeds correlations.
    pub alerts: bool,
    /// ATT&CK tactics, from tags like `attack.credential-access`.
    pub tactics: Vec<String>,
    /// ATT&CK techniques, from tags like `attack.t1552.007`.
    pub techniques: Vec<String>,
    /// What to do next, as written in the rule, with `{field}` not filled in.
    pub next_steps: String,
    pub false_positives: Vec<String>,
    /// HIPAA safeguards that the rule supports, as in 45 CFR: `164.312(b)`.
    pub hipaa: Vec<String>,
    /// SQL queries to run next, as written in the rule, with `{field}` not filled in; see
    /// [`crate::RuleSet::runbook`].
    pub runbook: Vec<String>,
    /// The text of the rule's YAML document, as it was read.
    pub text: String,
    /// The file that the rule was read from.
    pub file: String,
    /// The line of the file where the rule's document starts.
    pub line: usize,
}

/// The lowest severity at which a rule that asks for success also matches an unknown outcome. The
/// message of such an alert says that it is unconfirmed.
pub(crate) const GRAVE: Severity = Severity::High;

/// A rule over single events.
#[derive(Clone, Debug)]
pub(crate) struct EventRule {
    /// Position of its [`RuleInfo`].
    pub(crate) info: usize,
    pub(crate) condition: Expr,
    /// True if the condition has a line about the outcome.
    pub(crate) names_outcome: bool,
    /// True if the condition asks for success, and was changed to accept an unknown outcome as
    /// well.
    pub(crate) takes_unknown: bool,
    pub(crate) message: Option<Template>,
    pub(crate) next_steps: Template,
    pub(crate) runbook: Vec<Template>,
}

/// A rule that feeds a correlation, and the fields in its events that the correlation groups by and
/// counts.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    /// Position of the base rule's [`RuleInfo`].
    pub(crate) rule: usize,
    pub(crate) group_by: Vec<Field>,
    /// Fields whose values are counted or may be new; empty if events are counted.
    pub(crate) values: Vec<Field>,
}

/// One bound of a correlation's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    AtLeast(u64),
    AtMost(u64),
    Exactly(u64),
}

impl Bound {
    pub(crate) fn holds(self, count: u64) -> bool {
        match self {
            Bound::AtLeast(least) => count >= least,
            Bound::AtMost(most) => count <= most,
            Bound::Exactly(exact) => count == exact,
        }
    }
}

/// A rule over windows of time.
#[derive(Clone, Debug)]
pub(crate) struct Correlation {
    pub(crate) info: usize,
    /// Hash of the content of this rule and of the rules that feed it. The detector stores the
    /// rule's state under this key, so a new set with an equal rule continues with that state.
    pub(crate) key: u64,
    pub(crate) bases: Vec<Base>,
    /// Names of the group's fields, as written in the rule.
    pub(crate) group_by: Vec<String>,
    /// True if the events of several clusters are in one group.
    pub(crate) across_clusters: bool,
    /// Names of the fields whose values are counted or may be new, as written in the rule.
    pub(crate) value_names: Vec<String>,
    pub(crate) measure: Measure,
    pub(crate) timespan_us: i64,
    /// How long an event waits for earlier events of its source that arrive late; 0 for no wait.
    pub(crate) lateness_us: i64,
    pub(crate) bounds: Vec<Bound>,
    /// True if one of the rules that feed this one has a line about the outcome.
    pub(crate) names_outcome: bool,
    pub(crate) message: Option<Template>,
    pub(crate) next_steps: Template,
    pub(crate) runbook: Vec<Template>,
}

impl Correlation {
    /// Returns the timespan of the rule, or an hour for a baseline, in the format of rules.
    pub(crate) fn span_text(&self) -> String {
        match self.measure {
            Measure::Baseline { .. } => "1h".to_owned(),
            _ => timespan_text(self.timespan_us),
        }
    }

    /// Returns true if the correlation can be judged only when the time of a window is over.
    pub(crate) fn closes(&self) -> bool {
        self.measure == Measure::Unfinished || self.at_least().is_none()
    }

    /// Returns the count at which a sliding window alerts; `None` for a rule with an upper bound,
    /// which can be judged only when its window is over.
    pub(crate) fn at_least(&self) -> Option<u64> {
        if self.measure.distinguishes_rules() {
            return Some(self.bases.len() as u64);
        }
        self.bounds.iter().try_fold(1, |least: u64, bound| match bound {
            Bound::AtLeast(count) => Some(least.max(*count)),
            Bound::AtMost(_) | Bound::Exactly(_) => None,
        })
    }
}
