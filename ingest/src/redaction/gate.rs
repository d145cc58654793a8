//! Finds the rows of a block that a policy may change, from their columns alone.
//!
//! Invariant: a row is skipped only if its columns show that the policy cannot change anything in
//! it. A row with faults may contain more than its columns show, so it is never skipped. Known
//! answers are kept for one block.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, DictionaryArray, ListArray, RecordBatch, StringArray};
use strongroom_decode::render::Renderer;
use strongroom_decode::{DecodedRow, HashedLater};
use strongroom_lines::wrapper::SHAPE_GOOGLE;
use strongroom_redact::{Applicable, Form, Redactor, Root, Roots, Target, is_plain_authorization};
use strongroom_schemas::events::index;
use strongroom_schemas::marks::parse_fault;

/// Returns the columns with the parts of an event that lie below a root of a policy.
pub const fn columns_of(root: Root) -> &'static [usize] {
    match root {
        Root::RequestObject => &[index::REQUEST_OBJECT],
        Root::ResponseObject => &[index::RESPONSE_OBJECT],
        Root::Annotations => &[index::ANNOTATIONS, index::AUTHZ_DECISION, index::AUTHZ_REASON],
        Root::StatusMessage => &[index::RESPONSE_MESSAGE, index::RESPONSE_REASON],
        Root::StatusDetails => &[index::RESPONSE_DETAILS],
        Root::UserExtra => &[index::USER_EXTRA],
        Root::ImpersonatedUserExtra => &[index::IMPERSONATED_USER_EXTRA],
        Root::UserName => &[index::USER_NAME, index::IMPERSONATED_USER_NAME],
        Root::RequestUri => &[index::REQUEST_URI],
    }
}

/// The parts of an event that a policy may change, and those of them that the policy names.
#[derive(Clone, Copy)]
struct Opening {
    roots: Roots,
    named: Roots,
}

impl Opening {
    fn of(redactor: &Redactor, cluster: &str, target: &Target<'_>) -> Opening {
        Opening { roots: redactor.roots(cluster, target), named: redactor.named_roots(cluster, target) }
    }
}

