//! Names that a client of the cluster chose, and names of files, reach a terminal only as text.
//! They do not move the cursor, set the title, or change the order of characters. A file or a pipe
//! gets every byte.
//!
//! Method: `script` runs a command at a terminal of its own, and writes down what arrives there.

use std::path::Path;
use std::process::Command;

use crate::run::{expect_code, output, strongroom, write};

/// A name with characters that control a terminal: a new title, a bell, a return, C1 codes, marks
/// that change the order of characters, a delete and a tag.
const HOSTILE: &str = "eve\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{9b}31m\u{202e}gpj\u{2066}\u{7f}\u{e0041}\u{85}";

/// A rule that has hits in the log of this test.
const RULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/alerts/rules/rbac-cluster-admin-binding.yml");

/// Returns what a command writes to a terminal.
fn shown(words: &[&str]) -> String {
    let quoted: Vec<String> = [env!("CARGO_BIN_EXE_strongroom")]
        .iter()
        .chain(words)
        .map(|word| format!("'{}'", word.replace('\'', "'\\''")))
        .collect();
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &quoted.join(" "), "/dev/null"]).env("TERM", "xterm-256color");
    for name in ["NO_COLOR", "CLICOLOR", "STRONGROOM_ARCHIVE"] {
        script.env_remove(name);
    }
    String::from_utf8(output(&mut script).stdout).expect("a terminal gets UTF-8")
}

/// Returns `text` without the control characters of the program itself: line ends and colours.
fn of_others(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let mut pieces = text.split("\u{1b}[");
    let mut rest = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_once('m') {
            Some((colour, after)) if colour.chars().all(|c| c.is_ascii_digit() || c == ';') => rest += after,
            // The progress bar and the cursor of the program's own lines.
            _ => rest += &format!("\u{1b}[{piece}"),
        }
    }
    rest
}

fn is_harmless(text: &str) -> Result<(), char> {
    let harmful = |c: &char| {
        (c.is_control() && *c != '\n' && *c != '\t')
            || matches!(*c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}')
    };
    match text.chars().find(harmful) {
        Some(c) => Err(c),
        None => Ok(()),
    }
}

fn log(folder: &Path) -> std::path::PathBuf {
    let user = serde_json::to_string(HOSTILE).expect("JSON");
    let lines: String = (0..3)
        .map(|at| {
            format!(
                r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"{at}","stage":"ResponseComplete","requestURI":"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings","verb":"create","user":{{"username":{user}}},"sourceIPs":["10.0.0.9"],"userAgent":{user},"objectRef":{{"resource":"clusterrolebindings","name":{user},"apiGroup":"rbac.authorization.k8s.io","apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":201}},"requestObject":{{"roleRef":{{"kind":"ClusterRole","name":"cluster-admin"}},"subjects":[{{"kind":"User","name":{user}}}]}},"requestReceivedTimestamp":"2026-03-02T09:14:05.120934Z","stageTimestamp":"2026-03-02T09:14:05.130934Z"}}"#,
            ) + "\n"
        })
        .collect();
    write(folder, "audit.log", lines.as_bytes())
}

#[test]
fn nothing_that_a_client_chose_controls_a_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log(folder.path());
    let archive = folder.path().join("archive").display().to_string();
    let ingested =
        shown(&["ingest", "-q", "--cluster", "c", "--archive", &archive, &log.display().to_string()]);
    assert!(ingested.contains("cluster-admin granted"), "no alert: {ingested:?}");
    let sql = "SELECT user_name, user_agent, name FROM events";
    let mut all = vec![("ingest".to_owned(), ingested)];
    for format in ["table", "csv", "json", "json-array"] {
        let words = ["query", "-q", "--format", format, "--archive", &archive, sql];
        let piped = output(strongroom().args(words));
        assert!(piped.status.success(), "{format}: {}", String::from_utf8_lossy(&piped.stderr));
        all.push((format.to_owned(), shown(&words)));
    }
    all.push(("export".to_owned(), shown(&["export", "--archive", &archive])));
    all.push(("hunt".to_owned(), shown(&["hunt", "--archive", &archive, "--rule", RULE])));
    all.push((
        "no such value".to_owned(),
        shown(&["query", "--archive", &archive, &format!("SELECT '{HOSTILE}' + 1, x")]),
    ));
    for (what, text) in &all {
        assert_eq!(is_harmless(&of_others(text)), Ok(()), "{what}: {text:?}");
        assert!(text.contains("eve") || what == "no such value", "{what} shows no value: {text:?}");
    }
    // A pipe gets every byte.
    let exported = output(strongroom().args(["export", "--archive", &archive]));
    assert_eq!(exported.stdout, std::fs::read(&log).expect("read"));
    let (csv, _) =
        expect_code(strongroom().args(["query", "-q", "--format", "csv", "--archive", &archive, sql]), 0);
    assert!(csv.contains("\u{9b}31m\u{202e}"), "{csv:?}");
}

#[test]
fn no_name_of_a_file_controls_a_terminal_or_begins_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("archive").display().to_string();
    let name = format!("a.log{HOSTILE}\nerror: all is well");
    let missing = folder.path().join(&name).display().to_string();
    for words in [
        vec!["ingest", "--cluster", "c", "--archive", &archive, &missing],
        vec!["query", "--archive", &missing, "SELECT 1"],
        vec!["config", "check", &missing],
        vec!["verify", "--archive", &missing],
        vec!["rules", "lint", &missing],
        vec!["query", "--archive", &archive, "-f", &missing],
    ] {
        let text = shown(&words);
        assert_eq!(is_harmless(&of_others(&text)), Ok(()), "{words:?}: {text:?}");
        assert!(!text.contains("\nerror: all is well"), "{words:?}: {text:?}");
        let piped = output(strongroom().args(&words));
        let err = String::from_utf8_lossy(&piped.stderr).into_owned();
        assert!(!err.contains("\nerror: all is well"), "{words:?}: {err:?}");
    }
}
