//! Merkle trees whose nodes carry sums, as `MerkleSum.sol` has them: one leaf is one statement, and every node carries the
//! counts and the charge of everything below it. A host cannot report less in total than it reports leaf by leaf. Leaves
//! are sorted by digest, so two neighbours prove that nothing stands between them.
//!
//! The shape is that of RFC 6962 §2.1, as in [`crate::merkle`]. Integers are big-endian and as wide as their types:
//!
//! | what | bytes, hashed with keccak256 |
//! |---|---|
//! | sums | requests promptTokens cachedTokens completionTokens (8 each) charge (16) |
//! | leaf | 0x00 digest promptTokens cachedTokens completionTokens (8 each) charge (16); it counts one request |
//! | node | 0x01, left hash, left sums, right hash, right sums |
//! | root | 0x02, top hash, top sums; 0 when there are no leaves |
//!
//! A tree that its host built wrongly (unsorted, with false sums inside) proves nothing but that the root commits to it.
//! The host alone is harmed: what it cannot show it loses by silence, and what it shows twice proves too much.

use alloy_primitives::{B256, Keccak256};
use serde::{Deserialize, Serialize};

use crate::{
    counts::{CountError, RequestUsage, UsageTotals},
    ids::StatementDigest,
    units::Amount,
};

pub mod wire;

/// First byte of what is hashed into a leaf.
const LEAF_PREFIX: u8 = 0x00;
/// First byte of what is hashed into an inner node.
const NODE_PREFIX: u8 = 0x01;
/// First byte of what is hashed into a root.
const ROOT_PREFIX: u8 = 0x02;

/// Why a tree cannot be built, or a proof shows nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MerkleSumError {
    /// One statement is counted once.
    #[error("statement {digest} is given twice")]
    Duplicate {
        /// The statement.
        digest: StatementDigest,
    },
    /// Sums have 64 bits, and 128 for the charge.
    #[error("failed to add up the nodes of a tree")]
    SumOverflow(#[from] CountError),
    /// No such leaf.
    #[error("statement {digest} is not in the tree")]
    NotIncluded {
        /// The statement.
        digest: StatementDigest,
    },
    /// The path leads to another root.
    #[error("the path leads to the root {actual} and not to {expected}")]
    WrongRoot {
        /// The committed root.
        expected: B256,
        /// Where the path leads.
        actual: B256,
    },
    /// The path leads to other sums than those that were reported.
    #[error("the path adds up to {actual:?} and not to {expected:?}")]
    WrongTotals {
        /// The reported sums.
        expected: UsageTotals,
        /// What the path adds up to.
        actual: UsageTotals,
    },
    /// The statement is one of the leaves that were to prove its absence.
    #[error("statement {digest} is in the tree")]
    Included {
        /// The statement.
        digest: StatementDigest,
    },
    /// Absence is proven by no leaf in an empty tree, and by one or two in any other.
    #[error("{found} leaves are no proof of absence")]
    WrongNeighbourCount {
        /// Leaves given.
        found: usize,
    },
    /// The leaves before and after the statement are not neighbours.
    #[error("the leaves at {before} and {after} are not neighbours")]
    NotAdjacent {
        /// Position of the first leaf.
        before: u64,
        /// Position of the second.
        after: u64,
    },
    /// The leaves are not those between which the statement would stand.
    #[error("statement {digest} does not stand between {before} and {after}")]
    NotBetween {
        /// First leaf.
        before: StatementDigest,
        /// The statement.
        digest: StatementDigest,
        /// Second leaf.
        after: StatementDigest,
    },
    /// The statement would stand before the leaf, which is not the first one.
    #[error("the leaf behind which nothing is to be missing stands at {index} and is not the first")]
    NotFirst {
        /// Position of the leaf.
        index: u64,
    },
    /// The statement would stand behind the leaf, which is not the last one.
    #[error("the leaf before which nothing is to be missing stands at {index} of {requests} and is not the last")]
    NotLast {
        /// Position of the leaf.
        index: u64,
        /// Leaves of the tree.
        requests: u64,
    },
}

/// One statement as a leaf.
///
/// Members are as wide as in Solidity. Nothing relates them to one another: a leaf also comes in proofs by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Leaf {
    /// The statement.
    pub digest: StatementDigest,
    /// Its prompt tokens, cached ones included.
    pub prompt_tokens: u64,
    /// Its cached tokens.
    pub cached_tokens: u64,
    /// Its completion tokens.
    pub completion_tokens: u64,
    /// Its charge.
    pub charge: Amount,
}

