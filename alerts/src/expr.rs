//! Conditions of rules as expressions, before they are compiled.
//!
//! Invariant: every field and every value in an [`Expr`] was checked when it was parsed, so
//! compiling and matching an expression cannot fail. No state: a crash changes nothing.

use std::sync::Arc;

use crate::fields::Field;
use crate::pattern::Test;

/// A boolean combination of leaves.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    /// A field compared with values.
    Field(Field, Arc<Test>),
    /// A field compared with another field of the same event.
    Fields(Field, Comparison, Field),
    /// The elements of an array, each evaluated alone, and how many of them must match.
    Scope(Field, Quantifier, Box<Expr>),
    /// A keyword, which may be in any value of the event.
    Keyword(Arc<Test>),
}

impl Expr {
    /// Calls `see` with each leaf, and with true for leaves below an odd number of negations.
    pub(crate) fn leaves<'e>(&'e self, see: &mut impl FnMut(&'e Expr, bool)) {
        self.leaves_below(false, see);
    }

    fn leaves_below<'e>(&'e self, negated: bool, see: &mut impl FnMut(&'e Expr, bool)) {
        match self {
            Expr::All(exprs) | Expr::Any(exprs) => {
                exprs.iter().for_each(|expr| expr.leaves_below(negated, see));
            }
            Expr::Not(expr) => expr.leaves_below(!negated, see),
            leaf => see(leaf, negated),
        }
    }

    /// Returns the fields that a leaf compares. Fields that a scope compares inside its elements
    /// are not among them.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field> {
        let (first, second) = match self {
            Expr::Field(field, _) | Expr::Scope(field, ..) => (Some(field), None),
            Expr::Fields(left, _, right) => (Some(left), Some(right)),
            Expr::All(_) | Expr::Any(_) | Expr::Not(_) | Expr::Keyword(_) => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// The comparison of a `fieldref`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Comparison {
    Equals,
    Contains,
    StartsWith,
    EndsWith,
}

/// How many elements of an array must match, written as in `field[any]:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Quantifier {
    Any,
    /// Every element; an empty array does not match.
    All,
    /// Every element; an empty array matches as well.
    AllOrEmpty,
    None,
}
