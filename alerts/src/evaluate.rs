//! Evaluation of leaves for one row: from columns, from memos, and last from the bodies.
//!
//! Invariant: evaluation is three-valued. While bodies are not evaluated, a leaf that needs a body
//! is unknown. A body is parsed only if the leaves that need no body leave a condition undecided,
//! and only once per row for all rules. No state.
//!
//! A patch shows only a part of the object. So a condition over several members may be false for
//! every part and true for the whole. If the response contains the object that results from a
//! patch, a rule can be evaluated a second time, with that object in place of the request's. This
//! is done only for rules that read something that the patch touched.

use std::cell::{Cell, OnceCell};
use std::fmt::Write;

use chrono::{DateTime, SecondsFormat};
use serde_json::Value;
use strongroom_bodies::binding::{self, Identity};
use strongroom_bodies::body::{self, Examined};
use strongroom_bodies::walk::{self, Pod};
use strongroom_bodies::{Exec, touched};
use strongroom_schemas::Outcome;
use strongroom_schemas::events::index;

use crate::columns::{Column, Columns, Text};
use crate::compile::{CompiledRule, Program, Question, keyword_columns};
use crate::expr::{Comparison, Expr, Quantifier};
use crate::fields::{Body, Field, Path};
use crate::gate::OpenGate;
use crate::memo::Memo;
use crate::message::first_chars;
use crate::outcome;
use crate::pattern::{self, Test};

/// A row, and the bodies that have been parsed for it.
pub(crate) struct Row<'a> {
    pub(crate) at: usize,
    columns: &'a Columns<'a>,
    request: OnceCell<Option<Examined>>,
    response: OnceCell<Option<Examined>>,
    /// True while the object in the response is used in place of the object in the request.
    judges_result: Cell<bool>,
    pub(crate) unreadable: Cell<u64>,
}

