//! The floor of logs on disk: a locked folder of numbered segment files that hold checked records.
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
//! The outbox of the sinks and the write-ahead log of the webhook are built on this floor. It owns
//! what they have in common: folders, locks, durable small files, and finding the records of a
//! segment that a crash or a failing disk left behind. What a record contains, how segments are
//! numbered, and when one is deleted is up to the log.
//!
//! Invariants:
//! - One process at a time writes to a folder: [`Folder`] holds its lock.
//! - [`write_whole`] leaves the old file or the new one, never a part of either.
//! - [`scan`] never takes damage for the end of a log: bytes are a torn tail only if no record
//!   follows that proves them to have been durable.
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
