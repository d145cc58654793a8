//! The kinds of findings are the same everywhere: in `FindingKind`, in the table of docs/proof.md
//! and in `FINDING_KINDS` of tools/verify.py. Each verifier that the table names for a kind can
//! report this kind, and has a test that tampers with something and expects the kind.
//!
//! Method: the sources are searched for the names of kinds in quotes. A quoted name does not count
//! as a kind if it is an index (`row["path"]`), a member (`"path": …`), or on a line that defines a
//! constant.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use strongroom_proof::verify::FindingKind;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The names of the three verifiers in the table of docs/proof.md.
const VERIFY: &str = "verify";
const EVIDENCE_CHECK: &str = "evidence check";
const VERIFY_PY: &str = "verify.py";

/// The program of the first two verifiers. It and `verify.py` each have tests of their own.
const PROGRAM: &str = "strongroom";

/// Kinds that a program can report but no test of it provokes: the kind, the program and the
/// reason. If a test for the kind exists, the entry is stale, and the test below fails.
const NOT_TAMPERED: &[(&str, &str, &str)] = &[
    (
        "file_unreadable",
        PROGRAM,
        "a store must refuse to give a file that it has; tests may read every file on a disk",
    ),
    (
        "witness_signature",
        PROGRAM,
        "tlog/src/cosignature.rs tests the check of a forged cosignature, and tools/test_verify.py its report",
    ),
];

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the Rust files below the crates' folders and `tests/it`. This file is left out, because
/// it names kinds in its lists.
fn rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(ROOT).expect("the root is readable");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("src").is_dir() || path.ends_with("cli") || path.ends_with("tests"))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with(file!())
            {
                found.push(path.strip_prefix(ROOT).expect("below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn is_test(path: &Path) -> bool {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.iter().any(|part| part == "tests" || part == "tests.rs" || part.ends_with("_test.rs"))
}

/// Returns the kinds in the table of docs/proof.md, each with the verifiers that report it.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("docs/proof.md");
    let (_, section) = text.split_once("\n## Kinds of findings\n").expect("docs/proof.md has the section");
    let section = section.split("\n## ").next().expect("a first piece");
    let mut kinds = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [kind, what, by] = cells[..] else { panic!("a row has three cells: {row}") };
        assert!(!what.is_empty(), "{row}");
        let by = by.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
        assert!(kinds.insert(kind.trim_matches('`').to_owned(), by).is_none(), "a second row: {row}");
    }
    kinds
}

fn documented_of(verifiers: &[&str]) -> BTreeSet<String> {
    let kinds = documented().into_iter();
    let of = kinds.filter(|(_, by)| verifiers.iter().any(|verifier| by.contains(*verifier)));
    of.map(|(kind, _)| kind).collect()
}

/// Returns the names in `FINDING_KINDS` of tools/verify.py, and the text of that file without the
/// list.
fn of_verify_py() -> (BTreeSet<String>, String) {
    let text = read("tools/verify.py");
    let (before, list) = text.split_once("\nFINDING_KINDS = (\n").expect("tools/verify.py has the list");
    let (list, after) = list.split_once("\n)\n").expect("the list ends");
    let names: Vec<&str> =
        list.lines().map(|line| line.trim().trim_end_matches(',').trim_matches('"')).collect();
    let kinds: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(kinds.len(), names.len(), "FINDING_KINDS names a kind twice");
    (kinds, format!("{before}{after}"))
}

/// True if `text` has `name` in double quotes and not as an index, a member or a constant.
fn quotes(text: &str, name: &str) -> bool {
    let quoted = format!("\"{name}\"");
    text.lines().filter(|line| !line.trim_start().starts_with("const ")).any(|line| {
        line.match_indices(&quoted).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + quoted.len()..]);
            let indexed = before.strip_suffix('[').and_then(|rest| rest.chars().next_back());
            let is_index = after.starts_with(']')
                && indexed.is_some_and(|last| last.is_alphanumeric() || matches!(last, '_' | ']' | ')'));
            !is_index && !after.trim_start().starts_with(':')
        })
    })
}

