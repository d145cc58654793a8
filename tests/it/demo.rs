//! `strongroom demo` does what it promises a newcomer: it shows that every step works, says what to
//! type next, and writes to one folder only.

use std::collections::BTreeSet;
use std::fs;

use strongroom_alerts::RuleSet;
use strongroom_generate::PlantedAttack;

use crate::run::{expect_code, export, ingest, number, strongroom};

/// Number of events: enough for all attacks and for some everyday activity. They take a second or
/// two.
const EVENTS: &str = "20000";

#[test]
fn demo_finds_all_attacks_keeps_all_bytes_and_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("shown");
    let demo = || {
        let mut command = strongroom();
        command.args(["demo", "--events", EVENTS, "--dir"]).arg(&dir);
        command
    };
    let (first, _) = expect_code(&mut demo(), 0);
    assert!(first.contains("18 of 18 attacks found."), "{first}");
    assert!(!first.contains('✗'), "{first}");
    assert!(first.contains("20,000 records were restored to the original"), "{first}");
    assert_eq!(first.matches(" rows in ").count(), 3, "three questions are answered: {first}");
    let next = first.split_once("Now try it yourself").expect("the next commands are printed").1;
    for command in ["sql", "query", "export", "ingest"] {
        assert!(next.contains(&format!(" {command} ")), "{command} is not among {next}");
    }
    let archive = dir.join("archive");
    assert_eq!(number(&archive, "SELECT count(*) AS n FROM events"), 20_000);
    assert!(export(&archive) == fs::read(dir.join("audit.log")).expect("the log"), "the export differs");

    // The printed commands work: the same file again adds nothing.
    let (_, told) = expect_code(
        strongroom()
            .args(["ingest", "--cluster", "clinic", "--archive"])
            .arg(&archive)
            .arg(dir.join("audit.log")),
        0,
    );
    assert!(told.contains("nothing new"), "{told}");

    // A second demonstration replaces the first, and shows the same alerts.
    let (second, _) = expect_code(&mut demo(), 0);
    let alerts = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains(" · alert ")).map(str::to_owned).collect()
    };
    assert!(!alerts(&first).is_empty());
    assert_eq!(alerts(&first), alerts(&second));
    let left: BTreeSet<_> = fs::read_dir(&dir)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(
        left,
        [".strongroom-demo", "archive", "audit.log", "audit.log.truth.jsonl"].map(String::from).into()
    );
}

#[test]
fn demo_replaces_only_its_own_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("audit.log");
    fs::write(&kept, "mine\n").expect("a file");
    let (out, err) = expect_code(strongroom().args(["demo", "--dir"]).arg(folder.path()), 1);
    assert_eq!(out, "");
    assert!(err.contains("not made by an earlier demonstration") && err.contains("--dir"), "{err}");
    assert_eq!(fs::read_to_string(&kept).expect("still there"), "mine\n");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1, "nothing was added");
}

#[test]
fn generate_writes_the_same_log_to_a_file_a_pipe_and_as_lists() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let generate = |more: &[&str]| {
        let mut command = strongroom();
        command.args(["generate", "--events", "3000", "--seed", "9", "--attacks"]).args(more);
        command
    };
    let file = path("audit.log");
    let (out, told) = expect_code(generate(&["--output"]).arg(&file), 0);
    assert_eq!(out, "");
    let beside = path("audit.log.truth.jsonl");
    assert!(told.contains(&*beside.to_string_lossy()), "the output does not say where the truth is: {told}");
    let (piped, told) = expect_code(&mut generate(&[]), 0);
    assert!(told.contains("--ground-truth"), "{told}");
    assert!(piped.as_bytes() == fs::read(&file).expect("the log"), "file and pipe differ");
    assert_eq!(piped.lines().count(), 3_000);

    let named = path("truth");
    expect_code(generate(&["--ground-truth"]).arg(&named), 0);
    assert_eq!(
        fs::read(&named).expect("the file with the truth"),
        fs::read(&beside).expect("the file with the truth")
    );

    // The same events are written as lists and ingested into another archive. Queries have the same
    // answers there.
    let lists = path("lists.log");
    expect_code(generate(&["--shape", "list", "--output"]).arg(&lists), 0);
    let (from_lines, from_lists) = (path("a"), path("b"));
    expect_code(&mut ingest(&from_lines, &[&file]), 0);
    expect_code(&mut ingest(&from_lists, &[&lists]), 0);
    for sql in [
        "SELECT count(*) AS n FROM events",
        "SELECT count(DISTINCT audit_id) AS n FROM events",
        "SELECT count(request_object) AS n FROM events",
        "SELECT count(*) AS n FROM alerts",
    ] {
        assert_eq!(number(&from_lines, sql), number(&from_lists, sql), "{sql}");
    }
    assert!(export(&from_lists) == fs::read(&lists).expect("the lists"), "the export of lists differs");

    let (_, err) = expect_code(strongroom().args(["generate", "--events", "10", "--attacks"]), 1);
    assert!(err.contains("2000 are needed") && !err.contains("panicked"), "{err}");
}

/// The ground truth of a generated log names the rules that must find its attacks. A name that no
/// rule has would go unnoticed without this test.
#[test]
fn the_ground_truth_names_existing_rules() {
    let folder = tempfile::tempdir().expect("a folder");
    let truth = folder.path().join("truth");
    let mut command = strongroom();
    expect_code(command.args(["generate", "--events", "2000", "--attacks", "--ground-truth"]).arg(&truth), 0);
    let rules = RuleSet::builtin().expect("the built-in rules compile");
    let names: BTreeSet<&str> = rules.rules().iter().map(|rule| rule.name.as_str()).collect();
    let text = fs::read_to_string(&truth).expect("the file with the truth");
    for line in text.lines() {
        let attack: PlantedAttack = serde_json::from_str(line).expect("one JSON object per line");
        assert!(!attack.rules.is_empty(), "{}", attack.story);
        for rule in &attack.rules {
            assert!(names.contains(rule.as_str()), "{}: no rule is named {rule}", attack.story);
        }
    }
}
