//! Cuts a record into what repeats from record to record and what does not.
//!
//! Invariant: if the columns, the added values and the escapes of strings are put back into the
//! *key* that [`Scan::run`] leaves, the result is the record. Two records with the same key differ
//! only in these three. The text is checked no further than is needed to find the ends of values:
//! the caller checks the form that it makes of a key, and compares what the form gives with the
//! record. Buffers, and the position of the event in the last record, are kept from record to
//! record.

use std::borrow::Cow;
use std::sync::LazyLock;

use strongroom_lines::swar::{self, string_end};
use strongroom_schemas::events::index;
use strongroom_schemas::form::{
    CONTAINERS, FORM_DEPTH_MAX, FORM_REGIONS_MAX, Kind, LEVEL_MEMBERS, LEVEL_REPLACED, MAPPED, Place,
    item_fits,
};

use super::codecs::{self, Codecs, skip_white};

/// The columns of a row that a form of the row needs.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'l> {
    /// Bit `n` is 1 if the column `MAPPED[n]` is not null.
    pub(crate) there: u64,
    pub(crate) request_object: Option<&'l [u8]>,
    pub(crate) response_object: Option<&'l [u8]>,
    pub(crate) event: Option<EventText<'l>>,
    /// The values of the columns [`TIMES`].
    pub(crate) times: [Option<i64>; TIMES.len()],
}

/// The text of an event that was found in layers of its record.
#[derive(Clone, Copy)]
pub(crate) struct EventText<'t> {
    pub(crate) text: &'t [u8],
    /// Whether the text is what the columns alone render to. Its key then follows from which
    /// columns are not null.
    pub(crate) is_canonical: bool,
}

/// The columns whose copies are recognised, in order of preference.
pub(crate) const TIMES: [usize; 2] = [index::STAGE_TIMESTAMP, index::REQUEST_RECEIVED_TIMESTAMP];

impl Columns<'_> {
    fn has(&self, at: usize) -> bool {
        self.there >> at & 1 == 1
    }

    /// Returns the event whose escaped text is `escaped`, if the event is known. It is not known if
    /// there is white space around it, because the known text is that of the event alone.
    fn event_in(&self, escaped: &[u8]) -> Option<&str> {
        let is_whole = escaped.starts_with(b"{") && escaped.ends_with(b"}");
        std::str::from_utf8(self.event.filter(|_| is_whole)?.text).ok()
    }
}

/// Marks the tags of a key. No UTF-8 has this byte.
pub(super) const TAG: u8 = 0xff;

/// A part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'k> {
    Literal(&'k [u8]),
    /// The value of the column `MAPPED[at]`, in this many regions.
    Column(usize, usize),
    /// A copy of the column `MAPPED[at]`.
    Copy(usize),
    /// An added value.
    Value(Place),
    /// The start of a region that is in this many others.
    Open(usize),
    Close,
}

/// Returns the parts of a key.
pub(super) fn parts(mut key: &[u8]) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        if key.is_empty() {
            return None;
        }
        match memchr::memchr(TAG, key) {
            Some(0) => {
                let (tag, rest) = key.split_at_checked(4)?;
                key = rest;
                Some(match tag[1] {
                    b'c' => Part::Column(usize::from(tag[2]), usize::from(tag[3])),
                    b'=' => Part::Copy(usize::from(tag[2])),
                    b'v' => Part::Value(Place::Value),
                    b't' => Part::Value(Place::Text),
                    b'a' => Part::Value(Place::Around),
                    b'<' => Part::Open(usize::from(tag[2])),
                    _ => Part::Close,
                })
            }
            end => {
                let (literal, rest) = key.split_at(end.unwrap_or(key.len()));
                key = rest;
                Some(Part::Literal(literal))
            }
        }
    })
}

/// Where the event is in a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Location {
    /// Names of the members on the path to the event. Strings on that path are opened.
    path: Vec<Vec<u8>>,
    /// The member that has the level, if that is not the member `level`.
    level: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Event,
    /// The object `CONTAINERS[at]` of the event, which has columns.
    Container(usize),
    /// An object around the event.
    Around,
    Added,
}