impl Leaf {
    /// The leaf of a statement.
    pub const fn new(digest: StatementDigest, usage: RequestUsage, charge: Amount) -> Self {
        let counts = usage.counts();
        Self {
            digest,
            prompt_tokens: counts.prompt().get(),
            cached_tokens: counts.cached().get(),
            completion_tokens: counts.completion().get(),
            charge,
        }
    }

    /// What it adds to the sums.
    pub const fn sums(&self) -> UsageTotals {
        UsageTotals {
            requests: 1,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.completion_tokens,
            charge: self.charge,
        }
    }

    /// What stands for it in a tree, and what a question for the statement asks for.
    pub fn hash(&self) -> B256 {
        let mut hasher = Keccak256::new();
        hasher.update([LEAF_PREFIX]);
        hasher.update(self.digest.as_bytes());
        for count in [self.prompt_tokens, self.cached_tokens, self.completion_tokens] {
            hasher.update(count.to_be_bytes());
        }
        hasher.update(self.charge.get().to_be_bytes());
        hasher.finalize()
    }

    fn node(&self) -> Node {
        Node { hash: self.hash(), sums: self.sums() }
    }
}

/// A hash with the sums of everything below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    hash: B256,
    sums: UsageTotals,
}

impl Node {
    fn above(left: &Self, right: &Self) -> Result<Self, CountError> {
        let mut hasher = Keccak256::new();
        hasher.update([NODE_PREFIX]);
        left.write(&mut hasher);
        right.write(&mut hasher);
        Ok(Self { hash: hasher.finalize(), sums: left.sums.checked_add(right.sums)? })
    }

    fn root(&self) -> B256 {
        let mut hasher = Keccak256::new();
        hasher.update([ROOT_PREFIX]);
        self.write(&mut hasher);
        hasher.finalize()
    }

    fn write(&self, hasher: &mut Keccak256) {
        hasher.update(self.hash);
        let UsageTotals { requests, prompt_tokens, cached_tokens, completion_tokens, charge } = self.sums;
        for count in [requests, prompt_tokens, cached_tokens, completion_tokens] {
            hasher.update(count.to_be_bytes());
        }
        hasher.update(charge.get().to_be_bytes());
    }
}

/// What a host commits to for one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// The root; none without leaves, which is 0 on chain.
    pub root: Option<B256>,
    /// The sums over all leaves.
    pub totals: UsageTotals,
}

/// A node beside the path from a leaf to the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sibling {
    /// Its hash.
    pub hash: B256,
    /// Its sums.
    pub sums: UsageTotals,
    /// Whether it stands to the left of the path.
    pub left: bool,
}

/// Proof that a leaf is part of a tree. Comes from outside, so nothing in it is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// The leaf.
    pub leaf: Leaf,
    /// Siblings from the leaf's level upwards.
    pub path: Vec<Sibling>,
}

impl InclusionProof {
    /// Checks that the leaf is part of the committed tree, and gives its position, from 0.
    pub fn verify(&self, commitment: &Commitment) -> Result<u64, MerkleSumError> {
        let mut node = self.leaf.node();
        let mut index = 0_u64;
        for &Sibling { hash, sums, left } in &self.path {
            let sibling = Node { hash, sums };
            if left {
                // Everything to the left is part of the sum below, which would overflow as well.
                let overflow = CountError::TotalOverflow { what: "requests" };
                index = index.checked_add(sums.requests).ok_or(overflow)?;
                node = Node::above(&sibling, &node)?;
            } else {
                node = Node::above(&node, &sibling)?;
            }
        }
        if node.sums != commitment.totals {
            return Err(MerkleSumError::WrongTotals { expected: commitment.totals, actual: node.sums });
        }
        let (expected, actual) = (commitment.root.unwrap_or_default(), node.root());
        if actual == expected { Ok(index) } else { Err(MerkleSumError::WrongRoot { expected, actual }) }
    }
}

/// Proof that a statement is not part of a tree: the leaves beside which it would stand. None in an empty tree, one at
/// either end, two anywhere else. Comes from outside, so nothing in it is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AbsenceProof {
    /// The leaves, in their order.
    pub neighbours: Vec<InclusionProof>,
}

