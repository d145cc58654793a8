//! Groups of alerts of one kind: the first alert is sent at once, and the other alerts are counted
//! in a summary.
//!
//! Invariants:
//! - The first alert of a group is never held back, and every alert held back is counted in a later
//!   summary. The log records which alerts are held back, so the count survives a crash.
//! - The summary's id is derived from the first alert's id, so a summary that is made twice is one
//!   alert for its receiver.
//! - Strongroom's alerts about itself are never held back. While [`GROUPS_MAX`] groups are open,
//!   alerts of other groups are sent singly.
//!
//! The alerts of a group have the same rule, the same cluster, and the same `group_key` of a
//! correlation. Alerts of rules over single events have no `group_key`; they have the same actor,
//! verb, and object instead. A group stays open for a fixed time after its first alert.

use std::collections::HashMap;
use std::time::Duration;

use strongroom_alerts::ALERT_NAMESPACE;
use strongroom_schemas::alert::AUDIT_IDS_MAX;
use strongroom_schemas::{Alert, Touched};
use uuid::Uuid;

use super::log::{Entry, Record};

/// Maximum number of groups that are open at the same time.
pub const GROUPS_MAX: usize = 10_000;

#[derive(Debug)]
struct Group {
    first: Alert,
    /// Number of the first alert's record, once it is durable.
    number: Option<u64>,
    opened_ms: u64,
    held: u64,
    audit_ids: Vec<String>,
    /// True while its summary is being written.
    closing: bool,
}

#[derive(Debug)]
pub(super) struct Groups {
    time_ms: u64,
    open: HashMap<[u8; 32], Group>,
    /// Key of each group, by the id of its first alert.
    firsts: HashMap<String, [u8; 32]>,
}

impl Groups {
    pub(super) fn new(time: Duration) -> Groups {
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Groups { time_ms, open: HashMap::new(), firsts: HashMap::new() }
    }

    /// Returns the log's entry for a new alert.
    pub(super) fn take(&mut self, alert: Box<Alert>, now_ms: u64) -> Entry {
        if self.time_ms == 0 || !is_grouped(&alert) {
            return Entry::Alert(alert);
        }
        let key = key(&alert);
        match self.open.get_mut(&key) {
            Some(group) if now_ms < group.opened_ms.saturating_add(self.time_ms) => {
                let audit_id = alert.event.audit_id.clone();
                hold(group, &audit_id);
                Entry::Held { alert_id: alert.alert_id, first: group.first.alert_id.clone(), audit_id }
            }
            // The group's time is up, but its summary, which no longer changes, is not durable yet.
            // So this alert is sent.
            Some(_) => Entry::Alert(alert),
            None => {
                self.begin(key, &alert, None, now_ms);
                Entry::Alert(alert)
            }
        }
    }

    fn begin(&mut self, key: [u8; 32], alert: &Alert, number: Option<u64>, opened_ms: u64) {
        if self.open.len() >= GROUPS_MAX {
            return;
        }
        self.firsts.insert(alert.alert_id.clone(), key);
        let first = alert.clone();
        self.open
            .insert(key, Group { first, number, opened_ms, held: 0, audit_ids: Vec::new(), closing: false });
    }

    /// Closes the groups whose time is up, and returns the summaries of the closed groups that held
    /// alerts back.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Entry> {
        let time_ms = self.time_ms;
        let is_due = |group: &Group| now_ms >= group.opened_ms.saturating_add(time_ms);
        let empty = self.open.extract_if(|_, group| is_due(group) && group.held == 0);
        for (_, group) in empty {
            self.firsts.remove(&group.first.alert_id);
        }
        let mut summaries = Vec::new();
        for group in self.open.values_mut().filter(|group| is_due(group) && !group.closing) {
            // The group is removed when its summary is durable.
            group.closing = true;
            let first = group.first.alert_id.clone();
            summaries.push(Entry::Summary { first, alert: Box::new(summary(group, time_ms)) });
        }
        summaries
    }

    /// Notes the record numbers of first alerts, because the log keeps these records while their
    /// groups are open. Closes the groups whose summaries are durable.
    pub(super) fn stored(&mut self, entries: &[Entry], first_number: u64) {
        for (number, entry) in (first_number..).zip(entries) {
            match entry {
                Entry::Alert(alert) => {
                    if let Some(group) =
                        self.firsts.get(&alert.alert_id).and_then(|key| self.open.get_mut(key))
                    {
                        group.number = Some(number);
                    }
                }
                Entry::Summary { first, .. } => self.close(first),
                Entry::Held { .. } | Entry::Mark(_) => {}
            }
        }
    }

    /// Undoes what was noted for entries that could not be made durable. Their alerts are read from
    /// the archive later, and their summaries become due again.
    pub(super) fn not_stored(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry {
                Entry::Alert(alert) => self.close(&alert.alert_id),
                Entry::Held { first, .. } => {
                    if let Some(group) = self.firsts.get(first).and_then(|key| self.open.get_mut(key)) {
                        group.held -= 1;
                    }
                }
                Entry::Summary { first, .. } => {
                    if let Some(group) = self.firsts.get(first).and_then(|key| self.open.get_mut(key)) {
                        group.closing = false;
                    }
                }
                Entry::Mark(_) => {}
            }
        }
    }

    /// Updates the open groups from a record that is read from the log at the start.
    pub(super) fn replay(&mut self, record: &Record) {
        if self.time_ms == 0 {
            return;
        }
        match &record.entry {
            Entry::Alert(alert) if is_grouped(alert) => {
                let key = key(alert);
                let is_open = self
                    .open
                    .get(&key)
                    .is_some_and(|group| record.time_ms < group.opened_ms.saturating_add(self.time_ms));
                if !is_open && self.open.get(&key).is_none_or(|group| group.held == 0) {
                    if let Some(group) = self.open.remove(&key) {
                        self.firsts.remove(&group.first.alert_id);
                    }
                    self.begin(key, alert, Some(record.number), record.time_ms);
                }
            }
            Entry::Held { first, audit_id, .. } => {
                if let Some(group) = self.firsts.get(first).and_then(|key| self.open.get_mut(key)) {
                    hold(group, audit_id);
                }
            }
            Entry::Summary { first, .. } => self.close(first),
            Entry::Alert(_) | Entry::Mark(_) => {}
        }
    }

    fn close(&mut self, first: &str) {
        if let Some(key) = self.firsts.remove(first) {
            self.open.remove(&key);
        }
    }

    /// Returns the number of the oldest record that an open group needs.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.open.values().filter_map(|group| group.number).min()
    }
}

