//! Legal holds: audit records in the scope of a hold must stay until the hold is released, even if
//! their retention ends earlier.
//!
//! A hold has three parts: a file that states its scope (`_holds/00000001`); lists of the objects
//! that it covers (`_holds/00000001-00000001` and so on); and, in a bucket, the store's own legal
//! hold on each of these objects, on the file and on the lists. The covered objects are the data
//! files with audit records in the scope, the commits that name these files, the proofs of these
//! commits, and the archive's manifest and key records.
//!
//! The parts are written in that order, so after a crash the same command finishes the rest. A
//! refresh adds files in the scope of a hold that were sealed later. Writers do not place holds
//! themselves: in a bucket, a principal that may place a hold may also release it, and a writer
//! must not have that right. A refresh is not urgent, because a new file is protected by its
//! retention for years.
//!
//! Invariant: an object is released only if no active hold has it on a list.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use strongroom_archive::Archive;
use strongroom_archive::delta::facts::CommitFacts;
use strongroom_archive::error::RecordError;
use strongroom_archive::log::{checkpoint_folder, folder};
use strongroom_archive::record_fault::RecordFault;
use strongroom_archive::records::holds::{Hold, Holds, list_name, path, record_name};
use strongroom_archive::records::text::{
    Deed, HeldList, HeldObject, HoldRecord, LIST_OBJECTS_MAX, Scope, Statement,
};
use strongroom_schemas::VolumeId;
use strongroom_store::{Store, layout};
use strongroom_tlog::checkpoint::parse_checkpoint_name;
use strongroom_tlog::tree::{TILE_WIDTH, Tile};

use super::objects::{self, Object};
use super::{Failures, OBJECTS_AT_ONCE, Progress, RetentionError, Work, matching, text_of};

/// The description of a legal hold for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldState {
    pub name: String,
    pub reason: String,
    pub scope: Scope,
    pub placed: DateTime<Utc>,
    /// The time and the reason of its release.
    pub released: Option<(DateTime<Utc>, String)>,
    /// Number of objects on its lists.
    pub objects: u64,
    /// Number of data files on its lists.
    pub files: u64,
}

impl HoldState {
    pub(crate) fn of(hold: &Hold) -> HoldState {
        HoldState {
            name: hold.record.name.clone(),
            reason: hold.record.reason.clone(),
            scope: hold.scope.clone(),
            placed: hold.record.time,
            released: hold.released.as_ref().map(|record| (record.time, record.reason.clone())),
            objects: hold.listed().count() as u64,
            files: hold.listed().filter(|object| object.path.contains("/date=")).count() as u64,
        }
    }
}

/// Returns all holds that were ever placed, oldest first.
///
/// # Errors
/// [`RetentionError::Record`] for an invalid record.
pub fn holds(archive: &Archive) -> Result<Vec<HoldState>, RetentionError> {
    Work::of(archive, Arc::new(|_, _| ())).run(|work| async move {
        let holds = Holds::load_valid(&work.site).await?;
        Ok(holds.all.iter().map(HoldState::of).collect())
    })
}

/// What a hold covers now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    pub name: String,
    /// Number of data files with records in its scope.
    pub files: u64,
    /// Number of objects on its lists.
    pub objects: u64,
    /// Number of objects that this run added to the lists.
    pub listed: u64,
    /// In a bucket: number of objects that the store was asked to hold or to release in this run.
    pub told: u64,
}

/// Places a hold and finds its objects. If the hold was placed before with the same scope, this
/// finishes what an earlier run left undone.
///
/// # Errors
/// [`RetentionError::HoldDiffers`] and [`RetentionError::HoldReleased`] for a name that is taken,
/// [`RetentionError::Objects`] if some objects could not be held; all other objects are held.
pub fn place_hold(
    archive: &Archive,
    name: &str,
    reason: &str,
    scope: &Scope,
    progress: Progress,
) -> Result<Covered, RetentionError> {
    let (name, reason, scope) = (name.to_owned(), reason.to_owned(), scope.clone());
    Work::of(archive, progress).run(move |work| async move { place(&work, &name, &reason, &scope).await })
}

/// Extends every active hold to the files in its scope that were sealed since the hold was placed
/// or last refreshed, and finishes what an earlier run left undone.
///
/// # Errors
/// Those of [`place_hold`].
pub fn refresh_holds(archive: &Archive, progress: Progress) -> Result<Vec<Covered>, RetentionError> {
    Work::of(archive, progress).run(|work| async move { refresh(&work).await })
}

