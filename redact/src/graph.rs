//! The paths of a policy as one graph, so that their common beginnings are compared only once.
//!
//! Terms: a *node* stands for the first steps that some paths have in common. A *state* is a node
//! that the steps from the record to a value lead to; because of `*`, `[]` and `**`, a value may
//! have several states. If a path ends at a node, that is a *hit*. A `**` has a node of its own, to
//! which every further step leads again.
//!
//! Which paths apply differs from event to event, so every question has the set of those that do.
//! A path that goes on below a `**` with a name is *asleep* in a text that has the name nowhere: it
//! is not followed through the text, because it cannot end there.
//!
//! Invariant: the results are the same as if each path were compared alone; a test compares the
//! two. The functions keep no state of their own.

use crate::path::Step;

/// What is done to a value. The stronger action is the greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The value is replaced by a token.
    Tokenise,
    /// The value is removed.
    Drop,
}

impl Action {
    pub const ALL: [Action; 2] = [Action::Tokenise, Action::Drop];

    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Tokenise => "tokenise",
            Action::Drop => "drop",
        }
    }
}

/// A path, with its steps for one kind of record, and the action at its end.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) steps: Vec<Step>,
    pub(crate) action: Action,
    /// Index of the path's label, which is the text shown to people.
    pub(crate) label: u16,
    /// Number of steps from the record to the body; 0 if the path is not about a body.
    pub(crate) body_steps: usize,
}

/// A set of patterns, by their indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patterns(Vec<u64>);

impl Patterns {
    pub(crate) fn add(&mut self, index: usize) {
        let (word, bit) = (index / 64, index % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn remove_all(&mut self, others: &Patterns) {
        self.0.iter_mut().zip(&others.0).for_each(|(own, other)| *own &= !other);
    }

    fn meets(&self, other: &Patterns) -> bool {
        self.0.iter().zip(&other.0).any(|(one, other)| one & other != 0)
    }

    fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }
}

/// What is done to a value, and the label of the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) action: Action,
    pub(crate) label: u16,
}

/// Returns the stronger of two hits.
pub(crate) fn stronger(one: Option<Hit>, other: Option<Hit>) -> Option<Hit> {
    match (one, other) {
        (Some(one), Some(other)) if other.action > one.action => Some(other),
        (one, other) => one.or(other),
    }
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Members by name, sorted by the length of the name.
    names: Vec<(Box<[u8]>, u32)>,
    any_member: Option<u32>,
    any_element: Option<u32>,
    any_depth: Option<u32>,
    /// True for the node of a `**`.
    is_depth: bool,
    /// Patterns that end here. At the node of a `**`, they end at every scalar below.
    ends: Vec<(u16, Hit)>,
    /// Patterns that continue from here with a member, with an element, or with any step.
    members: Patterns,
    elements: Patterns,
    all: Patterns,
}

/// A position in the graph.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    node: u32,
    /// True inside a list for which the path has no step. Then only steps to members are followed.
    is_inside: bool,
}

/// The paths of a policy for one kind of record.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    /// The nodes at the roots of bodies.
    bodies: Vec<u32>,
    /// The hit of each pattern, by its index.
    hits: Vec<Hit>,
    /// Names that patterns go on with below a `**` at the root of a body, in lower case.
    words: Vec<(Box<[u8]>, Patterns)>,
}

impl Graph {
    pub(crate) fn new(patterns: &[Pattern]) -> Graph {
        let hits = patterns.iter().map(|own| Hit { action: own.action, label: own.label }).collect();
        let mut graph = Graph { nodes: vec![Node::default()], bodies: Vec::new(), hits, words: Vec::new() };
        for (index, pattern) in patterns.iter().enumerate() {
            graph.insert(index, pattern);
            if let Some(word) = word_of(pattern) {
                match graph.words.iter_mut().find(|(own, _)| **own == *word) {
                    Some((_, patterns)) => patterns.add(index),
                    None => {
                        let mut patterns = Patterns::default();
                        patterns.add(index);
                        graph.words.push((word.into(), patterns));
                    }
                }
            }
        }
        graph
    }

