//! Keeps details of the last steps of sequences, for alerts about sequences that a late event
//! completes.
//!
//! A late event can complete a sequence whose last step arrived before it. The alert is about that
//! last step: its user, its address, its object. Windows keep only the names of their events, so
//! this module keeps the rest.
//!
//! Invariant: the kept details take at most [`BYTES_MAX`] bytes; the event that arrived first is
//! forgotten first. An alert about a forgotten event has only its names. State is lost in a crash
//! and rebuilt with the windows.

use std::collections::VecDeque;

use hashbrown::HashMap;
use strongroom_schemas::AlertEvent;

/// Maximum size of all events that are kept.
const BYTES_MAX: usize = 32 << 20;

/// Last steps of sequences, by the hash that identifies their request.
#[derive(Debug, Default)]
pub(crate) struct Details {
    known: HashMap<u128, AlertEvent>,
    order: VecDeque<(u128, usize)>,
    bytes: usize,
}

impl Details {
    pub(crate) fn keep(&mut self, request: u128, event: &dyn Fn() -> AlertEvent) {
        if self.known.contains_key(&request) {
            return;
        }
        let event = event();
        let bytes = size(&event);
        self.bytes += bytes;
        self.order.push_back((request, bytes));
        self.known.insert(request, event);
        while self.bytes > BYTES_MAX
            && let Some((oldest, bytes)) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.bytes -= bytes;
        }
    }

    pub(crate) fn get(&self, request: u128) -> Option<&AlertEvent> {
        self.known.get(&request)
    }
}

/// Returns about how much memory an event takes here.
fn size(event: &AlertEvent) -> usize {
    let texts = [&event.audit_id, &event.cluster, &event.source, &event.actor, &event.user_name];
    let optional = [
        &event.stage,
        &event.source_ip,
        &event.user_agent,
        &event.verb,
        &event.request_uri,
        &event.api_group,
        &event.resource,
        &event.subresource,
        &event.namespace,
        &event.name,
        &event.authz_decision,
        &event.exec_command,
        &event.exec_container,
    ];
    let texts = texts.into_iter().chain(optional.into_iter().flatten()).chain(&event.faults);
    size_of::<(u128, AlertEvent, u128, usize)>() + texts.map(String::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::batch_of;
    use crate::{Detector, DetectorConfig, Matcher, RuleSet};

    #[test]
    fn the_oldest_events_are_forgotten_first() {
        let mut details = Details::default();
        let event = |text: &str| AlertEvent { request_uri: Some(text.to_owned()), ..AlertEvent::default() };
        let long = "x".repeat(BYTES_MAX / 4);
        for request in 0..6 {
            details.keep(request, &|| event(&long));
            details.keep(request, &|| event("another"));
            assert!(details.bytes <= BYTES_MAX && details.known.len() == details.order.len());
        }
        assert!(details.get(0).is_none() && details.get(2).is_none());
        assert_eq!(details.get(5), Some(&event(&long)));
    }

    const RULES: &str = "\
title: a
name: a
logsource: {product: kubernetes, service: audit}
detection: {a: {verb: list}, condition: a}
---
title: b
name: b
logsource: {product: kubernetes, service: audit}
detection: {a: {verb: get}, condition: a}
---
title: s
name: s
correlation: {type: temporal_ordered, rules: [a, b], group-by: source_ip, timespan: 1m}
message: \"{actor} {verb} {objectRef.name} at {source_ip}\"
";

    fn line(verb: &str, user: &str, second: u32) -> String {
        format!(
            r#"{{"auditID":"{user}{second}","stage":"ResponseComplete","verb":"{verb}","requestURI":"/s","user":{{"username":"{user}"}},"sourceIPs":["10.0.0.1"],"objectRef":{{"resource":"secrets","namespace":"web","name":"s"}},"responseStatus":{{"code":200}},"requestReceivedTimestamp":"2026-03-02T10:00:{second:02}Z","stageTimestamp":"2026-03-02T10:00:{second:02}Z"}}"#
        )
    }

    /// Goal: an alert names the user of the last step, whatever the order in which the steps
    /// arrive, even if they have the same time. Method: both orders, in one batch and in two.
    #[test]
    fn the_last_step_is_named_whichever_arrives_last() {
        let rules = Arc::new(RuleSet::from_yaml("r.yml", RULES).expect("rules"));
        for second in [5, 9] {
            let (first, last) = (line("list", "system:anonymous", 5), line("get", "eve", second));
            for (lines, size) in [([&first, &last], 2), ([&last, &first], 2), ([&last, &first], 1)] {
                let mut detector = Detector::new(Arc::clone(&rules), DetectorConfig::default());
                let mut matcher = Matcher::new(Arc::clone(&rules));
                let mut alerts = Vec::new();
                for lines in lines.chunks(size) {
                    let lines: Vec<&str> = lines.iter().map(|line| line.as_str()).collect();
                    let batch = batch_of(&lines);
                    alerts.extend(detector.observe(matcher.match_batch(&batch).expect("a batch")));
                }
                assert_eq!(alerts.len(), 1);
                assert_eq!(alerts[0].message, "eve get s at 10.0.0.1", "{second} {lines:?}");
                assert_eq!(
                    (alerts[0].event.user_name.as_str(), alerts[0].event.actor.as_str()),
                    ("eve", "eve")
                );
                assert_eq!(alerts[0].time_us, alerts[0].window_end_us);
                let anonymous = format!("system:anonymous{}", 5);
                assert_eq!(alerts[0].audit_ids, [anonymous, format!("eve{second}")]);
            }
        }
    }

    #[test]
    fn a_forgotten_step_is_named() {
        let rules = Arc::new(RuleSet::from_yaml("r.yml", RULES).expect("rules"));
        let mut detector = Detector::new(Arc::clone(&rules), DetectorConfig::default());
        let mut matcher = Matcher::new(Arc::clone(&rules));
        let mut observe = |line: String, forget: bool| {
            let alerts = detector.observe(matcher.match_batch(&batch_of(&[&line])).expect("a batch"));
            if forget {
                detector.forget_details();
            }
            alerts
        };
        assert!(observe(line("get", "eve", 9), true).is_empty());
        let alerts = observe(line("list", "mallory", 5), false);
        assert_eq!(alerts[0].message, "eve - - at -");
    }
}
