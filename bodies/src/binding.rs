//! Decides whether a role binding is for somebody, by the names that an authenticated request has.
//!
//! Invariant: a service account is named as the user that it authenticates as. A subject whose kind
//! is not in the body, because a patch changes only its name, may be a user, a group or a service
//! account. No state.

use serde_json::Value;

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const ALL_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// Somebody who sent a request, or whom the sender impersonates.
#[derive(Clone, Debug, Default)]
pub struct Identity<'i> {
    pub user: Option<&'i str>,
    pub groups: Vec<&'i str>,
}

impl Identity<'_> {
    fn is_user(&self, name: &str) -> bool {
        self.user == Some(name)
    }

    /// Returns true if the identity is in a group. Either the event lists the group, or the group
    /// follows from the name of the user, because not every log lists groups.
    fn is_in(&self, group: &str) -> bool {
        if self.groups.contains(&group) {
            return true;
        }
        let Some(user) = self.user else { return false };
        let namespace = user.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split(':').next());
        match group {
            "system:authenticated" => user != "system:anonymous",
            "system:unauthenticated" => user == "system:anonymous",
            ALL_SERVICE_ACCOUNTS => namespace.is_some(),
            _ => namespace.is_some_and(|namespace| {
                group.strip_prefix(ALL_SERVICE_ACCOUNTS).and_then(|rest| rest.strip_prefix(':'))
                    == Some(namespace)
            }),
        }
    }
}

/// Returns true if the body of a binding names one of several identities, or a group that one of
/// them is in. `namespace` is that of the binding, for subjects that have none.
pub fn names(binding: &Value, namespace: Option<&str>, identities: &[Identity<'_>]) -> bool {
    let user = |name: &str| identities.iter().any(|identity| identity.is_user(name));
    let group = |name: &str| identities.iter().any(|identity| identity.is_in(name));
    let listed = |key: &str| binding.get(key).and_then(Value::as_array).into_iter().flatten();
    let is_named = |subject: &Value| {
        let text = |key: &str| subject.get(key).and_then(Value::as_str);
        let Some(name) = text("name") else { return false };
        let account = || match text("namespace").or(namespace) {
            Some(namespace) => user(&format!("{SERVICE_ACCOUNT}{namespace}:{name}")),
            None => false,
        };
        match text("kind") {
            Some("User") => user(name),
            Some("Group") => group(name),
            Some("ServiceAccount") => account(),
            Some(_) => false,
            None => user(name) || group(name) || account(),
        }
    };
    // OpenShift's own API of the same name has two lists of names beside the subjects.
    listed("subjects").any(is_named)
        || listed("userNames").filter_map(Value::as_str).any(user)
        || listed("groupNames").filter_map(Value::as_str).any(group)
}

/// Members of a binding that [`names`] reads.
pub const SUBJECT_LISTS: [&str; 3] = ["subjects", "userNames", "groupNames"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity<'i>(user: &'i str, groups: &[&'i str]) -> Identity<'i> {
        Identity { user: Some(user), groups: groups.to_vec() }
    }

    #[test]
    fn every_way_to_name_oneself() {
        let account = "system:serviceaccount:ci:runner";
        for (subject, user, groups, expected) in [
            (json!({"kind": "User", "name": "eve"}), "eve", vec![], true),
            (json!({"kind": "User", "name": "Eve"}), "eve", vec![], false),
            (json!({"kind": "Group", "name": "eve"}), "eve", vec![], false),
            (json!({"kind": "Group", "name": "dev"}), "eve", vec!["dev"], true),
            (json!({"kind": "Group", "name": "system:authenticated"}), "eve", vec![], true),
            (json!({"kind": "Group", "name": "system:authenticated"}), "system:anonymous", vec![], false),
            (json!({"kind": "Group", "name": "system:unauthenticated"}), "system:anonymous", vec![], true),
            (json!({"kind": "ServiceAccount", "name": "runner", "namespace": "ci"}), account, vec![], true),
            (json!({"kind": "ServiceAccount", "name": "runner"}), account, vec![], true),
            (json!({"kind": "ServiceAccount", "name": "runner", "namespace": "x"}), account, vec![], false),
            (json!({"kind": "User", "name": account}), account, vec![], true),
            (json!({"kind": "Group", "name": "system:serviceaccounts"}), account, vec![], true),
            (json!({"kind": "Group", "name": "system:serviceaccounts:ci"}), account, vec![], true),
            (json!({"kind": "Group", "name": "system:serviceaccounts:c"}), account, vec![], false),
            (json!({"kind": "Group", "name": "system:serviceaccounts"}), "eve", vec![], false),
            (json!({"name": "runner"}), account, vec![], true),
            (json!({"name": "dev"}), "eve", vec!["dev"], true),
            (json!({"kind": "User"}), "eve", vec![], false),
            (json!("eve"), "eve", vec![], false),
        ] {
            let binding = json!({"subjects": [{"kind": "User", "name": "other"}, subject]});
            let identities = [Identity::default(), identity(user, &groups)];
            assert_eq!(names(&binding, Some("ci"), &identities), expected, "{binding} {user} {groups:?}");
        }
        let of_openshift = json!({"userNames": ["eve"], "groupNames": ["dev"]});
        assert!(names(&of_openshift, None, &[identity("eve", &[])]));
        assert!(names(&of_openshift, None, &[identity("x", &["dev"])]));
        assert!(!names(&of_openshift, None, &[identity("x", &["y"])]));
        assert!(!names(&json!([]), None, &[identity("x", &["y"])]));
    }
}