    /// Returns those patterns of `of` that may be followed through a text: the others are asleep in
    /// it.
    pub(crate) fn awake(&self, text: &[u8], of: &Patterns) -> Patterns {
        let mut awake = of.clone();
        // A letter that is written as an escape may be a part of any name.
        if self.words.iter().any(|(_, patterns)| patterns.meets(of)) && !has_letter_escape(text) {
            for (word, patterns) in &self.words {
                if patterns.meets(of) && !has_word(text, word) {
                    awake.remove_all(patterns);
                }
            }
        }
        awake
    }

    fn insert(&mut self, index: usize, pattern: &Pattern) {
        let mut at = 0;
        for (taken, step) in pattern.steps.iter().enumerate() {
            let new = self.nodes.len() as u32;
            let node = &mut self.nodes[at as usize];
            node.all.add(index);
            match step {
                Step::AnyElement => node.elements.add(index),
                Step::Name(_) | Step::AnyMember => node.members.add(index),
                Step::AnyDepth => {}
            }
            let next = match step {
                Step::AnyMember => *node.any_member.get_or_insert(new),
                Step::AnyElement => *node.any_element.get_or_insert(new),
                Step::AnyDepth => *node.any_depth.get_or_insert(new),
                Step::Name(name) => {
                    let name = name.to_ascii_lowercase().into_bytes();
                    match node.names.iter().find(|(own, _)| **own == *name) {
                        Some((_, next)) => *next,
                        None => {
                            let place = node.names.partition_point(|(own, _)| own.len() < name.len());
                            node.names.insert(place, (name.into(), new));
                            new
                        }
                    }
                }
            };
            if next == new {
                self.nodes.push(Node { is_depth: matches!(step, Step::AnyDepth), ..Node::default() });
            }
            at = next;
            if taken + 1 == pattern.body_steps && !self.bodies.contains(&at) {
                self.bodies.push(at);
            }
        }
        let node = &mut self.nodes[at as usize];
        node.ends.push((index as u16, Hit { action: pattern.action, label: pattern.label }));
        if node.is_depth {
            node.all.add(index);
        }
    }

    /// Adds the state of the record itself.
    pub(crate) fn begin(&self, states: &mut Vec<State>, from: usize, of: &Patterns) {
        self.push(states, from, of, State { node: 0, is_inside: false });
    }

    /// Adds the states at the roots of all bodies.
    pub(crate) fn begin_bodies(&self, states: &mut Vec<State>, from: usize, of: &Patterns) {
        for node in &self.bodies {
            self.push(states, from, of, State { node: *node, is_inside: false });
        }
    }

    /// Adds a state to the newest states, which begin at `from`, if a pattern of `of` continues
    /// from it.
    pub(crate) fn push(&self, states: &mut Vec<State>, from: usize, of: &Patterns, state: State) {
        let node = &self.nodes[state.node as usize];
        if !node.all.meets(of) || states[from..].contains(&state) {
            return;
        }
        states.push(state);
        if let Some(depth) = node.any_depth.filter(|_| !state.is_inside) {
            self.push(states, from, of, State { node: depth, is_inside: false });
        }
    }

