//! Builds the events of a block, column by column.
//!
//! Invariant: a row is pushed whole or not at all. Everything that can be refused is decoded into a
//! [`Row`] before the first column is changed. Objects that repeat are decoded once per block.
//! Their memos are keyed by text, and contain only text that was valid. Builders live in memory
//! only; after a crash the block is read again.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, RecordBatch, new_null_array};
use arrow_schema::ArrowError;
use strongroom_lines::frame;
use strongroom_lines::plain::{self, PlainEvent};
use strongroom_schemas::Table;
use strongroom_schemas::events::index;
use strongroom_schemas::form::MAPPED;
use strongroom_schemas::record::{Sha256Hash, leaf_hash};

use crate::columns::{BytesColumn, DictColumn, ListColumn, Memo, NULL, NumberColumn, RecordColumn, Records};
use crate::document::{
    Document, Stop, code, is_canonical_list, is_compact, json_object, no_duplicate, read_user, utf8,
};
use crate::learn::{self, Columns, EventText, Forms, Learner};
use crate::tape::Member;

#[derive(Clone, Copy)]
pub(crate) struct UserKeys {
    pub(crate) name: i32,
    pub(crate) uid: i32,
    pub(crate) groups: i32,
    pub(crate) extra: i32,
    pub(crate) canonical: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct ObjectKeys {
    pub(crate) resource: i32,
    pub(crate) namespace: i32,
    pub(crate) name: i32,
    pub(crate) uid: i32,
    pub(crate) api_group: i32,
    pub(crate) api_version: i32,
    pub(crate) subresource: i32,
    pub(crate) canonical: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct StatusKeys {
    pub(crate) status: i32,
    pub(crate) message: i32,
    pub(crate) reason: i32,
    pub(crate) details: i32,
    pub(crate) code: Option<i32>,
    pub(crate) canonical: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct AnnotationKeys {
    pub(crate) annotations: i32,
    pub(crate) decision: i32,
    pub(crate) reason: i32,
}

#[derive(Clone, Copy)]
pub(crate) struct ListKeys {
    pub(crate) list: i32,
    pub(crate) canonical: bool,
}

pub(crate) const NO_USER: UserKeys =
    UserKeys { name: NULL, uid: NULL, groups: NULL, extra: NULL, canonical: false };
pub(crate) const NO_OBJECT: ObjectKeys = ObjectKeys {
    resource: NULL,
    namespace: NULL,
    name: NULL,
    uid: NULL,
    api_group: NULL,
    api_version: NULL,
    subresource: NULL,
    canonical: true,
};
pub(crate) const NO_ANNOTATIONS: AnnotationKeys =
    AnnotationKeys { annotations: NULL, decision: NULL, reason: NULL };
pub(crate) const NO_STATUS: StatusKeys =
    StatusKeys { status: NULL, message: NULL, reason: NULL, details: NULL, code: None, canonical: true };

/// One event, decoded and interned, ready to be pushed.
pub(crate) struct Row<'l> {
    pub(crate) audit_id: Option<&'l [u8]>,
    pub(crate) stage: i32,
    pub(crate) level: i32,
    pub(crate) verb: i32,
    pub(crate) request_uri: i32,
    pub(crate) user_agent: i32,
    pub(crate) user: UserKeys,
    pub(crate) impersonated: UserKeys,
    pub(crate) source_ips: i32,
    pub(crate) object: ObjectKeys,
    pub(crate) resource_version: Option<&'l [u8]>,
    pub(crate) status: StatusKeys,
    pub(crate) request_object: Option<&'l [u8]>,
    pub(crate) response_object: Option<&'l [u8]>,
    pub(crate) annotations: AnnotationKeys,
    pub(crate) received: Option<i64>,
    pub(crate) stage_time: Option<i64>,
    /// The record, if rendering the columns alone would not give it. A form may replace it when the
    /// block ends.
    pub(crate) raw: Option<&'l [u8]>,
    pub(crate) shape: i32,
    pub(crate) faults: i32,
}

/// Chooses the rows whose records are not hashed when they are decoded, because the records will
/// probably be changed before they are sealed. Such a record is hashed only once, after the change.
pub trait HashedLater: Send {
    fn is_later(&mut self, row: &DecodedRow<'_>) -> bool;
}

/// A row before it is pushed.
pub struct DecodedRow<'r> {
    rows: &'r Rows,
    row: &'r Row<'r>,
}

impl DecodedRow<'_> {
    /// Whether the row has a value in a column.
    pub fn has(&self, column: usize) -> bool {
        self.row.has(column)
    }

    /// Returns the key of the value in a column of names or URIs. Equal values of a block have the
    /// same key. The key is -1 if there is no value, or if the column is not one of names or URIs.
    pub fn key(&self, column: usize) -> i32 {
        self.named(column).map_or(NULL, |(_, key)| key)
    }

    /// Returns the value in a column of names or URIs.
    pub fn name(&self, column: usize) -> Option<&str> {
        let (column, key) = self.named(column)?;
        (key != NULL).then(|| column.dictionary.text(key))
    }

    fn named(&self, column: usize) -> Option<(&DictColumn, i32)> {
        Some(match column {
            index::NAMESPACE => (&self.rows.namespace, self.row.object.namespace),
            index::NAME => (&self.rows.name, self.row.object.name),
            index::API_GROUP => (&self.rows.api_group, self.row.object.api_group),
            index::RESOURCE => (&self.rows.resource, self.row.object.resource),
            index::REQUEST_URI => (&self.rows.request_uri, self.row.request_uri),
            _ => return None,
        })
    }
}

impl Row<'_> {
    /// Whether the row has a value in a column of an event.
    fn has(&self, column: usize) -> bool {
        match column {
            index::AUDIT_ID => self.audit_id.is_some(),
            index::STAGE => self.stage != NULL,
            index::LEVEL => self.level != NULL,
            index::VERB => self.verb != NULL,
            index::REQUEST_URI => self.request_uri != NULL,
            index::USER_AGENT => self.user_agent != NULL,
            index::USER_NAME => self.user.name != NULL,
            index::USER_UID => self.user.uid != NULL,
            index::USER_GROUPS => self.user.groups != NULL,
            index::USER_EXTRA => self.user.extra != NULL,
            index::IMPERSONATED_USER_NAME => self.impersonated.name != NULL,
            index::IMPERSONATED_USER_GROUPS => self.impersonated.groups != NULL,
            index::IMPERSONATED_USER_EXTRA => self.impersonated.extra != NULL,
            index::SOURCE_IPS => self.source_ips != NULL,
            index::RESOURCE => self.object.resource != NULL,
            index::SUBRESOURCE => self.object.subresource != NULL,
            index::NAMESPACE => self.object.namespace != NULL,
            index::NAME => self.object.name != NULL,
            index::API_GROUP => self.object.api_group != NULL,
            index::API_VERSION => self.object.api_version != NULL,
            index::OBJECT_UID => self.object.uid != NULL,
            index::RESOURCE_VERSION => self.resource_version.is_some(),
            index::RESPONSE_CODE => self.status.code.is_some(),
            index::RESPONSE_STATUS => self.status.status != NULL,
            index::RESPONSE_REASON => self.status.reason != NULL,
            index::RESPONSE_MESSAGE => self.status.message != NULL,
            index::RESPONSE_DETAILS => self.status.details != NULL,
            index::REQUEST_OBJECT => self.request_object.is_some(),
            index::RESPONSE_OBJECT => self.response_object.is_some(),
            index::ANNOTATIONS => self.annotations.annotations != NULL,
            index::REQUEST_RECEIVED_TIMESTAMP => self.received.is_some(),
            index::STAGE_TIMESTAMP => self.stage_time.is_some(),
            _ => false,
        }
    }

