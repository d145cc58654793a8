//! Takes an event out of what shippers, runtimes and loggers put around it, layer by layer.
//!
//! A layer is a string literal, a [`prefix`], or a *carrier*: an object that has the event, as an
//! object or as text, in one of the members [`PATHS`]. The innermost text may also be a list of
//! events, see [`super::inner`]. Invariants:
//! - A text that is an audit event is never opened, so text that a client sent stays in a body.
//! - No text is searched for an event. A text is opened as a whole, and only at the places that are
//!   listed here.
//! - Text is refused if its writer is not believed (see [`super::origin`]), because any pod may
//!   print text that looks like an event. Standard error is refused too, because the API server
//!   logs there what clients send.
//! - At most [`LAYERS_MAX`] layers are opened. Every layer is linear in its text, and the texts in
//!   one layer do not overlap, so the work is linear. No state.
//!
//! Callers pass a function that judges each text. That of the decoder pushes a row for the event,
//! and that of [`super::decode_alone`] returns the event. So both open the same layers.

use serde_json::value::RawValue;

use super::origin::{Origin, Other, standard_error};
use super::path::EventPath;
use super::prefix::{self, ContainerLine, Prefix};
use super::trail::{Step, Trail};
use super::writers::Writers;
use super::{Kind, eks, keys, literal, parts, says_event, trail};
use crate::dialect::Dialect;
use crate::json::{self, Members};
use crate::plain;
use crate::reject::{Reason, Refusal};
use crate::swar;

/// Maximum number of layers around an event.
pub(super) const LAYERS_MAX: usize = 4;

/// The members that hold the event of a carrier, as paths of names. The first path that leads to an
/// event is used.
const PATHS: [&[&str]; 21] = [
    &["log"],
    &["message"],
    &[MESSAGE],
    &["msg"],
    &["event"],
    &["event", "original"],
    &["event", "log"],
    &["event", "message"],
    &["json"],
    &["log_processed"],
    &["structured"],
    &["kubernetes", "audit"],
    &["body"],
    &["body", "stringValue"],
    &["payload"],
    &["data"],
    &["log_s"],
    &["line"],
    &["_raw"],
    &["full_message"],
    &["short_message"],
];

/// The member in which journald keeps a line. If the line is not UTF-8, or has a character that
/// cannot be printed, `journalctl` writes it as a list of byte values. A client can cause this with
/// a single character.
const MESSAGE: &str = "MESSAGE";

/// The layer that a text was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    /// A string in which the text is escaped.
    Literal,
    /// Text that a logger or a runtime wrote before the event, on the same line.
    Prefix,
    /// An object of a shipper that has the text as a member.
    Carrier,
}

/// What was found in the layers of a text.
pub struct Opened<T> {
    pub event: T,
    /// The dialect of the outermost layer.
    pub dialect: Dialect,
}

/// Judges a text, and returns what is made from it if it is an event.
pub(super) type Judge<'j, T> = dyn FnMut(&[u8], Around) -> Result<T, Refusal> + 'j;

/// Like [`Judge`]. The trail leads from the text back to the outermost one.
pub(super) type JudgeInside<'j, T> = dyn FnMut(&[u8], Around, &Trail<'_>) -> Result<T, Refusal> + 'j;

/// Opens the layers of `text` and passes what is in them to `judge`. Returns what `judge` makes
/// from the first text that it accepts. `refusal` is why `judge` refused `text` itself.
///
/// # Errors
/// Why the innermost text is not an event, or `refusal` if there is no layer.
pub(crate) fn open<T>(
    text: &[u8],
    refusal: Refusal,
    writers: &Writers,
    judge: &mut Judge<'_, T>,
) -> Result<Opened<T>, Refusal> {
    let judge = &mut |text: &[u8], around, _: &Trail<'_>| judge(text, around);
    if memchr::memchr(b'\n', text).is_some()
        && let Some(joined) = joined(text, writers)
        && joined.trim_ascii_start().starts_with(b"{")
    {
        let dialect = if text.starts_with(b"{") { Dialect::Docker } else { Dialect::Cri };
        let layers = Layers::of(writers);
        return inside(&joined, Around::Prefix, layers, judge).map(|event| Opened { event, dialect });
    }
    opened(text, refusal, Layers::of(writers), judge)
}

