//! Redaction: what the events of a block may say before anything of them lasts.
//!
//! The order of a block is: decode, evaluate the rules on what was received, redact, sort, encode,
//! seal. Rules see every value; what a match carries away from its row (the fields of an alert, the
//! keys and values that correlations count, the identity of the request) is that of the redacted
//! row. So the memory of a detector that is rebuilt from sealed rows has the keys of the stream.
//!
//! Invariants:
//! - A redacted row is what the decoder says of the redacted event alone, without the wrapper that
//!   it came in, because a wrapper may repeat values. It keeps its offset, source and cluster.
//! - A row whose event cannot be edited becomes an encrypted reject, and under a policy every reject
//!   is encrypted. Nothing is left out, and nothing is written in clear because a step failed.
//! - The redacted event is the same event: if its identity differs from that of the row, the row is
//!   one that cannot be edited.
//!
//! Nothing is kept between blocks but buffers; after a crash the block is read and redacted again,
//! with the same result, apart from the random bytes in what is encrypted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array as _, ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Int32Array, Int64Array, ListArray,
    RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow_schema::{ArrowError, DataType};
use arrow_select::{concat::concat, concat::concat_batches, filter::filter, filter::filter_record_batch};
use arrow_select::{interleave::interleave, take::take};
use chrono::{DateTime, Utc};
use strongroom_alerts::{BatchMatches, Matcher, ShownRows};
use strongroom_decode::render::Renderer;
use strongroom_decode::{DecodedBlock, DecoderConfig, RecordDecoder};
use strongroom_lines::Reason;
use strongroom_lines::frame::Origin;
use strongroom_lines::wrapper::SHAPE_GOOGLE;
use strongroom_redact::{CONTEXT_REJECT, Form, Redactor, Root, Roots, Target};
use strongroom_schemas::events::index;
use strongroom_schemas::marks::parse_fault;
use strongroom_schemas::record::{Sha256Hash, redacted_leaf_hash};
use strongroom_schemas::{Table, rejects};

use crate::error::IngestError;

/// The columns that a policy can change in an event, by what it changes or by how the record is
/// written then. For an entry of a cloud, which is mapped, all columns are compared.
const EDITED: [usize; 20] = [
    index::REQUEST_URI,
    index::USER_NAME,
    index::USER_EXTRA,
    index::IMPERSONATED_USER_NAME,
    index::IMPERSONATED_USER_EXTRA,
    index::RESPONSE_MESSAGE,
    index::RESPONSE_DETAILS,
    index::REQUEST_OBJECT,
    index::RESPONSE_OBJECT,
    index::ANNOTATIONS,
    index::AUTHZ_DECISION,
    index::AUTHZ_REASON,
    index::RAW,
    index::SHAPE,
    index::FRAME_BEFORE,
    index::FRAME_AFTER,
    index::FORM,
    index::FORM_VALUES,
    index::REDACTION,
    index::FAULTS,
];

/// The columns that say which event it is; no policy changes them.
const IDENTITY: [usize; 8] = [
    index::AUDIT_ID,
    index::STAGE,
    index::VERB,
    index::RESOURCE,
    index::SUBRESOURCE,
    index::NAMESPACE,
    index::NAME,
    index::STAGE_TIMESTAMP,
];

/// The columns that say where a row was found.
const PLACE: [usize; 3] = [index::CLUSTER, index::SOURCE, index::SOURCE_OFFSET];

/// The columns that have a member which a policy may change.
const fn columns_of(root: Root) -> &'static [usize] {
    match root {
        Root::RequestObject => &[index::REQUEST_OBJECT],
        Root::ResponseObject => &[index::RESPONSE_OBJECT],
        Root::Annotations => &[index::ANNOTATIONS, index::AUTHZ_DECISION, index::AUTHZ_REASON],
        Root::StatusMessage => &[index::RESPONSE_MESSAGE],
        Root::StatusDetails => &[index::RESPONSE_DETAILS],
        Root::UserExtra => &[index::USER_EXTRA],
        Root::ImpersonatedUserExtra => &[index::IMPERSONATED_USER_EXTRA],
        Root::UserName => &[index::USER_NAME, index::IMPERSONATED_USER_NAME],
        Root::RequestUri => &[index::REQUEST_URI],
    }
}

