//! Finds the sealed files that contain records in the scope of a legal hold.
//!
//! Invariant: every file with a record in the scope is found. A doubtful file counts as found,
//! because keeping too much does less harm than keeping too little. If a row has no time, the date
//! of its file is compared with the period of the hold. If the time of a row is not on that date,
//! the time and the date are compared, and the row matches if either of them is in the period.
//! Rejects have neither namespace nor user, and activity records may be about anyone. So for both
//! kinds, and for files that cannot be read, only the time decides. For an alert, the namespaces
//! and actors of all of its events decide, if the alert states them.

use std::panic::AssertUnwindSafe;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ListArray, StringArray};
use chrono::{Datelike as _, NaiveDate};
use futures::{FutureExt as _, StreamExt as _, stream};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::errors::ParquetError;
use strongroom_archive::Fetched;
use strongroom_archive::delta::facts::{AddFacts, CommitFacts, micros};
use strongroom_archive::error::{ColumnError, RowsError};
use strongroom_archive::records::text::Scope;
use strongroom_archive::sealed_rows::{SealedBatch, columns_of};
use strongroom_parquet::{extent, footer, footer_length, open_row_group, row_group_bytes_max};
use strongroom_schemas::table::{alerts, events};
use strongroom_schemas::touched::ANY;
use strongroom_schemas::{Table, VolumeId};
use strongroom_store::{Contents, layout};

use super::{RetentionError, Work};

/// Maximum number of files that are read at the same time. For each, memory holds the columns of
/// one batch and the fetched part of a row group.
const FILES_AT_ONCE: usize = 4;
const BATCH_ROWS: usize = 8192;
/// Number of bytes that are fetched from the end of a file, before the length of its footer is
/// known.
const FOOTER_BYTES_LIKELY: u64 = 64 << 10;
const DAY_US: i64 = 86_400_000_000;
/// Days from the year 1 to the 1st of January 1970.
const EPOCH_DAYS: i64 = 719_163;
const NAMESPACE: &str = "namespace";
const ACTOR: &str = "actor";

