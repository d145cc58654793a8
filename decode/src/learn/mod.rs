//! Learns how a stream writes its records, and makes forms from that.
//!
//! A *skeleton* is what the records of one kind have in common: the order of members, the
//! separators, which columns there are. While a block is decoded, [`Learner::see`] takes each
//! record that the columns alone do not give, cuts it into its parts, and counts it under its
//! skeleton. It collects the codecs that can write every value of a column. A value that belongs to
//! no column is an *added value*; `see` notes which of these change from record to record. When the
//! block ends, [`Learner::finish`] makes forms from the most frequent skeletons: an added value
//! that is the same in all records is part of the form's text, a copy of one of the event's times
//! is written as such a copy, and all other added values are items.
//!
//! Invariants:
//! - This module does not decide that a row needs no `raw`: [`crate::rows`] renders each row by its
//!   form and compares the result with the record.
//! - A template is used only if [`Form::parse`] accepts it, and only if it is short compared with
//!   the records that it replaces.
//! - The forms of a block follow from its records alone, so a block that is decoded again has the
//!   same forms. Only buffers are kept between blocks.
//! - Useless work is bounded. A block has a credit. A record that has no form, or that needs a new
//!   skeleton, reduces the credit; a record of a known skeleton raises it again. When the credit is
//!   spent, nothing is learned from the rest of the block.

mod codecs;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use hashbrown::HashMap;
use strongroom_schemas::form::{FORM_BYTES_MAX, FORMS_IN_BLOCK_MAX, Form, Kind, MAPPED};

use crate::columns::{DictColumn, NULL};
use crate::render::Renderer;
use codecs::Codecs;
use scan::{Part, Scan, TAG, Wanted, parts};

pub(crate) use scan::{Columns, EventText, TIMES};

/// Longest record that is learned from.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Maximum number of skeletons of a block.
const SKELETONS_MAX: usize = 512;
/// Credit at the start of a block, and its maximum.
const CREDIT_MAX: u32 = 256;
/// Cost of a record that needs a new skeleton.
const COST_NEW: u32 = 1;
/// Cost of a record that has no form.
const COST_NONE: u32 = 4;
/// Maximum length of a template, as a multiple of the length of all its records. It is more than 1
/// because a template is compressed better than a record: its names recur in other templates.
const TEMPLATE_TO_RECORDS_MAX: usize = 2;
/// A value that was seen this often without a change is a constant. A value that was seen less
/// often is a constant only if it has no digits, because a time or a number may be the same by
/// chance.
const SURE: u32 = 16;

/// What is known of the records that have the same key, and whose values the same codecs can write.
struct Skeleton {
    key: Vec<u8>,
    codecs: Vec<Codecs>,
    /// For each added value, its position in [`Learner::places`].
    places: Vec<usize>,
    rows: u32,
    bytes: usize,
    /// The next skeleton with the same key but other codecs.
    next: Option<usize>,
}

/// The skeleton of the records that have a short key.
struct Short {
    skeleton: usize,
    /// The positions of the event's codecs in [`Skeleton::codecs`]. A scan for a short key does not
    /// give these codecs.
    event: Range<usize>,
}

/// A place in records that has an added value. Several skeletons may share a place.
struct AddedPlace {
    /// The value that was seen first, in [`Learner::text`].
    first: Range<usize>,
    seen: u32,
    varies: bool,
}

/// A record that was cut.
struct Seen {
    row: usize,
    skeleton: usize,
    /// Position of its first added value in [`Learner::values`].
    values: usize,
}

pub(crate) struct Learner {
    scan: Scan,
    credit: u32,
    by_key: HashMap<Vec<u8>, usize>,
    by_short_key: HashMap<Vec<u8>, Short>,
    skeletons: Vec<Skeleton>,
    by_path: HashMap<Vec<u8>, usize>,
    places: Vec<AddedPlace>,
    text: Vec<u8>,
    values: Vec<Range<usize>>,
    seen: Vec<Seen>,
}

