//! No text that a client of the cluster controls is taken for an event, in any dialect.
//!
//! Method: honest events, with hostile text in every member that a client chooses, are rendered in
//! a dialect. Then exactly these events must come out of the stream, with all their values, however
//! the stream is cut into blocks and wherever it stopped and grew. If a part of the stream is
//! missing, every event that comes out must be one of them.

use std::collections::HashSet;

use serde_json::Value;
use strongroom_generate::dialect::{self, Dialect};
use strongroom_generate::hostile::{self, Draw};
use strongroom_lines::plain::{self, PlainEvent};
use strongroom_lines::{DEPTH_MAX, LINE_BYTES_MAX};

use super::{Options, Row, decoded, grown};

/// Lines that an API server and a container's runtime write beside events. `{}` stands for a
/// client's text, in the form in which these programs write it.
const OTHER_LINES: [&str; 3] = [
    "I0302 10:00:00.000001       1 server.go:100] {}",
    r#"{"ts":1.5,"caller":"a.go:1","msg":{},"v":1}"#,
    "2026-03-02T10:00:00.1Z stderr F E0302 10:00:00.000001       1 a.go:1] {}",
];

const SHOWN_BYTES: usize = 400;

/// Makes a stream from the choices of `draw`, and checks the events that come out of it.
///
/// # Panics
/// When an event is forged, lost or changed.
pub fn check(draw: &mut Draw<'_>) {
    let dialect = Dialect::ALL[draw(Dialect::ALL.len())];
    let is_of_lines = !matches!(dialect, Dialect::Array | Dialect::Pretty | Dialect::GcloudRead);
    let mut stream = Vec::new();
    let mut honest = Vec::new();
    for number in 0..1 + draw(3) {
        if is_of_lines && draw(4) == 0 {
            let text = serde_json::to_string(&hostile::text(draw)).expect("a text");
            stream.extend(OTHER_LINES[draw(OTHER_LINES.len())].replace("{}", &text).into_bytes());
            stream.push(b'\n');
        }
        let event = hostile::event(number, draw);
        let before = stream.len();
        dialect::render(&event, dialect, &mut stream).expect("one event on one line");
        if stream.len() > before {
            honest.push(plain::decode(event.as_bytes(), DEPTH_MAX).expect("an event"));
        }
    }
    // Google has no entry for a request that was only received.
    if stream.is_empty() {
        return;
    }
    let options = Options::default();
    let length = stream.len();
    match draw(6) {
        0 => exactly(&decoded(&stream, &options, &mut || usize::MAX), &honest, dialect, "in one block"),
        1 => {
            let rows = decoded(&stream, &options, &mut || 1 + draw(40_000));
            exactly(&rows, &honest, dialect, "in blocks");
        }
        2 => {
            let stops = [draw(length), draw(length)];
            let rows = grown(&stream, &options, &stops);
            exactly(&rows, &honest, dialect, &format!("of {length} bytes, stopped at {stops:?}"));
        }
        3 => none_forged(&stream[..draw(length)], &honest, dialect),
        4 => none_forged(&torn(&stream, draw), &honest, dialect),
        _ => none_forged(beginning(&stream, draw), &honest, dialect),
    }
}

/// Returns the stream of a writer that stopped in the middle of a line, and wrote its next line
/// right after that.
fn torn(stream: &[u8], draw: &mut Draw<'_>) -> Vec<u8> {
    let from = draw(stream.len());
    let line_end = memchr::memchr(b'\n', &stream[from..]).map_or(stream.len(), |at| from + at);
    let to = if draw(2) == 0 { line_end } else { (line_end + 1).min(stream.len()) };
    [&stream[..from], &stream[to..]].concat()
}

/// Returns the stream without its beginning. It never begins right before a list: if the first
/// element of a list is an event, nothing shows that the list is not a document of events.
fn beginning<'s>(stream: &'s [u8], draw: &mut Draw<'_>) -> &'s [u8] {
    let rest = &stream[draw(stream.len())..];
    if rest.trim_ascii_start().starts_with(b"[") { stream } else { rest }
}

/// Asserts that the events are the honest ones, in their order.
fn exactly(rows: &[Row], honest: &[PlainEvent], dialect: Dialect, how: &str) {
    let shown = || format!("{how}: {rows:#?}");
    let found: Vec<&PlainEvent> = rows.iter().filter_map(Row::event).collect();
    for (found, honest) in found.iter().zip(honest) {
        if dialect.is_mapped() {
            let identity = |event: &PlainEvent| (event.audit_id.clone(), event.user_name.clone());
            assert_eq!(identity(found), identity(honest), "{}: {}", dialect.name(), shown());
        } else {
            assert_eq!(by_value(found), by_value(honest), "{}: {}", dialect.name(), shown());
        }
    }
    assert_eq!(found.len(), honest.len(), "{}: {}", dialect.name(), shown());
}

/// Asserts that each event is an honest one, or what is left of one, however the rest of the stream
/// is read.
fn none_forged(stream: &[u8], honest: &[PlainEvent], dialect: Dialect) {
    let honest: HashSet<_> = honest.iter().map(|event| event.audit_id.clone()).collect();
    for line_bytes_max in [LINE_BYTES_MAX, 512] {
        let options = Options { line_bytes_max, ..Options::default() };
        for row in decoded(stream, &options, &mut || usize::MAX) {
            let Some(event) = row.event() else { continue };
            let is_honest = honest.contains(&event.audit_id);
            assert!(is_honest, "{}: {row:?}\nafter {}", dialect.name(), before(stream, &row));
        }
    }
}

/// Returns the end of the text before a row, for a message.
fn before(stream: &[u8], row: &Row) -> String {
    let text = &stream[..usize::try_from(row.at()).unwrap_or(0).min(stream.len())];
    String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN_BYTES)..]).into_owned()
}

/// Returns the event with its JSON members rewritten in one format, because some writers sort or
/// indent them.
fn by_value(event: &PlainEvent) -> PlainEvent {
    let mut event = event.clone();
    for json in [
        &mut event.user_extra,
        &mut event.impersonated_user_extra,
        &mut event.response_details,
        &mut event.request_object,
        &mut event.response_object,
        &mut event.annotations,
    ] {
        *json = json.take().map(|text| {
            let mut value: Value = serde_json::from_str(&text).expect("JSON");
            value.sort_all_objects();
            value.to_string()
        });
    }
    event
}
