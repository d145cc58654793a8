//! Builders of Arrow columns.
//!
//! Invariant: all columns of a builder have the same number of rows after every push, so a row is
//! either whole or absent. Repeated values are kept once per block: [`Dictionary`] gives a value
//! its key, and [`Memo`] remembers what a piece of raw text (a whole `user` object, say) decoded
//! to, so text seen before is neither parsed nor copied again. Keys are `i32`; [`NULL`] marks an
//! absent value.
//!
//! Hashes are seeded at random for each process, because strangers choose the names in a log.
//! Builders live in memory only; after a crash the block is read again.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{
    Array as _, ArrayRef, BinaryArray, DictionaryArray, Int32Array, Int64Array, ListArray, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::render::is_plain;

/// Key of an absent value.
pub(crate) const NULL: i32 = -1;

/// Distinct strings of one column in one block, numbered in order of first appearance.
pub(crate) struct Dictionary {
    hasher: DefaultHashBuilder,
    table: HashTable<i32>,
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    /// For each value, whether it is written in JSON without escapes.
    plain: Vec<bool>,
    last: i32,
}

impl Dictionary {
    pub(crate) fn new() -> Self {
        Dictionary {
            hasher: DefaultHashBuilder::default(),
            table: HashTable::new(),
            offsets: vec![0],
            bytes: Vec::new(),
            plain: Vec::new(),
            last: NULL,
        }
    }

    /// Returns the value of a key of this dictionary.
    pub(crate) fn text(&self, key: i32) -> &str {
        // Only strings are added.
        std::str::from_utf8(self.value(key)).unwrap_or_default()
    }

    fn value(&self, key: i32) -> &[u8] {
        let at = key as usize;
        &self.bytes[self.offsets[at] as usize..self.offsets[at + 1] as usize]
    }

    /// Returns the key of `value`, and adds the value if it is new.
    pub(crate) fn intern(&mut self, value: &str) -> i32 {
        match self.find(value.as_bytes()) {
            Ok(key) => key,
            Err(hash) => self.insert(hash, value, is_plain(value.as_bytes())),
        }
    }

    /// Returns the key of the value `text`, if that value is known and JSON writes it without
    /// escapes. Otherwise returns the hash to [`insert`](Self::insert) it under.
    pub(crate) fn plain(&mut self, text: &[u8]) -> Result<i32, u64> {
        match self.find(text) {
            Ok(key) if self.plain[key as usize] => Ok(key),
            Ok(_) => Err(self.hasher.hash_one(text)),
            Err(hash) => Err(hash),
        }
    }

    fn find(&mut self, value: &[u8]) -> Result<i32, u64> {
        if self.last != NULL && self.value(self.last) == value {
            return Ok(self.last);
        }
        let hash = self.hasher.hash_one(value);
        match self.table.find(hash, |key| self.value(*key) == value) {
            Some(key) => {
                self.last = *key;
                Ok(*key)
            }
            None => Err(hash),
        }
    }

    /// Adds a value that was not found.
    pub(crate) fn insert(&mut self, hash: u64, value: &str, plain: bool) -> i32 {
        let Dictionary { hasher, table, offsets, bytes, .. } = self;
        // A block is far smaller than 2 GiB, so the number and total length of its distinct values
        // fit an i32.
        let key = (offsets.len() - 1) as i32;
        bytes.extend_from_slice(value.as_bytes());
        offsets.push(bytes.len() as i32);
        let (offsets, bytes, hasher) = (&*offsets, &*bytes, &*hasher);
        table.insert_unique(hash, key, |key| {
            hasher.hash_one(&bytes[offsets[*key as usize] as usize..offsets[*key as usize + 1] as usize])
        });
        self.plain.push(plain);
        self.last = key;
        key
    }

    pub(crate) fn intern_opt(&mut self, value: Option<&str>) -> i32 {
        value.map_or(NULL, |value| self.intern(value))
    }

    fn take(&mut self) -> Result<StringArray, ArrowError> {
        self.table.clear();
        self.plain.clear();
        self.last = NULL;
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let bytes = std::mem::take(&mut self.bytes);
        StringArray::try_new(OffsetBuffer::new(offsets.into()), Buffer::from_vec(bytes), None)
    }
}

/// Remembers what pieces of raw text decoded to.
pub(crate) struct Memo<T> {
    hasher: DefaultHashBuilder,
    table: HashTable<Remembered<T>>,
    arena: Vec<u8>,
}

/// A block is far smaller than 2 GiB, so positions in the arena fit a u32.
struct Remembered<T> {
    hash: u64,
    start: u32,
    end: u32,
    value: T,
}

