//! Walks over the bytes of a record once, and collects the edits that the policy demands.
//!
//! Terms: each value is visited with its *states*, the nodes in the graph of the policy's paths
//! that the steps from the record to the value lead to. If a path ends at the value, that is a
//! *hit*. The *place* of a value is its role in the API, whatever the policy says: a body, the
//! annotations of a body, an operation of a JSON patch.
//!
//! Following paths alone would not be enough, because a value can be in other places than the one
//! where its path leads. A body is an object, a list of objects, a table, a JSON patch, or a text;
//! an annotation repeats an object as text; a name in `managedFields` can contain values. So a path
//! is applied to every object of the API in a body. Whatever does not have the form that the path
//! expects is a hit itself: a scalar where the path continues, or a patch whose pointer cannot be
//! read. If a path names a member and the value is a list, the path is applied to each element of
//! the list.
//!
//! Invariants: the text is parsed strictly ([`crate::json`]), every occurrence of a repeated member
//! is visited, and edits are in the order of the text and do not overlap. This module writes
//! nothing.

mod moves;
mod places;
mod strings;

use std::borrow::Cow;
use std::collections::HashMap;

use self::moves::Moved;
pub(crate) use self::strings::PARAMETERS_END;
use crate::detect::Detector;
use crate::echo::Origin;
use crate::graph::{Action, Graph, Hit, Patterns, State, stronger};
use crate::implied::Implied;
use crate::json::{self, Broken};
use crate::keys::Key;
use crate::pointers::{NodeId, Nodes, Replaced, Segment};
use crate::target::Form;

/// Maximum number of pairs of members that are compared directly. More members are compared by
/// hash.
const PAIRS_MAX: usize = 1024;

/// The inputs of a walk.
#[derive(Clone, Copy)]
pub(crate) struct Context<'c> {
    pub(crate) graph: &'c Graph,
    /// The patterns that apply to this event.
    pub(crate) applicable: &'c Patterns,
    pub(crate) detectors: &'c [(&'static Detector, u16)],
    pub(crate) form: Form,
    /// True if the cells of a table of this resource contain no values.
    pub(crate) keeps_cells: bool,
    /// True if the member `data` of this resource may be a part of another object.
    pub(crate) has_revisions: bool,
    /// True if the member `message` of this resource is an ordinary field, not the message of an
    /// error.
    pub(crate) keeps_messages: bool,
    pub(crate) key: &'c Key,
    /// Positions of values that are dropped even if no path leads to them, with their labels.
    pub(crate) forced: &'c HashMap<usize, u16>,
    /// Names of users that were replaced, and the label of the path that replaced them.
    pub(crate) names: &'c [Vec<u8>],
    pub(crate) names_label: u16,
    /// Nesting depth of this text: the number of texts that it is inside of.
    pub(crate) texts: usize,
}

fn dropped(implied: Implied) -> Hit {
    Hit { action: Action::Drop, label: implied.label() }
}

/// A string that was kept, although it may repeat a replaced value.
pub(crate) struct Candidate {
    /// Extent of its literal.
    pub(crate) literal: (usize, usize),
    /// The string's text after names in it were replaced; `None` if none was.
    pub(crate) text: Option<Vec<u8>>,
    /// If the string does repeat a value: the position of the value to drop, and the label.
    pub(crate) at: usize,
    pub(crate) label: u16,
}

/// A range of the text, and the bytes that replace it.
pub(crate) struct Edit {
    start: usize,
    end: usize,
    with: Vec<u8>,
}

/// A value as it may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edited {
    /// As it was, or absent as before.
    Kept,
    Changed(String),
    Dropped,
}

/// A stretch of the stack of states, or of the text.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    const EMPTY: Span = Span { start: 0, end: 0 };

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// The role of a value in the API. A span in a place holds the states at the root of the value's
/// body.
#[derive(Clone, Copy)]
enum Place {
    /// The event, or Google's entry.
    Record,
    /// `protoPayload` of Google's entry.
    Payload,
    /// A value that no policy can change.
    Skip,
    /// A member that is not one of the event's own.
    Beside,
    /// The user who acts. Paths apply here, but detectors do not.
    User,
    /// A member of a user, and everything inside it.
    OfUser,
    /// An object whose members of these names are never changed.
    Known(&'static [&'static str]),
    RequestUri,
    Status,
    Details,
    Message,
    /// The reason or the state of a `Status`.
    Reason,
    /// The `status` of an object. Controllers quote the object in it.
    Remarks,
    Remark,
    AuditAnnotations,
    AuditAnnotation(Origin),
    Body(Span),
    /// `items` of a list.
    Items(Span),
    /// `rows` of a table.
    Rows(Span),
    Row(Span),
    /// An array that is a JSON patch, or may be one.
    Patch {
        root: Span,
        /// True if the array is a whole body.
        is_body: bool,
    },
    /// An operation of a JSON patch, with the index of its target.
    Operation(usize),
    Metadata,
    Annotations,
    Annotation,
    ManagedFields,
    Fields {
        /// True if a path leads to this field, or to one above it.
        is_hit: bool,
    },
    /// An annotation that contains a webhook's patch, as JSON.
    WebhookPatch,
    Plain,
}