/// Releases a hold. Objects under another hold stay held. If the hold was released before, this
/// finishes what an earlier run started.
///
/// # Errors
/// [`RetentionError::HoldUnknown`]; [`RetentionError::Objects`] if some objects could not be
/// released.
pub fn release_hold(
    archive: &Archive,
    name: &str,
    reason: &str,
    progress: Progress,
) -> Result<Covered, RetentionError> {
    let (name, reason) = (name.to_owned(), reason.to_owned());
    Work::of(archive, progress).run(move |work| async move { release(&work, &name, &reason).await })
}

pub(crate) async fn place(
    work: &Work,
    name: &str,
    reason: &str,
    scope: &Scope,
) -> Result<Covered, RetentionError> {
    text_of("name", name)?;
    text_of("reason", reason)?;
    scope.namespace.as_deref().map_or(Ok(()), |text| text_of("namespace", text))?;
    scope.user.as_deref().map_or(Ok(()), |text| text_of("user", text))?;
    // Records have whole seconds.
    let whole = |time: Option<DateTime<Utc>>, up: bool| {
        time.and_then(|time| {
            DateTime::from_timestamp(time.timestamp() + i64::from(up && time.timestamp_subsec_nanos() > 0), 0)
        })
    };
    let scope = Scope { from: whole(scope.from, false), to: whole(scope.to, true), ..scope.clone() };
    if scope.from.zip(scope.to).is_some_and(|(from, to)| from >= to) {
        return Err(RetentionError::Span);
    }
    let keys = work.keys().await?;
    loop {
        let holds = Holds::load_valid(&work.site).await?;
        if let Some(hold) = holds.named(name) {
            if !hold.is_active() {
                return Err(RetentionError::HoldReleased { name: name.to_owned() });
            }
            if hold.scope != scope {
                return Err(RetentionError::HoldDiffers { name: name.to_owned() });
            }
            let targets = HoldTargets::of(work).await?;
            return cover(work, hold, &targets).await;
        }
        let number = holds.records + 1;
        let deed = Deed::Place(scope.clone());
        let record =
            HoldRecord { number, time: Utc::now(), name: name.to_owned(), deed, reason: reason.to_owned() };
        let text = record.text(&work.site.archive_id);
        let bytes = work.signed(&text, &Statement::Holds.signed_as(&work.site.archive_id), &keys)?;
        work.put(&path(&work.site, &record_name(number)), bytes).await?;
    }
}

pub(crate) async fn refresh(work: &Work) -> Result<Vec<Covered>, RetentionError> {
    let holds = Holds::load_valid(&work.site).await?;
    let mut covered = Vec::new();
    if holds.active().next().is_some() {
        let targets = HoldTargets::of(work).await?;
        let active: Vec<&Hold> = holds.active().collect();
        for hold in active {
            covered.push(cover(work, hold, &targets).await?);
        }
    }
    Ok(covered)
}

pub(crate) async fn release(work: &Work, name: &str, reason: &str) -> Result<Covered, RetentionError> {
    text_of("reason", reason)?;
    let keys = work.keys().await?;
    let unknown = || RetentionError::HoldUnknown { name: name.to_owned() };
    loop {
        let holds = Holds::load_valid(&work.site).await?;
        let hold = holds.named(name).ok_or_else(unknown)?;
        if !hold.is_active() {
            break;
        }
        if hold.is_signed() && work.site.signer.is_none() {
            return Err(RetentionError::KeyNeeded);
        }
        let number = holds.records + 1;
        let (name, reason) = (name.to_owned(), reason.to_owned());
        let record = HoldRecord { number, time: Utc::now(), name, deed: Deed::Release, reason };
        let text = record.text(&work.site.archive_id);
        let bytes = work.signed(&text, &Statement::Holds.signed_as(&work.site.archive_id), &keys)?;
        work.put(&path(&work.site, &record_name(number)), bytes).await?;
    }
    let holds = Holds::load_valid(&work.site).await?;
    let hold = holds.named(name).ok_or_else(unknown)?;
    let mut covered = Covered { name: name.to_owned(), ..Covered::default() };
    let state = HoldState::of(hold);
    (covered.files, covered.objects) = (state.files, state.objects);
    if let Store::Local = work.site.store {
        return Ok(covered);
    }
    let targets = HoldTargets::of(work).await?;
    let others = holds.covered();
    let free: Vec<HeldObject> = hold.objects().filter(|object| !others.contains(&object.path)).collect();
    covered.told = tell(work, &targets, free.clone(), false).await?;
    // Another hold may have been placed on some of these objects in the meantime.
    let now = Holds::load_valid(&work.site).await?.covered();
    let again: Vec<HeldObject> = free.into_iter().filter(|object| now.contains(&object.path)).collect();
    tell(work, &targets, again, true).await?;
    Ok(covered)
}

