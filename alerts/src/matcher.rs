//! Matches all rules of a set on one batch.
//!
//! Invariant: the result for a row depends on that row alone. A matcher keeps only buffers between
//! batches, so batches may be matched in any order, by any number of matchers, and a crash loses
//! nothing.
//!
//! A batch costs, in this order: the tests of the distinct values of a few columns (see
//! [`crate::gate`]); a look-up for each row and gate, until most rows have no rule left; the
//! conditions of the candidates, whose results are remembered by distinct value; and the bodies of
//! the rows that are still undecided. Rejected: evaluating each leaf over whole columns first. With
//! a hundred rules, that evaluates most leaves on rows that another column has already excluded.

use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use strongroom_bodies::{Exec, body};
use strongroom_schemas::Outcome;
use strongroom_schemas::events::index;
use strongroom_schemas::marks::FAULTS_MAX;

use crate::columns::{Columns, MatchError, Text};
use crate::compile::Program;
use crate::evaluate::{Evaluation, Row, actor, source_ip, values_of, write_pair};
use crate::fields::Field;
use crate::gate::{self, OpenGate, OpenRows};
use crate::matches::{BatchMatches, Entry, Half, KEPT, Kept, MatchedEvent, Meaning, Symbol, Texts};
use crate::memo::Memo;
use crate::outcome;
use crate::rule::{GRAVE, Measure};
use crate::ruleset::RuleSet;

/// Columns that every alert copies, or that identify its request.
const ALERT_COLUMNS: [usize; 23] = [
    index::AUDIT_ID,
    index::STAGE,
    index::VERB,
    index::REQUEST_URI,
    index::USER_NAME,
    index::IMPERSONATED_USER_NAME,
    index::SOURCE_IPS,
    index::USER_AGENT,
    index::RESOURCE,
    index::SUBRESOURCE,
    index::NAMESPACE,
    index::NAME,
    index::API_GROUP,
    index::RESPONSE_CODE,
    index::RESPONSE_STATUS,
    index::ANNOTATIONS,
    index::FAULTS,
    index::AUTHZ_DECISION,
    index::REQUEST_RECEIVED_TIMESTAMP,
    index::STAGE_TIMESTAMP,
    index::CLUSTER,
    index::SOURCE,
    index::SOURCE_OFFSET,
];

/// Runs the rules of a set on batches of events; each thread has its own.
///
/// A matcher holds the set, and buffers of about 50 bytes for each row of the largest batch.
#[derive(Debug)]
pub struct Matcher {
    rules: Arc<RuleSet>,
    columns: Vec<usize>,
    memos: Vec<Memo>,
    second_memos: Vec<Memo>,
    spare: Vec<Vec<u32>>,
    kept: KeptSymbols,
    kept_shown: KeptSymbols,
}

/// Edited copies of matched rows. Rules are evaluated on the original rows, but matches take their
/// texts from these copies, so that alerts contain no value that a policy has redacted.
pub struct ShownRows<'s> {
    /// Rows of `Table::Events`.
    pub events: RecordBatch,
    /// The rows of the matched batch that have an edited copy, in ascending order, each with the
    /// position of the copy in `events`.
    pub rows: Vec<(usize, usize)>,
    /// Returns a token for a value that the copy lacks, so that a correlation can still tell values
    /// apart.
    pub token: &'s dyn Fn(&str) -> String,
}

