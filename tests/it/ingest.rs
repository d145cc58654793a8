//! `strongroom ingest` and `strongroom export` from outside: every byte comes back, once.

use std::collections::{BTreeMap, BTreeSet};
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

/// Returns the time of the first event of a log, as the log has it.
fn first_time(log: &[u8]) -> String {
    let line = log.split(|byte| *byte == b'\n').next().expect("a line");
    let event: serde_json::Value = serde_json::from_slice(line).expect("an event");
    event["stageTimestamp"].as_str().expect("a time").to_owned()
}

/// Adds up the counts in the commits of `events`, and checks that each commit's counts agree.
fn committed_counts(archive: &Path) -> [u64; 4] {
    let mut total = [0; 4];
    for commit in glob_json(archive) {
        for action in std::fs::read_to_string(&commit).expect("a commit").lines() {
            let action: serde_json::Value = serde_json::from_str(action).expect("one action per line");
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
    assert_eq!(out, "", "a second run raises no alert again");
    // The same content, compressed and under another name, adds nothing.
    let packed = zstd::encode_all(&bytes[..], 1).expect("in memory");
    let renamed = write(folder.path(), "renamed.bin", &packed);
    let (_, err) = expect_code(&mut ingest(&archive, &[&renamed]), 0);
    assert!(err.contains("duplicates 20,000"), "{err}");
    assert!(export(&archive) == bytes);
    assert_eq!(number(&archive, "SELECT count(*) FROM alerts"), alerts);
    assert_eq!(committed_counts(&archive), [20_000, 20_000, 0, 0]);
}

/// A file that is not text is refused as a whole, with a hint, and the other files are read.
#[test]
fn a_file_that_is_not_text_is_one_error() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = log(20, 31);
    let text = String::from_utf8(bytes.clone()).expect("text");
    let utf_16: Vec<u8> =
        [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let mut tar = vec![0_u8; 512];
    tar[..9].copy_from_slice(b"audit.log");
    tar[257..262].copy_from_slice(b"ustar");
    tar.extend(&bytes);
    let packed_tar = zstd::encode_all(&tar[..], 1).expect("in memory");
    let good = write(folder.path(), "good.log", &bytes);
    for (name, content, format, remedy) in [
        ("utf-16.log", utf_16, "UTF-16", "iconv -f UTF-16"),
        ("audit.log.bz2", b"BZh91AY&SY\x01\x02\x03".to_vec(), "bzip2", "bzip2 -dc"),
        ("audit.log.xz", b"\xfd7zXZ\0\0\x04".to_vec(), "xz", "xz -dc"),
        ("audit.tar", tar, "tar", "tar -xf"),
        ("audit.tar.zst", packed_tar, "tar", "tar -xf"),
    ] {
        let file = write(folder.path(), name, &content);
        let (_, err) = expect_code(&mut ingest(&archive, &[&file, &good]), 2);
        assert!(err.contains(&format!("{name} is not text: it is {format}")), "{err}");
        assert!(err.contains(remedy), "{err}");
        assert!(err.contains("rejects 0"), "{err}");
    }
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 20);
    assert_eq!(number(&archive, "SELECT count(*) FROM rejects"), 0);
    assert!(export(&archive) == bytes);
}

/// The summary says where the events of unknown objects are, however many other rejects there are.
#[test]
fn a_summary_names_the_path_of_events_that_were_not_found() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let text = String::from_utf8(log(1, 32)).expect("text");
    let event = text.trim_end();
    let mut log = "not JSON\n".repeat(50);
    log += &format!("{{\"detail\":{{\"audit\":{event}}}}}\n{{\"MESSAGE\":null}}\n");
    let file = write(folder.path(), "collected.jsonl", log.as_bytes());
    let (_, err) = expect_code(&mut ingest(&archive, &[&file]), 1);
    assert!(err.contains("--unwrap detail.audit "), "{err}");
    assert!(err.contains("journalctl --all"), "{err}");
    assert!(export(&archive) == log.as_bytes());
    let again = folder.path().join("again");
    let mut with_path = ingest(&again, &[&file]);
    expect_code(with_path.args(["--unwrap", "detail.audit"]), 1);
    assert_eq!(number(&again, "SELECT count(*) FROM events"), 1);
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

/// A shorter copy of a log, such as yesterday's copy or a truncated upload, has nothing new in it.
#[test]
fn a_shorter_copy_of_a_stored_stream_adds_nothing() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let mut whole = log(3_000, 15);
    whole.extend_from_slice(b"broken\n");
    expect_code(&mut ingest(&archive, &[&write(folder.path(), "audit.log", &whole)]), 1);
    let middle = whole.len() / 2;
    let line_end = middle + whole[middle..].iter().position(|byte| *byte == b'\n').expect("lines") + 1;
    for length in [middle, line_end, whole.len() - 3, whole.len() - 1] {
        let copy = write(folder.path(), "copy.log", &whole[..length]);
        let (_, err) = expect_code(&mut ingest(&archive, &[&copy]), 0);
        let records = whole[..length].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert!(err.contains(&format!("duplicates {}", with_commas(records))), "{length}: {err}");
        assert!(export(&archive) == whole, "{length}");
    }
    // If one byte differs, even near the end, the copy is another stream.
    let mut other = whole[..line_end].to_vec();
    let byte = other.len() - 40;
    other[byte] ^= 1;
    let copy = write(folder.path(), "copy.log", &other);
    let code = output(&mut ingest(&archive, &[&copy])).status.code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
    assert!(export(&archive) == [whole, other].concat());
}

