//! Files, directories, patterns and standard input as streams of blocks.
//!
//! Invariants:
//! - A stream's partition is named by its content, not by its path: cluster and first line. Rotation,
//!   copying and compression do not change it. Before anything is skipped as stored, all of it is read
//!   again and its hash compared with the one in the archive: equal, it is the same stream, grown;
//!   otherwise another stream that begins alike, with a partition of its own. Nothing is taken for a
//!   duplicate on the strength of a name, a size or a time.
//! - Blocks of a stream are handed out in order, without gaps, with the hash of all bytes before their
//!   end, so that a position can be written after any of them.
//!
//! Compression is recognised by content: gzip (any number of members), zstd (any number of frames).

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{FileError, IngestError};
use crate::frame::{Block, Origin};

/// One thing to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Stdin,
    File(PathBuf),
}

impl Input {
    /// Name for people.
    pub fn label(&self) -> String {
        match self {
            Input::Stdin => "standard input".to_owned(),
            Input::File(path) => path.display().to_string(),
        }
    }

    /// Bytes on disk; `None` for what has no size.
    pub fn size(&self) -> Option<u64> {
        match self {
            Input::Stdin => None,
            Input::File(path) => std::fs::metadata(path).ok().map(|metadata| metadata.len()),
        }
    }
}

/// Directories below one that is named are followed this deep.
const DIRECTORY_DEPTH_MAX: usize = 16;

/// Turns arguments (`-`, files, directories, patterns) into inputs, rotated files oldest first.
///
/// # Errors
/// When something named is not there, cannot be listed, or holds no log file.
pub fn expand(arguments: &[String]) -> Result<Vec<Input>, IngestError> {
    let mut inputs = Vec::new();
    for argument in arguments {
        if argument == "-" {
            if inputs.contains(&Input::Stdin) {
                return Err(IngestError::StdinTwice);
            }
            inputs.push(Input::Stdin);
            continue;
        }
        let path = PathBuf::from(argument);
        if path.is_dir() {
            let mut files = Vec::new();
            list(&path, DIRECTORY_DEPTH_MAX, &mut files)?;
            if files.is_empty() {
                return Err(IngestError::NoLogFiles { path });
            }
            inputs.extend(rotation_order(files).into_iter().map(Input::File));
        } else if path.exists() {
            inputs.push(Input::File(path));
        } else if argument.contains(['*', '?', '[']) {
            let paths = glob::glob(argument)
                .map_err(|source| IngestError::Pattern { pattern: argument.clone(), source })?;
            let files: Vec<PathBuf> = paths.flatten().filter(|path| path.is_file()).collect();
            if files.is_empty() {
                return Err(IngestError::NoMatch { pattern: argument.clone() });
            }
            inputs.extend(rotation_order(files).into_iter().map(Input::File));
        } else {
            return Err(IngestError::NoSuchFile { path });
        }
    }
    Ok(inputs)
}

fn list(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), IngestError> {
    let cannot = |source| IngestError::ListDirectory { path: directory.to_owned(), source };
    for entry in std::fs::read_dir(directory).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let kind = entry.file_type().map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if kind.is_dir() && depth > 0 {
            list(&entry.path(), depth - 1, files)?;
        } else if (kind.is_file() || (kind.is_symlink() && entry.path().is_file())) && is_log_name(&name) {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Whether a file found in a directory looks like a log, rotated and compressed names included.
fn is_log_name(name: &str) -> bool {
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    [".log", ".json", ".jsonl", ".ndjson"]
        .iter()
        .any(|ending| name.ends_with(ending) || stem.ends_with(ending))
}

/// Oldest first. lumberjack writes `audit-2026-03-04T05-06-07.123.log` and keeps `audit.log` for the
/// newest, which is also their order as text; logrotate writes `audit.log.1` for the newest but one,
/// and higher numbers for older files.
fn rotation_order(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort_by_cached_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        let (stem, number) = match plain.rsplit_once('.') {
            Some((stem, digits)) if stem.contains('.') => match digits.parse::<u64>() {
                Ok(number) => (stem, number),
                Err(_) => (plain, 0),
            },
            _ => (plain, 0),
        };
        (path.parent().map(Path::to_path_buf), stem.to_owned(), std::cmp::Reverse(number))
    });
    files.dedup();
    files
}

/// Counts the bytes that pass, for progress.
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

/// How a file's bytes were packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

const READ_BUFFER_BYTES: usize = 256 << 10;
/// How much is read between two looks at the bounds of a block.
const READ_STEP_BYTES: usize = 4 << 20;

