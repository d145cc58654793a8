//! The settings of a policy, as written in a TOML table and not yet checked.
//!
//! Invariant: no setting is known to be valid; [`crate::Policy`] checks them. No state.

/// The settings of a policy. The caller reads them from TOML.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The source of the current key: `file:PATH`, `env:NAME` or `command:PROGRAM ARGUMENTS`.
    pub key: Option<String>,
    /// Sources of earlier keys, which are only used to reveal and to decrypt.
    pub old_keys: Vec<String>,
    /// Names from [`crate::PRESETS`].
    pub presets: Vec<String>,
    /// Names from [`crate::DETECTORS`].
    pub detectors: Vec<String>,
    pub rules: Vec<RuleSettings>,
}

/// The settings of one rule.
#[derive(Clone, Debug, Default)]
pub struct RuleSettings {
    /// Globs; an empty list stands for all.
    pub clusters: Vec<String>,
    /// Globs; an empty list stands for all.
    pub namespaces: Vec<String>,
    /// Globs in the form `resource`, for any API group, or `group/resource`; an empty list stands
    /// for all.
    pub resources: Vec<String>,
    pub paths: Vec<String>,
    /// `drop` or `tokenise`.
    pub action: String,
}
