//! Parses Sigma's detection section to expressions: selections, and field lines with their
//! modifiers.
//!
//! Invariant: no modifier is ignored. A modifier that is unknown, or does not apply to its value,
//! is an error. No state.
//!
//! Where Sigma leaves room, this parser decides: `neq` is the negation of the whole line, so it is
//! also true if the field is absent; base64 text is case-sensitive; a keyword is searched for in
//! the values of all fields, not in their names.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use regex::RegexBuilder;
use strongroom_schemas::Outcome;
use strongroom_schemas::events::index;
use yaml_serde::{Mapping, Value};

use crate::condition;
use crate::expr::{Comparison, Expr, Quantifier};
use crate::fields::{self, Field, Path};
use crate::outcome;
use crate::pattern::{self, Check, Ordering, Part, Test, Utf16};

/// Largest compiled size of one regular expression.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// The largest number such that `f64` holds it and every smaller whole number exactly.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Why a rule is not valid, and the keys that lead to the fault, innermost first.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) trail: Vec<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), trail: Vec::new() }
    }

    pub(crate) fn at(mut self, key: &str) -> Fault {
        self.trail.push(key.to_owned());
        self
    }
}

/// Parses a `detection` section. Unless the rule names `stage` itself, the returned expression
/// matches every stage but `RequestReceived`. If the rule asks for success and does not name
/// `dry_run` itself, the expression matches no dry run: a dry run has done nothing.
pub(crate) fn parse(detection: &Mapping) -> Result<Expr, Fault> {
    let (condition, named) = read(detection)?;
    let is_not = |field: Field, text: &str| {
        let check = Check::Text { parts: vec![Part::Literal(text.into())], cased: true };
        Expr::Not(Box::new(Expr::Field(field, Arc::new(Test::any_of(vec![check])))))
    };
    let mut all = Vec::new();
    if !named.stage {
        all.push(is_not(Field::Column(index::STAGE), "RequestReceived"));
    }
    if !named.dry_run && outcome::asks(&condition, Outcome::Success) {
        all.push(is_not(Field::DryRun, "true"));
    }
    if all.is_empty() {
        return Ok(condition);
    }
    all.push(condition);
    Ok(Expr::All(all))
}

/// Returns true if a condition from [`parse`] does not match the stage `RequestReceived` because
/// its rule does not name `stage`.
pub(crate) fn ignores_received(condition: &Expr) -> bool {
    let Expr::All(exprs) = condition else { return false };
    let Some(Expr::Not(first)) = exprs.first() else { return false };
    let Expr::Field(Field::Column(index::STAGE), test) = first.as_ref() else { return false };
    test.exact().any(|stage| stage.eq_ignore_ascii_case("RequestReceived"))
}

/// Parses a `filter` section. No condition on the stage is added, because the filtered rules
/// already have one.
pub(crate) fn parse_filter(filter: &Mapping) -> Result<Expr, Fault> {
    read(filter).map(|(condition, _)| condition)
}

/// For each of these fields, whether the rule names it. If a field is not named, [`parse`] may add
/// a condition on it.
#[derive(Clone, Copy, Default)]
struct Named {
    stage: bool,
    dry_run: bool,
}

/// Returns the condition, and which fields of [`Named`] the rule names.
fn read(detection: &Mapping) -> Result<(Expr, Named), Fault> {
    let reader = Reader { named: Cell::default() };
    let mut selections = Vec::new();
    let mut conditions = Vec::new();
    for (key, value) in detection {
        let name = key.as_str().ok_or_else(|| Fault::new("a key of detection is not text"))?;
        match name {
            "condition" => conditions = condition_texts(value)?,
            "timeframe" => {
                return Err(Fault::new("timeframe belongs in a correlation document").at(name));
            }
            _ => {
                let expr = reader.selection(value, Place::Event).map_err(|fault| fault.at(name))?;
                selections.push((name.to_owned(), expr));
            }
        }
    }
    if conditions.is_empty() {
        return Err(Fault::new("detection has no condition"));
    }
    let mut parsed = Vec::new();
    for text in conditions {
        parsed.push(
            condition::parse(&text, &selections)
                .map_err(|error| Fault::new(error.to_string()).at("condition"))?,
        );
    }
    let condition = match parsed.len() {
        1 => parsed.remove(0),
        _ => Expr::Any(parsed),
    };
    Ok((condition, reader.named.get()))
}

