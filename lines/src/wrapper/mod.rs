//! Unwraps what clouds, shippers, runtimes and loggers put around events.
//!
//! A cloud delivers audit events inside its own documents. A document may have many events, an
//! event may be escaped into a string, and records of other logs may be beside it. [`records`]
//! finds the events of such a document. `layers` opens what is around one event on its line.
//! Invariants:
//! - A document that is not an audit event is recognised as a wrapper by its members. Its events
//!   are found where the cloud puts them, and deeper levels are not searched. So text that a client
//!   sent stays in a body, and never becomes an event. A list inside a list is not opened, except
//!   in a JSON array.
//! - Each element of a wrapper is one [`Record`]: an event, or refused with a reason. An element of
//!   another log is refused as [`Reason::OtherCategory`], so it is counted and kept. The log of an
//!   element is known from the cloud's name for the log, not from the element's content, because
//!   writers to other logs could forge events.
//! - The levels of a wrapper do not count towards the depth of an event in it. The body of a Google
//!   entry that is too deep is left out, and the entry is still mapped. Nothing here recurses.
//! - The work is linear in the document, and a document of n bytes gives at most `SHORT_ITEMS_MAX +
//!   n / ITEM_BYTES_MIN` records.
//!
//! The archive's record is the value that contains the event: an object, or a string literal, which
//! is then the row's `raw`. The bytes around that value are frame. A Google `LogEntry` contains no
//! event: it is mapped to one, and the whole entry is the record. No state.

mod aks;
mod damaged;
mod eks;
mod gke;
mod inner;
mod layers;
mod lists;
mod origin;
mod parts;
mod path;
mod prefix;
mod seen;
mod trail;
mod writers;

use serde_json::value::RawValue;
use strongroom_schemas::format::EVENTS_FORMAT;

use crate::dialect::Dialect;
use crate::json::{self, Members, WHITE};
use crate::limits::DEPTH_MAX;
use crate::plain::{self, PlainEvent, Refused};
use crate::reject::{Reason, Refusal};
use crate::tolerant;

use self::origin::Other;

pub use damaged::{Damaged, is_frame};
pub use eks::export_head;
pub use gke::SHAPE as SHAPE_GOOGLE;
pub use inner::{Element, ElementContent, inner_list, inner_list_of_element, unspelt};
pub use layers::{Around, AtPath, Opened, open_at, open_carrier, text_of_parts};
pub(crate) use layers::{Follows, follows, is_between_parts, is_part};
pub use path::{EventPath, PATH_BYTES_MAX, PATH_NAMES_MAX, PathError, SHAPE_UNWRAP};
pub use seen::with_place;
pub use writers::{WRITER_BYTES_MAX, WRITERS_MAX, Writer, WriterError, Writers};

/// A list of at most this many items may have items of any length; a longer list must have long
/// items, see [`ITEM_BYTES_MIN`]. The API server sends lists of some hundreds.
pub const SHORT_ITEMS_MAX: usize = 64;
/// Smallest mean length of the items of a longer list, in bytes. No audit event is shorter. Without
/// this bound a short line of empty items would become millions of rows.
pub const ITEM_BYTES_MIN: usize = 64;

/// Maximum number of parts of a record that are tried as the beginning of a second event.
const SECOND_EVENTS_MAX: usize = 4;

/// The service that a wrapper comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Azure,
    CloudWatch,
    CloudWatchCli,
    Firehose,
    Google,
    Loki,
    OpenTelemetry,
}

impl Kind {
    /// Returns the kind of wrapper that has these members.
    pub(crate) fn of(keys: &[&str]) -> Option<Kind> {
        let has = |key: &str| keys.contains(&key);
        // No cloud's document has these members. A document with one of them comes from Kubernetes,
        // and is not a wrapper.
        if has("kind") || has("auditID") {
            return None;
        }
        if has("requestId") && has("records") {
            Some(Kind::Firehose)
        } else if has("records") || (has("category") && has("properties")) {
            Some(Kind::Azure)
        } else if has("logEvents") && has("messageType") {
            Some(Kind::CloudWatch)
        } else if has("resourceLogs") {
            Some(Kind::OpenTelemetry)
        } else if has("streams") || (has("stream") && has("values")) {
            Some(Kind::Loki)
        } else if has("events") {
            Some(Kind::CloudWatchCli)
        } else if has("logName")
            && (has("protoPayload") || (has("insertId") && (has("textPayload") || has("jsonPayload"))))
        {
            Some(Kind::Google)
        } else {
            None
        }
    }

