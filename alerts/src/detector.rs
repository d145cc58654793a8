//! Turns matches into alerts, in source order: one alert for each request, and one for each burst.
//!
//! Invariant: alerts are a function of the sequence of matched events. They depend neither on how
//! the sequence is cut into batches nor on which threads match the batches, and a replay raises the
//! same ids.
//!
//! **One request, several stages.** The API server writes an event when a request arrives, when the
//! answer to a long-running request starts, and when the request ends. Rules match every stage but
//! `RequestReceived` unless they name `stage` themselves, so an exec matches when it starts and
//! again when it ends. The first match of a request alerts or counts. Later matches are recognised
//! by a hash that identifies the request: cluster, audit id, user, actor, source address, verb, URI
//! and the time it was received. With the audit id alone, a client could silence its own alerts by
//! sending an id that was used before. The last [`DetectorConfig::requests_max`] requests are
//! remembered; an older request alerts again under the same id.
//!
//! An entry in a cloud's log does not say when the request was received. For such an entry, the
//! hash contains the time of the stage instead. A start and a later end that agree in everything
//! else then count as one request.
//!
//! Base rules of a correlation do not alert, unless the correlation has `generate: true`. A request
//! that matches several base rules of a correlation counts once; for a temporal correlation, once
//! for each rule.
//!
//! **A late step.** An alert of a temporal correlation is about the last step of the sequence,
//! whichever step arrives last. Its source and offset are those of the event that completed the
//! sequence, because an alert is sealed with that event.
//!
//! **Level.** An alert has the level of its rule, unless the rule sets a lower level for groups
//! that are still being learnt, or for alerts that are common (see [`crate::rarity`]).
//!
//! **An event without a time.** If a line was cut off before its time, the event gets the latest
//! time that its source has shown before it. That time is used for the event's alert, and for the
//! windows in which the event counts. The id of an alert about one event does not depend on it. If
//! the source has shown no time yet, the event counts as an event of 1970 in sliding windows; rules
//! that compare with the past or wait for late events do not count it.
//!
//! **Another set of rules.** Matches carry their rule set, and the detector continues with that
//! set. The key of a rule's state is the rule's content, not its position. So rules that are equal
//! in both sets continue with their state, and new rules start without state. The state of rules
//! that are no longer in the set is forgotten as it ages.
//!
//! **Crash.** State is lost. To rebuild it, observe the archive's events of the last
//! [`RuleSet::rebuild_span`] again, and drop the alerts. If there are rules that compare with the
//! past, first observe older events in the same way: those of the [`RuleSet::history_max`] before
//! that span, with a matcher of [`RuleSet::history_part`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use strongroom_schemas::{Alert, AlertEvent, Stage, Touched};
use uuid::Uuid;

use crate::closing::{Closed, ClosingLimits, Closings, Waiting};
use crate::details::Details;
use crate::history::{Baselines, HistoryLimits, Judgement, Novelties, Novelty};
use crate::matches::{BatchMatches, Entry, Half, Kept, MatchedEvent, Meaning};
use crate::message::{self, Subject};
use crate::rarity::Commons;
use crate::reorder::{Held, Reorder};
use crate::rule::{Correlation, Measure, RuleInfo};
use crate::ruleset::RuleSet;
use crate::window::{Counted, Crossing, Rule, WindowLimits, Windows};

/// Namespace of alert ids; changing it would change the id of every alert.
pub const ALERT_NAMESPACE: Uuid = Uuid::from_u128(0x5f9c_06a1_8d0e_4b57_9a53_27c4_71d0_ee12);

