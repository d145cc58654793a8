//! The sets of rules that ship with the program, by name.
//!
//! Invariant: every preset is a set of rules that [`crate::Policy`] accepts; a test checks that.

use crate::settings::RuleSettings;

/// A named set of rules, all with the action `drop`.
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    rules: &'static [(&'static [&'static str], &'static [&'static str])],
}

/// The names of the presets.
pub const PRESETS: [&str; 4] = ["secrets", "configmaps", "env", "exec"];

/// Resources that are pods or contain templates of pods.
const WORKLOADS: [&str; 5] =
    ["core/pods", "core/podtemplates", "core/replicationcontrollers", "apps/*", "batch/*"];

const ALL: [Preset; PRESETS.len()] = [
    Preset {
        name: "secrets",
        rules: &[
            (
                &["core/secrets"],
                &[
                    "requestObject.data.*",
                    "requestObject.stringData.*",
                    "responseObject.data.*",
                    "responseObject.stringData.*",
                ],
            ),
            (&["core/serviceaccounts"], &["requestObject.status.token", "responseObject.status.token"]),
            (
                &["authentication.k8s.io/tokenreviews"],
                &["requestObject.spec.token", "responseObject.spec.token"],
            ),
            (
                &["oauth.openshift.io/oauthclients"],
                &[
                    "requestObject.secret",
                    "requestObject.additionalSecrets[]",
                    "responseObject.secret",
                    "responseObject.additionalSecrets[]",
                ],
            ),
            (&["route.openshift.io/routes"], &["requestObject.spec.tls.key", "responseObject.spec.tls.key"]),
        ],
    },
    Preset {
        name: "configmaps",
        rules: &[(
            &["core/configmaps"],
            &[
                "requestObject.data.*",
                "requestObject.binaryData.*",
                "responseObject.data.*",
                "responseObject.binaryData.*",
            ],
        )],
    },
    Preset {
        name: "env",
        rules: &[(&WORKLOADS, &["requestObject.**.env[].value", "responseObject.**.env[].value"])],
    },
    Preset {
        name: "exec",
        rules: &[(
            &["core/pods"],
            &["requestURI.command", "requestObject.command[]", "responseObject.command[]"],
        )],
    },
];

/// Returns the rules of a preset.
pub(crate) fn rules(name: &str) -> Option<impl Iterator<Item = RuleSettings>> {
    let preset = ALL.iter().find(|preset| preset.name == name)?;
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    Some(preset.rules.iter().map(move |(resources, paths)| RuleSettings {
        resources: owned(resources),
        paths: owned(paths),
        action: "drop".to_owned(),
        ..RuleSettings::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_preset() {
        assert_eq!(PRESETS, ALL.each_ref().map(|preset| preset.name));
        assert!(rules("secrets").expect("rules").count() == 5 && rules("secret").is_none());
    }
}