fn hold(group: &mut Group, audit_id: &str) {
    group.held += 1;
    if group.audit_ids.len() < AUDIT_IDS_MAX && !audit_id.is_empty() {
        group.audit_ids.push(audit_id.to_owned());
    }
}

/// Whether an alert can be grouped. Alerts of rules can; Strongroom's alerts about itself cannot.
fn is_grouped(alert: &Alert) -> bool {
    !strongroom_alerts::own::is_own(&alert.rule_id)
}

fn key(alert: &Alert) -> [u8; 32] {
    let event = &alert.event;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let single = [
        event.actor.clone(),
        text(&event.verb),
        text(&event.api_group),
        text(&event.resource),
        text(&event.subresource),
        text(&event.namespace),
        text(&event.name),
    ];
    let mut hasher = blake3::Hasher::new();
    let parts = [&alert.rule_id, &event.cluster, &alert.group_key].into_iter();
    let parts = parts.chain(single.iter().filter(|_| alert.group_key.is_empty()));
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn summary(group: &Group, time_ms: u64) -> Alert {
    let first = &group.first;
    let name = [first.alert_id.as_bytes(), b"\0summary"].concat();
    let seconds = time_ms / 1000;
    Alert {
        alert_id: Uuid::new_v5(&ALERT_NAMESPACE, &name).to_string(),
        title: format!("{} (and {} more)", first.title, group.held),
        message: format!(
            "{} more alerts like {} within {seconds} s: {}",
            group.held, first.alert_id, first.message
        ),
        event_count: group.held,
        audit_ids: group.audit_ids.clone(),
        // The namespaces and users of the held alerts are not stored, so the summary may be about
        // any of them.
        touched: Touched::any(),
        ..first.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::alert;

    fn of(name: &str, number: u64) -> Box<Alert> {
        let mut alert = alert(number);
        alert.event.name = Some(name.to_owned());
        Box::new(alert)
    }

    #[test]
    fn the_first_alert_is_sent_and_the_others_are_counted() {
        let mut groups = Groups::new(Duration::from_secs(60));
        assert!(matches!(groups.take(of("a", 1), 1_000), Entry::Alert(_)));
        assert!(matches!(groups.take(of("b", 2), 1_000), Entry::Alert(_)), "another group");
        for number in 3..10 {
            let Entry::Held { first, .. } = groups.take(of("a", number), 2_000) else { panic!("not held") };
            assert_eq!(first, alert(1).alert_id);
        }
        assert!(groups.due(60_999).is_empty());
        let due = groups.due(61_000);
        let [Entry::Summary { first, alert: summary }] = &due[..] else { panic!("{due:?}") };
        assert_eq!((first.as_str(), summary.event_count), (alert(1).alert_id.as_str(), 7));
        assert!(summary.title.ends_with("(and 7 more)") && summary.alert_id != *first);
        assert!(matches!(groups.take(of("a", 10), 61_001), Entry::Alert(_)), "a new group begins");
    }

    #[test]
    fn a_restart_continues_the_count_and_makes_the_same_summary() {
        let (mut groups, mut again) =
            (Groups::new(Duration::from_secs(60)), Groups::new(Duration::from_secs(60)));
        for number in 1..6 {
            let entry = groups.take(of("a", number), 1_000);
            groups.stored(std::slice::from_ref(&entry), number);
            again.replay(&Record { number, time_ms: 1_000, entry });
        }
        assert_eq!((groups.oldest(), again.oldest()), (Some(1), Some(1)));
        assert_eq!(groups.due(61_000), again.due(61_000));
        assert!(again.due(u64::MAX).is_empty());
    }

    #[test]
    fn an_alert_that_could_not_be_stored_leaves_no_trace() {
        let mut groups = Groups::new(Duration::from_secs(60));
        let first = groups.take(of("a", 1), 1_000);
        groups.not_stored(&[first]);
        let first = groups.take(of("a", 1), 1_000);
        assert!(matches!(first, Entry::Alert(_)));
        let held = groups.take(of("a", 2), 1_000);
        groups.not_stored(&[held]);
        groups.take(of("a", 2), 1_000);
        let due = groups.due(61_000);
        assert!(groups.due(61_000).is_empty(), "while the summary is being written, it is not due again");
        groups.not_stored(&due);
        let again = groups.due(61_000);
        assert!(matches!(&again[..], [Entry::Summary { alert, .. }] if alert.event_count == 1), "{again:?}");
    }
}