    /// Returns the columns that a form of the row has. `event` is the text of the event, if it was
    /// found in layers.
    fn columns<'c>(&'c self, event: Option<EventText<'c>>) -> Columns<'c> {
        let there = MAPPED.iter().enumerate().map(|(at, mapped)| u64::from(self.has(mapped.column)) << at);
        Columns {
            there: there.fold(0, |all, bit| all | bit),
            request_object: self.request_object,
            response_object: self.response_object,
            event,
            times: learn::TIMES.map(|column| match column {
                index::STAGE_TIMESTAMP => self.stage_time,
                _ => self.received,
            }),
        }
    }
}

/// Position of a record in its stream, and the frame before it: the bytes that belong to no record.
pub(crate) struct Place<'l> {
    pub(crate) offset: i64,
    pub(crate) before: &'l [u8],
}

/// The events of a block, column by column.
pub(crate) struct Rows {
    pub(crate) audit_id: BytesColumn,
    pub(crate) stage: DictColumn,
    pub(crate) level: DictColumn,
    pub(crate) verb: DictColumn,
    pub(crate) request_uri: DictColumn,
    pub(crate) user_name: DictColumn,
    pub(crate) user_uid: DictColumn,
    pub(crate) user_groups: ListColumn,
    pub(crate) user_extra: DictColumn,
    pub(crate) impersonated_user_name: DictColumn,
    pub(crate) impersonated_user_groups: ListColumn,
    pub(crate) impersonated_user_extra: DictColumn,
    pub(crate) source_ips: ListColumn,
    pub(crate) user_agent: DictColumn,
    pub(crate) resource: DictColumn,
    pub(crate) subresource: DictColumn,
    pub(crate) namespace: DictColumn,
    pub(crate) name: DictColumn,
    pub(crate) api_group: DictColumn,
    pub(crate) api_version: DictColumn,
    pub(crate) object_uid: DictColumn,
    pub(crate) resource_version: BytesColumn,
    pub(crate) response_code: NumberColumn,
    pub(crate) response_status: DictColumn,
    pub(crate) response_reason: DictColumn,
    pub(crate) response_message: DictColumn,
    pub(crate) response_details: DictColumn,
    pub(crate) request_object: BytesColumn,
    pub(crate) response_object: BytesColumn,
    pub(crate) annotations: DictColumn,
    pub(crate) authz_decision: DictColumn,
    pub(crate) authz_reason: DictColumn,
    pub(crate) request_received_timestamp: NumberColumn,
    pub(crate) stage_timestamp: NumberColumn,
    pub(crate) cluster: DictColumn,
    pub(crate) source: DictColumn,
    pub(crate) source_offset: NumberColumn,
    pub(crate) raw: RecordColumn,
    pub(crate) shape: DictColumn,
    pub(crate) frame_before: BytesColumn,
    pub(crate) frame_after: BytesColumn,
    faults: ListColumn,
    /// `frame_after` of the last row. It is held back because the text after the last item of a
    /// list is known late.
    frame_after_last: Vec<u8>,
    frame_after_held: bool,
    last_offset: i64,
    pub(crate) verbs: Memo<i32>,
    pub(crate) uris: Memo<i32>,
    pub(crate) agents: Memo<i32>,
    pub(crate) users: Memo<UserKeys>,
    pub(crate) impersonated: Memo<UserKeys>,
    pub(crate) ips: Memo<ListKeys>,
    pub(crate) objects: Memo<(ObjectKeys, (usize, usize))>,
    pub(crate) statuses: Memo<StatusKeys>,
    pub(crate) annotation_sets: Memo<AnnotationKeys>,
    pub(crate) cluster_key: i32,
    pub(crate) source_key: i32,
    /// Hash of the record of each row, if hashes are wanted.
    record_hashes: Option<Vec<Sha256Hash>>,
    /// Chooses the rows whose records are not hashed; their numbers are then in `unhashed`.
    later: Option<Box<dyn HashedLater>>,
    unhashed: Vec<usize>,
    /// Makes forms of the records that are kept in `raw`, if forms are wanted.
    learner: Learner,
    learns_forms: bool,
}

