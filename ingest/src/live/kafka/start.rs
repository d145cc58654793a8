//! With which message a partition goes on.
//!
//! Invariant: messages that the archive does not have are passed over only where [`OnGap::Continue`] or
//! [`Start::Latest`] says so.

use super::{OnGap, Start};

/// The messages that a broker has: from `low` on, up to and without `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub low: i64,
    pub high: i64,
}

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    At(i64),
    /// Behind messages that are gone; the text says which.
    Behind(i64, String),
    /// Not at all; the text says why.
    Stand(String),
}

/// Decides for a partition, `label` to people, whose next message is `wanted`, or of which the archive has
/// nothing.
pub(super) fn decide(label: &str, wanted: Option<i64>, log: Log, start: Start, on_gap: OnGap) -> Decision {
    let Log { low, high } = log;
    let Some(wanted) = wanted else {
        return Decision::At(match start {
            Start::Earliest => low,
            Start::Latest => high,
        });
    };
    let lost = if wanted < low {
        format!(
            "{label}: {} messages are lost: the archive goes on with offset {wanted}, the broker's first is {low}",
            low.abs_diff(wanted)
        )
    } else if wanted > high {
        format!(
            "{label}: the archive goes on with offset {wanted}, but the broker's log ends at {high}: the topic was \
             created anew, or has lost its end"
        )
    } else {
        return Decision::At(wanted);
    };
    match on_gap {
        OnGap::Continue => Decision::Behind(low, lost),
        OnGap::Stop => Decision::Stand(format!(
            "{lost}; to go on with offset {low} and leave the gap, set on_gap = \"continue\" and restart"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Log = Log { low: 10, high: 20 };

    fn decided(wanted: Option<i64>, start: Start, on_gap: OnGap) -> Decision {
        decide("t[3]", wanted, LOG, start, on_gap)
    }

    #[test]
    fn a_new_partition_begins_where_it_is_told() {
        for on_gap in [OnGap::Stop, OnGap::Continue] {
            assert_eq!(decided(None, Start::Earliest, on_gap), Decision::At(10));
            assert_eq!(decided(None, Start::Latest, on_gap), Decision::At(20));
        }
    }

    #[test]
    fn a_known_one_goes_on_where_it_was() {
        for start in [Start::Earliest, Start::Latest] {
            for wanted in [10, 15, 20] {
                assert_eq!(decided(Some(wanted), start, OnGap::Stop), Decision::At(wanted));
                assert_eq!(decided(Some(wanted), start, OnGap::Continue), Decision::At(wanted));
            }
        }
    }

    #[test]
    fn what_is_lost_is_said() {
        let hint = "; to go on with offset 10 and leave the gap, set on_gap = \"continue\" and restart";
        let gone = "t[3]: 7 messages are lost: the archive goes on with offset 3, the broker's first is 10";
        assert_eq!(decided(Some(3), Start::Latest, OnGap::Stop), Decision::Stand(format!("{gone}{hint}")));
        assert_eq!(decided(Some(3), Start::Latest, OnGap::Continue), Decision::Behind(10, gone.to_owned()));
        let beyond = "t[3]: the archive goes on with offset 21, but the broker's log ends at 20: the topic was \
                      created anew, or has lost its end";
        assert_eq!(decided(Some(21), Start::Latest, OnGap::Stop), Decision::Stand(format!("{beyond}{hint}")));
        assert_eq!(
            decided(Some(21), Start::Earliest, OnGap::Continue),
            Decision::Behind(10, beyond.to_owned())
        );
    }
}
