//! A row back to the bytes it came from.
//!
//! Invariant: for every sealed row, [`Renderer::record`] gives the bytes received. Where the columns alone
//! cannot, the row's `raw` holds them; the decoder decides that at ingest with the same rules as here,
//! and tests compare both. These rules are part of the format
//! ([`EVENTS_FORMAT`](strongroom_schemas::format::EVENTS_FORMAT)):
//!
//! - Fields stand in kube-apiserver's order, without white space, escaped as Go's `encoding/json` does
//!   with HTML escaping (`\u003c`, `\u003e`, `\u0026`, `\u2028`, `\u2029`).
//! - A null column is an absent key, with three exceptions: `user` is always there (`{}` when its
//!   columns are null), and a null timestamp is `null`.
//! - `objectRef`, `responseStatus` and `impersonatedUser` are there when one of their columns is not
//!   null; `responseStatus` opens with `"metadata":{}`.
//! - Bodies, `extra`, `details` and `annotations` are the text received.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array as _, ArrayRef, BinaryArray, Int32Array, Int64Array, ListArray, RecordBatch,
    TimestampMicrosecondArray,
};
use arrow_schema::DataType;
use strongroom_schemas::events::{self, index};

use crate::time;

/// Appends `text` as Go's `encoding/json` writes a string, quotes included.
pub fn go_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            b'<' => b"\\u003c",
            b'>' => b"\\u003e",
            b'&' => b"\\u0026",
            // U+2028 and U+2029 are E2 80 A8 and E2 80 A9.
            0xa8 if at >= 2 && bytes[at - 2..at] == [0xe2, 0x80] => b"\\u2028",
            0xa9 if at >= 2 && bytes[at - 2..at] == [0xe2, 0x80] => b"\\u2029",
            0..0x20 => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(&bytes[from..at]);
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
                from = at + 1;
                continue;
            }
            _ => continue,
        };
        let end = if *byte >= 0x80 { at - 2 } else { at };
        out.extend_from_slice(&bytes[from..end]);
        out.extend_from_slice(escape);
        from = at + 1;
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// Whether [`go_string`] writes `text` as it is between quotes.
pub(crate) fn is_plain(text: &[u8]) -> bool {
    // Without a way out of the loop, which then looks at many bytes at once.
    text.iter().fold(true, |plain, byte| {
        plain
            & (*byte >= 0x20)
            & (*byte != b'"')
            & (*byte != b'\\')
            & (*byte != b'<')
            & (*byte != b'>')
            & (*byte != b'&')
            & (*byte != 0xe2)
    })
}

/// A string column in any of the spellings that a batch or a file gives it.
pub(crate) enum Strings<'a> {
    Dictionary(&'a arrow_array::DictionaryArray<Int32Type>, &'a arrow_array::StringArray),
    Utf8(&'a arrow_array::StringArray),
    View(&'a arrow_array::StringViewArray),
}

impl<'a> Strings<'a> {
    pub(crate) fn of(array: &'a ArrayRef) -> Result<Self, WrongColumn> {
        let wrong = || WrongColumn::of(array);
        Ok(match array.data_type() {
            DataType::Dictionary(..) => {
                let dictionary = array.as_dictionary_opt::<Int32Type>().ok_or_else(wrong)?;
                let values = dictionary.values().as_string_opt::<i32>().ok_or_else(wrong)?;
                Strings::Dictionary(dictionary, values)
            }
            DataType::Utf8 => Strings::Utf8(array.as_string_opt::<i32>().ok_or_else(wrong)?),
            DataType::Utf8View => Strings::View(array.as_string_view_opt().ok_or_else(wrong)?),
            _ => return Err(wrong()),
        })
    }

    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Strings::Dictionary(array, values) => {
                array.is_valid(row).then(|| values.value(array.keys().value(row) as usize))
            }
            Strings::Utf8(array) => array.is_valid(row).then(|| array.value(row)),
            Strings::View(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}

/// A column whose type is none that an `events` batch can have.
#[derive(Debug, thiserror::Error)]
#[error("a column of type {found} where events have none such")]
pub struct WrongColumn {
    found: DataType,
}

impl WrongColumn {
    pub(crate) fn of(array: &ArrayRef) -> Self {
        WrongColumn { found: array.data_type().clone() }
    }
}

pub(crate) struct Lists<'a> {
    lists: &'a ListArray,
    items: Strings<'a>,
}

impl<'a> Lists<'a> {
    pub(crate) fn of(array: &'a ArrayRef) -> Result<Self, WrongColumn> {
        let lists = array.as_list_opt::<i32>().ok_or_else(|| WrongColumn::of(array))?;
        Ok(Lists { lists, items: Strings::of(lists.values())? })
    }

    /// Whether a row has the same list as a row of another column, null items and a null list included.
    pub(crate) fn is_same(&self, row: usize, other: &Lists<'_>, other_row: usize) -> bool {
        if self.lists.is_null(row) || other.lists.is_null(other_row) {
            return self.lists.is_null(row) && other.lists.is_null(other_row);
        }
        let extent = |lists: &ListArray, row: usize| {
            let offsets = lists.value_offsets();
            offsets[row] as usize..offsets[row + 1] as usize
        };
        let (items, others) = (extent(self.lists, row), extent(other.lists, other_row));
        items.len() == others.len()
            && items.zip(others).all(|(at, other_at)| self.items.get(at) == other.items.get(other_at))
    }

    /// Appends the list as a JSON array; false when the row is null.
    fn render(&self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.lists.is_null(row) {
            return false;
        }
        out.push(b'[');
        let offsets = self.lists.value_offsets();
        for item in offsets[row]..offsets[row + 1] {
            if item > offsets[row] {
                out.push(b',');
            }
            go_string(self.items.get(item as usize).unwrap_or_default(), out);
        }
        out.push(b']');
        true
    }
}

/// Renders the rows of one `events` batch, as decoded or as read back from a file.
pub struct Renderer<'a> {
    strings: Vec<Option<Strings<'a>>>,
    groups: Lists<'a>,
    impersonated_groups: Lists<'a>,
    source_ips: Lists<'a>,
    code: &'a Int32Array,
    received: &'a TimestampMicrosecondArray,
    stage: &'a TimestampMicrosecondArray,
    offset: &'a Int64Array,
    raw: &'a BinaryArray,
    frame_before: &'a BinaryArray,
    frame_after: &'a BinaryArray,
}

