//! Reports what a followed path does not give: paths and patterns that match no file, files that
//! are not named like logs, and what this program wrote itself.
//!
//! Invariant: each of these is reported once, and again only after it has changed. What is
//! remembered, and what one report names, is bounded. A crash loses nothing: the next process
//! reports everything again.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strongroom_ingest::source::{FoundFiles, NoFile, Why};

/// Maximum number of names in one report.
const NAMES_MAX: usize = 8;
/// Longest name in a report, in characters.
const NAME_CHARS_MAX: usize = 200;
/// Maximum number of files that are remembered as reported.
const REPORTED_MAX: usize = 10_000;
/// Maximum number of folders of this program that are reported.
const OURS_MAX: usize = 100;
/// Shortest time between two reports of files that are left out.
const PAUSE: Duration = Duration::from_secs(60);

/// A report about followed paths, made after a scan.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Remark {
    WithoutFile {
        path: String,
        why: NoFile,
    },
    /// A path that had no file now has one.
    HasFile {
        path: String,
    },
    /// Some of the files that are left out, and the number of all others.
    LeftOut {
        names: Vec<String>,
        more: usize,
    },
    /// A folder that this program wrote.
    Ours {
        path: String,
        why: Why,
    },
}

impl Remark {
    pub(super) fn log(&self) {
        match self {
            Remark::WithoutFile { path, why } => {
                tracing::warn!(path, "nothing to follow here yet: {why}");
            }
            Remark::HasFile { path } => tracing::info!(path, "the path has a file now"),
            Remark::Ours { path, why } => tracing::warn!(path, "not read, because it is {why}"),
            Remark::LeftOut { names, more } => tracing::warn!(
                files = names.join(", "),
                more,
                "files are not read, because their names are not those of logs (*.log, *.json, *.jsonl, \
                 *.ndjson, plain, rotated or compressed); name them in paths, or use a pattern such as \
                 FOLDER/*, which matches any name"
            ),
        }
    }
}

/// What was reported already.
#[derive(Debug, Default)]
pub(super) struct Unread {
    without_file: HashMap<String, NoFile>,
    left_out: HashSet<PathBuf>,
    ours: HashSet<PathBuf>,
    last: Option<Instant>,
}

impl Unread {
    /// Returns the reports that are new since the last call.
    pub(super) fn remarks(&mut self, found: &FoundFiles, now: Instant) -> Vec<Remark> {
        let mut remarks = Vec::new();
        for (path, why) in &found.without_file {
            if self.without_file.insert(path.clone(), *why) != Some(*why) {
                remarks.push(Remark::WithoutFile { path: path.clone(), why: *why });
            }
        }
        self.without_file.retain(|path, _| {
            let still = found.without_file.iter().any(|(without, _)| without == path);
            if !still {
                remarks.push(Remark::HasFile { path: path.clone() });
            }
            still
        });
        for (path, why) in &found.ours {
            if self.ours.len() < OURS_MAX && self.ours.insert(path.clone()) {
                remarks.push(Remark::Ours { path: shown(path), why: *why });
            }
        }
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE) {
            remarks.extend(self.left_out(found, now));
        }
        remarks
    }

    fn left_out(&mut self, found: &FoundFiles, now: Instant) -> Option<Remark> {
        // A path may name a file that is left out of another path's folder.
        let is_new = |path: &&PathBuf| !self.left_out.contains(*path) && !found.files.contains(path);
        let new: Vec<PathBuf> = found.left_out.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return None;
        }
        self.last = Some(now);
        let names = new.iter().take(NAMES_MAX).map(|path| shown(path)).collect();
        let more = new.len().saturating_sub(NAMES_MAX);
        self.left_out.extend(new);
        if self.left_out.len() > REPORTED_MAX {
            let present: HashSet<&PathBuf> = found.left_out.iter().collect();
            self.left_out.retain(|path| present.contains(path));
        }
        Some(Remark::LeftOut { names, more })
    }
}

