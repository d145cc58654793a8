//! Folders of logs as shippers, clouds and people leave them: every file that may be a log is read,
//! and every other file is reported.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::daemon::{Daemon, config};
use crate::run::{expect_code, export, ingest, log, number, output, strongroom, write, write_secret};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).expect("in memory");
    gz.finish().expect("in memory")
}

/// Writes a file and the folders that it is in.
fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, bytes).expect("written");
}

fn lines(bytes: &[u8]) -> BTreeMap<&[u8], usize> {
    let mut lines = BTreeMap::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        *lines.entry(line).or_insert(0) += 1;
    }
    lines
}

const UUID: &str = "6f2c7a52-8a3e-4b8f-9d55-0a5c8c7f1e11";

#[test]
fn objects_are_read_under_the_names_that_shippers_give_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (logs, archive) = (folder.path().join("logs"), folder.path().join("archive"));
    let export_line = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("text");
        let lines = text.lines().map(|line| format!("2026-03-02T10:00:00.000Z {line}\n"));
        lines.collect::<String>().into_bytes()
    };
    let syslog = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("text");
        let lines = text.lines().map(|line| format!("<134>Mar  2 10:00:00 host kube-apiserver: {line}\n"));
        lines.collect::<String>().into_bytes()
    };
    type Change = fn(&[u8]) -> Vec<u8>;
    let (plain, packed): (Change, Change) = (<[u8]>::to_vec, gzip);
    let azure = "resourceId=/SUBSCRIPTIONS/A/RESOURCEGROUPS/B/PROVIDERS/MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/C/y=2026/m=01/d=02/h=03/m=00/PT1H.json";
    let names: Vec<(String, Change)> = vec![
        ("fluent-bit-logs/kube.x/2026/11/30/00-00-00-objectAbc123".to_owned(), plain),
        ("fluent-bit-logs/kube.x/2026/11/30/00-00-10-objectXyz789.gz".to_owned(), packed),
        (format!("2026/01/01/00/prefix-1-2026-01-01-00-00-00-{UUID}"), plain),
        (format!("kinesis/prefix-2-2026-01-01-00-00-00-{UUID}"), packed),
        (format!("date=2026-01-01/1700000000-{UUID}.log.gz"), packed),
        (format!("ls.s3.{UUID}.2026-01-01T00.00.part0.txt"), plain),
        ("k8s/2026/01/01/12:00:00_12:59:59_S0.json".to_owned(), plain),
        (azure.to_owned(), plain),
        ("messages".to_owned(), plain),
        ("audit".to_owned(), plain),
        ("audit.log-20260101".to_owned(), plain),
        ("audit.log.bak".to_owned(), plain),
    ];
    let mut expected = Vec::new();
    for (number, (name, change)) in names.iter().enumerate() {
        let text = log(20, 100 + number as u64);
        let text = if name == "messages" { syslog(text) } else { text };
        put(&logs, name, &change(&text));
        expected.extend(text);
    }
    let text = export_line(log(20, 200));
    put(&logs, &format!("export/{UUID}/kube-apiserver-audit-0a1b/000000.gz"), &gzip(&text));
    expected.extend(text);
    let (_, err) = expect_code(&mut ingest(&archive, &[&logs]), 0);
    let events = (names.len() + 1) * 20;
    assert!(err.contains(&format!("received {events} = events {events} + rejects 0")), "{err}");
    assert!(!err.contains("skipped"), "{err}");
    assert!(lines(&export(&archive)) == lines(&expected));
    let (_, err) = expect_code(&mut ingest(&archive, &[&logs]), 0);
    assert!(err.contains(&format!("duplicates {events}")), "{err}");
}

