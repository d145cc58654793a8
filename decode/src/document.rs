//! Reads a line that simd-json has parsed, member by member.
//!
//! Invariant: this reader and [`strongroom_lines::plain`] read the same from the same bytes. Where
//! that is not certain, [`Stop`] leaves the line to the plain decoder. While a value is read, its
//! text is compared with what [`crate::render`] would write. The row can be stored without the
//! column `raw`, which has the original line, only if the texts of all values are equal to that. No
//! state.

use simd_json::{Node, StaticNode};
use strongroom_lines::{Refusal, time};

use crate::render::{self, go_string};
use crate::tape::{self, Member, Odd};

/// This reader cannot read the line. [`strongroom_lines::plain`] then decides whether the line is
/// an event, and if it is not, why it is refused.
pub(crate) struct Stop;

impl From<Refusal> for Stop {
    fn from(_: Refusal) -> Self {
        Stop
    }
}

impl From<Odd> for Stop {
    fn from(Odd: Odd) -> Self {
        Stop
    }
}

/// A parsed line: its nodes and its text.
pub(crate) struct Document<'d, 't> {
    pub(crate) nodes: &'d [Node<'t>],
    pub(crate) base: usize,
    pub(crate) line: &'d [u8],
}

impl<'d, 't> Document<'d, 't> {
    pub(crate) fn string(&self, name: &str, member: &Member) -> Result<Option<&'t str>, Refusal> {
        match &self.nodes[member.node] {
            Node::String(text) => Ok(Some(text)),
            Node::Static(StaticNode::Null) => Ok(None),
            _ => Err(Refusal::field(name, "a string")),
        }
    }

    pub(crate) fn text(&self, member: &Member) -> &'d [u8] {
        &self.line[member.start..member.end]
    }

    pub(crate) fn is_null(&self, member: &Member) -> bool {
        matches!(&self.nodes[member.node], Node::Static(StaticNode::Null))
    }

    pub(crate) fn members(&self, name: &str, member: &Member) -> Result<Vec<Member>, Stop> {
        if !matches!(&self.nodes[member.node], Node::Object { .. }) {
            return Err(Refusal::field(name, "an object").into());
        }
        let mut list = Vec::new();
        tape::members(self.nodes, self.base, self.line, member.node, member.end, &mut list)?;
        Ok(list)
    }

    pub(crate) fn strings(&self, name: &str, member: &Member) -> Result<Option<Vec<&'t str>>, Refusal> {
        let node = &self.nodes[member.node];
        match node {
            Node::Static(StaticNode::Null) => Ok(None),
            Node::Array { len, count } if len == count => {
                let items = &self.nodes[member.node + 1..member.node + 1 + count];
                let strings = items.iter().map(|item| match item {
                    Node::String(text) => Ok(*text),
                    _ => Err(Refusal::field(name, "an array of strings")),
                });
                strings.collect::<Result<_, _>>().map(Some)
            }
            _ => Err(Refusal::field(name, "an array of strings")),
        }
    }

    /// Whether the text of the value is what [`go_string`] writes for `value`.
    pub(crate) fn is_canonical_string(&self, member: &Member, value: &str) -> bool {
        let text = self.text(member);
        if text.len() == value.len() + 2 {
            // Every escape is longer than its character, so text of this length has no escapes. It
            // is canonical if it has no characters that Go would escape.
            let inner = value.as_bytes();
            return memchr::memchr3(b'<', b'>', b'&', inner).is_none()
                && (memchr::memchr(0xe2, inner).is_none()
                    || render::is_plain(inner)
                    || is_go_string(value, text));
        }
        is_go_string(value, text)
    }
}

pub(crate) fn is_go_string(value: &str, text: &[u8]) -> bool {
    let mut written = Vec::with_capacity(text.len());
    go_string(value, &mut written);
    written == text
}

/// Whether `members` follow each other without white space, in the order of `names`, from `open`
/// (right after the opening brace) to `close` (the closing brace).
pub(crate) fn is_compact(line: &[u8], members: &[Member], names: &[&str], open: usize, close: usize) -> bool {
    let (mut at, mut expected) = (open, names.iter());
    for (number, member) in members.iter().enumerate() {
        let from = if number == 0 { at } else { at + 1 };
        if member.key_at != from + 1
            || member.start != member.key_at + member.key_len + 2
            || !expected.any(|name| name.as_bytes() == member.key(line))
        {
            return false;
        }
        at = member.end;
    }
    at == close
}

