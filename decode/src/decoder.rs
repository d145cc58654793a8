//! Decodes lines to columns in one pass.
//!
//! Invariants:
//! - Every byte of a line is kept. It is in an event whose columns, alone or by a form, render to
//!   the record, in the `raw` of an event, or in a reject. Bytes around the events of an
//!   `EventList` or a cloud's wrapper are kept in `frame_before` and `frame_after`, the *frame* of
//!   a row.
//! - A row is pushed whole or not at all: everything that can be refused is decoded before the
//!   first column is changed.
//! - The result equals that of [`strongroom_lines::decode_alone`] on every input.
//!
//! There are three readers, and a line that one of them does not read goes to the next. `canonical`
//! reads a line that is written as kube-apiserver writes it. `members` reads members in any order
//! and format from a simd-json tape. [`strongroom_lines::plain`] reads the rest, such as lines that
//! are cut or have a part that cannot be read, and lines longer than [`WIDE_BYTES`]. Objects that
//! repeat (`user`, `annotations`, `sourceIPs`, `responseStatus`, `objectRef`) are looked up by their
//! text and decoded once per block. Bodies are not decoded into values; they are slices of the line.
//! The positions of the members show whether a line is canonical, so that `raw` can be left out: the
//! text between the values, and the text of each value, must be what [`crate::render`] writes.
//!
//! The decoder keeps nothing between blocks but its buffers, so after a crash a block is decoded
//! again with the same result.

mod recover;

use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use chrono::{DateTime, Utc};
use strongroom_lines::frame::{self, Block, Edge, LineKind};
use strongroom_lines::plain::PlainEvent;
use strongroom_lines::wrapper::{
    self, Around, AtPath, Content, Element, ElementContent, EventPath, Opened, Reading, Record, Writers,
};
use strongroom_lines::{BOM, DEPTH_MAX, Dialect, DialectCounts, LINE_BYTES_MAX, Reason, Refusal};
use strongroom_schemas::format::EVENTS_FORMAT;
use strongroom_schemas::record::Sha256Hash;

use crate::canonical;
use crate::columns::NULL;
use crate::document::{Document, Stop};
use crate::learn::EventText;
use crate::members;
use crate::rejects::Rejects;
use crate::rows::{HashedLater, Place, Row, Rows};
use crate::tape::{Member, Parser};

/// Longest text that simd-json parses: 4 MiB. simd-json needs many times the memory of the text, so
/// longer texts are left to [`strongroom_lines::plain`].
const WIDE_BYTES: usize = 4 << 20;

/// Bounds of the decoder.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    /// Longest line that is decoded, in bytes. Default: [`LINE_BYTES_MAX`].
    pub line_bytes_max: usize,
    /// Maximum nesting depth that is decoded. Default: [`DEPTH_MAX`].
    pub depth_max: usize,
}

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
    /// The rows whose hashes are not in `record_hashes` yet, ascending.
    pub unhashed: Vec<usize>,
    /// Number of bytes of the block that were decoded. It is less than the block's length if an
    /// unfinished last line was left.
    pub consumed: usize,
    /// The number of events of each dialect.
    pub dialects: DialectCounts,
}

impl DecodedBlock {
    /// Returns the bytes of memory that the rows take.
    pub fn bytes(&self) -> usize {
        let columns = self.events.get_array_memory_size() + self.rejects.get_array_memory_size();
        columns + self.record_hashes.capacity() * size_of::<Sha256Hash>()
    }

    /// Returns the number of records received: every event and every reject is one.
    pub fn records(&self) -> u64 {
        (self.events.num_rows() + self.rejects.num_rows()) as u64
    }
}

/// How the records of sealed rows are read. Their writers are not judged here, because they were
/// judged when the records arrived.
const UNJUDGED: Reading = Reading { unwrap: None, writers: Writers::UNJUDGED };
/// The share of one block in what was decoded from several blocks together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The block's number of events, and of rejects.
    pub events: usize,
    pub rejects: usize,
    /// Like [`DecodedBlock::consumed`].
    pub consumed: usize,
}