/// What was redacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedactionCounts {
    /// Events that were changed.
    pub events: u64,
    /// Values that were dropped, and values that were replaced by tokens.
    pub dropped: u64,
    pub tokenised: u64,
    /// Events that could not be edited, and were encrypted as rejects.
    pub encrypted: u64,
}

impl RedactionCounts {
    pub fn add(&mut self, other: RedactionCounts) {
        self.events += other.events;
        self.dropped += other.dropped;
        self.tokenised += other.tokenised;
        self.encrypted += other.encrypted;
    }
}

/// Redacts the blocks of one thread.
pub struct Redaction {
    redactor: Arc<Redactor>,
    records: RecordDecoder,
}

/// The rows of a block that a policy changes.
pub struct Changes {
    /// The rows that are changed, ascending, each with its row in `changed`.
    rows: Vec<(usize, usize)>,
    /// What the changed rows become.
    changed: RecordBatch,
    hashes: Vec<Sha256Hash>,
    /// Whether a changed event is a cloud's entry.
    is_google: bool,
    /// The rows that cannot be edited, ascending, each with the reason.
    unreadable: Vec<(usize, String)>,
    counts: RedactionCounts,
}

impl Redaction {
    pub fn new(redactor: Arc<Redactor>, config: DecoderConfig) -> Redaction {
        Redaction { redactor, records: RecordDecoder::new(config) }
    }

    /// Matches rules on a block that is not redacted yet. Only the matched rows are redacted, for
    /// what their matches carry.
    ///
    /// # Errors
    /// If the rules cannot be applied, or a column cannot be assembled.
    pub fn match_batch(
        &mut self,
        matcher: &mut Matcher,
        events: &RecordBatch,
        origin: &Origin,
    ) -> Result<BatchMatches, IngestError> {
        let redactor = Arc::clone(&self.redactor);
        let token = |value: &str| token(&redactor, value);
        matcher.match_batch_shown(events, |rows| {
            let changes = self.changes_of(events, origin, Some(rows))?;
            self.shown(events, &changes, origin, &token)
        })
    }

    /// Like [`match_batch`](Self::match_batch), for a block whose changes are known.
    ///
    /// # Errors
    /// Like [`match_batch`](Self::match_batch).
    pub fn match_changed(
        &mut self,
        matcher: &mut Matcher,
        events: &RecordBatch,
        changes: &Changes,
        origin: &Origin,
    ) -> Result<BatchMatches, IngestError> {
        let redactor = Arc::clone(&self.redactor);
        let token = |value: &str| token(&redactor, value);
        matcher.match_batch_shown(events, |_| self.shown(events, changes, origin, &token))
    }

    /// Finds what the policy changes in a block.
    ///
    /// # Errors
    /// If a column cannot be assembled, which does not depend on the input.
    pub fn changes(&mut self, events: &RecordBatch, origin: &Origin) -> Result<Changes, IngestError> {
        self.changes_of(events, origin, None)
    }

    fn changes_of(
        &mut self,
        events: &RecordBatch,
        origin: &Origin,
        only: Option<&[usize]>,
    ) -> Result<Changes, IngestError> {
        self.find(events, origin, only).map_err(|source| columns_error(origin, source))
    }