fn shown(path: &Path) -> String {
    let printable = path.display().to_string();
    printable.chars().flat_map(char::escape_debug).take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(without: &[&str], left_out: &[&str]) -> FoundFiles {
        FoundFiles {
            without_file: without.iter().map(|path| ((*path).to_owned(), NoFile::Missing)).collect(),
            left_out: left_out.iter().map(PathBuf::from).collect(),
            ..FoundFiles::default()
        }
    }

    #[test]
    fn a_path_without_a_file_is_reported_when_that_changes() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        let without = |path: &str| Remark::WithoutFile { path: path.to_owned(), why: NoFile::Missing };
        assert_eq!(unread.remarks(&found(&["a", "b"], &[]), now), [without("a"), without("b")]);
        assert_eq!(unread.remarks(&found(&["a", "b"], &[]), now), []);
        assert_eq!(unread.remarks(&found(&["a"], &[]), now), [Remark::HasFile { path: "b".to_owned() }]);
        assert_eq!(unread.remarks(&found(&["a", "b"], &[]), now), [without("b")]);
        let emptied = FoundFiles {
            without_file: vec![("a".to_owned(), NoFile::EmptyFolder), ("b".to_owned(), NoFile::Missing)],
            ..FoundFiles::default()
        };
        let remark = Remark::WithoutFile { path: "a".to_owned(), why: NoFile::EmptyFolder };
        assert_eq!(unread.remarks(&emptied, now), [remark]);
    }

    #[test]
    fn files_that_are_left_out_are_named_once_and_not_all_of_them() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        let left_out = |names: &[&str], more| Remark::LeftOut {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            more,
        };
        assert_eq!(unread.remarks(&found(&[], &["n/a", "n/b"]), now), [left_out(&["n/a", "n/b"], 0)]);
        let later = now + PAUSE;
        assert_eq!(unread.remarks(&found(&[], &["n/a", "n/b"]), later), []);
        // A file that disappeared and came back is not reported again.
        assert_eq!(unread.remarks(&found(&[], &["n/a"]), later), []);
        assert_eq!(unread.remarks(&found(&[], &["n/a", "n/b", "n/c"]), later), [left_out(&["n/c"], 0)]);
        // New names within the pause wait for its end.
        let many: Vec<String> = (0..20).map(|number| format!("n/\u{1b}{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(unread.remarks(&found(&[], &many), later + PAUSE / 2), []);
        let remarks = unread.remarks(&found(&[], &many), later + PAUSE);
        let [Remark::LeftOut { names, more: 12 }] = &remarks[..] else { panic!("{remarks:?}") };
        assert_eq!((names.len(), names[0].as_str()), (NAMES_MAX, "n/\\u{1b}0"));
    }

    #[test]
    fn what_the_program_wrote_is_named_once() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        let found = FoundFiles { ours: vec![(PathBuf::from("n/a\n"), Why::Archive)], ..found(&[], &[]) };
        let remark = Remark::Ours { path: "n/a\\n".to_owned(), why: Why::Archive };
        assert_eq!(unread.remarks(&found, now), [remark]);
        assert_eq!(unread.remarks(&found, now + PAUSE), []);
    }

    #[test]
    fn a_file_that_another_path_names_is_not_left_out() {
        let mut unread = Unread::default();
        let found = FoundFiles { files: vec![PathBuf::from("n/a")], ..found(&[], &["n/a"]) };
        assert_eq!(unread.remarks(&found, Instant::now()), []);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut unread, mut now) = (Unread::default(), Instant::now());
        for round in 0..30 {
            let names: Vec<String> = (0..1000).map(|number| format!("{round}/{number}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(unread.remarks(&found(&[], &names), now).len(), 1);
            now += PAUSE;
        }
        assert!(unread.left_out.len() <= REPORTED_MAX);
    }
}
