//! Counts files and folders that are found but not read, by the reason.
//!
//! Invariant: counts are exact, and at most [`EXAMPLES_MAX`] names are kept. No IO.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Maximum number of names in [`PassedOver::examples`].
const EXAMPLES_MAX: usize = 20;

/// The files and folders that were found but are not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    pub counts: BTreeMap<Why, u64>,
    /// The first of them; at most a few of each kind.
    pub examples: Vec<(PathBuf, Why)>,
}

impl PassedOver {
    pub(crate) fn add(&mut self, path: PathBuf, why: Why) {
        let count = self.counts.entry(why).or_insert(0);
        *count += 1;
        // Names of one kind must not take the places of other kinds.
        if self.examples.len() < EXAMPLES_MAX && *count <= EXAMPLES_MAX as u64 / 4 {
            self.examples.push((path, why));
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// Why something in a folder is not an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    Archive,
    Journal,
    Delta,
    Output,
    Hidden,
    LostFound,
    LinkToFolder,
    BrokenLink,
    NotAFile,
    Unfinished,
    OtherKind,
    Empty,
    Binary,
    NoRecord,
}

impl Why {
    /// Whether the reason concerns folders, not files.
    pub fn is_folder(self) -> bool {
        matches!(self, Why::Archive | Why::Journal | Why::Delta | Why::LostFound | Why::LinkToFolder)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Archive => "an archive of Strongroom",
            Why::Journal => "an outbox or a write-ahead log of Strongroom",
            Why::Delta => "a Delta table",
            Why::Output => "written by this command",
            Why::Hidden => "hidden",
            Why::LostFound => "the file system's own",
            Why::LinkToFolder => "a link to a folder",
            Why::BrokenLink => "a link to nothing",
            Why::NotAFile => "a socket, a pipe or a device",
            Why::Unfinished => "an editor's backup or an unfinished copy, by its name",
            Why::OtherKind => "a program, a document or a key, by its name",
            Why::Empty => "empty, and not named like a log",
            Why::Binary => "not text",
            Why::NoRecord => "text in which no record begins",
        })
    }
}
