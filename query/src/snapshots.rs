//! The list of a table's files, read again when, and only when, there is a new commit.
//!
//! Invariants: a list is used until the archive has a newer commit of the table. Its age does not
//! matter. One statement takes the list of a table only once, even if it names the table several
//! times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_archive::{Archive, ArchiveError, Snapshot};
use strongroom_schemas::Table;

use crate::marked::Marked;

/// The list of each table that was read last. All statements of a session share these lists.
#[derive(Debug)]
pub(crate) struct Snapshots {
    archive: Arc<Archive>,
    known: Mutex<HashMap<Table, Arc<Snapshot>>>,
}

/// The lists that one statement has taken, and the files with marks that it reads. They are kept in
/// the configuration of the statement's session state.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    lists: tokio::sync::Mutex<HashMap<Table, Arc<Snapshot>>>,
    pub(crate) marked: Arc<Marked>,
}

impl Snapshots {
    pub(crate) fn new(archive: Arc<Archive>) -> Self {
        Snapshots { archive, known: Mutex::default() }
    }

    pub(crate) fn archive(&self) -> &Arc<Archive> {
        &self.archive
    }

    /// Returns the current list of `table`'s files. If the statement that owns `taken` has asked
    /// for this table before, returns the same list again.
    pub(crate) async fn of(
        &self,
        table: Table,
        taken: Option<&Taken>,
    ) -> Result<Arc<Snapshot>, ArchiveError> {
        let Some(taken) = taken else { return self.current(table).await };
        let mut lists = taken.lists.lock().await;
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
