//! JSON patches, read as the object that their operations would build, so that a change cannot hide
//! in another syntax.
//!
//! Invariant: what an operation writes is in the result, wherever it writes it; a later operation
//! never hides an earlier one. What an operation takes from the stored object is not in the event,
//! and the result says that it is not whole. Depth, array positions and the size of copies are
//! bounded. No state.

use serde_json::{Map, Value};

/// Largest array index that is followed in a JSON patch; a larger one is read as an append.
const PATCH_INDEX_MAX: usize = 1024;

/// Returns the operations of a JSON patch in an object of Google's, which has no lists at the top:
/// the list is the only member, `value`, beside `@type`.
pub(crate) fn listed(object: &Map<String, Value>) -> Option<&Vec<Value>> {
    let operations = object.get("value")?.as_array()?;
    (object.len() == 2 && object.contains_key("@type") && is_patch(operations)).then_some(operations)
}

pub(crate) fn is_patch(operations: &[Value]) -> bool {
    !operations.is_empty()
        && operations.iter().all(|operation| {
            operation.get("op").is_some_and(Value::is_string)
                && operation.get("path").is_some_and(Value::is_string)
        })
}

/// Returns the object that the operations of a patch build from nothing, and whether it is whole.
/// Each array position becomes an element of its own, which all operations on that position change;
/// the elements need not be in the order of their positions.
///
/// A value that is copied or moved is known if the patch itself wrote it. Nothing is removed from
/// where it was. If it is a part of the stored object, or deeper than `depth_max`, nothing is
/// written, and the result is not whole.
pub(crate) fn patched(operations: Vec<Value>, depth_max: usize) -> (Value, bool) {
    let mut root = Value::Null;
    let mut is_whole = true;
    let mut left = COPIED_MAX;
    for mut operation in operations {
        let keys = |name| pointer(operation.get(name).and_then(Value::as_str).unwrap_or_default());
        let path = keys("path");
        let value = match operation.get("op").and_then(Value::as_str) {
            Some("add" | "replace") => operation.get_mut("value").map(Value::take),
            Some("copy" | "move") => {
                let from = keys("from");
                let copy = found(&root, &from).and_then(|from| copied(from, &mut left, depth_max));
                is_whole &= copy.is_some();
                copy
            }
            _ => None,
        };
        if let Some(value) = value {
            put(&mut root, &path, value, PATCH_DEPTH_MAX);
        }
    }
    (root, is_whole)
}

/// Returns the keys of a JSON pointer.
fn pointer(text: &str) -> Vec<String> {
    match text.strip_prefix('/') {
        Some(rest) => rest.split('/').map(|key| key.replace("~1", "/").replace("~0", "~")).collect(),
        None => vec![],
    }
}

/// Returns what the operations of a patch have written at a path.
fn found<'v>(root: &'v Value, keys: &[String]) -> Option<&'v Value> {
    let found = keys.iter().try_fold(root, |at, key| match at {
        Value::Object(object) => object.get(key),
        // The elements need not be at their positions.
        Value::Array(items) => items.get(key.parse::<usize>().ok()?).or(items.last()),
        _ => None,
    });
    found.filter(|value| !value.is_null())
}

/// Maximum number of values that the operations of one patch copy. An object may take a kilobyte of
/// memory.
const COPIED_MAX: usize = 1 << 16;
/// Bytes of text that count as one more value that is copied.
const COPIED_BYTES: usize = 64;

/// Returns a copy of a value, and takes its size from `left`; `None` if it is too large or too deep.
fn copied(value: &Value, left: &mut usize, depth_left: usize) -> Option<Value> {
    *left = left.checked_sub(1 + value.as_str().map_or(0, str::len) / COPIED_BYTES)?;
    Some(match value {
        Value::Array(items) => {
            let depth_left = depth_left.checked_sub(1)?;
            Value::Array(items.iter().map(|item| copied(item, left, depth_left)).collect::<Option<_>>()?)
        }
        Value::Object(object) => {
            let depth_left = depth_left.checked_sub(1)?;
            let mut copy = Map::new();
            for (key, value) in object {
                *left = left.checked_sub(key.len() / COPIED_BYTES)?;
                copy.insert(key.clone(), copied(value, left, depth_left)?);
            }
            Value::Object(copy)
        }
        scalar => scalar.clone(),
    })
}

/// Maximum depth of the path of a JSON patch operation that is followed.
const PATCH_DEPTH_MAX: usize = 64;

fn put(at: &mut Value, keys: &[String], value: Value, depth_left: usize) {
    let [key, rest @ ..] = keys else {
        return merge(at, value);
    };
    if depth_left == 0 {
        return;
    }
    let index = if key == "-" { Some(PATCH_INDEX_MAX) } else { key.parse::<usize>().ok() };
    // A number may also be a key of an existing object.
    if let (Some(index), true) = (index, !at.is_object()) {
        if !at.is_array() {
            *at = Value::Array(vec![]);
        }
        let Value::Array(items) = at else { return };
        if index >= PATCH_INDEX_MAX || index >= items.len() {
            items.push(Value::Null);
        }
        let index = index.min(items.len() - 1);
        return put(&mut items[index], rest, value, depth_left - 1);
    }
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    if let Value::Object(object) = at {
        put(object.entry(key.as_str()).or_insert(Value::Null), rest, value, depth_left - 1);
    }
}

