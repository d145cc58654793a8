//! Decodes lines to columns in one pass.
//!
//! Invariants:
//! - Every byte of a line is kept: as an event whose columns, alone or by a form, render to it, as an
//!   event with `raw`, or as a reject. Bytes around the events of an `EventList` or a cloud's wrapper are kept in
//!   `frame_before` and `frame_after`, the *frame* of a row.
//! - A row is pushed whole or not at all: everything that can be refused is decoded before the
//!   first column is changed.
//! - The result equals that of [`strongroom_lines::decode_alone`] on every input.
//!
//! There are three readers, and a line that one of them does not read goes to the next. `canonical`
//! reads a line that is written as kube-apiserver writes it. `members` reads members in any order
//! and format from a simd-json tape. [`strongroom_lines::plain`] reads the rest: among it lines that
//! are cut or have a part that cannot be read, and lines longer than [`WIDE_BYTES`]. Objects that
//! repeat (`user`, `annotations`, `sourceIPs`, `responseStatus`, `objectRef`) are looked up by their
//! text and decoded once per block. Bodies are not decoded into values; they are slices of the line.
//! The positions of the members show whether a line is canonical, so that `raw` can be left out: the
//! text between the values, and the text of each value, must be what [`crate::render`] writes.
//!
//! The decoder keeps nothing between blocks but its buffers, so after a crash a block is decoded
//! again with the same result.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use chrono::{DateTime, Utc};
use strongroom_lines::frame::{self, Block, Edge, LineKind};
use strongroom_lines::plain::PlainEvent;
use strongroom_lines::wrapper::{self, Around, AtPath, Content, Damaged, EventPath, Opened, Record};
use strongroom_lines::{BOM, DEPTH_MAX, Dialect, DialectCounts, LINE_BYTES_MAX, Reason, Refusal, list_items};
use strongroom_schemas::format::EVENTS_FORMAT;
use strongroom_schemas::record::Sha256Hash;

use crate::canonical;
use crate::columns::NULL;
use crate::document::{Document, Stop};
use crate::members;
use crate::rejects::Rejects;
use crate::rows::{Place, Row, Rows};
use crate::tape::{Member, Parser};

/// Longest text that simd-json parses: 4 MiB. It needs many times the memory of the text, so longer
/// ones are left to [`strongroom_lines::plain`].
const WIDE_BYTES: usize = 4 << 20;

/// Bounds of the decoder.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    /// Longest line that is decoded, in bytes. Default: [`LINE_BYTES_MAX`].
    pub line_bytes_max: usize,
    /// Maximum nesting depth that is decoded. Default: [`DEPTH_MAX`].
    pub depth_max: usize,
}

/// Maximum number of bytes of one line that are parsed in search of a whole event after a tear,
/// where a writer stopped in the middle of another event.
const RECOVERY_BYTES_MAX: usize = 64 << 20;
/// Maximum number of brackets that are open in a torn text before an event that is believed.
const TORN_DEPTH_MAX: usize = 1 << 20;

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
    /// For each dialect, how many of the events came in it.
    pub dialects: DialectCounts,
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
    dialects: DialectCounts,
    /// The `eventsFormat` by whose rules records are read.
    format: u32,
    /// Where the event is in an object in which no wrapper is recognised, for the records that are
    /// being decoded.
    unwrap: Option<Arc<EventPath>>,
    /// The event that was found in the layers of the last record, if that is asked for.
    opened: Option<Vec<u8>>,
}

/// A record that the event was found in, which is kept in `raw`.
#[derive(Clone, Copy)]
struct Kept<'r> {
    record: &'r [u8],
    /// The key of the row's shape.
    shape: i32,
}

/// What is done with an event whose text ends, or is not JSON, before the event's end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// It is taken, if it names a request and who made it.
    Taken,
    /// It is refused for now: the rest of the line may be an event of its own, or more bytes may
    /// come.
    Refused,
}

