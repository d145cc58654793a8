//! The signed statements of an archive: its keys, how long it keeps everything, its legal holds,
//! what was dropped.
//!
//! Invariant: a statement is parsed and checked here and nothing else happens to it: no object is
//! extended, held or removed. A statement counts only if all before it do. `docs/proof.md` has the
//! formats.

pub mod drops;
pub mod holds;
pub mod keys;
pub mod policy;
pub mod text;