/// Maximum number of names of added members whose values may be recognised as copies.
const COPIES_MAX: usize = 8;
/// Trust in a name at the start of a block, and its maximum.
const TRUST_MAX: i32 = 64;
/// Trust that a name loses with a value that is not a copy. A copy restores 1. If a name has lost
/// its trust, its values are not taken for copies in the rest of the block. Some of them equal a
/// time by chance, and their records would need a form of their own.
const TRUST_LOST: i32 = 32;

/// An added member whose values may be copies of a time.
struct Copied {
    name: Vec<u8>,
    trust: i32,
    /// The column of the last copy, by its position in [`TIMES`].
    last: usize,
}

/// Maximum number of parts, between spaces, into which the text before or after a document is cut.
const AROUND_PARTS_MAX: usize = 24;

#[derive(Default)]
pub(super) struct Scan {
    pub(super) location: Location,
    pub(super) key: Vec<u8>,
    /// For each column and region of the key, the codecs that write it.
    pub(super) codecs: Vec<Codecs>,
    /// The added values, one after the other, and the end of each.
    values: Vec<u8>,
    ends: Vec<usize>,
    /// The path of each added value, if paths are wanted.
    pub(super) paths: Vec<Vec<u8>>,
    wants_paths: bool,
    is_short: bool,
    path: Vec<u8>,
    found: u64,
    /// Whether the member `level` has the text [`LEVEL_REPLACED`], and whether the event has one of
    /// [`LEVEL_MEMBERS`].
    level: (bool, bool),
    depth: usize,
    regions: usize,
    copied: Vec<Copied>,
    /// The position in `codecs` of the codecs of an event that was not cut.
    pub(super) event_at: Option<usize>,
}

/// What [`Scan::run`] leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Key,
    KeyAndPaths,
    /// A key in which a canonical event is not cut. It stands for exactly one key of
    /// [`Wanted::Key`], but cannot be split into parts.
    ShortKey,
}

impl Scan {
    /// Forgets what was learned from the records of a block.
    pub(super) fn forget(&mut self) {
        self.location = Location::default();
        self.copied.clear();
    }

