//! The shape of the workspace: which crates may depend on which, what the pure crates may use, and
//! how manifests and files are written. ARCHITECTURE.md states these rules. A change that breaks a
//! rule makes a test here fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::imports::{first_names, first_names_outside_tests};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Each of our crates, with our other crates that it may depend on. A new dependency here should be
/// the rarest change of all.
const EDGES: &[(&str, &[&str])] = &[
    ("strongroom-schemas", &[]),
    ("strongroom-generate", &[]),
    ("strongroom-journal", &[]),
    ("strongroom-program", &[]),
    ("strongroom-tlog", &["strongroom-program", "strongroom-schemas"]),
    ("strongroom-store", &["strongroom-schemas"]),
    ("strongroom-bodies", &["strongroom-schemas"]),
    ("strongroom-alerts", &["strongroom-bodies", "strongroom-schemas"]),
    ("strongroom-parquet", &["strongroom-schemas", "strongroom-store"]),
    (
        "strongroom-archive",
        &["strongroom-parquet", "strongroom-schemas", "strongroom-store", "strongroom-tlog"],
    ),
    (
        "strongroom-proof",
        &[
            "strongroom-archive",
            "strongroom-parquet",
            "strongroom-schemas",
            "strongroom-store",
            "strongroom-tlog",
        ],
    ),
    (
        "strongroom-retention",
        &[
            "strongroom-archive",
            "strongroom-parquet",
            "strongroom-schemas",
            "strongroom-store",
            "strongroom-tlog",
        ],
    ),
    (
        "strongroom-evidence",
        &[
            "strongroom-archive",
            "strongroom-proof",
            "strongroom-schemas",
            "strongroom-store",
            "strongroom-tlog",
        ],
    ),
    ("strongroom-lines", &["strongroom-schemas"]),
    ("strongroom-decode", &["strongroom-lines", "strongroom-schemas"]),
    ("strongroom-redact", &["strongroom-lines", "strongroom-program", "strongroom-schemas"]),
    ("strongroom-sinks", &["strongroom-alerts", "strongroom-journal", "strongroom-schemas"]),
    (
        "strongroom-ingest",
        &[
            "strongroom-alerts",
            "strongroom-archive",
            "strongroom-decode",
            "strongroom-lines",
            "strongroom-redact",
            "strongroom-schemas",
        ],
    ),
    (
        "strongroom-live",
        &[
            "strongroom-alerts",
            "strongroom-archive",
            "strongroom-decode",
            "strongroom-ingest",
            "strongroom-journal",
            "strongroom-lines",
            "strongroom-redact",
            "strongroom-schemas",
            "strongroom-sinks",
        ],
    ),
    ("strongroom-query", &["strongroom-archive", "strongroom-parquet", "strongroom-schemas"]),
    (
        "strongroom",
        &[
            "strongroom-alerts",
            "strongroom-archive",
            "strongroom-decode",
            "strongroom-evidence",
            "strongroom-generate",
            "strongroom-ingest",
            "strongroom-lines",
            "strongroom-live",
            "strongroom-parquet",
            "strongroom-proof",
            "strongroom-query",
            "strongroom-redact",
            "strongroom-retention",
            "strongroom-schemas",
            "strongroom-sinks",
            "strongroom-tlog",
        ],
    ),
];

/// What the tests of a crate may use in addition to [`EDGES`]: the generator, which depends on none
/// of our crates, the decoder, which depends on the lines and schemas alone, and the crates that
/// judge an archive.
const TEST_EDGES: &[(&str, &[&str])] = &[
    ("strongroom-alerts", &["strongroom-decode", "strongroom-generate"]),
    ("strongroom-decode", &["strongroom-generate"]),
    ("strongroom-ingest", &["strongroom-proof", "strongroom-tlog"]),
    ("strongroom-retention", &["strongroom-proof"]),
];

/// The pure crates, whose results depend only on the arguments of their functions. The two lists
/// after this one name the crates that they may not depend on, and what they may not name.
const PURE: &[(&str, &str)] = &[
    ("strongroom-schemas", "schemas/src"),
    ("strongroom-bodies", "bodies/src"),
    ("strongroom-lines", "lines/src"),
    ("strongroom-decode", "decode/src"),
    ("strongroom-generate", "generate/src"),
];
const IMPURE_CRATES: &[&str] = &[
    "async-trait",
    "crossbeam-channel",
    "futures",
    "mio",
    "object_store",
    "parquet",
    "rayon",
    "reqwest",
    "tokio",
];
const IMPURE_NAMES: &[&str] = &[
    "std::fs",
    "TcpStream",
    "UdpSocket",
    "std::process",
    "std::thread",
    "std::env",
    "std::time",
    "Utc::now",
    "async fn",
];

