//! Follows logs that an API server writes and rotates.
//!
//! Terms. A *file* is an inode; names come and go. A *stream* is the text that was written, from
//! its first line on. Rotation gives a file another name, and compression and copying put the text
//! into another inode, but the stream stays the same.
//!
//! Invariants:
//! - A stream is identified by its content (see [`strongroom_ingest::source`]). Its cluster and its
//!   first lines name it. Before a byte is handed over, everything before that byte is read, and
//!   its hash is compared with the hash in the position. So a file continues where it stopped even
//!   if it was renamed, compressed or copied unnoticed, and a second copy brings nothing. No name,
//!   size, time or inode number is trusted.
//! - If several files have the same stream, only one of them hands over new text at a time. The
//!   others read their text up to where that one is, and compare it.
//! - A file that changed is compared before more of it is read: the last bytes that were read
//!   before must still be in their place. A file that was truncated and filled again is another
//!   stream.
//! - A line is handed over when its newline is there. A line without a newline is handed over when
//!   nothing was added for [`TailOptions::give_up_line`], or when the file is gone, because its
//!   writer then died in the middle of the line. A first line is never handed over without its
//!   newline while its file has a name, because the line names the stream.
//! - A compressed file is read when nobody has written to it for `SETTLED`. If it ends too early,
//!   it is read again when it has changed, and is reported if it does not change.
//!
//! A crash loses nothing: positions are the archive's, and everything after them is still in the
//! files. Text that a rotation deletes before it was read is lost, and this source cannot notice
//! the loss. Files that are open are an exception: they are read to their end, with or without a
//! name.

use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use strongroom_archive::Position;
use strongroom_archive::fingerprint::Fingerprint;
use strongroom_decode::DecoderConfig;
use strongroom_ingest::alike;
use strongroom_ingest::source::place::{Heads, Stored, look_up};
use strongroom_ingest::source::{BlockBounds, FileError, Input, Skipped, Stream, find};
use strongroom_lines::Reading;
use strongroom_lines::frame::Origin;
use strongroom_schemas::error_chain;

use crate::unread::Unread;
use crate::{Chunk, Feed, Source, SourceError, Stopped, StreamName};

/// Maximum size of a chunk's text.
const CHUNK_BYTES: usize = 16 << 20;
/// Maximum number of lines of a chunk.
const CHUNK_LINES: usize = 131_072;
/// Number of chunks that are taken from one file before other files have their turn.
const TURN_CHUNKS: usize = 8;
/// Maximum number of files kept open. If there are more, the file that was quiet for longest is
/// closed, and opened again when it grows; new files wait.
const OPEN_MAX: usize = 256;
/// Number of bytes before the read position that are compared with the file when it has changed.
const SEEN_BYTES: usize = 1024;
/// Maximum number of files that are remembered as read.
const READ_MAX: usize = 100_000;
/// A deleted file is closed when nothing was added for this long.
const DELETED: Duration = Duration::from_secs(2);
/// Wait before a file that could not be read is tried again. If the file or its permissions change,
/// it is tried at once.
const AGAIN: Duration = Duration::from_secs(30);
/// A compressed file to which nothing was written for this long is taken for complete.
const SETTLED: Duration = Duration::from_secs(2);
/// Longest time to wait for a seal that is needed before streams can be compared.
const SEAL_WAIT: Duration = Duration::from_secs(60);

/// What to follow, and how.
#[derive(Clone, Debug)]
pub struct TailOptions {
    /// Name of the source in the configuration.
    pub name: String,
    /// Name of the cluster, stored with every row.
    pub cluster: String,
    /// Log files, folders (searched recursively for logs) and patterns.
    pub paths: Vec<String>,
    /// How the files are read: where events are in them, and which writers are believed.
    pub reading: Arc<Reading>,
    /// How often files are checked.
    pub poll: Duration,
    /// An unfinished line is handed over as it is when nothing was added for this long.
    pub give_up_line: Duration,
}

/// Default of [`TailOptions::poll`].
pub const POLL: Duration = Duration::from_millis(200);
/// Default of [`TailOptions::give_up_line`].
pub const GIVE_UP_LINE: Duration = Duration::from_secs(60);

