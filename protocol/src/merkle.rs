//! Merkle trees with the shape of RFC 6962 §2.1 and keccak256: a leaf is hashed after the byte 0x00 and a pair of nodes
//! after 0x01, so that no leaf can pass for a node. Paths are checked as in RFC 9162 §2.1.3.2.

use alloy_primitives::{B256, Keccak256};
use serde::{Deserialize, Serialize};

/// First byte of what is hashed into a leaf.
const LEAF_PREFIX: u8 = 0x00;
/// First byte of what is hashed into an inner node.
const NODE_PREFIX: u8 = 0x01;

/// Why a tree cannot be built, or a path does not prove its leaf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MerkleError {
    /// The root of nothing is left undefined on purpose.
    #[error("a Merkle tree needs at least one leaf")]
    Empty,
    /// Positions are 32-bit numbers.
    #[error("a Merkle tree of {leaves} leaves is larger than 2^32 - 1")]
    TooLarge {
        /// Leaves given.
        leaves: usize,
    },
    /// No such leaf.
    #[error("position {index} is outside a Merkle tree of {leaves} leaves")]
    OutOfRange {
        /// Position asked for.
        index: u32,
        /// Leaves of the tree.
        leaves: u32,
    },
    /// The path has more or fewer siblings than its position needs.
    #[error("a Merkle path of {found} siblings does not fit position {index} of {leaves}")]
    Length {
        /// Position claimed.
        index: u32,
        /// Leaves claimed.
        leaves: u32,
        /// Siblings given.
        found: usize,
    },
    /// Another leaf, another position or another tree.
    #[error("the Merkle path of position {index} leads to {found} and not to the root {expected}")]
    Root {
        /// Position claimed.
        index: u32,
        /// Root given.
        expected: B256,
        /// Root that the path leads to.
        found: B256,
    },
}

/// Hash of a leaf's bytes.
pub fn leaf_hash(bytes: &[u8]) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update([LEAF_PREFIX]);
    hasher.update(bytes);
    hasher.finalize()
}

fn node_hash(left: &B256, right: &B256) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update([NODE_PREFIX]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize()
}

/// A whole tree, kept so that any path can be read from it.
#[derive(Clone, Debug)]
pub struct MerkleTree {
    leaves: u32,
    root: B256,
    /// Every level below the root, leaves first. The last node of an odd level is carried up unchanged, which gives the
    /// shape of RFC 6962.
    levels: Vec<Vec<B256>>,
}

impl MerkleTree {
    /// Builds the tree over leaf hashes, which come from [`leaf_hash`]: a caller that passes anything else gives up the
    /// separation of leaves and nodes.
    pub fn new(leaf_hashes: Vec<B256>) -> Result<Self, MerkleError> {
        let leaves =
            u32::try_from(leaf_hashes.len()).map_err(|_| MerkleError::TooLarge { leaves: leaf_hashes.len() })?;
        let mut levels = Vec::new();
        let mut level = leaf_hashes;
        loop {
            match level.as_slice() {
                [] => return Err(MerkleError::Empty),
                [root] => return Ok(Self { leaves, root: *root, levels }),
                nodes => {
                    let above = nodes.chunks(2).map(|pair| match pair {
                        [left, right] => node_hash(left, right),
                        // `chunks(2)` yields one or two nodes.
                        single => single.first().copied().unwrap_or_default(),
                    });
                    let above = above.collect();
                    levels.push(std::mem::replace(&mut level, above));
                }
            }
        }
    }

    /// The root.
    pub const fn root(&self) -> B256 {
        self.root
    }

    /// Number of leaves.
    pub const fn leaves(&self) -> u32 {
        self.leaves
    }

    /// What proves that the leaf at this position, from 0, is part of the tree.
    pub fn path(&self, index: u32) -> Result<MerklePath, MerkleError> {
        let leaves = self.leaves;
        let out_of_range = || MerkleError::OutOfRange { index, leaves };
        if index >= leaves {
            return Err(out_of_range());
        }
        let mut siblings = Vec::new();
        let mut position = usize::try_from(index).map_err(|_| out_of_range())?;
        for level in &self.levels {
            siblings.extend(level.get(position ^ 1));
            position >>= 1;
        }
        Ok(MerklePath { index, leaves, siblings })
    }
}

/// Proof that a leaf is part of a tree.
///
/// A root does not bind the number of leaves or, by itself, the position: `leaves` and `index` must be compared with
/// what is committed, as [`crate::commitment`] does. Comes from outside, so nothing in it is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MerklePath {
    /// Position of the leaf, from 0.
    pub index: u32,
    /// Number of leaves of the tree.
    pub leaves: u32,
    /// Neighbours from the leaf's level upwards.
    pub siblings: Vec<B256>,
}

impl MerklePath {
    /// Checks that this leaf hash at this position leads to the root, with no sibling missing or left over.
    pub fn verify(&self, leaf: B256, root: B256) -> Result<(), MerkleError> {
        let Self { index, leaves, .. } = *self;
        let last = match leaves.checked_sub(1) {
            Some(last) if index <= last => last,
            _ => return Err(MerkleError::OutOfRange { index, leaves }),
        };
        let length = MerkleError::Length { index, leaves, found: self.siblings.len() };
        let (mut position, mut last, mut found) = (index, last, leaf);
        for sibling in &self.siblings {
            if last == 0 {
                return Err(length);
            }
            if position & 1 == 1 || position == last {
                found = node_hash(sibling, &found);
                // The last node of an odd level has no neighbour there: it was carried up until it became a right one.
                while position & 1 == 0 && position != 0 {
                    position >>= 1;
                    last >>= 1;
                }
            } else {
                found = node_hash(&found, sibling);
            }
            position >>= 1;
            last >>= 1;
        }
        if last != 0 {
            return Err(length);
        }
        if found != root {
            return Err(MerkleError::Root { index, expected: root, found });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of RFC 6962 §2.1, word for word: split at the largest power of two below the length.
    fn definition(leaves: &[B256]) -> B256 {
        if let [leaf] = leaves {
            return *leaf;
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        node_hash(&definition(left), &definition(right))
    }

    fn leaves(count: u32) -> Vec<B256> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn roots_follow_the_definition_and_every_path_verifies() {
        for count in (1..70).chain([255, 256, 257]) {
            let leaves = leaves(count);
            let tree = MerkleTree::new(leaves.clone()).unwrap();
            assert_eq!(tree.root(), definition(&leaves), "{count}");
            assert_eq!(tree.leaves(), count);
            for (index, leaf) in (0..).zip(&leaves) {
                tree.path(index).unwrap().verify(*leaf, tree.root()).unwrap();
            }
            assert_eq!(tree.path(count), Err(MerkleError::OutOfRange { index: count, leaves: count }));
        }
    }

    #[test]
    fn the_root_of_nothing_is_refused() {
        assert_eq!(MerkleTree::new(Vec::new()).unwrap_err(), MerkleError::Empty);
    }

    #[test]
    fn a_node_cannot_pass_for_a_leaf() {
        let tree = MerkleTree::new(leaves(4)).unwrap();
        let forged = MerklePath { index: 0, leaves: 2, siblings: vec![tree.levels[1][1]] };
        // The hash of the node itself does lead to the root; the bytes that a leaf would need hash to something else.
        forged.verify(tree.levels[1][0], tree.root()).unwrap();
        let bytes = [tree.levels[0][0].as_slice(), tree.levels[0][1].as_slice()].concat();
        assert!(matches!(forged.verify(leaf_hash(&bytes), tree.root()), Err(MerkleError::Root { .. })));
    }
}
