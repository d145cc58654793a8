//! Reads a row of the table `events` back into the event that the plain reader gives.
//!
//! Invariant: nothing is interpreted here. So a row and the plain reader's event can be compared
//! member by member, in tests and in fuzzing. No state.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{Array as _, RecordBatch};
use strongroom_lines::plain::PlainEvent;
use strongroom_schemas::events::index;

/// Reads a row of an `events` batch back into a [`PlainEvent`], for comparison.
///
/// # Panics
/// If the batch does not have the columns of `Table::Events.batch_schema()`.
pub fn plain_row(batch: &RecordBatch, row: usize) -> PlainEvent {
    let dictionary = |at: usize| {
        let column = batch.column(at).as_dictionary::<Int32Type>();
        column
            .is_valid(row)
            .then(|| column.values().as_string::<i32>().value(column.keys().value(row) as usize).to_owned())
    };
    let plain = |at: usize| {
        let column = batch.column(at).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let list = |at: usize| {
        let column = batch.column(at).as_list::<i32>();
        column.is_valid(row).then(|| {
            let items = column.value(row);
            let items = items.as_dictionary::<Int32Type>();
            let values = items.values().as_string::<i32>();
            items.keys().iter().map(|key| values.value(key.unwrap_or(0) as usize).to_owned()).collect()
        })
    };
    let plain_list = |at: usize| {
        let column = batch.column(at).as_list::<i32>();
        column.is_valid(row).then(|| {
            column.value(row).as_string::<i32>().iter().map(|item| item.unwrap_or("").to_owned()).collect()
        })
    };
    let timestamp = |at: usize| {
        let column = batch.column(at).as_primitive::<TimestampMicrosecondType>();
        column.is_valid(row).then(|| column.value(row))
    };
    let code = batch.column(index::RESPONSE_CODE).as_primitive::<Int32Type>();
    PlainEvent {
        audit_id: plain(index::AUDIT_ID),
        stage: dictionary(index::STAGE),
        level: dictionary(index::LEVEL),
        verb: dictionary(index::VERB),
        request_uri: dictionary(index::REQUEST_URI),
        user_name: dictionary(index::USER_NAME),
        user_uid: dictionary(index::USER_UID),
        user_groups: list(index::USER_GROUPS),
        user_extra: dictionary(index::USER_EXTRA),
        impersonated_user_name: dictionary(index::IMPERSONATED_USER_NAME),
        impersonated_user_groups: list(index::IMPERSONATED_USER_GROUPS),
        impersonated_user_extra: dictionary(index::IMPERSONATED_USER_EXTRA),
        source_ips: list(index::SOURCE_IPS),
        user_agent: dictionary(index::USER_AGENT),
        resource: dictionary(index::RESOURCE),
        subresource: dictionary(index::SUBRESOURCE),
        namespace: dictionary(index::NAMESPACE),
        name: dictionary(index::NAME),
        api_group: dictionary(index::API_GROUP),
        api_version: dictionary(index::API_VERSION),
        object_uid: dictionary(index::OBJECT_UID),
        resource_version: plain(index::RESOURCE_VERSION),
        response_code: code.is_valid(row).then(|| code.value(row)),
        response_status: dictionary(index::RESPONSE_STATUS),
        response_reason: dictionary(index::RESPONSE_REASON),
        response_message: dictionary(index::RESPONSE_MESSAGE),
        response_details: dictionary(index::RESPONSE_DETAILS),
        request_object: plain(index::REQUEST_OBJECT),
        response_object: plain(index::RESPONSE_OBJECT),
        annotations: dictionary(index::ANNOTATIONS),
        authz_decision: dictionary(index::AUTHZ_DECISION),
        authz_reason: dictionary(index::AUTHZ_REASON),
        request_received_timestamp: timestamp(index::REQUEST_RECEIVED_TIMESTAMP),
        stage_timestamp: timestamp(index::STAGE_TIMESTAMP),
        faults: plain_list(index::FAULTS),
    }
}
