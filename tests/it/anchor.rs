//! Anchors outside an archive: witnesses that cosign its proof logs, authorities that timestamp
//! them, and independent programs that read these logs.
//!
//! The witness is the real binary, over HTTP. The Python of `STRONGROOM_PYTHON` has an independent
//! witness (PyPI: aics-witness) and an independent reader of logs (aics-tlog). The crates
//! `signed_note` and `tlog_tiles` are a third implementation.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use signed_note::{Note, StandardVerifier, VerifierList};
use strongroom_archive::Archive;
use strongroom_proof::{AnchorError, AnchorResponse, AnchorTransport, Anchors, TrustedLog, WitnessOptions};
use strongroom_tlog::{PrivateKey, WitnessKey};
use tempfile::TempDir;
use tlog_tiles::{HashReader as _, Tile, TileHashReader, TileReader};

use crate::daemon::{Daemon, config, wait_until};
use crate::run::{expect_code, ingest, log, output, strongroom, write};
use crate::s3;
use crate::services::free_port;

const TABLES: [&str; 3] = ["events", "rejects", "alerts"];

/// An archive with a key, and room for witnesses.
struct Site {
    folder: TempDir,
    public: String,
}

impl Site {
    /// Makes an archive with one seal, which has events, rejects and alerts.
    fn new() -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        let public = new_key(&folder.path().join("key"), "strongroom");
        let site = Site { folder, public };
        site.seal(1);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    fn id(&self) -> String {
        let manifest = std::fs::read(self.archive().join("strongroom.json")).expect("a manifest");
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        manifest["archive_id"].as_str().expect("an id").to_owned()
    }

    /// Ingests another log into the archive, which seals and signs it.
    fn seal(&self, seed: u64) {
        let mut bytes = log(5_000, seed);
        let middle = bytes.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        bytes.splice(middle..middle, b"this is no event\n".iter().copied());
        let path = write(self.folder.path(), &format!("{seed}.log"), &bytes);
        let mut command = ingest(&self.archive(), &[&path]);
        command.arg("--key").arg(self.path("key")).args(["--complete", "--quiet"]);
        expect_code(&mut command, 1);
    }

    fn volume(&self, table: &str) -> PathBuf {
        names(&self.archive().join(table)).pop().expect("a volume")
    }

    fn origin(&self, table: &str) -> String {
        let year = self.volume(table).file_name().expect("a year").to_string_lossy().into_owned();
        format!("strongroom/{}/{table}/{year}", self.id())
    }

    fn cosigned(&self, table: &str) -> Vec<PathBuf> {
        names(&self.volume(table).join("_tlog/witness"))
    }

    /// Runs `sign-log` with witnesses, and returns its standard error.
    fn anchor(&self, witnesses: &[&str], code: i32) -> String {
        let mut command = strongroom();
        command.args(["sign-log", "--archive"]).arg(self.archive()).arg("--key").arg(self.path("key"));
        for witness in witnesses {
            command.args(["--witness", witness]);
        }
        expect_code(&mut command, code).1
    }

    /// Returns the kinds of findings of `verify`. The second verifier, if there is one, must find
    /// the same kinds.
    fn kinds(&self, witnesses: &[&str], more: &[&str]) -> BTreeSet<String> {
        let asked = |command: &mut Command| {
            command.args(["--public-key", &self.public]).args(more);
            for witness in witnesses {
                command.args(["--witness", witness]);
            }
        };
        let mut ours = strongroom();
        ours.args(["verify", "--json", "-", "--archive"]).arg(self.archive());
        asked(&mut ours);
        let run = output(&mut ours);
        let kinds = kinds_of(&run.stdout, &format!("{ours:?}\n{}", String::from_utf8_lossy(&run.stderr)));
        if let Ok(verifier) = std::env::var("STRONGROOM_VERIFIER") {
            let mut words = verifier.split_whitespace();
            let mut theirs = Command::new(words.next().expect("a command"));
            let report = self.path("second.json");
            theirs.args(words).arg(self.archive()).arg("--no-rows").arg("--json").arg(&report);
            asked(&mut theirs);
            let run = output(&mut theirs);
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            let second = kinds_of(&std::fs::read(&report).unwrap_or_default(), &said);
            assert_eq!(second, kinds, "the second verifier has other findings: {said}");
        }
        kinds
    }
}

fn kinds_of(report: &[u8], context: &str) -> BTreeSet<String> {
    let report: Value = serde_json::from_slice(report).unwrap_or_else(|error| panic!("{error}: {context}"));
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().map(|finding| finding["kind"].as_str().expect("a kind").to_owned()).collect()
}

fn kinds(expected: &[&str]) -> BTreeSet<String> {
    expected.iter().map(|kind| (*kind).to_owned()).collect()
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    names.sort();
    names
}

fn new_key(path: &Path, name: &str) -> String {
    let mut command = strongroom();
    command.args(["key", "new", "--name", name]).arg(path);
    expect_code(&mut command, 0).0.trim().to_owned()
}

/// A running `strongroom witness`.
struct Witness {
    daemon: Daemon,
    address: String,
    vkey: String,
}

impl Witness {
    /// Starts a witness of all logs of the archive. Its key and state are in the site's folder.
    fn start(site: &Site, name: &str) -> Witness {
        Witness::watching(site, name, &[format!("{}@strongroom/{}/", site.public, site.id())])
    }

    fn watching(site: &Site, name: &str, logs: &[String]) -> Witness {
        let key = site.path(&format!("{name}.key"));
        if !key.exists() {
            new_key(&key, &format!("witness.example/{name}"));
        }
        let (mut command, state) = (strongroom(), site.path(&format!("{name}.state")));
        command.args(["witness", "--listen", "127.0.0.1:0", "--key"]).arg(&key);
        if !state.exists() {
            command.arg("--new");
        }
        command.arg("--state").arg(state);
        for log in logs {
            command.args(["--log", log]);
        }
        let daemon = Daemon::spawn(command);
        let (address, vkey) = listens(&daemon);
        Witness { daemon, address, vkey }
    }

    fn url(&self) -> String {
        format!("{}@http://{}", self.vkey, self.address)
    }
}

/// Waits until a witness has printed its address and its vkey, and returns both.
fn listens(daemon: &Daemon) -> (String, String) {
    let mut said = None;
    wait_until("the witness listens", || {
        let log = daemon.log();
        let address = log.lines().find_map(|line| line.split("the witness listens address=").nth(1));
        let address = address.and_then(|rest| rest.split_whitespace().next().map(str::to_owned));
        let vkey = daemon.alerts.lock().expect("no panic holds it").first().map(|(_, line)| line.clone());
        said = address.zip(vkey);
        said.is_some()
    });
    said.expect("waited for")
}

/// Sends a POST request, and returns the status, head and body of the answer; `None` if the
/// connection broke.
fn post(address: &str, path: &str, body: &[u8]) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split_whitespace().nth(1)?.parse().ok()?, head.to_lowercase(), body.to_owned()))
}

/// Replaces a volume's history with another one that is signed with the right key, as an insider
/// could.
fn rewrite(volume: &Path) {
    let commits = names(&volume.join("_delta_log"));
    let commit = commits.iter().rev().find(|path| path.extension().is_some_and(|kind| kind == "json"));
    let commit = commit.expect("a commit");
    let text = std::fs::read_to_string(commit).expect("text");
    // The commit gets another time, and everything else in it stays.
    let at = text.find("\"timestamp\":").expect("a time") + "\"timestamp\":".len();
    let digits = text[at..].find(|c: char| !c.is_ascii_digit()).expect("an end");
    let time: u64 = text[at..at + digits].parse().expect("a number");
    std::fs::remove_file(commit).expect("the file or folder was there");
    std::fs::write(commit, format!("{}{}{}", &text[..at], time - 1, &text[at + digits..])).expect("written");
    for part in ["checkpoint", "tile"] {
        std::fs::remove_dir_all(volume.join("_tlog").join(part)).expect("the file or folder was there");
    }
}