    fn find(
        &mut self,
        events: &RecordBatch,
        origin: &Origin,
        only: Option<&[usize]>,
    ) -> Result<Changes, ArrowError> {
        let renderer = Renderer::new(events).map_err(|error| ArrowError::SchemaError(error.to_string()))?;
        let mut gate = Gate::new(&self.redactor, &origin.cluster, events);
        let mut counts = RedactionCounts::default();
        let (mut rows, mut marks, mut hashes, mut unreadable) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut is_google = false;
        self.records.begin(origin);
        let all = 0..if only.is_none() { events.num_rows() } else { 0 };
        for row in only.unwrap_or_default().iter().copied().chain(all) {
            if !gate.is_open(row) {
                continue;
            }
            let target = gate.target(row);
            let Some(event) = self.records.event(&renderer, row) else {
                unreadable.push((row, NO_EVENT.to_owned()));
                continue;
            };
            let form = if event.is_google { Form::GoogleEntry } else { Form::Event };
            let outcome = self.redactor.redact(&event.text, form, &origin.cluster, &target);
            drop(event);
            match outcome {
                Ok(None) => {}
                Ok(Some(redacted)) if self.records.push(&redacted.event) => {
                    let mark = redacted.mark.to_string();
                    hashes.push(redacted_leaf_hash(&mark, &redacted.event));
                    marks.push(mark);
                    rows.push(row);
                    is_google |= form == Form::GoogleEntry;
                    counts.events += 1;
                    counts.dropped += redacted.counts.dropped;
                    counts.tokenised += redacted.counts.tokenised;
                }
                Ok(Some(_)) => unreadable.push((row, NOT_AN_EVENT.to_owned())),
                Err(why) => unreadable.push((row, why.to_string())),
            }
        }
        let changed = with_marks(&self.records.finish()?, &marks)?;
        let mut changes = Changes {
            rows: rows.into_iter().enumerate().map(|(at, row)| (row, at)).collect(),
            changed,
            hashes,
            is_google,
            unreadable,
            counts,
        };
        changes.refuse_other_events(events)?;
        changes.counts.encrypted = changes.unreadable.len() as u64;
        Ok(changes)
    }

