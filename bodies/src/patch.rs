//! Reads a JSON patch as the object that its operations would build, so that a change cannot hide
//! in the syntax of a patch.
//!
//! Paths are read as the API server reads them (evanphx/json-patch v4, with its default options):
//! text before the first slash is ignored, an array's position may have a sign, and a negative one
//! counts from the end.
//!
//! Invariants: every value that an operation writes is in the result. In an array, a later
//! operation never hides the value of an earlier one, because the same position may mean another
//! element by then. If an operation takes a value from the stored object, the value is not in the
//! event, and the result says that it is not whole. Depth and the size of copies are bounded. No
//! state.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::removed::{REMOVED_MAX, pointer_text};

/// What the operations of a patch build.
pub struct Patched {
    pub value: Value,
    /// False if an operation takes a part of the stored object, which is not in the event.
    pub is_whole: bool,
    /// JSON pointers to what the operations remove or replace as a whole.
    pub removed: Vec<String>,
}

/// Returns the operations of a JSON patch in an object of Google. Google never has a list as a
/// body, so the list is in the member `value`, beside which there is only `@type`.
pub fn listed(object: &Map<String, Value>) -> Option<&Vec<Value>> {
    let operations = object.get("value")?.as_array()?;
    (object.len() == 2 && object.contains_key("@type") && is_patch(operations)).then_some(operations)
}

pub fn is_patch(operations: &[Value]) -> bool {
    !operations.is_empty()
        && operations.iter().all(|operation| {
            operation.get("op").is_some_and(Value::is_string)
                && operation.get("path").is_some_and(Value::is_string)
        })
}

/// Returns the object that the operations of a patch build from nothing. Each value that is written
/// to an array position becomes an element of its own. An operation below a position changes the
/// element there. If it would replace what an earlier operation wrote, the element as it was is
/// kept as another element. So the elements need not be in the order of their positions.
///
/// A value that is copied or moved is known if the patch itself wrote all of it, at a place that no
/// array is on the way to. Nothing is removed from where it was. Otherwise the result is not whole:
/// what the patch wrote there is copied, and the rest is a part of the stored object. A value deeper
/// than `depth_max` is not copied.
pub fn patched(operations: Vec<Value>, depth_max: usize) -> Patched {
    let mut root = Value::Null;
    let mut is_whole = true;
    let mut left = COPIED_MAX;
    let mut removed = Vec::new();
    // What operations wrote as a whole.
    let mut written: HashSet<String> = HashSet::new();
    for mut operation in operations {
        let keys = |name| operation.get(name).and_then(Value::as_str).and_then(pointer);
        // The API server refuses a patch with such a path.
        let Some(path) = keys("path") else { continue };
        if removed.len() < REMOVED_MAX {
            removed.extend(removed_by(&operation, &path).into_iter().flatten());
        }
        let value = match operation.get("op").and_then(Value::as_str) {
            Some("add" | "replace") => {
                let value = operation.get_mut("value").map(Value::take);
                if value.is_some() {
                    written.insert(pointer_text(&path));
                }
                value
            }
            Some("copy" | "move") => {
                let from = keys("from");
                let is_known = from.as_ref().is_some_and(|from| is_known(&root, from, &written));
                let copy = from
                    .and_then(|from| found(&root, &from))
                    .and_then(|from| copied(from, &mut left, depth_max));
                if is_known && copy.is_some() {
                    written.insert(pointer_text(&path));
                }
                is_whole &= is_known && copy.is_some();
                copy
            }
            _ => None,
        };
        if let Some(value) = value
            && (!path.is_empty() || value.is_object())
        {
            is_whole &= put(&mut root, &path, value, PATCH_DEPTH_MAX, &mut left);
        }
    }
    removed.truncate(REMOVED_MAX);
    Patched { value: root, is_whole, removed }
}

