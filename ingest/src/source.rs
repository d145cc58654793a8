//! Reads files, directories, patterns and standard input as streams of blocks.
//!
//! Invariants:
//! - A stream's partition is named after its content (its cluster and its first lines, see
//!   [`place`]), not after its path. Rotation, copying and compression do not change the name.
//!   Before anything is skipped as stored, all of it is read again, and its hash is compared with
//!   the one in the archive. If the hashes are equal, it is the same stream, which may have grown.
//!   Otherwise it is another stream that begins alike, and has its own partition. Names, sizes and
//!   times never decide that text is a duplicate.
//! - Blocks of a stream are handed out in order, without gaps, with the hash of all bytes before
//!   their end, so that a position can be written after any of them.
//!
//! A pipe (standard input, a FIFO) may be live: whole records of it are handed out after
//! [`LIVE_WAIT`] at the latest. A pipe cannot be read twice, so it is refused if a second reading
//! is needed.
//!
//! Compression is recognised by content: gzip (any number of members), zstd (any number of frames).
//! Input that is packed or encoded in any other way is refused as a whole, with advice on what to
//! do. Nothing is kept here; after a crash an input is read again.

mod error;
mod formats;
mod look;
mod names;
mod pipe;
pub mod place;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strongroom_archive::fingerprint::{Fingerprint, fingerprint};
use strongroom_lines::frame::{self, Block, Edge, LineSoFar, Origin};

pub use self::error::{CompareError, FileError};
pub use self::formats::Format;
pub use self::names::{Expanded, FoundFiles, NoFile, expand, find};
use self::pipe::Pipe;
pub use crate::passed_over::{PassedOver, Why};

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Stdin,
    File(PathBuf),
}

impl Input {
    /// Returns the name for people.
    pub fn label(&self) -> String {
        match self {
            Input::Stdin => "standard input".to_owned(),
            Input::File(path) => path.display().to_string(),
        }
    }

    /// Returns the size on disk, in bytes; `None` for an input without a size.
    pub fn size(&self) -> Option<u64> {
        match self {
            Input::Stdin => None,
            Input::File(path) => std::fs::metadata(path).ok().map(|metadata| metadata.len()),
        }
    }

    /// Whether the input can be read only once: standard input, a FIFO, a device.
    fn is_pipe(&self) -> bool {
        match self {
            Input::Stdin => true,
            Input::File(path) => std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()),
        }
    }
}

/// Counts the bytes that pass through, to report progress.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// The longest time that whole lines of a pipe wait for more lines.
pub const LIVE_WAIT: Duration = Duration::from_secs(1);
/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

const READ_BUFFER_BYTES: usize = 256 << 10;
/// Number of bytes read between two checks of the bounds of a block: less than a core's cache has.
const READ_STEP_BYTES: usize = 256 << 10;

/// An input, decompressed.
struct Opened {
    reader: Box<dyn Read + Send>,
    packing: Packing,
    is_pipe: bool,
}

fn open(input: &Input, count: &Arc<AtomicU64>, stop: &Arc<AtomicBool>) -> Result<Opened, FileError> {
    let cannot = |source| FileError::Read { label: input.label(), offset: 0, source };
    let file =
        |path: &PathBuf| File::open(path).map_err(|source| FileError::Open { path: path.clone(), source });
    let mut live = None;
    let mut piped = |pipe: io::Result<Pipe>| -> Result<Box<dyn Read + Send>, FileError> {
        let pipe = pipe.map_err(cannot)?;
        live = Some(Arc::clone(&pipe.live));
        Ok(Box::new(pipe))
    };
    let raw: Box<dyn Read + Send> = match input {
        Input::Stdin => piped(Pipe::new(io::stdin(), stop))?,
        Input::File(path) if input.is_pipe() => piped(Pipe::new(file(path)?, stop))?,
        Input::File(path) => Box::new(file(path)?),
    };
    let mut raw = Counted { inner: raw, count: Arc::clone(count) };
    let mut magic = Vec::with_capacity(4);
    raw.by_ref().take(4).read_to_end(&mut magic).map_err(cannot)?;
    let packing = match magic[..] {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
        // A frame without content, which `pzstd` writes before each frame.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Packing::Zstd,
        _ => Packing::Plain,
    };
    let whole = io::Cursor::new(magic).chain(raw);
    let is_pipe = live.is_some();
    let reader: Box<dyn Read + Send> = match packing {
        Packing::Plain => {
            if let Some(live) = live {
                live.store(true, Ordering::Relaxed);
            }
            Box::new(whole)
        }
        Packing::Gzip => {
            let buffered = BufReader::with_capacity(READ_BUFFER_BYTES, whole);
            Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
        }
        Packing::Zstd => {
            let buffered = BufReader::with_capacity(READ_BUFFER_BYTES, whole);
            Box::new(zstd::Decoder::with_buffer(buffered).map_err(cannot)?)
        }
    };
    Ok(Opened { reader, packing, is_pipe })
}

