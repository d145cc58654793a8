//! A set of rules: read, parsed, linked and compiled.
//!
//! Invariant: a [`RuleSet`] contains only rules that can run. Everything that can be wrong with a
//! rule (an unknown field, a modifier that does not apply, a condition that names no selection, a
//! correlation over a missing rule) is an error when the set is made, with file, rule and line. So
//! no rule can fail during matching. A set never changes once it is made, and is rebuilt from its
//! files after a crash.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use strongroom_schemas::Alert;

use crate::builtin;
use crate::compile::Program;
use crate::coverage::{self, LogKind};
use crate::error::{RULES_MAX, RuleError};
use crate::link::{self, Linked};
use crate::message::{Subject, Template};
use crate::needs::Needs;
use crate::parse::{self, Document};
use crate::rule::{Correlation, EventRule, RuleInfo};

/// Rules that are ready to run, shared by every [`crate::Matcher`] and [`crate::Detector`].
#[derive(Debug)]
pub struct RuleSet {
    infos: Vec<RuleInfo>,
    /// Hash of each rule's id. The detector combines it with the hash of a request, to remember
    /// which requests a rule has matched.
    pub(crate) keys: Vec<u128>,
    pub(crate) events: Vec<EventRule>,
    pub(crate) correlations: Vec<Correlation>,
    pub(crate) program: Program,
}

/// A user's own rules, together with the built-in rules that they do not replace.
#[derive(Debug)]
pub struct OwnRules {
    pub rules: RuleSet,
    /// Position in [`RuleSet::rules`] of the user's first rule. All rules after it are the user's.
    pub first: usize,
    /// Names and ids of the built-in rules that the user's rules replace with different text.
    pub changed: BTreeSet<String>,
}

impl RuleSet {
    /// Returns the rules that come with Strongroom.
    ///
    /// # Errors
    /// None in a release: a test loads the rules.
    pub fn builtin() -> Result<RuleSet, RuleError> {
        RuleSet::from_documents(builtin::RULES.iter().map(|(file, text)| (file.to_string(), *text)))
    }

    /// Reads the rules in files and folders. For a folder, every `.yml` and `.yaml` file below it
    /// is read, in order of file names. Either all rules load or none.
    ///
    /// # Errors
    /// [`RuleError::Read`], [`RuleError::TooLarge`] or [`RuleError::NoFiles`] if files cannot be
    /// read; another [`RuleError`] if a rule cannot be run.
    pub fn load(paths: &[PathBuf]) -> Result<RuleSet, RuleError> {
        RuleSet::load_beside(&[], paths)
    }

    /// Reads rules like [`RuleSet::load`], and adds them to the rules that come with Strongroom.
    ///
    /// # Errors
    /// Those of [`RuleSet::load`], and an error if a rule has the id or the name of a built-in
    /// rule.
    pub fn builtin_and(paths: &[PathBuf]) -> Result<RuleSet, RuleError> {
        RuleSet::load_beside(builtin::RULES, paths)
    }

    /// Reads rules like [`RuleSet::builtin_and`], except that they may replace built-in rules. If a
    /// rule has the name or the id of a built-in rule, the whole built-in file with that rule is
    /// left out. So copies of the built-in files can be changed, checked and tested.
    ///
    /// # Errors
    /// Those of [`RuleSet::load`].
    pub fn in_place_of_builtin(paths: &[PathBuf]) -> Result<OwnRules, RuleError> {
        let mut read = Vec::new();
        for path in paths {
            builtin::read_rules(path, &mut read)?;
        }
        let mut own = Vec::new();
        for (file, text) in &read {
            parse::documents(file, text, &mut own)?;
        }
        let keys_of = |documents: &[Document]| -> Result<Vec<String>, RuleError> {
            let ids = documents.iter().filter_map(|document| document.header.id.clone());
            Ok(link::names_of(documents)?.into_iter().chain(ids).collect())
        };
        let known: BTreeSet<String> = keys_of(&own)?.into_iter().collect();
        let (mut documents, mut changed) = (Vec::new(), BTreeSet::new());
        for (file, text) in builtin::RULES {
            let mut of_file = Vec::new();
            parse::documents(file, text, &mut of_file)?;
            let keys = keys_of(&of_file)?;
            if !keys.iter().any(|key| known.contains(key)) {
                documents.append(&mut of_file);
            } else if !read.iter().any(|(_, given)| given == text) {
                changed.extend(keys);
            }
        }
        let first = documents.len();
        documents.append(&mut own);
        Ok(OwnRules { rules: RuleSet::of(documents)?, first, changed })
    }

    fn load_beside(texts: &[(&str, &str)], paths: &[PathBuf]) -> Result<RuleSet, RuleError> {
        let mut read = Vec::new();
        for path in paths {
            builtin::read_rules(path, &mut read)?;
        }
        let given = texts.iter().map(|(file, text)| (file.to_string(), *text));
        RuleSet::from_documents(given.chain(read.iter().map(|(file, text)| (file.clone(), text.as_str()))))
    }

    /// Returns what an audit policy must record so that the rule at position `at` of
    /// [`RuleSet::rules`] can match.
    pub fn needs(&self, at: usize) -> Needs {
        let feeds = self.correlations.iter().find(|correlation| correlation.info == at);
        let bases = feeds.map_or(vec![at], |feeds| feeds.bases.iter().map(|base| base.rule).collect());
        let rules = self.events.iter().filter(|rule| bases.contains(&rule.info));
        Needs::of(rules.map(|rule| &rule.condition))
    }

