//! JSON in SQL: `->` and `#>` give JSON as text, `->>` and `#>>` the value of that JSON.
//!
//! Invariant: every value that a query computes has a type that can be compared, sorted, grouped
//! and written in every format. The `->` of `datafusion-functions-json` gives a union (a string, or
//! a number, or an object), which allows none of these. So here `->` gives the JSON that the client
//! wrote: `3`, `"a"`, `{"b":null}`. A cast to a number or a boolean, or a further step down,
//! reads the JSON value directly instead of this text.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::udfs::{json_get_json_udf, json_get_udf};

/// Functions that take a further step down from a JSON value. They read that value directly if all
/// steps are known when a query is planned.
const STEPS_DOWN: [&str; 6] =
    ["json_as_text", "json_get_bool", "json_get_float", "json_get_int", "json_get_json", "json_get_str"];
/// Functions that return or take a union; they are not offered.
const FUNCTIONS_OF_UNIONS: [&str; 2] = ["json_from_scalar", "json_union_to_text"];

/// Registers the JSON functions and operators.
pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    // These two run before the planner and the rewrites of `datafusion-functions-json`, which then
    // work on their result.
    state.register_expr_planner(Arc::new(ArrowsGiveText))?;
    state.register_function_rewrite(Arc::new(ReadInPlace))?;
    datafusion_functions_json::register_all(state)?;
    for name in FUNCTIONS_OF_UNIONS {
        state.deregister_udf(name)?;
    }
    state.register_udf(Arc::new(json_get_json_udf().as_ref().clone().with_aliases(["json_get"])))?;
    Ok(())
}

#[derive(Debug)]
struct ArrowsGiveText;

impl ExprPlanner for ArrowsGiveText {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if !matches!(expr.op, BinaryOperator::Arrow | BinaryOperator::HashArrow) {
            return Ok(PlannerResult::Original(expr));
        }
        let name = format!("{} {} {}", title(&expr.left), expr.op, title(&expr.right));
        let call = json_get_json_udf().call(vec![expr.left, expr.right]);
        Ok(PlannerResult::Planned(call.alias(name)))
    }
}

/// Returns `expr` as the name of a column shows it.
fn title(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.name.clone(),
        Expr::Alias(alias) => alias.name.clone(),
        Expr::Literal(value, _) => match value.try_as_str() {
            Some(Some(text)) => format!("'{text}'"),
            _ => value.to_string(),
        },
        _ => expr.schema_name().to_string(),
    }
}

/// Lets a cast or a JSON function read a JSON value directly, where a statement gives it the text
/// of that value.
#[derive(Debug)]
struct ReadInPlace;

impl FunctionRewrite for ReadInPlace {
    fn name(&self) -> &str {
        "read_json_in_place"
    }

    fn rewrite(&self, expr: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::Cast(Cast { expr, field }) if is_read_in_place(field.data_type()) => {
                value_of(*expr).update_data(|value| Expr::Cast(Cast { expr: Box::new(value), field }))
            }
            Expr::TryCast(TryCast { expr, field }) if is_read_in_place(field.data_type()) => {
                value_of(*expr).update_data(|value| Expr::TryCast(TryCast { expr: Box::new(value), field }))
            }
            Expr::ScalarFunction(mut call) if is_further_step(&call) => value_of(call.args.remove(0))
                .update_data(|value| {
                    call.args.insert(0, value);
                    Expr::ScalarFunction(call)
                }),
            other => Transformed::no(other),
        })
    }
}

fn is_further_step(call: &ScalarFunction) -> bool {
    let is_known = |steps: &[Expr]| steps.iter().all(|step| matches!(step, Expr::Literal(..)));
    let text = call.args.first().and_then(text_of);
    STEPS_DOWN.contains(&call.func.name())
        && is_known(&call.args[1..])
        && text.is_some_and(|text| !text.args.is_empty() && is_known(&text.args[1..]))
}

/// Returns true if a cast to `data_type` may read the JSON value directly. A cast to text may not,
/// because it would then return a string without its quotes, as `->>` does.
fn is_read_in_place(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean | DataType::Int32 | DataType::Int64 | DataType::Float32 | DataType::Float64
    ) || data_type.is_decimal()
}

/// If `expr` is the text of a JSON value, returns that value; else returns `expr` unchanged.
fn value_of(expr: Expr) -> Transformed<Expr> {
    match text_of(&expr) {
        Some(text) => Transformed::yes(json_get_udf().call(text.args.clone())),
        None => Transformed::no(expr),
    }
}