fn condition_texts(value: &Value) -> Result<Vec<String>, Fault> {
    let wrong = || Fault::new("condition is neither text nor a list of texts").at("condition");
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Sequence(items) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

/// What field names refer to: the event, or an element of an array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Event,
    Element,
}

struct Reader {
    named: Cell<Named>,
}

impl Reader {
    fn selection(&self, value: &Value, place: Place) -> Result<Expr, Fault> {
        match value {
            Value::Mapping(map) if map.is_empty() => Err(Fault::new("is empty")),
            Value::Mapping(map) => self.map(map, place),
            Value::Sequence(items) if items.is_empty() => Err(Fault::new("is empty")),
            Value::Sequence(items) => {
                let (maps, words): (Vec<&Value>, Vec<&Value>) =
                    items.iter().partition(|item| item.is_mapping() || item.is_sequence());
                let mut branches: Vec<Expr> =
                    maps.into_iter().map(|item| self.selection(item, place)).collect::<Result<_, _>>()?;
                if !words.is_empty() {
                    let modifiers = Modifiers::default();
                    branches.push(self.keywords(&words, &modifiers, place)?);
                }
                Ok(Expr::Any(branches))
            }
            scalar => self.keywords(&[scalar], &Modifiers::default(), place),
        }
    }

    fn map(&self, map: &Mapping, place: Place) -> Result<Expr, Fault> {
        let mut lines = Vec::with_capacity(map.len());
        for (key, value) in map {
            let key = key.as_str().ok_or_else(|| Fault::new("a field name is not text"))?;
            lines.push(self.line(key, value, place).map_err(|fault| fault.at(key))?);
        }
        Ok(Expr::All(lines))
    }

    /// Parses one line, `field|modifiers: values`.
    fn line(&self, key: &str, value: &Value, place: Place) -> Result<Expr, Fault> {
        if let Some((base, quantifier, rest)) = scope_of(key)? {
            let field = self.field(base, place)?;
            if !matches!(
                field,
                Field::List(_) | Field::Json(..) | Field::Body(..) | Field::Pod(_) | Field::Element(_)
            ) {
                return Err(Fault::new(format!("{base} is not an array and has no elements")));
            }
            let holds_maps = match value {
                Value::Mapping(_) => true,
                Value::Sequence(items) => items.iter().any(Value::is_mapping),
                _ => false,
            };
            let inner = match holds_maps {
                true if rest.is_empty() => self.selection(value, Place::Element)?,
                _ => {
                    let rest = rest.strip_prefix('.').unwrap_or(rest);
                    let rest = if rest.is_empty() || rest.starts_with('|') {
                        format!(".{rest}")
                    } else {
                        rest.to_owned()
                    };
                    self.line(&rest, value, Place::Element)?
                }
            };
            return Ok(Expr::Scope(field, quantifier, Box::new(inner)));
        }
        let mut words = key.split('|');
        let name = words.next().unwrap_or_default();
        let modifiers = Modifiers::parse(words)?;
        let single = std::slice::from_ref(value);
        let values: Vec<&Value> = match value {
            Value::Sequence(items) if items.is_empty() => return Err(Fault::new("has no values")),
            Value::Sequence(items) => items.iter().collect(),
            _ => single.iter().collect(),
        };
        if name.is_empty() {
            return self.keywords(&values, &modifiers, place);
        }
        let field = self.field(name, place)?;
        let expr = if modifiers.fieldref {
            self.references(&field, &values, &modifiers, place)?
        } else {
            modifiers.combine(&values, |test| Expr::Field(field.clone(), test))?
        };
        Ok(if modifiers.neq { Expr::Not(Box::new(expr)) } else { expr })
    }

    fn field(&self, name: &str, place: Place) -> Result<Field, Fault> {
        let field = match place {
            Place::Element => Field::Element(Path::parse(name)),
            Place::Event => fields::resolve(name).map_err(|error| Fault::new(error.to_string()))?,
        };
        let mut named = self.named.get();
        named.stage |= field == Field::Column(index::STAGE);
        named.dry_run |= field == Field::DryRun;
        self.named.set(named);
        Ok(field)
    }

