//! Checkpoints of a volume's log: their text, their names, and the right edge of the tree, from
//! which the tree of the next checkpoint is computed.
//!
//! Invariant: a checkpoint is accepted only in the exact form in which this program writes
//! checkpoints, with the origin of its own log and a valid signature by a known key.

use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash as Hash;
use thiserror::Error;

use super::note::{KeyId, Note, PublicKey, base64, from_base64};
use super::tree::{self, TILE_WIDTH, Tile};

/// Number of digits of a size in a checkpoint's name.
const SIZE_DIGITS: usize = 20;

/// A log, a size of its tree, and the root of the tree of that size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHead {
    pub log: VolumeId,
    pub size: u64,
    pub root: Hash,
}

/// Returns the name of the checkpoint of `size` that was signed by the key with this id. Names sort
/// by size.
pub fn checkpoint_name(size: u64, id: KeyId) -> String {
    format!("{size:0SIZE_DIGITS$}-{id}")
}

/// Returns the prefix of the names of all checkpoints of `size`. The names of larger checkpoints
/// sort after this prefix.
pub fn name_prefix(size: u64) -> String {
    format!("{size:0SIZE_DIGITS$}")
}

/// Splits the name of a timestamp. Returns the size and the name of its checkpoint, and the id of
/// the authority.
pub fn parse_timestamp_name(name: &str) -> Option<(u64, &str, &str)> {
    let (checkpoint, id) = name.rsplit_once('-')?;
    let hex = id.len() == 8 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (size, _) = parse_checkpoint_name(checkpoint).filter(|_| hex)?;
    Some((size, checkpoint, id))
}

/// Returns the size and the key id in the name of a checkpoint. A file of a witness's cosignature
/// has a name of the same form, with the id of the witness's key.
pub fn parse_checkpoint_name(name: &str) -> Option<(u64, &str)> {
    let (size, id) = name.split_once('-')?;
    let digits = size.len() == SIZE_DIGITS && size.bytes().all(|byte| byte.is_ascii_digit());
    let hex = id.len() == 8 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits && hex).then_some((size.parse().ok()?, id))
}

/// Returns the text of a checkpoint.
pub fn checkpoint_text(origin: &str, size: u64, root: &Hash) -> String {
    format!("{origin}\n{size}\n{}\n", base64(&root.0))
}

/// Returns origin, size and root from the text of a checkpoint; `None` if it does not have the
/// exact format of [`checkpoint_text`].
pub fn parse_checkpoint_text(text: &str) -> Option<(&str, u64, Hash)> {
    let mut lines = text.lines();
    let (origin, size, root) = (lines.next()?, lines.next()?.parse().ok()?, lines.next()?);
    let root = Hash(from_base64(root)?.try_into().ok()?);
    (checkpoint_text(origin, size, &root) == text).then_some((origin, size, root))
}

/// Why a note is not a checkpoint of its log.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CheckpointFault {
    #[error("not a checkpoint")]
    Malformed,
    #[error("its origin is {found}, not {origin}")]
    Origin { found: String, origin: String },
    #[error("it is not signed with a known key")]
    Signature,
    #[error("its size differs from its name")]
    Name,
    #[error("the largest checkpoint, of size {size}, is not signed with a known key")]
    KeyUnknown { size: u64 },
}

/// Checks that `note` is a checkpoint with this origin, signed by one of `keys`. Returns its size,
/// its root, and the index in `keys` of its signer.
pub fn check_note(
    note: &[u8],
    origin: &str,
    keys: &[PublicKey],
) -> Result<(u64, Hash, usize), CheckpointFault> {
    let note = Note::parse(note).ok_or(CheckpointFault::Malformed)?;
    let (found, size, root) = parse_checkpoint_text(note.text).ok_or(CheckpointFault::Malformed)?;
    if found != origin {
        return Err(CheckpointFault::Origin { found: found.to_owned(), origin: origin.to_owned() });
    }
    match note.signer(origin, keys) {
        Some(key) => Ok((size, root, key)),
        None => Err(CheckpointFault::Signature),
    }
}

/// The right edge of a tree: the hashes of the last, partial tile of each level.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    pub size: u64,
    pub levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// Adds a leaf. Tiles that the leaf completes are appended to `full`.
    pub fn push(&mut self, leaf: Hash, full: &mut Vec<(Tile, Vec<u8>)>) {
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

    /// Returns the partial tiles, and their bytes.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, Vec<u8>)> {
        self.levels.iter().enumerate().filter(|(_, hashes)| !hashes.is_empty()).map(|(level, hashes)| {
            let number = (self.size >> (8 * level)) / TILE_WIDTH;
            let bytes = hashes.iter().flat_map(|hash| hash.0).collect();
            (Tile { level: level as u32, number, width: hashes.len() as u64 }, bytes)
        })
    }

    /// Returns the root of the tree.
    pub fn root(&self) -> Hash {
        // The full subtrees are joined from the smallest to the largest: from the lowest level
        // upwards, and within a level from the last hash to the first.
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

#[cfg(test)]
mod tests {
    use strongroom_schemas::record::leaf_hash;

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
