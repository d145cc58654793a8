//! Edits strings that contain more than one value: messages, annotations, URIs, copies of events.
//!
//! Invariant: a string is kept only if it was parsed or searched, or if it is of a kind that
//! contains no value of a body. A text may contain other texts, which are parsed to a bounded
//! depth.

use std::collections::HashMap;

use super::{Candidate, Context, Edit, Fate, Frame, Place, Span, Walk, dropped};
use crate::detect::{first_in, from_base64};
use crate::echo::{self, Origin};
use crate::graph::{Action, Hit};
use crate::implied::Implied;
use crate::json::{self, Broken};
use crate::pointers::Segment;
use crate::policy::{FIELD_SELECTOR, LABEL_SELECTOR};

/// The bytes that separate the parameters of a query.
pub(crate) const PARAMETERS_END: [u8; 2] = *b"&;";
/// Maximum depth of texts inside texts, such as an annotation that contains an object with such an
/// annotation.
const TEXTS_MAX: usize = 4;

impl Walk<'_, '_> {
    pub(super) fn string(&mut self, at: usize, end: usize, states: Span, place: Place) -> Option<Hit> {
        if matches!(
            place,
            Place::Skip
                | Place::Record
                | Place::Payload
                | Place::Beside
                | Place::Known(_)
                | Place::Fields { .. }
        ) {
            return None;
        }
        let literal = &self.text[at..end];
        let hit = self.scalar_hit(states, place);
        if matches!(place, Place::User | Place::OfUser | Place::RequestUri) || hit.is_some() {
            return hit;
        }
        if self.context.detectors.is_empty()
            && self.context.names.is_empty()
            && matches!(place, Place::Plain | Place::Remarks)
        {
            return None;
        }
        let text = json::unescape(literal);
        if let Some(hit) = self.detected(&text) {
            return Some(hit);
        }
        let candidate = match place {
            Place::Message if !self.has_bodies() || echo::is_plain_message(&text) => None,
            Place::Reason if !self.has_bodies() || echo::is_plain_reason(&text) => None,
            Place::Message | Place::Reason => return Some(dropped(Implied::Message)),
            Place::Details | Place::Remark if self.has_bodies() => Some(Implied::Message),
            Place::AuditAnnotation(Origin::Decision) if echo::is_decision(&text) => None,
            Place::AuditAnnotation(Origin::Quoting) if self.has_bodies() => {
                return Some(dropped(Implied::Annotation));
            }
            Place::AuditAnnotation(_) | Place::Annotation => {
                let is_patch = matches!(place, Place::AuditAnnotation(Origin::WebhookPatch));
                if let Some(hit) = self.hit_in_text(&text, is_patch) {
                    return Some(hit);
                }
                Some(Implied::Annotation)
            }
            _ => None,
        };
        let mut without_names = None;
        if !self.context.names.is_empty() {
            let hit = Hit { action: Action::Tokenise, label: self.context.names_label };
            if self.context.names.iter().any(|name| **name == *text) {
                return Some(hit);
            }
            without_names = self.names_in(at, end, &text, place, hit);
        }
        if let Some(implied) = candidate
            && text.len() >= echo::ECHO_BYTES_MIN
        {
            let label = implied.label();
            self.candidates.push(Candidate { literal: (at, end), text: without_names, at, label });
        }
        None
    }

    pub(super) fn detected(&self, text: &[u8]) -> Option<Hit> {
        first_in(self.context.detectors, text).map(|label| Hit { action: Action::Tokenise, label })
    }

    /// Returns the hit of a text if it is JSON with a value that would be replaced, if it looks
    /// like JSON and cannot be parsed, or if it is compressed. The JSON may be inside a JSON string
    /// or base64.
    pub(super) fn hit_in_text(&self, text: &[u8], is_webhook_patch: bool) -> Option<Hit> {
        if self.has_bodies() || !self.context.detectors.is_empty() {
            self.hit_in_layers(text, is_webhook_patch, self.context.texts + 1)
        } else {
            None
        }
    }