    fn keywords(&self, values: &[&Value], modifiers: &Modifiers, place: Place) -> Result<Expr, Fault> {
        if place == Place::Element {
            return Err(Fault::new("keywords have no meaning inside an array scope"));
        }
        if !matches!(modifiers.compare, Compare::Equal | Compare::Contains | Compare::Regex { .. })
            || modifiers.fieldref
            || modifiers.neq
        {
            return Err(Fault::new(
                "a keyword takes no modifiers but all, re, cased, contains, wide, base64, base64offset and windash",
            ));
        }
        // A keyword may be anywhere inside a value.
        let mut inside = modifiers.clone();
        if inside.compare == Compare::Equal {
            inside.compare = Compare::Contains;
        }
        inside.combine(values, Expr::Keyword)
    }

    fn references(
        &self,
        field: &Field,
        values: &[&Value],
        modifiers: &Modifiers,
        place: Place,
    ) -> Result<Expr, Fault> {
        let comparison = match modifiers.compare {
            Compare::Equal => Comparison::Equals,
            Compare::Contains => Comparison::Contains,
            Compare::StartsWith => Comparison::StartsWith,
            Compare::EndsWith => Comparison::EndsWith,
            _ => {
                return Err(Fault::new(
                    "fieldref can only be combined with contains, startswith and endswith",
                ));
            }
        };
        if !modifiers.encodings.is_empty() || modifiers.windash || modifiers.cased {
            return Err(Fault::new("fieldref can only be combined with contains, startswith and endswith"));
        }
        let mut branches = Vec::new();
        for value in values {
            let name = value.as_str().ok_or_else(|| Fault::new("fieldref needs the name of a field"))?;
            branches.push(Expr::Fields(field.clone(), comparison, self.field(name, place)?));
        }
        Ok(if modifiers.all { Expr::All(branches) } else { Expr::Any(branches) })
    }
}

