//! Compiles rules to a program: leaves that all rules share, and columns whose values exclude rules
//! early.
//!
//! Terms. A *leaf* is a single test in a condition, such as a field compared with values. A *gate*
//! is a column whose values exclude rules early, see [`crate::gate`].
//!
//! Invariant: lines that compare the same field with the same values are one leaf, whichever rules
//! they are in. The result of a leaf is remembered for each distinct value of its column, so a
//! value is tested once per block, however many rules and rows need it. No state.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_schemas::events::index;

use crate::expr::{Comparison, Expr, Quantifier};
use crate::fields::{Body, Field};
use crate::pattern::Test;
use crate::rule::{Correlation, EventRule};

/// Columns with few distinct values, each of which excludes some rules. The excluded rules are
/// looked up before any rule is evaluated. The columns that exclude most rules come first.
const GATES: [Field; 16] = [
    Field::Column(index::RESOURCE),
    Field::Column(index::VERB),
    Field::Column(index::SUBRESOURCE),
    Field::Outcome,
    Field::Column(index::RESPONSE_CODE),
    Field::Actor,
    Field::Column(index::IMPERSONATED_USER_NAME),
    Field::Column(index::NAMESPACE),
    Field::Column(index::STAGE),
    Field::Column(index::USER_NAME),
    Field::Column(index::AUTHZ_DECISION),
    Field::Column(index::USER_AGENT),
    Field::SourceIp,
    Field::List(index::IMPERSONATED_USER_GROUPS),
    Field::List(index::USER_GROUPS),
    Field::DryRun,
];

/// Pairs of gates from which a combined gate is made as well. It is for a rule that needs a value
/// in the first or the second column, so neither column alone excludes the rule.
pub(crate) const PAIRS: [(Field, Field); 1] =
    [(Field::Column(index::IMPERSONATED_USER_NAME), Field::List(index::IMPERSONATED_USER_GROUPS))];

/// Number of rules that one mask of candidates has room for.
pub(crate) const RULES_A_MASK: usize = u128::BITS as usize;

/// A compiled condition.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// Position of a leaf in [`Program::leaves`].
    Leaf(usize),
}

impl Node {
    /// Returns the value of a condition when only some leaves are known (Kleene's logic); `None` if
    /// it depends on unknown leaves.
    pub(crate) fn value(&self, leaf: &mut impl FnMut(usize) -> Option<bool>) -> Option<bool> {
        match self {
            Node::Leaf(at) => leaf(*at),
            Node::Not(node) => node.value(leaf).map(|value| !value),
            Node::All(nodes) => decided(nodes, false, leaf),
            Node::Any(nodes) => decided(nodes, true, leaf),
        }
    }

    pub(crate) fn leaves(&self, see: &mut impl FnMut(usize)) {
        match self {
            Node::Leaf(at) => see(*at),
            Node::Not(node) => node.leaves(see),
            Node::All(nodes) | Node::Any(nodes) => nodes.iter().for_each(|node| node.leaves(see)),
        }
    }
}

/// Returns `by` if at least one node has the value `by`, `!by` if all nodes have the value `!by`,
/// and `None` if the value depends on unknown leaves.
fn decided(nodes: &[Node], by: bool, leaf: &mut impl FnMut(usize) -> Option<bool>) -> Option<bool> {
    let mut value = Some(!by);
    for node in nodes {
        match node.value(leaf) {
            Some(found) if found == by => return Some(by),
            Some(_) => {}
            None => value = None,
        }
    }
    value
}

/// The test of a leaf.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Test(Field, Arc<Test>),
    Compare(Field, Comparison, Field),
    Scope(Field, Quantifier, Expr),
    Keyword(Arc<Test>),
}

impl Question {
    /// Returns true if the question is about the object in the request body.
    fn reads_object(&self) -> bool {
        let reads = |field: &Field| {
            matches!(field, Field::Body(Body::Request, _) | Field::Pod(_) | Field::BindsItself)
        };
        match self {
            Question::Test(field, _) | Question::Scope(field, ..) => reads(field),
            Question::Compare(left, _, right) => reads(left) || reads(right),
            Question::Keyword(_) => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) question: Question,
    /// True if the leaf needs a body, so that it is evaluated only when the leaves without a body
    /// do not decide the rule.
    pub(crate) deferred: bool,
    cost: u8,
}

impl Leaf {
    fn of(question: Question) -> Leaf {
        let cost = match &question {
            Question::Keyword(_) => COST_BODY + 1,
            Question::Test(field, _) | Question::Scope(field, ..) => cost_of(field),
            Question::Compare(left, _, right) => cost_of(left).max(cost_of(right)),
        };
        Leaf { question, deferred: cost >= COST_BODY, cost }
    }
}

const COST_BODY: u8 = 4;

fn cost_of(field: &Field) -> u8 {
    match field {
        Field::Column(_)
        | Field::Actor
        | Field::SourceIp
        | Field::Outcome
        | Field::DryRun
        | Field::Creates
        | Field::Element(_) => 0,
        Field::List(_) => 1,
        Field::Time(_) | Field::Client => 2,
        Field::Json(..) => 3,
        Field::Body(..)
        | Field::Pod(_)
        | Field::Examined
        | Field::Partial
        | Field::Removed
        | Field::BindsItself
        | Field::Exec(_) => COST_BODY,
    }
}

/// A rule as the matcher runs it.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRule {
    /// Position of its [`crate::RuleInfo`].
    pub(crate) info: usize,
    pub(crate) node: Node,
    /// Leaves that read the object in the request body.
    pub(crate) object_leaves: Vec<usize>,
}

/// A column of [`GATES`] that at least one rule tests.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) field: Field,
    /// Leaves that test this field.
    pub(crate) leaves: Vec<usize>,
    /// Positions in [`Program::rules`] of the rules that have one of these leaves.
    pub(crate) rules: Vec<usize>,
}

