//! JSON pointers to replaced values, and the mark that lists them.
//!
//! A mark has room for a bounded number of paths. If there are more, each index of an array becomes
//! the step `-`, which no element has; it means *in one or more elements of this array*. If that is
//! still too much, or if a name cannot be written in a mark, a parent has to be dropped as a whole.
//!
//! Invariant: a returned mark is true of the edited record. No state.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use strongroom_schemas::marks::{PATH_BYTES_MAX, REDACTED_PATHS_MAX, REDACTION_BYTES_MAX, Redaction};

use crate::graph::{Action, Hit};
use crate::implied::Implied;
use crate::json;

/// The step that stands for one or more elements of an array.
const ANY_ELEMENT: &str = "-";
/// Maximum number of bytes of a mark that are not paths.
const MARK_HEAD_BYTES: usize = 128;
/// Bytes that a mark has for each path in addition to the path itself: two quotes and a comma. A
/// pointer has no control characters, so escaping a byte adds at most one byte, which [`fits`]
/// counts.
const PATH_BYTES_MORE: usize = 3;

/// The index of a value that was replaced, or that contains a replaced value, in [`Nodes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeId(u32);

/// The step from the surrounding value to a value.
#[derive(Debug)]
pub(crate) enum Segment {
    /// The record itself.
    Root,
    /// A member: the start and end of its name's literal.
    Name(usize, usize),
    Index(usize),
    /// A name that does not occur literally in the text, such as a decoded query parameter.
    Owned(Vec<u8>),
}

struct Node {
    parent: Option<NodeId>,
    segment: Segment,
    at: usize,
}

/// The replaced values, and all values around them.
#[derive(Default)]
pub(crate) struct Nodes(Vec<Node>);

/// Positions of values that have to be dropped, with their labels.
pub(crate) type Forced = HashMap<usize, u16>;

/// Why a mark cannot be made.
#[derive(Debug)]
pub(crate) enum Unmarked {
    /// The mark can be made once these values are dropped.
    Drop(Forced),
    Impossible,
}

/// A value that is replaced.
pub(crate) struct Replaced {
    pub(crate) node: NodeId,
    pub(crate) hit: Hit,
    /// Start and end of the value.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The steps from the record to a value, each with the position of the value that it leads to.
struct Way<'t> {
    steps: Vec<(usize, Cow<'t, str>)>,
    action: Action,
}

impl Way<'_> {
    /// Returns the pointer to the value after the first `length` steps.
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
        // A record has far fewer than 2^32 bytes, so the number of its nodes fits in a `u32`.
        NodeId((self.0.len() - 1) as u32)
    }

    /// Returns the steps to a value. If a step cannot be written in a mark, the error is the
    /// position of the last value before that step, or `None` if that is the record.
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

/// Makes the mark for the replaced values of `text`.
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
            // If a step of digits is a member's name, it is not folded and only takes more room.
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

/// Returns true if the paths fit in a mark.
fn fits(paths: &BTreeMap<String, Action>) -> bool {
    let escapes = |path: &str| path.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    let bytes: usize = paths.keys().map(|path| path.len() + escapes(path) + PATH_BYTES_MORE).sum();
    paths.len() <= REDACTED_PATHS_MAX && bytes + MARK_HEAD_BYTES <= REDACTION_BYTES_MAX
}

/// Replaces every index of an array by `-`.
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

/// Returns, in [`Unmarked::Drop`], the parents that have to be dropped so that the paths fit. On
/// the deepest level, all parents with more than one path below them are dropped; then the next
/// higher levels follow, until the paths fit.
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
