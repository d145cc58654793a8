//! Commits that a wrong clock dated can be explained in a signed record. Both verifiers then judge by
//! it, refuse a forged one, and nothing is dropped earlier because of one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{Datelike as _, Days, SecondsFormat, Utc};
use serde_json::Value;

use crate::proof::{Site, new_key, public_of, replace, second_opinion, verify};
use crate::retention::at_days;
use crate::run::{expect_code, log, strongroom, write};

/// Days that the clock is ahead: into a later year, whatever the day.
const AHEAD: u64 = 800;
/// Days that the clock is behind: longer than anything is kept.
const BEHIND: u64 = 8 * 365;

fn site() -> Site {
    let site = Site { folder: tempfile::tempdir().expect("a folder") };
    new_key(&site.key());
    site
}

fn ingest(site: &Site, name: &str, seed: u64) -> Command {
    let bytes = [&b"this is no event\n"[..], &log(5_000, seed)].concat();
    let path = write(site.folder.path(), name, &bytes);
    let mut command = crate::run::ingest(&site.archive(), &[&path]);
    command.arg("--key").arg(site.key()).args(["--complete", "--clock-is-right"]);
    command
}

/// The kinds of findings, of both verifiers, and what was not checked.
fn judged(site: &Site) -> (BTreeSet<String>, String) {
    let public = public_of(&site.key());
    let (ours, report) = verify(&site.archive(), Some(&public), &[]);
    let said = |report: &Value| {
        let said = report["not_checked"].as_array().expect("a list").iter();
        said.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    };
    if let Ok(second) = std::env::var("STRONGROOM_VERIFIER") {
        let (theirs, their) = second_opinion(&second, site, &public, &[]);
        assert_eq!(theirs, ours, "{their:#}\n{report:#}");
        let excuses = |text: &str| text.lines().filter(|line| line.contains("of a wrong clock")).count();
        assert_eq!(excuses(&said(&their)), excuses(&said(&report)), "{their:#}\n{report:#}");
    }
    (ours, said(&report))
}

