//! Renders a row back to the bytes it came from.
//!
//! Invariant: for every sealed row, [`Renderer::record`] gives the bytes received. Where the
//! columns alone do not determine these bytes, the row's `form` says how the columns are written,
//! or its `raw` has the bytes. At ingest the decoder decides by the rules below whether a row needs
//! `raw`, and tests compare decoder and renderer. A row that another program wrote may not render:
//! that is a [`RowFault`]. No state. The rules of forms are those of [`strongroom_schemas::form`];
//! the rules for rows without a form are part of the format too
//! ([`EVENTS_FORMAT`](strongroom_schemas::format::EVENTS_FORMAT)):
//!
//! - Fields are in kube-apiserver's order, without white space, and escaped as Go's `encoding/json`
//!   does with HTML escaping (`\u003c`, `\u003e`, `\u0026`, `\u2028`, `\u2029`).
//! - A null column is an absent key, with three exceptions: `user` is always present (`{}` if its
//!   columns are null), and each of the two timestamps is written as `null`.
//! - `objectRef`, `responseStatus` and `impersonatedUser` are present if one of their columns is
//!   not null; `responseStatus` begins with `"metadata":{}`.
//! - Bodies, `extra`, `details` and `annotations` are the text received.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array as _, ArrayRef, BinaryArray, Int32Array, Int64Array, ListArray, RecordBatch,
    TimestampMicrosecondArray,
};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use strongroom_lines::time;
use strongroom_schemas::events::{self, index};
use strongroom_schemas::form::{
    Codec, FORM_ITEMS_BYTES_MAX, FORMS_IN_BLOCK_MAX, Form, FormError, MAPPED, Segment, item_fits,
};
use strongroom_schemas::marks;
use thiserror::Error;

use crate::formats;

/// Appends `text` as Go's `encoding/json` writes a string, quotes included.
pub fn go_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    // Most texts need no escape, and this check is vectorised.
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
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

