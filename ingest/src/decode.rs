//! Lines to columns in one pass.
//!
//! Invariants:
//! - Every byte of a line is kept: as an event whose columns render to it, as an event with `raw`, or
//!   as a reject. What surrounds the items of an `EventList` travels in `frame_before`/`frame_after`.
//! - A row is pushed whole or not at all: everything that can be refused is decoded before the first
//!   column is touched.
//! - The result equals that of [`crate::plain`] on every input.
//!
//! A line's text is parsed by simd-json; objects that repeat (`user`, `annotations`, `sourceIPs`,
//! `responseStatus`, `objectRef`) are looked up by their text and decoded once a block. Bodies are
//! never built: they are slices of the line. Whether a line is canonical, so that `raw` can be left
//! out, follows from the positions of its members: the gaps between values must be what
//! [`crate::render`] writes, and each value must be spelt as it spells it.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use chrono::{DateTime, Utc};
use simd_json::{Node, StaticNode};
use strongroom_schemas::events::{SHAPE_DEFAULT, index};
use strongroom_schemas::{Level, Stage, Table};

use crate::columns::{BytesColumn, DictColumn, ListColumn, Memo, NULL, NumberColumn};
use crate::frame::{self, Block, LineKind};
use crate::plain::{self, PlainEvent};
use crate::reject::{Reason, Refusal};
use crate::render::{self, go_string};
use crate::tape::{self, Member, Odd, Parser};
use crate::time;

/// Bounds of the decoder.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    /// Longest line that is read, in bytes. Default [`LINE_BYTES_MAX`].
    pub line_bytes_max: usize,
    /// Deepest nesting that is read. Default [`DEPTH_MAX`].
    pub depth_max: usize,
}

/// Longest line: 4 MiB.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// Deepest nesting of a document.
pub const DEPTH_MAX: usize = 128;
/// Longest `shape` that is stored; a stranger head goes to `raw`.
const SHAPE_BYTES_MAX: usize = 256;
/// Places of one undecodable line where the decoder looks for a whole event.
const RECOVERY_TRIES_MAX: usize = 64;

impl Default for DecoderConfig {
    fn default() -> Self {
        DecoderConfig { line_bytes_max: LINE_BYTES_MAX, depth_max: DEPTH_MAX }
    }
}

/// What a block became.
#[derive(Debug)]
pub struct DecodedBlock {
    /// Rows of [`Table::Events`] in its batch schema, in stream order.
    pub events: RecordBatch,
    /// Rows of [`Table::Rejects`] in its batch schema, in stream order.
    pub rejects: RecordBatch,
    /// Bytes of the block that were used; less than its length when an unfinished line was left.
    pub consumed: usize,
}

impl DecodedBlock {
    /// Records received: every event and every reject is one.
    pub fn records(&self) -> u64 {
        (self.events.num_rows() + self.rejects.num_rows()) as u64
    }
}

/// Turns blocks into batches. Holds buffers between blocks and nothing else.
pub struct Decoder {
    config: DecoderConfig,
    parser: Parser,
    rows: Rows,
    members: Vec<Member>,
    rejects: Rejects,
}

impl Decoder {
    pub fn new(config: DecoderConfig) -> Self {
        Decoder {
            parser: Parser::new(64 << 10, config.depth_max),
            rows: Rows::new(),
            members: Vec::new(),
            rejects: Rejects::new(),
            config,
        }
    }

    /// Decodes all lines of `block`; `arrived` is the time given to rejects.
    ///
    /// # Errors
    /// None that depend on the input: an [`ArrowError`] means that a column was assembled wrongly.
    pub fn decode(&mut self, block: &Block, arrived: DateTime<Utc>) -> Result<DecodedBlock, ArrowError> {
        self.rows.begin(&block.origin);
        self.rejects.begin(&block.origin, arrived.timestamp_micros());
        let mut consumed = block.bytes.len();
        let mut frame_before = 0;
        for line in frame::lines(block, self.config.line_bytes_max) {
            let offset = block.offset + line.at as i64;
            if line.kind == LineKind::Piece {
                let refusal = Refusal::new(
                    Reason::LineTooLong,
                    format!("part of a line longer than {} bytes", self.config.line_bytes_max),
                );
                self.rejects.push(line.bytes, &refusal, offset, line.number);
                continue;
            }
            let mut bytes = line.bytes;
            if offset == 0 && bytes.starts_with(BOM) {
                bytes = &bytes[BOM.len()..];
                frame_before = BOM.len();
            }
            let whole = Piece {
                line: line.bytes,
                number: line.number,
                offset,
                start: frame_before,
                end: line.bytes.len(),
            };
            frame_before = 0;
            match self.event(bytes, &whole.place(whole.start, 0)) {
                Ok(()) => {}
                Err(_) if line.kind == LineKind::Open => consumed = line.at,
                Err(refusal) => self.recover(&whole, refusal),
            }
        }
        Ok(DecodedBlock { events: self.rows.finish()?, rejects: self.rejects.finish()?, consumed })
    }