    /// Members that do not say who wrote the wrapper.
    const fn held(self) -> &'static [&'static str] {
        match self {
            Kind::Azure => &["records", "properties"],
            Kind::CloudWatch => &["logEvents", "logGroup", "logStream"],
            Kind::CloudWatchCli => &["events", "searchedLogStreams"],
            Kind::Firehose => &["records"],
            Kind::Google => &["protoPayload", "jsonPayload", "textPayload", "resource", "labels", "logName"],
            Kind::Loki => &["streams", "stream", "values"],
            Kind::OpenTelemetry => &["resourceLogs"],
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Azure => "wrapped by Azure diagnostic settings (Event Hub or blob export)",
            Kind::CloudWatch => "wrapped by an AWS CloudWatch Logs subscription",
            Kind::CloudWatchCli => "wrapped by the command line of AWS CloudWatch Logs",
            Kind::Firehose => "wrapped by AWS Firehose for an HTTP endpoint",
            Kind::Google => "wrapped by Google Cloud Logging",
            Kind::Loki => "wrapped by Grafana Loki",
            Kind::OpenTelemetry => "wrapped by OpenTelemetry",
        }
    }
}

/// One element of a wrapper.
pub struct Record<'d> {
    /// The element's text, a slice of the document.
    pub item: &'d str,
    pub content: Content<'d>,
    /// The dialect of an event in this element.
    pub dialect: Dialect,
}

impl<'d> Record<'d> {
    /// Returns the same element, refused because of what is beside its list. If the element was
    /// refused already, it keeps that refusal.
    fn refused(self, beside: &Beside) -> Record<'d> {
        let content = match self.content {
            Content::Refused(own) => Content::Refused(own),
            Content::Event(value) => Content::Refused(beside.refusal(value.as_bytes())),
            Content::Mapped(_) => Content::Refused(beside.refusal_of(true)),
            Content::Foreign => Content::Refused(beside.refusal(self.item.as_bytes())),
        };
        Record { content, ..self }
    }
}

/// What an element of a wrapper contains.
pub enum Content<'d> {
    /// The value that contains the event, a slice of `item`: an object, or a string in which it is
    /// escaped.
    Event(&'d str),
    /// The event that an entry was mapped to. The entry has the same information as the event, or a
    /// part of it, under other names.
    Mapped(Box<PlainEvent>),
    /// An object of an array whose first element does not belong to a log. An event is taken from
    /// such an object only if the source is configured with the event's path.
    Foreign,
    Refused(Refusal),
}

/// Returns the records of `document`, in order. There is at least one. Depth is checked only for
/// entries that are mapped.
///
/// # Errors
/// If the document is not a wrapper that is opened, or is nested too deeply.
pub fn records<'d>(
    document: &'d str,
    depth_max: usize,
    writers: &Writers,
) -> Result<Vec<Record<'d>>, Refusal> {
    let document = document.trim_matches(WHITE);
    match is_array(document.as_bytes()) {
        true => lists::array(document, depth_max, writers),
        false => records_of_object(document, depth_max, writers),
    }
}

fn records_of_object<'d>(
    document: &'d str,
    depth_max: usize,
    writers: &Writers,
) -> Result<Vec<Record<'d>>, Refusal> {
    let unknown = || Refusal::new(Reason::Wrapped, "an unknown wrapper");
    let members: Members<'_> = serde_json::from_str(document).map_err(|_| unknown())?;
    let kind = Kind::of(&keys(&members)).ok_or_else(unknown)?;
    let records = match kind {
        Kind::Azure => aks::records(document, &members, writers)?,
        Kind::CloudWatch => eks::records(document, &members, writers)?,
        Kind::CloudWatchCli => lists::cloud_watch_cli(&members, writers)?,
        Kind::Google => vec![gke::record(document, &members, depth_max, EVENTS_FORMAT, writers)?],
        Kind::Loki => lists::loki(&members, writers)?,
        Kind::OpenTelemetry => lists::open_telemetry(&members, writers)?,
        Kind::Firehose => return Err(Refusal::new(Reason::Wrapped, kind.name())),
    };
    if records.is_empty() {
        return Err(Refusal::new(Reason::Wrapped, format!("{}, without a record", kind.name())));
    }
    Ok(match Beside::of(&members, kind.held(), writers) {
        None => records,
        Some(beside) => records.into_iter().map(|record| record.refused(&beside)).collect(),
    })
}

