//! Matches to alerts, in source order: each request once, each burst once.
//!
//! Invariant: alerts are a function of the sequence of matched events. Cutting it into other batches,
//! or matching the batches on other threads, changes nothing, and a replay raises the same ids.
//!
//! **One request, several stages.** The API server writes an event when a request arrives, when a
//! long-running one starts to answer, and when it ends. Rules look at every stage but
//! `RequestReceived` unless they name `stage` themselves, so an exec is seen when it starts and again
//! when it ends. The first of them alerts, or counts; the others are recognised by the hash of what
//! makes the request itself: cluster, audit id, user, actor, source address, verb, URI and the time
//! it was received. The audit id alone would let a client silence its own alerts by sending one that
//! was used before. The last [`DetectorConfig::requests_max`] requests are remembered; one that is
//! seen again after that alerts again under the same id.
//!
//! Base rules of a correlation do not alert by themselves, unless the correlation says
//! `generate: true`. A request that matches several base rules of a correlation counts once.
//!
//! On a crash nothing here is saved: observe the archive's events of the last
//! [`RuleSet::window_max`] again and drop the alerts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use strongroom_schemas::{Alert, AlertEvent};
use uuid::Uuid;

use crate::closing::{Closed, ClosingLimits, Closings, Waiting};
use crate::matches::{BatchMatches, Entry, Kept, MatchedEvent, Meaning};
use crate::message::{self, Subject};
use crate::rule::{Correlation, RuleSet};
use crate::window::{Counted, Crossing, Rule, WindowLimits, Windows};

/// Namespace of alert ids; changing it would make every old alert new.
pub(crate) const ALERT_NAMESPACE: Uuid = Uuid::from_u128(0x5f9c_06a1_8d0e_4b57_9a53_27c4_71d0_ee12);

/// What a detector may keep in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectorConfig {
    /// Requests remembered, so that their later stages do not alert again; 32 bytes each.
    pub requests_max: usize,
    /// Events remembered for correlations, over all groups; about 150 bytes each. The one that arrived
    /// longest ago is forgotten first.
    pub events_max: usize,
    /// Groups remembered for correlations.
    pub groups_max: usize,
    /// Events remembered for one group, never fewer than its rule counts to.
    pub group_events_max: usize,
    /// How far behind the latest event of its source an event may come and still count for a rule with
    /// an upper bound (`lt`, `lte`, `eq`), which has to wait that long. Other rules wait for nothing
    /// and take events of any age.
    pub allowed_lateness: Duration,
}

/// Default of [`DetectorConfig::requests_max`].
pub const REQUESTS_MAX: usize = 1 << 18;
/// Default of [`DetectorConfig::events_max`].
pub const EVENTS_MAX: usize = 1 << 18;
/// Default of [`DetectorConfig::groups_max`].
pub const GROUPS_MAX: usize = 1 << 16;
/// Default of [`DetectorConfig::group_events_max`].
pub const GROUP_EVENTS_MAX: usize = 1 << 13;

/// Default of [`DetectorConfig::allowed_lateness`]: an API server's webhook retries for up to 100 seconds.
pub const ALLOWED_LATENESS: Duration = Duration::from_secs(120);

impl Default for DetectorConfig {
    fn default() -> DetectorConfig {
        DetectorConfig {
            requests_max: REQUESTS_MAX,
            events_max: EVENTS_MAX,
            groups_max: GROUPS_MAX,
            group_events_max: GROUP_EVENTS_MAX,
            allowed_lateness: ALLOWED_LATENESS,
        }
    }
}

