//! A set of rules: read, parsed, linked and compiled.
//!
//! Invariant: a [`RuleSet`] contains only rules that can run. Everything that can be wrong with a rule (an
//! unknown field, a modifier that does not apply, a condition that names no selection, a correlation over a
//! missing rule) is an error when the set is made, with file, rule and line; matching has no rule errors left.
//! A set never changes once it is made, and is rebuilt from its files after a crash.

use std::path::PathBuf;
use std::time::Duration;

use strongroom_schemas::Alert;

use crate::builtin;
use crate::compile::Program;
use crate::error::{RULES_MAX, RuleError};
use crate::link::{self, Linked};
use crate::message::Subject;
use crate::needs::Needs;
use crate::parse;
use crate::rule::{Correlation, EventRule, RuleInfo};

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
