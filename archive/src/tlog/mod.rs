//! The transparency log of a volume, apart from any store: trees, tiles, notes, keys, checkpoints, cosignatures and
//! timestamps. `docs/proof.md` has the formats.
//!
//! Invariants: nothing here reads or writes an archive. A text is taken for signed, a tree for continued and a time for
//! stamped only after the signature or the proof was checked here.

pub(crate) mod checkpoint;
pub(crate) mod cosignature;
pub(crate) mod error;
pub(crate) mod keys;
pub(crate) mod note;
pub(crate) mod signer;
pub(crate) mod timestamp;
pub(crate) mod tree;