/// Like [`open`], for what is not an event but a list of events: `judge` gets arrays, too.
pub(super) fn open_lists<T>(
    text: &[u8],
    refusal: Refusal,
    writers: &Writers,
    judge: &mut JudgeInside<'_, T>,
) -> Result<Opened<T>, Refusal> {
    opened(text, refusal, Layers { has_lists: true, ..Layers::of(writers) }, judge)
}

/// Opens a carrier that is certainly not an audit event, without judging it first. Returns `None`
/// for any other text; the caller then judges the text and opens it with `open`. Where this
/// function returns an event, `open` would return the same event.
pub fn open_carrier<T>(text: &[u8], writers: &Writers, judge: &mut Judge<'_, T>) -> Option<Opened<T>> {
    if !text.starts_with(b"{") || memchr::memchr(b'\n', text).is_some() {
        return None;
    }
    // `carrier` accepts a text only if it was refused for this reason.
    let refusal = Refusal::new(Reason::NotAnAuditEvent, "without a member of an audit event");
    let carrier = carrier(text, &refusal)?;
    // The plain decoder refuses an object for this reason if the object has none of these members.
    if carrier.0.iter().any(|(name, _)| plain::is_of_event(name) || name == "method") {
        return None;
    }
    let judge = &mut |text: &[u8], around, _: &Trail<'_>| judge(text, around);
    opened_carrier(text, &carrier, refusal, Layers::of(writers), judge).ok()
}

/// A text in layers, and how its own layers are opened.
#[derive(Clone, Copy)]
struct Layers<'w> {
    /// How many may still be opened.
    left: usize,
    writers: &'w Writers,
    /// From the text back to the outermost one.
    trail: &'w Trail<'w>,
    /// Whether an array may be what is looked for.
    has_lists: bool,
}

impl<'w> Layers<'w> {
    fn of(writers: &'w Writers) -> Layers<'w> {
        Layers { left: LAYERS_MAX, writers, trail: &Trail::START, has_lists: false }
    }

    fn inner(self) -> Self {
        Layers { left: self.left - 1, ..self }
    }

    /// Whether `text`, which is in a string, may be an event or have layers.
    fn may_open(self, text: &[u8]) -> bool {
        let is_list = self.has_lists && text.starts_with(b"[");
        text.starts_with(b"{") || is_list || prefix::find(text, self.has_lists).is_some()
    }

    /// Judges the text that `step` leads to, and opens its layers if it is not an event itself.
    fn inside<T>(
        self,
        text: &[u8],
        around: Around,
        step: Step<'_>,
        judge: &mut JudgeInside<'_, T>,
    ) -> Result<T, Refusal> {
        let Layers { left, writers, trail, has_lists } = self;
        let trail = &Trail::after(trail, step);
        inside(text, around, Layers { left, writers, trail, has_lists }, judge)
    }
}

/// Judges `text`, which was in a layer, and opens its layers if it is not an event itself.
fn inside<T>(
    text: &[u8],
    around: Around,
    layers: Layers<'_>,
    judge: &mut JudgeInside<'_, T>,
) -> Result<T, Refusal> {
    judge(text, around, layers.trail)
        .or_else(|refusal| opened(text, refusal, layers.inner(), judge).map(|opened| opened.event))
}

fn opened<T>(
    text: &[u8],
    refusal: Refusal,
    layers: Layers<'_>,
    judge: &mut JudgeInside<'_, T>,
) -> Result<Opened<T>, Refusal> {
    match text.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
        None => Err(refusal),
        Some(_) if layers.left == 0 => Err(refusal),
        Some(b'{') => {
            let Some(carrier) = carrier(text, &refusal) else { return Err(refusal) };
            opened_carrier(text, &carrier, refusal, layers, judge)
        }
        Some(b'"') => {
            let Some(quoted) = literal(text) else { return Err(refusal) };
            let Some(inner) = json::unescaped(quoted) else { return Err(refusal) };
            if literal(&inner).is_some() {
                return Err(Refusal::new(Reason::NotAnAuditEvent, "a string in a string"));
            }
            let step = Step::string(text, quoted, 0);
            let event = layers.inside(json::trim_end(&inner), Around::Literal, step, judge)?;
            Ok(Opened { event, dialect: Dialect::StringLiteral })
        }
        Some(_) => match prefix::find(text, layers.has_lists) {
            Some((prefix, length)) => {
                if let Some(other) = other_before(text, prefix, layers.writers) {
                    return Err(other.refusal(says_event(&text[length..])));
                }
                let event = layers.inside(&text[length..], Around::Prefix, Step::Part(length), judge)?;
                let dialect = match prefix {
                    Prefix::Syslog => Dialect::Syslog,
                    Prefix::Time | Prefix::TimeAndName => Dialect::TimeAndEvent,
                    Prefix::CloudWatchTail => Dialect::CloudWatchTail,
                    Prefix::Container => Dialect::Cri,
                    Prefix::Fluentd => Dialect::Fluentd,
                };
                Ok(Opened { event, dialect })
            }
            None => Err(other_line(text, layers.writers).unwrap_or(refusal)),
        },
    }
}