/// The rule here alerts on fewer than three events in a minute. That is known only when the minute
/// is over, and by then the events may have been sealed several seals ago.
#[test]
fn an_alert_may_point_to_an_event_sealed_long_ago() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let rule = write(
        folder.path(),
        "quiet.yml",
        b"title: Few requests\nid: 6f6f9f0e-3b1c-4d62-9a35-5e3f4f0c2b11\nname: any_request\n\
          logsource: {product: kubernetes, service: audit}\n\
          detection: {selection: {verb|exists: true}, condition: selection}\nlevel: informational\n---\n\
          title: Too quiet\nid: 0d3c7c0a-52c5-4a0e-8f0f-0d6a3f0f7f31\nlevel: low\n\
          correlation: {type: event_count, rules: [any_request], group-by: [user.username], timespan: 1m, \
          condition: {lt: 3}}\n",
    );
    let log = write(folder.path(), "audit.log", &log(6_000, 16));
    let (_, err) = expect_code(
        ingest(&archive, &[&log])
            .args(["--no-builtin-rules", "--seal-bytes", "1", "--block-bytes", "1MiB", "--rules"])
            .arg(&rule),
        0,
    );
    let stored = number(&archive, "SELECT count(*) FROM alerts");
    assert!(stored > 0, "{err}");
    assert_eq!(number(&archive, "SELECT count(DISTINCT alert_id) FROM alerts"), stored);
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
    // In a second run both are recognised.
    let (_, err) = expect_code(&mut ingest(&archive, &[&first, &second]), 0);
    assert!(err.contains("events 0 + rejects 0 + duplicates 1,101"), "{err}");
    // A shorter file is a prefix of both.
    let (_, err) = expect_code(&mut ingest(&archive, &[&shorter]), 0);
    assert!(err.contains("events 0 + rejects 0 + duplicates 1\n"), "{err}");
}