fn kinds(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The numbers of the commits of each table's one volume.
fn volumes(site: &Site) -> Vec<(String, usize)> {
    let tables = ["events", "rejects", "alerts"];
    let name = |table: &str| {
        let folder = std::fs::read_dir(site.archive().join(table)).expect("a table");
        let volume = folder.map(|entry| entry.expect("an entry").file_name()).next().expect("a volume");
        format!("{table}/{}", volume.to_string_lossy())
    };
    tables.iter().map(|table| (name(table), site.commits(table).len())).collect()
}

fn explain(site: &Site, volume: &str, commits: &str, made: &[String]) -> Command {
    let mut command = strongroom();
    command.args(["archive", "explain-clock", "--volume", volume, "--commits", commits, "--archive"]);
    command.arg(site.archive()).args(["--reason", "the battery was empty", "--key"]).arg(site.key());
    command.args(made);
    command
}

fn between(from: chrono::DateTime<Utc>, to: chrono::DateTime<Utc>) -> Vec<String> {
    let text = |time: chrono::DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    vec!["--made-from".to_owned(), text(from), "--made-to".to_owned(), text(to)]
}

fn record(site: &Site, number: u64) -> PathBuf {
    site.archive().join(format!("_clock/{number:08}"))
}

fn forge(path: &Path, change: impl Fn(&str) -> String) -> Vec<u8> {
    let before = std::fs::read(path).expect("a record");
    replace(path, change(&String::from_utf8_lossy(&before)).as_bytes());
    before
}

#[test]
fn commits_of_a_clock_that_was_ahead_are_explained() {
    let site = site();
    let begun = Utc::now();
    let ahead = i64::try_from(AHEAD).expect("small");
    expect_code(at_days(&mut ingest(&site, "ahead.log", 7), site.folder.path(), ahead), 1);
    let wrong = volumes(&site);
    let year = begun.checked_add_days(Days::new(AHEAD)).expect("a date").year();
    assert!(wrong.iter().all(|(name, _)| name.ends_with(&format!("/{year}"))), "{wrong:?}");
    expect_code(&mut ingest(&site, "right.log", 8), 1);
    let ended = Utc::now();
    let (found, _) = judged(&site);
    assert_eq!(found, kinds(&["clock_back", "wrong_year"]));

    // What cannot be said.
    let now = between(begun, ended);
    for (made, commits) in [
        (between(ended, begun), "0-1"),
        (between(begun, ended + Days::new(1)), "0-1"),
        (now.clone(), "0-999"),
    ] {
        expect_code(&mut explain(&site, &wrong[0].0, commits, &made), 1);
    }
    expect_code(&mut explain(&site, "events/2099", "0-1", &now), 1);
    expect_code(explain(&site, &wrong[0].0, "0-1", &now).args(["--made-unknown"]), 64);
    let unsigned = "--key";
    let mut without = strongroom();
    without.args(["archive", "explain-clock", "--volume", &wrong[0].0, "--commits", "0", "--made-unknown"]);
    let (_, err) = expect_code(without.args(["--reason", "r", "--archive"]).arg(site.archive()), 1);
    assert!(err.contains(unsigned), "{err}");
    assert!(!site.archive().join("_clock").exists());

    // Each table has its own commits.
    for (number, (volume, size)) in (1..).zip(&wrong) {
        let commits = format!("0-{}", size - 1);
        let (out, _) = expect_code(&mut explain(&site, volume, &commits, &now), 0);
        assert!(out.starts_with(&format!("recorded: number {number}")), "{out}");
        let (again, _) = expect_code(&mut explain(&site, volume, &commits, &now), 0);
        assert!(again.starts_with(&format!("recorded before: number {number}")), "{again}");
    }
    let (found, said) = judged(&site);
    assert_eq!(found, kinds(&[]), "{said}");
    for (volume, size) in &wrong {
        let excuse = format!("{volume}: the times of commits 0 to {} are of a wrong clock", size - 1);
        assert!(said.contains(&excuse), "{said}");
    }
    // What is sealed later is judged as before, and is well.
    expect_code(&mut ingest(&site, "later.log", 9), 1);
    assert_eq!(judged(&site).0, kinds(&[]));

    // Forged records are refused, and excuse nothing.
    let path = record(&site, 1);
    type Forgery<'f> = (&'f str, &'f dyn Fn(&str) -> String);
    let forgeries: [Forgery<'_>; 4] = [
        ("without its signature", &|text| text.split("\n\n").next().expect("a text").to_owned() + "\n"),
        ("about another commit", &|text| text.replace(" 0 ", " 1 ")),
        ("with another reason", &|text| text.replace("battery", "clock")),
        ("cut", &|text| text[..text.len() / 2].to_owned()),
    ];
    for (what, forgery) in forgeries {
        let before = forge(&path, forgery);
        let (found, said) = judged(&site);
        assert_eq!(found, kinds(&["clock_back", "clock_record", "wrong_year"]), "{what}: {said}");
        replace(&path, &before);
    }
    // A record of this archive under another number, and a name that is not a record's.
    let stray = site.archive().join("_clock/00000005");
    std::fs::copy(&path, &stray).expect("copied");
    assert_eq!(judged(&site).0, kinds(&["clock_record"]));
    std::fs::remove_file(&stray).expect("removed");
    // Commits that are no longer those that were explained.
    let commit = site.commits("events").remove(1);
    let before = forge(&commit, |text| text.replacen("WRITE", "WRITe", 1));
    let (found, _) = verify(&site.archive(), Some(&public_of(&site.key())), &[]);
    assert!(found.contains("clock_record") && found.contains("commit_changed"), "{found:?}");
    replace(&commit, &before);
    assert_eq!(judged(&site).0, kinds(&[]));
}

#[test]
fn an_explanation_makes_retention_longer_and_never_shorter() {
    let site = site();
    let behind = i64::try_from(BEHIND).expect("small");
    expect_code(at_days(&mut ingest(&site, "behind.log", 7), site.folder.path(), -behind), 1);
    let volumes = volumes(&site);
    let (volume, size) = &volumes[0];
    let status = |name: &str| -> Value {
        let mut command = strongroom();
        command.args(["retention", "status", "--json", "--archive"]).arg(site.archive());
        let (out, _) = expect_code(&mut command, 0);
        let status: Value = serde_json::from_str(&out).expect("a document");
        let all = status["volumes"].as_array().expect("a list");
        all.iter().find(|volume| volume["volume"] == name).expect("the volume").clone()
    };
    let drop = |volume: &str| {
        let mut command = strongroom();
        command.args([
            "retention",
            "drop",
            "--volume",
            volume,
            "--confirm",
            volume,
            "--reason",
            "r",
            "--archive",
        ]);
        command.arg(site.archive()).args(["--clock-is-right", "--key"]).arg(site.key());
        command
    };
    assert_eq!(status(volume)["past"], true, "it looks as old as its clock said");
    let now = Utc::now();
    let commits = format!("0-{}", size - 1);
    expect_code(&mut explain(&site, volume, &commits, &between(now - Days::new(1), now)), 0);
    let until = |name: &str| status(name)["until"].as_str().expect("a time").to_owned();
    let promised = until(volume);
    assert_eq!(promised[..4], (now.year() + 6).to_string()[..4], "{promised}");
    assert_eq!(status(volume)["past"], false);
    let (_, err) = expect_code(&mut drop(volume), 1);
    assert!(err.contains("cannot be dropped"), "{err}");
    // To say that they are older takes nothing back.
    let long_ago = now - Days::new(BEHIND);
    expect_code(&mut explain(&site, volume, &commits, &between(long_ago, long_ago)), 0);
    assert_eq!(until(volume), promised);
    expect_code(&mut drop(volume), 1);
    assert_eq!(judged(&site).0, kinds(&[]));
    // Commits of which nobody knows when they were made are as old as the record.
    let (other, size) = &volumes[2];
    assert_eq!(status(other)["past"], true);
    expect_code(&mut explain(&site, other, &format!("0-{}", size - 1), &["--made-unknown".to_owned()]), 0);
    assert_eq!(status(other)["past"], false);
    // What nobody has explained is past its time, and can be dropped.
    expect_code(&mut drop(&volumes[1].0), 0);
    assert_eq!(judged(&site).0, kinds(&[]));
    // An invalid record keeps everything.
    forge(&record(&site, 1), |text| text.replace("battery", "clock"));
    expect_code(&mut drop(other), 2);
}
