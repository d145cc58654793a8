//! Detects steps of the system's clock: moments at which it was set back or ahead.
//!
//! Invariant: each step is reported once. No decision depends on a step: volumes only go forward,
//! whatever the clock says, and a bucket's retention is computed from the store's own time. But a
//! step means that times of arrival before or after it are wrong. Whoever reads them years later
//! finds the reason in the log.

use std::time::{Duration, Instant, SystemTime};

/// Minimum difference between the clock and the time that has passed. A smaller difference is not a
/// step: slewing, or a pause of the machine, causes it.
const STEP_MIN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Back(Duration),
    Ahead(Duration),
}

#[derive(Debug)]
pub struct ClockWatch {
    clock: SystemTime,
    time: Instant,
}

impl ClockWatch {
    pub fn new() -> Self {
        ClockWatch { clock: SystemTime::now(), time: Instant::now() }
    }

    /// Returns the step since the last call, if there was one.
    pub fn step(&mut self) -> Option<Step> {
        self.step_at(SystemTime::now(), Instant::now())
    }

    fn step_at(&mut self, clock: SystemTime, time: Instant) -> Option<Step> {
        let expected = self.clock + time.saturating_duration_since(self.time);
        (self.clock, self.time) = (clock, time);
        let step = match clock.duration_since(expected) {
            Ok(ahead) => Step::Ahead(ahead),
            Err(back) => Step::Back(back.duration()),
        };
        match step {
            Step::Ahead(by) | Step::Back(by) if by < STEP_MIN => None,
            step => Some(step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_a_step_once() {
        let mut watch = ClockWatch::new();
        let (clock, time) = (watch.clock, watch.time);
        let second = Duration::from_secs(1);
        assert_eq!(watch.step_at(clock + second, time + second), None);
        assert_eq!(watch.step_at(clock - 3600 * second, time + second), Some(Step::Back(3601 * second)));
        assert_eq!(watch.step_at(clock - 3600 * second, time + second), None);
        assert_eq!(watch.step_at(clock, time + second), Some(Step::Ahead(3600 * second)));
        assert_eq!(watch.step_at(clock + 2 * second, time + 11 * second / 2), None);
    }
}
