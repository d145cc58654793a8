//! Forms: templates of the record format of a stream, stored in the column `form` of events.
//!
//! Terms. A *hole* is a part `${…}` of a template that is replaced when a row is rendered. The hole
//! of a *column* is replaced by the row's value in that column, and the hole of an *item* by the
//! row's next item of `form_values`. The hole of a *copy* is replaced by the time in a column that
//! has its own hole elsewhere. Two holes mark a *region*: when the holes between them are filled,
//! the text between them is written as one JSON string.
//!
//! Invariant: a [`Form`] exists only for a template that cannot contain a value that belongs in a
//! column. The template is one JSON document with text around it. Each column has at most one hole,
//! which is the value of the column's own member. All columns are in one object, the event, in
//! which no other member can have the name of a column's member. No string of the template can
//! contain another event, and no other object of the template can be mistaken for an event.
//! `docs/format.md`, *Forms*, has the grammar. `tools/verify.py` is a second reader of forms, and
//! both readers are tested with `tests/data/forms.json`. No state.
//!
//! A form does not decide which columns a row has. [`Form::columns`] returns the columns that the
//! form renders, and the code that renders a row compares them with the columns that are not null.
//! That code also writes the values; the possible formats of values are closed sets in this file.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use thiserror::Error;

use crate::table::events::index;

/// Maximum size of a form, in bytes.
pub const FORM_BYTES_MAX: usize = 16 << 10;
/// Maximum number of holes in a form: columns, items, copies and regions.
pub const FORM_HOLES_MAX: usize = 128;
/// Maximum nesting depth of objects, lists and regions in a form or an item.
pub const FORM_DEPTH_MAX: usize = 32;
/// Maximum nesting depth of regions.
pub const FORM_REGIONS_MAX: usize = 3;
/// Maximum number of forms in the rows of one block; a record that would need another form is
/// stored in `raw`.
pub const FORMS_IN_BLOCK_MAX: usize = 64;
/// Maximum number of items in one row's `form_values`.
pub const FORM_ITEMS_MAX: usize = 64;
/// Maximum size of all items of one row together, in bytes.
pub const FORM_ITEMS_BYTES_MAX: usize = 64 << 10;
/// Maximum width of the white space before an item or a bracket in [`Layout::Lines`].
pub const LIST_INDENT_MAX: u8 = 64;
/// Longest hole, in bytes.
const HOLE_BYTES_MAX: usize = 64;

/// The JSON type of an event's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    List,
    Integer,
    /// Text that is JSON already.
    Json,
    Time,
}

/// A column that is part of the record, with the member that has its value.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    /// Position in the schema of `events`.
    pub column: usize,
    pub name: &'static str,
    /// The member of the event whose object contains `member`; `None` if `member` is in the event
    /// itself.
    pub inside: Option<&'static str>,
    pub member: &'static str,
    pub kind: Kind,
}

const fn mapped(
    column: usize,
    name: &'static str,
    inside: Option<&'static str>,
    member: &'static str,
    kind: Kind,
) -> Mapped {
    Mapped { column, name, inside, member, kind }
}

const USER: Option<&str> = Some("user");
const IMPERSONATED: Option<&str> = Some("impersonatedUser");
const OBJECT: Option<&str> = Some("objectRef");
const STATUS: Option<&str> = Some("responseStatus");

/// The members of an event whose objects contain members of columns.
pub const CONTAINERS: [&str; 4] = ["user", "impersonatedUser", "objectRef", "responseStatus"];

/// Every column that is part of the record. The `authz_` columns are parts of `annotations`.
pub const MAPPED: [Mapped; 32] = [
    mapped(index::AUDIT_ID, "audit_id", None, "auditID", Kind::Text),
    mapped(index::STAGE, "stage", None, "stage", Kind::Text),
    mapped(index::LEVEL, "level", None, "level", Kind::Text),
    mapped(index::VERB, "verb", None, "verb", Kind::Text),
    mapped(index::REQUEST_URI, "request_uri", None, "requestURI", Kind::Text),
    mapped(index::USER_NAME, "user_name", USER, "username", Kind::Text),
    mapped(index::USER_UID, "user_uid", USER, "uid", Kind::Text),
    mapped(index::USER_GROUPS, "user_groups", USER, "groups", Kind::List),
    mapped(index::USER_EXTRA, "user_extra", USER, "extra", Kind::Json),
    mapped(index::IMPERSONATED_USER_NAME, "impersonated_user_name", IMPERSONATED, "username", Kind::Text),
    mapped(index::IMPERSONATED_USER_GROUPS, "impersonated_user_groups", IMPERSONATED, "groups", Kind::List),
    mapped(index::IMPERSONATED_USER_EXTRA, "impersonated_user_extra", IMPERSONATED, "extra", Kind::Json),
    mapped(index::SOURCE_IPS, "source_ips", None, "sourceIPs", Kind::List),
    mapped(index::USER_AGENT, "user_agent", None, "userAgent", Kind::Text),
    mapped(index::RESOURCE, "resource", OBJECT, "resource", Kind::Text),
    mapped(index::SUBRESOURCE, "subresource", OBJECT, "subresource", Kind::Text),
    mapped(index::NAMESPACE, "namespace", OBJECT, "namespace", Kind::Text),
    mapped(index::NAME, "name", OBJECT, "name", Kind::Text),
    mapped(index::API_GROUP, "api_group", OBJECT, "apiGroup", Kind::Text),
    mapped(index::API_VERSION, "api_version", OBJECT, "apiVersion", Kind::Text),
    mapped(index::OBJECT_UID, "object_uid", OBJECT, "uid", Kind::Text),
    mapped(index::RESOURCE_VERSION, "resource_version", OBJECT, "resourceVersion", Kind::Text),
    mapped(index::RESPONSE_CODE, "response_code", STATUS, "code", Kind::Integer),
    mapped(index::RESPONSE_STATUS, "response_status", STATUS, "status", Kind::Text),
    mapped(index::RESPONSE_REASON, "response_reason", STATUS, "reason", Kind::Text),
    mapped(index::RESPONSE_MESSAGE, "response_message", STATUS, "message", Kind::Text),
    mapped(index::RESPONSE_DETAILS, "response_details", STATUS, "details", Kind::Json),
    mapped(index::REQUEST_OBJECT, "request_object", None, "requestObject", Kind::Json),
    mapped(index::RESPONSE_OBJECT, "response_object", None, "responseObject", Kind::Json),
    mapped(index::ANNOTATIONS, "annotations", None, "annotations", Kind::Json),
    mapped(
        index::REQUEST_RECEIVED_TIMESTAMP,
        "request_received_timestamp",
        None,
        "requestReceivedTimestamp",
        Kind::Time,
    ),
    mapped(index::STAGE_TIMESTAMP, "stage_timestamp", None, "stageTimestamp", Kind::Time),
];

