//! Azure diagnostic settings: Event Hub messages and blobs.
//!
//! A message is `{"records":[…]}`, and a line of a blob is one such record. The `category` of a
//! record says which log it belongs to, and `properties.log` is one line of that log: the text of
//! an event in a string, or the event itself. All logs of a cluster share the hub. `kube-audit`
//! contains everything in `kube-audit-admin`: if both are switched on, events of writes are stored
//! twice, because the records differ. Some clusters send their events with the other lines of the
//! API server, in `kube-apiserver`.
//!
//! Invariant: only records of these three categories become events. A record of `kube-apiserver`
//! becomes an event only if its text was written to standard output and begins with `{`. The lines
//! of klog in the same category, some of which contain a client's text, do not begin with `{`.

use super::origin::Other;
use super::writers::Writers;
use super::{Content, Record, event, items, refused_for};
use serde_json::value::RawValue;

use crate::dialect::Dialect;
use crate::json::{self, Members};
use crate::reject::{Reason, Refusal};

/// The category of all lines of the API server.
const SERVER: &str = "kube-apiserver";

/// The categories that Azure is known to have, apart from the two of the audit log. The name of any
/// other category is repeated in a refusal only if the record seems to have an audit event.
const OTHERS: [&str; 9] = [
    SERVER,
    "kube-controller-manager",
    "kube-scheduler",
    "cluster-autoscaler",
    "cloud-controller-manager",
    "guard",
    "csi-azuredisk-controller",
    "csi-azurefile-controller",
    "csi-snapshot-controller",
];

pub(super) fn records<'d>(
    document: &'d str,
    members: &Members<'d>,
    writers: &Writers,
) -> Result<Vec<Record<'d>>, Refusal> {
    if json::member(members, "records").is_none() {
        return Ok(vec![Record {
            item: document,
            content: content(members, writers),
            dialect: Dialect::Aks,
        }]);
    }
    let items = items("records", members)?;
    let record = |item: &'d str| {
        let content = match serde_json::from_str::<Members<'d>>(item) {
            Ok(members) => content(&members, writers),
            Err(_) => {
                Content::Refused(Refusal::new(Reason::NotAnAuditEvent, "a record that is not an object"))
            }
        };
        Record { item, content, dialect: Dialect::Aks }
    };
    Ok(items.into_iter().map(|item| record(item.get())).collect())
}

fn content<'d>(members: &Members<'d>, writers: &Writers) -> Content<'d> {
    let category = match json::field("category", members, "category") {
        Ok(Some(category)) => category,
        Ok(None) => {
            return Content::Refused(Refusal::new(Reason::NotAnAuditEvent, "a record without a category"));
        }
        Err(refusal) => return Content::Refused(refusal),
    };
    let other = |log: Option<&'d RawValue>| {
        if !OTHERS.contains(&&*category) {
            let other = Other::new("a category of logs that is not known here", &category);
            return Content::Refused(refused_for(&other, log));
        }
        Content::Refused(Refusal::new(Reason::OtherCategory, format!("of the category {category}")))
    };
    if !writers.believe_category(&category) {
        let properties = json::object("properties", json::member(members, "properties")).ok().flatten();
        return other(properties.and_then(|properties| json::member(&properties, "log")));
    }
    match json::object("properties", json::member(members, "properties")) {
        Ok(Some(properties)) if category == SERVER && !is_document(&properties) => other(None),
        Ok(Some(properties)) => event("properties.log", json::member(&properties, "log")),
        Ok(None) => event("properties.log", None),
        Err(refusal) => Content::Refused(refusal),
    }
}

/// Whether the line is a document on standard output.
fn is_document(properties: &Members<'_>) -> bool {
    let text = |name| json::field(name, properties, name).ok().flatten();
    let is_object = json::member(properties, "log").is_some_and(|log| log.get().starts_with('{'));
    text("stream").is_none_or(|stream| stream != "stderr")
        && (is_object || text("log").is_some_and(|log| log.starts_with('{')))
}
