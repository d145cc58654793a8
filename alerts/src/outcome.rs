//! Computes the virtual fields `outcome`, `dry_run` and `creates` for each row of a batch, and
//! finds and widens the rules that ask for success.
//!
//! Invariant: the values are those of [`strongroom_schemas::outcome`]. Each distinct value of a
//! dictionary column is examined once for a batch; a row only combines the results. No state
//! outlives a batch.

use std::sync::{Arc, LazyLock};

use memchr::memmem;
use serde_json::Value;
use strongroom_bodies::body;
use strongroom_schemas::Outcome;
use strongroom_schemas::events::index;
use strongroom_schemas::outcome::{Answer, CODE_FAILURE_MIN, LOGIN_DECISION, asks_dry_run, obeys_dry_run};

use crate::columns::{Columns, Text};
use crate::expr::Expr;
use crate::fields::Field;
use crate::pattern::{Check, Part, Test};

/// The response code of an apply that makes an object.
const CODE_CREATED: i64 = 201;

/// The values of the field `outcome`, in the order of their places in a gate.
pub(crate) const OUTCOMES: [&str; 3] =
    [Outcome::Success.as_str(), Outcome::Failure.as_str(), Outcome::Unknown.as_str()];

/// The values of the field `dry_run`, in the order of their places in a gate.
pub(crate) const BOOLS: [&str; 2] = ["false", "true"];

/// Returns the place of an outcome in a gate.
pub(crate) fn place(outcome: Option<Outcome>) -> u32 {
    match outcome {
        None => 0,
        Some(Outcome::Success) => 1,
        Some(Outcome::Failure) => 2,
        Some(Outcome::Unknown) => 3,
    }
}

pub(crate) fn bool_text(value: bool) -> &'static str {
    BOOLS[usize::from(value)]
}

/// A stage for each class of stages that lead to the same outcome; the last one stands for all
/// other stages.
const STAGES: [Option<&str>; 5] =
    [None, Some("ResponseComplete"), Some("RequestReceived"), Some("Panic"), Some("another")];
/// A response code for each class of codes that lead to the same outcome; `None` stands for all
/// other codes.
const CODES: [Option<i32>; 3] = [Some(200), Some(CODE_FAILURE_MIN), None];
/// A status for each class of statuses; `None` stands for all other statuses.
const STATUSES: [Option<&str>; 3] = [Some("Failure"), Some("Success"), None];
/// A decision of the authorizer for each class of decisions; `None` stands for all other decisions.
const DECISIONS: [Option<&str>; 3] = [Some("allow"), Some("forbid"), None];
/// A login decision for each class of login decisions; `None` stands for all other decisions.
const LOGINS: [Option<&str>; 3] = [Some("allow"), Some("deny"), None];
/// The login class of a request for a resource, which cannot be a login.
const NO_LOGIN: usize = LOGINS.len() - 1;

fn stage_class(stage: Option<&str>) -> usize {
    match stage {
        None => 0,
        Some("ResponseComplete" | "ResponseStarted") => 1,
        Some("RequestReceived") => 2,
        Some("Panic") => 3,
        Some(_) => 4,
    }
}

fn code_class(code: Option<i64>) -> usize {
    match code {
        Some(100..400) => 0,
        Some(400..) => 1,
        _ => 2,
    }
}

fn class_of(classes: [Option<&str>; 3], value: Option<&str>) -> usize {
    classes.iter().position(|class| class.is_some() && *class == value).unwrap_or(classes.len() - 1)
}

/// Returns the class of the login decision in an event's annotations.
fn login_class(annotations: Option<&str>) -> usize {
    let value: Option<Value> = annotations
        .filter(|text| memmem::find(text.as_bytes(), LOGIN_DECISION.as_bytes()).is_some())
        .and_then(body::value);
    match value.as_ref().and_then(|value| value.get(LOGIN_DECISION)?.as_str()) {
        Some("error") => 1,
        decision => class_of(LOGINS, decision),
    }
}

/// The outcome of each combination of classes.
static TABLE: LazyLock<Vec<Option<Outcome>>> = LazyLock::new(|| {
    let mut table = Vec::new();
    for stage in STAGES {
        for response_code in CODES {
            for response_status in STATUSES {
                for authz_decision in DECISIONS {
                    for login_decision in LOGINS {
                        let answer = Answer {
                            stage,
                            response_code,
                            response_status,
                            authz_decision,
                            login_decision,
                            ..Answer::default()
                        };
                        table.push(answer.outcome());
                    }
                }
            }
        }
    }
    table
});