#[test]
fn a_second_history_signed_with_the_right_key_is_caught_by_a_witness() {
    let site = Site::new();
    let witness = Witness::start(&site, "w1");
    assert_eq!(site.anchor(&[&witness.url()], 0), "");
    site.seal(2);
    assert_eq!(site.anchor(&[&witness.url()], 0), "");
    for table in TABLES {
        assert_eq!(site.cosigned(table).len(), 2, "{table}");
    }
    assert_eq!(site.kinds(&[&witness.vkey], &[]), kinds(&[]));
    // Everything is cosigned, so a second run sends the witness no request.
    let asked = witness.daemon.log().matches("a checkpoint came").count();
    assert_eq!(site.anchor(&[&witness.url()], 0), "");
    assert_eq!(witness.daemon.log().matches("a checkpoint came").count(), asked);

    // The witness is shown a second tree of the same size as the one that it cosigned.
    rewrite(&site.volume("events"));
    let said = site.anchor(&[], 0);
    assert_eq!(said, "");
    let cosigned = site.cosigned("events");
    assert_eq!(site.kinds(&[&witness.vkey], &[]), kinds(&["forked"]));
    let said = site.anchor(&[&witness.url()], 1);
    assert!(said.contains("another history") && said.contains("another tree of"), "{said}");
    assert_eq!(site.kinds(&[], &[]), kinds(&["forked"]), "the log's own signature is under both");
    // The witness's cosignature is removed as well. Its absence is a finding, and the witness does
    // not cosign the second history.
    for path in &cosigned {
        std::fs::remove_file(path).expect("removed");
    }
    assert_eq!(
        site.kinds(&[], &[]),
        kinds(&[]),
        "nothing in the archive shows that its history was replaced"
    );
    assert_eq!(site.kinds(&[&witness.vkey], &[]), kinds(&["witness_missing"]));
    let said = site.anchor(&[&witness.url()], 1);
    assert!(said.contains("another history"), "{said}");
    // More commits after the second history do not help: it still does not continue the first.
    site.seal(3);
    let said = site.anchor(&[&witness.url()], 1);
    assert!(said.contains("another history") && said.contains("events/"), "{said}");
    assert_eq!(site.kinds(&[&witness.vkey], &[]), kinds(&["witness_missing"]));
    assert!(site.cosigned("events").is_empty(), "nothing of the second history was cosigned");
    assert_eq!(site.cosigned("rejects").len(), 3, "the other logs are still cosigned");
    let log = witness.daemon.log();
    assert!(log.contains("a log contradicts itself"), "{log}");
    assert!(
        !names(&site.path("w1.state/evidence")).is_empty(),
        "the contradicting checkpoints are kept as evidence"
    );

    // The end of a log is cut off, and the rest is signed again. The witness has seen more commits
    // than are left.
    for path in names(&site.volume("rejects").join("_delta_log")).iter().rev().take(1) {
        std::fs::remove_file(path).expect("removed");
    }
    for part in ["checkpoint", "tile"] {
        std::fs::remove_dir_all(site.volume("rejects").join("_tlog").join(part))
            .expect("the file or folder was there");
    }
    let said = site.anchor(&[&witness.url()], 1);
    assert!(said.contains("the newest checkpoint has"), "{said}");
    assert!(site.kinds(&[&witness.vkey], &[]).contains("commits_cut"));
}

#[test]
fn an_absent_witness_holds_nothing_up_and_catches_up() {
    let site = Site::new();
    let first = Witness::start(&site, "w1");
    let second = Witness::start(&site, "w2");
    let (one, two) = (first.url(), second.url());
    let (vkeys, dead) = ([first.vkey.clone(), second.vkey.clone()], second.address.clone());
    second.daemon.kill();
    let said = site.anchor(&[&one, &two], 1);
    assert!(said.contains("witness.example/w2") && said.contains("no answer"), "{said}");
    assert_eq!(said.matches("witness.example/w2").count(), 1, "reported once: {said}");
    site.seal(2);
    site.anchor(&[&one, &two], 1);
    assert_eq!(site.kinds(&[&vkeys[0]], &[]), kinds(&[]));
    assert_eq!(site.kinds(&[&vkeys[0], &vkeys[1]], &["--witness-quorum", "1"]), kinds(&[]));
    assert_eq!(site.kinds(&[&vkeys[0], &vkeys[1]], &[]), kinds(&["witness_missing"]));
    // The witness is started again at another address, and is asked only for the newest checkpoint.
    let second = Witness::start(&site, "w2");
    assert_ne!(second.address, dead);
    assert_eq!(site.anchor(&[&one, &second.url()], 0), "");
    assert_eq!(site.kinds(&[&vkeys[0], &vkeys[1]], &[]), kinds(&[]));
    let id = vkeys[1].split('+').nth(1).expect("an id");
    let of_second = site.cosigned("events").into_iter().filter(|path| path.to_string_lossy().ends_with(id));
    assert_eq!(of_second.count(), 1);
    // A run may die after a witness has answered and before the answer is stored. Then the witness
    // has seen more than the cosignatures in the archive show.
    for path in site.cosigned("events").into_iter().filter(|path| path.to_string_lossy().ends_with(id)) {
        std::fs::remove_file(path).expect("removed");
    }
    assert_eq!(site.anchor(&[&one, &second.url()], 0), "");
    // Changed or lost tiles do not lead to a false proof.
    site.seal(3);
    let (tiles, aside) = (site.volume("events").join("_tlog/tile"), site.path("tiles"));
    std::fs::rename(&tiles, &aside).expect("moved");
    assert_eq!(site.anchor(&[&one, &second.url()], 0), "");
    std::fs::rename(&aside, &tiles).expect("moved back");
    // Another key is given under the name and address of the first witness. The cosignature in the
    // answer is not by this key, and is refused.
    let stranger = new_key(&site.path("stranger"), "witness.example/w1");
    let shown =
        expect_code(strongroom().args(["key", "show", "--witness", "--key"]).arg(site.path("stranger")), 0).0;
    assert_ne!(shown.trim(), stranger, "a witness's vkey differs from a log's");
    site.seal(4);
    let said = site.anchor(&[&format!("{}@http://{}", shown.trim(), first.address)], 1);
    assert!(said.contains("no cosignature by its key"), "{said}");
    assert_eq!(site.kinds(&[shown.trim()], &[]), kinds(&["witness_missing"]));
}

#[test]
fn a_witness_must_know_a_rotated_key() {
    let site = Site::new();
    let witness = Witness::start(&site, "w1");
    site.anchor(&[&witness.url()], 0);
    let new = new_key(&site.path("new"), "strongroom");
    let mut rotate = strongroom();
    rotate.args(["key", "rotate", "--archive"]).arg(site.archive()).arg("--key").arg(site.path("key"));
    expect_code(rotate.arg("--to").arg(site.path("new")), 0);
    std::fs::rename(site.path("new"), site.path("key")).expect("renamed");
    site.seal(2);
    let said = site.anchor(&[&witness.url()], 1);
    assert!(said.contains("does not know the archive's key"), "{said}");
    witness.daemon.kill();
    let logs = [&site.public, &new].map(|key| format!("{key}@strongroom/{}/", site.id()));
    let witness = Witness::watching(&site, "w1", &logs);
    assert_eq!(site.anchor(&[&witness.url()], 0), "");
    assert_eq!(site.kinds(&[&witness.vkey], &[]), kinds(&[]));
}

