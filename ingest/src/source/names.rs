//! Turns names into inputs: what an argument stands for, and in which order rotated files were
//! written.
//!
//! Two rules decide which files of a folder are logs. A folder that is read once gives every file
//! that is not certainly something else. Shippers and clouds often write names that say nothing, so
//! a file with such a name is opened and examined ([`look`]). A followed folder gives only files
//! that are named like logs, because a file there may be half written, and only its name says what
//! it will be.
//!
//! Invariants: a named file is read or is an error; a file found in a folder is read, or reported as
//! passed over, with the reason. What this program wrote (an archive, an outbox, a write-ahead log)
//! is never an input when it is found in a folder or by a pattern. Nothing is kept here.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::FileType;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use strongroom_archive::{MANIFEST, is_of_archive};

use super::Input;
use super::look::{Look, look};
use crate::error::IngestError;
use crate::passed_over::{PassedOver, Why};

/// Maximum depth of folders below a named one. AKS stores its logs 15 folders deep.
const DIRECTORY_DEPTH_MAX: usize = 32;
/// Maximum number of files in [`FoundFiles::left_out`].
pub const LEFT_OUT_MAX: usize = 1000;
/// The inputs that arguments stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    pub inputs: Vec<Input>,
    pub passed_over: PassedOver,
}

/// Turns arguments (`-`, files, directories, patterns) into inputs, rotated files oldest first.
/// `outputs` are files that the same command writes.
///
/// # Errors
/// If something named does not exist, cannot be listed, or has no log file.
pub fn expand(arguments: &[String], outputs: &[&Path]) -> Result<Expanded, IngestError> {
    let mut inputs = Vec::new();
    let outputs = outputs.iter().filter_map(|path| place_of(path)).collect();
    let mut walk = Walk { outputs, files: Vec::new(), passed_over: PassedOver::default() };
    let mut without_logs = None;
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
            let is_ours = walk.folder(&path, DIRECTORY_DEPTH_MAX)?;
            let files = std::mem::take(&mut walk.files);
            if files.is_empty() && !is_ours {
                return Err(IngestError::NoLogFiles { path, passed_over: Box::new(walk.passed_over) });
            }
            if files.is_empty() {
                without_logs.get_or_insert(path);
            }
            inputs.extend(rotation_order(files).into_iter().map(Input::File));
        } else if path.exists() {
            inputs.push(Input::File(path));
        } else if is_pattern(argument) {
            let paths = glob::glob(argument)
                .map_err(|source| IngestError::Pattern { pattern: argument.clone(), source })?;
            let unreadable = |error: glob::GlobError| IngestError::ListDirectory {
                path: error.path().to_owned(),
                source: error.into(),
            };
            let mut files = paths.collect::<Result<Vec<PathBuf>, _>>().map_err(unreadable)?;
            files.retain(|path| path.is_file());
            if files.is_empty() {
                return Err(IngestError::NoMatch { pattern: argument.clone() });
            }
            let (mut ours, mut named) = (OurFolders::default(), HashSet::new());
            for path in files {
                match ours.around(&path) {
                    Some((folder, why)) if named.insert(folder.clone()) => walk.passed_over.add(folder, why),
                    Some(_) => {}
                    None => walk.files.push(path),
                }
            }
            let files = std::mem::take(&mut walk.files);
            if files.is_empty() {
                without_logs.get_or_insert(path);
            }
            inputs.extend(rotation_order(files).into_iter().map(Input::File));
        } else {
            return Err(IngestError::NoSuchFile { path });
        }
    }
    match without_logs {
        Some(path) if inputs.is_empty() => {
            Err(IngestError::NoLogFiles { path, passed_over: Box::new(walk.passed_over) })
        }
        _ => Ok(Expanded { inputs, passed_over: walk.passed_over }),
    }
}

fn is_pattern(argument: &str) -> bool {
    argument.contains(['*', '?', '['])
}