pub(crate) const USER_NAMES: [&str; 4] = ["username", "uid", "groups", "extra"];
pub(crate) const IMPERSONATED_NAMES: [&str; 3] = ["username", "groups", "extra"];
pub(crate) const OBJECT_NAMES: [&str; 8] =
    ["resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource"];
pub(crate) const STATUS_NAMES: [&str; 6] = ["metadata", "status", "message", "reason", "details", "code"];

impl Rows {
    pub(crate) fn new() -> Self {
        Rows {
            audit_id: BytesColumn::new(),
            stage: DictColumn::new(),
            level: DictColumn::new(),
            verb: DictColumn::new(),
            request_uri: DictColumn::new(),
            user_name: DictColumn::new(),
            user_uid: DictColumn::new(),
            user_groups: ListColumn::new(),
            user_extra: DictColumn::new(),
            impersonated_user_name: DictColumn::new(),
            impersonated_user_groups: ListColumn::new(),
            impersonated_user_extra: DictColumn::new(),
            source_ips: ListColumn::new(),
            user_agent: DictColumn::new(),
            resource: DictColumn::new(),
            subresource: DictColumn::new(),
            namespace: DictColumn::new(),
            name: DictColumn::new(),
            api_group: DictColumn::new(),
            api_version: DictColumn::new(),
            object_uid: DictColumn::new(),
            resource_version: BytesColumn::new(),
            response_code: NumberColumn::new(),
            response_status: DictColumn::new(),
            response_reason: DictColumn::new(),
            response_message: DictColumn::new(),
            response_details: DictColumn::new(),
            request_object: BytesColumn::new(),
            response_object: BytesColumn::new(),
            annotations: DictColumn::new(),
            authz_decision: DictColumn::new(),
            authz_reason: DictColumn::new(),
            request_received_timestamp: NumberColumn::new(),
            stage_timestamp: NumberColumn::new(),
            cluster: DictColumn::new(),
            source: DictColumn::new(),
            source_offset: NumberColumn::new(),
            raw: RecordColumn::new(),
            shape: DictColumn::new(),
            frame_before: BytesColumn::new(),
            frame_after: BytesColumn::new(),
            faults: ListColumn::new(),
            frame_after_last: Vec::new(),
            frame_after_held: false,
            last_offset: -1,
            verbs: Memo::new(),
            uris: Memo::new(),
            agents: Memo::new(),
            users: Memo::new(),
            impersonated: Memo::new(),
            ips: Memo::new(),
            objects: Memo::new(),
            statuses: Memo::new(),
            annotation_sets: Memo::new(),
            cluster_key: NULL,
            source_key: NULL,
            record_hashes: None,
            later: None,
            unhashed: Vec::new(),
            learner: Learner::new(),
            learns_forms: true,
        }
    }