/// Dependencies that a crate declares although its sources do not name them: the crate, the
/// dependency and the reason. If the dependency is gone, or the sources name it, the entry is
/// stale, and the test fails.
const UNNAMED: &[(&str, &str, &str)] = &[
    ("strongroom-proof", "arrow_buffer", ROWS),
    ("strongroom-proof", "arrow_select", ROWS),
    ("strongroom-proof", "blake3", ROWS),
    ("strongroom-retention", "arrow_buffer", ROWS),
    ("strongroom-retention", "arrow_cast", ROWS),
    ("strongroom-retention", "arrow_schema", ROWS),
    ("strongroom-retention", "arrow_select", ROWS),
    ("strongroom-retention", "blake3", ROWS),
    ("strongroom-retention", "tempfile", ROWS),
];
const ROWS: &str = "its tests include archive/src/tests/rows.rs, which names it";

/// File names that do not say what is in the file.
const NAMELESS: &[&str] = &["util.rs", "utils.rs", "helpers.rs", "helper.rs", "common.rs", "misc.rs"];

const ARCHITECTURE_LINES_MAX: usize = 200;
const ARCHITECTURE_COLUMNS_MAX: usize = 100;

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(cargo).args(arguments).current_dir(ROOT).output().expect("cargo runs this test");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// Returns our packages, each with those of our packages on which it depends and the kind of the
/// dependency.
fn our_edges() -> BTreeMap<String, Vec<(String, Option<String>)>> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]))
            .expect("cargo metadata prints JSON");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let edges = packages.iter().map(|package| {
        let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
        let ours = dependencies.iter().filter(|dependency| dependency["path"].is_string());
        let ours = ours.map(|d| (text(&d["name"]).expect("dependencies have names"), text(&d["kind"])));
        (text(&package["name"]).expect("packages have names"), ours.collect())
    });
    edges.collect()
}

/// Returns the source files below a folder, relative to the root of the workspace.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(ROOT).expect("below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn all_sources() -> Vec<PathBuf> {
    let folders = [
        "alerts",
        "archive",
        "benches",
        "bodies",
        "cli",
        "decode",
        "evidence",
        "generate",
        "ingest",
        "journal",
        "lines",
        "live",
        "parquet",
        "program",
        "proof",
        "query",
        "redact",
        "retention",
        "schemas",
        "sinks",
        "store",
        "tests",
        "tlog",
    ];
    folders.iter().flat_map(|folder| sources(folder)).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn crates_depend_only_on_lower_layers() {
    let found = our_edges();
    let known: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "crates without an entry");
    for (name, allowed) in EDGES {
        for (dependency, kind) in &found[*name] {
            let of_tests = TEST_EDGES.iter().find(|(of, _)| of == name).map_or(&[][..], |(_, edges)| *edges);
            let in_tests = kind.as_deref() == Some("dev") && of_tests.contains(&dependency.as_str());
            assert!(
                allowed.contains(&dependency.as_str()) || in_tests,
                "{name} may not depend on {dependency} ({})",
                kind.as_deref().unwrap_or("normal"),
            );
        }
    }
}

/// Returns the folders with the sources, tests and benches of one of our packages.
fn test_folders(package: &str) -> Vec<&str> {
    match package.strip_prefix("strongroom-") {
        Some(folder) => vec![folder],
        None => vec!["cli", "tests", "benches"],
    }
}

/// Returns, for each of our packages and each of its dependencies: the package, the name by which
/// sources call the dependency, and true if only tests depend on it.
fn declared() -> BTreeSet<(String, String, bool)> {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names the host");
    let arguments = ["metadata", "--format-version", "1", "--locked", "--filter-platform", host];
    let metadata: Value = serde_json::from_str(&cargo(&arguments)).expect("cargo metadata prints JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let members: BTreeSet<String> = list(&metadata["workspace_members"]).iter().map(text).collect();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let mut declared = BTreeSet::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let id = text(&node["id"]);
        for dependency in list(&node["deps"]).iter().filter(|_| members.contains(&id)) {
            for kind in list(&dependency["dep_kinds"]) {
                declared.insert((names[&id].clone(), text(&dependency["name"]), !kind["kind"].is_null()));
            }
        }
    }
    declared
}