impl<T: Copy> Memo<T> {
    pub(crate) fn new() -> Self {
        Memo { hasher: DefaultHashBuilder::default(), table: HashTable::new(), arena: Vec::new() }
    }

    /// Returns the remembered value; if there is none, the hash to [`insert`](Self::insert) one
    /// under.
    pub(crate) fn get(&self, raw: &[u8]) -> Result<T, u64> {
        let hash = self.hasher.hash_one(raw);
        self.find(hash, raw).ok_or(hash)
    }

    /// Like [`get`](Self::get), but with a hash that the caller has computed. All hashes of one
    /// memo must come from the same hasher.
    pub(crate) fn find(&self, hash: u64, raw: &[u8]) -> Option<T> {
        let is_it = |known: &Remembered<T>| {
            known.hash == hash && &self.arena[known.start as usize..known.end as usize] == raw
        };
        self.table.find(hash, is_it).map(|known| known.value)
    }

    pub(crate) fn insert(&mut self, hash: u64, raw: &[u8], value: T) {
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(raw);
        let entry = Remembered { hash, start, end: self.arena.len() as u32, value };
        self.table.insert_unique(hash, entry, |known| known.hash);
    }

    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.arena.clear();
    }
}

/// Capacity for a column that had `length` entries in the last block.
fn roomy(length: usize) -> usize {
    length + length / 8
}

fn keys_and_nulls(mut keys: Vec<i32>) -> (ScalarBuffer<i32>, Option<NullBuffer>) {
    if keys.iter().filter(|key| **key == NULL).count() == 0 {
        return (keys.into(), None);
    }
    let present = BooleanBuffer::collect_bool(keys.len(), |at| keys[at] != NULL);
    for key in &mut keys {
        *key = (*key).max(0);
    }
    (keys.into(), Some(NullBuffer::new(present)))
}

fn dictionary_array(keys: Vec<i32>, values: StringArray) -> Result<DictionaryArray<Int32Type>, ArrowError> {
    let (keys, nulls) = keys_and_nulls(keys);
    // Null rows point at key 0, which must exist.
    let values = if values.is_empty() { StringArray::from(vec![""]) } else { values };
    DictionaryArray::try_new(Int32Array::new(keys, nulls), Arc::new(values))
}

/// Which rows have a value, one bit each, as Arrow stores them.
#[derive(Default)]
struct Presence {
    bits: Vec<u8>,
    /// Bits of the last rows, which are fewer than eight and so do not fill a byte yet.
    open: u8,
    rows: usize,
    present: usize,
}

impl Presence {
    fn push(&mut self, is_present: bool) {
        self.open |= u8::from(is_present) << (self.rows % 8);
        self.present += usize::from(is_present);
        self.rows += 1;
        if self.rows.is_multiple_of(8) {
            self.bits.push(std::mem::take(&mut self.open));
        }
    }

    fn take(&mut self) -> Option<NullBuffer> {
        let bits = Vec::with_capacity(roomy(self.bits.len()));
        let Presence { bits, open, rows, present } =
            std::mem::replace(self, Presence { bits, ..Presence::default() });
        if present == rows {
            return None;
        }
        let mut bits = bits;
        bits.push(open);
        Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bits), 0, rows)))
    }
}

/// A column of strings that repeat.
pub(crate) struct DictColumn {
    pub(crate) dictionary: Dictionary,
    /// Keys of all rows after the first `absent` rows. Those rows have no value, and no entry here,
    /// because many columns are null for a whole block.
    keys: Vec<i32>,
    absent: usize,
    /// Key of each name of a closed set; [`NULL`] for a name that was not seen yet.
    known: Vec<i32>,
}

impl DictColumn {
    pub(crate) fn new() -> Self {
        DictColumn { dictionary: Dictionary::new(), keys: Vec::new(), absent: 0, known: Vec::new() }
    }

    /// Returns the key of `text` if it is one of `names`. All calls must pass the same `names`.
    pub(crate) fn known(&mut self, text: &[u8], names: &[&'static str]) -> Option<i32> {
        let at = names.iter().position(|name| name.as_bytes() == text)?;
        self.known.resize(names.len(), NULL);
        if self.known[at] == NULL {
            self.known[at] = self.dictionary.intern(names[at]);
        }
        Some(self.known[at])
    }

    pub(crate) fn push(&mut self, key: i32) {
        if key == NULL && self.keys.is_empty() {
            self.absent += 1;
            return;
        }
        if self.keys.is_empty() {
            self.keys.resize(self.absent, NULL);
        }
        self.keys.push(key);
    }

    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let values = self.dictionary.take()?;
        self.known.clear();
        let absent = std::mem::take(&mut self.absent);
        if self.keys.is_empty() {
            let data_type = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            return Ok(new_null_array(&data_type, absent));
        }
        let keys = Vec::with_capacity(roomy(self.keys.len()));
        Ok(Arc::new(dictionary_array(std::mem::replace(&mut self.keys, keys), values)?))
    }
}

