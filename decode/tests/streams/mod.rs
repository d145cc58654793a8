//! Streams of any bytes through the decoder, in blocks of any size.
//!
//! The tests of this crate and the fuzz targets share this module. Blocks are cut as
//! `strongroom-ingest` cuts them. [`check`] tests these promises of the decoder:
//! 1. Events, rejects, frames and newlines give the stream back, byte for byte.
//! 2. An event has the values that the plain decoder reads from its record, and no reject is an
//!    event to the plain decoder, unless it was rejected because of the text before it.
//! 3. The rows do not depend on where the stream is cut into blocks.
//! 4. If a stream stops at any place and grows later, no byte is lost or repeated.
//! 5. The rows of a block take memory in proportion to its bytes.

pub mod forgery;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array as _, RecordBatch};
use chrono::DateTime;
use strongroom_decode::render::Renderer;
use strongroom_decode::stream::{self, StreamError};
use strongroom_decode::{DecodedBlock, Decoder, DecoderConfig, plain_row};
use strongroom_lines::frame::{self, BOUNDARY_BYTES, Edge, LastPage, LineSoFar, Origin, Within};
use strongroom_lines::plain::PlainEvent;
use strongroom_lines::{Block, DEPTH_MAX, LINE_BYTES_MAX, Reading, decode_alone_of, decode_record};
use strongroom_schemas::rejects;

const SHOWN_BYTES: usize = 1_000;
/// Bytes of memory that the rows of a block may take for each byte of the block.
const MEMORY_PER_BYTE: usize = 64;
/// Bytes of memory that the rows of a block may take in addition, whatever its size.
const MEMORY_OF_BLOCK: usize = 1 << 20;

/// The bounds of a decoder, and the path of its source.
#[derive(Clone)]
pub struct Options {
    pub line_bytes_max: usize,
    pub depth_max: usize,
    pub reading: Arc<Reading>,
}

impl Default for Options {
    fn default() -> Options {
        Options { line_bytes_max: LINE_BYTES_MAX, depth_max: DEPTH_MAX, reading: Arc::default() }
    }
}

/// A row without the form of its record, because forms depend on the blocks.
#[derive(Clone, PartialEq)]
pub enum Row {
    Event { at: i64, before: Vec<u8>, record: Vec<u8>, after: Vec<u8>, said: Box<PlainEvent> },
    Reject { at: i64, raw: Vec<u8>, reason: String, line: i64 },
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| {
            let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
            format!("{} bytes {:?}", bytes.len(), String::from_utf8_lossy(shown))
        };
        match self {
            Row::Event { at, before, record, after, said } => write!(
                f,
                "event {:?} at {at}: {}, {}, {}",
                said.audit_id,
                text(before),
                text(record),
                text(after)
            ),
            Row::Reject { at, raw, reason, line } => {
                write!(f, "{reason} at {at}, line {line}: {}", text(raw))
            }
        }
    }
}

impl Row {
    fn at(&self) -> i64 {
        match self {
            Row::Event { at, before, .. } => at - before.len() as i64,
            Row::Reject { at, .. } => *at,
        }
    }

