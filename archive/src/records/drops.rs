//! Reads the drop records: which volumes were dropped, and where they ended.
//!
//! Terms. A *drop record* (`_dropped/events-2019`) is a note signed with the archive's key. It
//! states which volume was dropped, when and why, its last tree, and how many files and rows it
//! had. The volume's *final positions* (`_dropped/events-2019.state`) state where its sources ended
//! and which offsets its files had. Writers continue from these positions in later volumes, and
//! sums over all volumes include them.
//!
//! Invariant: readers leave out a volume that has a valid drop record, even if some of its files
//! still exist. A forged record hides nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Datelike as _, Utc};
use serde::{Deserialize, Serialize};
use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_schemas::{Period, Table, VolumeId};
use strongroom_store::layout;

use super::clock::ClockRecords;
use super::keys;
use super::policy::{self, FoundPolicy};
use super::text::{DropRecord, Statement, open};
use crate::error::LogError;
use crate::record_fault::RecordFault;
use crate::site::Site;

/// Format of the file of final positions.
pub const POSITIONS_FORMAT: &str = "strongroom-dropped-1";

/// Where a dropped volume ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinalPositions {
    /// [`POSITIONS_FORMAT`].
    pub format: String,
    /// The newest version of each appId in the volume.
    pub txns: BTreeMap<String, i64>,
    /// Map from partition to least offset, greatest offset and number of rows, over all files of
    /// the volume; null if a file of the volume was written before these numbers were recorded.
    pub offsets: Option<BTreeMap<String, (i64, i64, u64)>>,
}

/// Returns the name of the drop record of a volume.
pub fn file(log: VolumeId) -> String {
    format!("{}-{}", log.table.name(), log.period)
}

/// Returns the path of the drop record of a volume.
pub fn path(root: &Path, log: VolumeId) -> PathBuf {
    root.join(layout::DROPPED).join(file(log))
}

/// Returns the path of the file of a dropped volume's final positions.
pub fn positions_path(root: &Path, log: VolumeId) -> PathBuf {
    root.join(layout::DROPPED).join(file(log) + layout::STATE_SUFFIX)
}

/// Valid drop records, and invalid ones.
#[derive(Clone, Debug, Default)]
pub struct Drops {
    pub good: BTreeMap<VolumeId, (DropRecord, FinalPositions)>,
    /// For each invalid record: its path below the root, and what is wrong with it.
    pub wrong: Vec<(String, RecordFault)>,
}

/// Returns every drop record, checked.
pub async fn load(site: &Site) -> Result<Drops, LogError> {
    let mut all = Drops::default();
    let names = site.record_names(layout::DROPPED).await?;
    if names.is_empty() {
        return Ok(all);
    }
    let keys = keys::known(site).await?;
    let FoundPolicy { policy, .. } = policy::load(site, &keys).await?;
    let clock = ClockRecords::load(site, &keys).await?;
    let signed_as = Statement::Dropped.signed_as(&site.archive_id);
    for name in &names {
        let place = format!("{}/{name}", layout::DROPPED);
        let stem = name.strip_suffix(layout::STATE_SUFFIX).unwrap_or(name);
        let Some(log) = VolumeId::parse(&stem.replacen('-', "/", 1)) else {
            all.wrong.push((place, RecordFault::NoVolume));
            continue;
        };
        // A file of final positions without a record was left by a drop that died before it took
        // effect.
        if stem != name {
            continue;
        }
        let bytes = site.read(&path(&site.root, log)).await?.unwrap_or_default();
        let state = site.read(&positions_path(&site.root, log)).await?;
        let checked = || {
            let (text, signer) = open(&bytes, &signed_as, &keys.all())?;
            let record = DropRecord::parse(text, &site.archive_id, log)?;
            let explained = clock.made_until(log, record.time);
            record.check(signer, &keys, policy.years_at(record.time), explained, Utc::now())?;
            let state = state.ok_or(RecordFault::StateMissing)?;
            if Hash::of(&state) != record.state {
                return Err(RecordFault::StateOther);
            }
            let state: FinalPositions =
                serde_json::from_slice(&state).map_err(|_| RecordFault::StateDamaged)?;
            if state.format != POSITIONS_FORMAT {
                return Err(RecordFault::StateFormat);
            }
            Ok((record, state))
        };
        match checked() {
            Ok(dropped) => _ = all.good.insert(log, dropped),
            Err(fault) => all.wrong.push((place, fault)),
        }
    }
    Ok(all)
}

/// Returns the dropped volumes of a table with their final positions.
pub async fn of_table(site: &Site, table: Table) -> Result<BTreeMap<Period, FinalPositions>, LogError> {
    let mine = format!("{}-", table.name());
    let names = site.store.names(&site.root.join(layout::DROPPED)).await?;
    if !names.iter().any(|name| name.starts_with(&mine)) {
        return Ok(BTreeMap::new());
    }
    let of_table = load(site).await?.good.into_iter().filter(|(log, _)| log.table == table);
    Ok(of_table.map(|(log, (_, positions))| (log.period, positions)).collect())
}

/// Returns the periods whose volumes were not dropped. What may be left of a dropped volume is
/// never read.
async fn excluding_dropped(
    site: &Site,
    table: Table,
    mut periods: Vec<Period>,
    now: DateTime<Utc>,
) -> Result<Vec<Period>, LogError> {
    // A volume of the present year is never dropped, so the drop records are needed only if there
    // is an older volume.
    if periods.iter().any(|period| period.year < now.year()) {
        let dropped = Box::pin(of_table(site, table)).await?;
        periods.retain(|period| !dropped.contains_key(period));
    }
    Ok(periods)
}

/// Volumes for which a table has a folder and that were not dropped, oldest first.
pub async fn periods(site: &Site, table: Table) -> Result<Vec<Period>, LogError> {
    // A volume whose objects are all hidden by delete markers must still be found.
    let names = site.store.names_unchanged(&layout::table(&site.root, table), |_| false).await?;
    excluding_dropped(site, table, layout::periods_among(&names), Utc::now()).await
}

/// Volumes of all tables that exist and were not dropped. In a bucket, volumes that delete markers
/// hide are left out.
pub async fn volumes(site: &Site) -> Result<Vec<VolumeId>, LogError> {
    let mut volumes = Vec::new();
    for table in Table::ALL {
        let names = site.store.names(&layout::table(&site.root, table)).await?;
        let periods = excluding_dropped(site, table, layout::periods_among(&names), Utc::now()).await?;
        volumes.extend(periods.into_iter().map(|period| VolumeId { table, period }));
    }
    Ok(volumes)
}