/// The class of each distinct value of a column, or the means to find it for each row.
enum Classes<'a> {
    ByPlace(Text<'a>, Vec<usize>),
    ByRow(Text<'a>, fn(Option<&str>) -> usize),
}

impl<'a> Classes<'a> {
    fn of(text: Text<'a>, class: fn(Option<&str>) -> usize) -> Classes<'a> {
        match text {
            Text::Plain(_) => Classes::ByRow(text, class),
            Text::Dictionary(_, values) => {
                let of_values = (0..values.len()).map(|at| class(values.get(at)));
                Classes::ByPlace(text, std::iter::once(class(None)).chain(of_values).collect())
            }
        }
    }

    fn get(&self, row: usize) -> usize {
        match self {
            Classes::ByRow(text, class) => class(text.get(row)),
            Classes::ByPlace(text, classes) => text.place(row).map_or(0, |place| classes[place]),
        }
    }
}

/// Returns the outcome of each row.
pub(crate) fn outcomes<'c>(columns: &'c Columns<'_>) -> &'c [Option<Outcome>] {
    columns.outcomes(|| outcome_of_rows(columns))
}

fn outcome_of_rows(columns: &Columns<'_>) -> Vec<Option<Outcome>> {
    let stages = Classes::of(columns.text(index::STAGE), stage_class);
    let statuses = Classes::of(columns.text(index::RESPONSE_STATUS), |value| class_of(STATUSES, value));
    let decisions = Classes::of(columns.text(index::AUTHZ_DECISION), |value| class_of(DECISIONS, value));
    let logins = Classes::of(columns.text(index::ANNOTATIONS), login_class);
    let resources = columns.text(index::RESOURCE);
    let table = &*TABLE;
    let of_row = |row| {
        let mut at = stages.get(row);
        at = at * CODES.len() + code_class(columns.number(index::RESPONSE_CODE, row));
        at = at * STATUSES.len() + statuses.get(row);
        at = at * DECISIONS.len() + decisions.get(row);
        let login = logins.get(row);
        let is_login = login != NO_LOGIN && resources.get(row).is_none();
        at = at * LOGINS.len() + if is_login { login } else { NO_LOGIN };
        table[at]
    };
    (0..columns.rows).map(of_row).collect()
}

/// Returns for each row whether it is a dry run.
pub(crate) fn dry_runs<'c>(columns: &'c Columns<'_>) -> &'c [bool] {
    columns.dry_runs(|| dry_run_of_rows(columns))
}

fn dry_run_of_rows(columns: &Columns<'_>) -> Vec<bool> {
    let uris = columns.text(index::REQUEST_URI);
    let asks = Classes::of(uris, |uri| usize::from(uri.is_some_and(asks_dry_run)));
    let text = |column, row| columns.text(column).get(row);
    let of_row = |row| {
        asks.get(row) == 1
            && obeys_dry_run(
                text(index::VERB, row),
                text(index::API_GROUP, row),
                text(index::RESOURCE, row),
                text(index::SUBRESOURCE, row),
            )
    };
    (0..columns.rows).map(of_row).collect()
}

/// Returns true if the request of a row creates an object.
pub(crate) fn creates(columns: &Columns<'_>, row: usize) -> bool {
    match columns.text(index::VERB).get(row) {
        Some("create") => true,
        Some("patch") => columns.number(index::RESPONSE_CODE, row) == Some(CODE_CREATED),
        _ => false,
    }
}

/// Returns true if an expression has a line that accepts the outcome and is not negated.
pub(crate) fn asks(expr: &Expr, outcome: Outcome) -> bool {
    any_line(expr, true, &|positive, test| positive && test.matches(Some(outcome.as_str())))
}

/// Returns true if an expression has a line about the outcome.
pub(crate) fn is_named(expr: &Expr) -> bool {
    any_line(expr, true, &|_, _| true)
}

fn any_line(expr: &Expr, positive: bool, holds: &impl Fn(bool, &Test) -> bool) -> bool {
    match expr {
        Expr::All(exprs) | Expr::Any(exprs) => exprs.iter().any(|expr| any_line(expr, positive, holds)),
        Expr::Not(expr) => any_line(expr, !positive, holds),
        Expr::Field(Field::Outcome, test) => holds(positive, test),
        _ => false,
    }
}

/// Returns an expression that also accepts an unknown outcome wherever it asks for success.
pub(crate) fn or_unknown(expr: Expr) -> Expr {
    fn widened(expr: Expr, positive: bool) -> Expr {
        let all = |exprs: Vec<Expr>| exprs.into_iter().map(|expr| widened(expr, positive)).collect();
        match expr {
            Expr::All(exprs) => Expr::All(all(exprs)),
            Expr::Any(exprs) => Expr::Any(all(exprs)),
            Expr::Not(expr) => Expr::Not(Box::new(widened(*expr, !positive))),
            Expr::Field(Field::Outcome, test)
                if positive
                    && test.matches(Some(Outcome::Success.as_str()))
                    && !test.matches(Some(Outcome::Unknown.as_str())) =>
            {
                let unknown = Part::Literal(Outcome::Unknown.as_str().to_owned());
                let unknown = Test::any_of(vec![Check::Text { parts: vec![unknown], cased: true }]);
                Expr::Any(vec![
                    Expr::Field(Field::Outcome, test),
                    Expr::Field(Field::Outcome, Arc::new(unknown)),
                ])
            }
            other => other,
        }
    }
    widened(expr, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_class_have_one_outcome() {
        let stages = [None, Some("ResponseStarted"), Some("ResponseComplete"), Some("RequestReceived")];
        let stages = stages.into_iter().chain([Some("Panic"), Some(""), Some("responsecomplete")]);
        let codes = [None, Some(-1), Some(0), Some(99), Some(100), Some(399), Some(400), Some(i32::MAX)];
        let statuses = [None, Some("Success"), Some("Failure"), Some("failure"), Some("")];
        let decisions = [None, Some("allow"), Some("forbid"), Some("Allow")];
        let logins = [None, Some("allow"), Some("deny"), Some("error"), Some("")];
        for stage in stages {
            for response_code in codes {
                for response_status in statuses {
                    for authz_decision in decisions {
                        for login_decision in logins {
                            let answer = Answer {
                                stage,
                                response_code,
                                response_status,
                                authz_decision,
                                login_decision,
                                ..Answer::default()
                            };
                            let annotations = login_decision
                                .map(|login| serde_json::json!({ LOGIN_DECISION: login }).to_string());
                            let mut at = stage_class(stage);
                            at = at * CODES.len() + code_class(response_code.map(i64::from));
                            at = at * STATUSES.len() + class_of(STATUSES, response_status);
                            at = at * DECISIONS.len() + class_of(DECISIONS, authz_decision);
                            at = at * LOGINS.len() + login_class(annotations.as_deref());
                            assert_eq!(TABLE[at], answer.outcome(), "{answer:?}");
                        }
                    }
                }
            }
        }
    }
}
