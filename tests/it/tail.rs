//! `strongroom run` on logs that are written, rotated, compressed, copied and truncated while it
//! reads.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemon::{Daemon, PATIENCE, config, get, wait_until};
use crate::run::{export, is_long, log, number, output, strongroom, write, write_secret};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A daemon that follows `logs` below a folder, sealing often.
struct Setting {
    _folder: TempDir,
    archive: PathBuf,
    logs: PathBuf,
    config: PathBuf,
}

fn setting(rest: &str) -> Setting {
    let folder = folder();
    let (archive, logs) = (folder.path().join("archive"), folder.path().join("logs"));
    std::fs::create_dir(&logs).expect("made");
    let rest = format!(
        "[seal]\ninterval = '300ms'\n[[tail]]\nname = 'files'\ncluster = 'test'\npaths = ['{}']\npoll = '20ms'\n{rest}",
        logs.display()
    );
    let config = config(folder.path(), &archive.display().to_string(), &rest);
    Setting { archive, logs, config, _folder: folder }
}

fn multiset(bytes: &[u8]) -> BTreeMap<&[u8], usize> {
    let mut lines = BTreeMap::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        *lines.entry(line).or_insert(0) += 1;
    }
    lines
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opened");
    file.write_all(bytes).expect("written");
}

#[test]
fn lines_are_sealed_as_they_come_and_a_stop_seals_the_rest() {
    let set = setting("");
    let bytes = log(3_000, 31);
    let path = set.logs.join("audit.log");
    let mut daemon = Daemon::start(&set.config);
    for part in bytes.chunks(bytes.len() / 17) {
        append(&path, part);
        std::thread::sleep(Duration::from_millis(15));
    }
    daemon.wait_for_metric("sealed_events_total", 3_000.0);
    assert_eq!(daemon.metric("conserved"), 1.0);
    assert_eq!(daemon.metric("conservation_failures_total"), 0.0);
    assert_eq!(daemon.get("/healthz").0, 200);
    assert_eq!(daemon.get("/readyz"), (200, "ready\n".to_owned()));
    let more = log(500, 32);
    append(&path, &more);
    daemon.wait_for_metric("received_records_total", 3_500.0);
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    assert!(log.contains("everything read is sealed"), "{log}");
    let all = [bytes, more].concat();
    assert!(export(&set.archive) == all);
    // `ingest` of the same file gives the same stream.
    let ingest = output(crate::run::ingest(&set.archive, &[&path]).arg("--quiet"));
    assert!(ingest.status.success());
    assert_eq!(number(&set.archive, "SELECT count(*) FROM events"), 3_500);
}

/// Rotates a log as kube-apiserver does: it renames the file and starts a new one. A little later,
/// the old file is compressed and removed.
struct Lumberjack {
    folder: PathBuf,
    file: File,
    rotations: u32,
    unpacked: Vec<PathBuf>,
}

impl Lumberjack {
    fn new(folder: &Path) -> Self {
        let file = File::create(folder.join("audit.log")).expect("made");
        Lumberjack { folder: folder.to_owned(), file, rotations: 0, unpacked: Vec::new() }
    }

    fn rotate(&mut self) {
        self.rotations += 1;
        let name = format!("audit-2026-03-04T05-06-07.{:03}.log", self.rotations);
        let rotated = self.folder.join(name);
        std::fs::rename(self.folder.join("audit.log"), &rotated).expect("renamed");
        self.file = File::create(self.folder.join("audit.log")).expect("made");
        self.unpacked.push(rotated);
    }

    /// Compresses the oldest file, as slowly as a compressor does.
    fn pack(&mut self) {
        if self.unpacked.is_empty() {
            return;
        }
        let path = self.unpacked.remove(0);
        let bytes = std::fs::read(&path).expect("read");
        let mut name = path.clone().into_os_string();
        name.push(".gz");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&bytes).expect("in memory");
        let packed = packed.finish().expect("in memory");
        let mut file = File::create(&name).expect("made");
        for part in packed.chunks(packed.len() / 3 + 1) {
            file.write_all(part).expect("written");
            std::thread::sleep(Duration::from_millis(7));
        }
        drop(file);
        std::fs::remove_file(path).expect("removed");
    }
}