    /// Returns the columns that the rule at position `at` of [`RuleSet::rules`] asks for and that
    /// logs of this kind do not have. On such a log the rule may stay silent, or miss an exception.
    pub fn lacking(&self, at: usize, log: LogKind) -> Vec<&'static str> {
        let mut columns = BTreeSet::new();
        let feeds = self.correlations.iter().find(|correlation| correlation.info == at);
        let bases = feeds.map_or(vec![at], |feeds| feeds.bases.iter().map(|base| base.rule).collect());
        for rule in self.events.iter().filter(|rule| bases.contains(&rule.info)) {
            coverage::columns_in(&rule.condition, &mut columns);
        }
        for base in feeds.iter().flat_map(|feeds| &feeds.bases) {
            for field in base.group_by.iter().chain(&base.values) {
                coverage::columns_in_field(field, &mut columns);
            }
        }
        log.lacking(&columns)
    }

    /// Returns the positions of the rules that feed a correlation; none for a rule over events.
    pub fn feeders(&self, at: usize) -> Vec<usize> {
        let feeds = self.correlations.iter().find(|correlation| correlation.info == at);
        feeds.map_or(Vec::new(), |feeds| feeds.bases.iter().map(|base| base.rule).collect())
    }

    /// Returns a hash of the names and contents of the rule files that [`RuleSet::load`] would
    /// read.
    ///
    /// # Errors
    /// Those of [`RuleSet::load`] if files cannot be read.
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

    /// Reads the rules of one YAML text with any number of documents. Errors name the file `name`.
    ///
    /// # Errors
    /// [`RuleError::Yaml`] and [`RuleError::Rule`], with the line.
    pub fn from_yaml(name: &str, text: &str) -> Result<RuleSet, RuleError> {
        RuleSet::from_documents([(name.to_owned(), text)])
    }

    /// Reads the rules of several YAML texts, each with the file name that errors use. A
    /// correlation in one text may name rules of every other text.
    pub fn from_documents<'a>(
        texts: impl IntoIterator<Item = (String, &'a str)>,
    ) -> Result<RuleSet, RuleError> {
        let mut documents = Vec::new();
        for (file, text) in texts {
            parse::documents(&file, text, &mut documents)?;
        }
        RuleSet::of(documents)
    }

    fn of(documents: Vec<Document>) -> Result<RuleSet, RuleError> {
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

    /// Returns all rules, in the order in which they were read; a match refers to a rule by its
    /// position here.
    pub fn rules(&self) -> &[RuleInfo] {
        &self.infos
    }

    /// Returns the SQL queries to run about an alert, in the rule's order, with the alert's values
    /// filled in as SQL literals. Empty if the set has no rule with the alert's rule id, or the
    /// rule has no runbook.
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

    /// Returns the rule over events whose [`RuleInfo`] is at position `info`.
    pub(crate) fn event_rule(&self, info: usize) -> &EventRule {
        let at = self.events.binary_search_by_key(&info, |rule| rule.info);
        &self.events[at.expect("the position is that of a rule over events, and they are sorted by it")]
    }

    /// Returns the longest timespan of the correlations that are not `first_seen` or `baseline`;
    /// zero if there is none.
    pub fn window_max(&self) -> Duration {
        let windows = self.correlations.iter().filter(|correlation| !correlation.measure.is_history());
        Duration::from_micros(windows.map(|c| c.timespan_us).max().unwrap_or(0).unsigned_abs())
    }

    /// Returns how far before the last event a detector must start to observe events again after a
    /// restart, to restore the windows. This is the length of two windows, plus the longest time
    /// that an event waits for late events. The earlier window is needed because it decides whether
    /// a burst has alerted already. The span also covers the longest timespan in which a rule
    /// counts its own alerts.
    pub fn rebuild_span(&self) -> Duration {
        (2 * self.window_max()).max(self.common_max()) + self.lateness_max()
    }

    /// Returns the longest timespan in which a rule counts its own alerts; zero if none does.
    fn common_max(&self) -> Duration {
        let timespans = self.infos.iter().filter_map(|info| info.common).map(|common| common.timespan_us);
        Duration::from_micros(timespans.max().unwrap_or(0).unsigned_abs())
    }

    /// Returns true if the text of an alert may name the command or the container of an exec, which
    /// some logs have in the request body.
    pub(crate) fn names_exec(&self) -> bool {
        let events = self.events.iter().map(|rule| (&rule.message, &rule.next_steps, &rule.runbook));
        let correlations =
            self.correlations.iter().map(|rule| (&rule.message, &rule.next_steps, &rule.runbook));
        events.chain(correlations).any(|(message, next_steps, runbook)| {
            message.iter().chain([next_steps]).chain(runbook).any(Template::names_exec)
        })
    }

    /// Returns true if a rule needs the time of every event, including the events that no rule
    /// matches.
    pub fn needs_all_times(&self) -> bool {
        self.correlations.iter().any(|rule| rule.closes() || rule.lateness_us > 0)
    }

    /// Returns the longest time that an event waits for late events.
    pub fn lateness_max(&self) -> Duration {
        let longest = self.correlations.iter().map(|correlation| correlation.lateness_us).max();
        Duration::from_micros(longest.unwrap_or(0).unsigned_abs())
    }

    /// Returns the longest timespan of the `first_seen` and `baseline` rules, which compare with
    /// the past; zero if there is none.
    pub fn history_max(&self) -> Duration {
        let history = self.correlations.iter().filter(|correlation| correlation.measure.is_history());
        Duration::from_micros(history.map(|c| c.timespan_us).max().unwrap_or(0).unsigned_abs())
    }

    /// Returns a set whose matches feed only the `first_seen` and `baseline` rules of this set. A
    /// matcher of it finds only the events that these rules compare with, and raises no alert for a
    /// single event. Pass its matches to a detector of the whole set.
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
