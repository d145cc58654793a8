//! Applies a policy with its keys to one event at a time.
//!
//! Most events are walked over once. An event is walked over again if a replaced value makes
//! another edit necessary: in an annotation that repeats the value, in a member that a collector
//! added beside the event, in a parent that has to be dropped because the mark has no room, or
//! where the rest of the event contains the name of a replaced user.
//!
//! Most events differ from others in their bodies alone. So an event without its bodies, its
//! *envelope*, can be judged once for many events, and then only the bodies of each are walked over.
//! The result is that of the whole event: what is replaced in an envelope does not depend on the
//! bodies, but for strings that repeat a value, and those are searched for.
//!
//! Invariant: an event is returned as edited only with a mark that names what was edited. Nothing is
//! kept between events.

use std::collections::BTreeMap;

use serde_json::Value;
use strongroom_schemas::marks::Redaction;
use thiserror::Error;

use crate::cipher::CipherError;
use crate::detect::Detector;
use crate::echo::{Echoes, Kept};
use crate::edit::{Candidate, Context, Edited, PARAMETERS_END, Walk};
use crate::graph::{Action, Patterns};
use crate::implied::Implied;
use crate::json::{self, Broken};
use crate::keys::{KeyId, Keys};
use crate::path::{Root, Roots};
use crate::pointers::{self, Forced, Unmarked};
use crate::policy::{Policy, REVISIONS};
use crate::target::{Form, Target};
use crate::token::Token;

/// Maximum number of walks over one event.
const WALKS_MAX: usize = 8;
/// The members of an event that are its bodies.
const BODIES: [&str; 2] = [Root::RequestObject.as_str(), Root::ResponseObject.as_str()];

/// Why an event cannot be edited under the policy: it may contain values that the policy names, and
/// they cannot be found with certainty. Such an event has to be encrypted as a whole.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unreadable {
    #[error("the event is not one JSON object")]
    NotJson,
    #[error("the event is not UTF-8")]
    NotUtf8,
    #[error("the event is nested too deeply")]
    TooDeep,
    #[error("the event repeats a member that the policy is about")]
    Ambiguous,
    #[error("the places that were edited do not fit in a mark")]
    Mark,
}

impl From<Broken> for Unreadable {
    fn from(broken: Broken) -> Unreadable {
        match broken {
            Broken::NotJson => Unreadable::NotJson,
            Broken::TooDeep => Unreadable::TooDeep,
            Broken::Ambiguous => Unreadable::Ambiguous,
        }
    }
}

/// An edited event, which may be written.
#[derive(Clone, Debug)]
pub struct Redacted {
    pub event: Vec<u8>,
    pub mark: Redaction,
    pub counts: Counts,
}

/// What a policy keeps of an event without its bodies, if it keeps all of it.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Strings that are kept unless one of them repeats a value that is replaced in a body.
    texts: Vec<Vec<u8>>,
}

/// What becomes of the bodies of an event whose envelope is kept.
#[derive(Clone, Debug)]
pub enum RedactedBodies {
    /// Nothing in them is to be changed.
    Kept,
    Edited(EditedBodies),
    /// Only the whole event says what becomes of it.
    Unknown,
}

/// Bodies as they may be written.
#[derive(Clone, Debug)]
pub struct EditedBodies {
    /// `requestObject` and `responseObject`.
    pub bodies: [Edited; 2],
    pub mark: Redaction,
    pub counts: Counts,
}

/// How many values were replaced, and by which part of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub dropped: u64,
    pub tokenised: u64,
    /// For each part of the policy that replaced values, its index (see [`Redactor::label`]) and
    /// the number of values. Sorted by index.
    pub by_label: Vec<(u16, u64)>,
}

/// The part of a policy that applies to events of one form and target.
#[derive(Clone, Debug)]
pub struct Applicable {
    form: Form,
    patterns: Patterns,
    keeps_cells: bool,
    has_revisions: bool,
    keeps_messages: bool,
}

