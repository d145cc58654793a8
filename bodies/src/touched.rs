//! Decides whether a request writes or removes something at a path that a rule reads.
//!
//! A patch shows a part of an object: an operation on `/rules/0/verbs` does not show which
//! resources the verbs are for. If the response has the whole object, a rule can judge that object
//! instead. It may do so only if the request touched what the rule reads, because the response to
//! any later patch of the object has the same values.
//!
//! Invariant: a path is touched if the request writes or removes a value at the path or below it,
//! or a whole value above it that has the path. Positions in arrays do not count. No state.

use crate::binding::SUBJECT_LISTS;
use crate::body::Examined;
use crate::walk::{self, CONTAINER_LISTS, Pod};

/// The member of a binding that names its role. The API server never changes the role of a binding,
/// so a change of its subjects counts as a change at the role's path.
const ROLE: &str = "roleRef";

/// Returns true if a request writes or removes something at a path of its object.
pub fn touches(request: &Examined, path: &[String]) -> bool {
    let writes = |path: &[String]| walk::any_at(Some(&request.value), path, &mut |value| value.is_some());
    let is_role = path.first().is_some_and(|first| first == ROLE);
    writes(path)
        || (is_role && SUBJECT_LISTS.iter().any(|list| writes(&[(*list).to_owned()])))
        || removed_keys(request).any(|keys| is_above_or_below(&keys, path))
}

/// Like [`touches`], for a path below the pod spec.
pub fn touches_pod(request: &Examined, resource: &str, path: &[String]) -> bool {
    let pod = Pod::of(resource, Some(&request.value));
    pod.any_at(path, &mut |value| value.is_some())
        || removed_keys(request).any(|keys| {
            let template = Pod::template_path(resource);
            if keys.len() <= template.len() {
                return is_above_or_below(&keys, template);
            }
            if !is_above_or_below(&keys[..template.len()], template) {
                return false;
            }
            let mut keys = keys[template.len()..].to_vec();
            match keys[0].as_str() {
                "spec" => _ = keys.remove(0),
                "metadata" => {}
                _ => return false,
            }
            if let Some(first) = keys.first_mut().filter(|first| CONTAINER_LISTS.contains(&first.as_str())) {
                "containers".clone_into(first);
            }
            is_above_or_below(&keys, path)
        })
}

/// Returns the keys of each place that a request removes, without positions in arrays.
fn removed_keys(request: &Examined) -> impl Iterator<Item = Vec<String>> {
    request.removes().iter().map(|pointer| {
        let keys = pointer.split('/').skip(1).filter(|key| !is_position(key));
        keys.map(|key| key.replace("~1", "/").replace("~0", "~")).collect()
    })
}

fn is_position(key: &str) -> bool {
    key == "-" || key.parse::<i64>().is_ok()
}

/// Returns true if one of the two paths is a beginning of the other, or both are equal.
fn is_above_or_below<T: AsRef<str>>(keys: &[String], path: &[T]) -> bool {
    keys.iter().zip(path).all(|(key, part)| key == part.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Path;
    use crate::body::examine;

    fn touched(body: &str, path: &str) -> bool {
        touches(&examine(body).expect("a body"), &Path::parse(path).0)
    }

    fn pod_touched(body: &str, resource: &str, path: &str) -> bool {
        touches_pod(&examine(body).expect("a body"), resource, &Path::parse(path).0)
    }

    #[test]
    fn what_is_written_and_removed_is_touched() {
        for body in [
            r#"{"rules":[{"verbs":["get"]}]}"#,
            r#"{"rules":[{"verbs":["get"],"resources":["pods"]}],"metadata":{}}"#,
            r#"[{"op":"add","path":"/rules/0/verbs/-","value":"*"}]"#,
            r#"[{"op":"replace","path":"/rules/0/verbs","value":["*"]}]"#,
            r#"[{"op":"add","path":"/rules/-","value":{"verbs":["*"]}}]"#,
            r#"[{"op":"remove","path":"/rules/0/verbs/3"}]"#,
            r#"[{"op":"remove","path":"/rules/0"}]"#,
            r#"{"rules":null}"#,
        ] {
            assert!(touched(body, "rules.verbs"), "{body}");
        }
        for body in [
            r#"{"metadata":{"labels":{"a":"b"}}}"#,
            r#"[{"op":"replace","path":"/rules/0/resourceNames","value":["x"]}]"#,
            r#"[{"op":"remove","path":"/rules/0/resourceNames"}]"#,
            r#"[{"op":"remove","path":"/metadata/labels/a"}]"#,
            r#"{"metadata":{"labels":null}}"#,
        ] {
            assert!(!touched(body, "rules.verbs"), "{body}");
        }
    }

    #[test]
    fn the_role_of_a_binding_is_touched_with_its_subjects() {
        let added = r#"[{"op":"add","path":"/subjects/-","value":{"kind":"User","name":"eve"}}]"#;
        assert!(touched(added, "roleRef.name"));
        assert!(!touched(r#"[{"op":"remove","path":"/subjects/0"}]"#, "roleRef.name"));
        assert!(!touched(r#"{"metadata":{"labels":{"a":"b"}}}"#, "roleRef.name"));
    }

    #[test]
    fn a_pod_is_touched_wherever_its_template_is() {
        let privileged = "containers.securityContext.privileged";
        for (resource, template) in [
            ("pods", ""),
            ("deployments", "/spec/template"),
            ("cronjobs", "/spec/jobTemplate/spec/template"),
            ("podtemplates", "/template"),
        ] {
            for list in CONTAINER_LISTS {
                let write = format!(
                    r#"[{{"op":"add","path":"{template}/spec/{list}/0/securityContext","value":{{"privileged":true}}}}]"#
                );
                assert!(pod_touched(&write, resource, privileged), "{write}");
                let image =
                    format!(r#"[{{"op":"replace","path":"{template}/spec/{list}/0/image","value":"i"}}]"#);
                assert!(!pod_touched(&image, resource, privileged), "{image}");
                assert!(pod_touched(&image, resource, "containers.image"), "{image}");
                let remove =
                    format!(r#"[{{"op":"remove","path":"{template}/spec/{list}/0/securityContext"}}]"#);
                assert!(pod_touched(&remove, resource, privileged), "{remove}");
                assert!(!pod_touched(&remove, resource, "containers.image"), "{remove}");
                assert!(!pod_touched(&remove, resource, "hostNetwork"), "{remove}");
            }
            let label = format!(r#"[{{"op":"remove","path":"{template}/metadata/labels/a"}}]"#);
            assert!(!pod_touched(&label, resource, privileged), "{label}");
            assert!(pod_touched(&label, resource, "metadata.labels"), "{label}");
        }
        assert!(pod_touched(r#"[{"op":"remove","path":"/spec"}]"#, "deployments", privileged));
        assert!(!pod_touched(r#"[{"op":"remove","path":"/spec/replicas"}]"#, "deployments", privileged));
    }
}
