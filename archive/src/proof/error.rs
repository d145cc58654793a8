//! What can go wrong with proofs, witnesses and timestamps.
//!
//! Invariant: what is wrong with an archive's own log is a [`LogError`], so whoever asks finds it in one place.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::error::ArchiveError;
use crate::records::error::LogError;
use crate::store::error::StoreError;
use crate::tlog::error::TlogError;

/// A proof, a witness or an authority that failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProofError {
    #[error("a quorum of {asked} is asked for, of {witnesses} witnesses")]
    Quorum { asked: usize, witnesses: usize },
    #[error("{one} and {other} have the same key: they are one witness")]
    WitnessTwice { one: String, other: String },
    #[error("this is no log of the form <public key>@<origin>")]
    TrustedLog,
    #[error("this is no witness of the form <vkey>@<URL>")]
    WitnessAddress,
    #[error("another process has the state of the witness in {}", path.display())]
    WitnessBusy { path: PathBuf },
    #[error("nothing is known in {} of what the witness has cosigned", path.display())]
    WitnessForgot { path: PathBuf },
    #[error("a witness has begun in {} already", path.display())]
    WitnessBegun { path: PathBuf },
    #[error("the state of the witness in {} is of another key: {of}", path.display())]
    WitnessOther { path: PathBuf, of: String },
    #[error("there is no proof: {detail}")]
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
    #[error("the system has no randomness to make a nonce of")]
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
    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ProofError::WitnessForgot { .. } => Some(
                "a witness that nobody has asked yet begins with --new; for one that has lost its state make another key, for with this one it could cosign a second history",
            ),
            ProofError::WitnessBegun { .. } => {
                Some("start it without --new: it goes on with what it has seen")
            }
            ProofError::Log(error) => error.hint(),
            ProofError::Tlog(error) => error.hint(),
            ProofError::NotProvable { .. } => {
                Some("strongroom seal-log signs what is not signed yet, strongroom verify says what is wrong")
            }
            ProofError::Store(error) => error.hint(),
            ProofError::Archive(error) => error.hint(),
            _ => None,
        }
    }
}
