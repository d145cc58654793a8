//! Writes findings as lines of JSON to a file, or to standard output.
//!
//! Invariants: an alert is taken when its line is synced (a pipe is only flushed). A file that was
//! renamed or deleted, for instance by log rotation, is opened again before the next lines. If
//! lines cannot be written completely, the file is cut back to its length before the write. After a
//! crash the last line may be partial. When the file is opened again, [`end_last_line`] removes
//! that line or ends it with a newline, so that the next finding starts a line of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom_schemas::Alert;

use super::{Outcome, Sink, finding};

const BATCH_MAX: usize = 512;
/// The first bytes of every finding. A last line that agrees with them, as far as it goes, is taken
/// for a finding.
const FINDING_START: &[u8] = br#"{"activity_id":1,"activity_name":"Create","category_name":"Findings","#;
/// Number of bytes at the end of a file that are searched for the start of its last line. A finding
/// is shorter.
const LAST_LINE_BYTES_MAX: u64 = 4 << 20;

/// Opens a file to append lines to, and ends its last line.
///
/// # Errors
/// If it cannot be opened, or its last line cannot be ended.
pub fn open_lines(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.create(true).append(true);
    // A file that this process may write but not read is opened all the same. Its last line cannot
    // be checked.
    let file = options.read(true).open(path).or_else(|_| options.read(false).open(path))?;
    end_last_line(&file)?;
    Ok(file)
}

/// Ends the last line of a file to which lines are appended, if a crash cut that line off. A
/// partial finding is removed, because its alert is written again. Any other line may be somebody
/// else's, so it is kept and gets its newline.
///
/// # Errors
/// If the file cannot be written.
pub fn end_last_line(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(());
    }
    let start = metadata.len().saturating_sub(LAST_LINE_BYTES_MAX);
    let mut end = vec![0; usize::try_from(metadata.len() - start).unwrap_or_default()];
    if file.read_exact_at(&mut end, start).is_err() {
        return Ok(());
    }
    let line = match end.iter().rposition(|byte| *byte == b'\n') {
        Some(newline) => &end[newline + 1..],
        None if start == 0 => &end[..],
        None => return (&*file).write_all(b"\n"),
    };
    let known = line.len().min(FINDING_START.len());
    let is_finding = line[..known] == FINDING_START[..known];
    let is_whole = || serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
    match line {
        [] => Ok(()),
        line if is_finding && !is_whole() => file.set_len(metadata.len() - line.len() as u64),
        _ => (&*file).write_all(b"\n"),
    }
}

/// Appends lines to a file; if they cannot be written completely, the file keeps its length.
///
/// # Errors
/// If the file cannot be written.
pub fn append_lines(file: &mut File, lines: &[u8]) -> io::Result<()> {
    let metadata = file.metadata()?;
    let written = file.write_all(lines);
    if written.is_err() && metadata.is_file() {
        // A partial line would corrupt the next one. If this fails too, the disk is broken.
        let _ = file.set_len(metadata.len());
    }
    written
}

/// Returns the finding of an alert as a line of JSON, with its newline.
pub fn finding_line(alert: &Alert) -> Vec<u8> {
    let mut line = finding(alert);
    line.push(b'\n');
    line
}

fn lines(alerts: &[Arc<Alert>]) -> Vec<u8> {
    alerts.iter().flat_map(|alert| finding_line(alert)).collect()
}

fn all(outcome: &Outcome, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
    alerts.iter().map(|_| outcome.clone()).collect()
}

/// A sink that appends to a file.
pub struct FileSink {
    path: PathBuf,
    open: Option<File>,
}

impl FileSink {
    pub fn new(path: PathBuf) -> FileSink {
        FileSink { path, open: None }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let at_path = std::fs::metadata(&self.path).ok().map(|found| (found.dev(), found.ino()));
        let open = self.open.as_ref().and_then(|file| file.metadata().ok());
        if open.is_none_or(|open| at_path != Some((open.dev(), open.ino()))) {
            self.open = None;
        }
        let file = match &mut self.open {
            Some(file) => file,
            none => none.insert(open_lines(&self.path, OpenOptions::new().mode(0o640))?),
        };
        append_lines(file, lines)?;
        if file.metadata()?.is_file() { file.sync_data() } else { Ok(()) }
    }
}

impl Sink for FileSink {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        let outcome = match self.append(&lines(alerts)) {
            Ok(()) => Outcome::Taken,
            Err(error) => Outcome::later(format!("cannot write {}: {error}", self.path.display())),
        };
        all(&outcome, alerts)
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn answer(&self) -> String {
        format!("written to {}", self.path.display())
    }
}

/// A sink that writes to standard output, or to another writer in its place.
pub struct StdoutSink<W> {
    out: W,
}

impl<W: Write + Send> StdoutSink<W> {
    pub fn new(out: W) -> Self {
        StdoutSink { out }
    }
}

impl<W: Write + Send> Sink for StdoutSink<W> {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        let written = self.out.write_all(&lines(alerts)).and_then(|()| self.out.flush());
        let outcome = match written {
            Ok(()) => Outcome::Taken,
            Err(error) => Outcome::later(format!("cannot write to standard output: {error}")),
        };
        all(&outcome, alerts)
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::alert;

    #[test]
    fn a_rotated_file_is_left_alone_and_the_new_one_continues() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = (folder.path().join("a.jsonl"), folder.path().join("a.jsonl.1"));
        let mut sink = FileSink::new(path.clone());
        let send = |sink: &mut FileSink, number| {
            assert_eq!(sink.send(&[Arc::new(alert(number))]), [Outcome::Taken]);
        };
        send(&mut sink, 1);
        send(&mut sink, 2);
        std::fs::rename(&path, &old).expect("rotated");
        send(&mut sink, 3);
        std::fs::remove_file(&path).expect("removed");
        send(&mut sink, 4);
        let lines = |path| std::fs::read_to_string(path).expect("lines").lines().count();
        assert_eq!((lines(&old), lines(&path)), (2, 1));
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_never_joined_to_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        let (first, second) = (finding_line(&alert(1)), finding_line(&alert(2)));
        assert!(first.starts_with(FINDING_START));
        for cut in [0, 1, 10, FINDING_START.len(), 100, second.len() - 2, second.len() - 1, second.len()] {
            std::fs::write(&path, [&first[..], &second[..cut]].concat()).expect("written");
            let mut sink = FileSink::new(path.clone());
            assert_eq!(sink.send(&[Arc::new(alert(2))]), [Outcome::Taken]);
            // A whole line that only lacks its newline is kept.
            let kept: &[u8] = if cut >= second.len() - 1 { &second } else { b"" };
            assert!(std::fs::read(&path).expect("lines") == [&first, kept, &second].concat(), "{cut}");
        }
        std::fs::write(&path, "somebody's note").expect("written");
        assert_eq!(FileSink::new(path.clone()).send(&[Arc::new(alert(1))]), [Outcome::Taken]);
        let expected = [b"somebody's note\n", &first[..]].concat();
        assert!(std::fs::read(&path).expect("lines") == expected);
    }

    #[test]
    fn what_cannot_be_written_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sink = FileSink::new(folder.path().join("none/a.jsonl"));
        assert!(matches!(&sink.send(&[Arc::new(alert(1))])[..], [Outcome::Later { .. }]));
    }
}