impl std::fmt::Debug for ShownRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShownRows").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Matcher {
    pub fn new(rules: Arc<RuleSet>) -> Matcher {
        let leaves = rules.program.leaves.len();
        let mut columns = [ALERT_COLUMNS.as_slice(), &rules.program.columns].concat();
        if rules.rules().iter().any(|rule| rule.alerts) {
            columns.push(index::RESPONSE_OBJECT);
        }
        if rules.names_exec() {
            columns.push(index::REQUEST_OBJECT);
        }
        columns.sort_unstable();
        columns.dedup();
        Matcher {
            columns,
            memos: std::iter::repeat_with(Memo::default).take(leaves).collect(),
            second_memos: std::iter::repeat_with(Memo::default).take(leaves).collect(),
            spare: Vec::new(),
            kept: KeptSymbols::default(),
            kept_shown: KeptSymbols::default(),
            rules,
        }
    }

    /// Returns the rule set that the matcher runs.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Returns the positions, in `Table::Events`, of the columns that the matcher reads; a batch
    /// may lack all other columns.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Matches the rules on a batch of events.
    ///
    /// The batch may have dictionaries (`Table::Events.batch_schema()`) or, like batches from the
    /// archive, plain strings and string views. Columns are found by name, and may be missing if
    /// neither a rule nor an alert needs them.
    ///
    /// # Errors
    /// [`MatchError`] if a needed column is missing or has another type.
    pub fn match_batch(&mut self, batch: &RecordBatch) -> Result<BatchMatches, MatchError> {
        self.match_batch_shown(batch, |_| Ok(None))
    }

    /// Like [`Matcher::match_batch`], but `show` may return edited copies of matched rows. It gets
    /// the positions of the matched rows, in ascending order. What a match keeps of a row is then
    /// taken from the copy: the fields of its alert, the keys and values that correlations count,
    /// and the identity of the request. Only the outcome of the request is taken from the original
    /// row.
    ///
    /// # Errors
    /// Those of [`Matcher::match_batch`] and of `show`.
    pub fn match_batch_shown<'s, E: From<MatchError>>(
        &mut self,
        batch: &RecordBatch,
        show: impl FnOnce(&[usize]) -> Result<Option<ShownRows<'s>>, E>,
    ) -> Result<BatchMatches, E> {
        let rules = Arc::clone(&self.rules);
        let columns = Columns::of(batch, &self.columns)?;
        let mut matches = BatchMatches { rules: Some(Arc::clone(&rules)), ..BatchMatches::default() };
        self.with_candidates(&columns, |evaluation, open| match_rows(evaluation, open, &mut matches));
        if !matches.matched.is_sorted() {
            matches.matched.sort_unstable();
        }
        let mut rows: Vec<usize> = matches.matched.iter().map(|(row, _)| *row as usize).collect();
        rows.dedup();
        let shown = if rows.is_empty() { None } else { show(&rows)? };
        let shown = match &shown {
            Some(shown) => {
                let columns = Columns::of(&shown.events, &self.columns)?;
                self.kept_shown.start(&columns);
                Some((shown, columns))
            }
            None => None,
        };
        self.kept.start(&columns);
        self.collect_matches(
            &rules,
            &columns,
            shown.as_ref().map(|(shown, columns)| (*shown, columns)),
            &mut matches,
        );
        Ok(matches)
    }

    /// Opens the gates of a block, and calls `work` with the rows and rules that the gates do not
    /// exclude.
    fn with_candidates(
        &mut self,
        columns: &Columns<'_>,
        work: impl FnOnce(&mut Evaluation<'_, '_>, &OpenRows),
    ) {
        let program = &self.rules.program;
        self.memos.iter_mut().chain(&mut self.second_memos).for_each(Memo::clear);
        let gates = gate::open(program, columns, &mut self.memos, &mut self.spare);
        let leaf_gates = leaf_gates(program, &gates);
        let mut evaluation = Evaluation {
            program,
            columns,
            gates: &gates,
            leaf_gates: &leaf_gates,
            memos: &mut self.memos,
            second_memos: &mut self.second_memos,
        };
        work(&mut evaluation, &gate::sift(program, &gates, columns.rows));
        self.spare.extend(gates.into_iter().map(|gate| gate.places));
    }

    /// Returns the positions, in `Table::Events`, of the columns that [`Matcher::may_match`] reads.
    pub fn cheap_columns(&self) -> &[usize] {
        &self.rules.program.cheap_columns
    }

    /// Returns for each row whether a rule may match it, judged by all columns but bodies. If the
    /// value is false, no rule matches the row.
    ///
    /// # Errors
    /// [`MatchError`] if one of [`Matcher::cheap_columns`] is missing or has another type.
    pub fn may_match(&mut self, batch: &RecordBatch) -> Result<BooleanArray, MatchError> {
        let mut may = vec![false; batch.num_rows()];
        self.undecided(batch, |row, _| {
            may[row] = true;
            false
        })?;
        Ok(may.into())
    }

    /// Returns each pair of a row and a rule's index for which the rule may match the row, as in
    /// [`Matcher::may_match`].
    ///
    /// # Errors
    /// Those of [`Matcher::may_match`].
    pub fn may_match_by_rule(&mut self, batch: &RecordBatch) -> Result<Vec<(usize, usize)>, MatchError> {
        let mut found = Vec::new();
        self.undecided(batch, |row, rule| {
            found.push((row, rule));
            true
        })?;
        Ok(found)
    }

    /// Calls `see` with each row and each rule that may match it, judged by all columns but bodies.
    /// If `see` returns false, the rest of the row's rules are skipped.
    fn undecided(
        &mut self,
        batch: &RecordBatch,
        mut see: impl FnMut(usize, usize) -> bool,
    ) -> Result<(), MatchError> {
        let columns = Columns::of(batch, &self.rules.program.cheap_columns)?;
        self.with_candidates(&columns, |evaluation, open| {
            let (program, gates) = (evaluation.program, evaluation.gates);
            for &(at, class) in &open.rows {
                let row = Row::new(evaluation.columns, at as usize);
                open.rules(gates, (at, class), |rule| {
                    let rule = &program.rules[rule];
                    let value = rule.node.value(&mut |leaf| evaluation.leaf(leaf, &row, false));
                    value == Some(false) || see(at as usize, rule.info)
                });
            }
        });
        Ok(())
    }

    /// Adds the events and entries of the matched rows to `matches`.
    fn collect_matches(
        &mut self,
        rules: &RuleSet,
        columns: &Columns<'_>,
        shown: Option<(&ShownRows<'_>, &Columns<'_>)>,
        matches: &mut BatchMatches,
    ) {
        let mut last_row = None;
        let mut shown_row: Option<ShownRow<'_>> = None;
        let latest = latest_times(columns, &mut matches.latest_us);
        let matched = std::mem::take(&mut matches.matched);
        let mut pair = Vec::new();
        for &(row, rule) in &matched {
            if last_row != Some(row) {
                shown_row = shown.and_then(|(shown, columns)| {
                    let at = shown.rows.binary_search_by_key(&(row as usize), |(row, _)| *row).ok()?;
                    Some(ShownRow { columns, at: shown.rows[at].1, token: shown.token })
                });
                let mut event = match &shown_row {
                    Some(shown_row) => {
                        self.kept_shown.event(shown_row.columns, shown_row.at, &mut matches.texts)
                    }
                    None => self.kept.event(columns, row as usize, &mut matches.texts),
                };
                event.outcome = outcome::outcomes(columns)[row as usize];
                event.latest_us = latest.get(row as usize).copied().filter(|time_us| *time_us > i64::MIN);
                matches.events.push(event);
                last_row = Some(row);
            }
            let event = matches.events.len() as u32 - 1;
            // If the condition was made to accept an unknown outcome, such a match counts only for
            // alerts of high severity.
            let counts = |info: usize| {
                !rules.event_rule(rule as usize).takes_unknown
                    || outcome::outcomes(columns)[row as usize] != Some(Outcome::Unknown)
                    || rules.rules()[info].severity >= GRAVE
            };
            if rules.rules()[rule as usize].alerts && counts(rule as usize) {
                matches.entries.push(Entry { rule, event, meaning: Meaning::Alert });
            }
            for &(correlation, base) in rules.program.feeds.get(&(rule as usize)).into_iter().flatten() {
                if !counts(rules.correlations[correlation].info) {
                    continue;
                }
                let fields =
                    Fields { columns, row: Row::new(columns, row as usize), shown_row: shown_row.as_ref() };
                if let Some(meaning) =
                    counted(rules, correlation, base, &fields, &mut matches.texts, &mut pair)
                {
                    matches.entries.push(Entry { rule, event, meaning });
                }
            }
        }
        matches.matched = matched;
    }
}