    /// Decodes one event and pushes its row, or says why it is none.
    fn event(&mut self, bytes: &[u8], place: &Place<'_>) -> Result<(), Refusal> {
        let Decoder { parser, rows, members, config, .. } = self;
        let outcome = parser
            .parse(bytes, |nodes, base| rows.push(&Document { nodes, base, line: bytes }, members, place));
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Stop::Refused(refusal))) => Err(refusal),
            // Odd or not JSON to simd-json: the plain decoder has the last word.
            Ok(Err(Stop::Odd)) | Err(_) => {
                let event = plain::decode(bytes, config.depth_max)?;
                rows.push_plain(&event, bytes, place);
                Ok(())
            }
        }
    }

    /// A line that is no event may be an `EventList`, or hold whole events beside what is broken.
    fn recover(&mut self, whole: &Piece<'_>, refusal: Refusal) {
        if refusal.reason == Reason::NotAnAuditEvent && self.event_list(whole) {
            return;
        }
        let splittable = matches!(
            refusal.reason,
            Reason::BrokenJson | Reason::TruncatedByCloud | Reason::InvalidUtf8 | Reason::NulByte
        );
        if !splittable {
            return self.reject(whole, 0, whole.end, &refusal);
        }
        let bytes = whole.line;
        let head_finder = memchr::memmem::Finder::new(b"{\"kind\":\"Event");
        let (mut try_at, mut broken_from, mut recovered) = (Some(whole.start), 0, false);
        for _ in 0..RECOVERY_TRIES_MAX {
            let Some(head) = try_at else { break };
            // The line as a whole has been refused; `{…}{…}`, two events without a newline, has not.
            let end = document_end(&bytes[head..]).map(|length| head + length);
            match end.filter(|end| head > whole.start || *end < bytes.len()) {
                Some(end) if self.event(&bytes[head..end], &whole.place(head, head)).is_ok() => {
                    if broken_from < head {
                        let torn = Refusal::new(
                            Reason::TornLine,
                            format!("torn before a whole event at byte {head} of the line"),
                        );
                        self.reject(whole, broken_from, head, &torn);
                    }
                    recovered = true;
                    (broken_from, try_at) = (end, (end < bytes.len()).then_some(end));
                }
                _ => try_at = head_finder.find(&bytes[head + 1..]).map(|at| head + 1 + at),
            }
        }
        if broken_from < whole.end {
            let refusal = if recovered {
                Refusal::new(
                    Reason::TornLine,
                    format!("broken after a whole event, from byte {broken_from} of the line"),
                )
            } else {
                refusal
            };
            self.reject(whole, broken_from, whole.end, &refusal);
        }
    }

    /// Decodes the items of an `EventList`; false when the line is none.
    fn event_list(&mut self, whole: &Piece<'_>) -> bool {
        let Some(items) = list_items(&whole.line[whole.start..]) else { return false };
        let base = whole.line.as_ptr() as usize;
        // Bytes from here on belong to no record yet.
        let mut pending = 0;
        let mut last = None;
        for item in items {
            let start = item.as_ptr() as usize - base;
            let end = start + item.len();
            let place = whole.place(start, pending);
            last = Some(match self.event(item.as_bytes(), &place) {
                Ok(()) => LastItem::Event,
                Err(refusal) => {
                    // The reject takes the frame with it, so that no byte is lost.
                    self.reject(whole, pending, end, &refusal);
                    LastItem::Reject
                }
            });
            pending = end;
        }
        let tail = &whole.line[pending..whole.end];
        match last {
            None => {
                let empty = Refusal::new(Reason::EmptyEventList, "an EventList without items");
                self.reject(whole, 0, whole.end, &empty);
            }
            Some(LastItem::Event) => self.rows.extend_frame_after(tail),
            Some(LastItem::Reject) => self.rejects.extend_last(tail),
        }
        true
    }

    fn reject(&mut self, whole: &Piece<'_>, start: usize, end: usize, refusal: &Refusal) {
        self.rejects.push(&whole.line[start..end], refusal, whole.offset + start as i64, whole.number);
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

enum LastItem {
    Event,
    Reject,
}

/// A line and where it stands; `start..end` is what may be decoded of it.
struct Piece<'l> {
    line: &'l [u8],
    number: i64,
    offset: i64,
    start: usize,
    end: usize,
}

impl<'l> Piece<'l> {
    /// The record that begins at `start`, with the bytes from `frame_from` to it as its frame.
    fn place(&self, start: usize, frame_from: usize) -> Place<'l> {
        Place { offset: self.offset + start as i64, before: &self.line[frame_from..start] }
    }
}

/// Position of a record and the frame before it.
struct Place<'l> {
    offset: i64,
    before: &'l [u8],
}

/// Length of the JSON document that `bytes` begins with.
fn document_end(bytes: &[u8]) -> Option<usize> {
    let mut documents =
        serde_json::Deserializer::from_slice(bytes).into_iter::<&serde_json::value::RawValue>();
    match documents.next() {
        Some(Ok(_)) => Some(documents.byte_offset()),
        _ => None,
    }
}

fn list_items(bytes: &[u8]) -> Option<Vec<&str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let plain::Members(members) = serde_json::from_str(text).ok()?;
    let last = |name: &str| members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.get());
    if last("kind") != Some("\"EventList\"") {
        return None;
    }
    let items = last("items").filter(|items| *items != "null");
    let items: Vec<&serde_json::value::RawValue> = match items {
        Some(items) => serde_json::from_str(items).ok()?,
        None => Vec::new(),
    };
    Some(items.into_iter().map(serde_json::value::RawValue::get).collect())
}

/// Why the fast path ends without a row.
enum Stop {
    Refused(Refusal),
    Odd,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<Odd> for Stop {
    fn from(Odd: Odd) -> Self {
        Stop::Odd
    }
}

/// A parsed line: its nodes and its text.
struct Document<'d, 't> {
    nodes: &'d [Node<'t>],
    base: usize,
    line: &'d [u8],
}

impl<'t> Document<'_, 't> {
    fn string(&self, name: &str, member: &Member) -> Result<Option<&'t str>, Refusal> {
        match &self.nodes[member.node] {
            Node::String(text) => Ok(Some(text)),
            Node::Static(StaticNode::Null) => Ok(None),
            _ => Err(Refusal::field(name, "a string")),
        }
    }

    fn text(&self, member: &Member) -> &[u8] {
        &self.line[member.start..member.end]
    }

    fn is_null(&self, member: &Member) -> bool {
        matches!(&self.nodes[member.node], Node::Static(StaticNode::Null))
    }

    fn members(&self, name: &str, member: &Member) -> Result<Vec<Member>, Stop> {
        if !matches!(&self.nodes[member.node], Node::Object { .. }) {
            return Err(Refusal::field(name, "an object").into());
        }
        let mut list = Vec::new();
        tape::members(self.nodes, self.base, self.line, member.node, member.end, &mut list)?;
        Ok(list)
    }

    fn strings(&self, name: &str, member: &Member) -> Result<Option<Vec<&'t str>>, Refusal> {
        let node = &self.nodes[member.node];
        match node {
            Node::Static(StaticNode::Null) => Ok(None),
            Node::Array { len, count } if len == count => {
                let items = &self.nodes[member.node + 1..member.node + 1 + count];
                let strings = items.iter().map(|item| match item {
                    Node::String(text) => Ok(*text),
                    _ => Err(Refusal::field(name, "an array of strings")),
                });
                strings.collect::<Result<_, _>>().map(Some)
            }
            _ => Err(Refusal::field(name, "an array of strings")),
        }
    }

    /// Whether the value's text is how [`go_string`] writes `value`.
    fn is_canonical_string(&self, member: &Member, value: &str) -> bool {
        let text = self.text(member);
        if text.len() == value.len() + 2 {
            // No escape shortens to itself, so there is none; what Go would escape must not be there.
            let inner = value.as_bytes();
            return memchr::memchr3(b'<', b'>', b'&', inner).is_none()
                && (memchr::memchr(0xe2, inner).is_none() || render::is_plain(inner) || spelt(value, text));
        }
        spelt(value, text)
    }
}

