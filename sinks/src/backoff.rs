//! Waits between attempts: each is twice as long as the one before, up to a bound.
//!
//! Invariant: a wait is never longer than the bound. State is lost in a crash, so attempts start
//! again with the first wait.

use std::time::Duration;

/// The wait before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    wait: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { first, max, wait: first }
    }

    pub const fn wait(&self) -> Duration {
        self.wait
    }

    /// Doubles the wait, after a failed attempt.
    pub fn double(&mut self) {
        self.wait = (self.wait * 2).min(self.max);
    }

    /// Starts again with the first wait, after a successful attempt.
    pub fn reset(&mut self) {
        self.wait = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits = std::iter::repeat_with(|| {
            let wait = backoff.wait().as_secs();
            backoff.double();
            wait
        });
        assert_eq!(waits.take(5).collect::<Vec<_>>(), [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.wait(), Duration::from_secs(1));
    }
}