/// Why the events in a list are not taken, if the members beside the list say so. A pod may print a
/// list, too, and a shipper that parses the list puts its own members beside those of the pod.
pub struct Beside(BesideKind);

enum BesideKind {
    Other(Other),
    Part(Refusal),
}

impl Beside {
    /// Judges the members beside a list. `held` names the members that are not judged here: the
    /// list itself, members that were judged before, and members that belong to the entry.
    fn of(members: &Members<'_>, held: &[&str], writers: &Writers) -> Option<Beside> {
        let is_held = |name: &str| held.contains(&name);
        let held: Vec<&RawValue> =
            members.0.iter().filter(|(name, _)| is_held(name)).map(|(_, value)| *value).collect();
        let other = origin::Origin::of(members, &held).other(writers).map(BesideKind::Other);
        other.or_else(|| parts::unjoined(members).map(BesideKind::Part)).map(Beside)
    }

    /// Judges the members beside the items of the `EventList` in `text`.
    pub fn of_items(text: &[u8], writers: &Writers) -> Option<Beside> {
        Beside::of_text(text, &["items"], writers)
    }

    /// Like [`of`](Self::of), for a text that may not be UTF-8. Members that cannot be read may name a
    /// writer, so they refuse the events, unless every writer is believed.
    fn of_text(text: &[u8], held: &[&str], writers: &Writers) -> Option<Beside> {
        let text = damaged::readable(text);
        match serde_json::from_slice(&text) {
            Ok(members) => Beside::of(&members, held, writers),
            Err(_) if writers.is_anyone() => None,
            Err(_) => Some(Beside(BesideKind::Other(Other::of_log("a writer whose name cannot be read")))),
        }
    }

    /// Refuses what follows the last event of a list that is printed over many lines, if it names a
    /// writer that is not believed. Such a list is read as it comes, so its events were taken before.
    pub fn after_list(tail: &[u8], writers: &Writers) -> Option<Refusal> {
        let tail = json::trim_start(tail);
        if !tail.starts_with(b"]") || !tail.contains(&b'"') {
            return None;
        }
        let list = [b"{\"\":[", tail].concat();
        let refusal = Beside::of_text(&list, &["", "searchedLogStreams"], writers)?.refusal_of(true);
        let after = "as the members after a list say, whose events were taken before these members were read";
        Some(Refusal::new(refusal.reason, format!("{}, {after}", refusal.detail)))
    }

    /// Refuses an element of the list.
    pub fn refusal(&self, element: &[u8]) -> Refusal {
        self.refusal_of(says_event(element))
    }

    fn refusal_of(&self, is_event: bool) -> Refusal {
        match &self.0 {
            BesideKind::Other(other) => other.refusal(is_event),
            BesideKind::Part(refusal) => refusal.clone(),
        }
    }
}

/// Whether `text` begins like a JSON array.
pub fn is_array(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"[")
}

/// Returns where the second event begins in a record that was joined from the parts of a
/// container's lines, if there are two: the last part of the first event is missing, and the second
/// event is whole.
///
/// A client cannot make a part of its event look like a second event: the text from that part to
/// the end of the event is not JSON, because it closes what the parts before it opened.
pub fn second_event(record: &[u8], depth_max: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', record)
        .map(|newline| newline + 1)
        .filter(|at| record.get(*at..).is_some_and(layers::begins_event))
        .take(SECOND_EVENTS_MAX)
        .find(|at| {
            let event = record.get(*at..).map(|rest| decode_alone(rest, depth_max));
            event.is_some_and(|event| event.is_ok_and(|event| !event.is_cut()))
        })
}