/// A policy with its keys. It is shared by threads and never changes.
#[derive(Debug)]
pub struct Redactor {
    policy: Policy,
    keys: Keys,
    id: u64,
    detectors: Vec<(&'static Detector, u16)>,
    /// The label of the path `user.username`; `None` if the policy does not have that path.
    names_label: Option<u16>,
    /// The query parameters that the policy may change; `None` if it may change any.
    parameters: Option<Vec<String>>,
}

impl Redactor {
    pub fn new(policy: Policy, keys: Keys) -> Redactor {
        let id = policy.id(keys.current().id());
        let detectors = policy.detectors().collect();
        let names_label = policy.label_of(Root::UserName.as_str());
        let parameters = policy.parameters();
        Redactor { policy, keys, id, detectors, names_label, parameters }
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns the id of the key under which tokens and encrypted texts are made.
    pub fn key_id(&self) -> KeyId {
        self.keys.current().id()
    }

    /// Returns the id that marks contain: a hash of the policy and of the id of its key.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the name of a part of the policy, for people: `requestObject.data.*`, `detector
    /// email`, …
    pub fn label(&self, index: u16) -> &str {
        self.policy.label(index)
    }

    /// Returns the members of an event with this target that the policy may change. This takes well
    /// under a microsecond with a few rules.
    pub fn roots(&self, cluster: &str, target: &Target<'_>) -> Roots {
        self.policy.roots_for(cluster, target)
    }

    /// Returns those of [`roots`](Self::roots) that a path of the policy names. The other members
    /// are changed only because they may repeat a value of a body.
    pub fn named_roots(&self, cluster: &str, target: &Target<'_>) -> Roots {
        self.policy.named_for(cluster, target)
    }

    /// Returns true if the policy may change a request URI, for any target. If the name of a
    /// parameter is encoded, it may be any name, so the result is true.
    pub fn may_change_uri(&self, uri: &str) -> bool {
        let Some((_, query)) = uri.split_once('?') else { return false };
        let Some(names) = &self.parameters else { return true };
        query.split(|c: char| PARAMETERS_END.iter().any(|end| c == char::from(*end))).any(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            let is_plain = name.bytes().all(|byte| byte.is_ascii() && byte != b'%' && byte != b'+');
            !is_plain || names.iter().any(|own| name.eq_ignore_ascii_case(own))
        })
    }

    /// Returns true if the policy may change an event with this target.
    pub fn may_change(&self, cluster: &str, target: &Target<'_>) -> bool {
        !self.roots(cluster, target).is_empty()
    }

    /// Returns the part of the policy that applies to events with this target.
    pub fn applicable(&self, form: Form, cluster: &str, target: &Target<'_>) -> Applicable {
        let target = target.said();
        let is_core = target.api_group.is_none();
        Applicable {
            form,
            patterns: self.policy.applicable(form, cluster, &target),
            keeps_cells: is_core && matches!(target.resource, Some("secrets" | "configmaps")),
            has_revisions: target.resource.is_none_or(|resource| resource == REVISIONS.0),
            keeps_messages: target.resource == Some("events"),
        }
    }

    /// Returns the edited event, which may be written; `None` if the policy changes nothing in it.
    ///
    /// # Errors
    /// [`Unreadable`] if the values that the policy names cannot be found with certainty.
    pub fn redact(
        &self,
        event: &[u8],
        form: Form,
        cluster: &str,
        target: &Target<'_>,
    ) -> Result<Option<Redacted>, Unreadable> {
        self.redact_as(event, &self.applicable(form, cluster, target))
    }

    /// Like [`redact`](Self::redact), for a caller that has already looked up `applicable`.
    ///
    /// # Errors
    /// Those of [`redact`](Self::redact).
    pub fn redact_as(&self, event: &[u8], applicable: &Applicable) -> Result<Option<Redacted>, Unreadable> {
        if self.is_idle(applicable) {
            return Ok(None);
        }
        if std::str::from_utf8(event).is_err() {
            return Err(Unreadable::NotUtf8);
        }
        let edited = self.edit(event, applicable, &Envelope { texts: Vec::new() }, |walk, mark| Redacted {
            event: walk.edited(),
            mark,
            counts: counts(walk),
        });
        edited.map_err(|unedited| match unedited {
            Unedited::Unreadable(unreadable) => unreadable,
            Unedited::Repeated => Unreadable::Mark,
        })
    }

