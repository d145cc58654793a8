//! The signed log of a volume: tiles and checkpoints, written after the commits.
//!
//! Invariant: a checkpoint is written last, after the tiles of its size, so a log is whole at every
//! size that was signed. A run that dies before it writes the checkpoint leaves tiles that are
//! equal to those that the next run would write.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::Utc;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use strongroom_schemas::VolumeId;
use strongroom_schemas::record::{Sha256Hash as Hash, leaf_hash};
use strongroom_store::layout;
use strongroom_tlog::checkpoint::{
    CheckpointFault, Edge, TreeHead, check_note, checkpoint_name, checkpoint_text, name_prefix,
    parse_checkpoint_name,
};
use strongroom_tlog::keys::Keys;
use strongroom_tlog::note::PublicKey;
use strongroom_tlog::signer::Signer;
use strongroom_tlog::tree::{self, TILE_WIDTH, Tile};

use crate::delta::is_of_log;
use crate::error::LogError;
use crate::fail::{FailPoints, Step};
use crate::records::drops;
use crate::records::keys::{self, NewKey};
use crate::site::Site;

/// Maximum number of commits that are compared at the same time. In a bucket, each comparison is a
/// request.
const COMMITS_AT_ONCE: usize = 16;

/// Returns the folder of the signed log of a volume.
pub fn folder(root: &Path, log: VolumeId) -> PathBuf {
    layout::volume(root, log).join(layout::TLOG)
}

/// Returns the folder of the checkpoints of the signed log of a volume.
pub fn checkpoint_folder(root: &Path, log: VolumeId) -> PathBuf {
    folder(root, log).join("checkpoint")
}

/// Returns the folder of checkpoints that witnesses have cosigned.
pub fn witness_folder(root: &Path, log: VolumeId) -> PathBuf {
    folder(root, log).join("witness")
}

/// Returns the folder of the timestamps of checkpoints.
pub fn timestamp_folder(root: &Path, log: VolumeId) -> PathBuf {
    folder(root, log).join("timestamp")
}

/// Extends the signed logs of an archive after their commits.
#[derive(Clone, Debug)]
pub struct LogSigner {
    pub site: Site,
    pub signer: Arc<Signer>,
    seen: Seen,
}

/// For each log, the size of the newest checkpoint that this process has seen. Smaller checkpoints
/// need not be listed again.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<HashMap<VolumeId, u64>>>);

impl Seen {
    fn of(&self, log: VolumeId) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&log).copied().unwrap_or(0)
    }

    fn set(&self, log: VolumeId, size: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(log, size);
    }
}

impl LogSigner {
    /// Signs the logs of an archive with `signer`.
    pub fn of(site: Site, signer: Arc<Signer>) -> LogSigner {
        LogSigner { site, signer, seen: Seen::default() }
    }

    /// Checks that the signer's key is the archive's current key, and returns all keys. If the
    /// archive has no key, the signer's key becomes its first.
    pub async fn keys(&self) -> Result<Keys, LogError> {
        let mut keys = keys::load(&self.site).await?;
        match keys.current() {
            None => {
                let added = NewKey { old: None, new: &self.signer, heads: Vec::new(), time: Utc::now() };
                keys::append(&self.site, &mut keys, added).await?;
                Ok(keys)
            }
            Some(current) if current == self.signer.public() => Ok(keys),
            Some(current) => Err(LogError::KeyNotCurrent { current }),
        }
    }

    /// Extends every log to the last commit of its volume, and returns the heads of the logs.
    pub async fn all(&self) -> Result<Vec<TreeHead>, LogError> {
        let keys = self.keys().await?;
        let mut heads = Vec::new();
        for log in drops::volumes(&self.site).await? {
            heads.extend(self.one(log, &keys, &FailPoints::default()).await?);
        }
        Ok(heads)
    }

