//! The operator `||` on texts, with a bound on what it makes.
//!
//! A text that is joined with itself doubles at each level of a nested query. `bounded` can wrap a
//! registered function, but not an operator. So `||` is planned as a call of a function with the
//! same meaning, which `bounded` wraps. Lists keep DataFusion's own operator.
//!
//! Invariant: the function gives the same answer as the operator, with the same type and column
//! name. The answer is null if either side is null.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion::arrow::compute::kernels::concat_elements::concat_elements_dyn;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::sqlparser::ast::BinaryOperator;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::bounded;

/// Registers the planner of `||`.
pub(crate) fn register(state: &mut SessionState, memory_limit: usize) -> Result<()> {
    let inner =
        ScalarUDF::new_from_impl(Concatenate { signature: Signature::user_defined(Volatility::Immutable) });
    let function = Arc::new(bounded::operator(Arc::new(inner), memory_limit));
    state.register_expr_planner(Arc::new(Planner { function }))
}

#[derive(Debug)]
struct Planner {
    function: Arc<ScalarUDF>,
}

impl ExprPlanner for Planner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if !matches!(expr.op, BinaryOperator::StringConcat) {
            return Ok(PlannerResult::Original(expr));
        }
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        match types(&left, &right) {
            Ok(_) => Ok(PlannerResult::Planned(self.function.call(vec![expr.left, expr.right]))),
            // DataFusion's own operator joins these types, or reports what is wrong with them.
            Err(_) => Ok(PlannerResult::Original(expr)),
        }
    }
}

/// Returns the type to which both sides are converted. It is an error if that is not a text.
fn types(left: &DataType, right: &DataType) -> Result<DataType> {
    let coercer = BinaryTypeCoercer::new(left, &Operator::StringConcat, right);
    let (left, right) = coercer.get_input_types()?;
    match (&left, &right) {
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, _) if left == right => Ok(left),
        _ => datafusion::common::plan_err!("|| joins texts here"),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Concatenate {
    signature: Signature,
}

impl ScalarUDFImpl for Concatenate {
    fn name(&self) -> &str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|arg| arg.schema_name().to_string()).collect::<Vec<_>>().join(" || "))
    }

    fn coerce_types(&self, types_of: &[DataType]) -> Result<Vec<DataType>> {
        match types_of {
            [left, right] => types(left, right).map(|both| vec![both.clone(), both]),
            _ => datafusion::common::plan_err!("|| joins two texts"),
        }
    }

    fn return_type(&self, types_of: &[DataType]) -> Result<DataType> {
        match types_of {
            [left, _] => Ok(left.clone()),
            _ => datafusion::common::plan_err!("|| joins two texts"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = &arrays[..] else {
            return datafusion::common::exec_err!("|| joins two texts");
        };
        let joined = concat_elements_dyn(left, right)?;
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?),
            false => ColumnarValue::Array(joined),
        })
    }
}