    /// Adds the states one step after a state, to a member of this name, or to an element. Returns
    /// the hit there. `awake` are the patterns of `of` that are not asleep.
    pub(crate) fn step(
        &self,
        states: &mut Vec<State>,
        from: usize,
        (of, awake): (&Patterns, &Patterns),
        state: State,
        name: Option<&[u8]>,
    ) -> Option<Hit> {
        let node = &self.nodes[state.node as usize];
        let mut hit = None;
        if node.is_depth && node.all.meets(awake) {
            self.push(states, from, of, state);
        }
        let mut to = |next: u32| {
            let own = &self.nodes[next as usize];
            let ends = own.ends.iter().filter(|(index, _)| of.contains(usize::from(*index)));
            ends.for_each(|(_, own)| hit = stronger(hit, Some(*own)));
            self.push(states, from, of, State { node: next, is_inside: false });
        };
        // In an object, `[]` matches every member, because a list may be written as an object.
        if let Some(next) = node.any_element.filter(|_| !state.is_inside) {
            to(next);
        }
        match name {
            Some(name) => {
                node.any_member.into_iter().for_each(&mut to);
                node.named(name).for_each(&mut to);
                let directed = directed(name);
                if directed.len() < name.len() {
                    node.named(directed).for_each(&mut to);
                }
            }
            // If a path names a member and the value is a list, the path is applied to the list's
            // elements.
            None if !node.is_depth && node.members.meets(of) => {
                self.push(states, from, of, State { is_inside: true, ..state });
            }
            None => {}
        }
        hit
    }

    /// Returns the hit of a scalar in a position from which a path would continue. If the scalar is
    /// a whole body (`is_body`), it may contain any value, so paths that continue after a `**` hit
    /// it, too.
    pub(crate) fn scalar_hit(&self, of: &Patterns, state: State, is_body: bool) -> Option<Hit> {
        let node = &self.nodes[state.node as usize];
        let mut hit = None;
        if node.is_depth {
            let ends = node.ends.iter().filter(|(index, _)| of.contains(usize::from(*index)));
            ends.for_each(|(_, own)| hit = stronger(hit, Some(*own)));
        }
        if node.is_depth && !is_body {
            return hit;
        }
        hit = stronger(hit, self.strongest(&node.members, of));
        if state.is_inside { hit } else { stronger(hit, self.strongest(&node.elements, of)) }
    }

    /// Returns the strongest hit of the patterns that are in both sets.
    fn strongest(&self, patterns: &Patterns, of: &Patterns) -> Option<Hit> {
        let both = patterns.0.iter().zip(&of.0).enumerate().filter(|(_, (one, other))| *one & *other != 0);
        let indexes = both.flat_map(|(word, (one, other))| {
            (0..64).filter(move |bit| one & other & (1 << bit) != 0).map(move |bit| word * 64 + bit)
        });
        indexes.filter_map(|index| self.hits.get(index)).fold(None, |hit, own| stronger(hit, Some(*own)))
    }
}

impl Node {
    /// Returns the nodes that a step to the member `name` leads to. The case of ASCII letters is
    /// ignored.
    fn named(&self, name: &[u8]) -> impl Iterator<Item = u32> {
        let start = self.names.partition_point(|(own, _)| own.len() < name.len());
        self.names[start..]
            .iter()
            .take_while(move |(own, _)| own.len() == name.len())
            .filter(move |(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, next)| *next)
    }
}

/// Returns the name of the member that a directive of a strategic merge patch is about, such as
/// `env` for `$setElementOrder/env` and `$deleteFromPrimitiveList/env`. Returns any other name
/// unchanged.
fn directed(name: &[u8]) -> &[u8] {
    match name.first() {
        Some(b'$') => memchr::memchr(b'/', name).map_or(name, |at| &name[at + 1..]),
        _ => name,
    }
}

/// Returns the name without which a pattern cannot end below the root of a body, in lower case: that
/// after a `**` at the root. It has letters alone, so there is one way to write it without escapes.
fn word_of(pattern: &Pattern) -> Option<Vec<u8>> {
    let is_word = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    match pattern.steps.get(pattern.body_steps..)? {
        [Step::AnyDepth, Step::Name(name), ..] if pattern.body_steps > 0 && is_word(name) => {
            Some(name.to_ascii_lowercase().into_bytes())
        }
        _ => None,
    }
}

/// Whether a letter is written as an escape.
fn has_letter_escape(text: &[u8]) -> bool {
    memchr::memmem::find_iter(text, b"\\u00").any(|at| matches!(text.get(at + 4), Some(b'4'..=b'7')))
}