/// Limits on what a detector remembers, and how long its rules with an upper bound wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectorConfig {
    /// Requests remembered, so that their later stages do not alert again; 32 bytes each.
    pub requests_max: usize,
    /// Events remembered for correlations, over all groups; about 200 bytes each. The event that
    /// arrived longest ago is forgotten first.
    pub events_max: usize,
    /// Groups remembered for correlations, and for each kind of history.
    pub groups_max: usize,
    /// Events remembered for one group. If the group's rule needs more events than this to alert,
    /// the number that it needs is the limit.
    pub group_events_max: usize,
    /// Rules with an upper bound (`lt`, `lte`, `eq`) wait this long before they count an event, and
    /// do not count events that are later than this after the latest event of their source. All
    /// other rules count late events of any age, and do not wait this long.
    pub allowed_lateness: Duration,
    /// Values remembered for `first_seen`, over all groups; about 150 bytes each. The value seen
    /// longest ago is forgotten first.
    pub values_max: usize,
    /// Active hours remembered for `baseline`, over all groups; 12 bytes each. The group seen
    /// longest ago is forgotten first.
    pub hours_max: usize,
}

/// Default of [`DetectorConfig::requests_max`].
pub const REQUESTS_MAX: usize = 1 << 18;
/// Default of [`DetectorConfig::events_max`].
pub const EVENTS_MAX: usize = 1 << 18;
/// Default of [`DetectorConfig::groups_max`].
pub const GROUPS_MAX: usize = 1 << 16;
/// Default of [`DetectorConfig::group_events_max`].
pub const GROUP_EVENTS_MAX: usize = 1 << 13;

/// Default of [`DetectorConfig::values_max`].
pub const VALUES_MAX: usize = 1 << 19;
/// Default of [`DetectorConfig::hours_max`].
pub const HOURS_MAX: usize = 1 << 22;

/// Default of [`DetectorConfig::allowed_lateness`]: an API server's webhook retries for up to 100
/// seconds.
pub const ALLOWED_LATENESS: Duration = Duration::from_secs(120);

impl Default for DetectorConfig {
    fn default() -> DetectorConfig {
        DetectorConfig {
            requests_max: REQUESTS_MAX,
            events_max: EVENTS_MAX,
            groups_max: GROUPS_MAX,
            group_events_max: GROUP_EVENTS_MAX,
            allowed_lateness: ALLOWED_LATENESS,
            values_max: VALUES_MAX,
            hours_max: HOURS_MAX,
        }
    }
}

/// Turns matches into alerts. One detector serves all sources, and gets the matches of each source
/// in source order.
#[derive(Debug)]
pub struct Detector {
    rules: Arc<RuleSet>,
    /// Position of each correlation in the set, by its key.
    correlations: HashMap<u64, usize>,
    requests: Requests,
    windows: Windows,
    closings: Closings,
    reorder: Reorder,
    novelties: Novelties,
    baselines: Baselines,
    commons: Commons,
    details: Details,
    shown: Shown,
}

impl Detector {
    pub fn new(rules: Arc<RuleSet>, config: DetectorConfig) -> Detector {
        let limits = WindowLimits {
            events_max: config.events_max,
            groups_max: config.groups_max,
            group_events_max: config.group_events_max,
        };
        let closing_limits = ClosingLimits {
            waiting_max: config.events_max,
            windows_max: config.groups_max,
            lateness_us: i64::try_from(config.allowed_lateness.as_micros()).unwrap_or(i64::MAX),
        };
        let history_limits = HistoryLimits {
            values_max: config.values_max,
            groups_max: config.groups_max,
            hours_max: config.hours_max,
        };
        Detector {
            reorder: Reorder::new(config.events_max),
            novelties: Novelties::new(history_limits),
            baselines: Baselines::new(history_limits),
            commons: Commons::default(),
            details: Details::default(),
            correlations: positions(&rules),
            rules,
            requests: Requests::new(config.requests_max),
            windows: Windows::new(limits),
            closings: Closings::new(closing_limits),
            shown: Shown::default(),
        }
    }

