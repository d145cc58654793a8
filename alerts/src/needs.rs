//! What an audit policy must write for a rule to be able to match.
//!
//! Invariant: the level is the least at which every field of a rule may be there. Resources and verbs are those
//! that a rule names in so many words: a hint for who writes the policy, no promise that there are no others.

use std::collections::BTreeSet;

use strongroom_schemas::Level;
use strongroom_schemas::events::index;

use crate::expr::Expr;
use crate::fields::{Body, Field};

/// What a rule needs of an audit policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The least level of the events that it looks at.
    pub level: Level,
    /// Resources that it names; any when empty.
    pub resources: Vec<String>,
    /// Verbs that it names; any when empty.
    pub verbs: Vec<String>,
}

impl Needs {
    pub(crate) fn of<'e>(conditions: impl Iterator<Item = &'e Expr>) -> Needs {
        let mut seen = Seen { level: Level::Metadata, resources: BTreeSet::new(), verbs: BTreeSet::new() };
        conditions.for_each(|condition| seen.expr(condition, false));
        let Seen { level, resources, verbs } = seen;
        Needs { level, resources: resources.into_iter().collect(), verbs: verbs.into_iter().collect() }
    }
}

struct Seen {
    level: Level,
    resources: BTreeSet<String>,
    verbs: BTreeSet<String>,
}

impl Seen {
    fn expr(&mut self, expr: &Expr, negated: bool) {
        match expr {
            Expr::All(exprs) | Expr::Any(exprs) => exprs.iter().for_each(|expr| self.expr(expr, negated)),
            Expr::Not(expr) => self.expr(expr, !negated),
            Expr::Field(field, test) => {
                self.field(field);
                let named = match field {
                    Field::Column(index::RESOURCE) => &mut self.resources,
                    Field::Column(index::VERB) => &mut self.verbs,
                    _ => return,
                };
                if !negated {
                    named.extend(test.exact().map(str::to_owned));
                }
            }
            Expr::Fields(left, _, right) => {
                self.field(left);
                self.field(right);
            }
            // Elements are below the field.
            Expr::Scope(field, ..) => self.field(field),
            Expr::Keyword(_) => {}
        }
    }

    fn field(&mut self, field: &Field) {
        let level = match field {
            Field::Body(Body::Response, _) => Level::RequestResponse,
            Field::Body(Body::Request, _) | Field::Pod(_) => Level::Request,
            _ => Level::Metadata,
        };
        self.level = self.level.max(level);
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
