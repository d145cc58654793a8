//! One request alerts once, also when its stages go to two members of a Kafka group: the archive has
//! one row for an alert, whichever member seals it first.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

use crate::daemon::{Daemon, PATIENCE, config, wait_until};
use crate::run::expect_code;
use crate::s3::{at, init};
use crate::services::seaweed;
use crate::services::tansu::Tansu;

const LOCATION: &str = "s3://group-alerts/a";
const TOPIC: &str = "audit";
/// Execs of one round.
const EXECS: usize = 5;
/// Rounds until both members have raised an alert before the other one sealed it.
const ROUNDS_MAX: usize = 20;

/// An event of an exec: its start, or its end a second later.
fn exec(number: usize, stage: &str) -> Vec<u8> {
    let text = |time: chrono::DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
    // The same in all stages of a request.
    let received = "2026-11-01T10:00:00Z".parse::<chrono::DateTime<Utc>>().expect("a time")
        + TimeDelta::try_seconds(i64::try_from(number).expect("small")).expect("small");
    let after = if stage == "ResponseStarted" { 100 } else { 1_100 };
    let event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": format!("00000000-0000-4000-8000-{number:012}"),
        "stage": stage,
        "requestURI": format!("/api/v1/namespaces/shop/pods/p{number}/exec?command=sh&container=c"),
        "verb": "create",
        "user": {"username": "alice", "groups": ["system:authenticated"]},
        "sourceIPs": ["10.0.0.9"],
        "userAgent": "kubectl/v1.34.1",
        "objectRef": {
            "resource": "pods", "namespace": "shop", "name": format!("p{number}"), "apiVersion": "v1",
            "subresource": "exec"
        },
        "responseStatus": {"metadata": {}, "code": 101},
        "requestReceivedTimestamp": text(received),
        "stageTimestamp": text(received + TimeDelta::milliseconds(after)),
        "annotations": {"authorization.k8s.io/decision": "allow"}
    });
    event.to_string().into_bytes()
}

fn send(producer: &BaseProducer, partition: i32, messages: &[Vec<u8>]) {
    for message in messages {
        let record = || BaseRecord::<(), [u8]>::to(TOPIC).partition(partition).payload(message);
        while producer.send(record()).is_err() {
            producer.poll(Duration::from_millis(10));
        }
        // Each message is a batch by itself, because this broker takes the first message of the last
        // batch for the end of the log.
        producer.flush(PATIENCE).expect("acknowledged");
    }
}

/// Each alert about one event that a member has printed, by its id, with the number of times.
fn told(daemon: &Daemon, told: &mut BTreeMap<String, usize>) {
    for (_, line) in daemon.alerts.lock().expect("no panic holds it").iter() {
        let finding: Value = serde_json::from_str(line).expect("a finding");
        let id = finding["finding_info"]["uid"].as_str().expect("an id").to_owned();
        *told.entry(id).or_insert(0) += 1;
    }
}

fn number(endpoint: &str, sql: &str) -> i64 {
    let (out, _) =
        expect_code(at(endpoint).args(["query", "--format", "csv", "--archive", LOCATION, sql]), 0);
    out.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{sql}: {out}"))
}

#[test]
fn a_request_whose_stages_go_to_two_members_alerts_once() {
    let Some(seaweed) = seaweed::own() else { return };
    let Some(tansu) = Tansu::start() else { return };
    tansu.create_topic(TOPIC, 2);
    let endpoint = seaweed.endpoint();
    init(&endpoint, LOCATION);
    let folder = tempfile::tempdir().expect("a folder");
    let members = ["first", "second"].map(|name| {
        let rest = format!(
            "[seal]\ninterval = '1s'\n[[kafka]]\nname = 'topic'\ncluster = 'test'\nbrokers = ['{}']\n\
             topics = ['{TOPIC}']\ngroup = 'strongroom'\nsession_timeout = '6s'\n",
            tansu.address()
        );
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("made");
        let config = config(&folder, LOCATION, &rest);
        let mut command = at(&endpoint);
        command.args(["run", "--config"]).arg(config);
        Daemon::spawn(command)
    });
    let mut members = members;
    for member in &mut members {
        member.wait_for_metric("source_partitions{source=\"topic\"}", 1.0);
    }
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", tansu.address()).create().expect("a producer");

    // Starts go to one member and ends to the other, at once.
    let mut sent = 0;
    let mut twice = 0;
    let sealed = "SELECT count(*) FROM events";
    for _ in 0..ROUNDS_MAX {
        let round: Vec<usize> = (sent..sent + EXECS).collect();
        let of = |stage: &str| round.iter().map(|number| exec(*number, stage)).collect::<Vec<_>>();
        let (starts, ends) = (of("ResponseStarted"), of("ResponseComplete"));
        for (start, end) in starts.iter().zip(&ends) {
            send(&producer, 0, std::slice::from_ref(start));
            send(&producer, 1, std::slice::from_ref(end));
        }
        sent += EXECS;
        wait_until("both stages are sealed", || number(&endpoint, sealed) == 2 * sent as i64);
        let mut all = BTreeMap::new();
        members.iter().for_each(|member| told(member, &mut all));
        twice = all.values().filter(|times| **times > 1).count();
        if twice > 0 {
            break;
        }
    }
    assert!(twice > 0, "no alert was raised by both members before one of them sealed it");
    let repeated = "SELECT count(*) - count(DISTINCT alert_id) FROM alerts";
    let single = "SELECT count(*) FROM alerts WHERE event_count = 1 AND subresource = 'exec'";
    assert_eq!(number(&endpoint, repeated), 0, "an id has two rows");
    assert!(number(&endpoint, single) >= sent as i64, "an exec has no alert");

    // What another member has sealed before is not even sent. The end comes after both have sealed.
    let mut before = BTreeMap::new();
    members.iter().for_each(|member| told(member, &mut before));
    let late = sent;
    send(&producer, 0, &[exec(late, "ResponseStarted")]);
    wait_until("the start is sealed", || number(&endpoint, sealed) == 2 * sent as i64 + 1);
    send(&producer, 1, &[b"something else".to_vec()]);
    wait_until("the second member has sealed", || number(&endpoint, "SELECT count(*) FROM rejects") == 1);
    send(&producer, 1, &[exec(late, "ResponseComplete")]);
    wait_until("the end is sealed", || number(&endpoint, sealed) == 2 * sent as i64 + 2);
    let mut after = BTreeMap::new();
    members.iter().for_each(|member| told(member, &mut after));
    let of_late: Vec<usize> =
        after.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, times)| *times).collect();
    assert!(!of_late.is_empty(), "the late exec alerts");
    assert!(of_late.iter().all(|times| *times == 1), "each alert of it was sent once: {of_late:?}");
    assert_eq!(number(&endpoint, repeated), 0);
    for member in members {
        let (status, log) = member.terminate();
        assert!(status.success(), "{log}");
    }
    println!("{sent} execs, {twice} alerts raised by both members, {} sent once", of_late.len());
}