/// The members of an event in which OpenShift's log forwarder keeps the level, in the order in
/// which they are read. The member `level` of such an event is [`LEVEL_REPLACED`].
pub const LEVEL_MEMBERS: [&str; 2] = ["k8s_audit_level", "openshift_audit_level"];

/// The text of the member `level` where one of [`LEVEL_MEMBERS`] has the level.
pub const LEVEL_REPLACED: &str = "\"default\"";

/// Names by which a decoder recognises an event, or that only events have. In a form, only the
/// event has members with these names, except that `apiVersion` may be in the objects of
/// [`CONTAINERS`]. The names are in lower case, because names are compared without regard to the
/// case of ASCII letters.
const EVENT_NAMES: [&str; 12] = [
    "auditid",
    "apiversion",
    "requesturi",
    "verb",
    "impersonateduser",
    "sourceips",
    "objectref",
    "responsestatus",
    "requestobject",
    "responseobject",
    "requestreceivedtimestamp",
    "stagetimestamp",
];

/// The characters of a string that are written as an escape in addition to `"`, `\` and the
/// characters below U+0020; and the format of escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escapes {
    /// `<`, `>` and `&`, as `\u003c` and so on.
    pub html: bool,
    /// U+2028 and U+2029.
    pub line_separators: bool,
    /// `/`, as `\/`.
    pub slash: bool,
    /// U+007F.
    pub delete: bool,
    /// Every character from U+0080 on, as the `\uXXXX` of its UTF-16 code units.
    pub non_ascii: bool,
    /// `\b` and `\f`, instead of `\u0008` and `\u000c`.
    pub short: bool,
    /// Upper-case digits in `\uXXXX`.
    pub upper: bool,
}

/// The escaping of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    Go,
    GoOld,
    GoPlain,
    GoPlainOld,
    Json,
    JsonUpper,
    JsonDelete,
    JsonSlash,
    JsonSlashUpper,
    JsonSlashDelete,
    Ascii,
    AsciiUpper,
    AsciiSlash,
}

impl Style {
    pub const ALL: [Style; 13] = [
        Style::Go,
        Style::GoOld,
        Style::GoPlain,
        Style::GoPlainOld,
        Style::Json,
        Style::JsonUpper,
        Style::JsonDelete,
        Style::JsonSlash,
        Style::JsonSlashUpper,
        Style::JsonSlashDelete,
        Style::Ascii,
        Style::AsciiUpper,
        Style::AsciiSlash,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Style::Go => "go",
            Style::GoOld => "go-old",
            Style::GoPlain => "go-plain",
            Style::GoPlainOld => "go-plain-old",
            Style::Json => "json",
            Style::JsonUpper => "json-upper",
            Style::JsonDelete => "json-delete",
            Style::JsonSlash => "json-slash",
            Style::JsonSlashUpper => "json-slash-upper",
            Style::JsonSlashDelete => "json-slash-delete",
            Style::Ascii => "ascii",
            Style::AsciiUpper => "ascii-upper",
            Style::AsciiSlash => "ascii-slash",
        }
    }

    pub const fn escapes(self) -> Escapes {
        const JSON: Escapes = Escapes {
            html: false,
            line_separators: false,
            slash: false,
            delete: false,
            non_ascii: false,
            short: true,
            upper: false,
        };
        const GO: Escapes = Escapes { html: true, line_separators: true, ..JSON };
        match self {
            Style::Go => GO,
            Style::GoOld => Escapes { short: false, ..GO },
            Style::GoPlain => Escapes { html: false, ..GO },
            Style::GoPlainOld => Escapes { html: false, short: false, ..GO },
            Style::Json => JSON,
            Style::JsonUpper => Escapes { upper: true, ..JSON },
            Style::JsonDelete => Escapes { delete: true, ..JSON },
            Style::JsonSlash => Escapes { slash: true, ..JSON },
            Style::JsonSlashUpper => Escapes { slash: true, upper: true, ..JSON },
            Style::JsonSlashDelete => Escapes { slash: true, delete: true, ..JSON },
            Style::Ascii => Escapes { non_ascii: true, delete: true, ..JSON },
            Style::AsciiUpper => Escapes { non_ascii: true, upper: true, ..JSON },
            Style::AsciiSlash => Escapes { non_ascii: true, slash: true, ..JSON },
        }
    }

    fn parse(name: &str) -> Option<Style> {
        Style::ALL.into_iter().find(|style| style.as_str() == name)
    }
}