/// Returns the folder of a path, with links resolved, and the name in that folder.
fn place_of(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let name = PathBuf::from(path.file_name()?);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some((parent.canonicalize().ok()?, name))
}

/// A search through folders that are read once.
struct Walk {
    outputs: Vec<(PathBuf, PathBuf)>,
    files: Vec<PathBuf>,
    passed_over: PassedOver,
}

impl Walk {
    /// Returns whether the folder is one that this program wrote, or a Delta table.
    fn folder(&mut self, directory: &Path, depth: usize) -> Result<bool, IngestError> {
        let cannot = |source| IngestError::ListDirectory { path: directory.to_owned(), source };
        let mut listing = Listing::of(directory).map_err(cannot)?;
        if let Some(source) = listing.errors.pop() {
            return Err(cannot(source));
        }
        let ours = listing.ours();
        if let Some(why) = ours {
            self.passed_over.add(directory.to_owned(), why);
        }
        for Found { path, name, kind } in listing.entries {
            if ours.is_some_and(|why| is_ours(why, &name)) {
                continue;
            }
            if name.starts_with('.') {
                self.passed_over.add(path, Why::Hidden);
            } else if kind.is_dir() && name == LOST_FOUND {
                self.passed_over.add(path, Why::LostFound);
            } else if kind.is_dir() {
                if depth == 0 {
                    return Err(IngestError::TooDeep { path, depth_max: DIRECTORY_DEPTH_MAX });
                }
                self.folder(&path, depth - 1)?;
            } else if let Some(why) = self.why_not(&path, &name, kind) {
                self.passed_over.add(path, why);
            } else {
                self.files.push(path);
            }
        }
        Ok(ours.is_some())
    }

    fn why_not(&self, path: &Path, name: &str, kind: FileType) -> Option<Why> {
        let is_file = if kind.is_symlink() {
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() => return Some(Why::LinkToFolder),
                Ok(metadata) => metadata.is_file(),
                Err(_) => return Some(Why::BrokenLink),
            }
        } else {
            kind.is_file()
        };
        if !is_file {
            return Some(Why::NotAFile);
        }
        if !self.outputs.is_empty() && place_of(path).is_some_and(|place| self.outputs.contains(&place)) {
            return Some(Why::Output);
        }
        if is_unfinished_name(name) {
            return Some(Why::Unfinished);
        }
        if is_log_name(name) {
            return None;
        }
        if is_other_name(name) {
            return Some(Why::OtherKind);
        }
        match look(path) {
            Look::MayBeLog => None,
            Look::Empty => Some(Why::Empty),
            Look::Binary => Some(Why::Binary),
            Look::NoRecord => Some(Why::NoRecord),
        }
    }
}

const LOST_FOUND: &str = "lost+found";
/// The folder of a Delta table that has its commits, as JSON.
const DELTA_LOG: &str = "_delta_log";

/// The entries of a folder.
struct Listing {
    entries: Vec<Found>,
    errors: Vec<io::Error>,
}

struct Found {
    path: PathBuf,
    name: String,
    kind: FileType,
}

impl Listing {
    fn of(directory: &Path) -> io::Result<Listing> {
        let mut listing = Listing { entries: Vec::new(), errors: Vec::new() };
        for entry in std::fs::read_dir(directory)? {
            match entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) {
                Ok((path, kind)) => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    listing.entries.push(Found { path, name, kind });
                }
                Err(error) => listing.errors.push(error),
            }
        }
        listing.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(listing)
    }

    /// Returns what the folder is, if this program wrote it or if it is a Delta table.
    fn ours(&self) -> Option<Why> {
        kind_of_ours(self.entries.iter().map(|entry| entry.name.as_str()))
    }
}

/// Decides from the names in a folder whether this program wrote it, or whether it is a Delta
/// table.
fn kind_of_ours<'n>(names: impl Iterator<Item = &'n str>) -> Option<Why> {
    let (mut is_locked, mut is_journal) = (false, false);
    for name in names {
        match name {
            MANIFEST => return Some(Why::Archive),
            DELTA_LOG => return Some(Why::Delta),
            JOURNAL_LOCK => is_locked = true,
            name => is_journal |= name == JOURNAL_ID || is_segment_name(name),
        }
    }
    (is_locked && is_journal).then_some(Why::Journal)
}

