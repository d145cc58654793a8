//! Faults around a daemon: a disk becomes read-only or is unmounted, permissions are removed,
//! credentials expire, the clock is set. Each time the daemon reports what is wrong. What it cannot
//! seal, it keeps in memory or leaves at the source. When the cause is fixed, it continues without
//! help.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::{Daemon, config, wait_until};
use crate::retention::clock_library;
use crate::run::{
    expect_code, export, ingest, log, number, output, strongroom, strongroom_at, write, write_secret,
};
use crate::services::seaweed::{self, ACCESS_KEY, SECRET_KEY};
use crate::webhook;

/// The user that runs the daemon if the tests run as root, because no permission stops root.
const NOBODY: u32 = 65_534;

struct Setting {
    folder: TempDir,
    archive: PathBuf,
    log: PathBuf,
    config: PathBuf,
}

fn setting(location: Option<&str>) -> Setting {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let archive = folder.path().join("archive");
    let log = folder.path().join("audit.log");
    let rest = format!(
        "[seal]\ninterval = '200ms'\n[alerts]\nstdout = false\n[[tail]]\nname = 'files'\ncluster = 'test'\npaths = ['{}']\npoll = '20ms'\n",
        log.display()
    );
    let location = location.map_or_else(|| archive.display().to_string(), str::to_owned);
    let config = config(folder.path(), &location, &rest);
    Setting { archive, log, config, folder }
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(bytes)).expect("written");
}

/// True if the tests run as a user whom no file permission stops.
fn is_root(folder: &Path) -> bool {
    let path = write(folder, "probe", b"");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000))
        .expect("the file belongs to this user");
    let may = std::fs::File::open(&path).is_ok();
    std::fs::remove_file(path).expect("the file belongs to this user");
    may
}

/// Returns `path` and all folders below it.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        let entries = std::fs::read_dir(&folder).expect("a folder").flatten();
        found.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        next += 1;
    }
    found
}

fn says_so(daemon: &mut Daemon, words: &str) {
    wait_until("a failed seal", || daemon.metric("seal_failures_total") >= 1.0);
    wait_until("the log says what is wrong", || daemon.log().contains(words));
    let (status, why) = daemon.get("/readyz");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("the archive cannot be written"), "{why}");
    assert_eq!(daemon.get("/healthz").0, 200, "it lives");
}

#[test]
fn missing_permissions_are_reported_and_waited_for() {
    let set = setting(None);
    let bytes = log(2_000, 81);
    let mut command = strongroom();
    if is_root(set.folder.path()) {
        // A user other than root may not have access to the build folder.
        let copy = set.folder.path().join("strongroom");
        std::fs::copy(command.get_program(), &copy).expect("copied");
        command = strongroom_at(&copy);
        chown(set.folder.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        command.uid(NOBODY).gid(NOBODY);
    }
    command.args(["run", "--config"]).arg(&set.config);
    append(&set.log, &bytes[..500_000]);
    let mut daemon = Daemon::spawn(command);
    wait_until("a first seal", || daemon.metric("seals_total") >= 1.0);
    let sealed = daemon.metric("sealed_events_total");
    let mode = |mode: u32| {
        for folder in folders(&set.archive) {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).expect("permitted");
        }
    };
    mode(0o555);
    append(&set.log, &bytes[500_000..]);
    says_so(&mut daemon, "Permission denied");
    assert_eq!(daemon.metric("sealed_events_total"), sealed);
    mode(0o755);
    daemon.wait_for_metric("sealed_events_total", 2_000.0);
    assert_eq!(daemon.get("/readyz").0, 200);
    assert_eq!(daemon.metric("given_up_records_total"), 0.0, "no record was read a second time");
    assert!(daemon.terminate().0.success());
    assert!(export(&set.archive) == bytes);
}

#[test]
fn the_folder_of_an_unmounted_disk_is_not_created() {
    let set = setting(None);
    let bytes = log(2_000, 82);
    append(&set.log, &bytes[..500_000]);
    let mut daemon = Daemon::start(&set.config);
    wait_until("a first seal", || daemon.metric("seals_total") >= 1.0);
    let elsewhere = set.folder.path().join("unmounted");
    std::fs::rename(&set.archive, &elsewhere).expect("renamed");
    append(&set.log, &bytes[500_000..]);
    says_so(&mut daemon, "is missing");
    assert!(!set.archive.exists(), "an archive was made in the folder where the disk is missing");
    std::fs::rename(&elsewhere, &set.archive).expect("renamed");
    daemon.wait_for_metric("sealed_events_total", 2_000.0);
    assert!(daemon.terminate().0.success());
    assert!(export(&set.archive) == bytes);
}

