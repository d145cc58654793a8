//! Cuts a stream into blocks and a block into lines.
//!
//! Invariant: the bytes of a block are its lines and the newlines between them, and the blocks of a
//! stream follow each other without a gap. A block ends after a newline, at the end of its stream,
//! or inside a line that is longer than a block; such a line continues in the next block. No state:
//! after a crash, a stream can be cut again from any sealed position, and is cut at the same
//! places.
//!
//! A container runtime, or docker, may have cut a line into parts and written each part as a line
//! of its own. The parts are joined here: together they are one line, from the first part to the
//! last, including any lines of the other output stream (stdout or stderr) between them. The bound
//! on the length of a line holds for the joined line, too. A block does not end between two parts
//! where that can be avoided: see [`open_parts`]. If the last part is missing, each part is a line
//! of its own. If parts together are longer than a line may be, it is undefined which of them are
//! joined.
//!
//! A stream may begin with a document of many lines or many events, which is cut into `pages`. A
//! block then begins and ends between two pages, and [`Within`] is all that must be known to
//! continue there. [`Within`] follows from the bytes before that place, so [`LineSoFar`] can find
//! it again after a restart.
//!
//! AWS Firehose writes documents one after the other without a newline, so a line of Firehose may
//! have any length. A line that is longer than the bound and begins with such a document is cut
//! into parts, which are decoded like lines.
//! - Such a line is cut only between the two braces of `BOUNDARY`. No single JSON document contains
//!   the bytes of `BOUNDARY`. The quote in them is not escaped, so it opens or closes a string. If
//!   it opened one, the brace before it would open an object right after `}`, which JSON does not
//!   allow. If it closed one, a letter would follow the closed string, which JSON does not allow
//!   either. So text that a client sent cannot be cut out of the document around it. Other writers
//!   may not escape what clients send, so a line that does not begin with such a document is not
//!   searched for `BOUNDARY`.
//! - A part is one document, or several documents with at most [`PART_BYTES`] together, so that
//!   tiny documents do not become millions of parts. A document longer than the bound is a part of
//!   its own, and is handed out in pieces.
//! - The places at which a line is cut follow from its bytes and the bound, not from how the line
//!   was split into blocks. A block inside such a line ends at a cut, unless it contains none, and
//!   [`LineSoFar`] has what is needed to continue.

use std::sync::Arc;

use memchr::memmem;

use crate::limits::BOM;
use crate::pages::{self, Page};
use crate::wrapper::{self, Follows, Reading};

pub use crate::pages::Within;

/// Where a block comes from. All blocks of a stream share one origin.
#[derive(Debug, PartialEq, Eq)]
pub struct Origin {
    /// Source partition, as in the `source` column.
    pub partition: String,
    pub cluster: String,
    /// How the source is configured to be read.
    pub reading: Arc<Reading>,
}

/// Consecutive bytes of one stream, after decompression.
#[derive(Debug)]
pub struct Block {
    pub origin: Arc<Origin>,
    /// Byte offset of `bytes[0]` in the stream.
    pub offset: i64,
    /// Number of the line that `bytes[0]` belongs to, from 1.
    pub first_line: i64,
    pub bytes: Vec<u8>,
    pub begins: Edge,
    pub ends: Edge,
    /// Whether the stream may still grow after this block, so that a last line without a newline
    /// may be incomplete. If such a line cannot be decoded, it is left for later and does not
    /// become a reject.
    pub open_ended: bool,
}

/// Where a block begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Between two lines, or at the current end of the stream.
    Line,
    /// Between two parts of an over-long line.
    Part,
    /// Inside an over-long part.
    InPart,
    /// Inside an over-long line that is not cut into parts.
    InLine,
    /// Before a page of a document, or where a page may begin.
    Page(Within),
}