/// Decides from the columns of a block which rows a policy may change.
pub struct Gate<'g> {
    redactor: &'g Redactor,
    cluster: &'g str,
    names: [Names<'g>; 4],
    columns: Vec<(Root, &'g ArrayRef)>,
    faults: &'g ListArray,
    shape: Names<'g>,
    /// The key in `shape` for log entries of Google Cloud. Such a row has more than its columns
    /// show.
    google: Option<i32>,
    known: HashMap<[i32; 4], Opening>,
    last: Option<([i32; 4], Opening)>,
    applicable: HashMap<[i32; 4], Rc<Applicable>>,
    annotations: Names<'g>,
    /// For each entry of `annotations`, whether it has more annotations than those about the API
    /// server's decision.
    has_more: Vec<Option<bool>>,
    uri: Names<'g>,
    /// For each entry of `uri`, whether the policy may change it.
    changing_uris: Vec<Option<bool>>,
    bodies: [&'g StringArray; 2],
    like: [Names<'g>; COLUMNS_LIKE.len()],
}

/// The columns, beside the URI, that decide together with the target what a policy changes in an
/// event outside its bodies: a policy changes only these, and looks for what it replaced only in these.
/// One with a root decides nothing if the policy changes nothing below that root.
const COLUMNS_LIKE: [(usize, Option<Root>); 10] = [
    (index::USER_NAME, Some(Root::UserName)),
    (index::USER_EXTRA, Some(Root::UserExtra)),
    (index::IMPERSONATED_USER_NAME, Some(Root::UserName)),
    (index::IMPERSONATED_USER_EXTRA, Some(Root::ImpersonatedUserExtra)),
    (index::RESPONSE_STATUS, Some(Root::StatusMessage)),
    (index::RESPONSE_MESSAGE, Some(Root::StatusMessage)),
    (index::RESPONSE_REASON, Some(Root::StatusMessage)),
    (index::RESPONSE_DETAILS, Some(Root::StatusDetails)),
    (index::ANNOTATIONS, None),
    (index::SHAPE, None),
];
const LIKE: usize = 4 + 1 + COLUMNS_LIKE.len();
/// The keys of the target, of the URI (if the policy may change it), and of [`COLUMNS_LIKE`].
pub type Likeness = [i32; LIKE];

fn key_of(names: Names<'_>, row: usize) -> i32 {
    if names.is_valid(row) { names.keys().value(row) } else { -1 }
}

/// Predicts, while a block is decoded, which of its records the policy will change. A wrong
/// prediction costs time, but changes no result.
pub struct ProbablyChanged {
    redactor: Arc<Redactor>,
    cluster: String,
    known: HashMap<[i32; 4], Roots>,
    last: Option<([i32; 4], Roots)>,
    uris: Vec<Option<bool>>,
}

impl ProbablyChanged {
    pub fn new(redactor: Arc<Redactor>, cluster: &str) -> ProbablyChanged {
        let (known, last, uris) = (HashMap::new(), None, Vec::new());
        ProbablyChanged { redactor, cluster: cluster.to_owned(), known, last, uris }
    }

    fn roots(&mut self, row: &DecodedRow<'_>) -> Roots {
        let mut keys = TARGET.map(|column| row.key(column));
        // Of an object's name, only its presence matters to a policy.
        keys[1] = keys[1].min(0);
        if let Some((_, roots)) = self.last.filter(|(known, _)| *known == keys) {
            return roots;
        }
        let (redactor, cluster) = (&self.redactor, &self.cluster);
        let roots = *self.known.entry(keys).or_insert_with(|| {
            let [namespace, name, api_group, resource] = TARGET.map(|column| row.name(column));
            redactor.named_roots(cluster, &Target { namespace, name, api_group, resource }.said())
        });
        self.last = Some((keys, roots));
        roots
    }

    fn may_change_uri(&mut self, row: &DecodedRow<'_>) -> bool {
        let Ok(key) = usize::try_from(row.key(index::REQUEST_URI)) else { return false };
        if self.uris.len() <= key {
            self.uris.resize(key + 1, None);
        }
        let uri = || row.name(index::REQUEST_URI).is_some_and(|uri| self.redactor.may_change_uri(uri));
        *self.uris[key].get_or_insert_with(uri)
    }
}

impl HashedLater for ProbablyChanged {
    fn is_later(&mut self, row: &DecodedRow<'_>) -> bool {
        self.roots(row).iter().any(|root| match root {
            Root::RequestUri => self.may_change_uri(row),
            // Nearly every event has some, and few have those that a policy names. To render a record
            // again costs more than to hash it twice.
            Root::Annotations => false,
            root => columns_of(root).iter().any(|column| row.has(*column)),
        })
    }
}

/// The columns that say what an event is about, as in [`Target`].
const TARGET: [usize; 4] = [index::NAMESPACE, index::NAME, index::API_GROUP, index::RESOURCE];

/// A column of names that repeat.
pub type Names<'g> = &'g DictionaryArray<Int32Type>;

impl<'g> Gate<'g> {
    pub fn new(redactor: &'g Redactor, cluster: &'g str, events: &'g RecordBatch) -> Gate<'g> {
        let names = |column: usize| events.column(column).as_dictionary::<Int32Type>();
        Gate {
            redactor,
            cluster,
            names: TARGET.map(names),
            columns: Root::ALL
                .iter()
                .flat_map(|root| columns_of(*root).iter().map(|column| (*root, events.column(*column))))
                .collect(),
            faults: events.column(index::FAULTS).as_list::<i32>(),
            google: {
                let shapes = names(index::SHAPE).values().as_string::<i32>();
                shapes
                    .iter()
                    .position(|shape| shape == Some(SHAPE_GOOGLE))
                    .and_then(|at| i32::try_from(at).ok())
            },
            shape: names(index::SHAPE),
            known: HashMap::new(),
            last: None,
            applicable: HashMap::new(),
            annotations: names(index::ANNOTATIONS),
            has_more: Vec::new(),
            uri: names(index::REQUEST_URI),
            changing_uris: Vec::new(),
            bodies: [index::REQUEST_OBJECT, index::RESPONSE_OBJECT]
                .map(|column| events.column(column).as_string::<i32>()),
            like: COLUMNS_LIKE.map(|(column, _)| names(column)),
        }
    }

    /// Whether the policy may change a part of the row. A row with faults may have more than its
    /// columns show.
    pub fn is_open(&mut self, row: usize) -> bool {
        if self.faults.is_valid(row) {
            return true;
        }
        let opening = self.opening(row);
        if opening.roots.is_empty() {
            return false;
        }
        if self.google.is_some_and(|key| self.shape.is_valid(row) && self.shape.keys().value(row) == key) {
            return true;
        }
        (0..self.columns.len()).any(|at| {
            let (root, column) = self.columns[at];
            opening.roots.contains(root)
                && column.is_valid(row)
                && match root {
                    Root::RequestUri => self.may_change_uri(row),
                    Root::Annotations if !opening.named.contains(root) => self.has_more_annotations(row),
                    _ => true,
                }
        })
    }

    /// Whether a row has more annotations than those about the API server's decision.
    fn has_more_annotations(&mut self, row: usize) -> bool {
        if self.annotations.is_null(row) {
            return false;
        }
        let Ok(key) = usize::try_from(self.annotations.keys().value(row)) else { return true };
        self.has_more.resize(self.annotations.values().len(), None);
        *self.has_more[key].get_or_insert_with(|| {
            let text = self.annotations.values().as_string::<i32>().value(key);
            let members = serde_json::from_str::<BTreeMap<String, String>>(text);
            let is_plain = |(name, text): (&String, &String)| is_plain_authorization(name, text);
            members.map_or(true, |members| !members.iter().all(is_plain))
        })
    }

    /// Returns the parts of the policy that apply to an event.
    pub fn applicable(&mut self, row: usize) -> Rc<Applicable> {
        let of_event =
            |gate: &Self| Rc::new(gate.redactor.applicable(Form::Event, gate.cluster, &gate.target(row)));
        if self.faults.is_valid(row) {
            return of_event(self);
        }
        let keys = self.keys(row);
        if let Some(applicable) = self.applicable.get(&keys) {
            return Rc::clone(applicable);
        }
        let applicable = of_event(self);
        self.applicable.insert(keys, Rc::clone(&applicable));
        applicable
    }

    pub fn roots(&mut self, row: usize) -> Roots {
        self.opening(row).roots
    }

    fn opening(&mut self, row: usize) -> Opening {
        if self.faults.is_valid(row) {
            return Opening::of(self.redactor, self.cluster, &self.target(row));
        }
        let keys = self.keys(row);
        if let Some((_, opening)) = self.last.filter(|(known, _)| *known == keys) {
            return opening;
        }
        let opening = match self.known.get(&keys) {
            Some(opening) => *opening,
            None => {
                let opening = Opening::of(self.redactor, self.cluster, &self.target(row));
                self.known.insert(keys, opening);
                opening
            }
        };
        self.last = Some((keys, opening));
        opening
    }

    /// The bodies of an event.
    pub fn bodies(&self, row: usize) -> [Option<&'g str>; 2] {
        self.bodies.map(|bodies| bodies.is_valid(row).then(|| bodies.value(row)))
    }

    /// Returns what the outcome of an event without its bodies depends on, if its columns alone give
    /// it. Two such events with equal keys are changed in the same way.
    pub fn likeness(&mut self, rows: &Renderer<'_>, row: usize) -> Option<Likeness> {
        if self.faults.is_valid(row) || rows.keeps_format(row) {
            return None;
        }
        let mut likeness = [-1; LIKE];
        let (target, values) = likeness.split_at_mut(self.names.len());
        target.copy_from_slice(&self.keys(row));
        let (uri, values) = values.split_first_mut()?;
        let roots = self.opening(row).roots;
        for ((key, column), (_, decides)) in values.iter_mut().zip(&self.like).zip(COLUMNS_LIKE) {
            if decides.is_none_or(|root| roots.contains(root)) {
                *key = key_of(column, row);
            }
        }
        if self.may_change_uri(row) {
            *uri = key_of(self.uri, row);
        }
        Some(likeness)
    }

    fn may_change_uri(&mut self, row: usize) -> bool {
        if self.uri.is_null(row) {
            return false;
        }
        let Ok(key) = usize::try_from(self.uri.keys().value(row)) else { return true };
        self.changing_uris.resize(self.uri.values().len(), None);
        *self.changing_uris[key].get_or_insert_with(|| {
            self.redactor.may_change_uri(self.uri.values().as_string::<i32>().value(key))
        })
    }

    /// Returns keys that are equal for targets that the policy treats alike. Of an object's name,
    /// only its presence matters.
    fn keys(&self, row: usize) -> [i32; 4] {
        let mut keys = self.names.map(|names| key_of(names, row));
        let is_named = dictionary_value(self.names[1], row).is_some_and(|name| !name.is_empty());
        keys[1] = if is_named { 0 } else { -1 };
        keys
    }

    pub fn target(&self, row: usize) -> Target<'g> {
        // If the object could not be read, every rule may apply to it.
        if self.faults.is_valid(row) {
            let faults = self.faults.value(row);
            let is_of_object = |fault: &str| fault.is_empty() || fault.starts_with("/objectRef");
            let faults = faults.as_string::<i32>().iter().flatten().map(parse_fault);
            if faults.into_iter().any(|fault| fault.is_none_or(|(path, _)| is_of_object(path))) {
                return Target::default();
            }
        }
        let [namespace, name, api_group, resource] = self.names.map(|names| dictionary_value(names, row));
        Target { namespace, name, api_group, resource }.said()
    }
}

pub fn dictionary_value(array: &DictionaryArray<Int32Type>, row: usize) -> Option<&str> {
    if array.is_null(row) {
        return None;
    }
    let key = usize::try_from(array.keys().value(row)).ok()?;
    Some(array.values().as_string::<i32>().value(key))
}
