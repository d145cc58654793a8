//! The policy: which values are replaced, where, and by which action.
//!
//! [`Settings`] are the policy as written in a TOML table, and a [`Policy`] is the checked form.
//! Each rule names clusters, namespaces and resources, and has paths and an action. A preset is a
//! named set of rules. A detector finds values by their shape, in any body.
//!
//! Invariant: every policy that exists can be enforced. Every mistake, and every rule that cannot
//! be enforced, is an error when the policy is made. A policy has no key and reads none.

use std::collections::BTreeSet;
use std::ops::Range;

use aws_lc_rs::digest;
use thiserror::Error;

use crate::detect::{self, Detector};
use crate::graph::{Action, Graph, Pattern, Patterns};
use crate::implied::Implied;
use crate::keys::{KEYS_MAX, KeyError, KeyId, KeySource, Keys};
use crate::path::{Path, Root, Roots, Step};
use crate::presets::{self, PRESETS};
use crate::settings::{RuleSettings, Settings};
use crate::target::{Form, Target};

/// Maximum number of rules, those of presets included.
pub const RULES_MAX: usize = 256;
/// Maximum number of paths in all rules together, those of presets included.
pub const PATHS_MAX: usize = 1024;
/// Maximum length of a glob, in bytes.
pub const GLOB_BYTES_MAX: usize = 512;
/// Maximum number of globs in one list of a rule.
pub const GLOBS_MAX: usize = 256;

const ID_DOMAIN: &[u8] = b"strongroom redaction policy 1\n";

/// A resource whose `data` contains parts of other objects, its API group, and the resources of
/// those other objects.
pub(crate) const REVISIONS: (&str, &str, [&str; 2]) =
    ("controllerrevisions", "apps", ["daemonsets", "statefulsets"]);

/// The two query parameters that contain values of objects.
pub(crate) const FIELD_SELECTOR: &str = "fieldselector";
pub(crate) const LABEL_SELECTOR: &str = "labelselector";

/// A mistake in a policy, with its place, such as `rules[2].paths[0]`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {what}")]
pub struct PolicyError {
    pub place: String,
    pub what: String,
}

/// The requests that a rule is about, and its patterns.
#[derive(Clone, Debug)]
struct Rule {
    /// An empty list stands for all; this holds for namespaces and resources, too.
    clusters: Vec<Glob>,
    namespaces: Vec<Glob>,
    /// Pairs of API group and resource.
    resources: Vec<(Glob, Glob)>,
    roots: Roots,
    /// The roots of the rule's own paths, without the roots that may repeat their values.
    named: Roots,
    of_event: Range<usize>,
    of_entry: Range<usize>,
}

/// A policy that can be enforced.
#[derive(Clone, Debug)]
pub struct Policy {
    key: KeySource,
    old_keys: Vec<KeySource>,
    rules: Vec<Rule>,
    detectors: Vec<&'static Detector>,
    of_event: Graph,
    of_entry: Graph,
    labels: Vec<String>,
    /// A text that is the same for all spellings of the same policy.
    text: String,
}

