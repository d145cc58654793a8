//! Counts what a redaction policy would replace in logs, or in an archive. Nothing is replaced.
//!
//! Invariants:
//! - Events are found, decoded and edited by the code that a run uses, so each count is the one
//!   that a run would have.
//! - No value is returned, only counts and the names of parts of the policy.
//! - Memory is bounded: one block of a log or one batch of the archive at a time.
//!
//! Nothing is written, so a crash changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, BooleanArray, DictionaryArray, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType};
use chrono::Utc;
use strongroom_alerts::{Hidden, Matcher, RuleSet};
use strongroom_archive::{Archive, EventSelection};
use strongroom_decode::render::Renderer;
use strongroom_decode::{Decoder, DecoderConfig, RecordDecoder};
use strongroom_lines::Reading;
use strongroom_lines::frame::Origin;
use strongroom_redact::{Form, Key, Keys, Policy, Redactor, Roots, Settings, Target, is_encrypted};
use strongroom_schemas::events::{self, index};
use strongroom_schemas::marks::Redaction;
use strongroom_schemas::{Table, marked, rejects};

use crate::error::IngestError;
use crate::pipeline::{BLOCK_LINES_MAX, block_bytes};
use crate::redaction::merge::dictionary;
use crate::redaction::surroundings::Surroundings;
use crate::replay::Span;
use crate::source::{BlockBounds, FileError, Input, Stream};

/// The preset of [`secrets`].
const SECRETS: &str = "secrets";
/// Maximum number of targets whose answer is remembered.
const TARGETS_MAX: usize = 65_536;

/// The number of values that a part of the policy would replace, and the number of events with such
/// values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    pub values: u64,
    pub events: u64,
}

/// The effects that a policy would have.
#[derive(Debug)]
pub struct Preview {
    /// Events that were examined.
    pub events: u64,
    /// Events that would be changed, and the values in them that would be dropped or replaced.
    pub changed: u64,
    pub dropped: u64,
    pub tokenised: u64,
    /// Events that cannot be edited and would be encrypted whole.
    pub unreadable: u64,
    /// Rejects, which would be encrypted.
    pub rejects: u64,
    /// Events in an archive that this policy has changed already, and rejects that are encrypted.
    pub done: u64,
    /// Events in an archive that another policy, or another key, has changed, so that this policy
    /// would replace nothing but tokens.
    pub others: u64,
    /// What each part of the policy would replace, by the part's position. [`Redactor::label`]
    /// returns the name of a part.
    pub by_label: BTreeMap<u16, Replaced>,
    /// What rules would no longer see in the changed events.
    pub hidden: Hidden,
    /// The preview was asked to stop before the end.
    pub interrupted: bool,
}

/// Returns the policy that replaces what is secret in any cluster: the contents of Secrets, and
/// tokens. Its key is generated for this call only, because the counts do not depend on the key.
/// `None` if the system has no random numbers.
pub fn secrets() -> Option<Redactor> {
    let presets = vec![SECRETS.to_owned()];
    let settings = Settings { key: Some("env:NONE".to_owned()), presets, ..Settings::default() };
    let keys = Keys::new(Key::generate().ok()?, Vec::new()).ok()?;
    Some(Redactor::new(Policy::new(&settings).ok()?, keys))
}

