//! Generates audit logs of an invented cluster. They are deterministic, have byte for byte the form
//! of kube-apiserver's log backend, and contain planted attacks on request.
//!
//! ```
//! use strongroom_generate::{Generator, GeneratorOptions};
//!
//! let options = GeneratorOptions { events: 3, ..GeneratorOptions::default() };
//! let mut generator = Generator::new(options)?;
//! let mut log = Vec::new();
//! while generator.next_line(&mut log) {}
//! assert_eq!(log.iter().filter(|&&byte| byte == b'\n').count(), 3);
//! assert!(log.starts_with(br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"#));
//! # Ok::<(), strongroom_generate::OptionsError>(())
//! ```
//!
//! Invariant: the log is a function of [`GeneratorOptions`] alone. The same options give the same
//! bytes on every machine, so a test or a measurement can name its input by its seed. The
//! background is the same with and without attacks; the lines of the attacks are inserted into it.
//! No IO happens here.
//!
//! [`dialect`] renders an event as clouds, shippers and other tools put it on the wire. [`hostile`]
//! makes events of a client whose text looks like a log.
//!
//! `line` decides the form of the lines (field order), and `go` the escaping. `traffic` decides how
//! often each activity happens, and says why. `attacks` has the planted stories.

mod attacks;
mod bodies;
mod cluster;
pub mod dialect;
mod go;
pub mod hostile;
mod line;
mod random;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use thiserror::Error;

pub use attacks::PlantedAttack;

use cluster::Cluster;
use random::Random;
use traffic::World;

/// Mean length of a line in bytes, newline included; a test compares it with the generated log.
pub const LINE_BYTES_MEAN: u64 = 1_210;
/// Minimum number of events in a log with attacks, which leaves room for a background around them.
pub const ATTACK_EVENTS_MIN: u64 = 2_000;
/// Minimum timespan of a log with attacks, because the steps of attacks take time. If the log would
/// be shorter, its rate is lowered.
pub const ATTACK_SPAN_MIN_SECONDS: u64 = 4 * 3_600;
/// Maximum number of nodes in a simulated cluster; it is the limit of Kubernetes itself.
pub const NODES_MAX: u32 = 5_000;
/// Maximum number of events per second.
pub const RATE_MAX: f64 = 100_000.0;
/// The default start: midnight of Monday, 2 March 2026. It is fixed, so that the log does not
/// depend on when it is generated.
pub const START_DEFAULT_SECONDS: i64 = 1_772_409_600;

/// All inputs of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorOptions {
    pub seed: u64,
    /// Number of lines in the log, attacks included.
    pub events: u64,
    /// Whether to plant attacks.
    pub attacks: bool,
    /// Time of the first event.
    pub start: DateTime<Utc>,
    /// Mean number of events per second.
    pub rate: f64,
    /// Number of nodes in the cluster.
    pub nodes: u32,
}

impl Default for GeneratorOptions {
    fn default() -> GeneratorOptions {
        GeneratorOptions {
            seed: 1,
            events: 100_000,
            attacks: false,
            start: DateTime::from_timestamp(START_DEFAULT_SECONDS, 0).expect("a time in 2026"),
            rate: 12.0,
            nodes: 24,
        }
    }
}

/// Why options are refused.
#[derive(Debug, Error, PartialEq)]
pub enum OptionsError {
    #[error("{events} events are too few to plant attacks in; at least {ATTACK_EVENTS_MIN} are needed")]
    TooFewForAttacks { events: u64 },
    #[error("a rate of {rate} events a second is not in 0.001 to {RATE_MAX}")]
    Rate { rate: f64 },
    #[error("{nodes} nodes are not in 1 to {NODES_MAX}")]
    Nodes { nodes: u32 },
    #[error("a log of {events} events from {start} on ends after the year 9999")]
    Span { events: u64, start: DateTime<Utc> },
}

