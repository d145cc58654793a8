//! Finds what a request removes from the stored object, so that rules see when a protection is
//! removed.
//!
//! A JSON patch removes by an operation, a merge patch by a null, a strategic merge patch also by a
//! directive. A value that replaces a whole object or array removes what was there. What a PUT
//! leaves out cannot be known from its event.
//!
//! Invariant: each removed place is a JSON pointer (RFC 6901) into the object, and at most
//! [`REMOVED_MAX`] are listed. No state.

use serde_json::Value;

/// Maximum number of removed places of one request that rules see.
pub const REMOVED_MAX: usize = 1024;

/// The member of a strategic merge patch that says what happens to the object around it.
const DIRECTIVE: &str = "$patch";

/// Returns the text of a JSON pointer.
pub fn pointer_text(keys: &[String]) -> String {
    let mut text = String::new();
    for key in keys {
        text.push('/');
        text.push_str(&escaped(key));
    }
    text
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Returns the places that a body removes. The body is not a JSON patch.
pub fn removed_in(body: &Value) -> Vec<String> {
    let mut removed = Vec::new();
    collect(body, &mut String::new(), &mut removed);
    removed
}

fn collect(value: &Value, pointer: &mut String, removed: &mut Vec<String>) {
    if removed.len() >= REMOVED_MAX {
        return;
    }
    match value {
        Value::Null => removed.push(pointer.clone()),
        Value::Object(members) => {
            let directive = members.get(DIRECTIVE).and_then(Value::as_str);
            if matches!(directive, Some("delete" | "replace")) {
                removed.push(pointer.clone());
            }
            for (key, value) in members {
                let length = pointer.len();
                pointer.push('/');
                pointer.push_str(&escaped(key));
                collect(value, pointer, removed);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::examine;

    fn of(body: &str) -> Vec<String> {
        examine(body).expect("a body").removes().to_vec()
    }

    #[test]
    fn every_way_to_remove_a_label() {
        let label = "/metadata/labels/pod-security.kubernetes.io~1enforce";
        for (body, expected) in [
            (r#"{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":null}}}"#, label),
            (r#"[{"op":"remove","path":"/metadata/labels/pod-security.kubernetes.io~1enforce"}]"#, label),
            (r#"[{"op":"remove","path":"x/metadata/labels/pod-security.kubernetes.io~1enforce"}]"#, label),
            (r#"[{"op":"remove","path":"/metadata/labels"}]"#, "/metadata/labels"),
            (r#"[{"op":"replace","path":"/metadata/labels","value":{}}]"#, "/metadata/labels"),
            (r#"[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]"#, "/metadata/labels"),
            (r#"[{"op":"copy","from":"/data","path":"/metadata/labels"}]"#, "/metadata/labels"),
            (r#"[{"op":"replace","path":"","value":{}}]"#, ""),
            (r#"{"metadata":{"labels":null}}"#, "/metadata/labels"),
            (r#"{"metadata":{"labels":{"$patch":"replace","a":"b"}}}"#, "/metadata/labels"),
            (r#"{"metadata":{"labels":{"$patch":"delete"}}}"#, "/metadata/labels"),
            (r#"{"metadata":null}"#, "/metadata"),
        ] {
            assert_eq!(of(body), [expected], "{body}");
        }
        // What is moved may be an object, which replaces what was there.
        let moved = format!(r#"[{{"op":"move","from":"{label}","path":"/metadata/annotations"}}]"#);
        assert_eq!(of(&moved), [label, "/metadata/annotations"]);
        for body in [
            r#"{"metadata":{"labels":{"a":"b"}}}"#,
            r#"[{"op":"replace","path":"/metadata/labels/a","value":"b"}]"#,
            r#"[{"op":"test","path":"/metadata/labels","value":null}]"#,
            r#"{"metadata":{"labels":{"$patch":"merge"}}}"#,
            "[]",
        ] {
            assert_eq!(of(body), [""; 0], "{body}");
        }
    }

    #[test]
    fn the_list_is_bounded() {
        let nulls: Vec<String> = (0..2 * REMOVED_MAX).map(|at| format!(r#""m{at}":null"#)).collect();
        assert_eq!(of(&format!("{{{}}}", nulls.join(","))).len(), REMOVED_MAX);
        let operations = vec![r#"{"op":"remove","path":"/a"}"#; 2 * REMOVED_MAX];
        assert_eq!(of(&format!("[{}]", operations.join(","))).len(), REMOVED_MAX);
    }
}
