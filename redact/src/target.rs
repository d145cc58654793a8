//! What a policy asks about an event before it reads it.
//!
//! Invariant: `None` never means that a rule does not apply, and an empty text counts as `None`. No
//! state.

/// What an event is about, as far as a policy asks. `None` stands for a member that is absent or
/// cannot be read. Take the values from the decoded columns, and none at all (the default) if
/// `objectRef` could not be read: then every rule applies that may.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target<'a> {
    /// Without a namespace and a name, the request may be about objects of all namespaces.
    pub namespace: Option<&'a str>,
    /// With a name and without a namespace, the object is in no namespace.
    pub name: Option<&'a str>,
    pub api_group: Option<&'a str>,
    pub resource: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// The target without the members that say nothing: some encoders write empty members that
    /// others leave out.
    #[must_use]
    pub fn said(&self) -> Target<'a> {
        let said = |text: Option<&'a str>| text.filter(|text| !text.is_empty());
        Target {
            namespace: said(self.namespace),
            name: said(self.name),
            api_group: said(self.api_group),
            resource: said(self.resource),
        }
    }
}

/// What the bytes of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An audit event, without what was around it.
    Event,
    /// An audit entry of Google Cloud Logging.
    GoogleEntry,
}
