//! Gates: columns with few distinct values, which exclude rules before any rule is evaluated on a
//! row.
//!
//! Terms. A *place* is the number of a distinct value of a gate's column in one block, from 1;
//! place 0 is null. A *mask* has one bit for each rule of a *group* of up to 128 rules. For each
//! group and each place of a gate, there is a mask of the rules that can match. The *candidates* of
//! a row are the rules whose bits are set in the masks of all its values.
//!
//! Invariant: a gate never excludes a rule that could match. For each rule and each value of the
//! gate's column, the condition is evaluated with the leaves on other columns unknown. The rule
//! loses its bit for that value only if the condition is false whatever those leaves are. No state
//! outlives a block.
//!
//! A rule that needs a value in either of two columns (this user *or* that group is impersonated)
//! is excluded by neither column alone. If such columns are mostly null, there is also a gate over
//! pairs of their values.

use arrow_array::{Array, Int32Array};
use hashbrown::HashMap;
use strongroom_schemas::events::index;

use crate::columns::{Column, Columns, Lists, Strings, Text};
use crate::compile::{Gate, PAIRS, Program, Question, RULES_A_MASK};
use crate::fields::Field;
use crate::memo::Memo;
use crate::outcome;
use crate::pattern::Test;

/// A column with more distinct values than this in one block is not used as a gate.
const DISTINCT_MAX: usize = 4096;

/// The distinct values of a gate's column, without null.
enum Values<'a> {
    One(Strings<'a>),
    /// Names of users, then names of impersonated users.
    Two(Strings<'a>, Strings<'a>),
    Texts(Vec<&'a str>),
    Numbers(Vec<String>),
    /// Distinct lists, each as the dictionary keys of its items, and the dictionary.
    Lists(Vec<&'a [i32]>, Strings<'a>),
}

impl Values<'_> {
    fn places(&self) -> usize {
        1 + match self {
            Values::One(strings) => strings.len(),
            Values::Two(first, second) => first.len() + second.len(),
            Values::Texts(texts) => texts.len(),
            Values::Numbers(texts) => texts.len(),
            Values::Lists(lists, _) => lists.len(),
        }
    }

    fn passes(&self, place: usize, test: &Test) -> bool {
        let Some(at) = place.checked_sub(1) else { return test.matches(None) };
        match self {
            Values::One(strings) => test.matches(strings.get(at)),
            Values::Two(first, second) => test.matches(match at.checked_sub(first.len()) {
                None => first.get(at),
                Some(at) => second.get(at),
            }),
            Values::Texts(texts) => test.matches(Some(texts[at])),
            Values::Numbers(texts) => test.matches(Some(&texts[at])),
            Values::Lists(lists, values) => lists[at]
                .iter()
                .any(|key| test.matches(usize::try_from(*key).ok().and_then(|key| values.get(key)))),
        }
    }
}

/// Maximum number of places of a gate over pairs of values.
const PAIRS_MAX: usize = 1 << 14;

/// An open gate in one block: the place of each row's value, and the masks of the places.
pub(crate) struct OpenGate {
    /// Position in [`Program::gates`]; `None` for a gate over pairs of values. The results of the
    /// leaves of such a gate are in the memos of the two gates that it combines.
    pub(crate) gate: Option<usize>,
    pub(crate) places: Vec<u32>,
    /// A mask for each group of rules and each place: `masks[group * places_count + place]`.
    masks: Vec<u128>,
    places_count: usize,
}

impl OpenGate {
    pub(crate) fn masks(&self, group: usize) -> &[u128] {
        &self.masks[group * self.places_count..(group + 1) * self.places_count]
    }
}

/// [`sift`] divides the rows into classes by a gate only if the number of existing classes,
/// multiplied by the gate's number of places, is at most this.
const CLASSES_MAX: usize = 1 << 18;

/// The rows of a block that have candidate rules, in order.
pub(crate) struct OpenRows {
    /// The number of each row, and its class. Before the gates in `rest` are applied, rows of one
    /// class have the same candidates.
    pub(crate) rows: Vec<(u32, u32)>,
    /// Positions of the open gates that did not divide the rows into classes. The masks of these
    /// gates are looked up for each row.
    rest: Vec<usize>,
    /// The candidates of each class: `masks[class * groups + group]`.
    masks: Vec<u128>,
    groups: usize,
}

impl OpenRows {
    /// Calls `see` with the position of each candidate rule of a row in [`Program::rules`], in
    /// ascending order. Stops when `see` returns false.
    pub(crate) fn rules(
        &self,
        gates: &[OpenGate],
        (at, class): (u32, u32),
        mut see: impl FnMut(usize) -> bool,
    ) {
        let masks = &self.masks[class as usize * self.groups..][..self.groups];
        for (group, mask) in masks.iter().enumerate() {
            let rest = self.rest.iter().map(|gate| &gates[*gate]);
            let mut left =
                rest.fold(*mask, |mask, gate| mask & gate.masks(group)[gate.places[at as usize] as usize]);
            while left != 0 {
                if !see(group * RULES_A_MASK + left.trailing_zeros() as usize) {
                    return;
                }
                left &= left - 1;
            }
        }
    }
}

