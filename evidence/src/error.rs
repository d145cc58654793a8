//! Why an evidence pack cannot be made.
//!
//! Invariant: an error in the archive itself keeps its own type, so the caller can distinguish it
//! from an error in the output folder.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use strongroom_archive::error::{ArchiveError, LogError};
use strongroom_proof::ProofError;
use strongroom_proof::verify::Finding;
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
    /// The error that the caller's function returned for a statement.
    #[error(transparent)]
    Sql(Box<dyn Error + Send + Sync>),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot sync {}", path.display())]
    Sync {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make a folder in {}", path.display())]
    MakeFolder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make a temporary folder")]
    MakeTemporaryFolder {
        #[source]
        source: io::Error,
    },
    #[error("{} is not empty", path.display())]
    OutNotEmpty { path: PathBuf },
    #[error("{} is not a usable folder", path.display())]
    OutNotUsable { path: PathBuf },
    #[error("{} is not a folder name", path.display())]
    OutNotAName { path: PathBuf },
    #[error("the period of the question is not valid")]
    Period,
    #[error("cannot make a file for the chosen rows")]
    MakeChosen {
        #[source]
        source: io::Error,
    },
    #[error("cannot keep the chosen rows")]
    KeepChosen {
        #[source]
        source: io::Error,
    },
    #[error("an answer of SQL is not JSON")]
    ParseAnswer {
        #[source]
        source: serde_json::Error,
    },
    #[error("an event has no source or no offset, so it cannot be proven")]
    EventWithoutPosition,
    #[error("a minute in an answer is not a time")]
    MinuteNotATime,
    #[error("the period has more than {max} alerts; ask for a shorter one")]
    TooManyAlerts { max: u64 },
    #[error("cannot prove records: {detail}")]
    NotProvable { detail: String },
    #[error(
        "the question chose {before} events, and now chooses {now}: the archive is still receiving events of the period"
    )]
    StillReceiving { before: u64, now: u64 },
    #[error(
        "the pack failed its own check and is not kept: {}: {}: {}",
        finding.kind,
        finding.place,
        finding.detail
    )]
    FailedCheck { finding: Finding },
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
    /// True if the error is in the output folder or the period that the caller chose.
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            EvidenceError::MakeFolder { .. }
                | EvidenceError::OutNotEmpty { .. }
                | EvidenceError::OutNotUsable { .. }
                | EvidenceError::OutNotAName { .. }
                | EvidenceError::Period
        )
    }

    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            EvidenceError::Proof(error) => error.hint(),
            EvidenceError::Log(error) => error.hint(),
            EvidenceError::NotProvable { .. } => Some(
                "run strongroom sign-log to sign new commits, or end the period earlier; strongroom verify reports what is \
                 wrong",
            ),
            EvidenceError::OutNotEmpty { .. }
            | EvidenceError::OutNotUsable { .. }
            | EvidenceError::OutNotAName { .. } => Some("name a folder that does not exist"),
            EvidenceError::StillReceiving { .. } => Some("let the period end earlier, or try again"),
            _ => None,
        }
    }
}
