//! The matches of a batch, which a matcher hands to the detector: compact, and independent of the
//! batch.
//!
//! Invariant: entries are in row order, and the rules of a row are in the order of the set, so the
//! alerts do not depend on where batches were cut. The only parts of bodies that are copied are the
//! name of a created object, and the command and container of an exec. A crash loses matches; the
//! source delivers their events again.

use std::sync::Arc;

use strongroom_schemas::{AlertEvent, Outcome, Touch};

use crate::ruleset::RuleSet;

/// Longest text of one field of an alert, in bytes.
pub const FIELD_BYTES_MAX: usize = 2048;

/// A text in [`Texts`]; [`Symbol::NONE`] is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol(u32);

impl Symbol {
    pub(crate) const NONE: Symbol = Symbol(u32::MAX);
}

/// Texts of a batch, each distinct dictionary value once.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    bytes: String,
    ends: Vec<u32>,
}

impl Texts {
    /// Adds a text, cut to [`FIELD_BYTES_MAX`].
    pub(crate) fn add(&mut self, text: &str) -> Symbol {
        let mut end = text.len().min(FIELD_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes.push_str(&text[..end]);
        if end < text.len() {
            self.bytes.push('…');
        }
        self.ends.push(u32::try_from(self.bytes.len()).expect("a block of 64 MiB has fewer bytes of text"));
        Symbol(self.ends.len() as u32 - 1)
    }

    pub(crate) fn get(&self, symbol: Symbol) -> Option<&str> {
        let at = symbol.0 as usize;
        let end = *self.ends.get(at)? as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.bytes.get(start..end)
    }
}

/// The texts of an event that its alert contains; the number is the position in
/// [`MatchedEvent::texts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    AuditId,
    Stage,
    Cluster,
    Source,
    Actor,
    UserName,
    SourceIp,
    UserAgent,
    Verb,
    RequestUri,
    ApiGroup,
    Resource,
    Subresource,
    Namespace,
    Name,
    AuthzDecision,
    /// The command of an exec, from its body, if the URI does not have it. The container is handled
    /// alike.
    ExecCommand,
    ExecContainer,
}

pub(crate) const KEPT: usize = Kept::ExecContainer as usize + 1;

/// An event that a rule matched.
#[derive(Clone, Debug)]
pub(crate) struct MatchedEvent {
    pub(crate) texts: [Symbol; KEPT],
    /// Event time; `None` if the event has no time.
    pub(crate) time_us: Option<i64>,
    /// True if the event has no time of its own, so that `time_us` is the latest time that its
    /// source has shown.
    pub(crate) is_dated_by_source: bool,
    pub(crate) request_received_us: Option<i64>,
    pub(crate) response_code: Option<i32>,
    pub(crate) source_offset: i64,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) faults: Vec<Symbol>,
    /// Hash that identifies the request; it is the same at each stage of the request. If the event
    /// does not say when the request was received, the hash identifies only this stage of the
    /// request.
    pub(crate) request: u128,
    /// Which half of a request this event is, if `request` identifies only a stage.
    pub(crate) half: Option<Half>,
    /// Latest event time of the source in this batch, up to this row.
    pub(crate) latest_us: Option<i64>,
}

/// One of two events of a request, from a log that does not say when requests were received. A
/// cloud writes an entry when a long operation starts, and another entry when the operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Half {
    /// Hash that identifies the request except for its time.
    pub(crate) operation: u128,
    /// True for the event at the start, false for the event at the end.
    pub(crate) is_start: bool,
    pub(crate) time_us: i64,
}

/// What a match is used for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meaning {
    /// The rule alerts.
    Alert,
    /// The event counts for a correlation.
    Count {
        correlation: u32,
        /// Hash of the group's values.
        group: u128,
        /// `field=value` pairs of the group.
        group_text: Symbol,
        /// Hash of the value; if no values are counted, the position of the rule in the
        /// correlation's list.
        value: u128,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Position of the rule's [`crate::RuleInfo`].
    pub(crate) rule: u32,
    /// Position in [`BatchMatches::events`].
    pub(crate) event: u32,
    pub(crate) meaning: Meaning,
}

/// The matches of one batch. They do not borrow from the batch.
#[derive(Debug, Default)]
pub struct BatchMatches {
    /// The set that matched; `None` if no set was run.
    pub(crate) rules: Option<Arc<RuleSet>>,
    pub(crate) texts: Texts,
    pub(crate) events: Vec<MatchedEvent>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) matched: Vec<(u32, u32)>,
    /// Latest event time of each source of the batch; [`i64::MIN`] if no event has a time.
    pub(crate) latest_us: Vec<(String, i64)>,
    pub(crate) bodies_unreadable: u64,
}

impl BatchMatches {
    /// Returns the row and rule index of each match, sorted by row. A rule may match several stages
    /// of a request; the detector raises one alert for them.
    pub fn matched(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.matched.iter().map(|(row, rule)| (*row as usize, *rule as usize))
    }

    /// Returns true if no rule matched.
    pub fn is_empty(&self) -> bool {
        self.matched.is_empty()
    }

    /// Returns the number of bodies that a rule needed but that could not be read as JSON.
    pub fn bodies_unreadable(&self) -> u64 {
        self.bodies_unreadable
    }

    pub(crate) fn text(&self, event: &MatchedEvent, kept: Kept) -> Option<&str> {
        self.texts.get(event.texts[kept as usize])
    }

    /// Returns the names of an event that its alert records in [`strongroom_schemas::Touched`].
    pub(crate) fn touch(&self, event: &MatchedEvent) -> Touch<'_> {
        let text = |kept| self.text(event, kept).unwrap_or_default();
        Touch {
            namespace: self.text(event, Kept::Namespace),
            actor: text(Kept::Actor),
            user_name: text(Kept::UserName),
            cluster: text(Kept::Cluster),
            source: text(Kept::Source),
        }
    }

    pub(crate) fn alert_event(&self, event: &MatchedEvent) -> AlertEvent {
        let optional = |kept| self.text(event, kept).map(str::to_owned);
        let text = |kept| optional(kept).unwrap_or_default();
        AlertEvent {
            audit_id: text(Kept::AuditId),
            stage: optional(Kept::Stage),
            time_us: event.time_us.unwrap_or_default(),
            cluster: text(Kept::Cluster),
            source: text(Kept::Source),
            source_offset: event.source_offset,
            actor: text(Kept::Actor),
            user_name: text(Kept::UserName),
            source_ip: optional(Kept::SourceIp),
            user_agent: optional(Kept::UserAgent),
            verb: optional(Kept::Verb),
            request_uri: optional(Kept::RequestUri),
            api_group: optional(Kept::ApiGroup),
            resource: optional(Kept::Resource),
            subresource: optional(Kept::Subresource),
            namespace: optional(Kept::Namespace),
            name: optional(Kept::Name),
            response_code: event.response_code,
            authz_decision: optional(Kept::AuthzDecision),
            exec_command: optional(Kept::ExecCommand),
            exec_container: optional(Kept::ExecContainer),
            outcome: event.outcome,
            faults: event
                .faults
                .iter()
                .filter_map(|fault| self.texts.get(*fault))
                .map(str::to_owned)
                .collect(),
        }
    }
}
