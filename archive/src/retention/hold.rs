//! Holds: what must stay for as long as somebody says so, whatever becomes of its retention.
//!
//! A hold is a record (`_holds/00000001`) that says of which records it is, lists of the objects that hold these
//! (`_holds/00000001-00000001` and so on), and, in a bucket, the store's own legal hold on each of these and on the
//! record and the lists. Beside the data files these are the commits that name them and what proves the commits.
//!
//! Written in that order, so whatever dies on the way is made good by the same command. Files that are sealed later and
//! belong to a hold get it by a refresh. Writers do not do that themselves: in a bucket the right to place a hold is
//! the right to lift it, which a writer must not have; and a file has years of retention before it needs the hold.
//!
//! Invariant: an object is let go only when no hold that is not released has it on a list.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use strongroom_schemas::record::Sha256Hash as Hash;

use super::objects::{self, Object};
use super::record::{Deed, HeldList, HeldObject, HoldRecord, LIST_OBJECTS_MAX, Scope, Statement, open};
use super::{Failures, OBJECTS_AT_ONCE, Progress, RetentionError, Work, matching, text_of};
use crate::archive::Archive;
use crate::delta::facts::CommitFacts;
use crate::layout;
use crate::proof::log::{checkpoint_folder, folder, parse_checkpoint_name};
use crate::proof::tree::{TILE_WIDTH, Tile};
use crate::store::Store;
use strongroom_schemas::VolumeId;

/// Most records of holds and lists of one hold that are read.
const RECORDS_MAX: u64 = 1_000_000;

/// A hold, as far as it is laid down.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) record: HoldRecord,
    pub(crate) scope: Scope,
    hash: Hash,
    pub(crate) released: Option<HoldRecord>,
    pub(crate) lists: Vec<HeldList>,
    /// Records that nobody has signed: the hold's, and its release's.
    pub(crate) unsigned: u64,
}

/// All holds, and what is wrong with the first record that does not hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds {
    pub(crate) all: Vec<Hold>,
    /// Of records, released ones and releases included.
    pub(crate) records: u64,
    pub(crate) wrong: Option<(PathBuf, String)>,
}

fn path(work: &Work, name: &str) -> PathBuf {
    work.root.join(layout::HOLDS).join(name)
}

fn record_name(number: u64) -> String {
    format!("{number:08}")
}

fn list_name(number: u64, part: u64) -> String {
    format!("{number:08}-{part:08}")
}

impl Hold {
    pub(crate) fn is_active(&self) -> bool {
        self.released.is_none()
    }

    /// Everything that the hold is on, but for the versions of its own records.
    fn objects(&self) -> impl Iterator<Item = HeldObject> + '_ {
        let listed = self.lists.iter().flat_map(|list| list.objects.iter().cloned());
        let number = self.record.number;
        let own = (1..=self.lists.len() as u64).map(move |part| list_name(number, part));
        let own = own.chain([record_name(number)]);
        listed.chain(own.map(|name| HeldObject { path: format!("{}/{name}", layout::HOLDS), version: None }))
    }

    pub(crate) fn listed(&self) -> impl Iterator<Item = &HeldObject> {
        self.lists.iter().flat_map(|list| &list.objects)
    }
}

impl Holds {
    pub(crate) async fn load(work: &Work) -> Result<Holds, RetentionError> {
        let names: BTreeSet<String> = work.names(layout::HOLDS).await?.into_iter().collect();
        let mut holds = Holds::default();
        if names.is_empty() {
            return Ok(holds);
        }
        let known = work.keys().await?.all();
        let signed_as = Statement::Holds.signed_as(&work.archive_id);
        let mut seen = 0;
        for number in 1..=RECORDS_MAX {
            let name = record_name(number);
            if !names.contains(&name) {
                break;
            }
            let path = path(work, &name);
            let bytes = work.read(&path).await?.unwrap_or_default();
            let taken = open(&bytes, &signed_as, &known).and_then(|(text, signer)| {
                let record = HoldRecord::parse(text, &work.archive_id, number)?;
                holds.take(record, Hash::of(&bytes), signer.is_none())
            });
            if let Err(detail) = taken {
                holds.wrong = Some((path, detail));
                return Ok(holds);
            }
            (holds.records, seen) = (number, seen + 1);
            if !matches!(holds.all.last(), Some(hold) if hold.record.number == number) {
                continue;
            }
            for part in 1..=RECORDS_MAX {
                let name = list_name(number, part);
                if !names.contains(&name) {
                    break;
                }
                seen += 1;
                let path = super::hold::path(work, &name);
                let bytes = work.read(&path).await?.unwrap_or_default();
                let list = open(&bytes, &signed_as, &known)
                    .and_then(|(text, _)| HeldList::parse(text, &work.archive_id, number, part));
                let hold = holds.all.last_mut().expect("it was just taken");
                match list {
                    Ok(list) if list.hold == hold.hash => hold.lists.push(list),
                    Ok(_) => {
                        holds.wrong = Some((path, "it is of another record than the hold's".to_owned()));
                        return Ok(holds);
                    }
                    Err(detail) => {
                        holds.wrong = Some((path, detail));
                        return Ok(holds);
                    }
                }
            }
        }
        if seen < names.len() {
            let detail =
                format!("{} names here are no records, or one before them is missing", names.len() - seen);
            holds.wrong = Some((work.root.join(layout::HOLDS), detail));
        }
        Ok(holds)
    }