#[test]
fn rotation_under_load_with_gzip_and_kills_loses_and_duplicates_nothing() {
    let rotations = if is_long() { 100 } else { 15 };
    let set = setting("");
    let mut log_ = Lumberjack::new(&set.logs);
    let bytes = log(rotations * 400, 33);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut daemon = Some(Daemon::start(&set.config));
    let (mut kills, mut stops) = (0, 0);
    for (number, line) in lines.iter().enumerate() {
        if number % 5 == 3 {
            // Writes half a line first, so that a reader may see only this half.
            let (head, tail) = line.split_at(line.len() / 2);
            log_.file.write_all(head).expect("written");
            if number % 40 == 3 {
                std::thread::sleep(Duration::from_millis(3));
            }
            log_.file.write_all(tail).expect("written");
        } else {
            log_.file.write_all(line).expect("written");
        }
        if number % 400 == 399 {
            log_.rotate();
        }
        if number % 400 == 250 {
            log_.pack();
        }
        if number % 1300 == 700 {
            match kills % 3 {
                2 => {
                    let (status, log) = daemon.take().expect("it runs").terminate();
                    assert!(status.success(), "{log}");
                    stops += 1;
                }
                _ => daemon.take().expect("it runs").kill(),
            }
            kills += 1;
            // Rotation continues while no daemon runs.
            if kills % 2 == 0 {
                log_.rotate();
                log_.pack();
            }
            daemon = Some(Daemon::start(&set.config));
        }
        if number % 50 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let mut daemon = daemon.expect("it runs");
    let total = lines.len() as i64;
    let until = Instant::now() + PATIENCE;
    while number(&set.archive, "SELECT count(*) FROM events") < total {
        assert!(Instant::now() < until, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(daemon.metric("conservation_failures_total"), 0.0);
    assert!(daemon.terminate().0.success());
    println!("{} rotations, {kills} interruptions, {stops} of them in order, {total} lines", log_.rotations);
    let exported = export(&set.archive);
    assert!(multiset(&exported) == multiset(&bytes));
    assert_eq!(number(&set.archive, "SELECT count(*) FROM rejects"), 0);
}

#[test]
fn copies_truncation_and_files_that_vanish() {
    let set = setting("give_up_line = '1s'\n");
    let deep = set.logs.join("a/b");
    std::fs::create_dir_all(&deep).expect("made");
    let (first, second, third) = (log(300, 41), log(200, 42), log(100, 43));
    let live = set.logs.join("audit.log");
    append(&live, &first);
    let mut daemon = Daemon::start(&set.config);
    daemon.wait_for_metric("sealed_events_total", 300.0);
    // Rotation by copytruncate: the copy adds nothing, and the file starts again.
    std::fs::copy(&live, set.logs.join("audit.log.1")).expect("copied");
    std::fs::write(&live, &second).expect("written");
    daemon.wait_for_metric("sealed_events_total", 500.0);
    // A folder appears later. A file in it is removed as soon as it has been read.
    let passing = deep.join("audit.log");
    append(&passing, &third);
    daemon.wait_for_metric("sealed_events_total", 600.0);
    std::fs::remove_file(&passing).expect("removed");
    // A writer dies in the middle of a line. The part that it has written is kept as a reject.
    append(&live, b"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"lev");
    daemon.wait_for_metric("sealed_rejects_total", 1.0);
    // A shorter copy of a known file, and a compressed copy of the whole file, add nothing.
    write(&set.logs, "old.log", &first[..first.len() / 2]);
    write(&set.logs, "whole.log.zst", &zstd::encode_all(&first[..], 1).expect("in memory"));
    // A file that is not a log is not read, and the log says so once; an empty one may become a log.
    write(&set.logs, "notes.txt", b"not a log\n");
    write(&set.logs, "empty.log", b"");
    // A compressed file is read when nobody has written to it for two seconds.
    std::thread::sleep(Duration::from_millis(3_500));
    let told = |log: &str| log.matches("notes.txt").count();
    assert_eq!(told(&daemon.log()), 1, "{}", daemon.log());
    assert_eq!(daemon.metric("sealed_events_total"), 600.0, "{}", daemon.log());
    assert_eq!(daemon.get("/readyz").0, 200, "{}", daemon.log());
    assert!(daemon.terminate().0.success());
    let torn = b"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"lev";
    // Streams are exported unchanged, one after the other. So no newline follows the piece of a
    // line.
    let all = [&first[..], &second, torn, &third].concat();
    assert!(multiset(&export(&set.archive)) == multiset(&all));
}

#[test]
fn a_path_without_a_file_is_reported_and_a_file_is_read_after_chmod() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = folder();
    let archive = folder.path().join("archive");
    let path = write(folder.path(), "audit.log", &log(200, 44));
    let missing = folder.path().join("typo.log");
    let rest = format!(
        "[seal]\ninterval = '300ms'\n[[tail]]\nname = 'files'\ncluster = 'test'\npaths = ['{}', '{}']\npoll = '20ms'\n",
        path.display(),
        missing.display()
    );
    let config = config(folder.path(), &archive.display().to_string(), &rest);
    let set = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
            .expect("the permissions are set")
    };
    set(0);
    // Root may read every file. So if the tests run as root, the daemon runs without that
    // capability.
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]);
    command.args([env!("CARGO_BIN_EXE_strongroom"), "run", "--config"]).arg(&config).env("NO_COLOR", "1");
    let mut daemon = if File::open(&path).is_ok() { Daemon::spawn(command) } else { Daemon::start(&config) };
    wait_until("the file is reported", || daemon.log().contains("check owner and mode"));
    wait_until("the daemon is not ready", || daemon.get("/readyz").0 == 503);
    wait_until("the path is reported", || daemon.log().contains("typo.log"));
    let told = |log: &str| log.lines().filter(|line| line.contains("typo.log")).count();
    assert_eq!(told(&daemon.log()), 1, "{}", daemon.log());
    set(0o600);
    let changed = Instant::now();
    daemon.wait_for_metric("sealed_events_total", 200.0);
    assert!(
        changed.elapsed() < Duration::from_secs(25),
        "the daemon notices the change, and does not wait for its next try"
    );
    wait_until("ready", || daemon.get("/readyz").0 == 200);
    write(folder.path(), "typo.log", &log(100, 45));
    daemon.wait_for_metric("sealed_events_total", 300.0);
    assert!(daemon.log().contains("the path has a file now"), "{}", daemon.log());
    assert!(daemon.terminate().0.success());
}