impl<'a> Row<'a> {
    pub(crate) fn new(columns: &'a Columns<'a>, at: usize) -> Row<'a> {
        Row {
            at,
            columns,
            request: OnceCell::new(),
            response: OnceCell::new(),
            judges_result: Cell::new(false),
            unreadable: Cell::new(0),
        }
    }

    fn text(&self, column: usize) -> Option<&'a str> {
        self.columns.text(column).get(self.at)
    }

    fn body(&self, body: Body) -> Option<&Value> {
        let body = if self.judges_result.get() { Body::Response } else { body };
        Some(&self.examine(body)?.value)
    }

    /// Returns true if the response has the object that results from the request, and the request
    /// shows only a part of that object: the request is a patch, or its body is missing or cannot
    /// be read.
    pub(crate) fn has_result(&self) -> bool {
        let is_partial = match self.text(index::VERB) {
            Some("patch") => true,
            Some("create" | "update") => self.examine(Body::Request).is_none(),
            _ => false,
        };
        let Some(result) = is_partial.then(|| self.examine(Body::Response)).flatten() else { return false };
        let text = |key: &str| result.value.get(key).and_then(Value::as_str).unwrap_or_default();
        result.value.get("metadata").is_some_and(Value::is_object)
            && text("kind") != "Status"
            && !text("@type").ends_with(".Status")
    }

    /// Returns true for a patch whose event does not contain the resulting object.
    fn is_partial(&self) -> bool {
        self.text(index::VERB) == Some("patch") && !self.has_result()
    }

    /// Returns true if the request writes or removes something that a question is about. Also
    /// returns true if it may do so in a part that is not in the event.
    fn touches(&self, question: &Question) -> bool {
        let Some(request) = self.examine(Body::Request).filter(|request| request.is_whole) else {
            return true;
        };
        let resource = self.text(index::RESOURCE).unwrap_or_default();
        let one = |field: &Field, below: &[String]| match field {
            Field::Body(Body::Request, path) => touched::touches(request, &[&path.0, below].concat()),
            Field::Pod(path) => touched::touches_pod(request, resource, &[&path.0, below].concat()),
            Field::BindsItself => {
                binding::SUBJECT_LISTS.iter().any(|list| touched::touches(request, &[(*list).to_owned()]))
            }
            _ => false,
        };
        match question {
            Question::Test(field, _) => one(field, &[]),
            Question::Compare(left, _, right) => one(left, &[]) || one(right, &[]),
            Question::Scope(field, _, inner) => {
                let mut is_touched = false;
                element_paths(inner, &mut Vec::new(), &mut |path| is_touched |= one(field, path));
                is_touched
            }
            Question::Keyword(_) => false,
        }
    }

    /// Returns true if a binding in the request body names the user who sends the request, or one
    /// of the user's groups.
    fn binds_itself(&self) -> bool {
        let Some(body) = self.body(Body::Request) else { return false };
        let identity = |name, groups| {
            let groups = self.columns.lists(groups);
            Identity {
                user: self.text(name),
                groups: groups.range(self.at).filter_map(|item| groups.items.get(item)).collect(),
            }
        };
        let identities = [
            identity(index::USER_NAME, index::USER_GROUPS),
            identity(index::IMPERSONATED_USER_NAME, index::IMPERSONATED_USER_GROUPS),
        ];
        binding::names(body, self.text(index::NAMESPACE), &identities)
    }

    fn examine(&self, body: Body) -> Option<&Examined> {
        let (cell, column) = match body {
            Body::Request => (&self.request, index::REQUEST_OBJECT),
            Body::Response => (&self.response, index::RESPONSE_OBJECT),
        };
        let parsed = cell.get_or_init(|| {
            let parsed = body::examine(self.text(column)?);
            self.unreadable.set(self.unreadable.get() + u64::from(parsed.is_none()));
            parsed
        });
        parsed.as_ref()
    }

    /// Returns false if rules cannot see all of the request body; `None` without a body. If a body
    /// is not JSON or is nested too deeply, usually its column is null and the event has a fault.
    fn examined(&self) -> Option<bool> {
        let text = self.text(index::REQUEST_OBJECT)?;
        let is_sure = self.request.get().is_none() && body::is_plain(text);
        Some(is_sure || self.examine(Body::Request).is_some_and(|examined| examined.is_whole))
    }

    /// Returns JSON pointers to what the request removes.
    fn removed(&self) -> &[String] {
        self.examine(Body::Request).map(Examined::removes).unwrap_or_default()
    }

    /// Returns a part of an exec request: from its URI or, if the URI does not have the part, from
    /// its body.
    fn exec(&self, part: Exec) -> Option<String> {
        let of_uri = self.text(index::REQUEST_URI).and_then(|uri| part.of_uri(uri));
        if of_uri.is_some() || !part.is_in_body(self.text(index::SUBRESOURCE)) {
            return of_uri;
        }
        part.of_body(self.body(Body::Request)?)
    }

    fn pod(&self) -> Pod<'_> {
        let resource = self.text(index::RESOURCE).unwrap_or_default();
        Pod::of(resource, self.body(Body::Request))
    }
}

/// The evaluation of a program's leaves on one block.
pub(crate) struct Evaluation<'a, 'm> {
    pub(crate) program: &'a Program,
    pub(crate) columns: &'a Columns<'a>,
    pub(crate) gates: &'m [OpenGate],
    /// For each leaf, the position of the open gate that has computed the leaf's results.
    pub(crate) leaf_gates: &'m [Option<usize>],
    /// A memo for each leaf.
    pub(crate) memos: &'m mut [Memo],
    /// A second memo for each leaf. A leaf on the actor reads two columns, and remembers here its
    /// results for impersonated users.
    pub(crate) second_memos: &'m mut [Memo],
}