    /// Cuts `record`. Returns `None` if it has no form, or if the event is not at
    /// [`Scan::location`].
    pub(super) fn run(&mut self, record: &[u8], columns: &Columns<'_>, wanted: Wanted) -> Option<()> {
        self.key.clear();
        self.codecs.clear();
        self.values.clear();
        self.ends.clear();
        self.paths.clear();
        self.path.clear();
        (self.wants_paths, self.is_short) = (wanted == Wanted::KeyAndPaths, wanted == Wanted::ShortKey);
        self.event_at = None;
        (self.found, self.depth, self.regions) = (0, 0, 0);
        self.level = (false, false);
        self.text(record, Some(0), columns)?;
        let is_level_elsewhere = self.level == (true, true) && self.location.level.is_none();
        (self.found == columns.there && !is_level_elsewhere).then_some(())
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| &self.values[std::mem::replace(&mut start, *end)..*end])
    }

    pub(super) fn values_len(&self) -> usize {
        self.ends.len()
    }

    /// Cuts a document with text around it. `steps` is the number of members already passed on the
    /// path to the event, or `None` if the document is not on that path.
    fn text(&mut self, text: &[u8], steps: Option<usize>, columns: &Columns<'_>) -> Option<()> {
        let (start, end) = match literal(text) {
            Some((start, end)) => {
                self.around(&text[..start], b'<');
                (start, self.region(text, start, steps, columns).filter(|found| *found == end)?)
            }
            None => {
                let start = memchr::memchr(b'{', text)?;
                self.around(&text[..start], b'<');
                (start, self.object(text, start, self.role(steps), steps, columns)?)
            }
        };
        debug_assert!(start < end);
        if memchr::memchr(b'{', &text[end..]).is_some() {
            return None;
        }
        self.around(&text[end..], b'>');
        Some(())
    }

    fn role(&self, steps: Option<usize>) -> Role {
        match steps {
            Some(steps) if steps == self.location.path.len() => Role::Event,
            Some(_) => Role::Around,
            None => Role::Added,
        }
    }

    fn around(&mut self, text: &[u8], side: u8) {
        if text.is_empty() {
            return;
        }
        let length = self.path.len();
        for (number, part) in text.splitn(AROUND_PARTS_MAX, |byte| *byte == b' ').enumerate() {
            if number > 0 {
                self.key.push(b' ');
            }
            if !part.is_empty() {
                self.path.extend_from_slice(&[side, number as u8]);
                self.value(b'a', part);
                self.path.truncate(length);
            }
        }
    }

    fn value(&mut self, tag: u8, value: &[u8]) {
        self.key.extend_from_slice(&[TAG, tag, 0, 0]);
        self.values.extend_from_slice(value);
        self.ends.push(self.values.len());
        if self.wants_paths {
            self.paths.push(self.path.clone());
        }
    }

    /// Cuts the string at `start`, which contains the event. Returns its end.
    fn region(
        &mut self,
        text: &[u8],
        start: usize,
        steps: Option<usize>,
        columns: &Columns<'_>,
    ) -> Option<usize> {
        let end = string_end(text, start)?;
        if self.regions == FORM_REGIONS_MAX {
            return None;
        }
        let styles = codecs::styles(&text[start + 1..end - 1]);
        if styles == 0 {
            return None;
        }
        let content = match columns.event_in(&text[start + 1..end - 1]) {
            Some(event) if steps == Some(self.location.path.len()) => Cow::Borrowed(event),
            _ => unescaped(&text[start..end])?,
        };
        self.key.extend_from_slice(&[TAG, b'<', self.regions as u8, 0]);
        self.codecs.push(Codecs::of(styles));
        self.regions += 1;
        self.path.push(b'"');
        self.text(content.as_bytes(), steps, columns)?;
        self.path.pop();
        self.regions -= 1;
        self.key.extend_from_slice(&[TAG, b'>', 0, 0]);
        Some(end)
    }

    /// Cuts the object at `start`, and returns its end.
    fn object(
        &mut self,
        text: &[u8],
        start: usize,
        role: Role,
        steps: Option<usize>,
        columns: &Columns<'_>,
    ) -> Option<usize> {
        if self.is_short
            && role == Role::Event
            && let Some(EventText { text: event, is_canonical: true }) = columns.event
            && event.as_ptr() == text[start..].as_ptr()
            && event.len() <= text.len() - start
        {
            self.event_at = Some(self.codecs.len());
            self.key.extend_from_slice(&[TAG, b'e', self.regions as u8, self.depth as u8]);
            self.key.extend_from_slice(&columns.there.to_le_bytes());
            self.found = columns.there;
            return Some(start + event.len());
        }
        self.depth += 1;
        if self.depth > FORM_DEPTH_MAX {
            return None;
        }
        // The text from here on is not in the key yet.
        let mut from = start;
        let close = walk(text, start, |name, value| {
            let length = self.path.len();
            if self.wants_paths {
                self.path.extend_from_slice(name);
                self.path.push(0);
            }
            self.key.extend_from_slice(&text[from..value]);
            from = self.member(text, value, (role, name), steps, columns)?;
            self.path.truncate(length);
            Some(from)
        })?;
        self.key.extend_from_slice(&text[from..=close]);
        self.depth -= 1;
        Some(close + 1)
    }

    /// Cuts the value at `start` of the member `name` in an object of this role. Returns its end.
    fn member(
        &mut self,
        text: &[u8],
        start: usize,
        (role, name): (Role, &[u8]),
        steps: Option<usize>,
        columns: &Columns<'_>,
    ) -> Option<usize> {
        match role {
            Role::Event => {
                if let Some(at) = CONTAINERS.iter().position(|own| own.as_bytes() == name) {
                    return match text.get(start)? {
                        b'{' => self.object(text, start, Role::Container(at), None, columns),
                        b'n' => self.word(text, start, b"null"),
                        _ => None,
                    };
                }
                if matches!(name, b"kind" | b"apiVersion") && text.get(start) == Some(&b'"') {
                    let end = string_end(text, start)?;
                    self.key.extend_from_slice(&text[start..end]);
                    return Some(end);
                }
                self.level.0 |= name == b"level" && text[start..].starts_with(LEVEL_REPLACED.as_bytes());
                self.level.1 |= LEVEL_MEMBERS.iter().any(|own| own.as_bytes() == name);
                match self.location.level {
                    Some(level) if name == level.as_bytes() => {
                        return self.column(text, start, level_column()?, columns);
                    }
                    Some(_) if name == b"level" => {
                        let at = if text[start..].starts_with(b"null") {
                            b"null"
                        } else {
                            LEVEL_REPLACED.as_bytes()
                        };
                        return self.word(text, start, at);
                    }
                    _ => {}
                }
                if let Some(at) = column_of(None, name) {
                    return self.column(text, start, at, columns);
                }
            }
            Role::Container(container) => {
                if let Some(at) = column_of(Some(container), name) {
                    return self.column(text, start, at, columns);
                }
            }
            Role::Around => {
                let steps = steps.filter(|steps| {
                    self.location.path.get(*steps).is_some_and(|step| step.as_slice() == name)
                });
                if let Some(steps) = steps {
                    let steps = Some(steps + 1);
                    return match text.get(start)? {
                        b'{' => self.object(text, start, self.role(steps), steps, columns),
                        b'"' => self.region(text, start, steps, columns),
                        _ => None,
                    };
                }
            }
            Role::Added => {}
        }
        self.added(text, start, name, columns)
    }

    fn added(&mut self, text: &[u8], start: usize, name: &[u8], columns: &Columns<'_>) -> Option<usize> {
        match text.get(start)? {
            b'{' => self.object(text, start, Role::Added, None, columns),
            b'"' => {
                let end = string_end(text, start)?;
                if self.copy(&text[start..end], name, columns).is_some() {
                    return Some(end);
                }
                let content = &text[start + 1..end - 1];
                if memchr::memchr2(b'{', b'\\', content).is_some() && !fits(content, Place::Text) {
                    return None;
                }
                self.key.push(b'"');
                self.value(b't', content);
                self.key.push(b'"');
                Some(end)
            }
            first => {
                let end = value_end(text, start)?;
                if self.copy(&text[start..end], name, columns).is_some() {
                    return Some(end);
                }
                if *first == b'[' && !fits(&text[start..end], Place::Value) {
                    return None;
                }
                self.value(b'v', &text[start..end]);
                Some(end)
            }
        }
    }

    /// Cuts the value of the added member `name`, if it is a copy of one of the event's times.
    fn copy(&mut self, value: &[u8], name: &[u8], columns: &Columns<'_>) -> Option<()> {
        if !codecs::is_like_time(value) {
            return None;
        }
        let known = self.copied.iter().position(|copied| copied.name == name);
        let at = match known {
            Some(at) => at,
            None if self.copied.len() == COPIES_MAX => return None,
            None => {
                self.copied.push(Copied { name: name.to_vec(), trust: TRUST_MAX, last: 0 });
                self.copied.len() - 1
            }
        };
        let copied = &mut self.copied[at];
        if copied.trust < 0 {
            return None;
        }
        let found = [copied.last, 1 - copied.last].into_iter().find_map(|at| {
            let set = codecs::copies(value, columns.times[at]?);
            (set != 0).then_some((at, set))
        });
        let Some((at, set)) = found else {
            copied.trust -= TRUST_LOST;
            return None;
        };
        (copied.trust, copied.last) = ((copied.trust + 1).min(TRUST_MAX), at);
        let column = MAPPED.iter().position(|mapped| mapped.column == TIMES[at])?;
        self.key.extend_from_slice(&[TAG, b'=', column as u8, 0]);
        self.codecs.push(Codecs::of(set));
        Some(())
    }

    fn word(&mut self, text: &[u8], start: usize, word: &[u8]) -> Option<usize> {
        text[start..].starts_with(word).then(|| self.key.extend_from_slice(word))?;
        Some(start + word.len())
    }

    /// Cuts the value of the column `MAPPED[at]`.
    fn column(&mut self, text: &[u8], start: usize, at: usize, columns: &Columns<'_>) -> Option<usize> {
        if !columns.has(at) {
            return self.word(text, start, b"null");
        }
        if self.found >> at & 1 == 1 {
            return None;
        }
        self.found |= 1 << at;
        let mapped = &MAPPED[at];
        let (codecs, end) = match mapped.kind {
            Kind::Text => {
                let end = string_end(text, start)?;
                (Codecs::of(codecs::styles(&text[start + 1..end - 1])), end)
            }
            Kind::List if text.get(start) == Some(&b'[') => {
                let (codecs, length) = Codecs::of_list(&text[start..])?;
                (codecs, start + length)
            }
            Kind::List => return None,
            Kind::Integer => {
                let end = value_end(text, start)?;
                codecs::is_integer(&text[start..end]).then_some((Codecs::ALL, end))?
            }
            Kind::Json => {
                let body = match mapped.column {
                    index::REQUEST_OBJECT => columns.request_object,
                    index::RESPONSE_OBJECT => columns.response_object,
                    _ => None,
                };
                let end = match body {
                    Some(body) => text[start..].starts_with(body).then_some(start + body.len())?,
                    None => value_end(text, start)?,
                };
                (Codecs::ALL, end)
            }
            Kind::Time => {
                let end = value_end(text, start)?;
                (Codecs::of(codecs::times(&text[start..end])), end)
            }
        };
        if codecs.is_empty() {
            return None;
        }
        self.key.extend_from_slice(&[TAG, b'c', at as u8, self.regions as u8]);
        self.codecs.push(codecs);
        Some(end)
    }
}