    pub(super) fn hit_in_layers(&self, text: &[u8], is_webhook_patch: bool, texts: usize) -> Option<Hit> {
        const GZIP_IN_BASE64: &[u8] = b"H4sI";
        let text = json::bare(text);
        let opaque = self.has_bodies().then(|| dropped(Implied::Annotation));
        match text.first() {
            Some(b'{' | b'[' | b'"') if texts > TEXTS_MAX => opaque,
            Some(b'{' | b'[') => {
                let no_forced = HashMap::new();
                let context = Context { texts, forced: &no_forced, names: &[], ..self.context };
                match Walk::inner(text, context, is_webhook_patch) {
                    Ok(walk) => {
                        walk.replaced.first().map(|replaced| Hit { action: Action::Drop, ..replaced.hit })
                    }
                    Err(_) => opaque,
                }
            }
            Some(b'"') => match json::string_end(text, 0) {
                Ok(end) if end == text.len() => {
                    self.hit_in_layers(&json::unescape(text), is_webhook_patch, texts + 1)
                }
                _ => opaque,
            },
            _ if text.starts_with(GZIP_IN_BASE64) => opaque,
            // A text that contains no JSON, and is not base64 of JSON, is not a copy of an object.
            _ => match from_base64(text) {
                Some(decoded) => match json::bare(&decoded).first() {
                    Some(b'{' | b'[' | b'"') => self.hit_in_layers(&decoded, is_webhook_patch, texts + 1),
                    _ => None,
                },
                None => {
                    let object = object_in(text)?;
                    self.hit_in_layers(object, is_webhook_patch, texts + 1)
                }
            },
        }
    }

    /// Replaces the names of users in a message or an annotation, and returns the new text of the
    /// string.
    fn names_in(&mut self, at: usize, end: usize, text: &[u8], place: Place, hit: Hit) -> Option<Vec<u8>> {
        if !matches!(
            place,
            Place::Message | Place::Details | Place::Remark | Place::AuditAnnotation(_) | Place::Annotation
        ) {
            return None;
        }
        let mut replaced: Option<Vec<u8>> = None;
        for name in self.context.names {
            let token = self.context.key.token_of_bytes(name);
            for spelling in std::iter::once(name.clone()).chain(echo::quoted(name)) {
                let now = replaced.as_deref().unwrap_or(text);
                if let Some(next) = echo::replace_word(now, &spelling, token.as_str().as_bytes()) {
                    replaced = Some(next);
                }
            }
        }
        if let Some(replaced) = &replaced {
            let mut with = Vec::new();
            json::write_string(replaced, &mut with);
            self.edits.push(Edit { start: at, end, with });
            self.note(hit, at, end);
            self.renamed.push(at);
        }
        replaced
    }

    /// Handles a member that is not one of the event's own: a collector added it, perhaps with a
    /// copy of the event.
    pub(super) fn beside(&mut self, at: usize) -> Result<(usize, Fate), Broken> {
        let end = json::value_end(self.text, at, self.depth)?;
        let value = &self.text[at..end];
        if matches!(value.first(), Some(b'"' | b'{' | b'[')) {
            // Only the first letter depends on the naming style (`requestObject`, `RequestObject`),
            // so it is left out of the search.
            let is_copy = ["equestObject", "esponseObject", "equest_object", "esponse_object"]
                .iter()
                .any(|name| memchr::memmem::find(value, name.as_bytes()).is_some());
            if self.has_bodies() && is_copy {
                return Ok((end, self.replace(at, end, dropped(Implied::Beside))));
            }
            self.beside.push(at);
        }
        Ok((end, Fate::Kept))
    }