/// Applies one gate after the other to the rows, and returns the rows that have candidates. A row
/// without a candidate is dropped at once; the first two gates drop most rows. The candidates are
/// computed once for each pair of class and value, not for each row.
pub(crate) fn sift(program: &Program, gates: &[OpenGate], rows: usize) -> OpenRows {
    const UNSEEN: u32 = u32::MAX;
    const CLOSED: u32 = u32::MAX - 1;
    let groups = program.rules.len().div_ceil(RULES_A_MASK);
    let all = (0..groups).map(|group| {
        let rules = program.rules.len() - group * RULES_A_MASK;
        u128::MAX >> (RULES_A_MASK - rules.min(RULES_A_MASK))
    });
    let mut open = OpenRows { rows: Vec::new(), rest: Vec::new(), masks: all.collect(), groups };
    if groups == 0 {
        return open;
    }
    let mut table: Vec<u32> = Vec::new();
    for (at, gate) in gates.iter().enumerate() {
        let (before, mut after) = (std::mem::take(&mut open.masks), Vec::new());
        let width = gate.places_count;
        if before.len() / groups * width > CLASSES_MAX {
            open.masks = before;
            open.rest.push(at);
            continue;
        }
        table.clear();
        table.resize(before.len() / groups * width, UNSEEN);
        let mut sift = |row: u32, class: u32| {
            let place = gate.places[row as usize] as usize;
            let known = &mut table[class as usize * width + place];
            if *known == UNSEEN {
                let from = after.len();
                let of_class = &before[class as usize * groups..][..groups];
                after
                    .extend(of_class.iter().enumerate().map(|(group, mask)| mask & gate.masks(group)[place]));
                *known = (from / groups) as u32;
                if after[from..].iter().all(|mask| *mask == 0) {
                    after.truncate(from);
                    *known = CLOSED;
                }
            }
            (*known != CLOSED).then_some((row, *known))
        };
        if at == open.rest.len() {
            // Before the first gate all rows are in one class.
            open.rows.extend((0..rows as u32).filter_map(|row| sift(row, 0)));
        } else {
            let mut kept = 0;
            for seen in 0..open.rows.len() {
                let (row, class) = open.rows[seen];
                if let Some(left) = sift(row, class) {
                    open.rows[kept] = left;
                    kept += 1;
                }
            }
            open.rows.truncate(kept);
        }
        open.masks = after;
    }
    if gates.len() == open.rest.len() {
        open.rows.extend((0..rows as u32).map(|row| (row, 0)));
    }
    open
}

/// Opens the gates of a block: finds the place of each row's value and the mask of each place. The
/// results of the gates' leaves are stored in `memos`, by place.
///
/// `spare` has buffers of earlier blocks for reuse.
pub(crate) fn open(
    program: &Program,
    columns: &Columns<'_>,
    memos: &mut [Memo],
    spare: &mut Vec<Vec<u32>>,
) -> Vec<OpenGate> {
    let mut opened = Vec::with_capacity(program.gates.len());
    for (at, gate) in program.gates.iter().enumerate() {
        let mut places = spare.pop().unwrap_or_default();
        places.clear();
        places.reserve(columns.rows);
        match load(&gate.field, columns, &mut places) {
            Some(values) if values.places() <= DISTINCT_MAX + 1 => {
                let masks = masks_of(program, gate, &values, memos);
                opened.push(OpenGate { gate: Some(at), places, masks, places_count: values.places() });
            }
            _ => spare.push(places),
        }
    }
    let first = |wanted: &Field| {
        opened.iter().find(|open| open.gate.is_some_and(|gate| program.gates[gate].field == *wanted))
    };
    let pairs: Vec<OpenGate> = PAIRS
        .iter()
        .filter_map(|(left, right)| {
            let places = spare.pop().unwrap_or_default();
            pair(program, first(left)?, first(right)?, memos, places)
        })
        .collect();
    // Gates over pairs are placed after the first gate. Their values are rare, so they exclude most
    // of their rules.
    let after_first = opened.len().min(1);
    opened.splice(after_first..after_first, pairs);
    opened
}

