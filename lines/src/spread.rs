//! Restores the objects and lists of an event that a shipper took apart: it wrote them as text, or
//! put their members beside those of the event.
//!
//! `"objectRef":"{\"resource\":\"pods\"}"` and `"objectRef.resource":"pods"` both stand for
//! `"objectRef":{"resource":"pods"}`. An API server writes neither, so no client of the cluster can
//! choose them.
//!
//! Invariants:
//! - A member that exists, whatever its form, is never replaced by members beside it.
//! - Text is read as an object or a list only if all of it is JSON that an event could have at that
//!   place. Text is opened once: strings inside it stay strings.
//!
//! The record keeps its bytes; only the columns are made from the restored objects and lists. No
//! state.

use serde::de::IgnoredAny;

use crate::json::{self, WHITE};
use crate::limits::DEPTH_MAX;
use crate::tolerant::{Faults, Object};

/// The members that are read from the objects of an event, for each of these objects.
pub(crate) const USER_MEMBERS: [&str; 4] = ["username", "uid", "groups", "extra"];
pub(crate) const IMPERSONATED_MEMBERS: [&str; 3] = ["username", "groups", "extra"];
pub(crate) const OBJECT_MEMBERS: [&str; 8] =
    ["resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource"];
pub(crate) const STATUS_MEMBERS: [&str; 5] = ["status", "message", "reason", "details", "code"];

/// Members of an event that are objects, lists, or bodies, which may be either.
const NESTED: [(&str, Kind); 8] = [
    ("user", Kind::Object(&USER_MEMBERS)),
    ("impersonatedUser", Kind::Object(&IMPERSONATED_MEMBERS)),
    ("objectRef", Kind::Object(&OBJECT_MEMBERS)),
    ("responseStatus", Kind::Object(&STATUS_MEMBERS)),
    ("annotations", Kind::Map),
    ("sourceIPs", Kind::List),
    ("requestObject", Kind::Body),
    ("responseObject", Kind::Body),
];

#[derive(Clone, Copy)]
enum Kind {
    /// An object of which only the members with these names are read.
    Object(&'static [&'static str]),
    /// An object with members of any name.
    Map,
    List,
    Body,
}

/// The list of a user's groups. A shipper may have made a member of each item: `user.groups.0`.
const GROUPS: &str = "groups";

/// Whether a member of the event has the name that a shipper gives to a member of an inner object:
/// `objectRef.name`, `user_username`.
pub fn is_spread(name: &str) -> bool {
    NESTED.iter().any(|(nested, _)| within(name, nested).is_some())
}

/// Whether a value is text that may hold an object or a list.
pub fn may_hold_nested(value: &[u8]) -> bool {
    let Some(text) = value.strip_prefix(b"\"") else { return false };
    match json::trim_start(text) {
        [b'{' | b'[', ..] => true,
        // White space and brackets may be escaped.
        [b'\\', next, ..] => !matches!(next, b'"' | b'\\' | b'/' | b'b' | b'f'),
        _ => false,
    }
}

/// Returns the name that a member had inside `nested`: `name`, if `objectRef.name` was in
/// `objectRef`.
fn within<'n>(name: &'n str, nested: &str) -> Option<&'n str> {
    let inner = name.strip_prefix(nested)?.strip_prefix(['.', '_'])?;
    (!inner.is_empty()).then_some(inner)
}

/// Returns the restored members of an event, with their values as JSON. A body whose members are
/// beside those of the event is reported as a fault, because nothing says how they belong together.
pub(crate) fn nested(event: &Object<'_>, faults: &mut Faults) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (name, kind) in NESTED {
        if event.is_there(name) {
            found.extend(event.value(name).and_then(|value| held(value, kind)).map(|text| (name, text)));
            continue;
        }
        let beside = || event.readable().filter_map(|(own, value)| Some((within(own, name)?, value)));
        let text = match kind {
            Kind::Object(known) => object_of(beside(), known),
            Kind::Map => {
                let members = event.readable();
                let dotted = members.filter_map(|(own, value)| {
                    Some((own.strip_prefix(name)?.strip_prefix('.').filter(|own| !own.is_empty())?, value))
                });
                joined(dotted.map(|(own, value)| (own, value.to_owned())))
            }
            Kind::List => list_of(beside()),
            Kind::Body => {
                if beside().next().is_some() {
                    event.wrong_type(name, faults);
                }
                None
            }
        };
        found.extend(text.map(|text| (name, text)));
    }
    found
}

/// Returns the object or list in the text of a value.
fn held(value: &str, kind: Kind) -> Option<String> {
    if !may_hold_nested(value.as_bytes()) {
        return None;
    }
    let text: String = serde_json::from_str(value).ok()?;
    let text = text.trim_matches(WHITE);
    let is_of_kind = match kind {
        Kind::Object(_) | Kind::Map => text.starts_with('{'),
        Kind::List => text.starts_with('['),
        Kind::Body => text.starts_with(['{', '[']),
    };
    // The event's own brace counts as a level, too.
    let is_read = is_of_kind
        && json::bounded_depth(text.as_bytes(), DEPTH_MAX - 1).is_ok()
        && serde_json::from_str::<IgnoredAny>(text).is_ok();
    is_read.then(|| text.to_owned())
}

/// Returns an object with those of the members that `known` names; `None` if there are none.
fn object_of<'m>(beside: impl Iterator<Item = (&'m str, &'m str)> + Clone, known: &[&str]) -> Option<String> {
    let members = beside.clone().filter(|(name, _)| known.contains(name));
    let mut members: Vec<(&str, String)> = members.map(|(name, value)| (name, value.to_owned())).collect();
    if known.contains(&GROUPS) && !members.iter().any(|(name, _)| *name == GROUPS) {
        let items = beside.filter_map(|(name, value)| Some((within(name, GROUPS)?, value)));
        members.extend(list_of(items).map(|list| (GROUPS, list)));
    }
    joined(members.into_iter())
}

fn joined<'m>(members: impl Iterator<Item = (&'m str, String)>) -> Option<String> {
    let member = |(name, value): (&str, String)| format!("{}:{value}", serde_json::Value::from(name));
    let members: Vec<String> = members.map(member).collect();
    (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
}

/// Returns a list of the members whose names are numbers, in the order of the members.
fn list_of<'m>(items: impl Iterator<Item = (&'m str, &'m str)>) -> Option<String> {
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let items: Vec<&str> = items.filter(|(name, _)| is_number(name)).map(|(_, value)| value).collect();
    (!items.is_empty()).then(|| format!("[{}]", items.join(",")))
}