/// Returns, for each leaf, the position of the open gate that has computed the leaf's results.
fn leaf_gates(program: &Program, gates: &[OpenGate]) -> Vec<Option<usize>> {
    let mut leaf_gates = vec![None; program.leaves.len()];
    for (at, open) in gates.iter().enumerate() {
        for &leaf in open.gate.iter().flat_map(|gate| &program.gates[*gate].leaves) {
            leaf_gates[leaf] = Some(at);
        }
    }
    leaf_gates
}

/// Evaluates the rows and rules that the gates do not exclude, and adds the matches.
fn match_rows(evaluation: &mut Evaluation<'_, '_>, open: &OpenRows, matches: &mut BatchMatches) {
    let (program, gates) = (evaluation.program, evaluation.gates);
    for &(at, class) in &open.rows {
        let row = Row::new(evaluation.columns, at as usize);
        open.rules(gates, (at, class), |rule| {
            let rule = &program.rules[rule];
            let cheap = rule.node.value(&mut |leaf| evaluation.leaf(leaf, &row, false));
            let value = cheap.or_else(|| rule.node.value(&mut |leaf| evaluation.leaf(leaf, &row, true)));
            if value == Some(true) || (cheap.is_none() && evaluation.is_true_of_result(rule, &row)) {
                matches.matched.push((at, rule.info as u32));
            }
            true
        });
        matches.bodies_unreadable += row.unreadable.get();
    }
}

