//! Sigma's condition language: `selection and not 1 of filter_*`.
//!
//! Invariant: a condition that parses names only existing selections, and has Sigma's meaning:
//! `not` binds tighter than `and`, `and` tighter than `or`; `them` is every selection whose name
//! does not start with an underscore. No state.

use std::fmt;

use crate::expr::Expr;

/// Maximum nesting depth of parentheses and `not`.
const DEPTH_MAX: usize = 64;

/// Why a condition is not valid.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConditionError {
    Aggregation,
    Character(char),
    Deep,
    Empty,
    Expected(&'static str, String),
    NoMatch(String),
    Trailing(String),
    Unknown { name: String, known: Vec<String> },
}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConditionError::Aggregation => {
                write!(f, "aggregation after \"|\" is not supported: write a correlation document instead")
            }
            ConditionError::Character(c) => write!(f, "unexpected '{c}'"),
            ConditionError::Deep => write!(f, "is more than {DEPTH_MAX} levels deep"),
            ConditionError::Empty => write!(f, "is empty"),
            ConditionError::Expected(what, found) if found.is_empty() => {
                write!(f, "ends where {what} is expected")
            }
            ConditionError::Expected(what, found) => write!(f, "\"{found}\" where {what} is expected"),
            ConditionError::NoMatch(pattern) => write!(f, "no selection is named like \"{pattern}\""),
            ConditionError::Trailing(found) => write!(f, "\"{found}\" where the end, and, or is expected"),
            ConditionError::Unknown { name, known } => {
                write!(f, "no selection is named \"{name}\"; the selections are {}", known.join(", "))
            }
        }
    }
}

/// Parses a condition and returns it as an expression. A condition may name only the selections in
/// `selections`.
pub(crate) fn parse(text: &str, selections: &[(String, Expr)]) -> Result<Expr, ConditionError> {
    let tokens = tokens_of(text)?;
    if tokens.is_empty() {
        return Err(ConditionError::Empty);
    }
    let mut parser = Parser { tokens: &tokens, at: 0, selections };
    let expr = parser.any(0)?;
    match parser.peek() {
        None => Ok(expr),
        Some(token) => Err(ConditionError::Trailing(token.to_owned())),
    }
}