/// Letters, the rarest in names and texts first.
const RARE_FIRST: &[u8; 26] = b"qzxjvkwybfghumpdclorsnatie";

/// Whether a word of lower-case letters is in a text, without regard to case.
fn has_word(text: &[u8], word: &[u8]) -> bool {
    let rarity = |letter: &u8| RARE_FIRST.iter().position(|own| own == letter);
    let rarest = word.iter().enumerate().min_by_key(|(_, letter)| rarity(letter));
    let Some((at, letter)) = rarest else { return true };
    memchr::memchr2_iter(*letter, letter.to_ascii_uppercase(), text).any(|found| {
        let start = found.checked_sub(at);
        start
            .and_then(|start| text.get(start..start + word.len()))
            .is_some_and(|own| own.eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the members in `way`, and returns the label of the hit at its end.
    fn hit(graph: &Graph, of: &Patterns, way: &[&str]) -> Option<u16> {
        let mut states = Vec::new();
        graph.begin(&mut states, 0, of);
        let mut last = None;
        for name in way {
            let before = states.len();
            last = None;
            for state in states.clone() {
                let name = Some(name.as_bytes());
                last = stronger(last, graph.step(&mut states, before, (of, of), state, name));
            }
            states.drain(..before);
        }
        last.map(|hit| hit.label)
    }

    #[test]
    fn each_path_is_followed_for_itself() {
        let name = |text: &str| Step::Name(text.to_owned());
        let paths = [
            vec![name("a"), name("data")],
            vec![name("a"), name("$x/y")],
            vec![name("a"), Step::AnyDepth, name("data")],
            vec![name("b"), Step::AnyElement],
        ];
        let patterns: Vec<Pattern> = (0_u16..)
            .zip(paths)
            .map(|(label, steps)| Pattern { steps, action: Action::Drop, label, body_steps: 1 })
            .collect();
        let graph = Graph::new(&patterns);
        let of = |indexes: &[usize]| {
            let mut set = Patterns::default();
            indexes.iter().for_each(|index| set.add(*index));
            set
        };
        let all = of(&[0, 1, 2, 3]);
        assert_eq!(hit(&graph, &all, &["a", "Data"]), Some(0));
        assert_eq!(hit(&graph, &all, &["a", "$setElementOrder/data"]), Some(0));
        assert_eq!(hit(&graph, &all, &["a", "$x/y"]), Some(1));
        assert_eq!(hit(&graph, &all, &["a", "b", "data"]), Some(2));
        assert_eq!(hit(&graph, &all, &["b", "data"]), Some(3));
        assert_eq!(hit(&graph, &all, &["a", "x/data"]), None);
        assert_eq!(hit(&graph, &of(&[1, 2]), &["a", "data"]), Some(2));
        assert_eq!(hit(&graph, &of(&[3]), &["a", "data"]), None);
        assert_eq!(hit(&graph, &of(&[]), &["a", "data"]), None);
        // Only what is below a `**` falls asleep.
        for (text, expected) in [
            (r#"{"a":{"Data":1}}"#, &all),
            (r#"{"a":{"d\u0061ta":1}}"#, &all),
            (r#"{"a":{"dat":1,"x":"\u0026"}}"#, &of(&[0, 1, 3])),
            ("", &of(&[0, 1, 3])),
        ] {
            assert_eq!(graph.awake(text.as_bytes(), &all), *expected, "{text}");
        }
        assert_eq!(graph.awake(b"", &of(&[0, 1])), of(&[0, 1]));
    }

    #[test]
    fn words_are_found_in_any_case_and_place() {
        for (text, word, expected) in [
            ("env", "env", true),
            ("x-ENV", "env", true),
            ("eNvy", "env", true),
            ("en", "env", false),
            ("vvnenev", "env", false),
            ("nv env", "env", true),
            ("aaaaab", "aab", true),
        ] {
            assert_eq!(has_word(text.as_bytes(), word.as_bytes()), expected, "{text}");
        }
    }
}