/// The layout of the items of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `["a","b"]`
    Compact,
    /// `["a", "b"]`
    Spaced,
    /// `[ "a", "b" ]`, and `[ ]` without items.
    Padded,
    /// Each item on its own line, after `items` times the character `fill`, and the closing bracket
    /// on its own line, after `close` times that character; `[]` without items.
    Lines { fill: u8, items: u8, close: u8 },
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Compact => f.write_str("compact"),
            Layout::Spaced => f.write_str("spaced"),
            Layout::Padded => f.write_str("padded"),
            Layout::Lines { fill: b'\t', items, close } => write!(f, "tabs-{items}-{close}"),
            Layout::Lines { items, close, .. } => write!(f, "lines-{items}-{close}"),
        }
    }
}

impl Layout {
    fn parse(name: &str) -> Option<Layout> {
        let (kind, numbers) = match name {
            "compact" => return Some(Layout::Compact),
            "spaced" => return Some(Layout::Spaced),
            "padded" => return Some(Layout::Padded),
            _ => name.split_once('-')?,
        };
        let fill = match kind {
            "lines" => b' ',
            "tabs" => b'\t',
            _ => return None,
        };
        let (items, close) = numbers.split_once('-')?;
        let number = |digits: &str| {
            let is_plain = digits.len() <= 2
                && digits.bytes().all(|digit| digit.is_ascii_digit())
                && (digits.len() == 1 || !digits.starts_with('0'));
            digits.parse().ok().filter(|number| is_plain && *number <= LIST_INDENT_MAX)
        };
        Some(Layout::Lines { fill, items: number(items)?, close: number(close)? })
    }
}

/// The number of decimals of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimals {
    /// Always this many; no decimal point if it is 0.
    Fixed(u8),
    /// As many as needed: up to the last decimal that is not 0.
    Trimmed,
    /// 0, 3 or 6: the smallest of these that loses no digit of the time.
    Threes,
    /// 0 for a whole second, else 6.
    Sixes,
}

impl fmt::Display for Decimals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decimals::Fixed(digits) => write!(f, "{digits}"),
            Decimals::Trimmed => f.write_str("trim"),
            Decimals::Threes => f.write_str("threes"),
            Decimals::Sixes => f.write_str("sixes"),
        }
    }
}

impl Decimals {
    fn parse(name: &str) -> Option<Decimals> {
        Some(match name {
            "trim" => Decimals::Trimmed,
            "threes" => Decimals::Threes,
            "sixes" => Decimals::Sixes,
            digit => match digit.as_bytes() {
                [digit @ b'0'..=b'9'] => Decimals::Fixed(digit - b'0'),
                _ => return None,
            },
        })
    }
}

/// The text for UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// `Z`
    Letter,
    /// `+00:00`
    Colon,
    /// `+0000`
    Digits,
}

impl Zone {
    pub const ALL: [Zone; 3] = [Zone::Letter, Zone::Colon, Zone::Digits];

    pub const fn as_str(self) -> &'static str {
        match self {
            Zone::Letter => "Z",
            Zone::Colon => "+00:00",
            Zone::Digits => "+0000",
        }
    }
}

/// The format of a column's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Text(Style),
    List(Style, Layout),
    Integer,
    Json,
    /// RFC 3339, between quotes.
    Time(Decimals, Zone),
    /// Whole seconds since 1970, as a number.
    Seconds,
    /// Whole milliseconds since 1970, as a number.
    Milliseconds,
    /// Seconds since 1970 with decimals, as a number.
    DecimalSeconds(Decimals),
}

/// Writes the text after the column's name in a hole: a colon and the name of the codec. The text
/// is empty for the codec that a hole has if it names none.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Codec::Integer | Codec::Json | Codec::Text(Style::Go) => Ok(()),
            Codec::List(Style::Go, Layout::Compact) => Ok(()),
            Codec::Time(Decimals::Fixed(6), Zone::Letter) => Ok(()),
            Codec::Text(style) | Codec::List(style, Layout::Compact) => write!(f, ":{}", style.as_str()),
            Codec::List(style, layout) => write!(f, ":{},{layout}", style.as_str()),
            Codec::Time(decimals, zone) => write!(f, ":{decimals}{}", zone.as_str()),
            Codec::Seconds => f.write_str(":s"),
            Codec::Milliseconds => f.write_str(":ms"),
            Codec::DecimalSeconds(decimals) => write!(f, ":s.{decimals}"),
        }
    }
}

impl Codec {
    fn parse(kind: Kind, name: Option<&str>) -> Option<Codec> {
        Some(match (kind, name) {
            (Kind::Text, None) => Codec::Text(Style::Go),
            (Kind::Text, Some(name)) => Codec::Text(Style::parse(name)?),
            (Kind::List, None) => Codec::List(Style::Go, Layout::Compact),
            (Kind::List, Some(name)) => match name.split_once(',') {
                Some((style, layout)) => Codec::List(Style::parse(style)?, Layout::parse(layout)?),
                None => Codec::List(Style::parse(name)?, Layout::Compact),
            },
            (Kind::Integer, None) => Codec::Integer,
            (Kind::Json, None) => Codec::Json,
            (Kind::Integer | Kind::Json, Some(_)) => return None,
            (Kind::Time, None) => Codec::Time(Decimals::Fixed(6), Zone::Letter),
            (Kind::Time, Some("s")) => Codec::Seconds,
            (Kind::Time, Some("ms")) => Codec::Milliseconds,
            (Kind::Time, Some(name)) => match name.strip_prefix("s.") {
                Some(decimals) => Codec::DecimalSeconds(Decimals::parse(decimals)?),
                None => {
                    let zone = Zone::ALL.into_iter().find(|zone| name.ends_with(zone.as_str()))?;
                    Codec::Time(Decimals::parse(&name[..name.len() - zone.as_str().len()])?, zone)
                }
            },
        })
    }
}

/// Where an item of `form_values` is in the record, which determines what the item may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A whole value.
    Value,
    /// A part of a string.
    Text,
    /// A part of the text around the document.
    Around,
}