fn spelt(value: &str, text: &[u8]) -> bool {
    let mut written = Vec::with_capacity(text.len());
    go_string(value, &mut written);
    written == text
}

/// Whether `members` stand in the order of `names`, without white space, from `open` (just behind the
/// brace) to `close` (the brace).
fn is_compact(line: &[u8], members: &[Member], names: &[&str], open: usize, close: usize) -> bool {
    let (mut at, mut expected) = (open, names.iter());
    for (number, member) in members.iter().enumerate() {
        let from = if number == 0 { at } else { at + 1 };
        if member.key_at != from + 1
            || member.start != member.key_at + member.key_len + 2
            || !expected.any(|name| name.as_bytes() == member.key(line))
        {
            return false;
        }
        at = member.end;
    }
    at == close
}

#[derive(Clone, Copy)]
struct UserKeys {
    name: i32,
    uid: i32,
    groups: i32,
    extra: i32,
    canonical: bool,
}

#[derive(Clone, Copy)]
struct ObjectKeys {
    resource: i32,
    namespace: i32,
    name: i32,
    uid: i32,
    api_group: i32,
    api_version: i32,
    subresource: i32,
    canonical: bool,
}

#[derive(Clone, Copy)]
struct StatusKeys {
    status: i32,
    message: i32,
    reason: i32,
    details: i32,
    code: Option<i32>,
    canonical: bool,
}

#[derive(Clone, Copy)]
struct AnnotationKeys {
    annotations: i32,
    decision: i32,
    reason: i32,
}

#[derive(Clone, Copy)]
struct ListKeys {
    list: i32,
    canonical: bool,
}

const NO_USER: UserKeys = UserKeys { name: NULL, uid: NULL, groups: NULL, extra: NULL, canonical: false };
const NO_OBJECT: ObjectKeys = ObjectKeys {
    resource: NULL,
    namespace: NULL,
    name: NULL,
    uid: NULL,
    api_group: NULL,
    api_version: NULL,
    subresource: NULL,
    canonical: true,
};
const NO_STATUS: StatusKeys =
    StatusKeys { status: NULL, message: NULL, reason: NULL, details: NULL, code: None, canonical: true };

/// The events of a block, column by column.
struct Rows {
    audit_id: BytesColumn,
    stage: DictColumn,
    level: DictColumn,
    verb: DictColumn,
    request_uri: DictColumn,
    user_name: DictColumn,
    user_uid: DictColumn,
    user_groups: ListColumn,
    user_extra: DictColumn,
    impersonated_user_name: DictColumn,
    impersonated_user_groups: ListColumn,
    impersonated_user_extra: DictColumn,
    source_ips: ListColumn,
    user_agent: DictColumn,
    resource: DictColumn,
    subresource: DictColumn,
    namespace: DictColumn,
    name: DictColumn,
    api_group: DictColumn,
    api_version: DictColumn,
    object_uid: DictColumn,
    resource_version: BytesColumn,
    response_code: NumberColumn,
    response_status: DictColumn,
    response_reason: DictColumn,
    response_message: DictColumn,
    response_details: DictColumn,
    request_object: BytesColumn,
    response_object: BytesColumn,
    annotations: DictColumn,
    authz_decision: DictColumn,
    authz_reason: DictColumn,
    request_received_timestamp: NumberColumn,
    stage_timestamp: NumberColumn,
    cluster: DictColumn,
    source: DictColumn,
    source_offset: NumberColumn,
    raw: BytesColumn,
    shape: DictColumn,
    frame_before: BytesColumn,
    frame_after: BytesColumn,
    /// `frame_after` of the last row, held back because the tail of a list is known late.
    frame_after_last: Option<Vec<u8>>,
    users: Memo<UserKeys>,
    impersonated: Memo<UserKeys>,
    ips: Memo<ListKeys>,
    objects: Memo<(ObjectKeys, (usize, usize))>,
    statuses: Memo<StatusKeys>,
    annotation_sets: Memo<AnnotationKeys>,
    cluster_key: i32,
    source_key: i32,
}

/// Members of an event in kube-apiserver's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Head,
    Level,
    AuditId,
    Stage,
    RequestUri,
    Verb,
    User,
    ImpersonatedUser,
    SourceIps,
    UserAgent,
    ObjectRef,
    ResponseStatus,
    RequestObject,
    ResponseObject,
    RequestReceivedTimestamp,
    StageTimestamp,
    Annotations,
}

const PARTS: usize = Part::Annotations as usize + 1;

fn part(key: &[u8]) -> Option<Part> {
    Some(match key {
        b"level" => Part::Level,
        b"auditID" => Part::AuditId,
        b"stage" => Part::Stage,
        b"requestURI" => Part::RequestUri,
        b"verb" => Part::Verb,
        b"user" => Part::User,
        b"impersonatedUser" => Part::ImpersonatedUser,
        b"sourceIPs" => Part::SourceIps,
        b"userAgent" => Part::UserAgent,
        b"objectRef" => Part::ObjectRef,
        b"responseStatus" => Part::ResponseStatus,
        b"requestObject" => Part::RequestObject,
        b"responseObject" => Part::ResponseObject,
        b"requestReceivedTimestamp" => Part::RequestReceivedTimestamp,
        b"stageTimestamp" => Part::StageTimestamp,
        b"annotations" => Part::Annotations,
        _ => return None,
    })
}

const USER_NAMES: [&str; 4] = ["username", "uid", "groups", "extra"];
const IMPERSONATED_NAMES: [&str; 3] = ["username", "groups", "extra"];
const OBJECT_NAMES: [&str; 8] =
    ["resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource"];
const STATUS_NAMES: [&str; 6] = ["metadata", "status", "message", "reason", "details", "code"];

