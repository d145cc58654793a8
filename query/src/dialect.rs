//! The SQL dialect: sqlparser's generic dialect with some corrections.
//!
//! Invariant: what parses here has PostgreSQL's meaning.
//!
//! - The JSON operators bind tighter than comparisons, so `annotations ->> 'key' = 'x'` means
//!   `(annotations ->> 'key') = 'x'`. In the generic dialect it means `annotations ->> ('key' =
//!   'x')`.
//! - `#` belongs to an operator, not to a name, so `a#>b` needs no blanks.
//! - A list of columns cannot end with a comma. The generic dialect allows such a comma, and takes
//!   the one in `verb, cluster` for the end of the list, because `cluster` is a keyword there. Here
//!   `cluster` is a column.

use std::any::TypeId;

use datafusion::logical_expr::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::logical_expr::sqlparser::parser::{Parser, ParserError};
use datafusion::logical_expr::sqlparser::tokenizer::Token;

#[derive(Debug)]
pub(crate) struct AuditDialect;

/// Above comparisons and LIKE (20), below `+` (30), as in PostgreSQL.
const JSON_OPERATOR_PRECEDENCE: u8 = 25;

macro_rules! as_generic {
    ($($method:ident)*) => {
        $(fn $method(&self) -> bool {
            GenericDialect.$method()
        })*
    };
}

impl Dialect for AuditDialect {
    fn dialect(&self) -> TypeId {
        GenericDialect.dialect()
    }

    fn is_delimited_identifier_start(&self, c: char) -> bool {
        // Backquotes delimit names in MySQL, but not here: most of them were meant for a shell.
        c == '"'
    }

    fn is_identifier_start(&self, c: char) -> bool {
        c != '#' && GenericDialect.is_identifier_start(c)
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c != '#' && GenericDialect.is_identifier_part(c)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            Token::Arrow | Token::LongArrow | Token::HashArrow | Token::HashLongArrow | Token::Question => {
                Some(Ok(JSON_OPERATOR_PRECEDENCE))
            }
            _ => None,
        }
    }

    as_generic! {
        allow_extract_custom
        allow_extract_single_quotes
        supports_array_typedef_with_brackets
        supports_bitwise_shift_operators
        supports_explain_with_utility_options
        supports_filter_during_aggregation
        supports_from_first_select
        supports_group_by_expr
        supports_group_by_with_modifier
        supports_interval_options
        supports_left_associative_joins_without_parens
        supports_limit_comma
        supports_named_fn_args_with_assignment_operator
        supports_nested_comments
        supports_parens_around_table_factor
        supports_select_wildcard_except
        supports_select_wildcard_exclude
        supports_select_wildcard_ilike
        supports_select_wildcard_rename
        supports_select_wildcard_replace
        supports_string_escape_constant
        supports_struct_literal
        supports_unicode_string_literal
        supports_values_as_table_factor
        supports_window_clause_named_window_reference
        supports_window_function_null_treatment_arg
        support_map_literal_syntax
    }
}
