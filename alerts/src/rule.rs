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
use crate::link;
use crate::message::{Subject, Template, timespan_text};
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

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// One event at a time.
    Event,
    /// How many events within a window.
    EventCount,
    /// How many distinct values within a window.
    ValueCount,
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
    pub(crate) bases: Vec<Base>,
    /// Names of the group's fields as the rule spells them.
    pub(crate) group_by: Vec<String>,
    pub(crate) counts_values: bool,
    pub(crate) timespan_us: i64,
    pub(crate) bounds: Vec<Bound>,
    pub(crate) message: Option<Template>,
    pub(crate) next_steps: Template,
    pub(crate) runbook: Vec<Template>,
}

impl Correlation {
    /// The count from which a sliding window alerts; none for a rule with an upper bound, which can be
    /// judged only when its window is over.
    pub(crate) fn at_least(&self) -> Option<u64> {
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
        let program = Program::compile(&linked.events, &linked.correlations);
        Ok(RuleSet { infos: linked.infos, events: linked.events, correlations: linked.correlations, program })
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
        let event = self.events.iter().find(|rule| rule.info == info).map(|rule| (&rule.runbook, 0));
        let correlation = self.correlations.iter().find(|rule| rule.info == info);
        let correlation = correlation.map(|rule| (&rule.runbook, rule.timespan_us));
        let Some((runbook, timespan_us)) = event.or(correlation) else { return Vec::new() };
        let timespan = if timespan_us == 0 { String::new() } else { timespan_text(timespan_us) };
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

    /// The longest window of any correlation; zero without one. State is whole again after a restart
    /// once the events of this span were observed.
    pub fn window_max(&self) -> Duration {
        let longest = self.correlations.iter().map(|correlation| correlation.timespan_us).max();
        Duration::from_micros(longest.unwrap_or(0).unsigned_abs())
    }
}