    /// Returns the rule set of the matches observed last.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Returns the alerts that the events of a batch complete, in order of the events. If an alert
    /// needs its window to close first, it comes where the window was judged: at the end of the
    /// batch, or earlier.
    pub fn observe(&mut self, mut matches: BatchMatches) -> Vec<Alert> {
        self.shown.date(&mut matches);
        let mut alerts = Vec::new();
        if let Some(rules) = matches.rules.as_ref().filter(|rules| !Arc::ptr_eq(rules, &self.rules)) {
            self.rules = Arc::clone(rules);
            self.correlations = positions(rules);
        }
        for entry in &matches.entries {
            let event = &matches.events[entry.event as usize];
            match entry.meaning {
                Meaning::Alert => {
                    let rule = self.rules.keys[entry.rule as usize];
                    if self.requests.is_first(rule, event.request, event.half) {
                        alerts.push(self.single(entry, event, &matches));
                    }
                }
                Meaning::Count { correlation, group, group_text, value } => {
                    let rules = Arc::clone(&self.rules);
                    let definition = &rules.correlations[correlation as usize];
                    let waits = definition.closes() || definition.lateness_us > 0;
                    let time_us = match event.time_us {
                        Some(time_us) => time_us,
                        None if waits || definition.measure.is_history() => continue,
                        None => 0,
                    };
                    let source = matches.text(event, Kept::Source).unwrap_or_default();
                    let text = || matches.texts.get(group_text).unwrap_or_default();
                    if definition.closes() {
                        let is_unfinished = definition.measure == Measure::Unfinished;
                        let stage = matches.text(event, Kept::Stage);
                        let rule = rules.keys[definition.info];
                        if !is_unfinished && !self.requests.is_first(rule, event.request, event.half) {
                            continue;
                        }
                        let ends = is_unfinished && stage != Some(Stage::RequestReceived.as_str());
                        let waiting = Waiting {
                            key: (definition.key, if is_unfinished { value } else { group }),
                            group,
                            ends,
                            timespan_us: definition.timespan_us,
                            counts_values: definition.measure == Measure::Values,
                            request: event.request,
                            value,
                            group_text: if ends { String::new() } else { text().to_owned() },
                            // The event that ends a request is never shown in an alert, so only its
                            // time is kept.
                            event: match ends {
                                true => AlertEvent { time_us, ..AlertEvent::default() },
                                false => matches.alert_event(event),
                            },
                        };
                        let mut closed = self.closings.advance(source, event.latest_us.unwrap_or(i64::MIN));
                        closed.extend(self.closings.add(source, waiting));
                        alerts.extend(closed.into_iter().filter_map(|closed| self.judged(closed)));
                        continue;
                    }
                    if definition.lateness_us > 0 {
                        let held = Held {
                            correlation: definition.key,
                            group,
                            group_text: text().to_owned(),
                            value,
                            request: event.request,
                            half: event.half,
                            event: AlertEvent { time_us, ..matches.alert_event(event) },
                        };
                        let mut left = self.reorder.advance(source, event.latest_us.unwrap_or(i64::MIN));
                        left.extend(self.reorder.hold(source, definition.lateness_us, held));
                        alerts.extend(left.into_iter().filter_map(|held| self.released(held)));
                        continue;
                    }
                    let counted = Counted {
                        time_us,
                        request: event.request,
                        value,
                        audit_id: matches.text(event, Kept::AuditId).unwrap_or_default(),
                        touch: matches.touch(event),
                        source_offset: event.source_offset,
                    };
                    let whole = || matches.alert_event(event);
                    if let Some(crossing) = self.count(definition, group, &counted, event.half, &whole) {
                        alerts.push(self.correlated(definition, crossing, group, text(), whole()));
                    }
                }
            }
        }
        let latest = if self.rules.needs_all_times() { matches.latest_us.as_slice() } else { &[] };
        for (source, latest_us) in latest {
            let closed = self.closings.advance(source, *latest_us);
            alerts.extend(closed.into_iter().filter_map(|closed| self.judged(closed)));
            let left = self.reorder.advance(source, *latest_us);
            alerts.extend(left.into_iter().filter_map(|held| self.released(held)));
        }
        alerts
    }

    /// Returns true if events are waiting for late events.
    pub fn is_waiting(&self) -> bool {
        !self.reorder.is_empty()
    }

    /// Releases all events that wait for late ones, and returns their alerts. Call this when no
    /// more events are expected: at the end of a log, or after a source was silent for longer than
    /// [`RuleSet::lateness_max`].
    pub fn settle(&mut self) -> Vec<Alert> {
        let left = self.reorder.settle();
        left.into_iter().filter_map(|held| self.released(held)).collect()
    }

