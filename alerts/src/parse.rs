//! Parses rule files to documents: YAML, Sigma's attributes, and the line of each document.
//!
//! Invariant: every error names file, rule and line. YAML values have no positions, so the line of
//! a semantic error is found by searching for the keys that lead to it, in order, from the
//! document's start. No state.
//!
//! Rejected: rsigma-parser. Its newest releases need a newer Rust. It also brings a grammar engine,
//! a model that is wider than the rules that run here, and errors without our field names. With it,
//! the definition of a valid rule would be in two places.

use std::collections::BTreeMap;

use strongroom_schemas::Severity;
use yaml_serde::{Mapping, Value};

use crate::detection::{self, Fault};
use crate::error::{LATENESS_MAX, RuleError, THRESHOLD_MAX, TIMESPAN_MAX};
use crate::expr::Expr;
use crate::message::Template;
use crate::rarity::{ALERTS_MAX, Common};
use crate::rule::{Bound, Measure};

/// Maximum number of queries in a rule's runbook.
const RUNBOOK_MAX: usize = 16;

/// The attributes that documents of every kind may have.
#[derive(Clone, Debug)]
pub(crate) struct RuleHeader {
    pub(crate) file: String,
    pub(crate) line: usize,
    /// The document as it was read.
    pub(crate) text: String,
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) severity: Severity,
    pub(crate) common: Option<Common>,
    pub(crate) tactics: Vec<String>,
    pub(crate) techniques: Vec<String>,
    pub(crate) next_steps: String,
    pub(crate) next_steps_template: Template,
    pub(crate) false_positives: Vec<String>,
    pub(crate) hipaa: Vec<String>,
    pub(crate) runbook: Vec<String>,
    pub(crate) runbook_templates: Vec<Template>,
    pub(crate) message: Option<Template>,
}

/// An exception to other rules.
#[derive(Clone, Debug)]
pub(crate) struct FilterDocument {
    pub(crate) rules: Vec<String>,
    /// The condition that an event must satisfy in addition to the rule's own condition.
    pub(crate) condition: Expr,
}

/// A correlation that refers to its rules by name.
#[derive(Clone, Debug)]
pub(crate) struct CorrelationDocument {
    pub(crate) measure: Measure,
    /// Fields whose values are counted, or compared with earlier values.
    pub(crate) fields: Vec<String>,
    pub(crate) rules: Vec<String>,
    pub(crate) group_by: Vec<String>,
    /// True if the events of several clusters are in one group.
    pub(crate) across_clusters: bool,
    /// For each alias, the field that it stands for in the events of each base rule.
    pub(crate) aliases: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) timespan_us: i64,
    pub(crate) lateness_us: i64,
    pub(crate) bounds: Vec<Bound>,
    pub(crate) generate: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Detects {
    Event(Expr),
    Correlation(CorrelationDocument),
    Filter(FilterDocument),
}

#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) header: RuleHeader,
    pub(crate) detects: Detects,
}

/// Reads all documents of a text and adds them to `out`.
pub(crate) fn documents(file: &str, text: &str, out: &mut Vec<Document>) -> Result<(), RuleError> {
    for (line, part) in split(text) {
        let value: Value = yaml_serde::from_str(part).map_err(|error| {
            let place = error.location();
            RuleError::Yaml {
                file: file.to_owned(),
                line: line + place.as_ref().map_or(0, |place| place.line().saturating_sub(1)),
                column: place.as_ref().map_or(1, |place| place.column()),
                message: error.to_string(),
            }
        })?;
        if value.is_null() {
            continue;
        }
        let document = document(file, line, value).map_err(|(rule, fault)| RuleError::Rule {
            file: file.to_owned(),
            line: line + line_of(part, &fault.trail),
            rule,
            message: described(&fault),
        })?;
        out.push(Document {
            header: RuleHeader {
                line: line + first_line(part),
                text: part.trim().to_owned(),
                ..document.header
            },
            ..document
        });
    }
    Ok(())
}

/// Returns the documents of a YAML stream, each with the line where it starts, counted from 1.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let next = at + line.len();
        let marker = line.trim_end();
        if marker == "---" || marker.starts_with("--- #") {
            parts.push((start_line, &text[start..at]));
            (start, start_line) = (next, number + 2);
        }
        at = next;
    }
    parts.push((start_line, &text[start..]));
    parts
}