fn fits(text: &[u8], place: Place) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| item_fits(text, place))
}

/// The name of a member, and the position of its column in [`MAPPED`].
type Named = (&'static [u8], usize);

/// The members that have columns: first those of the event, and then those of each of
/// [`CONTAINERS`]. The members of an object are grouped by the lengths of their names.
static MEMBERS: LazyLock<[Vec<Vec<Named>>; 1 + CONTAINERS.len()]> = LazyLock::new(|| {
    std::array::from_fn(|object| {
        let inside = object.checked_sub(1).map(|at| CONTAINERS[at]);
        let mut members: Vec<Vec<Named>> = Vec::new();
        for (at, mapped) in MAPPED.iter().enumerate().filter(|(_, mapped)| mapped.inside == inside) {
            let name = mapped.member.as_bytes();
            members.resize(members.len().max(name.len() + 1), Vec::new());
            members[name.len()].push((name, at));
        }
        members
    })
});

/// Returns the column of the member `name` of the event, or of the object `CONTAINERS[inside]`.
fn column_of(inside: Option<usize>, name: &[u8]) -> Option<usize> {
    let members = &MEMBERS[inside.map_or(0, |at| at + 1)];
    members.get(name.len())?.iter().find(|(own, _)| *own == name).map(|(_, at)| *at)
}

fn level_column() -> Option<usize> {
    MAPPED.iter().position(|mapped| mapped.column == index::LEVEL)
}

/// Returns the extent of the string literal in `text`, if only white space is around it.
fn literal(text: &[u8]) -> Option<(usize, usize)> {
    let start = skip_white(text, 0);
    if text.get(start) != Some(&b'"') {
        return None;
    }
    let end = crate::tape::trim_white(text, text.len());
    (end > start + 1 && text[end - 1] == b'"').then_some((start, end))
}

/// Returns the text of `literal`, a string with its quotes, without the escapes.
fn unescaped(literal: &[u8]) -> Option<Cow<'_, str>> {
    let content = &literal[1..literal.len() - 1];
    if memchr::memchr(b'\\', content).is_none() {
        return std::str::from_utf8(content).ok().map(Cow::Borrowed);
    }
    swar::unescaped(literal).map(Cow::Owned)
}