impl Evaluation<'_, '_> {
    /// Returns true if a rule's condition is true of the object that results from a request, and
    /// the request was about something that the rule reads.
    pub(crate) fn is_true_of_result(&mut self, rule: &CompiledRule, row: &Row<'_>) -> bool {
        let program = self.program;
        let touches = |leaf: &usize| row.touches(&program.leaves[*leaf].question);
        if rule.object_leaves.is_empty() || !row.has_result() || !rule.object_leaves.iter().any(touches) {
            return false;
        }
        row.judges_result.set(true);
        let value = rule.node.value(&mut |leaf| self.leaf(leaf, row, true));
        row.judges_result.set(false);
        value == Some(true)
    }

    /// Returns a leaf's result; `None` if it needs a body and `bodies` is false.
    pub(crate) fn leaf(&mut self, leaf: usize, row: &Row<'_>, bodies: bool) -> Option<bool> {
        if let Some(gate) = self.leaf_gates[leaf] {
            return self.memos[leaf].known(self.gates[gate].places[row.at] as usize);
        }
        let program = self.program;
        if program.leaves[leaf].deferred && !bodies {
            return None;
        }
        Some(match &program.leaves[leaf].question {
            Question::Test(field, test) => self.test(leaf, field, test, row),
            Question::Scope(field, quantifier, inner) => self.scope(leaf, field, *quantifier, inner, row),
            Question::Compare(left, comparison, right) => {
                let (mut lefts, mut rights) = (Vec::new(), Vec::new());
                values_of(self.columns, left, row, &mut lefts);
                values_of(self.columns, right, row, &mut rights);
                lefts.iter().any(|left| rights.iter().any(|right| compares(left, *comparison, right)))
            }
            Question::Keyword(test) => self.keyword(test, row),
        })
    }

    fn test(&mut self, leaf: usize, field: &Field, test: &Test, row: &Row<'_>) -> bool {
        let columns = self.columns;
        match field {
            Field::Column(at) => match columns.column(*at) {
                Column::Text(text) => {
                    remembered(&mut self.memos[leaf], text, row.at, |value| test.matches(value))
                }
                _ => {
                    let number = columns.number(*at, row.at).map(|number| number.to_string());
                    test.matches(number.as_deref())
                }
            },
            Field::Actor => {
                let impersonated = columns.text(index::IMPERSONATED_USER_NAME);
                let matches = |value: Option<&str>| test.matches(value);
                match impersonated.get(row.at) {
                    Some(_) => remembered(&mut self.second_memos[leaf], impersonated, row.at, matches),
                    None => {
                        remembered(&mut self.memos[leaf], columns.text(index::USER_NAME), row.at, matches)
                    }
                }
            }
            Field::SourceIp => {
                let lists = columns.lists(index::SOURCE_IPS);
                match lists.range(row.at).next_back() {
                    None => test.matches(None),
                    Some(last) => {
                        remembered(&mut self.memos[leaf], lists.items, last, |value| test.matches(value))
                    }
                }
            }
            Field::List(at) => {
                let lists = columns.lists(*at);
                let mut range = lists.range(row.at);
                if range.is_empty() {
                    return test.matches(None);
                }
                let memo = &mut self.memos[leaf];
                range.any(|item| remembered(memo, lists.items, item, |value| test.matches(value)))
            }
            Field::Time(at) => test.matches(time_text(columns, *at, row.at).as_deref()),
            Field::Outcome => test.matches(outcome::outcomes(columns)[row.at].map(Outcome::as_str)),
            Field::DryRun => test.matches(Some(outcome::bool_text(outcome::dry_runs(columns)[row.at]))),
            Field::Creates => test.matches(Some(outcome::bool_text(outcome::creates(columns, row.at)))),
            Field::Examined => test.matches(row.examined().map(outcome::bool_text)),
            Field::Removed => {
                let removed = row.removed();
                if removed.is_empty() {
                    return test.matches(None);
                }
                removed.iter().any(|place| test.matches(Some(place)))
            }
            Field::Partial => test.matches(Some(outcome::bool_text(row.is_partial()))),
            Field::BindsItself => test.matches(Some(outcome::bool_text(row.binds_itself()))),
            Field::Exec(part) => test.matches(row.exec(*part).as_deref()),
            Field::Client => {
                let agents = columns.text(index::USER_AGENT);
                remembered(&mut self.memos[leaf], agents, row.at, |agent| {
                    test.matches(agent.and_then(client))
                })
            }
            Field::Json(at, path) => remembered(&mut self.memos[leaf], columns.text(*at), row.at, |text| {
                let value: Option<Value> = text.and_then(body::value);
                walk::any_at(value.as_ref(), &path.0, &mut |value| test.matches_json(value))
            }),
            Field::Body(body, path) => {
                walk::any_at(row.body(*body), &path.0, &mut |value| test.matches_json(value))
            }
            Field::Pod(path) => row.pod().any_at(&path.0, &mut |value| test.matches_json(value)),
            Field::Element(_) => unreachable!("elements are evaluated inside their scope"),
        }
    }