/// Returns the number of lines before the first line with content.
fn first_line(part: &str) -> usize {
    part.lines()
        .position(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .unwrap_or_default()
}

/// Returns the line that the keys of a trail lead to, counted from 0 at the document's start. The
/// innermost key is the first of the trail.
fn line_of(part: &str, trail: &[String]) -> usize {
    let lines: Vec<&str> = part.lines().collect();
    let mut at = first_line(part);
    for key in trail.iter().rev() {
        let found = lines.iter().enumerate().skip(at).find(|(_, line)| {
            let line = line.trim_start().trim_start_matches("- ").trim_start();
            let line = line.trim_start_matches(['"', '\'']);
            line.strip_prefix(key.as_str())
                .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
        });
        match found {
            Some((line, _)) => at = line,
            None => break,
        }
    }
    at
}

fn described(fault: &Fault) -> String {
    let mut path: Vec<&str> = fault.trail.iter().rev().map(String::as_str).collect();
    path.dedup();
    match path.as_slice() {
        [] => fault.message.clone(),
        path => format!("{}: {}", path.join(" > "), fault.message),
    }
}

fn document(file: &str, line: usize, mut value: Value) -> Result<Document, (String, Fault)> {
    let unnamed = |fault| ("(untitled)".to_owned(), fault);
    value.apply_merge().map_err(|error| unnamed(Fault::new(error.to_string())))?;
    let Value::Mapping(map) = value else {
        return Err(unnamed(Fault::new("the document is not a map of attributes")));
    };
    let label = ["title", "name", "id"].iter().find_map(|key| map.get(*key).and_then(Value::as_str));
    let label = label.unwrap_or("(untitled)").to_owned();
    read(file, line, &map).map_err(|fault| (label, fault))
}

fn read(file: &str, line: usize, map: &Mapping) -> Result<Document, Fault> {
    if map.contains_key("action") {
        return Err(
            Fault::new("collections with \"action\" are not supported: write whole documents").at("action")
        );
    }
    let header = header(file, line, map)?;
    if let Some(filter) = section(map, "filter")? {
        if map.contains_key("detection") || map.contains_key("correlation") {
            return Err(Fault::new("has a filter with a detection or a correlation: write two documents"));
        }
        logsource(section(map, "logsource")?)?;
        let filter = self::filter(filter).map_err(|fault| fault.at("filter"))?;
        return Ok(Document { header, detects: Detects::Filter(filter) });
    }
    let detects = match (section(map, "detection")?, section(map, "correlation")?) {
        (Some(detection), None) => {
            logsource(section(map, "logsource")?)?;
            Detects::Event(detection::parse(detection).map_err(|fault| fault.at("detection"))?)
        }
        (None, Some(correlation)) => {
            Detects::Correlation(self::correlation(correlation).map_err(|fault| fault.at("correlation"))?)
        }
        (Some(_), Some(_)) => {
            return Err(Fault::new("has both a detection and a correlation: write two documents"));
        }
        (None, None) => return Err(Fault::new("has neither a detection nor a correlation nor a filter")),
    };
    Ok(Document { header, detects })
}

fn section<'a>(map: &'a Mapping, key: &str) -> Result<Option<&'a Mapping>, Fault> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::Mapping(section)) => Ok(Some(section)),
        Some(_) => Err(Fault::new("is not a map").at(key)),
    }
}

fn logsource(logsource: Option<&Mapping>) -> Result<(), Fault> {
    const EXPECTED: &str = "rules must be for logsource product: kubernetes, service: audit";
    let logsource = logsource.ok_or_else(|| Fault::new(format!("has no logsource; {EXPECTED}")))?;
    for (key, expected) in [("product", "kubernetes"), ("service", "audit")] {
        let found = logsource.get(key).and_then(Value::as_str).unwrap_or("absent");
        if !found.eq_ignore_ascii_case(expected) {
            return Err(Fault::new(format!("{key} is {found}; {EXPECTED}")).at(key).at("logsource"));
        }
    }
    Ok(())
}

