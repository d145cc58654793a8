//! The Merkle tree of RFC 6962, section 2.1, over SHA-256: roots, tiles, inclusion proofs.
//!
//! Invariant: every hash is the one that the RFC defines, for any number of leaves. The bytes that
//! are hashed for a leaf and for an inner node start differently, so an inner node cannot be
//! presented as a leaf.

use std::ops::Range;

use sha2::{Digest as _, Sha256};
use strongroom_schemas::record::Sha256Hash as Hash;

const NODE: u8 = 1;
/// Number of hashes in a full tile.
pub const TILE_WIDTH: u64 = 256;
const TILE_HEIGHT: u32 = 8;

/// Returns the hash of a node over two subtrees, as RFC 6962 defines it.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut both = [0; 65];
    both[0] = NODE;
    both[1..33].copy_from_slice(&left.0);
    both[33..].copy_from_slice(&right.0);
    Hash(Sha256::digest(both).into())
}

/// An append-only tree, stored as the roots of its full subtrees, largest first: one hash for each
/// bit that is set in its size.
#[derive(Clone, Debug, Default)]
pub struct CompactRange {
    size: u64,
    subtrees: Vec<Hash>,
}

impl CompactRange {
    /// Adds a leaf at the end.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.subtrees.pop().expect("one subtree for each bit of the size");
            hash = node_hash(&left, &hash);
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// Returns the number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the root over the leaves.
    pub fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        let Some(last) = subtrees.next() else { return Hash(Sha256::digest([]).into()) };
        subtrees.fold(*last, |right, left| node_hash(left, &right))
    }
}

impl Extend<Hash> for CompactRange {
    fn extend<T: IntoIterator<Item = Hash>>(&mut self, leaves: T) {
        leaves.into_iter().for_each(|leaf| self.push(leaf));
    }
}

/// Returns the root over leaf hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut range = CompactRange::default();
    range.extend(leaves.iter().copied());
    range.root()
}

/// All nodes of a tree, from which inclusion proofs of many of its leaves are made. Takes 64 bytes
/// of memory for each leaf.
#[derive(Debug)]
pub struct Paths {
    /// From the leaves upwards. A last node without a sibling is copied to the level above.
    levels: Vec<Vec<Hash>>,
}

impl Paths {
    /// Computes all nodes of the tree over these leaves.
    pub fn over(leaves: Vec<Hash>) -> Paths {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => node_hash(left, right),
                alone => alone[0],
            });
            let above = above.collect();
            levels.push(above);
        }
        Paths { levels }
    }

    /// Returns the root; `None` without leaves.
    pub fn root(&self) -> Option<Hash> {
        self.levels.last().and_then(|level| level.first()).copied()
    }

    /// Returns the inclusion proof of a leaf, from the leaf upwards: RFC 6962, section 2.1.1.
    pub fn of(&self, index: u64) -> Vec<Hash> {
        let siblings = self.levels.iter().zip(0..).map(|(level, height)| {
            let sibling = usize::try_from((index >> height) ^ 1).ok()?;
            level.get(sibling).copied()
        });
        siblings.flatten().collect()
    }
}

/// Returns the root that an inclusion proof leads to, as in RFC 9162, section 2.1.3.2; `None` if
/// the length of `path` is wrong for this index and size.
pub fn root_of_inclusion(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// Returns the ranges of leaves whose roots make up the consistency proof from a tree of `old`
/// leaves to a tree of `new` leaves, in proof order: PROOF of RFC 6962, section 2.1.2. The result
/// is empty if there is nothing to prove: if `old` is 0, or not less than `new`.
pub fn consistency_ranges(old: u64, new: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    if old == 0 || old >= new {
        return ranges;
    }
    // SUBPROOF descends to the end of the old tree. The siblings along its path are the nodes of
    // the proof, from the bottom up.
    let (mut start, mut end, mut is_whole) = (0, new, true);
    while old != end {
        let split = start + (1 << (end - start - 1).ilog2());
        if old <= split {
            ranges.push(split..end);
            end = split;
        } else {
            ranges.push(start..split);
            start = split;
            is_whole = false;
        }
    }
    if !is_whole {
        ranges.push(start..end);
    }
    ranges.reverse();
    ranges
}

/// Returns the full subtrees that make up a range, from left to right: for each, its height and its
/// position among the subtrees of that height.
///
/// The start of the range must be a multiple of the least power of two that is not less than its
/// length. This is so for the ranges of [`consistency_ranges`] and of whole trees.
pub fn subtrees(range: &Range<u64>) -> Vec<(u32, u64)> {
    let mut subtrees = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let height = (range.end - start).ilog2();
        subtrees.push((height, start >> height));
        start += 1 << height;
    }
    subtrees
}

/// Returns the root over the roots of [`subtrees`].
pub fn root_of_subtrees(roots: &[Hash]) -> Hash {
    let mut roots = roots.iter().rev();
    let Some(last) = roots.next() else { return Hash(Sha256::digest([]).into()) };
    roots.fold(*last, |right, left| node_hash(left, &right))
}

