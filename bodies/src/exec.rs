//! What an exec request runs: the parameters of its URI, or the options in its body.
//!
//! Invariant: a command is read wherever the event has it. kube-apiserver puts it in the URI. An
//! entry of Google has no URI, but has the body of the request; the same may hold for events of a
//! collector that drops URIs. No state.

use serde_json::Value;
use strongroom_schemas::uri::query_parameter;

/// A part of an exec or attach request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exec {
    Command,
    Container,
}

impl Exec {
    const fn name(self) -> &'static str {
        match self {
            Exec::Command => "command",
            Exec::Container => "container",
        }
    }

    /// Returns this part of the request from its URI; `None` if the URI does not have it.
    pub fn of_uri(self, uri: &str) -> Option<String> {
        query_parameter(uri, self.name())
    }

    /// Returns true if the body of a request for this subresource of a pod may have the part. Only
    /// an exec has a command.
    pub fn is_in_body(self, subresource: Option<&str>) -> bool {
        match self {
            Exec::Command => subresource == Some("exec"),
            Exec::Container => matches!(subresource, Some("exec" | "attach")),
        }
    }

    /// Returns this part of the request from its body, which is a `PodExecOptions` or a
    /// `PodAttachOptions`. The parts of a command are joined by spaces, like those of a URI.
    pub fn of_body(self, body: &Value) -> Option<String> {
        match (self, body.get(self.name())?) {
            (Exec::Container, Value::String(name)) => Some(name.clone()),
            (Exec::Command, Value::Array(parts)) => {
                let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
                (!parts.is_empty()).then(|| parts.join(" "))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_options_in_a_body() {
        let options = json!({"@type": "core.k8s.io/v1.PodExecOptions", "command": ["sh", "-c", 1, "id"], "container": "web"});
        assert_eq!(Exec::Command.of_body(&options).as_deref(), Some("sh -c id"));
        assert_eq!(Exec::Container.of_body(&options).as_deref(), Some("web"));
        for other in
            [json!({}), json!([]), json!({"command": [], "container": ["web"]}), json!({"command": {}})]
        {
            assert_eq!(Exec::Command.of_body(&other), None, "{other}");
            assert_eq!(Exec::Container.of_body(&other), None, "{other}");
        }
        assert_eq!(Exec::Command.of_body(&json!({"command": "id"})), None);
        assert!(Exec::Command.is_in_body(Some("exec")) && !Exec::Command.is_in_body(Some("attach")));
        assert!(Exec::Container.is_in_body(Some("attach")) && !Exec::Container.is_in_body(None));
    }
}