/// Whether `text` is an event, or an object that an audit log may contain: an entry, a wrapper, or
/// an object that may hold an event.
pub(crate) fn is_of_log(text: &[u8]) -> bool {
    let mut text = text;
    // A list is judged by its first element.
    if text.starts_with(b"[") {
        while let Some(inner) = text.strip_prefix(b"[") {
            text = json::trim_start(inner);
        }
        text = tolerant::value_end(text, 0).and_then(|(end, _)| text.get(..end)).unwrap_or_default();
    }
    // A null or a number does not show that the text belongs to something else.
    if !text.starts_with(b"{") && !text.starts_with(b"\"") {
        return true;
    }
    match bare_event(text, DEPTH_MAX, &Writers::UNJUDGED) {
        Ok(_) => true,
        Err(refusal) => {
            refusal.reason == Reason::Wrapped
                || is_wrapper(text)
                || layers::is_carrier(text)
                || tolerant::list_items(text).is_some()
        }
    }
}

/// Whether `text` is an object with the members of a wrapper or an entry, however deep it is.
fn is_wrapper(text: &[u8]) -> bool {
    serde_json::from_slice::<Members<'_>>(text).is_ok_and(|members| Kind::of(&keys(&members)).is_some())
}

/// Whether an element of an array belongs to a log. An element that is a string may have an event
/// in it: the command line of AWS prints such arrays with `--query 'events[].message'`.
pub(crate) fn is_element_of_log(text: &[u8]) -> bool {
    if !text.starts_with(b"\"") {
        return is_of_log(text);
    }
    let inner: Option<String> = serde_json::from_slice(text).ok();
    inner.is_some_and(|inner| {
        let inner = inner.trim_ascii();
        inner.starts_with('{') && is_of_log(inner.as_bytes())
    })
}

/// Returns why `text` is not taken: it is in an array whose first element does not belong to a log.
/// Such an array may be a list that a client sent, cut out of its event.
pub fn refusal_in_foreign_list(text: &[u8]) -> Refusal {
    match is_of_log(text) {
        true => {
            Refusal::new(Reason::TornLine, "in an array whose first element does not belong to an audit log")
        }
        false => Refusal::new(Reason::NotAnAuditEvent, "in an array that does not belong to an audit log"),
    }
}

/// Opens the layers around one event. A text in an [`Around::Literal`] or an [`Around::Carrier`]
/// may also be an entry that is mapped to an event. `judge` gets each text in the layers; `refusal`
/// is why `judge` refused `text` itself.
///
/// # Errors
/// Why the innermost text is not an event, or `refusal` if there is no layer.
pub fn open<T>(
    text: &[u8],
    refusal: Refusal,
    writers: &Writers,
    judge: &mut layers::Judge<'_, T>,
) -> Result<Opened<T>, Refusal> {
    layers::open(text, refusal, writers, judge)
}

/// Returns the event that a text in a layer is mapped to, if it may be an entry. `refusal` says why
/// it is not an event.
///
/// # Errors
/// Why the entry is not mapped, or `refusal` if the text is not an entry.
pub fn mapped_in(text: &[u8], around: Around, refusal: Refusal, format: u32) -> Result<PlainEvent, Refusal> {
    match std::str::from_utf8(text) {
        Ok(text)
            if matches!(refusal.reason, Reason::Wrapped | Reason::TooDeep) && around != Around::Prefix =>
        {
            mapped(text, format)
                .map_err(|other| if other.reason == Reason::Wrapped { refusal } else { other })
        }
        _ => Err(refusal),
    }
}

/// Returns the event that `document` is mapped to by the rules of an `eventsFormat`, if it is an
/// entry of Google Cloud Logging.
///
/// # Errors
/// Why the document is not mapped.
pub fn mapped(document: &str, format: u32) -> Result<PlainEvent, Refusal> {
    let unknown = || Refusal::new(Reason::Wrapped, "a wrapper that is not a record");
    let members: Members<'_> = serde_json::from_str(document).map_err(|_| unknown())?;
    if Kind::of(&keys(&members)) != Some(Kind::Google) {
        return Err(unknown());
    }
    match gke::record(document, &members, DEPTH_MAX, format, &Writers::SERVERS)?.content {
        Content::Mapped(event) => Ok(*event),
        Content::Refused(refusal) => Err(refusal),
        Content::Event(_) | Content::Foreign => Err(unknown()),
    }
}

/// Decodes one event, bare or alone in a wrapper, with the plain decoder. Tests and fuzzing compare
/// the fast decoder with this function.
///
/// # Errors
/// The [`Refusal`] that the line is rejected with.
pub fn decode_alone(bytes: &[u8], depth_max: usize) -> Result<PlainEvent, Refusal> {
    decode_alone_of(bytes, &Reading::default(), depth_max)
}

