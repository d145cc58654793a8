//! Evidence packs: the records of a period with everything a stranger needs to check them, in one
//! folder. `docs/proof.md` has the format.
//!
//! Invariants:
//! 1. Every record in a pack is proven up to a checkpoint that was signed before the pack was
//!    started; otherwise there is no pack.
//! 2. Memory holds one file and one piece of proof, however many records are chosen.
//! 3. Everything in a pack other than its records (counts, gaps, answers of the store) is presented
//!    as the statement of its maker.

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

/// Maximum number of records in one piece of proof.
pub const PROOF_RECORDS_MAX: usize = 4096;
/// A piece of proof ends when its records reach this many bytes.
pub const PROOF_RECORD_BYTES: usize = 8 << 20;

/// A period in microseconds since the epoch: from the first, inclusive, to the second, exclusive.
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

/// Why a pack cannot be made.
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
    #[error("cannot prove records: {detail}")]
    NotProvable { detail: String },
}

impl From<crate::error::ArchiveError> for EvidenceError {
    fn from(error: crate::error::ArchiveError) -> Self {
        EvidenceError::Proof(error.into())
    }
}

impl EvidenceError {
    /// What the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            EvidenceError::Proof(error) => error.hint(),
            EvidenceError::NotProvable { .. } => Some(
                "run strongroom sign-log to sign new commits, or end the period earlier; strongroom verify reports what is \
                 wrong",
            ),
            EvidenceError::Write { .. } | EvidenceError::Read { .. } => None,
        }
    }
}