impl<'a> Renderer<'a> {
    /// # Errors
    /// [`WrongColumn`] when the batch is not one of the `events` table with all its columns in order.
    pub fn new(batch: &'a RecordBatch) -> Result<Self, WrongColumn> {
        if batch.num_columns() < index::COUNT {
            return Err(WrongColumn { found: DataType::Struct(batch.schema().fields().clone()) });
        }
        let column = |at: usize| batch.column(at);
        let wrong = |at: usize| WrongColumn { found: batch.column(at).data_type().clone() };
        let mut strings = Vec::with_capacity(index::COUNT);
        for at in 0..index::COUNT {
            let is_string =
                *strongroom_schemas::Table::Events.file_schema().field(at).data_type() == DataType::Utf8;
            strings.push(if is_string { Some(Strings::of(column(at))?) } else { None });
        }
        let binary = |at: usize| column(at).as_binary_opt::<i32>().ok_or_else(|| wrong(at));
        let timestamps =
            |at: usize| column(at).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| wrong(at));
        Ok(Renderer {
            strings,
            groups: Lists::of(column(index::USER_GROUPS))?,
            impersonated_groups: Lists::of(column(index::IMPERSONATED_USER_GROUPS))?,
            source_ips: Lists::of(column(index::SOURCE_IPS))?,
            code: column(index::RESPONSE_CODE)
                .as_primitive_opt::<Int32Type>()
                .ok_or_else(|| wrong(index::RESPONSE_CODE))?,
            received: timestamps(index::REQUEST_RECEIVED_TIMESTAMP)?,
            stage: timestamps(index::STAGE_TIMESTAMP)?,
            offset: column(index::SOURCE_OFFSET)
                .as_primitive_opt::<Int64Type>()
                .ok_or_else(|| wrong(index::SOURCE_OFFSET))?,
            raw: binary(index::RAW)?,
            frame_before: binary(index::FRAME_BEFORE)?,
            frame_after: binary(index::FRAME_AFTER)?,
        })
    }

    fn string(&self, column: usize, row: usize) -> Option<&'a str> {
        self.strings[column].as_ref().and_then(|strings| strings.get(row))
    }

    /// Byte offset of the record in its stream.
    pub fn offset(&self, row: usize) -> i64 {
        if self.offset.is_valid(row) { self.offset.value(row) } else { 0 }
    }

    /// Bytes of the stream before and after the record that belong to no record.
    pub fn frame(&self, row: usize) -> (&'a [u8], &'a [u8]) {
        let bytes = |array: &'a BinaryArray| if array.is_valid(row) { array.value(row) } else { &[] };
        (bytes(self.frame_before), bytes(self.frame_after))
    }

    /// Whether the row keeps its record, and does not render to it.
    pub(crate) fn has_raw(&self, row: usize) -> bool {
        self.raw.is_valid(row)
    }

    /// Appends the record as received.
    pub fn record(&self, row: usize, out: &mut Vec<u8>) {
        if self.raw.is_valid(row) {
            out.extend_from_slice(self.raw.value(row));
        } else {
            self.columns(row, out);
        }
    }

    /// Appends what the columns alone render to.
    pub fn columns(&self, row: usize, out: &mut Vec<u8>) {
        out.push(b'{');
        out.extend_from_slice(self.string(index::SHAPE, row).unwrap_or(events::SHAPE_DEFAULT).as_bytes());
        let open = out.len();
        self.member("level", index::LEVEL, row, open, out);
        self.member("auditID", index::AUDIT_ID, row, open, out);
        self.member("stage", index::STAGE, row, open, out);
        self.member("requestURI", index::REQUEST_URI, row, open, out);
        self.member("verb", index::VERB, row, open, out);

        key("user", open, out);
        out.push(b'{');
        let inner = out.len();
        self.member("username", index::USER_NAME, row, inner, out);
        self.member("uid", index::USER_UID, row, inner, out);
        list("groups", &self.groups, row, inner, out);
        self.text("extra", index::USER_EXTRA, row, inner, out);
        out.push(b'}');

        object("impersonatedUser", open, out, |inner, out| {
            self.member("username", index::IMPERSONATED_USER_NAME, row, inner, out);
            list("groups", &self.impersonated_groups, row, inner, out);
            self.text("extra", index::IMPERSONATED_USER_EXTRA, row, inner, out);
        });
        list("sourceIPs", &self.source_ips, row, open, out);
        self.member("userAgent", index::USER_AGENT, row, open, out);
        object("objectRef", open, out, |inner, out| {
            self.member("resource", index::RESOURCE, row, inner, out);
            self.member("namespace", index::NAMESPACE, row, inner, out);
            self.member("name", index::NAME, row, inner, out);
            self.member("uid", index::OBJECT_UID, row, inner, out);
            self.member("apiGroup", index::API_GROUP, row, inner, out);
            self.member("apiVersion", index::API_VERSION, row, inner, out);
            self.member("resourceVersion", index::RESOURCE_VERSION, row, inner, out);
            self.member("subresource", index::SUBRESOURCE, row, inner, out);
        });
        let before = out.len();
        object("responseStatus", open, out, |inner, out| {
            out.extend_from_slice(STATUS_METADATA);
            let bare = out.len();
            self.member("status", index::RESPONSE_STATUS, row, inner, out);
            self.member("message", index::RESPONSE_MESSAGE, row, inner, out);
            self.member("reason", index::RESPONSE_REASON, row, inner, out);
            self.text("details", index::RESPONSE_DETAILS, row, inner, out);
            if self.code.is_valid(row) {
                key("code", inner, out);
                out.extend_from_slice(itoa::Buffer::new().format(self.code.value(row)).as_bytes());
            }
            if out.len() == bare {
                out.truncate(inner);
            }
        });
        debug_assert!(out.len() >= before);
        self.text("requestObject", index::REQUEST_OBJECT, row, open, out);
        self.text("responseObject", index::RESPONSE_OBJECT, row, open, out);
        timestamp("requestReceivedTimestamp", self.received, row, open, out);
        timestamp("stageTimestamp", self.stage, row, open, out);
        self.text("annotations", index::ANNOTATIONS, row, open, out);
        out.push(b'}');
    }

    fn member(&self, name: &str, column: usize, row: usize, open: usize, out: &mut Vec<u8>) {
        if let Some(value) = self.string(column, row) {
            key(name, open, out);
            go_string(value, out);
        }
    }

    fn text(&self, name: &str, column: usize, row: usize, open: usize, out: &mut Vec<u8>) {
        if let Some(value) = self.string(column, row) {
            key(name, open, out);
            out.extend_from_slice(value.as_bytes());
        }
    }
}