/// Returns the members of `text` if it may be a carrier. `refusal` is why it is not an event.
fn carrier<'t>(text: &'t [u8], refusal: &Refusal) -> Option<Members<'t>> {
    // If a text is refused for another reason, it is an audit event or a wrapper, or is not JSON.
    if !matches!(refusal.reason, Reason::NotAnAuditEvent | Reason::TooDeep) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let members: Members<'t> = serde_json::from_str(text).ok()?;
    // Objects of Kubernetes have these members. Clients write the other members of such objects:
    // the message of an event of the core API, or the data of a ConfigMap.
    let is_of_kubernetes =
        ["kind", "apiVersion", "auditID"].iter().any(|name| member(&members, name).is_some());
    (!is_of_kubernetes && Kind::of(&keys(&members)).is_none()).then_some(members)
}

/// Whether `text` is an object that may hold an event in one of its members.
pub(super) fn is_carrier(text: &[u8]) -> bool {
    let Ok(members) = serde_json::from_slice::<Members<'_>>(text) else { return false };
    PATHS.iter().any(|path| value(&members, path).is_some_and(|value| value.get().starts_with(['"', '{'])))
}

/// Opens the layers in the object `text`, which has the members `carrier`.
fn opened_carrier<T>(
    text: &[u8],
    carrier: &Members<'_>,
    refusal: Refusal,
    layers: Layers<'_>,
    judge: &mut JudgeInside<'_, T>,
) -> Result<Opened<T>, Refusal> {
    let found = PATHS.iter().filter_map(|path| Some((path[0], value(carrier, path)?)));
    let values: Vec<(&str, &RawValue, Option<Held<'_>>)> =
        found.map(|(name, value)| (name, value, held(name, value, layers))).collect();
    if values.is_empty() {
        return Err(left_out(carrier, layers.writers).unwrap_or(refusal));
    }
    let refused = |other: &Other| {
        let is_event = |value: &RawValue| {
            says_event(value.get().as_bytes()) || spelt(value, true).is_some_and(|text| says_event(&text))
        };
        other.refusal(carrier.0.iter().any(|(_, value)| is_event(value)))
    };
    let may_hold = |held: &Option<Held<'_>>| matches!(held, Some(Held::Object(_) | Held::Text { .. }));
    // Only the text that is taken is not judged. What the other members hold may name its writer.
    let judged = |taken: &[&RawValue]| match other_source(carrier, taken, layers.writers) {
        Some(other) => Err(refused(&other)),
        None => parts::unjoined(carrier).map_or(Ok(()), Err),
    };
    if !values.iter().any(|(.., held)| may_hold(held)) {
        judged(&[])?;
    }
    let (mut first, mut other) = (None, None);
    for (name, value, held) in values {
        if may_hold(&held) {
            judged(&[value])?;
        }
        let outcome = match held {
            Some(Held::Object(object)) => {
                let step = Step::Part(trail::offset(text, object.as_bytes()));
                judge(object.as_bytes(), Around::Carrier, &Trail::after(layers.trail, step))
            }
            Some(Held::Text { text: inner, skipped }) => {
                let step = Step::string(text, value.get().as_bytes(), skipped);
                layers.inside(&inner, Around::Carrier, step, judge)
            }
            Some(Held::Other(refusal)) => {
                other.get_or_insert(refusal);
                continue;
            }
            None => continue,
        };
        match outcome {
            Ok(event) => return Ok(Opened { event, dialect: dialect(carrier, name) }),
            // A sealed record is read again without judging its writer, and this text would then be
            // the event. So no other text of the carrier may be the event now.
            Err(refusal) if refusal.reason == Reason::UntrustedOrigin => return Err(refusal),
            Err(refusal) => first = first.or(Some(refusal)),
        }
    }
    Err(first.or(other).unwrap_or(refusal))
}

/// Refuses an entry of journald whose text `journalctl` has left out.
fn left_out(carrier: &Members<'_>, writers: &Writers) -> Option<Refusal> {
    let is_left_out = json::member(carrier, MESSAGE)?.get() == "null";
    let refusal = "an entry of journald without its text: export it with journalctl --all, which does not leave \
                   out fields of more than 4096 bytes";
    is_left_out.then(|| match Origin::of(carrier, &[]).other(writers) {
        Some(other) => other.refusal(false),
        None => Refusal::new(Reason::NotAnAuditEvent, refusal),
    })
}

/// Why there is no event at a configured path.
pub enum AtPath {
    /// The text is not an object that may be opened.
    Closed,
    /// The object says that something other than an API server wrote it, or that its text is only a
    /// part of a line.
    OtherSource(Refusal),
    /// There is no member at the path, or it is null.
    Absent,
    /// The value at the path is not an event.
    Refused(Refusal),
}

/// Opens the value at `path` in the object `text`. The caller knows that `text` is not an event,
/// because of `refusal`, and that its layers have no event. An object is opened only if it may be a
/// carrier. The value is an event, or a string or a list of bytes with an event in its layers. No
/// text is searched for an event.
///
/// # Errors
/// Why there is no event.
pub fn open_at<T>(
    text: &[u8],
    refusal: &Refusal,
    path: &EventPath,
    writers: &Writers,
    judge: &mut Judge<'_, T>,
) -> Result<T, AtPath> {
    let judge = &mut |text: &[u8], around, _: &Trail<'_>| judge(text, around);
    value_at(text, refusal, path, Layers::of(writers), judge)
}

/// Like [`open_at`], for a list of events. `judge` is also called with arrays.
pub(super) fn open_lists_at<T>(
    text: &[u8],
    refusal: &Refusal,
    path: &EventPath,
    writers: &Writers,
    judge: &mut JudgeInside<'_, T>,
) -> Result<T, AtPath> {
    value_at(text, refusal, path, Layers { has_lists: true, ..Layers::of(writers) }, judge)
}

fn value_at<T>(
    text: &[u8],
    refusal: &Refusal,
    path: &EventPath,
    layers: Layers<'_>,
    judge: &mut JudgeInside<'_, T>,
) -> Result<T, AtPath> {
    let object = carrier(text, refusal).ok_or(AtPath::Closed)?;
    let names: Vec<&str> = path.names().collect();
    let found = value(&object, &names);
    if let Some(other) = other_source(&object, found.as_slice(), layers.writers) {
        return Err(AtPath::OtherSource(other.refusal(says_event(text))));
    }
    if let Some(part) = parts::unjoined(&object) {
        return Err(AtPath::OtherSource(part));
    }
    let found = found.ok_or(AtPath::Absent)?;
    let literal = found.get().as_bytes();
    if literal.starts_with(b"{") || layers.has_lists && literal.starts_with(b"[") {
        let step = Step::Part(trail::offset(text, literal));
        return judge(literal, Around::Carrier, &Trail::after(layers.trail, step)).map_err(AtPath::Refused);
    }
    let not_event =
        || AtPath::Refused(Refusal::new(Reason::NotAnAuditEvent, "neither an object nor its text"));
    let spelt = spelt(found, !layers.has_lists).ok_or_else(not_event)?;
    let inner = json::trim_start(&spelt);
    let step = Step::string(text, literal, spelt.len() - inner.len());
    let inner = json::trim_end(inner);
    if !layers.may_open(inner) {
        return Err(other_line(inner, layers.writers).map_or_else(not_event, AtPath::Refused));
    }
    layers.inside(inner, Around::Carrier, step, judge).map_err(AtPath::Refused)
}

/// Returns the dialect of a carrier that has its event in the member `name`, judged by its other
/// members.
fn dialect(carrier: &Members<'_>, name: &str) -> Dialect {
    let has = |name: &str| json::member(carrier, name).is_some();
    match name {
        MESSAGE => Dialect::Journald,
        "structured" => Dialect::OpenShiftViaq,
        "log_s" => Dialect::AzureLogAnalytics,
        "_raw" => Dialect::Splunk,
        "event" if has("sourcetype") || has("index") || has("time") => Dialect::Splunk,
        "log_processed" => Dialect::FluentBit,
        "message" if has("logStreamName") => Dialect::CloudWatchCli,
        _ if has("@version") => Dialect::Logstash,
        _ if has("elastic_agent") || has("data_stream") => Dialect::ElasticAgent,
        "json" | "event" | "message" | "kubernetes" if has("@timestamp") => Dialect::Filebeat,
        "message" if has("source_type") || has("file") => Dialect::Vector,
        "log" if has("stream") && has("time") && !has("kubernetes") && !has("date") => Dialect::Docker,
        "log" => Dialect::FluentBit,
        "body" => Dialect::OpenTelemetry,
        "line" => Dialect::Loki,
        "full_message" | "short_message" => Dialect::Gelf,
        _ => Dialect::OtherWrapper,
    }
}

/// What a member of a carrier holds.
enum Held<'t> {
    /// An object, or a list.
    Object(&'t str),
    /// A text, without the `skipped` bytes of white space before it.
    Text { text: Vec<u8>, skipped: usize },
    /// The line of another log, which is refused.
    Other(Refusal),
}

/// Returns what the value of the member `name` holds.
fn held<'t>(name: &str, value: &'t RawValue, layers: Layers<'_>) -> Option<Held<'t>> {
    let text = value.get();
    if text.starts_with('{') {
        let members: Members<'_> = serde_json::from_str(text).ok()?;
        let is_string = |name| member(&members, name).is_some_and(|value| value.get().starts_with('"'));
        let is_event = is_string("auditID") || (is_string("kind") && is_string("apiVersion"));
        let is_list = layers.has_lists && Kind::of(&keys(&members)).is_some();
        return (is_event || is_list).then_some(Held::Object(text));
    }
    if text.starts_with('[') && layers.has_lists && name != MESSAGE {
        return Some(Held::Object(text));
    }
    // The places of bytes that are written as numbers are not known.
    let mut text = spelt(value, name == MESSAGE && !layers.has_lists)?;
    text.truncate(json::trim_end(&text).len());
    let skipped = text.len() - json::trim_start(&text).len();
    if skipped > 0 {
        text.drain(..skipped);
    }
    if layers.may_open(&text) {
        return Some(Held::Text { text, skipped });
    }
    other_line(&text, layers.writers).map(Held::Other)
}

/// Returns the text of a string or, if `may_be_bytes`, of a list of byte values.
fn spelt(value: &RawValue, may_be_bytes: bool) -> Option<Vec<u8>> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'"' => swar::unescaped(text.as_bytes()).map(String::into_bytes),
        b'[' if may_be_bytes => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// Returns the last member `name`, unless it is null.
fn member<'t>(members: &Members<'t>, name: &str) -> Option<&'t RawValue> {
    json::member(members, name).filter(|value| value.get() != "null")
}