#[test]
fn proofs_carry_cosignatures() {
    let site = Site::new();
    let (first, second) = (Witness::start(&site, "w1"), Witness::start(&site, "w2"));
    site.anchor(&[&first.url(), &second.url()], 0);
    let prove = |name: &str| {
        let path = site.path(name);
        let mut command = strongroom();
        command.args(["prove", "--where", "verb = 'delete'", "--archive"]).arg(site.archive());
        expect_code(command.arg("-o").arg(&path), 0);
        path
    };
    let verify = |path: &Path, witnesses: &[&str], more: &[&str], code: i32| {
        let mut ours = strongroom();
        ours.args(["verify-proof", "--public-key", &site.public]).arg(path).args(more);
        for witness in witnesses {
            ours.args(["--witness", witness]);
        }
        if let Some(python) = std::env::var_os("STRONGROOM_PYTHON") {
            let mut theirs = Command::new(python);
            theirs.args(["tools/verify.py", "proof", "--public-key", &site.public]).arg(path).args(more);
            for witness in witnesses {
                theirs.args(["--witness", witness]);
            }
            expect_code(&mut theirs, code);
        }
        expect_code(&mut ours, code)
    };
    let (one, two) = (first.vkey.as_str(), second.vkey.as_str());
    let proof = prove("proof.json");
    let (out, _) = verify(&proof, &[one, two], &[], 0);
    assert!(
        out.contains("cosigned by witness.example/w1 at 20") && out.contains("witness.example/w2"),
        "{out}"
    );
    verify(&proof, &[], &[], 0);
    // The newest commits are not cosigned. If the cosigned checkpoint covers all requested records,
    // a proof uses that checkpoint instead of the newest one.
    let before = std::fs::read_to_string(&proof).expect("readable");
    let small = String::from_utf8(log(40, 9)).expect("text");
    let small: Vec<&str> = small.lines().filter(|line| !line.contains("\"verb\":\"delete\"")).collect();
    std::fs::write(site.path("small.log"), small.join("\n") + "\n").expect("written");
    let mut command = ingest(&site.archive(), &[&site.path("small.log")]);
    expect_code(command.arg("--key").arg(site.path("key")).args(["--complete", "--quiet"]), 0);
    verify(&prove("again.json"), &[one, two], &[], 0);
    // A proof is refused if one of its two cosignatures was removed or changed.
    let value: Value = serde_json::from_str(&before).expect("JSON");
    let note = value["checkpoints"][0]["note"].as_str().expect("a note").to_owned();
    let line = note.lines().find(|line| line.contains("witness.example/w1")).expect("a line");
    let without = before.replace(&format!("{line}\\n"), "");
    std::fs::write(site.path("without.json"), &without).expect("written");
    let (_, err) = verify(&site.path("without.json"), &[one, two], &[], 1);
    assert!(err.contains("cosigned by 1 of the witnesses, 2 are required"), "{err}");
    verify(&site.path("without.json"), &[one, two], &["--witness-quorum", "1"], 0);
    let (data, rest) = line.rsplit_once(' ').map(|(head, data)| (data, head)).expect("a signature");
    let mut bytes = BASE64.decode(data).expect("base64");
    *bytes.last_mut().expect("not empty") ^= 1;
    let forged = before.replace(line, &format!("{rest} {}", BASE64.encode(bytes)));
    std::fs::write(site.path("forged.json"), forged).expect("written");
    verify(&site.path("forged.json"), &[one, two], &["--witness-quorum", "1"], 1);
    // A witness that is given under two names counts as one.
    let key = one.splitn(3, '+').nth(2).expect("a key").to_owned();
    let public = BASE64.decode(&key).expect("base64");
    let id = Sha256::digest([b"witness.example/again\n".as_slice(), &public].concat());
    let id: String = id[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let twice = format!("witness.example/again+{id}+{key}");
    let (_, err) = expect_code(
        strongroom().args(["verify-proof"]).arg(&proof).args(["--witness", one, "--witness", &twice]),
        1,
    );
    assert!(err.contains("the same key"), "{err}");
}

#[test]
fn packs_carry_cosignatures() {
    let site = Site::new();
    let (first, second) = (Witness::start(&site, "w1"), Witness::start(&site, "w2"));
    site.anchor(&[&first.url(), &second.url()], 0);
    let pack = |name: &str| {
        let path = site.path(name);
        let mut command = strongroom();
        command.args(["evidence", "--quiet", "--from", "2000-01-01", "--to", "2099-01-01", "--archive"]);
        command.arg(site.archive()).args(["--where", "verb = 'delete'", "--out"]).arg(&path);
        expect_code(command.arg("--key").arg(site.path("key")), 0);
        path
    };
    let found = |pack: &Path, witnesses: &[&str], more: &[&str]| {
        let asked = |command: &mut Command, report: &Path| {
            command.arg(pack).args(["--public-key", &site.public, "--json"]).arg(report).args(more);
            for witness in witnesses {
                command.args(["--witness", witness]);
            }
            let run = output(command);
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            kinds_of(&std::fs::read(report).unwrap_or_default(), &said)
        };
        let ours = asked(strongroom().args(["evidence", "check"]), &site.path("ours.json"));
        if let Some(python) = std::env::var_os("STRONGROOM_PYTHON") {
            let mut second = Command::new(python);
            assert_eq!(asked(second.args(["tools/verify.py", "pack"]), &site.path("theirs.json")), ours);
        }
        ours
    };
    let (one, two) = (first.vkey.as_str(), second.vkey.as_str());
    let cosigned = pack("cosigned");
    for witnesses in [&[][..], &[one], &[one, two]] {
        assert_eq!(found(&cosigned, witnesses, &[]), kinds(&[]), "{witnesses:?}");
    }
    let stranger = Witness::start(&site, "w3");
    assert_eq!(found(&cosigned, &[one, &stranger.vkey], &[]), kinds(&["witness_missing"]));
    assert_eq!(found(&cosigned, &[one, &stranger.vkey], &["--witness-quorum", "1"]), kinds(&[]));
    // Only the first witness cosigns what is sealed now.
    site.seal(2);
    site.anchor(&[&first.url()], 0);
    let half = pack("half");
    assert_eq!(found(&half, &[one], &[]), kinds(&[]));
    assert_eq!(found(&half, &[one, two], &[]), kinds(&["witness_missing"]));
    assert_eq!(found(&half, &[one, two], &["--witness-quorum", "1"]), kinds(&[]));
}

#[test]
fn anchors_are_stored_in_a_bucket_as_well() {
    let Some(seaweed) = s3::store() else { return };
    let (endpoint, location) = (seaweed.endpoint(), "s3://anchors/a");
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    let site = Site { public: new_key(&key, "strongroom"), folder };
    let run = |words: &[&str]| {
        let mut command = s3::at(&endpoint);
        command.args(words).env("STRONGROOM_ARCHIVE", location).env("STRONGROOM_KEY_FILE", &key);
        command
    };
    expect_code(&mut run(&["archive", "init", location]), 0);
    let ingest = |name: &str, seed| {
        let path = write(site.folder.path(), name, &log(1_500, seed));
        expect_code(run(&["ingest", "--cluster", "test", "--print-alerts", "critical"]).arg(path), 0);
    };
    ingest("first.log", 81);
    let (_, report) = s3::findings(&endpoint, location, &site.public);
    let id = report["archive_id"].as_str().expect("an id");
    let logs = [format!("{}@strongroom/{id}/", site.public)];
    let witness = Witness::watching(&site, "w1", &logs);
    let tsa = Tsa::start(&site.path("tsa"), "ec");
    let ca = tsa.as_ref().map(|tsa| tsa.ca("ca.pem"));
    let anchor = || {
        let mut command = run(&["sign-log", "--witness", &witness.url()]);
        if let (Some(tsa), Some(ca)) = (&tsa, &ca) {
            let url = format!("http://127.0.0.1:{}/good", tsa.port);
            command.args(["--timestamp", &url, "--tsa-ca", ca]);
        }
        expect_code(&mut command, 0);
    };
    let mut asked = vec!["--witness", witness.vkey.as_str()];
    asked.extend(ca.iter().flat_map(|ca| ["--tsa-ca", ca.as_str()]));
    let found = || s3::findings_with(&endpoint, location, &site.public, &asked);
    let missing = match ca {
        Some(_) => kinds(&["witness_missing", "timestamp_missing"]),
        None => kinds(&["witness_missing"]),
    };
    assert_eq!(found().0, missing);
    for (name, seed) in [("second.log", 82), ("third.log", 83)] {
        anchor();
        // A second run puts no object. The objects of the first run are locked like all others:
        // otherwise both verifiers would report them.
        anchor();
        let (kinds, report) = found();
        assert_eq!(kinds, BTreeSet::new(), "{report:#}");
        assert_eq!(report["not_checked"], serde_json::json!([]), "{report:#}");
        assert!(report["checked"]["cosignatures"].as_u64() > Some(0), "{report:#}");
        ingest(name, seed);
    }
}

/// Several clients send requests for one log while the witness is killed again and again. What it
/// has cosigned stays valid: it never cosigns a smaller tree later.
#[test]
fn a_witness_that_is_killed_never_goes_back() {
    let site = Site::new();
    for seed in 2..6 {
        site.seal(seed);
    }
    let volume = site.volume("events");
    let origin = site.origin("events");
    let notes: Vec<(u64, String)> = names(&volume.join("_tlog/checkpoint"))
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("a note"))
        .map(|note| (note.lines().nth(1).expect("a size").parse().expect("a number"), note))
        .collect();
    assert!(notes.len() > 4);
    let greatest = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let address = std::sync::Mutex::new(String::new());
    let answered = AtomicU64::new(0);
    let leaves: Vec<tlog_tiles::Hash> = names(&volume.join("_delta_log"))
        .iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .map(|path| tlog_tiles::record_hash(&std::fs::read(path).expect("a commit")))
        .collect();
    let stored = Stored::over(&leaves);
    std::thread::scope(|scope| {
        for client in 0..3usize {
            let (notes, greatest, done, address, answered, stored) =
                (&notes, &greatest, &done, &address, &answered, &stored);
            scope.spawn(move || {
                let (mut old, mut at) = (0u64, client);
                while !done.load(Ordering::Relaxed) {
                    at += 1;
                    let (size, note) = &notes[at % notes.len()];
                    let from = old.min(*size);
                    let seen_before = greatest.load(Ordering::SeqCst);
                    let body = request(stored, from, *size, note);
                    let to = address.lock().expect("no panic holds it").clone();
                    match post(&to, "/add-checkpoint", body.as_bytes()) {
                        Some((200, _, cosignature)) => {
                            assert!(cosignature.starts_with("\u{2014} witness.example/w1 "), "{cosignature}");
                            // Before this request, no larger tree had been cosigned.
                            assert!(*size >= seen_before, "{size} was cosigned after {seen_before}");
                            greatest.fetch_max(*size, Ordering::SeqCst);
                            answered.fetch_add(1, Ordering::Relaxed);
                            old = *size;
                        }
                        Some((409, head, body)) => {
                            assert!(head.contains("content-type: text/x.tlog.size"), "{head}");
                            let latest: u64 = body.trim().parse().expect("a size");
                            assert!(latest >= seen_before, "it says {latest} after {seen_before}");
                            old = latest;
                        }
                        Some((status, _, body)) => panic!("{status}: {body}"),
                        None => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
            });
        }
        let rounds = if crate::run::is_long() { 60 } else { 12 };
        for round in 0..rounds {
            let witness = Witness::start(&site, "w1");
            *address.lock().expect("no panic holds it") = witness.address.clone();
            let before = answered.load(Ordering::Relaxed);
            let until = Instant::now() + Duration::from_secs(20);
            while answered.load(Ordering::Relaxed) < before + 3 + round % 5 && Instant::now() < until {
                std::thread::sleep(Duration::from_micros(300));
            }
            witness.daemon.kill();
            // The size in the state on disk is at least the largest size that was cosigned for a
            // client.
            let state = site.path("w1.state/logs").join(hex(&Sha256::digest(origin.as_bytes())));
            let state = std::fs::read_to_string(state).expect("a state");
            let size: u64 = state.lines().nth(1).expect("a size").parse().expect("a number");
            assert!(size >= greatest.load(Ordering::SeqCst), "{size} on disk");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 20);
    // A kill may have lost an answer. When the log asks again, it gets the cosignature.
    let witness = Witness::start(&site, "w1");
    assert_eq!(site.anchor(&[&witness.url()], 0), "");
    assert_eq!(site.kinds(&[&witness.vkey], &[]), kinds(&[]));
    let shown = crate::daemon::get(
        &witness.address,
        &format!("/{}/checkpoint", hex(&Sha256::digest(origin.as_bytes()))),
        "",
    );
    assert!(
        shown.0 == 200 && shown.1.starts_with(&origin) && shown.1.contains("witness.example/w1"),
        "{shown:?}"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn request(stored: &Stored, old: u64, size: u64, note: &str) -> String {
    let proof = match old {
        0 => Vec::new(),
        _ if old == size => Vec::new(),
        _ => tlog_tiles::prove_tree(size, old, stored).expect("a proof"),
    };
    let lines: String = proof.iter().map(|hash| format!("{}\n", BASE64.encode(hash.0))).collect();
    format!("old {old}\n{lines}\n{note}")
}

/// All stored hashes of a tree, numbered as in `tlog_tiles`.
struct Stored(Vec<tlog_tiles::Hash>);

impl Stored {
    fn over(leaves: &[tlog_tiles::Hash]) -> Stored {
        let mut stored = Stored(Vec::new());
        for (at, leaf) in leaves.iter().enumerate() {
            let more = tlog_tiles::stored_hashes_for_record_hash(at as u64, *leaf, &stored).expect("hashes");
            stored.0.extend(more);
        }
        stored
    }
}

impl tlog_tiles::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

#[test]
fn requests_are_answered_as_specified() {
    let site = Site::new();
    site.seal(2);
    let witness = Witness::start(&site, "w1");
    let notes: Vec<String> = names(&site.volume("events").join("_tlog/checkpoint"))
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("a note"))
        .collect();
    let leaves: Vec<tlog_tiles::Hash> = names(&site.volume("events").join("_delta_log"))
        .iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .map(|path| tlog_tiles::record_hash(&std::fs::read(path).expect("a commit")))
        .collect();
    let stored = Stored::over(&leaves);
    let size_of = |note: &str| note.lines().nth(1).expect("a size").parse::<u64>().expect("a number");
    let (small, great) = (&notes[0], notes.last().expect("notes"));
    let (from, to) = (size_of(small), size_of(great));
    assert!(from > 0 && from < to);
    let send = |body: &str| post(&witness.address, "/add-checkpoint", body.as_bytes()).expect("an answer");
    let status = |body: &str| send(body).0;
    assert_eq!(status(&request(&stored, 0, from, small)), 200);
    let (code, head, body) = send(&request(&stored, 0, to, great));
    assert_eq!((code, body), (409, format!("{from}\n")));
    assert!(
        head.contains("content-type: text/x.tlog.size\r\n")
            || head.ends_with("content-type: text/x.tlog.size"),
        "{head}"
    );
    let good = request(&stored, from, to, great);
    let proof = good.lines().nth(1).expect("a proof");
    let zeros = BASE64.encode([0; 32]);
    assert_eq!(status(&good.replace(proof, &zeros)), 422, "a bad proof");
    assert_eq!(status(&good.replace(&format!("{proof}\n"), "")), 422, "a proof cut short");
    assert_eq!(status(&good.replace("old ", "old 0")), 400);
    assert_eq!(
        status(&format!("old {}\n\n{small}", from + 1)),
        400,
        "an old size greater than the checkpoint's"
    );
    assert_eq!(status(&format!("old 0\n\n{small}")), 409, "back to the beginning");
    assert_eq!(status(&good.replace("strongroom/", "elsewhere/")), 404);
    let signature = great.lines().last().expect("a signature");
    let forged = signature.replace(&signature[signature.len() - 12..signature.len() - 8], "AAAA");
    assert_eq!(status(&good.replace(signature, &forged)), 403, "a bad signature");
    assert_eq!(status(""), 400);
    let mut long = TcpStream::connect(&witness.address).expect("it listens");
    long.write_all(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
        .expect("sent");
    let mut answer = [0; 12];
    long.read_exact(&mut answer).expect("the answer comes before the request is complete");
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(status(&good), 200);
    assert_eq!(status(&good), 409);
    assert_eq!(status(&format!("old {to}\n\n{great}")), 200, "the same again");
    assert_eq!(post(&witness.address, "/elsewhere", b"").expect("an answer").0, 404);
    assert_eq!(crate::daemon::get(&witness.address, "/add-checkpoint", "").0, 405);
    assert_eq!(crate::daemon::get(&witness.address, "/..%2flock/checkpoint", "").0, 404);
    // Many requests at once for the same log and size: all are answered with success.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(status(&format!("old {to}\n\n{great}")), 200);
                }
            });
        }
    });
    // A second process must not use the same state folder.
    let mut second = strongroom();
    second.args(["witness", "--listen", "127.0.0.1:0", "--key"]).arg(site.path("w1.key"));
    second.arg("--state").arg(site.path("w1.state")).args(["--log", &format!("{}@x", site.public)]);
    let (_, err) = expect_code(&mut second, 2);
    assert!(err.contains("another process is using the witness state"), "{err}");
}

