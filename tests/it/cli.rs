//! What scripts rely on: help, exit codes, and which output goes to stdout and which to stderr.

use std::io::Read as _;
use std::process::{Command, Stdio};

use crate::run::{expect_code, export, ingest, log, number, output, strongroom, write};

const COMMANDS: [&str; 14] = [
    "demo",
    "ingest",
    "rules",
    "hunt",
    "query",
    "sql",
    "export",
    "key",
    "sign-log",
    "witness",
    "verify",
    "prove",
    "verify-proof",
    "generate",
];

const OK: i32 = 0;
const FINDING: i32 = 1;
const FAILURE: i32 = 2;
const USAGE: i32 = 64;

#[test]
fn asking_for_help_is_not_an_error() {
    let (out, err) = expect_code(strongroom().arg("--help"), OK);
    assert_eq!(err, "");
    for command in COMMANDS {
        assert!(out.contains(&format!("  {command}")), "{command} is not listed in\n{out}");
        for flag in ["-h", "--help"] {
            let (out, err) = expect_code(strongroom().args([command, flag]), OK);
            assert!(out.contains("Usage: ") && err.is_empty(), "{command} {flag}: {out}{err}");
        }
    }
    assert!(out.contains("Exit codes: 0 "), "{out}");
    let (out, _) = expect_code(strongroom().arg("--version"), OK);
    assert_eq!(out, format!("strongroom {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistyped_command_lines_end_with_64() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("a");
    let archive = archive.to_str().expect("UTF-8");
    let lines: &[&[&str]] = &[
        &[],
        &["ingset"],
        &["--verbose"],
        &["ingest"],
        &["ingest", "--cluster", "c", "--archive", archive],
        &["ingest", "--cluster", "", "--archive", archive, "x.log"],
        &["ingest", "--cluster", "c", "--archive", archive, "--print-alerts", "worst", "x.log"],
        &["ingest", "--cluster", "c", "--archive", archive, "--threads", "0", "x.log"],
        &["ingest", "--cluster", "c", "--archive", archive, "--seal-bytes", "many", "x.log"],
        &["query", "SELECT 1"],
        &["query", "--archive", archive, "--format", "xml", "SELECT 1"],
        &["query", "--archive", archive, "--file", "q.sql", "SELECT 1"],
        &["export", "--archive", archive, "--list", "--output", "x"],
        &["generate", "--events", "-1"],
        &["generate", "--shape", "round"],
    ];
    for line in lines {
        let (out, err) = expect_code(strongroom().args(*line), USAGE);
        assert!(out.is_empty(), "{line:?} wrote to standard output: {out}");
        assert!(!err.is_empty(), "{line:?} said nothing");
    }
    let (_, err) = expect_code(strongroom().arg("ingset"), USAGE);
    assert!(err.contains("ingest"), "there is no suggestion in {err}");
    assert!(!std::path::Path::new(archive).exists(), "a mistyped command line made an archive");
}

#[test]
fn input_that_is_not_there_is_the_callers_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("a");
    let missing = folder.path().join("no-such.log");
    let (_, err) = expect_code(&mut ingest(&archive, &[&missing]), FINDING);
    assert!(err.starts_with("error: ") && err.contains("no-such.log"), "{err}");
    assert!(!archive.exists(), "a command that failed has made an archive");

    for command in [&["query", "--archive"][..], &["export", "--archive"], &["sql", "--archive"]] {
        let mut run = strongroom();
        run.args(command).arg(&archive);
        if command[0] == "query" {
            run.arg("SELECT 1");
        }
        let (out, err) = expect_code(&mut run, FINDING);
        assert!(out.is_empty() && err.contains("archive"), "{command:?}: {err}");
    }
    let (_, err) =
        expect_code(strongroom().args(["query", "--archive", "s3://bucket/archive", "SELECT 1"]), FINDING);
    assert!(err.contains("s3"), "{err}");
    let log = write(folder.path(), "audit.log", &log(10, 1));
    let (_, err) = expect_code(
        strongroom().args(["ingest", "--cluster", "c", "--archive", "s3://bucket/archive"]).arg(&log),
        FINDING,
    );
    assert!(err.contains("s3"), "{err}");
}

#[test]
fn a_folder_that_is_not_an_archive_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = write(folder.path(), "audit.log", &log(10, 1));
    let (_, err) = expect_code(&mut ingest(folder.path(), &[&log]), FINDING);
    assert!(err.contains("error: "), "{err}");
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("readable").collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn rejects_are_a_finding_and_the_rest_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bytes = log(50, 3);
    bytes.extend_from_slice(b"{\"kind\":\"Event\",\nnot json at all\n");
    let log = write(folder.path(), "audit.log", &bytes);
    let archive = folder.path().join("a");
    let (_, err) = expect_code(&mut ingest(&archive, &[&log]), FINDING);
    assert!(err.contains("received 52 = events 50 + rejects 2 + duplicates 0"), "{err}");
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 50);
    assert_eq!(number(&archive, "SELECT count(*) FROM rejects WHERE reason = 'broken_json'"), 2);
    assert_eq!(export(&archive), bytes);
    // Data that is stored already is not reported as new.
    let (_, err) = expect_code(&mut ingest(&archive, &[&log]), OK);
    assert!(err.contains("nothing new"), "{err}");
}