/// One line without its newline, a part of a line, or a piece of a line or part that is too long to
/// be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'b> {
    /// Offset in the block.
    pub at: usize,
    /// Number of the line in the stream, from 1.
    pub number: i64,
    pub bytes: &'b [u8],
    pub kind: LineKind,
    /// Where in `bytes` the event is, if the line is a page of a document.
    pub event: Option<(usize, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// A whole line, or a whole part of a line.
    Whole,
    /// A line or a part without a newline after it, at the end of a stream that may grow.
    Open,
    /// The beginning of a page of a document, at the end of a stream that may grow. Its event may
    /// be whole, but the text that must follow the event is not there yet.
    OpenPage,
    /// The first piece, as long as the bound, of a line longer than the bound.
    FirstPiece,
    /// Another piece of a line or part longer than the bound.
    Piece,
    /// A page of an array whose first element does not belong to a log. Such a page is never an
    /// event.
    Foreign,
}

/// The beginning of a document of Firehose.
const DOCUMENT: &[u8] = b"{\"messageType\"";
/// The text between two documents.
const BOUNDARY: &[u8] = b"}{\"messageType\"";
/// A block must be longer than the bound of a line by at least this many bytes. Then every block
/// inside an over-long line contains a cut, or lies inside a long part.
pub const BOUNDARY_BYTES: usize = BOUNDARY.len();
/// A line of documents that is longer than this is cut, even if it is shorter than the bound: the
/// file that has it may grow for hours without a newline.
const DOCUMENTS_BYTES_MAX: usize = 4 << 20;
/// Several documents whose total length is below this are not cut apart.
pub const PART_BYTES: usize = 16 << 10;

/// Returns the lines of `block`. A line longer than `line_bytes_max` is returned in parts, or in
/// pieces of at most `line_bytes_max` bytes.
pub fn lines(block: &Block, line_bytes_max: usize) -> impl Iterator<Item = Line<'_>> {
    let bytes = block.bytes.as_slice();
    let cuts = Cuts::new(line_bytes_max);
    let (mut at, mut number) = (0, block.first_line);
    // End of the over-long line that is being handed out, and whether it is cut into parts.
    let mut long = match block.begins {
        Edge::Line | Edge::Page(_) => None,
        Edge::Part | Edge::InPart => Some((line_end(bytes, 0), true)),
        Edge::InLine => Some((line_end(bytes, 0), false)),
    };
    let (mut pieces_until, mut first_piece) = (0, None);
    let mut within = match block.begins {
        Edge::Page(within) => Some(within),
        _ => None,
    };
    // Parts that begin before this position are not joined, because the last part of their line is
    // missing.
    let mut apart_until = 0;
    let mut is_open = is_open_array(block);
    std::iter::from_fn(move || {
        if std::mem::take(&mut is_open) {
            within = None;
            return Some(open_page(bytes, &mut at, number));
        }
        loop {
            if let Some(here) = within {
                let mut page = pages::page(&bytes[at..], here, line_bytes_max);
                if page == Page::Open && !block.open_ended {
                    page = pages::last_page(&bytes[at..], here, line_bytes_max);
                }
                match page {
                    Page::Whole { length, event, then } => {
                        within = Some(then);
                        let page = &bytes[at..at + length];
                        let kind = match here {
                            Within::Foreign => LineKind::Foreign,
                            _ => LineKind::Whole,
                        };
                        let line = Line { at, number, bytes: page, kind, event: Some(event) };
                        at += length;
                        number += newlines(page);
                        return Some(line);
                    }
                    Page::Open if block.open_ended => {
                        within = None;
                        return Some(open_page(bytes, &mut at, number));
                    }
                    Page::Blank | Page::Open | Page::Broken => within = None,
                }
            }
            if at < pieces_until {
                let piece = &bytes[at..pieces_until.min(at + line_bytes_max)];
                let is_first = first_piece == Some(at) && piece.len() == line_bytes_max;
                let kind = if is_first { LineKind::FirstPiece } else { LineKind::Piece };
                let line = Line { at, number, bytes: piece, kind, event: None };
                at += piece.len();
                return Some(line);
            }
            if let Some((end, in_parts)) = long {
                if at >= end {
                    long = None;
                    at = end + 1;
                    number += 1;
                    continue;
                }
                let is_continued = at == 0 && block.begins == Edge::InPart;
                let part_end = match (in_parts, is_continued) {
                    (true, true) => cuts.first(&bytes[..end], 0).unwrap_or(end),
                    (true, false) => cuts.part_end(&bytes[..end], at),
                    (false, _) => end,
                };
                let last = part_end == bytes.len();
                if !in_parts
                    || is_continued
                    || part_end - at > line_bytes_max
                    || (last && matches!(block.ends, Edge::InPart | Edge::InLine))
                {
                    pieces_until = part_end;
                    continue;
                }
                let kind = kind(block, last);
                let part = Line { at, number, bytes: &bytes[at..part_end], kind, event: None };
                at = part_end;
                return Some(part);
            }
            if at >= bytes.len() {
                return None;
            }
            let end = line_end(bytes, at);
            let last = end == bytes.len();
            if is_long(&bytes[at..end], line_bytes_max) || (last && block.ends != Edge::Line) {
                long = Some((end, begins_document(&bytes[at..])));
                first_piece = Some(at);
                continue;
            }
            let line = &bytes[at..end];
            let (start, of) = (at, number);
            if at >= apart_until && wrapper::is_part(line) {
                match parts(&bytes[at..], line_bytes_max) {
                    Parts::Joined(length) => {
                        let (joined, last) = (&bytes[at..at + length], at + length == bytes.len());
                        at += length + 1;
                        number += newlines(joined) + 1;
                        let kind = kind(block, last);
                        return Some(Line { at: start, number: of, bytes: joined, kind, event: None });
                    }
                    Parts::Open if block.open_ended => {
                        let rest = &bytes[at..];
                        at = bytes.len();
                        return Some(Line {
                            at: start,
                            number: of,
                            bytes: rest,
                            kind: LineKind::Open,
                            event: None,
                        });
                    }
                    Parts::Open => apart_until = bytes.len(),
                    Parts::Apart(length) => apart_until = at + length,
                }
            }
            at = end + 1;
            number += 1;
            if line.is_empty() {
                // An empty line becomes no row. An export restores it, because it fills the gap
                // between two records with newlines.
                continue;
            }
            return Some(Line { at: start, number: of, bytes: line, kind: kind(block, last), event: None });
        }
    })
}

