//! Checks the promises of the decoder on one block of bytes.
//!
//! The plain decoder is `strongroom_lines::plain`, a simple one to compare with.
//!
//! 1. Every byte that the decoder consumes is kept: events, rejects, their frames and newlines
//!    together give these bytes again.
//! 2. A line that the plain decoder accepts is one event with the same values. A line that it
//!    refuses is not an event, and is rejected for the same reason if no part of it could be saved.
//! 3. An event that was saved out of a broken line or a list is an event to the plain decoder too.
//! 4. Only an unfinished last line is not consumed.
//! 5. A decoder keeps nothing from one block for the next.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array as _, RecordBatch};
use chrono::DateTime;
use strongroom_decode::render::Renderer;
use strongroom_decode::{DecodedBlock, Decoder, DecoderConfig, plain_row};
use strongroom_lines::frame::{self, Edge, LineKind, Origin};
use strongroom_lines::{Block, Reading, Reason, Refusal, decode_alone, decode_record, plain};
use strongroom_schemas::rejects;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// A first byte below this one is not text. Its bits choose the limits of the decoder, and where
/// the block starts and ends.
const OPTIONS_MAX: u8 = 0x20;

/// A range of the block, with its outcome.
struct Kept {
    at: usize,
    bytes: Vec<u8>,
    /// How many bytes of `bytes` are the frame before the record, and how many the frame after it.
    before: usize,
    after: usize,
    what: What,
}

enum What {
    Event { row: usize },
    Reject { reason: String, line: i64 },
}

/// Decodes `data` as one block and checks all promises.
///
/// # Panics
/// When a promise is broken.
pub fn check(data: &[u8]) {
    let (options, bytes) = match data {
        [first, rest @ ..] if *first < OPTIONS_MAX && *first != b'\n' => (*first, rest),
        _ => (0, data),
    };
    let flag = |bit: u8| options & (1 << bit) != 0;
    let config = DecoderConfig {
        line_bytes_max: if flag(3) { 512 } else { 1 << 20 },
        depth_max: if flag(4) { 5 } else { 64 },
    };
    let block = Block {
        origin: Arc::new(Origin {
            partition: "file/f".to_owned(),
            cluster: "c".to_owned(),
            reading: Arc::default(),
        }),
        offset: if flag(0) || flag(2) { 7 } else { 0 },
        first_line: if flag(0) || flag(2) { 3 } else { 1 },
        bytes: bytes.to_vec(),
        begins: match (flag(2), options & 1 << 3) {
            (false, _) => Edge::Line,
            (true, 0) => Edge::InLine,
            (true, _) => Edge::InPart,
        },
        ends: if flag(1) && !bytes.ends_with(b"\n") { Edge::InLine } else { Edge::Line },
        // A last line without a newline either continues in the next block (`ends`) or may still
        // grow (`open_ended`), never both.
        open_ended: flag(0) && !flag(1),
    };
    let mut decoder = Decoder::new(config.clone());
    let arrived = DateTime::UNIX_EPOCH;
    let decoded = decoder.decode(&block, arrived).expect("the decoder assembles its columns");
    let again = decoder.decode(&block, arrived).expect("the decoder assembles its columns");
    assert_eq!(decoded.consumed, again.consumed, "the second decoding of a block differs from the first");
    assert_eq!(decoded.events, again.events, "the second decoding of a block differs from the first");
    assert_eq!(decoded.rejects, again.rejects, "the second decoding of a block differs from the first");

    let kept = kept(&block, &decoded);
    check_bytes(&block, &decoded, &kept);
    check_lines(&block, &decoded, &kept, &config);
}

/// Returns the events and rejects in the order of the stream, with their offsets in the block.
fn kept(block: &Block, decoded: &DecodedBlock) -> Vec<Kept> {
    let in_block = |offset: i64| usize::try_from(offset - block.offset).expect("an offset inside the block");
    let renderer = Renderer::new(&decoded.events).expect("a batch of events");
    let mut kept = Vec::new();
    for row in 0..decoded.events.num_rows() {
        let (before, after) = renderer.frame(row);
        let mut bytes = before.to_vec();
        renderer.record(row, &mut bytes).expect("a row that was just decoded has a record");
        bytes.extend_from_slice(after);
        let at = in_block(renderer.offset(row) - before.len() as i64);
        kept.push(Kept { at, bytes, before: before.len(), after: after.len(), what: What::Event { row } });
    }
    let raw = decoded.rejects.column(rejects::index::RAW).as_binary::<i32>();
    let offsets = decoded.rejects.column(rejects::index::SOURCE_OFFSET).as_primitive::<Int64Type>();
    let lines = decoded.rejects.column(rejects::index::LINE).as_primitive::<Int64Type>();
    for row in 0..decoded.rejects.num_rows() {
        let what = What::Reject { reason: reason(&decoded.rejects, row), line: lines.value(row) };
        let at = in_block(offsets.value(row));
        kept.push(Kept { at, bytes: raw.value(row).to_vec(), before: 0, after: 0, what });
    }
    // Events and rejects are each in order already, and a stable sort keeps that order.
    kept.sort_by_key(|kept| kept.at);
    kept
}

fn reason(rejects: &RecordBatch, row: usize) -> String {
    let reasons = rejects.column(rejects::index::REASON).as_dictionary::<Int32Type>();
    assert!(reasons.is_valid(row), "a reject without a reason");
    let key = usize::try_from(reasons.keys().value(row)).expect("a key of the dictionary");
    reasons.values().as_string::<i32>().value(key).to_owned()
}

