//! Thousands of files with one event each take little more room than one file with the same events,
//! and the same promises hold for them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::run::{expect_code, export, ingest, log, number, output, strongroom, write};

/// Writes each line of a log into a file of its own.
fn split(folder: &Path, log: &[u8]) -> PathBuf {
    let logs = folder.join("logs");
    std::fs::create_dir(&logs).expect("made");
    for (number, line) in log.split_inclusive(|byte| *byte == b'\n').enumerate() {
        write(&logs, &format!("{number:05}.log"), line);
    }
    logs
}

fn archive_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| match entry.file_type().expect("a type").is_dir() {
            true => archive_bytes(&entry.path()),
            false => entry.metadata().expect("metadata").len(),
        })
        .sum()
}

fn verified(archive: &Path) {
    expect_code(strongroom().args(["verify", "--archive"]).arg(archive), 0);
    let Some(verifier) = std::env::var_os("STRONGROOM_VERIFIER") else { return };
    let command = format!("{} '{}'", verifier.to_string_lossy(), archive.display());
    let ended = output(std::process::Command::new("bash").arg("-c").arg(command));
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
}

#[test]
fn files_of_one_event_take_little_room_and_come_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bytes = log(2_500, 51);
    let (logs, archive) = (split(folder.path(), &bytes), folder.path().join("archive"));
    expect_code(&mut ingest(&archive, &[&logs]), 0);
    let whole = folder.path().join("whole");
    expect_code(&mut ingest(&whole, &[&write(folder.path(), "whole.log", &bytes)]), 0);
    assert!(export(&archive) == bytes, "the files are exported in the order of their names");
    let (apart, together) = (archive_bytes(&archive.join("events")), archive_bytes(&whole.join("events")));
    // Each stream has its own name, hash and position, so the files take somewhat more room.
    assert!(apart < bytes.len() as u64 * 3 / 2, "{apart} of {}", bytes.len());
    assert!(apart < together + 2_500 * 1_200, "{apart}, and {together} in one file");
    // The same events raise the same alerts.
    let alerts = "SELECT count(DISTINCT (rule_id, audit_ids[1])) FROM alerts";
    assert_eq!(number(&archive, alerts), number(&whole, alerts));
    assert_eq!(number(&archive, "SELECT count(DISTINCT source) FROM events"), 2_500);
    assert_eq!(number(&archive, "SELECT count(*) FROM events WHERE source_offset > 0"), 0);
    let (_, err) = expect_code(&mut ingest(&archive, &[&logs]), 0);
    assert!(err.contains("events 0 + rejects 0 + duplicates 2,500"), "{err}");
    verified(&archive);
}

/// Many short files are ingested together. Among them are files with rejects, empty files, files
/// with an unfinished line, and files that grow later.
#[test]
fn every_file_keeps_its_own_rows_and_position() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (logs, archive) = (folder.path().join("logs"), folder.path().join("archive"));
    std::fs::create_dir(&logs).expect("made");
    let bytes = log(600, 52);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut files: Vec<Vec<u8>> = lines.chunks(2).map(<[&[u8]]>::concat).collect();
    for (number, file) in files.iter_mut().enumerate() {
        match number % 10 {
            3 => file.splice(0..0, format!("broken {number}\n").into_bytes()).for_each(drop),
            5 => file.clear(),
            // This file is an array. The text around its events is kept with them.
            7 => {
                let text = String::from_utf8(std::mem::take(file)).expect("text");
                *file = format!("[\n{}\n]\n", text.trim_end().replace('\n', ",\n")).into_bytes();
            }
            _ => {}
        }
    }
    let put = |files: &[Vec<u8>]| {
        for (number, file) in files.iter().enumerate() {
            write(&logs, &format!("{number:03}.log"), file);
        }
    };
    // Every fourth file is cut in its last line.
    let cut: Vec<Vec<u8>> =
        files.iter().map(|file| file[..file.len() - file.len().min(30)].to_vec()).collect();
    let first: Vec<Vec<u8>> = files
        .iter()
        .zip(&cut)
        .enumerate()
        .map(|(number, (file, cut))| if number % 4 == 1 { cut } else { file }.clone())
        .collect();
    put(&first);
    let (_, err) = expect_code(&mut ingest(&archive, &[&logs]), 1);
    assert!(err.contains("003.log:1: broken_json: "), "{err}");
    put(&files);
    expect_code(&mut ingest(&archive, &[&logs]), 0);
    let (_, err) = expect_code(&mut ingest(&archive, &[&logs]), 0);
    assert!(err.contains("nothing new"), "{err}");
    let events: usize =
        files.iter().map(|file| file.windows(9).filter(|w| w == b"\"auditID\"").count()).sum();
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), events as i64);
    assert_eq!(number(&archive, "SELECT count(*) FROM rejects WHERE reason = 'empty_file'"), 30);
    assert_eq!(number(&archive, "SELECT count(*) FROM rejects WHERE reason = 'broken_json'"), 30);
    // Each stream has the bytes of its file.
    let listed = output(strongroom().args(["export", "--list", "--archive"]).arg(&archive)).stdout;
    let listed = String::from_utf8(listed).expect("text");
    for line in listed.lines().filter(|line| !line.contains("empty/")).step_by(37) {
        let source = line.split_whitespace().find(|word| word.starts_with("file/")).expect("a source");
        let path = line.split_whitespace().find(|word| word.ends_with(".log")).expect("a path");
        let number: usize = path[path.len() - 7..path.len() - 4].parse().expect("a number");
        let out = output(strongroom().args(["export", "--source", source, "--archive"]).arg(&archive));
        assert!(out.stdout == files[number], "{line}");
    }
    verified(&archive);
}

#[test]
fn a_killed_run_over_short_files_is_resumed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bytes = log(1_500, 53);
    let (logs, archive) = (split(folder.path(), &bytes), folder.path().join("archive"));
    for wait in [30, 60, 90, 120, 200, 300] {
        let mut command = ingest(&archive, &[&logs]);
        command.args(["--seal-bytes", "8KiB"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(wait));
        let _ = child.kill();
        child.wait().expect("ends");
    }
    expect_code(&mut ingest(&archive, &[&logs]), 0);
    assert!(export(&archive) == bytes);
    assert_eq!(number(&archive, "SELECT count(*) - count(DISTINCT alert_id) FROM alerts"), 0);
    verified(&archive);
}