/// Returns the value at `path`, if each member along the path is an object.
///
/// An `event` on the way must not be an object of Kubernetes.
fn value<'t>(members: &Members<'t>, path: &[&str]) -> Option<&'t RawValue> {
    let (name, rest) = path.split_first()?;
    let found = member(members, name)?;
    if rest.is_empty() {
        return Some(found);
    }
    let inner = serde_json::from_str::<Members<'t>>(found.get()).ok()?;
    // A client writes the text in an object of Kubernetes, such as the message of a core event.
    let is_of_kubernetes = *name == "event"
        && ["apiVersion", "auditID", "metadata"].iter().any(|name| member(&inner, name).is_some());
    if is_of_kubernetes { None } else { value(&inner, rest) }
}

fn text(members: &Members<'_>, path: &[&str]) -> Option<String> {
    serde_json::from_str(value(members, path)?.get()).ok()
}

/// Returns the writer of a carrier's text, if that writer is not believed. The values in `holding`
/// contain events.
fn other_source(carrier: &Members<'_>, holding: &[&RawValue], writers: &Writers) -> Option<Other> {
    let is_of_program = !writers.is_unjudged() && is_of_program(carrier)
        || !writers.is_anyone() && is_like_that_of_a_program(carrier);
    if is_of_program {
        return Some(Other::of_log("the log of a program"));
    }
    Origin::of(carrier, holding).other(writers)
}

