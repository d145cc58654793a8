//! `strongroom ingest` and `strongroom export` from outside: every byte comes back, once.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::run::{expect_code, export, ingest, is_long, log, number, output, strongroom, write};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn lines(bytes: &[u8]) -> BTreeMap<&[u8], usize> {
    let mut lines = BTreeMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        *lines.entry(line).or_insert(0) += 1;
    }
    lines
}

/// Adds up what the commits of `events` say, and checks each commit's sum.
fn committed_counts(archive: &Path) -> [u64; 4] {
    let mut total = [0; 4];
    for commit in glob_json(archive) {
        for action in std::fs::read_to_string(&commit).expect("a commit").lines() {
            let action: serde_json::Value = serde_json::from_str(action).expect("an action a line");
            let Some(info) = action.get("commitInfo") else { continue };
            let found = find_counts(info).map(|counts| {
                ["received", "events", "rejects", "duplicates"].map(|name| {
                    counts[name]
                        .as_u64()
                        .or_else(|| counts[name].as_str()?.parse().ok())
                        .unwrap_or_else(|| panic!("{name} in {counts}"))
                })
            });
            let Some(counts) = found else { continue };
            assert_eq!(counts[0], counts[1] + counts[2] + counts[3], "{}", commit.display());
            for (sum, count) in total.iter_mut().zip(counts) {
                *sum += count;
            }
        }
    }
    total
}

fn find_counts(value: &serde_json::Value) -> Option<serde_json::Value> {
    match value {
        serde_json::Value::Object(map) if map.contains_key("received") && map.contains_key("duplicates") => {
            Some(value.clone())
        }
        serde_json::Value::Object(map) => map.values().find_map(find_counts),
        serde_json::Value::String(text) => serde_json::from_str(text)
            .ok()
            .filter(serde_json::Value::is_object)
            .and_then(|inner| find_counts(&inner)),
        _ => None,
    }
}

fn glob_json(archive: &Path) -> Vec<std::path::PathBuf> {
    let mut commits = Vec::new();
    let volumes = std::fs::read_dir(archive.join("events")).expect("the table's folder");
    for volume in volumes.map(|entry| entry.expect("an entry").path()) {
        for entry in std::fs::read_dir(volume.join("_delta_log")).expect("a log") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "json") {
                commits.push(path);
            }
        }
    }
    commits
}

#[test]
fn a_log_comes_back_byte_for_byte_and_a_second_time_adds_nothing() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = log(20_000, 1);
    let path = write(folder.path(), "audit.log", &bytes);
    let (_, err) = expect_code(&mut ingest(&archive, &[&path]), 0);
    assert!(err.contains("received 20,000 = events 20,000 + rejects 0 + duplicates 0"), "{err}");
    assert!(export(&archive) == bytes);
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 20_000);
    assert_eq!(number(&archive, "SELECT count(raw) FROM events"), 0);
    let alerts = number(&archive, "SELECT count(*) FROM alerts");
    assert!(alerts > 0);

    let (out, err) = expect_code(&mut ingest(&archive, &[&path]), 0);
    assert!(err.contains("received 20,000 = events 0 + rejects 0 + duplicates 20,000"), "{err}");
    assert!(err.contains("nothing new"), "{err}");
    assert_eq!(out, "", "alerts are raised once");
    // The same content under another name, packed: still nothing new.
    let packed = zstd::encode_all(&bytes[..], 1).expect("in memory");
    let renamed = write(folder.path(), "renamed.bin", &packed);
    let (_, err) = expect_code(&mut ingest(&archive, &[&renamed]), 0);
    assert!(err.contains("duplicates 20,000"), "{err}");
    assert!(export(&archive) == bytes);
    assert_eq!(number(&archive, "SELECT count(*) FROM alerts"), alerts);
    assert_eq!(committed_counts(&archive), [20_000, 20_000, 0, 0]);
}

#[test]
fn a_file_that_grows_is_continued_wherever_it_was_cut() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = log(3_000, 2);
    let path = folder.path().join("audit.log");
    let mut events = 0;
    for cut in [bytes.len() / 7, bytes.len() / 3, bytes.len() / 3, bytes.len() * 2 / 3 + 11, bytes.len()] {
        std::fs::write(&path, &bytes[..cut]).expect("written");
        let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
        let torn = bytes[cut - 1] != b'\n';
        let (_, err) = expect_code(&mut ingest(&archive, &[&path]), i32::from(torn));
        assert_eq!(err.contains("unfinished: "), torn, "{err}");
        assert!(
            err.contains(&format!(
                "events {} + rejects 0 + duplicates {}",
                with_commas(whole - events),
                with_commas(events)
            )),
            "{err}"
        );
        events = whole;
    }
    assert!(export(&archive) == bytes);
}

fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn a_stream_that_begins_alike_and_differs_loses_nothing() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = log(600, 3);
    let line_end = bytes.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    let other = [&bytes[..line_end], &log(500, 4)].concat();
    let first = write(folder.path(), "a.log", &bytes);
    let second = write(folder.path(), "b.log", &other);
    let shorter = write(folder.path(), "c.log", &bytes[..line_end]);
    expect_code(&mut ingest(&archive, &[&first]), 0);
    expect_code(&mut ingest(&archive, &[&second]), 0);
    let exported = export(&archive);
    assert!(exported == [bytes.as_slice(), &other].concat());
    // Again, both are known for what they are.
    let (_, err) = expect_code(&mut ingest(&archive, &[&first, &second]), 0);
    assert!(err.contains("events 0 + rejects 0 + duplicates 1,101"), "{err}");
    // A shorter file proves nothing about what follows, so nothing of it is taken for known.
    expect_code(&mut ingest(&archive, &[&shorter]), 0);
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 1_102);
}

#[test]
fn rejects_are_rows_and_come_back_in_their_place() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = log(300, 5);
    let mut mixed = b"\xef\xbb\xbf".to_vec();
    for (at, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match at % 10 {
            0 => mixed.extend_from_slice(b"{\"kind\":\"Pod\"}\n"),
            1 => mixed.extend_from_slice(&line[..line.len() / 2]),
            2 => mixed.extend_from_slice(b"\0\0\0\xff\n\n\n"),
            3 => mixed.extend_from_slice(b"password=hunter2 not json\r\n"),
            _ => {}
        }
        mixed.extend_from_slice(line);
    }
    mixed.extend_from_slice(&vec![b'z'; 9 << 20]);
    let path = write(folder.path(), "audit.log", &mixed);
    let empty = write(folder.path(), "empty.log", b"");
    let mut command = ingest(&archive, &[&path, &empty]);
    command.arg("--complete");
    let (_, err) = expect_code(&mut command, 1);
    assert!(!err.contains("hunter2"), "what was refused is not repeated: {err}");
    assert!(err.contains("audit.log:3: "), "{err}");
    assert!(export(&archive) == mixed);
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 300);
    for (reason, count) in [
        ("not_an_audit_event", 30),
        ("torn_line", 30),
        ("nul_byte", 30),
        ("broken_json", 30),
        ("line_too_long", 3),
        ("empty_file", 1),
    ] {
        assert_eq!(
            number(&archive, &format!("SELECT count(*) FROM rejects WHERE reason = '{reason}'")),
            count,
            "{reason}"
        );
    }
    let [received, events, rejects, duplicates] = committed_counts(&archive);
    assert_eq!([received, events, rejects, duplicates], [300 + 124, 300, 124, 0]);
    let (_, err) = expect_code(&mut command, 0);
    assert!(err.contains("events 0 + rejects 0 + duplicates 424"), "{err}");
}

#[test]
fn mutated_lines_are_conserved() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let mut state = 0x0123_4567_89ab_cdef_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let mut mutated = Vec::new();
    for line in log(3_000, 6).split_inclusive(|byte| *byte == b'\n') {
        let body = &line[..line.len() - 1];
        match random(3) {
            0 => mutated.extend_from_slice(&body[..1 + random(body.len() - 1)]),
            1 => {
                let at = mutated.len() + random(body.len());
                mutated.extend_from_slice(body);
                mutated[at] ^= 1 << random(8);
            }
            _ => {
                mutated.extend_from_slice(&body[..random(body.len())]);
                mutated.extend_from_slice(body);
            }
        }
        mutated.push(b'\n');
    }
    let path = write(folder.path(), "audit.log", &mutated);
    let output = output(&mut ingest(&archive, &[&path]));
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(export(&archive) == mutated);
    let [received, events, rejects, duplicates] = committed_counts(&archive);
    assert_eq!(received, events + rejects + duplicates);
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), events as i64);
    assert_eq!(number(&archive, "SELECT count(*) FROM rejects"), rejects as i64);
    assert!(events > 900 && rejects > 900, "{events} events, {rejects} rejects");
}