/// Turns matches into alerts; one for all sources, fed in source order.
#[derive(Debug)]
pub struct Detector {
    rules: Arc<RuleSet>,
    requests: Requests,
    windows: Windows,
    closings: Closings,
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
        Detector {
            rules,
            requests: Requests::new(config.requests_max),
            windows: Windows::new(limits),
            closings: Closings::new(closing_limits),
        }
    }

    /// The alerts that the events of a batch complete, in order of the events; those of windows that had
    /// to close stand where it became known, at the latest at the batch's end.
    pub fn observe(&mut self, matches: BatchMatches) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for entry in &matches.entries {
            let event = &matches.events[entry.event as usize];
            match entry.meaning {
                Meaning::Alert => {
                    if self.requests.is_new(entry.rule, event.request) {
                        alerts.push(self.single(entry, event, &matches));
                    }
                }
                Meaning::Count { correlation, group, group_text, value } => {
                    let Some(time_us) = event.time_us else { continue };
                    let correlation_at = correlation;
                    let correlation = &self.rules.correlations[correlation as usize];
                    if !self.requests.is_new(correlation.info as u32, event.request) {
                        continue;
                    }
                    let Some(at_least) = correlation.at_least() else {
                        let waiting = Waiting {
                            key: (correlation_at, group),
                            timespan_us: correlation.timespan_us,
                            counts_values: correlation.counts_values,
                            request: event.request,
                            value,
                            group_text: matches.texts.get(group_text).unwrap_or_default().to_owned(),
                            event: matches.alert_event(event),
                        };
                        let source = matches.text(event, Kept::Source).unwrap_or_default();
                        let mut closed = self.closings.advance(source, event.latest_us.unwrap_or(time_us));
                        closed.extend(self.closings.add(source, waiting));
                        alerts.extend(closed.into_iter().filter_map(|closed| self.judged(closed)));
                        continue;
                    };
                    let counted = Counted {
                        time_us,
                        request: event.request,
                        value,
                        audit_id: matches.text(event, Kept::AuditId).unwrap_or_default(),
                    };
                    let rule = Rule {
                        timespan_us: correlation.timespan_us,
                        at_least: usize::try_from(at_least).unwrap_or(usize::MAX),
                        counts_values: correlation.counts_values,
                    };
                    let crossing = self.windows.count((correlation_at, group), rule, &counted);
                    if let Some(crossing) = crossing {
                        let group_text = matches.texts.get(group_text).unwrap_or_default();
                        let event = matches.alert_event(event);
                        alerts.push(self.correlated(correlation, crossing, group, group_text, event));
                    }
                }
            }
        }
        for (source, latest_us) in &matches.latest_us {
            let closed = self.closings.advance(source, *latest_us);
            alerts.extend(closed.into_iter().filter_map(|closed| self.judged(closed)));
        }
        alerts
    }

    /// The alert of a window that is over, when its count is what the rule looks for.
    fn judged(&self, closed: Closed) -> Option<Alert> {
        let correlation = &self.rules.correlations[closed.key.0 as usize];
        if !correlation.bounds.iter().all(|bound| bound.holds(closed.count)) {
            return None;
        }
        let crossing = Crossing {
            first_request: closed.first_request,
            start_us: closed.start_us,
            end_us: closed.start_us.saturating_add(correlation.timespan_us),
            count: closed.count,
            audit_ids: closed.audit_ids,
        };
        Some(self.correlated(correlation, crossing, closed.key.1, &closed.group_text, closed.event))
    }

    fn single(&self, entry: &Entry, event: &MatchedEvent, matches: &BatchMatches) -> Alert {
        let rule = &self.rules.rules()[entry.rule as usize];
        let received_us = event.request_received_us.or(event.time_us).unwrap_or_default();
        let alert_id = alert_id(&rule.id, 0, received_us, event.request);
        let event = matches.alert_event(event);
        let subject = Subject { event: &event, count: 1, group: "", timespan: "" };
        let definition = self.rules.event_rule(entry.rule as usize);
        let message = match &definition.message {
            Some(template) => template.render(&subject),
            None => message::default_message(&subject),
        };
        Alert {
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
            event,
        }
    }

    fn correlated(
        &self,
        correlation: &Correlation,
        crossing: Crossing,
        group: u128,
        group_text: &str,
        event: AlertEvent,
    ) -> Alert {
        let rule = &self.rules.rules()[correlation.info];
        let timespan = message::timespan_text(correlation.timespan_us);
        let subject =
            Subject { event: &event, count: crossing.count, group: group_text, timespan: &timespan };
        let message = match &correlation.message {
            Some(template) => template.render(&subject),
            None => message::default_message(&subject),
        };
        Alert {
            alert_id: alert_id(&rule.id, group, crossing.start_us, crossing.first_request),
            rule_id: rule.id.clone(),
            rule_name: rule.name.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
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
            event,
        }
    }
}

/// A name for what was found, and for nothing else: the same whenever it is found again.
fn alert_id(rule_id: &str, group: u128, start_us: i64, first_request: u128) -> String {
    let mut name = Vec::with_capacity(rule_id.len() + 41);
    name.extend_from_slice(rule_id.as_bytes());
    name.push(0);
    name.extend_from_slice(&group.to_be_bytes());
    name.extend_from_slice(&start_us.to_be_bytes());
    name.extend_from_slice(&first_request.to_be_bytes());
    Uuid::new_v5(&ALERT_NAMESPACE, &name).to_string()
}

/// The requests that a rule was told of lately.
#[derive(Debug)]
struct Requests {
    max: usize,
    known: HashSet<u128>,
    order: VecDeque<u128>,
}

impl Requests {
    fn new(max: usize) -> Requests {
        Requests { max, known: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether a rule has not seen a request yet; it has from now on.
    fn is_new(&mut self, rule: u32, request: u128) -> bool {
        /// Spreads rule numbers over all bits; requests are hashes already.
        const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        let key = request.wrapping_add(SPREAD.wrapping_mul(u128::from(rule) + 1));
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
}