#[test]
fn a_witness_is_careful_about_what_it_is_given() {
    let site = Site::new();
    new_key(&site.path("w1.key"), "witness.example/w1");
    let log = format!("{}@strongroom/{}/", site.public, site.id());
    let run = |arguments: &[&str], code: i32| {
        let mut command = strongroom();
        command.args(["witness", "--state"]).arg(site.path("state")).args(arguments);
        expect_code(&mut command, code).1
    };
    let (key, own) = (site.path("w1.key").display().to_string(), site.path("key").display().to_string());
    let outside = run(&["--listen", "0.0.0.0:0", "--key", &key, "--log", &log], 1);
    assert!(outside.contains("TLS is not configured"), "{outside}");
    let forgot = run(&["--key", &key, "--log", &log], 2);
    assert!(forgot.contains("is missing; refusing to cosign") && forgot.contains("--new"), "{forgot}");
    let none = run(&["--key", &key], 1);
    assert!(none.contains("no log is named"), "{none}");
    let same = run(&["--key", &own, "--log", &log], 1);
    assert!(same.contains("signs one of the logs"), "{same}");
    run(&["--key", &key, "--log", "nonsense"], 64);
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    let wrong = run(
        &[
            "--listen",
            "0.0.0.0:0",
            "--key",
            &key,
            "--log",
            &log,
            "--tls-cert",
            &site.path("none.pem").display().to_string(),
            "--tls-key",
            &tls.join("key.pem").display().to_string(),
        ],
        1,
    );
    assert!(wrong.contains("cannot use TLS"), "{wrong}");
    // With TLS, the log trusts the given authority, and no other.
    let mut command = strongroom();
    command
        .args(["witness", "--new", "--listen", "127.0.0.1:0", "--key", &key, "--log", &log, "--state"])
        .arg(site.path("state"));
    command.arg("--tls-cert").arg(tls.join("cert.pem")).arg("--tls-key").arg(tls.join("key.pem"));
    let daemon = Daemon::spawn(command);
    let (address, vkey) = listens(&daemon);
    let port = address.rsplit(':').next().expect("a port");
    let url = format!("{vkey}@https://localhost:{port}");
    let anchor = |ca: &str, code: i32| {
        let mut command = strongroom();
        command
            .args(["sign-log", "--witness", &url, "--archive"])
            .arg(site.archive())
            .arg("--key")
            .arg(site.path("key"));
        expect_code(command.arg("--witness-ca").arg(tls.join(ca)), code).1
    };
    let refused = anchor("other-ca.pem", 1);
    assert!(refused.contains("no answer"), "{refused}");
    assert_eq!(anchor("ca.pem", 0), "");
}