/// Returns for each row the latest event time of its source up to that row; [`i64::MIN`] if no
/// event of the source had a time. Adds the latest time of each source to `sources`.
fn latest_times(columns: &Columns<'_>, sources: &mut Vec<(String, i64)>) -> Vec<i64> {
    let names = columns.text(index::SOURCE);
    // Most batches have one source, whose name is then compared once.
    let mut last: Option<(usize, usize)> = None;
    let latest = (0..columns.rows).map(|row| {
        let place = names.place(row);
        if let Some((_, at)) = last.filter(|(known, _)| Some(*known) == place) {
            let (_, latest_us) = &mut sources[at];
            let time_us = columns.number(index::STAGE_TIMESTAMP, row).unwrap_or(i64::MIN);
            *latest_us = time_us.max(*latest_us);
            return *latest_us;
        }
        let name = names.get(row).unwrap_or_default();
        let time_us = columns.number(index::STAGE_TIMESTAMP, row).unwrap_or(i64::MIN);
        // A batch has few sources, so a linear search is fast.
        let at = sources.iter().rposition(|(known, _)| known == name).unwrap_or_else(|| {
            sources.push((name.to_owned(), time_us));
            sources.len() - 1
        });
        last = place.map(|place| (place, at));
        let (_, latest_us) = &mut sources[at];
        *latest_us = time_us.max(*latest_us);
        *latest_us
    });
    latest.collect()
}

/// The edited copy that is shown instead of a matched row.
struct ShownRow<'s> {
    columns: &'s Columns<'s>,
    at: usize,
    token: &'s dyn Fn(&str) -> String,
}

/// A matched row, with its edited copy if it has one.
struct Fields<'f> {
    columns: &'f Columns<'f>,
    row: Row<'f>,
    shown_row: Option<&'f ShownRow<'f>>,
}

impl Fields<'_> {
    /// Adds all values of a field from the row that may be shown. If the edited copy lacks the
    /// field, tokens are added in place of the original values.
    fn values_of(&self, field: &Field, out: &mut Vec<String>) {
        let Some(shown_row) = self.shown_row else { return values_of(self.columns, field, &self.row, out) };
        values_of(shown_row.columns, field, &Row::new(shown_row.columns, shown_row.at), out);
        if out.is_empty() {
            values_of(self.columns, field, &self.row, out);
            out.iter_mut().for_each(|value| *value = (shown_row.token)(value));
        }
    }
}

/// Returns how an event counts for a correlation that its rule feeds; `None` if the correlation
/// counts values and the event has none.
fn counted(
    rules: &RuleSet,
    correlation: usize,
    base: usize,
    fields: &Fields<'_>,
    texts: &mut Texts,
    values: &mut Vec<String>,
) -> Option<Meaning> {
    let definition = &rules.correlations[correlation];
    let base_at = base;
    let base = &definition.bases[base];
    let mut text = String::new();
    let mut hash = Identity::new();
    if !definition.across_clusters {
        hash.text(fields.columns.text(index::CLUSTER).get(fields.row.at));
    }
    for (field, name) in base.group_by.iter().zip(&definition.group_by) {
        values.clear();
        fields.values_of(field, values);
        hash.values(values);
        write_pair(name, values, &mut text);
    }
    let group = hash.finish();
    let mut value = base_at as u128;
    if definition.measure.needs_value() {
        let mut hash = Identity::new();
        let mut present = false;
        for (field, name) in base.values.iter().zip(&definition.value_names) {
            values.clear();
            fields.values_of(field, values);
            present |= !values.is_empty();
            hash.values(values);
            if matches!(definition.measure, Measure::FirstSeen { .. }) {
                write_pair(name, values, &mut text);
            }
        }
        if !present {
            return None;
        }
        value = hash.finish();
    }
    Some(Meaning::Count { correlation: correlation as u32, group, group_text: texts.add(&text), value })
}

