//! Redacts the events of a block before any part of them is stored or sent.
//!
//! The order of a block is: decode, evaluate the rules on what was received, redact, sort, encode,
//! seal. Rules see every value. But what a match takes from its row (the fields of an alert, the
//! keys and values that correlations count, the identity of the request) comes from the redacted
//! row. So a detector that is rebuilt from sealed rows has the same keys as the detector of the
//! stream.
//!
//! Invariants:
//! - A redacted row is what the decoder makes of the redacted event alone, without the wrapper that
//!   it came in, because a wrapper may repeat values. It keeps its offset, source and cluster.
//!   Other rows of the same line lose the wrapper as well.
//! - Events without bodies that are alike are edited once. They have equal values in all columns that
//!   a policy may change or search, and what their columns render to is their record, so the others
//!   get the columns of the first. Each record is hashed as it is rendered. Of events with bodies,
//!   the rest is judged once in the same way (`bodies`).
//! - A row whose event cannot be edited becomes an encrypted reject, and under a policy every reject
//!   is encrypted. Nothing is left out, and nothing is written in clear because a step failed.
//! - Redaction does not change the identity of an event. If the identity of the redacted event
//!   differs from that of the row, the row counts as one that cannot be edited.
//!
//! Between blocks only buffers are kept. After a crash the block is read and redacted again,
//! with the same result, apart from the random bytes in what is encrypted.

mod around;
mod bodies;
mod gate;
pub(crate) mod merge;
pub(crate) mod surroundings;

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array as _, Int64Array, RecordBatch, new_null_array};
use arrow_schema::ArrowError;
use arrow_select::{concat::concat_batches, take::take};
use chrono::{DateTime, Utc};
use strongroom_alerts::{BatchMatches, Matcher, ShownRows};
use strongroom_decode::render::{Renderer, RowFault};
use strongroom_decode::{DecodedBlock, DecoderConfig, HashedLater, RecordDecoder};
use strongroom_lines::frame::Origin;
use strongroom_lines::{Reason, without_input};
use strongroom_redact::{CONTEXT_REJECT, Form, RedactedBodies, Redactor, Root};
use strongroom_schemas::events::index;
use strongroom_schemas::record::{Sha256Hash, leaf_hash, redacted_leaf_hash};
use strongroom_schemas::rejects;

use self::bodies::{ChangedBodies, Envelopes};
use self::gate::{Gate, Likeness, ProbablyChanged, columns_of, dictionary_value};
pub use self::merge::leave_out;
use self::merge::{
    Pair, Reject, column_texts, dictionary, rejects_batch, replaced, with_marks, with_places, without,
};
use self::surroundings::Surroundings;
use crate::error::IngestError;

/// The columns that identify an event; no policy changes them.
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

/// Counts of redacted events and values.
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

/// Redacts blocks. Each thread has its own.
pub struct Redaction {
    redactor: Arc<Redactor>,
    records: RecordDecoder,
    /// Every event is edited whole. Tests compare the result with that of the shorter ways.
    edits_whole: bool,
}

/// The rows of a block that a policy changes.
pub struct Changes {
    /// The rows that are changed, ascending.
    all: Vec<usize>,
    /// Those in which only bodies are changed.
    bodies: ChangedBodies,
    /// The others, ascending, each with its row in `changed`. Events without bodies that are alike
    /// are changed alike, so several rows may have the same one.
    rows: Vec<(usize, usize)>,
    /// What the rows of `rows` become, in the columns that are changed.
    changed: RecordBatch,
    /// For each row of `changed`, the row that it was made of.
    originals: Vec<usize>,
    /// For each row of `changed`, its mark, and the hash of its record.
    marks: Vec<String>,
    hashes: Vec<Sha256Hash>,
    /// All rows of the block, with the changes. `None` if changes were asked for some rows only, or
    /// if there are none.
    replaced: Option<RecordBatch>,
    /// Whether a changed event is a log entry of Google Cloud.
    is_google: bool,
    /// The rows that cannot be edited, ascending, each with the reason.
    unreadable: Vec<(usize, String)>,
    counts: RedactionCounts,
}