/// Takes the rest of `bytes` as an open page.
fn open_page<'b>(bytes: &'b [u8], at: &mut usize, number: i64) -> Line<'b> {
    let line = Line { at: *at, number, bytes: &bytes[*at..], kind: LineKind::OpenPage, event: None };
    *at = bytes.len();
    line
}

/// Whether the block is the whole of a stream that may grow, and the first line of the stream
/// begins an array. The first line identifies the stream, so nothing of that line can be taken
/// before it is whole.
fn is_open_array(block: &Block) -> bool {
    let text = block.bytes.trim_ascii_end();
    let text = text.strip_prefix(BOM).unwrap_or(text);
    block.open_ended
        && block.offset == 0
        && text.starts_with(b"[")
        && !text.ends_with(b"]")
        && memchr::memchr(b'\n', &block.bytes).is_none()
}

fn kind(block: &Block, last: bool) -> LineKind {
    if last && block.open_ended { LineKind::Open } else { LineKind::Whole }
}

/// Returns the page that `bytes` are, if the bytes `next` follow them. The end of a page is known
/// only when the first byte of the next page is known.
fn page_before(bytes: &[u8], next: &[u8], within: Within, line_bytes_max: usize) -> Page {
    match pages::page(&[bytes, next].concat(), within, line_bytes_max) {
        Page::Whole { length, .. } if length != bytes.len() => Page::Open,
        page => page,
    }
}

fn newlines(bytes: &[u8]) -> i64 {
    i64::try_from(memchr::memchr_iter(b'\n', bytes).count()).unwrap_or(i64::MAX)
}

/// Where the parts of a line end, as a length from the beginning of the first part.
enum Parts {
    /// All parts are here, and have this length without the newline after the last part.
    Joined(usize),
    /// The last part may still come.
    Open,
    /// There is no last part in this many bytes.
    Apart(usize),
}