    /// As [`Holds::load`]; with a record that does not hold there are none.
    async fn whole(work: &Work) -> Result<Holds, RetentionError> {
        let holds = Holds::load(work).await?;
        match holds.wrong {
            None => Ok(holds),
            Some((path, detail)) => Err(RetentionError::Record { path, detail }),
        }
    }

    fn take(&mut self, record: HoldRecord, hash: Hash, is_unsigned: bool) -> Result<(), String> {
        let known = self.all.iter_mut().find(|hold| hold.record.name == record.name);
        match (record.deed.clone(), known) {
            (Deed::Place(scope), None) => {
                let unsigned = u64::from(is_unsigned);
                self.all.push(Hold { record, scope, hash, released: None, lists: Vec::new(), unsigned });
                Ok(())
            }
            (Deed::Release, Some(hold)) if hold.is_active() => {
                hold.unsigned += u64::from(is_unsigned);
                hold.released = Some(record);
                Ok(())
            }
            (Deed::Place(_), Some(_)) => Err("a hold of that name was placed before".to_owned()),
            (Deed::Release, _) => Err("there is no such hold to release".to_owned()),
        }
    }

    pub(crate) fn active(&self) -> impl Iterator<Item = &Hold> {
        self.all.iter().filter(|hold| hold.is_active())
    }

    fn named(&self, name: &str) -> Option<&Hold> {
        self.all.iter().find(|hold| hold.record.name == name)
    }

    /// Paths that a hold is on which is not released.
    pub(crate) fn covered(&self) -> BTreeSet<String> {
        self.active().flat_map(Hold::objects).map(|object| object.path).collect()
    }
}

/// A hold, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldState {
    pub name: String,
    pub reason: String,
    pub scope: Scope,
    pub placed: DateTime<Utc>,
    /// When it was released, and why.
    pub released: Option<(DateTime<Utc>, String)>,
    /// Objects on its lists.
    pub objects: u64,
    /// Data files among them.
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

/// All holds that were ever placed, oldest first.
///
/// # Errors
/// [`RetentionError::Record`] when a record does not hold.
pub fn holds(archive: &Archive) -> Result<Vec<HoldState>, RetentionError> {
    Work::of(archive, Arc::new(|_, _| ())).run(|work| async move {
        let holds = Holds::whole(&work).await?;
        Ok(holds.all.iter().map(HoldState::of).collect())
    })
}

/// What a hold covers now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    pub name: String,
    /// Data files that hold records it is about.
    pub files: u64,
    /// Objects on its lists.
    pub objects: u64,
    /// Which were added to them now.
    pub listed: u64,
    /// In a bucket: objects that the store was told to hold, or to let go, now.
    pub told: u64,
}

/// Places a hold and finds what it is on. One that was placed for the same before is finished.
///
/// # Errors
/// [`RetentionError::HoldDiffers`] and [`RetentionError::HoldReleased`] for a name that is taken,
/// [`RetentionError::Objects`] when some objects could not be held: all others are.
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

/// Brings every hold that is not released over what was sealed since, and makes good what an earlier run left undone.
///
/// # Errors
/// As [`place_hold`].
pub fn refresh_holds(archive: &Archive, progress: Progress) -> Result<Vec<Covered>, RetentionError> {
    Work::of(archive, progress).run(|work| async move { refresh(&work).await })
}

