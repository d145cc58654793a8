//! Compares rows of the table `alerts` with their findings: the detector's batches agree with their
//! findings, and each changed column is named.

use std::sync::Arc;

use arrow_array::{RecordBatch, StringArray};
use strongroom_alerts::alerts_batch;
use strongroom_decode::meaning::{Difference, compare_alerts, compared_alert_columns};
use strongroom_schemas::touched::{Touch, Touched};
use strongroom_schemas::{Alert, AlertEvent, Severity, alerts};

fn alert() -> Alert {
    let given = |text: &str| Some(text.to_owned());
    Alert {
        alert_id: "id".to_owned(),
        rule_id: "rule".to_owned(),
        rule_name: "secret-sweep".to_owned(),
        title: "Secrets swept".to_owned(),
        severity: Severity::High,
        time_us: 1_772_445_600_001_999,
        window_start_us: -1,
        window_end_us: 1_772_445_600_002_000,
        group_key: "k".to_owned(),
        event_count: 2,
        audit_ids: vec!["a".to_owned(), "b".to_owned()],
        tactics: vec!["credential-access".to_owned(), "stealth".to_owned()],
        techniques: vec!["T1552.007".to_owned(), "T1078".to_owned()],
        message: "alice read".to_owned(),
        next_steps: "Ask.".to_owned(),
        touched: touched(Some("ns"), "alice", "c", "file/a"),
        event: AlertEvent {
            cluster: "c".to_owned(),
            actor: "alice".to_owned(),
            source_ip: given("10.0.0.7"),
            verb: given("list"),
            resource: given("secrets"),
            subresource: given("status"),
            namespace: given("ns"),
            name: given("s"),
            source: "file/a".to_owned(),
            source_offset: 7,
            ..AlertEvent::default()
        },
    }
}

fn touched(namespace: Option<&str>, actor: &str, cluster: &str, source: &str) -> Touched {
    Touched::of(Touch { namespace, actor, user_name: actor, cluster, source }, 7)
}

fn alert_differences(batch: &RecordBatch) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    compare_alerts(batch, &mut |row, how| found.push((row, how.to_string()))).expect("alerts");
    found
}

/// Returns the row of one alert with the finding of another alert.
fn with_finding_of(row: &Alert, finding: &Alert) -> RecordBatch {
    let (rows, other) =
        (alerts_batch(std::slice::from_ref(row)), alerts_batch(std::slice::from_ref(finding)));
    let at = rows.schema().index_of(alerts::OCSF).expect("a column");
    let mut columns = rows.columns().to_vec();
    columns[at] = Arc::clone(other.column(at));
    RecordBatch::try_new(rows.schema(), columns).expect("the same columns")
}

#[test]
fn alerts_say_what_their_finding_says() {
    let bare = Alert { event: AlertEvent::default(), ..alert() };
    let no_tags = Alert { tactics: Vec::new(), techniques: Vec::new(), ..alert() };
    let mut unnamed = alert();
    (unnamed.event.name, unnamed.event.verb) = (None, Some("unknown".to_owned()));
    (unnamed.next_steps, unnamed.group_key) = (String::new(), String::new());
    let mut by_name = alert();
    (by_name.event.source_ip, by_name.event.subresource) = (Some("a host".to_owned()), None);
    let mut impersonates = alert();
    impersonates.event.user_name = "root".to_owned();
    let rows = [alert(), bare, no_tags, unnamed, by_name, impersonates];
    assert_eq!(alert_differences(&alerts_batch(&rows)), []);
}

#[test]
fn each_column_of_an_alert_is_compared() {
    type Change = fn(&mut Alert);
    let changes: &[(&str, Change)] = &[
        ("alert_id", |a| a.alert_id.push('x')),
        ("rule_id", |a| a.rule_id.push('x')),
        ("rule_name", |a| a.rule_name.push('x')),
        ("title", |a| a.title.push('x')),
        ("severity", |a| a.severity = Severity::Low),
        ("time", |a| a.time_us += 1),
        ("window_start", |a| a.window_start_us += 1),
        ("window_end", |a| a.window_end_us -= 1),
        ("cluster", |a| a.event.cluster.push('x')),
        ("actor", |a| a.event.actor.push('x')),
        ("source_ip", |a| a.event.source_ip = None),
        ("verb", |a| a.event.verb = None),
        ("resource", |a| a.event.resource = Some("pods".to_owned())),
        ("name, subresource", |a| a.event.subresource = None),
        ("name, subresource", |a| a.event.name = None),
        ("namespace", |a| a.event.namespace = None),
        ("group_key", |a| a.group_key.clear()),
        ("event_count", |a| a.event_count += 1),
        ("audit_ids", |a| a.audit_ids.reverse()),
        ("tactics", |a| a.tactics.truncate(1)),
        ("techniques", |a| a.techniques[0] = "T1552.001".to_owned()),
        ("message", |a| a.message.push('x')),
        ("next_steps", |a| a.next_steps.push('x')),
        ("source", |a| a.event.source.push('x')),
        ("source_offset", |a| a.event.source_offset += 1),
        ("namespaces", |a| a.touched = touched(Some("other"), "alice", "c", "file/a")),
        ("actors", |a| a.touched = touched(Some("ns"), "bob", "c", "file/a")),
        ("clusters", |a| a.touched = touched(Some("ns"), "alice", "d", "file/a")),
        ("event_ranges", |a| a.touched = touched(Some("ns"), "alice", "c", "file/b")),
    ];
    for (name, change) in changes {
        let mut changed = alert();
        change(&mut changed);
        let found = alert_differences(&with_finding_of(&changed, &alert()));
        assert_eq!(found, [(0, format!("not what its record says: {name}"))]);
    }
    let mut named: Vec<&str> = changes.iter().map(|(name, _)| *name).collect();
    named.dedup();
    assert_eq!(named, compared_alert_columns().collect::<Vec<_>>());
}

#[test]
fn a_finding_may_be_anything() {
    let row = alerts_batch(&[Alert {
        group_key: String::new(),
        next_steps: String::new(),
        tactics: Vec::new(),
        techniques: Vec::new(),
        ..alert()
    }]);
    let deep = "[".repeat(100_000);
    for finding in ["", "x", "[]", "\"x\"", &deep, "{\"\\ud800\":1}", "{}\0"] {
        let at = row.schema().index_of(alerts::OCSF).expect("a column");
        let mut columns = row.columns().to_vec();
        columns[at] = Arc::new(StringArray::from(vec![finding]));
        let batch = RecordBatch::try_new(row.schema(), columns).expect("the same columns");
        assert_eq!(alert_differences(&batch), [(0, Difference::NoRecord.to_string())]);
    }
}