#[test]
fn an_alert_is_sent_long_before_its_event_is_sealed() {
    let folder = folder();
    let archive = folder.path().join("archive");
    let path = folder.path().join("audit.log");
    write(folder.path(), "audit.log", &log(2_000, 51));
    let rest = format!(
        "[seal]\ninterval = '1h'\n[alerts]\nfile = '{}'\n[[tail]]\nname = 'files'\ncluster = 'test'\npaths = ['{}']\n",
        folder.path().join("alerts.jsonl").display(),
        path.display()
    );
    let mut daemon = Daemon::start(&config(folder.path(), &archive.display().to_string(), &rest));
    daemon.wait_for_metric("received_records_total", 2_000.0);
    let before = daemon.alerts.lock().expect("no panic holds it").len();
    let attack = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"7f5d1c5e-0000-4000-8000-000000000001","stage":"ResponseComplete","requestURI":"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings","verb":"create","user":{"username":"mallory@example.com","groups":["system:authenticated"]},"sourceIPs":["203.0.113.7"],"userAgent":"kubectl/v1.30","objectRef":{"resource":"pods","namespace":"prod","name":"db-0","apiGroup":"","apiVersion":"v1","subresource":"exec"},"responseStatus":{"metadata":{},"code":101},"requestReceivedTimestamp":"2026-03-02T10:00:00.000000Z","stageTimestamp":"2026-03-02T10:00:00.100000Z","annotations":{"authorization.k8s.io/decision":"allow"}}"#;
    let written = Instant::now();
    append(&path, &[&attack[..], b"\n"].concat());
    wait_until("an alert", || daemon.alerts.lock().expect("no panic holds it").len() > before);
    let took = daemon.alerts.lock().expect("no panic holds it")[before].0 - written;
    println!("an alert came {took:?} after its line");
    assert_eq!(daemon.metric("sealed_events_total"), 0.0);
    let told = daemon.alerts.lock().expect("no panic holds it").len();
    let file = std::fs::read_to_string(folder.path().join("alerts.jsonl")).expect("alerts");
    assert_eq!(file.lines().count(), told);
    // The daemon is killed before it seals. The next run raises the same alerts again, with the
    // same ids, and each is in the archive once.
    let ids = |lines: &[String]| -> std::collections::BTreeSet<String> {
        lines
            .iter()
            .map(|line| {
                let finding: serde_json::Value = serde_json::from_str(line).expect("JSON");
                finding["finding_info"]["uid"].as_str().expect("an id").to_owned()
            })
            .collect()
    };
    let lines = |daemon: &Daemon| -> Vec<String> {
        daemon.alerts.lock().expect("no panic holds it").iter().map(|(_, line)| line.clone()).collect()
    };
    let first = ids(&lines(&daemon));
    daemon.kill();
    let mut daemon = Daemon::start(&folder.path().join("strongroom.toml"));
    daemon.wait_for_metric("received_records_total", 2_001.0);
    wait_until("all alerts again", || lines(&daemon).len() >= first.len());
    assert_eq!(ids(&lines(&daemon)), first);
    assert!(daemon.terminate().0.success());
    assert_eq!(number(&archive, "SELECT count(*) FROM events"), 2_001);
    assert_eq!(number(&archive, "SELECT count(DISTINCT alert_id) FROM alerts"), first.len() as i64);
    assert_eq!(number(&archive, "SELECT count(*) FROM alerts"), first.len() as i64);
}