/// Turns blocks into batches. Keeps nothing but buffers between blocks.
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
    /// How the source of the current records is configured to be read.
    reading: Arc<Reading>,
    /// The event that was found in the layers of the last record, if the caller asked for it.
    opened: Option<Vec<u8>>,
}

/// A record that is kept in `raw`, because the event was found inside it.
#[derive(Clone, Copy)]
struct Kept<'r> {
    record: &'r [u8],
    /// The key of the row's shape.
    shape: i32,
}

/// What is made in addition to the columns.
#[derive(Clone, Copy)]
struct Wanted {
    hashes: bool,
    forms: bool,
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
            reading: Arc::default(),
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
        self.decode_rows(block, arrived, Wanted { hashes: false, forms: true }, None)
    }

    /// Like [`decode`](Self::decode), for rows that are only matched against rules: a record that
    /// the columns do not give is kept in `raw`, because learning a form for it takes time.
    ///
    /// # Errors
    /// Like [`decode`](Self::decode).
    pub fn decode_to_match(
        &mut self,
        block: &Block,
        arrived: DateTime<Utc>,
    ) -> Result<DecodedBlock, ArrowError> {
        self.decode_rows(block, arrived, Wanted { hashes: false, forms: false }, None)
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
        self.decode_rows(block, arrived, Wanted { hashes: true, forms: true }, None)
    }

    /// Like [`decode_to_seal`](Self::decode_to_seal), but does not hash the records that `later`
    /// names: see [`DecodedBlock::unhashed`].
    ///
    /// # Errors
    /// Like [`decode`](Self::decode).
    pub fn decode_to_change(
        &mut self,
        block: &Block,
        arrived: DateTime<Utc>,
        later: Box<dyn HashedLater>,
    ) -> Result<DecodedBlock, ArrowError> {
        self.decode_rows(block, arrived, Wanted { hashes: true, forms: true }, Some(later))
    }

    /// Like [`decode_to_seal`](Self::decode_to_seal), for blocks of several streams, whose rows are
    /// in one batch, block by block. Also returns the share of each block. `consumed` of the result
    /// is the sum over the blocks.
    ///
    /// # Errors
    /// Like [`decode`](Self::decode).
    pub fn decode_together<'b>(
        &mut self,
        blocks: impl IntoIterator<Item = &'b Block>,
        arrived: DateTime<Utc>,
    ) -> Result<(DecodedBlock, Vec<Share>), ArrowError> {
        self.begin_rows(Wanted { hashes: true, forms: true });
        self.rows.begin_together();
        let mut shares = Vec::new();
        for block in blocks {
            self.rows.begin_stream(&block.origin);
            let (events, rejects) = (self.rows.len(), self.rejects.len());
            let consumed = self.lines_of(block, arrived);
            let (events, rejects) = (self.rows.len() - events, self.rejects.len() - rejects);
            shares.push(Share { events, rejects, consumed });
        }
        let consumed = shares.iter().map(|share| share.consumed).sum();
        Ok((self.finish(&[], consumed)?, shares))
    }

    fn decode_rows(
        &mut self,
        block: &Block,
        arrived: DateTime<Utc>,
        wanted: Wanted,
        later: Option<Box<dyn HashedLater>>,
    ) -> Result<DecodedBlock, ArrowError> {
        self.begin_rows(wanted);
        later.into_iter().for_each(|later| self.rows.hash_later(later));
        self.rows.begin(&block.origin, &block.bytes);
        let consumed = self.lines_of(block, arrived);
        self.finish(&block.bytes, consumed)
    }

    fn begin_rows(&mut self, wanted: Wanted) {
        self.rows.hash_records(wanted.hashes);
        self.rows.learn_forms(wanted.forms);
    }

    /// Returns the rows. `text` is the text that the rows were begun with.
    fn finish(&mut self, text: &[u8], consumed: usize) -> Result<DecodedBlock, ArrowError> {
        let (record_hashes, unhashed) = (self.rows.take_record_hashes(), self.rows.take_unhashed());
        let (events, rejects) = (self.rows.finish(text)?, self.rejects.finish()?);
        let dialects = std::mem::take(&mut self.dialects);
        Ok(DecodedBlock { events, rejects, record_hashes, unhashed, consumed, dialects })
    }

    /// Decodes the lines of a block; returns how many bytes of it were decoded.
    fn lines_of(&mut self, block: &Block, arrived: DateTime<Utc>) -> usize {
        self.reading.clone_from(&block.origin.reading);
        self.rejects.begin(&block.origin, arrived.timestamp_micros());
        let mut consumed = block.bytes.len();
        let mut is_after_carrier = false;
        for line in frame::lines(block, self.config.line_bytes_max) {
            let offset = block.offset + line.at as i64;
            if line.kind == LineKind::OpenPage {
                consumed = line.at;
                continue;
            }
            // A byte order mark is at the beginning of a file, and later in a stream if files were
            // joined.
            let frame_before = if line.bytes.starts_with(BOM) { BOM.len() } else { 0 };
            let bytes = &line.bytes[frame_before..];
            let whole = Piece {
                line: line.bytes,
                number: line.number,
                offset,
                start: frame_before,
                end: line.bytes.len(),
                newline: block.bytes.get(line.at + line.bytes.len()) == Some(&b'\n'),
            };
            if let Some((start, end)) = line.event {
                self.page(&Piece { start, end, newline: false, ..whole }, line.kind);
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
            if is_after_carrier
                && line.kind == LineKind::Whole
                && let Some(dialect) = self.carried(&whole)
            {
                self.dialects.add(dialect);
                continue;
            }
            let outcome = self
                .event(bytes, &whole.place(whole.start, 0), Cut::Refused)
                .map(|()| Dialect::Plain)
                .or_else(|refusal| self.lone_record(&whole, refusal, line.kind));
            is_after_carrier = matches!(outcome, Ok(dialect) if dialect != Dialect::Plain);
            match outcome {
                Ok(dialect) => self.dialects.add(dialect),
                Err(_) if line.kind == LineKind::Open => consumed = line.at,
                Err(refusal) => self.refused_line(&whole, refusal),
            }
        }
        consumed
    }

    /// Decodes the event of a page. The bytes around the event are its frame.
    fn page(&mut self, page: &Piece<'_>, kind: LineKind) {
        let (text, place) = (&page.line[page.start..page.end], page.place(page.start, 0));
        let is_list = wrapper::is_array(text);
        let event = if kind == LineKind::Foreign {
            self.foreign(text, &place)
        } else if is_list {
            Err(Refusal::new(Reason::NotAnAuditEvent, "a list in a list"))
        } else {
            self.event(text, &place, Cut::Refused)
                .map(|()| Dialect::Document)
                .or_else(|refusal| self.layered(page, (page.start, page.end), 0, refusal))
        };
        match event {
            Ok(dialect) => self.dialects.add(dialect),
            Err(refusal) if kind == LineKind::Foreign || is_list => {
                self.reject(page, 0, page.end, &refusal);
            }
            Err(refusal) => self.recover(page, refusal),
        }
        let tail = &page.line[page.end..];
        match wrapper::Beside::after_list(tail, &self.reading.writers) {
            Some(refusal) => self.reject(page, page.end, page.line.len(), &refusal),
            None => self.extend_last(tail),
        }
    }

    /// Adds bytes that belong to no record to the event or reject right before them.
    fn extend_last(&mut self, tail: &[u8]) {
        if self.rejects.last_offset() > self.rows.last_offset() {
            self.rejects.extend_last(tail);
        } else {
            self.rows.extend_frame_after(tail);
        }
    }

    /// Decodes an element of an array whose first element does not belong to a log. An event is
    /// taken from it only at the path that is configured for the source.
    fn foreign(&mut self, text: &[u8], place: &Place<'_>) -> Result<Dialect, Refusal> {
        let refused = || wrapper::refusal_in_foreign_list(text);
        let reading = Arc::clone(&self.reading);
        let path = reading.unwrap.as_ref().ok_or_else(refused)?;
        let writers = &reading.writers;
        let Err(refusal) = wrapper::bare_event_of(text, self.config.depth_max, self.format, writers) else {
            return Err(refused());
        };
        if wrapper::decode_alone_of(text, &UNJUDGED, self.config.depth_max).is_ok() {
            return Err(refused());
        }
        self.at_path(text, path, &refusal, place, Cut::Refused).map_err(|_| refused())
    }

    /// Prepares for decoding records one by one, without the bytes around them, by the rules of an
    /// `eventsFormat`.
    pub(crate) fn begin_records(&mut self, format: u32) {
        self.format = format;
        self.rows.hash_records(false);
        self.rows.learn_forms(false);
        let origin =
            frame::Origin { partition: String::new(), cluster: String::new(), reading: Arc::default() };
        self.rows.begin(&origin, &[]);
    }

    /// Prepares for decoding records that were changed after they were received. Like
    /// [`begin_records`](Self::begin_records), but the rows get forms, and the cluster and the
    /// partition of `origin`.
    pub(crate) fn begin_changed(&mut self, origin: &frame::Origin) {
        self.format = EVENTS_FORMAT;
        self.rows.hash_records(false);
        self.rows.learn_forms(true);
        self.rows.begin(origin, &[]);
    }

    /// Whether the columns alone give the last record.
    pub(crate) fn last_is_rendered(&self) -> bool {
        self.rows.last_is_rendered()
    }

    /// Returns the rows of the records decoded since [`begin_changed`](Self::begin_changed).
    pub(crate) fn take_changed(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows.finish(&[])
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

    /// Decodes one record of `events` on its own and pushes its row, or returns why the bytes are
    /// not such a record. A record that was rendered from columns is a bare event. A record that
    /// was kept in `raw` may also have layers around its event, or be a cloud's entry that is
    /// mapped to an event. If the row of the record has a path, `unwrap`, the event may be there.
    /// The writer was judged when the record arrived.
    pub(crate) fn record_alone(
        &mut self,
        record: &[u8],
        is_rendered: bool,
        unwrap: Option<EventPath>,
    ) -> Result<(), Refusal> {
        self.reading = Arc::new(Reading { unwrap, ..UNJUDGED });
        let place = Place { offset: 0, before: &[] };
        let Err(refusal) = self.event(record, &place, Cut::Taken) else { return Ok(()) };
        if is_rendered {
            return Err(refusal);
        }
        if wrapper::unspelt(record).is_some() {
            return self.spelling(record, &place);
        }
        if matches!(refusal.reason, Reason::Wrapped | Reason::TooDeep)
            && let Ok(text) = std::str::from_utf8(record)
        {
            match wrapper::mapped(text, self.format) {
                Ok(event) => {
                    self.push_mapped(&event, record, &place);
                    return Ok(());
                }
                Err(other) if refusal.reason == Reason::Wrapped => return Err(other),
                // A deep object may hold an event.
                Err(_) => {}
            }
        }
        self.in_layers(record, refusal, &place, Cut::Taken).map(drop)
    }

    /// Returns the rows of the records decoded since the last call, in order.
    pub(crate) fn take_records(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = self.rows.finish(&[]);
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

    /// Decodes the event in the layers of `record`, which was refused as an event with `refusal`.
    /// All of `record` becomes the record of the row. If an event is cut, but its text is a
    /// complete string, the event is taken; elsewhere `cut` decides.
    fn in_layers(
        &mut self,
        record: &[u8],
        refusal: Refusal,
        place: &Place<'_>,
        cut: Cut,
    ) -> Result<Dialect, Refusal> {
        let reading = Arc::clone(&self.reading);
        let unwrap = reading.unwrap.as_ref().map(|path| (path, refusal.clone()));
        let kept = Kept { record, shape: NULL };
        let opened = wrapper::open(record, refusal, &reading.writers, &mut |text, around| {
            self.in_layer(text, around, kept, place, cut)
        });
        match (opened, unwrap) {
            (Ok(Opened { dialect, .. }), _) => Ok(dialect),
            (Err(refused), None) => Err(refused),
            (Err(refused), _) if refused.reason == Reason::UntrustedOrigin => Err(refused),
            (Err(refused), Some((path, refusal))) => {
                self.at_path(record, path, &refusal, place, cut).map_err(|at| not_at(path, at, refused))
            }
        }
    }

    /// Decodes the event at `path` in `record`. The record was refused as an event with `refusal`,
    /// and its layers have no event. A cloud's entry at the path is not taken for an event.
    fn at_path(
        &mut self,
        record: &[u8],
        path: &EventPath,
        refusal: &Refusal,
        place: &Place<'_>,
        cut: Cut,
    ) -> Result<Dialect, AtPath> {
        let kept = Kept { record, shape: self.rows.shape.dictionary.intern(path.shape()) };
        let writers = &Arc::clone(&self.reading).writers;
        let is_event = wrapper::open_at(record, refusal, path, writers, &mut |text, around| {
            self.general(text, Some(kept), place, cut_in(around, cut))
                .map(|()| true)
                .or_else(|refusal| wrapper::mapped_in(text, around, refusal, self.format).map(|_| false))
        })?;
        if is_event {
            return Ok(Dialect::OtherWrapper);
        }
        Err(AtPath::Refused(Refusal::new(Reason::NotAnAuditEvent, "an entry of Google Cloud Logging")))
    }

    /// Decodes a line as a carrier, because the line before it was a carrier. Returns `None` if
    /// this line is not a carrier, and must be decoded like any other line.
    fn carried(&mut self, whole: &Piece<'_>) -> Option<Dialect> {
        let record = &whole.line[whole.start..whole.end];
        let (kept, place) = (Kept { record, shape: NULL }, whole.place(whole.start, 0));
        let writers = &Arc::clone(&self.reading).writers;
        let opened = wrapper::open_carrier(record, writers, &mut |text, around| {
            self.in_layer(text, around, kept, &place, Cut::Refused)
        });
        opened.map(|opened| opened.dialect)
    }

    /// Decodes `text`, which was found in a layer of a record, as an event or an entry.
    fn in_layer(
        &mut self,
        text: &[u8],
        around: Around,
        kept: Kept<'_>,
        place: &Place<'_>,
        cut: Cut,
    ) -> Result<(), Refusal> {
        self.general(text, Some(kept), place, cut_in(around, cut)).or_else(|refusal| {
            let event = wrapper::mapped_in(text, around, refusal, self.format)?;
            self.push_mapped(&event, kept.record, place);
            self.see_opened(text);
            Ok(())
        })
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
        let Decoder { parser, fragments, rows, members, config, format, reading, .. } = self;
        if let Some(Kept { record, shape }) = around
            && text.len() <= WIDE_BYTES
            && let Some(row) = canonical::read(rows, text, fragments)
        {
            let event = EventText { text, is_canonical: row.shape == NULL };
            let row = Row { raw: Some(record), shape, ..row };
            rows.push_in_layers(&row, place, record, Some(event));
            self.see_opened(text);
            return Ok(());
        }
        let is_read = text.len() <= WIDE_BYTES
            && parser
                .parse(text, |nodes, base| {
                    let row = members::read(
                        rows,
                        &Document { nodes, base, line: text },
                        members,
                        &reading.writers,
                    )?;
                    match around {
                        Some(Kept { record, shape }) => {
                            let row = Row { raw: Some(record), shape, ..row };
                            let event = EventText { text, is_canonical: false };
                            rows.push_in_layers(&row, place, record, Some(event));
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
        let event = wrapper::bare_event_of(text, config.depth_max, *format, &reading.writers)?;
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
            let reading = Arc::clone(&self.reading);
            let records = std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| wrapper::records(text, self.config.depth_max, &reading.writers).ok());
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
    /// after a string literal, are its frame. An indented string is refused: it may be a client's
    /// text on a line of a document that was printed over many lines.
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
        let Some(literal) = wrapper::literal(bytes) else {
            return self.in_layers(bytes, refusal, &whole.place(start, frame_from), Cut::Refused);
        };
        if !bytes.starts_with(literal) {
            let indented = "an indented string, as in a document of many lines that is not whole";
            return Err(Refusal::new(Reason::TornLine, indented));
        }
        let (literal_start, literal_end) = whole.extent_of(literal);
        let place = whole.place(literal_start, frame_from);
        let dialect = self.in_layers(literal, refusal, &place, Cut::Refused)?;
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
            Content::Mapped(_) | Content::Foreign => extent_of(record.item),
            Content::Refused(refusal) => return Err(refusal.clone()),
        };
        let (bytes, place) = (&whole.line[start..end], whole.place(start, frame_from));
        let is_object = !bytes.starts_with(b"\"");
        match &record.content {
            Content::Mapped(_) if std::str::from_utf8(bytes).is_err() => {
                return Err(Refusal::new(Reason::InvalidUtf8, "not UTF-8"));
            }
            Content::Mapped(event) => self.push_mapped(event, bytes, &place),
            Content::Foreign => self.foreign(bytes, &place).map(drop)?,
            _ if record.dialect == Dialect::EventList => self.event(bytes, &place, Cut::Refused)?,
            _ if is_object => self
                .event(bytes, &place, Cut::Refused)
                .or_else(|refusal| self.in_layers(bytes, refusal, &place, Cut::Taken).map(drop))?,
            _ => self.in_layers(bytes, wrapper::not_a_string(), &place, Cut::Taken).map(drop)?,
        }
        Ok(end)
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
        let records = wrapper::records(text, self.config.depth_max, &self.reading.writers)?;
        *records_left = records_left
            .checked_sub(records.len())
            .ok_or_else(|| Refusal::new(Reason::ShortItems, "more records than the line has room for"))?;
        let text_of = |record: &Record<'_>| whole.extent_of(record.item);
        self.each(whole, (frame_from, end), &records, text_of, |decoder, record, frame_from| {
            let end = match decoder.record(whole, record, frame_from, &|text| whole.extent_of(text)) {
                Ok(end) => end,
                Err(refusal) => {
                    let Content::Event(value) = record.content else { return Err(refusal) };
                    let (start, end) = whole.extent_of(value);
                    let (depth_max, writers) = (decoder.config.depth_max, &decoder.reading.writers);
                    let list = wrapper::inner_list_of_element(&whole.line[start..end], depth_max, writers);
                    if !decoder.elements(whole, (start, end), frame_from, list, records_left) {
                        return Err(refusal);
                    }
                    return Ok(end);
                }
            };
            decoder.dialects.add(record.dialect);
            Ok(end)
        });
        Ok(())
    }

    /// Decodes the list of events inside the layers of `line[start..end]`, which is neither an event
    /// nor a list of events itself. Returns `false` if there is no such list, or if it has more than
    /// `records_left` elements.
    fn inner_list(
        &mut self,
        whole: &Piece<'_>,
        (start, end): (usize, usize),
        frame_from: usize,
        records_left: &mut usize,
    ) -> bool {
        let list = wrapper::inner_list(&whole.line[start..end], self.config.depth_max, &self.reading);
        self.elements(whole, (start, end), frame_from, list, records_left)
    }

    /// Decodes the elements of a list that was found in `line[start..end]`. Returns `false` if there is
    /// no list, or if it has more than `records_left` elements.
    fn elements(
        &mut self,
        whole: &Piece<'_>,
        (start, end): (usize, usize),
        frame_from: usize,
        list: Option<Opened<Vec<Element>>>,
        records_left: &mut usize,
    ) -> bool {
        let Some(Opened { event: elements, dialect }) = list else { return false };
        let Some(left) = records_left.checked_sub(elements.len()) else { return false };
        *records_left = left;
        let in_line = |range: &Range<usize>| (start + range.start, start + range.end);
        let extent_of = |element: &Element| in_line(&element.item);
        self.each(whole, (frame_from, end), &elements, extent_of, |decoder, element, frame_from| {
            let (start, end) = in_line(&element.record);
            decoder.element(&whole.line[start..end], &element.content, &whole.place(start, frame_from))?;
            decoder.dialects.add(dialect);
            Ok(end)
        });
        true
    }

    /// Decodes one element of a list that was found in layers.
    fn element(&mut self, record: &[u8], content: &ElementContent, place: &Place<'_>) -> Result<(), Refusal> {
        match content {
            ElementContent::Refused(refusal) => Err(refusal.clone()),
            ElementContent::Mapped(event) => {
                self.push_mapped(event, record, place);
                Ok(())
            }
            ElementContent::Spelling => self.spelling(record, place),
            ElementContent::Event if record.starts_with(b"\"") => {
                self.in_layers(record, wrapper::not_a_string(), place, Cut::Taken).map(drop)
            }
            ElementContent::Event => self.event(record, place, Cut::Refused),
        }
    }

    /// Decodes a record that is a spelling: the event as it stands in a string, with escapes.
    fn spelling(&mut self, record: &[u8], place: &Place<'_>) -> Result<(), Refusal> {
        let Some(text) = wrapper::unspelt(record) else {
            return Err(Refusal::new(Reason::BrokenJson, "neither JSON nor a spelling of it in a string"));
        };
        let kept = Kept { record, shape: NULL };
        if !text.starts_with(b"\"") {
            return self.in_layer(&text, Around::Literal, kept, place, Cut::Taken);
        }
        let writers = &Arc::clone(&self.reading).writers;
        wrapper::open(&text, wrapper::not_a_string(), writers, &mut |text, around| {
            self.in_layer(text, around, kept, place, Cut::Taken)
        })
        .map(drop)
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
        mut decode: impl FnMut(&mut Self, &T, usize) -> Result<usize, Refusal>,
    ) {
        // Bytes from here on belong to no record yet.
        let mut pending = start;
        for member in members {
            let (member_start, member_end) = extent_of(member);
            match decode(self, member, pending) {
                Ok(record_end) => self.extend_last(&whole.line[record_end..member_end]),
                Err(refusal) => self.reject_text(whole, (pending, member_end), member_start, &refusal),
            }
            pending = member_end;
        }
        self.extend_last(&whole.line[pending..end]);
    }

    fn reject(&mut self, whole: &Piece<'_>, start: usize, end: usize, refusal: &Refusal) {
        self.reject_text(whole, (start, end), start.max(whole.start), refusal);
    }

    /// Makes a reject of `line[start..end]`. The refused text begins at `text_at`; the bytes before
    /// it are frame.
    fn reject_text(
        &mut self,
        whole: &Piece<'_>,
        (start, end): (usize, usize),
        text_at: usize,
        refusal: &Refusal,
    ) {
        let text = whole.line.get(text_at..end).unwrap_or_default();
        let refusal = match &self.reading.unwrap {
            None => wrapper::with_place(text, refusal.clone(), self.config.depth_max, &self.reading.writers),
            Some(_) => refusal.clone(),
        };
        self.rejects.push(&whole.line[start..end], &refusal, whole.offset + start as i64, whole.number);
    }
}

/// Returns what is done with a cut event in a text that was found in a layer of this kind.
fn cut_in(around: Around, cut: Cut) -> Cut {
    if around == Around::Prefix { cut } else { Cut::Taken }
}

/// Returns the refusal of a record that has no event at `path` either. `refused` is its refusal
/// before the path was tried.
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

/// Decodes one whole stream in memory, for tests, benches and short inputs.
///
/// # Errors
/// Like [`Decoder::decode`].
pub fn decode_bytes(bytes: &[u8], cluster: &str, partition: &str) -> Result<DecodedBlock, ArrowError> {
    let block = Block {
        origin: Arc::new(frame::Origin {
            partition: partition.to_owned(),
            cluster: cluster.to_owned(),
            reading: Arc::default(),
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