/// Whether `proof` shows that the tree of `new` leaves starts with the tree of `old` leaves: RFC
/// 9162, section 2.1.4.2. If the sizes are equal, the roots must be equal and the proof must be
/// empty. The proof must also be empty if `old` is 0, because every tree starts with the empty
/// tree.
pub fn is_consistent((old, old_root): (u64, &Hash), (new, new_root): (u64, &Hash), proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == 0 || old == new {
        let is_root = |size: u64, root: &Hash| size > 0 || *root == root_of_subtrees(&[]);
        let is_same = old != new || old_root == new_root;
        return proof.is_empty() && is_same && is_root(old, old_root) && is_root(new, new_root);
    }
    let (mut at, mut last) = (old - 1, new - 1);
    let shift = at.trailing_ones();
    (at, last) = (at >> shift, last >> shift);
    // If the size of the old tree is a power of two, the first node of the proof would be the old
    // root, so the proof leaves that node out.
    let mut proof = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { proof.next() };
    let Some(first) = first else { return false };
    let (mut old_found, mut new_found) = (*first, *first);
    for node in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_found = node_hash(node, &old_found);
            new_found = node_hash(node, &new_found);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_found = node_hash(&new_found, node);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_found == *old_root && new_found == *new_root
}

/// A tile of C2SP tlog-tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    pub level: u32,
    pub number: u64,
    /// Number of hashes in it, 1 to 256.
    pub width: u64,
}

impl Tile {
    /// Returns the path relative to a log, as in the specification.
    pub fn path(&self) -> String {
        let mut number = format!("{:03}", self.number % 1000);
        let mut rest = self.number / 1000;
        while rest > 0 {
            number = format!("x{:03}/{number}", rest % 1000);
            rest /= 1000;
        }
        match self.width {
            TILE_WIDTH => format!("tile/{}/{number}", self.level),
            width => format!("tile/{}/{number}.p/{width}", self.level),
        }
    }

    /// Returns the full tile that replaces this one.
    pub fn full(&self) -> Tile {
        Tile { width: TILE_WIDTH, ..*self }
    }

    /// Returns the content of this tile, from the hashes of its level.
    #[cfg(test)]
    pub fn bytes(&self, level: &[Hash]) -> Vec<u8> {
        let first = (self.number * TILE_WIDTH) as usize;
        level[first..first + self.width as usize].iter().flat_map(|hash| hash.0).collect()
    }
}

/// Returns the tiles that must be written or checked when a log grows from `before` to `size`
/// leaves: those that are new, and those that have become wider.
pub fn tiles(before: u64, size: u64) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for level in 0..u64::BITS / TILE_HEIGHT {
        let (old, new) = (before >> (TILE_HEIGHT * level), size >> (TILE_HEIGHT * level));
        if new == 0 {
            break;
        }
        for number in old / TILE_WIDTH..new / TILE_WIDTH {
            tiles.push(Tile { level, number, width: TILE_WIDTH });
        }
        let width = new % TILE_WIDTH;
        if width > 0 && new != old {
            tiles.push(Tile { level, number: new / TILE_WIDTH, width });
        }
    }
    tiles
}

/// Returns the hashes of every level of tiles over `leaves`. Level 0 is the leaves; each next level
/// is the roots of the full tiles of the level below it.
pub fn levels(leaves: Vec<Hash>) -> Vec<Vec<Hash>> {
    let mut levels = vec![leaves];
    while let Some(below) = levels.last().filter(|level| level.len() as u64 >= TILE_WIDTH) {
        let above = below.chunks_exact(TILE_WIDTH as usize).map(root).collect();
        levels.push(above);
    }
    levels
}

#[cfg(test)]
mod tests {
    use strongroom_schemas::record::leaf_hash;

    use super::*;