/// A part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    Literal(String),
    /// The value of a column, given by its position in [`MAPPED`].
    Column(usize, Codec),
    /// The time in a column that has its own segment, given by its position in [`MAPPED`]. Digits
    /// that the codec does not write are left out.
    Copy(usize, Codec),
    /// The next item of `form_values`.
    Item(Place),
    /// The start of a region: the segments up to the matching [`Segment::Close`] are written as one
    /// string, escaped in this style.
    Open(Style),
    Close,
}

/// Why a template is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    TooLong,
    Hole,
    UnknownColumn,
    UnknownCodec,
    ColumnTwice,
    NoColumn,
    NotCopied,
    Misplaced,
    Named,
    NameTwice,
    NotJson,
    String,
    TooDeep,
    TooManyHoles,
}

impl Fault {
    /// Returns the name of the fault, the same in every reader of forms.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::TooLong => "too_long",
            Fault::Hole => "hole",
            Fault::UnknownColumn => "unknown_column",
            Fault::UnknownCodec => "unknown_codec",
            Fault::ColumnTwice => "column_twice",
            Fault::NoColumn => "no_column",
            Fault::NotCopied => "not_copied",
            Fault::Misplaced => "misplaced",
            Fault::Named => "named",
            Fault::NameTwice => "name_twice",
            Fault::NotJson => "not_json",
            Fault::String => "string",
            Fault::TooDeep => "too_deep",
            Fault::TooManyHoles => "too_many_holes",
        }
    }

    const fn explained(self) -> &'static str {
        match self {
            Fault::TooLong => "the form is too long",
            Fault::Hole => "a dollar sign that is neither doubled nor the start of a hole",
            Fault::UnknownColumn => "a hole of an unknown column",
            Fault::UnknownCodec => "a format that is unknown, or that this column cannot have",
            Fault::ColumnTwice => "a second hole of the same column",
            Fault::NoColumn => "the form has no column",
            Fault::NotCopied => "a copy of a column that is not a time, or that has no hole of its own",
            Fault::Misplaced => "a hole that is not the value of its column's member in the event",
            Fault::Named => "a member that has a column's name and another value",
            Fault::NameTwice => "a second member of the same name in one object",
            Fault::NotJson => "the document is not JSON here",
            Fault::String => {
                "a string with a brace or a backslash, or an escape of one, which may hide an event"
            }
            Fault::TooDeep => "objects, lists or regions are nested too deeply",
            Fault::TooManyHoles => "the form has too many holes",
        }
    }
}

/// Why a template is not a form; the error repeats no part of the template.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("byte {at}: {}", fault.explained())]
pub struct FormError {
    /// Offset of the fault in the template, in bytes.
    pub at: usize,
    pub fault: Fault,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A checked template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    segments: Vec<Segment>,
    columns: u64,
    items: usize,
    event: Range<usize>,
}

impl Form {
    /// Parses and checks a template.
    ///
    /// # Errors
    /// [`FormError`], with the byte, if the template is not a form.
    pub fn parse(template: &str) -> Result<Form, FormError> {
        if template.len() > FORM_BYTES_MAX {
            return Err(FormError { at: FORM_BYTES_MAX, fault: Fault::TooLong });
        }
        let mut reader = Reader::new(template, true);
        reader.text()?;
        match reader.peek() {
            Peek::End => {}
            Peek::Hole if matches!(reader.hole()?.0, Hole::Close) => return Err(reader.fault(Fault::Hole)),
            _ => return Err(reader.fault(Fault::NotJson)),
        }
        reader.end_literal();
        let Some(event) = reader.event else { return Err(FormError { at: 0, fault: Fault::NoColumn }) };
        if reader.copied & !reader.columns != 0 {
            return Err(FormError { at: 0, fault: Fault::NotCopied });
        }
        reader.judge_names(Some(event))?;
        let event = reader.objects[event].segments.clone();
        Ok(Form { segments: reader.segments, columns: reader.columns, items: reader.items, event })
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the positions of the event in [`Form::segments`], from its `{` to its `}`. Rendered
    /// alone, these segments are the event without the escapes of a region around it.
    pub fn event(&self) -> Range<usize> {
        self.event.clone()
    }

    /// Returns a set of bits: bit `n` is 1 if the form has a hole for `MAPPED[n]`.
    pub fn columns(&self) -> u64 {
        self.columns
    }

    /// Returns the number of items that a row of this form has in `form_values`.
    pub fn items(&self) -> usize {
        self.items
    }
}

/// Returns true if `item` may be in `place`. A [`Place::Value`] needs a whole JSON value without a
/// name that only events have, and without a string that could contain an event. A [`Place::Text`]
/// needs a part of such a string, and a [`Place::Around`] needs text without `{`.
pub fn item_fits(item: &str, place: Place) -> bool {
    match place {
        Place::Around => !item.contains('{'),
        Place::Text if is_plain(item) => true,
        Place::Value if is_whole_number(item) => true,
        Place::Text => {
            let mut reader = Reader::new(item, false);
            reader.characters().is_ok() && matches!(reader.peek(), Peek::End)
        }
        Place::Value => {
            let mut reader = Reader::new(item, false);
            reader.value(None).is_ok()
                && matches!(reader.peek(), Peek::End)
                && reader.judge_names(None).is_ok()
        }
    }
}

/// Returns true if `text` has only characters that may be in any string as they are. The loop has
/// no early exit, so that it is vectorised.
fn is_plain(text: &str) -> bool {
    let is_special = |byte: u8| {
        u8::from(byte < b' ') | u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte == b'{')
    };
    text.bytes().fold(0, |found, byte| found | is_special(byte)) == 0
}

