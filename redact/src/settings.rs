//! A policy as it is written in a TOML table, before it is checked.
//!
//! Invariant: nothing here is known to be right; [`crate::Policy`] judges it. No state.

/// A policy as it is written, before it is checked. The caller reads the TOML.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `file:PATH`, `env:NAME` or `command:PROGRAM ARGUMENTS`.
    pub key: Option<String>,
    /// Keys of the past, for reveal and decrypt alone.
    pub old_keys: Vec<String>,
    /// Of [`crate::PRESETS`].
    pub presets: Vec<String>,
    /// Of [`crate::DETECTORS`].
    pub detectors: Vec<String>,
    pub rules: Vec<RuleSettings>,
}

/// One rule as it is written.
#[derive(Clone, Debug, Default)]
pub struct RuleSettings {
    /// Globs; none stands for all.
    pub clusters: Vec<String>,
    /// Globs; none stands for all.
    pub namespaces: Vec<String>,
    /// Globs, `resource` for any API group, or `group/resource`; none stands for all.
    pub resources: Vec<String>,
    pub paths: Vec<String>,
    /// `drop` or `tokenise`.
    pub action: String,
}
