//! Reads request bodies for rules: the object that a body would build, the places that it removes,
//! and the pod in it.
//!
//! ```text
//! text ─examine─▶ Examined ─walk─▶ the values at a path
//! ```
//!
//! `alerts` examines each body of a row once. Invariants: no body is an error; if a body cannot be
//! read, the result says so. The bodies come from the clients of a cluster, so depth, number of
//! values and size of copies are bounded by named constants. No IO, no clock, no state.

pub mod binding;
pub mod body;
mod exec;
mod patch;
mod path;
mod removed;
pub mod touched;
pub mod walk;

pub use exec::Exec;
pub use path::Path;
pub use removed::REMOVED_MAX;
