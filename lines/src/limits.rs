//! Bounds on the input that is decoded.
//!
//! Invariant: these bounds decide how a record is read, so they are part of the format. No state.

/// Longest line: 64 MiB. If a line is longer, its first 64 MiB are read as an event whose end is
/// missing.
pub const LINE_BYTES_MAX: usize = 64 << 20;
/// Maximum nesting depth of a document.
pub const DEPTH_MAX: usize = 128;

/// The byte order mark, which some editors and exports put before the first line.
pub const BOM: &[u8] = b"\xef\xbb\xbf";
