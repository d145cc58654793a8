//! Finds the partition of a stream among those of all streams that begin alike.
//!
//! A stream is named after its first line. Many logs begin with the same line: a banner, `[`, the
//! header of a list. So the first such stream is named after one line, and each later one after as
//! many lines as it takes to distinguish it from all earlier streams. To find a stream again, the
//! names of its first line, of its first two lines and so on are looked up until one is free.
//!
//! Invariants:
//! - A name only proposes a partition. What is stored of each proposed partition is compared with
//!   the stream, by hash or byte by byte, so a wrong proposal costs time and nothing else.
//! - A stream that grows keeps its names: it is named only after lines that have ended, and after a
//!   last line that looks complete.
//! - A stream is read only as far as it has lines in common with others, and then at most three
//!   times. So the time is linear in what is read, however many streams begin alike.
//!
//! [`Heads`] is a cache of bounded size. Nothing else is kept.

use std::collections::HashMap;

use strongroom_archive::fingerprint::Fingerprint;

use super::{FileError, READ_BUFFER_BYTES, Skipped, Stream, partition_of};

/// Maximum number of partitions of one name. They are numbered from the second one on.
pub const ALIKE_MAX: usize = 256;
/// How much is kept of the beginning of a stream.
const HEAD_BYTES: usize = 16 << 10;
/// Maximum number of streams whose beginning is remembered.
const HEADS_MAX: usize = 1024;

/// An offset in a stream, and the hash of everything before it.
pub type End = (i64, Fingerprint);

/// How far a partition is stored.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Where the partition's events end.
    pub events: Option<End>,
    /// Where the partition's rejects end, if that is later.
    pub rejects_ahead: Option<End>,
    /// Where the partition may end after the text that this run has read of it is sealed. Until
    /// then its end is not known.
    pub unsealed: Vec<End>,
}

/// The result of looking up a stream.
pub struct Lookup {
    /// The stream, positioned after what `same` has of it. If there is no such partition, the
    /// stream is at its first byte, unless it is a pipe and was read.
    pub stream: Stream,
    /// The partition that has the beginning of the stream.
    pub same: Option<String>,
    /// Partitions that are longer than the stream and may begin with all of it, each with its end.
    pub longer: Vec<(String, i64)>,
    /// The end of the stream, if the stream was read to its end.
    pub end: Option<End>,
    /// Whether the result may change when partitions with unsealed rows are sealed.
    pub is_unsure: bool,
    /// Name for a new partition, if no partition has the stream.
    pub free: String,
    /// The beginning of the stream.
    pub start: Vec<u8>,
}

struct Candidate {
    partition: String,
    stored: Stored,
}

impl Candidate {
    fn ends(&self) -> impl Iterator<Item = &End> {
        self.events().iter().chain(&self.stored.rejects_ahead)
    }

    fn events(&self) -> &[End] {
        if self.stored.unsealed.is_empty() { self.stored.events.as_slice() } else { &self.stored.unsealed }
    }
}

/// Looks up the partition of a stream that is at its first byte. `identity` is the name that its
/// first line gives. `stored` returns how far a partition is stored.
///
/// # Errors
/// If the stream cannot be read, or cannot be read again.
pub fn look_up(
    stream: Stream,
    identity: &str,
    cluster: &str,
    heads: &mut Heads,
    stored: &mut dyn FnMut(&str) -> Option<Stored>,
) -> Result<Lookup, FileError> {
    let start = stream.carry[..stream.carry.len().min(HEAD_BYTES)].to_vec();
    let (same, longer, free) = (None, Vec::new(), identity.to_owned());
    let mut lookup = Lookup { stream, same, longer, end: None, is_unsure: false, free, start };
    let mut candidates = Vec::new();
    let number = take_named(identity, stored, &mut candidates);
    if candidates.is_empty() {
        return Ok(lookup);
    }
    if lookup.stream.is_pipe {
        return look_up_pipe(lookup, candidates);
    }
    let free = take_names(number, Names::new(lookup.stream.again()?, cluster), stored, &mut candidates);
    candidates.retain(|candidate| {
        let length = candidate.ends().map(|(offset, _)| *offset).min().unwrap_or(0);
        !heads.differs(&candidate.partition, &lookup.start, length)
    });
    let mut walk = lookup.stream.again()?;
    let mut offsets: Vec<i64> = candidates.iter().flat_map(Candidate::ends).map(|end| end.0).collect();
    offsets.sort_unstable();
    offsets.dedup();
    let mut reached = HashMap::new();
    for offset in offsets {
        match walk.skip_to(offset)? {
            Skipped::To(prefix) => _ = reached.insert(offset, prefix),
            Skipped::Short(length, prefix) => {
                lookup.end = Some((length, prefix));
                break;
            }
        }
    }
    let same = compare(candidates, &reached, &mut lookup);
    match (same, free) {
        (Some((from, Candidate { partition, stored })), _) => {
            if walk.offset() != from {
                walk = lookup.stream.again()?;
                walk.skip_to(from)?;
            }
            if let Some((ahead, _)) = stored.rejects_ahead {
                walk.cut_at(ahead);
            }
            lookup.stream = walk;
            lookup.same = Some(partition);
        }
        (None, Some(free)) => lookup.free = free,
        (None, None) => {
            return Err(FileError::TooManyAlike { label: lookup.stream.input().label(), tries: ALIKE_MAX });
        }
    }
    Ok(lookup)
}