impl TailOptions {
    pub fn new(name: impl Into<String>, cluster: impl Into<String>, paths: Vec<String>) -> Self {
        TailOptions {
            name: name.into(),
            cluster: cluster.into(),
            paths,
            reading: Arc::default(),
            poll: POLL,
            give_up_line: GIVE_UP_LINE,
        }
    }
}

/// A source that follows files.
#[derive(Debug)]
pub struct Tail {
    options: TailOptions,
    /// The paths that the log has reported. They are kept between runs only so that nothing is
    /// reported twice.
    unread: Unread,
}

impl Tail {
    pub fn new(options: TailOptions) -> Tail {
        Tail { options, unread: Unread::default() }
    }
}

/// Device and inode number: a file, for as long as it is open or keeps its name.
type Inode = (u64, u64);

/// The state of a file when it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    size: u64,
    modified: (i64, i64),
}

impl FileState {
    fn of(metadata: &Metadata) -> FileState {
        FileState { size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }

    /// Whether the last modification is so long ago that its writer has probably finished.
    fn is_old(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let modified = u64::try_from(self.modified.0).map(Duration::from_secs).unwrap_or_default();
        // Times here are whole seconds, so one second is added.
        now.saturating_sub(modified) > SETTLED + Duration::from_secs(1)
    }
}

/// An open file.
struct Followed {
    stream: Stream,
    name: Arc<StreamName>,
    origin: Arc<Origin>,
    path: PathBuf,
    inode: Inode,
    /// The same file as `stream` reads, opened for checking its state.
    file: File,
    /// Whether the last scan of the folders found it.
    has_name: bool,
    /// When something was last added.
    grew: Instant,
    /// The file's state before it was last read to its end.
    read: Option<FileState>,
    size: u64,
    links: u64,
    /// The last bytes handed over.
    seen: Vec<u8>,
}

/// The state of a file that is not open.
enum Closed {
    /// Read to its end.
    Read(FileState),
    /// Not read: it is tried again when it or its permissions change, or after a while.
    Failed {
        state: FileState,
        /// When the file's content, owner or mode last changed.
        changed: (i64, i64),
        when: Instant,
        trouble: String,
    },
    /// A compressed file that ends too early: it is tried again when it changes.
    Cut { state: FileState, since: Instant, trouble: String },
}

impl Closed {
    /// Whether the file stays closed for now.
    fn waits(&self, metadata: &Metadata) -> bool {
        let look = FileState::of(metadata);
        match self {
            Closed::Read(state) | Closed::Cut { state, .. } => *state == look,
            Closed::Failed { state, changed, when, .. } => {
                *state == look
                    && *changed == (metadata.ctime(), metadata.ctime_nsec())
                    && when.elapsed() < AGAIN
            }
        }
    }

    /// Returns why the file is not read. `None` for a compressed file that may still be written: it
    /// counts as damaged only after `give_up`.
    fn trouble(&self, give_up: Duration) -> Option<&str> {
        match self {
            Closed::Read(_) => None,
            Closed::Failed { trouble, .. } => Some(trouble),
            Closed::Cut { since, trouble, .. } => (since.elapsed() >= give_up).then_some(trouble),
        }
    }
}

/// Whether compressed text ends too early, perhaps because it is still being written.
fn is_cut(error: &FileError) -> bool {
    matches!(error, FileError::Read { source, .. } if source.kind() == ErrorKind::UnexpectedEof)
}

struct Files<'t> {
    options: &'t TailOptions,
    feed: &'t Feed,
    open: Vec<Followed>,
    closed: HashMap<Inode, Closed>,
    heads: Heads,
    /// Compressed files that may still be written, each with the time when a change was last
    /// noticed.
    settling: HashMap<Inode, (FileState, Instant)>,
    unread: &'t mut Unread,
    /// What is wrong with files, by path.
    troubles: HashMap<PathBuf, String>,
    /// Whether the last scan listed all folders.
    saw_all: bool,
}

/// The result of one visit to a file.
enum Visit {
    More,
    AtEnd,
    /// The file no longer has the same stream.
    Differs,
}

enum Found {
    /// The file continues this partition.
    Stream(Box<Stream>, String),
    /// The whole file is stored, as the beginning of a longer stream.
    Known,
    /// The file has no whole line yet, or cannot be compared yet.
    NotYet,
}

