//! The proof log of a volume: tiles and checkpoints, made behind the commits.
//!
//! Invariant: a checkpoint is written last, after the tiles of its size, so a log is whole at every size that was signed. A
//! run that dies on the way leaves tiles that the next one finds as it would have made them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::Utc;
use strongroom_schemas::Table;
use strongroom_schemas::record::{Sha256Hash as Hash, leaf_hash};

use super::keys::{self, Keys};
use super::note::{KeyId, Note, PublicKey, base64, from_base64};
use super::signer::Signer;
use super::tree::{self, TILE_WIDTH, Tile};
use super::{Head, ProofError, VolumeId};
use crate::fail::{FailPoints, Step};
use crate::layout;
use crate::retention::dropped;
use crate::store::Store;

/// Digits of a size in a checkpoint's name.
const SIZE_DIGITS: usize = 20;

pub(crate) fn folder(root: &Path, log: VolumeId) -> PathBuf {
    layout::volume(root, log).join(layout::TLOG)
}

pub(crate) fn checkpoint_folder(root: &Path, log: VolumeId) -> PathBuf {
    folder(root, log).join("checkpoint")
}

pub(crate) fn checkpoint_name(size: u64, id: KeyId) -> String {
    format!("{size:0SIZE_DIGITS$}-{id}")
}

/// Where the checkpoints lie that witnesses have cosigned.
pub(crate) fn witness_folder(root: &Path, log: VolumeId) -> PathBuf {
    folder(root, log).join("witness")
}

/// Where the timestamps of checkpoints lie.
pub(crate) fn timestamp_folder(root: &Path, log: VolumeId) -> PathBuf {
    folder(root, log).join("timestamp")
}

/// Size, name of the checkpoint, and what tells authorities apart, in the name of a timestamp.
pub(crate) fn parse_timestamp_name(name: &str) -> Option<(u64, &str, &str)> {
    let (checkpoint, id) = name.rsplit_once('-')?;
    let hex = id.len() == 8 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (size, _) = parse_checkpoint_name(checkpoint).filter(|_| hex)?;
    Some((size, checkpoint, id))
}

/// Size and key id in the name of a checkpoint, or of what is kept of one by others.
pub(crate) fn parse_checkpoint_name(name: &str) -> Option<(u64, &str)> {
    let (size, id) = name.split_once('-')?;
    let digits = size.len() == SIZE_DIGITS && size.bytes().all(|byte| byte.is_ascii_digit());
    let hex = id.len() == 8 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits && hex).then_some((size.parse().ok()?, id))
}

pub(crate) fn checkpoint_text(origin: &str, size: u64, root: &Hash) -> String {
    format!("{origin}\n{size}\n{}\n", base64(&root.0))
}

/// Origin, size and root of a checkpoint's text, which must be written as [`checkpoint_text`] writes it.
pub(crate) fn parse_checkpoint_text(text: &str) -> Option<(&str, u64, Hash)> {
    let mut lines = text.lines();
    let (origin, size, root) = (lines.next()?, lines.next()?.parse().ok()?, lines.next()?);
    let root = Hash(from_base64(root)?.try_into().ok()?);
    (checkpoint_text(origin, size, &root) == text).then_some((origin, size, root))
}

/// A checkpoint of `log` whose signature by one of `keys` holds; or what is wrong with it. Says which key it was.
pub(crate) fn check_note(
    note: &[u8],
    origin: &str,
    keys: &[PublicKey],
) -> Result<(u64, Hash, usize), (&'static str, String)> {
    let malformed = || ("checkpoint_malformed", "it is no checkpoint".to_owned());
    let note = Note::parse(note).ok_or_else(malformed)?;
    let (found, size, root) = parse_checkpoint_text(note.text).ok_or_else(malformed)?;
    if found != origin {
        return Err(("checkpoint_origin", format!("it is of {found}, not of {origin}")));
    }
    match note.signer(origin, keys) {
        Some(key) => Ok((size, root, key)),
        None => Err(("checkpoint_signature", "no known key has signed it".to_owned())),
    }
}