impl Decoder {
    pub fn new(config: DecoderConfig) -> Self {
        Decoder {
            parser: Parser::new(64 << 10, config.depth_max),
            fragments: Parser::new(64 << 10, config.depth_max.saturating_sub(1)),
            rows: Rows::new(),
            members: Vec::new(),
            rejects: Rejects::new(),
            format: EVENTS_FORMAT,
            unwrap: None,
            opened: None,
            dialects: DialectCounts::default(),
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
        self.unwrap.clone_from(&block.origin.unwrap);
        self.rejects.begin(&block.origin, arrived.timestamp_micros());
        let mut consumed = block.bytes.len();
        let mut frame_before = 0;
        for line in frame::lines(block, self.config.line_bytes_max) {
            let offset = block.offset + line.at as i64;
            if line.kind == LineKind::OpenPage {
                consumed = line.at;
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
            if let Some((start, end)) = line.event {
                if line.kind == LineKind::Foreign {
                    let refusal = wrapper::refusal_in_foreign_list(&line.bytes[start..end]);
                    self.reject(&whole, 0, line.bytes.len(), &refusal);
                    continue;
                }
                self.page(&Piece { start, end, newline: false, ..whole });
                continue;
            }
            if matches!(line.kind, LineKind::FirstPiece | LineKind::Piece) {
                if line.kind == LineKind::Piece || !self.cut_event(&whole, 0, whole.end) {
                    let max = self.config.line_bytes_max;
                    let long = format!("part of a line longer than {max} bytes");
                    self.reject(&whole, 0, whole.end, &Refusal::new(Reason::LineTooLong, long));
                }
                continue;
            }
            let outcome = self
                .event(bytes, &whole.place(whole.start, 0), Cut::Refused)
                .map(|()| Dialect::Plain)
                .or_else(|refusal| self.lone_record(&whole, refusal, line.kind));
            match outcome {
                Ok(dialect) => self.dialects.add(dialect),
                Err(_) if line.kind == LineKind::Open => consumed = line.at,
                Err(refusal) => self.refused_line(&whole, refusal),
            }
        }
        let record_hashes = self.rows.take_record_hashes();
        let (events, rejects) = (self.rows.finish()?, self.rejects.finish()?);
        let dialects = std::mem::take(&mut self.dialects);
        Ok(DecodedBlock { events, rejects, record_hashes, consumed, dialects })
    }

    /// Recovers what can be recovered of a line that was refused. If it is made of the parts of two
    /// events, because the last part of the first one is missing, they are taken apart.
    fn refused_line(&mut self, whole: &Piece<'_>, refusal: Refusal) {
        let Some(at) = wrapper::second_event(whole.line, self.config.depth_max) else {
            return self.recover(whole, refusal);
        };
        let (first, second) = (&whole.line[..at - 1], &whole.line[at..]);
        self.recover(&Piece { line: first, end: first.len(), newline: true, ..*whole }, refusal);
        let lines_before = 1 + memchr::memchr_iter(b'\n', first).count();
        let second = Piece {
            line: second,
            number: whole.number + i64::try_from(lines_before).unwrap_or(i64::MAX),
            offset: whole.offset + at as i64,
            start: 0,
            end: second.len(),
            newline: whole.newline,
        };
        let outcome = self
            .event(second.line, &second.place(0, 0), Cut::Refused)
            .map(|()| Dialect::Plain)
            .or_else(|refusal| self.lone_record(&second, refusal, LineKind::Whole));
        match outcome {
            Ok(dialect) => self.dialects.add(dialect),
            Err(refusal) => self.recover(&second, refusal),
        }
    }

    /// Decodes the event of a page. The bytes around the event are its frame.
    fn page(&mut self, page: &Piece<'_>) {
        let event = self
            .event(&page.line[page.start..page.end], &page.place(page.start, 0), Cut::Refused)
            .map(|()| Dialect::Document)
            .or_else(|refusal| self.layered(page, (page.start, page.end), 0, refusal));
        match event {
            Ok(dialect) => self.dialects.add(dialect),
            Err(refusal) => self.recover(page, refusal),
        }
        let tail = &page.line[page.end..];
        if self.rejects.last_offset() > self.rows.last_offset() {
            self.rejects.extend_last(tail);
        } else {
            self.rows.extend_frame_after(tail);
        }
    }

    /// Prepares for decoding records one by one, without the bytes around them, by the rules of an
    /// `eventsFormat`.
    pub(crate) fn begin_records(&mut self, format: u32) {
        self.format = format;
        self.rows.hash_records(false);
        self.rows.learn_forms(false);
        let origin = frame::Origin { partition: String::new(), cluster: String::new(), unwrap: None };
        self.rows.begin(&origin);
    }

    /// Prepares for decoding records that are not what was received: like
    /// [`begin_records`](Self::begin_records), but the rows get forms, and the names of `origin`.
    pub(crate) fn begin_changed(&mut self, origin: &frame::Origin) {
        self.format = EVENTS_FORMAT;
        self.rows.hash_records(false);
        self.rows.learn_forms(true);
        self.rows.begin(origin);
    }

    /// Returns the rows of the records decoded since [`begin_changed`](Self::begin_changed).
    pub(crate) fn take_changed(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows.finish()
    }

    /// Like [`record_alone`](Self::record_alone), but returns the event that was found in the layers
    /// of the record; `None` if the record has no layers.
    pub(crate) fn opened_alone(
        &mut self,
        record: &[u8],
        unwrap: Option<EventPath>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        self.opened = Some(Vec::new());
        let outcome = self.record_alone(record, false, unwrap);
        let opened = self.opened.take().filter(|event| !event.is_empty());
        outcome.map(|()| opened)
    }

    /// Decodes one record of `events` on its own and pushes its row, or returns why it is not one.
    /// A record that was rendered from columns is a bare event. A record that was kept in `raw` may
    /// also have layers around its event, or be a cloud's entry that is mapped to an event. If its
    /// row says so, the event may be at the path `unwrap`.
    pub(crate) fn record_alone(
        &mut self,
        record: &[u8],
        is_rendered: bool,
        unwrap: Option<EventPath>,
    ) -> Result<(), Refusal> {
        self.unwrap = unwrap.map(Arc::new);
        let place = Place { offset: 0, before: &[] };
        let Err(refusal) = self.event(record, &place, Cut::Taken) else { return Ok(()) };
        if is_rendered {
            return Err(refusal);
        }
        if refusal.reason == Reason::Wrapped
            && let Ok(text) = std::str::from_utf8(record)
        {
            let event = wrapper::mapped(text, self.format)?;
            self.push_mapped(&event, record, &place);
            return Ok(());
        }
        self.in_layers(record, refusal, &place, Cut::Taken).map(drop)
    }

    /// Returns the rows of the records decoded since the last call, in order.
    pub(crate) fn take_records(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = self.rows.finish();
        self.begin_records(self.format);
        rows
    }

    fn push_mapped(&mut self, event: &PlainEvent, entry: &[u8], place: &Place<'_>) {
        let mut row = self.rows.plain_row(event, entry);
        row.shape = self.rows.shape.dictionary.intern(wrapper::SHAPE_GOOGLE);
        self.rows.push(&row, place, entry);
    }

    /// Decodes one event and pushes its row, or returns why the bytes are not one.
    fn event(&mut self, bytes: &[u8], place: &Place<'_>, cut: Cut) -> Result<(), Refusal> {
        if bytes.len() <= WIDE_BYTES && canonical::push(&mut self.rows, bytes, place, &mut self.fragments) {
            return Ok(());
        }
        self.general(bytes, None, place, cut)
    }

    /// Takes `line[from..end]` as an event whose text is cut, perhaps in layers. Returns `false` if
    /// it is not one.
    fn cut_event(&mut self, whole: &Piece<'_>, from: usize, end: usize) -> bool {
        let start = from.max(whole.start);
        let bytes = &whole.line[start..end];
        if let Some(head) = wrapper::export_head(bytes)
            && self.event(&bytes[head..], &whole.place(start + head, from), Cut::Taken).is_ok()
        {
            self.dialects.add(Dialect::TimeAndEvent);
            return true;
        }
        let place = whole.place(start, from);
        let dialect = self
            .event(bytes, &place, Cut::Taken)
            .map(|()| Dialect::Plain)
            .or_else(|refusal| self.in_layers(bytes, refusal, &place, Cut::Taken));
        dialect.map(|dialect| self.dialects.add(dialect)).is_ok()
    }

    /// Decodes the event in the layers of `record`, which was refused as an event with `refusal`.
    /// All of `record` becomes the record. An event that is cut is taken where it is a complete
    /// string; elsewhere `cut` says what is done with it.
    fn in_layers(
        &mut self,
        record: &[u8],
        refusal: Refusal,
        place: &Place<'_>,
        cut: Cut,
    ) -> Result<Dialect, Refusal> {
        let unwrap = self.unwrap.clone().map(|path| (path, refusal.clone()));
        let kept = Kept { record, shape: NULL };
        let opened = wrapper::open(record, refusal, &mut |text, around| {
            self.general(text, Some(kept), place, cut_in(around, cut))
                .or_else(|refusal| self.mapped_in(text, around, refusal, record, place))
        });
        match (opened, unwrap) {
            (Ok(Opened { dialect, .. }), _) => Ok(dialect),
            (Err(refused), None) => Err(refused),
            (Err(refused), Some((path, refusal))) => {
                self.at_path(record, &path, &refusal, place, cut).map_err(|at| not_at(&path, at, refused))
            }
        }
    }

    /// Decodes the event at `path` in `record`, which was refused as an event with `refusal` and is
    /// not in layers. A cloud's entry is not an event there.
    fn at_path(
        &mut self,
        record: &[u8],
        path: &EventPath,
        refusal: &Refusal,
        place: &Place<'_>,
        cut: Cut,
    ) -> Result<Dialect, AtPath> {
        let kept = Kept { record, shape: self.rows.shape.dictionary.intern(path.shape()) };
        let is_event = wrapper::open_at(record, refusal, path, &mut |text, around| {
            self.general(text, Some(kept), place, cut_in(around, cut))
                .map(|()| true)
                .or_else(|refusal| wrapper::mapped_in(text, around, refusal, self.format).map(|_| false))
        })?;
        if is_event {
            return Ok(Dialect::OtherWrapper);
        }
        Err(AtPath::Refused(Refusal::new(Reason::NotAnAuditEvent, "an entry of Google Cloud Logging")))
    }

    fn mapped_in(
        &mut self,
        text: &[u8],
        around: Around,
        refusal: Refusal,
        record: &[u8],
        place: &Place<'_>,
    ) -> Result<(), Refusal> {
        let event = wrapper::mapped_in(text, around, refusal, self.format)?;
        self.push_mapped(&event, record, place);
        self.see_opened(text);
        Ok(())
    }

    fn see_opened(&mut self, event: &[u8]) {
        if let Some(opened) = &mut self.opened {
            opened.clear();
            opened.extend_from_slice(event);
        }
    }

    /// Decodes an event in any form. The row's record is `around` if the event was in the layers of
    /// that text, and otherwise `text`.
    fn general(
        &mut self,
        text: &[u8],
        around: Option<Kept<'_>>,
        place: &Place<'_>,
        cut: Cut,
    ) -> Result<(), Refusal> {
        let Decoder { parser, rows, members, config, format, .. } = self;
        let is_read = text.len() <= WIDE_BYTES
            && parser
                .parse(text, |nodes, base| {
                    let row = members::read(rows, &Document { nodes, base, line: text }, members)?;
                    match around {
                        Some(Kept { record, shape }) => {
                            rows.push(&Row { raw: Some(record), shape, ..row }, place, record);
                        }
                        None => rows.push(&row, place, text),
                    }
                    Ok::<(), Stop>(())
                })
                .is_ok_and(|outcome| outcome.is_ok());
        if is_read {
            if around.is_some() {
                self.see_opened(text);
            }
            return Ok(());
        }
        // The reader refused the text or does not support its form, or simd-json does not parse it.
        // The plain decoder decides.
        let event = wrapper::bare_event_of(text, config.depth_max, *format)?;
        if cut == Cut::Refused && event.is_cut() {
            return Err(wrapper::refusal_of_cut(text, config.depth_max));
        }
        let Kept { record, shape } = around.unwrap_or(Kept { record: text, shape: NULL });
        let row = Row { shape, ..rows.plain_row(&event, record) };
        rows.push(&row, place, record);
        if around.is_some() {
            self.see_opened(text);
        }
        Ok(())
    }

    /// Decodes the single event of a line that is not a bare event. Otherwise returns why the line
    /// is refused, more exactly than `refusal` if possible. A wrapper is decoded here only if its
    /// line is [`LineKind::Open`] and it has one record; other wrappers are left to
    /// [`Self::wrapped`].
    fn lone_record(
        &mut self,
        whole: &Piece<'_>,
        refusal: Refusal,
        kind: LineKind,
    ) -> Result<Dialect, Refusal> {
        let bytes = &whole.line[whole.start..];
        if matches!(refusal.reason, Reason::Wrapped | Reason::TooDeep) && kind == LineKind::Open {
            let records = std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| wrapper::records(text, self.config.depth_max).ok());
            if let Some([record]) = records.as_deref() {
                let end = self.record(whole, record, 0, &|text| whole.extent_of(text))?;
                self.rows.extend_frame_after(&whole.line[end..]);
                return Ok(record.dialect);
            }
        }
        self.layered(whole, (whole.start, whole.end), 0, refusal)
    }

    /// Decodes the event in the layers of `line[start..end]`, which was refused as an event with
    /// `refusal`. The record is all of that text, except that an export's time, and white space
    /// around a string literal, are its frame.
    fn layered(
        &mut self,
        whole: &Piece<'_>,
        (start, end): (usize, usize),
        frame_from: usize,
        refusal: Refusal,
    ) -> Result<Dialect, Refusal> {
        let bytes = &whole.line[start..end];
        if let Some(head) = wrapper::export_head(bytes)
            && self.event(&bytes[head..], &whole.place(start + head, frame_from), Cut::Refused).is_ok()
        {
            return Ok(Dialect::TimeAndEvent);
        }
        let Some(literal) = std::str::from_utf8(bytes).ok().and_then(wrapper::literal) else {
            return self.in_layers(bytes, refusal, &whole.place(start, frame_from), Cut::Refused);
        };
        let (literal_start, literal_end) = whole.extent_of(literal);
        let place = whole.place(literal_start, frame_from);
        let dialect = self.in_layers(literal.as_bytes(), refusal, &place, Cut::Refused)?;
        self.rows.extend_frame_after(&whole.line[literal_end..end]);
        Ok(dialect)
    }

    /// Decodes one record of a wrapper. `extent_of` returns where a part of the record is in the
    /// line. The bytes from `frame_from` to the record are its frame. Returns where the record's
    /// bytes end.
    fn record(
        &mut self,
        whole: &Piece<'_>,
        record: &Record<'_>,
        frame_from: usize,
        extent_of: &dyn Fn(&str) -> (usize, usize),
    ) -> Result<usize, Refusal> {
        let (start, end) = match &record.content {
            Content::Event(value) => extent_of(value),
            Content::Mapped(_) => extent_of(record.item),
            Content::Refused(refusal) => return Err(refusal.clone()),
        };
        let (bytes, place) = (&whole.line[start..end], whole.place(start, frame_from));
        let is_object = matches!(record.content, Content::Event(_)) && !bytes.starts_with(b"\"");
        if !is_object && std::str::from_utf8(bytes).is_err() {
            return Err(Refusal::new(Reason::InvalidUtf8, "not UTF-8"));
        }
        match &record.content {
            Content::Mapped(event) => self.push_mapped(event, bytes, &place),
            _ if record.dialect == Dialect::EventList => self.event(bytes, &place, Cut::Refused)?,
            _ if is_object => self
                .event(bytes, &place, Cut::Refused)
                .or_else(|refusal| self.in_layers(bytes, refusal, &place, Cut::Taken).map(drop))?,
            _ => self.in_layers(bytes, wrapper::not_unicode(), &place, Cut::Taken).map(drop)?,
        }
        Ok(end)
    }

    /// Decodes the elements of the damaged list `line[start..end]`. What follows the last whole
    /// element becomes a reject. Returns `false` if there is no such list.
    fn damaged_list(
        &mut self,
        whole: &Piece<'_>,
        frame_from: usize,
        (start, end): (usize, usize),
        records_left: &mut usize,
    ) -> bool {
        let Some(list) = Damaged::of(&whole.line[start..end]) else { return false };
        let Some(records) = list.records(self.config.depth_max) else { return false };
        let Some(left) = records_left.checked_sub(records.len()) else { return false };
        *records_left = left;
        let extent_of = |text: &str| {
            let (from, to) = list.extent_of(text);
            (start + from, start + to)
        };
        let kept = start + list.kept();
        let is_rest_frame = wrapper::is_frame(&whole.line[kept..end]);
        let list_end = if is_rest_frame { end } else { kept };
        let text_of = |record: &Record<'_>| extent_of(record.item);
        self.each(whole, (frame_from, list_end), &records, text_of, |decoder, record, frame_from| {
            let end = decoder.record(whole, record, frame_from, &extent_of)?;
            decoder.dialects.add(record.dialect);
            Ok(end)
        });
        if !is_rest_frame {
            let torn = format!("a list that is broken or cut, from byte {kept} of the line");
            self.reject(whole, kept, end, &Refusal::new(Reason::TornLine, torn));
        }
        true
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
            let end = decoder.record(whole, record, frame_from, &|text| whole.extent_of(text))?;
            decoder.dialects.add(record.dialect);
            Ok(end)
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
    /// a tear, the one event that ends where the line does. The line may be a piece of a longer one
    /// that was cut behind a client's text, or before it. So the event after a tear is not believed
    /// where JSON allows a value in the torn text before it, and a document that is followed by what
    /// continues or closes another text is not believed either. Members of a list or a
    /// wrapper, and documents on a line, are judged one by one, so that a member that is refused
    /// does not cost the others. What is left may be the beginning of an event. It is a cut event
    /// if it names a request and who made it; its text ends where the next event begins.
    fn recover(&mut self, whole: &Piece<'_>, refusal: Refusal) {
        // Encoding and depth of a line are checked before anything else. So nothing else is known
        // yet of a line that is refused for them, and a single member may be the cause.
        let too_deep = refusal.reason == Reason::TooDeep;
        let may_be_list = too_deep || matches!(refusal.reason, Reason::NotAnAuditEvent | Reason::InvalidUtf8);
        if may_be_list && self.event_list(whole) {
            return;
        }
        let mut records_left = wrapper::SHORT_ITEMS_MAX + whole.line.len() / wrapper::ITEM_BYTES_MIN;
        if wrapper::is_array(&whole.line[whole.start..whole.end])
            && self.wrapped(whole, 0, (whole.start, whole.end), &mut records_left).is_ok()
        {
            return;
        }
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
        let broken = matches!(
            refusal.reason,
            Reason::BrokenJson | Reason::InvalidUtf8 | Reason::NulByte | Reason::TruncatedByCloud
        );
        if !broken && !too_deep {
            return self.reject(whole, 0, whole.end, &refusal);
        }
        let bytes = whole.line;
        let mut at = whole.start;
        let mut is_inside = false;
        while let Some(length) = document_end(&bytes[at..])
            // The line as a whole was refused already.
            && (at > whole.start || at + length < whole.end)
        {
            is_inside = continues_text(&bytes[at + length..whole.end]);
            if is_inside || !self.document(whole, (at, at + length), &mut records_left) {
                break;
            }
            at += length;
        }
        let from = if at == whole.start { 0 } else { at };
        if is_inside {
            let inside =
                format!("a piece of a longer text: byte {from} of the line begins a value inside it");
            return self.reject(whole, from, whole.end, &Refusal::new(Reason::TornLine, inside));
        }
        let is_whole = |(head, end): &(usize, usize)| {
            let event = wrapper::bare_event(&bytes[*head..*end], self.config.depth_max);
            event.is_ok_and(|event| !event.is_cut())
        };
        let may_be_torn = whole.newline && is_event_torn(&bytes[at..]);
        let last = may_be_torn.then(|| last_event(bytes, at)).flatten().filter(is_whole);
        let cut_end = last.map_or(whole.end, |(head, _)| head);
        if from < cut_end
            && !self.damaged_list(whole, from, (at, cut_end), &mut records_left)
            && !self.cut_event(whole, from, cut_end)
        {
            let refusal = match last {
                Some((head, _)) => {
                    let torn = format!("torn before a whole event at byte {head} of the line");
                    Refusal::new(Reason::TornLine, torn)
                }
                None if from == 0 => refusal,
                None => {
                    let broken = format!("broken after a whole event, from byte {from} of the line");
                    Refusal::new(Reason::TornLine, broken)
                }
            };
            self.reject(whole, from, cut_end, &refusal);
        }
        if let Some((head, end)) = last {
            match self.event(&bytes[head..end], &whole.place(head, head), Cut::Refused) {
                Ok(()) => {
                    self.dialects.add(Dialect::Plain);
                    self.rows.extend_frame_after(&bytes[end..whole.end]);
                }
                Err(refusal) => self.reject(whole, head, whole.end, &refusal),
            }
        }
    }

    /// Decodes one of several documents on a line. Returns `false` if the document is neither an
    /// event, nor a wrapper, nor too deep.
    fn document(&mut self, whole: &Piece<'_>, extent: (usize, usize), records_left: &mut usize) -> bool {
        let (start, end) = extent;
        let frame_from = if start == whole.start { 0 } else { start };
        let outcome = self
            .event(&whole.line[start..end], &whole.place(start, frame_from), Cut::Refused)
            .map(|()| Dialect::Plain)
            .or_else(|refusal| self.layered(whole, extent, frame_from, refusal));
        match outcome {
            Err(refusal) if refusal.reason == Reason::Wrapped => {
                self.wrapped(whole, frame_from, extent, records_left).is_ok()
            }
            Err(refusal) if refusal.reason == Reason::TooDeep => {
                if self.wrapped(whole, frame_from, extent, records_left).is_err() {
                    self.reject(whole, frame_from, end, &refusal);
                }
                true
            }
            Ok(dialect) => {
                self.dialects.add(dialect);
                true
            }
            Err(refusal) if refusal.reason == Reason::InvalidUtf8 => {
                self.damaged_list(whole, frame_from, extent, records_left)
            }
            // A line of an array of arrays. Text that goes on may be a piece of a client's array.
            Err(_) if wrapper::is_array(&whole.line[start..end]) => {
                whole.line[end..whole.end].trim_ascii() == b","
                    && self.wrapped(whole, frame_from, extent, records_left).is_ok()
            }
            Err(_) => false,
        }
    }

    /// Decodes the items of an `EventList`. Returns `false` if the line is not one.
    fn event_list(&mut self, whole: &Piece<'_>) -> bool {
        let Some(items) = list_items(&whole.line[whole.start..whole.end]) else { return false };
        if let Err(refusal) = wrapper::short_items(items.iter().map(|item| item.len())) {
            self.reject(whole, 0, whole.end, &refusal);
            return true;
        }
        if items.is_empty() {
            let empty = Refusal::new(Reason::EmptyEventList, "an EventList without items");
            self.reject(whole, 0, whole.end, &empty);
            return true;
        }
        let extent_of = |item: &&[u8]| whole.extent_of(item);
        self.each(whole, (0, whole.end), &items, extent_of, |decoder, item, frame_from| {
            let (start, end) = whole.extent_of(item);
            decoder.event(item, &whole.place(start, frame_from), Cut::Refused)?;
            decoder.dialects.add(Dialect::EventList);
            Ok(end)
        });
        true
    }

    fn reject(&mut self, whole: &Piece<'_>, start: usize, end: usize, refusal: &Refusal) {
        self.rejects.push(&whole.line[start..end], refusal, whole.offset + start as i64, whole.number);
    }
}

/// Returns what is done with an event that is cut, in a text that was found in a layer.
fn cut_in(around: Around, cut: Cut) -> Cut {
    if around == Around::Prefix { cut } else { Cut::Taken }
}

/// Returns why a record is refused that has no event at `path` either. It was refused before that
/// with `refused`.
fn not_at(path: &EventPath, at: AtPath, refused: Refusal) -> Refusal {
    let Refusal { reason, detail } = refused;
    match at {
        AtPath::Closed => Refusal { reason, detail },
        AtPath::OtherSource(other) => other,
        AtPath::Absent => Refusal::new(reason, format!("{detail}; there is nothing at {path}")),
        AtPath::Refused(Refusal { detail: inner, .. }) => {
            Refusal::new(reason, format!("{detail}; at {path} there is no event: {inner}"))
        }
    }
}

/// A line and its position; `start..end` is the part that may be decoded.
#[derive(Clone, Copy)]
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
    fn extent_of(&self, text: impl AsRef<[u8]>) -> (usize, usize) {
        let text = text.as_ref();
        let start = text.as_ptr() as usize - self.line.as_ptr() as usize;
        (start, start + text.len())
    }

    /// Returns the place of a record that begins at `start`. The bytes from `frame_from` to `start`
    /// are its frame.
    fn place(&self, start: usize, frame_from: usize) -> Place<'l> {
        Place { offset: self.offset + start as i64, before: &self.line[frame_from..start] }
    }
}

