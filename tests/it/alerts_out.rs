//! The file of `ingest --alerts-out` has every alert of what is sealed, in whole lines, whatever
//! happens to the run.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::run::{expect_code, export, ingest, is_long, log, output, strongroom, write};

/// Returns the ids of the alerts in the archive's table.
fn stored(archive: &Path) -> BTreeSet<String> {
    let (out, _) = expect_code(
        strongroom()
            .args(["query", "--format", "csv", "--archive"])
            .arg(archive)
            .arg("SELECT alert_id FROM alerts"),
        0,
    );
    out.lines().skip(1).map(str::to_owned).collect()
}

/// Returns the ids of the alerts in a file. Each line of the file must be a whole finding.
fn written(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    let id = |line: &str| {
        let finding: serde_json::Value = serde_json::from_str(line).expect("a whole line");
        finding["finding_info"]["uid"].as_str().expect("an id").to_owned()
    };
    text.lines().map(id).collect()
}

#[test]
fn a_killed_run_loses_no_alert_of_what_is_sealed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "audit.log", &log(20_000, 91));
    let kills = if is_long() { 200 } else { 8 };
    let (mut state, mut killed, mut round) = (0x5eed_u64, 0, 0);
    while killed < kills {
        round += 1;
        let archive = folder.path().join(format!("archive-{round}"));
        let findings = folder.path().join(format!("findings-{round}.jsonl"));
        let run = || {
            let mut command = ingest(&archive, &[&path]);
            command.args(["--block-bytes", "2MiB", "--seal-bytes", "64KiB", "--alerts-out"]).arg(&findings);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        loop {
            let mut child = run().spawn().expect("starts");
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis(20 + (state >> 33) % 500));
            let _ = child.kill();
            if child.wait().expect("ends").code().is_some() {
                break;
            }
            killed += 1;
            if archive.join("strongroom.json").exists() {
                // The alerts of all sealed events are in the file; its last line may be cut.
                let text = std::fs::read_to_string(&findings).unwrap_or_default();
                let missing: Vec<String> =
                    stored(&archive).into_iter().filter(|id| !text.contains(id.as_str())).collect();
                assert!(missing.is_empty(), "after {killed} kills: {missing:?}");
            }
        }
        assert_eq!(written(&findings), stored(&archive), "round {round}");
    }
}

/// If a crash left a part of a line, the next line is not joined to it. Text that somebody else
/// wrote to the file stays.
#[test]
fn a_line_that_was_cut_off_is_written_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "audit.log", &log(8_000, 92));
    let (archive, findings) = (folder.path().join("archive"), folder.path().join("findings.jsonl"));
    expect_code(ingest(&archive, &[&path]).arg("--alerts-out").arg(&findings), 0);
    let whole = std::fs::read(&findings).expect("findings");
    let first = whole.iter().position(|byte| *byte == b'\n').expect("a line");
    for cut in [first - 1, first + 9, whole.len() - 3] {
        std::fs::write(&findings, &whole[..cut]).expect("written");
        let archive = folder.path().join(format!("archive-{cut}"));
        expect_code(ingest(&archive, &[&path]).arg("--alerts-out").arg(&findings), 0);
        assert_eq!(written(&findings), stored(&archive));
    }
    std::fs::write(&findings, "a note without a newline").expect("written");
    let archive = folder.path().join("archive-note");
    expect_code(ingest(&archive, &[&path]).arg("--alerts-out").arg(&findings), 0);
    let text = std::fs::read_to_string(&findings).expect("findings");
    assert!(text.starts_with("a note without a newline\n{"), "{}", &text[..60]);
}

/// If alerts cannot be kept, the events that they are about are not committed, so that the next run
/// raises the alerts again.
#[test]
fn events_are_not_committed_before_their_alerts_are_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "audit.log", &log(8_000, 93));
    let (archive, findings) = (folder.path().join("archive"), folder.path().join("findings.jsonl"));
    let (_, err) = expect_code(ingest(&archive, &[&path]).args(["--alerts-out", "/dev/full"]), 2);
    assert!(err.contains("alerts cannot be kept") && err.contains("/dev/full"), "{err}");
    assert!(err.contains("raises the alerts again"), "{err}");
    assert!(export(&archive).is_empty());
    expect_code(ingest(&archive, &[&path]).arg("--alerts-out").arg(&findings), 0);
    let alerts = written(&findings);
    assert!(!alerts.is_empty());
    assert_eq!(alerts, stored(&archive));
}

/// If a write exceeds the limit on file sizes, the run ends with an error that says so.
#[test]
fn a_limit_of_file_sizes_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "audit.log", &log(60_000, 94));
    let archive = folder.path().join("archive");
    let command = ingest(&archive, &[&path]);
    let mut limited = Command::new("bash");
    limited.arg("-c").arg("ulimit -f 200; exec \"$@\"").arg("bash");
    limited.arg(command.get_program()).args(command.get_args());
    let ended = output(&mut limited);
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.code(), ended.status.signal()), (Some(2), None), "{err}");
    assert!(err.contains("File too large") && err.contains("ulimit -f"), "{err}");
    // Smaller files fit.
    let mut smaller = Command::new("bash");
    smaller.arg("-c").arg("ulimit -f 400; exec \"$@\"").arg("bash");
    smaller.arg(command.get_program()).args(command.get_args());
    smaller.args(["--block-bytes", "1MiB", "--seal-bytes", "64KiB"]);
    expect_code(&mut smaller, 0);
    assert!(export(&archive) == std::fs::read(&path).expect("a log"));
}