/// Previews a policy over logs. `failed` is called with each file that cannot be read at all or to
/// its end; the other files are read.
///
/// # Errors
/// If a block cannot be turned into columns, which does not depend on the input.
pub fn of_logs(
    redactor: &Redactor,
    rules: &Arc<RuleSet>,
    (cluster, inputs): (&str, &[Input]),
    reading: &Arc<Reading>,
    stop: &Arc<AtomicBool>,
    failed: &mut dyn FnMut(&FileError),
) -> Result<Preview, IngestError> {
    let mut previewer = Previewer::new(redactor, rules);
    let mut decoder = Decoder::new(DecoderConfig::default());
    let bounds = BlockBounds {
        bytes_max: block_bytes(1),
        lines_max: BLOCK_LINES_MAX,
        line_bytes_max: DecoderConfig::default().line_bytes_max,
    };
    for input in inputs {
        let label = input.label();
        let origin =
            Origin { partition: label.clone(), cluster: cluster.to_owned(), reading: Arc::clone(reading) };
        let origin = Arc::new(origin);
        let opened = Stream::open(input.clone(), bounds, true, Arc::new(AtomicU64::new(0)), Arc::clone(stop));
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                failed(&error);
                continue;
            }
        };
        loop {
            if stop.load(Ordering::Relaxed) {
                previewer.preview.interrupted = true;
                return Ok(previewer.preview);
            }
            let block = match stream.next_block(&origin, Vec::new()) {
                Ok(Some(block)) => block.block,
                Ok(None) => break,
                Err(error) => {
                    failed(&error);
                    break;
                }
            };
            let columns =
                |source| IngestError::Columns { label: label.clone(), offset: block.offset, source };
            let decoded = decoder.decode(&block, Utc::now()).map_err(columns)?;
            previewer.preview.rejects += decoded.rejects.num_rows() as u64;
            previewer.see(&decoded.events).map_err(columns)?;
        }
    }
    Ok(previewer.preview)
}

/// Previews a policy over the events of `span` in an archive: counts what the policy would replace
/// in them. Bodies are read only for events that the policy may change.
///
/// # Errors
/// If the archive cannot be read.
pub fn of_archive(
    redactor: &Arc<Redactor>,
    rules: &Arc<RuleSet>,
    archive: &Archive,
    span: Span,
    stop: &AtomicBool,
) -> Result<Preview, IngestError> {
    let mut previewer = Previewer::new(redactor, rules);
    let looked_at = Arc::new(AtomicU64::new(0));
    let (chooser, counter) = (Arc::clone(redactor), Arc::clone(&looked_at));
    let mut known = HashMap::new();
    let choose = move |batch: &RecordBatch| -> Result<BooleanArray, ArrowError> {
        counter.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        let rows = TargetRows::of(batch)?;
        Ok((0..batch.num_rows()).map(|row| Some(is_open(&chooser, &mut known, &rows, row))).collect())
    };
    let names = |columns: &[usize]| columns.iter().map(|at| events::COLUMNS[*at].to_owned()).collect();
    let selection = EventSelection {
        since_us: span.from_us,
        until_us: span.until_us,
        choose: Some((names(&GATE_COLUMNS), Arc::new(Mutex::new(choose)) as _)),
        ..EventSelection::default()
    };
    let columns = |source| IngestError::Columns { label: "the archive".to_owned(), offset: 0, source };
    let mut read = 0;
    for batch in archive.select_events(selection)? {
        if stop.load(Ordering::Relaxed) {
            previewer.preview.interrupted = true;
            break;
        }
        let batch = batch?;
        read += batch.num_rows() as u64;
        previewer.see(&batch).map_err(columns)?;
    }
    // If events without a time are wanted too, all rows are read and `looked_at` is not counted.
    previewer.preview.events = looked_at.load(Ordering::Relaxed).max(read);
    for source in archive.sources()? {
        for batch in archive.read_rows(Table::Rejects, &source.partition)? {
            let batch = batch?;
            let raws = batch.column_by_name(rejects::RAW).and_then(|raws| raws.as_binary_opt::<i32>());
            for raw in raws.iter().flat_map(|raws| raws.iter()) {
                match is_encrypted(raw.unwrap_or_default()) {
                    true => previewer.preview.done += 1,
                    false => previewer.preview.rejects += 1,
                }
            }
        }
    }
    Ok(previewer.preview)
}

struct Previewer<'r> {
    redactor: &'r Redactor,
    records: RecordDecoder,
    matcher: Matcher,
    policy: String,
    preview: Preview,
    known: HashMap<TargetKey, Roots>,
}

