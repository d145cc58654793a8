//! Compares what alerts touch with the events that they count.
//!
//! Goal: a search in what an alert touches, for a namespace, a user, a cluster or an offset, finds
//! every event that the alert counts. While the names are few, an alert touches only the names of
//! such events. Method: every kind of correlation observes random events in any order; for each
//! alert, the events that it must count are computed a second time, from the events before it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use strongroom_schemas::Alert;
use strongroom_schemas::touched::ANY;

use crate::testing::{CLUSTER, SOURCE, batch_of};
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
title: single
name: single
logsource: {product: kubernetes, service: audit}
detection: {a: {verb: get, objectRef.resource: secrets, objectRef.name: n3}, condition: a}
---
title: many reads
name: many
correlation: {type: event_count, rules: reads, group-by: actor, timespan: 5m, condition: {gte: 3}}
---
title: many names
name: names
correlation: {type: value_count, rules: reads, group-by: actor, timespan: 5m, condition: {field: objectRef.name, gte: 3}}
---
title: few reads
name: few
correlation: {type: event_count, rules: reads, group-by: actor, timespan: 5m, condition: {lte: 2}}
---
title: few names
name: fewnames
correlation: {type: value_count, rules: reads, group-by: actor, timespan: 5m, condition: {field: objectRef.name, lte: 2}}
---
title: all
name: all
correlation: {type: temporal, rules: [grants, reads], group-by: actor, timespan: 5m}
---
title: in order
name: ordered
correlation: {type: temporal_ordered, rules: [grants, reads], group-by: actor, timespan: 5m}
---
title: new
name: new
correlation: {type: first_seen, rules: reads, group-by: actor, timespan: 1h, learning: 5m, condition: {field: objectRef.name}}
---
title: busy
name: busy
correlation: {type: baseline, rules: reads, timespan: 1d, condition: {floor: 4, factor: 1.5, min_history: 1}}
";

/// An event: second, true for a read, user, name, namespace.
type Given = (u32, bool, usize, usize, usize);

const START_US: i64 = 1_772_445_600_000_000;