impl Rows {
    fn new() -> Self {
        Rows {
            audit_id: BytesColumn::new(),
            stage: DictColumn::new(),
            level: DictColumn::new(),
            verb: DictColumn::new(),
            request_uri: DictColumn::new(),
            user_name: DictColumn::new(),
            user_uid: DictColumn::new(),
            user_groups: ListColumn::new(),
            user_extra: DictColumn::new(),
            impersonated_user_name: DictColumn::new(),
            impersonated_user_groups: ListColumn::new(),
            impersonated_user_extra: DictColumn::new(),
            source_ips: ListColumn::new(),
            user_agent: DictColumn::new(),
            resource: DictColumn::new(),
            subresource: DictColumn::new(),
            namespace: DictColumn::new(),
            name: DictColumn::new(),
            api_group: DictColumn::new(),
            api_version: DictColumn::new(),
            object_uid: DictColumn::new(),
            resource_version: BytesColumn::new(),
            response_code: NumberColumn::new(),
            response_status: DictColumn::new(),
            response_reason: DictColumn::new(),
            response_message: DictColumn::new(),
            response_details: DictColumn::new(),
            request_object: BytesColumn::new(),
            response_object: BytesColumn::new(),
            annotations: DictColumn::new(),
            authz_decision: DictColumn::new(),
            authz_reason: DictColumn::new(),
            request_received_timestamp: NumberColumn::new(),
            stage_timestamp: NumberColumn::new(),
            cluster: DictColumn::new(),
            source: DictColumn::new(),
            source_offset: NumberColumn::new(),
            raw: BytesColumn::new(),
            shape: DictColumn::new(),
            frame_before: BytesColumn::new(),
            frame_after: BytesColumn::new(),
            frame_after_last: None,
            users: Memo::new(),
            impersonated: Memo::new(),
            ips: Memo::new(),
            objects: Memo::new(),
            statuses: Memo::new(),
            annotation_sets: Memo::new(),
            cluster_key: NULL,
            source_key: NULL,
        }
    }

    fn begin(&mut self, origin: &frame::Origin) {
        self.cluster_key = self.cluster.dictionary.intern(&origin.cluster);
        self.source_key = self.source.dictionary.intern(&origin.partition);
    }

    fn push(
        &mut self,
        document: &Document<'_, '_>,
        members: &mut Vec<Member>,
        place: &Place<'_>,
    ) -> Result<(), Stop> {
        if !matches!(document.nodes.first(), Some(Node::Object { .. })) {
            return Err(Refusal::new(Reason::NotAnAuditEvent, "not a JSON object").into());
        }
        tape::members(document.nodes, document.base, document.line, 0, document.line.len(), members)?;
        self.push_members(document, members, place)
    }

    fn push_members(
        &mut self,
        document: &Document<'_, '_>,
        members: &[Member],
        place: &Place<'_>,
    ) -> Result<(), Stop> {
        let line = document.line;
        let (mut kind, mut api_version) = (None, None);
        let mut parts: [Option<&Member>; PARTS] = [None; PARTS];
        let mut canonical = true;
        let mut before = Part::Head;
        // End of the last head member, and of the last member of all.
        let (mut head_end, mut at) = (0, 0);
        for member in members {
            let Some(part) = part(member.key(line)) else {
                match member.key(line) {
                    b"kind" => kind = Some(member),
                    b"apiVersion" => api_version = Some(member),
                    _ => {}
                }
                canonical &= before == Part::Head;
                head_end = member.end;
                continue;
            };
            canonical &= part > before && member.start == member.key_at + member.key_len + 2;
            if before == Part::Head {
                head_end = member.key_at - 1;
            } else {
                canonical &= member.key_at == at + 2;
            }
            before = part;
            at = member.end;
            parts[part as usize] = Some(member);
        }
        canonical &= line.first() == Some(&b'{') && at + 1 == line.len();
        let part = |part: Part| parts[part as usize];

        let string = |name: &str, at: Part| match part(at) {
            Some(member) => document.string(name, member),
            None => Ok(None),
        };
        let audit_id = part(Part::AuditId).map(|member| document.string("auditID", member));
        let has_audit_id = matches!(audit_id, Some(Ok(Some(_))));
        let kind = kind.and_then(|member| match &document.nodes[member.node] {
            Node::String(kind) => Some(*kind),
            Node::Static(StaticNode::Null) => None,
            _ => Some(""),
        });
        let api_version = api_version.and_then(|member| match &document.nodes[member.node] {
            Node::String(version) => Some(*version),
            _ => None,
        });
        plain::require_event(kind, api_version, has_audit_id, || {
            let keys: Vec<&str> = members
                .iter()
                .map(|member| std::str::from_utf8(member.key(line)).unwrap_or_default())
                .collect();
            plain::wrapper(&keys)
        })?;

        let audit_id = audit_id.transpose()?.flatten();
        let stage = string("stage", Part::Stage)?;
        let level = string("level", Part::Level)?;
        let verb = string("verb", Part::Verb)?;
        let request_uri = string("requestURI", Part::RequestUri)?;
        let user_agent = string("userAgent", Part::UserAgent)?;
        if let Some(stage) = stage {
            stage.parse::<Stage>().map_err(|error| Refusal::new(Reason::InvalidField, error.to_string()))?;
        }
        if let Some(level) = level {
            level.parse::<Level>().map_err(|error| Refusal::new(Reason::InvalidField, error.to_string()))?;
        }
        let user = match part(Part::User) {
            Some(member) => self.user(document, member)?,
            None => NO_USER,
        };
        let impersonated = match part(Part::ImpersonatedUser) {
            Some(member) => self.impersonated_user(document, member)?,
            None => UserKeys { canonical: true, ..NO_USER },
        };
        let ips = match part(Part::SourceIps) {
            Some(member) => self.source_ips(document, member)?,
            None => ListKeys { list: NULL, canonical: true },
        };
        let (object, resource_version) = match part(Part::ObjectRef) {
            Some(member) => self.object_ref(document, member)?,
            None => (NO_OBJECT, None),
        };
        let status = match part(Part::ResponseStatus) {
            Some(member) => self.response_status(document, member)?,
            None => NO_STATUS,
        };
        let body = |at: Part| {
            part(at).filter(|member| !document.is_null(member)).map(|member| document.text(member))
        };
        let (request_object, response_object) = (body(Part::RequestObject), body(Part::ResponseObject));
        let received = timestamp("requestReceivedTimestamp", document, part(Part::RequestReceivedTimestamp))?;
        let stage_time = timestamp("stageTimestamp", document, part(Part::StageTimestamp))?;
        let annotations = match part(Part::Annotations) {
            Some(member) => self.annotations(document, member)?,
            None => AnnotationKeys { annotations: NULL, decision: NULL, reason: NULL },
        };

        // Nothing is refused from here on.
        canonical = canonical
            && user.canonical
            && impersonated.canonical
            && ips.canonical
            && object.canonical
            && status.canonical
            && received.1
            && stage_time.1
            && head_end <= SHAPE_BYTES_MAX
            && [Part::RequestObject, Part::ResponseObject, Part::Annotations]
                .into_iter()
                .all(|at| part(at).is_none_or(|member| !document.is_null(member)))
            && [
                (Part::Level, level),
                (Part::AuditId, audit_id),
                (Part::Stage, stage),
                (Part::RequestUri, request_uri),
                (Part::Verb, verb),
                (Part::UserAgent, user_agent),
            ]
            .into_iter()
            .all(|(at, value)| match (part(at), value) {
                (Some(member), Some(value)) => document.is_canonical_string(member, value),
                (Some(_), None) => false,
                (None, _) => true,
            });
        let shape = canonical.then(|| &line[1..head_end.max(1)]);
        let (raw, shape) = match shape.map(std::str::from_utf8) {
            Some(Ok(SHAPE_DEFAULT)) => (None, NULL),
            Some(Ok(shape)) => (None, self.shape.dictionary.intern(shape)),
            _ => (Some(line), NULL),
        };

        self.push_place(place, raw, shape);
        self.audit_id.push(audit_id.map(str::as_bytes));
        let Rows { stage: stages, level: levels, verb: verbs, request_uri: uris, user_agent: agents, .. } =
            self;
        for (column, value) in
            [(stages, stage), (levels, level), (verbs, verb), (uris, request_uri), (agents, user_agent)]
        {
            let key = column.dictionary.intern_opt(value);
            column.push(key);
        }
        self.push_user(user, impersonated);
        self.source_ips.push(ips.list);
        self.push_object(object, resource_version);
        self.push_status(status);
        self.request_object.push(request_object);
        self.response_object.push(response_object);
        self.annotations.push(annotations.annotations);
        self.authz_decision.push(annotations.decision);
        self.authz_reason.push(annotations.reason);
        self.request_received_timestamp.push(received.0);
        self.stage_timestamp.push(stage_time.0);
        Ok(())
    }