/// Maximum number of bytes of a first line that name a stream. Names are stored, so this never
/// changes.
const IDENTITY_BYTES_MAX: usize = 4 << 20;

/// Bounds of a block (its size and its number of lines) and of a line.
#[derive(Clone, Copy, Debug)]
pub struct BlockBounds {
    /// Size of a block, unless one line is longer. A block with such a line has that line and few
    /// bytes after it, so that long lines do not make all blocks large.
    pub bytes_max: usize,
    pub lines_max: usize,
    pub line_bytes_max: usize,
}

/// A block, and the fingerprints for a position after it.
pub struct StreamBlock {
    pub block: Block,
    /// Hash of the stream up to the block's end.
    pub prefix: Fingerprint,
    /// If the block's last line, or last part of a line, may be left undecoded: where it begins,
    /// and the hash of the stream up to there.
    pub before_open_line: Option<(i64, Fingerprint)>,
}

/// A stream of one input, read in blocks.
pub struct Stream {
    input: Input,
    reader: Box<dyn Read + Send>,
    is_pipe: bool,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    bounds: BlockBounds,
    /// A block ends at this offset, whatever bytes are there.
    cut_at: Option<i64>,
    /// Bytes read and not handed out yet.
    carry: Vec<u8>,
    at_end: bool,
    /// Why reading stopped, until it is reported.
    failed: Option<io::Error>,
    offset: i64,
    line: i64,
    line_so_far: LineSoFar,
    hasher: blake3::Hasher,
    /// Whether the input no longer grows, so that a last line without a newline is final.
    is_final: bool,
    /// Whether text may be added at the end, so that an unfinished line stays in the stream.
    follows: bool,
    packing: Packing,
}

/// Where [`Stream::skip_to`] stopped, with the hash of everything before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// At the wanted offset.
    To(Fingerprint),
    /// At the end of the stream, which is at this offset, before the wanted offset.
    Short(i64, Fingerprint),
}

impl Stream {
    /// Opens `input`. `complete` promises that a file no longer grows. Bytes read are added to
    /// `count`. Once `stop` is set, reading does not wait for a pipe.
    pub fn open(
        input: Input,
        bounds: BlockBounds,
        complete: bool,
        count: Arc<AtomicU64>,
        stop: Arc<AtomicBool>,
    ) -> Result<Stream, FileError> {
        let Opened { reader, packing, is_pipe } = open(&input, &count, &stop)?;
        // A compressed file is written once, and a pipe that has ended does not grow.
        let is_final = complete || packing != Packing::Plain || is_pipe;
        Ok(Stream {
            input,
            reader,
            is_pipe,
            count,
            stop,
            bounds,
            cut_at: None,
            carry: Vec::new(),
            at_end: false,
            failed: None,
            offset: 0,
            line: 1,
            line_so_far: LineSoFar::default(),
            hasher: blake3::Hasher::new(),
            is_final,
            follows: false,
            packing,
        })
    }

    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Whether the input can be read only once, and reading it may have to wait.
    pub fn is_pipe(&self) -> bool {
        self.is_pipe
    }

