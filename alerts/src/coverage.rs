//! Finds the fields that rules ask for and that a kind of log does not have.
//!
//! Invariant: every field of a rule is counted, whatever its part in the condition, and so is every
//! field by which a correlation groups or counts. Three fields are exceptions, because a rule can
//! do its work without their columns: `dry_run` and `outcome` are never counted, and a test of the
//! response code is counted only if it accepts a code of success. No state.

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

    /// Returns the positions, in `Table::Events`, of the columns that are null in a log of this
    /// kind. An entry of Google has a response code only if the request failed.
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

    /// Returns those columns of `fields` that a log of this kind lacks.
    pub(crate) fn lacking(self, fields: &BTreeSet<usize>) -> Vec<&'static str> {
        let lacks = self.lacks().iter().filter(|column| fields.contains(column));
        lacks.filter_map(|column| events::COLUMNS.get(*column).copied()).collect()
    }
}

/// Response codes of requests that succeeded.
const SUCCESSES: [&str; 5] = ["101", "200", "201", "202", "302"];

/// Adds the columns of the fields in an expression to `out`. The column of the response code is
/// added only if a test accepts a code of success, because logs that lack codes lack only those of
/// successes.
pub(crate) fn columns_in(expr: &Expr, out: &mut BTreeSet<usize>) {
    expr.leaves(&mut |leaf, _| match leaf {
        Expr::Field(Field::Column(index::RESPONSE_CODE), test)
            if !SUCCESSES.iter().any(|code| test.matches(Some(code))) => {}
        leaf => leaf.fields().for_each(|field| columns_in_field(field, out)),
    });
}

/// Adds to `out` the columns without which a field has no value. Columns that only refine the value
/// are not added: without an impersonated user, `actor` is the user; without a URI, `dry_run` is
/// false; and `outcome` is known in every log.
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
