//! No value that a policy names is on disk, in a bucket or sent in these cases: the disk is full, a
//! statement spills, a run is killed between two commits and continued under another policy, or the
//! archive is in a bucket.
//!
//! Method: as in [`crate::redaction`]. Each search is first tried on what a run without a policy
//! leaves.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::{Daemon, config, wait_until};
use crate::markers::{Sent, files_with_markers, has_marker};
use crate::outsiders::download;
use crate::redaction::{
    TOKEN, batch, count, event, ingest, lines, listener, policy, post, setting, sources, verified,
};
use crate::run::{expect_code, is_long, number, output, strongroom, write, write_secret};
use crate::s3;
use crate::services::receiver::Receiver;

const NOTHING: [PathBuf; 0] = [];

/// A limit on the size of files takes the place of a full disk: both refuse a write half-way.
#[test]
fn a_full_disk_leaves_no_marker_of_a_file() {
    let (folder, log, records) = setting(if is_long() { 60_000 } else { 12_000 }, true);
    let at = |name: &str| folder.path().join(name);
    let mut sent = Sent::default();
    sent.add("file", &std::fs::read(&log).expect("the log"));
    sent.report(&["file"]);
    let (archive, policy) = (at("archive"), at("policy.toml"));
    let run = || {
        let mut command = ingest(&archive, Some(&policy), &[&log]);
        command.args(["--seal-bytes", "1MiB", "--block-bytes", "1MiB"]);
        command.arg("--alerts-out").arg(at("alerts.jsonl")).arg("--rules").arg(at("every.yml"));
        command
    };
    // Units of 512 bytes: first no file can be written, then some, then most.
    for limit in ["8", "300", "1500"] {
        let command = run();
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("trap '' XFSZ; set -o posix; ulimit -f {limit}; exec \"$@\""), "bash"]);
        shell.arg(command.get_program()).args(command.get_args()).env("TMPDIR", folder.path());
        let refused = output(shell.env_remove("STRONGROOM_ARCHIVE").env("NO_COLOR", "1"));
        let err = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{limit}: {err}");
        assert!(!has_marker(&refused.stdout) && !has_marker(&refused.stderr), "{limit}: {err}");
        assert_eq!(files_with_markers(folder.path()), NOTHING, "{limit}");
    }
    let last = output(&mut run());
    assert_eq!(last.status.code(), Some(1), "{}", String::from_utf8_lossy(&last.stderr));
    complete(&archive, records);
    assert_eq!(files_with_markers(folder.path()), NOTHING);
    verified(&archive);
}

/// Asserts that every record and every alert is in the archive once, and every event is redacted.
fn complete(archive: &Path, records: usize) {
    let of = |table: &str| count(archive, &format!("SELECT count(*) FROM {table}"));
    assert_eq!(of("events") + of("rejects"), records);
    for sql in [
        "SELECT count(*) - count(DISTINCT source || source_offset) FROM (SELECT source, source_offset FROM events UNION ALL SELECT source, source_offset FROM rejects)",
        "SELECT count(*) FROM events WHERE redaction IS NULL",
        "SELECT count(*) - count(DISTINCT alert_id) FROM alerts",
    ] {
        assert_eq!(number(archive, sql), 0, "{sql}");
    }
}