/// The result for an event, as far as it also holds for other events that are like it.
#[derive(Clone)]
enum Outcome {
    Same,
    /// The row of `changed`, and how many values are dropped and tokenised.
    Changed(usize, u64, u64),
    Unreadable(String),
}

impl Redaction {
    pub fn new(redactor: Arc<Redactor>, config: DecoderConfig) -> Redaction {
        Redaction { redactor, records: RecordDecoder::new(config), edits_whole: false }
    }

    /// Matches rules on a block that is not redacted yet. Only the matched rows are redacted,
    /// because only their values go into the matches.
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
            self.shown(events, &changes, None, origin, &token)
        })
    }

    /// Like [`match_batch`](Self::match_batch), but for a block whose changes are known.
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
        matcher.match_batch_shown(events, |rows| self.shown(events, changes, Some(rows), origin, &token))
    }

    /// Returns a predictor that decides, while a block is decoded, which of its records need no
    /// hash yet.
    pub fn hashed_later(&self, origin: &Origin) -> Box<dyn HashedLater> {
        Box::new(ProbablyChanged::new(Arc::clone(&self.redactor), &origin.cluster))
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
        let mut changes = Changes::none(events);
        let Changes { bodies, rows, originals, marks, hashes, unreadable, counts, is_google, .. } =
            &mut changes;
        let (mut known, mut envelopes) = (HashMap::<Likeness, Outcome>::new(), Envelopes::default());
        let mut surroundings = Surroundings::default();
        self.records.begin(origin);
        let all = 0..if only.is_none() { events.num_rows() } else { 0 };
        for row in only.unwrap_or_default().iter().copied().chain(all) {
            let is_open = gate.is_open(row);
            if !is_open && !surroundings.may_have_more(&renderer, row) {
                continue;
            }
            // The rows of a match are few, and are shown one by one.
            let is_alone = only.is_some() || self.edits_whole;
            let likeness = if is_alone { None } else { gate.likeness(&renderer, row) };
            // What is around an event belongs to it alone.
            let mut likeness =
                likeness.filter(|_| !renderer.has_frame(row) || !surroundings.may_have_more(&renderer, row));
            if gate.bodies(row).iter().any(Option::is_some)
                && let Some(alike) = likeness.take().filter(|_| is_open)
            {
                match envelopes.redact(&self.redactor, &mut gate, &renderer, row, &alike) {
                    RedactedBodies::Kept => continue,
                    RedactedBodies::Edited(edited) => {
                        counts.events += 1;
                        counts.dropped += edited.counts.dropped;
                        counts.tokenised += edited.counts.tokenised;
                        bodies.push(row, edited);
                        continue;
                    }
                    RedactedBodies::Unknown => {}
                }
            }
            match likeness.and_then(|likeness| known.get(&likeness)) {
                Some(Outcome::Same) => continue,
                Some(Outcome::Changed(at, dropped, tokenised)) => {
                    rows.push((row, *at));
                    counts.events += 1;
                    counts.dropped += dropped;
                    counts.tokenised += tokenised;
                    continue;
                }
                Some(Outcome::Unreadable(why)) => {
                    unreadable.push((row, why.clone()));
                    continue;
                }
                None => {}
            }
            let Some(event) = self.records.event(&renderer, row) else {
                unreadable.push((row, NO_EVENT.to_owned()));
                continue;
            };
            let form = if event.is_google { Form::GoogleEntry } else { Form::Event };
            let outcome = match (is_open, form) {
                (false, _) => Ok(None),
                (true, Form::Event) => self.redactor.redact_as(&event.text, &gate.applicable(row)),
                (true, form) => self.redactor.redact(&event.text, form, &origin.cluster, &gate.target(row)),
            };
            let outcome = surroundings.judged(outcome, &self.redactor, &renderer, row, &event.text);
            drop(event);
            let pushed = match outcome {
                Ok(None) => Ok(None),
                Ok(Some(redacted)) => match self.records.push(&redacted.event) {
                    Some(is_rendered) => Ok(Some((redacted, is_rendered))),
                    None => Err(NOT_AN_EVENT.to_owned()),
                },
                Err(why) => Err(why.to_string()),
            };
            let (outcome, is_for_others) = match pushed {
                Ok(None) => (Outcome::Same, true),
                Ok(Some((redacted, is_rendered))) => {
                    let (mark, at) = (redacted.mark.to_string(), originals.len());
                    hashes.push(redacted_leaf_hash(&mark, &redacted.event));
                    marks.push(mark);
                    originals.push(row);
                    rows.push((row, at));
                    *is_google |= form == Form::GoogleEntry;
                    let (dropped, tokenised) = (redacted.counts.dropped, redacted.counts.tokenised);
                    counts.events += 1;
                    counts.dropped += dropped;
                    counts.tokenised += tokenised;
                    // If the redacted record had to be kept in the row, it cannot stand for the
                    // records of other events.
                    (Outcome::Changed(at, dropped, tokenised), is_rendered)
                }
                Err(why) => {
                    unreadable.push((row, why.clone()));
                    (Outcome::Unreadable(why), true)
                }
            };
            if let Some(likeness) = likeness.filter(|_| is_for_others) {
                known.insert(likeness, outcome);
            }
        }
        changes.changed = with_marks(&self.records.finish()?, &changes.marks)?;
        changes.refuse_other_events(events)?;
        changes.counts.encrypted = changes.unreadable.len() as u64;
        changes.all = changes.rows.iter().map(|(row, _)| *row).collect();
        changes.all.extend_from_slice(changes.bodies.rows());
        changes.all.sort_unstable();
        if only.is_none() && !changes.all.is_empty() {
            changes.replaced = Some(replaced(events, &changes)?);
        }
        Ok(changes)
    }

    /// Returns the values that matches may take from changed rows, and from rows that cannot be
    /// edited.
    fn shown<'s>(
        &self,
        events: &RecordBatch,
        changes: &Changes,
        matched: Option<&[usize]>,
        origin: &Origin,
        token: &'s dyn Fn(&str) -> String,
    ) -> Result<Option<ShownRows<'s>>, IngestError> {
        if changes.all.is_empty() && changes.unreadable.is_empty() {
            return Ok(None);
        }
        let shown = || -> Result<(RecordBatch, Vec<(usize, usize)>), ArrowError> {
            let (placed, mut rows) = match &changes.replaced {
                Some(replaced) => {
                    let is_matched = |row: usize| matched.is_none_or(|rows| rows.binary_search(&row).is_ok());
                    let rows: Vec<usize> =
                        changes.all.iter().copied().filter(|row| is_matched(*row)).collect();
                    let wanted: Int64Array = rows.iter().map(|row| Some(*row as i64)).collect();
                    let columns = replaced.columns().iter().map(|column| take(column, &wanted, None));
                    let placed = RecordBatch::try_new(events.schema(), columns.collect::<Result<_, _>>()?)?;
                    (placed, rows.into_iter().enumerate().map(|(at, row)| (row, at)).collect())
                }
                None => (with_places(events, changes)?, changes.rows.clone()),
            };
            if changes.unreadable.is_empty() {
                return Ok((placed, rows));
            }
            let hidden = self.hidden(events, changes, origin)?;
            let hidden_rows = changes.unreadable.iter().enumerate();
            rows.extend(hidden_rows.map(|(at, (row, _))| (*row, placed.num_rows() + at)));
            rows.sort_unstable();
            Ok((concat_batches(&events.schema(), [&placed, &hidden])?, rows))
        };
        let (events, rows) = shown().map_err(|source| columns_error(origin, source))?;
        Ok(Some(ShownRows { events, rows, token }))
    }

    /// Returns the rows that cannot be edited, without any column that the policy may change.
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
        let DecodedBlock { events, rejects, mut record_hashes, unhashed, consumed, dialects } = decoded;
        let changed = changes.all.iter().copied();
        let unreadable = changes.unreadable.iter().map(|(row, _)| *row);
        let beside = around::beside(&events, &rejects, changed.chain(unreadable));
        let beside = beside.map_err(|source| columns_error(origin, source))?;
        let rejects = self.encrypted(&events, &rejects, &changes.unreadable, origin, arrived)?;
        let assemble = || -> Result<(RecordBatch, Vec<Sha256Hash>), ArrowError> {
            changes.hash(&events, unhashed, &mut record_hashes)?;
            let unreadable = &changes.unreadable;
            let events = match changes.replaced {
                Some(replaced) => replaced,
                None => events,
            };
            let events = match &beside {
                Some(rows) => around::alone(&events, rows)?,
                None => events,
            };
            without(events, record_hashes, unreadable.iter().map(|(row, _)| *row))
        };
        let (events, record_hashes) = assemble().map_err(|source| columns_error(origin, source))?;
        let unhashed = Vec::new();
        Ok((DecodedBlock { events, rejects, record_hashes, unhashed, consumed, dialects }, counts))
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
                detail: without_input(detail.value(row)).to_owned(),
                offset: offset.value(row),
                line: line.is_valid(row).then(|| line.value(row)),
            });
        }
        let mut record = Vec::new();
        for (row, why) in unreadable {
            record.clear();
            // Does not fail, because a row that was just decoded gives its record.
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

impl Changes {
    fn none(events: &RecordBatch) -> Changes {
        Changes {
            all: Vec::new(),
            bodies: ChangedBodies::default(),
            rows: Vec::new(),
            changed: events.slice(0, 0),
            originals: Vec::new(),
            marks: Vec::new(),
            hashes: Vec::new(),
            replaced: None,
            is_google: false,
            unreadable: Vec::new(),
            counts: RedactionCounts::default(),
        }
    }

    /// Finds the rows whose redacted event has another identity, and moves them to the rows that
    /// cannot be edited.
    fn refuse_other_events(&mut self, events: &RecordBatch) -> Result<(), ArrowError> {
        if self.changed.num_rows() != self.originals.len() {
            return Err(ArrowError::ComputeError("redacted records and rows differ in number".to_owned()));
        }
        let alike: Vec<Pair<'_>> =
            IDENTITY.iter().map(|at| Pair::of(events.column(*at), self.changed.column(*at))).collect();
        let is_same = |(at, row): (usize, &usize)| alike.iter().all(|pair| pair.is_equal(*row, at));
        let is_same: Vec<bool> = self.originals.iter().enumerate().map(is_same).collect();
        if !is_same.contains(&false) {
            return Ok(());
        }
        for (row, _) in self.rows.extract_if(.., |(_, at)| !is_same[*at]) {
            self.unreadable.push((row, OTHER_EVENT.to_owned()));
            self.counts.events -= 1;
        }
        self.unreadable.sort_unstable();
        Ok(())
    }

    /// Hashes the records of the changed rows, and those of `unhashed`.
    fn hash(
        &self,
        events: &RecordBatch,
        unhashed: Vec<usize>,
        hashes: &mut [Sha256Hash],
    ) -> Result<(), ArrowError> {
        let renderer =
            |events| Renderer::new(events).map_err(|error| ArrowError::SchemaError(error.to_string()));
        let unrendered =
            |fault: RowFault| ArrowError::SchemaError(format!("a row gives no record: {}", fault.as_str()));
        let (clear, replaced) = (renderer(events)?, self.replaced.as_ref().map(renderer).transpose()?);
        let mut record = Vec::new();
        let mut changed = self.all.iter().copied().peekable();
        for row in unhashed {
            while changed.next_if(|changed| *changed < row).is_some() {}
            if changed.peek() != Some(&row) {
                record.clear();
                // Does not fail, because a row that was just decoded gives its record.
                clear.record(row, &mut record).map_err(unrendered)?;
                hashes[row] = leaf_hash(&record);
            }
        }
        for (row, at) in &self.rows {
            hashes[*row] = match &replaced {
                Some(replaced) if self.originals[*at] != *row => {
                    record.clear();
                    replaced.record(*row, &mut record).map_err(unrendered)?;
                    redacted_leaf_hash(&self.marks[*at], &record)
                }
                _ => self.hashes[*at],
            };
        }
        if let Some(replaced) = &replaced {
            for (row, mark) in self.bodies.marks() {
                record.clear();
                replaced.record(row, &mut record).map_err(unrendered)?;
                hashes[row] = redacted_leaf_hash(mark, &record);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