    fn user(&mut self, document: &Document<'_, '_>, member: &Member) -> Result<UserKeys, Stop> {
        if document.is_null(member) {
            return Ok(NO_USER);
        }
        let hash = match self.users.get(document.text(member)) {
            Ok(keys) => return Ok(keys),
            Err(hash) => hash,
        };
        let (fields, groups, canonical) = read_user(document, member, "user", &USER_NAMES)?;
        let keys = UserKeys {
            name: self.user_name.dictionary.intern_opt(fields.name),
            uid: self.user_uid.dictionary.intern_opt(fields.uid),
            groups: groups.map_or(NULL, |groups| self.user_groups.intern(groups)),
            extra: self.user_extra.dictionary.intern_opt(fields.extra),
            canonical,
        };
        self.users.insert(hash, document.text(member), keys);
        Ok(keys)
    }

    fn impersonated_user(&mut self, document: &Document<'_, '_>, member: &Member) -> Result<UserKeys, Stop> {
        if document.is_null(member) {
            return Ok(NO_USER);
        }
        let hash = match self.impersonated.get(document.text(member)) {
            Ok(keys) => return Ok(keys),
            Err(hash) => hash,
        };
        let (fields, groups, canonical) =
            read_user(document, member, "impersonatedUser", &IMPERSONATED_NAMES)?;
        let keys = UserKeys {
            name: self.impersonated_user_name.dictionary.intern_opt(fields.name),
            uid: NULL,
            groups: groups.map_or(NULL, |groups| self.impersonated_user_groups.intern(groups)),
            extra: self.impersonated_user_extra.dictionary.intern_opt(fields.extra),
            // An empty object would not be rendered.
            canonical: canonical && fields.any,
        };
        self.impersonated.insert(hash, document.text(member), keys);
        Ok(keys)
    }

    fn source_ips(&mut self, document: &Document<'_, '_>, member: &Member) -> Result<ListKeys, Stop> {
        let hash = match self.ips.get(document.text(member)) {
            Ok(keys) => return Ok(keys),
            Err(hash) => hash,
        };
        let keys = match document.strings("sourceIPs", member)? {
            None => ListKeys { list: NULL, canonical: false },
            Some(list) => {
                let canonical = is_canonical_list(&list, document.text(member));
                ListKeys { list: self.source_ips.intern(list), canonical }
            }
        };
        self.ips.insert(hash, document.text(member), keys);
        Ok(keys)
    }

