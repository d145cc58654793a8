//! Names and folders of an archive.

/// The file that makes a folder an archive.
pub const MANIFEST: &str = "strongroom.json";