/// Returns the pointers to what an operation removes. To write an object or an array is to remove
/// what was there, and what is copied or moved may be one.
fn removed_by(operation: &Value, path: &[String]) -> [Option<String>; 2] {
    let target = || Some(pointer_text(path));
    match operation.get("op").and_then(Value::as_str) {
        Some("remove" | "copy") => [target(), None],
        Some("add" | "replace") => match operation.get("value") {
            Some(Value::Null | Value::Object(_) | Value::Array(_)) => [target(), None],
            _ => [None, None],
        },
        Some("move") => {
            let from = operation.get("from").and_then(Value::as_str).and_then(pointer);
            [from.map(|from| pointer_text(&from)), target()]
        }
        _ => [None, None],
    }
}

/// Returns the keys of a path. Text before the first slash is ignored. `None` if there is text and
/// no slash.
fn pointer(text: &str) -> Option<Vec<String>> {
    match text.split_once('/') {
        Some((_, rest)) => {
            Some(rest.split('/').map(|key| key.replace("~1", "/").replace("~0", "~")).collect())
        }
        None => text.is_empty().then(Vec::new),
    }
}

/// Returns the position in an array that a key names. A position that counts from the end is read
/// as an append, because the length of the stored array is unknown.
fn position(key: &str) -> Option<usize> {
    const APPEND: usize = usize::MAX;
    match key {
        "-" => Some(APPEND),
        key => key.parse::<i64>().ok().map(|at| usize::try_from(at).unwrap_or(APPEND)),
    }
}

/// Whether all of the value at a path is what the operations wrote: one of them wrote this value or
/// one around it. A position in an array may mean an element of the stored object.
fn is_known(root: &Value, keys: &[String], written: &HashSet<String>) -> bool {
    let value = keys.iter().take(PATCH_DEPTH_MAX).try_fold(root, |at, key| at.as_object()?.get(key));
    let mut around = (0..=keys.len()).filter_map(|length| keys.get(..length));
    keys.len() <= PATCH_DEPTH_MAX
        && value.is_some()
        && around.any(|keys| written.contains(&pointer_text(keys)))
}