/// If `expr` is the text of a JSON value, returns the call that produces it.
fn text_of(expr: &Expr) -> Option<&ScalarFunction> {
    match expr {
        Expr::ScalarFunction(call) => (call.func.name() == json_get_json_udf().name()).then_some(call),
        Expr::Alias(alias) => text_of(&alias.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::util::display::array_value_to_string;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    use super::*;

    const ROWS: &str = r#"(VALUES (1, '{"a":{"b":3,"c":[1,"x",null],"n":null,"t":true},"s":"q\"s","big":12345678901234567890}'),
        (2, '{"a":{"b":10}}'), (3, 'no json'), (4, NULL)) AS v(id, j)"#;

    /// Returns the first column of the answer to a query, as text.
    async fn answer(sql: &str) -> Vec<String> {
        answered(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn answered(sql: &str) -> Result<Vec<String>> {
        let mut state = SessionStateBuilder::new().with_default_features().build();
        register(&mut state)?;
        let statement = crate::gate::admit(sql).expect("a statement that reads");
        let plan = state.statement_to_plan(statement).await?;
        let batches =
            SessionContext::new_with_state(state).execute_logical_plan(plan).await?.collect().await?;
        let mut values = vec![];
        for batch in batches {
            for row in 0..batch.num_rows() {
                values.push(array_value_to_string(batch.column(0), row)?);
            }
        }
        Ok(values)
    }

    #[tokio::test]
    async fn operators_give_text_and_values() {
        for (expression, expected) in [
            ("j->'a'->'b'", ["3", "10", "", ""]),
            ("j->'a'->>'b'", ["3", "10", "", ""]),
            ("j->'s'", [r#""q\"s""#, "", "", ""]),
            ("j->>'s'", [r#"q"s"#, "", "", ""]),
            ("j->'a'->'c'", [r#"[1,"x",null]"#, "", "", ""]),
            ("j->'a'->'c'->1", [r#""x""#, "", "", ""]),
            ("j->'a'->'c'->>1", ["x", "", "", ""]),
            ("j->'big'", ["12345678901234567890", "", "", ""]),
            ("j#>array['a','b']", ["3", "10", "", ""]),
            ("j#>>array['a','b']", ["3", "10", "", ""]),
            ("(j->'a'->'b')::int + 1", ["4", "11", "", ""]),
            ("(j->'a'->'b')::double", ["3.0", "10.0", "", ""]),
            ("(j->'a'->'t')::boolean", ["true", "", "", ""]),
            ("(j->'a'->'n')::int", ["", "", "", ""]),
            ("(j->'s')::text", [r#""q\"s""#, "", "", ""]),
            ("json_contains(j->'a', 'b')", ["true", "true", "false", "false"]),
            ("json_get(j, 'a', 'b')", ["3", "10", "", ""]),
            ("json_get_int(j, 'a', 'b')", ["3", "10", "", ""]),
            ("json_get_str(j->'a'->'c', 1)", ["x", "", "", ""]),
            ("json_length(j->'a'->'c')", ["3", "", "", ""]),
            ("json_length(j->'a')", ["4", "1", "", ""]),
            ("json_as_text(j->'a'->'c', id)", ["x", "", "", ""]),
            ("j->'a'->'c'->>(id - 1)", ["1", "", "", ""]),
            ("coalesce(j->'s', j->'a')", [r#""q\"s""#, r#"{"b":10}"#, "", ""]),
            ("CASE WHEN id = 2 THEN j->'a' ELSE 'other' END", ["other", r#"{"b":10}"#, "other", "other"]),
        ] {
            let sql = format!("SELECT {expression} FROM {ROWS} ORDER BY id");
            assert_eq!(answer(&sql).await, expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn json_is_compared_sorted_and_grouped() {
        for (sql, expected) in [
            (format!("SELECT id FROM {ROWS} WHERE j->'s' = '\"q\\\"s\"'"), &["1"][..]),
            (format!("SELECT id FROM {ROWS} WHERE (j->'a'->'b')::int > 5"), &["2"]),
            (format!("SELECT id FROM {ROWS} WHERE j->'a' IS NULL ORDER BY id"), &["3", "4"]),
            (format!("SELECT DISTINCT j->'a'->'b' AS b FROM {ROWS} ORDER BY b"), &["10", "3", ""]),
            (format!("SELECT count(*) FROM {ROWS} GROUP BY j->'a' ORDER BY 1"), &["1", "1", "2"]),
        ] {
            assert_eq!(answer(&sql).await, expected, "{sql}");
        }
    }
}