/// Whether a carrier is an entry in the log of a program. Clients can put text of their own into the
/// messages of programs. Kubernetes' own programs write `ts` and `caller` with
/// `--logging-format=json`, and others write these members with the usual libraries.
fn is_of_program(carrier: &Members<'_>) -> bool {
    let has = |name| member(carrier, name).is_some();
    let is_string = |name| member(carrier, name).is_some_and(|value| value.get().starts_with('"'));
    (has("ts") && is_string("caller"))
        || (is_string("msg") && (has("ts") || is_string("caller") || is_string("level")))
}

/// Whether a carrier is probably an entry in the log of a program: it has a logger, a thread or a level.
/// OpenShift's forwarder makes a level from the words of a container's text, which a client may choose.
fn is_like_that_of_a_program(carrier: &Members<'_>) -> bool {
    let has = |name| member(carrier, name).is_some();
    let string = |name| member(carrier, name).filter(|value| value.get().starts_with('"'));
    let is_string = |name| string(name).is_some();
    let of_logger = || {
        ["logger", "logger_name", "loggerName", "log.logger", "thread_name", "process.thread.name"]
            .into_iter()
            .any(is_string)
            || value(carrier, &["log", "logger"]).is_some()
    };
    let has_level = || {
        ["level", "levelname", "log.level"].into_iter().filter_map(string).any(|level| {
            let level = level.get().trim_matches('"').to_ascii_lowercase();
            LEVELS_OF_PROGRAMS.contains(&level.as_str())
        })
    };
    is_string("message") && !has("kubernetes") && !has("log_type") && (of_logger() || has_level())
}