/// Finds the end of the line whose first part is at the beginning of `bytes`.
fn parts(bytes: &[u8], line_bytes_max: usize) -> Parts {
    let first_end = line_end(bytes, 0);
    let first = &bytes[..first_end];
    let mut at = first_end + 1;
    while at < bytes.len() {
        let end = line_end(bytes, at);
        if end > line_bytes_max {
            return Parts::Apart(end);
        }
        match wrapper::follows(first, &bytes[at..end]) {
            Follows::Continues => at = end + 1,
            Follows::Ends => return Parts::Joined(end),
            // The end of this line may not have been written yet.
            Follows::Breaks if end == bytes.len() => return Parts::Open,
            Follows::Breaks => return Parts::Apart(at),
        }
    }
    if bytes.len() > line_bytes_max { Parts::Apart(bytes.len()) } else { Parts::Open }
}

/// Returns where the first part of a line begins, if `bytes` contain some parts of that line, but
/// not the last one. A block that ended after `bytes` would separate the parts. `bytes` are whole
/// lines.
pub fn open_parts(bytes: &[u8], line_bytes_max: usize) -> Option<usize> {
    let text = bytes.strip_suffix(b"\n")?;
    let last = memchr::memrchr(b'\n', text).map_or(0, |newline| newline + 1);
    // The last line must be a part, or a line of the other output stream between two parts.
    if !wrapper::is_between_parts(&text[last..]) {
        return None;
    }
    let floor = bytes.len().saturating_sub(line_bytes_max);
    let (mut begins, mut end) = (None, text.len());
    loop {
        let start = memchr::memrchr(b'\n', &text[..end]).map_or(0, |newline| newline + 1);
        if start < floor {
            return None;
        }
        let line = &text[start..end];
        if wrapper::is_part(line) {
            begins = Some(start);
        } else if !wrapper::is_between_parts(line) {
            return begins;
        }
        if start == 0 {
            return begins;
        }
        end = start - 1;
    }
}

/// Returns the end of the last complete page of `bytes`, and what follows it; `None` if `bytes`
/// begin with a line.
pub fn last_page(bytes: &[u8], within: Within, line_bytes_max: usize) -> Option<(usize, LastPage)> {
    let (mut at, mut within) = (0, within);
    loop {
        match pages::page(&bytes[at..], within, line_bytes_max) {
            Page::Whole { length, then, .. } => (at, within) = (at + length, then),
            Page::Blank | Page::Open => return Some((at, LastPage::MoreMayCome)),
            Page::Broken if at == 0 => return None,
            Page::Broken => return Some((at, LastPage::LinesFollow)),
        }
    }
}

/// What follows the last page of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastPage {
    /// The beginning of a page, or nothing.
    MoreMayCome,
    /// Text that is not a page: lines.
    LinesFollow,
}

/// For a block that has no newline and is not the last of its stream, returns where it ends, and at
/// which edge. It ends at its last cut. If the whole block lies inside one part, it ends before the
/// bytes that may become a boundary. A line that is not cut into parts is not searched, and the
/// block keeps all its bytes.
pub fn last_cut(bytes: &[u8], begins: Edge, line_bytes_max: usize) -> (usize, Edge) {
    let cuts = Cuts::new(line_bytes_max);
    let mut at = match begins {
        Edge::Line | Edge::Page(_) if !begins_document(bytes) => return (bytes.len(), Edge::InLine),
        Edge::InLine => return (bytes.len(), Edge::InLine),
        Edge::InPart => cuts.first(bytes, 0).unwrap_or(0),
        Edge::Line | Edge::Part | Edge::Page(_) => 0,
    };
    if at > 0 || begins != Edge::InPart {
        while let Some(next) = cuts.next(bytes, at) {
            at = next;
        }
    }
    if at > 0 {
        return (at, Edge::Part);
    }
    let begun = (2..BOUNDARY.len()).rev().find(|length| bytes.ends_with(&BOUNDARY[..*length]));
    (bytes.len() - begun.map_or(0, |length| length - 1), Edge::InPart)
}

