//! Checks what rules see of a request body.
//!
//! 1. A body that counts as plain is read whole.
//! 2. If the API server could apply a JSON patch to a stored object, each value that the object has
//!    then and did not have before is in the body as rules see it, or the body says that it is not
//!    whole.
//! 3. What the object has lost then is below a place that the request removes, or below one to which
//!    it writes a text, a number or a truth value.
//!
//! Positions in arrays are left out of the comparison, and so are keys that look like one, because
//! the body does not say whether the stored value is an array.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;
use strongroom_bodies::body::{self, Examined};
use strongroom_bodies::{Path, REMOVED_MAX, touched, walk};

/// Objects that a cluster may have stored.
const STORED: [&str; 4] = [
    r#"{"kind":"Deployment","metadata":{"name":"d","labels":{"a":"b","pod-security.kubernetes.io/enforce":"restricted"},"annotations":{"x":"y"}},
        "spec":{"replicas":1,"template":{"metadata":{"labels":{"a":"b"}},"spec":{"hostNetwork":false,"containers":[
        {"name":"c","image":"i","securityContext":{"privileged":false,"runAsUser":1}},{"name":"s","image":"j","args":["-v","2"]}]}}}}"#,
    r#"{"kind":"ClusterRole","metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get","list"]},
        {"apiGroups":["apps"],"resources":["deployments"],"verbs":["get"]}]}"#,
    r#"{"kind":"RoleBinding","subjects":[{"kind":"User","name":"eve"}],"roleRef":{"kind":"Role","name":"r"}}"#,
    r#"{"data":{"a":"1","0":"zero","-":"minus","a/b":{"c~d":[[1,[2]],{"e":[]}]}},"x":null,"":{"":"empty"}}"#,
];
/// Paths that rules ask for.
const PATHS: [&str; 6] = [
    "rules.verbs",
    "subjects.name",
    "roleRef.name",
    "containers.securityContext.privileged",
    "hostNetwork",
    "metadata.labels",
];
const RESOURCES: [&str; 4] = ["pods", "deployments", "cronjobs", "unknown"];
/// Below this depth a patch is not followed.
const DEPTH_MAX: usize = 60;

/// Checks a text as a body.
///
/// # Panics
/// When a promise is broken.
pub fn check(text: &str) {
    let examined = body::examine(text);
    if body::is_plain(text) {
        assert!(
            examined.as_ref().is_some_and(|examined| examined.is_whole),
            "a plain body is not read whole"
        );
    }
    let _ = body::object_name(text);
    let Some(examined) = examined else { return };
    assert_eq!(Some(&examined.value), body::examine(text).as_ref().map(|again| &again.value), "read twice");
    assert!(examined.removes().len() <= REMOVED_MAX);
    look(&examined);
    let Some(operations) = operations(text) else { return };
    for stored in STORED {
        let stored: Value = serde_json::from_str(stored).expect("an object");
        if let Some(after) = applied(&stored, &operations) {
            compare(&stored, &after, &operations, &examined);
        }
    }
}

/// Asks as rules do; nothing may panic.
fn look(examined: &Examined) {
    for path in PATHS {
        let keys = Path::parse(path).0;
        touched::touches(examined, &keys);
        for resource in RESOURCES {
            touched::touches_pod(examined, resource, &keys);
        }
        let mut found = Vec::new();
        walk::elements(Some(&examined.value), &keys, &mut found);
    }
    walk::any_text(&examined.value, &mut |_| false);
}

/// The operations of a JSON patch, as a list or in Google's form.
fn operations(text: &str) -> Option<Vec<Value>> {
    let operations = match body::value(text)? {
        Value::Array(operations) => operations,
        Value::Object(mut object) if object.len() == 2 && object.contains_key("@type") => {
            match object.get_mut("value").map(Value::take)? {
                Value::Array(operations) => operations,
                _ => return None,
            }
        }
        _ => return None,
    };
    let is_patch = operations.iter().all(|one| one["op"].is_string() && one["path"].is_string());
    (is_patch && !operations.is_empty()).then_some(operations)
}

fn keys(of: &Value, name: &str) -> Option<Vec<String>> {
    let (_, rest) = of.get(name)?.as_str()?.split_once('/')?;
    Some(rest.split('/').map(|key| key.replace("~1", "/").replace("~0", "~")).collect())
}