/// The place to which an operation of a JSON patch writes its value.
#[derive(Clone, Copy)]
struct Target {
    states: Span,
    hit: Option<Hit>,
    place: Place,
}

/// What was done to a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The value was left alone, or only a part of it was changed.
    Kept,
    Tokenised,
    Dropped,
}

/// A member that was visited.
struct Member {
    /// Extent of the name's literal.
    name: (usize, usize),
    fate: Fate,
    /// True if the value, or a part of it, was replaced.
    is_edited: bool,
}

struct Frame {
    segment: Segment,
    at: usize,
    node: Option<NodeId>,
}

#[derive(Clone, Copy)]
struct Checkpoint {
    edits: usize,
    replaced: usize,
    candidates: usize,
}

/// One walk over one text.
pub(crate) struct Walk<'t, 'c> {
    text: &'t [u8],
    context: Context<'c>,
    states: Vec<State>,
    /// Where the outermost value begins and ends.
    whole: Span,
    /// The states at the root of any body.
    bodies: Span,
    /// The patterns that may be followed through the text.
    awake: Patterns,
    targets: Vec<Target>,
    /// What the current JSON patch moves to a place of the policy.
    moved: Moved,
    frames: Vec<Frame>,
    depth: usize,
    pub(crate) nodes: Nodes,
    edits: Vec<Edit>,
    pub(crate) replaced: Vec<Replaced>,
    pub(crate) candidates: Vec<Candidate>,
    /// Where those strings begin in which only names were replaced.
    pub(crate) renamed: Vec<usize>,
    /// Positions of the members beside the event's own.
    pub(crate) beside: Vec<usize>,
    /// The members of the objects around the current position, and what was done to their values.
    members: Vec<Member>,
}

impl<'t, 'c> Walk<'t, 'c> {
    /// Walks over a whole record.
    pub(crate) fn record(text: &'t [u8], context: Context<'c>) -> Result<Walk<'t, 'c>, Broken> {
        let mut walk = Walk::new(text, context);
        let start = walk.states.len();
        context.graph.begin(&mut walk.states, start, context.applicable);
        let states = Span { start, end: walk.states.len() };
        walk.whole(states, Place::Record)?;
        Ok(walk)
    }

    /// Walks over a text that is an object of the API, or the content of a webhook's annotation.
    fn inner(text: &'t [u8], context: Context<'c>, is_webhook_patch: bool) -> Result<Walk<'t, 'c>, Broken> {
        let mut walk = Walk::new(text, context);
        let bodies = walk.bodies;
        let place = if is_webhook_patch { Place::WebhookPatch } else { Place::Body(bodies) };
        walk.whole(bodies, place)?;
        Ok(walk)
    }

    fn new(text: &'t [u8], context: Context<'c>) -> Walk<'t, 'c> {
        let mut walk = Walk {
            text,
            context,
            states: Vec::new(),
            whole: Span::EMPTY,
            bodies: Span::EMPTY,
            awake: context.graph.awake(text, context.applicable),
            targets: Vec::new(),
            frames: Vec::new(),
            moved: Moved::default(),
            depth: 0,
            nodes: Nodes::default(),
            edits: Vec::new(),
            replaced: Vec::new(),
            candidates: Vec::new(),
            renamed: Vec::new(),
            beside: Vec::new(),
            members: Vec::new(),
        };
        context.graph.begin_bodies(&mut walk.states, 0, context.applicable);
        walk.bodies.end = walk.states.len();
        walk
    }