    #[cfg(test)]
    pub(crate) fn forget_details(&mut self) {
        self.details = Details::default();
    }

    /// Counts an event that has waited long enough, and returns its alert.
    fn released(&mut self, held: Held) -> Option<Alert> {
        let Held { correlation, group, group_text, value, request, half, event } = held;
        let counted = Counted {
            time_us: event.time_us,
            request,
            value,
            audit_id: &event.audit_id,
            touch: event.touch(),
            source_offset: event.source_offset,
        };
        let rules = Arc::clone(&self.rules);
        // A rule that is no longer in the set does not alert.
        let definition = &rules.correlations[*self.correlations.get(&correlation)?];
        let crossing = self.count(definition, group, &counted, half, &|| event.clone())?;
        Some(self.correlated(definition, crossing, group, &group_text, event))
    }

    /// Counts an event for a correlation that is judged at each event, and returns the crossing
    /// that the event completes.
    fn count(
        &mut self,
        correlation: &Correlation,
        group: u128,
        counted: &Counted<'_>,
        half: Option<Half>,
        event: &dyn Fn() -> AlertEvent,
    ) -> Option<Crossing> {
        let (key, timespan_us) = ((correlation.key, group), correlation.timespan_us);
        // A request counts once for a correlation or, if the correlation distinguishes rules, once
        // for each of its rules.
        let rule = self.rules.keys[correlation.info];
        let rule = if correlation.measure.distinguishes_rules() {
            rule.wrapping_add(counted.value + 1)
        } else {
            rule
        };
        if !self.requests.is_first(rule, counted.request, half) {
            return None;
        }
        match correlation.measure {
            Measure::FirstSeen { learning_us, learning_level } => {
                let spans = (timespan_us, learning_us);
                let learning_level = match self.novelties.see(key, counted.value, counted.time_us, spans) {
                    Novelty::Known => return None,
                    Novelty::Learnt => Some(learning_level?),
                    Novelty::New => None,
                };
                Some(Crossing {
                    first_request: counted.request,
                    start_us: counted.time_us,
                    end_us: counted.time_us,
                    count: 1,
                    audit_ids: vec![counted.audit_id.to_owned()],
                    touched: Touched::of(counted.touch, counted.source_offset),
                    learning_level,
                    last: None,
                })
            }
            Measure::Baseline { floor, factor_thousandths, history_min } => {
                let judgement = Judgement { timespan_us, floor, factor_thousandths, history_min };
                let spike = self.baselines.count(key, judgement, counted)?;
                // An hour of a group alerts once, so its alert id needs no first request.
                Some(Crossing {
                    first_request: 0,
                    start_us: spike.hour_us,
                    end_us: counted.time_us,
                    count: spike.count,
                    audit_ids: spike.audit_ids,
                    touched: spike.touched,
                    learning_level: None,
                    last: None,
                })
            }
            measure => {
                // Keep the details of the last step, because a step that arrives later may complete
                // the sequence.
                let is_last = counted.value + 1 == correlation.bases.len() as u128;
                if measure == Measure::Rules || (measure == Measure::RulesInOrder && is_last) {
                    self.details.keep(counted.request, event);
                }
                let at_least = correlation.at_least()?;
                let at_least = usize::try_from(at_least).unwrap_or(usize::MAX);
                self.windows.count(key, Rule { timespan_us, at_least, measure }, counted)
            }
        }
    }