/// Levels of the usual libraries for logs, in lower case.
const LEVELS_OF_PROGRAMS: [&str; 11] = [
    "trace",
    "debug",
    "verbose",
    "info",
    "information",
    "notice",
    "warn",
    "warning",
    "error",
    "critical",
    "fatal",
];

fn klog() -> Refusal {
    Refusal::new(Reason::OtherCategory, "a line of klog, the log of Kubernetes' own programs")
}

/// Returns the writer that the text before an event names, if that writer is not believed. For
/// example, Fluentd makes the tag before an event from the path of a log.
fn other_before(line: &[u8], prefix: Prefix, writers: &Writers) -> Option<Other> {
    match prefix {
        Prefix::Fluentd => other_by_tag(line, writers),
        Prefix::TimeAndName => {
            let name = std::str::from_utf8(prefix::name_after_time(line)?).unwrap_or_default();
            let other = || (!writers.believe_host(name)).then(|| Other::new(HOST, name));
            Origin::of_tag(name).other(writers).or_else(other)
        }
        Prefix::Syslog | Prefix::Time | Prefix::CloudWatchTail | Prefix::Container => None,
    }
}

const HOST: &str = "a host or log stream that is not known";

/// Returns the writer that the tag on a line of Fluentd's names, if it is not one that is believed.
fn other_by_tag(line: &[u8], writers: &Writers) -> Option<Other> {
    let tag = std::str::from_utf8(prefix::fluentd_tag(line)?).ok()?;
    Origin::of_tag(tag).other(writers)
}