impl AbsenceProof {
    /// Checks that no leaf of the committed tree has this digest. Holds for trees that are sorted.
    pub fn verify(&self, commitment: &Commitment, digest: StatementDigest) -> Result<(), MerkleSumError> {
        match (commitment.root, self.neighbours.as_slice()) {
            (None, []) => Ok(()),
            (Some(_), [only]) => {
                let index = verify_other(only, commitment, digest)?;
                let requests = commitment.totals.requests;
                if digest < only.leaf.digest {
                    if index == 0 { Ok(()) } else { Err(MerkleSumError::NotFirst { index }) }
                } else if index.checked_add(1) == Some(requests) {
                    Ok(())
                } else {
                    Err(MerkleSumError::NotLast { index, requests })
                }
            }
            (Some(_), [first, second]) => {
                let before = verify_other(first, commitment, digest)?;
                let (left, right) = (first.leaf.digest, second.leaf.digest);
                if right != digest && !(left < digest && digest < right) {
                    return Err(MerkleSumError::NotBetween { before: left, digest, after: right });
                }
                let after = verify_other(second, commitment, digest)?;
                let adjacent = before.checked_add(1) == Some(after);
                if adjacent { Ok(()) } else { Err(MerkleSumError::NotAdjacent { before, after }) }
            }
            (_, neighbours) => Err(MerkleSumError::WrongNeighbourCount { found: neighbours.len() }),
        }
    }
}

fn verify_other(
    neighbour: &InclusionProof,
    commitment: &Commitment,
    digest: StatementDigest,
) -> Result<u64, MerkleSumError> {
    if neighbour.leaf.digest == digest {
        return Err(MerkleSumError::Included { digest });
    }
    neighbour.verify(commitment)
}

/// A whole tree, kept so that any proof can be read from it.
#[derive(Clone, Debug)]
pub struct MerkleSumTree {
    leaves: Vec<Leaf>,
    /// Every level, leaves first, up to the one with a single node. The last node of an odd level is carried up unchanged,
    /// which gives the shape of RFC 6962. One empty level without leaves.
    levels: Vec<Vec<Node>>,
    commitment: Commitment,
}

impl MerkleSumTree {
    /// Sorts the leaves by digest and builds the tree. Refuses two leaves of one statement, and sums that do not fit.
    pub fn new(mut leaves: Vec<Leaf>) -> Result<Self, MerkleSumError> {
        leaves.sort_unstable_by_key(|leaf| leaf.digest);
        let neighbours = leaves.iter().zip(leaves.iter().skip(1));
        if let Some((leaf, _)) = neighbours.into_iter().find(|(left, right)| left.digest == right.digest) {
            return Err(MerkleSumError::Duplicate { digest: leaf.digest });
        }
        let mut levels = Vec::new();
        let mut level: Vec<Node> = leaves.iter().map(Leaf::node).collect();
        let commitment = loop {
            match level.as_slice() {
                [] => break Commitment { root: None, totals: UsageTotals::ZERO },
                [top] => break Commitment { root: Some(top.root()), totals: top.sums },
                nodes => {
                    let above = nodes.chunks(2).map(|pair| match pair {
                        [left, right] => Node::above(left, right).map(Some),
                        single => Ok(single.first().copied()),
                    });
                    // `chunks` gives no empty slice, so every pair has a node above it.
                    let above = above.filter_map(Result::transpose).collect::<Result<_, CountError>>()?;
                    levels.push(std::mem::replace(&mut level, above));
                }
            }
        };
        Ok(Self { leaves, levels, commitment })
    }

    /// What is committed.
    pub const fn commitment(&self) -> Commitment {
        self.commitment
    }

    /// The leaves, sorted.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// What proves that a statement is part of the tree.
    pub fn prove_inclusion(&self, digest: StatementDigest) -> Result<InclusionProof, MerkleSumError> {
        let place = self.leaves.binary_search_by_key(&digest, |leaf| leaf.digest);
        let proof = place.ok().and_then(|index| self.proof_at(index));
        proof.ok_or(MerkleSumError::NotIncluded { digest })
    }

    /// What proves that a statement is not part of the tree.
    pub fn prove_absence(&self, digest: StatementDigest) -> Result<AbsenceProof, MerkleSumError> {
        let Err(place) = self.leaves.binary_search_by_key(&digest, |leaf| leaf.digest) else {
            return Err(MerkleSumError::Included { digest });
        };
        // Where it would stand: behind the leaf before this place, if any, and before the one at it, if any.
        let neighbours = [place.checked_sub(1), Some(place)].into_iter().flatten();
        Ok(AbsenceProof { neighbours: neighbours.filter_map(|index| self.proof_at(index)).collect() })
    }