fn header(file: &str, line: usize, map: &Mapping) -> Result<RuleHeader, Fault> {
    let text = |key: &str| optional_text(map, key);
    let title = text("title")?.ok_or_else(|| Fault::new("has no title"))?;
    let severity = severity(map, "level")?.unwrap_or(Severity::Medium);
    let common = section(map, "common")?.map(|common| self::common(common, severity));
    let common = common.transpose().map_err(|fault| fault.at("common"))?;
    let template = |key: &str, text: &str| Template::parse(text).map_err(|error| Fault::new(error).at(key));
    let message = text("message")?.map(|text| template("message", &text)).transpose()?;
    let next_steps = text("next_steps")?.unwrap_or_default().trim().to_owned();
    let (mut tactics, mut techniques) = (Vec::new(), Vec::new());
    for tag in texts(map, "tags")? {
        let Some(attack) = tag.strip_prefix("attack.") else { continue };
        let technique = attack
            .strip_prefix(['t', 'T'])
            .is_some_and(|id| !id.is_empty() && id.chars().all(|c| c.is_ascii_digit() || c == '.'));
        if technique {
            techniques.push(attack.to_ascii_uppercase());
        } else {
            tactics.push(attack.replace('_', "-"));
        }
    }
    let hipaa = texts(map, "hipaa")?;
    if let Some(wrong) = hipaa.iter().find(|safeguard| !is_safeguard(safeguard)) {
        let message = format!("\"{wrong}\" is not a safeguard of 45 CFR part 164 such as 164.312(b)");
        return Err(Fault::new(message).at("hipaa"));
    }
    let runbook: Vec<String> = texts(map, "runbook")?.iter().map(|text| text.trim().to_owned()).collect();
    if runbook.len() > RUNBOOK_MAX || runbook.iter().any(String::is_empty) {
        let message = format!("has an empty query, or more than {RUNBOOK_MAX} queries");
        return Err(Fault::new(message).at("runbook"));
    }
    let runbook_templates =
        runbook.iter().map(|text| template("runbook", text)).collect::<Result<Vec<_>, _>>()?;
    Ok(RuleHeader {
        file: file.to_owned(),
        line,
        text: String::new(),
        id: text("id")?,
        name: text("name")?,
        title,
        description: text("description")?.unwrap_or_default().trim().to_owned(),
        severity,
        common,
        tactics,
        techniques,
        next_steps_template: template("next_steps", &next_steps)?,
        next_steps,
        false_positives: texts(map, "falsepositives")?,
        hipaa,
        runbook,
        runbook_templates,
        message,
    })
}

fn severity(map: &Mapping, key: &str) -> Result<Option<Severity>, Fault> {
    let level = optional_text(map, key)?.map(|level| level.parse());
    level.transpose().map_err(|error| Fault::new(format!("{error}")).at(key))
}

/// Reads the number of alerts after which a rule's alerts are common, and the level they then get.
fn common(map: &Mapping, severity: Severity) -> Result<Common, Fault> {
    only(map, &["alerts", "timespan", "level"])?;
    let alerts = map.get("alerts").and_then(Value::as_u64).and_then(|alerts| usize::try_from(alerts).ok());
    let alerts = alerts.filter(|alerts| (1..=ALERTS_MAX).contains(alerts));
    let alerts = alerts
        .ok_or_else(|| Fault::new(format!("is not a whole number from 1 to {ALERTS_MAX}")).at("alerts"))?;
    let timespan = optional_text(map, "timespan")?.ok_or_else(|| Fault::new("has no timespan"))?;
    let timespan_us = timespan_us(&timespan).map_err(|fault| fault.at("timespan"))?;
    let level = self::severity(map, "level")?.ok_or_else(|| Fault::new("has no level"))?;
    if level >= severity {
        return Err(Fault::new(format!("{level} is not below {severity}, the level of the rule")).at("level"));
    }
    Ok(Common { alerts, timespan_us, level })
}

