//! The list of a table's files, read again when, and only when, there is a new commit.
//!
//! Invariants: a list is used for as long as the archive says that no commit follows it; no clock
//! is used. One statement takes each table's list once, however often it names the table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_archive::{Archive, ArchiveError, Snapshot};
use strongroom_schemas::Table;

/// Lists read before, for all statements of a session.
#[derive(Debug)]
pub(crate) struct Snapshots {
    archive: Arc<Archive>,
    known: Mutex<HashMap<Table, Arc<Snapshot>>>,
}

/// Lists taken by one statement. They travel in the configuration of the statement's session state.
#[derive(Debug, Default)]
pub(crate) struct Taken(tokio::sync::Mutex<HashMap<Table, Arc<Snapshot>>>);

impl Snapshots {
    pub(crate) fn new(archive: Arc<Archive>) -> Self {
        Snapshots { archive, known: Mutex::default() }
    }

    pub(crate) fn archive(&self) -> &Arc<Archive> {
        &self.archive
    }

    /// What `table` holds now; if the statement of `taken` has asked before, what it held then.
    pub(crate) async fn of(
        &self,
        table: Table,
        taken: Option<&Taken>,
    ) -> Result<Arc<Snapshot>, ArchiveError> {
        let Some(taken) = taken else { return self.current(table).await };
        let mut lists = taken.0.lock().await;
        if let Some(snapshot) = lists.get(&table) {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = self.current(table).await?;
        lists.insert(table, Arc::clone(&snapshot));
        Ok(snapshot)
    }

    async fn current(&self, table: Table) -> Result<Arc<Snapshot>, ArchiveError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&table).cloned();
        if let Some(snapshot) = known
            && self.archive.is_current(&snapshot).await
        {
            return Ok(snapshot);
        }
        let snapshot = Arc::new(self.archive.snapshot_async(table).await?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(table, Arc::clone(&snapshot));
        Ok(snapshot)
    }
}