fn check_bytes(block: &Block, decoded: &DecodedBlock, kept: &[Kept]) {
    let mut rebuilt = Vec::with_capacity(decoded.consumed);
    for kept in kept {
        assert!(rebuilt.len() <= kept.at, "two records overlap at byte {}", kept.at);
        rebuilt.resize(kept.at, b'\n');
        rebuilt.extend_from_slice(&kept.bytes);
    }
    assert!(rebuilt.len() <= decoded.consumed, "a record is outside the bytes that were consumed");
    rebuilt.resize(decoded.consumed, b'\n');
    assert!(rebuilt == block.bytes[..decoded.consumed], "the rows do not give the bytes back");
}

/// Returns true if the text of an event ends before the event does, or is not JSON from some point
/// on.
fn is_cut(event: &plain::PlainEvent) -> bool {
    event.faults.iter().flatten().any(|fault| fault.starts_with(": not_json"))
}

fn check_lines(block: &Block, decoded: &DecodedBlock, kept: &[Kept], config: &DecoderConfig) {
    let mut left = None;
    let mut rest = kept;
    for line in frame::lines(block, config.line_bytes_max) {
        assert_eq!(left, None, "a line follows the unfinished one");
        let end = line.at + line.bytes.len();
        let count = rest.iter().take_while(|kept| kept.at < end).count();
        let (mine, others) = rest.split_at(count);
        rest = others;
        assert!(mine.iter().all(|kept| kept.at >= line.at), "a record is outside all lines");
        for kept in mine {
            match &kept.what {
                What::Event { row } => {
                    let record = &kept.bytes[kept.before..kept.bytes.len() - kept.after];
                    let event = decode_record(record, &Reading::default(), config.depth_max);
                    assert_eq!(Ok(plain_row(&decoded.events, *row)), event, "the decoders differ");
                }
                What::Reject { line: number, .. } => assert_eq!(*number, line.number, "line number"),
            }
        }
        let text = match line.bytes.strip_prefix(BOM) {
            Some(text) => text,
            None => line.bytes,
        };
        let alone = match text.first() {
            // An indented string is refused, because it may be a line of a longer text.
            Some(b' ' | b'\t' | b'\r') if text.trim_ascii_start().starts_with(b"\"") => {
                Err(Refusal { reason: Reason::TornLine, detail: String::new() })
            }
            _ => decode_alone(text, config.depth_max),
        };
        match (line.kind, alone) {
            // The first piece of a long line may be an event.
            (LineKind::FirstPiece, _) => assert_eq!(mine.len(), 1, "a piece is lost"),
            (LineKind::Piece, _) => {
                assert!(matches!(mine, [Kept { what: What::Reject { reason, .. }, .. }]
                    if *reason == Reason::LineTooLong.as_str()));
            }
            // The end of the page, which must follow the event, is not there yet.
            (LineKind::OpenPage, _) => {
                assert!(mine.is_empty(), "an open page was used");
                left = Some(line.at);
            }
            (LineKind::Foreign, _) => {
                assert!(matches!(mine, [Kept { what: What::Reject { .. }, .. }]), "a client's list");
            }
            // The event may continue in the next block, unless it was cut inside a string.
            (LineKind::Open, Ok(event)) if is_cut(&event) => {
                left = mine.is_empty().then_some(line.at);
            }
            // A whole event may follow the one that is cut, on the same line.
            (LineKind::Whole, Ok(event)) if is_cut(&event) => {
                assert!(mine.iter().any(|kept| matches!(kept.what, What::Event { .. })), "an event is lost");
            }
            (_, Ok(_)) => {
                assert!(matches!(mine, [Kept { what: What::Event { .. }, .. }]), "an event is lost");
            }
            (LineKind::Open, Err(_)) => {
                assert!(mine.is_empty(), "an unfinished line was used");
                left = Some(line.at);
            }
            (LineKind::Whole, Err(refusal)) => {
                assert!(!mine.is_empty(), "a line is lost");
                if let [Kept { what: What::Reject { reason, .. }, bytes, .. }] = mine
                    && bytes.len() == line.bytes.len()
                {
                    // The reject of a list may have the reason of its only item, or say that the
                    // list has no items. For the plain decoder, a list that is cut after that item
                    // is not JSON.
                    let is_list = (text.contains(&b'[')
                        || memchr::memmem::find(text, b"\"EventList\"").is_some())
                        && matches!(
                            refusal.reason,
                            Reason::NotAnAuditEvent | Reason::TooDeep | Reason::BrokenJson
                        );
                    // An object that is refused keeps the NUL that ends it.
                    let is_frame = refusal.reason == Reason::NulByte && text.starts_with(b"{");
                    // A line may also be a piece of a longer one.
                    let is_piece = *reason == Reason::TornLine.as_str();
                    // Of two faults in a line, either may be named.
                    let is_broken_twice =
                        refusal.reason == Reason::InvalidUtf8 && *reason == Reason::BrokenJson.as_str();
                    assert!(
                        is_list
                            || is_frame
                            || is_piece
                            || is_broken_twice
                            || *reason == refusal.reason.as_str(),
                        "{reason} {}",
                        refusal.reason
                    );
                }
            }
        }
    }
    assert!(rest.is_empty(), "a record is outside all lines");
    assert_eq!(decoded.consumed, left.unwrap_or(block.bytes.len()), "bytes used");
}