/// A column of string lists, in which both single items and whole lists repeat.
pub(crate) struct ListColumn {
    pub(crate) dictionary: Dictionary,
    /// Where each distinct list begins in `items`.
    starts: Vec<u32>,
    items: Vec<i32>,
    offsets: Vec<i32>,
    keys: Vec<i32>,
    presence: Presence,
}

impl ListColumn {
    pub(crate) fn new() -> Self {
        ListColumn {
            dictionary: Dictionary::new(),
            starts: vec![0],
            items: Vec::new(),
            offsets: vec![0],
            keys: Vec::new(),
            presence: Presence::default(),
        }
    }

    /// Remembers a list and returns its number, for [`push`](Self::push).
    pub(crate) fn intern<'a>(&mut self, list: impl IntoIterator<Item = &'a str>) -> i32 {
        for item in list {
            let key = self.dictionary.intern(item);
            self.items.push(key);
        }
        self.starts.push(self.items.len() as u32);
        (self.starts.len() - 2) as i32
    }

    pub(crate) fn push(&mut self, list: i32) {
        if list == NULL {
            self.presence.push(false);
        } else {
            let (start, end) = (self.starts[list as usize] as usize, self.starts[list as usize + 1] as usize);
            self.keys.extend_from_slice(&self.items[start..end]);
            self.presence.push(true);
        }
        self.offsets.push(self.keys.len() as i32);
    }

    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let values = self.dictionary.take()?;
        let items = dictionary_array(std::mem::take(&mut self.keys), values)?;
        self.finish_lists(Arc::new(items))
    }

    /// Like [`finish`](Self::finish), with items that are not in a dictionary.
    pub(crate) fn finish_plain(&mut self) -> Result<ArrayRef, ArrowError> {
        let values = self.dictionary.take()?;
        let keys = std::mem::take(&mut self.keys);
        let items = StringArray::from_iter_values(keys.iter().map(|key| values.value(*key as usize)));
        self.finish_lists(Arc::new(items))
    }

    fn finish_lists(&mut self, items: ArrayRef) -> Result<ArrayRef, ArrowError> {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        self.starts.truncate(1);
        self.items.clear();
        let nulls = self.presence.take();
        let field = Arc::new(Field::new("item", items.data_type().clone(), true));
        Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(offsets.into()), items, nulls)?))
    }
}

/// A column of bytes that seldom repeat. It can be finished as strings.
pub(crate) struct BytesColumn {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    presence: Presence,
}

impl BytesColumn {
    pub(crate) fn new() -> Self {
        BytesColumn { offsets: vec![0], bytes: Vec::new(), presence: Presence::default() }
    }

    pub(crate) fn push(&mut self, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.bytes.extend_from_slice(value);
            self.presence.push(true);
        } else {
            self.presence.push(false);
        }
        self.offsets.push(self.bytes.len() as i32);
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer, Option<NullBuffer>) {
        // The next block is probably like this one. Reserving room for it at once avoids the copies
        // that growing would make.
        let (rows, bytes) = (roomy(self.offsets.len()), roomy(self.bytes.len()));
        let mut offsets = Vec::with_capacity(rows);
        offsets.push(0);
        let offsets = OffsetBuffer::new(std::mem::replace(&mut self.offsets, offsets).into());
        let bytes = Buffer::from_vec(std::mem::replace(&mut self.bytes, Vec::with_capacity(bytes)));
        (offsets, bytes, self.presence.take())
    }

    pub(crate) fn finish_strings(&mut self) -> Result<ArrayRef, ArrowError> {
        let (offsets, bytes, nulls) = self.take();
        Ok(Arc::new(StringArray::try_new(offsets, bytes, nulls)?))
    }

    pub(crate) fn finish_binary(&mut self) -> Result<ArrayRef, ArrowError> {
        let (offsets, bytes, nulls) = self.take();
        Ok(Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?))
    }
}

/// Records that are kept as they were received, until it is known which of them have a form. A
/// record that is a part of the block's text is not copied.
pub(crate) struct RecordColumn {
    /// Address and length of the text.
    text: (usize, usize),
    /// Records that are not in the text, one after the other.
    copies: Vec<u8>,
    /// For each row, the start and the length of its record. A start beyond the end of the text is
    /// in `copies`, which count as if they followed the text. A block is far smaller than 2 GiB, so
    /// both fit a u32.
    extents: Vec<(u32, u32)>,
    kept: usize,
}

