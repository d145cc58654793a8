//! Alerts as rows of the `alerts` table.
//!
//! Invariant: columns are filled in the order of `Table::Alerts`; the row holds the finding as it was
//! sent, so the archive can answer what a SIEM was told.

use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use strongroom_schemas::{Alert, Table, alerts, ocsf};

/// The rows of some alerts, in `Table::Alerts.batch_schema()`.
pub fn alerts_batch(rows: &[Alert]) -> RecordBatch {
    let text = |of: fn(&Alert) -> Option<&str>| -> ArrayRef {
        let mut builder = StringBuilder::new();
        rows.iter().for_each(|alert| builder.append_option(of(alert)));
        Arc::new(builder.finish())
    };
    let number = |of: fn(&Alert) -> i64| -> ArrayRef {
        let mut builder = Int64Builder::with_capacity(rows.len());
        rows.iter().for_each(|alert| builder.append_value(of(alert)));
        Arc::new(builder.finish())
    };
    let time = |of: fn(&Alert) -> i64| -> ArrayRef {
        let mut builder = TimestampMicrosecondBuilder::with_capacity(rows.len()).with_timezone("UTC");
        rows.iter().for_each(|alert| builder.append_value(of(alert)));
        Arc::new(builder.finish())
    };
    let list = |of: fn(&Alert) -> &[String]| -> ArrayRef {
        let mut builder = ListBuilder::new(StringBuilder::new());
        for alert in rows {
            of(alert).iter().for_each(|item| builder.values().append_value(item));
            builder.append(true);
        }
        Arc::new(builder.finish())
    };
    let ocsf: ArrayRef = {
        let mut builder = StringBuilder::new();
        for alert in rows {
            let finding = serde_json::to_string(&ocsf::detection_finding(alert));
            builder.append_value(finding.expect("a finding has text keys and finite numbers"));
        }
        Arc::new(builder.finish())
    };
    let column = |name: &str| -> ArrayRef {
        match name {
            "alert_id" => text(|a| Some(&a.alert_id)),
            "rule_id" => text(|a| Some(&a.rule_id)),
            "rule_name" => text(|a| Some(&a.rule_name)),
            "title" => text(|a| Some(&a.title)),
            "severity" => text(|a| Some(a.severity.as_str())),
            "time" => time(|a| a.time_us),
            "window_start" => time(|a| a.window_start_us),
            "window_end" => time(|a| a.window_end_us),
            "cluster" => text(|a| Some(&a.event.cluster)),
            "actor" => text(|a| Some(&a.event.actor)),
            "source_ip" => text(|a| a.event.source_ip.as_deref()),
            "verb" => text(|a| a.event.verb.as_deref()),
            "resource" => text(|a| a.event.resource.as_deref()),
            "subresource" => text(|a| a.event.subresource.as_deref()),
            "namespace" => text(|a| a.event.namespace.as_deref()),
            "name" => text(|a| a.event.name.as_deref()),
            "group_key" => text(|a| Some(&a.group_key)),
            "event_count" => number(|a| i64::try_from(a.event_count).unwrap_or(i64::MAX)),
            "audit_ids" => list(|a| &a.audit_ids),
            "tactics" => list(|a| &a.tactics),
            "techniques" => list(|a| &a.techniques),
            "message" => text(|a| Some(&a.message)),
            "next_steps" => text(|a| Some(&a.next_steps)),
            "ocsf" => Arc::clone(&ocsf),
            "source" => text(|a| Some(&a.event.source)),
            "source_offset" => number(|a| a.event.source_offset),
            other => unreachable!("column {other} of alerts has no value; a test fills all"),
        }
    };
    let columns = alerts::COLUMNS.iter().map(|name| column(name)).collect();
    RecordBatch::try_new(Table::Alerts.batch_schema(), columns).expect("columns are built from the schema")
}
