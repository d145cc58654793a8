//! Makes audit events of a client that tries to have its text mistaken for events.
//!
//! Every member that a client controls contains text that looks like a log: whole events, in the
//! wrapper of any dialect, prefixes, line feeds, and ends of documents. The members that the API
//! server fills itself (`kind`, `apiVersion`, `level`, `stage`, `verb`, `sourceIPs` and the times)
//! are honest.
//!
//! Invariant: an event depends only on its number and on the drawn values, and is one line of JSON,
//! as the API server writes it. Its `auditID` ends in its number, and is never [`FORGED_ID`].

use serde_json::Value;

use crate::dialect::{self, Dialect};
use crate::go;

/// The `auditID` of every forged event, which is an event inside a text or a body.
pub const FORGED_ID: &str = "forged";

/// A function that draws a number below its argument, which is at least 1.
pub type Draw<'d> = dyn FnMut(usize) -> usize + 'd;

/// Length at which a container runtime cuts a line.
const PIECE_BYTES: usize = 16 * 1024;
/// Maximum nesting depth of texts inside texts and bodies.
const LEVELS_MAX: usize = 3;
/// Longest text. Each level of quotes doubles the backslashes of the text inside it.
const TEXT_BYTES_MAX: usize = 8 * 1024;

const STAGES: [&str; 4] = ["ResponseComplete", "ResponseStarted", "Panic", "RequestReceived"];
const LEVELS: [&str; 3] = ["RequestResponse", "Request", "Metadata"];
const VERBS: [&str; 4] = ["create", "patch", "get", "delete"];

/// Texts that stand before an event in some log.
const HEADS: [&str; 14] = [
    "2026-03-02T10:00:00.1Z stdout F ",
    "2026-03-02T10:00:00.1Z stdout P ",
    "2026-03-02T10:00:00.1Z stderr F ",
    "2026-03-02T10:00:00.000Z ",
    "2026-03-02T10:00:00Z kube-apiserver-audit-0123abcd ",
    "<133>Oct 21 10:37:55 node1 k8s-audit: ",
    "<110>1 - - - - - - ",
    "Mon 2026-03-02 10:00:00 UTC node1 kube-apiserver[1]: ",
    "{\"log\":\"",
    "{\"messageType\":\"DATA_MESSAGE\",\"logStream\":\"kube-apiserver-audit-1\",\"logEvents\":[{\"message\":\"",
    "{\"records\":[{\"category\":\"kube-audit\",\"properties\":{\"log\":",
    "{\"kind\":\"EventList\",\"items\":[",
    "I0302 10:00:00.000001       1 server.go:100] ",
    "[\n",
];

/// Texts that end or open a line or a document, or that are hard to parse.
const PIECES: [&str; 24] = [
    "\n",
    "\r\n",
    "\u{2028}",
    "\u{2029}",
    "\u{85}",
    "\0",
    "\u{feff}",
    "\u{7f}",
    "\\",
    "\\\\",
    "\"",
    "\"}",
    "\"}\n",
    "\\n\"}",
    "}}\n{\"a\":\"",
    "]}\n",
    "},{",
    "}{\"messageType\":\"DATA_MESSAGE\"",
    "[Truncated...]",
    " AUDIT: id=\"forged\" ip=\"127.0.0.1\"",
    "msg=",
    "\",\"stream\":\"stdout\",\"time\":\"t\"}\n",
    "\u{fffd}",
    "é",
];

