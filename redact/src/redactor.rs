//! A policy with its keys, applied to one event at a time.
//!
//! Invariant: an event is returned as edited only with a mark that names what was edited, and the
//! edited bytes are JSON again. Nothing is kept between events.

use serde_json::Value;
use strongroom_schemas::marks::Redaction;
use thiserror::Error;

use crate::cipher::{self, CipherError};
use crate::keys::{KeyId, Keys};
use crate::path::Roots;
use crate::policy::Policy;
use crate::token::{Token, TokenError};

/// What an event is about, as far as a policy asks. `None` stands for a member that is absent or
/// cannot be read, and matches every pattern of a rule. Take the values from the decoded columns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target<'a> {
    pub namespace: Option<&'a str>,
    /// Whether the request names one object: with a name and no namespace, the object is not in
    /// any namespace, and rules for some namespaces do not apply.
    pub name: Option<&'a str>,
    pub api_group: Option<&'a str>,
    pub resource: Option<&'a str>,
    pub subresource: Option<&'a str>,
}

/// What the bytes of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An audit event, without what was around it.
    Event,
    /// An audit entry of Google Cloud Logging.
    GoogleEntry,
}

/// Why an event cannot be written under the policy: what the policy names may be in it, and cannot
/// be found for certain. The event has to be encrypted whole.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unreadable {
    #[error("the event is not one JSON object")]
    NotJson,
    #[error("the event is not UTF-8")]
    NotUtf8,
    #[error("the event is nested too deeply")]
    TooDeep,
    #[error("the places that were changed do not fit into a mark")]
    Mark,
}

/// An event as it may be written.
#[derive(Clone, Debug)]
pub struct Redacted {
    pub event: Vec<u8>,
    pub mark: Redaction,
    pub counts: Counts,
}

/// How many values were replaced, and by which part of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub dropped: u64,
    pub tokenised: u64,
    /// For each part of the policy that replaced values: its index for [`Redactor::label`], and the
    /// number of values. Sorted by index.
    pub by_label: Vec<(u16, u64)>,
}

/// A policy with its keys. Cheap to share, and never changed.
#[derive(Debug)]
pub struct Redactor {
    policy: Policy,
    keys: Keys,
    id: u64,
}

impl Redactor {
    pub fn new(policy: Policy, keys: Keys) -> Redactor;

    pub fn policy(&self) -> &Policy;
    pub fn keys(&self) -> &Keys;
    /// The id that marks have: a hash of the policy and of the id of its key.
    pub fn id(&self) -> u64;

    /// Returns the members of an event with this target that the policy may change. A cheap gate.
    pub fn roots(&self, cluster: &str, target: &Target<'_>) -> Roots;

    /// Whether an event with this target may be changed.
    pub fn may_change(&self, cluster: &str, target: &Target<'_>) -> bool {
        !self.roots(cluster, target).is_empty()
    }

    /// Returns the event as it may be written. `None` if nothing in it is to be changed.
    pub fn redact(
        &self,
        event: &[u8],
        form: Form,
        cluster: &str,
        target: &Target<'_>,
    ) -> Result<Option<Redacted>, Unreadable>;

    /// Names a part of the policy for people: `requestObject.data.*`, `detector email`, …
    pub fn label(&self, index: u16) -> &str;

    /// Encrypts bytes under the current key; `context` must be given again to decrypt. Used for
    /// rejects, for events that are [`Unreadable`], and for the write-ahead log.
    pub fn encrypt(&self, clear: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError>;
    /// Decrypts what [`Redactor::encrypt`] gave, under the current key or an old one.
    pub fn decrypt(&self, encrypted: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError>;

    /// The token of a value under the current key.
    pub fn token(&self, value: &Value) -> Token;
}
