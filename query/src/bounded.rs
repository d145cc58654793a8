//! Bounds for functions whose result can be far larger than their arguments.
//!
//! The memory pool of a session counts what sorts, joins and groups hold, but not what a scalar
//! function makes: `repeat('a', 2000000000)` would take two gigabytes under any limit. So each
//! function in [`GROWING`] is wrapped. Before it runs, the largest size that its result can have is
//! computed from the lengths of its arguments. Where that is too much for a whole batch, the rows
//! are computed in smaller slices, and the real sizes are counted.
//!
//! Invariant: no call of a wrapped function makes more than a share of the memory limit at once. No
//! text that the planner computes as a constant is longer than [`CONSTANT_BYTES_MAX`], and no list
//! is larger than [`CONSTANT_LIST_BYTES_MAX`]. Beyond that, the query fails and names the function.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use datafusion::arrow::compute::concat;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, LogicalPlan, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::prelude::SessionContext;

/// How the result of a function grows with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// All arguments together: `concat`.
    Sum,
    /// The first argument, repeated as often as the second says.
    Times,
    /// A text of as many characters as the second argument says.
    Padded,
    /// A list of as many elements as the second argument says, each as long as the third.
    Resized,
    /// The first argument, with the third in place of each match of the second.
    Replaced,
    /// Like `Replaced`, but the third argument may repeat the match.
    Rewritten,
    /// The list of numbers or times from the first argument to the second in steps of the third.
    Series,
    /// The elements of the first argument, with the second between them.
    Joined,
}

/// The wrapped functions. An alias is wrapped together with the function that it names.
const GROWING: [(&str, Growth); 13] = [
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Sum),
    ("repeat", Growth::Times),
    ("array_repeat", Growth::Times),
    ("lpad", Growth::Padded),
    ("rpad", Growth::Padded),
    ("array_resize", Growth::Resized),
    ("replace", Growth::Replaced),
    ("regexp_replace", Growth::Rewritten),
    ("generate_series", Growth::Series),
    ("range", Growth::Series),
    ("array_to_string", Growth::Joined),
    ("translate", Growth::Sum),
];

/// The memory limit divided by this is the largest result of one call.
const CALL_SHARE: usize = 4;
/// Maximum size of a text that is a constant of a plan, because a constant is repeated for each row
/// of a batch. The gate refuses longer literals.
pub(crate) const CONSTANT_BYTES_MAX: usize = 64 << 10;
/// Maximum size of a list that is a constant of a plan. The bound is higher than for a text,
/// because a constant list is mostly a series of times, which is seldom repeated for each row.
const CONSTANT_LIST_BYTES_MAX: usize = 4 << 20;
/// Longest UTF-8 form of one character.
const CHARACTER_BYTES: u64 = 4;
/// Memory of one element of a series.
const ELEMENT_BYTES: u64 = 8;

/// Wraps the growing functions of `context`.
pub(crate) fn wrap_functions(context: &SessionContext, memory_limit: usize) {
    let functions = context.state();
    for (name, growth) in GROWING {
        if let Some(inner) = functions.scalar_functions().get(name) {
            let bytes_max = memory_limit / CALL_SHARE;
            context.register_udf(ScalarUDF::new_from_impl(Bounded {
                inner: Arc::clone(inner),
                growth,
                bytes_max,
            }));
        }
    }
}

/// Wraps `inner`, a function that joins its arguments and takes the place of an operator.
pub(crate) fn operator(inner: Arc<ScalarUDF>, memory_limit: usize) -> ScalarUDF {
    ScalarUDF::new_from_impl(Bounded { inner, growth: Growth::Sum, bytes_max: memory_limit / CALL_SHARE })
}

