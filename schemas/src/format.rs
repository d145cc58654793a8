//! Versions of what is on disk. A reader refuses a version it does not know, and says which it knows.

/// Version of the archive layout: `strongroom.json`, folder names, commit tags.
pub const ARCHIVE_FORMAT: u32 = 1;

/// Version of the columns and of the rendering that turns a row back into its line.
///
/// A row whose `raw` is null promises that rendering its columns gives the bytes received. A change
/// of the rendering is therefore a change of the format, and the old rendering must stay readable.
pub const EVENTS_FORMAT: u32 = 1;