/// A hash of several values, each hashed with its length, so that different values cannot be made
/// to collide.
struct Identity(blake3::Hasher);

impl Identity {
    fn new() -> Identity {
        Identity(blake3::Hasher::new())
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            None => self.number(None),
            Some(text) => {
                self.number(Some(text.len() as i64));
                self.0.update(text.as_bytes());
            }
        }
    }

    fn number(&mut self, number: Option<i64>) {
        self.0.update(&[u8::from(number.is_some())]);
        self.0.update(&number.unwrap_or_default().to_le_bytes());
    }

    fn values(&mut self, values: &[String]) {
        self.number(Some(values.len() as i64));
        values.iter().for_each(|value| self.text(Some(value)));
    }

    fn finish(self) -> u128 {
        let hash = self.0.finalize();
        u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"))
    }
}

/// Symbols of the dictionary values that were already copied.
#[derive(Debug, Default)]
struct KeptSymbols {
    by_place: [Vec<Symbol>; KEPT],
}

impl KeptSymbols {
    fn start(&mut self, columns: &Columns<'_>) {
        debug_assert!(columns.rows <= u32::MAX as usize);
        self.by_place.iter_mut().for_each(Vec::clear);
    }

    fn symbol(&mut self, kept: Kept, text: Text<'_>, at: usize, texts: &mut Texts) -> Symbol {
        let Some(value) = text.get(at) else { return Symbol::NONE };
        let Some(place) = text.place(at) else { return texts.add(value) };
        let known = &mut self.by_place[kept as usize];
        if known.is_empty() {
            known.resize(text.places(), Symbol::NONE);
        }
        if known[place] == Symbol::NONE {
            known[place] = texts.add(value);
        }
        known[place]
    }

    fn event(&mut self, columns: &Columns<'_>, row: usize, texts: &mut Texts) -> MatchedEvent {
        let mut symbols = [Symbol::NONE; KEPT];
        for (kept, column) in [
            (Kept::AuditId, index::AUDIT_ID),
            (Kept::Stage, index::STAGE),
            (Kept::Cluster, index::CLUSTER),
            (Kept::Source, index::SOURCE),
            (Kept::UserName, index::USER_NAME),
            (Kept::Actor, index::IMPERSONATED_USER_NAME),
            (Kept::UserAgent, index::USER_AGENT),
            (Kept::Verb, index::VERB),
            (Kept::RequestUri, index::REQUEST_URI),
            (Kept::ApiGroup, index::API_GROUP),
            (Kept::Resource, index::RESOURCE),
            (Kept::Subresource, index::SUBRESOURCE),
            (Kept::Namespace, index::NAMESPACE),
            (Kept::Name, index::NAME),
            (Kept::AuthzDecision, index::AUTHZ_DECISION),
        ] {
            symbols[kept as usize] = self.symbol(kept, columns.text(column), row, texts);
        }
        if symbols[Kept::Actor as usize] == Symbol::NONE {
            symbols[Kept::Actor as usize] = symbols[Kept::UserName as usize];
        }
        if symbols[Kept::Name as usize] == Symbol::NONE
            && let Some(name) = created_name(columns, row)
        {
            symbols[Kept::Name as usize] = texts.add(&name);
        }
        for (kept, part) in [(Kept::ExecCommand, Exec::Command), (Kept::ExecContainer, Exec::Container)] {
            if let Some(text) = exec_of_body(columns, row, part) {
                symbols[kept as usize] = texts.add(&text);
            }
        }
        let faults = columns.lists(index::FAULTS);
        let faults = faults.range(row).filter_map(|item| faults.items.get(item)).take(FAULTS_MAX);
        let faults = faults.map(|fault| texts.add(fault)).collect();
        let lists = columns.lists(index::SOURCE_IPS);
        if let Some(last) = lists.range(row).next_back() {
            symbols[Kept::SourceIp as usize] = self.symbol(Kept::SourceIp, lists.items, last, texts);
        }
        let number = |column| columns.number(column, row);
        let (stage_us, received_us) =
            (number(index::STAGE_TIMESTAMP), number(index::REQUEST_RECEIVED_TIMESTAMP));
        MatchedEvent {
            texts: symbols,
            time_us: stage_us.or(received_us),
            is_dated_by_source: false,
            request_received_us: received_us,
            response_code: number(index::RESPONSE_CODE).and_then(|code| i32::try_from(code).ok()),
            source_offset: number(index::SOURCE_OFFSET).unwrap_or_default(),
            outcome: outcome::outcomes(columns)[row],
            faults,
            request: request_identity(columns, row, stage_us, received_us),
            half: half(columns, row, stage_us, received_us),
            latest_us: None,
        }
    }
}