/// The commits and objects that a hold can cover.
pub(crate) struct HoldTargets {
    volumes: BTreeMap<VolumeId, Vec<CommitFacts>>,
    /// In a bucket: every object of the archive, by its path.
    objects: Option<HashMap<String, Object>>,
}

impl HoldTargets {
    pub(crate) async fn of(work: &Work) -> Result<HoldTargets, RetentionError> {
        Ok(match &work.site.store {
            Store::Local => HoldTargets { volumes: objects::volumes(work).await?, objects: None },
            Store::S3(bucket) => HoldTargets::found(objects::all(work, bucket).await?),
        })
    }

    pub(super) fn found(found: objects::Found) -> HoldTargets {
        let by_path = found.objects.into_iter().map(|object| (object.path.clone(), object));
        HoldTargets { volumes: found.volumes, objects: Some(by_path.collect()) }
    }

    pub(super) fn local(volumes: BTreeMap<VolumeId, Vec<CommitFacts>>) -> HoldTargets {
        HoldTargets { volumes, objects: None }
    }

    pub(super) fn volumes(&self) -> &BTreeMap<VolumeId, Vec<CommitFacts>> {
        &self.volumes
    }

    async fn has(&self, work: &Work, path: &str) -> Result<bool, RetentionError> {
        match &self.objects {
            Some(objects) => Ok(objects.contains_key(path)),
            None => {
                let path = work.site.root.join(path);
                work.site.store.exists(&path).await.map_err(|source| RetentionError::Read { path, source })
            }
        }
    }

    fn version(&self, path: &str) -> Option<String> {
        self.objects.as_ref()?.get(path)?.version.clone()
    }
}

/// Returns the paths of the objects that a hold must cover, and the number of data files among
/// them.
pub(super) async fn wanted(
    work: &Work,
    scope: &Scope,
    targets: &HoldTargets,
) -> Result<(BTreeSet<String>, u64), RetentionError> {
    let (mut paths, mut files) = (BTreeSet::new(), 0);
    for (log, commits) in &targets.volumes {
        let found = matching::files(work, *log, commits, scope).await?;
        let held: BTreeSet<usize> = found.iter().map(|(index, _)| *index).collect();
        files += found.len() as u64;
        for (index, at) in found {
            paths.insert(format!("{}/{}", log.name(), commits[index].adds[at].path));
        }
        paths.extend(proofs(work, *log, &held, targets).await?);
    }
    paths.insert(layout::MANIFEST.to_owned());
    paths.extend(
        work.site
            .record_names(layout::KEYS)
            .await?
            .into_iter()
            .map(|name| format!("{}/{name}", layout::KEYS)),
    );
    Ok((paths, files))
}