#[test]
fn the_daemon_has_its_seals_cosigned() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let public = new_key(&path("key"), "strongroom");
    new_key(&path("w1.key"), "witness.example/w1");
    let vkey = expect_code(strongroom().args(["key", "show", "--witness", "--key"]).arg(path("w1.key")), 0).0;
    // The witness does not run yet: nothing listens on its address.
    let address = format!("127.0.0.1:{}", free_port());
    write(folder.path(), "audit.log", &log(500, 1));
    let rest = format!(
        "[seal]\ninterval = '200ms'\nkey_file = '{}'\n[[witness]]\nkey = '{}'\nurl = 'http://{address}'\n\
         [[tail]]\nname = 'a'\ncluster = 'test'\npaths = ['{}']\n",
        path("key").display(),
        vkey.trim(),
        path("audit.log").display()
    );
    let config = config(folder.path(), &path("archive").display().to_string(), &rest);
    let (out, _) = expect_code(strongroom().args(["config", "check"]).arg(&config), 0);
    assert!(out.contains("no mistakes"), "{out}");
    let mut daemon = Daemon::start(&config);
    daemon.wait_for_metric("sealed_events_total", 500.0);
    let labels = "{anchor=\"witness.example/w1\"}";
    wait_until("the lag is reported", || daemon.metric(&format!("anchor_lag_commits{labels}")) > 0.0);
    assert_eq!(daemon.metric(&format!("anchor_well{labels}")), 0.0);
    assert!(daemon.log().contains("no answer"), "{}", daemon.log());

    let manifest = std::fs::read(path("archive/strongroom.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let id = manifest["archive_id"].as_str().expect("an id");
    let mut witness = strongroom();
    witness.args(["witness", "--new", "--listen", &address, "--key"]).arg(path("w1.key"));
    witness.arg("--state").arg(path("state")).args(["--log", &format!("{public}@strongroom/{id}/")]);
    let witness = Daemon::spawn(witness);
    wait_until("the backlog is worked off", || daemon.metric(&format!("anchor_well{labels}")) == 1.0);
    assert_eq!(daemon.metric(&format!("anchor_lag_commits{labels}")), 0.0);
    // What is sealed now is cosigned at once.
    let mut more = std::fs::OpenOptions::new().append(true).open(path("audit.log")).expect("a log");
    more.write_all(&log(300, 2)).expect("written");
    daemon.wait_for_metric("sealed_events_total", 800.0);
    let (status, said) = daemon.terminate();
    assert!(status.success(), "{said}");
    let mut verify = strongroom();
    verify
        .args(["verify", "--public-key", &public, "--witness", vkey.trim(), "--archive"])
        .arg(path("archive"));
    let (out, _) = expect_code(&mut verify, 0);
    assert!(out.contains("no finding") && !out.contains("yet"), "{out}");

    // While the daemon is down, the archive is rewritten with the right key. The witness notices,
    // and the daemon raises an alert.
    rewrite(&names(&path("archive/events")).pop().expect("a volume"));
    let mut daemon = Daemon::start(&config);
    let contradicts = format!("anchor_contradicts{labels}");
    wait_until("the witness contradicts", || daemon.metric(&contradicts) == 1.0);
    let is_told = |line: &str| line.contains("Audit archive contradicts its witness");
    wait_until("an alert is raised", || {
        daemon.alerts.lock().expect("no panic holds it").iter().any(|(_, line)| is_told(line))
    });
    let (_, said) = daemon.terminate();
    assert!(said.contains("another history"), "{said}");
    witness.kill();
}

#[test]
fn mistakes_about_keys_and_witnesses_are_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    new_key(&path("key"), "strongroom");
    let vkey = expect_code(strongroom().args(["key", "show", "--witness", "--key"]).arg(path("key")), 0).0;
    let log = expect_code(strongroom().args(["key", "show", "--key"]).arg(path("key")), 0).0;
    let told = |rest: &str| {
        let rest = format!("{rest}\n[[tail]]\nname = 'a'\ncluster = 'c'\npaths = ['x']\n");
        let config = config(folder.path(), "x", &rest);
        expect_code(strongroom().args(["config", "check"]).arg(&config), 1).1
    };
    for (rest, expected) in [
        (
            format!("[seal]\nkey_file = '{}'", path("none").display()),
            "seal.key_file: cannot read the key file",
        ),
        (
            "[seal]\nkey_env = 'NO_SUCH_VARIABLE_HERE'".to_owned(),
            "seal.key_env: the environment has no variable",
        ),
        ("[seal]\nsigner = ['/bin/true']".to_owned(), "seal.signer: needs signer_public_key"),
        ("[seal]\nsigner = []".to_owned(), "seal.signer: must name a program"),
        (
            format!("[seal]\nkey_file = '{}'\nsigner = ['/bin/true']", path("key").display()),
            "more than one of key_file, key_env and signer",
        ),
        ("[[witness]]\nurl = 'http://127.0.0.1:1'".to_owned(), "witness[1].key: is missing"),
        (
            format!("[[witness]]\nurl = 'http://127.0.0.1:1'\nkey = '{}'", log.trim()),
            "witness[1].key: not the vkey of a witness",
        ),
        (
            format!("[[witness]]\nurl = 'ftp://x'\nkey = '{}'", vkey.trim()),
            "witness[1].url: the URL is neither",
        ),
        (
            format!("[[witness]]\nurl = 'https://x'\nkey = '{}'\nca_file = '/nowhere'", vkey.trim()),
            "witness[1].ca_file: cannot read /nowhere",
        ),
        (
            format!("[[witness]]\nurl = 'https://x'\nkey = '{}'\nretry = '1s'", vkey.trim()),
            "witness[1].retry: is not a key",
        ),
    ] {
        let said = told(&rest);
        assert!(said.contains(expected), "{rest}: {said}");
        assert!(!said.contains("PRIVATE"), "{said}");
    }
}

