//! Completion of a statement that is being typed.
//!
//! Invariants: the same text and catalog always give the same candidates, and a candidate replaces
//! exactly the word before the cursor. After FROM and JOIN the candidates are tables; after `name.`
//! they are the columns of that table or alias; elsewhere they are keywords, functions, and the
//! columns of the tables that the statement names.

/// The names that a session offers for completion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    pub relations: Vec<Relation>,
    /// Names of all functions, sorted.
    pub functions: Vec<String>,
}

/// A table or view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub name: String,
    pub about: &'static str,
    pub is_view: bool,
    pub columns: Vec<String>,
}

const KEYWORDS: [&str; 62] = [
    "ALL",
    "AND",
    "ANY",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "DATE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTRACT",
    "FALSE",
    "FILTER",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS FIRST",
    "NULLS LAST",
    "OFFSET",
    "ON",
    "OR",
    "ORDER BY",
    "OUTER",
    "OVER",
    "PARTITION BY",
    "RIGHT",
    "SELECT",
    "SHOW TABLES",
    "SIMILAR TO",
    "TABLE",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// Maximum number of candidates that are offered.
const CANDIDATES_MAX: usize = 200;

/// Returns where the word before `cursor` starts, and the candidates that can replace it.
pub fn complete(text: &str, cursor: usize, catalog: &Catalog) -> (usize, Vec<String>) {
    let before = text.get(..cursor).unwrap_or(text);
    if is_in_string(before) {
        return (cursor, vec![]);
    }
    let start = before.rfind(|c: char| !is_word(c)).map_or(0, |at| at + first_len(&before[at..]));
    let word = &before[start..];
    let lower = word.to_lowercase();
    let matches = |name: &str| name.to_lowercase().starts_with(&lower);

    if let Some(qualified) = before[..start].strip_suffix('.') {
        let name_start =
            qualified.rfind(|c: char| !is_word(c)).map_or(0, |at| at + first_len(&qualified[at..]));
        let relation = relation_of(&qualified[name_start..], text, catalog);
        let columns = relation.into_iter().flat_map(|relation| &relation.columns);
        return (start, columns.filter(|name| matches(name)).cloned().collect());
    }
    let previous = words(&before[..start]).last().map(str::to_uppercase).unwrap_or_default();
    if matches!(previous.as_str(), "FROM" | "JOIN" | "DESCRIBE" | "DESC" | "TABLE")
        || before.trim_start().starts_with("\\d")
    {
        let names = catalog.relations.iter().map(|relation| relation.name.clone());
        return (start, names.filter(|name| matches(name)).collect());
    }

    let named: Vec<&Relation> = catalog
        .relations
        .iter()
        .filter(|relation| words(text).any(|word| word.eq_ignore_ascii_case(&relation.name)))
        .collect();
    let relations = if named.is_empty() { catalog.relations.iter().take(1).collect() } else { named };
    let mut candidates: Vec<String> = vec![];
    for column in relations.iter().flat_map(|relation| &relation.columns) {
        if matches(column) && !candidates.contains(column) {
            candidates.push(column.clone());
        }
    }
    if !word.is_empty() {
        let is_lower = word.chars().all(|c| !c.is_uppercase());
        let keywords = KEYWORDS.iter().filter(|keyword| matches(keyword));
        candidates
            .extend(keywords.map(|word| if is_lower { word.to_lowercase() } else { (*word).to_owned() }));
        let functions = catalog.functions.iter().filter(|name| matches(name));
        candidates.extend(functions.map(|name| format!("{name}(")));
    }
    candidates.truncate(CANDIDATES_MAX);
    (start, candidates)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_in_string(before: &str) -> bool {
    before.chars().filter(|c| *c == '\'').count() % 2 == 1
}

/// Returns the relation that `name` means in `text`: the relation of that name, or the one that has
/// `name` as its alias, as in `relation [AS] name`.
fn relation_of<'a>(name: &str, text: &str, catalog: &'a Catalog) -> Option<&'a Relation> {
    let named =
        |word: &str| catalog.relations.iter().find(|relation| relation.name.eq_ignore_ascii_case(word));
    if let Some(relation) = named(name) {
        return Some(relation);
    }
    let words: Vec<&str> = words(text).collect();
    words.iter().enumerate().find_map(|(at, word)| {
        let relation = named(word)?;
        let mut following = words[at + 1..].iter().skip_while(|word| word.eq_ignore_ascii_case("as"));
        following.next().is_some_and(|alias| alias.eq_ignore_ascii_case(name)).then_some(relation)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let relation = |name: &str, columns: &[&str]| Relation {
            name: name.to_owned(),
            about: "",
            is_view: false,
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        };
        Catalog {
            relations: vec![
                relation("events", &["audit_id", "user_name", "user_groups", "verb"]),
                relation("rejects", &["raw", "reason"]),
            ],
            functions: vec!["upper".to_owned(), "count".to_owned()],
        }
    }

    /// Candidates at the `|` in `text`.
    fn candidates(text: &str) -> Vec<String> {
        let cursor = text.find('|').expect("a cursor");
        complete(&text.replace('|', ""), cursor, &catalog()).1
    }

    #[test]
    fn tables_follow_from() {
        assert_eq!(candidates("select * from e|"), ["events"]);
        assert_eq!(candidates("select * from events join |"), ["events", "rejects"]);
        assert_eq!(candidates("\\d rej|"), ["rejects"]);
    }

    #[test]
    fn columns_are_those_of_the_named_tables() {
        assert_eq!(candidates("select rea| from rejects"), ["reason"]);
        assert_eq!(candidates("select user_| from events"), ["user_name", "user_groups"]);
        assert_eq!(candidates("select e.ve| from events e"), ["verb"]);
        assert_eq!(
            candidates("select e.| from events as e"),
            ["audit_id", "user_name", "user_groups", "verb"]
        );
        assert_eq!(candidates("select x.| from events as e"), [""; 0]);
    }

    #[test]
    fn functions_and_keywords_take_the_case_of_the_word() {
        assert_eq!(candidates("select up|"), ["upper("]);
        assert_eq!(candidates("sele|"), ["select"]);
        assert_eq!(candidates("SELE|"), ["SELECT"]);
    }

    #[test]
    fn nothing_is_offered_inside_a_string_or_off_a_character_boundary() {
        assert_eq!(candidates("select 'u|"), [""; 0]);
        assert_eq!(complete("é", 1, &catalog()).1, [""; 0]);
    }

    #[test]
    fn only_the_word_before_the_cursor_is_replaced() {
        assert_eq!(complete("select é, us", 13, &catalog()).0, 11);
    }
}
