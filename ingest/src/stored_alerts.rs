//! The alerts that an archive has, by their ids, so that a seal stores no alert again.
//!
//! The events of one request can reach two processes, because a broker may give its stages to two
//! members of a group; or one process twice with a restart between them. Each time the request
//! raises an alert of the same id, with the stage and the place of another event in it.
//!
//! Invariant: of the alerts with one id, the one that is sealed first is the archive's, and no later
//! one is stored beside it. A seal leaves out what the table has. In a bucket, a writer that was
//! overtaken between this look and its commit is refused by
//! [`AlertsUnknown`](ArchiveError::AlertsUnknown), and looks again.
//!
//! Bounds: at the start, the ids of the newest [`IDS_MAX`] alerts are read, from at most
//! `FILES_MAX` files; later, those of each new commit; the ids that were read first are forgotten
//! first. An alert that is raised again after that is stored again. A crash loses nothing: the ids
//! are read again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet, VecDeque};

use strongroom_archive::{Archive, ArchiveError, FileEntry};
use strongroom_schemas::{Alert, Period, Table, alerts};

/// Maximum number of alert ids that are remembered; about 50 bytes each.
pub const IDS_MAX: usize = 1 << 18;
/// Maximum number of files whose ids are read at the start.
const FILES_MAX: usize = 512;

/// A short form of an alert's id.
pub type ShortId = u128;

/// Returns the short form of an alert's id.
pub fn short_id(alert_id: &str) -> ShortId {
    let hash = blake3::hash(alert_id.as_bytes());
    hash.as_bytes().iter().take(16).fold(0, |id, byte| id << 8 | u128::from(*byte))
}

/// The ids that were added last.
#[derive(Debug)]
pub struct NewestIds {
    max: usize,
    ids: HashSet<ShortId>,
    order: VecDeque<ShortId>,
}

impl NewestIds {
    /// Remembers at most this many ids.
    pub fn new(max: usize) -> NewestIds {
        NewestIds { max, ids: HashSet::new(), order: VecDeque::new() }
    }

    /// Remembers an id, and returns whether it was not remembered yet.
    pub fn insert(&mut self, id: ShortId) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }

    pub fn contains(&self, id: ShortId) -> bool {
        self.ids.contains(&id)
    }
}

/// What is known of the table of alerts.
#[derive(Debug)]
pub struct StoredAlerts {
    ids: NewestIds,
    /// The commits whose ids were read.
    ends: BTreeMap<Period, u64>,
}

impl StoredAlerts {
    /// Reads the newest ids of an archive.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn load(archive: &Archive) -> Result<StoredAlerts, ArchiveError> {
        let (mut files, ends) = archive.added_since(Table::Alerts, &BTreeMap::new())?;
        files.sort_by_key(|file| Reverse(file.time_max_us));
        files.truncate(FILES_MAX);
        let mut rows = 0;
        let in_bounds = |file: &&FileEntry| {
            let before = rows;
            rows += file.rows;
            before < IDS_MAX as u64
        };
        let newest: Vec<FileEntry> = files.iter().take_while(in_bounds).cloned().collect();
        let mut stored = StoredAlerts { ids: NewestIds::new(IDS_MAX), ends };
        // What is newest is forgotten last.
        for file in newest.iter().rev() {
            stored.read(archive, file, &mut |_| {})?;
        }
        Ok(stored)
    }

    /// Reads all ids of an archive, however many they are.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn all(archive: &Archive) -> Result<StoredAlerts, ArchiveError> {
        let mut stored = StoredAlerts { ids: NewestIds::new(usize::MAX), ends: BTreeMap::new() };
        stored.catch_up(archive)?;
        Ok(stored)
    }

    /// Reads the ids of the commits that were made since, and returns those that are new here.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn catch_up(&mut self, archive: &Archive) -> Result<Vec<ShortId>, ArchiveError> {
        let (files, ends) = archive.added_since(Table::Alerts, &self.ends)?;
        let mut new = Vec::new();
        for file in &files {
            self.read(archive, file, &mut |id| new.push(id))?;
        }
        self.ends = ends;
        Ok(new)
    }

    /// The commits whose ids are known.
    pub fn ends(&self) -> &BTreeMap<Period, u64> {
        &self.ends
    }

    /// Takes out the alerts that are stored, and those that are here twice: the first one stays.
    pub fn without_stored(&self, alerts: Vec<Alert>) -> Vec<Alert> {
        let mut here = HashSet::new();
        let is_new = |alert: &Alert| {
            let id = short_id(&alert.alert_id);
            !self.ids.contains(id) && here.insert(id)
        };
        let mut alerts = alerts;
        alerts.retain(is_new);
        alerts
    }

    /// Remembers what this process has sealed, up to the commits that its writer knows.
    pub fn sealed(&mut self, alerts: &[Alert], ends: Option<&BTreeMap<Period, u64>>) {
        for alert in alerts {
            self.ids.insert(short_id(&alert.alert_id));
        }
        if let Some(ends) = ends {
            self.ends.clone_from(ends);
        }
    }

    fn read(
        &mut self,
        archive: &Archive,
        file: &FileEntry,
        new: &mut dyn FnMut(ShortId),
    ) -> Result<(), ArchiveError> {
        archive.texts(Table::Alerts, file, alerts::ALERT_ID, &mut |text| {
            let id = short_id(text);
            if self.ids.insert(id) {
                new(id);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_that_were_added_first_are_forgotten_first() {
        let mut ids = NewestIds::new(2);
        let [a, b, c] = ["a", "b", "c"].map(short_id);
        assert!(ids.insert(a) && ids.insert(b) && !ids.insert(a));
        assert!(ids.insert(c));
        assert!(!ids.contains(a) && ids.contains(b) && ids.contains(c));
    }
}