    /// Returns the first name of the stream's partition, which is made from the cluster and the first
    /// line. `None` for an empty stream.
    ///
    /// # Errors
    /// [`FileError::Format`] if the stream is not text, and errors of reading it.
    pub fn identity(&mut self, cluster: &str) -> Result<Option<String>, FileError> {
        let room = self.bounds.bytes_max.max(self.identity_bytes_max() + 1);
        while !self.at_end
            && self.carry.len() <= self.identity_bytes_max()
            && memchr::memchr(b'\n', &self.carry).is_none()
        {
            if let Err(error) = self.fill_carry(READ_BUFFER_BYTES.min(room - self.carry.len())) {
                // The whole lines before the error are good, and are handed out first.
                match error {
                    FileError::Read { source, .. } if memchr::memchr(b'\n', &self.carry).is_some() => {
                        self.failed = Some(source);
                        break;
                    }
                    error => return Err(error),
                }
            }
        }
        if self.carry.is_empty() {
            return Ok(None);
        }
        if let Some(format) = formats::of(&self.carry) {
            return Err(FileError::Format { label: self.input.label(), format });
        }
        let line =
            memchr::memchr(b'\n', &self.carry).unwrap_or(self.carry.len()).min(self.identity_bytes_max());
        // All text of the line may be here while its end, perhaps `\r\n`, is still to come. So
        // white space at the end does not count.
        Ok(Some(partition_of(cluster, &[self.carry[..line].trim_ascii_end()])))
    }

    fn identity_bytes_max(&self) -> usize {
        IDENTITY_BYTES_MAX.min(self.bounds.line_bytes_max)
    }