/// Generates the log, line by line.
///
/// It holds in memory the cluster (a few hundred KiB) and the lines that belong later in the log,
/// which are at most the ends of the watches that started within ten minutes (some 5 % of the
/// events of that time).
pub struct Generator {
    world: World,
    events: u64,
    emitted: u64,
    /// Time of the next activity.
    next_us: i64,
    /// The time between two activities is drawn uniformly from 0 to this maximum.
    gap_us_max: u64,
    planted: VecDeque<(i64, Vec<u8>)>,
    ground_truth: Vec<PlantedAttack>,
}

impl Generator {
    /// Draws the cluster and, on request, renders the attacks.
    ///
    /// # Errors
    /// [`OptionsError`] if an option is outside its bounds.
    pub fn new(options: GeneratorOptions) -> Result<Generator, OptionsError> {
        let GeneratorOptions { seed, events, attacks, start, rate, nodes } = options;
        if attacks && events < ATTACK_EVENTS_MIN {
            return Err(OptionsError::TooFewForAttacks { events });
        }
        if !(0.001..=RATE_MAX).contains(&rate) {
            return Err(OptionsError::Rate { rate });
        }
        if !(1..=NODES_MAX).contains(&nodes) {
            return Err(OptionsError::Nodes { nodes });
        }
        let mut event_us = (1_000_000.0 / rate).round() as u64;
        if attacks {
            event_us = event_us.max(ATTACK_SPAN_MIN_SECONDS * 1_000_000 / events);
        }
        let event_us = event_us.max(1);
        let start_us = start.timestamp_micros();
        // The end is computed with twice the expected span, because the drawn times may add up to
        // more.
        let end_us = events
            .checked_mul(event_us)
            .and_then(|span| span.checked_mul(2))
            .and_then(|span| i64::try_from(span).ok().and_then(|span| start_us.checked_add(span)));
        const YEAR_10000_US: i64 = 253_402_300_800_000_000;
        if start_us < 0 || end_us.is_none_or(|end| end >= YEAR_10000_US) {
            return Err(OptionsError::Span { events, start });
        }

        let cluster = Cluster::new(&mut Random::new(seed), nodes);
        let (planted, ground_truth) = if attacks {
            let span_us = i64::try_from(events * event_us).expect("checked above with twice the span");
            attacks::plant(&cluster, seed, start_us, span_us)
        } else {
            Default::default()
        };
        Ok(Generator {
            world: World::new(cluster, Random::new(seed ^ 0x5bd1_e995_9e37_79b9)),
            events,
            emitted: 0,
            next_us: start_us,
            gap_us_max: 2 * event_us * traffic::EVENTS_PER_100_ACTIVITIES / 100,
            planted: planted.into(),
            ground_truth,
        })
    }

    /// Appends the next line, newline included, and returns true. If all lines were written,
    /// appends nothing and returns false.
    pub fn next_line(&mut self, out: &mut Vec<u8>) -> bool {
        let left = self.events - self.emitted;
        if left == 0 {
            return false;
        }
        self.emitted += 1;
        let queued = self.world.queue.due().unwrap_or(i64::MAX);
        let planted = self.planted.front().map_or(i64::MAX, |(at, _)| *at);
        // All attacks must be written, so the background ends when only their lines still fit.
        let attack_is_next = left <= self.planted.len() as u64 || planted <= queued.min(self.next_us);
        if attack_is_next && let Some((_, line)) = self.planted.pop_front() {
            out.extend_from_slice(&line);
            return true;
        }
        if queued <= self.next_us {
            self.world.queue.pop(out);
        } else {
            self.world.act(self.next_us, out);
            self.next_us += self.world.random.below(self.gap_us_max + 1) as i64;
        }
        true
    }

    /// Returns the planted attacks, in order of time; none if the options ask for no attacks.
    pub fn ground_truth(&self) -> &[PlantedAttack] {
        &self.ground_truth
    }

    /// Returns the number of lines that were written.
    pub fn emitted(&self) -> u64 {
        self.emitted
    }
}