/// What a stream must remember of its current line, so that the next block can continue the line.
#[derive(Clone, Debug, Default)]
pub struct LineSoFar {
    head: Vec<u8>,
    bytes: usize,
    last: u8,
    pages: PagesSoFar,
}

/// What a stream must remember of the documents at its beginning, if there are any.
#[derive(Clone, Debug)]
enum PagesSoFar {
    /// The stream consists of lines from here on.
    Lines,
    /// `begun` is the beginning of a page. The end of the page is looked for again when `begun` has
    /// `look_at` bytes, so that the work is linear.
    Pages { within: Within, begun: Vec<u8>, look_at: usize },
}

/// Bytes of a page that are gathered before its end is looked for.
const PAGE_LOOK_BYTES: usize = 64 << 10;
/// Maximum number of bytes that are gathered between two searches for the end of a page.
const PAGE_LOOK_BYTES_MAX: usize = 16 << 20;

impl Default for PagesSoFar {
    fn default() -> Self {
        PagesSoFar::Pages { within: Within::Nothing, begun: Vec::new(), look_at: 1 }
    }
}

impl PagesSoFar {
    /// Passes over the whole pages at the beginning of `begun`. Returns where in a document the
    /// text after them is, and its position. `None` if `begun` contains text that is not a page.
    fn taken(mut within: Within, begun: &[u8], line_bytes_max: usize) -> Option<(Within, usize)> {
        let mut at = 0;
        loop {
            match pages::page(&begun[at..], within, line_bytes_max) {
                Page::Whole { length, then, .. } => (at, within) = (at + length, then),
                Page::Blank | Page::Open => return Some((within, at)),
                Page::Broken => return None,
            }
        }
    }

    fn advance(&mut self, bytes: &[u8], line_bytes_max: usize) {
        let PagesSoFar::Pages { within, begun, look_at } = self else { return };
        // A line of one event, with which most streams begin, needs no copy.
        if begun.is_empty() && *within == Within::Nothing && pages::begins(bytes) == Some(false) {
            *self = PagesSoFar::Lines;
            return;
        }
        // Most blocks begin with a page. Whole pages are passed over in place, so most bytes of a
        // block are not copied.
        let mut rest = bytes;
        if begun.is_empty() {
            let Some((then, taken)) = PagesSoFar::taken(*within, bytes, line_bytes_max) else {
                *self = PagesSoFar::Lines;
                return;
            };
            (*within, rest) = (then, &bytes[taken..]);
        }
        begun.extend_from_slice(rest);
        if begun.len() < *look_at {
            return;
        }
        match PagesSoFar::taken(*within, begun, line_bytes_max) {
            Some((then, taken)) => {
                *within = then;
                begun.drain(..taken);
                *look_at = (2 * begun.len()).min(begun.len() + PAGE_LOOK_BYTES_MAX).max(PAGE_LOOK_BYTES);
            }
            None => *self = PagesSoFar::Lines,
        }
    }

    /// Returns where in a document the bytes `next` begin, if they follow the bytes seen so far.
    /// `None` if they begin with a line.
    fn edge(&self, next: &[u8], line_bytes_max: usize) -> Option<Within> {
        let PagesSoFar::Pages { within, begun, .. } = self else { return None };
        let (mut within, mut taken) = PagesSoFar::taken(*within, begun, line_bytes_max)?;
        if taken < begun.len() {
            let first = &next[..next.len().min(1)];
            if let Page::Whole { then, .. } = page_before(&begun[taken..], first, within, line_bytes_max) {
                (taken, within) = (begun.len(), then);
            }
        }
        let is_between = matches!(within, Within::Nothing | Within::After);
        let blank = is_between && pages::between(&begun[taken..], within) == begun.len() - taken;
        let begins = !is_between || pages::begins_within(next, within) != Some(false);
        ((taken == begun.len() || blank) && begins).then_some(within)
    }
}

