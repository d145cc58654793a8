//! The tables of an archive and the one schema of each.
//!
//! Column order is part of the format: writers fill columns by position. `COLUMNS` names them in that
//! order, and the `index` constants beside it are checked against the schema by a test.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// A table of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    Events,
    Rejects,
    Alerts,
    Activity,
}

impl Table {
    pub const ALL: [Table; 4] = [Table::Events, Table::Rejects, Table::Alerts, Table::Activity];

    /// Folder of the table below the archive root, and its name in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Events => "events",
            Table::Rejects => "rejects",
            Table::Alerts => "alerts",
            Table::Activity => "activity",
        }
    }

    /// Columns as stored in files and seen by SQL. Without the partition column [`DATE`].
    pub fn file_schema(self) -> SchemaRef {
        match self {
            Table::Events => Arc::clone(&events::FILE_SCHEMA),
            Table::Rejects => Arc::clone(&rejects::FILE_SCHEMA),
            Table::Alerts => Arc::clone(&alerts::FILE_SCHEMA),
            Table::Activity => Arc::clone(&activity::FILE_SCHEMA),
        }
    }

    /// Columns that old files of the table have not got. They came last, and are null there.
    pub const fn later_columns(self) -> &'static [&'static str] {
        match self {
            Table::Events => events::LATER,
            Table::Alerts => alerts::LATER,
            Table::Rejects | Table::Activity => &[],
        }
    }

    /// The same columns as they travel in memory, low-cardinality strings as dictionaries.
    pub fn batch_schema(self) -> SchemaRef {
        match self {
            Table::Events => Arc::clone(&events::BATCH_SCHEMA),
            Table::Rejects => Arc::clone(&rejects::BATCH_SCHEMA),
            Table::Alerts => Arc::clone(&alerts::FILE_SCHEMA),
            Table::Activity => Arc::clone(&activity::BATCH_SCHEMA),
        }
    }
}

/// Partition column of every table: the UTC day of the row's event time, `Date32`. It lives in the
/// path (`date=2026-03-02/`) and in the commit, not in the files.
pub const DATE: &str = "date";