#[test]
fn directories_patterns_packed_files_and_standard_input() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let logs = folder.path().join("logs/deeper");
    std::fs::create_dir_all(&logs).expect("a folder");
    let (oldest, older, newest) = (log(100, 7), log(100, 8), log(100, 9));
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&oldest).expect("in memory");
    write(&logs, "audit-2026-03-01T00-00-00.000.log.gz", &gz.finish().expect("in memory"));
    write(&logs, "audit-2026-03-02T00-00-00.000.log", &older);
    write(&logs, "audit.log", &newest);
    write(&logs, "notes.txt", b"not a log");
    expect_code(&mut ingest(&archive, &[&folder.path().join("logs")]), 0);
    assert!(export(&archive) == [oldest.as_slice(), &older, &newest].concat());

    let (_, err) = expect_code(&mut ingest(&archive, &[Path::new(&format!("{}/audit*", logs.display()))]), 0);
    assert!(err.contains("duplicates 300"), "{err}");

    let piped = log(50, 10);
    let mut child = ingest(&archive, &[Path::new("-")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    child.stdin.take().expect("piped").write_all(&piped[..piped.len() - 1]).expect("written");
    assert!(child.wait_with_output().expect("ends").status.success());
    assert!(export(&archive).ends_with(&piped[..piped.len() - 1]));
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 350);
}

#[test]
fn a_bad_file_does_not_keep_the_others_out() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let good = log(100, 11);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gz.write_all(&log(2_000, 12)).expect("in memory");
    let mut cut = gz.finish().expect("in memory");
    cut.truncate(cut.len() / 2);
    let cut = write(folder.path(), "cut.log.gz", &cut);
    let path = write(folder.path(), "good.log", &good);
    let (_, err) = expect_code(&mut ingest(&archive, &[&cut, &path]), 2);
    assert!(
        err.contains("cannot read") && err.contains("cut.log.gz beyond byte") && err.contains("hint:"),
        "{err}"
    );
    assert!(export(&archive).ends_with(&good));
    assert!(number(&archive, "SELECT count(*) FROM events") > 500);

    let (_, err) = expect_code(&mut ingest(&archive, &[&folder.path().join("absent.log")]), 1);
    assert!(err.contains("no such file") && err.contains("hint:"), "{err}");
    let (_, err) = expect_code(strongroom().args(["ingest", "--archive"]).arg(&archive).arg(&path), 64);
    assert!(err.contains("--cluster"), "{err}");
}

#[test]
fn two_runs_at_once_both_succeed() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let logs: Vec<Vec<u8>> = (0..4).map(|seed| log(8_000, 20 + seed)).collect();
    let children: Vec<_> = logs
        .iter()
        .enumerate()
        .map(|(at, bytes)| {
            let path = write(folder.path(), &format!("{at}.log"), bytes);
            ingest(&archive, &[&path]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 32_000);
    assert_eq!(lines(&export(&archive)), lines(&logs.concat()));
}

#[test]
fn kill_at_random_moments_loses_and_repeats_nothing() {
    let kills = if is_long() { 100 } else { 12 };
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = log(if is_long() { 400_000 } else { 60_000 }, 30);
    let half = bytes[..bytes.len() / 2].iter().rposition(|byte| *byte == b'\n').expect("a line") + 1;
    let mut first = bytes[..half].to_vec();
    first.extend_from_slice(b"torn {\"kind\":\"Event\"\n");
    let paths =
        [write(folder.path(), "audit-1.log", &first), write(folder.path(), "audit-2.log", &bytes[half..])];
    let command = || {
        // Small blocks and seals: many moments at which a kill can meet a file or a commit.
        let mut command = ingest(&archive, &[&paths[0], &paths[1]]);
        command
            .args(["--block-bytes", "5MiB", "--seal-bytes", "400KiB"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let (mut state, mut killed, mut kept) = (0x5eed_u64, 0, 0);
    let started = Instant::now();
    while killed < kills {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = command().spawn().expect("starts");
        std::thread::sleep(Duration::from_millis((state >> 33) % 400));
        child.kill().expect("killed, or ended already");
        let ended = child.wait().expect("ends").code().is_some();
        killed += 1;
        if ended {
            // Everything is sealed: kill the next ones over a fresh archive.
            check(&archive, &first, &bytes[half..]);
            std::fs::remove_dir_all(&archive).expect("removed");
            kept += 1;
        }
    }
    let status = command().status().expect("ends");
    assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    check(&archive, &first, &bytes[half..]);
    println!("{kills} kills in {:?}, {kept} of them after the last seal", started.elapsed());
}

fn check(archive: &Path, first: &[u8], second: &[u8]) {
    assert!(export(archive) == [first, second].concat());
    let events = number(archive, "SELECT count(*) FROM events");
    let [received, committed, rejects, _] = committed_counts(archive);
    assert_eq!((committed as i64, rejects), (events, 1));
    assert_eq!(number(archive, "SELECT count(*) FROM rejects"), 1);
    assert!(received >= committed + rejects);
    assert_eq!(number(archive, "SELECT count(*) - count(DISTINCT alert_id) FROM alerts"), 0);
}