/// Compares the candidates with the hashes of the stream at the offsets that it `reached`. Returns
/// the candidate that has most of the stream.
fn compare(
    candidates: Vec<Candidate>,
    reached: &HashMap<i64, Fingerprint>,
    lookup: &mut Lookup,
) -> Option<(i64, Candidate)> {
    let is_reached = |end: &End| reached.get(&end.0) == Some(&end.1);
    let is_beyond = |end: &End| !reached.contains_key(&end.0);
    let mut same: Option<(i64, Candidate)> = None;
    for candidate in candidates {
        let Stored { events, rejects_ahead, unsealed } = &candidate.stored;
        if rejects_ahead.as_ref().is_some_and(|ahead| !is_reached(ahead)) {
            continue;
        }
        if !unsealed.is_empty() {
            lookup.is_unsure |= unsealed.iter().any(|end| is_reached(end) || is_beyond(end));
            continue;
        }
        match *events {
            Some(known) if is_beyond(&known) => lookup.longer.push((candidate.partition, known.0)),
            Some(known) if !is_reached(&known) => {}
            known => {
                let from = known.map_or(0, |known| known.0);
                if same.as_ref().is_none_or(|(most, _)| *most < from) {
                    same = Some((from, candidate));
                }
            }
        }
    }
    same
}

/// Looks up a stream that can be read only once, so that only the first partition can be compared.
fn look_up_pipe(mut lookup: Lookup, candidates: Vec<Candidate>) -> Result<Lookup, FileError> {
    let differs = FileError::PipeDiffers { label: lookup.stream.input().label() };
    let Some(Candidate { partition, stored }) = candidates.into_iter().next() else { return Ok(lookup) };
    if !stored.unsealed.is_empty() {
        return Ok(Lookup { is_unsure: true, ..lookup });
    }
    let (Some(known), None) = (stored.events, stored.rejects_ahead) else { return Err(differs) };
    match lookup.stream.skip_to(known.0)? {
        Skipped::To(prefix) if prefix == known.1 => lookup.same = Some(partition),
        Skipped::To(_) => return Err(differs),
        Skipped::Short(length, prefix) => {
            lookup.longer.push((partition, known.0));
            lookup.end = Some((length, prefix));
        }
    }
    Ok(lookup)
}

/// Adds the partitions of each of `names` to the candidates, up to the first name that no partition
/// has, and returns that name. If all names are in use, returns a free numbered form of the last
/// one. `number` is the free form of the name before the first. `None` if there are too many.
fn take_names(
    mut number: Option<String>,
    mut names: Names<'_>,
    stored: &mut dyn FnMut(&str) -> Option<Stored>,
    candidates: &mut Vec<Candidate>,
) -> Option<String> {
    while let Some(name) = names.next() {
        let known = candidates.len();
        number = take_named(&name, stored, candidates);
        if candidates.len() == known {
            break;
        }
    }
    number
}

/// Adds the partitions that have this name, alone or with a number, to the candidates. Returns the
/// first form that no partition has; `None` if there are too many.
fn take_named(
    name: &str,
    stored: &mut dyn FnMut(&str) -> Option<Stored>,
    candidates: &mut Vec<Candidate>,
) -> Option<String> {
    for number in 0..ALIKE_MAX {
        let partition = if number == 0 { name.to_owned() } else { format!("{name}.{number}") };
        match stored(&partition) {
            Some(stored) => candidates.push(Candidate { partition, stored }),
            None => return Some(partition),
        }
    }
    None
}

/// The names of a stream after its second line, its third line, and so on.
struct Names<'n> {
    stream: Stream,
    cluster: &'n str,
    /// The hash of everything before the end of the line, without a carriage return at that end.
    hasher: blake3::Hasher,
    /// A carriage return that is not hashed yet.
    is_returned: bool,
    /// How many bytes of the stream's carry were taken.
    at: usize,
    line_bytes: usize,
    is_first: bool,
    /// The last byte that is not white space.
    last: u8,
    is_over: bool,
}