    /// Returns the alert of a closed window, if its count is within the rule's bounds. For
    /// `unfinished`, a closed window is one request; these requests are counted by group, and a
    /// burst of them alerts once.
    fn judged(&mut self, closed: Closed) -> Option<Alert> {
        let rules = Arc::clone(&self.rules);
        let correlation = &rules.correlations[*self.correlations.get(&closed.key.0)?];
        if correlation.measure == Measure::Unfinished {
            let counted = Counted {
                time_us: closed.event.time_us,
                request: closed.first_request,
                value: 0,
                audit_id: &closed.event.audit_id,
                touch: closed.event.touch(),
                source_offset: closed.event.source_offset,
            };
            let rule = Rule {
                timespan_us: correlation.timespan_us,
                at_least: usize::try_from(correlation.at_least()?).unwrap_or(usize::MAX),
                measure: Measure::Events,
            };
            let crossing = self.windows.count((correlation.key, closed.group), rule, &counted)?;
            return Some(self.correlated(
                correlation,
                crossing,
                closed.group,
                &closed.group_text,
                closed.event,
            ));
        }
        if !correlation.bounds.iter().all(|bound| bound.holds(closed.count)) {
            return None;
        }
        let crossing = Crossing {
            first_request: closed.first_request,
            start_us: closed.start_us,
            end_us: closed.start_us.saturating_add(correlation.timespan_us),
            count: closed.count,
            audit_ids: closed.audit_ids,
            touched: closed.touched,
            learning_level: None,
            last: None,
        };
        Some(self.correlated(correlation, crossing, closed.group, &closed.group_text, closed.event))
    }

    fn single(&mut self, entry: &Entry, event: &MatchedEvent, matches: &BatchMatches) -> Alert {
        let rules = Arc::clone(&self.rules);
        let rule = &rules.rules()[entry.rule as usize];
        let own_us = event.time_us.filter(|_| !event.is_dated_by_source);
        let received_us = event.request_received_us.or(own_us).unwrap_or_default();
        let alert_id = alert_id(&rule.id, 0, received_us, event.request);
        let event = matches.alert_event(event);
        let subject = Subject { event: &event, count: 1, group: "", timespan: "" };
        let definition = rules.event_rule(entry.rule as usize);
        let message = message::message(definition.message.as_ref(), &subject, definition.names_outcome);
        let alert = Alert {
            alert_id,
            rule_id: rule.id.clone(),
            rule_name: rule.name.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
            time_us: event.time_us,
            window_start_us: event.time_us,
            window_end_us: event.time_us,
            group_key: String::new(),
            event_count: 1,
            audit_ids: vec![event.audit_id.clone()],
            tactics: rule.tactics.clone(),
            techniques: rule.techniques.clone(),
            message,
            next_steps: definition.next_steps.render_next_steps(&subject),
            touched: Touched::of(event.touch(), event.source_offset),
            event,
        };
        self.judged_by_rate(rule, alert)
    }

    fn correlated(
        &mut self,
        correlation: &Correlation,
        crossing: Crossing,
        group: u128,
        group_text: &str,
        completing: AlertEvent,
    ) -> Alert {
        let event = match &crossing.last {
            None => completing,
            Some((request, names)) => {
                let AlertEvent { source, source_offset, .. } = completing;
                let last = self.details.get(*request).unwrap_or(names).clone();
                AlertEvent { source, source_offset, ..last }
            }
        };
        let rules = Arc::clone(&self.rules);
        let rule = &rules.rules()[correlation.info];
        let timespan = correlation.span_text();
        let subject =
            Subject { event: &event, count: crossing.count, group: group_text, timespan: &timespan };
        let mut message = message::message(correlation.message.as_ref(), &subject, correlation.names_outcome);
        if crossing.learning_level.is_some() {
            message::append(&mut message, LEARNING);
        }
        let alert = Alert {
            alert_id: alert_id(&rule.id, group, crossing.start_us, crossing.first_request),
            rule_id: rule.id.clone(),
            rule_name: rule.name.clone(),
            title: rule.title.clone(),
            severity: crossing.learning_level.unwrap_or(rule.severity),
            time_us: event.time_us,
            window_start_us: crossing.start_us,
            window_end_us: crossing.end_us,
            group_key: group_text.to_owned(),
            event_count: crossing.count,
            audit_ids: crossing.audit_ids,
            tactics: rule.tactics.clone(),
            techniques: rule.techniques.clone(),
            message,
            next_steps: correlation.next_steps.render_next_steps(&subject),
            touched: crossing.touched,
            event,
        };
        self.judged_by_rate(rule, alert)
    }

    /// Lowers the level of an alert if its rule has alerted so often that further alerts are
    /// common.
    fn judged_by_rate(&mut self, rule: &RuleInfo, mut alert: Alert) -> Alert {
        if let Some(common) = rule.common {
            self.commons.judge(common, &mut alert);
        }
        alert
    }
}