    /// Returns what matches may carry of the changed rows, and of the rows that cannot be edited.
    fn shown<'s>(
        &self,
        events: &RecordBatch,
        changes: &Changes,
        origin: &Origin,
        token: &'s dyn Fn(&str) -> String,
    ) -> Result<Option<ShownRows<'s>>, IngestError> {
        if changes.rows.is_empty() && changes.unreadable.is_empty() {
            return Ok(None);
        }
        let shown = || -> Result<(RecordBatch, Vec<(usize, usize)>), ArrowError> {
            let placed = with_places(events, changes)?;
            if changes.unreadable.is_empty() {
                return Ok((placed, changes.rows.clone()));
            }
            let hidden = self.hidden(events, changes, origin)?;
            let mut rows = changes.rows.clone();
            let hidden_rows = changes.unreadable.iter().enumerate();
            rows.extend(hidden_rows.map(|(at, (row, _))| (*row, placed.num_rows() + at)));
            rows.sort_unstable();
            Ok((concat_batches(&events.schema(), [&placed, &hidden])?, rows))
        };
        let (events, rows) = shown().map_err(|source| columns_error(origin, source))?;
        Ok(Some(ShownRows { events, rows, token }))
    }

    /// Returns the rows that cannot be edited, without all that the policy may change in an event.
    fn hidden(
        &self,
        events: &RecordBatch,
        changes: &Changes,
        origin: &Origin,
    ) -> Result<RecordBatch, ArrowError> {
        let mut gate = Gate::new(&self.redactor, &origin.cluster, events);
        let wanted: Int64Array = changes.unreadable.iter().map(|(row, _)| Some(*row as i64)).collect();
        let mut columns = Vec::with_capacity(events.num_columns());
        for column in events.columns() {
            columns.push(take(column, &wanted, None)?);
        }
        let rows = wanted.len();
        let roots = Root::ALL.iter().filter(|root| !matches!(root, Root::UserName | Root::RequestUri));
        for column in roots.flat_map(|root| columns_of(*root)) {
            columns[*column] = new_null_array(columns[*column].data_type(), rows);
        }
        let names_hidden: Vec<bool> =
            changes.unreadable.iter().map(|(row, _)| gate.roots(*row).contains(Root::UserName)).collect();
        for column in columns_of(Root::UserName) {
            let names = column_texts(&columns[*column], |at, name| {
                if names_hidden[at] { token(&self.redactor, name) } else { name.to_owned() }
            });
            columns[*column] = dictionary(&names)?;
        }
        let paths = column_texts(&columns[index::REQUEST_URI], |_, uri| {
            uri.split(['?', '#']).next().unwrap_or_default().to_owned()
        });
        columns[index::REQUEST_URI] = dictionary(&paths)?;
        RecordBatch::try_new(events.schema(), columns)
    }

    /// Makes the changes of a block, and encrypts its rejects.
    ///
    /// # Errors
    /// If a column cannot be assembled, or something cannot be encrypted.
    pub fn apply(
        &self,
        decoded: DecodedBlock,
        changes: Changes,
        origin: &Origin,
        arrived: DateTime<Utc>,
    ) -> Result<(DecodedBlock, RedactionCounts), IngestError> {
        let counts = changes.counts;
        let DecodedBlock { events, rejects, mut record_hashes, consumed, dialects } = decoded;
        let rejects = self.encrypted(&events, &rejects, &changes.unreadable, origin, arrived)?;
        let assemble = || -> Result<(RecordBatch, Vec<Sha256Hash>), ArrowError> {
            let events = if changes.rows.is_empty() { events } else { replaced(&events, &changes)? };
            for (row, at) in &changes.rows {
                record_hashes[*row] = changes.hashes[*at];
            }
            without(events, record_hashes, changes.unreadable.iter().map(|(row, _)| *row))
        };
        let (events, record_hashes) = assemble().map_err(|source| columns_error(origin, source))?;
        Ok((DecodedBlock { events, rejects, record_hashes, consumed, dialects }, counts))
    }

    /// Returns the rejects of a block, encrypted, together with the events that cannot be edited, in
    /// order of their offsets.
    fn encrypted(
        &self,
        events: &RecordBatch,
        rejects: &RecordBatch,
        unreadable: &[(usize, String)],
        origin: &Origin,
        arrived: DateTime<Utc>,
    ) -> Result<RecordBatch, IngestError> {
        if rejects.num_rows() == 0 && unreadable.is_empty() {
            return Ok(rejects.clone());
        }
        let assembled = |source| columns_error(origin, source);
        let renderer =
            Renderer::new(events).map_err(|error| assembled(ArrowError::SchemaError(error.to_string())))?;
        let mut all: Vec<Reject> = Vec::with_capacity(rejects.num_rows() + unreadable.len());
        let raw = rejects.column(rejects::index::RAW).as_binary::<i32>();
        let reason = rejects.column(rejects::index::REASON).as_dictionary::<Int32Type>();
        let detail = rejects.column(rejects::index::DETAIL).as_string::<i32>();
        let offset = rejects.column(rejects::index::SOURCE_OFFSET).as_primitive::<Int64Type>();
        let line = rejects.column(rejects::index::LINE).as_primitive::<Int64Type>();
        for row in 0..rejects.num_rows() {
            all.push(Reject {
                raw: self.encrypt(raw.value(row), origin)?,
                reason: dictionary_value(reason, row).unwrap_or_default().to_owned(),
                detail: detail.value(row).to_owned(),
                offset: offset.value(row),
                line: line.is_valid(row).then(|| line.value(row)),
            });
        }
        let mut record = Vec::new();
        for (row, why) in unreadable {
            record.clear();
            // A row that was just decoded gives its record.
            renderer.record(*row, &mut record).map_err(|fault| {
                assembled(ArrowError::SchemaError(format!("a row gives no record: {}", fault.as_str())))
            })?;
            all.push(Reject {
                raw: self.encrypt(&record, origin)?,
                reason: Reason::Encrypted.as_str().to_owned(),
                detail: why.clone(),
                offset: renderer.offset(*row),
                line: None,
            });
        }
        all.sort_by_key(|reject| reject.offset);
        rejects_batch(&all, origin, arrived).map_err(assembled)
    }

    fn encrypt(&self, clear: &[u8], origin: &Origin) -> Result<Vec<u8>, IngestError> {
        self.redactor
            .encrypt(clear, CONTEXT_REJECT)
            .map_err(|error| IngestError::Encrypt { label: origin.partition.clone(), source: error })
    }
}

const NO_EVENT: &str = "the record gives no event";
const NOT_AN_EVENT: &str = "what the policy leaves is not an event";
const OTHER_EVENT: &str = "what the policy leaves is another event";

fn columns_error(origin: &Origin, source: ArrowError) -> IngestError {
    IngestError::Columns { label: origin.partition.clone(), offset: 0, source }
}