    fn fill_carry(&mut self, bytes: usize) -> Result<(), FileError> {
        let before = self.carry.len();
        loop {
            match self.reader.by_ref().take(bytes as u64).read_to_end(&mut self.carry) {
                Ok(_) => self.at_end = self.carry.len() == before,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.carry.len() == before {
                        continue;
                    }
                }
                Err(source) => {
                    let (label, offset) = (self.input.label(), self.offset + self.carry.len() as i64);
                    return Err(FileError::Read { label, offset, source });
                }
            }
            return Ok(());
        }
    }

    /// Opens the same input once more, at its first byte. Fails for a pipe.
    pub fn again(&self) -> Result<Stream, FileError> {
        if self.is_pipe {
            return Err(FileError::PipeDiffers { label: self.input.label() });
        }
        let (count, stop) = (Arc::clone(&self.count), Arc::clone(&self.stop));
        Stream::open(self.input.clone(), self.bounds, self.is_final, count, stop)
    }

    /// Declares that text may be added at the end. From now on blocks are whole lines, an
    /// unfinished line is kept, and [`Stream::next_block`] returns `None` until there is more text.
    pub fn follow(&mut self) {
        self.follows = true;
    }

    /// Hands out the unfinished line, as a line, with the next block.
    pub fn give_up_line(&mut self) {
        self.follows = false;
        self.is_final = true;
    }

    /// Whether the input is compressed, and so is never appended to.
    pub fn is_packed(&self) -> bool {
        self.packing != Packing::Plain
    }

    /// Whether the end of the first line was not seen yet. Valid after [`Stream::identity`].
    pub fn is_first_line_open(&self) -> bool {
        self.carry.len() <= self.identity_bytes_max() && memchr::memchr(b'\n', &self.carry).is_none()
    }

    /// Offset in the stream of the next byte that is handed out.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Returns the number of bytes that were read and not handed out, because they are an
    /// unfinished line.
    pub fn unfinished(&self) -> usize {
        self.carry.len()
    }

    /// Makes a block end at `offset`, just as if the stream ended there, because an earlier run
    /// ended a block there.
    pub fn cut_at(&mut self, offset: i64) {
        self.cut_at = Some(offset);
    }

    /// Reads up to `offset`, or to the end if that comes first; returns the hash of what was read.
    pub fn skip_to(&mut self, offset: i64) -> Result<Skipped, FileError> {
        while self.offset < offset {
            if self.stop.load(Ordering::Relaxed) && !self.is_pipe {
                let source = io::Error::new(io::ErrorKind::Interrupted, "stopped");
                return Err(FileError::Read { label: self.input.label(), offset: self.offset, source });
            }
            if self.carry.is_empty() {
                self.fill_carry(READ_BUFFER_BYTES * 4)?;
                if self.carry.is_empty() {
                    return Ok(Skipped::Short(self.offset, fingerprint(&self.hasher)));
                }
            }
            let some = self.carry.len().min(usize::try_from(offset - self.offset).unwrap_or(usize::MAX));
            self.hasher.update(&self.carry[..some]);
            self.line += memchr::memchr_iter(b'\n', &self.carry[..some]).count() as i64;
            self.line_so_far.advance(&self.carry[..some], self.bounds.line_bytes_max);
            self.offset += some as i64;
            self.carry.drain(..some);
        }
        Ok(Skipped::To(fingerprint(&self.hasher)))
    }

    /// Whether the bytes of a block are a part of one line, of one page, or of the parts of one
    /// line. `lines` is the number of lines that end in the block.
    fn is_one_record(&self, bytes: &[u8], lines: usize) -> bool {
        let line_bytes_max = self.bounds.line_bytes_max;
        match self.line_so_far.edge(bytes, line_bytes_max) {
            Edge::Page(within) => match frame::last_page(bytes, within, line_bytes_max) {
                Some((end, then)) => end == 0 && then == frame::LastPage::MoreMayCome,
                None => lines == 0,
            },
            Edge::InLine => false,
            _ if lines == 0 => !frame::is_long(bytes, line_bytes_max),
            _ => {
                let whole_lines = memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1);
                frame::open_parts(&bytes[..whole_lines], line_bytes_max) == Some(0)
            }
        }
    }

    /// Returns where the incomplete page at the end of a block begins, if the block should end
    /// before it.
    fn held_page(&self, bytes: &[u8], within: frame::Within, is_at_end: bool) -> Option<usize> {
        let (end, then) = frame::last_page(bytes, within, self.bounds.line_bytes_max)?;
        let is_blank = bytes[end..].iter().all(u8::is_ascii_whitespace);
        // Lines after a document become a block of their own, unless the stream ends with them.
        let is_held = match then {
            frame::LastPage::MoreMayCome => !is_blank,
            frame::LastPage::LinesFollow => !is_at_end,
        };
        is_held.then_some(end)
    }

    /// Returns the next block, read into `bytes`, whose allocation is reused. `None` at the end.
    pub fn next_block(
        &mut self,
        origin: &Arc<Origin>,
        mut bytes: Vec<u8>,
    ) -> Result<Option<StreamBlock>, FileError> {
        let started = Instant::now();
        self.at_end &= !self.follows;
        let forced = self.cut_at.filter(|cut| *cut > self.offset);
        let until_cut =
            forced.map_or(usize::MAX, |cut| usize::try_from(cut - self.offset).unwrap_or(usize::MAX));
        let line_bytes_max = self.bounds.line_bytes_max;
        let bytes_max = self.bounds.bytes_max.min(until_cut);
        // A block grows beyond `bytes_max` while it has no whole record, until its line is
        // over-long.
        let long_max = self.bounds.bytes_max.max(line_bytes_max.saturating_add(frame::BOUNDARY_BYTES));
        let long_max = long_max.min(until_cut);
        let mut grown = bytes_max;
        // The buffer's old bytes stay until they are overwritten: clearing them costs time.
        let mut filled = self.carry.len().min(until_cut);
        if bytes.len() < filled {
            bytes.resize(filled, 0);
        }
        bytes[..filled].copy_from_slice(&self.carry[..filled]);
        self.carry.drain(..filled);
        let mut lines = memchr::memchr_iter(b'\n', &bytes[..filled]).count();
        // Counted and hashed step by step, while the bytes are in the processor's cache.
        let hasher_before = self.hasher.clone();
        let mut hashed = 0;
        let mut stopped = false;
        while !self.at_end && self.failed.is_none() && lines < self.bounds.lines_max {
            let room = if filled < grown {
                grown
            } else if filled < long_max && self.is_one_record(&bytes[..filled], lines) {
                grown = filled.saturating_mul(2).min(long_max);
                grown
            } else {
                break;
            };
            let step = READ_STEP_BYTES.min(room - filled);
            if bytes.len() < filled + step {
                if room > bytes_max {
                    bytes.reserve_exact(step.max(filled / 2).min(room - bytes.len()));
                } else if !self.is_pipe && !self.follows {
                    bytes.reserve_exact(bytes_max - bytes.len());
                }
                bytes.resize(filled + step, 0);
            }
            let before = filled;
            match self.reader.read(&mut bytes[filled..filled + step]) {
                Ok(0) => self.at_end = true,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => self.failed = Some(error),
            }
            lines += memchr::memchr_iter(b'\n', &bytes[before..filled]).count();
            // Bytes before the last newline almost always stay in this block. If not, the hash is
            // computed again.
            if lines <= self.bounds.lines_max
                && let Some(newline) = memchr::memrchr(b'\n', &bytes[before..filled])
            {
                let whole_lines = before + newline + 1;
                self.hasher.update(&bytes[hashed..whole_lines]);
                hashed = whole_lines;
            }
            if self.is_pipe {
                // The rest of an interrupted pipe is unknown, so its last line may not be complete.
                stopped = self.stop.load(Ordering::Relaxed);
                let is_late = lines > 0 && started.elapsed() >= LIVE_WAIT;
                if stopped || (is_late && !self.is_one_record(&bytes[..filled], lines)) {
                    break;
                }
            }
        }
        bytes.truncate(filled);
        if stopped {
            self.at_end = false;
            if lines == 0 {
                return Ok(None);
            }
        }
        let begins = self.line_so_far.edge(&bytes, line_bytes_max);
        // Without a newline, all bytes belong to one line. If that line is over-long, the block may
        // end at a cut inside it. In a followed stream, text that continues a part of a line waits
        // for its end, unless it is longer than a line may be.
        let may_end = self.follows && begins == Edge::Part && bytes.len() <= line_bytes_max;
        let cut =
            (lines == 0 && !may_end && (begins != Edge::Line || frame::is_long(&bytes, line_bytes_max)))
                .then(|| frame::last_cut(&bytes, begins, line_bytes_max));
        if let Some(source) = self.failed.take() {
            // The whole lines before an error are good: they go first, and the next call returns
            // the error.
            if lines == 0 && !matches!(cut, Some((_, Edge::Part))) {
                return Err(FileError::Read {
                    label: self.input.label(),
                    offset: self.offset + bytes.len() as i64,
                    source,
                });
            }
            self.failed = Some(source);
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut end = bytes.len();
        if lines > self.bounds.lines_max
            && let Some(cut) = memchr::memchr_iter(b'\n', &bytes).nth(self.bounds.lines_max.saturating_sub(1))
        {
            end = cut + 1;
        }
        let mut is_last = false;
        let mut ends = Edge::Line;
        let at_cut = bytes.len() == until_cut;
        if end == bytes.len() && bytes[end - 1] != b'\n' {
            if (self.at_end && !self.follows) || at_cut {
                is_last = true;
            } else if let Some(page_end) = last_page_end(&bytes, begins, line_bytes_max) {
                // This block has the end of a page in a line that itself ends in the next block.
                end = page_end;
            } else if let Some(newline) = memchr::memrchr(b'\n', &bytes) {
                end = newline + 1;
            } else if let Some(cut) = cut {
                (end, ends) = cut;
            } else if self.follows {
                self.carry = bytes;
                return Ok(None);
            }
        }
        let whole = bytes.len();
        let is_at_end = self.at_end && !self.follows && end == whole;
        // At a forced cut the block always ends.
        if !(at_cut && end == whole) {
            let held = match (begins, ends) {
                (Edge::Page(within), _) => self.held_page(&bytes[..end], within, is_at_end),
                (_, Edge::Line) => frame::open_parts(&bytes[..end], line_bytes_max),
                _ => None,
            };
            match held {
                None => {}
                Some(_) if is_at_end => is_last = true,
                Some(0) if self.follows && whole < long_max => {
                    self.hasher = hasher_before;
                    self.carry.splice(0..0, bytes);
                    return Ok(None);
                }
                Some(0) => {}
                Some(held) => (end, ends) = (held, Edge::Line),
            }
            if end < hashed {
                self.hasher = hasher_before.clone();
                hashed = 0;
            }
        }
        // After a forced cut, `carry` may already have bytes that come later.
        self.carry.splice(0..0, bytes[end..].iter().copied());
        bytes.truncate(end);
        let block = Block {
            origin: Arc::clone(origin),
            offset: self.offset,
            first_line: self.line,
            begins,
            ends,
            open_ended: is_last && !self.is_final && !at_cut,
            bytes,
        };

        let mut before_open_line = None;
        if block.open_ended {
            let line = memchr::memrchr(b'\n', &block.bytes).map_or(0, |newline| newline + 1);
            let is_long =
                frame::is_long(&block.bytes[line..], line_bytes_max) || (line == 0 && begins != Edge::Line);
            let is_joined = line == block.bytes.len() || matches!(begins, Edge::Page(_));
            let part =
                (is_long || is_joined || frame::open_parts(&block.bytes[..line], line_bytes_max).is_some())
                    .then(|| frame::lines(&block, line_bytes_max).last())
                    .flatten();
            let open = part.map_or(line, |part| part.at);
            if open < hashed {
                self.hasher = hasher_before;
                hashed = 0;
            }
            self.hasher.update(&block.bytes[hashed..open]);
            before_open_line = Some((block.offset + open as i64, fingerprint(&self.hasher)));
            hashed = open;
        }
        self.hasher.update(&block.bytes[hashed..]);
        self.line_so_far.advance(&block.bytes, line_bytes_max);
        self.offset += block.bytes.len() as i64;
        self.line +=
            if end == whole { lines } else { memchr::memchr_iter(b'\n', &block.bytes).count() } as i64;
        Ok(Some(StreamBlock { prefix: fingerprint(&self.hasher), before_open_line, block }))
    }
}

