//! The system's clock, watched for steps.
//!
//! Invariant: a step is told once. Nothing is decided by it: volumes only go forward, whatever the clock says, and a
//! bucket's retention is reckoned from the store's own time. But times of arrival written meanwhile are wrong, and
//! who reads them years later should find the reason in the log.

use std::time::{Duration, Instant, SystemTime};

/// Difference between the clock and the time that went by from which on it is a step: more than is slewed or lost in
/// a pause of the machine.
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

    /// The step since the last look, if there was one.
    pub fn look(&mut self) -> Option<Step> {
        self.look_at(SystemTime::now(), Instant::now())
    }

    fn look_at(&mut self, clock: SystemTime, time: Instant) -> Option<Step> {
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
    fn tells_a_step_once() {
        let mut watch = ClockWatch::new();
        let (clock, time) = (watch.clock, watch.time);
        let second = Duration::from_secs(1);
        assert_eq!(watch.look_at(clock + second, time + second), None);
        assert_eq!(watch.look_at(clock - 3600 * second, time + second), Some(Step::Back(3601 * second)));
        assert_eq!(watch.look_at(clock - 3600 * second, time + second), None);
        assert_eq!(watch.look_at(clock, time + second), Some(Step::Ahead(3600 * second)));
        assert_eq!(watch.look_at(clock + 2 * second, time + 11 * second / 2), None);
    }
}