/// Why a file cannot be read now.
enum Failure {
    Stopped,
    File(FileError),
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Self {
        Failure::Stopped
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Failure::File(error)
    }
}

impl Source for Tail {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn run(&mut self, feed: &Feed) -> Result<(), SourceError> {
        let mut files = Files {
            options: &self.options,
            feed,
            open: Vec::new(),
            closed: HashMap::new(),
            heads: Heads::default(),
            settling: HashMap::new(),
            unread: &mut self.unread,
            troubles: HashMap::new(),
            saw_all: false,
        };
        while !feed.is_stopping() {
            match files.turn() {
                Ok(true) => {}
                Ok(false) => std::thread::sleep(self.options.poll),
                Err(Stopped) => break,
            }
        }
        Ok(())
    }
}

impl Files<'_> {
    /// Checks all paths once. Returns whether there is more to read immediately.
    fn turn(&mut self) -> Result<bool, Stopped> {
        let found = find(&self.options.paths);
        for remark in self.unread.remarks(&found, Instant::now()) {
            remark.log();
        }
        // A path may name a file that is left out of another path's folder.
        let left_out: HashSet<&PathBuf> = found.left_out.iter().collect();
        let named_too: HashSet<&PathBuf> =
            found.files.iter().filter(|path| left_out.contains(path)).collect();
        self.feed.left_out(found.left_out_count - named_too.len());
        self.troubles.clear();
        self.saw_all = found.troubles.is_empty();
        for trouble in found.troubles.iter().map(|trouble| error_chain(trouble)) {
            self.troubles.insert(PathBuf::from(&trouble), trouble);
        }
        let mut more = false;
        let mut named = HashSet::new();
        for path in found.files {
            if self.feed.is_stopping() {
                return Err(Stopped);
            }
            let metadata = match path.metadata() {
                Ok(metadata) => metadata,
                Err(error) => {
                    // A file that was renamed just now is found by the next scan.
                    if error.kind() != ErrorKind::NotFound {
                        let text = format!("cannot read the state of {}: {error}", path.display());
                        self.troubles.insert(path, text);
                    }
                    continue;
                }
            };
            let inode = (metadata.dev(), metadata.ino());
            if !named.insert(inode) {
                continue;
            }
            if let Some(at) = self.open.iter().position(|file| file.inode == inode) {
                let file = &mut self.open[at];
                file.has_name = true;
                if file.path != path {
                    file.path = path;
                    file.relabel();
                }
                more |= self.visit(at)?;
            } else {
                more |= self.meet(path, inode, &metadata)?;
                self.close_quiet();
            }
        }
        // A file that was renamed or removed is still read to its end.
        let mut at = 0;
        while at < self.open.len() {
            let inode = self.open[at].inode;
            if !named.contains(&inode) {
                // If a folder could not be listed, the file may still have a name there.
                self.open[at].has_name &= !self.saw_all;
                more |= self.visit(at)?;
            }
            if self.open.get(at).is_some_and(|file| file.inode == inode) {
                at += 1;
            }
        }
        if self.closed.len() > READ_MAX {
            self.closed.retain(|inode, _| named.contains(inode));
        }
        self.settling.retain(|inode, _| named.contains(inode));
        self.report();
        Ok(more)
    }

    fn report(&self) {
        let lag = self.open.iter().map(|file| {
            let behind = i64::try_from(file.size).unwrap_or(i64::MAX) - file.stream.offset();
            if file.stream.is_packed() { 0 } else { behind.max(0) }
        });
        self.feed.lag(lag.sum());
        let mut troubles: Vec<&str> = self.troubles.values().map(String::as_str).collect();
        troubles.sort_unstable();
        match troubles[..] {
            [] => self.feed.recovered(),
            [one] => self.feed.trouble(one),
            [first, ..] => self.feed.trouble(format!("{first} (and {} more)", troubles.len() - 1)),
        }
    }

    /// Handles a file that is not open.
    fn meet(&mut self, path: PathBuf, inode: Inode, metadata: &Metadata) -> Result<bool, Stopped> {
        let look = FileState::of(metadata);
        if let Some(closed) = self.closed.get(&inode)
            && closed.waits(metadata)
        {
            // Its trouble is still true, so it is reported again.
            if let Some(trouble) = closed.trouble(self.options.give_up_line) {
                self.troubles.insert(path, trouble.to_owned());
            }
            return Ok(false);
        }
        if look.size == 0 {
            return Ok(false);
        }
        // Every open file is growing or unread, so another file waits for its turn.
        if self.open.len() > OPEN_MAX {
            self.troubles.insert(path, format!("more than {OPEN_MAX} files grow at once; the others wait"));
            return Ok(false);
        }
        match self.identify(&path, inode, look) {
            Ok(Found::Stream(stream, partition)) => {
                let file = match File::open(&path).and_then(|file| Ok((file.metadata()?, file))) {
                    Ok((metadata, file)) if (metadata.dev(), metadata.ino()) == inode => file,
                    // The file was rotated just now. The next scan finds it under its new name.
                    _ => return Ok(true),
                };
                let origin = Arc::new(Origin {
                    partition,
                    cluster: self.options.cluster.clone(),
                    reading: Arc::clone(&self.options.reading),
                });
                let mut file = Followed {
                    stream: *stream,
                    name: Arc::new(StreamName { partition: String::new(), label: String::new() }),
                    origin,
                    path,
                    inode,
                    file,
                    has_name: true,
                    grew: Instant::now(),
                    read: None,
                    size: look.size,
                    links: 1,
                    seen: Vec::new(),
                };
                file.relabel();
                tracing::info!(file = %file.path.display(), at = file.stream.offset(), "following");
                self.closed.remove(&inode);
                self.settling.remove(&inode);
                self.open.push(file);
                self.visit(self.open.len() - 1)
            }
            Ok(Found::Known) => {
                self.closed.insert(inode, Closed::Read(look));
                Ok(false)
            }
            Ok(Found::NotYet) => Ok(false),
            Err(Failure::Stopped) => Err(Stopped),
            Err(Failure::File(error)) => {
                self.failed(path, inode, metadata, &error);
                Ok(false)
            }
        }
    }

    fn failed(&mut self, path: PathBuf, inode: Inode, metadata: &Metadata, error: &FileError) {
        let (state, when) = (FileState::of(metadata), Instant::now());
        let trouble = format!("{} ({})", error_chain(error), error.hint());
        let closed = if is_cut(error) {
            tracing::debug!(file = %path.display(), "compressed, and not complete yet");
            Closed::Cut { state, since: when, trouble }
        } else {
            Closed::Failed { state, changed: (metadata.ctime(), metadata.ctime_nsec()), when, trouble }
        };
        if let Some(trouble) = closed.trouble(self.options.give_up_line) {
            self.troubles.insert(path, trouble.to_owned());
        }
        self.closed.insert(inode, closed);
    }

    /// Whether nothing was written to a compressed file for long enough.
    fn is_settled(&mut self, inode: Inode, look: FileState) -> bool {
        if look.is_old() {
            return true;
        }
        // A file system's clock may differ from ours, so the time since we noticed a change counts
        // as well.
        let (state, since) = self.settling.entry(inode).or_insert_with(|| (look, Instant::now()));
        if *state != look {
            (*state, *since) = (look, Instant::now());
        }
        since.elapsed() >= SETTLED
    }

    /// Opens a file and skips what the archive, or this run, has of its stream.
    fn identify(&mut self, path: &std::path::Path, inode: Inode, look: FileState) -> Result<Found, Failure> {
        let bounds = BlockBounds {
            bytes_max: CHUNK_BYTES,
            lines_max: CHUNK_LINES,
            line_bytes_max: self.feed.line_bytes_max,
        };
        let input = Input::File(path.to_owned());
        let mut stream = Stream::open(input, bounds, false, Arc::default(), self.feed.stopping())?;
        if stream.is_packed() && !self.is_settled(inode, look) {
            return Ok(Found::NotYet);
        }
        let Some(identity) = stream.identity(&self.options.cluster)? else { return Ok(Found::NotYet) };
        if stream.is_first_line_open() && !stream.is_packed() {
            return Ok(Found::NotYet);
        }
        let feed = self.feed;
        let mut stored = |partition: &str| {
            let end = |position: Position| (position.next_offset, position.prefix_blake3);
            let known = feed.position(partition);
            // A run died after it had committed the rejects and before it had committed the events.
            // The rejects belong to this stream only if their bytes are the same. To cut lines as
            // that run did, a block must end where one of its blocks ended.
            let rejects = feed.rejects_ahead(partition);
            let is_stored = known.is_some() || rejects.is_some();
            let ahead =
                rejects.filter(|ahead| known.is_none_or(|known| known.next_offset < ahead.next_offset));
            is_stored.then(|| Stored {
                events: known.map(end),
                rejects_ahead: ahead.map(end),
                unsealed: Vec::new(),
            })
        };
        let found = look_up(stream, &identity, &self.options.cluster, &mut self.heads, &mut stored)?;
        let is_all_stored =
            found.end.is_some_and(|end| found.same.is_some() && found.stream.offset() == end.0);
        for (partition, stored_end) in found.longer.iter().filter(|_| !is_all_stored) {
            let Some(end) = found.end else { continue };
            match self.is_stored_start(partition, *stored_end, &found.stream, &found.start, end)? {
                Some(true) => return Ok(Found::Known),
                Some(false) => {}
                // Until the partition is sealed that far, nobody can know whether the stream is the
                // same.
                None => return Ok(Found::NotYet),
            }
        }
        let partition = found.same.unwrap_or(found.free);
        self.heads.remember_start(&partition, found.start);
        Ok(Found::Stream(Box::new(found.stream), partition))
    }

    /// Returns whether a partition begins with the bytes of a stream that was read to its end.
    /// `None` if there is no archive to read, or if these bytes could not be sealed in time.
    fn is_stored_start(
        &mut self,
        partition: &str,
        stored_end: i64,
        stream: &Stream,
        start: &[u8],
        end: (i64, Fingerprint),
    ) -> Result<Option<bool>, Failure> {
        let Some(archive) = &self.feed.shared.archive else { return Ok(None) };
        if self.feed.sealed(partition).is_some_and(|sealed| sealed.next_offset == stored_end) {
            alike::load_head(archive, partition, stored_end, &mut self.heads);
            if self.heads.differs(partition, start, stored_end) {
                return Ok(Some(false));
            }
        }
        if self.feed.sealed(partition).is_none_or(|sealed| sealed.next_offset < end.0)
            && !self.feed.seal_now(SEAL_WAIT)?
        {
            return Ok(None);
        }
        let origin = Arc::new(Origin {
            partition: partition.to_owned(),
            cluster: self.options.cluster.clone(),
            reading: Arc::clone(&self.options.reading),
        });
        let config = DecoderConfig { line_bytes_max: self.feed.line_bytes_max, ..DecoderConfig::default() };
        Ok(Some(alike::stored_start(archive, stream, &origin, &config, end)?.is_some()))
    }

    /// Reads what an open file has, up to a bound; returns whether it has more.
    fn visit(&mut self, at: usize) -> Result<bool, Stopped> {
        let file = &mut self.open[at];
        let metadata = match file.file.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                let text = format!("cannot read the state of {}: {error}", file.path.display());
                self.troubles.insert(file.path.clone(), text);
                return Ok(false);
            }
        };
        let look = FileState::of(&metadata);
        if look.size > file.size {
            file.grew = Instant::now();
        }
        (file.size, file.links) = (look.size, metadata.nlink());
        let visit = file.read(self.feed, look, self.options.give_up_line);
        let close = match visit {
            Ok(Visit::More) => {
                file.read = None;
                return Ok(true);
            }
            Ok(Visit::AtEnd) => {
                file.read = Some(look);
                let quiet = file.grew.elapsed();
                let deleted = file.links == 0 && quiet >= DELETED;
                let left = !file.has_name && quiet >= self.options.give_up_line;
                if file.stream.is_packed() || deleted || left {
                    Some(Closed::Read(look))
                } else {
                    return Ok(false);
                }
            }
            // The file was truncated or overwritten: its new content is handled as a new file.
            Ok(Visit::Differs) => None,
            Err(Failure::Stopped) => return Err(Stopped),
            Err(Failure::File(error)) => {
                let (path, inode) = (file.path.clone(), file.inode);
                self.open.remove(at);
                self.failed(path, inode, &metadata, &error);
                return Ok(false);
            }
        };
        let file = self.open.remove(at);
        tracing::info!(file = %file.path.display(), at = file.stream.offset(), "no longer followed");
        match close {
            Some(closed) if file.has_name => _ = self.closed.insert(file.inode, closed),
            _ => _ = self.closed.remove(&file.inode),
        }
        Ok(false)
    }

    /// Closes the files that were quiet for longest if too many are open.
    fn close_quiet(&mut self) {
        while self.open.len() > OPEN_MAX {
            let at_rest =
                |file: &Followed| file.has_name && file.read.is_some() && file.stream.unfinished() == 0;
            let quietest = self.open.iter().enumerate().filter(|(_, file)| at_rest(file));
            let Some((at, _)) = quietest.min_by_key(|(_, file)| file.grew) else { return };
            let file = self.open.remove(at);
            if let Some(read) = file.read {
                self.closed.insert(file.inode, Closed::Read(read));
            }
        }
    }
}