    /// Handles the URI of a request, in which the values of query parameters are replaced.
    pub(super) fn request_uri(&mut self, at: usize, states: Span) -> Result<(usize, Fate), Broken> {
        let end = json::value_end(self.text, at, self.depth)?;
        let text = json::unescape(&self.text[at..end]);
        let query = match self.text.get(at) {
            Some(b'"') if !states.is_empty() || self.has_bodies() => memchr::memchr(b'?', &text),
            _ => None,
        };
        let Some(query) = query else { return Ok((end, Fate::Kept)) };
        let mut out = text[..query].to_vec();
        let (mut separator, mut is_changed, mut parameter_at) = (b'?', false, query + 1);
        // Early versions of the API server accepted a semicolon as a separator, too.
        for parameter in text[query + 1..].split(|byte| PARAMETERS_END.contains(byte)) {
            parameter_at += parameter.len() + 1;
            let next = text.get(parameter_at - 1).copied().unwrap_or(b'&');
            let (name, value) = match memchr::memchr(b'=', parameter) {
                Some(at) => (&parameter[..at], Some(&parameter[at + 1..])),
                None => (parameter, None),
            };
            let decoded = percent_decoded(name);
            let states_end = self.states.len();
            let (_, hit) = self.step(states, Some(&decoded));
            self.states.truncate(states_end);
            let hit = hit.or_else(|| self.selected(&decoded, value.unwrap_or_default()));
            match (hit, value) {
                (Some(hit), _) if hit.action == Action::Drop => {
                    let segment = Segment::Owned(decoded);
                    self.frames.push(Frame { segment, at, node: None });
                    self.note(hit, at, end);
                    self.frames.pop();
                    is_changed = true;
                    // The question mark goes before the first parameter that is kept.
                    separator = if separator == b'?' { separator } else { next };
                    continue;
                }
                (Some(hit), Some(value)) if !value.is_empty() => {
                    self.note(hit, at, end);
                    is_changed = true;
                    out.push(separator);
                    out.extend_from_slice(name);
                    out.push(b'=');
                    let token = self.context.key.token_of_bytes(&percent_decoded(value));
                    out.extend_from_slice(token.as_str().as_bytes());
                }
                _ => {
                    out.push(separator);
                    out.extend_from_slice(parameter);
                }
            }
            separator = next;
        }
        if is_changed {
            let mut with = Vec::new();
            json::write_string(&out, &mut with);
            self.edits.push(Edit { start: at, end, with });
        }
        Ok((end, Fate::Kept))
    }
}

impl Walk<'_, '_> {
    /// Returns the hit of a selector in a URI. `fieldSelector=spec.ssn=1` contains a value of
    /// `spec.ssn`, and a label selector contains values of `metadata.labels`.
    fn selected(&mut self, name: &[u8], value: &[u8]) -> Option<Hit> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let (is_of_fields, is_of_labels) = (is(FIELD_SELECTOR), is(LABEL_SELECTOR));
        if !self.has_bodies() || !(is_of_fields || is_of_labels) {
            return None;
        }
        let (base, text) = (self.states.len(), percent_decoded(value));
        // A name that is encoded in a URI is not in the text as it is.
        let awake = std::mem::replace(&mut self.awake, self.context.applicable.clone());
        let mut is_hit = false;
        if is_of_fields {
            for term in text.split(|byte| *byte == b',') {
                let field = term.split(|byte| b"=!".contains(byte)).next().unwrap_or_default();
                is_hit |= self.leads_to_value(self.bodies, field.trim_ascii().split(|byte| *byte == b'.'));
            }
        } else {
            let (metadata, _) = self.step(self.bodies, Some(b"metadata"));
            let (labels, hit) = self.step(metadata, Some(b"labels"));
            is_hit |= hit.is_some();
            // A label selector has several forms. If one of its values is mistaken for a key, no
            // harm is done.
            for key in text.split(|byte| b",=!() \t".contains(byte)).filter(|key| !key.is_empty()) {
                is_hit |= self.leads_to_value(labels, std::iter::once(key));
            }
        }
        self.states.truncate(base);
        self.awake = awake;
        is_hit.then(|| dropped(Implied::Selector))
    }

    /// Returns true if a path ends at one of the values that the names of `way` lead to, one after
    /// the other, or continues below the last of them.
    fn leads_to_value<'n>(&mut self, from: Span, way: impl Iterator<Item = &'n [u8]>) -> bool {
        let (base, mut states, mut is_hit) = (self.states.len(), from, false);
        for name in way {
            let (next, hit) = self.step(states, Some(name));
            (states, is_hit) = (next, is_hit || hit.is_some());
        }
        is_hit |= self.scalar_hit(states, Place::Plain).is_some();
        self.states.truncate(base);
        is_hit
    }
}

/// Returns the part of a text from what may be the beginning of a JSON object to the last brace.
fn object_in(text: &[u8]) -> Option<&[u8]> {
    let starts = |at: &usize| text.get(json::skip_white(text, at + 1)) == Some(&b'"');
    let start = memchr::memchr_iter(b'{', text).find(starts)?;
    let end = memchr::memrchr(b'}', text).map_or(text.len(), |end| end + 1);
    Some(&text[start..end.max(start + 1)])
}

/// Decodes the escapes of a query parameter.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(*byte),
        }
        at += 1;
    }
    out
}
