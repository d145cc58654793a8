//! The object and the record that a policy is applied to.
//!
//! Invariant: `None` never excludes a rule, and an empty text counts as `None`. No state.

/// The object that an event is about, as far as rules depend on it. `None` stands for a member that
/// is absent or cannot be read. Take the values from the decoded columns. If `objectRef` could not
/// be read, use the default, which has no values: then every rule applies that could apply.
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
    /// Returns the target without empty members, because some encoders write empty members and
    /// others leave them out.
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

/// The form of a record's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An audit event, without the wrapper that was around it.
    Event,
    /// An audit entry of Google Cloud Logging.
    GoogleEntry,
}
