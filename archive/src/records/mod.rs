//! The signed statements of an archive: its keys, how long it keeps everything, its legal holds,
//! what was dropped, and which commits a wrong clock dated.
//!
//! Invariant: statements are only parsed and checked here (key records are also written). No
//! object's lock is extended, and no object is held or removed. In a numbered series (keys,
//! retention, holds, clock), a statement counts only if all statements before it do. `docs/proof.md` has
//! the formats.

pub mod clock;
pub mod drops;
pub mod holds;
pub mod keys;
pub mod policy;
pub mod text;
