//! The computed column `outcome` of `events` and the views: whether a request succeeded.
//!
//! Invariant: the SQL below gives the same outcomes as [`strongroom_schemas::outcome`], which rules
//! use. A test compares the two for every combination of the values that the outcome depends on. No
//! state.

use arrow_schema::Schema;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;

/// Name of the column.
pub(crate) const OUTCOME: &str = "outcome";

/// | what is known | outcome |
/// |---|---|
/// | stage RequestReceived | null |
/// | no resource, and OpenShift's login decision is allow | success |
/// | no resource, and OpenShift's login decision is deny or error | failure |
/// | stage Panic, or decision forbid, or a code of 400 or more | failure |
/// | a code from 100 to 399 | success |
/// | no code, and status Failure | failure |
/// | no code, and status Success | success |
/// | no code, and decision allow, and stage ResponseStarted, ResponseComplete or null | success |
/// | none of these | unknown |
///
/// The first line that applies decides. The annotations are parsed only if they contain the name of
/// the login decision.
const SQL: &str = "
CASE WHEN stage = 'RequestReceived' THEN NULL
     WHEN resource IS NULL AND strpos(annotations, 'authentication.openshift.io/decision') > 0
          AND json_get_str(annotations, 'authentication.openshift.io/decision') = 'allow' THEN 'success'
     WHEN resource IS NULL AND strpos(annotations, 'authentication.openshift.io/decision') > 0
          AND json_get_str(annotations, 'authentication.openshift.io/decision') IN ('deny', 'error') THEN 'failure'
     WHEN stage = 'Panic' OR authz_decision = 'forbid' OR response_code >= 400 THEN 'failure'
     WHEN response_code >= 100 THEN 'success'
     WHEN response_status = 'Failure' THEN 'failure'
     WHEN response_status = 'Success' THEN 'success'
     WHEN authz_decision = 'allow' AND (stage IS NULL OR stage IN ('ResponseStarted', 'ResponseComplete')) THEN 'success'
     ELSE 'unknown' END";

/// Returns the expression over the columns of `events`.
pub(crate) fn expr(context: &SessionContext, events: &Schema) -> Result<Expr> {
    context.parse_sql_expr(SQL, &DFSchema::try_from(events.clone())?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::cast::AsArray;
    use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray};
    use strongroom_schemas::Outcome;
    use strongroom_schemas::events;
    use strongroom_schemas::outcome::{Answer, LOGIN_DECISION};

    use super::*;
    use crate::json;

    #[tokio::test]
    async fn views_and_rules_mean_the_same_by_success() {
        let stages = [None, Some("RequestReceived"), Some("ResponseStarted"), Some("ResponseComplete")];
        let stages = stages.into_iter().chain([Some("Panic"), Some("another"), Some("")]);
        let codes =
            [None, Some(-1), Some(0), Some(99), Some(100), Some(201), Some(399), Some(400), Some(599)];
        let statuses = [None, Some("Success"), Some("Failure"), Some("failure"), Some("")];
        let decisions = [None, Some("allow"), Some("forbid"), Some("Allow"), Some("")];
        let logins = [None, Some("allow"), Some("deny"), Some("error"), Some("other")];
        let resources = [None, Some("pods")];
        let mut answers = Vec::new();
        for stage in stages {
            for response_code in codes {
                for response_status in statuses {
                    for authz_decision in decisions {
                        for resource in resources {
                            answers.extend(logins.map(|login_decision| Answer {
                                stage,
                                response_code,
                                response_status,
                                authz_decision,
                                resource,
                                login_decision,
                            }));
                        }
                    }
                }
            }
        }
        let text = |of: fn(&Answer<'static>) -> Option<&'static str>| -> ArrayRef {
            Arc::new(answers.iter().map(of).collect::<StringArray>())
        };
        let annotations = answers.iter().map(|answer| {
            let login = answer.login_decision?;
            Some(format!(r#"{{"authorization.k8s.io/reason":"","{LOGIN_DECISION}":"{login}"}}"#))
        });
        let annotations: ArrayRef = Arc::new(annotations.collect::<StringArray>());
        let codes = answers.iter().map(|answer| answer.response_code);
        let codes: ArrayRef = Arc::new(codes.collect::<Int32Array>());
        let batch = RecordBatch::try_from_iter_with_nullable([
            (events::STAGE, text(|answer| answer.stage), true),
            (events::RESPONSE_CODE, codes, true),
            (events::RESPONSE_STATUS, text(|answer| answer.response_status), true),
            (events::AUTHZ_DECISION, text(|answer| answer.authz_decision), true),
            (events::RESOURCE, text(|answer| answer.resource), true),
            (events::ANNOTATIONS, annotations, true),
        ])
        .unwrap();
        let context = SessionContext::new();
        let mut state = context.state();
        json::register(&mut state).unwrap();
        let context = SessionContext::new_with_state(state);
        let outcome = expr(&context, &batch.schema()).unwrap().alias(OUTCOME);
        let rows = context.read_batch(batch).unwrap().select(vec![outcome]).unwrap().collect().await.unwrap();
        let mut found = Vec::new();
        for batch in &rows {
            let column =
                datafusion::arrow::compute::cast(batch.column(0), &arrow_schema::DataType::Utf8).unwrap();
            found.extend(column.as_string::<i32>().iter().map(|outcome| outcome.map(str::to_owned)));
        }
        assert_eq!(found.len(), answers.len());
        for (answer, found) in answers.iter().zip(&found) {
            let expected = answer.outcome().map(Outcome::as_str);
            assert_eq!(found.as_deref(), expected, "{answer:?}");
        }
    }
}
