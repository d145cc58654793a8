//! Versions of the formats on disk.
//!
//! Invariant: a reader refuses an unknown version, and names the versions that it knows. No state.

/// Version of the archive layout: `strongroom.json`, folder names, commit tags.
pub const ARCHIVE_FORMAT: u32 = 1;

/// Version of the columns, of what they say about a record, and of the rendering that turns a row
/// back into its line. From 2 on, an event is a row even if a part of it cannot be read; the part
/// is a fault.
///
/// If the `raw` of a row is null, rendering its columns gives the bytes received. So a change of
/// the rendering is a change of the format, and readers must keep the old rendering.
pub const EVENTS_FORMAT: u32 = 2;
