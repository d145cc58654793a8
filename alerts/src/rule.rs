//! The parsed model of rules: what a file says, checked, before it is compiled.
//!
//! Invariant: a [`RuleSet`] holds only rules that can run. Everything that can be wrong with a rule
//! (an unknown field, a modifier that does not apply, a condition that names no selection, a
//! correlation over a rule that is not there) is an error when the set is made, with file, rule and
//! line; matching has no rule errors left.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use strongroom_schemas::{Alert, Severity};
use thiserror::Error;

use crate::builtin;
use crate::compile::Program;
use crate::fields::Field;
use crate::link::{self, Linked};
use crate::message::{Subject, Template, timespan_text};
use crate::needs::Needs;
use crate::parse;
use crate::pattern::Test;

/// Largest rule file that is read.
pub const RULE_FILE_BYTES_MAX: u64 = 1 << 20;
/// Most rules, correlations included, in one set.
pub const RULES_MAX: usize = 4096;
/// Longest window of a correlation.
pub const TIMESPAN_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// Largest number that a correlation may count to: what one group remembers.
pub const THRESHOLD_MAX: u64 = 4096;

/// Longest that a correlation waits for events that come late.
pub const LATENESS_MAX: Duration = Duration::from_secs(3600);

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
    /// [`RuleSet::runbook`].
    pub runbook: Vec<String>,
    /// The rule's document, as it was read.
    pub text: String,
    /// File the rule was read from.
    pub file: String,
    /// Line its document starts at.
    pub line: usize,
}

/// Why rules were refused.
#[derive(Debug, Error)]
pub enum RuleError {
    #[error("rules {}: cannot read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("rules {}: {bytes} bytes, more than the {RULE_FILE_BYTES_MAX} that a rule file may have", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("rules {}: no file that ends in .yml or .yaml", path.display())]
    NoFiles { path: PathBuf },
    #[error("{file}:{line}:{column}: not YAML: {message}")]
    Yaml { file: String, line: usize, column: usize, message: String },
    #[error("{file}:{line}: rule \"{rule}\": {message}")]
    Rule { file: String, line: usize, rule: String, message: String },
    #[error("{count} rules, more than the {RULES_MAX} of a set")]
    TooMany { count: usize },
}

/// A boolean combination of leaves, before compilation.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    /// A field compared with values.
    Field(Field, Arc<Test>),
    /// A field compared with another one of the same event.
    Fields(Field, Comparison, Field),
    /// Elements of an array, each looked at alone.
    Scope(Field, Quantifier, Box<Expr>),
    /// A value anywhere in the event.
    Keyword(Arc<Test>),
}

/// How a `fieldref` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Comparison {
    Equals,
    Contains,
    StartsWith,
    EndsWith,
}

/// How many elements of an array must match: `field[any]:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Quantifier {
    Any,
    /// Every element, and there is at least one.
    All,
    /// Every element, also when there is none.
    AllOrEmpty,
    None,
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

/// Rules that are ready to run: shared by every [`crate::Matcher`] and [`crate::Detector`].
#[derive(Debug)]
pub struct RuleSet {
    infos: Vec<RuleInfo>,
    /// Hash of each rule's id: what a request that a rule was told of is known by.
    pub(crate) keys: Vec<u128>,
    pub(crate) events: Vec<EventRule>,
    pub(crate) correlations: Vec<Correlation>,
    pub(crate) program: Program,
}

impl RuleSet {
    /// The rules that come with Strongroom.
    ///
    /// # Errors
    /// None in a released build: a test loads them.
    pub fn builtin() -> Result<RuleSet, RuleError> {
        RuleSet::from_documents(builtin::RULES.iter().map(|(file, text)| (file.to_string(), *text)))
    }

    /// The rules of files and of folders; a folder means every `.yml` and `.yaml` below it, in order of
    /// their names.
    ///
    /// # Errors
    /// [`RuleError::Read`], [`RuleError::TooLarge`], [`RuleError::NoFiles`] for what cannot be read, the
    /// others for what cannot be run. All rules load or none.
    pub fn load(paths: &[PathBuf]) -> Result<RuleSet, RuleError> {
        RuleSet::load_beside(&[], paths)
    }

    /// The rules that come with Strongroom, and those of files and of folders as in [`RuleSet::load`].
    ///
    /// # Errors
    /// As [`RuleSet::load`]; a rule with the id or the name of a built-in one is refused.
    pub fn builtin_and(paths: &[PathBuf]) -> Result<RuleSet, RuleError> {
        RuleSet::load_beside(builtin::RULES, paths)
    }

    fn load_beside(texts: &[(&str, &str)], paths: &[PathBuf]) -> Result<RuleSet, RuleError> {
        let mut read = Vec::new();
        for path in paths {
            builtin::read_rules(path, &mut read)?;
        }
        let given = texts.iter().map(|(file, text)| (file.to_string(), *text));
        RuleSet::from_documents(given.chain(read.iter().map(|(file, text)| (file.clone(), text.as_str()))))
    }

    /// What an audit policy must write for a rule, by position in [`RuleSet::rules`], to be able to match.
    pub fn needs(&self, at: usize) -> Needs {
        let feeds = self.correlations.iter().find(|correlation| correlation.info == at);
        let bases = feeds.map_or(vec![at], |feeds| feeds.bases.iter().map(|base| base.rule).collect());
        let rules = self.events.iter().filter(|rule| bases.contains(&rule.info));
        Needs::of(rules.map(|rule| &rule.condition))
    }

    /// Positions of the rules that feed a correlation; none for a rule over events.
    pub fn feeders(&self, at: usize) -> Vec<usize> {
        let feeds = self.correlations.iter().find(|correlation| correlation.info == at);
        feeds.map_or(Vec::new(), |feeds| feeds.bases.iter().map(|base| base.rule).collect())
    }