    /// Sets whether rows get forms. Rows that are only matched, or compared with others, do not
    /// need them.
    pub(crate) fn learn_forms(&mut self, wanted: bool) {
        self.learns_forms = wanted;
    }

    /// Prepares for the rows of a block with this text. It may be empty: records that are not in it
    /// are copied.
    pub(crate) fn begin(&mut self, origin: &frame::Origin, text: &[u8]) {
        self.raw.begin(text);
        self.begin_stream(origin);
    }

    /// Prepares for the rows of several streams: all records are copied.
    pub(crate) fn begin_together(&mut self) {
        self.raw.begin(&[]);
    }

    /// Prepares for rows of another stream, in the same columns.
    pub(crate) fn begin_stream(&mut self, origin: &frame::Origin) {
        self.flush_frame_after();
        self.frame_after_last.clear();
        self.cluster_key = self.cluster.dictionary.intern(&origin.cluster);
        self.source_key = self.source.dictionary.intern(&origin.partition);
        self.last_offset = -1;
    }

    /// Returns the number of rows so far.
    pub(crate) fn len(&self) -> usize {
        self.source_offset.len()
    }

    /// Offset of the last event, or -1 if the block has none so far.
    pub(crate) fn last_offset(&self) -> i64 {
        self.last_offset
    }

    pub(crate) fn user(&mut self, document: &Document<'_, '_>, member: &Member) -> Result<UserKeys, Stop> {
        if document.is_null(member) {
            return Ok(NO_USER);
        }
        let hash = match self.users.get(document.text(member)) {
            Ok(keys) => return Ok(keys),
            Err(hash) => hash,
        };
        let (fields, groups, canonical) = read_user(document, member, "user", &USER_NAMES)?;
        let keys = UserKeys {
            name: self.user_name.dictionary.intern_opt(fields.name),
            uid: self.user_uid.dictionary.intern_opt(fields.uid),
            groups: groups.map_or(NULL, |groups| self.user_groups.intern(groups)),
            extra: self.user_extra.dictionary.intern_opt(fields.extra),
            canonical,
        };
        self.users.insert(hash, document.text(member), keys);
        Ok(keys)
    }

    pub(crate) fn impersonated_user(
        &mut self,
        document: &Document<'_, '_>,
        member: &Member,
    ) -> Result<UserKeys, Stop> {
        if document.is_null(member) {
            return Ok(NO_USER);
        }
        let hash = match self.impersonated.get(document.text(member)) {
            Ok(keys) => return Ok(keys),
            Err(hash) => hash,
        };
        let (fields, groups, canonical) =
            read_user(document, member, "impersonatedUser", &IMPERSONATED_NAMES)?;
        let keys = UserKeys {
            name: self.impersonated_user_name.dictionary.intern_opt(fields.name),
            uid: NULL,
            groups: groups.map_or(NULL, |groups| self.impersonated_user_groups.intern(groups)),
            extra: self.impersonated_user_extra.dictionary.intern_opt(fields.extra),
            // An empty object would not be rendered.
            canonical: canonical && fields.any,
        };
        self.impersonated.insert(hash, document.text(member), keys);
        Ok(keys)
    }

    pub(crate) fn source_ips(
        &mut self,
        document: &Document<'_, '_>,
        member: &Member,
    ) -> Result<ListKeys, Stop> {
        let hash = match self.ips.get(document.text(member)) {
            Ok(keys) => return Ok(keys),
            Err(hash) => hash,
        };
        let keys = match document.strings("sourceIPs", member)? {
            None => ListKeys { list: NULL, canonical: false },
            Some(list) => {
                let canonical = is_canonical_list(&list, document.text(member));
                ListKeys { list: self.source_ips.intern(list), canonical }
            }
        };
        self.ips.insert(hash, document.text(member), keys);
        Ok(keys)
    }