/// Like [`decode_alone`], for a source with settings of its own.
///
/// # Errors
/// Like [`decode_alone`].
pub fn decode_alone_of(bytes: &[u8], reading: &Reading, depth_max: usize) -> Result<PlainEvent, Refusal> {
    let writers = &reading.writers;
    let refusal = match bare_event(bytes, depth_max, writers) {
        Ok(event) => return Ok(event),
        Err(refusal) => refusal,
    };
    let only = only_event(bytes, refusal.clone(), depth_max, writers).or_else(|refused| {
        if refused.reason == Reason::UntrustedOrigin {
            return Err(refused);
        }
        let mut judge = |text: &[u8], _| bare_event(text, depth_max, writers);
        let at_path =
            reading.unwrap.as_ref().and_then(|path| open_at(bytes, &refusal, path, writers, &mut judge).ok());
        at_path.ok_or(refused)
    });
    only.or_else(|refused| match refused.reason {
        Reason::UntrustedOrigin => Err(refused),
        _ => inner::only_inner(bytes, refused, depth_max, reading),
    })
}

/// Like [`decode_alone_of`], for the record of a row. Such a record may also be a spelling: an element
/// of a list, with the escapes of the string that it was found in (see [`unspelt`]). A line of a log
/// that looks like a spelling is not an event.
///
/// # Errors
/// Like [`decode_alone`].
pub fn decode_record(record: &[u8], reading: &Reading, depth_max: usize) -> Result<PlainEvent, Refusal> {
    inner::spelling(record, depth_max, &reading.writers)
        .unwrap_or_else(|| decode_alone_of(record, reading, depth_max))
}

/// How the records of a source are read, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Where the event is in an object in which no wrapper is recognised.
    pub unwrap: Option<EventPath>,
    /// Whose texts are believed.
    pub writers: Writers,
}

/// Whether `text` has the names of an audit event's members, so that an event, whole or cut, may be
/// in it, in any layers.
fn says_event(text: &[u8]) -> bool {
    let has = |name: &[u8]| memchr::memmem::find(text, name).is_some();
    has(b"auditID") && (has(b"audit.k8s.io") || has(b"requestURI") || has(b"stageTimestamp"))
        || has(b"protoPayload") && has(b"k8s_cluster")
}

/// Refuses the element of a list whose text is in `value`, because `other` wrote it.
fn refused_for(other: &Other, value: Option<&RawValue>) -> Refusal {
    other.refusal(value.is_some_and(|value| says_event(value.get().as_bytes())))
}

/// Decodes one bare event with the plain decoder. A document that is a wrapper is refused as
/// [`Reason::Wrapped`].
///
/// # Errors
/// The [`Refusal`] that the bytes are rejected with.
pub fn bare_event(bytes: &[u8], depth_max: usize, writers: &Writers) -> Result<PlainEvent, Refusal> {
    bare_event_of(bytes, depth_max, EVENTS_FORMAT, writers)
}

/// Like [`bare_event`], by the rules of an `eventsFormat`.
///
/// # Errors
/// Like [`bare_event`].
pub fn bare_event_of(
    bytes: &[u8],
    depth_max: usize,
    format: u32,
    writers: &Writers,
) -> Result<PlainEvent, Refusal> {
    let beside = |name: &str, value: Option<&str>| match value {
        Some(value) => other_beside(name, value, writers),
        None => origin::unread_beside(name, writers),
    };
    plain::read(bytes, depth_max, format, &beside).map_err(|Refused { refusal, members }| {
        let kind = members.and_then(|members| Kind::of(&keys(&members)));
        kind.map_or(refusal, |kind| Refusal::new(Reason::Wrapped, kind.name()))
    })
}

/// Refuses an event because of a member beside its own, if that member names a writer that is not
/// believed.
pub fn other_beside(name: &str, value: &str, writers: &Writers) -> Option<Refusal> {
    origin::other_beside(name, serde_json::from_str(value).ok()?, writers)
}

/// Returns the refusal of a cut event that is not taken.
pub fn refusal_of_cut(bytes: &[u8], depth_max: usize) -> Refusal {
    plain::members(bytes, depth_max).err().unwrap_or_else(|| Refusal::new(Reason::BrokenJson, "cut"))
}

