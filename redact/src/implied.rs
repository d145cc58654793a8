//! Reasons for replacing a value to which no path of the policy leads.
//!
//! Invariant: the labels of these reasons are the first labels of every policy, in the order of
//! [`Implied::ALL`].

/// Why the editor replaces a value although no path leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Implied {
    Message,
    Annotation,
    Beside,
    Cells,
    ManagedFields,
    Wrapped,
    Parent,
    Name,
    Repeated,
    Selector,
    Moved,
    Claim,
}

impl Implied {
    pub(crate) const ALL: [Implied; 12] = [
        Implied::Message,
        Implied::Annotation,
        Implied::Beside,
        Implied::Cells,
        Implied::ManagedFields,
        Implied::Wrapped,
        Implied::Parent,
        Implied::Name,
        Implied::Repeated,
        Implied::Selector,
        Implied::Moved,
        Implied::Claim,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Implied::Message => "message that may quote a value",
            Implied::Annotation => "annotation that may repeat a value",
            Implied::Beside => "member beside the event",
            Implied::Cells => "cells of a table",
            Implied::ManagedFields => "managed fields that name a value",
            Implied::Wrapped => "body in another encoding",
            Implied::Parent => "parent of values that do not fit in the mark",
            Implied::Name => "object with a member whose name has a detected shape",
            Implied::Repeated => "object with a repeated member",
            Implied::Selector => "selector that may name a value",
            Implied::Moved => "value that a patch moves or copies",
            Implied::Claim => "claim about a user",
        }
    }

    /// Returns the index of the reason's label.
    pub(crate) const fn label(self) -> u16 {
        self as u16
    }
}