/// Refuses a plan in which a constant of more than [`CONSTANT_BYTES_MAX`] would be repeated for
/// each row. This leaves longer lists only where there is one row, as in
/// `unnest(generate_series(…))`.
pub(crate) fn check_constants(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        if inputs.iter().all(|input| has_one_row(input)) {
            return Ok(TreeNodeRecursion::Continue);
        }
        node.apply_expressions(|expr| {
            expr.apply(|part| match part {
                Expr::Literal(value, _) if value.size() > CONSTANT_BYTES_MAX + size_of::<ScalarValue>() => {
                    Err(DataFusionError::ResourcesExhausted(format!(
                        "a constant of {} bytes would be repeated for each row, more than {CONSTANT_BYTES_MAX}",
                        value.size()
                    )))
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })
    .map(drop)
}

fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().iter().all(|input| has_one_row(input))
        }
        _ => false,
    }
}

/// A function with a bound on what it makes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    bytes_max: usize,
}

impl Bounded {
    fn too_large(&self, bytes: u64, bytes_max: usize) -> DataFusionError {
        DataFusionError::ResourcesExhausted(format!(
            "{}() would make {bytes} bytes at once, more than {bytes_max}",
            self.inner.name()
        ))
    }

    /// Evaluates `args`, all of whose values are constants.
    fn constant(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes_max = if matches!(args.return_type(), DataType::List(_) | DataType::LargeList(_)) {
            CONSTANT_LIST_BYTES_MAX
        } else {
            CONSTANT_BYTES_MAX
        };
        let bytes = self.largest(&args.args, 0)?;
        // For these two kinds, the result would have `bytes` only if the pattern matched
        // everywhere, which is rare. So the function runs, and the size of its result is checked
        // afterwards.
        let is_exact = !matches!(self.growth, Growth::Replaced | Growth::Rewritten);
        if bytes > self.bytes_max as u64 || is_exact && bytes > bytes_max as u64 {
            return Err(self.too_large(bytes, bytes_max.min(self.bytes_max)));
        }
        let value = self.inner.invoke_with_args(args)?;
        match &value {
            ColumnarValue::Scalar(made) if made.size() > bytes_max + size_of::<ScalarValue>() => {
                Err(self.too_large(made.size() as u64, bytes_max))
            }
            _ => Ok(value),
        }
    }

    /// Returns the largest size in bytes that the result of `row` can have.
    fn largest(&self, args: &[ColumnarValue], row: usize) -> Result<u64> {
        let length = |at: usize| args.get(at).map_or(0, |arg| bytes_of(arg, row));
        let count = |at: usize| args.get(at).map_or(Ok(0), |arg| number(arg, row));
        Ok(match self.growth {
            Growth::Sum => (0..args.len()).map(length).fold(0, u64::saturating_add),
            Growth::Times => length(0).max(1).saturating_mul(count(1)?),
            Growth::Padded => count(1)?.saturating_mul(CHARACTER_BYTES),
            Growth::Resized => {
                length(0).saturating_add(length(2).max(ELEMENT_BYTES).saturating_mul(count(1)?))
            }
            Growth::Replaced => {
                let matches = length(0) / length(1).max(1);
                length(0).saturating_add(matches.saturating_mul(length(2)))
            }
            Growth::Rewritten => {
                length(0).saturating_add((2 * length(0)).saturating_add(1).saturating_mul(length(2)))
            }
            Growth::Series => self.series(args, row)?.saturating_mul(ELEMENT_BYTES),
            // `length(0)` is at least the number of elements, because it includes their offsets.
            Growth::Joined => length(0).saturating_mul(length(1).max(1)),
        })
    }

    /// Returns the number of elements of a series.
    fn series(&self, args: &[ColumnarValue], row: usize) -> Result<u64> {
        let (first, last) = match args {
            [last] => (0, instant(last, row)?),
            [first, last, ..] => (instant(first, row)?, instant(last, row)?),
            [] => return Ok(0),
        };
        let step = args.get(2).map_or(Ok(1), |step| instant(step, row))?;
        Ok((first.abs_diff(last) / step.unsigned_abs().max(1)).saturating_add(1))
    }
}

