//! Answers to SHOW TABLES, DESCRIBE and similar statements.
//!
//! Invariant: a list names exactly the tables, columns and functions that a query can use, and
//! writes types in the form that a cast accepts. Every list is a query over one small schema,
//! `information_schema`, so it can be filtered, joined and written like any other answer.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, SchemaRef};
use datafusion::catalog::{MemTable, MemorySchemaProvider, SchemaProvider};
use datafusion::common::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Documentation;
use datafusion::logical_expr::sqlparser::ast::{
    ObjectName, ShowStatementFilter, ShowStatementFilterPosition, ShowStatementOptions,
    Statement as SqlStatement,
};
use datafusion::sql::parser::Statement;

use crate::error::{QueryError, Result};
use crate::{gate, views};

/// Name of the schema of the lists.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

const TABLES: &str = "SELECT table_name AS name, CASE table_type WHEN 'VIEW' THEN 'view' ELSE 'table' END AS kind, \
                      table_comment AS about FROM information_schema.tables";
const FUNCTIONS: &str =
    "SELECT routine_name AS name, routine_kind AS kind, syntax, description FROM information_schema.routines";

/// Rewrites a statement such as SHOW TABLES as a query. Returns any other statement unchanged.
pub(crate) fn as_question(statement: Statement) -> Result<Statement> {
    let Statement::Statement(inner) = &statement else { return Ok(statement) };
    let question = match inner.as_ref() {
        SqlStatement::ShowTables { show_options, .. } => {
            format!("SELECT * FROM ({TABLES}) {} ORDER BY kind, name", filter_of(show_options, "name"))
        }
        SqlStatement::ShowFunctions { filter } => {
            let filter = filter.as_ref().map(|filter| condition(filter, "name")).unwrap_or_default();
            format!("SELECT * FROM ({FUNCTIONS}) {filter} ORDER BY name")
        }
        SqlStatement::ShowColumns { show_options, .. } => {
            match show_options.show_in.as_ref().and_then(|shown| shown.parent_name.as_ref()) {
                Some(table) => columns_of(table, &filter_of(show_options, "column_name"))?,
                None => return Ok(statement),
            }
        }
        SqlStatement::ExplainTable { table_name, .. } => columns_of(table_name, "")?,
        _ => return Ok(statement),
    };
    gate::admit(&question)
}

fn columns_of(table: &ObjectName, filter: &str) -> Result<String> {
    let name = table.0.last().and_then(|part| part.as_ident());
    let name = name.map_or_else(String::new, |name| match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    });
    let known = views::names();
    if !known.contains(&name) {
        return Err(QueryError::UnknownTable { table: name, known });
    }
    // No table or view has a quote in its name.
    Ok(format!(
        "SELECT column_name, data_type, is_nullable FROM \
         (SELECT * FROM information_schema.columns WHERE table_name = '{name}') {filter} ORDER BY ordinal_position"
    ))
}

fn filter_of(options: &ShowStatementOptions, column: &str) -> String {
    match &options.filter_position {
        Some(ShowStatementFilterPosition::Infix(filter) | ShowStatementFilterPosition::Suffix(filter)) => {
            condition(filter, column)
        }
        None => String::new(),
    }
}

fn condition(filter: &ShowStatementFilter, column: &str) -> String {
    let quoted = |pattern: &str| pattern.replace('\'', "''");
    match filter {
        ShowStatementFilter::Like(pattern) | ShowStatementFilter::NoKeyword(pattern) => {
            format!("WHERE {column} LIKE '{}'", quoted(pattern))
        }
        ShowStatementFilter::ILike(pattern) => format!("WHERE {column} ILIKE '{}'", quoted(pattern)),
        ShowStatementFilter::Where(filter) => format!("WHERE {filter}"),
    }
}

/// A table or view, as lists show it.
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) about: &'static str,
    pub(crate) is_view: bool,
    pub(crate) schema: SchemaRef,
}

/// Returns the schema of the lists: `tables`, `columns` and `routines`.
pub(crate) fn information_schema(
    schema_name: &str,
    relations: &[Listed],
    state: &SessionState,
) -> Result<Arc<dyn SchemaProvider>, DataFusionError> {
    let lists = MemorySchemaProvider::new();
    for (name, rows) in [
        ("tables", tables(schema_name, relations)?),
        ("columns", columns(schema_name, relations)?),
        ("routines", routines(state)?),
    ] {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        lists.register_table(name.to_owned(), Arc::new(table))?;
    }
    Ok(Arc::new(lists))
}

fn text<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from(values.into_iter().collect::<Vec<_>>()))
}

fn tables(schema_name: &str, relations: &[Listed]) -> Result<RecordBatch, DataFusionError> {
    let kind = |relation: &Listed| if relation.is_view { "VIEW" } else { "BASE TABLE" };
    Ok(RecordBatch::try_from_iter([
        ("table_schema", text(relations.iter().map(|_| schema_name))),
        ("table_name", text(relations.iter().map(|relation| relation.name.as_str()))),
        ("table_type", text(relations.iter().map(kind))),
        ("table_comment", text(relations.iter().map(|relation| relation.about))),
    ])?)
}

fn columns(schema_name: &str, relations: &[Listed]) -> Result<RecordBatch, DataFusionError> {
    let all = || {
        relations.iter().flat_map(|relation| {
            (1..).zip(relation.schema.fields()).map(move |(position, field)| (relation, position, field))
        })
    };
    let types: Vec<String> = all().map(|(_, _, field)| sql_type(field.data_type())).collect();
    let is_nullable = all().map(|(_, _, field)| if field.is_nullable() { "YES" } else { "NO" });
    Ok(RecordBatch::try_from_iter([
        ("table_schema", text(all().map(|_| schema_name))),
        ("table_name", text(all().map(|(relation, ..)| relation.name.as_str()))),
        ("column_name", text(all().map(|(_, _, field)| field.name().as_str()))),
        ("ordinal_position", Arc::new(Int64Array::from_iter_values(all().map(|(_, position, _)| position)))),
        ("data_type", text(types.iter().map(String::as_str))),
        ("is_nullable", text(is_nullable)),
    ])?)
}

fn routines(state: &SessionState) -> Result<RecordBatch, DataFusionError> {
    let mut all: Vec<(String, &str, Option<&Documentation>)> = vec![];
    all.extend(state.scalar_functions().iter().map(|(name, f)| (name.clone(), "scalar", f.documentation())));
    all.extend(
        state.aggregate_functions().iter().map(|(name, f)| (name.clone(), "aggregate", f.documentation())),
    );
    all.extend(state.window_functions().iter().map(|(name, f)| (name.clone(), "window", f.documentation())));
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let of = |part: fn(&Documentation) -> &str| {
        let texts = all.iter().map(|(_, _, about)| about.map(|about| part(about).trim().to_owned()));
        Arc::new(StringArray::from_iter(texts)) as ArrayRef
    };
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("routine_name", text(all.iter().map(|(name, ..)| name.as_str())), false),
        ("routine_kind", text(all.iter().map(|(_, kind, _)| *kind)), false),
        ("syntax", of(|about| &about.syntax_example), true),
        ("description", of(|about| &about.description), true),
    ])?)
}

/// `data_type` as SQL calls it, in a form that a cast accepts.
fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "text".to_owned(),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => "bytea".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        DataType::Dictionary(_, value) => sql_type(value),
        DataType::List(item) => format!("{}[]", sql_type(item.data_type())),
        other => other.to_string(),
    }
}