/// The file that a process locks while it uses an outbox or a write-ahead log.
const JOURNAL_LOCK: &str = "lock";
/// The file with the id of a write-ahead log. A log may have this file and no segment yet.
const JOURNAL_ID: &str = "id";
const SEGMENT_DIGITS: usize = 20;

fn is_segment_name(name: &str) -> bool {
    name.split_once('.').is_some_and(|(digits, extension)| {
        digits.len() == SEGMENT_DIGITS
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && matches!(extension, "log" | "ids" | "keys")
    })
}

/// Whether an entry of a folder of this kind is a part of the archive, the journal or the table.
/// Log files may lie beside the tables of an archive.
fn is_ours(kind: Why, name: &str) -> bool {
    kind != Why::Archive || name.starts_with('.') || is_of_archive(name)
}

/// For each folder checked so far, whether this program wrote it.
#[derive(Default)]
struct OurFolders {
    known: HashMap<PathBuf, Option<Why>>,
}

impl OurFolders {
    /// Returns the outermost folder that this program wrote and of which `path` is a part.
    fn around(&mut self, path: &Path) -> Option<(PathBuf, Why)> {
        let names = path.ancestors().filter_map(Path::file_name);
        let found = path.ancestors().skip(1).zip(names).filter_map(|(folder, name)| {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let kind = match self.known.get(folder) {
                Some(kind) => *kind,
                None => {
                    let kind = kind_of(folder);
                    self.known.insert(folder.to_owned(), kind);
                    kind
                }
            };
            let kind = kind.filter(|kind| is_ours(*kind, &name.to_string_lossy()))?;
            Some((folder.to_owned(), kind))
        });
        found.last()
    }
}

/// Like [`Listing::ours`], but lists only folders that have a name by which such a folder is
/// recognised.
fn kind_of(folder: &Path) -> Option<Why> {
    let has = |name: &&str| folder.join(name).symlink_metadata().is_ok();
    let listing = || Listing::of(folder).ok().and_then(|listing| listing.ours());
    [MANIFEST, DELTA_LOG, JOURNAL_LOCK].iter().any(has).then(listing).flatten()
}

/// Whether a name is one of an editor's backup, or of a file that is still being copied or written.
fn is_unfinished_name(name: &str) -> bool {
    const ENDINGS: [&str; 11] = [
        "~",
        ".swp",
        ".swo",
        ".swx",
        ".tmp",
        ".temp",
        ".part",
        ".partial",
        ".filepart",
        ".crdownload",
        ".download",
    ];
    let is_autosave = name.len() > 1 && name.starts_with('#') && name.ends_with('#');
    is_autosave || ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a name is one of a program, a document, settings or a key. Such a file is not opened,
/// because its text may contain an object and would then pass for a log. Some of them hold secrets,
/// which an archive would keep for years.
fn is_other_name(name: &str) -> bool {
    const EXTENSIONS: [&str; 42] = [
        "adoc",
        "c",
        "cc",
        "cfg",
        "conf",
        "cpp",
        "crt",
        "css",
        "env",
        "go",
        "h",
        "htm",
        "html",
        "ini",
        "ipynb",
        "java",
        "js",
        "key",
        "kubeconfig",
        "lock",
        "lua",
        "md",
        "p12",
        "pem",
        "php",
        "pl",
        "properties",
        "pub",
        "py",
        "rb",
        "rs",
        "rst",
        "sh",
        "sql",
        "svg",
        "tf",
        "tfstate",
        "toml",
        "ts",
        "xml",
        "yaml",
        "yml",
    ];
    let extension = Path::new(name).extension().and_then(OsStr::to_str).unwrap_or_default();
    EXTENSIONS.iter().any(|other| extension.eq_ignore_ascii_case(other))
}

/// The files that followed paths give at one moment.
#[derive(Debug, Default)]
pub struct FoundFiles {
    /// Log files, rotated files oldest first.
    pub files: Vec<PathBuf>,
    /// Files in named folders that are not read, because they are not named like logs: the first
    /// `LEFT_OUT_MAX`.
    pub left_out: Vec<PathBuf>,
    /// Number of all such files, also of those that are not listed.
    pub left_out_count: usize,
    /// Archives, outboxes, write-ahead logs and Delta tables that were found where they are not
    /// read: the first `LEFT_OUT_MAX`.
    pub ours: Vec<(PathBuf, Why)>,
    /// Paths and patterns that match no file now.
    pub without_file: Vec<(String, NoFile)>,
    /// An error for each path that cannot be read.
    pub troubles: Vec<IngestError>,
}

/// Why a path or a pattern matches no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFile {
    Missing,
    NoMatch,
    EmptyFolder,
    NotAFile,
}

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoFile::Missing => "it does not exist",
            NoFile::NoMatch => "the pattern matches no file",
            NoFile::EmptyFolder => "the folder has no file that is named like a log",
            NoFile::NotAFile => "it is neither a file nor a folder",
        })
    }
}