/// All rules of a set, compiled.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) rules: Vec<CompiledRule>,
    pub(crate) gates: Vec<Gate>,
    /// For each base rule, the correlations that it feeds. Each correlation comes with the rule's
    /// position among the base rules of that correlation. The key is the position of the base
    /// rule's [`crate::RuleInfo`].
    pub(crate) feeds: HashMap<usize, Vec<(usize, usize)>>,
    /// Columns that leaves and correlations read. Columns that only alerts need are not among them.
    pub(crate) columns: Vec<usize>,
    /// Columns that are read by leaves that need no body.
    pub(crate) cheap_columns: Vec<usize>,
}

impl Program {
    /// Compiles rules, and those correlations that are `wanted`.
    pub(crate) fn compile(
        events: &[EventRule],
        correlations: &[Correlation],
        wanted: impl Fn(&Correlation) -> bool,
    ) -> Program {
        let mut leaves = Leaves::default();
        let nodes: Vec<(usize, Node)> =
            events.iter().map(|rule| (rule.info, leaves.node(&rule.condition))).collect();
        let leaves = leaves.leaves;
        let rules: Vec<CompiledRule> = nodes
            .into_iter()
            .map(|(info, node)| {
                let mut object_leaves = Vec::new();
                node.leaves(&mut |leaf| {
                    if leaves[leaf].question.reads_object() {
                        object_leaves.push(leaf);
                    }
                });
                CompiledRule { info, node, object_leaves }
            })
            .collect();

        let mut gates = Vec::new();
        for field in GATES {
            let on_field: Vec<usize> = leaves
                .iter()
                .enumerate()
                .filter(|(_, leaf)| matches!(&leaf.question, Question::Test(tested, _) if *tested == field))
                .map(|(at, _)| at)
                .collect();
            let mut gated = Vec::new();
            for (at, rule) in rules.iter().enumerate() {
                let mut depends = false;
                rule.node.leaves(&mut |leaf| depends |= on_field.contains(&leaf));
                if depends {
                    gated.push(at);
                }
            }
            if !gated.is_empty() {
                gates.push(Gate { field, leaves: on_field, rules: gated });
            }
        }

        let mut feeds: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
        let mut columns = Vec::new();
        for (at, correlation) in
            correlations.iter().enumerate().filter(|(_, correlation)| wanted(correlation))
        {
            for (base_at, base) in correlation.bases.iter().enumerate() {
                feeds.entry(base.rule).or_default().push((at, base_at));
                base.group_by.iter().chain(&base.values).for_each(|field| field.add_columns(&mut columns));
            }
        }
        let mut cheap_columns = Vec::new();
        for leaf in &leaves {
            let mut read = Vec::new();
            match &leaf.question {
                Question::Test(field, _) | Question::Scope(field, ..) => field.add_columns(&mut read),
                Question::Compare(left, _, right) => {
                    left.add_columns(&mut read);
                    right.add_columns(&mut read);
                }
                Question::Keyword(_) => read.extend(keyword_columns()),
            }
            if !leaf.deferred {
                cheap_columns.extend_from_slice(&read);
            }
            columns.append(&mut read);
        }
        for columns in [&mut columns, &mut cheap_columns] {
            columns.sort_unstable();
            columns.dedup();
        }
        Program { leaves, rules, gates, feeds, columns, cheap_columns }
    }
}

/// Returns the columns that are searched for keywords: all columns that are filled from members of
/// an event, except the resource version, which changes with every write.
pub(crate) fn keyword_columns() -> impl Iterator<Item = usize> {
    (index::AUDIT_ID..=index::ANNOTATIONS).filter(|at| *at != index::RESOURCE_VERSION)
}

/// The leaves compiled so far; equal tests share one leaf.
#[derive(Default)]
struct Leaves {
    leaves: Vec<Leaf>,
    by_key: HashMap<String, usize>,
}

impl Leaves {
    fn node(&mut self, expr: &Expr) -> Node {
        match expr {
            Expr::All(exprs) => Node::All(self.sorted(exprs)),
            Expr::Any(exprs) => Node::Any(self.sorted(exprs)),
            Expr::Not(expr) => Node::Not(Box::new(self.node(expr))),
            leaf => Node::Leaf(self.leaf(leaf)),
        }
    }

    /// Compiles the operands of an operator and sorts cheap ones first, because they often decide
    /// the result.
    fn sorted(&mut self, exprs: &[Expr]) -> Vec<Node> {
        let mut nodes: Vec<Node> = exprs.iter().map(|expr| self.node(expr)).collect();
        nodes.sort_by_key(|node| {
            let mut cost = 0;
            node.leaves(&mut |leaf| cost = cost.max(self.leaves[leaf].cost));
            cost
        });
        nodes
    }

    fn leaf(&mut self, expr: &Expr) -> usize {
        let key = format!("{expr:?}");
        if let Some(&at) = self.by_key.get(&key) {
            return at;
        }
        let question = match expr {
            Expr::Field(field, test) => Question::Test(field.clone(), Arc::clone(test)),
            Expr::Fields(left, comparison, right) => {
                Question::Compare(left.clone(), *comparison, right.clone())
            }
            Expr::Scope(field, quantifier, inner) => {
                Question::Scope(field.clone(), *quantifier, (**inner).clone())
            }
            Expr::Keyword(test) => Question::Keyword(Arc::clone(test)),
            Expr::All(_) | Expr::Any(_) | Expr::Not(_) => unreachable!("node() takes operators apart"),
        };
        self.leaves.push(Leaf::of(question));
        self.by_key.insert(key, self.leaves.len() - 1);
        self.leaves.len() - 1
    }
}
