//! The transparency log of a volume (one Delta table of an archive): trees, tiles, notes, keys,
//! checkpoints, cosignatures and timestamps. `docs/proof.md` has the formats.
//!
//! ```
//! use strongroom_schemas::record::leaf_hash;
//! use strongroom_tlog::tree::{Paths, root, root_of_inclusion};
//!
//! let leaves = [b"0".as_slice(), b"1", b"2"].map(leaf_hash);
//! let proof = Paths::over(leaves.to_vec()).of(1);
//! assert_eq!(root_of_inclusion(leaves[1], 1, 3, &proof), Some(root(&leaves)));
//! assert_ne!(root_of_inclusion(leaves[0], 1, 3, &proof), Some(root(&leaves)));
//! ```
//!
//! Invariants: this crate does not read or write an archive. Signatures, consistency proofs and
//! timestamps count only after this crate has checked them.

pub mod checkpoint;
pub mod cosignature;
pub mod error;
pub mod keys;
pub mod note;
pub mod signer;
pub mod timestamp;
pub mod tree;

pub use self::checkpoint::{CheckpointFault, TreeHead};
pub use self::cosignature::WitnessKey;
pub use self::error::TlogError;
pub use self::keys::{KeyFault, KeyRecord, Keys};
pub use self::note::{KeyId, NAME_DEFAULT, PrivateKey, PublicKey};
pub use self::signer::Signer;
pub use self::timestamp::TimestampAuthorities;
