//! Decodes lines to columns in one pass.
//!
//! Invariants:
//! - Every byte of a line is kept: as an event whose columns, alone or by a form, render to it, as an
//!   event with `raw`, or as a reject. Bytes around the events of an `EventList` or a cloud's wrapper are kept in
//!   `frame_before` and `frame_after`, the *frame* of a row.
//! - A row is pushed whole or not at all: everything that can be refused is decoded before the
//!   first column is changed.
//! - The result equals that of [`crate::decode_alone`] on every input.
//!
//! There are three readers, and a line that one of them does not read goes to the next. `canonical`
//! reads a line that is written as kube-apiserver writes it. `members` reads members in any order
//! and format from a simd-json tape. [`crate::plain`] reads the rest. Objects that repeat (`user`,
//! `annotations`, `sourceIPs`, `responseStatus`, `objectRef`) are looked up by their text and
//! decoded once per block. Bodies are not decoded into values; they are slices of the line. The
//! positions of the members show whether a line is canonical, so that `raw` can be left out: the
//! text between the values, and the text of each value, must be what [`crate::render`] writes.
//!
//! The decoder keeps nothing between blocks but its buffers, so after a crash a block is decoded
//! again with the same result.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use chrono::{DateTime, Utc};
use strongroom_schemas::record::Sha256Hash;

use crate::canonical;
use crate::columns::NULL;
use crate::document::{Document, Stop};
use crate::frame::{self, BOM, Block, Edge, LineKind};
use crate::json::Members;
use crate::members;
use crate::plain::PlainEvent;
use crate::reject::{Reason, Refusal};
use crate::rejects::Rejects;
use crate::rows::{Place, Row, Rows};
use crate::tape::{Member, Parser};
use crate::wrapper::{self, Content, Record};

/// Bounds of the decoder.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    /// Longest line that is decoded, in bytes. Default: [`LINE_BYTES_MAX`].
    pub line_bytes_max: usize,
    /// Maximum nesting depth that is decoded. Default: [`DEPTH_MAX`].
    pub depth_max: usize,
}

/// Longest line: 4 MiB.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// Maximum nesting depth of a document.
pub const DEPTH_MAX: usize = 128;
/// Maximum number of bytes of one line that are parsed in search of a whole event after a tear,
/// where a writer stopped in the middle of another event.
const RECOVERY_BYTES_MAX: usize = 64 << 20;

impl Default for DecoderConfig {
    fn default() -> Self {
        DecoderConfig { line_bytes_max: LINE_BYTES_MAX, depth_max: DEPTH_MAX }
    }
}

/// The rows of one block.
#[derive(Debug)]
pub struct DecodedBlock {
    /// Rows of [`strongroom_schemas::Table::Events`] in its batch schema, in stream order.
    pub events: RecordBatch,
    /// Rows of [`strongroom_schemas::Table::Rejects`] in its batch schema, in stream order.
    pub rejects: RecordBatch,
    /// For each row of `events`, the leaf hash of its record, if the block was decoded to be
    /// sealed. Otherwise empty.
    pub record_hashes: Vec<Sha256Hash>,
    /// Number of bytes of the block that were decoded. It is less than the block's length if an
    /// unfinished last line was left.
    pub consumed: usize,
}

impl DecodedBlock {
    /// Number of records received: every event and every reject is one.
    pub fn records(&self) -> u64 {
        (self.events.num_rows() + self.rejects.num_rows()) as u64
    }
}

/// Turns blocks into batches. Keeps buffers between blocks and nothing else.
pub struct Decoder {
    config: DecoderConfig,
    parser: Parser,
    /// Parser of values that are parsed on their own. It allows one level of nesting less than
    /// `parser`, because the line around such a value is a level too.
    fragments: Parser,
    rows: Rows,
    members: Vec<Member>,
    rejects: Rejects,
}

impl Decoder {
    pub fn new(config: DecoderConfig) -> Self {
        Decoder {
            parser: Parser::new(64 << 10, config.depth_max),
            fragments: Parser::new(64 << 10, config.depth_max.saturating_sub(1)),
            rows: Rows::new(),
            members: Vec::new(),
            rejects: Rejects::new(),
            config,
        }
    }