fn open(input: &Input, count: &Arc<AtomicU64>) -> Result<(Box<dyn Read + Send>, Packing), FileError> {
    let raw: Box<dyn Read + Send> = match input {
        Input::Stdin => Box::new(io::stdin()),
        Input::File(path) => {
            Box::new(File::open(path).map_err(|source| FileError::Open { path: path.clone(), source })?)
        }
    };
    let cannot = |source| FileError::Read { label: input.label(), offset: 0, source };
    let mut raw = Counted { inner: raw, count: Arc::clone(count) };
    let mut magic = Vec::with_capacity(4);
    raw.by_ref().take(4).read_to_end(&mut magic).map_err(cannot)?;
    let packing = match magic[..] {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
        _ => Packing::Plain,
    };
    let whole = io::Cursor::new(magic).chain(raw);
    Ok(match packing {
        Packing::Plain => (Box::new(whole), packing),
        Packing::Gzip => {
            let buffered = BufReader::with_capacity(READ_BUFFER_BYTES, whole);
            (Box::new(flate2::bufread::MultiGzDecoder::new(buffered)), packing)
        }
        Packing::Zstd => {
            let buffered = BufReader::with_capacity(READ_BUFFER_BYTES, whole);
            (Box::new(zstd::Decoder::with_buffer(buffered).map_err(cannot)?), packing)
        }
    })
}

/// First half of a BLAKE3 hash.
pub type Fingerprint = [u8; 16];

fn fingerprint(hasher: &blake3::Hasher) -> Fingerprint {
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    half
}

/// Sizes of blocks.
#[derive(Clone, Copy, Debug)]
pub struct BlockBounds {
    pub bytes_max: usize,
    pub lines_max: usize,
    pub line_bytes_max: usize,
}

/// A block and what a position behind it would say.
pub struct Cut {
    pub block: Block,
    /// Hash of the stream up to the block's end.
    pub prefix: Fingerprint,
    /// Hash of the stream up to the last line, when that line has no newline.
    pub prefix_before_open_line: Option<Fingerprint>,
}

/// A stream of one input, read in blocks.
pub struct Stream {
    input: Input,
    reader: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
    bounds: BlockBounds,
    /// Bytes read and not handed out yet.
    carry: Vec<u8>,
    at_end: bool,
    /// Why reading stopped, until it is told.
    failed: Option<io::Error>,
    offset: i64,
    line: i64,
    in_long_line: bool,
    hasher: blake3::Hasher,
    /// Files may grow after their end: what their last line says is final only when this is set.
    is_final: bool,
}

/// Names tried for streams that begin with the same line.
pub const ALIKE_MAX: usize = 256;