impl Followed {
    fn relabel(&mut self) {
        let label = self.path.display().to_string();
        self.name = Arc::new(StreamName { partition: self.origin.partition.clone(), label });
    }

    /// Whether the bytes before the read position are still those that were read.
    fn is_as_it_was(&self) -> bool {
        let from = self.stream.offset() - i64::try_from(self.seen.len()).unwrap_or(i64::MAX);
        let mut now = vec![0; self.seen.len()];
        let read = u64::try_from(from).map(|from| self.file.read_exact_at(&mut now, from));
        matches!(read, Ok(Ok(()))) && now == self.seen
    }

    fn read(&mut self, feed: &Feed, look: FileState, give_up_line: Duration) -> Result<Visit, Failure> {
        let packed = self.stream.is_packed();
        let gone = self.links == 0 && self.grew.elapsed() >= DELETED;
        let give_up = self.stream.unfinished() > 0 && (gone || self.grew.elapsed() >= give_up_line);
        if self.read == Some(look) && !give_up {
            return Ok(Visit::AtEnd);
        }
        let read = self.stream.offset() + i64::try_from(self.stream.unfinished()).unwrap_or(i64::MAX);
        if !packed {
            let shorter = i64::try_from(look.size).unwrap_or(i64::MAX) < read;
            if shorter || !self.is_as_it_was() {
                return Ok(Visit::Differs);
            }
            self.stream.follow();
        }
        for _ in 0..TURN_CHUNKS {
            // Another file with the same stream may be ahead.
            if let Some(reached) = feed.position(&self.origin.partition)
                && reached.next_offset != self.stream.offset()
            {
                self.seen.clear();
                match self.stream.skip_to(reached.next_offset)? {
                    Skipped::To(prefix)
                        if self.stream.offset() == reached.next_offset && prefix == reached.prefix_blake3 => {
                    }
                    // The file is shorter than what other files brought of its stream, so it waits
                    // until it has grown.
                    Skipped::Short(..) if packed => return Ok(Visit::AtEnd),
                    Skipped::Short(..) => return Ok(Visit::Differs),
                    Skipped::To(_) => return Ok(Visit::Differs),
                }
            }
            let arrived = Instant::now();
            match self.stream.next_block(&self.origin, Vec::new())? {
                Some(cut) => {
                    self.grew = arrived;
                    if !packed {
                        let bytes = &cut.block.bytes;
                        self.seen.extend_from_slice(&bytes[bytes.len().saturating_sub(SEEN_BYTES)..]);
                        self.seen.drain(..self.seen.len().saturating_sub(SEEN_BYTES));
                    }
                    feed.send(Chunk {
                        stream: Arc::clone(&self.name),
                        block: cut.block,
                        prefix: cut.prefix,
                        broker_offset: None,
                        arrived,
                    })?;
                }
                None => {
                    if give_up && !packed && self.stream.unfinished() > 0 {
                        self.stream.give_up_line();
                        continue;
                    }
                    return Ok(Visit::AtEnd);
                }
            }
        }
        Ok(Visit::More)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::testing::Pipeline;

    fn options(folder: &Path) -> TailOptions {
        TailOptions {
            poll: Duration::from_millis(10),
            give_up_line: Duration::from_millis(500),
            ..TailOptions::new("files", "test", vec![folder.display().to_string()])
        }
    }

    /// Follows files while `act` runs; returns what was handed over.
    fn follow(options: TailOptions, act: impl FnOnce(&Pipeline)) -> Vec<u8> {
        let pipeline = Pipeline::new(HashMap::new());
        let mut text = Vec::new();
        std::thread::scope(|scope| {
            let feed = pipeline.feed.clone();
            let running = scope.spawn(move || Tail::new(options).run(&feed));
            act(&pipeline);
            while let Some(chunk) = pipeline.next(SETTLED + Duration::from_secs(2)) {
                text.extend(chunk.block.bytes);
            }
            pipeline.stop();
            running.join().expect("no panic").expect("no failure");
        });
        text
    }

    fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !ready() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn lines() -> Vec<u8> {
        (0..3_000).flat_map(|number| format!("{{\"auditID\":\"{number:016x}\"}}\n").into_bytes()).collect()
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).expect("in memory");
        packed.finish().expect("in memory")
    }

