//! Reads the write-ahead log, and hands over its durable text. For each cluster it starts where the
//! archive ends.
//!
//! Invariants:
//! - Only text that is durable in the log is handed over, so a crash cannot take back text that is
//!   in the archive.
//! - A run starts where the archive says, and nowhere else. If the log does not contain that
//!   position, or has other bytes before it (as in a folder restored from a copy), the run ends
//!   with an explanation. Nothing is skipped.
//! - Every record's checksum is verified when it is read.
//! - A segment is deleted when all of its text is sealed in the archive.
//!
//! A crash loses nothing: the next run asks the archive for the positions again.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strongroom_archive::fingerprint::LineChain;
use strongroom_journal::now_ms;
use strongroom_lines::Reading;
use strongroom_lines::frame::{Block, Edge, Origin};

use super::cipher::clear_bytes;
use super::record::{End, RecordHead};
use super::wal::{self, Segment, Wal, WalError};
use crate::{Chunk, Feed, Source, SourceError, Stopped, StreamName};

/// Maximum size of a chunk's text, unless one line alone is longer.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// How often seals are checked while nothing arrives.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// A source that hands over what the listener has acknowledged.
#[derive(Debug)]
pub struct WebhookSource {
    pub(super) name: String,
    pub(super) wal: Arc<Wal>,
    /// Number of items in repeated batches that were not reported to a pipeline yet.
    pub(super) duplicates: Arc<AtomicU64>,
    /// For each cluster, how its records are read.
    pub(super) readings: HashMap<String, Arc<Reading>>,
}

enum Ended {
    Stopped,
    Failed(SourceError),
}

impl From<Stopped> for Ended {
    fn from(_: Stopped) -> Self {
        Ended::Stopped
    }
}

impl From<WalError> for Ended {
    fn from(error: WalError) -> Self {
        let message = "the webhook's write-ahead log cannot be read".to_owned();
        Ended::Failed(SourceError { message, source: Some(Box::new(error)) })
    }
}

fn failed(message: String) -> Ended {
    Ended::Failed(SourceError { message, source: None })
}

impl Source for WebhookSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, feed: &Feed) -> Result<(), SourceError> {
        match self.follow(feed) {
            Ok(()) | Err(Ended::Stopped) => Ok(()),
            Err(Ended::Failed(error)) => Err(error),
        }
    }
}

/// How far a cluster's stream is handed over, and the text to hand over next.
struct Cursor {
    origin: Arc<Origin>,
    stream: Arc<StreamName>,
    reached: End,
    /// Set while `reached` comes from the archive, and no record of the log has confirmed it.
    unconfirmed: bool,
    text: Vec<u8>,
    arrived: Instant,
}

/// A segment that is being read.
struct Open {
    segment: Segment,
    file: File,
}

impl WebhookSource {
    /// Returns the common beginning of the names of this log's partitions.
    fn prefix(&self) -> String {
        format!("webhook/{}/{}/", self.name, self.wal.id)
    }

    fn follow(&self, feed: &Feed) -> Result<(), Ended> {
        let (segments, end) = self.wal.segments();
        let clusters = self.wal.clusters();
        let mut cursors = self.cursors(feed, &segments, &clusters)?;
        let needed = |pair: &&[Segment]| {
            pair[1].begins.iter().any(|(cluster, end)| {
                cursors.get(cluster).is_none_or(|cursor| cursor.reached.offset < end.offset)
            })
        };
        let unread =
            segments.windows(2).position(|pair| needed(&pair)).unwrap_or(segments.len().saturating_sub(1));
        let mut at = segments.get(unread).map_or(end, |segment| segment.start);
        let mut open = None;
        loop {
            self.report(feed)?;
            let end = self.wal.wait_beyond(at, CHECK_INTERVAL);
            feed.lag(i64::try_from(end - at).unwrap_or(i64::MAX));
            while at < end {
                at = self.hand_over(feed, &mut cursors, &mut open, at, end)?;
                feed.lag(i64::try_from(end - at).unwrap_or(i64::MAX));
                self.report(feed)?;
            }
        }
    }

