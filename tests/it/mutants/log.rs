//! The Delta log: commits, Delta's own checkpoints, and `_last_checkpoint`. A reader of a changed log
//! gives an answer or an error, and never names a file outside its volume.

use std::path::{Component, Path};

use strongroom_archive::Archive;
use strongroom_archive::delta::facts;
use strongroom_schemas::Table;

use super::{Changes, archive, files, try_all};

/// Words of commits.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\n",
    "\n\n",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "9223372036854775808",
    "18446744073709551616",
    "{\"add\":",
    "{\"remove\":{\"path\":\"x\"}}",
    "{\"txn\":{\"appId\":\"a\",\"version\":1}}",
    "{\"commitInfo\":{\"timestamp\":0}}",
    "{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7}}",
    "{\"domainMetadata\":{}}",
    "\"path\":",
    "\"../../../etc/passwd\"",
    "\"/etc/passwd\"",
    "\"file:///etc/passwd\"",
    "\"date=2026-03-02/../x.parquet\"",
    "\"date=2026-03-02/%2e%2e%2fx.parquet\"",
    "\"size\":",
    "\"stats\":",
    "\"{\\\"numRecords\\\":1}\"",
    "\"deletionVector\":{}",
    "\"tags\":{}",
    "\"appId\":",
    "\"#closed\"",
    "\"version\":",
    "\"sizeInBytes\":",
    "\"parts\":2",
    "\\u0000",
    "\\ud800",
    "[[[[[[[[[[[[[[[[",
];

fn is_log(path: &Path, suffix: &str) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.parent().is_some_and(|folder| folder.ends_with("_delta_log")) && name.ends_with(suffix)
}

#[test]
fn commits() {
    let (_folder, root) = archive();
    let all = files(&root).into_iter().filter(|path| is_log(path, ".json"));
    let corpus: Vec<Vec<u8>> = all.map(|path| std::fs::read(path).expect("readable")).collect();
    let mut check = |commit: &[u8], _: usize| {
        for is_first in [false, true] {
            let (facts, faults) = facts::parse(commit, is_first, None);
            let again = facts::parse(commit, is_first, None);
            assert_eq!(format!("{facts:?}{faults:?}"), format!("{:?}{:?}", again.0, again.1), "read twice");
            for add in facts.adds {
                assert!(is_inside(Path::new(&add.path)), "a commit names {}", add.path);
            }
        }
    };
    try_all("commits", 6_000, &corpus, Changes::Words(WORDS), &mut check);
    try_all("commits-bytes", 6_000, &corpus, Changes::Bytes, &mut check);
}

fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Reads the table as `query` and `export` do.
fn read(archive: &Archive, root: &Path) {
    if let Ok(snapshot) = archive.snapshot(Table::Events) {
        for file in snapshot.files {
            let below = file.path.strip_prefix(root).expect("below the archive");
            assert!(is_inside(below), "{}", file.path.display());
        }
    }
    let _ = archive.sources();
    let _ = archive.ends(Table::Events);
}

#[test]
fn logs() {
    let (_folder, root) = archive();
    let archive = Archive::open(&root.display().to_string()).expect("an archive");
    let is_read = |path: &Path| {
        path.starts_with(root.join("events"))
            && (is_log(path, ".checkpoint.parquet")
                || is_log(path, "_last_checkpoint")
                || is_log(path, "9.json"))
    };
    let names: Vec<_> = files(&root).into_iter().filter(|path| is_read(path)).collect();
    let corpus: Vec<Vec<u8>> = names.iter().map(|path| std::fs::read(path).expect("readable")).collect();
    assert!(names.iter().any(|path| is_log(path, ".parquet")), "there is a Delta checkpoint");
    let mut check = |input: &[u8], seed: usize| {
        replace(&names[seed], input);
        read(&archive, &root);
        replace(&names[seed], &corpus[seed]);
    };
    try_all("logs", 60, &corpus, Changes::Words(WORDS), &mut check);
    try_all("logs-bytes", 150, &corpus, Changes::Bytes, &mut check);
}

fn replace(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).expect("it was there");
    std::fs::write(path, bytes).expect("written");
}
