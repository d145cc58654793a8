//! The parsed model of rules: what a file says, checked, before it is compiled.
//!
//! Invariant: positions in these types ([`Base::rule`], [`EventRule::info`]) refer to the list of [`RuleInfo`]
//! that they were linked with. No state: a crash changes nothing.

use strongroom_schemas::Severity;

use crate::expr::Expr;
use crate::fields::Field;
use crate::message::{Template, timespan_text};

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// One event at a time.
    Event,
    /// How many events within a window.
    EventCount,
    /// How many distinct values within a window.
    ValueCount,
    /// Every one of several rules within a window.
    Temporal,
    /// Every one of several rules within a window, one after the other.
    TemporalOrdered,
    /// A value that its group has not had for long.
    FirstSeen,
    /// An hour that is out of proportion to the group's own hours.
    Baseline,
}

impl RuleKind {
    /// As a rule's `type` spells it; `event` for a rule over single events.
    pub const fn as_str(self) -> &'static str {
        match self {
            RuleKind::Event => "event",
            RuleKind::EventCount => "event_count",
            RuleKind::ValueCount => "value_count",
            RuleKind::Temporal => "temporal",
            RuleKind::TemporalOrdered => "temporal_ordered",
            RuleKind::FirstSeen => "first_seen",
            RuleKind::Baseline => "baseline",
        }
    }
}

/// What a correlation makes of the events that its rules match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Events,
    Values,
    /// All rules, in any order.
    Rules,
    /// All rules, in the order in which they are listed.
    RulesInOrder,
    /// Values not seen for the timespan, once the group was known for `learning_us`.
    FirstSeen {
        learning_us: i64,
    },
    /// Events by hour, against the hours of the timespan before.
    Baseline {
        floor: u32,
        factor_thousandths: u64,
        history_min: usize,
    },
}

impl Measure {
    /// Whether a matched event is nothing without one of the correlation's values.
    pub(crate) fn needs_value(self) -> bool {
        matches!(self, Measure::Values | Measure::FirstSeen { .. })
    }

    /// Whether what is told depends on which rule matched.
    pub(crate) fn tells_rules_apart(self) -> bool {
        matches!(self, Measure::Rules | Measure::RulesInOrder)
    }

    /// Whether it looks back further than one window, at a summary of what was.
    pub(crate) fn is_history(self) -> bool {
        matches!(self, Measure::FirstSeen { .. } | Measure::Baseline { .. })
    }
}

/// What is known of a rule without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// `id`, or the name when the rule has none.
    pub id: String,
    /// `name`, or the file's stem; unique in the set.
    pub name: String,
    pub title: String,
    pub description: String,
    pub severity: Severity,
    pub kind: RuleKind,
    /// False for a rule that only feeds correlations.
    pub alerts: bool,
    /// ATT&CK tactics, from tags like `attack.credential-access`.
    pub tactics: Vec<String>,
    /// ATT&CK techniques, from tags like `attack.t1552.007`.
    pub techniques: Vec<String>,
    /// As the rule says it, with `{field}` still in it.
    pub next_steps: String,
    pub false_positives: Vec<String>,
    /// HIPAA safeguards that the rule serves, as in 45 CFR: `164.312(b)`.
    pub hipaa: Vec<String>,
    /// Questions in SQL to ask next, as the rule says them, with `{field}` still in them; see
    /// [`crate::RuleSet::runbook`].
    pub runbook: Vec<String>,
    /// The rule's document, as it was read.
    pub text: String,
    /// File the rule was read from.
    pub file: String,
    /// Line its document starts at.
    pub line: usize,
}

/// A rule over single events.
#[derive(Clone, Debug)]
pub(crate) struct EventRule {
    /// Position of its [`RuleInfo`].
    pub(crate) info: usize,
    pub(crate) condition: Expr,
    pub(crate) message: Option<Template>,
    pub(crate) next_steps: Template,
    pub(crate) runbook: Vec<Template>,
}

/// A rule that feeds a correlation, and where it finds the correlation's values.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    /// Position of the base rule's [`RuleInfo`].
    pub(crate) rule: usize,
    pub(crate) group_by: Vec<Field>,
    /// Fields whose distinct values are counted; empty when events are.
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
    /// Hash of what the rule finds, itself and the rules that feed it: what its state goes by, so that a set
    /// with an equal rule in it goes on with that state.
    pub(crate) key: u64,
    pub(crate) bases: Vec<Base>,
    /// Names of the group's fields as the rule spells them.
    pub(crate) group_by: Vec<String>,
    /// Names of the fields whose values matter.
    pub(crate) value_names: Vec<String>,
    pub(crate) measure: Measure,
    pub(crate) timespan_us: i64,
    /// How long an event waits for earlier ones of its source that come late; 0 judges at once.
    pub(crate) lateness_us: i64,
    pub(crate) bounds: Vec<Bound>,
    pub(crate) message: Option<Template>,
    pub(crate) next_steps: Template,
    pub(crate) runbook: Vec<Template>,
}

impl Correlation {
    /// The span that a count of it is about, as rules write it.
    pub(crate) fn span_text(&self) -> String {
        match self.measure {
            Measure::Baseline { .. } => "1h".to_owned(),
            _ => timespan_text(self.timespan_us),
        }
    }

    /// The count from which a sliding window alerts; none for a rule with an upper bound, which can be
    /// judged only when its window is over.
    pub(crate) fn at_least(&self) -> Option<u64> {
        if self.measure.tells_rules_apart() {
            return Some(self.bases.len() as u64);
        }
        self.bounds.iter().try_fold(1, |least: u64, bound| match bound {
            Bound::AtLeast(count) => Some(least.max(*count)),
            Bound::AtMost(_) | Bound::Exactly(_) => None,
        })
    }
}
