//! Counts the values in sealed events that rules cannot see, because they were redacted.
//!
//! On the stream, rules see events as they were received. A hunt reads what is stored: a rule that
//! asks for a value that was dropped or replaced by a token may not find an event that it found on
//! the stream. Redaction marks say which values these are, so the rules and their fields can be
//! counted.
//!
//! Invariants:
//! - A rule that may be blind to an event is counted, even if it has matched the event all the
//!   same: bodies are not read, so a match cannot be excluded.
//! - A value that was replaced by a token still equals itself. So a correlation that only groups by
//!   the value, or counts it, is not blind to it.
//! - Memory is bounded by the rules and by [`MARKS_MAX`], not by the number of events.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::{Array as _, RecordBatch};
use strongroom_bodies::binding::SUBJECT_LISTS;
use strongroom_schemas::events::{self, index};
use strongroom_schemas::marked::SOME_ITEMS;
use strongroom_schemas::marks::Redaction;

use crate::columns::{MatchError, Text};
use crate::expr::Expr;
use crate::fields::{Body, Exec, Field, Path};
use crate::matcher::Matcher;
use crate::ruleset::RuleSet;

/// Maximum number of different marks whose rules are remembered.
const MARKS_MAX: usize = 16_384;

/// The places of an event's members in Google's entries, each with its place in an event.
const GOOGLE: &[(&str, &str)] = &[
    ("protoPayload.request", "requestObject"),
    ("protoPayload.response", "responseObject"),
    ("protoPayload.authenticationInfo.principalEmail", "user.username"),
    ("protoPayload.status.message", "responseStatus.message"),
    ("protoPayload.status.details", "responseStatus.details"),
    ("labels", "annotations"),
];

/// The places in a body that have a pod spec, and the metadata beside it.
const PODS: &[&str] = &["", ".spec.template", ".spec.jobTemplate.spec.template", ".template"];
/// The URI. It is a text, but a mark may point to a single query parameter, as if that were a
/// member.
const URI: &str = "requestURI";
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// A field of a rule that may be hidden in an event.
#[derive(Clone, Debug)]
struct Asked {
    /// Position of the rule in [`RuleSet::rules`].
    rule: usize,
    /// Position of the rule over single events that feeds the rule, or of the rule itself.
    base: usize,
    field: String,
    /// Where the value may be in an event, as names that are joined by dots.
    paths: Vec<String>,
    /// True if the columns that are read still show whether the rule may match the event. They do
    /// not if the hidden field is one of them.
    is_body: bool,
    /// True if a correlation only groups by the value or counts it, so that a token is as good as
    /// the value.
    is_compared_with_itself: bool,
}

/// The hidden fields that rules ask for, with the number of events for each.
#[derive(Debug)]
pub struct Hidden {
    asked: Vec<Asked>,
    /// For each mark, the fields that it hides.
    marks: HashMap<String, Arc<[usize]>>,
    events: u64,
    counts: BTreeMap<(usize, usize), u64>,
}

impl Hidden {
    /// Starts a count for these rules.
    pub fn new(rules: &RuleSet) -> Hidden {
        let mut asked = Vec::new();
        for rule in &rules.events {
            fields_in(&rule.condition, None, &mut |field, name| {
                asked.push(Asked {
                    rule: rule.info,
                    base: rule.info,
                    field: name,
                    paths: paths_of(field),
                    is_body: field.is_body() || *field == KEYWORDS,
                    is_compared_with_itself: false,
                });
            });
        }
        for correlation in &rules.correlations {
            for base in &correlation.bases {
                for field in base.group_by.iter().chain(&base.values) {
                    asked.push(Asked {
                        rule: correlation.info,
                        base: base.rule,
                        field: name_of(field),
                        paths: paths_of(field),
                        is_body: true,
                        is_compared_with_itself: true,
                    });
                }
            }
        }
        asked.retain(|asked| !asked.paths.is_empty());
        Hidden { asked, marks: HashMap::new(), events: 0, counts: BTreeMap::new() }
    }

