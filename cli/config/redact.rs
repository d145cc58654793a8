//! The section `[redact]`: the values that must not be written, and the keys of the policy.
//!
//! Invariant: a policy with a mistake is not used at all. A key in a file or a variable is read
//! together with the configuration. A program that gives a key is started only when the policy is
//! put to use.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use strongroom_parquet::is_quiet;
use strongroom_redact::{KeySource, Keys, Policy, Redactor, RuleSettings, Settings};
use strongroom_schemas::error_chain;

use super::reader::{Mistake, Mistakes, Section, parse};
use super::{FILE_BYTES_MAX, mistakes_error};
use crate::exit::CliError;

/// Reads the section; `None` if it is absent or has mistakes, which are reported.
pub fn policy(section: &Section<'_>) -> Option<Policy> {
    if !section.is_there() {
        return None;
    }
    let rules = section.sections("rules");
    let settings = Settings {
        key: section.string("key"),
        old_keys: section.strings("old_keys"),
        presets: section.strings("presets"),
        detectors: section.strings("detectors"),
        rules: rules.iter().map(rule).collect(),
    };
    section.finish();
    if !section.is_sound() {
        return None;
    }
    match Policy::new(&settings) {
        Ok(policy) => is_key_there(section, &policy).then_some(policy),
        Err(errors) => {
            for error in errors {
                report(section, &rules, &error.place, error.what);
            }
            None
        }
    }
}

fn rule(section: &Section<'_>) -> RuleSettings {
    let settings = RuleSettings {
        clusters: section.strings("clusters"),
        namespaces: section.strings("namespaces"),
        resources: section.strings("resources"),
        paths: section.strings("paths"),
        action: section.required("action", "what is done with the values: drop or tokenise"),
    };
    section.finish();
    settings
}

/// Reports a mistake of the policy at the line of the key that it is about. `place` names that key,
/// such as `rules[2].paths[0]`; its numbers count from 0.
fn report(section: &Section<'_>, rules: &[Section<'_>], place: &str, what: String) {
    let of_rule = place.strip_prefix("rules[").and_then(|rest| {
        let (number, rest) = rest.split_once(']')?;
        Some((rules.get(number.parse::<usize>().ok()?)?, rest.trim_start_matches('.')))
    });
    let (section, key) = of_rule.unwrap_or((section, place));
    section.mistake(key.split('[').next().unwrap_or_default(), what);
}

/// Whether the keys in files and variables can be read.
fn is_key_there(section: &Section<'_>, policy: &Policy) -> bool {
    let keys = [policy.key()].into_iter().map(|key| ("key", key));
    let keys = keys.chain(policy.old_keys().iter().map(|key| ("old_keys", key)));
    let mut is_there = true;
    for (name, source) in keys.filter(|(_, source)| !matches!(source, KeySource::Command(_))) {
        if let Err(error) = source.load() {
            section.mistake(name, error_chain(&error));
            is_there = false;
        }
    }
    is_there
}

/// Reads the section `[redact]` of a file, which may be the configuration of `strongroom run`; its
/// other sections are ignored.
///
/// # Errors
/// If the file cannot be read, has no such section, or the section has mistakes.
pub fn read_policy(file: &Path) -> Result<Policy, CliError> {
    let hint = "`strongroom config` prints the section [redact] with every key and its meaning";
    let cannot = || format!("cannot read the redaction policy {}", file.display());
    let size = std::fs::metadata(file).with_context(cannot).map_err(CliError::input)?.len();
    if size > FILE_BYTES_MAX {
        let error = anyhow::anyhow!("{} is longer than a policy may be", file.display());
        return Err(CliError::input(error).with_hint(hint));
    }
    let text = std::fs::read_to_string(file).with_context(cannot).map_err(CliError::input)?;
    parse_policy(&text).map_err(|mistakes| mistakes_error(file, mistakes).with_hint(hint))
}

fn parse_policy(text: &str) -> Result<Policy, Vec<Mistake>> {
    let mistakes = Mistakes::of(text);
    let Some(table) = parse(text, &mistakes) else { return Err(mistakes.into_sorted()) };
    let root = Section::root(&mistakes, &table);
    let section = root.section("redact");
    let found = policy(&section);
    if !section.is_there() {
        mistakes.add(0, "", "there is no section [redact]");
    }
    drop((section, root));
    let found_mistakes = mistakes.into_sorted();
    found.ok_or(found_mistakes)
}

/// Loads the keys of a policy, and puts the policy to use. Before that, calls [`guard_memory`],
/// because the process has values in clear from then on.
///
/// # Errors
/// If a key cannot be loaded.
pub fn redactor(policy: Policy) -> Result<Arc<Redactor>, CliError> {
    guard_memory();
    let hint = "[redact] key and old_keys name the keys: file:PATH, env:NAME or command:PROGRAM";
    let keys = Keys::load(&policy).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(|error| error_chain(error)).collect();
        CliError::input(anyhow::anyhow!("{}", texts.join("; "))).with_hint(hint)
    })?;
    Ok(Arc::new(Redactor::new(policy, keys)))
}

/// Keeps events out of core dumps and of the texts of panics. Events are in memory in clear, and a
/// panic may quote what it failed on.
pub fn guard_memory() {
    std::panic::set_hook(Box::new(|info| {
        if is_quiet() {
            return;
        }
        let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
        let _ = writeln!(std::io::stderr(), "a thread panicked{place}, which is a bug");
    }));
    // Only Linux has this file. On other systems, the limit on core dumps that the shell or the
    // service manager sets must be 0.
    if let Err(error) = std::fs::write("/proc/self/coredump_filter", "0") {
        tracing::warn!(%error, "a core dump of this process would have events in clear; set its limit to 0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        parse_policy(text).expect_err("mistakes").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_policy_is_read_with_the_lines_of_its_mistakes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        std::fs::write(&path, "00".repeat(32)).expect("written");
        std::os::unix::fs::chown(&path, None, None).expect("the file belongs to this user");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("the file belongs to this user");
        let key = format!("[redact]\nkey = \"file:{}\"\n", path.display());
        let rule = "[[redact.rules]]\npaths = ['requestObject.data.*']\naction = 'drop'\n";
        assert!(parse_policy(&format!("{key}{rule}")).is_ok());
        assert!(parse_policy(&format!("[archive]\nlocation = 1\n{key}{rule}")).is_ok());
        let found = mistakes(&format!("{key}{}", rule.replace("drop", "eat")));
        assert!(found[0].starts_with("line 5: redact.rules[1].action: "), "{found:?}");
        let found = mistakes(&format!("{key}{}", rule.replace("requestObject", "level")));
        assert!(found[0].starts_with("line 4: redact.rules[1].paths: "), "{found:?}");
        let found = mistakes(&format!("{key}path = 'x'\n"));
        assert_eq!(
            found,
            ["line 3: redact.path: is not a key here; the keys are detectors, key, old_keys, presets, rules"]
        );
        let found = mistakes(&format!("{}{rule}", key.replace("/key", "/other")));
        assert!(found[0].starts_with("line 2: redact.key: "), "{found:?}");
        assert_eq!(mistakes("a = 1"), ["there is no section [redact]"]);
        assert!(!mistakes(&format!("[redact]\n{rule}")).is_empty(), "a policy needs a key");
    }
}
