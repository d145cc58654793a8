//! Converts alerts to rows of the `alerts` table, and rows back to alerts.
//!
//! Invariant: columns are filled in the order of `Table::Alerts`. A row contains the finding as it
//! was sent, so the archive shows what a SIEM received, and the alert can be restored from its row.
//! No state.

use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use serde::Deserialize;
use strongroom_schemas::{Alert, AlertEvent, Outcome, Table, Touched, alerts, ocsf};

/// Returns alerts as rows, in `Table::Alerts.batch_schema()`.
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
    let event_ranges: ArrayRef = {
        let mut builder = StringBuilder::new();
        rows.iter().for_each(|alert| builder.append_value(alert.touched.event_ranges()));
        Arc::new(builder.finish())
    };
    let column = |name: &str| -> ArrayRef {
        match name {
            alerts::ALERT_ID => text(|a| Some(&a.alert_id)),
            alerts::RULE_ID => text(|a| Some(&a.rule_id)),
            alerts::RULE_NAME => text(|a| Some(&a.rule_name)),
            alerts::TITLE => text(|a| Some(&a.title)),
            alerts::SEVERITY => text(|a| Some(a.severity.as_str())),
            alerts::TIME => time(|a| a.time_us),
            alerts::WINDOW_START => time(|a| a.window_start_us),
            alerts::WINDOW_END => time(|a| a.window_end_us),
            alerts::CLUSTER => text(|a| Some(&a.event.cluster)),
            alerts::ACTOR => text(|a| Some(&a.event.actor)),
            alerts::SOURCE_IP => text(|a| a.event.source_ip.as_deref()),
            alerts::VERB => text(|a| a.event.verb.as_deref()),
            alerts::RESOURCE => text(|a| a.event.resource.as_deref()),
            alerts::SUBRESOURCE => text(|a| a.event.subresource.as_deref()),
            alerts::NAMESPACE => text(|a| a.event.namespace.as_deref()),
            alerts::NAME => text(|a| a.event.name.as_deref()),
            alerts::GROUP_KEY => text(|a| Some(&a.group_key)),
            alerts::EVENT_COUNT => number(|a| i64::try_from(a.event_count).unwrap_or(i64::MAX)),
            alerts::AUDIT_IDS => list(|a| &a.audit_ids),
            alerts::TACTICS => list(|a| &a.tactics),
            alerts::TECHNIQUES => list(|a| &a.techniques),
            alerts::MESSAGE => text(|a| Some(&a.message)),
            alerts::NEXT_STEPS => text(|a| Some(&a.next_steps)),
            alerts::OCSF => Arc::clone(&ocsf),
            alerts::SOURCE => text(|a| Some(&a.event.source)),
            alerts::SOURCE_OFFSET => number(|a| a.event.source_offset),
            alerts::NAMESPACES => list(|a| a.touched.namespaces()),
            alerts::ACTORS => list(|a| a.touched.actors()),
            alerts::CLUSTERS => list(|a| a.touched.clusters()),
            alerts::EVENT_RANGES => Arc::clone(&event_ranges),
            other => unreachable!("column {other} of alerts has no value; a test fills all"),
        }
    };
    let columns = alerts::COLUMNS.iter().map(|name| column(name)).collect();
    RecordBatch::try_new(Table::Alerts.batch_schema(), columns).expect("columns are built from the schema")
}

