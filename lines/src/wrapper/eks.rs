//! AWS CloudWatch Logs, where EKS writes its logs: subscriptions and exports.
//!
//! A subscription delivers
//! `{"messageType":"DATA_MESSAGE","logStream":…,"logEvents":[{"id":…,"timestamp":…,
//! "message":"<event>"}]}`, or a `CONTROL_MESSAGE`, with which AWS probes the destination. Firehose
//! writes such documents into an object one after the other, without newlines. A document has
//! messages of one stream. An export has lines `2026-01-01T00:00:00.000Z <message>`, and one stream
//! per file.
//!
//! Invariant: only messages of streams that are believed, such as `kube-apiserver-audit-…`, become
//! events, because workloads may write to other streams.

use super::origin::Origin;
use super::writers::Writers;
use super::{Content, Record, event, items, refused_for, says_event};
use crate::dialect::Dialect;
use crate::json::{self, Members};
use crate::reject::{Reason, Refusal};

pub(super) fn records<'d>(
    document: &'d str,
    members: &Members<'d>,
    writers: &Writers,
) -> Result<Vec<Record<'d>>, Refusal> {
    let message_type = json::field("messageType", members, "messageType")?;
    if message_type.as_deref() == Some("CONTROL_MESSAGE") {
        let control = Refusal::new(Reason::OtherCategory, "a control message of CloudWatch Logs");
        return Ok(vec![Record {
            item: document,
            content: Content::Refused(control),
            dialect: Dialect::Eks,
        }]);
    }
    let stream = json::field("logStream", members, "logStream")?;
    let group = json::field("logGroup", members, "logGroup")?;
    let is_data = message_type.as_deref() == Some("DATA_MESSAGE");
    let of_message = || match is_data {
        true => {
            Origin::of_stream(Some(stream.as_deref().unwrap_or_default()), group.as_deref()).other(writers)
        }
        false => None,
    };
    let other = of_message();
    let items = items("logEvents", members)?;
    let record = |item: &'d str| {
        let content = match serde_json::from_str::<Members<'d>>(item) {
            Ok(_) if !is_data => Content::Refused(Refusal::new(
                Reason::OtherCategory,
                "of a CloudWatch Logs document that is not a message",
            )),
            Ok(members) => match (json::member(&members, "message"), &other) {
                (message, Some(other)) => Content::Refused(refused_for(other, message)),
                (message, None) => event("logEvents.message", message),
            },
            Err(_) => Content::Refused(Refusal::field("logEvents", "an array of objects")),
        };
        Record { item, content, dialect: Dialect::Eks }
    };
    Ok(items.into_iter().map(|item| record(item.get())).collect())
}

/// Returns the length of the text that an export puts before a message, if an event may follow it.
pub fn export_head(line: &[u8]) -> Option<usize> {
    (is_export(line) && line.get(HEAD.len()) == Some(&b'{')).then_some(HEAD.len())
}

/// Refuses a line of an export that is not an event. `None` if the line is not a line of an export.
pub(super) fn other_export_line(line: &[u8]) -> Option<Refusal> {
    if !is_export(line) || export_head(line).is_some() {
        return None;
    }
    Some(match says_event(line) {
        true => Refusal::new(
            Reason::NotAnAuditEvent,
            "a line with a time that contains an audit event, but not right after the time",
        ),
        false => {
            Refusal::new(Reason::OtherCategory, "a line of a CloudWatch Logs export that is not an event")
        }
    })
}

/// What an export puts before a message; a `d` stands for a digit.
const HEAD: &[u8] = b"dddd-dd-ddTdd:dd:dd.dddZ ";

fn is_export(line: &[u8]) -> bool {
    line.get(..HEAD.len()).is_some_and(|head| {
        head.iter().zip(HEAD).all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            _ => byte == form,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_an_export_are_exact() {
        let head = |line: &str| {
            let other = other_export_line(line.as_bytes());
            (export_head(line.as_bytes()), other.map(|other| other.reason))
        };
        assert_eq!(head("2026-01-01T00:00:00.000Z {"), (Some(25), None));
        assert_eq!(head("2026-01-01T00:00:00.000Z I0101 x"), (None, Some(Reason::OtherCategory)));
        assert_eq!(head("2026-01-01T00:00:00.000Z "), (None, Some(Reason::OtherCategory)));
        for none in
            ["", "{", "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00Z {", "2026-01-01 00:00:00.000Z {"]
        {
            assert_eq!(head(none), (None, None), "{none}");
        }
    }
}
