//! Why there is no evidence pack.
//!
//! Invariant: what is wrong with the archive itself keeps its own error, so the caller can tell it
//! from a folder that cannot be written.

use std::path::PathBuf;

use strongroom_archive::error::{ArchiveError, LogError};
use strongroom_proof::ProofError;
use strongroom_store::error::StoreError;
use thiserror::Error;

/// Why a pack cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvidenceError {
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot prove records: {detail}")]
    NotProvable { detail: String },
}

impl From<ArchiveError> for EvidenceError {
    fn from(error: ArchiveError) -> Self {
        EvidenceError::Proof(error.into())
    }
}

impl From<StoreError> for EvidenceError {
    fn from(error: StoreError) -> Self {
        EvidenceError::Log(error.into())
    }
}

impl EvidenceError {
    /// What the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            EvidenceError::Proof(error) => error.hint(),
            EvidenceError::Log(error) => error.hint(),
            EvidenceError::NotProvable { .. } => Some(
                "run strongroom sign-log to sign new commits, or end the period earlier; strongroom verify reports what is \
                 wrong",
            ),
            EvidenceError::Write { .. } | EvidenceError::Read { .. } => None,
        }
    }
}