#[test]
fn what_is_certainly_no_log_is_passed_over_and_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (logs, archive) = (folder.path().join("logs"), folder.path().join("archive"));
    let text = log(30, 7);
    put(&logs, "audit.log", &text);
    let other = log(10, 8);
    for (name, bytes) in [
        (".hidden.log", &other[..]),
        (".snapshot/audit.log", &other),
        ("audit.log~", &other),
        ("#audit.log#", &other),
        ("audit.log.swp", &other),
        ("upload.log.tmp", &other),
        ("lost+found/audit.log", &other),
        ("notes.txt", b"# Notes\n\nwe looked at { and }\n"),
        ("strongroom.key", b"PRIVATE+KEY+name+1a2b3c4d+AAAA\n"),
        ("values.yaml", b"a: {\"b\": 1}\n"),
        ("run.sh", b"#!/bin/sh\ncurl -d '{\"a\":1}' x\n"),
        ("logo.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0"),
        ("_SUCCESS", b""),
        ("evil\x1b[2J.txt", b"prose"),
    ] {
        put(&logs, name, bytes);
    }
    let _socket = UnixListener::bind(logs.join("socket")).expect("a socket");
    assert!(Command::new("mkfifo").arg(logs.join("fifo")).status().expect("mkfifo").success());
    symlink("nowhere", logs.join("broken")).expect("a link");
    symlink(&logs, logs.join("again")).expect("a link");
    let (_, err) = expect_code(&mut ingest(&archive, &[&logs]), 0);
    assert!(err.contains("received 30 = events 30 + rejects 0"), "{err}");
    assert!(err.matches("skipped 16 files and 2 folders: ").count() == 2, "{err}");
    for reason in [
        "2 hidden",
        "1 the file system's own",
        "1 a link to a folder",
        "1 a link to nothing",
        "2 a socket, a pipe or a device",
        "4 an editor's backup or an unfinished copy, by its name",
        "3 a program, a document or a key, by its name",
        "1 empty, and not named like a log",
        "1 not text",
        "2 text in which no record begins",
    ] {
        assert!(err.contains(reason), "{reason}: {err}");
    }
    assert!(err.contains("logs/notes.txt: text in which no record begins"), "{err}");
    assert!(err.contains("evil\\u{1b}[2J.txt") && !err.contains('\x1b'), "{err}");
    assert!(export(&archive) == text);
    // A file that is named on the command line is read, whatever its content is.
    let (_, err) = expect_code(&mut ingest(&archive, &[&logs.join("notes.txt")]), 1);
    assert!(err.contains("rejects 2") || err.contains("rejects 3"), "{err}");
}

#[test]
fn a_folder_without_a_log_says_what_is_in_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (logs, archive) = (folder.path().join("logs"), folder.path().join("archive"));
    for number in 0..9 {
        put(&logs, &format!("{number}.txt"), b"prose");
    }
    let (_, err) = expect_code(&mut ingest(&archive, &[&logs]), 1);
    assert!(err.contains("contains no log files"), "{err}");
    assert!(err.contains("0.txt (text in which no record begins)") && err.contains(" more"), "{err}");
    assert!(!archive.exists());
}

/// In a folder, a file that may be a log but cannot be read is an error, as it would be if it were
/// named on the command line.
#[test]
fn a_packed_log_of_any_name_is_refused_and_not_passed_over() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (logs, archive) = (folder.path().join("logs"), folder.path().join("archive"));
    put(&logs, "audit.log", &log(10, 9));
    put(&logs, "audit.log.bz2", b"BZh91AY&SY\x01\x02\x03");
    put(&logs, "capture/17.avro", b"Obj\x01\x04\x14avro.codec");
    let (_, err) = expect_code(&mut ingest(&archive, &[&logs]), 2);
    assert!(err.contains("audit.log.bz2 is not text: it is bzip2"), "{err}");
    assert!(err.contains("17.avro is not text: it is Avro"), "{err}");
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 10);
    assert_eq!(number(&archive, "SELECT count(*) FROM rejects"), 0);
}

