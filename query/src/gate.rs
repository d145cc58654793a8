//! The read-only gate: refuses every statement that would do more than read the archive.
//!
//! Invariant: a statement reaches the planner only when it, and every statement inside it, is on
//! the list of kinds that read. (An INSERT can be inside a CTE, and a COPY inside an EXPLAIN.)
//! Whatever is new in SQL or in the parser is therefore refused until it is added here.
//!
//! The archive would be safe without the gate: planned statements are checked a second time, and
//! the session has no object store, file format or table function that could reach a file outside
//! the archive. The gate gives the better messages.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use datafusion::logical_expr::sqlparser::ast::{
    Expr, ObjectName, Query, Select, Statement as SqlStatement, TableFactor, Visit, Visitor,
};
use datafusion::logical_expr::sqlparser::keywords::Keyword;
use datafusion::logical_expr::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion::sql::parser::{DFParserBuilder, Statement};

use crate::bounded::CONSTANT_BYTES_MAX;
use crate::dialect::AuditDialect;
use crate::error::{QueryError, Result};

/// Maximum nesting depth of one statement.
const NESTING_MAX: usize = 64;
/// Longest statement in bytes.
const STATEMENT_BYTES_MAX: usize = 1 << 20;
/// Maximum number of operators and keywords in one statement. A chain of them, such as `a + b + c`
/// or `SELECT … UNION ALL SELECT …`, is not nested as text but becomes a tree of that depth, which
/// the planner visits recursively.
const OPERATORS_MAX: usize = 4000;
/// Table functions that generate rows from numbers; none of them opens anything.
pub(crate) const TABLE_FUNCTIONS: [&str; 2] = ["generate_series", "range"];
/// Prefixes of the names that other databases give to functions that reach files or other servers.
const OUTSIDE_FUNCTIONS: [&str; 12] = [
    "read_",
    "parquet_",
    "scan_",
    "pg_read",
    "pg_ls",
    "pg_write",
    "lo_import",
    "lo_export",
    "glob",
    "sniff_",
    "dblink",
    "load_",
];
/// Suffixes that show that the name of a relation is meant as a file.
const FILE_ENDINGS: [&str; 12] = [
    ".parquet", ".csv", ".json", ".jsonl", ".ndjson", ".arrow", ".avro", ".tsv", ".txt", ".gz", ".zst", ".db",
];

/// Parses `sql` and returns its statement if there is exactly one and it only reads.
pub(crate) fn admit(sql: &str) -> Result<Statement> {
    if sql.len() > STATEMENT_BYTES_MAX {
        return Err(QueryError::TooLong { bytes: sql.len(), bytes_max: STATEMENT_BYTES_MAX });
    }
    check_tokens(sql)?;
    let mut statements = parse(sql)?;
    for statement in &statements {
        check(statement)?;
    }
    match statements.len() {
        0 => Err(QueryError::NoStatement),
        1 => Ok(statements.pop_front().expect("one statement was counted")),
        count => Err(QueryError::SeveralStatements { count }),
    }
}

/// Refuses a statement whose tree would be too deep, or with a literal that would be too large once
/// it is repeated for each row of a batch.
fn check_tokens(sql: &str) -> Result<()> {
    let tokens = Tokenizer::new(&AuditDialect, sql)
        .tokenize()
        .map_err(|error| QueryError::from_tokenizer(sql, &error))?;
    let mut operators = 0;
    for token in &tokens {
        match token {
            Token::Word(word) if word.keyword == Keyword::NoKeyword => {}
            Token::Whitespace(_)
            | Token::Comma
            | Token::Period
            | Token::Number(..)
            | Token::LParen
            | Token::RParen
            | Token::SemiColon
            | Token::EOF => {}
            Token::SingleQuotedString(text)
            | Token::EscapedStringLiteral(text)
            | Token::DoubleQuotedString(text)
            | Token::NationalStringLiteral(text)
            | Token::HexStringLiteral(text)
            | Token::UnicodeStringLiteral(text) => check_literal(text)?,
            Token::DollarQuotedString(text) => check_literal(&text.value)?,
            _ => operators += 1,
        }
    }
    if operators > OPERATORS_MAX {
        return Err(QueryError::TooManyOperators { operators, operators_max: OPERATORS_MAX });
    }
    Ok(())
}

fn check_literal(text: &str) -> Result<()> {
    if text.len() > CONSTANT_BYTES_MAX {
        return Err(QueryError::LiteralTooLong { bytes: text.len(), bytes_max: CONSTANT_BYTES_MAX });
    }
    Ok(())
}

fn parse(sql: &str) -> Result<VecDeque<Statement>> {
    DFParserBuilder::new(sql)
        .with_dialect(&AuditDialect)
        .with_recursion_limit(NESTING_MAX)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| QueryError::from_parser(sql, error))
}

