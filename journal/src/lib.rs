//! The base of the logs on disk: a locked folder of numbered segment files, which contain records
//! with checksums.
//!
//! ```
//! use strongroom_journal::{Folder, numbered, write_whole};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! let folder = Folder::open(&home.path().join("outbox"))?;
//! write_whole(&folder.file(1, "log"), b"first segment")?;
//! write_whole(&folder.file(40, "log"), b"second segment")?;
//! let numbers: Vec<u64> = numbered(folder.path(), "log")?.into_iter().map(|(number, _)| number).collect();
//! assert_eq!(numbers, [1, 40]);
//! # Ok(())
//! # }
//! ```
//!
//! The outbox of the sinks and the write-ahead log of the webhook use this crate. It contains the
//! code that these two logs share: folders, locks, durable small files, and finding the records of
//! a segment after a crash or a disk failure. Each log decides what a record contains, how segments
//! are numbered, and when a segment is deleted.
//!
//! Invariants:
//! - One process at a time writes to a folder: [`Folder`] holds its lock.
//! - After a crash in [`write_whole`], the file has its old content or its new content, never a
//!   part of either.
//! - [`scan`] never mistakes damage for the end of a log. Bytes are a torn tail only if no later
//!   record proves that the bytes were durable.
//!
//! Crashes: a function here may be interrupted between any two writes. A lock is released by the
//! system, a staging file `*.new` is overwritten by the next [`write_whole`], and a torn tail stays
//! until [`end_at`] cuts it off.

mod clock;
mod error;
mod folder;
mod mutex;
mod segment;

pub use clock::now_ms;
pub use error::{JournalError, cannot_read, cannot_write};
pub use folder::{Folder, create, numbered, sync_folder, write_whole};
pub use mutex::lock;
pub use segment::{Found, Reader, Record, checksum, end_at, find, scan};