/// Returns a gate over the pairs of values that two open gates have in the same rows; `None` if no
/// rule tests both columns, or if there are too many pairs.
fn pair(
    program: &Program,
    left: &OpenGate,
    right: &OpenGate,
    memos: &[Memo],
    mut places: Vec<u32>,
) -> Option<OpenGate> {
    let (left_gate, right_gate) = (&program.gates[left.gate?], &program.gates[right.gate?]);
    let rules: Vec<usize> =
        left_gate.rules.iter().copied().filter(|rule| right_gate.rules.contains(rule)).collect();
    let places_count = left.places_count * right.places_count;
    if rules.is_empty() || places_count > PAIRS_MAX {
        return None;
    }
    let width = right.places_count as u32;
    places.clear();
    places.extend(left.places.iter().zip(&right.places).map(|(left, right)| left * width + right));
    let masks = masks_by(program, &rules, places_count, |leaf| {
        if left_gate.leaves.contains(&leaf) {
            Some(Answers { memo: &memos[leaf], divide: right.places_count, modulo: usize::MAX })
        } else if right_gate.leaves.contains(&leaf) {
            Some(Answers { memo: &memos[leaf], divide: 1, modulo: right.places_count })
        } else {
            None
        }
    });
    Some(OpenGate { gate: None, places, masks, places_count })
}

fn masks_of(program: &Program, gate: &Gate, values: &Values<'_>, memos: &mut [Memo]) -> Vec<u128> {
    let places_count = values.places();
    for &leaf in &gate.leaves {
        let Question::Test(_, test) = &program.leaves[leaf].question else {
            unreachable!("gates are made of tests")
        };
        memos[leaf].fill(places_count, |place| values.passes(place, test));
    }
    let memos = &*memos;
    masks_by(program, &gate.rules, places_count, |leaf| {
        gate.leaves.contains(&leaf).then(|| Answers { memo: &memos[leaf], divide: 1, modulo: usize::MAX })
    })
}

/// The results of a leaf for the places of a gate. In a gate over pairs of values, `divide` and
/// `modulo` compute the place in the leaf's own column from the place of the pair.
struct Answers<'m> {
    memo: &'m Memo,
    divide: usize,
    modulo: usize,
}

impl Answers<'_> {
    fn known(&self, place: usize) -> Option<bool> {
        self.memo.known(place / self.divide % self.modulo)
    }
}

/// A rule with at most this many leaves on a gate is judged once for each combination of the
/// leaves' results. A rule with more leaves is judged once for each place.
const PATTERN_LEAVES_MAX: usize = 6;

/// Returns the masks of each place. `answers` returns the results of a leaf, or `None` if the leaf
/// is not on this gate's column.
fn masks_by<'m>(
    program: &Program,
    rules: &[usize],
    places_count: usize,
    answers: impl Fn(usize) -> Option<Answers<'m>>,
) -> Vec<u128> {
    let groups = program.rules.len().div_ceil(RULES_A_MASK);
    let mut masks = vec![u128::MAX; groups * places_count];
    let mut decided: Vec<(usize, Answers<'m>)> = Vec::new();
    for &rule in rules {
        let node = &program.rules[rule].node;
        decided.clear();
        node.leaves(&mut |leaf| {
            if !decided.iter().any(|(known, _)| *known == leaf) {
                decided.extend(answers(leaf).map(|answers| (leaf, answers)));
            }
        });
        let may_match = |place: usize| {
            let of = |leaf| decided.iter().find(|(known, _)| *known == leaf);
            node.value(&mut |leaf| of(leaf)?.1.known(place)) != Some(false)
        };
        let mut patterns = [None; 1 << PATTERN_LEAVES_MAX];
        let (group, bit) = (rule / RULES_A_MASK, rule % RULES_A_MASK);
        for (place, mask) in masks[group * places_count..][..places_count].iter_mut().enumerate() {
            let may_match = if decided.len() <= PATTERN_LEAVES_MAX {
                let answers = decided.iter().map(|(_, answers)| answers.known(place) == Some(true));
                let pattern = answers.fold(0, |pattern, answer| pattern << 1 | usize::from(answer));
                *patterns[pattern].get_or_insert_with(|| may_match(place))
            } else {
                may_match(place)
            };
            if !may_match {
                *mask &= !(1 << bit);
            }
        }
    }
    masks
}

/// Fills `places` with the place of each row's value, and returns the distinct values. Returns
/// `None` if there are too many of them, or if the column cannot be a gate.
fn load<'a>(field: &Field, columns: &Columns<'a>, places: &mut Vec<u32>) -> Option<Values<'a>> {
    match field {
        Field::Actor => {
            let (users, impersonated) =
                (columns.text(index::USER_NAME), columns.text(index::IMPERSONATED_USER_NAME));
            let (Text::Dictionary(user_keys, user_names), Text::Dictionary(keys, names)) =
                (users, impersonated)
            else {
                let actors = (0..columns.rows).map(|row| impersonated.get(row).or_else(|| users.get(row)));
                return texts(actors, places).map(Values::Texts);
            };
            if user_names.len() + names.len() > DISTINCT_MAX {
                return None;
            }
            keys_to_places(user_keys, places);
            if keys.null_count() < keys.len() {
                let offset = user_names.len() as u32 + 1;
                for (row, place) in places.iter_mut().enumerate() {
                    if keys.is_valid(row) {
                        *place = keys.value(row) as u32 + offset;
                    }
                }
            }
            Some(Values::Two(user_names, names))
        }
        Field::Column(at) => match columns.column(*at) {
            Column::Text(Text::Dictionary(keys, values)) => {
                if values.len() > DISTINCT_MAX {
                    return None;
                }
                keys_to_places(keys, places);
                Some(Values::One(values))
            }
            Column::Text(text) => {
                texts((0..columns.rows).map(|row| text.get(row)), places).map(Values::Texts)
            }
            Column::Int32(array) => numbers(array, places).map(Values::Numbers),
            Column::Int64(_) | Column::Time(_) | Column::Lists(_) => None,
        },
        Field::SourceIp => {
            let lists = columns.lists(index::SOURCE_IPS);
            let (keys, values) = lists.keys()?;
            if values.len() > DISTINCT_MAX {
                return None;
            }
            let last = |row| lists.range(row).next_back().map_or(0, |item| keys[item] as u32 + 1);
            places.extend((0..columns.rows).map(last));
            Some(Values::One(values))
        }
        Field::List(at) => lists(columns.lists(*at), columns.rows, places),
        Field::Outcome => {
            places.extend(outcome::outcomes(columns).iter().map(|outcome| outcome::place(*outcome)));
            Some(Values::Texts(outcome::OUTCOMES.to_vec()))
        }
        Field::DryRun => {
            places.extend(outcome::dry_runs(columns).iter().map(|dry_run| 1 + u32::from(*dry_run)));
            Some(Values::Texts(outcome::BOOLS.to_vec()))
        }
        _ => None,
    }
}

