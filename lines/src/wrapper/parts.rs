//! Recognises a part of a line that a shipper passed on without joining it with the other parts.
//!
//! Runtimes cut long lines at a fixed length. A client can calculate where its text will be cut, so
//! it can place a whole event of its own choice at the beginning of a later part. Invariants:
//! - A text whose carrier says that it is a part is never an event. The number of a part is not
//!   used, because some writers count parts from 0, others from 1, and it is not known which do
//!   which.
//! - Docker ends the text of each line of its `json-file` log with the line feed that the container
//!   wrote. A text without that line feed is a part.
//! - The work is linear in the carrier. No state.

use serde_json::value::RawValue;

use crate::json::{self, Members};
use crate::reject::{Reason, Refusal};

/// Members that are true if the text is a part. Vector writes them, and so do docker's drivers for
/// Fluentd and journald, and the programs that read those.
const FLAGS: [&str; 5] =
    ["_partial", "partial", "partial_message", "CONTAINER_PARTIAL_MESSAGE", "container_partial_message"];
/// The member in which readers of CRI keep the tag `P` or `F` of a line.
const TAG: &str = "logtag";
/// The member in which journald says why a line of standard output ended, if no line feed ended it.
const LINE_BREAK: &str = "_LINE_BREAK";
/// The values of [`LINE_BREAK`] after which the line continues in another entry.
const CONTINUED: [&str; 2] = ["line-max", "pid-change"];
/// Objects in which shippers keep the flags and the tag.
const INSIDE: [&str; 3] = ["attributes", "metadata", "container"];

/// Refuses a carrier whose text is a part of what was written as one line. The text may be in its
/// object `event`, beside the marks of a part.
pub(super) fn unjoined(carrier: &Members<'_>) -> Option<Refusal> {
    one_unjoined(carrier).or_else(|| one_unjoined(&object(carrier, "event")?))
}

fn one_unjoined(carrier: &Members<'_>) -> Option<Refusal> {
    let inner = INSIDE.iter().filter_map(|name| object(carrier, name));
    let is_marked = is_marked(carrier) || inner.into_iter().any(|members| is_marked(&members));
    if is_cut_by_journald(carrier) {
        let cut = "a part of a line that journald has cut: raise LineMax in journald.conf";
        return Some(Refusal::new(Reason::TornLine, cut));
    }
    (is_marked || has_partial_flag(carrier) || is_cut_by_docker(carrier)).then(refusal)
}

/// Whether an attribute or a label of this name and value says that a text is a part.
pub(super) fn is_tag_of_part(name: &str, value: &str) -> bool {
    (name == TAG && value.starts_with('P'))
        || (FLAGS.contains(&name) && value.eq_ignore_ascii_case("true"))
        || (name == LINE_BREAK && CONTINUED.contains(&value))
}

pub(super) fn refusal() -> Refusal {
    Refusal::new(Reason::TornLine, "a part of a line that its shipper did not join with the other parts")
}

fn is_marked(members: &Members<'_>) -> bool {
    let is_flag = |name: &str| FLAGS.contains(&name);
    let mut named = members.0.iter().filter(|(name, _)| *name == TAG || is_flag(name));
    named.any(|(name, value)| match string(value) {
        Some(text) => is_tag_of_part(name, &text) || (is_flag(name) && text == "1"),
        None => is_flag(name) && matches!(value.get(), "true" | "1"),
    })
}

/// Whether `partial` is among the flags that Filebeat keeps with a line.
fn has_partial_flag(carrier: &Members<'_>) -> bool {
    let is_partial = |flags: &RawValue| match string(flags) {
        Some(flag) => flag == "partial",
        None => serde_json::from_str::<Vec<String>>(flags.get())
            .is_ok_and(|flags| flags.iter().any(|flag| flag == "partial")),
    };
    let nested = object(carrier, "log");
    let nested = nested.as_ref().and_then(|log| json::member(log, "flags"));
    json::member(carrier, "log.flags").is_some_and(is_partial) || nested.is_some_and(is_partial)
}

fn is_cut_by_journald(carrier: &Members<'_>) -> bool {
    let ending = json::member(carrier, LINE_BREAK).and_then(string);
    ending.is_some_and(|ending| CONTINUED.contains(&ending.as_str()))
}

/// Whether the carrier is a line of docker's `json-file` log whose text has no line feed at its
/// end. The text of a CRI line has no line feed either, but its reader keeps the tag of the line.
fn is_cut_by_docker(carrier: &Members<'_>) -> bool {
    let text = |name| json::member(carrier, name).and_then(string);
    let has_tag = [TAG, "_p"].iter().any(|name| json::member(carrier, name).is_some());
    !has_tag
        && text("stream").is_some()
        && text("time").is_some()
        && text("log").is_some_and(|log| !log.ends_with('\n'))
}

fn object<'t>(members: &Members<'t>, name: &str) -> Option<Members<'t>> {
    json::object(name, json::member(members, name)).ok().flatten()
}

fn string(value: &RawValue) -> Option<String> {
    value.get().starts_with('"').then(|| serde_json::from_str(value.get()).ok()).flatten()
}
