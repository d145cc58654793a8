//! The fields that rules ask for and that a kind of log does not carry.
//!
//! Invariant: every field of a rule is counted, whatever the field does in the condition, and so is
//! every field by which a correlation groups or counts. Fields that a rule gets without naming them
//! (`stage`, `dry_run`) are not counted, because their absence is harmless. No state.

use std::collections::BTreeSet;

use strongroom_schemas::events::{self, index};

use crate::expr::Expr;
use crate::fields::Field;

/// A kind of log, by the columns that it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogKind {
    /// Events as kube-apiserver writes them, in whatever wrapper: EKS, AKS, OpenShift, shippers.
    Kubernetes,
    /// Entries of Google Cloud Logging (GKE), which are made from events.
    Google,
}

impl LogKind {
    pub const ALL: [LogKind; 2] = [LogKind::Kubernetes, LogKind::Google];

    pub const fn as_str(self) -> &'static str {
        match self {
            LogKind::Kubernetes => "kubernetes",
            LogKind::Google => "gke",
        }
    }

    /// Returns the positions, in `Table::Events`, of the columns that are null in such a log.
    /// Google's entries have a response code for failures only.
    const fn lacks(self) -> &'static [usize] {
        match self {
            LogKind::Kubernetes => &[],
            LogKind::Google => &[
                index::LEVEL,
                index::REQUEST_URI,
                index::USER_UID,
                index::USER_GROUPS,
                index::USER_EXTRA,
                index::IMPERSONATED_USER_NAME,
                index::IMPERSONATED_USER_GROUPS,
                index::IMPERSONATED_USER_EXTRA,
                index::OBJECT_UID,
                index::RESOURCE_VERSION,
                index::RESPONSE_CODE,
                index::REQUEST_RECEIVED_TIMESTAMP,
            ],
        }
    }

    /// Returns the columns that fields need and that such a log lacks.
    pub(crate) fn lacking(self, fields: &BTreeSet<usize>) -> Vec<&'static str> {
        let lacks = self.lacks().iter().filter(|column| fields.contains(column));
        lacks.filter_map(|column| events::COLUMNS.get(*column).copied()).collect()
    }
}

/// Response codes of requests that succeeded.
const SUCCESSES: [&str; 5] = ["101", "200", "201", "202", "302"];

/// Adds the columns of the fields in an expression to `out`. A line about the response code counts
/// only if it asks for the code of a success.
pub(crate) fn columns_in(expr: &Expr, out: &mut BTreeSet<usize>) {
    expr.leaves(&mut |leaf, _| match leaf {
        Expr::Field(Field::Column(index::RESPONSE_CODE), test)
            if !SUCCESSES.iter().any(|code| test.matches(Some(code))) => {}
        leaf => leaf.fields().for_each(|field| columns_in_field(field, out)),
    });
}

/// Adds the columns of a field to `out`. `actor` needs no impersonated user, and `dry_run` no URI:
/// without them, they are the user and false. `outcome` is known in every log.
pub(crate) fn columns_in_field(field: &Field, out: &mut BTreeSet<usize>) {
    let mut columns = Vec::new();
    match field {
        Field::Actor => columns.push(index::USER_NAME),
        Field::DryRun | Field::Outcome => {}
        // Only an apply needs the response code.
        Field::Creates => columns.push(index::VERB),
        other => other.add_columns(&mut columns),
    }
    out.extend(columns);
}