/// Returns the files that `arguments` give now. A name or a pattern without a file is not an error,
/// because the file may be created later.
pub fn find(arguments: &[String]) -> FoundFiles {
    let mut found = FoundFiles::default();
    for argument in arguments {
        let path = PathBuf::from(argument);
        let mut files = Vec::new();
        let troubles = found.troubles.len();
        let without = if path.is_dir() {
            list_what_can_be(&path, DIRECTORY_DEPTH_MAX, &mut files, &mut found);
            NoFile::EmptyFolder
        } else if is_pattern(argument) && !path.exists() {
            match glob::glob(argument) {
                Ok(paths) => {
                    let mut ours = OurFolders::default();
                    for path in paths {
                        match path {
                            Ok(path) if path.is_file() => match ours.around(&path) {
                                Some((folder, why)) => found.add_ours(folder, why),
                                None => files.push(path),
                            },
                            Ok(_) => {}
                            Err(error) if error.error().kind() == ErrorKind::NotFound => {}
                            Err(error) => found.troubles.push(IngestError::ListDirectory {
                                path: error.path().to_owned(),
                                source: error.into(),
                            }),
                        }
                    }
                }
                Err(source) => {
                    found.troubles.push(IngestError::Pattern { pattern: argument.clone(), source });
                }
            }
            NoFile::NoMatch
        } else {
            match path.metadata() {
                Ok(metadata) if metadata.is_file() => {
                    files.push(path);
                    NoFile::Missing
                }
                Ok(_) => NoFile::NotAFile,
                Err(error) if error.kind() == ErrorKind::NotFound => NoFile::Missing,
                Err(source) => {
                    found.troubles.push(IngestError::ListDirectory { path, source });
                    NoFile::Missing
                }
            }
        };
        // If something could not be read, that is the reason why there is no file, and it is
        // reported already.
        if files.is_empty() && found.troubles.len() == troubles {
            found.without_file.push((argument.clone(), without));
        }
        found.files.extend(rotation_order(files));
    }
    found
}

impl FoundFiles {
    fn add_ours(&mut self, path: PathBuf, why: Why) {
        if self.ours.len() < LEFT_OUT_MAX && self.ours.last().is_none_or(|(last, _)| *last != path) {
            self.ours.push((path, why));
        }
    }
}

