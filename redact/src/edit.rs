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

use std::borrow::Cow;
use std::collections::HashMap;

use crate::detect::{Detector, first_in, from_base64};
use crate::echo::{self, Origin};
use crate::graph::{Graph, Hit, Patterns, State, stronger};
use crate::json::{self, Broken};
use crate::keys::Key;
use crate::pointers::{NodeId, Nodes, Segment};
use crate::policy::{Action, Implied};
use crate::redactor::Form;

/// How deep texts in texts are read: an annotation that has an object with such an annotation.
const TEXTS_MAX: usize = 4;

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

/// A value that is replaced.
pub(crate) struct Replaced {
    pub(crate) node: NodeId,
    pub(crate) hit: Hit,
    /// Extent of the value.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A stretch of the text, and what takes its place.
pub(crate) struct Edit {
    start: usize,
    end: usize,
    with: Vec<u8>,
}

/// A stretch of the stack of states.
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
    RequestUri,
    Status,
    Details,
    Message,
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
    /// The states at the root of any body.
    bodies: Span,
    targets: Vec<Target>,
    frames: Vec<Frame>,
    depth: usize,
    pub(crate) nodes: Nodes,
    edits: Vec<Edit>,
    pub(crate) replaced: Vec<Replaced>,
    /// Strings that were kept and may repeat a value, and the label if they do.
    pub(crate) candidates: Vec<(usize, usize, u16)>,
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
            bodies: Span::EMPTY,
            targets: Vec::new(),
            frames: Vec::new(),
            depth: 0,
            nodes: Nodes::default(),
            edits: Vec::new(),
            replaced: Vec::new(),
            candidates: Vec::new(),
            beside: Vec::new(),
            members: Vec::new(),
        };
        context.graph.begin_bodies(&mut walk.states, 0, context.applicable);
        walk.bodies.end = walk.states.len();
        walk
    }

    /// Returns the text with its edits.
    pub(crate) fn edited(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len());
        let mut at = 0;
        for edit in &self.edits {
            out.extend_from_slice(&self.text[at..edit.start]);
            out.extend_from_slice(&edit.with);
            at = edit.end;
        }
        out.extend_from_slice(&self.text[at..]);
        out
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
            let state = self.states[index];
            hit = stronger(hit, graph.step(&mut self.states, start, applicable, state, name));
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
            Place::User => states.is_empty(),
            Place::Plain | Place::Fields { is_hit: false } => states.is_empty() && !is_searched,
            Place::Record | Place::Payload | Place::Beside | Place::RequestUri | Place::Operation(_) => false,
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
                    Place::Skip | Place::Record | Place::Payload | Place::Beside | Place::RequestUri => None,
                    Place::User => self.scalar_hit(states, place),
                    Place::Message if self.has_bodies() => Some(dropped(Implied::Message)),
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
        if value == b"null" && hit.action == Action::Tokenise {
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
        self.depth -= 1;
        Ok((end, None))
    }

    fn enter(&mut self) -> Result<(), Broken> {
        if self.depth >= strongroom_decode::DEPTH_MAX {
            return Err(Broken::TooDeep);
        }
        self.depth += 1;
        Ok(())
    }

    // Places.

    /// Returns what a member is visited with, and the hit of the whole object, if the name has a
    /// value in it.
    fn member(
        &mut self,
        states: Span,
        place: Place,
        name: &[u8],
        value_at: usize,
    ) -> (Span, Option<Hit>, Place, Option<Hit>) {
        if let Place::Fields { is_hit } = place {
            return self.field(states, is_hit, name);
        }
        if let Place::Operation(target) = place {
            let is_known = [&b"op"[..], b"path", b"from"].iter().any(|known| name == *known);
            let is_value = !is_known || self.text.get(value_at) != Some(&b'"');
            return match self.targets.get(target) {
                Some(target) if is_value => {
                    (target.states, target.hit, target.place, self.named(place, name))
                }
                _ => (Span::EMPTY, None, Place::Plain, None),
            };
        }
        let (mut inner, mut hit) = self.step(states, Some(name));
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let (is_object, is_array) =
            (self.text.get(value_at) == Some(&b'{'), self.text.get(value_at) == Some(&b'['));
        let inner_place = match place {
            Place::Record => self.record_member(name, inner),
            Place::Payload => match () {
                () if is("request") || is("response") || is("resourceOriginalState") => Place::Body(inner),
                () if is("status") => Place::Status,
                () if is("authenticationInfo") => Place::User,
                () if PAYLOAD_MEMBERS.iter().any(|known| is(known)) => Place::Skip,
                () => Place::Beside,
            },
            Place::Status | Place::Details if is("message") => Place::Message,
            Place::Status if is("details") => Place::Details,
            Place::Details => Place::Details,
            Place::AuditAnnotations => Place::AuditAnnotation(echo::origin(name)),
            Place::Body(root) => match () {
                () if is("items") && is_array => Place::Items(root),
                () if is("rows") && is_array => Place::Rows(root),
                () if is("object") && (is_object || is_array) => {
                    self.add(inner.start, root);
                    inner.end = self.states.len();
                    Place::Body(root)
                }
                () if is("value") && is_array => Place::Patch { root, is_body: false },
                () if is("metadata") => Place::Metadata,
                () if is("message") && !self.context.keeps_messages => Place::Message,
                () if is("details") && !self.context.keeps_messages => Place::Details,
                () if is("raw") && !root.is_empty() && !is_object && !is_array => {
                    hit = stronger(hit, Some(dropped(Implied::Wrapped)));
                    Place::Plain
                }
                () => Place::Plain,
            },
            Place::Row(root) if is("object") => {
                self.add(inner.start, root);
                inner.end = self.states.len();
                Place::Body(root)
            }
            Place::Row(root) if is("cells") && !root.is_empty() && !self.context.keeps_cells => {
                hit = stronger(hit, Some(dropped(Implied::Cells)));
                Place::Plain
            }
            Place::Metadata if is("annotations") => Place::Annotations,
            Place::Metadata if is("managedFields") => Place::ManagedFields,
            // An annotation is a string; an object in its place may be anything.
            Place::Annotations if is_object || is_array => {
                self.add(inner.start, self.bodies);
                inner.end = self.states.len();
                Place::Body(self.bodies)
            }
            Place::Annotations => Place::Annotation,
            Place::ManagedFields if is("fieldsV1") => {
                inner = self.bodies;
                Place::Fields { is_hit: false }
            }
            Place::WebhookPatch if is("patch") => {
                inner = self.bodies;
                Place::Patch { root: inner, is_body: true }
            }
            Place::User => Place::User,
            Place::Skip => Place::Skip,
            _ => Place::Plain,
        };
        (inner, hit, inner_place, self.named(place, name))
    }

    fn record_member(&self, name: &[u8], inner: Span) -> Place {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let known = match self.context.form {
            Form::Event => &EVENT_MEMBERS[..],
            Form::GoogleEntry => &ENTRY_MEMBERS[..],
        };
        if self.context.form == Form::Event && EVENT_MEMBERS.iter().any(|known| known.as_bytes() == name) {
            return Place::Skip;
        }
        match self.context.form {
            Form::Event if is("requestObject") || is("responseObject") => Place::Body(inner),
            Form::Event if is("annotations") => Place::AuditAnnotations,
            Form::Event if is("responseStatus") => Place::Status,
            Form::Event if is("requestURI") => Place::RequestUri,
            Form::Event if is("user") || is("impersonatedUser") => Place::User,
            Form::GoogleEntry if is("protoPayload") => Place::Payload,
            Form::GoogleEntry if is("labels") => Place::AuditAnnotations,
            _ if known.iter().any(|known| is(known)) => Place::Skip,
            _ => Place::Beside,
        }
    }

    /// Returns the hit of an object that has a member of this name.
    fn named(&self, place: Place, name: &[u8]) -> Option<Hit> {
        let is_seen =
            !matches!(place, Place::Record | Place::Payload | Place::Skip | Place::Beside | Place::User);
        if !is_seen || self.context.detectors.is_empty() {
            return None;
        }
        first_in(self.context.detectors, name).map(|_| dropped(Implied::Name))
    }

    /// A field of `managedFields`. Its names stand for members (`f:name`) or are values themselves:
    /// of the element of a set (`v:…`), or of the keys of an element (`k:{…}`).
    fn field(&mut self, states: Span, is_hit: bool, name: &[u8]) -> (Span, Option<Hit>, Place, Option<Hit>) {
        let has_value = Some(dropped(Implied::ManagedFields));
        let named = self.named(Place::Plain, name);
        let (inner, is_hit, whole) = match (name.first_chunk::<2>(), name.get(2..)) {
            (Some(b"f:"), Some(rest)) => {
                let (inner, hit) = self.step(states, Some(rest));
                (inner, is_hit || hit.is_some(), None)
            }
            (Some(b"v:"), _) => {
                let (inner, hit) = self.step(states, None);
                let is_value = is_hit || hit.is_some() || self.scalar_hit(inner, Place::Plain).is_some();
                (inner, is_hit, if is_value { has_value } else { None })
            }
            (Some(b"k:"), Some(keys)) => {
                let (inner, hit) = self.step(states, None);
                let mut is_value = is_hit || hit.is_some();
                let all = inner.end;
                let read =
                    json::each_member(keys, json::skip_white(keys, 0), 0, |(start, end), at, depth| {
                        let (key, hit) = self.step(inner, Some(&json::unescape(&keys[start..end])));
                        is_value |= hit.is_some() || self.scalar_hit(key, Place::Plain).is_some();
                        json::value_end(keys, at, depth)
                    });
                self.states.truncate(all);
                is_value |= read.is_err() && !states.is_empty();
                (inner, is_hit, if is_value { has_value } else { None })
            }
            (Some(b"i:"), _) => {
                let (inner, hit) = self.step(states, None);
                (inner, is_hit || hit.is_some(), None)
            }
            _ => (Span::EMPTY, is_hit, None),
        };
        (inner, None, Place::Fields { is_hit }, stronger(whole, named))
    }

    /// Returns what an element of an array is visited with.
    fn element(
        &mut self,
        states: Span,
        place: Place,
        at: usize,
    ) -> Result<(Span, Option<Hit>, Place), Broken> {
        let is_object = self.text.get(at) == Some(&b'{');
        let is_container = is_object || self.text.get(at) == Some(&b'[');
        if let Place::Patch { root, is_body } = place {
            if is_object && let Some(target) = self.operation(at, root)? {
                self.targets.push(target);
                return Ok((Span::EMPTY, None, Place::Operation(self.targets.len() - 1)));
            }
            if is_body {
                let inner = if is_object { Place::Body(root) } else { place };
                let hit = match self.text.get(at) {
                    Some(b'{' | b'[' | b'n') => None,
                    _ => self.scalar_hit(root, Place::Body(root)),
                };
                return Ok((root, hit, inner));
            }
        }
        let (mut inner, hit) = self.step(states, None);
        let inner_place = match place {
            Place::Items(root) if is_container => {
                self.add(inner.start, root);
                inner.end = self.states.len();
                Place::Body(root)
            }
            Place::Rows(root) if is_object => Place::Row(root),
            Place::ManagedFields if is_object => Place::ManagedFields,
            Place::Details => Place::Details,
            Place::User => Place::User,
            Place::Skip => Place::Skip,
            // A list of messages is no message that is known.
            Place::Message => Place::Message,
            Place::Annotation => Place::Annotation,
            Place::AuditAnnotation(origin) => Place::AuditAnnotation(origin),
            _ => Place::Plain,
        };
        Ok((inner, hit, inner_place))
    }

    /// Reads the pointers of an operation of a JSON patch, and returns where its values go. Where
    /// there are two pointers, both count. Returns `None` if the object is not an operation.
    fn operation(&mut self, at: usize, root: Span) -> Result<Option<Target>, Broken> {
        let text = self.text;
        let mut pointers: Vec<Option<Cow<'t, [u8]>>> = Vec::new();
        let mut is_operation = false;
        json::each_member(text, at, self.depth, |(start, end), at, depth| {
            let name = json::unescape(&text[start..end]);
            let value_end = json::value_end(text, at, depth)?;
            is_operation |= name.eq_ignore_ascii_case(b"op");
            if name.eq_ignore_ascii_case(b"path") {
                is_operation = true;
                let pointer = (text.get(at) == Some(&b'"')).then(|| json::unescape(&text[at..value_end]));
                pointers.push(pointer);
            }
            Ok(value_end)
        })?;
        if !is_operation {
            return Ok(None);
        }
        let start = self.states.len();
        let mut target = Target { states: Span::EMPTY, hit: None, place: Place::Plain };
        if pointers.is_empty() {
            target.hit = self.scalar_hit(root, Place::Body(root));
        }
        for pointer in pointers {
            let place = match pointer.as_deref() {
                Some(b"") => {
                    self.add(start, root);
                    Place::Body(root)
                }
                Some(pointer) if pointer.starts_with(b"/") => {
                    let (place, hit) = self.follow(start, root, &pointer[1..]);
                    target.hit = stronger(target.hit, hit);
                    place
                }
                // No pointer: the value may be meant for any place.
                _ => {
                    target.hit = stronger(target.hit, self.scalar_hit(root, Place::Body(root)));
                    Place::Plain
                }
            };
            if matches!(target.place, Place::Plain) {
                target.place = place;
            }
        }
        target.states = Span { start, end: self.states.len() };
        Ok(Some(target))
    }

    /// Follows a pointer from the root of a body, and adds the states at its end to the newest span,
    /// which begins at `start`.
    fn follow(&mut self, start: usize, root: Span, pointer: &[u8]) -> (Place, Option<Hit>) {
        let mut place = Place::Body(root);
        let mut hit = None;
        let mut states = root;
        let base = self.states.len();
        for segment in pointer.split(|byte| *byte == b'/') {
            let name = unescape_pointer(segment);
            let is_index = segment == b"-" || (!segment.is_empty() && segment.iter().all(u8::is_ascii_digit));
            let next = self.states.len();
            hit = stronger(hit, self.step_on(next, states, Some(&name)));
            if is_index {
                hit = stronger(hit, self.step_on(next, states, None));
            }
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            place = match place {
                Place::Body(root) if is("items") => Place::Items(root),
                Place::Items(root) if is_index => {
                    self.add(next, root);
                    Place::Body(root)
                }
                Place::Body(_) if is("metadata") => Place::Metadata,
                Place::Body(_) if is("message") => Place::Message,
                Place::Metadata if is("annotations") => Place::Annotations,
                Place::Metadata if is("managedFields") => Place::ManagedFields,
                Place::Annotations => Place::Annotation,
                Place::ManagedFields if is_index => Place::ManagedFields,
                _ => Place::Plain,
            };
            states = Span { start: next, end: self.states.len() };
        }
        // Only the last states count; they take the place of those on the way.
        let last: Vec<State> = self.states[states.start..states.end].to_vec();
        self.states.truncate(base);
        last.into_iter().for_each(|state| self.push(start, state));
        (place, hit)
    }

    // Strings.

    fn string(&mut self, at: usize, end: usize, states: Span, place: Place) -> Option<Hit> {
        if matches!(
            place,
            Place::Skip | Place::Record | Place::Payload | Place::Beside | Place::Fields { .. }
        ) {
            return None;
        }
        let literal = &self.text[at..end];
        let hit = self.scalar_hit(states, place);
        if matches!(place, Place::User | Place::RequestUri) || hit.is_some() {
            return hit;
        }
        if self.context.detectors.is_empty() && self.context.names.is_empty() && matches!(place, Place::Plain)
        {
            return None;
        }
        let text = json::unescape(literal);
        if let Some(hit) = self.detected(&text) {
            return Some(hit);
        }
        let candidate = match place {
            Place::Message if !self.has_bodies() || echo::is_plain_message(&text) => None,
            Place::Message => return Some(dropped(Implied::Message)),
            Place::Details if self.has_bodies() => Some(Implied::Message),
            Place::AuditAnnotation(Origin::Server) => None,
            Place::AuditAnnotation(Origin::Quoting) if self.has_bodies() => {
                return Some(dropped(Implied::Annotation));
            }
            Place::AuditAnnotation(_) | Place::Annotation => {
                let is_patch = matches!(place, Place::AuditAnnotation(Origin::WebhookPatch));
                if let Some(hit) = self.hit_in_text(&text, is_patch) {
                    return Some(hit);
                }
                Some(Implied::Annotation)
            }
            _ => None,
        };
        if !self.context.names.is_empty()
            && let Some(hit) = self.names_in(at, end, &text, place)
        {
            return Some(hit);
        }
        if let Some(implied) = candidate
            && text.len() >= echo::ECHO_BYTES_MIN
        {
            self.candidates.push((at, end, implied.label()));
        }
        None
    }

    fn detected(&self, text: &[u8]) -> Option<Hit> {
        first_in(self.context.detectors, text).map(|label| Hit { action: Action::Tokenise, label })
    }

    /// Returns the hit of a text that is JSON and has a value that would be replaced, or looks like
    /// JSON and cannot be read, or is compressed. JSON may be in a JSON string, or in base64.
    fn hit_in_text(&self, text: &[u8], is_webhook_patch: bool) -> Option<Hit> {
        if self.has_bodies() || !self.context.detectors.is_empty() {
            self.hit_in_layers(text, is_webhook_patch, self.context.texts + 1)
        } else {
            None
        }
    }

    fn hit_in_layers(&self, text: &[u8], is_webhook_patch: bool, texts: usize) -> Option<Hit> {
        const GZIP_IN_BASE64: &[u8] = b"H4sI";
        let text = text.trim_ascii();
        let opaque = self.has_bodies().then(|| dropped(Implied::Annotation));
        match text.first() {
            Some(b'{' | b'[' | b'"') if texts > TEXTS_MAX => opaque,
            Some(b'{' | b'[') => {
                let no_forced = HashMap::new();
                let context = Context { texts, forced: &no_forced, names: &[], ..self.context };
                match Walk::inner(text, context, is_webhook_patch) {
                    Ok(walk) => {
                        walk.replaced.first().map(|replaced| Hit { action: Action::Drop, ..replaced.hit })
                    }
                    Err(_) => opaque,
                }
            }
            Some(b'"') => match json::string_end(text, 0) {
                Ok(end) if end == text.len() => {
                    self.hit_in_layers(&json::unescape(text), is_webhook_patch, texts + 1)
                }
                _ => opaque,
            },
            _ if text.starts_with(GZIP_IN_BASE64) => opaque,
            // A text that is neither JSON nor base64 of it is no copy of an object.
            _ => {
                let decoded = from_base64(text)?;
                match decoded.trim_ascii().first() {
                    Some(b'{' | b'[' | b'"') => self.hit_in_layers(&decoded, is_webhook_patch, texts + 1),
                    _ => None,
                }
            }
        }
    }

    /// Replaces the names of users: the whole string if it is a name, else, in messages and
    /// annotations, the name in it.
    fn names_in(&mut self, at: usize, end: usize, text: &[u8], place: Place) -> Option<Hit> {
        let names = self.context.names;
        let hit = Hit { action: Action::Tokenise, label: self.context.names_label };
        if names.iter().any(|name| name == text) {
            return Some(hit);
        }
        if !matches!(place, Place::Message | Place::Details | Place::AuditAnnotation(_) | Place::Annotation) {
            return None;
        }
        let mut replaced: Option<Vec<u8>> = None;
        for name in names {
            let token = self.context.key.token_of_bytes(name);
            let now = replaced.as_deref().unwrap_or(text);
            if let Some(next) = echo::replace_word(now, name, token.as_str().as_bytes()) {
                replaced = Some(next);
            }
        }
        if let Some(replaced) = replaced {
            let mut with = Vec::new();
            json::write_string(&replaced, &mut with);
            self.edits.push(Edit { start: at, end, with });
            self.note(hit, at, end);
        }
        None
    }

    /// A member that is not an event's: a collector's, perhaps with a copy of the event.
    fn beside(&mut self, at: usize) -> Result<(usize, Fate), Broken> {
        let end = json::value_end(self.text, at, self.depth)?;
        let value = &self.text[at..end];
        if matches!(value.first(), Some(b'"' | b'{' | b'[')) {
            // Without the first letter, the names are found however they are put together.
            let is_copy = ["equestObject", "esponseObject", "equest_object", "esponse_object"]
                .iter()
                .any(|name| memchr::memmem::find(value, name.as_bytes()).is_some());
            if self.has_bodies() && is_copy {
                return Ok((end, self.replace(at, end, dropped(Implied::Beside))));
            }
            self.beside.push(at);
        }
        Ok((end, Fate::Kept))
    }

    /// The URI of a request: the values of parameters are replaced in it.
    fn request_uri(&mut self, at: usize, states: Span) -> Result<(usize, Fate), Broken> {
        let end = json::value_end(self.text, at, self.depth)?;
        let text = json::unescape(&self.text[at..end]);
        let query = match self.text.get(at) {
            Some(b'"') if !states.is_empty() => memchr::memchr(b'?', &text),
            _ => None,
        };
        let Some(query) = query else { return Ok((end, Fate::Kept)) };
        let mut out = text[..query].to_vec();
        let (mut separator, mut is_changed) = (b'?', false);
        for parameter in text[query + 1..].split(|byte| *byte == b'&') {
            let (name, value) = match memchr::memchr(b'=', parameter) {
                Some(at) => (&parameter[..at], Some(&parameter[at + 1..])),
                None => (parameter, None),
            };
            let decoded = percent_decoded(name);
            let states_end = self.states.len();
            let (_, hit) = self.step(states, Some(&decoded));
            self.states.truncate(states_end);
            match (hit, value) {
                (Some(hit), _) if hit.action == Action::Drop => {
                    let segment = Segment::Owned(decoded);
                    self.frames.push(Frame { segment, at, node: None });
                    self.note(hit, at, end);
                    self.frames.pop();
                    is_changed = true;
                    continue;
                }
                (Some(hit), Some(value)) if !value.is_empty() => {
                    self.note(hit, at, end);
                    is_changed = true;
                    out.push(separator);
                    out.extend_from_slice(name);
                    out.push(b'=');
                    let token = self.context.key.token_of_bytes(&percent_decoded(value));
                    out.extend_from_slice(token.as_str().as_bytes());
                }
                _ => {
                    out.push(separator);
                    out.extend_from_slice(parameter);
                }
            }
            separator = b'&';
        }
        if is_changed {
            let mut with = Vec::new();
            json::write_string(&out, &mut with);
            self.edits.push(Edit { start: at, end, with });
        }
        Ok((end, Fate::Kept))
    }
}