/// A function from the body of a request to the answer.
type Answer = Box<dyn Fn(&[u8]) -> Result<AnchorResponse, String> + Send + Sync>;

/// Takes the place of an anchor's server: the answers come from a function.
struct Says(Answer);

impl AnchorTransport for Says {
    fn post(&self, path: &str, _content_type: &str, body: Vec<u8>) -> Result<AnchorResponse, String> {
        assert_eq!(path, "add-checkpoint");
        (self.0)(&body)
    }
}

#[test]
fn answers_that_are_wrong_are_never_kept() {
    let site = Site::new();
    new_key(&site.path("w1.key"), "witness.example/w1");
    let key = || {
        let text = std::fs::read_to_string(site.path("w1.key")).expect("a key");
        PrivateKey::parse(&text).expect("a key")
    };
    let log = TrustedLog::parse(&format!("{}@strongroom/{}/", site.public, site.id())).expect("a log");
    let open = |name: &str| {
        let state = site.path(name);
        if !state.exists() {
            strongroom_proof::Witness::begin(WitnessKey::of(&key()), &state).expect("an empty folder");
        }
        strongroom_proof::Witness::open(key(), vec![log.clone()], &state).expect("a witness")
    };
    let archive = Archive::open(&site.archive().display().to_string()).expect("an archive");
    let ask = |says: Answer| {
        let witness =
            WitnessOptions { key: WitnessKey::of(&key()), transport: std::sync::Arc::new(Says(says)) };
        let outcome = Anchors::new(vec![witness], Vec::new()).round(&archive).expect("a round");
        outcome.into_iter().next().expect("one witness")
    };
    let always = |status: u16, body: &str| -> Answer {
        let body = body.as_bytes().to_vec();
        Box::new(move |_| Ok(AnchorResponse { status, body: body.clone() }))
    };
    let is_away = |trouble: &AnchorError| matches!(trouble, AnchorError::Away(_));
    let is_refused = |trouble: &AnchorError| matches!(trouble, AnchorError::Refused(_));
    let is_contradicted = |trouble: &AnchorError| matches!(trouble, AnchorError::Contradicted(_));
    for (status, body, is_it) in [
        (200, "", &is_refused as &dyn Fn(&AnchorError) -> bool),
        (200, "yes\n", &is_refused),
        (200, "\u{2014} witness.example/w1 AAAAAAAA\n", &is_refused),
        (400, "", &is_refused),
        (403, "", &is_refused),
        (404, "", &is_refused),
        (409, "", &is_refused),
        (409, "1", &is_refused),
        (409, "one\n", &is_refused),
        (409, "0\n", &is_contradicted),
        (409, "99999\n", &is_contradicted),
        (422, "", &is_contradicted),
        (429, "", &is_away),
        (500, "\u{1b}[2J", &is_away),
        (503, "", &is_away),
    ] {
        let anchored = ask(always(status, body));
        assert!(anchored.made == 0 && anchored.lag > 0, "{status} {body:?}");
        for (log, trouble) in &anchored.errors {
            assert!(is_it(trouble), "{status} {body:?}: {}: {trouble:?}", log.name());
            assert!(!trouble.to_string().contains('\u{1b}'), "{trouble}");
        }
        assert_eq!(anchored.errors.len(), 3, "all logs");
    }
    assert!(ask(Box::new(|_| Err("no route".to_owned()))).errors.iter().all(|(_, trouble)| is_away(trouble)));
    // An anchor whose answers contradict each other is not asked about other logs.
    let asked = std::sync::Arc::new(AtomicU64::new(0));
    let count = std::sync::Arc::clone(&asked);
    let fickle = move |_: &[u8]| {
        let size = 1 + count.fetch_add(1, Ordering::Relaxed) % 2;
        Ok(AnchorResponse { status: 409, body: format!("{size}\n").into_bytes() })
    };
    let anchored = ask(Box::new(fickle));
    assert!(anchored.errors.iter().all(|(_, trouble)| is_away(trouble)), "{anchored:?}");
    assert!(asked.load(Ordering::Relaxed) < 6, "the anchor is not asked about other logs after that");
    // The next answers have cosignatures by the right key, but with a time in the future, or over
    // another text.
    let now = chrono::Utc::now().timestamp().unsigned_abs();
    let of = |witness: strongroom_proof::Witness, time: u64, change: fn(&str) -> String| {
        let says = move |body: &[u8]| {
            let answer = witness.add_checkpoint(body, time);
            Ok(AnchorResponse { status: answer.status, body: change(&answer.body).into_bytes() })
        };
        Box::new(says) as Box<dyn Fn(&[u8]) -> Result<AnchorResponse, String> + Send + Sync>
    };
    let anchored = ask(of(open("future"), now + 3600, str::to_owned));
    assert!(
        anchored.errors.iter().all(|(_, trouble)| trouble.to_string().contains("from the future")),
        "{anchored:?}"
    );
    let changed = |line: &str| line.replacen("w1 ", "w1  ", 1);
    assert!(ask(of(open("spaces"), now, changed)).errors.iter().all(|(_, trouble)| is_refused(trouble)));
    assert!(
        TABLES.iter().all(|table| site.cosigned(table).is_empty()),
        "no cosignature of these answers was kept"
    );
    // Lines that strangers add to a good answer are left out.
    let more = |line: &str| format!("\u{2014} stranger AAAAAAAAAAAA\n{line}");
    let anchored = ask(of(open("good"), now, more));
    assert_eq!((anchored.made, anchored.lag, anchored.errors.len()), (3, 0, 0), "{anchored:?}");
    for table in TABLES {
        let note = std::fs::read_to_string(&site.cosigned(table)[0]).expect("a note");
        assert!(!note.contains("stranger") && note.lines().count() == 6, "{note}");
    }
    assert_eq!(site.kinds(&[&WitnessKey::of(&key()).to_string()], &[]), kinds(&[]));
}