impl LineSoFar {
    /// Records the next bytes of the stream.
    pub fn advance(&mut self, bytes: &[u8], line_bytes_max: usize) {
        self.pages.advance(bytes, line_bytes_max);
        let rest = match memchr::memrchr(b'\n', bytes) {
            Some(newline) => {
                self.head.clear();
                self.bytes = 0;
                &bytes[newline + 1..]
            }
            None => bytes,
        };
        let missing = (BOM.len() + DOCUMENT.len()).saturating_sub(self.head.len());
        self.head.extend_from_slice(&rest[..missing.min(rest.len())]);
        self.bytes = self.bytes.saturating_add(rest.len());
        self.last = rest.last().copied().unwrap_or(self.last);
    }

    /// Returns the edge at which the block with the bytes `next` begins. A block ends inside a line
    /// only if the line is over-long. A shorter line without a newline was the last line of a
    /// stream that was declared complete; text that was added after it is read as a new line.
    pub fn edge(&self, next: &[u8], line_bytes_max: usize) -> Edge {
        if let Some(within) = self.pages.edge(next, line_bytes_max) {
            return Edge::Page(within);
        }
        let in_parts = begins_document(&self.head);
        if self.bytes > 0 && in_parts && self.last == b'}' && next.starts_with(DOCUMENT) {
            Edge::Part
        } else if self.bytes <= line_bytes_max {
            Edge::Line
        } else if in_parts {
            Edge::InPart
        } else {
            Edge::InLine
        }
    }
}

/// Whether a line is handed out in parts or in pieces.
pub fn is_long(line: &[u8], line_bytes_max: usize) -> bool {
    line.len() > line_bytes_max || (line.len() > DOCUMENTS_BYTES_MAX && begins_document(line))
}

fn begins_document(line: &[u8]) -> bool {
    line.strip_prefix(BOM).unwrap_or(line).starts_with(DOCUMENT)
}

/// Finds where over-long lines are cut into parts.
struct Cuts {
    boundary: memmem::Finder<'static>,
    boundary_back: memmem::FinderRev<'static>,
    part_bytes: usize,
}

impl Cuts {
    fn new(line_bytes_max: usize) -> Cuts {
        Cuts {
            boundary: memmem::Finder::new(BOUNDARY),
            boundary_back: memmem::FinderRev::new(BOUNDARY),
            part_bytes: PART_BYTES.min(line_bytes_max),
        }
    }

    /// Returns the first cut after `from`, which is between the braces of a boundary.
    fn first(&self, line: &[u8], from: usize) -> Option<usize> {
        self.boundary.find(&line[from..]).map(|brace| from + brace + 1)
    }

    /// Returns the end of the part that begins at `at`, in a line that may still grow. `None` if
    /// the end depends on the bytes to come.
    fn next(&self, line: &[u8], at: usize) -> Option<usize> {
        // The search must reach a boundary that comes right after the longest possible part.
        let near = at.saturating_add(self.part_bytes + DOCUMENT.len());
        let head = line.get(at..near)?;
        match self.boundary_back.rfind(head) {
            Some(brace) => Some(at + brace + 1),
            None => self.first(line, near - DOCUMENT.len()),
        }
    }

    /// Returns the end of the part that begins at `at`, in a line that is complete.
    fn part_end(&self, line: &[u8], at: usize) -> usize {
        if line.len() - at <= self.part_bytes {
            return line.len();
        }
        let near = line.len().min(at + self.part_bytes + DOCUMENT.len());
        match self.boundary_back.rfind(&line[at..near]) {
            Some(brace) => at + brace + 1,
            None => self.first(line, near.saturating_sub(DOCUMENT.len()).max(at)).unwrap_or(line.len()),
        }
    }
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(bytes: &[u8]) -> Block {
        Block {
            origin: Arc::new(Origin { partition: "p".into(), cluster: "c".into(), reading: Arc::default() }),
            offset: 0,
            first_line: 1,
            bytes: bytes.to_vec(),
            begins: Edge::Line,
            ends: Edge::Line,
            open_ended: false,
        }
    }

