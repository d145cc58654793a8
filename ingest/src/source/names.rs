//! Turns names into inputs: what an argument stands for, and in which order rotated files were
//! written.
//!
//! Invariant: a named file is read or is an error; a file found in a folder is read, or reported as
//! left out. Nothing is kept here.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Input;
use crate::error::IngestError;

/// Maximum depth of folders below a named one.
const DIRECTORY_DEPTH_MAX: usize = 16;
/// Maximum number of files in [`FoundFiles::left_out`].
pub const LEFT_OUT_MAX: usize = 1000;

/// The inputs that arguments stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    pub inputs: Vec<Input>,
    /// Files in named directories that are not named like logs, and are not read.
    pub left_out: Vec<PathBuf>,
}

/// Turns arguments (`-`, files, directories, patterns) into inputs, rotated files oldest first.
///
/// # Errors
/// If something named does not exist, cannot be listed, or has no log file.
pub fn expand(arguments: &[String]) -> Result<Expanded, IngestError> {
    let (mut inputs, mut left_out) = (Vec::new(), Vec::new());
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
            list(&path, DIRECTORY_DEPTH_MAX, &mut files, &mut left_out)?;
            if files.is_empty() {
                return Err(IngestError::NoLogFiles { path });
            }
            inputs.extend(rotation_order(files).into_iter().map(Input::File));
        } else if path.exists() {
            inputs.push(Input::File(path));
        } else if argument.contains(['*', '?', '[']) {
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
            inputs.extend(rotation_order(files).into_iter().map(Input::File));
        } else {
            return Err(IngestError::NoSuchFile { path });
        }
    }
    Ok(Expanded { inputs, left_out })
}

fn list(
    directory: &Path,
    depth: usize,
    files: &mut Vec<PathBuf>,
    left_out: &mut Vec<PathBuf>,
) -> Result<(), IngestError> {
    let cannot = |source| IngestError::ListDirectory { path: directory.to_owned(), source };
    for entry in std::fs::read_dir(directory).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let kind = entry.file_type().map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            if depth == 0 {
                return Err(IngestError::TooDeep { path: entry.path(), depth_max: DIRECTORY_DEPTH_MAX });
            }
            list(&entry.path(), depth - 1, files, left_out)?;
        } else if kind.is_file() || (kind.is_symlink() && entry.path().is_file()) {
            if is_log_name(&name) { &mut *files } else { &mut *left_out }.push(entry.path());
        }
    }
    Ok(())
}

/// What followed paths stand for at one moment.
#[derive(Debug, Default)]
pub struct FoundFiles {
    /// Log files, rotated files oldest first.
    pub files: Vec<PathBuf>,
    /// Files in named folders that are not named like logs, and are not read: the first
    /// `LEFT_OUT_MAX`.
    pub left_out: Vec<PathBuf>,
    /// Paths and patterns that stand for no file now.
    pub without_file: Vec<(String, NoFile)>,
    /// An error for each path that cannot be read.
    pub troubles: Vec<IngestError>,
}

/// Why a path or a pattern stands for no file.
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

/// Returns what `arguments` stand for now. A name or a pattern without a file is not an error: the
/// file may come.
pub fn find(arguments: &[String]) -> FoundFiles {
    let mut found = FoundFiles::default();
    for argument in arguments {
        let path = PathBuf::from(argument);
        let mut files = Vec::new();
        let troubles = found.troubles.len();
        let without = if path.is_dir() {
            list_what_can_be(&path, DIRECTORY_DEPTH_MAX, &mut files, &mut found);
            NoFile::EmptyFolder
        } else if argument.contains(['*', '?', '[']) && !path.exists() {
            match glob::glob(argument) {
                Ok(paths) => {
                    for path in paths {
                        match path {
                            Ok(path) if path.is_file() => files.push(path),
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
        // If something could not be read, that is the reason, and it is reported already.
        if files.is_empty() && found.troubles.len() == troubles {
            found.without_file.push((argument.clone(), without));
        }
        found.files.extend(rotation_order(files));
    }
    found
}

/// Like [`list`], but skips what cannot be listed. It is not an error if a file disappears
/// meanwhile.
fn list_what_can_be(directory: &Path, depth: usize, files: &mut Vec<PathBuf>, found: &mut FoundFiles) {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(source) => {
            found.troubles.push(IngestError::ListDirectory { path: directory.to_owned(), source });
            return;
        }
    };
    for entry in entries {
        let (path, kind) = match entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) {
            Ok(entry) => entry,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(source) => {
                found.troubles.push(IngestError::ListDirectory { path: directory.to_owned(), source });
                continue;
            }
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A file system's own folder, which only root may read.
        if name.starts_with('.') || name == "lost+found" {
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
            } else if found.left_out.len() < LEFT_OUT_MAX {
                found.left_out.push(path);
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