/// Whether [`go_string`] writes `text` without escapes.
pub(crate) fn is_plain(text: &[u8]) -> bool {
    // The loop has no early exit, so that it is vectorised.
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

/// A string column in any of the types that a batch or a file gives it.
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

/// A column that has a type which it cannot have in an `events` batch.
#[derive(Debug, thiserror::Error)]
#[error("a column of events has the type {found}, which it cannot have")]
pub struct WrongColumn {
    found: DataType,
}

/// Why a row has no record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RowFault {
    #[error("its form is not valid")]
    Form(#[source] FormError),
    #[error("it has both a form and raw")]
    BesideRaw,
    #[error("it has both a form and a shape")]
    BesideShape,
    #[error("its form leaves out a column that is not null")]
    ColumnLeftOut,
    #[error("its form has a hole for a column that is null")]
    ColumnNull,
    #[error("the number of its form_values is not the number of holes in its form")]
    Items,
    #[error("an item of its form_values is not allowed in its hole")]
    Item,
    #[error("one of its times cannot be written as its form says")]
    Inexact,
    #[error("an item of a list that its form writes is null")]
    NullItem,
}

impl RowFault {
    /// Returns the name of the fault's class, which is the same for every reader of forms.
    pub const fn as_str(self) -> &'static str {
        match self {
            RowFault::Form(error) => error.fault.as_str(),
            RowFault::BesideRaw => "beside_raw",
            RowFault::BesideShape => "beside_shape",
            RowFault::ColumnLeftOut => "column_left_out",
            RowFault::ColumnNull => "column_null",
            RowFault::Items => "items",
            RowFault::Item => "item",
            RowFault::Inexact => "inexact",
            RowFault::NullItem => "null_item",
        }
    }
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

    /// Returns the items of a row, or `None` for a null.
    fn get(&self, row: usize) -> Option<impl ExactSizeIterator<Item = Option<&'a str>> + '_> {
        if self.lists.is_null(row) {
            return None;
        }
        let offsets = self.lists.value_offsets();
        let range = offsets[row] as usize..offsets[row + 1] as usize;
        Some(range.map(|item| self.items.get(item)))
    }

    /// Whether a row has the same list as a row of another column; null items and null lists are
    /// compared too.
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

    /// Appends the list as a JSON array; false if the row is null.
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
    /// `None` in files that are older than forms; `strings` is then `None` for `form` and
    /// `redaction`.
    form_values: Option<Lists<'a>>,
    faults: Option<Lists<'a>>,
    /// The columns of [`MAPPED`] without nulls, as bits; then the columns with nulls in some rows.
    always: u64,
    partly: Vec<(usize, &'a NullBuffer)>,
    /// A buffer for regions.
    region: RefCell<Vec<u8>>,
    /// Parsed forms. A batch has few.
    forms: RefCell<HashMap<&'a str, Result<Rc<Form>, FormError>>>,
}

impl<'a> Renderer<'a> {
    /// Prepares for rendering the rows of `batch`.
    ///
    /// # Errors
    /// [`WrongColumn`] if the batch does not have all columns of the `events` table in order.
    /// Columns that were added later may be missing.
    pub fn new(batch: &'a RecordBatch) -> Result<Self, WrongColumn> {
        if batch.num_columns() < index::COUNT - events::LATER.len() {
            return Err(WrongColumn { found: DataType::Struct(batch.schema().fields().clone()) });
        }
        let column = |at: usize| batch.column(at);
        let wrong = |at: usize| WrongColumn { found: batch.column(at).data_type().clone() };
        let mut strings = Vec::with_capacity(index::COUNT);
        for at in 0..index::COUNT {
            let is_string =
                *strongroom_schemas::Table::Events.file_schema().field(at).data_type() == DataType::Utf8;
            let is_there = is_string && at < batch.num_columns();
            strings.push(if is_there { Some(Strings::of(column(at))?) } else { None });
        }
        let later = |at: usize| (at < batch.num_columns()).then(|| Lists::of(column(at))).transpose();
        let binary = |at: usize| column(at).as_binary_opt::<i32>().ok_or_else(|| wrong(at));
        let timestamps =
            |at: usize| column(at).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| wrong(at));
        let (mut always, mut partly) = (0, Vec::new());
        for (at, mapped) in MAPPED.iter().enumerate() {
            let array = column(mapped.column);
            match array.nulls() {
                None => always |= 1 << at,
                Some(nulls) if nulls.null_count() == 0 => always |= 1 << at,
                Some(nulls) if nulls.null_count() < array.len() => partly.push((at, nulls)),
                Some(_) => {}
            }
        }
        Ok(Renderer {
            always,
            partly,
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
            form_values: later(index::FORM_VALUES)?,
            faults: later(index::FAULTS)?,
            region: RefCell::default(),
            forms: RefCell::default(),
        })
    }

    fn string(&self, column: usize, row: usize) -> Option<&'a str> {
        self.strings[column].as_ref().and_then(|strings| strings.get(row))
    }

    /// Byte offset of the record in its stream.
    #[inline]
    pub fn offset(&self, row: usize) -> i64 {
        if self.offset.is_valid(row) { self.offset.value(row) } else { 0 }
    }

    /// Returns the bytes of the stream right before the record and right after it that belong to no
    /// record.
    #[inline]
    pub fn frame(&self, row: usize) -> (&'a [u8], &'a [u8]) {
        let bytes = |array: &'a BinaryArray| if array.is_valid(row) { array.value(row) } else { &[] };
        (bytes(self.frame_before), bytes(self.frame_after))
    }

    /// Whether the row has bytes of the stream from around its record.
    pub fn has_frame(&self, row: usize) -> bool {
        self.frame_before.is_valid(row) || self.frame_after.is_valid(row)
    }

    /// Returns the `raw` of a row.
    pub(crate) fn raw(&self, row: usize) -> Option<&'a [u8]> {
        self.raw.is_valid(row).then(|| self.raw.value(row))
    }

    pub(crate) fn shape(&self, row: usize) -> Option<&'a str> {
        self.string(index::SHAPE, row)
    }

    /// Whether the row has a form that says how its record is written.
    pub(crate) fn has_form(&self, row: usize) -> bool {
        self.string(index::FORM, row).is_some()
    }

    /// Whether the row keeps the format of its record, in `raw` or by a form. If it does not, its
    /// record is rendered by the rules for rows without a form.
    pub fn keeps_format(&self, row: usize) -> bool {
        self.raw.is_valid(row) || self.has_form(row)
    }

    /// Appends the record as received.
    ///
    /// # Errors
    /// [`RowFault`] if the row has a form that does not give a record; `out` may then have a part
    /// of a record.
    pub fn record(&self, row: usize, out: &mut Vec<u8>) -> Result<(), RowFault> {
        if let Some(form) = self.string(index::FORM, row) {
            let form = self.form(form).map_err(RowFault::Form)?;
            return self.by_form(&form, 0..form.segments().len(), row, out);
        }
        if self.raw.is_valid(row) {
            out.extend_from_slice(self.raw.value(row));
        } else {
            self.columns(row, out);
        }
        Ok(())
    }

    /// Appends only the event of a row with a form, from `{` to `}`: the text that the row's
    /// columns are compared with. If the event is nested in a string, this is the event without the
    /// escapes of that string. Returns `false` for a row without a form.
    ///
    /// # Errors
    /// Like [`Renderer::record`].
    pub fn event_of_form(&self, row: usize, out: &mut Vec<u8>) -> Result<bool, RowFault> {
        let Some(form) = self.string(index::FORM, row) else { return Ok(false) };
        let form = self.form(form).map_err(RowFault::Form)?;
        self.by_form(&form, form.event(), row, out).map(|()| true)
    }

    /// Appends what a row's form writes around the event: its literals and the row's items, as they
    /// are before a region escapes them. Times are left out, and so is a newline that ends the string
    /// in which the event is. Returns `false` for a row without a form, and for one that may have more
    /// around its event.
    pub fn around_event(&self, row: usize, out: &mut Vec<u8>) -> bool {
        let Some(Ok(form)) = self.string(index::FORM, row).map(|form| self.form(form)) else { return false };
        let values = self.form_values.as_ref().and_then(|values| values.get(row));
        let (mut items, event) = (values.into_iter().flatten(), form.event());
        let mut regions = 0_usize;
        for (at, segment) in form.segments().iter().enumerate() {
            let is_around = !event.contains(&at);
            match segment {
                Segment::Literal(literal) if is_around => {
                    let ends_string = at == event.end && regions > 0;
                    let rest = literal.strip_prefix('\n').filter(|_| ends_string).unwrap_or(literal);
                    out.extend_from_slice(rest.as_bytes());
                }
                Segment::Item(_) => {
                    let item = items.next().flatten();
                    if is_around {
                        out.extend_from_slice(item.unwrap_or_default().as_bytes());
                    }
                }
                Segment::Open(_) => regions += 1,
                Segment::Close => regions = regions.saturating_sub(1),
                Segment::Column(..) if is_around => return false,
                Segment::Literal(_) | Segment::Column(..) | Segment::Copy(..) => {}
            }
        }
        true
    }

    /// Returns what is wrong with the columns that mark a row: `form_values` without a form,
    /// `redaction` and `faults`. A form that gives no record is not reported here.
    pub fn wrong_marks(&self, row: usize) -> impl Iterator<Item = &'static str> + use<> {
        let has_values = self.form_values.as_ref().is_some_and(|values| values.get(row).is_some());
        let is_alone = has_values && self.string(index::FORM, row).is_none();
        let redaction = self.string(index::REDACTION, row);
        let is_changed = redaction.is_some_and(|mark| marks::Redaction::parse(mark).is_err());
        let faults = self.faults.as_ref().and_then(|faults| faults.get(row));
        let is_faulty = faults.is_some_and(|faults| !marks::are_faults(faults));
        [
            is_alone.then_some("it has form_values without a form"),
            is_changed.then_some("its redaction is not a redaction mark"),
            is_faulty.then_some("its faults are not a list of faults"),
        ]
        .into_iter()
        .flatten()
    }

    /// Returns the mark of a row whose record was changed before it was written, if it is a valid
    /// one.
    pub fn mark(&self, row: usize) -> Option<marks::Redaction> {
        self.string(index::REDACTION, row).and_then(|mark| marks::Redaction::parse(mark).ok())
    }

    /// Whether the record was changed before it was written.
    #[inline]
    pub fn is_redacted(&self, row: usize) -> bool {
        self.string(index::REDACTION, row).is_some()
    }

    fn form(&self, template: &'a str) -> Result<Rc<Form>, FormError> {
        let mut forms = self.forms.borrow_mut();
        if let Some(form) = forms.get(template) {
            return form.clone();
        }
        if forms.len() >= FORMS_IN_BLOCK_MAX {
            forms.clear();
        }
        let form = Form::parse(template).map(Rc::new);
        forms.insert(template, form.clone());
        form
    }

    fn list(&self, column: usize) -> Option<&Lists<'a>> {
        match column {
            index::USER_GROUPS => Some(&self.groups),
            index::IMPERSONATED_USER_GROUPS => Some(&self.impersonated_groups),
            index::SOURCE_IPS => Some(&self.source_ips),
            _ => None,
        }
    }

    fn time(&self, column: usize, row: usize) -> Option<i64> {
        let times = if column == index::STAGE_TIMESTAMP { self.stage } else { self.received };
        times.is_valid(row).then(|| times.value(row))
    }

    /// Returns a set of bits: bit `n` is 1 if the column `MAPPED[n]` is not null in this row.
    fn there(&self, row: usize) -> u64 {
        let bits = self.partly.iter().map(|(at, nulls)| u64::from(nulls.is_valid(row)) << at);
        bits.fold(self.always, |there, bit| there | bit)
    }

    /// Appends what the segments `wanted` of a form give, with the columns and items of a row.
    fn by_form(
        &self,
        form: &Form,
        wanted: std::ops::Range<usize>,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), RowFault> {
        if self.raw.is_valid(row) {
            return Err(RowFault::BesideRaw);
        }
        if self.string(index::SHAPE, row).is_some() {
            return Err(RowFault::BesideShape);
        }
        let there = self.there(row);
        if there & !form.columns() != 0 {
            return Err(RowFault::ColumnLeftOut);
        }
        if form.columns() & !there != 0 {
            return Err(RowFault::ColumnNull);
        }
        let items = self.form_values.as_ref().and_then(|values| values.get(row));
        if items.is_some() != (form.items() > 0)
            || items.as_ref().map_or(0, ExactSizeIterator::len) != form.items()
        {
            return Err(RowFault::Items);
        }
        let mut items = items.into_iter().flatten();
        let mut bytes = 0;
        // A region is a string that other segments are written into. `outer` has the open regions,
        // each with its style and with what was written so far in the region around it. `inner` has
        // what was written so far in the innermost region.
        let mut outer = Vec::new();
        let mut inner = Vec::new();
        // A buffer for the next region.
        let mut spare = self.region.take();
        let (before, segments) = (&form.segments()[..wanted.start], &form.segments()[wanted]);
        for _ in before.iter().filter(|segment| matches!(segment, Segment::Item(_))) {
            items.next();
        }
        for segment in segments {
            let here = if outer.is_empty() { &mut *out } else { &mut inner };
            match segment {
                Segment::Literal(literal) => here.extend_from_slice(literal.as_bytes()),
                Segment::Column(at, codec) => self.write_column(MAPPED[*at].column, *codec, row, here)?,
                Segment::Copy(at, codec) => {
                    let time = self.time(MAPPED[*at].column, row).ok_or(RowFault::ColumnNull)?;
                    formats::copy(*codec, time, here).ok_or(RowFault::Inexact)?;
                }
                Segment::Item(place) => {
                    let item = items.next().flatten().ok_or(RowFault::Item)?;
                    bytes += item.len();
                    if bytes > FORM_ITEMS_BYTES_MAX || !item_fits(item, *place) {
                        return Err(RowFault::Item);
                    }
                    here.extend_from_slice(item.as_bytes());
                }
                Segment::Open(style) => {
                    spare.clear();
                    outer.push((*style, std::mem::replace(&mut inner, std::mem::take(&mut spare))));
                }
                Segment::Close => {
                    let Some((style, before)) = outer.pop() else { continue };
                    let content = std::mem::replace(&mut inner, before);
                    let here = if outer.is_empty() { &mut *out } else { &mut inner };
                    // The content consists of strings, and of columns that hold text, so it is
                    // UTF-8. Checking that is faster than looking for what to replace.
                    let text = std::str::from_utf8(&content)
                        .map_or_else(|_| String::from_utf8_lossy(&content), std::borrow::Cow::Borrowed);
                    formats::string(style, &text, here);
                    spare = content;
                }
            }
        }
        *self.region.borrow_mut() = spare;
        Ok(())
    }

    fn write_column(
        &self,
        column: usize,
        codec: Codec,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), RowFault> {
        match codec {
            Codec::Text(style) => formats::string(style, self.string(column, row).unwrap_or_default(), out),
            Codec::Json => {
                out.extend_from_slice(self.string(column, row).unwrap_or_default().as_bytes());
            }
            Codec::List(style, layout) => {
                let items = self.list(column).and_then(|lists| lists.get(row));
                items.and_then(|items| formats::list(style, layout, items, out)).ok_or(RowFault::NullItem)?;
            }
            Codec::Integer => {
                out.extend_from_slice(itoa::Buffer::new().format(self.code.value(row)).as_bytes());
            }
            Codec::Time(..) | Codec::Seconds | Codec::Milliseconds | Codec::DecimalSeconds(_) => {
                let time = self.time(column, row).unwrap_or_default();
                formats::time(codec, time, out).ok_or(RowFault::Inexact)?;
            }
        }
        Ok(())
    }

    /// Appends what the columns alone render to.
    pub fn columns(&self, row: usize, out: &mut Vec<u8>) {
        let open = self.before_bodies(row, out);
        self.text("requestObject", index::REQUEST_OBJECT, row, open, out);
        self.text("responseObject", index::RESPONSE_OBJECT, row, open, out);
        self.after_bodies(row, open, out);
    }

    /// Like [`columns`](Self::columns), for an event without bodies.
    pub fn columns_without_bodies(&self, row: usize, out: &mut Vec<u8>) {
        let open = self.before_bodies(row, out);
        self.after_bodies(row, open, out);
    }

    /// Returns the position after the event's opening brace and shape.
    fn before_bodies(&self, row: usize, out: &mut Vec<u8>) -> usize {
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
        open
    }

    fn after_bodies(&self, row: usize, open: usize, out: &mut Vec<u8>) {
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

/// The beginning of every `responseStatus`: `metav1.Status` has a `ListMeta` that is never left
/// out.
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

/// Appends an object, which is left out if it has no members.
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
