//! Finds the values that a JSON patch moves or copies to a place of the policy.
//!
//! A patch can write a value to one place and then move or copy the value to another. If it moves
//! the value to a place that a path of the policy names, the value is replaced where it is written.
//! There may be several moves in a row: the source of one may be the destination of another.
//!
//! Invariant: if a patch leaves a value at a place of the policy, and the patch contains that
//! value, the value is replaced wherever the patch has it. Places are compared without the indexes
//! of lists, because each operation may move the elements.

use std::borrow::Cow;

use super::places::{is_index, unescape_pointer};
use super::{Broken, Place, Span, Walk};
use crate::json;

/// Maximum number of moves that are followed in one patch. If a patch has more, all of its values
/// are replaced.
const MOVES_MAX: usize = 64;

/// The names of the members that lead to a place; an index of a list is an empty name.
type Way = Vec<Vec<u8>>;

/// The pointers of a move or copy operation. There are several if a member of it is repeated.
struct Move<'t> {
    to: Vec<Cow<'t, [u8]>>,
    from: Vec<Cow<'t, [u8]>>,
}

/// The places from which a patch moves or copies values to a place of the policy.
#[derive(Default)]
pub(super) struct Moved(Vec<Way>);

impl Moved {
    /// Returns true if a value that is written to `pointer` may be moved to a place of the policy.
    pub(super) fn covers(&self, pointer: &[u8]) -> bool {
        !self.0.is_empty() && way(pointer).is_none_or(|way| self.meets(&way))
    }

    fn meets(&self, way: &Way) -> bool {
        self.0.iter().any(|moved| moved.iter().zip(way).all(|(one, other)| one == other))
    }
}

/// Returns the names in a pointer; `None` if the text is not a pointer.
fn way(pointer: &[u8]) -> Option<Way> {
    if pointer.is_empty() {
        return Some(Way::new());
    }
    let names = pointer.strip_prefix(b"/")?.split(|byte| *byte == b'/').map(|segment| {
        if is_index(segment) { Vec::new() } else { unescape_pointer(segment).to_ascii_lowercase() }
    });
    Some(names.collect())
}

impl<'t> Walk<'t, '_> {
    /// Finds the places from which the patch at `at` moves or copies values to a place of the
    /// policy.
    pub(super) fn moved(&mut self, at: usize, root: Span) -> Result<Moved, Broken> {
        let text = self.text;
        let mut moves: Vec<Move<'t>> = Vec::new();
        json::each_element(text, at, self.depth.saturating_sub(1), |at, depth| {
            if text.get(at) != Some(&b'{') {
                return json::value_end(text, at, depth);
            }
            let (mut to, mut from) = (Vec::new(), Vec::new());
            let (_, end) = json::each_member(text, at, depth, |(start, end), at, depth| {
                let name = json::unescape(&text[start..end]);
                let value_end = json::value_end(text, at, depth)?;
                let pointers = if name.eq_ignore_ascii_case(b"path") {
                    &mut to
                } else if name.eq_ignore_ascii_case(b"from") {
                    &mut from
                } else {
                    return Ok(value_end);
                };
                // A pointer that is not a string could mean any place, so it is read as the root.
                let is_string = text.get(at) == Some(&b'"');
                pointers.push(if is_string {
                    json::unescape(&text[at..value_end])
                } else {
                    Cow::Borrowed(&b""[..])
                });
                Ok(value_end)
            })?;
            if !from.is_empty() {
                moves.push(Move { to, from });
            }
            Ok(end)
        })?;
        let mut moved = Moved::default();
        if moves.len() > MOVES_MAX {
            moved.0.push(Way::new());
            return Ok(moved);
        }
        while let Some(at) = moves.iter().position(|Move { to, .. }| {
            to.is_empty() || to.iter().any(|to| moved.covers(to) || self.leads_to_policy(root, to))
        }) {
            let next = moves.swap_remove(at);
            moved.0.extend(next.from.iter().map(|from| way(from).unwrap_or_default()));
        }
        Ok(moved)
    }

    /// Returns true if a path of the policy ends at the place that `pointer` names, or above or
    /// below it.
    fn leads_to_policy(&mut self, root: Span, pointer: &[u8]) -> bool {
        let Some(rest) = pointer.strip_prefix(b"/") else { return !root.is_empty() };
        let start = self.states.len();
        let (place, hit) = self.follow(start, root, rest);
        let leads = hit.is_some()
            || self.states.len() > start
            || matches!(place, Place::Annotation | Place::Annotations | Place::Fields { .. });
        self.states.truncate(start);
        leads
    }
}
