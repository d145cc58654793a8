//! Errors of a query, in terms that the author of the statement knows.
//!
//! Invariant: a message says what happened, and [`QueryError::hint`] says what to do. Neither
//! repeats a value of a row, but a message may repeat a part of the statement. Everything the
//! planner says about columns, tables and functions becomes a variant here, so no caller reads
//! error text.

use datafusion::arrow::error::ArrowError;
use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::logical_expr::sqlparser::parser::ParserError;
use datafusion::logical_expr::sqlparser::tokenizer::TokenizerError;
use strongroom_archive::ArchiveError;
use strongroom_schemas::is_active;
use thiserror::Error;

pub type Result<T, E = QueryError> = std::result::Result<T, E>;

/// Why a query was not answered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QueryError {
    #[error("cannot read the archive")]
    Archive(#[from] ArchiveError),
    #[error("cannot prepare the SQL session")]
    Session(#[source] DataFusionError),
    #[error("cannot use {} for spilled data", path.display())]
    SpillFolder {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error("no SQL statement was given")]
    NoStatement,
    #[error("{count} statements were given, and only one can be answered")]
    SeveralStatements { count: usize },
    #[error("the statement has {bytes} bytes, more than {bytes_max}")]
    TooLong { bytes: usize, bytes_max: usize },
    #[error("the statement has {operators} operators and keywords, more than {operators_max}")]
    TooManyOperators { operators: usize, operators_max: usize },
    #[error("a literal of the statement has {bytes} bytes, more than {bytes_max}")]
    LiteralTooLong { bytes: usize, bytes_max: usize },
    #[error("{message}{}", at(excerpt))]
    Syntax { message: String, excerpt: Option<Excerpt> },

    #[error("this archive is read-only: {what} is refused")]
    Refused { what: String },
    #[error(
        "this archive is read-only: the file \"{name}\" cannot be queried, only the archive's tables can"
    )]
    FileRelation { name: String },
    #[error("this archive is read-only: {name}() reaches outside it and is refused")]
    OutsideFunction { name: String },

    #[error("there is no column \"{column}\"")]
    UnknownColumn { column: String, known: Vec<String> },
    #[error("there is no table \"{table}\"")]
    UnknownTable { table: String, known: Vec<String> },
    #[error("there is no function \"{function}\"")]
    UnknownFunction { function: String, closest: Option<String> },
    #[error("{message}")]
    Plan { message: String },

    #[error("the answer needs more memory than the limit of {} MiB: {shortage}", limit >> 20)]
    MemoryLimit {
        limit: usize,
        /// The part of the plan that failed, and how much memory it asked for.
        shortage: String,
    },
    /// A value does not suit a function or a cast.
    #[error("cannot answer the query: {message}")]
    Value { message: String },
    #[error("cannot answer the query")]
    Execute(#[source] DataFusionError),
    #[error("the query ended in a fault of this program, or of the archive")]
    Panicked,
    #[error("cannot write the answer")]
    Write(#[source] std::io::Error),
    #[error("cannot write the answer as {format}")]
    Encode {
        format: &'static str,
        #[source]
        source: ArrowError,
    },
    #[error("cannot write the answer as parquet")]
    EncodeParquet(#[source] parquet::errors::ParquetError),
}

/// The line of a statement in which the error is.
#[derive(Debug)]
pub struct Excerpt {
    line: usize,
    column: usize,
    text: String,
}

/// Maximum number of characters of a line that are shown on each side of the error.
const EXCERPT_CHARS: usize = 50;
/// A known name is suggested only if its edit distance from the wrong name is at most the length of
/// the wrong name, divided by this.
const SUGGESTION_DISTANCE_SHARE: usize = 2;

impl QueryError {
    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            QueryError::Archive(error) => error.hint().map(str::to_owned),
            QueryError::Refused { what } if what.starts_with("SET") || what == "RESET" => {
                Some("--memory-limit, --threads and --temp-dir set what a session may use".to_owned())
            }
            QueryError::Refused { .. } => Some(
                "SELECT, WITH, VALUES, EXPLAIN, SHOW TABLES and DESCRIBE are answered; `strongroom ingest` and `strongroom run` add rows"
                    .to_owned(),
            ),
            QueryError::FileRelation { .. } => Some("SHOW TABLES lists what can be queried".to_owned()),
            QueryError::NoStatement => Some("for example: strongroom query \"SHOW TABLES\"".to_owned()),
            QueryError::SeveralStatements { .. } => {
                Some("`strongroom sql` runs a script of several statements from standard input".to_owned())
            }
            QueryError::UnknownColumn { column, known } => Some(column_hint(column, known)),
            QueryError::UnknownTable { table, known } => Some(match closest(table, known) {
                Some(name) => format!("did you mean {name}? The tables are {}", known.join(", ")),
                None => format!("the tables are {}", known.join(", ")),
            }),
            QueryError::UnknownFunction { closest, .. } => {
                closest.as_ref().map(|name| format!("did you mean {name}?"))
            }
            QueryError::Syntax { .. } => Some("strings take single quotes; names with capitals or dots take double quotes".to_owned()),
            QueryError::MemoryLimit { .. } => Some(
                "raise it with --memory-limit, or ask for fewer columns or a shorter time".to_owned(),
            ),
            QueryError::TooManyOperators { .. } => {
                Some("`name IN ('a', 'b', …)` compares with a list of any length".to_owned())
            }
            QueryError::Value { message } if message.contains(HIDDEN) => Some(
                "… hides what may be a value of a row; if a cast failed, try_cast gives null instead of an error".to_owned(),
            ),
            QueryError::Panicked => Some("strongroom verify finds what is damaged in an archive".to_owned()),
            QueryError::Execute(error) if is_disk_full(error) => {
                Some("spilled data goes to the temporary folder; choose another one with --temp-dir".to_owned())
            }
            _ => None,
        }
    }

    /// Returns true if the statement is at fault, rather than the archive, the disk or this
    /// program.
    pub fn is_about_the_statement(&self) -> bool {
        matches!(
            self,
            QueryError::NoStatement
                | QueryError::SeveralStatements { .. }
                | QueryError::TooLong { .. }
                | QueryError::TooManyOperators { .. }
                | QueryError::LiteralTooLong { .. }
                | QueryError::Syntax { .. }
                | QueryError::Refused { .. }
                | QueryError::FileRelation { .. }
                | QueryError::OutsideFunction { .. }
                | QueryError::UnknownColumn { .. }
                | QueryError::UnknownTable { .. }
                | QueryError::UnknownFunction { .. }
                | QueryError::Plan { .. }
                | QueryError::Value { .. }
        )
    }

    pub(crate) fn from_parser(sql: &str, error: DataFusionError) -> QueryError {
        match error.find_root() {
            DataFusionError::SQL(parser, _) => match parser.as_ref() {
                ParserError::ParserError(text) | ParserError::TokenizerError(text) => syntax(sql, text),
                ParserError::RecursionLimitExceeded => QueryError::Syntax {
                    message: "the statement is nested too deeply".to_owned(),
                    excerpt: None,
                },
            },
            other => QueryError::Plan { message: first_line(&other.strip_backtrace()) },
        }
    }

    pub(crate) fn from_tokenizer(sql: &str, error: &TokenizerError) -> QueryError {
        syntax(sql, &error.to_string())
    }

    /// Turns an error of planning into a `QueryError`. If the statement names a table that does not
    /// exist, the hint lists `tables`.
    pub(crate) fn from_plan(error: DataFusionError, tables: &[String]) -> QueryError {
        match error.find_root() {
            DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => {
                    return QueryError::UnknownColumn {
                        column: field.flat_name(),
                        known: valid_fields.iter().map(|field| field.name().to_owned()).collect(),
                    };
                }
                other => return QueryError::Plan { message: first_line(&other.to_string()) },
            },
            DataFusionError::External(external) if external.downcast_ref::<ArchiveError>().is_some() => {
                return QueryError::from_execution(error, 0);
            }
            // Planning reads rows too: an uncorrelated subquery runs before the rest is planned.
            root if about_a_value(root).is_some() => return QueryError::from_execution(error, 0),
            _ => {}
        }
        let text = error.find_root().strip_backtrace();
        let text = text.trim_start_matches("Error during planning: ");
        if let Some(rest) = text.strip_prefix("table '")
            && let Some((name, _)) = rest.split_once("' not found")
        {
            let table = name.rsplit('.').next().unwrap_or(name).to_owned();
            return QueryError::UnknownTable { table, known: tables.to_vec() };
        }
        if let Some(rest) = text.strip_prefix("Invalid function '")
            && let Some((function, rest)) = rest.split_once('\'')
        {
            let closest = rest.split_once("Did you mean '").and_then(|(_, rest)| rest.split_once('\''));
            return QueryError::UnknownFunction {
                function: function.to_owned(),
                closest: closest.map(|(name, _)| name.to_owned()),
            };
        }
        QueryError::Plan { message: lower_first(&first_line(text)) }
    }

    /// Turns an error of running a planned query, under a memory limit of `limit` bytes, into a
    /// `QueryError`.
    pub(crate) fn from_execution(error: DataFusionError, limit: usize) -> QueryError {
        if let DataFusionError::ResourcesExhausted(text) = error.find_root() {
            // The rest of the text names settings and pools that a user cannot set.
            let shortage = text.split(" with ").next().unwrap_or_default();
            return QueryError::MemoryLimit { limit, shortage: lower_first(&first_line(shortage)) };
        }
        if let Some(message) = about_a_value(error.find_root()) {
            return QueryError::Value { message };
        }
        match error {
            DataFusionError::External(external) => match external.downcast::<ArchiveError>() {
                Ok(archive) => QueryError::Archive(*archive),
                Err(external) => QueryError::Execute(DataFusionError::External(external)),
            },
            other => QueryError::Execute(other),
        }
    }
}