/// Releases a hold. Objects that another hold is on stay held. Again, it finishes what an earlier run began.
///
/// # Errors
/// [`RetentionError::HoldUnknown`]; [`RetentionError::Objects`] when some objects could not be let go.
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
        let holds = Holds::whole(work).await?;
        if let Some(hold) = holds.named(name) {
            if !hold.is_active() {
                return Err(RetentionError::HoldReleased { name: name.to_owned() });
            }
            if hold.scope != scope {
                return Err(RetentionError::HoldDiffers { name: name.to_owned() });
            }
            let ground = Ground::of(work).await?;
            return cover(work, hold, &ground).await;
        }
        let number = holds.records + 1;
        let deed = Deed::Place(scope.clone());
        let record =
            HoldRecord { number, time: Utc::now(), name: name.to_owned(), deed, reason: reason.to_owned() };
        let text = record.text(&work.archive_id);
        let bytes = work.signed(&text, &Statement::Holds.signed_as(&work.archive_id), &keys)?;
        work.put(&path(work, &record_name(number)), bytes).await?;
    }
}

pub(crate) async fn refresh(work: &Work) -> Result<Vec<Covered>, RetentionError> {
    let holds = Holds::whole(work).await?;
    let mut covered = Vec::new();
    if holds.active().next().is_some() {
        let ground = Ground::of(work).await?;
        let active: Vec<&Hold> = holds.active().collect();
        for hold in active {
            covered.push(cover(work, hold, &ground).await?);
        }
    }
    Ok(covered)
}

pub(crate) async fn release(work: &Work, name: &str, reason: &str) -> Result<Covered, RetentionError> {
    text_of("reason", reason)?;
    let keys = work.keys().await?;
    let unknown = || RetentionError::HoldUnknown { name: name.to_owned() };
    loop {
        let holds = Holds::whole(work).await?;
        if !holds.named(name).ok_or_else(unknown)?.is_active() {
            break;
        }
        let number = holds.records + 1;
        let (name, reason) = (name.to_owned(), reason.to_owned());
        let record = HoldRecord { number, time: Utc::now(), name, deed: Deed::Release, reason };
        let text = record.text(&work.archive_id);
        let bytes = work.signed(&text, &Statement::Holds.signed_as(&work.archive_id), &keys)?;
        work.put(&path(work, &record_name(number)), bytes).await?;
    }
    let holds = Holds::whole(work).await?;
    let hold = holds.named(name).ok_or_else(unknown)?;
    let mut covered = Covered { name: name.to_owned(), ..Covered::default() };
    let state = HoldState::of(hold);
    (covered.files, covered.objects) = (state.files, state.objects);
    if let Store::Local = work.store {
        return Ok(covered);
    }
    let ground = Ground::of(work).await?;
    let others = holds.covered();
    let free: Vec<HeldObject> = hold.objects().filter(|object| !others.contains(&object.path)).collect();
    covered.told = tell(work, &ground, free.clone(), false).await?;
    // Another hold may have been placed on some of these meanwhile.
    let now = Holds::whole(work).await?.covered();
    let again: Vec<HeldObject> = free.into_iter().filter(|object| now.contains(&object.path)).collect();
    tell(work, &ground, again, true).await?;
    Ok(covered)
}

/// What there is to hold.
pub(crate) struct Ground {
    volumes: BTreeMap<VolumeId, Vec<CommitFacts>>,
    /// In a bucket: every object of the archive, by its path.
    objects: Option<HashMap<String, Object>>,
}

impl Ground {
    pub(crate) async fn of(work: &Work) -> Result<Ground, RetentionError> {
        Ok(match &work.store {
            Store::Local => Ground { volumes: objects::volumes(work).await?, objects: None },
            Store::S3(bucket) => Ground::found(objects::all(work, bucket).await?),
        })
    }

    pub(super) fn found(found: objects::Found) -> Ground {
        let by_path = found.objects.into_iter().map(|object| (object.path.clone(), object));
        Ground { volumes: found.volumes, objects: Some(by_path.collect()) }
    }

    pub(super) fn local(volumes: BTreeMap<VolumeId, Vec<CommitFacts>>) -> Ground {
        Ground { volumes, objects: None }
    }

    pub(super) fn volumes(&self) -> &BTreeMap<VolumeId, Vec<CommitFacts>> {
        &self.volumes
    }

    async fn has(&self, work: &Work, path: &str) -> Result<bool, RetentionError> {
        match &self.objects {
            Some(objects) => Ok(objects.contains_key(path)),
            None => {
                let path = work.root.join(path);
                work.store.exists(&path).await.map_err(|source| RetentionError::Read { path, source })
            }
        }
    }

    fn version(&self, path: &str) -> Option<String> {
        self.objects.as_ref()?.get(path)?.version.clone()
    }
}