    fn set_old(path: &Path) {
        let file = File::options().write(true).open(path).expect("opened");
        file.set_modified(SystemTime::now() - Duration::from_secs(3_600))
            .expect("the time or the permissions are set");
    }

    #[test]
    fn a_compressed_file_that_is_being_written_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = lines();
        // A busy machine may pause this writer for longer than a compressor should.
        let options = TailOptions { give_up_line: GIVE_UP_LINE, ..options(folder.path()) };
        let read = follow(options, |pipeline| {
            let mut file = File::create(folder.path().join("audit.log.gz")).expect("made");
            let bytes = packed(&text);
            for part in bytes.chunks(bytes.len() / 20 + 1) {
                file.write_all(part).expect("written");
                for _ in 0..15 {
                    std::thread::sleep(Duration::from_millis(10));
                    assert_eq!(pipeline.trouble(), None);
                }
            }
        });
        assert!(read == text, "{} of {} bytes", read.len(), text.len());
    }

    /// Tests a compressor that paused for so long that it seems to have finished.
    #[test]
    fn a_compressed_file_that_ends_too_early_is_reported_only_if_it_stays_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log.gz");
        let (text, bytes) = (lines(), packed(&lines()));
        let (first, rest) = bytes.split_at(bytes.len() - 5);
        std::fs::write(&path, first).expect("written");
        set_old(&path);
        let read = follow(options(folder.path()), |pipeline| {
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(pipeline.trouble(), None, "a new file may still be written, so it is not reported");
            wait_until("it is reported", || {
                pipeline.trouble().is_some_and(|text| text.contains("audit.log.gz"))
            });
            let mut file = File::options().append(true).open(&path).expect("opened");
            file.write_all(rest).expect("written");
            wait_until("it is read", || pipeline.trouble().is_none());
        });
        assert!(read == text, "{} of {} bytes", read.len(), text.len());
    }

    #[test]
    fn a_file_that_failed_is_tried_again_when_its_mode_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        std::fs::write(&path, lines()).expect("written");
        let metadata = path.metadata().expect("the file is there");
        let closed = |trouble: &str| Closed::Failed {
            state: FileState::of(&metadata),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            when: Instant::now(),
            trouble: trouble.to_owned(),
        };
        assert!(closed("no").waits(&metadata));
        // A file system's clock may be coarse.
        std::thread::sleep(Duration::from_millis(30));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640))
            .expect("the time or the permissions are set");
        let now = path.metadata().expect("the file is there");
        assert!(!closed("no").waits(&now));
        assert!(Closed::Read(FileState::of(&metadata)).waits(&now), "a file that was read is not read again");
    }

    #[test]
    fn a_file_that_may_not_be_read_is_read_after_chmod() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        std::fs::write(&path, lines()).expect("written");
        let set = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .expect("the time or the permissions are set")
        };
        set(0);
        if File::open(&path).is_ok() {
            // Root may read everything.
            return;
        }
        let read = follow(options(folder.path()), |pipeline| {
            wait_until("it is reported", || {
                pipeline.trouble().is_some_and(|text| text.contains("owner and mode"))
            });
            set(0o600);
            wait_until("it is tried again", || pipeline.trouble().is_none());
        });
        assert!(read == lines());
    }
}