    /// Returns where each cluster's stream continues, after comparing the archive's positions with
    /// the log.
    fn cursors(
        &self,
        feed: &Feed,
        segments: &[Segment],
        clusters: &BTreeMap<String, End>,
    ) -> Result<HashMap<String, Cursor>, Ended> {
        let prefix = self.prefix();
        for (partition, position) in feed.sealed_partitions(&prefix) {
            if !partition.strip_prefix(&prefix).is_some_and(|cluster| clusters.contains_key(cluster)) {
                return Err(failed(format!(
                    "the archive has {partition} up to byte {}, but the write-ahead log does not have it: \
                     was its folder restored from a copy?",
                    position.next_offset
                )));
            }
        }
        let mut cursors = HashMap::new();
        for (cluster, end) in clusters {
            let cursor = self.cursor(feed, cluster);
            let (reached, partition) = (cursor.reached, &cursor.stream.partition);
            let oldest = segments.first().map_or(end.offset, |segment| segment.begin_of(cluster));
            if reached.offset < oldest || reached.offset > end.offset {
                return Err(failed(format!(
                    "the archive has {partition} up to byte {}, but the write-ahead log has bytes {oldest} to \
                     {} of it: was one of them restored from a copy?",
                    reached.offset, end.offset
                )));
            }
            if reached.offset == end.offset && reached.chain != end.chain {
                return Err(self.diverged(&cursor));
            }
            cursors.insert(cluster.clone(), cursor);
        }
        Ok(cursors)
    }

    fn diverged(&self, cursor: &Cursor) -> Ended {
        failed(format!(
            "the archive and the write-ahead log have different bytes of {} before byte {}: was the folder restored \
             from a copy?",
            cursor.stream.partition, cursor.reached.offset
        ))
    }

    fn cursor(&self, feed: &Feed, cluster: &str) -> Cursor {
        let partition = format!("{}{cluster}", self.prefix());
        let position = feed.position(&partition);
        let reached = position.map_or_else(End::default, |position| End {
            offset: u64::try_from(position.next_offset).unwrap_or(0),
            lines: u64::try_from(position.records).unwrap_or(0),
            chain: position.prefix_blake3,
        });
        Cursor {
            origin: Arc::new(Origin {
                partition: partition.clone(),
                cluster: cluster.to_owned(),
                reading: self.readings.get(cluster).cloned().unwrap_or_default(),
            }),
            stream: Arc::new(StreamName { partition, label: format!("webhook {} ({cluster})", self.name) }),
            reached,
            unconfirmed: true,
            text: Vec::new(),
            arrived: Instant::now(),
        }
    }

    /// Reports repeated batches to the pipeline, and deletes segments that are sealed.
    fn report(&self, feed: &Feed) -> Result<(), Stopped> {
        let duplicates = self.duplicates.swap(0, Ordering::Relaxed);
        if duplicates > 0
            && let Err(stopped) = feed.duplicates(duplicates)
        {
            self.duplicates.fetch_add(duplicates, Ordering::Relaxed);
            return Err(stopped);
        }
        let prefix = self.prefix();
        let trimmed = self.wal.trim(|cluster| {
            let sealed = feed.sealed(&format!("{prefix}{cluster}"))?;
            u64::try_from(sealed.next_offset).ok()
        });
        match (trimmed, self.wal.trouble()) {
            (_, Some(trouble)) => feed.trouble(trouble),
            (Err(error), None) => feed.trouble(error),
            (Ok(()), None) => feed.recovered(),
        }
        if feed.is_stopping() { Err(Stopped) } else { Ok(()) }
    }

    /// Hands over the records from `at` on, up to the length of a chunk. Returns the end of these
    /// records.
    fn hand_over(
        &self,
        feed: &Feed,
        cursors: &mut HashMap<String, Cursor>,
        open: &mut Option<Open>,
        mut at: u64,
        end: u64,
    ) -> Result<u64, Ended> {
        let mut collected = 0;
        while at < end && collected < CHUNK_BYTES_MAX {
            let Some((segment, segment_end)) = self.wal.segment_at(at) else {
                return Err(failed(format!("the write-ahead log has no segment with its byte {at}")));
            };
            let file = match open {
                Some(open) if open.segment.start == segment.start => &open.file,
                _ => {
                    let cannot = |source| WalError::Read { path: segment.path.clone(), source };
                    let file = File::open(&segment.path).map_err(cannot)?;
                    &open.insert(Open { segment: segment.clone(), file }).file
                }
            };
            let head = head_at(&segment, file, at, segment_end)?;
            let cursor = match cursors.get_mut(&head.name) {
                Some(cursor) => cursor,
                None => cursors.entry(head.name.clone()).or_insert_with(|| self.cursor(feed, &head.name)),
            };
            collected += self.take(cursor, &segment, file, at, &head)?;
            at += head.record_bytes();
        }
        for cursor in cursors.values_mut() {
            cursor.flush(feed)?;
        }
        Ok(at)
    }

