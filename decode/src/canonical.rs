//! Reads a *canonical* line, one that is written as kube-apiserver writes it, from left to right.
//!
//! Most lines are canonical, and most of their values (the user, the addresses, the annotations)
//! have occurred before in the block. So the reader tokenises as little as possible. It expects the
//! text of each key where the key must be, guesses where a value ends by searching for the text
//! that follows it, and looks the text of the value up in a memo. A new value is parsed on its own,
//! by the same code that reads it as part of a whole line. Request and response bodies are always
//! parsed.
//!
//! Why a guess is safe: a line is accepted only if it consists, from the first byte to the last, of
//! the literal text of the keys and of values that are each one whole JSON value. JSON's grammar is
//! unambiguous, so this is the only reading of the line. A guess that cut a value short or long
//! leaves text that is not a JSON value, and the line goes to the general reader. So does a line
//! that is not in the format that [`crate::render`] writes. A row pushed here therefore needs no
//! `raw`.
//!
//! Only the memos of [`crate::rows`] are kept between lines; after a crash, the block is read
//! again.

use std::sync::LazyLock;

use memchr::memmem::{Finder, FinderRev};
use strongroom_lines::{may_hold_nested, time};
use strongroom_schemas::{Level, Stage};

use crate::columns::{DictColumn, Memo, NULL};
use crate::document::{Document, Stop};
use crate::render::{go_string, is_plain};
use crate::rows::{
    NO_ANNOTATIONS, NO_OBJECT, NO_STATUS, NO_USER, OBJECT_NAMES, OBJECT_VERSION, ObjectKeys, Place, Row,
    Rows, StatusKeys,
};
use crate::tape::{Member, Parser};

static SOURCE_IPS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#","sourceIPs":["#));
static IMPERSONATED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#","impersonatedUser":{"#));
static CODE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#","code":"#));
static RESPONSE_OBJECT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#","responseObject":"#));
static RECEIVED: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(RECEIVED_KEY));
const RECEIVED_KEY: &[u8; 29] = br#","requestReceivedTimestamp":""#;
/// Pushes the row of a canonical line. Returns `false` if the general reader must read the line.
pub(crate) fn push(rows: &mut Rows, line: &[u8], place: &Place<'_>, fragments: &mut Parser) -> bool {
    let Some(row) = read(rows, line, fragments) else { return false };
    rows.push(&row, place, line);
    true
}