/// Type of every point in time: microseconds, UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn string_list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// The in-memory spelling of a schema, from its file spelling and the names to keep as dictionaries.
fn as_batch_schema(file: &Schema, dictionaries: &[&str]) -> SchemaRef {
    let fields = file.fields().iter().map(|field| {
        if !dictionaries.contains(&field.name().as_str()) {
            return Arc::clone(field);
        }
        let data_type = match field.data_type() {
            DataType::List(_) => string_list(dictionary()),
            _ => dictionary(),
        };
        Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// `events`: one row for each audit event, in Kubernetes' own words.
///
/// Warnings of the Go type that hold for these columns: `audit_id` is per *request* and can be set
/// by the client, so it is no key; all but the last of `source_ips` can be set by the client;
/// `user_agent` is whatever the client says; bodies exist only at higher levels. Columns whose name
/// is marked *json* hold the exact text received, not a re-serialisation.
pub mod events {
    use super::*;

    macro_rules! columns {
        ($($upper:ident $name:literal $data_type:expr, $doc:literal;)*) => {
            /// Position of each column.
            pub mod index {
                columns!(@index 0usize; $($upper)*);
            }
            $(#[doc = $doc] pub const $upper: &str = $name;)*
            /// Column names in order.
            pub const COLUMNS: &[&str] = &[$($name),*];
            pub(super) static FILE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
                Arc::new(Schema::new(vec![$(Field::new($name, $data_type, true)),*]))
            });
        };
        (@index $at:expr; $head:ident $($tail:ident)*) => {
            pub const $head: usize = $at;
            columns!(@index $at + 1; $($tail)*);
        };
        (@index $at:expr;) => { pub const COUNT: usize = $at; };
    }

    columns! {
        AUDIT_ID "audit_id" DataType::Utf8, "`auditID`: names the request, chosen by the client if it likes.";
        STAGE "stage" DataType::Utf8, "`stage`; null when the event has none.";
        LEVEL "level" DataType::Utf8, "`level`.";
        VERB "verb" DataType::Utf8, "`verb`: get, list, watch, create, update, patch, delete, deletecollection, or a lower-case HTTP method.";
        REQUEST_URI "request_uri" DataType::Utf8, "`requestURI`: path and query as sent.";
        USER_NAME "user_name" DataType::Utf8, "`user.username`.";
        USER_UID "user_uid" DataType::Utf8, "`user.uid`.";
        USER_GROUPS "user_groups" string_list(DataType::Utf8), "`user.groups`.";
        USER_EXTRA "user_extra" DataType::Utf8, "`user.extra`, json.";
        IMPERSONATED_USER_NAME "impersonated_user_name" DataType::Utf8, "`impersonatedUser.username`.";
        IMPERSONATED_USER_GROUPS "impersonated_user_groups" string_list(DataType::Utf8), "`impersonatedUser.groups`.";
        IMPERSONATED_USER_EXTRA "impersonated_user_extra" DataType::Utf8, "`impersonatedUser.extra`, json.";
        SOURCE_IPS "source_ips" string_list(DataType::Utf8), "`sourceIPs`: only the last one is the peer that the API server saw.";
        USER_AGENT "user_agent" DataType::Utf8, "`userAgent`: untrusted.";
        RESOURCE "resource" DataType::Utf8, "`objectRef.resource`.";
        SUBRESOURCE "subresource" DataType::Utf8, "`objectRef.subresource`.";
        NAMESPACE "namespace" DataType::Utf8, "`objectRef.namespace`.";
        NAME "name" DataType::Utf8, "`objectRef.name`.";
        API_GROUP "api_group" DataType::Utf8, "`objectRef.apiGroup`; null for the core group.";
        API_VERSION "api_version" DataType::Utf8, "`objectRef.apiVersion`.";
        OBJECT_UID "object_uid" DataType::Utf8, "`objectRef.uid`.";
        RESOURCE_VERSION "resource_version" DataType::Utf8, "`objectRef.resourceVersion`.";
        RESPONSE_CODE "response_code" DataType::Int32, "`responseStatus.code`.";
        RESPONSE_STATUS "response_status" DataType::Utf8, "`responseStatus.status`.";
        RESPONSE_REASON "response_reason" DataType::Utf8, "`responseStatus.reason`.";
        RESPONSE_MESSAGE "response_message" DataType::Utf8, "`responseStatus.message`.";
        RESPONSE_DETAILS "response_details" DataType::Utf8, "`responseStatus.details`, json.";
        REQUEST_OBJECT "request_object" DataType::Utf8, "`requestObject`, json: an array for a JSON patch.";
        RESPONSE_OBJECT "response_object" DataType::Utf8, "`responseObject`, json.";
        ANNOTATIONS "annotations" DataType::Utf8, "`annotations`, json.";
        AUTHZ_DECISION "authz_decision" DataType::Utf8, "Annotation `authorization.k8s.io/decision`: allow or forbid.";
        AUTHZ_REASON "authz_reason" DataType::Utf8, "Annotation `authorization.k8s.io/reason`.";
        REQUEST_RECEIVED_TIMESTAMP "request_received_timestamp" timestamp(), "`requestReceivedTimestamp`.";
        STAGE_TIMESTAMP "stage_timestamp" timestamp(), "`stageTimestamp`: the event time.";
        CLUSTER "cluster" DataType::Utf8, "Name of the cluster, from the source's configuration: no event carries it.";
        SOURCE "source" DataType::Utf8, "Source partition that brought the event, as `kind/identity`.";
        SOURCE_OFFSET "source_offset" DataType::Int64, "Byte offset of the event in the uncompressed stream, or the broker's offset.";
        RAW "raw" DataType::Binary, "The bytes received, when rendering the columns does not give them; else null.";
        SHAPE "shape" DataType::Utf8, "Text between `{` and `\"level\":` when it is not that of a log line of audit.k8s.io/v1; empty for items of an EventList. Beside raw: google.cloud.audit.AuditLog, and the event is partial.";
        FRAME_BEFORE "frame_before" DataType::Binary, "Bytes of the stream just before this record that belong to no record: a BOM, the head of an EventList, its commas, a cloud's wrapper.";
        FRAME_AFTER "frame_after" DataType::Binary, "Bytes just after this record that belong to no record: the tail of an EventList or of a cloud's wrapper.";
        FORM "form" DataType::Utf8, "Template of the record, when its stream spells records in another way than kube-apiserver; null beside `raw`, and for kube-apiserver's own spelling.";
        FORM_VALUES "form_values" string_list(DataType::Utf8), "What varies in the record beside the columns, in the order of the form's holes for it.";
        REDACTION "redaction" DataType::Utf8, "Null when the record is what was received; else by which policy it was changed before it was written, and where.";
        FAULTS "faults" string_list(DataType::Utf8), "What of the event could not be read, as `<JSON pointer>: <fault>`.";
    }

    /// Columns that files from before there were such columns have not got; there they are null.
    pub const LATER: &[&str] = &[FORM, FORM_VALUES, REDACTION, FAULTS];

    /// String columns that travel as dictionaries.
    pub const DICTIONARIES: &[&str] = &[
        STAGE,
        LEVEL,
        VERB,
        REQUEST_URI,
        USER_NAME,
        USER_UID,
        USER_GROUPS,
        USER_EXTRA,
        IMPERSONATED_USER_NAME,
        IMPERSONATED_USER_GROUPS,
        IMPERSONATED_USER_EXTRA,
        SOURCE_IPS,
        USER_AGENT,
        RESOURCE,
        SUBRESOURCE,
        NAMESPACE,
        NAME,
        API_GROUP,
        API_VERSION,
        OBJECT_UID,
        RESPONSE_STATUS,
        RESPONSE_REASON,
        RESPONSE_MESSAGE,
        RESPONSE_DETAILS,
        ANNOTATIONS,
        AUTHZ_DECISION,
        AUTHZ_REASON,
        CLUSTER,
        SOURCE,
        SHAPE,
        FORM,
    ];

    pub(super) static BATCH_SCHEMA: LazyLock<SchemaRef> =
        LazyLock::new(|| as_batch_schema(&FILE_SCHEMA, DICTIONARIES));

    /// Text that opens a log line of `audit.k8s.io/v1`; what `shape` being null stands for.
    pub const SHAPE_DEFAULT: &str = r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#;
}

/// `rejects`: what was received and could not be decoded, never only a log line.
pub mod rejects {
    use super::*;

    pub const RAW: &str = "raw";
    pub const REASON: &str = "reason";
    pub const DETAIL: &str = "detail";
    pub const CLUSTER: &str = "cluster";
    pub const SOURCE: &str = "source";
    pub const SOURCE_OFFSET: &str = "source_offset";
    pub const LINE: &str = "line";
    pub const RECEIVED_TIMESTAMP: &str = "received_timestamp";

    /// Position of each column.
    pub mod index {
        pub const RAW: usize = 0;
        pub const REASON: usize = 1;
        pub const DETAIL: usize = 2;
        pub const CLUSTER: usize = 3;
        pub const SOURCE: usize = 4;
        pub const SOURCE_OFFSET: usize = 5;
        pub const LINE: usize = 6;
        pub const RECEIVED_TIMESTAMP: usize = 7;
    }

    pub(super) static FILE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new(RAW, DataType::Binary, true),
            Field::new(REASON, DataType::Utf8, true),
            Field::new(DETAIL, DataType::Utf8, true),
            Field::new(CLUSTER, DataType::Utf8, true),
            Field::new(SOURCE, DataType::Utf8, true),
            Field::new(SOURCE_OFFSET, DataType::Int64, true),
            Field::new(LINE, DataType::Int64, true),
            Field::new(RECEIVED_TIMESTAMP, timestamp(), true),
        ]))
    });

    pub(super) static BATCH_SCHEMA: LazyLock<SchemaRef> =
        LazyLock::new(|| as_batch_schema(&FILE_SCHEMA, &[REASON, CLUSTER, SOURCE]));
}