#[test]
fn declared_edges_are_used() {
    let outside_tests = first_names_outside_tests();
    let mut anywhere: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    let excepted = UNNAMED.iter().filter(|(.., why)| !why.is_empty());
    let mut unnamed: BTreeSet<(String, String)> =
        excepted.map(|(of, to, _)| ((*of).to_owned(), (*to).to_owned())).collect();
    for (package, dependency, is_for_tests) in declared() {
        let anywhere = anywhere.entry(package.clone()).or_insert_with(|| {
            let folders = test_folders(&package).into_iter().flat_map(sources);
            let ours = folders.filter(|path| !path.starts_with("benches/rsigma"));
            ours.flat_map(|path| first_names(&read(path))).collect()
        });
        let named = if is_for_tests {
            &*anywhere
        } else {
            &outside_tests[package.strip_prefix("strongroom-").unwrap_or("cli")]
        };
        match (named.contains(&dependency), unnamed.remove(&(package.clone(), dependency.clone()))) {
            (false, false) if !is_for_tests && anywhere.contains(&dependency) => {
                wrong.push(format!("{package} -> {dependency}: only tests use it"));
            }
            (false, false) => wrong.push(format!("{package} -> {dependency}: nothing uses it")),
            (true, true) => wrong.push(format!("{package} -> {dependency}: UNNAMED is stale")),
            _ => {}
        }
    }
    wrong.extend(
        unnamed.iter().map(|(of, to)| format!("{of} -> {to}: UNNAMED is stale, there is no such edge")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_crates_cannot_do_io() {
    for (name, folder) in PURE {
        let tree = cargo(&[
            "tree",
            "--package",
            name,
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{lib}",
            "--locked",
        ]);
        let tree: BTreeSet<String> = tree.lines().map(|line| line.replace('_', "-")).collect();
        for impure in IMPURE_CRATES {
            assert!(!tree.contains(&impure.replace('_', "-")), "{name} must not reach {impure}");
        }
        for path in sources(folder) {
            let text = read(&path);
            for impure in IMPURE_NAMES {
                assert!(!text.contains(impure), "{} names {impure}", path.display());
            }
        }
    }
}

#[test]
fn versions_are_named_once() {
    let mut section = String::new();
    for (_, folder) in EDGES.iter().map(|(name, _)| (name, name.strip_prefix("strongroom-").unwrap_or(""))) {
        for line in read(Path::new(folder).join("Cargo.toml")).lines().map(str::trim) {
            if line.starts_with('[') {
                section = line.to_owned();
            } else if matches!(
                section.as_str(),
                "[dependencies]" | "[dev-dependencies]" | "[build-dependencies]"
            ) && !line.is_empty()
                && !line.starts_with('#')
            {
                assert!(line.contains("workspace = true"), "{folder}/Cargo.toml: {line}");
            } else if section == "[workspace.dependencies]"
                && !line.is_empty()
                && !line.starts_with('#')
                && !line.starts_with("strongroom-")
            {
                assert!(line.contains("default-features = false"), "Cargo.toml: {line}");
            }
        }
    }
}

#[test]
fn every_file_says_what_it_promises() {
    let files = all_sources();
    assert!(files.len() > 30, "found only {} files", files.len());
    for path in files {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        assert!(!NAMELESS.contains(&name.as_str()), "{}: name the concept it owns", path.display());
        assert!(read(&path).starts_with("//! "), "{} does not open with `//!`", path.display());
    }
}

#[test]
fn architecture_names_every_folder_and_stays_short() {
    let text = read("ARCHITECTURE.md");
    let lines = text.lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "ARCHITECTURE.md has {lines} lines");
    let long =
        text.lines().find(|line| line.chars().count() > ARCHITECTURE_COLUMNS_MAX && !line.starts_with(' '));
    assert!(long.is_none(), "ARCHITECTURE.md has a long line: {long:?}");
    for (name, _) in EDGES {
        let folder = name.strip_prefix("strongroom-").unwrap_or("cli");
        let heading = format!("`{folder}/`");
        assert!(
            text.lines().any(|line| line.starts_with("## ") && line.contains(&heading)),
            "ARCHITECTURE.md has no heading for {heading}"
        );
    }
    assert!(
        text.matches("**Architecture Invariant:**").count() >= EDGES.len(),
        "a folder states no invariant"
    );
}
