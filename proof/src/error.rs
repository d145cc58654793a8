//! What can go wrong with proofs, witnesses and timestamps.
//!
//! Invariant: an error in an archive's own log is always a [`LogError`], so that callers have to
//! match only that type.

use std::io;
use std::path::PathBuf;

use strongroom_archive::error::{ArchiveError, LogError};
use strongroom_store::error::StoreError;
use strongroom_tlog::error::TlogError;
use thiserror::Error;

/// Why a proof, a witness or an authority failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProofError {
    #[error("a quorum of {asked} is impossible with {witnesses} witnesses")]
    Quorum { asked: usize, witnesses: usize },
    #[error("{one} and {other} have the same key, so they are one witness")]
    WitnessTwice { one: String, other: String },
    #[error("not a log of the form <public key>@<origin>")]
    TrustedLog,
    #[error("not a witness of the form <vkey>@<URL>")]
    WitnessAddress,
    #[error("another process is using the witness state in {}", path.display())]
    WitnessBusy { path: PathBuf },
    #[error("witness state in {} is missing; refusing to cosign", path.display())]
    WitnessForgot { path: PathBuf },
    #[error("witness state exists already in {}", path.display())]
    WitnessBegun { path: PathBuf },
    #[error("the witness state in {} belongs to another key: {of}", path.display())]
    WitnessOther { path: PathBuf, of: String },
    #[error("cannot make a proof: {detail}")]
    NotProvable { detail: String },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the system cannot supply random bytes for a nonce")]
    Randomness,
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Tlog(#[from] TlogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] Box<ArchiveError>),
}

impl From<ArchiveError> for ProofError {
    fn from(error: ArchiveError) -> Self {
        ProofError::Archive(Box::new(error))
    }
}

impl ProofError {
    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ProofError::WitnessForgot { .. } => Some(
                "if this witness has never cosigned anything, start it with --new; if it has lost its state, give it a new key, because with the old key it could cosign a second history",
            ),
            ProofError::WitnessBegun { .. } => Some("start it without --new; it continues from its state"),
            ProofError::Log(error) => error.hint(),
            ProofError::Tlog(error) => error.hint(),
            ProofError::NotProvable { .. } => Some(
                "strongroom sign-log signs what is not signed yet; strongroom verify finds what is wrong",
            ),
            ProofError::Store(error) => error.hint(),
            ProofError::Archive(error) => error.hint(),
            _ => None,
        }
    }
}