/// The fields of an alert that are only in the JSON text of the column `ocsf`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Finding {
    metadata: Metadata,
    unmapped: Unmapped,
    evidences: Vec<Evidence>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    original_event_uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Unmapped {
    authenticated_user: Option<String>,
    authorization_decision: Option<String>,
    exec_command: Option<String>,
    exec_container: Option<String>,
    faults: Vec<String>,
    outcome: Option<Outcome>,
    stage: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Evidence {
    api: Api,
    http_request: HttpRequest,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Api {
    group: Option<Name>,
    response: Option<Response>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Response {
    code: i32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HttpRequest {
    url: Option<Url>,
    user_agent: Option<String>,
}

#[derive(Deserialize)]
struct Url {
    path: String,
    query_string: Option<String>,
}

/// Restores the alerts from rows in `Table::Alerts.file_schema()`. Returns `None` if the rows have
/// other columns or values. Rows of older files lack the columns for what an alert touches, so
/// their alerts touch nothing.
pub fn alerts_of_batch(batch: &RecordBatch) -> Option<Vec<Alert>> {
    let texts = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>().cloned();
    let text = |name: &str| -> Option<Vec<Option<String>>> {
        Some(texts(name)?.iter().map(|text| text.map(str::to_owned)).collect())
    };
    let time =
        |name: &str| batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>().cloned();
    let number = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<Int64Type>().cloned();
    let list = |name: &str| -> Option<Vec<Vec<String>>> {
        let lists = batch.column_by_name(name)?.as_list_opt::<i32>()?;
        let items = |row: usize| -> Option<Vec<String>> {
            let values = lists.value(row);
            Some(values.as_string_opt::<i32>()?.iter().flatten().map(str::to_owned).collect())
        };
        (0..lists.len()).map(items).collect()
    };
    let (times, starts, ends) = (time(alerts::TIME)?, time(alerts::WINDOW_START)?, time(alerts::WINDOW_END)?);
    let (counts, offsets) = (number(alerts::EVENT_COUNT)?, number(alerts::SOURCE_OFFSET)?);
    let (audit_ids, tactics, techniques) =
        (list(alerts::AUDIT_IDS)?, list(alerts::TACTICS)?, list(alerts::TECHNIQUES)?);
    let missing =
        |name: &str| batch.column_by_name(name).is_none_or(|column| column.null_count() == column.len());
    let mut touched = if missing(alerts::EVENT_RANGES) {
        vec![Touched::default(); batch.num_rows()]
    } else {
        let lists = [alerts::NAMESPACES, alerts::ACTORS, alerts::CLUSTERS].map(list);
        let [Some(namespaces), Some(actors), Some(clusters)] = lists else { return None };
        let lists = namespaces.into_iter().zip(actors).zip(clusters);
        let ranges = text(alerts::EVENT_RANGES)?;
        let rows = lists.zip(ranges).map(|(((namespaces, actors), clusters), ranges)| match ranges {
            None => Some(Touched::default()),
            Some(ranges) => Touched::from_columns(namespaces, actors, clusters, &ranges),
        });
        rows.collect::<Option<_>>()?
    };
    let names = [
        alerts::ALERT_ID,
        alerts::RULE_ID,
        alerts::RULE_NAME,
        alerts::TITLE,
        alerts::SEVERITY,
        alerts::CLUSTER,
        alerts::ACTOR,
        alerts::SOURCE_IP,
        alerts::VERB,
        alerts::RESOURCE,
        alerts::SUBRESOURCE,
        alerts::NAMESPACE,
        alerts::NAME,
        alerts::GROUP_KEY,
        alerts::MESSAGE,
        alerts::NEXT_STEPS,
        alerts::OCSF,
        alerts::SOURCE,
    ];
    let mut columns: Vec<Vec<Option<String>>> = names.iter().map(|name| text(name)).collect::<Option<_>>()?;
    let mut found = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut take = |name: &str| {
            let column = names.iter().position(|known| *known == name)?;
            columns.get_mut(column)?.get_mut(row)?.take()
        };
        let finding: Finding = serde_json::from_str(&take(alerts::OCSF)?).ok()?;
        let evidence = finding.evidences.into_iter().next().unwrap_or_default();
        let actor = take(alerts::ACTOR).unwrap_or_default();
        let url = evidence.http_request.url.map(|url| match url.query_string {
            Some(query) => format!("{}?{query}", url.path),
            None => url.path,
        });
        let event = AlertEvent {
            audit_id: finding.metadata.original_event_uid,
            stage: finding.unmapped.stage,
            time_us: times.value(row),
            cluster: take(alerts::CLUSTER).unwrap_or_default(),
            source: take(alerts::SOURCE).unwrap_or_default(),
            source_offset: offsets.value(row),
            user_name: finding.unmapped.authenticated_user.unwrap_or_else(|| actor.clone()),
            actor,
            source_ip: take(alerts::SOURCE_IP),
            user_agent: evidence.http_request.user_agent,
            verb: take(alerts::VERB),
            request_uri: url,
            api_group: evidence.api.group.map(|group| group.name),
            resource: take(alerts::RESOURCE),
            subresource: take(alerts::SUBRESOURCE),
            namespace: take(alerts::NAMESPACE),
            name: take(alerts::NAME),
            response_code: evidence.api.response.map(|response| response.code),
            authz_decision: finding.unmapped.authorization_decision,
            exec_command: finding.unmapped.exec_command,
            exec_container: finding.unmapped.exec_container,
            outcome: finding.unmapped.outcome,
            faults: finding.unmapped.faults,
        };
        found.push(Alert {
            alert_id: take(alerts::ALERT_ID)?,
            rule_id: take(alerts::RULE_ID)?,
            rule_name: take(alerts::RULE_NAME)?,
            title: take(alerts::TITLE)?,
            severity: take(alerts::SEVERITY)?.parse().ok()?,
            time_us: times.value(row),
            window_start_us: starts.value(row),
            window_end_us: ends.value(row),
            group_key: take(alerts::GROUP_KEY).unwrap_or_default(),
            event_count: u64::try_from(counts.value(row)).unwrap_or(0),
            audit_ids: audit_ids.get(row)?.clone(),
            tactics: tactics.get(row)?.clone(),
            techniques: techniques.get(row)?.clone(),
            message: take(alerts::MESSAGE).unwrap_or_default(),
            next_steps: take(alerts::NEXT_STEPS).unwrap_or_default(),
            touched: std::mem::take(touched.get_mut(row)?),
            event,
        });
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_schemas::{AlertEvent, Severity, Touch};

    /// Returns an alert with a value in every field.
    fn alert(text: &str) -> Alert {
        let given = || Some(text.to_owned());
        Alert {
            alert_id: format!("id {text}"),
            rule_id: "0d6a4f0e-1111-5222-8333-444455556666".to_owned(),
            rule_name: "secrets-read".to_owned(),
            title: "Secrets read".to_owned(),
            severity: Severity::High,
            time_us: 3,
            window_start_us: 1,
            window_end_us: 2,
            group_key: format!("actor={text}"),
            event_count: 4,
            audit_ids: vec![text.to_owned(), "another".to_owned()],
            tactics: vec!["credential-access".to_owned()],
            techniques: vec!["T1552.007".to_owned()],
            message: format!("mallory read {text}"),
            next_steps: "Ask mallory.".to_owned(),
            event: AlertEvent {
                audit_id: text.to_owned(),
                stage: given(),
                time_us: 3,
                cluster: "prod".to_owned(),
                source: "file".to_owned(),
                source_offset: 5,
                actor: text.to_owned(),
                user_name: text.to_owned(),
                source_ip: given(),
                user_agent: given(),
                verb: given(),
                request_uri: given(),
                api_group: None,
                resource: given(),
                subresource: None,
                namespace: given(),
                name: given(),
                response_code: Some(200),
                authz_decision: given(),
                exec_command: given(),
                exec_container: given(),
                outcome: Some(Outcome::Unknown),
                faults: vec!["/verb: duplicate_member".to_owned()],
            },
            touched: Touched::of(Touch { namespace: Some("shop"), actor: text, ..Touch::default() }, 5),
        }
    }

    #[test]
    fn alerts_come_back_from_their_rows() {
        let mut impersonated = alert("two");
        impersonated.event.actor = "root".to_owned();
        impersonated.event.api_group = Some("apps".to_owned());
        let mut bare = alert("three");
        bare.event = AlertEvent { time_us: bare.time_us, ..AlertEvent::default() };
        let hostile = alert("a|b=c\\d\r\ne\u{1b}[31mf\u{0}g\"h]i<!channel>&\u{202e}\u{7f}ü");
        bare.touched = Touched::default();
        let mut wide = alert("four");
        wide.touched.merge(&Touched::any());
        let alerts = [alert("one"), impersonated, bare, hostile, wide];
        assert_eq!(alerts_of_batch(&alerts_batch(&alerts)).as_deref(), Some(&alerts[..]));
    }

    #[test]
    fn rows_without_the_columns_of_what_is_touched_are_alerts() {
        let alerts = [alert("one"), alert("two")];
        let batch = alerts_batch(&alerts);
        let old: Vec<usize> = (0..batch.num_columns() - 4).collect();
        let mut expected = alerts.clone();
        expected.iter_mut().for_each(|alert| alert.touched = Touched::default());
        let old = batch.project(&old).unwrap();
        assert_eq!(alerts_of_batch(&old).as_deref(), Some(&expected[..]));
        // Readers add the columns that are newer than the file, filled with nulls.
        let schema = Table::Alerts.file_schema();
        let columns = schema.fields().iter().map(|field| match old.column_by_name(field.name()) {
            Some(column) => Arc::clone(column),
            None => arrow_array::new_null_array(field.data_type(), old.num_rows()),
        });
        let filled = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
        assert_eq!(alerts_of_batch(&filled).as_deref(), Some(&expected[..]));
    }
}