fn token(redactor: &Redactor, value: &str) -> String {
    redactor.token(&serde_json::Value::String(value.to_owned())).as_str().to_owned()
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
struct Gate<'g> {
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
type Names<'g> = &'g DictionaryArray<Int32Type>;

impl<'g> Gate<'g> {
    fn new(redactor: &'g Redactor, cluster: &'g str, events: &'g RecordBatch) -> Gate<'g> {
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
    fn is_open(&mut self, row: usize) -> bool {
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

    fn roots(&mut self, row: usize) -> Roots {
        self.opening(row).roots
    }

    fn opening(&mut self, row: usize) -> Opening {
        if self.faults.is_valid(row) {
            return Opening::of(self.redactor, self.cluster, &self.target(row));
        }
        // All objects without a name, and all with one, are alike.
        let key = |names: Names<'_>| if names.is_valid(row) { names.keys().value(row) } else { -1 };
        let mut keys = self.names.map(key);
        keys[1] = keys[1].min(0);
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

    fn target(&self, row: usize) -> Target<'g> {
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
        Target { namespace, name, api_group, resource }
    }
}

fn dictionary_value(array: &DictionaryArray<Int32Type>, row: usize) -> Option<&str> {
    if array.is_null(row) {
        return None;
    }
    let key = usize::try_from(array.keys().value(row)).ok()?;
    Some(array.values().as_string::<i32>().value(key))
}

impl Changes {
    /// Moves the rows whose changed event is not the event that it was to the rows that cannot be
    /// edited.
    fn refuse_other_events(&mut self, events: &RecordBatch) -> Result<(), ArrowError> {
        let alike: Vec<Pair<'_>> =
            IDENTITY.iter().map(|at| Pair::of(events.column(*at), self.changed.column(*at))).collect();
        let is_same = |row: usize, at: usize| alike.iter().all(|pair| pair.is_equal(row, at));
        if self.changed.num_rows() == self.rows.len() && self.rows.iter().all(|(row, at)| is_same(*row, *at))
        {
            return Ok(());
        }
        if self.changed.num_rows() != self.rows.len() {
            return Err(ArrowError::ComputeError("redacted records and rows differ in number".to_owned()));
        }
        let mask: BooleanArray = self.rows.iter().map(|(row, at)| Some(is_same(*row, *at))).collect();
        drop(alike);
        let (mut rows, mut hashes) = (Vec::new(), Vec::new());
        for (row, at) in &self.rows {
            if mask.value(*at) {
                rows.push((*row, rows.len()));
                hashes.push(self.hashes[*at]);
            } else {
                self.unreadable.push((*row, OTHER_EVENT.to_owned()));
                self.counts.events -= 1;
            }
        }
        self.unreadable.sort_unstable();
        self.changed = filter_record_batch(&self.changed, &mask)?;
        (self.rows, self.hashes) = (rows, hashes);
        Ok(())
    }
}

/// Sets the marks of changed rows. What was around their records is left out: it may repeat values.
fn with_marks(changed: &RecordBatch, marks: &[String]) -> Result<RecordBatch, ArrowError> {
    let mut columns = changed.columns().to_vec();
    columns[index::REDACTION] = Arc::new(StringArray::from_iter_values(marks));
    RecordBatch::try_new(changed.schema(), columns)
}

/// Returns the changed rows with the places of the rows that they stand for.
fn with_places(events: &RecordBatch, changes: &Changes) -> Result<RecordBatch, ArrowError> {
    let rows: Int64Array = changes.rows.iter().map(|(row, _)| Some(*row as i64)).collect();
    let mut columns = changes.changed.columns().to_vec();
    for column in PLACE {
        columns[column] = take(events.column(column), &rows, None)?;
    }
    RecordBatch::try_new(events.schema(), columns)
}

/// Replaces the changed rows of a block, column by column; a column without a difference is kept as
/// it is.
fn replaced(events: &RecordBatch, changes: &Changes) -> Result<RecordBatch, ArrowError> {
    let mut columns = events.columns().to_vec();
    let all: Vec<usize> = (0..index::COUNT).filter(|column| !PLACE.contains(column)).collect();
    let mut picks: Option<Vec<(usize, usize)>> = None;
    for column in if changes.is_google { all.as_slice() } else { EDITED.as_slice() } {
        let (clear, changed) = (events.column(*column), changes.changed.column(*column));
        let pair = Pair::of(clear, changed);
        if changes.rows.iter().all(|(row, at)| pair.is_equal(*row, *at)) {
            continue;
        }
        columns[*column] = match (clear.as_dictionary_opt(), changed.as_dictionary_opt()) {
            (Some(clear), Some(changed)) => with_entries(clear, changed, &pair, &changes.rows)?,
            _ => {
                let picks = picks.get_or_insert_with(|| {
                    let mut picks: Vec<(usize, usize)> = (0..events.num_rows()).map(|row| (0, row)).collect();
                    changes.rows.iter().for_each(|(row, at)| picks[*row] = (1, *at));
                    picks
                });
                interleave(&[clear.as_ref(), changed.as_ref()], picks)?
            }
        };
    }
    RecordBatch::try_new(events.schema(), columns)
}

/// Replaces values of a dictionary. Entries that no row has any more are not written: the encoder
/// writes the entries in use.
fn with_entries(
    clear: &DictionaryArray<Int32Type>,
    changed: &DictionaryArray<Int32Type>,
    pair: &Pair<'_>,
    rows: &[(usize, usize)],
) -> Result<ArrayRef, ArrowError> {
    let first = i32::try_from(clear.values().len())
        .map_err(|_| ArrowError::ComputeError("a dictionary has too many entries".to_owned()))?;
    let mut keys: Vec<Option<i32>> = clear.keys().iter().collect();
    for (row, at) in rows.iter().filter(|(row, at)| !pair.is_equal(*row, *at)) {
        keys[*row] = changed.is_valid(*at).then(|| first + changed.keys().value(*at));
    }
    let values = concat(&[clear.values().as_ref(), changed.values().as_ref()])?;
    Ok(Arc::new(DictionaryArray::try_new(Int32Array::from(keys), values)?))
}

/// Leaves rows out, which are given in ascending order.
fn without(
    events: RecordBatch,
    hashes: Vec<Sha256Hash>,
    rows: impl Iterator<Item = usize>,
) -> Result<(RecordBatch, Vec<Sha256Hash>), ArrowError> {
    let mut keep = vec![true; events.num_rows()];
    let mut is_all = true;
    for row in rows {
        keep[row] = false;
        is_all = false;
    }
    if is_all {
        return Ok((events, hashes));
    }
    let hashes = hashes.into_iter().zip(&keep).filter_map(|(hash, keep)| keep.then_some(hash)).collect();
    let mask = BooleanArray::from(keep);
    let columns = events.columns().iter().map(|column| filter(column, &mask)).collect::<Result<_, _>>()?;
    Ok((RecordBatch::try_new(events.schema(), columns)?, hashes))
}

/// Leaves the events at these offsets out of a block, because the archive has them as encrypted
/// rejects. Returns how many they were.
///
/// # Errors
/// If a column cannot be assembled.
pub fn leave_out(
    decoded: DecodedBlock,
    stored: &std::collections::HashSet<i64>,
) -> Result<(DecodedBlock, u64), ArrowError> {
    let offsets = decoded.events.column(index::SOURCE_OFFSET).as_primitive::<Int64Type>();
    let rows: Vec<usize> =
        (0..decoded.events.num_rows()).filter(|row| stored.contains(&offsets.value(*row))).collect();
    let left_out = rows.len() as u64;
    let DecodedBlock { events, rejects, record_hashes, consumed, dialects } = decoded;
    let (events, record_hashes) = without(events, record_hashes, rows.into_iter())?;
    Ok((DecodedBlock { events, rejects, record_hashes, consumed, dialects }, left_out))
}

/// Two arrays of one column, whose values are compared.
enum Pair<'p> {
    /// Neither has a value.
    Null,
    Dictionaries(Names<'p>, Names<'p>),
    Strings(&'p StringArray, &'p StringArray),
    Binaries(&'p BinaryArray, &'p BinaryArray),
    Times(&'p TimestampMicrosecondArray, &'p TimestampMicrosecondArray),
    /// Compared by slices, which is slow.
    Others(&'p ArrayRef, &'p ArrayRef),
}

impl<'p> Pair<'p> {
    fn of(clear: &'p ArrayRef, changed: &'p ArrayRef) -> Pair<'p> {
        let is_null = |array: &ArrayRef| array.null_count() == array.len();
        if is_null(clear) && is_null(changed) {
            return Pair::Null;
        }
        match clear.data_type() {
            DataType::Dictionary(..) => Pair::Dictionaries(clear.as_dictionary(), changed.as_dictionary()),
            DataType::Utf8 => Pair::Strings(clear.as_string(), changed.as_string()),
            DataType::Binary => Pair::Binaries(clear.as_binary(), changed.as_binary()),
            DataType::Timestamp(..) => Pair::Times(
                clear.as_primitive::<TimestampMicrosecondType>(),
                changed.as_primitive::<TimestampMicrosecondType>(),
            ),
            _ => Pair::Others(clear, changed),
        }
    }

    /// Whether row `row` of the first has the value of row `at` of the second.
    fn is_equal(&self, row: usize, at: usize) -> bool {
        match self {
            Pair::Null => true,
            Pair::Dictionaries(clear, changed) => {
                dictionary_value(clear, row) == dictionary_value(changed, at)
            }
            Pair::Strings(clear, changed) => {
                clear.is_valid(row) == changed.is_valid(at)
                    && (clear.is_null(row) || clear.value(row) == changed.value(at))
            }
            Pair::Binaries(clear, changed) => {
                clear.is_valid(row) == changed.is_valid(at)
                    && (clear.is_null(row) || clear.value(row) == changed.value(at))
            }
            Pair::Times(clear, changed) => {
                clear.is_valid(row) == changed.is_valid(at)
                    && (clear.is_null(row) || clear.value(row) == changed.value(at))
            }
            Pair::Others(clear, changed) => clear.slice(row, 1) == changed.slice(at, 1),
        }
    }
}

/// Returns the values of a dictionary column, each as `text` gives it.
fn column_texts(array: &ArrayRef, text: impl Fn(usize, &str) -> String) -> Vec<Option<String>> {
    let array = array.as_dictionary::<Int32Type>();
    (0..array.len()).map(|row| dictionary_value(array, row).map(|value| text(row, value))).collect()
}

fn dictionary<T: AsRef<str>>(values: &[Option<T>]) -> Result<ArrayRef, ArrowError> {
    let mut known: HashMap<&str, i32> = HashMap::new();
    let mut entries: Vec<&str> = Vec::new();
    let keys: Int32Array = values
        .iter()
        .map(|value| {
            let value = value.as_ref()?.as_ref();
            let key = *known.entry(value).or_insert_with(|| {
                entries.push(value);
                i32::try_from(entries.len()).unwrap_or(i32::MAX) - 1
            });
            Some(key)
        })
        .collect();
    if entries.is_empty() {
        // Null rows point at key 0, which must exist.
        entries.push("");
    }
    Ok(Arc::new(DictionaryArray::try_new(keys, Arc::new(StringArray::from(entries)))?))
}

/// A row of `rejects`.
struct Reject {
    raw: Vec<u8>,
    reason: String,
    detail: String,
    offset: i64,
    line: Option<i64>,
}

fn rejects_batch(all: &[Reject], origin: &Origin, arrived: DateTime<Utc>) -> Result<RecordBatch, ArrowError> {
    let same = |text: &str| dictionary(&vec![Some(text.to_owned()); all.len()]);
    let received = vec![arrived.timestamp_micros(); all.len()];
    let mut columns: BTreeMap<usize, ArrayRef> = BTreeMap::new();
    let raw = BinaryArray::from_iter_values(all.iter().map(|reject| &reject.raw));
    columns.insert(rejects::index::RAW, Arc::new(raw));
    let reasons: Vec<Option<&str>> = all.iter().map(|reject| Some(reject.reason.as_str())).collect();
    columns.insert(rejects::index::REASON, dictionary(&reasons)?);
    let details = StringArray::from_iter_values(all.iter().map(|reject| &reject.detail));
    columns.insert(rejects::index::DETAIL, Arc::new(details));
    columns.insert(rejects::index::CLUSTER, same(&origin.cluster)?);
    columns.insert(rejects::index::SOURCE, same(&origin.partition)?);
    let offsets = Int64Array::from_iter_values(all.iter().map(|reject| reject.offset));
    columns.insert(rejects::index::SOURCE_OFFSET, Arc::new(offsets));
    columns.insert(rejects::index::LINE, Arc::new(all.iter().map(|r| r.line).collect::<Int64Array>()));
    let received = TimestampMicrosecondArray::from(received).with_timezone("UTC");
    columns.insert(rejects::index::RECEIVED_TIMESTAMP, Arc::new(received));
    RecordBatch::try_new(Table::Rejects.batch_schema(), columns.into_values().collect())
}

#[cfg(test)]
mod tests;