    /// Returns the object with its edits, without white space around it.
    pub(crate) fn edited(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len());
        let mut at = self.whole.start;
        for edit in &self.edits {
            out.extend_from_slice(&self.text[at..edit.start]);
            out.extend_from_slice(&edit.with);
            at = edit.end;
        }
        out.extend_from_slice(&self.text[at..self.whole.end]);
        out
    }

    /// Returns what the edits make of the value at `start..end`. `None` if an edit is not wholly in
    /// it or around it.
    pub(crate) fn edited_part(&self, start: usize, end: usize) -> Option<Edited> {
        let (mut out, mut at) = (Vec::new(), start);
        for edit in self.edits.iter().filter(|edit| edit.start < end && edit.end > start) {
            if edit.start < start && edit.end >= end {
                return edit.with.is_empty().then_some(Edited::Dropped);
            }
            out.extend_from_slice(self.text.get(at..edit.start)?);
            out.extend_from_slice(&edit.with);
            at = edit.end;
        }
        if at == start {
            return Some(Edited::Kept);
        }
        out.extend_from_slice(self.text.get(at..end)?);
        String::from_utf8(out).ok().map(Edited::Changed)
    }

    pub(crate) fn text(&self) -> &'t [u8] {
        self.text
    }

    fn whole(&mut self, states: Span, place: Place) -> Result<(), Broken> {
        let at = json::skip_white(self.text, 0);
        if matches!(place, Place::Record) && self.text.get(at) != Some(&b'{') {
            return Err(Broken::NotJson);
        }
        self.frames.push(Frame { segment: Segment::Root, at, node: None });
        let (end, _) = self.value(at, states, None, place)?;
        self.whole = Span { start: at, end };
        if json::skip_white(self.text, end) == self.text.len() { Ok(()) } else { Err(Broken::NotJson) }
    }

    // States.

    fn push(&mut self, start: usize, state: State) {
        if !self.states[start..].contains(&state) {
            self.states.push(state);
        }
    }

    /// Adds the states of another span to the newest span, which begins at `start`.
    fn add(&mut self, start: usize, span: Span) {
        for index in span.start..span.end {
            self.push(start, self.states[index]);
        }
    }

    /// Takes one step from a value: to its member with this name, or to an element if `name` is
    /// `None`.
    fn step(&mut self, span: Span, name: Option<&[u8]>) -> (Span, Option<Hit>) {
        let start = self.states.len();
        let hit = self.step_on(start, span, name);
        (Span { start, end: self.states.len() }, hit)
    }

    fn step_on(&mut self, start: usize, span: Span, name: Option<&[u8]>) -> Option<Hit> {
        let Context { graph, applicable, .. } = self.context;
        let mut hit = None;
        for index in span.start..span.end {
            let (state, of) = (self.states[index], (applicable, &self.awake));
            hit = stronger(hit, graph.step(&mut self.states, start, of, state, name));
        }
        hit
    }

    /// Returns the hit of a scalar in a position from which a path would continue.
    fn scalar_hit(&self, span: Span, place: Place) -> Option<Hit> {
        let Context { graph, applicable, .. } = self.context;
        let is_body = matches!(place, Place::Body(_));
        let states = self.states[span.start..span.end].iter();
        states.fold(None, |hit, state| stronger(hit, graph.scalar_hit(applicable, *state, is_body)))
    }

    // Values.

    /// Returns true if nothing in a value can be replaced, or can repeat what was replaced.
    fn is_idle(&self, states: Span, place: Place) -> bool {
        let is_searched = !self.context.detectors.is_empty() || !self.context.names.is_empty();
        match place {
            Place::Skip => true,
            Place::OfUser => states.is_empty(),
            Place::Plain | Place::Fields { is_hit: false } => states.is_empty() && !is_searched,
            Place::Record
            | Place::Payload
            | Place::Beside
            | Place::User
            | Place::Known(_)
            | Place::RequestUri
            | Place::Operation(_) => false,
            _ => states.is_empty() && !is_searched && !self.has_bodies(),
        }
    }

    /// Returns true if a path of the policy is about bodies, which messages and annotations may
    /// repeat.
    fn has_bodies(&self) -> bool {
        !self.bodies.is_empty()
    }

    fn value(
        &mut self,
        at: usize,
        states: Span,
        hit: Option<Hit>,
        place: Place,
    ) -> Result<(usize, Fate), Broken> {
        let forced = match self.context.forced.is_empty() {
            true => None,
            false => self.context.forced.get(&at).map(|label| Hit { action: Action::Drop, label: *label }),
        };
        let is_scalar = !matches!(self.text.get(at), Some(b'{' | b'[' | b'n'));
        let hit = match hit {
            Some(_) if is_scalar => stronger(hit, self.scalar_hit(states, place)),
            hit => hit,
        };
        if let Some(hit) = stronger(forced, hit) {
            let end = json::value_end(self.text, at, self.depth)?;
            return Ok((end, self.replace(at, end, hit)));
        }
        if self.is_idle(states, place) && self.context.forced.is_empty() {
            return Ok((json::value_end(self.text, at, self.depth)?, Fate::Kept));
        }
        let checkpoint = self.checkpoint();
        let (end, hit) = match self.text.get(at) {
            Some(b'{') => self.object(at, states, place)?,
            Some(b'[') => self.array(at, states, place)?,
            Some(b'"') => {
                let end = json::string_end(self.text, at)?;
                (end, self.string(at, end, states, place))
            }
            Some(b'n') => (json::scalar_end(self.text, at)?, None),
            _ => {
                let end = json::scalar_end(self.text, at)?;
                let text = &self.text[at..end];
                let hit = match place {
                    Place::Skip
                    | Place::Record
                    | Place::Payload
                    | Place::Beside
                    | Place::Known(_)
                    | Place::RequestUri => None,
                    Place::User | Place::OfUser => self.scalar_hit(states, place),
                    Place::Message | Place::Reason if self.has_bodies() => Some(dropped(Implied::Message)),
                    _ => self.scalar_hit(states, place).or_else(|| self.detected(text)),
                };
                (end, hit)
            }
        };
        let Some(hit) = hit else { return Ok((end, Fate::Kept)) };
        self.rewind(checkpoint);
        Ok((end, self.replace(at, end, hit)))
    }

    /// Records that the value of the current frame is replaced.
    fn replace(&mut self, at: usize, end: usize, hit: Hit) -> Fate {
        let value = &self.text[at..end];
        let is_element = matches!(self.frames.last(), Some(Frame { segment: Segment::Index(_), .. }));
        if value == b"null" && (hit.action == Action::Tokenise || is_element) {
            return Fate::Kept;
        }
        self.note(hit, at, end);
        if hit.action == Action::Drop {
            return Fate::Dropped;
        }
        let token = self.context.key.token_of_valid(value);
        let mut with = Vec::new();
        json::write_string(token.as_str().as_bytes(), &mut with);
        self.edits.push(Edit { start: at, end, with });
        Fate::Tokenised
    }

    /// Records a hit at the current frame.
    fn note(&mut self, hit: Hit, start: usize, end: usize) {
        let node = self.node();
        self.replaced.push(Replaced { node, hit, start, end });
    }

    fn node(&mut self) -> NodeId {
        let mut parent = None;
        for frame in &mut self.frames {
            let node = match frame.node {
                Some(node) => node,
                None => {
                    let segment = std::mem::replace(&mut frame.segment, Segment::Root);
                    let node = self.nodes.add(parent, segment, frame.at);
                    frame.node = Some(node);
                    node
                }
            };
            parent = Some(node);
        }
        // There is always at least one frame, that of the whole text.
        parent.unwrap_or_default()
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            edits: self.edits.len(),
            replaced: self.replaced.len(),
            candidates: self.candidates.len(),
        }
    }

    fn rewind(&mut self, to: Checkpoint) {
        self.edits.truncate(to.edits);
        self.replaced.truncate(to.replaced);
        self.candidates.truncate(to.candidates);
    }

    fn object(&mut self, at: usize, states: Span, place: Place) -> Result<(usize, Option<Hit>), Broken> {
        self.enter()?;
        let text = self.text;
        let (mut slot, mut is_first, mut whole) = (at + 1, true, None);
        let (members, edits) = (self.members.len(), self.replaced.len());
        let mut next = json::skip_white(text, slot);
        if text.get(next) == Some(&b'}') {
            self.depth -= 1;
            return Ok((next + 1, None));
        }
        let end = loop {
            let name_end = json::string_end(text, next)?;
            let name = json::unescape(&text[next..name_end]);
            let value_at =
                json::skip_white(text, json::expect(text, json::skip_white(text, name_end), b':')?);
            let (states_end, targets_end) = (self.states.len(), self.targets.len());
            let (inner, hit, inner_place, poison) = self.member(states, place, &name, value_at);
            whole = stronger(whole, poison);
            self.frames.push(Frame { segment: Segment::Name(next, name_end), at: value_at, node: None });
            let before = self.replaced.len();
            let (value_end, fate) = self.member_value(value_at, inner, hit, inner_place)?;
            let is_edited = self.replaced.len() > before;
            if fate == Fate::Kept
                && matches!((place, inner_place), (Place::ManagedFields, Place::Fields { .. }))
            {
                self.note_names(value_at, value_end);
            }
            self.members.push(Member { name: (next, name_end), fate, is_edited });
            self.frames.pop();
            self.states.truncate(states_end);
            self.targets.truncate(targets_end);
            let slot_end = json::skip_white(text, value_end);
            let is_last = match text.get(slot_end) {
                Some(b',') => false,
                Some(b'}') => true,
                _ => return Err(Broken::NotJson),
            };
            match fate {
                Fate::Kept | Fate::Tokenised => is_first = false,
                // If a member was kept before this one, the comma before it is removed too, else
                // the comma after it.
                Fate::Dropped => {
                    let start = if is_first { slot } else { slot - 1 };
                    let end = if is_first && !is_last { slot_end + 1 } else { slot_end };
                    self.edits.push(Edit { start, end, with: Vec::new() });
                }
            }
            if is_last {
                break slot_end + 1;
            }
            slot = slot_end + 1;
            next = json::skip_white(text, slot);
        };
        self.depth -= 1;
        if self.replaced.len() > edits && self.is_ambiguous(members) {
            whole = stronger(whole, Some(dropped(Implied::Repeated)));
        }
        self.members.truncate(members);
        match place {
            // A record cannot be dropped as a whole.
            Place::Record if whole.is_some() => Err(Broken::Ambiguous),
            _ => Ok((end, whole)),
        }
    }

    /// Returns true if a name occurs twice in an object, and its values were not all replaced in
    /// the same way: no pointer could say which of the values was replaced.
    fn is_ambiguous(&self, members: usize) -> bool {
        let members = &self.members[members..];
        let name = |member: &Member| json::unescape(&self.text[member.name.0..member.name.1]);
        let differ = |member: &Member, other: &Member| {
            (member.is_edited || other.is_edited) && (member.fate != other.fate || member.fate == Fate::Kept)
        };
        let edited = members.iter().filter(|member| member.is_edited).count();
        if edited * members.len() <= PAIRS_MAX {
            return members.iter().enumerate().filter(|(_, member)| member.is_edited).any(|(at, member)| {
                let own = name(member);
                let mut others = members.iter().enumerate().filter(|(other, _)| *other != at);
                others.any(|(_, other)| differ(member, other) && name(other) == own)
            });
        }
        let mut seen: HashMap<Cow<'_, [u8]>, &Member> = HashMap::with_capacity(members.len());
        members
            .iter()
            .any(|member| seen.insert(name(member), member).is_some_and(|other| differ(member, other)))
    }

    fn member_value(
        &mut self,
        at: usize,
        states: Span,
        hit: Option<Hit>,
        place: Place,
    ) -> Result<(usize, Fate), Broken> {
        let is_forced = self.context.forced.contains_key(&at);
        match (place, hit) {
            (Place::Beside, None) if !is_forced => self.beside(at),
            (Place::RequestUri, None) if !is_forced => self.request_uri(at, states),
            _ => self.value(at, states, hit, place),
        }
    }

    fn array(&mut self, at: usize, states: Span, place: Place) -> Result<(usize, Option<Hit>), Broken> {
        self.enter()?;
        let text = self.text;
        let place = match place {
            Place::Body(root) => Place::Patch { root, is_body: true },
            place => place,
        };
        let mut next = json::skip_white(text, at + 1);
        if text.get(next) == Some(&b']') {
            self.depth -= 1;
            return Ok((next + 1, None));
        }
        let moved = match place {
            Place::Patch { root, .. } => self.moved(at, root)?,
            _ => Moved::default(),
        };
        let before = std::mem::replace(&mut self.moved, moved);
        let mut index = 0;
        let end = loop {
            let (states_end, targets_end) = (self.states.len(), self.targets.len());
            let (inner, hit, inner_place) = self.element(states, place, next)?;
            self.frames.push(Frame { segment: Segment::Index(index), at: next, node: None });
            let (value_end, fate) = self.value(next, inner, hit, inner_place)?;
            self.frames.pop();
            self.states.truncate(states_end);
            self.targets.truncate(targets_end);
            // A dropped element becomes null, so the elements after it keep their indexes.
            if fate == Fate::Dropped {
                self.edits.push(Edit { start: next, end: value_end, with: b"null".to_vec() });
            }
            next = json::skip_white(text, value_end);
            match text.get(next) {
                Some(b',') => next = json::skip_white(text, next + 1),
                Some(b']') => break next + 1,
                _ => return Err(Broken::NotJson),
            }
            index += 1;
        };
        self.moved = before;
        self.depth -= 1;
        Ok((end, None))
    }

    fn enter(&mut self) -> Result<(), Broken> {
        if self.depth >= strongroom_lines::DEPTH_MAX {
            return Err(Broken::TooDeep);
        }
        self.depth += 1;
        Ok(())
    }
}