    /// Judges an event without bodies. `None` if something in it is to be changed, or it cannot be
    /// read for certain.
    pub fn envelope(&self, event: &str, applicable: &Applicable) -> Option<Envelope> {
        if self.is_idle(applicable) {
            return Some(Envelope { texts: Vec::new() });
        }
        let no_forced = Forced::new();
        let walk = Walk::record(event.as_bytes(), self.context(applicable, &no_forced, &[])).ok()?;
        if !walk.replaced.is_empty() || !walk.beside.is_empty() {
            return None;
        }
        let literals = walk.candidates.iter().map(|candidate| candidate.literal);
        let texts = literals.map(|(start, end)| json::unescape(&walk.text()[start..end]).into_owned());
        Some(Envelope { texts: texts.collect() })
    }

    /// Returns what becomes of `requestObject` and `responseObject` of an event with this envelope.
    /// Each body has to be one JSON value, without white space around it.
    pub fn redact_bodies(
        &self,
        bodies: [Option<&str>; 2],
        applicable: &Applicable,
        envelope: &Envelope,
    ) -> RedactedBodies {
        if self.is_idle(applicable) {
            return RedactedBodies::Kept;
        }
        let mut event =
            Vec::with_capacity(64 + bodies.iter().flatten().map(|body| body.len()).sum::<usize>());
        let mut extents = [None; 2];
        event.push(b'{');
        for ((name, body), extent) in BODIES.into_iter().zip(bodies).zip(&mut extents) {
            let Some(body) = body else { continue };
            event.extend_from_slice(if event.len() > 1 { &b",\""[..] } else { b"\"" });
            event.extend_from_slice(name.as_bytes());
            event.extend_from_slice(b"\":");
            *extent = Some((event.len(), event.len() + body.len()));
            event.extend_from_slice(body.as_bytes());
        }
        event.push(b'}');
        let edited = self.edit(&event, applicable, envelope, |walk, mark| {
            let bodies = extents.map(|extent| match extent {
                Some((start, end)) => walk.edited_part(start, end),
                None => Some(Edited::Kept),
            });
            match bodies {
                [Some(request), Some(response)] => {
                    let bodies = [request, response];
                    RedactedBodies::Edited(EditedBodies { bodies, mark, counts: counts(walk) })
                }
                _ => RedactedBodies::Unknown,
            }
        });
        match edited {
            Ok(edited) => edited.unwrap_or(RedactedBodies::Kept),
            Err(_) => RedactedBodies::Unknown,
        }
    }

    /// Whether nothing is replaced in any event to which this applies.
    fn is_idle(&self, applicable: &Applicable) -> bool {
        applicable.patterns.is_empty() && self.detectors.is_empty()
    }