    /// Extends one log to the last commit of its volume, and returns its head; `None` if the volume
    /// has no commit.
    pub async fn one(
        &self,
        log: VolumeId,
        keys: &Keys,
        fail_points: &FailPoints,
    ) -> Result<Option<TreeHead>, LogError> {
        let LogSigner { site, signer, seen } = self;
        let origin = log.origin(&site.archive_id);
        // Names sort by size, so it is enough to list the names from the last checkpoint seen.
        // Checkpoints are never removed: if that list is empty, something is wrong, so all names
        // are listed.
        let newest = match newest(site, log, seen.of(log), keys).await? {
            None if seen.of(log) > 0 => newest(site, log, 0, keys).await?,
            newest => newest,
        };
        let (before, signed_by_us) =
            newest.as_ref().map_or((0, false), |(head, key)| (head.size, keys.current() == Some(*key)));
        let mut edge = match &newest {
            None => Edge::default(),
            Some((head, _)) => self.edge(head).await?,
        };
        let mut tiles = Vec::new();
        let mut is_compared = false;
        loop {
            let path = layout::commit(&site.volume(log), edge.size);
            let Some(commit) = site.read(&path).await? else { break };
            if let (Some((head, _)), false) = (&newest, std::mem::replace(&mut is_compared, true)) {
                self.compare(head, seen.of(log) == 0).await?;
            }
            edge.push(leaf_hash(&commit), &mut tiles);
        }
        if edge.size == 0 {
            return Ok(None);
        }
        let head = TreeHead { log, size: edge.size, root: edge.root() };
        seen.set(log, before);
        if edge.size == before && signed_by_us {
            return Ok(Some(head));
        }
        let folder = folder(&site.root, log);
        let pass = |path: &Path| {
            let path = path.to_owned();
            fail_points.pass(Step::Proof).map_err(|source| LogError::Write { path, source })
        };
        for (tile, bytes) in tiles.into_iter().chain(edge.partial()) {
            let path = folder.join(tile.path());
            pass(&path)?;
            put_same(site, path, bytes.into()).await?;
        }
        pass(&folder)?;
        let text = checkpoint_text(&origin, head.size, &head.root);
        let note = format!("{text}\n{}", signer.sign(&origin, &text)?);
        let name = checkpoint_name(head.size, signer.public().id(&origin));
        put_same(site, folder.join("checkpoint").join(name), note.into()).await?;
        seen.set(log, head.size);
        Ok(Some(head))
    }

    /// Compares the commits under a signed head with the log, before anything more is signed.
    /// Always compares the last of these commits. The first time in this process, compares all
    /// commits that the last tile covers, and in a bucket also checks that nothing in the Delta log
    /// is hidden or was replaced.
    async fn compare(&self, head: &TreeHead, is_first: bool) -> Result<(), LogError> {
        let site = &self.site;
        let Some(last) = head.size.checked_sub(1) else { return Ok(()) };
        let volume = site.volume(head.log);
        if is_first {
            site.store.names_unchanged(&layout::delta_log(&volume), is_of_log).await?;
        }
        let (number, width) = (last / TILE_WIDTH, last % TILE_WIDTH + 1);
        let signed =
            tile_hashes(site, &folder(&site.root, head.log), Tile { level: 0, number, width }).await?;
        // If the tile is missing, nothing is compared here: in that case `edge` has computed the
        // tree from the commits and compared it with the signed root.
        let first = if is_first { 0 } else { width - 1 };
        let signed: Vec<Hash> = signed.into_iter().skip(first as usize).collect();
        // Owned, so that the future can move to another thread.
        let commits = (first..width).zip(signed).map(|(at, signed)| {
            let (site, path) = (site.clone(), layout::commit(&volume, number * TILE_WIDTH + at));
            async move { Ok::<_, LogError>((site.read(&path).await?, signed)) }
        });
        let mut compared = stream::iter(commits).buffered(COMMITS_AT_ONCE);
        while let Some((commit, signed)) = compared.try_next().await? {
            if commit.map(|commit| leaf_hash(&commit)) != Some(signed) {
                return Err(LogError::Forked { log: head.log.name(), size: head.size });
            }
        }
        Ok(())
    }