fn line(at: usize, (second, reads, actor, name, namespace): Given) -> String {
    let (verb, resource) = if reads { ("get", "secrets") } else { ("create", "rolebindings") };
    let time =
        format!("2026-03-02T{:02}:{:02}:{:02}.000000Z", 10 + second / 3600, second / 60 % 60, second % 60);
    let namespace = match namespace {
        0 => String::new(),
        n => format!(r#","namespace":"ns{n}""#),
    };
    format!(
        r#"{{"auditID":"{at}","stage":"ResponseComplete","verb":"{verb}","user":{{"username":"root"}},"impersonatedUser":{{"username":"u{actor}"}},"objectRef":{{"resource":"{resource}","name":"n{name}"{namespace}}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}"}}"#
    )
}

/// Observes the events, one batch each, and returns the alerts, each with the number of events
/// observed until then.
fn alerts_of(given: &[Given]) -> Vec<(usize, Alert)> {
    // Rules with an upper bound count an event only if it is at most this late.
    let config = DetectorConfig { allowed_lateness: Duration::from_secs(1000), ..DetectorConfig::default() };
    let rules = RuleSet::from_yaml("r.yml", RULES).unwrap_or_else(|error| panic!("{error}"));
    let rules = Arc::new(rules);
    let mut matcher = Matcher::new(Arc::clone(&rules));
    let mut detector = Detector::new(rules, config);
    let lines: Vec<String> = given.iter().enumerate().map(|(at, event)| line(at, *event)).collect();
    let refs: Vec<&str> = lines.iter().map(String::as_str).collect();
    let batch = batch_of(&refs);
    let mut alerts = Vec::new();
    for at in 0..given.len() {
        let found = detector.observe(matcher.match_batch(&batch.slice(at, 1)).unwrap());
        alerts.extend(found.into_iter().map(|alert| (at + 1, alert)));
    }
    alerts
}

/// Returns the offset of each event's line in the source.
fn offsets(given: &[Given]) -> Vec<i64> {
    let mut next = 0;
    let offset = |(at, event): (usize, &Given)| {
        let this = next;
        next += line(at, *event).len() as i64 + 1;
        this
    };
    given.iter().enumerate().map(offset).collect()
}

fn check(given: &[Given], come: usize, alert: &Alert) {
    let offsets = offsets(given);
    let listed: Vec<usize> = alert.audit_ids.iter().map(|id| id.parse().unwrap()).collect();
    let group = alert.group_key.strip_prefix("actor=u").and_then(|rest| rest.get(..1)?.parse::<usize>().ok());
    let second = |us: i64| (us - START_US) / 1_000_000;
    let within = |at: &usize| {
        let (time, reads, actor, ..) = given[*at];
        (second(alert.window_start_us)..=second(alert.window_end_us)).contains(&i64::from(time))
            && reads
            && group.is_none_or(|group| group == actor)
    };
    let (counted, is_exact): (Vec<usize>, bool) = match alert.rule_name.as_str() {
        "many" | "few" => ((0..come).filter(within).collect(), true),
        // The events of a value that were thinned out may be kept together, so an alert that counts
        // values may touch more than it counts.
        "names" | "fewnames" => ((0..come).filter(within).collect(), alert.rule_name == "fewnames"),
        "busy" => {
            let hour = second(alert.window_start_us) / 3600;
            let of_hour = |at: &usize| given[*at].1 && i64::from(given[*at].0) / 3600 == hour;
            ((0..come).filter(of_hour).collect(), true)
        }
        _ => (listed.clone(), true),
    };
    assert_eq!(listed.iter().filter(|at| !counted.contains(at)).count(), 0, "{alert:?}");
    let namespaces: BTreeSet<String> =
        counted.iter().map(|at| given[*at].4).filter(|n| *n > 0).map(|n| format!("ns{n}")).collect();
    let actors: BTreeSet<String> =
        counted.iter().map(|at| format!("u{}", given[*at].2)).chain(["root".to_owned()]).collect();
    let touched = &alert.touched;
    let is_any = touched.namespaces() == [ANY];
    let known: BTreeSet<String> = touched.namespaces().iter().cloned().collect();
    assert!(is_any || known.is_superset(&namespaces), "{known:?} {namespaces:?} {alert:?}");
    for at in &counted {
        let finds = |(source, first, last): (&str, i64, i64)| {
            (source == SOURCE || source == ANY) && (first..=last).contains(&offsets[*at])
        };
        assert!(touched.ranges().any(finds), "event {at} of {alert:?}");
    }
    if is_any {
        assert_eq!(alert.rule_name, "busy", "only the names of an old hour are forgotten");
        return;
    }
    assert_eq!(touched.clusters(), [CLUSTER]);
    if is_exact {
        assert_eq!(known, namespaces, "{alert:?}");
        assert_eq!(touched.actors().iter().cloned().collect::<BTreeSet<_>>(), actors);
        let expected: BTreeSet<i64> = counted.iter().map(|at| offsets[*at]).collect();
        let found: BTreeSet<i64> = touched.ranges().map(|(_, first, _)| first).collect();
        assert_eq!(found, expected);
        assert!(touched.ranges().all(|(_, first, last)| first == last));
    }
}

#[test]
fn every_kind_says_what_it_touches() {
    let given: Vec<Given> = [(0, true, 1, 3, 1), (3000, true, 1, 3, 2), (5000, true, 1, 1, 3)]
        .into_iter()
        .chain((0..60_u32).map(|at| (7300 + at * 2, at % 2 == 1, 0, (at / 30) as usize, at as usize % 4)))
        .chain([(7420, true, 0, 2, 5)])
        .collect();
    let alerts = alerts_of(&given);
    let names: BTreeSet<&str> = alerts.iter().map(|(_, alert)| alert.rule_name.as_str()).collect();
    let expected = ["all", "busy", "few", "fewnames", "many", "names", "new", "ordered", "single"];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
    alerts.iter().for_each(|(come, alert)| check(&given, *come, alert));
    // A value that is read repeatedly is one value, and touches every namespace in which it was
    // read.
    let names = alerts.iter().find(|(_, alert)| alert.rule_name == "names").map(|(_, alert)| alert);
    assert_eq!(
        names.map(|alert| alert.touched.namespaces()),
        Some(&["ns1", "ns3", "ns5"].map(str::to_owned)[..])
    );
}

#[test]
fn an_alert_with_too_many_names_touches_every_name() {
    let given: Vec<Given> = (0..200_u32).map(|at| (at, true, 0, 0, at as usize + 1)).collect();
    let rules = RULES.replace("gte: 3", "gte: 150");
    let rules = Arc::new(RuleSet::from_yaml("r.yml", &rules).unwrap());
    let lines: Vec<String> = given.iter().enumerate().map(|(at, event)| line(at, *event)).collect();
    let refs: Vec<&str> = lines.iter().map(String::as_str).collect();
    let matches = Matcher::new(Arc::clone(&rules)).match_batch(&batch_of(&refs)).unwrap();
    let alerts = Detector::new(rules, DetectorConfig::default()).observe(matches);
    let many = alerts.iter().find(|alert| alert.rule_name == "many").expect("150 reads");
    assert_eq!((many.event_count, many.audit_ids.len()), (150, 32));
    assert_eq!(many.touched.namespaces(), [ANY]);
    let offsets = offsets(&given);
    for offset in &offsets[..150] {
        assert!(
            many.touched
                .ranges()
                .any(|(source, first, last)| { source == SOURCE && (first..=last).contains(offset) })
        );
    }
    assert!(many.touched.ranges().all(|(_, first, last)| first >= offsets[0] && last <= offsets[149]));
    assert_eq!(many.touched.ranges().count(), 64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_event_that_is_counted_is_found(
        times in proptest::collection::btree_set(0_u32..9000, 1..80),
        order in any::<u64>(),
        events in proptest::collection::vec((any::<bool>(), 0_usize..2, 0_usize..4, 0_usize..4), 80),
        late in any::<bool>(),
    ) {
        let mut given: Vec<Given> = times
            .into_iter()
            .zip(events)
            .map(|(time, (reads, actor, name, namespace))| (time, reads, actor, name, namespace))
            .collect();
        if late {
            // Some events arrive after events of a later time.
            given.sort_by_key(|event| event.0 as u64 + ((u64::from(event.0) * 2_654_435_761) ^ order) % 400);
        }
        for (come, alert) in alerts_of(&given) {
            check(&given, come, &alert);
        }
    }
}