/// Like [`Walk::folder`], but decides by names alone, and skips what cannot be listed. A file that
/// disappears meanwhile is not an error.
fn list_what_can_be(directory: &Path, depth: usize, files: &mut Vec<PathBuf>, found: &mut FoundFiles) {
    let listing = match Listing::of(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(source) => {
            found.troubles.push(IngestError::ListDirectory { path: directory.to_owned(), source });
            return;
        }
    };
    let ours = listing.ours();
    if let Some(why) = ours {
        found.add_ours(directory.to_owned(), why);
    }
    for source in listing.errors.into_iter().filter(|error| error.kind() != ErrorKind::NotFound) {
        found.troubles.push(IngestError::ListDirectory { path: directory.to_owned(), source });
    }
    for Found { path, name, kind } in listing.entries {
        // Only root may be able to read the file system's own folder.
        if name.starts_with('.') || name == LOST_FOUND || ours.is_some_and(|why| is_ours(why, &name)) {
            continue;
        }
        if kind.is_dir() {
            match depth.checked_sub(1) {
                Some(depth) => list_what_can_be(&path, depth, files, found),
                None => {
                    found.troubles.push(IngestError::TooDeep { path, depth_max: DIRECTORY_DEPTH_MAX });
                }
            }
        } else if kind.is_file() || (kind.is_symlink() && path.is_file()) {
            if is_log_name(&name) {
                files.push(path);
            } else {
                found.left_out_count += 1;
                if found.left_out.len() < LEFT_OUT_MAX {
                    found.left_out.push(path);
                }
            }
        }
    }
}

/// Whether a file found in a directory looks like a log, rotated and compressed names included.
fn is_log_name(name: &str) -> bool {
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    [".log", ".json", ".jsonl", ".ndjson"]
        .iter()
        .any(|ending| name.ends_with(ending) || stem.ends_with(ending))
}

/// Sorts files oldest first. lumberjack writes `audit-2026-03-04T05-06-07.123.log` and keeps
/// `audit.log` for the newest file; sorted as text, these names are in the right order. logrotate
/// writes `audit.log.1` for the newest file but one, and higher numbers for older files.
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_the_program_wrote_is_known_by_its_names() {
        let kind = |names: &[&str]| kind_of_ours(names.iter().copied());
        assert_eq!(kind(&["strongroom.json", "events"]), Some(Why::Archive));
        assert_eq!(kind(&["_delta_log", "a.json"]), Some(Why::Delta));
        assert_eq!(kind(&["lock", "00000000000000000000.log"]), Some(Why::Journal));
        assert_eq!(kind(&["id", "lock"]), Some(Why::Journal));
        for names in [&["lock", "audit.log"][..], &["00000000000000000000.log"], &["lock", "0000.log"], &[]] {
            assert_eq!(kind(names), None, "{names:?}");
        }
        for (name, is_own) in [("events", true), ("_keys", true), (".lock", true), ("logs", false)] {
            assert_eq!(is_ours(Why::Archive, name), is_own, "{name}");
        }
    }

    #[test]
    fn what_is_not_read_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let text = |name: &str| at(name).display().to_string();
        std::fs::create_dir_all(at("a/deep")).expect("made");
        std::fs::create_dir(at("empty")).expect("made");
        for name in ["a/audit.log", "a/notes.txt", "a/deep/audit", "a/.hidden"] {
            std::fs::write(at(name), "x").expect("written");
        }
        let arguments = ["a", "empty", "none.log", "a/*.gz", "a/*.log", "a/notes.txt"].map(text);
        let mut found = find(&arguments);
        found.left_out.sort();
        assert_eq!(found.files, ["a/audit.log", "a/audit.log", "a/notes.txt"].map(at));
        assert_eq!(found.left_out, ["a/deep/audit", "a/notes.txt"].map(at));
        let without = |name: &str, why| (text(name), why);
        assert_eq!(
            found.without_file,
            [
                without("empty", NoFile::EmptyFolder),
                without("none.log", NoFile::Missing),
                without("a/*.gz", NoFile::NoMatch),
            ]
        );
        assert!(found.troubles.is_empty(), "{:?}", found.troubles);
        assert_eq!(
            find(&["/dev/null".to_owned()]).without_file,
            [("/dev/null".to_owned(), NoFile::NotAFile)]
        );
        let broken = find(&["a/[".to_owned()]);
        assert!(broken.without_file.is_empty() && broken.troubles.len() == 1);
    }
}