fn keys_to_places(keys: &Int32Array, places: &mut Vec<u32>) {
    match keys.nulls() {
        None => places.extend(keys.values().iter().map(|key| *key as u32 + 1)),
        Some(nulls) if nulls.null_count() == keys.len() => places.resize(keys.len(), 0),
        // The key of a null is undefined: adding 1 to it could overflow.
        Some(nulls) => places.extend(
            keys.values().iter().zip(nulls).map(|(key, valid)| if valid { *key as u32 + 1 } else { 0 }),
        ),
    }
}

/// Like [`load`], for a column of lists. An empty list has the place of null, because it has no
/// element that could pass a test.
fn lists<'a>(lists: Lists<'a>, rows: usize, places: &mut Vec<u32>) -> Option<Values<'a>> {
    let (keys, values) = lists.keys()?;
    let mut distinct: Vec<&[i32]> = Vec::new();
    let mut by_list: HashMap<&[i32], u32> = HashMap::new();
    for row in 0..rows {
        let list = &keys[lists.range(row)];
        if list.is_empty() {
            places.push(0);
            continue;
        }
        let place = *by_list.entry(list).or_insert_with(|| {
            distinct.push(list);
            distinct.len() as u32
        });
        if distinct.len() > DISTINCT_MAX {
            return None;
        }
        places.push(place);
    }
    Some(Values::Lists(distinct, values))
}

fn texts<'a>(rows: impl Iterator<Item = Option<&'a str>>, places: &mut Vec<u32>) -> Option<Vec<&'a str>> {
    let mut texts = Vec::new();
    let mut by_text = HashMap::new();
    for row in rows {
        let Some(text) = row else {
            places.push(0);
            continue;
        };
        let place = *by_text.entry(text).or_insert_with(|| {
            texts.push(text);
            texts.len() as u32
        });
        if texts.len() > DISTINCT_MAX {
            return None;
        }
        places.push(place);
    }
    Some(texts)
}

fn numbers(array: &Int32Array, places: &mut Vec<u32>) -> Option<Vec<String>> {
    /// Numbers from 0 up to this one, exclusive, are looked up without hashing. All HTTP status
    /// codes are among them.
    const DIRECT: usize = 1024;
    let mut direct = [0u32; DIRECT];
    let mut by_number: HashMap<i32, u32> = HashMap::new();
    let mut texts: Vec<String> = Vec::new();
    for number in array {
        let Some(number) = number else {
            places.push(0);
            continue;
        };
        let place = match usize::try_from(number).ok().and_then(|at| direct.get_mut(at)) {
            Some(place) => place,
            None => by_number.entry(number).or_insert(0),
        };
        if *place == 0 {
            if texts.len() == DISTINCT_MAX {
                return None;
            }
            texts.push(number.to_string());
            *place = texts.len() as u32;
        }
        places.push(*place);
    }
    Some(texts)
}