    /// Returns the right edge of the tree at a signed head. It is read from the tiles or, if these
    /// do not lead to the signed root, computed from the commits.
    async fn edge(&self, head: &TreeHead) -> Result<Edge, LogError> {
        let site = &self.site;
        let folder = folder(&site.root, head.log);
        let mut edge = Edge { size: head.size, levels: Vec::new() };
        for level in 0.. {
            let hashes = head.size >> (8 * level);
            if hashes == 0 {
                break;
            }
            let (number, width) = (hashes / TILE_WIDTH, hashes % TILE_WIDTH);
            edge.levels.push(match width {
                0 => Vec::new(),
                width => tile_hashes(site, &folder, Tile { level, number, width }).await?,
            });
        }
        if edge.root() == head.root {
            return Ok(edge);
        }
        // Tiles are missing or were changed. Everything in them follows from the commits.
        let mut edge = Edge::default();
        while edge.size < head.size {
            let path = layout::commit(&site.volume(head.log), edge.size);
            let Some(commit) = site.read(&path).await? else { break };
            edge.push(leaf_hash(&commit), &mut Vec::new());
        }
        if edge.size == head.size && edge.root() == head.root {
            Ok(edge)
        } else {
            Err(LogError::Forked { log: head.log.name(), size: head.size })
        }
    }
}

/// Returns the stored bytes of a tile, or of the full tile that replaced it.
pub async fn tile_bytes(site: &Site, folder: &Path, tile: Tile) -> Result<Option<Bytes>, LogError> {
    for path in [tile.path(), tile.full().path()] {
        let bytes = site.read(&folder.join(path)).await?;
        if bytes.is_some() {
            return Ok(bytes);
        }
    }
    Ok(None)
}

/// Returns the hashes of a tile: as many of its `width` hashes as are stored.
async fn tile_hashes(site: &Site, folder: &Path, tile: Tile) -> Result<Vec<Hash>, LogError> {
    let bytes = tile_bytes(site, folder, tile).await?.unwrap_or_default();
    let hash = |bytes: &[u8]| Hash(bytes.try_into().expect("chunks of 32"));
    Ok(bytes.chunks_exact(32).take(tile.width as usize).map(hash).collect())
}

/// Returns the consistency proof from the first `old` commits to a signed head. It is read from the
/// tiles or, if these do not lead to the signed root, computed from the commits.
pub async fn consistency(site: &Site, head: &TreeHead, old: u64) -> Result<Vec<Hash>, LogError> {
    let ranges = tree::consistency_ranges(old, head.size);
    let mut nodes =
        Nodes { site, folder: folder(&site.root, head.log), size: head.size, tiles: HashMap::new() };
    let mut proof = Vec::with_capacity(ranges.len());
    for range in &ranges {
        proof.push(nodes.root(range).await?);
    }
    let (old_root, new_root) = (nodes.root(&(0..old)).await?, nodes.root(&(0..head.size)).await?);
    let holds = |old_root, new_root, proof: &[Hash]| {
        new_root == head.root && tree::is_consistent((old, &old_root), (head.size, &new_root), proof)
    };
    if holds(old_root, new_root, &proof) {
        return Ok(proof);
    }
    // Tiles are missing or were changed. Everything in them follows from the commits.
    let mut leaves = Vec::new();
    for index in 0..head.size {
        let path = layout::commit(&site.volume(head.log), index);
        leaves.push(leaf_hash(&site.read_present(&path).await?));
    }
    let of = |range: &Range<u64>| tree::root(&leaves[range.start as usize..range.end as usize]);
    let proof: Vec<Hash> = ranges.iter().map(of).collect();
    if holds(of(&(0..old)), of(&(0..head.size)), &proof) {
        Ok(proof)
    } else {
        Err(LogError::Forked { log: head.log.name(), size: head.size })
    }
}

