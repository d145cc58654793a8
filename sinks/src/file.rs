//! Findings as lines of JSON: to a file, and to standard output.
//!
//! Invariants: an alert is taken when its line is synced (a pipe is only flushed). A file that was
//! renamed or deleted, for instance by log rotation, is opened again before the next lines. If
//! lines cannot be written completely, the file is cut back to its length before the write. After a
//! crash the last line may be partial.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use strongroom_schemas::Alert;

use super::{Outcome, Sink, finding};

const BATCH_MAX: usize = 512;

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

    fn append(&mut self, lines: &[u8]) -> std::io::Result<()> {
        let at_path = std::fs::metadata(&self.path).ok().map(|found| (found.dev(), found.ino()));
        let open = self.open.as_ref().and_then(|file| file.metadata().ok());
        if open.is_none_or(|open| at_path != Some((open.dev(), open.ino()))) {
            self.open = None;
        }
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?;
                none.insert(file)
            }
        };
        let metadata = file.metadata()?;
        let sync = |file: &File| if metadata.is_file() { file.sync_data() } else { Ok(()) };
        let written = file.write_all(lines).and_then(|()| sync(file));
        if written.is_err() && metadata.is_file() {
            // A partial line would corrupt the next one. If this fails too, the disk is broken.
            let _ = file.set_len(metadata.len());
        }
        written
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
    fn what_cannot_be_written_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sink = FileSink::new(folder.path().join("none/a.jsonl"));
        assert!(matches!(&sink.send(&[Arc::new(alert(1))])[..], [Outcome::Later { .. }]));
    }
}
