//! Decides at which message a partition continues.
//!
//! Invariant: messages that the archive does not have are skipped only if [`OnGap::Continue`] or
//! [`Start::Latest`] says so. Nothing is kept here.

use super::{OnGap, Start};

/// The messages that a broker has: from `low` on, up to but excluding `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogRange {
    pub low: i64,
    pub high: i64,
}

/// Where a partition continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    At(i64),
    /// At this number, after messages that are gone. The text says which.
    AfterGap(i64, String),
    /// Nowhere. The text says why.
    Blocked(String),
}

/// Decides where the partition `label` continues. `wanted` is its next message; `None` if the
/// archive has nothing of it.
pub(super) fn decide(
    label: &str,
    wanted: Option<i64>,
    log: LogRange,
    start: Start,
    on_gap: OnGap,
) -> Decision {
    let LogRange { low, high } = log;
    let Some(wanted) = wanted else {
        return Decision::At(match start {
            Start::Earliest => low,
            Start::Latest => high,
        });
    };
    let lost = if wanted < low {
        format!(
            "{label}: {} messages are lost: the archive continues at offset {wanted}, but the broker's first is {low}",
            low.abs_diff(wanted)
        )
    } else if wanted > high {
        format!(
            "{label}: the archive continues at offset {wanted}, but the broker's log ends at {high}: the topic was \
             created again, or has lost its end"
        )
    } else {
        return Decision::At(wanted);
    };
    match on_gap {
        OnGap::Continue => Decision::AfterGap(low, lost),
        OnGap::Stop => Decision::Blocked(format!(
            "{lost}; to continue at offset {low} and accept the gap, set on_gap = \"continue\" and restart"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogRange = LogRange { low: 10, high: 20 };

    fn decided(wanted: Option<i64>, start: Start, on_gap: OnGap) -> Decision {
        decide("t[3]", wanted, LOG, start, on_gap)
    }

    #[test]
    fn a_new_partition_starts_where_it_is_configured() {
        for on_gap in [OnGap::Stop, OnGap::Continue] {
            assert_eq!(decided(None, Start::Earliest, on_gap), Decision::At(10));
            assert_eq!(decided(None, Start::Latest, on_gap), Decision::At(20));
        }
    }

    #[test]
    fn a_known_one_continues_where_it_was() {
        for start in [Start::Earliest, Start::Latest] {
            for wanted in [10, 15, 20] {
                assert_eq!(decided(Some(wanted), start, OnGap::Stop), Decision::At(wanted));
                assert_eq!(decided(Some(wanted), start, OnGap::Continue), Decision::At(wanted));
            }
        }
    }

    #[test]
    fn a_loss_is_reported() {
        let hint = "; to continue at offset 10 and accept the gap, set on_gap = \"continue\" and restart";
        let gone =
            "t[3]: 7 messages are lost: the archive continues at offset 3, but the broker's first is 10";
        assert_eq!(decided(Some(3), Start::Latest, OnGap::Stop), Decision::Blocked(format!("{gone}{hint}")));
        assert_eq!(decided(Some(3), Start::Latest, OnGap::Continue), Decision::AfterGap(10, gone.to_owned()));
        let beyond = "t[3]: the archive continues at offset 21, but the broker's log ends at 20: the topic was \
                      created again, or has lost its end";
        assert_eq!(
            decided(Some(21), Start::Latest, OnGap::Stop),
            Decision::Blocked(format!("{beyond}{hint}"))
        );
        assert_eq!(
            decided(Some(21), Start::Earliest, OnGap::Continue),
            Decision::AfterGap(10, beyond.to_owned())
        );
    }
}