#[test]
fn a_full_disk_leaves_no_marker_of_the_live_sources() {
    let (folder, log, _) = setting(3_000, false);
    let at = |name: &str| folder.path().join(name);
    let receiver = Receiver::that_takes_all();
    let token = write_secret(folder.path(), "token", TOKEN.as_bytes());
    let secret = write_secret(folder.path(), "sink.secret", b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let rest = format!(
        "[log]\nlevel = 'trace'\n{}{}",
        sources(folder.path(), &log, &receiver.url(), &token, &secret),
        policy(folder.path(), "5a")
    );
    let archive = at("archive");
    let config = config(folder.path(), &archive.display().to_string(), &rest);
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" run --config \"$1\"", env!("CARGO_BIN_EXE_strongroom")])
        .arg(&config)
        .env("TMPDIR", folder.path())
        .env("NO_COLOR", "1");
    let mut daemon = Daemon::spawn(command);
    let pid = daemon.pid().to_string();
    wait_until("a first seal", || daemon.metric("seals_total") >= 1.0);
    let limit = |bytes: &str| {
        let limits = ["--pid", &pid, &format!("--fsize={bytes}:unlimited")].map(str::to_owned);
        assert!(Command::new("prlimit").args(limits).status().expect("prlimit starts").success());
    };
    let mut sent = 3_000;
    let bodies: Vec<Vec<u8>> = (0..10).map(|at| batch(sent + 100 * at..sent + 100 * at + 100)).collect();
    assert_eq!(post(&listener(&daemon), &bodies[0]), 200);
    limit("4000");
    let refused = bodies[1..].iter().filter(|body| post(&listener(&daemon), body) != 200).count();
    assert!(refused > 0, "the write-ahead log cannot be written");
    let events: Vec<u8> = (20_000..22_000).flat_map(|number| (event(number) + "\n").into_bytes()).collect();
    append(&log, &events);
    wait_until("a failed seal", || daemon.metric("seal_failures_total") >= 1.0);
    assert_eq!(files_with_markers(folder.path()), NOTHING);
    limit("unlimited");
    for body in &bodies {
        wait_until("it is taken", || post(&listener(&daemon), body) == 200);
    }
    sent += 2_000 + 100 * bodies.len();
    wait_until("everything is sealed", || {
        daemon.metric("unsealed_records") == 0.0
            && count(&archive, "SELECT count(*) FROM events")
                + count(&archive, "SELECT count(*) FROM rejects")
                == sent
    });
    complete(&archive, sent);
    let stdout: Vec<String> =
        daemon.alerts.lock().expect("no panic holds it").iter().map(|(_, line)| line.clone()).collect();
    let (_, log) = daemon.terminate();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log has every level");
    assert!(!stdout.iter().chain([&log]).any(|text| has_marker(text.as_bytes())));
    let posted = receiver.posted.lock().expect("no panic holds it");
    assert!(!posted.is_empty() && !posted.iter().any(|posted| has_marker(&posted.body)));
    assert_eq!(files_with_markers(folder.path()), NOTHING);
    verified(&archive);
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).open(path).expect("a log");
    file.write_all(bytes).expect("written");
}

/// Runs a statement that spills, and pauses after the first byte of its answer. Returns the bytes
/// that are spilled at that moment, and the whole answer.
fn spilled(archive: &Path, folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let spill = folder.join("spill");
    std::fs::create_dir_all(&spill).expect("made");
    let mut query = strongroom();
    query.args(["query", "--format", "json", "--memory-limit", "64MiB", "--threads", "1"]);
    query.arg("--temp-dir").arg(&spill).arg("--archive").arg(archive);
    query.arg("SELECT * FROM events ORDER BY user_name, request_uri DESC, audit_id");
    query.env("TMPDIR", &spill).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = query.spawn().expect("it starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    // The answer is much longer than a pipe holds. So while it is not read, the sorted runs that it
    // is merged from stay on the disk.
    let mut answer = vec![0];
    stdout.read_exact(&mut answer).expect("an answer");
    let found = everything(&spill);
    stdout.read_to_end(&mut answer).expect("the rest");
    let output = child.wait_with_output().expect("it ended");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && err.contains(" spilled"), "{err}");
    assert!(everything(&spill).is_empty(), "what was spilled is removed");
    (found, answer)
}

/// Returns the bytes of all files below a folder. Files that are removed meanwhile are left out.
fn everything(folder: &Path) -> Vec<u8> {
    let (mut bytes, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                bytes.extend(std::fs::read(path).unwrap_or_default());
            }
        }
    }
    bytes
}

#[test]
fn what_a_statement_spills_has_no_marker() {
    let (folder, log, _) = setting(if is_long() { 100_000 } else { 25_000 }, false);
    let at = |name: &str| folder.path().join(name);
    expect_code(&mut ingest(&at("clear"), None, &[&log]), 0);
    let (found, answer) = spilled(&at("clear"), folder.path());
    assert!(
        has_marker(&found) && has_marker(&answer),
        "the search finds what is there: {} bytes",
        found.len()
    );
    expect_code(&mut ingest(&at("archive"), Some(&at("policy.toml")), &[&log]), 0);
    let (found, answer) = spilled(&at("archive"), folder.path());
    assert!(!found.is_empty() && !answer.is_empty());
    assert!(!has_marker(&found) && !has_marker(&answer));
}

