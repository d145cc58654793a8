//! Documents to rules: names, and correlations tied to the rules they count.
//!
//! Invariant: names and ids are unique in a set, every correlation's rules exist and look at single
//! events, and the fields it groups by are ones that an alert may carry.

use std::collections::HashMap;
use std::path::Path;

use crate::error::RuleError;
use crate::expr::Expr;
use crate::fields::{self, Field};
use crate::parse::{CorrelationDocument, Detects, Document, FilterDocument, Head};
use crate::rule::{Base, Correlation, EventRule, Measure, RuleInfo, RuleKind};

/// Rules that belong together, ready to compile.
pub(crate) struct Linked {
    pub(crate) infos: Vec<RuleInfo>,
    pub(crate) events: Vec<EventRule>,
    pub(crate) correlations: Vec<Correlation>,
}

pub(crate) fn link(documents: Vec<Document>) -> Result<Linked, RuleError> {
    let (filters, documents): (Vec<Document>, Vec<Document>) =
        documents.into_iter().partition(|document| matches!(document.detects, Detects::Filter(_)));
    let names = names_of(&documents)?;
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (at, (document, name)) in documents.iter().zip(&names).enumerate() {
        let id = document.head.id.as_deref().filter(|id| id != name);
        for key in [Some(name.as_str()), id].into_iter().flatten() {
            if let Some(earlier) = by_name.insert(key, at) {
                let head = &documents[earlier].head;
                return Err(wrong(
                    &document.head,
                    format!("\"{key}\" is also the name or id of the rule at {}:{}", head.file, head.line),
                ));
            }
        }
    }

    let mut exceptions: HashMap<usize, Vec<Expr>> = HashMap::new();
    for Document { head, detects } in filters {
        let Detects::Filter(FilterDocument { rules, condition }) = detects else { continue };
        for rule in rules {
            let Some(&at) = by_name.get(rule.as_str()) else {
                return Err(wrong(
                    &head,
                    format!("filter: no rule has the name or id \"{rule}\" that it filters"),
                ));
            };
            if !matches!(documents[at].detects, Detects::Event(_)) {
                return Err(wrong(
                    &head,
                    format!("filters \"{rule}\", a correlation: filter the rules that feed it"),
                ));
            }
            exceptions.entry(at).or_default().push(condition.clone());
        }
    }

    let mut feeds_only = vec![false; documents.len()];
    let mut correlations = Vec::new();
    let mut wants_own_alert = vec![false; documents.len()];
    for (at, document) in documents.iter().enumerate() {
        let Detects::Correlation(correlation) = &document.detects else { continue };
        let linked = linked_correlation(at, &document.head, correlation, &documents, &by_name)?;
        for base in &linked.bases {
            feeds_only[base.rule] = true;
            wants_own_alert[base.rule] |= correlation.generate;
        }
        correlations.push(linked);
    }

    let mut events = Vec::new();
    let mut infos = Vec::with_capacity(documents.len());
    for (at, (document, name)) in documents.into_iter().zip(names).enumerate() {
        let Document { head, detects } = document;
        let kind = match &detects {
            Detects::Event(_) => RuleKind::Event,
            Detects::Correlation(correlation) => match correlation.measure {
                Measure::Events => RuleKind::EventCount,
                Measure::Values => RuleKind::ValueCount,
                Measure::Rules => RuleKind::Temporal,
                Measure::RulesInOrder => RuleKind::TemporalOrdered,
                Measure::FirstSeen { .. } => RuleKind::FirstSeen,
                Measure::Baseline { .. } => RuleKind::Baseline,
            },
            Detects::Filter(_) => unreachable!("filters were taken out"),
        };
        if let Detects::Event(condition) = detects {
            let condition = match exceptions.remove(&at) {
                None => condition,
                Some(mut also) => {
                    also.insert(0, condition);
                    Expr::All(also)
                }
            };
            events.push(EventRule {
                info: at,
                condition,
                message: head.message,
                next_steps: head.next_steps_template,
                runbook: head.runbook_templates,
            });
        }
        infos.push(RuleInfo {
            id: head.id.unwrap_or_else(|| name.clone()),
            name,
            title: head.title,
            description: head.description,
            severity: head.severity,
            kind,
            alerts: !feeds_only[at] || wants_own_alert[at],
            tactics: head.tactics,
            techniques: head.techniques,
            next_steps: head.next_steps,
            false_positives: head.false_positives,
            hipaa: head.hipaa,
            runbook: head.runbook,
            text: head.text,
            file: head.file,
            line: head.line,
        });
    }
    for correlation in &mut correlations {
        let bases = correlation.bases.iter().map(|base| {
            let found = events.iter().find(|event: &&EventRule| event.info == base.rule);
            (found.map(|event| &event.condition), &base.group_by, &base.values)
        });
        let bases: Vec<_> = bases.collect();
        let Correlation { group_by, value_names, measure, timespan_us, lateness_us, bounds, .. } =
            correlation;
        let id = &infos[correlation.info].id;
        let said = format!(
            "{id:?}{bases:?}{group_by:?}{value_names:?}{measure:?}{timespan_us}/{lateness_us}{bounds:?}"
        );
        let hash = blake3::hash(said.as_bytes());
        correlation.key = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"));
    }
    Ok(Linked { infos, events, correlations })
}