    pub(crate) fn object_ref<'d>(
        &mut self,
        document: &Document<'d, '_>,
        member: &Member,
    ) -> Result<(ObjectKeys, Option<&'d [u8]>), Stop> {
        if document.is_null(member) {
            return Ok((ObjectKeys { canonical: false, ..NO_OBJECT }, None));
        }
        let text = document.text(member);
        let hash = match self.objects.get(text) {
            Ok((keys, (0, 0))) => return Ok((keys, None)),
            Ok((keys, (start, end))) => return Ok((keys, Some(&text[start..end]))),
            Err(hash) => hash,
        };
        let mut version = None;
        let mut version_at = (0, 0);
        let mut seen = 0_u8;
        let mut fields: [Option<&str>; 8] = [None; 8];
        let members = document.members("objectRef", member)?;
        let mut canonical = !members.is_empty()
            && is_compact(document.line, &members, &OBJECT_NAMES, member.start + 1, member.end - 1);
        for inner in &members {
            let Some(at) = OBJECT_NAMES.iter().position(|name| name.as_bytes() == inner.key(document.line))
            else {
                continue;
            };
            no_duplicate(&mut seen, at)?;
            let value = document.string(OBJECT_FIELDS[at], inner)?;
            canonical &= value.is_some_and(|value| document.is_canonical_string(inner, value));
            fields[at] = value;
            if at == OBJECT_VERSION {
                version = value;
                version_at = (inner.start + 1 - member.start, inner.end - 1 - member.start);
            }
        }
        let keys = ObjectKeys {
            resource: self.resource.dictionary.intern_opt(fields[0]),
            namespace: self.namespace.dictionary.intern_opt(fields[1]),
            name: self.name.dictionary.intern_opt(fields[2]),
            uid: self.object_uid.dictionary.intern_opt(fields[3]),
            api_group: self.api_group.dictionary.intern_opt(fields[4]),
            api_version: self.api_version.dictionary.intern_opt(fields[5]),
            subresource: self.subresource.dictionary.intern_opt(fields[7]),
            canonical,
        };
        // The version is read again from the remembered text. That fails for a version with escapes
        // and for an empty one, so the plain decoder reads such lines.
        let plainly = version.is_none_or(|version| {
            &text[version_at.0..version_at.1] == version.as_bytes() && !version.is_empty()
        });
        if !plainly {
            return Err(Stop);
        }
        self.objects.insert(hash, text, (keys, if version.is_some() { version_at } else { (0, 0) }));
        Ok((keys, version.map(|_| &text[version_at.0..version_at.1])))
    }

    pub(crate) fn response_status(
        &mut self,
        document: &Document<'_, '_>,
        member: &Member,
    ) -> Result<StatusKeys, Stop> {
        if document.is_null(member) {
            return Ok(StatusKeys { canonical: false, ..NO_STATUS });
        }
        let text = document.text(member);
        let hash = match self.statuses.get(text) {
            Ok(keys) => return Ok(keys),
            Err(hash) => hash,
        };
        let members = document.members("responseStatus", member)?;
        let mut canonical = members.len() > 1
            && members[0].key(document.line) == b"metadata"
            && document.text(&members[0]) == b"{}"
            && is_compact(document.line, &members, &STATUS_NAMES, member.start + 1, member.end - 1);
        let mut keys = NO_STATUS;
        let (mut status, mut message, mut reason, mut details) = (None, None, None, None);
        let mut seen = 0;
        for inner in &members {
            let name = STATUS_NAMES.iter().position(|name| name.as_bytes() == inner.key(document.line));
            name.filter(|at| *at > 0).map_or(Ok(()), |at| no_duplicate(&mut seen, at))?;
            let value = match inner.key(document.line) {
                b"status" => {
                    status = document.string("responseStatus.status", inner)?;
                    status
                }
                b"message" => {
                    message = document.string("responseStatus.message", inner)?;
                    message
                }
                b"reason" => {
                    reason = document.string("responseStatus.reason", inner)?;
                    reason
                }
                b"details" => {
                    details = json_object("responseStatus.details", document, inner)?;
                    canonical &= details.is_some();
                    continue;
                }
                b"code" => {
                    keys.code = code(document, inner)?;
                    canonical &= keys.code.is_some_and(|code| {
                        itoa::Buffer::new().format(code).as_bytes() == document.text(inner)
                    });
                    continue;
                }
                _ => continue,
            };
            canonical &= value.is_some_and(|value| document.is_canonical_string(inner, value));
        }
        keys = StatusKeys {
            status: self.response_status.dictionary.intern_opt(status),
            message: self.response_message.dictionary.intern_opt(message),
            reason: self.response_reason.dictionary.intern_opt(reason),
            details: self.response_details.dictionary.intern_opt(details),
            code: keys.code,
            canonical,
        };
        self.statuses.insert(hash, text, keys);
        Ok(keys)
    }

    pub(crate) fn annotations(
        &mut self,
        document: &Document<'_, '_>,
        member: &Member,
    ) -> Result<AnnotationKeys, Stop> {
        if document.is_null(member) {
            return Ok(NO_ANNOTATIONS);
        }
        let text = document.text(member);
        let hash = match self.annotation_sets.get(text) {
            Ok(keys) => return Ok(keys),
            Err(hash) => hash,
        };
        let members = document.members("annotations", member)?;
        let (mut decision, mut reason) = (None, None);
        let mut seen = 0;
        for inner in &members {
            match inner.key(document.line) {
                key if key == plain::AUTHZ_DECISION.as_bytes() => {
                    no_duplicate(&mut seen, 0)?;
                    decision = document.string(plain::AUTHZ_DECISION_FIELD, inner)?
                }
                key if key == plain::AUTHZ_REASON.as_bytes() => {
                    no_duplicate(&mut seen, 1)?;
                    reason = document.string(plain::AUTHZ_REASON_FIELD, inner)?
                }
                _ => {}
            }
        }
        let keys = AnnotationKeys {
            annotations: self.annotations.dictionary.intern(utf8(text)?),
            decision: self.authz_decision.dictionary.intern_opt(decision),
            reason: self.authz_reason.dictionary.intern_opt(reason),
        };
        self.annotation_sets.insert(hash, text, keys);
        Ok(keys)
    }

    /// Interns an event that the plain decoder decoded. Its `raw` is always kept, because the
    /// columns may not give the line: for example, a part that cannot be read is not rendered.
    pub(crate) fn plain_row<'l>(&mut self, event: &'l PlainEvent, raw: &'l [u8]) -> Row<'l> {
        fn list(column: &mut ListColumn, value: Option<&Vec<String>>) -> i32 {
            value.map_or(NULL, |list| column.intern(list.iter().map(String::as_str)))
        }
        fn key(column: &mut DictColumn, value: &Option<String>) -> i32 {
            column.dictionary.intern_opt(value.as_deref())
        }
        fn bytes(value: &Option<String>) -> Option<&[u8]> {
            value.as_deref().map(str::as_bytes)
        }
        Row {
            audit_id: bytes(&event.audit_id),
            stage: key(&mut self.stage, &event.stage),
            level: key(&mut self.level, &event.level),
            verb: key(&mut self.verb, &event.verb),
            request_uri: key(&mut self.request_uri, &event.request_uri),
            user_agent: key(&mut self.user_agent, &event.user_agent),
            user: UserKeys {
                name: key(&mut self.user_name, &event.user_name),
                uid: key(&mut self.user_uid, &event.user_uid),
                groups: list(&mut self.user_groups, event.user_groups.as_ref()),
                extra: key(&mut self.user_extra, &event.user_extra),
                canonical: false,
            },
            impersonated: UserKeys {
                name: key(&mut self.impersonated_user_name, &event.impersonated_user_name),
                uid: NULL,
                groups: list(&mut self.impersonated_user_groups, event.impersonated_user_groups.as_ref()),
                extra: key(&mut self.impersonated_user_extra, &event.impersonated_user_extra),
                canonical: false,
            },
            source_ips: list(&mut self.source_ips, event.source_ips.as_ref()),
            object: ObjectKeys {
                resource: key(&mut self.resource, &event.resource),
                namespace: key(&mut self.namespace, &event.namespace),
                name: key(&mut self.name, &event.name),
                uid: key(&mut self.object_uid, &event.object_uid),
                api_group: key(&mut self.api_group, &event.api_group),
                api_version: key(&mut self.api_version, &event.api_version),
                subresource: key(&mut self.subresource, &event.subresource),
                canonical: false,
            },
            resource_version: bytes(&event.resource_version),
            status: StatusKeys {
                status: key(&mut self.response_status, &event.response_status),
                message: key(&mut self.response_message, &event.response_message),
                reason: key(&mut self.response_reason, &event.response_reason),
                details: key(&mut self.response_details, &event.response_details),
                code: event.response_code,
                canonical: false,
            },
            request_object: bytes(&event.request_object),
            response_object: bytes(&event.response_object),
            annotations: AnnotationKeys {
                annotations: key(&mut self.annotations, &event.annotations),
                decision: key(&mut self.authz_decision, &event.authz_decision),
                reason: key(&mut self.authz_reason, &event.authz_reason),
            },
            received: event.request_received_timestamp,
            stage_time: event.stage_timestamp,
            raw: Some(raw),
            shape: NULL,
            faults: list(&mut self.faults, event.faults.as_ref()),
        }
    }

    /// Sets whether records are hashed from now on, and drops the hashes so far.
    pub(crate) fn hash_records(&mut self, wanted: bool) {
        self.record_hashes = wanted.then(Vec::new);
        self.later = None;
        self.unhashed.clear();
    }

    /// Leaves the records that `later` chooses without a hash; the caller hashes them later.
    pub(crate) fn hash_later(&mut self, later: Box<dyn HashedLater>) {
        self.later = Some(later);
    }

    /// Whether the last row keeps no record, because its columns give the record.
    pub(crate) fn last_is_rendered(&self) -> bool {
        self.raw.last_is_absent()
    }

    /// Returns the rows whose records were not hashed.
    pub(crate) fn take_unhashed(&mut self) -> Vec<usize> {
        self.later = None;
        std::mem::take(&mut self.unhashed)
    }

    pub(crate) fn take_record_hashes(&mut self) -> Vec<Sha256Hash> {
        self.record_hashes.take().unwrap_or_default()
    }

    /// Adds a row to every column. `record` is what the row gives back: its `raw`, or what it
    /// renders to.
    pub(crate) fn push(&mut self, row: &Row<'_>, place: &Place<'_>, record: &[u8]) {
        self.push_in_layers(row, place, record, None);
    }

    /// Like [`push`](Self::push), for a row whose event was found in layers.
    pub(crate) fn push_in_layers(
        &mut self,
        row: &Row<'_>,
        place: &Place<'_>,
        record: &[u8],
        event: Option<EventText<'_>>,
    ) {
        debug_assert!(row.raw.is_none_or(|raw| raw == record));
        if self.record_hashes.is_some() {
            let mut later = self.later.take();
            let is_later =
                later.as_mut().is_some_and(|later| later.is_later(&DecodedRow { rows: self, row }));
            self.later = later;
            if is_later {
                self.unhashed.push(self.source_offset.len());
            }
            if let Some(hashes) = &mut self.record_hashes {
                // The bytes were just read, so they are in the cache.
                hashes.push(if is_later { Sha256Hash([0; 32]) } else { leaf_hash(record) });
            }
        }
        if let (true, Some(raw), NULL) = (self.learns_forms, row.raw, row.shape) {
            self.learner.see(self.source_offset.len(), raw, &row.columns(event));
        }
        self.flush_frame_after();
        self.frame_after_held = true;
        self.last_offset = place.offset;
        self.cluster.push(self.cluster_key);
        self.source.push(self.source_key);
        self.source_offset.push(Some(place.offset));
        self.frame_before.push((!place.before.is_empty()).then_some(place.before));
        self.raw.push(row.raw);
        self.shape.push(row.shape);
        self.faults.push(row.faults);
        self.audit_id.push(row.audit_id);
        self.stage.push(row.stage);
        self.level.push(row.level);
        self.verb.push(row.verb);
        self.request_uri.push(row.request_uri);
        self.user_agent.push(row.user_agent);
        self.user_name.push(row.user.name);
        self.user_uid.push(row.user.uid);
        self.user_groups.push(row.user.groups);
        self.user_extra.push(row.user.extra);
        self.impersonated_user_name.push(row.impersonated.name);
        self.impersonated_user_groups.push(row.impersonated.groups);
        self.impersonated_user_extra.push(row.impersonated.extra);
        self.source_ips.push(row.source_ips);
        self.resource.push(row.object.resource);
        self.namespace.push(row.object.namespace);
        self.name.push(row.object.name);
        self.object_uid.push(row.object.uid);
        self.api_group.push(row.object.api_group);
        self.api_version.push(row.object.api_version);
        self.subresource.push(row.object.subresource);
        self.resource_version.push(row.resource_version);
        self.response_code.push(row.status.code.map(i64::from));
        self.response_status.push(row.status.status);
        self.response_message.push(row.status.message);
        self.response_reason.push(row.status.reason);
        self.response_details.push(row.status.details);
        self.request_object.push(row.request_object);
        self.response_object.push(row.response_object);
        self.annotations.push(row.annotations.annotations);
        self.authz_decision.push(row.annotations.decision);
        self.authz_reason.push(row.annotations.reason);
        self.request_received_timestamp.push(row.received);
        self.stage_timestamp.push(row.stage_time);
    }

    /// Adds the text after the last record, such as the end of a list, to the `frame_after` of the
    /// last row.
    pub(crate) fn extend_frame_after(&mut self, tail: &[u8]) {
        self.frame_after_last.extend_from_slice(tail);
    }

    fn flush_frame_after(&mut self) {
        if self.frame_after_held {
            let frame = (!self.frame_after_last.is_empty()).then_some(self.frame_after_last.as_slice());
            self.frame_after.push(frame);
            self.frame_after_last.clear();
            self.frame_after_held = false;
        }
    }

    /// Returns the rows. `text` is the text that they [began](Self::begin) with.
    pub(crate) fn finish(&mut self, text: &[u8]) -> Result<RecordBatch, ArrowError> {
        self.flush_frame_after();
        let rows = self.source_offset.len();
        let schema = Table::Events.batch_schema();
        let null = |at: usize| (at, new_null_array(schema.field(at).data_type(), rows));
        let columns: Vec<(usize, ArrayRef)> = vec![
            (index::AUDIT_ID, self.audit_id.finish_strings()?),
            (index::STAGE, self.stage.finish()?),
            (index::LEVEL, self.level.finish()?),
            (index::VERB, self.verb.finish()?),
            (index::REQUEST_URI, self.request_uri.finish()?),
            (index::USER_NAME, self.user_name.finish()?),
            (index::USER_UID, self.user_uid.finish()?),
            (index::USER_GROUPS, self.user_groups.finish()?),
            (index::USER_EXTRA, self.user_extra.finish()?),
            (index::IMPERSONATED_USER_NAME, self.impersonated_user_name.finish()?),
            (index::IMPERSONATED_USER_GROUPS, self.impersonated_user_groups.finish()?),
            (index::IMPERSONATED_USER_EXTRA, self.impersonated_user_extra.finish()?),
            (index::SOURCE_IPS, self.source_ips.finish()?),
            (index::USER_AGENT, self.user_agent.finish()?),
            (index::RESOURCE, self.resource.finish()?),
            (index::SUBRESOURCE, self.subresource.finish()?),
            (index::NAMESPACE, self.namespace.finish()?),
            (index::NAME, self.name.finish()?),
            (index::API_GROUP, self.api_group.finish()?),
            (index::API_VERSION, self.api_version.finish()?),
            (index::OBJECT_UID, self.object_uid.finish()?),
            (index::RESOURCE_VERSION, self.resource_version.finish_strings()?),
            (index::RESPONSE_CODE, self.response_code.finish_i32()),
            (index::RESPONSE_STATUS, self.response_status.finish()?),
            (index::RESPONSE_REASON, self.response_reason.finish()?),
            (index::RESPONSE_MESSAGE, self.response_message.finish()?),
            (index::RESPONSE_DETAILS, self.response_details.finish()?),
            (index::REQUEST_OBJECT, self.request_object.finish_strings()?),
            (index::RESPONSE_OBJECT, self.response_object.finish_strings()?),
            (index::ANNOTATIONS, self.annotations.finish()?),
            (index::AUTHZ_DECISION, self.authz_decision.finish()?),
            (index::AUTHZ_REASON, self.authz_reason.finish()?),
            (index::REQUEST_RECEIVED_TIMESTAMP, self.request_received_timestamp.finish_timestamps()),
            (index::STAGE_TIMESTAMP, self.stage_timestamp.finish_timestamps()),
            (index::CLUSTER, self.cluster.finish()?),
            (index::SOURCE, self.source.finish()?),
            (index::SOURCE_OFFSET, self.source_offset.finish_i64()),
            null(index::RAW),
            (index::SHAPE, self.shape.finish()?),
            (index::FRAME_BEFORE, self.frame_before.finish_binary()?),
            (index::FRAME_AFTER, self.frame_after.finish_binary()?),
            null(index::FORM),
            null(index::FORM_VALUES),
            null(index::REDACTION),
            (index::FAULTS, self.faults.finish_plain()?),
        ];
        debug_assert!(
            columns.iter().enumerate().all(|(at, (index, column))| at == *index && column.len() == rows)
        );
        self.verbs.clear();
        self.uris.clear();
        self.agents.clear();
        self.users.clear();
        self.impersonated.clear();
        self.ips.clear();
        self.objects.clear();
        self.statuses.clear();
        self.annotation_sets.clear();
        let mut columns: Vec<ArrayRef> = columns.into_iter().map(|(_, column)| column).collect();
        let records = self.raw.take(text);
        match self.learns_forms.then(|| self.learner.finish()).flatten() {
            Some(forms) => with_forms(columns, forms, &records),
            None => {
                if records.kept() > 0 {
                    columns[index::RAW] = records.column(|_| true);
                }
                RecordBatch::try_new(schema, columns)
            }
        }
    }
}

