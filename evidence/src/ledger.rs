//! Reads what the signed commits of an archive state about a period: files, positions, counts and
//! late seals.
//!
//! Invariant: a ledger contains only commits under a checkpoint that was signed by a key of the
//! archive, and the root over these commits equals the root in the checkpoint.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strongroom_archive::Archive;
use strongroom_archive::delta::facts::{AddFacts, CommitFacts, micros, parse_commit};
use strongroom_archive::error::LogError;
use strongroom_archive::log::{checkpoint_folder, newest};
use strongroom_archive::records::{drops, keys};
use strongroom_archive::site::Site;
use strongroom_proof::prove::cosigned;
use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_schemas::{Table, VolumeId};
use strongroom_store::{background, layout};
use strongroom_tlog::checkpoint::{TreeHead, checkpoint_name};
use strongroom_tlog::keys::Keys;
use strongroom_tlog::tree::{Paths, root};

use super::error::EvidenceError;
use super::question::Span;

/// Number of commits that are read at the same time.
const READS_AT_ONCE: usize = 16;
/// Maximum number of jumps, and of lags, that are kept. All jumps and lags are counted.
const TOLD_MAX: usize = 1000;
/// A commit is reported as late if it was made longer than this after its newest event.
const LAG_MAX_US: i64 = 3_600_000_000;
const RECORDS: &str = "#records";
const BROKER: &str = "#broker";

/// The files that one commit adds and that may contain rows of the period.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) leaf: Hash,
    /// In commit order.
    pub(super) adds: Vec<AddFacts>,
}

/// The commits of one volume up to its newest checkpoint.
#[derive(Debug)]
pub(super) struct VolumeLedger {
    pub(super) head: TreeHead,
    /// The checkpoint and its name. Both are empty in a ledger that was loaded at given heads.
    pub(super) note: String,
    pub(super) note_name: String,
    pub(super) paths: Paths,
    pub(super) entries: Vec<Entry>,
}

/// The counts of commits. In every commit, received = events + rejects + duplicates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitCounts {
    pub received: u64,
    pub events: u64,
    pub rejects: u64,
    pub duplicates: u64,
}

/// An advance of a broker's message numbers by more than the number of records that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    pub source: String,
    /// Path of the commit that shows the jump.
    pub commit: String,
    pub messages: i64,
    pub records: i64,
    /// The newest event time in earlier commits, and the newest event time in the commit with the
    /// jump.
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
}

/// A commit that was made long after its newest event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    pub commit: String,
    pub sources: Vec<String>,
    pub from_us: i64,
    pub sealed_us: i64,
}

/// A file that may contain rows of the period, as its commit describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedFile {
    /// `<table>/<year>`.
    pub log: String,
    pub commit: u64,
    pub file: String,
    pub bytes: u64,
    pub rows: u64,
    /// Number of records of the file that are in the pack.
    pub chosen: u64,
    pub sha256: String,
    pub record_root: String,
    pub version_id: Option<String>,
    pub time_min: Option<String>,
    pub time_max: Option<String>,
    pub offsets: BTreeMap<String, (i64, i64, u64)>,
}

/// What the signed commits state about a period; see the module.
#[derive(Debug)]
pub struct Ledger {
    pub(super) archive_id: String,
    pub(super) manifest: Bytes,
    pub(super) keys: Keys,
    pub(super) key_notes: Vec<String>,
    pub(super) volumes: BTreeMap<VolumeId, VolumeLedger>,
    pub span: Span,
    /// Sums of the counts in commits of `events` that add files of the period.
    pub counts: CommitCounts,
    pub commits: u64,
    pub jumps: Vec<Jump>,
    pub jumps_in_all: u64,
    pub lags: Vec<Lag>,
    pub lags_in_all: u64,
    /// Number of unsigned commits after the newest checkpoint, for each volume that has any.
    pub unsigned: Vec<(String, u64)>,
    /// For each source partition, the first and the last offset in its files of the period.
    pub positions: BTreeMap<String, (i64, i64)>,
}

/// Returns the minimum and maximum event time of a file, if its commit states them.
pub(super) fn times(table: Table, add: &AddFacts) -> Option<(i64, i64)> {
    let time = |bounds: &serde_json::Map<String, Value>| {
        bounds.get(table.time_column()).and_then(Value::as_str).and_then(micros)
    };
    Some((time(&add.least)?, time(&add.greatest)?))
}

