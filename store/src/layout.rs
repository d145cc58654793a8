//! The names of an archive's folders and files.
//!
//! ```text
//! <root>/strongroom.json                        written once: makes the folder an archive
//! <root>/.lock                                  locked by the one writer; empty
//! <root>/<table>/<period>/                      a volume: one Delta table for the commits of a
//!                                               UTC year, or of a part of one
//!         date=2026-03-02/<32 hex>.parquet      sealed, read-only; named by its own BLAKE3 hash
//!         _delta_log/<20 digits>.json           the commits
//!         _tlog/                                the signed log; see `docs/proof.md`
//!         _staging/<n>.parquet                  files being written; removed by the next writer
//! <root>/_keys/<8 digits>                       the keys that sign the logs
//! <root>/_retention/<8 digits>                  more years than `strongroom.json` promises
//! <root>/_holds/<8 digits>[-<8 digits>]         legal holds, their releases, and the objects held
//! <root>/_dropped/<table>-<period>[.state]      dropped volumes, and where they ended
//! <root>/_clock/<8 digits>                      commits that a wrong clock dated
//! ```
//!
//! In a bucket there is neither `.lock` nor `_staging`. Instead there are objects
//! `<root>/_probe/<nonce>`, which writers put to test the store and which have no meaning.
//!
//! Invariant: a file or folder whose name does not have one of these forms does not belong to the
//! archive, and is never changed or removed. Delta readers skip names that start with `_` or `.`,
//! so they never see a file that is not sealed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use strongroom_schemas::table::DATE;
use strongroom_schemas::{Period, Table, VolumeId};

/// Name of the file that makes a folder an archive.
pub const MANIFEST: &str = "strongroom.json";
/// Name of the file that the one writer of a local archive locks.
pub const LOCK: &str = ".lock";
/// Folder of a volume for files that are being written.
pub const STAGING: &str = "_staging";
/// Folder of the objects that writers put into a bucket to test its store.
pub const PROBE: &str = "_probe";
/// Folder of a volume for its Delta log.
pub const DELTA_LOG: &str = "_delta_log";
/// The signed log of a volume.
pub const TLOG: &str = "_tlog";
/// Records of the keys that sign the logs.
pub const KEYS: &str = "_keys";
/// Records of how long everything is kept.
pub const RETENTION: &str = "_retention";
/// Records of legal holds.
pub const HOLDS: &str = "_holds";
/// Records of dropped volumes.
pub const DROPPED: &str = "_dropped";
/// Records about commits that a wrong clock dated.
pub const CLOCK: &str = "_clock";
const PARQUET: &str = ".parquet";
const COMMIT: &str = ".json";
/// Suffix of the name of a dropped volume's final positions.
pub const STATE_SUFFIX: &str = ".state";
/// Maximum size of a sealed file, and of what is read of one at once. Writers start a new file at
/// 128 MiB, and the last row group of a file is smaller than that.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// Maximum size of a Delta checkpoint.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;
/// Maximum size of a commit, or of a dropped volume's final positions.
const COMMIT_BYTES_MAX: u64 = 256 << 20;
/// Maximum size of every other file that is read whole: the manifest, records, notes and tiles.
const NOTE_BYTES_MAX: u64 = 1 << 20;
/// Number of hex digits of a file's name: 16 bytes of its hash.
const NAME_DIGITS: usize = 32;
/// Number of digits of a version in the name of a commit.
const VERSION_DIGITS: usize = 20;

/// Returns the folder of a table.
pub fn table(root: &Path, table: Table) -> PathBuf {
    root.join(table.name())
}

/// Returns the folder of a volume.
pub fn volume(root: &Path, volume: VolumeId) -> PathBuf {
    table(root, volume.table).join(volume.period.to_string())
}

/// Returns the folder of the Delta log of a volume.
pub fn delta_log(volume: &Path) -> PathBuf {
    volume.join(DELTA_LOG)
}

/// Returns the periods of the volumes among the names in a table's folder, oldest first.
pub fn periods_among(names: &[String]) -> Vec<Period> {
    let mut periods: Vec<Period> = names.iter().filter_map(|name| name.parse().ok()).collect();
    periods.sort_unstable();
    periods
}

/// Returns the name of the folder for the files of a date.
pub fn date_folder(date: NaiveDate) -> String {
    format!("{DATE}={}", date.format("%Y-%m-%d"))
}

/// Returns the date in the name of a folder that [`date_folder`] gives.
pub fn date_of_folder(name: &str) -> Option<NaiveDate> {
    let date = name.strip_prefix(DATE)?.strip_prefix('=')?;
    NaiveDate::parse_from_str(date, "%Y-%m-%d").ok().filter(|parsed| date_folder(*parsed) == name)
}