/// Computes the name of a partition. Names are stored, so this computation never changes.
fn partition_of(cluster: &str, parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(cluster.len() as u64).to_le_bytes());
    hasher.update(cluster.as_bytes());
    for part in parts {
        hasher.update(part);
    }
    format!("file/{}", &hasher.finalize().to_hex()[..24])
}

/// Returns where the last whole page of a block ends, if the block begins with one.
fn last_page_end(bytes: &[u8], begins: Edge, line_bytes_max: usize) -> Option<usize> {
    let Edge::Page(within) = begins else { return None };
    frame::last_page(bytes, within, line_bytes_max).map(|(end, _)| end).filter(|end| *end > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;

    use super::*;

    const BOUNDS: BlockBounds = BlockBounds { bytes_max: 64, lines_max: 3, line_bytes_max: 40 };

    fn read_all(path: &Path, bounds: BlockBounds) -> Result<(Vec<StreamBlock>, Vec<u8>), FileError> {
        let mut stream =
            Stream::open(Input::File(path.to_owned()), bounds, false, Arc::default(), Arc::default())?;
        let partition = stream.identity("c")?.unwrap_or_default();
        let origin = Arc::new(Origin { partition, cluster: "c".into(), reading: Arc::default() });
        let (mut cuts, mut all) = (Vec::new(), Vec::new());
        while let Some(cut) = stream.next_block(&origin, Vec::new())? {
            assert_eq!(cut.block.offset, all.len() as i64);
            all.extend_from_slice(&cut.block.bytes);
            assert_eq!(cut.prefix[..], blake3::hash(&all).as_bytes()[..16]);
            cuts.push(cut);
        }
        Ok((cuts, all))
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("written");
        file
    }

    #[test]
    fn blocks_follow_each_other_and_numbers_are_right() {
        let text = "short\n\nlonger line of some bytes\n".repeat(9) + &"x".repeat(300) + "\nlast";
        let file = file(text.as_bytes());
        let (cuts, all) = read_all(file.path(), BOUNDS).expect("readable");
        assert_eq!(all, text.as_bytes());
        for cut in &cuts {
            assert!(cut.block.bytes.len() <= BOUNDS.bytes_max);
            let newlines =
                text.as_bytes()[..cut.block.offset as usize].iter().filter(|b| **b == b'\n').count();
            assert_eq!(cut.block.first_line, 1 + newlines as i64);
        }
        let last = &cuts.last().expect("blocks").block;
        assert!(last.open_ended);
        let pieces = cuts
            .iter()
            .flat_map(|cut| frame::lines(&cut.block, 40))
            .filter(|l| matches!(l.kind, frame::LineKind::FirstPiece | frame::LineKind::Piece));
        assert_eq!(pieces.map(|line| line.bytes.len()).sum::<usize>(), 300);
    }

    #[test]
    fn a_stream_goes_on_at_any_block_as_if_it_had_never_stopped() {
        let document = r#"{"messageType":1}"#;
        let parts =
            document.repeat(30) + r#"{"messageType":""# + &"z".repeat(200) + "\"}" + &document.repeat(5);
        let ends = "short\n".repeat(20) + &"x".repeat(500) + "\nafter\n" + &"y".repeat(41) + "\n";
        for text in
            [format!("{ends}last\n"), format!("{ends}{parts}\n\nlast\n"), format!("{parts}\n{ends}{parts}")]
        {
            goes_on_at_any_block(&text, BOUNDS);
        }
    }

    #[test]
    fn parts_and_documents_go_on_at_any_block() {
        const BOUNDS: BlockBounds = BlockBounds { bytes_max: 200, lines_max: 12, line_bytes_max: 300 };
        let cri = |flag: &str, text: &str| format!("2026-03-02T10:00:00Z stdout {flag} {text}\n");
        let parts =
            cri("P", "{\"a\":\"x") + &cri("P", "y") + "2026-03-02T10:00:00Z stderr F z\n" + &cri("F", "z\"}");
        let full = cri("F", "{}");
        let docker = |text: &str| format!("{{\"log\":\"{text}\",\"stream\":\"stdout\",\"time\":\"t\"}}\n");
        let cut = docker("a") + &docker("b") + &docker("c\\n");
        let log = (full.clone() + &parts + &full + &parts + &parts).repeat(3) + &cut.repeat(7) + "last\n";
        let (cuts, _) = read_all(file(log.as_bytes()).path(), BOUNDS).expect("readable");
        let joined = cuts.iter().flat_map(|cut| frame::lines(&cut.block, 300));
        assert_eq!(joined.filter(|line| line.bytes.contains(&b'\n')).count(), 9 + 7);
        goes_on_at_any_block(&log, BOUNDS);
        // Parts whose last one is missing.
        goes_on_at_any_block(&(cri("P", "x").repeat(3) + "x\n" + &parts + &cri("P", "y").repeat(2)), BOUNDS);
        goes_on_at_any_block(&(parts.clone() + &cri("P", "y") + "2026-03-02T10:00:00Z std"), BOUNDS);

        let element = |at: usize| format!("{{\n    \"a\": \"{}\"\n  }}", "]},{[\\\"".repeat(at % 9));
        let elements: Vec<String> = (0..40).map(element).collect();
        let pretty = format!("[\n  {}\n]\n", elements.join(",\n  "));
        let list = format!("{{\n  \"events\": [ {} ],\n  \"x\": [ 1 ]\n}}\n", elements.join(" ,\n"));
        let line = format!("[{}]", (0..90).map(|at| format!("{{\"a\":{at}}}")).collect::<Vec<_>>().join(","));
        // Objects that are in no list are not indented.
        let objects = elements.join("\n").replace("\n  ", "\n");
        let long =
            format!("[\n{},\n{{\"a\":\"{}\"}},\n{{}}\n]\nlast\n", elements[..9].join(","), "x".repeat(400));
        for document in [
            pretty.clone(),
            format!("\n {list}{pretty}"),
            line.clone(),
            format!("{line}\n{objects}\n"),
            format!("{pretty}last\n{objects}\n{{\n"),
            long,
            pretty[..pretty.len() / 2].to_owned(),
        ] {
            goes_on_at_any_block(&document, BOUNDS);
        }
        for (document, events) in [(pretty, 40), (list, 40), (line, 90), (objects, 40)] {
            let (cuts, _) = read_all(file(document.as_bytes()).path(), BOUNDS).expect("readable");
            assert!(cuts.len() > 2);
            let pages = cuts.iter().flat_map(|cut| frame::lines(&cut.block, 300));
            assert_eq!(pages.filter(|line| line.event.is_some()).count(), events, "{document}");
        }
    }

    fn goes_on_at_any_block(text: &str, bounds: BlockBounds) {
        let max = bounds.line_bytes_max;
        let file = file(text.as_bytes());
        let (cuts, _) = read_all(file.path(), bounds).expect("readable");
        let open = |bounds| {
            let input = Input::File(file.path().to_owned());
            Stream::open(input, bounds, false, Arc::default(), Arc::default()).expect("opens")
        };
        for (at, cut) in cuts.iter().enumerate() {
            let mut stream = open(bounds);
            stream.identity("c").expect("readable");
            let end = cut.block.offset + cut.block.bytes.len() as i64;
            assert_eq!(stream.skip_to(end).expect("readable"), Skipped::To(cut.prefix));
            let mut rest = Vec::new();
            while let Some(next) = stream.next_block(&cut.block.origin, Vec::new()).expect("readable") {
                rest.push(next);
            }
            // The places where an over-long line is cut into pieces are not promised.
            let lines = |cuts: &[StreamBlock]| {
                let mut found: Vec<(i64, i64, frame::LineKind, usize)> = Vec::new();
                for cut in cuts {
                    for line in frame::lines(&cut.block, max) {
                        match found.last_mut() {
                            Some(last) if last.2 == frame::LineKind::Piece && last.1 == line.number => {
                                last.3 += line.bytes.len();
                            }
                            _ => found.push((
                                cut.block.offset + line.at as i64,
                                line.number,
                                line.kind,
                                line.bytes.len(),
                            )),
                        }
                    }
                }
                found
            };
            assert_eq!(lines(&rest), lines(&cuts[at + 1..]), "from byte {end}");

            // Another table may be ahead, written by a run whose blocks had another size.
            for (ahead, forced) in cuts.iter().enumerate().skip(at + 1).rev().skip(1) {
                let until = forced.block.offset + forced.block.bytes.len() as i64;
                let mut stream =
                    open(BlockBounds { bytes_max: bounds.bytes_max + 31 * (ahead % 9), ..bounds });
                stream.skip_to(end).expect("readable");
                stream.cut_at(until);
                let mut read = Vec::new();
                while stream.offset < until {
                    read.extend(stream.next_block(&cut.block.origin, Vec::new()).expect("readable"));
                }
                assert_eq!(stream.offset, until);
                assert_eq!(lines(&read), lines(&cuts[at + 1..=ahead]), "from byte {end} to {until}");
            }
        }
        let mut stream = open(bounds);
        let hash = blake3::hash(text.as_bytes()).as_bytes()[..16].try_into().expect("16 bytes");
        let short = Skipped::Short(text.len() as i64, hash);
        assert_eq!(stream.skip_to(text.len() as i64 + 1).expect("readable"), short);
    }

    /// Whatever the size of a block, it ends between two pages, also inside a line.
    #[test]
    fn blocks_of_documents_end_between_pages() {
        for text in ["{\n\"a\":1\n}\n{\n\"b\":22\n}\n{\n\"c\":3\n}\n", "[\n{\"a\":1},{\"b\":22},{\"c\":3}]\n"]
        {
            for bytes_max in 1..text.len() {
                let bounds = BlockBounds { bytes_max, lines_max: 30, line_bytes_max: 200 };
                let file = file(text.as_bytes());
                let (cuts, all) = read_all(file.path(), bounds).expect("readable");
                assert_eq!(all, text.as_bytes());
                let pages = cuts.iter().flat_map(|cut| frame::lines(&cut.block, bounds.line_bytes_max));
                let pages: Vec<_> = pages.filter(|line| line.event.is_some()).collect();
                assert_eq!(pages.len(), 3, "{bytes_max}: {text}");
            }
        }
    }

    #[test]
    fn identity_is_the_content_whatever_the_packing() {
        let text = b"first line\nsecond\n".repeat(50);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&text[..300]).expect("in memory");
        let mut members = gz.finish().expect("in memory");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&text[300..]).expect("in memory");
        members.extend(gz.finish().expect("in memory"));
        let mut frames = zstd::encode_all(&text[..100], 1).expect("in memory");
        frames.extend(zstd::encode_all(&text[100..], 1).expect("in memory"));
        let skipped = [&b"\x50\x2a\x4d\x18\x04\0\0\0four"[..], &b"\x5f\x2a\x4d\x18\0\0\0\0"[..], &frames];
        let skipped = skipped.concat();
        let plain = read_all(file(&text).path(), BOUNDS).expect("plain");
        for packed in [members, frames, skipped] {
            let (cuts, all) = read_all(file(&packed).path(), BOUNDS).expect("packed");
            assert_eq!(all, text);
            assert_eq!(cuts[0].block.origin, plain.0[0].block.origin);
        }
    }

    #[test]
    fn a_cut_off_gzip_gives_what_it_has_and_then_the_error() {
        let text = b"first line\nsecond\n".repeat(5000);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        gz.write_all(&text).expect("in memory");
        let packed = gz.finish().expect("in memory");
        let file = file(&packed[..packed.len() / 2]);
        let mut stream =
            Stream::open(Input::File(file.path().to_owned()), BOUNDS, false, Arc::default(), Arc::default())
                .expect("opens");
        let origin = Arc::new(Origin { partition: "p".into(), cluster: "c".into(), reading: Arc::default() });
        let mut read = 0;
        let error = loop {
            match stream.next_block(&origin, Vec::new()) {
                Ok(Some(cut)) => read += cut.block.bytes.len(),
                Ok(None) => panic!("a cut-off file must not end well"),
                Err(error) => break error,
            }
        };
        assert!(read > text.len() / 3, "{read}");
        assert!(error.to_string().contains("beyond byte"), "{error}");
    }
}