/// The archive is on a separate mount, which is switched between writable and read-only.
#[test]
fn a_read_only_disk_is_reported_and_waited_for() {
    let set = setting(None);
    let bytes = log(1_000, 83);
    append(&set.log, &bytes);
    std::fs::create_dir(&set.archive).expect("made");
    let script =
        "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$1\" run --config \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(&set.archive).arg(env!("CARGO_BIN_EXE_strongroom")).arg(&set.config).env("NO_COLOR", "1");
    let probe = ["--user", "--map-root-user", "--mount", "mount", "--bind", "/tmp", "/tmp"];
    if !output(Command::new("unshare").args(probe)).status.success() {
        println!("not run: this machine gives no mount namespace to its users");
        return;
    }
    let mut daemon = Daemon::spawn(command);
    wait_until("the log says what is wrong", || daemon.log().contains("Read-only file system"));
    let (status, why) = daemon.get("/readyz");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("the pipeline is not running"), "{why}");
    assert_eq!(daemon.metric("sealed_events_total"), 0.0);
    let target = daemon.pid().to_string();
    let enter = ["--target", &target, "--user", "--mount", "--preserve-credentials", "mount", "-o"];
    let mut mend = Command::new("nsenter");
    mend.args(enter).arg("remount,bind,rw").arg(&set.archive);
    let mended = output(&mut mend);
    assert!(mended.status.success(), "{}", String::from_utf8_lossy(&mended.stderr));
    daemon.wait_for_metric("sealed_events_total", 1_000.0);
    assert_eq!(daemon.get("/readyz").0, 200);
    assert!(daemon.terminate().0.success());
    assert!(export(&set.archive) == bytes);
}

#[test]
fn expired_credentials_are_reported_and_their_renewal_is_noticed() {
    let Some(seaweed) = seaweed::shared() else { return };
    let location = "s3://expiry/prod";
    let set = setting(Some(location));
    let bytes = log(2_000, 84);
    let keys = set.folder.path().join("credentials");
    let good = format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    let bad = "[default]\naws_access_key_id = AKIAEXPIRED\naws_secret_access_key = was-right-once\n";
    let at = |command: &mut Command| {
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
            command.env_remove(name);
        }
        command
            .env("STRONGROOM_S3_ENDPOINT", seaweed.endpoint())
            .env("STRONGROOM_S3_PATH_STYLE", "true")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_SHARED_CREDENTIALS_FILE", &keys);
    };
    std::fs::write(&keys, &good).expect("written");
    let mut init = strongroom();
    at(&mut init);
    expect_code(init.args(["archive", "init", location]), 0);
    append(&set.log, &bytes[..500_000]);
    let mut command = strongroom();
    at(&mut command);
    let mut daemon = Daemon::spawn({
        command.args(["run", "--config"]).arg(&set.config);
        command
    });
    wait_until("a first seal", || daemon.metric("seals_total") >= 1.0);
    std::fs::write(&keys, bad).expect("written");
    append(&set.log, &bytes[500_000..]);
    // Credentials without an expiry are cached for half a minute.
    wait_until("a seal fails", || {
        let failures = daemon.metric("seal_failures_total");
        if failures == 0.0 && daemon.metric("received_records_total") == daemon.metric("sealed_events_total")
        {
            append(&set.log, &log(1, 85));
        }
        failures >= 1.0
    });
    says_so(&mut daemon, "InvalidAccessKeyId");
    let said = daemon.log();
    assert!(!said.contains("was-right-once") && !said.contains(SECRET_KEY), "the log contains a secret");
    append(&set.log, &log(100, 88));
    std::fs::write(&keys, &good).expect("written");
    let written = std::fs::read(&set.log).expect("read");
    let lines = written.split(|byte| *byte == b'\n').count() - 1;
    daemon.wait_for_metric("sealed_events_total", lines as f64);
    assert_eq!(daemon.get("/readyz").0, 200);
    assert!(daemon.terminate().0.success());
    let mut export = strongroom();
    at(&mut export);
    let exported = output(export.args(["export", "--archive", location]));
    assert!(exported.status.success() && exported.stdout == written);
}

/// Returns the number of volumes of events.
fn volumes(archive: &Path) -> usize {
    std::fs::read_dir(archive.join("events")).expect("a table").count()
}