/// The right edge of a tree: the hashes of the last, partial tile of each level.
#[derive(Clone, Debug, Default)]
struct Edge {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// Adds a leaf; tiles that become full are added to `full`.
    fn push(&mut self, leaf: Hash, full: &mut Vec<(Tile, Vec<u8>)>) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() <= level {
                self.levels.push(Vec::new());
            }
            let tile = &mut self.levels[level];
            tile.push(hash);
            if (tile.len() as u64) < TILE_WIDTH {
                return;
            }
            let number = (self.size >> (8 * (level + 1))) - 1;
            let bytes = tile.iter().flat_map(|hash| hash.0).collect();
            full.push((Tile { level: level as u32, number, width: TILE_WIDTH }, bytes));
            hash = tree::root(tile);
            tile.clear();
        }
    }

    fn partial(&self) -> impl Iterator<Item = (Tile, Vec<u8>)> {
        self.levels.iter().enumerate().filter(|(_, hashes)| !hashes.is_empty()).map(|(level, hashes)| {
            let number = (self.size >> (8 * level)) / TILE_WIDTH;
            let bytes = hashes.iter().flat_map(|hash| hash.0).collect();
            (Tile { level: level as u32, number, width: hashes.len() as u64 }, bytes)
        })
    }

    fn root(&self) -> Hash {
        // Full subtrees from the smallest to the greatest: the levels upwards, each from its last hash.
        let mut root = None;
        for hashes in &self.levels {
            let mut rest = hashes.as_slice();
            while !rest.is_empty() {
                let (before, last) = rest.split_at(rest.len() - (1 << rest.len().trailing_zeros()));
                let last = tree::root(last);
                root = Some(root.map_or(last, |right| tree::node_hash(&last, &right)));
                rest = before;
            }
        }
        root.unwrap_or_else(|| tree::root(&[]))
    }
}

/// What sealing needs of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Sealing {
    pub(crate) store: Store,
    pub(crate) root: PathBuf,
    pub(crate) archive_id: String,
    pub(crate) signer: Arc<Signer>,
    pub(crate) seen: Seen,
}

/// Of each log the size of the newest checkpoint that this process has seen: older ones need not be listed again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<HashMap<VolumeId, u64>>>);

impl Seen {
    fn of(&self, log: VolumeId) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&log).copied().unwrap_or(0)
    }

    fn set(&self, log: VolumeId, size: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(log, size);
    }
}

impl Sealing {
    /// Checks that the signer's key is the archive's; an archive without a key gets it.
    pub(crate) async fn keys(&self) -> Result<Keys, ProofError> {
        let Sealing { store, root, archive_id, signer, .. } = self;
        let mut keys = keys::load(store, root, archive_id).await?;
        match keys.current() {
            None => {
                let manifest = manifest_hash(store, root).await?;
                let (archive, signers) = ((archive_id.as_str(), manifest), (None, &**signer));
                keys::append(store, root, &mut keys, archive, signers, (Vec::new(), Utc::now())).await?;
                Ok(keys)
            }
            Some(current) if current == signer.public() => Ok(keys),
            Some(current) => Err(ProofError::KeyNotCurrent { current }),
        }
    }

    /// Catches up every log.
    pub(crate) async fn all(&self) -> Result<Vec<Head>, ProofError> {
        let keys = self.keys().await?;
        let mut heads = Vec::new();
        for log in logs(&self.store, &self.root).await? {
            heads.extend(self.one(log, &keys, &FailPoints::default()).await?);
        }
        Ok(heads)
    }

    /// Catches up one log; `None` when it has no commit.
    pub(crate) async fn one(
        &self,
        log: VolumeId,
        keys: &Keys,
        fail_points: &FailPoints,
    ) -> Result<Option<Head>, ProofError> {
        let Sealing { store, root, archive_id, signer, seen } = self;
        let origin = log.origin(archive_id);
        // Names sort by size, so those from the one seen last on are enough. Checkpoints are never removed: where there is
        // none of them any more, something is wrong, and all are looked at.
        let newest = match newest(store, root, (log, seen.of(log)), &origin, keys).await? {
            None if seen.of(log) > 0 => newest(store, root, (log, 0), &origin, keys).await?,
            newest => newest,
        };
        let (before, signed_by_us) =
            newest.as_ref().map_or((0, false), |(head, key)| (head.size, keys.current() == Some(*key)));
        let mut edge = match &newest {
            None => Edge::default(),
            Some((head, _)) => self.edge(head).await?,
        };
        let mut tiles = Vec::new();
        loop {
            let path = layout::commit(&layout::volume(root, log), edge.size);
            let commit = store.read(&path).await;
            let Some(commit) = commit.map_err(|source| ProofError::Read { path, source })? else { break };
            edge.push(leaf_hash(&commit), &mut tiles);
        }
        if edge.size == 0 {
            return Ok(None);
        }
        let head = Head { log, size: edge.size, root: edge.root() };
        seen.set(log, before);
        if edge.size == before && signed_by_us {
            return Ok(Some(head));
        }
        let folder = folder(root, log);
        let pass = |path: &Path| {
            let path = path.to_owned();
            fail_points.pass(Step::Proof).map_err(|source| ProofError::Write { path, source })
        };
        for (tile, bytes) in tiles.into_iter().chain(edge.partial()) {
            let path = folder.join(tile.path());
            pass(&path)?;
            put_same(store, path, bytes.into()).await?;
        }
        pass(&folder)?;
        let text = checkpoint_text(&origin, head.size, &head.root);
        let note = format!("{text}\n{}", signer.sign(&origin, &text)?);
        let name = checkpoint_name(head.size, signer.public().id(&origin));
        put_same(store, folder.join("checkpoint").join(name), note.into()).await?;
        seen.set(log, head.size);
        Ok(Some(head))
    }

