//! The signed statements of an archive: its keys, for how long it keeps everything, its legal
//! holds, and the volumes that were dropped.
//!
//! Invariant: this module parses and checks statements, and writes key records. It does not extend
//! the lock of an object, hold an object or remove one. In a numbered series (keys, retention,
//! holds), a statement counts only if all statements before it in the series are valid.
//! `docs/proof.md` has the formats.

pub mod drops;
pub mod holds;
pub mod keys;
pub mod policy;
pub mod text;