/// `alerts`: every alert raised, with references to its events and the finding that was sent.
pub mod alerts {
    use super::*;

    /// The finding as sent; the record that a proof is over.
    pub const OCSF: &str = "ocsf";
    /// Of all events of the alert, as the next two.
    pub const NAMESPACES: &str = "namespaces";
    pub const ACTORS: &str = "actors";
    pub const CLUSTERS: &str = "clusters";
    /// Where the events lie: JSON, `[["<source>", first, last], …]`.
    pub const EVENT_RANGES: &str = "event_ranges";
    /// Columns that files from before there were such columns have not got; there they are null.
    pub const LATER: &[&str] = &[NAMESPACES, ACTORS, CLUSTERS, EVENT_RANGES];
    /// Column names in order.
    pub const COLUMNS: &[&str] = &[
        "alert_id",
        "rule_id",
        "rule_name",
        "title",
        "severity",
        "time",
        "window_start",
        "window_end",
        "cluster",
        "actor",
        "source_ip",
        "verb",
        "resource",
        "subresource",
        "namespace",
        "name",
        "group_key",
        "event_count",
        "audit_ids",
        "tactics",
        "techniques",
        "message",
        "next_steps",
        "ocsf",
        "source",
        "source_offset",
        NAMESPACES,
        ACTORS,
        CLUSTERS,
        EVENT_RANGES,
    ];

