//! The events that an audit policy must record so that a rule can match.
//!
//! Invariant: the level is the lowest audit level at which every field of a rule can exist. The
//! resources and verbs are those that a rule names literally. They are a hint for the author of the
//! policy, not a complete list. No state.

use std::collections::BTreeSet;

use strongroom_schemas::Level;
use strongroom_schemas::events::index;

use crate::expr::Expr;
use crate::fields::{Body, Field};

/// The events that a rule needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The lowest level of the events that the rule can match.
    pub level: Level,
    /// Resources that the rule names; empty if it names none.
    pub resources: Vec<String>,
    /// Verbs that the rule names; empty if it names none.
    pub verbs: Vec<String>,
}

impl Needs {
    pub(crate) fn of<'e>(conditions: impl Iterator<Item = &'e Expr>) -> Needs {
        let mut mentioned =
            Mentioned { level: Level::Metadata, resources: BTreeSet::new(), verbs: BTreeSet::new() };
        conditions.for_each(|condition| condition.leaves(&mut |leaf, negated| mentioned.leaf(leaf, negated)));
        let Mentioned { level, resources, verbs } = mentioned;
        Needs { level, resources: resources.into_iter().collect(), verbs: verbs.into_iter().collect() }
    }
}

struct Mentioned {
    level: Level,
    resources: BTreeSet<String>,
    verbs: BTreeSet<String>,
}

impl Mentioned {
    /// Adds the level, resources and verbs that a leaf of a condition needs.
    fn leaf(&mut self, leaf: &Expr, negated: bool) {
        // The elements of a scope are present at the same levels as the field of the scope.
        for field in leaf.fields() {
            self.level = self.level.max(level(field));
        }
        let Expr::Field(field, test) = leaf else { return };
        let named = match field {
            Field::Column(index::RESOURCE) => &mut self.resources,
            Field::Column(index::VERB) => &mut self.verbs,
            _ => return,
        };
        if !negated {
            named.extend(test.exact().map(str::to_owned));
        }
    }
}

fn level(field: &Field) -> Level {
    match field {
        Field::Body(Body::Response, _) => Level::RequestResponse,
        Field::Body(Body::Request, _)
        | Field::Pod(_)
        | Field::Examined
        | Field::Partial
        | Field::Removed
        | Field::BindsItself => Level::Request,
        _ => Level::Metadata,
    }
}

#[cfg(test)]
mod tests {
    use strongroom_schemas::Level;

    use crate::RuleSet;

    #[test]
    fn a_rule_needs_the_bodies_that_it_looks_into() {
        let rule = |name: &str, lines: &str| {
            format!(
                "title: {name}\nname: {name}\nlogsource: {{product: kubernetes, service: audit}}\ndetection:\n  a: {{{lines}}}\n  b: {{verb: delete}}\n  condition: a and not b\n---\n"
            )
        };
        let text = [
            rule("m", "objectRef.resource: [secrets, configmaps], verb|startswith: g"),
            rule("q", "pod.hostNetwork: true, verb: create"),
            rule("r", "responseObject.kind: Status"),
            "title: c\nname: c\ncorrelation: {type: temporal, rules: [m, q], timespan: 5m}\n".to_owned(),
        ]
        .concat();
        let rules = RuleSet::from_yaml("r.yml", &text).unwrap();
        let needs: Vec<_> = (0..4).map(|at| rules.needs(at)).collect();
        assert_eq!(
            needs.iter().map(|needs| needs.level).collect::<Vec<_>>(),
            [Level::Metadata, Level::Request, Level::RequestResponse, Level::Request]
        );
        assert_eq!(needs[0].resources, ["configmaps", "secrets"]);
        assert_eq!(needs[0].verbs, [""; 0], "what is excluded is not needed");
        assert_eq!(needs[3].verbs, ["create"]);
        assert_eq!((rules.feeders(3), rules.feeders(0)), (vec![0, 1], vec![]));
    }
}