/// Stands in a message where a text was left out because it may be a value of a row.
const HIDDEN: char = '…';
/// Longest end of a message that is shown after a hidden value.
const END_BYTES_MAX: usize = 80;

/// Returns the message of an error that a value of a row may have caused, without that value;
/// `None` for any other error.
fn about_a_value(root: &DataFusionError) -> Option<String> {
    let text = match root {
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::IoError(..) | ArrowError::ExternalError(_) | ArrowError::ParquetError(_) => {
                return None;
            }
            error => error.to_string(),
        },
        DataFusionError::Execution(text) => text.clone(),
        _ => return None,
    };
    Some(lower_first(&without_values(&text)))
}

/// Returns the beginning and the end of an error text, without what may be a value between them.
/// Libraries put a value between quotes, in brackets or after a colon, unless it is a number. So
/// the text is cut before the first quote, bracket, number or colon; a colon after the kind of the
/// error does not count. What follows the last quote is kept if it is short, begins with a word
/// such as `to`, and has only characters of names, so that it can only be the library's own words.
fn without_values(text: &str) -> String {
    let line = first_line(text);
    let text =
        line.split_once(": ").filter(|(kind, _)| kind.ends_with("error")).map_or(&*line, |(_, rest)| rest);
    let is_quote = |c: char| matches!(c, '\'' | '"' | '`');
    let is_start = |c: char| is_quote(c) || c == ':' || c == '[' || c == '{';
    let number = text.char_indices().find(|(at, c)| {
        let before = text[..*at].chars().next_back();
        c.is_ascii_digit() && !before.is_some_and(|before| before.is_alphanumeric() || before == '_')
    });
    let start = text.find(is_start).into_iter().chain(number.map(|(at, _)| at)).min();
    let Some(start) = start else { return text.to_owned() };
    let end = text.rfind(is_quote).map_or("", |at| &text[at + 1..]);
    let is_own = end.len() <= END_BYTES_MAX
        && (end.starts_with(" to ") || end.starts_with(" as ") || end.starts_with(" using "))
        && end.chars().all(|c| c.is_ascii_alphanumeric() || " ()_".contains(c));
    format!("{}{HIDDEN}{}", &text[..start], if is_own { end } else { "" })
}

