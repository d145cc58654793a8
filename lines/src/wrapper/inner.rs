//! Finds lists of events inside the layers that shippers put around them.
//!
//! The API server sends batches to a webhook as an `EventList`. What receives them often writes the
//! batch as one text: Logstash and Vector into `message`, a container onto a line of its log. A hub
//! of Azure or a topic of Kafka has whole documents of a cloud as messages. The record of an element
//! is then the part of the line that spells it. In a string that part is escaped, without quotes:
//! `{\"kind\":\"Event\",…}`. This is a *spelling*, see [`unspelt`].
//!
//! Invariants:
//! - Lists are looked for only where an event would be looked for, and by the same rules about who
//!   wrote the text. What is beside the list in its own document is judged, too.
//! - A spelling is an event only if it is an element of a list, or is read again as a record. A line
//!   that begins like one is not, because it may be a piece of a client's string.
//! - The work is linear in the line. Nothing is kept here.

use std::ops::Range;

use strongroom_schemas::format::EVENTS_FORMAT;

use super::layers::{self, Around, Opened};
use super::trail::{self, Located, Trail};
use super::writers::Writers;
use super::{Beside, Content, Reading, bare_event, is_array, records, short_items};
use crate::dialect::Dialect;
use crate::json;
use crate::plain::PlainEvent;
use crate::reject::{Reason, Refusal};
use crate::tolerant;

/// An element of a list that is inside layers.
pub struct Element {
    /// Where the element is in the line.
    pub item: Range<usize>,
    /// Where its record is.
    pub record: Range<usize>,
    pub content: ElementContent,
}

/// What an element has.
pub enum ElementContent {
    /// An event, perhaps in layers of its own.
    Event,
    /// An event that is spelt in one or more strings.
    Spelling,
    /// The event that an entry was mapped to.
    Mapped(Box<PlainEvent>),
    Refused(Refusal),
}

/// Returns the elements of the list of events inside the layers of `line`, or at the path that is
/// configured. The caller knows that `line` is neither an event nor a list of events itself. `None` if
/// there is no such list.
pub fn inner_list(line: &[u8], depth_max: usize, reading: &Reading) -> Option<Opened<Vec<Element>>> {
    find(line, depth_max, reading, Lists::All)
}

/// Like [`inner_list`], for an element of a list, in which there may only be an `EventList`: a list of
/// the API server in a list of what collects its log.
pub fn inner_list_of_element(
    element: &[u8],
    depth_max: usize,
    writers: &Writers,
) -> Option<Opened<Vec<Element>>> {
    find(element, depth_max, &Reading { unwrap: None, writers: writers.clone() }, Lists::OfEvents)
}

/// Which lists are opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    All,
    /// Only an `EventList`.
    OfEvents,
}

fn find(line: &[u8], depth_max: usize, reading: &Reading, lists: Lists) -> Option<Opened<Vec<Element>>> {
    let writers = &reading.writers;
    // No line is opened again that cannot have an element.
    if !super::says_event(line) && memchr::memmem::find(line, b"protoPayload").is_none() {
        return None;
    }
    // An indented string may be a client's, on a line of a document of many lines.
    if line.first().is_some_and(u8::is_ascii_whitespace) {
        return None;
    }
    let mut judge = |text: &[u8], _, trail: &Trail<'_>| {
        list(text, depth_max, writers, lists, trail).ok_or_else(|| why_not(text, depth_max, writers))
    };
    let refusal = why_not(line, depth_max, writers);
    match (layers::open_lists(line, refusal.clone(), writers, &mut judge), &reading.unwrap) {
        (Ok(opened), _) => Some(opened),
        (Err(refused), Some(path)) if refused.reason != Reason::UntrustedOrigin => {
            let event = layers::open_lists_at(line, &refusal, path, writers, &mut judge).ok()?;
            Some(Opened { event, dialect: Dialect::OtherWrapper })
        }
        (Err(_), _) => None,
    }
}

/// Returns the event of a line whose layers have a list with nothing but this event.
///
/// # Errors
/// `refusal` if the line has no such list, or why its only element is not an event.
pub(super) fn only_inner(
    line: &[u8],
    refusal: Refusal,
    depth_max: usize,
    reading: &Reading,
) -> Result<PlainEvent, Refusal> {
    let writers = &reading.writers;
    let list = inner_list(line, depth_max, reading).map(|opened| opened.event);
    let Some([Element { record, content, .. }]) = list.as_deref() else { return Err(refusal) };
    let text = line.get(record.clone()).unwrap_or_default();
    match content {
        ElementContent::Refused(refusal) => Err(refusal.clone()),
        ElementContent::Mapped(event) => Ok(event.as_ref().clone()),
        ElementContent::Event => element(text, depth_max, writers),
        ElementContent::Spelling => spelling(text, depth_max, writers).unwrap_or(Err(refusal)),
    }
}

