//! Tests that order of arrival, batches and restarts change no alert.
//!
//! Goal: the same alerts are raised in whatever order a source delivers its events within the
//! lateness of a rule, wherever the stream is cut into batches or the process is killed. If the
//! same events are delivered again, they raise no new alert. Method: rules of every kind of
//! correlation observe random events, and the alert ids of two runs are compared. Shuffled events
//! are compared with the same events in order of time, as one batch; the rules have a lateness. A
//! run with a restart or a reload is compared with a run without it over the same events in the
//! same order.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::testing::batch_of;
use crate::{Detector, DetectorConfig, Matcher, RuleSet};

const RULES: &str = "
title: grants
name: grants
logsource: {product: kubernetes, service: audit}
detection: {a: {verb: create, objectRef.resource: rolebindings}, condition: a}
---
title: reads
name: reads
logsource: {product: kubernetes, service: audit}
detection: {a: {verb: get, objectRef.resource: secrets}, condition: a}
---
title: execs
name: execs
logsource: {product: kubernetes, service: audit}
detection: {a: {verb: create, objectRef.resource: pods}, condition: a}
---
title: many reads
name: many
correlation: {type: event_count, rules: reads, group-by: actor, timespan: 5m, lateness: LATE, condition: {gte: 3}}
---
title: many names
name: names
correlation: {type: value_count, rules: [reads, execs], group-by: actor, timespan: 5m, lateness: LATE, condition: {field: objectRef.name, gte: 3}}
---
title: all
name: all
correlation: {type: temporal, rules: [grants, reads, execs], group-by: actor, timespan: 5m, lateness: LATE}
---
title: in order
name: ordered
correlation: {type: temporal_ordered, rules: [grants, reads, execs], group-by: actor, timespan: 5m, lateness: LATE}
---
title: new
name: new
correlation: {type: first_seen, rules: [reads, execs], group-by: actor, timespan: 1h, learning: 5m, lateness: LATE, condition: {field: objectRef.name}}
---
title: busy
name: busy
correlation: {type: baseline, rules: [reads, execs, grants], timespan: 1d, lateness: LATE, condition: {floor: 4, factor: 1.5, min_history: 1}}
";

const LATENESS: u32 = 60;

fn at_once() -> Arc<RuleSet> {
    let text = RULES.replace(", lateness: LATE", "");
    Arc::new(RuleSet::from_yaml("r.yml", &text).unwrap_or_else(|error| panic!("{error}")))
}

fn with_lateness() -> Arc<RuleSet> {
    let text = RULES.replace("LATE", &format!("{LATENESS}s"));
    Arc::new(RuleSet::from_yaml("r.yml", &text).unwrap_or_else(|error| panic!("{error}")))
}

/// An event: second, kind, user, object, and how many seconds it is late.
type Given = (u32, usize, usize, usize, u32);

fn given() -> impl Strategy<Value = Vec<Given>> {
    proptest::collection::vec((0_u32..9000, 0_usize..3, 0_usize..2, 0_usize..4, 0_u32..LATENESS), 1..70)
}

fn line(at: usize, (second, kind, actor, name, _): Given) -> String {
    let (verb, resource) = [("create", "rolebindings"), ("get", "secrets"), ("create", "pods")][kind];
    let time =
        format!("2026-03-02T{:02}:{:02}:{:02}.000000Z", 10 + second / 3600, second / 60 % 60, second % 60);
    format!(
        r#"{{"auditID":"{at}","stage":"ResponseComplete","verb":"{verb}","user":{{"username":"u{actor}"}},"objectRef":{{"resource":"{resource}","name":"n{name}"}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}"}}"#
    )
}

/// Returns the rule name and id of each alert that a detector raises for the lines, cut into
/// batches at `cuts`.
fn alert_ids(
    detector: &mut Detector,
    rules: &Arc<RuleSet>,
    lines: &[String],
    cuts: &[usize],
) -> BTreeSet<(String, String)> {
    let mut matcher = Matcher::new(Arc::clone(rules));
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (lines.len() + 1)).collect();
    cuts.extend([0, lines.len()]);
    cuts.sort_unstable();
    let mut ids = BTreeSet::new();
    for cut in cuts.windows(2) {
        let lines: Vec<&str> = lines[cut[0]..cut[1]].iter().map(String::as_str).collect();
        let alerts = detector.observe(matcher.match_batch(&batch_of(&lines)).unwrap());
        ids.extend(alerts.into_iter().map(|alert| (alert.rule_name, alert.alert_id)));
    }
    ids
}

fn settled(detector: &mut Detector) -> impl Iterator<Item = (String, String)> + use<> {
    detector.settle().into_iter().map(|alert| (alert.rule_name, alert.alert_id))
}

fn fresh(rules: &Arc<RuleSet>) -> Detector {
    Detector::new(Arc::clone(rules), DetectorConfig::default())
}