/// Members of an event that are never changed. The others are handled by name.
const EVENT_MEMBERS: [&str; 16] = [
    "kind",
    "apiVersion",
    "metadata",
    "level",
    "auditID",
    "stage",
    "verb",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "authenticationMetadata",
    "k8s_audit_level",
    "openshift_audit_level",
    "method",
];
const ENTRY_MEMBERS: [&str; 8] =
    ["insertId", "logName", "operation", "receiveTimestamp", "resource", "severity", "timestamp", "spanId"];
const PAYLOAD_MEMBERS: [&str; 9] = [
    "@type",
    "authorizationInfo",
    "methodName",
    "numResponseItems",
    "requestMetadata",
    "resourceLocation",
    "resourceName",
    "serviceName",
    "policyViolationInfo",
];

/// Undoes the escapes of a JSON pointer.
fn unescape_pointer(segment: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'~', segment).is_none() {
        return Cow::Borrowed(segment);
    }
    let mut out = Vec::with_capacity(segment.len());
    let mut rest = segment.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        let escaped = if byte == b'~' { rest.next_if(|next| matches!(next, b'0' | b'1')) } else { None };
        out.push(match escaped {
            Some(b'0') => b'~',
            Some(_) => b'/',
            None => byte,
        });
    }
    Cow::Owned(out)
}

/// Undoes the escapes of a query parameter.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(*byte),
        }
        at += 1;
    }
    out
}