impl Policy {
    /// Checks settings. No key is read.
    ///
    /// # Errors
    /// All mistakes, not only the first one.
    pub fn new(settings: &Settings) -> Result<Policy, Vec<PolicyError>> {
        let mut maker = Maker::default();
        maker.labels.extend(Implied::ALL.map(|implied| implied.as_str().to_owned()));
        let key = settings.key.as_deref().map(|text| maker.source("key", text));
        if key.is_none() {
            maker.mistake(
                "key",
                "is missing: tokens, rejects and the write-ahead log need one; strongroom redact key new makes it",
            );
        }
        let old_keys = settings.old_keys.iter().enumerate();
        let old_keys: Vec<_> =
            old_keys.filter_map(|(at, text)| maker.source(&format!("old_keys[{at}]"), text)).collect();
        if old_keys.len() >= KEYS_MAX {
            maker.mistake("old_keys", &format!("has {KEYS_MAX} keys or more"));
        }
        for (at, name) in settings.presets.iter().enumerate() {
            match presets::rules(name) {
                Some(rules) => rules.for_each(|rule| maker.rule(&format!("presets[{at}]"), &rule)),
                None => maker.mistake(
                    &format!("presets[{at}]"),
                    &format!("{name:?} is not one of {}", PRESETS.join(", ")),
                ),
            }
        }
        for (at, rule) in settings.rules.iter().enumerate() {
            maker.rule(&format!("rules[{at}]"), rule);
        }
        let mut detectors: Vec<&'static Detector> = Vec::new();
        for (at, name) in settings.detectors.iter().enumerate() {
            match detect::find(name) {
                Some(found) if detectors.iter().any(|known| known.name == found.name) => {}
                Some(found) => detectors.push(found),
                None => maker.mistake(
                    &format!("detectors[{at}]"),
                    &format!("{name:?} is not one of {}", detect::DETECTORS.join(", ")),
                ),
            }
        }
        detectors.sort_by_key(|detector| detector.name);
        if maker.rules.is_empty() && detectors.is_empty() && maker.errors.is_empty() {
            maker.mistake(
                "rules",
                "there is no rule, no preset and no detector, so nothing would be replaced",
            );
        }
        if maker.rules.len() > RULES_MAX {
            maker.mistake(
                "rules",
                &format!("there are more than {RULES_MAX} rules, those of presets included"),
            );
        }
        if maker.paths > PATHS_MAX {
            maker.mistake(
                "rules",
                &format!("the rules have more than {PATHS_MAX} paths, those of presets included"),
            );
        }
        match key.flatten() {
            Some(key) if maker.errors.is_empty() => {
                let mut lines: Vec<String> = maker.lines.into_iter().collect();
                lines.extend(detectors.iter().map(|detector| format!("detector {}", detector.name)));
                maker.labels.extend(detectors.iter().map(|detector| format!("detector {}", detector.name)));
                Ok(Policy {
                    key,
                    old_keys,
                    rules: maker.rules,
                    detectors,
                    of_event: Graph::new(&maker.of_event),
                    of_entry: Graph::new(&maker.of_entry),
                    labels: maker.labels,
                    text: lines.join("\n"),
                })
            }
            _ => Err(maker.errors),
        }
    }

    pub fn key(&self) -> &KeySource {
        &self.key
    }

    pub fn old_keys(&self) -> &[KeySource] {
        &self.old_keys
    }

    /// Returns the members that the policy may change in any event.
    pub fn roots(&self) -> Roots {
        self.roots_of(self.rules.iter())
    }

    /// Returns the members that the policy may change in an event with this target.
    pub(crate) fn roots_for(&self, cluster: &str, target: &Target<'_>) -> Roots {
        self.roots_of(self.rules.iter().filter(|rule| rule.is_about(cluster, target)))
    }

    /// Returns the members that a path of the policy names in an event with this target. Members
    /// that are changed only because they may repeat other members are not among them.
    pub(crate) fn named_for(&self, cluster: &str, target: &Target<'_>) -> Roots {
        let mut named = Roots::default();
        let rules = self.rules.iter().filter(|rule| rule.is_about(cluster, target));
        rules.for_each(|rule| named.add_all(rule.named));
        if !self.detectors.is_empty() {
            named.add_all(Roots::OF_BODIES);
        }
        named
    }

