//! Reads the archive's table `alerts` for an outbox that has to catch up.
//!
//! Invariant: the archive is opened for each read, only read, and never locked, so this works while
//! the pipeline or another process writes. A crash here loses nothing.

use std::sync::Arc;

use strongroom_alerts::alerts_of_batch;
use strongroom_archive::{Archive, ArchiveError, SealReport};
use strongroom_schemas::{Alert, Table};
use strongroom_sinks::{History, HistoryError, Mark};

/// The function that opens the archive.
type Open = dyn Fn() -> Result<Archive, ArchiveError> + Send + Sync;

/// The alerts of the archive that `open` opens.
pub struct ArchiveHistory {
    open: Box<Open>,
}

impl ArchiveHistory {
    pub fn new(
        open: impl Fn() -> Result<Archive, ArchiveError> + Send + Sync + 'static,
    ) -> Arc<ArchiveHistory> {
        Arc::new(ArchiveHistory { open: Box::new(open) })
    }
}

impl History for ArchiveHistory {
    fn end(&self) -> Result<Mark, HistoryError> {
        match (self.open)() {
            Ok(archive) => Ok(Mark(archive.ends(Table::Alerts)?)),
            Err(ArchiveError::NotAnArchive { .. }) => Ok(Mark::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn alerts(
        &self,
        from: &Mark,
        to: &Mark,
        each: &mut dyn FnMut(Alert) -> bool,
    ) -> Result<(), HistoryError> {
        let archive = (self.open)()?;
        for batch in archive.rows_between(Table::Alerts, &from.0, &to.0)? {
            let alerts =
                alerts_of_batch(&batch?).ok_or("rows of the table alerts do not have its columns")?;
            for alert in alerts {
                if !each(alert) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Returns the commits of the table `alerts` that a seal made.
pub fn mark_of(report: &SealReport) -> Mark {
    let commits = report.commits.iter().filter(|commit| commit.volume.table == Table::Alerts);
    Mark(commits.map(|commit| (commit.volume.period, commit.version)).collect())
}
