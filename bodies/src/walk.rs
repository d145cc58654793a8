//! Follows paths through JSON values, and finds the pod spec of any kind of object that has one.
//!
//! Invariant: a path reaches every value that it can stand for: through arrays, through keys with
//! dots, and for `pod.…` in pods and in every workload's template. Recursion is bounded by the depth
//! of the value, which the parser limits. No state.

use serde_json::{Map, Value};

/// Calls `see` with each value that a path leads to, until `see` returns true. Returns true if it
/// did.
///
/// A path continues in each element of an array. For each missing key and each empty array on the
/// path, `see` is called once, with `None`.
pub fn any_at<'v>(
    value: Option<&'v Value>,
    path: &[String],
    see: &mut dyn FnMut(Option<&'v Value>) -> bool,
) -> bool {
    match (value, path) {
        (Some(Value::Array(items)), []) => {
            if items.is_empty() {
                see(None)
            } else {
                items.iter().any(|item| any_at(Some(item), path, see))
            }
        }
        (_, []) => see(value),
        (Some(Value::Object(object)), [key, rest @ ..]) => match object.get(key) {
            Some(inner) => any_at(Some(inner), rest, see),
            None => match joined_key(object, path) {
                Some((inner, rest)) => any_at(Some(inner), rest, see),
                None => see(None),
            },
        },
        (Some(Value::Array(items)), [key, rest @ ..]) => match key.parse::<usize>() {
            Ok(at) => any_at(items.get(at), rest, see),
            Err(_) if items.is_empty() => see(None),
            Err(_) => items.iter().any(|item| any_at(Some(item), path, see)),
        },
        _ => see(None),
    }
}

/// Returns the member whose key is the first two or more parts of a path, joined by dots; and the
/// rest of the path.
fn joined_key<'v, 'p>(
    object: &'v Map<String, Value>,
    path: &'p [String],
) -> Option<(&'v Value, &'p [String])> {
    let mut key = path.first()?.clone();
    for (at, part) in path.iter().enumerate().skip(1) {
        key.push('.');
        key.push_str(part);
        if let Some(value) = object.get(&key) {
            return Some((value, &path[at + 1..]));
        }
    }
    None
}

/// Adds the elements of the arrays that a path leads to, to `out`. A value that is not an array is
/// added as if it were the only element of one.
pub fn elements<'v>(value: Option<&'v Value>, path: &[String], out: &mut Vec<&'v Value>) {
    match (value, path) {
        (None | Some(Value::Null), _) => {}
        (Some(Value::Array(items)), []) => out.extend(items),
        (Some(value), []) => out.push(value),
        (Some(Value::Object(object)), [key, rest @ ..]) => match object.get(key) {
            Some(inner) => elements(Some(inner), rest, out),
            None => {
                if let Some((inner, rest)) = joined_key(object, path) {
                    elements(Some(inner), rest, out);
                }
            }
        },
        (Some(Value::Array(items)), [key, rest @ ..]) => match key.parse::<usize>() {
            Ok(at) => elements(items.get(at), rest, out),
            Err(_) => items.iter().for_each(|item| elements(Some(item), path, out)),
        },
        _ => {}
    }
}

/// The parts of an object that `pod.…` fields refer to.
pub struct Pod<'v> {
    spec: Option<&'v Value>,
    metadata: Option<&'v Value>,
}

/// Lists of containers that `pod.containers` joins.
pub(crate) const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Each resource with a known pod, and the path to the pod or its template in an object.
const PODS: [(&str, &[&str]); 9] = [
    ("pods", &[]),
    ("cronjobs", &["spec", "jobTemplate", "spec", "template"]),
    ("podtemplates", &["template"]),
    ("deployments", TEMPLATE),
    ("daemonsets", TEMPLATE),
    ("statefulsets", TEMPLATE),
    ("replicasets", TEMPLATE),
    ("replicationcontrollers", TEMPLATE),
    ("jobs", TEMPLATE),
];
const TEMPLATE: &[&str] = &["spec", "template"];