    /// Computes the root as RFC 6962 defines it, word by word.
    fn mth(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Hash(Sha256::digest([]).into()),
            [leaf] => leaf_hash(leaf),
            _ => {
                let split = 1 << (leaves.len() - 1).ilog2();
                node_hash(&mth(&leaves[..split]), &mth(&leaves[split..]))
            }
        }
    }

    /// Leaves and roots of the test vectors shared by implementations of Certificate Transparency.
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut range = CompactRange::default();
        assert_eq!(
            range.root().to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for (leaf, root) in leaves.iter().zip(roots) {
            range.push(leaf_hash(leaf));
            assert_eq!(range.root().to_string(), root);
            assert_eq!(Hash::parse(root), Some(range.root()));
        }
        assert_eq!(Hash::parse(&roots[0].to_uppercase()), None);
    }

    #[test]
    fn every_leaf_of_every_tree_is_proven_and_no_other() {
        let leaves: Vec<Vec<u8>> = (0..70u8).map(|leaf| vec![leaf; leaf as usize]).collect();
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        for size in 1..=leaves.len() {
            let expected = mth(&leaves[..size]);
            assert_eq!(root(&hashes[..size]), expected, "{size}");
            for index in 0..size {
                let path = Paths::over(hashes[..size].to_vec()).of(index as u64);
                let proven = |leaf, at, size, path: &[Hash]| root_of_inclusion(leaf, at, size, path);
                assert_eq!(proven(hashes[index], index as u64, size as u64, &path), Some(expected));
                assert_ne!(proven(leaf_hash(b"another"), index as u64, size as u64, &path), Some(expected));
                let elsewhere = (index as u64 + 1) % size as u64;
                if size > 1 {
                    assert_ne!(proven(hashes[index], elsewhere, size as u64, &path), Some(expected));
                    assert_eq!(proven(hashes[index], index as u64, size as u64, &path[1..]), None);
                }
                assert_eq!(proven(hashes[index], size as u64, size as u64, &path), None);
            }
        }
    }

    /// Computes PROOF and SUBPROOF of RFC 6962, section 2.1.2, word by word.
    fn proof(old: usize, leaves: &[Vec<u8>], is_whole: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if is_whole { Vec::new() } else { vec![mth(leaves)] };
        }
        let split = 1 << (leaves.len() - 1).ilog2();
        let (left, right) = leaves.split_at(split);
        let (mut nodes, beside) = match old <= split {
            true => (proof(old, left, is_whole), right),
            false => (proof(old - split, right, false), left),
        };
        nodes.push(mth(beside));
        nodes
    }

    #[test]
    fn every_tree_is_shown_to_continue_every_smaller_one_and_no_other() {
        let leaves: Vec<Vec<u8>> = (0..66u8).map(|leaf| vec![leaf; leaf as usize]).collect();
        let another = leaf_hash(b"another");
        for new in 1..=leaves.len() {
            let new_root = mth(&leaves[..new]);
            for old in 1..=new {
                let old_root = mth(&leaves[..old]);
                let (old, new) = (old as u64, new as u64);
                let ranges = consistency_ranges(old, new);
                let nodes: Vec<Hash> = ranges
                    .iter()
                    .map(|range| {
                        let full = subtrees(range).into_iter().map(|(height, at)| {
                            mth(&leaves[(at << height) as usize..((at + 1) << height) as usize])
                        });
                        root_of_subtrees(&full.collect::<Vec<_>>())
                    })
                    .collect();
                assert_eq!(nodes, proof(old as usize, &leaves[..new as usize], true), "{old} to {new}");
                assert!(nodes.len() <= 63);
                let check = |old_root, new_root, nodes: &[Hash]| {
                    is_consistent((old, old_root), (new, new_root), nodes)
                };
                assert!(check(&old_root, &new_root, &nodes), "{old} to {new}");
                assert!(!check(&another, &new_root, &nodes), "{old} to {new}");
                assert!(!check(&old_root, &another, &nodes), "{old} to {new}");
                assert!(!is_consistent((new + 1, &old_root), (new, &new_root), &nodes));
                let mut longer = nodes.clone();
                longer.push(another);
                assert!(!check(&old_root, &new_root, &longer));
                for at in 0..nodes.len() {
                    assert!(!check(&old_root, &new_root, &nodes[..at]), "{old} to {new} cut at {at}");
                    let mut changed = nodes.clone();
                    changed[at] = another;
                    assert!(!check(&old_root, &new_root, &changed), "{old} to {new} changed at {at}");
                }
            }
        }
        let empty = root(&[]);
        assert!(is_consistent((0, &empty), (5, &another), &[]));
        assert!(!is_consistent((0, &empty), (5, &another), &[another]));
        assert!(!is_consistent((0, &another), (5, &another), &[]));
        assert!(is_consistent((0, &empty), (0, &empty), &[]));
        assert!(!is_consistent((0, &empty), (0, &another), &[]));
    }

    #[test]
    fn tiles_are_those_of_the_spec() {
        let tile = |level, number, width| Tile { level, number, width };
        assert_eq!(tile(1, 1_234_067, 256).path(), "tile/1/x001/x234/067");
        assert_eq!(tile(0, 7, 12).path(), "tile/0/007.p/12");
        let all = tiles(0, 70_000);
        assert_eq!(all.iter().filter(|tile| tile.level == 0 && tile.width == 256).count(), 273);
        assert!(all.contains(&tile(0, 273, 112)) && all.contains(&tile(1, 0, 256)));
        assert!(all.contains(&tile(1, 1, 17)) && all.contains(&tile(2, 0, 1)));
        assert_eq!(all.len(), 273 + 4);
        assert_eq!(tiles(0, 256), [tile(0, 0, 256), tile(1, 0, 1)]);
        assert_eq!(tiles(256, 258), [tile(0, 1, 2)]);
        assert_eq!(tiles(255, 256), [tile(0, 0, 256), tile(1, 0, 1)]);
        assert_eq!(tiles(5, 5), []);
    }

    #[test]
    fn tiles_hold_the_tree() {
        let hashes: Vec<Hash> = (0..700u32).map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect();
        let levels = levels(hashes.clone());
        assert_eq!(levels.iter().map(Vec::len).collect::<Vec<_>>(), [700, 2]);
        assert_eq!(levels[1][1], root(&hashes[256..512]));
        let bytes = Tile { level: 1, number: 0, width: 2 }.bytes(&levels[1]);
        assert_eq!(bytes[32..], levels[1][1].0);
    }
}