/// Removes the newest commit of each volume of a table, as if the run had died before it.
fn take_back(archive: &Path, table: &str) {
    let mut logs = BTreeSet::new();
    let mut folders = vec![archive.join(table)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name == "_delta_log") {
                logs.insert(path);
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(!logs.is_empty(), "{table}");
    for log in logs {
        let entries = std::fs::read_dir(&log).expect("a folder").map(|entry| entry.expect("an entry").path());
        let mut commits: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
        commits.sort();
        assert!(commits.len() > 1, "{}", log.display());
        std::fs::remove_file(commits.pop().expect("a commit")).expect("removed");
    }
}

/// Writes a policy with another key. It replaces more than the first policy: ConfigMaps as well.
fn other_policy(folder: &Path) -> PathBuf {
    let other = folder.join("other");
    std::fs::create_dir_all(&other).expect("made");
    let text =
        policy(&other, "77").replacen("presets = ['secrets']", "presets = ['secrets', 'configmaps']", 1);
    write(&other, "policy.toml", text.as_bytes())
}

#[test]
fn a_kill_between_two_commits_and_another_policy_double_and_lose_nothing() {
    for tables in [&["events"][..], &["events", "alerts"]] {
        let (folder, log, records) = setting(6_000, true);
        let at = |name: &str| folder.path().join(name);
        let archive = at("archive");
        let run = |policy: &Path, log: &Path| {
            let mut command = ingest(&archive, Some(policy), &[log]);
            command.arg("--rules").arg(at("every.yml"));
            let ended = output(&mut command);
            assert!(!has_marker(&ended.stdout) && !has_marker(&ended.stderr));
            (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
        };
        // There are two seals. The first one seals the first half of the log, the second one the
        // rest.
        let bytes = std::fs::read(&log).expect("the log");
        let half = bytes.len() / 2 + memchr::memchr(b'\n', &bytes[bytes.len() / 2..]).expect("a line") + 1;
        std::fs::write(&log, &bytes[..half]).expect("written");
        assert_eq!(run(&at("policy.toml"), &log).0, Some(1));
        std::fs::write(&log, &bytes).expect("written");
        assert_eq!(run(&at("policy.toml"), &log).0, Some(1));
        complete(&archive, records);
        let first = number(&archive, "SELECT count(*) FROM events");
        tables.iter().for_each(|table| take_back(&archive, table));
        assert!(number(&archive, "SELECT count(*) FROM events") < first);
        // The run that reads the second half again has another policy.
        let (code, err) = run(&other_policy(folder.path()), &log);
        assert_eq!(code, Some(1), "{err}");
        complete(&archive, records);
        assert_eq!(number(&archive, "SELECT count(*) FROM events"), first);
        let policies = "SELECT count(DISTINCT json_get_str(redaction, 'policy')) FROM events";
        assert_eq!(number(&archive, policies), 2);
        assert_eq!(files_with_markers(folder.path()), NOTHING);
        verified(&archive);
    }
}

/// A run dies after it has committed the rejects of a log, and before it commits the events. Under
/// another policy, one of these events would become a reject, at an offset for which rejects are
/// stored already. So a run with that policy is refused, and a run with the old policy continues.
#[test]
fn an_event_that_only_the_new_policy_encrypts_is_not_lost() {
    let (folder, log, _) = setting(1, false);
    let at = |name: &str| folder.path().join(name);
    let archive = at("archive");
    let twice = event(4).replacen(
        r#""requestObject":"#,
        r#""requestObject":{"data":{"b":"zQmK00000000"}},"requestObject":"#,
        1,
    );
    let (mut text, mut records) = (lines(0..40, true).0, 0);
    text.extend_from_slice(format!("{twice}\n").as_bytes());
    text.extend_from_slice(&lines(40..120, true).0);
    records += lines(0..40, true).1 + 1 + lines(40..120, true).1;
    std::fs::write(&log, &text).expect("written");
    let narrow = format!("[redact]\nkey = 'file:{}'\npresets = ['secrets']\n", at("redact.key").display());
    let narrow = write(folder.path(), "narrow.toml", narrow.as_bytes());
    let run = |policy: &Path| {
        let ended = output(&mut ingest(&archive, Some(policy), &[&log]));
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    assert_eq!(run(&narrow).0, Some(1));
    let first = number(&archive, "SELECT count(*) FROM events");
    std::fs::remove_dir_all(archive.join("events"))
        .expect("the folder of the events, which were never committed");
    let (code, err) = run(&at("policy.toml"));
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("policy"), "{err}");
    assert!(!archive.join("events").exists() || number(&archive, "SELECT count(*) FROM events") == 0);
    assert_eq!(run(&narrow).0, Some(1));
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), first);
    assert_eq!(
        usize::try_from(first).expect("a small number") + count(&archive, "SELECT count(*) FROM rejects"),
        records
    );
}