    fn roots_of<'r>(&self, rules: impl Iterator<Item = &'r Rule>) -> Roots {
        let mut roots = Roots::default();
        rules.for_each(|rule| roots.add_all(rule.roots));
        if !self.detectors.is_empty() {
            roots.add_all(Roots::OF_BODIES);
        }
        roots
    }

    /// Returns the id of the policy with a key of this id. Equal policies have equal ids, whatever
    /// the order and the spelling of their settings.
    pub(crate) fn id(&self, key: KeyId) -> u64 {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(ID_DOMAIN);
        hash.update(&key.0);
        hash.update(self.text.as_bytes());
        let hash = hash.finish();
        hash.as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
    }

    /// Returns the graph of the paths for a kind of record.
    pub(crate) fn graph(&self, form: Form) -> &Graph {
        match form {
            Form::Event => &self.of_event,
            Form::GoogleEntry => &self.of_entry,
        }
    }

    /// Returns the patterns that apply to an event with this target.
    pub(crate) fn applicable(&self, form: Form, cluster: &str, target: &Target<'_>) -> Patterns {
        let mut patterns = Patterns::default();
        for rule in self.rules.iter().filter(|rule| rule.is_about(cluster, target)) {
            let own = match form {
                Form::Event => rule.of_event.clone(),
                Form::GoogleEntry => rule.of_entry.clone(),
            };
            own.for_each(|index| patterns.add(index));
        }
        patterns
    }

    /// Returns the detectors, each with the index of its label.
    pub(crate) fn detectors(&self) -> impl Iterator<Item = (&'static Detector, u16)> + '_ {
        let first = self.labels.len() - self.detectors.len();
        self.detectors.iter().copied().zip((first..).map(index))
    }

    /// Returns the index of the label of a path; `None` if the policy does not have the path.
    pub(crate) fn label_of(&self, path: &str) -> Option<u16> {
        self.labels.iter().position(|label| label == path).map(index)
    }

    /// Returns the names of the query parameters that the policy may change, in lower case; `None`
    /// if it may change any parameter. Selectors are included if they may contain a value of a
    /// body.
    pub(crate) fn parameters(&self) -> Option<Vec<String>> {
        let mut names = BTreeSet::new();
        for path in self.labels.iter().filter_map(|label| Path::parse(label).ok()) {
            match (path.root, path.steps.first()) {
                (Root::RequestUri, Some(Step::Name(name))) => drop(names.insert(name.to_ascii_lowercase())),
                (Root::RequestUri, _) => return None,
                (Root::RequestObject | Root::ResponseObject, first) => {
                    names.insert(FIELD_SELECTOR.to_owned());
                    // A label selector contains values of `metadata.labels`.
                    if !matches!(first, Some(Step::Name(name)) if !name.eq_ignore_ascii_case("metadata")) {
                        names.insert(LABEL_SELECTOR.to_owned());
                    }
                }
                _ => {}
            }
        }
        Some(names.into_iter().collect())
    }

    pub(crate) fn label(&self, index: u16) -> &str {
        self.labels.get(usize::from(index)).map_or("", String::as_str)
    }
}