fn wrong(head: &Head, message: String) -> RuleError {
    RuleError::Rule { file: head.file.clone(), line: head.line, rule: head.title.clone(), message }
}

/// A rule's own name, or its file's stem for the one document of a file that has none.
fn names_of(documents: &[Document]) -> Result<Vec<String>, RuleError> {
    let mut stems: HashMap<&str, &Head> = HashMap::new();
    documents
        .iter()
        .map(|Document { head, .. }| match &head.name {
            Some(name) => Ok(name.clone()),
            None => {
                if let Some(first) = stems.insert(&head.file, head) {
                    return Err(wrong(
                        head,
                        format!(
                            "needs a name: the document at line {} already goes by the file's",
                            first.line
                        ),
                    ));
                }
                let stem = Path::new(&head.file).file_stem().and_then(|stem| stem.to_str());
                Ok(stem.unwrap_or(&head.file).to_owned())
            }
        })
        .collect()
}

fn linked_correlation(
    info: usize,
    head: &Head,
    correlation: &CorrelationDocument,
    documents: &[Document],
    by_name: &HashMap<&str, usize>,
) -> Result<Correlation, RuleError> {
    let mut bases = Vec::new();
    for rule in &correlation.rules {
        let Some(&at) = by_name.get(rule.as_str()) else {
            return Err(wrong(head, format!("no rule has the name or id \"{rule}\" that it counts")));
        };
        if matches!(documents[at].detects, Detects::Correlation(_)) {
            return Err(wrong(
                head,
                format!("counts \"{rule}\", a correlation: only rules over events can be counted"),
            ));
        }
        if bases.iter().any(|base: &Base| base.rule == at) {
            return Err(wrong(head, format!("counts \"{rule}\" twice")));
        }
        let resolved = |names: &[String]| -> Result<Vec<Field>, RuleError> {
            names.iter().map(|name| carried(head, correlation, rule, name)).collect()
        };
        bases.push(Base {
            rule: at,
            group_by: resolved(&correlation.group_by)?,
            values: resolved(&correlation.fields)?,
        });
    }
    Ok(Correlation {
        info,
        key: 0,
        bases,
        group_by: correlation.group_by.clone(),
        value_names: correlation.fields.clone(),
        measure: correlation.measure,
        timespan_us: correlation.timespan_us,
        lateness_us: correlation.lateness_us,
        bounds: correlation.bounds.clone(),
        message: head.message.clone(),
        next_steps: head.next_steps_template.clone(),
        runbook: head.runbook_templates.clone(),
    })
}

/// The field that a name of `group-by` stands for in events of one base rule.
fn carried(
    head: &Head,
    correlation: &CorrelationDocument,
    rule: &str,
    name: &str,
) -> Result<Field, RuleError> {
    let name = match correlation.aliases.get(name) {
        None => name,
        Some(fields) => match fields.get(rule) {
            Some(field) => field,
            None => return Err(wrong(head, format!("alias \"{name}\" has no field for rule \"{rule}\""))),
        },
    };
    let field = fields::resolve(name).map_err(|error| wrong(head, error.to_string()))?;
    match field.is_body() {
        true => Err(wrong(head, format!("\"{name}\" is part of a body, which an alert does not carry"))),
        false => Ok(field),
    }
}