/// Returns the refusal of a line that belongs to another log, if that log is known.
fn other_line(line: &[u8], writers: &Writers) -> Option<Refusal> {
    if let Some(other) = other_by_tag(line, writers) {
        return Some(other.refusal(false));
    }
    if prefix::is_klog(line) {
        return Some(klog());
    }
    let Some(line) = prefix::container_line(line) else { return eks::other_export_line(line) };
    match line {
        ContainerLine { is_stdout: false, content, .. } => {
            Some(standard_error().refusal(says_event(content)))
        }
        ContainerLine { content, .. } if prefix::is_klog(content) => Some(klog()),
        ContainerLine { is_full: false, .. } => {
            Some(Refusal::new(Reason::TornLine, "a part of a container's line, without the parts after it"))
        }
        ContainerLine { content, .. } if says_event(content) => {
            let hidden =
                "a line of a container that contains an audit event, but does not begin with the event";
            Some(Refusal::new(Reason::NotAnAuditEvent, hidden))
        }
        ContainerLine { .. } => {
            Some(Refusal::new(Reason::OtherCategory, "a line of a container that is not an event"))
        }
    }
}

/// Whether `line` is a part, but not the last one, of what a container wrote as one line.
pub(crate) fn is_part(line: &[u8]) -> bool {
    match line.first() {
        Some(b'{') => docker_line(line) == Some(DockerLine::Part),
        Some(b'0'..=b'9') => prefix::container_line(line).is_some_and(|line| line.is_stdout && !line.is_full),
        _ => false,
    }
}

/// Whether `line` is a line of a container's log, or a part of one, whose text begins like an
/// event.
pub(crate) fn begins_event(line: &[u8]) -> bool {
    prefix::container_line(line)
        .is_some_and(|line| line.is_stdout && line.content.starts_with(b"{\"kind\":\"Event\""))
}

/// Whether the parts of a line may continue after `line`, because `line` is such a part or belongs
/// to the other stream.
pub(crate) fn is_between_parts(line: &[u8]) -> bool {
    match line.first() {
        Some(b'{') => docker_line(line).is_some_and(|line| line != DockerLine::Last),
        Some(b'0'..=b'9') => {
            prefix::container_line(line).is_some_and(|line| !(line.is_stdout && line.is_full))
        }
        _ => false,
    }
}

/// What a line means for the parts before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Another part, or a line of the other stream: the event continues.
    Continues,
    /// The last part.
    Ends,
    /// A line that does not belong to the same log.
    Breaks,
}

/// Returns what `line` means for parts that began with the line `first`.
pub(crate) fn follows(first: &[u8], line: &[u8]) -> Follows {
    if first.starts_with(b"{") {
        return match docker_line(line) {
            Some(DockerLine::Part | DockerLine::StandardError) => Follows::Continues,
            Some(DockerLine::Last) => Follows::Ends,
            None => Follows::Breaks,
        };
    }
    match prefix::container_line(line) {
        Some(line) if line.is_stdout && line.is_full => Follows::Ends,
        Some(_) => Follows::Continues,
        None => Follows::Breaks,
    }
}

