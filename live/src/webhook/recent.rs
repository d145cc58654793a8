//! Remembers which batches were acknowledged recently, so that a repeated batch is not stored
//! again.
//!
//! The API server sends a batch again, byte for byte, if it did not receive the answer. It does so
//! up to some sixteen minutes later if an earlier answer asked it to wait. Two batches are the same
//! if they have the same path and the same bytes in their bodies. `auditID` is not compared,
//! because clients choose it.
//!
//! Invariants:
//! - A key (the hash by which a batch is recognised) counts as acknowledged only when its record is
//!   durable. If a batch arrives while the same batch is being written, its sender waits and gets
//!   the same answer.
//! - A batch is forgotten when it is too old, or when too many others were acknowledged after it. A
//!   forgotten batch that is sent again is stored again: the bounds can cause duplicates, never a
//!   loss.
//!
//! After a crash the log says what was acknowledged.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;

use super::record::Key;
use super::refused::Refused;

/// The outcome of writing a batch; `None` until it is known.
pub type Outcome = Option<Result<(), Refused>>;

#[derive(Debug)]
enum Known {
    Writing(watch::Receiver<Outcome>),
    Acknowledged,
}

/// What [`Recent::look_up`] knows of a batch that has arrived.
#[derive(Debug)]
pub enum Lookup {
    /// The batch is new. The caller writes it, and reports the outcome to [`Recent::settle`] and to
    /// this sender.
    New(watch::Sender<Outcome>),
    /// The batch is being written. The receiver gets the outcome.
    Writing(watch::Receiver<Outcome>),
    /// The batch was acknowledged before.
    Acknowledged,
}

#[derive(Debug)]
pub struct Recent {
    known: HashMap<Key, Known>,
    /// Acknowledged keys with the time of their arrival, in the order of acknowledgement.
    order: VecDeque<(Key, u64)>,
    entries_max: usize,
    age_max: u64,
}

impl Recent {
    pub fn new(entries_max: usize, age_max: Duration) -> Self {
        let age_max = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
        Recent { known: HashMap::new(), order: VecDeque::new(), entries_max, age_max }
    }

    /// Whether a batch that arrived at the time `received` is still remembered at the time `now`.
    pub fn remembers(&self, received: u64, now: u64) -> bool {
        now.saturating_sub(received) <= self.age_max
    }

    pub fn look_up(&mut self, key: Key, now: u64) -> Lookup {
        self.forget(now);
        match self.known.get(&key) {
            Some(Known::Writing(outcome)) => Lookup::Writing(outcome.clone()),
            Some(Known::Acknowledged) => Lookup::Acknowledged,
            None => {
                let (sender, receiver) = watch::channel(None);
                self.known.insert(key, Known::Writing(receiver));
                Lookup::New(sender)
            }
        }
    }

    /// Notes whether a batch has become durable.
    pub fn settle(&mut self, key: Key, durable: bool, received: u64) {
        self.known.remove(&key);
        if durable {
            self.remember(key, received);
        }
    }

    /// Adds a batch that an earlier process acknowledged.
    pub fn remember(&mut self, key: Key, received: u64) {
        if self.entries_max > 0 && self.known.insert(key, Known::Acknowledged).is_none() {
            self.order.push_back((key, received));
            if self.order.len() > self.entries_max {
                self.forget_oldest();
            }
        }
    }

    fn forget(&mut self, now: u64) {
        while self.order.front().is_some_and(|(_, received)| now.saturating_sub(*received) > self.age_max) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, _)) = self.order.pop_front() {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        [number; 32]
    }

    #[test]
    fn a_batch_is_known_from_its_acknowledgement_on() {
        let mut recent = Recent::new(9, Duration::from_millis(100));
        let Lookup::New(sender) = recent.look_up(key(1), 0) else { panic!("it is new") };
        let Lookup::Writing(waiting) = recent.look_up(key(1), 1) else { panic!("it is being written") };
        recent.settle(key(1), true, 0);
        sender.send_replace(Some(Ok(())));
        assert_eq!(*waiting.borrow(), Some(Ok(())));
        assert!(matches!(recent.look_up(key(1), 100), Lookup::Acknowledged));
        assert!(matches!(recent.look_up(key(1), 101), Lookup::New(_)), "forgotten for its age");
    }

    #[test]
    fn what_was_not_written_is_new_again() {
        let mut recent = Recent::new(9, Duration::from_secs(1));
        assert!(matches!(recent.look_up(key(1), 0), Lookup::New(_)));
        recent.settle(key(1), false, 0);
        assert!(matches!(recent.look_up(key(1), 0), Lookup::New(_)));
    }

    #[test]
    fn the_number_is_bounded() {
        let mut recent = Recent::new(2, Duration::from_secs(1));
        for number in 1..=3 {
            recent.remember(key(number), 0);
        }
        recent.remember(key(3), 0);
        assert_eq!(recent.order.len(), 2);
        assert!(matches!(recent.look_up(key(1), 0), Lookup::New(_)));
        assert!(matches!(recent.look_up(key(2), 0), Lookup::Acknowledged));
        assert!(matches!(recent.look_up(key(3), 0), Lookup::Acknowledged));
        let mut none = Recent::new(0, Duration::from_secs(1));
        none.remember(key(1), 0);
        assert!(matches!(none.look_up(key(1), 0), Lookup::New(_)));
    }
}
