//! A line that is written as kube-apiserver writes it, read from left to right.
//!
//! Most lines are such lines, and most of what they hold was seen before in the block: the user, the
//! addresses, the annotations. So nothing is tokenised that need not be. The reader expects the text
//! of each key where it must stand, guesses where a value ends by looking for the text that follows
//! it, and looks the value's text up in a memo. A value not seen before is parsed on its own, by the
//! same code that reads it from a whole line; bodies always are.
//!
//! Why a guess is safe: a line is taken only when it is, from the first byte to the last, the literal
//! text of the keys and values each of which is a whole JSON value. JSON's grammar is unambiguous, so
//! that is then the line's only reading; a guess that cut a value short or long leaves something that
//! is no JSON value, and the line goes to the general reader. The same holds for spelling: whatever
//! is not as [`crate::render`] writes it is left to the general reader, so a row pushed here needs no
//! `raw`.

use std::sync::LazyLock;

use memchr::memmem::{Finder, FinderRev};
use strongroom_schemas::{Level, Stage};

use crate::columns::{DictColumn, Memo, NULL};
use crate::document::{Document, Stop};
use crate::render::go_string;
use crate::rows::{NO_ANNOTATIONS, NO_OBJECT, NO_STATUS, NO_USER, Place, Row, Rows};
use crate::tape::{Member, Parser};
use crate::time;

static SOURCE_IPS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#","sourceIPs":["#));
static IMPERSONATED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#","impersonatedUser":{"#));
static CODE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#","code":"#));
static RESPONSE_OBJECT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#","responseObject":"#));
static RECEIVED: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(RECEIVED_KEY));
const RECEIVED_KEY: &[u8] = br#","requestReceivedTimestamp":""#;
/// Length of a timestamp as [`time::render`] writes it.
const TIMESTAMP_BYTES: usize = 27;

/// Pushes the row of a canonical line; false when the general reader must take the line.
pub(crate) fn push(rows: &mut Rows, line: &[u8], place: &Place<'_>, fragments: &mut Parser) -> bool {
    let Some(row) = read(rows, line, fragments) else { return false };
    rows.push(&row, place);
    true
}

fn read<'l>(rows: &mut Rows, line: &'l [u8], fragments: &mut Parser) -> Option<Row<'l>> {
    let mut cursor = Cursor { line, at: 0 };
    let has_default_shape = cursor.eat(br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":""#);
    if !has_default_shape {
        cursor.expect(br#"{"level":""#)?;
    }
    let level = member_of(cursor.string()?, Level::ALL.map(Level::as_str))?;
    cursor.expect(br#","auditID":""#)?;
    let audit_id = cursor.string()?;
    // An identity is seldom seen twice, so it is judged here and not by a memo.
    if !audit_id.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
        return None;
    }
    cursor.expect(br#","stage":""#)?;
    let stage = member_of(cursor.string()?, Stage::ALL.map(Stage::as_str))?;
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
        // A flat object: its first closing brace outside a string ends it.
        let text = cursor.until(b'}')?;
        let (keys, (start, end)) = match rows.objects.get(text) {
            Ok(known) => known,
            Err(_) => {
                object(text, fragments, |d, m| rows.object_ref(d, m).map(|_| ()))?;
                rows.objects.get(text).ok()?
            }
        };
        reference = keys;
        resource_version = (end > 0).then(|| &text[start..end]);
    }
    let mut status = NO_STATUS;
    if cursor.eat(br#","responseStatus":"#) {
        let text = cursor.status()?;
        let keys = rows.statuses.get(text).ok();
        status = keys.or_else(|| object(text, fragments, |d, m| rows.response_status(d, m)))?;
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
    let received = cursor.timestamp()?;
    cursor.expect(br#"","stageTimestamp":""#)?;
    let stage_time = cursor.timestamp()?;
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
        stage: rows.stage.dictionary.intern(stage),
        level: rows.level.dictionary.intern(level),
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

    fn eat(&mut self, text: &[u8]) -> bool {
        let eaten = self.rest().starts_with(text);
        if eaten {
            self.at += text.len();
        }
        eaten
    }

    fn expect(&mut self, text: &[u8]) -> Option<()> {
        self.eat(text).then_some(())
    }

    /// The text of a string whose opening quote was just eaten, as it stands between the quotes.
    /// `None` when it ends in an escape, or never.
    fn string(&mut self) -> Option<&'l [u8]> {
        let rest = self.rest();
        let end = memchr::memchr(b'"', rest)?;
        if end > 0 && rest[end - 1] == b'\\' {
            return None;
        }
        self.at += end + 1;
        Some(&rest[..end])
    }

    /// The text up to and including the next `mark`.
    fn until(&mut self, mark: u8) -> Option<&'l [u8]> {
        let rest = self.rest();
        let end = memchr::memchr(mark, rest)? + 1;
        self.at += end;
        Some(&rest[..end])
    }

    /// The text of a `responseStatus`: it ends with its code.
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

    fn timestamp(&mut self) -> Option<i64> {
        let text = std::str::from_utf8(self.rest().get(..TIMESTAMP_BYTES)?).ok()?;
        self.at += TIMESTAMP_BYTES;
        time::parse(text).filter(|_| time::is_canonical(text))
    }
}

fn member_of<const N: usize>(text: &[u8], names: [&'static str; N]) -> Option<&'static str> {
    names.into_iter().find(|name| name.as_bytes() == text)
}

/// The key of a string by its text between quotes, when Go would spell it so.
fn string(text: &[u8], memo: &mut Memo<i32>, column: &mut DictColumn) -> Option<i32> {
    let hash = match memo.get(text) {
        Ok(key) => return Some(key),
        Err(hash) => hash,
    };
    let quoted = [b"\"", text, b"\""].concat();
    let value: String = serde_json::from_slice(&quoted).ok()?;
    let mut spelt = Vec::with_capacity(quoted.len());
    go_string(&value, &mut spelt);
    if spelt != quoted {
        return None;
    }
    let key = column.dictionary.intern(&value);
    memo.insert(hash, text, key);
    Some(key)
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

/// A body, when it is one JSON value without white space around it. `null` is left to the general reader.
fn body<'l>(text: &'l [u8], fragments: &mut Parser) -> Option<&'l [u8]> {
    let is_white = |byte: Option<&u8>| byte.is_none_or(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    if is_white(text.first()) || is_white(text.last()) || text == b"null" {
        return None;
    }
    fragments.parse(text, |_, _| ()).ok()?;
    Some(text)
}