/// Whether `text` may be the beginning of an event whose writer stopped, or the zeros that a crash
/// left. Other text, such as a line of klog, may contain a whole event that a client sent.
fn is_event_torn(text: &[u8]) -> bool {
    text.iter().find(|byte| !matches!(byte, 0 | b' ' | b'\t' | b'\r')) == Some(&b'{')
}

/// Whether `text`, which follows a value, continues or closes a text that the value is in.
fn continues_text(text: &[u8]) -> bool {
    text.iter().find(|byte| !is_white(**byte)).is_some_and(|byte| matches!(byte, b',' | b']' | b'}'))
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Returns the extent of the first text at or after `from` that begins like an event and whose
/// document ends where `line` does, apart from white space. `None` if that event may be nested in
/// the text from `from` on, or from any beginning of an event before it.
fn last_event(line: &[u8], from: usize) -> Option<(usize, usize)> {
    let text_end = line.trim_ascii_end().len();
    let mut bytes_left = RECOVERY_BYTES_MAX;
    let torn = from + line[from..].iter().position(|byte| *byte == b'{')?;
    // A writer may have stopped more than once. Each event before the last may be around it.
    let mut begun = vec![torn];
    for head in memchr::memmem::find_iter(&line[from..], b"{\"kind\":\"Event") {
        let head = from + head;
        let length = document_end(&line[head..]);
        if length.is_some_and(|length| head + length == text_end) {
            begun.dedup();
            for start in begun.into_iter().filter(|start| *start < head) {
                bytes_left = bytes_left.checked_sub(head - start)?;
                if may_be_nested(&line[start..head], start == torn) {
                    return None;
                }
            }
            return Some((head, text_end));
        }
        bytes_left = bytes_left.checked_sub(length.unwrap_or(line.len() - head))?;
        begun.push(head);
    }
    None
}

/// Whether a value that follows `torn`, which begins with an object, may be inside of that object.
/// If that object `is_outermost`, the value must not be inside of a text around it either.
fn may_be_nested(torn: &[u8], is_outermost: bool) -> bool {
    // For each bracket that is open, whether it is a list's.
    let mut open: Vec<bool> = Vec::new();
    // The last byte that is not white space. A string counts as its closing quote.
    let mut last = b' ';
    let mut at = 0;
    while let Some(byte) = torn.get(at) {
        at += 1;
        if is_white(*byte) {
            continue;
        }
        last = *byte;
        match byte {
            b'"' => match string_end(&torn[at..]) {
                Some(length) => at += length,
                // The text is torn in a string.
                None => return false,
            },
            b'{' | b'[' if open.len() >= TORN_DEPTH_MAX => return true,
            b'{' => open.push(false),
            b'[' => open.push(true),
            // Only the text around the object can continue after it in this way.
            b'}' | b']' | b',' if open.is_empty() => return is_outermost,
            b'}' | b']' => drop(open.pop()),
            _ => {}
        }
    }
    match last {
        b':' | b'[' => true,
        b',' => open.last() != Some(&false),
        _ => false,
    }
}

/// Returns the length of the rest of a string, up to its closing quote.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Returns the length of the JSON document at the start of `bytes`; `None` if there is none. Its
/// strings may be not UTF-8.
fn document_end(bytes: &[u8]) -> Option<usize> {
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<serde::de::IgnoredAny>();
    match documents.next() {
        Some(Ok(_)) => Some(documents.byte_offset()),
        _ => None,
    }
}

/// Decodes one whole stream in memory, for tests, benches and short inputs.
///
/// # Errors
/// Like [`Decoder::decode`].
pub fn decode_bytes(bytes: &[u8], cluster: &str, partition: &str) -> Result<DecodedBlock, ArrowError> {
    let block = Block {
        origin: Arc::new(frame::Origin {
            partition: partition.to_owned(),
            cluster: cluster.to_owned(),
            unwrap: None,
        }),
        offset: 0,
        first_line: 1,
        bytes: bytes.to_vec(),
        begins: frame::LineSoFar::default().edge(bytes, LINE_BYTES_MAX),
        ends: Edge::Line,
        open_ended: false,
    };
    Decoder::new(DecoderConfig::default()).decode(&block, DateTime::<Utc>::UNIX_EPOCH)
}
