//! Reads the members of an object one by one, so that a member that cannot be read does not affect
//! the others.
//!
//! Quotes and brackets alone decide where a member ends. The member's text is judged after its end
//! is known. A member that is JSON but cannot be read (nested too deeply, not UTF-8, of another
//! type) is a *fault*, and the next member is read. Text that is not JSON is a *break* and ends the
//! reading, because nothing says how the bytes after it belong together. A client may have chosen
//! these bytes, so none of them is used.
//!
//! Invariants: a break does not change what is read of the members before it. The work is linear in
//! the text, and nothing recurses. The module uses no code of the fast decoder in
//! `strongroom-decode`, which must read the same as this module. No state.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use strongroom_schemas::marks::{FAULTS_MAX, Unread, fault_text};

use crate::json::{Members, depth};
use crate::time;

/// The pointer of the event itself.
pub(crate) const EVENT: &str = "";

/// What could not be read of one event.
#[derive(Default)]
pub(crate) struct Faults(BTreeSet<String>);

impl Faults {
    pub(crate) fn add(&mut self, path: &str, unread: Unread) {
        self.0.insert(fault_text(path, unread));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces a fault of the event itself with another one.
    pub(crate) fn replace(&mut self, old: Unread, new: Unread) {
        if self.0.remove(&fault_text(EVENT, old)) {
            self.add(EVENT, new);
        }
    }

    /// Returns the texts of the faults, sorted, at most [`FAULTS_MAX`]; `None` if there is none.
    pub(crate) fn into_texts(self) -> Option<Vec<String>> {
        (!self.0.is_empty()).then(|| self.0.into_iter().take(FAULTS_MAX).collect())
    }
}

/// An object whose members are read.
pub(crate) struct Object<'t> {
    /// The JSON pointer of the object.
    path: String,
    /// Names without escapes, and values; `None` stands for a value that cannot be read.
    members: Vec<(Cow<'t, str>, Option<&'t str>)>,
}

/// What was read from a text.
pub(crate) struct Text<'t> {
    pub(crate) object: Object<'t>,
    pub(crate) faults: Faults,
    /// The text ends, or is not JSON, before the object's end.
    pub(crate) is_cut: bool,
}

impl<'t> Text<'t> {
    /// Makes a text without faults of an object that is JSON and whose names can be read.
    pub(crate) fn strict(members: &Members<'t>) -> Text<'t> {
        let members = members.0.iter().map(|(name, value)| (name.clone(), Some(value.get()))).collect();
        let object = Object { path: EVENT.to_owned(), members };
        Text { object, faults: Faults::default(), is_cut: false }
    }
}

/// Reads the object in `bytes`, to its end or to a break. A fault of a member gets the member's
/// pointer if `has_pointer` is true for its name, otherwise the event's pointer. Returns `None` if
/// the bytes do not begin with an object, or if something follows the object.
pub(crate) fn read(bytes: &[u8], depth_max: usize, has_pointer: impl Fn(&str) -> bool) -> Option<Text<'_>> {
    let mut scanner = Scanner::of(bytes)?;
    let mut faults = Faults::default();
    let mut members = Vec::new();
    let is_cut = loop {
        let (name, value, depth) = match scanner.step() {
            Step::Member { name, value, depth } => (name, value, depth),
            Step::End if scanner.is_at_end() => break false,
            Step::End => return None,
            Step::Break => break true,
        };
        let name = match name_of(name) {
            Ok(name) => Some(name),
            Err(Unread::NotJson) => break true,
            Err(unread) => {
                faults.add(EVENT, unread);
                None
            }
        };
        let path = match &name {
            Some(name) if has_pointer(name) => pointer(EVENT, name),
            _ => EVENT.to_owned(),
        };
        let value = match judged(value, depth, depth_max) {
            Ok(text) => Some(text),
            Err(unread) => {
                faults.add(&path, unread);
                if unread == Unread::NotJson {
                    break true;
                }
                None
            }
        };
        members.extend(name.map(|name| (name, value)));
    };
    if is_cut {
        faults.add(EVENT, Unread::NotJson);
    }
    Some(Text { object: Object { path: EVENT.to_owned(), members }, faults, is_cut })
}