impl<'n> Names<'n> {
    fn new(stream: Stream, cluster: &'n str) -> Self {
        let hasher = blake3::Hasher::new();
        let (at, line_bytes, last) = (0, 0, 0);
        Names {
            stream,
            cluster,
            hasher,
            is_returned: false,
            at,
            line_bytes,
            is_first: true,
            last,
            is_over: false,
        }
    }

    /// Returns the next name. `None` at the end, or where the stream cannot be read; the next
    /// reader of the stream reports that error.
    fn next(&mut self) -> Option<String> {
        while !self.is_over {
            if self.at >= self.stream.carry.len() {
                self.stream.carry.clear();
                self.at = 0;
                if self.stream.fill_carry(READ_BUFFER_BYTES).is_err() {
                    self.is_over = true;
                    return None;
                }
            }
            let rest = &self.stream.carry[self.at..];
            let newline = memchr::memchr(b'\n', rest);
            let text = rest[..newline.unwrap_or(rest.len())].to_vec();
            self.is_over = rest.is_empty();
            self.take(&text);
            self.at += text.len();
            // The first line, up to a maximum length, has a name of its own.
            let is_named = !self.is_first || self.line_bytes > self.stream.identity_bytes_max();
            if newline.is_some() {
                let name = is_named.then(|| self.name());
                self.take(b"\n");
                self.at += 1;
                (self.line_bytes, self.is_first) = (0, false);
                if name.is_some() {
                    return name;
                }
            } else if self.is_over && is_named && self.line_bytes > 0 {
                // The last line may be complete without a newline.
                let is_whole = self.stream.is_final || matches!(self.last, b'}' | b']');
                return is_whole.then(|| self.name());
            }
        }
        None
    }

    fn take(&mut self, text: &[u8]) {
        let Some(last) = text.last() else { return };
        if std::mem::take(&mut self.is_returned) {
            self.hasher.update(b"\r");
        }
        self.is_returned = *last == b'\r';
        self.hasher.update(&text[..text.len() - usize::from(self.is_returned)]);
        self.line_bytes += text.len();
        if let Some(last) = text.trim_ascii_end().last() {
            self.last = *last;
        }
    }

    fn name(&self) -> String {
        // No first line begins with a newline, so these bytes never equal those of a first line's
        // name.
        partition_of(self.cluster, &[b"\n", self.hasher.finalize().as_bytes()])
    }
}

/// The beginnings of streams that were met, by partition. Most streams that begin alike differ soon
/// after, and then need not be compared with the archive.
#[derive(Debug, Default)]
pub struct Heads {
    heads: HashMap<String, Head>,
    uses: u64,
}

#[derive(Debug)]
struct Head {
    bytes: Vec<u8>,
    /// The end of what is known of the stream; `bytes` may end earlier.
    end: i64,
    used: u64,
}

impl Heads {
    /// Returns how many bytes are kept of a partition that ends at `end`.
    pub fn length(end: i64) -> i64 {
        end.min(i64::try_from(HEAD_BYTES).unwrap_or(i64::MAX))
    }

    /// Whether as much is kept of a partition as can be, if it ends at `end`.
    pub fn has(&self, partition: &str, end: i64) -> bool {
        self.heads.get(partition).is_some_and(|head| head.end >= Heads::length(end))
    }