    fn object_ref<'d>(
        &mut self,
        document: &'d Document<'_, '_>,
        member: &Member,
    ) -> Result<(ObjectKeys, Option<&'d [u8]>), Stop> {
        if document.is_null(member) {
            return Ok((ObjectKeys { canonical: false, ..NO_OBJECT }, None));
        }
        let text = document.text(member);
        let hash = match self.objects.get(text) {
            Ok((keys, (0, 0))) => return Ok((keys, None)),
            Ok((keys, (start, end))) => return Ok((keys, Some(&text[start..end]))),
            Err(hash) => hash,
        };
        let mut version = None;
        let mut version_at = (0, 0);
        let mut fields: [Option<&str>; 8] = [None; 8];
        let members = document.members("objectRef", member)?;
        let mut canonical = !members.is_empty()
            && is_compact(document.line, &members, &OBJECT_NAMES, member.start + 1, member.end - 1);
        for inner in &members {
            let Some(at) = OBJECT_NAMES.iter().position(|name| name.as_bytes() == inner.key(document.line))
            else {
                continue;
            };
            let value = document.string(OBJECT_FIELDS[at], inner)?;
            canonical &= value.is_some_and(|value| document.is_canonical_string(inner, value));
            fields[at] = value;
            if at == OBJECT_VERSION {
                version = value;
                version_at = (inner.start + 1 - member.start, inner.end - 1 - member.start);
            }
        }
        let keys = ObjectKeys {
            resource: self.resource.dictionary.intern_opt(fields[0]),
            namespace: self.namespace.dictionary.intern_opt(fields[1]),
            name: self.name.dictionary.intern_opt(fields[2]),
            uid: self.object_uid.dictionary.intern_opt(fields[3]),
            api_group: self.api_group.dictionary.intern_opt(fields[4]),
            api_version: self.api_version.dictionary.intern_opt(fields[5]),
            subresource: self.subresource.dictionary.intern_opt(fields[7]),
            canonical,
        };
        // A version that is not spelt plainly cannot be read from the text again: decode it each time.
        let plainly = version.is_none_or(|version| {
            &text[version_at.0..version_at.1] == version.as_bytes() && !version.is_empty()
        });
        if !plainly {
            return Err(Stop::Odd);
        }
        self.objects.insert(hash, text, (keys, if version.is_some() { version_at } else { (0, 0) }));
        Ok((keys, version.map(|_| &text[version_at.0..version_at.1])))
    }

    fn response_status(&mut self, document: &Document<'_, '_>, member: &Member) -> Result<StatusKeys, Stop> {
        if document.is_null(member) {
            return Ok(StatusKeys { canonical: false, ..NO_STATUS });
        }
        let text = document.text(member);
        let hash = match self.statuses.get(text) {
            Ok(keys) => return Ok(keys),
            Err(hash) => hash,
        };
        let members = document.members("responseStatus", member)?;
        let mut canonical = members.len() > 1
            && members[0].key(document.line) == b"metadata"
            && document.text(&members[0]) == b"{}"
            && is_compact(document.line, &members, &STATUS_NAMES, member.start + 1, member.end - 1);
        let mut keys = NO_STATUS;
        let (mut status, mut message, mut reason, mut details) = (None, None, None, None);
        for inner in &members {
            let value = match inner.key(document.line) {
                b"status" => {
                    status = document.string("responseStatus.status", inner)?;
                    status
                }
                b"message" => {
                    message = document.string("responseStatus.message", inner)?;
                    message
                }
                b"reason" => {
                    reason = document.string("responseStatus.reason", inner)?;
                    reason
                }
                b"details" => {
                    details = json_object("responseStatus.details", document, inner)?;
                    canonical &= details.is_some();
                    continue;
                }
                b"code" => {
                    keys.code = code(document, inner)?;
                    canonical &= keys.code.is_some_and(|code| {
                        itoa::Buffer::new().format(code).as_bytes() == document.text(inner)
                    });
                    continue;
                }
                _ => continue,
            };
            canonical &= value.is_some_and(|value| document.is_canonical_string(inner, value));
        }
        keys = StatusKeys {
            status: self.response_status.dictionary.intern_opt(status),
            message: self.response_message.dictionary.intern_opt(message),
            reason: self.response_reason.dictionary.intern_opt(reason),
            details: self.response_details.dictionary.intern_opt(details),
            code: keys.code,
            canonical,
        };
        self.statuses.insert(hash, text, keys);
        Ok(keys)
    }

    fn annotations(&mut self, document: &Document<'_, '_>, member: &Member) -> Result<AnnotationKeys, Stop> {
        let none = AnnotationKeys { annotations: NULL, decision: NULL, reason: NULL };
        if document.is_null(member) {
            return Ok(none);
        }
        let text = document.text(member);
        let hash = match self.annotation_sets.get(text) {
            Ok(keys) => return Ok(keys),
            Err(hash) => hash,
        };
        let members = document.members("annotations", member)?;
        let (mut decision, mut reason) = (None, None);
        for inner in &members {
            match inner.key(document.line) {
                key if key == plain::AUTHZ_DECISION.as_bytes() => {
                    decision = document.string(plain::AUTHZ_DECISION_FIELD, inner)?
                }
                key if key == plain::AUTHZ_REASON.as_bytes() => {
                    reason = document.string(plain::AUTHZ_REASON_FIELD, inner)?
                }
                _ => {}
            }
        }
        let keys = AnnotationKeys {
            annotations: self.annotations.dictionary.intern(utf8(text)?),
            decision: self.authz_decision.dictionary.intern_opt(decision),
            reason: self.authz_reason.dictionary.intern_opt(reason),
        };
        self.annotation_sets.insert(hash, text, keys);
        Ok(keys)
    }

    /// Pushes an event of the plain decoder. Its `raw` is always kept: the line was odd.
    fn push_plain(&mut self, event: &PlainEvent, raw: &[u8], place: &Place<'_>) {
        fn list(column: &mut ListColumn, value: Option<&Vec<String>>) -> i32 {
            value.map_or(NULL, |list| column.intern(list.iter().map(String::as_str)))
        }
        self.push_place(place, Some(raw), NULL);
        self.audit_id.push(event.audit_id.as_deref().map(str::as_bytes));
        for (column, value) in [
            (&mut self.stage, &event.stage),
            (&mut self.level, &event.level),
            (&mut self.verb, &event.verb),
            (&mut self.request_uri, &event.request_uri),
            (&mut self.user_agent, &event.user_agent),
            (&mut self.annotations, &event.annotations),
            (&mut self.authz_decision, &event.authz_decision),
            (&mut self.authz_reason, &event.authz_reason),
        ] {
            let key = column.dictionary.intern_opt(value.as_deref());
            column.push(key);
        }
        let user = UserKeys {
            name: self.user_name.dictionary.intern_opt(event.user_name.as_deref()),
            uid: self.user_uid.dictionary.intern_opt(event.user_uid.as_deref()),
            groups: list(&mut self.user_groups, event.user_groups.as_ref()),
            extra: self.user_extra.dictionary.intern_opt(event.user_extra.as_deref()),
            canonical: false,
        };
        let impersonated = UserKeys {
            name: self.impersonated_user_name.dictionary.intern_opt(event.impersonated_user_name.as_deref()),
            uid: NULL,
            groups: list(&mut self.impersonated_user_groups, event.impersonated_user_groups.as_ref()),
            extra: self
                .impersonated_user_extra
                .dictionary
                .intern_opt(event.impersonated_user_extra.as_deref()),
            canonical: false,
        };
        self.push_user(user, impersonated);
        let ips = list(&mut self.source_ips, event.source_ips.as_ref());
        self.source_ips.push(ips);
        let object = ObjectKeys {
            resource: self.resource.dictionary.intern_opt(event.resource.as_deref()),
            namespace: self.namespace.dictionary.intern_opt(event.namespace.as_deref()),
            name: self.name.dictionary.intern_opt(event.name.as_deref()),
            uid: self.object_uid.dictionary.intern_opt(event.object_uid.as_deref()),
            api_group: self.api_group.dictionary.intern_opt(event.api_group.as_deref()),
            api_version: self.api_version.dictionary.intern_opt(event.api_version.as_deref()),
            subresource: self.subresource.dictionary.intern_opt(event.subresource.as_deref()),
            canonical: false,
        };
        self.push_object(object, event.resource_version.as_deref().map(str::as_bytes));
        let status = StatusKeys {
            status: self.response_status.dictionary.intern_opt(event.response_status.as_deref()),
            message: self.response_message.dictionary.intern_opt(event.response_message.as_deref()),
            reason: self.response_reason.dictionary.intern_opt(event.response_reason.as_deref()),
            details: self.response_details.dictionary.intern_opt(event.response_details.as_deref()),
            code: event.response_code,
            canonical: false,
        };
        self.push_status(status);
        self.request_object.push(event.request_object.as_deref().map(str::as_bytes));
        self.response_object.push(event.response_object.as_deref().map(str::as_bytes));
        self.request_received_timestamp.push(event.request_received_timestamp);
        self.stage_timestamp.push(event.stage_timestamp);
    }

    fn push_place(&mut self, place: &Place<'_>, raw: Option<&[u8]>, shape: i32) {
        self.flush_frame_after();
        self.cluster.push(self.cluster_key);
        self.source.push(self.source_key);
        self.source_offset.push(Some(place.offset));
        self.raw.push(raw);
        self.shape.push(shape);
        self.frame_before.push((!place.before.is_empty()).then_some(place.before));
        self.frame_after_last = Some(Vec::new());
    }

    fn push_user(&mut self, user: UserKeys, impersonated: UserKeys) {
        self.user_name.push(user.name);
        self.user_uid.push(user.uid);
        self.user_groups.push(user.groups);
        self.user_extra.push(user.extra);
        self.impersonated_user_name.push(impersonated.name);
        self.impersonated_user_groups.push(impersonated.groups);
        self.impersonated_user_extra.push(impersonated.extra);
    }

    fn push_object(&mut self, object: ObjectKeys, resource_version: Option<&[u8]>) {
        self.resource.push(object.resource);
        self.namespace.push(object.namespace);
        self.name.push(object.name);
        self.object_uid.push(object.uid);
        self.api_group.push(object.api_group);
        self.api_version.push(object.api_version);
        self.subresource.push(object.subresource);
        self.resource_version.push(resource_version);
    }

    fn push_status(&mut self, status: StatusKeys) {
        self.response_code.push(status.code.map(i64::from));
        self.response_status.push(status.status);
        self.response_message.push(status.message);
        self.response_reason.push(status.reason);
        self.response_details.push(status.details);
    }

    fn extend_frame_after(&mut self, tail: &[u8]) {
        if let Some(frame) = &mut self.frame_after_last {
            frame.extend_from_slice(tail);
        }
    }

    fn flush_frame_after(&mut self) {
        if let Some(frame) = self.frame_after_last.take() {
            self.frame_after.push((!frame.is_empty()).then_some(&frame));
        }
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.flush_frame_after();
        let rows = self.source_offset.len();
        let columns: Vec<(usize, ArrayRef)> = vec![
            (index::AUDIT_ID, self.audit_id.finish_strings()?),
            (index::STAGE, self.stage.finish()?),
            (index::LEVEL, self.level.finish()?),
            (index::VERB, self.verb.finish()?),
            (index::REQUEST_URI, self.request_uri.finish()?),
            (index::USER_NAME, self.user_name.finish()?),
            (index::USER_UID, self.user_uid.finish()?),
            (index::USER_GROUPS, self.user_groups.finish()?),
            (index::USER_EXTRA, self.user_extra.finish()?),
            (index::IMPERSONATED_USER_NAME, self.impersonated_user_name.finish()?),
            (index::IMPERSONATED_USER_GROUPS, self.impersonated_user_groups.finish()?),
            (index::IMPERSONATED_USER_EXTRA, self.impersonated_user_extra.finish()?),
            (index::SOURCE_IPS, self.source_ips.finish()?),
            (index::USER_AGENT, self.user_agent.finish()?),
            (index::RESOURCE, self.resource.finish()?),
            (index::SUBRESOURCE, self.subresource.finish()?),
            (index::NAMESPACE, self.namespace.finish()?),
            (index::NAME, self.name.finish()?),
            (index::API_GROUP, self.api_group.finish()?),
            (index::API_VERSION, self.api_version.finish()?),
            (index::OBJECT_UID, self.object_uid.finish()?),
            (index::RESOURCE_VERSION, self.resource_version.finish_strings()?),
            (index::RESPONSE_CODE, self.response_code.finish_i32()),
            (index::RESPONSE_STATUS, self.response_status.finish()?),
            (index::RESPONSE_REASON, self.response_reason.finish()?),
            (index::RESPONSE_MESSAGE, self.response_message.finish()?),
            (index::RESPONSE_DETAILS, self.response_details.finish()?),
            (index::REQUEST_OBJECT, self.request_object.finish_strings()?),
            (index::RESPONSE_OBJECT, self.response_object.finish_strings()?),
            (index::ANNOTATIONS, self.annotations.finish()?),
            (index::AUTHZ_DECISION, self.authz_decision.finish()?),
            (index::AUTHZ_REASON, self.authz_reason.finish()?),
            (index::REQUEST_RECEIVED_TIMESTAMP, self.request_received_timestamp.finish_timestamps()),
            (index::STAGE_TIMESTAMP, self.stage_timestamp.finish_timestamps()),
            (index::CLUSTER, self.cluster.finish()?),
            (index::SOURCE, self.source.finish()?),
            (index::SOURCE_OFFSET, self.source_offset.finish_i64()),
            (index::RAW, self.raw.finish_binary()?),
            (index::SHAPE, self.shape.finish()?),
            (index::FRAME_BEFORE, self.frame_before.finish_binary()?),
            (index::FRAME_AFTER, self.frame_after.finish_binary()?),
        ];
        debug_assert!(
            columns.iter().enumerate().all(|(at, (index, column))| at == *index && column.len() == rows)
        );
        self.users.clear();
        self.impersonated.clear();
        self.ips.clear();
        self.objects.clear();
        self.statuses.clear();
        self.annotation_sets.clear();
        RecordBatch::try_new(
            Table::Events.batch_schema(),
            columns.into_iter().map(|(_, column)| column).collect(),
        )
    }
}