/// Streams that begin with the same lines get the same name and different numbers, and here there
/// are more of them than numbers. Such files are documents that are printed over many lines, and
/// logs with a banner. Each is stored once, whatever its path and compression, and is continued
/// where it stopped.
#[test]
fn any_number_of_files_may_begin_alike() {
    const FILES: usize = 300;
    let folder = folder();
    let event = |number: usize| {
        format!(
            "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"{number}\",\"verb\":\"get\"}}"
        )
    };
    let pretty = |number: usize| {
        let event: serde_json::Value = serde_json::from_str(&event(number)).expect("an event");
        let end = if number.is_multiple_of(2) { "\n" } else { "" };
        serde_json::to_string_pretty(&[event]).expect("text") + end
    };
    let banner = |number: usize| {
        let more = if number.is_multiple_of(3) { event(number + FILES) + "\n" } else { String::new() };
        format!("Mar  2 10:00:00 node1 logger: log file opened\n{}\n{more}", event(number))
    };
    let texts = |text: &dyn Fn(usize) -> String| (0..FILES).map(text).collect::<Vec<_>>();
    for (kind, texts, code) in [("pretty", texts(&pretty), 0), ("banner", texts(&banner), 1)] {
        let archive = folder.path().join(kind);
        let mut paths: Vec<_> = (0..FILES)
            .map(|number| write(folder.path(), &format!("{kind}-{number}.log"), texts[number].as_bytes()))
            .collect();
        let ingested = |paths: &[std::path::PathBuf], code| {
            let paths: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
            expect_code(&mut ingest(&archive, &paths), code).1
        };
        ingested(&paths, code);
        let stored: usize = texts.iter().map(|text| text.matches("auditID").count()).sum();
        assert_eq!(
            number(&archive, "SELECT count(*) FROM events"),
            i64::try_from(stored).expect("a small number")
        );
        let mut exported: Vec<u8> = export(&archive);
        assert_eq!(exported.len(), texts.concat().len());
        let err = ingested(&paths, 0);
        assert!(err.contains("events 0 + rejects 0 + duplicates"), "{err}");

        // The same files are ingested again in another order. Some have other names, some are
        // compressed, and some are longer.
        for (at, path) in paths.iter_mut().enumerate() {
            let text = match at % 4 {
                1 => {
                    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    gz.write_all(texts[at].as_bytes()).expect("in memory");
                    gz.finish().expect("in memory")
                }
                2 => format!("{}{}\n", texts[at], event(at + 9 * FILES)).into_bytes(),
                _ => texts[at].clone().into_bytes(),
            };
            *path = write(folder.path(), &format!("{kind}-again-{at}"), &text);
        }
        paths.reverse();
        ingested(&paths, 0);
        let grown = (0..FILES).filter(|at| at % 4 == 2).count();
        assert_eq!(
            number(&archive, "SELECT count(*) FROM events"),
            i64::try_from(stored + grown).expect("a small number")
        );
        exported = export(&archive);
        let more: usize = (0..FILES).filter(|at| at % 4 == 2).map(|at| event(at + 9 * FILES).len() + 1).sum();
        assert_eq!(exported.len(), texts.concat().len() + more);
        let err = ingested(&paths, 0);
        assert!(err.contains("events 0 + rejects 0 + duplicates"), "{err}");
    }
}

/// One log occurs under several names in one run. Each time, the part of it that is stored already
/// is recognised.
#[test]
fn streams_that_meet_in_one_run_are_told_apart() {
    let folder = folder();
    let whole = log(2_000, 21);
    let first_line = whole.iter().position(|byte| *byte == b'\n').expect("lines") + 1;
    let middle = whole.len() / 2;
    let grown = middle + whole[middle..].iter().position(|byte| *byte == b'\n').expect("lines") + 1;
    let other = [&whole[..first_line], log(700, 22).as_slice()].concat();
    let path = write(folder.path(), "audit.log", &whole);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&whole).expect("in memory");
    let packed = write(folder.path(), "audit.log.gz", &gz.finish().expect("in memory"));
    let short = write(folder.path(), "short.log", &whole[..grown]);
    let differs = write(folder.path(), "other.log", &other);
    let empty = write(folder.path(), "empty.log", b"");
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    for (at, files) in [
        [&path, &path, &packed, &short, &differs, &differs, &empty, &empty],
        [&empty, &differs, &short, &packed, &path, &differs, &path, &empty],
    ]
    .into_iter()
    .enumerate()
    {
        let archive = folder.path().join(format!("archive-{at}"));
        let files: Vec<&Path> = files.iter().map(|path| path.as_path()).collect();
        let (_, err) = expect_code(&mut ingest(&archive, &files), 1);
        let stored = lines(&whole) + lines(&other);
        let expected = format!("events {} + rejects 1 + duplicates", with_commas(stored));
        assert!(err.contains(&expected), "{err}");
        let all = export(&archive);
        assert!(all.len() == whole.len() + other.len(), "{at}");
        assert!(all == [whole.as_slice(), &other].concat() || all == [other.as_slice(), &whole].concat());
        let (_, err) = expect_code(&mut ingest(&archive, &files), 0);
        assert!(err.contains("events 0 + rejects 0 + duplicates"), "{err}");
        assert!(err.contains("nothing new"), "{err}");
    }
}