/// What every `responseStatus` opens with: `metav1.Status` has a `ListMeta` that is never left out.
pub(crate) const STATUS_METADATA: &[u8] = br#""metadata":{}"#;

fn key(name: &str, open: usize, out: &mut Vec<u8>) {
    if out.len() > open {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn list(name: &str, lists: &Lists<'_>, row: usize, open: usize, out: &mut Vec<u8>) {
    let start = out.len();
    key(name, open, out);
    if !lists.render(row, out) {
        out.truncate(start);
    }
}

/// An object that is there only when it has members.
fn object(name: &str, open: usize, out: &mut Vec<u8>, members: impl FnOnce(usize, &mut Vec<u8>)) {
    let start = out.len();
    key(name, open, out);
    out.push(b'{');
    let inner = out.len();
    members(inner, out);
    if out.len() == inner {
        out.truncate(start);
    } else {
        out.push(b'}');
    }
}

fn timestamp(name: &str, column: &TimestampMicrosecondArray, row: usize, open: usize, out: &mut Vec<u8>) {
    key(name, open, out);
    if column.is_null(row) {
        out.extend_from_slice(b"null");
    } else {
        out.push(b'"');
        time::render(column.value(row), out);
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(text: &str) -> String {
        let mut out = Vec::new();
        go_string(text, &mut out);
        String::from_utf8(out).expect("escaping keeps UTF-8")
    }

    #[test]
    fn escapes_as_go_does() {
        assert_eq!(
            go("a<b>&\"\\\n\r\t\u{8}\u{c}\u{1}\u{7f}é"),
            "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\n\\r\\t\\b\\f\\u0001\u{7f}é\""
        );
        assert_eq!(go("x\u{2028}y\u{2029}\u{2027}"), "\"x\\u2028y\\u2029\u{2027}\"");
        assert_eq!(go("¨©"), "\"¨©\"");
    }

    #[test]
    fn plain_text_is_left_alone() {
        for text in ["", "get", "/api/v1/pods?limit=500", "ünïcode"] {
            assert!(is_plain(text.as_bytes()));
            assert_eq!(go(text), format!("\"{text}\""));
        }
        for text in ["a&b", "<", "\"", "\u{2028}", "\n"] {
            assert!(!is_plain(text.as_bytes()));
        }
    }
}