    pub(super) static FILE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let fields = COLUMNS.iter().map(|name| {
            let data_type = match *name {
                "time" | "window_start" | "window_end" => timestamp(),
                "event_count" | "source_offset" => DataType::Int64,
                "audit_ids" | "tactics" | "techniques" | NAMESPACES | ACTORS | CLUSTERS => {
                    string_list(DataType::Utf8)
                }
                _ => DataType::Utf8,
            };
            Field::new(*name, data_type, true)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    });
}

/// `activity`: what was done with the archive and its findings, in records of our own.
pub mod activity {
    use super::*;

    pub const KIND: &str = "kind";
    pub const TIME: &str = "time";
    pub const PRINCIPAL: &str = "principal";
    pub const SUBJECT: &str = "subject";
    /// One JSON object, the record that a proof is over; the four columns before it are members of it.
    pub const BODY: &str = "body";
    pub const SOURCE: &str = "source";
    pub const SOURCE_OFFSET: &str = "source_offset";
    /// Column names in order.
    pub const COLUMNS: &[&str] = &[KIND, TIME, PRINCIPAL, SUBJECT, BODY, SOURCE, SOURCE_OFFSET];

    /// What the source partition of every writer of activity begins with.
    pub const SOURCE_PREFIX: &str = "activity/";

    pub(super) static FILE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new(KIND, DataType::Utf8, true),
            Field::new(TIME, timestamp(), true),
            Field::new(PRINCIPAL, DataType::Utf8, true),
            Field::new(SUBJECT, DataType::Utf8, true),
            Field::new(BODY, DataType::Utf8, true),
            Field::new(SOURCE, DataType::Utf8, true),
            Field::new(SOURCE_OFFSET, DataType::Int64, true),
        ]))
    });

    pub(super) static BATCH_SCHEMA: LazyLock<SchemaRef> =
        LazyLock::new(|| as_batch_schema(&FILE_SCHEMA, &[KIND, PRINCIPAL, SOURCE]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_agree_with_the_schema() {
        let schema = Table::Events.file_schema();
        assert_eq!(schema.fields().len(), events::index::COUNT);
        assert_eq!(schema.field(events::index::RAW).name(), events::RAW);
        assert_eq!(schema.field(events::index::FRAME_AFTER).name(), events::FRAME_AFTER);
        assert_eq!(schema.field(events::index::FAULTS).name(), events::FAULTS);
        assert_eq!(schema.field(events::index::STAGE_TIMESTAMP).data_type(), &timestamp());
        let schema = Table::Rejects.file_schema();
        assert_eq!(schema.field(rejects::index::RECEIVED_TIMESTAMP).name(), rejects::RECEIVED_TIMESTAMP);
        assert_eq!(schema.field(rejects::index::LINE).name(), rejects::LINE);
        for (table, columns) in [(Table::Alerts, alerts::COLUMNS), (Table::Activity, activity::COLUMNS)] {
            let schema = table.file_schema();
            let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
            assert_eq!(names, columns);
        }
    }

    #[test]
    fn batch_schemas_differ_from_file_schemas_only_in_dictionaries() {
        for table in Table::ALL {
            let (file, batch) = (table.file_schema(), table.batch_schema());
            assert_eq!(file.fields().len(), batch.fields().len());
            for (stored, travelling) in file.fields().iter().zip(batch.fields()) {
                assert_eq!(stored.name(), travelling.name());
                let plain = match travelling.data_type() {
                    DataType::Dictionary(_, value) => value.as_ref().clone(),
                    DataType::List(item) => match item.data_type() {
                        DataType::Dictionary(_, value) => string_list(value.as_ref().clone()),
                        _ => travelling.data_type().clone(),
                    },
                    other => other.clone(),
                };
                assert_eq!(stored.data_type(), &plain, "{}", stored.name());
            }
        }
    }

    #[test]
    fn later_columns_come_last_and_may_be_null() {
        for table in Table::ALL {
            let (schema, later) = (table.file_schema(), table.later_columns());
            let tail = &schema.fields()[schema.fields().len() - later.len()..];
            assert!(tail.iter().zip(later).all(|(field, name)| field.name() == name && field.is_nullable()));
        }
    }

    #[test]
    fn no_map_columns() {
        for table in Table::ALL {
            assert!(table.file_schema().fields().iter().all(|f| !matches!(f.data_type(), DataType::Map(..))));
        }
    }
}