/// Returns [`Stop`] if the member number `at` was seen before in the same object, so that the plain
/// decoder reads the line. `seen` has a bit for each member whose value is read.
pub(crate) fn no_duplicate(seen: &mut u8, at: usize) -> Result<(), Stop> {
    let bit = 1 << (at & 7);
    if *seen & bit != 0 {
        return Err(Stop);
    }
    *seen |= bit;
    Ok(())
}

pub(crate) struct UserFields<'t> {
    pub(crate) name: Option<&'t str>,
    pub(crate) uid: Option<&'t str>,
    pub(crate) extra: Option<&'t str>,
    pub(crate) any: bool,
}

/// Reads a `UserInfo`. Returns its fields, its groups, and whether its text is what
/// [`crate::render`] writes.
pub(crate) fn read_user<'t>(
    document: &Document<'t, 't>,
    member: &Member,
    name: &str,
    names: &[&str],
) -> Result<(UserFields<'t>, Option<Vec<&'t str>>, bool), Stop> {
    let members = document.members(name, member)?;
    let mut canonical = is_compact(document.line, &members, names, member.start + 1, member.end - 1);
    let mut fields = UserFields { name: None, uid: None, extra: None, any: !members.is_empty() };
    let mut groups = None;
    let mut seen = 0;
    for inner in &members {
        let name_at = names.iter().position(|name| name.as_bytes() == inner.key(document.line));
        name_at.map_or(Ok(()), |at| no_duplicate(&mut seen, at))?;
        let path = |field: &str| format!("{name}.{field}");
        match inner.key(document.line) {
            b"username" => {
                fields.name = document.string(&path("username"), inner)?;
                canonical &= fields.name.is_some_and(|value| document.is_canonical_string(inner, value));
            }
            b"uid" if names.contains(&"uid") => {
                fields.uid = document.string(&path("uid"), inner)?;
                canonical &= fields.uid.is_some_and(|value| document.is_canonical_string(inner, value));
            }
            b"groups" => {
                groups = document.strings(&path("groups"), inner)?;
                canonical &=
                    groups.as_ref().is_some_and(|groups| is_canonical_list(groups, document.text(inner)));
            }
            b"extra" => {
                fields.extra = json_object(&path("extra"), document, inner)?;
                canonical &= fields.extra.is_some();
            }
            _ => {}
        }
    }
    Ok((fields, groups, canonical))
}

pub(crate) fn is_canonical_list(list: &[&str], text: &[u8]) -> bool {
    let mut written = Vec::with_capacity(text.len());
    written.push(b'[');
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            written.push(b',');
        }
        go_string(item, &mut written);
    }
    written.push(b']');
    written == text
}

pub(crate) fn json_object<'d>(
    name: &str,
    document: &Document<'d, '_>,
    member: &Member,
) -> Result<Option<&'d str>, Stop> {
    match &document.nodes[member.node] {
        Node::Static(StaticNode::Null) => Ok(None),
        Node::Object { .. } => utf8(&document.line[member.start..member.end]).map(Some),
        _ => Err(Refusal::field(name, "an object").into()),
    }
}

/// Returns a text from a line that simd-json accepted, which should be UTF-8. If it is not, the
/// plain decoder reads the line and reports that.
pub(crate) fn utf8(text: &[u8]) -> Result<&str, Stop> {
    std::str::from_utf8(text).map_err(|_| Stop)
}

pub(crate) fn code(document: &Document<'_, '_>, member: &Member) -> Result<Option<i32>, Refusal> {
    let wrong = || Refusal::field("responseStatus.code", "a 32-bit integer");
    match &document.nodes[member.node] {
        Node::Static(StaticNode::Null) => Ok(None),
        Node::Static(StaticNode::I64(code)) => i32::try_from(*code).map(Some).map_err(|_| wrong()),
        Node::Static(StaticNode::U64(code)) => i32::try_from(*code).map(Some).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// Reads a timestamp. Returns it in microseconds, and whether its text is what [`crate::render`]
/// writes.
pub(crate) fn timestamp(
    name: &str,
    document: &Document<'_, '_>,
    member: Option<&Member>,
) -> Result<(Option<i64>, bool), Refusal> {
    let Some(member) = member else { return Ok((None, false)) };
    let Some(text) = document.string(name, member)? else { return Ok((None, true)) };
    let micros = time::parse(text).ok_or_else(|| Refusal::field(name, "an RFC 3339 timestamp"))?;
    let canonical = time::is_canonical(text) && document.text(member).len() == text.len() + 2;
    Ok((Some(micros), canonical))
}