    fn context<'c>(
        &'c self,
        applicable: &'c Applicable,
        forced: &'c Forced,
        names: &'c [Vec<u8>],
    ) -> Context<'c> {
        Context {
            graph: self.policy.graph(applicable.form),
            applicable: &applicable.patterns,
            detectors: &self.detectors,
            form: applicable.form,
            keeps_cells: applicable.keeps_cells,
            has_revisions: applicable.has_revisions,
            keeps_messages: applicable.keeps_messages,
            key: self.keys.current(),
            forced,
            names,
            names_label: self.names_label.unwrap_or_default(),
            texts: 0,
        }
    }

    /// Walks over an event until nothing more has to go, and gives the last walk and its mark to
    /// `finish`. `None` if nothing is to be changed.
    fn edit<T>(
        &self,
        event: &[u8],
        applicable: &Applicable,
        envelope: &Envelope,
        finish: impl FnOnce(&Walk<'_, '_>, Redaction) -> T,
    ) -> Result<Option<T>, Unedited> {
        let impossible = Unedited::Unreadable(Unreadable::Mark);
        let (mut forced, mut names) = (Forced::new(), Vec::new());
        for _ in 0..WALKS_MAX {
            let walk = Walk::record(event, self.context(applicable, &forced, &names))
                .map_err(|broken| Unedited::Unreadable(broken.into()))?;
            if walk.replaced.is_empty() {
                return Ok(None);
            }
            if names.is_empty() {
                let found = self.names(&walk);
                if !found.is_empty() {
                    names = found;
                    continue;
                }
            }
            let mut more = repeating(&walk, envelope)?;
            if more.is_empty() {
                match pointers::mark(self.id, event, &walk.nodes, &walk.replaced) {
                    Ok(mark) => return Ok(Some(finish(&walk, mark))),
                    Err(Unmarked::Drop(parents)) => more = parents,
                    Err(Unmarked::Impossible) => return Err(impossible),
                }
            }
            let before = forced.len();
            forced.extend(more);
            if forced.len() == before {
                return Err(impossible);
            }
        }
        Err(impossible)
    }

    /// Returns the names of users that were replaced, the longest first.
    fn names(&self, walk: &Walk<'_, '_>) -> Vec<Vec<u8>> {
        let Some(label) = self.names_label else { return Vec::new() };
        let texts = walk.replaced.iter().filter(|replaced| replaced.hit.label == label);
        let texts = texts.map(|replaced| &walk.text()[replaced.start..replaced.end]);
        let mut names: Vec<Vec<u8>> = texts
            .filter(|text| text.first() == Some(&b'"'))
            .map(|text| json::unescape(text).into_owned())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort_unstable_by_key(|name| std::cmp::Reverse(name.len()));
        names.dedup();
        names
    }

    /// Encrypts bytes under the current key. The same `context` must be given to decrypt.
    ///
    /// # Errors
    /// [`CipherError`] if the system has no randomness, or the text is too long.
    pub fn encrypt(&self, clear: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError> {
        self.keys.encrypt(clear, context)
    }

    /// Decrypts a text that [`Redactor::encrypt`] returned, under the current key or an old one.
    ///
    /// # Errors
    /// [`CipherError`] if the key is missing, or if the bytes or the context differ.
    pub fn decrypt(&self, encrypted: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError> {
        self.keys.decrypt(encrypted, context)
    }

    /// Returns the token of a value under the current key.
    pub fn token(&self, value: &Value) -> Token {
        self.keys.current().token(value)
    }
}

/// Why an event was not edited.
enum Unedited {
    Unreadable(Unreadable),
    /// A string of the envelope may repeat a value.
    Repeated,
}

/// Returns what was kept and may repeat what was replaced. An error if the envelope may, or if there
/// is too much of both to search.
fn repeating(walk: &Walk<'_, '_>, envelope: &Envelope) -> Result<Forced, Unedited> {
    let mut more: Forced = walk.beside.iter().map(|at| (*at, Implied::Beside.label())).collect();
    if !walk.candidates.is_empty() || !envelope.texts.is_empty() {
        let said = |Candidate { literal: (start, end), text, .. }: &Candidate| match text {
            Some(text) => text.clone(),
            None => json::unescape(&walk.text()[*start..*end]).into_owned(),
        };
        let said: Vec<Vec<u8>> = walk.candidates.iter().map(said).collect();
        let kept = Kept::of(envelope.texts.iter().chain(&said).map(Vec::as_slice));
        let starts = walk.replaced.iter().map(|replaced| replaced.start);
        let starts = starts.filter(|start| !walk.renamed.contains(start));
        let mut echoes = Echoes::of(walk.text(), starts, &kept);
        if envelope.texts.iter().any(|text| echoes.may_be_in(text)) {
            return Err(Unedited::Repeated);
        }
        for (Candidate { at, label, .. }, said) in walk.candidates.iter().zip(&said) {
            if !more.contains_key(at) && echoes.may_be_in(said) {
                more.insert(*at, *label);
            }
        }
        if echoes.is_cut_short() && !envelope.texts.is_empty() {
            return Err(Unedited::Repeated);
        }
    }
    Ok(more)
}

fn counts(walk: &Walk<'_, '_>) -> Counts {
    let mut by_label: BTreeMap<u16, u64> = BTreeMap::new();
    let mut counts = Counts::default();
    for replaced in &walk.replaced {
        *by_label.entry(replaced.hit.label).or_default() += 1;
        match replaced.hit.action {
            Action::Drop => counts.dropped += 1,
            Action::Tokenise => counts.tokenised += 1,
        }
    }
    counts.by_label = by_label.into_iter().collect();
    counts
}
