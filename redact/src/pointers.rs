//! JSON pointers of what was replaced, and the mark that they make.
//!
//! A mark has room for a bounded number of paths. Where there are more, the indexes of arrays are
//! folded into the step `-`, which no element has: *in one or more elements of this array*. Where
//! that is not enough, or a name cannot stand in a mark, a parent has to be dropped whole.
//!
//! Invariant: a mark that is returned is true of the edited record. No state.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use strongroom_schemas::marks::{PATH_BYTES_MAX, REDACTED_PATHS_MAX, REDACTION_BYTES_MAX, Redaction};

use crate::graph::{Action, Hit};
use crate::implied::Implied;
use crate::json;

/// The step that stands for one or more elements of an array.
const ANY_ELEMENT: &str = "-";
/// Bytes of a mark that are not paths: more than the longest.
const MARK_HEAD_BYTES: usize = 128;
/// Bytes that a mark needs for a path besides the path: quotes and a comma. A pointer has no
/// control characters, so an escape needs at most one byte for one of the path.
const PATH_BYTES_MORE: usize = 3;

/// A value on the way to one that was replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeId(u32);

/// The step to a value from the one around it.
#[derive(Debug)]
pub(crate) enum Segment {
    /// The record itself.
    Root,
    /// A member: the extent of its name's literal.
    Name(usize, usize),
    Index(usize),
    /// A name that is not in the text as it is.
    Owned(Vec<u8>),
}

struct Node {
    parent: Option<NodeId>,
    segment: Segment,
    at: usize,
}

/// The values on the way to those that were replaced.
#[derive(Default)]
pub(crate) struct Nodes(Vec<Node>);

/// Positions of values that have to be dropped, with their labels.
pub(crate) type Forced = HashMap<usize, u16>;

/// Why there is no mark.
#[derive(Debug)]
pub(crate) enum Unmarked {
    /// These values have to be dropped first.
    Drop(Forced),
    Impossible,
}

/// A value that is replaced.
pub(crate) struct Replaced {
    pub(crate) node: NodeId,
    pub(crate) hit: Hit,
    /// Extent of the value.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The way from the record to a value: the position of each value, and the step to it.
struct Way<'t> {
    steps: Vec<(usize, Cow<'t, str>)>,
    action: Action,
}

impl Way<'_> {
    /// The pointer to the value after `length` steps.
    fn pointer(&self, length: usize) -> String {
        let mut out = String::new();
        for (_, step) in &self.steps[..length.min(self.steps.len())] {
            out.push('/');
            out.push_str(step);
        }
        out
    }
}

impl Nodes {
    pub(crate) fn add(&mut self, parent: Option<NodeId>, segment: Segment, at: usize) -> NodeId {
        self.0.push(Node { parent, segment, at });
        // A record has fewer bytes than numbers of nodes.
        NodeId((self.0.len() - 1) as u32)
    }

    /// Returns the way to a value; the error is the position of the last value on the way that can
    /// be named, or `None` if that is the record.
    fn way<'t>(&self, text: &'t [u8], replaced: &Replaced) -> Result<Way<'t>, Option<usize>> {
        let mut chain = Vec::new();
        let mut next = Some(replaced.node);
        while let Some(node) = next.and_then(|id| self.0.get(id.0 as usize)) {
            chain.push(node);
            next = node.parent;
        }
        let mut way = Way { steps: Vec::new(), action: replaced.hit.action };
        let (mut bytes, mut before) = (0, None);
        for node in chain.into_iter().rev() {
            let step: Cow<'t, str> = match &node.segment {
                Segment::Root => continue,
                Segment::Index(index) => Cow::Owned(index.to_string()),
                Segment::Name(start, end) => match json::unescape(&text[*start..*end]) {
                    Cow::Borrowed(name) => std::str::from_utf8(name).map(escaped).map_err(|_| before)?,
                    Cow::Owned(name) => {
                        Cow::Owned(escaped(std::str::from_utf8(&name).map_err(|_| before)?).into_owned())
                    }
                },
                Segment::Owned(name) => {
                    Cow::Owned(escaped(std::str::from_utf8(name).map_err(|_| before)?).into_owned())
                }
            };
            bytes += 1 + step.len();
            if bytes > PATH_BYTES_MAX || step.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
                return Err(before);
            }
            way.steps.push((node.at, step));
            before = Some(node.at);
        }
        Ok(way)
    }
}

