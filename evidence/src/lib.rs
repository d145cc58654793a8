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
mod error;
mod ledger;
mod manifest;
mod pack;
mod question;
mod select;

pub use self::attest::attest;
pub use self::chosen::Chosen;
pub use self::error::EvidenceError;
pub use self::ledger::{CommitCounts, Jump, Lag, Ledger, ListedFile};
pub use self::manifest::{
    Asked, HeadEntry, MANIFEST, MANIFEST_NOTE, Manifest, PackFile, Query, sign_manifest,
};
pub use self::pack::{PackReport, check_pack};
pub use self::question::{Question, Span};
pub use self::select::{
    PROOF_RECORD_BYTES, PROOF_RECORDS_MAX, Selected, Selection, fingerprint, write_pack_records,
};