impl<'v> Pod<'v> {
    /// Returns the path to the pod, or to its template, in the objects of a resource.
    pub(crate) fn template_path(resource: &str) -> &'static [&'static str] {
        PODS.iter().find(|(known, _)| *known == resource).map_or(TEMPLATE, |(_, path)| path)
    }

    /// Finds the pod in a request body by the resource of the request.
    ///
    /// An unknown resource has a pod if `spec.template.spec` has containers, like the workloads of
    /// many operators.
    pub fn of(resource: &str, body: Option<&'v Value>) -> Pod<'v> {
        let template = Pod::template_path(resource).iter().try_fold(body, |value, key| Some(value?.get(key)));
        let template = template.flatten().filter(|template| {
            let spec = template.get("spec");
            PODS.iter().any(|(known, _)| *known == resource)
                || spec.is_some_and(|spec| CONTAINER_LISTS.iter().any(|list| spec.get(list).is_some()))
        });
        Pod {
            spec: template.and_then(|template| template.get("spec")),
            metadata: template.and_then(|template| template.get("metadata")),
        }
    }

    /// Like [`any_at`], for a path below the pod spec. `containers` joins all kinds of containers,
    /// and `metadata` is the metadata of the pod or of its template.
    pub fn any_at(&self, path: &[String], see: &mut dyn FnMut(Option<&'v Value>) -> bool) -> bool {
        match path.split_first() {
            Some((head, rest)) if head == "containers" => {
                let mut containers = Vec::new();
                self.containers(&mut containers);
                if containers.is_empty() {
                    see(None)
                } else {
                    containers.into_iter().any(|container| any_at(Some(container), rest, see))
                }
            }
            Some((head, rest)) if head == "metadata" => any_at(self.metadata, rest, see),
            _ => any_at(self.spec, path, see),
        }
    }

    /// Like [`elements`], for the paths of [`Pod::any_at`].
    pub fn elements(&self, path: &[String], out: &mut Vec<&'v Value>) {
        match path.split_first() {
            Some((head, rest)) if head == "containers" => {
                let mut containers = Vec::new();
                self.containers(&mut containers);
                match rest {
                    [] => out.extend(containers),
                    _ => containers.into_iter().for_each(|container| elements(Some(container), rest, out)),
                }
            }
            Some((head, rest)) if head == "metadata" => elements(self.metadata, rest, out),
            _ => elements(self.spec, path, out),
        }
    }

    fn containers(&self, out: &mut Vec<&'v Value>) {
        for list in CONTAINER_LISTS {
            elements(self.spec.and_then(|spec| spec.get(list)), &[], out);
        }
    }
}

/// Calls `see` with each scalar in a value, but not with keys of objects, until `see` returns true.
/// Returns true if it did.
pub fn any_text(value: &Value, see: &mut dyn FnMut(&Value) -> bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| any_text(item, see)),
        Value::Object(object) => object.values().any(|item| any_text(item, see)),
        scalar => see(scalar),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Path;

    fn seen(value: &Value, path: &str) -> Vec<Option<Value>> {
        let mut seen = Vec::new();
        any_at(Some(value), &Path::parse(path).0, &mut |v| {
            seen.push(v.cloned());
            false
        });
        seen
    }

    #[test]
    fn paths_walk_through_arrays() {
        let value =
            json!({"rules": [{"verbs": ["get", "list"]}, {"verbs": []}, {}], "a.b": {"c.d": 1}, "n": null});
        assert_eq!(seen(&value, "rules.verbs"), [Some(json!("get")), Some(json!("list")), None, None]);
        assert_eq!(seen(&value, "rules.1.verbs"), [None]);
        assert_eq!(seen(&value, "rules.0.verbs.1"), [Some(json!("list"))]);
        assert_eq!(seen(&value, "a.b.c.d"), [Some(json!(1))]);
        assert_eq!(seen(&value, "a.x"), [None]);
        assert_eq!(seen(&value, "n"), [Some(Value::Null)]);
        assert_eq!(seen(&value, "n.x"), [None]);
    }

    #[test]
    fn the_pod_is_found_in_every_workload() {
        let spec = json!({
            "hostNetwork": true,
            "containers": [{"name": "a"}],
            "initContainers": [{"name": "b"}],
            "ephemeralContainers": [{"name": "c"}],
        });
        let template = json!({"metadata": {"labels": {"x": "y"}}, "spec": spec});
        let bodies = [
            ("pods", template.clone()),
            ("podtemplates", json!({"template": template})),
            ("deployments", json!({"spec": {"template": template}})),
            ("cronjobs", json!({"spec": {"jobTemplate": {"spec": {"template": template}}}})),
            ("rollouts", json!({"spec": {"template": template}})),
        ];
        for (resource, body) in &bodies {
            let pod = Pod::of(resource, Some(body));
            let mut names = Vec::new();
            pod.any_at(&Path::parse("containers.name").0, &mut |v| {
                names.extend(v.and_then(Value::as_str));
                false
            });
            assert_eq!(names, ["a", "b", "c"], "{resource}");
            assert!(pod.any_at(&Path::parse("hostNetwork").0, &mut |v| v == Some(&json!(true))));
            assert!(pod.any_at(&Path::parse("metadata.labels.x").0, &mut |v| v == Some(&json!("y"))));
        }
        let other = json!({"spec": {"template": {"spec": {"hostNetwork": true}}}});
        assert!(Pod::of("certificates", Some(&other)).spec.is_none());
        assert!(Pod::of("pods", None).spec.is_none());
    }
}
