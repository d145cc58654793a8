//! Links documents to rules: checks that names are unique, and binds correlations to the rules that
//! they count.
//!
//! Invariant: names and ids are unique in a set. The rules that a correlation names exist, and are
//! rules over single events. The fields that a correlation groups by or counts are not part of a
//! body, so an alert may contain them. No state.

use std::collections::HashMap;
use std::path::Path;

use strongroom_schemas::Outcome;

use crate::detection;
use crate::error::RuleError;
use crate::expr::Expr;
use crate::fields::{self, Field};
use crate::outcome;
use crate::parse::{CorrelationDocument, Detects, Document, FilterDocument, RuleHeader};
use crate::rule::{Base, Correlation, EventRule, GRAVE, Measure, RuleInfo, RuleKind};

/// The linked rules of a set, ready to compile.
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
        let id = document.header.id.as_deref().filter(|id| id != name);
        for key in [Some(name.as_str()), id].into_iter().flatten() {
            if let Some(earlier) = by_name.insert(key, at) {
                let header = &documents[earlier].header;
                return Err(wrong(
                    &document.header,
                    format!(
                        "\"{key}\" is also the name or id of the rule at {}:{}",
                        header.file, header.line
                    ),
                ));
            }
        }
    }

    let mut exceptions: HashMap<usize, Vec<Expr>> = HashMap::new();
    for Document { header, detects } in filters {
        let Detects::Filter(FilterDocument { rules, condition }) = detects else { continue };
        for rule in rules {
            let Some(&at) = by_name.get(rule.as_str()) else {
                return Err(wrong(
                    &header,
                    format!("filter: no rule has the name or id \"{rule}\" that it filters"),
                ));
            };
            if !matches!(documents[at].detects, Detects::Event(_)) {
                return Err(wrong(
                    &header,
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
        let linked = linked_correlation(at, &document.header, correlation, &documents, &by_name)?;
        for base in &linked.bases {
            feeds_only[base.rule] = true;
            wants_own_alert[base.rule] |= correlation.generate;
        }
        correlations.push(linked);
    }

    let mut events = Vec::new();
    let mut infos = Vec::with_capacity(documents.len());
    for (at, (document, name)) in documents.into_iter().zip(names).enumerate() {
        let Document { header, detects } = document;
        let kind = match &detects {
            Detects::Event(_) => RuleKind::Event,
            Detects::Correlation(correlation) => match correlation.measure {
                Measure::Events => RuleKind::EventCount,
                Measure::Values => RuleKind::ValueCount,
                Measure::Rules => RuleKind::Temporal,
                Measure::RulesInOrder => RuleKind::TemporalOrdered,
                Measure::FirstSeen { .. } => RuleKind::FirstSeen,
                Measure::Baseline { .. } => RuleKind::Baseline,
                Measure::Unfinished => RuleKind::Unfinished,
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
                names_outcome: outcome::is_named(&condition),
                takes_unknown: false,
                condition,
                message: header.message,
                next_steps: header.next_steps_template,
                runbook: header.runbook_templates,
            });
        }
        infos.push(RuleInfo {
            id: header.id.unwrap_or_else(|| name.clone()),
            name,
            title: header.title,
            description: header.description,
            severity: header.severity,
            common: header.common,
            kind,
            alerts: !feeds_only[at] || wants_own_alert[at],
            tactics: header.tactics,
            techniques: header.techniques,
            next_steps: header.next_steps,
            false_positives: header.false_positives,
            hipaa: header.hipaa,
            runbook: header.runbook,
            text: header.text,
            file: header.file,
            line: header.line,
        });
    }
    for rule in &mut events {
        let grave = |info: usize| infos[info].severity >= GRAVE;
        let feeds_grave = correlations.iter().any(|correlation| {
            grave(correlation.info) && correlation.bases.iter().any(|base| base.rule == rule.info)
        });
        let alerts_gravely = infos[rule.info].alerts && grave(rule.info);
        if (alerts_gravely || feeds_grave) && outcome::asks(&rule.condition, Outcome::Success) {
            rule.condition = outcome::or_unknown(rule.condition.clone());
            rule.takes_unknown = true;
        }
    }
    for correlation in &mut correlations {
        let names_outcome =
            |base: &Base| events.iter().any(|rule: &EventRule| rule.info == base.rule && rule.names_outcome);
        correlation.names_outcome = correlation.bases.iter().any(names_outcome);
        let bases = correlation.bases.iter().map(|base| {
            let found = events.iter().find(|event: &&EventRule| event.info == base.rule);
            (found.map(|event| &event.condition), &base.group_by, &base.values)
        });
        let bases: Vec<_> = bases.collect();
        let Correlation {
            group_by,
            across_clusters,
            value_names,
            measure,
            timespan_us,
            lateness_us,
            bounds,
            ..
        } = correlation;
        let id = &infos[correlation.info].id;
        let content = format!(
            "{id:?}{bases:?}{group_by:?}{across_clusters}{value_names:?}{measure:?}{timespan_us}/{lateness_us}{bounds:?}"
        );
        let hash = blake3::hash(content.as_bytes());
        correlation.key = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"));
    }
    Ok(Linked { infos, events, correlations })
}

fn wrong(header: &RuleHeader, message: String) -> RuleError {
    RuleError::Rule { file: header.file.clone(), line: header.line, rule: header.title.clone(), message }
}

/// Returns the name of each document's rule. In each file, one document may lack a name; its rule
/// has the file's stem as its name.
pub(crate) fn names_of(documents: &[Document]) -> Result<Vec<String>, RuleError> {
    let mut stems: HashMap<&str, &RuleHeader> = HashMap::new();
    documents
        .iter()
        .map(|Document { header, .. }| match &header.name {
            Some(name) => Ok(name.clone()),
            None => {
                if let Some(first) = stems.insert(&header.file, header) {
                    return Err(wrong(
                        header,
                        format!(
                            "needs a name: the document at line {} already has the file's name",
                            first.line
                        ),
                    ));
                }
                let stem = Path::new(&header.file).file_stem().and_then(|stem| stem.to_str());
                Ok(stem.unwrap_or(&header.file).to_owned())
            }
        })
        .collect()
}

fn linked_correlation(
    info: usize,
    header: &RuleHeader,
    correlation: &CorrelationDocument,
    documents: &[Document],
    by_name: &HashMap<&str, usize>,
) -> Result<Correlation, RuleError> {
    let mut bases = Vec::new();
    for rule in &correlation.rules {
        let Some(&at) = by_name.get(rule.as_str()) else {
            return Err(wrong(header, format!("no rule has the name or id \"{rule}\" that it counts")));
        };
        if matches!(documents[at].detects, Detects::Correlation(_)) {
            return Err(wrong(
                header,
                format!("counts \"{rule}\", a correlation: only rules over events can be counted"),
            ));
        }
        if let Detects::Event(condition) = &documents[at].detects
            && correlation.measure == Measure::Unfinished
            && detection::ignores_received(condition)
        {
            let message = format!("\"{rule}\" does not name stage, so it sees no request arrive");
            return Err(wrong(header, message));
        }
        if bases.iter().any(|base: &Base| base.rule == at) {
            return Err(wrong(header, format!("counts \"{rule}\" twice")));
        }
        let resolved = |names: &[String]| -> Result<Vec<Field>, RuleError> {
            names.iter().map(|name| carried(header, correlation, rule, name)).collect()
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
        across_clusters: correlation.across_clusters,
        value_names: correlation.fields.clone(),
        measure: correlation.measure,
        timespan_us: correlation.timespan_us,
        lateness_us: correlation.lateness_us,
        bounds: correlation.bounds.clone(),
        names_outcome: false,
        message: header.message.clone(),
        next_steps: header.next_steps_template.clone(),
        runbook: header.runbook_templates.clone(),
    })
}

/// Returns the field that `name` stands for in the events of one base rule; `name` is a field or an
/// alias. The field must not be part of a body, because alerts contain its value.
fn carried(
    header: &RuleHeader,
    correlation: &CorrelationDocument,
    rule: &str,
    name: &str,
) -> Result<Field, RuleError> {
    let name = match correlation.aliases.get(name) {
        None => name,
        Some(fields) => match fields.get(rule) {
            Some(field) => field,
            None => return Err(wrong(header, format!("alias \"{name}\" has no field for rule \"{rule}\""))),
        },
    };
    let field = fields::resolve(name).map_err(|error| wrong(header, error.to_string()))?;
    if field.is_body() {
        return Err(wrong(header, format!("\"{name}\" is part of a body, which an alert does not carry")));
    }
    Ok(field)
}