impl<'r> Previewer<'r> {
    fn new(redactor: &'r Redactor, rules: &Arc<RuleSet>) -> Previewer<'r> {
        let preview = Preview {
            events: 0,
            changed: 0,
            dropped: 0,
            tokenised: 0,
            unreadable: 0,
            rejects: 0,
            done: 0,
            others: 0,
            by_label: BTreeMap::new(),
            hidden: Hidden::new(rules),
            interrupted: false,
        };
        Previewer {
            redactor,
            records: RecordDecoder::new(DecoderConfig::default()),
            matcher: Matcher::new(Arc::clone(rules)),
            policy: format!("{:016x}", redactor.id()),
            preview,
            known: HashMap::new(),
        }
    }

    /// Edits the events of a batch, counts the changes, and drops the edited events.
    fn see(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        self.preview.events += batch.num_rows() as u64;
        let renderer = Renderer::new(batch).map_err(|error| ArrowError::SchemaError(error.to_string()))?;
        let rows = TargetRows::of(batch)?;
        let stored = batch.column_by_name(events::REDACTION).and_then(|marks| marks.as_string_opt::<i32>());
        let origin = Origin { partition: String::new(), cluster: String::new(), reading: Arc::default() };
        self.records.begin(&origin);
        let mut surroundings = Surroundings::default();
        let mut marks: Vec<Option<String>> = vec![None; batch.num_rows()];
        for (row, mark) in marks.iter_mut().enumerate() {
            let is_open = is_open(self.redactor, &mut self.known, &rows, row);
            if !is_open && !surroundings.may_have_more(&renderer, row) {
                continue;
            }
            let stored = stored.filter(|stored| stored.is_valid(row)).map(|stored| stored.value(row));
            let stored = stored.map(|mark| Redaction::parse(mark).ok());
            if stored.iter().flatten().any(|mark| mark.policy() == self.policy) {
                self.preview.done += 1;
                continue;
            }
            let Some(event) = self.records.event(&renderer, row) else {
                self.preview.unreadable += 1;
                continue;
            };
            let form = if event.is_google { Form::GoogleEntry } else { Form::Event };
            let cluster = rows.cluster.get(row).unwrap_or_default();
            let outcome = match is_open {
                true => self.redactor.redact(&event.text, form, cluster, &rows.target(row)),
                false => Ok(None),
            };
            match surroundings.judged(outcome, self.redactor, &renderer, row, &event.text) {
                Ok(None) => self.preview.others += u64::from(stored.is_some()),
                Ok(Some(redacted)) if stored.is_some() && are_tokens(&redacted.mark, &event.text) => {
                    self.preview.others += 1;
                }
                Err(_) => self.preview.unreadable += 1,
                Ok(Some(redacted)) => {
                    self.preview.changed += 1;
                    self.preview.dropped += redacted.counts.dropped;
                    self.preview.tokenised += redacted.counts.tokenised;
                    for (label, values) in &redacted.counts.by_label {
                        let replaced = self.preview.by_label.entry(*label).or_default();
                        replaced.values += values;
                        replaced.events += 1;
                    }
                    *mark = Some(redacted.mark.to_string());
                }
            }
        }
        drop(self.records.finish()?);
        if marks.iter().any(Option::is_some) {
            let mut columns = batch.columns().to_vec();
            columns[index::REDACTION] = match batch.column(index::REDACTION).data_type() {
                DataType::Dictionary(..) => dictionary(&marks)?,
                _ => Arc::new(StringArray::from(marks)),
            };
            let marked = RecordBatch::try_new(batch.schema(), columns)?;
            let seen = self.preview.hidden.see(&mut self.matcher, &marked);
            seen.map_err(|error| ArrowError::SchemaError(error.to_string()))?;
        }
        Ok(())
    }
}

/// Whether all values that a policy would replace are tokens already.
fn are_tokens(mark: &Redaction, event: &[u8]) -> bool {
    let places = mark.dropped().iter().chain(mark.tokenised()).cloned().collect();
    Redaction::new(0, Vec::new(), places).is_ok_and(|tokens| marked::compare(&tokens, event).is_ok())
}

/// The columns that [`TargetRows`] reads.
const GATE_COLUMNS: [usize; 6] =
    [index::CLUSTER, index::NAMESPACE, index::NAME, index::API_GROUP, index::RESOURCE, index::FAULTS];

/// The values of a batch's rows that decide whether a rule of a policy applies.
struct TargetRows<'b> {
    cluster: Texts<'b>,
    /// Namespace, name, group, resource.
    names: [Texts<'b>; 4],
    faults: Option<&'b arrow_array::ArrayRef>,
}

impl<'b> TargetRows<'b> {
    fn of(batch: &'b RecordBatch) -> Result<TargetRows<'b>, ArrowError> {
        let texts = |at: usize| Texts::of(batch, events::COLUMNS[at]);
        let [_, namespace, name, group, resource, _] = GATE_COLUMNS;
        Ok(TargetRows {
            cluster: texts(index::CLUSTER)?,
            names: [texts(namespace)?, texts(name)?, texts(group)?, texts(resource)?],
            faults: batch.column_by_name(events::FAULTS),
        })
    }

    fn target(&self, row: usize) -> Target<'b> {
        let [namespace, name, api_group, resource] = [0, 1, 2, 3].map(|at| self.names[at].get(row));
        Target { namespace, name, api_group, resource }.said()
    }
}

/// A column of text, as decoded or as stored.
enum Texts<'b> {
    Plain(&'b StringArray),
    Dictionary(&'b DictionaryArray<Int32Type>, &'b StringArray),
}

impl<'b> Texts<'b> {
    fn of(batch: &'b RecordBatch, name: &str) -> Result<Texts<'b>, ArrowError> {
        let wrong = || ArrowError::SchemaError(format!("column {name} is missing or has the wrong type"));
        let column = batch.column_by_name(name).ok_or_else(wrong)?;
        if let Some(plain) = column.as_string_opt::<i32>() {
            return Ok(Texts::Plain(plain));
        }
        let dictionary = column.as_dictionary_opt::<Int32Type>().ok_or_else(wrong)?;
        let values = dictionary.values().as_string_opt::<i32>().ok_or_else(wrong)?;
        Ok(Texts::Dictionary(dictionary, values))
    }

    fn get(&self, row: usize) -> Option<&'b str> {
        match self {
            Texts::Plain(column) => column.is_valid(row).then(|| column.value(row)),
            Texts::Dictionary(column, values) => column.key(row).map(|key| values.value(key)),
        }
    }
}

/// The properties of an event's target on which the effect of a policy depends.
type TargetKey = [Option<String>; 5];

/// Whether a policy may change a row. A row with faults may have more than its columns show.
fn is_open(
    redactor: &Redactor,
    known: &mut HashMap<TargetKey, Roots>,
    rows: &TargetRows<'_>,
    row: usize,
) -> bool {
    if rows.faults.is_some_and(|faults| faults.is_valid(row)) {
        return true;
    }
    let cluster = rows.cluster.get(row).unwrap_or_default();
    let target = rows.target(row);
    let Target { namespace, name, api_group, resource } = target;
    // Of an object's name, only its presence matters to a policy.
    let key =
        [Some(cluster), namespace, name.map(|_| ""), api_group, resource].map(|part| part.map(str::to_owned));
    if let Some(roots) = known.get(&key) {
        return !roots.is_empty();
    }
    let roots = redactor.roots(cluster, &target);
    if known.len() >= TARGETS_MAX {
        known.clear();
    }
    known.insert(key, roots);
    !roots.is_empty()
}