/// Returns the paths of these commits of a volume and of their proofs from its log. The proof of a
/// commit is the checkpoint of the smallest signed tree that contains it, and the tiles of its
/// inclusion proof in that tree. Later checkpoints have larger trees, so this choice never changes.
async fn proofs(
    work: &Work,
    log: VolumeId,
    commits: &BTreeSet<usize>,
    targets: &HoldTargets,
) -> Result<BTreeSet<String>, RetentionError> {
    let mut paths = BTreeSet::new();
    if commits.is_empty() {
        return Ok(paths);
    }
    let below = |path: PathBuf| {
        path.strip_prefix(&work.site.root).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let volume = layout::volume(&work.site.root, log);
    let mut checkpoints: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for name in work.site.store.names(&checkpoint_folder(&work.site.root, log)).await? {
        if let Some((size, _)) = parse_checkpoint_name(&name) {
            checkpoints.entry(size).or_default().push(name);
        }
    }
    for index in commits {
        let index = *index as u64;
        paths.insert(below(layout::commit(&volume, index)));
        let Some((size, names)) = checkpoints.range(index + 1..).next() else { continue };
        paths.extend(names.iter().map(|name| below(checkpoint_folder(&work.site.root, log).join(name))));
        for tile in tiles_on_the_way(index, *size) {
            for tile in [tile, tile.full()] {
                let path = below(folder(&work.site.root, log).join(tile.path()));
                if paths.contains(&path) || targets.has(work, &path).await? {
                    paths.insert(path);
                    break;
                }
            }
        }
    }
    Ok(paths)
}

/// Returns the tiles that contain the inclusion proof of leaf `index` in a tree of `size` leaves.
fn tiles_on_the_way(index: u64, size: u64) -> BTreeSet<Tile> {
    let mut tiles = BTreeSet::new();
    for level in 0..8u32 {
        let hashes = size >> (8 * level);
        if hashes == 0 {
            break;
        }
        for number in [(index >> (8 * level)) / TILE_WIDTH, hashes / TILE_WIDTH] {
            let width = (hashes - number * TILE_WIDTH).min(TILE_WIDTH);
            if width > 0 {
                tiles.insert(Tile { level, number, width });
            }
        }
    }
    tiles
}

/// Extends one hold to all objects that it must cover.
async fn cover(work: &Work, hold: &Hold, targets: &HoldTargets) -> Result<Covered, RetentionError> {
    let (wanted, files) = wanted(work, &hold.scope, targets).await?;
    let known: BTreeSet<&str> = hold.listed().map(|object| object.path.as_str()).collect();
    let new: Vec<HeldObject> = wanted
        .into_iter()
        .filter(|path| !known.contains(path.as_str()))
        .map(|path| HeldObject { version: targets.version(&path), path })
        .collect();
    let mut all: Vec<HeldObject> = hold.objects().collect();
    let listed = new.len() as u64;
    let mut part = hold.lists.len() as u64;
    for objects in new.chunks(LIST_OBJECTS_MAX) {
        part += 1;
        let (number, hash) = (hold.record.number, hold.hash);
        let list = HeldList { number, part, hold: hash, objects: objects.to_vec() };
        let name = list_name(number, part);
        // If the name is taken, another process is extending the same hold, and its list has the
        // same objects or more. The next refresh reads that list.
        if !work.put(&path(&work.site, &name), list.text(&work.site.archive_id).into()).await? {
            let fault = RecordFault::ListedMeanwhile;
            return Err(RecordError { path: path(&work.site, &name), fault }.into());
        }
        all.push(HeldObject { path: format!("{}/{name}", layout::HOLDS), version: None });
    }
    all.extend(new);
    let told = match work.site.store {
        Store::Local => 0,
        Store::S3(_) => tell(work, targets, all.clone(), true).await?,
    };
    let objects = all.iter().filter(|object| !object.path.starts_with(layout::HOLDS)).count() as u64;
    Ok(Covered { name: hold.record.name.clone(), files, objects, listed, told })
}

/// Asks the store to hold objects (`hold`) or to release them. Returns the number of requests that
/// were needed.
async fn tell(
    work: &Work,
    targets: &HoldTargets,
    objects: Vec<HeldObject>,
    hold: bool,
) -> Result<u64, RetentionError> {
    let Store::S3(bucket) = &work.site.store else { return Ok(0) };
    let total = objects.len() as u64;
    let mut asked = stream::iter(objects)
        .map(|object| async move {
            let path = work.site.root.join(&object.path);
            let version = object.version.clone().or_else(|| targets.version(&object.path));
            let outcome = async {
                let lock = bucket.s3.protection(&path, version.as_deref()).await;
                if lock.map_err(|failure| failure.to_string())?.is_held == hold {
                    return Ok(false);
                }
                work.pass(&path).map_err(|error| error.to_string())?;
                let set = bucket.s3.set_hold(&path, version.as_deref(), hold).await;
                set.map(|()| true).map_err(|failure| failure.to_string())
            };
            (object.path, outcome.await)
        })
        .buffer_unordered(OBJECTS_AT_ONCE);
    let (mut failures, mut done, mut told) = (Failures::default(), 0, 0);
    while let Some((path, outcome)) = asked.next().await {
        done += 1;
        (work.progress)(done, total);
        told += u64::from(failures.take(&path, outcome).unwrap_or(false));
    }
    failures.end(if hold { "held" } else { "released" })?;
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_made_of_these_tiles() {
        let tile = |level, number, width| Tile { level, number, width };
        assert_eq!(tiles_on_the_way(3, 7), BTreeSet::from([tile(0, 0, 7)]));
        assert_eq!(tiles_on_the_way(3, 256), BTreeSet::from([tile(0, 0, 256), tile(1, 0, 1)]));
        let all = [tile(0, 2, 256), tile(0, 273, 112), tile(1, 0, 256), tile(1, 1, 17), tile(2, 0, 1)];
        assert_eq!(tiles_on_the_way(600, 70_000), BTreeSet::from(all));
    }
}