/// A run that dies between its two commits leaves rejects in the archive whose stream has no
/// position in `events` yet.
#[test]
fn rejects_that_were_committed_alone_belong_to_their_stream_only() {
    let folder = folder();
    let mut bytes = log(400, 23);
    bytes.extend_from_slice(b"broken\n");
    bytes.extend_from_slice(&log(50, 24));
    bytes.extend_from_slice(b"torn off");
    let first_line = bytes.iter().position(|byte| *byte == b'\n').expect("lines") + 1;
    let path = write(folder.path(), "audit.log", &bytes);
    let other = [&bytes[..first_line], b"broken, too\n".as_slice(), &log(60, 25)].concat();
    let other_path = write(folder.path(), "other.log", &other);
    let grown = [bytes.as_slice(), b" and mended\n", &log(30, 26)].concat();
    let grown_path = write(folder.path(), "grown.log", &grown);
    let crashed = |name: &str| {
        let archive = folder.path().join(name);
        expect_code(ingest(&archive, &[&path]).arg("--complete"), 1);
        std::fs::remove_dir_all(archive.join("events"))
            .expect("the folder of the events, which were never committed");
        archive
    };
    let again = crashed("again");
    expect_code(ingest(&again, &[&path]).arg("--complete"), 1);
    assert!(export(&again) == bytes);
    assert_eq!(number(&again, "SELECT count(*) FROM rejects"), 2);

    let alike = crashed("alike");
    expect_code(&mut ingest(&alike, &[&other_path, &path]), 1);
    assert!(export(&alike) == [other.as_slice(), &bytes].concat());
    assert_eq!(number(&alike, "SELECT count(*) FROM rejects"), 3);

    let growing = crashed("growing");
    expect_code(&mut ingest(&growing, &[&grown_path]), 1);
    assert!(export(&growing) == grown);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_read_once_and_a_second_look_is_refused() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = log(300, 27);
    let first_line = bytes.iter().position(|byte| *byte == b'\n').expect("lines") + 1;
    let other = [&bytes[..first_line], log(40, 28).as_slice()].concat();
    expect_code(&mut ingest(&archive, &[&write(folder.path(), "audit.log", &bytes)]), 0);
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    let feed = |bytes: Vec<u8>| {
        let fifo = fifo.clone();
        // The write fails if the reader closes its end early.
        let feed = move || drop(std::fs::write(fifo, bytes));
        std::thread::Builder::new().spawn(feed).expect("a thread")
    };
    let fed = feed(other.clone());
    let (_, err) = expect_code(&mut ingest(&archive, &[&fifo]), 2);
    assert!(err.contains("must be read a second time") && err.contains("save"), "{err}");
    fed.join().expect("the input was written");
    let fed = feed([bytes.as_slice(), &log(20, 29)].concat());
    expect_code(&mut ingest(&archive, &[&fifo]), 0);
    fed.join().expect("the input was written");
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 320);
}