/// Returns a member's name without its escapes.
fn name_of(text: &[u8]) -> Result<Cow<'_, str>, Unread> {
    let text = judged(text, 0, usize::MAX)?;
    let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(inner));
    }
    // A string whose escapes are JSON is readable unless it has a lone surrogate.
    serde_json::from_str(text).map(Cow::Owned).map_err(|_| Unread::NotUtf8)
}

/// Returns the text of a value, or why it cannot be read. If a value is not UTF-8, its end may
/// still be known. So the value is first checked as JSON whose strings may contain any bytes above
/// ASCII, and then as UTF-8.
fn judged(value: &[u8], depth: usize, depth_max: usize) -> Result<&str, Unread> {
    // This parser skips values without recursion, and does not check their encoding.
    serde_json::from_slice::<IgnoredAny>(value).map_err(|_| Unread::NotJson)?;
    let text = std::str::from_utf8(value).map_err(|_| Unread::NotUtf8)?;
    if depth > depth_max { Err(Unread::TooDeep) } else { Ok(text) }
}

/// Returns the JSON pointer of a member.
fn pointer(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

impl<'t> Object<'t> {
    /// Returns an object without members.
    pub(crate) fn empty() -> Object<'t> {
        Object { path: EVENT.to_owned(), members: Vec::new() }
    }

    /// Returns the value of the last member with this name; `None` if there is none, if it is null,
    /// or if it cannot be read.
    pub(crate) fn value(&self, name: &str) -> Option<&'t str> {
        let (_, value) = self.members.iter().rev().find(|(known, _)| known == name)?;
        value.filter(|value| *value != "null")
    }

    /// Returns true if there is a member with this name, perhaps one that is null or cannot be read.
    pub(crate) fn is_there(&self, name: &str) -> bool {
        self.members.iter().any(|(known, _)| known == name)
    }

    /// Takes the members `names` as unreadable where they are nested deeper than `depth_max`.
    pub(crate) fn drop_deep(&mut self, names: &[&str], depth_max: usize, faults: &mut Faults) {
        for name in names {
            let last = self.members.iter_mut().rev().find(|(known, _)| known == name);
            let Some((_, value)) = last else { continue };
            if value.is_some_and(|text| depth(text.as_bytes()) > depth_max) {
                *value = None;
                faults.add(&pointer(&self.path, name), Unread::TooDeep);
            }
        }
    }

    /// Returns the members that can be read.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (&str, &'t str)> + Clone {
        self.members.iter().filter_map(|(name, value)| Some((name.as_ref(), (*value)?)))
    }

    /// Returns the object with these members. A value replaces the last value of the same name; if
    /// there is no member of that name, one is added.
    pub(crate) fn with<'s>(self, values: &'s [(&'static str, String)]) -> Object<'s>
    where
        't: 's,
    {
        let mut members: Vec<(Cow<'s, str>, Option<&'s str>)> = self.members;
        for (name, value) in values {
            match members.iter_mut().rev().find(|(known, _)| known == name) {
                Some(member) => member.1 = Some(value),
                None => members.push((Cow::Borrowed(name), Some(value))),
            }
        }
        Object { path: self.path, members }
    }

    /// Calls `judge` with the members for which `is_known` is false, and returns its first refusal. A
    /// value that cannot be read is `None`.
    pub(crate) fn judge_others<T>(
        &self,
        is_known: impl Fn(&str) -> bool,
        judge: &dyn Fn(&str, Option<&str>) -> Option<T>,
    ) -> Option<T> {
        self.members.iter().filter(|(name, _)| !is_known(name)).find_map(|(name, value)| judge(name, *value))
    }

    /// Returns true if there is a member with this name and the last one is not null.
    pub(crate) fn has(&self, name: &str) -> bool {
        let last = self.members.iter().rev().find(|(known, _)| known == name);
        last.is_some_and(|(_, value)| *value != Some("null"))
    }

    /// Reports each member that occurs more than once and for whose name `is_read` is true.
    pub(crate) fn duplicates(&self, is_read: impl Fn(&str) -> bool, faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        for (name, _) in self.members.iter().filter(|(name, _)| is_read(name)) {
            if !seen.insert(name.as_ref()) {
                faults.add(&pointer(&self.path, name), Unread::DuplicateMember);
            }
        }
    }

    fn wrong(&self, name: &str, unread: Unread, faults: &mut Faults) {
        faults.add(&pointer(&self.path, name), unread);
    }

    pub(crate) fn wrong_type(&self, name: &str, faults: &mut Faults) {
        self.wrong(name, Unread::WrongType, faults);
    }

    /// Returns true if the member is a readable string.
    pub(crate) fn is_string(&self, name: &str) -> bool {
        self.plain_string(name).is_some()
    }

    /// Returns the member if it is a readable string. If it is not, no fault is reported.
    pub(crate) fn plain_string(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.value(name)?).ok()
    }

    pub(crate) fn string(&self, name: &str, faults: &mut Faults) -> Option<String> {
        string_of(self.value(name)?).map_err(|unread| self.wrong(name, unread, faults)).ok()
    }

    pub(crate) fn strings(&self, name: &str, faults: &mut Faults) -> Option<Vec<String>> {
        let items = match serde_json::from_str::<Vec<&RawValue>>(self.value(name)?) {
            Ok(items) if items.iter().all(|item| item.get().starts_with('"')) => items,
            _ => {
                self.wrong_type(name, faults);
                return None;
            }
        };
        let strings = items.into_iter().map(|item| string_of(item.get()));
        strings.collect::<Result<_, _>>().map_err(|unread| self.wrong(name, unread, faults)).ok()
    }

    /// Returns the text of a member that is an object.
    pub(crate) fn json_object(&self, name: &str, faults: &mut Faults) -> Option<String> {
        let text = self.value(name)?;
        if text.starts_with('{') {
            return Some(text.to_owned());
        }
        self.wrong_type(name, faults);
        None
    }

    /// Returns the text of a member of any type.
    pub(crate) fn any(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    pub(crate) fn code(&self, name: &str, faults: &mut Faults) -> Option<i32> {
        match self.value(name)? {
            // JSON's -0 is an integer to Go, a float to serde_json.
            "-0" => Some(0),
            code => serde_json::from_str(code).map_err(|_| self.wrong_type(name, faults)).ok(),
        }
    }

    /// Returns a time, in microseconds since 1970.
    pub(crate) fn time(&self, name: &str, faults: &mut Faults) -> Option<i64> {
        let text = self.value(name)?;
        let found = if text.starts_with('"') {
            string_of(text).and_then(|text| time::parse(&text).ok_or(Unread::NotATime))
        } else if text.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
            time::of_number(text).ok_or(Unread::NotATime)
        } else {
            Err(Unread::WrongType)
        };
        found.map_err(|unread| self.wrong(name, unread, faults)).ok()
    }

    /// Returns the member that is an object; `None` if it is absent, null, or not one.
    pub(crate) fn object(&self, name: &str, faults: &mut Faults) -> Option<Object<'t>> {
        let text = self.value(name)?;
        let path = pointer(&self.path, name);
        let object = Object::of(text, path.clone(), faults);
        if object.is_none() {
            faults.add(&path, Unread::WrongType);
        }
        object
    }

    /// Reads a text that is JSON; `None` if it is not an object.
    pub(crate) fn of(text: &'t str, path: String, faults: &mut Faults) -> Option<Object<'t>> {
        let mut scanner = Scanner::of(text.as_bytes())?;
        let mut members = Vec::new();
        // The text is JSON, so each step is a member or the end, and each slice is text.
        while let Step::Member { name, value, .. } = scanner.step() {
            match (name_of(name), std::str::from_utf8(value)) {
                (Ok(name), Ok(value)) => members.push((name, Some(value))),
                _ => faults.add(EVENT, Unread::NotUtf8),
            }
        }
        Some(Object { path, members })
    }
}