impl Keys {
    /// Loads the keys that a policy names.
    ///
    /// # Errors
    /// Every [`KeyError`], not only the first one.
    pub fn load(policy: &Policy) -> Result<Keys, Vec<KeyError>> {
        let mut errors = Vec::new();
        let mut loaded = Vec::new();
        for source in std::iter::once(policy.key()).chain(policy.old_keys()) {
            match source.load() {
                Ok(key) => loaded.push(key),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let current = loaded.remove(0);
        Keys::new(current, loaded).map_err(|error| vec![error])
    }
}

/// Converts an index. It fits, because the number of labels is bounded by [`PATHS_MAX`].
fn index(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

impl Rule {
    /// Returns true if the rule applies to requests with this target. This is called for every row,
    /// so the resource, which excludes most rows, is compared first.
    fn is_about(&self, cluster: &str, target: &Target<'_>) -> bool {
        let target = target.said();
        let any =
            |globs: &[Glob], text: &str| globs.is_empty() || globs.iter().any(|glob| glob.matches(text));
        let is_resource = match target.resource {
            None => true,
            Some(resource) => {
                // A core resource has no group. If the group cannot be read, the rule applies
                // whatever the group may be.
                let is_group = |own: &Glob| target.api_group.is_none_or(|group| own.matches(group));
                let (revisions, group, revised) = REVISIONS;
                let is_revision = resource == revisions && target.api_group.is_none_or(|own| own == group);
                let matches = |own: &Glob| {
                    own.matches(resource) || is_revision && revised.iter().any(|revised| own.matches(revised))
                };
                self.resources.is_empty()
                    || self.resources.iter().any(|(group, own)| matches(own) && is_group(group))
            }
        };
        is_resource
            && match (target.namespace, target.name) {
                (Some(namespace), _) => any(&self.namespaces, namespace),
                // An object with a name and without a namespace is in no namespace. If the name is
                // missing, too, the request may be about objects of all namespaces.
                (None, Some(_)) => self.namespaces.is_empty() || self.namespaces.contains(&Glob::Any),
                (None, None) => true,
            }
            && any(&self.clusters, cluster)
    }
}

/// A text in which each `*` stands for any number of any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Glob {
    Any,
    Text(String),
    /// The parts between the stars; there are at least two.
    Parts(Vec<String>),
}

impl Glob {
    fn new(text: &str) -> Glob {
        match text {
            "*" => Glob::Any,
            text if text.contains('*') => Glob::Parts(text.split('*').map(str::to_owned).collect()),
            text => Glob::Text(text.to_owned()),
        }
    }

    fn matches(&self, text: &str) -> bool {
        let parts = match self {
            Glob::Any => return true,
            Glob::Text(own) => return own == text,
            Glob::Parts(parts) => parts,
        };
        let [first, middle @ .., last] = parts.as_slice() else { return false };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }
}

/// Checks rules, and collects them and all mistakes.
#[derive(Default)]
struct Maker {
    errors: Vec<PolicyError>,
    rules: Vec<Rule>,
    of_event: Vec<Pattern>,
    of_entry: Vec<Pattern>,
    labels: Vec<String>,
    lines: BTreeSet<String>,
    paths: usize,
}

impl Maker {
    fn mistake(&mut self, place: &str, what: &str) {
        self.errors.push(PolicyError { place: place.to_owned(), what: what.to_owned() });
    }

    fn source(&mut self, place: &str, text: &str) -> Option<KeySource> {
        // If the text is a key itself, the error does not repeat it.
        KeySource::parse(text).map_err(|error| self.mistake(place, &error.to_string())).ok()
    }

    fn rule(&mut self, place: &str, settings: &RuleSettings) {
        let action = Action::ALL.into_iter().find(|action| action.as_str() == settings.action);
        if action.is_none() {
            self.mistake(
                &format!("{place}.action"),
                &format!("{:?} is not drop or tokenise", settings.action),
            );
        }
        if settings.paths.is_empty() {
            self.mistake(&format!("{place}.paths"), "has no path");
        }
        for (key, globs) in [
            ("clusters", &settings.clusters),
            ("namespaces", &settings.namespaces),
            ("resources", &settings.resources),
        ] {
            if globs.len() > GLOBS_MAX {
                self.mistake(&format!("{place}.{key}"), &format!("has more than {GLOBS_MAX} entries"));
            }
            for (at, glob) in globs.iter().enumerate() {
                if let Some(what) = glob_mistake(key, glob) {
                    self.mistake(&format!("{place}.{key}[{at}]"), what);
                }
            }
        }
        let mut paths = Vec::new();
        for (at, text) in settings.paths.iter().enumerate() {
            let place = format!("{place}.paths[{at}]");
            match Path::parse(text) {
                Err(error) => self.mistake(&place, &error.to_string()),
                Ok(path) => match action.and_then(|action| unkeepable(&path, action)) {
                    Some(what) => self.mistake(&place, what),
                    None => paths.push(path),
                },
            }
        }
        self.paths += paths.len();
        let Some(action) = action.filter(|_| self.errors.is_empty()) else { return };
        let sorted =
            |globs: &[String]| globs.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        let (clusters, namespaces, resources) =
            (sorted(&settings.clusters), sorted(&settings.namespaces), sorted(&settings.resources));
        let (first_of_event, first_of_entry) = (self.of_event.len(), self.of_entry.len());
        let (mut roots, mut named) = (Roots::default(), Roots::default());
        for path in &paths {
            let text = path.to_string();
            self.lines
                .insert(format!("{} {text} {clusters:?} {namespaces:?} {resources:?}", action.as_str()));
            let label = self.labels.iter().position(|known| *known == text).unwrap_or_else(|| {
                self.labels.push(text);
                self.labels.len() - 1
            });
            roots.add(path.root);
            named.add(path.root);
            if matches!(path.root, Root::RequestObject | Root::ResponseObject | Root::UserName) {
                roots.add_all(Roots::OF_BODIES);
            }
            if matches!(path.root, Root::RequestObject | Root::ResponseObject) {
                roots.add(Root::RequestUri);
            }
            let pattern = |(before, body_steps): &(&[&str], usize)| Pattern {
                steps: before
                    .iter()
                    .map(|name| match *name {
                        BELOW => Step::AnyDepth,
                        name => Step::Name(name.to_owned()),
                    })
                    .chain(path.steps.iter().cloned())
                    .collect(),
                action,
                // A claim about a user is not the user's name, so it gets a label of its own.
                label: if before.contains(&BELOW) { Implied::Claim.label() } else { index(label) },
                body_steps: *body_steps,
            };
            self.of_event.extend(in_event(path.root).iter().map(pattern));
            self.of_entry.extend(in_entry(path.root).iter().map(pattern));
        }
        self.rules.push(Rule {
            clusters: clusters.iter().map(|text| Glob::new(text)).collect(),
            namespaces: namespaces.iter().map(|text| Glob::new(text)).collect(),
            resources: resources
                .iter()
                .map(|text| {
                    let (group, resource) = text.split_once('/').unwrap_or(("*", text));
                    (Glob::new(group), Glob::new(resource))
                })
                .collect(),
            roots,
            named,
            of_event: first_of_event..self.of_event.len(),
            of_entry: first_of_entry..self.of_entry.len(),
        });
    }
}

/// Returns what is wrong with a glob; `None` if it is valid.
fn glob_mistake(key: &str, glob: &str) -> Option<&'static str> {
    let slashes = glob.matches('/').count();
    if glob.is_empty() {
        Some("is empty; leave the list out to apply to all")
    } else if glob.len() > GLOB_BYTES_MAX {
        Some("is too long")
    } else if key == "resources" && (slashes > 1 || glob.starts_with('/') || glob.ends_with('/')) {
        Some(
            "is not resource or group/resource; a rule is about all subresources, and the core group is core",
        )
    } else if key == "namespaces" && slashes > 0 {
        Some("is not a namespace")
    } else if key == "resources" && glob.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Some("is not a resource: resources are plural and in lower case, such as secrets")
    } else {
        None
    }
}

