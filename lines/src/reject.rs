//! Why bytes became a reject.
//!
//! Invariant: the names are stored, so they are part of the format: none is changed or reused. A
//! detail never repeats the input, except the parts that [`Refusal`] lists.

use std::fmt;

/// Reason of a reject, stored in `rejects.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Not JSON; `detail` says where the parser stopped.
    BrokenJson,
    /// Not UTF-8.
    InvalidUtf8,
    /// Contains a NUL byte: a gap of zeros left by a crash, or a binary file.
    NulByte,
    /// A piece of a line, or of a document in one, that is longer than the line bound.
    LineTooLong,
    /// Nested deeper than the bound, and not an event.
    TooDeep,
    /// JSON, but not an `audit.k8s.io` `Event`.
    NotAnAuditEvent,
    /// A wrapper with a field of the wrong type.
    InvalidField,
    /// A record that was cut before it says who asked for what, or text that follows a whole event
    /// on the same line.
    TornLine,
    /// Only white space.
    BlankLine,
    /// An `EventList` without items.
    EmptyEventList,
    /// An `EventList` of many items too short to be events.
    ShortItems,
    /// An empty file.
    EmptyFile,
    /// A record that a cloud's log service truncated, and marked with `[Truncated...]`, before it
    /// says who asked for what.
    TruncatedByCloud,
    /// A cloud's wrapper that has no record, or that is not opened here; `detail` names the
    /// wrapper.
    Wrapped,
    /// A cloud's record of a log other than the audit log; `detail` says which one, where that is
    /// known.
    OtherCategory,
    /// An audit event whose wrapper or members say that it comes from a writer that is not trusted;
    /// `detail` names the writer.
    UntrustedOrigin,
    /// The text format of `--audit-log-format=legacy`, removed from Kubernetes.
    LegacyFormat,
    /// An event that the redaction policy may concern and that cannot be edited; `raw` is encrypted.
    Encrypted,
}

impl Reason {
    pub const ALL: [Reason; 18] = [
        Reason::BrokenJson,
        Reason::InvalidUtf8,
        Reason::NulByte,
        Reason::LineTooLong,
        Reason::TooDeep,
        Reason::NotAnAuditEvent,
        Reason::InvalidField,
        Reason::TornLine,
        Reason::BlankLine,
        Reason::EmptyEventList,
        Reason::ShortItems,
        Reason::EmptyFile,
        Reason::TruncatedByCloud,
        Reason::Wrapped,
        Reason::OtherCategory,
        Reason::UntrustedOrigin,
        Reason::LegacyFormat,
        Reason::Encrypted,
    ];

    /// Returns true if such a reject may contain an event that no rule has seen, because its bytes
    /// were cut off or could not be read. Returns false for whole records that are not events, and
    /// for events that were matched before they were encrypted.
    pub const fn may_hide_an_event(self) -> bool {
        match self {
            Reason::BrokenJson
            | Reason::InvalidUtf8
            | Reason::NulByte
            | Reason::LineTooLong
            | Reason::TooDeep
            | Reason::InvalidField
            | Reason::TornLine
            | Reason::TruncatedByCloud
            | Reason::Wrapped
            | Reason::UntrustedOrigin
            | Reason::LegacyFormat => true,
            Reason::NotAnAuditEvent
            | Reason::BlankLine
            | Reason::EmptyEventList
            | Reason::ShortItems
            | Reason::EmptyFile
            | Reason::OtherCategory
            | Reason::Encrypted => false,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::BrokenJson => "broken_json",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::NulByte => "nul_byte",
            Reason::LineTooLong => "line_too_long",
            Reason::TooDeep => "too_deep",
            Reason::NotAnAuditEvent => "not_an_audit_event",
            Reason::InvalidField => "invalid_field",
            Reason::TornLine => "torn_line",
            Reason::BlankLine => "blank_line",
            Reason::EmptyEventList => "empty_event_list",
            Reason::ShortItems => "short_items",
            Reason::EmptyFile => "empty_file",
            Reason::TruncatedByCloud => "truncated_by_cloud",
            Reason::Wrapped => "wrapped",
            Reason::OtherCategory => "other_category",
            Reason::UntrustedOrigin => "untrusted_origin",
            Reason::LegacyFormat => "legacy_format",
            Reason::Encrypted => "encrypted",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text in a detail that comes before the `auditID` of a truncated event. A detail repeats that
/// id from the input.
pub(crate) const SAID_ID: &str = "; auditID ";
/// The text in a detail that comes before the place of an event in an unknown wrapper. A detail
/// repeats that place from the input.
pub(crate) const SAID_PLACE: &str = "; an audit event is ";

/// Returns a detail without the parts that it repeats of the input.
pub fn without_input(detail: &str) -> &str {
    let ends = [SAID_ID, SAID_PLACE].into_iter().filter_map(|said| detail.find(said));
    &detail[..ends.min().unwrap_or(detail.len())]
}

/// Why a piece of input is not an event. `detail` never repeats the input, which may contain a
/// Secret, with two exceptions. The first is the `auditID` of a truncated event, by which the event
/// can be found elsewhere. The second is the names of the members around an event, and of its
/// writer. A person needs them to configure the source, and they consist of letters, digits and a
/// few signs only. Under a redaction policy, [`without_input`] removes all of these except the
/// writer's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub detail: String,
}

impl Refusal {
    /// Makes a refusal. The caller promises that `detail` does not repeat the input.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Refusal { reason, detail: detail.into() }
    }

    /// Makes the refusal of a field that is not what it should be: "`field` is not `expected`".
    pub fn field(field: &str, expected: &str) -> Self {
        Refusal::new(Reason::InvalidField, format!("{field} is not {expected}"))
    }
}