/// Returns the name of a sealed file, from its hash.
pub fn file_name(hash: &blake3::Hash) -> String {
    format!("{}{PARQUET}", &hash.to_hex()[..NAME_DIGITS])
}

/// Whether a name has the form that [`file_name`] gives.
pub fn is_file_name(name: &str) -> bool {
    name.strip_suffix(PARQUET).is_some_and(|digits| {
        digits.len() == NAME_DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Returns the name of a file that is being written.
pub fn staging_name(number: u64) -> String {
    format!("{number}{PARQUET}")
}

/// Splits the path by which a commit names a file, which is relative to the volume, into date and
/// name. `None` if the path is not that of a sealed file of the volume.
pub fn split_data_path(path: &str) -> Option<(NaiveDate, &str)> {
    let (folder, name) = path.split_once('/')?;
    let plain = name.ends_with(PARQUET) && !name.contains(['/', '\\', '\0']) && !name.starts_with('.');
    plain.then_some((date_of_folder(folder)?, name))
}

/// Returns the file of a commit.
pub fn commit(volume: &Path, version: u64) -> PathBuf {
    delta_log(volume).join(commit_name(version))
}

/// Returns the name of the file of a commit.
pub fn commit_name(version: u64) -> String {
    format!("{version:0VERSION_DIGITS$}.json")
}

/// Returns the name of a Delta checkpoint that is one file with a classic name.
pub fn checkpoint_name(version: u64) -> String {
    format!("{version:0VERSION_DIGITS$}.checkpoint.parquet")
}

/// Returns the version of a commit, from the name of its file.
pub fn commit_version(name: &str) -> Option<u64> {
    version_digits(name.strip_suffix(COMMIT)?)
}

/// Returns the version of such a checkpoint, from the name of its file.
pub fn checkpoint_version(name: &str) -> Option<u64> {
    version_digits(name.strip_suffix(".checkpoint.parquet")?)
}

fn version_digits(digits: &str) -> Option<u64> {
    let all = digits.len() == VERSION_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

/// Returns the maximum size of the file at `path`, which must be of a kind that is read whole.
/// Files of rows are read in parts instead.
pub fn bytes_max(path: &Path) -> u64 {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_in = |folder: &str| path.parent().and_then(Path::file_name) == Some(OsStr::new(folder));
    if is_in(DELTA_LOG) && name.ends_with(PARQUET) {
        CHECKPOINT_BYTES_MAX
    } else if is_in(DELTA_LOG) && name.ends_with(COMMIT) || is_in(DROPPED) && name.ends_with(STATE_SUFFIX) {
        COMMIT_BYTES_MAX
    } else {
        NOTE_BYTES_MAX
    }
}

/// True for hidden files and `lost+found`: a folder that contains nothing else counts as empty, and
/// may become an archive.
pub fn is_furniture(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with('.') || name == "lost+found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let date = NaiveDate::from_ymd_opt(2026, 3, 2).expect("a date");
        assert_eq!(date_folder(date), "date=2026-03-02");
        assert_eq!(date_of_folder("date=2026-03-02"), Some(date));
        let name = file_name(&blake3::hash(b"x"));
        assert!(is_file_name(&name), "{name}");
        assert_eq!(split_data_path(&format!("date=2026-03-02/{name}")), Some((date, name.as_str())));
        assert_eq!(commit_version("00000000000000000017.json"), Some(17));
        assert_eq!(commit(Path::new("v"), 17), Path::new("v/_delta_log/00000000000000000017.json"));
        assert_eq!(checkpoint_version("00000000000000000099.checkpoint.parquet"), Some(99));
    }

    #[test]
    fn foreign_names_are_not_ours() {
        for name in ["date=2026-3-2", "date=2026-02-30", "date=", "dates=2026-03-02", "2026-03-02"] {
            assert_eq!(date_of_folder(name), None, "{name}");
        }
        for name in
            ["part-0.parquet", "0123.parquet", &format!("{}.parquet", "G".repeat(32)), &"a".repeat(32)]
        {
            assert!(!is_file_name(name), "{name}");
        }
        for path in [
            "date=2026-03-02/../../x.parquet",
            "../date=2026-03-02/x.parquet",
            "/etc/x.parquet",
            "date=2026-03-02/.x.parquet",
            "date=2026-03-02/x.json",
            "x.parquet",
            "file:///etc/x.parquet",
        ] {
            assert_eq!(split_data_path(path), None, "{path}");
        }
        for name in ["1.json", "0000000000000000001x.json", "00000000000000000017.json.tmp"] {
            assert_eq!(commit_version(name), None, "{name}");
        }
    }
}