/// `kubectl logs -f … | strongroom ingest -`: alerts appear while the pipe is open, and Ctrl-C
/// seals.
#[cfg(unix)]
#[test]
fn a_live_pipe_is_alerted_on_at_once_and_sealed_on_interrupt() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = log(6_000, 30);
    let mut child = strongroom()
        .args(["ingest", "--cluster", "live", "--archive"])
        .arg(&archive)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&bytes).expect("written");
    stdin.write_all(b"{\"kind\":\"Event\",\"half").expect("written");
    let mut first = [0];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut first)
        .expect("an alert, with the pipe open");
    let kill = |signal: &str| {
        let status = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    };
    kill("-INT");
    let output = child.wait_with_output().expect("ends");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(export(&archive) == bytes, "{err}");
    drop(stdin);
}

#[test]
fn whole_lines_before_a_cut_in_a_short_packed_file_are_kept() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = log(20, 31);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gz.write_all(&bytes).expect("in memory");
    let mut packed = gz.finish().expect("in memory");
    packed.truncate(packed.len() * 3 / 4);
    let (_, err) = expect_code(&mut ingest(&archive, &[&write(folder.path(), "a.log.gz", &packed)]), 2);
    let stored = export(&archive);
    assert!(stored.len() > bytes.len() / 2 && bytes.starts_with(&stored), "{err}");
}

#[test]
fn a_file_of_newlines_comes_back() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = [log(3, 32), vec![b'\n'; 70 << 20], log(3, 33)].concat();
    expect_code(&mut ingest(&archive, &[&write(folder.path(), "audit.log", &bytes)]), 0);
    assert!(export(&archive) == bytes);
}

#[test]
fn an_event_at_a_path_is_found_and_comes_back() {
    let folder = folder();
    let (archive, without) = (folder.path().join("archive"), folder.path().join("without"));
    let mut text = String::new();
    for (number, line) in String::from_utf8(log(40, 35)).expect("UTF-8").lines().enumerate() {
        let event = serde_json::to_string(line).expect("a string");
        let event = if number % 2 == 0 { line } else { &event };
        text += &format!("{{\"id\":{number},\"detail\":{{\"audit.v1\":{event}}}}}\n");
    }
    text += "{\"detail\":{\"audit.v1\":\"hello\"}}\n";
    let path = write(folder.path(), "collected.jsonl", text.as_bytes());
    let (_, err) = expect_code(ingest(&archive, &[&path]).args(["--unwrap", r"detail.audit\.v1"]), 1);
    assert!(err.contains(r"at detail.audit\.v1 there is no event"), "{err}");
    assert!(export(&archive) == text.as_bytes());
    let found = "SELECT count(*) FROM events WHERE shape = 'unwrap:detail.audit\\.v1' AND raw IS NOT NULL";
    assert_eq!(number(&archive, found), 40);
    assert_eq!(number(&archive, "SELECT count(*) FROM events WHERE user_name IS NULL"), 0);
    expect_code(&mut ingest(&without, &[&path]), 1);
    assert_eq!(number(&without, "SELECT count(*) FROM rejects"), 41);
    for wrong in ["", "a..b", "annotations.x"] {
        expect_code(ingest(&archive, &[&path]).args(["--unwrap", wrong]), 64);
    }
}