impl Learner {
    pub(crate) fn new() -> Self {
        Learner {
            scan: Scan::default(),
            credit: CREDIT_MAX,
            by_key: HashMap::new(),
            by_short_key: HashMap::new(),
            skeletons: Vec::new(),
            by_path: HashMap::new(),
            places: Vec::new(),
            text: Vec::new(),
            values: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Learns from the record of row number `row` of the block. The columns alone do not give this
    /// record. Calls are in the order of rows.
    pub(crate) fn see(&mut self, row: usize, record: &[u8], columns: &Columns<'_>) {
        if self.credit == 0 {
            return;
        }
        let may_have_form =
            columns.there != 0 && record.len() <= RECORD_BYTES_MAX && memchr::memchr(TAG, record).is_none();
        if !may_have_form {
            self.credit = self.credit.saturating_sub(COST_NONE);
            return;
        }
        let is_canonical = columns.event.is_some_and(|event| event.is_canonical);
        let short = if is_canonical { self.cut_short(record, columns) } else { None };
        let cost = match short {
            Some(Ok(skeleton)) => self.count(row, Some(skeleton), record.len()),
            _ => match self.cut(record, columns) {
                Some(skeleton) => {
                    let cost = self.count(row, skeleton, record.len());
                    if let Some(Err((key, at))) = short {
                        self.remember(key, at);
                    }
                    cost
                }
                None => COST_NONE,
            },
        };
        self.credit = match cost {
            0 => (self.credit + 1).min(CREDIT_MAX),
            _ => self.credit.saturating_sub(cost),
        };
    }

    /// Cuts a record with a canonical event into `self.scan`, but leaves the event whole. Returns
    /// the record's skeleton. If the short key is not known yet, returns the key and the position
    /// of the event's codecs instead.
    fn cut_short(&mut self, record: &[u8], columns: &Columns<'_>) -> Option<Result<usize, (Vec<u8>, usize)>> {
        self.scan.run(record, columns, Wanted::ShortKey)?;
        let event_at = self.scan.event_at?;
        let Some(Short { skeleton, event }) = self.by_short_key.get(self.scan.key.as_slice()) else {
            return Some(Err((self.scan.key.clone(), event_at)));
        };
        let codecs = &mut self.skeletons[*skeleton].codecs;
        let after = if event.start == event_at { codecs.get(event.end..)? } else { return None };
        let new = &self.scan.codecs;
        let both = |own: &[Codecs], new: &[Codecs]| {
            own.len() == new.len() && own.iter().zip(new).all(|(own, new)| !own.and(new).is_empty())
        };
        if !both(&codecs[..event_at], &new[..event_at]) || !both(after, &new[event_at..]) {
            return Some(Err((self.scan.key.clone(), event_at)));
        }
        let around = (0..event.start).chain(event.end..codecs.len());
        around.zip(new).for_each(|(at, new)| codecs[at] = codecs[at].and(new));
        Some(Ok(*skeleton))
    }

    /// Remembers the short key of the record that was seen last. `event_at` is the position of the
    /// event's codecs.
    fn remember(&mut self, key: Vec<u8>, event_at: usize) {
        let Some(last) = self.seen.last() else { return };
        let skeleton = &mut self.skeletons[last.skeleton];
        // For each codec, the kind of its column; `None` if the codec is that of a copy or a
        // region.
        let mut kinds: Vec<Option<Kind>> = Vec::new();
        for part in parts(&skeleton.key) {
            match part {
                Part::Column(at, _) => kinds.push(MAPPED.get(at).map(|mapped| mapped.kind)),
                Part::Copy(_) | Part::Open(_) => kinds.push(None),
                Part::Literal(_) | Part::Value(_) | Part::Close => {}
            }
        }
        // All columns are in the event, and only columns have codecs there.
        let columns = kinds.iter().flatten().count();
        let event = event_at..event_at + columns;
        let mut narrowed = skeleton.codecs.clone();
        for (at, kind) in kinds.into_iter().enumerate() {
            let Some(own) = narrowed.get_mut(at).filter(|_| kind.is_some() == event.contains(&at)) else {
                return;
            };
            if let Some(Kind::Text | Kind::List | Kind::Time) = kind {
                *own = own.and(&Codecs::CANONICAL);
                if own.is_empty() {
                    return;
                }
            }
        }
        skeleton.codecs = narrowed;
        self.by_short_key.insert(key, Short { skeleton: last.skeleton, event });
    }

    /// Cuts the record into `self.scan`. Returns the record's skeleton, `Some(None)` if it needs a
    /// new skeleton, or `None` if it has no form.
    fn cut(&mut self, record: &[u8], columns: &Columns<'_>) -> Option<Option<usize>> {
        if self.scan.run(record, columns, Wanted::Key).is_none() {
            let location = scan::locate(record, columns).filter(|found| *found != self.scan.location)?;
            self.scan.location = location;
            self.scan.run(record, columns, Wanted::Key)?;
        }
        let mut next = self.by_key.get(self.scan.key.as_slice()).copied();
        while let Some(at) = next {
            let skeleton = &mut self.skeletons[at];
            let both = |(own, new): (&Codecs, &Codecs)| own.and(new);
            let mut pairs = skeleton.codecs.iter().zip(&self.scan.codecs);
            if pairs.all(|pair| !both(pair).is_empty()) {
                skeleton.codecs.iter_mut().zip(&self.scan.codecs).for_each(|(own, new)| *own = own.and(new));
                return Some(Some(at));
            }
            next = skeleton.next;
        }
        if self.skeletons.len() == SKELETONS_MAX {
            return None;
        }
        self.scan.run(record, columns, Wanted::KeyAndPaths)?;
        Some(None)
    }

    /// Counts the record that was cut under its skeleton, and adds the skeleton if it is new.
    /// Returns what the record costs of the credit.
    fn count(&mut self, row: usize, known: Option<usize>, bytes: usize) -> u32 {
        let at = known.unwrap_or_else(|| self.add());
        let Learner { scan, skeletons, places, text, values, seen, .. } = self;
        let skeleton = &mut skeletons[at];
        skeleton.rows += 1;
        skeleton.bytes += bytes;
        seen.push(Seen { row, skeleton: at, values: values.len() });
        debug_assert_eq!(scan.values_len(), skeleton.places.len());
        for (value, place) in scan.values().zip(&skeleton.places) {
            let place = &mut places[*place];
            if place.seen == 0 || text[place.first.clone()] != *value {
                let start = text.len();
                text.extend_from_slice(value);
                let range = start..text.len();
                if place.seen == 0 {
                    place.first = range.clone();
                } else {
                    place.varies = true;
                }
                values.push(range);
            } else {
                values.push(place.first.clone());
            }
            place.seen = place.seen.saturating_add(1);
        }
        if known.is_some() { 0 } else { COST_NEW }
    }

    /// Adds the skeleton of the record that was cut; the cut must have collected the paths.
    fn add(&mut self) -> usize {
        let Learner { scan, by_path, places, .. } = self;
        let place = |path: &Vec<u8>| {
            *by_path.entry_ref(path.as_slice()).or_insert_with(|| {
                places.push(AddedPlace { first: 0..0, seen: 0, varies: false });
                places.len() - 1
            })
        };
        let at = self.skeletons.len();
        let skeleton = Skeleton {
            key: scan.key.clone(),
            codecs: scan.codecs.clone(),
            places: scan.paths.iter().map(place).collect(),
            rows: 0,
            bytes: 0,
            next: None,
        };
        let first = *self.by_key.entry_ref(scan.key.as_slice()).or_insert(at);
        self.skeletons.push(skeleton);
        if first != at {
            let mut last = first;
            while let Some(next) = self.skeletons[last].next {
                last = next;
            }
            self.skeletons[last].next = Some(at);
        }
        at
    }

    /// Returns the forms of the rows seen, and forgets them. `None` if there are none.
    pub(crate) fn finish(&mut self) -> Option<Forms> {
        let forms = if self.seen.is_empty() { None } else { self.forms() };
        self.credit = CREDIT_MAX;
        // What was learned from one block must not decide about the next.
        self.scan.forget();
        self.by_key.clear();
        self.by_short_key.clear();
        self.skeletons.clear();
        self.by_path.clear();
        self.places.clear();
        self.text.clear();
        self.values.clear();
        self.seen.clear();
        forms
    }

    fn forms(&self) -> Option<Forms> {
        let mut order: Vec<usize> = (0..self.skeletons.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(self.skeletons[*at].rows));
        let mut usual = Usual::default();
        for at in &order {
            usual.add(&self.skeletons[*at]);
        }
        let mut templates = Vec::new();
        let mut numbers = vec![None; self.skeletons.len()];
        for at in order {
            if templates.len() == FORMS_IN_BLOCK_MAX {
                break;
            }
            let skeleton = &self.skeletons[at];
            let template = self.template(skeleton, &usual);
            let bytes_max = FORM_BYTES_MAX.min(skeleton.bytes.saturating_mul(TEMPLATE_TO_RECORDS_MAX));
            let template = template.filter(|text| text.len() <= bytes_max);
            if let Some(template) = template.filter(|text| Form::parse(text).is_ok()) {
                numbers[at] = Some(templates.len());
                templates.push(template);
            }
        }
        let (mut rows, mut items, mut text) = (Vec::new(), Vec::new(), String::new());
        for seen in &self.seen {
            let skeleton = &self.skeletons[seen.skeleton];
            let Some(template) = numbers[seen.skeleton] else { continue };
            let values = &self.values[seen.values..seen.values + skeleton.places.len()];
            let start = items.len();
            for (value, place) in values.iter().zip(&skeleton.places) {
                if self.is_item(*place) {
                    // If the value is not text, the form does not give the record, and `verify`
                    // drops the row.
                    let at = text.len();
                    text.push_str(std::str::from_utf8(&self.text[value.clone()]).unwrap_or_default());
                    items.push(at..text.len());
                }
            }
            rows.push(FormRow { row: seen.row, template, items: start..items.len() });
        }
        (!rows.is_empty()).then_some(Forms { templates, rows, items, text })
    }

    fn is_item(&self, place: usize) -> bool {
        let place = &self.places[place];
        let has_digits = || self.text[place.first.clone()].iter().any(u8::is_ascii_digit);
        place.varies || (place.seen < SURE && has_digits())
    }

    fn template(&self, skeleton: &Skeleton, usual: &Usual) -> Option<String> {
        let mut template = String::new();
        let (mut codecs, mut places) = (skeleton.codecs.iter(), skeleton.places.iter());
        let push = |text: &[u8], template: &mut String| {
            template.push_str(&std::str::from_utf8(text).ok()?.replace('$', "$$"));
            Some(())
        };
        for part in parts(&skeleton.key) {
            match part {
                Part::Literal(text) => push(text, &mut template)?,
                Part::Column(at, regions) => {
                    let mapped = MAPPED.get(at)?;
                    let codec = codecs.next()?.codec(mapped.kind, usual.of(mapped.kind, regions)?);
                    write!(template, "${{{}{codec}}}", mapped.name).ok()?;
                }
                Part::Copy(at) => {
                    let mapped = MAPPED.get(at)?;
                    let codec = codecs.next()?.codec(mapped.kind, &Codecs::ALL);
                    write!(template, "${{={}{codec}}}", mapped.name).ok()?;
                }
                Part::Value(_) => {
                    let place = *places.next()?;
                    if self.is_item(place) {
                        template.push_str("${}");
                    } else {
                        push(&self.text[self.places[place].first.clone()], &mut template)?;
                    }
                }
                Part::Open(regions) => {
                    let style = codecs.next()?.style(usual.regions.get(regions)?);
                    write!(template, "${{<{}}}", style.as_str()).ok()?;
                }
                Part::Close => template.push_str("${>}"),
            }
        }
        Some(template)
    }
}

/// Number of levels at which a column can be: it can be in 0 to `FORM_REGIONS_MAX` regions.
const LEVELS: usize = strongroom_schemas::form::FORM_REGIONS_MAX + 1;

/// The codecs that write most values of the block. They are chosen where several codecs can write
/// the values of a skeleton.
struct Usual {
    strings: [Codecs; LEVELS],
    lists: [Codecs; LEVELS],
    times: [Codecs; LEVELS],
    regions: [Codecs; LEVELS],
    any: Codecs,
}

impl Default for Usual {
    fn default() -> Self {
        let all = [Codecs::ALL; LEVELS];
        Usual { strings: all, lists: all, times: all, regions: all, any: Codecs::ALL }
    }
}

impl Usual {
    fn of(&self, kind: Kind, regions: usize) -> Option<&Codecs> {
        match kind {
            Kind::Text => self.strings.get(regions),
            Kind::List => self.lists.get(regions),
            Kind::Time => self.times.get(regions),
            Kind::Integer | Kind::Json => Some(&self.any),
        }
    }

    fn add(&mut self, skeleton: &Skeleton) {
        let mut codecs = skeleton.codecs.iter();
        for part in parts(&skeleton.key) {
            let (usual, kind, regions) = match part {
                Part::Open(regions) => (&mut self.regions, None, regions),
                Part::Column(at, regions) => match MAPPED.get(at).map(|mapped| mapped.kind) {
                    Some(kind @ Kind::Text) => (&mut self.strings, Some(kind), regions),
                    Some(kind @ Kind::List) => (&mut self.lists, Some(kind), regions),
                    Some(kind @ Kind::Time) => (&mut self.times, Some(kind), regions),
                    _ => {
                        codecs.next();
                        continue;
                    }
                },
                Part::Copy(_) => {
                    codecs.next();
                    continue;
                }
                _ => continue,
            };
            let (Some(codecs), Some(usual)) = (codecs.next(), usual.get_mut(regions)) else { return };
            narrow(usual, codecs);
            // The strings of lists are escaped like the texts of other columns.
            let other = match kind {
                Some(Kind::Text) => &mut self.lists,
                Some(Kind::List) => &mut self.strings,
                _ => continue,
            };
            if let Some(other) = other.get_mut(regions) {
                narrow(other, &codecs.of_strings());
            }
        }
    }
}

fn narrow(usual: &mut Codecs, codecs: &Codecs) {
    let both = usual.and(codecs);
    if !both.is_empty() {
        *usual = both;
    }
}

/// The forms of a block.
pub(crate) struct Forms {
    templates: Vec<String>,
    rows: Vec<FormRow>,
    /// Extents of the items of all rows in `text`.
    items: Vec<Range<usize>>,
    text: String,
}

struct FormRow {
    row: usize,
    template: usize,
    items: Range<usize>,
}

impl Forms {
    /// Returns the columns `form` and `form_values` of a block with `rows` rows.
    pub(crate) fn columns(&self, rows: usize) -> Result<(ArrayRef, ArrayRef), ArrowError> {
        let (mut forms, mut lists) = (DictColumn::new(), ListBuilder::new(StringBuilder::new()));
        let mut next = self.rows.iter().peekable();
        for row in 0..rows {
            let Some(form) = next.next_if(|form| form.row == row) else {
                forms.push(NULL);
                lists.append(false);
                continue;
            };
            let key = forms.dictionary.intern(&self.templates[form.template]);
            forms.push(key);
            for item in &self.items[form.items.clone()] {
                lists.values().append_value(&self.text[item.clone()]);
            }
            lists.append(!form.items.is_empty());
        }
        Ok((forms.finish()?, Arc::new(lists.finish())))
    }

    /// Keeps only the rows whose forms give the row's record. `batch` is the block, with the
    /// columns of [`Forms::columns`] and without `raw`. Returns whether a row was dropped.
    pub(crate) fn verify<'r>(
        &mut self,
        batch: &RecordBatch,
        record_of: impl Fn(usize) -> Option<&'r [u8]>,
    ) -> bool {
        let before = self.rows.len();
        let Ok(renderer) = Renderer::new(batch) else {
            self.rows.clear();
            return before > 0;
        };
        let mut record = Vec::new();
        self.rows.retain(|form| {
            record.clear();
            renderer.record(form.row, &mut record).is_ok() && record_of(form.row) == Some(record.as_slice())
        });
        self.rows.len() < before
    }

    /// Returns the rows that have a form, in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|form| form.row)
    }
}
