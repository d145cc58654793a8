//! What an exec request runs: the parameters of its URI, or the options in its body.
//!
//! Invariant: a command is read wherever the event has it. kube-apiserver puts it in the URI; Google
//! has no URI and keeps the request, and so may a collector that drops URIs. No state.

use serde_json::Value;

/// A part of an exec or attach request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Exec {
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

    /// Returns the part that a URI has; `None` if it has none.
    pub(crate) fn of_uri(self, uri: &str) -> Option<String> {
        query_parameter(uri, self.name())
    }

    /// Returns true if the body of a request for this subresource of a pod may have the part. Only
    /// an exec has a command.
    pub(crate) fn is_in_body(self, subresource: Option<&str>) -> bool {
        match self {
            Exec::Command => subresource == Some("exec"),
            Exec::Container => matches!(subresource, Some("exec" | "attach")),
        }
    }

    /// Returns the part that a body has, `PodExecOptions` or `PodAttachOptions`. The parts of a
    /// command are joined by spaces, like those of a URI.
    pub(crate) fn of_body(self, body: &Value) -> Option<String> {
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

/// Returns the values of a query parameter of a URI, decoded and joined by spaces; `None` if the
/// URI does not have the parameter. A pair with a semicolon or a broken escape is none: Go drops it.
pub(crate) fn query_parameter(uri: &str, name: &str) -> Option<String> {
    let (_, query) = uri.split_once('?')?;
    let mut joined: Option<String> = None;
    for pair in query.split('&').filter(|pair| is_read(pair)) {
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

/// Returns true if Go's `url.ParseQuery` reads a pair.
fn is_read(pair: &str) -> bool {
    let is_escape = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    !pair.contains(';') && pair.split('%').skip(1).all(is_escape)
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

    #[test]
    fn query_parameters_are_decoded() {
        let uri = "/x/exec?command=sh&command=-c&command=cat+%2Fetc%2Fshadow&container=web&stdin=true";
        assert_eq!(query_parameter(uri, "command").as_deref(), Some("sh -c cat /etc/shadow"));
        assert_eq!(query_parameter(uri, "container").as_deref(), Some("web"));
        assert_eq!(query_parameter(uri, "tty"), None);
        for dropped in
            ["command=%", "command=true;", "command=%ZZ", "command=%4", "%zzcommand=a", "command=a;b=c"]
        {
            assert_eq!(query_parameter(&format!("/x?{dropped}"), "command"), None, "{dropped}");
            let both = format!("/x?{dropped}&command=sh&{dropped}");
            assert_eq!(query_parameter(&both, "command").as_deref(), Some("sh"), "{dropped}");
        }
        assert_eq!(query_parameter("/x?%63ommand=a%C3%A9%ff", "command").as_deref(), Some("aé\u{FFFD}"));
        assert_eq!(query_parameter("/x?command", "command").as_deref(), Some(""));
    }
}
