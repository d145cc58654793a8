//! Values that must not be on disk or leave the process: how they are written, counted and looked for.
//!
//! Every marker is a different value. Plain files are searched byte by byte, and Parquet files page by
//! page after decompression, so that a value in a dictionary that no row uses is found, too.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use datafusion::parquet::file::reader::{FileReader as _, SerializedFileReader};

use crate::run::{expect_code, is_long, strongroom};

/// What every marker begins with. It is in no log, path or name of the tests.
const MARK: &str = "zQmK";

/// Digits of the number of a marker.
const MARKER_DIGITS: usize = 8;
/// How many different markers a long test sends through each source, at least.
const MARKERS_LONG: usize = 100_000;

/// A marker as it is in an event: also a valid text in base64.
pub fn marker(number: usize) -> String {
    format!("{MARK}{number:0MARKER_DIGITS$}")
}

/// Counts the different markers that were sent through each source, so that their number is known
/// and not only planned.
#[derive(Default)]
pub struct Sent(BTreeMap<&'static str, HashSet<u32>>);

impl Sent {
    /// Counts the markers in what a source took.
    pub fn add(&mut self, source: &'static str, bytes: &[u8]) {
        let numbers = memchr::memmem::find_iter(bytes, MARK.as_bytes()).filter_map(|at| {
            let digits = bytes.get(at + MARK.len()..at + MARK.len() + MARKER_DIGITS)?;
            std::str::from_utf8(digits).ok()?.parse::<u32>().ok()
        });
        self.0.entry(source).or_default().extend(numbers);
    }

    /// Prints the counts. A long test has sent at least [`MARKERS_LONG`] through each of `sources`.
    #[expect(clippy::print_stdout, reason = "what a test sent is a part of its answer")]
    pub fn report(&self, sources: &[&'static str]) {
        for (source, markers) in &self.0 {
            println!("{source}: {} different markers were sent", markers.len());
        }
        for source in sources {
            let sent = self.0.get(source).map_or(0, HashSet::len);
            assert!(sent >= if is_long() { MARKERS_LONG } else { 1_000 }, "{source}: {sent}");
        }
    }
}

pub fn has_marker(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, MARK.as_bytes()).is_some()
}

/// The files below a folder that have a marker, without the inputs of the run.
pub fn files_with_markers(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "input") {
                    folders.push(path);
                }
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file");
            let is_parquet = path.extension().is_some_and(|extension| extension == "parquet");
            if has_marker(&bytes) || (is_parquet && pages(&path).iter().any(|page| has_marker(page))) {
                found.push(path);
            }
        }
    }
    found
}

/// All pages of a Parquet file, dictionaries among them.
fn pages(path: &Path) -> Vec<Vec<u8>> {
    let reader = SerializedFileReader::new(std::fs::File::open(path).expect("a file"));
    // A file that was being written when the process was killed has no footer.
    let Ok(reader) = reader else { return Vec::new() };
    let mut pages = Vec::new();
    for row_group in 0..reader.num_row_groups() {
        let row_group = reader.get_row_group(row_group).expect("a row group");
        for column in 0..row_group.num_columns() {
            for page in row_group.get_column_page_reader(column).expect("a column") {
                pages.push(page.expect("a page").buffer().to_vec());
            }
        }
    }
    assert!(!pages.is_empty());
    pages
}

/// Makes a pack of some of an archive's records, which both verifiers accept.
pub fn packed(archive: &Path, folder: &Path) {
    let (key, pack) = (folder.join("signing.key"), folder.join("pack"));
    let (public, _) = expect_code(strongroom().args(["key", "new"]).arg(&key), 0);
    expect_code(strongroom().args(["sign-log", "--archive"]).arg(archive).arg("--key").arg(&key), 0);
    let mut evidence = strongroom();
    evidence.args([
        "evidence",
        "--from",
        "2026-03-02T10:00:00Z",
        "--to",
        "2026-03-02T10:02:00Z",
        "--archive",
    ]);
    expect_code(evidence.arg(archive).arg("--key").arg(&key).arg("--out").arg(&pack), 0);
    let records = std::fs::read_to_string(pack.join("records.jsonl")).expect("records");
    assert!(records.lines().count() > 10, "{} bytes", records.len());
    expect_code(strongroom().args(["evidence", "check", "--public-key", public.trim()]).arg(&pack), 0);
    let python = std::env::var_os("STRONGROOM_PYTHON").unwrap_or_else(|| "python3".into());
    let mut verifier = Command::new(python);
    verifier.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/verify.py"));
    expect_code(verifier.args(["pack", "--public-key", public.trim()]).arg(&pack), 0);
}