    fn scope(
        &mut self,
        leaf: usize,
        field: &Field,
        quantifier: Quantifier,
        inner: &Expr,
        row: &Row<'_>,
    ) -> bool {
        let columns = self.columns;
        let quantified = |items: Vec<&Value>| {
            holds(quantifier, items.len(), items.iter().map(|item| element(inner, Element::Json(item))))
        };
        let mut items = Vec::new();
        match field {
            Field::List(at) => {
                let lists = columns.lists(*at);
                let range = lists.range(row.at);
                let answers = range.clone().map(|item| element(inner, Element::Text(lists.items.get(item))));
                holds(quantifier, range.len(), answers)
            }
            Field::Json(at, path) => remembered(&mut self.memos[leaf], columns.text(*at), row.at, |text| {
                let value: Option<Value> = text.and_then(body::value);
                let mut items = Vec::new();
                walk::elements(value.as_ref(), &path.0, &mut items);
                quantified(items)
            }),
            Field::Body(body, path) => {
                walk::elements(row.body(*body), &path.0, &mut items);
                quantified(items)
            }
            Field::Pod(path) => {
                row.pod().elements(&path.0, &mut items);
                quantified(items)
            }
            other => unreachable!("{other:?} was refused as a scope when the rule was read"),
        }
    }

    /// Returns true if a keyword is in any value of the event.
    fn keyword(&self, test: &Test, row: &Row<'_>) -> bool {
        let columns = self.columns;
        let in_json = |value: Option<&Value>| {
            value.is_some_and(|value| walk::any_text(value, &mut |scalar| test.matches_json(Some(scalar))))
        };
        keyword_columns().any(|at| match at {
            index::REQUEST_OBJECT => in_json(row.body(Body::Request)),
            index::RESPONSE_OBJECT => in_json(row.body(Body::Response)),
            index::ANNOTATIONS
            | index::RESPONSE_DETAILS
            | index::USER_EXTRA
            | index::IMPERSONATED_USER_EXTRA => {
                let text = columns.text(at).get(row.at);
                let value: Option<Value> = text.and_then(body::value);
                in_json(value.as_ref())
            }
            _ => match columns.column(at) {
                Column::Text(text) => text.get(row.at).is_some_and(|value| test.matches(Some(value))),
                Column::Lists(lists) => lists
                    .range(row.at)
                    .any(|item| lists.items.get(item).is_some_and(|value| test.matches(Some(value)))),
                _ => columns.number(at, row.at).is_some_and(|number| test.matches(Some(&number.to_string()))),
            },
        })
    }
}

/// Returns the result for a row's value. If the column is a dictionary, the result is remembered in
/// the memo, and `answer` is called once for each distinct value.
fn remembered(memo: &mut Memo, text: Text<'_>, at: usize, answer: impl Fn(Option<&str>) -> bool) -> bool {
    match text.place(at) {
        None => answer(text.get(at)),
        Some(place) => memo.get(place, text.places(), || answer(text.get(at))),
    }
}