#[test]
fn a_bucket_has_no_marker_whatever_is_killed() {
    let Some(seaweed) = s3::store() else { return };
    let (endpoint, outsider) = (seaweed.endpoint(), s3::Outsider::of(&seaweed));
    let (folder, log, records) = setting(if is_long() { 60_000 } else { 8_000 }, true);
    let at = |name: &str| folder.path().join(name);
    let run = |location: &str, policy: Option<&Path>| {
        let mut command = s3::at(&endpoint);
        command.args(["ingest", "--cluster", "test", "--seal-bytes", "256KiB", "--block-bytes", "1MiB"]);
        command.arg("--alerts-out").arg(at("alerts.jsonl")).arg("--rules").arg(at("every.yml"));
        if let Some(policy) = policy {
            command.arg("--redact").arg(policy);
        }
        command.args(["--archive", location]).arg(&log).env("TMPDIR", folder.path());
        command
    };
    let found_in = |bucket: &str| {
        let copy = at("input").join(bucket);
        download(&outsider, bucket, &copy);
        let all = files_with_markers(&copy);
        std::fs::remove_dir_all(&copy).expect("removed");
        all
    };
    // Without a policy, the search finds markers.
    expect_code(s3::at(&endpoint).args(["archive", "init", "s3://clear-values/a"]), 0);
    output(run("s3://clear-values/a", None).stdout(Stdio::null()));
    let found = found_in("clear-values");
    assert!(found.iter().any(|path| path.to_string_lossy().contains("events")), "{found:?}");
    std::fs::remove_file(at("alerts.jsonl")).expect("removed");

    let (bucket, location, policy) = ("redacted-values", "s3://redacted-values/a", at("policy.toml"));
    expect_code(s3::at(&endpoint).args(["archive", "init", location]), 0);
    for wait in [200, 600, 1_200] {
        let mut child = run(location, Some(&policy))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        std::thread::sleep(Duration::from_millis(wait));
        // The process may have ended.
        let _ = child.kill();
        child.wait().expect("the process ends");
        assert_eq!(found_in(bucket), NOTHING);
        assert_eq!(files_with_markers(folder.path()), NOTHING);
    }
    let last = output(&mut run(location, Some(&policy)));
    assert_eq!(last.status.code(), Some(1), "{}", String::from_utf8_lossy(&last.stderr));
    assert!(!has_marker(&last.stdout) && !has_marker(&last.stderr));
    assert_eq!(found_in(bucket), NOTHING);
    assert_eq!(files_with_markers(folder.path()), NOTHING);
    let of = |sql: &str| s3::number(&endpoint, location, sql);
    let all = of("SELECT count(*) FROM events") + of("SELECT count(*) FROM rejects");
    assert_eq!(usize::try_from(all).expect("a count"), records);
    assert_eq!(of("SELECT count(*) FROM events WHERE redaction IS NULL"), 0);
    expect_code(s3::at(&endpoint).args(["verify", "--archive", location]), 0);
}