    #[test]
    fn long_lines_come_in_pieces_and_keep_their_number() {
        let block = block(b"ab\nabcdefg\n\nxy");
        let found: Vec<_> = lines(&block, 3).map(|l| (l.at, l.number, l.bytes, l.kind)).collect();
        assert_eq!(
            found,
            [
                (0, 1, &b"ab"[..], LineKind::Whole),
                (3, 2, b"abc", LineKind::FirstPiece),
                (6, 2, b"def", LineKind::Piece),
                (9, 2, b"g", LineKind::Piece),
                (12, 4, b"xy", LineKind::Whole),
            ]
        );
    }

    #[test]
    fn a_line_over_several_blocks_is_all_pieces() {
        let first = Block { ends: Edge::InLine, ..block(b"ok\nlong") };
        let second = Block { begins: Edge::InLine, first_line: 2, offset: 7, ..block(b"er\nok") };
        let kinds =
            |b: &Block| lines(b, 100).map(|l| (l.number, l.bytes.to_vec(), l.kind)).collect::<Vec<_>>();
        assert_eq!(
            kinds(&first),
            [(1, b"ok".to_vec(), LineKind::Whole), (2, b"long".to_vec(), LineKind::Piece)]
        );
        assert_eq!(
            kinds(&second),
            [(2, b"er".to_vec(), LineKind::Piece), (3, b"ok".to_vec(), LineKind::Whole)]
        );
    }

    /// Returns a document of `length` bytes that contains no boundary.
    fn document(length: usize) -> Vec<u8> {
        let mut document = br#"{"messageType":""#.to_vec();
        document.resize(length - 2, b'}');
        document.extend_from_slice(b"\"}");
        document
    }

    #[test]
    fn an_over_long_line_of_documents_is_cut_where_one_follows_another() {
        let parts = |bytes: &[u8], max| {
            lines(&block(bytes), max).map(|l| (l.at, l.number, l.bytes.len(), l.kind)).collect::<Vec<_>>()
        };
        let whole = |at, number, length| (at, number, length, LineKind::Whole);
        // As many documents as the bound allows stay together.
        let three = [document(30), document(30), document(90)].concat();
        assert_eq!(parts(&three, 150), [whole(0, 1, 150)]);
        assert_eq!(parts(&three, 149), [whole(0, 1, 60), whole(60, 1, 90)]);
        assert_eq!(parts(&three, 90), [whole(0, 1, 60), whole(60, 1, 90)]);
        assert_eq!(
            parts(&three, 89),
            [whole(0, 1, 60), (60, 1, 89, LineKind::Piece), (149, 1, 1, LineKind::Piece)]
        );
        let mut log = b"ok\n".to_vec();
        log.extend_from_slice(&three);
        log.extend_from_slice(b"\nok\n");
        assert_eq!(parts(&log, 100), [whole(0, 1, 2), whole(3, 2, 60), whole(63, 2, 90), whole(154, 3, 2)]);
        // A line that does not begin with a document is not searched, because a client may have
        // written its text.
        let text = [&b"text {"[..], &three].concat();
        let is_piece = |kind| matches!(kind, LineKind::FirstPiece | LineKind::Piece);
        assert!(parts(&text, 100).iter().all(|(_, _, _, kind)| is_piece(*kind)));
        // If the writer stopped inside a document, no boundary shows where the next document
        // begins.
        let torn = [&document(60)[..59], &document(60)].concat();
        assert!(parts(&torn, 100).iter().all(|(_, _, _, kind)| is_piece(*kind)));
        // Many tiny documents become few parts.
        let tiny = document(18).repeat(100_000);
        let found = parts(&tiny, tiny.len() - 1);
        assert!(found.len() <= 1 + tiny.len() / (PART_BYTES - 18), "{}", found.len());
        assert!(found.iter().all(|(_, _, length, _)| *length <= PART_BYTES));
    }

