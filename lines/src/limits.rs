//! The bounds of what is decoded.
//!
//! Invariant: what a record says depends on these bounds, so they are part of the format. No state.

/// Longest line: 64 MiB. The first bytes of a longer one are read as a cut event.
pub const LINE_BYTES_MAX: usize = 64 << 20;
/// Maximum nesting depth of a document.
pub const DEPTH_MAX: usize = 128;

/// The byte order mark, which some editors and exports put before the first line.
pub const BOM: &[u8] = b"\xef\xbb\xbf";