/// The position of a source at a commit.
#[derive(Clone, Copy, Default)]
struct Reached {
    broker: Option<i64>,
    records: i64,
    time_us: Option<i64>,
}

impl Ledger {
    /// Reads the commits of every volume up to its newest checkpoint, or up to the heads `at`. The
    /// commits must match the checkpoint or the head.
    ///
    /// # Errors
    /// [`LogError::NoKey`] for an archive without a key, [`LogError::Forked`] if the commits differ
    /// from those that were signed.
    pub fn load(archive: &Archive, span: Span, at: Option<&[TreeHead]>) -> Result<Ledger, EvidenceError> {
        let (site, at) = (archive.site().clone(), at.map(<[TreeHead]>::to_vec));
        let loaded = background::wait(async move { load(&site, span, at.as_deref()).await });
        Ok(loaded?)
    }

    /// Returns the number of rows in the files of a table that may contain rows of the period.
    pub fn rows(&self, table: Table) -> u64 {
        self.adds(table).map(|(.., add)| add.rows.unwrap_or(0)).sum()
    }

    /// Files of a table that may contain rows of the period, in pack order.
    pub(super) fn adds(&self, table: Table) -> impl Iterator<Item = (VolumeId, u64, &AddFacts)> {
        let volumes = self.volumes.iter().filter(move |(log, _)| log.table == table);
        volumes.flat_map(|(log, volume)| {
            let entries = volume.entries.iter();
            entries.flat_map(move |entry| entry.adds.iter().map(move |add| (*log, entry.index, add)))
        })
    }

    /// Adds what a commit states. Returns the files of the commit that a pack needs, if there are
    /// any: files of events and alerts that may contain rows of the period.
    fn add(
        &mut self,
        (log, index): (VolumeId, u64),
        commit: CommitFacts,
        reached: &mut BTreeMap<String, Reached>,
    ) -> Option<Entry> {
        let span = self.span;
        let spans: Vec<Option<(i64, i64)>> = commit.adds.iter().map(|add| times(log.table, add)).collect();
        let newest = spans.iter().flatten().map(|(_, last)| *last).max();
        let place = format!("{}/_delta_log/{index:020}.json", log.name());
        let is_concerned = |times: &Option<(i64, i64)>| {
            times.is_none_or(|(first, last)| first < span.to_us && last >= span.from_us)
        };
        let concerned = spans.iter().any(is_concerned);
        let sealed_us = commit.time_ms.map(|time| time.saturating_mul(1000));
        if log.table == Table::Events {
            for source in commit.txns.keys().filter(|app_id| !app_id.contains('#')) {
                let records = commit.txns.get(&format!("{source}{RECORDS}")).copied().unwrap_or(0);
                let broker = commit.txns.get(&format!("{source}{BROKER}")).copied();
                let before = reached.get(source).copied().unwrap_or_default();
                let now = Reached { broker, records, time_us: newest.or(before.time_us) };
                if let (Some(was), Some(is)) = (before.broker, broker) {
                    let (messages, new) = (is.saturating_sub(was), records.saturating_sub(before.records));
                    if messages > new && (concerned || sealed_us.is_some_and(|time| span.holds(time))) {
                        self.jumps_in_all += 1;
                        if self.jumps.len() < TOLD_MAX {
                            let (source, commit) = (source.clone(), place.clone());
                            let (from_us, to_us) = (before.time_us, now.time_us);
                            self.jumps.push(Jump { source, commit, messages, records: new, from_us, to_us });
                        }
                    }
                }
                reached.insert(source.clone(), now);
            }
            if concerned && !commit.adds.is_empty() {
                self.commits += 1;
                if let Some([received, events, rejects, duplicates]) = commit.counts {
                    let sum = &mut self.counts;
                    sum.received += received;
                    sum.events += events;
                    sum.rejects += rejects;
                    sum.duplicates += duplicates;
                }
                if let (Some(newest), Some(sealed_us)) = (newest, sealed_us)
                    && sealed_us.saturating_sub(newest) > LAG_MAX_US
                {
                    self.lags_in_all += 1;
                    if self.lags.len() < TOLD_MAX {
                        let offsets = commit.adds.iter().flat_map(|add| add.offsets.iter().flatten());
                        let mut sources: Vec<String> = offsets.map(|(source, _)| source.clone()).collect();
                        sources.sort();
                        sources.dedup();
                        self.lags.push(Lag { commit: place, sources, from_us: newest, sealed_us });
                    }
                }
            }
        }
        let kept = commit.adds.into_iter().zip(&spans).filter(|(_, times)| is_concerned(times));
        let adds: Vec<AddFacts> = kept.map(|(add, _)| add).collect();
        if adds.is_empty() || !matches!(log.table, Table::Events | Table::Alerts) {
            return None;
        }
        if log.table == Table::Events {
            for (source, (first, last, _)) in adds.iter().flat_map(|add| add.offsets.iter().flatten()) {
                let known = self.positions.entry(source.clone()).or_insert((*first, *last));
                *known = (known.0.min(*first), known.1.max(*last));
            }
        }
        Some(Entry { index, leaf: commit.leaf, adds })
    }
}