/// Escapes a name for a JSON pointer.
fn escaped(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) {
        Cow::Owned(name.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(name)
    }
}

/// Makes the mark of what was replaced in `text`.
pub(crate) fn mark(
    policy: u64,
    text: &[u8],
    nodes: &Nodes,
    replaced: &[Replaced],
) -> Result<Redaction, Unmarked> {
    let (mut ways, mut forced) = (Vec::with_capacity(replaced.len()), Forced::new());
    for replaced in replaced {
        match nodes.way(text, replaced) {
            Ok(way) => ways.push(way),
            Err(Some(at)) => {
                forced.insert(at, Implied::Parent.label());
            }
            Err(None) => return Err(Unmarked::Impossible),
        }
    }
    if !forced.is_empty() {
        return Err(Unmarked::Drop(forced));
    }
    let paths = |ways: &[Way<'_>]| {
        let mut paths: BTreeMap<String, Action> = BTreeMap::new();
        for way in ways {
            let action = paths.entry(way.pointer(usize::MAX)).or_insert(way.action);
            *action = way.action.max(*action);
        }
        paths
    };
    let mut found = paths(&ways);
    if !fits(&found) {
        for way in &mut ways {
            // A step of digits may be a member's name; then it is not folded, and only costs room.
            fold(way, text);
        }
        found = paths(&ways);
    }
    if fits(&found) {
        let of = |action: Action| {
            found.iter().filter(|(_, own)| **own == action).map(|(path, _)| path.clone()).collect::<Vec<_>>()
        };
        return Redaction::new(policy, of(Action::Drop), of(Action::Tokenise))
            .map_err(|_| Unmarked::Impossible);
    }
    merged(ways)
}

/// Whether a mark has room for the paths.
fn fits(paths: &BTreeMap<String, Action>) -> bool {
    let escapes = |path: &str| path.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    let bytes: usize = paths.keys().map(|path| path.len() + escapes(path) + PATH_BYTES_MORE).sum();
    paths.len() <= REDACTED_PATHS_MAX && bytes + MARK_HEAD_BYTES <= REDACTION_BYTES_MAX
}

/// Puts `-` in the place of every index.
fn fold(way: &mut Way<'_>, text: &[u8]) {
    let mut around = None;
    for (at, step) in &mut way.steps {
        let is_array = around.is_some_and(|around: usize| text.get(around) == Some(&b'['));
        if is_array {
            *step = Cow::Borrowed(ANY_ELEMENT);
        }
        around = Some(*at);
    }
}

/// Returns which parents have to be dropped so that the paths fit: from the deepest level up, those
/// that have more than one path below them.
fn merged(mut ways: Vec<Way<'_>>) -> Result<Redaction, Unmarked> {
    let mut forced = Forced::new();
    let deepest = ways.iter().map(|way| way.steps.len()).max().unwrap_or_default();
    for level in (1..deepest).rev() {
        let mut below: HashMap<String, BTreeSet<String>> = HashMap::new();
        for way in ways.iter().filter(|way| way.steps.len() > level) {
            below.entry(way.pointer(level)).or_default().insert(way.pointer(usize::MAX));
        }
        for way in ways.iter_mut().filter(|way| way.steps.len() > level) {
            if below.get(&way.pointer(level)).is_some_and(|paths| paths.len() > 1) {
                way.steps.truncate(level);
                way.action = Action::Drop;
                if let Some((at, _)) = way.steps.last() {
                    forced.insert(*at, Implied::Parent.label());
                }
            }
        }
        let paths = ways.iter().map(|way| (way.pointer(usize::MAX), way.action)).collect();
        if fits(&paths) {
            return Err(Unmarked::Drop(forced));
        }
    }
    Err(Unmarked::Impossible)
}