#[test]
fn wrong_sql_is_told_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = write(folder.path(), "audit.log", &log(20, 1));
    let archive = folder.path().join("a");
    expect_code(&mut ingest(&archive, &[&log]), OK);
    for (sql, part) in [
        ("SELEC 1", "SELEC"),
        ("SELECT no_such_column FROM events", "no_such_column"),
        ("SELECT * FROM no_such_table", "no_such_table"),
        ("DROP TABLE events", "DROP"),
        ("DELETE FROM events", "DELETE"),
        ("COPY events TO 'x.parquet'", "COPY"),
        ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
        ("SELECT * FROM '/etc/passwd'", "/etc/passwd"),
        ("", "statement"),
    ] {
        let (out, err) =
            expect_code(strongroom().args(["query", "--archive"]).arg(&archive).arg(sql), FINDING);
        assert!(out.is_empty(), "{sql}: {out}");
        assert!(err.starts_with("error: ") && err.contains(part), "{sql}: {err}");
    }
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 20);
}

#[test]
fn a_reader_that_stops_reading_is_not_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = write(folder.path(), "audit.log", &log(20_000, 1));
    let archive = folder.path().join("a");
    expect_code(&mut ingest(&archive, &[&log]), OK);
    let archive = archive.to_str().expect("UTF-8");
    let lines: [&[&str]; 4] = [
        &["generate", "--events", "1000000"],
        &["export", "--archive", archive],
        &["query", "--archive", archive, "--format", "csv", "SELECT * FROM events"],
        &["query", "--archive", archive, "SELECT * FROM events"],
    ];
    for line in lines {
        let mut run = strongroom();
        let mut child =
            run.args(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut first = [0; 64];
        child.stdout.take().expect("piped").read_exact(&mut first).expect("some output");
        let mut err = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut err).expect("text");
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), Some(OK), "{line:?}: {err}");
        assert!(!err.contains("error"), "{line:?}: {err}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    if !std::path::Path::new("/dev/full").exists() {
        return;
    }
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("a device that is full");
    let output = output(strongroom().args(["generate", "--events", "1000"]).stdout(full()));
    assert_eq!(output.status.code(), Some(FAILURE));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: "));
}

#[test]
fn a_flag_overrides_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    for (archive, events) in [(&first, 10), (&second, 20)] {
        let log = write(folder.path(), "audit.log", &log(events, events));
        expect_code(&mut ingest(archive, &[&log]), OK);
    }
    let count = |run: &mut Command| {
        let (out, _) = expect_code(run.args(["--format", "csv", "SELECT count(*) FROM events"]), OK);
        out.lines().nth(1).map(str::to_owned)
    };
    let mut by_environment = strongroom();
    by_environment.env("STRONGROOM_ARCHIVE", &first).arg("query");
    assert_eq!(count(&mut by_environment).as_deref(), Some("10"));
    let mut by_flag = strongroom();
    by_flag.env("STRONGROOM_ARCHIVE", &first).arg("query").arg("--archive").arg(&second);
    assert_eq!(count(&mut by_flag).as_deref(), Some("20"));
}