/// Applies a patch by RFC 6902, with positions as the API server reads them; `None` if it is refused.
fn applied(stored: &Value, operations: &[Value]) -> Option<Value> {
    let mut value = stored.clone();
    for operation in operations {
        let path = keys(operation, "path")?;
        match operation["op"].as_str()? {
            "add" => add(&mut value, &path, operation.get("value")?.clone())?,
            "replace" => {
                let at = at_mut(&mut value, &path)?;
                *at = operation.get("value")?.clone();
            }
            "remove" => _ = remove(&mut value, &path)?,
            "test" => {
                if at_mut(&mut value, &path)? != operation.get("value").unwrap_or(&Value::Null) {
                    return None;
                }
            }
            "copy" => {
                let copy = at_mut(&mut value, &keys(operation, "from")?)?.clone();
                add(&mut value, &path, copy)?;
            }
            "move" => {
                let moved = remove(&mut value, &keys(operation, "from")?)?;
                add(&mut value, &path, moved)?;
            }
            _ => return None,
        }
    }
    Some(value)
}

fn position(key: &str, length: usize) -> Option<usize> {
    let at: i64 = key.parse().ok()?;
    let at = if at < 0 { at + i64::try_from(length).ok()? } else { at };
    usize::try_from(at).ok()
}

fn at_mut<'v>(value: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |at, key| match at {
        Value::Object(object) => object.get_mut(key),
        Value::Array(items) => {
            let at = position(key, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    })
}

fn add(value: &mut Value, path: &[String], added: Value) -> Option<()> {
    let (key, above) = path.split_last()?;
    match at_mut(value, above)? {
        Value::Object(object) => _ = object.insert(key.clone(), added),
        Value::Array(items) => {
            let at = if key == "-" { items.len() } else { position(key, items.len())? };
            if at > items.len() {
                return None;
            }
            items.insert(at, added);
        }
        _ => return None,
    }
    Some(())
}

fn remove(value: &mut Value, path: &[String]) -> Option<Value> {
    let (key, above) = path.split_last()?;
    match at_mut(value, above)? {
        Value::Object(object) => object.remove(key),
        Value::Array(items) => {
            let at = position(key, items.len()).filter(|at| *at < items.len())?;
            Some(items.remove(at))
        }
        _ => None,
    }
}

type Facts = BTreeMap<Vec<String>, BTreeSet<String>>;

fn is_position(key: &str) -> bool {
    key == "-" || key.parse::<i64>().is_ok()
}

/// The scalars of a value, by their paths.
fn facts(value: &Value, path: &mut Vec<String>, out: &mut Facts) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let is_kept = !is_position(key);
                if is_kept {
                    path.push(key.clone());
                }
                facts(value, path, out);
                if is_kept {
                    path.pop();
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| facts(item, path, out)),
        Value::Null => {}
        scalar => _ = out.entry(path.clone()).or_default().insert(scalar.to_string()),
    }
}

fn facts_of(value: &Value) -> Facts {
    let mut out = Facts::new();
    facts(value, &mut Vec::new(), &mut out);
    out
}

fn compare(stored: &Value, after: &Value, operations: &[Value], examined: &Examined) {
    let (before, now, seen) = (facts_of(stored), facts_of(after), facts_of(&examined.value));
    if examined.is_whole {
        for (path, values) in now.iter().filter(|(path, _)| path.len() <= DEPTH_MAX) {
            for value in values {
                let was = before.get(path).is_some_and(|known| known.contains(value));
                let is_seen = seen.get(path).is_some_and(|known| known.contains(value));
                assert!(was || is_seen, "a patch writes {value} at {path:?}, and no rule sees it");
            }
        }
    }
    if examined.removes().len() == REMOVED_MAX {
        return;
    }
    let kept = |keys: Vec<String>| keys.into_iter().filter(|key| !is_position(key)).collect::<Vec<_>>();
    let pointers = examined.removes().iter();
    let mut told: Vec<Vec<String>> = pointers
        .map(|pointer| {
            kept(pointer.split('/').skip(1).map(|key| key.replace("~1", "/").replace("~0", "~")).collect())
        })
        .collect();
    let scalars = operations.iter().filter(|one| matches!(one["op"].as_str(), Some("add" | "replace")));
    told.extend(scalars.filter_map(|one| keys(one, "path")).map(kept));
    for path in before.keys().filter(|path| !now.contains_key(*path)) {
        assert!(
            told.iter().any(|place| path.starts_with(place)),
            "a patch takes {path:?} away, and does not say so"
        );
    }
}