/// Returns the event of a record that is a spelling. `None` if the record is not one.
pub(super) fn spelling(
    record: &[u8],
    depth_max: usize,
    writers: &Writers,
) -> Option<Result<PlainEvent, Refusal>> {
    let text = unspelt(record)?;
    Some(
        element(&text, depth_max, writers)
            .or_else(|refusal| super::mapped_in(&text, Around::Literal, refusal, EVENTS_FORMAT)),
    )
}

fn element(text: &[u8], depth_max: usize, writers: &Writers) -> Result<PlainEvent, Refusal> {
    match text.starts_with(b"\"") {
        true => super::in_layers(text, super::not_a_string(), depth_max, writers),
        false => bare_event(text, depth_max, writers),
    }
}

/// Returns why `text` is not an event. That decides whether its layers are opened.
fn why_not(text: &[u8], depth_max: usize, writers: &Writers) -> Refusal {
    match bare_event(text, depth_max, writers) {
        Err(refusal) => refusal,
        Ok(_) => Refusal::new(Reason::BrokenJson, "an event"),
    }
}

fn list(
    text: &[u8],
    depth_max: usize,
    writers: &Writers,
    lists: Lists,
    trail: &Trail<'_>,
) -> Option<Vec<Element>> {
    // Elements whose texts cannot be found are left to the reject of the line.
    if let Some(items) = tolerant::list_items(text) {
        short_items(items.iter().map(|item| item.len())).ok()?;
        let beside = Beside::of_items(text, writers);
        let found = items.iter().map(|item| {
            let content = match &beside {
                Some(beside) => ElementContent::Refused(beside.refusal(item)),
                None => ElementContent::Event,
            };
            (range(text, item), range(text, item), content)
        });
        return located(found.collect(), trail);
    }
    let document = std::str::from_utf8(text).ok().filter(|_| lists == Lists::All)?;
    if !document.starts_with('{') && !is_array(text) {
        return None;
    }
    let mut found = Vec::new();
    for record in records(document, depth_max, writers).ok()? {
        let item = range(text, record.item.as_bytes());
        found.push(match record.content {
            Content::Event(value) => (item, range(text, value.as_bytes()), ElementContent::Event),
            Content::Mapped(event) => (item.clone(), item, ElementContent::Mapped(event)),
            Content::Refused(refusal) => (item.clone(), item, ElementContent::Refused(refusal)),
            Content::Foreign => return None,
        });
    }
    located(found, trail)
}

fn range(text: &[u8], part: &[u8]) -> Range<usize> {
    let start = trail::offset(text, part);
    start..start + part.len()
}

/// Returns the elements with their places in the line. `None` if none of them may be an event, or if
/// their places are not known.
fn located(
    found: Vec<(Range<usize>, Range<usize>, ElementContent)>,
    trail: &Trail<'_>,
) -> Option<Vec<Element>> {
    if found.iter().all(|(.., content)| matches!(content, ElementContent::Refused(_))) {
        return None;
    }
    let items = trail.locate(found.iter().map(|(item, ..)| item.clone()).collect())?;
    let Located { parts, strings } = trail.locate(found.iter().map(|(_, text, _)| text.clone()).collect())?;
    let places = items.parts.into_iter().zip(parts);
    let elements = found.into_iter().zip(places).map(|((.., content), (item, record))| {
        let content = match content {
            // The columns of a mapped entry are read from its record like all others.
            ElementContent::Event | ElementContent::Mapped(_) if strings > 0 => ElementContent::Spelling,
            content => content,
        };
        Element { item, record, content }
    });
    Some(elements.collect())
}

/// Returns the text of a *spelling*: an object or a string whose quotes are escaped, as it stands in
/// a string. `None` if `record` is not one.
pub fn unspelt(record: &[u8]) -> Option<Vec<u8>> {
    let mut text: Option<Vec<u8>> = None;
    for _ in 0..layers::LAYERS_MAX {
        let spelling = text.as_deref().unwrap_or(record);
        if !is_spelling(spelling) {
            break;
        }
        text = Some(json::unescaped(&[b"\"", spelling, b"\""].concat())?);
    }
    text
}