#[test]
fn a_full_disk_is_reported_and_waited_for() {
    let set = setting("");
    let bytes = log(4_000, 61);
    let path = set.logs.join("audit.log");
    // A limit on the size of files takes the place of a full disk. A test can set and lift it.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" run --config \"$1\"", env!("CARGO_BIN_EXE_strongroom")])
        .arg(&set.config)
        .env("NO_COLOR", "1");
    let mut daemon = Daemon::spawn(command);
    append(&path, &bytes[..1_000_000]);
    wait_until("a first seal", || daemon.metric("seals_total") >= 1.0);
    let limit = |pid: u32, bytes: &str| {
        let limits = ["--pid", &pid.to_string(), &format!("--fsize={bytes}:unlimited")].map(str::to_owned);
        assert!(Command::new("prlimit").args(limits).status().expect("prlimit starts").success());
    };
    limit(daemon.pid(), "10000");
    append(&path, &bytes[1_000_000..]);
    wait_until("a failed seal", || daemon.metric("seal_failures_total") >= 1.0);
    let sealed = daemon.metric("sealed_events_total");
    let (status, why) = daemon.get("/readyz");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("the archive cannot be written"), "{why}");
    wait_until("the log says so", || daemon.log().contains("cannot seal; trying again"));
    assert!(sealed < 4_000.0);
    limit(daemon.pid(), "unlimited");
    daemon.wait_for_metric("sealed_events_total", 4_000.0);
    assert_eq!(daemon.get("/readyz").0, 200);
    assert_eq!(daemon.metric("given_up_records_total"), 0.0, "the bundle was kept, not read again");
    assert!(daemon.terminate().0.success());
    assert!(export(&set.archive) == bytes);
}

#[test]
fn prometheus_client_reads_metrics_and_needs_the_token() {
    let folder = folder();
    let logs = write(folder.path(), "audit.log", &log(6_000, 71));
    let token = write_secret(folder.path(), "token", b"a-long-token-that-nobody-guesses\n");
    let path = folder.path().join("strongroom.toml");
    let text = format!(
        "[archive]\nlocation = '{}'\n[observe]\nlisten = '127.0.0.1:0'\ntoken_file = '{}'\n[log]\nformat = 'text'\n\
         [seal]\ninterval = '200ms'\n[[tail]]\nname = 'a'\ncluster = 'c'\npaths = ['{}']\nsilence = '1s'\n",
        folder.path().join("archive").display(),
        token.display(),
        logs.display()
    );
    std::fs::write(&path, text).expect("written");
    let mut daemon = Daemon::start(&path);
    let address = daemon.address();
    assert_eq!(get(&address, "/metrics", "").0, 401);
    assert_eq!(get(&address, "/metrics", "Authorization: Bearer a-long-tokem\r\n").0, 401);
    let allowed = "Authorization: Bearer a-long-token-that-nobody-guesses\r\n";
    wait_until("all is sealed", || {
        get(&address, "/metrics", allowed).1.contains("strongroom_sealed_events_total 6000\n")
    });
    wait_until("silence is an alert", || {
        daemon.alerts.lock().expect("no panic holds it").iter().any(|(_, line)| line.contains("fell silent"))
    });
    assert_eq!(get(&address, "/nothing", "").0, 404);
    let (status, text) = get(&address, "/metrics", allowed);
    assert_eq!(status, 200);
    assert!(!text.contains("a-long-token") && !daemon.log().contains("a-long-token"));
    let metrics = write(folder.path(), "metrics.txt", text.as_bytes());
    let script = "import sys\nfrom prometheus_client.parser import text_string_to_metric_families as parse\n\
                  print(sum(len(f.samples) for f in parse(open(sys.argv[1]).read())))";
    if let Some(python) = std::env::var_os("STRONGROOM_PYTHON") {
        let parsed = output(Command::new(python).args(["-c", script]).arg(metrics));
        assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
        let samples: u32 = String::from_utf8_lossy(&parsed.stdout).trim().parse().expect("a number");
        assert!(samples > 50, "{samples}");
    }
}

#[test]
fn config_explains_itself_and_reports_every_mistake() {
    let folder = folder();
    let (text, _) = crate::run::expect_code(strongroom().arg("config"), 0);
    assert!(text.contains("[[tail]]") && text.contains("interval = \"5m\""));
    let bad = write(folder.path(), "bad.toml", b"[seal]\nbytes = 5\ninterwal = '5m'\n");
    let (_, err) = crate::run::expect_code(strongroom().args(["config", "check"]).arg(&bad), 1);
    for told in ["line 2: seal.bytes", "line 3: seal.interwal", "archive.location: is missing", "no source"] {
        assert!(err.contains(told), "{told} in {err}");
    }
    let (_, err) = crate::run::expect_code(strongroom().args(["run", "--config"]).arg(&bad), 1);
    assert!(err.contains("line 2: seal.bytes"), "{err}");
    assert!(!folder.path().join("archive").exists());
}