    /// Appends a record's text to the text gathered for its cluster, without the part that the
    /// archive has already.
    fn take(
        &self,
        cursor: &mut Cursor,
        segment: &Segment,
        file: &File,
        at: u64,
        head: &RecordHead,
    ) -> Result<usize, Ended> {
        let begins = head.begins.offset;
        let next = cursor.reached.offset + cursor.text.len() as u64;
        if begins + clear_bytes(segment.is_encrypted, head.text_bytes) <= next && cursor.unconfirmed {
            return Ok(0);
        }
        if begins > next || (begins < next && !cursor.unconfirmed) {
            return Err(failed(format!(
                "{} continues at byte {begins} in the write-ahead log, but byte {next} was expected",
                cursor.stream.partition
            )));
        }
        let text = match wal::read_text(file, segment.byte(at), head) {
            Ok(Some(text)) => self.wal.clear_text(segment, text, segment.byte(at) + head.text_at())?,
            Ok(None) => {
                return Err(damaged(segment, at + head.text_at(), "the text is not what was written").into());
            }
            Err(source) => return Err(WalError::Read { path: segment.path.clone(), source }.into()),
        };
        let (known, new) = text.split_at((next - begins) as usize);
        if cursor.unconfirmed {
            let mut chain = LineChain::from(head.begins.chain);
            chain.update(known);
            if chain.value() != Some(cursor.reached.chain) {
                return Err(self.diverged(cursor));
            }
            cursor.reached.lines = head.begins.lines + newlines(known);
            cursor.unconfirmed = false;
        }
        if cursor.text.is_empty() {
            let age = Duration::from_millis(now_ms().saturating_sub(head.received));
            let now = Instant::now();
            cursor.arrived = now.checked_sub(age).unwrap_or(now);
        }
        cursor.text.extend_from_slice(new);
        Ok(new.len())
    }
}

fn damaged(segment: &Segment, offset: u64, what: &'static str) -> WalError {
    WalError::Damaged { path: segment.path.clone(), byte: segment.byte(offset), what }
}

fn head_at(segment: &Segment, file: &File, at: u64, segment_end: u64) -> Result<RecordHead, WalError> {
    match wal::read_head(file, segment.byte(at), segment.byte(segment_end)) {
        Ok(Some(head)) => Ok(head),
        Ok(None) => Err(damaged(segment, at, "no record begins here, but one was acknowledged")),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(damaged(segment, at, "the file ends here, but a record was acknowledged"))
        }
        Err(source) => Err(WalError::Read { path: segment.path.clone(), source }),
    }
}

fn newlines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

impl Cursor {
    fn flush(&mut self, feed: &Feed) -> Result<(), Stopped> {
        let all = std::mem::take(&mut self.text);
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let (text, after) = rest.split_at(chunk_end(rest));
            let mut chain = LineChain::from(self.reached.chain);
            chain.update(text);
            let begins = self.reached;
            self.reached = End {
                offset: begins.offset + text.len() as u64,
                lines: begins.lines + newlines(text),
                // A chunk ends after a newline.
                chain: chain.value().unwrap_or_default(),
            };
            let block = Block {
                origin: Arc::clone(&self.origin),
                offset: i64::try_from(begins.offset).unwrap_or(i64::MAX),
                first_line: i64::try_from(begins.lines).unwrap_or(i64::MAX - 1) + 1,
                bytes: text.to_vec(),
                begins: Edge::Line,
                ends: Edge::Line,
                open_ended: false,
            };
            feed.send(Chunk {
                stream: Arc::clone(&self.stream),
                block,
                prefix: self.reached.chain,
                broker_offset: None,
                arrived: self.arrived,
            })?;
            rest = after;
        }
        Ok(())
    }
}

/// Returns where a chunk ends: after the last line that fits, or after the first line if none fits.
fn chunk_end(text: &[u8]) -> usize {
    if text.len() <= CHUNK_BYTES_MAX {
        return text.len();
    }
    let fits = memchr::memrchr(b'\n', &text[..CHUNK_BYTES_MAX]);
    fits.or_else(|| memchr::memchr(b'\n', text)).map_or(text.len(), |newline| newline + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_behind_lines() {
        let line = |length: usize| [vec![b'x'; length - 1], b"\n".to_vec()].concat();
        assert_eq!(chunk_end(&line(9)), 9);
        let long = line(CHUNK_BYTES_MAX + 5);
        assert_eq!(chunk_end(&[long.clone(), line(9)].concat()), long.len());
        assert_eq!(chunk_end(&[line(9), long].concat()), 9);
    }
}