/// Returns the files of a volume that have, or may have, records within `scope`. Each file is
/// returned as the index of its commit and its index in that commit.
pub(super) async fn files(
    work: &Work,
    log: VolumeId,
    commits: &[CommitFacts],
    scope: &Scope,
) -> Result<Vec<(usize, usize)>, RetentionError> {
    let mut found = Vec::new();
    let mut open = Vec::new();
    for (index, commit) in commits.iter().enumerate() {
        for (at, add) in commit.adds.iter().enumerate() {
            match by_facts(log.table, add, scope) {
                Some(true) => found.push((index, at)),
                Some(false) => {}
                None => open.push((index, at)),
            }
        }
    }
    let volume = layout::volume(&work.site.root, log);
    let looked = open.into_iter().map(|(index, at)| {
        let add = &commits[index].adds[at];
        let contents = work.site.store.contents(&volume.join(&add.path), add.size, add.version.as_deref());
        async move {
            let looked = AssertUnwindSafe(holds(contents, log.table, add.date, scope)).catch_unwind().await;
            // A file that cannot be read, or that makes its reader panic, counts as found. `verify`
            // reports such a file.
            (index, at, !matches!(looked, Ok(Ok(false))))
        }
    });
    let mut looked = stream::iter(looked).buffer_unordered(FILES_AT_ONCE);
    while let Some((index, at, holds)) = looked.next().await {
        if holds {
            found.push((index, at));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns the first microsecond of a day.
fn midnight(day: NaiveDate) -> i64 {
    (i64::from(day.num_days_from_ce()) - EPOCH_DAYS) * DAY_US
}

/// Whether the period of a scope includes a time from `first` to `last`, in microseconds.
fn overlaps(scope: &Scope, first: i64, last: i64) -> bool {
    scope.from.is_none_or(|from| last >= from.timestamp_micros())
        && scope.to.is_none_or(|to| first < to.timestamp_micros())
}

/// Whether the period of a scope may include a row with this time that is filed under `day`.
fn may_hold(scope: &Scope, time: Option<i64>, day: Option<NaiveDate>) -> bool {
    let start = day.map(midnight);
    let is_of_day = start.zip(time).is_some_and(|(start, time)| (start..start + DAY_US).contains(&time));
    if is_of_day {
        return time.is_some_and(|time| overlaps(scope, time, time));
    }
    start.is_none_or(|start| overlaps(scope, start, start + DAY_US - 1))
        || time.is_some_and(|time| overlaps(scope, time, time))
}

/// Returns whether a file may have rows within `scope` according to its commit, or `None` if the
/// rows must be read.
fn by_facts(table: Table, add: &AddFacts, scope: &Scope) -> Option<bool> {
    let bound = |bounds: &serde_json::Map<String, serde_json::Value>| {
        bounds.get(table.time_column()).and_then(serde_json::Value::as_str).and_then(micros)
    };
    let bounds = bound(&add.least).zip(bound(&add.greatest));
    let day = add.date.map(midnight);
    let by_day = day.is_none_or(|day| overlaps(scope, day, day + DAY_US - 1));
    let may_hold = match bounds {
        // All rows have times on the date of the file, so the bounds are enough.
        Some((first, last)) if day.is_some_and(|day| first >= day && last < day + DAY_US) => {
            overlaps(scope, first, last)
        }
        Some((first, last)) => by_day || overlaps(scope, first, last),
        None => by_day,
    };
    match may_hold {
        false => Some(false),
        true if scope.namespace.is_none() && scope.user.is_none() => Some(true),
        true if matches!(table, Table::Rejects | Table::Activity) => Some(true),
        true => None,
    }
}

/// Whether a file has a row within `scope`.
async fn holds(
    contents: Contents,
    table: Table,
    day: Option<NaiveDate>,
    scope: &Scope,
) -> Result<bool, RowsError> {
    let names: &[&str] = match table {
        Table::Events => &[events::NAMESPACE, events::USER_NAME, events::IMPERSONATED_USER_NAME],
        Table::Rejects | Table::Activity => &[],
        // Files that were written before the last two columns were introduced do not have them.
        Table::Alerts => &[NAMESPACE, ACTOR, alerts::NAMESPACES, alerts::ACTORS],
    };
    let is_wanted = |name: &str| names.contains(&name) || name == table.time_column();
    let footer = footer_of(&contents).await?;
    let mask = columns_of(footer.parquet_schema(), &is_wanted);
    let bytes_max = row_group_bytes_max(table);
    for (number, row_group) in footer.metadata().row_groups().iter().enumerate() {
        let extent = extent(row_group, &|leaf| mask.leaf_included(leaf));
        let bytes = contents.read(extent.clone()).await.map_err(ParquetError::from)?;
        let file = Fetched { start: extent.start, bytes };
        for batch in open_row_group(&footer, number, &mask, file, bytes_max, BATCH_ROWS)? {
            if any(&SealedBatch { table, batch: batch? }, day, scope)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn footer_of(contents: &Contents) -> Result<ArrowReaderMetadata, ParquetError> {
    let size = contents.bytes();
    let last = |bytes: u64| contents.read(size.saturating_sub(bytes)..size);
    let mut end = last(FOOTER_BYTES_LIKELY).await?;
    let length = footer_length(&end)?;
    if length > end.len() as u64 && length <= size {
        end = last(length).await?;
    }
    footer(&Fetched { start: size - end.len() as u64, bytes: end })
}

fn any(rows: &SealedBatch, day: Option<NaiveDate>, scope: &Scope) -> Result<bool, ColumnError> {
    let times = rows.times()?;
    let strings = |name: &str| rows.column::<StringArray>(name);
    let lists = |name: &str| match rows.column::<ListArray>(name) {
        Err(ColumnError::Missing { .. }) => Ok(None),
        column => column.map(Some),
    };
    let (namespaces, users) = match rows.table {
        Table::Events => (
            vec![Names::One(strings(events::NAMESPACE)?)],
            vec![
                Names::One(strings(events::USER_NAME)?),
                Names::One(strings(events::IMPERSONATED_USER_NAME)?),
            ],
        ),
        _ => (
            vec![Names::OfAlert(lists(alerts::NAMESPACES)?, strings(NAMESPACE)?)],
            vec![Names::OfAlert(lists(alerts::ACTORS)?, strings(ACTOR)?)],
        ),
    };
    let has = |columns: &[Names<'_>], row: usize, wanted: Option<&str>| {
        wanted.is_none_or(|wanted| columns.iter().any(|column| column.may_have(row, wanted)))
    };
    Ok((0..rows.batch.num_rows()).any(|row| {
        may_hold(scope, times.is_valid(row).then(|| times.value(row)), day)
            && has(&namespaces, row, scope.namespace.as_deref())
            && has(&users, row, scope.user.as_deref())
    }))
}

/// Columns with the names (namespaces or users) of each row.
enum Names<'b> {
    One(&'b StringArray),
    /// For alerts: the list has the names of all events of an alert. If the list is missing or
    /// null, the name in the other column is used, which is that of the event that completed the
    /// alert.
    OfAlert(Option<&'b ListArray>, &'b StringArray),
}

impl Names<'_> {
    /// Whether `wanted` is among the names of a row, or may be.
    fn may_have(&self, row: usize, wanted: &str) -> bool {
        match self {
            Names::One(column) => column.is_valid(row) && column.value(row) == wanted,
            Names::OfAlert(Some(lists), _) if lists.is_valid(row) => {
                let names = lists.value(row);
                let Some(names) = names.as_string_opt::<i32>() else { return true };
                // An empty list means that the alert is about no event, or that its events do not
                // state names. Such events may be about the wanted name.
                names.is_empty()
                    || names.iter().any(|name| name.is_none_or(|name| name == wanted || name == ANY))
            }
            // An alert without a name may be about several namespaces or actors.
            Names::OfAlert(_, column) => column.is_null(row) || column.value(row) == wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone as _, Utc};

    use super::*;

    #[test]
    fn an_alert_counts_with_all_that_it_touches() {
        use arrow_array::builder::{ListBuilder, StringBuilder};
        let mut lists = ListBuilder::new(StringBuilder::new());
        let rows: [Option<&[&str]>; 4] = [Some(&["bank", "shop"]), Some(&["*"]), Some(&[]), None];
        for row in rows {
            row.into_iter().flatten().for_each(|name| lists.values().append_value(name));
            lists.append(row.is_some());
        }
        let (lists, one) = (lists.finish(), StringArray::from(vec!["shop", "shop", "shop", "shop"]));
        let names = Names::OfAlert(Some(&lists), &one);
        let about = |names: &Names<'_>, wanted: &str| {
            (0..4).map(|row| names.may_have(row, wanted)).collect::<Vec<_>>()
        };
        assert_eq!(about(&names, "bank"), [true, true, true, false], "an old row has one name");
        assert_eq!(about(&names, "shop"), [true; 4]);
        assert_eq!(about(&names, "x"), [false, true, true, false]);
        let old = StringArray::from(vec![Some("shop"), None, Some("bank"), None]);
        assert_eq!(about(&Names::OfAlert(None, &old), "shop"), [true, true, false, true]);
        assert_eq!(about(&Names::One(&old), "shop"), [true, false, false, false]);
    }

    #[test]
    fn a_row_without_a_believable_time_counts_with_its_day() {
        let day = NaiveDate::from_ymd_opt(2026, 3, 2);
        let at = |d, h| Utc.with_ymd_and_hms(2026, 3, d, h, 0, 0).single().expect("a time");
        let scope = Scope { from: Some(at(2, 10)), to: Some(at(2, 12)), ..Scope::default() };
        let micros = |d, h| Some(at(d, h).timestamp_micros());
        assert!(may_hold(&scope, micros(2, 10), day) && may_hold(&scope, micros(2, 11), day));
        assert!(
            !may_hold(&scope, micros(2, 9), day) && !may_hold(&scope, micros(2, 12), day),
            "the end is outside"
        );
        assert!(may_hold(&scope, None, day) && may_hold(&scope, Some(0), day), "it arrived on that day");
        let before = NaiveDate::from_ymd_opt(2026, 3, 1);
        assert!(!may_hold(&scope, None, before) && !may_hold(&scope, Some(0), before));
        assert!(may_hold(&scope, micros(2, 11), before), "the time of the record itself counts as well");
        let open = Scope { from: Some(at(2, 10)), ..Scope::default() };
        assert!(may_hold(&open, micros(31, 1), NaiveDate::from_ymd_opt(2026, 3, 31)));
        assert!(may_hold(&Scope::default(), None, None));
    }
}
