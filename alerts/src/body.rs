//! Paths through JSON bodies, and the pod spec of any kind of object that has one.
//!
//! Invariant: a rule sees the object that a request creates, whatever the form of the request. The
//! pod spec is found in pods and in every workload's template. A JSON patch (an array of
//! operations) is read as the object that its operations would build, so a change cannot hide in
//! another syntax. A lone surrogate is read as U+FFFD, as the API server reads it, and a number that
//! is too large as its text. Recursion is bounded by the depth of the text, which the parser limits
//! to 128, and memory by the number of values. The text of a body is not limited.
//! No state.

use std::cell::Cell;

use memchr::memmem;
use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::fields::Path;

/// Largest array index that is followed in a JSON patch; a larger one is read as an append.
const PATCH_INDEX_MAX: usize = 1024;

/// Calls `see` with each value that a path leads to, until `see` returns true. Returns true if it
/// did.
///
/// A path continues in each element of an array. For each missing key and each empty array on the
/// path, `see` is called once, with `None`.
pub(crate) fn any_at<'v>(
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

/// Returns the member whose key is the first parts of a path, two or more, joined by dots; and the
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

/// Adds the elements of the arrays that a path leads to. A value that is not an array is added as
/// if it were the only element of one.
pub(crate) fn elements<'v>(value: Option<&'v Value>, path: &[String], out: &mut Vec<&'v Value>) {
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

/// Maximum number of values in a body that is examined, those inside objects and arrays included.
/// Each takes at most about 100 bytes of memory. The API server refuses a request body of more than
/// 3 MiB, which has fewer values, however long escapes make it in the log.
pub(crate) const VALUES_MAX: usize = 1 << 21;

/// Returns true if a body may have more than [`VALUES_MAX`] values. A value takes at least two
/// bytes, with the comma after it.
pub(crate) fn may_be_too_large(text: &str) -> bool {
    text.len() >= 2 * VALUES_MAX
}

/// A body as rules see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Examined {
    pub(crate) value: Value,
    /// False if the request also sets a value that is not in its body: a JSON patch copies it from
    /// the stored object.
    pub(crate) is_whole: bool,
}

/// Parses a body for rules, and turns a JSON patch into the object that it builds. Returns `None`
/// if the text is not JSON, is nested too deeply, or has too many values.
///
/// Of several members with one name, the last counts, as for the API server.
pub(crate) fn examine(text: &str) -> Option<Examined> {
    let value = readable(text, |text| {
        if !may_be_too_large(text) {
            return serde_json::from_str(text).ok();
        }
        let left = Cell::new(VALUES_MAX);
        let mut json = serde_json::Deserializer::from_str(text);
        let value = Counted { left: &left }.deserialize(&mut json).ok()?;
        json.end().ok()?;
        Some(value)
    })?;
    Some(match value {
        Value::Array(operations) if is_patch(&operations) => patched(operations),
        Value::Object(object) => match listed(&object) {
            Some(operations) => patched(operations.clone()),
            None => Examined { value: Value::Object(object), is_whole: true },
        },
        value => Examined { value, is_whole: true },
    })
}

/// Returns true if [`examine`] is sure to read a whole body, without reading it into memory. A body
/// for which this is false may still be read.
pub(crate) fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    // An array may be a JSON patch, and so may an object with a member `@type`.
    text.trim_ascii_start().starts_with('{')
        && memchr::memchr(b'@', bytes).is_none()
        && memmem::find(bytes, b"\\u").is_none()
        && !may_be_too_large(text)
        && bytes.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() <= PARSED_DEPTH_MAX
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Maximum depth of a text that the parser reads.
const PARSED_DEPTH_MAX: usize = 127;

/// Parses a JSON value of an event that is not a body.
pub(crate) fn value(text: &str) -> Option<Value> {
    readable(text, |text| serde_json::from_str(text).ok())
}

/// Parses a text. If that fails because of lone surrogates or numbers that are too large, parses
/// the text again without them.
fn readable<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    parse(text).or_else(|| parse(&rewritten(text)?))
}

