//! Azure diagnostic settings: Event Hub messages and blobs.
//!
//! A message is `{"records":[…]}`, and a line of a blob is one such record. The `category` of a
//! record says which log it belongs to, and `properties.log` is one line of that log: the text of
//! an event in a string, or the event itself. All logs of a cluster share the hub. `kube-audit`
//! contains everything in `kube-audit-admin`: if both are switched on, events of writes are stored
//! twice, because the records differ.
//!
//! Invariant: only records of the two audit categories become events.

use super::{Content, Record, event, items};
use crate::json::{self, Members};
use crate::reject::{Reason, Refusal};

const AUDIT: [&str; 2] = ["kube-audit", "kube-audit-admin"];

/// Categories that a refusal names; other names are not repeated.
const OTHERS: [&str; 9] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "cluster-autoscaler",
    "cloud-controller-manager",
    "guard",
    "csi-azuredisk-controller",
    "csi-azurefile-controller",
    "csi-snapshot-controller",
];

pub(super) fn records<'d>(document: &'d str, members: &Members<'d>) -> Result<Vec<Record<'d>>, Refusal> {
    if json::member(members, "records").is_none() {
        return Ok(vec![Record { item: document, content: content(members) }]);
    }
    let items = items("records", members)?;
    let record = |item: &'d str| {
        let content = match serde_json::from_str::<Members<'d>>(item) {
            Ok(members) => content(&members),
            Err(_) => {
                Content::Refused(Refusal::new(Reason::NotAnAuditEvent, "a record that is not an object"))
            }
        };
        Record { item, content }
    };
    Ok(items.into_iter().map(|item| record(item.get())).collect())
}

fn content<'d>(members: &Members<'d>) -> Content<'d> {
    let category = match json::field("category", members, "category") {
        Ok(Some(category)) => category,
        Ok(None) => {
            return Content::Refused(Refusal::new(Reason::NotAnAuditEvent, "a record without a category"));
        }
        Err(refusal) => return Content::Refused(refusal),
    };
    if !AUDIT.contains(&category.as_str()) {
        let name = OTHERS.into_iter().find(|name| *name == category).unwrap_or("not known here");
        return Content::Refused(Refusal::new(Reason::OtherCategory, format!("of the category {name}")));
    }
    match json::object("properties", json::member(members, "properties")) {
        Ok(Some(properties)) => event("properties.log", json::member(&properties, "log")),
        Ok(None) => event("properties.log", None),
        Err(refusal) => Content::Refused(refusal),
    }
}
