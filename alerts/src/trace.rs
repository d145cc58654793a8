//! Traces. A trace has the names (namespace, users, cluster, source) that windows keep of an event,
//! so that an alert can say what its events touch.
//!
//! Invariant: events with the same namespace, users, cluster and source share one [`Trace`], so an
//! event in a window costs a pointer and an offset; a trace is removed some time after the last
//! window has forgotten its events. Traces never decide whether an alert is raised. State is lost
//! in a crash and rebuilt with the windows.

use std::sync::Arc;

use hashbrown::{Equivalent, HashSet};
use strongroom_schemas::Touch;
use strongroom_schemas::touched::{ANY, NAME_BYTES_MAX};

/// Minimum number of traces at which unused traces are removed.
const SWEEP_MIN: usize = 1024;

/// The owned form of a [`Touch`].
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Trace {
    namespace: Option<Box<str>>,
    actor: Box<str>,
    user_name: Box<str>,
    cluster: Box<str>,
    source: Box<str>,
}

impl Trace {
    pub(crate) fn touch(&self) -> Touch<'_> {
        Touch {
            namespace: self.namespace.as_deref(),
            actor: &self.actor,
            user_name: &self.user_name,
            cluster: &self.cluster,
            source: &self.source,
        }
    }
}

/// A key to look up the trace of a [`Touch`]. It has the hash of that [`Trace`], because both types
/// have the same fields in the same order.
#[derive(Hash)]
struct Key<'a>(Touch<'a>);

impl Equivalent<Arc<Trace>> for Key<'_> {
    fn equivalent(&self, trace: &Arc<Trace>) -> bool {
        self.0 == trace.touch()
    }
}

/// The traces of all remembered events.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    known: HashSet<Arc<Trace>>,
    /// The number of traces at which unused traces are removed next.
    sweep_at: usize,
    /// The trace of the previous event; the next event usually has the same trace.
    last: Option<Arc<Trace>>,
}

impl Traces {
    /// Returns the trace of an event.
    pub(crate) fn of(&mut self, touch: Touch<'_>) -> Arc<Trace> {
        let touch = shortened(touch);
        if let Some(last) = self.last.as_ref().filter(|last| last.touch() == touch) {
            return Arc::clone(last);
        }
        let trace = match self.known.get(&Key(touch)) {
            Some(known) => Arc::clone(known),
            None => {
                if self.known.len() >= self.sweep_at.max(SWEEP_MIN) {
                    self.known.retain(|trace| Arc::strong_count(trace) > 1);
                    self.sweep_at = self.known.len() * 2;
                }
                let trace = Arc::new(Trace {
                    namespace: touch.namespace.map(Box::from),
                    actor: touch.actor.into(),
                    user_name: touch.user_name.into(),
                    cluster: touch.cluster.into(),
                    source: touch.source.into(),
                });
                self.known.insert(Arc::clone(&trace));
                trace
            }
        };
        self.last = Some(Arc::clone(&trace));
        trace
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

/// Returns a touch in which names that are too long for an alert are replaced by the wildcard
/// [`ANY`]. In an alert such a name becomes the wildcard anyway, so it need not be kept.
fn shortened(touch: Touch<'_>) -> Touch<'_> {
    fn name(name: &str) -> &str {
        if name.len() > NAME_BYTES_MAX { ANY } else { name }
    }
    Touch {
        namespace: touch.namespace.map(name),
        actor: name(touch.actor),
        user_name: name(touch.user_name),
        cluster: name(touch.cluster),
        source: name(touch.source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch<'a>(namespace: Option<&'a str>, actor: &'a str) -> Touch<'a> {
        Touch { namespace, actor, user_name: "u", cluster: "c", source: "s" }
    }

    #[test]
    fn events_of_the_same_names_share_one() {
        let mut traces = Traces::default();
        let first = traces.of(touch(Some("n"), "a"));
        let other = traces.of(touch(None, "a"));
        assert!(Arc::ptr_eq(&first, &traces.of(touch(Some("n"), "a"))));
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(first.touch(), touch(Some("n"), "a"));
        assert_eq!(traces.len(), 2);
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert_eq!(traces.of(touch(Some(&long), &long)).touch(), touch(Some(ANY), ANY));
    }

    #[test]
    fn unused_traces_are_removed() {
        let mut traces = Traces::default();
        let kept: Vec<Arc<Trace>> =
            (0..100).map(|at| traces.of(touch(None, &format!("kept {at}")))).collect();
        for at in 0..100_000 {
            traces.of(touch(None, &format!("{at}")));
            assert!(traces.len() <= SWEEP_MIN);
        }
        for (at, trace) in kept.iter().enumerate() {
            assert!(Arc::ptr_eq(trace, &traces.of(touch(None, &format!("kept {at}")))));
        }
    }
}
