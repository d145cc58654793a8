//! Evidence packs: the records of a period with everything a stranger needs to check them, in one
//! folder. `docs/proof.md` has the format.
//!
//! Invariants:
//! 1. Every record in a pack is proven up to a checkpoint that was signed before the pack was
//!    started; otherwise there is no pack.
//! 2. Memory holds at most one file of the archive and one piece of proof (a file in `proofs/`),
//!    however many records are chosen.
//! 3. Everything in a pack other than its records (counts, gaps, answers of the store) is presented
//!    as a statement of the pack's maker.

mod ask;
mod attest;
mod build;
mod check;
mod chosen;
mod compare;
mod error;
mod find_gaps;
mod folder;
mod gaps;
mod ledger;
mod manifest;
mod progress;
mod question;
mod report;
mod select;
mod text;
mod verify_md;

pub use self::ask::RunSql;
pub use self::build::{Pack, PackOptions, Sources, build};
pub use self::check::{PackReport, check_pack};
pub use self::compare::compare_with_archive;
pub use self::error::EvidenceError;
pub use self::folder::PackFolder;
pub use self::ledger::CommitCounts;
pub use self::manifest::{Asked, HeadEntry, Manifest, PackFile, Query};
pub use self::progress::{Progress, Step};
pub use self::question::{Question, Span};