/// Returns the rows of `columns`, which has no `raw` and no forms yet. A row has its record in
/// `raw`, unless a form gives the same bytes.
fn with_forms(
    mut columns: Vec<ArrayRef>,
    mut forms: Forms,
    records: &Records<'_>,
) -> Result<RecordBatch, ArrowError> {
    let schema = Table::Events.batch_schema();
    let rows = columns[index::RAW].len();
    (columns[index::FORM], columns[index::FORM_VALUES]) = forms.columns(rows)?;
    let without_raw = RecordBatch::try_new(Arc::clone(&schema), columns.clone())?;
    let is_wrong = forms.verify(&without_raw, |row| records.get(row));
    if !is_wrong && forms.rows().count() == records.kept() {
        return Ok(without_raw);
    }
    if is_wrong {
        (columns[index::FORM], columns[index::FORM_VALUES]) = forms.columns(rows)?;
    }
    let mut formed_rows = forms.rows().peekable();
    columns[index::RAW] = records.column(|row| formed_rows.next_if_eq(&row).is_none());
    drop(formed_rows);
    RecordBatch::try_new(schema, columns)
}

pub(crate) const OBJECT_FIELDS: [&str; 8] = [
    "objectRef.resource",
    "objectRef.namespace",
    "objectRef.name",
    "objectRef.uid",
    "objectRef.apiGroup",
    "objectRef.apiVersion",
    "objectRef.resourceVersion",
    "objectRef.subresource",
];
pub(crate) const OBJECT_VERSION: usize = 6;
