//! Finds the rows of a block that a policy may change, from their columns alone.
//!
//! Invariant: a row is skipped only if its columns show that the policy cannot change anything in
//! it. A row with faults may contain more than its columns show, so it is never skipped. Known
//! answers are kept for one block.

use std::collections::{BTreeMap, HashMap};

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, DictionaryArray, ListArray, RecordBatch};
use strongroom_lines::wrapper::SHAPE_GOOGLE;
use strongroom_redact::{Redactor, Root, Roots, Target};
use strongroom_schemas::events::index;
use strongroom_schemas::marks::parse_fault;

/// The columns that have a member which a policy may change.
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

/// The annotations in which the API server says how it decided.
const OF_AUTHORIZATION: [&str; 2] = ["authorization.k8s.io/decision", "authorization.k8s.io/reason"];

/// What a policy may change in an event, and what of it is named by the policy.
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
    /// The key in `shape` of a cloud's entry, which has more than its columns.
    google: Option<i32>,
    known: HashMap<[i32; 4], Opening>,
    last: Option<([i32; 4], Opening)>,
    annotations: Names<'g>,
    /// For each entry of `annotations`, whether it has more than the API server's own.
    has_more: Vec<Option<bool>>,
}

/// A column of names that repeat.
pub type Names<'g> = &'g DictionaryArray<Int32Type>;

impl<'g> Gate<'g> {
    pub fn new(redactor: &'g Redactor, cluster: &'g str, events: &'g RecordBatch) -> Gate<'g> {
        let names = |column: usize| events.column(column).as_dictionary::<Int32Type>();
        Gate {
            redactor,
            cluster,
            names: [index::NAMESPACE, index::NAME, index::API_GROUP, index::RESOURCE].map(names),
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
            annotations: names(index::ANNOTATIONS),
            has_more: Vec::new(),
        }
    }

    /// Whether the policy may change something that the row has. A row with faults may have more
    /// than its columns show.
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
                    Root::RequestUri => dictionary_value(column.as_dictionary(), row)
                        .is_some_and(|uri| self.redactor.may_change_uri(uri)),
                    Root::Annotations if !opening.named.contains(root) => self.has_more_annotations(row),
                    _ => true,
                }
        })
    }

    /// Whether a row has annotations other than those in which the API server says how it decided.
    fn has_more_annotations(&mut self, row: usize) -> bool {
        if self.annotations.is_null(row) {
            return false;
        }
        let Ok(key) = usize::try_from(self.annotations.keys().value(row)) else { return true };
        self.has_more.resize(self.annotations.values().len(), None);
        *self.has_more[key].get_or_insert_with(|| {
            let text = self.annotations.values().as_string::<i32>().value(key);
            let members = serde_json::from_str::<BTreeMap<String, serde::de::IgnoredAny>>(text);
            let is_own = |name: &String| OF_AUTHORIZATION.contains(&name.as_str());
            members.map_or(true, |members| !members.keys().all(is_own))
        })
    }

    pub fn roots(&mut self, row: usize) -> Roots {
        self.opening(row).roots
    }

    fn opening(&mut self, row: usize) -> Opening {
        if self.faults.is_valid(row) {
            return Opening::of(self.redactor, self.cluster, &self.target(row));
        }
        // All objects without a name, and all with one, are alike.
        let key = |names: Names<'_>| if names.is_valid(row) { names.keys().value(row) } else { -1 };
        let mut keys = self.names.map(key);
        let is_named = dictionary_value(self.names[1], row).is_some_and(|name| !name.is_empty());
        keys[1] = if is_named { 0 } else { -1 };
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

    pub fn target(&self, row: usize) -> Target<'g> {
        // Of an object that could not be read, every rule may be.
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