fn is_whole_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || text.starts_with(|first: char| first != '0'))
}

/// The next part of a template.
enum Peek {
    End,
    Byte(u8),
    Hole,
}

enum Hole {
    Column(usize, Codec),
    Copy(usize, Codec),
    Item,
    Open(Style),
    Close,
}

/// What the value of a member is, for the check of names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Column,
    Null,
    Object(usize),
    /// The string [`LEVEL_REPLACED`].
    Replaced,
    Other,
}

struct Member {
    object: usize,
    name: String,
    at: usize,
    value: Value,
}

struct Object {
    /// Position of the member whose value is this object.
    member: Option<usize>,
    segments: Range<usize>,
}

/// Reads a template or an item. An item has no holes.
struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    is_form: bool,
    segments: Vec<Segment>,
    literal: Vec<u8>,
    holes: usize,
    items: usize,
    columns: u64,
    /// The columns that have copies.
    copied: u64,
    members: Vec<Member>,
    objects: Vec<Object>,
    depth: usize,
    regions: usize,
    /// Position of the event, the object that contains all columns.
    event: Option<usize>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str, is_form: bool) -> Self {
        Reader {
            text: text.as_bytes(),
            at: 0,
            is_form,
            segments: Vec::new(),
            literal: Vec::new(),
            holes: 0,
            items: 0,
            columns: 0,
            copied: 0,
            members: Vec::new(),
            objects: Vec::new(),
            depth: 0,
            regions: 0,
            event: None,
        }
    }

    fn fault(&self, fault: Fault) -> FormError {
        FormError { at: self.at, fault }
    }

    fn peek(&self) -> Peek {
        match self.text.get(self.at) {
            None => Peek::End,
            Some(b'$') if self.is_form && self.text.get(self.at + 1) != Some(&b'$') => Peek::Hole,
            Some(byte) => Peek::Byte(*byte),
        }
    }

    /// Consumes the byte that was peeked. In a form, a `$` is written as two bytes.
    fn take(&mut self) {
        let byte = self.text[self.at];
        self.literal.push(byte);
        self.at += if self.is_form && byte == b'$' { 2 } else { 1 };
    }

    fn take_if(&mut self, wanted: u8) -> bool {
        let is_there = matches!(self.peek(), Peek::Byte(byte) if byte == wanted);
        if is_there {
            self.take();
        }
        is_there
    }

    fn need(&mut self, wanted: u8) -> Result<(), FormError> {
        if self.take_if(wanted) { Ok(()) } else { Err(self.fault(Fault::NotJson)) }
    }

    fn end_literal(&mut self) {
        if !self.literal.is_empty() {
            // The template is cut only at ASCII characters, so each literal is UTF-8.
            let literal = String::from_utf8_lossy(&self.literal).into_owned();
            self.segments.push(Segment::Literal(literal));
            self.literal.clear();
        }
    }

    /// Returns the hole that starts at the current byte, and the offset of its end.
    fn hole(&self) -> Result<(Hole, usize), FormError> {
        let wrong = |fault| Err(self.fault(fault));
        let rest = &self.text[self.at..];
        let length = rest.iter().take(HOLE_BYTES_MAX).position(|byte| *byte == b'}');
        let inside = length.and_then(|length| rest[..length].strip_prefix(b"${"));
        let (Some(length), Some(Ok(inside))) = (length, inside.map(std::str::from_utf8)) else {
            return wrong(Fault::Hole);
        };
        let end = self.at + length + 1;
        if inside.is_empty() {
            return Ok((Hole::Item, end));
        }
        if inside == ">" {
            return Ok((Hole::Close, end));
        }
        if let Some(style) = inside.strip_prefix('<') {
            return match Style::parse(style) {
                Some(style) => Ok((Hole::Open(style), end)),
                None => wrong(Fault::UnknownCodec),
            };
        }
        let (is_copy, inside) = inside.strip_prefix('=').map_or((false, inside), |inside| (true, inside));
        let (name, codec) =
            inside.split_once(':').map_or((inside, None), |(name, codec)| (name, Some(codec)));
        let Some(at) = MAPPED.iter().position(|mapped| mapped.name == name) else {
            return wrong(Fault::UnknownColumn);
        };
        if is_copy && MAPPED[at].kind != Kind::Time {
            return wrong(Fault::NotCopied);
        }
        match Codec::parse(MAPPED[at].kind, codec) {
            Some(codec) if is_copy => Ok((Hole::Copy(at, codec), end)),
            Some(codec) => Ok((Hole::Column(at, codec), end)),
            None => wrong(Fault::UnknownCodec),
        }
    }

    fn put(&mut self, segment: Segment, end: usize) -> Result<(), FormError> {
        self.holes += 1;
        if self.holes > FORM_HOLES_MAX {
            return Err(self.fault(Fault::TooManyHoles));
        }
        if matches!(segment, Segment::Item(_)) {
            self.items += 1;
            if self.items > FORM_ITEMS_MAX {
                return Err(self.fault(Fault::TooManyHoles));
            }
        }
        self.end_literal();
        self.segments.push(segment);
        self.at = end;
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), FormError> {
        self.depth += 1;
        if self.depth > FORM_DEPTH_MAX { Err(self.fault(Fault::TooDeep)) } else { Ok(()) }
    }

    /// Reads a document and the text around it.
    fn text(&mut self) -> Result<(), FormError> {
        self.around()?;
        match self.peek() {
            Peek::Byte(b'{') => _ = self.object(None)?,
            Peek::Hole => match self.hole()? {
                (Hole::Open(style), end) => self.region(style, end)?,
                _ => return Err(self.fault(Fault::NotJson)),
            },
            _ => return Err(self.fault(Fault::NotJson)),
        }
        self.around()
    }

    fn around(&mut self) -> Result<(), FormError> {
        loop {
            match self.peek() {
                Peek::End | Peek::Byte(b'{') => return Ok(()),
                Peek::Byte(_) => self.take(),
                Peek::Hole => match self.hole()? {
                    (Hole::Item, end) => self.put(Segment::Item(Place::Around), end)?,
                    (Hole::Column(..) | Hole::Copy(..), _) => return Err(self.fault(Fault::Misplaced)),
                    (Hole::Open(_) | Hole::Close, _) => return Ok(()),
                },
            }
        }
    }

    fn region(&mut self, style: Style, end: usize) -> Result<(), FormError> {
        self.deeper()?;
        self.regions += 1;
        if self.regions > FORM_REGIONS_MAX {
            return Err(self.fault(Fault::TooDeep));
        }
        self.put(Segment::Open(style), end)?;
        self.text()?;
        match self.peek() {
            Peek::Hole => match self.hole()? {
                (Hole::Close, end) => {
                    self.end_literal();
                    self.segments.push(Segment::Close);
                    self.at = end;
                }
                _ => return Err(self.fault(Fault::NotJson)),
            },
            Peek::End => return Err(self.fault(Fault::Hole)),
            Peek::Byte(_) => return Err(self.fault(Fault::NotJson)),
        }
        self.regions -= 1;
        self.depth -= 1;
        Ok(())
    }

    fn white_space(&mut self) {
        while let Peek::Byte(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.take();
        }
    }

    /// Reads a value. `member` is the position of the member that has the value, if a member has
    /// it.
    fn value(&mut self, member: Option<usize>) -> Result<Value, FormError> {
        match self.peek() {
            Peek::End => return Err(self.fault(Fault::NotJson)),
            Peek::Hole => match self.hole()? {
                (Hole::Column(at, codec), end) => {
                    self.column(at, member)?;
                    self.put(Segment::Column(at, codec), end)?;
                    return Ok(Value::Column);
                }
                (Hole::Copy(at, codec), end) => {
                    self.copied |= 1 << at;
                    self.put(Segment::Copy(at, codec), end)?;
                }
                (Hole::Item, end) => self.put(Segment::Item(Place::Value), end)?,
                (Hole::Open(style), end) => self.region(style, end)?,
                (Hole::Close, _) => return Err(self.fault(Fault::NotJson)),
            },
            Peek::Byte(b'{') => return Ok(Value::Object(self.object(member)?)),
            Peek::Byte(b'[') => self.list()?,
            Peek::Byte(b'"') => {
                let start = self.at;
                self.take();
                self.characters()?;
                self.need(b'"')?;
                if self.text[start..self.at] == *LEVEL_REPLACED.as_bytes() {
                    return Ok(Value::Replaced);
                }
            }
            Peek::Byte(b'-' | b'0'..=b'9') => self.number()?,
            Peek::Byte(b't') => self.word(b"true")?,
            Peek::Byte(b'f') => self.word(b"false")?,
            Peek::Byte(b'n') => {
                self.word(b"null")?;
                return Ok(Value::Null);
            }
            Peek::Byte(_) => return Err(self.fault(Fault::NotJson)),
        }
        Ok(Value::Other)
    }

    fn word(&mut self, word: &[u8]) -> Result<(), FormError> {
        word.iter().try_for_each(|byte| self.need(*byte))
    }

    fn digits(&mut self) -> Result<(), FormError> {
        let start = self.at;
        while let Peek::Byte(b'0'..=b'9') = self.peek() {
            self.take();
        }
        if self.at > start { Ok(()) } else { Err(self.fault(Fault::NotJson)) }
    }

    fn number(&mut self) -> Result<(), FormError> {
        self.take_if(b'-');
        if !self.take_if(b'0') {
            self.digits()?;
        }
        if self.take_if(b'.') {
            self.digits()?;
        }
        if self.take_if(b'e') || self.take_if(b'E') {
            let _ = self.take_if(b'+') || self.take_if(b'-');
            self.digits()?;
        }
        Ok(())
    }

    /// Reads the characters of a string value, up to its end. The decoded characters have neither
    /// `{` nor a backslash, so no string of a form contains an object, however often it is decoded.
    fn characters(&mut self) -> Result<(), FormError> {
        loop {
            match self.peek() {
                Peek::End | Peek::Byte(b'"') => return Ok(()),
                Peek::Byte(b'{') => return Err(self.fault(Fault::String)),
                Peek::Byte(..0x20) => return Err(self.fault(Fault::NotJson)),
                Peek::Byte(b'\\') => {
                    let rest = &self.text[self.at + 1..];
                    let length = match rest.first() {
                        Some(b'"' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 1,
                        Some(b'\\') => return Err(self.fault(Fault::String)),
                        Some(b'u') if rest.len() > 4 && rest[1..5].iter().all(u8::is_ascii_hexdigit) => {
                            let digits = rest[1..5].to_ascii_lowercase();
                            if digits == b"005c" || digits == b"007b" {
                                return Err(self.fault(Fault::String));
                            }
                            5
                        }
                        _ => return Err(self.fault(Fault::NotJson)),
                    };
                    (0..=length).for_each(|_| self.take());
                }
                Peek::Byte(_) => self.take(),
                Peek::Hole => match self.hole()? {
                    (Hole::Item, end) => self.put(Segment::Item(Place::Text), end)?,
                    _ => return Err(self.fault(Fault::Misplaced)),
                },
            }
        }
    }

    /// Reads a member's name, in which the only escape allowed is `\/`.
    fn name(&mut self) -> Result<String, FormError> {
        self.need(b'"')?;
        let mut name = Vec::new();
        loop {
            match self.peek() {
                Peek::Byte(b'"') => break,
                Peek::End | Peek::Byte(..0x20) => return Err(self.fault(Fault::NotJson)),
                Peek::Byte(b'\\') => {
                    if self.text.get(self.at + 1) != Some(&b'/') {
                        return Err(self.fault(Fault::String));
                    }
                    self.take();
                    self.take();
                    name.push(b'/');
                }
                Peek::Byte(byte) => {
                    name.push(byte);
                    self.take();
                }
                Peek::Hole => {
                    self.hole()?;
                    return Err(self.fault(Fault::Misplaced));
                }
            }
        }
        self.take();
        Ok(String::from_utf8_lossy(&name).into_owned())
    }

    fn list(&mut self) -> Result<(), FormError> {
        self.deeper()?;
        self.take();
        self.white_space();
        if !self.take_if(b']') {
            loop {
                self.value(None)?;
                self.white_space();
                if self.take_if(b']') {
                    break;
                }
                self.need(b',')?;
                self.white_space();
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an object, and returns its position. `member` is the position of the member whose
    /// value the object is, if there is one.
    fn object(&mut self, member: Option<usize>) -> Result<usize, FormError> {
        self.deeper()?;
        let object = self.objects.len();
        self.end_literal();
        let start = self.segments.len();
        self.objects.push(Object { member, segments: start..start });
        self.take();
        self.white_space();
        if !self.take_if(b'}') {
            loop {
                let at = self.at;
                let name = self.name()?;
                self.white_space();
                self.need(b':')?;
                self.white_space();
                let place = self.members.len();
                self.members.push(Member { object, name, at, value: Value::Other });
                let value = self.value(Some(place))?;
                self.members[place].value = value;
                self.white_space();
                if self.take_if(b'}') {
                    break;
                }
                self.need(b',')?;
                self.white_space();
            }
        }
        self.depth -= 1;
        self.end_literal();
        self.objects[object].segments.end = self.segments.len();
        Ok(object)
    }

    /// Records the hole of the column `MAPPED[at]`, which is the value of `member`, and checks that
    /// this is the column's own member in the event.
    fn column(&mut self, at: usize, member: Option<usize>) -> Result<(), FormError> {
        let bit = 1 << at;
        if self.columns & bit != 0 {
            return Err(self.fault(Fault::ColumnTwice));
        }
        let mapped = &MAPPED[at];
        let is_own = |name: &str| {
            name == mapped.member || (mapped.column == index::LEVEL && LEVEL_MEMBERS.contains(&name))
        };
        let own = member.map(|member| &self.members[member]).filter(|member| is_own(&member.name));
        let event = match (mapped.inside, own) {
            (None, Some(own)) => Some(own.object),
            (Some(container), Some(own)) => {
                let outer = self.objects[own.object].member.map(|member| &self.members[member]);
                outer.filter(|outer| outer.name == container).map(|outer| outer.object)
            }
            (_, None) => None,
        };
        let is_here = event.is_some() && (self.event.is_none() || self.event == event);
        if !is_here {
            return Err(self.fault(Fault::Misplaced));
        }
        (self.event, self.columns) = (event, self.columns | bit);
        Ok(())
    }

    /// Checks the names of all members. A member of the event with a column's name must have the
    /// column's hole or null as its value. Members that can have the level may have other values,
    /// too: see [`Reader::is_level`]. No other object may have one of [`EVENT_NAMES`]. No object
    /// may have the same name twice.
    fn judge_names(&self, event: Option<usize>) -> Result<(), FormError> {
        let level = self.members.iter().find(|member| {
            event == Some(member.object)
                && member.value == Value::Column
                && (member.name == "level" || LEVEL_MEMBERS.contains(&member.name.as_str()))
        });
        let level = level.map(|member| member.name.as_str());
        let mut seen = HashSet::new();
        for member in &self.members {
            let wrong = |fault| Err(FormError { at: member.at, fault });
            let name = member.name.to_ascii_lowercase();
            let outer = self.objects[member.object].member.map(|outer| &self.members[outer]);
            let container = outer
                .filter(|outer| event == Some(outer.object))
                .and_then(|outer| CONTAINERS.into_iter().find(|container| *container == outer.name));
            if event == Some(member.object) || container.is_some() {
                let columns = MAPPED.iter().filter(|mapped| mapped.inside == container);
                let own = columns.map(|mapped| mapped.member).find(|own| own.eq_ignore_ascii_case(&name));
                let held = CONTAINERS.into_iter().find(|held| held.eq_ignore_ascii_case(&name));
                let held = held.filter(|_| container.is_none());
                let is_right = match member.value {
                    Value::Column => true,
                    Value::Null => own.or(held).is_none_or(|right| right == member.name),
                    Value::Object(_) => own.is_none() && held.is_none_or(|right| right == member.name),
                    Value::Other | Value::Replaced => own.or(held).is_none(),
                };
                let is_right = match container {
                    None => Self::is_level(level, member, &name).unwrap_or(is_right),
                    Some(_) => is_right,
                };
                let is_hidden = container.is_some()
                    && own.is_none()
                    && name != "apiversion"
                    && EVENT_NAMES.contains(&name.as_str());
                if !is_right || is_hidden {
                    return wrong(Fault::Named);
                }
            } else if EVENT_NAMES.contains(&name.as_str()) {
                return wrong(Fault::Named);
            }
            if !seen.insert((member.object, name)) {
                return wrong(Fault::NameTwice);
            }
        }
        Ok(())
    }

    /// Whether a member of the event that can have the level may have its value. `None` if the
    /// rules of all members decide. `hole` is the name of the member that has the level's hole, and
    /// `name` is the member's name in lower case.
    fn is_level(hole: Option<&str>, member: &Member, name: &str) -> Option<bool> {
        if name == "level" {
            let is_replaced = member.value == Value::Replaced && member.name == name;
            return is_replaced.then(|| hole.is_some_and(|hole| LEVEL_MEMBERS.contains(&hole)));
        }
        let at = LEVEL_MEMBERS.iter().position(|own| *own == name)?;
        Some(match member.value {
            Value::Column | Value::Null => true,
            // If the event has both members, the first of [`LEVEL_MEMBERS`] has the level.
            _ => hole.is_some_and(|hole| at > 0 || hole != LEVEL_MEMBERS[1]),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::Table;

    /// Returns the test vectors, which have the results that every reader of forms must have.
    fn vectors() -> Json {
        serde_json::from_str(include_str!("../../tests/data/forms.json")).expect("JSON")
    }

    fn cases<'v>(vectors: &'v Json, list: &str) -> impl Iterator<Item = &'v Json> + use<'v> {
        vectors[list].as_array().expect("a list").iter()
    }

    #[test]
    fn forms_of_the_vectors_are_parsed() {
        let vectors = vectors();
        for case in cases(&vectors, "records") {
            let template = case["form"].as_str().expect("text");
            let form = Form::parse(template).unwrap_or_else(|error| panic!("{}: {error}", case["name"]));
            let columns = case["columns"].as_object().expect("an object");
            let named = MAPPED.iter().enumerate().filter(|(at, _)| form.columns() >> at & 1 == 1);
            let mut named: Vec<&str> = named.map(|(_, mapped)| mapped.name).collect();
            let mut there: Vec<&str> = columns.keys().map(String::as_str).collect();
            named.sort_unstable();
            there.sort_unstable();
            assert_eq!(named, there, "{}", case["name"]);
            assert_eq!(form.items(), case["form_values"].as_array().map_or(0, Vec::len), "{}", case["name"]);
        }
    }

    #[test]
    fn what_is_not_a_form_is_refused_with_its_class() {
        let vectors = vectors();
        let of_rows = [
            "column_left_out",
            "column_null",
            "beside_raw",
            "beside_shape",
            "items",
            "item",
            "inexact",
            "null_item",
        ];
        let (mut refused, mut parsed) = (0, 0);
        for case in cases(&vectors, "refused") {
            let (template, class) =
                (case["form"].as_str().expect("text"), case["fault"].as_str().expect("text"));
            match Form::parse(template) {
                Err(error) => {
                    assert_eq!(error.fault.as_str(), class, "{}: {error}", case["name"]);
                    assert!(error.at <= template.len(), "{}", case["name"]);
                    refused += 1;
                }
                Ok(_) => {
                    assert!(of_rows.contains(&class), "{} is a form", case["name"]);
                    parsed += 1;
                }
            }
        }
        assert!(refused > 80 && parsed > 30, "{refused} refused, {parsed} parsed");
    }

    #[test]
    fn marks_and_faults_of_the_vectors() {
        let vectors = vectors();
        for case in cases(&vectors, "redactions") {
            let mark = crate::marks::Redaction::parse(case["redaction"].as_str().expect("text"));
            assert_eq!(mark.is_ok(), case["good"] == true, "{case}: {mark:?}");
        }
        for case in cases(&vectors, "faults") {
            let faults = case["faults"].as_array().expect("a list").iter().map(Json::as_str);
            assert_eq!(crate::marks::are_faults(faults), case["good"] == true, "{case}");
        }
    }

    #[test]
    fn errors_name_the_byte_and_nothing_of_the_form() {
        let error = Form::parse("{\"auditID\":${audit_id},\"ü\":secret}").expect_err("no JSON");
        assert_eq!(error, FormError { at: 28, fault: Fault::NotJson });
        assert_eq!(error.to_string(), "byte 28: the document is not JSON here");
        let error = Form::parse("{\"auditID\":${audit_id},\"verb\":\"secret\"}").expect_err("a literal verb");
        assert_eq!(error, FormError { at: 23, fault: Fault::Named });
    }

    #[test]
    fn every_column_of_the_record_is_mapped() {
        let schema = Table::Events.file_schema();
        for mapped in MAPPED {
            assert_eq!(schema.field(mapped.column).name(), mapped.name);
        }
        // The other columns are not members of the record, or are derived from members.
        let columns: HashSet<usize> = MAPPED.iter().map(|mapped| mapped.column).collect();
        let others: Vec<&str> = (0..index::COUNT)
            .filter(|column| !columns.contains(column))
            .map(|column| schema.field(column).name().as_str())
            .collect();
        assert_eq!(
            others,
            [
                "authz_decision",
                "authz_reason",
                "cluster",
                "source",
                "source_offset",
                "raw",
                "shape",
                "frame_before",
                "frame_after",
                "form",
                "form_values",
                "redaction",
                "faults",
            ]
        );
    }

    #[test]
    fn names_are_those_of_the_document() {
        let text = include_str!("../../docs/format.md");
        let styles = Style::ALL.map(Style::as_str).into_iter();
        let unread = crate::marks::Unread::ALL.map(crate::marks::Unread::as_str);
        for name in styles.chain(unread) {
            assert!(text.contains(&format!("| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn bounds_hold() {
        let form =
            |length: usize| format!("{{\"auditID\":${{audit_id}},\"a\":\"{}\"}}", "x".repeat(length - 30));
        assert_eq!(form(100).len(), 100);
        assert!(Form::parse(&form(FORM_BYTES_MAX)).is_ok());
        let error = Form::parse(&form(FORM_BYTES_MAX + 1)).expect_err("too long");
        assert_eq!(error.fault, Fault::TooLong);
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(item_fits(&deep(FORM_DEPTH_MAX), Place::Value));
        assert!(!item_fits(&deep(FORM_DEPTH_MAX + 1), Place::Value));
        assert!(!item_fits(&"[".repeat(1 << 20), Place::Value), "a stack is not what stops it");
    }
}
