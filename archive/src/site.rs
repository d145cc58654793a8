//! The identity of an archive for the functions of lower layers: its store, its root, its id and
//! its signer.
//!
//! Invariant: the parts of a [`Site`] belong to one archive. `root` is in `store`, and `archive_id`
//! is the id in the `strongroom.json` of `root`. So whatever is signed or checked for a site is
//! signed or checked for that archive.

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

    /// Reads a small file whole; `None` when there is none.
    pub async fn read(&self, path: &Path) -> Result<Option<Bytes>, LogError> {
        let read = self.store.read(path).await;
        read.map_err(|source| LogError::Read { path: path.to_owned(), source })
    }

    /// Like [`Site::read`], but a missing file is an error.
    pub async fn read_present(&self, path: &Path) -> Result<Bytes, LogError> {
        let read = self.store.read_present(path).await;
        read.map_err(|source| LogError::Read { path: path.to_owned(), source })
    }

    /// Returns the names in a folder of records below the root, sorted. Files that are still being
    /// written are left out.
    pub async fn record_names(&self, folder: &str) -> Result<Vec<String>, LogError> {
        let mut names = self.store.names(&self.root.join(folder)).await?;
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        Ok(names)
    }
}