/// Returns the event with this number, as one line without its line feed.
pub fn event(number: usize, draw: &mut Draw<'_>) -> String {
    let level = LEVELS[draw(LEVELS.len())];
    let stage = STAGES[draw(STAGES.len())];
    // The client may choose the audit id, with the header `Audit-ID`.
    let id = match draw(4) {
        0 => format!("{}{number}", text(draw)),
        _ => format!("real-{number}"),
    };
    let user = format!(r#""username":{},"uid":{}{}"#, string(draw), string(draw), groups_and_extra(draw));
    let mut members = vec![
        (
            "impersonatedUser",
            chance(draw, 2).then(|| format!(r#"{{"username":{}{}}}"#, string(draw), groups_and_extra(draw))),
        ),
        ("sourceIPs", Some(r#"["203.0.113.9","10.0.0.1"]"#.to_owned())),
        ("userAgent", chance(draw, 4).then(|| string(draw))),
        ("objectRef", chance(draw, 4).then(|| reference(draw))),
        ("responseStatus", chance(draw, 2).then(|| status(draw))),
    ];
    if level != "Metadata" {
        members.push(("requestObject", chance(draw, 4).then(|| body(draw, 0))));
    }
    if level == "RequestResponse" {
        members.push(("responseObject", chance(draw, 2).then(|| body(draw, 0))));
    }
    members.push(("requestReceivedTimestamp", Some(r#""2026-03-02T10:00:00.000001Z""#.to_owned())));
    members.push(("stageTimestamp", Some(r#""2026-03-02T10:00:01.000001Z""#.to_owned())));
    members.push(("annotations", chance(draw, 2).then(|| annotations(draw))));
    let rest: String =
        members.into_iter().filter_map(|(name, value)| Some(format!(",\"{name}\":{}", value?))).collect();
    let verb = VERBS[draw(VERBS.len())];
    let uri = text(draw);
    let line = |padding: usize| {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level}","auditID":{},"stage":"{stage}","requestURI":{},"verb":"{verb}","user":{{{user}}}{rest}}}"#,
            go_string(&id),
            go_string(&format!("/{}{uri}", "x".repeat(padding)))
        )
    };
    let event = line(0);
    // A client can calculate where a runtime cuts the line, and place a forged event there.
    match event.find(FORGED_HEAD).filter(|_| chance(draw, 2)) {
        Some(at) => line((2 * PIECE_BYTES - at % PIECE_BYTES + draw(3) - 1) % PIECE_BYTES),
        None => event,
    }
}

/// Returns true in `in_four` of four draws.
fn chance(draw: &mut Draw<'_>, in_four: usize) -> bool {
    draw(4) < in_four
}

const FORGED_HEAD: &str =
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"forged""#;

/// Returns an event that never happened. It may be exactly as long as a piece of a container's
/// line.
fn forged(draw: &mut Draw<'_>) -> String {
    let event = |padding: usize| {
        format!(
            r#"{FORGED_HEAD},"stage":"ResponseComplete","requestURI":"/","verb":"delete","user":{{"username":"victim{}"}},"stageTimestamp":"2026-03-02T10:00:00.000000Z"}}"#,
            "x".repeat(padding)
        )
    };
    match draw(16) {
        0 => event(PIECE_BYTES - event(0).len()),
        1 => event(0).replace(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, ""),
        2 => event(0).replace(r#""auditID":"forged","#, ""),
        _ => event(0),
    }
}

/// Returns a forged event in a dialect.
fn rendered(draw: &mut Draw<'_>) -> String {
    let dialect = Dialect::ALL[draw(Dialect::ALL.len())];
    let mut out = Vec::new();
    let event = forged(draw);
    match dialect::render(&event, dialect, &mut out) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => event,
    }
}

/// Returns a text that a client chose.
pub fn text(draw: &mut Draw<'_>) -> String {
    text_in(draw, 0)
}

fn text_in(draw: &mut Draw<'_>, level: usize) -> String {
    let mut text = one_text(draw, level);
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    text
}

fn one_text(draw: &mut Draw<'_>, level: usize) -> String {
    let is_deep = level >= LEVELS_MAX;
    match draw(if is_deep { 7 } else { 13 }) {
        0 => "name".to_owned(),
        1 => forged(draw),
        2 => rendered(draw),
        3 => rendered(draw).trim_end().to_owned(),
        4 => HEADS[draw(HEADS.len())].to_owned(),
        5 => PIECES[draw(PIECES.len())].to_owned(),
        6 => char::from_u32(draw(0x11_0000) as u32).unwrap_or('x').to_string(),
        7 => format!("{}{}", HEADS[draw(HEADS.len())], text_in(draw, level + 1)),
        8 => format!("{}{}", text_in(draw, level + 1), text_in(draw, level + 1)),
        9 => format!("x\n{}\n", text_in(draw, level + 1)),
        10 => format!("{}{}", PIECES[draw(PIECES.len())], text_in(draw, level + 1)),
        11 => quoted(&text_in(draw, level + 1)),
        _ => body(draw, level + 1),
    }
}

/// Returns a text as a string literal of Go.
fn string(draw: &mut Draw<'_>) -> String {
    go_string(&text(draw))
}

fn groups_and_extra(draw: &mut Draw<'_>) -> String {
    let groups = chance(draw, 2).then(|| format!(r#","groups":[{},{}]"#, string(draw), string(draw)));
    let extra = chance(draw, 1).then(|| format!(r#","extra":{{{}:[{}]}}"#, string(draw), string(draw)));
    groups.into_iter().chain(extra).collect()
}

fn reference(draw: &mut Draw<'_>) -> String {
    let names =
        ["resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource"];
    let mut members = Vec::new();
    for name in names {
        if chance(draw, 2) {
            members.push(format!("\"{name}\":{}", string(draw)));
        }
    }
    format!("{{{}}}", members.join(","))
}

fn status(draw: &mut Draw<'_>) -> String {
    let (message, reason) = (string(draw), string(draw));
    let details = chance(draw, 1)
        .then(|| format!(r#","details":{{"name":{},"causes":[{}]}}"#, string(draw), forged(draw)));
    format!(
        r#"{{"metadata":{{}},"status":"Failure","message":{message},"reason":{reason}{},"code":409}}"#,
        details.unwrap_or_default()
    )
}

fn annotations(draw: &mut Draw<'_>) -> String {
    format!(
        r#"{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":{},{}:{}}}"#,
        string(draw),
        go_string(&format!("patch.webhook/{}", text(draw))),
        string(draw)
    )
}

/// Returns a body that a client sends, or an object that it stored.
fn body(draw: &mut Draw<'_>, level: usize) -> String {
    let is_deep = level >= LEVELS_MAX;
    match draw(if is_deep { 4 } else { 12 }) {
        0 => forged(draw),
        1 => json_of_dialect(draw),
        2 => format!("[{},{}]", forged(draw), forged(draw)),
        3 => format!(
            r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{},{}]}}"#,
            forged(draw),
            forged(draw)
        ),
        4 => quoted(&text_in(draw, level + 1)),
        5 => {
            let (key, value) =
                (quoted(&format!("k{}", text_in(draw, level + 1))), quoted(&text_in(draw, level + 1)));
            format!(
                r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"labels":{{{key}:{value}}}}},"data":{{{key}:{value}}}}}"#
            )
        }
        6 => {
            let text = quoted(&text_in(draw, level + 1));
            format!(r#"{{"log":{text},"message":{text},"msg":{text},"stream":"stdout","time":"t"}}"#)
        }
        7 => format!(r#"[{{"op":"add","path":"/x","value":{}}}]"#, body(draw, level + 1)),
        8 => format!(
            r#"{{"events":[{{"timestamp":1,"message":{}}},{}]}}"#,
            quoted(&text_in(draw, level + 1)),
            body(draw, level + 1)
        ),
        9 => format!("[null,{},[{}]]", body(draw, level + 1), body(draw, level + 1)),
        10 => format!(r#"{{"json":{},"event":{}}}"#, body(draw, level + 1), body(draw, level + 1)),
        _ => format!(r#"["{}",{}]"#, "x".repeat(draw(PIECE_BYTES)), forged(draw)),
    }
}

/// Returns a forged event in a dialect whose rendering is one JSON value.
fn json_of_dialect(draw: &mut Draw<'_>) -> String {
    let text = rendered(draw);
    match serde_json::from_str::<Value>(&text) {
        Ok(_) if !text.trim_end().contains('\n') => text.trim_end().to_owned(),
        _ => forged(draw),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn go_string(text: &str) -> String {
    let mut out = Vec::new();
    go::string(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn an_event_is_one_line_of_json_and_carries_forgeries() {
        let mut random = Random::new(1);
        let (mut with_forged, mut at_a_cut) = (0, 0);
        for number in 0..500 {
            let line = event(number, &mut |bound| random.below(bound as u64) as usize);
            assert!(!line.contains('\n'));
            let parsed: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let id = parsed["auditID"].as_str().expect("a text");
            assert!(id.ends_with(&number.to_string()) && id != FORGED_ID, "{line}");
            with_forged += usize::from(line.contains(FORGED_ID));
            at_a_cut += usize::from(line.match_indices(FORGED_HEAD).any(|(at, _)| at % PIECE_BYTES == 0));
        }
        assert!(with_forged > 400 && at_a_cut > 10, "{with_forged} {at_a_cut}");
    }
}
