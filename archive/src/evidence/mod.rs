//! Evidence packs: the records of a period with what lets a stranger check them, in one folder.
//! `docs/proof.md` has the format.
//!
//! Invariants:
//! 1. Every record in a pack is proven to a checkpoint that was signed before the pack was begun, or there is no pack.
//! 2. Memory is that of one file and one piece of proof, however many records are chosen.
//! 3. What a pack tells beside its records (counts, gaps, what the store said) is told as the word of whoever made it.

mod attest;
mod chosen;
mod ledger;
mod manifest;
mod pack;
mod select;

use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

pub use self::attest::attest;
pub use self::chosen::Chosen;
pub use self::ledger::{CommitCounts, Jump, Lag, Ledger, NamedFile};
pub use self::manifest::{
    Asked, HeadEntry, MANIFEST, MANIFEST_NOTE, Manifest, PackFile, Query, Question, sign_manifest,
};
pub use self::pack::{PackReport, check_pack};
pub use self::select::{Selected, Selection, fingerprint, write_pack_records};
use crate::proof::ProofError;

/// Most records of one piece of proof.
pub const PROOF_RECORDS_MAX: usize = 4096;
/// Bytes of records behind which a piece of proof is ended.
pub const PROOF_RECORD_BYTES: usize = 8 << 20;

/// A period in microseconds since the epoch: from the first, up to and without the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    pub from_us: i64,
    pub to_us: i64,
}

impl Span {
    pub fn holds(self, time_us: i64) -> bool {
        (self.from_us..self.to_us).contains(&time_us)
    }
}

/// Why there is no pack.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvidenceError {
    #[error(transparent)]
    Proof(#[from] ProofError),
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
    #[error("records cannot be proven: {detail}")]
    NotProvable { detail: String },
}

impl From<crate::error::ArchiveError> for EvidenceError {
    fn from(error: crate::error::ArchiveError) -> Self {
        EvidenceError::Proof(error.into())
    }
}

impl EvidenceError {
    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            EvidenceError::Proof(error) => error.hint(),
            EvidenceError::NotProvable { .. } => Some(
                "strongroom sign-log signs what is not signed yet, or let the period end earlier; strongroom verify says what is \
                 wrong",
            ),
            EvidenceError::Write { .. } | EvidenceError::Read { .. } => None,
        }
    }
}
