//! The identity of an archive for the functions of lower layers: its store, its root, its id and
//! its signer.
//!
//! Invariant: the parts of a [`Site`] belong to one archive. `root` is in `store`, and `archive_id`
//! is the id in the `strongroom.json` of `root`. So whatever is signed or checked for a site is
//! signed or checked for that archive.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use strongroom_schemas::VolumeId;
use strongroom_store::{Store, layout};
use strongroom_tlog::signer::Signer;

use crate::error::LogError;

/// The store, location and identity of an archive. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Site {
    pub store: Store,
    pub root: PathBuf,
    pub archive_id: String,
    /// Minimum number of years for which everything is kept, as set when the archive was created. A
    /// local disk has no locks, but even there data that is younger than this is never dropped.
    pub made_with_years: u32,
    /// The signer of the archive's key, if this process has one.
    pub signer: Option<Arc<Signer>>,
}

impl Site {
    /// Returns the folder of a volume.
    pub fn volume(&self, volume: VolumeId) -> PathBuf {
        layout::volume(&self.root, volume)
    }

    /// Reads a small file whole; `None` when there is none. What is not a plain file of a possible size,
    /// or is behind a symbolic link, has no bytes, so it is never a valid record.
    pub async fn read(&self, path: &Path) -> Result<Option<Bytes>, LogError> {
        if self.is_linked(path) {
            return Ok(Some(Bytes::new()));
        }
        let read = match self.store.read(path).await {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::FileTooLarge) => {
                Ok(Some(Bytes::new()))
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(None),
            read => read,
        };
        read.map_err(|source| LogError::Read { path: path.to_owned(), source })
    }

    /// Whether a part of a path below the root is a symbolic link, which an archive never has. What it
    /// leads to may be changed without the archive being touched.
    pub fn is_linked(&self, path: &Path) -> bool {
        let Store::Local = self.store else { return false };
        let below = path.ancestors().take_while(|part| *part != self.root);
        below.into_iter().any(|part| std::fs::symlink_metadata(part).is_ok_and(|found| found.is_symlink()))
    }

    /// Like [`Site::read`], but a missing file is an error.
    pub async fn read_present(&self, path: &Path) -> Result<Bytes, LogError> {
        let read = self.store.read_present(path).await;
        read.map_err(|source| LogError::Read { path: path.to_owned(), source })
    }

    /// Returns the names in a folder of records below the root, sorted. Files that are still being
    /// written are left out.
    pub async fn record_names(&self, folder: &str) -> Result<Vec<String>, LogError> {
        let folder = self.root.join(folder);
        if self.is_linked(&folder) {
            return Ok(Vec::new());
        }
        let mut names = self.store.names(&folder).await?;
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        Ok(names)
    }
}