    /// Decodes all lines of `block`. `arrived` becomes the arrival time of rejects.
    ///
    /// # Errors
    /// None that depend on the input: an [`ArrowError`] means that a column was assembled wrongly.
    pub fn decode(&mut self, block: &Block, arrived: DateTime<Utc>) -> Result<DecodedBlock, ArrowError> {
        self.rows.hash_records(false);
        self.decode_rows(block, arrived)
    }

    /// Like [`decode`](Self::decode), but also hashes the bytes of each event while they are in the
    /// cache.
    ///
    /// # Errors
    /// Like [`decode`](Self::decode).
    pub fn decode_to_seal(
        &mut self,
        block: &Block,
        arrived: DateTime<Utc>,
    ) -> Result<DecodedBlock, ArrowError> {
        self.rows.hash_records(true);
        self.decode_rows(block, arrived)
    }

    fn decode_rows(&mut self, block: &Block, arrived: DateTime<Utc>) -> Result<DecodedBlock, ArrowError> {
        self.rows.learn_forms(true);
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
                newline: block.bytes.get(line.at + line.bytes.len()) == Some(&b'\n'),
            };
            frame_before = 0;
            let outcome = self
                .event(bytes, &whole.place(whole.start, 0))
                .or_else(|refusal| self.lone_record(&whole, refusal, line.kind));
            match outcome {
                Ok(()) => {}
                Err(_) if line.kind == LineKind::Open => consumed = line.at,
                Err(refusal) => self.recover(&whole, refusal),
            }
        }
        let record_hashes = self.rows.take_record_hashes();
        let (events, rejects) = (self.rows.finish()?, self.rejects.finish()?);
        Ok(DecodedBlock { events, rejects, record_hashes, consumed })
    }

    /// Prepares for decoding records one by one, without the bytes around them.
    pub(crate) fn begin_records(&mut self) {
        self.rows.hash_records(false);
        self.rows.learn_forms(false);
        self.rows.begin(&frame::Origin { partition: String::new(), cluster: String::new() });
    }

    /// Decodes one record of `events` on its own and pushes its row, or returns why it is not one.
    /// A record that was rendered from columns is a bare event. A record that was kept in `raw` may
    /// also be a string literal that contains an event, or a cloud's entry that is mapped to an
    /// event.
    pub(crate) fn record_alone(&mut self, record: &[u8], is_rendered: bool) -> Result<(), Refusal> {
        let place = Place { offset: 0, before: &[] };
        let Err(refusal) = self.event(record, &place) else { return Ok(()) };
        let Some(text) = std::str::from_utf8(record).ok().filter(|_| !is_rendered) else {
            return Err(refusal);
        };
        match refusal.reason {
            Reason::NotAnAuditEvent => match wrapper::literal(text) {
                Some(literal) => self.escaped_event(literal, &place),
                None => Err(refusal),
            },
            Reason::Wrapped => {
                let event = wrapper::mapped(text)?;
                self.push_mapped(&event, record, &place);
                Ok(())
            }
            _ => Err(refusal),
        }
    }

    /// Returns the rows of the records decoded since the last call, in order.
    pub(crate) fn take_records(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = self.rows.finish();
        self.begin_records();
        rows
    }

    fn push_mapped(&mut self, event: &PlainEvent, entry: &[u8], place: &Place<'_>) {
        let mut row = self.rows.plain_row(event, entry);
        row.shape = self.rows.shape.dictionary.intern(wrapper::SHAPE_GOOGLE);
        self.rows.push(&row, place, entry);
    }

    /// Decodes one event and pushes its row, or returns why the bytes are not one.
    fn event(&mut self, bytes: &[u8], place: &Place<'_>) -> Result<(), Refusal> {
        if canonical::push(&mut self.rows, bytes, place, &mut self.fragments) {
            return Ok(());
        }
        self.general(bytes, None, place)
    }

    /// Decodes an event that is escaped in a string literal. The literal becomes its record.
    fn escaped_event(&mut self, literal: &str, place: &Place<'_>) -> Result<(), Refusal> {
        let text = wrapper::unescaped(literal)?;
        self.general(text.as_bytes(), Some(literal.as_bytes()), place)
    }

    /// Decodes an event in any form. The row's record is `literal` if the event was escaped in that
    /// string literal, and otherwise `text`.
    fn general(&mut self, text: &[u8], literal: Option<&[u8]>, place: &Place<'_>) -> Result<(), Refusal> {
        let Decoder { parser, rows, members, config, .. } = self;
        let outcome = parser.parse(text, |nodes, base| {
            let row = members::read(rows, &Document { nodes, base, line: text }, members)?;
            match literal {
                Some(record) => rows.push(&Row { raw: literal, shape: NULL, ..row }, place, record),
                None => rows.push(&row, place, text),
            }
            Ok(())
        });
        match outcome {
            Ok(Ok(())) => Ok(()),
            // The reader refused the text or does not support its form, or simd-json does not parse
            // it. The plain decoder decides. For example, only the last value of a repeated key
            // counts, and the reader may have refused the first.
            Ok(Err(Stop)) | Err(_) => {
                let event = wrapper::bare_event(text, config.depth_max)?;
                let record = literal.unwrap_or(text);
                let row = rows.plain_row(&event, record);
                rows.push(&row, place, record);
                Ok(())
            }
        }
    }

    /// Decodes the single event of a line that is not a bare event. Otherwise returns why the line
    /// is refused, more exactly than `refusal` if possible. A wrapper is decoded here only if its
    /// line is [`LineKind::Open`] and it has one record; other wrappers are left to
    /// [`Self::wrapped`].
    fn lone_record(&mut self, whole: &Piece<'_>, refusal: Refusal, kind: LineKind) -> Result<(), Refusal> {
        let bytes = &whole.line[whole.start..];
        match refusal.reason {
            Reason::BrokenJson => match wrapper::export_head(bytes) {
                Some(Ok(head)) => self.event(&bytes[head..], &whole.place(whole.start + head, 0)),
                Some(Err(other)) => Err(other),
                None => Err(refusal),
            },
            Reason::NotAnAuditEvent => {
                let Some(literal) = std::str::from_utf8(bytes).ok().and_then(wrapper::literal) else {
                    return Err(refusal);
                };
                let (start, end) = whole.extent_of(literal);
                self.escaped_event(literal, &whole.place(start, 0)).map_err(|_| refusal)?;
                self.rows.extend_frame_after(&whole.line[end..]);
                Ok(())
            }
            Reason::Wrapped | Reason::TooDeep if kind == LineKind::Open => {
                let records = std::str::from_utf8(bytes)
                    .ok()
                    .and_then(|text| wrapper::records(text, self.config.depth_max).ok());
                let Some([record]) = records.as_deref() else { return Err(refusal) };
                let end = self.record(whole, record, 0)?;
                self.rows.extend_frame_after(&whole.line[end..]);
                Ok(())
            }
            _ => Err(refusal),
        }
    }

    /// Decodes one record of a wrapper. The bytes from `frame_from` to the record are its frame.
    /// Returns where the record's bytes end.
    fn record(
        &mut self,
        whole: &Piece<'_>,
        record: &Record<'_>,
        frame_from: usize,
    ) -> Result<usize, Refusal> {
        match &record.content {
            Content::Event(value) => {
                let (start, end) = whole.extent_of(value);
                let place = whole.place(start, frame_from);
                if value.starts_with('"') {
                    self.escaped_event(value, &place)?;
                } else {
                    self.event(value.as_bytes(), &place)?;
                }
                Ok(end)
            }
            Content::Mapped(event) => {
                let (start, end) = whole.extent_of(record.item);
                self.push_mapped(event, record.item.as_bytes(), &whole.place(start, frame_from));
                Ok(end)
            }
            Content::Refused(refusal) => Err(refusal.clone()),
        }
    }

    /// Decodes the records of the wrapper `line[start..end]`, unless there are more than
    /// `records_left`. The line's bytes from `frame_from` on belong to no record yet.
    fn wrapped(
        &mut self,
        whole: &Piece<'_>,
        frame_from: usize,
        (start, end): (usize, usize),
        records_left: &mut usize,
    ) -> Result<(), Refusal> {
        let text = std::str::from_utf8(&whole.line[start..end])
            .map_err(|_| Refusal::new(Reason::InvalidUtf8, "not UTF-8"))?;
        let records = wrapper::records(text, self.config.depth_max)?;
        *records_left = records_left
            .checked_sub(records.len())
            .ok_or_else(|| Refusal::new(Reason::ShortItems, "more records than the line has room for"))?;
        let text_of = |record: &Record<'_>| whole.extent_of(record.item);
        self.each(whole, (frame_from, end), &records, text_of, |decoder, record, frame_from| {
            decoder.record(whole, record, frame_from)
        });
        Ok(())
    }

    /// Decodes `members` one by one; a refused member becomes a reject. Bytes of `line[start..end]`
    /// that belong to no member become frame, or part of the reject beside them, so that no byte is
    /// lost. `decode(decoder, member, from)` decodes one member, to which the bytes from `from` on
    /// belong, and returns where the bytes of its record end.
    fn each<T>(
        &mut self,
        whole: &Piece<'_>,
        (start, end): (usize, usize),
        members: &[T],
        extent_of: impl Fn(&T) -> (usize, usize),
        decode: impl Fn(&mut Self, &T, usize) -> Result<usize, Refusal>,
    ) {
        // Bytes from here on belong to no record yet.
        let (mut pending, mut last_is_event) = (start, true);
        for member in members {
            let (_, member_end) = extent_of(member);
            let outcome = decode(self, member, pending);
            last_is_event = outcome.is_ok();
            match outcome {
                Ok(record_end) => self.rows.extend_frame_after(&whole.line[record_end..member_end]),
                Err(refusal) => self.reject(whole, pending, member_end, &refusal),
            }
            pending = member_end;
        }
        let tail = &whole.line[pending..end];
        if last_is_event {
            self.rows.extend_frame_after(tail);
        } else {
            self.rejects.extend_last(tail);
        }
    }

    /// Recovers events from a line that is not one: it may be an `EventList`, or contain whole
    /// events beside broken text.
    ///
    /// A client can send text that looks like an event: a body may contain one. So only two kinds
    /// of events are believed: events that follow each other from the line's first byte, and, after
    /// a tear, the one event that ends where the line does. That event cannot be nested in other
    /// text, because nested text is always followed by what closes it. Members of a list or a
    /// wrapper, and documents on a line, are judged one by one, so that a member that is too deep
    /// does not cost the others.
    fn recover(&mut self, whole: &Piece<'_>, refusal: Refusal) {
        // The depth of a line is checked before anything else. So nothing else is known yet of a
        // line that is too deep, and a single member may be the cause.
        let too_deep = refusal.reason == Reason::TooDeep;
        if (too_deep || refusal.reason == Reason::NotAnAuditEvent) && self.event_list(whole) {
            return;
        }
        let mut records_left = wrapper::SHORT_ITEMS_MAX + whole.line.len() / wrapper::ITEM_BYTES_MIN;
        if refusal.reason == Reason::Wrapped {
            let extent = (whole.start, whole.end);
            if let Err(refusal) = self.wrapped(whole, 0, extent, &mut records_left) {
                self.reject(whole, 0, whole.end, &refusal);
            }
            return;
        }
        if too_deep && self.wrapped(whole, 0, (whole.start, whole.end), &mut records_left).is_ok() {
            return;
        }
        let broken = matches!(refusal.reason, Reason::BrokenJson | Reason::InvalidUtf8 | Reason::NulByte);
        if !broken && !too_deep {
            return self.reject(whole, 0, whole.end, &refusal);
        }
        let bytes = whole.line;
        let mut at = whole.start;
        while let Some(length) = document_end(&bytes[at..])
            // The line as a whole was refused already.
            && (at > whole.start || at + length < whole.end)
            && self.document(whole, (at, at + length), &mut records_left)
        {
            at += length;
        }
        let from = if at == whole.start { 0 } else { at };
        if let Some((head, end)) = whole.newline.then(|| last_event(bytes, at)).flatten()
            && self.event(&bytes[head..end], &whole.place(head, head)).is_ok()
        {
            if from < head {
                let torn = format!("torn before a whole event at byte {head} of the line");
                self.reject(whole, from, head, &Refusal::new(Reason::TornLine, torn));
            }
            if end < whole.end {
                self.rows.extend_frame_after(&bytes[end..whole.end]);
            }
        } else if from == 0 {
            self.reject(whole, 0, whole.end, &refusal);
        } else if from < whole.end {
            let broken = format!("broken after a whole event, from byte {from} of the line");
            self.reject(whole, from, whole.end, &Refusal::new(Reason::TornLine, broken));
        }
    }

    /// Decodes one of several documents on a line. Returns `false` if the document is neither an
    /// event, nor a wrapper, nor too deep.
    fn document(&mut self, whole: &Piece<'_>, extent: (usize, usize), records_left: &mut usize) -> bool {
        let (start, end) = extent;
        let frame_from = if start == whole.start { 0 } else { start };
        match self.event(&whole.line[start..end], &whole.place(start, frame_from)) {
            Err(refusal) if refusal.reason == Reason::Wrapped => {
                self.wrapped(whole, frame_from, extent, records_left).is_ok()
            }
            Err(refusal) if refusal.reason == Reason::TooDeep => {
                if self.wrapped(whole, frame_from, extent, records_left).is_err() {
                    self.reject(whole, frame_from, end, &refusal);
                }
                true
            }
            outcome => outcome.is_ok(),
        }
    }

    /// Decodes the items of an `EventList`. Returns `false` if the line is not one.
    fn event_list(&mut self, whole: &Piece<'_>) -> bool {
        let Some(items) = list_items(&whole.line[whole.start..]) else { return false };
        if let Err(refusal) = wrapper::short_items(items.iter().copied()) {
            self.reject(whole, 0, whole.end, &refusal);
            return true;
        }
        if items.is_empty() {
            let empty = Refusal::new(Reason::EmptyEventList, "an EventList without items");
            self.reject(whole, 0, whole.end, &empty);
            return true;
        }
        let extent_of = |item: &&str| whole.extent_of(item);
        self.each(whole, (0, whole.end), &items, extent_of, |decoder, item, frame_from| {
            let (start, end) = whole.extent_of(item);
            decoder.event(item.as_bytes(), &whole.place(start, frame_from)).map(|()| end)
        });
        true
    }

    fn reject(&mut self, whole: &Piece<'_>, start: usize, end: usize, refusal: &Refusal) {
        self.rejects.push(&whole.line[start..end], refusal, whole.offset + start as i64, whole.number);
    }
}

