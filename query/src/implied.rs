//! Derives from a filter a simpler filter that commits, statistics and the Parquet decoder can
//! evaluate. The filter implies the simpler one.
//!
//! Invariant: the implied filter is true of every row of which the filter itself is true. It is
//! used to skip data early; the filter itself is still evaluated on what remains.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions_nested::array_has::{array_has, array_has_udf};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, lit};

use crate::date_trunc::DAY_US;
use crate::functions::LAST_OF;

/// A value that a list must contain for a filter to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// The list's column.
    pub(crate) list: String,
    pub(crate) value: String,
}

/// Returns a filter that `filter` implies; `None` if this module does not know its form. The times
/// in `time_column` are in UTC.
pub(crate) fn implied(filter: &Expr, time_column: &str) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    let (subject, operator, value) = match (left.as_ref(), right.as_ref()) {
        (subject, Expr::Literal(value, _)) => (subject, *op, value),
        (Expr::Literal(value, _), subject) => (subject, op.swap()?, value),
        _ => return None,
    };
    match subject {
        Expr::ScalarFunction(call) if call.func.name() == LAST_OF => {
            let [list @ Expr::Column(_)] = call.args.as_slice() else { return None };
            last_of_list(list, operator, value)
        }
        Expr::Cast(Cast { expr: time, field }) if *field.data_type() == DataType::Date32 => {
            match time.as_ref() {
                Expr::Column(column) if column.name() == time_column => day_of_time(time, operator, value),
                _ => None,
            }
        }
        _ => None,
    }
}

/// If `filter` says only that a list contains a value, returns the list and the value.
pub(crate) fn element(filter: &Expr) -> Option<Element> {
    let Expr::ScalarFunction(call) = filter else { return None };
    match call.args.as_slice() {
        [Expr::Column(list), Expr::Literal(value, _)] if call.func.name() == array_has_udf().name() => {
            Some(Element { list: list.name.clone(), value: value.try_as_str().flatten()?.to_owned() })
        }
        _ => None,
    }
}

/// A list whose last element is `value` contains `value`. The decoder can check that before it
/// decodes any other column of the row.
fn last_of_list(list: &Expr, operator: Operator, value: &ScalarValue) -> Option<Expr> {
    if operator != Operator::Eq {
        return None;
    }
    // The elements are plain strings in files.
    let value = ScalarValue::Utf8(Some(value.try_as_str().flatten()?.to_owned()));
    Some(array_has(list.clone(), lit(value)))
}

/// Turns a comparison of the day of a time with `value` into a comparison of the time itself with
/// the start or the end of a day.
fn day_of_time(time: &Expr, operator: Operator, value: &ScalarValue) -> Option<Expr> {
    let ScalarValue::Date32(Some(day)) = value else { return None };
    let midnight = |day: i64| {
        let us = day.checked_mul(DAY_US)?;
        Some(lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))))
    };
    let (begin, end) = (midnight(i64::from(*day))?, midnight(i64::from(*day) + 1)?);
    let time = || time.clone();
    match operator {
        Operator::Eq => Some(time().gt_eq(begin).and(time().lt(end))),
        Operator::Lt => Some(time().lt(begin)),
        Operator::LtEq => Some(time().lt(end)),
        Operator::Gt => Some(time().gt_eq(end)),
        Operator::GtEq => Some(time().gt_eq(begin)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{cast, col};

    use super::*;
    use crate::functions::last_of;

    const TIME: &str = "stage_timestamp";

    fn text(filter: Expr) -> Option<String> {
        implied(&filter, TIME).map(|implied| implied.to_string())
    }

    #[test]
    fn a_last_element_is_an_element() {
        let address = last_of().call(vec![col("source_ips")]);
        let expected = Some("array_has(source_ips, Utf8(\"10.0.0.1\"))".to_owned());
        assert_eq!(text(address.clone().eq(lit("10.0.0.1"))), expected);
        assert_eq!(text(lit("10.0.0.1").eq(address.clone())), expected);
        assert_eq!(text(address.clone().not_eq(lit("10.0.0.1"))), None);
        assert_eq!(text(address.clone().gt(lit("10.0.0.1"))), None);
        assert_eq!(text(address.clone().eq(lit(ScalarValue::Utf8(None)))), None);
        let wanted = Element { list: "source_ips".to_owned(), value: "10.0.0.1".to_owned() };
        assert_eq!(implied(&address.eq(lit("10.0.0.1")), TIME).as_ref().and_then(element), Some(wanted));
        let has = |value: Expr| element(&array_has(col("source_ips"), value));
        assert!(has(lit("10.0.0.1")).is_some());
        assert_eq!(has(lit(ScalarValue::Utf8(None))), None);
        assert_eq!(has(col("user_name")), None);
        assert_eq!(element(&array_has(col("source_ips"), lit("10.0.0.1")).is_null()), None);
    }

    #[test]
    fn a_day_is_a_span_of_time() {
        let day = || cast(col(TIME), DataType::Date32);
        let first = || lit(ScalarValue::Date32(Some(1)));
        let (begin, end) = (DAY_US.to_string(), (2 * DAY_US).to_string());
        for (filter, operator, bound) in [
            (day().lt(first()), "<", &begin),
            (day().gt_eq(first()), ">=", &begin),
            (day().lt_eq(first()), "<", &end),
            (day().gt(first()), ">=", &end),
            (first().gt(day()), "<", &begin),
        ] {
            let implied = text(filter).expect("a known form");
            assert!(
                implied.starts_with(&format!("{TIME} {operator} TimestampMicrosecond({bound},")),
                "{implied}"
            );
        }
        let implied = text(day().eq(first())).expect("a known form");
        assert!(implied.contains(&begin) && implied.contains(&end) && implied.contains("AND"), "{implied}");
        assert_eq!(text(day().not_eq(first())), None);
        assert_eq!(text(cast(col("request_received_timestamp"), DataType::Date32).eq(first())), None);
        assert_eq!(text(cast(col(TIME), DataType::Date32).eq(lit(ScalarValue::Date32(None)))), None);
    }
}