/// OpenSSL's timestamp authority, which answers over HTTP.
struct Tsa {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Tsa {
    /// Starts the authority; `None` if OpenSSL or the Python that serves it is not installed.
    fn start(folder: &Path, kind: &str) -> Option<Tsa> {
        let python = std::env::var_os("STRONGROOM_PYTHON")?;
        let found = Command::new("openssl").arg("version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return None;
        }
        std::fs::create_dir(folder).expect("a folder");
        let mut command = Command::new(python);
        command
            .arg("tests/tools/tsa_server.py")
            .arg(folder)
            .arg(kind)
            .stdout(Stdio::piped())
            .stdin(Stdio::null());
        let mut child = command.spawn().expect("python starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the authority did not start: {line:?}"));
        Some(Tsa { child, port, folder: folder.to_owned() })
    }

    fn ca(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

impl Drop for Tsa {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn checkpoints_are_stamped_and_outsiders_agree() {
    for kind in ["ec", "rsa"] {
        let site = Site::new();
        let Some(tsa) = Tsa::start(&site.path("tsa"), kind) else { return };
        let stamp = |path: &str, ca: &str, code: i32| {
            let mut command = strongroom();
            command.args(["sign-log", "--archive"]).arg(site.archive()).arg("--key").arg(site.path("key"));
            command.args([
                "--timestamp",
                &format!("http://127.0.0.1:{}/{path}", tsa.port),
                "--tsa-ca",
                &tsa.ca(ca),
            ]);
            expect_code(&mut command, code).1
        };
        let stamps = |table: &str| names(&site.volume(table).join("_tlog/timestamp"));
        // Each of these answers must be refused, and no token in them may be kept.
        for (path, ca, expected) in [
            ("foreign", "ca.pem", "does not lead to a trusted authority"),
            ("web", "ca.pem", "not for timestamps only"),
            ("refuse", "ca.pem", "timestamp not granted"),
            ("broken", "ca.pem", "not a TimeStampResp"),
            ("good", "other.pem", "does not lead to a trusted authority"),
        ] {
            let said = stamp(path, ca, 1);
            assert!(
                said.contains("timestamp authority 127.0.0.1") && said.contains(expected),
                "{path}: {said}"
            );
            assert!(TABLES.iter().all(|table| stamps(table).is_empty()), "{path}");
        }
        assert_eq!(site.kinds(&[], &["--tsa-ca", &tsa.ca("ca.pem")]), kinds(&["timestamp_missing"]));
        // An authority that replays an earlier answer. First that answer is over another
        // checkpoint. Then it is over the right one, but has the nonce of an earlier request.
        let said = stamp("replay", "ca.pem", 1);
        assert!(said.contains("it is over other bytes"), "{said}");
        let kept: Vec<PathBuf> = TABLES.iter().flat_map(|table| stamps(table)).collect();
        assert_eq!(kept.len(), 1, "the first answer was asked for");
        std::fs::remove_file(&kept[0]).expect("removed");
        let said = stamp("replay", "ca.pem", 1);
        assert!(said.contains("a nonce that was not requested"), "{said}");
        assert!(TABLES.iter().all(|table| stamps(table).is_empty()));

        assert_eq!(stamp("good", "ca.pem", 0), "");
        assert_eq!(site.kinds(&[], &["--tsa-ca", &tsa.ca("ca.pem")]), kinds(&[]));
        assert_eq!(site.kinds(&[], &[]), kinds(&[]));
        assert_eq!(
            site.kinds(&[], &["--tsa-ca", &tsa.ca("other.pem")]),
            kinds(&["timestamp_signature", "timestamp_missing"])
        );
        for table in TABLES {
            let [token] = &stamps(table)[..] else { panic!("{table}: one timestamp") };
            let name = token.file_name().expect("a name").to_string_lossy().into_owned();
            let checkpoint = site.volume(table).join("_tlog/checkpoint").join(&name[..29]);
            let mut openssl = Command::new("openssl");
            openssl.args(["ts", "-verify", "-token_in", "-in"]).arg(token).arg("-data").arg(&checkpoint);
            expect_code(openssl.args(["-CAfile", &tsa.ca("ca.pem")]), 0);
        }
        // A second run requests no timestamp.
        assert_eq!(stamp("good", "ca.pem", 0), "");
        assert_eq!(stamps("events").len(), 1);
        site.seal(2);
        assert_eq!(stamp("good", "ca.pem", 0), "");
        assert_eq!(stamps("events").len(), 2);

        let asked = ["--tsa-ca", &tsa.ca("ca.pem")];
        let [one, other] = [stamps("events")[1].clone(), stamps("rejects")[1].clone()];
        let good = std::fs::read(&one).expect("a token");
        let put = |bytes: &[u8]| {
            std::fs::remove_file(&one).expect("the file or folder was there");
            std::fs::write(&one, bytes).expect("written");
        };
        put(&std::fs::read(other).expect("a token"));
        assert_eq!(site.kinds(&[], &asked), kinds(&["timestamp_imprint"]));
        put(&good[..good.len() - 1]);
        assert_eq!(site.kinds(&[], &asked), kinds(&["timestamp_malformed"]));
        let mut changed = good.clone();
        *changed.last_mut().expect("not empty") ^= 1;
        put(&changed);
        assert_eq!(site.kinds(&[], &asked), kinds(&["timestamp_signature"]));
        // The time in a token is changed to an earlier one.
        let at = good.windows(4).position(|four| four == b"\x18\x0f20").expect("genTime") + 4;
        let mut earlier = good.clone();
        earlier[at] = b'0';
        put(&earlier);
        assert_eq!(site.kinds(&[], &asked), kinds(&["timestamp_signature"]));
        put(&good);
        assert_eq!(site.kinds(&[], &asked), kinds(&[]));
    }
}

#[test]
fn the_daemon_has_its_seals_stamped() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let Some(tsa) = Tsa::start(&path("tsa"), "ec") else { return };
    new_key(&path("key"), "strongroom");
    write(folder.path(), "audit.log", &log(300, 1));
    let rest = format!(
        "[seal]\ninterval = '200ms'\nkey_file = '{}'\n[[timestamp]]\nurl = 'http://127.0.0.1:{}/good'\ntsa_ca_file = '{}'\n\
         [[tail]]\nname = 'a'\ncluster = 'test'\npaths = ['{}']\n",
        path("key").display(),
        tsa.port,
        tsa.ca("ca.pem"),
        path("audit.log").display()
    );
    let config = config(folder.path(), &path("archive").display().to_string(), &rest);
    let mut daemon = Daemon::start(&config);
    daemon.wait_for_metric("sealed_events_total", 300.0);
    let labels = "{anchor=\"127.0.0.1\"}";
    wait_until("it is stamped", || daemon.metric(&format!("anchor_made_total{labels}")) > 0.0);
    // Another seal follows soon. It gets no timestamp, because a log gets at most one per hour.
    let made = daemon.metric(&format!("anchor_made_total{labels}"));
    let mut more = std::fs::OpenOptions::new().append(true).open(path("audit.log")).expect("a log");
    more.write_all(&log(200, 2)).expect("written");
    daemon.wait_for_metric("sealed_events_total", 500.0);
    let (status, said) = daemon.terminate();
    assert!(status.success(), "{said}");
    let year = names(&path("archive/events")).pop().expect("a volume");
    assert!(made >= 1.0 && names(&year.join("_tlog/timestamp")).len() == 1, "{made}");
    assert!(names(&year.join("_tlog/checkpoint")).len() > 1);
    let mut verify = strongroom();
    verify.args(["verify", "--tsa-ca", &tsa.ca("ca.pem"), "--archive"]).arg(path("archive"));
    let (out, _) = expect_code(&mut verify, 0);
    assert!(out.contains("no finding") && out.contains("the newest timestamp is of size"), "{out}");
}

/// Gives `tlog_tiles` the tiles of a volume's log.
struct Tiles(PathBuf);

impl TileReader for Tiles {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = tiles.iter().map(|tile| {
            // The crate's names are `tile/<height>/<level>/…`. The specification (tlog-tiles) has
            // no height in them.
            let path = tile.path().replacen("tile/8/", "tile/", 1);
            std::fs::read(self.0.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"))
        });
        Ok(read.collect())
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

#[test]
fn crates_of_others_read_the_log() {
    let site = Site::new();
    let witness = Witness::start(&site, "w1");
    for seed in 2..5 {
        site.seal(seed);
    }
    site.anchor(&[&witness.url()], 0);
    let public = BASE64.decode(site.public.splitn(3, '+').nth(2).expect("a key")).expect("base64");
    for table in TABLES {
        let (origin, volume) = (site.origin(table), site.volume(table));
        let id = Sha256::digest([origin.as_bytes(), b"\n", &public].concat());
        let vkey = format!("{origin}+{}+{}", hex(&id[..4]), BASE64.encode(&public));
        let verifier = StandardVerifier::new(&vkey).expect("a vkey of the log");
        let known = VerifierList::new(vec![Box::new(verifier)]);
        let mut checkpoints = names(&volume.join("_tlog/checkpoint"));
        let of_witnesses = names(&volume.join("_tlog/witness"));
        assert_eq!((checkpoints.len(), of_witnesses.len()), (4, 1), "{table}");
        checkpoints.extend(of_witnesses);
        let tiles = Tiles(volume.join("_tlog"));
        for path in checkpoints {
            let bytes = std::fs::read(&path).expect("a note");
            let note = Note::from_bytes(&bytes).expect("a signed note");
            let (verified, unknown) = note.verify(&known).expect("signed by the log");
            assert_eq!(verified.len(), 1);
            assert_eq!(unknown.len(), usize::from(path.to_string_lossy().contains("/witness/")));
            let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).expect("a checkpoint");
            assert_eq!(checkpoint.origin(), origin);
            let (size, root) = (checkpoint.size(), *checkpoint.hash());
            // This reader returns a hash only after it has checked that the hash is in the tree.
            let reader = TileHashReader::new(size, root, &tiles);
            for index in 0..size {
                let commit =
                    std::fs::read(volume.join(format!("_delta_log/{index:020}.json"))).expect("a commit");
                let proof = tlog_tiles::prove_record(size, index, &reader).expect("a proof");
                let leaf = tlog_tiles::record_hash(&commit);
                tlog_tiles::check_record(&proof, size, root, index, leaf).expect("included");
            }
            assert!(reader.read_hashes(&[0]).is_ok());
        }
    }
}

#[test]
fn programs_of_others_read_the_log_and_cosign_it() {
    // ./tests/run installs the independent programs and sets this variable. Without it, this test
    // does nothing.
    let Some(python) = std::env::var_os("STRONGROOM_PYTHON") else { return };
    let site = Site::new();
    let ours = Witness::start(&site, "w1");
    let theirs = Aics::start(&python, &site);
    site.anchor(&[&ours.url(), &theirs.url], 0);
    for seed in 2..4 {
        site.seal(seed);
        assert_eq!(site.anchor(&[&ours.url(), &theirs.url], 0), "");
    }
    // The archive loses its cosignatures. They are requested again, although both witnesses have
    // given them before.
    for path in site.cosigned("events") {
        std::fs::remove_file(path).expect("removed");
    }
    assert_eq!(site.anchor(&[&ours.url(), &theirs.url], 0), "");
    let their_vkey = theirs.url.split('@').next().expect("a vkey");
    assert_eq!(site.kinds(&[&ours.vkey, their_vkey], &[]), kinds(&[]));
    for table in TABLES {
        let public = BASE64.decode(site.public.splitn(3, '+').nth(2).expect("a key")).expect("base64");
        let mut read = Command::new(&python);
        read.arg("tests/tools/tlog_outsider.py").arg(site.volume(table)).arg(site.origin(table));
        read.arg(BASE64.encode(&public[1..])).args([ours.vkey.as_str(), their_vkey]);
        let (out, _) = expect_code(&mut read, 0);
        let said: Value = serde_json::from_str(&out).expect("JSON");
        let cosigned = if table == "events" { 2 } else { 6 };
        assert_eq!((&said["heads"], &said["cosigned"]), (&3.into(), &cosigned.into()), "{table}: {said}");
    }
    // The independent witness also detects a second history, and reports it in its own words.
    rewrite(&site.volume("events"));
    for path in site.cosigned("events") {
        std::fs::remove_file(path).expect("removed");
    }
    let said = site.anchor(&[&theirs.url], 1);
    assert!(said.contains("another history"), "{said}");
}

/// An independent witness.
struct Aics {
    child: Child,
    url: String,
}

impl Aics {
    fn start(python: &std::ffi::OsStr, site: &Site) -> Aics {
        let config = site.path("aics.json");
        let aics = || {
            let mut command = Command::new(python);
            command
                .args(["-m", "aics_witness"])
                .env_remove("WITNESS_SEED_HEX")
                .current_dir(site.folder.path());
            command
        };
        let mut init = aics();
        init.args(["init", "--name", "witness.example/other", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config);
        expect_code(&mut init, 0);
        let public = BASE64.decode(site.public.splitn(3, '+').nth(2).expect("a key")).expect("base64");
        for table in TABLES {
            let origin = site.origin(table);
            let id = Sha256::digest([origin.as_bytes(), b"\n", &public].concat());
            let vkey = format!("{origin}+{}+{}", hex(&id[..4]), BASE64.encode(&public));
            let mut add = aics();
            add.args(["add-log", "--origin", &origin, "--vkey", &vkey, "--config"]).arg(&config);
            expect_code(&mut add, 0);
        }
        let mut status = aics();
        status.args(["status", "--json", "--config"]).arg(&config);
        let (out, _) = expect_code(&mut status, 0);
        let status: Value = serde_json::from_str(&out).expect("JSON");
        let vkey =
            status["vkey"].as_str().or(status["witness"]["vkey"].as_str()).unwrap_or_else(|| panic!("{out}"));
        let address = format!("127.0.0.1:{}", free_port());
        let mut serve = aics();
        serve
            .args(["serve", "--listen", &address, "--config"])
            .arg(&config)
            .stderr(Stdio::piped())
            .stdout(Stdio::null());
        let mut child = serve.spawn().expect("python starts");
        let err = child.stderr.take().expect("piped");
        // Its output is read, so that it never blocks on us.
        std::thread::Builder::new()
            .name("aics".to_owned())
            .spawn(move || BufReader::new(err).lines().map_while(Result::ok).for_each(drop))
            .expect("a thread");
        wait_until("the other witness listens", || TcpStream::connect(&address).is_ok());
        Aics { child, url: format!("{vkey}@http://{address}") }
    }
}

impl Drop for Aics {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
