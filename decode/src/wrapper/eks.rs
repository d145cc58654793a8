//! AWS CloudWatch Logs, where EKS writes its logs: subscriptions and exports.
//!
//! A subscription delivers
//! `{"messageType":"DATA_MESSAGE","logStream":…,"logEvents":[{"id":…,"timestamp":…,
//! "message":"<event>"}]}`, or a `CONTROL_MESSAGE`, with which AWS probes the destination. Firehose
//! writes such documents into an object one after the other, without newlines. A document has
//! messages of one stream. An export has lines `2026-01-01T00:00:00.000Z <message>`, and one stream
//! per file.
//!
//! Invariant: only messages of the streams `kube-apiserver-audit-…` become events: other streams
//! carry what workloads write.

use super::{Content, Record, event, items};
use crate::json::{self, Members};
use crate::reject::{Reason, Refusal};

const AUDIT_STREAM: &str = "kube-apiserver-audit";

pub(super) fn records<'d>(document: &'d str, members: &Members<'d>) -> Result<Vec<Record<'d>>, Refusal> {
    let message_type = json::field("messageType", members, "messageType")?;
    if message_type.as_deref() == Some("CONTROL_MESSAGE") {
        let control = Refusal::new(Reason::OtherCategory, "a control message of CloudWatch Logs");
        return Ok(vec![Record { item: document, content: Content::Refused(control) }]);
    }
    let stream = json::field("logStream", members, "logStream")?;
    let is_audit = message_type.as_deref() == Some("DATA_MESSAGE")
        && stream.is_some_and(|stream| stream.starts_with(AUDIT_STREAM));
    let items = items("logEvents", members)?;
    let record = |item: &'d str| {
        let content = if !is_audit {
            Content::Refused(Refusal::new(
                Reason::OtherCategory,
                "from a log stream other than kube-apiserver-audit",
            ))
        } else {
            match serde_json::from_str::<Members<'d>>(item) {
                Ok(members) => event("logEvents.message", json::member(&members, "message")),
                Err(_) => Content::Refused(Refusal::field("logEvents", "an array of objects")),
            }
        };
        Record { item, content }
    };
    Ok(items.into_iter().map(|item| record(item.get())).collect())
}

/// Returns the length of the text that an export puts before a message, or a refusal if no event
/// follows that text. `None` if the line is not one of an export.
pub(crate) fn export_head(line: &[u8]) -> Option<Result<usize, Refusal>> {
    const HEAD: &[u8] = b"dddd-dd-ddTdd:dd:dd.dddZ ";
    let head = line.get(..HEAD.len())?;
    let matches = head.iter().zip(HEAD).all(|(byte, form)| match form {
        b'd' => byte.is_ascii_digit(),
        _ => byte == form,
    });
    if !matches {
        return None;
    }
    if line.get(HEAD.len()) != Some(&b'{') {
        let other = "a line of a CloudWatch Logs export that is not an event";
        return Some(Err(Refusal::new(Reason::OtherCategory, other)));
    }
    Some(Ok(HEAD.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_an_export_are_exact() {
        let head = |line: &str| export_head(line.as_bytes()).map(|head| head.map_err(|error| error.reason));
        assert_eq!(head("2026-01-01T00:00:00.000Z {"), Some(Ok(25)));
        assert_eq!(head("2026-01-01T00:00:00.000Z I0101 x"), Some(Err(Reason::OtherCategory)));
        assert_eq!(head("2026-01-01T00:00:00.000Z "), Some(Err(Reason::OtherCategory)));
        for none in
            ["", "{", "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00Z {", "2026-01-01 00:00:00.000Z {"]
        {
            assert_eq!(head(none), None, "{none}");
        }
    }
}