/// The clock of a daemon is set back by two years, and ahead by fourteen. Each time the webhook
/// still acknowledges, nothing is sealed, and everything is sealed when the clock is right again.
#[test]
fn a_clock_that_cannot_be_right_stops_sealing_until_it_is_set() {
    let set = setting(None);
    let token = "a-token-that-nobody-guesses-0000";
    let token_file = write_secret(set.folder.path(), "token", token.as_bytes());
    let alerts = set.folder.path().join("alerts.jsonl");
    let text = std::fs::read_to_string(&set.config).expect("read");
    let text = text.replace("stdout = false", &format!("stdout = false\nfile = '{}'", alerts.display()));
    let webhook = format!(
        "[[webhook]]\nname = 'api'\nlisten = '127.0.0.1:0'\ntoken_file = '{}'\nwal = '{}'\n\
         [[webhook.route]]\npath = '/prod'\ncluster = 'prod'\n",
        token_file.display(),
        set.folder.path().join("wal").display()
    );
    std::fs::write(&set.config, text + &webhook).expect("written");
    let bytes = log(2_000, 86);
    let clock = write(set.folder.path(), "offset", b"0");
    append(&set.log, &bytes[..500_000]);
    let mut command = strongroom();
    command.args(["run", "--config"]).arg(&set.config);
    command.env("LD_PRELOAD", clock_library()).env("STRONGROOM_TEST_CLOCK", &clock);
    let mut daemon = Daemon::spawn(command);
    wait_until("a first seal", || daemon.metric("seals_total") >= 1.0);
    let address = webhook::listener(&daemon);
    let posted = webhook::batches(3, 10, 89);
    assert_eq!(webhook::post(&address, "/prod", token, &posted[0].0), 200);
    append(&set.log, &bytes[500_000..]);
    daemon.wait_for_metric("sealed_events_total", 2_010.0);
    let mut sealed = 2_010.0;
    for (at, (offset, words)) in [
        ("-63072000", "the newest commit of the archive is from"),
        ("441504000", "the clock of its store is at"),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(&clock, offset).expect("written");
        append(&set.log, &log(100, 87 + at as u64));
        assert_eq!(webhook::post(&address, "/prod", token, &posted[at + 1].0), 200, "{offset}");
        wait_until("the clock is doubted", || daemon.metric("clock_doubted") == 1.0);
        wait_until("the log says why", || daemon.log().contains(words));
        let (status, why) = daemon.get("/readyz");
        assert!(status == 503 && why.contains("clock"), "{status} {why}");
        assert_eq!(daemon.get("/healthz").0, 200, "it lives");
        wait_until("there is an alert", || {
            std::fs::read_to_string(&alerts).unwrap_or_default().matches("clock-doubted").count() > at
        });
        assert_eq!(daemon.metric("sealed_events_total"), sealed, "{offset}");
        assert_eq!(volumes(&set.archive), 1);
        std::fs::write(&clock, "0").expect("written");
        sealed += 110.0;
        daemon.wait_for_metric("sealed_events_total", sealed);
        wait_until("all is well", || daemon.get("/readyz").0 == 200);
        assert_eq!(daemon.metric("clock_doubted"), 0.0);
    }
    assert_eq!(daemon.metric("conservation_failures_total"), 0.0);
    assert!(daemon.terminate().0.success());
    assert_eq!(volumes(&set.archive), 1, "there is one volume, although the clock was wrong");
    assert_eq!(number(&set.archive, "SELECT count(*) FROM events"), 2_230);
    expect_code(strongroom().args(["verify", "--archive"]).arg(&set.archive), 0);
}

/// If the clock is wrong, `ingest` refuses before it writes anything: nothing is committed, and no
/// folder of a wrong year is made. Such a folder would determine where later rows go.
#[test]
fn ingest_refuses_a_clock_that_cannot_be_right() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let archive = folder.path().join("archive");
    let ingest_at = |days: i64, name: &str, seed: u64| {
        let log = write(folder.path(), name, &log(200, seed));
        let mut ingest = ingest(&archive, &[&log]);
        let offset = write(folder.path(), "offset", (days * 86_400).to_string().as_bytes());
        ingest.env("LD_PRELOAD", clock_library()).env("STRONGROOM_TEST_CLOCK", offset);
        ingest
    };
    // The archive is new, so only the clock of the store contradicts a clock that is ahead.
    let (_, err) = expect_code(&mut ingest_at(5_000, "a.log", 1), 2);
    assert!(err.contains("the system clock is at") && err.contains("--clock-is-right"), "{err}");
    // The events are much older than the archive, as in any backfill.
    expect_code(&mut ingest_at(-90, "a.log", 1), 0);
    // The archive was idle for ninety days.
    expect_code(&mut ingest_at(0, "b.log", 2), 0);
    for days in [2, 365, 5_000, -1, -365] {
        let (_, err) = expect_code(&mut ingest_at(days, "c.log", 3), 2);
        assert!(err.contains("the system clock is at"), "{days}: {err}");
        assert!(!err.contains("panicked"), "{err}");
    }
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 400);
    expect_code(&mut ingest_at(0, "c.log", 3), 0);
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 600);
    expect_code(strongroom().args(["verify", "--archive"]).arg(&archive), 0);
    // A difference of less than a day does not show that a clock is wrong, because people set
    // clocks by hand.
    let mut hours = ingest_at(0, "d.log", 4);
    hours.env("STRONGROOM_TEST_CLOCK", write(folder.path(), "hours", b"72000"));
    expect_code(&mut hours, 0);
    // That clock was twenty hours ahead, so the right clock is now behind the newest commit. The
    // operator has to confirm the right clock once.
    expect_code(&mut ingest_at(0, "e.log", 5), 2);
    expect_code(ingest_at(0, "e.log", 5).arg("--clock-is-right"), 0);
    expect_code(&mut ingest_at(0, "f.log", 6), 0);
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 1_200);
}
