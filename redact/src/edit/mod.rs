//! Walks the bytes of a record once, and notes what is to be replaced.
//!
//! Terms: a value is visited with the *states* that the way to it leads to in the graph of the
//! policy's paths; a path that ends there is a *hit*. A *place* is what the API says about a value,
//! whatever the policy says: a body, its annotations, the operations of a JSON patch.
//!
//! It is hard because a value is not only where a path leads. A body is an object, a list of
//! objects, a table, a JSON patch, or a text; an annotation repeats an object as text; a name in
//! `managedFields` is made of values. So a path is applied wherever an object of the API stands, and
//! what does not have the form that the path expects is a hit itself: a scalar where the path
//! continues, a patch whose pointer cannot be read. Lists are looked through where a path names a
//! member.
//!
//! Invariants: the text is read strictly ([`crate::json`]), every occurrence of a repeated member is
//! visited, and edits are in the order of the text and do not overlap. Nothing is written here.

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

/// Maximum number of pairs of members that are compared one by one.
const PAIRS_MAX: usize = 1024;

/// What the walk needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Context<'c> {
    pub(crate) graph: &'c Graph,
    /// The patterns that apply to this event.
    pub(crate) applicable: &'c Patterns,
    pub(crate) detectors: &'c [(&'static Detector, u16)],
    pub(crate) form: Form,
    /// Cells of a table of this resource show no values.
    pub(crate) keeps_cells: bool,
    /// The member `data` of this resource may be a part of another object.
    pub(crate) has_revisions: bool,
    /// The member `message` of this resource is a field like any other, and no error's.
    pub(crate) keeps_messages: bool,
    pub(crate) key: &'c Key,
    /// Positions of values that are dropped whatever leads to them, with their labels.
    pub(crate) forced: &'c HashMap<usize, u16>,
    /// Names of users that were replaced, and the label of the path that did it.
    pub(crate) names: &'c [Vec<u8>],
    pub(crate) names_label: u16,
    /// How many texts are around this one.
    pub(crate) texts: usize,
}

fn dropped(implied: Implied) -> Hit {
    Hit { action: Action::Drop, label: implied.label() }
}

/// A string that was kept and may repeat a value.
pub(crate) struct Candidate {
    /// Extent of its literal.
    pub(crate) literal: (usize, usize),
    /// What the string says now, if names in it were replaced.
    pub(crate) text: Option<Vec<u8>>,
    /// Where the value begins that is dropped if it does, and the label.
    pub(crate) at: usize,
    pub(crate) label: u16,
}

/// A stretch of the text, and what takes its place.
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

/// What a value is by the API's rules. The span of a place is the states at the root of its body.
#[derive(Clone, Copy)]
enum Place {
    /// The event, or the entry.
    Record,
    /// `protoPayload` of an entry.
    Payload,
    /// What no policy looks into.
    Skip,
    /// A member that is not an event's.
    Beside,
    /// Who acts: paths, but no detectors.
    User,
    /// A member of a user, and what is in it.
    OfUser,
    /// An object with these members, which are never changed.
    Known(&'static [&'static str]),
    RequestUri,
    Status,
    Details,
    Message,
    /// The reason or the state of a `Status`.
    Reason,
    /// The status of an object, in which controllers quote the object.
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
        /// It is a whole body.
        is_body: bool,
    },
    /// An operation of a JSON patch: the index of its target.
    Operation(usize),
    Metadata,
    Annotations,
    Annotation,
    ManagedFields,
    Fields {
        /// A path leads to, or above, this field.
        is_hit: bool,
    },
    /// An annotation of a webhook's patch, as JSON.
    WebhookPatch,
    Plain,
}

/// Where an operation of a JSON patch puts its value.
#[derive(Clone, Copy)]
struct Target {
    states: Span,
    hit: Option<Hit>,
    place: Place,
}

/// What became of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// As it was, or changed in a part of it.
    Kept,
    Tokenised,
    Dropped,
}

/// A member that was read.
struct Member {
    /// Extent of the name's literal.
    name: (usize, usize),
    fate: Fate,
    /// It, or a part of it, was replaced.
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
    /// Where the object begins and ends.
    whole: Span,
    /// The states at the root of any body.
    bodies: Span,
    /// The patterns that may be followed through the text.
    awake: Patterns,
    targets: Vec<Target>,
    /// What the patch that is being read moves to a place of the policy.
    moved: Moved,
    frames: Vec<Frame>,
    depth: usize,
    pub(crate) nodes: Nodes,
    edits: Vec<Edit>,
    pub(crate) replaced: Vec<Replaced>,
    pub(crate) candidates: Vec<Candidate>,
    /// Where strings begin in which only names were replaced.
    pub(crate) renamed: Vec<usize>,
    /// Members beside the event's.
    pub(crate) beside: Vec<usize>,
    /// The names in the objects that are being read, and what became of their values.
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

    /// Walks over a text that is an object of the API, or what a webhook's annotation has.
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

    /// Adds the states of a span to the newest span, which begins at `start`.
    fn add(&mut self, start: usize, span: Span) {
        for index in span.start..span.end {
            self.push(start, self.states[index]);
        }
    }

    /// Takes one step from a value: to its member of this name, or to an element.
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

    /// Returns the hit of a scalar at which a path would go on.
    fn scalar_hit(&self, span: Span, place: Place) -> Option<Hit> {
        let Context { graph, applicable, .. } = self.context;
        let is_body = matches!(place, Place::Body(_));
        let states = self.states[span.start..span.end].iter();
        states.fold(None, |hit, state| stronger(hit, graph.scalar_hit(applicable, *state, is_body)))
    }

    // Values.

    /// Whether nothing in a value can be of interest.
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

    /// Whether messages and annotations may repeat what a body has.
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

    /// Notes that the value of the current frame is replaced.
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

    /// Notes a hit at the current frame.
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
        // There is always a frame: that of the text.
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
                // With a member kept before it, the comma before goes with it, else the one after.
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
            // Only a part of a record can be dropped.
            Place::Record if whole.is_some() => Err(Broken::Ambiguous),
            _ => Ok((end, whole)),
        }
    }

    /// Whether a name occurs twice in an object, and not all of its values were replaced in the same
    /// way: no pointer can say which of them was.
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
            // The elements after a dropped one keep their indexes.
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