/// Returns true if as many elements match as `quantifier` requires. `answers` are the results of
/// the `count` elements, and are read only until the result is known.
fn holds(quantifier: Quantifier, count: usize, mut answers: impl Iterator<Item = bool>) -> bool {
    match quantifier {
        Quantifier::Any => answers.any(|answer| answer),
        Quantifier::None => !answers.any(|answer| answer),
        Quantifier::AllOrEmpty => answers.all(|answer| answer),
        Quantifier::All => count > 0 && answers.all(|answer| answer),
    }
}

/// One element of an array in a scope.
#[derive(Clone, Copy)]
enum Element<'v> {
    Text(Option<&'v str>),
    Json(&'v Value),
}

/// Returns true if an element satisfies the expression of its scope.
fn element(expr: &Expr, item: Element<'_>) -> bool {
    match expr {
        Expr::All(exprs) => exprs.iter().all(|expr| element(expr, item)),
        Expr::Any(exprs) => exprs.iter().any(|expr| element(expr, item)),
        Expr::Not(expr) => !element(expr, item),
        Expr::Field(Field::Element(path), test) => match item {
            Element::Text(text) if path.0.is_empty() => test.matches(text),
            Element::Text(_) => test.matches(None),
            Element::Json(value) => walk::any_at(Some(value), &path.0, &mut |value| test.matches_json(value)),
        },
        Expr::Fields(Field::Element(left), comparison, Field::Element(right)) => {
            let (lefts, rights) = (element_texts(item, left), element_texts(item, right));
            lefts.iter().any(|left| rights.iter().any(|right| compares(left, *comparison, right)))
        }
        Expr::Scope(Field::Element(path), quantifier, inner) => {
            let mut items = Vec::new();
            if let Element::Json(value) = item {
                walk::elements(Some(value), &path.0, &mut items);
            }
            holds(*quantifier, items.len(), items.iter().map(|item| element(inner, Element::Json(item))))
        }
        other => unreachable!("{other:?} is not about an element; refused when the rule was read"),
    }
}

/// Calls `see` with each path that the expression of a scope reads below an element.
fn element_paths(expr: &Expr, outer: &mut Vec<String>, see: &mut dyn FnMut(&[String])) {
    let mut below = |path: &Path, inner: Option<&Expr>| {
        let length = outer.len();
        outer.extend_from_slice(&path.0);
        match inner {
            Some(inner) => element_paths(inner, outer, see),
            None => see(outer),
        }
        outer.truncate(length);
    };
    match expr {
        Expr::All(exprs) | Expr::Any(exprs) => exprs.iter().for_each(|expr| element_paths(expr, outer, see)),
        Expr::Not(expr) => element_paths(expr, outer, see),
        Expr::Field(Field::Element(path), _) => below(path, None),
        Expr::Fields(Field::Element(left), _, Field::Element(right)) => {
            below(left, None);
            below(right, None);
        }
        Expr::Scope(Field::Element(path), _, inner) => below(path, Some(inner)),
        _ => {}
    }
}

fn element_texts(item: Element<'_>, path: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    match item {
        Element::Text(text) if path.0.is_empty() => texts.extend(text.map(str::to_owned)),
        Element::Text(_) => {}
        Element::Json(value) => scalar_texts(Some(value), path, &mut texts),
    }
    texts
}

fn scalar_texts(value: Option<&Value>, path: &Path, out: &mut Vec<String>) {
    walk::any_at(value, &path.0, &mut |value| {
        let mut text = String::new();
        if value.is_some_and(|value| pattern::scalar_text(value, &mut text)) {
            out.push(text);
        }
        false
    });
}

fn compares(left: &str, comparison: Comparison, right: &str) -> bool {
    let (left, right) = (pattern::fold(left), pattern::fold(right));
    match comparison {
        Comparison::Equals => left == right,
        Comparison::Contains => left.contains(&right),
        Comparison::StartsWith => left.starts_with(&right),
        Comparison::EndsWith => left.ends_with(&right),
    }
}

