//! The policy: what is replaced, where, and how.

/// A policy as it is written in TOML, before it is checked. The caller reads the TOML.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub key: Option<String>,
    pub old_keys: Vec<String>,
    pub presets: Vec<String>,
    pub detectors: Vec<String>,
    pub rules: Vec<RuleSettings>,
}

#[derive(Clone, Debug, Default)]
pub struct RuleSettings {
    /// Globs; empty stands for all.
    pub clusters: Vec<String>,
    pub namespaces: Vec<String>,
    /// `resource`, of any API group, or `group/resource`; globs; empty stands for all.
    pub resources: Vec<String>,
    pub paths: Vec<String>,
    pub action: String,
}

/// A mistake in a policy, with its place below `redact`: `rules[2].paths[0]`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {what}")]
pub struct PolicyError { pub place: String, pub what: String }

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action { Tokenise, Drop }   // as_str: "tokenise", "drop"

pub struct Policy;
impl Policy {
    /// Checks settings, and finds every mistake at once. Reads no key.
    pub fn new(settings: &Settings) -> Result<Policy, Vec<PolicyError>>;
    pub fn key(&self) -> &KeySource;
    pub fn old_keys(&self) -> &[KeySource];
    /// The members that the policy may change in any event.
    pub fn roots(&self) -> Roots;
}