/// A line of docker's `json-file` log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DockerLine {
    /// The text does not end in a line feed, because docker cut it.
    Part,
    /// The text ends in a line feed.
    Last,
    /// A line of standard error, which docker may write between the parts of a line of standard
    /// output.
    StandardError,
}

/// Reads a line of docker's `json-file` log. `None` for lines of other logs.
fn docker_line(line: &[u8]) -> Option<DockerLine> {
    const HEAD: &[u8] = b"{\"log\":\"";
    let text = line.strip_prefix(HEAD)?;
    let mut from = 0;
    let end = loop {
        let found = memchr::memchr2(b'"', b'\\', &text[from..])? + from;
        if text[found] == b'"' {
            break found;
        }
        from = (found + 2).min(text.len());
    };
    let rest = &text[end + 1..];
    // After the text docker writes only the stream, perhaps attributes, and the time. Other writers
    // do not cut lines.
    if rest.starts_with(b",\"stream\":\"stderr\",") {
        return Some(DockerLine::StandardError);
    }
    if !rest.starts_with(b",\"stream\":\"stdout\",") {
        return None;
    }
    let backslashes = text[..end]
        .strip_suffix(b"n")
        .map_or(0, |head| head.iter().rev().take_while(|byte| **byte == b'\\').count());
    Some(if backslashes % 2 == 0 { DockerLine::Part } else { DockerLine::Last })
}

/// Returns the text of a record that has several lines with a part of the text in each. `None` for
/// any other record.
fn joined(record: &[u8], writers: &Writers) -> Option<Vec<u8>> {
    let lines = || record.split(|byte| *byte == b'\n');
    let mut text = Vec::with_capacity(record.len());
    let mut is_open = true;
    if record.starts_with(b"{") {
        for line in lines() {
            let part = docker_part(line, writers)?;
            if !is_open {
                return None;
            }
            let Some(part) = part else { continue };
            is_open = !part.ends_with('\n');
            text.extend_from_slice(part.as_bytes());
        }
    } else {
        for line in lines() {
            let part = prefix::container_line(line)?;
            if !is_open {
                return None;
            }
            if part.is_stdout {
                is_open = !part.is_full;
                text.extend_from_slice(part.content);
            }
        }
    }
    // A text without its last part can only be a cut event. If it is whole JSON, it is a piece of
    // another event.
    let is_whole = || serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
    (!is_open || !is_whole()).then_some(text)
}

/// Returns the text whose parts are in the lines of a record, if the lines have nothing else: no
/// line belongs to the other stream, and a line has only the members that docker writes.
pub fn text_of_parts(record: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(record.len());
    for line in record.split(|byte| *byte == b'\n') {
        if line.starts_with(b"{") {
            let members: Members<'_> = serde_json::from_slice(line).ok()?;
            let mut names: Vec<&str> = members.0.iter().map(|(name, _)| name.as_ref()).collect();
            names.sort_unstable();
            if names != ["log", "stream", "time"] {
                return None;
            }
            text.extend_from_slice(docker_part(line, &Writers::UNJUDGED)??.as_bytes());
        } else {
            let part = prefix::container_line(line).filter(|part| part.is_stdout)?;
            text.extend_from_slice(part.content);
        }
    }
    Some(text)
}

/// Returns the text of a line of docker's `json-file` log, or `Some(None)` if the line is one of
/// standard error.
#[expect(clippy::option_option, reason = "a line of standard error is known, and has no text")]
fn docker_part(line: &[u8], writers: &Writers) -> Option<Option<String>> {
    let members: Members<'_> = serde_json::from_slice(line).ok()?;
    let log = member(&members, "log")?;
    let part = text(&members, &["log"])?;
    let stream = match member(&members, "stream") {
        Some(_) => Some(text(&members, &["stream"])?),
        None => None,
    };
    match stream.as_deref() {
        Some("stderr") => Some(None),
        None | Some("stdout") if other_source(&members, &[log], writers).is_none() => Some(Some(part)),
        _ => None,
    }
}