    /// The edge of the tree at a head that was signed: from its tiles, else from the commits.
    async fn edge(&self, head: &Head) -> Result<Edge, ProofError> {
        let Sealing { store, root, .. } = self;
        let folder = folder(root, head.log);
        let mut edge = Edge { size: head.size, levels: Vec::new() };
        for level in 0.. {
            let hashes = head.size >> (8 * level);
            if hashes == 0 {
                break;
            }
            let (number, width) = (hashes / TILE_WIDTH, hashes % TILE_WIDTH);
            edge.levels.push(match width {
                0 => Vec::new(),
                width => tile_hashes(store, &folder, Tile { level, number, width }).await?,
            });
        }
        if edge.root() == head.root {
            return Ok(edge);
        }
        // Tiles are missing or were changed. They say nothing that the commits do not.
        let mut edge = Edge::default();
        while edge.size < head.size {
            let path = layout::commit(&layout::volume(root, head.log), edge.size);
            let commit = store.read(&path).await;
            let Some(commit) = commit.map_err(|source| ProofError::Read { path, source })? else { break };
            edge.push(leaf_hash(&commit), &mut Vec::new());
        }
        match edge.size == head.size && edge.root() == head.root {
            true => Ok(edge),
            false => Err(ProofError::Forked { log: head.log.name(), size: head.size }),
        }
    }
}

/// What is kept of a tile: itself, or the full one that has taken its place.
pub(crate) async fn tile_bytes(
    store: &Store,
    folder: &Path,
    tile: Tile,
) -> Result<Option<Bytes>, ProofError> {
    for path in [tile.path(), tile.full().path()] {
        let path = folder.join(path);
        let bytes = store.read(&path).await;
        let bytes = bytes.map_err(|source| ProofError::Read { path, source })?;
        if bytes.is_some() {
            return Ok(bytes);
        }
    }
    Ok(None)
}

/// The hashes of a tile, as far as it is there.
async fn tile_hashes(store: &Store, folder: &Path, tile: Tile) -> Result<Vec<Hash>, ProofError> {
    let bytes = tile_bytes(store, folder, tile).await?.unwrap_or_default();
    let hash = |bytes: &[u8]| Hash(bytes.try_into().expect("chunks of 32"));
    Ok(bytes.chunks_exact(32).take(tile.width as usize).map(hash).collect())
}

/// The consistency proof from the first `old` commits to a head that was signed: from its tiles, else from the commits.
pub(crate) async fn consistency(
    store: &Store,
    root: &Path,
    head: &Head,
    old: u64,
) -> Result<Vec<Hash>, ProofError> {
    let ranges = tree::consistency_ranges(old, head.size);
    let mut nodes = Nodes { store, folder: folder(root, head.log), size: head.size, tiles: HashMap::new() };
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
    // Tiles are missing or were changed. They say nothing that the commits do not.
    let mut leaves = Vec::new();
    for index in 0..head.size {
        let path = layout::commit(&layout::volume(root, head.log), index);
        let commit = store.read_present(&path).await;
        leaves.push(leaf_hash(&commit.map_err(|source| ProofError::Read { path, source })?));
    }
    let of = |range: &Range<u64>| tree::root(&leaves[range.start as usize..range.end as usize]);
    let proof: Vec<Hash> = ranges.iter().map(of).collect();
    match holds(of(&(0..old)), of(&(0..head.size)), &proof) {
        true => Ok(proof),
        false => Err(ProofError::Forked { log: head.log.name(), size: head.size }),
    }
}

/// Roots of parts of a log, read from its tiles. What a tile does not have is a hash of nothing: who asks compares.
struct Nodes<'s> {
    store: &'s Store,
    folder: PathBuf,
    size: u64,
    tiles: HashMap<(u32, u64), Vec<Hash>>,
}

impl Nodes<'_> {
    async fn root(&mut self, range: &Range<u64>) -> Result<Hash, ProofError> {
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

    async fn tile(&mut self, level: u32, number: u64) -> Result<&[Hash], ProofError> {
        if let Entry::Vacant(place) = self.tiles.entry((level, number)) {
            let width = (self.size >> (8 * level)).saturating_sub(number * TILE_WIDTH).min(TILE_WIDTH);
            place.insert(tile_hashes(self.store, &self.folder, Tile { level, number, width }).await?);
        }
        Ok(&self.tiles[&(level, number)])
    }
}

