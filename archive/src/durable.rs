//! Writes that survive a loss of power: what has a name is complete.
//!
//! Invariant: a name appears only after the bytes behind it are on disk, and a function returns only
//! after the name is on disk too. `object_store`'s `LocalFileSystem` promises neither, so the Delta log
//! is written through [`DurableStore`], which reads like it and writes like this module.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path as FsPath, PathBuf};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, UploadPart,
};

use crate::error::{ArchiveError, Result};

/// Makes `folder` and what is missing above it, durably.
pub(crate) fn create_folder(folder: &FsPath) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let failed = |source| ArchiveError::CreateFolder { path: folder.to_owned(), source };
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

/// Makes `folder` and what is missing between it and `root`, durably. A root that is gone is an error: its disk may
/// not be mounted, and what stood there instead would be written to in its place.
pub(crate) fn create_folder_in(root: &FsPath, folder: &FsPath) -> Result<()> {
    match std::fs::metadata(root) {
        Ok(_) => create_folder(folder),
        Err(source) => Err(ArchiveError::RootGone { path: root.to_owned(), source }),
    }
}

/// Puts the names in `folder` on disk.
pub(crate) fn sync_folder(folder: &FsPath) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| ArchiveError::SyncFolder { path: folder.to_owned(), source })
}

/// Writes a new file whole; an existing one is an error of kind `AlreadyExists`.
pub(crate) fn create_file(path: &FsPath, staging: &FsPath, parts: &[&[u8]]) -> io::Result<()> {
    write_synced(staging, parts)?;
    // A link, unlike a rename, does not replace a file that has the name already.
    let linked = std::fs::hard_link(staging, path);
    std::fs::remove_file(staging)?;
    linked?;
    sync_parent(path)
}

/// Writes a file whole, in the place of one that may be there.
pub(crate) fn replace_file(path: &FsPath, staging: &FsPath, parts: &[&[u8]]) -> io::Result<()> {
    write_synced(staging, parts)?;
    std::fs::rename(staging, path)?;
    sync_parent(path)
}

fn write_synced(path: &FsPath, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
    if written.is_err() {
        // The error that is reported is the first one; the next writer removes what stays.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn sync_parent(path: &FsPath) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// The local file system as an object store whose writes are durable.
#[derive(Debug)]
pub(crate) struct DurableStore {
    local: LocalFileSystem,
    root: PathBuf,
}

impl DurableStore {
    /// Rooted at `folder`, which must exist.
    pub(crate) fn below(folder: &FsPath) -> StoreResult<Self> {
        Ok(DurableStore { local: LocalFileSystem::new_with_prefix(folder)?, root: folder.to_owned() })
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Durable({})", self.local)
    }
}

fn generic(source: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "DurableStore", source: Box::new(source) }
}

/// Name of a file on its way to `path`. Listings of `LocalFileSystem` leave such names out.
fn staging_of(path: &FsPath) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("#{}", std::process::id()));
    PathBuf::from(name)
}

/// Whether a name is one that [`staging_of`] (or `LocalFileSystem`) gives.
pub(crate) fn is_staging(name: &str) -> bool {
    name.split_once('#')
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let path = self.local.path_to_filesystem(location)?;
        let (location, root) = (location.to_string(), self.root.clone());
        let written = tokio::task::spawn_blocking(move || {
            if let Some(parent) = path.parent() {
                create_folder_in(&root, parent).map_err(io::Error::other).map_err(generic)?;
            }
            let parts: Vec<&[u8]> = payload.iter().map(AsRef::as_ref).collect();
            let staging = staging_of(&path);
            match options.mode {
                PutMode::Create => {
                    create_file(&path, &staging, &parts).map_err(|source| match source.kind() {
                        io::ErrorKind::AlreadyExists => {
                            object_store::Error::AlreadyExists { path: location, source: Box::new(source) }
                        }
                        _ => generic(source),
                    })
                }
                PutMode::Overwrite => replace_file(&path, &staging, &parts).map_err(generic),
                PutMode::Update(_) => Err(object_store::Error::NotImplemented {
                    operation: "conditional update".to_owned(),
                    implementer: "DurableStore".to_owned(),
                }),
            }
        });
        written.await??;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        Ok(Box::new(DurableUpload { parts: Vec::new(), path: self.local.path_to_filesystem(location)? }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.local.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.local.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.local.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.local.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.local.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.local.copy_opts(from, to, options).await
    }
}

/// Large files (checkpoints) arrive in parts. They are kept until complete: a checkpoint whose name
/// reached the disk before its bytes would make the table unreadable.
#[derive(Debug)]
struct DurableUpload {
    parts: Vec<PutPayload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let (path, parts) = (self.path.clone(), std::mem::take(&mut self.parts));
        let written = tokio::task::spawn_blocking(move || {
            let parts: Vec<&[u8]> = parts.iter().flat_map(PutPayload::iter).map(AsRef::as_ref).collect();
            replace_file(&path, &staging_of(&path), &parts).map_err(generic)
        });
        written.await??;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.parts.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_refuses_what_exists() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, staging) = (folder.path().join("a"), folder.path().join("a#1"));
        create_file(&path, &staging, &[b"first"]).expect("new");
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