async fn load(site: &Site, span: Span, at: Option<&[TreeHead]>) -> Result<Ledger, LogError> {
    let chain = keys::load(site).await?;
    if chain.records.is_empty() {
        return Err(LogError::NoKey);
    }
    let mut key_notes = Vec::new();
    for record in &chain.records {
        let note = site.read_present(&keys::path(&site.root, record.number)).await?;
        key_notes.push(String::from_utf8_lossy(&note).into_owned());
    }
    let mut ledger = Ledger {
        archive_id: site.archive_id.clone(),
        manifest: site.read_present(&site.root.join(layout::MANIFEST)).await?,
        keys: chain,
        key_notes,
        volumes: BTreeMap::new(),
        span,
        counts: CommitCounts::default(),
        commits: 0,
        jumps: Vec::new(),
        jumps_in_all: 0,
        lags: Vec::new(),
        lags_in_all: 0,
        unsigned: Vec::new(),
        positions: BTreeMap::new(),
    };
    let mut reached = BTreeMap::new();
    let mut all = drops::volumes(site).await?;
    all.sort();
    for log in all {
        let origin = log.origin(&site.archive_id);
        let (head, note, note_name) = match at {
            Some(heads) => match heads.iter().find(|head| head.log == log) {
                Some(head) => (head.clone(), String::new(), String::new()),
                None => continue,
            },
            None => {
                let found = newest(site, log, 0, &ledger.keys).await?;
                let Some((head, key)) = found else {
                    let commits = commits(site, log).await?;
                    if commits > 0 {
                        ledger.unsigned.push((log.name(), commits));
                    }
                    continue;
                };
                let name = checkpoint_name(head.size, key.id(&origin));
                let note = site.read_present(&checkpoint_folder(&site.root, log).join(&name)).await?;
                let behind = commits(site, log).await?.saturating_sub(head.size);
                if behind > 0 {
                    ledger.unsigned.push((log.name(), behind));
                }
                // Use the note with the cosignatures if witnesses have cosigned this checkpoint.
                let seen = cosigned(site, &head, key).await?;
                let seen = seen.filter(|(size, ..)| *size == head.size).map(|(_, note, _)| note);
                let note = seen.unwrap_or_else(|| String::from_utf8_lossy(&note).into_owned());
                (head, note, name)
            }
        };
        let volume = site.volume(log);
        let reads = (0..head.size).map(|index| {
            let (site, path) = (site.clone(), layout::commit(&volume, index));
            async move { site.read_present(&path).await }
        });
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        let (mut leaves, mut entries) = (Vec::new(), Vec::new());
        while let Some(bytes) = reads.next().await {
            let (commit, index) = (parse_commit(&bytes?), leaves.len() as u64);
            leaves.push(commit.leaf);
            entries.extend(ledger.add((log, index), commit, &mut reached));
        }
        if root(&leaves) != head.root {
            return Err(LogError::Forked { log: log.name(), size: head.size });
        }
        // Inclusion proofs are needed only for a volume that has files of the period.
        let paths = Paths::over(if entries.is_empty() { Vec::new() } else { leaves });
        ledger.volumes.insert(log, VolumeLedger { head, note, note_name, paths, entries });
    }
    Ok(ledger)
}

async fn commits(site: &Site, log: VolumeId) -> Result<u64, LogError> {
    let names = site.store.names(&layout::delta_log(&site.volume(log))).await?;
    let last = names.iter().filter_map(|name| layout::commit_version(name)).max();
    Ok(last.map_or(0, |last| last + 1))
}
