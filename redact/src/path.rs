//! Paths of a policy, and the members of an event that they may begin with.

/// A member of the event that a policy may change.
pub enum Root { RequestObject, ResponseObject, Annotations, StatusMessage, StatusDetails, UserExtra, ImpersonatedUserExtra, UserName, RequestUri }
impl Root { pub const ALL: [Root; 9]; pub const fn as_str(self) -> &'static str }

/// A set of roots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roots(u16);
impl Roots { pub fn is_empty(self) -> bool; pub fn contains(self, root: Root) -> bool; pub fn iter(self) -> impl Iterator<Item = Root>; }