/// Returns true if a text is a reference to a section of 45 CFR part 164 or to a paragraph of it.
/// After the three digits of the section come at most four levels of paragraphs, always in this
/// order: a small letter, a number, a small Roman numeral, a capital letter.
fn is_safeguard(text: &str) -> bool {
    let Some((section, paragraphs)) = text.strip_prefix("164.").and_then(|rest| rest.split_at_checked(3))
    else {
        return false;
    };
    let levels: [fn(char) -> bool; 4] = [
        |c| c.is_ascii_lowercase(),
        |c| c.is_ascii_digit(),
        |c| matches!(c, 'i' | 'v' | 'x'),
        |c| c.is_ascii_uppercase(),
    ];
    let mut rest = paragraphs;
    for (level, allowed) in levels.into_iter().enumerate() {
        if rest.is_empty() {
            break;
        }
        let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
            return false;
        };
        let long = name.len() > 1 && level % 3 == 0;
        if name.is_empty() || long || !name.chars().all(allowed) {
            return false;
        }
        rest = after;
    }
    rest.is_empty() && section.bytes().all(|b| b.is_ascii_digit())
}

fn optional_text(map: &Mapping, key: &str) -> Result<Option<String>, Fault> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Fault::new("is not text").at(key)),
    }
}

/// Returns an attribute that is a text or a list of texts; empty if it is absent.
fn texts(map: &Mapping, key: &str) -> Result<Vec<String>, Fault> {
    let wrong = || Fault::new("is not a list of texts").at(key);
    match map.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Sequence(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

const CORRELATION_KEYS: [&str; 11] = [
    "type",
    "rules",
    "group-by",
    "timespan",
    "condition",
    "aliases",
    "generate",
    "lateness",
    "learning",
    "learning_level",
    "across_clusters",
];
const CORRELATION_TYPES: &str =
    "event_count, value_count, temporal, temporal_ordered, first_seen, baseline, unfinished";
/// Minimum and maximum number of rules that a temporal correlation joins.
const TEMPORAL_RULES: std::ops::RangeInclusive<usize> = 2..=32;
/// How long a group must have been known before a value can be new to it, unless the rule sets
/// `learning`.
const LEARNING: &str = "7d";
/// Fields that are the same at every stage of a request. The impersonated user is not one of them:
/// it is not known when the request is received.
const REQUEST_FIELDS: [&str; 6] =
    ["auditID", "cluster", "requestReceivedTimestamp", "requestURI", "user.username", "verb"];
/// Number of active hours that a baseline needs, unless the rule sets `min_history`.
const HISTORY_MIN: u64 = 24;

fn filter(map: &Mapping) -> Result<FilterDocument, Fault> {
    let rules = texts(map, "rules")?;
    if rules.is_empty() {
        return Err(Fault::new("names no rules").at("rules"));
    }
    let mut detection = map.clone();
    detection.remove("rules");
    Ok(FilterDocument { rules, condition: detection::parse_filter(&detection)? })
}

fn correlation(map: &Mapping) -> Result<CorrelationDocument, Fault> {
    for key in map.keys() {
        let key = key.as_str().unwrap_or("that is not text");
        if !CORRELATION_KEYS.contains(&key) {
            let known = CORRELATION_KEYS.join(", ");
            return Err(Fault::new(format!("key {key} is not one of {known}")).at(key));
        }
    }
    let kind = optional_text(map, "type")?.ok_or_else(|| Fault::new("has no type"))?;
    let rules = texts(map, "rules")?;
    if rules.is_empty() {
        return Err(Fault::new("names no rules"));
    }
    let timespan = optional_text(map, "timespan")?.ok_or_else(|| Fault::new("has no timespan"))?;
    let timespan_us = timespan_us(&timespan).map_err(|fault| fault.at("timespan"))?;
    let lateness_us = match optional_text(map, "lateness")? {
        None => 0,
        Some(text) => self::timespan_us(&text).map_err(|fault| fault.at("lateness"))?,
    };
    if lateness_us > i64::try_from(LATENESS_MAX.as_micros()).expect("an hour of microseconds") {
        let longest = LATENESS_MAX.as_secs() / 60;
        return Err(Fault::new(format!("is longer than {longest}m")).at("lateness"));
    }
    for key in ["learning", "learning_level"] {
        if map.contains_key(key) && kind != "first_seen" {
            return Err(Fault::new("only first_seen learns").at(key));
        }
    }
    let flag = |name: &'static str| match map.get(name) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| Fault::new("is not true or false").at(name)),
    };
    let generate = flag("generate")?;
    let across_clusters = flag("across_clusters")?;
    let condition = match map.get("condition") {
        None => None,
        Some(Value::Mapping(condition)) => Some(condition),
        Some(_) => return Err(Fault::new("is not a map such as gte: 10").at("condition")),
    };
    let needed = || condition.ok_or_else(|| Fault::new("has no condition, such as gte: 10"));
    let fields = |condition: &Mapping| texts(condition, "field").map_err(|fault| fault.at("condition"));
    let in_condition = |fault: Fault| fault.at("condition");
    let (measure, fields, bounds) = match kind.as_str() {
        "event_count" if !fields(needed()?)?.is_empty() => {
            return Err(Fault::new("event_count counts events and takes no field").at("field"));
        }
        "event_count" => (Measure::Events, Vec::new(), bounds(needed()?).map_err(in_condition)?),
        "value_count" if fields(needed()?)?.is_empty() => {
            return Err(Fault::new("value_count needs the field whose values it counts").at("condition"));
        }
        "value_count" => (Measure::Values, fields(needed()?)?, bounds(needed()?).map_err(in_condition)?),
        "temporal" | "temporal_ordered" => {
            if condition.is_some() {
                let message = format!("{kind} matches all of its rules and takes no condition");
                return Err(Fault::new(message).at("condition"));
            }
            if !TEMPORAL_RULES.contains(&rules.len()) {
                let (least, most) = (TEMPORAL_RULES.start(), TEMPORAL_RULES.end());
                return Err(Fault::new(format!("{kind} joins {least} to {most} rules")).at("rules"));
            }
            let measure = if kind == "temporal" { Measure::Rules } else { Measure::RulesInOrder };
            (measure, Vec::new(), Vec::new())
        }
        "first_seen" => {
            let condition = needed()?;
            only(condition, &["field"]).map_err(in_condition)?;
            let fields = fields(condition)?;
            if fields.is_empty() {
                return Err(Fault::new("first_seen needs a field: it alerts on new values of that field")
                    .at("condition"));
            }
            let learning = optional_text(map, "learning")?;
            let learning_us = match &learning {
                Some(text) => self::timespan_us(text).map_err(|fault| fault.at("learning"))?,
                None => self::timespan_us(LEARNING)?.min(timespan_us),
            };
            if learning_us > timespan_us {
                return Err(Fault::new(format!("is longer than the timespan {timespan}")).at("learning"));
            }
            let learning_level = severity(map, "learning_level")?;
            (Measure::FirstSeen { learning_us, learning_level }, fields, Vec::new())
        }
        "unfinished" => {
            let bounds = match condition {
                None => vec![Bound::AtLeast(1)],
                Some(condition) => {
                    only(condition, &["gt", "gte"]).map_err(in_condition)?;
                    bounds(condition).map_err(in_condition)?
                }
            };
            (Measure::Unfinished, REQUEST_FIELDS.map(str::to_owned).to_vec(), bounds)
        }
        "baseline" => {
            let measure = baseline(needed()?, timespan_us).map_err(in_condition)?;
            (measure, Vec::new(), Vec::new())
        }
        other => {
            return Err(Fault::new(format!("type {other} is not one of {CORRELATION_TYPES}")).at("type"));
        }
    };
    let closes =
        measure == Measure::Unfinished || bounds.iter().any(|bound| !matches!(bound, Bound::AtLeast(_)));
    if closes && lateness_us > 0 {
        let message =
            "cannot be set for unfinished or for a rule with an upper bound: both have a fixed lateness";
        return Err(Fault::new(message).at("lateness"));
    }
    Ok(CorrelationDocument {
        measure,
        fields,
        rules,
        group_by: texts(map, "group-by")?,
        across_clusters,
        aliases: aliases(map)?,
        timespan_us,
        lateness_us,
        bounds,
        generate,
    })
}

fn only(map: &Mapping, known: &[&str]) -> Result<(), Fault> {
    for key in map.keys() {
        let key = key.as_str().unwrap_or("that is not text");
        if !known.contains(&key) {
            return Err(Fault::new(format!("key {key} is not one of {}", known.join(", "))).at(key));
        }
    }
    Ok(())
}

fn baseline(condition: &Mapping, timespan_us: i64) -> Result<Measure, Fault> {
    only(condition, &["floor", "factor", "min_history"])?;
    if timespan_us < 24 * HOUR_US {
        return Err(Fault::new("a baseline needs a timespan of at least 1d"));
    }
    let number = |key: &str, least: u64, most: u64| match condition.get(key) {
        None => Ok(None),
        Some(value) => {
            let number = value.as_u64().filter(|number| (least..=most).contains(number));
            let message = || Fault::new(format!("is not a whole number from {least} to {most}")).at(key);
            number.map(Some).ok_or_else(message)
        }
    };
    let floor = number("floor", 1, 1_000_000_000)?
        .ok_or_else(|| Fault::new("has no floor: the count below which an hour never alerts"))?;
    let factor = condition.get("factor").ok_or_else(|| Fault::new("has no factor"))?;
    let factor = factor.as_f64().filter(|factor| (1.0..=1000.0).contains(factor));
    let factor = factor.ok_or_else(|| Fault::new("is not a number from 1 to 1000").at("factor"))?;
    let hours = u64::try_from(timespan_us / HOUR_US).unwrap_or(u64::MAX);
    let history_min = number("min_history", 1, hours)?.unwrap_or(HISTORY_MIN.min(hours));
    Ok(Measure::Baseline {
        floor: u32::try_from(floor).unwrap_or(u32::MAX),
        factor_thousandths: (factor * 1000.0) as u64,
        history_min: usize::try_from(history_min).unwrap_or(usize::MAX),
    })
}

/// Microseconds in an hour.
const HOUR_US: i64 = 3_600_000_000;

fn aliases(map: &Mapping) -> Result<BTreeMap<String, BTreeMap<String, String>>, Fault> {
    let wrong = || Fault::new("is not a map from each alias to a map from rules to fields").at("aliases");
    let mut aliases = BTreeMap::new();
    for (alias, fields) in section(map, "aliases")?.into_iter().flatten() {
        let mut by_rule = BTreeMap::new();
        for (rule, field) in fields.as_mapping().ok_or_else(wrong)? {
            by_rule.insert(
                rule.as_str().ok_or_else(wrong)?.to_owned(),
                field.as_str().ok_or_else(wrong)?.to_owned(),
            );
        }
        aliases.insert(alias.as_str().ok_or_else(wrong)?.to_owned(), by_rule);
    }
    Ok(aliases)
}

fn timespan_us(text: &str) -> Result<i64, Fault> {
    let wrong = || Fault::new(format!("\"{text}\" is not a number followed by s, m, h or d"));
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let longest = i64::try_from(TIMESPAN_MAX.as_micros()).expect("31 days of microseconds");
    match number.checked_mul(seconds * 1_000_000) {
        Some(span) if span > 0 && span <= longest => Ok(span),
        _ => Err(Fault::new(format!("{text} is not between 1s and {}d", TIMESPAN_MAX.as_secs() / 86_400))),
    }
}

fn bounds(condition: &Mapping) -> Result<Vec<Bound>, Fault> {
    let mut bounds = Vec::new();
    for (key, value) in condition {
        let key = key.as_str().unwrap_or("that is not text");
        if key == "field" {
            continue;
        }
        let number = value.as_u64().filter(|number| *number <= THRESHOLD_MAX);
        let number = number
            .ok_or_else(|| Fault::new(format!("is not a whole number up to {THRESHOLD_MAX}")).at(key))?;
        bounds.push(match key {
            "gt" => Bound::AtLeast(number + 1),
            "gte" => Bound::AtLeast(number),
            "lt" => Bound::AtMost(number.checked_sub(1).ok_or_else(|| Fault::new("is never true").at(key))?),
            "lte" => Bound::AtMost(number),
            "eq" => Bound::Exactly(number),
            other => {
                return Err(Fault::new(format!("key {other} is not one of gt, gte, lt, lte, eq")).at(other));
            }
        });
    }
    if bounds.is_empty() { Err(Fault::new("has none of gt, gte, lt, lte, eq")) } else { Ok(bounds) }
}
