//! The folder of a log: it is created durably and locked by one process, and its small files are
//! replaced as a whole.
//!
//! Invariants: the names of a folder and of its parents are durable before anything is stored in
//! the folder, and files and folders are readable by their owner only. Only the process that holds
//! the lock may write to the folder: another writer would break the log. A crash leaves at most a
//! staging file `*.new`, which the next write replaces.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::{JournalError, cannot_read, cannot_write};

/// Number of digits of a segment's number in its file name.
const NAME_DIGITS: usize = 20;

/// A folder that this process has locked. Dropping this value releases the lock.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens a folder, creating it and its parents if they are missing, and locks it.
    ///
    /// # Errors
    /// [`JournalError::InUse`] if another process has the folder open, other errors if the folder
    /// cannot be created or written.
    pub fn open(path: &Path) -> Result<Folder, JournalError> {
        create_folder(path)?;
        let lock_path = path.join("lock");
        let lock = open_to_write(&lock_path, false).map_err(cannot_write(&lock_path))?;
        lock.try_lock().map_err(|_| JournalError::InUse { path: path.to_owned() })?;
        Ok(Folder { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the file with a number. Its name has 20 digits and an extension.
    pub fn file(&self, number: u64, extension: &str) -> PathBuf {
        self.path.join(format!("{number:0NAME_DIGITS$}.{extension}"))
    }
}

/// Returns the numbers and paths of the numbered files with an extension, in the order of their
/// numbers. Takes no lock, so that a log can be read while another process writes it.
///
/// # Errors
/// When the folder cannot be listed.
pub fn numbered(folder: &Path, extension: &str) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot_read(folder))? {
        let path = entry.map_err(cannot_read(folder))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let is_number = stem.len() == NAME_DIGITS && stem.bytes().all(|byte| byte.is_ascii_digit());
        if is_number
            && path.extension().is_some_and(|found| found == extension)
            && let Ok(number) = stem.parse()
        {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Opens an empty file for reading and writing. The content of an existing file is lost.
///
/// # Errors
/// When the file cannot be created.
pub fn create(path: &Path) -> io::Result<File> {
    open_to_write(path, true)
}

/// Replaces a file durably: after a crash it has either the old or the new content.
///
/// # Errors
/// When the file or its folder cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    let staging = path.with_extension("new");
    create(&staging)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(cannot_write(&staging))?;
    std::fs::rename(&staging, path).map_err(cannot_write(path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// When the folder cannot be synced.
pub fn sync_folder(folder: &Path) -> Result<(), JournalError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(cannot_write(folder))
}

fn open_to_write(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(truncate).mode(0o600).open(path)
}

fn create_folder(folder: &Path) -> Result<(), JournalError> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| JournalError::CreateFolder { path: folder.to_owned(), source })?;
    for created in missing {
        match created.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent)?,
            _ => sync_folder(Path::new("."))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_and_parents_are_created() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("a/b");
        let folder = Folder::open(&path).expect("a new folder");
        assert!(matches!(Folder::open(&path), Err(JournalError::InUse { .. })));
        drop(folder);
        assert!(Folder::open(&path).is_ok());
    }

    #[test]
    fn only_numbered_files_are_listed_and_in_order() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(home.path()).expect("a folder");
        for number in [300, 2, 10] {
            write_whole(&folder.file(number, "log"), b"x").expect("written");
        }
        for other in ["2.log", "0000000000000000000a.log", "99999999999999999999.log", "id"] {
            std::fs::write(home.path().join(other), b"x").expect("written");
        }
        write_whole(&folder.file(5, "ids"), b"x").expect("written");
        let found = numbered(home.path(), "log").expect("listed");
        assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 10, 300]);
    }
}