pub(crate) async fn manifest_hash(store: &Store, root: &Path) -> Result<Hash, ProofError> {
    let path = root.join(layout::MANIFEST);
    let bytes = store.read_present(&path).await;
    Ok(Hash::of(&bytes.map_err(|source| ProofError::Read { path, source })?))
}

/// The volumes that an archive has.
pub(crate) async fn logs(store: &Store, root: &Path) -> Result<Vec<VolumeId>, ProofError> {
    let mut logs = Vec::new();
    for table in Table::ALL {
        let periods = dropped::periods(store, root, table).await?;
        logs.extend(periods.into_iter().map(|period| VolumeId { table, period }));
    }
    Ok(logs)
}

/// The checkpoint of greatest size, at least `from`, and the key that signed it; of several of one size that of the
/// newest key.
pub(crate) async fn newest(
    store: &Store,
    root: &Path,
    (log, from): (VolumeId, u64),
    origin: &str,
    keys: &Keys,
) -> Result<Option<(Head, PublicKey)>, ProofError> {
    let folder = checkpoint_folder(root, log);
    let names = store.names_from(&folder, &format!("{from:0SIZE_DIGITS$}")).await?;
    let Some(size) = names.iter().filter_map(|name| Some(parse_checkpoint_name(name)?.0)).max() else {
        return Ok(None);
    };
    let all = keys.all();
    for key in all.iter().rev() {
        let path = folder.join(checkpoint_name(size, key.id(origin)));
        let note = store.read(&path).await;
        let Some(note) = note.map_err(|source| ProofError::Read { path: path.clone(), source })? else {
            continue;
        };
        return match check_note(&note, origin, &[*key]) {
            Ok((found, root, _)) if found == size => Ok(Some((Head { log, size, root }, *key))),
            Ok(_) => {
                Err(ProofError::Checkpoint { path, detail: "its size is not that of its name".to_owned() })
            }
            Err((_, detail)) => Err(ProofError::Checkpoint { path, detail }),
        };
    }
    let detail = format!("the greatest, of size {size}, is by no known key");
    Err(ProofError::Checkpoint { path: folder, detail })
}

/// The newest checkpoint with its name and its bytes.
pub(crate) async fn newest_note(
    store: &Store,
    root: &Path,
    log: VolumeId,
    origin: &str,
    keys: &Keys,
) -> Result<Option<(Head, String, Bytes)>, ProofError> {
    let Some((head, key)) = newest(store, root, (log, 0), origin, keys).await? else { return Ok(None) };
    let name = checkpoint_name(head.size, key.id(origin));
    let path = checkpoint_folder(root, log).join(&name);
    let note = store.read_present(&path).await;
    Ok(Some((head, name, note.map_err(|source| ProofError::Read { path, source })?)))
}

/// Writes a name once; one that is there must have the same content.
async fn put_same(store: &Store, path: PathBuf, bytes: Bytes) -> Result<(), ProofError> {
    let put = store.put_proof(&path, bytes.clone()).await;
    if put.map_err(|source| ProofError::Write { path: path.clone(), source })? {
        return Ok(());
    }
    let found = store.read(&path).await.map_err(|source| ProofError::Read { path: path.clone(), source })?;
    if found.as_ref() == Some(&bytes) { Ok(()) } else { Err(ProofError::Differs { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_of_a_tree_has_its_root_and_its_tiles() {
        let hashes: Vec<Hash> = (0..70_000u32).map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect();
        let levels = tree::levels(hashes.clone());
        let (mut edge, mut made) = (Edge::default(), Vec::new());
        for (at, hash) in hashes.iter().enumerate() {
            edge.push(*hash, &mut made);
            let size = at + 1;
            if size < 600 || size % 9973 == 0 || size == 65_536 {
                assert_eq!(edge.root(), tree::root(&hashes[..size]), "{size}");
            }
        }
        made.extend(edge.partial());
        assert_eq!(
            made.iter().map(|(tile, _)| *tile).collect::<std::collections::BTreeSet<_>>(),
            tree::tiles(0, 70_000).into_iter().collect()
        );
        for (tile, bytes) in made {
            assert_eq!(bytes, tile.bytes(&levels[tile.level as usize]), "{tile:?}");
        }
    }

    #[test]
    fn names_of_checkpoints_round_trip() {
        let name = checkpoint_name(17, KeyId([0xab, 0, 1, 2]));
        assert_eq!(name, "00000000000000000017-ab000102");
        assert_eq!(parse_checkpoint_name(&name), Some((17, "ab000102")));
        for wrong in ["17-ab000102", "00000000000000000017", "00000000000000000017-AB000102", "latest"] {
            assert_eq!(parse_checkpoint_name(wrong), None, "{wrong}");
        }
    }
}
