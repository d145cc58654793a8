//! An outbox with scripted sinks: what is sent, in which order, and what a restart changes.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strongroom_alerts::own;
use strongroom_schemas::{Alert, Period, Severity};

use super::testing::alert;
use super::{History, HistoryError, Mark, OutboxOptions, Outcome, Sink, SinkOptions, Sinks};

/// An archive with one alert in each commit of one volume.
#[derive(Default)]
struct Sealed(Mutex<Vec<Alert>>);

impl Sealed {
    fn mark(&self) -> Mark {
        let count = self.0.lock().expect("no panic holds it").len() as u64;
        Mark(count.checked_sub(1).map(|version| (Period::of_year(2026), version)).into_iter().collect())
    }

    fn seal(&self, number: u64) -> Mark {
        self.0.lock().expect("no panic holds it").push(alert(number));
        self.mark()
    }
}

impl History for Sealed {
    fn end(&self) -> Result<Mark, HistoryError> {
        Ok(self.mark())
    }

    fn alerts(
        &self,
        from: &Mark,
        to: &Mark,
        each: &mut dyn FnMut(Alert) -> bool,
    ) -> Result<(), HistoryError> {
        let index =
            |mark: &Mark| mark.0.get(&Period::of_year(2026)).map_or(0, |version| *version as usize + 1);
        let alerts = self.0.lock().expect("no panic holds it").clone();
        for alert in &alerts[index(from)..index(to)] {
            if !each(alert.clone()) {
                break;
            }
        }
        Ok(())
    }
}

/// A sink that returns the outcomes in `answers`, and after these takes every alert.
#[derive(Clone, Default)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<Outcome>>>,
    taken: Arc<Mutex<Vec<Alert>>>,
}

impl Scripted {
    fn titles(&self) -> Vec<String> {
        self.taken.lock().expect("no panic holds it").iter().map(|alert| alert.message.clone()).collect()
    }

    fn wait(&self, count: usize) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(20);
        while self.titles().len() < count {
            assert!(Instant::now() < until, "{:?}", self.titles());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.titles()
    }
}

impl Sink for Scripted {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        let answer = |alert: &Arc<Alert>| {
            let next = self.answers.lock().expect("no panic holds it").pop_front();
            let outcome = next.unwrap_or(Outcome::Taken);
            if outcome == Outcome::Taken {
                self.taken.lock().expect("no panic holds it").push(alert.as_ref().clone());
            }
            outcome
        };
        alerts.iter().map(answer).collect()
    }

    fn batch_max(&self) -> usize {
        4
    }
}

fn start(folder: &Path, sink: &Scripted, heartbeat: Duration, history: &Arc<Sealed>) -> Sinks {
    let options = OutboxOptions {
        folder: folder.join("outbox"),
        bytes_max: 1 << 30,
        group: Duration::ZERO,
        severity: Severity::Low,
    };
    let options_of_sink = SinkOptions { name: "s".to_owned(), severity: Severity::Low, heartbeat };
    let history = Arc::clone(history) as Arc<dyn History>;
    Sinks::start(options, vec![(options_of_sink, Box::new(sink.clone()))], history).expect("an outbox")
}

fn messages(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| alert(number).message).collect()
}

#[test]
fn an_alert_is_not_sent_again_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sink, history) = (Scripted::default(), Arc::<Sealed>::default());
    for round in 0..3 {
        let sinks = start(folder.path(), &sink, Duration::ZERO, &history);
        for number in 0..10 * (round + 1) {
            assert!(sinks.hand_over(&alert(number)));
            assert!(sinks.hand_over(&alert(number)), "the second is a duplicate");
        }
        assert!(sinks.finish());
    }
    assert_eq!(sink.titles(), messages(0..30));
}

#[test]
fn an_alert_that_was_sealed_and_never_handed_over_comes_from_the_archive() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sink, history) = (Scripted::default(), Arc::<Sealed>::default());
    // A new outbox does not send old alerts.
    history.seal(1);
    let sinks = start(folder.path(), &sink, Duration::ZERO, &history);
    sinks.hand_over(&alert(2));
    sinks.sealed(&history.seal(2));
    assert!(sinks.finish());
    history.seal(3);
    history.seal(4);
    let sinks = start(folder.path(), &sink, Duration::ZERO, &history);
    assert_eq!(sink.wait(3), messages(2..5));
    assert!(sinks.finish());
    let sinks = start(folder.path(), &sink, Duration::ZERO, &history);
    std::thread::sleep(Duration::from_millis(500));
    assert!(sinks.finish());
    assert_eq!(sink.titles(), messages(2..5));
}

#[test]
fn an_alert_that_is_refused_is_a_dead_letter_and_one_that_waits_comes_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sink, history) = (Scripted::default(), Arc::<Sealed>::default());
    let refused = Outcome::Refused { reason: "bad".to_owned() };
    let later = Outcome::Later { reason: "busy".to_owned(), after: Some(Duration::from_millis(10)) };
    sink.answers.lock().expect("no panic holds it").extend([later, refused]);
    let sinks = start(folder.path(), &sink, Duration::ZERO, &history);
    let counters = sinks.counters();
    for number in 0..6 {
        sinks.hand_over(&alert(number));
    }
    let mut taken = sink.wait(5);
    assert!(sinks.finish());
    taken.sort();
    let dead = std::fs::read_to_string(folder.path().join("outbox/s.dead.jsonl")).expect("a letter");
    let lost: Vec<String> = messages(0..6).into_iter().filter(|message| !taken.contains(message)).collect();
    assert_eq!(lost.len(), 1);
    assert!(
        dead.lines().count() == 1 && dead.contains(&lost[0]) && dead.contains("\"reason\":\"bad\""),
        "{dead}"
    );
    assert!(counters[0].1.failures.load(std::sync::atomic::Ordering::Relaxed) >= 1);
}

#[test]
fn silence_is_broken_by_a_heartbeat() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sink, history) = (Scripted::default(), Arc::<Sealed>::default());
    let sinks = start(folder.path(), &sink, Duration::from_millis(200), &history);
    sink.wait(2);
    assert!(sinks.finish());
    let taken = sink.taken.lock().expect("no panic holds it");
    assert!(taken.iter().all(|alert| alert.rule_id == own::HEARTBEAT));
    assert_ne!(taken[0].alert_id, taken[1].alert_id);
}

#[test]
fn a_damaged_position_skips_no_alert() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sink, history) = (Scripted::default(), Arc::<Sealed>::default());
    let sinks = start(folder.path(), &sink, Duration::ZERO, &history);
    sinks.hand_over(&alert(1));
    assert!(sinks.finish());
    std::fs::write(folder.path().join("outbox/s.position"), b"{\"next\":").expect("written");
    let sinks = start(folder.path(), &sink, Duration::ZERO, &history);
    assert_eq!(sink.wait(2), messages([1, 1]));
    assert!(sinks.finish());
}
