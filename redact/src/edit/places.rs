//! Finds the place of a value, its role in the API, from the place of the value around it.
//!
//! Invariant: a value whose role is not understood gets [`Place::Plain`] or a hit, and never a
//! place that is skipped. This module writes nothing.

use std::borrow::Cow;

use super::{Candidate, Place, Span, Target, Walk, dropped};
use crate::detect::first_in;
use crate::echo;
use crate::graph::{Hit, State, stronger};
use crate::implied::Implied;
use crate::json::{self, Broken};
use crate::target::Form;

/// Members of an event that are never changed. All other members have places of their own.
const EVENT_MEMBERS: [&str; 15] = [
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "verb",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "authenticationMetadata",
    "k8s_audit_level",
    "openshift_audit_level",
    "method",
];
/// The members that the API has in objects of an event, for each of these objects. Any other member
/// was added by a collector.
const USER_MEMBERS: [&str; 4] = ["username", "uid", "groups", "extra"];
const REFERENCE_MEMBERS: [&str; 8] =
    ["resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource"];
const AUTHENTICATION_MEMBERS: [&str; 1] = ["impersonationConstraint"];
const STATUS_MEMBERS: [&str; 8] =
    ["kind", "apiVersion", "metadata", "status", "message", "reason", "details", "code"];
/// Members of the `metadata` that events of earlier API versions have. A collector may add members
/// of its own under the same name.
const META_MEMBERS: [&str; 8] = [
    "creationTimestamp",
    "generateName",
    "generation",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];
const ENTRY_MEMBERS: [&str; 8] =
    ["insertId", "logName", "operation", "receiveTimestamp", "resource", "severity", "timestamp", "spanId"];
const PRINCIPAL_MEMBERS: [&str; 7] = [
    "principalEmail",
    "principalSubject",
    "authoritySelector",
    "thirdPartyPrincipal",
    "serviceAccountKeyName",
    "serviceAccountDelegationInfo",
    "oauthInfo",
];
const PAYLOAD_MEMBERS: [&str; 9] = [
    "@type",
    "authorizationInfo",
    "methodName",
    "numResponseItems",
    "requestMetadata",
    "resourceLocation",
    "resourceName",
    "serviceName",
    "policyViolationInfo",
];