fn is_disk_full(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::IoError(io) if io.kind() == std::io::ErrorKind::StorageFull)
}

fn syntax(sql: &str, text: &str) -> QueryError {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return QueryError::Syntax { message: lower_first(text), excerpt: None };
    };
    let mut numbers = place.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    let mut number = || numbers.next().and_then(|digits| digits.parse::<usize>().ok());
    let excerpt = match (number(), number()) {
        (Some(line), Some(column)) if line > 0 && column > 0 => {
            sql.lines().nth(line - 1).map(|text| Excerpt { line, column, text: text.to_owned() })
        }
        _ => None,
    };
    QueryError::Syntax { message: lower_first(message), excerpt }
}

/// Returns two more lines of a message: the line with the error, and a mark below the place.
/// Returns an empty text if there is no excerpt.
fn at(excerpt: &Option<Excerpt>) -> String {
    let Some(Excerpt { line, column, text }) = excerpt else { return String::new() };
    let skipped = column.saturating_sub(EXCERPT_CHARS + 1);
    let shown: String = text.chars().skip(skipped).take(2 * EXCERPT_CHARS).collect();
    let shown: String = shown.chars().map(|c| if is_active(c) { ' ' } else { c }).collect();
    let head = format!("line {line}: ");
    let mark = " ".repeat(head.chars().count() + column - 1 - skipped);
    format!("\n  {head}{shown}\n  {mark}^")
}