fn in_order(given: &[Given]) -> Vec<String> {
    let mut order: Vec<usize> = (0..given.len()).collect();
    order.sort_by_key(|at| given[*at].0);
    order.into_iter().map(|at| line(at, given[at])).collect()
}

fn as_they_come(given: &[Given]) -> Vec<String> {
    let mut order: Vec<usize> = (0..given.len()).collect();
    order.sort_by_key(|at| (given[*at].0 + given[*at].4, *at));
    order.into_iter().map(|at| line(at, given[at])).collect()
}

#[test]
fn every_kind_is_raised_by_such_events() {
    let rules = with_lateness();
    let given: Vec<Given> = (0..300_usize)
        .map(|at| (at as u32 * 30, at % 3, at / 3 % 2, if at > 250 { 3 } else { at % 3 }, 0))
        .chain((0..200).map(|at| (8400 + at, 1, 0, 1, 0)))
        .collect();
    let mut detector = fresh(&rules);
    let mut ids = alert_ids(&mut detector, &rules, &in_order(&given), &[]);
    ids.extend(settled(&mut detector));
    let names: BTreeSet<&str> = ids.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["all", "busy", "many", "names", "new", "ordered"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn shuffling_within_the_lateness_changes_nothing(
        given in given(),
        cuts in proptest::collection::vec(0_usize..70, 0..8),
    ) {
        let rules = with_lateness();
        let mut detector = fresh(&rules);
        let mut expected = alert_ids(&mut detector, &rules, &in_order(&given), &[]);
        expected.extend(settled(&mut detector));
        let mut detector = fresh(&rules);
        let mut found = alert_ids(&mut detector, &rules, &as_they_come(&given), &cuts);
        found.extend(settled(&mut detector));
        prop_assert_eq!(found, expected);
    }

    /// A restarted detector observes the sealed events again without alerting, and alerts for the
    /// later events.
    #[test]
    fn a_restart_anywhere_changes_nothing(
        given in given(),
        waits in any::<bool>(),
        shuffled in any::<bool>(),
        (sealed, killed) in (0_usize..70, 0_usize..70),
    ) {
        let rules = if waits { with_lateness() } else { at_once() };
        let lines = if waits && shuffled { as_they_come(&given) } else { in_order(&given) };
        let killed = killed.min(lines.len());
        let sealed = sealed.min(killed);
        let mut detector = fresh(&rules);
        let mut expected = alert_ids(&mut detector, &rules, &lines, &[]);
        expected.extend(settled(&mut detector));

        let mut found = alert_ids(&mut fresh(&rules), &rules, &lines[..killed], &[sealed]);
        // Windows are rebuilt from the events of the span before the last sealed event. Rules that
        // compare with the past also need older events, and are the only rules that observe them.
        let span = rules.rebuild_span().as_secs() as i64;
        let time = |line: &String| {
            let at = line.find("stageTimestamp\":\"").unwrap() + 17;
            chrono::DateTime::parse_from_rfc3339(&line[at..at + 27]).unwrap().timestamp()
        };
        let newest = lines[..sealed].iter().map(time).max().unwrap_or_default();
        let (recent, older): (Vec<String>, Vec<String>) =
            lines[..sealed].iter().cloned().partition(|line| time(line) >= newest - span);
        let mut detector = fresh(&rules);
        alert_ids(&mut detector, &Arc::new(rules.history_part()), &older, &[]);
        alert_ids(&mut detector, &rules, &recent, &[]);
        found.extend(alert_ids(&mut detector, &rules, &lines[sealed..], &[]));
        found.extend(settled(&mut detector));
        prop_assert_eq!(found, expected);
    }

    /// Events that are delivered again raise no new alert.
    #[test]
    fn repeated_events_raise_nothing_new(given in given()) {
        let rules = at_once();
        let lines = in_order(&given);
        let mut detector = fresh(&rules);
        let first = alert_ids(&mut detector, &rules, &lines, &[]);
        let again = alert_ids(&mut detector, &rules, &lines, &[]);
        prop_assert!(again.is_empty(), "{again:?} after {first:?}");
    }

    /// A rule set with additional rules that is loaded later continues with the state of the old
    /// set.
    #[test]
    fn another_set_with_the_same_rules_continues(given in given(), cut in 0_usize..70) {
        let before = at_once();
        let more = RULES.replace(", lateness: LATE", "");
        let more = format!("title: more\nname: more\nlogsource: {{product: kubernetes, service: audit}}\ndetection: {{a: {{verb: watch}}, condition: a}}\n---{more}");
        let after = Arc::new(RuleSet::from_yaml("r.yml", &more).unwrap());
        let lines = in_order(&given);
        let cut = cut.min(lines.len());
        let expected = alert_ids(&mut fresh(&before), &before, &lines, &[]);
        let mut detector = fresh(&before);
        let mut found = alert_ids(&mut detector, &before, &lines[..cut], &[]);
        found.extend(alert_ids(&mut detector, &after, &lines[cut..], &[]));
        prop_assert_eq!(found, expected);
    }
}