/// Returns a JSON text in which each lone surrogate is U+FFFD and each number that cannot be read
/// is a string; `None` if there is nothing of either kind.
fn rewritten(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut at, mut copied, mut in_string) = (0, 0, false);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                in_string = !in_string;
                at += 1;
            }
            b'\\' if in_string => match escaped_unit(bytes, at) {
                None => at += 2,
                Some(0xD800..=0xDBFF) if matches!(escaped_unit(bytes, at + 6), Some(0xDC00..=0xDFFF)) => {
                    at += 12;
                }
                Some(0xD800..=0xDFFF) => {
                    out.push_str(text.get(copied..at)?);
                    out.push('\u{FFFD}');
                    at += 6;
                    copied = at;
                }
                Some(_) => at += 6,
            },
            b'-' | b'0'..=b'9' if !in_string => {
                let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let end = at + bytes.iter().skip(at).take_while(is_part).count();
                let number = text.get(at..end)?;
                if serde_json::from_str::<Value>(number).is_err()
                    && serde_json::from_str::<&RawValue>(number).is_ok()
                {
                    out.extend([text.get(copied..at)?, "\"", number, "\""]);
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return None;
    }
    out.push_str(text.get(copied..)?);
    Some(out)
}

/// Returns the UTF-16 code unit of an escape `\uXXXX` at a position.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

/// Returns the operations of a JSON patch in an object of Google's, which has no lists at the top:
/// the list is the only member, `value`, beside `@type`.
fn listed(object: &Map<String, Value>) -> Option<&Vec<Value>> {
    let operations = object.get("value")?.as_array()?;
    (object.len() == 2 && object.contains_key("@type") && is_patch(operations)).then_some(operations)
}

/// Reads a JSON value as `serde_json` does, but fails if it contains too many values.
#[derive(Clone, Copy)]
struct Counted<'c> {
    /// Number of values that may still be read.
    left: &'c Cell<usize>,
}

impl Counted<'_> {
    fn count<E: serde::de::Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| E::custom("too many values"))?;
        self.left.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            object.insert(key, members.next_value_seed(self)?);
        }
        Ok(Value::Object(object))
    }
}

/// Returns `metadata.name` of an object, without reading the rest into memory.
pub(crate) fn object_name(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Option<Metadata>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: Option<String>,
    }
    let object: Object = readable(text, |text| serde_json::from_str(text).ok())?;
    object.metadata?.name.filter(|name| !name.is_empty())
}

fn is_patch(operations: &[Value]) -> bool {
    !operations.is_empty()
        && operations.iter().all(|operation| {
            operation.get("op").is_some_and(Value::is_string)
                && operation.get("path").is_some_and(Value::is_string)
        })
}

/// Returns the object that the operations of a patch build from nothing. Each array position
/// becomes an element of its own, which all operations on that position change; the elements need
/// not be in the order of their positions.
///
/// A value that is copied or moved is known if the patch itself wrote it. Nothing is removed from
/// where it was. If it is a part of the stored object, nothing is written, and the result is not
/// whole.
fn patched(operations: Vec<Value>) -> Examined {
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
                let copy = found(&root, &from).and_then(|from| copied(from, &mut left, PARSED_DEPTH_MAX));
                is_whole &= copy.is_some();
                copy
            }
            _ => None,
        };
        if let Some(value) = value {
            put(&mut root, &path, value, PATCH_DEPTH_MAX);
        }
    }
    Examined { value: root, is_whole }
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

/// The parts of an object that `pod.…` fields refer to.
pub(crate) struct Pod<'v> {
    spec: Option<&'v Value>,
    metadata: Option<&'v Value>,
}

/// Lists of containers that `pod.containers` joins.
const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