#[test]
fn an_archive_in_the_folder_is_never_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let logs = folder.path().join("logs");
    let (archive, earlier) = (logs.join("archive"), logs.join("old/archive"));
    let text = log(6_000, 10);
    put(&logs, "audit.log", &text);
    std::fs::create_dir(logs.join("old")).expect("made");
    expect_code(&mut ingest(&earlier, &[&write(folder.path(), "other.log", &log(50, 11))]), 0);
    let findings = logs.join("findings.jsonl");
    let run = || {
        let mut command = ingest(&archive, &[&logs]);
        command.arg("--alerts-out").arg(&findings);
        command
    };
    let (_, err) = expect_code(&mut run(), 0);
    assert!(err.contains("skipped 1 folder: 1 an archive of Strongroom"), "{err}");
    for _ in 0..2 {
        let (_, err) = expect_code(&mut run(), 0);
        assert!(err.contains("events 0 + rejects 0 + duplicates 6,000"), "{err}");
        assert!(err.contains("skipped 1 file and 2 folders: 2 an archive of Strongroom"), "{err}");
        assert!(err.contains("1 written by this command"), "{err}");
    }
    // A pattern does not reach into an archive either. But a log is read, even if it is in the
    // folder of an archive, beside the tables.
    let mut command = ingest(&archive, &[]);
    let (_, err) = expect_code(command.arg(format!("{}/**/*.json", logs.display())), 1);
    assert!(err.contains("an archive of Strongroom"), "{err}");
    let beside = log(40, 12);
    put(&archive, "logs/audit.log", &beside);
    let (_, err) = expect_code(&mut run(), 0);
    assert!(err.contains("events 40 + rejects 0 + duplicates 6,000"), "{err}");
    assert_eq!(number(&archive, "SELECT count(*) FROM rejects"), 0);
    expect_code(strongroom().args(["verify", "--archive"]).arg(&archive), 0);
    // The Delta table of another program is not read either.
    put(&logs, "lake/_delta_log/00000000000000000000.json", b"{\"protocol\":{}}\n");
    put(&logs, "lake/part-0.json", b"{}\n");
    let (_, err) = expect_code(&mut run(), 0);
    assert!(err.contains("1 a Delta table"), "{err}");
}

/// A daemon follows a folder in which it also keeps its archive, outbox and write-ahead log.
#[test]
fn a_daemon_does_not_follow_what_it_writes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let logs = folder.path().join("logs");
    let at = |name: &str| logs.join(name).display().to_string();
    put(&logs, "audit.log", &log(6_000, 13));
    put(&logs, "fluent-bit/00-00-00-objectAbc123", &log(10, 14));
    let token = write_secret(folder.path(), "token", b"a-token-of-the-test-0123456789abcdef");
    let rest = format!(
        "[seal]\ninterval = '200ms'\n[outbox]\nfolder = '{}'\n\
         [[tail]]\nname = 'files'\ncluster = 'test'\npaths = ['{}', '{}/**/*.json']\npoll = '20ms'\n\
         [[webhook]]\nname = 'hook'\nlisten = '127.0.0.1:0'\ntoken_file = '{}'\nwal = '{}'\n\
         [[webhook.route]]\npath = '/audit'\ncluster = 'test'\n\
         [[sink]]\nname = 'lines'\ntype = 'file'\npath = '{}'\n",
        at("outbox"),
        logs.display(),
        logs.display(),
        token.display(),
        at("wal"),
        folder.path().join("alerts.jsonl").display(),
    );
    let config = config(folder.path(), &at("archive"), &rest);
    let mut daemon = Daemon::start(&config);
    daemon.wait_for_metric("sealed_events_total", 6_000.0);
    daemon.wait_for_metric("source_files_left_out{source=\"files\"}", 1.0);
    // The daemon gets time to find its own commits and segments.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(daemon.metric("sealed_events_total"), 6_000.0);
    let (status, said) = daemon.terminate();
    assert!(status.success(), "{said}");
    for (path, what) in [("archive", "an archive"), ("outbox", "an outbox"), ("wal", "an outbox")] {
        let line = said.lines().filter(|line| line.contains("not read, because it is"));
        let line: Vec<&str> = line.filter(|line| line.contains(what) && line.contains(&at(path))).collect();
        assert!(!line.is_empty(), "{path}: {said}");
    }
    assert!(said.contains("00-00-00-objectAbc123"), "{said}");
    let archive = logs.join("archive");
    assert_eq!(number(&archive, "SELECT count(*) FROM rejects"), 0);
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 6_000);
    // `ingest` reads the same folder.
    let (_, err) = expect_code(&mut ingest(&archive, &[&logs]), 0);
    assert!(err.contains("2 an outbox or a write-ahead log of Strongroom"), "{err}");
    assert!(err.contains("rejects 0"), "{err}");
    assert!(output(strongroom().args(["verify", "--archive"]).arg(&archive)).status.success());
}