    /// Remembers `bytes` as all that is known of the beginning of a partition, up to `end`.
    pub fn remember(&mut self, partition: &str, bytes: Vec<u8>, end: i64) {
        if self.heads.len() >= HEADS_MAX && !self.heads.contains_key(partition) {
            let oldest = self.heads.iter().min_by_key(|(_, head)| head.used).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                self.heads.remove(&oldest);
            }
        }
        self.uses += 1;
        self.heads.insert(partition.to_owned(), Head { bytes, end, used: self.uses });
    }

    /// Remembers the beginning of a stream that belongs to this partition.
    pub fn remember_start(&mut self, partition: &str, start: Vec<u8>) {
        let end = i64::try_from(start.len()).unwrap_or(i64::MAX);
        self.remember(partition, start, end);
    }

    /// Whether a stream that begins with `start` certainly differs from the first `length` bytes of
    /// a partition.
    pub fn differs(&mut self, partition: &str, start: &[u8], length: i64) -> bool {
        let Some(head) = self.heads.get_mut(partition) else { return false };
        self.uses += 1;
        head.used = self.uses;
        let length = usize::try_from(length).unwrap_or(0).min(head.bytes.len()).min(start.len());
        head.bytes[..length] != start[..length]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::{BlockBounds, Input};
    use super::*;

    /// An archive for tests. It keeps what was stored, and takes all of a stream or all of its
    /// whole lines.
    #[derive(Default)]
    struct Archive {
        streams: HashMap<String, Vec<u8>>,
        heads: Heads,
    }

    fn end(bytes: &[u8]) -> End {
        let hash = blake3::hash(bytes).as_bytes()[..16].try_into().expect("16 of 32 bytes");
        (i64::try_from(bytes.len()).expect("short"), hash)
    }

    impl Archive {
        /// Stores a file; returns how many bytes of it are new.
        fn store(&mut self, path: &Path, text: &[u8]) -> usize {
            std::fs::write(path, text).expect("written");
            let bounds = BlockBounds { bytes_max: 4096, lines_max: 100, line_bytes_max: 1000 };
            let input = Input::File(path.to_owned());
            let mut stream =
                Stream::open(input, bounds, false, Arc::default(), Arc::default()).expect("opens");
            let identity = stream.identity("c").expect("read").expect("not empty");
            let streams = &self.streams;
            let mut stored = |name: &str| {
                let events = streams.get(name).map(|bytes| end(bytes));
                events.map(|events| Stored { events: Some(events), ..Stored::default() })
            };
            let found = look_up(stream, &identity, "c", &mut self.heads, &mut stored).expect("looked up");
            let at = usize::try_from(found.stream.offset()).expect("an offset");
            if let Some(same) = &found.same {
                assert_eq!(self.streams[same], text[..at], "the stream is after what is stored");
            }
            let is_whole = found.same.is_some() && at == text.len();
            if !is_whole && found.longer.iter().any(|(name, _)| self.streams[name].starts_with(text)) {
                return 0;
            }
            assert!(found.same.is_some() || !self.streams.contains_key(&found.free), "a name is given twice");
            let partition = found.same.unwrap_or(found.free);
            self.heads.remember_start(&partition, found.start);
            let all = text.ends_with(b"}").then_some(text.len());
            let whole = all.or(text.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1)).unwrap_or(0);
            self.streams.insert(partition, text[..whole.max(at)].to_vec());
            whole.saturating_sub(at)
        }
    }

    proptest! {
        /// Whatever lines the streams share, each is stored once, and continues where it stopped.
        #[test]
        fn streams_that_begin_alike_are_told_apart(
            logs in proptest::collection::vec("([ab]\r?\n){1,4}[}]?", 1..40),
            grown in "([ab]\n){1,3}",
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("log");
            let mut archive = Archive::default();
            for log in &logs {
                archive.store(&path, log.as_bytes());
                prop_assert!(archive.streams.values().any(|stored| log.as_bytes().starts_with(stored)
                    || stored.starts_with(log.as_bytes())), "{log:?} was not stored");
            }
            for heads in [None, Some(Heads::default())] {
                archive.heads = heads.unwrap_or(std::mem::take(&mut archive.heads));
                for log in &logs {
                    prop_assert_eq!(archive.store(&path, log.as_bytes()), 0, "{:?} is stored twice", log);
                }
            }
            // A stream that is the beginning of a longer one has no partition of its own.
            let is_longest = |log: &&String| logs.iter().all(|other| other == *log || !other.starts_with(*log));
            let longest = logs.iter().find(|log| log.ends_with('\n') && is_longest(log));
            if let Some(log) = longest {
                let more = format!("{log}c\n{grown}");
                let streams = archive.streams.len();
                prop_assert_eq!(archive.store(&path, more.as_bytes()), more.len() - log.len());
                prop_assert_eq!(archive.streams.len(), streams);
            }
        }
    }

    /// Names of earlier versions, which numbered all streams that begin with the same line.
    #[test]
    fn numbered_partitions_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut archive = Archive::default();
        let log = |number: usize| format!("[\n{{\"auditID\":\"{number}\"}}\n]\n");
        archive.store(&path, log(0).as_bytes());
        let first = archive.streams.keys().next().expect("a stream").clone();
        for number in 1..ALIKE_MAX {
            archive.streams.insert(format!("{first}.{number}"), log(number).into_bytes());
        }
        for number in (0..ALIKE_MAX).rev() {
            assert_eq!(archive.store(&path, log(number).as_bytes()), 0);
            let more = log(number) + "{}\n";
            assert_eq!(archive.store(&path, more.as_bytes()), 3);
        }
        assert_eq!(archive.streams.len(), ALIKE_MAX);
        for number in ALIKE_MAX..2 * ALIKE_MAX {
            assert_eq!(archive.store(&path, log(number).as_bytes()), log(number).len());
            assert_eq!(archive.store(&path, log(number).as_bytes()), 0);
        }
        assert_eq!(archive.streams.len(), 2 * ALIKE_MAX);
    }

    #[test]
    fn few_beginnings_are_kept() {
        let mut heads = Heads::default();
        for number in 0..HEADS_MAX + 9 {
            heads.remember_start(&number.to_string(), vec![1]);
            assert!(heads.differs("0", &[2], 1), "a beginning that is used is kept");
        }
        assert_eq!(heads.heads.len(), HEADS_MAX);
    }
}