    #[test]
    fn no_json_text_holds_a_boundary() {
        let hostile = String::from_utf8(BOUNDARY.to_vec()).expect("ASCII");
        let value = serde_json::json!({ "a": hostile, hostile.clone(): [hostile, { "messageType": {} }] });
        for text in [value.to_string(), serde_json::to_string(&value.to_string()).expect("a string")] {
            assert_eq!(memmem::find(text.as_bytes(), BOUNDARY), None, "{text}");
        }
    }

    proptest! {
        /// However a stream is split into blocks, [`LineSoFar`] says how to continue, and the parts
        /// are those of the whole line.
        #[test]
        fn parts_do_not_depend_on_blocks(
            texts in proptest::collection::vec(
                prop_oneof![
                    6 => (18_usize..70).prop_map(document),
                    4 => Just(BOUNDARY.to_vec()),
                    2 => Just(DOCUMENT.to_vec()),
                    1 => (1..BOUNDARY.len()).prop_map(|length| BOUNDARY[..length].to_vec()),
                    1 => (1_usize..120).prop_map(|length| vec![b'x'; length]),
                    1 => Just(b"\n".to_vec()),
                ],
                1..40,
            ),
            head in 0_usize..4, room in 0_usize..60,
        ) {
            const MAX: usize = 50;
            let mut bytes = [&b""[..], b"ok\n", b"x", DOCUMENT][head].to_vec();
            texts.iter().for_each(|text| bytes.extend(text));
            bytes.extend_from_slice(b"\nok");
            let found_in = |block: &Block| {
                lines(block, MAX)
                    .map(|l| (block.offset as usize + l.at, l.number, l.bytes.len(), l.kind))
                    .collect::<Vec<_>>()
            };
            // Consecutive pieces may be cut at any place, so they are joined before they are
            // compared.
            let join = |found: Vec<(usize, i64, usize, LineKind)>| {
                let mut joined: Vec<(usize, i64, usize, LineKind)> = Vec::new();
                for line in found {
                    match joined.last_mut() {
                        Some(last) if last.3 == LineKind::Piece && line.3 == LineKind::Piece
                            && last.0 + last.2 == line.0 => last.2 += line.2,
                        _ => joined.push(line),
                    }
                }
                joined
            };
            let size = MAX + BOUNDARY_BYTES + room;
            let (mut at, mut so_far, mut found, mut number) = (0, LineSoFar::default(), Vec::new(), 1);
            while at < bytes.len() {
                let next = &bytes[at..bytes.len().min(at + size)];
                let begins = so_far.edge(next, MAX);
                let (end, ends) = match memchr::memrchr(b'\n', next) {
                    _ if at + next.len() == bytes.len() => (next.len(), Edge::Line),
                    Some(newline) => (newline + 1, Edge::Line),
                    None => last_cut(next, begins, MAX),
                };
                let block = Block { begins, ends, offset: at as i64, first_line: number, ..block(&next[..end]) };
                found.extend(found_in(&block));
                so_far.advance(&block.bytes, MAX);
                number += block.bytes.iter().filter(|byte| **byte == b'\n').count() as i64;
                at += end;
            }
            prop_assert_eq!(join(found), join(found_in(&block(&bytes))));
        }

        #[test]
        fn lines_and_newlines_are_all_the_bytes(
            bytes in proptest::collection::vec(prop_oneof![3 => Just(b'\n'), 5 => any::<u8>()], 0..200),
            max in 1_usize..20,
        ) {
            let block = block(&bytes);
            let mut rebuilt = vec![b'\n'; bytes.len()];
            let mut end = 0;
            for line in lines(&block, max) {
                prop_assert!(line.at >= end && line.bytes.len() <= max && !line.bytes.contains(&b'\n'));
                prop_assert_eq!(line.number as usize, 1 + bytes[..line.at].iter().filter(|b| **b == b'\n').count());
                end = line.at + line.bytes.len();
                rebuilt[line.at..end].copy_from_slice(line.bytes);
            }
            prop_assert_eq!(rebuilt, bytes);
        }
    }
}