/// Splits a key with a scope, such as `base[any].rest|modifiers`, into the base, the quantifier and
/// what follows the scope. Returns `None` if the key has no scope.
fn scope_of(key: &str) -> Result<Option<(&str, Quantifier, &str)>, Fault> {
    let name_ends = key.find('|').unwrap_or(key.len());
    let Some(open) = key[..name_ends].find('[') else { return Ok(None) };
    let Some(length) = key[open..name_ends].find(']') else {
        return Err(Fault::new("\"[\" without \"]\""));
    };
    let quantifier = match &key[open + 1..open + length] {
        "any" => Quantifier::Any,
        "all" => Quantifier::All,
        "all_or_empty" => Quantifier::AllOrEmpty,
        "none" => Quantifier::None,
        other => {
            return Err(Fault::new(format!(
                "scope [{other}] is not one of [any], [all], [all_or_empty], [none]"
            )));
        }
    };
    let rest = &key[open + length + 1..];
    if !(rest.is_empty() || rest.starts_with(['.', '|'])) {
        return Err(Fault::new(format!("unexpected \"{rest}\" after a scope")));
    }
    Ok(Some((&key[..open], quantifier, rest)))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Compare {
    #[default]
    Equal,
    Contains,
    StartsWith,
    EndsWith,
    Regex {
        insensitive: bool,
        multi_line: bool,
        dot_all: bool,
    },
    Cidr,
    Exists,
    Number(Ordering),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Wide(Utf16),
    Base64,
    Base64Offset,
}

/// The modifiers after a field name. Their combination has been checked.
#[derive(Clone, Debug, Default)]
struct Modifiers {
    compare: Compare,
    encodings: Vec<Encoding>,
    all: bool,
    cased: bool,
    fieldref: bool,
    neq: bool,
    windash: bool,
}

impl Modifiers {
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Modifiers, Fault> {
        let mut modifiers = Modifiers::default();
        for word in words {
            if let Compare::Regex { insensitive, multi_line, dot_all } = &mut modifiers.compare {
                let flag = match word {
                    "i" => Some(insensitive),
                    "m" => Some(multi_line),
                    "s" => Some(dot_all),
                    _ => None,
                };
                if let Some(flag) = flag {
                    *flag = true;
                    continue;
                }
            }
            let compare = match word {
                "contains" => Some(Compare::Contains),
                "startswith" => Some(Compare::StartsWith),
                "endswith" => Some(Compare::EndsWith),
                "re" => Some(Compare::Regex { insensitive: false, multi_line: false, dot_all: false }),
                "cidr" => Some(Compare::Cidr),
                "exists" => Some(Compare::Exists),
                "gt" => Some(Compare::Number(Ordering::Greater)),
                "gte" => Some(Compare::Number(Ordering::GreaterOrEqual)),
                "lt" => Some(Compare::Number(Ordering::Less)),
                "lte" => Some(Compare::Number(Ordering::LessOrEqual)),
                _ => None,
            };
            if let Some(compare) = compare {
                if modifiers.compare != Compare::Equal {
                    return Err(Fault::new(format!("modifier {word} cannot follow the modifier before it")));
                }
                modifiers.compare = compare;
                continue;
            }
            match word {
                "all" => modifiers.all = true,
                "cased" => modifiers.cased = true,
                "fieldref" => modifiers.fieldref = true,
                "neq" => modifiers.neq = true,
                "windash" => modifiers.windash = true,
                "wide" | "utf16le" => modifiers.encodings.push(Encoding::Wide(Utf16::LittleEndian)),
                "utf16be" => modifiers.encodings.push(Encoding::Wide(Utf16::BigEndian)),
                "utf16" => modifiers.encodings.push(Encoding::Wide(Utf16::Marked)),
                "base64" => modifiers.encodings.push(Encoding::Base64),
                "base64offset" => modifiers.encodings.push(Encoding::Base64Offset),
                "expand" => {
                    return Err(Fault::new(
                        "modifier expand needs a pipeline that fills placeholders in; write the values out",
                    ));
                }
                "i" | "m" | "s" => return Err(Fault::new(format!("modifier {word} is only valid after re"))),
                other => return Err(Fault::new(format!("modifier \"{other}\" is unknown"))),
            }
        }
        modifiers.check()?;
        Ok(modifiers)
    }

    fn check(&self) -> Result<(), Fault> {
        let textual = matches!(
            self.compare,
            Compare::Equal | Compare::Contains | Compare::StartsWith | Compare::EndsWith
        );
        if !textual && (self.cased || self.windash || !self.encodings.is_empty()) {
            return Err(Fault::new("cased, windash and encodings are only for comparisons of text"));
        }
        if self.neq && self.all {
            return Err(Fault::new("neq cannot be combined with all"));
        }
        let encoded_twice = self
            .encodings
            .windows(2)
            .any(|pair| !matches!(pair[0], Encoding::Wide(_)) || matches!(pair[1], Encoding::Wide(_)));
        if encoded_twice {
            return Err(Fault::new(
                "at most one of wide and utf16 may be used, and after it at most one of base64 and base64offset",
            ));
        }
        Ok(())
    }

    /// Returns an expression that is true if any of the values matches or, with the modifier `all`,
    /// if each of them matches.
    fn combine(&self, values: &[&Value], leaf: impl Fn(Arc<Test>) -> Expr) -> Result<Expr, Fault> {
        let mut checks = values.iter().map(|value| self.checks(value)).collect::<Result<Vec<_>, _>>()?;
        if self.all {
            let lines = checks.into_iter().map(|checks| leaf(Arc::new(Test::any_of(checks))));
            return Ok(Expr::All(lines.collect()));
        }
        let checks = checks.iter_mut().flat_map(std::mem::take).collect();
        Ok(leaf(Arc::new(Test::any_of(checks))))
    }

    /// Returns the checks for one value of the rule, which matches if any of them passes.
    fn checks(&self, value: &Value) -> Result<Vec<Check>, Fault> {
        match self.compare {
            Compare::Exists => match value.as_bool() {
                Some(expected) => Ok(vec![Check::Exists(expected)]),
                None => Err(Fault::new("exists takes true or false")),
            },
            Compare::Number(ordering) => {
                let number = match value {
                    Value::Number(number) => number.as_f64(),
                    Value::String(text) => text.parse().ok(),
                    _ => None,
                };
                let number = number.filter(|number| number.is_finite());
                let number = number.ok_or_else(|| Fault::new("gt, gte, lt and lte take a number"))?;
                Ok(vec![Check::Number(ordering, number)])
            }
            Compare::Cidr => {
                let text =
                    value.as_str().ok_or_else(|| Fault::new("cidr takes a network such as 10.0.0.0/8"))?;
                let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
                match network {
                    Ok(network) => Ok(vec![Check::Network(network)]),
                    Err(_) => Err(Fault::new(format!("\"{text}\" is not a network such as 10.0.0.0/8"))),
                }
            }
            Compare::Regex { insensitive, multi_line, dot_all } => {
                let text = value.as_str().ok_or_else(|| Fault::new("re takes a regular expression"))?;
                let flags: String = [('i', insensitive), ('m', multi_line), ('s', dot_all)]
                    .into_iter()
                    .filter(|(_, set)| *set)
                    .map(|(flag, _)| flag)
                    .collect();
                let text = if flags.is_empty() { text.to_owned() } else { format!("(?{flags}){text}") };
                let built = RegexBuilder::new(&text).size_limit(REGEX_BYTES_MAX).build();
                match built {
                    Ok(regex) => Ok(vec![Check::Regex(regex)]),
                    Err(error) => {
                        Err(Fault::new(format!("regular expression: {}", one_line(&error.to_string()))))
                    }
                }
            }
            Compare::Equal | Compare::Contains | Compare::StartsWith | Compare::EndsWith => {
                self.text_checks(value)
            }
        }
    }

    fn text_checks(&self, value: &Value) -> Result<Vec<Check>, Fault> {
        let plain = self.compare == Compare::Equal && self.encodings.is_empty() && !self.windash;
        let text = match value {
            Value::Null if plain => return Ok(vec![Check::Null]),
            Value::Null => return Err(Fault::new("null takes no modifier")),
            Value::Bool(flag) => flag.to_string(),
            Value::String(text) => text.clone(),
            Value::Number(number) => {
                let float = number.as_f64().filter(|n| n.is_finite() && n.abs() <= EXACT_INTEGER_MAX);
                match float {
                    Some(float) if plain => return Ok(vec![Check::Number(Ordering::Equal, float)]),
                    _ => number.to_string(),
                }
            }
            Value::Mapping(_) => {
                return Err(Fault::new("a map is a value only below a scope such as rules[any]"));
            }
            Value::Sequence(_) | Value::Tagged(_) => {
                return Err(Fault::new("a value is not text, number, true, false or null"));
            }
        };
        let texts = if self.windash { pattern::windash(&text) } else { vec![text] };
        let mut checks = Vec::new();
        for text in texts {
            for parts in self.encoded(&text)? {
                checks
                    .push(Check::Text { parts: self.affixed(parts), cased: self.cased || self.is_base64() });
            }
        }
        Ok(checks)
    }

    fn is_base64(&self) -> bool {
        self.encodings.iter().any(|encoding| !matches!(encoding, Encoding::Wide(_)))
    }

    /// Returns the encoded forms of a text.
    fn encoded(&self, text: &str) -> Result<Vec<Vec<Part>>, Fault> {
        let parts = pattern::parts_of(text);
        if self.encodings.is_empty() {
            return Ok(vec![parts]);
        }
        let literal = match parts.as_slice() {
            [Part::Literal(literal)] => literal,
            _ => return Err(Fault::new("a value to encode must be text without wildcards, and not empty")),
        };
        let mut bytes = literal.clone().into_bytes();
        let mut texts = Vec::new();
        for encoding in &self.encodings {
            match encoding {
                Encoding::Wide(order) => bytes = pattern::utf16(literal, *order),
                Encoding::Base64 => texts = vec![pattern::base64(&bytes)],
                Encoding::Base64Offset => texts = pattern::base64_offsets(&bytes),
            }
        }
        if texts.is_empty() {
            let text = String::from_utf8(bytes);
            texts.push(text.map_err(|_| Fault::new("is not text in UTF-16; add base64 or base64offset"))?);
        }
        Ok(texts.into_iter().map(|text| vec![Part::Literal(text)]).collect())
    }

    fn affixed(&self, mut parts: Vec<Part>) -> Vec<Part> {
        if matches!(self.compare, Compare::Contains | Compare::EndsWith) && parts.first() != Some(&Part::Many)
        {
            parts.insert(0, Part::Many);
        }
        if matches!(self.compare, Compare::Contains | Compare::StartsWith)
            && parts.last() != Some(&Part::Many)
        {
            parts.push(Part::Many);
        }
        parts
    }
}

/// Returns the last line of an error text, which says what is wrong. The lines before it only show
/// the place.
fn one_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
