//! Writes that survive a power loss: a file that has a name is complete.
//!
//! Invariant: a name appears only after the bytes of its file are on disk, and a function returns
//! only after the name is on disk too.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Result, StoreError};

/// Creates `folder` and its missing parents, durably.
pub fn create_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let failed = |source| StoreError::CreateFolder { path: folder.to_owned(), source };
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            create_folder(parent)?;
            match std::fs::create_dir(folder) {
                Ok(()) => sync_folder(parent),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
                Err(error) => Err(failed(error)),
            }
        }
        _ => std::fs::create_dir(folder).map_err(failed),
    }
}

/// Creates `folder` and its missing parents below `root`, durably. A missing `root` is an error,
/// because its disk may not be mounted: a new folder would then be created on the disk that has the
/// mount point.
pub fn create_folder_in(root: &Path, folder: &Path) -> Result<()> {
    match std::fs::metadata(root) {
        Ok(_) => create_folder(folder),
        Err(source) => Err(StoreError::RootGone { path: root.to_owned(), source }),
    }
}

/// Syncs the names in `folder` to disk.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StoreError::SyncFolder { path: folder.to_owned(), source })
}

/// Writes a whole new file. If `path` exists already, returns an error of kind `AlreadyExists`.
pub fn create_file(path: &Path, staging: &Path, parts: &[&[u8]]) -> io::Result<()> {
    write_synced(staging, parts)?;
    // A link, unlike a rename, does not replace an existing file.
    let linked = std::fs::hard_link(staging, path);
    std::fs::remove_file(staging)?;
    linked?;
    sync_parent(path)
}

/// Writes a whole file, and replaces a file that exists at `path`.
pub fn replace_file(path: &Path, staging: &Path, parts: &[&[u8]]) -> io::Result<()> {
    write_synced(staging, parts)?;
    std::fs::rename(staging, path)?;
    sync_parent(path)
}

fn write_synced(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
    if written.is_err() {
        // The first error is reported; a leftover file is removed by the next writer.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes the permission to write.
pub fn read_only(path: &Path) -> io::Result<()> {
    let mut permissions = std::fs::metadata(path)?.permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(path, permissions)
}

/// Returns the names in a folder of a local disk; empty if the folder does not exist.
pub fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>> {
    let failed = |source| StoreError::ListFolder { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(failed)).collect()
}

/// Returns a temporary name for a file that is written first and then given the name `path`. No two
/// calls return the same name.
pub fn staging_of(path: &Path) -> PathBuf {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(format!("#{}{:010}", std::process::id(), GIVEN.fetch_add(1, Ordering::Relaxed)));
    PathBuf::from(name)
}

/// Whether a name has the form that [`staging_of`] gives.
pub fn is_staging(name: &str) -> bool {
    name.split_once('#')
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_refuses_what_exists() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, staging) = (folder.path().join("a"), folder.path().join("a#1"));
        create_file(&path, &staging, &[b"first"]).expect("the file is new");
        let error = create_file(&path, &staging, &[b"second"]).expect_err("exists");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).expect("readable"), b"first");
        assert!(!staging.exists());
    }

    #[test]
    fn staging_names_are_told_apart() {
        assert!(is_staging("00000000000000000001.json#123"));
        for name in ["00000000000000000001.json", "a#b", "a#"] {
            assert!(!is_staging(name), "{name}");
        }
    }
}