const OBJECT_FIELDS: [&str; 8] = [
    "objectRef.resource",
    "objectRef.namespace",
    "objectRef.name",
    "objectRef.uid",
    "objectRef.apiGroup",
    "objectRef.apiVersion",
    "objectRef.resourceVersion",
    "objectRef.subresource",
];
const OBJECT_VERSION: usize = 6;

struct UserFields<'t> {
    name: Option<&'t str>,
    uid: Option<&'t str>,
    extra: Option<&'t str>,
    any: bool,
}

/// Reads a `UserInfo`; the last value says whether its text is as [`crate::render`] writes it.
fn read_user<'t>(
    document: &Document<'t, 't>,
    member: &Member,
    name: &str,
    names: &[&str],
) -> Result<(UserFields<'t>, Option<Vec<&'t str>>, bool), Stop> {
    let members = document.members(name, member)?;
    let mut canonical = is_compact(document.line, &members, names, member.start + 1, member.end - 1);
    let mut fields = UserFields { name: None, uid: None, extra: None, any: !members.is_empty() };
    let mut groups = None;
    for inner in &members {
        let path = |field: &str| format!("{name}.{field}");
        match inner.key(document.line) {
            b"username" => {
                fields.name = document.string(&path("username"), inner)?;
                canonical &= fields.name.is_some_and(|value| document.is_canonical_string(inner, value));
            }
            b"uid" if names.contains(&"uid") => {
                fields.uid = document.string(&path("uid"), inner)?;
                canonical &= fields.uid.is_some_and(|value| document.is_canonical_string(inner, value));
            }
            b"groups" => {
                groups = document.strings(&path("groups"), inner)?;
                canonical &=
                    groups.as_ref().is_some_and(|groups| is_canonical_list(groups, document.text(inner)));
            }
            b"extra" => {
                fields.extra = json_object(&path("extra"), document, inner)?;
                canonical &= fields.extra.is_some();
            }
            _ => {}
        }
    }
    Ok((fields, groups, canonical))
}