fn check(statement: &Statement) -> Result<()> {
    match statement {
        Statement::Statement(inner) => match inner.visit(&mut Gate) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(refusal) => Err(refusal),
        },
        Statement::Explain(explain) => check(&explain.statement),
        Statement::CreateExternalTable(_) => Err(refused("CREATE EXTERNAL TABLE")),
        Statement::CopyTo(_) => Err(refused("COPY")),
        Statement::Reset(_) => Err(refused("RESET")),
    }
}

fn refused(what: impl Into<String>) -> QueryError {
    QueryError::Refused { what: what.into() }
}

struct Gate;

impl Visitor for Gate {
    type Break = QueryError;

    fn pre_visit_statement(&mut self, statement: &SqlStatement) -> ControlFlow<QueryError> {
        match statement {
            SqlStatement::Query(_)
            | SqlStatement::Explain { .. }
            | SqlStatement::ExplainTable { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowFunctions { .. }
            | SqlStatement::ShowTables { .. } => ControlFlow::Continue(()),
            other => ControlFlow::Break(refused(kind_of(other))),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<QueryError> {
        if query.locks.is_empty() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(refused("SELECT … FOR UPDATE"))
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<QueryError> {
        if select.into.is_none() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(refused("SELECT INTO"))
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<QueryError> {
        let name = bare_name(relation);
        let lower = name.to_lowercase();
        if name.contains(['/', '\\', '*']) || FILE_ENDINGS.iter().any(|ending| lower.ends_with(ending)) {
            return ControlFlow::Break(QueryError::FileRelation { name });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<QueryError> {
        let name = match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => name,
            TableFactor::TableFunction { expr: Expr::Function(function), .. } => &function.name,
            _ => return ControlFlow::Continue(()),
        };
        let name = bare_name(name).to_lowercase();
        if TABLE_FUNCTIONS.contains(&name.as_str()) || name == "unnest" {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(QueryError::OutsideFunction { name })
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<QueryError> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = bare_name(&function.name).to_lowercase();
        if OUTSIDE_FUNCTIONS.iter().any(|outside| name.starts_with(outside)) {
            return ControlFlow::Break(QueryError::OutsideFunction { name });
        }
        ControlFlow::Continue(())
    }
}

fn bare_name(name: &ObjectName) -> String {
    let parts = name.0.iter().map(|part| match part.as_ident() {
        Some(ident) => ident.value.clone(),
        None => part.to_string(),
    });
    parts.collect::<Vec<_>>().join(".")
}

/// Returns the first words of a statement: `DROP TABLE`, `INSERT INTO`.
fn kind_of(statement: &SqlStatement) -> String {
    let text = statement.to_string();
    let words = text.split_whitespace().take(2);
    let words = words.take_while(|word| word.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    words.collect::<Vec<_>>().join(" ")
}

/// Returns true if `text` ends a statement, which means that its last token is a `;` outside quotes
/// and comments.
pub fn statement_is_complete(text: &str) -> bool {
    // An open quote or an open block comment is an error of the tokenizer.
    let Ok(tokens) = Tokenizer::new(&AuditDialect, text).tokenize() else { return false };
    let last = tokens.iter().rev().find(|token| !matches!(token, Token::Whitespace(_)));
    matches!(last, Some(Token::SemiColon))
}

/// Cuts a script at each `;` outside quotes and comments. Parts that are empty or only a comment
/// are left out.
pub fn split_statements(script: &str) -> Result<Vec<&str>> {
    let tokens = Tokenizer::new(&AuditDialect, script)
        .tokenize_with_location()
        .map_err(|error| QueryError::from_tokenizer(script, &error))?;
    let mut cursor = Cursor { text: script, at: 0, line: 1, column: 1 };
    let mut statements = vec![];
    let mut start = 0;
    let mut has_word = false;
    for token in tokens {
        match token.token {
            Token::SemiColon => {
                let end = cursor.advance_to(token.span.start.line, token.span.start.column);
                if std::mem::take(&mut has_word) {
                    statements.push(script[start..end].trim());
                }
                start = end + 1;
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => has_word = true,
        }
    }
    if has_word {
        statements.push(script[start..].trim());
    }
    Ok(statements)
}

/// Turns the tokenizer's lines and columns (both from 1, columns in characters) into byte offsets.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    line: u64,
    column: u64,
}

impl Cursor<'_> {
    fn advance_to(&mut self, line: u64, column: u64) -> usize {
        let mut rest = self.text[self.at..].chars();
        while (self.line, self.column) < (line, column) {
            let Some(c) = rest.next() else { break };
            self.at += c.len_utf8();
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.at
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::sqlparser::ast::{BinaryOperator, SelectItem};

    use super::*;

    #[test]
    fn scripts_are_cut_at_statement_ends_only() {
        let script = "select ';' as \"a;b\" -- no; end\n, 'é;';\n;\n /* ; */ select 'it''s; fine'; select 3";
        assert_eq!(
            split_statements(script).expect("tokens"),
            ["select ';' as \"a;b\" -- no; end\n, 'é;'", "/* ; */ select 'it''s; fine'", "select 3"]
        );
        assert!(split_statements(" ; ;; -- nothing\n").expect("tokens").is_empty());
        assert!(split_statements("select 'open").is_err());
    }

    #[test]
    fn a_statement_ends_with_its_semicolon() {
        assert!(statement_is_complete("select 1;"));
        assert!(statement_is_complete("select 1; -- done"));
        for open in ["", "select 1", "select ';'", "select 1 -- ;", "select ';", "select 1; select", "/* ;"] {
            assert!(!statement_is_complete(open), "{open}");
        }
    }

    #[test]
    fn reading_statements_pass() {
        for sql in [
            "select 1",
            "select 1;",
            "with a as (select 1) select * from a union all select 2",
            "explain select * from events",
            "explain analyze select * from events",
            "explain format tree select 1",
            "show tables",
            "show columns from events",
            "show tables like '%access'",
            "show functions",
            "describe events",
            "desc events",
            "values (1), (2)",
            "select * from generate_series(1, 3)",
            "select unnest([1, 2])",
            "select request_object#>array['spec','replicas'] from events",
            "select verb, cluster, name from events where cluster = 'a' group by verb, cluster order by cluster, 1",
            "select cluster from events",
            "select * exclude (request_object) from events",
            "select * from events where annotations ->> 'a' = 'b' and source_ips[-1] = 'c' and name ilike '%x%'",
            "select date_bin(interval '5 minutes', stage_timestamp), count(*) filter (where verb = 'get') from events group by 1",
            "select extract(epoch from stage_timestamp), stage_timestamp::date from events limit 1 offset 2",
            "select e.cluster, e.name as cluster from events e",
            "select \"name\" from events where request_uri like '/api/%.json'",
        ] {
            admit(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    #[test]
    fn long_chains_and_literals_are_refused() {
        let long =
            |unit: &str, count: usize, end: &str| format!("select 1 where {}{end}", unit.repeat(count));
        for (unit, end) in
            [("1=1 and ", "true"), ("1 + ", "1 > 0"), ("true or ", "true"), ("'' || ", "'' = ''")]
        {
            admit(&long(unit, 1500, end)).unwrap_or_else(|error| panic!("{unit}: {error}"));
            let error = admit(&long(unit, 5000, end)).expect_err(unit);
            assert!(matches!(error, QueryError::TooManyOperators { .. }), "{unit}: {error:?}");
        }
        let names = vec!["'system:serviceaccount:a:b'"; 20_000].join(", ");
        admit(&format!("select * from events where user_name in ({names})")).expect("a list is not nested");
        let literal = "x".repeat(CONSTANT_BYTES_MAX + 1);
        for sql in
            [format!("select '{literal}'"), format!("select $${literal}$$"), format!("select e'{literal}'")]
        {
            let error = admit(&sql).expect_err("a long literal");
            assert!(matches!(error, QueryError::LiteralTooLong { .. }), "{error:?}");
        }
    }

    #[test]
    fn json_operators_bind_tighter_than_comparisons() {
        let Statement::Statement(statement) = admit("select a ->> 'k' = 'v'").expect("parses") else {
            panic!("a query");
        };
        let SqlStatement::Query(query) = *statement else { panic!("a query") };
        let select = query.body.as_select().expect("a select").clone();
        let SelectItem::UnnamedExpr(top) = &select.projection[0] else { panic!("an expression") };
        assert!(matches!(top, Expr::BinaryOp { op: BinaryOperator::Eq, .. }), "{top:?}");
    }

    #[test]
    fn nested_statements_are_judged_too() {
        for sql in [
            "explain insert into events select * from events",
            "explain analyze copy events to '/tmp/x.parquet'",
            "with gone as (delete from events returning *) select * from gone",
            "with added as (insert into events values (1) returning *) select * from added",
            "select * into copy_of_events from events",
            "select * from events for update",
        ] {
            let error = admit(sql).expect_err(sql);
            assert!(
                matches!(error, QueryError::Refused { .. } | QueryError::Syntax { .. }),
                "{sql}: {error:?}"
            );
        }
    }

    #[test]
    fn refusals_name_what_is_refused() {
        let refusal = |sql: &str| admit(sql).expect_err(sql).to_string();
        assert_eq!(refusal("drop table events"), "this archive is read-only: DROP TABLE is refused");
        assert_eq!(
            refusal("insert into events values (1)"),
            "this archive is read-only: INSERT INTO is refused"
        );
        assert_eq!(
            refusal("select * from '/etc/passwd'"),
            "this archive is read-only: the file \"/etc/passwd\" cannot be queried, only the archive's tables can"
        );
        assert_eq!(
            refusal("select * from read_csv('/etc/passwd')"),
            "this archive is read-only: read_csv() reaches outside it and is refused"
        );
        assert_eq!(refusal("select 1; select 2"), "2 statements were given, and only one can be answered");
    }
}