/// A line and its position; `start..end` is the part that may be decoded.
struct Piece<'l> {
    line: &'l [u8],
    number: i64,
    offset: i64,
    start: usize,
    end: usize,
    /// A newline follows: the line was written to its end.
    newline: bool,
}

impl<'l> Piece<'l> {
    /// Returns where `text`, which is a slice of the line, begins and ends in the line.
    fn extent_of(&self, text: &str) -> (usize, usize) {
        let start = text.as_ptr() as usize - self.line.as_ptr() as usize;
        (start, start + text.len())
    }

    /// Returns the place of a record that begins at `start`. The bytes from `frame_from` to `start`
    /// are its frame.
    fn place(&self, start: usize, frame_from: usize) -> Place<'l> {
        Place { offset: self.offset + start as i64, before: &self.line[frame_from..start] }
    }
}

/// Returns the extent of the first text at or after `from` that begins like an event and whose
/// document ends where `line` does, apart from white space.
fn last_event(line: &[u8], from: usize) -> Option<(usize, usize)> {
    let text_end = line.trim_ascii_end().len();
    let mut bytes_left = RECOVERY_BYTES_MAX;
    for head in memchr::memmem::find_iter(&line[from..], b"{\"kind\":\"Event") {
        let head = from + head;
        let length = document_end(&line[head..]);
        if length.is_some_and(|length| head + length == text_end) {
            return Some((head, text_end));
        }
        bytes_left = bytes_left.checked_sub(length.unwrap_or(line.len() - head))?;
    }
    None
}

/// Returns the length of the JSON document at the start of `bytes`; `None` if there is none.
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
    let Members(members) = serde_json::from_str(text).ok()?;
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

/// Decodes one whole stream in memory, for tests, benches and short inputs.
///
/// # Errors
/// Like [`Decoder::decode`].
pub fn decode_bytes(bytes: &[u8], cluster: &str, partition: &str) -> Result<DecodedBlock, ArrowError> {
    let block = Block {
        origin: Arc::new(frame::Origin { partition: partition.to_owned(), cluster: cluster.to_owned() }),
        offset: 0,
        first_line: 1,
        bytes: bytes.to_vec(),
        begins: Edge::Line,
        ends: Edge::Line,
        open_ended: false,
    };
    Decoder::new(DecoderConfig::default()).decode(&block, DateTime::<Utc>::UNIX_EPOCH)
}