/// Paths that a hold must be on, and how many of them are data files.
pub(super) async fn wanted(
    work: &Work,
    scope: &Scope,
    ground: &Ground,
) -> Result<(BTreeSet<String>, u64), RetentionError> {
    let (mut paths, mut files) = (BTreeSet::new(), 0);
    for (log, commits) in &ground.volumes {
        let found = matching::files(work, *log, commits, scope).await?;
        let held: BTreeSet<usize> = found.iter().map(|(index, _)| *index).collect();
        files += found.len() as u64;
        for (index, at) in found {
            paths.insert(format!("{}/{}", log.name(), commits[index].adds[at].path));
        }
        paths.extend(proofs(work, *log, &held, ground).await?);
    }
    paths.insert(layout::MANIFEST.to_owned());
    paths.extend(work.names(layout::KEYS).await?.into_iter().map(|name| format!("{}/{name}", layout::KEYS)));
    Ok((paths, files))
}

/// The commits of a volume, and of its log what proves them: for each the first checkpoint that it is in, and the tiles
/// on its way to it. The first, because it stays the first.
async fn proofs(
    work: &Work,
    log: VolumeId,
    commits: &BTreeSet<usize>,
    ground: &Ground,
) -> Result<BTreeSet<String>, RetentionError> {
    let mut paths = BTreeSet::new();
    if commits.is_empty() {
        return Ok(paths);
    }
    let below = |path: PathBuf| {
        path.strip_prefix(&work.root).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let volume = layout::volume(&work.root, log);
    let mut checkpoints: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for name in work.store.names(&checkpoint_folder(&work.root, log)).await? {
        if let Some((size, _)) = parse_checkpoint_name(&name) {
            checkpoints.entry(size).or_default().push(name);
        }
    }
    for index in commits {
        let index = *index as u64;
        paths.insert(below(layout::commit(&volume, index)));
        let Some((size, names)) = checkpoints.range(index + 1..).next() else { continue };
        paths.extend(names.iter().map(|name| below(checkpoint_folder(&work.root, log).join(name))));
        for tile in tiles_on_the_way(index, *size) {
            for tile in [tile, tile.full()] {
                let path = below(folder(&work.root, log).join(tile.path()));
                if paths.contains(&path) || ground.has(work, &path).await? {
                    paths.insert(path);
                    break;
                }
            }
        }
    }
    Ok(paths)
}

/// Tiles that a proof of leaf `index` in a tree of `size` is made of.
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

/// Brings one hold over what it must be on.
async fn cover(work: &Work, hold: &Hold, ground: &Ground) -> Result<Covered, RetentionError> {
    let (wanted, files) = wanted(work, &hold.scope, ground).await?;
    let known: BTreeSet<&str> = hold.listed().map(|object| object.path.as_str()).collect();
    let new: Vec<HeldObject> = wanted
        .into_iter()
        .filter(|path| !known.contains(path.as_str()))
        .map(|path| HeldObject { version: ground.version(&path), path })
        .collect();
    let mut all: Vec<HeldObject> = hold.objects().collect();
    let listed = new.len() as u64;
    let mut part = hold.lists.len() as u64;
    for objects in new.chunks(LIST_OBJECTS_MAX) {
        part += 1;
        let (number, hash) = (hold.record.number, hold.hash);
        let list = HeldList { number, part, hold: hash, objects: objects.to_vec() };
        let name = list_name(number, part);
        // Another process that covers the same hold has the same to list, or more; it is seen by the next refresh.
        if !work.put(&path(work, &name), list.text(&work.archive_id).into()).await? {
            let detail = "another process lists what the hold is on at this moment; run again".to_owned();
            return Err(RetentionError::Record { path: path(work, &name), detail });
        }
        all.push(HeldObject { path: format!("{}/{name}", layout::HOLDS), version: None });
    }
    all.extend(new);
    let told = match work.store {
        Store::Local => 0,
        Store::S3(_) => tell(work, ground, all.clone(), true).await?,
    };
    let objects = all.iter().filter(|object| !object.path.starts_with(layout::HOLDS)).count() as u64;
    Ok(Covered { name: hold.record.name.clone(), files, objects, listed, told })
}

/// Has the store hold objects, or let them go; how many it had to be told of.
async fn tell(
    work: &Work,
    ground: &Ground,
    objects: Vec<HeldObject>,
    hold: bool,
) -> Result<u64, RetentionError> {
    let Store::S3(bucket) = &work.store else { return Ok(0) };
    let total = objects.len() as u64;
    let mut asked = stream::iter(objects)
        .map(|object| async move {
            let path = work.root.join(&object.path);
            let version = object.version.clone().or_else(|| ground.version(&object.path));
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
    failures.end(if hold { "held" } else { "let go" })?;
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