fn tokens_of(text: &str) -> Result<Vec<String>, ConditionError> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    let end = |word: &mut String, tokens: &mut Vec<String>| {
        if !word.is_empty() {
            tokens.push(std::mem::take(word));
        }
    };
    for c in text.chars() {
        match c {
            '(' | ')' => {
                end(&mut word, &mut tokens);
                tokens.push(c.to_string());
            }
            '|' => return Err(ConditionError::Aggregation),
            c if c.is_whitespace() => end(&mut word, &mut tokens),
            c if c.is_alphanumeric() || matches!(c, '_' | '-' | '*' | '.') => word.push(c),
            c => return Err(ConditionError::Character(c)),
        }
    }
    end(&mut word, &mut tokens);
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [String],
    at: usize,
    selections: &'a [(String, Expr)],
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn accept(&mut self, keyword: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    fn any(&mut self, depth: usize) -> Result<Expr, ConditionError> {
        let mut branches = vec![self.all(depth)?];
        while self.accept("or") {
            branches.push(self.all(depth)?);
        }
        Ok(one_or(branches, Expr::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Expr, ConditionError> {
        let mut branches = vec![self.negated(depth)?];
        while self.accept("and") {
            branches.push(self.negated(depth)?);
        }
        Ok(one_or(branches, Expr::All))
    }

    fn negated(&mut self, depth: usize) -> Result<Expr, ConditionError> {
        if depth > DEPTH_MAX {
            return Err(ConditionError::Deep);
        }
        if self.accept("not") {
            return Ok(Expr::Not(Box::new(self.negated(depth + 1)?)));
        }
        if self.accept("(") {
            let inner = self.any(depth + 1)?;
            if self.accept(")") {
                return Ok(inner);
            }
            let found = self.peek().unwrap_or_default().to_owned();
            return Err(ConditionError::Expected("\")\"", found));
        }
        self.selection()
    }

    fn selection(&mut self) -> Result<Expr, ConditionError> {
        const OPERAND: &str = "a selection, \"1 of\", \"all of\", \"not\" or \"(\"";
        let Some(word) = self.peek().map(str::to_owned) else {
            return Err(ConditionError::Expected(OPERAND, String::new()));
        };
        let of_follows = self.tokens.get(self.at + 1).is_some_and(|token| token.eq_ignore_ascii_case("of"));
        if of_follows {
            let join = match word.to_ascii_lowercase().as_str() {
                "1" | "any" => Expr::Any,
                "all" => Expr::All,
                _ => return Err(ConditionError::Expected("\"1 of\" or \"all of\"", format!("{word} of"))),
            };
            self.at += 2;
            return self.several(join);
        }
        if [")", "and", "or", "of"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword)) {
            return Err(ConditionError::Expected(OPERAND, word));
        }
        self.at += 1;
        match self.selections.iter().find(|(name, _)| *name == word) {
            Some((_, expr)) => Ok(expr.clone()),
            None => Err(ConditionError::Unknown {
                name: word,
                known: self.selections.iter().map(|(name, _)| name.clone()).collect(),
            }),
        }
    }

    fn several(&mut self, join: fn(Vec<Expr>) -> Expr) -> Result<Expr, ConditionError> {
        let Some(pattern) = self.peek().map(str::to_owned) else {
            return Err(ConditionError::Expected("\"them\" or a pattern of names", String::new()));
        };
        self.at += 1;
        let them = pattern.eq_ignore_ascii_case("them");
        let chosen: Vec<Expr> = self
            .selections
            .iter()
            .filter(|(name, _)| if them { !name.starts_with('_') } else { name_matches(&pattern, name) })
            .map(|(_, expr)| expr.clone())
            .collect();
        if chosen.is_empty() { Err(ConditionError::NoMatch(pattern)) } else { Ok(one_or(chosen, join)) }
    }
}

fn one_or(mut exprs: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match exprs.len() {
        1 => exprs.remove(0),
        _ => join(exprs),
    }
}

/// Returns true if a name matches a pattern, in which `*` stands for any characters.
fn name_matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pattern::{Check, Test};

    fn leaf(name: &str) -> (String, Expr) {
        (name.to_owned(), Expr::Keyword(Arc::new(Test::any_of(vec![Check::Null]))))
    }

    /// Returns the operators of an expression; every leaf is written `x`.
    fn shape(expr: &Expr) -> String {
        let list = |exprs: &[Expr]| exprs.iter().map(shape).collect::<Vec<_>>().join(" ");
        match expr {
            Expr::All(exprs) => format!("(and {})", list(exprs)),
            Expr::Any(exprs) => format!("(or {})", list(exprs)),
            Expr::Not(expr) => format!("(not {})", shape(expr)),
            _ => "x".to_owned(),
        }
    }

    #[test]
    fn operators_bind_as_sigma_says() {
        let selections = ["a", "b", "sel_1", "sel_2", "_hidden"].map(leaf);
        let shapes = [
            ("a", "x"),
            ("a or b and not sel_1", "(or x (and x (not x)))"),
            ("(a OR b) AND NOT sel_1", "(and (or x x) (not x))"),
            ("not not a", "(not (not x))"),
            ("1 of sel_*", "(or x x)"),
            ("all of sel_*", "(and x x)"),
            ("1 of *_2", "x"),
            ("all of them", "(and x x x x)"),
            ("a and 1 of them or b", "(or (and x (or x x x x)) x)"),
            ("any of s*l_*", "(or x x)"),
        ];
        for (text, expected) in shapes {
            let parsed = parse(text, &selections).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(shape(&parsed), expected, "{text}");
        }
    }

    #[test]
    fn wrong_conditions_say_what_is_wrong() {
        let selections = ["a", "b"].map(leaf);
        let errors = [
            ("", "is empty"),
            ("a b", "\"b\" where the end, and, or is expected"),
            ("a and", "ends where a selection"),
            ("(a", "ends where \")\" is expected"),
            ("a)", "\")\" where the end"),
            ("c", "no selection is named \"c\"; the selections are a, b"),
            ("1 of c*", "no selection is named like \"c*\""),
            ("2 of them", "\"2 of\" where"),
            ("a | count() > 3", "correlation"),
            ("a & b", "unexpected '&'"),
            ("or a", "\"or\" where a selection"),
        ];
        for (text, part) in errors {
            let error = parse(text, &selections).err().unwrap_or_else(|| panic!("{text} parses"));
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        assert_eq!(parse(&deep, &selections).err(), Some(ConditionError::Deep));
    }
}