/// Returns why a path cannot have an action: the edited event would no longer be a valid event.
fn unkeepable(path: &Path, action: Action) -> Option<&'static str> {
    match (path.root, action) {
        (Root::UserName, Action::Drop) => {
            Some("cannot be dropped, because every rule asks who acted; tokenise it")
        }
        (
            Root::Annotations | Root::UserExtra | Root::ImpersonatedUserExtra | Root::StatusDetails,
            Action::Tokenise,
        ) if path.steps.is_empty() => {
            Some("is an object, which a token cannot replace; name its members, such as .*, or drop it")
        }
        _ => None,
    }
}

/// A step in [`Places`] that stands for every value below.
const BELOW: &str = "**";

type Places = &'static [(&'static [&'static str], usize)];

/// Returns where the value of a root is in an event.
fn in_event(root: Root) -> Places {
    match root {
        Root::RequestObject => &[(&["requestObject"], 1)],
        Root::ResponseObject => &[(&["responseObject"], 1)],
        Root::Annotations => &[(&["annotations"], 0)],
        Root::StatusMessage => &[(&["responseStatus", "message"], 0)],
        Root::StatusDetails => &[(&["responseStatus", "details"], 0)],
        Root::UserExtra => &[(&["user", "extra"], 0)],
        Root::ImpersonatedUserExtra => &[(&["impersonatedUser", "extra"], 0)],
        Root::UserName => &[(&["user", "username"], 0), (&["impersonatedUser", "username"], 0)],
        Root::RequestUri => &[(&["requestURI"], 0)],
    }
}

/// Returns where the value of a root is in an entry of Google Cloud Logging. Such an entry has no
/// `extra` and no URI.
fn in_entry(root: Root) -> Places {
    match root {
        Root::RequestObject => &[(&["protoPayload", "request"], 2)],
        Root::ResponseObject => {
            &[(&["protoPayload", "response"], 2), (&["protoPayload", "resourceOriginalState"], 2)]
        }
        Root::Annotations => &[(&["labels"], 0)],
        Root::StatusMessage => {
            &[(&["protoPayload", "status", "message"], 0), (&["protoPayload", "response", "message"], 0)]
        }
        Root::StatusDetails => {
            &[(&["protoPayload", "status", "details"], 0), (&["protoPayload", "response", "details"], 0)]
        }
        Root::UserName => &[
            (&["protoPayload", "authenticationInfo", "principalEmail"], 0),
            (&["protoPayload", "authenticationInfo", "principalSubject"], 0),
            // The principals on whose behalf a service account acted, and the key of the account,
            // because the key's name contains the account's name.
            (&["protoPayload", "authenticationInfo", "thirdPartyPrincipal", BELOW], 0),
            (&["protoPayload", "authenticationInfo", "serviceAccountKeyName"], 0),
            (&["protoPayload", "authenticationInfo", "serviceAccountDelegationInfo", "principalSubject"], 0),
            (
                &[
                    "protoPayload",
                    "authenticationInfo",
                    "serviceAccountDelegationInfo",
                    "firstPartyPrincipal",
                    "principalEmail",
                ],
                0,
            ),
            (
                &[
                    "protoPayload",
                    "authenticationInfo",
                    "serviceAccountDelegationInfo",
                    "thirdPartyPrincipal",
                    BELOW,
                ],
                0,
            ),
        ],
        Root::UserExtra | Root::ImpersonatedUserExtra | Root::RequestUri => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            key: Some("env:KEY".to_owned()),
            presets: vec!["secrets".to_owned()],
            ..Settings::default()
        }
    }

    fn places(settings: &Settings) -> Vec<String> {
        let errors = Policy::new(settings).map(|_| ()).expect_err("mistakes");
        errors.into_iter().map(|error| error.place).collect()
    }

    fn rule(action: &str, paths: &[&str]) -> RuleSettings {
        RuleSettings {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            action: action.to_owned(),
            ..RuleSettings::default()
        }
    }

    #[test]
    fn globs() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "acb", false),
            ("**", "x", true),
        ] {
            assert_eq!(Glob::new(glob).matches(text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn every_mistake_has_its_place() {
        assert!(Policy::new(&settings()).is_ok());
        let mut wrong = Settings {
            key: Some("/etc/key".to_owned()),
            old_keys: vec!["env:OLD".to_owned(), String::new()],
            presets: vec!["secret".to_owned()],
            detectors: vec!["email".to_owned(), "phone".to_owned()],
            rules: vec![
                RuleSettings { clusters: vec![String::new()], ..rule("hash", &[]) },
                RuleSettings {
                    namespaces: vec!["a/b".to_owned()],
                    resources: vec!["Secrets".to_owned(), "a/b/c".to_owned(), "pods".to_owned()],
                    ..rule("drop", &["requestObject.data.*", "data", "user.username"])
                },
                rule("tokenise", &["annotations", "user.username", "user.extra.*"]),
            ],
        };
        assert_eq!(
            places(&wrong),
            [
                "key",
                "old_keys[1]",
                "presets[0]",
                "rules[0].action",
                "rules[0].paths",
                "rules[0].clusters[0]",
                "rules[1].namespaces[0]",
                "rules[1].resources[0]",
                "rules[1].resources[1]",
                "rules[1].paths[1]",
                "rules[1].paths[2]",
                "rules[2].paths[0]",
                "detectors[1]",
            ]
        );
        wrong = Settings { key: None, ..settings() };
        assert_eq!(places(&wrong), ["key"]);
        assert_eq!(places(&Settings { presets: Vec::new(), ..settings() }), ["rules"]);
        let many = vec![rule("drop", &["requestObject.a"]); RULES_MAX];
        assert_eq!(places(&Settings { rules: many, ..settings() }), ["rules"]);
        let paths: Vec<String> = (0..=PATHS_MAX).map(|at| format!("requestObject.a{at}")).collect();
        let long = RuleSettings { paths, ..rule("drop", &[]) };
        assert_eq!(places(&Settings { rules: vec![long], ..settings() }), ["rules"]);
    }

    #[test]
    fn no_error_repeats_a_key() {
        let secret = "0123456789abcdef".repeat(4);
        let errors =
            Policy::new(&Settings { key: Some(secret.clone()), ..settings() }).expect_err("a mistake");
        assert!(!format!("{errors:?}").contains(&secret));
    }

    #[test]
    fn labels_are_for_people() {
        let policy = Policy::new(&Settings {
            detectors: vec!["us-ssn".to_owned(), "email".to_owned(), "email".to_owned()],
            rules: vec![rule("tokenise", &["user.username"])],
            ..settings()
        })
        .expect("a policy");
        let label = policy.label_of("user.username").expect("a label");
        assert_eq!(policy.label(label), "user.username");
        let detectors: Vec<&str> = policy.detectors().map(|(_, label)| policy.label(label)).collect();
        assert_eq!(detectors, ["detector email", "detector us-ssn"]);
        assert_eq!(policy.label(Implied::Message.label()), "message that may quote a value");
        assert_eq!(policy.label(u16::MAX), "");
    }
}