/// Merges a value into what earlier operations wrote, so that a later operation does not hide the
/// members and elements of an earlier one.
fn merge(at: &mut Value, value: Value) {
    match (at, value) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                merge(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(old), Value::Array(new)) => old.extend(new),
        (at, value) => *at = value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::body::examine;

    fn parse(text: &str) -> Option<Value> {
        examine(text).map(|examined| examined.value)
    }

    #[test]
    fn json_patches_are_read_as_what_they_build() {
        let body = r#"[
            {"op":"add","path":"/spec/template/spec/hostNetwork","value":true},
            {"op":"replace","path":"/spec/template/spec/containers/0/image","value":"evil"},
            {"op":"add","path":"/spec/template/spec/containers/0/securityContext","value":{"privileged":true}},
            {"op":"add","path":"/spec/template/spec/containers/-","value":{"image":"two"}},
            {"op":"add","path":"/metadata/labels/a~1b","value":"c"},
            {"op":"remove","path":"/spec/replicas"}]"#;
        let expected = json!({
            "spec": {"template": {"spec": {"hostNetwork": true, "containers": [
                {"image": "evil", "securityContext": {"privileged": true}}, {"image": "two"}]}}},
            "metadata": {"labels": {"a/b": "c"}},
        });
        assert_eq!(parse(body), Some(expected.clone()));
        let listed = format!(r#"{{"@type":"k8s.io/Patch","value":{body}}}"#);
        assert_eq!(parse(&listed), Some(expected));
        let other = r#"{"@type":"k8s.io/Patch","value":[1]}"#;
        assert_eq!(parse(other), Some(json!({"@type": "k8s.io/Patch", "value": [1]})));
        assert_eq!(parse("[1]"), Some(json!([1])));
        assert_eq!(parse("{"), None);
    }

    #[test]
    fn patches_copy_and_move_what_they_wrote() {
        let whole = |text: &str| {
            let examined = examine(text).expect("a patch");
            (examined.value, examined.is_whole)
        };
        let body = r#"[
            {"op":"add","path":"/metadata/annotations/a","value":{"privileged":true}},
            {"op":"OP","from":"/metadata/annotations/a","path":"/spec/containers/0/securityContext"}]"#;
        for operation in ["copy", "move"] {
            let (value, is_whole) = whole(&body.replace("OP", operation));
            assert_eq!(value["spec"], json!({"containers": [{"securityContext": {"privileged": true}}]}));
            assert!(is_whole, "{operation}");
            // The source is a part of the stored object.
            let stored = body.replace("OP", operation).replace("\"from\":\"/metadata", "\"from\":\"/data");
            let (value, is_whole) = whole(&stored);
            assert_eq!(value, json!({"metadata": {"annotations": {"a": {"privileged": true}}}}));
            assert!(!is_whole, "{operation}");
        }
        assert!(whole(&body.replace("OP", "test")).1, "a test changes nothing");
        let from_list = r#"[{"op":"add","path":"/a/7","value":"x"},{"op":"copy","from":"/a/7","path":"/b"}]"#;
        assert_eq!(whole(from_list), (json!({"a": ["x"], "b": "x"}), true));
        assert!(!whole(r#"[{"op":"copy","path":"/spec/hostPID"}]"#).1, "without a source");
        let object = r#"{"@type":"k8s.io/Patch","value":[{"op":"move","from":"/x","path":"/y"}]}"#;
        assert!(!whole(object).1);
    }

    #[test]
    fn copies_in_patches_are_bounded() {
        // Each copy of the root into itself doubles its size and increases its depth.
        let copies = |count: usize| {
            let copies = (0..count).map(|at| format!(r#",{{"op":"copy","from":"","path":"/c{at}"}}"#));
            format!(r#"[{{"op":"add","path":"/a","value":1}}{}]"#, copies.collect::<String>())
        };
        assert!(examine(&copies(10)).expect("a patch").is_whole);
        assert!(!examine(&copies(100)).expect("a patch").is_whole);
        let deeper: String = (0..1000).map(|_| r#",{"op":"copy","from":"/a","path":"/a/a"}"#).collect();
        let deeper = format!(r#"[{{"op":"add","path":"/a","value":{{"b":1}}}}{deeper}]"#);
        assert!(!examine(&deeper).expect("a patch").is_whole);
        // A long text that is copied often.
        let copies: String =
            (0..1000).map(|at| format!(r#",{{"op":"copy","from":"/a","path":"/c{at}"}}"#)).collect();
        let long = format!(r#"[{{"op":"add","path":"/a","value":"{}"}}{copies}]"#, "x".repeat(1 << 20));
        let examined = examine(&long).expect("a patch");
        let copied = examined.value.as_object().map_or(0, Map::len);
        assert!(!examined.is_whole && (2..200).contains(&copied), "{copied}");
    }
}