    /// The proof of the leaf at this position, from 0; `None` outside of the tree.
    fn proof_at(&self, index: usize) -> Option<InclusionProof> {
        let leaf = *self.leaves.get(index)?;
        let mut path = Vec::new();
        let mut position = index;
        for level in &self.levels {
            let sibling = level.get(position ^ 1);
            path.extend(sibling.map(|node| Sibling { hash: node.hash, sums: node.sums, left: position & 1 == 1 }));
            position >>= 1;
        }
        Some(InclusionProof { leaf, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of RFC 6962 §2.1, word for word: split at the largest power of two below the length.
    fn definition(leaves: &[Leaf]) -> Node {
        if let [leaf] = leaves {
            return leaf.node();
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        Node::above(&definition(left), &definition(right)).unwrap()
    }

    fn leaves(count: u64) -> Vec<Leaf> {
        let leaf = |i: u64| Leaf {
            digest: alloy_primitives::keccak256(i.to_be_bytes()).into(),
            prompt_tokens: 7 * i + 3,
            cached_tokens: i,
            completion_tokens: i * i,
            charge: Amount::new(1_000 + u128::from(i)),
        };
        let mut leaves: Vec<Leaf> = (0..count).map(leaf).collect();
        leaves.sort_by_key(|leaf| leaf.digest);
        leaves
    }

    #[test]
    fn roots_follow_the_definition_and_every_leaf_is_proven_at_its_place() {
        for count in (1..40).chain([63, 64, 65, 255, 256, 257]) {
            let leaves = leaves(count);
            let tree = MerkleSumTree::new(leaves.iter().rev().copied().collect()).unwrap();
            let top = definition(&leaves);
            let commitment = Commitment { root: Some(top.root()), totals: top.sums };
            assert_eq!(tree.commitment(), commitment, "{count}");
            assert_eq!(commitment.totals.requests, count);
            for (index, leaf) in (0..).zip(&leaves) {
                let proof = tree.prove_inclusion(leaf.digest).unwrap();
                assert_eq!(proof.verify(&commitment), Ok(index), "{count}");
                assert!(proof.path.len() <= 9);
            }
        }
    }

    #[test]
    fn hashed_bytes_are_as_long_as_they_are_defined() {
        // 1 + 32 + 3 · 8 + 16, 1 + 2 · (32 + 48) and 1 + 32 + 48 bytes: no leaf, node or root is as long as another kind.
        let leaf = leaves(1)[0];
        let mut bytes = vec![0x00];
        bytes.extend_from_slice(leaf.digest.as_bytes());
        for count in [leaf.prompt_tokens, leaf.cached_tokens, leaf.completion_tokens] {
            bytes.extend_from_slice(&count.to_be_bytes());
        }
        bytes.extend_from_slice(&leaf.charge.get().to_be_bytes());
        assert_eq!(bytes.len(), 73);
        assert_eq!(leaf.hash(), alloy_primitives::keccak256(&bytes));
    }

    #[test]
    fn a_node_cannot_pass_for_a_leaf() {
        let leaves = leaves(4);
        let tree = MerkleSumTree::new(leaves).unwrap();
        let node = tree.levels[1][0];
        // Whoever shows an inner node as a leaf would have to find a statement with its hash.
        let sibling = tree.levels[1][1];
        let proof = InclusionProof {
            leaf: Leaf {
                digest: node.hash.into(),
                prompt_tokens: node.sums.prompt_tokens,
                cached_tokens: node.sums.cached_tokens,
                completion_tokens: node.sums.completion_tokens,
                charge: node.sums.charge,
            },
            path: vec![Sibling { hash: sibling.hash, sums: sibling.sums, left: false }],
        };
        assert!(matches!(proof.verify(&tree.commitment()), Err(MerkleSumError::WrongTotals { .. })));
        // Also when the sums are made to fit, by one request less beside it.
        let mut forged = proof;
        forged.path[0].sums.requests += node.sums.requests - 1;
        assert!(matches!(forged.verify(&tree.commitment()), Err(MerkleSumError::WrongRoot { .. })));
    }
}