    /// Returns the number of redacted events that were counted.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Returns the hidden fields of the rule at position `at` of [`RuleSet::rules`], each with the
    /// number of events in which it was hidden and that the rule might match. For a correlation,
    /// the fields of the rules that feed it are included.
    pub fn fields(&self, rules: &RuleSet, at: usize) -> BTreeMap<&str, u64> {
        let mut fields = BTreeMap::new();
        for rule in rules.feeders(at).into_iter().chain([at]) {
            for ((_, field), count) in self.counts.range((rule, 0)..(rule + 1, 0)) {
                let known = fields.entry(self.asked[*field].field.as_str()).or_insert(0);
                *known = (*known).max(*count);
            }
        }
        fields
    }

    /// Counts the redacted rows of a batch of stored events. The batch has the columns of
    /// [`Matcher::cheap_columns`], and the column `redaction`.
    ///
    /// # Errors
    /// Those of [`Matcher::may_match`].
    pub fn see(&mut self, matcher: &mut Matcher, batch: &RecordBatch) -> Result<(), MatchError> {
        let column = batch.column_by_name(events::REDACTION);
        let Some(column) = column.filter(|column| column.null_count() < column.len()) else { return Ok(()) };
        let Some(marks) = Text::of(column) else { return Ok(()) };
        let mut may_match = matcher.may_match_by_rule(batch)?;
        may_match.sort_unstable();
        for row in 0..batch.num_rows() {
            let Some(mark) = marks.get(row) else { continue };
            self.events += 1;
            let hidden = self.hidden_by(mark);
            for at in hidden.iter().copied() {
                let asked = &self.asked[at];
                if !asked.is_body || may_match.binary_search(&(row, asked.base)).is_ok() {
                    *self.counts.entry((asked.rule, at)).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    fn hidden_by(&mut self, mark: &str) -> Arc<[usize]> {
        if let Some(known) = self.marks.get(mark) {
            return Arc::clone(known);
        }
        let (dropped, tokenised) = match Redaction::parse(mark) {
            Ok(mark) => (places(mark.dropped()), places(mark.tokenised())),
            // If the mark cannot be parsed, everything in the event may be hidden.
            Err(_) => (vec![String::new()], Vec::new()),
        };
        let hides = |asked: &Asked| {
            let is_hidden = |place: &String| asked.paths.iter().any(|path| hides(place, path));
            dropped.iter().any(is_hidden)
                || (!asked.is_compared_with_itself && tokenised.iter().any(is_hidden))
        };
        let hidden = self.asked.iter().enumerate().filter(|(_, asked)| hides(asked)).map(|(at, _)| at);
        let hidden: Arc<[usize]> = hidden.collect();
        if self.marks.len() >= MARKS_MAX {
            self.marks.clear();
        }
        self.marks.insert(mark.to_owned(), Arc::clone(&hidden));
        hidden
    }
}

/// Returns true if a redaction at `place` may hide a value at `path`: the redaction is at the value
/// or around it. If the value is a text, a redaction inside it hides it, too. But an object still
/// exists if one of its members was redacted.
fn hides(place: &str, path: &str) -> bool {
    let is_in = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| outer.is_empty() || rest.is_empty() || rest.starts_with('.'))
    };
    is_in(path, place) || ((path.is_empty() || path == URI) && is_in(place, path))
}

/// Converts pointers to places: names that are joined by dots, without the indexes of items.
fn places(pointers: &[String]) -> Vec<String> {
    let mut places: Vec<String> = pointers.iter().map(|pointer| place_of(pointer)).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// Returns true if a step of a path is the index of an item.
fn is_item(step: &str) -> bool {
    step == SOME_ITEMS || (!step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()))
}

fn place_of(pointer: &str) -> String {
    let steps: Vec<String> =
        pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let is_body = |steps: &[String]| {
        let place = steps.join(".");
        GOOGLE.iter().take(2).any(|(google, plain)| place == *google || place == *plain)
    };
    // An operation of a JSON patch may be about any part of the object.
    let patched = (1..steps.len()).find(|at| is_item(&steps[*at]) && is_body(&steps[..*at]));
    let steps = &steps[..patched.unwrap_or(steps.len())];
    let place = steps.iter().filter(|step| !is_item(step)).map(String::as_str).collect::<Vec<_>>().join(".");
    for (google, plain) in GOOGLE {
        if let Some(rest) = place.strip_prefix(google).filter(|rest| rest.is_empty() || rest.starts_with('.'))
        {
            return format!("{plain}{rest}");
        }
    }
    place
}

/// Calls `see` with each field in an expression, and its name. A field of an element inside a scope
/// is passed as a field below the scope's field.
fn fields_in(expr: &Expr, scope: Option<&Field>, see: &mut dyn FnMut(&Field, String)) {
    let mut one = |field: &Field| match (field, scope) {
        (Field::Element(path), Some(scope)) => {
            if let Some(field) = below(scope, path) {
                see(&field, name_of(&field));
            }
        }
        (field, _) => see(field, name_of(field)),
    };
    match expr {
        Expr::All(exprs) | Expr::Any(exprs) => exprs.iter().for_each(|expr| fields_in(expr, scope, see)),
        Expr::Not(expr) => fields_in(expr, scope, see),
        Expr::Field(field, _) => one(field),
        Expr::Fields(left, _, right) => [left, right].into_iter().for_each(one),
        Expr::Scope(Field::Element(path), _, inner) => {
            let field = scope.and_then(|scope| below(scope, path));
            fields_in(inner, field.as_ref().or(scope), see);
        }
        Expr::Scope(field, _, inner) => fields_in(inner, Some(field), see),
        Expr::Keyword(_) => see(&KEYWORDS, "keywords".to_owned()),
    }
}

/// Stands for a keyword, which may be in any value of the event.
const KEYWORDS: Field = Field::Element(Path(Vec::new()));

fn below(scope: &Field, path: &Path) -> Option<Field> {
    let joined = |outer: &Path| Path(outer.0.iter().chain(&path.0).cloned().collect());
    Some(match scope {
        Field::Body(body, outer) => Field::Body(*body, joined(outer)),
        Field::Pod(outer) => Field::Pod(joined(outer)),
        Field::Json(column, outer) => Field::Json(*column, joined(outer)),
        other if path.0.is_empty() => other.clone(),
        _ => return None,
    })
}

/// Returns the places that may contain the value of a field; only places that a policy can redact.
fn paths_of(field: &Field) -> Vec<String> {
    let at = |root: &str, path: &Path| {
        let parts = path.0.iter().map(String::as_str).filter(|part| !is_item(part));
        std::iter::once(root).chain(parts).collect::<Vec<_>>().join(".")
    };
    let one = |path: &str| vec![path.to_owned()];
    match field {
        Field::Actor | Field::Column(index::USER_NAME) => one("user.username"),
        Field::Column(index::IMPERSONATED_USER_NAME) => one("impersonatedUser.username"),
        Field::Column(index::REQUEST_URI) => one(URI),
        Field::Column(index::RESPONSE_MESSAGE) => one("responseStatus.message"),
        Field::Column(index::AUTHZ_DECISION) => one("annotations.authorization.k8s.io/decision"),
        Field::Column(index::AUTHZ_REASON) => one("annotations.authorization.k8s.io/reason"),
        Field::DryRun => one("requestURI.dryRun"),
        Field::BindsItself => SUBJECT_LISTS.iter().map(|list| format!("requestObject.{list}")).collect(),
        Field::Exec(Exec::Command) => {
            vec!["requestURI.command".to_owned(), "requestObject.command".to_owned()]
        }
        Field::Exec(Exec::Container) => {
            vec!["requestURI.container".to_owned(), "requestObject.container".to_owned()]
        }
        Field::Json(index::ANNOTATIONS, path) => vec![at("annotations", path)],
        Field::Json(index::USER_EXTRA, path) => vec![at("user.extra", path)],
        Field::Json(index::IMPERSONATED_USER_EXTRA, path) => vec![at("impersonatedUser.extra", path)],
        Field::Json(index::RESPONSE_DETAILS, path) => vec![at("responseStatus.details", path)],
        Field::Body(Body::Request, path) => vec![at("requestObject", path)],
        Field::Body(Body::Response, path) => vec![at("responseObject", path)],
        Field::Pod(path) => {
            let (first, rest) = path.0.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
            let rest = Path(rest.to_vec());
            let spec = |root: &str, list: &str| at(&format!("requestObject{root}.spec.{list}"), &rest);
            PODS.iter()
                .flat_map(|root| match first {
                    "" => vec![format!("requestObject{root}.spec")],
                    "metadata" => vec![at(&format!("requestObject{root}.metadata"), &rest)],
                    "containers" => CONTAINERS.map(|list| spec(root, list)).to_vec(),
                    other => vec![spec(root, other)],
                })
                .collect()
        }
        keywords if *keywords == KEYWORDS => vec![String::new()],
        _ => Vec::new(),
    }
}

/// Returns the name of a field that a policy can redact, as rules write it.
fn name_of(field: &Field) -> String {
    let below = |root: &str, path: &Path| {
        let parts = path.0.iter().map(|part| part.replace('.', "\\."));
        std::iter::once(root.to_owned()).chain(parts).collect::<Vec<_>>().join(".")
    };
    match field {
        Field::Actor => "actor".to_owned(),
        Field::DryRun => "dry_run".to_owned(),
        Field::BindsItself => "binds_itself".to_owned(),
        Field::Exec(Exec::Command) => "exec.command".to_owned(),
        Field::Exec(Exec::Container) => "exec.container".to_owned(),
        Field::Pod(path) => below("pod", path),
        Field::Body(Body::Request, path) => below("requestObject", path),
        Field::Body(Body::Response, path) => below("responseObject", path),
        Field::Json(index::RESPONSE_DETAILS, path) => below("responseStatus.details", path),
        Field::Column(index::AUTHZ_DECISION) => "authz.decision".to_owned(),
        Field::Column(index::AUTHZ_REASON) => "authz.reason".to_owned(),
        other => paths_of(other).pop().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int32Type;
    use arrow_array::{ArrayRef, DictionaryArray};
    use strongroom_decode::decode_bytes;

    use super::*;

    const RULES: &str = r#"
title: Privileged
name: privileged
logsource: {product: kubernetes, service: audit}
detection:
  a: {verb: create}
  b:
    "pod.containers[any]":
      securityContext.privileged: true
  condition: a and b
---
title: Secret
name: secret
logsource: {product: kubernetes, service: audit}
detection:
  a: {objectRef.resource: secrets, "requestObject.metadata.labels.app\\.io/x": y}
  condition: a
---
title: Name
name: name
logsource: {product: kubernetes, service: audit}
detection:
  a: {user.username: eve}
  condition: a
---
title: Borrowed
name: borrowed
logsource: {product: kubernetes, service: audit}
detection:
  a: {impersonatedUser.username: eve}
  condition: a
---
title: Plain
name: plain
logsource: {product: kubernetes, service: audit}
detection:
  a: {objectRef.resource: secrets}
  condition: a
---
title: Words
name: words
logsource: {product: kubernetes, service: audit}
detection:
  a: ["needle"]
  condition: a
---
title: Many
name: many
correlation:
  type: value_count
  rules: [plain]
  group-by: [user.username]
  timespan: 5m
  condition: {field: requestURI, gte: 3}
"#;

    /// Returns the hidden fields of each rule, with the numbers of events.
    fn hidden(marks: &[Option<String>], resource: &str) -> Vec<(String, Vec<(String, u64)>)> {
        let rules = Arc::new(RuleSet::from_yaml("r.yml", RULES).unwrap());
        let line = format!(
            "{{\"kind\":\"Event\",\"level\":\"Request\",\"auditID\":\"a\",\"stage\":\"ResponseComplete\",\"verb\":\"create\",\"user\":{{\"username\":\"mallory\"}},\"objectRef\":{{\"resource\":\"{resource}\"}},\"responseStatus\":{{\"code\":201}},\"requestObject\":{{}}}}\n"
        );
        let decoded = decode_bytes(line.repeat(marks.len()).as_bytes(), "c", "file/f").unwrap();
        let mut columns = decoded.events.columns().to_vec();
        columns[index::REDACTION] =
            Arc::new(marks.iter().map(|mark| mark.as_deref()).collect::<DictionaryArray<Int32Type>>())
                as ArrayRef;
        let batch = RecordBatch::try_new(decoded.events.schema(), columns).unwrap();
        let mut hidden = Hidden::new(&rules);
        hidden.see(&mut Matcher::new(Arc::clone(&rules)), &batch).unwrap();
        assert_eq!(hidden.events(), marks.iter().flatten().count() as u64);
        let named = |at: usize| {
            let fields = hidden.fields(&rules, at).into_iter();
            (
                rules.rules()[at].name.clone(),
                fields.map(|(field, n)| (field.to_owned(), n)).collect::<Vec<_>>(),
            )
        };
        let all = (0..rules.rules().len()).map(named);
        all.filter(|(name, fields)| name != "words" && !fields.is_empty()).collect()
    }

    fn mark(dropped: &[&str], tokenised: &[&str]) -> Option<String> {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Some(Redaction::new(1, owned(dropped), owned(tokenised)).unwrap().to_string())
    }

    fn one(rule: &str, field: &str, events: u64) -> (String, Vec<(String, u64)>) {
        (rule.to_owned(), vec![(field.to_owned(), events)])
    }

    #[test]
    fn rules_whose_fields_were_redacted_are_counted() {
        let privileged = "pod.containers.securityContext.privileged";
        let path = "/requestObject/spec/template/spec/initContainers/3/securityContext";
        let marks = [mark(&[path], &[]), None, mark(&["/requestObject/spec/containers/-/image"], &[])];
        assert_eq!(hidden(&marks, "deployments"), [one("privileged", privileged, 1)]);
        let patch = [mark(&[], &["/requestObject/0/value"]), mark(&[], &["/protoPayload/request"])];
        assert_eq!(hidden(&patch, "pods"), [one("privileged", privileged, 2)]);
        let label = [mark(&[], &["/requestObject/metadata/labels/app.io~1x"])];
        assert_eq!(hidden(&label, "secrets"), [one("secret", r"requestObject.metadata.labels.app\.io/x", 1)]);
        assert_eq!(hidden(&label, "pods"), [], "the rule cannot match an event of another resource");
        assert_eq!(hidden(&[mark(&["/requestObject/metadata/label"], &[])], "secrets"), []);
    }

    #[test]
    fn a_token_groups_and_counts_like_its_value() {
        // From a token, it cannot be seen whether the name is the one that the rule asks for, so
        // the event counts.
        assert_eq!(hidden(&[mark(&[], &["/user/username"])], "secrets"), [one("name", "user.username", 1)]);
        let borrowed = [mark(&[], &["/impersonatedUser/username"])];
        let field = "impersonatedUser.username";
        assert_eq!(hidden(&borrowed, "secrets"), [one("borrowed", field, 1)]);
        let dropped = [mark(&["/requestURI/a"], &[])];
        assert_eq!(hidden(&dropped, "secrets"), [one("many", "requestURI", 1)]);
        assert_eq!(hidden(&[mark(&[], &["/requestURI"])], "secrets"), []);
    }

    #[test]
    fn places_are_pointers_without_items() {
        for (pointer, place) in [
            ("/requestObject/items/3/data/a~1b", "requestObject.items.data.a/b"),
            ("/requestObject/7/value/x", "requestObject"),
            ("/protoPayload/response/items/-/x", "responseObject.items.x"),
            ("/protoPayload/request/0/value", "requestObject"),
            ("/labels/authorization.k8s.io~1reason", "annotations.authorization.k8s.io/reason"),
            ("/labelsx/a", "labelsx.a"),
        ] {
            assert_eq!(place_of(pointer), place, "{pointer}");
        }
        assert!(hides("a", "a.b") && hides("a", "a") && hides("a", "") && hides("", "a"));
        assert!(!hides("a.b", "a") && !hides("a.bc", "a.b") && !hides("a", "ab"));
        assert!(hides("requestURI.a", "requestURI") && !hides("requestURI.a", "requestURI.b"));
    }

    #[test]
    fn keywords_may_be_anywhere() {
        let rules = RuleSet::from_yaml("r.yml", RULES).unwrap();
        let mut hidden = Hidden::new(&rules);
        let fields = hidden.hidden_by(&mark(&["/anything"], &[]).unwrap());
        let names: Vec<&str> = fields.iter().map(|at| hidden.asked[*at].field.as_str()).collect();
        assert_eq!(names, ["keywords"]);
        assert_eq!(hidden.hidden_by("not a mark").len(), hidden.asked.len());
    }
}