/// A hosted control plane's audit log, as Fluent Bit ships it beside the logs of other pods.
#[test]
fn writers_that_are_not_known_are_named_and_can_be_believed() {
    let folder = folder();
    let archive = |name: &str| folder.path().join(name);
    let mut text = String::new();
    for (number, line) in String::from_utf8(log(40, 36)).expect("UTF-8").lines().enumerate() {
        let namespace = if number < 30 { "clusters-a" } else { "clusters-b" };
        let log = serde_json::to_string(line).expect("a string");
        text += &format!(
            "{{\"log\":{log},\"kubernetes\":{{\"namespace_name\":\"{namespace}\",\"container_name\":\"audit-logs\"}}}}\n"
        );
    }
    text += "{\"log\":\"GET /\",\"kubernetes\":{\"namespace_name\":\"shop\",\"container_name\":\"web\"}}\n";
    let path = write(folder.path(), "collected.jsonl", text.as_bytes());

    let (_, err) = expect_code(&mut ingest(&archive("strict"), &[&path]), 1);
    for expected in [
        "40 audit events were not taken",
        "  30: an audit event from a container other than an API server: clusters-a/audit-logs\n",
        "  10: an audit event from a container other than an API server: clusters-b/audit-logs\n",
        "believe it with --writer",
    ] {
        assert!(err.contains(expected), "{expected}: {err}");
    }
    assert!(export(&archive("strict")) == text.as_bytes());
    // With the right writers, only lines of other pods are rejects, which are expected.
    let believed = ["--writer", "clusters-*/audit-logs"];
    expect_code(ingest(&archive("believed"), &[&path]).args(believed), 0);
    assert_eq!(number(&archive("believed"), "SELECT count(*) FROM events"), 40);
    let one = ["--writer", "clusters-b/audit-logs"];
    expect_code(ingest(&archive("one"), &[&path]).args(one), 1);
    assert_eq!(number(&archive("one"), "SELECT count(*) FROM events"), 10);
    expect_code(ingest(&archive("one"), &[&path]).args(["--writer", "a/b/c"]), 64);

    for name in ["strict", "believed", "one"] {
        let verified = expect_code(strongroom().args(["verify", "--archive"]).arg(archive(name)), 0);
        assert!(verified.0.contains("no finding") || verified.1.contains("no finding"), "{verified:?}");
    }
}

/// `strongroom ingest … | head -1` succeeds only if the ingest itself succeeded.
#[test]
fn a_reader_that_leaves_does_not_hide_a_failure() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let audit = write(folder.path(), "audit.log", &log(6_000, 34));
    for (logs, code) in
        [(vec![audit.clone()], 0), (vec![audit, write(folder.path(), "b.log", b"broken\n")], 1)]
    {
        let mut child = strongroom()
            .args(["ingest", "--cluster", "c", "--quiet", "--archive"])
            .arg(archive.with_extension(code.to_string()))
            .args(&logs)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ends");
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    }
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
            1 => mixed.extend_from_slice(&line[..100]),
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
        ("broken_json", 31),
        ("empty_file", 1),
    ] {
        assert_eq!(
            number(&archive, &format!("SELECT count(*) FROM rejects WHERE reason = '{reason}'")),
            count,
            "{reason}"
        );
    }
    let [received, events, rejects, duplicates] = committed_counts(&archive);
    assert_eq!([received, events, rejects, duplicates], [300 + 122, 300, 122, 0]);
    let (_, err) = expect_code(&mut command, 0);
    assert!(err.contains("events 0 + rejects 0 + duplicates 422"), "{err}");
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
fn sources_of_one_seal_are_exported_in_the_order_of_their_first_events() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let whole = log(4_000, 13);
    let ends = (1..=8).map(|part| {
        let at = whole.len() * part / 8;
        at + whole[at..].iter().position(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
    });
    let (mut parts, mut begin) = (Vec::new(), 0);
    for end in ends {
        parts.push(&whole[begin..end]);
        begin = end;
    }
    // With these names, neither the order of the names nor that of the arguments is the order of
    // the events.
    let names = ["f", "b", "h", "a", "g", "d", "c", "e"];
    let paths: Vec<_> = parts
        .iter()
        .zip(names)
        .map(|(part, name)| write(folder.path(), &format!("{name}.log"), part))
        .collect();
    let mut given: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
    given.sort();
    let (_, err) = expect_code(&mut ingest(&archive, &given), 0);
    assert!(err.contains("events 4,000"), "{err}");
    assert!(export(&archive) == whole);
    // What is sealed later is exported later, even if its events are earlier.
    let earlier = log(10, 13);
    let file = write(folder.path(), "earlier.log", &[b"{\"auditID\":\"x\"}\n", &earlier[..]].concat());
    let _ = output(&mut ingest(&archive, &[&file]));
    assert!(export(&archive).starts_with(&whole));
    let listed = output(strongroom().args(["export", "--list", "--archive"]).arg(&archive)).stdout;
    let listed = String::from_utf8(listed).expect("text");
    let order: Vec<&str> = listed
        .lines()
        .map(|line| line.rsplit('/').next().and_then(|name| name.strip_suffix(".log")).expect("a path"))
        .collect();
    assert_eq!(order, [&names[..], &["earlier"]].concat());
}

