//! The rules in `alerts/rules`, which are embedded in the binary, and the reading of rule files
//! from disk.
//!
//! Invariant: every rule file in the folder is embedded, because the build script lists the folder.
//! No state.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{RULE_FILE_BYTES_MAX, RuleError};

/// File name and text of every built-in rule file, in order of file names.
pub(crate) const RULES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/rules.rs"));

/// Maximum depth of the folders inside a folder of rules that the caller names.
const FOLDER_DEPTH_MAX: usize = 8;

/// Adds the text of a rule file, or of all rule files below a folder.
pub(crate) fn read_rules(path: &Path, out: &mut Vec<(String, String)>) -> Result<(), RuleError> {
    let metadata = fs::metadata(path).map_err(|source| RuleError::Read { path: path.into(), source })?;
    if !metadata.is_dir() {
        return read_file(path, metadata.len(), out);
    }
    let before = out.len();
    read_folder(path, FOLDER_DEPTH_MAX, out)?;
    if out.len() == before { Err(RuleError::NoFiles { path: path.into() }) } else { Ok(()) }
}

fn read_folder(folder: &Path, depth_left: usize, out: &mut Vec<(String, String)>) -> Result<(), RuleError> {
    let failed = |source| RuleError::Read { path: folder.into(), source };
    let entries = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>();
    let mut paths: Vec<PathBuf> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        let metadata =
            fs::metadata(&path).map_err(|source| RuleError::Read { path: path.clone(), source })?;
        let is_rule = path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
        if metadata.is_dir() && depth_left > 0 {
            read_folder(&path, depth_left - 1, out)?;
        } else if metadata.is_file() && is_rule {
            read_file(&path, metadata.len(), out)?;
        }
    }
    Ok(())
}

fn read_file(path: &Path, bytes: u64, out: &mut Vec<(String, String)>) -> Result<(), RuleError> {
    if bytes > RULE_FILE_BYTES_MAX {
        return Err(RuleError::TooLarge { path: path.into(), bytes });
    }
    let text = fs::read_to_string(path).map_err(|source| RuleError::Read { path: path.into(), source })?;
    out.push((path.display().to_string(), text));
    Ok(())
}