/// Returns the end of the value at `start`.
fn value_end(text: &[u8], start: usize) -> Option<usize> {
    match text.get(start)? {
        b'"' => string_end(text, start),
        b'{' | b'[' => {
            let (mut at, mut open) = (start, 0_usize);
            loop {
                match text.get(at)? {
                    b'"' => {
                        at = string_end(text, at)?;
                        continue;
                    }
                    b'{' | b'[' => open += 1,
                    b'}' | b']' => {
                        open -= 1;
                        if open == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
        }
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n');
            let length = text[start..].iter().position(ends)?;
            (length > 0).then_some(start + length)
        }
    }
}

/// Maximum number of members on the path to an event.
const STEPS_MAX: usize = 6;

/// Finds the event in a record: the first object that has a member for every column that is not
/// null in the row.
pub(super) fn locate(record: &[u8], columns: &Columns<'_>) -> Option<Location> {
    let level = level_column()?;
    let mut needed: Vec<&'static str> = Vec::new();
    for (at, mapped) in MAPPED.iter().enumerate() {
        let name = mapped.inside.unwrap_or(mapped.member);
        if columns.has(at) && at != level && !needed.contains(&name) {
            needed.push(name);
        }
    }
    let mut search = Search { needed, needs_level: columns.has(level), location: Location::default() };
    search.text(record, 0)?;
    Some(search.location)
}

struct Search {
    needed: Vec<&'static str>,
    needs_level: bool,
    location: Location,
}

impl Search {
    fn text(&mut self, text: &[u8], regions: usize) -> Option<()> {
        if let Some((start, end)) = literal(text) {
            return self.string(&text[start..end], regions);
        }
        self.object(text, memchr::memchr(b'{', text)?, regions)
    }

    fn string(&mut self, literal: &[u8], regions: usize) -> Option<()> {
        if regions == FORM_REGIONS_MAX || memchr::memchr(b'{', literal).is_none() {
            return None;
        }
        self.text(unescaped(literal)?.as_bytes(), regions + 1)
    }

    fn object(&mut self, text: &[u8], start: usize, regions: usize) -> Option<()> {
        let members = members(text, start)?;
        let value =
            |name: &str| members.iter().find(|(own, _)| *own == name.as_bytes()).map(|(_, value)| *value);
        if self.needed.iter().all(|name| value(name).is_some()) {
            let own = value("level").filter(|level| *level != LEVEL_REPLACED.as_bytes());
            let elsewhere = LEVEL_MEMBERS.into_iter().find(|name| value(name).is_some());
            match (self.needs_level, own, elsewhere) {
                (true, None, None) if value("level").is_none() => {}
                (true, None, Some(name)) => {
                    self.location.level = Some(name);
                    return Some(());
                }
                _ => return Some(()),
            }
        }
        if self.location.path.len() == STEPS_MAX {
            return None;
        }
        for (name, value) in members {
            self.location.path.push(name.to_vec());
            let found = match value.first() {
                Some(b'{') => self.object(value, 0, regions),
                Some(b'"') => self.string(value, regions),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
            self.location.path.pop();
        }
        None
    }
}

/// Returns the names and the values of the members of the object at `start`.
fn members(text: &[u8], start: usize) -> Option<Vec<(&[u8], &[u8])>> {
    let mut members = Vec::new();
    walk(text, start, |name, value| {
        let end = value_end(text, value)?;
        members.push((name, &text[value..end]));
        Some(end)
    })?;
    Some(members)
}

/// Passes the name of each member of the object at `start`, and where its value begins, to `member`,
/// which returns where the value ends. Returns the position of the object's closing brace.
fn walk<'t>(
    text: &'t [u8],
    start: usize,
    mut member: impl FnMut(&'t [u8], usize) -> Option<usize>,
) -> Option<usize> {
    let mut at = skip_white(text, start + 1);
    if text.get(at) == Some(&b'}') {
        return Some(at);
    }
    loop {
        let name_end = string_end(text, at)?;
        let name = &text[at + 1..name_end - 1];
        let colon = skip_white(text, name_end);
        if text.get(colon) != Some(&b':') {
            return None;
        }
        let end = member(name, skip_white(text, colon + 1))?;
        at = skip_white(text, end);
        match text.get(at)? {
            b',' => at = skip_white(text, at + 1),
            b'}' => return Some(at),
            _ => return None,
        }
    }
}