fn string_of(text: &str) -> Result<String, Unread> {
    if !text.starts_with('"') {
        return Err(Unread::WrongType);
    }
    // The text is JSON, so a string that cannot be read has a lone surrogate.
    serde_json::from_str(text).map_err(|_| Unread::NotUtf8)
}

/// Finds the members of an object.
struct Scanner<'t> {
    bytes: &'t [u8],
    at: usize,
    is_first: bool,
}

enum Step<'t> {
    /// A member whose end was found. `name` includes its quotes. `depth` is the largest number of
    /// brackets that are open at once, including the object's own.
    Member { name: &'t [u8], value: &'t [u8], depth: usize },
    /// The object's closing brace.
    End,
    /// The text ends, or is not JSON from here on.
    Break,
}

impl<'t> Scanner<'t> {
    /// Returns a scanner for the object that `bytes` begin with; `None` if they begin with
    /// something else.
    fn of(bytes: &'t [u8]) -> Option<Scanner<'t>> {
        let mut scanner = Scanner { bytes, at: 0, is_first: true };
        scanner.skip_white();
        scanner.eat(b'{').then_some(scanner)
    }

    fn skip_white(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    /// Returns true if only white space follows.
    fn is_at_end(&mut self) -> bool {
        self.skip_white();
        self.at == self.bytes.len()
    }

    fn step(&mut self) -> Step<'t> {
        self.skip_white();
        if self.eat(b'}') {
            return Step::End;
        }
        if !std::mem::take(&mut self.is_first) {
            if !self.eat(b',') {
                return Step::Break;
            }
            self.skip_white();
        }
        self.member().unwrap_or(Step::Break)
    }

    fn member(&mut self) -> Option<Step<'t>> {
        let begin = self.at;
        self.at = string_end(self.bytes, begin)?;
        let name = self.bytes.get(begin..self.at)?;
        self.skip_white();
        if !self.eat(b':') {
            return None;
        }
        self.skip_white();
        let begin = self.at;
        let (end, depth) = value_end(self.bytes, begin)?;
        self.at = end;
        Some(Step::Member { name, value: self.bytes.get(begin..end)?, depth: depth + 1 })
    }
}

