//! What can go wrong with a store: one variant for each operation, with the object it failed on.
//!
//! Invariant: [`StoreError`] wraps no error of a layer above the store, so every such layer can
//! wrap it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::s3_error::S3Error;

/// The result of an operation on a store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// How an object differs from what was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A delete marker hides it, or hid it.
    Hidden,
    /// Another version was put over it.
    Replaced,
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Changed::Hidden => "has a delete marker",
            Changed::Replaced => "has another version over it",
        })
    }
}

/// Why an operation on a store failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("archive location \"{location}\" is not a valid path, file:// or s3:// URL")]
    LocationInvalid { location: String },
    #[error("cannot create folder {}", path.display())]
    CreateFolder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("archive folder {} is missing", path.display())]
    RootGone {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot list folder {}", path.display())]
    ListFolder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot sync folder {}", path.display())]
    SyncFolder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot set up the connection to {location}: {detail}")]
    Connect { location: String, detail: String },
    #[error("cannot read certificates from {}", path.display())]
    ReadCertificates {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{name} is not {expected}")]
    Variable { name: &'static str, expected: &'static str },
    #[error("cannot test whether the store refuses to replace {}", path.display())]
    Probe {
        path: PathBuf,
        #[source]
        source: S3Error,
    },
    #[error("{} {how}, so the archive does not show what was sealed", path.display())]
    Changed { path: PathBuf, how: Changed },
    #[error("cannot {operation} bucket {bucket}")]
    Bucket {
        operation: &'static str,
        bucket: String,
        #[source]
        source: S3Error,
    },
    #[error("the archive's background thread ended early")]
    Background,
    #[error("the system cannot supply random bytes for an id")]
    Randomness,
}

impl StoreError {
    /// True if the error is in the location or the settings that the user gave; false if a disk or
    /// a bucket failed.
    pub fn is_location(&self) -> bool {
        matches!(
            self,
            StoreError::LocationInvalid { .. } | StoreError::Connect { .. } | StoreError::Variable { .. }
        )
    }

    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            StoreError::RootGone { .. } => {
                Some("check that its disk is mounted; the folder is created only at a start")
            }
            StoreError::ListFolder { source, .. } => S3Error::within(source)?.hint(),
            StoreError::Changed { .. } => Some(
                "somebody has deleted or overwritten it; what was sealed is still there, below the delete marker or the \
                 newer version, which `strongroom verify` names: remove only that",
            ),
            StoreError::Probe { source, .. } | StoreError::Bucket { source, .. } => source.hint(),
            StoreError::Connect { .. } => {
                Some("set AWS_REGION, or STRONGROOM_S3_ENDPOINT for a store other than AWS")
            }
            _ => None,
        }
    }
}