/// Returns the name that the API server gave an object, if the request left the name to it
/// (`generateName`).
fn created_name(columns: &Columns<'_>, row: usize) -> Option<String> {
    let text = |column| columns.text(column).get(row);
    let creates = text(index::VERB) == Some("create")
        && text(index::RESOURCE).is_some()
        && text(index::SUBRESOURCE).is_none();
    let response = columns.optional_text(index::RESPONSE_OBJECT)?;
    body::object_name(response.get(row).filter(|_| creates)?)
}

/// Returns a part of an exec or attach request from its body, if its URI does not have the part.
fn exec_of_body(columns: &Columns<'_>, row: usize, part: Exec) -> Option<String> {
    let text = |column| columns.text(column).get(row);
    let is_needed = part.is_in_body(text(index::SUBRESOURCE))
        && text(index::REQUEST_URI).and_then(|uri| part.of_uri(uri)).is_none();
    let request = columns.optional_text(index::REQUEST_OBJECT)?;
    part.of_body(&body::examine(request.get(row).filter(|_| is_needed)?)?.value)
}

/// Returns which half of a request an event is; `None` unless the event has an audit id and the
/// time of a response stage, but not the time at which the request was received.
fn half(columns: &Columns<'_>, row: usize, stage_us: Option<i64>, received_us: Option<i64>) -> Option<Half> {
    let text = |column| columns.text(column).get(row);
    let is_start = match text(index::STAGE) {
        Some("ResponseStarted") => true,
        Some("ResponseComplete") => false,
        _ => return None,
    };
    let (time_us, None) = (stage_us?, received_us) else { return None };
    let mut hash = Identity::new();
    hash.text(Some(text(index::AUDIT_ID).filter(|id| !id.is_empty())?));
    hash.text(actor(columns, row));
    hash.text(source_ip(columns, row));
    for column in [
        index::CLUSTER,
        index::USER_NAME,
        index::VERB,
        index::REQUEST_URI,
        index::API_GROUP,
        index::RESOURCE,
        index::SUBRESOURCE,
        index::NAMESPACE,
        index::NAME,
    ] {
        hash.text(text(column));
    }
    Some(Half { operation: hash.finish(), is_start, time_us })
}

/// Returns a hash that identifies a request. The audit id is not enough: a client may send the id
/// of an earlier request, and its alerts would then be taken for repetitions. If the audit id is
/// missing, or the time at which the request was received, the time of the stage is hashed as well.
fn request_identity(
    columns: &Columns<'_>,
    row: usize,
    stage_us: Option<i64>,
    received_us: Option<i64>,
) -> u128 {
    let text = |column| columns.text(column).get(row);
    let audit_id = text(index::AUDIT_ID).filter(|id| !id.is_empty());
    let mut hash = Identity::new();
    hash.text(text(index::CLUSTER));
    hash.text(audit_id);
    hash.text(text(index::USER_NAME));
    hash.text(actor(columns, row));
    hash.text(source_ip(columns, row));
    hash.text(text(index::VERB));
    hash.text(text(index::REQUEST_URI));
    hash.number(received_us);
    if audit_id.is_none() || received_us.is_none() {
        hash.number(stage_us);
    }
    hash.finish()
}
