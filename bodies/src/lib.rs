//! What a request body asks for: the object that it would build, what it takes away, the pod in it.
//!
//! ```text
//! text ─examine─▶ Examined ─walk─▶ the values at a path     once a row and body, in alerts
//! ```
//!
//! Invariants: a body is never an error; what cannot be read is said to be so. The bodies come from
//! the clients of a cluster, so depth, number of values and size of copies are bounded by named
//! constants. No IO, no clock, no state.

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