/// Appended to the message of an alert whose group is still being learnt.
const LEARNING: &str = "; the log is too young to know what is usual";

/// Maximum number of sources whose latest times are remembered.
const SOURCES_MAX: usize = 1024;

/// The latest event time that each source has shown. If there are too many sources, the one that
/// was added first is forgotten.
#[derive(Debug, Default)]
struct Shown {
    latest_us: HashMap<String, i64>,
    order: VecDeque<String>,
}

impl Shown {
    /// Dates the events of a batch that have no time: each gets the latest time that its source has
    /// shown before it. Also remembers the latest times of the batch.
    fn date(&mut self, matches: &mut BatchMatches) {
        let texts = &matches.texts;
        for event in matches.events.iter_mut().filter(|event| event.time_us.is_none()) {
            let source = texts.get(event.texts[Kept::Source as usize]).unwrap_or_default();
            event.time_us = event.latest_us.max(self.latest_us.get(source).copied());
            event.is_dated_by_source = true;
        }
        for (source, latest_us) in &matches.latest_us {
            if *latest_us == i64::MIN {
                continue;
            }
            if let Some(known_us) = self.latest_us.get_mut(source) {
                *known_us = (*known_us).max(*latest_us);
                continue;
            }
            if self.order.len() == SOURCES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.latest_us.remove(&oldest);
            }
            self.order.push_back(source.clone());
            self.latest_us.insert(source.clone(), *latest_us);
        }
    }
}

fn positions(rules: &RuleSet) -> HashMap<u64, usize> {
    rules.correlations.iter().enumerate().map(|(at, correlation)| (correlation.key, at)).collect()
}

/// Returns the id of a finding. It is unique, and the same each time the finding is raised.
fn alert_id(rule_id: &str, group: u128, start_us: i64, first_request: u128) -> String {
    let mut name = Vec::with_capacity(rule_id.len() + 41);
    name.extend_from_slice(rule_id.as_bytes());
    name.push(0);
    name.extend_from_slice(&group.to_be_bytes());
    name.extend_from_slice(&start_us.to_be_bytes());
    name.extend_from_slice(&first_request.to_be_bytes());
    Uuid::new_v5(&ALERT_NAMESPACE, &name).to_string()
}

/// The requests that rules have recently matched.
#[derive(Debug)]
struct Requests {
    max: usize,
    known: HashSet<u128>,
    order: VecDeque<u128>,
    /// Halves of requests whose other half has not been seen.
    halves: HashMap<u128, Half>,
    halves_order: VecDeque<u128>,
}

impl Requests {
    fn new(max: usize) -> Requests {
        Requests {
            max,
            known: HashSet::new(),
            order: VecDeque::new(),
            halves: HashMap::new(),
            halves_order: VecDeque::new(),
        }
    }

    /// Remembers that a rule has matched a request. Returns true unless the match was already
    /// remembered.
    fn is_new(&mut self, rule: u128, request: u128) -> bool {
        // The request and the rule are hashes, so their sum is as good as a hash of the two.
        let key = request.wrapping_add(rule);
        if !self.known.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// Like [`Requests::is_new`], but the two halves of a request (a start, and an end that is not
    /// earlier) count as one match: only the half that arrives first is new. Two starts are two
    /// requests, and so are two ends, because a client may send the id of an earlier request.
    fn is_first(&mut self, rule: u128, request: u128, half: Option<Half>) -> bool {
        if !self.is_new(rule, request) {
            return false;
        }
        let Some(half) = half else { return true };
        let key = half.operation.wrapping_add(rule);
        let completes = |other: &Half| {
            let (start, end) = if half.is_start { (&half, other) } else { (other, &half) };
            start.is_start && !end.is_start && start.time_us <= end.time_us
        };
        if self.halves.get(&key).is_some_and(completes) {
            self.halves.remove(&key);
            return false;
        }
        self.halves.insert(key, half);
        self.halves_order.push_back(key);
        if self.halves_order.len() > self.max
            && let Some(oldest) = self.halves_order.pop_front()
        {
            self.halves.remove(&oldest);
        }
        true
    }
}
