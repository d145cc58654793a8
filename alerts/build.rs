//! Lists `rules/*.yml` as Rust source, so that every rule file in this folder becomes part of the
//! binary.

use std::path::Path;
use std::{env, fs};

fn main() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("rules");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    files.sort_unstable();
    let mut source = String::from("&[\n");
    for file in files {
        let name = file.file_name().expect("a file of a folder has a name").to_string_lossy().into_owned();
        source.push_str(&format!("({name:?}, include_str!({:?})),\n", file.display().to_string()));
    }
    source.push_str("]\n");
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("rules.rs");
    fs::write(&out, source).unwrap_or_else(|error| panic!("{}: {error}", out.display()));
}