/// Adds all values of a field in a row, as text; adds nothing for null.
pub(crate) fn values_of(columns: &Columns<'_>, field: &Field, row: &Row<'_>, out: &mut Vec<String>) {
    match field {
        Field::Column(at) => match columns.column(*at) {
            Column::Text(text) => out.extend(text.get(row.at).map(str::to_owned)),
            _ => out.extend(columns.number(*at, row.at).map(|number| number.to_string())),
        },
        Field::Actor => out.extend(actor(columns, row.at).map(str::to_owned)),
        Field::SourceIp => out.extend(source_ip(columns, row.at).map(str::to_owned)),
        Field::List(at) => {
            let lists = columns.lists(*at);
            out.extend(lists.range(row.at).filter_map(|item| lists.items.get(item)).map(str::to_owned));
        }
        Field::Time(at) => out.extend(time_text(columns, *at, row.at)),
        Field::Outcome => {
            out.extend(outcome::outcomes(columns)[row.at].map(|outcome| outcome.as_str().to_owned()))
        }
        Field::DryRun => out.push(outcome::bool_text(outcome::dry_runs(columns)[row.at]).to_owned()),
        Field::Creates => out.push(outcome::bool_text(outcome::creates(columns, row.at)).to_owned()),
        Field::Examined => out.extend(row.examined().map(|examined| outcome::bool_text(examined).to_owned())),
        Field::Removed => out.extend_from_slice(row.removed()),
        Field::Partial => out.push(outcome::bool_text(row.is_partial()).to_owned()),
        Field::BindsItself => out.push(outcome::bool_text(row.binds_itself()).to_owned()),
        Field::Exec(part) => out.extend(row.exec(*part)),
        Field::Client => {
            let agent = columns.text(index::USER_AGENT).get(row.at);
            out.extend(agent.and_then(client).map(str::to_owned));
        }
        Field::Json(at, path) => {
            let text = columns.text(*at).get(row.at);
            let value: Option<Value> = text.and_then(body::value);
            scalar_texts(value.as_ref(), path, out);
        }
        Field::Body(body, path) => scalar_texts(row.body(*body), path, out),
        Field::Pod(path) => {
            row.pod().any_at(&path.0, &mut |value| {
                scalar_texts(value, &Path(Vec::new()), out);
                false
            });
        }
        Field::Element(_) => unreachable!("elements are evaluated inside their scope"),
    }
}

pub(crate) fn actor<'a>(columns: &Columns<'a>, row: usize) -> Option<&'a str> {
    let impersonated = columns.text(index::IMPERSONATED_USER_NAME).get(row);
    impersonated.or_else(|| columns.text(index::USER_NAME).get(row))
}

pub(crate) fn source_ip<'a>(columns: &Columns<'a>, row: usize) -> Option<&'a str> {
    let lists = columns.lists(index::SOURCE_IPS);
    lists.items.get(lists.range(row).next_back()?)
}

fn time_text(columns: &Columns<'_>, at: usize, row: usize) -> Option<String> {
    let time = DateTime::from_timestamp_micros(columns.number(at, row)?)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// Returns the program that a user agent names first: `kubectl` for `kubectl/v1.31.2
/// (linux/amd64)`. Returns `None` if the user agent names no program.
pub(crate) fn client(agent: &str) -> Option<&str> {
    let agent = agent.trim_ascii_start();
    let end = agent.find(|c: char| c == '/' || c == '(' || c.is_ascii_whitespace()).unwrap_or(agent.len());
    (end > 0).then(|| &agent[..end])
}

/// Adds one `name=value` pair of a group to `out`, in the format of alerts.
pub(crate) fn write_pair(name: &str, values: &[String], out: &mut String) {
    /// Longest value of a group that an alert shows, in characters.
    const VALUE_CHARS_MAX: usize = 256;
    let separator = if out.is_empty() { "" } else { ", " };
    write!(out, "{separator}{name}=").expect("writing to a String");
    match values {
        [] => out.push('-'),
        [value] => out.push_str(first_chars(value, VALUE_CHARS_MAX)),
        values => out.push_str(first_chars(&values.join(","), VALUE_CHARS_MAX)),
    }
}
