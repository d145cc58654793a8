//! Lowers the level of alerts that are common in a cluster, and so mean less there.
//!
//! A count such as "fifteen Secrets in ten minutes" is remarkable in one cluster and the daily work
//! of hundreds of accounts in another. A rule with `common` names a number of alerts, a timespan
//! and a lower level. It alerts at its own level until it has alerted that often within the
//! timespan. Then its alerts have the lower level, until they are rare again.
//!
//! Invariant: an alert is never left out, and its id never changes; only its level and message do.
//! Times are event times. They are counted for each cluster, so a busy cluster does not lower
//! levels in another cluster. An alert that arrives late is compared with the alerts around its own
//! time. Bounds: [`ALERTS_MAX`] times for each pair of rule and cluster, and [`CLUSTERS_MAX`] such
//! pairs. A crash loses the times; replaying the events of [`crate::RuleSet::rebuild_span`]
//! restores them.

use std::collections::VecDeque;

use hashbrown::HashMap;
use strongroom_schemas::{Alert, Severity};

use crate::message;

/// Maximum of [`Common::alerts`].
pub(crate) const ALERTS_MAX: usize = 1000;
/// Maximum number of remembered pairs of rule and cluster. The pair that has alerted longest ago is
/// forgotten first.
const CLUSTERS_MAX: usize = 1 << 14;

/// When the alerts of a rule become common, and the level that they then have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Common {
    /// Number of alerts in a cluster within the timespan, after which more of them are common.
    pub alerts: usize,
    pub timespan_us: i64,
    pub level: Severity,
}

/// The times of the last alerts of rules with [`Common`], by rule and cluster.
#[derive(Debug, Default)]
pub(crate) struct Commons {
    times: HashMap<(String, String), VecDeque<i64>>,
    /// The pairs in order of their first alert.
    order: VecDeque<(String, String)>,
}

impl Commons {
    /// Counts an alert, and lowers its level if such alerts are common in its cluster.
    pub(crate) fn judge(&mut self, common: Common, alert: &mut Alert) {
        let key = (alert.rule_id.clone(), alert.event.cluster.clone());
        if !self.times.contains_key(&key) {
            if self.order.len() == CLUSTERS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.times.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        let times = self.times.entry(key).or_default();
        let near = |time_us: &&i64| time_us.abs_diff(alert.time_us) <= common.timespan_us.unsigned_abs();
        let is_common = times.iter().filter(near).count() >= common.alerts;
        let at = times.partition_point(|time_us| *time_us <= alert.time_us);
        times.insert(at, alert.time_us);
        if times.len() > common.alerts {
            times.pop_front();
        }
        if is_common && common.level < alert.severity {
            alert.severity = common.level;
            let timespan = message::timespan_text(common.timespan_us);
            let what = format!("; common here: {} or more such alerts within {timespan}", common.alerts);
            message::append(&mut alert.message, &what);
        }
    }
}

#[cfg(test)]
mod tests {
    use strongroom_schemas::{AlertEvent, Touched};

    use super::*;

    fn alert(rule: &str, cluster: &str, time_us: i64) -> Alert {
        Alert {
            alert_id: String::new(),
            rule_id: rule.to_owned(),
            rule_name: rule.to_owned(),
            title: String::new(),
            severity: Severity::High,
            time_us,
            window_start_us: time_us,
            window_end_us: time_us,
            group_key: String::new(),
            event_count: 1,
            audit_ids: Vec::new(),
            tactics: Vec::new(),
            techniques: Vec::new(),
            message: "m".to_owned(),
            next_steps: String::new(),
            event: AlertEvent { cluster: cluster.to_owned(), ..AlertEvent::default() },
            touched: Touched::default(),
        }
    }

    const COMMON: Common = Common { alerts: 2, timespan_us: 60_000_000, level: Severity::Low };

    #[test]
    fn the_third_alert_within_the_timespan_is_lowered_and_a_rare_one_is_not() {
        let mut commons = Commons::default();
        let mut level = |rule: &str, cluster: &str, seconds: i64| {
            let mut alert = alert(rule, cluster, seconds * 1_000_000);
            commons.judge(COMMON, &mut alert);
            assert_eq!(
                alert.severity == Severity::Low,
                alert.message.contains("common here: 2"),
                "{alert:?}"
            );
            alert.severity
        };
        let (high, low) = (Severity::High, Severity::Low);
        let levels = [0, 10, 20, 60, 81, 200, 201].map(|seconds| level("r", "c", seconds));
        assert_eq!(levels, [high, high, low, low, high, high, high]);
        assert_eq!(level("r", "other", 202), high, "another cluster");
        assert_eq!(level("other", "c", 202), high, "another rule");
        assert_eq!(level("r", "c", 202), low);
        // A late alert is compared with the alerts around its own time.
        assert_eq!([level("r", "c", 100), level("r", "c", 203)], [high, low]);
    }

    #[test]
    fn a_lower_level_stays() {
        let mut commons = Commons::default();
        for _ in 0..5 {
            let mut given = alert("r", "c", 0);
            given.severity = Severity::Informational;
            commons.judge(COMMON, &mut given);
            assert_eq!((given.severity, given.message.as_str()), (Severity::Informational, "m"));
        }
    }

    #[test]
    fn the_number_of_clusters_is_bounded() {
        let mut commons = Commons::default();
        for number in 0..CLUSTERS_MAX + 10 {
            for _ in 0..4 {
                commons.judge(COMMON, &mut alert("r", &number.to_string(), 0));
            }
        }
        assert_eq!((commons.times.len(), commons.order.len()), (CLUSTERS_MAX, CLUSTERS_MAX));
        assert!(commons.times.values().all(|times| times.len() <= COMMON.alerts));
    }
}