impl Stream {
    /// Opens `input`; `complete` promises that a file does not grow any more.
    pub fn open(
        input: Input,
        bounds: BlockBounds,
        complete: bool,
        count: Arc<AtomicU64>,
    ) -> Result<Stream, FileError> {
        let (reader, packing) = open(&input, &count)?;
        // A compressed file is written once, and standard input has ended when it has.
        let is_final = complete || packing != Packing::Plain || input == Input::Stdin;
        Ok(Stream {
            input,
            reader,
            count,
            bounds,
            carry: Vec::new(),
            at_end: false,
            failed: None,
            offset: 0,
            line: 1,
            in_long_line: false,
            hasher: blake3::Hasher::new(),
            is_final,
        })
    }

    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Name of the partition by content: cluster and first line; `None` for an empty stream.
    pub fn identity(&mut self, cluster: &str) -> Result<Option<String>, FileError> {
        while !self.at_end
            && self.carry.len() <= self.bounds.line_bytes_max
            && self.carry.len() < self.bounds.bytes_max
            && memchr::memchr(b'\n', &self.carry).is_none()
        {
            self.fill_carry(READ_BUFFER_BYTES.min(self.bounds.bytes_max - self.carry.len()))?;
        }
        if self.carry.is_empty() {
            return Ok(None);
        }
        let line =
            memchr::memchr(b'\n', &self.carry).unwrap_or(self.carry.len()).min(self.bounds.line_bytes_max);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(cluster.len() as u64).to_le_bytes());
        hasher.update(cluster.as_bytes());
        hasher.update(&self.carry[..line]);
        Ok(Some(format!("file/{}", &hasher.finalize().to_hex()[..24])))
    }

    fn fill_carry(&mut self, bytes: usize) -> Result<(), FileError> {
        let read =
            self.reader.by_ref().take(bytes as u64).read_to_end(&mut self.carry).map_err(|source| {
                FileError::Read {
                    label: self.input.label(),
                    offset: self.offset + self.carry.len() as i64,
                    source,
                }
            })?;
        self.at_end = read == 0;
        Ok(())
    }

    /// Starts again at the first byte. Standard input cannot.
    pub fn rewind(self) -> Result<Stream, FileError> {
        if self.input == Input::Stdin {
            return Err(FileError::StdinDiffers);
        }
        Stream::open(self.input, self.bounds, self.is_final, self.count)
    }

    /// Reads up to `offset` and returns the hash of what was read; `None` when the stream is shorter.
    pub fn skip_to(&mut self, offset: i64) -> Result<Option<Fingerprint>, FileError> {
        while self.offset < offset {
            if self.carry.is_empty() {
                self.fill_carry(READ_BUFFER_BYTES * 4)?;
                if self.carry.is_empty() {
                    return Ok(None);
                }
            }
            let some = self.carry.len().min(usize::try_from(offset - self.offset).unwrap_or(usize::MAX));
            self.hasher.update(&self.carry[..some]);
            self.line += memchr::memchr_iter(b'\n', &self.carry[..some]).count() as i64;
            self.offset += some as i64;
            self.carry.drain(..some);
        }
        Ok(Some(fingerprint(&self.hasher)))
    }

    /// The next block, read into `bytes`, whose allocation is reused; `None` at the end.
    pub fn next_block(&mut self, origin: &Arc<Origin>, mut bytes: Vec<u8>) -> Result<Option<Cut>, FileError> {
        bytes.clear();
        bytes.append(&mut self.carry);
        let mut lines = memchr::memchr_iter(b'\n', &bytes).count();
        while !self.at_end
            && self.failed.is_none()
            && bytes.len() < self.bounds.bytes_max
            && lines < self.bounds.lines_max
        {
            let before = bytes.len();
            let step = READ_STEP_BYTES.min(self.bounds.bytes_max - before);
            if bytes.capacity() == before {
                bytes.reserve(self.bounds.bytes_max - before);
            }
            match self.reader.by_ref().take(step as u64).read_to_end(&mut bytes) {
                Ok(read) => self.at_end = read < step,
                Err(error) => self.failed = Some(error),
            }
            lines += memchr::memchr_iter(b'\n', &bytes[before..]).count();
        }
        if let Some(source) = self.failed.take() {
            // The whole lines before an error are good: they go first, the error comes with the next call.
            if memchr::memchr(b'\n', &bytes).is_none() {
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
        let continues_line = self.in_long_line;
        let mut end = bytes.len();
        if lines > self.bounds.lines_max
            && let Some(cut) = memchr::memchr_iter(b'\n', &bytes).nth(self.bounds.lines_max.saturating_sub(1))
        {
            end = cut + 1;
        }
        let mut open_line = None;
        if end == bytes.len() && bytes[end - 1] != b'\n' {
            let line = memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1);
            if self.at_end {
                open_line = Some(line);
            } else if line > 0 {
                end = line;
            }
        }
        let whole = bytes.len();
        self.carry.extend_from_slice(&bytes[end..]);
        bytes.truncate(end);
        // No newline in a whole block, and more to come.
        let ends_in_line = open_line.is_none() && bytes[end - 1] != b'\n';
        self.in_long_line = ends_in_line;

        let mut prefix_before_open_line = None;
        match open_line {
            Some(line) => {
                self.hasher.update(&bytes[..line]);
                prefix_before_open_line = Some(fingerprint(&self.hasher));
                self.hasher.update(&bytes[line..]);
            }
            None => {
                self.hasher.update(&bytes);
            }
        }
        let block = Block {
            origin: Arc::clone(origin),
            offset: self.offset,
            first_line: self.line,
            continues_line,
            ends_in_line,
            open_ended: open_line.is_some() && !self.is_final,
            bytes,
        };
        self.offset += block.bytes.len() as i64;
        self.line +=
            if end == whole { lines } else { memchr::memchr_iter(b'\n', &block.bytes).count() } as i64;
        Ok(Some(Cut { prefix: fingerprint(&self.hasher), prefix_before_open_line, block }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use std::io::Write as _;

    const BOUNDS: BlockBounds = BlockBounds { bytes_max: 64, lines_max: 3, line_bytes_max: 40 };

    fn read_all(path: &Path, bounds: BlockBounds) -> Result<(Vec<Cut>, Vec<u8>), FileError> {
        let mut stream = Stream::open(Input::File(path.to_owned()), bounds, false, Arc::default())?;
        let partition = stream.identity("c")?.unwrap_or_default();
        let origin = Arc::new(Origin { partition, cluster: "c".into() });
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
            .filter(|l| l.kind == frame::LineKind::Piece);
        assert_eq!(pieces.map(|line| line.bytes.len()).sum::<usize>(), 300);
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
        let plain = read_all(file(&text).path(), BOUNDS).expect("plain");
        for packed in [members, frames] {
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
            Stream::open(Input::File(file.path().to_owned()), BOUNDS, false, Arc::default()).expect("opens");
        let origin = Arc::new(Origin { partition: "p".into(), cluster: "c".into() });
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

    #[test]
    fn rotated_files_come_oldest_first() {
        let names = |files: &[&str]| rotation_order(files.iter().map(PathBuf::from).collect());
        assert_eq!(
            names(&[
                "d/audit.log",
                "d/audit-2026-03-04T05-06-07.123.log.gz",
                "d/audit-2026-03-03T00-00-00.000.log"
            ]),
            ["d/audit-2026-03-03T00-00-00.000.log", "d/audit-2026-03-04T05-06-07.123.log.gz", "d/audit.log"]
                .map(PathBuf::from)
        );
        assert_eq!(
            names(&["audit.log", "audit.log.1", "audit.log.10.gz", "audit.log.2.gz"]),
            ["audit.log.10.gz", "audit.log.2.gz", "audit.log.1", "audit.log"].map(PathBuf::from)
        );
        assert!(
            is_log_name("audit.log.3.gz")
                && is_log_name("x.ndjson")
                && is_log_name("audit-2021-03-09T00-12-19.834.log")
        );
        assert!(!is_log_name("notes.txt") && !is_log_name("core.1234"));
    }
}
