//! The tables of an archive, and the columns of each.
//!
//! Invariant: a column's name is written here and nowhere else. Its position is a constant in the
//! module `index` of the table. Column order is part of the format, because writers fill columns by
//! position. No state.

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

    /// Returns the table's name in SQL, which is also its folder below the archive root.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Events => "events",
            Table::Rejects => "rejects",
            Table::Alerts => "alerts",
            Table::Activity => "activity",
        }
    }

    /// Returns the columns as files store them and SQL sees them, without the partition column
    /// [`DATE`].
    pub fn file_schema(self) -> SchemaRef {
        match self {
            Table::Events => Arc::clone(&events::FILE_SCHEMA),
            Table::Rejects => Arc::clone(&rejects::FILE_SCHEMA),
            Table::Alerts => Arc::clone(&alerts::FILE_SCHEMA),
            Table::Activity => Arc::clone(&activity::FILE_SCHEMA),
        }
    }

    /// Returns the name of the column that has the time of a row. Commits record the least and the
    /// greatest time of each file.
    pub const fn time_column(self) -> &'static str {
        match self {
            Table::Events => events::STAGE_TIMESTAMP,
            Table::Rejects => rejects::RECEIVED_TIMESTAMP,
            Table::Alerts => alerts::TIME,
            Table::Activity => activity::TIME,
        }
    }

    /// Returns the columns that older files of the table lack; in these files, they read as null.
    /// They are the last columns of the table.
    pub const fn later_columns(self) -> &'static [&'static str] {
        match self {
            Table::Events => events::LATER,
            Table::Alerts => alerts::LATER,
            Table::Rejects | Table::Activity => &[],
        }
    }

    /// Returns the columns of [`Table::file_schema`] as they are in memory, where strings with few
    /// distinct values are dictionaries.
    pub fn batch_schema(self) -> SchemaRef {
        match self {
            Table::Events => Arc::clone(&events::BATCH_SCHEMA),
            Table::Rejects => Arc::clone(&rejects::BATCH_SCHEMA),
            Table::Alerts => Arc::clone(&alerts::FILE_SCHEMA),
            Table::Activity => Arc::clone(&activity::BATCH_SCHEMA),
        }
    }
}

/// Partition column of every table: the UTC day of the row's event time, `Date32`. It is part of
/// the path (`date=2026-03-02/`) and of the commit, not of the files.
pub const DATE: &str = "date";

/// Returns the type of every point in time: microseconds, UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn string_list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// Returns the batch schema of a file schema, given the columns that are dictionaries in memory.
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

/// Declares the columns of a table, in order: a constant for each name and each position, the list
/// of names, and the file schema.
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

/// `events`: one row for each audit event, in Kubernetes' own words.
///
/// The warnings of the Go type apply to these columns. `audit_id` identifies a *request* and can be
/// set by the client, so it is not a key. All of `source_ips` but the last can be set by the
/// client. `user_agent` is whatever the client sends. Bodies exist only at the levels `Request` and
/// `RequestResponse`. Columns marked *json* contain the exact text received, not a
/// re-serialisation.
pub mod events {
    use super::*;

    columns! {
        AUDIT_ID "audit_id" DataType::Utf8, "`auditID`: identifies the request; the client may choose it.";
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
        SOURCE "source" DataType::Utf8, "Source partition that delivered the event, as `kind/identity`.";
        SOURCE_OFFSET "source_offset" DataType::Int64, "Byte offset of the event in the uncompressed stream, or the broker's offset.";
        RAW "raw" DataType::Binary, "The bytes received, if rendering the columns does not reproduce them; else null.";
        SHAPE "shape" DataType::Utf8, "Text between `{` and `\"level\":` if it differs from a log line of audit.k8s.io/v1; empty for items of an EventList. With `raw` it is google.cloud.audit.AuditLog, and the event is partial; or `unwrap:` and the configured path that the event was found by.";
        FRAME_BEFORE "frame_before" DataType::Binary, "Bytes of the stream before this record that are not part of a record: a BOM, the head of an EventList, its commas, a cloud's wrapper.";
        FRAME_AFTER "frame_after" DataType::Binary, "Bytes after this record that are not part of a record: the tail of an EventList or of a cloud's wrapper.";
        FORM "form" DataType::Utf8, "Template of the record, if its stream formats records differently from kube-apiserver; null with `raw`, and for kube-apiserver's own format.";
        FORM_VALUES "form_values" string_list(DataType::Utf8), "Values of the record that no column has, in the order of the form's holes for them.";
        REDACTION "redaction" DataType::Utf8, "Null if the record is what was received; else the policy that changed it before it was written, and where.";
        FAULTS "faults" string_list(DataType::Utf8), "Parts of the event that could not be read, as `<JSON pointer>: <fault>`.";
    }

    /// Columns that older files lack, where they read as null.
    pub const LATER: &[&str] = &[FORM, FORM_VALUES, REDACTION, FAULTS];

    /// String columns that are dictionaries in memory.
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
        REDACTION,
    ];

    pub(super) static BATCH_SCHEMA: LazyLock<SchemaRef> =
        LazyLock::new(|| as_batch_schema(&FILE_SCHEMA, DICTIONARIES));

    /// The text that a null `shape` stands for: the text between `{` and `"level":` in a log line
    /// of `audit.k8s.io/v1`.
    pub const SHAPE_DEFAULT: &str = r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#;
}

/// `rejects`: received records that could not be decoded. They are stored, not only logged.
pub mod rejects {
    use super::*;