impl<'v> Pod<'v> {
    /// Finds the pod in a request body by the resource of the request.
    ///
    /// An unknown resource has a pod if `spec.template.spec` has containers, like the workloads of
    /// many operators.
    pub(crate) fn of(resource: &str, body: Option<&'v Value>) -> Pod<'v> {
        let at = |path: &[&str]| path.iter().try_fold(body?, |value, key| value.get(key));
        let template = match resource {
            "pods" => body,
            "cronjobs" => at(&["spec", "jobTemplate", "spec", "template"]),
            "podtemplates" => at(&["template"]),
            "deployments"
            | "daemonsets"
            | "statefulsets"
            | "replicasets"
            | "replicationcontrollers"
            | "jobs" => at(&["spec", "template"]),
            _ => at(&["spec", "template"]).filter(|template| {
                let spec = template.get("spec");
                spec.is_some_and(|spec| CONTAINER_LISTS.iter().any(|list| spec.get(list).is_some()))
            }),
        };
        Pod {
            spec: template.and_then(|template| template.get("spec")),
            metadata: template.and_then(|template| template.get("metadata")),
        }
    }

    /// Like [`any_at`], for a path below the pod spec. `containers` joins all kinds of containers,
    /// and `metadata` is the metadata of the pod or of its template.
    pub(crate) fn any_at(&self, path: &Path, see: &mut dyn FnMut(Option<&'v Value>) -> bool) -> bool {
        match path.0.split_first() {
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
            _ => any_at(self.spec, &path.0, see),
        }
    }

    /// Like [`elements`], for the paths of [`Pod::any_at`].
    pub(crate) fn elements(&self, path: &Path, out: &mut Vec<&'v Value>) {
        match path.0.split_first() {
            Some((head, rest)) if head == "containers" => {
                let mut containers = Vec::new();
                self.containers(&mut containers);
                match rest {
                    [] => out.extend(containers),
                    _ => containers.into_iter().for_each(|container| elements(Some(container), rest, out)),
                }
            }
            Some((head, rest)) if head == "metadata" => elements(self.metadata, rest, out),
            _ => elements(self.spec, &path.0, out),
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
pub(crate) fn any_text(value: &Value, see: &mut dyn FnMut(&Value) -> bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| any_text(item, see)),
        Value::Object(object) => object.values().any(|item| any_text(item, see)),
        scalar => see(scalar),
    }
}

/// Returns the parts of `command` in the body of an exec request, joined by spaces like those of a
/// URI; `None` if there are none.
pub(crate) fn exec_command(body: &Value) -> Option<String> {
    let parts = body.get("command")?.as_array()?;
    let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// Returns the values of a query parameter of a URI, decoded and joined by spaces; `None` if the
/// URI does not have the parameter.
pub(crate) fn query_parameter(uri: &str, name: &str) -> Option<String> {
    let (_, query) = uri.split_once('?')?;
    let mut joined: Option<String> = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key == name || (key.contains('%') && percent_decoded(key) == name) {
            let joined = match &mut joined {
                Some(text) => {
                    text.push(' ');
                    text
                }
                None => joined.insert(String::new()),
            };
            joined.push_str(&percent_decoded(value));
        }
    }
    joined
}

/// Decodes form encoding (`%41` and `+`). Bytes that are not UTF-8 become U+FFFD.
fn percent_decoded(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match (byte, digit(bytes.get(at)), digit(bytes.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Option<Value> {
        examine(text).map(|examined| examined.value)
    }

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
            pod.any_at(&Path::parse("containers.name"), &mut |v| {
                names.extend(v.and_then(Value::as_str));
                false
            });
            assert_eq!(names, ["a", "b", "c"], "{resource}");
            assert!(pod.any_at(&Path::parse("hostNetwork"), &mut |v| v == Some(&json!(true))));
            assert!(pod.any_at(&Path::parse("metadata.labels.x"), &mut |v| v == Some(&json!("y"))));
        }
        let other = json!({"spec": {"template": {"spec": {"hostNetwork": true}}}});
        assert!(Pod::of("certificates", Some(&other)).spec.is_none());
        assert!(Pod::of("pods", None).spec.is_none());
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

    #[test]
    fn lone_surrogates_and_large_numbers_are_read() {
        for (text, expected) in [
            (r#""\ud800""#, json!("\u{FFFD}")),
            (r#""a\uDFFFb\\ud800""#, json!("a\u{FFFD}b\\ud800")),
            (r#""\ud800\ud83d\ude00\ud83d""#, json!("\u{FFFD}😀\u{FFFD}")),
            (r#""\ud83d\u0041""#, json!("\u{FFFD}A")),
            (r#"{"\udc00":1,"é":"-1e999","p":true}"#, json!({"\u{FFFD}": 1, "é": "-1e999", "p": true})),
            (
                r#"{"a":[1e999,-1E+999 ,0e999,-1.5],"p":true}"#,
                json!({"a": ["1e999", "-1E+999", 0.0, -1.5], "p": true}),
            ),
        ] {
            assert_eq!(parse(text), Some(expected.clone()), "{text}");
            assert_eq!(value(text), Some(expected), "{text}");
        }
        let digits = "9".repeat(400);
        assert_eq!(parse(&format!("[{digits},-{digits}]")), Some(json!([digits, format!("-{digits}")])));
        assert_eq!(parse(r#"[{"op":"add","path":"/a","value":1e999}]"#), Some(json!({"a": "1e999"})));
        let named = r#"{"metadata":{"name":"web","\ud800":1}}"#;
        assert_eq!(object_name(named).as_deref(), Some("web"));
        // What is not JSON is not made JSON.
        for other in [
            r#"["\ud80"]"#,
            r#"["\ud800]"#,
            "[1e999",
            "[1e999-1]",
            "[01e999]",
            "[-]",
            r#""\x""#,
            "1e999e9",
            r#"["\ud800",1-1]"#,
            "\"\\",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
        let many = format!(r#"["\ud800",{}"#, "1e999,".repeat(VALUES_MAX));
        assert_eq!(parse(&format!("{many}0]")), None, "too many values");
    }

    #[test]
    fn plain_bodies_are_read_whole() {
        for (body, expected) in [
            (r#" {"a":[1e999,{"b":"x"}]}"#, true),
            ("{}", true),
            (r#"{"a":"\ud800"}"#, false),
            (r#"{"a":1"#, false),
            (r#"[{"op":"move","from":"/x","path":"/y"}]"#, false),
            (r#"{"@type":"k8s.io/Patch","value":[{"op":"move","from":"/x","path":"/y"}]}"#, false),
            (r#"{"\u0040type":"k8s.io/Patch","value":[{"op":"move","from":"/x","path":"/y"}]}"#, false),
        ] {
            assert_eq!(is_plain(body), expected, "{body}");
            assert!(!expected || examine(body).is_some_and(|examined| examined.is_whole), "{body}");
        }
        let deep = |depth: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(is_plain(&deep(126)) && examine(&deep(126)).is_some());
        assert!(!is_plain(&deep(127)) && examine(&deep(127)).is_none());
    }

    #[test]
    fn the_last_of_several_members_counts() {
        let body = r#"{"spec":{"hostPID":false},"spec":{"hostPID":true},"a":1,"\u0061":2}"#;
        assert_eq!(parse(body), Some(json!({"spec": {"hostPID": true}, "a": 2})));
    }

    #[test]
    fn long_bodies_are_read_and_the_number_of_values_is_bounded() {
        let escaped = |count: usize| "\\u003c".repeat(count);
        let padded =
            format!(r#"{{"spec":{{"hostPID":true,"n":[1,-1,1.5,null,false]}},"a":"{}"}}"#, escaped(4 << 20));
        assert!(padded.len() > 24 << 20 && may_be_too_large(&padded));
        let parsed = parse(&padded).expect("few values");
        assert_eq!(parsed["spec"], json!({"hostPID": true, "n": [1, -1, 1.5, null, false]}));
        assert_eq!(parsed["a"].as_str().map(str::len), Some(4 << 20));
        let values = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
        assert!(parse(&values(VALUES_MAX)).is_some());
        assert!(parse(&values(VALUES_MAX + 1)).is_none());
        assert!(parse(&format!("{padded} 1")).is_none(), "one value");
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&deep(127)).is_some(), "an event of depth 128 has bodies of depth 127");
        assert!(parse(&deep(4096)).is_none());
        let deep = |depth: usize| format!(r#"["{}",{}]"#, escaped(1 << 20), deep(depth));
        assert!(parse(&deep(126)).is_some());
        assert!(parse(&deep(1 << 20)).is_none());
    }

    #[test]
    fn the_name_of_an_object() {
        assert_eq!(
            object_name(r#"{"kind":"Pod","metadata":{"uid":"u","name":"web-1"},"x":[]}"#).as_deref(),
            Some("web-1")
        );
        for other in [
            "{}",
            r#"{"metadata":null}"#,
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"name":""}}"#,
            "[1]",
            "{",
            r#"{"metadata":{"name":1}}"#,
        ] {
            assert_eq!(object_name(other), None, "{other}");
        }
    }

    #[test]
    fn query_parameters_are_decoded() {
        let uri = "/x/exec?command=sh&command=-c&command=cat+%2Fetc%2Fshadow&container=web&stdin=true";
        assert_eq!(query_parameter(uri, "command").as_deref(), Some("sh -c cat /etc/shadow"));
        assert_eq!(query_parameter(uri, "container").as_deref(), Some("web"));
        assert_eq!(query_parameter(uri, "tty"), None);
        assert_eq!(query_parameter("/x?command=%", "command").as_deref(), Some("%"));
        assert_eq!(query_parameter("/x?%63ommand=a%C3%A9%ff", "command").as_deref(), Some("aé\u{FFFD}"));
        assert_eq!(query_parameter("/x?command", "command").as_deref(), Some(""));
    }
}