/// Returns the length of one value in bytes.
fn bytes_of(value: &ColumnarValue, row: usize) -> u64 {
    let length = match value {
        ColumnarValue::Scalar(scalar) => match scalar {
            ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => {
                text.as_ref().map_or(0, String::len)
            }
            other => other.size(),
        },
        ColumnarValue::Array(array) if array.is_null(row) => 0,
        ColumnarValue::Array(array) => match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value_length(row) as usize,
            DataType::LargeUtf8 => array.as_string::<i64>().value_length(row) as usize,
            DataType::Utf8View => array.as_string_view().value(row).len(),
            _ => array.slice(row, 1).to_data().get_slice_memory_size().unwrap_or(usize::MAX),
        },
    };
    length as u64
}

/// Returns one value as a count; 0 if the value is negative or null.
fn number(value: &ColumnarValue, row: usize) -> Result<u64> {
    instant(value, row).map(|number| u64::try_from(number).unwrap_or(0))
}

/// One number, time or interval as an integer; times and intervals in nanoseconds.
fn instant(value: &ColumnarValue, row: usize) -> Result<i64> {
    /// Nanoseconds of a day.
    const DAY: i64 = 86_400_000_000_000;
    /// Fewest days of a month.
    const MONTH_DAYS: i64 = 28;
    let scalar = match value {
        ColumnarValue::Scalar(scalar) => scalar.clone(),
        ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row)?,
    };
    if let ScalarValue::IntervalMonthDayNano(interval) = scalar {
        return Ok(interval.map_or(0, |interval| {
            let days = i64::from(interval.months) * MONTH_DAYS + i64::from(interval.days);
            days.saturating_mul(DAY).saturating_add(interval.nanoseconds)
        }));
    }
    let scalar = if scalar.data_type().is_temporal() {
        scalar.cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, None))?
    } else {
        scalar
    };
    match scalar.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(number) => Ok(number.unwrap_or(0)),
        _ => Ok(0),
    }
}

/// Returns the rows from `start`, `length` of them.
fn slice(args: &ScalarFunctionArgs, start: usize, length: usize) -> ScalarFunctionArgs {
    let values = args.args.iter().map(|value| match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(start, length)),
        scalar @ ColumnarValue::Scalar(_) => scalar.clone(),
    });
    ScalarFunctionArgs { args: values.collect(), number_rows: length, ..args.clone() }
}

impl ScalarUDFImpl for Bounded {
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_))) {
            return self.constant(args);
        }
        let bytes_max = self.bytes_max as u64;
        let (mut parts, mut made, mut start) = (Vec::<ArrayRef>::new(), 0_u64, 0);
        while start < args.number_rows {
            let (mut end, mut bytes) = (start, 0_u64);
            while end < args.number_rows {
                let row = self.largest(&args.args, end)?;
                if row > bytes_max {
                    return Err(self.too_large(row, self.bytes_max));
                }
                if bytes.saturating_add(row) > bytes_max {
                    break;
                }
                bytes += row;
                end += 1;
            }
            if start == 0 && end == args.number_rows {
                return self.inner.invoke_with_args(args);
            }
            let length = end - start;
            let part = self.inner.invoke_with_args(slice(&args, start, length))?.into_array(length)?;
            made = made.saturating_add(part.get_array_memory_size() as u64);
            if made > bytes_max {
                return Err(self.too_large(made, self.bytes_max));
            }
            parts.push(part);
            start = end;
        }
        if parts.is_empty() {
            return self.inner.invoke_with_args(args);
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = self.inner.inner().with_updated_config(config)?;
        let (growth, bytes_max) = (self.growth, self.bytes_max);
        Some(ScalarUDF::new_from_impl(Bounded { inner: Arc::new(inner), growth, bytes_max }))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<arrow_schema::FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        self.inner.preimage(args, literal, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }

    fn propagate_constraints(
        &self,
        interval: &Interval,
        inputs: &[&Interval],
    ) -> Result<Option<Vec<Interval>>> {
        self.inner.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.inner().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.inner().placement(args)
    }
}