/// Roots of parts of a log, read from its tiles. If hashes are missing, the root of the empty tree
/// is used in their place: the caller notices, because the result does not match the signed root.
struct Nodes<'s> {
    site: &'s Site,
    folder: PathBuf,
    size: u64,
    tiles: HashMap<(u32, u64), Vec<Hash>>,
}

impl Nodes<'_> {
    async fn root(&mut self, range: &Range<u64>) -> Result<Hash, LogError> {
        let mut roots = Vec::new();
        for (height, place) in tree::subtrees(range) {
            let (level, within) = (height / 8, height % 8);
            let first = place << within;
            let tile = self.tile(level, first / TILE_WIDTH).await?;
            let at = (first % TILE_WIDTH) as usize;
            roots.push(tile.get(at..at + (1 << within)).map_or_else(|| tree::root(&[]), tree::root));
        }
        Ok(tree::root_of_subtrees(&roots))
    }

    async fn tile(&mut self, level: u32, number: u64) -> Result<&[Hash], LogError> {
        if let Entry::Vacant(place) = self.tiles.entry((level, number)) {
            let width = (self.size >> (8 * level)).saturating_sub(number * TILE_WIDTH).min(TILE_WIDTH);
            place.insert(tile_hashes(self.site, &self.folder, Tile { level, number, width }).await?);
        }
        Ok(&self.tiles[&(level, number)])
    }
}

/// Returns the largest checkpoint whose size is at least `from`, and the key that signed it. If
/// there are several checkpoints of that size, the one with the newest key is returned.
pub async fn newest(
    site: &Site,
    log: VolumeId,
    from: u64,
    keys: &Keys,
) -> Result<Option<(TreeHead, PublicKey)>, LogError> {
    let (folder, origin) = (checkpoint_folder(&site.root, log), log.origin(&site.archive_id));
    let names = site.store.names_from(&folder, &name_prefix(from)).await?;
    let Some(size) = names.iter().filter_map(|name| Some(parse_checkpoint_name(name)?.0)).max() else {
        return Ok(None);
    };
    let all = keys.all();
    for key in all.iter().rev() {
        let path = folder.join(checkpoint_name(size, key.id(&origin)));
        let Some(note) = site.read(&path).await? else { continue };
        return match check_note(&note, &origin, &[*key]) {
            Ok((found, root, _)) if found == size => Ok(Some((TreeHead { log, size, root }, *key))),
            Ok(_) => Err(LogError::Checkpoint { path, fault: CheckpointFault::Name }),
            Err(fault) => Err(LogError::Checkpoint { path, fault }),
        };
    }
    Err(LogError::Checkpoint { path: folder, fault: CheckpointFault::KeyUnknown { size } })
}

/// Returns the newest checkpoint: its tree head, its name and its bytes.
pub async fn newest_note(
    site: &Site,
    log: VolumeId,
    keys: &Keys,
) -> Result<Option<(TreeHead, String, Bytes)>, LogError> {
    let Some((head, key)) = newest(site, log, 0, keys).await? else { return Ok(None) };
    let name = checkpoint_name(head.size, key.id(&log.origin(&site.archive_id)));
    let note = site.read_present(&checkpoint_folder(&site.root, log).join(&name)).await?;
    Ok(Some((head, name, note)))
}

/// Writes a file once. If the name is taken, the existing file must have the same content.
async fn put_same(site: &Site, path: PathBuf, bytes: Bytes) -> Result<(), LogError> {
    let put = site.store.put_proof(&path, bytes.clone()).await;
    if put.map_err(|source| LogError::Write { path: path.clone(), source })? {
        return Ok(());
    }
    if site.read(&path).await?.as_ref() == Some(&bytes) { Ok(()) } else { Err(LogError::Differs { path }) }
}