fn keys<'m>(members: &'m Members<'_>) -> Vec<&'m str> {
    members.0.iter().map(|(key, _)| key.as_ref()).collect()
}

/// Returns the event of `bytes`, a line with exactly one record, by the same rules as the decoder.
fn only_event(
    bytes: &[u8],
    refusal: Refusal,
    depth_max: usize,
    writers: &Writers,
) -> Result<PlainEvent, Refusal> {
    let is_list = matches!(refusal.reason, Reason::Wrapped | Reason::TooDeep);
    if let (true, Ok(text)) = (is_list, std::str::from_utf8(bytes)) {
        match records_of_object(text.trim_matches(WHITE), depth_max, writers) {
            Err(_) if refusal.reason == Reason::TooDeep => {}
            records => return only_record(records?, refusal, depth_max, writers),
        }
    }
    in_layers(bytes, refusal, depth_max, writers)
}

fn only_record(
    mut records: Vec<Record<'_>>,
    refusal: Refusal,
    depth_max: usize,
    writers: &Writers,
) -> Result<PlainEvent, Refusal> {
    match (records.pop().map(|record| record.content), records.is_empty()) {
        (Some(Content::Event(value)), true) if value.starts_with('"') => {
            in_layers(value.as_bytes(), not_a_string(), depth_max, writers)
        }
        (Some(Content::Event(value)), true) => bare_event(value.as_bytes(), depth_max, writers)
            .or_else(|refusal| in_layers(value.as_bytes(), refusal, depth_max, writers)),
        (Some(Content::Mapped(event)), true) => Ok(*event),
        (Some(Content::Refused(refusal)), true) => Err(refusal),
        (Some(Content::Foreign), _) | (_, false) | (None, true) => Err(refusal),
    }
}

fn in_layers(
    bytes: &[u8],
    refusal: Refusal,
    depth_max: usize,
    writers: &Writers,
) -> Result<PlainEvent, Refusal> {
    open(bytes, refusal, writers, &mut |text, around| {
        bare_event(text, depth_max, writers)
            .or_else(|refusal| mapped_in(text, around, refusal, EVENTS_FORMAT))
    })
    .map(|opened| opened.event)
}

/// Returns `text` without the white space around it, if it begins like a string literal.
pub fn literal(text: &[u8]) -> Option<&[u8]> {
    Some(json::trim(text)).filter(|text| text.starts_with(b"\""))
}

/// Refuses a string literal that is not JSON.
pub fn not_a_string() -> Refusal {
    Refusal::new(Reason::BrokenJson, "an escaped event that is not a JSON string")
}

/// Refuses a list of more than [`SHORT_ITEMS_MAX`] items, if the items are on average too short to
/// be events. `lengths` are the lengths of the items.
///
/// # Errors
/// The [`Refusal`] of the list.
pub fn short_items(lengths: impl ExactSizeIterator<Item = usize>) -> Result<(), Refusal> {
    let count = lengths.len();
    if count <= SHORT_ITEMS_MAX {
        return Ok(());
    }
    let mean = lengths.sum::<usize>() / count;
    if mean < ITEM_BYTES_MIN {
        return Err(Refusal::new(Reason::ShortItems, format!("{count} items of {mean} bytes on average")));
    }
    Ok(())
}

/// Returns the elements of the list in the member `name`. There are none if the member is absent or
/// null.
fn items<'d>(name: &str, members: &Members<'d>) -> Result<Vec<&'d RawValue>, Refusal> {
    let Some(value) = json::member(members, name) else { return Ok(Vec::new()) };
    let items: Option<Vec<&RawValue>> =
        serde_json::from_str(value.get()).map_err(|_| Refusal::field(name, "an array"))?;
    let items = items.unwrap_or_default();
    short_items(items.iter().map(|item| item.get().len()))?;
    Ok(items)
}

/// Takes `value` as the value that contains an event, if it is an object or a string. Otherwise
/// refuses it.
fn event<'d>(name: &str, value: Option<&'d RawValue>) -> Content<'d> {
    match value.map(RawValue::get) {
        Some(value) if value.starts_with(['"', '{']) => Content::Event(value),
        _ => Content::Refused(Refusal::field(name, "an event, as an object or in a string")),
    }
}
