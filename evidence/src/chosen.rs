//! The rows that a question chose, kept on disk.
//!
//! Invariant: the rows of a source are added one after another, without rows of other sources
//! between them, with ascending offsets; and they are taken in that order. So memory does not grow
//! with the number of rows, and a row that is never taken is noticed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Number of offsets that are read at once.
const READ_OFFSETS: usize = 4096;
const OFFSET_BYTES: u64 = 8;

/// Source partitions and offsets of rows, ordered by both.
#[derive(Debug)]
pub struct Chosen {
    out: BufWriter<File>,
    /// For each source: the place in the file of the next offset to take, and the end of the
    /// source's offsets. Both are counted in offsets from the start of the file.
    sources: HashMap<String, (u64, u64)>,
    last: Option<(String, i64)>,
    rows: u64,
}

impl Chosen {
    /// Returns a value without rows. Rows that are added are kept in a file without a name in
    /// `folder`.
    ///
    /// # Errors
    /// If no file can be created there.
    pub fn in_folder(folder: &Path) -> io::Result<Chosen> {
        let file = tempfile::tempfile_in(folder)?;
        Ok(Chosen { out: BufWriter::new(file), sources: HashMap::new(), last: None, rows: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Of kind `InvalidData` for a row that is not after the previous row in the order of the
    /// invariant: two rows of one source never have the same offset.
    pub fn push(&mut self, source: &str, offset: i64) -> io::Result<()> {
        let follows = match &mut self.last {
            Some((last, at)) if last == source => {
                let follows = *at < offset;
                *at = offset;
                follows
            }
            last => {
                *last = Some((source.to_owned(), offset));
                !self.sources.contains_key(source)
            }
        };
        if !follows {
            let detail = format!("source {source:.200} has offset {offset} twice, or out of order");
            return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        }
        self.out.write_all(&offset.to_le_bytes())?;
        self.rows += 1;
        match self.sources.get_mut(source) {
            Some((_, end)) => *end = self.rows,
            None => _ = self.sources.insert(source.to_owned(), (self.rows - 1, self.rows)),
        }
        Ok(())
    }

    /// Prepares the added rows for [`Chosen::take`].
    ///
    /// # Errors
    /// If the disk fails.
    pub fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Takes the offsets of a source up to and including `last` that were not taken yet, and
    /// returns them.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn take(&mut self, source: &str, last: i64) -> io::Result<Vec<i64>> {
        let Some((next, end)) = self.sources.get_mut(source) else { return Ok(Vec::new()) };
        let (file, mut taken) = (self.out.get_ref(), Vec::new());
        let mut bytes = vec![0; READ_OFFSETS * OFFSET_BYTES as usize];
        while *next < *end {
            let some = (*end - *next).min(READ_OFFSETS as u64);
            let read = &mut bytes[..(some * OFFSET_BYTES) as usize];
            file.read_exact_at(read, *next * OFFSET_BYTES)?;
            let offsets = read.chunks_exact(8).map(|offset| {
                i64::from_le_bytes(offset.try_into().expect("a chunk of eight bytes has eight bytes"))
            });
            let before = taken.len();
            taken.extend(offsets.take_while(|offset| *offset <= last));
            let new = (taken.len() - before) as u64;
            *next += new;
            if new < some {
                break;
            }
        }
        Ok(taken)
    }

    /// Returns the number of rows that were not taken.
    pub(super) fn left(&self) -> u64 {
        self.sources.values().map(|(next, end)| end - next).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_in_order_and_what_is_left_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut chosen = Chosen::in_folder(folder.path()).expect("a file");
        for offset in 0..10_000 {
            chosen.push("a", offset * 3).expect("in order");
        }
        chosen.push("b", -5).expect("another source");
        assert!(chosen.push("b", -5).is_err(), "twice");
        chosen.finish().expect("written");
        assert_eq!(chosen.take("a", -1).expect("read"), Vec::<i64>::new());
        assert_eq!(chosen.take("a", 6).expect("read"), [0, 3, 6]);
        assert_eq!(chosen.take("a", 29_000).expect("read").len(), 9664);
        assert_eq!(chosen.take("none", 6).expect("read"), Vec::<i64>::new());
        assert_eq!(chosen.left(), 10_000 - 3 - 9664 + 1);
        assert_eq!(chosen.take("b", 0).expect("read"), [-5]);
        assert_eq!(chosen.take("a", i64::MAX).expect("read").last(), Some(&29_997));
        assert_eq!(chosen.left(), 0);
    }

    #[test]
    fn a_source_that_comes_again_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut chosen = Chosen::in_folder(folder.path()).expect("a file");
        chosen.push("a", 1).expect("first");
        chosen.push("b", 1).expect("second");
        assert!(chosen.push("a", 2).is_err());
    }
}