/// The extent of a row without a record.
const NO_RECORD: (u32, u32) = (u32::MAX, 0);

impl RecordColumn {
    pub(crate) fn new() -> Self {
        RecordColumn { text: (0, 0), copies: Vec::new(), extents: Vec::new(), kept: 0 }
    }

    pub(crate) fn begin(&mut self, text: &[u8]) {
        self.text = (text.as_ptr() as usize, text.len());
    }

    /// Whether the last row has no record here.
    pub(crate) fn last_is_absent(&self) -> bool {
        self.extents.last() == Some(&NO_RECORD)
    }

    pub(crate) fn push(&mut self, record: Option<&[u8]>) {
        let Some(record) = record else {
            self.extents.push(NO_RECORD);
            return;
        };
        let (address, length) = self.text;
        // While the text is borrowed, nothing else has its addresses.
        let at = (record.as_ptr() as usize).wrapping_sub(address);
        let start = if at.checked_add(record.len()).is_some_and(|end| end <= length) {
            at
        } else {
            self.copies.extend_from_slice(record);
            length + self.copies.len() - record.len()
        };
        self.kept += 1;
        self.extents.push((start as u32, record.len() as u32));
    }

    /// Returns the records of all rows. `text` is the text that [`begin`](Self::begin) was given.
    pub(crate) fn take<'t>(&mut self, text: &'t [u8]) -> Records<'t> {
        debug_assert_eq!(self.text.1, text.len());
        let extents = Vec::with_capacity(roomy(self.extents.len()));
        self.text = (0, 0);
        Records {
            text,
            copies: std::mem::take(&mut self.copies),
            extents: std::mem::replace(&mut self.extents, extents),
            kept: std::mem::take(&mut self.kept),
        }
    }
}

/// The records that a [`RecordColumn`] has collected.
pub(crate) struct Records<'t> {
    text: &'t [u8],
    copies: Vec<u8>,
    extents: Vec<(u32, u32)>,
    kept: usize,
}

impl Records<'_> {
    /// Returns the number of rows that have a record.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    pub(crate) fn get(&self, row: usize) -> Option<&[u8]> {
        let (start, length) = self.extents.get(row).filter(|extent| **extent != NO_RECORD)?;
        let (start, length) = (*start as usize, *length as usize);
        match start.checked_sub(self.text.len()) {
            Some(start) => self.copies.get(start..start + length),
            None => self.text.get(start..start + length),
        }
    }

    /// Returns the column with the records of the rows that `is_wanted` returns true for.
    pub(crate) fn column(&self, mut is_wanted: impl FnMut(usize) -> bool) -> ArrayRef {
        let rows = 0..self.extents.len();
        let wanted: Vec<Option<&[u8]>> = rows.map(|row| self.get(row).filter(|_| is_wanted(row))).collect();
        let bytes = wanted.iter().flatten().map(|record| record.len()).sum();
        let mut column = BinaryBuilder::with_capacity(wanted.len(), bytes);
        for record in wanted {
            column.append_option(record);
        }
        Arc::new(column.finish())
    }
}

/// A column of integers or points in time.
pub(crate) struct NumberColumn {
    values: Vec<i64>,
    presence: Presence,
}

impl NumberColumn {
    pub(crate) fn new() -> Self {
        NumberColumn { values: Vec::new(), presence: Presence::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn push(&mut self, value: Option<i64>) {
        self.values.push(value.unwrap_or(0));
        self.presence.push(value.is_some());
    }

    fn take(&mut self) -> (Vec<i64>, Option<NullBuffer>) {
        let nulls = self.presence.take();
        let values = Vec::with_capacity(roomy(self.values.len()));
        (std::mem::replace(&mut self.values, values), nulls)
    }

    pub(crate) fn finish_i64(&mut self) -> ArrayRef {
        let (values, nulls) = self.take();
        Arc::new(Int64Array::new(values.into(), nulls))
    }

    /// Every value pushed must fit; codes are checked when they are decoded.
    pub(crate) fn finish_i32(&mut self) -> ArrayRef {
        let (values, nulls) = self.take();
        let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
        Arc::new(Int32Array::new(values.into(), nulls))
    }

    pub(crate) fn finish_timestamps(&mut self) -> ArrayRef {
        let (values, nulls) = self.take();
        Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone("UTC"))
    }
}