/// Returns what the operations of a patch have written at a path.
fn found<'v>(root: &'v Value, keys: &[String]) -> Option<&'v Value> {
    let found = keys.iter().try_fold(root, |at, key| match at {
        Value::Object(object) => object.get(key),
        // The elements need not be at their positions.
        Value::Array(items) => items.get(position(key)?).or(items.last()),
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

/// Writes a value at a path. Returns false if this changes an element that could not be kept as it
/// was, because the copies that the patch makes are too large.
fn put(at: &mut Value, keys: &[String], value: Value, depth_left: usize, left: &mut usize) -> bool {
    let [key, rest @ ..] = keys else {
        merge(at, value);
        return true;
    };
    if depth_left == 0 {
        return true;
    }
    // A number may also be a key of an existing object.
    if let (Some(index), false) = (position(key), at.is_object()) {
        if !at.is_array() {
            *at = Value::Array(vec![]);
        }
        let Value::Array(items) = at else { return true };
        // An `add` moves the elements after its position, and a `replace` may mean another element
        // than an earlier operation did. So the value becomes an element of its own.
        if rest.is_empty() {
            items.push(value);
            return true;
        }
        if index >= items.len() {
            items.push(Value::Null);
        }
        let index = index.min(items.len() - 1);
        let is_replaced = found(&items[index], rest).is_some();
        let before = is_replaced.then(|| copied(&items[index], left, PATCH_DEPTH_MAX));
        let is_whole = put(&mut items[index], rest, value, depth_left - 1, left);
        return match before {
            None => is_whole,
            Some(None) => false,
            Some(Some(before)) => {
                items.push(before);
                is_whole
            }
        };
    }
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    let Value::Object(object) = at else { return true };
    put(object.entry(key.as_str()).or_insert(Value::Null), rest, value, depth_left - 1, left)
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
        // Positions mean other elements in the stored array.
        let from_list = r#"[{"op":"add","path":"/a/7","value":"x"},{"op":"copy","from":"/a/7","path":"/b"}]"#;
        assert_eq!(whole(from_list), (json!({"a": ["x"], "b": "x"}), false));
        // The stored object has more below the place that a patch writes to.
        let more = r#"[{"op":"add","path":"/a/b/c","value":"x"},{"op":"copy","from":"FROM","path":"/d"}]"#;
        for (from, is_whole) in [("/a/b/c", true), ("/a/b", false), ("/a", false), ("", false)] {
            assert_eq!(whole(&more.replace("FROM", from)).1, is_whole, "{from}");
        }
        let known = r#"[{"op":"add","path":"/a","value":{"b":{"c":"x"}}},{"op":"move","from":"/a/b","path":"/d"},
            {"op":"copy","from":"/d/c","path":"/e"}]"#;
        let (value, is_whole) = whole(known);
        assert_eq!((&value["d"], &value["e"], is_whole), (&json!({"c": "x"}), &json!("x"), true));
        assert!(!whole(r#"[{"op":"copy","path":"/spec/hostPID"}]"#).1, "without a source");
        let object = r#"{"@type":"k8s.io/Patch","value":[{"op":"move","from":"/x","path":"/y"}]}"#;
        assert!(!whole(object).1);
    }

    #[test]
    fn paths_are_those_of_the_api_server() {
        let containers = "/spec/template/spec/containers";
        let privileged = r#"{"name":"a","securityContext":{"privileged":true}}"#;
        let items = |operations: &str| {
            let value = parse(operations).expect("a patch");
            value["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default()
        };
        let is_privileged = |item: &Value| item["securityContext"]["privileged"] == json!(true);
        for key in ["0", "-", "-1", "+0", "00", "99999", "-99999"] {
            for before in ["", "x", "x y"] {
                let body = format!(
                    r#"[{{"op":"add","path":"{before}{containers}/{key}","value":{privileged}}},
                    {{"op":"add","path":"x/metadata/labels/a","value":"b"}}]"#
                );
                assert!(items(&body).iter().any(is_privileged), "{body}");
                let below = format!(
                    r#"[{{"op":"replace","path":"{before}{containers}/{key}/securityContext",
                    "value":{{"privileged":true}}}}]"#
                );
                assert!(items(&below).iter().any(is_privileged), "{below}");
            }
        }
        // The API server refuses these, so they write nothing.
        for path in ["x", "spec", ""] {
            let body = format!(
                r#"[{{"op":"add","path":"/a","value":"b"}},{{"op":"replace","path":"{path}","value":"c"}}]"#
            );
            assert_eq!(parse(&body), Some(json!({"a": "b"})), "{path}");
        }
    }

    #[test]
    fn later_operations_hide_no_element() {
        let privileged = r#"{"op":"add","path":"/c/0","value":{"s":{"p":true}}}"#;
        for later in [
            r#"{"op":"add","path":"/c/0","value":{"s":{"p":false}}}"#,
            r#"{"op":"add","path":"/c/0","value":{}},{"op":"add","path":"/c/0/s","value":{"p":false}}"#,
            r#"{"op":"add","path":"/c/0","value":{}},{"op":"add","path":"/c/0/s/p","value":false}"#,
            r#"{"op":"replace","path":"/c/-1","value":{}}"#,
        ] {
            let value = parse(&format!("[{privileged},{later}]")).expect("a patch");
            let items = value["c"].as_array().expect("an array");
            assert!(items.iter().any(|item| item["s"]["p"] == json!(true)), "{later}: {value}");
        }
        // Two operations that write different members of an element change the same element.
        let beside = format!(r#"[{privileged},{{"op":"add","path":"/c/0/image","value":"i"}}]"#);
        assert_eq!(parse(&beside), Some(json!({"c": [{"s": {"p": true}, "image": "i"}]})));
        // Elements that are kept count as copies, which are bounded.
        let writes: String =
            (0..100_000).map(|at| format!(r#",{{"op":"add","path":"/c/0/s/p","value":{at}}}"#)).collect();
        assert!(!examine(&format!("[{privileged}{writes}]")).expect("a patch").is_whole);
    }

    #[test]
    fn copies_in_patches_are_bounded() {
        // Each copy of the object into itself doubles its size and increases its depth.
        let copies = |count: usize| {
            let copies = (0..count).map(|at| format!(r#",{{"op":"copy","from":"/a","path":"/a/c{at}"}}"#));
            format!(r#"[{{"op":"add","path":"/a","value":{{"b":1}}}}{}]"#, copies.collect::<String>())
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