fn column_hint(column: &str, known: &[String]) -> String {
    let bare = column.rsplit('.').next().unwrap_or(column).trim_matches('"');
    if let Some(name) = of_audit_field(column).or_else(|| of_audit_field(bare))
        && known.iter().any(|known| known == name)
    {
        return format!("the column is {name}");
    }
    // In `WHERE verb = "get"` a value was meant, not a column.
    let quotes = "a value takes single quotes: 'get'";
    match closest(bare, known) {
        Some(name) => format!("did you mean {name}? (DESCRIBE events lists the columns; {quotes})"),
        None => format!("DESCRIBE events lists the columns; {quotes}"),
    }
}

/// Returns the column for a field of an audit event, for people who know the event's JSON.
fn of_audit_field(path: &str) -> Option<&'static str> {
    let path = path.replace(['"', '_'], "").to_lowercase();
    Some(match path.as_str() {
        "auditid" => "audit_id",
        "user.username" | "username" | "user" => "user_name",
        "user.uid" => "user_uid",
        "user.groups" | "groups" => "user_groups",
        "user.extra" => "user_extra",
        "impersonateduser.username" | "impersonateduser" => "impersonated_user_name",
        "impersonateduser.groups" => "impersonated_user_groups",
        "sourceip" | "ip" | "clientip" => "source_ip",
        "objectref.resource" | "kind" => "resource",
        "objectref.subresource" => "subresource",
        "objectref.namespace" | "ns" => "namespace",
        "objectref.name" | "pod" | "secret" => "name",
        "objectref.apigroup" => "api_group",
        "objectref.apiversion" => "api_version",
        "objectref.uid" => "object_uid",
        "objectref.resourceversion" => "resource_version",
        "responsestatus.code" | "code" | "status" | "statuscode" => "response_code",
        "responsestatus.reason" | "reason" => "response_reason",
        "responsestatus.message" | "message" => "response_message",
        "responsestatus.status" => "response_status",
        "timestamp" | "time" | "ts" => "stage_timestamp",
        "decision" => "authz_decision",
        "uri" | "path" | "url" => "request_uri",
        _ => return None,
    })
}

/// Returns the known name that is nearest to `name`, if it is near enough to be a suggestion.
fn closest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .iter()
        .map(|candidate| (levenshtein(&name, candidate), candidate.as_str()))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| distance * SUGGESTION_DISTANCE_SHARE <= name.chars().count())
        .map(|(_, candidate)| candidate)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<String> {
        ["user_name", "verb", "stage_timestamp", "source_ip"].map(str::to_owned).to_vec()
    }

    #[test]
    fn the_closest_name_is_suggested_and_a_far_one_is_not() {
        assert_eq!(closest("usr_name", &known()), Some("user_name"));
        assert_eq!(closest("VERB", &known()), Some("verb"));
        assert_eq!(closest("quux", &known()), None);
        assert_eq!(closest("", &known()), None);
    }

    #[test]
    fn fields_of_the_event_lead_to_their_columns() {
        assert_eq!(column_hint("user.username", &known()), "the column is user_name");
        assert_eq!(column_hint("sourceIP", &known()), "the column is source_ip");
    }

    #[test]
    fn values_are_left_out_of_messages() {
        for (text, shown) in [
            (
                "Cast error: Cannot cast string 'Jane' to value of Int32 type",
                "Cannot cast string … to value of Int32 type",
            ),
            ("Cast error: Cannot cast string 'a' to value' of Int32 type", "Cannot cast string …"),
            (
                "Parser error: Error parsing timestamp from '19x': error parsing date",
                "Error parsing timestamp from …",
            ),
            ("Arithmetic overflow: Overflow happened on: 4000000 * 5", "Arithmetic overflow…"),
            ("Invalid argument error: 12345 is too large to store in a Decimal128", "…"),
            ("Divide by zero error", "Divide by zero error"),
            ("Unknown interval type: Jane", "Unknown interval type…"),
            ("regex parse error:\n    (Jane\n    ^\nerror: unclosed group", "regex parse error…"),
            ("Invalid timezone \"Jane\": failed to parse timezone", "Invalid timezone …"),
        ] {
            assert_eq!(without_values(text), shown, "{text}");
        }
    }

    #[test]
    fn syntax_errors_point_at_their_place() {
        let error = crate::gate::admit("select *\nform events").expect_err("syntax");
        let text = error.to_string();
        assert!(text.contains("line 2: form events"), "{text}");
        assert!(text.lines().last().is_some_and(|mark| mark.trim() == "^"), "{text}");
    }
}