fn is_canonical_list(list: &[&str], text: &[u8]) -> bool {
    let mut written = Vec::with_capacity(text.len());
    written.push(b'[');
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            written.push(b',');
        }
        go_string(item, &mut written);
    }
    written.push(b']');
    written == text
}

fn json_object<'d>(
    name: &str,
    document: &Document<'d, '_>,
    member: &Member,
) -> Result<Option<&'d str>, Stop> {
    match &document.nodes[member.node] {
        Node::Static(StaticNode::Null) => Ok(None),
        Node::Object { .. } => utf8(&document.line[member.start..member.end]).map(Some),
        _ => Err(Refusal::field(name, "an object").into()),
    }
}

/// Text of a line that simd-json accepted is UTF-8; should it not be, the plain decoder says so.
fn utf8(text: &[u8]) -> Result<&str, Stop> {
    std::str::from_utf8(text).map_err(|_| Stop::Odd)
}

fn code(document: &Document<'_, '_>, member: &Member) -> Result<Option<i32>, Refusal> {
    let wrong = || Refusal::field("responseStatus.code", "a 32-bit integer");
    match &document.nodes[member.node] {
        Node::Static(StaticNode::Null) => Ok(None),
        Node::Static(StaticNode::I64(code)) => i32::try_from(*code).map(Some).map_err(|_| wrong()),
        Node::Static(StaticNode::U64(code)) => i32::try_from(*code).map(Some).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// A timestamp, and whether its text is as [`crate::render`] writes it.
fn timestamp(
    name: &str,
    document: &Document<'_, '_>,
    member: Option<&Member>,
) -> Result<(Option<i64>, bool), Refusal> {
    let Some(member) = member else { return Ok((None, false)) };
    let Some(text) = document.string(name, member)? else { return Ok((None, true)) };
    let micros = time::parse(text).ok_or_else(|| Refusal::field(name, "an RFC 3339 timestamp"))?;
    let canonical = time::is_canonical(text) && document.text(member).len() == text.len() + 2;
    Ok((Some(micros), canonical))
}

/// The rejects of a block.
struct Rejects {
    raw: Vec<Vec<u8>>,
    reason: DictColumn,
    detail: BytesColumn,
    cluster: DictColumn,
    source: DictColumn,
    offset: NumberColumn,
    line: NumberColumn,
    received: NumberColumn,
    arrived: i64,
    cluster_key: i32,
    source_key: i32,
}

impl Rejects {
    fn new() -> Self {
        Rejects {
            raw: Vec::new(),
            reason: DictColumn::new(),
            detail: BytesColumn::new(),
            cluster: DictColumn::new(),
            source: DictColumn::new(),
            offset: NumberColumn::new(),
            line: NumberColumn::new(),
            received: NumberColumn::new(),
            arrived: 0,
            cluster_key: NULL,
            source_key: NULL,
        }
    }

    fn begin(&mut self, origin: &frame::Origin, arrived: i64) {
        self.arrived = arrived;
        self.cluster_key = self.cluster.dictionary.intern(&origin.cluster);
        self.source_key = self.source.dictionary.intern(&origin.partition);
    }

    fn push(&mut self, bytes: &[u8], refusal: &Refusal, offset: i64, line: i64) {
        self.raw.push(bytes.to_vec());
        let reason = self.reason.dictionary.intern(refusal.reason.as_str());
        self.reason.push(reason);
        self.detail.push(Some(refusal.detail.as_bytes()));
        self.cluster.push(self.cluster_key);
        self.source.push(self.source_key);
        self.offset.push(Some(offset));
        self.line.push(Some(line));
        self.received.push(Some(self.arrived));
    }

    fn extend_last(&mut self, tail: &[u8]) {
        if let Some(raw) = self.raw.last_mut() {
            raw.extend_from_slice(tail);
        }
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let mut raw = BytesColumn::new();
        for bytes in self.raw.drain(..) {
            raw.push(Some(&bytes));
        }
        RecordBatch::try_new(
            Table::Rejects.batch_schema(),
            vec![
                raw.finish_binary()?,
                self.reason.finish()?,
                self.detail.finish_strings()?,
                self.cluster.finish()?,
                self.source.finish()?,
                self.offset.finish_i64(),
                self.line.finish_i64(),
                self.received.finish_timestamps(),
            ],
        )
    }
}

/// Decodes one whole stream held in memory: for tests, benches and short inputs.
///
/// # Errors
/// As [`Decoder::decode`].
pub fn decode_bytes(bytes: &[u8], cluster: &str, partition: &str) -> Result<DecodedBlock, ArrowError> {
    let block = Block {
        origin: Arc::new(frame::Origin { partition: partition.to_owned(), cluster: cluster.to_owned() }),
        offset: 0,
        first_line: 1,
        bytes: bytes.to_vec(),
        continues_line: false,
        ends_in_line: false,
        open_ended: false,
    };
    Decoder::new(DecoderConfig::default()).decode(&block, DateTime::<Utc>::UNIX_EPOCH)
}