    /// A hash of the rule files that [`RuleSet::load`] would read: names and contents.
    ///
    /// # Errors
    /// As [`RuleSet::load`] for what cannot be read.
    pub fn digest(paths: &[PathBuf]) -> Result<[u8; 32], RuleError> {
        let mut read = Vec::new();
        for path in paths {
            builtin::read_rules(path, &mut read)?;
        }
        let mut hash = blake3::Hasher::new();
        for (file, text) in read {
            for part in [file, text] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        Ok(*hash.finalize().as_bytes())
    }

    /// The rules of one YAML text with any number of documents; `name` stands for the file in errors.
    ///
    /// # Errors
    /// [`RuleError::Yaml`] and [`RuleError::Rule`], with the line.
    pub fn from_yaml(name: &str, text: &str) -> Result<RuleSet, RuleError> {
        RuleSet::from_documents([(name.to_owned(), text)])
    }

    /// The rules of several YAML texts, each with the name that stands for it in errors. Correlations
    /// may name rules of any of them.
    pub fn from_documents<'a>(
        texts: impl IntoIterator<Item = (String, &'a str)>,
    ) -> Result<RuleSet, RuleError> {
        let mut documents = Vec::new();
        for (file, text) in texts {
            parse::documents(&file, text, &mut documents)?;
        }
        if documents.len() > RULES_MAX {
            return Err(RuleError::TooMany { count: documents.len() });
        }
        let linked = link::link(documents)?;
        let program = Program::compile(&linked.events, &linked.correlations, |_| true);
        let Linked { infos, events, correlations } = linked;
        let key = |info: &RuleInfo| {
            let hash = blake3::hash(info.id.as_bytes());
            u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"))
        };
        let keys = infos.iter().map(key).collect();
        Ok(RuleSet { infos, keys, events, correlations, program })
    }

    /// All rules, in the order they were read; a match names a rule by its position here.
    pub fn rules(&self) -> &[RuleInfo] {
        &self.infos
    }

    /// The questions in SQL to ask about an alert, in the rule's order, with the alert's values filled in as
    /// SQL literals. Empty when the set has no rule of the alert's id, or the rule has no runbook.
    pub fn runbook(&self, alert: &Alert) -> Vec<String> {
        let Some(info) = self.infos.iter().position(|info| info.id == alert.rule_id) else {
            return Vec::new();
        };
        let event = self.events.iter().find(|rule| rule.info == info);
        let event = event.map(|rule| (&rule.runbook, String::new()));
        let correlation = self.correlations.iter().find(|rule| rule.info == info);
        let correlation = correlation.map(|rule| (&rule.runbook, rule.span_text()));
        let Some((runbook, timespan)) = event.or(correlation) else { return Vec::new() };
        let subject = Subject {
            event: &alert.event,
            count: alert.event_count,
            group: &alert.group_key,
            timespan: &timespan,
        };
        runbook.iter().map(|question| question.render_sql(&subject)).collect()
    }

    /// The definition of a rule over events, by position of its [`RuleInfo`].
    pub(crate) fn event_rule(&self, info: usize) -> &EventRule {
        let at = self.events.binary_search_by_key(&info, |rule| rule.info);
        &self.events[at.expect("only rules over events match events, in order of their infos")]
    }

    /// The longest window of any correlation but those of [`RuleSet::history_max`]; zero without one.
    pub fn window_max(&self) -> Duration {
        let windows = self.correlations.iter().filter(|correlation| !correlation.measure.is_history());
        Duration::from_micros(windows.map(|c| c.timespan_us).max().unwrap_or(0).unsigned_abs())
    }

    /// The span of events that must be observed again after a restart, up to the last one, so that windows are
    /// as they were: two windows, because whether a burst was told is known by the window before, and what
    /// events may wait for late ones.
    pub fn rebuild_span(&self) -> Duration {
        2 * self.window_max() + self.lateness_max()
    }

    /// Whether a rule has to see the time of every event, also of those that it does not match.
    pub fn needs_all_times(&self) -> bool {
        self.correlations.iter().any(|rule| rule.at_least().is_none() || rule.lateness_us > 0)
    }

    /// The longest that an event waits for others that come late.
    pub fn lateness_max(&self) -> Duration {
        let longest = self.correlations.iter().map(|correlation| correlation.lateness_us).max();
        Duration::from_micros(longest.unwrap_or(0).unsigned_abs())
    }

    /// How far back `first_seen` and `baseline` rules look; zero without one.
    pub fn history_max(&self) -> Duration {
        let looking = self.correlations.iter().filter(|correlation| correlation.measure.is_history());
        Duration::from_micros(looking.map(|c| c.timespan_us).max().unwrap_or(0).unsigned_abs())
    }

    /// The part of the set that matters to [`RuleSet::history_max`]: a matcher of it finds what those rules
    /// look back at and nothing else, for a detector of the whole set.
    pub fn history_part(&self) -> RuleSet {
        let history: Vec<&Correlation> =
            self.correlations.iter().filter(|correlation| correlation.measure.is_history()).collect();
        let feeds = |rule: &&EventRule| {
            history.iter().any(|correlation| correlation.bases.iter().any(|base| base.rule == rule.info))
        };
        let events: Vec<EventRule> = self.events.iter().filter(feeds).cloned().collect();
        let program = Program::compile(&events, &self.correlations, |c| c.measure.is_history());
        let infos = self.infos.iter().map(|info| RuleInfo { alerts: false, ..info.clone() }).collect();
        RuleSet { infos, keys: self.keys.clone(), events, correlations: self.correlations.clone(), program }
    }
}