/// Returns the row of a canonical line. `None` if the general reader must read the line.
pub(crate) fn read<'l>(rows: &mut Rows, line: &'l [u8], fragments: &mut Parser) -> Option<Row<'l>> {
    let mut cursor = Cursor { line, at: 0 };
    let has_default_shape = cursor.eat(br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":""#);
    if !has_default_shape {
        cursor.expect(br#"{"level":""#)?;
    }
    let level = rows.level.known(cursor.string()?, &Level::ALL.map(Level::as_str))?;
    cursor.expect(br#","auditID":""#)?;
    let audit_id = cursor.string()?;
    // An audit ID seldom occurs twice, so it is checked here and not looked up in a memo. The loop
    // has no early exit, so that it is vectorised.
    if !audit_id.iter().fold(true, |all, byte| all & (byte.is_ascii_alphanumeric() | (*byte == b'-'))) {
        return None;
    }
    cursor.expect(br#","stage":""#)?;
    let stage = rows.stage.known(cursor.string()?, &Stage::ALL.map(Stage::as_str))?;
    cursor.expect(br#","requestURI":""#)?;
    let request_uri = string(cursor.string()?, &mut rows.uris, &mut rows.request_uri)?;
    cursor.expect(br#","verb":""#)?;
    let verb = string(cursor.string()?, &mut rows.verbs, &mut rows.verb)?;

    cursor.expect(br#","user":"#)?;
    let rest = cursor.rest();
    let ips_at = SOURCE_IPS.find(rest)?;
    let (mut user_text, mut impersonated) = (&rest[..ips_at], None);
    let user = match rows.users.get(user_text) {
        Ok(keys) => keys,
        Err(_) => {
            if let Some(at) = IMPERSONATED.find(user_text) {
                let text = &user_text[at + br#","impersonatedUser":"#.len()..];
                user_text = &user_text[..at];
                let keys = rows.impersonated.get(text).ok();
                impersonated =
                    Some(keys.or_else(|| object(text, fragments, |d, m| rows.impersonated_user(d, m)))?);
            }
            let keys = rows.users.get(user_text).ok();
            keys.or_else(|| object(user_text, fragments, |d, m| rows.user(d, m)))?
        }
    };
    let impersonated = match impersonated {
        Some(keys) if !keys.canonical => return None,
        Some(keys) => keys,
        None => NO_USER,
    };
    cursor.at += ips_at + br#","sourceIPs":"#.len();
    let ips_text = cursor.until(b']')?;
    let ips = rows.ips.get(ips_text).ok();
    let ips = ips.or_else(|| fragment(ips_text, fragments, |d, m| rows.source_ips(d, m)))?;

    let user_agent = if cursor.eat(br#","userAgent":""#) {
        string(cursor.string()?, &mut rows.agents, &mut rows.user_agent)?
    } else {
        NULL
    };
    let (mut reference, mut resource_version) = (NO_OBJECT, None);
    if cursor.eat(br#","objectRef":"#) {
        // The object is flat, so its first closing brace ends it. If that brace is inside a string,
        // the text up to it is not JSON, and the line goes to the general reader.
        let text = cursor.until(b'}')?;
        (reference, resource_version) = object_ref(rows, text, fragments)?;
    }
    let mut status = NO_STATUS;
    if cursor.eat(br#","responseStatus":"#) {
        status = match cursor.bare_code() {
            Some(code) => StatusKeys { code: Some(code), ..NO_STATUS },
            None => {
                let text = cursor.status()?;
                let keys = rows.statuses.get(text).ok();
                keys.or_else(|| object(text, fragments, |d, m| rows.response_status(d, m)))?
            }
        };
    }
    let (mut request_object, mut response_object) = (None, None);
    if !cursor.rest().starts_with(RECEIVED_KEY) {
        let mut bodies = &cursor.rest()[..RECEIVED.rfind(cursor.rest())?];
        cursor.at += bodies.len();
        if let Some(text) = bodies.strip_prefix(br#","requestObject":"#) {
            let end = RESPONSE_OBJECT.find(text).unwrap_or(text.len());
            request_object = Some(body(&text[..end], fragments)?);
            bodies = &text[end..];
        }
        if let Some(text) = bodies.strip_prefix(br#","responseObject":"#) {
            response_object = Some(body(text, fragments)?);
        } else if !bodies.is_empty() {
            return None;
        }
    }
    cursor.expect(RECEIVED_KEY)?;
    let received_text = cursor.timestamp()?;
    let received = time::parse_canonical(received_text)?;
    cursor.expect(br#"","stageTimestamp":""#)?;
    let stage_time = time::parse_canonical_near(cursor.timestamp()?, received_text, received)?;
    cursor.expect(br#"""#)?;
    let mut annotations = NO_ANNOTATIONS;
    if cursor.eat(br#","annotations":"#) {
        let text = cursor.rest().strip_suffix(b"}")?;
        cursor.at = line.len() - 1;
        let keys = rows.annotation_sets.get(text).ok();
        annotations = keys.or_else(|| object(text, fragments, |d, m| rows.annotations(d, m)))?;
    }
    if cursor.rest() != b"}" || !(user.canonical && ips.canonical && reference.canonical && status.canonical)
    {
        return None;
    }
    Some(Row {
        audit_id: Some(audit_id),
        stage,
        level,
        verb,
        request_uri,
        user_agent,
        user,
        impersonated,
        source_ips: ips.list,
        object: reference,
        resource_version,
        status,
        request_object,
        response_object,
        annotations,
        received: Some(received),
        stage_time: Some(stage_time),
        raw: None,
        shape: if has_default_shape { NULL } else { rows.shape.dictionary.intern("") },
        faults: NULL,
    })
}

struct Cursor<'l> {
    line: &'l [u8],
    at: usize,
}

impl<'l> Cursor<'l> {
    fn rest(&self) -> &'l [u8] {
        &self.line[self.at..]
    }

    /// Skips `text` if it comes next, and returns whether it did. Inlined, so that a text of known
    /// length is compared with a few wide loads.
    #[inline(always)]
    fn eat<const N: usize>(&mut self, text: &[u8; N]) -> bool {
        let eaten = self.rest().first_chunk() == Some(text);
        if eaten {
            self.at += N;
        }
        eaten
    }

    #[inline(always)]
    fn expect<const N: usize>(&mut self, text: &[u8; N]) -> Option<()> {
        self.eat(text).then_some(())
    }

    /// Returns the text between the quotes of a string whose opening quote was just eaten. `None`
    /// if the text up to the next quote ends in a backslash, or if there is no other quote.
    fn string(&mut self) -> Option<&'l [u8]> {
        let rest = self.rest();
        let end = memchr::memchr(b'"', rest)?;
        if end > 0 && rest[end - 1] == b'\\' {
            return None;
        }
        self.at += end + 1;
        Some(&rest[..end])
    }

    /// Returns the text up to and including the next `mark`.
    fn until(&mut self, mark: u8) -> Option<&'l [u8]> {
        let rest = self.rest();
        let end = memchr::memchr(mark, rest)? + 1;
        self.at += end;
        Some(&rest[..end])
    }

    /// Returns the text of a `responseStatus` whose last member is its code.
    fn status(&mut self) -> Option<&'l [u8]> {
        let rest = self.rest();
        let mut end = CODE.find(rest)? + br#","code":"#.len();
        while rest.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
        if rest.get(end) != Some(&b'}') {
            return None;
        }
        self.at += end + 1;
        Some(&rest[..=end])
    }

    /// Returns the code of a `responseStatus` that has only a code. Nearly every successful request
    /// has such a status.
    fn bare_code(&mut self) -> Option<i32> {
        const KEY: &[u8; 22] = br#"{"metadata":{},"code":"#;
        let text: &[u8; KEY.len() + 4] = self.rest().first_chunk()?;
        let [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9', b'}'] = text[KEY.len()..] else { return None };
        if text.first_chunk() != Some(KEY) {
            return None;
        }
        self.at += text.len();
        Some(text[KEY.len()..KEY.len() + 3].iter().fold(0, |code, digit| code * 10 + i32::from(digit - b'0')))
    }

    fn timestamp(&mut self) -> Option<&'l [u8; time::CANONICAL_BYTES]> {
        let text = self.rest().first_chunk()?;
        self.at += text.len();
        Some(text)
    }
}

/// Returns the key of the string whose text between the quotes is `text`. `None` if Go would write
/// that string in another way.
///
/// The dictionary itself remembers text that needs no escapes; `memo` remembers other text.
fn string(text: &[u8], memo: &mut Memo<i32>, column: &mut DictColumn) -> Option<i32> {
    let hash = match column.dictionary.plain(text) {
        Ok(key) => return Some(key),
        Err(hash) => hash,
    };
    if is_plain(text) {
        return Some(column.dictionary.insert(hash, std::str::from_utf8(text).ok()?, true));
    }
    if let Some(key) = memo.find(hash, text) {
        return Some(key);
    }
    let quoted = [b"\"", text, b"\""].concat();
    let value: String = serde_json::from_slice(&quoted).ok()?;
    let mut written = Vec::with_capacity(quoted.len());
    go_string(&value, &mut written);
    if written != quoted {
        return None;
    }
    let key = column.dictionary.intern(&value);
    memo.insert(hash, text, key);
    Some(key)
}

/// Returns the keys of the columns of an `objectRef`, and its `resourceVersion`.
///
/// Versions seldom occur twice. Go writes the version last for most objects. For these the memo
/// remembers only the text before the version. That text has no closing brace, so it differs from
/// the text of every whole `objectRef`.
fn object_ref<'l>(
    rows: &mut Rows,
    text: &'l [u8],
    fragments: &mut Parser,
) -> Option<(ObjectKeys, Option<&'l [u8]>)> {
    let unversioned = version_at_end(text);
    let hash = match rows.objects.get(unversioned.map_or(text, |(rest, _)| rest)) {
        Ok((keys, _)) if let Some((_, version)) = unversioned => return Some((keys, Some(version))),
        Ok((keys, (start, end))) => return Some((keys, (end > 0).then(|| &text[start..end]))),
        Err(hash) => hash,
    };
    if let Some((keys, at)) = plain_object_ref(rows, text) {
        match unversioned {
            Some((rest, _)) => rows.objects.insert(hash, rest, (keys, (0, 0))),
            None => rows.objects.insert(hash, text, (keys, at)),
        }
        return Some((keys, (at.1 > 0).then(|| &text[at.0..at.1])));
    }
    let known = rows.objects.get(text);
    let (keys, (start, end)) = match known {
        Ok(known) => known,
        Err(_) => {
            object(text, fragments, |d, m| rows.object_ref(d, m).map(|_| ()))?;
            rows.objects.get(text).ok()?
        }
    };
    Some((keys, (end > 0).then(|| &text[start..end])))
}

/// If an `objectRef` ends with its version, returns the text before the version, and the version.
fn version_at_end(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_suffix(br#""}"#)?;
    let digits = inner.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, version) = inner.split_at(inner.len() - digits);
    let rest = before.strip_suffix(br#","resourceVersion":""#)?;
    (digits > 0).then_some((rest, version))
}

/// Reads an `objectRef` whose strings have no escapes and whose members are in order. Returns the
/// keys of its columns and the extent of its version, which is `(0, 0)` if there is none.
fn plain_object_ref(rows: &mut Rows, text: &[u8]) -> Option<(ObjectKeys, (usize, usize))> {
    let mut cursor = Cursor { line: text, at: 1 };
    let mut values = [None; OBJECT_NAMES.len()];
    let mut version = (0, 0);
    for (at, name) in OBJECT_NAMES.iter().enumerate() {
        let rest = cursor.rest().strip_prefix(b"\"").and_then(|rest| rest.strip_prefix(name.as_bytes()));
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix(b"\":\"")) else { continue };
        cursor.at = text.len() - rest.len();
        let value = cursor.string()?;
        values[at] = Some(value);
        if at == OBJECT_VERSION {
            // An empty version cannot be distinguished from an absent one.
            let is_readable = !value.is_empty() && is_plain(value) && std::str::from_utf8(value).is_ok();
            version = is_readable.then_some((cursor.at - 1 - value.len(), cursor.at - 1))?;
        }
        if cursor.eat(b"}") {
            break;
        }
        cursor.expect(b",")?;
    }
    if text.first() != Some(&b'{') || text.last() != Some(&b'}') || cursor.at != text.len() {
        return None;
    }
    let key = |at: usize, column: &mut DictColumn| match values[at] {
        Some(value) => plain_string(value, column),
        None => Some(NULL),
    };
    let keys = ObjectKeys {
        resource: key(0, &mut rows.resource)?,
        namespace: key(1, &mut rows.namespace)?,
        name: key(2, &mut rows.name)?,
        uid: key(3, &mut rows.object_uid)?,
        api_group: key(4, &mut rows.api_group)?,
        api_version: key(5, &mut rows.api_version)?,
        subresource: key(7, &mut rows.subresource)?,
        canonical: true,
    };
    Some((keys, version))
}

/// Like [`string`], but only for text that needs no escapes.
fn plain_string(text: &[u8], column: &mut DictColumn) -> Option<i32> {
    let hash = match column.dictionary.plain(text) {
        Ok(key) => return Some(key),
        Err(hash) => hash,
    };
    let value = std::str::from_utf8(text).ok().filter(|value| is_plain(value.as_bytes()))?;
    Some(column.dictionary.insert(hash, value, true))
}

/// Reads a value on its own, with the code that reads it as a member of a line.
fn fragment<T>(
    text: &[u8],
    fragments: &mut Parser,
    read: impl FnOnce(&Document<'_, '_>, &Member) -> Result<T, Stop>,
) -> Option<T> {
    let parsed = fragments.parse(text, |nodes, base| {
        let member = Member { key_at: 0, key_len: 0, node: 0, start: 0, end: text.len() };
        read(&Document { nodes, base, line: text }, &member)
    });
    parsed.ok()?.ok()
}

fn object<T>(
    text: &[u8],
    fragments: &mut Parser,
    read: impl FnOnce(&Document<'_, '_>, &Member) -> Result<T, Stop>,
) -> Option<T> {
    if text.first() != Some(&b'{') || text.last() != Some(&b'}') {
        return None;
    }
    fragment(text, fragments, read)
}

/// Returns the text of a body, if it is one JSON value without white space around it. `null`, and a
/// string that may contain a body, are left to the general reader.
fn body<'l>(text: &'l [u8], fragments: &mut Parser) -> Option<&'l [u8]> {
    let is_white = |byte: Option<&u8>| byte.is_none_or(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    if is_white(text.first()) || is_white(text.last()) || text == b"null" || may_hold_nested(text) {
        return None;
    }
    fragments.parse(text, |_, _| ()).ok()?;
    Some(text)
}