#[test]
fn directories_patterns_packed_files_and_standard_input() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let logs = folder.path().join("logs/deeper");
    std::fs::create_dir_all(&logs).expect("a folder");
    let mut logs_ = [7, 8, 9].map(|seed| log(100, seed));
    logs_.sort_by_key(|log| first_time(log));
    let [oldest, older, newest] = logs_;
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&oldest).expect("in memory");
    write(&logs, "audit-2026-03-01T00-00-00.000.log.gz", &gz.finish().expect("in memory"));
    write(&logs, "audit-2026-03-02T00-00-00.000.log", &older);
    write(&logs, "audit.log", &newest);
    write(&logs, "notes.txt", b"not a log");
    let (_, err) = expect_code(&mut ingest(&archive, &[&folder.path().join("logs")]), 0);
    assert!(err.contains("skipped 1 file") && err.contains("notes.txt"), "{err}");
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
    let exported = export(&archive);
    assert!(exported.starts_with(&good) || exported.ends_with(&good));
    assert!(number(&archive, "SELECT count(*) FROM events") > 500);

    let (_, err) = expect_code(&mut ingest(&archive, &[&folder.path().join("absent.log")]), 1);
    assert!(err.contains("no such file") && err.contains("hint:"), "{err}");
    let (_, err) = expect_code(strongroom().args(["ingest", "--archive"]).arg(&archive).arg(&path), 64);
    assert!(err.contains("--cluster"), "{err}");
}

/// A limit on the size of files takes the place of a full disk: both refuse a write half-way.
#[cfg(unix)]
#[test]
fn a_write_that_is_refused_loses_nothing() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let bytes = log(60_000, 35);
    let path = write(folder.path(), "audit.log", &bytes);
    // In POSIX mode the limit is in units of 512 bytes, so a file may have 1 MiB. The shell ignores
    // the signal that the kernel sends when a write exceeds the limit.
    let limited = |command: &mut std::process::Command| {
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", "trap '' XFSZ; set -o posix; ulimit -f 2048; exec \"$@\"", "bash"]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.env_remove("STRONGROOM_ARCHIVE").env("NO_COLOR", "1");
        output(&mut shell)
    };
    let refused = limited(ingest(&archive, &[&path]).args(["--block-bytes", "5MiB"]));
    let err = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{err}");
    assert!(err.contains("cannot write file"), "{err}");
    let sealed = output(ingest(&archive, &[&path]).args(["--block-bytes", "5MiB"]));
    assert!(sealed.status.success(), "{}", String::from_utf8_lossy(&sealed.stderr));
    assert!(export(&archive) == bytes);
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
        // With small blocks and seals there are many moments at which a kill interrupts the writing
        // of a file or a commit.
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
        if !ended {
            killed += 1;
        } else {
            // Everything is sealed now, so the next runs, which are killed as well, get a new
            // archive.
            check(&archive, &first, &bytes[half..]);
            std::fs::remove_dir_all(&archive).expect("removed");
            kept += 1;
        }
    }
    let status = command().status().expect("ends");
    assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    check(&archive, &first, &bytes[half..]);
    println!("{kills} kills in {:?}, over {} archives", started.elapsed(), kept + 1);
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