/// Returns the kinds of `all` that occur in `texts`, either quoted or as a variant of
/// `FindingKind`.
fn named<'t>(all: &BTreeSet<String>, texts: impl IntoIterator<Item = &'t str>) -> BTreeSet<String> {
    let texts: Vec<&str> = texts.into_iter().collect();
    let variants: BTreeMap<&str, String> =
        FindingKind::ALL.iter().map(|kind| (kind.as_str(), format!("FindingKind::{kind:?}"))).collect();
    let is_named = |kind: &&String| {
        texts.iter().any(|text| {
            let variant = variants.get(kind.as_str());
            quotes(text, kind)
                || variant.is_some_and(|variant| {
                    text.match_indices(variant.as_str()).any(|(at, _)| {
                        !text[at + variant.len()..].starts_with(|next: char| next.is_alphanumeric())
                    })
                })
        })
    };
    all.iter().filter(is_named).cloned().collect()
}

#[test]
fn program_documents_and_second_verifier_have_one_list() {
    let ours: BTreeSet<String> = FindingKind::ALL.iter().map(|kind| kind.to_string()).collect();
    assert_eq!(ours.len(), FindingKind::ALL.len(), "two kinds have one name");
    assert_eq!(documented_of(&[VERIFY, EVIDENCE_CHECK]), ours, "docs/proof.md and FindingKind");
    assert_eq!(documented_of(&[VERIFY_PY]), of_verify_py().0, "docs/proof.md and FINDING_KINDS");
    for (kind, by) in documented() {
        let known = by.iter().all(|name| [VERIFY, EVIDENCE_CHECK, VERIFY_PY].contains(&name.as_str()));
        assert!(known && !by.is_empty(), "{kind} is reported by {by:?}");
    }
}

#[test]
fn verifiers_report_the_kinds_that_the_table_says() {
    let all: BTreeSet<String> = documented().into_keys().collect();
    let sources: Vec<(PathBuf, String)> = rust_files()
        .into_iter()
        .filter(|path| !is_test(path))
        .map(|path| (path.clone(), read(path)))
        .filter(|(_, text)| text.contains("FindingKind::"))
        .collect();
    let of_rust = |is_evidence: bool| {
        let texts =
            sources.iter().filter(|(path, _)| path.to_string_lossy().contains("evidence") == is_evidence);
        // These sources must name kinds by `FindingKind` and not as strings, so quotes are removed
        // before the search.
        let texts: Vec<String> = texts.map(|(_, text)| text.replace('"', "")).collect();
        named(&all, texts.iter().map(String::as_str))
    };
    assert_eq!(of_rust(false), documented_of(&[VERIFY]), "kinds in the sources of `verify`");
    assert_eq!(of_rust(true), documented_of(&[EVIDENCE_CHECK]), "kinds in the sources of `evidence check`");
    let (kinds, text) = of_verify_py();
    assert_eq!(named(&kinds, [text.as_str()]), kinds, "kinds in tools/verify.py");
}

#[test]
fn every_kind_is_provoked_by_a_tampering() {
    let files = rust_files();
    let ours: Vec<String> = files.iter().filter(|path| is_test(path)).map(read).collect();
    let second = read("tools/test_verify.py");
    let mut wrong = Vec::new();
    for (program, kinds, texts) in [
        (PROGRAM, documented_of(&[VERIFY, EVIDENCE_CHECK]), ours.iter().map(String::as_str).collect()),
        (VERIFY_PY, documented_of(&[VERIFY_PY]), vec![second.as_str()]),
    ] {
        let tested = named(&kinds, texts);
        let excepted: BTreeSet<String> = NOT_TAMPERED
            .iter()
            .filter(|(_, of, reason)| *of == program && !reason.is_empty())
            .map(|(kind, ..)| (*kind).to_owned())
            .collect();
        for kind in &kinds {
            match (tested.contains(kind), excepted.contains(kind)) {
                (true, true) => {
                    wrong.push(format!("{program}: {kind} has a test, so its entry in NOT_TAMPERED is stale"))
                }
                (false, false) => wrong.push(format!("{program}: no test tampers for {kind}")),
                _ => {}
            }
        }
        let unknown = excepted.difference(&kinds);
        wrong
            .extend(unknown.map(|kind| format!("{program}: NOT_TAMPERED names {kind}, which is not a kind")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_counts_as_a_kind_only_where_it_means_one() {
    for kind in [r#"case("x", "rows", |site| {"#, r#"self.finds("rows", w)"#, r#"kinds == ["rows", "tags"]"#]
    {
        assert!(quotes(kind, "rows"), "{kind}");
    }
    for other in [
        r#"add["tags"]["rows"] = 1"#,
        r#"{"rows": 1}"#,
        r#"{ "rows" : 1 }"#,
        r#"const NAMES: [&str; 1] = ["rows"];"#,
        r#""rows_extra""#,
    ] {
        assert!(!quotes(other, "rows"), "{other}");
    }
}