fn is_spelling(text: &[u8]) -> bool {
    let inner = text.strip_prefix(b"{").map_or(text, json::trim_start);
    inner.starts_with(b"\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","verb":"get"}"#;

    fn found(line: &str) -> Option<Vec<String>> {
        let list = inner_list(line.as_bytes(), 128, &Reading::default())?.event;
        let texts = list.into_iter().map(|element| match element.content {
            ElementContent::Refused(refusal) => refusal.detail,
            ElementContent::Mapped(_) => "mapped".to_owned(),
            ElementContent::Event => line[element.record].to_owned(),
            ElementContent::Spelling => {
                let text = unspelt(&line.as_bytes()[element.record]).expect(line);
                String::from_utf8(text).expect(line)
            }
        });
        Some(texts.collect())
    }

    #[test]
    fn lists_in_layers() {
        let stage =
            EVENT.replace("\"get\"", "\"watch\",\"stage\":\"Panic\",\"userAgent\":\"a\\\\b\\u00e9\\\"\"");
        let list =
            format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{EVENT}, {stage}]}}"#);
        let array = format!("[{EVENT},{stage}]");
        let azure = format!(
            r#"{{"records":[{{"category":"kube-audit","properties":{{"log":{}}}}},{{"category":"kube-audit","properties":{{"log":{}}}}}]}}"#,
            serde_json::Value::from(EVENT),
            serde_json::Value::from(stage.as_str()),
        );
        let text = |text: &str| serde_json::Value::from(text).to_string();
        for list in [list.as_str(), array.as_str()] {
            let once = text(list);
            for line in [
                format!("2026-03-02T10:00:00.000000001Z stdout F {list}"),
                format!(r#"{{"@timestamp":"t","@version":"1","message":{once}}}"#),
                format!(r#"{{"message": {}}}"#, text(&format!(" {list}\n"))),
                format!("{once} "),
                format!(r#"{{"log":{},"stream":"stdout"}}"#, text(&format!(r#"{{"message":{once}}}"#))),
                format!(
                    r#"{{"message":{}}}"#,
                    text(&format!("2026-03-02T10:00:00.000000001Z stdout F {list}"))
                ),
            ] {
                assert_eq!(found(&line), Some(vec![EVENT.to_owned(), stage.clone()]), "{line}");
            }
        }
        let line = format!(r#"{{"event":{list},"sourcetype":"x"}}"#);
        assert_eq!(found(&line), Some(vec![EVENT.to_owned(), stage.clone()]));
        let line = format!(r#"{{"message":{}}}"#, text(&azure));
        let texts = [EVENT, stage.as_str()].map(text);
        assert_eq!(found(&line), Some(texts.to_vec()));
    }

    #[test]
    fn a_list_of_another_writer_is_not_taken() {
        let list = format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{EVENT}]}}"#);
        let text = serde_json::Value::from(list.as_str()).to_string();
        for line in [
            format!(r#"{{"log":{text},"kubernetes":{{"namespace_name":"shop","container_name":"web"}}}}"#),
            format!("2026-03-02T10:00:00.000000001Z stderr F {list}"),
            format!("I0302 10:00:00.000001       1 server.go:100] {list}"),
            format!(r#"{{"kind":"Status","message":{text}}}"#),
            format!(r#"{{"x":{text}}}"#),
        ] {
            assert_eq!(found(&line), None, "{line}");
        }
        let beside = list.replace("]}", r#"],"kubernetes":{"container_name":"web"}}"#);
        let line = format!(r#"{{"message":{}}}"#, serde_json::Value::from(beside));
        assert_eq!(found(&line), None, "{line}");
    }

    #[test]
    fn spellings() {
        for (spelling, text) in [
            (r#"{\"a\":1}"#, Some(r#"{"a":1}"#)),
            (r#"{\n  \"a\": \"\\\"\"}"#, Some("{\n  \"a\": \"\\\"\"}")),
            (r#"{ \"a\":1}"#, Some(r#"{ "a":1}"#)),
            (r#"\"{\\\"a\\\":1}\""#, Some(r#""{\"a\":1}""#)),
            (r#"{\\\"a\\\":1}"#, Some(r#"{"a":1}"#)),
            (r#"{"a":"\\"}"#, None),
            (r#"{\"a":1}"#, None),
            (r#""{\"a\":1}""#, None),
            ("{\\\"a\\\":\n1}", None),
        ] {
            assert_eq!(unspelt(spelling.as_bytes()).as_deref(), text.map(str::as_bytes), "{spelling}");
        }
    }
}