/// Returns the end of the value that begins at `at`, and how deeply the value is nested.
pub(crate) fn value_end(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    match bytes.get(at)? {
        b'"' => Some((string_end(bytes, at)?, 0)),
        b'{' | b'[' => nested_end(bytes, at),
        _ => {
            let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            Some((at + bytes.get(at..)?.iter().position(is_end)?, 0))
        }
    }
}

/// Returns the items of an `EventList`, as text that is JSON but perhaps not UTF-8. `None` if the
/// bytes are not such a list.
pub fn list_items(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    serde_json::from_slice::<IgnoredAny>(bytes).ok()?;
    let mut scanner = Scanner::of(bytes)?;
    let (mut kind, mut items) = (None, None);
    while let Step::Member { name, value, .. } = scanner.step() {
        match name_of(name).ok()?.as_ref() {
            "kind" => kind = Some(value),
            "items" => items = Some(value),
            _ => {}
        }
    }
    if kind != Some(b"\"EventList\"") {
        return None;
    }
    let Some(list) = items.filter(|items| *items != b"null") else { return Some(Vec::new()) };
    let mut rest = Scanner { bytes: list, at: 0, is_first: true };
    let mut found = Vec::new();
    if !rest.eat(b'[') {
        return None;
    }
    loop {
        rest.skip_white();
        if rest.eat(b']') {
            return Some(found);
        }
        if !found.is_empty() {
            rest.eat(b',');
            rest.skip_white();
        }
        let (end, _) = value_end(list, rest.at)?;
        found.push(list.get(rest.at..end)?);
        rest.at = end;
    }
}

/// Returns the position after the closing quote of the string whose opening quote is at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    at += 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Returns the end of the object or list that begins at `at`, and how deeply it is nested.
fn nested_end(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let (mut depth, mut deepest) = (0_usize, 0);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = string_end(bytes, at)?;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some((at + 1, deepest));
                }
            }
            _ => {}
        }
        at += 1;
    }
}