    columns! {
        RAW "raw" DataType::Binary, "The bytes received.";
        REASON "reason" DataType::Utf8, "Why they could not be decoded, one of a closed list.";
        DETAIL "detail" DataType::Utf8, "The decoder's message.";
        CLUSTER "cluster" DataType::Utf8, "Name of the cluster, from the source's configuration.";
        SOURCE "source" DataType::Utf8, "Source partition that delivered the record, as `kind/identity`.";
        SOURCE_OFFSET "source_offset" DataType::Int64, "Byte offset of the record in the uncompressed stream, or the broker's offset.";
        LINE "line" DataType::Int64, "Line of the stream.";
        RECEIVED_TIMESTAMP "received_timestamp" timestamp(), "When the record was read.";
    }

    pub(super) static BATCH_SCHEMA: LazyLock<SchemaRef> =
        LazyLock::new(|| as_batch_schema(&FILE_SCHEMA, &[REASON, CLUSTER, SOURCE]));
}

/// `alerts`: every alert raised, with references to its events, and the finding that was sent.
pub mod alerts {
    use super::*;

    columns! {
        ALERT_ID "alert_id" DataType::Utf8, "Identity of the alert: the same whenever it is raised again.";
        RULE_ID "rule_id" DataType::Utf8, "Identity of the rule.";
        RULE_NAME "rule_name" DataType::Utf8, "Name of the rule.";
        TITLE "title" DataType::Utf8, "Title of the rule.";
        SEVERITY "severity" DataType::Utf8, "Severity of the rule.";
        TIME "time" timestamp(), "Event time of the event that completed the alert.";
        WINDOW_START "window_start" timestamp(), "Event time at which the window begins.";
        WINDOW_END "window_end" timestamp(), "Event time at which the window ends.";
        CLUSTER "cluster" DataType::Utf8, "Cluster of the event.";
        ACTOR "actor" DataType::Utf8, "Impersonated user of the event, or its user.";
        SOURCE_IP "source_ip" DataType::Utf8, "Address that the API server saw.";
        VERB "verb" DataType::Utf8, "Verb of the event.";
        RESOURCE "resource" DataType::Utf8, "Resource of the event.";
        SUBRESOURCE "subresource" DataType::Utf8, "Subresource of the event.";
        NAMESPACE "namespace" DataType::Utf8, "Namespace of the event.";
        NAME "name" DataType::Utf8, "Name of the event's object.";
        GROUP_KEY "group_key" DataType::Utf8, "Group of a correlation, as `field=value` pairs.";
        EVENT_COUNT "event_count" DataType::Int64, "Events or values that the alert counts.";
        AUDIT_IDS "audit_ids" string_list(DataType::Utf8), "Audit ids of the first events.";
        TACTICS "tactics" string_list(DataType::Utf8), "ATT&CK tactics of the rule.";
        TECHNIQUES "techniques" string_list(DataType::Utf8), "ATT&CK techniques of the rule.";
        MESSAGE "message" DataType::Utf8, "What happened, in a sentence.";
        NEXT_STEPS "next_steps" DataType::Utf8, "What to do next.";
        OCSF "ocsf" DataType::Utf8, "The finding as it was sent: the record that proofs cover.";
        SOURCE "source" DataType::Utf8, "Source partition of the event.";
        SOURCE_OFFSET "source_offset" DataType::Int64, "Offset of the event in its source.";
        NAMESPACES "namespaces" string_list(DataType::Utf8), "Namespaces of all events of the alert.";
        ACTORS "actors" string_list(DataType::Utf8), "Actors of all events of the alert.";
        CLUSTERS "clusters" string_list(DataType::Utf8), "Clusters of all events of the alert.";
        EVENT_RANGES "event_ranges" DataType::Utf8, "Offsets of the events: JSON, `[[\"<source>\", first, last], …]`.";
    }

    /// Columns that older files lack, where they read as null.
    pub const LATER: &[&str] = &[NAMESPACES, ACTORS, CLUSTERS, EVENT_RANGES];
}

/// `activity`: what was done with the archive and its findings, in records that Strongroom makes.
pub mod activity {
    use super::*;

    columns! {
        KIND "kind" DataType::Utf8, "What was done.";
        TIME "time" timestamp(), "When.";
        PRINCIPAL "principal" DataType::Utf8, "By whom.";
        SUBJECT "subject" DataType::Utf8, "To what.";
        BODY "body" DataType::Utf8, "One JSON object, the record that proofs cover; the four columns before it are members of it.";
        SOURCE "source" DataType::Utf8, "Source partition of the writer.";
        SOURCE_OFFSET "source_offset" DataType::Int64, "Number of the record in its source.";
    }

    /// The prefix of the source partition of every writer of activity records.
    pub const SOURCE_PREFIX: &str = "activity/";

    pub(super) static BATCH_SCHEMA: LazyLock<SchemaRef> =
        LazyLock::new(|| as_batch_schema(&FILE_SCHEMA, &[KIND, PRINCIPAL, SOURCE]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_names_agree_with_the_schema() {
        let schema = Table::Events.file_schema();
        assert_eq!(schema.fields().len(), events::index::COUNT);
        assert_eq!(schema.field(events::index::RAW).name(), events::RAW);
        assert_eq!(schema.field(events::index::FRAME_AFTER).name(), events::FRAME_AFTER);
        assert_eq!(schema.field(events::index::FAULTS).name(), events::FAULTS);
        assert_eq!(schema.field(events::index::STAGE_TIMESTAMP).data_type(), &timestamp());
        let schema = Table::Rejects.file_schema();
        assert_eq!(schema.field(rejects::index::RECEIVED_TIMESTAMP).name(), rejects::RECEIVED_TIMESTAMP);
        assert_eq!(schema.field(rejects::index::LINE).name(), rejects::LINE);
        let columns = [events::COLUMNS, rejects::COLUMNS, alerts::COLUMNS, activity::COLUMNS];
        for (table, columns) in Table::ALL.into_iter().zip(columns) {
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