impl<'t> Walk<'t, '_> {
    /// Returns the states, the hit and the place of a member's value. If the name itself contains a
    /// value, it also returns the hit of the whole object.
    pub(super) fn member(
        &mut self,
        states: Span,
        place: Place,
        name: &[u8],
        value_at: usize,
    ) -> (Span, Option<Hit>, Place, Option<Hit>) {
        if let Place::Fields { is_hit } = place {
            return self.field(states, is_hit, name);
        }
        if let Place::Operation(target) = place {
            let is_known = [&b"op"[..], b"path", b"from"].contains(&name);
            let is_value = !is_known || self.text.get(value_at) != Some(&b'"');
            return match self.targets.get(target) {
                Some(target) if is_value => {
                    (target.states, target.hit, target.place, self.named(place, name))
                }
                _ => (Span::EMPTY, None, Place::Plain, None),
            };
        }
        let (mut inner, mut hit) = self.step(states, Some(name));
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let (is_object, is_array) =
            (self.text.get(value_at) == Some(&b'{'), self.text.get(value_at) == Some(&b'['));
        let inner_place = match place {
            Place::Record => self.record_member(name, inner, value_at),
            Place::Payload => match () {
                () if is("request") || is("response") || is("resourceOriginalState") => Place::Body(inner),
                () if is("status") => Place::Status,
                () if is("authenticationInfo") => Place::User,
                () if PAYLOAD_MEMBERS.iter().any(|known| is(known)) => Place::Skip,
                () => Place::Beside,
            },
            Place::Status | Place::Details if is("message") => Place::Message,
            Place::Status if is("details") => Place::Details,
            Place::Status if is("reason") || is("status") => Place::Reason,
            Place::Status if !STATUS_MEMBERS.iter().any(|known| is(known)) => Place::Beside,
            Place::Details => Place::Details,
            Place::AuditAnnotations => Place::AuditAnnotation(echo::origin(name)),
            Place::Body(root) => match () {
                () if is("items") && is_array => Place::Items(root),
                () if is("rows") && is_array => Place::Rows(root),
                () if is("object") && (is_object || is_array) => {
                    self.add(inner.start, root);
                    inner.end = self.states.len();
                    Place::Body(root)
                }
                () if is("data") && is_object && self.context.has_revisions => {
                    self.add(inner.start, root);
                    inner.end = self.states.len();
                    Place::Body(root)
                }
                () if is("value") && is_array => Place::Patch { root, is_body: false },
                () if is("metadata") => Place::Metadata,
                () if is("message") && !self.context.keeps_messages => Place::Message,
                () if is("details") && !self.context.keeps_messages => Place::Details,
                () if is("reason") && !self.context.keeps_messages => Place::Reason,
                () if is("status") && is_object => Place::Remarks,
                () if is("status") && !is_array => Place::Reason,
                () if is("raw") && !root.is_empty() && !is_object && !is_array => {
                    hit = stronger(hit, Some(dropped(Implied::Wrapped)));
                    Place::Plain
                }
                () => Place::Plain,
            },
            Place::Row(root) if is("object") => {
                self.add(inner.start, root);
                inner.end = self.states.len();
                Place::Body(root)
            }
            Place::Row(root) if is("cells") && !root.is_empty() && !self.context.keeps_cells => {
                hit = stronger(hit, Some(dropped(Implied::Cells)));
                Place::Plain
            }
            Place::Metadata if is("annotations") => Place::Annotations,
            Place::Metadata if is("managedFields") => Place::ManagedFields,
            // An annotation should be a string. If it is an object, it may be a copy of any object.
            Place::Annotations if is_object || is_array => {
                self.add(inner.start, self.bodies);
                inner.end = self.states.len();
                Place::Body(self.bodies)
            }
            Place::Annotations => Place::Annotation,
            Place::ManagedFields if is("fieldsV1") => {
                inner = self.bodies;
                Place::Fields { is_hit: false }
            }
            Place::WebhookPatch if is("patch") => {
                inner = self.bodies;
                Place::Patch { root: inner, is_body: true }
            }
            Place::Remarks | Place::Remark if is("message") || is("reason") => Place::Remark,
            Place::Remarks | Place::Remark => Place::Remarks,
            Place::User => {
                let known = match self.context.form {
                    Form::Event => &USER_MEMBERS[..],
                    Form::GoogleEntry => &PRINCIPAL_MEMBERS[..],
                };
                if known.iter().any(|known| is(known)) { Place::OfUser } else { Place::Beside }
            }
            Place::OfUser => Place::OfUser,
            Place::Known(known) if known.iter().any(|known| known.as_bytes() == name) => Place::Skip,
            Place::Known(_) => Place::Beside,
            Place::Skip => Place::Skip,
            _ => Place::Plain,
        };
        // The decoder puts the meaning of such members together from several of them, or reads only
        // a part of one, so they are always dropped.
        let is_spread = matches!((place, self.context.form), (Place::Record, Form::Event))
            && std::str::from_utf8(name).is_ok_and(strongroom_lines::is_spread);
        let poison = if is_spread { Some(dropped(Implied::Beside)) } else { self.named(place, name) };
        (inner, hit, inner_place, poison)
    }

    pub(super) fn record_member(&self, name: &[u8], inner: Span, value_at: usize) -> Place {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let known = match self.context.form {
            Form::Event if name == b"objectRef" => return Place::Known(&REFERENCE_MEMBERS),
            Form::Event if name == b"authenticationMetadata" => return Place::Known(&AUTHENTICATION_MEMBERS),
            Form::Event => &EVENT_MEMBERS[..],
            Form::GoogleEntry => &ENTRY_MEMBERS[..],
        };
        if self.context.form == Form::Event && is("metadata") {
            return if self.is_object_meta(value_at) { Place::Skip } else { Place::Beside };
        }
        if known.iter().any(|known| known.as_bytes() == name) {
            return Place::Skip;
        }
        match self.context.form {
            Form::Event if is("requestObject") || is("responseObject") => Place::Body(inner),
            Form::Event if is("annotations") => Place::AuditAnnotations,
            Form::Event if is("responseStatus") => Place::Status,
            Form::Event if is("requestURI") => Place::RequestUri,
            Form::Event if is("user") || is("impersonatedUser") => Place::User,
            Form::GoogleEntry if is("protoPayload") => Place::Payload,
            Form::GoogleEntry if is("labels") => Place::AuditAnnotations,
            _ => Place::Beside,
        }
    }

    /// Returns true if a value contains only the metadata that an event can have.
    fn is_object_meta(&self, at: usize) -> bool {
        let text = self.text;
        let mut is_meta = true;
        let read = json::each_member(text, at, self.depth, |(start, end), at, depth| {
            let name = json::unescape(&text[start..end]);
            is_meta &= META_MEMBERS.iter().any(|known| known.as_bytes() == &*name);
            is_meta &= !matches!(text.get(at), Some(b'{' | b'['));
            json::value_end(text, at, depth)
        });
        is_meta && read.is_ok()
    }

    /// Returns the hit of an object whose member name has a shape that a detector finds.
    pub(super) fn named(&self, place: Place, name: &[u8]) -> Option<Hit> {
        let is_seen = !matches!(
            place,
            Place::Record
                | Place::Payload
                | Place::Skip
                | Place::Beside
                | Place::User
                | Place::OfUser
                | Place::Known(_)
        );
        if !is_seen || self.context.detectors.is_empty() {
            return None;
        }
        first_in(self.context.detectors, name).map(|_| dropped(Implied::Name))
    }

    /// Handles a field of `managedFields`. A name there either stands for a member (`f:name`) or
    /// contains a value itself: an element of a set (`v:…`), or the keys of an element (`k:{…}`).
    pub(super) fn field(
        &mut self,
        states: Span,
        is_hit: bool,
        name: &[u8],
    ) -> (Span, Option<Hit>, Place, Option<Hit>) {
        let has_value = Some(dropped(Implied::ManagedFields));
        let named = self.named(Place::Plain, name);
        let (inner, is_hit, whole) = match (name.first_chunk::<2>(), name.get(2..)) {
            (Some(b"f:"), Some(rest)) => {
                let (inner, hit) = self.step(states, Some(rest));
                // Below a value that is replaced as a whole, the names of members are replaced with
                // it.
                (inner, is_hit || hit.is_some(), if is_hit { has_value } else { None })
            }
            (Some(b"v:"), _) => {
                let (inner, hit) = self.step(states, None);
                let is_value = is_hit || hit.is_some() || self.scalar_hit(inner, Place::Plain).is_some();
                (inner, is_hit, if is_value { has_value } else { None })
            }
            (Some(b"k:"), Some(keys)) => {
                let (inner, hit) = self.step(states, None);
                let mut is_value = is_hit || hit.is_some();
                let all = inner.end;
                let read =
                    json::each_member(keys, json::skip_white(keys, 0), 0, |(start, end), at, depth| {
                        let (key, hit) = self.step(inner, Some(&json::unescape(&keys[start..end])));
                        is_value |= hit.is_some() || self.scalar_hit(key, Place::Plain).is_some();
                        json::value_end(keys, at, depth)
                    });
                self.states.truncate(all);
                is_value |= read.is_err() && !states.is_empty();
                (inner, is_hit, if is_value { has_value } else { None })
            }
            (Some(b"i:"), _) => {
                let (inner, hit) = self.step(states, None);
                (inner, is_hit || hit.is_some(), None)
            }
            _ => (Span::EMPTY, is_hit, None),
        };
        (inner, None, Place::Fields { is_hit }, stronger(whole, named))
    }

    /// Adds those names in managed fields that contain values to the candidates: the keys of
    /// elements, and the elements of sets.
    pub(super) fn note_names(&mut self, start: usize, end: usize) {
        if !self.has_bodies() {
            return;
        }
        let text = self.text;
        let is_of_value = |at: &usize| matches!(text.get(at + 1..at + 3), Some(b"v:" | b"k:"));
        for at in memchr::memchr_iter(b'"', &text[start..end]).map(|at| start + at).filter(is_of_value) {
            if let Ok(end) = json::string_end(text, at) {
                let label = Implied::ManagedFields.label();
                self.candidates.push(Candidate { literal: (at, end), text: None, at: start, label });
            }
        }
    }

    /// Returns the states, the hit and the place of an element of an array.
    pub(super) fn element(
        &mut self,
        states: Span,
        place: Place,
        at: usize,
    ) -> Result<(Span, Option<Hit>, Place), Broken> {
        let is_object = self.text.get(at) == Some(&b'{');
        let is_container = is_object || self.text.get(at) == Some(&b'[');
        if let Place::Patch { root, is_body } = place {
            if is_object && let Some(target) = self.operation(at, root)? {
                self.targets.push(target);
                return Ok((Span::EMPTY, None, Place::Operation(self.targets.len() - 1)));
            }
            if is_body {
                let inner = if is_object { Place::Body(root) } else { place };
                let hit = match self.text.get(at) {
                    Some(b'{' | b'[' | b'n') => None,
                    _ => self.scalar_hit(root, Place::Body(root)),
                };
                return Ok((root, hit, inner));
            }
        }
        let (mut inner, hit) = self.step(states, None);
        let inner_place = match place {
            Place::Items(root) if is_container => {
                self.add(inner.start, root);
                inner.end = self.states.len();
                Place::Body(root)
            }
            Place::Rows(root) if is_object => Place::Row(root),
            Place::ManagedFields if is_object => Place::ManagedFields,
            Place::Details => Place::Details,
            Place::User | Place::OfUser => Place::OfUser,
            Place::Known(_) => Place::Beside,
            Place::Skip => Place::Skip,
            // The elements of a list of messages are messages, too.
            Place::Message => Place::Message,
            Place::Reason | Place::Remarks | Place::Remark => place,
            Place::Annotation => Place::Annotation,
            Place::AuditAnnotation(origin) => Place::AuditAnnotation(origin),
            _ => Place::Plain,
        };
        Ok((inner, hit, inner_place))
    }

    /// Reads the pointers of an operation of a JSON patch, and returns where its values are
    /// written. If a pointer is repeated, all of its values count. Returns `None` if the object is
    /// not an operation.
    pub(super) fn operation(&mut self, at: usize, root: Span) -> Result<Option<Target>, Broken> {
        let text = self.text;
        let mut pointers: Vec<Option<Cow<'t, [u8]>>> = Vec::new();
        let mut is_operation = false;
        json::each_member(text, at, self.depth, |(start, end), at, depth| {
            let name = json::unescape(&text[start..end]);
            let value_end = json::value_end(text, at, depth)?;
            is_operation |= name.eq_ignore_ascii_case(b"op");
            if name.eq_ignore_ascii_case(b"path") {
                is_operation = true;
                let pointer = (text.get(at) == Some(&b'"')).then(|| json::unescape(&text[at..value_end]));
                pointers.push(pointer);
            }
            Ok(value_end)
        })?;
        if !is_operation {
            return Ok(None);
        }
        let start = self.states.len();
        let mut target = Target { states: Span::EMPTY, hit: None, place: Place::Plain };
        if pointers.is_empty() {
            target.hit = self.scalar_hit(root, Place::Body(root));
        }
        for pointer in pointers {
            if pointer.as_deref().is_some_and(|pointer| self.moved.covers(pointer)) {
                target.hit = stronger(target.hit, Some(dropped(Implied::Moved)));
            }
            let place = match pointer.as_deref() {
                Some(b"") => {
                    self.add(start, root);
                    Place::Body(root)
                }
                Some(pointer) if pointer.starts_with(b"/") => {
                    let (place, hit) = self.follow(start, root, &pointer[1..]);
                    target.hit = stronger(target.hit, hit);
                    place
                }
                // Without a pointer, the value may be meant for any place.
                _ => {
                    target.hit = stronger(target.hit, self.scalar_hit(root, Place::Body(root)));
                    Place::Plain
                }
            };
            if matches!(target.place, Place::Plain) {
                target.place = place;
            }
        }
        target.states = Span { start, end: self.states.len() };
        Ok(Some(target))
    }

    /// Follows a pointer from the root of a body. Adds the states at the end of the pointer to the
    /// newest span, which begins at `start`.
    pub(super) fn follow(&mut self, start: usize, root: Span, pointer: &[u8]) -> (Place, Option<Hit>) {
        let mut place = Place::Body(root);
        let mut hit = None;
        let mut states = root;
        let base = self.states.len();
        for segment in pointer.split(|byte| *byte == b'/') {
            let name = unescape_pointer(segment);
            if let Place::Fields { is_hit } = place {
                let (inner, _, next, whole) = self.field(states, is_hit, &name);
                hit = stronger(hit, whole);
                (states, place) = (inner, next);
                continue;
            }
            let is_index = is_index(segment);
            let next = self.states.len();
            hit = stronger(hit, self.step_on(next, states, Some(&name)));
            if is_index {
                hit = stronger(hit, self.step_on(next, states, None));
            }
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            place = match place {
                Place::Body(root) if is("items") => Place::Items(root),
                Place::Items(root) if is_index => {
                    self.add(next, root);
                    Place::Body(root)
                }
                Place::Body(root) if is("data") && self.context.has_revisions => {
                    self.add(next, root);
                    Place::Body(root)
                }
                Place::Body(_) if is("metadata") => Place::Metadata,
                Place::Body(_) if is("message") => Place::Message,
                Place::Body(_) if is("status") => Place::Remarks,
                Place::Remarks | Place::Remark if is("message") || is("reason") => Place::Remark,
                Place::Remarks | Place::Remark => Place::Remarks,
                Place::Metadata if is("annotations") => Place::Annotations,
                Place::Metadata if is("managedFields") => Place::ManagedFields,
                Place::Annotations => Place::Annotation,
                Place::ManagedFields if is_index => Place::ManagedFields,
                Place::ManagedFields if is("fieldsV1") => {
                    self.states.truncate(next);
                    self.add(next, self.bodies);
                    Place::Fields { is_hit: false }
                }
                _ => Place::Plain,
            };
            states = Span { start: next, end: self.states.len() };
        }
        // Keep only the states at the end of the pointer, in place of those of the earlier
        // segments.
        let last: Vec<State> = self.states[states.start..states.end].to_vec();
        self.states.truncate(base);
        last.into_iter().for_each(|state| self.push(start, state));
        (place, hit)
    }
}

/// Returns true if a segment of a JSON pointer may be the index of an element, or `-`, the place
/// after the last element.
pub(super) fn is_index(segment: &[u8]) -> bool {
    segment == b"-" || (!segment.is_empty() && segment.iter().all(u8::is_ascii_digit))
}

/// Decodes the escapes of a JSON pointer.
pub(super) fn unescape_pointer(segment: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'~', segment).is_none() {
        return Cow::Borrowed(segment);
    }
    let mut out = Vec::with_capacity(segment.len());
    let mut rest = segment.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        let escaped = if byte == b'~' { rest.next_if(|next| matches!(next, b'0' | b'1')) } else { None };
        out.push(match escaped {
            Some(b'0') => b'~',
            Some(_) => b'/',
            None => byte,
        });
    }
    Cow::Owned(out)
}