    pub fn event(&self) -> Option<&PlainEvent> {
        match self {
            Row::Event { said, .. } => Some(said),
            Row::Reject { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Unwritten(#[allow(dead_code, reason = "shown by Debug when a check fails")] StreamError);

impl From<StreamError> for Unwritten {
    fn from(error: StreamError) -> Self {
        Unwritten(error)
    }
}

impl From<Infallible> for Unwritten {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Checks all promises. `size` chooses the sizes of blocks, and where a growing stream stops.
///
/// # Panics
/// When a promise is broken.
pub fn check(bytes: &[u8], options: &Options, size: &mut dyn FnMut() -> usize) {
    let whole = decoded(bytes, options, &mut || usize::MAX);
    let in_blocks = decoded(bytes, options, size);
    assert_same(&joined(whole), &joined(in_blocks));
    let stops: Vec<usize> = std::iter::repeat_with(|| size() % (bytes.len() + 1)).take(3).collect();
    grown(bytes, options, &stops);
}

fn assert_same(whole: &[Row], in_blocks: &[Row]) {
    for (one, other) in whole.iter().zip(in_blocks) {
        assert_eq!(one, other, "a row depends on where the stream is cut into blocks");
    }
    assert_eq!(whole.len(), in_blocks.len(), "rows depend on where the stream is cut into blocks");
}

/// Decodes a complete stream in blocks of the sizes that `size` returns, and checks the rows of
/// each block.
pub fn decoded(bytes: &[u8], options: &Options, size: &mut dyn FnMut() -> usize) -> Vec<Row> {
    let (mut at, mut first_line, mut so_far) = (0, 1, LineSoFar::default());
    let mut reader = Reader::new(options);
    while at < bytes.len() {
        let block = reader.next_block(&bytes[at..], &so_far, size());
        let block = Block { offset: at as i64, first_line, ..block };
        so_far.advance(&block.bytes, options.line_bytes_max);
        at += block.bytes.len();
        first_line += lines_in(&block.bytes) as i64;
        let consumed = reader.decode(&block);
        assert_eq!(consumed, block.bytes.len(), "a block that is complete is not used to its end");
    }
    reader.finish(bytes)
}

/// Decodes a stream that stops at each of `stops` and grows after it, like a file that is read by
/// one run after another.
pub fn grown(bytes: &[u8], options: &Options, stops: &[usize]) -> Vec<Row> {
    let mut stops = stops.to_vec();
    stops.sort_unstable();
    let (mut at, mut first_line, mut so_far) = (0, 1, LineSoFar::default());
    let mut reader = Reader::new(options);
    for stop in stops.into_iter().chain([bytes.len()]).filter(|stop| *stop > 0) {
        let open_ended = stop < bytes.len();
        if stop <= at {
            continue;
        }
        let block = Block {
            origin: Arc::clone(&reader.origin),
            offset: at as i64,
            first_line,
            bytes: bytes[at..stop].to_vec(),
            begins: so_far.edge(&bytes[at..stop], options.line_bytes_max),
            ends: Edge::Line,
            open_ended,
        };
        let consumed = reader.decode(&block);
        assert!(open_ended || consumed == block.bytes.len(), "the end of the stream is not used");
        so_far.advance(&block.bytes[..consumed], options.line_bytes_max);
        first_line += lines_in(&block.bytes[..consumed]) as i64;
        at += consumed;
    }
    reader.finish(bytes)
}

struct Reader<'o> {
    options: &'o Options,
    origin: Arc<Origin>,
    decoder: Decoder,
    events: Vec<RecordBatch>,
    rejects: Vec<RecordBatch>,
    rows: Vec<Row>,
}

impl<'o> Reader<'o> {
    fn new(options: &'o Options) -> Reader<'o> {
        let Options { line_bytes_max, depth_max, .. } = *options;
        Reader {
            options,
            origin: Arc::new(Origin {
                partition: "file/f".to_owned(),
                cluster: "c".to_owned(),
                reading: Arc::clone(&options.reading),
            }),
            decoder: Decoder::new(DecoderConfig { line_bytes_max, depth_max }),
            events: Vec::new(),
            rejects: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Cuts a block of about `size` bytes off the rest of a stream.
    fn next_block(&self, rest: &[u8], so_far: &LineSoFar, size: usize) -> Block {
        let max = self.options.line_bytes_max;
        let long_max = size.max(max.saturating_add(BOUNDARY_BYTES));
        let mut filled = rest.len().min(size.max(1));
        while filled < rest.len().min(long_max) && is_one_record(&rest[..filled], so_far, max) {
            filled = filled.saturating_mul(2).min(long_max).min(rest.len());
        }
        let bytes = &rest[..filled];
        let begins = so_far.edge(bytes, max);
        let (mut end, mut ends) = (filled, Edge::Line);
        if filled < rest.len() && !bytes.ends_with(b"\n") {
            let pages = match begins {
                Edge::Page(within) => frame::last_page(bytes, within, max).filter(|(end, _)| *end > 0),
                _ => None,
            };
            if let Some((page_end, _)) = pages {
                end = page_end;
            } else if let Some(newline) = memchr::memrchr(b'\n', bytes) {
                end = newline + 1;
            } else if begins != Edge::Line || frame::is_long(bytes, max) {
                (end, ends) = frame::last_cut(bytes, begins, max);
            }
        }
        let is_at_end = end == rest.len();
        let held = match (begins, ends) {
            (Edge::Page(within), _) => held_page(&bytes[..end], within, is_at_end, max),
            (_, Edge::Line) => frame::open_parts(&bytes[..end], max),
            _ => None,
        };
        if let Some(held) = held.filter(|held| *held > 0 && !is_at_end) {
            (end, ends) = (held, Edge::Line);
        }
        Block {
            origin: Arc::clone(&self.origin),
            offset: 0,
            first_line: 1,
            bytes: bytes[..end].to_vec(),
            begins,
            ends,
            open_ended: false,
        }
    }

    /// Decodes a block and checks its rows. Returns the number of bytes that were used.
    fn decode(&mut self, block: &Block) -> usize {
        let decoded = self.decoder.decode(block, DateTime::UNIX_EPOCH).expect("columns fit their schema");
        let memory = decoded.events.get_array_memory_size() + decoded.rejects.get_array_memory_size();
        let most = MEMORY_PER_BYTE * block.bytes.len() + MEMORY_OF_BLOCK;
        assert!(memory <= most, "{memory} bytes of rows for {} bytes", block.bytes.len());
        self.rows.extend(rows(&decoded, self.options));
        let DecodedBlock { events, rejects, consumed, .. } = decoded;
        self.events.push(events);
        self.rejects.push(rejects);
        consumed
    }

    /// Checks that the rows give the stream back, and returns them.
    fn finish(self, bytes: &[u8]) -> Vec<Row> {
        let mut written = Vec::with_capacity(bytes.len());
        let batches = |batches: Vec<RecordBatch>| batches.into_iter().map(Ok::<_, Unwritten>);
        stream::write(batches(self.events), batches(self.rejects), bytes.len() as i64, &mut written)
            .expect("records in order");
        assert!(written == bytes, "the rows do not give the stream back");
        self.rows
    }
}

/// Whether the bytes of a block are a part of one line, of one page, or of the parts of one line.
fn is_one_record(bytes: &[u8], so_far: &LineSoFar, max: usize) -> bool {
    let lines = lines_in(bytes);
    match so_far.edge(bytes, max) {
        Edge::Page(within) => match frame::last_page(bytes, within, max) {
            Some((end, then)) => end == 0 && then == LastPage::MoreMayCome,
            None => lines == 0,
        },
        Edge::InLine => false,
        _ if lines == 0 => !frame::is_long(bytes, max),
        _ => {
            let whole_lines = memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1);
            frame::open_parts(&bytes[..whole_lines], max) == Some(0)
        }
    }
}

/// Returns where the incomplete page at the end of a block begins, if the block has to end before
/// that page.
fn held_page(bytes: &[u8], within: Within, is_at_end: bool, max: usize) -> Option<usize> {
    let (end, then) = frame::last_page(bytes, within, max)?;
    let is_held = match then {
        LastPage::MoreMayCome => !bytes[end..].iter().all(u8::is_ascii_whitespace),
        LastPage::LinesFollow => !is_at_end,
    };
    is_held.then_some(end)
}

fn lines_in(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

/// Returns the rows of a block in the order of the stream, and compares them with what the plain
/// decoder reads.
fn rows(decoded: &DecodedBlock, options: &Options) -> Vec<Row> {
    let alone = |record: &[u8]| decode_alone_of(record, &options.reading, options.depth_max);
    let renderer = Renderer::new(&decoded.events).expect("a batch of events");
    let mut rows = Vec::new();
    for row in 0..decoded.events.num_rows() {
        let (before, after) = renderer.frame(row);
        let mut record = Vec::new();
        renderer.record(row, &mut record).expect("a row that was just decoded has a record");
        let said = plain_row(&decoded.events, row);
        let expected = decode_record(&record, &options.reading, options.depth_max);
        assert_eq!(expected.as_ref(), Ok(&said), "{}", String::from_utf8_lossy(&record));
        let (at, before, after) = (renderer.offset(row), before.to_vec(), after.to_vec());
        rows.push(Row::Event { at, before, record, after, said: Box::new(said) });
    }
    let raw = decoded.rejects.column(rejects::index::RAW).as_binary::<i32>();
    let offsets = decoded.rejects.column(rejects::index::SOURCE_OFFSET).as_primitive::<Int64Type>();
    let lines = decoded.rejects.column(rejects::index::LINE).as_primitive::<Int64Type>();
    for row in 0..decoded.rejects.num_rows() {
        let (raw, reason) = (raw.value(row).to_vec(), reason(&decoded.rejects, row));
        // Torn text, and pieces of lines, are rejected because of the text around them.
        let is_of_context = reason == "torn_line" || reason == "line_too_long";
        assert!(is_of_context || alone(&raw).is_err(), "lost: {}", String::from_utf8_lossy(&raw));
        rows.push(Row::Reject { at: offsets.value(row), raw, reason, line: lines.value(row) });
    }
    rows.sort_by_key(Row::at);
    rows
}

fn reason(rejects: &RecordBatch, row: usize) -> String {
    let reasons = rejects.column(rejects::index::REASON).as_dictionary::<Int32Type>();
    assert!(reasons.is_valid(row), "a reject without a reason");
    reasons.values().as_string::<i32>().value(reasons.keys().value(row) as usize).to_owned()
}

/// Removes what depends on the blocks: where an over-long line is cut into pieces, and whether the
/// newlines between two documents belong to one of them.
fn joined(rows: Vec<Row>) -> Vec<Row> {
    let mut joined: Vec<Row> = Vec::with_capacity(rows.len());
    for mut row in rows {
        match &mut row {
            Row::Event { before, after, .. } => {
                drop_newlines_before(before);
                drop_newlines_after(after);
            }
            Row::Reject { at, raw, line, .. } => {
                let dropped = drop_newlines_before(raw);
                (*at, *line) = (*at + dropped, *line + dropped);
                drop_newlines_after(raw);
            }
        }
        match (joined.last_mut(), row) {
            (
                Some(Row::Reject { at, raw, reason, line }),
                Row::Reject { at: next, raw: more, reason: of, line: number },
            ) if reason == "line_too_long"
                && of == *reason
                && number == *line
                && *at + raw.len() as i64 == next =>
            {
                raw.extend(more);
            }
            (_, row) => joined.push(row),
        }
    }
    joined
}

fn drop_newlines_before(bytes: &mut Vec<u8>) -> i64 {
    bytes.drain(..bytes.iter().take_while(|byte| **byte == b'\n').count()).count() as i64
}

fn drop_newlines_after(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1));
}