/// A shipper has written objects of an event as text, or has put their members beside those of the
/// event.
#[test]
fn objects_that_a_shipper_took_apart_are_read_and_matched() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let head = r#""kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","stage":"ResponseComplete","verb":"list","requestURI":"/api/v1/secrets","stageTimestamp":"2026-03-02T10:00:00.000000Z""#;
    let text = format!(
        r#"{{{head},"auditID":"text","user":"{{\"username\":\"eve\",\"groups\":[\"system:authenticated\"]}}","objectRef":"{{\"resource\":\"secrets\",\"apiVersion\":\"v1\"}}","sourceIPs":"[\"1.2.3.4\"]","responseStatus":"{{\"code\":200}}"}}"#
    );
    let dotted = format!(
        r#"{{{head},"auditID":"dotted","user.username":"eve","user.groups":["system:authenticated"],"objectRef.resource":"secrets","objectRef.apiVersion":"v1","sourceIPs":["1.2.3.4"],"responseStatus.code":200}}"#
    );
    let damaged = format!(r#"{{{head},"auditID":"damaged","user":"eve","objectRef":7}}"#);
    let log = format!("{text}\n{dotted}\n{damaged}\n");
    let path = write(folder.path(), "audit.log", log.as_bytes());
    let (_, err) = expect_code(&mut ingest(&archive, &[&path]), 0);
    assert!(err.contains("faults: 1 event with members that could not be read"), "{err}");
    let read =
        "user_name = 'eve' AND resource = 'secrets' AND source_ips[1] = '1.2.3.4' AND response_code = 200";
    assert_eq!(number(&archive, &format!("SELECT count(*) FROM events WHERE {read} AND faults IS NULL")), 2);
    let alerts = "SELECT count(DISTINCT audit_ids[1]) FROM alerts WHERE rule_name LIKE '%secret%'";
    assert!(number(&archive, alerts) >= 1);
    assert!(export(&archive) == log.as_bytes());
    expect_code(strongroom().args(["verify", "--archive"]).arg(&archive), 0);
}

/// A log in which every line is of another container may still be the audit log: its events may be
/// cut off before they show that they are events. So it is a finding that nothing was taken from
/// the log.
#[test]
fn a_log_of_which_nothing_is_taken_is_a_finding() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let log = r#"{"log":"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"aud…\n","kubernetes":{"container_name":"kas","namespace_name":"clusters-a"}}"#;
    let path = write(folder.path(), "audit.log", log.as_bytes());
    let (_, err) = expect_code(ingest(&archive, &[&path]).arg("--complete"), 1);
    assert!(err.contains("no event was taken"), "{err}");
}

/// Goal: every alert in the table is also in the file, whenever the run is killed. Method: the run
/// seals often, and is killed at moments over its whole length. After each kill it is run to its
/// end.
#[test]
fn the_file_of_alerts_has_what_the_table_has_whenever_the_run_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = write(folder.path(), "audit.log", &log(20_000, 140));
    let run = |at: u32| {
        let archive = folder.path().join(format!("archive{at}"));
        let file = folder.path().join(format!("alerts{at}.jsonl"));
        let mut ingest = ingest(&archive, &[&log]);
        ingest.args(["-q", "--block-bytes", "256KiB", "--seal-bytes", "1KiB", "--alerts-out"]).arg(&file);
        (ingest, archive, file)
    };
    let (mut whole, archive, file) = run(0);
    let begun = Instant::now();
    assert!(output(&mut whole).status.success());
    let took = begun.elapsed();
    let of_table = |archive: &Path| -> BTreeSet<String> {
        let sql = "SELECT DISTINCT alert_id FROM alerts";
        let (csv, _) = expect_code(
            strongroom().args(["query", "-q", "--format", "csv", "--archive"]).arg(archive).arg(sql),
            0,
        );
        csv.lines().skip(1).map(str::to_owned).collect()
    };
    let lacking = |archive: &Path, file: &Path| -> Vec<String> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        of_table(archive).into_iter().filter(|id| !text.contains(id.as_str())).collect()
    };
    assert!(of_table(&archive).len() > 5 && lacking(&archive, &file).is_empty());
    let kills = if is_long() { 200 } else { 12 };
    for at in 1..=kills {
        let (mut killed, archive, file) = run(at);
        let mut child = killed.spawn().expect("it runs");
        std::thread::sleep(took * at / (kills + 1));
        let _ = child.kill();
        let _ = child.wait();
        assert!(output(&mut run(at).0).status.success());
        assert_eq!(lacking(&archive, &file), [""; 0], "killed at {at} of {kills}");
    }
}
